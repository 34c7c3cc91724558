"""The plan of a training run as text for the terminal and as plain values for ``--json``, with its open questions."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from skillscale.formatting import (
    MISSING,
    JsonObject,
    format_count,
    format_flops,
    format_interval,
    format_number,
    format_percent,
    join_words,
)
from skillscale.laws.optimum.ensemble import SkillLaw
from skillscale.laws.optimum.optimum import Optimum
from skillscale.laws.optimum.plan import (
    NearOptimalSizes,
    Plan,
    SizeCost,
    TradeoffFrontier,
    TradeoffPoint,
    ValidationChoiceCost,
)
from skillscale.laws.results import Interval, SizeGap, Status, Verdict
from skillscale.laws.skills.doubts import Doubt
from skillscale.laws.uncertainty.diagnostics import Cure
from skillscale.report.doubts import MAX_LINES, doubt_lines
from skillscale.report.optimum_text import (
    best_mix_as_dict,
    interval_ends,
    loss_text,
    mismatch_as_dict,
    optimum_as_dict,
    ratio_text,
    share_text,
    size_gap_as_dict,
    size_text,
    weights_text,
)
from skillscale.report.tables import MAX_WIDTH, align_columns

_SMALL_SHARE = 0.05  # smaller shares are not shown where a mix is one cell of a table
_NO_COST = 1e-9  # cost of the planned size itself, up to rounding
_MAX_COMPUTE = 100.0  # in units of C; a larger cost is shown as infinite


@dataclass(frozen=True, kw_only=True)
class PlanContext:
    """The request behind the plans.

    Args:
        budgets: words for each budget.
        skills: names of the skills, without aggregates.
        convention: words for what N counts.
        mix_given: whether the user gave the mix; otherwise it is the mean of the runs.
        level: level of the intervals, 0 to 1.
        mixless: reason why other mixes are not compared, or empty.
        source: options that name the runs of the laws to a command; empty where these are unknown.
        doubts: doubts about each law, the gravest first.
    """

    budgets: tuple[str, ...]
    skills: tuple[str, ...]
    convention: str
    mix_given: bool
    level: float
    mixless: str
    source: str = ""
    doubts: Mapping[str, Sequence[Doubt]] = field(default_factory=dict)


def plan_as_dict(plan: Plan, context: PlanContext, at: int) -> JsonObject:
    """Return what ``plan --json`` prints for one budget.

    Null means unknown, or a cost that no amount of compute makes up for.
    """
    optimum = plan.optimum
    return {
        **optimum_as_dict(optimum), "budget": context.budgets[at], "extrapolation": optimum.extrapolation,
        "tokens_interval": interval_ends(optimum.D), "worth": dict(optimum.weights),
        "mix": {name: share.value for name, share in optimum.mix.items()},
        "loss": plan.loss.value, "loss_interval": interval_ends(plan.loss),
        "losses": {name: _skill_as_dict(plan, name) for name in plan.losses},
        "residuals": {gap.skill: size_gap_as_dict(gap) for gap in plan.size_gaps},
        "prices": [_size_cost_as_dict(cost) for cost in plan.size_costs],
        "cheap": _near_optimal_as_dict(plan.near_optimal, identified=not optimum.identification.prior_decides),
        "frontiers": [_frontier_as_dict(frontier) for frontier in plan.frontiers],
        "best_mix": None if plan.best is None else best_mix_as_dict(plan.best) | {
            "losses": {name: _interval_as_dict(loss) for name, loss in plan.best_losses.items()}
        },
        "validation": None if plan.validation_cost is None else _validation_as_dict(plan.validation_cost),
        "not_told": undetermined(plan, context),
    }  # fmt: skip


def _skill_as_dict(plan: Plan, name: str) -> JsonObject:
    loss = plan.losses[name]
    return {
        "loss": loss.value, "interval": interval_ends(loss), "scatter": plan.scatter[name],
        "own_n_params": _interval_as_dict(plan.skill_optima[name].N),
    }  # fmt: skip


def _interval_as_dict(value: Interval) -> JsonObject:
    return {"value": value.value, "interval": interval_ends(value)}


def _size_cost_as_dict(cost: SizeCost) -> JsonObject:
    return {
        "n_params": cost.N, "n_tokens": cost.D, "more": _interval_as_dict(cost.excess),
        "compute": _interval_as_dict(cost.compute), "change": _interval_as_dict(cost.change), "asked": cost.requested,
    }  # fmt: skip


def _near_optimal_as_dict(sizes: NearOptimalSizes, *, identified: bool) -> JsonObject:
    sure = [sizes.confident_lo, sizes.confident_hi] if identified else [math.nan, math.nan]
    return {
        "tolerance": sizes.tolerance, "n_params": [sizes.lo, sizes.hi], "sure": sure, "chance": sizes.chance,
    }  # fmt: skip


def _frontier_as_dict(frontier: TradeoffFrontier) -> JsonObject:
    return {
        "skill": frontier.skill, "rest": dict(frontier.rest), "planned": frontier.planned,
        "with_mix": frontier.with_mix, "steps": [_tradeoff_as_dict(point) for point in frontier.points],
    }  # fmt: skip


def _tradeoff_as_dict(point: TradeoffPoint) -> JsonObject:
    return {
        "weight": point.weight, "n_params": point.N.value, "interval": interval_ends(point.N), "n_tokens": point.D,
        "mix": dict(point.mix), "loss": point.skill_loss, "rest_loss": point.rest_loss,
        "change": _interval_as_dict(point.skill_change), "rest_change": _interval_as_dict(point.rest_change),
    }  # fmt: skip


def _validation_as_dict(cost: ValidationChoiceCost) -> JsonObject:
    chosen = cost.optimum
    best = None
    if cost.best is not None:
        best = best_mix_as_dict(cost.best) | {"change": _interval_as_dict(cost.best_change)}
    return {
        "weights": dict(chosen.weights), "n_params": chosen.N.value, "interval": interval_ends(chosen.N),
        "n_tokens": chosen.D.value, **mismatch_as_dict(cost.effect), "best_mix": best,
    }  # fmt: skip


def undetermined(plan: Plan, context: PlanContext) -> list[str]:
    """Return what the runs do not determine about this plan, in sentences."""
    optimum, sizes, sentences = plan.optimum, plan.near_optimal, []
    if optimum.extrapolation > 1.01:
        sentences.append(
            f"Extrapolation: the largest run has {format_flops(optimum.C / optimum.extrapolation)} FLOP. This plan is "
            f"{format_number(optimum.extrapolation)} times larger and relies on the form of the law."
        )
    notes = [note.rstrip(".") for note in optimum.reason.split("; ") if "times the largest run" not in note]
    if any(notes):
        sentences.append(f"{_capital('; '.join(notes)).rstrip('.')}.")
    if optimum.N.is_finite and not math.isfinite(sizes.confident_lo):
        sentences.append(
            f"N* to within {format_percent(sizes.tolerance, 3)} of compute: the planned N meets this limit in "
            f"{100 * sizes.chance:.0f} % of the draws, and no size meets it in enough of them."
        )
    unresolved = [gap.skill for gap in plan.size_gaps if gap.verdict is Verdict.UNRESOLVED and gap.value.is_finite]
    unresolved = [name for name in unresolved if name in context.skills and optimum.weights.get(name) != 1]
    if unresolved:
        sentences.append(f"Whether N* of {join_words(unresolved)} alone is larger or smaller than the planned N.")
    if plan.best is None:
        sentences.append(f"The effect of another mix: {context.mixless}.")
    else:
        notes = [note.rstrip(".") for note in plan.best.reason.split("; ") if note not in optimum.reason.split("; ")]
        cure = (
            f" Run: skillscale {Cure.MORE_RUNS} {context.source}"
            if plan.best.status is Status.ON_BOUND and context.source
            else ""
        )
        sentences += [f"{_capital('; '.join(notes))}.{cure.rstrip()}"] if any(notes) else []
    return sentences


def plan_text(plans: Sequence[Plan], laws: Mapping[str, SkillLaw], context: PlanContext) -> str:
    """Return the plans for the terminal, budget by budget, then their laws and the warnings about these."""
    blocks = ["\n".join(_plan_lines(plan, context, at)) for at, plan in enumerate(plans)]
    return "\n\n\n".join([*blocks, "\n".join(_footer(laws, context))])


def _plan_lines(plan: Plan, context: PlanContext, at: int) -> list[str]:
    optimum = plan.optimum
    has_optimum = math.isfinite(optimum.N.value)
    ratio = f", {format_count(optimum.D.value / optimum.N.value, 2)} per parameter" if has_optimum else ""
    counted = f" parameters{f' ({context.convention})' if context.convention else ''}" if has_optimum else ""
    decided = " (decided by weak priors, not by the runs)" if optimum.identification.prior_decides else ""
    lines = [
        f"plan for {context.budgets[at]}",
        f"weights: {weights_text(optimum.weights)}{_mix_line(optimum, context)}",
        "",
        f"N*    {size_text(optimum.N)}{counted}{decided}",
        f"D*    {size_text(optimum.D)}{f' tokens{ratio}' if has_optimum else ''}",
        f"loss  {loss_text(plan.loss)}{' nats per token, weighted' if has_optimum else ''}",
        "", *_skill_table(plan, context.skills, context.level), "", *_size_cost_table(plan),
    ]  # fmt: skip
    if plan.frontiers:
        lines += ["", *_frontier_tables(plan.frontiers, context.skills)]
    if plan.best is not None:
        lines += ["", *_best_mix_lines(plan.best, plan.best_losses)]
    if plan.validation_cost is not None:
        lines += ["", *_validation_lines(plan.validation_cost)]
    sentences = undetermined(plan, context)
    if sentences:
        lines += ["", "not determined by the runs:", *(line for text in sentences for line in _wrap(f"- {text}"))]
    return lines


def _mix_line(optimum: Optimum, context: PlanContext) -> str:
    if not optimum.mix:
        return ""
    shares = ", ".join(f"{name} {format_number(share.value)}" for name, share in optimum.mix.items())
    return f"\nmix: {shares}{'' if context.mix_given else ' (mean of the runs)'}"


def _skill_table(plan: Plan, skills: Sequence[str], level: float) -> list[str]:
    names = list(plan.losses)
    gaps = {gap.skill: gap for gap in plan.size_gaps}
    return _table(
        [
            ["skill", *names],
            ["loss at N*", *(loss_text(plan.losses[name]) for name in names)],
            ["one run, ±", *(format_percent(plan.scatter[name]) for name in names)],
            ["N* of the skill", *(size_text(plan.skill_optima[name].N) for name in names)],
            ["relative to the plan", *(ratio_text(gaps[name].value) for name in names)],
            ["", *(_verdict(gaps[name], level) if name in skills else "" for name in names)],
        ]
    )


def _table(columns: Sequence[list[str]]) -> list[str]:
    """Return the lines of a table, without empty columns."""
    filled = [column for column in columns if any(column[1:])]
    return align_columns(filled) if filled else []


def _verdict(gap: SizeGap, level: float) -> str:
    """Return whether a skill's N* is larger or smaller than the planned N: the plan is no paper's reference."""
    if gap.verdict is Verdict.UNRESOLVED:
        return ""
    side = "larger" if gap.verdict is Verdict.CAPACITY else "smaller"
    return gap.describe_verdict(level).replace(str(gap.verdict), f"{side} than the plan")


def _size_cost_table(plan: Plan) -> list[str]:
    costs, planned = plan.size_costs, plan.optimum.N.value
    marks = ["requested" if cost.requested else "N*" if math.isclose(cost.N, planned) else "" for cost in costs]
    lines = _table(
        [
            ["N", *(format_count(cost.N, 3) for cost in costs)],
            ["D", *(format_count(cost.D, 2) for cost in costs)],
            ["loss above the minimum", *(_excess_text(cost.excess) for cost in costs)],
            ["compute to make up for it, % of C", *(_compute_text(cost.compute) for cost in costs)],
            ["", *marks],
        ]
    )
    return lines if plan.optimum.identification.prior_decides else lines + _near_optimal_lines(plan.near_optimal)


def _near_optimal_lines(sizes: NearOptimalSizes) -> list[str]:
    if not math.isfinite(sizes.lo):
        return []
    text = (
        f"By the law, sizes from {format_count(sizes.lo, 2)} to {format_count(sizes.hi, 2)} cost less than "
        f"{format_percent(sizes.tolerance, 3)} of C."
    )
    if math.isfinite(sizes.confident_lo):
        text += (
            f" Sizes from {format_count(sizes.confident_lo, 2)} to {format_count(sizes.confident_hi, 2)} do so with "
            "confidence."
        )
    else:
        text += (
            f" N* itself meets this limit in only {100 * sizes.chance:.0f} % of the bootstrap draws, because it is "
            "uncertain."
        )
    return _wrap(text)


def _excess_text(value: Interval) -> str:
    if not value.is_finite:
        return format_number(value.value, 2) if math.isfinite(value.value) else _unbounded(value.value)
    if value.value < _NO_COST:
        return f"0, at most {format_number(value.hi, 2)}"
    return format_interval(value.value, value.lo, value.hi, lambda loss: format_number(loss, 2))


def _unbounded(value: float) -> str:
    return MISSING if math.isnan(value) else "∞"


def _compute_text(value: Interval) -> str:
    middle, lo, hi = (_share_of_compute(share) for share in (value.value, value.lo, value.hi))
    if math.isnan(value.lo):
        return middle
    return f"0, at most {hi}" if value.value < _NO_COST else f"{middle} [{lo}, {hi}]"


def _share_of_compute(value: float) -> str:
    if math.isnan(value) or value > _MAX_COMPUTE:
        return _unbounded(value)
    percent = 100 * value
    return format_number(percent, 2) if percent < 99.5 else f"{percent:.0f}"


def _frontier_tables(frontiers: Sequence[TradeoffFrontier], skills: Sequence[str]) -> list[str]:
    lines, shown = [], {frontier.skill for frontier in frontiers}
    for with_mix in (False, True):
        chosen = [frontier for frontier in frontiers if frontier.with_mix is with_mix and len(frontier.points) > 1]
        if chosen:
            free = "N* and the best mix" if with_mix else "N*"
            lines += ["", f"{free} as the weight of a skill goes from 0 to 1 {_describe_rest(chosen)}:"]
            lines += _frontier_table(chosen, with_mix=with_mix)
            others = [name for name in skills if name not in shown]
            lines += [f"({join_words(others)}: the reverse)"] if len(shown) == 1 else []
    return lines[1:]


def _describe_rest(frontiers: Sequence[TradeoffFrontier]) -> str:
    """Return how the other skills are weighted."""
    are_equal = all(len(set(frontier.rest.values())) <= 1 for frontier in frontiers)
    return "(others: equal weights)" if are_equal else "(others: weights of the plan, or equal where it has none)"


def _frontier_table(frontiers: Sequence[TradeoffFrontier], *, with_mix: bool) -> list[str]:
    first, middle, last = ([_point_at(frontier, weight) for frontier in frontiers] for weight in (0.0, 0.5, 1.0))
    columns = [
        ["skill", *(frontier.skill for frontier in frontiers)],
        ["weight in the plan", *(format_number(frontier.planned, 2) for frontier in frontiers)],
        *(
            [title, *(format_count(point.N.value, 2) if point else "none" for point in points)]
            for title, points in (("N* at 0", first), ("at 0.5", middle), ("at 1", last))
        ),
        ["at 1: its loss", *(ratio_text(point.skill_change) if point else "" for point in last)],
        ["loss of the others", *(ratio_text(point.rest_change) if point else "" for point in last)],
    ]
    if with_mix:
        columns.append(["mix at 1", *(_mix_cell(point.mix) if point else "" for point in last)])
    return align_columns(columns)


def _point_at(frontier: TradeoffFrontier, weight: float) -> TradeoffPoint | None:
    """Return the point of a weight, or None if there is no optimum."""
    return next((point for point in frontier.points if math.isclose(point.weight, weight, abs_tol=1e-9)), None)


def _mix_cell(mix: Mapping[str, float]) -> str:
    large = [f"{name} {share:.2f}" for name, share in mix.items() if share >= _SMALL_SHARE]
    return ", ".join([*large, *(["…"] if len(large) < len(mix) else [])])


def _best_mix_lines(best: Optimum, losses: Mapping[str, Interval]) -> list[str]:
    lines = [
        "best mix within the shares of the runs, with the best N there:",
        *align_columns([["category", *best.mix], ["share", *(share_text(share) for share in best.mix.values())]]),
    ]
    of_skills = ", ".join(f"{name} {loss_text(loss)}" for name, loss in losses.items())
    return lines + _wrap(f"N* {size_text(best.N)}, D* {size_text(best.D)}, loss {loss_text(best.loss)} ({of_skills})")


def _validation_lines(cost: ValidationChoiceCost) -> list[str]:
    effect, chosen = cost.effect, cost.optimum
    title = f"choice by a validation set of {weights_text(chosen.weights)}"
    lines = _wrap(f"{title}: {_validation_choice(cost)}")
    if effect.largest.is_finite:
        low, high = effect.extremes
        lines += _wrap(
            f"The optimum depends most on the weights between '{low} only' and '{high} only': N* of {high} differs by "
            f"{ratio_text(effect.largest.map(math.log1p))}."
        )
    if cost.best is not None:
        mix = _mix_cell({name: share.value for name, share in cost.best.mix.items()})
        change = format_interval(cost.best_change.value, cost.best_change.lo, cost.best_change.hi, _signed)
        lines += _wrap(
            f"With a free mix that set would choose {mix} and N {size_text(cost.best.N)}: {change} nats per token, "
            "weighted."
        )
    return lines + [f"  {note}" for note in [effect.reason] if note]


def _validation_choice(cost: ValidationChoiceCost) -> str:
    effect, chosen = cost.effect, cost.optimum
    if not math.isfinite(effect.shift.value):
        return "no N, because there is no optimum."
    return (
        f"N {size_text(chosen.N)}, D {size_text(chosen.D)}. This N differs from N* by {ratio_text(effect.shift)} and "
        f"costs {_excess_text(effect.cost)} nats per token, weighted, or {_compute_text(effect.compute)} % of C."
    )


def _signed(value: float) -> str:
    return format_number(value, 2, signed=True)


def _footer(laws: Mapping[str, SkillLaw], context: PlanContext) -> list[str]:
    lines = _wrap(
        f"Brackets: {format_percent(context.level, 3)} intervals over the errors of the runs and over the laws that "
        "predicted about as well. The interval of a loss is that of the law, the mean of many runs. A single run "
        "scatters about it by its ± (one standard deviation). 'Loss above the minimum' and 'compute to make up for it' "
        "compare each size with the true optimum in each draw. The values in the N* row are the cost of its "
        "uncertainty. ∞: no number of tokens makes up for that size."
    )
    by_law: dict[str, list[str]] = {}
    for name, law in laws.items():
        by_law.setdefault(weighted_law_names(law), []).append(name)
    lines += [line for law, names in by_law.items() for line in _wrap(f"laws of {', '.join(names)}: {law}")]
    doubts = doubt_lines(context.doubts, context.source, limit=MAX_LINES)
    return lines + (["doubts about the laws:", *(f"- {line}" for line in doubts)] if doubts else [])


def weighted_law_names(law: SkillLaw) -> str:
    """Return the law and its rivals with their weights."""
    if not law.rivals:
        return law.law.name
    return ", ".join(f"{candidate.law.name} {candidate.weight:.2f}" for candidate in (law, *law.rivals))


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, MAX_WIDTH, subsequent_indent="  ")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
