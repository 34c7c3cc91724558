"""Draws of a fit's parameters: how far the parameters would move if the runs had come out differently.

In: a fit, its runs with clusters, and a resampling method. Out: draws (count, p) of the log-parameters. Four methods:

- ``wild``: each cluster's score at the optimum, corrected for leverage, changes sign at random, with Student tails for
  the degrees of freedom. The losses move as that moves the law to first order, and the law is fitted to them. This is
  the default: it keeps the design, and its measured coverage is best.
- ``run``: whole runs (clusters of checkpoints) drawn with replacement.
- ``budget``: whole budgets drawn with replacement, for errors that the runs of a budget share.
- ``laplace``: the same scores times normals, as one step in the parameters. This is the fastest. Where E is next to 0,
  the law is fitted to the moved losses as for ``wild``.

A weak prior counts as one more observation, whose error is drawn too. Otherwise a parameter that only the prior
determines would look certain. ``benchmarks/law_coverage.py`` measures the coverage.
"""

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from skillscale.errors import FitError, InputError
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.fit import FitResult, refit
from skillscale.laws.fit.gauss_newton import approach_minima, nearest_start
from skillscale.laws.fit.newton import FitProblem, minimise, move_in_terms
from skillscale.laws.fit.objective import LEAST_SQUARES, mean_curvature
from skillscale.laws.forms.nd import Array

Codes = npt.NDArray[np.intp]
Labels = npt.NDArray[np.str_]
MAX_EXACT_WORK = 4_000_000  # resamples x runs x unknowns up to which each resample is a full fit
AT_ONCE = 2_000_000  # resamples x runs per batch, which bounds the memory
_MIN_CLUSTERS = 3
_MIN_SLACK = 0.1  # least 1 - leverage: the error of a run with leverage 1 can't be estimated
_FLOOR = "ln E"
_LONGEST_SD = 1.0  # sd of ln E above which one step does not follow the losses
_REFINED = 1e-10  # units of log-likelihood at which the fit of moved losses stops
_NORMAL_WITHIN_3 = 0.9733  # variance of a standard normal truncated at 3


class ResamplingMethod(StrEnum):
    """Method of drawing parameters."""

    WILD = "wild"
    RUN = "run"
    BUDGET = "budget"
    LAPLACE = "laplace"


@dataclass(frozen=True, kw_only=True)
class ClusterResamples:
    """K resamples of named clusters: one set for all skills, so that their differences are paired.

    Each cluster has a sign (wild), a count (run, budget) or a normal (laplace) in each of the resamples from ``first``
    on. Each resample has a uniform that becomes the chi2 of each fit's degrees of freedom. Nothing is stored: every
    resample has its seed, so memory does not grow with their number.
    """

    labels: Labels
    method: ResamplingMethod
    seed: int
    count: int
    first: int = 0

    @classmethod
    def draw(
        cls, labels: npt.NDArray[np.generic], method: ResamplingMethod, *, count: int, seed: int
    ) -> "ClusterResamples":
        """Define ``count`` resamples of these clusters. A label may occur more than once."""
        return cls(labels=np.unique(np.asarray(labels).astype(str)), method=method, seed=seed, count=count)

    def subset(self, first: int, count: int) -> "ClusterResamples":
        """Return ``count`` of the resamples, from ``first`` on."""
        return replace(self, first=self.first + first, count=min(count, self.count - first))

    def _generators(self) -> Iterator[tuple[float, np.random.Generator]]:
        """Yield the uniform of each resample, and the generator of the rest of it."""
        for at in range(self.first, self.first + self.count):
            rng = np.random.default_rng([self.seed, at])
            yield float(rng.random()), rng

    def _row(self, rng: np.random.Generator) -> Array:
        """Draw the value of each cluster in one resample, (n_labels,)."""
        n = len(self.labels)
        if self.method is ResamplingMethod.WILD:
            return np.asarray(2 * rng.integers(2, size=n) - 1, dtype=float)
        if self.method is ResamplingMethod.LAPLACE:
            return rng.standard_normal(n)
        return np.bincount(rng.integers(n, size=n), minlength=n).astype(float)

    @property
    def uniforms(self) -> Array:
        """Uniform of each resample, (count, 1)."""
        return np.array([[uniform] for uniform, _ in self._generators()])

    def for_clusters(self, labels: Labels) -> Array:
        """Return the columns of some clusters, each listed once."""
        places = np.searchsorted(self.labels, labels)
        return np.array([self._row(rng)[places] for _, rng in self._generators()])

    def factors(self, labels: Labels, degrees_of_freedom: float) -> Array:
        """Return factors of each cluster's errors or scores, (K, n_labels), with Student tails."""
        if self.method in (ResamplingMethod.RUN, ResamplingMethod.BUDGET):
            return self.for_clusters(labels) - 1
        return self.for_clusters(labels) * self.student_scale(degrees_of_freedom)

    def student_scale(self, degrees_of_freedom: float) -> Array:
        """Return one scale per resample, (K, 1): Student tails for the degrees of freedom."""
        return np.asarray(np.sqrt(degrees_of_freedom / chi2.ppf(self.uniforms, degrees_of_freedom)))

    def fit_generator(self, runs: RunData) -> np.random.Generator:
        """Return the generator of one fit: its priors' errors are independent of other fits, even on the same runs."""
        return np.random.default_rng([self.seed, zlib.crc32(runs.L.tobytes())])


