"""Damped Newton steps with exact second derivatives, on stacks of problems: one skill, or several with tied parameters.

In: a ``FitProblem`` and K starts. Out: K minima with their objective, and whether each converged.

The unknowns Q (K, P) of a problem are the log-parameters that the runs determine. Each block is one skill's runs under
a law whose log-parameters are q = Q T' + offset: fixed values are in the offset, tied log-parameters in T. Weak priors
and pooling add (Q - mean)' precision (Q - mean) / 2.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from skillscale.laws.fit.objective import Objective
from skillscale.laws.forms.autodiff import exp
from skillscale.laws.forms.nd import Array, Covariates, Law

MAX_STEPS = 1000
DAMPING = 1e-3
PATIENCE = 20  # steps in logarithms before steps in the terms are tried too; most problems finish earlier
LONGEST = 2.0  # longest step in any unknown
_HIDDEN = 1e-9  # relative decrease of F that rounding, or a kink, may hide
_ROUNDING = 1e-24  # F of exact data is only rounding, about (1e-15)^2 per run
CHUNK = 10_000  # problems times runs per chunk: small enough for the cache and for memory to be reused


@dataclass(frozen=True, kw_only=True)
class SkillBlock:
    """The runs of one skill: ``responses`` (ln L, or L on the raw scale) and ``weights``, each (n,) or (K, n).

    ``T``: (p, P). ``offset``: (p,).
    """

    law: Law
    z: Covariates
    responses: Array
    weights: Array
    objective: Objective
    T: Array
    offset: Array

    def q(self, Q: Array) -> Array:
        """Return the law's log-parameters, (K, p)."""
        return Q @ self.T.T + self.offset

    def rows(self, rows: npt.NDArray[np.intp]) -> "SkillBlock":
        """Return the block for some of the K problems."""
        picked = {name: x[rows] for name in ("responses", "weights") if (x := getattr(self, name)).ndim == 2}
        return replace(self, **picked) if picked else self

    def chunk(self, problems: slice, runs: slice) -> "SkillBlock":
        """Return the block for some of the K problems and some of the runs, without a copy."""
        picked = {}
        for name in ("responses", "weights"):
            x = getattr(self, name)
            picked[name] = x[problems, runs] if x.ndim == 2 else x[runs]
        h = None if self.z.h is None else self.z.h[runs]
        return replace(self, z=Covariates(self.z.x[runs], self.z.y[runs], h), **picked)

    def errors(self, Q: Array) -> Array:
        """Return responses minus the law, (K, n), on the objective's scale."""
        with np.errstate(over="ignore", invalid="ignore"):
            log_loss = self.law.log_loss(self.q(Q), self.z)
            return np.asarray(np.subtract(self.responses, np.exp(log_loss) if self.objective.on == "raw" else log_loss))


