"""Relate N* to the share of a skill's category: slopes, elasticities, and skills compared at equal share.

The fits of a study with several mixes go in, and a ``ShareStudy`` comes out. In one mix, skills differ in N* also
because the mix has more of the category of one of them. To compare them at *equal* share, each skill gets a line of ln
N* by ln share of its category, and the lines are read at the same share. All lines use the same resamples of the same
runs. A share beyond the mixes of either skill is refused.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

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
_DISTINCT = 0.005  # shares that differ by less count as one


@dataclass(frozen=True, kw_only=True)
class ShareEffect:
    """Dependence of N* of a column on the share of a category, at a budget or in the mean over budgets (``C`` is NaN).

    ``slope``: d N* / d share, in parameters per unit share, at single budgets only, because it grows with N*.
    ``relative``: d ln N* / d share. ``elasticity``: d ln N* / d ln share over the mixes with a share above 0, with its
    two-sided ``p`` of being 0, and ``p_holm`` after Holm's step-down over the columns (means over budgets only, NaN
    elsewhere). ``p_scatter``: probability that noise alone scatters the mixes as far from the line of ln N* by ln
    share, or Bonferroni's bound on it for the mean over budgets. A small value says that the line is not exact. The
    intervals include this.
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
    """N*(first) / N*(second) where both have the same ``share`` of their category, with the p of being 1.

    The mean over budgets includes those where both have a line. Their number is in ``reason``.
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
    """Slope and elasticity of the first skill less those of the second, paired. ``p`` is for the elasticity.

    The mean over budgets includes those where both have a line. Their number is in ``reason``.
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
    """Results of a mix ablation: the dependence of N* on shares."""

    level: float
    effects: tuple[ShareEffect, ...]
    equal_shares: tuple[EqualShareComparison, ...]
    differences: tuple[SlopeDifference, ...]
    points: pd.DataFrame = field(repr=False, compare=False)

    def effect_table(self) -> pd.DataFrame:
        """Return one row per column and budget.

        Columns: skill category C, slope, relative and elasticity, each with _lo and _hi, p p_holm p_scatter tau n_mixes
        mixes status reason.
        """
        return table(
            {"skill": effect.skill, "category": effect.category, "C": effect.C}
            | bounds("slope", effect.slope)
            | bounds("relative", effect.relative)
            | bounds("elasticity", effect.elasticity)
            | {"p": effect.p, "p_holm": effect.p_holm, "p_scatter": effect.p_scatter}
            | {"tau": effect.line.tau if effect.line else math.nan}
            | {"n_mixes": len(effect.mixes), "mixes": "; ".join(effect.mixes)}
            | {"status": str(effect.status), "reason": effect.reason}
            for effect in self.effects
        )

    def equal_share_table(self) -> pd.DataFrame:
        """Return one row per pair, budget and share: first second C share ratio ratio_lo ratio_hi p status reason."""
        return table(
            {"first": pair.first, "second": pair.second, "C": pair.C, "share": pair.share}
            | bounds("ratio", pair.ratio)
            | {"p": pair.p, "status": str(pair.status), "reason": pair.reason}
            for pair in self.equal_shares
        )

    def difference_table(self) -> pd.DataFrame:
        """Return one row per pair and budget.

        Columns: first second C, slope, relative and elasticity, each with _lo and _hi, p status reason.
        """
        return table(
            {"first": pair.first, "second": pair.second, "C": pair.C}
            | bounds("slope", pair.slope)
            | bounds("relative", pair.relative)
            | bounds("elasticity", pair.elasticity)
            | {"p": pair.p, "status": str(pair.status), "reason": pair.reason}
            for pair in self.differences
        )

    def points_table(self) -> pd.DataFrame:
        """Return one row per column, budget and mix: skill category C mix share N N_lo N_hi status reason."""
        return self.points

    def line_table(self, steps: int = 25) -> pd.DataFrame:
        """Return points on the lines, for a plot, over the shares of the mixes.

        Columns: skill category C share N N_lo N_hi.
        """
        return table(
            {"skill": effect.skill, "category": effect.category, "C": effect.C, "share": math.exp(x)}
            | bounds("N", interval(effect.line.at(x), effect.line.draws_at(x), self.level).map(math.exp))
            for effect in self.effects
            if effect.line is not None and not math.isnan(effect.C)
            for x in np.linspace(effect.line.lo, effect.line.hi, steps)
        )


