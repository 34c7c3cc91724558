"""A law fitted to one skill: intervals, optima, predictions and status.

In: the runs of one skill, or of several that share resamples. Out: a ``FittedLaw``, the value that reports, plans and
documents are made from.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

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
from skillscale.laws.uncertainty.bootstrap import (
    ClusterResamples,
    ResamplingMethod,
    draw_parameters,
    new_run_sd,
    resampling_labels,
)
from skillscale.laws.uncertainty.diagnostics import Diagnosis, diagnose_few_runs, diagnose_fit, prior_dominated
from skillscale.laws.uncertainty.posterior import ParameterInformation, measure_information
from skillscale.laws.uncertainty.resamples import interval

LEVEL = 0.9
FLAT_E = 0.01  # E below this share of the lowest loss counts as 0


@dataclass(frozen=True, kw_only=True)
class FittedLaw:
    """A law fitted to one skill, with draws ``q`` (K, p) of its log-parameters that carry the uncertainty of the runs.

    ``one_step``: whether each draw is one step of the curvature instead of a full fit. ``effects``: offsets of ln L by
    mix. ``setting``: description of the setting, for a law chosen by held-out runs, else empty. ``rivals``: laws that
    predicted them about as well. ``weight``: weight of this law among them (all weights sum to 1). ``information``:
    what the runs and what the priors say of the parameters. ``few_noise``: sd of a run, where runs are so few that it
    rests on a prior too, and the draws are those of a posterior; else NaN.
    """

    skill: str
    fit: FitResult
    runs: RunData = field(repr=False)
    q: Array = field(repr=False)
    level: float
    status: Status
    reason: str
    one_step: bool = False
    effects: MixEffects = field(default_factory=MixEffects, repr=False)
    setting: str = ""
    weight: float = 1.0
    rivals: "tuple[FittedLaw, ...]" = field(default=(), repr=False)
    information: ParameterInformation | None = field(default=None, repr=False)
    few_noise: float = math.nan
    # Cache by compute and mix: text, tables and figures need the same optima
    _optima: dict[tuple[float, tuple[float, ...] | None], Array] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def law(self) -> Law:
        """Law, bound to the centre of its runs."""
        return self.fit.law

    @property
    def n_runs(self) -> int:
        """Number of losses; every checkpoint counts."""
        return len(self.runs)

    @property
    def theta(self) -> dict[str, Interval]:
        """Natural parameters with their intervals. Of one that is not identified only what bounds it."""
        return {
            name: self.unidentified[name].bounds if name in self.unidentified else value
            for name, value in parameter_intervals(self.fit, self.law.theta(self.q), self.level).items()
        }

    @cached_property
    def unidentified(self) -> "dict[str, UnidentifiedParameter]":
        """Natural parameters that the runs do not determine, by name."""
        theta = self.law.theta(self.q)
        return unidentified_parameters(self.fit, theta, self.level, float(self.runs.L.min()))

    @cached_property
    def diagnoses(self) -> tuple[Diagnosis, ...]:
        """Failed checks of the fit, the gravest first."""
        if self.has_few_runs:
            return diagnose_few_runs(self.fit, self.runs)
        return diagnose_fit(self.fit, self.runs, self.q, one_step=self.one_step)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons why intervals may not cover although the fit is ok, each with its cure."""
        return tuple(diagnosis.text for diagnosis in self.diagnoses)

    @property
    def has_few_runs(self) -> bool:
        """Whether runs are so few that intervals are those of a posterior."""
        return math.isfinite(self.few_noise)

    @property
    def prior_dominated(self) -> tuple[str, ...]:
        """Log-parameters that weak priors, or pooling with other skills, determine more than the runs do."""
        return prior_dominated(self.fit, self.q)

    @property
    def exponent(self) -> Interval:
        """Exponent a of N* ~ C^a, at the centre of the runs and their mean mix."""
        h = self.mean_mix
        drawn = self.law.optimum_exponent(self.law.theta(self.q), h=h)
        return interval(float(self.law.optimum_exponent(self.fit.theta[None], h=h)[0]), drawn, self.level)

    @property
    def mean_mix(self) -> Array | None:
        """Mean shares of the runs; None for a law without a mix."""
        return None if self.runs.h is None or not self.law.needs_mix else self.runs.h.mean(0)

    @property
    def estimate(self) -> Array:
        """Log-parameters of the estimate, (p,)."""
        return self.fit.q

    @property
    def noise(self) -> float:
        """Sd of a new run about the law, in ln L."""
        return self.few_noise if self.has_few_runs else new_run_sd(self.fit, self.runs)

    @property
    def residual_noise(self) -> float:
        """Sd of the runs about the law, in ln L, by their residuals; with few runs by the posterior."""
        return self.few_noise if self.has_few_runs else self.fit.noise

    @property
    def reach(self) -> tuple[float, float]:
        """Least and largest 6 N D fitted, FLOP."""
        C = 6 * self.runs.N * self.runs.D
        return float(C.min()), float(C.max())

    @property
    def sizes(self) -> tuple[float, float]:
        """Least and largest N fitted, parameters."""
        return float(self.runs.N.min()), float(self.runs.N.max())

    @property
    def tokens(self) -> tuple[float, float]:
        """Least and largest D fitted, tokens."""
        return float(self.runs.D.min()), float(self.runs.D.max())

    @property
    def shares(self) -> Array | None:
        """Least and largest share of each category among the runs, (2, n_categories); None without a mix."""
        h = self.runs.h
        return None if h is None else np.array([h.min(0), h.max(0)])

    def log_optimum(self, C: npt.ArrayLike, h: npt.ArrayLike | None = None) -> tuple[Array, Array]:
        """Return ln N*(C) (n_C,) and its draws (K, n_C), at mix h or the runs' mean mix; NaN where there is none."""
        return self.log_optima_for(self.fit.theta[None], C, h)[0], self.log_optima_for(self.law.theta(self.q), C, h)

    def log_optima_for(self, theta: Array, C: npt.ArrayLike, h: npt.ArrayLike | None = None) -> Array:
        """Return ln N*(C) of natural parameters (K, p), (K, n_C), at mix h or the runs' mean mix."""
        return self.law.log_optimum(theta, C, self.mean_mix if h is None else h)

    def optimum(self, C: float, h: npt.ArrayLike | None = None) -> Interval:
        """Return N*(C) with its interval under this law alone."""
        value, drawn = self.log_optimum([C], h)
        return interval(float(value[0]), drawn[:, 0], self.level).map(math.exp)

    def ensemble_log_optima(self, C: npt.ArrayLike, h: npt.ArrayLike | None = None) -> Array:
        """Return draws of ln N*(C), (K, n_C), of this law and its rivals, each by its weight.

        A draw is NaN where a law has no optimum.
        """
        computes = [float(budget) for budget in np.atleast_1d(np.asarray(C, dtype=float))]
        mix = None if h is None else tuple(np.ravel(np.asarray(h, dtype=float)).tolist())
        if missing := [budget for budget in dict.fromkeys(computes) if (budget, mix) not in self._optima]:
            parts = []
            for law in (self, *self.rivals):
                q = law.q[: max(round(law.weight * len(self.q)), 1)]
                parts.append(law.log_optima_for(law.law.theta(q), missing, h))
            self._optima.update(zip([(budget, mix) for budget in missing], np.concatenate(parts).T, strict=True))
        return np.column_stack([self._optima[budget, mix] for budget in computes])

    def ensemble_optimum(self, C: float, h: npt.ArrayLike | None = None) -> Interval:
        """Return N*(C) of this law. Its interval includes the choice of law where there are rivals."""
        value = float(self.log_optima_for(self.fit.theta[None], [C], h)[0, 0])
        return interval(value, self.ensemble_log_optima([C], h)[:, 0], self.level).map(math.exp)

    def loss(self, N: npt.ArrayLike, D: npt.ArrayLike, h: npt.ArrayLike | None = None) -> PredictedLoss:
        """Predict L in nats per token at N parameters and D tokens, with the intervals of the law and of a new run.

        Args:
            N: parameters, (n,).
            D: tokens, (n,).
            h: mix, for laws that need one; by default the runs' mean mix.

        Raises:
            InputError: N or D is not positive, or h is not a mix.
        """
        mix = self.mean_mix if h is None else h
        predicted = predict(self.law, self.fit.theta, self.q, N, D, mix, level=self.level, noise=self.noise)
        return predicted.scale(np.exp(self.effects.offsets_for(mix, len(predicted.value))))


