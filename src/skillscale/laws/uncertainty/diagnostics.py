"""Diagnostics of a fit. Intervals include run noise but assume that the law is correct and that runs are many.

Each diagnosis is a message with its cure. The checks raise few false alarms
(``benchmarks/law_coverage.py warnings``).
"""

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy.stats import f as f_distribution

from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.fit import FitResult
from skillscale.laws.forms.nd import Array
from skillscale.laws.uncertainty.resamples import robust_sd

FEW_CLUSTERS = 12
PATTERN_P = 0.02  # p below which a pattern among the residuals is reported
CERTAIN_P = PATTERN_P / 20  # p below which it is significant even as the least of 20 skills and laws (Bonferroni)
NEAR_OPTIMUM = 1.0  # units of log-likelihood within which another optimum is as good as the best
PRIOR_SHARE = 0.8  # share of a weak prior's sd above which the prior determines the draws
MAX_SKEW = 4.0  # ratio of the two halves of an interval
OUTLIER_SD = 5.0  # sd beyond which a run is an outlier
MAX_SHIFT = 0.7  # allowed bias of losses in sd; at this bias 90 % intervals cover 82 %
MAX_GROWTH = 1.5  # allowed ratio of the draws' spread of losses to that of first order
_F_FACTOR = 10.0  # on the p of an F test, which assumes even noise
_PLACES = 200  # most runs at which the losses of draws are checked
_CLIP = 2.5  # sd at which residuals are clipped before the test, so that outliers make no pattern
_ONE_STEP = (
    "Each resample is one step of the joint curvature, because full fits would be slow. Intervals are symmetric in the "
    "log-parameters, and rough where the runs determine these poorly. Lower --study.resamples, or fit fewer skills."
)


class Cure(StrEnum):
    """Subcommand, with its options, that removes a doubt or shows what is wrong. The source of the runs is added."""

    MORE_RUNS = "suggest"
    COMPARE_LAWS = "backtest"
    SHOW_RUNS = "report"
    FULL_FITS = "fit --laws.bootstrap wild"
    MORE_RESAMPLES = "fit --study.resamples 100"


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """A failed check of a fit in words, with its cure, and the command that carries it out."""

    text: str
    command: Cure


def diagnose_fit(
    fit: FitResult, runs: RunData, q: Array | None = None, *, one_step: bool = False
) -> tuple[Diagnosis, ...]:
    """List the reasons why intervals may not cover, each with its cure; empty where no check fails.

    Args:
        fit: fit of the runs.
        runs: runs of the fit.
        q: draws of the log-parameters, (K, p), where there are any.
        one_step: whether each draw is one step of the curvature, not a full fit.
    """
    checks = [
        (_check_form(fit, runs), Cure.COMPARE_LAWS),
        (_check_mix(fit, runs), Cure.COMPARE_LAWS),
        (_check_clusters(runs), Cure.MORE_RUNS),
        (_check_starts(fit), Cure.COMPARE_LAWS),
    ]
    if q is not None:
        checks += [
            (_check_failures(q), Cure.MORE_RUNS),
            (_check_priors(fit, q), Cure.MORE_RUNS),
            (_check_skew(fit, q), Cure.MORE_RUNS),
            (_check_linearity(fit, runs, q), Cure.FULL_FITS),
        ]
    checks += [
        (_check_outliers(fit), Cure.SHOW_RUNS),
        (_check_noise(fit, runs), Cure.SHOW_RUNS),
        (_ONE_STEP if one_step else "", Cure.MORE_RESAMPLES),
    ]
    return tuple(Diagnosis(text=text, command=command) for text, command in checks if text)


