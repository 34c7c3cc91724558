"""The plan of one training run: N and D for a budget, what other sizes cost, and what the skills trade for another.

Two kinds of error are kept apart. What the run will do is told at the N that is planned, as it is given: losses, and
changes of losses between two sizes, paired by draw. What a size costs is told against the best there is in each draw,
wherever that lies: it is never below 0, and that of the planned N is what not knowing the best one costs.
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
from skillscale.laws.uncertainty.resamples import as_family, interval

ROUND = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)  # times powers of ten: sizes that people train
AROUND = 4.0  # factor about N* within which round sizes are priced
TOLERANCE = 0.01  # share of compute that is cheap enough to lose, by default
STEPS = 10  # of the weight of a skill, from none to all
_MIX_DRAWS = 0  # the frontier over mixes is told without intervals: each place is a search
_REACH = math.log(1e6)  # by which factor C may grow to make up for a size; beyond, none does
_HALVINGS = 34  # of that: to 1e-9
_GRID = 400


@dataclass(frozen=True, kw_only=True)
class SizeCost:
    """What a size costs at the budget.

    ``more``: its weighted loss above the least there is; ``compute``: by which share C must grow, all of it into tokens
    at this N, to reach that least loss (infinite where no number of tokens does); ``change``: its weighted loss less
    that of the planned N, which is below 0 where it does better.
    """

    N: float = field(metadata={"unit": "parameters"})
    D: float = field(metadata={"unit": "tokens"})
    excess: Interval = field(metadata={"unit": "nats per token"})
    compute: Interval = field(metadata={"unit": "share of C"})
    change: Interval = field(metadata={"unit": "nats per token"})
    requested: bool


@dataclass(frozen=True, kw_only=True)
class NearOptimalSizes:
    """Sizes that cost less than ``tolerance`` of C, between ``lo`` and ``hi``, by the law.

    ``sure_lo``, ``sure_hi``: those that do in as many draws as the level's upper end asks for, 95 % at a level of 90 %;
    NaN where no size does. ``chance``: the share of draws in which the planned N does.
    """

    tolerance: float
    lo: float
    hi: float
    confident_lo: float
    confident_hi: float
    chance: float


@dataclass(frozen=True, kw_only=True)
class TradeoffPoint:
    """The best N, and mix where that is free, when the skill has this weight; ``own`` and ``rest``: losses there.

    ``own_change``, ``rest_change``: those losses less the ones of the plan, in ln L.
    """

    weight: float
    N: Interval
    D: float
    mix: Mapping[str, float]
    skill_loss: float = field(metadata={"unit": "nats per token"})
    rest_loss: float = field(metadata={"unit": "nats per token, mean weighted as the plan has it"})
    skill_change: Interval = field(metadata={"unit": "ln L"})
    rest_change: Interval = field(metadata={"unit": "ln L"})


@dataclass(frozen=True, kw_only=True)
class TradeoffFrontier:
    """What a skill and the rest trade, from no weight on the skill to all of it; ``planned``: its weight in the plan.

    ``rest``: weights of the others among themselves. ``with_mix``: whether the mix moves along, or N alone.
    """

    skill: str
    rest: Mapping[str, float]
    planned: float
    with_mix: bool
    points: tuple[TradeoffPoint, ...]


@dataclass(frozen=True, kw_only=True)
class ValidationChoiceCost:
    """What one would have chosen by a validation set of another composition, and what that costs.

    ``effect``: at the plan's mix; ``optimum``: N, D there. ``best``: the mix, N and D it would have chosen where the
    mix is free, else None; ``best_change``: the wanted loss there less that of the plan's own best mix.
    """

    effect: ValidationMismatch
    optimum: Optimum
    best: Optimum | None
    best_change: Interval = field(metadata={"unit": "nats per token"})


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan for one budget.

    ``optimum``: N and D at the runs' mean mix, or the one that was given; ``losses``, ``loss``: of each skill and
    weighted, at the planned N; ``scatter``: sd of one run about the law, ln L; ``own``: the optimum of each skill by
    itself, ``size_gaps``: how far its N is from the planned one; ``best``: the best mix with its N and D,
    None where no law knows of mixes; ``best_losses``: at that N and mix.
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
    """What a plan is for.

    Args:
        weights: what each skill is worth, not negative; their sum is divided out.
        skills: those that frontiers and compositions are told over; aggregates have no part in these.
        validation: weights of a validation set that N would be chosen by; empty: none.
        h: the mix; None: the runs' mean.
        bounds: least and most share of a category in the best mix, which stays within what the runs had.
        sizes: N that are to be priced beside round ones.
        tolerance: share of C that is cheap enough to lose.
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
            raise InputError(f"a tolerance is a share of C between 0 and 1, as .01, but it is {self.tolerance}")


