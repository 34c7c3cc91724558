"""Predicted losses with two intervals: of the law itself, and of one more run, which has noise of its own."""

from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from skillscale.errors import InputError
from skillscale.laws.forms.nd import Array, Law

_FAILED = 0.01  # of the draws; with more of them an interval is unknown, as in ``uncertainty.interval``
_HALVINGS = 40
_SUM = 1e-3  # by which shares may miss 1


@dataclass(frozen=True, kw_only=True)
class PredictedLoss:
    """Losses in nats per token, each (n,); an end that is not known is NaN.

    ``lo``, ``hi``: where the law lies, the mean of many runs. ``new_lo``, ``new_hi``: where one more run would fall.
    """

    value: Array = field(metadata={"unit": "nats per token"})
    lo: Array
    hi: Array
    new_lo: Array
    new_hi: Array

    def scaled(self, factor: Array) -> "PredictedLoss":
        """All of them times a factor, (n,)."""
        return PredictedLoss(**{one.name: getattr(self, one.name) * factor for one in fields(self)})


def predict(
    law: Law, theta: Array, q: Array, N: npt.ArrayLike, D: npt.ArrayLike, h: npt.ArrayLike | None = None, *,
    level: float, noise: float,
) -> PredictedLoss:  # fmt: skip
    """Losses of a law, and how far they can be trusted.

    Args:
        law: bound to the centre of its runs.
        theta: natural parameters, (p,).
        q: draws of the log-parameters, (K, p).
        N: parameters, (n,).
        D: tokens, (n,).
        h: shares of the categories, (n, n_categories) or one mix for all, where the law asks for them.
        level: of the intervals, two-sided.
        noise: sd of a new run about the law, in ln L.

    Raises:
        InputError: N or D is not positive, or a mix is none.
    """
    _check_sizes(N, D)
    if law.needs_mix and h is not None:
        _check_mix(law, h)
    drawn = law.log_loss(q, law.covariates(N, D, h))
    lost = ~np.isfinite(drawn)
    told = np.where(lost, np.nan, drawn)
    tails = [(1 - level) / 2, (1 + level) / 2]
    unknown = lost.mean(0) > _FAILED
    told[:, unknown] = 0.0  # in place of columns without a number, on which quantiles warn
    lo, hi = np.nanquantile(told, tails, axis=0)
    new_lo, new_hi = (_mixture_end(told, noise, tail) for tail in tails)
    ends = (np.where(unknown, np.nan, np.exp(end)) for end in (lo, hi, new_lo, new_hi))
    return PredictedLoss(
        value=law.loss(theta, N, D, h), **dict(zip(("lo", "hi", "new_lo", "new_hi"), ends, strict=True))
    )


def _mixture_end(centres: Array, sd: float, tail: float) -> Array:
    """Quantile of equally likely normals about ``centres`` (K, n), (n,); NaN among them are left out."""
    if not sd > 0:
        return np.asarray(np.nanquantile(centres, tail, axis=0))
    low, high = np.nanmin(centres, axis=0) - 9 * sd, np.nanmax(centres, axis=0) + 9 * sd
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = np.nanmean(ndtr((middle - centres) / sd), axis=0) < tail
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.asarray((low + high) / 2)


def _check_sizes(N: npt.ArrayLike, D: npt.ArrayLike) -> None:
    for letter, what, values in (("N", "parameters", N), ("D", "tokens", D)):
        given = np.atleast_1d(np.asarray(values, dtype=float))
        bad = ~(np.isfinite(given) & (given > 0))
        if bad.any():
            at = int(np.argmax(bad))
            more = f" (and in {bad.sum() - 1} more rows)" if bad.sum() > 1 else ""
            raise InputError(f"{letter} must be {what} above 0, but row {at} has {given[at]}{more}; mend or drop it")


def _check_mix(law: Law, h: npt.ArrayLike) -> None:
    shares = np.atleast_2d(np.asarray(h, dtype=float))
    if shares.shape[-1] != len(law.categories):
        raise InputError(
            f"a mix has a share of each of {', '.join(law.categories)}, but {shares.shape[-1]} shares are given"
        )
    bad = ~((shares >= 0).all(1) & (np.abs(shares.sum(1) - 1) <= _SUM))
    if bad.any():
        at = int(np.argmax(bad))
        told = ", ".join(f"{name} {share:.4g}" for name, share in zip(law.categories, shares[at], strict=True))
        raise InputError(
            f"a mix has shares from 0 that sum to 1, but row {at} has {told}, which sum to {shares[at].sum():.4g}; "
            "divide by the sum, or mend it"
        )