@dataclass(frozen=True, kw_only=True)
class _Lines:
    """The three lines of a column at a budget. ``elasticity``: ln N* by ln share. ``slope``: in units of ``scale``."""

    slope: FittedLine
    relative: FittedLine
    elasticity: FittedLine
    scale: float


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """The lines of two columns to compare, at a budget or as means over the same budgets, where ``status`` is OK."""

    first: str
    second: str
    C: float
    status: Status
    reason: str
    lines: tuple[_Lines, _Lines] | None = None


def share_study(
    fits: StudyResults, categories: Mapping[str, str], *, pairs: Sequence[tuple[str, str]] | None = None,
    at: Sequence[float] = AT, seed: int = 0,
) -> ShareStudy:  # fmt: skip
    """Fit N* of each column against the share of its category, and compare columns at equal shares.

    Args:
        fits: fits of a study with several mixes, whose runs have the columns ``mix/CATEGORY``.
        categories: category of each column (a skill, a data set, an aggregate) to analyse.
        pairs: pairs of columns to compare. Default: all pairs of different categories.
        at: shares to compare at, between 0 and 1.
        seed: seed of the mix effects.

    Raises:
        InputError: a column was not fitted, or the runs do not have a category.
    """
    _check(fits, categories, pairs or [])
    rng = np.random.default_rng([seed, 7])
    budgets = sorted({minimum.C for minimum in fits.minima})
    effects, points = [], []
    lines: dict[tuple[str, float], _Lines] = {}
    for column, category in categories.items():
        effect_draws, shares = MixEffectDraws.draw(fits.mixes, fits.resamples, rng), category_shares(fits, category)
        points += _points(fits, column, category, shares)
        optima = [_optima(fits, column, C, category, shares) for C in budgets]
        for budget_optima in optima:
            effect, fitted_lines = _effect(budget_optima, category, shares, effect_draws, fits.level)
            effects.append(effect)
            if fitted_lines is not None:
                lines[column, budget_optima.C] = fitted_lines
        column_lines = [lines[column, C] for C in budgets if (column, C) in lines]
        effects.append(_pooled(category, optima, column_lines, fits.level))
    if pairs is None:
        pairs = [(a, b) for a, b in combinations(categories, 2) if categories[a] != categories[b]]
    line_pairs = [line_pair for names in pairs for line_pair in _line_pairs(lines, names, budgets)]
    return ShareStudy(
        level=fits.level, effects=_with_holm(effects), points=table(points),
        equal_shares=tuple(_equal_share(pair, share, fits.level) for pair in line_pairs for share in at),
        differences=tuple(_difference(pair, fits.level) for pair in line_pairs),
    )  # fmt: skip


def _check(fits: StudyResults, categories: Mapping[str, str], pairs: Sequence[tuple[str, str]]) -> None:
    require_columns(fits, list(categories), list(categories.values()))
    for name in {name for pair in pairs for name in pair} - set(categories):
        raise InputError(f"no category for the pair column {name}. Add it to categories.")


def _points(fits: StudyResults, column: str, category: str, shares: Mapping[str, float]) -> list[dict[str, object]]:
    return [
        {"skill": column, "category": category, "C": minimum.C, "mix": minimum.mix, "share": shares[minimum.mix]}
        | bounds("N", minimum.N)
        | {"status": str(minimum.status), "reason": minimum.reason}
        for minimum in fits.minima
        if minimum.skill == column
    ]


def _optima(fits: StudyResults, column: str, C: float, category: str, shares: Mapping[str, float]) -> MixOptima:
    """Collect the optima of the mixes with some of the category."""
    optima = MixOptima.of(fits, column, C)
    return optima.select({mix: shares[mix] > 0 for mix in optima.mixes}, f"no share of {category} above 0")


