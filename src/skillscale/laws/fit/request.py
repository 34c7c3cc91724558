"""What a user asks of the law engine, and every skill of a table fitted so."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from skillscale.errors import FitError, InputError
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.fit import fit_law
from skillscale.laws.fit.joint import ParameterSharing, fit_skills
from skillscale.laws.fit.objective import Objective
from skillscale.laws.fit.skill_law import LEVEL, FittedLaw, fit_skill, shared_resamples, undetermined_parameters
from skillscale.laws.forms.nd import Array, Law
from skillscale.laws.results import Status
from skillscale.laws.uncertainty.bootstrap import ClusterResamples, Labels, ResamplingMethod, resample
from skillscale.laws.uncertainty.joint_bootstrap import joint_bootstrap


@dataclass(frozen=True, kw_only=True)
class FitRequest:
    """How to fit: ``objective`` None is Huber with delta twice the noise; ``level`` is of all intervals, two-sided.

    ``budgets``: of each run by its label, where ``method`` resamples budgets.

    Raises:
        InputError: budgets are to be resampled, and there are none.
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
            raise InputError("resampling by budget needs the budget of every run; give `budgets`, or resample by run")

    def budget_labels(self, points: RunData) -> Labels | None:
        """The budget of each run, (n,); None where budgets are not resampled."""
        if self.method is not ResamplingMethod.BUDGET or self.budgets is None:
            return None
        return np.array([self.budgets[label] for label in np.asarray(points.labels).astype(str)])

    @property
    def together(self) -> bool:
        """Whether the skills have to be fitted at once."""
        return self.sharing.couples or self.law.joint


@dataclass(frozen=True, kw_only=True)
class UnfittedSkill:
    """A skill whose runs can't carry the law, and why."""

    skill: str
    n_runs: int
    reason: str


def fit_all(data: Mapping[str, RunData], request: FitRequest) -> dict[str, FittedLaw | UnfittedSkill]:
    """Every skill under one law. A skill that can't be fitted is refused with the reason and costs no other.

    Args:
        data: each skill's runs.
        request: how to fit; where skills share parameters, one that can't be fitted is left out of the sharing.
    """
    found: dict[str, FittedLaw | UnfittedSkill] = {}
    able: dict[str, RunData] = {}
    chance = _chance(data, request) if data else None
    for name, points in data.items():
        try:
            if request.together:
                _check_alone(name, points, request)
                able[name] = points
            else:
                found[name] = _alone(name, points, request, chance)
        except FitError as error:
            found[name] = UnfittedSkill(skill=name, n_runs=len(points), reason=str(error))
    if able:
        found |= _together(able, request)
    return {name: found[name] for name in data}


def _chance(data: Mapping[str, RunData], request: FitRequest) -> ClusterResamples:
    labels = {name: request.budget_labels(points) for name, points in data.items()}
    budgets = {name: one for name, one in labels.items() if one is not None}
    return shared_resamples(
        data, method=request.method, count=request.resamples, seed=request.seed, budgets=budgets or None
    )


def _alone(name: str, points: RunData, request: FitRequest, chance: ClusterResamples | None) -> FittedLaw:
    return fit_skill(
        name, points, law=request.law, objective=request.objective, pins=request.sharing.pinned, level=request.level,
        chance=chance, budgets=request.budget_labels(points),
    )  # fmt: skip


def _check_alone(name: str, points: RunData, request: FitRequest) -> None:
    """Refuse a skill that no sharing can save: the law's own skill check, and a fit of its own where it has one."""
    own = points.bind(request.law).for_skill(name)
    if not request.law.joint:
        fit_law(points, law=own, objective=request.objective, pins=request.sharing.pinned, starts=1)


def _together(data: Mapping[str, RunData], request: FitRequest) -> dict[str, FittedLaw]:
    joint = fit_skills(data, law=request.law, objective=request.objective, sharing=request.sharing)
    drawn = joint_bootstrap(
        joint, data, labels=lambda points: resample(points, request.method, request.budget_labels(points)),
        method=request.method, count=request.resamples, seed=request.seed,
    )  # fmt: skip
    found = {}
    for name, points in data.items():
        fit = joint.fits[name]
        reason = undetermined_parameters(fit, fit.law.theta(drawn.q[name]), request.level, float(points.L.min()))
        found[name] = FittedLaw(
            skill=name, fit=fit, points=points, q=drawn.q[name], level=request.level,
            status=Status.NOT_IDENTIFIED if reason else Status.OK, reason=reason, one_step=drawn.one_step,
        )  # fmt: skip
    return found


def weight_by_sem(points: RunData, sem: Array, noise: float) -> RunData:
    """The runs with weights for their measurement's standard error beside the noise that all runs share.

    Args:
        points: the runs.
        sem: standard error of each loss, nats per token, (n,); NaN where unknown (taken as typical).
        noise: sd of a run about the law in ln L, measurement included.
    """
    relative = np.asarray(sem, dtype=float) / points.L
    typical = float(np.nanmedian(relative)) if np.isfinite(relative).any() else 0.0
    own = np.where(np.isfinite(relative), relative, typical) ** 2
    shared = max(noise**2 - typical**2, 0.0)
    total = np.maximum(shared + own, 1e-300)
    return replace(points, weights=np.asarray(points.weights) * (shared + typical**2 + 1e-300) / total)
