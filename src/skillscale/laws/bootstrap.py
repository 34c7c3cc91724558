"""Draws of a fit's parameters: how far they would move had the runs come out differently.

Four ways, all from one shared design with the resamples as weights or responses:

- ``wild``: each cluster's errors, inflated by their leverage, change sign together, and Student's tails stand for the
  degrees of freedom (the default: it keeps the design, and its coverage is the best measured);
- ``run``: whole runs (clusters of checkpoints) drawn with replacement;
- ``budget``: whole budgets drawn with replacement, for errors that a budget's runs share;
- ``laplace``: a normal about the optimum with the cluster-robust covariance; the quick one.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from skillscale.errors import FitError
from skillscale.laws.fit import Fit, refit
from skillscale.laws.forms import Array
from skillscale.laws.newton import Problem
from skillscale.laws.objective import density
from skillscale.laws.points import Points

Codes = npt.NDArray[np.intp]
Labels = npt.NDArray[np.str_]
EXACT = 4_000_000  # resamples x runs x unknowns up to which each resample is followed to its minimum
_LEAST_CLUSTERS = 3
_LEAST_SLACK = 0.05  # of a run's 1 - leverage: one that the law passes through whatever its loss tells no error


class Method(StrEnum):
    """How draws are made."""

    WILD = "wild"
    RUN = "run"
    BUDGET = "budget"
    LAPLACE = "laplace"


@dataclass(frozen=True, kw_only=True)
class Chance:
    """What befalls named clusters in K resamples: one set for all skills, so that their differences are paired.

    ``table``: (K, n_labels) a sign (wild), a count (run, budget) or a normal (laplace) of each cluster; ``uniforms``:
    (K, 1), which become the chi2 of each fit's own degrees of freedom.
    """

    labels: Labels
    method: Method
    table: Array
    uniforms: Array

    @classmethod
    def draw(cls, labels: npt.NDArray[np.generic], method: Method, *, count: int, seed: int) -> "Chance":
        """Draw ``count`` resamples of these clusters; a label may come more than once."""
        rng = np.random.default_rng(seed)
        names = np.unique(np.asarray(labels).astype(str))
        n = len(names)
        uniforms = rng.random((count, 1))
        if method is Method.WILD:
            table = rng.choice([-1.0, 1.0], size=(count, n))
        elif method is Method.LAPLACE:
            table = rng.normal(size=(count, n))
        else:
            table = rng.multinomial(n, np.full(n, 1 / n), size=count).astype(float)
        return cls(labels=names, method=method, table=table, uniforms=uniforms)

    def of(self, labels: Labels) -> Array:
        """The columns of some clusters, each named once."""
        return np.asarray(self.table[:, np.searchsorted(self.labels, labels)])

    def shifts(self, labels: Labels, freedom: float) -> Array:
        """By how much each cluster's pull moves the unknowns in one step, (K, n_labels), with Student's tails."""
        if self.method in (Method.RUN, Method.BUDGET):
            return self.of(labels) - 1
        student: Array = np.sqrt(freedom / chi2.ppf(self.uniforms, freedom))
        return self.of(labels) * student


@dataclass(frozen=True, kw_only=True)
class Sandwich:
    """The curvature of a problem at its optimum, and each cluster's pull on it.

    ``H``: (P, P) Hessian; ``pulls``: (n_clusters, P) gradients, inflated for leverage (CR2-like); ``freedom``: degrees
    of freedom that the clusters leave.
    """

    H: Array
    pulls: Array
    freedom: float

    @property
    def inverse(self) -> Array:
        """H^-1, (P, P); directions that nothing tells are left out."""
        return np.asarray(np.linalg.pinv(self.H, rcond=1e-13, hermitian=True))

    @property
    def covariance(self) -> Array:
        """Cluster-robust covariance of the unknowns, (P, P)."""
        spread = self.pulls @ self.inverse
        return np.asarray(spread.T @ spread)


def draws(
    fit: Fit, points: Points, *, method: Method = Method.WILD, count: int = 1000, seed: int = 0,
    budgets: npt.NDArray[np.generic] | None = None, one_step: bool | None = None, chance: Chance | None = None,
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
    """
    method = method if chance is None else chance.method
    labels, codes = np.unique(resampled(points, method, budgets), return_inverse=True)
    if len(labels) < _LEAST_CLUSTERS:
        raise FitError(
            f"{len(labels)} clusters can't be resampled by {method}; it takes {_LEAST_CLUSTERS}: resample by run, or "
            "add some"
        )
    luck = Chance.draw(labels, method, count=count, seed=seed) if chance is None else chance
    problem = fit.problem(points)
    quick = one_step if one_step is not None else len(luck.table) * len(points) * fit.n_free > EXACT
    freedom = max(len(labels) - min(fit.n_free, len(labels) - 1), 1)
    if quick or method is Method.LAPLACE:
        center = fit.q[list(fit.free)]
        bread = sandwich(problem, center, codes)
        known = bread.freedom if method is Method.LAPLACE else freedom
        return problem.parts[0].q(center + luck.shifts(labels, known) @ bread.pulls @ bread.inverse)
    if method is Method.WILD:
        return _wild(fit, points, luck.shifts(labels, freedom)[:, codes])
    return refit(fit, points, weights=luck.of(labels)[:, codes] * np.asarray(points.weights))[0]


