"""The usual analysis of an isoFLOP grid: a parabola at each budget, and a power law through the minima.

Three variants: ``vertices`` is least squares with the vertex wherever it is, as most of the field does it.
``quadratic`` and ``shared`` are the robust curves of ``laws.isoflop``, with only those minima that are within the sizes
of their budget.
"""

import math

import numpy as np
import numpy.typing as npt

from skillscale.design.space import RunHistory
from skillscale.design.targets import Quantity, Target, TargetEstimates
from skillscale.laws.forms.nd import Array
from skillscale.laws.isoflop.curves import OUTSIDE, IsoflopFit, fit_isoflops
from skillscale.laws.uncertainty.resamples import Resamples

DRAWS = 500
VERTICES = "vertices"
FARTHEST = math.log(1e3)  # largest distance of a vertex from the middle of its sizes, in ln N
_SLOPE = 0.5  # of ln N* by ln C where only one budget has a minimum
_UNINFORMED = 3.0  # half width in ln N where no budget has a curve


def estimate_by_parabolas(
    history: RunHistory, targets: tuple[Target, ...], level: float = 0.9, *, curve: str = "quadratic", seed: int = 0
) -> TargetEstimates:
    """Estimate ln N* of the skills and their differences with intervals of a bootstrap.

    Args:
        history: runs of a grid, on one mix or the same grid on several.
        targets: optima and differences; a loss is NaN.
        level: level of the intervals.
        curve: ``vertices``, or one of ``laws.isoflop.curves.CURVES``.
        seed: seed of the resamples, which all skills share.
    """
    rows = []
    for target in targets:
        value, drawn = _log_optimum(history, target, target.skill, curve, seed)
        if target.other:
            other, others = _log_optimum(history, target, target.other, curve, seed)
            value, drawn = value - other, drawn - others
        rows.append((value, *np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]), drawn.std()))
    value, lo, hi, sd = np.array(rows).T
    return TargetEstimates(targets=targets, value=value, lo=lo, hi=hi, sd=sd, level=level)


def _log_optimum(history: RunHistory, target: Target, skill: str, curve: str, seed: int) -> tuple[float, Array]:
    """Return the estimate of ln N* and its draws, (K,)."""
    if target.quantity is Quantity.LOSS:
        return math.nan, np.full(DRAWS, math.nan)
    rows = history.measured(skill)
    if history.h is not None and target.h:
        rows = rows & (np.abs(history.h - np.array(target.h)) < 1e-9).all(1)
    N, C = history.N[rows], 6 * history.N[rows] * history.D[rows]
    budgets = np.exp(np.round(np.log(C), 4))
    by_vertices = curve == VERTICES
    L = np.exp(history.log_L[skill][rows])
    options = {"curve": "quadratic", "huber": math.inf} if by_vertices else {"curve": curve}
    fit = fit_isoflops(budgets, N, L, **options) if len(N) else None
    if fit is None:
        middle = 0.5 * math.log(target.C / 6 / 20)
        return middle, middle + np.resize([-_UNINFORMED, _UNINFORMED], DRAWS)
    rng = np.random.default_rng(seed)
    errors = Resamples.draw(fit.C, DRAWS, rng).draw_errors(fit.residuals, fit.leverage, np.ones(len(fit.C), dtype=bool))
    if by_vertices:
        minima, within = _vertices(fit, fit.coefficients)
        drawn, _ = _vertices(fit, fit.coefficients + np.einsum("bcn,kn->kbc", fit.projection, errors))
    else:
        drawn = fit.resample_minima(errors, rng.normal(size=(DRAWS, 2))).optima
        minima, _ = fit.minima()
        within, edge = np.isfinite(minima), OUTSIDE * fit.half_widths
        minima = np.clip(minima, fit.centres - edge, fit.centres + edge)
    kept = within if within.sum() >= 2 else np.ones(len(minima), dtype=bool)
    further = math.log(target.C) - np.log(np.array(fit.budgets))[kept]
    if len(further) == 1:
        return float(minima[kept][0] + _SLOPE * further[0]), drawn[:, kept][:, 0] + _SLOPE * further[0]
    # A least-squares line, extrapolated to where `further` is 0
    weights = np.linalg.pinv(np.column_stack([np.ones(len(further)), further]))[0]
    return float(weights @ minima[kept]), drawn[:, kept] @ weights


def _vertices(fit: IsoflopFit, c: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Return ln N of the vertices of parabolas (..., n_budgets, 5), and which are minima; else the middle."""
    convex = c[..., 2] > 0
    x = np.where(convex, -c[..., 1] / np.where(convex, 2 * c[..., 2], 1.0), 0.0)
    return fit.centres + np.clip(x, -FARTHEST, FARTHEST), convex
