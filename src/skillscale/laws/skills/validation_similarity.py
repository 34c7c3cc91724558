"""Find which of two skills a validation set follows when the mix changes.

The fits of a study with several mixes go in, and a ``ValidationSimilarityStudy`` comes out. Each column has a profile:
ln L at its optimum of each mix, less the mean over the mixes of the budget. The similarity of a column to a skill is
the correlation of their profiles over mixes (and budgets). A column is similar to the skill with the larger
correlation, where the intervals of the difference and of that correlation exclude zero.

Noise moves every correlation towards zero, also that of a column that follows a skill exactly. So a column is similar
to neither only where its noise-corrected profile follows neither: its covariance with each skill, less that of their
errors, must be below ``ALIKE`` times both noise-corrected sd, for the whole interval. This is the correction for
attenuation of Spearman (1904), without division by a variance that may be zero. A column whose changes with the mix do
not exceed its noise is not resolved.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from skillscale.laws.forms.nd import Array
from skillscale.laws.results import Interval, IsoflopMinimum, Status, StudyResults, bounds, table
from skillscale.laws.skills.crossover import log_ratios
from skillscale.laws.skills.regression import MIN_MIXES, require_columns
from skillscale.laws.uncertainty.resamples import interval

NEITHER, UNRESOLVED = "neither", "not resolved"
ALIKE = 0.7  # noise-corrected correlations below this count as none: half of the variance is unshared (a convention)


@dataclass(frozen=True, kw_only=True)
class ValidationSimilarity:
    """The similarity of a column to two skills across the mixes.

    ``similar_to``: one of the two skills, "neither" or "not resolved". ``to_first``, ``to_second``: correlations of the
    noisy profiles. Noise moves them towards 0, and their draws even more. ``difference``: of the two. ``chance``:
    fraction of draws in which the first correlation is larger. ``C`` is NaN for all budgets together.
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
    """The similarity of every column at each budget and over all budgets, with the profiles behind it."""

    level: float
    similarities: tuple[ValidationSimilarity, ...]
    profiles: pd.DataFrame = field(repr=False, compare=False)

    def similarity_table(self) -> pd.DataFrame:
        """Return one row per column and budget, and one for all budgets (C is NaN).

        Columns: column first second C like chance, to_first, to_second and difference, each with _lo and _hi, n_mixes
        status reason.
        """
        # The column of similar_to is named like, as in the files of version 0.1.
        return table(
            {"column": result.column, "first": result.first, "second": result.second, "C": result.C}
            | {"like": result.similar_to, "chance": result.chance}
            | bounds("to_first", result.to_first)
            | bounds("to_second", result.to_second)
            | bounds("difference", result.difference)
            | {"n_mixes": result.n_mixes, "status": str(result.status), "reason": result.reason}
            for result in self.similarities
        )

    def profile_table(self) -> pd.DataFrame:
        """Return one row per column, budget and mix.

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
    """Find which of two skills each validation set follows over the mixes.

    Args:
        fits: fits of a study with several mixes, whose runs have the columns ``mix/CATEGORY``.
        columns: validation sets to classify.
        first: column of the first skill.
        second: column of the second skill.
        over: category in the numerator of the ratio that sorts the profiles.
        under: category in its denominator.

    Raises:
        InputError: a column was not fitted, or the runs do not have a category.
    """
    require_columns(fits, (*columns, first, second))
    ratios = log_ratios(fits, over, under)
    budgets = sorted({minimum.C for minimum in fits.minima})
    profiles = {(name, C): _profile(fits, name, C, ratios) for name in (*columns, first, second) for C in budgets}
    similarities = []
    for column in columns:
        three = {C: [profiles[name, C] for name in (column, first, second)] for C in budgets}
        start = ValidationSimilarity(
            column=column, first=first, second=second, C=math.nan, status=Status.TOO_FEW_MIXES, reason=""
        )
        similarities += [_similarity([three[C]], replace(start, C=C), fits.level) for C in budgets]
        similarities.append(_similarity(list(three.values()), start, fits.level))
    rows = [row for (name, C), profile in profiles.items() for row in _rows(name, C, profile, ratios, fits.level)]
    return ValidationSimilarityStudy(level=fits.level, similarities=tuple(similarities), profiles=table(rows))


def _profile(fits: StudyResults, name: str, C: float, ratios: dict[str, float]) -> _Profile:
    good: list[IsoflopMinimum] = [
        minimum
        for minimum in fits.minima
        if minimum.skill == name and minimum.C == C and minimum.status is Status.OK and minimum.mix in ratios
    ]
    good.sort(key=lambda minimum: ratios[minimum.mix])
    blank = np.empty((fits.resamples, 0))
    return _Profile(
        mixes=tuple(minimum.mix for minimum in good), value=np.log([minimum.loss for minimum in good]),
        draws=np.column_stack([minimum.draws[:, 1] for minimum in good]) if good else blank,
    )  # fmt: skip


def _similarity(
    budgets: Sequence[Sequence[_Profile]], start: ValidationSimilarity, level: float
) -> ValidationSimilarity:
    """Compare the first profile of each budget with the second and third, over all given budgets."""
    parts: list[list[Array]] = [[], [], []]
    n_mixes = 0
    for three in budgets:
        common = [mix for mix in three[0].mixes if all(mix in profile.mixes for profile in three)]
        if len(common) < MIN_MIXES:
            continue
        n_mixes = max(n_mixes, len(common))
        for part, profile in zip(parts, three, strict=True):
            indices = [profile.mixes.index(mix) for mix in common]
            values = np.vstack([profile.value[indices], profile.draws[:, indices]])
            part.append(values - values.mean(axis=1, keepdims=True))
    if not n_mixes:
        return replace(start, reason=f"fewer than {MIN_MIXES} mixes where all three columns have an optimum")
    column, first, second = (np.hstack(part) for part in parts)
    to_first, to_second = _correlation(column, first), _correlation(column, second)
    gap = to_first - to_second
    result = replace(
        start, status=Status.OK, to_first=_interval(to_first, level), to_second=_interval(to_second, level),
        difference=_interval(gap, level), chance=float((gap[1:] > 0).mean()), n_mixes=n_mixes,
    )  # fmt: skip
    if all(_is_dissimilar(column, skill, level) for skill in (first, second)):
        return replace(result, similar_to=NEITHER)
    if result.difference.lo > 0 and result.to_first.lo > 0:
        return replace(result, similar_to=start.first)
    if result.difference.hi < 0 and result.to_second.lo > 0:
        return replace(result, similar_to=start.second)
    if _interval(_noise_corrected_product(column, column), level).lo <= 0:
        reason = "its changes with the mix do not exceed the noise: add seeds, or mixes further apart"
        return replace(result, reason=reason)
    return result


def _is_dissimilar(column: Array, skill: Array, level: float) -> bool:
    """Return whether the noise-corrected correlation of two profiles is below ``ALIKE``, for the whole interval."""
    column_size, skill_size = (_noise_corrected_product(profile, profile) for profile in (column, skill))
    sizes = np.maximum(column_size, 0) * np.maximum(skill_size, 0)
    return _interval(_noise_corrected_product(column, skill) - ALIKE * np.sqrt(sizes), level).hi < 0


def _noise_corrected_product(first: Array, second: Array) -> Array:
    """Return the sum over mixes of the product of two profiles less that of their errors, for the value and each draw.

    A draw has its error in addition to that of the value, so the noise is subtracted twice. The noise is the median
    over the resamples, because Student's tails would inflate their mean.
    """
    noise = float(np.median(((first[1:] - first[0]) * (second[1:] - second[0])).sum(axis=1)))
    times = np.r_[1.0, np.full(len(first) - 1, 2.0)]
    return np.asarray((first * second).sum(axis=1) - times * noise)


def _interval(values: Array, level: float) -> Interval:
    return interval(float(values[0]), values[1:], level)


def _correlation(first: Array, second: Array) -> Array:
    return np.asarray((_unit(first) * _unit(second)).sum(axis=1))


def _unit(values: Array) -> Array:
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.where(length > 0, length, 1.0))


def _rows(name: str, C: float, profile: _Profile, ratios: dict[str, float], level: float) -> list[dict[str, object]]:
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
