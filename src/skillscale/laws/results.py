"""Results of a fitted study: frozen values, each with its interval and its status, and the tables made of them.

Logarithms are natural. N is in parameters, D in tokens, C in FLOP, L in nats per token. An interval is two-sided, at
the study's ``level``. A quantity that the runs cannot determine is NaN, and its status says why. It is never a guess.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pandas as pd

Array = npt.NDArray[np.float64]


class Status(StrEnum):
    """Outcome of a fit. Only ``OK`` has numbers to rely on. Every other status says what the runs lack.

    An optimum ``ON_BOUND`` holds for the bounds given. Other bounds would move it.
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
    """A skill's needs compared with the aggregate. The first two require an interval that excludes zero."""

    CAPACITY = "capacity-hungry"
    DATA = "data-hungry"
    UNRESOLVED = "not resolved"


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its interval at the study's level. The bounds are NaN where there is no interval."""

    value: float = math.nan
    lo: float = math.nan
    hi: float = math.nan

    @property
    def is_finite(self) -> bool:
        """Whether the estimate and both bounds are finite."""
        return all(math.isfinite(x) for x in (self.value, self.lo, self.hi))

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.is_finite and (self.lo > 0 or self.hi < 0)

    def map(self, f: Callable[[float], float]) -> "Interval":
        """Return the interval of an increasing function of the quantity, such as exp."""
        return Interval(value=f(self.value), lo=f(self.lo), hi=f(self.hi)) if self.is_finite else Interval()


@dataclass(frozen=True, kw_only=True)
class IsoflopCurve:
    """A fitted isoFLOP curve: ln L = polynomial in x = ln N - ``centre``, lowest power first.

    In ``shared`` curves the first three coefficients, a parabola, belong to the budget. Further ones belong to the
    skill.
    """

    centre: float = field(metadata={"unit": "ln parameters"})
    coefficients: tuple[float, ...]
    N_min: float = field(metadata={"unit": "parameters, the smallest size fitted"})
    N_max: float = field(metadata={"unit": "parameters, the largest size fitted"})
    noise: float = field(metadata={"unit": "ln L, sd of a run about the curve"})

    def loss(self, N: npt.ArrayLike) -> Array:
        """Return L of the curve at sizes N, in nats per token."""
        x = np.log(np.asarray(N, dtype=float)) - self.centre
        return np.asarray(np.exp(np.polynomial.polynomial.polyval(x, self.coefficients)))


@dataclass(frozen=True, kw_only=True)
class IsoflopMinimum:
    """The compute optimum of one skill at one budget and mix.

    ``N``: N*(C) with interval, NaN unless ``status`` is ok. ``loss``: L at N*. ``curvature``: d2 ln L / d(ln N)2 at N*,
    with interval. ``curve`` exists wherever a curve could be fitted, also where its minimum was refused. So do
    ``draws``, (n_draws, 2): ln N* and ln L at the estimated N* in each resample. Row k is the same resample for all
    skills, budgets and mixes.
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
        """D* = C / (6 N*), in tokens. The lower bound of N gives the upper bound of D."""
        if not self.N.is_finite:
            return Interval()
        return Interval(value=self.C / (6 * self.N.value), lo=self.C / (6 * self.N.hi), hi=self.C / (6 * self.N.lo))


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """N*(C) = k C^a through the minima of one skill: ln N* = ``intercept`` + a (ln C - ``centre``).

    ``draws``: (n_draws, 2) intercept and a of the resamples. Row k is the same resample for every skill.
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
        """Return N* at any C, in parameters, with its interval. It is NaN where the power law was refused."""
        if self.status is not Status.OK:
            return Interval()
        step = math.log(C) - self.centre
        tails = ((1 - self.level) / 2, (1 + self.level) / 2)
        lo, hi = np.exp(np.quantile(self.draws[:, 0] + self.draws[:, 1] * step, tails))
        return Interval(value=math.exp(self.intercept + self.a.value * step), lo=float(lo), hi=float(hi))


@dataclass(frozen=True, kw_only=True)
class SizeGap:
    """ln N*(skill) - ln N*(aggregate) at a budget, or pooled over the budgets (``C`` is NaN).

    Pooled means the plain mean over the budgets that have both minima. Positive: the skill needs more parameters than
    the aggregate. ``p``: two-sided p-value of no difference. ``p_holm``: the same after Holm's step-down over the
    pooled comparisons with one aggregate in one mix, or over the losses of a plan (NaN elsewhere). ``verdict`` rests on
    the interval.
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
        """Return the verdict in words. It is a hint where Holm's p is above 1 - level."""
        hint = self.verdict is not Verdict.UNRESOLVED and self.p_holm > 1 - level
        return f"hint: {self.verdict}" if hint else str(self.verdict)

    @property
    def ratio(self) -> Interval:
        """N*(skill) / N*(aggregate), with interval."""
        return self.value.map(math.exp)


@dataclass(frozen=True, kw_only=True)
class MultiStart:
    """Agreement of the starts of a fit: how many were tried, and how many reached the optimum (1e-6 relative).

    ``gap``: (F of the next basin - F) / F, infinite where no start ended in another basin.
    """

    tried: int
    agree: int
    gap: float


