"""Draws of a fit's parameters: how far they would move had the runs come out differently.

Four ways, all from one shared design with the resamples as weights or responses:

- ``wild``: each cluster's pull on the optimum, inflated for leverage, changes sign, and Student's tails stand for the
  degrees of freedom; the losses are moved as far as that moves the law to first order, and the law is fitted to them
  (the default: it keeps the design, and its coverage is the best measured);
- ``run``: whole runs (clusters of checkpoints) drawn with replacement;
- ``budget``: whole budgets drawn with replacement, for errors that a budget's runs share;
- ``laplace``: the same pulls times normals, as one step in the parameters; the quick one.

A weak prior counts as one more observation, whose error is drawn too: else what only the prior tells would seem known.
The coverage is measured by ``benchmarks/law_coverage.py``.
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
from skillscale.laws.fit.newton import FitProblem
from skillscale.laws.fit.objective import LEAST_SQUARES, density
from skillscale.laws.forms.nd import Array

Codes = npt.NDArray[np.intp]
Labels = npt.NDArray[np.str_]
EXACT = 4_000_000  # resamples x runs x unknowns up to which each resample is followed to its minimum
AT_ONCE = 2_000_000  # resamples x runs that are drawn at once: memory stays flat in the resamples
_LEAST_CLUSTERS = 3
_LEAST_SLACK = 0.1  # of a run's 1 - leverage: one that the law passes through whatever its loss tells no error
_NORMAL_WITHIN_3 = 0.9733  # variance of a standard normal that was cut at 3


class ResamplingMethod(StrEnum):
    """How draws are made."""

    WILD = "wild"
    RUN = "run"
    BUDGET = "budget"
    LAPLACE = "laplace"


@dataclass(frozen=True, kw_only=True)
class ClusterResamples:
    """What befalls named clusters in K resamples: one set for all skills, so that their differences are paired.

    A sign (wild), a count (run, budget) or a normal (laplace) of each cluster in each of the resamples from ``first``
    on, and a uniform that becomes the chi2 of each fit's own degrees of freedom. Nothing is kept: every resample has a
    seed of its own, so that memory stays flat in their number.
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
        """``count`` resamples of these clusters; a label may come more than once."""
        return cls(labels=np.unique(np.asarray(labels).astype(str)), method=method, seed=seed, count=count)

    def rows(self, first: int, count: int) -> "ClusterResamples":
        """Some of the resamples."""
        return replace(self, first=self.first + first, count=min(count, self.count - first))

    def _generators(self) -> Iterator[tuple[float, np.random.Generator]]:
        """The uniform of each resample, and what draws the rest of it."""
        for at in range(self.first, self.first + self.count):
            rng = np.random.default_rng([self.seed, at])
            yield float(rng.random()), rng

    def _row(self, rng: np.random.Generator) -> Array:
        """What befalls each cluster in a resample, (n_labels,)."""
        n = len(self.labels)
        if self.method is ResamplingMethod.WILD:
            return np.asarray(2 * rng.integers(2, size=n) - 1, dtype=float)
        if self.method is ResamplingMethod.LAPLACE:
            return rng.standard_normal(n)
        return np.bincount(rng.integers(n, size=n), minlength=n).astype(float)

    @property
    def uniforms(self) -> Array:
        """(count, 1)."""
        return np.array([[uniform] for uniform, _ in self._generators()])

    def of(self, labels: Labels) -> Array:
        """The columns of some clusters, each named once."""
        places = np.searchsorted(self.labels, labels)
        return np.array([self._row(rng)[places] for _, rng in self._generators()])

    def factors(self, labels: Labels, freedom: float) -> Array:
        """By how much each cluster's errors or pull is multiplied, (K, n_labels), with Student's tails."""
        if self.method in (ResamplingMethod.RUN, ResamplingMethod.BUDGET):
            return self.of(labels) - 1
        return self.of(labels) * self.student(freedom)

    def student(self, freedom: float) -> Array:
        """One scale a resample, (K, 1): Student's tails for the degrees of freedom."""
        return np.asarray(np.sqrt(freedom / chi2.ppf(self.uniforms, freedom)))

    def alone(self, points: RunData) -> np.random.Generator:
        """Of one fit's own: its priors' errors are no other's, though its runs may be."""
        return np.random.default_rng([self.seed, zlib.crc32(points.L.tobytes())])


