"""A law fitted to one skill with everything that users ask of it: intervals, optima, predictions, and its status."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from skillscale.errors import FitError
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.fit import FitResult, fit_law
from skillscale.laws.fit.mix_effects import MixEffects
from skillscale.laws.fit.objective import HUBER, Objective
from skillscale.laws.fit.predict import PredictedLoss, predict
from skillscale.laws.forms.catalogue import CHINCHILLA
from skillscale.laws.forms.nd import Array, Law
from skillscale.laws.results import Interval, Status
from skillscale.laws.selection.extrapolation import Extrapolation, by_cluster
from skillscale.laws.uncertainty.bootstrap import ClusterResamples, ResamplingMethod, draws, new_run_sd, resample
from skillscale.laws.uncertainty.diagnostics import diagnose_fit, prior_dominated
from skillscale.laws.uncertainty.resamples import interval

LEVEL = 0.9
FLAT_E = 0.01  # E below this share of the lowest loss can't be told from 0


@dataclass(frozen=True, kw_only=True)
class FittedLaw:
    """A law fitted to one skill, with draws of its log-parameters (K, p) that stand for what the runs leave open.

    ``one_step``: whether draws are one step of the curvature because their whole way would be long.
    ``effects``: what mixes that were run add to ln L beyond the law. ``setting``: in words, how a law was fitted that
    was chosen by held-out runs, else empty; ``rivals``: laws that predicted them about as well, ``weight``: of this law
    among them (all weights sum to 1).
    """

    skill: str
    fit: FitResult
    points: RunData = field(repr=False)
    q: Array = field(repr=False)
    level: float
    status: Status
    reason: str
    one_step: bool = False
    effects: MixEffects = field(default_factory=MixEffects, repr=False)
    setting: str = ""
    weight: float = 1.0
    rivals: "tuple[FittedLaw, ...]" = field(default=(), repr=False)
    # What was found before, by compute and mix: text, tables and figures ask for the same optima
    _optima: dict[tuple[float, tuple[float, ...] | None], Array] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def law(self) -> Law:
        """The law, bound to the centre of its runs."""
        return self.fit.law

    @property
    def n_runs(self) -> int:
        """Losses fitted, checkpoints counted each."""
        return len(self.points)

    @property
    def theta(self) -> dict[str, Interval]:
        """Natural parameters with their intervals."""
        drawn = self.law.theta(self.q)
        return {
            name: interval(float(self.fit.theta[j]), drawn[:, j], self.level)
            for j, name in enumerate(self.law.parameters)
        }

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why intervals may not cover although the fit is ok, each with its cure."""
        return diagnose_fit(self.fit, self.points, self.q, one_step=self.one_step)

    @property
    def believed(self) -> tuple[str, ...]:
        """Log-parameters that weak beliefs, or the skills that they are pooled with, decide more than the runs do."""
        return prior_dominated(self.fit, self.q)

    @property
    def exponent(self) -> Interval:
        """Exponent a of N* ~ C^a, at the centre of the runs and their mean mix."""
        h = self.mean_mix
        drawn = self.law.optimum_exponent(self.law.theta(self.q), h=h)
        return interval(float(self.law.optimum_exponent(self.fit.theta[None], h=h)[0]), drawn, self.level)

    @property
    def mean_mix(self) -> Array | None:
        """Shares averaged over the runs, where the law asks for a mix."""
        return None if self.points.h is None or not self.law.needs_mix else self.points.h.mean(0)

    @property
    def estimate(self) -> Array:
        """Log-parameters of the estimate, (p,)."""
        return self.fit.q

    @property
    def noise(self) -> float:
        """Sd of a new run about the law, in ln L."""
        return new_run_sd(self.fit, self.points)

    @property
    def reach(self) -> tuple[float, float]:
        """Least and largest 6 N D fitted, FLOP."""
        C = 6 * self.points.N * self.points.D
        return float(C.min()), float(C.max())

    @property
    def sizes(self) -> tuple[float, float]:
        """Least and largest N fitted, parameters."""
        return float(self.points.N.min()), float(self.points.N.max())

    @property
    def shares(self) -> Array | None:
        """Least and largest share of each category among the runs, (2, n_categories); None where they have no mix."""
        h = self.points.h
        return None if h is None else np.array([h.min(0), h.max(0)])

    def log_optimum(self, C: npt.ArrayLike, h: npt.ArrayLike | None = None) -> tuple[Array, Array]:
        """Ln N*(C) (n_C,) and its draws (K, n_C), at the mix h or the runs' mean mix; NaN where there is none."""
        return self.log_optima_of(self.fit.theta[None], C, h)[0], self.log_optima_of(self.law.theta(self.q), C, h)

    def log_optima_of(self, theta: Array, C: npt.ArrayLike, h: npt.ArrayLike | None = None) -> Array:
        """Ln N*(C) of natural parameters (K, p), each (K, n_C), at the mix h or the runs' mean mix."""
        return self.law.log_optimum(theta, C, self.mean_mix if h is None else h)

    def optimum(self, C: float, h: npt.ArrayLike | None = None) -> Interval:
        """N*(C) with its interval."""
        value, drawn = self.log_optimum([C], h)
        return interval(float(value[0]), drawn[:, 0], self.level).map(math.exp)

    def optima_over_laws(self, C: npt.ArrayLike, h: npt.ArrayLike | None = None) -> Array:
        """Draws of ln N*(C), (K, n_C), of this law and its rivals, each by its weight; NaN where one has no optimum."""
        computes = [float(each) for each in np.atleast_1d(np.asarray(C, dtype=float))]
        mix = None if h is None else tuple(np.ravel(np.asarray(h, dtype=float)).tolist())
        if new := [each for each in dict.fromkeys(computes) if (each, mix) not in self._optima]:
            parts = []
            for one in (self, *self.rivals):
                some = one.q[: max(round(one.weight * len(self.q)), 1)]
                parts.append(one.log_optima_of(one.law.theta(some), new, h))
            self._optima.update(zip([(each, mix) for each in new], np.concatenate(parts).T, strict=True))
        return np.column_stack([self._optima[each, mix] for each in computes])

    def told_optimum(self, C: float, h: npt.ArrayLike | None = None) -> Interval:
        """N*(C) of the law; its interval owns the choice of law where there are rivals."""
        value = float(self.log_optima_of(self.fit.theta[None], [C], h)[0, 0])
        return interval(value, self.optima_over_laws([C], h)[:, 0], self.level).map(math.exp)

    def loss(self, N: npt.ArrayLike, D: npt.ArrayLike, h: npt.ArrayLike | None = None) -> PredictedLoss:
        """L in nats per token at N parameters and D tokens, with the intervals of the law and of a new run there.

        Args:
            N: parameters, (n,).
            D: tokens, (n,).
            h: the mix, where the law asks for one; by default the runs' mean mix.

        Raises:
            InputError: N or D is not positive, or a mix is none.
        """
        mix = self.mean_mix if h is None else h
        told = predict(self.law, self.fit.theta, self.q, N, D, mix, level=self.level, noise=self.noise)
        return told.scaled(np.exp(self.effects.of(mix, len(told.value))))


