"""Verdicts in sentences that claim no more than their intervals, and the runs that would complete them."""

import math

from skillscale.formatting import format_log_ratio, format_number, format_percent, join_words, plural, power
from skillscale.laws.results import CurveVersusLaw, SizeGap, Status, StudyResults, Verdict

_OUT_OF_REACH = 50.0


def pooled_size_gap(fits: StudyResults, mix: str, skill: str) -> SizeGap | None:
    """Return the residual of a skill against the first aggregate, pooled over budgets."""
    aggregate = fits.aggregates[0] if fits.aggregates else ""
    return next(
        (
            gap
            for gap in fits.size_gaps
            if gap.pooled and (gap.mix, gap.skill, gap.aggregate) == (mix, skill, aggregate)
        ),
        None,
    )


def article(aggregate: str) -> str:
    """Return the words for an aggregate in a sentence."""
    return "the aggregate" if aggregate in ("", "aggregate") else aggregate


def explain_verdict(fits: StudyResults, gap: SizeGap) -> str:
    """Return the verdict on a skill in sentences, with its interval."""
    if not gap.value.is_finite:
        return f"No verdict on {gap.skill}: {gap.status}. {_sentence(gap.reason)}"
    level = f"{format_percent(fits.level, 3)} interval"
    ends = f"{format_log_ratio(gap.value.lo)} to {format_log_ratio(gap.value.hi)}"
    over, reference = _over_budgets(fits, gap), article(gap.aggregate)
    if gap.verdict is Verdict.UNRESOLVED:
        return (
            f"Not resolved: {over}, the optimum of {gap.skill} has {_more_or_fewer(gap.value.value)} parameters "
            f"than that of {reference}, but the {level}, {ends}, includes zero. The sign of the difference is open. "
            f"Differences outside the interval are ruled out at this level."
        )
    wants = "parameters" if gap.verdict is Verdict.CAPACITY else "tokens"
    return (
        f"{_capital(over)}, the optimum of {gap.skill} has {_more_or_fewer(gap.value.value)} parameters than that "
        f"of {reference} ({level}: {ends}): at these budgets and this mix it wants more {wants}."
        f"{_holm_note(fits, gap)}{_sign_note(fits, gap)}"
    )


def _over_budgets(fits: StudyResults, gap: SizeGap) -> str:
    """Return the words for how many budgets of the study a pooled residual covers."""
    n_budgets = len({minimum.C for minimum in fits.minima if minimum.mix == gap.mix})
    if gap.n_budgets < n_budgets:
        return f"over {gap.n_budgets} of {n_budgets} budgets"
    return f"over {plural(n_budgets, 'budget')}" if n_budgets > 1 else "at one budget"


def _more_or_fewer(log_ratio: float) -> str:
    return (
        f"{format_log_ratio(abs(log_ratio)).lstrip('+')} more"
        if log_ratio >= 0
        else f"{format_log_ratio(log_ratio).lstrip('−')} fewer"
    )


def _holm_note(fits: StudyResults, gap: SizeGap) -> str:
    """Return a note where an interval excludes zero, but not after the correction for several skills."""
    if not math.isfinite(gap.p_holm) or gap.p_holm <= 1 - fits.level:
        return ""
    compared = sum(1 for other in fits.size_gaps if other.pooled and other.mix == gap.mix)
    corrected = f"p = {format_number(gap.p_holm, 2)} after Holm's correction"
    return f" As one of {compared} comparisons it is not significant ({corrected}): a hint."


def _sign_note(fits: StudyResults, gap: SizeGap) -> str:
    """Return a note on how many single budgets agree in sign."""
    key = (gap.mix, gap.skill, gap.aggregate)
    estimates = [
        other.value.value
        for other in fits.size_gaps
        if not other.pooled and (other.mix, other.skill, other.aggregate) == key and other.value.is_finite
    ]
    if len(estimates) < 2:
        return ""
    agree = sum(1 for value in estimates if value * gap.value.value > 0)
    return f" The estimate has this sign at {agree} of {len(estimates)} budgets."