def diagnose_few_runs(fit: FitResult, runs: RunData) -> tuple[Diagnosis, ...]:
    """Say what intervals rest on where runs are few, with the cure, and list outliers."""
    few = (
        f"Only {runs.n_clusters} runs: intervals rest on weak priors of exponents, terms and noise as well, and "
        "average several laws. Add runs."
    )
    checks = [(few, Cure.MORE_RUNS), (_check_outliers(fit), Cure.SHOW_RUNS)]
    return tuple(Diagnosis(text=text, command=command) for text, command in checks if text)


def _check_clusters(runs: RunData) -> str:
    n = runs.n_clusters
    if n >= FEW_CLUSTERS:
        return ""
    return f"Only {n} independent runs: the noise estimate is unreliable ({FEW_CLUSTERS} or more needed). Add runs."


def _check_starts(fit: FitResult) -> str:
    tried, agree = fit.starts.tried, fit.starts.agree
    units = fit.starts.gap * (fit.F + fit.penalty) / fit.phi if fit.phi > 0 else math.inf
    if units < NEAR_OPTIMUM:
        return (
            f"Another optimum fits as well (log-likelihood {units:.2g} lower), so the parameters are ambiguous. Fix or "
            "tie one, or choose a law with fewer parameters."
        )
    if tried > 1 and agree < tried / 2:
        return f"Only {agree} of {tried} starts reached the optimum. Try more starts, or a law with fewer parameters."
    return ""


def _check_form(fit: FitResult, runs: RunData) -> str:
    z = runs.covariates(fit.law)
    x, y = (np.asarray(values) / max(float(np.std(values)), 1e-12) for values in (z.x, z.y))
    p = residual_pattern_p(fit, runs, np.column_stack([x * y, x**2 * y, x * y**2, x**2, y**2]))
    if p >= PATTERN_P:
        return ""
    return (
        f"Residuals depend on N and D (p = {p:.1g}): {fit.law.name} is {_hedge(p)}misspecified for these runs, and its "
        f"intervals are {_hedge(p)}too narrow, most of all beyond the runs. Compare laws by backtest."
    )


def _hedge(p: float) -> str:
    """Return a word of caution: every skill and law is tested, and one of many comes close by chance."""
    return "perhaps " if p >= CERTAIN_P else ""


def _check_mix(fit: FitResult, runs: RunData) -> str:
    if runs.h is None or float(runs.h.std(0).max()) < 1e-3:
        return ""
    z = runs.covariates(fit.law)
    h = (runs.h - runs.h.mean(0))[:, :-1]
    columns = [h * np.asarray(z.x)[:, None], h * np.asarray(z.y)[:, None]] if fit.law.needs_mix else [h]
    p = residual_pattern_p(fit, runs, np.hstack(columns))
    if p >= PATTERN_P:
        return ""
    if fit.law.needs_mix:
        return (
            f"Residuals depend on the mix (p = {p:.1g}), whose effect {fit.law.name} {_hedge(p)}misses. "
            "Compare laws by backtest."
        )
    return (
        f"Residuals depend on the mix (p = {p:.1g}), which {fit.law.name} {_hedge(p)}ignores at a cost. "
        "Choose a law with a mix, or fit each mix alone."
    )


def _check_noise(fit: FitResult, runs: RunData) -> str:
    z = runs.covariates(fit.law)
    size = np.abs(fit.residuals)
    size = np.minimum(size, _CLIP * 1.4826 * np.median(size))
    trend = np.column_stack([np.ones(len(size)), z.x, z.y])
    if runs.n_clusters - 3 < 3 or np.linalg.matrix_rank(trend) < 3:
        return ""
    slopes = np.linalg.lstsq(trend, size, rcond=None)[0]
    p = _hotelling_p(((size - size.mean())[:, None] * (trend[:, 1:] - trend[:, 1:].mean(0))), runs, spent=1)
    if p >= PATTERN_P:
        return ""
    fitted = trend @ slopes
    ratio = max(float(np.quantile(fitted, 0.95)), 1e-12) / max(
        float(np.quantile(fitted, 0.05)), 0.1 * float(size.mean())
    )
    return (
        f"The noise changes about {ratio:.1f}-fold over N and D (p = {p:.1g}), but the interval of a new run uses the "
        "average. Weight runs by their standard errors, where the runs have some."
    )


