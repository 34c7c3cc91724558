"""Which of two skills a validation set follows when the mix changes: its loss across mixes beside theirs.

Each column has a profile: ln L at its own optimum of each mix, less the mean over the mixes of the budget. A profile's
likeness to a skill's is the correlation of the two over mixes (and budgets). A column is like the skill whose profile
correlates more, where the interval of the difference and of that correlation leave out zero; it is like neither where
both correlations are small for certain. Whatever noise a column has draws its correlations to zero: then nothing is
resolved, which is what a column that does not change with the mix deserves.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from skillscale.errors import InputError
from skillscale.laws.crossing import log_ratios
from skillscale.laws.forms import Array
from skillscale.laws.lines import LEAST
from skillscale.laws.results import Interval, Minimum, Status, StudyFits, bounds, table
from skillscale.laws.uncertainty import interval

NEITHER, UNRESOLVED = "neither", "not resolved"
ALIKE = 0.7  # a correlation that is surely below this is none: half of the variance unshared (a convention)


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """What a column follows across the mixes, ``like`` one of the two skills, "neither" or "not resolved".

    ``to_first``, ``to_second``: correlations; ``difference`` of the two; ``chance``: share of draws in which the first
    is the nearer one. ``C`` is NaN for all budgets together.
    """

    column: str
    first: str
    second: str
    C: float
    status: Status
    reason: str
    like: str = UNRESOLVED
    to_first: Interval = field(default_factory=Interval)
    to_second: Interval = field(default_factory=Interval)
    difference: Interval = field(default_factory=Interval)
    chance: float = math.nan
    n_mixes: int = 0


@dataclass(frozen=True, kw_only=True)
class LikenessStudy:
    """The likeness of every column at each budget and over all, with the profiles behind it."""

    level: float
    likenesses: tuple[Likeness, ...]
    profiles: pd.DataFrame = field(repr=False, compare=False)

    def likeness_table(self) -> pd.DataFrame:
        """One row a column and budget, and one of all budgets (C is NaN).

        Columns: column first second C like chance, to_first, to_second and difference, each with _lo and _hi, n_mixes
        status reason.
        """
        return table(
            {"column": one.column, "first": one.first, "second": one.second, "C": one.C, "like": one.like}
            | {"chance": one.chance}
            | bounds("to_first", one.to_first)
            | bounds("to_second", one.to_second)
            | bounds("difference", one.difference)
            | {"n_mixes": one.n_mixes, "status": str(one.status), "reason": one.reason}
            for one in self.likenesses
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


def likeness_study(
    fits: StudyFits, columns: Sequence[str], *, first: str, second: str, over: str, under: str
) -> LikenessStudy:  # fmt: skip
    """Tell which of two skills each validation set follows over the mixes, in order of a ratio of two categories.

    Args:
        fits: of a study of several mixes, whose runs have the columns ``mix/CATEGORY``.
        columns: validation sets to tell.
        first, second: columns of the two skills.
        over, under: categories of the ratio that the profiles are listed by.

    Raises:
        InputError: a column was not fitted, or a category is not one of the runs'.
    """
    fitted = {one.skill for one in fits.minima}
    for column in (*columns, first, second):
        if column not in fitted:
            raise InputError(f"{column} was not fitted; there is {', '.join(sorted(fitted))}")
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
    return LikenessStudy(level=fits.level, likenesses=tuple(found), profiles=table(rows))


def _profile(fits: StudyFits, name: str, C: float, ratios: dict[str, float]) -> _Profile:
    good: list[Minimum] = [
        one for one in fits.minima if one.skill == name and one.C == C and one.status is Status.OK and one.mix in ratios
    ]
    good.sort(key=lambda one: ratios[one.mix])
    blank = np.empty((fits.resamples, 0))
    return _Profile(
        mixes=tuple(one.mix for one in good), value=np.log([one.loss for one in good]),
        draws=np.column_stack([one.draws[:, 1] for one in good]) if good else blank,
    )  # fmt: skip


def _likeness(budgets: Sequence[Sequence[_Profile]], about: dict[str, Any], level: float) -> Likeness:
    """Likeness of the first profile of each budget to the second and third, over all budgets given."""
    parts: list[list[Array]] = [[], [], []]
    n_mixes = 0
    for three in budgets:
        both = [mix for mix in three[0].mixes if all(mix in one.mixes for one in three)]
        if len(both) < LEAST:
            continue
        n_mixes = max(n_mixes, len(both))
        for part, one in zip(parts, three, strict=True):
            at = [one.mixes.index(mix) for mix in both]
            values = np.vstack([one.value[at], one.draws[:, at]])
            part.append(values - values.mean(axis=1, keepdims=True))
    if not n_mixes:
        reason = f"fewer than {LEAST} mixes where all three columns have an optimum"
        return Likeness(**about, status=Status.TOO_FEW_MIXES, reason=reason)
    own, near, far = (_unit(np.hstack(part)) for part in parts)
    to_first, to_second = (own * near).sum(axis=1), (own * far).sum(axis=1)
    gap = to_first - to_second
    bands = [interval(float(each[0]), each[1:], level) for each in (to_first, to_second, gap)]
    return Likeness(
        **about, status=Status.OK, reason="", like=_like(*bands, first=about["first"], second=about["second"]),
        to_first=bands[0], to_second=bands[1], difference=bands[2], chance=float((gap[1:] > 0).mean()), n_mixes=n_mixes,
    )  # fmt: skip


def _like(to_first: Interval, to_second: Interval, difference: Interval, *, first: str, second: str) -> str:
    if to_first.hi < ALIKE and to_second.hi < ALIKE:
        return NEITHER
    if difference.lo > 0 and to_first.lo > 0:
        return first
    if difference.hi < 0 and to_second.lo > 0:
        return second
    return UNRESOLVED


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
