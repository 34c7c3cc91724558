"""The page's figures of how skills differ, each with what it shows and what it does not, and the tables behind them."""

import math
import re
from collections.abc import Mapping, Sequence

import pandas as pd

from skillscale.formatting import format_count, format_log_ratio, join_words, plural, power
from skillscale.laws.results import Interval, Status, StudyResults, Verdict
from skillscale.laws.skills.crossover import Crossover, CrossoverOutcome
from skillscale.laws.skills.regression import MIN_MIXES
from skillscale.laws.skills.skill_study import PAIR, SkillStudy, largest_budget_shift
from skillscale.laws.skills.validation_shift import composition_table
from skillscale.laws.skills.verdicts import Confirmation, ConfirmedVerdict, confirmed_verdict_table, required_runs_table
from skillscale.report import skill_figures, style
from skillscale.report.sections import Figure, make_figure, make_table

_ABSENT = re.compile(r" at \d+ of \d+")  # each names a mix that a line is without
_FAR = 1000.0  # factor between the budgets of two studies that is worth a word
_PUBLISHED_CROSSING = " Roberts et al. 2025 found the crossing at a ratio of 2.1."
_PUBLISHED_SLOPES = (
    "Roberts et al. 2025 found elasticities of .137 ± .028 for knowledge and .055 ± .007 for code, at 6×10¹⁸ FLOP."
)


def make_skill_figures(
    study: SkillStudy | None, categories: Mapping[str, str], *, fits: StudyResults, beside: tuple[str, pd.DataFrame] | None
) -> list[Figure]:  # fmt: skip
    """Every figure that the runs allow; in place of one that they don't, what it takes.

    Args:
        study: None where the runs are no isoFLOP study, which has none of them.
        categories: of the mix, the one that belongs to each skill.
        fits: of the skills alone.
        beside: optima that others published, by the name of their table.
    """
    if study is None:
        return []
    return [*_splits(study), *_shifts(study), *_mixes(study, categories), *_beside(study, fits, beside)]


def _beside(study: SkillStudy, fits: StudyResults, beside: tuple[str, pd.DataFrame] | None) -> list[Figure]:
    """Published optima of skills of the same names beside the study's own."""
    if beside is None:
        return []
    name, theirs = beside
    known = theirs[theirs["skill"].isin([*fits.skills, *fits.aggregates])]
    if known.empty or study.base not in fits.mixes:
        return []
    return [
        make_figure(
            "published", f"Beside {name}", style.to_svg(skill_figures.draw_published(fits, study.base, known)),
            f"This study's optima with their intervals, and those of {name}, hollow. Skills of the same name are "
            f"measured on other data sets there{_apart(fits, known)}: what agrees or differs is the order of the "
            "skills, not more.",
            (make_table(f"Optima of {name}", _short(theirs), folded=True),),
        )
    ]  # fmt: skip


def _apart(fits: StudyResults, theirs: pd.DataFrame) -> str:
    """How far apart two studies' budgets are, where they don't meet."""
    ours = [one.C for one in fits.minima]
    gap = max(float(theirs["C"].min()) / max(ours), min(ours) / float(theirs["C"].max()))
    return f", and the nearest budgets are a factor of {power(gap, 1)} apart" if gap > _FAR else ""


def skill_frames(study: SkillStudy | None) -> dict[str, pd.DataFrame]:
    """Every table behind the figures, by file stem."""
    if study is None:
        return {}
    found = {
        "splits": confirmed_verdict_table(study.verdicts),
        "composition_shifts": composition_table(study.shifts),
        "runs_needed": required_runs_table(study.required),
        "optima_of_every_set": study.fits.minima_table(),
    }
    if study.shares is not None:
        found |= {
            "shares": study.shares.points_table(),
            "share_effects": study.shares.effect_table(),
            "equal_shares": study.shares.equal_share_table(),
            "slope_differences": study.shares.difference_table(),
        }
    if study.crossover is not None:
        found |= {"crossover": study.crossover.crossover_table(), "crossover_points": study.crossover.points_table()}
    if study.similarity is not None:
        found |= {"likeness": study.similarity.similarity_table(), "profiles": study.similarity.profile_table()}
    return found


