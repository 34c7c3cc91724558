"""Damped Newton steps with exact second derivatives, on stacks of problems: one skill, or several that share.

A problem's unknowns Q (K, P) are the log-parameters that the runs decide. Each part is one skill's runs under a law
whose log-parameters are q = Q T' + offset: pins are in the offset, shared log-parameters in T. Weak priors and pooling
add (Q - mean)' precision (Q - mean) / 2.
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
PATIENCE = 20  # steps in logarithms, which most problems end within, before steps in the terms themselves are tried too
_LONGEST = 2.0  # in any unknown: the longest step
_HIDDEN = 1e-9  # of F: a fall that steps can't find and rounding, or a kink, may hide
_ROUNDING = 1e-24  # F of exact data is rounding alone, some (1e-15)^2 a run
BLOCK = 10_000  # problems times runs worked on at once: they fit a cache, small enough for memory to be used again


@dataclass(frozen=True, kw_only=True)
class SkillBlock:
    """One skill's runs: ``responses`` (ln L, or L on the raw scale) and ``weights``, each (n,) or (K, n).

    ``T``: (p, P), ``offset``: (p,).
    """

    law: Law
    z: Covariates
    responses: Array
    weights: Array
    objective: Objective
    T: Array
    offset: Array

    def q(self, Q: Array) -> Array:
        """The law's log-parameters, (K, p)."""
        return Q @ self.T.T + self.offset

    def rows(self, rows: npt.NDArray[np.intp]) -> "SkillBlock":
        """The same for some of the K problems."""
        picked = {name: x[rows] for name in ("responses", "weights") if (x := getattr(self, name)).ndim == 2}
        return replace(self, **picked) if picked else self

    def block(self, problems: slice, runs: slice) -> "SkillBlock":
        """The same for some of the K problems and some of the runs, without a copy."""
        picked = {}
        for name in ("responses", "weights"):
            x = getattr(self, name)
            picked[name] = x[problems, runs] if x.ndim == 2 else x[runs]
        h = None if self.z.h is None else self.z.h[runs]
        return replace(self, z=Covariates(self.z.x[runs], self.z.y[runs], h), **picked)

    def errors(self, Q: Array) -> Array:
        """Responses less the law, (K, n), on the objective's scale."""
        with np.errstate(over="ignore", invalid="ignore"):
            told = self.law.log_loss(self.q(Q), self.z)
            return np.asarray(np.subtract(self.responses, np.exp(told) if self.objective.on == "raw" else told))


