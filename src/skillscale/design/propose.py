"""The next runs: a start that fills the space, then a plan over the whole remaining budget, made anew at every call.

Planned runs are taken the cheapest first: by the time dear ones are due, the plan has learnt from the others. Now and
then a run fills a gap, or repeats an earlier one, whatever the plan: they show where the laws fail and what noise is.
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
from skillscale.laws.forms.nd import Array

START = 8  # runs before the first plan
START_SHARE = 0.1  # of the largest run, which a run of the start may cost at most
HORIZON = 30.0  # largest runs, that are planned ahead at most
FILL_EVERY, REPLICATE_EVERY = 10, 14  # runs; together a sixth (assumption)
WORTHLESS = 0.02  # fall of the mean ln sd through all that is left, below which it isn't worth spending
ROUGH = 0.003  # scale of the discrepancy, in ln L, from which the laws are told to be off
_BINDING = 0.95  # share of the runs allowed from which their number is what limits the plan
_GOLDEN = (math.sqrt(5) - 1) / 2  # turns that spread evenly over the plan, however many there are
_STEPS = 11  # of the lattice of candidates, each way
_ALIKE = 0.01  # in ln N, ln D and shares, between a point and its run: whole batches make D differ a little
_MIXES = 12  # tried at once, of more that are allowed
_TRUST = 0.3  # weight of a run below which it is told as odd
_LADDER = 4.0 ** np.arange(-3, 8)  # of what is left, at which the forecast looks
Run = tuple[float, float, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class DesignGoal:
    """What to learn and at what cost: ``targets``, FLOPs ``left``, the half ``width`` that is enough, most ``runs``."""

    targets: tuple[Target, ...]
    left: float = field(metadata={"unit": "FLOP, overheads included"})
    width: float = 0.0
    runs: float = math.inf


def propose(
    history: RunHistory, space: DesignSpace, wish: DesignGoal, *, count: int = 1, seed: int = 0, forecast: bool = False
) -> Recommendation:
    """The next ``count`` runs.

    Args:
        history: runs that are finished or under way.
        space: what may be run.
        wish: what to learn, and what it may cost.
        count: how many; runs of one call count as under way for the next ones.
        seed: of the start, of the lattice's shifts, and of runs that fill gaps.
        forecast: whether to tell what halving the widest interval would take, which costs several plans.
    """
    if len(history) < START or _measured(history) < START // 2:
        begun = _beginning(history, space, wish, count, seed)
        if begun.proposals:
            return begun
    known = average_laws(history, space, wish.targets)
    found = estimate_targets_from(known, wish.targets)
    laws = {skill: one.by_name for skill, one in known.items()}
    advice = Recommendation(proposals=(), answer=found, laws=laws, warnings=_warnings(known, space))
    if found.widest <= wish.width:
        return replace(advice, ending=StopReason.PRECISE)
    candidates = _candidates(space, wish, np.random.default_rng([seed, len(history)]))
    if not len(candidates) or wish.runs < 1:
        return replace(advice, ending=StopReason.SPENT)
    room = space.replicates - _repeats(history, candidates)
    if not (room > 0).any():
        return replace(advice, ending=StopReason.EXHAUSTED)
    candidates, room = _some(candidates, room > 0), room[room > 0]
    problem = allocation_problem(known, wish.targets, candidates, history)
    cost = space.cost(candidates.N, candidates.D)
    left = min(wish.left, HORIZON * space.flops[1])
    runs = min(wish.runs, left / float(cost.min()))
    counts = allocate_runs(problem, cost, left=left, runs=runs, most=room)
    advice = replace(
        advice, expected=_widest(problem, found, counts),
        to_halve=_to_halve(problem, found, cost, left=left, runs=runs) if forecast else None,
    )  # fmt: skip
    if problem.value(np.zeros(len(cost))) - problem.value(counts) < WORTHLESS:
        return replace(advice, ending=StopReason.WORTHLESS)
    chosen = _chosen(history, space, wish, candidates, counts, count=count, seed=seed)
    return replace(advice, proposals=tuple(_explained(chosen, space, problem, candidates, wish.targets)))


def _measured(history: RunHistory) -> int:
    """Runs that have measured some skill."""
    return int(np.any([history.having(skill) for skill in history.skills], axis=0).sum()) if history.skills else 0


def _beginning(history: RunHistory, space: DesignSpace, wish: DesignGoal, count: int, seed: int) -> Recommendation:
    """The next points of the start that are not there; none where it has no more, or they can't be paid."""
    proposals: list[Proposal] = []
    left, made = wish.left, RunHistory(N=history.N, D=history.D)
    for N, D, h in _spread(space, seed, len(history) + 4 * count):
        cost = float(space.cost(N, D))
        if len(proposals) == min(count, wish.runs) or cost > left * (1 + 1e-9):
            break
        if _repeats(made, RunHistory(N=np.array([N]), D=np.array([D])))[0]:  # on any mix
            continue
        left, made = left - cost, _with_run(made, (N, D, ()))
        proposals.append(Proposal(N=N, D=D, h=h, cost=cost, purpose=Purpose.START))
    return Recommendation(proposals=tuple(proposals))