def _effect(
    optima: MixOptima, category: str, shares: Mapping[str, float], effect_draws: MixEffectDraws, level: float
) -> tuple[ShareEffect, _Lines | None]:
    x = np.array([shares[mix] for mix in optima.mixes])
    distinct = len(np.unique(np.round(x / _DISTINCT)))
    if distinct < MIN_MIXES:
        excluded = f"; {describe_excluded(optima.excluded)}" if optima.excluded else ""
        reason = f"{distinct} distinct shares of {category} with an optimum: a line needs {MIN_MIXES}, better 5"
        refused = ShareEffect(
            skill=optima.column, category=category, C=optima.C, mixes=optima.mixes, status=Status.TOO_FEW_MIXES,
            reason=reason + excluded,
        )  # fmt: skip
        return refused, None
    scale = math.exp(float(optima.value.mean()))
    lines = _Lines(
        slope=fit_line(
            optima, x, effect_draws, values=np.exp(optima.value) / scale, drawn=np.exp(optima.draws) / scale
        ),
        relative=fit_line(optima, x, effect_draws), elasticity=fit_line(optima, np.log(x), effect_draws),
        scale=scale,
    )  # fmt: skip
    effect = ShareEffect(
        skill=optima.column, category=category, C=optima.C, mixes=optima.mixes, status=Status.OK,
        reason=describe_excluded(optima.excluded), slope=_slope(lines, level),
        relative=slope_interval(lines.relative, level), elasticity=slope_interval(lines.elasticity, level),
        p=two_sided_p(lines.elasticity.draws[:, 1]), p_scatter=lines.elasticity.p_scatter, line=lines.elasticity,
    )  # fmt: skip
    return effect, lines


def _slope(lines: _Lines, level: float) -> Interval:
    return slope_interval(lines.slope, level).map(lambda slope: slope * lines.scale)


def _mean(lines: Sequence[_Lines]) -> _Lines:
    """Average lines over budgets. There is no slope in parameters, because its scale grows with N*."""
    relative = mean_line([budget_lines.relative for budget_lines in lines])
    elasticity = mean_line([budget_lines.elasticity for budget_lines in lines])
    return _Lines(slope=relative, relative=relative, elasticity=elasticity, scale=math.nan)


def _pooled(category: str, optima: Sequence[MixOptima], lines: Sequence[_Lines], level: float) -> ShareEffect:
    """Average a column's lines over the budgets that have them, and list the excluded mixes."""
    excluded = describe_excluded_by_budget(optima)
    no_line = f"no budget has {MIN_MIXES} mixes of distinct share with an optimum"
    effect = ShareEffect(
        skill=optima[0].column, category=category, C=math.nan, status=Status.TOO_FEW_MIXES,
        reason=_joined(no_line, excluded),
    )  # fmt: skip
    if not lines:
        return effect
    mean, over = _mean(lines), f"mean over {len(lines)} of {len(optima)} budgets"
    problem = mean.elasticity.unusable_reason
    if problem:
        return replace(effect, status=Status.BEYOND, reason=_joined(over, problem, excluded))
    return replace(
        effect, status=Status.OK, reason=_joined(over, "the slope in parameters differs by budget", excluded),
        relative=slope_interval(mean.relative, level), elasticity=slope_interval(mean.elasticity, level),
        p=two_sided_p(mean.elasticity.draws[:, 1]), p_scatter=mean.elasticity.p_scatter, line=mean.elasticity,
    )  # fmt: skip


def _joined(*reasons: str) -> str:
    return "; ".join(reason for reason in reasons if reason)


def _with_holm(effects: Sequence[ShareEffect]) -> tuple[ShareEffect, ...]:
    """Add p after Holm's step-down over the columns to the means over budgets. Single budgets stay unchanged."""
    pooled = [i for i, effect in enumerate(effects) if math.isnan(effect.C) and math.isfinite(effect.p)]
    p_holm = dict(zip(pooled, holm(np.array([effects[i].p for i in pooled])), strict=True))
    return tuple(replace(effect, p_holm=float(p_holm.get(i, math.nan))) for i, effect in enumerate(effects))


