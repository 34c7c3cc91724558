"""Fitted values as figures: isoFLOP curves with their optima, N*(C), residuals. Nothing is computed here.

Budgets run along viridis, dark to light with growing C.
"""

import math
from collections.abc import Iterable, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from skillscale.formatting import format_count, format_log_ratio, power
from skillscale.laws.results import IsoflopMinimum, PowerLaw, SizeGap, Status, StudyResults, Verdict
from skillscale.report.style import (
    GREY,
    INK,
    SKILL_COLOURS,
    SOFT,
    STYLE,
    WIDTH,
    draw_legend,
    label_axes,
    make_panels,
    set_log_axis,
)

# Ticks of the residuals in per cent, as pairs below and above 0, finest first
_RATIO_STEPS = (
    ((-1, 1), (-2, 2)),
    ((-2, 2), (-5, 5)),
    ((-5, 5), (-10, 10)),
    ((-10, 10), (-20, 25)),
    ((-20, 25), (-33, 50)),
    ((-33, 50), (-50, 100)),
    ((-50, 100), (-75, 300)),
    ((-67, 200), (-90, 900)),
    ((-90, 900), (-99, 9900)),
)
_SEED_MARKERS = ("o", "s", "^", "v", "D", "P", "X", "<", ">")


def draw_isoflop_curves(fits: StudyResults, mix: str) -> Figure:
    """Loss against N: a panel a skill and aggregate, a colour a budget, with runs, parabolas, optima and refusals."""
    with mpl.rc_context(STYLE):
        names = (*fits.skills, *fits.aggregates)
        figure, panels = make_panels(len(names), height=2.35, share_y=False)
        runs = fits.runs[fits.runs["mix"] == mix]
        colours = _budget_colours(fits, mix)
        for panel, name in zip(panels, names, strict=True):
            _isoflop_panel(panel, name, runs, [m for m in fits.minima if (m.mix, m.skill) == (mix, name)], colours)
            panel.set_title(_title(fits, name))
            panel.set_title(_refusal(fits, mix, name), loc="right", fontsize=7, fontweight="normal", color=SOFT)
        sizes = runs["N"].to_numpy(dtype=float)
        for panel in panels:
            set_log_axis(panel.xaxis, sizes.min() / 1.3, sizes.max() * 3, format_count)
        label_axes(panels, "N, parameters", "loss, nats per token")
        draw_legend(figure, _isoflop_key(runs, fits))
        _part_labels(figure, panels)
        return figure


def _refusal(fits: StudyResults, mix: str, name: str) -> str:
    """Why the dashed curves of a panel have no optimum, short enough for its head."""
    refused: dict[str, list[float]] = {}
    every = [one for one in fits.minima if (one.mix, one.skill) == (mix, name)]
    for one in every:
        if one.status is not Status.OK:
            refused.setdefault(str(one.status), []).append(one.C)
    if not refused:
        return ""
    if len(refused) == 1:
        [(status, budgets)] = refused.items()
        where = (
            ", ".join(map(power, budgets)) if len(budgets) < min(3, len(every)) else f"{len(budgets)} of {len(every)}"
        )
        return f"{status}: {where}"
    return f"no optimum: {sum(map(len, refused.values()))} of {len(every)}"


def _part_labels(figure: Figure, panels: Sequence[Axes]) -> None:
    """Move the curves' labels up until none lies on another; the layout has to be settled first."""
    figure.draw_without_rendering()
    points = 72 / figure.dpi
    for panel in panels:
        placed: list[Bbox] = []
        for label in sorted(panel.texts, key=lambda text: text.get_window_extent().y0):
            box = label.get_window_extent()
            lift = 0.0
            for other in placed:
                if box.translated(0, lift).overlaps(other):
                    lift = other.y1 - box.y0
            placed.append(box.translated(0, lift))
            if lift and isinstance(label, Annotation):
                label.xyann = (5, lift * points)


def _isoflop_panel(
    panel: Axes, name: str, runs: pd.DataFrame, minima: Sequence[IsoflopMinimum], colours: dict[float, str]
) -> None:
    for C, seed in sorted(set(zip(runs["C"].tolist(), runs["seed"].tolist(), strict=True))):
        group = runs[(runs["C"] == C) & (runs["seed"] == seed) & runs[name].notna()]
        panel.plot(
            group["N"], group[name], linestyle="none", marker=_marker(_seeds(runs, C), seed), markersize=4, gid="runs",
            markerfacecolor=to_hex(colours[C]) + "99", markeredgecolor=colours[C], markeredgewidth=0.7,
        )  # fmt: skip
    for minimum in minima:
        _isoflop_curve(panel, minimum, colours[minimum.C])
    panel.grid(axis="y")
    panel.margins(y=0.1)