def _splits(study: SkillStudy) -> list[Figure]:
    title = "Verdicts on two splits"
    if not study.verdicts:
        why = "The runs have no aggregate to compare skills with: weigh evaluation sets in `study.aggregate`, or in "
        return [_missing("splits", title, f"{why}`validation` of a table's columns.")]
    if not any(one.hypothesis.value.is_finite for one in study.verdicts):
        reasons = "; ".join(dict.fromkeys(one.hypothesis.reason for one in study.verdicts if one.hypothesis.reason))
        return [_missing("splits", title, f"No skill has a residual: {reasons}.")]
    told = " ".join(_verdict(one) for one in study.verdicts)
    caption = (
        f"{told} Verdicts are decided on the hypothesis split (filled) after Holm's correction over the skills, and "
        f"asked of the held-out split (hollow), of other data sets. Both are measured on the same runs: what is "
        f"confirmed does not hang on the choice of data sets; whether it hangs on the runs takes other runs to tell. "
        f"{_without_split(study)}"
        f"{100 * study.fits.level:.3g} % intervals, pooled over budgets."
    )
    tables = (
        make_table("Residuals of skills and data sets", _short(confirmed_verdict_table(study.verdicts)), folded=True),
        make_table(
            "How many times the runs a claim would need", _short(required_runs_table(study.required)), folded=True
        ),
    )
    return [make_figure("splits", title, style.to_svg(skill_figures.draw_splits(study.verdicts)), caption, tables)]


def _without_split(study: SkillStudy) -> str:
    lacking = [one.skill for one in study.verdicts if one.confirmation is Confirmation.NO_SPLIT]
    if not lacking:
        return ""
    return f"{_capital(join_words(lacking))}: no held-out split; name one of other data sets in the skills file (`held_out`). "


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _verdict(one: ConfirmedVerdict) -> str:
    if not one.hypothesis.value.is_finite:
        return f"{one.skill}: {one.hypothesis.reason}."
    here = f"{format_log_ratio(one.hypothesis.value.value)} {_ends(one.hypothesis.value)}"
    if one.verdict is Verdict.UNRESOLVED and one.hypothesis.value.excludes_zero:
        return (
            f"{one.skill}: its interval leaves out zero ({here}), but not after Holm's correction for looking at "
            f"several skills (p = {one.hypothesis.p_holm:.2g})."
        )
    if one.verdict is Verdict.UNRESOLVED:
        return f"{one.skill}: no difference from the aggregate is shown ({here})."
    there = {
        Confirmation.CONFIRMED: "and confirmed on the held-out split",
        Confirmation.CONTRADICTED: "but contradicted on the held-out split",
        Confirmation.NOT_CONFIRMED: "but not confirmed on the held-out split",
        Confirmation.NO_SPLIT: "with no held-out split to confirm it",
    }.get(one.confirmation, "")
    held = (
        f" ({format_log_ratio(one.held_out.value.value)} {_ends(one.held_out.value)})"
        if one.held_out.value.is_finite
        else ""
    )
    return f"{one.skill}: {one.verdict} ({here}), {there}{held}."


def _ends(value: Interval) -> str:
    return f"[{format_log_ratio(value.lo)}, {format_log_ratio(value.hi)}]"


def _shifts(study: SkillStudy) -> list[Figure]:
    title = "A validation set of another composition"
    mine = [one for one in study.shifts if one.mix == study.base]
    last = largest_budget_shift(study)
    if last is None:
        why = "; ".join(dict.fromkeys(one.reason for one in mine)) or "there is one skill"
        return [_missing("composition", title, f"It takes two skills with an optimum at one budget: {why}.")]
    value = last.largest
    surely = "so that a shift is shown" if value.lo > 0 else "so that none is shown"
    caption = (
        "How far N* moves at most when a validation set of one composition of the skills takes the place of another: "
        f"max N* / min N* − 1 over skills. At the largest budget, {power(last.C)} FLOP, it is "
        f"{100 * value.value:.0f} % [{100 * value.lo:.0f}, {100 * value.hi:.0f}], from {last.extremes[0]} to "
        f"{last.extremes[1]}, {surely} there. The estimate of a largest difference is too large where noise is; the "
        "interval owns that, budget by budget, and begins at 0 where no two skills can be told apart."
    )
    table = make_table("Shift of N* by validation set", _short(composition_table(mine)), folded=True)
    return [make_figure("composition", title, style.to_svg(skill_figures.draw_shifts(study)), caption, (table,))]