@dataclass(frozen=True, kw_only=True)
class SandwichCovariance:
    """Curvature of a problem at its optimum, and the scores there of each cluster and of the weak priors.

    ``H``: Hessian, (P, P). ``cluster_scores``: gradients, (n_clusters, P), corrected for leverage (CR3).
    ``prior_root``: (P, P); its product with standard normals is the score of redrawn prior means.
    ``degrees_of_freedom``: those that the clusters leave.
    """

    H: Array
    cluster_scores: Array
    prior_root: Array
    degrees_of_freedom: float

    @property
    def inverse(self) -> Array:
        """H^-1, (P, P), without directions that nothing determines."""
        return np.asarray(np.linalg.pinv(self.H, rcond=1e-13, hermitian=True))

    @property
    def covariance(self) -> Array:
        """Cluster-robust covariance of the unknowns, (P, P), including that of the priors."""
        spread = np.vstack([self.cluster_scores, self.prior_root.T]) @ self.inverse
        return np.asarray(spread.T @ spread)

    def step(self, factors: Array, normal: Array) -> Array:
        """Return steps of the unknowns, (K, P).

        Args:
            factors: factors of each cluster's score, (K, n_clusters).
            normal: standard normals for the priors, (K, P).
        """
        return np.asarray((factors @ self.cluster_scores + normal @ self.prior_root.T) @ self.inverse)


