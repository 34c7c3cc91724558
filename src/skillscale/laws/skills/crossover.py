"""The ratio of two categories at which two skills want the same size, or that there is none.

d(r) = ln N*(first) - ln N*(second) against r = ln(share of one category / share of another), a line through the mixes,
paired within each. The interval of the crossing is the set of r where the interval of d(r) holds zero (Fieller 1954,
here from draws): it reaches its level whatever the slope, at the price that it may have no end. Only ratios that were
run count: where the set reaches the first or the last of them, that bound is infinite, which is to say unknown.
"""

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
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

_STEPS = 801  # places between the smallest and the largest ratio where d is looked at
_DISTINCT = 0.01  # in ln ratio: mixes nearer than this are one


class CrossoverOutcome(StrEnum):
    """What became of the search for a ratio where two skills' optima cross."""

    FOUND = "they cross"
    NONE = "no crossing within the ratios run"
    UNRESOLVED = "not resolved"


@dataclass(frozen=True, kw_only=True)
class Crossover:
    """Where N* of ``first`` and ``second`` cross, as the ratio of category ``over`` to ``under``.

    ``ratio``: its value is NaN where the lines don't meet between the ratios run, its bounds are 0 or infinite where
    the interval reaches beyond them (so that ``ratio.is_finite`` is false); it is empty, all NaN, where ``outcome`` is that
    there is no crossing. ``slope``: d [ln N*(first) - ln N*(second)] / d ln ratio. ``ends``: the difference at the
    smallest and at the largest ratio run. ``C`` is NaN for the mean over budgets.
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
    """The crossing at each budget and in the mean over budgets, with the points and the line behind it."""

    level: float
    crossovers: tuple[Crossover, ...]
    points: pd.DataFrame = field(repr=False, compare=False)

    def crossover_table(self) -> pd.DataFrame:
        """One row a budget, and the mean (C is NaN).

        Columns: first second over under C outcome, ratio, slope, difference at the least and at the most ratio, each
        with _lo and _hi, least most p_scatter status reason.
        """
        return table(
            {"first": one.first, "second": one.second, "over": one.over, "under": one.under, "C": one.C}
            | {"outcome": str(one.outcome)}
            | bounds("ratio", one.ratio)
            | bounds("slope", one.slope)
            | bounds("at_least", one.ends[0])
            | bounds("at_most", one.ends[1])
            | {"least": math.exp(one.line.lo) if one.line else math.nan}
            | {"most": math.exp(one.line.hi) if one.line else math.nan}
            | {"p_scatter": one.line.p_scatter if one.line else math.nan}
            | {"status": str(one.status), "reason": one.reason}
            for one in self.crossovers
        )

    def points_table(self) -> pd.DataFrame:
        """One row a mix and budget: C mix ratio, N of each skill with bounds, difference with bounds."""
        return self.points

    def line_table(self, steps: int = 25) -> pd.DataFrame:
        """The line of the difference, to be drawn: C ratio difference difference_lo difference_hi."""
        return table(
            {"C": one.C, "ratio": math.exp(x)}
            | bounds("difference", interval(one.line.at(x), one.line.drawn_at(x), self.level))
            for one in self.crossovers
            if one.line is not None
            for x in np.linspace(one.line.lo, one.line.hi, steps)
        )


def crossover_study(
    fits: StudyResults, first: str, second: str, *, over: str, under: str, seed: int = 0
) -> CrossoverStudy:  # fmt: skip
    """Look for the ratio of two categories at which two columns want the same N.

    Args:
        fits: of a study of several mixes, whose runs have the columns ``mix/CATEGORY``.
        first, second: columns, such as the skills code and knowledge.
        over, under: categories; the ratio is the share of the first to that of the second.
        seed: of what the draws add to mixes.

    Raises:
        InputError: a column was not fitted, or a category is not one of the runs'.
    """
    require_columns(fits, (first, second))
    ratios = log_ratios(fits, over, under)
    effect_draws = MixEffectDraws.draw(fits.mixes, fits.resamples, np.random.default_rng([seed, 11]))
    found, lines, gaps, points = [], [], [], []
    names: dict[str, Any] = {"first": first, "second": second, "over": over, "under": under}
    for C in sorted({one.C for one in fits.minima}):
        own, other = MixOptima.of(fits, first, C), MixOptima.of(fits, second, C)
        points += _points(own, other, ratios, fits.level)
        gap = own.minus(other).only({mix: mix in ratios for mix in own.mixes}, f"{over} or {under} has no share")
        gaps.append(gap)
        x = np.array([ratios[mix] for mix in gap.mixes])
        distinct = len(np.unique(np.round(x / _DISTINCT)))
        if distinct < MIN_MIXES:
            reason = f"{distinct} distinct ratios with both optima; a line takes {MIN_MIXES}, better 5"
            reason += f"; {describe_excluded(gap.excluded)}" if gap.excluded else ""
            found.append(Crossover(**names, C=C, status=Status.TOO_FEW_MIXES, reason=reason))
            continue
        lines.append(fit_line(gap, x, effect_draws))
        found.append(
            locate_crossover(lines[-1], names | {"C": C, "reason": describe_excluded(gap.excluded)}, fits.level)
        )
    if lines:
        reason = "; ".join(
            filter(None, [f"mean over {len(lines)} of {len(gaps)} budgets", describe_excluded_by_budget(gaps)])
        )
        found.append(locate_crossover(mean_line(lines), names | {"C": math.nan, "reason": reason}, fits.level))
    return CrossoverStudy(level=fits.level, crossovers=tuple(found), points=table(points))


def log_ratios(fits: StudyResults, over: str, under: str) -> dict[str, float]:
    """Ln of the ratio of two categories' shares in each mix that has both.

    Raises:
        InputError: a category is not one of the runs'.
    """
    require_columns(fits, (), (over, under))
    a, b = category_shares(fits, over), category_shares(fits, under)
    return {mix: math.log(a[mix] / b[mix]) for mix in fits.mixes if a[mix] > 0 and b[mix] > 0}


def locate_crossover(line: FittedLine, names: dict[str, Any], level: float) -> Crossover:
    """What a line of differences says of its zero; nothing where it is a mean of lines of no ratio in common."""
    if line.unusable_reason:
        return Crossover(**names | {"reason": f"{names['reason']}; {line.unusable_reason}"}, status=Status.BEYOND)
    x = np.linspace(line.lo, line.hi, _STEPS)
    drawn = line.draws[:, :1] + line.draws[:, 1:] * (x - line.centre)
    lo, hi = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    open_ = (lo <= 0) & (hi >= 0)
    ends = tuple(interval(line.at(float(x[i])), drawn[:, i], level) for i in (0, -1))
    apart = ends[0].excludes_zero and ends[1].excludes_zero
    signs = ends[0].value * ends[1].value
    if apart and signs < 0:
        outcome = CrossoverOutcome.FOUND
    elif apart and not open_.any():
        outcome = CrossoverOutcome.NONE
    else:
        outcome = CrossoverOutcome.UNRESOLVED
    return Crossover(
        **names, status=Status.OK, outcome=outcome, slope=slope_interval(line, level), ends=(ends[0], ends[1]),
        ratio=_ratio(line, x, open_), line=line,
    )  # fmt: skip


def _ratio(line: FittedLine, x: Array, open_: np.ndarray[Any, np.dtype[np.bool_]]) -> Interval:
    """The zero of the line with the set of ratios that can't be told from it."""
    if not open_.any():
        return Interval()
    zero = line.centre - line.level / line.slope if line.slope else math.nan
    inside = x[open_]
    return Interval(
        value=math.exp(zero) if line.lo <= zero <= line.hi else math.nan,
        lo=0.0 if open_[0] else math.exp(float(inside[0])), hi=math.inf if open_[-1] else math.exp(float(inside[-1])),
    )  # fmt: skip


def _points(own: MixOptima, other: MixOptima, ratios: dict[str, float], level: float) -> list[dict[str, Any]]:
    gap = own.minus(other)

    def N(optima: MixOptima, mix: str) -> Interval:
        at = optima.mixes.index(mix)
        return interval(float(optima.value[at]), optima.draws[:, at], level).map(math.exp)

    return [
        {"C": own.C, "mix": mix, "ratio": math.exp(ratios[mix])}
        | bounds(f"N_{own.column}", N(own, mix))
        | bounds(f"N_{other.column}", N(other, mix))
        | bounds("difference", interval(float(gap.value[at]), gap.draws[:, at], level))
        for at, mix in enumerate(gap.mixes)
        if mix in ratios
    ]
