"""Doubts about fitted laws: contradictions between results, and failed checks of a fit, each with its cure.

Laws, isoFLOP curves and confirmed verdicts go in, doubts by skill come out. A doubt changes no number.
"""

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from skillscale.formatting import format_count, format_flops, format_log_ratio
from skillscale.laws.fit.request import UnfittedSkill
from skillscale.laws.fit.skill_law import FittedLaw
from skillscale.laws.optimum.ensemble import SkillLaw
from skillscale.laws.optimum.identification import identify, optimum_reason
from skillscale.laws.results import Interval, StudyResults
from skillscale.laws.skills.verdicts import ConfirmedVerdict
from skillscale.laws.uncertainty.diagnostics import Cure

MAX_DOUBTS = 3  # doubts that a person reads about a skill
_HELD_OUT = 0.25  # share of the logarithm of the compute's range that a backtest holds out
_ROUNDING = 0.02  # distance in ln N* from the range of the skills that is no contradiction


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """A reason to distrust what is printed about a skill, and the command that removes it.

    ``command``: subcommand with its options, without the source of the runs.
    """

    skill: str
    text: str
    command: str


def doubts_by_skill(
    laws: Mapping[str, SkillLaw | UnfittedSkill], flops: Sequence[float], *, curves: StudyResults | None = None,
    parts: Mapping[str, Sequence[str]] | None = None, mixes: Mapping[str, str] | None = None,
    verdicts: Sequence[ConfirmedVerdict] = (),
) -> dict[str, tuple[Doubt, ...]]:  # fmt: skip
    """Return the doubts of each skill that has some, the gravest first.

    Args:
        laws: laws by skill and aggregate.
        flops: compute of the optima, FLOP.
        curves: isoFLOP curves.
        parts: skills that each aggregate is a weighted mean of.
        mixes: mix of each law, where mixes have names without shares.
        verdicts: verdicts on two splits.
    """
    mixes = mixes or {}
    doubts = [
        *(
            doubt
            for aggregate, names in (parts or {}).items()
            for doubt in _outside_its_parts(laws, flops, curves, aggregate, names, mixes.get(aggregate, ""))
        ),
        *(doubt for verdict in verdicts for doubt in _far_apart(verdict)),
        *(doubt for name, law in laws.items() for doubt in _of_law(name, law, flops, mixes.get(name, ""))),
    ]
    names = dict.fromkeys(doubt.skill for doubt in doubts)
    return {name: tuple(doubt for doubt in doubts if doubt.skill == name) for name in names}


def _outside_its_parts(
    laws: Mapping[str, SkillLaw | UnfittedSkill], flops: Sequence[float], curves: StudyResults | None, aggregate: str,
    names: Sequence[str], mix: str,
) -> Iterator[Doubt]:  # fmt: skip
    """Yield a doubt for an aggregate whose N* is outside the range of its skills, which no weighted mean allows."""
    whole = laws.get(aggregate)
    fitted = [law for law in (laws.get(name) for name in names) if isinstance(law, FittedLaw)]
    if not isinstance(whole, FittedLaw) or len(fitted) < len(names):
        return
    by_law = [("law", C, whole.ensemble_optimum(C), [law.ensemble_optimum(C) for law in fitted]) for C in flops]
    by_curve = [] if curves is None else _minima(curves, aggregate, names, mix)
    texts = (_outside_text(aggregate, *candidate) for candidate in (*by_law, *by_curve))
    text = next((text for text in texts if text), "")
    if text:
        yield Doubt(skill=aggregate, text=text, command=_command(Cure.COMPARE_LAWS, whole, mix))


def _minima(
    curves: StudyResults, aggregate: str, names: Sequence[str], mix: str
) -> Iterator[tuple[str, float, Interval, list[Interval]]]:
    """Yield the isoFLOP optimum of an aggregate and those of its skills, where all of them exist."""
    prefix = f"{mix}/" if mix else ""
    optima = {(minimum.mix, minimum.C, minimum.skill): minimum.N for minimum in curves.minima if minimum.N.is_finite}
    for (at, C, skill), N in optima.items():
        if prefix + skill != aggregate or mix not in ("", at):
            continue
        others = [optima.get((at, C, name.removeprefix(prefix))) for name in names]
        if None not in others:
            yield "isoFLOP curve", C, N, [other for other in others if other is not None]


def _outside_text(aggregate: str, method: str, C: float, N: Interval, others: Sequence[Interval]) -> str:
    sizes = [other.value for other in others]
    if not sizes or not all(math.isfinite(size) and size > 0 for size in (N.value, *sizes)):
        return ""
    above, below = math.log(N.value / max(sizes)), math.log(min(sizes) / N.value)
    if max(above, below) <= _ROUNDING:
        return ""
    side = "above" if above > below else "below"
    return (
        f"N* of {aggregate} at {format_flops(C)} FLOP, {format_count(N.value, 2)} by its {method}, lies {side} the N* "
        f"of all its skills ({format_count(min(sizes), 2)} to {format_count(max(sizes), 2)}). No weighted mean can do "
        f"that, so a {method} is off there."
    )


def _far_apart(verdict: ConfirmedVerdict) -> Iterator[Doubt]:
    """Yield a doubt where both splits exclude zero but their intervals do not touch."""
    if verdict.splits_are_disjoint:
        first, second = verdict.hypothesis.value, verdict.held_out.value
        yield Doubt(
            skill=verdict.skill,
            text=f"The size gap depends on the data sets: {_gap_text(first)} on one split, {_gap_text(second)} on the "
            "other. Only its sign is confirmed. More runs show whether noise is the cause.",
            command=Cure.MORE_RUNS,
        )


def _gap_text(gap: Interval) -> str:
    return f"{format_log_ratio(gap.value)} [{format_log_ratio(gap.lo)}, {format_log_ratio(gap.hi)}]"


def _of_law(name: str, law: SkillLaw | UnfittedSkill, flops: Sequence[float], mix: str) -> Iterator[Doubt]:
    if isinstance(law, UnfittedSkill):
        return
    reasons = (optimum_reason(law, C, identify(law, C)) for C in flops if math.isfinite(C))
    unknown = next((reason for reason in reasons if reason), "")
    if unknown:
        yield Doubt(skill=name, text=f"{unknown}.", command=_command(Cure.MORE_RUNS, law, mix))
    if law.reason:
        yield Doubt(skill=name, text=law.reason, command=_command(Cure.MORE_RUNS, law, mix))
    for diagnosis in law.diagnoses:
        yield Doubt(skill=name, text=diagnosis.text, command=_command(diagnosis.command, law, mix))


def _command(cure: Cure, law: SkillLaw, mix: str) -> str:
    """Return the subcommand with its options. A backtest holds out the largest quarter of the compute's range."""
    if cure is Cure.MORE_RUNS and mix:
        return f"{cure} --mix {shlex.quote(mix)}"
    if cure is not Cure.COMPARE_LAWS:
        return str(cure)
    least, largest = law.reach
    limit = largest / max(2.0, (largest / least) ** _HELD_OUT)
    return f"{cure} --max_flops {format_flops(limit, 2)}"
