"""The search for the best mix along a budget: jointly with N, within bounds on the shares, of estimate and draws."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from skillscale.laws.fit.barrier import minimise_inside
from skillscale.laws.forms.nd import Array
from skillscale.laws.optimum.weighted_loss import WeightedLoss, derivatives
from skillscale.laws.results import Interval, Status

_AT_BOUND = 1e-4  # a share this near to a bound is on it
_HAIR = 1e-7  # by which the barrier may hold a share off its bound
_WHOLE = 0.9  # of the bounds: a share's interval this wide says that the runs don't tell it
_INWARD = 0.1  # how far a start is moved from its corner towards the middle of the bounds
_FIXED = 1e-9  # bounds this near leave nothing to choose


@dataclass(frozen=True, kw_only=True)
class MixSearch:
    """A search over (ln N, shares): columns of X are s and then every share, of which ``free`` (n,) may move."""

    t: float
    lower: Array
    upper: Array
    free: npt.NDArray[np.intp]
    corners: Array = field(metadata={"unit": "mixes to start from, (n, n_categories)"})

    @classmethod
    def over(cls, blend: WeightedLoss, t: float, low: Array, high: Array, N: float | None) -> "MixSearch":
        """Over the mixes within bounds, and over N unless it is given."""
        grid = blend.grid(t)
        ends = (grid[0], grid[-1]) if N is None else (math.log(N), math.log(N))
        lower, upper = np.r_[ends[0], low], np.r_[ends[1], high]
        free = np.flatnonzero(upper - lower > _FIXED)
        loose = [k for k in range(len(low)) if k + 1 in free]
        corners = [_filled(low, high)]
        for k in loose:
            least = low.copy()
            least[k] = high[k]
            corners.append((1 - _INWARD) * _filled(least, np.maximum(high, least)) + _INWARD * corners[0])
        return cls(t=t, lower=lower, upper=upper, free=free, corners=np.array(corners))

    def starts(self, blend: WeightedLoss) -> Array:
        """Each corner with the best N there, (n, 1 + n_categories)."""
        here = blend.take(np.zeros(len(self.corners), dtype=np.intp))
        return self.placed(here, self.corners)

    def placed(self, blend: WeightedLoss, h: Array) -> Array:
        """Mixes (K, n_categories) with each row's best N beside them."""
        middle = (self.lower[0] + self.upper[0]) / 2
        if 0 not in self.free:
            return np.column_stack([np.full(len(h), middle), h])
        s = blend.log_optimum(self.t, h)
        return np.column_stack([np.where(np.isfinite(s), s, middle), h])

    def solve(self, blend: WeightedLoss, X: Array) -> tuple[Array, Array]:
        """From places X, a row each, to the least weighted loss: places and losses."""
        X = X.copy()
        if not len(self.free):
            return X, blend.at(X[:, 0], self.t, X[:, 1:])
        at = self.free

        def f(part: Array, rows: npt.NDArray[np.intp]) -> tuple[Array, Array, Array]:
            whole = X[rows]
            whole[:, at] = part
            F, g, H = derivatives(blend.take(rows), whole, self.t, None)
            return F, g[:, at], H[:, at[:, None], at[None, :]]

        X[:, at], F = minimise_inside(f, X[:, at], lower=self.lower[at], upper=self.upper[at], tied=at > 0)
        return self._snapped(X), F

    def _snapped(self, X: Array) -> Array:
        """Shares that the barrier held off a bound by a hair, put on it; the roomiest share takes the difference."""
        h, low, high = X[:, 1:].copy(), self.lower[1:], self.upper[1:]
        h = np.where(h - low < _HAIR, low, np.where(high - h < _HAIR, high, h))
        room = np.minimum(h - low, high - h).argmax(1)
        h[np.arange(len(h)), room] += 1 - h.sum(1)
        return np.column_stack([X[:, 0], h])

    def draws(self, blend: WeightedLoss, best: Array) -> Array:
        """Each draw's optimum, from that of the estimate and from the middle of the bounds; NaN where it has none."""
        middle = self.corners[0]
        near = np.tile((1 - _INWARD) * best[1:] + _INWARD * middle, (len(blend), 1))
        twice = blend.take(np.tile(np.arange(len(blend)), 2))
        X, F = self.solve(twice, self.placed(twice, np.vstack([near, np.tile(middle, (len(blend), 1))])))
        X = np.where(np.isfinite(F)[:, None], X, np.nan)
        better = np.where(np.isfinite(F), F, np.inf).reshape(2, -1).argmin(0)
        return np.asarray(X[better * len(blend) + np.arange(len(blend))])

    def inside(self, s: Array) -> npt.NDArray[np.bool_]:
        """Whether ln N is given, or away from the ends of what was looked at."""
        away = (s > self.lower[0] + 0.01) & (s < self.upper[0] - 0.01)
        return np.asarray(away | (0 not in self.free))

    def verdict(self, s: float, mix: Mapping[str, Interval], run: Array | None) -> tuple[Status, str]:
        """What became of the search, and why; ``run``: least and largest share among the runs, where known."""
        if not math.isfinite(s):
            return Status.NO_MINIMUM, "no interior minimum: the loss falls up to the end of the N looked at; add runs"
        low, high = dict(zip(mix, self.lower[1:], strict=True)), dict(zip(mix, self.upper[1:], strict=True))
        loose = [k for k in mix if high[k] - low[k] > _FIXED]
        if not all(mix[k].is_finite for k in loose):
            return (
                Status.NOT_IDENTIFIED,
                "some draws have no best mix, so that it has no interval; add runs or pool fits",
            )
        open_ = [k for k in loose if mix[k].hi - mix[k].lo >= _WHOLE * (high[k] - low[k])]
        if open_:
            told = ", ".join(f"{k} {mix[k].lo:.2g} to {mix[k].hi:.2g}" for k in open_)
            return Status.NOT_IDENTIFIED, f"the runs don't tell the best share of {told}; add runs of other mixes"
        notes = []
        edges = [f"{k} at its least, {low[k]:.3g}" for k in loose if mix[k].value - low[k] < _AT_BOUND]
        edges += [f"{k} at its most, {high[k]:.3g}" for k in loose if high[k] - mix[k].value < _AT_BOUND]
        if edges:
            notes.append(f"the best mix is on a bound: {', '.join(edges)}")
        beyond = [] if run is None else _beyond(mix, run)
        if beyond:
            notes.append(f"beyond the mixes of the runs: {', '.join(beyond)}")
        return Status.ON_BOUND if edges else Status.OK, "; ".join(notes)


def _filled(low: Array, high: Array) -> Array:
    """The mix between bounds, with each share as far above its least as the others' room allows, alike."""
    room = (high - low).sum()
    return np.asarray(low + (high - low) * ((1 - low.sum()) / room if room > 0 else 0.0))


def _beyond(mix: Mapping[str, Interval], run: Array) -> list[str]:
    """Shares that no run has reached."""
    pairs = zip(mix.items(), run[0] - _AT_BOUND, run[1] + _AT_BOUND, strict=True)
    return [f"{name} {share.value:.3g}" for (name, share), least, most in pairs if not least <= share.value <= most]
