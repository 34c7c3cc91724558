"""Fit of a law by Huber loss on ln L: variable-projection seeds, then exact second-order steps on centred logarithms.

The objective is the SUM over runs, F = sum_i w_i Huber_delta(ln L_i - ln L(N_i, D_i)). A mean with an optimiser's default
tolerance stops early and lands on another law (the trap of the published replication debate); here a fit stops when
no step that the second derivatives propose lowers F any further.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from skillscale.errors import FitError
from skillscale.laws.forms import CHINCHILLA, Array, Law
from skillscale.laws.results import Starts

DELTA = 1e-3  # Hoffmann et al. 2022
AGREE = 1e-6  # relative difference of F below which two starts found the same optimum
STARTS = 6
SEEDS_APART = 0.1  # in some log-parameter
NO_ERROR = 1e-18  # an F below this is exact data: starts that reach it agree
MAX_STEPS = 200
CONFOUNDED = 0.05  # sd of ln D left after a parabola in ln N, below which N and D say the same thing (assumption)
MIN_SIZES = 3


@dataclass(frozen=True, kw_only=True)
class Points:
    """Runs to fit: N parameters, D tokens, L nats per token, each (n,), with non-negative weights.

    Raises:
        FitError: lengths differ, or a value is not finite and positive.
    """

    N: Array
    D: Array
    L: Array
    weights: Array | None = None

    def __post_init__(self) -> None:
        for letter in ("N", "D", "L"):
            values = np.asarray(getattr(self, letter), dtype=float)
            if values.shape != np.shape(self.N) or values.ndim != 1:
                raise FitError(f"N, D and L must be equally long lists, but {letter} has the shape {values.shape}")
            bad = ~(np.isfinite(values) & (values > 0))
            if bad.any():
                raise FitError(
                    f"{letter} must be finite and positive, but row {np.argmax(bad)} is {values[np.argmax(bad)]}; "
                    f"drop the {bad.sum()} such rows"
                )
            object.__setattr__(self, letter, values)
        weights = np.ones(len(self.N)) if self.weights is None else np.asarray(self.weights, dtype=float)
        if weights.shape != self.N.shape or not np.all(weights >= 0) or not np.any(weights > 0):
            raise FitError(
                "weights must be one non-negative number a run, and not all zero; leave them out for equal ones"
            )
        object.__setattr__(self, "weights", weights)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A fitted law. ``q``: log-parameters centred at ``x0``, ``y0``; ``F``: the objective named by ``objective``."""

    law: Law
    theta: Array = field(metadata={"unit": "natural parameters, (p,)"})
    q: Array
    x0: float
    y0: float
    F: float
    objective: str
    starts: Starts
    residuals: Array = field(repr=False, metadata={"unit": "ln L - ln law, (n,)"})
    converged: bool

    @property
    def parameters(self) -> dict[str, float]:
        """Natural parameters by name, in full precision."""
        return {name: float(value) for name, value in zip(self.law.parameters, self.theta, strict=True)}


def objective_name(delta: float) -> str:
    """What is minimised, in words."""
    return f"sum of Huber({delta:.3g}) on ln L"


def fit_law(points: Points, *, law: Law = CHINCHILLA, delta: float = DELTA, starts: int = STARTS) -> Fit:
    """Fit a law to runs.

    Args:
        points: the runs, with weights (a bootstrap resample is a vector of counts).
        law: the form.
        delta: where the Huber loss turns linear, in ln L.
        starts: how many seeds are followed to their optimum.

    Raises:
        FitError: too few runs or sizes, N and D confounded, or no start reached a finite objective.
    """
    check_identified(points, n_parameters=len(law.parameters))
    log_N, log_D, log_L = np.log(points.N), np.log(points.D), np.log(points.L)
    weights = np.asarray(points.weights)
    x0, y0 = float(np.average(log_N, weights=weights)), float(np.average(log_D, weights=weights))
    x, y = log_N - x0, log_D - y0
    seeds = _best_seeds(law, x, y, log_L, weights, delta=delta, count=starts)
    q, F, converged = minimise(law, x, y, log_L, seeds, weights=weights, delta=delta)
    if not np.isfinite(F).any():
        raise FitError(f"none of {len(seeds)} starts reached a finite objective for {law.name}; look for absurd losses")
    best = int(np.nanargmin(F))
    theta = law.theta(q[best : best + 1], x0, y0)[0]
    return Fit(
        law=law, theta=theta, q=q[best], x0=x0, y0=y0, F=float(F[best]), objective=objective_name(delta),
        starts=_agreement(F), residuals=log_L - law.log_loss(q[best : best + 1], x, y)[0], converged=bool(converged[best]),
    )  # fmt: skip


def refit(
    fit: Fit, points: Points, log_L: Array | None = None, *, weights: Array | None = None, delta: float = DELTA
) -> tuple[Array, Array]:
    """Fit K resamples of the runs at once, each from the optimum of ``fit``.

    A resample is a row of ``weights`` (pairs bootstrap: counts) or of ``log_L`` (residual bootstrap), both (K, n).

    Returns:
        Natural parameters (K, p) and whether each resample converged (K,).
    """
    x, y = np.log(points.N) - fit.x0, np.log(points.D) - fit.y0
    responses = np.log(points.L) if log_L is None else log_L
    counts = np.asarray(points.weights) if weights is None else weights
    K = max(np.atleast_2d(responses).shape[0], np.atleast_2d(counts).shape[0])
    q, _, converged = minimise(fit.law, x, y, responses, np.tile(fit.q, (K, 1)), weights=counts, delta=delta)
    return fit.law.theta(q, fit.x0, fit.y0), converged


