"""Compute optima against the share of a skill's own category: slopes, elasticities, and skills at equal share.

Skills differ in N* in a given mix also because the mix holds more of what one of them needs. Whether they would differ
at *equal* share is read off two lines, one a skill, at the same share of its own category; both come from the same
resamples of the same runs. A share beyond either skill's mixes is refused.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from skillscale.errors import InputError
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
from skillscale.laws.uncertainty.resamples import holm, interval, two_sided_p

AT = (0.2, 0.5, 0.8)  # shares at which skills are compared, those of Roberts et al. 2025
_DISTINCT = 0.005  # shares that differ by less are one


@dataclass(frozen=True, kw_only=True)
class ShareEffect:
    """How N* of a column goes with the share of a category, at a budget or as the mean over budgets (``C`` is NaN).

    ``slope``: d N* / d share, in parameters per unit share, known at single budgets only, for it grows as N* does;
    ``relative``: d ln N* / d share; ``elasticity``: d ln N* / d ln share, of the mixes whose share is not 0, with its
    two-sided ``p`` of being 0, and ``p_holm`` after Holm's step-down over the columns (means over budgets only, NaN
    elsewhere). ``p_scatter``: the chance that noise alone puts the mixes as far from the line of ln N* by ln share, or
    Bonferroni's bound on it for the mean over budgets; a small one says that no such line is true, which the intervals
    own.
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
    p_holm: float = math.nan
    p_scatter: float = math.nan
    line: FittedLine | None = field(default=None, repr=False, metadata={"unit": "ln N* by ln share"})


