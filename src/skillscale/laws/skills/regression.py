"""Fit straight lines through the compute optima of several mixes, with draws that include the scatter between mixes.

``MixOptima`` and one x per mix go in, and a ``FittedLine`` comes out. Two errors move ln N* of a mix off a line.

The first is run noise. Its size comes from the resamples, which mixes share where they share sizes and seeds. An error
common to all mixes does not cancel in a slope: to first order it moves all optima equally, but its effect on the
curvature stretches the distances between them. The effect of one seed on all sizes and mixes of a budget cannot be
estimated without a second seed.

The second is that the other shares of a mix change too, so no line is exact. It has a variance ``tau^2`` between mixes,
estimated by the method of moments (DerSimonian and Laird 1986, with the scatter of the resamples as noise), and drawn
with Student's t with n_mixes - 2 degrees of freedom.
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

MIN_MIXES = 3  # mixes for a line whose scatter can be estimated
_SD = 1e-6  # least error of ln N*, for weights


@dataclass(frozen=True, kw_only=True)
class MixEffectDraws:
    """Standardised mix effects in K draws, beyond run noise. They are the same at every budget, as the mix is the same.

    ``effects``: (K, n_mixes) standard normals. ``uniforms``: (K,), transformed to chi2 with the degrees of freedom.
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
        """Return the effects (K, n) of some of the mixes, with sd ``tau``."""
        freedom = len(mixes) - 2
        if tau == 0:
            return np.zeros((len(self.effects), len(mixes)))
        scale = np.sqrt(freedom / chi2.ppf(self.uniforms, freedom))
        indices = [self.mixes.index(mix) for mix in mixes]
        return np.asarray(tau * scale[:, None] * self.effects[:, indices])


@dataclass(frozen=True, kw_only=True)
class FittedLine:
    """The line y = level + slope (x - centre) through mixes with x from ``lo`` to ``hi``.

    ``draws``: (K, 2) level and slope. ``tau``: sd of a mix about the line beyond run noise. ``p_scatter``: fraction of
    resamples in which noise alone scatters as much, or a bound on it where the line is a mean over budgets. A mean of
    lines without common x has ``lo`` above ``hi``.
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
        """Why the line is unusable, empty where it is usable. A mean of lines without common x is unusable."""
        return "" if self.lo < self.hi else "the mixes of its budgets have no common range: run the same mixes at each"

    def at(self, x: float) -> float:
        """Return y at x."""
        return self.level + self.slope * (x - self.centre)

    def draws_at(self, x: float) -> Array:
        """Return the draws of y at x, (K,)."""
        return np.asarray(self.draws[:, 0] + self.draws[:, 1] * (x - self.centre))


@dataclass(frozen=True, kw_only=True)
class MixOptima:
    """The optima of one column at one budget, in the mixes that have one.

    ``value``: ln N* (n,), with ``draws`` (K, n). ``excluded``: mixes whose minimum was refused, with the reason.
    """

    column: str
    C: float
    mixes: tuple[str, ...]
    value: Array
    draws: Array = field(repr=False)
    excluded: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, fits: StudyResults, column: str, C: float) -> "MixOptima":
        """Collect the optima of a study."""
        minima = [minimum for minimum in fits.minima if minimum.skill == column and minimum.C == C]
        good = [minimum for minimum in minima if minimum.status is Status.OK]
        refused = tuple((bad.mix, f"{bad.status}: {bad.reason}") for bad in minima if bad.status is not Status.OK)
        without_runs = [mix for mix in fits.mixes if mix not in {minimum.mix for minimum in minima}]
        return cls(
            column=column, C=C, mixes=tuple(minimum.mix for minimum in good),
            value=np.array([log_N(minimum) for minimum in good]),
            draws=np.column_stack([minimum.draws[:, 0] for minimum in good]) if good else np.empty((fits.resamples, 0)),
            excluded=refused + tuple((mix, "no runs at this budget") for mix in without_runs),
        )  # fmt: skip

    def select(self, keep: Mapping[str, bool], why: str) -> "MixOptima":
        """Exclude the mixes that are not to be kept, for the given reason."""
        indices = [i for i, mix in enumerate(self.mixes) if keep[mix]]
        dropped = tuple((mix, why) for mix in self.mixes if not keep[mix])
        return MixOptima(
            column=self.column, C=self.C, mixes=tuple(self.mixes[i] for i in indices), value=self.value[indices],
            draws=self.draws[:, indices], excluded=self.excluded + dropped,
        )  # fmt: skip

    def subtract(self, other: "MixOptima") -> "MixOptima":
        """Subtract ln N* of another column in the mixes that both have."""
        both = [mix for mix in self.mixes if mix in other.mixes]
        i, j = ([optima.mixes.index(mix) for mix in both] for optima in (self, other))
        dropped = tuple((mix, f"no optimum of {other.column}") for mix in self.mixes if mix not in both)
        return MixOptima(
            column=f"{self.column} - {other.column}", C=self.C, mixes=tuple(both),
            value=self.value[i] - other.value[j], draws=self.draws[:, i] - other.draws[:, j],
            excluded=self.excluded + dropped,
        )  # fmt: skip


def log_N(minimum: IsoflopMinimum) -> float:
    """Return ln N* of a minimum with status ok."""
    return math.log(minimum.N.value)


def fit_line(
    optima: MixOptima,
    x: Array,
    effect_draws: MixEffectDraws,
    *,
    values: Array | None = None,
    drawn: Array | None = None,
) -> FittedLine:
    """Fit a line through the optima of ``MIN_MIXES`` mixes or more, each weighted by its precision.

    Args:
        optima: optima that give the weights, and y unless ``values`` is given.
        x: x of each mix, (n,).
        effect_draws: draws of the mix effects.
        values: y (n,) in place of ln N*, of size about 1.
        drawn: draws of ``values``, (K, n).
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
    """Return the plain mean of lines of several budgets, over the x that all of them cover.

    Its ``p_scatter`` is Bonferroni's bound: the number of budgets times the least p.
    """
    centre = float(np.mean([line.centre for line in lines]))
    return FittedLine(
        centre=centre, level=float(np.mean([line.at(centre) for line in lines])),
        slope=float(np.mean([line.slope for line in lines])), lo=max(line.lo for line in lines),
        hi=min(line.hi for line in lines), tau=float(np.mean([line.tau for line in lines])),
        p_scatter=min(1.0, len(lines) * min(line.p_scatter for line in lines)),
        draws=np.mean([np.column_stack([line.draws_at(centre), line.draws[:, 1]]) for line in lines], axis=0),
    )  # fmt: skip