def _check_outliers(fit: FitResult) -> str:
    n = int((np.abs(fit.residuals) > OUTLIER_SD * fit.noise).sum())
    if not n:
        return ""
    return (
        f"{n} of {len(fit.residuals)} runs are more than {OUTLIER_SD:.0f} sd from the law. The interval of a new run "
        "excludes such outliers. Check these runs."
    )


def _check_failures(q: Array) -> str:
    share = float((~np.isfinite(q).all(1)).mean())
    return (
        f"{100 * share:.0f} % of the resamples could not be fitted. Add runs or fix a parameter."
        if share > 0.01
        else ""
    )


def prior_dominated(fit: FitResult, q: Array) -> tuple[str, ...]:
    """List log-parameters that a weak prior determines more than the runs do: their draws are as wide as the prior.

    Args:
        fit: fit with its priors.
        q: draws of the log-parameters, (K, p).
    """
    prior_sds = sorted(_prior_sds(fit).items())
    return tuple(fit.law.log_names[j] for j, sd in prior_sds if float(np.nanstd(q[:, j])) > PRIOR_SHARE * sd)


def _check_priors(fit: FitResult, q: Array) -> str:
    names = prior_dominated(fit, q)
    if not names:
        return ""
    return (
        f"Weak priors, or pooling with other skills, dominate {', '.join(names)}. Intervals cover only where these "
        "assumptions hold. Add runs, or choose a law with fewer parameters."
    )


def _prior_sds(fit: FitResult) -> dict[int, float]:
    """Return the prior sd of free log-parameters by position: the priors of the fit replace those of the law."""
    precisions = np.diag(fit.prior[1])
    law_sds = {j: prior.sd for j, prior in fit.law.priors.items() if j in fit.free}
    return law_sds | {
        j: float(precision) ** -0.5 for j, precision in zip(fit.free, precisions, strict=True) if precision > 0
    }


def _check_skew(fit: FitResult, q: Array) -> str:
    lo, mid, hi = np.nanquantile(q[:, list(fit.free)], [0.05, 0.5, 0.95], axis=0)
    ratio = np.maximum(hi - mid, 1e-300) / np.maximum(mid - lo, 1e-300)
    prior_sds = _prior_sds(fit)
    names = [
        fit.law.log_names[j]
        for j, side_ratio in zip(fit.free, ratio, strict=True)
        if j not in prior_sds and not 1 / MAX_SKEW <= side_ratio <= MAX_SKEW
    ]
    if not names:
        return ""
    return f"The draws of {', '.join(names)} are skewed: the runs bound it on one side only. Fix or tie it."


def _check_linearity(fit: FitResult, runs: RunData, q: Array) -> str:
    """Check whether one step in the parameters moves the losses as the runs' errors do to first order.

    The check is made at the runs, and reports where a tenth of them differ. Draws from full fits stay on both sides of
    the law however far their parameters move.
    """
    sample = runs.take(np.unique(np.linspace(0, len(runs) - 1, _PLACES).astype(int)))
    z = sample.covariates(fit.law)
    drawn = q[np.isfinite(q).all(1)][: 2 * _PLACES]
    with np.errstate(over="ignore", invalid="ignore"):
        moved = fit.law.log_loss(drawn, z) - fit.law.log_loss(fit.q[None], z)
        finite = np.isfinite(moved).all(1)
    if finite.sum() < 2:
        return ""
    moved, first_order = moved[finite], (drawn[finite] - fit.q) @ fit.law.jacobian(fit.q[None], z)[0].T
    expected = np.maximum(robust_sd(first_order), 1e-6)  # ln L; smaller values don't matter
    shift = float(np.quantile(np.abs(np.median(moved, 0)) / expected, 0.9))
    growth = float(np.quantile(robust_sd(moved) / expected, 0.9))
    if shift <= MAX_SHIFT and growth <= MAX_GROWTH:
        return ""
    cure = "Add runs" if fit.law.joint else "Resample by wild, each skill alone (with fewer resamples if runs are many)"
    return (
        f"The bootstrap's linear approximation is poor here (bias {shift:.1f} sd, spread x{growth:.1f}), so intervals "
        f"for predicted losses may be wrong. {cure}, or use a law with fewer parameters."
    )


