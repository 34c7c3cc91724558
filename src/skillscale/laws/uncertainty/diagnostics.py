"""What speaks against a fit and its intervals: they own the runs' noise, but take the form for true and runs for many.

Each doubt is one sentence with its cure, of checks that raise few false alarms
(``benchmarks/law_coverage.py warnings``).
"""

import math

import numpy as np
import numpy.typing as npt
from scipy.stats import f as f_distribution

from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.fit import FitResult
from skillscale.laws.forms.nd import Array
from skillscale.laws.uncertainty.resamples import spread

FEW_CLUSTERS = 12
RARE = 0.02  # p below which a pattern among the residuals is told
SURE = RARE / 20  # p below which it is no accident either where it is the least of 20 skills and laws, by Bonferroni
NEAR = 1.0  # units of log-likelihood within which another optimum can't be told from the best
BELIEVED = 0.8  # of a weak prior's sd: draws as wide as that come from the prior
SKEWED = 4.0  # ratio of the two halves of an interval
FAR = 5.0  # sd beyond which a run is an outlier
SHIFTED = 0.7  # sd by which draws may move the losses to one side; there 90 % intervals cover 82 %
GROWN = 1.5  # times as far as to first order that draws may move the losses
_PLACES = 200  # runs and draws that the draws' losses are looked at by; more would only cost time and memory
_CLIP = 2.5  # sd at which residuals are cut before a pattern is looked for, so that outliers make none
_ONE_STEP = (
    "intervals rest on one step of the joint curvature a resample, for the whole way would be long: they are symmetric "
    "in the log-parameters, and rough where the runs tell these poorly; lower --study.resamples, or fit fewer skills"
)


def diagnose_fit(fit: FitResult, points: RunData, q: Array | None = None, *, one_step: bool = False) -> tuple[str, ...]:
    """Reasons for which intervals may not cover, each with its cure; none where nothing speaks against them.

    Args:
        fit: of the points.
        points: the runs.
        q: draws of the log-parameters, (K, p), where there are any.
        one_step: whether these are one step of the curvature, not fits of their own.
    """
    found = [_few(points), _starts(fit), _shape(fit, points), _mix(fit, points), _noise(fit, points), _outliers(fit)]
    if q is not None:
        found += [_failed(q), _believed(fit, q), _skewed(fit, q), _bent(fit, points, q)]
    if one_step:
        found.append(_ONE_STEP)
    return tuple(reason for reason in found if reason)


def _few(points: RunData) -> str:
    n = points.n_clusters
    if n >= FEW_CLUSTERS:
        return ""
    return f"{n} independent runs tell their own noise poorly; intervals are rough below {FEW_CLUSTERS}: add runs"


def _starts(fit: FitResult) -> str:
    tried, agree = fit.starts.tried, fit.starts.agree
    units = fit.starts.gap * (fit.F + fit.penalty) / fit.phi if fit.phi > 0 else math.inf
    if units < NEAR:
        return (
            f"another optimum fits as well (a log-likelihood {units:.2g} below), so parameters may be either; pin or "
            "share one, or choose a law with fewer"
        )
    if tried > 1 and agree < tried / 2:
        return f"{agree} of {tried} starts reached the optimum; try more starts, or a law with fewer parameters"
    return ""


def _shape(fit: FitResult, points: RunData) -> str:
    z = points.covariates(fit.law)
    x, y = (np.asarray(one) / max(float(np.std(one)), 1e-12) for one in (z.x, z.y))
    p = residual_pattern_p(fit, points, np.column_stack([x * y, x**2 * y, x * y**2, x**2, y**2]))
    if p >= RARE:
        return ""
    return (
        f"residuals bend with N and D (p = {p:.1g}): {fit.law.name} is {_perhaps(p)}not the form of these runs, and "
        f"its intervals, which take it for true, are {_perhaps(p)}too narrow, above all beyond the runs; compare laws "
        "by backtest"
    )


def _perhaps(p: float) -> str:
    """A word of caution: each skill and law is tested, and of many one comes near by chance."""
    return "perhaps " if p >= SURE else ""


