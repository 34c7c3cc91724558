"""Plan one training run: N and D for a budget, the cost of other sizes, and the trade-offs between skills.

Fitted laws, a budget and a ``PlanRequest`` go in, and a ``Plan`` comes out. Two kinds of numbers are kept apart. Losses
are those at the planned N, and changes of losses between two sizes are paired by draw. Costs of a size compare it with
the true optimum in each draw, so they are never below 0. The cost of the planned N is that of the uncertainty in N*.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from skillscale.errors import InputError
from skillscale.laws.forms.nd import Array
from skillscale.laws.optimum.ensemble import Ensemble, MixShares, SkillLaw, resolve_shares, shared_categories
from skillscale.laws.optimum.optimum import (
    Optimum,
    ValidationMismatch,
    best_mix,
    log_tokens_times_params,
    normalise,
    share_range,
    shared_level,
    size_gap,
    validation_effect,
    weighted_optimum,
)
from skillscale.laws.optimum.weighted_loss import WeightedLoss
from skillscale.laws.results import Interval, SizeGap
from skillscale.laws.uncertainty.resamples import interval, with_holm_p

ROUND = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)  # times powers of ten: usual sizes of models
AROUND = 4.0  # factor about N* within which round sizes get a cost
TOLERANCE = 0.01  # default fraction of compute that a near-optimal size may lose
STEPS = 10  # steps of a skill's weight from 0 to 1
_MIX_DRAWS = 0  # the frontier over mixes has no intervals, because every point is a search
_REACH = math.log(1e6)  # largest ln growth of C that may make up for a size
_HALVINGS = 34  # of _REACH: to 1e-9
_GRID = 400


@dataclass(frozen=True, kw_only=True)
class SizeCost:
    """The cost of a size at the budget.

    ``excess``: its weighted loss above the least one. ``compute``: fraction by which C must grow, all of it for tokens
    at this N, to reach that least loss (infinite where no number of tokens does). ``change``: its weighted loss less
    that of the planned N, below 0 where it is better. ``requested``: whether the request lists this size.
    """

    N: float = field(metadata={"unit": "parameters"})
    D: float = field(metadata={"unit": "tokens"})
    excess: Interval = field(metadata={"unit": "nats per token"})
    compute: Interval = field(metadata={"unit": "share of C"})
    change: Interval = field(metadata={"unit": "nats per token"})
    requested: bool


@dataclass(frozen=True, kw_only=True)
class NearOptimalSizes:
    """The sizes that cost less than ``tolerance`` of C by the law, between ``lo`` and ``hi``.

    ``confident_lo``, ``confident_hi``: sizes that do so in the fraction of draws at the upper tail of the level, 95 %
    for a level of 90 %. NaN where no size does. ``chance``: fraction of draws in which the planned N does.
    """

    tolerance: float
    lo: float
    hi: float
    confident_lo: float
    confident_hi: float
    chance: float


@dataclass(frozen=True, kw_only=True)
class TradeoffPoint:
    """The best N, and mix where that is free, for one weight of the skill.

    ``skill_loss``, ``rest_loss``: losses of the skill and of the others there. ``skill_change``, ``rest_change``: those
    losses less the ones of the plan, in ln L.
    """

    weight: float
    N: Interval
    D: float
    mix: Mapping[str, float]
    skill_loss: float = field(metadata={"unit": "nats per token"})
    rest_loss: float = field(metadata={"unit": "nats per token, mean with the plan's weights"})
    skill_change: Interval = field(metadata={"unit": "ln L"})
    rest_change: Interval = field(metadata={"unit": "ln L"})


@dataclass(frozen=True, kw_only=True)
class TradeoffFrontier:
    """The trade-off between a skill and the others, from weight 0 to 1. ``planned``: its weight in the plan.

    ``rest``: weights of the others, with sum 1. ``with_mix``: whether the mix is optimised too, or N alone.
    """

    skill: str
    rest: Mapping[str, float]
    planned: float
    with_mix: bool
    points: tuple[TradeoffPoint, ...]


@dataclass(frozen=True, kw_only=True)
class ValidationChoiceCost:
    """The choice by a validation set of another composition, and its cost.

    ``effect``: at the plan's mix. ``optimum``: the N and D chosen there. ``best``: the mix, N and D chosen where the
    mix is free, else None. ``best_change``: target loss there less that of the plan's best mix.
    """

    effect: ValidationMismatch
    optimum: Optimum
    best: Optimum | None
    best_change: Interval = field(metadata={"unit": "nats per token"})


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan for one budget.

    ``optimum``: N and D at the given mix, or at the runs' mean mix. ``losses``, ``loss``: of each skill and weighted,
    at the planned N. ``scatter``: sd of one run about the law, ln L. ``skill_optima``: the optimum of each skill alone,
    and ``size_gaps`` from the planned N to its N. ``best``: the best mix with its N and D, None where no law depends on
    the mix. ``best_losses``: at that N and mix.
    """

    optimum: Optimum
    loss: Interval
    losses: Mapping[str, Interval]
    scatter: Mapping[str, float]
    skill_optima: Mapping[str, Optimum]
    size_gaps: tuple[SizeGap, ...]
    size_costs: tuple[SizeCost, ...]
    near_optimal: NearOptimalSizes
    frontiers: tuple[TradeoffFrontier, ...]
    best: Optimum | None
    best_losses: Mapping[str, Interval]
    validation_cost: ValidationChoiceCost | None


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """The settings of a plan.

    Args:
        weights: weights of the skills, not negative. They are divided by their sum.
        skills: skills for frontiers and compositions, without aggregates.
        validation: weights of a validation set to compare with. Empty: none.
        h: mix. None: the runs' mean.
        bounds: least and largest share by category in the best mix, which stays within the shares of the runs.
        sizes: sizes N to get a cost in addition to round ones.
        tolerance: fraction of C that a near-optimal size may lose.
    """

    weights: Mapping[str, float]
    skills: Sequence[str]
    validation: Mapping[str, float] = field(default_factory=dict)
    h: MixShares | None = None
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    sizes: Sequence[float] = ()
    tolerance: float = TOLERANCE

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < 1:
            raise InputError(f"tolerance must be between 0 and 1: {self.tolerance}. Give a share of C, such as 0.01.")


