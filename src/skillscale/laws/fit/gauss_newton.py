"""Steps from first derivatives, bent along the valley of F: they lead many starts near their minima at once.

In: a ``FitProblem`` of one block, and K starts. Out: positions near the minima, and which starts came near one.

The valley of F is long and curved where runs hardly separate E from the other terms. Two measures follow it in few
steps, where Newton steps take dozens. A step is one in the terms instead of their logarithms, and it is corrected for
how the law bends along it (geodesic acceleration, Transtrum & Sethna 2012). Without second derivatives a step is also
cheaper. ``newton.minimise`` goes on from there, where the last digits count.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from skillscale.laws.fit.newton import CHUNK, LONGEST, FitProblem, SkillBlock, move_in_terms
from skillscale.laws.forms.autodiff import exp
from skillscale.laws.forms.nd import Array

MAX_STEPS = 40  # most starts need fewer than 15
_PROBE = 0.1  # share of a step at which the bend of the law is measured
_MOST_BENT = 1.5  # twice the correction in units of the step, above which the step is taken without it
_ROUNDING = 1e-12  # of the scaled curvature
_DAMPING = 1e-4
_STUCK = 1e10


def approach_minima(
    problem: FitProblem, Q: Array, *, tolerance: float = 0.0, relative: float = 0.0, max_steps: int = MAX_STEPS
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Follow K starts towards their minima at once.

    Args:
        problem: problem of one block.
        Q: starts, (K, P).
        tolerance: predicted decrease of F at which to stop.
        relative: the same in units of F.
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
        done[rows] |= gain <= tolerance + relative * F[rows]
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
    if len(Q) <= per_chunk:
        return _take_step(problem, Q, damping)
    parts = []
    for first in range(0, len(Q), per_chunk):
        rows = np.arange(first, min(first + per_chunk, len(Q)))
        parts.append(_take_step(problem.rows(rows), Q[rows], damping[rows]))
    positions, gains, straight = zip(*parts, strict=True)
    return np.concatenate(positions), np.concatenate(gains), np.concatenate(straight)


def _take_step(problem: FitProblem, Q: Array, damping: Array) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    block, unit, logarithms = problem.blocks[0], np.eye(Q.shape[1]), problem.logarithms
    with np.errstate(over="ignore", invalid="ignore"):
        jac, T, errors = _linearise(block, Q)
        slopes = block.weights * block.objective.slope(errors)
        weighted = jac * np.broadcast_to(block.weights * block.objective.curvature(errors), errors.shape)[:, None]
        gradient = (Q - problem.mean) @ problem.precision - (jac @ slopes[..., None])[..., 0] @ T
        curvature = T.T @ (weighted @ np.swapaxes(jac, 1, 2)) @ T + problem.precision
        square = (jac**2 @ np.broadcast_to(block.weights, errors.shape)[..., None])[..., 0] @ T**2
        scale = np.sqrt(square + np.diag(problem.precision)) + 1e-150
        scaled, slope = curvature / (scale[:, :, None] * scale[:, None, :]), gradient / scale
    invalid = ~np.asarray(np.isfinite(scaled).all((1, 2)) & np.isfinite(slope).all(1))
    scaled[invalid], slope[invalid], scale[invalid] = unit, 0.0, 1.0  # no step is possible: such a problem stops
    undamped = np.linalg.solve(scaled + _ROUNDING * unit, slope[..., None])[..., 0]
    inverse = np.linalg.inv(scaled + damping[:, None, None] * unit)
    step = -np.einsum("kpq,kq->kp", inverse, slope) / scale
    with np.errstate(over="ignore", invalid="ignore"):
        probe = block.errors(move_in_terms(Q, _PROBE * step, logarithms))
        along = (np.swapaxes(jac, 1, 2) @ (step @ T.T)[..., None])[..., 0]
        bend = 2 / _PROBE * ((errors - probe) / _PROBE - along)
        pull = (weighted @ bend[..., None])[..., 0] @ T
        correction = -0.5 * np.einsum("kpq,kq->kp", inverse, pull / scale) / scale
        size, bent = (np.linalg.norm(move * scale, axis=1) for move in (step, correction))
        straight = np.asarray(2 * bent <= _MOST_BENT * size)
        step = np.where(straight[:, None], step + correction, step)
        step = step / np.maximum(np.abs(step).max(1, keepdims=True) / LONGEST, 1.0)
        gain = np.where(invalid, np.inf, 0.5 * (slope * undamped).sum(1))
        return move_in_terms(Q, step, logarithms), gain, straight


def _linearise(block: SkillBlock, Q: Array) -> tuple[Array, Array, Array]:
    """Return first derivatives of the law (K, s, n), the rows of T that they belong to (s, P), and errors (K, n)."""
    jet = block.law.jet(block.q(Q), block.z)
    if block.objective.on == "raw":
        jet = exp(jet)
    K, n = len(Q), len(block.z)
    jac = np.zeros((K, 0, n)) if jet.jac is None else np.broadcast_to(jet.jac, (K, len(jet.support), n))
    return jac, block.T[list(jet.support)], np.broadcast_to(block.responses - jet.value, (K, n))
