"""What a fitted study says: frozen values, each with its interval and its status, and the tables made of them.

Logarithms are natural, N in parameters, D in tokens, C in FLOP, L in nats per token. An interval is at the study's
``level`` (two-sided). A quantity that the runs can't give is NaN beside a status that says why, never a guess.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Array = npt.NDArray[np.float64]


class Status(StrEnum):
    """What became of a fit. Only ``OK`` carries numbers to rely on; the others say what the runs lack.

    An optimum ``ON_BOUND`` is good for the bounds it was given: other bounds would move it.
    """

    OK = "ok"
    TOO_FEW = "too few sizes"
    CONCAVE = "concave"
    NOT_BRACKETED = "not bracketed"
    TOO_FLAT = "too flat to locate"
    TOO_FEW_BUDGETS = "too few budgets"
    NOT_IDENTIFIED = "not identified"
    NO_MINIMUM = "no interior minimum"
    TOO_FEW_MIXES = "too few mixes"
    BEYOND = "beyond the runs"
    ON_BOUND = "on a bound"


class Verdict(StrEnum):
    """What a skill wants beside the aggregate; the first two only where the interval excludes zero."""

    CAPACITY = "capacity-hungry"
    DATA = "data-hungry"
    UNRESOLVED = "not resolved"


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its interval at the study's level; NaN bounds where none could be had."""

    value: float = math.nan
    lo: float = math.nan
    hi: float = math.nan

    @property
    def is_finite(self) -> bool:
        """Whether there is an estimate with both bounds."""
        return all(math.isfinite(x) for x in (self.value, self.lo, self.hi))

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.is_finite and (self.lo > 0 or self.hi < 0)

    def map(self, f: Callable[[float], float]) -> "Interval":
        """The interval of an increasing function of the quantity, such as exp."""
        return Interval(value=f(self.value), lo=f(self.lo), hi=f(self.hi)) if self.is_finite else Interval()


@dataclass(frozen=True, kw_only=True)
class IsoflopCurve:
    """The fitted isoFLOP curve: ln L = polynomial in x = ln N - ``centre``, lowest power first.

    ``shared`` curves: the first three coefficients, a parabola, are the budget's own, any further ones the skill's.
    """

    centre: float = field(metadata={"unit": "ln parameters"})
    coefficients: tuple[float, ...]
    N_min: float = field(metadata={"unit": "parameters, the smallest size fitted"})
    N_max: float = field(metadata={"unit": "parameters, the largest size fitted"})
    noise: float = field(metadata={"unit": "ln L, sd of a run about the curve"})

    def loss(self, N: npt.ArrayLike) -> Array:
        """L of the curve at sizes N, in nats per token."""
        x = np.log(np.asarray(N, dtype=float)) - self.centre
        return np.asarray(np.exp(np.polynomial.polynomial.polyval(x, self.coefficients)))


@dataclass(frozen=True, kw_only=True)
class IsoflopMinimum:
    """The compute optimum of one skill at one budget and mix.

    ``N``: N*(C) with interval (known only where ``status`` is ok); ``loss``: L at N*; ``curvature``: d2 ln L / d(ln N)2
    at N*, with interval; ``curve`` is there wherever a curve could be fitted, refused ones included; so are ``draws``:
    (n_draws, 2) ln N* and ln L at the estimated N* of the resamples, whose rows are the same for all skills, budgets
    and mixes.
    """

    mix: str
    skill: str
    C: float = field(metadata={"unit": "FLOP, nominal budget"})
    status: Status
    reason: str = field(metadata={"unit": "one sentence with the cure; empty where ok"})
    n_runs: int
    n_sizes: int
    N: Interval = field(default_factory=Interval)
    loss: float = math.nan
    curvature: Interval = field(default_factory=Interval)
    curve: IsoflopCurve | None = None
    draws: Array = field(default_factory=lambda: np.empty((0, 2)), repr=False, compare=False)

    @property
    def D(self) -> Interval:
        """D* = C / (6 N*), in tokens; its bounds are N's, exchanged."""
        if not self.N.is_finite:
            return Interval()
        return Interval(value=self.C / (6 * self.N.value), lo=self.C / (6 * self.N.hi), hi=self.C / (6 * self.N.lo))


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """N*(C) = k C^a through the minima of one skill: ln N* = ``intercept`` + a (ln C - ``centre``).

    ``draws``: (n_draws, 2) intercept and a of the resamples; the rows are the same resamples for every skill.
    """

    mix: str
    skill: str
    status: Status
    reason: str
    n_budgets: int
    a: Interval
    intercept: float
    centre: float = field(metadata={"unit": "ln FLOP"})
    level: float
    draws: Array = field(repr=False, compare=False)

    @property
    def k(self) -> float:
        """Coefficient of N* = k C^a."""
        return math.exp(self.intercept - self.a.value * self.centre)

    def N(self, C: float) -> Interval:
        """N* at any C, in parameters, with its interval; unknown where the power law is."""
        if self.status is not Status.OK:
            return Interval()
        step = math.log(C) - self.centre
        tails = ((1 - self.level) / 2, (1 + self.level) / 2)
        lo, hi = np.exp(np.quantile(self.draws[:, 0] + self.draws[:, 1] * step, tails))
        return Interval(value=math.exp(self.intercept + self.a.value * step), lo=float(lo), hi=float(hi))


