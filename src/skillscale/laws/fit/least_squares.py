"""Least squares for a thousand resamples at once: steps from first derivatives, bent along the valley of F.

In: a ``FitProblem`` of one block with least squares on ln L, and K starts. Out: minima, and which starts reached one.

The second derivatives of ``newton`` cost three times as much, and hardly matter where a law can follow the responses.
The valley of F is long and curved where runs hardly separate E from the other terms. Two measures follow it in few
steps: a step is one in the terms instead of their logarithms, and it is corrected for how the law bends along it
(geodesic acceleration, Transtrum & Sethna 2012).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from skillscale.laws.fit.newton import CHUNK, LONGEST, FitProblem, move_in_terms
from skillscale.laws.forms.nd import Array

MAX_STEPS = 40  # most resamples take 8
_PROBE = 0.1  # share of a step at which the bend of the law is measured
_MOST_BENT = 1.5  # correction in units of the step above which the step is taken without it
_ROUNDING = 1e-12  # of the scaled curvature
_DAMPING = 1e-3
_STUCK = 1e10


def minimise_squares(
    problem: FitProblem, Q: Array, *, tolerance: float, max_steps: int = MAX_STEPS
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Follow K starts towards their minima at once.

    Args:
        problem: problem of one block with least squares on ln L, and weights that all resamples share, (n,).
        Q: starts, (K, P).
        tolerance: predicted decrease of F at which to stop.
        max_steps: steps after which a start is given up.

    Returns:
        Q (K, P), and whether the predicted decrease became less than the tolerance (K,).
    """
    Q, F = Q.copy(), problem.value(Q)
    damping, active, done = np.full(len(Q), _DAMPING), np.isfinite(F), np.zeros(len(Q), dtype=bool)
    for _ in range(max_steps):
        rows = np.flatnonzero(active)
        if not len(rows):
            break
        subproblem = problem.rows(rows)
        trial, gain, straight = _take_steps(subproblem, Q[rows], damping[rows])
        F_trial = subproblem.value(trial)
        better = F_trial < F[rows]  # False for NaN too
        Q[rows[better]], F[rows[better]] = trial[better], F_trial[better]
        relaxed = np.where(straight, np.maximum(damping[rows] / 8, _ROUNDING), damping[rows])
        damping[rows] = np.where(better, relaxed, damping[rows] * 5)
        done[rows] |= gain <= tolerance
        active[rows] = ~done[rows] & (damping[rows] < _STUCK)
    return Q, done


def nearest_start(problem: FitProblem, starts: Sequence[Array]) -> Array:
    """Return for each of the K problems the start with the least F, (K, P), of several stacks (K, P)."""
    F = np.array([problem.value(Q) for Q in starts])
    best = np.where(np.isfinite(F), F, np.inf).argmin(0)
    return np.asarray(np.stack(starts)[best, np.arange(len(best))])


def _take_steps(problem: FitProblem, Q: Array, damping: Array) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Return positions (K, P), predicted decreases (K,), and whether the law bends little along a step (K,)."""
    per_chunk = max(1, CHUNK // len(problem.blocks[0].z))
    parts = []
    for first in range(0, len(Q), per_chunk):
        rows = np.arange(first, min(first + per_chunk, len(Q)))
        parts.append(_take_step(problem.rows(rows), Q[rows], damping[rows]))
    positions, gains, straight = zip(*parts, strict=True)
    return np.concatenate(positions), np.concatenate(gains), np.concatenate(straight)


def _take_step(problem: FitProblem, Q: Array, damping: Array) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    block = problem.blocks[0]
    with np.errstate(over="ignore", invalid="ignore"):
        jet = block.law.jet(block.q(Q), block.z)
        jac = np.zeros((len(Q), 0, len(block.z))) if jet.jac is None else jet.jac
        T, errors = block.T[list(jet.support)], block.responses - jet.value
        weighted = jac * block.weights
        gradient = (Q - problem.mean) @ problem.precision - (weighted @ errors[..., None])[..., 0] @ T
        curvature = T.T @ (weighted @ np.swapaxes(jac, 1, 2)) @ T + problem.precision
        scale = np.sqrt(np.einsum("kpp->kp", curvature)) + 1e-150
        scaled, slope = curvature / (scale[:, :, None] * scale[:, None, :]), gradient / scale
    invalid = ~np.asarray(np.isfinite(scaled).all((1, 2)) & np.isfinite(slope).all(1))
    unit = np.eye(Q.shape[1])
    scaled[invalid], slope[invalid], scale[invalid] = unit, 0.0, 1.0  # no step is possible: such a problem stops
    newton = np.linalg.solve(scaled + _ROUNDING * unit, slope[..., None])[..., 0]
    inverse = np.linalg.inv(scaled + damping[:, None, None] * unit)
    step = -np.einsum("kpq,kq->kp", inverse, slope) / scale
    with np.errstate(over="ignore", invalid="ignore"):
        probe = block.errors(move_in_terms(Q, _PROBE * step, problem.logarithms))
        along = (np.swapaxes(jac, 1, 2) @ (step @ T.T)[..., None])[..., 0]
        bend = 2 / _PROBE * ((errors - probe) / _PROBE - along)
        pull = (weighted @ bend[..., None])[..., 0] @ T
        correction = -0.5 * np.einsum("kpq,kq->kp", inverse, pull / scale) / scale
        size, bent = (np.linalg.norm(move * scale, axis=1) for move in (step, correction))
        straight = np.asarray(2 * bent <= _MOST_BENT * size)
        step = np.where(straight[:, None], step + correction, step)
        step = step / np.maximum(np.abs(step).max(1, keepdims=True) / LONGEST, 1.0)
        gain = np.where(invalid, np.inf, 0.5 * (slope * newton).sum(1))
        return move_in_terms(Q, step, problem.logarithms), gain, straight