def fit_skill(
    skill: str, points: RunData, *, law: Law = CHINCHILLA, objective: Objective | None = HUBER,
    pins: Mapping[str, float] | None = None, method: ResamplingMethod = ResamplingMethod.WILD, resamples: int = 1000, seed: int = 0,
    level: float = LEVEL, budgets: npt.NDArray[np.generic] | None = None, chance: ClusterResamples | None = None,
) -> FittedLaw:  # fmt: skip
    """Fit a law to a skill, with draws for its intervals.

    Args:
        skill: its name; a category of the mix may bear it.
        points: its runs.
        law: the form.
        objective: what to minimise; None: Huber with delta twice the noise.
        pins: natural parameters that are given.
        method: of the draws.
        resamples: how many.
        seed: of the draws.
        level: of the intervals.
        budgets: (n,) labels, where ``method`` resamples budgets.
        chance: in place of ``method``, ``resamples`` and ``seed``: shared with other skills.

    Raises:
        FitError: the runs can't carry the law.
        InputError: the law needs a mix that the runs don't tell, or a parameter can't be pinned.
    """
    bound = points.bind(law).for_skill(skill)
    fit = fit_law(points, law=bound, objective=objective, pins=pins)
    q = draws(fit, points, method=method, count=resamples, seed=seed, budgets=budgets, chance=chance)
    reason = undetermined_parameters(fit, fit.law.theta(q), level, float(points.L.min()))
    return FittedLaw(
        skill=skill, fit=fit, points=points, q=q, level=level,
        status=Status.NOT_IDENTIFIED if reason else Status.OK, reason=reason,
    )  # fmt: skip


