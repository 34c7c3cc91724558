"""Compute optima against the share of a skill's own category: slopes, elasticities, and skills at equal share.

Skills differ in N* in a given mix also because the mix holds more of what one of them needs. Whether they would differ
at *equal* share is read off two lines, one a skill, at the same share of its own category; both come from the same
resamples of the same runs. A share beyond either skill's mixes is refused.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from skillscale.errors import InputError
from skillscale.laws.forms import Array
from skillscale.laws.lines import (
    LEAST,
    Line,
    MixLuck,
    Optima,
    check_names,
    fit_line,
    mean_line,
    shares_of,
    slope_interval,
    told,
)
from skillscale.laws.results import Interval, Status, StudyFits, bounds, table
from skillscale.laws.uncertainty import interval, two_sided_p

AT = (0.2, 0.5, 0.8)  # shares at which skills are compared, those of Roberts et al. 2025
_DISTINCT = 0.005  # shares that differ by less are one


@dataclass(frozen=True, kw_only=True)
class ShareEffect:
    """How N* of a column goes with the share of a category, at a budget or as the mean over budgets (``C`` is NaN).

    ``slope``: d N* / d share, in parameters per unit share, known at single budgets only, for it grows as N* does;
    ``relative``: d ln N* / d share; ``elasticity``: d ln N* / d ln share, of the mixes whose share is not 0, with its
    two-sided ``p`` of being 0. ``p_scatter``: the chance that noise alone puts the mixes as far from the line of ln N*
    by ln share; a small one says that no such line is true, which the intervals own.
    """

    skill: str
    category: str
    C: float = field(metadata={"unit": "FLOP, nominal budget"})
    status: Status
    reason: str
    mixes: tuple[str, ...] = ()
    slope: Interval = field(default_factory=Interval)
    relative: Interval = field(default_factory=Interval)
    elasticity: Interval = field(default_factory=Interval)
    p: float = math.nan
    p_scatter: float = math.nan
    line: Line | None = field(default=None, repr=False, metadata={"unit": "ln N* by ln share"})


@dataclass(frozen=True, kw_only=True)
class EqualShare:
    """N*(first) / N*(second) where each has the same ``share`` of its own category, with the p of being 1."""

    first: str
    second: str
    C: float
    share: float
    status: Status
    reason: str
    ratio: Interval = field(default_factory=Interval)
    p: float = math.nan


@dataclass(frozen=True, kw_only=True)
class SlopeDifference:
    """Slope and elasticity of the first skill less those of the second, paired; ``p`` is that of the elasticity's."""

    first: str
    second: str
    C: float
    status: Status
    reason: str
    slope: Interval = field(default_factory=Interval)
    relative: Interval = field(default_factory=Interval)
    elasticity: Interval = field(default_factory=Interval)
    p: float = math.nan


@dataclass(frozen=True, kw_only=True)
class ShareStudy:
    """What an ablation of the mix says of N* and shares."""

    level: float
    effects: tuple[ShareEffect, ...]
    equal: tuple[EqualShare, ...]
    differences: tuple[SlopeDifference, ...]
    points: pd.DataFrame = field(repr=False, compare=False)

    def effect_table(self) -> pd.DataFrame:
        """One row a column and budget.

        Columns: skill category C, slope, relative and elasticity, each with _lo and _hi, p p_scatter tau n_mixes
        mixes status reason.
        """
        return table(
            {"skill": one.skill, "category": one.category, "C": one.C}
            | bounds("slope", one.slope)
            | bounds("relative", one.relative)
            | bounds("elasticity", one.elasticity)
            | {"p": one.p, "p_scatter": one.p_scatter, "tau": one.line.tau if one.line else math.nan}
            | {"n_mixes": len(one.mixes), "mixes": "; ".join(one.mixes)}
            | {"status": str(one.status), "reason": one.reason}
            for one in self.effects
        )

    def equal_share_table(self) -> pd.DataFrame:
        """One row a pair, budget and share: first second C share ratio ratio_lo ratio_hi p status reason."""
        return table(
            {"first": one.first, "second": one.second, "C": one.C, "share": one.share}
            | bounds("ratio", one.ratio)
            | {"p": one.p, "status": str(one.status), "reason": one.reason}
            for one in self.equal
        )

    def difference_table(self) -> pd.DataFrame:
        """One row a pair and budget: first second C, slope, relative, elasticity with bounds, p status reason."""
        return table(
            {"first": one.first, "second": one.second, "C": one.C}
            | bounds("slope", one.slope)
            | bounds("relative", one.relative)
            | bounds("elasticity", one.elasticity)
            | {"p": one.p, "status": str(one.status), "reason": one.reason}
            for one in self.differences
        )

    def points_table(self) -> pd.DataFrame:
        """One row a column, budget and mix: skill category C mix share N N_lo N_hi status reason."""
        return self.points

    def line_table(self, steps: int = 25) -> pd.DataFrame:
        """The lines to be drawn through the points, over the shares that the mixes have.

        Columns: skill category C share N N_lo N_hi.
        """
        return table(
            {"skill": one.skill, "category": one.category, "C": one.C, "share": math.exp(x)}
            | bounds("N", interval(one.line.at(x), one.line.drawn_at(x), self.level).map(math.exp))
            for one in self.effects
            if one.line is not None and not math.isnan(one.C)
            for x in np.linspace(one.line.lo, one.line.hi, steps)
        )


