"""The next runs: a start that fills the space, then a plan over the remaining budget, computed again at every call.

Planned runs are proposed cheapest first: the plan has learnt from them by the time expensive runs are due. At fixed
intervals a run fills a gap or repeats an earlier run, whatever the plan. Those runs show where the laws fail, and how
large the noise is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree
from scipy.stats import qmc

from skillscale.design.allocation import AllocationProblem, allocate_runs
from skillscale.design.model_averaging import ModelAverage, average_laws, estimate_targets_from
from skillscale.design.priors import candidate_laws, law_name
from skillscale.design.proposal import Proposal, Purpose, Recommendation, StopReason
from skillscale.design.space import DesignSpace, RunHistory
from skillscale.design.targets import QueryPoint, Target, TargetEstimates
from skillscale.formatting import format_percent
from skillscale.laws.forms.nd import Array

START = 8  # runs before the first plan
START_SHARE = 0.1  # largest cost of a run of the start, in largest runs
HORIZON = 30.0  # largest runs that a plan spends at most
FILL_EVERY, REPLICATE_EVERY = 10, 14  # runs; together a sixth (assumption)
WORTHLESS = 0.02  # fall of the mean ln sd through the remaining budget below which the design stops
MISFIT = 0.003  # scale of the discrepancy, in ln L, from which the design warns
_BINDING = 0.95  # share of the allowed runs from which their number, not the budget, limits the plan
_GOLDEN = (math.sqrt(5) - 1) / 2  # multiples mod 1 are evenly spread over the plan, however many there are
_STEPS = 11  # points of the candidates' lattice on a side
_ALIKE = 0.01  # in ln N, ln D and shares, between a point and its run: whole batches change D a little
_MIXES = 12  # most mixes that one call considers
_LOW_WEIGHT = 0.3  # weight of a run below which the design warns
_LADDER = 4.0 ** np.arange(-3, 8)  # multiples of the budget at which the forecast evaluates plans
Run = tuple[float, float, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class DesignGoal:
    """What to learn, and within which limits.

    ``budget``: remaining compute. ``target_half_width``: half width of the widest interval that is narrow enough, in
    ln N. ``max_runs``: most further runs.
    """

    targets: tuple[Target, ...]
    budget: float = field(metadata={"unit": "FLOP, overheads included"})
    target_half_width: float = 0.0
    max_runs: float = math.inf


def propose(
    history: RunHistory, space: DesignSpace, goal: DesignGoal, *, count: int = 1, seed: int = 0, forecast: bool = False
) -> Recommendation:
    """Propose the next ``count`` runs.

    Args:
        history: runs that are finished or under way.
        space: allowed runs.
        goal: targets, and limits on further runs.
        count: number of runs. Runs of one call count as under way for the later ones.
        seed: seed of the start, of the lattice's shifts, and of runs that fill gaps.
        forecast: whether to estimate the compute that halves the widest interval, which takes several plans.
    """
    if len(history) < START or _n_measured(history) < START // 2:
        start = _start(history, space, goal, count, seed)
        if start.proposals:
            return start
    averages = average_laws(history, space, goal.targets)
    estimates = estimate_targets_from(averages, goal.targets)
    recommendation = Recommendation(
        proposals=(), estimates=estimates, warnings=_warnings(averages, space),
        law_weights={skill: average.law_weights for skill, average in averages.items()},
    )  # fmt: skip
    if estimates.widest_half_width <= goal.target_half_width:
        return replace(recommendation, stop_reason=StopReason.PRECISE)
    candidates = _candidates(space, goal, np.random.default_rng([seed, len(history)]))
    if not len(candidates) or goal.max_runs < 1:
        return replace(recommendation, stop_reason=StopReason.SPENT)
    room = space.replicates - _times_run(history, candidates)
    if not (room > 0).any():
        return replace(recommendation, stop_reason=StopReason.EXHAUSTED)
    candidates, room = _subset(candidates, room > 0), room[room > 0]
    problem = allocation_problem(averages, goal.targets, candidates, history)
    cost = space.cost(candidates.N, candidates.D)
    budget = min(goal.budget, HORIZON * space.flops[1])
    max_runs = min(goal.max_runs, budget / float(cost.min()))
    counts = allocate_runs(problem, cost, budget=budget, max_runs=max_runs, max_count=room)
    recommendation = replace(
        recommendation, expected_half_width=_expected_half_width(problem, estimates, counts),
        flops_to_halve=_flops_to_halve(problem, estimates, cost, budget=budget, max_runs=max_runs)
        if forecast else None,
    )  # fmt: skip
    if problem.objective(np.zeros(len(cost))) - problem.objective(counts) < WORTHLESS:
        return replace(recommendation, stop_reason=StopReason.WORTHLESS)
    runs = _next_runs(history, space, goal, candidates, counts, count=count, seed=seed)
    return replace(recommendation, proposals=tuple(_with_effects(runs, space, problem, candidates, goal.targets)))


def _n_measured(history: RunHistory) -> int:
    """Count the runs that have measured a skill."""
    return int(np.any([history.measured(skill) for skill in history.skills], axis=0).sum()) if history.skills else 0


def _start(history: RunHistory, space: DesignSpace, goal: DesignGoal, count: int, seed: int) -> Recommendation:
    """Propose the next points of the start; none where all are made, or the budget does not pay for them."""
    proposals: list[Proposal] = []
    budget, made = goal.budget, RunHistory(N=history.N, D=history.D)
    for N, D, h in _spread(space, seed, len(history) + 4 * count):
        cost = float(space.cost(N, D))
        if len(proposals) == min(count, goal.max_runs) or cost > budget * (1 + 1e-9):
            break
        if _times_run(made, RunHistory(N=np.array([N]), D=np.array([D])))[0]:  # on any mix
            continue
        budget, made = budget - cost, _with_run(made, (N, D, ()))
        proposals.append(Proposal(N=N, D=D, h=h, cost=cost, purpose=Purpose.START))
    return Recommendation(proposals=tuple(proposals))


def _spread(space: DesignSpace, seed: int, number: int) -> list[Run]:
    """Return cheap runs that fill the space, near the points of a Sobol sequence."""
    cheap = min(space.flops[1], max(space.flops[0], START_SHARE * space.flops[1]))
    N, D = space.lattice(steps=41)
    C = 6 * N * D
    keep = max(cheap, C.min()) * (1 + 1e-6) >= C
    N, D = N[keep], D[keep]
    places = np.column_stack([_to_unit_interval(np.log(N * D)), _to_unit_interval(np.log(D / N))])
    total = 2 ** math.ceil(math.log2(max(number, 2)))
    runs: list[Run] = []
    for point in qmc.Sobol(3, rng=np.random.default_rng(seed)).random(total)[:number]:
        h = () if space.mixes is None else _shares(space.mixes[min(int(point[2] * space.n_mixes), space.n_mixes - 1)])
        distance = ((places - point[:2]) ** 2).sum(1)
        if h and space.supply is not None:
            distance = np.where(space.allows(N, D, np.tile(h, (len(N), 1))), distance, np.inf)
        at = int(np.argmin(distance))
        if np.isfinite(distance[at]):
            runs.append((float(N[at]), float(D[at]), h))
    return runs


def _shares(h: Array) -> tuple[float, ...]:
    return tuple(float(share) for share in h)


def _to_unit_interval(x: Array) -> Array:
    return np.asarray((x - x.min()) / max(float(np.ptp(x)), 1e-12))


def _candidates(space: DesignSpace, goal: DesignGoal, rng: np.random.Generator) -> RunHistory:
    """Return a lattice of affordable runs, shifted at random so that plans share points on the space's edge alone."""
    N, D = space.lattice(tuple(rng.uniform(-0.5, 0.5, 2)), steps=_STEPS)
    h = None
    if space.mixes is not None:
        mixes = space.mixes
        if len(mixes) > _MIXES:
            mixes = mixes[rng.choice(len(mixes), _MIXES, replace=False)]
        h = np.repeat(mixes, len(N), axis=0)
        N, D = np.tile(N, len(mixes)), np.tile(D, len(mixes))
    return _subset(RunHistory(N=N, D=D, h=h), space.allows(N, D, h) & (space.cost(N, D) <= goal.budget))


