"""The plan of a run as text for the terminal, as plain values for ``--json``, and what the runs leave open in words."""

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skillscale.formatting import format_count, format_flops, join_words
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
from skillscale.laws.results import Interval, SizeGap, Verdict
from skillscale.report.tables import MAX_WIDTH, align_columns
from skillscale.report.weighted_optima import (
    best_mix_as_dict,
    interval_ends,
    loss_text,
    mismatch_as_dict,
    optimum_as_dict,
    ratio_text,
    share_text,
    size_gap_as_dict,
    size_text,
)

_P = re.compile(r" \(p = [^)]*\)")  # by which the same doubt differs between skills
_DOUBTS = 8  # shown in the terminal
_SMALL = 0.05  # shares below this are left out where several mixes are told in one line
_NOTHING = 1e-9  # of a cost: that of the planned size itself
_NEVER = 100.0  # in units of C: what would take more is said not to be made up for


@dataclass(frozen=True, kw_only=True)
class PlanContext:
    """What plans were asked of: ``budgets`` in words, ``skills`` without aggregates, the ``convention`` of N.

    ``mixless``: why nothing is told of other mixes, where it is not.
    """

    budgets: tuple[str, ...]
    skills: tuple[str, ...]
    convention: str
    mix_given: bool
    level: float
    mixless: str


def plan_as_dict(one: Plan, asked: PlanContext, at: int) -> dict[str, Any]:
    """What ``plan --json`` prints of one budget; null is unknown, and a price that no compute makes up for."""
    optimum = one.optimum
    told = {name: _loss_of(one, name) for name in one.losses}
    return {
        **optimum_as_dict(optimum), "budget": asked.budgets[at], "extrapolation": optimum.extrapolation,
        "tokens_interval": interval_ends(optimum.D), "worth": dict(optimum.weights),
        "mix": {name: share.value for name, share in optimum.mix.items()},
        "loss": one.loss.value, "loss_interval": interval_ends(one.loss), "losses": told,
        "residuals": {each.skill: size_gap_as_dict(each) for each in one.size_gaps},
        "prices": [_plain_price(each) for each in one.size_costs],
        "cheap": _plain_cheap(one.near_optimal),
        "frontiers": [_plain_frontier(each) for each in one.frontiers],
        "best_mix": None if one.best is None else best_mix_as_dict(one.best) | {
            "losses": {name: _valued(each) for name, each in one.best_losses.items()}
        },
        "validation": None if one.validation_cost is None else _plain_misled(one.validation_cost),
        "not_told": undetermined(one, asked),
    }  # fmt: skip


def _loss_of(one: Plan, name: str) -> dict[str, Any]:
    own = one.skill_optima[name].N
    return {
        "loss": one.losses[name].value, "interval": interval_ends(one.losses[name]), "scatter": one.scatter[name],
        "own_n_params": {"value": own.value, "interval": interval_ends(own)},
    }  # fmt: skip


def _valued(value: Interval) -> dict[str, Any]:
    return {"value": value.value, "interval": interval_ends(value)}


def _plain_price(one: SizeCost) -> dict[str, Any]:
    return {
        "n_params": one.N, "n_tokens": one.D, "more": _valued(one.excess), "compute": _valued(one.compute),
        "change": _valued(one.change), "asked": one.requested,
    }  # fmt: skip


def _plain_cheap(one: NearOptimalSizes) -> dict[str, Any]:
    return {
        "tolerance": one.tolerance, "n_params": [one.lo, one.hi], "sure": [one.confident_lo, one.confident_hi],
        "chance": one.chance,
    }  # fmt: skip


def _plain_frontier(one: TradeoffFrontier) -> dict[str, Any]:
    return {
        "skill": one.skill, "rest": dict(one.rest), "planned": one.planned, "with_mix": one.with_mix,
        "steps": [_plain_step(step) for step in one.points],
    }  # fmt: skip


def _plain_step(one: TradeoffPoint) -> dict[str, Any]:
    return {
        "weight": one.weight, "n_params": one.N.value, "interval": interval_ends(one.N), "n_tokens": one.D, "mix": dict(one.mix),
        "loss": one.skill_loss, "rest_loss": one.rest_loss, "change": _valued(one.skill_change),
        "rest_change": _valued(one.rest_change),
    }  # fmt: skip


