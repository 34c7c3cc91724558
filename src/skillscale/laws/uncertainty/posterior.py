"""The posterior of a law where runs are few: draws that include priors, noise and degrees of freedom.

In: the runs of one skill and a law. Out: the mode, and draws (K, p).

A bootstrap takes its noise from the residuals. Few runs leave none, so that its intervals shrink to a point. Here the
noise has a prior of its own. It is averaged over what the residuals leave open, which gives Student tails. Each draw
perturbs the losses by the noise and the prior means by their sd, and fits again (randomised maximum a posteriori,
Bardsley et al. 2014). That is exact for a linear law, and follows the bends of others.

The covariance is kept in two parts, of the priors and of the errors of the runs. Their ratio says who decides a number:
the runs, or the priors (``ParameterInformation.prior_share``).
"""

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from skillscale.errors import FitError
from skillscale.laws.fit.data import RunData, are_confounded
from skillscale.laws.fit.fit import REFINED, FitResult, solve, start_agreement
from skillscale.laws.fit.newton import FitProblem, SkillBlock
from skillscale.laws.fit.objective import LEAST_SQUARES
from skillscale.laws.fit.weak_priors import EXPONENT_PRIORS, has_parameter, prior_moments
from skillscale.laws.forms.nd import Array, Law

FEW_FREEDOM = (
    8  # residual degrees of freedom below which the posterior replaces the bootstrap (docs/research/coverage.md)
)
_PLAIN_PARAMETERS = 5  # of a law in N and D; those of other forms have priors
FEW_RUNS = _PLAIN_PARAMETERS + FEW_FREEDOM  # below this number the runs of one mix are few
NOISES = np.geomspace(0.0005, 0.1, 60)  # sd of a run, in ln L; the first is the least noise of any run
_NOISE_PRIOR = (0.005, 1.0)  # median and sd of the logarithm, as in the sampler's posterior
_SHARED_VARIANCE = 0.5  # share of the noise variance that the skills of a run have in common
_ROUNDS = 4
_NUISANCE_SD = 1.0  # of the effect on ln L of a share of the mix, which is nobody's evidence on N or D
_FAR = 1.5  # prior sds between two starts
_NOTHING = 1e-9  # information relative to the largest that counts as none
_LEAST_USABLE = 0.5  # share of the draws within the law's bounds below which these are not enforced


def has_few_runs(runs: RunData) -> bool:
    """Check whether runs leave so few degrees of freedom that residuals alone say little about the noise."""
    shares = 0 if runs.h is None else runs.h.shape[1] - 1
    return runs.n_clusters < FEW_RUNS + shares


@dataclass(frozen=True, kw_only=True)
class ParameterInformation:
    """Covariance of a law's log-parameters, (p, p), in two parts: from ``prior`` and from the errors of ``data``.

    ``confounded``: whether D follows N in the runs.
    """

    prior: Array = field(repr=False)
    data: Array = field(repr=False)
    confounded: bool = False

    def prior_share(self, gradient: Array) -> float:
        """Return the share of the variance that comes from the priors, for a quantity with this gradient (p,)."""
        by_prior, by_data = (max(float(gradient @ part @ gradient), 0.0) for part in (self.prior, self.data))
        return by_prior / (by_prior + by_data) if by_prior + by_data > 0 else math.nan

    def variances(self, gradient: Array) -> tuple[float, float]:
        """Return the variance of the same quantity, and that by the runs alone, without the priors."""
        total = self.prior + self.data
        scale = np.sqrt(np.diag(total))
        free = scale > 0
        g, unit = gradient[free] * scale[free], np.outer(scale, scale)[np.ix_(free, free)]
        precision = np.linalg.pinv(total[np.ix_(free, free)] / unit, hermitian=True)
        values, vectors = np.linalg.eigh(precision @ (self.data[np.ix_(free, free)] / unit) @ precision)
        alone = float(((vectors.T @ g) ** 2 / np.maximum(values, _NOTHING * values.max())).sum())
        return float(gradient @ total @ gradient), alone


