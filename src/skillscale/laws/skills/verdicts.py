"""Verdicts decided on one split of a skill's data sets and confirmed on another, and what more runs would decide.

Both splits are measured on the same runs. So what is confirmed is that the verdict does not hang on the choice of data
sets; that it does not hang on the runs takes other runs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from skillscale.errors import InputError
from skillscale.laws.isoflop.curves import DEGREES, FORM, FORM_SPAN
from skillscale.laws.results import Interval, SizeGap, Status, StudyResults, Verdict, bounds, table
from skillscale.laws.uncertainty.resamples import with_holm_p


class Confirmation(StrEnum):
    """What the held-out split says of a verdict."""

    CONFIRMED = "confirmed"
    CONTRADICTED = "contradicted"
    NOT_CONFIRMED = "not confirmed"
    NOTHING = "nothing to confirm"
    NO_SPLIT = "no held-out split"


@dataclass(frozen=True, kw_only=True)
class SkillColumns:
    """The columns of a skill: its mean on each split, and the data sets that the means are of.

    ``held_out`` is empty where there is no such split.
    """

    skill: str
    hypothesis: str
    held_out: str = ""
    hypothesis_sets: tuple[str, ...] = ()
    held_out_sets: tuple[str, ...] = ()

    @property
    def others(self) -> tuple[str, ...]:
        """All columns but the one that decides."""
        return tuple(name for name in (self.held_out, *self.hypothesis_sets, *self.held_out_sets) if name)


@dataclass(frozen=True, kw_only=True)
class ConfirmedVerdict:
    """A skill's verdict on the hypothesis split, and whether the held-out split confirms it.

    ``hypothesis``: its pooled residual, with Holm's p over the skills; ``held_out``: likewise, over the skills that had
    something to confirm. ``verdict`` stands where the interval and Holm's p both do; ``confirmation`` asks the held-out
    interval alone, for it is asked only where a verdict stands. ``sets``: the data sets of both splits, with Holm's p
    over all data sets of all skills of that split.
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


def confirmed_verdicts(
    fits: StudyResults, splits: Sequence[SkillColumns], *, aggregate: str = "", mix: str = ""
) -> tuple[ConfirmedVerdict, ...]:  # fmt: skip
    """Decide each skill on its hypothesis split, and confirm it on the held-out one.

    Args:
        fits: of a study fitted with every column that ``splits`` names among its skills.
        splits: columns of each skill.
        aggregate: what residuals are against; by default the first.
        mix: by default the first.

    Raises:
        InputError: a column, the aggregate or the mix was not fitted.
    """
    pooled = _pooled(fits, aggregate or next(iter(fits.aggregates), ""), mix or next(iter(fits.mixes), ""))
    level = fits.level
    for name in [name for one in splits for name in _columns(one)]:
        if name not in pooled:
            raise InputError(f"{name} has no residual; there is {', '.join(pooled)}; fit it among the skills")
    first = with_holm_p([pooled[one.hypothesis] for one in splits])
    verdicts = [_standing(one, level) for one in first]
    stand = [verdict is not Verdict.UNRESOLVED for verdict in verdicts]
    asked = with_holm_p([pooled[one.held_out] for one, yes in zip(splits, stand, strict=True) if yes and one.held_out])
    second = {one.skill: one for one in asked}
    own = [
        second.get(one.held_out) or _unasked(pooled.get(one.held_out), other)
        for one, other in zip(splits, first, strict=True)
    ]
    names = (
        [set_ for one in splits for set_ in one.hypothesis_sets],
        [set_ for one in splits for set_ in one.held_out_sets],
    )
    sets = [{one.skill: one for one in with_holm_p([pooled[name] for name in family])} for family in names]
    return tuple(
        ConfirmedVerdict(
            skill=split.skill, mix=one.mix, aggregate=one.aggregate, verdict=verdict, hypothesis=one, held_out=other,
            confirmation=_confirmation(verdict, other) if split.held_out else Confirmation.NO_SPLIT,
            hypothesis_sets=tuple(sets[0][name] for name in split.hypothesis_sets),
            held_out_sets=tuple(sets[1][name] for name in split.held_out_sets),
        )
        for split, one, other, verdict in zip(splits, first, own, verdicts, strict=True)
    )  # fmt: skip


def confirmed_verdict_table(verdicts: Sequence[ConfirmedVerdict]) -> pd.DataFrame:
    """One row a skill and one a data set.

    Columns: skill column split (hypothesis, held-out) level (skill, data set) residual residual_lo residual_hi p p_holm
    verdict (of the column's own interval) decided (the skill's verdict) confirmation n_budgets status reason.
    """
    return table(
        {"skill": one.skill, "column": r.skill, "split": split, "level": level}
        | bounds("residual", r.value)
        | {"p": r.p, "p_holm": r.p_holm, "verdict": str(r.verdict), "decided": str(one.verdict)}
        | {"confirmation": str(one.confirmation), "n_budgets": r.n_budgets, "status": str(r.status), "reason": r.reason}
        for one in verdicts
        for split, level, residuals in (
            ("hypothesis", "skill", (one.hypothesis,)), ("held-out", "skill", (one.held_out,)),
            ("hypothesis", "data set", one.hypothesis_sets), ("held-out", "data set", one.held_out_sets),
        )
        for r in residuals
    )  # fmt: skip