def skill_law_from(
    told: Extrapolation, *, level: float = LEVEL, budgets: npt.NDArray[np.generic] | None = None,
    chance: ClusterResamples | None = None, weight: float = 1.0,
) -> FittedLaw:  # fmt: skip
    """A forecast's own fit, with draws for the intervals of what it tells.

    Args:
        told: the forecast, with the beliefs, pooled exponents and mix effects of its setting.
        level: of the intervals.
        budgets: (n,) labels, where ``chance`` resamples budgets.
        chance: what befalls clusters, those of ``by_cluster``; None: 1000 wild resamples.
        weight: of this law among its rivals.

    Raises:
        FitError: fewer than 3 clusters to resample.
    """
    points, fit = told.points, told.fit
    q = draws(fit, by_cluster(points), budgets=budgets, chance=chance)
    reason = undetermined_parameters(fit, fit.law.theta(q), level, float(points.L.min()))
    return FittedLaw(
        skill=told.skill, points=points, q=q, level=level, effects=told.effects, setting=told.setting.name,
        # What is left beside the mix effects is the noise of what is told
        fit=replace(fit, residuals=fit.residuals - told.effects.of(points.h, len(points))),
        status=Status.NOT_IDENTIFIED if reason else Status.OK, reason=reason, weight=weight,
    )  # fmt: skip


def fit_together(
    data: Mapping[str, RunData], *, law: Law | Mapping[str, Law] = CHINCHILLA, objective: Objective | None = HUBER,
    pins: Mapping[str, float] | None = None, method: ResamplingMethod = ResamplingMethod.WILD, resamples: int = 1000, seed: int = 0,
    level: float = LEVEL, budgets: Mapping[str, npt.NDArray[np.generic]] | None = None,
) -> dict[str, FittedLaw]:  # fmt: skip
    """Fit each skill by itself, with resamples that all share: draw k of every skill is of one resample.

    Errors of skills that were measured on one run go together, so that only such draws tell how well a difference
    between skills is known. A run is known in every skill by its label; a skill may lack some.

    Args:
        data: each skill's runs.
        law: the form, or one a skill.
        objective: what to minimise; None: Huber with delta twice the noise.
        pins: natural parameters that are given.
        method: of the draws.
        resamples: how many.
        seed: of the draws.
        level: of the intervals.
        budgets: (n,) labels a skill, where ``method`` resamples budgets.

    Raises:
        FitError: a skill's runs can't carry the law, or one label names different runs in two skills.
        InputError: the law needs a mix that the runs don't tell, or a parameter can't be pinned.
    """
    chance = shared_resamples(data, method=method, count=resamples, seed=seed, budgets=budgets)
    return {
        name: fit_skill(
            name, points, law=law if isinstance(law, Law) else law[name], objective=objective, pins=pins, level=level,
            budgets=budgets[name] if budgets else None, chance=chance,
        )
        for name, points in data.items()
    }  # fmt: skip


