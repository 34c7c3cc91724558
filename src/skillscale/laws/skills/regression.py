"""Straight lines through the compute optima of several mixes, with draws that own what the mixes differ in besides.

Two errors make ln N* of a mix leave a line. Its runs' noise is known from the resamples, which mixes share where they
share sizes and seeds. For an error that all mixes have in common does not cancel in a slope: it moves all optima alike
to first order, but what it does to the curvature stretches the distances between them. What one seed does to all sizes
and mixes of a budget can't be seen at all where there is no second seed. The other error is that a mix's remaining
shares change too, so that no line is quite true: a variance ``tau^2`` between mixes, by the method of moments
(DerSimonian and Laird 1986, with the resamples' own scatter as what noise makes of it), drawn with Student's tails for
the mixes beyond the line's two parameters.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import chi2

from skillscale.errors import InputError
from skillscale.laws.forms.nd import Array
from skillscale.laws.results import Interval, IsoflopMinimum, Status, StudyResults
from skillscale.laws.uncertainty.resamples import interval, robust_sd

MIN_MIXES = 3  # mixes for a line whose scatter can be seen
_SD = 1e-6  # least error of ln N*, for weights


@dataclass(frozen=True, kw_only=True)
class MixEffectDraws:
    """What the K draws add to each mix beyond its runs' noise, the same at every budget, for a mix stays what it is.

    ``effects``: (K, n_mixes) standard normals; ``uniforms``: (K,) that become the chi2 of the mixes' freedom.
    """

    mixes: tuple[str, ...]
    effects: Array = field(repr=False)
    uniforms: Array = field(repr=False)

    @classmethod
    def draw(cls, mixes: Sequence[str], count: int, rng: np.random.Generator) -> "MixEffectDraws":
        """Draw for ``count`` resamples."""
        return cls(
            mixes=tuple(mixes), effects=rng.normal(size=(count, len(mixes))), uniforms=1 - rng.random(count)
        )  # fmt: skip

    def of(self, mixes: Sequence[str], tau: float) -> Array:
        """Effects (K, n) of some of the mixes, whose sd is ``tau``."""
        freedom = len(mixes) - 2
        if tau == 0:
            return np.zeros((len(self.effects), len(mixes)))
        scale = np.sqrt(freedom / chi2.ppf(self.uniforms, freedom))
        mine = [self.mixes.index(mix) for mix in mixes]
        return np.asarray(tau * scale[:, None] * self.effects[:, mine])


@dataclass(frozen=True, kw_only=True)
class FittedLine:
    """y = level + slope (x - centre) through mixes from ``lo`` to ``hi`` of x.

    ``draws``: (K, 2) level and slope; ``tau``: sd of a mix about the line beyond its runs' noise; ``p_scatter``: the
    share of resamples in which noise alone scatters as much, or a bound on it where the line is a mean over budgets.
    A mean of lines that have no x in common has ``lo`` above ``hi``.
    """

    centre: float
    level: float
    slope: float
    lo: float
    hi: float
    tau: float
    p_scatter: float
    draws: Array = field(repr=False)

    @property
    def unusable_reason(self) -> str:
        """Why the line is of no use, or nothing: a mean of lines that have no x in common."""
        return "" if self.lo < self.hi else "its budgets' mixes have no range in common; run the same mixes at each"

    def at(self, x: float) -> float:
        """The line at x."""
        return self.level + self.slope * (x - self.centre)

    def drawn_at(self, x: float) -> Array:
        """Its draws there, (K,)."""
        return np.asarray(self.draws[:, 0] + self.draws[:, 1] * (x - self.centre))


@dataclass(frozen=True, kw_only=True)
class MixOptima:
    """The optima of one column at one budget in the mixes that have them.

    ``value``: ln N* (n,), with ``draws`` (K, n); ``excluded``: mixes whose minimum was refused, with the reason.
    """

    column: str
    C: float
    mixes: tuple[str, ...]
    value: Array
    draws: Array = field(repr=False)
    excluded: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, fits: StudyResults, column: str, C: float) -> "MixOptima":
        """Those of a study."""
        there = [one for one in fits.minima if one.skill == column and one.C == C]
        good = [one for one in there if one.status is Status.OK]
        refused = tuple((one.mix, f"{one.status}: {one.reason}") for one in there if one.status is not Status.OK)
        lacking = [mix for mix in fits.mixes if mix not in {one.mix for one in there}]
        return cls(
            column=column, C=C, mixes=tuple(one.mix for one in good), value=np.array([log_N(one) for one in good]),
            draws=np.column_stack([one.draws[:, 0] for one in good]) if good else np.empty((fits.resamples, 0)),
            excluded=refused + tuple((mix, "no runs at this budget") for mix in lacking),
        )  # fmt: skip

    def only(self, keep: Mapping[str, bool], why: str) -> "MixOptima":
        """Without the mixes that are not to be kept, which are left out for the reason given."""
        at = [i for i, mix in enumerate(self.mixes) if keep[mix]]
        gone = tuple((mix, why) for mix in self.mixes if not keep[mix])
        return MixOptima(
            column=self.column, C=self.C, mixes=tuple(self.mixes[i] for i in at), value=self.value[at],
            draws=self.draws[:, at], excluded=self.excluded + gone,
        )  # fmt: skip

    def minus(self, other: "MixOptima") -> "MixOptima":
        """Differences of ln N* in the mixes that both have."""
        both = [mix for mix in self.mixes if mix in other.mixes]
        own, its = ([one.mixes.index(mix) for mix in both] for one in (self, other))
        lost = tuple((mix, f"no optimum of {other.column}") for mix in self.mixes if mix not in both)
        return MixOptima(
            column=f"{self.column} - {other.column}", C=self.C, mixes=tuple(both),
            value=self.value[own] - other.value[its], draws=self.draws[:, own] - other.draws[:, its],
            excluded=self.excluded + lost,
        )  # fmt: skip


def log_N(minimum: IsoflopMinimum) -> float:
    """Ln N* of a minimum that stands."""
    return math.log(minimum.N.value)


def fit_line(
    optima: MixOptima,
    x: Array,
    effect_draws: MixEffectDraws,
    *,
    values: Array | None = None,
    drawn: Array | None = None,
) -> FittedLine:
    """The line through the optima of ``MIN_MIXES`` mixes or more, each weighed by its precision.

    Args:
        optima: whose ln N* has the precisions.
        x: of each mix, (n,).
        effect_draws: what draws add to mixes.
        values: y (n,) in place of ln N*, about 1 in size; ``drawn``: their draws (K, n).
    """
    y, draws = (optima.value, optima.draws) if values is None or drawn is None else (values, drawn)
    sd = np.maximum(robust_sd(optima.draws), _SD)
    tau, p_scatter = _scatter(x, y, draws, sd)
    weights = 1 / (sd**2 + tau**2)
    centre = float(np.average(x, weights=weights))
    project = _projection(x - centre, weights)
    level, slope = project @ y
    return FittedLine(
        centre=centre, level=float(level), slope=float(slope), lo=float(x.min()), hi=float(x.max()), tau=tau,
        p_scatter=p_scatter, draws=(draws + effect_draws.of(optima.mixes, tau)) @ project.T,
    )  # fmt: skip


def mean_line(lines: Sequence[FittedLine]) -> FittedLine:
    """The plain mean of lines of several budgets, over the x that all of them have.

    Its ``p_scatter`` is Bonferroni's bound: the number of budgets times the least of theirs.
    """
    centre = float(np.mean([line.centre for line in lines]))
    return FittedLine(
        centre=centre, level=float(np.mean([line.at(centre) for line in lines])),
        slope=float(np.mean([line.slope for line in lines])), lo=max(line.lo for line in lines),
        hi=min(line.hi for line in lines), tau=float(np.mean([line.tau for line in lines])),
        p_scatter=min(1.0, len(lines) * min(line.p_scatter for line in lines)),
        draws=np.mean([np.column_stack([line.drawn_at(centre), line.draws[:, 1]]) for line in lines], axis=0),
    )  # fmt: skip


def _projection(x: Array, weights: Array) -> Array:
    """(2, n) from y to the level and slope of weighted least squares."""
    design = np.column_stack([np.ones(len(x)), x])
    return np.asarray(np.linalg.solve((design.T * weights) @ design, design.T * weights))


def _scatter(x: Array, y: Array, draws: Array, sd: Array) -> tuple[float, float]:
    """Sd of mixes about the line beyond noise, and the p of seeing this much scatter from noise alone."""
    weights = 1 / sd**2
    design = np.column_stack([np.ones(len(x)), x - np.average(x, weights=weights)])
    left = np.eye(len(x)) - design @ _projection(design[:, 1], weights)
    found = float(weights @ (left @ y) ** 2)
    noise = ((draws - y) @ left.T) ** 2 @ weights
    excess = found - float(np.median(noise))
    room = float(np.einsum("ij,i,ij->", left, weights, left))
    return math.sqrt(max(excess, 0.0) / room), float((1 + (noise >= found).sum()) / (1 + len(noise)))


def require_columns(fits: StudyResults, columns: Sequence[str], categories: Sequence[str] = ()) -> None:
    """Check that columns were fitted, and that the runs' mixes have the categories.

    Raises:
        InputError: they were not, or have not.
    """
    fitted = {one.skill for one in fits.minima}
    for column in columns:
        if column not in fitted:
            raise InputError(f"{column} was not fitted; there is {', '.join(sorted(fitted))}")
    there = [str(name)[4:] for name in fits.runs.columns if str(name).startswith("mix/")]
    for category in categories:
        if category not in there:
            raise InputError(f"the runs' mixes have no category {category}; they have {', '.join(there) or 'none'}")


def category_shares(fits: StudyResults, category: str) -> dict[str, float]:
    """Share of a category in each mix.

    Raises:
        KeyError: the runs have no such category.
    """
    return {str(mix): float(share) for mix, share in fits.runs.groupby("mix")[f"mix/{category}"].mean().items()}


def describe_excluded(excluded: Iterable[tuple[str, str]]) -> str:
    """Mixes that were left out, by name and reason."""
    return "; ".join(f"without {mix} ({why})" for mix, why in excluded)


def describe_excluded_by_budget(budgets: Sequence[MixOptima]) -> str:
    """Mixes that were left out at some budgets, by name and the number of them."""
    times = Counter(mix for one in budgets for mix, _ in one.excluded)
    return f"without {', '.join(f'{mix} at {n} of {len(budgets)}' for mix, n in times.items())}" if times else ""


def slope_interval(line: FittedLine, level: float) -> Interval:
    """The slope with its interval."""
    return interval(line.slope, line.draws[:, 1], level)
