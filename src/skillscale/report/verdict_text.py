"""Verdicts in plain sentences that say no more than the interval does, and what to run where something is missing."""

import math

from skillscale.formatting import format_log_ratio, join_words, plural, power
from skillscale.laws.results import CurveVersusLaw, SizeGap, Status, StudyResults, Verdict

_OUT_OF_REACH = 50.0


def pooled_size_gap(fits: StudyResults, mix: str, skill: str) -> SizeGap | None:
    """The residual of a skill over all budgets against the first aggregate."""
    aggregate = fits.aggregates[0] if fits.aggregates else ""
    return next(
        (
            one
            for one in fits.size_gaps
            if one.pooled and (one.mix, one.skill, one.aggregate) == (mix, skill, aggregate)
        ),
        None,
    )


def article(aggregate: str) -> str:
    """An aggregate as a sentence names it."""
    return "the aggregate" if aggregate in ("", "aggregate") else aggregate


def explain_verdict(fits: StudyResults, residual: SizeGap) -> str:
    """What is shown about one skill, with its interval; where nothing is, that."""
    if not residual.value.is_finite:
        return f"Nothing can be said of {residual.skill}: {residual.status}. {_sentence(residual.reason)}"
    level = f"{100 * fits.level:.3g} % interval"
    span = f"{format_log_ratio(residual.value.lo)} to {format_log_ratio(residual.value.hi)}"
    over, of = _over(fits, residual), article(residual.aggregate)
    if residual.verdict is Verdict.UNRESOLVED:
        return (
            f"Not resolved: {over}, the optimum of {residual.skill} has {_amount(residual.value.value)} parameters "
            f"than that of {of}, but the {level}, {span}, includes zero. The sign is not known; "
            f"differences outside the interval are ruled out at this level."
        )
    wants = "parameters" if residual.verdict is Verdict.CAPACITY else "tokens"
    return (
        f"{_capital(over)}, the optimum of {residual.skill} has {_amount(residual.value.value)} parameters than that "
        f"of {of} ({level}: {span}): at these budgets and this mix it wants more {wants}."
        f"{_after_holm(fits, residual)}{_signs(fits, residual)}"
    )


def _over(fits: StudyResults, residual: SizeGap) -> str:
    """How many of the study's budgets a pooled residual rests on."""
    there = len({one.C for one in fits.minima if one.mix == residual.mix})
    if residual.n_budgets < there:
        return f"over {residual.n_budgets} of {there} budgets"
    return f"over {plural(there, 'budget')}" if there > 1 else "at one budget"


def _amount(log_ratio: float) -> str:
    return (
        f"{format_log_ratio(abs(log_ratio)).lstrip('+')} more"
        if log_ratio >= 0
        else f"{format_log_ratio(log_ratio).lstrip('−')} fewer"
    )


def _after_holm(fits: StudyResults, residual: SizeGap) -> str:
    """Several skills compared at once make some interval miss zero by chance; say so where that is all there is."""
    if not math.isfinite(residual.p_holm) or residual.p_holm <= 1 - fits.level:
        return ""
    compared = sum(1 for one in fits.size_gaps if one.pooled and one.mix == residual.mix)
    corrected = f"p = {residual.p_holm:.2g} after Holm's correction"
    return f" Taken as one of {compared} comparisons it does not stand ({corrected}): a hint."


def _signs(fits: StudyResults, residual: SizeGap) -> str:
    """How many single budgets agree in sign."""
    same = (residual.mix, residual.skill, residual.aggregate)
    single = [
        one.value.value
        for one in fits.size_gaps
        if not one.pooled and (one.mix, one.skill, one.aggregate) == same and one.value.is_finite
    ]
    if len(single) < 2:
        return ""
    agree = sum(1 for value in single if value * residual.value.value > 0)
    return f" The estimate has this sign at {agree} of {len(single)} budgets."