def explain_method(fits: StudyResults) -> str:
    """Return a paragraph on how verdicts are decided."""
    aggregate = article(fits.aggregates[0] if fits.aggregates else "")
    return (
        f"Residual: ln N* of a skill minus that of {aggregate}. A skill is called capacity-hungry (its best model is "
        f"larger) or data-hungry (smaller) only if the {format_percent(fits.level, 3)} interval of "
        f"its residual excludes zero. The verdict is a hint if that does not survive Holm's correction for several "
        f"skills. Intervals come from {fits.resamples:,} resamples of the runs, the same for all skills. They hold for "
        f"the runs, sizes and data of this study, not for other budgets."
    )


def compare_curve_and_law(fits: StudyResults) -> str:
    """Return a paragraph on whether the optima of the laws agree with those of the isoFLOP curves.

    It skips skills without a law, and is empty if none is left. At a level of 90 %, one comparison in ten differs by
    chance.
    """
    fitted = {(pair.mix, pair.skill) for pair in fits.laws if pair.status is Status.OK}
    compared = [
        pair for pair in fits.curve_versus_law if pair.disagreement.is_finite and (pair.mix, pair.skill) in fitted
    ]
    if not compared:
        return ""
    disagreeing: dict[tuple[str, str], list[CurveVersusLaw]] = {}
    for pair in compared:
        if pair.disagrees:
            disagreeing.setdefault((pair.mix, pair.skill), []).append(pair)
    if not disagreeing:
        return (
            f"The optima of the law and of the isoFLOP curves agree within their errors in all {len(compared)} "
            f"comparisons."
        )
    parts = []
    for (mix, skill), pairs in disagreeing.items():
        total = sum(1 for pair in compared if (pair.mix, pair.skill) == (mix, skill))
        mean = sum(pair.disagreement.value for pair in pairs) / len(pairs)
        label = f"{skill} of mix {mix}" if len(fits.mixes) > 1 else skill
        parts.append(f"{label} at {len(pairs)} of {plural(total, 'budget')} ({format_log_ratio(mean)} on average)")
    chance = (1 - fits.level) * len(compared)
    return (
        f"The optima of the law and of the isoFLOP curve differ by more than their errors for {join_words(parts)}. At "
        f"least one of the two forms is wrong there. By chance, about {format_number(chance, 2)} of "
        f"{len(compared)} comparisons would differ."
    )


def missing_runs(fits: StudyResults) -> list[str]:
    """Return each missing fit with its cure, and how many more runs the unresolved skills need."""
    lacks: dict[tuple[str, str], list[str]] = {}
    for minimum in fits.minima:
        if minimum.status is not Status.OK:
            lacks.setdefault((minimum.reason, f"{minimum.skill} at"), []).append(power(minimum.C))
    for what, fitted in (("Power law of", fits.power_laws), ("Law of", fits.laws)):
        for fit in fitted:
            if fit.status is not Status.OK:
                lacks.setdefault((fit.reason, what), []).append(fit.skill)
    missing = [
        f"{_capital(what)} {join_words(names)}{' FLOP' if what.endswith(' at') else ''}: "
        f"{_uncapital(_sentence(reason))}"
        for (reason, what), names in lacks.items()
    ]
    return missing + [_describe_runs_needed(gap) for gap in fits.size_gaps if _needs_runs(gap)]


def _needs_runs(gap: SizeGap) -> bool:
    return gap.pooled and gap.verdict is Verdict.UNRESOLVED and gap.value.is_finite and gap.value.value != 0


def _describe_runs_needed(gap: SizeGap) -> str:
    """Return a rough guide: the width of an interval falls with the square root of the number of runs."""
    value, lo, hi = gap.value.value, gap.value.lo, gap.value.hi
    towards_zero = value - lo if value > 0 else hi - value
    factor = (towards_zero / value) ** 2
    if factor > _OUT_OF_REACH:
        return (
            f"{_capital(gap.skill)}: no practical number of such runs would separate "
            f"{format_log_ratio(value)} from zero. A larger span of budgets or longer evaluation sets might."
        )
    return (
        f"{_capital(gap.skill)}: if its difference is really {format_log_ratio(value)}, about "
        f"{max(2, math.ceil(factor))} times as many runs (more seeds or sizes) would bring the interval to the edge of "
        f"zero."
    )


def _sentence(text: str) -> str:
    clean = text.strip()
    return _capital(clean if clean.endswith((".", "!", "?")) else f"{clean}.") if clean else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _uncapital(text: str) -> str:
    return text if text.startswith("E ") else text[:1].lower() + text[1:]  # a letter of a law keeps its case