@dataclass(frozen=True, kw_only=True)
class SandwichCovariance:
    """The curvature of a problem at its optimum, and what pulled on it: each cluster, and the weak priors.

    ``H``: (P, P) Hessian; ``pulls``: (n_clusters, P) gradients, inflated for leverage (CR3); ``beliefs``: (P, P), whose
    product with standard normals is what the priors' means pull, were they drawn again; ``freedom``: degrees of freedom
    that the clusters leave.
    """

    H: Array
    pulls: Array
    beliefs: Array
    freedom: float

    @property
    def inverse(self) -> Array:
        """H^-1, (P, P); directions that nothing tells are left out."""
        return np.asarray(np.linalg.pinv(self.H, rcond=1e-13, hermitian=True))

    @property
    def covariance(self) -> Array:
        """Cluster-robust covariance of the unknowns, (P, P), with the priors' own."""
        spread = np.vstack([self.pulls, self.beliefs.T]) @ self.inverse
        return np.asarray(spread.T @ spread)

    def step(self, factors: Array, normal: Array) -> Array:
        """Moves of the unknowns (K, P) for factors of each cluster's pull (K, n_clusters) and of the priors' (K, P)."""
        return np.asarray((factors @ self.pulls + normal @ self.beliefs.T) @ self.inverse)