@dataclass(frozen=True, kw_only=True)
class SizeGap:
    """ln N*(skill) - ln N*(aggregate) at a budget, or pooled over the budgets (``C`` is NaN).

    Pooled is the plain mean over the budgets that have both minima. Positive: the skill wants more parameters than the
    aggregate. ``p``: two-sided, of no difference; ``p_holm``: the same after Holm's step-down over the pooled
    comparisons with one aggregate in one mix, or over the losses of a plan (NaN elsewhere). ``verdict`` rests on the
    interval.
    """

    mix: str
    skill: str
    aggregate: str
    C: float
    status: Status
    reason: str
    n_budgets: int
    value: Interval
    p: float
    p_holm: float
    verdict: Verdict

    @property
    def pooled(self) -> bool:
        """Whether this is the mean over budgets."""
        return math.isnan(self.C)

    def describe_verdict(self, level: float) -> str:
        """The verdict in words; a hint where it does not stand as one of several (Holm's p above 1 - level)."""
        hint = self.verdict is not Verdict.UNRESOLVED and self.p_holm > 1 - level
        return f"hint: {self.verdict}" if hint else str(self.verdict)

    @property
    def ratio(self) -> Interval:
        """N*(skill) / N*(aggregate)."""
        return self.value.map(math.exp)


@dataclass(frozen=True, kw_only=True)
class MultiStart:
    """How far an optimum can be trusted: starts tried, how many reached it (1e-6 relative), and the next basin's gap.

    ``gap``: (F of the next basin - F) / F, infinite where no other basin was met.
    """

    tried: int
    agree: int
    gap: float


@dataclass(frozen=True, kw_only=True)
class LawSummary:
    """The law of one skill as it holds at one mix: a summary of its ``Fitted``, with an empty ``law`` where refused.

    ``theta``: the law's parameters by name (chinchilla: E, A, B, alpha, beta); ``objective`` names what was minimised,
    ``F`` is its value (a sum over runs); ``a``: exponent of the law's own N*(C),
    at this mix.

    The intervals own the runs' noise and take the form for true: where the frontier disagrees with the parabolas, the
    form is off by more than they say.
    """

    mix: str
    skill: str
    law: str
    status: Status
    reason: str
    n_runs: int
    objective: str
    F: float
    starts: MultiStart
    theta: Mapping[str, Interval]
    a: Interval
    noise: float = field(metadata={"unit": "ln L, robust sd of a run about the law"})


@dataclass(frozen=True, kw_only=True)
class CurveVersusLaw:
    """N*(C) by the parabola of that budget and by the parametric law; ``disagreement``: ln law - ln parabola."""

    mix: str
    skill: str
    C: float
    parabola: Interval
    law: Interval
    disagreement: Interval

    @property
    def disagrees(self) -> bool:
        """Whether the two differ by more than their errors, so that at least one form does not hold here."""
        return self.disagreement.excludes_zero


@dataclass(frozen=True, kw_only=True)
class ExcludedRun:
    """A run, or one skill of a run, that was left out. ``skill`` is empty where the whole run was."""

    run_id: str
    skill: str
    reason: str


_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?!\w)")


def group_by_reason(unusable: Iterable[ExcludedRun]) -> dict[tuple[str, str], list[ExcludedRun]]:
    """What was left out, by skill and reason; reasons that differ in their numbers alone are one, with their span."""
    alike: dict[tuple[str, str], list[ExcludedRun]] = {}
    for one in unusable:
        alike.setdefault((one.skill, _NUMBER.sub("#", one.reason)), []).append(one)
    return {(skill, _spanned([one.reason for one in ones])): ones for (skill, _), ones in alike.items()}


def describe_exclusions(
    unusable: Iterable[ExcludedRun], shown: int, names: Mapping[str, str] | None = None
) -> list[str]:
    """A line for each reason, with how many and the first of them, and at last one for those beyond ``shown``.

    Args:
        unusable: what was left out.
        shown: reasons, at most.
        names: of runs, for a person; a run that has none is told by its id.
    """
    known, reasons = names or {}, group_by_reason(unusable)
    lines = []
    for (skill, reason), ones in list(reasons.items())[:shown]:
        first = ", ".join(known.get(one.run_id, one.run_id) for one in ones[:3])
        more = f" and {len(ones) - 3} more" if len(ones) > 3 else ""
        lines.append(f"{len(ones)} ({first}{more}): {f'{skill}: ' if skill else ''}{reason}")
    if len(reasons) > shown:
        rest = sum(len(ones) for ones in list(reasons.values())[shown:])
        lines.append(f"{rest} more, for {len(reasons) - shown} other reasons")
    return lines