def plan(laws: Mapping[str, SkillLaw], C: float, request: PlanRequest) -> Plan:
    """Plan a run for a budget of C, FLOP.

    Args:
        laws: laws by skill, fitted together, or read from one document.
        C: budget, FLOP.
        request: settings of the plan.

    Raises:
        InputError: as ``weighted_optimum`` and ``best_mix``.
    """
    weights = normalise(request.weights, laws)
    request = replace(request, bounds=clip_bounds_to_runs(laws, request.bounds))
    optimum, loss, losses = planned_optimum(laws, C, request)
    best = best_mix(laws, C, weights, request.bounds) if depends_on_mix(laws, weights) else None
    return Plan(
        optimum=optimum, loss=loss, losses=losses,
        scatter={name: skill_law.noise for name, skill_law in laws.items()},
        skill_optima={name: weighted_optimum(laws, C, {name: 1.0}, request.h) for name in laws},
        size_gaps=_size_gaps(laws, C, weights, request.h),
        size_costs=size_costs(laws, C, request, optimum), near_optimal=near_optimal_sizes(laws, C, request, optimum),
        frontiers=tradeoff_frontiers(laws, C, request, optimum, best),
        best=best, best_losses={} if best is None else _losses_at(laws, C, best),
        validation_cost=_validation_cost(laws, C, request, best) if request.validation else None,
    )  # fmt: skip


def planned_optimum(
    laws: Mapping[str, SkillLaw], C: float, request: PlanRequest
) -> tuple[Optimum, Interval, dict[str, Interval]]:  # fmt: skip
    """Return the optimum of a plan, the weighted loss at its N, and the loss of each skill there.

    Args:
        laws: laws by skill.
        C: budget, FLOP.
        request: settings of the plan.

    Raises:
        InputError: as ``weighted_optimum``.
    """
    weights = normalise(request.weights, laws)
    optimum, shares = weighted_optimum(laws, C, weights, request.h), resolve_shares(laws, request.h)
    s = np.array([math.log(optimum.N.value)])
    ensemble, level = Ensemble.of(laws, weights, shares), shared_level(laws)
    losses = ensemble.losses(s, log_tokens_times_params(C), shares)
    by_skill = {name: _interval(rows, level) for name, rows in zip(laws, losses, strict=True)}
    return optimum, _interval(ensemble.weights @ losses, level), by_skill