def draws(
    fit: FitResult, points: RunData, *, method: ResamplingMethod = ResamplingMethod.WILD, count: int = 1000, seed: int = 0,
    budgets: npt.NDArray[np.generic] | None = None, one_step: bool | None = None, chance: ClusterResamples | None = None,
) -> Array:  # fmt: skip
    """Log-parameters (count, p) of resampled fits.

    Args:
        fit: of the points.
        points: the runs, with their clusters.
        method: how to resample.
        count: resamples.
        seed: of chance.
        budgets: (n,) labels, for ``budget``.
        one_step: whether resamples take one step of the shared curvature instead of their whole way; by default where
            the whole way would be long (count x runs x unknowns above ``EXACT``).
        chance: of more clusters than these, in place of ``method``, ``count`` and ``seed``: fits that are given the
            same one are resampled together.

    Raises:
        FitError: fewer than 3 clusters to resample.
        InputError: budgets are resampled and not told.
    """
    method = method if chance is None else chance.method
    labels, codes = np.unique(resample(points, method, budgets), return_inverse=True)
    if len(labels) < _LEAST_CLUSTERS:
        raise FitError(
            f"{len(labels)} clusters can't be resampled by {method}; it takes {_LEAST_CLUSTERS}: resample by run, or "
            "add some"
        )
    luck = ClusterResamples.draw(labels, method, count=count, seed=seed) if chance is None else chance
    count = luck.count
    quick = one_step if one_step is not None else count * len(points) * fit.n_free > EXACT
    normal = luck.alone(points).normal(size=(count, fit.n_free))
    followed = _Resampling(fit, points, labels, codes, quick=quick)
    rows = max(1, AT_ONCE // len(points))
    parts = [followed.some(luck.rows(first, rows), normal[first : first + rows]) for first in range(0, count, rows)]
    return np.vstack(parts)


class _Resampling:
    """Follows some resamples at a time, so that memory stays flat in their number."""

    def __init__(self, fit: FitResult, points: RunData, labels: Labels, codes: Codes, *, quick: bool) -> None:
        self.fit, self.points, self.labels, self.codes, self.quick = fit, points, labels, codes, quick
        self.center, self.problem = fit.q[list(fit.free)], fit.problem(points)
        self.bread = sandwich(self.problem, self.center, codes, phi=fit.phi)

    def some(self, luck: "ClusterResamples", normal: Array) -> Array:
        """Log-parameters of the resamples in ``luck``; ``normal``: what befalls the priors in each."""
        if not self.quick and luck.method in (ResamplingMethod.RUN, ResamplingMethod.BUDGET):
            weights = luck.of(self.labels)[:, self.codes] * np.asarray(self.points.weights)
            means = _prior_means(self.fit, normal, about=self.fit.prior[0])
            return refit(self.fit, self.points, weights=weights, mean=means)[0]
        moves = self.bread.step(luck.factors(self.labels, self.bread.freedom), normal)
        if self.quick or luck.method is ResamplingMethod.LAPLACE:
            return self.problem.parts[0].q(self.center + moves)
        return _followed(self.fit, self.points, moves)


def resample(points: RunData, method: ResamplingMethod, budgets: npt.NDArray[np.generic] | None = None) -> Labels:
    """Label of what each run is resampled with, (n,).

    Raises:
        InputError: budgets are resampled and not told.
    """
    if method is not ResamplingMethod.BUDGET:
        return np.asarray(points.labels).astype(str)
    if budgets is None:
        raise InputError("resampling by budget needs the budget of every run; give `budgets`, or resample by run")
    return np.asarray(budgets).astype(str)


def sandwich(problem: FitProblem, Q: Array, codes: Codes, *, phi: float = 0.0) -> SandwichCovariance:
    """Curvature and pulls at the optimum of a problem of one or several parts whose clusters are coded alike.

    The curvature is Gauss and Newton's, with rho'' smoothed where the loss curves at few errors only (Powell 1991).

    Args:
        problem: solved.
        Q: its unknowns, (P,).
        codes: cluster of each run, (n,); the parts' runs one after the other.
        phi: scale of the objective, which tells the priors' own errors; 0 leaves them out.
    """
    jac, errors = _stacked(problem, Q)
    spread = ParameterCovariance.of(jac, problem.precision, codes)
    share = spread.parameters / len(problem.parts)
    bend = np.concatenate([density(part.objective, part.errors(Q[None])[0], share) for part in problem.parts])
    H: Array = problem.precision + jac.T @ (bend[:, None] * jac)
    pulls = np.zeros((int(codes.max()) + 1, len(Q)))
    np.add.at(pulls, codes, spread.inflate(errors, 1.0)[:, None] * jac)
    return SandwichCovariance(
        H=H,
        pulls=pulls,
        beliefs=math.sqrt(phi) * _root(problem.precision),
        freedom=spread.freedom(parts=len(problem.parts)),
    )


def _stacked(problem: FitProblem, Q: Array) -> tuple[Array, Array]:
    """Jacobian (n, P) and rho' (n,) of all parts' runs, one after the other, each times the root of its weight."""
    roots = [np.sqrt(np.broadcast_to(part.weights, (len(part.z),))) for part in problem.parts]
    jacs = [part.law.jacobian(part.q(Q[None]), part.z)[0] @ part.T for part in problem.parts]
    slopes = [part.objective.slope(part.errors(Q[None])[0]) for part in problem.parts]
    jac = np.vstack([root[:, None] * own for root, own in zip(roots, jacs, strict=True)])
    return jac, np.concatenate([root * slope for root, slope in zip(roots, slopes, strict=True)])


def _root(precision: Array) -> Array:
    """R with R R' = precision."""
    values, vectors = np.linalg.eigh(precision)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0)))


