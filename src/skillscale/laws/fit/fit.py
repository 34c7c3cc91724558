"""Fit of a law to one skill: variable-projection seeds, then exact second-order steps on centred logarithms.

The objective is the SUM over runs, F = sum_i w_i rho(ln L_i - ln L(N_i, D_i)). A mean with an optimiser's default
tolerance stops early and lands on another law (the trap of the published replication debate); here a fit stops when no
step that the second derivatives propose lowers F any further. Nothing rests on the optimiser's word: a fit tells how
many starts reached the optimum, and how far above it the next basin lies.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from skillscale.errors import FitError
from skillscale.laws.fit.data import RunData, check_identified
from skillscale.laws.fit.newton import FitProblem, SkillBlock, minimise
from skillscale.laws.fit.objective import DELTA, EFFICIENT, HUBER, Objective, dispersion
from skillscale.laws.forms.catalogue import CHINCHILLA
from skillscale.laws.forms.nd import Array, Law, Prior
from skillscale.laws.results import MultiStart

AGREE = 1e-6  # relative difference of F below which two starts found the same optimum
STARTS = 6
_PILOT_STARTS = 2  # for the noise alone
SEEDS_APART = 0.1  # in some log-parameter
NO_ERROR = 1e-18  # an F below this is exact data: starts that reach it agree
RANKED = 4000  # runs that seeds are found and ranked on; more would only cost time
_PRIOR_ROUNDS = 6
REFINED = 1e-7  # of a unit of log-likelihood: resamples needn't be followed further
_SETTLED = 0.02  # relative change of the noise between two rounds at which weak priors have found their weight


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """A fitted law. ``theta``: natural parameters; ``q``: log-parameters of the ``law``, which is bound to its centre.

    ``F``: the objective without priors; ``penalty``: what weak priors add to it; ``phi``: the scale at which F / phi is
    a negative log-likelihood; ``free``: places in q that the runs decide; ``prior``: the weak priors' mean and
    precision (in units of 1 / phi) over the free ones.
    """

    law: Law
    theta: Array = field(metadata={"unit": "natural parameters"})
    q: Array
    F: float
    penalty: float
    phi: float
    objective: Objective
    starts: MultiStart
    residuals: Array = field(repr=False, metadata={"unit": "ln L - ln law, (n,)"})
    converged: bool
    free: tuple[int, ...]
    prior: tuple[Array, Array] = field(repr=False)

    @property
    def parameters(self) -> dict[str, float]:
        """Natural parameters by name, in full precision."""
        return {name: float(value) for name, value in zip(self.law.parameters, self.theta, strict=True)}

    @property
    def n_free(self) -> int:
        """Number of log-parameters that the runs decide."""
        return len(self.free)

    @property
    def noise(self) -> float:
        """Robust sd of a run about the law, in ln L."""
        return noise_of(self.residuals, self.n_free)

    def problem(
        self, points: RunData, *, log_L: Array | None = None, weights: Array | None = None, mean: Array | None = None
    ) -> FitProblem:
        """The minimisation that this fit solved, with other responses or weights, (n,) or (K, n), or priors' means."""
        given, precision = self.prior
        part = _part(
            self.law, points, self.objective, T=np.eye(len(self.q))[:, list(self.free)],
            offset=np.where(np.isin(np.arange(len(self.q)), self.free), 0.0, self.q), log_L=log_L, weights=weights,
        )  # fmt: skip
        return FitProblem(parts=(part,), mean=given if mean is None else mean, precision=precision * self.phi)