def _size_gaps(
    laws: Mapping[str, SkillLaw], C: float, weights: Mapping[str, float], h: MixShares | None
) -> tuple[SizeGap, ...]:  # fmt: skip
    """Return the size gap of every loss, with Holm's p over them. A loss with weight 1 is the plan's: not counted."""
    size_gaps = {name: size_gap(laws, C, name, weights, h) for name in laws}
    others = [name for name in laws if weights.get(name, 0.0) < 1]
    size_gaps |= dict(zip(others, with_holm_p([size_gaps[name] for name in others]), strict=True))
    return tuple(size_gaps.values())


def clip_bounds_to_runs(
    laws: Mapping[str, SkillLaw], bounds: Mapping[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:  # fmt: skip
    """Clip bounds to the shares of the runs. Categories without bounds get the range of the runs.

    A law says little beyond the runs, and some laws diverge towards a share of 0. Bounds outside all runs stay as
    given. All bounds stay as given where no mix is within the clipped ones.
    """
    run_range = share_range(laws)
    if run_range is None:
        return dict(bounds)
    clipped = dict(bounds)
    for name, least, most in zip(shared_categories(laws), *run_range.tolist(), strict=True):
        low, high = bounds.get(name, (0.0, 1.0))
        common = max(low, least), min(high, most)
        clipped[name] = common if common[0] <= common[1] else (low, high)
    low, high = np.array(list(clipped.values())).T
    return clipped if low.sum() <= 1 <= high.sum() else dict(bounds)


def depends_on_mix(laws: Mapping[str, SkillLaw], weights: Mapping[str, float]) -> bool:
    """Return whether the chosen law of a skill with weight depends on the mix."""
    return any(laws[name].law.needs_mix for name, weight in weights.items() if weight)


def round_sizes(N: float) -> list[float]:
    """List the round sizes within a factor of 4 of N."""
    first, last = math.log10(N / AROUND), math.log10(N * AROUND)
    powers = range(math.floor(first), math.ceil(last) + 1)
    sizes = [digit * 10.0**power for power in powers for digit in ROUND]
    return [size for size in sizes if N / AROUND <= size <= N * AROUND]


def size_costs(laws: Mapping[str, SkillLaw], C: float, request: PlanRequest, optimum: Optimum) -> tuple[SizeCost, ...]:
    """Return the costs of round sizes about N*, of N* and of the requested sizes, smallest first.

    Args:
        laws: laws by skill.
        C: budget, FLOP.
        request: request with the mix and the sizes.
        optimum: optimum of its weights at its mix.
    """
    planned, is_finite = optimum.N.value, math.isfinite(optimum.N.value)
    sizes = {float(size) for size in request.sizes} | ({*round_sizes(planned), planned} if is_finite else set())
    t, shares, level = log_tokens_times_params(C), resolve_shares(laws, request.h), shared_level(laws)
    ensemble = Ensemble.of(laws, optimum.weights, shares)
    best = np.r_[math.log(planned), optimum.draws]
    least = ensemble.at(best, t, shares)
    reference = _at(ensemble, math.log(planned), t, shares)
    return tuple(
        _size_cost(ensemble, size, t, shares, least, reference, level, requested=size in request.sizes)
        for size in sorted(sizes)
    )


def _size_cost(
    ensemble: Ensemble,
    N: float,
    t: float,
    h: Array | None,
    least: Array,
    reference: Array,
    level: float,
    *,
    requested: bool,
) -> SizeCost:
    loss_at_N = _at(ensemble, math.log(N), t, h)
    log_growth = ensemble.map_parts(lambda part, least: _more_tokens(part, math.log(N), t, h, least), least)
    D = math.exp(t) / N
    return SizeCost(
        N=N, D=D, requested=requested, excess=_interval(np.maximum(loss_at_N - least, 0.0), level),
        compute=_open_interval(np.expm1(log_growth), level), change=_interval(loss_at_N - reference, level),
    )  # fmt: skip


def _more_tokens(part: WeightedLoss, s: float, t: float, h: Array | None, least: Array) -> Array:
    """Return ln(C' / C) at which ln N = s reaches the loss ``least`` (K,) by more tokens, or infinity."""
    low, high = np.zeros(len(part)), np.full(len(part), _REACH)
    size = np.full((1, 1), s)
    mix = None if h is None else h[:, None, :]

    def above(log_more: Array) -> Array:
        value = np.broadcast_to(part.loss(size, t + log_more[:, None], mix).value[:, 0], (len(part),))
        return np.asarray(value > least)

    never = above(high)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        short = above(middle)
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return np.where(np.isfinite(least), np.where(never, np.inf, high), np.nan)


def near_optimal_sizes(
    laws: Mapping[str, SkillLaw], C: float, request: PlanRequest, optimum: Optimum
) -> NearOptimalSizes:
    """Return the sizes that reach the least loss if C grows by the tolerance.

    Args:
        laws: laws by skill.
        C: budget, FLOP.
        request: request with the mix and the tolerance.
        optimum: optimum of its weights at its mix.
    """
    t, shares, level = log_tokens_times_params(C), resolve_shares(laws, request.h), shared_level(laws)
    ensemble = Ensemble.of(laws, optimum.weights, shares)
    best = np.r_[math.log(optimum.N.value), optimum.draws]
    least = ensemble.at(best, t, shares)
    enlarged = t + math.log1p(request.tolerance)

    def edge(side: float) -> Array:
        return ensemble.map_parts(
            lambda part, s, least: _tolerance_edge(part, s, enlarged, shares, least, side), best, least
        )

    lo, hi = edge(-1.0), edge(1.0)
    tail = (1 + level) / 2
    confident_lo, confident_hi = _confident_range(lo[1:], hi[1:], tail)
    planned = best[0]
    covered = (lo[1:] <= planned) & (planned <= hi[1:])
    return NearOptimalSizes(
        tolerance=request.tolerance, lo=math.exp(lo[0]), hi=math.exp(hi[0]), confident_lo=math.exp(confident_lo),
        confident_hi=math.exp(confident_hi), chance=float(covered.mean()) if len(covered) else math.nan,
    )  # fmt: skip


def _tolerance_edge(part: WeightedLoss, s: Array, t: float, h: Array | None, least: Array, side: float) -> Array:
    """Return ln N on one side of s (K,) at which the loss at t rises to ``least`` (K,)."""
    inside, outside = s, s + side * _REACH
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        within = part.at(middle, t, h) <= least
        inside, outside = np.where(within, middle, inside), np.where(within, outside, middle)
    return np.where(np.isfinite(s), inside, np.nan)


def _confident_range(lo: Array, hi: Array, share: float) -> tuple[float, float]:
    """Return the ends of the points within (lo, hi) in at least this fraction of the draws, or NaN without any."""
    finite = np.isfinite(lo)
    if not finite.any():
        return math.nan, math.nan
    points = np.linspace(np.min(lo[finite]), np.max(hi[finite]), _GRID)
    covered = np.array([np.mean((lo <= place) & (place <= hi)) for place in points]) >= share
    return (float(points[covered][0]), float(points[covered][-1])) if covered.any() else (math.nan, math.nan)


def tradeoff_frontiers(
    laws: Mapping[str, SkillLaw], C: float, request: PlanRequest, optimum: Optimum, best: Optimum | None
) -> tuple[TradeoffFrontier, ...]:
    """Return the frontier of each skill with the others. Two skills have one frontier, because theirs are the same.

    Args:
        laws: laws by skill.
        C: budget, FLOP.
        request: request with the skills and the mix.
        optimum: optimum of its weights at its mix.
        best: best mix, where the laws depend on the mix. Each skill then has a second frontier, with free mix.
    """
    names = [name for name in request.skills if name in laws]
    if len(names) < 2:
        return ()
    frontier_skills = names[:1] if len(names) == 2 else names
    return tuple(
        _frontier(laws, C, request, name, names, start)
        for start in (optimum, best)
        if start is not None and math.isfinite(start.N.value)
        for name in frontier_skills
    )


def _frontier(
    laws: Mapping[str, SkillLaw], C: float, request: PlanRequest, skill: str, names: Sequence[str], planned: Optimum
) -> TradeoffFrontier:
    with_mix = planned.starts is not None
    others = {name: planned.weights.get(name, 0.0) for name in names if name != skill}
    rest = normalise(others if any(others.values()) else dict.fromkeys(others, 1.0), laws)
    planned_weight = planned.weights.get(skill, 0.0)
    reference = _two_losses(laws, C, planned, skill, rest, request.h)
    points = []
    for weight in sorted({*np.linspace(0, 1, STEPS + 1).round(6).tolist()}):
        weights = {skill: weight} | {name: (1 - weight) * part for name, part in rest.items()}
        optimum = (
            best_mix(laws, C, weights, request.bounds, draws=_MIX_DRAWS)
            if with_mix
            else weighted_optimum(laws, C, weights, request.h)
        )
        if math.isfinite(optimum.N.value):
            log_losses = _two_losses(laws, C, optimum, skill, rest, request.h)
            points.append(_tradeoff_point(weight, optimum, log_losses, reference, shared_level(laws)))
    return TradeoffFrontier(skill=skill, rest=rest, planned=planned_weight, with_mix=with_mix, points=tuple(points))


def _two_losses(
    laws: Mapping[str, SkillLaw], C: float, optimum: Optimum, skill: str, rest: Mapping[str, float], h: MixShares | None
) -> tuple[Array, Array]:
    """Return ln of the skill's loss and of the others' at the N and mix of an optimum, each (K,)."""
    with_mix = optimum.starts is not None
    shares = resolve_shares(laws, {k: share.value for k, share in optimum.mix.items()} if with_mix else h)
    ensemble = Ensemble.of(laws, rest, shares)
    losses = ensemble.losses(np.array([math.log(optimum.N.value)]), log_tokens_times_params(C), shares)
    return np.log(losses[list(laws).index(skill)]), np.log(ensemble.weights @ losses)


def _tradeoff_point(
    weight: float, optimum: Optimum, log_losses: tuple[Array, Array], reference: tuple[Array, Array], level: float
) -> TradeoffPoint:  # fmt: skip
    return TradeoffPoint(
        weight=weight, N=optimum.N, D=optimum.D.value, mix={name: share.value for name, share in optimum.mix.items()},
        skill_loss=math.exp(log_losses[0][0]), rest_loss=math.exp(log_losses[1][0]),
        skill_change=_interval(log_losses[0] - reference[0], level),
        rest_change=_interval(log_losses[1] - reference[1], level),
    )  # fmt: skip


def _validation_cost(
    laws: Mapping[str, SkillLaw], C: float, request: PlanRequest, best: Optimum | None
) -> ValidationChoiceCost:
    used = normalise(request.validation, laws)
    chosen = None
    change = Interval()
    if best is not None and depends_on_mix(laws, used):
        chosen = best_mix(laws, C, used, request.bounds)
        change = _interval(_target_loss(laws, C, best, chosen) - _target_loss(laws, C, best, best), shared_level(laws))
    return ValidationChoiceCost(
        effect=validation_effect(laws, C, request.weights, used, request.h, skills=request.skills),
        optimum=weighted_optimum(laws, C, used, request.h), best=chosen, best_change=change,
    )  # fmt: skip


def _target_loss(laws: Mapping[str, SkillLaw], C: float, target: Optimum, optimum: Optimum) -> Array:
    """Return the loss with the weights of ``target`` at the N and mix of ``optimum``, (K,)."""
    shares = resolve_shares(laws, {k: share.value for k, share in optimum.mix.items()})
    return _at(Ensemble.of(laws, target.weights, shares), math.log(optimum.N.value), log_tokens_times_params(C), shares)


def _losses_at(laws: Mapping[str, SkillLaw], C: float, optimum: Optimum) -> dict[str, Interval]:
    shares = resolve_shares(laws, {k: share.value for k, share in optimum.mix.items()})
    ensemble = Ensemble.of(laws, optimum.weights, shares)
    losses = ensemble.losses(np.array([math.log(optimum.N.value)]), log_tokens_times_params(C), shares)
    return {name: _interval(rows, shared_level(laws)) for name, rows in zip(laws, losses, strict=True)}


def _at(ensemble: Ensemble, s: float, t: float, h: Array | None) -> Array:
    return ensemble.at(np.array([s]), t, h)


def _interval(rows: Array, level: float) -> Interval:
    """Return the interval of rows whose first is the estimate."""
    return interval(float(rows[0]), rows[1:], level)


def _open_interval(rows: Array, level: float) -> Interval:
    """Return the same where values may be infinite. The ends are values of draws, without interpolation."""
    drawn = rows[1:][~np.isnan(rows[1:])]
    if math.isnan(rows[0]) or not len(drawn) or len(drawn) < 0.99 * (len(rows) - 1):
        return Interval(value=float(rows[0]))
    lo, hi = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return Interval(value=float(rows[0]), lo=float(lo), hi=float(hi))