@dataclass(frozen=True, kw_only=True)
class LawSummary:
    """The law of one skill at one mix: a summary of its ``FittedLaw``, with an empty ``law`` where the fit was refused.

    ``theta``: the law's parameters (chinchilla: E, A, B, alpha, beta). ``objective`` is the name of the objective and
    ``F`` its value, a sum over runs. ``a``: exponent of the law's N*(C) at this mix.

    The intervals include the runs' noise and assume that the form is correct. Where the law disagrees with the isoFLOP
    curves, the misfit of the form is larger than the intervals.
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
    """N*(C) from the isoFLOP curve of a budget and from the parametric law. ``disagreement``: ln law - ln parabola."""

    mix: str
    skill: str
    C: float
    parabola: Interval
    law: Interval
    disagreement: Interval

    @property
    def disagrees(self) -> bool:
        """Whether the two differ by more than their errors, so that at least one form is wrong here."""
        return self.disagreement.excludes_zero


@dataclass(frozen=True, kw_only=True)
class ExcludedRun:
    """A run, or one skill of a run, that was excluded. ``skill`` is empty where the whole run was."""

    run_id: str
    skill: str
    reason: str


_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?!\w)")


def group_by_reason(excluded: Iterable[ExcludedRun]) -> dict[tuple[str, str], list[ExcludedRun]]:
    """Group excluded runs by skill and reason. Reasons that differ only in their numbers become one, with ranges."""
    groups: dict[tuple[str, str], list[ExcludedRun]] = {}
    for run in excluded:
        groups.setdefault((run.skill, _NUMBER.sub("#", run.reason)), []).append(run)
    return {(skill, _with_ranges([run.reason for run in runs])): runs for (skill, _), runs in groups.items()}


def describe_exclusions(
    excluded: Iterable[ExcludedRun], shown: int, names: Mapping[str, str] | None = None
) -> list[str]:
    """Return a line for each reason, with the count and the first runs, and a last line for the reasons not shown.

    Args:
        excluded: excluded runs.
        shown: largest number of reasons to show.
        names: readable names by run id. A run without a name is shown by its id.
    """
    names, reasons = names or {}, group_by_reason(excluded)
    lines = []
    for (skill, reason), runs in list(reasons.items())[:shown]:
        first = ", ".join(names.get(run.run_id, run.run_id) for run in runs[:3])
        more = f" and {len(runs) - 3} more" if len(runs) > 3 else ""
        lines.append(f"{len(runs)} ({first}{more}): {f'{skill}: ' if skill else ''}{reason}")
    if len(reasons) > shown:
        rest = sum(len(runs) for runs in list(reasons.values())[shown:])
        lines.append(f"{rest} more, for {len(reasons) - shown} other reasons")
    return lines


def _with_ranges(reasons: list[str]) -> str:
    """Return the first of several reasons. Numbers that differ between the reasons become ``least to most``."""
    numbers = iter(zip(*(_NUMBER.findall(reason) for reason in reasons), strict=True))

    def span(_: re.Match[str]) -> str:
        ordered = sorted(next(numbers), key=float)
        return ordered[0] if float(ordered[0]) == float(ordered[-1]) else f"{ordered[0]} to {ordered[-1]}"

    return _NUMBER.sub(span, reasons[0])


def bounds(name: str, value: Interval) -> dict[str, float]:
    """Return an interval as three columns of a table."""
    return {name: value.value, f"{name}_lo": value.lo, f"{name}_hi": value.hi}


def table(rows: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """Return rows as a table. It has the columns mix and skill even where there are no rows."""
    frame = pd.DataFrame(list(rows))
    return frame if len(frame.columns) else pd.DataFrame(columns=["mix", "skill"])


@dataclass(frozen=True, kw_only=True)
class StudyResults:
    """The fits of a study. Every interval comes from one set of resamples of the runs, shared by all skills.

    ``runs``: the usable input rows with their budget in column ``C``. ``skills`` and ``aggregates`` are in input order.
    The first aggregate is the reference, unless a size gap names another.
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
    C_is_6ND: bool = field(default=True, metadata={"unit": "C = 6 N D with N as counted, so that D* = C / 6 N*"})

    @property
    def mixes(self) -> tuple[str, ...]:
        """The mixes that were fitted, in the order of the runs."""
        return tuple(dict.fromkeys(minimum.mix for minimum in self.minima))

    def minima_table(self) -> pd.DataFrame:
        """Return one row per mix, skill and budget.

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
        """Return one row per mix and skill: mix skill k a a_lo a_hi n_budgets status reason."""
        return table(
            {"mix": law.mix, "skill": law.skill, "k": law.k}
            | bounds("a", law.a)
            | {"n_budgets": law.n_budgets, "status": str(law.status), "reason": law.reason}
            for law in self.power_laws
        )

    def size_gap_table(self) -> pd.DataFrame:
        """Return one row per mix, skill, aggregate and budget, and one pooled (C is NaN).

        Columns: mix skill aggregate C residual residual_lo residual_hi ratio p p_holm verdict n_budgets status reason.
        """
        # The column of the size gap is named residual, as in the files of version 0.1.
        return table(
            {"mix": gap.mix, "skill": gap.skill, "aggregate": gap.aggregate, "C": gap.C}
            | bounds("residual", gap.value)
            | {"ratio": gap.ratio.value, "p": gap.p, "p_holm": gap.p_holm, "verdict": str(gap.verdict)}
            | {"n_budgets": gap.n_budgets, "status": str(gap.status), "reason": gap.reason}
            for gap in self.size_gaps
        )

    def law_table(self) -> pd.DataFrame:
        """Return one row per mix and skill.

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
        """Return one row per mix, skill and budget.

        Columns: mix skill C, then parabola, law and disagreement, each with _lo and _hi, and disagrees.
        """
        return table(
            {"mix": pair.mix, "skill": pair.skill, "C": pair.C}
            | bounds("parabola", pair.parabola)
            | bounds("law", pair.law)
            | bounds("disagreement", pair.disagreement)
            | {"disagrees": pair.disagrees}
            for pair in self.curve_versus_law
        )
