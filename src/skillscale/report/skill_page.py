"""Figures of the page on how skills differ, with captions and the tables of their numbers."""

import math
import re
from collections.abc import Mapping, Sequence

import pandas as pd

from skillscale.formatting import (
    format_count,
    format_log_ratio,
    format_number,
    format_percent,
    join_words,
    plural,
    power,
)
from skillscale.laws.results import Interval, Status, StudyResults, Verdict
from skillscale.laws.skills.crossover import Crossover, CrossoverOutcome
from skillscale.laws.skills.regression import MIN_MIXES
from skillscale.laws.skills.skill_study import PAIR, SkillStudy, largest_budget_shift
from skillscale.laws.skills.validation_shift import composition_table
from skillscale.laws.skills.verdicts import Confirmation, ConfirmedVerdict, confirmed_verdict_table, required_runs_table
from skillscale.report import skill_figures, style
from skillscale.report.sections import Figure, Table, make_figure, make_table

_ABSENT = re.compile(r" at \d+ of \d+")  # one match per mix without an optimum
_FAR = 1000.0  # a larger factor between the budgets of two studies is mentioned
_PUBLISHED_CROSSING = " Roberts et al. 2025 found the crossing at a ratio of 2.1."
_PUBLISHED_SLOPES = (
    "Roberts et al. 2025 found elasticities of 0.137 ± 0.028 for knowledge and 0.055 ± 0.007 for code, at 6×10¹⁸ FLOP."
)


def make_skill_figures(
    study: SkillStudy | None, categories: Mapping[str, str], *, fits: StudyResults,
    published: tuple[str, pd.DataFrame] | None,
) -> list[Figure]:  # fmt: skip
    """Return the figures that the runs allow, and for the others a text on the missing runs.

    Args:
        study: study of the skills, or None if the runs are not an isoFLOP study.
        categories: category of the mix for each skill.
        fits: results of the skills alone.
        published: published optima to compare with, after the name of their table.
    """
    if study is None:
        return []
    return [
        *_split_figures(study),
        *_shift_figures(study),
        *_mix_figures(study, categories),
        *_published_figures(study, fits, published),
    ]


def _published_figures(
    study: SkillStudy, fits: StudyResults, published: tuple[str, pd.DataFrame] | None
) -> list[Figure]:
    """Return a figure that compares published optima of skills with the same names."""
    if published is None:
        return []
    name, theirs = published
    shared = theirs[theirs["skill"].isin([*fits.skills, *fits.aggregates])]
    if shared.empty or study.base not in fits.mixes:
        return []
    return [
        make_figure(
            "published", f"Comparison with {name}",
            style.to_svg(skill_figures.draw_published(fits, study.base, shared)),
            f"Filled: optima of this study with intervals. Hollow: optima of {name}. That study measures skills of the "
            f"same name on other data sets{_budget_distance(fits, shared)}. Compare only the order of the skills.",
            (_folded_table(f"Optima of {name}", theirs),),
        )
    ]  # fmt: skip


def _budget_distance(fits: StudyResults, theirs: pd.DataFrame) -> str:
    """Return words for the distance between the budgets of two studies, if it is large."""
    ours = [minimum.C for minimum in fits.minima]
    gap = max(float(theirs["C"].min()) / max(ours), min(ours) / float(theirs["C"].max()))
    return f", and the nearest budgets are a factor of {power(gap, 1)} apart" if gap > _FAR else ""


def skill_frames(study: SkillStudy | None) -> dict[str, pd.DataFrame]:
    """Return the tables of the figures by the stem of their CSV file."""
    if study is None:
        return {}
    tables = {
        "splits": confirmed_verdict_table(study.verdicts),
        "composition_shifts": composition_table(study.shifts),
        "runs_needed": required_runs_table(study.required),
        "optima_of_every_set": study.fits.minima_table(),
    }
    if study.shares is not None:
        tables |= {
            "shares": study.shares.points_table(),
            "share_effects": study.shares.effect_table(),
            "equal_shares": study.shares.equal_share_table(),
            "slope_differences": study.shares.difference_table(),
        }
    if study.crossover is not None:
        tables |= {"crossover": study.crossover.crossover_table(), "crossover_points": study.crossover.points_table()}
    if study.similarity is not None:
        tables |= {"likeness": study.similarity.similarity_table(), "profiles": study.similarity.profile_table()}
    return tables