def _isoflop_curve(panel: Axes, minimum: IsoflopMinimum, colour: str) -> None:
    found = minimum.status is Status.OK
    curve = minimum.curve
    if curve is not None:
        sizes = np.geomspace(curve.N_min, curve.N_max, 200)
        panel.plot(
            sizes, curve.loss(sizes), color=colour, gid="curve" if found else "refused curve",
            linewidth=1.3 if found else 1.0, linestyle="-" if found else (0, (4, 2)), zorder=1.8,
        )  # fmt: skip
        panel.annotate(
            power(minimum.C), (curve.N_max, float(curve.loss(curve.N_max))), xytext=(5, 0),
            textcoords="offset points", color=_darker(colour), va="center", fontsize=7,
        )  # fmt: skip
    if found:
        _interval_x(panel, minimum.N, minimum.loss, colour)


def _interval_x(panel: Axes, interval: object, y: float, colour: str) -> None:
    value, lo, hi = (getattr(interval, part) for part in ("value", "lo", "hi"))
    panel.plot([lo, hi], [y, y], color=INK, linewidth=1.4, solid_capstyle="butt", marker="|", markersize=6,
               markeredgewidth=1.1, gid="interval", zorder=4)  # fmt: skip
    panel.plot([value], [y], marker="D", markersize=6, markerfacecolor=colour, markeredgecolor="white",
               markeredgewidth=0.9, gid="optimum", zorder=5)  # fmt: skip


def _isoflop_key(runs: pd.DataFrame, fits: StudyResults) -> list[Line2D]:
    most = max(len(_seeds(runs, C)) for C in runs["C"].unique())
    key = [
        Line2D([], [], linestyle="none", marker=marker, color=SOFT, markersize=4, label=f"{nth} seed of a budget")
        for nth, marker in zip(("first", "second", "third", "fourth")[:most], _SEED_MARKERS, strict=False)
    ]
    key.append(Line2D([], [], color=INK, marker="D", markersize=5, markeredgecolor="white", linewidth=1.4,
                      label=f"optimum with {_level(fits)} interval"))  # fmt: skip
    if any(minimum.status is not Status.OK and minimum.curve for minimum in fits.minima):
        key.append(Line2D([], [], color=SOFT, linestyle=(0, (4, 2)), linewidth=1.0, label="no optimum claimed"))
    key.append(Line2D([], [], linestyle="none", label="at the curves: their budget C in FLOP"))
    return key


def draw_optima(fits: StudyResults, mix: str) -> Figure:
    """N* against C: a panel a skill with its interval at each budget, its power law, and the law's frontier dashed.

    The aggregate stands in every panel in grey, to compare with.
    """
    with mpl.rc_context(STYLE):
        names = fits.skills or fits.aggregates
        figure, panels = make_panels(len(names), height=2.35, share_y=True)
        reference = fits.aggregates[0] if fits.aggregates and fits.skills else None
        for index, (panel, name) in enumerate(zip(panels, names, strict=True)):
            colour = SKILL_COLOURS[index % len(SKILL_COLOURS)]
            if reference is not None:
                _optima_series(panel, fits, (mix, reference), GREY, shift=1.05)
            _optima_series(panel, fits, (mix, name), colour, shift=1 / 1.05 if reference else 1.0)
            _frontier(panel, fits, (mix, name), colour)
            panel.set_title(name, color=colour)
            panel.grid()
        _optima_axes(panels, fits, mix)
        label_axes(panels, "C = 6 N D, FLOP", "N*, parameters")
        draw_legend(figure, _optima_key(fits, reference))
        return figure


def _optima_series(panel: Axes, fits: StudyResults, key: tuple[str, str], colour: str, *, shift: float) -> None:
    """``shift`` moves the points a little along C, so that intervals of two series don't hide each other."""
    law = next((one for one in fits.power_laws if (one.mix, one.skill) == key and one.status is Status.OK), None)
    if law is not None:
        _power_law(panel, law, _budgets(fits, key[0]), colour)
    for one in fits.minima:
        if (one.mix, one.skill) == key and one.N.is_finite:
            panel.errorbar(
                [one.C * shift], [one.N.value], yerr=[[one.N.value - one.N.lo], [one.N.hi - one.N.value]], color=colour,
                marker="D", markersize=4.5, markeredgecolor="white", elinewidth=1.2, capsize=2.5, gid="optimum",
                zorder=4,
            )  # fmt: skip


def _frontier(panel: Axes, fits: StudyResults, key: tuple[str, str], colour: str) -> None:
    points = _frontier_points(fits, key)
    if len(points) > 1:
        panel.plot(*zip(*points, strict=True), color=colour, linestyle=(0, (3, 2)), linewidth=0.9, gid="frontier")
    if not any((one.mix, one.skill) == key and one.N.is_finite for one in fits.minima):
        panel.text(0.04, 0.94, "no optimum could be claimed", transform=panel.transAxes, va="top", color=SOFT)


