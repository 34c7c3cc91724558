"""Which of two skills a validation set follows when the mix changes: its loss across mixes beside theirs.

Each column has a profile: ln L at its own optimum of each mix, less the mean over the mixes of the budget. A profile's
likeness to a skill's is the correlation of the two over mixes (and budgets). A column is like the skill whose profile
correlates more, where the interval of the difference and of that correlation leave out zero.

Noise draws every correlation to zero, those of a column that follows a skill exactly too. A column is therefore like
neither only where what is left of it once noise is taken off does not follow either: where its covariance with a
skill, less that of their errors, is surely below ``ALIKE`` times both sd, whose squares are less their errors' too
(Spearman 1904's correction for attenuation, without its division by what may be nothing). A column whose changes with
the mix are no larger than its noise is not resolved.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from skillscale.laws.forms.nd import Array
from skillscale.laws.results import Interval, IsoflopMinimum, Status, StudyResults, bounds, table
from skillscale.laws.skills.crossover import log_ratios
from skillscale.laws.skills.regression import MIN_MIXES, require_columns
from skillscale.laws.uncertainty.resamples import interval

NEITHER, UNRESOLVED = "neither", "not resolved"
ALIKE = 0.7  # a correlation, noise taken off, surely below this is none: half of the variance unshared (a convention)


@dataclass(frozen=True, kw_only=True)
class ValidationSimilarity:
    """What a column follows across the mixes, ``like`` one of the two skills, "neither" or "not resolved".

    ``to_first``, ``to_second``: correlations of the noisy profiles, nearer to 0 than without noise and their draws
    nearer still; ``difference`` of the two; ``chance``: share of draws in which the first is the nearer one. ``C`` is
    NaN for all budgets together.
    """

    column: str
    first: str
    second: str
    C: float
    status: Status
    reason: str
    similar_to: str = UNRESOLVED
    to_first: Interval = field(default_factory=Interval)
    to_second: Interval = field(default_factory=Interval)
    difference: Interval = field(default_factory=Interval)
    chance: float = math.nan
    n_mixes: int = 0


@dataclass(frozen=True, kw_only=True)
class ValidationSimilarityStudy:
    """The likeness of every column at each budget and over all, with the profiles behind it."""

    level: float
    similarities: tuple[ValidationSimilarity, ...]
    profiles: pd.DataFrame = field(repr=False, compare=False)

    def similarity_table(self) -> pd.DataFrame:
        """One row a column and budget, and one of all budgets (C is NaN).

        Columns: column first second C like chance, to_first, to_second and difference, each with _lo and _hi, n_mixes
        status reason.
        """
        return table(
            {"column": one.column, "first": one.first, "second": one.second, "C": one.C, "like": one.similar_to}
            | {"chance": one.chance}
            | bounds("to_first", one.to_first)
            | bounds("to_second", one.to_second)
            | bounds("difference", one.difference)
            | {"n_mixes": one.n_mixes, "status": str(one.status), "reason": one.reason}
            for one in self.similarities
        )

    def profile_table(self) -> pd.DataFrame:
        """One row a column, budget and mix.

        Columns: column C mix ratio, loss with bounds, relative (ln L less the mean over mixes) with bounds, normalised
        (relative over its sd across mixes).
        """
        return self.profiles


@dataclass(frozen=True, kw_only=True)
class _Profile:
    """Ln L of the mixes at one budget, (n,), with draws (K, n)."""

    mixes: tuple[str, ...]
    value: Array
    draws: Array


def similarity_study(
    fits: StudyResults, columns: Sequence[str], *, first: str, second: str, over: str, under: str
) -> ValidationSimilarityStudy:  # fmt: skip
    """Tell which of two skills each validation set follows over the mixes, in order of a ratio of two categories.

    Args:
        fits: of a study of several mixes, whose runs have the columns ``mix/CATEGORY``.
        columns: validation sets to tell.
        first, second: columns of the two skills.
        over, under: categories of the ratio that the profiles are listed by.

    Raises:
        InputError: a column was not fitted, or a category is not one of the runs'.
    """
    require_columns(fits, (*columns, first, second))
    ratios = log_ratios(fits, over, under)
    budgets = sorted({one.C for one in fits.minima})
    profiles = {(name, C): _profile(fits, name, C, ratios) for name in (*columns, first, second) for C in budgets}
    found = []
    for column in columns:
        three = {C: [profiles[name, C] for name in (column, first, second)] for C in budgets}
        about: dict[str, Any] = {"column": column, "first": first, "second": second}
        found += [_likeness([three[C]], about | {"C": C}, fits.level) for C in budgets]
        found.append(_likeness(list(three.values()), about | {"C": math.nan}, fits.level))
    rows = [row for (name, C), profile in profiles.items() for row in _rows(name, C, profile, ratios, fits.level)]
    return ValidationSimilarityStudy(level=fits.level, similarities=tuple(found), profiles=table(rows))


def _profile(fits: StudyResults, name: str, C: float, ratios: dict[str, float]) -> _Profile:
    good: list[IsoflopMinimum] = [
        one for one in fits.minima if one.skill == name and one.C == C and one.status is Status.OK and one.mix in ratios
    ]
    good.sort(key=lambda one: ratios[one.mix])
    blank = np.empty((fits.resamples, 0))
    return _Profile(
        mixes=tuple(one.mix for one in good), value=np.log([one.loss for one in good]),
        draws=np.column_stack([one.draws[:, 1] for one in good]) if good else blank,
    )  # fmt: skip


def _likeness(budgets: Sequence[Sequence[_Profile]], about: dict[str, Any], level: float) -> ValidationSimilarity:
    """Likeness of the first profile of each budget to the second and third, over all budgets given."""
    parts: list[list[Array]] = [[], [], []]
    n_mixes = 0
    for three in budgets:
        both = [mix for mix in three[0].mixes if all(mix in one.mixes for one in three)]
        if len(both) < MIN_MIXES:
            continue
        n_mixes = max(n_mixes, len(both))
        for part, one in zip(parts, three, strict=True):
            at = [one.mixes.index(mix) for mix in both]
            values = np.vstack([one.value[at], one.draws[:, at]])
            part.append(values - values.mean(axis=1, keepdims=True))
    if not n_mixes:
        reason = f"fewer than {MIN_MIXES} mixes where all three columns have an optimum"
        return ValidationSimilarity(**about, status=Status.TOO_FEW_MIXES, reason=reason)
    own, near, far = (np.hstack(part) for part in parts)
    to_first, to_second = _correlation(own, near), _correlation(own, far)
    gap = to_first - to_second
    bands = [_band(each, level) for each in (to_first, to_second, gap)]
    told: dict[str, Any] = {"similar_to": UNRESOLVED, "reason": ""}
    if all(_unlike(own, skill, level) for skill in (near, far)):
        told["similar_to"] = NEITHER
    elif bands[2].lo > 0 and bands[0].lo > 0:
        told["similar_to"] = about["first"]
    elif bands[2].hi < 0 and bands[1].lo > 0:
        told["similar_to"] = about["second"]
    elif _band(_beyond_noise(own, own), level).lo <= 0:
        told["reason"] = "its changes with the mix can't be told from noise; add seeds, or mixes further apart"
    return ValidationSimilarity(
        **about, **told, status=Status.OK, to_first=bands[0], to_second=bands[1], difference=bands[2],
        chance=float((gap[1:] > 0).mean()), n_mixes=n_mixes,
    )  # fmt: skip


def _unlike(own: Array, skill: Array, level: float) -> bool:
    """Whether a profile, noise taken off, surely correlates with a skill's by less than ``ALIKE``."""
    sizes = np.maximum(_beyond_noise(own, own), 0) * np.maximum(_beyond_noise(skill, skill), 0)
    return _band(_beyond_noise(own, skill) - ALIKE * np.sqrt(sizes), level).hi < 0


