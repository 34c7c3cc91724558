"""How active-sl chooses out of a pool, by its description (arXiv 2604.22753), and the laws that its pools come with.

A law is fitted by least squares of L within its bounds, from many starts. D-optimal, V-optimal and MSPE then take one
run after the other, some of the cheapest first, then that which gains most per cost^0.4, by the law's curvature at the
fit and a belief as wide as the bounds; MSPE has the distinct fits that about as well explain the runs, as basins.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import least_squares

from skillscale.laws.forms.nd import Array
from skillscale.simulation.greedy_designs import PER_COST, CandidateCovariance, DesignCriterion

SCREENED, STARTS, WARM, NEW = (
    2048,
    48,
    4,
    4,
)  # of a fit that is judged; of one to choose by: from earlier fits, and at random
ROUNDS = 60  # of all starts at once
POLISHED, POLISH = 3, 400  # of the best, and how long each, where a fit is judged
START_PER_PARAMETER, START_SHARE = 2.5, 0.02  # cheapest runs to begin with; of the pool's cost that they may take
GROWTH = 0.1  # of the runs, after which the law is fitted again
STEP = 1e-6  # of a parameter's range, for derivatives
LEAST = 1e-3  # weight of a basin that plays a part
APART = 0.5  # sd of a run by which predictions of two basins differ somewhere
_HUGE = 1e6  # loss of wild parameters
RANGE_SD = 0.25  # sd of the belief about a parameter, of its range
VARIANCE_WEIGHT = 2.0  # runs' worth of the belief that the noise is as wide as the losses


@dataclass(frozen=True, kw_only=True)
class Published:
    """L = form(theta, X): parameters (K, p) and inputs (n, k) to losses (K, n), each parameter within its bounds."""

    form: Callable[[Array, Array], Array] = field(repr=False)
    bounds: Sequence[tuple[float, float]]

    @property
    def size(self) -> int:
        """Number of parameters."""
        return len(self.bounds)

    def theta(self, u: Array) -> Array:
        """Parameters from places within the bounds, 0 to 1: even in the logarithm where a bound is above 0."""
        columns = [
            lo * (hi / lo) ** one if lo > 0 else lo + (hi - lo) * one
            for (lo, hi), one in zip(self.bounds, u.T, strict=True)
        ]
        return np.column_stack(columns)

    def loss(self, u: Array, X: Array) -> Array:
        """Losses (K, n)."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return np.clip(self.form(self.theta(u), X), -_HUGE, _HUGE)

    def jacobian(self, u: Array, X: Array) -> Array:
        """Derivatives by the places, (K, n, p)."""
        K, p = u.shape
        steps = STEP * np.vstack([np.eye(p), -np.eye(p)])
        ends = self.loss((u[:, None] + steps).reshape(-1, p), X).reshape(K, 2, p, -1)
        return np.swapaxes((ends[:, 0] - ends[:, 1]) / (2 * STEP), 1, 2)


