"""Advice as design points, in words, and as plain values."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from skillscale.design.proposal import Proposal, Recommendation, StopReason
from skillscale.design.targets import Quantity, Target, TargetEstimates
from skillscale.formatting import format_count, format_flops, format_interval
from skillscale.point import DesignPoint, Mix
from skillscale.record import ProposalReason
from skillscale.sampler.study.problem import SamplingProblem

_ALL = Mix({"all": 1.0})  # of a point where the mix plays no part
_LITTLE = 0.01  # mean narrowing by one run below which it is said that none tells much
_NOT_KNOWN = math.log(1e3)  # half width in ln N of an interval that tells nothing
_NAMES = {
    Quantity.OPTIMUM: "N*({skill})",
    Quantity.DIFFERENCE: "N*({skill}) / N*({other})",
    Quantity.LOSS: "L({skill})",
}


def to_points(proposals: Sequence[Proposal], order: SamplingProblem, first_seed: int) -> list[DesignPoint]:
    """Proposals as points, each with a seed of its own: no two runs share their noise, and none is made twice."""
    return [
        DesignPoint(
            n_params=max(1, round(one.N)), n_tokens=max(1, round(one.D)), mix=_mix(one, order), seed=first_seed + at
        )
        for at, one in enumerate(proposals)
    ]


def to_reason(proposal: Proposal, advice: Recommendation) -> ProposalReason:
    """Why a point is proposed, for its run."""
    return ProposalReason(
        purpose=str(proposal.purpose), cost=proposal.cost, narrowing=proposal.narrowing, laws=advice.law_weights
    )


def recommendation_as_dict(
    advice: Recommendation, points: Sequence[DesignPoint], order: SamplingProblem
) -> dict[str, Any]:
    """Advice as plain values."""
    known = [] if advice.estimates is None else [
        {
            "name": target.name, "quantity": str(target.quantity), "skill": target.skill, "other": target.other,
            "flops": target.C, "value": value, "lo": lo, "hi": hi,
        }
        for target, value, lo, hi in _rows(advice.estimates)
    ]  # fmt: skip
    return {
        "points": point_rows(advice, points),
        "targets": known,
        "level": None if advice.estimates is None else advice.estimates.level,
        "half_width": None if advice.estimates is None else advice.estimates.widest_half_width,
        "ending": None if advice.stop_reason is None else str(advice.stop_reason),
        "expected_half_width": advice.expected_half_width,
        "flops_to_halve": advice.flops_to_halve,
        "laws": advice.law_weights,
        "warnings": [*order.notes, *advice.warnings],
        "budget": order.budget,
    }


def point_rows(advice: Recommendation, points: Sequence[DesignPoint]) -> list[dict[str, Any]]:
    """One row a point: what to run, what it costs, why, and what it is expected to bring."""
    return [
        {
            "n_params": point.n_params,
            "n_tokens": point.n_tokens,
            "flops": point.flops,
            "mix": dict(point.mix.shares),
            "seed": point.seed,
            "cost": proposal.cost,
            "purpose": str(proposal.purpose),
            "gain": to_reason(proposal, advice).mean_narrowing,
            "fall": dict(proposal.narrowing),
        }
        for point, proposal in zip(points, advice.proposals, strict=True)
    ]


def recommendation_text(advice: Recommendation, points: Sequence[DesignPoint], order: SamplingProblem) -> str:
    """Return the recommendation for a person: estimates, next runs and reasons, further cost."""
    lines = [f"note: {note}" for note in (*order.notes, *advice.warnings)]
    if advice.estimates is not None:
        where = f" on {order.mixes[0]}" if order.space.categories else ""
        lines.append(f"what is known{where}, with {advice.estimates.level:.0%} intervals:")
        rows = _rows(advice.estimates)
        wide = max(len(_named(target)) for target, *_ in rows)
        for target, value, lo, hi in rows:
            lines.append(f"  {_named(target):<{wide}}  {_interval(value, lo, hi)}")
        if len(order.mixes) > 1:
            lines.append(
                f"asked about the mix {order.mixes[0]}, one of {len(order.mixes)}; --mixes names another first"
            )
    halving = (
        f"halving the widest interval is expected to take about {advice.flops_to_halve:.3g} FLOP"
        if advice.flops_to_halve is not None and math.isfinite(advice.flops_to_halve)
        else ""
    )
    little = bool(points) and all(
        one.narrowing and to_reason(one, advice).mean_narrowing < _LITTLE for one in advice.proposals
    )
    if little:
        beside = f"; {halving}" if halving else ""
        lines.append(
            f"no run tells much by itself: each narrows the intervals by under {_LITTLE:.0%} in the mean{beside}"
        )
    if points:
        lines.append(_table(advice, points))
        lines.append(
            f"cost: C and an overhead of {order.space.overhead:.3g} FLOP a run (sample.overhead); narrowing: by that "
            "run alone. The plan is for the whole budget, and begins with its cheapest runs"
        )
    if advice.stop_reason is not None:
        lines.append(stop_text(advice, order))
    if advice.expected_half_width is not None:
        lines.append(
            f"when the budget of {order.budget:.3g} FLOP is spent, the widest is expected at {_factor(advice.expected_half_width)}"
        )
    if halving and not little:
        lines.append(halving)
    return "\n".join(lines)


def widths(answer: TargetEstimates) -> dict[str, float]:
    """Half width of each known interval, and the widest, by names that can be metrics."""
    found = {width_name(target): (hi - lo) / 2 for target, _, lo, hi in _rows(answer)}
    return {
        name: half for name, half in {**found, "half_width": answer.widest_half_width}.items() if math.isfinite(half)
    }


def width_name(target: Target) -> str:
    """The metric of a target's half width, as in ``half_width/code - prose 1e21``."""
    other = f" - {target.other}" if target.other else ""
    return f"half_width/{target.skill}{other} {target.C:.3g}".replace("+", "")


