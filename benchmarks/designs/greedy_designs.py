"""Greedy designs: one run after the other, each with the largest gain of a criterion per cost^0.4.

Each rests on one law a skill and its curvature at the fit. ``d-optimal``: the determinant of the information on the
law's parameters. ``v-optimal``: the variance of the predicted ln L, averaged over the space. ``mspe``: the same in each
basin in which one of many starts of the fit ends, and between the basins. That is the multi-basin criterion of "Spend
Less, Fit Better" (arXiv 2604.22753) by its description; each skill counts separately.
"""

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from designs.one_law import fit_one_law
from skillscale.design.propose import DesignGoal
from skillscale.design.space import DesignSpace, RunHistory
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.fit import FitResult
from skillscale.laws.fit.newton import minimise
from skillscale.laws.forms.nd import Array, Law
from skillscale.simulation.baselines import FixedDesign, Maker, largest, spread
from skillscale.simulation.replay import NO_RUNS, Runs

START = 10  # Sobol points before the first choice: the least for a law of seven parameters
START_SHARE = 0.1  # largest cost of a run of the start, in largest runs
COST_POWER = 0.4  # power of the cost by which a gain is divided
STARTS = 16
BASIN_DISTANCE = 0.1  # least distance of two basins in some log-parameter
LEAST_NOISE = 1e-3  # in ln L: the residuals of few runs underestimate the noise
_MAX_DEVIANCE = 6.0  # of -2 ln likelihood, beyond which a basin is dropped
_STEPS = 9


class DesignCriterion(StrEnum):
    """Criterion of a greedy design."""

    D_OPTIMAL = "d-optimal"
    V_OPTIMAL = "v-optimal"
    MSPE = "mspe"


@dataclass(frozen=True, kw_only=True)
class GreedyDesign:
    """Runs by a criterion, after a start of Sobol points; runs under way count as made."""

    space: DesignSpace = field(repr=False)
    criterion: DesignCriterion
    start: FixedDesign = field(repr=False)

    def next_runs(self, history: RunHistory, budget: float, count: int, rng: np.random.Generator) -> Runs:
        """Return the best affordable runs of a lattice that is shifted at random at each call."""
        if len(history) < START:
            return self.start.next_runs(history, budget, min(count, START - len(history)), rng)
        models = [model for skill in history.skills if (model := self._model(history, skill))]
        N, D, h = self._lattice(rng.uniform(-0.5, 0.5, 2))
        if not models:
            return self.start.next_runs(history, budget, count, rng)
        covariances = [model.covariance_at((N, D, h), self._lattice((0.0, 0.0))) for model in models]
        cost, chosen = self.space.cost(N, D), list[int]()
        while len(chosen) < count and (affordable := cost <= budget).any():
            gain = sum((covariance.gain(self.criterion) for covariance in covariances), np.zeros(len(N)))
            at = int(np.argmax(np.where(affordable, gain / cost**COST_POWER, -np.inf)))
            covariances = [covariance.after(at) for covariance in covariances]
            budget -= float(cost[at])
            chosen.append(at)
        return (N[chosen], D[chosen], None if h is None else h[chosen]) if chosen else NO_RUNS

    def _lattice(self, shift: tuple[float, float] | Array) -> tuple[Array, Array, Array | None]:
        N, D = self.space.lattice(tuple(map(float, shift)), steps=_STEPS)
        if self.space.mixes is None:
            return N, D, None
        h = np.repeat(self.space.mixes, len(N), axis=0)
        N, D = np.tile(N, self.space.n_mixes), np.tile(D, self.space.n_mixes)
        fits = self.space.allows(N, D, h)
        return N[fits], D[fits], h[fits]

    def _model(self, history: RunHistory, skill: str) -> "_Model | None":
        result = fit_one_law(history, self.space, skill)
        if result is None:
            return None
        fit, points = result
        Q, weights = _basins(fit, points) if self.criterion is DesignCriterion.MSPE else (fit.q[None], np.ones(1))
        noise = max(fit.noise, LEAST_NOISE)
        h = None if history.h is None or not fit.law.needs_mix else history.h
        jac = fit.law.jacobian(Q, fit.law.covariates(history.N, history.D, h))
        free = list(fit.free)
        prior = fit.prior[1] + 1e-6 * np.eye(len(free))
        information = np.einsum("knp,knq->kpq", jac[..., free], jac[..., free]) / noise**2 + prior
        return _Model(law=fit.law, Q=Q, weights=weights, free=free, covariance=np.linalg.inv(information), noise=noise)