def _unasked(held_out: SizeGap | None, hypothesis: SizeGap) -> SizeGap:
    """A held-out residual that nothing was asked of; one without a value where there is no such split."""
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
        raise InputError(f"there is no aggregate {aggregate or 'at all'}; there is {', '.join(fits.aggregates)}")
    if mix not in fits.mixes:
        raise InputError(f"no mix {mix} was fitted; there is {', '.join(fits.mixes)}")
    return {one.skill: one for one in fits.size_gaps if one.pooled and (one.aggregate, one.mix) == (aggregate, mix)}


def _standing(residual: SizeGap, level: float) -> Verdict:
    return residual.verdict if residual.p_holm <= 1 - level else Verdict.UNRESOLVED


def _confirmation(verdict: Verdict, held_out: SizeGap) -> Confirmation:
    if verdict is Verdict.UNRESOLVED:
        return Confirmation.NOTHING
    if not held_out.value.excludes_zero:
        return Confirmation.NOT_CONFIRMED
    same = held_out.verdict is verdict
    return Confirmation.CONFIRMED if same else Confirmation.CONTRADICTED


@dataclass(frozen=True, kw_only=True)
class RequiredRuns:
    """By which factor the replicates of a study must grow for a claim about a pooled residual.

    ``noise``: standard error that falls with the square root of the replicates; ``form``: what the curve's form leaves,
    which no replicate lessens (narrower grids do). ``to_resolve``: factor at which the interval leaves out zero in half
    of all studies, were the estimate the truth; ``to_resolve_surely``: in 80 % of them. ``to_delta``: factor at which
    the interval's half width is ``delta``. 1: there already; infinite: no number of replicates does it.

    Assumes that replicates are as noisy as the runs there are and independent of them (new seeds at the same sizes and
    budgets), and errors near normal. An estimate that was looked at because it is large is too large, and its factors
    then too small.
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
    """What each pooled residual of a study needs.

    Args:
        fits: of the study.
        delta: half width to reach, in ln N.

    Raises:
        InputError: delta is not positive.
    """
    if not delta > 0:
        raise InputError(f"delta must be positive, a half width in ln N, but it is {delta}; .05 is 5 % of N*")
    return tuple(_needed(one, fits, delta) for one in fits.size_gaps if one.pooled)


def required_runs_table(needed: Sequence[RequiredRuns]) -> pd.DataFrame:
    """One row a mix, skill and aggregate.

    Columns: mix skill aggregate, residual with bounds, noise form to_resolve to_resolve_surely delta to_delta status
    reason.
    """
    return table(
        {"mix": one.mix, "skill": one.skill, "aggregate": one.aggregate}
        | bounds("residual", one.value)
        | {"noise": one.noise, "form": one.form, "to_resolve": one.to_resolve}
        | {"to_resolve_surely": one.to_resolve_surely, "delta": one.delta, "to_delta": one.to_delta}
        | {"status": str(one.status), "reason": one.reason}
        for one in needed
    )


def _needed(pooled: SizeGap, fits: StudyResults, delta: float) -> RequiredRuns:
    names: dict[str, Any] = {"skill": pooled.skill, "aggregate": pooled.aggregate, "mix": pooled.mix}
    if not pooled.value.is_finite:
        return RequiredRuns(**names, status=pooled.status, reason=pooled.reason or "no interval")
    z = float(norm.ppf((1 + fits.level) / 2))
    se = (pooled.value.hi - pooled.value.lo) / 2 / z
    form = min(_form_sd(pooled, fits), se)
    noise = math.sqrt(se**2 - form**2)
    size = abs(pooled.value.value)
    return RequiredRuns(
        **names, status=Status.OK, reason="", value=pooled.value, noise=noise, form=form,
        to_resolve=replicates(size / z, noise, form), delta=delta,
        to_resolve_surely=replicates(size / (z + float(norm.ppf(0.8))), noise, form),
        to_delta=replicates(delta / z, noise, form),
    )  # fmt: skip


def replicates(target: float, noise: float, form: float) -> float:
    """Factor at which sqrt(noise^2 / factor + form^2) is ``target``: 1 at least, infinite where form alone is more."""
    if target <= form:
        return math.inf
    return max(1.0, noise**2 / (target**2 - form**2))


def _form_sd(pooled: SizeGap, fits: StudyResults) -> float:
    """Sd of what the form of two curves, drawn apart, leaves in the mean over budgets of their difference."""
    budgets = {one.C for one in fits.size_gaps if _same(one, pooled) and one.status is Status.OK and not one.pooled}
    parts = []
    for name in (pooled.skill, pooled.aggregate):
        widths = []
        for one in fits.minima:
            if (one.mix, one.skill) == (pooled.mix, name) and one.C in budgets and one.curve is not None:
                degree = DEGREES[fits.curve]
                key = (degree, len(one.curve.coefficients) - 1 - degree)
                half = math.log(one.curve.N_max / one.curve.N_min) / 2
                widths.append(FORM[key] * (half / FORM_SPAN) ** 2)
        parts.append(float(np.mean(widths)) if widths else 0.0)
    return math.hypot(*parts)


def _same(one: SizeGap, other: SizeGap) -> bool:
    return (one.mix, one.skill, one.aggregate) == (other.mix, other.skill, other.aggregate)
