"""Bayesian model averaging: the laws' posteriors of a skill weighted by evidence, and all of them as one Gaussian.

The evidence is tempered (Miller & Dunson 2019). Every law is misspecified, and runs share that misfit, so each run
counts as less than one independent observation.

The design sees the covariance of the mixture: within each law, and between laws that predict different losses. A run
that discriminates between laws is as valuable as a run that makes parameters precise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from skillscale.design.allocation import SkillInformation
from skillscale.design.discrepancy import DiscrepancyBasis, discrepancy_basis
from skillscale.design.posterior import LawPosterior, fit_posterior
from skillscale.design.priors import candidate_laws, law_name
from skillscale.design.space import DesignSpace, RunHistory
from skillscale.design.targets import Quantity, QueryPoint, Target, TargetEstimates
from skillscale.laws.forms.nd import Array, Law

TEMPER = 0.35  # power of the evidence; with 1, intervals are too narrow to cover (docs/research/sampling.md)
_NEGLIGIBLE = 0.01  # weight below which a law is dropped
_RUNS_TO_RESOLVE = 20.0  # runs that together must resolve a direction, or it is left to the prior
_RESOLVED = 0.05  # least weight of a resolved direction, in units of the noise
UNINFORMED_HALF_WIDTH = 3.0  # in ln N, where the runs are uninformative
_UNINFORMED_RATIO = 20.0  # D / N there
_HALVINGS = 60
Mixture = tuple[Array, Array, Array]  # values, sds and probabilities of Gaussians, (n,) each


@dataclass(frozen=True, kw_only=True)
class ModelAverage:
    """Posteriors of one skill by law, with their weights (n_laws,)."""

    posteriors: tuple[LawPosterior, ...]
    weights: Array

    @property
    def noise(self) -> float:
        """Sd of a run."""
        return math.exp(float(self.weights @ np.log([posterior.noise for posterior in self.posteriors])))

    @property
    def law_weights(self) -> dict[str, float]:
        """Weight of each law by its name."""
        pairs = zip(self.posteriors, self.weights, strict=True)
        return {law_name(posterior.law): float(weight) for posterior, weight in pairs}

    def log_loss(self, N: Array, D: Array, h: Array | None) -> Array:
        """Return the ln L expected over the laws, (n,)."""
        return np.asarray(self.weights @ np.array([posterior.log_loss(N, D, h) for posterior in self.posteriors]))

    def quantity_by_law(self, point: QueryPoint) -> list[tuple[float, Array]]:
        """Return the quantity and its gradient for each law; NaN for a law that has no optimum there."""
        return [_quantity(posterior, point) for posterior in self.posteriors]

    def mixture(self, point: QueryPoint) -> Mixture:
        """Return the quantity as a mixture of Gaussians over laws and scales; empty where no law has the quantity."""
        parts = [
            (value + step, sd, weight * posterior.probabilities)
            for (value, gradient), posterior, weight in zip(
                self.quantity_by_law(point), self.posteriors, self.weights, strict=True
            )
            if math.isfinite(value)
            for step, sd in [posterior.spread(gradient)]
        ]
        if not parts:
            return np.zeros(0), np.zeros(0), np.zeros(0)
        values, sds, probabilities = (np.concatenate(column) for column in zip(*parts, strict=True))
        return values, sds, probabilities / probabilities.sum()

    def information(
        self, candidates: RunHistory, pending: RunHistory, points: Sequence[QueryPoint]
    ) -> SkillInformation:
        """Return the information of candidates and pending runs on quantities, with the mixture as one Gaussian."""
        quantities = [self.quantity_by_law(point) for point in points]
        usable = np.isfinite([[value for value, _ in by_law] for by_law in quantities]).all(0)
        if not usable.any():
            return SkillInformation.uninformative(len(candidates), len(points))
        weights = self.weights * usable / float(self.weights @ usable)
        kept = [at for at in range(len(weights)) if weights[at] > 0]
        N, D = np.append(candidates.N, pending.N), np.append(candidates.D, pending.D)
        h = None if candidates.h is None or pending.h is None else np.vstack([candidates.h, pending.h])
        losses = np.array([self.posteriors[at].log_loss(N, D, h) for at in kept])
        values = np.array([[by_law[at][0] for by_law in quantities] for at in kept])
        share = weights[kept]
        losses, values = losses - share @ losses, values - share @ values
        rows, gradients = [], []
        for i, at in enumerate(kept):
            root, posterior = math.sqrt(share[i]), self.posteriors[at]
            turn = np.linalg.inv(np.linalg.cholesky(posterior.precision)).T
            rows += [root * (posterior.jacobian(N, D, h) @ turn), root * losses[i][:, None]]
            gradients += [
                root * (np.array([by_law[at][1] for by_law in quantities]) @ turn), root * values[i][:, None]
            ]  # fmt: skip
        return _compressed(np.hstack(rows) / self.noise, np.hstack(gradients), len(candidates))


def _quantity(posterior: LawPosterior, point: QueryPoint) -> tuple[float, Array]:
    """Return a quantity and its gradient under one law."""
    h = np.array(point.h) if point.h else None
    if point.N is None:
        value, gradient = posterior.log_optimum(point.C, h)
        if point.quantity is not Quantity.LOSS or not math.isfinite(value):
            return value, gradient
        N = np.array([math.exp(value)])
    else:
        N = np.array([point.N])
    D, mix = point.C / (6 * N), None if h is None else h[None]
    # The gradient of the loss at the optimum follows from the envelope theorem
    return float(posterior.log_loss(N, D, mix)[0]), posterior.jacobian(N, D, mix)[0]


def _compressed(rows: Array, gradients: Array, n_candidates: int) -> SkillInformation:
    """Keep the directions that runs can resolve; add one direction per quantity for the remainder."""
    _, size, turn = np.linalg.svd(rows * math.sqrt(_RUNS_TO_RESOLVE / max(len(rows), 1)), full_matrices=False)
    turn = turn[size > _RESOLVED]
    inside = gradients @ turn.T
    rest = np.sqrt(np.maximum((gradients**2).sum(1) - (inside**2).sum(1), 0.0))
    b = np.hstack([rows @ turn.T, np.zeros((len(rows), len(rest)))])
    pending = b[n_candidates:]
    return SkillInformation(
        M=np.eye(b.shape[1]) + pending.T @ pending, b=b[:n_candidates], current_variances=(gradients**2).sum(1),
        gradients=np.hstack([inside, np.diag(rest)]),
    )  # fmt: skip


def average_laws(history: RunHistory, space: DesignSpace, targets: Sequence[Target]) -> dict[str, ModelAverage]:
    """Return the averaged posterior of every skill that the targets name, over the candidate laws of the space."""
    return average_over(
        history, candidate_laws(space), discrepancy_basis(space, max(target.C for target in targets)), targets
    )


def average_over(
    history: RunHistory, laws: Sequence[Law], discrepancy: DiscrepancyBasis, targets: Sequence[Target]
) -> dict[str, ModelAverage]:
    """Return the averaged posterior of every skill that the targets name, over given laws and a given discrepancy."""
    averages = {}
    skills = sorted({name for target in targets for name in (target.skill, target.other) if name})
    by_law = [fit_posterior(law, discrepancy, history, skills) for law in laws]
    for skill in skills:
        posteriors = [by_skill[skill] for by_skill in by_law]
        evidence = np.array([posterior.evidence for posterior in posteriors])
        weights = np.exp(TEMPER * (evidence - evidence.max()))
        weights /= weights.sum()
        kept = weights > _NEGLIGIBLE
        averages[skill] = ModelAverage(
            posteriors=tuple(posterior for posterior, keep in zip(posteriors, kept, strict=True) if keep),
            weights=weights[kept] / weights[kept].sum(),
        )
    return averages


def estimate_targets(
    history: RunHistory, space: DesignSpace, targets: tuple[Target, ...], level: float = 0.9
) -> TargetEstimates:
    """Estimate the targets from runs: medians and intervals over laws and scales of the discrepancy."""
    return estimate_targets_from(average_laws(history, space, targets), targets, level)


def estimate_targets_from(
    averages: dict[str, ModelAverage], targets: tuple[Target, ...], level: float = 0.9
) -> TargetEstimates:
    """Estimate the targets from the averaged posteriors."""
    rows = [_interval(_target_mixture(averages, target), target, level) for target in targets]
    value, lo, hi, sd = np.array(rows).reshape(-1, 4).T
    return TargetEstimates(targets=targets, value=value, lo=lo, hi=hi, sd=sd, level=level)


def _target_mixture(averages: dict[str, ModelAverage], target: Target) -> Mixture:
    """Return the mixture of a target.

    Skills count as independent. That widens the intervals of differences, because skills share the noise of a run.
    """
    values, sds, probabilities = averages[target.skill].mixture(target.query_point)
    if not target.other:
        return values, sds, probabilities
    others = averages[target.other].mixture(target.query_point)
    return (
        np.subtract.outer(values, others[0]).ravel(), np.sqrt(np.add.outer(sds**2, others[1] ** 2)).ravel(),
        np.multiply.outer(probabilities, others[2]).ravel(),
    )  # fmt: skip


def _interval(mixture: Mixture, target: Target, level: float) -> tuple[float, float, float, float]:
    """Return median, interval and sd of a mixture of Gaussians."""
    values, sds, probabilities = mixture
    if not len(values):
        uninformed = {Quantity.OPTIMUM: 0.5 * math.log(target.C / 6 / _UNINFORMED_RATIO), Quantity.DIFFERENCE: 0.0}
        value = uninformed.get(target.quantity, math.nan)
        return value, value - UNINFORMED_HALF_WIDTH, value + UNINFORMED_HALF_WIDTH, UNINFORMED_HALF_WIDTH
    mean = float(probabilities @ values)
    sd = math.sqrt(float(probabilities @ (sds**2 + (values - mean) ** 2)))
    tails = np.array([(1 - level) / 2, 0.5, (1 + level) / 2])
    low, high = np.full(3, float((values - 9 * sds).min())), np.full(3, float((values + 9 * sds).max()))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = ndtr((middle[:, None] - values) / sds) @ probabilities < tails
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return float(low[1]), float(low[0]), float(low[2]), sd