def check_identified(points: Points, *, n_parameters: int) -> None:
    """Refuse runs that can't carry a law in N and D.

    Raises:
        FitError: says what is missing and which runs would cure it.
    """
    used = np.asarray(points.weights) > 0
    N, D = points.N[used], points.D[used]
    if len(N) <= n_parameters:
        raise FitError(
            f"{len(N)} runs can't carry a law of {n_parameters} parameters; add at least {n_parameters + 1 - len(N)}"
        )
    for letter, values in (("N", N), ("D", D)):
        distinct = len(np.unique(np.round(np.log(values), 3)))
        if distinct < MIN_SIZES:
            raise FitError(
                f"{distinct} distinct {letter} among {len(N)} runs; a law in N and D needs {MIN_SIZES} or more"
            )
    x = np.log(N) - np.log(N).mean()
    design = np.column_stack([np.ones_like(x), x, x**2])
    left = np.log(D) - design @ np.linalg.lstsq(design, np.log(D), rcond=None)[0]
    if left.std() < CONFOUNDED:
        raise FitError(
            f"N and D are confounded: N tells ln D to within {left.std():.2g}, so their effects can't be told apart; "
            "add a second budget (the same sizes trained on 3 times the tokens)"
        )


def minimise(
    law: Law, x: Array, y: Array, log_L: Array, q: Array, *, weights: Array, delta: float
) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Newton steps with exact second derivatives, damped, on K problems at once.

    Negative curvature is taken by its absolute value, so that every step goes down; the damping of each problem grows
    where a step fails (at the kinks of the Huber loss) and shrinks where it holds.

    Args:
        law: the form.
        x: centred ln N, (n,).
        y: centred ln D, (n,).
        log_L: responses, (n,) or (K, n).
        q: starts, (K, p).
        weights: (n,) or (K, n).
        delta: of the Huber loss.

    Returns:
        q (K, p), F (K,), converged (K,).
    """
    K, n = len(q), len(x)
    q, target, w = q.copy(), np.broadcast_to(log_L, (K, n)), np.broadcast_to(weights, (K, n))
    F = _objective(target - law.log_loss(q, x, y), w, delta)
    damping, live, done = np.full(K, 1e-3), np.isfinite(F), np.zeros(K, dtype=bool)
    for _ in range(MAX_STEPS):
        rows = np.flatnonzero(live)
        if not len(rows):
            break
        step, gain = _newton_step(law, x, y, target[rows], q[rows], w=w[rows], delta=delta, damping=damping[rows])
        tried = q[rows] + step
        F_tried = _objective(target[rows] - law.log_loss(tried, x, y), w[rows], delta)
        better = F_tried < F[rows]  # False for NaN as well
        settled = gain <= 1e-15 * F[rows] + 1e-300
        q[rows[better]], F[rows[better]] = tried[better], F_tried[better]
        damping[rows] = np.where(better, np.maximum(damping[rows] / 8, 1e-12), damping[rows] * 6)
        done[rows] |= settled | (damping[rows] > 1e10)
        live[rows] = ~done[rows]
    return q, F, done


def _newton_step(
    law: Law, x: Array, y: Array, target: Array, q: Array, *, w: Array, delta: float, damping: Array
) -> tuple[Array, Array]:
    """The damped step (K, p), and the fall of F that the undamped quadratic model promises (K,)."""
    r = target - law.log_loss(q, x, y)
    jac = law.jacobian(q, x, y)
    psi = w * np.clip(r, -delta, delta)
    curved = w * (np.abs(r) <= delta)
    gradient = -np.einsum("kn,knp->kp", psi, jac)
    H = np.swapaxes(jac, 1, 2) @ (curved[..., None] * jac) - law.second_order(q, x, y, psi)
    scale = np.sqrt(np.einsum("kn,knp->kp", w, jac**2)) + 1e-150
    eigenvalues, vectors = np.linalg.eigh(H / (scale[:, :, None] * scale[:, None, :]))
    # At a corner of the Huber loss (delta far below the noise) few points curve: a floor relative to the largest
    # eigenvalue keeps the step finite there.
    size = np.maximum(np.abs(eigenvalues), 1e-13)
    along = np.einsum("kpq,kp->kq", vectors, gradient / scale)
    step = -np.einsum("kpq,kq->kp", vectors, along / (size + damping[:, None])) / scale
    longest = np.abs(step).max(1, keepdims=True)
    return step / np.maximum(longest / 2.0, 1.0), 0.5 * (along**2 / size).sum(1)


def _objective(r: Array, w: Array, delta: float) -> Array:
    size = np.abs(r)
    return np.asarray((w * np.where(size <= delta, 0.5 * r**2, delta * (size - 0.5 * delta))).sum(1))


def _best_seeds(law: Law, x: Array, y: Array, log_L: Array, w: Array, *, delta: float, count: int) -> Array:
    """The ``count`` best seeds that are apart: each next one is the best outside the others' neighbourhood."""
    seeds = law.seeds(x, y, log_L, w)
    F = _objective(log_L - law.log_loss(seeds, x, y), np.broadcast_to(w, (len(seeds), len(x))), delta)
    F = np.where(np.isfinite(F), F, np.inf)
    chosen: list[int] = []
    while len(chosen) < count and np.isfinite(F.min()):
        chosen.append(int(F.argmin()))
        F = np.where(np.abs(seeds - seeds[chosen[-1]]).max(1) < SEEDS_APART, np.inf, F)
    return seeds[chosen]


def _agreement(F: Array) -> Starts:
    best = float(np.nanmin(F))
    apart = (F - best) / max(best, NO_ERROR)
    others = apart[apart > AGREE]
    return Starts(tried=len(F), agree=int((apart <= AGREE).sum()), gap=float(others.min()) if len(others) else math.inf)