@dataclass(frozen=True, kw_only=True)
class PosteriorDraws:
    """Posterior of one skill under one law: the ``fit`` at its mode, draws ``q`` (K, p), and the noise of a run."""

    fit: FitResult
    q: Array = field(repr=False)
    noise: float
    information: ParameterInformation = field(repr=False)


def sample_posterior(
    runs: RunData, law: Law, *, fixed: Mapping[str, float] | None = None, count: int = 1000, seed: int = 0
) -> PosteriorDraws:
    """Draw log-parameters of a law from their posterior.

    Row k of two skills has the same errors of the runs, as far as skills share them.

    Args:
        runs: runs of the skill.
        law: law, bound to the centre of the runs.
        fixed: values of fixed natural parameters.
        count: number of draws.
        seed: random seed.

    Raises:
        FitError: the losses are so extreme that no fit is finite.
    """
    problem = _PosteriorProblem(runs, law, dict(law.fix(name, value) for name, value in (fixed or {}).items()))
    mode, noise = problem.find_mode()
    rng = np.random.default_rng([seed, zlib.crc32(runs.L.tobytes()), zlib.crc32(law.name.encode())])
    q = problem.draw(mode, noise, count=count, rng=rng, seed=seed)
    fit = problem.fit_at(mode, noise.typical)
    return PosteriorDraws(
        fit=fit, q=q, noise=noise.typical, information=measure_information(fit, runs, noise=noise.middle)
    )


def measure_information(fit: FitResult, runs: RunData, *, noise: float | None = None) -> ParameterInformation:
    """Measure where the certainty of a fit comes from: its runs, or weak priors, whether the fit used these or not.

    Args:
        fit: fit of the runs.
        runs: runs of the fit.
        noise: sd of a run in ln L; by default that of the fit, and at least the standard error of its losses.
    """
    T = np.eye(len(fit.q))[:, list(fit.free)]
    sd = noise or max(fit.noise, runs.standard_error, float(NOISES[0]))
    by_prior, by_data = covariance_parts({"": fit}, {"": runs}, {"": T}, {"": sd})
    # A fixed exponent separates the terms, as the refusal of such runs says
    free = all(fit.law.positions(name)[0] in fit.free for name in EXPONENT_PRIORS if has_parameter(fit.law, name))
    return ParameterInformation(
        prior=T @ by_prior @ T.T, data=T @ by_data @ T.T, confounded=free and are_confounded(runs.N, runs.D)
    )


def covariance_parts(
    fits: Mapping[str, FitResult], data: Mapping[str, RunData], maps: Mapping[str, Array], noise: Mapping[str, float]
) -> tuple[Array, Array]:
    """Return the covariance (P, P) of the unknowns of one or several skills: the part of the priors, and of the errors.

    Shares of a mix may vary with N and D. What they could explain as well counts as no evidence on N or D.

    Args:
        fits: fits of the runs, by skill.
        data: runs of the fits.
        maps: maps from the unknowns to each skill's log-parameters, (p, P).
        noise: sd of a run in ln L, by skill.
    """
    size = next(iter(maps.values())).shape[1]
    moments = {name: prior_moments(fit.law, data[name])[1] for name, fit in fits.items()}
    prior_sd = np.min([np.where(maps[name] != 0, sd[:, None], np.inf).min(0) for name, sd in moments.items()], axis=0)
    information = np.zeros((size, size))
    for name, fit in fits.items():
        runs = data[name]
        jac = fit.law.jacobian(fit.q[None], runs.covariates(fit.law))[0] @ maps[name] * prior_sd
        if runs.h is not None:
            jac = np.hstack([jac, _NUISANCE_SD * (runs.h - runs.h.mean(0))[:, :-1]])
        weights = unit_weights(runs) / noise[name] ** 2
        information += _without_nuisance(jac.T @ (jac * weights[:, None]), size)
    inverse = np.linalg.inv(information + np.eye(size))
    scale = np.outer(prior_sd, prior_sd)
    return inverse @ inverse * scale, inverse @ information @ inverse * scale


