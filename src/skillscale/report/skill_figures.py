"""Figures of how skills differ: on two splits, over mixes, and by the composition of a validation set."""

import math
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from skillscale.formatting import format_count, format_interval, format_log_ratio, format_number, format_percent, power
from skillscale.laws.results import IsoflopMinimum, SizeGap, Status, StudyResults
from skillscale.laws.skills.crossover import CrossoverStudy
from skillscale.laws.skills.share_effects import ShareStudy
from skillscale.laws.skills.skill_study import SkillStudy
from skillscale.laws.skills.validation_similarity import ValidationSimilarityStudy
from skillscale.laws.skills.verdicts import ConfirmedVerdict
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

PUBLISHED_SHIFTS = ((0.5, "Roberts et al. 2025: nearly 50 % at most"), (0.3, "the same: up to 30 % at low budgets"))
_WIDEST = math.log(6)  # largest half width of the axis of residuals; longer intervals are cut


def draw_splits(verdicts: Sequence[ConfirmedVerdict]) -> Figure:
    """Draw pooled residuals: the two splits of a skill (diamonds, held-out hollow) and their data sets (dots)."""
    with mpl.rc_context(STYLE):
        blocks = [(verdict, _split_rows(verdict)) for verdict in verdicts]
        figure = Figure(figsize=(WIDTH, 0.9 + 0.19 * sum(len(rows) + 1.2 for _, rows in blocks)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        reach = _axis_half_width([r for _, rows in blocks for _, r, _ in rows])
        axes.axvline(0, color=INK, linewidth=0.9)
        y, ticks, labels = 0.0, [], []
        for index, (verdict, rows) in enumerate(blocks):
            colour = SKILL_COLOURS[index % len(SKILL_COLOURS)]
            axes.text(-0.015, y, verdict.skill, transform=axes.get_yaxis_transform(), ha="right", va="center",
                      weight="bold", color=colour, fontsize=9)  # fmt: skip
            axes.text(
                1.015,
                y,
                _verdict_text(verdict),
                transform=axes.get_yaxis_transform(),
                va="center",
                fontsize=7.5,
                color=INK,
            )
            for label, residual, style in rows:
                y += 1
                _draw_size_gap(axes, residual, y, colour, reach, **style)
                ticks.append(y)
                labels.append(label)
            y += 2.2
        axes.set_yticks(ticks, labels)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(y - 1.2, -0.8)
        axes.set_xlim(-reach, reach)
        ticks_at = [
            x for x in (-0.83, -0.67, -0.5, -0.33, -0.2, -0.1, 0, 0.1, 0.25, 0.5, 1, 2, 5) if abs(math.log1p(x)) < reach
        ]
        shown = [x for x in ticks_at if x == 0 or abs(math.log1p(x)) > reach / 8]
        axes.set_xticks([math.log1p(x) for x in shown], [format_log_ratio(math.log1p(x)) if x else "0" for x in shown])
        axes.set_xlabel("N*(skill) against N*(aggregate)")
        return figure


def _verdict_text(verdict: ConfirmedVerdict) -> str:
    return f"{verdict.verdict}; {verdict.confirmation}"


def _split_rows(verdict: ConfirmedVerdict) -> list[tuple[str, SizeGap, dict[str, bool]]]:
    rows = []
    for name, mean, sets, hollow in (
        ("hypothesis split", verdict.hypothesis, verdict.hypothesis_sets, False),
        ("held-out split", verdict.held_out, verdict.held_out_sets, True),
    ):
        rows.append((name, mean, {"hollow": hollow, "mean": True}))
        rows += [(gap.skill.removeprefix("set/"), gap, {"hollow": hollow, "mean": False}) for gap in sets]
    return rows


def _axis_half_width(residuals: Sequence[SizeGap]) -> float:
    ends = [abs(x) for gap in residuals if gap.value.is_finite for x in (gap.value.lo, gap.value.hi)]
    return 1.08 * min(max([0.1, *ends]), _WIDEST)


def _draw_size_gap(
    axes: Axes, gap: SizeGap, y: float, colour: str, reach: float, *, hollow: bool, mean: bool
) -> None:  # fmt: skip
    row_transform = axes.get_yaxis_transform()
    if not gap.value.is_finite:
        axes.text(1.015, y, str(gap.status), transform=row_transform, va="center", fontsize=7, color=SOFT)
        return
    lo, hi = max(gap.value.lo, -reach), min(gap.value.hi, reach)
    axes.plot(
        [lo, hi], [y, y], color=colour, linewidth=2.2 if mean else 1.0, alpha=1.0 if mean else 0.7, gid="interval"
    )
    if abs(gap.value.value) <= reach:
        axes.plot([gap.value.value], [y], marker="D" if mean else "o", markersize=6.5 if mean else 4, color=colour,
                  markerfacecolor="white" if hollow else colour, markeredgecolor=colour, gid="residual")  # fmt: skip
    words = format_interval(gap.value.value, gap.value.lo, gap.value.hi, format_log_ratio).replace(" [", "  [")
    axes.text(1.015, y, words, transform=row_transform, va="center", fontsize=7, color=INK if mean else SOFT)


def draw_mixes(study: SkillStudy, skills: Mapping[str, str], C: float) -> Figure:
    """Draw isoFLOP curves of all mixes at one budget, one panel per skill, coloured by the share of its category.

    Args:
        study: study with several mixes.
        skills: category of each skill.
        C: budget, FLOP.
    """
    with mpl.rc_context(STYLE):
        figure, panels = make_panels(len(skills), height=2.5, share_y=False)
        runs = study.fits.runs[study.fits.runs["C"] == C]
        for panel, (skill, category) in zip(panels, skills.items(), strict=True):
            shares = runs.groupby("mix")[f"mix/{category}"].mean()
            colours = {mix: _shade(float(share), shares) for mix, share in shares.items()}
            for mix, rows in runs.groupby("mix"):
                panel.plot(rows["N"], rows[skill], ".", color=colours[mix], markersize=3.5, gid="runs")
            for minimum in study.fits.minima:
                if (minimum.skill, minimum.C) == (skill, C):
                    _draw_mix_curve(panel, minimum, colours[minimum.mix])
            panel.set_title(skill)
            span = f"{format_number(shares.min(), 2)} to {format_number(shares.max(), 2)}"
            panel.set_title(f"{category}: {span}", loc="right", fontsize=7, color=SOFT, fontweight="normal")
            panel.grid(axis="y")
        for panel in panels:
            set_log_axis(panel.xaxis, float(runs["N"].min()) / 1.3, float(runs["N"].max()) * 1.3, format_count)
        label_axes(panels, "N, parameters", "loss, nats per token")
        draw_legend(figure, [
            Line2D([], [], color=to_hex(colormaps["viridis"](0.0)), label="smallest share of the skill's category"),
            Line2D([], [], color=to_hex(colormaps["viridis"](0.9)), label="largest share"),
            Line2D([], [], color=INK, marker="D", markersize=4, linestyle="none", label="optimum"),
            Line2D([], [], color=SOFT, linestyle=(0, (4, 2)), label="no optimum"),
        ])  # fmt: skip
        return figure


def _shade(share: float, shares: "pd.Series[float]") -> str:
    span = float(np.log(shares.max() / max(float(shares.min()), 1e-3))) or 1.0
    at = math.log(max(share, 1e-3) / max(float(shares.min()), 1e-3)) / span
    return str(to_hex(colormaps["viridis"](0.9 * at)))


def _draw_mix_curve(panel: Axes, minimum: IsoflopMinimum, colour: str) -> None:
    if minimum.curve is None:
        return
    N = np.geomspace(minimum.curve.N_min, minimum.curve.N_max, 100)
    has_optimum = minimum.status is Status.OK
    panel.plot(
        N,
        minimum.curve.loss(N),
        color=colour,
        linewidth=1.1,
        linestyle="-" if has_optimum else (0, (4, 2)),
        gid="curve",
    )
    if has_optimum:
        panel.plot([minimum.N.value], [minimum.loss], marker="D", color=colour, markersize=4, markeredgecolor="white",
                   markeredgewidth=0.6, gid="optimum")  # fmt: skip


def draw_shares(study: ShareStudy, skills: Sequence[str]) -> Figure:
    """Draw N* of each mix against the share of the skill's category, with one colour and line per budget."""
    with mpl.rc_context(STYLE):
        figure, panels = make_panels(len(skills), height=2.4, share_y=True)
        points, lines = study.points_table(), study.line_table()
        budgets = sorted(points["C"].unique())
        colours = dict(zip(budgets, _budget_colours(len(budgets)), strict=True))
        optima = points[np.isfinite(points["N"].astype(float))]
        for panel, skill in zip(panels, skills, strict=True):
            for C in budgets:
                of_skill = optima[(optima["skill"] == skill) & (optima["C"] == C)]
                _draw_with_bars(panel, of_skill["share"], of_skill, "N", colours[C])
                if len(lines) and len(line := lines[(lines["skill"] == skill) & (lines["C"] == C)]):
                    panel.plot(line["share"], line["N"], color=colours[C], linewidth=1.2, gid="line")
                    panel.fill_between(
                        line["share"], line["N_lo"], line["N_hi"], color=colours[C], alpha=0.15, linewidth=0
                    )
            panel.set_title(skill)
            panel.grid()
        for panel in panels:
            set_log_axis(panel.yaxis, float(optima["N"].min()) / 1.6, float(optima["N"].max()) * 1.6, format_count)
        label_axes(panels, "share of the skill's category", "N*, parameters")
        draw_legend(figure, _budget_legend(colours))
        return figure


def draw_crossover(study: CrossoverStudy) -> Figure:
    """Draw the difference of the optima of two skills against the ratio of their categories, one panel per budget."""
    with mpl.rc_context(STYLE):
        budgets = [crossover for crossover in study.crossovers if not math.isnan(crossover.C)]
        figure, panels = make_panels(len(budgets), height=2.5, share_y=True)
        points, lines = study.points_table(), study.line_table()
        for panel, crossover in zip(panels, budgets, strict=True):
            panel.axhline(0, color=INK, linewidth=0.9)
            of_budget = points[points["C"] == crossover.C] if len(points) else points
            if len(of_budget):
                _draw_with_bars(panel, of_budget["ratio"], of_budget, "difference", SKILL_COLOURS[0])
            if len(lines) and len(line := lines[lines["C"] == crossover.C]):
                panel.plot(line["ratio"], line["difference"], color=SKILL_COLOURS[0], linewidth=1.2, gid="line")
                panel.fill_between(line["ratio"], line["difference_lo"], line["difference_hi"], color=SKILL_COLOURS[0],
                                   alpha=0.15, linewidth=0)  # fmt: skip
            if math.isfinite(crossover.ratio.value):
                panel.axvline(crossover.ratio.value, color=SKILL_COLOURS[1], linewidth=1, gid="crossing")
            panel.set_title(f"{power(crossover.C)} FLOP")
            panel.set_title(str(crossover.outcome), loc="right", fontsize=7, fontweight="normal", color=SOFT)
            panel.grid()
            if len(points):
                set_log_axis(
                    panel.xaxis, float(points["ratio"].min()) / 1.3, float(points["ratio"].max()) * 1.3, _ratio_text
                )
        first = budgets[0]
        label_axes(
            panels, f"share of {first.over} / share of {first.under}", f"ln N*({first.first}) − ln N*({first.second})"
        )
        return figure


def draw_similarity(study: ValidationSimilarityStudy, C: float) -> Figure:
    """Draw the normalised loss of every validation set against the ratio of two categories."""
    with mpl.rc_context(STYLE):
        pooled = [similarity for similarity in study.similarities if math.isnan(similarity.C)]
        figure, panels = make_panels(max(len(pooled), 1), height=1.75, share_y=True)
        profiles = study.profile_table()
        profiles = profiles[profiles["C"] == C] if len(profiles) else profiles
        for panel, similarity in zip(panels, pooled, strict=False):
            for at, name in enumerate((similarity.first, similarity.second)):
                _draw_profile(panel, profiles, name, SKILL_COLOURS[at], 1.2)
            _draw_profile(panel, profiles, similarity.column, INK, 1.6)
            panel.set_title(similarity.column.removeprefix("set/"))
            panel.set_title(
                f"similar to: {similarity.similar_to}", loc="right", fontsize=7, fontweight="normal", color=SOFT
            )
            panel.grid()
            if len(profiles):
                set_log_axis(
                    panel.xaxis, float(profiles["ratio"].min()) / 1.3, float(profiles["ratio"].max()) * 1.3, _ratio_text
                )
        if pooled:
            label_axes(panels, "ratio of shares", "loss, normalised")
            draw_legend(figure, [
                Line2D([], [], color=SKILL_COLOURS[0], label=pooled[0].first),
                Line2D([], [], color=SKILL_COLOURS[1], label=pooled[0].second),
                Line2D([], [], color=INK, label="the validation set"),
            ])  # fmt: skip
        return figure


def _draw_profile(panel: Axes, profiles: pd.DataFrame, name: str, colour: str, width: float) -> None:
    mine = profiles[profiles["column"] == name].sort_values("ratio") if len(profiles) else profiles
    if len(mine):
        panel.plot(mine["ratio"], mine["normalised"], color=colour, linewidth=width, marker="o", markersize=2.5)


def draw_shifts(study: SkillStudy) -> Figure:
    """Draw the largest shift of N* by the composition of the validation set, at each budget of the base mix."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        base_shifts = [shift for shift in study.shifts if shift.mix == study.base and shift.largest.is_finite]
        for (at, words), dash in zip(PUBLISHED_SHIFTS, ((4, 2), (1, 2)), strict=True):
            axes.axhline(at, color=GREY, linewidth=1.1, linestyle=(0, dash), label=words)
        for shift in base_shifts:
            axes.plot([shift.C, shift.C], [shift.largest.lo, shift.largest.hi], color=SKILL_COLOURS[0], linewidth=1.4)
            axes.plot([shift.C], [shift.largest.value], marker="D", color=SKILL_COLOURS[0], markeredgecolor="white")
        if base_shifts:
            budgets = sorted(shift.C for shift in base_shifts)
            set_log_axis(axes.xaxis, budgets[0] / 1.6, budgets[-1] * 1.6, power, at=budgets)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _: format_percent(value))
        axes.set_xlabel("C = 6 N D, FLOP")
        axes.set_ylabel("largest shift of N*")
        figure.legend(loc="outside lower center", ncols=2)
        axes.grid(axis="y")
        return figure


def draw_published(fits: StudyResults, mix: str, theirs: pd.DataFrame) -> Figure:
    """Draw N*(C) of this study (filled) and of published optima (hollow), and N* relative to the aggregate."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
        FigureCanvasAgg(figure)
        size_panel, gap_panel = figure.subplots(1, 2)
        ours = fits.minima_table()
        ours = ours[(ours["mix"] == mix) & np.isfinite(ours["N"].astype(float))]
        aggregate = fits.aggregates[0] if fits.aggregates else ""
        names = [*fits.skills, *([aggregate] if aggregate else [])]
        for at, name in enumerate(names):
            colour = GREY if name == aggregate else SKILL_COLOURS[at % len(SKILL_COLOURS)]
            mine, other = ours[ours["skill"] == name], theirs[theirs["skill"] == name]
            if len(mine):
                _draw_with_bars(size_panel, mine["C"], mine, "N", colour)
            if len(other):
                _draw_with_bars(size_panel, other["C"], other.assign(N_lo=other["N_lo"].fillna(other["N"]),
                           N_hi=other["N_hi"].fillna(other["N"])), "N", colour, hollow=True)  # fmt: skip
            if name != aggregate:
                _draw_published_gaps(gap_panel, fits, mix, name, theirs, colour)
        points = pd.concat([ours[["C", "N"]], theirs[["C", "N"]]]).astype(float)
        gap_panel.axhline(0, color=INK, linewidth=0.9)
        first, last = float(points["C"].min()) / 3, float(points["C"].max()) * 3
        decades = [10.0**k for k in range(math.ceil(math.log10(first)), math.floor(math.log10(last)) + 1)]
        for panel in (size_panel, gap_panel):
            set_log_axis(panel.xaxis, first, last, power, at=decades[:: math.ceil(len(decades) / 5)])
            panel.set_xlabel("C, FLOP")
            panel.grid()
        set_log_axis(size_panel.yaxis, float(points["N"].min()) / 2, float(points["N"].max()) * 2, format_count)
        size_panel.set_ylabel("N*, parameters")
        gap_panel.set_ylabel("ln N*(skill) − ln N*(aggregate)")
        keys = [
            Line2D([], [], color=GREY if name == aggregate else SKILL_COLOURS[at % len(SKILL_COLOURS)], marker="o",
                   markersize=4, linestyle="none", label=name)
            for at, name in enumerate(names)
        ]  # fmt: skip
        keys.append(Line2D([], [], color=INK, marker="o", markersize=4, markerfacecolor="white", linestyle="none",
                           label="published"))  # fmt: skip
        figure.legend(handles=keys, loc="outside lower center", ncols=len(keys))
        return figure


def _draw_published_gaps(
    panel: Axes, fits: StudyResults, mix: str, name: str, theirs: pd.DataFrame, colour: str
) -> None:
    """Draw the residuals of a skill, of this study with intervals and of the published optima without."""
    aggregate = next(iter(fits.aggregates), "")
    for gap in fits.size_gaps:
        if (gap.mix, gap.skill, gap.aggregate) == (mix, name, aggregate) and gap.value.is_finite and not gap.pooled:
            panel.plot([gap.C, gap.C], [gap.value.lo, gap.value.hi], color=colour, linewidth=0.8)
            panel.plot([gap.C], [gap.value.value], marker="o", markersize=3.5, color=colour, gid="optimum")
    common = theirs[theirs["skill"] == "aggregate"].set_index("C")["N"]
    other = theirs[(theirs["skill"] == name) & theirs["C"].isin(common.index)]
    if len(other):
        gap = np.log(other["N"].to_numpy() / common[other["C"]].to_numpy())
        panel.plot(other["C"], gap, linestyle="none", marker="o", markersize=4, markerfacecolor="white", color=colour,
                   gid="published")  # fmt: skip


def _draw_with_bars(
    panel: Axes, x: "pd.Series[float]", rows: pd.DataFrame, name: str, colour: str, *, hollow: bool = False
) -> None:  # fmt: skip
    value, lo, hi = (rows[column].to_numpy(dtype=float) for column in (name, f"{name}_lo", f"{name}_hi"))
    bars = np.maximum([value - lo, hi - value], 0)
    panel.errorbar(x, value, yerr=bars, linestyle="none", marker="o", markersize=3.5, color=colour,
                   markerfacecolor="white" if hollow else colour, elinewidth=0.8,
                   gid="published" if hollow else "optimum")  # fmt: skip


def _budget_colours(number: int) -> list[str]:
    return [str(to_hex(colormaps["viridis"](at))) for at in np.linspace(0.1, 0.75, max(number, 1))][:number]


def _budget_legend(colours: Mapping[float, str]) -> list[Line2D]:
    return [
        Line2D([], [], color=colour, marker="o", markersize=3.5, label=f"{power(C)} FLOP")
        for C, colour in colours.items()
    ]


def _ratio_text(value: float) -> str:
    return format_number(value)
