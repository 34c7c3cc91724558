"""The runs of one skill as arrays, checked once.

In: N, D, L, weights, mixes and cluster labels. Out: a ``RunData`` that every fit takes, or an error that says which
runs are missing.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from skillscale.errors import FitError
from skillscale.laws.forms.nd import Array, Covariates, Law

MIN_SIZES = 3
CONFOUNDED = 0.05  # sd of ln D about a parabola in ln N below which N and D are confounded (assumption)


@dataclass(frozen=True, kw_only=True)
class RunData:
    """Losses to fit: N parameters, D tokens, L nats per token, each (n,).

    ``weights``: non-negative, (n,). ``h``: shares of ``categories``, (n, n_categories), where the mix differs between
    runs. ``clusters``: labels, (n,); the checkpoints of a run share one and are resampled together. They are stored as
    codes from 0 to n_clusters - 1. ``labels`` keeps the given values, which identify a run across skills.
    ``standard_error``: typical standard error of a loss in ln L, 0 where unknown.

    Raises:
        FitError: lengths differ, or a value is not finite and positive.
    """

    N: Array
    D: Array
    L: Array
    weights: Array | None = None
    h: Array | None = field(default=None, repr=False)
    categories: tuple[str, ...] = ()
    clusters: npt.NDArray[np.generic] | None = field(default=None, repr=False)
    labels: npt.NDArray[np.generic] | None = field(default=None, repr=False)
    standard_error: float = 0.0

    def __post_init__(self) -> None:
        for letter in ("N", "D", "L"):
            values = np.asarray(getattr(self, letter), dtype=float)
            if values.shape != np.shape(self.N) or values.ndim != 1:
                raise FitError(
                    f"N, D and L must be lists of one length, but {letter} has shape {values.shape}. Pass (n,) arrays."
                )
            bad = ~(np.isfinite(values) & (values > 0))
            if bad.any():
                raise FitError(
                    f"{letter} must be finite and positive, but row {np.argmax(bad)} is {values[np.argmax(bad)]}. "
                    f"Drop {bad.sum()} such rows."
                )
            object.__setattr__(self, letter, values)
        n = len(self.N)
        weights = np.ones(n) if self.weights is None else np.asarray(self.weights, dtype=float)
        if weights.shape != self.N.shape or not np.all(weights >= 0) or not np.any(weights > 0):
            raise FitError(
                "weights must be one non-negative number per run, and not all zero. Pass None for equal weights."
            )
        object.__setattr__(self, "weights", weights)
        if self.h is not None and np.shape(self.h) != (n, len(self.categories)):
            raise FitError(
                f"h must have shape {(n, len(self.categories))}, but has {np.shape(self.h)}. Pass a row per run."
            )
        given = np.arange(n) if self.clusters is None else np.asarray(self.clusters)
        if self.labels is None:
            object.__setattr__(self, "labels", given)
        object.__setattr__(self, "clusters", np.unique(given, return_inverse=True)[1])

    def __len__(self) -> int:
        return len(self.N)

    @property
    def n_clusters(self) -> int:
        """Number of runs; the checkpoints of one run count once."""
        return int(np.max(np.asarray(self.clusters))) + 1

    @property
    def log_L(self) -> Array:
        """Ln L, (n,)."""
        return np.log(self.L)

    def bind(self, law: Law) -> Law:
        """Return the law about the centre of these runs."""
        weights = np.asarray(self.weights)
        x0, y0 = (float(np.average(np.log(z), weights=weights)) for z in (self.N, self.D))
        return law.bind(x0, y0, self.categories)

    def covariates(self, law: Law) -> Covariates:
        """Return the runs as the covariates of a law."""
        return law.covariates(self.N, self.D, self.h if law.needs_mix else None)

    def take(self, rows: npt.NDArray[np.generic]) -> "RunData":
        """Return the runs at ``rows``, a mask or indices."""
        return RunData(
            N=self.N[rows], D=self.D[rows], L=self.L[rows], weights=np.asarray(self.weights)[rows],
            h=None if self.h is None else self.h[rows], categories=self.categories,
            clusters=np.asarray(self.labels)[rows], standard_error=self.standard_error,
        )  # fmt: skip


def token_spread(N: npt.NDArray[np.float64], D: npt.NDArray[np.float64]) -> float:
    """Return the sd of ln D about a parabola in ln N: how far tokens vary on their own."""
    x = np.log(N) - np.log(N).mean()
    design = np.column_stack([np.ones_like(x), x, x**2])
    remainder = np.log(D) - design @ np.linalg.lstsq(design, np.log(D), rcond=None)[0]
    return float(remainder.std())


def are_confounded(N: npt.NDArray[np.float64], D: npt.NDArray[np.float64]) -> bool:
    """Check whether D follows N. Where it falls as N grows, as at one budget, the runs still show an optimum."""
    x, y = np.log(N), np.log(D)
    falls = float(np.cov(x, y)[0, 1]) < -0.5 * float(np.var(x, ddof=1)) if len(N) > 1 else False
    return not falls and token_spread(N, D) < CONFOUNDED


def check_identified(runs: RunData, *, n_parameters: int, constrained: str = "") -> None:
    """Refuse runs that can't determine a law in N and D.

    Args:
        runs: runs to fit.
        n_parameters: number of parameters that the runs alone must determine.
        constrained: letters (N, D) whose exponent is fixed or has a prior, so that fewer values are enough.

    Raises:
        FitError: says what is missing and which runs to add.
    """
    used = np.asarray(runs.weights) > 0
    N, D = runs.N[used], runs.D[used]
    short = max(n_parameters + 1 - len(N), 0)
    for letter, values in (("N", N), ("D", D)):
        distinct = len(np.unique(np.round(np.log(values), 3)))
        if distinct < (1 if letter in constrained else MIN_SIZES):
            other = "tokens" if letter == "N" else "parameters"
            raise FitError(
                f"{distinct} distinct {letter} among {len(N)} runs, but a law in N and D needs {MIN_SIZES} or more. "
                f"Add {letter} a factor of 3 apart at the same number of {other}, or fix an exponent"
                f"{f' ({n_parameters} parameters need {short} more runs)' if short else ''}."
            )
    if short:
        raise FitError(f"{len(N)} runs can't determine a law of {n_parameters} parameters. Add at least {short}.")
    spread = token_spread(N, D)
    if spread < CONFOUNDED and not constrained:
        smallest, largest = float(N.min()), float(N.max())
        raise FitError(
            f"N and D are confounded: N predicts ln D to within {spread:.2g}, so their effects can't be "
            "separated. Add a second budget (the same sizes trained on 3 times the tokens), first at the ends: "
            f"N = {smallest:.3g} on {3 * float(D[np.argmin(N)]):.3g} tokens, and N = {largest:.3g} on "
            f"{float(D[np.argmax(N)]) / 3:.3g}."
        )
