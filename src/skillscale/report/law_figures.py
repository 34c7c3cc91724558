"""Figures of fitted laws: N*(C) of each skill with its interval, and the residuals of the runs."""

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

_STEPS = 24  # values of C at which N*(C) is drawn
_OFF = 0.05  # smallest width of the axis of errors, ln L


def draw_law_figures(laws: Laws, flops: Sequence[float]) -> dict[str, Figure]:
    """Return the figures by file name; none if no skill has a law."""
    laws_fitted = {name: law for name, law in laws.items() if isinstance(law, FittedLaw)}
    if not laws_fitted:
        return {}
    return {"law-optima": draw_law_optima(laws_fitted, flops), "law-errors": draw_law_errors(laws_fitted)}


def draw_law_optima(fitted: dict[str, FittedLaw], flops: Sequence[float]) -> Figure:
    """Draw N*(C) of each skill with its interval, dashed beyond the compute of the runs."""
    with mpl.rc_context(STYLE):
        figure, panels = make_panels(len(fitted), height=2.2, share_y=True)
        ends = [(6 * law.runs.N * law.runs.D) for law in fitted.values()]
        first, last = min(float(C.min()) for C in ends), max(*flops, *(float(C.max()) for C in ends))
        bounds: list[float] = []
        for at, (panel, (name, law)) in enumerate(zip(panels, fitted.items(), strict=True)):
            bounds += _draw_law_optimum(panel, law, first, last, SKILL_COLOURS[at % len(SKILL_COLOURS)])
            panel.set_title(name)
            panel.grid(visible=True)
        positive = [bound for bound in bounds if math.isfinite(bound) and bound > 0]
        for panel in panels:
            set_log_axis(panel.xaxis, first / 1.3, last * 1.3, power)
            if positive:
                set_log_axis(panel.yaxis, min(positive) / 1.3, max(positive) * 1.3, format_count)
        label_axes(panels, "C = 6 N D, FLOP", "N*, parameters")
        return figure


def _draw_law_optimum(panel: Axes, law: FittedLaw, first: float, last: float, colour: str) -> list[float]:
    C = np.geomspace(first, last, _STEPS)
    value, drawn = law.log_optima_for(law.fit.theta[None], C)[0], law.ensemble_log_optima(C)
    tails = [(1 - law.level) / 2, (1 + law.level) / 2]
    there = np.isfinite(value) & (np.isfinite(drawn).mean(0) > 0.99)
    if not there.any():
        panel.text(0.5, 0.5, "no optimum in range", transform=panel.transAxes, ha="center", color=GREY)
        return []
    lo, hi = np.exp(np.nanquantile(drawn[:, there], tails, axis=0))
    N, at = np.exp(value[there]), C[there]
    largest = float((6 * law.runs.N * law.runs.D).max())
    inside = at <= largest * 1.01
    panel.fill_between(at, lo, hi, color=colour, alpha=0.18, linewidth=0)
    panel.plot(at[inside], N[inside], color=colour, linewidth=1.4, gid="optimum")
    beyond = ~inside | np.roll(~inside, -1)  # from the last point inside, so that the line has no gap
    panel.plot(at[beyond], N[beyond], color=colour, linewidth=1.2, linestyle=(0, (4, 2)), gid="beyond")
    panel.axvline(largest, color=GREY, linewidth=0.7, linestyle=":")
    return [*np.clip(lo, N / 30, None).tolist(), *np.clip(hi, None, N * 30).tolist()]


def draw_law_errors(fitted: dict[str, FittedLaw]) -> Figure:
    """Draw the relative error of the law for each run against compute, coloured by model size."""
    with mpl.rc_context(STYLE):
        number = len(fitted)
        figure = Figure(figsize=(WIDTH, 1.7 * math.ceil(number / 2) + 0.7), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(math.ceil(number / 2), min(number, 2), squeeze=False, sharex=True)
        sizes = np.concatenate([law.runs.N for law in fitted.values()])
        norm = LogNorm(sizes.min() / 1.01, sizes.max() * 1.01)
        panels = list(grid.flat)
        for panel, (name, law) in zip(panels, fitted.items(), strict=False):
            _draw_error_panel(panel, law, norm)
            panel.set_title(name)
        for spare in panels[number:]:
            spare.set_axis_off()
        label_axes(panels[:number], "C = 6 N D, FLOP", "loss above law, %")
        handles = [
            Line2D([], [], linestyle="none", marker="o", markersize=4, color=colormaps["viridis"](float(norm(N))),
                   label=f"N = {format_count(float(N), 2)}")
            for N in np.quantile(sizes, [0, 0.5, 1])
        ]  # fmt: skip
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
        return figure


def _draw_error_panel(panel: Axes, law: FittedLaw, norm: LogNorm) -> None:
    C, error = 6 * law.runs.N * law.runs.D, 100 * np.expm1(law.fit.residuals)
    reach = 100 * max(_OFF / 5, float(np.quantile(np.abs(law.fit.residuals), 0.995)) * 1.3)
    outside = np.abs(error) > reach
    panel.axhline(0, color=INK, linewidth=0.8)
    panel.scatter(C, np.clip(error, -reach, reach), c=colormaps["viridis"](norm(law.runs.N)), s=8, linewidths=0)
    if outside.any():
        panel.text(0.99, 0.95, f"{outside.sum()} beyond the axis", transform=panel.transAxes, ha="right", va="top",
                   fontsize=7, color=GREY)  # fmt: skip
    panel.set_ylim(-1.05 * reach, 1.05 * reach)
    set_log_axis(panel.xaxis, float(C.min()) / 1.3, float(C.max()) * 1.3, power)
    panel.grid(axis="y")