@dataclass(frozen=True, kw_only=True)
class _Lines:
    """The three lines of a column at a budget, ln N* by ln share the last; ``slope`` in units of ``scale``."""

    slope: Line
    relative: Line
    elasticity: Line
    scale: float


def share_study(
    fits: StudyFits, categories: Mapping[str, str], *, pairs: Sequence[tuple[str, str]] | None = None,
    at: Sequence[float] = AT, seed: int = 0,
) -> ShareStudy:  # fmt: skip
    """Fit N* of each column against the share of its category, and compare columns at equal shares.

    Args:
        fits: of a study of several mixes, whose runs have the columns ``mix/CATEGORY``.
        categories: the category that belongs to each column (a skill, a data set, an aggregate) to look at.
        pairs: columns to compare; by default every two of different categories.
        at: shares, between 0 and 1.
        seed: of what the draws add to mixes.

    Raises:
        InputError: a column was not fitted, or a category is not one of the runs'.
    """
    _check(fits, categories, pairs or [])
    rng = np.random.default_rng([seed, 7])
    budgets = sorted({one.C for one in fits.minima})
    effects, points = [], []
    lines: dict[tuple[str, float], _Lines] = {}
    for column, category in categories.items():
        luck, shares = MixLuck.draw(fits.mixes, fits.resamples, rng), shares_of(fits, category)
        points += _points(fits, column, category, shares)
        own = []
        for C in budgets:
            effect, found = _effect(Optima.of(fits, column, C), category, shares, luck, fits.level)
            effects.append(effect)
            if found is not None:
                lines[column, C] = found
                own.append(found)
        effects.append(_pooled(column, category, own, fits.level))
        if own:
            lines[column, math.inf] = _mean(own)
    if pairs is None:
        pairs = [(a, b) for a, b in combinations(categories, 2) if categories[a] != categories[b]]
    equal, differences = [], []
    for first, second in pairs:
        for C in [*budgets, math.inf]:
            two = lines.get((first, C)), lines.get((second, C))
            lacking = [name for name, one in zip((first, second), two, strict=True) if one is None]
            names: dict[str, Any] = {"first": first, "second": second, "C": C if math.isfinite(C) else math.nan}
            differences.append(_difference(two, lacking, names, fits.level))
            equal += [_equal(two, lacking, names, share, fits.level) for share in at]
    return ShareStudy(
        level=fits.level, effects=tuple(effects), equal=tuple(equal), differences=tuple(differences),
        points=table(points),
    )  # fmt: skip


def _check(fits: StudyFits, categories: Mapping[str, str], pairs: Sequence[tuple[str, str]]) -> None:
    check_names(fits, list(categories), list(categories.values()))
    for name in {name for pair in pairs for name in pair} - set(categories):
        raise InputError(f"{name} is to be compared, but has no category; name it in categories")


def _points(fits: StudyFits, column: str, category: str, shares: Mapping[str, float]) -> list[dict[str, Any]]:
    return [
        {"skill": column, "category": category, "C": one.C, "mix": one.mix, "share": shares[one.mix]}
        | bounds("N", one.N)
        | {"status": str(one.status), "reason": one.reason}
        for one in fits.minima
        if one.skill == column
    ]


