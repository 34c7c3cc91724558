"""Predicted losses with two intervals: of the law, and of one more run, which has noise of its own."""

from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from skillscale.errors import InputError
from skillscale.laws.forms.nd import Array, Law

_FAILED = 0.01  # share of failed draws above which an interval is unknown, as in ``resamples.interval``
_HALVINGS = 40
_SUM = 1e-3  # largest deviation of the sum of shares from 1


@dataclass(frozen=True, kw_only=True)
class PredictedLoss:
    """Losses in nats per token, each (n,). An unknown end is NaN.

    ``lo``, ``hi``: interval of the law, the mean of many runs. ``new_lo``, ``new_hi``: interval of one more run.
    """

    value: Array = field(metadata={"unit": "nats per token"})
    lo: Array
    hi: Array
    new_lo: Array
    new_hi: Array

    def scale(self, factor: Array) -> "PredictedLoss":
        """Return all losses times a factor, (n,)."""
        return PredictedLoss(**{column.name: getattr(self, column.name) * factor for column in fields(self)})


def predict(
    law: Law, theta: Array, q: Array, N: npt.ArrayLike, D: npt.ArrayLike, h: npt.ArrayLike | None = None, *,
    level: float, noise: float,
) -> PredictedLoss:  # fmt: skip
    """Predict losses of a law with their intervals.

    Args:
        law: law, bound to the centre of its runs.
        theta: natural parameters, (p,).
        q: draws of the log-parameters, (K, p).
        N: parameters, (n,).
        D: tokens, (n,).
        h: shares of the categories, (n, n_categories) or one mix for all, for laws that need a mix.
        level: two-sided level of the intervals.
        noise: sd of a new run about the law, in ln L.

    Raises:
        InputError: N or D is not positive, or h is not a mix.
    """
    _check_sizes(N, D)
    if law.needs_mix and h is not None:
        _check_mix(law, h)
    drawn = law.log_loss(q, law.covariates(N, D, h))
    failed = ~np.isfinite(drawn)
    log_losses = np.where(failed, np.nan, drawn)
    tails = [(1 - level) / 2, (1 + level) / 2]
    unknown = failed.mean(0) > _FAILED
    log_losses[:, unknown] = 0.0  # numpy warns on quantiles of columns that are all NaN
    lo, hi = np.nanquantile(log_losses, tails, axis=0)
    new_lo, new_hi = (_mixture_end(log_losses, noise, tail) for tail in tails)
    ends = (np.where(unknown, np.nan, np.exp(end)) for end in (lo, hi, new_lo, new_hi))
    return PredictedLoss(
        value=law.loss(theta, N, D, h), **dict(zip(("lo", "hi", "new_lo", "new_hi"), ends, strict=True))
    )


def _mixture_end(centres: Array, sd: float, tail: float) -> Array:
    """Return the quantile (n,) of equally likely normals about ``centres`` (K, n). NaN centres are ignored."""
    if not sd > 0:
        return np.asarray(np.nanquantile(centres, tail, axis=0))
    low, high = np.nanmin(centres, axis=0) - 9 * sd, np.nanmax(centres, axis=0) + 9 * sd
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = np.nanmean(ndtr((middle - centres) / sd), axis=0) < tail
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.asarray((low + high) / 2)


def _check_sizes(N: npt.ArrayLike, D: npt.ArrayLike) -> None:
    for letter, unit, values in (("N", "parameters", N), ("D", "tokens", D)):
        given = np.atleast_1d(np.asarray(values, dtype=float))
        bad = ~(np.isfinite(given) & (given > 0))
        if bad.any():
            at = int(np.argmax(bad))
            more = f" (and in {bad.sum() - 1} more rows)" if bad.sum() > 1 else ""
            raise InputError(
                f"{letter} must be {unit} above 0, but row {at} has {given[at]}{more}. Correct or drop it."
            )


def _check_mix(law: Law, h: npt.ArrayLike) -> None:
    shares = np.atleast_2d(np.asarray(h, dtype=float))
    if shares.shape[-1] != len(law.categories):
        raise InputError(
            f"a mix needs {len(law.categories)} shares, but {shares.shape[-1]} are given. Give one each of: "
            f"{', '.join(law.categories)}."
        )
    bad = ~((shares >= 0).all(1) & (np.abs(shares.sum(1) - 1) <= _SUM))
    if bad.any():
        at = int(np.argmax(bad))
        given = ", ".join(f"{name} {share:.4g}" for name, share in zip(law.categories, shares[at], strict=True))
        raise InputError(
            f"shares of a mix must be at least 0 and sum to 1, but row {at} has {given}, which sum to "
            f"{shares[at].sum():.4g}. Divide by the sum, or correct them."
        )
