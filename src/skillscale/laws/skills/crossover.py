"""Find the ratio of two categories at which two skills have the same compute-optimal size, or show that there is none.

The fits of a study with several mixes go in, and a ``CrossoverStudy`` comes out. It fits d(r) = ln N*(first) - ln
N*(second) as a line in r = ln(share of one category / share of another) through the mixes, paired within each. The
interval of the crossover is the set of r where the interval of d(r) contains zero (Fieller 1954, here from draws). It
has its nominal coverage whatever the slope, but may be unbounded. Only ratios in the range of the runs count. Where the
set reaches an end of this range, that bound is 0 or infinite, which means unknown.
"""

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pandas as pd

from skillscale.laws.forms.nd import Array
from skillscale.laws.results import Interval, Status, StudyResults, bounds, table
from skillscale.laws.skills.regression import (
    MIN_MIXES,
    FittedLine,
    MixEffectDraws,
    MixOptima,
    category_shares,
    describe_excluded,
    describe_excluded_by_budget,
    fit_line,
    mean_line,
    require_columns,
    slope_interval,
)
from skillscale.laws.uncertainty.resamples import interval

_STEPS = 801  # points between the smallest and the largest ratio where d is evaluated
_DISTINCT = 0.01  # in ln ratio: mixes closer than this count as one


class CrossoverOutcome(StrEnum):
    """Outcome of the search for a ratio where two skills' optima cross."""

    FOUND = "they cross"
    NONE = "no crossing within the ratios run"
    UNRESOLVED = "not resolved"


@dataclass(frozen=True, kw_only=True)
class Crossover:
    """Where N* of ``first`` and ``second`` cross, as the ratio of category ``over`` to ``under``.

    ``ratio``: its value is NaN where the lines do not meet within the ratios of the runs. Its bounds are 0 or infinite
    where the interval reaches beyond them (``ratio.is_finite`` is then false). It is all NaN where ``outcome`` is NONE.
    ``slope``: d [ln N*(first) - ln N*(second)] / d ln ratio. ``ends``: the difference at the smallest and at the
    largest ratio of the runs. ``C`` is NaN for the mean over budgets.
    """

    first: str
    second: str
    over: str
    under: str
    C: float
    status: Status
    reason: str
    outcome: CrossoverOutcome = CrossoverOutcome.UNRESOLVED
    ratio: Interval = field(default_factory=Interval)
    slope: Interval = field(default_factory=Interval)
    ends: tuple[Interval, Interval] = (Interval(), Interval())
    line: FittedLine | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class CrossoverStudy:
    """The crossover at each budget and in the mean over budgets, with the points and lines behind it."""

    level: float
    crossovers: tuple[Crossover, ...]
    points: pd.DataFrame = field(repr=False, compare=False)

    def crossover_table(self) -> pd.DataFrame:
        """Return one row per budget, and one for the mean (C is NaN).

        Columns: first second over under C outcome, ratio, slope, at_least and at_most (difference at the smallest and
        at the largest ratio), each with _lo and _hi, least most p_scatter status reason.
        """
        return table(
            {"first": result.first, "second": result.second, "over": result.over, "under": result.under, "C": result.C}
            | {"outcome": str(result.outcome)}
            | bounds("ratio", result.ratio)
            | bounds("slope", result.slope)
            | bounds("at_least", result.ends[0])
            | bounds("at_most", result.ends[1])
            | {"least": math.exp(result.line.lo) if result.line else math.nan}
            | {"most": math.exp(result.line.hi) if result.line else math.nan}
            | {"p_scatter": result.line.p_scatter if result.line else math.nan}
            | {"status": str(result.status), "reason": result.reason}
            for result in self.crossovers
        )

    def points_table(self) -> pd.DataFrame:
        """Return one row per mix and budget: C mix ratio, N of each skill with bounds, difference with bounds."""
        return self.points

    def line_table(self, steps: int = 25) -> pd.DataFrame:
        """Return points on the line of the difference, for a plot: C ratio difference difference_lo difference_hi."""
        return table(
            {"C": result.C, "ratio": math.exp(x)}
            | bounds("difference", interval(result.line.at(x), result.line.draws_at(x), self.level))
            for result in self.crossovers
            if result.line is not None
            for x in np.linspace(result.line.lo, result.line.hi, steps)
        )


