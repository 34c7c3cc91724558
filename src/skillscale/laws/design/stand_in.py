"""What runs tell of targets by one law a skill: ``drifting``, or ``effective_data`` where the mix differs."""

import math

import numpy as np

from skillscale.errors import FitError
from skillscale.laws.bootstrap import Method, draws
from skillscale.laws.design.one_law import fit_one
from skillscale.laws.design.space import History, Space
from skillscale.laws.design.targets import Answer, Quantity, Target
from skillscale.laws.fit import Fit
from skillscale.laws.forms import Array

DRAWS = 200
_TOLD = 3.0  # of ln N, half width where the runs tell nothing
_RATIO = 20.0  # D / N there


def answer(history: History, space: Space, targets: tuple[Target, ...], level: float = 0.9) -> Answer:
    """What the runs tell of the targets."""
    fits = {
        name: _fit(history, space, name) for name in {t.skill for t in targets} | {t.other for t in targets if t.other}
    }
    rows = []
    for target in targets:
        value, drawn = _told(fits[target.skill], target)
        if target.other:
            other, others = _told(fits[target.other], target)
            value, drawn = value - other, drawn - others
        drawn = drawn[np.isfinite(drawn)]
        if not len(drawn) or not math.isfinite(value):
            drawn = np.array([value - _TOLD, value + _TOLD])
        rows.append((value, *np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]), drawn.std()))
    value, lo, hi, sd = np.array(rows).T
    return Answer(targets=targets, value=value, lo=lo, hi=hi, sd=sd, level=level)


def _fit(history: History, space: Space, skill: str) -> tuple[Fit, Array] | None:
    found = fit_one(history, space, skill)
    try:
        return found and (found[0], draws(*found, method=Method.LAPLACE, count=DRAWS))
    except FitError:
        return None


def _told(found: tuple[Fit, Array] | None, target: Target) -> tuple[float, Array]:
    if found is None:
        return (0.5 * math.log(target.C / 6 / _RATIO) if target.quantity is not Quantity.LOSS else math.nan), np.zeros(
            0
        )
    fit, q = found
    law = fit.law
    h = np.array(target.h) if target.h else None
    theta = law.theta(np.vstack([fit.q, q]))
    with np.errstate(all="ignore"):
        log_N = law.log_optimum(theta, [target.C], h if law.needs_mix else None)[:, 0]
    if target.quantity is Quantity.LOSS:
        N = math.exp(log_N[0]) if math.isfinite(log_N[0]) else math.sqrt(target.C / 6 / _RATIO)
        log_L = law.log_loss(
            np.vstack([fit.q, q]), law.covariates([N], [target.C / 6 / N], h if law.needs_mix else None)
        )
        return float(log_L[0, 0]), log_L[1:, 0]
    return float(log_N[0]), log_N[1:]
