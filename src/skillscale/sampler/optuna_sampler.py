"""An Optuna sampler that chooses the runs that are most informative about the laws of skills.

It links Optuna to ``skillscale.design``. The objective reports losses with ``trial.set_user_attr("loss/SKILL", nats)``
and, if known, ``("sem/SKILL", nats)``. Without them, the value of the trial is the loss of one skill. Optuna calls
``infer_relative_search_space`` first, which returns the parameters that set a run. Then it calls ``sample_relative``,
which reads the trials and proposes a run. Another sampler, by default a random one, sets all other parameters.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from skillscale.design.proposal import Recommendation, StopReason
from skillscale.design.propose import DesignGoal, propose
from skillscale.design.space import DesignSpace, RunHistory
from skillscale.design.targets import Target, TargetEstimates, default_targets
from skillscale.errors import InputError
from skillscale.record import ProposalReason
from skillscale.sampler.search_space import NAMES, SearchSpaceMap

PROPOSAL, WHY = "skillscale:proposal", "skillscale/why"  # a system and a user attribute of each trial
VALUE = "value"  # skill of a study without named losses
_ATTEMPTS = 4  # to choose a run while other processes choose theirs
_MAX_ASK_TIME = timedelta(minutes=2)  # of a process that asks for a run; slower ones count as dead
_UNLIMITED = 10**9  # replicates of proposals after the end
_log = logging.getLogger(__name__)
_HORIZON = 10.0  # budget of a plan for a study without a budget, in largest runs


@dataclass(frozen=True, kw_only=True)
class _Row:
    """The run of a trial, with loss and sem of each skill; no losses while it runs or where it failed."""

    number: int
    N: float
    D: float
    h: tuple[float, ...]
    losses: Mapping[str, tuple[float, float]]


class SkillLawSampler(BaseSampler):
    """A sampler of (N, D, mix) that makes compute optima of skills and their differences precise for little compute.

    Args:
        skills: names of the skills. Empty: those whose losses the trials report.
        categories: categories of the mix, in the order of the coordinates. Empty: the mix plays no part.
        least: least share by category.
        space: further limits on the runs. Its ``mixes`` are those to try, by default a lattice.
        targets: targets to learn. Empty: ln N* of all skills and their differences at 10 and 100 times the largest run.
        budget: FLOP for all trials, overheads included. None: no end; plans then spend ten of the largest runs.
        names: names of the parameters where they are not the default, as in ``{"log_n_params": "x", "mix": "share"}``.
        search_space: distributions, so that the sampler can choose the first trials too. Without it they are random.
        seed: seed of all random numbers.
        independent: sampler of all other parameters, and of search spaces that set no run.

    Raises:
        InputError: ``names`` has a key that is no default name, or the categories are not those of the space.
    """

    def __init__(
        self, *, skills: Sequence[str] = (), categories: Sequence[str] = (), least: Mapping[str, float] | None = None,
        space: DesignSpace | None = None, targets: Sequence[Target] = (), budget: float | None = None,
        names: Mapping[str, str] | None = None, search_space: Mapping[str, BaseDistribution] | None = None,
        seed: int | None = None, independent: BaseSampler | None = None,
    ) -> None:  # fmt: skip
        unknown = sorted(set(names or {}) - set(NAMES))
        if unknown:
            raise InputError(f"no parameter has the default name {', '.join(unknown)}. Choose among {', '.join(NAMES)}")
        of_space = space.categories if space is not None else ()
        if categories and of_space and tuple(categories) != of_space:
            raise InputError(
                f"categories are {', '.join(categories)}, but those of the space are {', '.join(of_space)}. Give the "
                "same categories in the same order"
            )
        self._names = NAMES | dict(names or {})
        self._categories = tuple(categories) or of_space
        self._least = dict(least or {})
        self._skills, self._limits, self._targets, self._budget = tuple(skills), space, tuple(targets), budget
        self._search_space = dict(search_space or {})
        self._seed = int(np.random.default_rng().integers(2**31)) if seed is None else seed
        self._independent = independent or RandomSampler(seed=seed)
        self._intersection = IntersectionSearchSpace()
        self._rows: dict[tuple[str, ...], dict[int, _Row | None]] = {}
        self._warned: set[str] = set()

    def reseed_rng(self) -> None:
        """Reseed the independent sampler; proposals depend on the trials and the seed alone."""
        self._independent.reseed_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002
        """Return the parameters that set a run; none where they do not set N and D."""
        search_map = self._search_map(self._search_space or self._intersection.calculate(study))
        return {} if search_map is None else dict(search_map.distributions)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the parameters of the next run, and write its reason to the trial's attributes.

        Raises:
            ValueError: the study has several objectives, or the limits allow no run of its space.
        """
        self._raise_error_if_multi_objective(study)
        params = self._next_params(study, trial, search_space)
        others = {name: distribution for name, distribution in search_space.items() if name not in params}
        return params | {name: self.sample_independent(study, trial, name, others[name]) for name in others}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return another parameter, or one of a search space that sets no run."""
        self._raise_error_if_multi_objective(study)
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Notify the independent sampler."""
        self._independent.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Notify the independent sampler."""
        self._independent.after_trial(study, trial, state, values)

    def _next_params(
        self, study: Study, trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]
    ) -> dict[str, float | int]:
        """Return the parameters of the next run; none where the search space sets no run."""
        search_map = self._search_map(search_space)
        if search_map is None:
            return {}
        try:
            space = search_map.space(self._limits)
        except InputError:
            if self._limits is not None:
                raise
            return {}  # a search space that is too narrow for the design
        rows, n_asking = self._read(study, trial, search_map)
        for _ in range(_ATTEMPTS):
            recommendation = self._recommend(rows, space, n_asking + 1)
            if len(recommendation.proposals) <= n_asking:  # the rest is for trials that asked earlier
                recommendation = self._recommend_beyond_end(rows, space, recommendation, n_asking + 1)
            if not recommendation.proposals:
                return {}
            number = min(n_asking, len(recommendation.proposals) - 1)
            params = search_map.params_of(recommendation.proposals[number])
            _write_proposal(study, trial, recommendation, number, params, _finished_flops(rows))
            rows, _ = self._read(study, trial, search_map)  # with the runs that other processes chose in the meantime
            duplicates = _duplicates(search_map.run_of(params), rows, space)
            if recommendation.stop_reason is not None or not duplicates:
                break
            n_asking = 1 + sum(other < trial.number for other in duplicates)  # each duplicate takes another proposal
        return params

    def _search_map(self, distributions: Mapping[str, BaseDistribution]) -> SearchSpaceMap | None:
        return SearchSpaceMap.from_distributions(
            distributions, names=self._names, categories=self._categories, least=self._least
        )

    def _read(self, study: Study, trial: FrozenTrial, search_map: SearchSpaceMap) -> tuple[list[_Row], int]:
        """Return the other trials by number, and how many earlier trials have yet to choose a run.

        Finished trials are read once.
        """
        cache = self._rows.setdefault((study.study_name, *search_map.distributions), {})
        rows: list[_Row] = []
        n_asking = 0
        for other in study.get_trials(deepcopy=False):
            if other.number == trial.number or other.state is TrialState.WAITING:
                continue
            row = cache[other.number] if other.number in cache else _row(other, search_map)
            if other.state.is_finished():
                cache[other.number] = row
            if row is not None:
                rows.append(row)
            else:
                n_asking += _is_asking(other, trial)
        return rows, n_asking

    def _recommend(self, rows: Sequence[_Row], space: DesignSpace, count: int) -> Recommendation:
        history, goal = self._history_and_goal(rows, space)
        return propose(history, space, goal, count=count, seed=self._seed)

    def _recommend_beyond_end(
        self, rows: Sequence[_Row], space: DesignSpace, ended: Recommendation, count: int
    ) -> Recommendation:
        """Return what would be next after the end, with the stop reason."""
        history, goal = self._history_and_goal(rows, space)
        unlimited, goal = replace(space, replicates=_UNLIMITED), replace(goal, budget=self._horizon(space))
        more = propose(history, unlimited, goal, count=count, seed=self._seed)
        if not more.proposals:  # no run is informative enough for its cost: propose any allowed run
            more = propose(RunHistory.empty(history.skills, len(space.categories)), unlimited, goal, count=count)
        return replace(ended, proposals=more.proposals, stop_reason=ended.stop_reason or StopReason.SPENT)

    def _history_and_goal(self, rows: Sequence[_Row], space: DesignSpace) -> tuple[RunHistory, DesignGoal]:
        reported = sorted({name for row in rows for name in row.losses} - {VALUE})
        skills = self._skills or tuple(reported) or (VALUE,)
        self._warn_of_ignored(set(reported) - set(skills))
        mixes = () if space.mixes is None else (tuple(space.mixes.mean(0)),)
        targets = self._targets or default_targets(skills, largest=space.flops[1], mixes=mixes)
        history = _history(rows, skills, space)
        spent = float(space.cost(history.N, history.D).sum())
        budget = self._horizon(space) if self._budget is None else self._budget - spent
        return history, DesignGoal(targets=targets, budget=max(budget, 0.0))

    def _warn_of_ignored(self, skills: set[str]) -> None:
        """Warn once of each reported skill that is not among the sampler's skills, because it may be a typo."""
        for name in sorted(skills - self._warned):
            _log.warning("losses of %r are ignored. The skills of this sampler are %s", name, ", ".join(self._skills))
        self._warned |= skills

    def _horizon(self, space: DesignSpace) -> float:
        """Return the budget of a plan for a study without a budget, FLOP."""
        return _HORIZON * float(space.cost(1.0, space.flops[1] / 6))


