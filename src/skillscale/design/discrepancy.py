"""The discrepancy of a law: a smooth function of ln N, ln D and the mix that absorbs the misfit of the law's form."""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from skillscale.design.space import DesignSpace
from skillscale.laws.forms.nd import Array

BUMP_WIDTH = 4.0  # sd of a Gaussian bump, in ln N and ln D (assumption)
USUAL_RATIO = 20.0  # D / N for which recipes are tuned
_SPACING = 1.2  # between bumps along ln C, in widths; twice that along ln D/N
_SWELL_RATIO, _SWELL_DEPTH = 2.5, 5.0  # distances in ln D/N and ln C at which the prior sd has doubled
_MIX_SD = 0.01  # prior sd of ln L that the mix adds to the law, per unit of a share (assumption)
_MIX_LENGTH = 5.0  # distance in ln N or ln D over which that changes by as much
_NEGLIGIBLE = 1e-4


@dataclass(frozen=True, kw_only=True)
class DiscrepancyBasis:
    """Features of the discrepancy: Gaussian bumps over (ln N, ln D), and terms in the mix.

    ``centres``: of the bumps, (m, 2). ``root``: from bumps to features with independent weights. ``mean_mix``: shares
    about which the terms in the mix are, None where the mix plays no part.

    Weights of the bumps have the prior N(0, s^2), those of the mix N(0, 1). The discrepancy has prior sd s where D / N
    is usual and C large. The sd grows away from there: recipes are tuned worst at extreme D / N, and small models
    deviate most from a law.
    """

    centres: Array
    root: Array = field(repr=False)
    mean_mix: Array | None = None

    def __call__(self, x: Array, y: Array, h: Array | None) -> Array:
        """Return the features (n, m) at x = ln N, y = ln D and shares (n, n_categories)."""
        bumps = self._bumps(x, y) @ self.root
        if self.mean_mix is None or h is None:
            return np.asarray(bumps)
        return np.hstack([
            bumps, self._mix_terms(h, (x - self._centre[0]) / _MIX_LENGTH, (y - self._centre[1]) / _MIX_LENGTH)
        ])  # fmt: skip

    def slopes(self, x: Array, y: Array, h: Array | None) -> Array:
        """Return derivatives of the features along x - y, (n, m): more parameters and fewer tokens at equal compute."""
        along = -((x[:, None] - self.centres[:, 0]) - (y[:, None] - self.centres[:, 1])) / BUMP_WIDTH**2
        bumps = (along * self._bumps(x, y)) @ self.root
        if self.mean_mix is None or h is None:
            return np.asarray(bumps)
        flat = np.zeros((len(x), len(self.mean_mix)))
        away = _MIX_SD * (h - self.mean_mix) / _MIX_LENGTH
        return np.hstack([bumps, flat, away, -away])

    def sd(self, scale: float) -> Array:
        """Return the prior sd of each feature's weight, (m,), where those of the bumps have ``scale``."""
        n_mix_terms = 0 if self.mean_mix is None else 3 * len(self.mean_mix)
        return np.append(np.full(self.root.shape[1], scale), np.ones(n_mix_terms))

    @property
    def _centre(self) -> Array:
        return np.asarray(self.centres.mean(0))

    def _mix_terms(self, h: Array, x: Array, y: Array) -> Array:
        away = _MIX_SD * (h - (0.0 if self.mean_mix is None else self.mean_mix))
        return np.hstack([away, away * x[:, None], away * y[:, None]])

    def _bumps(self, x: Array, y: Array) -> Array:
        distance = (x[:, None] - self.centres[:, 0]) ** 2 + (y[:, None] - self.centres[:, 1]) ** 2
        return np.asarray(np.exp(-0.5 * distance / BUMP_WIDTH**2))


def discrepancy_basis(space: DesignSpace, largest: float) -> DiscrepancyBasis:
    """Build the features over a space, up to the ``largest`` compute of the targets in FLOP."""
    low, high = (math.log(C / 6) for C in (space.flops[0], max(largest, space.flops[1])))
    ratio = np.log(space.ratio_range())
    sums = np.linspace(low, high, max(2, round((high - low) / (_SPACING * BUMP_WIDTH)) + 1))
    gaps = np.linspace(ratio[0], ratio[1], max(2, round(float(np.ptp(ratio)) / (2 * _SPACING * BUMP_WIDTH)) + 2))
    centres = np.array([((s - r) / 2, (s + r) / 2) for s in sums for r in gaps])
    values, vectors = np.linalg.eigh(_kernel(centres))
    keep = values > _NEGLIGIBLE * values.max()
    off = (centres[:, 1] - centres[:, 0]) - math.log(USUAL_RATIO)
    depth = np.maximum(math.log(space.flops[1] / 6) - centres.sum(1), 0)
    swell = 1 + (off / _SWELL_RATIO) ** 2 + (depth / _SWELL_DEPTH) ** 2
    return DiscrepancyBasis(
        centres=centres, root=swell[:, None] * vectors[:, keep] / np.sqrt(values[keep]),
        mean_mix=None if space.n_mixes == 1 or space.mixes is None else space.mixes.mean(0),
    )  # fmt: skip


def _kernel(centres: npt.NDArray[np.float64]) -> Array:
    distance = ((centres[:, None] - centres[None]) ** 2).sum(-1)
    return np.asarray(np.exp(-0.5 * distance / BUMP_WIDTH**2))