def _plain_misled(one: ValidationChoiceCost) -> dict[str, Any]:
    return {
        "weights": dict(one.optimum.weights), "n_params": one.optimum.N.value, "interval": interval_ends(one.optimum.N),
        "n_tokens": one.optimum.D.value, **mismatch_as_dict(one.effect),
        "best_mix": None if one.best is None else best_mix_as_dict(one.best) | {"change": _valued(one.best_change)},
    }  # fmt: skip


def undetermined(one: Plan, asked: PlanContext) -> list[str]:
    """What the runs do not tell about this plan, in sentences."""
    optimum, said = one.optimum, []
    if optimum.extrapolation > 1.01:
        said.append(
            f"What happens beyond {format_flops(optimum.C / optimum.extrapolation)} FLOP, the largest run: this plan is "
            f"{optimum.extrapolation:.3g} times that, where the form of the law alone carries it."
        )
    known = [note for note in optimum.reason.split("; ") if "times the largest" not in note]
    if any(known):
        said.append(f"{_capital('; '.join(known))}.")
    if optimum.N.is_finite and not math.isfinite(one.near_optimal.confident_lo):
        said.append(
            f"N* to within {100 * one.near_optimal.tolerance:.3g} % of compute: the planned N loses less than that in "
            f"{100 * one.near_optimal.chance:.0f} % of the draws, and no size does in enough of them to be sure."
        )
    open_ = [each.skill for each in one.size_gaps if each.verdict is Verdict.UNRESOLVED and each.value.is_finite]
    open_ = [name for name in open_ if name in asked.skills and optimum.weights.get(name) != 1]
    if open_:
        said.append(f"Whether the N* of {join_words(open_)} alone is larger or smaller than the plan's.")
    if one.best is None:
        said.append(f"What another mix would do: {asked.mixless}.")
    else:
        notes = [note for note in one.best.reason.split("; ") if note not in optimum.reason.split("; ")]
        said += [f"{_capital('; '.join(notes))}."] if notes else []
    return said


def plan_text(plans: Sequence[Plan], laws: Mapping[str, SkillLaw], asked: PlanContext) -> str:
    """All that a plan says, budget by budget; then which laws it rests on and what is doubted about them."""
    blocks = ["\n".join(_block(one, asked, at)) for at, one in enumerate(plans)]
    return "\n\n\n".join([*blocks, "\n".join(_foot(laws, asked.level))])


def _block(one: Plan, asked: PlanContext, at: int) -> list[str]:
    optimum = one.optimum
    weights = " + ".join(f"{weight:.3g} {name}" for name, weight in optimum.weights.items() if weight)
    lines = [f"plan for {asked.budgets[at]}", f"worth: {weights}{_mix_told(optimum, asked)}", ""]
    per = (
        f", {format_count(optimum.D.value / optimum.N.value, 2)} a parameter" if math.isfinite(optimum.N.value) else ""
    )
    counted = f" parameters{f' ({asked.convention})' if asked.convention else ''}" if per else ""
    lines += [
        f"N*    {size_text(optimum.N)}{counted}",
        f"D*    {size_text(optimum.D)}{f' tokens{per}' if per else ''}",
        f"loss  {loss_text(one.loss)}{' nats per token, by worth' if per else ''}",
        "", *_skill_table(one, asked.skills, asked.level), "", *_price_table(one),
    ]  # fmt: skip
    if one.frontiers:
        lines += ["", *_frontier_tables(one.frontiers, asked.skills)]
    if one.best is not None:
        lines += ["", *_best_lines(one.best, one.best_losses)]
    if one.validation_cost is not None:
        lines += ["", *_misled_lines(one.validation_cost)]
    unknown = undetermined(one, asked)
    if unknown:
        lines += ["", "what the runs do not tell:", *(line for said in unknown for line in _wrapped(f"- {said}"))]
    return lines


def _mix_told(optimum: Optimum, asked: PlanContext) -> str:
    if not optimum.mix:
        return ""
    shares = ", ".join(f"{name} {share.value:.3g}" for name, share in optimum.mix.items())
    return f"\nmix: {shares}{'' if asked.mix_given else ' (the mean of the runs)'}"


def _skill_table(one: Plan, skills: Sequence[str], level: float) -> list[str]:
    names = list(one.losses)
    by_name = {each.skill: each for each in one.size_gaps}
    return _table(
        [
            ["skill", *names],
            ["loss at N*", *(loss_text(one.losses[name]) for name in names)],
            ["one run, ±", *(f"{100 * one.scatter[name]:.2g} %" for name in names)],
            ["its own N*", *(size_text(one.skill_optima[name].N) for name in names)],
            ["against the plan's", *(ratio_text(by_name[name].value) for name in names)],
            ["", *(_verdict(by_name[name], level) if name in skills else "" for name in names)],
        ]
    )


