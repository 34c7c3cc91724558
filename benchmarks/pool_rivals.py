"""The choices of active-sl from a pool, by its description (arXiv 2604.22753), and the laws that its pools come with.

A law is fitted by least squares of L within its bounds, from many starts. D-optimal, V-optimal and MSPE begin with some
of the cheapest runs. Then they take one run after the other, each with the largest gain per cost^0.4. The gain follows
from the law's curvature at the fit and a prior as wide as the bounds. MSPE uses all distinct fits that explain the runs
about equally well, as basins.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from designs.greedy_designs import COST_POWER, CandidateCovariance, DesignCriterion
from scipy.optimize import least_squares

from skillscale.laws.forms.nd import Array

SCREENED, STARTS = 2048, 48  # random points that a judged fit screens, and starts that it follows
WARM, NEW = 4, 4  # starts of a fit to choose by: optima of the previous fit, and new ones
ROUNDS = 60  # of all starts at once
POLISHED, POLISH = 3, 400  # optima that a judged fit polishes, and evaluations for each
START_PER_PARAMETER, START_SHARE = 2.5, 0.02  # cheapest runs of the start, and their largest share of the pool's cost
GROWTH = 0.1  # share of new runs after which the law is fitted again
STEP = 1e-6  # for derivatives, in ranges of a parameter
LEAST_WEIGHT = 1e-3  # of a basin
BASIN_DISTANCE = 0.5  # least difference of two basins' predictions somewhere, in sds of a run
_HUGE = 1e6  # loss of extreme parameters
PRIOR_SD = 0.25  # of a parameter, in its range
VARIANCE_WEIGHT = 2.0  # weight of the prior that the noise is as wide as the losses, in runs


@dataclass(frozen=True, kw_only=True)
class PublishedLaw:
    """A law L = form(theta, X) with bounds: parameters (K, p) and inputs (n, k) give losses (K, n)."""

    form: Callable[[Array, Array], Array] = field(repr=False)
    bounds: Sequence[tuple[float, float]]

    @property
    def size(self) -> int:
        """Number of parameters."""
        return len(self.bounds)

    def theta(self, u: Array) -> Array:
        """Return parameters from unit coordinates, in the logarithm where the lower bound is above 0."""
        columns = [
            lo * (hi / lo) ** x if lo > 0 else lo + (hi - lo) * x for (lo, hi), x in zip(self.bounds, u.T, strict=True)
        ]
        return np.column_stack(columns)

    def loss(self, u: Array, X: Array) -> Array:
        """Return losses (K, n)."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return np.clip(self.form(self.theta(u), X), -_HUGE, _HUGE)

    def jacobian(self, u: Array, X: Array) -> Array:
        """Return derivatives by the unit coordinates, (K, n, p)."""
        K, p = u.shape
        steps = STEP * np.vstack([np.eye(p), -np.eye(p)])
        ends = self.loss((u[:, None] + steps).reshape(-1, p), X).reshape(K, 2, p, -1)
        return np.swapaxes((ends[:, 0] - ends[:, 1]) / (2 * STEP), 1, 2)


