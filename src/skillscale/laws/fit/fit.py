"""Fit a law to one skill: variable-projection seeds, then exact second-order steps on centred logarithms.

In: the runs of one skill, a law, an objective, and optionally fixed parameters and priors. Out: a ``FitResult`` with
the parameters, the objective, the noise, and how many starts agreed.

The objective is the SUM over runs, F = sum_i w_i rho(ln L_i - ln L(N_i, D_i)). A mean with an optimiser's default
tolerance stops early and finds another law (the cause of the published replication debate). Here a fit stops when no
step from the second derivatives lowers F any further. The result reports how many starts reached the optimum, and how
far above it the next basin is.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from skillscale.errors import FitError
from skillscale.laws.fit.data import RunData, check_identified
from skillscale.laws.fit.gauss_newton import approach_minima
from skillscale.laws.fit.newton import DAMPING, FitProblem, SkillBlock, minimise
from skillscale.laws.fit.objective import DELTA, EFFICIENT, HUBER, Objective, dispersion
from skillscale.laws.forms.catalogue import CHINCHILLA
from skillscale.laws.forms.nd import Array, Law, Prior
from skillscale.laws.results import MultiStart

AGREE = 1e-6  # relative difference of F below which two starts reached the same optimum
STARTS = 6
_PILOT_STARTS = 2  # of the pilot fit that estimates the noise
SEEDS_APART = 0.1  # least distance of two seeds, in the log-parameter that differs most
NO_ERROR = 1e-18  # F of exact data; starts below it agree
RANKED = 4000  # most runs that seeds are computed and ranked on
_PRIOR_ROUNDS = 6
REFINED = 1e-7  # units of log-likelihood at which the fit of a resample stops
_NEAR = 1e-4  # relative decrease of F below which second derivatives finish a fit in three steps or so
_NEAR_DAMPING = 1e-6
_SETTLED = 0.02  # relative change of the noise between two rounds at which the weight of weak priors has converged


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """A fitted law. ``theta``: natural parameters. ``q``: log-parameters of the ``law``, which is bound to its centre.

    ``F``: objective without priors. ``penalty``: contribution of the weak priors. ``phi``: scale at which F / phi is a
    negative log-likelihood. ``free``: positions in q that the runs determine. ``prior``: mean and precision (in units
    of 1 / phi) of the weak priors over the free log-parameters.
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
        """Natural parameters, in full precision."""
        return {name: float(value) for name, value in zip(self.law.parameters, self.theta, strict=True)}

    @property
    def n_free(self) -> int:
        """Number of log-parameters that the runs determine."""
        return len(self.free)

    @property
    def noise(self) -> float:
        """Robust sd of a run about the law, in ln L."""
        return estimate_noise(self.residuals, self.n_free)

    def build_problem(
        self, runs: RunData, *, log_L: Array | None = None, weights: Array | None = None, mean: Array | None = None
    ) -> FitProblem:
        """Build the minimisation that this fit solved, with other responses, weights or prior means.

        Args:
            runs: runs of the fit.
            log_L: responses, (n,) or (K, n); by default those of the runs.
            weights: weights, (n,) or (K, n); by default those of the runs.
            mean: means of the weak priors, (n_free,) or (K, n_free); by default those of the fit.
        """
        prior_mean, precision = self.prior
        block = _skill_block(
            self.law, runs, self.objective, T=np.eye(len(self.q))[:, list(self.free)],
            offset=np.where(np.isin(np.arange(len(self.q)), self.free), 0.0, self.q), log_L=log_L, weights=weights,
        )  # fmt: skip
        return FitProblem(blocks=(block,), mean=prior_mean if mean is None else mean, precision=precision * self.phi)


