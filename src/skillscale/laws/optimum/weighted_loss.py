"""Evaluate the weighted loss of several skills along a budget: its value, its derivatives, and its minimum.

Laws with stacked parameters go in. Row 0 is the estimate, the other rows are draws, and row k is the same resample in
every skill. Arrays with one value per row come out. Points on a budget are s = ln N and t = ln(C / 6) = ln N + ln D,
whatever the centre of each law.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from skillscale.laws.forms.autodiff import Jet, exp, leaves
from skillscale.laws.forms.nd import SEARCH_REACH, Array, Covariates, JetShares, Law

Rows = npt.NDArray[np.intp]
_POINTS = 97  # over +-SEARCH_REACH, 0.29 apart in ln N
_STEPS = 60
_SETTLED = 1e-12
_quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")  # a diverged draw has the value inf or NaN


@dataclass(frozen=True, kw_only=True)
class WeightedLoss:
    """sum_s w_s L_s of laws with log-parameters ``q``, one (K, p) per law, and ``weights`` that sum to 1.

    ``offsets``: effect of the mix on ln L of each law. Empty: none.
    """

    laws: tuple[Law, ...]
    q: tuple[Array, ...]
    weights: Array
    offsets: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.q[0])

    def take(self, rows: Rows) -> "WeightedLoss":
        """Select rows."""
        return replace(self, q=tuple(q[rows] for q in self.q))

    @_quiet
    def losses(self, s: Any, t: Any, h: Any) -> list[Jet]:
        """Return L of each skill at s = ln N, t = ln(C / 6), arrays (K or 1, n) or jets. ``h``: (K or 1, 1, m)."""
        return [exp(self._log_loss(i, s, t, h)) for i in range(len(self.laws))]

    @_quiet
    def loss(self, s: Any, t: Any, h: Any) -> Jet:
        """Return the weighted loss. Skills without weight are not evaluated."""
        parts = [float(w) * exp(self._log_loss(i, s, t, h)) for i, w in enumerate(self.weights) if w]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def at(self, s: Array, t: float, h: Array | None) -> Array:
        """Return the weighted loss at one s per row, (K,). ``h``: (K or 1, m) or None."""
        value = self.loss(s[:, None], np.full((1, 1), t), None if h is None else h[:, None, :]).value
        return np.broadcast_to(value[:, 0], (len(s),))

    def _log_loss(self, i: int, s: Any, t: Any, h: Any) -> Jet:
        law = self.laws[i]
        z = Covariates(s - law.x0, t - s - law.y0, h if law.needs_mix else None)
        log_loss = law.form(leaves(self.q[i], derivatives=False), z)
        return log_loss + self.offsets[i] if self.offsets else log_loss

    def grid(self, t: float) -> Array:
        """Return the sizes to search for the least loss, in ln N."""
        middle = (t + float(np.mean([law.x0 - law.y0 for law in self.laws]))) / 2
        return middle + np.linspace(-SEARCH_REACH, SEARCH_REACH, _POINTS)

    def along(self, t: float, h: Array | None) -> tuple[Array, Array]:
        """Return the grid (n,) and the weighted loss on it (K, n), infinite where undefined. ``h``: (K or 1, m)."""
        grid = self.grid(t)
        values = self.loss(grid[None], np.full((1, 1), t), None if h is None else h[:, None, :]).value
        values = np.broadcast_to(values, (len(self), len(grid)))
        return grid, np.where(np.isfinite(values), values, np.inf)

    def log_optimum(self, t: float, h: Array | None) -> Array:
        """Return ln N of the least weighted loss at a budget, (K,), or NaN where it is at an end of the grid."""
        grid, values = self.along(t, h)
        best = values.argmin(1)
        inside = (best > 0) & (best < len(grid) - 1)
        s = np.full(len(self), np.nan)
        rows = np.flatnonzero(inside)
        if len(rows):
            row_mix = h if h is None or len(h) == 1 else h[rows]
            s[rows] = _minimise(self.take(rows), grid[best[rows]], t, row_mix, width=float(grid[1] - grid[0]))
        return s


def _minimise(weighted: WeightedLoss, s: Array, t: float, h: Array | None, *, width: float) -> Array:
    """Take Newton steps inside a bracket of +-width about s, (K,), with bisection as fallback."""
    low, high = s - width, s + width
    for _ in range(_STEPS):
        _, slope, bend = derivatives(weighted, s[:, None], t, h)
        low, high = np.where(slope[:, 0] < 0, s, low), np.where(slope[:, 0] > 0, s, high)
        curve = bend[:, 0, 0]
        newton = s - slope[:, 0] / np.where(curve > 0, curve, np.inf)
        step = np.where((curve > 0) & (newton > low) & (newton < high), newton, (low + high) / 2)
        # The last step of a converged row may leave its bracket by rounding. It must not go to the middle then.
        step = np.where((curve > 0) & (np.abs(newton - s) < _SETTLED * np.abs(s)), s, step)
        if np.all(np.abs(step - s) < _SETTLED * np.abs(s)):
            return step
        s = step
    return s


def derivatives(weighted: WeightedLoss, X: Array, t: float, h: Array | None) -> tuple[Array, Array, Array]:
    """Return the weighted loss (K,), its slopes (K, P) and second derivatives (K, P, P) by the columns of X.

    X is s = ln N alone (K, 1), or s and the shares of all categories (K, 1 + m). ``h`` is not used in the second case.
    """
    s, *shares = leaves(X, derivatives=True)
    mix = JetShares(tuple(shares)) if shares else (None if h is None else h[:, None, :])
    return of_jet(weighted.loss(s, np.full((1, 1), t), mix), X.shape[1], len(X))


@_quiet
def of_jet(jet: Jet, P: int, K: int) -> tuple[Array, Array, Array]:
    """Return value (K,), slopes (K, P) and second derivatives (K, P, P) of a jet at one point per row."""
    slope, bend = np.zeros((K, P)), np.zeros((K, P, P))
    if jet.jac is not None:
        at = np.array(jet.support)
        slope[:, at] = jet.jac[..., 0]
        bend[:, at[:, None], at[None, :]] = jet.weighted_hessian(np.ones((K, 1)))
    return np.broadcast_to(jet.value[:, 0], (K,)), slope, bend