def fit(law: Published, X: Array, L: Array, starts: Array, *, quick: bool = False) -> tuple[Array, Array]:
    """Optima (K, p) from starts, as places within the bounds, and their mean squared errors (K,), the best first."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        u, F = _descended(law, X, L, starts)
        for at in range(min(1 if quick else POLISHED, len(u))):
            u[at], F[at] = _polished(law, X, L, u[at], POLISH // 8 if quick else POLISH)
    order = np.argsort(F)
    return u[order], F[order]


def _polished(law: Published, X: Array, L: Array, u: Array, steps: int) -> tuple[Array, float]:
    """To the end of the narrow valleys that these laws have."""
    inside = np.clip(u, STEP, 1 - STEP)
    found = least_squares(
        lambda one: law.loss(one[None], X)[0] - L, inside, jac=lambda one: law.jacobian(one[None], X)[0],
        bounds=(0.0, 1.0), xtol=1e-12, ftol=1e-12, gtol=1e-14, max_nfev=steps,
    )  # fmt: skip
    return found.x, 2 * found.cost / len(L)


def _descended(law: Published, X: Array, L: Array, starts: Array) -> tuple[Array, Array]:
    """Damped Gauss-Newton steps, all starts at once; a parameter at its bound waits while the slope points outward."""
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
        tried = np.clip(u + np.nan_to_num(step), 0.0, 1.0)
        r_tried = L - law.loss(tried, X)
        F_tried = np.where(np.isfinite(r_tried).all(1), (r_tried**2).mean(1), np.inf)
        better = F_tried < F
        gain = np.where(better & np.isfinite(F), 1 - F_tried / np.maximum(F, 1e-300), 0.0)
        u, r, F = (
            np.where(better[:, None] if a.ndim == 2 else better, b, a)
            for a, b in ((u, tried), (r, r_tried), (F, F_tried))
        )
        damping = np.where(better, np.maximum(damping / 5, 1e-9), np.minimum(damping * 5, 1e6))
        if (gain < 1e-6).all() and (better | (damping > 1e3)).all():
            break
    order = np.argsort(F)
    return u[order], F[order]


def many_starts(law: Published, X: Array, L: Array, rng: np.random.Generator, count: int = STARTS) -> Array:
    """Half of them at random within the bounds, half the best of many more, (count, p)."""
    u = rng.random((SCREENED, law.size))
    with np.errstate(over="ignore", invalid="ignore"):
        F = ((L - law.loss(u, X)) ** 2).mean(1)
    best = np.argsort(np.where(np.isfinite(F), F, np.inf))[: count // 2]
    return np.vstack([u[best], u[: count - len(best)]])


@dataclass(frozen=True, kw_only=True)
class Task:
    """One output of a pool to choose from: inputs ``X`` (n, k), ``places`` (m, k), ``cost`` (n,), losses ``L`` (n,)."""

    law: Published
    X: Array
    L: Array
    places: Array
    cost: Array

    def predicted(self, chosen: Array, rng: np.random.Generator) -> Array:
        """Losses at the places, (m,), by the best of many fits to the runs chosen."""
        X, L = self.X[chosen], self.L[chosen]
        u, _ = fit(self.law, X, L, many_starts(self.law, X, L, rng))
        return self.law.loss(u[:1], self.places)[0]


def greedy(tasks: Sequence[Task], criterion: DesignCriterion, budget: float, rng: np.random.Generator) -> list[int]:
    """Places of the runs chosen for a budget, in their order; a run tells of all tasks, whose gains add up."""
    cost, size = tasks[0].cost, sum(task.law.size for task in tasks) / len(tasks)
    chosen = _cheapest(cost, int(START_PER_PARAMETER * size), budget)
    left, fitted = budget - float(cost[chosen].sum()), 0
    known = [np.zeros((0, task.law.size)) for task in tasks]
    views: list[CandidateCovariance] = []
    while chosen:
        payable = (cost <= left * (1 + 1e-9)) & ~np.isin(np.arange(len(cost)), chosen)
        if not payable.any():
            break
        if len(chosen) >= fitted * (1 + GROWTH):
            fitted = len(chosen)
            for at, task in enumerate(tasks):
                known[at], view = _refitted(task, chosen, known[at], criterion, rng)
                views = [*views[:at], view, *views[at + 1 :]]
        gain = np.sum([view.gain(criterion) for view in views], axis=0)
        best = int(np.argmax(np.where(payable, gain / cost**PER_COST, -np.inf)))
        views = [view.after(best) for view in views]
        chosen.append(best)
        left -= float(cost[best])
    return chosen


def _cheapest(cost: Array, count: int, budget: float) -> list[int]:
    """The start: so many of the cheapest runs, within its share of the pool's cost, but at least one."""
    left, chosen = min(START_SHARE * float(cost.sum()), budget), list[int]()
    for at in np.argsort(cost, kind="stable")[:count]:
        if cost[at] <= left or (not chosen and cost[at] <= budget * (1 + 1e-9)):
            chosen.append(int(at))
            left -= float(cost[at])
    return chosen