def _line_pairs(
    lines: Mapping[tuple[str, float], _Lines], names: tuple[str, str], budgets: Sequence[float]
) -> list[_Pair]:  # fmt: skip
    return [*(_pair_at(lines, names, C) for C in budgets), _pair_over(lines, names, budgets)]


def _pair_at(lines: Mapping[tuple[str, float], _Lines], names: tuple[str, str], C: float) -> _Pair:
    """Pair the lines of two columns at a budget."""
    first, second = names
    without_line = [name for name in names if (name, C) not in lines]
    if without_line:
        reason = f"{' and '.join(without_line)}: no line, too few mixes with an optimum"
        return _Pair(first=first, second=second, C=C, status=Status.TOO_FEW_MIXES, reason=reason)
    pair = lines[first, C], lines[second, C]
    return _Pair(first=first, second=second, C=C, status=Status.OK, reason="", lines=pair)


def _pair_over(
    lines: Mapping[tuple[str, float], _Lines], names: tuple[str, str], budgets: Sequence[float]
) -> _Pair:  # fmt: skip
    """Average two columns over the budgets where both have a line. N* grows with C, so other budgets would bias it."""
    first, second = names
    both = [C for C in budgets if (first, C) in lines and (second, C) in lines]
    pair = _Pair(
        first=first, second=second, C=math.nan, status=Status.TOO_FEW_MIXES,
        reason="no budget has a line of both, too few mixes with an optimum",
    )  # fmt: skip
    if not both:
        return pair
    means = _mean([lines[first, C] for C in both]), _mean([lines[second, C] for C in both])
    problems = [
        f"{name}: {mean.elasticity.unusable_reason}"
        for name, mean in zip(names, means, strict=True)
        if mean.elasticity.unusable_reason
    ]
    reason = _joined(f"mean over {len(both)} of {len(budgets)} budgets", *problems)
    if problems:
        return replace(pair, status=Status.BEYOND, reason=reason)
    return replace(pair, status=Status.OK, reason=reason, lines=means)


def _gap(first: FittedLine, second: FittedLine, scales: tuple[float, float] = (1.0, 1.0)) -> tuple[float, Array]:
    """Return the difference of two slopes with its draws."""
    a, b = scales
    return a * first.slope - b * second.slope, a * first.draws[:, 1] - b * second.draws[:, 1]


def _difference(pair: _Pair, level: float) -> SlopeDifference:
    result = SlopeDifference(first=pair.first, second=pair.second, C=pair.C, status=pair.status, reason=pair.reason)
    if pair.lines is None:
        return result
    first, second = pair.lines
    elasticity, draws = _gap(first.elasticity, second.elasticity)
    slope = Interval()
    if math.isfinite(first.scale):
        slope = interval(*_gap(first.slope, second.slope, (first.scale, second.scale)), level)
    return replace(
        result, slope=slope, relative=interval(*_gap(first.relative, second.relative), level),
        elasticity=interval(elasticity, draws, level), p=two_sided_p(draws),
    )  # fmt: skip


def _equal_share(pair: _Pair, share: float, level: float) -> EqualShareComparison:
    result = EqualShareComparison(
        first=pair.first, second=pair.second, C=pair.C, share=share, status=pair.status, reason=pair.reason
    )
    if pair.lines is None:
        return result
    first, second = (lines.elasticity for lines in pair.lines)
    x = math.log(share)
    for name, line in ((pair.first, first), (pair.second, second)):
        if not line.lo <= x <= line.hi:
            covered = f"{math.exp(line.lo):.3g} to {math.exp(line.hi):.3g}"
            reason = f"{name} has mixes of share {covered}: run a mix beyond"
            return replace(result, status=Status.BEYOND, reason=_joined(pair.reason, reason))
    draws = first.draws_at(x) - second.draws_at(x)
    ratio = interval(first.at(x) - second.at(x), draws, level).map(math.exp)
    return replace(result, ratio=ratio, p=two_sided_p(draws))