def explain_method(fits: StudyResults) -> str:
    """What a verdict rests on."""
    aggregate = article(fits.aggregates[0] if fits.aggregates else "")
    return (
        f"A skill is called capacity-hungry (its best model is larger than that of {aggregate}) or data-hungry "
        f"(smaller) only where the {100 * fits.level:.3g} % interval of its residual, ln N*(skill) − "
        f"ln N*(aggregate), excludes zero, and a hint of it where that would not stand after Holm's correction for "
        f"looking at several skills. Intervals come from {fits.resamples:,} resamples of the runs, the same "
        f"for all skills. They hold for the runs, sizes and data of this study, and say nothing of budgets outside it."
    )


def compare_curve_and_law(fits: StudyResults) -> str:
    """Whether the law's optima agree with those of the isoFLOP curves; empty where there is nothing to compare.

    Laws that were refused are left out. At a level of 90 %, one comparison in ten differs by chance.
    """
    fitted = {(one.mix, one.skill) for one in fits.laws if one.status is Status.OK}
    compared = [one for one in fits.curve_versus_law if one.disagreement.is_finite and (one.mix, one.skill) in fitted]
    if not compared:
        return ""
    apart: dict[tuple[str, str], list[CurveVersusLaw]] = {}
    for one in compared:
        if one.disagrees:
            apart.setdefault((one.mix, one.skill), []).append(one)
    if not apart:
        return (
            f"The law's optima and the isoFLOP curves' agree within their errors, in all {len(compared)} comparisons."
        )
    parts = []
    for (mix, skill), ones in apart.items():
        total = sum(1 for one in compared if (one.mix, one.skill) == (mix, skill))
        mean = sum(one.disagreement.value for one in ones) / len(ones)
        named = f"{skill} of mix {mix}" if len(fits.mixes) > 1 else skill
        parts.append(f"{named} at {len(ones)} of {plural(total, 'budget')} ({format_log_ratio(mean)} on average)")
    chance = (1 - fits.level) * len(compared)
    return (
        f"The law's optimum differs from the isoFLOP curve's by more than their errors for {join_words(parts)}: there at "
        f"least one form does not hold. Of {len(compared)} such comparisons about {chance:.2g} would differ by chance."
    )


def missing_runs(fits: StudyResults) -> list[str]:
    """Each distinct lack with its cure, once, and how far the unresolved skills are from a verdict."""
    lacks: dict[tuple[str, str], list[str]] = {}
    for minimum in fits.minima:
        if minimum.status is not Status.OK:
            lacks.setdefault((minimum.reason, f"{minimum.skill} at"), []).append(power(minimum.C))
    for what, fitted in (("Power law of", fits.power_laws), ("Law of", fits.laws)):
        for fit in fitted:
            if fit.status is not Status.OK:
                lacks.setdefault((fit.reason, what), []).append(fit.skill)
    missing = [
        f"{_capital(what)} {join_words(ones)}{' FLOP' if what.endswith(' at') else ''}: {_uncapital(_sentence(reason))}"
        for (reason, what), ones in lacks.items()
    ]
    return missing + [_runs_needed(one) for one in fits.size_gaps if _open(one)]


def _open(one: SizeGap) -> bool:
    return one.pooled and one.verdict is Verdict.UNRESOLVED and one.value.is_finite and one.value.value != 0


def _runs_needed(residual: SizeGap) -> str:
    """An interval's width falls with the square root of the runs: a rough guide, if the estimate is about right."""
    value, lo, hi = residual.value.value, residual.value.lo, residual.value.hi
    towards_zero = value - lo if value > 0 else hi - value
    factor = (towards_zero / value) ** 2
    if factor > _OUT_OF_REACH:
        return (
            f"{_capital(residual.skill)}: no practical number of such runs would tell {format_log_ratio(value)} from zero; a "
            f"larger span of budgets or longer evaluation sets might."
        )
    return (
        f"{_capital(residual.skill)}: if its difference is really {format_log_ratio(value)}, about {max(2, math.ceil(factor))} "
        f"times as many runs (more seeds or sizes) would bring the interval to the edge of zero."
    )


def _sentence(text: str) -> str:
    clean = text.strip()
    return _capital(clean if clean.endswith((".", "!", "?")) else f"{clean}.") if clean else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _uncapital(text: str) -> str:
    return text if text.startswith("E ") else text[:1].lower() + text[1:]  # a letter of a law keeps its case