def _refitted(
    task: Task, chosen: list[int], known: Array, criterion: DesignCriterion, rng: np.random.Generator
) -> tuple[Array, CandidateCovariance]:
    """The optima found, from earlier ones and new starts, and what the law then tells."""
    rows = np.array(chosen)
    L = task.L[rows]
    new = many_starts(task.law, task.X[rows], L, rng, NEW if len(known) else STARTS)
    u, F = fit(task.law, task.X[rows], L, np.vstack([known[:WARM], new]), quick=True)
    return u, _view(task, rows, L, u, F, several=criterion is DesignCriterion.MSPE)


def _view(task: Task, rows: Array, L: Array, u: Array, F: Array, *, several: bool) -> CandidateCovariance:
    """What the law tells at the runs of the pool and at the places, from its best fit or from each basin."""
    n = len(rows)
    noise = np.sqrt(
        (VARIANCE_WEIGHT * max(float(np.var(L)), 1e-6) + n * F[0] / 2) / (VARIANCE_WEIGHT + n / 2 - 1 + 1e-9)
    )
    told = task.law.loss(u, task.places)
    kept = [0]
    weights = np.exp(-n / 2 * np.log(np.maximum(F, 1e-16) / max(F[0], 1e-16)))
    for at in range(1, len(u) if several else 1):
        apart = all(np.abs(told[at] - told[other]).max() > APART * noise for other in kept)
        if weights[at] > LEAST and apart and np.isfinite(told[at]).all():
            kept.append(at)
    u, weights = u[kept], weights[kept] / weights[kept].sum()
    here, there = (np.nan_to_num(task.law.jacobian(u, X)) for X in (task.X, task.places))
    information = np.swapaxes(here[:, rows], 1, 2) @ here[:, rows] / noise**2 + np.eye(task.law.size) / RANGE_SD**2
    return CandidateCovariance.of(
        weights, noise, np.linalg.inv(information), (here, there),
        (task.law.loss(u, task.X), task.law.loss(u, task.places)),
    )  # fmt: skip


def farseer(theta: Array, X: Array) -> Array:
    """exp(s N^q + S) + exp(B N^b + Q) D^(-exp(A N^a + E)) (Farseer 2025)."""
    E, s, q, S, B, b, Q, A, a = (one[:, None] for one in theta.T)
    N, log_D = X[:, 0], np.log(X[:, 1])
    return np.exp(s * N**q + S) + np.exp(B * N**b + Q - np.exp(A * N**a + E) * log_D)


def repeated(theta: Array, X: Array) -> Array:
    """A N'^-alpha + B D'^-alpha + E, N' and D' saturating with their repetitions (Muennighoff et al. 2023)."""
    A, worn_N, B, worn_D, alpha, E, rho = (one[:, None] for one in theta.T)
    U, N, D = X.T
    unique_N = np.minimum(rho * U, N)
    effective_N = unique_N * (1 + worn_N * -np.expm1(-(N / unique_N - 1) / worn_N))
    effective_D = U * (1 + worn_D * -np.expm1(-np.maximum(D / U - 1, 0) / worn_D))
    return A * effective_N**-alpha + B * effective_D**-alpha + E


def own_share(theta: Array, X: Array) -> Array:
    """Level c - a p^b of a domain's own share p."""
    c, a, b = (one[:, None] for one in theta.T)
    return c - a * np.maximum(X[:, 0], 1e-12) ** b


LAWS = {
    "farseer": Published(
        form=farseer,
        bounds=((1, 6), (-1, 0.3), (0.01, 0.5), (-1, 1), (10, 1000), (-0.6, -0.01), (-5, 1), (-5, 1), (0.001, 0.25)),
    ),
    "data_constrained": Published(
        form=repeated,
        bounds=((1e-3, 1e7), (1e-3, 500), (1e-3, 1e7), (1e-3, 500), (0.05, 2), (-3, 10), (1e-3, 100)),
    ),
    "domain_mixture": Published(form=own_share, bounds=((0, 6), (0, 5), (0, 3))),
}  # fmt: skip
