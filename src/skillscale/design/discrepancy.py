"""The discrepancy: a smooth surface over ln N and ln D, and over the mix, that owns how far a law's form is off."""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from skillscale.design.space import DesignSpace
from skillscale.laws.forms.nd import Array

REACH = 4.0  # width of a bump, in ln N and ln D (assumption)
USUAL_RATIO = 20.0  # D / N about which models are tuned
_APART = 1.2  # of a width, between bumps along ln C; twice that along ln D/N
_SWELL_RATIO, _SWELL_DEPTH = 2.5, 5.0  # in ln D/N and ln C, at which the surface is twice as rough as where it counts
_OF_MIX = 0.01  # sd, in ln L, of what the mix does beside the law, per unit of a share (assumption)
_ALONG = 5.0  # in ln N or ln D, over which that changes by as much
_NEGLIGIBLE = 1e-4


@dataclass(frozen=True, kw_only=True)
class DiscrepancyBasis:
    """A sum of Gaussian bumps at ``centres`` (m, 2) in (ln N, ln D), and of terms in the mix about ``middle``.

    Weights of the bumps are N(0, s^2), those of the mix N(0, 1). The surface has sd s where D / N is usual and C large;
    far from there, where recipes are tuned worst and small models behave otherwise, it has more.
    """

    centres: Array
    root: Array = field(repr=False)
    middle: Array | None = None

    def __call__(self, x: Array, y: Array, h: Array | None) -> Array:
        """Features (n, m) at x = ln N, y = ln D and shares (n, n_categories)."""
        bumps = self._bumps(x, y) @ self.root
        if self.middle is None or h is None:
            return np.asarray(bumps)
        return np.hstack([bumps, self._of_mix(h, (x - self._at[0]) / _ALONG, (y - self._at[1]) / _ALONG)])

    def slopes(self, x: Array, y: Array, h: Array | None) -> Array:
        """Derivatives of the features along x - y, (n, m): more parameters and fewer tokens at the same compute."""
        along = -((x[:, None] - self.centres[:, 0]) - (y[:, None] - self.centres[:, 1])) / REACH**2
        bumps = (along * self._bumps(x, y)) @ self.root
        if self.middle is None or h is None:
            return np.asarray(bumps)
        flat = np.zeros((len(x), len(self.middle)))
        away = _OF_MIX * (h - self.middle) / _ALONG
        return np.hstack([bumps, flat, away, -away])

    def sd(self, scale: float) -> Array:
        """Prior sd of each feature's weight, (m,), where bumps have ``scale``."""
        n_of_mix = 0 if self.middle is None else 3 * len(self.middle)
        return np.append(np.full(self.root.shape[1], scale), np.ones(n_of_mix))

    @property
    def _at(self) -> Array:
        return np.asarray(self.centres.mean(0))

    def _of_mix(self, h: Array, x: Array, y: Array) -> Array:
        away = _OF_MIX * (h - (0.0 if self.middle is None else self.middle))
        return np.hstack([away, away * x[:, None], away * y[:, None]])

    def _bumps(self, x: Array, y: Array) -> Array:
        apart = (x[:, None] - self.centres[:, 0]) ** 2 + (y[:, None] - self.centres[:, 1]) ** 2
        return np.asarray(np.exp(-0.5 * apart / REACH**2))


def discrepancy_basis(space: DesignSpace, largest: float) -> DiscrepancyBasis:
    """The surface over all that may be run, and up to the ``largest`` compute asked about."""
    low, high = (math.log(C / 6) for C in (space.flops[0], max(largest, space.flops[1])))
    ratio = np.log(space.ratios())
    sums = np.linspace(low, high, max(2, round((high - low) / (_APART * REACH)) + 1))
    gaps = np.linspace(ratio[0], ratio[1], max(2, round(float(np.ptp(ratio)) / (2 * _APART * REACH)) + 2))
    centres = np.array([((s - r) / 2, (s + r) / 2) for s in sums for r in gaps])
    values, vectors = np.linalg.eigh(_kernel(centres))
    keep = values > _NEGLIGIBLE * values.max()
    off = (centres[:, 1] - centres[:, 0]) - math.log(USUAL_RATIO)
    depth = np.maximum(math.log(space.flops[1] / 6) - centres.sum(1), 0)
    swell = 1 + (off / _SWELL_RATIO) ** 2 + (depth / _SWELL_DEPTH) ** 2
    return DiscrepancyBasis(
        centres=centres, root=swell[:, None] * vectors[:, keep] / np.sqrt(values[keep]),
        middle=None if space.n_mixes == 1 or space.mixes is None else space.mixes.mean(0),
    )  # fmt: skip


def _kernel(centres: npt.NDArray[np.float64]) -> Array:
    apart = ((centres[:, None] - centres[None]) ** 2).sum(-1)
    return np.asarray(np.exp(-0.5 * apart / REACH**2))
