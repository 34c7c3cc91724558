"""Which law: the one that tells the larger runs best from the smaller ones, and how far it may be off beyond them.

Nothing but the runs given decides: the largest of them are held out, each candidate is fitted to the rest, and errors
on those held out are compared. One law is chosen for all skills of a table, because one skill alone tells too little.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from skillscale.errors import FitError
from skillscale.laws.bootstrap import sandwich
from skillscale.laws.catalogue import LAWS
from skillscale.laws.fit import Fit, fit_law
from skillscale.laws.forms import Array, Law
from skillscale.laws.objective import Objective
from skillscale.laws.points import Points

Mask = npt.NDArray[np.bool_]

FEW_SIZES = 12  # up to so many distinct sizes runs are held out by size, beyond by compute
TOP_SHARE = 0.2  # of the runs, by compute, that are held out where sizes are many
LEAST_HELD_OUT = 2
SPLITS = 2
NEAR_BEST = 0.10  # laws within this share of the best error are level, and the one with fewest parameters is taken
MANY_RUNS = 60  # below which nine parameters can't be told
LATE = 0.45  # share of a run's tokens after which its checkpoints lie on the curve of finished runs (docs/results.md)
SCREENED = 3  # skills on which candidates are compared first
SHORT_LIST = 3  # candidates that are then compared on all skills
_STARTS = 2
_BY_DEFAULT = ("chinchilla", "coupled", "drifting")
_WITH_MANY_RUNS = ("farseer",)
_WITH_A_MIX = ("effective_data", "additive_mixture", "separable")
_WITH_CHECKPOINTS = ("separable_transient",)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A law, and the share of a run's tokens before which its checkpoints are left out of the fit."""

    law: Law
    late: float = 0.0

    @property
    def name(self) -> str:
        """For tables: the law, and what is left out."""
        return self.law.name + (f", checkpoints from {self.late:.0%} of a run" if self.late else "")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A candidate's error on runs held out: mean over skills and splits of |law / L - 1|; infinite where none could be.

    ``excess``: variance of ln L, per unit of squared reach beyond the runs fitted, over what noise and parameters tell.
    """

    candidate: Candidate
    error: float
    n_parameters: int
    agree: float = field(metadata={"unit": "share of starts that reached the optimum"})
    excess: float


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The candidate taken, and all that were tried, best first. Without trials nothing could be held out."""

    taken: Candidate
    trials: tuple[Trial, ...]

    @property
    def excess(self) -> float:
        """Of the candidate taken."""
        return next((trial.excess for trial in self.trials if trial.candidate == self.taken), 0.0)


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a law fitted to some runs tells of others: ``told`` ln L (n,), and its sd for a new run (n,)."""

    told: Array = field(metadata={"unit": "ln L"})
    sd: Array = field(metadata={"unit": "ln L"})
    fit: Fit

    def covers(self, L: Array, level: float) -> Mask:
        """Whether losses lie within the interval of a new run."""
        return np.asarray(np.abs(np.log(L) - self.told) <= self.half_width(level))

    def half_width(self, level: float) -> Array:
        """Of the interval of a new run, in ln L."""
        return float(norm.ppf((1 + level) / 2)) * self.sd


def candidates(data: Mapping[str, Points], law: Law | None = None) -> tuple[Candidate, ...]:
    """The laws that make sense for these runs, or the one that was named, each with what to leave out."""
    some = next(iter(data.values()))
    several = _has_checkpoints(some)
    if law is not None:
        laws = [law]
    else:
        names = list(_BY_DEFAULT)
        names += _WITH_MANY_RUNS if some.n_clusters >= MANY_RUNS and some.h is None else ()
        names += _WITH_A_MIX if some.h is not None else ()
        names += _WITH_CHECKPOINTS if some.h is not None and several else ()
        laws = [LAWS[name] for name in names]
    lates = (0.0, LATE) if several else (0.0,)
    return tuple(Candidate(law=one, late=late) for one in laws for late in lates)


def choose(data: Mapping[str, Points], law: Law | None = None, objective: Objective | None = None) -> Choice:
    """The candidate with the least error on held-out larger runs; of those level with it, the simplest.

    Args:
        data: each skill's runs.
        law: if named, it is taken, and the trials only say how far it may be off.
        objective: of the fits.
    """
    splits = {name: inner_splits(points) for name, points in data.items()}
    tried = candidates(data, law)
    if not any(splits.values()):
        return Choice(taken=tried[0], trials=())
    if len(tried) > SHORT_LIST and len(data) > SCREENED:
        some = {name: data[name] for name in list(data)[:: max(1, len(data) // SCREENED)][:SCREENED]}
        screened = sorted((_try(one, some, splits, objective) for one in tried), key=lambda trial: trial.error)
        tried = tuple(trial.candidate for trial in screened[:SHORT_LIST])
    trials = sorted((_try(one, data, splits, objective) for one in tried), key=lambda trial: trial.error)
    best = trials[0].error
    if not math.isfinite(best):
        return Choice(taken=tried[0], trials=tuple(trials))
    level = [trial for trial in trials if trial.error <= best * (1 + NEAR_BEST)]
    taken = min(level, key=lambda trial: (trial.n_parameters, trial.error))
    return Choice(taken=taken.candidate, trials=tuple(trials))


def inner_splits(points: Points) -> tuple[tuple[Mask, Mask], ...]:
    """Up to two pairs (fitted, held out) of rows: the largest size out; the next one out, the largest left aside."""
    sizes = np.unique(np.round(np.log(points.N), 3))
    if len(sizes) > FEW_SIZES:
        C = points.N * points.D
        edge = np.quantile(C, 1 - TOP_SHARE)
        pairs = [(edge >= C, edge < C)]
    else:
        rounded = np.round(np.log(points.N), 3)
        pairs = [(rounded < sizes[-k], rounded == sizes[-k]) for k in range(1, min(SPLITS, len(sizes) - 2) + 1)]
    return tuple((low, high) for low, high in pairs if low.sum() > LEAST_HELD_OUT and high.sum() >= LEAST_HELD_OUT)


def late_enough(points: Points, share: float) -> Mask:
    """Rows from ``share`` of their run's last tokens on, without copies of a run's last checkpoint."""
    codes, log_D = np.asarray(points.clusters), np.log(points.D)
    last = np.full(points.n_clusters, -np.inf)
    np.maximum.at(last, codes, log_D)
    kept = log_D >= last[codes] + math.log(share) if share else np.ones(len(points), dtype=bool)
    order = np.lexsort((log_D, codes))
    following = np.zeros(len(points), dtype=bool)
    same = (np.diff(codes[order]) == 0) & (np.diff(log_D[order]) < 0.01) & (np.diff(points.L[order]) == 0)
    following[order[:-1]] = same
    return kept & ~following


def fitted_points(points: Points, candidate: Candidate) -> Points:
    """The rows that a candidate is fitted to."""
    return points.take(late_enough(points, candidate.late)) if _has_checkpoints(points) else points


def forecast(
    skill: str, points: Points, new: Points, candidate: Candidate, *, objective: Objective | None = None,
    excess: float = 0.0, starts: int = 6,
) -> Forecast:  # fmt: skip
    """Fit a candidate to a skill's runs, and tell the losses of others.

    The sd of a new run adds up the parameters (errors taken together by mix where several runs share one, because what
    a law misses of a mix recurs at every size), the spread of runs about the law, and the ``excess`` that held-out runs
    showed, grown with the reach beyond the runs fitted. Where a mix was run before, its own offset, shrunk by how far
    offsets of mixes can be told from noise, moves the forecast.

    Raises:
        FitError: the runs can't carry the law.
    """
    some = fitted_points(points, candidate)
    law = some.bind(candidate.law).for_skill(skill)
    fit = fit_law(some, law=law, objective=objective, starts=starts)
    told = law.log_loss(fit.q[None], new.covariates(law))[0]
    offsets, spread, rest = _mix_offsets(some, fit) if law.needs_mix else ({}, 0.0, _new_run_sd(some, fit))
    labels = mix_labels(new) if offsets else []
    moved = np.array([offsets.get(label, 0.0) for label in labels]) if offsets else 0.0
    unknown = np.array([label not in offsets for label in labels]) * spread**2 if offsets else 0.0
    variance = _parameter_variance(some, fit, new) + rest**2 + unknown + excess * reach(some, new) ** 2
    return Forecast(told=told + moved, sd=np.sqrt(variance), fit=fit)


def reach(fitted: Points, new: Points) -> Array:
    """How far runs lie beyond those fitted: in ln N beyond the largest size, plus in ln D beyond the most tokens."""
    beyond = [np.log(getattr(new, letter) / getattr(fitted, letter).max()) for letter in "ND"]
    return np.asarray(np.maximum(beyond[0], 0.0) + np.maximum(beyond[1], 0.0))


def mix_labels(points: Points) -> list[str]:
    """A text that names each row's mix."""
    shares = np.zeros((len(points), 0)) if points.h is None else points.h
    return [" ".join(f"{share:.4f}" for share in row) for row in shares]


