"""What is known of one skill under one law: Gaussian about the mode, with a discrepancy beside the law's form.

ln L = f(q; N, D, h) + sum_j w_j phi_j + noise: q under weak priors, phi the features of a ``DiscrepancyBasis``, w ~ N(0, s^2).
The noise and s are learnt together on a grid; errors are Student's, so that a run gone wrong counts for less. As all
is Gaussian about the mode (Laplace), what another run would add is one more row of a matrix.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import expit, logit

from skillscale.design.discrepancy import DiscrepancyBasis
from skillscale.design.priors import prior_for
from skillscale.design.space import RunHistory
from skillscale.laws.forms.autodiff import leaves
from skillscale.laws.forms.nd import Array, Covariates, Law

SCALES = np.array([0.0002, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016])  # of the discrepancy, in ln L
NOISES = np.geomspace(0.0008, 0.05, 25)  # of a run, in ln L
_SCALE, _NOISE = (0.002, 1.0), (0.005, 1.0)  # median and sd of the logarithm: tried in docs/research/sampling.md
FREEDOM = 5.0  # of Student's distribution of errors
_CORE = math.sqrt((FREEDOM + 3) / (FREEDOM + 1))  # sd of the normal errors that tell as much as Student's of scale 1
_WRONG, _WRONG_BY = 0.03, 10.0  # share of runs that go wrong, and by how much in units of the noise: not tuned
_COMMON = 0.5  # of the variance of the noise, that the skills of a run share
_MOST_LEVERAGE, _LEAST = 0.999, 1e-9
_ROUNDS, _STEPS = 4, 30
_ENOUGH = 1e-3  # fall of the negative log posterior at which the mode is found
_NEGLIGIBLE = 0.01  # probability of a scale that is left out
_NOTHING = math.log(3.0)  # ln L that the priors are about before any run


@dataclass(frozen=True, kw_only=True)
class LawPosterior:
    """About the weights u = (q, w) of one skill under one law.

    ``q`` (p,), ``w`` (m,): the mode at the likeliest noise and scale; ``precision`` (p + m, p + m) there; ``noise``: sd
    of a run; ``evidence``: ln marginal likelihood, to compare laws; ``shifts`` (S, p + m), ``precisions`` and
    ``chances`` (S,): the belief at each likely scale, as steps from the mode; ``trust`` (n,): weight of each run.
    """

    law: Law
    surface: DiscrepancyBasis
    q: Array
    w: Array
    precision: Array = field(repr=False)
    noise: float
    scale: float
    evidence: float
    shifts: Array = field(repr=False)
    precisions: Array = field(repr=False)
    chances: Array = field(repr=False)
    trust: Array = field(repr=False)

    def rows(self, N: Array, D: Array, h: Array | None) -> Array:
        """What runs of noise 1 tell: rows b (n, p + m), of which b b' is added to the precision."""
        z = self.law.covariates(N, D, h)
        return np.hstack([self.law.jacobian(self.q[None], z)[0], self.surface(np.log(N), np.log(D), h)])

    def log_loss(self, N: Array, D: Array, h: Array | None) -> Array:
        """Ln L expected, (n,)."""
        told = self.law.log_loss(self.q[None], self.law.covariates(N, D, h))[0]
        return np.asarray(told + self.surface(np.log(N), np.log(D), h) @ self.w)

    def optimum(self, C: float, h: Array | None) -> tuple[float, Array]:
        """Ln N* at C and its gradient by u, (p + m,), by the implicit function theorem; NaN where there is none.

        The discrepancy moves the law's optimum by minus its slope along the budget over the law's second derivative.
        """
        at = float(self.law.log_optimum(self.law.theta(self.q[None]), [C], h)[0, 0])
        p = len(self.q)
        if not math.isfinite(at):
            return math.nan, np.full(p + len(self.w), np.nan)
        total = math.log(C / 6)
        jets = leaves(np.append(self.q, 0.0)[None], derivatives=True)  # the last one moves along the budget
        shares = None if h is None or not self.law.needs_mix else h[None, None, :]
        moved = Covariates(jets[p] + (at - self.law.x0), (total - at - self.law.y0) - jets[p], shares)
        jet = self.law.form(jets[:p], moved)
        H = np.zeros((p + 1, p + 1))
        H[np.ix_(jet.support, jet.support)] = jet.weighted_hessian(np.ones((1, 1)))[0]
        mix = None if h is None else h[None]
        slopes = self.surface.slopes(np.array([at]), np.array([total - at]), mix)[0]
        return at - float(slopes @ self.w) / H[p, p], -np.concatenate([H[:p, p], slopes]) / H[p, p]

    def spread(self, gradient: Array) -> tuple[Array, Array]:
        """Steps from the mode (S,) and sds (S,), at each likely scale, of a quantity with this gradient."""
        solved = np.linalg.solve(self.precisions, gradient[:, None])[..., 0]
        return self.shifts @ gradient, np.sqrt(solved @ gradient)