def fit(law: PublishedLaw, X: Array, L: Array, starts: Array, *, quick: bool = False) -> tuple[Array, Array]:
    """Return optima (K, p) in unit coordinates and their mean squared errors (K,), the best first."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        u, F = _descend(law, X, L, starts)
        for at in range(min(1 if quick else POLISHED, len(u))):
            u[at], F[at] = _polish(law, X, L, u[at], POLISH // 8 if quick else POLISH)
    order = np.argsort(F)
    return u[order], F[order]


def _polish(law: PublishedLaw, X: Array, L: Array, u: Array, steps: int) -> tuple[Array, float]:
    """Follow the narrow valleys of these laws to the optimum."""
    inside = np.clip(u, STEP, 1 - STEP)
    result = least_squares(
        lambda x: law.loss(x[None], X)[0] - L, inside, jac=lambda x: law.jacobian(x[None], X)[0],
        bounds=(0.0, 1.0), xtol=1e-12, ftol=1e-12, gtol=1e-14, max_nfev=steps,
    )  # fmt: skip
    return result.x, 2 * result.cost / len(L)


def _descend(law: PublishedLaw, X: Array, L: Array, starts: Array) -> tuple[Array, Array]:
    """Take damped Gauss-Newton steps from all starts; a parameter stays at its bound while the slope points outward."""
    u, damping = starts.copy(), np.full(len(starts), 1e-2)
    r = L - law.loss(u, X)
    F = np.where(np.isfinite(r).all(1), (r**2).mean(1), np.inf)
    for _ in range(ROUNDS):
        J = np.nan_to_num(law.jacobian(u, X), posinf=0.0, neginf=0.0)
        slope = np.einsum("knp,kn->kp", J, np.nan_to_num(r, posinf=0.0, neginf=0.0))
        free = ~(((u <= 0) & (slope < 0)) | ((u >= 1) & (slope > 0)))
        J = J * free[:, None]
        H = np.swapaxes(J, 1, 2) @ J
        scale = np.einsum("kpp->kp", H)
        ridge = damping[:, None] * scale + 1e-12 * scale.max(1, keepdims=True) + 1e-300
        step = np.linalg.solve(H + ridge[:, None] * np.eye(law.size), (slope * free)[..., None])[..., 0]
        trial = np.clip(u + np.nan_to_num(step), 0.0, 1.0)
        r_trial = L - law.loss(trial, X)
        F_trial = np.where(np.isfinite(r_trial).all(1), (r_trial**2).mean(1), np.inf)
        better = F_trial < F
        gain = np.where(better & np.isfinite(F), 1 - F_trial / np.maximum(F, 1e-300), 0.0)
        u, r, F = (
            np.where(better[:, None] if a.ndim == 2 else better, b, a)
            for a, b in ((u, trial), (r, r_trial), (F, F_trial))
        )
        damping = np.where(better, np.maximum(damping / 5, 1e-9), np.minimum(damping * 5, 1e6))
        if (gain < 1e-6).all() and (better | (damping > 1e3)).all():
            break
    order = np.argsort(F)
    return u[order], F[order]


def many_starts(law: PublishedLaw, X: Array, L: Array, rng: np.random.Generator, count: int = STARTS) -> Array:
    """Return starts (count, p): half are random, half the best of many more."""
    u = rng.random((SCREENED, law.size))
    with np.errstate(over="ignore", invalid="ignore"):
        F = ((L - law.loss(u, X)) ** 2).mean(1)
    best = np.argsort(np.where(np.isfinite(F), F, np.inf))[: count // 2]
    return np.vstack([u[best], u[: count - len(best)]])


@dataclass(frozen=True, kw_only=True)
class Task:
    """An output of a pool to choose from.

    ``X``: inputs, (n, k). ``L``: losses, (n,). ``places``: inputs to predict, (m, k). ``cost``: of the runs, (n,).
    """

    law: PublishedLaw
    X: Array
    L: Array
    places: Array
    cost: Array

    def predicted(self, chosen: Array, rng: np.random.Generator) -> Array:
        """Return losses at the places, (m,), from the best of many fits to the chosen runs."""
        X, L = self.X[chosen], self.L[chosen]
        u, _ = fit(self.law, X, L, many_starts(self.law, X, L, rng))
        return self.law.loss(u[:1], self.places)[0]


def choose_greedily(
    tasks: Sequence[Task], criterion: DesignCriterion, budget: float, rng: np.random.Generator
) -> list[int]:
    """Return indices of the runs chosen for a budget, in order. A run informs all tasks, and their gains add up."""
    cost, size = tasks[0].cost, sum(task.law.size for task in tasks) / len(tasks)
    chosen = _cheapest(cost, int(START_PER_PARAMETER * size), budget)
    remaining, n_fitted = budget - float(cost[chosen].sum()), 0
    optima = [np.zeros((0, task.law.size)) for task in tasks]
    covariances: list[CandidateCovariance] = []
    while chosen:
        payable = (cost <= remaining * (1 + 1e-9)) & ~np.isin(np.arange(len(cost)), chosen)
        if not payable.any():
            break
        if len(chosen) >= n_fitted * (1 + GROWTH):
            n_fitted = len(chosen)
            for at, task in enumerate(tasks):
                optima[at], covariance = _refit(task, chosen, optima[at], criterion, rng)
                covariances = [*covariances[:at], covariance, *covariances[at + 1 :]]
        gain = np.sum([covariance.gain(criterion) for covariance in covariances], axis=0)
        best = int(np.argmax(np.where(payable, gain / cost**COST_POWER, -np.inf)))
        covariances = [covariance.after(best) for covariance in covariances]
        chosen.append(best)
        remaining -= float(cost[best])
    return chosen


def _cheapest(cost: Array, count: int, budget: float) -> list[int]:
    """Return the start: up to ``count`` of the cheapest runs within its share of the pool's cost, at least one."""
    remaining, chosen = min(START_SHARE * float(cost.sum()), budget), list[int]()
    for at in np.argsort(cost, kind="stable")[:count]:
        if cost[at] <= remaining or (not chosen and cost[at] <= budget * (1 + 1e-9)):
            chosen.append(int(at))
            remaining -= float(cost[at])
    return chosen


