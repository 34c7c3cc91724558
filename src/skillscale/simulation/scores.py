"""Scores of designs: errors of their estimates against the truth, over many repetitions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from skillscale.design.targets import Target
from skillscale.laws.forms.nd import Array


@dataclass(frozen=True, kw_only=True)
class TargetScore:
    """Errors of n repetitions for one target: estimate and interval, each minus the truth, (n,); NaN where unknown."""

    target: Target
    error: Array = field(repr=False)
    lo: Array = field(repr=False)
    hi: Array = field(repr=False)

    @classmethod
    def of(
        cls, target: Target, estimates: Sequence[tuple[float, float, float]], truths: Sequence[float]
    ) -> "TargetScore":
        """Build the score from (value, lo, hi) and the truth of each repetition."""
        error, lo, hi = (np.array(estimates, dtype=float) - np.array(truths, dtype=float)[:, None]).T
        return cls(target=target, error=error, lo=lo, hi=hi)

    @property
    def _finite_errors(self) -> Array:
        return np.asarray(self.error[np.isfinite(self.error)])

    @property
    def n(self) -> int:
        """Number of repetitions with an estimate and a truth."""
        return len(self._finite_errors)

    @property
    def bias(self) -> tuple[float, float]:
        """Mean error and its standard error."""
        return _mean_and_sem(self._finite_errors)

    @property
    def rmse(self) -> tuple[float, float]:
        """Root mean square error and its standard error, to first order."""
        square, sem = _mean_and_sem(self._finite_errors**2)
        root = math.sqrt(square) if square >= 0 else math.nan
        return root, sem / (2 * root) if root > 0 else math.nan

    @property
    def coverage(self) -> tuple[float, float]:
        """Share of the intervals that hold the truth, and its standard error."""
        finite = np.isfinite(self.lo) & np.isfinite(self.hi)
        share, _ = _mean_and_sem(((self.lo[finite] <= 0) & (self.hi[finite] >= 0)).astype(float))
        return share, math.sqrt(share * (1 - share) / finite.sum()) if finite.any() else math.nan

    @property
    def half_width(self) -> float:
        """Mean half width of the intervals."""
        half = (self.hi - self.lo) / 2
        return _mean_and_sem(half[np.isfinite(half)])[0]


def _mean_and_sem(values: Array) -> tuple[float, float]:
    """Return mean and standard error, NaN where the values are too few."""
    n = len(values)
    if not n:
        return math.nan, math.nan
    return float(values.mean()), float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