def _spread(space: DesignSpace, seed: int, number: int) -> list[Run]:
    """Runs that fill the space, cheap ones only."""
    cheap = min(space.flops[1], max(space.flops[0], START_SHARE * space.flops[1]))
    N, D = space.lattice(steps=41)
    C = 6 * N * D
    keep = max(cheap, C.min()) * (1 + 1e-6) >= C
    N, D = N[keep], D[keep]
    places = np.column_stack([_unit(np.log(N * D)), _unit(np.log(D / N))])
    total = 2 ** math.ceil(math.log2(max(number, 2)))
    found: list[Run] = []
    for point in qmc.Sobol(3, rng=np.random.default_rng(seed)).random(total)[:number]:
        h = () if space.mixes is None else _shares(space.mixes[min(int(point[2] * space.n_mixes), space.n_mixes - 1)])
        order = ((places - point[:2]) ** 2).sum(1)
        if h and space.supply is not None:
            order = np.where(space.allows(N, D, np.tile(h, (len(N), 1))), order, np.inf)
        at = int(np.argmin(order))
        if np.isfinite(order[at]):
            found.append((float(N[at]), float(D[at]), h))
    return found


def _shares(h: Array) -> tuple[float, ...]:
    return tuple(float(share) for share in h)


def _unit(x: Array) -> Array:
    """From 0 to 1."""
    return np.asarray((x - x.min()) / max(float(np.ptp(x)), 1e-12))


def _candidates(space: DesignSpace, wish: DesignGoal, rng: np.random.Generator) -> RunHistory:
    """The lattice of what may be run and paid for, shifted by chance: plans share no points but on the space's edge."""
    N, D = space.lattice(tuple(rng.uniform(-0.5, 0.5, 2)), steps=_STEPS)
    h = None
    if space.mixes is not None:
        mixes = space.mixes
        if len(mixes) > _MIXES:
            mixes = mixes[rng.choice(len(mixes), _MIXES, replace=False)]
        h = np.repeat(mixes, len(N), axis=0)
        N, D = np.tile(N, len(mixes)), np.tile(D, len(mixes))
    return _some(RunHistory(N=N, D=D, h=h), space.allows(N, D, h) & (space.cost(N, D) <= wish.left))


def _some(runs: RunHistory, keep: npt.NDArray[np.bool_]) -> RunHistory:
    return RunHistory(N=runs.N[keep], D=runs.D[keep], h=None if runs.h is None else runs.h[keep])


def _repeats(history: RunHistory, runs: RunHistory) -> Array:
    """How often each of the runs has been made, (n,)."""
    if not len(history):
        return np.zeros(len(runs))
    mixed = history.h is not None and runs.h is not None
    tree, places = (
        np.column_stack([np.log(one.N), np.log(one.D), *((one.h,) if mixed else ())]) for one in (history, runs)
    )
    found = cKDTree(tree).query_ball_point(places, _ALIKE, p=math.inf, return_length=True)
    return np.asarray(found, dtype=float)


