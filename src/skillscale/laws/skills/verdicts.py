"""Decide verdicts on one split of a skill's data sets, confirm them on another, and find how many runs they need.

The fits of a study and the columns of each skill go in. ``ConfirmedVerdict`` and ``RequiredRuns`` come out. Both splits
are measured on the same runs. So a confirmed verdict does not depend on the choice of data sets, but it may still
depend on the runs. To test that, train other runs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
import pandas as pd
from scipy.stats import norm

from skillscale.errors import InputError
from skillscale.laws.isoflop.curves import DEGREES, FORM, FORM_SPAN
from skillscale.laws.results import Interval, SizeGap, Status, StudyResults, Verdict, bounds, table
from skillscale.laws.uncertainty.resamples import with_holm_p


class Confirmation(StrEnum):
    """Outcome of a verdict on the held-out split."""

    CONFIRMED = "confirmed"
    SIGN_CONFIRMED = "confirmed in sign only"
    CONTRADICTED = "contradicted"
    NOT_CONFIRMED = "not confirmed"
    NOTHING = "nothing to confirm"
    NO_SPLIT = "no held-out split"


@dataclass(frozen=True, kw_only=True)
class SkillColumns:
    """The columns of a skill: its mean on each split, and the data sets behind the means.

    ``held_out`` is empty where there is no such split.
    """

    skill: str
    hypothesis: str
    held_out: str = ""
    hypothesis_sets: tuple[str, ...] = ()
    held_out_sets: tuple[str, ...] = ()

    @property
    def others(self) -> tuple[str, ...]:
        """All columns except the hypothesis column."""
        return tuple(name for name in (self.held_out, *self.hypothesis_sets, *self.held_out_sets) if name)


@dataclass(frozen=True, kw_only=True)
class ConfirmedVerdict:
    """A skill's verdict on the hypothesis split, and its confirmation on the held-out split.

    ``hypothesis``: its pooled size gap, with Holm's p over the skills. ``held_out``: the same, over the skills with a
    verdict to confirm. ``verdict`` requires both the interval and Holm's p. ``confirmation`` uses the held-out interval
    alone, because it is computed only where there is a verdict. ``hypothesis_sets``, ``held_out_sets``: the data sets,
    with Holm's p over all data sets of all skills of that split.
    """

    skill: str
    mix: str
    aggregate: str
    verdict: Verdict
    confirmation: Confirmation
    hypothesis: SizeGap
    held_out: SizeGap
    hypothesis_sets: tuple[SizeGap, ...] = ()
    held_out_sets: tuple[SizeGap, ...] = ()

    @property
    def splits_are_disjoint(self) -> bool:
        """Whether the verdict is confirmed in sign only, because the intervals of the splits do not touch."""
        return self.confirmation is Confirmation.SIGN_CONFIRMED


def confirmed_verdicts(
    fits: StudyResults, splits: Sequence[SkillColumns], *, aggregate: str = "", mix: str = ""
) -> tuple[ConfirmedVerdict, ...]:  # fmt: skip
    """Decide each skill on its hypothesis split, and confirm it on the held-out one.

    Args:
        fits: fits of a study, with every column of ``splits`` among its skills.
        splits: columns of each skill.
        aggregate: reference of the size gaps. Empty: the first.
        mix: mix to use. Empty: the first.

    Raises:
        InputError: a column, the aggregate or the mix was not fitted.
    """
    pooled = _pooled(fits, aggregate or next(iter(fits.aggregates), ""), mix or next(iter(fits.mixes), ""))
    level = fits.level
    for name in [name for split in splits for name in _columns(split)]:
        if name not in pooled:
            raise InputError(f"{name} has no size gap. There is {', '.join(pooled)}. Fit it among the skills.")
    hypotheses = with_holm_p([pooled[split.hypothesis] for split in splits])
    verdicts = [_verdict_of_family(gap, level) for gap in hypotheses]
    has_verdict = [verdict is not Verdict.UNRESOLVED for verdict in verdicts]
    to_confirm = [split.held_out for split, test in zip(splits, has_verdict, strict=True) if test and split.held_out]
    tested = {gap.skill: gap for gap in with_holm_p([pooled[name] for name in to_confirm])}
    held_out = [
        tested.get(split.held_out) or _untested(pooled.get(split.held_out), hypothesis)
        for split, hypothesis in zip(splits, hypotheses, strict=True)
    ]
    names = (
        [name for split in splits for name in split.hypothesis_sets],
        [name for split in splits for name in split.held_out_sets],
    )
    sets = [{gap.skill: gap for gap in with_holm_p([pooled[name] for name in family])} for family in names]
    return tuple(
        ConfirmedVerdict(
            skill=split.skill, mix=hypothesis.mix, aggregate=hypothesis.aggregate, verdict=verdict,
            hypothesis=hypothesis, held_out=confirmation,
            confirmation=_confirmation(verdict, hypothesis, confirmation) if split.held_out else Confirmation.NO_SPLIT,
            hypothesis_sets=tuple(sets[0][name] for name in split.hypothesis_sets),
            held_out_sets=tuple(sets[1][name] for name in split.held_out_sets),
        )
        for split, hypothesis, confirmation, verdict in zip(splits, hypotheses, held_out, verdicts, strict=True)
    )  # fmt: skip


def confirmed_verdict_table(verdicts: Sequence[ConfirmedVerdict]) -> pd.DataFrame:
    """Return one row per skill and split, and one per data set.

    Columns: skill column split (hypothesis, held-out) level (skill, data set) residual residual_lo residual_hi p p_holm
    verdict (of the column's own interval) decided (the skill's verdict) confirmation n_budgets status reason.
    """
    # The column of the size gap is named residual, as in the files of version 0.1.
    return table(
        {"skill": result.skill, "column": gap.skill, "split": split, "level": level}
        | bounds("residual", gap.value)
        | {"p": gap.p, "p_holm": gap.p_holm, "verdict": str(gap.verdict), "decided": str(result.verdict)}
        | {"confirmation": str(result.confirmation), "n_budgets": gap.n_budgets}
        | {"status": str(gap.status), "reason": gap.reason}
        for result in verdicts
        for split, level, size_gaps in (
            ("hypothesis", "skill", (result.hypothesis,)), ("held-out", "skill", (result.held_out,)),
            ("hypothesis", "data set", result.hypothesis_sets), ("held-out", "data set", result.held_out_sets),
        )
        for gap in size_gaps
    )  # fmt: skip


def _untested(held_out: SizeGap | None, hypothesis: SizeGap) -> SizeGap:
    """Return a held-out size gap without a test, or an empty one where there is no such split."""
    if held_out is not None:
        return replace(held_out, p_holm=math.nan)
    return replace(
        hypothesis, skill="", status=Status.TOO_FEW, reason="no held-out split", value=Interval(), p=math.nan,
        p_holm=math.nan, verdict=Verdict.UNRESOLVED,
    )  # fmt: skip


def _columns(split: SkillColumns) -> tuple[str, ...]:
    return (split.hypothesis, *split.others)


def _pooled(fits: StudyResults, aggregate: str, mix: str) -> dict[str, SizeGap]:
    if aggregate not in fits.aggregates:
        there = ", ".join(fits.aggregates) or "none"
        raise InputError(f"unknown aggregate: {aggregate or 'none given'}. There is {there}.")
    if mix not in fits.mixes:
        raise InputError(f"no mix {mix} was fitted. There is {', '.join(fits.mixes)}.")
    return {gap.skill: gap for gap in fits.size_gaps if gap.pooled and (gap.aggregate, gap.mix) == (aggregate, mix)}


def _verdict_of_family(gap: SizeGap, level: float) -> Verdict:
    return gap.verdict if gap.p_holm <= 1 - level else Verdict.UNRESOLVED


def _confirmation(verdict: Verdict, hypothesis: SizeGap, held_out: SizeGap) -> Confirmation:
    if verdict is Verdict.UNRESOLVED:
        return Confirmation.NOTHING
    if not held_out.value.excludes_zero:
        return Confirmation.NOT_CONFIRMED
    if held_out.verdict is not verdict:
        return Confirmation.CONTRADICTED
    touch = hypothesis.value.lo <= held_out.value.hi and held_out.value.lo <= hypothesis.value.hi
    return Confirmation.CONFIRMED if touch else Confirmation.SIGN_CONFIRMED


@dataclass(frozen=True, kw_only=True)
class RequiredRuns:
    """The factor by which the replicates of a study must grow for a claim about a pooled size gap.

    ``noise``: standard error that falls with the square root of the replicates. ``form``: error of the curve's form,
    which replicates do not reduce (narrower grids do). ``to_resolve``: factor at which the interval excludes zero in
    half of all studies, if the estimate is the truth. ``to_resolve_surely``: in 80 % of them. ``to_delta``: factor at
    which the interval's half width is ``delta``. 1: reached already. Infinite: no number of replicates suffices.

    Assumptions: replicates are as noisy as the runs and independent of them (new seeds at the same sizes and budgets),
    and errors are nearly normal. An estimate selected because it is large is biased upwards, and its factors are then
    too small.
    """

    skill: str
    aggregate: str
    mix: str
    status: Status
    reason: str
    value: Interval = field(default_factory=Interval)
    noise: float = math.nan
    form: float = math.nan
    to_resolve: float = math.nan
    to_resolve_surely: float = math.nan
    delta: float = math.nan
    to_delta: float = math.nan


def required_runs(fits: StudyResults, *, delta: float = 0.05) -> tuple[RequiredRuns, ...]:
    """Return the replicates that each pooled size gap of a study needs.

    Args:
        fits: fits of the study.
        delta: half width to reach, ln N.

    Raises:
        InputError: delta is not positive.
    """
    if not delta > 0:
        raise InputError(f"delta must be a positive half width in ln N: {delta}. For 5 % of N*, use 0.05.")
    return tuple(_required(gap, fits, delta) for gap in fits.size_gaps if gap.pooled)


def required_runs_table(required: Sequence[RequiredRuns]) -> pd.DataFrame:
    """Return one row per mix, skill and aggregate.

    Columns: mix skill aggregate, residual with bounds, noise form to_resolve to_resolve_surely delta to_delta status
    reason.
    """
    # The column of the size gap is named residual, as in the files of version 0.1.
    return table(
        {"mix": runs.mix, "skill": runs.skill, "aggregate": runs.aggregate}
        | bounds("residual", runs.value)
        | {"noise": runs.noise, "form": runs.form, "to_resolve": runs.to_resolve}
        | {"to_resolve_surely": runs.to_resolve_surely, "delta": runs.delta, "to_delta": runs.to_delta}
        | {"status": str(runs.status), "reason": runs.reason}
        for runs in required
    )


def _required(pooled: SizeGap, fits: StudyResults, delta: float) -> RequiredRuns:
    unknown = RequiredRuns(
        skill=pooled.skill, aggregate=pooled.aggregate, mix=pooled.mix, status=pooled.status,
        reason=pooled.reason or "no interval",
    )  # fmt: skip
    if not pooled.value.is_finite:
        return unknown
    z = float(norm.ppf((1 + fits.level) / 2))
    se = (pooled.value.hi - pooled.value.lo) / 2 / z
    form = min(_form_sd(pooled, fits), se)
    noise = math.sqrt(se**2 - form**2)
    size = abs(pooled.value.value)
    return replace(
        unknown, status=Status.OK, reason="", value=pooled.value, noise=noise, form=form,
        to_resolve=replicates(size / z, noise, form), delta=delta,
        to_resolve_surely=replicates(size / (z + float(norm.ppf(0.8))), noise, form),
        to_delta=replicates(delta / z, noise, form),
    )  # fmt: skip


def replicates(target: float, noise: float, form: float) -> float:
    """Return the factor, at least 1, at which sqrt(noise^2 / factor + form^2) is ``target``, or infinity."""
    if target <= form:
        return math.inf
    return max(1.0, noise**2 / (target**2 - form**2))


def _form_sd(pooled: SizeGap, fits: StudyResults) -> float:
    """Return the sd, in the mean gap over budgets, of the form errors of two curves, drawn independently."""
    budgets = {gap.C for gap in fits.size_gaps if _same(gap, pooled) and gap.status is Status.OK and not gap.pooled}
    parts = []
    for name in (pooled.skill, pooled.aggregate):
        widths = []
        for minimum in fits.minima:
            curve = minimum.curve
            if (minimum.mix, minimum.skill) == (pooled.mix, name) and minimum.C in budgets and curve is not None:
                degree = DEGREES[fits.curve]
                key = (degree, len(curve.coefficients) - 1 - degree)
                half = math.log(curve.N_max / curve.N_min) / 2
                widths.append(FORM[key] * (half / FORM_SPAN) ** 2)
        parts.append(float(np.mean(widths)) if widths else 0.0)
    return math.hypot(*parts)


def _same(gap: SizeGap, other: SizeGap) -> bool:
    return (gap.mix, gap.skill, gap.aggregate) == (other.mix, other.skill, other.aggregate)