def _table(columns: Sequence[list[str]]) -> list[str]:
    """Without columns that are empty."""
    filled = [column for column in columns if any(column[1:])]
    return align_columns(filled) if filled else []


def _verdict(one: SizeGap, level: float) -> str:
    return "" if one.verdict is Verdict.UNRESOLVED else one.describe_verdict(level)


def _price_table(one: Plan) -> list[str]:
    planned = one.optimum.N.value
    marks = ["asked" if each.requested else "N*" if math.isclose(each.N, planned) else "" for each in one.size_costs]
    lines = _table(
        [
            ["N", *(format_count(each.N, 3) for each in one.size_costs)],
            ["D", *(format_count(each.D, 2) for each in one.size_costs)],
            ["loss above the least", *(_more(each.excess) for each in one.size_costs)],
            ["compute to make up for it, % of C", *(_compute(each.compute) for each in one.size_costs)],
            ["", *marks],
        ]
    )
    cheap, share = one.near_optimal, f"{100 * one.near_optimal.tolerance:.3g} %"
    if math.isfinite(cheap.lo):
        told = f"By the law, sizes from {format_count(cheap.lo, 2)} to {format_count(cheap.hi, 2)} cost less than {share} of C"
        sure = (
            f"; surely so from {format_count(cheap.confident_lo, 2)} to {format_count(cheap.confident_hi, 2)}."
            if math.isfinite(cheap.confident_lo)
            else f"; in the draws N* itself does in {100 * cheap.chance:.0f} %, for N* is not known better."
        )
        lines += _wrapped(told + sure)
    return lines


def _more(value: Interval) -> str:
    if not value.is_finite:
        return "–" if math.isnan(value.value) else f"{value.value:.2g}"
    if value.value < _NOTHING:
        return f"0, at most {value.hi:.2g}"
    return f"{value.value:.2g} [{value.lo:.2g}, {value.hi:.2g}]"


def _compute(value: Interval) -> str:
    told, lo, hi = (_share(each) for each in (value.value, value.lo, value.hi))
    if math.isnan(value.lo):
        return told
    return f"0, at most {hi}" if value.value < _NOTHING else f"{told} [{lo}, {hi}]"


def _share(value: float) -> str:
    if math.isnan(value):
        return "–"
    if value > _NEVER:
        return "∞"
    percent = 100 * value
    return f"{percent:.2g}" if percent < 99.5 else f"{percent:.0f}"


def _frontier_tables(several: Sequence[TradeoffFrontier], skills: Sequence[str]) -> list[str]:
    lines, told = [], {one.skill for one in several}
    for with_mix in (False, True):
        some = [one for one in several if one.with_mix is with_mix and len(one.points) > 1]
        if some:
            what = "N and the mix follow" if with_mix else "N follows"
            lines += ["", f"as a skill's weight goes from 0 to 1 and {what} {_rest_told(some)}:"]
            lines += _frontier_table(some, with_mix=with_mix)
            lines += (
                [f"({join_words([name for name in skills if name not in told])}: the reverse)"]
                if len(told) == 1
                else []
            )
    return lines[1:]


def _rest_told(some: Sequence[TradeoffFrontier]) -> str:
    """How the others are weighed among themselves."""
    alike = all(len(set(one.rest.values())) <= 1 for one in some)
    return "(the rest all alike)" if alike else "(the rest as worth has it, or alike where it names no other)"


def _frontier_table(some: Sequence[TradeoffFrontier], *, with_mix: bool) -> list[str]:
    first, middle, last = ([_step_at(one, weight) for one in some] for weight in (0.0, 0.5, 1.0))
    columns = [
        ["skill", *(one.skill for one in some)],
        ["weight in the plan", *(f"{one.planned:.2g}" for one in some)],
        *(
            [title, *(format_count(step.N.value, 2) if step else "none" for step in steps)]
            for title, steps in (("N* at 0", first), ("at 0.5", middle), ("at 1", last))
        ),
        ["at 1: its loss", *(ratio_text(step.skill_change) if step else "" for step in last)],
        ["the rest's", *(ratio_text(step.rest_change) if step else "" for step in last)],
    ]
    if with_mix:
        columns.append(["mix at 1", *(_shares(step.mix) if step else "" for step in last)])
    return align_columns(columns)