def _refit(
    task: Task, chosen: list[int], previous: Array, criterion: DesignCriterion, rng: np.random.Generator
) -> tuple[Array, CandidateCovariance]:
    """Return the optima, from previous ones and new starts, and the covariance of the candidates."""
    rows = np.array(chosen)
    L = task.L[rows]
    new = many_starts(task.law, task.X[rows], L, rng, NEW if len(previous) else STARTS)
    u, F = fit(task.law, task.X[rows], L, np.vstack([previous[:WARM], new]), quick=True)
    return u, _covariance(task, rows, L, u, F, several=criterion is DesignCriterion.MSPE)


def _covariance(task: Task, rows: Array, L: Array, u: Array, F: Array, *, several: bool) -> CandidateCovariance:
    """Return the covariance at the runs of the pool and at the places, from the best fit or from each basin."""
    n = len(rows)
    noise = np.sqrt(
        (VARIANCE_WEIGHT * max(float(np.var(L)), 1e-6) + n * F[0] / 2) / (VARIANCE_WEIGHT + n / 2 - 1 + 1e-9)
    )
    predictions = task.law.loss(u, task.places)
    kept = [0]
    weights = np.exp(-n / 2 * np.log(np.maximum(F, 1e-16) / max(F[0], 1e-16)))
    for at in range(1, len(u) if several else 1):
        is_new = all(np.abs(predictions[at] - predictions[other]).max() > BASIN_DISTANCE * noise for other in kept)
        if weights[at] > LEAST_WEIGHT and is_new and np.isfinite(predictions[at]).all():
            kept.append(at)
    u, weights = u[kept], weights[kept] / weights[kept].sum()
    here, there = (np.nan_to_num(task.law.jacobian(u, X)) for X in (task.X, task.places))
    information = np.swapaxes(here[:, rows], 1, 2) @ here[:, rows] / noise**2 + np.eye(task.law.size) / PRIOR_SD**2
    return CandidateCovariance.of(
        weights, noise, np.linalg.inv(information), (here, there),
        (task.law.loss(u, task.X), task.law.loss(u, task.places)),
    )  # fmt: skip


def farseer(theta: Array, X: Array) -> Array:
    """Return exp(s N^q + S) + exp(B N^b + Q) D^(-exp(A N^a + E)) (Farseer 2025)."""
    E, s, q, S, B, b, Q, A, a = (column[:, None] for column in theta.T)
    N, log_D = X[:, 0], np.log(X[:, 1])
    return np.exp(s * N**q + S) + np.exp(B * N**b + Q - np.exp(A * N**a + E) * log_D)


def repeated(theta: Array, X: Array) -> Array:
    """Return A N'^-alpha + B D'^-alpha + E with N' and D' that saturate with repetition (Muennighoff et al. 2023)."""
    A, R_N, B, R_D, alpha, E, rho = (column[:, None] for column in theta.T)
    U, N, D = X.T
    unique_N = np.minimum(rho * U, N)
    effective_N = unique_N * (1 + R_N * -np.expm1(-(N / unique_N - 1) / R_N))
    effective_D = U * (1 + R_D * -np.expm1(-np.maximum(D / U - 1, 0) / R_D))
    return A * effective_N**-alpha + B * effective_D**-alpha + E


def domain_share(theta: Array, X: Array) -> Array:
    """Return c - a p^b, with p the share of the domain."""
    c, a, b = (column[:, None] for column in theta.T)
    return c - a * np.maximum(X[:, 0], 1e-12) ** b


LAWS = {
    "farseer": PublishedLaw(
        form=farseer,
        bounds=((1, 6), (-1, 0.3), (0.01, 0.5), (-1, 1), (10, 1000), (-0.6, -0.01), (-5, 1), (-5, 1), (0.001, 0.25)),
    ),
    "data_constrained": PublishedLaw(
        form=repeated,
        bounds=((1e-3, 1e7), (1e-3, 500), (1e-3, 1e7), (1e-3, 500), (0.05, 2), (-3, 10), (1e-3, 100)),
    ),
    "domain_mixture": PublishedLaw(form=domain_share, bounds=((0, 6), (0, 5), (0, 3))),
}  # fmt: skip
