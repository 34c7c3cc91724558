"""Fitted laws as figures: each skill's N*(C) with its interval, and how far the runs lie from the law."""

import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from skillscale.formatting import format_count, power
from skillscale.laws.fit.skill_law import FittedLaw
from skillscale.report.laws import Laws
from skillscale.report.style import GREY, INK, SKILL_COLOURS, STYLE, WIDTH, label_axes, make_panels, set_log_axis

_STEPS = 24  # computes at which N*(C) is drawn
_OFF = 0.05  # width of the axis of errors that is never gone below, in ln L


def draw_law_figures(laws: Laws, flops: Sequence[float]) -> dict[str, Figure]:
    """Every figure there is to draw, by file name; none where no skill has a law."""
    fitted = {name: one for name, one in laws.items() if isinstance(one, FittedLaw)}
    if not fitted:
        return {}
    return {"law-optima": draw_law_optima(fitted, flops), "law-errors": draw_law_errors(fitted)}


def draw_law_optima(fitted: dict[str, FittedLaw], flops: Sequence[float]) -> Figure:
    """N*(C) of each skill with its interval, solid within the compute of the runs and dashed beyond."""
    with mpl.rc_context(STYLE):
        figure, panels = make_panels(len(fitted), height=2.2, share_y=True)
        ends = [(6 * one.points.N * one.points.D) for one in fitted.values()]
        first, last = min(float(C.min()) for C in ends), max(*flops, *(float(C.max()) for C in ends))
        bounds: list[float] = []
        for at, (panel, (name, one)) in enumerate(zip(panels, fitted.items(), strict=True)):
            bounds += _optimum_line(panel, one, first, last, SKILL_COLOURS[at % len(SKILL_COLOURS)])
            panel.set_title(name)
            panel.grid(visible=True)
        known = [bound for bound in bounds if math.isfinite(bound) and bound > 0]
        for panel in panels:
            set_log_axis(panel.xaxis, first / 1.3, last * 1.3, power)
            if known:
                set_log_axis(panel.yaxis, min(known) / 1.3, max(known) * 1.3, format_count)
        label_axes(panels, "C = 6 N D, FLOP", "N*, parameters")
        return figure


def _optimum_line(panel: Axes, one: FittedLaw, first: float, last: float, colour: str) -> list[float]:
    C = np.geomspace(first, last, _STEPS)
    value, drawn = one.log_optima_of(one.fit.theta[None], C)[0], one.optima_over_laws(C)
    tails = [(1 - one.level) / 2, (1 + one.level) / 2]
    there = np.isfinite(value) & (np.isfinite(drawn).mean(0) > 0.99)
    if not there.any():
        panel.text(0.5, 0.5, "no optimum inside", transform=panel.transAxes, ha="center", color=GREY)
        return []
    lo, hi = np.exp(np.nanquantile(drawn[:, there], tails, axis=0))
    N, at = np.exp(value[there]), C[there]
    largest = float((6 * one.points.N * one.points.D).max())
    inside = at <= largest * 1.01
    panel.fill_between(at, lo, hi, color=colour, alpha=0.18, linewidth=0)
    panel.plot(at[inside], N[inside], color=colour, linewidth=1.4, gid="optimum")
    beyond = ~inside | np.roll(~inside, -1)  # from the last point inside, so that the line has no gap
    panel.plot(at[beyond], N[beyond], color=colour, linewidth=1.2, linestyle=(0, (4, 2)), gid="beyond")
    panel.axvline(largest, color=GREY, linewidth=0.7, linestyle=":")
    return [*np.clip(lo, N / 30, None).tolist(), *np.clip(hi, None, N * 30).tolist()]


def draw_law_errors(fitted: dict[str, FittedLaw]) -> Figure:
    """Each run's loss over the law's, less one, against its compute; the colour tells its size."""
    with mpl.rc_context(STYLE):
        number = len(fitted)
        figure = Figure(figsize=(WIDTH, 1.7 * math.ceil(number / 2) + 0.7), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(math.ceil(number / 2), min(number, 2), squeeze=False, sharex=True)
        sizes = np.concatenate([one.points.N for one in fitted.values()])
        norm = LogNorm(sizes.min() / 1.01, sizes.max() * 1.01)
        panels = list(grid.flat)
        for panel, (name, one) in zip(panels, fitted.items(), strict=False):
            _error_panel(panel, one, norm)
            panel.set_title(name)
        for spare in panels[number:]:
            spare.set_axis_off()
        label_axes(panels[:number], "C = 6 N D, FLOP", "loss over law, %")
        handles = [
            Line2D([], [], linestyle="none", marker="o", markersize=4, color=colormaps["viridis"](float(norm(N))),
                   label=f"N = {format_count(float(N), 2)}")
            for N in np.quantile(sizes, [0, 0.5, 1])
        ]  # fmt: skip
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
        return figure


def _error_panel(panel: Axes, one: FittedLaw, norm: LogNorm) -> None:
    C, error = 6 * one.points.N * one.points.D, 100 * np.expm1(one.fit.residuals)
    reach = 100 * max(_OFF / 5, float(np.quantile(np.abs(one.fit.residuals), 0.995)) * 1.3)
    outside = np.abs(error) > reach
    panel.axhline(0, color=INK, linewidth=0.8)
    panel.scatter(C, np.clip(error, -reach, reach), c=colormaps["viridis"](norm(one.points.N)), s=8, linewidths=0)
    if outside.any():
        panel.text(0.99, 0.95, f"{outside.sum()} beyond the axis", transform=panel.transAxes, ha="right", va="top",
                   fontsize=7, color=GREY)  # fmt: skip
    panel.set_ylim(-1.05 * reach, 1.05 * reach)
    set_log_axis(panel.xaxis, float(C.min()) / 1.3, float(C.max()) * 1.3, power)
    panel.grid(axis="y")
