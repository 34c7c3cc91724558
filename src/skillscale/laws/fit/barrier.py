"""Minimise within bounds, with the sum of some variables fixed: a log barrier and exact Newton steps.

Works on stacks of small problems, so that all starts and draws of one optimum are solved at once.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from skillscale.laws.forms.nd import Array

Rows = npt.NDArray[np.intp]
Function = Callable[[Array, Rows], tuple[Array, Array, Array]]

BARRIERS = np.geomspace(1e-2, 1e-10, 9)  # barrier weights relative to the value; the last sets the error
_STEPS = 40  # most steps per barrier weight
_CENTRED = 1e-2  # predicted decrease, in units of the weight, at which the next weight starts
_ROUNDING = 1e-15
_TO_THE_WALL = 0.95
_SHORTEST = 1e-9
_LARGEST = 1e100  # slopes and second derivatives in units of the value; their products stay finite


def minimise_inside(
    f: Function, X: Array, *, lower: Array, upper: Array, fixed_sum: npt.NDArray[np.bool_]
) -> tuple[Array, Array]:
    """Follow K starts to their minima, each (P,) strictly between ``lower`` and ``upper``.

    Negative curvature enters by its absolute value, so every step goes down. A start ends in a minimum of its basin.

    Args:
        f: value (K,), slopes (K, P) and second derivatives (K, P, P) at positions (K, P) of the given rows.
        X: starts, (K, P).
        lower: lower bounds, (P,).
        upper: upper bounds, (P,).
        fixed_sum: mask of the variables whose sum stays as it is in the start, (P,).

    Returns:
        Positions (K, P) and values (K,). A start without a finite value stays where it is.
    """
    X = X.copy()
    F, g, H = f(X, np.arange(len(X)))
    unit = np.abs(F)
    F, g, H = F.copy(), g.copy(), H.copy()
    for mu in BARRIERS:
        length, active = np.ones(len(X)), _usable(F, g, H)
        tolerance = _ROUNDING if mu == BARRIERS[-1] else _CENTRED * mu
        for _ in range(_STEPS):
            rows = np.flatnonzero(active)
            if not len(rows):
                break
            scale = unit[rows]
            step, promised = _step(
                X[rows], g[rows] / scale[:, None], H[rows] / scale[:, None, None], mu, (lower, upper), fixed_sum
            )
            trial = X[rows] + length[rows, None] * step
            result = f(trial, rows)
            before = F[rows] / scale + mu * _barrier(X[rows], lower, upper)
            after = result[0] / scale + mu * _barrier(trial, lower, upper)
            good = (after <= before + _ROUNDING) & _usable(*result)
            kept = rows[good]
            X[kept], F[kept], g[kept], H[kept] = trial[good], result[0][good], result[1][good], result[2][good]
            length[rows] = np.where(good, np.minimum(4 * length[rows], 1.0), 0.25 * length[rows])
            active[rows] = (promised > tolerance) & (length[rows] > _SHORTEST)
    return X, F


def _usable(F: Array, g: Array, H: Array) -> npt.NDArray[np.bool_]:
    return np.isfinite(F) & np.isfinite(g).all(1) & np.isfinite(H).all((1, 2))


def _barrier(X: Array, lower: Array, upper: Array) -> Array:
    return np.asarray(-(np.log((X - lower) / (upper - lower)) + np.log((upper - X) / (upper - lower))).sum(1))


def _step(
    X: Array, g: Array, H: Array, mu: float, bounds: tuple[Array, Array], fixed_sum: npt.NDArray[np.bool_]
) -> tuple[Array, Array]:
    """Return the Newton step within the bounds (K, P) and the decrease that it predicts (K,).

    Variables are scaled by their distance to the nearer bound, where the barrier's curvature is about mu for all.
    """
    below, above = X - bounds[0], bounds[1] - X
    near = np.minimum(below, above)
    slope = near * (g - mu / below + mu / above)
    P = X.shape[1]
    bend = near[:, :, None] * H * near[:, None, :]
    bend[:, np.arange(P), np.arange(P)] += mu * near**2 * (1 / below**2 + 1 / above**2)
    sound = np.asarray((np.abs(bend) < _LARGEST).all((1, 2)) & (np.abs(slope) < _LARGEST).all(1))  # others stay
    bend, slope = np.where(sound[:, None, None], bend, np.eye(P)), np.where(sound[:, None], slope, 0.0)
    across = np.where(fixed_sum, near, 0.0)
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-300)
    keep = np.eye(P) - across[:, :, None] * across[:, None, :]
    values, vectors = np.linalg.eigh(keep @ bend @ keep)
    slope = np.einsum("kpq,kq->kp", keep, slope)
    size = np.maximum(np.abs(values), 1e-13 * np.abs(values).max(1, keepdims=True) + 1e-300)
    along = np.einsum("kpq,kp->kq", vectors, slope)
    step = near * np.einsum("kpq,kq->kp", keep, -np.einsum("kpq,kq->kp", vectors, along / size))
    share = np.maximum(-step / below, step / above).max(1, keepdims=True)
    return step * np.minimum(1.0, _TO_THE_WALL / np.maximum(share, 1e-300)), 0.5 * (along**2 / size).sum(1)
