"""What is known of every skill, over the laws: each law's belief by its evidence, and all of them as one Gaussian.

The evidence is tempered (Miller & Dunson 2019): a law is never quite true, and its misfit is common to many runs.

The design sees the mixture's covariance: within each law, and between the laws where they expect different losses. A
run that tells laws apart is worth its cost just as one that tells parameters.
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

TEMPER = 0.35  # power of the evidence; 1 lets laws be certain of more than they cover (docs/research/sampling.md)
_NEGLIGIBLE = 0.01  # weight of a law that is left out
_RICHNESS = 20.0  # runs for which a direction that no candidate can tell apart is left to its prior
_APART = 0.05  # of such a direction's weight, in units of the noise
NOTHING_TOLD = 3.0  # half width in ln N where the runs tell nothing
_RATIO = 20.0  # D / N there
_HALVINGS = 60


@dataclass(frozen=True, kw_only=True)
class ModelAverage:
    """Beliefs about one skill with their weights, (n_laws,)."""

    beliefs: tuple[LawPosterior, ...]
    weights: Array

    @property
    def noise(self) -> float:
        """Sd of a run."""
        return math.exp(float(self.weights @ np.log([one.noise for one in self.beliefs])))

    @property
    def by_name(self) -> dict[str, float]:
        """Weight of each law."""
        return {law_name(one.law): float(w) for one, w in zip(self.beliefs, self.weights, strict=True)}

    def log_loss(self, N: Array, D: Array, h: Array | None) -> Array:
        """Ln L expected over the laws, (n,)."""
        return np.asarray(self.weights @ np.array([one.log_loss(N, D, h) for one in self.beliefs]))

    def told(self, place: QueryPoint) -> list[tuple[float, Array]]:
        """The quantity and its gradient by each law; NaN by a law that has no optimum there."""
        return [_told(one, place) for one in self.beliefs]

    def components(self, told: Sequence[tuple[float, Array]]) -> tuple[Array, Array, Array]:
        """Values, sds and probabilities of the mixture, over laws and scales; empty where no law tells."""
        parts = [
            (value + step, sd, weight * one.chances)
            for (value, gradient), one, weight in zip(told, self.beliefs, self.weights, strict=True)
            if math.isfinite(value)
            for step, sd in [one.spread(gradient)]
        ]
        if not parts:
            return np.zeros(0), np.zeros(0), np.zeros(0)
        values, sds, chances = (np.concatenate(one) for one in zip(*parts, strict=True))
        return values, sds, chances / chances.sum()

    def question(self, candidates: RunHistory, pending: RunHistory, places: Sequence[QueryPoint]) -> SkillInformation:
        """The mixture as one Gaussian: what candidates and pending runs tell of the quantities at ``places``."""
        told = [self.told(place) for place in places]
        usable = np.isfinite([[value for value, _ in each] for each in told]).all(0)
        if not usable.any():
            return SkillInformation.silent(len(candidates), len(places))
        weights = self.weights * usable / float(self.weights @ usable)
        kept = [at for at in range(len(weights)) if weights[at] > 0]
        N, D = np.append(candidates.N, pending.N), np.append(candidates.D, pending.D)
        h = None if candidates.h is None or pending.h is None else np.vstack([candidates.h, pending.h])
        losses = np.array([self.beliefs[at].log_loss(N, D, h) for at in kept])
        values = np.array([[each[at][0] for each in told] for at in kept])
        share = weights[kept]
        losses, values = losses - share @ losses, values - share @ values
        rows, gradients = [], []
        for i, at in enumerate(kept):
            root, one = math.sqrt(share[i]), self.beliefs[at]
            turn = np.linalg.inv(np.linalg.cholesky(one.precision)).T
            rows += [root * (one.rows(N, D, h) @ turn), root * losses[i][:, None]]
            gradients += [root * (np.array([each[at][1] for each in told]) @ turn), root * values[i][:, None]]
        return _compressed(np.hstack(rows) / self.noise, np.hstack(gradients), len(candidates))


def _told(one: LawPosterior, place: QueryPoint) -> tuple[float, Array]:
    h = np.array(place.h) if place.h else None
    if place.N is None:
        value, gradient = one.optimum(place.C, h)
        if place.quantity is not Quantity.LOSS or not math.isfinite(value):
            return value, gradient
        N = np.array([math.exp(value)])
    else:
        N = np.array([place.N])
    D, mix = place.C / (6 * N), None if h is None else h[None]
    return float(one.log_loss(N, D, mix)[0]), one.rows(N, D, mix)[0]  # of an optimum by the envelope theorem


def _compressed(rows: Array, gradients: Array, n_candidates: int) -> SkillInformation:
    """The directions that runs can tell, and for each quantity one more for what they can't."""
    _, size, turn = np.linalg.svd(rows * math.sqrt(_RICHNESS / max(len(rows), 1)), full_matrices=False)
    turn = turn[size > _APART]
    inside = gradients @ turn.T
    rest = np.sqrt(np.maximum((gradients**2).sum(1) - (inside**2).sum(1), 0.0))
    b = np.hstack([rows @ turn.T, np.zeros((len(rows), len(rest)))])
    pending = b[n_candidates:]
    return SkillInformation(
        M=np.eye(b.shape[1]) + pending.T @ pending, b=b[:n_candidates], now=(gradients**2).sum(1),
        gradients=np.hstack([inside, np.diag(rest)]),
    )  # fmt: skip


