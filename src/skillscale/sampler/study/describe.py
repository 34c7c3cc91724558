"""Recommendations as design points, as text, and as plain values."""

import math
from collections.abc import Mapping, Sequence

from skillscale.design.proposal import Proposal, Recommendation, StopReason
from skillscale.design.targets import Quantity, Target, TargetEstimates
from skillscale.formatting import (
    JsonObject,
    format_count,
    format_flops,
    format_interval,
    format_number,
    format_percent,
    plural,
)
from skillscale.point import DesignPoint, Mix
from skillscale.record import ProposalReason
from skillscale.sampler.study.problem import SamplingProblem

_ONLY_MIX = Mix({"all": 1.0})  # of a point where the mix plays no part
_SMALL_NARROWING = 0.01  # mean narrowing by one run below which the text says that no single run helps much
_UNKNOWN_HALF_WIDTH = math.log(1e3)  # in ln N, from which an interval counts as unknown
_NAMES = {
    Quantity.OPTIMUM: "N*({skill})",
    Quantity.DIFFERENCE: "N*({skill}) / N*({other})",
    Quantity.LOSS: "L({skill})",
}


def to_points(proposals: Sequence[Proposal], problem: SamplingProblem, first_seed: int) -> list[DesignPoint]:
    """Return proposals as points, each with another seed, so that no run shares its noise with another."""
    return [
        DesignPoint(
            n_params=max(1, round(proposal.N)), n_tokens=max(1, round(proposal.D)), mix=_mix(proposal, problem),
            seed=first_seed + at,
        )
        for at, proposal in enumerate(proposals)
    ]  # fmt: skip


def to_reason(proposal: Proposal, recommendation: Recommendation) -> ProposalReason:
    """Return the reason of a proposal, for its run."""
    return ProposalReason(
        purpose=str(proposal.purpose), cost=proposal.cost, narrowing=proposal.narrowing,
        laws=recommendation.law_weights,
    )  # fmt: skip


def recommendation_as_dict(
    recommendation: Recommendation, points: Sequence[DesignPoint], problem: SamplingProblem
) -> JsonObject:
    """Return the recommendation as plain values."""
    estimates, stop_reason = recommendation.estimates, recommendation.stop_reason
    targets = [] if estimates is None else [
        {
            "name": target.name, "quantity": str(target.quantity), "skill": target.skill, "other": target.other,
            "flops": target.C, "value": value, "lo": lo, "hi": hi,
        }
        for target, value, lo, hi in _rows(estimates)
    ]  # fmt: skip
    return {
        "points": point_rows(recommendation, points),
        "targets": targets,
        "level": None if estimates is None else estimates.level,
        "half_width": None if estimates is None else estimates.widest_half_width,
        "ending": None if stop_reason is None else str(stop_reason),
        "expected_half_width": recommendation.expected_half_width,
        "flops_to_halve": recommendation.flops_to_halve,
        "laws": recommendation.law_weights,
        "warnings": [*problem.notes, *recommendation.warnings],
        "budget": problem.budget,
    }


def point_rows(recommendation: Recommendation, points: Sequence[DesignPoint]) -> list[JsonObject]:
    """Return a row for each point: the run, its cost, purpose and expected effect."""
    return [
        {
            "n_params": point.n_params,
            "n_tokens": point.n_tokens,
            "flops": point.flops,
            "mix": dict(point.mix.shares),
            "seed": point.seed,
            "cost": proposal.cost,
            "purpose": str(proposal.purpose),
            "gain": to_reason(proposal, recommendation).mean_narrowing,
            "fall": dict(proposal.narrowing),
        }
        for point, proposal in zip(points, recommendation.proposals, strict=True)
    ]


def recommendation_text(recommendation: Recommendation, points: Sequence[DesignPoint], problem: SamplingProblem) -> str:
    """Return the recommendation for a person: estimates, next runs with reasons, and further cost."""
    lines = [f"note: {note}" for note in (*problem.notes, *recommendation.warnings)]
    lines += _estimate_lines(recommendation.estimates, problem)
    flops = recommendation.flops_to_halve
    halving = (
        f"Halving the widest interval should take about {format_flops(flops)} FLOP."
        if flops is not None and math.isfinite(flops)
        else ""
    )
    reasons = [to_reason(proposal, recommendation) for proposal in recommendation.proposals]
    is_slow = bool(points) and all(reason.narrowing and reason.mean_narrowing < _SMALL_NARROWING for reason in reasons)
    if is_slow:
        share = format_percent(_SMALL_NARROWING)
        text = f"No single run helps much: each narrows the intervals by less than {share} on average. {halving}"
        lines.append(text.rstrip())
    if points:
        lines.append(_table(recommendation, points))
        lines.append(
            f"cost: 6 N D plus an overhead of {format_flops(problem.space.overhead)} FLOP a run (sample.overhead). "
            "The narrowing is the effect of that run alone. The list starts with the cheapest runs of a plan for the "
            "whole budget."
        )
    if recommendation.stop_reason is not None:
        lines.append(stop_text(recommendation, problem))
    if recommendation.expected_half_width is not None:
        lines.append(
            f"Expected after spending the budget ({format_flops(problem.budget)} FLOP): widest interval "
            f"{_factor(recommendation.expected_half_width)}."
        )
    if halving and not is_slow:
        lines.append(halving)
    return "\n".join(lines)