def _subset(runs: RunHistory, keep: npt.NDArray[np.bool_]) -> RunHistory:
    return RunHistory(N=runs.N[keep], D=runs.D[keep], h=None if runs.h is None else runs.h[keep])


def _times_run(history: RunHistory, runs: RunHistory) -> Array:
    """Return how often each of the runs is in the history, (n,)."""
    if not len(history):
        return np.zeros(len(runs))
    mixed = history.h is not None and runs.h is not None
    tree, places = (
        np.column_stack([np.log(some.N), np.log(some.D), *((some.h,) if mixed else ())]) for some in (history, runs)
    )
    counts = cKDTree(tree).query_ball_point(places, _ALIKE, p=math.inf, return_length=True)
    return np.asarray(counts, dtype=float)


def allocation_problem(
    averages: dict[str, ModelAverage],
    targets: Sequence[Target],
    candidates: RunHistory,
    history: RunHistory,
    *,
    by_mean_variance: bool = False,
) -> AllocationProblem:
    """Build the problem with the targets as combinations of each skill's quantities.

    Args:
        averages: averaged posterior of each skill.
        targets: targets of the design.
        candidates: runs to choose from.
        history: runs that are finished or under way.
        by_mean_variance: whether to minimise the targets' mean variance instead of their mean ln sd.
    """
    points: dict[str, list[QueryPoint]] = {skill: [] for skill in averages}
    parts: list[list[tuple[str, int]]] = []
    for target in targets:
        point = target.query_point
        parts.append([])
        for skill in filter(None, (target.skill, target.other)):
            if point not in points[skill]:
                points[skill].append(point)
            parts[-1].append((skill, points[skill].index(point)))
    first = dict(zip(points, np.cumsum([0, *(len(of_skill) for of_skill in points.values())]), strict=False))
    combine = np.zeros((len(targets), sum(len(of_skill) for of_skill in points.values())))
    for row, part in enumerate(parts):
        for skill, at in part:
            combine[row, first[skill] + at] = 1.0
    information = []
    for skill, of_skill in points.items():
        waiting = ~history.measured(skill)
        pending = RunHistory(
            N=history.N[waiting], D=history.D[waiting],
            h=None if history.h is None or candidates.h is None else history.h[waiting],
        )  # fmt: skip
        information.append(averages[skill].information(candidates, pending, of_skill))
    return AllocationProblem(
        information=information, combine=combine, weights=np.array([target.weight for target in targets]),
        by_mean_variance=by_mean_variance,
    )  # fmt: skip


