"""Resampled errors that all skills share, so that differences between skills are paired, and intervals from draws.

Why not the pairs bootstrap: with 7 sizes and 1 or 2 seeds a budget, resampled runs leave designs with gaps, and
residuals shrunk by the fit make its intervals too short. Here the sizes stay, each run's error is drawn from the
residuals of its budget (whole rows of skills at once, with a random sign), residuals are blown up by their leverage
(HC2), and each budget's errors are scaled by sqrt(nu / chi2_nu): Student's tails for the nu degrees of freedom there.
Runs of several budgets that branch from one trunk take theirs together, from the runs of another trunk.
The coverage is measured by ``benchmarks/isoflop_coverage.py coverage``.
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

    ``donors``: (K, n) run that run i takes its error from, of its own group; ``signs``: (K, n); ``uniforms``: (K, n)
    standard uniforms, equal within a group, that become the chi2 of each skill's own degrees of freedom; ``groups``:
    (n,) codes.
    """

    donors: Indices
    signs: Array
    uniforms: Array
    groups: Indices

    @classmethod
    def draw(
        cls, groups: npt.ArrayLike, count: int, rng: np.random.Generator, *, clusters: npt.ArrayLike | None = None
    ) -> "Resamples":
        """Draw ``count`` resamples of runs whose errors are alike within a group (a budget of a mix).

        Args:
            groups: label of each run's group.
            count: how many.
            rng: the source of chance.
            clusters: label of the trunk of each run, where runs of several groups share one, and errors with it.
        """
        _, codes = np.unique(np.asarray(groups), return_inverse=True)
        if clusters is not None and len(np.unique(np.asarray(clusters))) < len(codes):
            return cls._of_clusters(codes, np.unique(np.asarray(clusters), return_inverse=True)[1], count, rng)
        donors = np.empty((count, len(codes)), dtype=np.intp)
        uniforms = np.empty((count, len(codes)))
        for code in range(codes.max() + 1):
            members = np.flatnonzero(codes == code)
            donors[:, members] = rng.choice(members, size=(count, len(members)))
            uniforms[:, members] = rng.random((count, 1))
        signs = rng.choice([-1.0, 1.0], size=donors.shape)
        return cls(donors=donors, signs=signs, uniforms=uniforms, groups=codes)

    @classmethod
    def _of_clusters(cls, codes: Indices, clusters: Indices, count: int, rng: np.random.Generator) -> "Resamples":
        """All runs of a cluster take the errors of one other cluster, with one sign; where it has no run, their own."""
        place = np.full((clusters.max() + 1, codes.max() + 1), -1)
        place[clusters, codes] = np.arange(len(codes))
        giver = rng.integers(len(place), size=(count, len(place)))[:, clusters]
        donors = place[giver, codes]
        signs = rng.choice([-1.0, 1.0], size=(count, len(place)))[:, clusters]
        return cls(
            donors=np.where(donors < 0, np.arange(len(codes)), donors), signs=signs,
            uniforms=np.tile(rng.random((count, 1)), len(codes)), groups=codes,
        )  # fmt: skip

    def of(self, runs: Indices) -> "Resamples":
        """The same resamples for some of the runs, by their places; a donor that is not among them hands on to one."""
        present, place = np.zeros(len(self.groups), dtype=bool), np.empty(len(self.groups), dtype=np.intp)
        present[runs], place[runs] = True, np.arange(len(runs))
        return Resamples(
            donors=place[_heirs(present, self.groups)[self.donors[:, runs]]], signs=self.signs[:, runs],
            uniforms=self.uniforms[:, runs], groups=np.unique(self.groups[runs], return_inverse=True)[1],
        )  # fmt: skip

    def errors(self, residuals: Array, leverage: Array, present: npt.NDArray[np.bool_]) -> Array:
        """Errors (K, n_present) of one skill, whose ``residuals`` and ``leverage`` are given for its ``present`` runs.

        A donor that lacks the skill hands on to the next run of its group that has it.
        """
        whole = np.zeros(len(present))
        slack = np.zeros(len(present))
        slack[present] = 1 - leverage
        inflated = residuals / np.sqrt(np.maximum(1 - leverage, 1e-6))
        # Residuals of one group needn't sum to zero once inflated; random signs keep their second moment, which counts.
        whole[present] = inflated
        heir = _heirs(present, self.groups)
        drawn = whole[heir[self.donors]] * self.signs
        return np.asarray((drawn * self._student(slack))[:, present])

    def _student(self, slack: Array) -> Array:
        """sqrt(nu / chi2_nu) of each run's group, (K, n): nu is the group's share of the degrees of freedom."""
        scale = np.ones_like(self.uniforms)
        for code in range(self.groups.max() + 1):
            members = np.flatnonzero(self.groups == code)
            nu = max(float(slack[members].sum()), 1.0)
            scale[:, members] = np.sqrt(nu / chi2.ppf(self.uniforms[:, members[:1]], nu))
        return scale


def _heirs(present: npt.NDArray[np.bool_], groups: Indices) -> Indices:
    heir = np.arange(len(present))
    for code in np.unique(groups[~present]):
        members = np.flatnonzero(groups == code)
        having = members[present[members]]
        if len(having):
            lacking = members[~present[members]]
            heir[lacking] = having[np.searchsorted(having, lacking) % len(having)]
    return heir


def interval(value: float, draws: Array, level: float) -> Interval:
    """Percentile interval of draws about an estimate; unknown where more than 1 % of the draws have no value."""
    finite = draws[np.isfinite(draws)]
    if not np.isfinite(value) or not len(finite) or len(finite) < 0.99 * len(draws):
        return Interval(value=value)
    lo, hi = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value=float(value), lo=float(lo), hi=float(hi))


def spread(draws: Array) -> Array:
    """Robust standard deviation of draws along axis 0: the central 68.3 %, halved."""
    lo, hi = np.nanquantile(draws, [0.1587, 0.8413], axis=0)
    return np.asarray((hi - lo) / 2)


def two_sided_p(draws: Array) -> float:
    """Two-sided p of the quantity being zero, from its draws; never below 2 / (K + 1)."""
    finite = draws[np.isfinite(draws)]
    if not len(finite):
        return float("nan")
    tail = min(int((finite <= 0).sum()), int((finite >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(finite) + 1))


def holm(p: Array) -> Array:
    """Holm's step-down p-values: the chance of one false verdict among all of them is at most the p given."""
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def as_family(residuals: Sequence[SizeGap]) -> list[SizeGap]:
    """The residuals with Holm's p over all of them that have a p; the others without."""
    known = [i for i, one in enumerate(residuals) if np.isfinite(one.p)]
    found = [replace(one, p_holm=float("nan")) for one in residuals]
    for i, p in zip(known, holm(np.array([residuals[i].p for i in known])), strict=True):
        found[i] = replace(found[i], p_holm=float(p))
    return found