def resampled(points: Points, method: Method, budgets: npt.NDArray[np.generic] | None = None) -> Labels:
    """Label of what each run is resampled with, (n,)."""
    by_run = budgets is None or method is not Method.BUDGET
    return np.asarray(points.labels if by_run else budgets).astype(str)


def sandwich(problem: Problem, Q: Array, codes: Codes) -> Sandwich:
    """Curvature and pulls at the optimum of a problem of one or several parts whose clusters are coded alike.

    The curvature is Gauss and Newton's, with rho'' smoothed where the loss curves at few errors only (Powell 1991).

    Args:
        problem: solved.
        Q: its unknowns, (P,).
        codes: cluster of each run, (n,); the parts' runs one after the other.
    """
    jacs = [part.law.jacobian(part.q(Q[None]), part.z)[0] @ part.T for part in problem.parts]
    leverage = _leverage(problem, jacs)
    pulls, H, first = np.zeros((int(codes.max()) + 1, len(Q))), np.array(problem.precision), 0
    for part, jac in zip(problem.parts, jacs, strict=True):
        r = part.errors(Q[None])[0]
        H = H + jac.T @ ((part.weights * density(part.objective, r))[:, None] * jac)
        own = slice(first, first + len(r))
        slope = part.weights * part.objective.slope(r) / np.sqrt(np.maximum(1 - leverage[own], _LEAST_SLACK))
        np.add.at(pulls, codes[own], slope[:, None] * jac)
        first += len(r)
    freedom = max(len(pulls) - min(float(leverage.sum()), len(pulls) - 1), 1.0)
    return Sandwich(H=H, pulls=pulls, freedom=freedom)


def _leverage(problem: Problem, jacs: list[Array]) -> Array:
    """Leverage of each run on its own fitted value, the parts' runs one after the other."""
    weighted = [np.sqrt(part.weights)[:, None] * jac for part, jac in zip(problem.parts, jacs, strict=True)]
    stacked = np.vstack(weighted)
    gram = stacked.T @ stacked + problem.precision
    scale = np.sqrt(np.diag(gram)) + 1e-150
    inverse = np.linalg.pinv(gram / np.outer(scale, scale), rcond=1e-12, hermitian=True)
    scaled = stacked / scale
    own: Array = np.einsum("np,pq,nq->n", scaled, inverse, scaled)
    return np.clip(own, 0.0, 1.0)


def _wild(fit: Fit, points: Points, signs: Array) -> Array:
    """Refits to errors inflated by their leverage, times ``signs`` (K, n): alike within a cluster, Student scaled."""
    problem = fit.problem(points)
    part = problem.parts[0]
    jac = part.law.jacobian(fit.q[None], part.z)[0] @ part.T
    leverage = _leverage(problem, [jac])
    inflated = fit.residuals / np.sqrt(np.maximum(1 - leverage, _LEAST_SLACK))
    fitted = points.log_L - fit.residuals
    return refit(fit, points, fitted + signs * inflated)[0]


def spread_of(fit: Fit, points: Points) -> float:
    """Sd of a new run about the law, in ln L: between clusters and within, per degree of freedom."""
    n_clusters = points.n_clusters
    return (
        float(np.sqrt(np.mean(fit.residuals**2) * n_clusters / max(n_clusters - fit.n_free, 1)))
        if n_clusters
        else math.nan
    )