@dataclass(frozen=True, kw_only=True)
class EqualShareComparison:
    """N*(first) / N*(second) where each has the same ``share`` of its own category, with the p of being 1.

    The mean over budgets is over those where both have a line, whose number is in ``reason``.
    """

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
    """Slope and elasticity of the first skill less those of the second, paired; ``p`` is that of the elasticity's.

    The mean over budgets is over those where both have a line, whose number is in ``reason``.
    """

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
    equal_shares: tuple[EqualShareComparison, ...]
    differences: tuple[SlopeDifference, ...]
    points: pd.DataFrame = field(repr=False, compare=False)

    def effect_table(self) -> pd.DataFrame:
        """One row a column and budget.

        Columns: skill category C, slope, relative and elasticity, each with _lo and _hi, p p_holm p_scatter tau n_mixes
        mixes status reason.
        """
        return table(
            {"skill": one.skill, "category": one.category, "C": one.C}
            | bounds("slope", one.slope)
            | bounds("relative", one.relative)
            | bounds("elasticity", one.elasticity)
            | {"p": one.p, "p_holm": one.p_holm, "p_scatter": one.p_scatter}
            | {"tau": one.line.tau if one.line else math.nan}
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
            for one in self.equal_shares
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

    slope: FittedLine
    relative: FittedLine
    elasticity: FittedLine
    scale: float


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """The lines of two columns to compare, at a budget or their means over the same budgets; none but where OK."""

    first: str
    second: str
    C: float
    status: Status
    reason: str
    lines: tuple[_Lines, _Lines] | None = None

    @property
    def named(self) -> dict[str, Any]:
        """What any comparison of the two begins with."""
        return {"first": self.first, "second": self.second, "C": self.C, "reason": self.reason}


def share_study(
    fits: StudyResults, categories: Mapping[str, str], *, pairs: Sequence[tuple[str, str]] | None = None,
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
        effect_draws, shares = MixEffectDraws.draw(fits.mixes, fits.resamples, rng), category_shares(fits, category)
        points += _points(fits, column, category, shares)
        optima = [_optima(fits, column, C, category, shares) for C in budgets]
        for one in optima:
            effect, found = _effect(one, category, shares, effect_draws, fits.level)
            effects.append(effect)
            if found is not None:
                lines[column, one.C] = found
        own = [lines[column, C] for C in budgets if (column, C) in lines]
        effects.append(_pooled(category, optima, own, fits.level))
    if pairs is None:
        pairs = [(a, b) for a, b in combinations(categories, 2) if categories[a] != categories[b]]
    two = [each for pair in pairs for each in _compared(lines, pair, budgets)]
    return ShareStudy(
        level=fits.level, effects=_with_holm(effects), points=table(points),
        equal_shares=tuple(_equal(each, share, fits.level) for each in two for share in at),
        differences=tuple(_difference(each, fits.level) for each in two),
    )  # fmt: skip


def _check(fits: StudyResults, categories: Mapping[str, str], pairs: Sequence[tuple[str, str]]) -> None:
    require_columns(fits, list(categories), list(categories.values()))
    for name in {name for pair in pairs for name in pair} - set(categories):
        raise InputError(f"{name} is to be compared, but has no category; name it in categories")


def _points(fits: StudyResults, column: str, category: str, shares: Mapping[str, float]) -> list[dict[str, Any]]:
    return [
        {"skill": column, "category": category, "C": one.C, "mix": one.mix, "share": shares[one.mix]}
        | bounds("N", one.N)
        | {"status": str(one.status), "reason": one.reason}
        for one in fits.minima
        if one.skill == column
    ]


def _optima(fits: StudyResults, column: str, C: float, category: str, shares: Mapping[str, float]) -> MixOptima:
    """Those of the mixes that have some of the category."""
    every = MixOptima.of(fits, column, C)
    return every.only({mix: shares[mix] > 0 for mix in every.mixes}, f"no share of {category} above 0")


def _effect(
    some: MixOptima, category: str, shares: Mapping[str, float], effect_draws: MixEffectDraws, level: float
) -> tuple[ShareEffect, _Lines | None]:
    x = np.array([shares[mix] for mix in some.mixes])
    distinct = len(np.unique(np.round(x / _DISTINCT)))
    names: dict[str, Any] = {"skill": some.column, "category": category, "C": some.C, "mixes": some.mixes}
    if distinct < MIN_MIXES:
        lost = f"; {describe_excluded(some.excluded)}" if some.excluded else ""
        reason = f"{distinct} distinct shares of {category} with an optimum; a line takes {MIN_MIXES}, better 5{lost}"
        return ShareEffect(**names, status=Status.TOO_FEW_MIXES, reason=reason), None
    scale = math.exp(float(some.value.mean()))
    lines = _Lines(
        slope=fit_line(some, x, effect_draws, values=np.exp(some.value) / scale, drawn=np.exp(some.draws) / scale),
        relative=fit_line(some, x, effect_draws), elasticity=fit_line(some, np.log(x), effect_draws), scale=scale,
    )  # fmt: skip
    effect = ShareEffect(
        **names, status=Status.OK, reason=describe_excluded(some.excluded), slope=_slope(lines, level),
        relative=slope_interval(lines.relative, level), elasticity=slope_interval(lines.elasticity, level),
        p=two_sided_p(lines.elasticity.draws[:, 1]), p_scatter=lines.elasticity.p_scatter, line=lines.elasticity,
    )  # fmt: skip
    return effect, lines


def _slope(lines: _Lines, level: float) -> Interval:
    return slope_interval(lines.slope, level).map(lambda slope: slope * lines.scale)


def _mean(own: Sequence[_Lines]) -> _Lines:
    """Mean over budgets; the slope in parameters is none, for its scale grows with N*."""
    parts: list[Callable[[_Lines], FittedLine]] = [lambda one: one.relative, lambda one: one.elasticity]
    relative, elasticity = (mean_line([part(one) for one in own]) for part in parts)
    return _Lines(slope=relative, relative=relative, elasticity=elasticity, scale=math.nan)


def _pooled(category: str, optima: Sequence[MixOptima], own: Sequence[_Lines], level: float) -> ShareEffect:
    """The mean of a column's lines, where budgets have any, with the mixes that it does without."""
    names: dict[str, Any] = {"skill": optima[0].column, "category": category, "C": math.nan}
    lost = describe_excluded_by_budget(optima)
    if not own:
        reason = f"no budget has {MIN_MIXES} mixes of distinct share with an optimum"
        return ShareEffect(**names, status=Status.TOO_FEW_MIXES, reason=_joined(reason, lost))
    mean, over = _mean(own), f"mean over {len(own)} of {len(optima)} budgets"
    if mean.elasticity.unusable_reason:
        return ShareEffect(**names, status=Status.BEYOND, reason=_joined(over, mean.elasticity.unusable_reason, lost))
    return ShareEffect(
        **names, status=Status.OK, reason=_joined(over, "the slope in parameters is each budget's own", lost),
        relative=slope_interval(mean.relative, level), elasticity=slope_interval(mean.elasticity, level),
        p=two_sided_p(mean.elasticity.draws[:, 1]), p_scatter=mean.elasticity.p_scatter, line=mean.elasticity,
    )  # fmt: skip


def _joined(*reasons: str) -> str:
    return "; ".join(reason for reason in reasons if reason)


def _with_holm(effects: Sequence[ShareEffect]) -> tuple[ShareEffect, ...]:
    """The means over budgets with p after Holm's step-down over the columns that have one; single budgets as is."""
    known = [at for at, one in enumerate(effects) if math.isnan(one.C) and math.isfinite(one.p)]
    after = dict(zip(known, holm(np.array([effects[at].p for at in known])), strict=True))
    return tuple(replace(one, p_holm=float(after.get(at, math.nan))) for at, one in enumerate(effects))


def _compared(
    lines: Mapping[tuple[str, float], _Lines], names: tuple[str, str], budgets: Sequence[float]
) -> list[_Pair]:  # fmt: skip
    return [*(_pair_at(lines, names, C) for C in budgets), _pair_over(lines, names, budgets)]


def _pair_at(lines: Mapping[tuple[str, float], _Lines], names: tuple[str, str], C: float) -> _Pair:
    """Two columns at a budget."""
    first, second = names
    lacking = [name for name in names if (name, C) not in lines]
    if lacking:
        reason = f"{' and '.join(lacking)}: no line, too few mixes with an optimum"
        return _Pair(first=first, second=second, C=C, status=Status.TOO_FEW_MIXES, reason=reason)
    two = lines[first, C], lines[second, C]
    return _Pair(first=first, second=second, C=C, status=Status.OK, reason="", lines=two)


def _pair_over(
    lines: Mapping[tuple[str, float], _Lines], names: tuple[str, str], budgets: Sequence[float]
) -> _Pair:  # fmt: skip
    """Two columns in the mean over the budgets where both have a line: N* grows with C, so that others would differ."""
    first, second = names
    both = [C for C in budgets if (first, C) in lines and (second, C) in lines]
    about: dict[str, Any] = {"first": first, "second": second, "C": math.nan}
    if not both:
        reason = "no budget has a line of both, too few mixes with an optimum"
        return _Pair(**about, status=Status.TOO_FEW_MIXES, reason=reason)
    two = _mean([lines[first, C] for C in both]), _mean([lines[second, C] for C in both])
    apart = [
        f"{name}: {one.elasticity.unusable_reason}"
        for name, one in zip(names, two, strict=True)
        if one.elasticity.unusable_reason
    ]
    reason = _joined(f"mean over {len(both)} of {len(budgets)} budgets", *apart)
    if apart:
        return _Pair(**about, status=Status.BEYOND, reason=reason)
    return _Pair(**about, status=Status.OK, reason=reason, lines=two)


def _gap(one: FittedLine, other: FittedLine, scales: tuple[float, float] = (1.0, 1.0)) -> tuple[float, Array]:
    """Difference of two slopes with its draws."""
    a, b = scales
    return a * one.slope - b * other.slope, a * one.draws[:, 1] - b * other.draws[:, 1]


def _difference(pair: _Pair, level: float) -> SlopeDifference:
    if pair.lines is None:
        return SlopeDifference(**pair.named, status=pair.status)
    one, other = pair.lines
    elasticity, drawn = _gap(one.elasticity, other.elasticity)
    slope = Interval()
    if math.isfinite(one.scale):
        slope = interval(*_gap(one.slope, other.slope, (one.scale, other.scale)), level)
    return SlopeDifference(
        **pair.named, status=Status.OK, slope=slope, relative=interval(*_gap(one.relative, other.relative), level),
        elasticity=interval(elasticity, drawn, level), p=two_sided_p(drawn),
    )  # fmt: skip


def _equal(pair: _Pair, share: float, level: float) -> EqualShareComparison:
    if pair.lines is None:
        return EqualShareComparison(**pair.named, share=share, status=pair.status)
    one, other = (each.elasticity for each in pair.lines)
    x = math.log(share)
    for name, line in ((pair.first, one), (pair.second, other)):
        if not line.lo <= x <= line.hi:
            reason = f"{name} has mixes of share {math.exp(line.lo):.3g} to {math.exp(line.hi):.3g}; run one beyond"
            named = pair.named | {"reason": _joined(pair.reason, reason)}
            return EqualShareComparison(**named, share=share, status=Status.BEYOND)
    drawn = one.drawn_at(x) - other.drawn_at(x)
    ratio = interval(one.at(x) - other.at(x), drawn, level).map(math.exp)
    return EqualShareComparison(**pair.named, share=share, status=Status.OK, ratio=ratio, p=two_sided_p(drawn))