def draw_parameters(
    fit: FitResult, runs: RunData, *, method: ResamplingMethod = ResamplingMethod.WILD, count: int = 1000,
    seed: int = 0, budgets: npt.NDArray[np.generic] | None = None, one_step: bool | None = None,
    cluster_resamples: ClusterResamples | None = None,
) -> Array:  # fmt: skip
    """Draw log-parameters (count, p) of resampled fits.

    Args:
        fit: fit of the runs.
        runs: runs with their clusters.
        method: resampling method.
        count: number of resamples.
        seed: random seed.
        budgets: budget labels, (n,), for ``budget``.
        one_step: whether each resample takes one step of the common curvature instead of a full fit. By default where
            full fits would be slow (count x runs x unknowns above ``MAX_EXACT_WORK``).
        cluster_resamples: resamples of these and perhaps more clusters, in place of ``method``, ``count`` and ``seed``.
            Fits with the same value are resampled together.

    Raises:
        FitError: fewer than 3 clusters to resample.
        InputError: budgets are resampled and not given.
    """
    method = method if cluster_resamples is None else cluster_resamples.method
    labels, codes = np.unique(resampling_labels(runs, method, budgets), return_inverse=True)
    if len(labels) < _MIN_CLUSTERS:
        raise FitError(
            f"{len(labels)} clusters can't be resampled by {method}, which needs {_MIN_CLUSTERS}. Resample by run, or "
            "add clusters."
        )
    resamples = cluster_resamples or ClusterResamples.draw(labels, method, count=count, seed=seed)
    count = resamples.count
    quick = one_step if one_step is not None else count * len(runs) * fit.n_free > MAX_EXACT_WORK
    normal = resamples.fit_generator(runs).normal(size=(count, fit.n_free))
    resampler = _Resampler(fit, runs, labels, codes, one_step=quick)
    per_batch = max(1, AT_ONCE // len(runs))
    starts = range(0, count, per_batch)
    return np.vstack([resampler.draw(resamples.subset(at, per_batch), normal[at : at + per_batch]) for at in starts])


class _Resampler:
    """Draws parameters for some resamples at a time, so that memory does not grow with their number."""

    def __init__(self, fit: FitResult, runs: RunData, labels: Labels, codes: Codes, *, one_step: bool) -> None:
        self.fit, self.runs, self.labels, self.codes, self.one_step = fit, runs, labels, codes, one_step
        self.center, self.problem = fit.q[list(fit.free)], fit.build_problem(runs)
        self.bread = sandwich(self.problem, self.center, codes, phi=fit.phi)
        self.free_names = [fit.law.log_names[at] for at in fit.free]

    def draw(self, resamples: "ClusterResamples", normal: Array) -> Array:
        """Return log-parameters of some resamples; ``normal``: standard normals for the priors in each."""
        if not self.one_step and resamples.method in (ResamplingMethod.RUN, ResamplingMethod.BUDGET):
            weights = resamples.for_clusters(self.labels)[:, self.codes] * np.asarray(self.runs.weights)
            means = _prior_means(self.fit, normal, about=self.fit.prior[0])
            return refit(self.fit, self.runs, weights=weights, mean=means)[0]
        moves = self.bread.step(resamples.factors(self.labels, self.bread.degrees_of_freedom), normal)
        if not self.one_step and (resamples.method is not ResamplingMethod.LAPLACE or self._bends(moves)):
            return _refit_moved(self.fit, self.runs, moves)
        if self._bends(moves):
            moves[:, self.free_names.index(_FLOOR)] = 0.0
        return self.problem.blocks[0].q(self.center + moves)

    def _bends(self, moves: Array) -> bool:
        """Check whether steps of ln E are so long that no straight line follows the losses: E is next to 0."""
        return _FLOOR in self.free_names and float(np.std(moves[:, self.free_names.index(_FLOOR)])) > _LONGEST_SD


def resampling_labels(
    runs: RunData, method: ResamplingMethod, budgets: npt.NDArray[np.generic] | None = None
) -> Labels:
    """Return the label of the cluster that each run is resampled with, (n,).

    Raises:
        InputError: budgets are resampled and not given.
    """
    if method is not ResamplingMethod.BUDGET:
        return np.asarray(runs.labels).astype(str)
    if budgets is None:
        raise InputError("resampling by budget needs the budget of every run. Give `budgets`, or resample by run.")
    return np.asarray(budgets).astype(str)


def sandwich(problem: FitProblem, Q: Array, codes: Codes, *, phi: float = 0.0) -> SandwichCovariance:
    """Compute curvature and scores at the optimum of a problem. All its blocks code their clusters the same way.

    The curvature is Gauss-Newton's, with rho'' smoothed where the loss curves at few errors only (Powell 1991).

    Args:
        problem: solved problem of one or several blocks.
        Q: its unknowns, (P,).
        codes: cluster of each run, (n,), block after block.
        phi: scale of the objective, which sets the errors of the priors; 0 ignores them.
    """
    jac, errors = _stack_blocks(problem, Q)
    covariance = ParameterCovariance.from_jacobian(jac, problem.precision, codes)
    n_parameters = covariance.effective_parameters / len(problem.blocks)
    curvature = np.concatenate(
        [mean_curvature(block.objective, block.errors(Q[None])[0], n_parameters) for block in problem.blocks]
    )
    H: Array = problem.precision + jac.T @ (curvature[:, None] * jac)
    cluster_scores = np.zeros((int(codes.max()) + 1, len(Q)))
    np.add.at(cluster_scores, codes, covariance.inflate(errors, 1.0)[:, None] * jac)
    return SandwichCovariance(
        H=H,
        cluster_scores=cluster_scores,
        prior_root=math.sqrt(phi) * _square_root(problem.precision),
        degrees_of_freedom=covariance.degrees_of_freedom(n_skills=len(problem.blocks)),
    )


def _stack_blocks(problem: FitProblem, Q: Array) -> tuple[Array, Array]:
    """Return Jacobian (n, P) and rho' (n,) of all blocks' runs, each row times the root of its weight."""
    roots = [np.sqrt(np.broadcast_to(block.weights, (len(block.z),))) for block in problem.blocks]
    jacs = [block.law.jacobian(block.q(Q[None]), block.z)[0] @ block.T for block in problem.blocks]
    slopes = [block.objective.slope(block.errors(Q[None])[0]) for block in problem.blocks]
    jac = np.vstack([root[:, None] * block_jac for root, block_jac in zip(roots, jacs, strict=True)])
    return jac, np.concatenate([root * slope for root, slope in zip(roots, slopes, strict=True)])


def _square_root(precision: Array) -> Array:
    """Return R with R R' = precision."""
    values, vectors = np.linalg.eigh(precision)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0)))


