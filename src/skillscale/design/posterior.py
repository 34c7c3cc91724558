"""The posterior of one skill under one law: Gaussian about the mode, with a discrepancy added to the law's form.

ln L = f(q; N, D, h) + sum_j w_j phi_j + noise. The parameters q have weak priors. phi are the features of a
``DiscrepancyBasis``, and w ~ N(0, s^2). The noise and s are inferred together on a grid. Student-t errors down-weight
outlier runs. Everything is Gaussian about the mode (Laplace), so the information of another run is one more row of a
matrix.
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
_SCALE_PRIOR, _NOISE_PRIOR = (0.002, 1.0), (0.005, 1.0)  # median and sd of the logarithm (docs/research/sampling.md)
FREEDOM = 5.0  # degrees of freedom of the Student-t errors
_EQUIVALENT_SD = math.sqrt((FREEDOM + 3) / (FREEDOM + 1))  # sd of normal errors as informative as Student-t of scale 1
_BAD_SHARE, _BAD_SD = 0.03, 10.0  # prior share of bad runs, and sd of their error in units of the noise (not tuned)
_SHARED_VARIANCE = 0.5  # share of the noise variance that the skills of a run have in common
_MAX_LEVERAGE, _TINY = 0.999, 1e-9
_ROUNDS, _MAX_STEPS = 4, 30
_CONVERGED = 1e-3  # fall of the negative log posterior at which the mode counts as reached
_NEGLIGIBLE = 0.01  # probability below which a scale is dropped
_LEVEL_WITHOUT_RUNS = math.log(3.0)  # ln L about which the priors lie before any run


@dataclass(frozen=True, kw_only=True)
class LawPosterior:
    """Posterior of the weights u = (q, w) of one skill under one law.

    ``q`` (p,) and ``w`` (m,): mode at the likeliest noise and scale. ``precision``: at the mode, (p + m, p + m).
    ``noise``: sd of a run. ``scale``: of the discrepancy. ``evidence``: ln marginal likelihood, to compare laws.
    ``shifts`` (S, p + m), ``precisions`` and ``probabilities`` (S,): the posterior at each likely scale, as steps from
    the mode. ``run_weights``: of the runs in the fit, (n,).
    """

    law: Law
    discrepancy: DiscrepancyBasis
    q: Array
    w: Array
    precision: Array = field(repr=False)
    noise: float
    scale: float
    evidence: float
    shifts: Array = field(repr=False)
    precisions: Array = field(repr=False)
    probabilities: Array = field(repr=False)
    run_weights: Array = field(repr=False)

    def jacobian(self, N: Array, D: Array, h: Array | None) -> Array:
        """Return derivatives of ln L by u, (n, p + m).

        A run of noise 1 adds b b' to the precision, with b its row.
        """
        z = self.law.covariates(N, D, h)
        return np.hstack([self.law.jacobian(self.q[None], z)[0], self.discrepancy(np.log(N), np.log(D), h)])

    def log_loss(self, N: Array, D: Array, h: Array | None) -> Array:
        """Return the expected ln L, (n,)."""
        by_law = self.law.log_loss(self.q[None], self.law.covariates(N, D, h))[0]
        return np.asarray(by_law + self.discrepancy(np.log(N), np.log(D), h) @ self.w)

    def log_optimum(self, C: float, h: Array | None) -> tuple[float, Array]:
        """Return ln N* at C and its gradient by u, (p + m,); NaN where there is no optimum.

        The gradient follows from the implicit function theorem. The discrepancy moves the law's optimum by minus its
        slope along the budget over the law's second derivative.
        """
        log_N = float(self.law.log_optimum(self.law.theta(self.q[None]), [C], h)[0, 0])
        p = len(self.q)
        if not math.isfinite(log_N):
            return math.nan, np.full(p + len(self.w), np.nan)
        total = math.log(C / 6)
        jets = leaves(np.append(self.q, 0.0)[None], derivatives=True)  # the last jet is a step along the budget
        shares = None if h is None or not self.law.needs_mix else h[None, None, :]
        moved = Covariates(jets[p] + (log_N - self.law.x0), (total - log_N - self.law.y0) - jets[p], shares)
        jet = self.law.form(jets[:p], moved)
        H = np.zeros((p + 1, p + 1))
        H[np.ix_(jet.support, jet.support)] = jet.weighted_hessian(np.ones((1, 1)))[0]
        mix = None if h is None else h[None]
        slopes = self.discrepancy.slopes(np.array([log_N]), np.array([total - log_N]), mix)[0]
        return log_N - float(slopes @ self.w) / H[p, p], -np.concatenate([H[:p, p], slopes]) / H[p, p]

    def spread(self, gradient: Array) -> tuple[Array, Array]:
        """Return steps from the mode (S,) and sds (S,) at each likely scale, for a quantity with this gradient."""
        solved = np.linalg.solve(self.precisions, gradient[:, None])[..., 0]
        return self.shifts @ gradient, np.sqrt(solved @ gradient)


def fit_posterior(
    law: Law, discrepancy: DiscrepancyBasis, history: RunHistory, skills: Sequence[str]
) -> dict[str, LawPosterior]:
    """Return the posterior of each skill; a skill without runs keeps the prior.

    The weight of a run in a skill is the product of two factors. The first follows from its error in that skill
    (Student-t). The second is the probability that the run as a whole is good. The skills of a bad run err together,
    so all skills together show an error that each of them hides by its leverage.
    """
    fits = {skill: _SkillFit(law, discrepancy, history, skill) for skill in skills if history.measured(skill).any()}
    for _ in range(_ROUNDS):
        total, count = np.zeros(len(history)), np.zeros(len(history))
        for fit in fits.values():
            total[fit.rows] += fit.improve()
            count[fit.rows] += 1
        good = 1 - _bad_run_probability(total, np.maximum(count, 1))
        for fit in fits.values():
            fit.update_weights(good[fit.rows])
    without_runs = {skill: _prior_as_posterior(law, discrepancy) for skill in skills if skill not in fits}
    return without_runs | {skill: fit.posterior() for skill, fit in fits.items()}


def _bad_run_probability(total: Array, count: Array) -> Array:
    """Return the probability that a run is bad, by the sum of its deleted residuals over ``count`` skills.

    The residuals of one skill alone can't separate a bad run from a misspecified law. There the probability is 0, and
    only the Student-t weights act.
    """
    good = (1 + (count - 1) * _SHARED_VARIANCE) / count  # variance of the mean residual of a good run
    bad = good + _BAD_SD**2
    odds = 0.5 * np.log(good / bad) + 0.5 * (total / count) ** 2 * (1 / good - 1 / bad)
    return np.where(count > 1, expit(odds + logit(_BAD_SHARE)), 0.0)


class _SkillFit:
    """The fit of one skill in progress: its runs, and the current mode, noise, scale and run weights."""

    def __init__(self, law: Law, discrepancy: DiscrepancyBasis, history: RunHistory, skill: str) -> None:
        self.law, self.discrepancy, self.rows = law, discrepancy, history.measured(skill)
        N, D, self.y = history.N[self.rows], history.D[self.rows], history.log_L[skill][self.rows]
        h = None if history.h is None else history.h[self.rows]
        self.mean, self.sd = prior_for(law, float(np.median(self.y)))
        self.z, self.features = law.covariates(N, D, h), discrepancy(np.log(N), np.log(D), h)
        self.run_weights, self.q = np.ones(len(self.y)), self.mean
        self.noise, self.scale = float(NOISES[0]), float(_SCALE_PRIOR[0])

    def improve(self) -> Array:
        """Update mode, noise and scale at the current run weights.

        Returns each run's deleted residual: its error against the prediction from the other runs, in units of that
        prediction's sd.
        """
        feature_sd = self.discrepancy.sd(self.scale)
        precisions = self.run_weights / self.noise**2
        self.q = _mode(self.law, self.z, self.y, self.features, self.q, (self.mean, self.sd), (precisions, feature_sd))
        J = self.law.jacobian(self.q[None], self.z)[0]
        self.linearised = self.y - self.law.log_loss(self.q[None], self.z)[0] + J @ (self.q - self.mean)
        self.B = np.hstack([J, self.features])
        self.grid = _log_posterior_grid(self.B, self.linearised, self.run_weights, self.sd, self.discrepancy)
        scale_at, noise_at = np.unravel_index(int(self.grid.argmax()), self.grid.shape)
        self.noise, self.scale = float(NOISES[noise_at]), float(SCALES[scale_at])
        M, u = self._solve(self.run_weights / self.noise**2, self.scale)
        self.errors = (self.linearised - self.B @ u) / self.noise
        leverage = np.einsum("ij,ji->i", self.B, np.linalg.solve(M, self.B.T)) / self.noise**2
        remaining = 1 - np.minimum(leverage * self.run_weights, _MAX_LEVERAGE)
        return np.asarray(self.errors / remaining / np.sqrt(1 + leverage / remaining))

    def update_weights(self, good: Array) -> None:
        """Weight each run by its error and the probability that it is good; the best run has weight 1."""
        weights = good * (FREEDOM + 1) / (FREEDOM + self.errors**2)
        self.good, self.run_weights = good, weights / max(float(weights.max()), _TINY)

    def posterior(self) -> LawPosterior:
        """Return the posterior at the current mode, noise and run weights."""
        by_scale = np.logaddexp.reduce(self.grid, axis=1)
        evidence = float(np.logaddexp.reduce(by_scale))
        probabilities = np.exp(by_scale - evidence)
        likely = probabilities > _NEGLIGIBLE
        noise = self.noise * _EQUIVALENT_SD
        mean = float(self.run_weights.sum() / max(self.good.sum(), _TINY))  # bad runs do not count
        M, u = self._solve(weights := self.run_weights / max(mean, _TINY) / noise**2, self.scale)
        solutions = [self._solve(weights, scale) for scale in SCALES[likely]]
        p = len(self.q)
        return LawPosterior(
            law=self.law, discrepancy=self.discrepancy, q=self.q, w=u[p:], precision=M, noise=noise, scale=self.scale,
            evidence=evidence, probabilities=probabilities[likely] / probabilities[likely].sum(),
            run_weights=self.run_weights,
            shifts=np.array([step for _, step in solutions]) - np.concatenate([self.q - self.mean, u[p:]]),
            precisions=np.array([precision for precision, _ in solutions]),
        )  # fmt: skip

    def _solve(self, weights: Array, scale: float) -> tuple[Array, Array]:
        return _solve(self.B, self.linearised, weights, np.append(self.sd, self.discrepancy.sd(scale)))


def _prior_as_posterior(law: Law, discrepancy: DiscrepancyBasis) -> LawPosterior:
    mean, sd = prior_for(law, _LEVEL_WITHOUT_RUNS)
    noise, scale = _NOISE_PRIOR[0], _SCALE_PRIOR[0]
    sds = np.append(sd, discrepancy.sd(scale))
    return LawPosterior(
        law=law, discrepancy=discrepancy, q=mean, w=np.zeros(len(sds) - len(mean)), precision=np.diag(sds**-2.0),
        noise=noise, scale=scale, evidence=0.0, shifts=np.zeros((1, len(sds))),
        precisions=np.diag(sds**-2.0)[None], probabilities=np.ones(1), run_weights=np.zeros(0),
    )  # fmt: skip


def _solve(B: Array, linearised: Array, weights: Array, sd: Array) -> tuple[Array, Array]:
    """Return the precision of u and its mean less the prior mean, for linearised losses (n,)."""
    M = B.T @ (B * weights[:, None]) + np.diag(sd**-2.0)
    return M, np.asarray(np.linalg.solve(M, B.T @ (linearised * weights)))


def _mode(
    law: Law, z: Covariates, y: Array, features: Array, q: Array, prior: tuple[Array, Array],
    scales: tuple[Array, Array],
) -> Array:  # fmt: skip
    """Take damped Gauss-Newton steps on q with the discrepancy integrated out.

    Args:
        law: the form.
        z: covariates of the runs.
        y: ln L of the runs, (n,).
        features: of the discrepancy, (n, m).
        q: start, (p,).
        prior: means and sds of q, (p,) both.
        scales: precisions of the runs (n,) and prior sds of the features' weights (m,).
    """
    (mean, sd), (w, feature_sd) = prior, scales
    weighted = features * w[:, None]
    inner = np.linalg.inv(features.T @ weighted + np.diag(feature_sd**-2.0))

    def solve(r: Array) -> Array:
        """Return the inverse covariance of the errors times r, (n, k)."""
        return np.asarray(w[:, None] * r - weighted @ (inner @ (weighted.T @ r)))

    def value(q: Array) -> float:
        with np.errstate(over="ignore", invalid="ignore"):
            r = (y - law.log_loss(q[None], z)[0])[:, None]
            F = 0.5 * float((r * solve(r)).sum()) + 0.5 * float((((q - mean) / sd) ** 2).sum())
        return F if math.isfinite(F) else math.inf

    F, damping = value(q), 1e-3
    for _ in range(_MAX_STEPS):
        J = law.jacobian(q[None], z)[0] * sd
        v = solve(np.column_stack([y - law.log_loss(q[None], z)[0], J]))
        H, slope = J.T @ v[:, 1:] + np.eye(len(q)), (q - mean) / sd - J.T @ v[:, 0]
        step = -np.linalg.solve(H + damping * np.diag(np.diag(H)), slope)
        gain = -float(slope @ step)
        trial = q + step * sd / max(1.0, float(np.abs(step).max()) / 2)
        if (F_trial := value(trial)) < F:
            q, F, damping = trial, F_trial, max(damping / 10, 1e-9)
        else:
            damping = max(damping * 10, 1e-2)
        if gain < _CONVERGED:
            break
    return q


def _log_posterior_grid(B: Array, linearised: Array, weights: Array, sd: Array, discrepancy: DiscrepancyBasis) -> Array:
    """Return the ln posterior of (scale, noise) with u integrated out, (n_scales, n_noises)."""
    sds = np.array([np.append(sd, discrepancy.sd(scale)) for scale in SCALES])
    gram, right = B.T @ (B * weights[:, None]), B.T @ (weights * linearised)
    values, vectors = np.linalg.eigh(gram * sds[:, :, None] * sds[:, None, :])
    along = np.einsum("sij,si->sj", vectors, right * sds) ** 2
    v = NOISES[None, :, None] ** 2
    ratio = 1 + np.maximum(values, 0.0)[:, None, :] / v
    explained = (along[:, None, :] / (v**2 * ratio)).sum(-1)
    v = v[..., 0]
    total = float(linearised @ (weights * linearised))
    likelihood = -0.5 * (np.log(ratio).sum(-1) + len(linearised) * np.log(v) + total / v - explained)
    return np.asarray(likelihood + _log_normal(SCALES, _SCALE_PRIOR)[:, None] + _log_normal(NOISES, _NOISE_PRIOR))


def _log_normal(values: Array, prior: tuple[float, float]) -> Array:
    median, sd = prior
    return np.asarray(-0.5 * (np.log(values / median) / sd) ** 2)