def _spanned(reasons: list[str]) -> str:
    """The first of some reasons, each of its numbers as ``least to most`` where they differ."""
    numbers = iter(zip(*(_NUMBER.findall(reason) for reason in reasons), strict=True))

    def span(_: re.Match[str]) -> str:
        ordered = sorted(next(numbers), key=float)
        return ordered[0] if float(ordered[0]) == float(ordered[-1]) else f"{ordered[0]} to {ordered[-1]}"

    return _NUMBER.sub(span, reasons[0])


def bounds(name: str, value: Interval) -> dict[str, float]:
    """An interval as three columns of a table."""
    return {name: value.value, f"{name}_lo": value.lo, f"{name}_hi": value.hi}


def table(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a table that can be asked for a mix and skill even when there are none."""
    found = pd.DataFrame(list(rows))
    return found if len(found.columns) else pd.DataFrame(columns=["mix", "skill"])


@dataclass(frozen=True, kw_only=True)
class StudyResults:
    """A study's fits. Every interval comes from one set of resamples of the runs, shared by all skills.

    ``runs``: the usable input rows with their budget in column ``C``; ``skills`` and ``aggregates`` in input order (the
    first aggregate is the one compared with, unless a residual names another).
    """

    skills: tuple[str, ...]
    aggregates: tuple[str, ...]
    level: float
    resamples: int
    runs: pd.DataFrame = field(repr=False, compare=False)
    minima: tuple[IsoflopMinimum, ...]
    power_laws: tuple[PowerLaw, ...]
    size_gaps: tuple[SizeGap, ...]
    laws: tuple[LawSummary, ...]
    curve_versus_law: tuple[CurveVersusLaw, ...]
    excluded: tuple[ExcludedRun, ...]
    curve: str = field(default="shared", metadata={"unit": "isoFLOP method, of skillscale.laws.isoflop.curves.CURVES"})
    C_is_6ND: bool = field(default=True, metadata={"unit": "whether C = 6 N D with N as counted, so that D* = C / 6 N*"})

    @property
    def mixes(self) -> tuple[str, ...]:
        """The mixes that were fitted, in the order of the runs."""
        return tuple(dict.fromkeys(one.mix for one in self.minima))

    def minima_table(self) -> pd.DataFrame:
        """One row a mix, skill and budget.

        Columns: mix skill C N N_lo N_hi D (where N counts all parameters) loss curvature curvature_lo curvature_hi
        n_runs n_sizes status reason.
        """
        return table(
            {"mix": m.mix, "skill": m.skill, "C": m.C}
            | bounds("N", m.N)
            | ({"D": m.D.value} if self.C_is_6ND else {})
            | {"loss": m.loss}
            | bounds("curvature", m.curvature)
            | {"n_runs": m.n_runs, "n_sizes": m.n_sizes, "status": str(m.status), "reason": m.reason}
            for m in self.minima
        )

    def power_law_table(self) -> pd.DataFrame:
        """One row a mix and skill: mix skill k a a_lo a_hi n_budgets status reason."""
        return table(
            {"mix": law.mix, "skill": law.skill, "k": law.k}
            | bounds("a", law.a)
            | {"n_budgets": law.n_budgets, "status": str(law.status), "reason": law.reason}
            for law in self.power_laws
        )

    def size_gap_table(self) -> pd.DataFrame:
        """One row a mix, skill, aggregate and budget, and one pooled (C is NaN).

        Columns: mix skill aggregate C residual residual_lo residual_hi ratio p p_holm verdict n_budgets status reason.
        """
        return table(
            {"mix": r.mix, "skill": r.skill, "aggregate": r.aggregate, "C": r.C}
            | bounds("residual", r.value)
            | {"ratio": r.ratio.value, "p": r.p, "p_holm": r.p_holm, "verdict": str(r.verdict)}
            | {"n_budgets": r.n_budgets, "status": str(r.status), "reason": r.reason}
            for r in self.size_gaps
        )

    def law_table(self) -> pd.DataFrame:
        """One row a mix and skill.

        Columns: mix skill law, each parameter with _lo and _hi, a a_lo a_hi F objective starts agree gap noise n_runs
        status reason.
        """
        return table(
            {"mix": fit.mix, "skill": fit.skill, "law": fit.law}
            | {column: x for name, value in fit.theta.items() for column, x in bounds(name, value).items()}
            | bounds("a", fit.a)
            | {"F": fit.F, "objective": fit.objective, "starts": fit.starts.tried, "agree": fit.starts.agree}
            | {"gap": fit.starts.gap, "noise": fit.noise, "n_runs": fit.n_runs}
            | {"status": str(fit.status), "reason": fit.reason}
            for fit in self.laws
        )

    def curve_versus_law_table(self) -> pd.DataFrame:
        """One row a mix, skill and budget.

        Columns: mix skill C, then parabola, law and disagreement, each with _lo and _hi, and disagrees.
        """
        return table(
            {"mix": f.mix, "skill": f.skill, "C": f.C}
            | bounds("parabola", f.parabola)
            | bounds("law", f.law)
            | bounds("disagreement", f.disagreement)
            | {"disagrees": f.disagrees}
            for f in self.curve_versus_law
        )