def residual_pattern_p(fit: FitResult, runs: RunData, columns: Array) -> float:
    """Return the p-value of a common pattern of residuals and columns (n, m); 1 where the runs are too few.

    A score test: columns are taken without the part that the law could follow, and summed by cluster. So neither the
    checkpoints of one run nor noise that differs over the design count as a pattern. That test finds little among few
    runs. So an F test counts as well, where each run has one loss. Its p is multiplied by 10, because noise that
    differs tenfold over the design makes it about that much too small.
    """
    block = fit.build_problem(runs).blocks[0]
    root = np.sqrt(np.asarray(runs.weights))
    model = root[:, None] * (block.law.jacobian(fit.q[None], block.z)[0] @ block.T)
    basis = _orthonormal(model)
    remainder = root[:, None] * columns
    remainder = remainder - basis @ (basis.T @ remainder)
    size = np.sqrt((remainder**2).sum(0))
    remainder = remainder[:, size > 1e-6 * np.sqrt((columns**2).sum(0))]
    errors = root * fit.residuals
    limit = _CLIP * 1.4826 * float(np.median(np.abs(errors)))
    scores = _orthonormal(remainder)
    clipped = np.clip(errors, -limit, limit)
    p = _hotelling_p(scores * clipped[:, None], runs, spent=basis.shape[1])
    if runs.n_clusters < len(runs):
        return p
    return min(p, _F_FACTOR * _f_test_p(scores, clipped, spent=basis.shape[1]))


def _f_test_p(scores: Array, errors: Array, *, spent: int) -> float:
    """Return the p-value that orthonormal scores (n, m) explain none of the errors (n,)."""
    n, m = scores.shape
    degrees_of_freedom = n - spent - m
    if m == 0 or degrees_of_freedom < 3:
        return 1.0
    explained = float(((scores.T @ errors) ** 2).sum())
    rest = max(float(errors @ errors) - explained, 1e-300)
    return float(f_distribution.sf(explained / rest * degrees_of_freedom / m, m, degrees_of_freedom))


def _orthonormal(columns: Array) -> Array:
    scaled = columns / np.maximum(np.sqrt((columns**2).sum(0)), 1e-300)
    u, s, _ = np.linalg.svd(scaled, full_matrices=False)
    return np.asarray(u[:, s > 1e-6 * s[0]] if len(s) else u)


def _hotelling_p(scores: Array, runs: RunData, *, spent: int) -> float:
    """Return the p-value that scores (n, m), summed by cluster, have mean 0 (Hotelling's T2).

    Args:
        scores: scores, (n, m).
        runs: runs with their clusters.
        spent: degrees of freedom that the fit used.
    """
    codes: npt.NDArray[np.intp] = np.asarray(runs.clusters)
    m, n = scores.shape[1], runs.n_clusters
    degrees_of_freedom = n - spent - m
    if m == 0 or degrees_of_freedom < 3:
        return 1.0
    sums = np.zeros((n, m))
    np.add.at(sums, codes, scores)
    total = sums.sum(0)
    outer = sums.T @ sums
    if not np.isfinite(outer).all() or np.linalg.matrix_rank(outer) < m:
        return 1.0
    share = min(float(total @ np.linalg.solve(outer, total)) / n, 1 - 1e-12)
    return float(f_distribution.sf(share / (1 - share) * degrees_of_freedom / m, m, degrees_of_freedom))