def allocation_problem(
    known: dict[str, ModelAverage],
    targets: Sequence[Target],
    candidates: RunHistory,
    history: RunHistory,
    *,
    total: bool = False,
) -> AllocationProblem:
    """The targets as combinations of each skill's quantities."""
    quantities: dict[str, list[QueryPoint]] = {skill: [] for skill in known}
    parts: list[list[tuple[str, int]]] = []
    for target in targets:
        place = target.place
        parts.append([])
        for skill in filter(None, (target.skill, target.other)):
            if place not in quantities[skill]:
                quantities[skill].append(place)
            parts[-1].append((skill, quantities[skill].index(place)))
    first = dict(zip(quantities, np.cumsum([0, *(len(one) for one in quantities.values())]), strict=False))
    combine = np.zeros((len(targets), sum(len(one) for one in quantities.values())))
    for row, part in enumerate(parts):
        for skill, at in part:
            combine[row, first[skill] + at] = 1.0
    questions = []
    for skill, asked in quantities.items():
        waiting = ~history.having(skill)
        pending = RunHistory(
            N=history.N[waiting], D=history.D[waiting],
            h=None if history.h is None or candidates.h is None else history.h[waiting],
        )  # fmt: skip
        questions.append(known[skill].question(candidates, pending, asked))
    return AllocationProblem(
        questions=questions, combine=combine, weights=np.array([target.weight for target in targets]), total=total
    )


def _chosen(
    history: RunHistory,
    space: DesignSpace,
    wish: DesignGoal,
    candidates: RunHistory,
    counts: Array,
    *,
    count: int,
    seed: int,
) -> list[tuple[Run, Purpose]]:
    """The next runs by the plan's counts, the cheapest first; some that fill gaps or repeat."""
    order = np.argsort(space.cost(candidates.N, candidates.D), kind="stable")
    along = np.cumsum(counts[order])
    if along[-1] > _BINDING * wish.runs:  # cheap ones first would leave more FLOPs than the last runs can spend
        turns = along[-1] * ((len(history) + np.arange(count)) * _GOLDEN % 1)
    else:
        turns = np.arange(count) + 0.5
    picks = [int(order[min(int(np.searchsorted(along, at)), len(order) - 1)]) for at in turns]
    if along[-1] < 0.5:  # less than half a run is planned: the dearest that counts most
        picks[0] = int(np.argmax(counts))
    chosen: list[tuple[Run, Purpose]] = []
    left, runs, made = wish.left, wish.runs, history
    for turn, at in enumerate(picks):
        if turn and turn + 0.5 > along[-1]:
            break
        pick = _aside(history, space, len(history) + turn, seed)
        if pick is None or float(space.cost(*pick[0][:2])) > left or not _may_be_made(made, space, pick[0]):
            planned = _planned(made, space, candidates, counts, at)
            pick = None if planned is None else (planned, Purpose.PLAN)
        if pick is None:
            break
        left, runs = left - float(space.cost(*pick[0][:2])), runs - 1
        if left < 0 or runs < 0:
            break
        chosen.append(pick)
        made = _with_run(made, pick[0])
    return chosen


def _planned(made: RunHistory, space: DesignSpace, candidates: RunHistory, counts: Array, at: int) -> Run | None:
    """A candidate, or what counts most of those that may be made yet, where this one may not; None if none may."""
    run = _run(candidates, at)
    if _may_be_made(made, space, run):
        return run
    may = _repeats(made, candidates) < space.replicates
    return _run(candidates, int(np.argmax(np.where(may, counts, -1.0)))) if may.any() else None