def stop_when_done(study: Study, trial: FrozenTrial) -> None:
    """Stop ``study.optimize`` when the sampler has nothing more to propose. A callback.

    The trial at which it stops has been run by then. An objective that must not run beyond the budget raises
    ``optuna.TrialPruned`` where ``is_beyond`` is true.
    """
    if _is_after_end(trial):
        study.stop()


def is_beyond(trial: Trial) -> bool:
    """Return whether the sampler had nothing to propose for a trial. For objectives, after their first ``suggest``."""
    return _is_after_end(trial.study.get_trials(deepcopy=False)[trial.number])


def _is_after_end(trial: FrozenTrial) -> bool:
    return trial.system_attrs.get(PROPOSAL, {}).get("ending") is not None


def _duplicates(
    run: tuple[float, float, tuple[float, ...]] | None, rows: Sequence[_Row], space: DesignSpace
) -> list[int]:
    """Return trials at the same run without losses, or all at that run where its replicates are used up."""
    same = [row for row in rows if run is not None and _rounded(row.N, row.D) == _rounded(*run[:2]) and row.h == run[2]]
    waiting = [row.number for row in same if not row.losses]
    return waiting or ([row.number for row in same] if len(same) >= space.replicates else [])


def _rounded(N: float, D: float) -> tuple[float, float]:
    return round(math.log(N), 6), round(math.log(D), 6)