@dataclass(frozen=True)
class ParameterCovariance:
    """How a fit shrinks the errors of its runs. The fit subtracts basis basis' errors from the errors.

    ``basis``: (n, P), spans what the fit can follow. ``codes``: clusters, (n,).
    """

    basis: Array
    codes: Codes

    @classmethod
    def from_jacobian(cls, jac: Array, precision: Array, codes: Codes) -> "ParameterCovariance":
        """Build it from weighted rows of the Jacobian (n, P) and the priors' precision."""
        gram = jac.T @ jac + precision
        scale = np.sqrt(np.diag(gram)) + 1e-150
        values, vectors = np.linalg.eigh(gram / np.outer(scale, scale))
        determined = values > 1e-12 * values[-1]
        return cls(jac / scale @ (vectors[:, determined] / np.sqrt(values[determined])), codes)

    @property
    def effective_parameters(self) -> float:
        """Number of parameters that the runs determine, without the part of weak priors."""
        return float((self.basis**2).sum())

    def degrees_of_freedom(self, *, n_skills: int = 1) -> float:
        """Return degrees of freedom that the clusters leave per skill, at least 1, for ``n_skills`` fitted at once."""
        return max(int(self.codes.max()) + 1 - self.effective_parameters / n_skills, 1.0)

    def inflate(self, errors: Array, power: float) -> Array:
        """Undo the shrinkage of errors (n,) by the fit: (1 - leverage)^-power, by blocks of clusters.

        Power 1/2 gives unbiased variances (HC2; CR2 of Bell & McCaffrey 2002). Power 1 (HC3, the jackknife's) also
        corrects for parameters that few runs determine. Its intervals cover best (docs/research/coverage.md).
        """
        slack = np.maximum(1 - (self.basis**2).sum(1), _MIN_SLACK)
        n_clusters = int(self.codes.max()) + 1
        if n_clusters == len(errors):
            return np.asarray(errors * slack**-power)
        order = np.argsort(self.codes, kind="stable")
        first = np.searchsorted(self.codes[order], np.arange(n_clusters))
        outer = self.basis[order, :, None] * self.basis[order, None, :]
        values, vectors = np.linalg.eigh(np.add.reduceat(outer, first))
        values = np.clip(values, 0.0, 1 - _MIN_SLACK)
        growth = ((1 - values) ** -power - 1) / np.maximum(values, 1e-12)
        along = np.add.reduceat(self.basis[order] * errors[order, None], first)
        grown = np.einsum("cpk,ck,cqk,cq->cp", vectors, growth, vectors, along)
        return np.asarray(errors + (self.basis * grown[self.codes]).sum(1))


def _refit_moved(fit: FitResult, runs: RunData, moves: Array) -> Array:
    """Return log-parameters (K, p) whose losses are nearest to those that ``moves`` (K, n_free) give to first order.

    Errors are symmetric in the losses, which the runs measure, and not in E or in a poorly determined exponent.
    """
    problem, center = fit.build_problem(runs), fit.q[list(fit.free)]
    block = problem.blocks[0]
    jac = block.law.jacobian(fit.q[None], block.z)[0] @ block.T
    squares = replace(fit, objective=LEAST_SQUARES, phi=fit.noise**2)
    problem = squares.build_problem(runs, log_L=runs.log_L - fit.residuals + moves @ jac.T, mean=center + moves)
    centers, tolerance = np.tile(center, (len(moves), 1)), _REFINED * squares.phi
    starts = (centers, centers + moves, move_in_terms(centers, moves, problem.logarithms))
    Q, done = approach_minima(problem, nearest_start(problem, starts), tolerance=tolerance)
    if len(rest := np.flatnonzero(~done)):
        Q[rest] = minimise(problem.rows(rest), Q[rest], tolerance=tolerance)[0]
    return problem.blocks[0].q(Q)


def _parameter_covariance(fit: FitResult, runs: RunData, codes: Codes) -> ParameterCovariance:
    problem = fit.build_problem(runs)
    return ParameterCovariance.from_jacobian(_stack_blocks(problem, fit.q[list(fit.free)])[0], problem.precision, codes)


def _core_sd(errors: Array) -> float:
    """Return the sd of errors about 0, without those beyond 3 robust sd."""
    size = np.abs(errors)
    kept = size[size <= 3 * 1.4826 * np.median(size)]
    return math.sqrt(float(np.mean(kept**2)) / _NORMAL_WITHIN_3) if len(kept) else 0.0


def _prior_means(fit: FitResult, normal: Array, *, about: Array) -> Array:
    """Draw means of the weak priors, (K, n_free), about the given ones (n_free,)."""
    precision = np.diag(fit.prior[1])
    sd = np.where(precision > 0, 1 / np.sqrt(np.where(precision > 0, precision, 1.0)), 0.0)
    return np.asarray(about + normal * sd)


def new_run_sd(fit: FitResult, runs: RunData) -> float:
    """Return the sd of a new run about the law, in ln L, corrected for leverage: its cluster's part and its own part.

    Outliers (beyond 3 robust sd) are excluded, because they would widen every interval for the sake of few runs. A new
    run may be an outlier as often as the fitted runs were, and then the interval misses it. Where the noise changes
    with N or D, the sd is that of the average fitted run.
    """
    covariance = _parameter_covariance(fit, runs, np.asarray(runs.clusters))
    used = np.asarray(runs.weights) > 0
    root = np.sqrt(np.asarray(runs.weights))
    return _core_sd(covariance.inflate(root * fit.residuals, 0.5)[used] / root[used])