def fit_law(
    runs: RunData, *, law: Law = CHINCHILLA, objective: Objective | None = HUBER, starts: int = STARTS,
    fixed: Mapping[str, float] | None = None, starting_points: Array | None = None,
    priors: Mapping[str, Prior] | None = None,
) -> FitResult:  # fmt: skip
    """Fit a law to runs.

    Args:
        runs: runs with their weights.
        law: form; it is bound to the centre and the categories of the runs, unless it is bound already.
        objective: function to minimise. None: Huber with delta twice the runs' noise, 99 % as efficient as least
            squares.
        starts: number of seeds that are followed to their optimum.
        fixed: values of fixed natural parameters.
        starting_points: starting points (K, p) in q of a bound law, in place of the law's seeds.
        priors: priors of log-parameters, keyed by their name or that of the parameter that one of them decides. They
            replace the law's weak priors.

    Raises:
        FitError: too few runs or sizes, N and D confounded, or no start reached a finite objective.
        InputError: the law needs a mix that the runs don't have, or a parameter can't be fixed.
    """
    if objective is None:
        fit_once = partial(fit_law, runs, law=law, fixed=fixed, starting_points=starting_points, priors=priors)
        noise = fit_once(objective=HUBER, starts=_PILOT_STARTS).noise
        return fit_once(objective=efficient_objective(noise), starts=starts)
    bound = law if law.x0 or law.y0 else runs.bind(law)
    fixed_q = dict(bound.fix(name, value) for name, value in (fixed or {}).items())
    n_log = len(bound.log_names)
    free = tuple(j for j in range(n_log) if j not in fixed_q)
    all_priors = {**bound.priors, **{_position(bound, name): prior for name, prior in (priors or {}).items()}}
    constrained = {*fixed_q, *all_priors}
    exponents = (("N", "alpha"), ("D", "beta"))
    letters = "".join(letter for letter, name in exponents if _is_constrained(bound, name, constrained))
    check_identified(runs, n_parameters=len(free) - len([j for j in all_priors if j in free]), constrained=letters)
    offset = np.zeros(n_log)
    offset[list(fixed_q)] = list(fixed_q.values())
    T = np.eye(n_log)[:, list(free)]
    block = _skill_block(bound, runs, objective, T=T, offset=offset)
    mean, precision = _free_priors(all_priors, free)
    ranking_runs = _ranking_sample(runs)
    ranking_block = _skill_block(bound, ranking_runs, objective, T=T, offset=offset)
    seeds = starting_points
    if seeds is None:
        seeds = bound.seeds(ranking_block.z, ranking_runs.log_L, ranking_block.weights)
    Q = _best_seeds(ranking_block, seeds[:, list(free)], count=starts)
    if not len(Q):
        raise FitError(
            f"no start of {bound.name} has a finite objective. Check losses, sizes and tokens for extreme values."
        )
    return _finish(runs, block, Q, free, (mean, precision))


def _is_constrained(law: Law, name: str, constrained: set[int]) -> bool:
    return name in law.parameters and law.fix(name, 0.5)[0] in constrained


def efficient_objective(noise: float) -> Objective:
    """Return Huber with delta twice the noise, at least 0.001: 99 % as efficient as least squares without outliers."""
    return Objective(delta=max(EFFICIENT * noise, DELTA))


def estimate_noise(r: Array, n_parameters: int) -> float:
    """Return the robust sd of errors (n,) about a fit of ``n_parameters``."""
    return float(1.4826 * np.median(np.abs(r)) * math.sqrt(len(r) / max(len(r) - n_parameters, 1)))