def fit_law(
    points: RunData, *, law: Law = CHINCHILLA, objective: Objective | None = HUBER, starts: int = STARTS,
    pins: Mapping[str, float] | None = None, begin: Array | None = None, beliefs: Mapping[str, Prior] | None = None,
) -> FitResult:  # fmt: skip
    """Fit a law to runs.

    Args:
        points: the runs, with weights.
        law: the form; it is bound to the centre and the categories of the runs, unless it is bound already.
        objective: what to minimise; None: Huber with delta twice the runs' noise, 99 % as efficient as least squares.
        starts: how many seeds are followed to their optimum.
        pins: natural parameters that are given, by name.
        begin: starting points (K, p) in q of a bound law, in place of its own seeds.
        beliefs: what is known beforehand of log-parameters, by their own name or that of the parameter that one of them
            decides; they take the place of the law's weak priors.

    Raises:
        FitError: too few runs or sizes, N and D confounded, or no start reached a finite objective.
        InputError: the law needs a mix that the runs don't tell, or a parameter can't be pinned.
    """
    if objective is None:
        once = partial(fit_law, points, law=law, pins=pins, begin=begin, beliefs=beliefs)
        return once(objective=efficient_objective(once(objective=HUBER, starts=_PILOT_STARTS).noise), starts=starts)
    bound = law if law.x0 or law.y0 else points.bind(law)
    pinned = dict(bound.fix(name, value) for name, value in (pins or {}).items())
    n_log = len(bound.log_names)
    free = tuple(j for j in range(n_log) if j not in pinned)
    priors = {**bound.priors, **{_place(bound, name): prior for name, prior in (beliefs or {}).items()}}
    known = {*pinned, *priors}
    told = "".join(letter for letter, name in (("N", "alpha"), ("D", "beta")) if _is_known(bound, name, known))
    check_identified(points, n_parameters=len(free) - len([j for j in priors if j in free]), told=told)
    offset = np.zeros(n_log)
    offset[list(pinned)] = list(pinned.values())
    T = np.eye(n_log)[:, list(free)]
    part = _part(bound, points, objective, T=T, offset=offset)
    mean, precision = _prior_on(priors, free)
    few = _few(points)
    some = _part(bound, few, objective, T=T, offset=offset)
    seeds = begin if begin is not None else bound.seeds(some.z, few.log_L, some.weights)
    Q = _best_seeds(some, seeds[:, list(free)], count=starts)
    if not len(Q):
        raise FitError(f"no start of {bound.name} has a finite objective; look for absurd losses, sizes or tokens")
    return _finish(points, part, Q, free, (mean, precision))


def _is_known(law: Law, name: str, known: set[int]) -> bool:
    return name in law.parameters and law.fix(name, 0.5)[0] in known


def efficient_objective(noise: float) -> Objective:
    """Huber with delta twice the noise, at least .001: 99 % as efficient as least squares without outliers."""
    return Objective(delta=max(EFFICIENT * noise, DELTA))


def noise_of(r: Array, n_parameters: int) -> float:
    """Robust sd of errors (n,) about a fit of so many parameters."""
    return float(1.4826 * np.median(np.abs(r)) * math.sqrt(len(r) / max(len(r) - n_parameters, 1)))