def fit_posterior(
    law: Law, surface: DiscrepancyBasis, history: RunHistory, skills: Sequence[str]
) -> dict[str, LawPosterior]:
    """The beliefs about skills after the runs that have measured them; a skill without any has the prior.

    A run is trusted in a skill by its own error there (Student's weights), times the chance that it has not gone wrong
    as a whole: skills of a run that trained badly err together, and what each of them hides by its leverage all of them
    together show.
    """
    fits = {skill: _Fit(law, surface, history, skill) for skill in skills if history.having(skill).any()}
    for _ in range(_ROUNDS):
        total, count = np.zeros(len(history)), np.zeros(len(history))
        for fit in fits.values():
            total[fit.there] += fit.improve()
            count[fit.there] += 1
        right = 1 - _gone_wrong(total, np.maximum(count, 1))
        for fit in fits.values():
            fit.trust_in(right[fit.there])
    silent = {skill: _beforehand(law, surface) for skill in skills if skill not in fits}
    return silent | {skill: fit.belief() for skill, fit in fits.items()}


def _gone_wrong(total: Array, count: Array) -> Array:
    """Chance that a run is off in all of its skills alike, by the sum over ``count`` skills of its deleted errors.

    One skill alone can't tell a run gone wrong from a law that is: there Student's weights have to do.
    """
    right = (1 + (count - 1) * _COMMON) / count  # variance of their mean, where the run is as others are
    wrong = right + _WRONG_BY**2
    odds = 0.5 * np.log(right / wrong) + 0.5 * (total / count) ** 2 * (1 / right - 1 / wrong)
    return np.where(count > 1, expit(odds + logit(_WRONG)), 0.0)


class _Fit:
    """A skill on the way to its belief: what it was measured at, and the mode, noise and scale found so far."""

    def __init__(self, law: Law, surface: DiscrepancyBasis, history: RunHistory, skill: str) -> None:
        self.law, self.surface, self.there = law, surface, history.having(skill)
        N, D, self.y = history.N[self.there], history.D[self.there], history.log_L[skill][self.there]
        h = None if history.h is None else history.h[self.there]
        self.mean, self.sd = prior_for(law, float(np.median(self.y)))
        self.z, self.features = law.covariates(N, D, h), surface(np.log(N), np.log(D), h)
        self.trust, self.q = np.ones(len(self.y)), self.mean
        self.noise, self.scale = float(NOISES[0]), float(_SCALE[0])

    def improve(self) -> Array:
        """Mode, noise and scale for the runs as they are trusted.

        Returns each run's error against what the others predict, in units of that prediction's sd (deleted residuals).
        """
        spread = self.surface.sd(self.scale)
        precisions = self.trust / self.noise**2
        self.q = _mode(self.law, self.z, self.y, self.features, self.q, (self.mean, self.sd), (precisions, spread))
        J = self.law.jacobian(self.q[None], self.z)[0]
        self.bent = self.y - self.law.log_loss(self.q[None], self.z)[0] + J @ (self.q - self.mean)
        self.B = np.hstack([J, self.features])
        self.grid = _grid(self.B, self.bent, self.trust, self.sd, self.surface)
        scale_at, noise_at = np.unravel_index(int(self.grid.argmax()), self.grid.shape)
        self.noise, self.scale = float(NOISES[noise_at]), float(SCALES[scale_at])
        M, u = self._solved(self.trust / self.noise**2, self.scale)
        self.errors = (self.bent - self.B @ u) / self.noise
        leverage = np.einsum("ij,ji->i", self.B, np.linalg.solve(M, self.B.T)) / self.noise**2
        left = 1 - np.minimum(leverage * self.trust, _MOST_LEVERAGE)
        return np.asarray(self.errors / left / np.sqrt(1 + leverage / left))

    def trust_in(self, right: Array) -> None:
        """Weigh each run by its error, and by the chance that it is right, 1 for the best."""
        weights = right * (FREEDOM + 1) / (FREEDOM + self.errors**2)
        self.right, self.trust = right, weights / max(float(weights.max()), _LEAST)

    def belief(self) -> LawPosterior:
        """The belief about the skill, by the last mode, noise and trust."""
        by_scale = np.logaddexp.reduce(self.grid, axis=1)
        evidence = float(np.logaddexp.reduce(by_scale))
        chances = np.exp(by_scale - evidence)
        likely = chances > _NEGLIGIBLE
        noise = self.noise * _CORE
        mean = float(self.trust.sum() / max(self.right.sum(), _LEAST))  # runs gone wrong tell nothing, and are no runs
        M, u = self._solved(weights := self.trust / max(mean, _LEAST) / noise**2, self.scale)
        others = [self._solved(weights, one) for one in SCALES[likely]]
        p = len(self.q)
        return LawPosterior(
            law=self.law, surface=self.surface, q=self.q, w=u[p:], precision=M, noise=noise, scale=self.scale,
            evidence=evidence, chances=chances[likely] / chances[likely].sum(), trust=self.trust,
            shifts=np.array([step for _, step in others]) - np.concatenate([self.q - self.mean, u[p:]]),
            precisions=np.array([one for one, _ in others]),
        )  # fmt: skip

    def _solved(self, weights: Array, scale: float) -> tuple[Array, Array]:
        return _solve(self.B, self.bent, weights, np.append(self.sd, self.surface.sd(scale)))