def _try(
    candidate: Candidate, data: Mapping[str, Points], splits: Mapping[str, Sequence[tuple[Mask, Mask]]],
    objective: Objective | None,
) -> Trial:  # fmt: skip
    errors, excesses, agrees, size = [], [], [], 0
    for skill, points in data.items():
        for low, high in splits[skill]:
            new = points.take(high)
            try:
                told = forecast(skill, points.take(low), new, candidate, objective=objective, starts=_STARTS)
            except FitError:
                errors.append(math.inf)
                continue
            off = new.log_L - told.told
            finals = late_enough(new, 1.0 - 1e-9) if _has_checkpoints(new) else np.ones(len(new), dtype=bool)
            relative = np.abs(np.expm1(-off))
            errors.append(0.5 * float(relative.mean()) + 0.5 * float(relative[finals].mean()))
            far = np.maximum(reach(points.take(low), new), 0.1)
            excesses.append(float(np.mean((off[finals] ** 2 - told.sd[finals] ** 2) / far[finals] ** 2)))
            agrees.append(told.fit.starts.agree / told.fit.starts.tried)
            size = max(size, told.fit.n_free)
    return Trial(
        candidate=candidate, error=float(np.mean(errors)) if errors else math.inf, n_parameters=size,
        agree=float(np.mean(agrees)) if agrees else 0.0, excess=max(float(np.mean(excesses)), 0.0) if excesses else 0.0,
    )  # fmt: skip