def _may_be_made(made: RunHistory, space: DesignSpace, run: Run) -> bool:
    """Whether a run was made less often than it may be."""
    one = RunHistory(N=np.array([run[0]]), D=np.array([run[1]]), h=np.array([run[2]]) if run[2] else None)
    return int(_repeats(made, one)[0]) < space.replicates


def _with_run(made: RunHistory, run: Run) -> RunHistory:
    return made.with_runs(np.array([run[0]]), np.array([run[1]]), np.array([run[2]]) if run[2] else None)


def _aside(history: RunHistory, space: DesignSpace, number: int, seed: int) -> tuple[Run, Purpose] | None:
    """What run number so-and-so is for, where it isn't the plan's."""
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


def _explained(
    chosen: Sequence[tuple[Run, Purpose]], space: DesignSpace, problem: AllocationProblem, candidates: RunHistory,
    targets: Sequence[Target],
) -> list[Proposal]:  # fmt: skip
    """With the share by which each alone narrows the intervals: as the candidate nearest to it does."""
    before, pull = problem.variances(np.zeros(len(candidates)))
    noise = [np.einsum("np,pq,nq->n", one.b, np.linalg.inv(one.M), one.b) for one in problem.questions]
    spread = np.mean(noise, axis=0)
    proposals = []
    for (N, D, h), purpose in chosen:
        away = np.log(candidates.N / N) ** 2 + np.log(candidates.D / D) ** 2
        if candidates.h is not None:
            away = away + 10 * ((candidates.h - np.array(h)) ** 2).sum(1)
        at = int(np.argmin(away))
        after = np.maximum(before - pull[at] / (1 + spread[at]), 1e-12 * before)
        fall = {target.name: float(share) for target, share in zip(targets, 1 - np.sqrt(after / before), strict=True)}
        cost = float(space.cost(N, D))
        proposals.append(Proposal(N=N, D=D, h=h, cost=cost, purpose=purpose, fall=fall))
    return proposals


def _widest(problem: AllocationProblem, found: TargetEstimates, counts: Array) -> float:
    """The widest half width once the counts have run: today's intervals, narrowed as the plan says."""
    after, _ = problem.variances(counts)
    return float(((found.hi - found.lo) / 2 * np.sqrt(after / problem.now)).max())


def _to_halve(problem: AllocationProblem, found: TargetEstimates, cost: Array, *, left: float, runs: float) -> float:
    """FLOPs at which the widest half width is expected to be half of today's; infinite where no budget does."""
    goal = found.widest / 2
    spent, widths = [], []
    for factor in _LADDER:
        if factor * left < cost.min():
            continue
        counts = allocate_runs(problem, cost, left=factor * left, runs=max(1.0, factor * runs))
        spent.append(math.log(factor * left))
        widths.append(_widest(problem, found, counts))
        if widths[-1] <= goal:
            break
    if not widths or widths[-1] > goal:
        return math.inf
    if len(widths) == 1:
        return math.exp(spent[0])
    return math.exp(float(np.interp(-math.log(goal), -np.log(widths[-2:]), spent[-2:])))


def _warnings(known: dict[str, ModelAverage], space: DesignSpace) -> tuple[str, ...]:
    """What the runs say against the laws."""
    told, laws = [], [law_name(law) for law in candidate_laws(space)]
    mixed = "; a mix makes tokens count more or less" if space.n_mixes > 1 else ""
    for skill, one in known.items():
        best = one.beliefs[int(np.argmax(one.weights))]
        odd = int((best.trust < _TRUST).sum())
        if best.scale > ROUGH:
            told.append(
                f"{skill}: the runs lie off the sampler's {len(laws)} laws ({', '.join(laws)}{mixed}), by about "
                f"{best.scale:.1%} of the loss in a smooth way; optima far beyond them are less certain than the "
                "intervals of any one of these say, though another law may fit"
            )
        if odd:
            told.append(
                f"{skill}: {odd} of {len(best.trust)} runs count for less: they lie off what the others tell, in it or "
                "in all skills together; look at them"
            )
    return tuple(told)
