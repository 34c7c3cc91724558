"""The candidate laws of the model average, centred on a design space, with weak priors on all their parameters."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from skillscale.design.discrepancy import USUAL_RATIO
from skillscale.design.space import DesignSpace
from skillscale.laws.forms.autodiff import Jet, exp, growth, log, logsumexp
from skillscale.laws.forms.nd import Array, Chinchilla, Coupled, Covariates, Drifting, Farseer, Law, Prior, dot

_PRIORS: Mapping[str, Prior] = {  # wide, about published fits of language models; k down to that of Farseer's runs
    "alpha": Prior(0.35, 0.2),
    "beta": Prior(0.35, 0.2),
    "ln k": Prior(math.log(0.6), 0.5),
    "g": Prior(0.0, 0.05),
    "centre": Prior(0.0, 1.5),
}
_FLOOR, _TERM = Prior(-0.7, 0.7), Prior(-1.4, 1.0)  # ln of E, and of the terms at the centre, minus that of the losses
_FARSEER = (  # between Chinchilla's form and the fit to Farseer's 411 runs; levels minus ln of the losses
    Prior(math.log(0.33), 0.4), Prior(-0.07, 0.08), Prior(0.0, 0.1),
    Prior(-1.4, 1.0), Prior(0.1, 0.15), Prior(-0.05, 0.1),
    Prior(-0.3, 0.5), Prior(-0.1, 0.07), Prior(-0.05, 0.12),
)  # fmt: skip
_TRANSFER = Prior(0.0, 1.0)  # ln t of a category
EPOCHS = "ln epochs"  # the only column of a mix that holds how often each token is seen
_REPEATED = (Prior(math.log(15), 1.0), Prior(1.0, 0.4), Prior(0.2, 0.3))  # 15 epochs: Muennighoff et al. 2023
_NO_REPEATS = 1e-9  # epochs beyond the first, for data seen once


class _LogParameterLaw(Law):
    """A law that reports its log-parameters as they are, because nobody sees them.

    It has no seeds: the search for the mode starts at the prior mean.
    """

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the log-parameters."""
        return self.log_names

    def theta(self, q: Array) -> Array:
        """Return the log-parameters."""
        return np.asarray(q)

    def log_parameters(self, theta: Array) -> Array:
        """Return the inverse of ``theta``."""
        return np.asarray(theta)

    def seeds(self, z: Covariates, log_L: Array, weights: Array) -> Array:
        """Refuse: such a law is not for fits by least squares.

        Raises:
            TypeError: always.
        """
        del z, log_L, weights
        raise TypeError(f"the design's law {self.name} has no seeds. Fit a law of the catalogue instead")


@dataclass(frozen=True)
class DriftingPriorLaw(_LogParameterLaw, Drifting):
    """``Drifting`` with a free centre in ln D: v = ln B - beta (e^(g x) (y - centre) + centre).

    ``Drifting`` drifts about the centre of the data. No truth depends on that centre, so here it is a parameter.
    """

    @property
    def log_names(self) -> tuple[str, ...]:
        """Names of ``Drifting``'s log-parameters, then the centre."""
        return (*super().log_names, "centre")

    def form(self, q: Sequence[Jet], z: Covariates) -> Jet:
        """Return ln(E + (e^(u/k) + e^(v/k))^k)."""
        e, a, b, alpha, beta, log_k, g, centre = q
        inverse = exp(-log_k)
        v = b - beta * (exp(g * z.x) * (z.y - centre) + centre)
        return logsumexp(e, exp(log_k) * logsumexp((a - alpha * z.x) * inverse, v * inverse))


@dataclass(frozen=True)
class FarseerPriorLaw(_LogParameterLaw, Farseer):
    """L = exp(floor(x)) + exp(term(x) - rate(x) y), each level + slope (e^(bend x) - 1) / bend, rate its exponential.

    ``Farseer`` with the level of its data term at the centre's D, not at D = 1. Level and slope are then independent.
    """

    name: ClassVar[str] = "farseer"

    def form(self, q: Sequence[Jet], z: Covariates) -> Jet:
        """Return ln of the sum of the two terms."""
        rate_level, rate_slope, a, term_level, term_slope, b, floor_level, floor_slope, g = q
        rate = exp(rate_level + rate_slope * (growth(a * z.x) * z.x))
        term = term_level + term_slope * (growth(b * z.x) * z.x) - rate * z.y
        return logsumexp(floor_level + floor_slope * (growth(g * z.x) * z.x), term)