def _frontier_points(fits: StudyResults, key: tuple[str, str]) -> list[tuple[float, float]]:
    if not any((one.mix, one.skill) == key and one.status is Status.OK for one in fits.laws):
        return []
    mine = [one for one in fits.curve_versus_law if (one.mix, one.skill) == key]
    return sorted((one.C, one.law.value) for one in mine if math.isfinite(one.law.value))


def _power_law(panel: Axes, law: PowerLaw, budgets: Sequence[float], colour: str) -> None:
    grid = np.geomspace(budgets[0] / 1.3, budgets[-1] * 1.3, 40)
    at = [law.N(float(C)) for C in grid]
    panel.plot(grid, [one.value for one in at], color=colour, linewidth=1.3, gid="power law")
    if all(one.is_finite for one in at):
        panel.fill_between(grid, [one.lo for one in at], [one.hi for one in at], color=colour, alpha=0.13, linewidth=0)


def _optima_axes(panels: Sequence[Axes], fits: StudyResults, mix: str) -> None:
    budgets = _budgets(fits, mix)
    known = [bound for one in fits.minima if one.mix == mix and one.N.is_finite for bound in (one.N.lo, one.N.hi)]
    runs = fits.runs.loc[fits.runs["mix"] == mix, "N"]
    bounds = known or [float(runs.min()), float(runs.max())]
    for panel in panels:
        set_log_axis(panel.xaxis, budgets[0] / 1.6, budgets[-1] * 1.6, power, at=budgets)
        set_log_axis(panel.yaxis, min(bounds) / 1.25, max(bounds) * 1.25, format_count)


def _optima_key(fits: StudyResults, reference: str | None) -> list[Line2D]:
    key = [Line2D([], [], color=INK, marker="D", markersize=4.5, markeredgecolor="white", linestyle="none",
                  label=f"optimum, {_level(fits)} interval")]  # fmt: skip
    if any(one.status is Status.OK for one in fits.power_laws):
        key.append(Line2D([], [], color=INK, linewidth=1.3, label="power law through the optima"))
    if any(len(_frontier_points(fits, (one.mix, one.skill))) > 1 for one in fits.curve_versus_law):
        key.append(Line2D([], [], color=INK, linewidth=0.9, linestyle=(0, (3, 2)), label="by the law"))
    if reference is not None:
        key.append(
            Line2D(
                [],
                [],
                color=GREY,
                linewidth=3,
                label=reference if reference == "aggregate" else f"{reference} (aggregate)",
            )
        )
    return key


