"""The laws that a belief averages over, about the centre of a space, each with weak priors on all it doesn't know."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from skillscale.design.discrepancy import USUAL_RATIO
from skillscale.design.space import DesignSpace
from skillscale.laws.forms.autodiff import Jet, exp, growth, log, logsumexp
from skillscale.laws.forms.nd import Array, Chinchilla, Coupled, Covariates, Drifting, Farseer, Law, Prior, dot

_PRIORS: Mapping[str, Prior] = {  # wide, about what fits of language models gave; k as low as on Farseer's runs
    "alpha": Prior(0.35, 0.2),
    "beta": Prior(0.35, 0.2),
    "ln k": Prior(math.log(0.6), 0.5),
    "g": Prior(0.0, 0.05),
    "centre": Prior(0.0, 1.5),
}
_FLOOR, _TERM = Prior(-0.7, 0.7), Prior(-1.4, 1.0)  # ln of E, and of the terms at the centre, less the losses' ln
_FARSEER = (  # between Chinchilla's form and the fit to Farseer's 411 runs; levels less the losses' ln
    Prior(math.log(0.33), 0.4), Prior(-0.07, 0.08), Prior(0.0, 0.1),
    Prior(-1.4, 1.0), Prior(0.1, 0.15), Prior(-0.05, 0.1),
    Prior(-0.3, 0.5), Prior(-0.1, 0.07), Prior(-0.05, 0.12),
)  # fmt: skip
_TRANSFER = Prior(0.0, 1.0)  # ln t of a category
EPOCHS = "ln epochs"  # the one column of a mix that tells how often each token is seen
_REPEATED = (Prior(math.log(15), 1.0), Prior(1.0, 0.4), Prior(0.2, 0.3))  # 15 epochs: Muennighoff et al. 2023
_FIRST = 1e-9  # epochs beyond the first, of data seen once


class _AsGiven(Law):
    """A law whose parameters are its log-parameters themselves: nobody is shown them.

    It has no seeds, for nobody searches from them: beliefs begin at their prior.
    """

    @property
    def parameters(self) -> tuple[str, ...]:
        """The log-parameters themselves."""
        return self.log_names

    def theta(self, q: Array) -> Array:
        """The log-parameters themselves."""
        return np.asarray(q)

    def log_parameters(self, theta: Array) -> Array:
        """Inverse of ``theta``."""
        return np.asarray(theta)

    def seeds(self, z: Covariates, log_L: Array, weights: Array) -> Array:
        """Refused, so that nobody takes it for a law to fit."""
        del z, log_L, weights
        raise TypeError(f"{self.name} is believed from its prior and has no seeds; fit a law of the catalogue instead")


@dataclass(frozen=True)
class DriftingPriorLaw(_AsGiven, Drifting):
    """``Drifting`` about a ln D of its own: v = ln B - beta (e^(g x) (y - centre) + centre).

    ``Drifting`` drifts about the centre of the data, which no truth knows of; taken for true, it is off by as much.
    """

    @property
    def log_names(self) -> tuple[str, ...]:
        """Those of ``Drifting``, then the centre."""
        return (*super().log_names, "centre")

    def form(self, q: Sequence[Jet], z: Covariates) -> Jet:
        """Ln(E + (e^(u/k) + e^(v/k))^k)."""
        e, a, b, alpha, beta, log_k, g, centre = q
        inverse = exp(-log_k)
        v = b - beta * (exp(g * z.x) * (z.y - centre) + centre)
        return logsumexp(e, exp(log_k) * logsumexp((a - alpha * z.x) * inverse, v * inverse))


@dataclass(frozen=True)
class FarseerPriorLaw(_AsGiven, Farseer):
    """L = exp(floor(x)) + exp(term(x) - rate(x) y), each level + slope (e^(bend x) - 1) / bend, rate its exponential.

    ``Farseer`` with its data term told at the centre's D, not at D = 1: its slope there is then its own.
    """

    name: ClassVar[str] = "farseer"

    def form(self, q: Sequence[Jet], z: Covariates) -> Jet:
        """Ln of the sum of the two terms."""
        rate_level, rate_slope, a, term_level, term_slope, b, floor_level, floor_slope, g = q
        rate = exp(rate_level + rate_slope * (growth(a * z.x) * z.x))
        term = term_level + term_slope * (growth(b * z.x) * z.x) - rate * z.y
        return logsumexp(floor_level + floor_slope * (growth(g * z.x) * z.x), term)


@dataclass(frozen=True)
class EffectiveTokens(_AsGiven):
    """A law of N and effective tokens, D sum_k t_k h_k: what each category counts is ``t``."""

    name: ClassVar[str] = "transfer"
    needs_mix: ClassVar[bool] = True
    inner: Law = Chinchilla()  # noqa: RUF009 - a frozen value

    @property
    def log_names(self) -> tuple[str, ...]:
        """The inner law's, then ln t up to a constant."""
        return (*self.inner.log_names, *(f"ln t_{name}" for name in self.categories))

    def form(self, q: Sequence[Jet], z: Covariates) -> Jet:
        """The inner law at the effective tokens."""
        p = len(self.inner.log_names)
        weights = [exp(one) for one in q[p:]]
        share = log(dot(weights, z.h)) + math.log(len(self.categories)) - log(dot(weights, np.ones((1, len(weights)))))
        return self.inner.form(q[:p], Covariates(z.x, z.y + share))