def fit_skill(
    skill: str, runs: RunData, *, law: Law = CHINCHILLA, objective: Objective | None = HUBER,
    fixed: Mapping[str, float] | None = None, method: ResamplingMethod = ResamplingMethod.WILD,
    resamples: int = 1000, seed: int = 0, level: float = LEVEL, budgets: npt.NDArray[np.generic] | None = None,
    cluster_resamples: ClusterResamples | None = None,
) -> FittedLaw:  # fmt: skip
    """Fit a law to a skill, with draws for its intervals.

    Args:
        skill: name of the skill; a category of the mix may have the same name.
        runs: runs of the skill.
        law: form.
        objective: function to minimise. None: Huber with delta twice the noise.
        fixed: values of fixed natural parameters.
        method: resampling method of the draws.
        resamples: number of draws.
        seed: seed of the draws.
        level: two-sided level of the intervals.
        budgets: budget labels, (n,), where ``method`` resamples budgets.
        cluster_resamples: resamples shared with other skills, in place of ``method``, ``resamples`` and ``seed``.

    Raises:
        FitError: the runs can't determine the law.
        InputError: the law needs a mix that the runs don't have, or a parameter can't be fixed.
    """
    bound = runs.bind(law).for_skill(skill)
    fit = fit_law(runs, law=bound, objective=objective, fixed=fixed)
    q = draw_parameters(
        fit, runs, method=method, count=resamples, seed=seed, budgets=budgets, cluster_resamples=cluster_resamples
    )
    reason = undetermined_reason(fit, fit.law.theta(q), level, float(runs.L.min()))
    return FittedLaw(
        skill=skill, fit=fit, runs=runs, q=q, level=level, information=measure_information(fit, runs),
        status=Status.NOT_IDENTIFIED if reason else Status.OK, reason=reason,
    )  # fmt: skip