def _effect(
    optima: Optima, category: str, shares: Mapping[str, float], luck: MixLuck, level: float
) -> tuple[ShareEffect, _Lines | None]:
    some = optima.only({mix: shares[mix] > 0 for mix in optima.mixes}, f"no share of {category} above 0")
    x = np.array([shares[mix] for mix in some.mixes])
    distinct = len(np.unique(np.round(x / _DISTINCT)))
    names: dict[str, Any] = {"skill": optima.column, "category": category, "C": optima.C, "mixes": some.mixes}
    if distinct < LEAST:
        lost = f"; {told(some.left_out)}" if some.left_out else ""
        reason = f"{distinct} distinct shares of {category} with an optimum; a line takes {LEAST}, better 5{lost}"
        return ShareEffect(**names, status=Status.TOO_FEW_MIXES, reason=reason), None
    scale = math.exp(float(some.value.mean()))
    lines = _Lines(
        slope=fit_line(some, x, luck, values=np.exp(some.value) / scale, drawn=np.exp(some.draws) / scale),
        relative=fit_line(some, x, luck), elasticity=fit_line(some, np.log(x), luck), scale=scale,
    )  # fmt: skip
    effect = ShareEffect(
        **names, status=Status.OK, reason=told(some.left_out), slope=_slope(lines, level),
        relative=slope_interval(lines.relative, level), elasticity=slope_interval(lines.elasticity, level),
        p=two_sided_p(lines.elasticity.draws[:, 1]), p_scatter=lines.elasticity.p_scatter, line=lines.elasticity,
    )  # fmt: skip
    return effect, lines


def _slope(lines: _Lines, level: float) -> Interval:
    return slope_interval(lines.slope, level).map(lambda slope: slope * lines.scale)


def _mean(own: Sequence[_Lines]) -> _Lines:
    """Mean over budgets; the slope in parameters is none, for its scale grows with N*."""
    parts: list[Callable[[_Lines], Line]] = [lambda one: one.relative, lambda one: one.elasticity]
    relative, elasticity = (mean_line([part(one) for one in own]) for part in parts)
    return _Lines(slope=relative, relative=relative, elasticity=elasticity, scale=math.nan)


def _pooled(column: str, category: str, own: Sequence[_Lines], level: float) -> ShareEffect:
    names: dict[str, Any] = {"skill": column, "category": category, "C": math.nan}
    if not own:
        reason = f"no budget has {LEAST} mixes of distinct share with an optimum"
        return ShareEffect(**names, status=Status.TOO_FEW_MIXES, reason=reason)
    mean = _mean(own)
    return ShareEffect(
        **names, status=Status.OK, reason=f"mean over {len(own)} budgets; the slope in parameters is each budget's own",
        relative=slope_interval(mean.relative, level), elasticity=slope_interval(mean.elasticity, level),
        p=two_sided_p(mean.elasticity.draws[:, 1]), p_scatter=mean.elasticity.p_scatter, line=mean.elasticity,
    )  # fmt: skip


def _gap(one: Line, other: Line, scales: tuple[float, float] = (1.0, 1.0)) -> tuple[float, Array]:
    """Difference of two slopes with its draws."""
    a, b = scales
    return a * one.slope - b * other.slope, a * one.draws[:, 1] - b * other.draws[:, 1]


def _difference(
    two: tuple[_Lines | None, _Lines | None], lacking: Sequence[str], names: Mapping[str, Any], level: float
) -> SlopeDifference:
    one, other = two
    if one is None or other is None:
        reason = f"{' and '.join(lacking)}: no line, too few mixes with an optimum"
        return SlopeDifference(**names, status=Status.TOO_FEW_MIXES, reason=reason)
    elasticity, drawn = _gap(one.elasticity, other.elasticity)
    slope = Interval()
    if math.isfinite(one.scale):
        slope = interval(*_gap(one.slope, other.slope, (one.scale, other.scale)), level)
    return SlopeDifference(
        **names, status=Status.OK, reason="", slope=slope,
        relative=interval(*_gap(one.relative, other.relative), level),
        elasticity=interval(elasticity, drawn, level), p=two_sided_p(drawn),
    )  # fmt: skip


def _equal(
    two: tuple[_Lines | None, _Lines | None], lacking: Sequence[str], names: Mapping[str, Any], share: float,
    level: float,
) -> EqualShare:  # fmt: skip
    one, other = two
    if one is None or other is None:
        reason = f"{' and '.join(lacking)}: no line, too few mixes with an optimum"
        return EqualShare(**names, share=share, status=Status.TOO_FEW_MIXES, reason=reason)
    x = math.log(share)
    for name, line in zip((names["first"], names["second"]), (one.elasticity, other.elasticity), strict=True):
        if not line.lo <= x <= line.hi:
            reason = f"{name} has mixes of share {math.exp(line.lo):.3g} to {math.exp(line.hi):.3g}; run one beyond"
            return EqualShare(**names, share=share, status=Status.BEYOND, reason=reason)
    drawn = one.elasticity.drawn_at(x) - other.elasticity.drawn_at(x)
    gap = interval(one.elasticity.at(x) - other.elasticity.at(x), drawn, level)
    return EqualShare(
        **names, share=share, status=Status.OK, reason="", ratio=gap.map(math.exp), p=two_sided_p(drawn)
    )  # fmt: skip