def refit(
    fit: FitResult,
    points: RunData,
    log_L: Array | None = None,
    *,
    weights: Array | None = None,
    mean: Array | None = None,
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Fit K resamples of the runs at once, each from the optimum of ``fit``.

    A resample is a row of ``weights`` (pairs bootstrap: counts) or of ``log_L`` (residual bootstrap), both (K, n), and
    of ``mean``, what the weak priors believe of the free log-parameters, (K, n_free).

    Returns:
        Log-parameters (K, p) and whether each resample converged (K,).
    """
    K = max(len(x) for x in (log_L, weights) if x is not None and x.ndim == 2)
    problem = fit.problem(points, log_L=log_L, weights=weights, mean=mean)
    Q, _, converged = solve(
        problem, np.tile(fit.q[list(fit.free)], (K, 1)), typical=fit.noise, enough=REFINED * fit.phi
    )
    return problem.parts[0].q(Q), converged


def solve(
    problem: FitProblem, Q: Array, *, typical: float, enough: float = 0.0
) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Minimise, a kinked objective through ever sharper smooth ones.

    Args:
        problem: what to minimise.
        Q: starts, (K, P).
        typical: size of an error, in ln L.
        enough: a step that promises no larger a fall of F is the last.

    Returns:
        Q (K, P), F with its penalty (K,), converged (K,).
    """
    stages = zip(*(part.objective.smoothed(typical) for part in problem.parts), strict=True)
    converged = np.ones(len(Q), dtype=bool)
    for stage in stages:
        smooth = problem.with_objectives(stage)
        kinked = any(part.objective.corner == 0 for part in problem.parts)
        scale = max((part.objective.delta for part in smooth.parts), default=1.0) if kinked else 1.0
        # |r| is Huber / delta: a penalty on |r| weighs delta times as much beside the Huber loss
        smooth = FitProblem(parts=smooth.parts, mean=smooth.mean, precision=smooth.precision * scale)
        Q, _, converged = minimise(smooth, Q, enough=enough)
    return Q, problem.value(Q), converged


def _part(
    law: Law, points: RunData, objective: Objective, *, T: Array, offset: Array, log_L: Array | None = None,
    weights: Array | None = None,
) -> SkillBlock:  # fmt: skip
    given = points.log_L if log_L is None else log_L
    return SkillBlock(
        law=law, z=points.covariates(law), responses=np.exp(given) if objective.on == "raw" else given,
        weights=np.asarray(points.weights) if weights is None else weights, objective=objective, T=T, offset=offset,
    )  # fmt: skip


def _place(law: Law, name: str) -> int:
    """Place in q of a log-parameter, by its name or its parameter's."""
    return law.log_names.index(name) if name in law.log_names else law.positions(name)[0]


def _prior_on(priors: Mapping[int, Prior], free: tuple[int, ...]) -> tuple[Array, Array]:
    """Mean and precision of weak priors, by place in q, over the free log-parameters."""
    mean, precision = np.zeros(len(free)), np.zeros(len(free))
    for at, j in enumerate(free):
        if j in priors:
            mean[at], precision[at] = priors[j].mean, priors[j].sd ** -2
    return mean, np.diag(precision)


def _finish(
    points: RunData, part: SkillBlock, Q: Array, free: tuple[int, ...], prior: tuple[Array, Array]
) -> FitResult:
    """Follow the starts; with weak priors, let the noise that weighs them settle."""
    mean, precision = prior
    r = part.errors(Q[:1])[0]
    phi = dispersion(part.objective, r, part.weights, len(free))
    for _ in range(_PRIOR_ROUNDS):
        problem = FitProblem(parts=(part,), mean=mean, precision=precision * phi)
        Q, F, converged = solve(problem, Q, typical=float(np.median(np.abs(r))))
        if not np.isfinite(F).any():
            raise FitError(
                f"none of {len(Q)} starts of {part.law.name} reached a finite objective; look for absurd losses"
            )
        best = int(np.nanargmin(F))
        r = part.errors(Q[best : best + 1])[0]
        before, phi = phi, dispersion(part.objective, r, part.weights, len(free))
        if not precision.any() or abs(phi - before) <= _SETTLED * before:
            break
    q = part.q(Q[best : best + 1])
    bare = float(part.objective.total(r, part.weights))
    residuals = points.log_L - part.law.log_loss(q, part.z)[0]
    return FitResult(
        law=part.law, theta=part.law.theta(q)[0], q=q[0], F=bare, penalty=float(F[best]) - bare, phi=phi,
        objective=part.objective, starts=start_agreement(F), residuals=residuals, converged=bool(converged[best]), free=free,
        prior=prior,
    )  # fmt: skip


def _best_seeds(part: SkillBlock, seeds: Array, *, count: int) -> Array:
    """The ``count`` best seeds that are apart: each next one is the best outside the others' neighbourhood."""
    F = _rank(part, seeds)
    chosen: list[int] = []
    while len(chosen) < count and np.isfinite(F.min()):
        chosen.append(int(F.argmin()))
        F = np.where(np.abs(seeds - seeds[chosen[-1]]).max(1) < SEEDS_APART, np.inf, F)
    return seeds[chosen]


def _rank(part: SkillBlock, seeds: Array) -> Array:
    """Objective of each seed."""
    P = seeds.shape[1]
    smooth = replace(part, objective=part.objective.smoothed(1e-3)[0])
    with np.errstate(over="ignore", invalid="ignore"):
        F = FitProblem(parts=(smooth,), mean=np.zeros(P), precision=np.zeros((P, P))).value(seeds)
    return np.where(np.isfinite(F), F, np.inf)


def _few(points: RunData) -> RunData:
    """The runs that seeds are found on: all, or a fixed draw; every k-th could fall in step with a grid."""
    used = np.flatnonzero(np.asarray(points.weights) > 0)
    if len(used) <= RANKED:
        return points
    return points.take(np.sort(np.random.default_rng(0).choice(used, RANKED, replace=False)))


def start_agreement(F: Array) -> MultiStart:
    """How many starts agree on the least F, and the gap of the next basin."""
    best = float(np.nanmin(F))
    apart = (F - best) / max(best, NO_ERROR)
    others = apart[apart > AGREE]
    return MultiStart(
        tried=len(F), agree=int((apart <= AGREE).sum()), gap=float(others.min()) if len(others) else math.inf
    )