@dataclass(frozen=True)
class EffectiveTokens(_LogParameterLaw):
    """A law of N and effective tokens, D sum_k t_k h_k, where ``t`` is the value of each category."""

    name: ClassVar[str] = "transfer"
    needs_mix: ClassVar[bool] = True
    inner: Law = Chinchilla()  # noqa: RUF009 - a frozen value

    @property
    def log_names(self) -> tuple[str, ...]:
        """Names of the inner law's log-parameters, then ln t up to a constant."""
        return (*self.inner.log_names, *(f"ln t_{name}" for name in self.categories))

    def form(self, q: Sequence[Jet], z: Covariates) -> Jet:
        """Return the inner law at the effective tokens."""
        p = len(self.inner.log_names)
        weights = [exp(log_t) for log_t in q[p:]]
        share = log(dot(weights, z.h)) + math.log(len(self.categories)) - log(dot(weights, np.ones((1, len(weights)))))
        return self.inner.form(q[:p], Covariates(z.x, z.y + share))


@dataclass(frozen=True)
class RepeatedTokens(_LogParameterLaw):
    """A law of N and effective tokens with repeated data: D / (1 + (R / R*)^c), R epochs beyond the first.

    ln R* = saturation - (size / c) x: repetition saturates sooner for larger models. With c > 1 many epochs do harm.
    The mix has one column, ``EPOCHS``.
    """

    name: ClassVar[str] = "repeated"
    needs_mix: ClassVar[bool] = True
    inner: Law = Chinchilla()  # noqa: RUF009 - a frozen value

    @property
    def log_names(self) -> tuple[str, ...]:
        """Names of the inner law's log-parameters, then ln R* at the centre, c, and the effect of size."""
        return (*self.inner.log_names, "saturation", "power", "size")

    def form(self, q: Sequence[Jet], z: Covariates) -> Jet:
        """Return the inner law at the effective tokens."""
        p = len(self.inner.log_names)
        saturation, power, size = q[p:]
        beyond = np.log(np.maximum(np.expm1(z.h[..., 0]), _NO_REPEATS))
        lost = logsumexp(0.0, (beyond - saturation) * power + size * z.x)
        return self.inner.form(q[:p], Covariates(z.x, z.y - lost))


def candidate_laws(space: DesignSpace) -> tuple[Law, ...]:
    """Return the laws, from the simplest to the most flexible."""
    middle = math.sqrt(space.flops[0] * space.flops[1]) / 6
    x0, y0 = 0.5 * math.log(middle / USUAL_RATIO), 0.5 * math.log(middle * USUAL_RATIO)
    laws: tuple[Law, ...] = (Chinchilla(x0, y0), Coupled(x0, y0), DriftingPriorLaw(x0, y0), FarseerPriorLaw(x0, y0))
    if space.categories == (EPOCHS,):
        return tuple(RepeatedTokens(x0, y0, space.categories, inner=law) for law in laws)
    if space.n_mixes == 1:
        return laws
    return tuple(EffectiveTokens(x0, y0, space.categories, inner=law) for law in laws)


def law_name(law: Law) -> str:
    """Return the name of a law, or of the inner law where tokens are effective tokens."""
    return law.inner.name if isinstance(law, EffectiveTokens | RepeatedTokens) else law.name


def prior_for(law: Law, level: float) -> tuple[Array, Array]:
    """Return means and sds of the log-parameters, (p,) each, where losses are about e^``level``."""
    if isinstance(law, EffectiveTokens):
        mean, sd = prior_for(law.inner, level)
        n = len(law.categories)
        return np.append(mean, np.full(n, _TRANSFER.mean)), np.append(sd, np.full(n, _TRANSFER.sd))
    if isinstance(law, RepeatedTokens):
        mean, sd = prior_for(law.inner, level)
        more = np.array([(prior.mean, prior.sd) for prior in _REPEATED])
        return np.append(mean, more[:, 0]), np.append(sd, more[:, 1])
    if isinstance(law, FarseerPriorLaw):
        mean, sd = np.array([(prior.mean, prior.sd) for prior in _FARSEER]).T
        return mean + level * np.isin(np.arange(len(mean)), (3, 6)), sd
    priors = [_prior(name, level) for name in law.log_names]
    return np.array([prior.mean for prior in priors]), np.array([prior.sd for prior in priors])


def _prior(name: str, level: float) -> Prior:
    if name in _PRIORS:
        return _PRIORS[name]
    relative = _FLOOR if name == "ln E" else _TERM
    return Prior(level + relative.mean, relative.sd)