@dataclass(frozen=True)
class RepeatedTokens(_AsGiven):
    """A law of N and effective tokens where some are seen again: D / (1 + (R / R*)^c), R epochs beyond the first.

    ln R* = worn - (size / c) x: larger models wear data out sooner. With c > 1 more epochs end up doing harm. The mix
    has one column, ``EPOCHS``.
    """

    name: ClassVar[str] = "repeated"
    needs_mix: ClassVar[bool] = True
    inner: Law = Chinchilla()  # noqa: RUF009 - a frozen value

    @property
    def log_names(self) -> tuple[str, ...]:
        """The inner law's, then how many epochs are worn out, c, and what size changes."""
        return (*self.inner.log_names, "worn", "power", "size")

    def form(self, q: Sequence[Jet], z: Covariates) -> Jet:
        """The inner law at the effective tokens."""
        p = len(self.inner.log_names)
        worn, power, size = q[p:]
        beyond = np.log(np.maximum(np.expm1(z.h[..., 0]), _FIRST))
        lost = logsumexp(0.0, (beyond - worn) * power + size * z.x)
        return self.inner.form(q[:p], Covariates(z.x, z.y - lost))


def candidate_laws(space: DesignSpace) -> tuple[Law, ...]:
    """The laws, from the plainest to the most flexible."""
    middle = math.sqrt(space.flops[0] * space.flops[1]) / 6
    x0, y0 = 0.5 * math.log(middle / USUAL_RATIO), 0.5 * math.log(middle * USUAL_RATIO)
    laws: tuple[Law, ...] = (Chinchilla(x0, y0), Coupled(x0, y0), DriftingPriorLaw(x0, y0), FarseerPriorLaw(x0, y0))
    if space.categories == (EPOCHS,):
        return tuple(RepeatedTokens(x0, y0, space.categories, inner=law) for law in laws)
    if space.n_mixes == 1:
        return laws
    return tuple(EffectiveTokens(x0, y0, space.categories, inner=law) for law in laws)


def law_name(law: Law) -> str:
    """A law's name, that of the inner one for laws of effective tokens."""
    return law.inner.name if isinstance(law, EffectiveTokens | RepeatedTokens) else law.name


def prior_for(law: Law, level: float) -> tuple[Array, Array]:
    """Means and sds of the log-parameters, (p,) each, where losses are about e^``level``."""
    if isinstance(law, EffectiveTokens):
        mean, sd = prior_for(law.inner, level)
        n = len(law.categories)
        return np.append(mean, np.full(n, _TRANSFER.mean)), np.append(sd, np.full(n, _TRANSFER.sd))
    if isinstance(law, RepeatedTokens):
        mean, sd = prior_for(law.inner, level)
        more = np.array([(one.mean, one.sd) for one in _REPEATED])
        return np.append(mean, more[:, 0]), np.append(sd, more[:, 1])
    if isinstance(law, FarseerPriorLaw):
        mean, sd = np.array([(one.mean, one.sd) for one in _FARSEER]).T
        return mean + level * np.isin(np.arange(len(mean)), (3, 6)), sd
    beliefs = [_belief(name, level) for name in law.log_names]
    return np.array([one.mean for one in beliefs]), np.array([one.sd for one in beliefs])


def _belief(name: str, level: float) -> Prior:
    if name in _PRIORS:
        return _PRIORS[name]
    about = _FLOOR if name == "ln E" else _TERM
    return Prior(level + about.mean, about.sd)