def shared_resamples(
    data: Mapping[str, RunData], *, method: ResamplingMethod = ResamplingMethod.WILD, count: int = 1000, seed: int = 0,
    budgets: Mapping[str, npt.NDArray[np.generic]] | None = None,
) -> ClusterResamples:  # fmt: skip
    """What befalls the runs of several skills in each resample.

    Raises:
        FitError: there is no skill, or one label names different runs in two skills.
    """
    if not data:
        raise FitError("there is no skill to fit; name at least one")
    _check_same_runs(data)
    labels = [resample(points, method, budgets[name] if budgets else None) for name, points in data.items()]
    return ClusterResamples.draw(np.concatenate(labels), method, count=count, seed=seed)


def _check_same_runs(data: Mapping[str, RunData]) -> None:
    """Refuse labels, such as the default ones by place, that stand for other runs in another skill."""
    known: dict[str, tuple[str, set[float]]] = {}
    for skill, points in data.items():
        own: dict[str, set[float]] = {}
        for label, N in zip(np.asarray(points.labels).astype(str), points.N, strict=True):
            own.setdefault(label, set()).add(float(N))
        for label, sizes in own.items():
            other, theirs = known.setdefault(label, (skill, sizes))
            if not sizes & theirs:
                raise FitError(
                    f"cluster {label} has N = {min(sizes):.4g} in {skill} and {min(theirs):.4g} in {other}, so that it "
                    "can't be one run; give `clusters` that name each run alike in every skill"
                )


def undetermined_parameters(fit: FitResult, theta: Array, level: float, lowest_loss: float) -> str:
    """Why the runs can't tell the law's parameters, with the cure; empty where they can."""
    bands = {name: interval(float(fit.theta[j]), theta[:, j], level) for j, name in enumerate(fit.law.parameters)}
    free = set(fit.free)
    if "E" in bands and 0 in free and not bands["E"].lo > FLAT_E * lowest_loss:
        return "the runs can't tell E from 0; add larger budgets, or pin or share E"
    for name, (low, high) in fit.law.bounds.items():
        at, _ = fit.law.fix(name, 0.5)
        if at in free and not (bands[name].lo > low and bands[name].hi < high):
            letter = "N" if name == "alpha" else "D"
            told = f"{bands[name].value:.3g} [{bands[name].lo:.3g}, {bands[name].hi:.3g}]"
            return f"the runs can't tell {name}: {told}; add runs that differ in {letter}, or pin or share {name}"
    # Only where no parameter explains it: one that the runs can't tell makes the way to the optimum long
    return (
        ""
        if fit.converged
        else "the fit did not converge; look for absurd losses, or choose a law with fewer parameters"
    )


def split_by_skill(runs: pd.DataFrame, skills: Sequence[str], categories: Sequence[str] = ()) -> dict[str, RunData]:
    """Each skill's runs from a table of usable runs; a run without the skill's loss is left out for it alone.

    Args:
        runs: columns N, D, ``cluster`` (or run_id), a loss column a skill, and ``mix/CATEGORY`` a category.
        skills: loss columns.
        categories: of the mix, in the order of the laws' parameters.

    Raises:
        FitError: a skill has no loss at all.
    """
    found = {}
    clusters = runs["cluster"] if "cluster" in runs.columns else runs["run_id"]
    for skill in skills:
        there = runs[skill].notna().to_numpy()
        if not there.any():
            raise FitError(f"no run has a loss for {skill}; leave it out, or measure it")
        some = runs[there]
        found[skill] = RunData(
            N=some["N"].to_numpy(dtype=float), D=some["D"].to_numpy(dtype=float), L=some[skill].to_numpy(dtype=float),
            h=some[[f"mix/{name}" for name in categories]].to_numpy(dtype=float) if categories else None,
            categories=tuple(categories), clusters=clusters[there].to_numpy(),
        )  # fmt: skip
    return found