@dataclass(frozen=True, kw_only=True)
class FitProblem:
    """Parts that share unknowns, with a quadratic penalty (``mean`` (P,) or (K, P), ``precision`` (P, P))."""

    parts: tuple[SkillBlock, ...]
    mean: Array
    precision: Array

    def with_objectives(self, objectives: Sequence[Objective]) -> "FitProblem":
        """The same runs under other objectives, one a part."""
        pairs = zip(self.parts, objectives, strict=True)
        return replace(self, parts=tuple(replace(part, objective=one) for part, one in pairs))

    def rows(self, rows: npt.NDArray[np.intp]) -> "FitProblem":
        """The same for some of the K problems."""
        mean = self.mean[rows] if self.mean.ndim == 2 else self.mean
        return replace(self, parts=tuple(part.rows(rows) for part in self.parts), mean=mean)

    @property
    def logarithms(self) -> npt.NDArray[np.bool_]:
        """Which unknowns are logarithms of a law's terms or scales, (P,)."""
        named = [np.array([name.startswith("ln ") for name in part.law.log_names]) for part in self.parts]
        used = [(part.T[is_log] != 0).any(0) for part, is_log in zip(self.parts, named, strict=True)]
        return np.asarray(np.any(used, axis=0))

    def value(self, Q: Array) -> Array:
        """F with its penalty, (K,)."""
        K = len(Q)
        F = np.zeros(K)
        for part, problems in self._blocks(K):
            F[problems] += part.objective.total(part.errors(Q[problems]), part.weights)
        return np.asarray(F + 0.5 * np.einsum("kp,pq,kq->k", Q - self.mean, self.precision, Q - self.mean))

    def derivatives(self, Q: Array) -> tuple[Array, Array, Array]:
        """Gradient (K, P), Hessian (K, P, P), and the scale of each unknown (K, P)."""
        K, P = Q.shape
        gradient, H, square = np.zeros((K, P)), np.zeros((K, P, P)), np.zeros((K, P))
        for part, problems in self._blocks(K):
            own_gradient, own_H, own_square = _of_part(part, Q[problems])
            gradient[problems] += own_gradient
            H[problems] += own_H
            square[problems] += own_square
        gradient += (Q - self.mean) @ self.precision
        return gradient, H + self.precision, np.sqrt(square + np.diag(self.precision)) + 1e-150

    def _blocks(self, K: int) -> Iterator[tuple[SkillBlock, slice]]:
        """Every part, cut into blocks of problems and runs; F and its derivatives are sums over them."""
        for part in self.parts:
            n = len(part.z)
            if K * n <= BLOCK:
                yield part, slice(0, K)
                continue
            at_once = max(1, BLOCK // n)
            for first in range(0, K, at_once):
                problems = slice(first, min(first + at_once, K))
                for run in range(0, n, BLOCK):
                    yield part.block(problems, slice(run, run + BLOCK)), problems


def _of_part(part: SkillBlock, Q: Array) -> tuple[Array, Array, Array]:
    """One part's gradient, Hessian and squared scales."""
    jet = part.law.jet(part.q(Q), part.z)
    if part.objective.on == "raw":
        jet = exp(jet)
    K, n = len(Q), len(part.z)
    r, w = np.broadcast_to(part.responses - jet.value, (K, n)), np.broadcast_to(part.weights, (K, n))
    jac = np.zeros((K, 0, n)) if jet.jac is None else np.broadcast_to(jet.jac, (K, len(jet.support), n))
    slope, bend = w * part.objective.slope(r), w * part.objective.bend(r)
    T = part.T[list(jet.support)]
    own = (bend[:, None] * jac) @ np.swapaxes(jac, 1, 2) - jet.weighted_hessian(slope)
    return -(jac @ slope[..., None])[..., 0] @ T, T.T @ own @ T, (jac**2 @ w[..., None])[..., 0] @ T**2


def minimise(
    problem: FitProblem, Q: Array, *, max_steps: int = MAX_STEPS, enough: float = 0.0
) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Follow K starts to their minima at once.

    Negative curvature is taken by its absolute value, so that every step goes down; the damping of each problem grows
    where a step fails (at the kinks of the Huber loss) and shrinks where it holds. A problem is done when no step that
    the second derivatives propose lowers F any further.

    Where runs hardly tell E from the other terms, the valley of F is straight in E, A and B and bent in their
    logarithms, which would follow it in hundreds of short steps; so slow problems try both steps, and take the better.

    Args:
        problem: what to minimise.
        Q: starts, (K, P).
        max_steps: after which a problem counts as not converged.
        enough: a step that promises no larger a fall of F is the last.

    Returns:
        Q (K, P), F (K,), converged (K,): False where steps that promise to lower F keep failing.
    """
    Q = Q.copy()
    F = problem.value(Q)
    damping, live, done = np.full(len(Q), 1e-3), np.isfinite(F), np.zeros(len(Q), dtype=bool)
    for at in range(max_steps):
        rows = np.flatnonzero(live)
        if not len(rows):
            break
        some = problem.rows(rows)
        tried, F_tried, gain = _tried(some, Q[rows], damping[rows], slow=at >= PATIENCE)
        better = F_tried < F[rows]  # False for NaN as well
        settled = gain <= 1e-15 * F[rows] + 1e-300 + enough
        Q[rows[better]], F[rows[better]] = tried[better], F_tried[better]
        damping[rows] = np.where(better, np.maximum(damping[rows] / 8, 1e-12), damping[rows] * 6)
        stuck = damping[rows] > 1e10
        done[rows] |= settled | (stuck & (gain <= _HIDDEN * F[rows] + _ROUNDING))
        live[rows] = ~(done[rows] | stuck)
    return Q, F, done


def _tried(problem: FitProblem, Q: Array, damping: Array, *, slow: bool) -> tuple[Array, Array, Array]:
    """Where the next step leads (K, P), F there (K,), and the fall of F that the undamped quadratic model promises."""
    with np.errstate(over="ignore", invalid="ignore"):
        gradient, H, scale = problem.derivatives(Q)
    step, gain = _newton_step(gradient, H, scale, damping)
    tried = Q + step
    F = problem.value(tried)
    if not slow:
        return tried, F, gain
    other = Q + _step_in_terms(gradient, H, scale, damping, problem.logarithms)
    F_other = problem.value(other)
    better: Array = np.asarray(np.isnan(F) | (F_other < F))
    return np.where(better[:, None], other, tried), np.where(better, F_other, F), gain


def _step_in_terms(gradient: Array, H: Array, scale: Array, damping: Array, logarithms: npt.NDArray[np.bool_]) -> Array:
    """The damped step (K, P) of Newton's method in e^q in place of q, where q is a logarithm."""
    slope = gradient * logarithms
    step, _ = _newton_step(gradient, H - slope[:, :, None] * np.eye(len(logarithms)), scale, damping)
    # d e^q / e^q = step: a term that would turn negative shrinks instead, by no more than a step in logarithms may
    return np.where(logarithms, np.log1p(np.maximum(step, math.expm1(-_LONGEST))), step)


def _newton_step(gradient: Array, H: Array, scale: Array, damping: Array) -> tuple[Array, Array]:
    """The damped step (K, P), and the fall of F that the undamped quadratic model promises (K,)."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = H / (scale[:, :, None] * scale[:, None, :])
    lost: npt.NDArray[np.bool_] = ~np.asarray(np.isfinite(scaled).all((1, 2)) & np.isfinite(gradient).all(1))
    scaled[lost] = np.eye(H.shape[1])
    gradient = np.where(lost[:, None], 0.0, gradient)  # nowhere to go from here: such a problem gives up
    eigenvalues, vectors = np.linalg.eigh(scaled)
    # At a corner of the Huber loss (delta far below the noise) few points curve: a floor relative to the largest
    # eigenvalue keeps the step finite there.
    size = np.maximum(np.abs(eigenvalues), 1e-13)
    along = np.einsum("kpq,kp->kq", vectors, gradient / scale)
    step = -np.einsum("kpq,kq->kp", vectors, along / (size + damping[:, None])) / scale
    longest = np.abs(step).max(1, keepdims=True)
    gain = np.where(lost, np.inf, 0.5 * (along**2 / size).sum(1))
    return step / np.maximum(longest / _LONGEST, 1.0), gain
