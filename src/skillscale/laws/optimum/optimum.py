"""The best N, D and mix for a budget and for what each skill is worth, with intervals, and what a wrong choice costs.

C = 6 N D with N in the convention that the runs were fitted in: a table that counts N in two ways is fitted once a
convention, and each fit has its own budget line.

Intervals are of draws, of which row k belongs to one resample in every skill: they own that errors of skills on the
same runs go together, if the skills were fitted with ``fit_together``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from skillscale.errors import FitError, InputError
from skillscale.laws.fit.fit import start_agreement
from skillscale.laws.forms.autodiff import leaves
from skillscale.laws.forms.nd import Array
from skillscale.laws.optimum.ensemble import (
    Ensemble,
    MixShares,
    SkillLaw,
    require_known,
    resolve_shares,
    shared_categories,
)
from skillscale.laws.optimum.mix_search import MixSearch
from skillscale.laws.optimum.weighted_loss import Rows, WeightedLoss, of_jet
from skillscale.laws.results import Interval, MultiStart, SizeGap, Status, Verdict
from skillscale.laws.uncertainty.resamples import interval, two_sided_p

_SUM = 1e-6
_BEYOND = 1.01  # a budget or a size further out than this, as a factor, is beyond the runs
_SETTLED = 1e-10
_ROUNDS = 30


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """The best N and D = C / 6 N for the weighted loss, and the best mix where that was asked for too.

    ``mix``: shares by category, intervals without bounds where they were given; ``weights`` sum to 1; ``losses``: of
    every skill that was fitted; ``starts``: of the search over mixes, None where there was none; ``draws``: ln N of
    the draws (NaN where one has no optimum). ``reason`` says what is to be known even where the status is ok.
    """

    C: float = field(metadata={"unit": "FLOP"})
    weights: Mapping[str, float]
    N: Interval = field(metadata={"unit": "parameters"})
    D: Interval = field(metadata={"unit": "tokens"})
    loss: Interval = field(metadata={"unit": "nats per token, weighted mean"})
    losses: Mapping[str, Interval]
    mix: Mapping[str, Interval]
    status: Status
    reason: str
    extrapolation: float = field(metadata={"unit": "C / largest 6 N D fitted"})
    starts: MultiStart | None = None
    draws: Array = field(repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class ValidationMismatch:
    """What choosing N by a validation set of another composition does.

    ``shift``: ln N*(used) - ln N*(wanted); ``cost``: the wanted loss at N*(used) less the least one; ``compute``: by
    which share C must grow for N*(used) to reach that least loss. ``largest``: the largest |N*(w) - N*(w')| / N*(w')
    over all compositions of the fitted skills: between ``extremes``, the single skills of the smallest and the largest
    N*. A draw's cost is never below 0, so its interval lies above 0 even for a shift that is not told from 0.
    """

    C: float
    target: Mapping[str, float]
    used: Mapping[str, float]
    shift: Interval
    cost: Interval = field(metadata={"unit": "nats per token"})
    compute: Interval
    largest: Interval
    extremes: tuple[str, str]
    status: Status
    reason: str


@dataclass(frozen=True, kw_only=True)
class OptimumSummary:
    """What is best at one compute for skills of a given worth.

    ``optimum``: at the runs' mean mix; ``size_gaps``: of each skill's N* against it; ``equal``: what choosing N by
    equal weights of all skills does instead, None where there is one skill; ``best``: the mix, N and D that are best at
    once, None where no law knows of a mix.
    """

    optimum: Optimum
    size_gaps: tuple[SizeGap, ...]
    equal: ValidationMismatch | None
    best: Optimum | None


def weighted_optimum(
    fitted: Mapping[str, SkillLaw], C: float, weights: Mapping[str, float], h: MixShares | None = None
) -> Optimum:
    """N that minimises sum_s w_s L_s(N, C / 6 N, h), with its interval.

    Args:
        fitted: the skills, fitted together.
        C: FLOP.
        weights: what each skill is worth, not negative; their sum is divided out.
        h: the mix, where a law asks for one; by default the runs' mean mix.

    Raises:
        InputError: an unknown skill or category, weights or shares out of range, or draws that don't belong together.
    """
    own = normalise(weights, fitted)
    t, shares = log_tokens_times_params(C), resolve_shares(fitted, h)
    laws = Ensemble.of(fitted, own, shares)
    s = laws.log_optimum(t, shares)
    mix = (
        {}
        if shares is None
        else {k: Interval(value=float(x)) for k, x in zip(shared_categories(fitted), shares[0], strict=True)}
    )
    status, reason = Status.OK, ""
    if not math.isfinite(s[0]):
        status, reason = Status.NO_MINIMUM, _at_the_end(laws.estimate, t, shares)
    return _optimum(fitted, laws, own, C, s, shares, mix=mix, status=status, reason=reason)


def size_gap(
    fitted: Mapping[str, SkillLaw], C: float, skill: str, aggregate: Mapping[str, float], h: MixShares | None = None
) -> SizeGap:
    """Ln N*(skill) - ln N*(aggregate) at a budget, with a verdict where the interval excludes 0.

    Args:
        fitted: the skills, fitted together.
        C: FLOP.
        skill: one of them.
        aggregate: weights of the skills that it is compared with; the skill may be among them.
        h: the mix, where a law asks for one; by default the runs' mean mix.

    Raises:
        InputError: as ``weighted_optimum``.
    """
    one, common = (weighted_optimum(fitted, C, weights, h) for weights in ({skill: 1.0}, aggregate))
    lacking = next((optimum for optimum in (one, common) if optimum.status is not Status.OK), None)
    value, p, verdict = Interval(), math.nan, Verdict.UNRESOLVED
    status, reason = Status.OK, one.reason or common.reason
    if lacking is not None:
        status, reason = lacking.status, f"{_told(lacking.weights)}: {lacking.reason}"
    else:
        difference = math.log(one.N.value) - math.log(common.N.value)
        drawn = one.draws - common.draws
        value, p = interval(difference, drawn, shared_level(fitted)), two_sided_p(drawn)
        if value.excludes_zero:
            verdict = Verdict.CAPACITY if value.value > 0 else Verdict.DATA
    return SizeGap(
        mix="", skill=skill, aggregate=_told(common.weights), C=C, status=status, reason=reason, n_budgets=1,
        value=value, p=p, p_holm=math.nan, verdict=verdict,
    )  # fmt: skip


def validation_effect(
    fitted: Mapping[str, SkillLaw], C: float, wanted: Mapping[str, float], used: Mapping[str, float],
    h: MixShares | None = None, *, among: Sequence[str] = (),
) -> ValidationMismatch:  # fmt: skip
    """What it costs to choose N by a validation set of the composition ``used`` where ``wanted`` is what counts.

    The largest shift over all compositions lies between two single skills. For, along a budget, let each skill's loss
    fall up to its own N* and rise from there, as every law here does where it has one minimum. Below the smallest of
    the skills' N* every weighted sum falls, above the largest every one rises; so each composition's N* lies between
    the two, which are attained. Where a fitted loss has several minima the result says that this is not proven.

    Args:
        fitted: the skills, fitted together.
        C: FLOP.
        wanted: weights of the skills in what the model is for.
        used: their weights in the validation set that N is chosen by.
        h: the mix, where a law asks for one; by default the runs' mean mix.
        among: skills whose compositions the largest shift is over; empty: all that were fitted.

    Raises:
        InputError: as ``weighted_optimum``.
    """
    weights = [normalise(one, fitted) for one in (wanted, used)]
    t, shares, level = log_tokens_times_params(C), resolve_shares(fitted, h), shared_level(fitted)
    right, wrong = (Ensemble.of(fitted, one, shares) for one in weights)
    best, chosen = right.log_optimum(t, shares), wrong.log_optimum(t, shares)
    least, had = (right.at(s, t, shares) for s in (best, chosen))
    more = _more_compute(right, wrong, chosen, t, shares, least)
    names = list(among or fitted)
    alone = {name: Ensemble.of(fitted, {name: 1.0}, shares) for name in names}
    single = np.array([one.log_optimum(t, shares) for one in alone.values()])
    known = np.isfinite(single[:, 0]).all()
    low, high = (int(np.argmin(single[:, 0])), int(np.argmax(single[:, 0]))) if known else (0, 0)
    lacking = [_told(w) for w, s in zip(weights, (best, chosen), strict=True) if not math.isfinite(s[0])]
    wavy = [name for name, one in alone.items() if _minima(one.estimate, t, shares) > 1]
    notes = [f"no interior minimum for {' and '.join(dict.fromkeys(lacking))}"] if lacking else []
    notes += [f"the loss of {', '.join(wavy)} has several minima: the largest shift is not proven"] if wavy else []
    notes += [] if known else ["some skill alone has no interior minimum, so that the largest shift is unknown"]
    return ValidationMismatch(
        C=C, target=weights[0], used=weights[1], shift=_interval(chosen - best, level),
        cost=_interval(had - least, level), compute=_interval(np.expm1(more - t), level),
        largest=_interval(np.expm1(single[high] - single[low]), level) if known else Interval(),
        extremes=(names[low], names[high]) if known else ("", ""),
        status=Status.NO_MINIMUM if lacking else Status.OK, reason="; ".join(notes),
    )  # fmt: skip


def best_mix(
    fitted: Mapping[str, SkillLaw], C: float, weights: Mapping[str, float],
    bounds: Mapping[str, tuple[float, float]] | None = None, *, N: float | None = None, draws: int = 200,
) -> Optimum:  # fmt: skip
    """The mix, N and D that minimise sum_s w_s L_s(N, C / 6 N, h) over shares h within bounds.

    Exact derivatives by ln N and the shares at once, from several starts. The weighted loss is convex in (ln N, h), so
    that any minimum is the only one, under ``effective_data``; under ``additive_mixture`` if its gamma are at most 1;
    under ``joint_mixture`` if besides r and s are not negative; under ``separable`` without drift if c is not negative.
    Elsewhere, and under ``capacity_competition``, nothing is proven: look at ``starts``.

    Args:
        fitted: the skills, fitted together under laws that ask for a mix.
        C: FLOP.
        weights: what each skill is worth.
        bounds: least and most share of a category; 0 and 1 where it is not named.
        N: parameters, where they are given; D = C / 6 N then is too.
        draws: how many of the fits' draws are optimised for the intervals.

    Raises:
        InputError: no law that asks for a mix, bounds that no mix meets, or as ``weighted_optimum``.
        FitError: the loss is finite nowhere.
    """
    own = normalise(weights, fitted)
    categories = shared_categories(fitted)
    if not categories or not any(fitted[name].law.needs_mix for name, w in own.items() if w):
        names = ", ".join(sorted({fitted[name].law.name for name, w in own.items() if w}))
        raise InputError(f"{names} knows nothing of the mix; fit a law that does, such as separable")
    if N is not None and not (math.isfinite(N) and N > 0):
        raise InputError(f"N must be above 0 parameters, but it is {N}; leave it out to have it optimised")
    laws, t = Ensemble.of(fitted, own), log_tokens_times_params(C)
    lower, upper = _limits(bounds or {}, categories)
    found = MixSearch.over(laws.chosen, t, lower, upper, N)
    X, F = found.solve(laws.chosen.take(np.zeros(len(found.corners), dtype=np.intp)), found.starts(laws.chosen))
    if not np.isfinite(F).any():
        raise FitError(f"{_told(own)} has no finite loss at C = {C:.3g} in any mix within the bounds; look at its fit")
    best = int(np.nanargmin(F))
    some = laws.take(_few(laws, draws))
    own_draws = (some.chosen.take(np.arange(1, len(some.chosen))), *some.parts[1:])
    X = np.vstack([X[best], *(found.draws(part, X[best]) for part in own_draws if len(part))])
    h, level = X[:, 1:], shared_level(fitted)
    mix = {k: interval(float(h[0, i]), h[1:, i], level) for i, k in enumerate(categories)}
    s = np.where(found.inside(X[:, 0]), X[:, 0], np.nan)
    status, reason = found.verdict(s[0], mix, share_range(fitted))
    return _optimum(fitted, some, own, C, s, h, mix=mix, status=status, reason=reason, starts=start_agreement(F))


def summarise_optima(
    fitted: Mapping[str, SkillLaw], flops: Sequence[float], weights: Mapping[str, float], *, equal: Sequence[str],
    bounds: Mapping[str, tuple[float, float]] | None = None,
) -> tuple[OptimumSummary, ...]:  # fmt: skip
    """What is best for skills of a given worth, at each compute.

    Args:
        fitted: the skills, fitted together.
        flops: computes, FLOP.
        weights: what each skill is worth, not negative; their sum is divided out.
        equal: the skills of a validation set that weighs all alike.
        bounds: least and most share of a category of the mix; 0 and 1 where it is not named.

    Raises:
        InputError: as ``weighted_optimum`` and ``best_mix``; or bounds for laws that know of no mix.
        FitError: the loss is finite nowhere.
    """
    mixed = any(fitted[name].law.needs_mix for name, weight in weights.items() if weight and name in fitted)
    if bounds and not mixed:
        names = ", ".join(sorted({one.law.name for one in fitted.values()}))
        raise InputError(f"bounds on the mix need a law that knows of it, such as separable, but it is {names}")
    return tuple(
        OptimumSummary(
            optimum=weighted_optimum(fitted, C, weights),
            size_gaps=tuple(size_gap(fitted, C, name, weights) for name in fitted),
            equal=validation_effect(fitted, C, weights, dict.fromkeys(equal, 1.0)) if len(equal) > 1 else None,
            best=best_mix(fitted, C, weights, bounds) if mixed else None,
        )
        for C in flops
    )


def _few(laws: Ensemble, draws: int) -> list[Rows]:
    """Rows of each part, the estimate and about ``draws`` in all; none of a rival that knows nothing of the mix."""
    there = [
        len(part) - (at == 0) if any(law.needs_mix for law, w in zip(part.laws, part.weights, strict=True) if w) else 0
        for at, part in enumerate(laws.parts)
    ]
    share = min(1.0, draws / max(sum(there), 1))
    return [np.arange(round(share * number) + (at == 0)) for at, number in enumerate(there)]


def share_range(fitted: Mapping[str, SkillLaw]) -> Array | None:
    """Least and largest share of each category among the runs of all skills, (2, n_categories); None if not known."""
    known = [one.shares for one in fitted.values() if one.law.needs_mix and one.shares is not None]
    return np.array([np.min(known, axis=0)[0], np.max(known, axis=0)[1]]) if known else None


def normalise(weights: Mapping[str, float], fitted: Mapping[str, SkillLaw]) -> dict[str, float]:
    """Weights that sum to 1, of skills that were fitted.

    Raises:
        InputError: an unknown skill, or weights that are negative or all 0.
    """
    for name, weight in weights.items():
        require_known("skill", name, fitted)
        if not (math.isfinite(weight) and weight >= 0):
            raise InputError(f"the weight of {name} must not be negative, but it is {weight}; 0 leaves a skill out")
    total = math.fsum(weights.values())
    if not total > 0:
        raise InputError("the weights of the skills sum to 0; give at least one skill a weight above 0")
    return {name: weight / total for name, weight in weights.items()}


def log_tokens_times_params(C: float) -> float:
    """Ln(C / 6) = ln N + ln D.

    Raises:
        InputError: C is not positive.
    """
    if not (math.isfinite(C) and C > 0):
        raise InputError(f"a budget must be above 0 FLOP, but it is {C}")
    return math.log(C / 6)


def shared_level(fitted: Mapping[str, SkillLaw]) -> float:
    """Of all intervals, two-sided."""
    return next(iter(fitted.values())).level


def _interval(rows: Array, level: float) -> Interval:
    """Of rows whose first is the estimate."""
    return interval(float(rows[0]), rows[1:], level)


def _told(weights: Mapping[str, float]) -> str:
    """A composition in words: ``0.75 code + 0.25 prose``."""
    parts = {name: weight for name, weight in weights.items() if weight}
    return next(iter(parts)) if len(parts) == 1 else " + ".join(f"{w:.3g} {name}" for name, w in parts.items())


def _minima(blend: WeightedLoss, t: float, h: Array | None) -> int:
    """How many dips the loss of one row has along a budget."""
    _, values = blend.along(t, h)
    steps = np.sign(np.diff(values[0][np.isfinite(values[0])]))
    turns = steps[steps != 0]
    return int(((turns[:-1] < 0) & (turns[1:] > 0)).sum())


def _at_the_end(blend: WeightedLoss, t: float, h: Array | None) -> str:
    grid, values = blend.along(t, h)
    if not np.isfinite(values[0]).any():
        return "the law has no loss at this budget; look at its parameters"
    smallest = values[0].argmin() == 0
    return (
        f"no interior minimum: the loss falls up to the {'smallest' if smallest else 'largest'} N looked at, "
        f"{math.exp(grid[0] if smallest else grid[-1]):.3g}; add runs that differ in {'N' if smallest else 'D'}"
    )


def _optimum(
    fitted: Mapping[str, SkillLaw], laws: Ensemble, weights: Mapping[str, float], C: float, s: Array, h: Array | None,
    *, mix: Mapping[str, Interval], status: Status, reason: str, starts: MultiStart | None = None,
) -> Optimum:  # fmt: skip
    """An optimum from ln N of the estimate and the draws, (K,)."""
    t, level = log_tokens_times_params(C), shared_level(fitted)
    losses = laws.losses(s, t, h)
    used = [fitted[name] for name, weight in weights.items() if weight]
    reach = min(one.reach[1] for one in used)
    log_N = _interval(s, level)
    if status is Status.OK and not log_N.is_finite:
        status = Status.NOT_IDENTIFIED
        reason = f"{np.mean(~np.isfinite(s[1:])):.0%} of the draws have no interior minimum; add runs"
    notes = [reason, *_notes(used, C / reach, math.exp(s[0]))]
    N = Interval(value=math.exp(log_N.value), lo=math.exp(log_N.lo), hi=math.exp(log_N.hi))
    return Optimum(
        C=C, weights=dict(weights), N=N, D=Interval(value=C / 6 / N.value, lo=C / 6 / N.hi, hi=C / 6 / N.lo),
        loss=_interval(laws.weights @ losses, level),
        losses={name: _interval(own, level) for name, own in zip(fitted, losses, strict=True)}, mix=dict(mix),
        status=status, reason="; ".join(note for note in notes if note), extrapolation=C / reach, starts=starts,
        draws=s[1:],
    )  # fmt: skip


def _notes(used: Sequence[SkillLaw], extrapolation: float, N: float) -> list[str]:
    """What is to be known of an optimum: how far it is from the runs, and what these leave open."""
    notes = []
    if extrapolation > _BEYOND:
        notes.append(f"the budget is {extrapolation:.3g} times the largest fitted")
    smallest, largest = max(one.sizes[0] for one in used), min(one.sizes[1] for one in used)
    if min(N / smallest, largest / N) < 1 / _BEYOND:
        notes.append(f"N lies outside the sizes fitted, {smallest:.3g} to {largest:.3g}")
    return notes + [f"{one.skill}: {one.reason}" for one in used if one.reason]


def _more_compute(right: Ensemble, wrong: Ensemble, s: Array, t: float, h: Array | None, least: Array) -> Array:
    """Ln(C / 6) at which the wrong choice of N reaches the loss ``least``, (K,); NaN where it does not."""
    pairs, told, first = zip(right.parts, wrong.parts, strict=True), [], 0
    for one, other in pairs:
        rows = slice(first, first + len(one))
        told.append(_more_of(one, other, s[rows], t, h, least[rows]))
        first += len(one)
    return np.concatenate(told)


def _more_of(right: WeightedLoss, wrong: WeightedLoss, s: Array, t: float, h: Array | None, least: Array) -> Array:
    """The same for one law: Newton on (s, t), where the wrong slope by s is 0 and the right loss is ``least``."""
    X = np.column_stack([s, np.full(len(s), t)])
    mix = None if h is None else h[:, None, :]
    with np.errstate(all="ignore"):
        for _ in range(_ROUNDS):
            s_jet, t_jet = leaves(X, derivatives=True)
            _, slope, bend = of_jet(wrong.loss(s_jet, t_jet, mix), 2, len(X))
            F, fall, _ = of_jet(right.loss(s_jet, t_jet, mix), 2, len(X))
            a, b, c, d = bend[:, 0, 0], bend[:, 0, 1], fall[:, 0], fall[:, 1]
            u, v = -slope[:, 0], least - F
            step = np.column_stack([d * u - b * v, a * v - c * u]) / (a * d - b * c)[:, None]
            size = np.abs(step).max(1, keepdims=True)
            X = X + step / np.maximum(size, 1.0)
            if not (size > _SETTLED).any():
                break
    return np.where(size[:, 0] <= 1e-6, X[:, 1], np.nan)


def _limits(bounds: Mapping[str, tuple[float, float]], categories: Sequence[str]) -> tuple[Array, Array]:
    """Least and most share of each category, as tight as the others make them.

    Raises:
        InputError: a category or a range that there is not, or no mix within the bounds.
    """
    for name, (low, high) in bounds.items():
        require_known("category", name, categories)
        if not 0 <= low <= high <= 1:
            raise InputError(f"the bounds of {name} must be 0 <= least <= most <= 1, but they are {low} and {high}")
    low, high = np.array([bounds.get(name, (0.0, 1.0)) for name in categories], dtype=float).T
    if low.sum() > 1 + _SUM or high.sum() < 1 - _SUM:
        what = f"least shares sum to {low.sum():.4g}" if low.sum() > 1 else f"most shares sum to {high.sum():.4g}"
        raise InputError(f"no mix is within the bounds: the {what}; widen them")
    return np.maximum(low, 1 - (high.sum() - high)), np.minimum(high, 1 - (low.sum() - low))
