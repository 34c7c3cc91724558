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

from skillscale.errors import FitError
from skillscale.laws.fit import Fit, refit
from skillscale.laws.forms import Array
from skillscale.laws.newton import Problem
from skillscale.laws.objective import density
from skillscale.laws.points import Points

Codes = npt.NDArray[np.intp]
EXACT = 4_000_000  # resamples x runs x unknowns up to which each resample is followed to its minimum
AT_ONCE = 2_000_000  # resamples x runs that are drawn at once: memory stays flat in the resamples
_LEAST_CLUSTERS = 3
_LEAST_SLACK = 0.05  # of a run's 1 - leverage: one that the law passes through whatever its loss tells no error


class Method(StrEnum):
    """How draws are made."""

    WILD = "wild"
    RUN = "run"
    BUDGET = "budget"
    LAPLACE = "laplace"


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
    budgets: npt.NDArray[np.generic] | None = None, one_step: bool | None = None,
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

    Raises:
        FitError: fewer than 3 clusters to resample.
    """
    rng = np.random.default_rng(seed)
    labels = points.clusters if budgets is None or method is not Method.BUDGET else budgets
    _, codes = np.unique(np.asarray(labels), return_inverse=True)
    n_clusters = int(codes.max()) + 1
    if n_clusters < _LEAST_CLUSTERS:
        raise FitError(
            f"{n_clusters} clusters can't be resampled by {method}; it takes {_LEAST_CLUSTERS}: resample by run, or "
            "add some"
        )
    quick = one_step if one_step is not None else count * len(points) * fit.n_free > EXACT
    rows = max(1, AT_ONCE // len(points))
    counts = [min(rows, count - first) for first in range(0, count, rows)]
    return np.vstack([_block(fit, points, method, codes, rng, number, quick=quick) for number in counts])


def _block(
    fit: Fit, points: Points, method: Method, codes: Codes, rng: np.random.Generator, count: int, *, quick: bool
) -> Array:
    """Some of the draws."""
    problem = fit.problem(points)
    if method is Method.LAPLACE:
        return _laplace(fit, problem, codes, rng, count)
    if method is Method.WILD:
        return _wild(fit, points, codes, rng, count, quick=quick)
    n_clusters = int(codes.max()) + 1
    counts = _counts(rng, n_clusters, count)
    if quick:
        center = fit.q[list(fit.free)]
        bread = sandwich(problem, center, codes)
        return problem.parts[0].q(center + (counts - 1) @ bread.pulls @ bread.inverse)
    return refit(fit, points, weights=counts[:, codes] * np.asarray(points.weights))[0]


def _counts(rng: np.random.Generator, n_clusters: int, count: int) -> Array:
    """How often each cluster is drawn, (count, n_clusters); for many clusters far faster than multinomial draws."""
    rows = (rng.integers(n_clusters, size=n_clusters) for _ in range(count))
    return np.array([np.bincount(row, minlength=n_clusters) for row in rows], dtype=float)


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


def _laplace(fit: Fit, problem: Problem, codes: Codes, rng: np.random.Generator, count: int) -> Array:
    center = fit.q[list(fit.free)]
    bread = sandwich(problem, center, codes)
    values, vectors = np.linalg.eigh(bread.covariance)
    root = vectors * np.sqrt(np.maximum(values, 0))
    normal = rng.normal(size=(count, len(center))) @ root.T
    student = np.sqrt(bread.freedom / rng.chisquare(bread.freedom, size=(count, 1)))
    return problem.parts[0].q(center + normal * student)


def _wild(fit: Fit, points: Points, codes: Codes, rng: np.random.Generator, count: int, *, quick: bool) -> Array:
    """Signs by cluster, and one Student scale a resample."""
    problem = fit.problem(points)
    center = fit.q[list(fit.free)]
    n_clusters = int(codes.max()) + 1
    freedom = max(n_clusters - min(fit.n_free, n_clusters - 1), 1)
    scale = np.sqrt(freedom / rng.chisquare(freedom, size=(count, 1)))
    signs = rng.choice([-1.0, 1.0], size=(count, n_clusters)) * scale
    if quick:
        bread = sandwich(problem, center, codes)
        return problem.parts[0].q(center + signs @ bread.pulls @ bread.inverse)
    jac = problem.parts[0].law.jacobian(fit.q[None], problem.parts[0].z)[0] @ problem.parts[0].T
    leverage = _leverage(problem, [jac])
    inflated = fit.residuals / np.sqrt(np.maximum(1 - leverage, _LEAST_SLACK))
    fitted = points.log_L - fit.residuals
    return refit(fit, points, fitted + signs[:, codes] * inflated)[0]


def spread_of(fit: Fit, points: Points) -> float:
    """Sd of a new run about the law, in ln L: between clusters and within, per degree of freedom."""
    n_clusters = points.n_clusters
    return (
        float(np.sqrt(np.mean(fit.residuals**2) * n_clusters / max(n_clusters - fit.n_free, 1)))
        if n_clusters
        else math.nan
    )
