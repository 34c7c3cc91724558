"""The weighted loss of several skills along a budget: its value, its derivatives, and where it is least.

A blend works on stacks: row 0 is the estimate, the further rows are draws, and row k of every skill is of the same
resample. Places on a budget are s = ln N and t = ln(C / 6) = ln N + ln D, whatever centre each law has.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from skillscale.laws.forms.autodiff import Jet, exp, leaves
from skillscale.laws.forms.nd import SEARCH_REACH, Array, Covariates, JetShares, Law

Rows = npt.NDArray[np.intp]
_POINTS = 97  # over +-SEARCH_REACH, .29 apart in ln N
_STEPS = 60
_SETTLED = 1e-12
_quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")  # a draw that ran away: inf or NaN is its value


@dataclass(frozen=True, kw_only=True)
class WeightedLoss:
    """sum_s w_s L_s: laws with log-parameters ``q``, one (K, p) a law, and ``weights`` that sum to 1.

    ``offsets``: what a mix that was run adds to ln L of each law; none where it is empty.
    """

    laws: tuple[Law, ...]
    q: tuple[Array, ...]
    weights: Array
    offsets: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.q[0])

    def take(self, rows: Rows) -> "WeightedLoss":
        """Some of the rows."""
        return replace(self, q=tuple(q[rows] for q in self.q))

    @_quiet
    def losses(self, s: Any, t: Any, h: Any) -> list[Jet]:
        """L of each skill at s = ln N, t = ln(C / 6): arrays (K or 1, n) or jets; ``h`` (K or 1, 1, m), or None."""
        return [exp(self._log_loss(i, s, t, h)) for i in range(len(self.laws))]

    @_quiet
    def loss(self, s: Any, t: Any, h: Any) -> Jet:
        """The weighted loss; skills without weight are not looked at."""
        parts = [float(w) * exp(self._log_loss(i, s, t, h)) for i, w in enumerate(self.weights) if w]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def at(self, s: Array, t: float, h: Array | None) -> Array:
        """The weighted loss at one s a row, (K,); ``h`` (K or 1, m), or None."""
        value = self.loss(s[:, None], np.full((1, 1), t), None if h is None else h[:, None, :]).value
        return np.broadcast_to(value[:, 0], (len(s),))

    def _log_loss(self, i: int, s: Any, t: Any, h: Any) -> Jet:
        law = self.laws[i]
        z = Covariates(s - law.x0, t - s - law.y0, h if law.needs_mix else None)
        told = law.form(leaves(self.q[i], derivatives=False), z)
        return told + self.offsets[i] if self.offsets else told

    def grid(self, t: float) -> Array:
        """Sizes over which a least loss is looked for, in ln N."""
        middle = (t + float(np.mean([law.x0 - law.y0 for law in self.laws]))) / 2
        return middle + np.linspace(-SEARCH_REACH, SEARCH_REACH, _POINTS)

    def along(self, t: float, h: Array | None) -> tuple[Array, Array]:
        """The grid (n,) and the weighted loss on it (K, n), infinite where it has no value; ``h`` (K or 1, m)."""
        grid = self.grid(t)
        values = self.loss(grid[None], np.full((1, 1), t), None if h is None else h[:, None, :]).value
        values = np.broadcast_to(values, (len(self), len(grid)))
        return grid, np.where(np.isfinite(values), values, np.inf)

    def log_optimum(self, t: float, h: Array | None) -> Array:
        """Ln N of the least weighted loss at a budget, (K,); NaN where it is at an end of the grid."""
        grid, values = self.along(t, h)
        best = values.argmin(1)
        inside = (best > 0) & (best < len(grid) - 1)
        s = np.full(len(self), np.nan)
        rows = np.flatnonzero(inside)
        if len(rows):
            own = h if h is None or len(h) == 1 else h[rows]
            s[rows] = _bracketed(self.take(rows), grid[best[rows]], t, own, width=float(grid[1] - grid[0]))
        return s


def _bracketed(blend: WeightedLoss, s: Array, t: float, h: Array | None, *, width: float) -> Array:
    """Newton steps from within a bracket of +-width about s, (K,), that fall back on halving it."""
    low, high = s - width, s + width
    for _ in range(_STEPS):
        _, slope, bend = derivatives(blend, s[:, None], t, h)
        low, high = np.where(slope[:, 0] < 0, s, low), np.where(slope[:, 0] > 0, s, high)
        curve = bend[:, 0, 0]
        newton = s - slope[:, 0] / np.where(curve > 0, curve, np.inf)
        step = np.where((curve > 0) & (newton > low) & (newton < high), newton, (low + high) / 2)
        # A settled row's last step may leave its bracket by rounding, and must not be sent to the middle for that
        step = np.where((curve > 0) & (np.abs(newton - s) < _SETTLED * np.abs(s)), s, step)
        if np.all(np.abs(step - s) < _SETTLED * np.abs(s)):
            return step
        s = step
    return s


def derivatives(blend: WeightedLoss, X: Array, t: float, h: Array | None) -> tuple[Array, Array, Array]:
    """The weighted loss (K,) with its slopes (K, P) and second derivatives (K, P, P) by the columns of X.

    X is s = ln N alone (K, 1), or s and then the shares of all categories (K, 1 + m), in which case ``h`` is not read.
    """
    s, *shares = leaves(X, derivatives=True)
    mix = JetShares(tuple(shares)) if shares else (None if h is None else h[:, None, :])
    return of_jet(blend.loss(s, np.full((1, 1), t), mix), X.shape[1], len(X))


@_quiet
def of_jet(jet: Jet, P: int, K: int) -> tuple[Array, Array, Array]:
    """Value (K,), slopes (K, P) and second derivatives (K, P, P) of a jet at one point a row."""
    slope, bend = np.zeros((K, P)), np.zeros((K, P, P))
    if jet.jac is not None:
        at = np.array(jet.support)
        slope[:, at] = jet.jac[..., 0]
        bend[:, at[:, None], at[None, :]] = jet.weighted_hessian(np.ones((K, 1)))
    return np.broadcast_to(jet.value[:, 0], (K,)), slope, bend
