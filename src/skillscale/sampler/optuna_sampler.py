"""An Optuna sampler that chooses runs for what they tell about the laws of skills: an adapter over ``laws.design``.

The objective tells what it measured by ``trial.set_user_attr("loss/SKILL", nats)`` and ``("sem/SKILL", nats)``; without
them the trial's value is taken for the loss of one skill. In call order: ``infer_relative_search_space`` finds the
parameters that tell a run, ``sample_relative`` reads the trials and proposes one. All other parameters are left to
another sampler, by default a random one.
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
VALUE = "value"  # the skill that a study without named losses has
_TRIES = 4  # to settle on a run while other processes settle on theirs
_ASKS_AT_MOST = timedelta(minutes=2)  # a process that asks for a run; slower ones are taken for dead
_ENDLESS = 10**9  # replicates, of what is said after the end
_log = logging.getLogger(__name__)
_HORIZON = 10.0  # of the largest runs, that a plan without a budget looks ahead


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A trial's run, and loss and sem of each skill: none while it runs, and where it failed."""

    number: int
    N: float
    D: float
    h: tuple[float, ...]
    losses: Mapping[str, tuple[float, float]]


class SkillLawSampler(BaseSampler):
    """Chooses (N, D, mix) so that compute optima of skills, and their differences, become certain for few FLOPs.

    Args:
        skills: by name; empty: those whose losses trials have told.
        categories: of the mix, in the order of the coordinates; empty: the mix plays no part.
        least: share of a category.
        space: further limits on what may be run; its ``mixes`` are those that are tried, by default a lattice.
        targets: what to learn; empty: ln N* of all skills and differences, 10 and 100 times beyond the largest run.
        budget: FLOP for all trials, overheads included; None: plans look ten of the largest runs ahead, without end.
        names: of the parameters, where they are others: ``{"log_n_params": "x", "mix": "share"}``.
        search_space: the distributions, so that the first trials can be chosen too; without it they are random.
        seed: of all that is drawn.
        independent: sampler of all other parameters, and of spaces that are not known.

    Raises:
        InputError: a name of ``names`` that no parameter has by default; categories that are not those of the space.
    """

    def __init__(
        self, *, skills: Sequence[str] = (), categories: Sequence[str] = (), least: Mapping[str, float] | None = None,
        space: DesignSpace | None = None, targets: Sequence[Target] = (), budget: float | None = None,
        names: Mapping[str, str] | None = None, search_space: Mapping[str, BaseDistribution] | None = None,
        seed: int | None = None, independent: BaseSampler | None = None,
    ) -> None:  # fmt: skip
        unknown = sorted(set(names or {}) - set(NAMES))
        if unknown:
            raise InputError(f"no parameter is named {', '.join(unknown)} by default; there are {', '.join(NAMES)}")
        own = space.categories if space is not None else ()
        if categories and own and tuple(categories) != own:
            raise InputError(f"categories are {', '.join(categories)}, but those of the space {', '.join(own)}")
        self._known = {
            "names": NAMES | dict(names or {}),
            "categories": tuple(categories) or own,
            "least": dict(least or {}),
        }
        self._skills, self._limits, self._targets, self._budget = tuple(skills), space, tuple(targets), budget
        self._search_space = dict(search_space or {})
        self._seed = int(np.random.default_rng().integers(2**31)) if seed is None else seed
        self._independent = independent or RandomSampler(seed=seed)
        self._intersection = IntersectionSearchSpace()
        self._rows: dict[tuple[str, ...], dict[int, _Row | None]] = {}
        self._warned: set[str] = set()

    def reseed_rng(self) -> None:
        """Of the independent sampler alone: proposals follow from the trials and the seed."""
        self._independent.reseed_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002
        """The parameters that tell a run; none where they don't tell N and D."""
        found = self._parameters(self._search_space or self._intersection.calculate(study))
        return {} if found is None else dict(found.distributions)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The next run, told as parameters; why, in the trial's attributes.

        Raises:
            ValueError: the study has several objectives, or the limits leave nothing of its space.
        """
        self._raise_error_if_multi_objective(study)
        chosen = self._chosen(study, trial, search_space)
        others = {name: one for name, one in search_space.items() if name not in chosen}
        return chosen | {name: self.sample_independent(study, trial, name, one) for name, one in others.items()}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Any other parameter, or one of a space that is not known."""
        self._raise_error_if_multi_objective(study)
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """For the independent sampler."""
        self._independent.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """For the independent sampler."""
        self._independent.after_trial(study, trial, state, values)

    def _chosen(
        self, study: Study, trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]
    ) -> dict[str, float | int]:
        """The parameters of the next run; none in a space that is not known."""
        parameters = self._parameters(search_space)
        if parameters is None:
            return {}
        try:
            space = parameters.space(self._limits)
        except InputError:
            if self._limits is not None:
                raise
            return {}  # a space that is too narrow for the design
        rows, asking = self._read(study, trial, parameters)
        for _ in range(_TRIES):
            advice = self._advice(rows, space, asking + 1)
            if len(advice.proposals) <= asking:  # what is left is for those that asked before: say what would be next
                advice = self._beyond(rows, space, advice, asking + 1)
            if not advice.proposals:
                return {}
            number = min(asking, len(advice.proposals) - 1)
            params = parameters.params_of(advice.proposals[number])
            _explain(study, trial, advice, number, params, _finished(rows))
            rows, _ = self._read(study, trial, parameters)  # what others have settled on since
            met = _met(parameters.run_of(params), rows, space)
            if advice.stop_reason is not None or not met:
                break
            asking = 1 + sum(other < trial.number for other in met)  # each of those that met goes another way
        return params

    def _parameters(self, given: Mapping[str, BaseDistribution]) -> SearchSpaceMap | None:
        return SearchSpaceMap.found(given, **self._known)  # type: ignore[arg-type]  # one dict for three keywords

    def _read(self, study: Study, trial: FrozenTrial, parameters: SearchSpaceMap) -> tuple[list[_Row], int]:
        """The other trials by number, and how many that began before this one still ask what to run.

        Those that have ended are read once.
        """
        known = self._rows.setdefault((study.study_name, *parameters.distributions), {})
        rows: list[_Row] = []
        asking = 0
        for one in study.get_trials(deepcopy=False):
            if one.number == trial.number or one.state is TrialState.WAITING:
                continue
            row = known[one.number] if one.number in known else _row(one, parameters)
            if one.state.is_finished():
                known[one.number] = row
            if row is not None:
                rows.append(row)
            else:
                asking += _is_asking(one, trial)
        return rows, asking

    def _advice(self, rows: Sequence[_Row], space: DesignSpace, count: int) -> Recommendation:
        """Advice on the next runs."""
        history, wish = self._asked(rows, space)
        return propose(history, space, wish, count=count, seed=self._seed)

    def _beyond(self, rows: Sequence[_Row], space: DesignSpace, ended: Recommendation, count: int) -> Recommendation:
        """What would be next after the end, and the ending."""
        history, wish = self._asked(rows, space)
        again, wish = replace(space, replicates=_ENDLESS), replace(wish, budget=self._ahead(space))
        more = propose(history, again, wish, count=count, seed=self._seed)
        if not more.proposals:  # nothing is worth its cost: something within the limits, all the same
            more = propose(RunHistory.empty(history.skills, len(space.categories)), again, wish, count=count)
        return replace(ended, proposals=more.proposals, stop_reason=ended.stop_reason or StopReason.SPENT)

    def _asked(self, rows: Sequence[_Row], space: DesignSpace) -> tuple[RunHistory, DesignGoal]:
        """What is known, and what is wished."""
        told = sorted({name for row in rows for name in row.losses} - {VALUE})
        skills = self._skills or tuple(told) or (VALUE,)
        self._warn_of(set(told) - set(skills))
        mixes = () if space.mixes is None else (tuple(space.mixes.mean(0)),)
        targets = self._targets or default_targets(skills, largest=space.flops[1], mixes=mixes)
        history = _history(rows, skills, space)
        spent = float(space.cost(history.N, history.D).sum())
        left = self._ahead(space) if self._budget is None else self._budget - spent
        return history, DesignGoal(targets=targets, budget=max(left, 0.0))

    def _warn_of(self, unasked: set[str]) -> None:
        """Say once of a skill that trials tell of it and nobody asked: the name may be a slip."""
        for name in sorted(unasked - self._warned):
            _log.warning(
                "losses of %r are told, but not looked at: skills asked for are %s", name, ", ".join(self._skills)
            )
        self._warned |= unasked

    def _ahead(self, space: DesignSpace) -> float:
        """FLOP that a plan without a budget looks ahead."""
        return _HORIZON * float(space.cost(1.0, space.flops[1] / 6))


