"""Figure of a plan: loss against N at the budget with each optimum, and trade-offs between skills."""

import math
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from skillscale.formatting import format_count, power
from skillscale.laws.forms.nd import Array
from skillscale.laws.optimum.ensemble import Ensemble, SkillLaw, resolve_shares
from skillscale.laws.optimum.plan import AROUND, Plan, TradeoffFrontier
from skillscale.report.style import GREY, INK, SKILL_COLOURS, STYLE, WIDTH, set_log_axis

_POINTS = 121
_ABOVE = 6.0  # per cent, upper end of the loss axis
_LINE = 0.45  # per cent, distance between the bars of N* under the curves


def draw_plan(plans: Sequence[Plan], laws: Mapping[str, SkillLaw], skills: Sequence[str]) -> Figure:
    """Draw one row per budget: loss against N, in per cent above its minimum, and the trade-offs between skills."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.1 * len(plans) + 0.5), layout="constrained")
        FigureCanvasAgg(figure)
        rows = figure.subplots(len(plans), 2, squeeze=False)
        colours = {name: SKILL_COLOURS[at % len(SKILL_COLOURS)] for at, name in enumerate(skills)}
        for plan, (loss_panel, tradeoff_panel) in zip(plans, rows, strict=True):
            _draw_losses(loss_panel, plan, laws, colours)
            _draw_tradeoffs(tradeoff_panel, plan.frontiers, colours)
        handles = [Line2D([], [], color=INK, linewidth=1.8, label="weighted")]
        handles += [Line2D([], [], color=colour, linewidth=1.2, label=name) for name, colour in colours.items()]
        if any(plan.best for plan in plans):
            handles.append(Line2D([], [], color=GREY, linewidth=1.0, linestyle=(0, (4, 2)), label="with the best mix"))
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6))
        return figure


def _draw_losses(panel: Axes, plan: Plan, laws: Mapping[str, SkillLaw], colours: Mapping[str, str]) -> None:
    """Draw the estimated curves, and N* of each curve with its interval below them."""
    panel.set_title(f"C = {power(plan.optimum.C)} FLOP")
    if not math.isfinite(plan.optimum.N.value):
        panel.text(0.5, 0.5, "no optimum in range", transform=panel.transAxes, ha="center", color=GREY)
        return
    requested = [size.N for size in plan.size_costs if size.requested]
    first, last = (f([plan.optimum.N.value / AROUND, plan.optimum.N.value * AROUND, *requested]) for f in (min, max))
    s = np.linspace(math.log(first), math.log(last), _POINTS)
    curves = {"weighted": (dict(plan.optimum.weights), plan.optimum.N, INK)}
    curves |= {name: ({name: 1.0}, plan.skill_optima[name].N, colour) for name, colour in colours.items()}
    for at, (name, (weights, N, colour)) in enumerate(curves.items()):
        first_one = at == 0
        above = 100 * _above_least(laws, weights, plan, s)
        panel.plot(np.exp(s), above, color=colour, linewidth=1.8 if first_one else 1.2, zorder=2 + first_one, gid=name)
        panel.plot([N.lo, N.hi], [-(at + 1) * _LINE] * 2, color=colour, linewidth=2.2 if first_one else 1.4, gid="bar")
        panel.plot([N.value], [-(at + 1) * _LINE], color=colour, marker="o", markersize=4, gid="optimum")
    panel.axhline(0, color=GREY, linewidth=0.6)
    panel.set_ylim(-(len(curves) + 0.8) * _LINE, _ABOVE)
    panel.set_yticks(np.arange(0, _ABOVE + 1, 2))
    set_log_axis(panel.xaxis, first, last, format_count)
    panel.set_xlabel("N, parameters (bars: N* with its interval)")
    panel.set_ylabel("loss above its minimum, %")
    panel.grid(axis="x")


def _above_least(laws: Mapping[str, SkillLaw], weights: Mapping[str, float], plan: Plan, s: Array) -> Array:
    """Return the estimated loss along the budget relative to its minimum, minus 1, (n,)."""
    shares = resolve_shares(laws, {name: share.value for name, share in plan.optimum.mix.items()} or None)
    estimate = Ensemble(parts=(Ensemble.of(laws, weights, shares).estimate,))
    t = math.log(plan.optimum.C / 6)
    values = np.array([estimate.at(np.array([place]), t, shares)[0] for place in s])
    best = estimate.log_optimum(t, shares)
    least = estimate.at(best, t, shares)[0] if np.isfinite(best[0]) else values.min()
    return np.asarray(values / least - 1)


def _draw_tradeoffs(panel: Axes, frontiers: Sequence[TradeoffFrontier], colours: Mapping[str, str]) -> None:
    """Draw the loss of each skill against that of the others as its weight goes from 0 to 1. The plan is at 0, 0."""
    panel.set_title("trade-offs between a skill and the others")
    for frontier in (frontier for frontier in frontiers if frontier.points):
        x, y = (
            [100 * math.expm1(change.value) for change in changes]
            for changes in zip(*((step.rest_change, step.skill_change) for step in frontier.points), strict=True)
        )
        colour, line = colours.get(frontier.skill, GREY), (0, (4, 2)) if frontier.with_mix else "-"
        panel.plot(x, y, color=colour, linewidth=1.2, linestyle=line, gid="frontier")
        panel.plot(x[-1:], y[-1:], color=colour, marker=">", markersize=4, linestyle="none", gid="all")
    if not frontiers:
        panel.text(0.5, 0.5, "one skill only", transform=panel.transAxes, ha="center", color=GREY)
    panel.plot([0], [0], color=INK, marker="o", markersize=5, linestyle="none", gid="plan")
    panel.annotate("the plan", (0, 0), textcoords="offset points", xytext=(6, 6), fontsize=7.5)
    panel.set_xlabel("loss of the others relative to the plan, %")
    panel.set_ylabel("loss of the skill relative to the plan, %\n(arrow: all weight on it)")
    panel.grid(visible=True)