def _without_nuisance(gram: Array, size: int) -> Array:
    """Return the information (size, size) on the first unknowns once the others, of prior sd 1, are integrated out."""
    across = gram[:size, size:]
    if not across.shape[1]:
        return gram
    inner = gram[size:, size:] + np.eye(across.shape[1])
    return np.asarray(gram[:size, :size] - across @ np.linalg.solve(inner, across.T))


def unit_weights(runs: RunData) -> Array:
    """Return weights of the losses, (n,), that sum to the number of runs: checkpoints share the weight of their run."""
    codes = np.asarray(runs.clusters)
    weights = np.asarray(runs.weights) / np.bincount(codes)[codes]
    return np.asarray(weights * (runs.n_clusters / weights.sum()))


@dataclass(frozen=True)
class NoiseBelief:
    """Posterior of the noise: probabilities (n_noises,) of each of ``NOISES``, none below ``least``."""

    probabilities: Array
    least: float

    @property
    def values(self) -> Array:
        """Noises, (n_noises,), in ln L."""
        return np.maximum(NOISES, self.least)

    @property
    def typical(self) -> float:
        """Root mean square: the sd of one more run."""
        return math.sqrt(float(self.probabilities @ self.values**2))

    @property
    def middle(self) -> float:
        """Geometric mean."""
        return math.exp(float(self.probabilities @ np.log(self.values)))

    def draw(self, rng: np.random.Generator, count: int) -> Array:
        """Draw noises, (count,)."""
        return rng.choice(self.values, p=self.probabilities, size=count)


def noise_given_runs(fit: FitResult, runs: RunData) -> NoiseBelief:
    """Return the posterior of the noise about a fit."""
    fixed = {at: float(fit.q[at]) for at in range(len(fit.q)) if at not in fit.free}
    return _PosteriorProblem(runs, fit.law, fixed).noise_at(fit.q[list(fit.free)])


def within_bounds(law: Law, q: Array, rng: np.random.Generator) -> Array:
    """Replace draws (K, p) beyond the law's bounds by others: the priors end there."""
    theta = law.theta(q)
    usable = np.isfinite(q).all(1)
    for name, (low, high) in law.bounds.items():
        column = theta[:, law.parameters.index(name)]
        usable &= (column > low) & (column < high)
    if usable.all() or usable.mean() < _LEAST_USABLE:
        return q
    replaced = q.copy()
    replaced[~usable] = q[rng.choice(np.flatnonzero(usable), size=int((~usable).sum()))]
    return replaced