def skill_law_from(
    extrapolation: Extrapolation, *, level: float = LEVEL, budgets: npt.NDArray[np.generic] | None = None,
    cluster_resamples: ClusterResamples | None = None, weight: float = 1.0,
) -> FittedLaw:  # fmt: skip
    """Build a ``FittedLaw`` from the fit of an extrapolation, with draws for its intervals.

    Args:
        extrapolation: extrapolation, with the priors, pooled exponents and mix effects of its setting.
        level: two-sided level of the intervals.
        budgets: budget labels, (n,), where ``cluster_resamples`` resamples budgets.
        cluster_resamples: resamples of the clusters of ``by_cluster``. None: 1000 wild resamples.
        weight: weight of this law among its rivals.

    Raises:
        FitError: fewer than 3 clusters to resample.
    """
    runs, fit = extrapolation.runs, extrapolation.fit
    q = draw_parameters(fit, by_cluster(runs), budgets=budgets, cluster_resamples=cluster_resamples)
    reason = undetermined_reason(fit, fit.law.theta(q), level, float(runs.L.min()))
    return FittedLaw(
        skill=extrapolation.skill, runs=runs, q=q, level=level, effects=extrapolation.effects,
        setting=extrapolation.setting.name, information=measure_information(fit, runs),
        # The noise is the residual after the mix effects
        fit=replace(fit, residuals=fit.residuals - extrapolation.effects.offsets_for(runs.h, len(runs))),
        status=Status.NOT_IDENTIFIED if reason else Status.OK, reason=reason, weight=weight,
    )  # fmt: skip


