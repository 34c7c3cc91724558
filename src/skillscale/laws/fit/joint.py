"""Fit one law to several skills at once. Each parameter is free per skill, tied, partially pooled or fixed.

In: the runs of each skill, a law and a ``ParameterSharing``. Out: a ``JointFit`` with one ``FitResult`` per skill.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from skillscale.errors import FitError, InputError
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.fit import FitResult, efficient_objective, estimate_noise, fit_law, solve, start_agreement
from skillscale.laws.fit.newton import FitProblem, SkillBlock
from skillscale.laws.fit.objective import HUBER, Objective, dispersion
from skillscale.laws.forms.catalogue import CHINCHILLA
from skillscale.laws.forms.nd import Array, Law
from skillscale.laws.results import MultiStart

_JOINT_STARTS = 4
_ROUNDS = 8  # most rounds until the noise that weighs each skill has converged
_SETTLED = 0.02


@dataclass(frozen=True, kw_only=True)
class ParameterSharing:
    """Parameters that skills have in common, by the law's names (``E``, ``alpha``, ``exponents``, ``transfer``).

    ``fixed``: given values. ``tied``: one value for all skills. ``pooled``: partially pooled values of each skill,
    which scatter about a common mean by this sd (in units of the log-parameter: a ratio for E, absolute for exponents).

    Raises:
        InputError: a name is in two of them, or an sd is not above 0.
    """

    fixed: Mapping[str, float] = field(default_factory=dict)
    tied: tuple[str, ...] = ()
    pooled: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [*self.fixed, *self.tied, *self.pooled]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise InputError(
                f"{', '.join(repeated)} can be fixed, tied or pooled, but not several of these. List it once."
            )
        for name, sd in self.pooled.items():
            if not sd > 0:
                raise InputError(f"the sd of pooled {name} must be above 0, but it is {sd}. Tie it for no spread.")

    @property
    def couples_skills(self) -> bool:
        """Whether the skills must be fitted together."""
        return bool(self.tied or self.pooled)


@dataclass(frozen=True, kw_only=True)
class JointFit:
    """Fits of all skills from one minimisation. ``Q``: the unknowns. ``problem`` has one block per skill, in order.

    ``starts`` and ``F`` are of the joint problem. The fit of each skill has the joint starts and the skill's part of F.
    """

    fits: Mapping[str, FitResult]
    problem: FitProblem
    Q: Array
    F: float
    starts: MultiStart


def fit_skills(
    data: Mapping[str, RunData], *, law: Law = CHINCHILLA, objective: Objective | None = HUBER,
    sharing: ParameterSharing | None = None,
) -> JointFit:  # fmt: skip
    """Fit a law to the runs of several skills that share parameters.

    Each skill is weighted by its noise: its runs are divided by the variance of that skill's errors.

    Args:
        data: runs of each skill.
        law: form.
        objective: function to minimise. None: Huber with delta twice each skill's noise.
        sharing: parameters that the skills have in common.

    Raises:
        FitError: one skill alone can't be fitted, or no start reached a finite objective.
        InputError: the law has no parameter of a given name.
    """
    if not data:
        raise FitError("there is no skill to fit. List at least one.")
    sharing_used = sharing or ParameterSharing()
    bound = _stack_runs(data).bind(law)
    skill_starts = {name: _start_skill(name, runs, bound, objective, sharing_used) for name, runs in data.items()}
    layout = _Layout.build([start.law for start in skill_starts.values()], sharing_used)
    Q = layout.starts([start.q for start in skill_starts.values()])
    phis = np.array([max(start.phi, 1e-300) for start in skill_starts.values()])
    objectives = [start.objective for start in skill_starts.values()]
    for _ in range(_ROUNDS):
        problem = _build_problem(data, layout, sharing_used, phis, objectives)
        Q, F, converged = solve(problem, Q, typical=float(np.sqrt(np.median(phis))))
        if not np.isfinite(F).any():
            raise FitError(
                f"no start of {law.name} over {len(data)} skills reached a finite objective. Fit each skill alone."
            )
        best = int(np.nanargmin(F))
        errors = [block.errors(Q[best : best + 1])[0] for block in problem.blocks]
        before = phis
        phis = np.array(
            [
                max(dispersion(start, r, np.asarray(runs.weights), len(columns)), 1e-300)
                for start, r, runs, columns in zip(objectives, errors, data.values(), layout.columns, strict=True)
            ]
        )
        if objective is None and bound.joint:
            objectives = [
                efficient_objective(estimate_noise(r, len(columns)))
                for r, columns in zip(errors, layout.columns, strict=True)
            ]
        if np.all(np.abs(np.log(phis / before)) < _SETTLED):
            break
    starts = start_agreement(F)
    fits = {
        name: _skill_result(problem.blocks[s], runs, Q[best : best + 1], starts, converged=bool(converged[best]))
        for s, (name, runs) in enumerate(data.items())
    }
    return JointFit(fits=fits, problem=problem, Q=Q[best], F=float(F[best]), starts=starts)


def _build_problem(
    data: Mapping[str, RunData], layout: "_Layout", how: ParameterSharing, phis: Array, objectives: Sequence[Objective]
) -> FitProblem:
    """Build the problem of all skills' runs, each skill divided by its noise over the skills' typical noise."""
    phi = float(np.exp(np.mean(np.log(phis))))
    blocks = tuple(
        SkillBlock(
            law=law, z=runs.covariates(law), responses=runs.L if objective.on == "raw" else runs.log_L,
            weights=np.asarray(runs.weights) * (phi / skill_phi), objective=objective, T=T, offset=offset,
        )
        for runs, law, skill_phi, objective, (T, offset) in zip(
            data.values(), layout.laws, phis, objectives, layout.maps(how), strict=True
        )
    )  # fmt: skip
    mean, precision = layout.penalty(how)
    return FitProblem(blocks=blocks, mean=mean, precision=precision * phi)


def _stack_runs(data: Mapping[str, RunData]) -> RunData:
    """Stack the runs of all skills, which gives one common centre."""
    first = next(iter(data.values()))
    stacked = {letter: np.concatenate([getattr(runs, letter) for runs in data.values()]) for letter in "NDL"}
    weights = np.concatenate([np.asarray(runs.weights) for runs in data.values()])
    h = None if first.h is None else np.vstack([np.asarray(runs.h) for runs in data.values()])
    return RunData(
        N=stacked["N"], D=stacked["D"], L=stacked["L"], weights=weights, h=h, categories=first.categories
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _SkillStart:
    """Starting point of one skill in a joint fit: its law, log-parameters, noise and objective."""

    law: Law
    q: Array
    phi: float
    objective: Objective


def _start_skill(
    name: str, runs: RunData, bound: Law, objective: Objective | None, how: ParameterSharing
) -> _SkillStart:
    """Fit one skill alone. Where all skills share the law, return a seed, because one skill can't determine it."""
    law = bound.for_skill(name)
    if not bound.joint:
        fit = fit_law(runs, law=law, objective=objective, fixed=how.fixed)
        return _SkillStart(law=law, q=fit.q, phi=fit.phi, objective=fit.objective)
    seeds = law.seeds(runs.covariates(law), runs.log_L, np.asarray(runs.weights))
    phi = float(np.var(runs.log_L))
    return _SkillStart(
        law=law, q=seeds[len(seeds) // 2], phi=phi, objective=objective or efficient_objective(float(np.sqrt(phi)))
    )


@dataclass(frozen=True)
class _Layout:
    """Columns of each skill's log-parameters among the unknowns, (p,) per skill; -1 for fixed ones."""

    laws: tuple[Law, ...]
    columns: tuple[npt.NDArray[np.intp], ...]
    size: int

    @classmethod
    def build(cls, laws: Sequence[Law], how: ParameterSharing) -> "_Layout":
        first = laws[0]
        fixed = {first.fix(name, value)[0] for name, value in how.fixed.items()}
        everywhere = len(first.log_names) if first.joint else 0
        tied = set(range(everywhere)) | {j for name in how.tied for j in first.positions(name)}
        common = {j: column for column, j in enumerate(sorted(tied - fixed))}
        size, columns = len(common), []
        for law in laws:
            of_law = np.full(len(law.log_names), -1)
            for j in range(len(of_law)):
                if j in common:
                    of_law[j] = common[j]
                elif j not in fixed:
                    of_law[j], size = size, size + 1
            columns.append(of_law)
        return cls(tuple(laws), tuple(columns), size)

    def maps(self, how: ParameterSharing) -> list[tuple[Array, Array]]:
        """Return T (p, P) and offset (p,) of each skill."""
        fixed = dict(self.laws[0].fix(name, value) for name, value in how.fixed.items())
        maps = []
        for columns in self.columns:
            T, offset = np.zeros((len(columns), self.size)), np.zeros(len(columns))
            T[np.flatnonzero(columns >= 0), columns[columns >= 0]] = 1.0
            offset[list(fixed)] = list(fixed.values())
            maps.append((T, offset))
        return maps

    def penalty(self, how: ParameterSharing) -> tuple[Array, Array]:
        """Return mean and precision of weak priors and pooling. A pooled log-parameter has no other prior."""
        mean, precision = np.zeros(self.size), np.zeros((self.size, self.size))
        pooled = {j: sd for name, sd in how.pooled.items() for j in self.laws[0].positions(name)}
        for law, columns in zip(self.laws, self.columns, strict=True):
            for j, prior in law.priors.items():
                if j not in pooled and columns[j] >= 0:
                    mean[columns[j]], precision[columns[j], columns[j]] = prior.mean, prior.sd**-2
        S = len(self.columns)
        for j, sd in pooled.items():
            unknowns = [columns[j] for columns in self.columns]
            precision[np.ix_(unknowns, unknowns)] += (np.eye(S) - 1 / S) / sd**2
        return mean, precision

    def starts(self, q: Sequence[Array]) -> Array:
        """Return unknowns (K, P) from each skill's log-parameters: tied ones at their mean, or at one skill's value."""
        mean = np.zeros(self.size)
        unknowns = np.concatenate([columns[columns >= 0] for columns in self.columns])
        np.add.at(mean, unknowns, np.concatenate(self._free(q)))
        mean /= np.bincount(unknowns, minlength=self.size)
        starts = [mean]
        for columns, values in zip(self.columns[: _JOINT_STARTS - 1], self._free(q), strict=False):
            start = mean.copy()
            start[columns[columns >= 0]] = values
            starts.append(start)
        return np.array(starts)

    def _free(self, q: Sequence[Array]) -> list[Array]:
        return [log_parameters[columns >= 0] for columns, log_parameters in zip(self.columns, q, strict=True)]


def _skill_result(block: SkillBlock, runs: RunData, Q: Array, starts: MultiStart, *, converged: bool) -> FitResult:
    q = block.q(Q)
    r = block.errors(Q)[0]
    free = tuple(int(j) for j in np.flatnonzero(block.T.any(1)))
    weights = np.asarray(runs.weights)
    return FitResult(
        law=block.law, theta=block.law.theta(q)[0], q=q[0], F=float(block.objective.total(r, weights)), penalty=0.0,
        phi=dispersion(block.objective, r, weights, len(free)), objective=block.objective, starts=starts,
        residuals=runs.log_L - block.law.log_loss(q, block.z)[0], converged=converged, free=free,
        prior=(np.zeros(len(free)), np.zeros((len(free), len(free)))),
    )  # fmt: skip