def refit(
    fit: FitResult,
    runs: RunData,
    log_L: Array | None = None,
    *,
    weights: Array | None = None,
    mean: Array | None = None,
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Fit K resamples of the runs at once, each from the optimum of ``fit``.

    Args:
        fit: fit of the original runs.
        runs: runs of the fit.
        log_L: resampled responses, (K, n) (residual bootstrap).
        weights: resampled weights, (K, n) (pairs bootstrap: counts).
        mean: means of the weak priors in each resample, (K, n_free).

    Returns:
        Log-parameters (K, p) and whether each resample converged (K,).
    """
    K = max(len(x) for x in (log_L, weights) if x is not None and x.ndim == 2)
    problem = fit.build_problem(runs, log_L=log_L, weights=weights, mean=mean)
    Q, _, converged = solve(
        problem, np.tile(fit.q[list(fit.free)], (K, 1)), typical=fit.noise, tolerance=REFINED * fit.phi
    )
    return problem.blocks[0].q(Q), converged


def solve(
    problem: FitProblem, Q: Array, *, typical: float, tolerance: float = 0.0
) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Minimise a problem; a kinked objective is approached by a sequence of sharper smooth ones.

    Args:
        problem: problem to minimise.
        Q: starts, (K, P).
        typical: size of an error, in ln L.
        tolerance: predicted decrease of F at which to stop.

    Returns:
        Q (K, P), F with its penalty (K,), converged (K,).
    """
    stages = zip(*(block.objective.smooth_stages(typical) for block in problem.blocks), strict=True)
    converged = np.ones(len(Q), dtype=bool)
    for stage in stages:
        smooth = problem.with_objectives(stage)
        kinked = any(block.objective.corner == 0 for block in problem.blocks)
        scale = max((block.objective.delta for block in smooth.blocks), default=1.0) if kinked else 1.0
        # |r| is Huber / delta, so the penalty must be scaled by delta too
        smooth = FitProblem(blocks=smooth.blocks, mean=smooth.mean, precision=smooth.precision * scale)
        near = len(smooth.blocks) == 1
        if near:
            Q, _ = approach_minima(smooth, Q, tolerance=tolerance, relative=_NEAR)
        Q, _, converged = minimise(smooth, Q, tolerance=tolerance, damping=_NEAR_DAMPING if near else DAMPING)
    return Q, problem.value(Q), converged


def _skill_block(
    law: Law, runs: RunData, objective: Objective, *, T: Array, offset: Array, log_L: Array | None = None,
    weights: Array | None = None,
) -> SkillBlock:  # fmt: skip
    responses = runs.log_L if log_L is None else log_L
    return SkillBlock(
        law=law, z=runs.covariates(law), responses=np.exp(responses) if objective.on == "raw" else responses,
        weights=np.asarray(runs.weights) if weights is None else weights, objective=objective, T=T, offset=offset,
    )  # fmt: skip


def _position(law: Law, name: str) -> int:
    """Return the position in q of a log-parameter, given its name or its parameter's."""
    return law.log_names.index(name) if name in law.log_names else law.positions(name)[0]


def _free_priors(priors: Mapping[int, Prior], free: tuple[int, ...]) -> tuple[Array, Array]:
    """Return mean and precision of weak priors, given by position in q, over the free log-parameters."""
    mean, precision = np.zeros(len(free)), np.zeros(len(free))
    for at, j in enumerate(free):
        if j in priors:
            mean[at], precision[at] = priors[j].mean, priors[j].sd ** -2
    return mean, np.diag(precision)


def _finish(runs: RunData, block: SkillBlock, Q: Array, free: tuple[int, ...], prior: tuple[Array, Array]) -> FitResult:
    """Follow the starts. With weak priors, repeat until the noise that weighs them has converged."""
    mean, precision = prior
    r = block.errors(Q[:1])[0]
    phi = dispersion(block.objective, r, block.weights, len(free))
    for _ in range(_PRIOR_ROUNDS):
        problem = FitProblem(blocks=(block,), mean=mean, precision=precision * phi)
        Q, F, converged = solve(problem, Q, typical=float(np.median(np.abs(r))))
        if not np.isfinite(F).any():
            raise FitError(
                f"none of {len(Q)} starts of {block.law.name} reached a finite objective. Check the losses "
                "for extreme values."
            )
        best = int(np.nanargmin(F))
        r = block.errors(Q[best : best + 1])[0]
        before, phi = phi, dispersion(block.objective, r, block.weights, len(free))
        if not precision.any() or abs(phi - before) <= _SETTLED * before:
            break
    q = block.q(Q[best : best + 1])
    bare = float(block.objective.total(r, block.weights))
    residuals = runs.log_L - block.law.log_loss(q, block.z)[0]
    return FitResult(
        law=block.law, theta=block.law.theta(q)[0], q=q[0], F=bare, penalty=float(F[best]) - bare, phi=phi,
        objective=block.objective, starts=start_agreement(F), residuals=residuals, converged=bool(converged[best]),
        free=free, prior=prior,
    )  # fmt: skip


def _best_seeds(block: SkillBlock, seeds: Array, *, count: int) -> Array:
    """Return the ``count`` best seeds that are at least ``SEEDS_APART`` from each other."""
    F = _seed_objectives(block, seeds)
    chosen: list[int] = []
    while len(chosen) < count and np.isfinite(F.min()):
        chosen.append(int(F.argmin()))
        F = np.where(np.abs(seeds - seeds[chosen[-1]]).max(1) < SEEDS_APART, np.inf, F)
    return seeds[chosen]


def _seed_objectives(block: SkillBlock, seeds: Array) -> Array:
    """Return the objective of each seed."""
    P = seeds.shape[1]
    smooth = replace(block, objective=block.objective.smooth_stages(1e-3)[0])
    with np.errstate(over="ignore", invalid="ignore"):
        F = FitProblem(blocks=(smooth,), mean=np.zeros(P), precision=np.zeros((P, P))).value(seeds)
    return np.where(np.isfinite(F), F, np.inf)


def _ranking_sample(runs: RunData) -> RunData:
    """Return the runs that seeds are ranked on: all, or a fixed random sample (every k-th may match a grid)."""
    used = np.flatnonzero(np.asarray(runs.weights) > 0)
    if len(used) <= RANKED:
        return runs
    return runs.take(np.sort(np.random.default_rng(0).choice(used, RANKED, replace=False)))


def start_agreement(F: Array) -> MultiStart:
    """Count the starts that reached the least F, and measure the gap to the next basin."""
    best = float(np.nanmin(F))
    apart = (F - best) / max(best, NO_ERROR)
    others = apart[apart > AGREE]
    return MultiStart(
        tried=len(F), agree=int((apart <= AGREE).sum()), gap=float(others.min()) if len(others) else math.inf
    )