def _is_asking(other: FrozenTrial, trial: FrozenTrial) -> bool:
    """Return whether an earlier trial has yet to choose a run; one that takes too long counts as dead."""
    if other.state is not TrialState.RUNNING or other.number > trial.number or PROPOSAL in other.system_attrs:
        return False
    if other.datetime_start is None or trial.datetime_start is None:
        return True
    return abs(trial.datetime_start - other.datetime_start) < _MAX_ASK_TIME


def _row(trial: FrozenTrial, search_map: SearchSpaceMap) -> _Row | None:
    """Return the run and the losses of a trial; None where it has no run."""
    proposed = trial.system_attrs.get(PROPOSAL, {}).get("params", {})
    run = search_map.run_of({**proposed, **trial.params})
    if run is None or (_is_after_end(trial) and trial.state is not TrialState.COMPLETE):
        return None  # a proposal after the end is no run until it is made
    losses = dict(_losses(trial)) if trial.state is TrialState.COMPLETE else {}
    return _Row(number=trial.number, N=run[0], D=run[1], h=run[2], losses=losses)


def _losses(trial: FrozenTrial) -> Iterator[tuple[str, tuple[float, float]]]:
    """Yield loss and sem (NaN where unknown) of each skill; invalid losses are skipped."""
    attrs = trial.user_attrs
    reported = {name.removeprefix("loss/"): attrs[name] for name in attrs if name.startswith("loss/")}
    value = trial.values[0] if trial.values else None
    for skill, loss in (reported or {VALUE: value}).items():
        if isinstance(loss, int | float) and math.isfinite(loss) and loss > 0:
            sem = attrs.get(f"sem/{skill}", math.nan)
            yield skill, (float(loss), float(sem) if isinstance(sem, int | float) else math.nan)


def _history(rows: Sequence[_Row], skills: Sequence[str], space: DesignSpace) -> RunHistory:
    missing = (math.nan, math.nan)
    pairs = {name: np.array([row.losses.get(name, missing) for row in rows]).reshape(-1, 2) for name in skills}
    return RunHistory(
        N=np.array([row.N for row in rows]), D=np.array([row.D for row in rows]),
        h=np.array([row.h for row in rows]).reshape(-1, len(space.categories)) if space.categories else None,
        log_L={name: np.log(pair[:, 0]) for name, pair in pairs.items()},
        sem={name: np.nan_to_num(pair[:, 1] / pair[:, 0]) for name, pair in pairs.items()},
    )  # fmt: skip


def _finished_flops(rows: Sequence[_Row]) -> float:
    """Return 6 N D of the runs that have losses, FLOP."""
    return sum(6 * row.N * row.D for row in rows if row.losses)


def _half_widths(estimates: TargetEstimates) -> dict[str, float]:
    """Return the half width of each target that is no difference, by the target's name."""
    pairs = zip(estimates.targets, estimates.half_widths.tolist(), strict=True)
    return {target.name: half for target, half in pairs if math.isfinite(half) and not target.other}


def _write_proposal(
    study: Study, trial: FrozenTrial, recommendation: Recommendation, number: int, params: Mapping[str, Any],
    finished: float,
) -> None:  # fmt: skip
    """Write the reason and the parameters at once, so that other processes see them before the objective starts."""
    proposal, estimates = recommendation.proposals[number], recommendation.estimates
    reason = ProposalReason(
        purpose=str(proposal.purpose), cost=proposal.cost, narrowing=proposal.narrowing,
        laws=recommendation.law_weights,
    )  # fmt: skip
    values: dict[str, Any] = {
        "purpose": reason.purpose,
        "cost": reason.cost,
        "fall": reason.narrowing,
        "laws": reason.laws,
        "params": dict(params),
        "ending": None if recommendation.stop_reason is None else str(recommendation.stop_reason),
    }
    if estimates is not None and math.isfinite(estimates.widest_half_width):
        values |= {
            "half_width": estimates.widest_half_width,
            "half_widths": _half_widths(estimates),
            "finished": finished,
        }
    storage, trial_id = study._storage, trial._trial_id  # noqa: SLF001 - samplers have no public way to write
    storage.set_trial_system_attr(trial_id, PROPOSAL, values)
    storage.set_trial_user_attr(trial_id, WHY, reason.sentence)