def _beyond_noise(one: Array, other: Array) -> Array:
    """Sum over mixes of the product of two profiles less that of their errors, of the value and of each draw.

    A draw has its own error on top of the value's, so that it is twice taken off. The median of the resamples' is what
    noise makes: Student's tails would make too much of their mean.
    """
    noise = float(np.median(((one[1:] - one[0]) * (other[1:] - other[0])).sum(axis=1)))
    times = np.r_[1.0, np.full(len(one) - 1, 2.0)]
    return np.asarray((one * other).sum(axis=1) - times * noise)


def _band(values: Array, level: float) -> Interval:
    return interval(float(values[0]), values[1:], level)


def _correlation(one: Array, other: Array) -> Array:
    return np.asarray((_unit(one) * _unit(other)).sum(axis=1))


def _unit(values: Array) -> Array:
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.where(length > 0, length, 1.0))


def _rows(name: str, C: float, profile: _Profile, ratios: dict[str, float], level: float) -> list[dict[str, Any]]:
    if not profile.mixes:
        return []
    centred = profile.value - profile.value.mean()
    drawn = profile.draws - profile.draws.mean(axis=1, keepdims=True)
    sd = float(centred.std()) or math.nan
    return [
        {"column": name, "C": C, "mix": mix, "ratio": math.exp(ratios[mix])}
        | bounds("loss", interval(float(profile.value[i]), profile.draws[:, i], level).map(math.exp))
        | bounds("relative", interval(float(centred[i]), drawn[:, i], level))
        | {"normalised": float(centred[i]) / sd}
        for i, mix in enumerate(profile.mixes)
    ]