def _beforehand(law: Law, surface: DiscrepancyBasis) -> LawPosterior:
    mean, sd = prior_for(law, _NOTHING)
    noise, scale = _NOISE[0], _SCALE[0]
    spread = np.append(sd, surface.sd(scale))
    return LawPosterior(
        law=law, surface=surface, q=mean, w=np.zeros(len(spread) - len(mean)), precision=np.diag(spread**-2.0),
        noise=noise, scale=scale, evidence=0.0, shifts=np.zeros((1, len(spread))),
        precisions=np.diag(spread**-2.0)[None], chances=np.ones(1), trust=np.zeros(0),
    )  # fmt: skip


def _solve(B: Array, bent: Array, weights: Array, sd: Array) -> tuple[Array, Array]:
    """Precision and mean of u less its prior mean, for the straightened losses ``bent``."""
    M = B.T @ (B * weights[:, None]) + np.diag(sd**-2.0)
    return M, np.asarray(np.linalg.solve(M, B.T @ (bent * weights)))


def _mode(
    law: Law, z: Covariates, y: Array, features: Array, q: Array, prior: tuple[Array, Array],
    scales: tuple[Array, Array],
) -> Array:  # fmt: skip
    """Damped Gauss-Newton steps on q, the discrepancy integrated out; ``scales``: runs' precisions, sds of w."""
    (mean, sd), (w, feature_sd) = prior, scales
    weighted = features * w[:, None]
    inner = np.linalg.inv(features.T @ weighted + np.diag(feature_sd**-2.0))

    def solve(r: Array) -> Array:
        """Inverse covariance of the errors times r, (n, k)."""
        return np.asarray(w[:, None] * r - weighted @ (inner @ (weighted.T @ r)))

    def value(q: Array) -> float:
        with np.errstate(over="ignore", invalid="ignore"):
            r = (y - law.log_loss(q[None], z)[0])[:, None]
            F = 0.5 * float((r * solve(r)).sum()) + 0.5 * float((((q - mean) / sd) ** 2).sum())
        return F if math.isfinite(F) else math.inf

    F, damping = value(q), 1e-3
    for _ in range(_STEPS):
        J = law.jacobian(q[None], z)[0] * sd
        v = solve(np.column_stack([y - law.log_loss(q[None], z)[0], J]))
        H, slope = J.T @ v[:, 1:] + np.eye(len(q)), (q - mean) / sd - J.T @ v[:, 0]
        step = -np.linalg.solve(H + damping * np.diag(np.diag(H)), slope)
        gain = -float(slope @ step)
        tried = q + step * sd / max(1.0, float(np.abs(step).max()) / 2)
        if (F_tried := value(tried)) < F:
            q, F, damping = tried, F_tried, max(damping / 10, 1e-9)
        else:
            damping = max(damping * 10, 1e-2)
        if gain < _ENOUGH:
            break
    return q


def _grid(B: Array, bent: Array, weights: Array, sd: Array, surface: DiscrepancyBasis) -> Array:
    """Ln of the posterior of (scale, noise) with u integrated out, (n_scales, n_noises)."""
    spread = np.array([np.append(sd, surface.sd(scale)) for scale in SCALES])
    gram, right = B.T @ (B * weights[:, None]), B.T @ (weights * bent)
    values, vectors = np.linalg.eigh(gram * spread[:, :, None] * spread[:, None, :])
    along = np.einsum("sij,si->sj", vectors, right * spread) ** 2
    v = NOISES[None, :, None] ** 2
    ratio = 1 + np.maximum(values, 0.0)[:, None, :] / v
    explained = (along[:, None, :] / (v**2 * ratio)).sum(-1)
    v = v[..., 0]
    total = float(bent @ (weights * bent))
    likelihood = -0.5 * (np.log(ratio).sum(-1) + len(bent) * np.log(v) + total / v - explained)
    return np.asarray(likelihood + _log_normal(SCALES, _SCALE)[:, None] + _log_normal(NOISES, _NOISE))


def _log_normal(values: Array, prior: tuple[float, float]) -> Array:
    median, sd = prior
    return np.asarray(-0.5 * (np.log(values / median) / sd) ** 2)
