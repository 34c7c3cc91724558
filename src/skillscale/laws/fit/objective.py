"""Objectives of a fit. Every result names its objective, which changes an exponent more than the optimiser does."""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from skillscale.errors import InputError

Array = npt.NDArray[np.float64]

DELTA = 1e-3  # Hoffmann et al. 2022
KINDS = ("huber", "least_squares", "least_absolute")
SCALES = ("log", "raw")
EFFICIENT = 2.0  # Huber's delta in units of the noise: 99 % as efficient as least squares where there are no outliers
_FEW_INSIDE = 0.6  # share of the errors within the corner below which their count estimates the density poorly
_KINK = 0.05  # a corner below this share of the typical error is approached in stages
_SHARPEST = 1e-7  # delta of the Huber loss that replaces |r|, in units of the typical error


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A sum over runs, F = sum_i w_i rho(r_i), of errors r = ln L - ln law (``on`` log), or L - law (``on`` raw).

    ``huber``: rho = r^2/2 up to ``delta``, delta (|r| - delta/2) beyond. ``least_squares``: r^2/2. ``least_absolute``:
    |r|.

    Raises:
        InputError: an unknown kind or scale, or a delta that is not above 0.
    """

    kind: str = "huber"
    delta: float = field(default=DELTA, metadata={"unit": "ln L; nats per token on the raw scale"})
    on: str = "log"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"unknown objective {self.kind!r}. Choose one of: {', '.join(KINDS)}.")
        if self.on not in SCALES:
            raise InputError(f"unknown scale {self.on!r} of an objective. Choose log or raw.")
        if not self.delta > 0:
            raise InputError(f"delta must be above 0, but it is {self.delta}. Use 0.001 (ln L) for example.")

    @property
    def name(self) -> str:
        """Description in words."""
        rho = {"huber": f"Huber({self.delta:.3g})", "least_squares": "squares / 2", "least_absolute": "absolute values"}
        return f"sum of {rho[self.kind]} on {'ln L' if self.on == 'log' else 'L'}"

    @property
    def corner(self) -> float:
        """Size of an error at which rho becomes linear."""
        return {"huber": self.delta, "least_squares": math.inf, "least_absolute": 0.0}[self.kind]

    def total(self, r: Array, w: Array) -> Array:
        """Return F of errors (K, n) with weights (K, n) or (n,)."""
        size = np.abs(r)
        if self.kind == "least_absolute":
            return np.asarray((w * size).sum(-1))
        if self.kind == "least_squares":
            return np.asarray(0.5 * (w * r**2).sum(-1))
        inner = np.minimum(size, self.delta)
        return np.asarray((w * inner * (size - 0.5 * inner)).sum(-1))

    def slope(self, r: Array) -> Array:
        """Return rho', the first derivative."""
        if self.kind == "least_absolute":
            return np.sign(r)
        return r if self.kind == "least_squares" else np.clip(r, -self.delta, self.delta)

    def curvature(self, r: Array) -> Array:
        """Return rho'', the second derivative: 1 up to the corner, 0 beyond."""
        return np.asarray(np.abs(r) <= self.corner, dtype=float)

    def smooth_stages(self, typical: float) -> "tuple[Objective, ...]":
        """Return objectives that Newton steps can follow to this one: itself, or ever sharper Huber losses.

        Args:
            typical: size of an error, in ln L.
        """
        sharpest = _SHARPEST * max(typical, 1e-12) if self.kind == "least_absolute" else self.corner
        if sharpest > _KINK * typical:
            return (self,)
        steps = math.ceil(math.log10(typical / sharpest)) + 1
        return tuple(Objective(delta=float(delta), on=self.on) for delta in np.geomspace(typical, sharpest, steps))


HUBER = Objective()
LEAST_SQUARES = Objective(kind="least_squares")
RAW_LEAST_SQUARES = Objective(kind="least_squares", on="raw")
LEAST_ABSOLUTE = Objective(kind="least_absolute")


def dispersion(objective: Objective, r: Array, w: Array, n_parameters: int) -> float:
    """Return the scale phi at which F / phi is a negative log-likelihood.

    It is sum w rho'^2 / sum w rho'', per degree of freedom. For least squares with equal weights it is the variance of
    the errors. It puts weak priors and pooling on the scale of F.
    """
    used = w > 0
    n = int(used.sum())
    degrees_of_freedom = n / max(n - n_parameters, 1)
    slope = float((w * objective.slope(r) ** 2)[used].mean())
    curvature = float((w * mean_curvature(objective, r, n_parameters))[used].mean())
    return slope / curvature * degrees_of_freedom if curvature > 0 else 0.0


def mean_curvature(objective: Objective, r: Array, n_parameters: float = 0.0) -> Array:
    """Return rho'' averaged over the spread of the errors, (n,), which gives F its curvature near the minimum.

    A robust fit passes through, or close to, as many runs as it has parameters. These would suggest smaller errors than
    there are, so they are subtracted. Where few errors are within the corner, those up to the median represent them.
    """
    if objective.kind == "least_squares":
        return np.ones_like(r)
    n, size = len(r), np.abs(r)
    n_parameters = min(n_parameters, n - 1.0)
    inside = int((size <= objective.corner).sum())
    if inside - n_parameters > _FEW_INSIDE * (n - n_parameters):
        return np.asarray(objective.curvature(r) * (1 - n_parameters / inside) * (n / (n - n_parameters)))
    width = max(float(np.sort(size)[int((n + n_parameters) / 2)]), 1e-300)
    sd = 1.4826 * width
    top = 2 / (sd * math.sqrt(2 * math.pi))
    if objective.kind == "huber":
        top = math.erf(objective.delta / sd / math.sqrt(2))
    near = size <= width
    return np.asarray(near * (top / float(near.mean())))
