"""Search for the best mix along a budget, jointly with N, within bounds on the shares.

A ``WeightedLoss``, a budget and bounds go in. The best ln N and shares of the estimate and of each draw come out, with
a status that says whether the runs determine the mix.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from skillscale.laws.fit.barrier import minimise_inside
from skillscale.laws.forms.nd import Array
from skillscale.laws.optimum.weighted_loss import WeightedLoss, derivatives
from skillscale.laws.results import Interval, Status

_AT_BOUND = 1e-4  # a share this close to a bound counts as on it
_SNAP = 1e-7  # distance at which the barrier may stop before a bound
_WHOLE = 0.9  # a share whose interval covers this fraction of its bounds is not determined by the runs
_INWARD = 0.1  # fraction by which a start moves from its corner to the middle of the bounds
_FIXED = 1e-9  # a share with bounds this close is fixed


@dataclass(frozen=True, kw_only=True)
class MixSearch:
    """A search over (ln N, shares). Columns of X are s and every share. ``free`` (n,) are the columns that may move."""

    t: float
    lower: Array
    upper: Array
    free: npt.NDArray[np.intp]
    corners: Array = field(metadata={"unit": "mixes to start from, (n, n_categories)"})

    @classmethod
    def within(cls, weighted: WeightedLoss, t: float, low: Array, high: Array, N: float | None) -> "MixSearch":
        """Make a search over the mixes within bounds, and over N unless it is given."""
        grid = weighted.grid(t)
        ends = (grid[0], grid[-1]) if N is None else (math.log(N), math.log(N))
        lower, upper = np.r_[ends[0], low], np.r_[ends[1], high]
        free = np.flatnonzero(upper - lower > _FIXED)
        free_shares = [k for k in range(len(low)) if k + 1 in free]
        corners = [_middle_mix(low, high)]
        for k in free_shares:
            least = low.copy()
            least[k] = high[k]
            corners.append((1 - _INWARD) * _middle_mix(least, np.maximum(high, least)) + _INWARD * corners[0])
        return cls(t=t, lower=lower, upper=upper, free=free, corners=np.array(corners))

    def starts(self, weighted: WeightedLoss) -> Array:
        """Return each corner with the best N there, (n, 1 + n_categories)."""
        estimate = weighted.take(np.zeros(len(self.corners), dtype=np.intp))
        return self.add_best_N(estimate, self.corners)

    def add_best_N(self, weighted: WeightedLoss, h: Array) -> Array:
        """Add each row's best ln N to mixes (K, n_categories)."""
        middle = (self.lower[0] + self.upper[0]) / 2
        if 0 not in self.free:
            return np.column_stack([np.full(len(h), middle), h])
        s = weighted.log_optimum(self.t, h)
        return np.column_stack([np.where(np.isfinite(s), s, middle), h])

    def solve(self, weighted: WeightedLoss, X: Array) -> tuple[Array, Array]:
        """Minimise the weighted loss from the points X, one per row, and return points and losses."""
        X = X.copy()
        if not len(self.free):
            return X, weighted.at(X[:, 0], self.t, X[:, 1:])
        columns = self.free

        def f(part: Array, rows: npt.NDArray[np.intp]) -> tuple[Array, Array, Array]:
            full = X[rows]
            full[:, columns] = part
            F, g, H = derivatives(weighted.take(rows), full, self.t, None)
            return F, g[:, columns], H[:, columns[:, None], columns[None, :]]

        X[:, columns], F = minimise_inside(
            f, X[:, columns], lower=self.lower[columns], upper=self.upper[columns], fixed_sum=columns > 0
        )
        return self._snap(X), F

    def _snap(self, X: Array) -> Array:
        """Put shares that stopped just before a bound on it. The roomiest share takes the difference."""
        h, low, high = X[:, 1:].copy(), self.lower[1:], self.upper[1:]
        h = np.where(h - low < _SNAP, low, np.where(high - h < _SNAP, high, h))
        room = np.minimum(h - low, high - h).argmax(1)
        h[np.arange(len(h)), room] += 1 - h.sum(1)
        return np.column_stack([X[:, 0], h])

    def draws(self, weighted: WeightedLoss, best: Array) -> Array:
        """Return each draw's optimum, from the estimate's optimum and from the middle. NaN where it has none."""
        middle = self.corners[0]
        near_best = np.tile((1 - _INWARD) * best[1:] + _INWARD * middle, (len(weighted), 1))
        doubled = weighted.take(np.tile(np.arange(len(weighted)), 2))
        X, F = self.solve(
            doubled, self.add_best_N(doubled, np.vstack([near_best, np.tile(middle, (len(weighted), 1))]))
        )
        X = np.where(np.isfinite(F)[:, None], X, np.nan)
        better = np.where(np.isfinite(F), F, np.inf).reshape(2, -1).argmin(0)
        return np.asarray(X[better * len(weighted) + np.arange(len(weighted))])

    def is_inside(self, s: Array) -> npt.NDArray[np.bool_]:
        """Return whether ln N is fixed, or inside the searched range."""
        interior = (s > self.lower[0] + 0.01) & (s < self.upper[0] - 0.01)
        return np.asarray(interior | (0 not in self.free))

    def outcome(self, s: float, mix: Mapping[str, Interval], run: Array | None) -> tuple[Status, str]:
        """Return the status and its reason. ``run``: least and largest share in the runs, if stored."""
        if not math.isfinite(s):
            return Status.NO_MINIMUM, "no interior minimum, the loss falls to the end of the N searched: add runs"
        low, high = dict(zip(mix, self.lower[1:], strict=True)), dict(zip(mix, self.upper[1:], strict=True))
        free = [k for k in mix if high[k] - low[k] > _FIXED]
        if not all(mix[k].is_finite for k in free):
            return (
                Status.NOT_IDENTIFIED,
                "some draws have no best mix, so it has no interval: add runs or pool fits",
            )
        undetermined = [k for k in free if mix[k].hi - mix[k].lo >= _WHOLE * (high[k] - low[k])]
        if undetermined:
            wide = ", ".join(f"{k} {mix[k].lo:.2g} to {mix[k].hi:.2g}" for k in undetermined)
            return Status.NOT_IDENTIFIED, f"the runs do not determine the best share of {wide}: add runs of other mixes"
        notes = []
        edges = [f"{k} at its least, {low[k]:.3g}" for k in free if mix[k].value - low[k] < _AT_BOUND]
        edges += [f"{k} at its largest, {high[k]:.3g}" for k in free if high[k] - mix[k].value < _AT_BOUND]
        if edges:
            notes.append(f"the best mix is on a bound: {', '.join(edges)}")
        beyond = [] if run is None else _beyond(mix, run)
        if beyond:
            notes.append(f"beyond the mixes of the runs: {', '.join(beyond)}")
        return Status.ON_BOUND if edges else Status.OK, "; ".join(notes)


def _middle_mix(low: Array, high: Array) -> Array:
    """Return the mix between bounds, with every share at the same fraction of its range."""
    room = (high - low).sum()
    return np.asarray(low + (high - low) * ((1 - low.sum()) / room if room > 0 else 0.0))


def _beyond(mix: Mapping[str, Interval], run: Array) -> list[str]:
    """Describe the shares outside the range of the runs."""
    pairs = zip(mix.items(), run[0] - _AT_BOUND, run[1] + _AT_BOUND, strict=True)
    return [f"{name} {share.value:.3g}" for (name, share), least, most in pairs if not least <= share.value <= most]
