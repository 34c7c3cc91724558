"""How well designs did: errors of what they told against the truth, over many tries."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from skillscale.design.targets import Target
from skillscale.laws.forms.nd import Array


@dataclass(frozen=True, kw_only=True)
class Score:
    """What n tries told of one target, each less its truth: ``error``, ``lo``, ``hi``, (n,); NaN where not told."""

    target: Target
    error: Array = field(repr=False)
    lo: Array = field(repr=False)
    hi: Array = field(repr=False)

    @classmethod
    def of(cls, target: Target, told: Sequence[tuple[float, float, float]], truths: Sequence[float]) -> "Score":
        """From (value, lo, hi) and the truth of each try."""
        error, lo, hi = (np.array(told, dtype=float) - np.array(truths, dtype=float)[:, None]).T
        return cls(target=target, error=error, lo=lo, hi=hi)

    @property
    def _known(self) -> Array:
        return np.asarray(self.error[np.isfinite(self.error)])

    @property
    def n(self) -> int:
        """Tries that told the target, and whose truth is known."""
        return len(self._known)

    @property
    def bias(self) -> tuple[float, float]:
        """Mean error and its standard error."""
        return _mean(self._known)

    @property
    def rmse(self) -> tuple[float, float]:
        """Root mean square error and its standard error, to first order."""
        square, sem = _mean(self._known**2)
        root = math.sqrt(square) if square >= 0 else math.nan
        return root, sem / (2 * root) if root > 0 else math.nan

    @property
    def coverage(self) -> tuple[float, float]:
        """Share of the intervals that hold the truth, and its standard error."""
        told = np.isfinite(self.lo) & np.isfinite(self.hi)
        share, _ = _mean(((self.lo[told] <= 0) & (self.hi[told] >= 0)).astype(float))
        return share, math.sqrt(share * (1 - share) / told.sum()) if told.any() else math.nan

    @property
    def half_width(self) -> float:
        """Mean half width of the intervals."""
        half = (self.hi - self.lo) / 2
        return _mean(half[np.isfinite(half)])[0]


def _mean(values: Array) -> tuple[float, float]:
    """Mean and standard error; NaN where there are too few."""
    n = len(values)
    if not n:
        return math.nan, math.nan
    return float(values.mean()), float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