def fit_together(
    data: Mapping[str, RunData], *, law: Law | Mapping[str, Law] = CHINCHILLA, objective: Objective | None = HUBER,
    fixed: Mapping[str, float] | None = None, method: ResamplingMethod = ResamplingMethod.WILD,
    resamples: int = 1000, seed: int = 0, level: float = LEVEL,
    budgets: Mapping[str, npt.NDArray[np.generic]] | None = None,
) -> dict[str, FittedLaw]:  # fmt: skip
    """Fit each skill alone, with shared resamples: draw k of every skill belongs to one resample.

    Errors of skills that were measured on one run are correlated. Only shared draws give the uncertainty of a
    difference between skills. A run is identified by its label in every skill, and a skill may lack some runs.

    Args:
        data: runs of each skill.
        law: form, or one per skill.
        objective: function to minimise. None: Huber with delta twice the noise.
        fixed: values of fixed natural parameters.
        method: resampling method of the draws.
        resamples: number of draws.
        seed: seed of the draws.
        level: two-sided level of the intervals.
        budgets: budget labels, (n,) per skill, where ``method`` resamples budgets.

    Raises:
        FitError: a skill's runs can't determine the law, or one label names different runs in two skills.
        InputError: the law needs a mix that the runs don't have, or a parameter can't be fixed.
    """
    cluster_resamples = shared_resamples(data, method=method, count=resamples, seed=seed, budgets=budgets)
    return {
        name: fit_skill(
            name, runs, law=law if isinstance(law, Law) else law[name], objective=objective, fixed=fixed, level=level,
            budgets=budgets[name] if budgets else None, cluster_resamples=cluster_resamples,
        )
        for name, runs in data.items()
    }  # fmt: skip


def shared_resamples(
    data: Mapping[str, RunData], *, method: ResamplingMethod = ResamplingMethod.WILD, count: int = 1000, seed: int = 0,
    budgets: Mapping[str, npt.NDArray[np.generic]] | None = None,
) -> ClusterResamples:  # fmt: skip
    """Draw the resamples that several skills share.

    Raises:
        FitError: there is no skill, or one label names different runs in two skills.
    """
    if not data:
        raise FitError("there is no skill to fit. List at least one.")
    _check_same_runs(data)
    labels = [resampling_labels(runs, method, budgets[name] if budgets else None) for name, runs in data.items()]
    return ClusterResamples.draw(np.concatenate(labels), method, count=count, seed=seed)


def _check_same_runs(data: Mapping[str, RunData]) -> None:
    """Refuse labels, such as the default ones by row, that name different runs in two skills."""
    first_seen: dict[str, tuple[str, set[float]]] = {}
    for skill, runs in data.items():
        sizes_by_label: dict[str, set[float]] = {}
        for label, N in zip(np.asarray(runs.labels).astype(str), runs.N, strict=True):
            sizes_by_label.setdefault(label, set()).add(float(N))
        for label, sizes in sizes_by_label.items():
            other, other_sizes = first_seen.setdefault(label, (skill, sizes))
            if not sizes & other_sizes:
                raise FitError(
                    f"cluster {label} has N = {min(sizes):.4g} in {skill} and {min(other_sizes):.4g} in {other}, so it "
                    "can't be one run. Give `clusters` with one label per run in all skills."
                )


@dataclass(frozen=True, kw_only=True)
class UnidentifiedParameter:
    """A natural parameter that the runs do not determine: its ``bounds`` without a value, and the ``reason``."""

    bounds: Interval
    reason: str


def parameter_intervals(fit: FitResult, theta: Array, level: float) -> dict[str, Interval]:
    """Return the interval of each natural parameter, from its draws (K, n_parameters)."""
    return {name: interval(float(fit.theta[j]), theta[:, j], level) for j, name in enumerate(fit.law.parameters)}


