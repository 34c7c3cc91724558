"""How skills differ, as figures: on two splits, over mixes, and by the composition of a validation set."""

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

from skillscale.formatting import format_count, format_log_ratio, power
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
_WIDEST = math.log(6)  # half width of the axis of residuals that intervals are cut at


def draw_splits(verdicts: Sequence[ConfirmedVerdict]) -> Figure:
    """Pooled residuals: a skill's two splits (diamonds; the held-out one hollow) with their data sets (dots) below."""
    with mpl.rc_context(STYLE):
        blocks = [(one, _split_rows(one)) for one in verdicts]
        figure = Figure(figsize=(WIDTH, 0.9 + 0.19 * sum(len(rows) + 1.2 for _, rows in blocks)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        reach = _reach([r for _, rows in blocks for _, r, _ in rows])
        axes.axvline(0, color=INK, linewidth=0.9)
        y, ticks, labels = 0.0, [], []
        for index, (one, rows) in enumerate(blocks):
            colour = SKILL_COLOURS[index % len(SKILL_COLOURS)]
            axes.text(-0.015, y, one.skill, transform=axes.get_yaxis_transform(), ha="right", va="center",
                      weight="bold", color=colour, fontsize=9)  # fmt: skip
            axes.text(1.015, y, _said(one), transform=axes.get_yaxis_transform(), va="center", fontsize=7.5, color=INK)
            for label, residual, style in rows:
                y += 1
                _residual_row(axes, residual, y, colour, reach, **style)
                ticks.append(y)
                labels.append(label)
            y += 2.2
        axes.set_yticks(ticks, labels)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(y - 1.2, -0.8)
        axes.set_xlim(-reach, reach)
        at = [
            x for x in (-0.83, -0.67, -0.5, -0.33, -0.2, -0.1, 0, 0.1, 0.25, 0.5, 1, 2, 5) if abs(math.log1p(x)) < reach
        ]
        shown = [x for x in at if x == 0 or abs(math.log1p(x)) > reach / 8]
        axes.set_xticks([math.log1p(x) for x in shown], [format_log_ratio(math.log1p(x)) if x else "0" for x in shown])
        axes.set_xlabel("N*(skill) against N*(aggregate)")
        return figure


def _said(one: ConfirmedVerdict) -> str:
    return f"{one.verdict}; {one.confirmation}"


def _split_rows(one: ConfirmedVerdict) -> list[tuple[str, SizeGap, dict[str, bool]]]:
    rows = []
    for name, mean, sets, hollow in (
        ("hypothesis split", one.hypothesis, one.hypothesis_sets, False),
        ("held-out split", one.held_out, one.held_out_sets, True),
    ):
        rows.append((name, mean, {"hollow": hollow, "mean": True}))
        rows += [(each.skill.removeprefix("set/"), each, {"hollow": hollow, "mean": False}) for each in sets]
    return rows


def _reach(residuals: Sequence[SizeGap]) -> float:
    ends = [abs(x) for one in residuals if one.value.is_finite for x in (one.value.lo, one.value.hi)]
    return 1.08 * min(max([0.1, *ends]), _WIDEST)


def _residual_row(
    axes: Axes, one: SizeGap, y: float, colour: str, reach: float, *, hollow: bool, mean: bool
) -> None:  # fmt: skip
    beside = axes.get_yaxis_transform()
    if not one.value.is_finite:
        axes.text(1.015, y, str(one.status), transform=beside, va="center", fontsize=7, color=SOFT)
        return
    lo, hi = max(one.value.lo, -reach), min(one.value.hi, reach)
    axes.plot(
        [lo, hi], [y, y], color=colour, linewidth=2.2 if mean else 1.0, alpha=1.0 if mean else 0.7, gid="interval"
    )
    if abs(one.value.value) <= reach:
        axes.plot([one.value.value], [y], marker="D" if mean else "o", markersize=6.5 if mean else 4, color=colour,
                  markerfacecolor="white" if hollow else colour, markeredgecolor=colour, gid="residual")  # fmt: skip
    words = f"{format_log_ratio(one.value.value)}  [{format_log_ratio(one.value.lo)}, {format_log_ratio(one.value.hi)}]"
    axes.text(1.015, y, words, transform=beside, va="center", fontsize=7, color=INK if mean else SOFT)


def draw_mixes(study: SkillStudy, skills: Mapping[str, str], C: float) -> Figure:
    """IsoFLOP curves of every mix at one budget, a panel a skill, coloured by the share of the skill's own category.

    Args:
        study: with several mixes.
        skills: the category of each skill.
        C: the budget, FLOP.
    """
    with mpl.rc_context(STYLE):
        figure, panels = make_panels(len(skills), height=2.5, share_y=False)
        runs = study.fits.runs[study.fits.runs["C"] == C]
        for panel, (skill, category) in zip(panels, skills.items(), strict=True):
            shares = runs.groupby("mix")[f"mix/{category}"].mean()
            colours = {mix: _shade(float(share), shares) for mix, share in shares.items()}
            for mix, rows in runs.groupby("mix"):
                panel.plot(rows["N"], rows[skill], ".", color=colours[mix], markersize=3.5, gid="runs")
            for one in study.fits.minima:
                if (one.skill, one.C) == (skill, C):
                    _mix_curve(panel, one, colours[one.mix])
            panel.set_title(skill)
            panel.set_title(f"{category}: {shares.min():.2g} to {shares.max():.2g}", loc="right", fontsize=7,
                            color=SOFT, fontweight="normal")  # fmt: skip
            panel.grid(axis="y")
        for panel in panels:
            set_log_axis(panel.xaxis, float(runs["N"].min()) / 1.3, float(runs["N"].max()) * 1.3, format_count)
        label_axes(panels, "N, parameters", "loss, nats per token")
        draw_legend(figure, [
            Line2D([], [], color=to_hex(colormaps["viridis"](0.0)), label="least share of the skill's own category"),
            Line2D([], [], color=to_hex(colormaps["viridis"](0.9)), label="largest share"),
            Line2D([], [], color=INK, marker="D", markersize=4, linestyle="none", label="optimum"),
            Line2D([], [], color=SOFT, linestyle=(0, (4, 2)), label="no optimum claimed"),
        ])  # fmt: skip
        return figure


def _shade(share: float, shares: "pd.Series[float]") -> str:
    span = float(np.log(shares.max() / max(float(shares.min()), 1e-3))) or 1.0
    at = math.log(max(share, 1e-3) / max(float(shares.min()), 1e-3)) / span
    return str(to_hex(colormaps["viridis"](0.9 * at)))


def _mix_curve(panel: Axes, one: IsoflopMinimum, colour: str) -> None:
    if one.curve is None:
        return
    N = np.geomspace(one.curve.N_min, one.curve.N_max, 100)
    found = one.status is Status.OK
    panel.plot(N, one.curve.loss(N), color=colour, linewidth=1.1, linestyle="-" if found else (0, (4, 2)), gid="curve")
    if found:
        panel.plot([one.N.value], [one.loss], marker="D", color=colour, markersize=4, markeredgecolor="white",
                   markeredgewidth=0.6, gid="optimum")  # fmt: skip


def draw_shares(found: ShareStudy, skills: Sequence[str]) -> Figure:
    """N* of each mix against the share of the skill's own category, a colour a budget, with the line of each budget."""
    with mpl.rc_context(STYLE):
        figure, panels = make_panels(len(skills), height=2.4, share_y=True)
        points, lines = found.points_table(), found.line_table()
        budgets = sorted(points["C"].unique())
        colours = dict(zip(budgets, _budget_colours(len(budgets)), strict=True))
        known = points[np.isfinite(points["N"].astype(float))]
        for panel, skill in zip(panels, skills, strict=True):
            for C in budgets:
                mine = known[(known["skill"] == skill) & (known["C"] == C)]
                _with_bars(panel, mine["share"], mine, "N", colours[C])
                if len(lines) and len(line := lines[(lines["skill"] == skill) & (lines["C"] == C)]):
                    panel.plot(line["share"], line["N"], color=colours[C], linewidth=1.2, gid="line")
                    panel.fill_between(
                        line["share"], line["N_lo"], line["N_hi"], color=colours[C], alpha=0.15, linewidth=0
                    )
            panel.set_title(skill)
            panel.grid()
        for panel in panels:
            set_log_axis(panel.yaxis, float(known["N"].min()) / 1.6, float(known["N"].max()) * 1.6, format_count)
        label_axes(panels, "share of the skill's own category", "N*, parameters")
        draw_legend(figure, _budget_key(colours))
        return figure


def draw_crossover(found: CrossoverStudy) -> Figure:
    """How far apart two skills' optima are at each ratio of their categories, a panel a budget."""
    with mpl.rc_context(STYLE):
        budgets = [one for one in found.crossovers if not math.isnan(one.C)]
        figure, panels = make_panels(len(budgets), height=2.5, share_y=True)
        points, lines = found.points_table(), found.line_table()
        for panel, one in zip(panels, budgets, strict=True):
            panel.axhline(0, color=INK, linewidth=0.9)
            mine = points[points["C"] == one.C] if len(points) else points
            if len(mine):
                _with_bars(panel, mine["ratio"], mine, "difference", SKILL_COLOURS[0])
            if len(lines) and len(line := lines[lines["C"] == one.C]):
                panel.plot(line["ratio"], line["difference"], color=SKILL_COLOURS[0], linewidth=1.2, gid="line")
                panel.fill_between(line["ratio"], line["difference_lo"], line["difference_hi"], color=SKILL_COLOURS[0],
                                   alpha=0.15, linewidth=0)  # fmt: skip
            if math.isfinite(one.ratio.value):
                panel.axvline(one.ratio.value, color=SKILL_COLOURS[1], linewidth=1, gid="crossing")
            panel.set_title(f"{power(one.C)} FLOP")
            panel.set_title(str(one.outcome), loc="right", fontsize=7, fontweight="normal", color=SOFT)
            panel.grid()
            if len(points):
                set_log_axis(
                    panel.xaxis, float(points["ratio"].min()) / 1.3, float(points["ratio"].max()) * 1.3, _ratio
                )
        some = budgets[0]
        label_axes(
            panels, f"share of {some.over} / share of {some.under}", f"ln N*({some.first}) − ln N*({some.second})"
        )
        return figure


def draw_similarity(found: ValidationSimilarityStudy, C: float) -> Figure:
    """Loss of every validation set against the ratio of two categories, each less its mean and over its scatter."""
    with mpl.rc_context(STYLE):
        told = [one for one in found.likenesses if math.isnan(one.C)]
        figure, panels = make_panels(max(len(told), 1), height=1.75, share_y=True)
        profiles = found.profile_table()
        profiles = profiles[profiles["C"] == C] if len(profiles) else profiles
        for panel, one in zip(panels, told, strict=False):
            for at, name in enumerate((one.first, one.second)):
                _profile(panel, profiles, name, SKILL_COLOURS[at], 1.2)
            _profile(panel, profiles, one.column, INK, 1.6)
            panel.set_title(one.column.removeprefix("set/"))
            panel.set_title(f"like: {one.like}", loc="right", fontsize=7, fontweight="normal", color=SOFT)
            panel.grid()
            if len(profiles):
                set_log_axis(
                    panel.xaxis, float(profiles["ratio"].min()) / 1.3, float(profiles["ratio"].max()) * 1.3, _ratio
                )
        if told:
            label_axes(panels, "ratio of shares", "loss, normalised")
            draw_legend(figure, [
                Line2D([], [], color=SKILL_COLOURS[0], label=told[0].first),
                Line2D([], [], color=SKILL_COLOURS[1], label=told[0].second),
                Line2D([], [], color=INK, label="the validation set"),
            ])  # fmt: skip
        return figure


def _profile(panel: Axes, profiles: pd.DataFrame, name: str, colour: str, width: float) -> None:
    mine = profiles[profiles["column"] == name].sort_values("ratio") if len(profiles) else profiles
    if len(mine):
        panel.plot(mine["ratio"], mine["normalised"], color=colour, linewidth=width, marker="o", markersize=2.5)


def draw_shifts(study: SkillStudy) -> Figure:
    """The largest shift of N* by the composition of the validation set, at each budget of the base mix."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        mine = [one for one in study.shifts if one.mix == study.base and one.largest.is_finite]
        for (at, words), dash in zip(PUBLISHED_SHIFTS, ((4, 2), (1, 2)), strict=True):
            axes.axhline(at, color=GREY, linewidth=1.1, linestyle=(0, dash), label=words)
        for one in mine:
            axes.plot([one.C, one.C], [one.largest.lo, one.largest.hi], color=SKILL_COLOURS[0], linewidth=1.4)
            axes.plot([one.C], [one.largest.value], marker="D", color=SKILL_COLOURS[0], markeredgecolor="white")
        if mine:
            budgets = sorted(one.C for one in mine)
            set_log_axis(axes.xaxis, budgets[0] / 1.6, budgets[-1] * 1.6, power, at=budgets)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axes.set_xlabel("C = 6 N D, FLOP")
        axes.set_ylabel("largest shift of N*")
        figure.legend(loc="outside lower center", ncols=2)
        axes.grid(axis="y")
        return figure


def draw_published(fits: StudyResults, mix: str, theirs: pd.DataFrame) -> Figure:
    """N*(C) of this study (filled) and of another (hollow), and each skill's N* against its own aggregate's."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        ours = fits.minima_table()
        ours = ours[(ours["mix"] == mix) & np.isfinite(ours["N"].astype(float))]
        aggregate = fits.aggregates[0] if fits.aggregates else ""
        names = [*fits.skills, *([aggregate] if aggregate else [])]
        for at, name in enumerate(names):
            colour = GREY if name == aggregate else SKILL_COLOURS[at % len(SKILL_COLOURS)]
            mine, other = ours[ours["skill"] == name], theirs[theirs["skill"] == name]
            if len(mine):
                _with_bars(left, mine["C"], mine, "N", colour)
            if len(other):
                _with_bars(left, other["C"], other.assign(N_lo=other["N_lo"].fillna(other["N"]),
                           N_hi=other["N_hi"].fillna(other["N"])), "N", colour, hollow=True)  # fmt: skip
            if name != aggregate:
                _ratios(right, fits, mix, name, theirs, colour)
        every = pd.concat([ours[["C", "N"]], theirs[["C", "N"]]]).astype(float)
        right.axhline(0, color=INK, linewidth=0.9)
        first, last = float(every["C"].min()) / 3, float(every["C"].max()) * 3
        decades = [10.0**k for k in range(math.ceil(math.log10(first)), math.floor(math.log10(last)) + 1)]
        for panel in (left, right):
            set_log_axis(panel.xaxis, first, last, power, at=decades[:: math.ceil(len(decades) / 5)])
            panel.set_xlabel("C, FLOP")
            panel.grid()
        set_log_axis(left.yaxis, float(every["N"].min()) / 2, float(every["N"].max()) * 2, format_count)
        left.set_ylabel("N*, parameters")
        right.set_ylabel("ln N*(skill) − ln N*(aggregate)")
        keys = [
            Line2D([], [], color=GREY if name == aggregate else SKILL_COLOURS[at % len(SKILL_COLOURS)], marker="o",
                   markersize=4, linestyle="none", label=name)
            for at, name in enumerate(names)
        ]  # fmt: skip
        keys.append(Line2D([], [], color=INK, marker="o", markersize=4, markerfacecolor="white", linestyle="none",
                           label="published"))  # fmt: skip
        figure.legend(handles=keys, loc="outside lower center", ncols=len(keys))
        return figure


def _ratios(panel: Axes, fits: StudyResults, mix: str, name: str, theirs: pd.DataFrame, colour: str) -> None:
    """A skill's residuals: this study's with intervals, those of the others' optima without."""
    aggregate = next(iter(fits.aggregates), "")
    for one in fits.size_gaps:
        if (one.mix, one.skill, one.aggregate) == (mix, name, aggregate) and one.value.is_finite and not one.pooled:
            panel.plot([one.C, one.C], [one.value.lo, one.value.hi], color=colour, linewidth=0.8)
            panel.plot([one.C], [one.value.value], marker="o", markersize=3.5, color=colour, gid="optimum")
    common = theirs[theirs["skill"] == "aggregate"].set_index("C")["N"]
    other = theirs[(theirs["skill"] == name) & theirs["C"].isin(common.index)]
    if len(other):
        gap = np.log(other["N"].to_numpy() / common[other["C"]].to_numpy())
        panel.plot(other["C"], gap, linestyle="none", marker="o", markersize=4, markerfacecolor="white", color=colour,
                   gid="published")  # fmt: skip


def _with_bars(
    panel: Axes, x: "pd.Series[float]", rows: pd.DataFrame, name: str, colour: str, *, hollow: bool = False
) -> None:  # fmt: skip
    value, lo, hi = (rows[column].to_numpy(dtype=float) for column in (name, f"{name}_lo", f"{name}_hi"))
    bars = np.maximum([value - lo, hi - value], 0)
    panel.errorbar(x, value, yerr=bars, linestyle="none", marker="o", markersize=3.5, color=colour,
                   markerfacecolor="white" if hollow else colour, elinewidth=0.8,
                   gid="published" if hollow else "optimum")  # fmt: skip


def _budget_colours(number: int) -> list[str]:
    return [str(to_hex(colormaps["viridis"](at))) for at in np.linspace(0.1, 0.75, max(number, 1))][:number]


def _budget_key(colours: Mapping[float, str]) -> list[Line2D]:
    return [
        Line2D([], [], color=colour, marker="o", markersize=3.5, label=f"{power(C)} FLOP")
        for C, colour in colours.items()
    ]


def _ratio(value: float) -> str:
    return f"{value:g}"
