"""Find the best N, D and mix for a budget and skill weights, with intervals, and the cost of a wrong choice.

Fitted laws, a budget and weights go in. An ``Optimum``, a ``SizeGap`` or a ``ValidationMismatch`` comes out. C = 6 N D,
with N in the convention of the fitted runs: a table that counts N in two ways has a fit and a budget line for each.

Intervals come from draws. Row k is the same resample in every skill, so the intervals include the correlation of errors
between skills, if the skills were fitted with ``fit_together``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from skillscale.errors import FitError, InputError
from skillscale.formatting import format_count, format_flops
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
from skillscale.laws.optimum.identification import Identification, joint_identification
from skillscale.laws.optimum.mix_search import MixSearch
from skillscale.laws.optimum.weighted_loss import Rows, WeightedLoss, of_jet
from skillscale.laws.results import Interval, MultiStart, SizeGap, Status, Verdict
from skillscale.laws.uncertainty.resamples import interval, two_sided_p

_SUM = 1e-6
_FAR = 10.0  # factor beyond the largest N or D of the runs from which on it is said
_BEYOND = 1.01  # a budget or size further out than this factor is an extrapolation
_SETTLED = 1e-10
_ROUNDS = 30


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """The best N and D = C / 6 N for the weighted loss, and the best mix where the mix is free.

    ``mix``: shares by category, without interval bounds where the mix was given. ``weights`` sum to 1. ``losses``: of
    every fitted skill. ``starts``: of the search over mixes, None without one. ``draws``: ln N of the draws (NaN where
    a draw has no optimum). ``reason`` also has notes where the status is ok. ``identification``: whether the runs or
    the priors decide N*. Where the priors do, the status says so although N has a value.
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
    identification: Identification = field(default_factory=Identification)
    draws: Array = field(repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class ValidationMismatch:
    """The effect of choosing N by a validation set of another composition.

    ``target``: weights of the skills that matter. ``used``: their weights in the validation set. ``shift``: ln N*(used)
    - ln N*(target). ``cost``: target loss at N*(used) less the least one. ``compute``: fraction by which C must grow
    for N*(used) to reach that least loss. ``largest``: the largest |N*(w) - N*(w')| / N*(w') over all compositions of
    the fitted skills. It is attained between ``extremes``, the single skills with the smallest and the largest N*. The
    cost is never below 0 in a draw, so its interval lies above 0 even for a shift that does not differ from 0.
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


def weighted_optimum(
    fitted: Mapping[str, SkillLaw], C: float, weights: Mapping[str, float], h: MixShares | None = None
) -> Optimum:
    """Find the N that minimises sum_s w_s L_s(N, C / 6 N, h), with its interval.

    Args:
        fitted: laws by skill, fitted together.
        C: budget, FLOP.
        weights: weights of the skills, not negative. They are divided by their sum.
        h: mix, where a law needs one. Default: the runs' mean mix.

    Raises:
        InputError: an unknown skill or category, weights or shares out of range, or skills not fitted together.
    """
    normalised = normalise(weights, fitted)
    t, shares = log_tokens_times_params(C), resolve_shares(fitted, h)
    laws = Ensemble.of(fitted, normalised, shares)
    s = laws.log_optimum(t, shares)
    mix = (
        {}
        if shares is None
        else {k: Interval(value=float(x)) for k, x in zip(shared_categories(fitted), shares[0], strict=True)}
    )
    status, reason = Status.OK, ""
    if not math.isfinite(s[0]):
        status, reason = Status.NO_MINIMUM, _no_minimum_reason(laws.estimate, t, shares)
    return _optimum(fitted, laws, normalised, C, s, shares, mix=mix, status=status, reason=reason)


def size_gap(
    fitted: Mapping[str, SkillLaw], C: float, skill: str, aggregate: Mapping[str, float], h: MixShares | None = None
) -> SizeGap:
    """Return ln N*(skill) - ln N*(aggregate) at a budget, with a verdict where the interval excludes 0.

    Args:
        fitted: laws by skill, fitted together.
        C: budget, FLOP.
        skill: a fitted skill.
        aggregate: weights of the skills in the reference. The skill may be among them.
        h: mix, where a law needs one. Default: the runs' mean mix.

    Raises:
        InputError: as ``weighted_optimum``.
    """
    own_optimum, reference = (weighted_optimum(fitted, C, weights, h) for weights in ({skill: 1.0}, aggregate))
    refused = next((optimum for optimum in (own_optimum, reference) if optimum.status is not Status.OK), None)
    value, p, verdict = Interval(), math.nan, Verdict.UNRESOLVED
    status, reason = Status.OK, own_optimum.reason or reference.reason
    if refused is not None:
        status, reason = refused.status, f"{format_weights(refused.weights)}: {refused.reason}"
    else:
        difference = math.log(own_optimum.N.value) - math.log(reference.N.value)
        draws = own_optimum.draws - reference.draws
        value, p = interval(difference, draws, shared_level(fitted)), two_sided_p(draws)
        if value.excludes_zero:
            verdict = Verdict.CAPACITY if value.value > 0 else Verdict.DATA
    return SizeGap(
        mix="", skill=skill, aggregate=format_weights(reference.weights), C=C, status=status, reason=reason,
        n_budgets=1, value=value, p=p, p_holm=math.nan, verdict=verdict,
    )  # fmt: skip


def validation_effect(
    fitted: Mapping[str, SkillLaw], C: float, target: Mapping[str, float], used: Mapping[str, float],
    h: MixShares | None = None, *, skills: Sequence[str] = (),
) -> ValidationMismatch:  # fmt: skip
    """Return the cost of choosing N by a validation set of composition ``used`` where ``target`` matters.

    The largest shift over all compositions lies between two single skills. Proof: along a budget, let each skill's loss
    fall up to its N* and rise from there. Every law here does so where it has one minimum. Every weighted sum then
    falls below the smallest N* of the skills and rises above the largest. So the N* of each composition lies between
    these two, which are attained. Where a fitted loss has several minima, the result says that this is not proven.

    Args:
        fitted: laws by skill, fitted together.
        C: budget, FLOP.
        target: weights of the skills that matter.
        used: weights of the skills in the validation set that N is chosen by.
        h: mix, where a law needs one. Default: the runs' mean mix.
        skills: skills whose compositions the largest shift covers. Empty: all fitted skills.

    Raises:
        InputError: as ``weighted_optimum``.
    """
    compositions = [normalise(weights, fitted) for weights in (target, used)]
    t, shares, level = log_tokens_times_params(C), resolve_shares(fitted, h), shared_level(fitted)
    target_loss, used_loss = (Ensemble.of(fitted, weights, shares) for weights in compositions)
    best, chosen = target_loss.log_optimum(t, shares), used_loss.log_optimum(t, shares)
    least, loss_of_chosen = (target_loss.at(s, t, shares) for s in (best, chosen))
    log_compute = _compute_to_match(target_loss, used_loss, chosen, t, shares, least)
    names = list(skills or fitted)
    singles = {name: Ensemble.of(fitted, {name: 1.0}, shares) for name in names}
    log_N = np.array([law.log_optimum(t, shares) for law in singles.values()])
    all_finite = np.isfinite(log_N[:, 0]).all()
    low, high = (int(np.argmin(log_N[:, 0])), int(np.argmax(log_N[:, 0]))) if all_finite else (0, 0)
    optima = zip(compositions, (best, chosen), strict=True)
    without_minimum = [format_weights(weights) for weights, s in optima if not math.isfinite(s[0])]
    with_several_minima = [name for name, law in singles.items() if _count_minima(law.estimate, t, shares) > 1]
    notes = [f"no interior minimum for {' and '.join(dict.fromkeys(without_minimum))}"] if without_minimum else []
    if with_several_minima:
        names_of_these = ", ".join(with_several_minima)
        notes.append(f"the loss of {names_of_these} has several minima: the largest shift is not proven")
    if not all_finite:
        notes.append("a single skill has no interior minimum, so the largest shift is unknown")
    return ValidationMismatch(
        C=C, target=compositions[0], used=compositions[1], shift=_interval(chosen - best, level),
        cost=_interval(loss_of_chosen - least, level), compute=_interval(np.expm1(log_compute - t), level),
        largest=_interval(np.expm1(log_N[high] - log_N[low]), level) if all_finite else Interval(),
        extremes=(names[low], names[high]) if all_finite else ("", ""),
        status=Status.NO_MINIMUM if without_minimum else Status.OK, reason="; ".join(notes),
    )  # fmt: skip


def best_mix(
    fitted: Mapping[str, SkillLaw], C: float, weights: Mapping[str, float],
    bounds: Mapping[str, tuple[float, float]] | None = None, *, N: float | None = None, draws: int = 200,
) -> Optimum:  # fmt: skip
    """Find the mix, N and D that minimise sum_s w_s L_s(N, C / 6 N, h) over shares h within bounds.

    The search uses exact derivatives with respect to ln N and the shares, from several starts. The weighted loss is
    convex in (ln N, h), so a minimum is unique, under ``effective_data``. The same holds under ``additive_mixture`` if
    its gamma are at most 1, under ``joint_mixture`` if also r and s are not negative, and under ``separable`` without
    drift if c is not negative. In other cases, and under ``capacity_competition``, nothing is proven: see ``starts``.

    Args:
        fitted: laws by skill, fitted together, that depend on the mix.
        C: budget, FLOP.
        weights: weights of the skills.
        bounds: least and largest share by category. Default: 0 and 1.
        N: fixed parameters, which also fix D = C / 6 N. None: N is optimised.
        draws: number of bootstrap draws to optimise for the intervals.

    Raises:
        InputError: no law depends on the mix, no mix is within the bounds, or as ``weighted_optimum``.
        FitError: the loss is finite nowhere.
    """
    normalised = normalise(weights, fitted)
    categories = shared_categories(fitted)
    if not categories or not any(fitted[name].law.needs_mix for name, w in normalised.items() if w):
        names = ", ".join(sorted({fitted[name].law.name for name, w in normalised.items() if w}))
        raise InputError(f"no law depends on the mix: {names}. Fit a law that does, such as separable.")
    if N is not None and not (math.isfinite(N) and N > 0):
        raise InputError(f"N must be above 0 parameters: {N}. Omit it to optimise it.")
    laws, t = Ensemble.of(fitted, normalised), log_tokens_times_params(C)
    lower, upper = _share_limits(bounds or {}, categories)
    search = MixSearch.within(laws.chosen, t, lower, upper, N)
    X, F = search.solve(laws.chosen.take(np.zeros(len(search.corners), dtype=np.intp)), search.starts(laws.chosen))
    if not np.isfinite(F).any():
        raise FitError(
            f"the loss is finite in no mix within the bounds: {format_weights(normalised)} at C = {format_flops(C)}. "
            "Check its fit."
        )
    best = int(np.nanargmin(F))
    thinned = laws.take(_thin_rows(laws, draws))
    draw_parts = (thinned.chosen.take(np.arange(1, len(thinned.chosen))), *thinned.parts[1:])
    X = np.vstack([X[best], *(search.draws(part, X[best]) for part in draw_parts if len(part))])
    h, level = X[:, 1:], shared_level(fitted)
    mix = {k: interval(float(h[0, i]), h[1:, i], level) for i, k in enumerate(categories)}
    s = np.where(search.is_inside(X[:, 0]), X[:, 0], np.nan)
    status, reason = search.outcome(s[0], mix, share_range(fitted))
    return _optimum(
        fitted, thinned, normalised, C, s, h, mix=mix, status=status, reason=reason, starts=start_agreement(F)
    )


def _thin_rows(laws: Ensemble, draws: int) -> list[Rows]:
    """Select rows of each part: the estimate and about ``draws`` in total, none of a rival without mix dependence."""

    def depends_on_mix(part: WeightedLoss) -> bool:
        return any(law.needs_mix for law, weight in zip(part.laws, part.weights, strict=True) if weight)

    available = [len(part) - (index == 0) if depends_on_mix(part) else 0 for index, part in enumerate(laws.parts)]
    fraction = min(1.0, draws / max(sum(available), 1))
    return [np.arange(round(fraction * number) + (index == 0)) for index, number in enumerate(available)]


def share_range(fitted: Mapping[str, SkillLaw]) -> Array | None:
    """Return the least and largest share of each category in the runs of all skills, (2, n_categories), if stored."""
    with_mix = (skill_law for skill_law in fitted.values() if skill_law.law.needs_mix)
    ranges = [skill_law.shares for skill_law in with_mix if skill_law.shares is not None]
    return np.array([np.min(ranges, axis=0)[0], np.max(ranges, axis=0)[1]]) if ranges else None


def normalise(weights: Mapping[str, float], fitted: Mapping[str, SkillLaw]) -> dict[str, float]:
    """Divide weights of fitted skills by their sum.

    Raises:
        InputError: an unknown skill, or weights that are negative or all 0.
    """
    for name, weight in weights.items():
        require_known("skill", name, fitted)
        if not (math.isfinite(weight) and weight >= 0):
            raise InputError(f"the weight of {name} must not be negative: {weight}. Use 0 to ignore a skill.")
    total = math.fsum(weights.values())
    if not total > 0:
        raise InputError("the weights of the skills sum to 0. Give at least one skill a weight above 0.")
    return {name: weight / total for name, weight in weights.items()}


def log_tokens_times_params(C: float) -> float:
    """Return ln(C / 6) = ln N + ln D.

    Raises:
        InputError: C is not positive.
    """
    if not (math.isfinite(C) and C > 0):
        raise InputError(f"a budget must be above 0 FLOP: {C}. Give a positive number.")
    return math.log(C / 6)


def shared_level(fitted: Mapping[str, SkillLaw]) -> float:
    """Return the two-sided level of all intervals."""
    return next(iter(fitted.values())).level


def _interval(rows: Array, level: float) -> Interval:
    """Return the interval of rows whose first is the estimate."""
    return interval(float(rows[0]), rows[1:], level)


def format_weights(weights: Mapping[str, float]) -> str:
    """Format a composition, such as ``0.75 code + 0.25 prose``."""
    parts = {name: weight for name, weight in weights.items() if weight}
    return next(iter(parts)) if len(parts) == 1 else " + ".join(f"{w:.3g} {name}" for name, w in parts.items())


def _count_minima(blend: WeightedLoss, t: float, h: Array | None) -> int:
    """Count the minima of the loss of one row along a budget."""
    _, values = blend.along(t, h)
    steps = np.sign(np.diff(values[0][np.isfinite(values[0])]))
    turns = steps[steps != 0]
    return int(((turns[:-1] < 0) & (turns[1:] > 0)).sum())


def _no_minimum_reason(blend: WeightedLoss, t: float, h: Array | None) -> str:
    grid, values = blend.along(t, h)
    if not np.isfinite(values[0]).any():
        return "the law has no finite loss at this budget: check its parameters"
    smallest = values[0].argmin() == 0
    end, N, letter = ("smallest", grid[0], "N") if smallest else ("largest", grid[-1], "D")
    return (
        f"no interior minimum, the loss falls to the {end} N searched, {format_count(math.exp(N))}: add runs that "
        f"differ in {letter}"
    )


def _optimum(
    fitted: Mapping[str, SkillLaw], laws: Ensemble, weights: Mapping[str, float], C: float, s: Array, h: Array | None,
    *, mix: Mapping[str, Interval], status: Status, reason: str, starts: MultiStart | None = None,
) -> Optimum:  # fmt: skip
    """Make an optimum from ln N of the estimate and the draws, (K,)."""
    t, level = log_tokens_times_params(C), shared_level(fitted)
    losses = laws.losses(s, t, h)
    used = [fitted[name] for name, weight in weights.items() if weight]
    reach = min(skill_law.reach[1] for skill_law in used)
    log_N = _interval(s, level)
    if status is Status.OK and not log_N.is_finite:
        status = Status.NOT_IDENTIFIED
        reason = f"{100 * np.mean(~np.isfinite(s[1:])):.0f} % of the draws have no interior minimum: add runs"
    identification = joint_identification(fitted, weights, C, None if h is None else h[0])
    if status in (Status.OK, Status.ON_BOUND) and identification.prior_decides:
        status, reason = Status.NOT_IDENTIFIED, "; ".join(filter(None, [reason, identification.reason]))
    notes = [reason, *_extrapolation_notes(used, C, C / reach, math.exp(s[0]))]
    N = Interval(value=math.exp(log_N.value), lo=math.exp(log_N.lo), hi=math.exp(log_N.hi))
    return Optimum(
        C=C, weights=dict(weights), N=N, D=Interval(value=C / 6 / N.value, lo=C / 6 / N.hi, hi=C / 6 / N.lo),
        loss=_interval(laws.weights @ losses, level),
        losses={name: _interval(loss, level) for name, loss in zip(fitted, losses, strict=True)}, mix=dict(mix),
        status=status, reason="; ".join(note for note in notes if note), extrapolation=C / reach, starts=starts,
        identification=identification, draws=s[1:],
    )  # fmt: skip


def _extrapolation_notes(used: Sequence[SkillLaw], C: float, extrapolation: float, N: float) -> list[str]:
    """Return notes on an optimum: its distance from the runs, and what these do not determine."""
    notes = []
    if extrapolation > _BEYOND:
        notes.append(f"the budget is {extrapolation:.3g} times the largest run")
    smallest = max(skill_law.sizes[0] for skill_law in used)
    largest = min(skill_law.sizes[1] for skill_law in used)
    if min(N / smallest, largest / N) < 1 / _BEYOND:
        notes.append(f"N lies outside the sizes fitted, {format_count(smallest)} to {format_count(largest)}")
    notes += _far_notes(used, N, C / 6 / N)
    return notes + [f"{skill_law.skill}: {skill_law.reason}" for skill_law in used if skill_law.reason]


def _far_notes(used: Sequence[SkillLaw], N: float, D: float) -> list[str]:
    """Return a note where N* or D* is more than 10 times the largest of the runs."""
    ends = {"N": min(skill_law.sizes[1] for skill_law in used), "D": min(skill_law.tokens[1] for skill_law in used)}
    far = {letter: value / ends[letter] for letter, value in (("N", N), ("D", D)) if value > _FAR * ends[letter]}
    if not far:
        return []
    parts = [
        f"{letter}* is {x:.2g} times the largest {letter}, {format_count(ends[letter])}" for letter, x in far.items()
    ]
    return [f"{' and '.join(parts)}: no run shows that the law holds there"]


def _compute_to_match(target: Ensemble, used: Ensemble, s: Array, t: float, h: Array | None, least: Array) -> Array:
    """Return ln(C / 6) at which the N chosen by ``used`` reaches the loss ``least``, (K,), or NaN."""
    parts, results, first = zip(target.parts, used.parts, strict=True), [], 0
    for target_part, used_part in parts:
        rows = slice(first, first + len(target_part))
        results.append(_compute_to_match_one_law(target_part, used_part, s[rows], t, h, least[rows]))
        first += len(target_part)
    return np.concatenate(results)


def _compute_to_match_one_law(
    target: WeightedLoss, used: WeightedLoss, s: Array, t: float, h: Array | None, least: Array
) -> Array:
    """Solve the same for one law by Newton steps on (s, t): ``used`` has slope 0 in s, ``target`` is ``least``."""
    X = np.column_stack([s, np.full(len(s), t)])
    mix = None if h is None else h[:, None, :]
    with np.errstate(all="ignore"):
        for _ in range(_ROUNDS):
            s_jet, t_jet = leaves(X, derivatives=True)
            _, slope, bend = of_jet(used.loss(s_jet, t_jet, mix), 2, len(X))
            F, fall, _ = of_jet(target.loss(s_jet, t_jet, mix), 2, len(X))
            a, b, c, d = bend[:, 0, 0], bend[:, 0, 1], fall[:, 0], fall[:, 1]
            u, v = -slope[:, 0], least - F
            step = np.column_stack([d * u - b * v, a * v - c * u]) / (a * d - b * c)[:, None]
            size = np.abs(step).max(1, keepdims=True)
            X = X + step / np.maximum(size, 1.0)
            if not (size > _SETTLED).any():
                break
    return np.where(size[:, 0] <= 1e-6, X[:, 1], np.nan)


def _share_limits(bounds: Mapping[str, tuple[float, float]], categories: Sequence[str]) -> tuple[Array, Array]:
    """Return the least and largest share of each category, tightened by the bounds of the others.

    Raises:
        InputError: an unknown category, an impossible range, or no mix within the bounds.
    """
    for name, (low, high) in bounds.items():
        require_known("category", name, categories)
        if not 0 <= low <= high <= 1:
            raise InputError(f"bounds of {name} out of range: {low} and {high}. Use 0 <= least <= largest <= 1.")
    low, high = np.array([bounds.get(name, (0.0, 1.0)) for name in categories], dtype=float).T
    if low.sum() > 1 + _SUM or high.sum() < 1 - _SUM:
        problem = f"least shares sum to {low.sum():.4g}" if low.sum() > 1 else f"largest shares sum to {high.sum():.4g}"
        raise InputError(f"no mix is within the bounds: the {problem}. Widen the bounds.")
    return np.maximum(low, 1 - (high.sum() - high)), np.minimum(high, 1 - (low.sum() - low))
