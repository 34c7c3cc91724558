"""Optimal allocation: how often to run each candidate so that the targets become precise within a budget."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from skillscale.laws.forms.nd import Array

ITERATIONS = 60
_POWER = 0.7  # exponent of the multiplicative step; 1 oscillates
_TILT_RATE = 0.5  # how fast the price moves to the tighter of the two limits
_LEAST_TILT = 1e-3  # smallest share of the price for either limit


@dataclass(frozen=True, kw_only=True)
class SkillInformation:
    """Information on one skill's quantities, as one Gaussian.

    ``M``: information matrix, runs under way included, (P, P). ``b``: rows of the candidates in units of the noise,
    (n_candidates, P). ``gradients``: of the quantities, (T, P). ``current_variances``: of the quantities without the
    runs under way, (T,).
    """

    M: Array
    b: Array
    gradients: Array
    current_variances: Array

    @classmethod
    def uninformative(cls, n_candidates: int, n_quantities: int) -> Self:
        """Return the value for a skill about which no run is informative yet."""
        return cls(
            M=np.eye(n_quantities), b=np.zeros((n_candidates, n_quantities)), gradients=np.eye(n_quantities),
            current_variances=np.ones(n_quantities),
        )  # fmt: skip

    def variances_after(self, counts: Array) -> tuple[Array, Array]:
        """Return variances (T,) after ``counts`` runs of the candidates, and squared sensitivities (n_candidates, T).

        One more run of a candidate lowers a variance in proportion to its squared sensitivity.
        """
        S = np.linalg.solve(self.M + self.b.T @ (self.b * counts[:, None]), self.gradients.T)
        return np.einsum("tp,pt->t", self.gradients, S), (self.b @ S) ** 2


@dataclass(frozen=True, kw_only=True)
class AllocationProblem:
    """Targets to make precise.

    ``information``: of each skill. ``combine``: how variances of all skills' quantities add up to those of the targets,
    (n_targets, n_quantities). ``weights``: of the targets, (n_targets,). ``by_mean_variance``: minimise the targets'
    mean variance, as for a mean squared error, instead of their mean ln sd.
    """

    information: Sequence[SkillInformation]
    combine: Array
    weights: Array
    by_mean_variance: bool = False

    @property
    def current_variances(self) -> Array:
        """Variances of the targets after the finished runs alone, (n_targets,)."""
        return np.asarray(self.combine @ np.concatenate([part.current_variances for part in self.information]))

    def variances(self, counts: Array) -> tuple[Array, Array]:
        """Return variances of the targets (n_targets,) and squared sensitivities (n_candidates, n_targets)."""
        pairs = [part.variances_after(counts) for part in self.information]
        return (
            self.combine @ np.concatenate([variance for variance, _ in pairs]),
            np.hstack([pull for _, pull in pairs]) @ self.combine.T,
        )

    def objective(self, counts: Array) -> float:
        """Return the weighted mean ln sd of the targets, or half the ln of their weighted mean variance."""
        variance, share = self.variances(counts)[0], self.weights / self.weights.sum()
        return float(0.5 * np.log(share @ variance) if self.by_mean_variance else 0.5 * np.log(variance) @ share)

    def objective_slopes(self, variance: Array) -> Array:
        """Return twice the derivative of the objective by each target's variance, (n_targets,)."""
        share = self.weights / self.weights.sum()
        return np.asarray(share / (share @ variance) if self.by_mean_variance else share / variance)


def allocate_runs(
    problem: AllocationProblem,
    cost: Array,
    *,
    budget: float,
    max_runs: float,
    max_count: float | Array = math.inf,
) -> Array:
    """Return the counts (n_candidates,) that minimise the problem's objective.

    The algorithm takes multiplicative steps (Titterington 1976) on gain per price. The price mixes the cost in FLOP and
    the count of runs, and moves to the tighter of the two limits.

    Args:
        problem: targets and the knowledge about them.
        cost: FLOP of a run of each candidate, (n_candidates,).
        budget: FLOP for all runs.
        max_runs: largest number of runs in all.
        max_count: largest count of a candidate, a number or (n_candidates,).
    """
    counts, tilt = np.full(len(cost), 1.0), 0.5
    max_count = np.broadcast_to(np.asarray(max_count, dtype=float), cost.shape)
    for _ in range(ITERATIONS):
        price = (1 - tilt) * cost / budget + tilt / max_runs
        counts = _scaled_to_price(counts, price, max_count)
        variance, pull = problem.variances(counts)
        gain = pull @ problem.objective_slopes(variance) / price
        if not gain.any():  # no run is informative: all candidates are equal
            break
        counts = counts * (gain / max(float(counts @ (price * gain)), 1e-300)) ** _POWER
        tighter = math.log(max(float(counts.sum()) / max_runs, _LEAST_TILT)) - math.log(
            max(float(counts @ cost) / budget, _LEAST_TILT)
        )
        odds = math.log(tilt / (1 - tilt)) + _TILT_RATE * min(max(tighter, -2.0), 2.0)
        tilt = min(max(1 / (1 + math.exp(-odds)), _LEAST_TILT), 1 - _LEAST_TILT)
    counts = _scaled_to_price(counts, cost / budget, max_count)
    return counts if counts.sum() <= max_runs else _scaled_to_price(counts, np.full(len(cost), 1 / max_runs), max_count)


def _scaled_to_price(counts: Array, price: Array, max_count: Array) -> Array:
    """Scale the counts to a total price of 1; those that reach ``max_count`` stay there."""
    full = np.zeros(len(counts), dtype=bool)
    while True:
        remaining = 1.0 - float((max_count * price)[full].sum())
        scaled = np.where(full, max_count, counts * (remaining / max(float((counts * price)[~full].sum()), 1e-300)))
        beyond = ~full & (scaled > max_count)
        if not beyond.any():
            return np.asarray(scaled)
        full |= beyond