def plan(laws: Mapping[str, SkillLaw], C: float, wish: PlanRequest) -> Plan:
    """The plan for a budget of C, FLOP.

    Args:
        laws: the skills, fitted together, or read from one document.
        C: FLOP.
        wish: what it is for.

    Raises:
        InputError: as ``weighted_optimum`` and ``best_mix``.
    """
    weights = normalise(wish.weights, laws)
    wish = replace(wish, bounds=clip_bounds_to_runs(laws, wish.bounds))
    optimum = weighted_optimum(laws, C, weights, wish.h)
    shares = resolve_shares(laws, wish.h)
    ensemble = Ensemble.of(laws, weights, shares)
    best = best_mix(laws, C, weights, wish.bounds) if depends_on_mix(laws, weights) else None
    level, s = shared_level(laws), np.array([math.log(optimum.N.value)])
    losses = ensemble.losses(s, log_tokens_times_params(C), shares)
    return Plan(
        optimum=optimum, loss=_interval(ensemble.weights @ losses, level),
        losses={name: _interval(own, level) for name, own in zip(laws, losses, strict=True)},
        scatter={name: one.noise for name, one in laws.items()},
        skill_optima={name: weighted_optimum(laws, C, {name: 1.0}, wish.h) for name in laws},
        size_gaps=_residuals(laws, C, weights, wish.h),
        size_costs=size_costs(laws, C, wish, optimum), near_optimal=near_optimal_sizes(laws, C, wish, optimum),
        frontiers=tradeoff_frontiers(laws, C, wish, optimum, best),
        best=best, best_losses={} if best is None else _losses_at(laws, C, best),
        validation_cost=_misled(laws, C, wish, best) if wish.validation else None,
    )  # fmt: skip


def _residuals(
    laws: Mapping[str, SkillLaw], C: float, weights: Mapping[str, float], h: MixShares | None
) -> tuple[SizeGap, ...]:  # fmt: skip
    """Of every loss, with Holm's p over them; one that is all that counts is the plan's own, and none of them."""
    found = {name: size_gap(laws, C, name, weights, h) for name in laws}
    others = [name for name in laws if weights.get(name, 0.0) < 1]
    found |= dict(zip(others, as_family([found[name] for name in others]), strict=True))
    return tuple(found.values())