def _step_at(one: TradeoffFrontier, weight: float) -> TradeoffPoint | None:
    """None where that weight has no optimum."""
    return next((step for step in one.points if math.isclose(step.weight, weight, abs_tol=1e-9)), None)


def _shares(mix: Mapping[str, float]) -> str:
    large = [f"{name} {share:.2f}" for name, share in mix.items() if share >= _SMALL]
    return ", ".join([*large, *(["…"] if len(large) < len(mix) else [])])


def _best_lines(best: Optimum, losses: Mapping[str, Interval]) -> list[str]:
    lines = [
        "the best mix, each share within what the runs had, with the N that is best there:",
        *align_columns([["category", *best.mix], ["share", *(share_text(share) for share in best.mix.values())]]),
    ]
    changes = [f"{name} {loss_text(loss)}" for name, loss in losses.items()]
    return lines + _wrapped(
        f"N* {size_text(best.N)}, D* {size_text(best.D)}, loss {loss_text(best.loss)}; {', '.join(changes)}"
    )


def _misled_lines(one: ValidationChoiceCost) -> list[str]:
    effect, chosen = one.effect, one.optimum
    weights = " + ".join(f"{weight:.3g} {name}" for name, weight in chosen.weights.items() if weight)
    told = (
        f"N {size_text(chosen.N)}, D {size_text(chosen.D)}; N is {ratio_text(effect.shift)} off, which costs "
        f"{_more(effect.cost)} nats per token by worth, {_compute(effect.compute)} % of C."
        if math.isfinite(effect.shift.value)
        else "no N, for there is no optimum."
    )
    lines = _wrapped(f"chosen by a validation set of {weights}: {told}")
    if effect.largest.is_finite:
        low, high = effect.extremes
        apart = effect.largest.map(math.log1p)
        lines += _wrapped(
            f"Of all compositions of the skills those furthest apart are {low} alone and {high} alone: N* of {high} is "
            f"{ratio_text(apart)} from that of {low}."
        )
    if one.best is not None:
        shares = _shares({name: share.value for name, share in one.best.mix.items()})
        lines += _wrapped(
            f"With the mix free it would have chosen {shares} and N {size_text(one.best.N)}: "
            f"{_more_or_less(one.best_change)} nats per token by worth."
        )
    return lines + [f"  {note}" for note in [effect.reason] if note]


def _more_or_less(value: Interval) -> str:
    return f"{value.value:+.2g} [{value.lo:+.2g}, {value.hi:+.2g}]" if value.is_finite else f"{value.value:+.2g}"


def _foot(laws: Mapping[str, SkillLaw], level: float) -> list[str]:
    percent = f"{100 * level:.3g} %"
    lines = _wrapped(
        f"In brackets: {percent} intervals, over the runs' errors and over the laws that predicted about as well. Of a "
        "loss they are those of the law, the mean of many runs; one run falls about it by its ± (one sd). Loss above "
        "the least and compute are against the best size, wherever that lies: those of N* are what not knowing it "
        "costs. ∞: no number of tokens makes up for that size."
    )
    by_law: dict[str, list[str]] = {}
    for name, one in laws.items():
        by_law.setdefault(weighted_law_names(one), []).append(name)
    lines += [line for told, names in by_law.items() for line in _wrapped(f"laws of {', '.join(names)}: {told}")]
    by_doubt: dict[str, list[str]] = {}
    for name, one in laws.items():
        for doubt in one.warnings:
            by_doubt.setdefault(_P.sub("", doubt), []).append(name)
    doubts = [f"- {', '.join(names)}: {doubt}" for doubt, names in by_doubt.items()]
    if doubts:
        lines += ["doubts about the laws:", *(line for doubt in doubts[:_DOUBTS] for line in _wrapped(doubt))]
    if len(doubts) > _DOUBTS:
        lines.append(f"- {len(doubts) - _DOUBTS} more: --json tells them")
    return lines


def weighted_law_names(one: SkillLaw) -> str:
    """The chosen law and its rivals with their weights."""
    return (
        ", ".join(f"{each.law.name} {each.weight:.2f}" for each in (one, *one.rivals)) if one.rivals else one.law.name
    )


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, MAX_WIDTH, subsequent_indent="  ")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