def _projection(x: Array, weights: Array) -> Array:
    """Return the matrix (2, n) from y to the level and slope of weighted least squares."""
    design = np.column_stack([np.ones(len(x)), x])
    return np.asarray(np.linalg.solve((design.T * weights) @ design, design.T * weights))


def _scatter(x: Array, y: Array, draws: Array, sd: Array) -> tuple[float, float]:
    """Return the sd of mixes about the line beyond noise, and the p-value of this scatter under noise alone."""
    weights = 1 / sd**2
    design = np.column_stack([np.ones(len(x)), x - np.average(x, weights=weights)])
    residual_projection = np.eye(len(x)) - design @ _projection(design[:, 1], weights)
    scatter = float(weights @ (residual_projection @ y) ** 2)
    noise = ((draws - y) @ residual_projection.T) ** 2 @ weights
    excess = scatter - float(np.median(noise))
    room = float(np.einsum("ij,i,ij->", residual_projection, weights, residual_projection))
    return math.sqrt(max(excess, 0.0) / room), float((1 + (noise >= scatter).sum()) / (1 + len(noise)))


def require_columns(fits: StudyResults, columns: Sequence[str], categories: Sequence[str] = ()) -> None:
    """Check that columns were fitted, and that the mixes of the runs have the categories.

    Raises:
        InputError: a column was not fitted, or a category is missing.
    """
    fitted = {minimum.skill for minimum in fits.minima}
    for column in columns:
        if column not in fitted:
            raise InputError(f"{column} was not fitted. There is {', '.join(sorted(fitted))}.")
    present = [str(name)[4:] for name in fits.runs.columns if str(name).startswith("mix/")]
    for category in categories:
        if category not in present:
            names = ", ".join(present) or "none"
            raise InputError(f"no category {category} in the mixes of the runs. There is {names}.")


def category_shares(fits: StudyResults, category: str) -> dict[str, float]:
    """Return the share of a category in each mix.

    Raises:
        KeyError: the runs have no such category.
    """
    return {str(mix): float(share) for mix, share in fits.runs.groupby("mix")[f"mix/{category}"].mean().items()}


def describe_excluded(excluded: Iterable[tuple[str, str]]) -> str:
    """Describe excluded mixes with their reasons."""
    return "; ".join(f"without {mix} ({why})" for mix, why in excluded)


def describe_excluded_by_budget(budgets: Sequence[MixOptima]) -> str:
    """Describe mixes that were excluded at some budgets, with the number of budgets."""
    times = Counter(mix for optima in budgets for mix, _ in optima.excluded)
    return f"without {', '.join(f'{mix} at {n} of {len(budgets)}' for mix, n in times.items())}" if times else ""


def slope_interval(line: FittedLine, level: float) -> Interval:
    """Return the slope with its interval."""
    return interval(line.slope, line.draws[:, 1], level)