def _mix(fit: FitResult, points: RunData) -> str:
    if points.h is None or float(points.h.std(0).max()) < 1e-3:
        return ""
    z = points.covariates(fit.law)
    h = (points.h - points.h.mean(0))[:, :-1]
    columns = [h * np.asarray(z.x)[:, None], h * np.asarray(z.y)[:, None]] if fit.law.needs_mix else [h]
    p = residual_pattern_p(fit, points, np.hstack(columns))
    if p >= RARE:
        return ""
    cure = "compare laws by backtest" if fit.law.needs_mix else "choose a law that takes the mix, or fit each mix alone"
    return f"residuals go with the mix (p = {p:.1g}), which {fit.law.name} {_perhaps(p)}leaves out so; {cure}"


def _noise(fit: FitResult, points: RunData) -> str:
    z = points.covariates(fit.law)
    size = np.abs(fit.residuals)
    size = np.minimum(size, _CLIP * 1.4826 * np.median(size))
    trend = np.column_stack([np.ones(len(size)), z.x, z.y])
    if points.n_clusters - 3 < 3 or np.linalg.matrix_rank(trend) < 3:
        return ""
    slopes = np.linalg.lstsq(trend, size, rcond=None)[0]
    p = _chance(((size - size.mean())[:, None] * (trend[:, 1:] - trend[:, 1:].mean(0))), points, spent=1)
    if p >= RARE:
        return ""
    told = trend @ slopes
    ratio = max(float(np.quantile(told, 0.95)), 1e-12) / max(float(np.quantile(told, 0.05)), 0.1 * float(size.mean()))
    return (
        f"noise changes about {ratio:.1f}-fold over N and D (p = {p:.1g}); the interval of a new run is that of the "
        "average one: weigh runs by their noise"
    )


def _outliers(fit: FitResult) -> str:
    n = int((np.abs(fit.residuals) > FAR * fit.noise).sum())
    if not n:
        return ""
    return (
        f"{n} of {len(fit.residuals)} runs lie more than {FAR:.0f} sd off the law; the interval of a new run leaves "
        "such out: look at them"
    )


def _failed(q: Array) -> str:
    share = float((~np.isfinite(q).all(1)).mean())
    return f"{share:.0%} of the resamples could not be fitted; add runs or pin a parameter" if share > 0.01 else ""


def prior_dominated(fit: FitResult, q: Array) -> tuple[str, ...]:
    """Log-parameters that a weak prior of the fit decides more than its runs do: draws (K, p) as wide as the prior."""
    told = sorted(_beliefs(fit).items())
    return tuple(fit.law.log_names[j] for j, sd in told if float(np.nanstd(q[:, j])) > BELIEVED * sd)


def _believed(fit: FitResult, q: Array) -> str:
    names = prior_dominated(fit, q)
    if not names:
        return ""
    return (
        f"the runs hardly tell {', '.join(names)}; a weak prior does, or the skills they lean on, and intervals "
        "cover where these hold: add runs, or choose a law with fewer parameters"
    )


def _beliefs(fit: FitResult) -> dict[int, float]:
    """Sd of what was believed beforehand of free log-parameters, by place: the fit's own beliefs over the law's."""
    own = np.diag(fit.prior[1])
    of_law = {j: prior.sd for j, prior in fit.law.priors.items() if j in fit.free}
    return of_law | {j: float(one) ** -0.5 for j, one in zip(fit.free, own, strict=True) if one > 0}


def _skewed(fit: FitResult, q: Array) -> str:
    lo, mid, hi = np.nanquantile(q[:, list(fit.free)], [0.05, 0.5, 0.95], axis=0)
    ratio = np.maximum(hi - mid, 1e-300) / np.maximum(mid - lo, 1e-300)
    told_before = _beliefs(fit)
    names = [
        fit.law.log_names[j]
        for j, one in zip(fit.free, ratio, strict=True)
        if j not in told_before and not 1 / SKEWED <= one <= SKEWED
    ]
    if not names:
        return ""
    return f"the draws of {', '.join(names)} are lopsided: the runs bound it on one side only; pin or share it"