def stop_when_done(study: Study, trial: FrozenTrial) -> None:
    """A callback of ``study.optimize``: stop when the sampler had nothing to propose any more.

    The trial that is told so has been made by then: an objective that shall not run beyond the budget raises
    ``optuna.TrialPruned`` where ``is_beyond`` says so.
    """
    if _is_told_the_end(trial):
        study.stop()


def is_beyond(trial: Trial) -> bool:
    """For objectives that have asked for a parameter: whether nothing was left to propose for this trial."""
    return _is_told_the_end(trial.study.get_trials(deepcopy=False)[trial.number])


def _is_told_the_end(trial: FrozenTrial) -> bool:
    return trial.system_attrs.get(PROPOSAL, {}).get("ending") is not None


def _met(run: tuple[float, float, tuple[float, ...]] | None, rows: Sequence[_Row], space: DesignSpace) -> list[int]:
    """Trials at the same run that have measured nothing yet, or all there where it has been made as often as it may."""
    same = [row for row in rows if run is not None and _place(row.N, row.D) == _place(*run[:2]) and row.h == run[2]]
    waiting = [row.number for row in same if not row.losses]
    return waiting or ([row.number for row in same] if len(same) >= space.replicates else [])


def _place(N: float, D: float) -> tuple[float, float]:
    return round(math.log(N), 6), round(math.log(D), 6)