def clip_bounds_to_runs(
    laws: Mapping[str, SkillLaw], bounds: Mapping[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:  # fmt: skip
    """The bounds that were given, as far as runs had such shares, and of other categories the shares that runs had.

    A law tells little beyond, and some rise without end towards a share of 0. Bounds that no run is within stay as they
    are given; and all of them do where no mix is within both.
    """
    run = share_range(laws)
    if run is None:
        return dict(bounds)
    every = dict(bounds)
    for name, least, most in zip(shared_categories(laws), *run.tolist(), strict=True):
        low, high = bounds.get(name, (0.0, 1.0))
        both = max(low, least), min(high, most)
        every[name] = both if both[0] <= both[1] else (low, high)
    low, high = np.array(list(every.values())).T
    return every if low.sum() <= 1 <= high.sum() else dict(bounds)


def depends_on_mix(laws: Mapping[str, SkillLaw], weights: Mapping[str, float]) -> bool:
    """Whether the chosen law of a skill with weight knows of mixes."""
    return any(laws[name].law.needs_mix for name, weight in weights.items() if weight)


def round_sizes(N: float) -> list[float]:
    """Round sizes within a factor of 4 of N."""
    first, last = math.log10(N / AROUND), math.log10(N * AROUND)
    powers = range(math.floor(first), math.ceil(last) + 1)
    every = [digit * 10.0**power for power in powers for digit in ROUND]
    return [size for size in every if N / AROUND <= size <= N * AROUND]


def size_costs(laws: Mapping[str, SkillLaw], C: float, wish: PlanRequest, optimum: Optimum) -> tuple[SizeCost, ...]:
    """What round sizes about N* cost, N* itself, and the sizes that were asked for; smallest first.

    Args:
        laws: the skills.
        C: FLOP.
        wish: with the weights, the mix and the sizes asked for.
        optimum: of these weights at this mix.
    """
    planned, known = optimum.N.value, math.isfinite(optimum.N.value)
    sizes = {float(size) for size in wish.sizes} | ({*round_sizes(planned), planned} if known else set())
    t, shares, level = log_tokens_times_params(C), resolve_shares(laws, wish.h), shared_level(laws)
    ensemble = Ensemble.of(laws, optimum.weights, shares)
    best = np.r_[math.log(planned), optimum.draws]
    least = ensemble.at(best, t, shares)
    reference = _at(ensemble, math.log(planned), t, shares)
    return tuple(
        _price(ensemble, size, t, shares, least, reference, level, requested=size in wish.sizes)
        for size in sorted(sizes)
    )


def _price(
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
    had = _at(ensemble, math.log(N), t, h)
    log_more = ensemble.each(lambda part, least: _more_tokens(part, math.log(N), t, h, least), least)
    D = math.exp(t) / N
    return SizeCost(
        N=N, D=D, requested=requested, excess=_interval(np.maximum(had - least, 0.0), level),
        compute=_open_interval(np.expm1(log_more), level), change=_interval(had - reference, level),
    )  # fmt: skip


def _more_tokens(part: WeightedLoss, s: float, t: float, h: Array | None, least: Array) -> Array:
    """Ln(C' / C) at which ln N = s reaches the loss ``least`` (K,) by more tokens; infinite where it never does."""
    low, high = np.zeros(len(part)), np.full(len(part), _REACH)
    size = np.full((1, 1), s)
    mix = None if h is None else h[:, None, :]

    def above(more: Array) -> Array:
        value = np.broadcast_to(part.loss(size, t + more[:, None], mix).value[:, 0], (len(part),))
        return np.asarray(value > least)

    never = above(high)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        short = above(middle)
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return np.where(np.isfinite(least), np.where(never, np.inf, high), np.nan)


def near_optimal_sizes(laws: Mapping[str, SkillLaw], C: float, wish: PlanRequest, optimum: Optimum) -> NearOptimalSizes:
    """The sizes that cost less than the tolerance: those that reach the least loss with so much more compute.

    Args:
        laws: the skills.
        C: FLOP.
        wish: with the weights, the mix and the tolerance.
        optimum: of these weights at this mix.
    """
    t, shares, level = log_tokens_times_params(C), resolve_shares(laws, wish.h), shared_level(laws)
    ensemble = Ensemble.of(laws, optimum.weights, shares)
    best = np.r_[math.log(optimum.N.value), optimum.draws]
    least = ensemble.at(best, t, shares)
    more = t + math.log1p(wish.tolerance)
    lo, hi = (
        ensemble.each(lambda part, s, least, end=end: _edge(part, s, more, shares, least, end), best, least)
        for end in (-1.0, 1.0)
    )
    tail = (1 + level) / 2
    sure_lo, sure_hi = _sure(lo[1:], hi[1:], tail)
    planned = best[0]
    within = (lo[1:] <= planned) & (planned <= hi[1:])
    return NearOptimalSizes(
        tolerance=wish.tolerance, lo=math.exp(lo[0]), hi=math.exp(hi[0]), confident_lo=math.exp(sure_lo),
        confident_hi=math.exp(sure_hi), chance=float(within.mean()) if len(within) else math.nan,
    )  # fmt: skip


def _edge(part: WeightedLoss, s: Array, t: float, h: Array | None, least: Array, side: float) -> Array:
    """Ln N on one side of s (K,) at which the loss at t rises to ``least`` (K,)."""
    inside, outside = s, s + side * _REACH
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        within = part.at(middle, t, h) <= least
        inside, outside = np.where(within, middle, inside), np.where(within, outside, middle)
    return np.where(np.isfinite(s), inside, np.nan)


def _sure(lo: Array, hi: Array, share: float) -> tuple[float, float]:
    """Ends of the places that lie within (lo, hi) in at least this share of the draws; NaN where none does."""
    known = np.isfinite(lo)
    if not known.any():
        return math.nan, math.nan
    places = np.linspace(np.min(lo[known]), np.max(hi[known]), _GRID)
    inside = np.array([np.mean((lo <= place) & (place <= hi)) for place in places]) >= share
    return (float(places[inside][0]), float(places[inside][-1])) if inside.any() else (math.nan, math.nan)


def tradeoff_frontiers(
    laws: Mapping[str, SkillLaw], C: float, wish: PlanRequest, optimum: Optimum, best: Optimum | None
) -> tuple[TradeoffFrontier, ...]:
    """What each skill and the rest trade; of two skills once, for it is the same seen from both.

    Args:
        laws: the skills.
        C: FLOP.
        wish: with the weights, the skills and the mix.
        optimum: of these weights at this mix.
        best: the best mix, where the laws know of mixes: frontiers then are told with it too.
    """
    names = [name for name in wish.skills if name in laws]
    if len(names) < 2:
        return ()
    told = names[:1] if len(names) == 2 else names
    return tuple(
        _frontier(laws, C, wish, name, names, one)
        for one in (optimum, best)
        if one is not None and math.isfinite(one.N.value)
        for name in told
    )


def _frontier(
    laws: Mapping[str, SkillLaw], C: float, wish: PlanRequest, skill: str, names: Sequence[str], planned: Optimum
) -> TradeoffFrontier:
    with_mix = planned.starts is not None
    others = {name: planned.weights.get(name, 0.0) for name in names if name != skill}
    rest = normalise(others if any(others.values()) else dict.fromkeys(others, 1.0), laws)
    have = planned.weights.get(skill, 0.0)
    reference = _two(laws, C, planned, skill, rest, wish.h)
    steps = []
    for weight in sorted({*np.linspace(0, 1, STEPS + 1).round(6).tolist()}):
        weights = {skill: weight} | {name: (1 - weight) * part for name, part in rest.items()}
        one = (
            best_mix(laws, C, weights, wish.bounds, draws=_MIX_DRAWS)
            if with_mix
            else weighted_optimum(laws, C, weights, wish.h)
        )
        if math.isfinite(one.N.value):
            steps.append(_step(weight, one, _two(laws, C, one, skill, rest, wish.h), reference, shared_level(laws)))
    return TradeoffFrontier(skill=skill, rest=rest, planned=have, with_mix=with_mix, points=tuple(steps))


def _two(
    laws: Mapping[str, SkillLaw], C: float, one: Optimum, skill: str, rest: Mapping[str, float], h: MixShares | None
) -> tuple[Array, Array]:
    """Ln of the skill's loss and of the rest's at the N, and mix, of an optimum, each (K,)."""
    shares = resolve_shares(laws, {k: share.value for k, share in one.mix.items()} if one.starts is not None else h)
    ensemble = Ensemble.of(laws, rest, shares)
    losses = ensemble.losses(np.array([math.log(one.N.value)]), log_tokens_times_params(C), shares)
    return np.log(losses[list(laws).index(skill)]), np.log(ensemble.weights @ losses)


def _step(
    weight: float, one: Optimum, two: tuple[Array, Array], reference: tuple[Array, Array], level: float
) -> TradeoffPoint:  # fmt: skip
    return TradeoffPoint(
        weight=weight, N=one.N, D=one.D.value, mix={name: share.value for name, share in one.mix.items()},
        skill_loss=math.exp(two[0][0]), rest_loss=math.exp(two[1][0]),
        skill_change=_interval(two[0] - reference[0], level), rest_change=_interval(two[1] - reference[1], level),
    )  # fmt: skip


def _misled(laws: Mapping[str, SkillLaw], C: float, wish: PlanRequest, best: Optimum | None) -> ValidationChoiceCost:
    used = normalise(wish.validation, laws)
    there = None
    change = Interval()
    if best is not None and depends_on_mix(laws, used):
        there = best_mix(laws, C, used, wish.bounds)
        change = _interval(_wanted(laws, C, best, there) - _wanted(laws, C, best, best), shared_level(laws))
    return ValidationChoiceCost(
        effect=validation_effect(laws, C, wish.weights, used, wish.h, among=wish.skills),
        optimum=weighted_optimum(laws, C, used, wish.h), best=there, best_change=change,
    )  # fmt: skip


def _wanted(laws: Mapping[str, SkillLaw], C: float, wanted: Optimum, there: Optimum) -> Array:
    """The wanted loss at the N and mix of an optimum, (K,)."""
    shares = resolve_shares(laws, {k: share.value for k, share in there.mix.items()})
    return _at(Ensemble.of(laws, wanted.weights, shares), math.log(there.N.value), log_tokens_times_params(C), shares)


def _losses_at(laws: Mapping[str, SkillLaw], C: float, one: Optimum) -> dict[str, Interval]:
    shares = resolve_shares(laws, {k: share.value for k, share in one.mix.items()})
    ensemble = Ensemble.of(laws, one.weights, shares)
    losses = ensemble.losses(np.array([math.log(one.N.value)]), log_tokens_times_params(C), shares)
    return {name: _interval(own, shared_level(laws)) for name, own in zip(laws, losses, strict=True)}


def _at(ensemble: Ensemble, s: float, t: float, h: Array | None) -> Array:
    return ensemble.at(np.array([s]), t, h)


def _interval(rows: Array, level: float) -> Interval:
    """Of rows whose first is the estimate."""
    return interval(float(rows[0]), rows[1:], level)


def _open_interval(rows: Array, level: float) -> Interval:
    """The same where values may be infinite: ends are values of draws, none between two of them."""
    drawn = rows[1:][~np.isnan(rows[1:])]
    if math.isnan(rows[0]) or not len(drawn) or len(drawn) < 0.99 * (len(rows) - 1):
        return Interval(value=float(rows[0]))
    lo, hi = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return Interval(value=float(rows[0]), lo=float(lo), hi=float(hi))
