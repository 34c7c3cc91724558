"""Figures of the isoFLOP study: curves with their optima, N*(C) and residuals. Nothing is computed here.

Budgets are coloured by viridis, from dark to light with growing C.
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

from skillscale.formatting import format_count, format_interval, format_log_ratio, format_percent, power
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

# Ticks of residuals, per cent, as pairs below and above 0, finest first
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
    """Draw loss against N: one panel per skill and aggregate, one colour per budget."""
    with mpl.rc_context(STYLE):
        names = (*fits.skills, *fits.aggregates)
        figure, panels = make_panels(len(names), height=2.35, share_y=False)
        runs = fits.runs[fits.runs["mix"] == mix]
        colours = _budget_colours(fits, mix)
        for panel, name in zip(panels, names, strict=True):
            _draw_isoflop_panel(panel, name, runs, [m for m in fits.minima if (m.mix, m.skill) == (mix, name)], colours)
            panel.set_title(_panel_title(fits, name))
            panel.set_title(_refusal_text(fits, mix, name), loc="right", fontsize=7, fontweight="normal", color=SOFT)
        sizes = runs["N"].to_numpy(dtype=float)
        for panel in panels:
            set_log_axis(panel.xaxis, sizes.min() / 1.3, sizes.max() * 3, format_count)
        label_axes(panels, "N, parameters", "loss, nats per token")
        draw_legend(figure, _isoflop_legend(runs, fits))
        _separate_labels(figure, panels)
        return figure


def _refusal_text(fits: StudyResults, mix: str, name: str) -> str:
    """Return why the dashed curves of a panel have no optimum, short enough for its title."""
    refused: dict[str, list[float]] = {}
    minima = [minimum for minimum in fits.minima if (minimum.mix, minimum.skill) == (mix, name)]
    for minimum in minima:
        if minimum.status is not Status.OK:
            refused.setdefault(str(minimum.status), []).append(minimum.C)
    if not refused:
        return ""
    if len(refused) == 1:
        [(status, budgets)] = refused.items()
        where = (
            ", ".join(map(power, budgets)) if len(budgets) < min(3, len(minima)) else f"{len(budgets)} of {len(minima)}"
        )
        return f"{status}: {where}"
    return f"no optimum: {sum(map(len, refused.values()))} of {len(minima)}"


def _separate_labels(figure: Figure, panels: Sequence[Axes]) -> None:
    """Move the labels of the curves up until none overlaps. This settles the layout first."""
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


def _draw_isoflop_panel(
    panel: Axes, name: str, runs: pd.DataFrame, minima: Sequence[IsoflopMinimum], colours: dict[float, str]
) -> None:
    for C, seed in sorted(set(zip(runs["C"].tolist(), runs["seed"].tolist(), strict=True))):
        group = runs[(runs["C"] == C) & (runs["seed"] == seed) & runs[name].notna()]
        panel.plot(
            group["N"], group[name], linestyle="none", marker=_marker(_seeds(runs, C), seed), markersize=4, gid="runs",
            markerfacecolor=to_hex(colours[C]) + "99", markeredgecolor=colours[C], markeredgewidth=0.7,
        )  # fmt: skip
    for minimum in minima:
        _draw_isoflop_curve(panel, minimum, colours[minimum.C])
    panel.grid(axis="y")
    panel.margins(y=0.1)


def _draw_isoflop_curve(panel: Axes, minimum: IsoflopMinimum, colour: str) -> None:
    has_optimum = minimum.status is Status.OK
    curve = minimum.curve
    if curve is not None:
        sizes = np.geomspace(curve.N_min, curve.N_max, 200)
        panel.plot(
            sizes, curve.loss(sizes), color=colour, gid="curve" if has_optimum else "refused curve",
            linewidth=1.3 if has_optimum else 1.0, linestyle="-" if has_optimum else (0, (4, 2)), zorder=1.8,
        )  # fmt: skip
        panel.annotate(
            power(minimum.C), (curve.N_max, float(curve.loss(curve.N_max))), xytext=(5, 0),
            textcoords="offset points", color=_darker(colour), va="center", fontsize=7,
        )  # fmt: skip
    if has_optimum:
        _draw_minimum(panel, minimum.N, minimum.loss, colour)


def _draw_minimum(panel: Axes, interval: object, y: float, colour: str) -> None:
    value, lo, hi = (getattr(interval, part) for part in ("value", "lo", "hi"))
    panel.plot([lo, hi], [y, y], color=INK, linewidth=1.4, solid_capstyle="butt", marker="|", markersize=6,
               markeredgewidth=1.1, gid="interval", zorder=4)  # fmt: skip
    panel.plot([value], [y], marker="D", markersize=6, markerfacecolor=colour, markeredgecolor="white",
               markeredgewidth=0.9, gid="optimum", zorder=5)  # fmt: skip


def _isoflop_legend(runs: pd.DataFrame, fits: StudyResults) -> list[Line2D]:
    most = max(len(_seeds(runs, C)) for C in runs["C"].unique())
    key = [
        Line2D([], [], linestyle="none", marker=marker, color=SOFT, markersize=4, label=f"{nth} seed of a budget")
        for nth, marker in zip(("first", "second", "third", "fourth")[:most], _SEED_MARKERS, strict=False)
    ]
    key.append(Line2D([], [], color=INK, marker="D", markersize=5, markeredgecolor="white", linewidth=1.4,
                      label=f"optimum with {_level_text(fits)} interval"))  # fmt: skip
    if any(minimum.status is not Status.OK and minimum.curve for minimum in fits.minima):
        key.append(Line2D([], [], color=SOFT, linestyle=(0, (4, 2)), linewidth=1.0, label="no optimum"))
    key.append(Line2D([], [], linestyle="none", label="numbers at the curves: budget C, FLOP"))
    return key


def draw_optima(fits: StudyResults, mix: str) -> Figure:
    """Draw N* against C, one panel per skill: optima with intervals, power law, and optima by the law (dashed).

    Every panel also shows the aggregate in grey.
    """
    with mpl.rc_context(STYLE):
        names = fits.skills or fits.aggregates
        figure, panels = make_panels(len(names), height=2.35, share_y=True)
        reference = fits.aggregates[0] if fits.aggregates and fits.skills else None
        for index, (panel, name) in enumerate(zip(panels, names, strict=True)):
            colour = SKILL_COLOURS[index % len(SKILL_COLOURS)]
            if reference is not None:
                _draw_optima(panel, fits, (mix, reference), GREY, shift=1.05)
            _draw_optima(panel, fits, (mix, name), colour, shift=1 / 1.05 if reference else 1.0)
            _draw_law_optima(panel, fits, (mix, name), colour)
            panel.set_title(name, color=colour)
            panel.grid()
        _set_optima_axes(panels, fits, mix)
        label_axes(panels, "C = 6 N D, FLOP", "N*, parameters")
        draw_legend(figure, _optima_legend(fits, reference))
        return figure


def _draw_optima(panel: Axes, fits: StudyResults, key: tuple[str, str], colour: str, *, shift: float) -> None:
    """Draw the optima of a series, shifted a little along C so that the intervals of two series stay visible."""
    law = next((law for law in fits.power_laws if (law.mix, law.skill) == key and law.status is Status.OK), None)
    if law is not None:
        _draw_power_law(panel, law, _budgets(fits, key[0]), colour)
    for minimum in fits.minima:
        if (minimum.mix, minimum.skill) == key and minimum.N.is_finite:
            panel.errorbar(
                [minimum.C * shift], [minimum.N.value], color=colour,
                yerr=[[minimum.N.value - minimum.N.lo], [minimum.N.hi - minimum.N.value]], marker="D",
                markersize=4.5, markeredgecolor="white", elinewidth=1.2, capsize=2.5, gid="optimum", zorder=4,
            )  # fmt: skip


def _draw_law_optima(panel: Axes, fits: StudyResults, key: tuple[str, str], colour: str) -> None:
    points = _law_optima(fits, key)
    if len(points) > 1:
        panel.plot(*zip(*points, strict=True), color=colour, linestyle=(0, (3, 2)), linewidth=0.9, gid="frontier")
    if not any((minimum.mix, minimum.skill) == key and minimum.N.is_finite for minimum in fits.minima):
        panel.text(0.04, 0.94, "no optimum found", transform=panel.transAxes, va="top", color=SOFT)


def _law_optima(fits: StudyResults, key: tuple[str, str]) -> list[tuple[float, float]]:
    if not any((law.mix, law.skill) == key and law.status is Status.OK for law in fits.laws):
        return []
    pairs = [pair for pair in fits.curve_versus_law if (pair.mix, pair.skill) == key]
    return sorted((pair.C, pair.law.value) for pair in pairs if math.isfinite(pair.law.value))


def _draw_power_law(panel: Axes, law: PowerLaw, budgets: Sequence[float], colour: str) -> None:
    grid = np.geomspace(budgets[0] / 1.3, budgets[-1] * 1.3, 40)
    values = [law.N(float(C)) for C in grid]
    panel.plot(grid, [value.value for value in values], color=colour, linewidth=1.3, gid="power law")
    if all(value.is_finite for value in values):
        panel.fill_between(
            grid, [value.lo for value in values], [value.hi for value in values], color=colour, alpha=0.13, linewidth=0
        )


def _set_optima_axes(panels: Sequence[Axes], fits: StudyResults, mix: str) -> None:
    budgets = _budgets(fits, mix)
    interval_ends = [
        bound
        for minimum in fits.minima
        if minimum.mix == mix and minimum.N.is_finite
        for bound in (minimum.N.lo, minimum.N.hi)
    ]
    runs = fits.runs.loc[fits.runs["mix"] == mix, "N"]
    bounds = interval_ends or [float(runs.min()), float(runs.max())]
    for panel in panels:
        set_log_axis(panel.xaxis, budgets[0] / 1.6, budgets[-1] * 1.6, power, at=budgets)
        set_log_axis(panel.yaxis, min(bounds) / 1.25, max(bounds) * 1.25, format_count)


def _optima_legend(fits: StudyResults, reference: str | None) -> list[Line2D]:
    key = [Line2D([], [], color=INK, marker="D", markersize=4.5, markeredgecolor="white", linestyle="none",
                  label=f"optimum, {_level_text(fits)} interval")]  # fmt: skip
    if any(law.status is Status.OK for law in fits.power_laws):
        key.append(Line2D([], [], color=INK, linewidth=1.3, label="power law through the optima"))
    if any(len(_law_optima(fits, (pair.mix, pair.skill))) > 1 for pair in fits.curve_versus_law):
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
    """Draw N*(skill) against N*(aggregate), at each budget and pooled, with intervals and verdicts."""
    with mpl.rc_context(STYLE):
        rows = _size_gap_rows(fits, mix)
        figure = Figure(figsize=(WIDTH, 0.95 + 0.19 * sum(len(group) + 0.9 for _, group in rows)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        reach = _axis_half_width([gap for _, group in rows for gap in group])
        axes.axvline(0, color=INK, linewidth=0.9, gid="zero")
        y, ticks, labels = 0.0, [], []
        for index, (skill, group) in enumerate(rows):
            colour = SKILL_COLOURS[index % len(SKILL_COLOURS)]
            axes.text(-0.015, y, skill, transform=axes.get_yaxis_transform(), ha="right", va="center", weight="bold",
                      color=colour, fontsize=9)  # fmt: skip
            for gap in group:
                y += 1
                _draw_size_gap(axes, gap, y, colour, reach, fits.level)
                ticks.append(y)
                labels.append("pooled" if gap.pooled else power(gap.C))
            y += 1.9
        _set_size_gap_axes(axes, reach, ticks, labels, level=_level_text(fits))
        return figure


def _size_gap_rows(fits: StudyResults, mix: str) -> list[tuple[str, list[SizeGap]]]:
    aggregate = fits.aggregates[0] if fits.aggregates else ""
    rows = []
    for skill in fits.skills:
        gaps = [gap for gap in fits.size_gaps if (gap.mix, gap.skill, gap.aggregate) == (mix, skill, aggregate)]
        rows.append((skill, sorted(gaps, key=lambda gap: math.inf if gap.pooled else gap.C)))
    return [(skill, group) for skill, group in rows if group]


def _axis_half_width(values: Iterable[SizeGap]) -> float:
    """Return the half width of the axis, ln ratio. Intervals beyond a factor of 6 are cut with an arrow."""
    estimates = [abs(gap.value.value) for gap in values if gap.value.is_finite]
    bounds = [abs(bound) for gap in values if gap.value.is_finite for bound in (gap.value.lo, gap.value.hi)]
    widest = max([0.1, *bounds])
    return 1.08 * min(widest, max([math.log(6), *(1.2 * estimate for estimate in estimates)]))


def _draw_size_gap(axes: Axes, gap: SizeGap, y: float, colour: str, reach: float, level: float) -> None:
    row_transform = axes.get_yaxis_transform()
    if not gap.value.is_finite:
        axes.text(
            1.015, y, f"{gap.status}", transform=row_transform, va="center", fontsize=7, color=SOFT, gid="refused"
        )
        return
    lo, hi = max(gap.value.lo, -reach), min(gap.value.hi, reach)
    axes.plot([lo, hi], [y, y], color=colour, linewidth=2.6 if gap.pooled else 1.2, solid_capstyle="butt",
              alpha=1.0 if gap.pooled else 0.75, gid="interval")  # fmt: skip
    for bound, edge, marker in ((gap.value.lo, -reach, "<"), (gap.value.hi, reach, ">")):
        if abs(bound) > reach and bound * edge > 0:
            axes.plot([edge], [y], marker=marker, color=colour, markersize=4, clip_on=False, gid="cut")
    axes.plot([gap.value.value], [y], marker="D" if gap.pooled else "o", markersize=7 if gap.pooled else 4.5,
              color=colour, markeredgecolor="white", markeredgewidth=0.8, zorder=4,
              gid="pooled" if gap.pooled else "residual")  # fmt: skip
    words = format_interval(gap.value.value, gap.value.lo, gap.value.hi, format_log_ratio).replace(" [", "  [")
    stands = gap.pooled and gap.describe_verdict(level) in (Verdict.CAPACITY, Verdict.DATA)
    axes.text(1.015, y, f"{words}  {gap.describe_verdict(level)}" if gap.pooled else words, transform=row_transform,
              va="center", fontsize=7.5 if gap.pooled else 7, color=INK if gap.pooled else SOFT,
              weight="bold" if stands else "normal")  # fmt: skip


def _set_size_gap_axes(axes: Axes, reach: float, ticks: Sequence[float], labels: Sequence[str], *, level: str) -> None:
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
    """Return ticks, ln ratio, at round percentages, few enough for their labels."""
    steps = next((steps for steps in _RATIO_STEPS if math.log1p(steps[0][1] / 100) > reach / 4.5), _RATIO_STEPS[-1])
    pairs = [(math.log1p(down / 100), math.log1p(up / 100)) for down, up in steps]
    return sorted([0.0, *(tick for pair in pairs if max(map(abs, pair)) < reach for tick in pair)])


def _budgets(fits: StudyResults, mix: str) -> list[float]:
    return sorted(
        {float(C) for C in fits.runs.loc[fits.runs["mix"] == mix, "C"]} | {m.C for m in fits.minima if m.mix == mix}
    )


def _budget_colours(fits: StudyResults, mix: str) -> dict[float, str]:
    """Return a colour per budget, from viridis without its lightest end, which prints poorly."""
    budgets = _budgets(fits, mix)
    places = np.linspace(0.05, 0.78, len(budgets)) if len(budgets) > 1 else [0.25]
    return {C: to_hex(colormaps["viridis"](place)) for C, place in zip(budgets, places, strict=True)}


def _darker(colour: str) -> str:
    """Return a darker colour, for small text."""
    red, green, blue = to_rgb(colour)
    return to_hex((0.7 * red, 0.7 * green, 0.7 * blue))


def _seeds(runs: pd.DataFrame, C: float) -> list[int]:
    """Return the seeds of a budget."""
    return sorted({int(seed) for seed in runs.loc[runs["C"] == C, "seed"]})


def _marker(seeds: Sequence[int], seed: int) -> str:
    return _SEED_MARKERS[seeds.index(seed) % len(_SEED_MARKERS)]


def _panel_title(fits: StudyResults, name: str) -> str:
    return f"{name} (aggregate)" if name in fits.aggregates and name != "aggregate" else name


def _level_text(fits: StudyResults) -> str:
    return format_percent(fits.level, 3)