def _has_checkpoints(points: Points) -> bool:
    return points.n_clusters < len(points)


def _parameter_variance(points: Points, fit: Fit, new: Points) -> Array:
    """Variance of ln L at new runs from the parameters, errors clustered by mix where several runs share one."""
    labels = np.array(mix_labels(points)) if fit.law.needs_mix else np.asarray(points.clusters)
    codes = labels if len(np.unique(labels)) > fit.n_free else np.asarray(points.clusters)
    problem = fit.problem(points)
    bread = sandwich(problem, fit.q[list(fit.free)], np.unique(codes, return_inverse=True)[1])
    jac = fit.law.jacobian(fit.q[None], new.covariates(fit.law))[0][:, list(fit.free)]
    return np.asarray(np.einsum("np,pq,nq->n", jac, bread.covariance, jac))


def _new_run_sd(points: Points, fit: Fit) -> float:
    """Sd of a run about the law from its late checkpoints, in ln L; robust, so that a bad run does not widen all."""
    late = late_enough(points, LATE) if _has_checkpoints(points) else np.ones(len(points), dtype=bool)
    r = fit.residuals[late]
    slack = math.sqrt(len(r) / max(len(r) - fit.n_free, 1))
    tails = np.quantile(np.abs(r), [0.683, 0.9]) / [1.0, 1.645]
    return float(tails.max() * slack)


def _mix_offsets(points: Points, fit: Fit) -> tuple[dict[str, float], float, float]:
    """Shrunk offset of each mix in ln L, the sd of offsets, and the sd of a run about law and offset.

    Residuals of late checkpoints, less the mean of their size, averaged by run; an offset is shrunk by the ratio of the
    variance between mixes to that of a mix's mean (a best linear unbiased prediction).
    """
    late = late_enough(points, LATE) if _has_checkpoints(points) else np.ones(len(points), dtype=bool)
    some = points.take(late)
    labels = np.array(mix_labels(some))
    codes = np.asarray(some.clusters)
    counts = np.bincount(codes)
    mean = np.bincount(codes, fit.residuals[late]) / counts
    first = np.unique(codes, return_index=True)[1]
    size, mix = np.round(np.log(some.N[first]), 3), labels[first]
    for one in np.unique(size):
        mean[size == one] -= mean[size == one].mean()
    names, of = np.unique(mix, return_inverse=True)
    n = np.bincount(of)
    level = np.bincount(of, mean) / n
    free = len(mean) - len(names)
    if free < 3 or len(names) < 3:
        return {}, 0.0, _new_run_sd(points, fit)
    within = float(((mean - level[of]) ** 2).sum() / free)
    between = max(float(np.var(level, ddof=1)) - within * float(np.mean(1 / n)), 0.0)
    shrunk = level * between / (between + within / n) if between > 0 else 0.0 * level
    left = fit.residuals[late] - shrunk[of][codes]
    sd = max(float(np.quantile(np.abs(left), 0.9)) / 1.645, math.sqrt(within))
    return dict(zip(names.tolist(), shrunk.tolist(), strict=True)), math.sqrt(between), sd