def _next_runs(
    history: RunHistory,
    space: DesignSpace,
    goal: DesignGoal,
    candidates: RunHistory,
    counts: Array,
    *,
    count: int,
    seed: int,
) -> list[tuple[Run, Purpose]]:
    """Choose the next runs by the plan's counts, cheapest first; some fill gaps or repeat earlier runs."""
    order = np.argsort(space.cost(candidates.N, candidates.D), kind="stable")
    cumulative = np.cumsum(counts[order])
    if cumulative[-1] > _BINDING * goal.max_runs:  # cheap runs first would leave more FLOP than the last runs can spend
        turns = cumulative[-1] * ((len(history) + np.arange(count)) * _GOLDEN % 1)
    else:
        turns = np.arange(count) + 0.5
    picks = [int(order[min(int(np.searchsorted(cumulative, turn)), len(order) - 1)]) for turn in turns]
    if cumulative[-1] < 0.5:  # less than half a run is planned: take the candidate with the largest count
        picks[0] = int(np.argmax(counts))
    chosen: list[tuple[Run, Purpose]] = []
    budget, runs, made = goal.budget, goal.max_runs, history
    for turn, at in enumerate(picks):
        if turn and turn + 0.5 > cumulative[-1]:
            break
        pick = _unplanned_run(history, space, len(history) + turn, seed)
        if pick is None or float(space.cost(*pick[0][:2])) > budget or not _is_allowed_again(made, space, pick[0]):
            planned = _planned_run(made, space, candidates, counts, at)
            pick = None if planned is None else (planned, Purpose.PLAN)
        if pick is None:
            break
        budget, runs = budget - float(space.cost(*pick[0][:2])), runs - 1
        if budget < 0 or runs < 0:
            break
        chosen.append(pick)
        made = _with_run(made, pick[0])
    return chosen


def _planned_run(made: RunHistory, space: DesignSpace, candidates: RunHistory, counts: Array, at: int) -> Run | None:
    """Return a candidate, or the allowed one with the largest count where all its replicates are made."""
    run = _run(candidates, at)
    if _is_allowed_again(made, space, run):
        return run
    allowed = _times_run(made, candidates) < space.replicates
    return _run(candidates, int(np.argmax(np.where(allowed, counts, -1.0)))) if allowed.any() else None


def _is_allowed_again(made: RunHistory, space: DesignSpace, run: Run) -> bool:
    point = RunHistory(N=np.array([run[0]]), D=np.array([run[1]]), h=np.array([run[2]]) if run[2] else None)
    return int(_times_run(made, point)[0]) < space.replicates


def _with_run(made: RunHistory, run: Run) -> RunHistory:
    return made.with_runs(np.array([run[0]]), np.array([run[1]]), np.array([run[2]]) if run[2] else None)


