"""One law fitted to several skills at once: each parameter a skill's own, shared, partially pooled or pinned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from skillscale.errors import FitError, InputError
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.fit import FitResult, efficient_objective, fit_law, noise_of, solve, start_agreement
from skillscale.laws.fit.newton import FitProblem, SkillBlock
from skillscale.laws.fit.objective import HUBER, Objective, dispersion
from skillscale.laws.forms.catalogue import CHINCHILLA
from skillscale.laws.forms.nd import Array, Law
from skillscale.laws.results import MultiStart

_JOINT_STARTS = 4
_ROUNDS = 8  # in which each skill's noise, by which it weighs, settles
_SETTLED = 0.02


@dataclass(frozen=True, kw_only=True)
class ParameterSharing:
    """What the skills have in common, by the law's names (``E``, ``alpha``, ``exponents``, ``transfer``).

    ``pinned``: given values; ``shared``: one value for all skills; ``pooled``: own values that scatter about a common
    one by this much (sd, in the unit of the log-parameter: a ratio for E, absolute for exponents).

    Raises:
        InputError: a name is in two of them, or a spread is not above 0.
    """

    pinned: Mapping[str, float] = field(default_factory=dict)
    shared: tuple[str, ...] = ()
    pooled: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [*self.pinned, *self.shared, *self.pooled]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"{', '.join(twice)} can be pinned, shared or pooled, not several of these; name it once")
        for name, sd in self.pooled.items():
            if not sd > 0:
                raise InputError(f"the spread of pooled {name} must be above 0, but it is {sd}; share it for no spread")

    @property
    def couples(self) -> bool:
        """Whether skills have to be fitted together."""
        return bool(self.shared or self.pooled)


@dataclass(frozen=True, kw_only=True)
class JointFit:
    """Fits by skill that were found together. ``Q``: the unknowns; ``problem`` has a part a skill, in order.

    ``starts`` and ``F`` are of the whole; each skill's fit carries the whole's starts and its own part of F.
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
    """Fit a law to the runs of several skills, with what they share.

    Skills weigh by their own noise: a part's runs are divided by the variance of that skill's errors about its own fit.

    Args:
        data: each skill's runs.
        law: the form.
        objective: what to minimise; None: Huber with delta twice each skill's noise.
        sharing: what they have in common.

    Raises:
        FitError: a skill alone can't be fitted, or no start reached a finite objective.
        InputError: a name that the law does not have.
    """
    if not data:
        raise FitError("there is no skill to fit; name at least one")
    how = sharing or ParameterSharing()
    bound = _common(data).bind(law)
    begun = {name: _begin(name, points, bound, objective, how) for name, points in data.items()}
    layout = _Layout.of([one.law for one in begun.values()], how)
    Q = layout.starts([one.q for one in begun.values()])
    phis = np.array([max(one.phi, 1e-300) for one in begun.values()])
    objectives = [one.objective for one in begun.values()]
    for _ in range(_ROUNDS):
        problem = _problem(data, layout, how, phis, objectives)
        Q, F, converged = solve(problem, Q, typical=float(np.sqrt(np.median(phis))))
        if not np.isfinite(F).any():
            raise FitError(f"no start of {law.name} over {len(data)} skills reached a finite objective; fit each alone")
        best = int(np.nanargmin(F))
        errors = [part.errors(Q[best : best + 1])[0] for part in problem.parts]
        before = phis
        phis = np.array(
            [
                max(dispersion(one, r, np.asarray(points.weights), len(row)), 1e-300)
                for one, r, points, row in zip(objectives, errors, data.values(), layout.at, strict=True)
            ]
        )
        if objective is None and bound.joint:
            objectives = [efficient_objective(noise_of(r, len(row))) for r, row in zip(errors, layout.at, strict=True)]
        if np.all(np.abs(np.log(phis / before)) < _SETTLED):
            break
    starts = start_agreement(F)
    fits = {
        name: _of_skill(problem.parts[s], points, Q[best : best + 1], starts, converged=bool(converged[best]))
        for s, (name, points) in enumerate(data.items())
    }
    return JointFit(fits=fits, problem=problem, Q=Q[best], F=float(F[best]), starts=starts)


def _problem(
    data: Mapping[str, RunData], layout: "_Layout", how: ParameterSharing, phis: Array, objectives: Sequence[Objective]
) -> FitProblem:
    """All skills' runs, each divided by its noise over the skills' typical one."""
    phi = float(np.exp(np.mean(np.log(phis))))
    parts = tuple(
        SkillBlock(
            law=own, z=points.covariates(own), responses=points.L if one.on == "raw" else points.log_L,
            weights=np.asarray(points.weights) * (phi / its_phi), objective=one, T=T, offset=offset,
        )
        for points, own, its_phi, one, (T, offset) in zip(
            data.values(), layout.laws, phis, objectives, layout.maps(how), strict=True
        )
    )  # fmt: skip
    mean, precision = layout.penalty(how)
    return FitProblem(parts=parts, mean=mean, precision=precision * phi)