def _split_figures(study: SkillStudy) -> list[Figure]:
    title = "Verdicts on two splits"
    if not study.verdicts:
        why = "The runs have no aggregate to compare skills with. Set weights of evaluation sets in `study.aggregate`, "
        return [_missing_figure("splits", title, f"{why}or in `validation` of a column map.")]
    if not any(verdict.hypothesis.value.is_finite for verdict in study.verdicts):
        reasons = "; ".join(
            dict.fromkeys(verdict.hypothesis.reason for verdict in study.verdicts if verdict.hypothesis.reason)
        )
        return [_missing_figure("splits", title, f"No skill has a residual: {reasons}.")]
    verdicts = " ".join(_verdict_sentence(verdict) for verdict in study.verdicts)
    caption = (
        f"{verdicts} Verdicts use the hypothesis split (filled) after Holm's correction over the skills. The held-out "
        f"split (hollow) of other data sets confirms or contradicts them. Both splits use the same runs. A confirmed "
        f"verdict does not depend on the choice of data sets, but it may depend on the runs. {_missing_splits(study)}"
        f"Bars: {format_percent(study.fits.level, 3)} intervals, pooled over budgets."
    )
    tables = (
        _folded_table("Residuals of skills and data sets", confirmed_verdict_table(study.verdicts)),
        _folded_table("How many times the runs a claim would need", required_runs_table(study.required)),
    )
    return [make_figure("splits", title, style.to_svg(skill_figures.draw_splits(study.verdicts)), caption, tables)]


