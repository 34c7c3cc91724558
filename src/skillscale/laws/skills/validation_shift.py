"""How far the composition of a validation set can move the compute optimum.

Along a budget, the N* of any weighted mean of losses lies between the smallest and the largest N* of its parts where
each loss has one minimum (``laws/optima.py`` proves it), so the largest shift over the simplex of compositions is
max N* / min N* - 1 over single columns.

The plug-in value of a maximum is biased upwards: columns that don't differ at all still seem to. Its interval is made
of the pairs' instead. A lower bound must hold for whichever pair noise made the widest: |d_ij| - q se_ij over all pairs
at once, q the quantile of the largest |error| / se in the resamples, and no less than 0. For an upper bound it is
enough that the pair that truly is the widest be covered, and that is one pair: the largest of the pairs' own one-sided
bounds (an intersection-union argument). Each bound has half of the error, so that the two cover at the level at least.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from skillscale.errors import InputError
from skillscale.laws.forms.nd import Array
from skillscale.laws.results import Interval, IsoflopMinimum, Status, StudyResults, bounds, table
from skillscale.laws.skills.regression import log_N, require_columns
from skillscale.laws.uncertainty.resamples import robust_sd

_SD = 1e-9


@dataclass(frozen=True, kw_only=True)
class CompositionShift:
    """Max |N*(w) - N*(w')| / N*(w') over compositions w, w' of the columns, at a budget and mix.

    ``largest``: the plug-in value with an interval that covers; its ``lo`` is 0 where no pair of columns can be told
    apart. ``bias``: by how much the resamples' own shifts exceed the value on average, a guess at how much noise adds
    to it. ``extremes``: the columns of smallest and largest N*.
    """

    mix: str
    C: float = field(metadata={"unit": "FLOP, nominal budget"})
    columns: tuple[str, ...]
    status: Status
    reason: str
    largest: Interval = field(default_factory=Interval)
    bias: float = math.nan
    extremes: tuple[str, str] = ("", "")


def composition_shifts(fits: StudyResults, columns: Sequence[str]) -> tuple[CompositionShift, ...]:
    """The largest shift at each mix and budget; columns whose minimum is refused there are left out by name.

    Raises:
        InputError: fewer than 2 columns, or one that was not fitted.
    """
    require_columns(fits, columns)
    if len(set(columns)) < 2:
        raise InputError(f"a composition has 2 columns or more, but there is {', '.join(columns) or 'none'}")
    minima = {(one.mix, one.C, one.skill): one for one in fits.minima}
    places = list(dict.fromkeys((one.mix, one.C) for one in fits.minima))
    return tuple(
        _shift([minima[mix, C, name] for name in columns if (mix, C, name) in minima], mix, C, fits.level)
        for mix, C in places
    )


def composition_table(shifts: Sequence[CompositionShift]) -> pd.DataFrame:
    """One row a mix and budget.

    Columns: mix C shift shift_lo shift_hi bias smallest largest n_columns status reason.
    """
    return table(
        {"mix": one.mix, "C": one.C}
        | bounds("shift", one.largest)
        | {"bias": one.bias, "smallest": one.extremes[0], "largest": one.extremes[1]}
        | {"n_columns": len(one.columns), "status": str(one.status), "reason": one.reason}
        for one in shifts
    )


def _shift(minima: Sequence[IsoflopMinimum], mix: str, C: float, level: float) -> CompositionShift:
    good = [one for one in minima if one.status is Status.OK]
    lost = [f"without {one.skill} ({one.status})" for one in minima if one.status is not Status.OK]
    names = tuple(one.skill for one in good)
    if len(good) < 2:
        reason = "; ".join([f"{len(good)} of {len(minima)} columns have an optimum here, it takes 2", *lost])
        return CompositionShift(mix=mix, C=C, columns=names, status=Status.TOO_FEW, reason=reason)
    value = np.array([log_N(one) for one in good])
    draws = np.column_stack([one.draws[:, 0] for one in good])
    low, high = int(value.argmin()), int(value.argmax())
    widest = float(np.ptp(value))
    lo, hi = range_bounds(value, draws, level)
    return CompositionShift(
        mix=mix, C=C, columns=names, status=Status.OK, reason="; ".join(lost), extremes=(names[low], names[high]),
        largest=Interval(value=math.expm1(widest), lo=math.expm1(lo), hi=math.expm1(hi)),
        bias=float(np.mean(np.expm1(np.ptp(draws, axis=1)))) - math.expm1(widest),
    )  # fmt: skip


def range_bounds(value: Array, draws: Array, level: float) -> tuple[float, float]:
    """Bounds of max - min of n quantities, from estimates (n,) and draws (K, n) whose rows go together."""
    i, j = np.triu_indices(len(value), 1)
    gap, error = np.abs(value[i] - value[j]), (draws - value)[:, i] - (draws - value)[:, j]
    sd = np.maximum(robust_sd(error), _SD)
    tail = (1 - level) / 2
    # Either sign of a pair may be the larger one, so that 2 one-sided bounds a pair hold at once.
    everywhere = float(np.quantile(np.abs(error / sd).max(axis=1), 1 - tail))
    single = np.quantile(np.abs(error), 1 - 2 * tail, axis=0)
    return max(0.0, float((gap - everywhere * sd).max())), float((gap + single).max())