def _is_asking(one: FrozenTrial, mine: FrozenTrial) -> bool:
    """Whether a trial that began before this one has yet to settle on a run; one that is long silent has died."""
    if one.state is not TrialState.RUNNING or one.number > mine.number or PROPOSAL in one.system_attrs:
        return False
    if one.datetime_start is None or mine.datetime_start is None:
        return True
    return abs(mine.datetime_start - one.datetime_start) < _ASKS_AT_MOST


def _row(trial: FrozenTrial, parameters: SearchSpaceMap) -> _Row | None:
    """What a trial tells; None where its run is not known."""
    proposed = trial.system_attrs.get(PROPOSAL, {}).get("params", {})
    run = parameters.run_of({**proposed, **trial.params})
    if run is None or (_is_told_the_end(trial) and trial.state is not TrialState.COMPLETE):
        return None  # what is said after the end is no run until somebody has made it
    losses = dict(_losses(trial)) if trial.state is TrialState.COMPLETE else {}
    return _Row(number=trial.number, N=run[0], D=run[1], h=run[2], losses=losses)


def _losses(trial: FrozenTrial) -> Iterator[tuple[str, tuple[float, float]]]:
    """Loss and its sem, NaN where nobody told, of each skill; a loss that is none is left out."""
    told = {name.removeprefix("loss/"): one for name, one in trial.user_attrs.items() if name.startswith("loss/")}
    value = trial.values[0] if trial.values else None
    for name, loss in (told or {VALUE: value}).items():
        if isinstance(loss, int | float) and math.isfinite(loss) and loss > 0:
            sem = trial.user_attrs.get(f"sem/{name}", math.nan)
            yield name, (float(loss), float(sem) if isinstance(sem, int | float) else math.nan)


def _history(rows: Sequence[_Row], skills: Sequence[str], space: DesignSpace) -> RunHistory:
    unknown = (math.nan, math.nan)
    both = {name: np.array([row.losses.get(name, unknown) for row in rows]).reshape(-1, 2) for name in skills}
    return RunHistory(
        N=np.array([row.N for row in rows]), D=np.array([row.D for row in rows]),
        h=np.array([row.h for row in rows]).reshape(-1, len(space.categories)) if space.categories else None,
        log_L={name: np.log(each[:, 0]) for name, each in both.items()},
        sem={name: np.nan_to_num(each[:, 1] / each[:, 0]) for name, each in both.items()},
    )  # fmt: skip


def _finished(rows: Sequence[_Row]) -> float:
    """6 N D of the runs that have measured something, FLOP."""
    return sum(6 * row.N * row.D for row in rows if row.losses)


def _half_widths(answer: TargetEstimates) -> dict[str, float]:
    """Half width of each target's interval but those of differences, by the target's name."""
    half = ((answer.hi - answer.lo) / 2).tolist()
    pairs = zip(answer.targets, half, strict=True)
    return {one.name: width for one, width in pairs if math.isfinite(width) and not one.other}


def _explain(
    study: Study, trial: FrozenTrial, advice: Recommendation, number: int, params: Mapping[str, Any], finished: float
) -> None:
    """Write why, and the parameters at once: other processes see them before the objective asks for them."""
    one = advice.proposals[number]
    why = ProposalReason(purpose=str(one.purpose), cost=one.cost, narrowing=one.narrowing, laws=advice.law_weights)
    told: dict[str, Any] = {
        "purpose": why.purpose,
        "cost": why.cost,
        "fall": why.narrowing,
        "laws": why.laws,
        "params": dict(params),
        "ending": None if advice.stop_reason is None else str(advice.stop_reason),
    }
    if advice.estimates is not None and math.isfinite(advice.estimates.widest_half_width):
        told |= {
            "half_width": advice.estimates.widest_half_width,
            "half_widths": _half_widths(advice.estimates),
            "finished": finished,
        }
    storage, trial_id = study._storage, trial._trial_id  # noqa: SLF001 - samplers have no public way to write
    storage.set_trial_system_attr(trial_id, PROPOSAL, told)
    storage.set_trial_user_attr(trial_id, WHY, why.sentence)