def _unplanned_run(history: RunHistory, space: DesignSpace, number: int, seed: int) -> tuple[Run, Purpose] | None:
    """Return the run number ``number`` where it is to fill a gap or to replicate, else None."""
    if number % FILL_EVERY == FILL_EVERY - 1 and (spread := _spread(space, seed, number + 1)):
        return spread[-1], Purpose.FILL
    if number % REPLICATE_EVERY == REPLICATE_EVERY - 1 and space.replicates > 1 and len(history):
        cost = space.cost(history.N, history.D)
        cheap = np.flatnonzero(cost <= np.median(cost))
        at = int(cheap[np.random.default_rng([seed, number]).integers(len(cheap))])
        if space.allows(history.N[at], history.D[at]):
            return _run(history, at), Purpose.REPLICATE
    return None


def _run(runs: RunHistory, at: int) -> Run:
    return float(runs.N[at]), float(runs.D[at]), () if runs.h is None else _shares(runs.h[at])


def _with_effects(
    runs: Sequence[tuple[Run, Purpose]], space: DesignSpace, problem: AllocationProblem, candidates: RunHistory,
    targets: Sequence[Target],
) -> list[Proposal]:  # fmt: skip
    """Return proposals with the narrowing that each run alone should bring, as that of the nearest candidate."""
    before, pull = problem.variances(np.zeros(len(candidates)))
    noise = [np.einsum("np,pq,nq->n", part.b, np.linalg.inv(part.M), part.b) for part in problem.information]
    spread = np.mean(noise, axis=0)
    proposals = []
    for (N, D, h), purpose in runs:
        distance = np.log(candidates.N / N) ** 2 + np.log(candidates.D / D) ** 2
        if candidates.h is not None:
            distance = distance + 10 * ((candidates.h - np.array(h)) ** 2).sum(1)
        at = int(np.argmin(distance))
        after = np.maximum(before - pull[at] / (1 + spread[at]), 1e-12 * before)
        shares = zip(targets, 1 - np.sqrt(after / before), strict=True)
        narrowing = {target.name: float(share) for target, share in shares}
        cost = float(space.cost(N, D))
        proposals.append(Proposal(N=N, D=D, h=h, cost=cost, purpose=purpose, narrowing=narrowing))
    return proposals


def _expected_half_width(problem: AllocationProblem, estimates: TargetEstimates, counts: Array) -> float:
    """Return the widest half width after the counts have run, from the current intervals and the planned variances."""
    after, _ = problem.variances(counts)
    return float((estimates.half_widths * np.sqrt(after / problem.current_variances)).max())


def _flops_to_halve(
    problem: AllocationProblem, estimates: TargetEstimates, cost: Array, *, budget: float, max_runs: float
) -> float:
    """Return the FLOP after which the widest half width should be half of today's, infinite where no budget does."""
    target = estimates.widest_half_width / 2
    log_spent, widths = [], []
    for factor in _LADDER:
        if factor * budget < cost.min():
            continue
        counts = allocate_runs(problem, cost, budget=factor * budget, max_runs=max(1.0, factor * max_runs))
        log_spent.append(math.log(factor * budget))
        widths.append(_expected_half_width(problem, estimates, counts))
        if widths[-1] <= target:
            break
    if not widths or widths[-1] > target:
        return math.inf
    if len(widths) == 1:
        return math.exp(log_spent[0])
    return math.exp(float(np.interp(-math.log(target), -np.log(widths[-2:]), log_spent[-2:])))


def _warnings(averages: dict[str, ModelAverage], space: DesignSpace) -> tuple[str, ...]:
    """Return warnings where the runs of a skill contradict every law, or single runs contradict the others."""
    warnings, laws = [], [law_name(law) for law in candidate_laws(space)]
    mixed = ", with a value of tokens by category" if space.n_mixes > 1 else ""
    for skill, average in averages.items():
        best = average.posteriors[int(np.argmax(average.weights))]
        n_low = int((best.run_weights < _LOW_WEIGHT).sum())
        if best.scale > MISFIT:
            warnings.append(
                f"none of the sampler's {len(laws)} laws ({', '.join(laws)}{mixed}) fits {skill}: systematic misfit "
                f"about {format_percent(best.scale)} of the loss. Extrapolated optima are less certain than any single "
                "law's interval suggests. Another law may fit better"
            )
        if n_low:
            warnings.append(
                f"{n_low} of {len(best.run_weights)} runs get low weight for {skill}: they contradict the other runs, "
                "in this skill or in all. Check them"
            )
    return tuple(warnings)