def crossover_study(
    fits: StudyResults, first: str, second: str, *, over: str, under: str, seed: int = 0
) -> CrossoverStudy:  # fmt: skip
    """Search for the ratio of two categories at which two columns have the same N*.

    Args:
        fits: fits of a study with several mixes, whose runs have the columns ``mix/CATEGORY``.
        first: first column, such as the skill code.
        second: second column, such as the skill knowledge.
        over: category in the numerator of the ratio.
        under: category in the denominator of the ratio.
        seed: seed of the mix effects.

    Raises:
        InputError: a column was not fitted, or the runs do not have a category.
    """
    require_columns(fits, (first, second))
    ratios = log_ratios(fits, over, under)
    effect_draws = MixEffectDraws.draw(fits.mixes, fits.resamples, np.random.default_rng([seed, 11]))
    unlocated = Crossover(
        first=first, second=second, over=over, under=under, C=math.nan, status=Status.TOO_FEW_MIXES, reason=""
    )
    crossovers, lines, gaps, points = [], [], [], []
    for C in sorted({minimum.C for minimum in fits.minima}):
        first_optima, second_optima = MixOptima.of(fits, first, C), MixOptima.of(fits, second, C)
        points += _points(first_optima, second_optima, ratios, fits.level)
        keep = {mix: mix in ratios for mix in first_optima.mixes}
        gap = first_optima.subtract(second_optima).select(keep, f"{over} or {under} has no share")
        gaps.append(gap)
        x = np.array([ratios[mix] for mix in gap.mixes])
        distinct = len(np.unique(np.round(x / _DISTINCT)))
        if distinct < MIN_MIXES:
            reason = f"{distinct} distinct ratios with both optima: a line needs {MIN_MIXES}, better 5"
            reason += f"; {describe_excluded(gap.excluded)}" if gap.excluded else ""
            crossovers.append(replace(unlocated, C=C, reason=reason))
            continue
        lines.append(fit_line(gap, x, effect_draws))
        start = replace(unlocated, C=C, reason=describe_excluded(gap.excluded))
        crossovers.append(locate_crossover(lines[-1], start, fits.level))
    if lines:
        reason = "; ".join(
            filter(None, [f"mean over {len(lines)} of {len(gaps)} budgets", describe_excluded_by_budget(gaps)])
        )
        crossovers.append(locate_crossover(mean_line(lines), replace(unlocated, reason=reason), fits.level))
    return CrossoverStudy(level=fits.level, crossovers=tuple(crossovers), points=table(points))


def log_ratios(fits: StudyResults, over: str, under: str) -> dict[str, float]:
    """Return ln of the ratio of two categories' shares, in each mix that has both.

    Raises:
        InputError: the runs do not have a category.
    """
    require_columns(fits, (), (over, under))
    a, b = category_shares(fits, over), category_shares(fits, under)
    return {mix: math.log(a[mix] / b[mix]) for mix in fits.mixes if a[mix] > 0 and b[mix] > 0}


def locate_crossover(line: FittedLine, start: Crossover, level: float) -> Crossover:
    """Locate the zero of a line of differences. An unusable line gives a result without outcome.

    Args:
        line: fitted line of the differences.
        start: result with the names, the budget and notes on excluded mixes.
        level: level of the intervals.
    """
    if line.unusable_reason:
        return replace(start, reason=f"{start.reason}; {line.unusable_reason}", status=Status.BEYOND)
    x = np.linspace(line.lo, line.hi, _STEPS)
    draws = line.draws[:, :1] + line.draws[:, 1:] * (x - line.centre)
    lo, hi = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    may_be_zero = (lo <= 0) & (hi >= 0)
    ends = tuple(interval(line.at(float(x[i])), draws[:, i], level) for i in (0, -1))
    ends_differ = ends[0].excludes_zero and ends[1].excludes_zero
    signs = ends[0].value * ends[1].value
    if ends_differ and signs < 0:
        outcome = CrossoverOutcome.FOUND
    elif ends_differ and not may_be_zero.any():
        outcome = CrossoverOutcome.NONE
    else:
        outcome = CrossoverOutcome.UNRESOLVED
    return replace(
        start, status=Status.OK, outcome=outcome, slope=slope_interval(line, level), ends=(ends[0], ends[1]),
        ratio=_ratio(line, x, may_be_zero), line=line,
    )  # fmt: skip


def _ratio(line: FittedLine, x: Array, may_be_zero: npt.NDArray[np.bool_]) -> Interval:
    """Return the zero of the line with the set of ratios where the difference may be zero."""
    if not may_be_zero.any():
        return Interval()
    zero = line.centre - line.level / line.slope if line.slope else math.nan
    inside = x[may_be_zero]
    return Interval(
        value=math.exp(zero) if line.lo <= zero <= line.hi else math.nan,
        lo=0.0 if may_be_zero[0] else math.exp(float(inside[0])),
        hi=math.inf if may_be_zero[-1] else math.exp(float(inside[-1])),
    )  # fmt: skip


def _points(
    first_optima: MixOptima, second_optima: MixOptima, ratios: dict[str, float], level: float
) -> list[dict[str, object]]:
    gap = first_optima.subtract(second_optima)

    def N(optima: MixOptima, mix: str) -> Interval:
        i = optima.mixes.index(mix)
        return interval(float(optima.value[i]), optima.draws[:, i], level).map(math.exp)

    return [
        {"C": first_optima.C, "mix": mix, "ratio": math.exp(ratios[mix])}
        | bounds(f"N_{first_optima.column}", N(first_optima, mix))
        | bounds(f"N_{second_optima.column}", N(second_optima, mix))
        | bounds("difference", interval(float(gap.value[i]), gap.draws[:, i], level))
        for i, mix in enumerate(gap.mixes)
        if mix in ratios
    ]