def stop_text(advice: Recommendation, order: SamplingProblem) -> str:
    """Why there is nothing to run."""
    widest = (
        "" if advice.estimates is None else f": the widest interval is {_factor(advice.estimates.widest_half_width)}"
    )
    if advice.stop_reason is StopReason.PRECISE:
        return f"precise enough{widest}, and {_factor(order.width)} was asked for"
    if advice.stop_reason is StopReason.EXHAUSTED:
        return f"all that may be run has been, as often as replicates allows{widest}; raise it, or allow other runs"
    if advice.stop_reason is StopReason.SPENT:
        runs = "" if order.runs is None else f", or of {order.runs} runs,"
        return f"the budget of {order.budget:.3g} FLOP{runs} is spent{widest}; raise it to go on"
    return f"no run is worth its cost any more{widest}"


def _table(advice: Recommendation, points: Sequence[DesignPoint]) -> str:
    """One row for runs that are alike but for their seeds."""
    mixed = len({str(point.mix) for point in points}) > 1 or len(points[0].mix.shares) > 1
    seeds: dict[tuple[str, str], list[str]] = {}
    for point, proposal in zip(points, advice.proposals, strict=True):
        what = f"{point.flops:>10.3g}{point.n_params:>18,}{point.n_tokens:>22,}{point.n_tokens / point.n_params:>9.3g}"
        why = f"{proposal.cost:>10.3g}  {to_reason(proposal, advice).sentence}" + (f"; on {point.mix}" if mixed else "")
        seeds.setdefault((what, why), []).append(str(point.seed))
    several = len(seeds) < len(points)
    rows = [(what, f"x{len(own)}" if several else "", ",".join(own), why) for (what, why), own in seeds.items()]
    wide, times = max(7, *(len(own) + 2 for _, _, own, _ in rows)), 6 if several else 0
    head = f"{'C':>10}{'N':>18}{'D':>22}{'D/N':>9}{'runs' * several:>{times}}{'seed':>{wide}}{'cost':>10}  why"
    return "\n".join([head, *(f"{what}{n:>{times}}{own:>{wide}}{why}" for what, n, own, why in rows)])


def _rows(answer: TargetEstimates) -> list[tuple[Target, float, float, float]]:
    """Targets with value and interval, which are logarithms."""
    columns = (answer.value.tolist(), answer.lo.tolist(), answer.hi.tolist())
    return list(zip(answer.targets, *columns, strict=True))


def _named(target: Target) -> str:
    return f"{_NAMES[target.quantity].format(skill=target.skill, other=target.other)} at {format_flops(target.C)}"


def _interval(value: float, lo: float, hi: float) -> str:
    if not (math.isfinite(value) and hi - lo < 2 * _NOT_KNOWN):
        return "not known yet"
    return format_interval(math.exp(value), math.exp(lo), math.exp(hi), format_count)


def _factor(half_width: float) -> str:
    """A half width in ln N as a factor: ``a factor of 1.3 up or down``."""
    return f"a factor of {math.exp(half_width):.3g} up or down" if half_width < _NOT_KNOWN else "not known yet"


def _mix(proposal: Proposal, order: SamplingProblem) -> Mix:
    if not order.mixes:
        return _ALL
    if not proposal.h:
        return order.mixes[0]
    shares: Mapping[str, float] = dict(zip(order.space.categories, proposal.h, strict=True))
    asked = [mix for mix in order.mixes if all(abs(mix.shares.get(n, 0) - s) < 1e-9 for n, s in shares.items())]
    return asked[0] if asked else Mix(shares)