@dataclass(frozen=True, kw_only=True)
class FitProblem:
    """Blocks that share unknowns, and a quadratic penalty: ``mean`` (P,) or (K, P), ``precision`` (P, P)."""

    blocks: tuple[SkillBlock, ...]
    mean: Array
    precision: Array

    def with_objectives(self, objectives: Sequence[Objective]) -> "FitProblem":
        """Return the same problem with other objectives, one per block."""
        pairs = zip(self.blocks, objectives, strict=True)
        return replace(self, blocks=tuple(replace(block, objective=objective) for block, objective in pairs))

    def rows(self, rows: npt.NDArray[np.intp]) -> "FitProblem":
        """Return the problem for some of the K rows."""
        mean = self.mean[rows] if self.mean.ndim == 2 else self.mean
        return replace(self, blocks=tuple(block.rows(rows) for block in self.blocks), mean=mean)

    @property
    def logarithms(self) -> npt.NDArray[np.bool_]:
        """Mask of the unknowns that are logarithms of a law's terms or scales, (P,)."""
        named = [np.array([name.startswith("ln ") for name in block.law.log_names]) for block in self.blocks]
        used = [(block.T[is_log] != 0).any(0) for block, is_log in zip(self.blocks, named, strict=True)]
        return np.asarray(np.any(used, axis=0))

    def value(self, Q: Array) -> Array:
        """Return F with its penalty, (K,)."""
        K = len(Q)
        F = np.zeros(K)
        for block, problems in self._chunks(K):
            F[problems] += block.objective.total(block.errors(Q[problems]), block.weights)
        return np.asarray(F + 0.5 * np.einsum("kp,pq,kq->k", Q - self.mean, self.precision, Q - self.mean))

    def derivatives(self, Q: Array) -> tuple[Array, Array, Array]:
        """Return gradient (K, P), Hessian (K, P, P), and the scale of each unknown (K, P)."""
        K, P = Q.shape
        gradient, H, square = np.zeros((K, P)), np.zeros((K, P, P)), np.zeros((K, P))
        for block, problems in self._chunks(K):
            block_gradient, block_H, block_square = _block_derivatives(block, Q[problems])
            gradient[problems] += block_gradient
            H[problems] += block_H
            square[problems] += block_square
        gradient += (Q - self.mean) @ self.precision
        return gradient, H + self.precision, np.sqrt(square + np.diag(self.precision)) + 1e-150

    def _chunks(self, K: int) -> Iterator[tuple[SkillBlock, slice]]:
        """Yield every block in chunks of problems and runs. F and its derivatives are sums over the chunks."""
        for block in self.blocks:
            n = len(block.z)
            if K * n <= CHUNK:
                yield block, slice(0, K)
                continue
            per_chunk = max(1, CHUNK // n)
            for first in range(0, K, per_chunk):
                problems = slice(first, min(first + per_chunk, K))
                for run in range(0, n, CHUNK):
                    yield block.chunk(problems, slice(run, run + CHUNK)), problems


def _block_derivatives(block: SkillBlock, Q: Array) -> tuple[Array, Array, Array]:
    """Return gradient, Hessian and squared scales of one block."""
    jet = block.law.jet(block.q(Q), block.z)
    if block.objective.on == "raw":
        jet = exp(jet)
    K, n = len(Q), len(block.z)
    r, w = np.broadcast_to(block.responses - jet.value, (K, n)), np.broadcast_to(block.weights, (K, n))
    jac = np.zeros((K, 0, n)) if jet.jac is None else np.broadcast_to(jet.jac, (K, len(jet.support), n))
    slope, curvature = w * block.objective.slope(r), w * block.objective.curvature(r)
    T = block.T[list(jet.support)]
    hessian = (curvature[:, None] * jac) @ np.swapaxes(jac, 1, 2) - jet.weighted_hessian(slope)
    return -(jac @ slope[..., None])[..., 0] @ T, T.T @ hessian @ T, (jac**2 @ w[..., None])[..., 0] @ T**2


def minimise(
    problem: FitProblem, Q: Array, *, max_steps: int = MAX_STEPS, tolerance: float = 0.0, damping: float = DAMPING
) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Follow K starts to their minima at once.

    Negative curvature enters by its absolute value, so every step goes down. The damping of a problem grows where a
    step fails (at the kinks of the Huber loss) and shrinks where it succeeds. A problem is done when no step from the
    second derivatives lowers F any further.

    Where runs hardly separate E from the other terms, the valley of F is straight in E, A and B and curved in their
    logarithms. Steps in logarithms would follow it in hundreds of short moves. So slow problems try both steps and
    take the better.

    Args:
        problem: problem to minimise.
        Q: starts, (K, P).
        max_steps: steps after which a problem counts as not converged.
        tolerance: predicted decrease of F at which to stop.
        damping: of the first step; less where the starts are near their minima.

    Returns:
        Q (K, P), F (K,), converged (K,): False where predicted decreases of F keep failing.
    """
    Q = Q.copy()
    F = problem.value(Q)
    dampings, active, done = np.full(len(Q), damping), np.isfinite(F), np.zeros(len(Q), dtype=bool)
    for at in range(max_steps):
        rows = np.flatnonzero(active)
        if not len(rows):
            break
        subproblem = problem.rows(rows)
        trial, F_trial, gain = _take_step(subproblem, Q[rows], dampings[rows], slow=at >= PATIENCE)
        better = F_trial < F[rows]  # False for NaN too
        settled = gain <= 1e-15 * F[rows] + 1e-300 + tolerance
        Q[rows[better]], F[rows[better]] = trial[better], F_trial[better]
        dampings[rows] = np.where(better, np.maximum(dampings[rows] / 8, 1e-12), dampings[rows] * 6)
        stuck = dampings[rows] > 1e10
        done[rows] |= settled | (stuck & (gain <= _HIDDEN * F[rows] + _ROUNDING))
        active[rows] = ~(done[rows] | stuck)
    return Q, F, done


def _take_step(problem: FitProblem, Q: Array, damping: Array, *, slow: bool) -> tuple[Array, Array, Array]:
    """Return the next position (K, P), F there (K,), and the decrease that the undamped quadratic model predicts."""
    with np.errstate(over="ignore", invalid="ignore"):
        gradient, H, scale = problem.derivatives(Q)
    step, gain = _newton_step(gradient, H, scale, damping)
    trial = Q + step
    F = problem.value(trial)
    if not slow:
        return trial, F, gain
    other = Q + _step_in_terms(gradient, H, scale, damping, problem.logarithms)
    F_other = problem.value(other)
    better: Array = np.asarray(np.isnan(F) | (F_other < F))
    return np.where(better[:, None], other, trial), np.where(better, F_other, F), gain


def _step_in_terms(gradient: Array, H: Array, scale: Array, damping: Array, logarithms: npt.NDArray[np.bool_]) -> Array:
    """Return the damped Newton step (K, P) in e^q instead of q, for the q that are logarithms."""
    slope = gradient * logarithms
    step, _ = _newton_step(gradient, H - slope[:, :, None] * np.eye(len(logarithms)), scale, damping)
    return move_in_terms(np.zeros_like(step), step, logarithms)


def move_in_terms(Q: Array, step: Array, logarithms: npt.NDArray[np.bool_]) -> Array:
    """Return Q (K, P) after a step d e^q / e^q in the terms whose logarithms it holds, and dq in the other unknowns."""
    # A term that would turn negative shrinks instead, by no more than a step in logarithms may
    return Q + np.where(logarithms, np.log1p(np.maximum(step, math.expm1(-LONGEST))), step)


def _newton_step(gradient: Array, H: Array, scale: Array, damping: Array) -> tuple[Array, Array]:
    """Return the damped step (K, P) and the decrease that the undamped quadratic model predicts (K,)."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = H / (scale[:, :, None] * scale[:, None, :])
    invalid: npt.NDArray[np.bool_] = ~np.asarray(np.isfinite(scaled).all((1, 2)) & np.isfinite(gradient).all(1))
    scaled[invalid] = np.eye(H.shape[1])
    gradient = np.where(invalid[:, None], 0.0, gradient)  # no step is possible: such a problem stops
    eigenvalues, vectors = np.linalg.eigh(scaled)
    # At a corner of the Huber loss (delta far below the noise) few points curve: a floor relative to the largest
    # eigenvalue keeps the step finite there.
    size = np.maximum(np.abs(eigenvalues), 1e-13)
    along = np.einsum("kpq,kp->kq", vectors, gradient / scale)
    step = -np.einsum("kpq,kq->kp", vectors, along / (size + damping[:, None])) / scale
    longest = np.abs(step).max(1, keepdims=True)
    gain = np.where(invalid, np.inf, 0.5 * (along**2 / size).sum(1))
    return step / np.maximum(longest / LONGEST, 1.0), gain
