"""Resampled errors that all skills share, so that differences between skills are paired; intervals from draws.

In: groups of runs with equal errors (a budget of a mix) and a generator. Out: resampled errors of each skill.

The pairs bootstrap does not fit here. With 7 sizes and 1 or 2 seeds per budget, resampled runs give designs with gaps,
and residuals that the fit has shrunk make its intervals too short. Here the sizes stay. The error of each run is drawn
from the residuals of its budget, for all skills at once and with a random sign. Residuals are divided by the root of
1 - leverage (HC2), and each budget's errors are scaled by sqrt(nu / chi2_nu), which gives Student tails for its nu
degrees of freedom. Runs of several budgets that branch from one trunk take their errors together, from the runs of
another trunk. ``benchmarks/isoflop_coverage.py coverage`` measures the coverage.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from skillscale.laws.forms.nd import Array
from skillscale.laws.results import Interval, SizeGap

Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class Resamples:
    """K resamples of the errors of n runs, one set for all skills.

    ``donors``: (K, n) run of the same group that run i takes its error from. ``signs``: (K, n). ``uniforms``: (K, n)
    standard uniforms, equal within a group, that become the chi2 of each skill's degrees of freedom. ``groups``: codes,
    (n,).
    """

    donors: Indices
    signs: Array
    uniforms: Array
    groups: Indices

    @classmethod
    def draw(
        cls, groups: npt.ArrayLike, count: int, rng: np.random.Generator, *, clusters: npt.ArrayLike | None = None
    ) -> "Resamples":
        """Draw ``count`` resamples of runs whose errors have one distribution within a group (a budget of a mix).

        Args:
            groups: group label of each run.
            count: number of resamples.
            rng: random generator.
            clusters: trunk label of each run, where runs of several groups share a trunk and its errors.
        """
        _, codes = np.unique(np.asarray(groups), return_inverse=True)
        if clusters is not None and len(np.unique(np.asarray(clusters))) < len(codes):
            return cls._draw_by_cluster(codes, np.unique(np.asarray(clusters), return_inverse=True)[1], count, rng)
        donors = np.empty((count, len(codes)), dtype=np.intp)
        uniforms = np.empty((count, len(codes)))
        for code in range(codes.max() + 1):
            members = np.flatnonzero(codes == code)
            donors[:, members] = rng.choice(members, size=(count, len(members)))
            uniforms[:, members] = rng.random((count, 1))
        signs = rng.choice([-1.0, 1.0], size=donors.shape)
        return cls(donors=donors, signs=signs, uniforms=uniforms, groups=codes)

    @classmethod
    def _draw_by_cluster(cls, codes: Indices, clusters: Indices, count: int, rng: np.random.Generator) -> "Resamples":
        """Give all runs of a cluster the errors of one other cluster, with one sign.

        A run keeps its error where the other cluster has no run in its group.
        """
        position = np.full((clusters.max() + 1, codes.max() + 1), -1)
        position[clusters, codes] = np.arange(len(codes))
        donor_cluster = rng.integers(len(position), size=(count, len(position)))[:, clusters]
        donors = position[donor_cluster, codes]
        signs = rng.choice([-1.0, 1.0], size=(count, len(position)))[:, clusters]
        return cls(
            donors=np.where(donors < 0, np.arange(len(codes)), donors), signs=signs,
            uniforms=np.tile(rng.random((count, 1)), len(codes)), groups=codes,
        )  # fmt: skip

    def select(self, runs: Indices) -> "Resamples":
        """Return the same resamples for some of the runs, by index. A missing donor is replaced by one of its group."""
        present, position = np.zeros(len(self.groups), dtype=bool), np.empty(len(self.groups), dtype=np.intp)
        present[runs], position[runs] = True, np.arange(len(runs))
        return Resamples(
            donors=position[_replacements(present, self.groups)[self.donors[:, runs]]], signs=self.signs[:, runs],
            uniforms=self.uniforms[:, runs], groups=np.unique(self.groups[runs], return_inverse=True)[1],
        )  # fmt: skip

    def draw_errors(self, residuals: Array, leverage: Array, present: npt.NDArray[np.bool_]) -> Array:
        """Draw errors (K, n_present) of one skill. Another run of its group replaces a donor that lacks the skill.

        Args:
            residuals: residuals of the skill's runs, (n_present,).
            leverage: leverage of the skill's runs, (n_present,).
            present: mask of the runs that have the skill, (n,).
        """
        of_runs = np.zeros(len(present))
        slack = np.zeros(len(present))
        slack[present] = 1 - leverage
        inflated = residuals / np.sqrt(np.maximum(1 - leverage, 1e-6))
        # Inflated residuals of a group need not sum to zero. Random signs keep their second moment, which matters.
        of_runs[present] = inflated
        replacement = _replacements(present, self.groups)
        drawn = of_runs[replacement[self.donors]] * self.signs
        return np.asarray((drawn * self._student_scale(slack))[:, present])

    def _student_scale(self, slack: Array) -> Array:
        """Return sqrt(nu / chi2_nu) of each run's group, (K, n); nu: the group's share of the degrees of freedom."""
        scale = np.ones_like(self.uniforms)
        for code in range(self.groups.max() + 1):
            members = np.flatnonzero(self.groups == code)
            nu = max(float(slack[members].sum()), 1.0)
            scale[:, members] = np.sqrt(nu / chi2.ppf(self.uniforms[:, members[:1]], nu))
        return scale


def _replacements(present: npt.NDArray[np.bool_], groups: Indices) -> Indices:
    replacement = np.arange(len(present))
    for code in np.unique(groups[~present]):
        members = np.flatnonzero(groups == code)
        usable = members[present[members]]
        if len(usable):
            lacking = members[~present[members]]
            replacement[lacking] = usable[np.searchsorted(usable, lacking) % len(usable)]
    return replacement


def interval(value: float, draws: Array, level: float) -> Interval:
    """Return the percentile interval of draws about an estimate; unknown if over 1 % of the draws have no value."""
    finite = draws[np.isfinite(draws)]
    if not np.isfinite(value) or not len(finite) or len(finite) < 0.99 * len(draws):
        return Interval(value=value)
    lo, hi = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value=float(value), lo=float(lo), hi=float(hi))


def robust_sd(draws: Array) -> Array:
    """Return the robust sd of draws along axis 0: half the central 68.3 %."""
    lo, hi = np.nanquantile(draws, [0.1587, 0.8413], axis=0)
    return np.asarray((hi - lo) / 2)


def two_sided_p(draws: Array) -> float:
    """Return the two-sided p of the quantity being zero, from its draws; never below 2 / (K + 1)."""
    finite = draws[np.isfinite(draws)]
    if not len(finite):
        return float("nan")
    tail = min(int((finite <= 0).sum()), int((finite >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(finite) + 1))


def holm(p: Array) -> Array:
    """Return Holm's step-down p-values: the chance of any false verdict among all of them is at most the p given."""
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def with_holm_p(gaps: Sequence[SizeGap]) -> list[SizeGap]:
    """Return the size gaps with Holm's p over all that have a p. The others get none."""
    with_p = [i for i, gap in enumerate(gaps) if np.isfinite(gap.p)]
    adjusted = [replace(gap, p_holm=float("nan")) for gap in gaps]
    for i, p in zip(with_p, holm(np.array([gaps[i].p for i in with_p])), strict=True):
        adjusted[i] = replace(adjusted[i], p_holm=float(p))
    return adjusted
