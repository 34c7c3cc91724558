"""Who decides N*: the runs, or the weak priors. Where the priors do, the runs that would change it.

In: a fitted law with its information, a budget and a mix. Out: an ``Identification``. The share of the variance of
ln N* that comes from the priors is computed to first order, for the law and its rivals by weight.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from skillscale.formatting import format_count, format_flops, format_number, format_percent, join_words
from skillscale.laws.fit.skill_law import FittedLaw
from skillscale.laws.forms.nd import Array, Law
from skillscale.laws.io.document import SavedLaw
from skillscale.laws.optimum.ensemble import SkillLaw
from skillscale.laws.uncertainty.posterior import FEW_RUNS, ParameterInformation

# Share of the variance of ln N*, or of its reduction, from which on priors decide it (docs/research/coverage.md)
PRIOR_DECIDES = 0.7
_LOOSE = 1.0  # sd of ln N* by the runs alone below which these determine it, whatever priors add
_CONFOUNDED = 0.5  # share at the largest budget that was run, from which on the runs cannot tell N from D anywhere
_STEP = 1e-4  # of a log-parameter, for the gradient of ln N*
_CURES = (3, 6)  # numbers of further runs that are tried
_SIZES, _TOKENS = 5, 9  # candidates of N and D
_WIDER = 8.0  # factor beyond the D of the runs, up to which further runs may lie
_RATIOS = (4.0, 400.0)  # D / N of further runs, unless the runs go beyond
_NARROWEST = 9.0  # least factor between the smallest and largest size of further runs
_AFFORDABLE = 1.05  # compute of a further run in units of the largest; none is cheaper than half the smallest
_CHEAPEST = 30.0  # ... or than this part of the largest, where all runs cost alike
_NEAR_BEST = 1.1  # variance relative to the best candidate's, within which the cheapest is taken
_NOISE = 0.0005  # least noise of a further run
_MOST_MISSING = 0.01  # share of draws without an optimum above which N* has no interval


@dataclass(frozen=True, kw_only=True)
class FurtherRun:
    """A run that would tell N from D."""

    N: float
    D: float


@dataclass(frozen=True, kw_only=True)
class Identification:
    """How far the runs determine N* at a budget.

    ``prior_share``: share of the variance of ln N* that comes from the priors; NaN where it is unknown. ``reason``: one
    or two sentences with the cure, empty where the runs decide. ``further_runs``: runs that would decide it.
    """

    prior_share: float = math.nan
    reason: str = ""
    further_runs: tuple[FurtherRun, ...] = ()

    @property
    def prior_decides(self) -> bool:
        """Whether the priors decide N* more than the runs do."""
        return bool(self.reason)


def identify(law: SkillLaw, C: float, h: Array | None = None) -> Identification:
    """Return how far the runs of a skill determine its N* at a budget.

    Args:
        law: law of the skill, with its rivals.
        C: budget, FLOP.
        h: mix, (n_categories,); by default the runs' mean.
    """
    if law.information is None and isinstance(law, SavedLaw) and len(law.run_ids) < FEW_RUNS:
        return Identification(
            reason=f"nothing says whether its {len(law.run_ids)} runs or weak priors decide N*: the laws are of an "
            "earlier version. Fit the runs again"
        )
    share, reduction = prior_share(law, C, h), prior_reduction(law, C, h)
    confounded = law.information is not None and law.information.confounded
    if not (share >= PRIOR_DECIDES or reduction >= PRIOR_DECIDES or confounded):
        return Identification(prior_share=share)
    runs, tells = further_runs(law, C, h)
    why = "D follows N in them"
    if not confounded:
        variance = f"decide {format_percent(share)} of its variance"
        wider = f"make its interval {format_number(1 / math.sqrt(max(1 - reduction, 1e-6)), 2)} times narrower"
        why = f"weak priors {variance if share >= PRIOR_DECIDES else wider}"
    at_reach = max(prior_share(law, law.reach[1], h), prior_reduction(law, law.reach[1], h))
    if confounded or at_reach >= _CONFOUNDED:
        problem = f"these runs cannot tell N from D: N* is not identified ({why})"
    else:
        problem = f"N* at {format_flops(C)} FLOP is not identified, too far from these runs ({why})"
    listed = join_words([f"N = {format_count(run.N, 2)} on {format_count(run.D, 2)} tokens" for run in runs])
    number = {3: "three", 6: "six"}.get(len(runs), str(len(runs)))
    cure = f"These {number} runs would: {listed}" if tells else f"Begin with these {number} runs: {listed}"
    return Identification(prior_share=share, reason=f"{problem}. {cure if runs else 'Add runs'}", further_runs=runs)


def optimum_reason(law: SkillLaw, C: float, identification: Identification) -> str:
    """Return why N*(C) or its interval is unknown, or is decided by priors; empty where the runs decide it."""
    if identification.prior_decides:
        return identification.reason
    drawn = _drawn_optima(law, C)
    missing = float((~np.isfinite(drawn)).mean())
    if math.isfinite(law.optimum(C).value) and missing <= _MOST_MISSING:
        return ""
    share = f"{format_percent(missing)} of the draws have none" if missing < 1 else "no draw has one"
    return f"N* or its interval is unknown at {format_flops(C)} FLOP: {share}. Add runs that differ in N and D"


def _drawn_optima(law: SkillLaw, C: float) -> Array:
    if isinstance(law, FittedLaw) and law.has_few_runs:
        return law.ensemble_log_optima([C])[:, 0]
    return law.law.log_optimum(law.law.theta(law.q), [C], _mix(law, None))[:, 0]


def prior_share(law: SkillLaw, C: float, h: Array | None = None) -> float:
    """Return the share of the variance of ln N*(C) that comes from the priors, the mean over the law and its rivals."""
    members = _members(law, C, h)
    if not members:
        return math.nan
    return float(np.average([member.prior_share for member in members], weights=[member.weight for member in members]))


def prior_reduction(law: SkillLaw, C: float, h: Array | None = None) -> float:
    """Return the share of the variance of ln N*(C) by the runs alone that priors remove, under the plainest law.

    It is 0 where the runs alone determine N* well enough.
    """
    return min((member.prior_reduction for member in _members(law, C, h)), default=math.nan)


def further_runs(law: SkillLaw, C: float, h: Array | None = None) -> tuple[tuple[FurtherRun, ...], bool]:
    """Return runs that would reduce the variance of ln N*(C) most, and whether the runs would then decide it.

    Candidates lie within the sizes and the compute of the runs. One by one, the run is taken that leaves the least
    variance, and of those that leave about as little the cheapest.
    """
    members = _members(law, C, h)
    candidates = _candidates(law)
    if not members or not len(candidates):
        return (), False
    noise = max(law.noise, _NOISE)
    rows = [member.rows(candidates, noise) for member in members]
    chosen: list[FurtherRun] = []
    taken = np.zeros(len(candidates), dtype=bool)
    for _ in range(min(_CURES[-1], len(candidates))):
        by_law = [member.weight * member.remaining(row) for member, row in zip(members, rows, strict=True)]
        remaining = np.where(taken, np.inf, np.sum(by_law, axis=0))
        near = np.flatnonzero(remaining <= _NEAR_BEST * remaining.min())
        at = int(near[np.argmin(candidates[near].prod(1))])
        taken[at] = True
        chosen.append(FurtherRun(N=float(candidates[at, 0]), D=float(candidates[at, 1])))
        for member, row in zip(members, rows, strict=True):
            member.add(row[at])
        share = np.average([member.prior_share for member in members], weights=[member.weight for member in members])
        undecided = max(float(share), min(member.prior_reduction for member in members))
        if len(chosen) in _CURES and undecided < PRIOR_DECIDES:
            return _in_order(chosen), True
    return _in_order(chosen[: _CURES[0]]), False


def joint_identification(
    laws: Mapping[str, SkillLaw], weights: Mapping[str, float], C: float, h: Array | None
) -> Identification:
    """Return the identification of the skill with weight that the priors decide most."""
    of_skills = [identify(laws[name], C, h) for name, weight in weights.items() if weight]
    undecided = next((item for item in of_skills if item.prior_decides and math.isnan(item.prior_share)), None)
    with_share = [item for item in of_skills if math.isfinite(item.prior_share)]
    return undecided or max(with_share, key=lambda item: item.prior_share, default=Identification())


def _members(law: SkillLaw, C: float, h: Array | None) -> "list[_Member]":
    """Return the law and its rivals, of which something is known and whose N* is finite."""
    members = [
        _Member.of(member, C, _mix(member, h)) for member in (law, *law.rivals) if member.information is not None
    ]
    return [member for member in members if np.isfinite(member.gradient).all()]


def _mix(law: SkillLaw, h: Array | None) -> Array | None:
    if not law.law.needs_mix:
        return None
    return law.mean_mix if h is None else np.ravel(h)


def _gradient(law: Law, q: Array, C: float, h: Array | None) -> Array:
    """Return the gradient of ln N*(C) by the log-parameters, (p,); NaN where there is no optimum."""
    steps = _STEP * np.eye(len(q))
    with np.errstate(all="ignore"):
        log_N = law.log_optimum(law.theta(np.vstack([q + steps, q - steps])), [C], h)[:, 0]
    return np.asarray((log_N[: len(q)] - log_N[len(q) :]) / (2 * _STEP))


class _Member:
    """One law's covariance of its parameters as runs are added, and the gradient of ln N*."""

    def __init__(self, law: SkillLaw, information: ParameterInformation, gradient: Array, h: Array | None) -> None:
        self.law, self.gradient, self.weight, self.h = law, gradient, law.weight, h
        self.prior, self.data = information.prior, information.data

    @classmethod
    def of(cls, law: SkillLaw, C: float, h: Array | None) -> "_Member":
        assert law.information is not None
        return cls(law, law.information, _gradient(law.law, law.estimate, C, h), h)

    @property
    def prior_share(self) -> float:
        return ParameterInformation(prior=self.prior, data=self.data).prior_share(self.gradient)

    @property
    def prior_reduction(self) -> float:
        variance, alone = ParameterInformation(prior=self.prior, data=self.data).variances(self.gradient)
        return max(1 - variance / alone, 0.0) if alone >= _LOOSE**2 else 0.0

    def rows(self, candidates: Array, noise: float) -> Array:
        """Return the derivatives of ln L of candidates, (n, p), in units of the noise."""
        z = self.law.law.covariates(candidates[:, 0], candidates[:, 1], self.h)
        return np.asarray(self.law.law.jacobian(self.law.estimate[None], z)[0] / noise)

    def remaining(self, rows: Array) -> Array:
        """Return the variance of ln N* that each candidate leaves, (n,), relative to that without it."""
        covariance = self.prior + self.data
        along = rows @ covariance
        gain = (along @ self.gradient) ** 2 / (1 + (along * rows).sum(1))
        return np.asarray(1 - gain / max(float(self.gradient @ covariance @ self.gradient), 1e-300))

    def add(self, row: Array) -> None:
        """Add a run. The gain K = V b / (1 + b' V b) moves both parts, and the new error adds to that of the data."""
        along = (self.prior + self.data) @ row
        gain = along / (1 + row @ along)
        keep = np.eye(len(row)) - np.outer(gain, row)
        self.prior, self.data = keep @ self.prior @ keep.T, keep @ self.data @ keep.T + np.outer(gain, gain)