def average_laws(history: RunHistory, space: DesignSpace, targets: Sequence[Target]) -> dict[str, ModelAverage]:
    """The beliefs about every skill that the targets name."""
    return average_over(
        history, candidate_laws(space), discrepancy_basis(space, max(target.C for target in targets)), targets
    )


def average_over(
    history: RunHistory, laws: Sequence[Law], surface: DiscrepancyBasis, targets: Sequence[Target]
) -> dict[str, ModelAverage]:
    """The same over laws and a discrepancy of one's own."""
    found = {}
    skills = sorted({name for target in targets for name in (target.skill, target.other) if name})
    by_law = [fit_posterior(law, surface, history, skills) for law in laws]
    for skill in skills:
        beliefs = [one[skill] for one in by_law]
        evidence = np.array([one.evidence for one in beliefs])
        weights = np.exp(TEMPER * (evidence - evidence.max()))
        weights /= weights.sum()
        kept = weights > _NEGLIGIBLE
        found[skill] = ModelAverage(
            beliefs=tuple(one for one, keep in zip(beliefs, kept, strict=True) if keep),
            weights=weights[kept] / weights[kept].sum(),
        )
    return found


def estimate_targets(
    history: RunHistory, space: DesignSpace, targets: tuple[Target, ...], level: float = 0.9
) -> TargetEstimates:
    """What the runs tell of the targets: medians and intervals over laws and scales of the discrepancy."""
    return estimate_targets_from(average_laws(history, space, targets), targets, level)


def estimate_targets_from(
    known: dict[str, ModelAverage], targets: tuple[Target, ...], level: float = 0.9
) -> TargetEstimates:
    """What beliefs tell of the targets."""
    rows = [_interval(_components(known, target), target, level) for target in targets]
    value, lo, hi, sd = np.array(rows).reshape(-1, 4).T
    return TargetEstimates(targets=targets, value=value, lo=lo, hi=hi, sd=sd, level=level)


def _components(known: dict[str, ModelAverage], target: Target) -> tuple[Array, Array, Array]:
    """Mixture of a target. Skills are taken to err apart, which widens differences: they share a run's noise."""
    one = known[target.skill]
    values, sds, chances = one.components(one.told(target.place))
    if not target.other:
        return values, sds, chances
    other = known[target.other]
    others = other.components(other.told(target.place))
    return (
        np.subtract.outer(values, others[0]).ravel(), np.sqrt(np.add.outer(sds**2, others[1] ** 2)).ravel(),
        np.multiply.outer(chances, others[2]).ravel(),
    )  # fmt: skip


def _interval(mixture: tuple[Array, Array, Array], target: Target, level: float) -> tuple[float, float, float, float]:
    """Median, interval and sd of a mixture of Gaussians."""
    values, sds, chances = mixture
    if not len(values):
        nothing = {Quantity.OPTIMUM: 0.5 * math.log(target.C / 6 / _RATIO), Quantity.DIFFERENCE: 0.0}
        value = nothing.get(target.quantity, math.nan)
        return value, value - NOTHING_TOLD, value + NOTHING_TOLD, NOTHING_TOLD
    mean = float(chances @ values)
    sd = math.sqrt(float(chances @ (sds**2 + (values - mean) ** 2)))
    tails = np.array([(1 - level) / 2, 0.5, (1 + level) / 2])
    low, high = np.full(3, float((values - 9 * sds).min())), np.full(3, float((values + 9 * sds).max()))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = ndtr((middle[:, None] - values) / sds) @ chances < tails
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return float(low[1]), float(low[0]), float(low[2]), sd