def _bent(fit: FitResult, points: RunData, q: Array) -> str:
    """Whether one step in the parameters moves the losses otherwise than the runs' errors do, which is to first order.

    Looked at where the runs are, and said where it is so at a tenth of them. Draws whose losses were followed stay on
    both sides of the law however far their parameters go.
    """
    some = points.take(np.unique(np.linspace(0, len(points) - 1, _PLACES).astype(int)))
    z = some.covariates(fit.law)
    drawn = q[np.isfinite(q).all(1)][: 2 * _PLACES]
    with np.errstate(over="ignore", invalid="ignore"):
        moved = fit.law.log_loss(drawn, z) - fit.law.log_loss(fit.q[None], z)
        there = np.isfinite(moved).all(1)
    if there.sum() < 2:
        return ""
    moved, first_order = moved[there], (drawn[there] - fit.q) @ fit.law.jacobian(fit.q[None], z)[0].T
    promised = np.maximum(spread(first_order), 1e-6)  # ln L; less than that is no matter
    shift = float(np.quantile(np.abs(np.median(moved, 0)) / promised, 0.9))
    growth = float(np.quantile(spread(moved) / promised, 0.9))
    if shift <= SHIFTED and growth <= GROWN:
        return ""
    cure = "add runs" if fit.law.joint else "draw by wild, each skill alone (with fewer resamples where runs are many)"
    return (
        f"the draws move predicted losses {shift:.1f} sd to one side and {growth:.1f} times as far as the runs' errors "
        f"do, for one step in the parameters bends them; intervals of losses may not cover: {cure}, or choose a law "
        "with fewer parameters"
    )


def residual_pattern_p(fit: FitResult, points: RunData, columns: Array) -> float:
    """P of what the residuals have in common with columns (n, m) by chance alone; 1 where the runs are too few.

    A score test: columns without what the law could follow, cluster by cluster, so that neither checkpoints of one run
    nor noise that differs over the design count as a pattern.
    """
    part = fit.problem(points).parts[0]
    root = np.sqrt(np.asarray(points.weights))
    followed = root[:, None] * (part.law.jacobian(fit.q[None], part.z)[0] @ part.T)
    basis = _orthonormal(followed)
    left = root[:, None] * columns
    left = left - basis @ (basis.T @ left)
    size = np.sqrt((left**2).sum(0))
    left = left[:, size > 1e-6 * np.sqrt((columns**2).sum(0))]
    errors = root * fit.residuals
    limit = _CLIP * 1.4826 * float(np.median(np.abs(errors)))
    scores = _orthonormal(left)
    return _chance(scores * np.clip(errors, -limit, limit)[:, None], points, spent=basis.shape[1])


def _orthonormal(columns: Array) -> Array:
    scaled = columns / np.maximum(np.sqrt((columns**2).sum(0)), 1e-300)
    u, s, _ = np.linalg.svd(scaled, full_matrices=False)
    return np.asarray(u[:, s > 1e-6 * s[0]] if len(s) else u)


def _chance(scores: Array, points: RunData, *, spent: int) -> float:
    """P that scores (n, m), summed by cluster, have mean 0: Hotelling's T2, ``spent`` degrees of freedom taken off."""
    codes: npt.NDArray[np.intp] = np.asarray(points.clusters)
    m, n = scores.shape[1], points.n_clusters
    left = n - spent - m
    if m == 0 or left < 3:
        return 1.0
    sums = np.zeros((n, m))
    np.add.at(sums, codes, scores)
    total = sums.sum(0)
    outer = sums.T @ sums
    if not np.isfinite(outer).all() or np.linalg.matrix_rank(outer) < m:
        return 1.0
    share = min(float(total @ np.linalg.solve(outer, total)) / n, 1 - 1e-12)
    return float(f_distribution.sf(share / (1 - share) * left / m, m, left))