def _estimate_lines(estimates: TargetEstimates | None, problem: SamplingProblem) -> list[str]:
    if estimates is None:
        return []
    on = f" on {problem.mixes[0]}" if problem.space.categories else ""
    lines = [f"estimates{on}, with {format_percent(estimates.level)} intervals:"]
    rows = _rows(estimates)
    width = max(len(_name(target)) for target, *_ in rows)
    lines += [f"  {_name(target):<{width}}  {_interval(value, lo, hi)}" for target, value, lo, hi in rows]
    if len(problem.mixes) > 1:
        lines.append(
            f"Targets are for the first of {len(problem.mixes)} mixes ({problem.mixes[0]}). To change it, list another "
            "mix first in --mixes."
        )
    return lines


def half_width_metrics(estimates: TargetEstimates) -> dict[str, float]:
    """Return the half width of each finite interval, and of the widest, by names of metrics."""
    by_name = {half_width_metric(target): (hi - lo) / 2 for target, _, lo, hi in _rows(estimates)}
    by_name["half_width"] = estimates.widest_half_width
    return {name: half for name, half in by_name.items() if math.isfinite(half)}


def half_width_metric(target: Target) -> str:
    """Return the metric of a target's half width, as in ``half_width/code - prose 1e21``."""
    other = f" - {target.other}" if target.other else ""
    return f"half_width/{target.skill}{other} {target.C:.3g}".replace("+", "")


def stop_text(recommendation: Recommendation, problem: SamplingProblem) -> str:
    """Return why there are no proposals, and what to do."""
    estimates = recommendation.estimates
    widest = "" if estimates is None else f", widest interval {_factor(estimates.widest_half_width)}"
    if recommendation.stop_reason is StopReason.PRECISE:
        return f"Precise enough{widest} (target {_factor(problem.target_half_width)})."
    if recommendation.stop_reason is StopReason.EXHAUSTED:
        return f"Every allowed run has all its replicates{widest}. Raise sample.replicates, or allow other runs."
    if recommendation.stop_reason is StopReason.SPENT:
        runs = "" if problem.max_runs is None else f" or {plural(problem.max_runs, 'run')}"
        return f"The budget of {format_flops(problem.budget)} FLOP{runs} is spent{widest}. Raise it to continue."
    return f"No run is informative enough for its cost any more{widest}."


def _table(recommendation: Recommendation, points: Sequence[DesignPoint]) -> str:
    """Return a table with one row for runs that differ in their seeds alone."""
    mixed = len({str(point.mix) for point in points}) > 1 or len(points[0].mix.shares) > 1
    seeds: dict[tuple[str, str], list[str]] = {}
    for point, proposal in zip(points, recommendation.proposals, strict=True):
        ratio = format_number(point.n_tokens / point.n_params)
        run = f"{format_flops(point.flops):>10}{point.n_params:>18,}{point.n_tokens:>22,}{ratio:>9}"
        reason = to_reason(proposal, recommendation).sentence + (f"; on {point.mix}" if mixed else "")
        seeds.setdefault((run, f"{format_flops(proposal.cost):>10}  {reason}"), []).append(str(point.seed))
    several = len(seeds) < len(points)
    rows = [(run, f"x{len(same)}" if several else "", ",".join(same), why) for (run, why), same in seeds.items()]
    width, times = max(7, *(len(same) + 2 for _, _, same, _ in rows)), 6 if several else 0
    head = f"{'C':>10}{'N':>18}{'D':>22}{'D/N':>9}{'runs' * several:>{times}}{'seed':>{width}}{'cost':>10}  why"
    return "\n".join([head, *(f"{run}{n:>{times}}{same:>{width}}{why}" for run, n, same, why in rows)])


def _rows(estimates: TargetEstimates) -> list[tuple[Target, float, float, float]]:
    """Return targets with value and interval, which are logarithms."""
    columns = (estimates.value.tolist(), estimates.lo.tolist(), estimates.hi.tolist())
    return list(zip(estimates.targets, *columns, strict=True))


def _name(target: Target) -> str:
    return f"{_NAMES[target.quantity].format(skill=target.skill, other=target.other)} at {format_flops(target.C)}"


def _interval(value: float, lo: float, hi: float) -> str:
    if not (math.isfinite(value) and hi - lo < 2 * _UNKNOWN_HALF_WIDTH):
        return "unknown"
    return format_interval(math.exp(value), math.exp(lo), math.exp(hi), format_count)


def _factor(half_width: float) -> str:
    """Return a half width in ln N as a factor: ``x/÷ 1.3``."""
    return f"x/÷ {math.exp(half_width):.3g}" if half_width < _UNKNOWN_HALF_WIDTH else "unknown"


def _mix(proposal: Proposal, problem: SamplingProblem) -> Mix:
    if not problem.mixes:
        return _ONLY_MIX
    if not proposal.h:
        return problem.mixes[0]
    shares: Mapping[str, float] = dict(zip(problem.space.categories, proposal.h, strict=True))
    for mix in problem.mixes:
        if all(abs(mix.shares.get(name, 0) - share) < 1e-9 for name, share in shares.items()):
            return mix
    return Mix(shares)