def _mixes(study: SkillStudy, categories: Mapping[str, str]) -> list[Figure]:
    n_mixes = len(study.fits.mixes)
    skills = [name for name in categories if name in study.fits.skills]
    if study.shares is None or not any(one.line is not None for one in study.shares.effects):
        return [_missing("mixes", "Data mixes", _why_no_mixes(n_mixes, skills, study))]
    smallest = min(one.C for one in study.fits.minima)
    own = {name: categories[name] for name in skills}
    found = [
        make_figure(
            "mixes", f"Data mixes at {power(smallest)} FLOP", style.to_svg(skill_figures.draw_mixes(study, own, smallest)),
            f"IsoFLOP curves of {n_mixes} mixes at the smallest budget; the colour tells the share of the skill's own "
            "category. Other budgets are in the table.",
            (make_table("Optima of every mix", _short(study.fits.minima_table()), folded=True),),
        ),
        make_figure(
            "shares", "Optimal size against the share of the skill's data",
            style.to_svg(skill_figures.draw_shares(study.shares, skills)),
            f"{_elasticities(study, skills)} {_equal(study)} {_PUBLISHED_SLOPES} Were a skill to learn from the tokens "
            "of its own category alone, the elasticity would be β/(α+β), about .45 with their exponents.",
            (
                make_table("Slopes and elasticities", _short(study.shares.effect_table()), folded=True),
                make_table("Skills at equal share", _short(study.shares.equal_share_table()), folded=True),
                make_table("Differences of slopes", _short(study.shares.difference_table()), folded=True),
            ),
        ),
    ]  # fmt: skip
    return [*found, *_ratios(study, smallest)]


def _why_no_mixes(n_mixes: int, skills: Sequence[str], study: SkillStudy) -> str:
    """What figures of mixes lack, and how to get it."""
    takes = (
        "To tell how N* goes with the share of a skill's data, where optima of two skills cross, and what a validation "
        "set is like takes"
    )
    if n_mixes < MIN_MIXES:
        return (
            f"The runs have {plural(n_mixes, 'mix')}. {takes} at least {MIN_MIXES} mixes at one budget: run `skillscale "
            "grid --study mix-ablation-hour` and `--study ratio-hour`, and report these studies."
        )
    if not skills:
        return (
            f"{takes} shares of categories, and which category is which skill's: `category` of a skill in the skills "
            "file, `mix` and `categories` of a table's columns."
        )
    reasons = dict.fromkeys(one.reason for one in study.shares.effects if one.reason) if study.shares else {}
    return f"{takes} optima of {MIN_MIXES} mixes at one budget: {'; '.join(reasons) or 'there are fewer'}."


def _elasticities(study: SkillStudy, skills: Sequence[str]) -> str:
    if study.shares is None:
        return ""
    pooled = {one.skill: one for one in study.shares.effects if math.isnan(one.C)}
    told = []
    for name in skills:
        one = pooled.get(name)
        if one is None or one.status is not Status.OK or not one.elasticity.is_finite:
            told.append(f"{name}: {one.reason if one else 'no optima'}")
            continue
        value = one.elasticity
        sure = "" if value.excludes_zero else ", not told from 0"
        sure += f" (p = {one.p_holm:.2g} by Holm)" if value.excludes_zero and one.p_holm > 1 - study.fits.level else ""
        absent = len(_ABSENT.findall(one.reason))
        lost = f" (without {plural(absent, 'mix')} at some budget)" if absent else ""
        told.append(f"{name} {value.value:+.2f} [{value.lo:+.2f}, {value.hi:+.2f}]{sure}{lost}")
    return f"Elasticity d ln N* / d ln share over the budgets: {'; '.join(told)}."