class _PosteriorProblem:
    """The runs of one skill, a law, and the priors of its free log-parameters."""

    def __init__(self, runs: RunData, law: Law, fixed_q: Mapping[int, float]) -> None:
        self.runs, self.law = runs, law
        p = len(law.log_names)
        self.free = tuple(at for at in range(p) if at not in fixed_q)
        mean, sd = prior_moments(law, runs)
        self.mean, self.sd = mean[list(self.free)], sd[list(self.free)]
        offset = np.zeros(p)
        offset[list(fixed_q)] = list(fixed_q.values())
        self.weights = unit_weights(runs)
        self.block = SkillBlock(
            law=law, z=runs.covariates(law), responses=runs.log_L, weights=self.weights, objective=LEAST_SQUARES,
            T=np.eye(p)[:, list(self.free)], offset=offset,
        )  # fmt: skip

    def find_mode(self) -> tuple[Array, NoiseBelief]:
        """Return the mode over the free log-parameters (P,), and the noise there."""
        starts, sd = self._starts(), _NOISE_PRIOR[0]
        for at in range(_ROUNDS):
            Q, F, _ = solve(self._problem(sd), starts, typical=sd, tolerance=REFINED * sd**2)
            if not np.isfinite(F).any():
                raise FitError(
                    f"no fit of {self.law.name} is finite. Check losses, sizes and tokens for extreme values."
                )
            if at == 0:
                self.starts_found = start_agreement(F)
            mode = Q[int(np.nanargmin(F))]
            noise = self.noise_at(mode)
            starts, sd = mode[None], noise.middle
        return mode, noise

    def draw(self, mode: Array, noise: NoiseBelief, *, count: int, rng: np.random.Generator, seed: int) -> Array:
        """Return draws of all log-parameters, (count, p); those beyond the law's bounds are drawn again."""
        sds = noise.draw(rng, count)[:, None]
        errors = self._errors(count, rng, seed) / np.sqrt(np.maximum(self.weights, 1e-12))
        reference = noise.middle
        block = replace(
            self.block, responses=self.runs.log_L + sds * errors, weights=(reference / sds) ** 2 * self.weights
        )
        mean = self.mean + self.sd * rng.standard_normal((count, len(self.free)))
        problem = replace(self._problem(reference), blocks=(block,), mean=mean)
        Q, _, _ = solve(problem, np.tile(mode, (count, 1)), typical=reference, tolerance=REFINED * reference**2)
        return within_bounds(self.law, block.q(Q), rng)

    def fit_at(self, mode: Array, noise: float) -> FitResult:
        """Return the mode as a fit, whose priors weigh by the noise."""
        q = self.block.q(mode[None])
        residuals = self.runs.log_L - self.law.log_loss(q, self.block.z)[0]
        distance = (mode - self.mean) / self.sd
        return FitResult(
            law=self.law, theta=self.law.theta(q)[0], q=q[0], objective=LEAST_SQUARES, starts=self.starts_found,
            F=float(LEAST_SQUARES.total(residuals, np.asarray(self.runs.weights))), phi=noise**2,
            penalty=float(0.5 * noise**2 * distance @ distance), residuals=residuals, converged=True, free=self.free,
            prior=(self.mean, np.diag(self.sd**-2.0)),
        )  # fmt: skip

    def _problem(self, sd: float) -> FitProblem:
        return FitProblem(blocks=(self.block,), mean=self.mean, precision=np.diag((sd / self.sd) ** 2))

    def _starts(self) -> Array:
        """Return the prior mean, and the same with one of the terms E, A and B far smaller."""
        terms = [name.removeprefix("ln ").rstrip("'") for name in (self.law.log_names[at] for at in self.free)]
        smaller = [np.isin(terms, letter) * _FAR * self.sd for letter in ("E", "A", "B")]
        return np.asarray(self.mean - np.array([np.zeros(len(terms)), *smaller]))

    def noise_at(self, mode: Array) -> NoiseBelief:
        """Return the noise given the runs, with the log-parameters integrated out about the mode."""
        q = self.block.q(mode[None])
        jac = self.law.jacobian(q, self.block.z)[0][:, list(self.free)]
        errors = self.runs.log_L - self.law.log_loss(q, self.block.z)[0] + jac @ (mode - self.mean)
        scaled = jac * self.sd
        gram, right = scaled.T @ (scaled * self.weights[:, None]), scaled.T @ (errors * self.weights)
        values, vectors = np.linalg.eigh(gram)
        along, squares = (vectors.T @ right) ** 2, float(errors @ (errors * self.weights))
        v = NOISES[:, None] ** 2
        ratio = 1 + np.maximum(values, 0.0) / v
        explained = (along / (v**2 * ratio)).sum(1)
        log_likelihood = -0.5 * (
            np.log(ratio).sum(1) + self.weights.sum() * np.log(v[:, 0]) + squares / v[:, 0] - explained
        )
        median, sd = _NOISE_PRIOR
        log_posterior = log_likelihood - 0.5 * (np.log(NOISES / median) / sd) ** 2
        probabilities = np.exp(log_posterior - log_posterior.max())
        return NoiseBelief(probabilities / probabilities.sum(), self.runs.standard_error)

    def _errors(self, count: int, rng: np.random.Generator, seed: int) -> Array:
        """Draw standard normals (count, n): in part of the run, and so alike in all skills, in part of the skill."""
        shared = np.empty((count, len(self.runs)))
        labels = np.asarray(self.runs.labels).astype(str)
        for label in np.unique(labels):
            rows = np.flatnonzero(labels == label)
            of_run = np.random.default_rng([seed, zlib.crc32(label.encode())])
            shared[:, rows] = of_run.standard_normal((len(rows), count)).T
        alone = rng.standard_normal(shared.shape)
        return math.sqrt(_SHARED_VARIANCE) * shared + math.sqrt(1 - _SHARED_VARIANCE) * alone