def _candidates(law: SkillLaw) -> Array:
    """Return candidate runs (n, 2) of N and D: about the sizes of the runs, at most their compute, other tokens."""
    if not np.isfinite([*law.sizes, *law.tokens]).all():
        return np.empty((0, 2))
    widened = math.sqrt(max(_NARROWEST / (law.sizes[1] / law.sizes[0]), 1.0))
    sizes = np.geomspace(law.sizes[0] / widened, law.sizes[1] * widened, _SIZES)
    tokens = np.geomspace(law.tokens[0] / _WIDER, law.tokens[1] * _WIDER, _TOKENS)
    N, D = (_two_digits(grid.ravel()) for grid in np.meshgrid(sizes, tokens))
    C, ratio = 6 * N * D, D / N
    affordable = (_AFFORDABLE * law.reach[1] >= C) & (min(law.reach[0] / 2, law.reach[1] / _CHEAPEST) <= C)
    usual = affordable & (ratio >= _RATIOS[0]) & (ratio <= _RATIOS[1])
    return np.unique(np.column_stack([N, D])[usual if usual.any() else affordable], axis=0)


def _two_digits(values: Array) -> Array:
    return np.array([float(f"{value:.2g}") for value in values])


def _in_order(runs: Sequence[FurtherRun]) -> tuple[FurtherRun, ...]:
    return tuple(sorted(runs, key=lambda run: (run.N, run.D)))
