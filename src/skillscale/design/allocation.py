"""The plan: how often to run each candidate, so that the targets become certain for what is left to spend."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from skillscale.laws.forms.nd import Array

ROUNDS = 60
_POWER = 0.7  # of the multiplicative step; 1 swings
_TILT = 0.5  # how fast the price moves to the tighter of the two limits
_EDGE = 1e-3  # least price of either limit


@dataclass(frozen=True, kw_only=True)
class SkillInformation:
    """One skill's part of the plan.

    ``M``: information, that of runs under way included, (P, P); ``b``: rows of the candidates over the noise,
    (n_candidates, P); ``gradients``: of the quantities asked, (T, P); ``now``: their variances without the runs under
    way, (T,).
    """

    M: Array
    b: Array
    gradients: Array
    now: Array

    @classmethod
    def silent(cls, n_candidates: int, n_places: int) -> Self:
        """Of a skill about which no run would tell anything yet."""
        return cls(
            M=np.eye(n_places), b=np.zeros((n_candidates, n_places)), gradients=np.eye(n_places), now=np.ones(n_places)
        )

    def after(self, counts: Array) -> tuple[Array, Array]:
        """Variances (T,) once the candidates have run so often, and (n_candidates, T) squared pulls on them."""
        S = np.linalg.solve(self.M + self.b.T @ (self.b * counts[:, None]), self.gradients.T)
        return np.einsum("tp,pt->t", self.gradients, S), (self.b @ S) ** 2


@dataclass(frozen=True, kw_only=True)
class AllocationProblem:
    """What to make certain: ``combine`` (n_targets, quantities of all questions) adds variances up; ``weights``.

    ``total``: whether their mean variance counts, as for a mean squared error, and not their mean ln sd.
    """

    questions: Sequence[SkillInformation]
    combine: Array
    weights: Array
    total: bool = False

    @property
    def now(self) -> Array:
        """Variances of the targets by the finished runs alone, (n_targets,)."""
        return np.asarray(self.combine @ np.concatenate([one.now for one in self.questions]))

    def variances(self, counts: Array) -> tuple[Array, Array]:
        """Of the targets (n_targets,), and the candidates' pulls (n_candidates, n_targets)."""
        pairs = [one.after(counts) for one in self.questions]
        return (
            self.combine @ np.concatenate([variance for variance, _ in pairs]),
            np.hstack([pull for _, pull in pairs]) @ self.combine.T,
        )

    def value(self, counts: Array) -> float:
        """Weighted mean of the targets' ln sd; of all together by their mean variance."""
        variance, share = self.variances(counts)[0], self.weights / self.weights.sum()
        return float(0.5 * np.log(share @ variance) if self.total else 0.5 * np.log(variance) @ share)

    def worth(self, variance: Array) -> Array:
        """What a unit of each target's variance counts, (n_targets,)."""
        share = self.weights / self.weights.sum()
        return np.asarray(share / (share @ variance) if self.total else share / variance)


def allocate_runs(
    problem: AllocationProblem, cost: Array, *, left: float, runs: float, most: float | Array = math.inf
) -> Array:
    """Counts (n_candidates,) that minimise the value of the problem within ``left`` FLOPs and ``runs`` runs.

    No candidate counts for more than ``most``, of each (n_candidates,) or of all.

    Multiplicative steps (Titterington 1976) on gain per price; the price is a mixture of both limits' that moves to the
    tighter one.
    """
    w, tilt, most = np.full(len(cost), 1.0), 0.5, np.broadcast_to(np.asarray(most, dtype=float), cost.shape)
    for _ in range(ROUNDS):
        price = (1 - tilt) * cost / left + tilt / runs
        w = _within(w, price, most)
        variance, pull = problem.variances(w)
        gain = pull @ problem.worth(variance) / price
        if not gain.any():  # no run would tell anything: none is better than another
            break
        w = w * (gain / max(float(w @ (price * gain)), 1e-300)) ** _POWER
        tighter = math.log(max(float(w.sum()) / runs, _EDGE)) - math.log(max(float(w @ cost) / left, _EDGE))
        odds = math.log(tilt / (1 - tilt)) + _TILT * min(max(tighter, -2.0), 2.0)
        tilt = min(max(1 / (1 + math.exp(-odds)), _EDGE), 1 - _EDGE)
    w = _within(w, cost / left, most)
    return w if w.sum() <= runs else _within(w, np.full(len(w), 1 / runs), most)


def _within(w: Array, price: Array, most: Array) -> Array:
    """Counts in proportion to ``w`` but for those that reach ``most``, for a total price of 1 or all there is."""
    full = np.zeros(len(w), dtype=bool)
    while True:
        left = 1.0 - float((most * price)[full].sum())
        scaled = np.where(full, most, w * (left / max(float((w * price)[~full].sum()), 1e-300)))
        beyond = ~full & (scaled > most)
        if not beyond.any():
            return np.asarray(scaled)
        full |= beyond