def _missing_splits(study: SkillStudy) -> str:
    lacking = [verdict.skill for verdict in study.verdicts if verdict.confirmation is Confirmation.NO_SPLIT]
    if not lacking:
        return ""
    return (
        f"{_capital(join_words(lacking))}: no held-out split. Name one with other data sets in the skills file "
        "(`held_out`). "
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _verdict_sentence(verdict: ConfirmedVerdict) -> str:
    if not verdict.hypothesis.value.is_finite:
        return f"{verdict.skill}: {verdict.hypothesis.reason}."
    on_hypothesis = f"{format_log_ratio(verdict.hypothesis.value.value)} {_interval_ends(verdict.hypothesis.value)}"
    if verdict.verdict is Verdict.UNRESOLVED and verdict.hypothesis.value.excludes_zero:
        return (
            f"{verdict.skill}: its interval excludes zero ({on_hypothesis}), but not after Holm's correction for "
            f"several skills (p = {format_number(verdict.hypothesis.p_holm, 2)})."
        )
    if verdict.verdict is Verdict.UNRESOLVED:
        return f"{verdict.skill}: no resolved difference from the aggregate ({on_hypothesis})."
    on_held_out = {
        Confirmation.CONFIRMED: "and confirmed on the held-out split",
        Confirmation.SIGN_CONFIRMED: "and confirmed in sign only, as the intervals of the two splits do not touch,",
        Confirmation.CONTRADICTED: "but contradicted on the held-out split",
        Confirmation.NOT_CONFIRMED: "but not confirmed on the held-out split",
        Confirmation.NO_SPLIT: "with no held-out split to confirm it",
    }.get(verdict.confirmation, "")
    held_out = (
        f" ({format_log_ratio(verdict.held_out.value.value)} {_interval_ends(verdict.held_out.value)})"
        if verdict.held_out.value.is_finite
        else ""
    )
    return f"{verdict.skill}: {verdict.verdict} ({on_hypothesis}), {on_held_out}{held_out}."


def _interval_ends(value: Interval) -> str:
    return f"[{format_log_ratio(value.lo)}, {format_log_ratio(value.hi)}]"


def _shift_figures(study: SkillStudy) -> list[Figure]:
    title = "Effect of the composition of the validation set"
    base_shifts = [shift for shift in study.shifts if shift.mix == study.base]
    last = largest_budget_shift(study)
    if last is None:
        why = "; ".join(dict.fromkeys(shift.reason for shift in base_shifts)) or "there is one skill"
        return [
            _missing_figure("composition", title, f"This figure needs two skills with an optimum at one budget: {why}.")
        ]
    value = last.largest
    conclusion = "so a shift is resolved" if value.lo > 0 else "so no shift is resolved"
    caption = (
        "Largest change of N* between two validation sets of different composition: max N* / min N* − 1 over skills. "
        f"At the largest budget, {power(last.C)} FLOP, it is "
        f"{100 * value.value:.0f} % [{100 * value.lo:.0f}, {100 * value.hi:.0f}], from {last.extremes[0]} to "
        f"{last.extremes[1]}, {conclusion} there. Noise makes an estimated largest difference too large. The interval "
        "accounts for that at each budget, and starts at 0 if no two skills differ significantly."
    )
    table = _folded_table("Shift of N* by validation set", composition_table(base_shifts))
    return [make_figure("composition", title, style.to_svg(skill_figures.draw_shifts(study)), caption, (table,))]


def _mix_figures(study: SkillStudy, categories: Mapping[str, str]) -> list[Figure]:
    n_mixes = len(study.fits.mixes)
    skills = [name for name in categories if name in study.fits.skills]
    if study.shares is None or not any(effect.line is not None for effect in study.shares.effects):
        return [_missing_figure("mixes", "Data mixes", _missing_mixes(n_mixes, skills, study))]
    smallest = min(minimum.C for minimum in study.fits.minima)
    own_category = {name: categories[name] for name in skills}
    figures = [
        make_figure(
            "mixes", f"Data mixes at {power(smallest)} FLOP",
            style.to_svg(skill_figures.draw_mixes(study, own_category, smallest)),
            f"IsoFLOP curves of {n_mixes} mixes at the smallest budget, coloured by the share of the skill's category. "
            "The table has the other budgets.",
            (_folded_table("Optima of every mix", study.fits.minima_table()),),
        ),
        make_figure(
            "shares", "Optimal size against the share of the skill's data",
            style.to_svg(skill_figures.draw_shares(study.shares, skills)),
            f"{_elasticity_text(study, skills)} {_equal_share_text(study)} {_PUBLISHED_SLOPES} If a skill "
            "learned only from the tokens of its category, the elasticity would be β/(α+β), about 0.45 with their "
            "exponents.",
            (
                _folded_table("Slopes and elasticities", study.shares.effect_table()),
                _folded_table("Skills at equal share", study.shares.equal_share_table()),
                _folded_table("Differences of slopes", study.shares.difference_table()),
            ),
        ),
    ]  # fmt: skip
    return [*figures, *_ratio_figures(study, smallest)]


def _missing_mixes(n_mixes: int, skills: Sequence[str], study: SkillStudy) -> str:
    """Return which runs are missing for the figures of mixes."""
    takes = (
        "The effect of the share of a skill's data on N*, the crossover of two skills and the similarity of validation "
        "sets need"
    )
    if n_mixes < MIN_MIXES:
        return (
            f"The runs have {plural(n_mixes, 'mix')}. {takes} at least {MIN_MIXES} mixes at one budget. Run "
            "`skillscale grid --study mix-ablation-hour` and `--study ratio-hour`, and report these studies."
        )
    if not skills:
        return (
            f"{takes} the shares of categories and the category of each skill. Set `category` of a skill in the skills "
            "file, or `mix` and `categories` in the column map."
        )
    reasons = dict.fromkeys(effect.reason for effect in study.shares.effects if effect.reason) if study.shares else {}
    return f"{takes} optima of {MIN_MIXES} mixes at one budget: {'; '.join(reasons) or 'there are fewer'}."


def _elasticity_text(study: SkillStudy, skills: Sequence[str]) -> str:
    if study.shares is None:
        return ""
    pooled = {effect.skill: effect for effect in study.shares.effects if math.isnan(effect.C)}
    parts = []
    for name in skills:
        effect = pooled.get(name)
        if effect is None or effect.status is not Status.OK or not effect.elasticity.is_finite:
            parts.append(f"{name}: {effect.reason if effect else 'no optima'}")
            continue
        value = effect.elasticity
        doubt = "" if value.excludes_zero else ", not different from 0"
        doubt += (
            f" (p = {format_number(effect.p_holm, 2)} by Holm)"
            if value.excludes_zero and effect.p_holm > 1 - study.fits.level
            else ""
        )
        absent = len(_ABSENT.findall(effect.reason))
        missing = f" (without {plural(absent, 'mix')} at some budget)" if absent else ""
        parts.append(f"{name} {value.value:+.2f} [{value.lo:+.2f}, {value.hi:+.2f}]{doubt}{missing}")
    return f"Elasticity d ln N* / d ln share over all budgets: {'; '.join(parts)}."


def _equal_share_text(study: SkillStudy) -> str:
    if study.shares is None or study.pair is None:
        return ""
    comparisons = [
        comparison
        for comparison in study.shares.equal_shares
        if math.isnan(comparison.C)
        and {comparison.first, comparison.second} == set(study.pair)
        and comparison.ratio.is_finite
    ]
    if not comparisons:
        return f"At equal share {join_words(list(study.pair))} can't be compared: their shares do not overlap."
    parts = [
        f"{comparison.ratio.value:.2f} [{comparison.ratio.lo:.2f}, {comparison.ratio.hi:.2f}] at {comparison.share:g}"
        for comparison in comparisons
    ]
    return f"N*({comparisons[0].first}) / N*({comparisons[0].second}) at equal share: {'; '.join(parts)}."


def _ratio_figures(study: SkillStudy, smallest: float) -> list[Figure]:
    figures = []
    if study.crossover is not None and study.crossover.crossovers:
        over_all = study.crossover.crossovers[-1]
        figures.append(
            make_figure(
                "crossover", "Crossover: where two skills have the same optimal size",
                style.to_svg(skill_figures.draw_crossover(study.crossover)),
                f"{_crossover_text(over_all)}{_PUBLISHED_CROSSING if study.pair == PAIR else ''}",
                (
                    _folded_table("Crossovers", study.crossover.crossover_table()),
                    _folded_table("Optima by ratio", study.crossover.points_table()),
                ),
            )
        )  # fmt: skip
    if study.similarity is not None:
        by_skill: dict[str, list[str]] = {}
        for similarity in study.similarity.similarities:
            if math.isnan(similarity.C):
                by_skill.setdefault(similarity.similar_to, []).append(similarity.column.removeprefix("set/"))
        summary = "; ".join(f"{like}: {join_words(names)}" for like, names in by_skill.items())
        figures.append(
            make_figure(
                "likeness", "Similarity of validation sets to skills",
                style.to_svg(skill_figures.draw_similarity(study.similarity, smallest)),
                f"Loss at the optimum of each mix at {power(smallest)} FLOP, minus its mean over mixes and divided by "
                f"its scatter, with those of the two skills. The data sets inside the two skills are not shown. Over "
                f"all budgets: {summary}. Each set is judged separately: about one in ten is wrong at this level.",
                (_folded_table("Similarity", study.similarity.similarity_table()),),
            )
        )  # fmt: skip
    return figures


def _crossover_text(crossover: Crossover) -> str:
    if crossover.status is not Status.OK:
        return f"No statement on a crossover: {crossover.reason}."
    which = f"{crossover.first} and {crossover.second}"
    low, high = (f"{format_log_ratio(end.value)} {_interval_ends(end)}" for end in crossover.ends)
    ends = (
        f"N*({crossover.first}) against N*({crossover.second}): {low} at the smallest ratio of {crossover.over} to "
        f"{crossover.under}, {high} at the largest."
    )
    if crossover.outcome is CrossoverOutcome.FOUND:
        return f"Over all budgets, {which} cross at a ratio of {_ratio_text(crossover.ratio)}. {ends}"
    if crossover.outcome is CrossoverOutcome.NONE:
        return f"Over all budgets, {which} don't cross within the ratios of the runs. {ends}"
    return f"Over all budgets, it is not resolved whether {which} cross. {ends}"


def _ratio_text(value: Interval) -> str:
    def side(x: float, beyond: str) -> str:
        return format_count(x, 2) if 0 < x < math.inf else beyond

    return f"{format_count(value.value, 2)} [{side(value.lo, 'below the runs')}, {side(value.hi, 'above the runs')}]"


def _folded_table(title: str, frame: pd.DataFrame) -> Table:
    """Return a folded table without the empty columns of the frame."""
    empty = [name for name in frame.columns if frame[name].isna().all() or (frame[name].astype(str) == "").all()]
    return make_table(title, frame.drop(columns=empty))


def _missing_figure(name: str, title: str, what: str) -> Figure:
    return Figure(name=name, title=title, image="", alt="", caption=what, tables=())
