"""Bound the shift of the compute optimum over all compositions of a validation set.

The fits of a study and several columns go in, and a ``CompositionShift`` per mix and budget comes out. Along a budget,
the N* of any weighted mean of losses lies between the smallest and the largest N* of its parts, where each loss has one
minimum (proof: ``validation_effect`` in ``laws/optimum/optimum.py``). So the largest shift over all compositions is
max N* / min N* - 1 over single columns.

The plug-in value of a maximum is biased upwards: columns without any difference still seem to differ. So the interval
comes from the pairs of columns. The lower bound must hold for whichever pair noise made the widest. It is the largest
|d_ij| - q se_ij, and at least 0, where q is the quantile of the largest |error| / se over all pairs in the resamples.
The upper bound must cover only the truly widest pair, a single pair. It is the largest of the pairs' one-sided bounds
(an intersection-union argument). Each bound has half of the error probability, so the interval covers at least at the
level.
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

    ``largest``: the plug-in value with an interval that covers. Its ``lo`` is 0 where no pair of columns differs beyond
    noise. ``bias``: mean shift in the resamples less the value, an estimate of the contribution of noise. ``extremes``:
    the columns with the smallest and the largest N*.
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
    """Return the largest shift at each mix and budget. Columns with a refused minimum are excluded and listed.

    Raises:
        InputError: fewer than 2 columns, or a column that was not fitted.
    """
    require_columns(fits, columns)
    if len(set(columns)) < 2:
        raise InputError(f"too few columns for a composition: {', '.join(columns) or 'none'}. Give 2 or more.")
    minima = {(minimum.mix, minimum.C, minimum.skill): minimum for minimum in fits.minima}
    places = list(dict.fromkeys((minimum.mix, minimum.C) for minimum in fits.minima))
    return tuple(
        _shift([minima[mix, C, name] for name in columns if (mix, C, name) in minima], mix, C, fits.level)
        for mix, C in places
    )


def composition_table(shifts: Sequence[CompositionShift]) -> pd.DataFrame:
    """Return one row per mix and budget.

    Columns: mix C shift shift_lo shift_hi bias smallest largest n_columns status reason.
    """
    return table(
        {"mix": shift.mix, "C": shift.C}
        | bounds("shift", shift.largest)
        | {"bias": shift.bias, "smallest": shift.extremes[0], "largest": shift.extremes[1]}
        | {"n_columns": len(shift.columns), "status": str(shift.status), "reason": shift.reason}
        for shift in shifts
    )


def _shift(minima: Sequence[IsoflopMinimum], mix: str, C: float, level: float) -> CompositionShift:
    good = [minimum for minimum in minima if minimum.status is Status.OK]
    refused = [f"without {minimum.skill} ({minimum.status})" for minimum in minima if minimum.status is not Status.OK]
    names = tuple(minimum.skill for minimum in good)
    if len(good) < 2:
        reason = "; ".join([f"{len(good)} of {len(minima)} columns have an optimum here, 2 are needed", *refused])
        return CompositionShift(mix=mix, C=C, columns=names, status=Status.TOO_FEW, reason=reason)
    value = np.array([log_N(minimum) for minimum in good])
    draws = np.column_stack([minimum.draws[:, 0] for minimum in good])
    low, high = int(value.argmin()), int(value.argmax())
    widest = float(np.ptp(value))
    lo, hi = range_bounds(value, draws, level)
    return CompositionShift(
        mix=mix, C=C, columns=names, status=Status.OK, reason="; ".join(refused), extremes=(names[low], names[high]),
        largest=Interval(value=math.expm1(widest), lo=math.expm1(lo), hi=math.expm1(hi)),
        bias=float(np.mean(np.expm1(np.ptp(draws, axis=1)))) - math.expm1(widest),
    )  # fmt: skip


def range_bounds(value: Array, draws: Array, level: float) -> tuple[float, float]:
    """Return bounds of max - min of n quantities, from estimates (n,) and draws (K, n) with paired rows."""
    i, j = np.triu_indices(len(value), 1)
    gap, error = np.abs(value[i] - value[j]), (draws - value)[:, i] - (draws - value)[:, j]
    sd = np.maximum(robust_sd(error), _SD)
    tail = (1 - level) / 2
    # Either sign of a pair may be the larger one, so two one-sided bounds per pair must hold at once.
    everywhere = float(np.quantile(np.abs(error / sd).max(axis=1), 1 - tail))
    single = np.quantile(np.abs(error), 1 - 2 * tail, axis=0)
    return max(0.0, float((gap - everywhere * sd).max())), float((gap + single).max())