def _basins(fit: FitResult, points: RunData) -> tuple[Array, Array]:
    """Return the optima (K, p) in which many starts end, and their shares of the likelihood."""
    problem = fit.build_problem(points)
    seeds = fit.law.seeds(points.covariates(fit.law), points.log_L, np.asarray(points.weights))[:, list(fit.free)]
    with np.errstate(over="ignore", invalid="ignore"):
        F = problem.value(seeds)
    F = np.where(np.isfinite(F), F, np.inf)
    order = np.argsort(F)[: 20 * STARTS : 20]
    Q, F, _ = minimise(problem, np.vstack([fit.q[list(fit.free)], seeds[order]]), max_steps=60)
    kept: list[int] = []
    for at in np.argsort(F):
        near = any(np.abs(Q[at] - Q[other]).max() < BASIN_DISTANCE for other in kept)
        if np.isfinite(F[at]) and not near and F[at] - F[kept[0] if kept else at] <= _MAX_DEVIANCE / 2 * fit.phi:
            kept.append(int(at))
    weights = np.exp(-(F[kept] - F[kept[0]]) / fit.phi)
    return problem.blocks[0].q(Q[kept]), weights / weights.sum()


@dataclass(frozen=True, kw_only=True)
class _Model:
    """A skill's law in K basins.

    ``Q``: log-parameters, (K, p). ``weights``: shares of the likelihood, (K,). ``covariance``: of the free parameters,
    (K, P, P). ``noise``: sd of a run.
    """

    law: Law
    Q: Array
    weights: Array
    free: list[int]
    covariance: Array
    noise: float

    def covariance_at(self, candidates: Runs, places: Runs) -> "CandidateCovariance":
        """Return the covariance of ln L at candidates and at places of the space."""
        here, there = (self.law.covariates(N, D, h if self.law.needs_mix else None) for N, D, h in (candidates, places))
        return CandidateCovariance.of(
            self.weights, self.noise, self.covariance,
            (self.law.jacobian(self.Q, here)[..., self.free], self.law.jacobian(self.Q, there)[..., self.free]),
            (self.law.log_loss(self.Q, here), self.law.log_loss(self.Q, there)),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CandidateCovariance:
    """Covariance of a skill's ln L at candidates and at places of the space.

    ``mutual``: between candidates in each of K basins, (K, n, n). ``across``: between m places and the candidates,
    (K, m, n). ``between`` (n, n), ``between_across`` (m, n): the same for the basins' predictions about their mean.
    """

    weights: Array
    noise: float
    mutual: Array
    across: Array
    between: Array
    between_across: Array

    @classmethod
    def of(
        cls,
        weights: Array,
        noise: float,
        covariance: Array,
        rows: tuple[Array, Array],
        predictions: tuple[Array, Array],
    ) -> "CandidateCovariance":
        """Build the value from the model's basins.

        Args:
            weights: shares of the basins, (K,).
            noise: sd of a run.
            covariance: covariance of each basin's parameters, (K, P, P).
            rows: derivatives at candidates (K, n, P) and at places of the space (K, m, P).
            predictions: ln L at both, (K, n) and (K, m).
        """
        g, r = rows
        f, F = (np.sqrt(weights)[:, None] * (x - weights @ x) for x in predictions)
        half = g @ covariance
        return cls(
            weights=weights, noise=noise, mutual=half @ np.swapaxes(g, 1, 2), across=r @ np.swapaxes(half, 1, 2),
            between=f.T @ f, between_across=F.T @ f,
        )  # fmt: skip

    def gain(self, criterion: DesignCriterion) -> Array:
        """Return the gain of each candidate, (n,)."""
        variances = np.einsum("knn->kn", self.mutual)
        if criterion is DesignCriterion.D_OPTIMAL:
            return np.asarray(self.weights @ np.log1p(variances / self.noise**2))
        within = self.weights @ ((self.across**2).mean(1) / (variances + self.noise**2))
        if criterion is DesignCriterion.V_OPTIMAL:
            return np.asarray(within)
        spread = np.diag(self.between) + self.noise**2
        return np.asarray(within + (self.between_across**2).mean(0) / spread)

    def after(self, at: int) -> "CandidateCovariance":
        """Return the covariance after a run of candidate number ``at``."""
        step = self.mutual[:, :, at] / (self.mutual[:, at, at] + self.noise**2)[:, None]
        share = self.between[:, at] / (self.between[at, at] + self.noise**2)
        return CandidateCovariance(
            weights=self.weights, noise=self.noise,
            mutual=self.mutual - step[:, :, None] * self.mutual[:, None, :, at],
            across=self.across - self.across[:, :, at, None] * step[:, None, :],
            between=self.between - np.outer(share, self.between[at]),
            between_across=self.between_across - np.outer(self.between_across[:, at], share),
        )  # fmt: skip


def _maker(criterion: DesignCriterion) -> Maker:
    def make(space: DesignSpace, goal: DesignGoal, seed: int) -> GreedyDesign:
        top = min(max(space.flops[0], START_SHARE * space.flops[1]), largest(space, goal.budget))
        return GreedyDesign(space=space, criterion=criterion, start=spread(space, goal.budget, seed, top=top))

    return make


GREEDY: dict[str, Maker] = {criterion.value: _maker(criterion) for criterion in DesignCriterion}