def draw_size_gaps(fits: StudyResults, mix: str) -> Figure:
    """N*(skill) against N*(aggregate): at each budget and pooled, with intervals, and the verdict in words."""
    with mpl.rc_context(STYLE):
        rows = _residual_rows(fits, mix)
        figure = Figure(figsize=(WIDTH, 0.95 + 0.19 * sum(len(group) + 0.9 for _, group in rows)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        reach = _reach([one for _, group in rows for one in group])
        axes.axvline(0, color=INK, linewidth=0.9, gid="zero")
        y, ticks, labels = 0.0, [], []
        for index, (skill, group) in enumerate(rows):
            colour = SKILL_COLOURS[index % len(SKILL_COLOURS)]
            axes.text(-0.015, y, skill, transform=axes.get_yaxis_transform(), ha="right", va="center", weight="bold",
                      color=colour, fontsize=9)  # fmt: skip
            for one in group:
                y += 1
                _residual_row(axes, one, y, colour, reach, fits.level)
                ticks.append(y)
                labels.append("pooled" if one.pooled else power(one.C))
            y += 1.9
        _residual_axes(axes, reach, ticks, labels, level=_level(fits))
        return figure


def _residual_rows(fits: StudyResults, mix: str) -> list[tuple[str, list[SizeGap]]]:
    aggregate = fits.aggregates[0] if fits.aggregates else ""
    rows = []
    for skill in fits.skills:
        mine = [one for one in fits.size_gaps if (one.mix, one.skill, one.aggregate) == (mix, skill, aggregate)]
        rows.append((skill, sorted(mine, key=lambda one: math.inf if one.pooled else one.C)))
    return [(skill, group) for skill, group in rows if group]


def _reach(values: Iterable[SizeGap]) -> float:
    """Half-width of the axis in ln ratio: whole intervals where they fit within a factor 6, else cut with an arrow."""
    estimates = [abs(one.value.value) for one in values if one.value.is_finite]
    bounds = [abs(bound) for one in values if one.value.is_finite for bound in (one.value.lo, one.value.hi)]
    widest = max([0.1, *bounds])
    return 1.08 * min(widest, max([math.log(6), *(1.2 * one for one in estimates)]))


def _residual_row(axes: Axes, one: SizeGap, y: float, colour: str, reach: float, level: float) -> None:
    beside = axes.get_yaxis_transform()
    if not one.value.is_finite:
        axes.text(1.015, y, f"{one.status}", transform=beside, va="center", fontsize=7, color=SOFT, gid="refused")
        return
    lo, hi = max(one.value.lo, -reach), min(one.value.hi, reach)
    axes.plot([lo, hi], [y, y], color=colour, linewidth=2.6 if one.pooled else 1.2, solid_capstyle="butt",
              alpha=1.0 if one.pooled else 0.75, gid="interval")  # fmt: skip
    for bound, edge, marker in ((one.value.lo, -reach, "<"), (one.value.hi, reach, ">")):
        if abs(bound) > reach and bound * edge > 0:
            axes.plot([edge], [y], marker=marker, color=colour, markersize=4, clip_on=False, gid="cut")
    axes.plot([one.value.value], [y], marker="D" if one.pooled else "o", markersize=7 if one.pooled else 4.5,
              color=colour, markeredgecolor="white", markeredgewidth=0.8, zorder=4,
              gid="pooled" if one.pooled else "residual")  # fmt: skip
    words = f"{format_log_ratio(one.value.value)}  [{format_log_ratio(one.value.lo)}, {format_log_ratio(one.value.hi)}]"
    stands = one.pooled and one.describe_verdict(level) in (Verdict.CAPACITY, Verdict.DATA)
    axes.text(1.015, y, f"{words}  {one.describe_verdict(level)}" if one.pooled else words, transform=beside, va="center",
              fontsize=7.5 if one.pooled else 7, color=INK if one.pooled else SOFT,
              weight="bold" if stands else "normal")  # fmt: skip


def _residual_axes(axes: Axes, reach: float, ticks: Sequence[float], labels: Sequence[str], *, level: str) -> None:
    axes.set_xlim(-reach, reach)
    axes.set_ylim(max(ticks, default=1.0) + 0.8, -0.8)
    axes.set_yticks(list(ticks), list(labels), fontsize=7)
    axes.tick_params(axis="y", length=0)
    at = _ratio_ticks(reach)
    axes.set_xticks(at, [format_log_ratio(value) if value else "0" for value in at])
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("parameters at the optimum, against the aggregate's (log scale)")
    heads = ((-0.015, "right", "C, FLOP"), (0.48, "right", "← data-hungry"), (0.52, "left", "capacity-hungry →"))
    for x, side, words in (*heads, (1.015, "left", f"difference [{level} interval]")):
        axes.text(x, 1.01, words, transform=axes.transAxes, ha=side, va="bottom", fontsize=7.5, color=SOFT)


def _ratio_ticks(reach: float) -> list[float]:
    """Ticks in ln ratio at round percentages either side of 0, few enough for their labels to stay apart."""
    steps = next((steps for steps in _RATIO_STEPS if math.log1p(steps[0][1] / 100) > reach / 4.5), _RATIO_STEPS[-1])
    pairs = [(math.log1p(down / 100), math.log1p(up / 100)) for down, up in steps]
    return sorted([0.0, *(tick for pair in pairs if max(map(abs, pair)) < reach for tick in pair)])


def _budgets(fits: StudyResults, mix: str) -> list[float]:
    return sorted(
        {float(C) for C in fits.runs.loc[fits.runs["mix"] == mix, "C"]} | {m.C for m in fits.minima if m.mix == mix}
    )


def _budget_colours(fits: StudyResults, mix: str) -> dict[float, str]:
    """Along viridis, short of its lightest end, which doesn't print."""
    budgets = _budgets(fits, mix)
    places = np.linspace(0.05, 0.78, len(budgets)) if len(budgets) > 1 else [0.25]
    return {C: to_hex(colormaps["viridis"](place)) for C, place in zip(budgets, places, strict=True)}


def _darker(colour: str) -> str:
    """For small text, which needs more contrast than a line."""
    red, green, blue = to_rgb(colour)
    return to_hex((0.7 * red, 0.7 * green, 0.7 * blue))


def _seeds(runs: pd.DataFrame, C: float) -> list[int]:
    """The seeds of a budget: other budgets may have others."""
    return sorted({int(seed) for seed in runs.loc[runs["C"] == C, "seed"]})


def _marker(seeds: Sequence[int], seed: int) -> str:
    return _SEED_MARKERS[seeds.index(seed) % len(_SEED_MARKERS)]


def _title(fits: StudyResults, name: str) -> str:
    return f"{name} (aggregate)" if name in fits.aggregates and name != "aggregate" else name


def _level(fits: StudyResults) -> str:
    return f"{100 * fits.level:.3g} %"