def _common(data: Mapping[str, RunData]) -> RunData:
    """All runs of all skills, to find one centre."""
    some = next(iter(data.values()))
    stacked = {letter: np.concatenate([getattr(points, letter) for points in data.values()]) for letter in "NDL"}
    weights = np.concatenate([np.asarray(points.weights) for points in data.values()])
    h = None if some.h is None else np.vstack([np.asarray(points.h) for points in data.values()])
    return RunData(**stacked, weights=weights, h=h, categories=some.categories)


@dataclass(frozen=True, kw_only=True)
class _Begun:
    """Where a skill's joint fit starts from: its law, its log-parameters, its noise."""

    law: Law
    q: Array
    phi: float
    objective: Objective


def _begin(name: str, points: RunData, bound: Law, objective: Objective | None, how: ParameterSharing) -> _Begun:
    """A skill's own fit; where all skills share the law, a guess, for one skill can't tell it."""
    own = bound.for_skill(name)
    if not bound.joint:
        fit = fit_law(points, law=own, objective=objective, pins=how.pinned)
        return _Begun(law=own, q=fit.q, phi=fit.phi, objective=fit.objective)
    seeds = own.seeds(points.covariates(own), points.log_L, np.asarray(points.weights))
    phi = float(np.var(points.log_L))
    return _Begun(
        law=own, q=seeds[len(seeds) // 2], phi=phi, objective=objective or efficient_objective(float(np.sqrt(phi)))
    )


@dataclass(frozen=True)
class _Layout:
    """Where each skill's log-parameters lie among the unknowns: ``at`` by skill, (p,) each, -1 for pinned ones."""

    laws: tuple[Law, ...]
    at: tuple[npt.NDArray[np.intp], ...]
    size: int

    @classmethod
    def of(cls, laws: Sequence[Law], how: ParameterSharing) -> "_Layout":
        law = laws[0]
        pinned = {law.fix(name, value)[0] for name, value in how.pinned.items()}
        everywhere = len(law.log_names) if law.joint else 0
        one = set(range(everywhere)) | {j for name in how.shared for j in law.positions(name)}
        common = {j: column for column, j in enumerate(sorted(one - pinned))}
        size, at = len(common), []
        for own in laws:
            row = np.full(len(own.log_names), -1)
            for j in range(len(row)):
                if j in common:
                    row[j] = common[j]
                elif j not in pinned:
                    row[j], size = size, size + 1
            at.append(row)
        return cls(tuple(laws), tuple(at), size)

    def maps(self, how: ParameterSharing) -> list[tuple[Array, Array]]:
        """T (p, P) and offset (p,) of each skill."""
        pins = dict(self.laws[0].fix(name, value) for name, value in how.pinned.items())
        found = []
        for row in self.at:
            T, offset = np.zeros((len(row), self.size)), np.zeros(len(row))
            T[np.flatnonzero(row >= 0), row[row >= 0]] = 1.0
            offset[list(pins)] = list(pins.values())
            found.append((T, offset))
        return found

    def penalty(self, how: ParameterSharing) -> tuple[Array, Array]:
        """Mean and precision of weak priors and pooling; a pooled log-parameter has no other prior."""
        mean, precision = np.zeros(self.size), np.zeros((self.size, self.size))
        pooled = {j: sd for name, sd in how.pooled.items() for j in self.laws[0].positions(name)}
        for law, row in zip(self.laws, self.at, strict=True):
            for j, prior in law.priors.items():
                if j not in pooled and row[j] >= 0:
                    mean[row[j]], precision[row[j], row[j]] = prior.mean, prior.sd**-2
        S = len(self.at)
        for j, sd in pooled.items():
            columns = [row[j] for row in self.at]
            precision[np.ix_(columns, columns)] += (np.eye(S) - 1 / S) / sd**2
        return mean, precision

    def starts(self, q: Sequence[Array]) -> Array:
        """Unknowns (K, P) from each skill's own log-parameters: shared ones at their mean, or at one skill's."""
        mean = np.zeros(self.size)
        np.add.at(mean, np.concatenate([row[row >= 0] for row in self.at]), np.concatenate(self._free(q)))
        mean /= np.bincount(np.concatenate([row[row >= 0] for row in self.at]), minlength=self.size)
        starts = [mean]
        for row, own in zip(self.at[: _JOINT_STARTS - 1], self._free(q), strict=False):
            start = mean.copy()
            start[row[row >= 0]] = own
            starts.append(start)
        return np.array(starts)

    def _free(self, q: Sequence[Array]) -> list[Array]:
        return [own[row >= 0] for row, own in zip(self.at, q, strict=True)]


def _of_skill(part: SkillBlock, points: RunData, Q: Array, starts: MultiStart, *, converged: bool) -> FitResult:
    q = part.q(Q)
    r = part.errors(Q)[0]
    free = tuple(int(j) for j in np.flatnonzero(part.T.any(1)))
    weights = np.asarray(points.weights)
    return FitResult(
        law=part.law, theta=part.law.theta(q)[0], q=q[0], F=float(part.objective.total(r, weights)), penalty=0.0,
        phi=dispersion(part.objective, r, weights, len(free)), objective=part.objective, starts=starts,
        residuals=points.log_L - part.law.log_loss(q, part.z)[0], converged=converged, free=free,
        prior=(np.zeros(len(free)), np.zeros((len(free), len(free)))),
    )  # fmt: skip
