"""The FLOP of a table against 6 N D, row by row: their usual ratio, and rows that wrapped around as integers."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_LIMITS = {2.0**31: "32-bit", 2.0**32: "32-bit", 2.0**63: "64-bit", 2.0**64: "64-bit"}
_NEAR_LIMIT = 16.0  # an integer column that wrapped around fills its range up to this factor
_SAFE = 4.0  # factor below the limit from which on FLOP can't have wrapped around
_WRAP_TOLERANCE = 1e-6  # of the range of an integer
_FAR = 2.5  # factor from the usual ratio
_ALIKE = math.log(1.5)  # largest quartile range of ln ratio of a column that is counted in one way


@dataclass(frozen=True, kw_only=True)
class FlopsCheck:
    """FLOP of rows against 6 N D.

    Args:
        ratio: usual C / 6 N D, NaN without FLOP.
        spread: relative spread of the ratio between rows.
        overflown: rows whose integer wrapped around.
        far: rows further than a factor of 2.5 from the usual ratio.
        other_unit: rows whose ratio is 1000, 1e6 or more times the usual one, because N or D has another unit there.
        integers: kind of the integers that wrapped around, such as ``64-bit``, or empty.
    """

    ratio: float
    spread: float
    overflown: Mask
    far: Mask
    other_unit: Mask
    integers: str = ""


def check_flops(
    flops: Floats, unit: float, counted: Floats, usable: Mask, *, nominal: bool = False
) -> FlopsCheck:  # fmt: skip
    """Compare FLOP with 6 N D.

    Args:
        flops: FLOP of the rows.
        unit: factor by which the cells were multiplied.
        counted: 6 N D of the rows.
        usable: rows that count.
        nominal: whether they are budgets, which a run may miss. Only negative ones show that integers wrapped around.
    """
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        ratios = flops / counted
    given = usable & (ratios > 0) & np.isfinite(ratios)
    none = np.zeros(len(flops), dtype=bool)
    if not given.any():
        return FlopsCheck(ratio=math.nan, spread=math.inf, overflown=none, far=none, other_unit=none)
    cells = flops / unit
    limit = _integer_limit(cells[usable & np.isfinite(cells)])
    wrapped = _wrapped(cells, counted / unit, limit) & usable
    sure = given.sum() > usable.sum() / 2 and not wrapped.any()
    ratio, spread = _usual_ratio(ratios, given, given & (counted / unit < limit / _SAFE), sure=bool(sure))
    with np.errstate(invalid="ignore", divide="ignore"):
        far = ~(np.abs(np.log(ratios / ratio)) < math.log(_FAR))
        power = np.log10(np.where(given, ratios / ratio, 1.0)) / 3
    other_unit = (np.round(power) >= 1) & (np.abs(power - np.round(power)) < _ALIKE / math.log(1000))
    expected = counted * ratio / unit
    suspects = usable & (expected > 0.8 * limit) & np.isfinite(flops)
    if not (suspects & (wrapped | (far & (not nominal)) | (flops <= 0))).any():
        return FlopsCheck(ratio=ratio, spread=spread, overflown=none, far=far, other_unit=other_unit)
    return FlopsCheck(
        ratio=ratio, spread=spread, overflown=suspects, far=far, other_unit=other_unit, integers=_LIMITS[limit]
    )  # fmt: skip


def _integer_limit(cells: Floats) -> float:
    """Return the size up to which the integers of a column count, infinite where they can't have wrapped around."""
    if not len(cells) or (cells != np.floor(cells)).any():
        return math.inf
    largest = float(np.abs(cells).max())
    limits = [limit for limit in _LIMITS if largest <= limit]
    return limits[0] if limits and largest * _NEAR_LIMIT > limits[0] else math.inf


def _wrapped(cells: Floats, counted: Floats, limit: float) -> Mask:
    """Return the rows whose cell is 6 N D as an integer that wrapped around."""
    if not math.isfinite(limit):
        return np.zeros(len(cells), dtype=bool)
    span = 2 * limit if limit in (2.0**31, 2.0**63) else limit
    lowest = -limit if span > limit else 0.0
    with np.errstate(invalid="ignore"):
        around = (counted - lowest) % span + lowest
        return np.asarray((counted > limit) & (np.abs(cells - around) < _WRAP_TOLERANCE * span + 1e-15 * counted))


def _usual_ratio(ratios: Floats, given: Mask, safe: Mask, *, sure: bool) -> tuple[float, float]:
    """Return the median ratio of the rows that can't have wrapped around, or 1 where there are none and rows differ."""
    if not safe.any() and not sure:
        return 1.0, math.inf
    logs = np.log(ratios[safe if safe.any() else given])
    quartiles = np.quantile(logs, [0.05, 0.25, 0.75, 0.95])
    spread = float(quartiles[3] - quartiles[0])
    if not safe.any() and quartiles[2] - quartiles[1] > _ALIKE:
        return 1.0, spread
    return float(np.median(ratios[safe if safe.any() else given])), spread