def _equal(study: SkillStudy) -> str:
    if study.shares is None or study.pair is None:
        return ""
    mine = [
        one
        for one in study.shares.equal_shares
        if math.isnan(one.C) and {one.first, one.second} == set(study.pair) and one.ratio.is_finite
    ]
    if not mine:
        return f"At equal share {join_words(list(study.pair))} can't be compared: no share is within both ranges."
    told = [f"{one.ratio.value:.2f} [{one.ratio.lo:.2f}, {one.ratio.hi:.2f}] at {one.share:g}" for one in mine]
    return f"N*({mine[0].first}) / N*({mine[0].second}) at equal share: {'; '.join(told)}."


def _ratios(study: SkillStudy, smallest: float) -> list[Figure]:
    found = []
    if study.crossover is not None and study.crossover.crossovers:
        over_all = study.crossover.crossovers[-1]
        found.append(
            make_figure(
                "crossover", "Where two skills want the same size",
                style.to_svg(skill_figures.draw_crossover(study.crossover)),
                f"{_crossing(over_all)}{_PUBLISHED_CROSSING if study.pair == PAIR else ''}",
                (
                    make_table("Crossings", _short(study.crossover.crossover_table()), folded=True),
                    make_table("Optima by ratio", _short(study.crossover.points_table()), folded=True),
                ),
            )
        )  # fmt: skip
    if study.similarity is not None:
        alike: dict[str, list[str]] = {}
        for one in study.similarity.similarities:
            if math.isnan(one.C):
                alike.setdefault(one.similar_to, []).append(one.column.removeprefix("set/"))
        told = "; ".join(f"{like}: {join_words(names)}" for like, names in alike.items())
        found.append(
            make_figure(
                "likeness", "What each validation set is like",
                style.to_svg(skill_figures.draw_similarity(study.similarity, smallest)),
                f"Loss at the optimum of each mix, less its mean over mixes and over its scatter, at {power(smallest)} "
                f"FLOP, beside those of the two skills; the data sets they are the means of are left out. By all "
                f"budgets: {told}. Each is told by itself: of ten, one may be told wrongly at this level.",
                (make_table("Likeness", _short(study.similarity.similarity_table()), folded=True),),
            )
        )  # fmt: skip
    return found


def _crossing(one: Crossover) -> str:
    if one.status is not Status.OK:
        return f"Nothing can be said of a crossing: {one.reason}."
    which = f"{one.first} and {one.second}"
    low, high = (f"{format_log_ratio(end.value)} {_ends(end)}" for end in one.ends)
    ends = (
        f"N*({one.first}) against N*({one.second}): {low} at the least ratio of {one.over} to {one.under} run, {high} "
        "at the largest."
    )
    if one.outcome is CrossoverOutcome.FOUND:
        return f"Over the budgets, {which} cross at a ratio of {_ratio(one.ratio)}. {ends}"
    if one.outcome is CrossoverOutcome.NONE:
        return f"Over the budgets, {which} don't cross within the ratios that were run. {ends}"
    return f"Over the budgets, whether {which} cross is not resolved. {ends}"


def _ratio(value: Interval) -> str:
    def side(x: float, beyond: str) -> str:
        return format_count(x, 2) if 0 < x < math.inf else beyond

    return f"{format_count(value.value, 2)} [{side(value.lo, 'below those run')}, {side(value.hi, 'above those run')}]"


def _short(frame: pd.DataFrame) -> pd.DataFrame:
    """Without columns that are empty."""
    silent = [name for name in frame.columns if frame[name].isna().all() or (frame[name].astype(str) == "").all()]
    return frame.drop(columns=silent)


def _missing(name: str, title: str, what: str) -> Figure:
    return Figure(name=name, title=title, image="", alt="", caption=what, tables=())