@dataclass(frozen=True)
class ParameterCovariance:
    """How a fit shrinks the errors of the runs it was made of: ``basis`` (n, P) spans what the fit can follow.

    ``codes``: clusters, (n,); the fit takes basis basis' off the errors.
    """

    basis: Array
    codes: Codes

    @classmethod
    def of(cls, jac: Array, precision: Array, codes: Codes) -> "ParameterCovariance":
        """From weighted rows of the Jacobian (n, P) and the priors' precision."""
        gram = jac.T @ jac + precision
        scale = np.sqrt(np.diag(gram)) + 1e-150
        values, vectors = np.linalg.eigh(gram / np.outer(scale, scale))
        told = values > 1e-12 * values[-1]
        return cls(jac / scale @ (vectors[:, told] / np.sqrt(values[told])), codes)

    @property
    def parameters(self) -> float:
        """Parameters that the runs tell, a weak prior's part taken off."""
        return float((self.basis**2).sum())

    def freedom(self, *, parts: int = 1) -> float:
        """Degrees of freedom that the clusters leave a skill, at least 1; ``parts``: skills fitted at once."""
        return max(int(self.codes.max()) + 1 - self.parameters / parts, 1.0)

    def inflate(self, errors: Array, power: float) -> Array:
        """Errors (n,) as they were before the fit followed them: (1 - leverage)^-power, by blocks of clusters.

        Power 1/2 makes their variance right on average (HC2; CR2 of Bell & McCaffrey 2002). Power 1 (HC3, the
        jackknife's) makes up for how few runs decide a parameter as well: its intervals cover best (docs/research/coverage.md).
        """
        slack = np.maximum(1 - (self.basis**2).sum(1), _LEAST_SLACK)
        n_clusters = int(self.codes.max()) + 1
        if n_clusters == len(errors):
            return np.asarray(errors * slack**-power)
        order = np.argsort(self.codes, kind="stable")
        first = np.searchsorted(self.codes[order], np.arange(n_clusters))
        outer = self.basis[order, :, None] * self.basis[order, None, :]
        values, vectors = np.linalg.eigh(np.add.reduceat(outer, first))
        values = np.clip(values, 0.0, 1 - _LEAST_SLACK)
        growth = ((1 - values) ** -power - 1) / np.maximum(values, 1e-12)
        along = np.add.reduceat(self.basis[order] * errors[order, None], first)
        grown = np.einsum("cpk,ck,cqk,cq->cp", vectors, growth, vectors, along)
        return np.asarray(errors + (self.basis * grown[self.codes]).sum(1))


def _followed(fit: FitResult, points: RunData, moves: Array) -> Array:
    """Log-parameters (K, p) whose losses are the nearest to those that ``moves`` (K, n_free) promise to first order.

    Runs tell losses, so that errors are symmetric there, not in E or an exponent that they hardly tell.
    """
    problem, center = fit.problem(points), fit.q[list(fit.free)]
    part = problem.parts[0]
    jac = part.law.jacobian(fit.q[None], part.z)[0] @ part.T
    squares = replace(fit, objective=LEAST_SQUARES, phi=fit.noise**2)
    return refit(squares, points, points.log_L - fit.residuals + moves @ jac.T, mean=center + moves)[0]


def _spread(fit: FitResult, points: RunData, codes: Codes) -> ParameterCovariance:
    problem = fit.problem(points)
    return ParameterCovariance.of(_stacked(problem, fit.q[list(fit.free)])[0], problem.precision, codes)


def _bulk(errors: Array) -> float:
    """Sd of errors about 0, without those beyond 3 robust sd."""
    size = np.abs(errors)
    kept = size[size <= 3 * 1.4826 * np.median(size)]
    return math.sqrt(float(np.mean(kept**2)) / _NORMAL_WITHIN_3) if len(kept) else 0.0


def _prior_means(fit: FitResult, normal: Array, *, about: Array) -> Array:
    """Means of the weak priors (K, n_free), each drawn again about the given ones (n_free,)."""
    precision = np.diag(fit.prior[1])
    sd = np.where(precision > 0, 1 / np.sqrt(np.where(precision > 0, precision, 1.0)), 0.0)
    return np.asarray(about + normal * sd)


def new_run_sd(fit: FitResult, points: RunData) -> float:
    """Sd of a new run about the law, in ln L: its cluster's part and its own, inflated for leverage.

    It is that of the bulk of the runs: outliers (beyond 3 robust sd) are left out, for they would widen every
    interval for the sake of few runs. A new run may be an outlier as often as the fitted ones were; an interval misses
    it then. Where the noise changes with N or D it is that of the average run fitted.
    """
    spread = _spread(fit, points, np.asarray(points.clusters))
    used = np.asarray(points.weights) > 0
    root = np.sqrt(np.asarray(points.weights))
    return _bulk(spread.inflate(root * fit.residuals, 0.5)[used] / root[used])