def unidentified_parameters(
    fit: FitResult, theta: Array, level: float, lowest_loss: float
) -> dict[str, UnidentifiedParameter]:
    """Return the natural parameters that the runs do not determine: E next to 0, and exponents at their bounds.

    Args:
        fit: fit of the runs.
        theta: draws of the natural parameters, (K, n_parameters).
        level: two-sided level of the intervals.
        lowest_loss: lowest loss of the runs, which E cannot exceed.
    """
    intervals, lost = parameter_intervals(fit, theta, level), {}
    if "E" in intervals and 0 in fit.free and not intervals["E"].lo > FLAT_E * lowest_loss:
        most = min(intervals["E"].hi, lowest_loss) if math.isfinite(intervals["E"].hi) else lowest_loss
        lost["E"] = UnidentifiedParameter(
            bounds=Interval(lo=0.0, hi=most), reason=f"E is not identified: below {most:.3g}"
        )
    for name, (low, high) in fit.law.bounds.items():
        value = intervals[name]
        if fit.law.fix(name, 0.5)[0] in fit.free and not (value.lo > low and value.hi < high):
            least, most = _clipped(value, low, high)
            lost[name] = UnidentifiedParameter(
                bounds=Interval(lo=least, hi=most), reason=f"{name} is not identified: from {least:.3g} to {most:.3g}"
            )
            term = {"alpha": "A", "beta": "B"}.get(name, "")
            if f"ln {term}'" in fit.law.log_names:  # the coefficient at N = 1 or D = 1 follows from the exponent
                lost[term] = UnidentifiedParameter(
                    bounds=Interval(), reason=f"{term} is not identified, because {name} is not"
                )
    return lost


def _clipped(value: Interval, low: float, high: float) -> tuple[float, float]:
    """Return an interval within bounds; the bounds where it has no ends."""
    if not (math.isfinite(value.lo) and math.isfinite(value.hi)):
        return low, high
    return float(np.clip(value.lo, low, high)), float(np.clip(value.hi, low, high))


def undetermined_reason(fit: FitResult, theta: Array, level: float, lowest_loss: float) -> str:
    """Say why the runs can't determine the law's parameters, with the cure; empty where they can."""
    lost = unidentified_parameters(fit, theta, level, lowest_loss)
    if "E" in lost:
        most = lost["E"].bounds.hi
        return f"the runs can't separate E from 0: it is below {most:.3g}. Add larger budgets, or fix or tie E."
    for name in fit.law.bounds:
        if name in lost:
            bounds = lost[name].bounds
            return (
                f"the runs can't determine {name}: it is from {bounds.lo:.3g} to {bounds.hi:.3g}. Add runs that tell N "
                f"from D, or fix or tie {name}."
            )
    # Only where no parameter explains it: an undetermined parameter makes the path to the optimum long
    return (
        ""
        if fit.converged
        else "the fit did not converge. Check the losses for extreme values, or choose a law with fewer parameters."
    )


def split_by_skill(runs: pd.DataFrame, skills: Sequence[str], categories: Sequence[str] = ()) -> dict[str, RunData]:
    """Split a table of usable runs by skill. A run without a skill's loss is excluded for that skill only.

    Args:
        runs: table with columns N, D, ``cluster`` (or run_id), a loss column per skill, and ``mix/CATEGORY`` per
            category. ``sem/SKILL`` has standard errors, if there are any.
        skills: names of the loss columns.
        categories: categories of the mix, in the order of the laws' parameters.

    Raises:
        FitError: a skill has no loss at all.
    """
    data = {}
    clusters = runs["cluster"] if "cluster" in runs.columns else runs["run_id"]
    for skill in skills:
        has_loss = runs[skill].notna().to_numpy()
        if not has_loss.any():
            raise FitError(f"no run has a loss for {skill}. Drop the skill, or measure it.")
        rows = runs[has_loss]
        data[skill] = RunData(
            N=rows["N"].to_numpy(dtype=float), D=rows["D"].to_numpy(dtype=float), L=rows[skill].to_numpy(dtype=float),
            h=rows[[f"mix/{name}" for name in categories]].to_numpy(dtype=float) if categories else None,
            categories=tuple(categories), clusters=clusters[has_loss].to_numpy(),
            standard_error=_standard_error(rows, skill),
        )  # fmt: skip
    return data


def _standard_error(rows: pd.DataFrame, skill: str) -> float:
    """Return the median standard error of a skill's losses in ln L; 0 where the table has none."""
    if f"sem/{skill}" not in rows.columns:
        return 0.0
    relative = rows[f"sem/{skill}"].to_numpy(dtype=float) / rows[skill].to_numpy(dtype=float)
    usable = relative[np.isfinite(relative) & (relative > 0)]
    return float(np.median(usable)) if len(usable) else 0.0
