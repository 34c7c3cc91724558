"""Options of a fit, and the fit of every skill of a table with them.

In: the runs of each skill and a ``FitRequest``. Out: a ``FittedLaw`` per skill, or an ``UnfittedSkill`` with the
reason.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from skillscale.errors import FitError, InputError
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.fit import fit_law
from skillscale.laws.fit.joint import ParameterSharing, fit_skills
from skillscale.laws.fit.objective import Objective
from skillscale.laws.fit.skill_law import LEVEL, FittedLaw, fit_skill, shared_resamples, undetermined_reason
from skillscale.laws.forms.nd import Array, Law
from skillscale.laws.results import Status
from skillscale.laws.uncertainty.bootstrap import ClusterResamples, Labels, ResamplingMethod, resampling_labels
from skillscale.laws.uncertainty.joint_bootstrap import joint_bootstrap
from skillscale.laws.uncertainty.joint_posterior import draw_joint_posterior, measure_joint_information
from skillscale.laws.uncertainty.posterior import has_few_runs


@dataclass(frozen=True, kw_only=True)
class FitRequest:
    """Options of a fit. ``objective`` None: Huber with delta twice the noise. ``level``: two-sided, of all intervals.

    ``budgets``: budget of each run by its label, where ``method`` resamples budgets.

    Raises:
        InputError: the method resamples budgets, and none are given.
    """

    law: Law
    objective: Objective | None = None
    sharing: ParameterSharing = field(default_factory=ParameterSharing)
    method: ResamplingMethod = ResamplingMethod.WILD
    resamples: int = 1000
    seed: int = 0
    level: float = LEVEL
    budgets: Mapping[str, str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.method is ResamplingMethod.BUDGET and self.budgets is None:
            raise InputError("resampling by budget needs the budget of every run. Give `budgets`, or resample by run.")

    def budget_labels(self, runs: RunData) -> Labels | None:
        """Return the budget of each run, (n,); None where budgets are not resampled."""
        if self.method is not ResamplingMethod.BUDGET or self.budgets is None:
            return None
        return np.array([self.budgets[label] for label in np.asarray(runs.labels).astype(str)])

    @property
    def fits_jointly(self) -> bool:
        """Whether the skills must be fitted at once."""
        return self.sharing.couples_skills or self.law.joint


@dataclass(frozen=True, kw_only=True)
class UnfittedSkill:
    """A skill whose runs can't determine the law, and the reason."""

    skill: str
    n_runs: int
    reason: str


def fit_all(data: Mapping[str, RunData], request: FitRequest) -> dict[str, FittedLaw | UnfittedSkill]:
    """Fit every skill with one law. A skill that can't be fitted is returned with the reason and affects no other.

    Args:
        data: runs of each skill.
        request: options. Where skills share parameters, a skill that can't be fitted is excluded from the sharing.
    """
    results: dict[str, FittedLaw | UnfittedSkill] = {}
    fittable: dict[str, RunData] = {}
    cluster_resamples = _shared_resamples(data, request) if data else None
    for name, runs in data.items():
        try:
            if request.fits_jointly:
                _check_fittable(name, runs, request)
                fittable[name] = runs
            else:
                results[name] = _fit_alone(name, runs, request, cluster_resamples)
        except FitError as error:
            results[name] = UnfittedSkill(skill=name, n_runs=len(runs), reason=str(error))
    if fittable:
        results |= _fit_jointly(fittable, request)
    return {name: results[name] for name in data}


def _shared_resamples(data: Mapping[str, RunData], request: FitRequest) -> ClusterResamples:
    labels = {name: request.budget_labels(runs) for name, runs in data.items()}
    budgets = {name: label for name, label in labels.items() if label is not None}
    return shared_resamples(
        data, method=request.method, count=request.resamples, seed=request.seed, budgets=budgets or None
    )


def _fit_alone(name: str, runs: RunData, request: FitRequest, cluster_resamples: ClusterResamples | None) -> FittedLaw:
    return fit_skill(
        name, runs, law=request.law, objective=request.objective, fixed=request.sharing.fixed, level=request.level,
        cluster_resamples=cluster_resamples, budgets=request.budget_labels(runs),
    )  # fmt: skip


def _check_fittable(name: str, runs: RunData, request: FitRequest) -> None:
    """Refuse a skill that no sharing can save: check the category, and fit it alone where the law allows it."""
    law = runs.bind(request.law).for_skill(name)
    if not request.law.joint:
        fit_law(runs, law=law, objective=request.objective, fixed=request.sharing.fixed, starts=1)


def _fit_jointly(data: Mapping[str, RunData], request: FitRequest) -> dict[str, FittedLaw]:
    joint = fit_skills(data, law=request.law, objective=request.objective, sharing=request.sharing)
    draws = joint_bootstrap(
        joint, data, labels=lambda runs: resampling_labels(runs, request.method, request.budget_labels(runs)),
        method=request.method, count=request.resamples, seed=request.seed,
    )  # fmt: skip
    information = measure_joint_information(joint, data)
    q, few_noise = dict(draws.q), dict.fromkeys(data, math.nan)
    if all(has_few_runs(runs) for runs in data.values()):
        q, few_noise = draw_joint_posterior(joint, data, count=request.resamples, seed=request.seed)
    results = {}
    for name, runs in data.items():
        fit = joint.fits[name]
        reason = undetermined_reason(fit, fit.law.theta(q[name]), request.level, float(runs.L.min()))
        results[name] = FittedLaw(
            skill=name, fit=fit, runs=runs, q=q[name], level=request.level, information=information[name],
            few_noise=few_noise[name],
            status=Status.NOT_IDENTIFIED if reason else Status.OK, reason=reason, one_step=draws.one_step,
        )  # fmt: skip
    return results


def weight_by_sem(runs: RunData, sem: Array, noise: float) -> RunData:
    """Weight runs by the standard error of their measurement in addition to the noise that all runs have.

    Args:
        runs: runs to weight.
        sem: standard error of each loss, nats per token, (n,). NaN means unknown and is replaced by the median.
        noise: sd of a run about the law in ln L, including the measurement error.
    """
    relative = np.asarray(sem, dtype=float) / runs.L
    typical = float(np.nanmedian(relative)) if np.isfinite(relative).any() else 0.0
    measurement = np.where(np.isfinite(relative), relative, typical) ** 2
    shared = max(noise**2 - typical**2, 0.0)
    total = np.maximum(shared + measurement, 1e-300)
    return replace(runs, weights=np.asarray(runs.weights) * (shared + typical**2 + 1e-300) / total)
