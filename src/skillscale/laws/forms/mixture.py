"""Laws of N, D and the mix h. Parameters that belong to a category are named after it, as in ``t_code``.

Weights of categories that only count relative to one another (``t``, ``a``, ``b``) average 1; their log-parameters are
then told up to a constant, which a weak prior settles.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from skillscale.laws.forms.autodiff import Jet, exp, logsumexp
from skillscale.laws.forms.nd import Array, Chinchilla, Covariates, Law, Prior, dot, log_shares, shares_of

_BASE = ("E", "A", "B", "alpha", "beta")
_LOG_BASE = ("ln E", "ln A'", "ln B'", "alpha", "beta")
_PINS = {"E": (0, True), "alpha": (3, False), "beta": (4, False)}
_BEST = 24  # Chinchilla seeds that are tried with each guess at what the mix does


@dataclass(frozen=True)
class MixtureLaw(Law):
    """A law whose first five log-parameters are Chinchilla's, with more for the mix."""

    needs_mix: ClassVar[bool] = True

    @property
    def bounds(self) -> Mapping[str, tuple[float, float]]:
        """As Chinchilla's."""
        return {"alpha": (0.02, 2.0), "beta": (0.02, 2.0)}

    @property
    def priors(self) -> Mapping[int, Prior]:
        """Exponents of .35, give or take .2: mixtures are often run at two sizes, or at one number of tokens."""
        return {3: Prior(0.35, 0.2), 4: Prior(0.35, 0.2)}

    def seeds(self, z: Covariates, log_L: Array, weights: Array) -> Array:
        """Chinchilla's best seeds, with each of ``guesses``."""
        base = Chinchilla().seeds(z, log_L, weights)
        F = (weights * np.abs(log_L - Chinchilla().log_loss(base, Covariates(z.x, z.y)))).sum(1)
        best = base[np.argsort(F)[:_BEST]]
        return np.vstack([np.column_stack([best, np.tile(guess, (len(best), 1))]) for guess in self.guesses()])

    def guesses(self) -> Sequence[Array]:
        """Starting values of the log-parameters that follow Chinchilla's five."""
        raise NotImplementedError

    @property
    def pins(self) -> Mapping[str, tuple[int, bool]]:
        """E, alpha or beta."""
        return _PINS

    def _named(self, letter: str) -> tuple[str, ...]:
        return tuple(f"{letter}_{category}" for category in self.categories)

    @property
    def _base(self) -> Chinchilla:
        return Chinchilla(self.x0, self.y0)


@dataclass(frozen=True)
class EffectiveData(MixtureLaw):
    """L = E + A N^-alpha + B (D sum_k t_k h_k)^-beta, t >= 0: tokens of each category count t_k for the skill.

    ``t`` averages 1, so that B is the coefficient where all categories count alike.
    """

    name: ClassVar[str] = "effective_data"

    @property
    def parameters(self) -> tuple[str, ...]:
        """E, A, B, alpha, beta and t of each category."""
        return (*_BASE, *self._named("t"))

    @property
    def log_names(self) -> tuple[str, ...]:
        """Chinchilla's, then ln t up to a constant."""
        return (*_LOG_BASE, *self._named("ln t"))

    @property
    def priors(self) -> Mapping[int, Prior]:
        """Categories count alike within a factor of some 20."""
        return dict(super().priors) | {5 + k: Prior(0.0, 1.5) for k in range(len(self.categories))}

    def form(self, q: Sequence[Jet], z: Covariates) -> Jet:
        """Ln of the sum, with the effective share as a log-sum-exp."""
        e, a, b, alpha, beta, *tau = q
        return logsumexp(e, a - alpha * z.x, b - beta * (z.y + _log_share(tau, z.h)))

    def guesses(self) -> Sequence[Array]:
        """All alike, and each category far ahead of the others."""
        m = len(self.categories)
        return [np.zeros(m), *(2.0 * np.eye(m)[k] for k in range(m))]

    @property
    def shareable(self) -> Mapping[str, tuple[int, ...]]:
        """As other laws, and ``transfer``: all of t."""
        return {**super().shareable, "transfer": tuple(range(5, 5 + len(self.categories)))}

    def theta(self, q: Array) -> Array:
        """Natural parameters."""
        return np.column_stack([self._base.theta(q[:, :5]), _weights(q[:, 5:])])

    def log_parameters(self, theta: Array) -> Array:
        """Inverse of ``theta``, with ln t about its mean."""
        return np.column_stack([self._base.log_parameters(theta[:, :5]), _centred_log(theta[:, 5:])])


@dataclass(frozen=True)
class AdditiveMixture(MixtureLaw):
    """L = E + A N^-alpha + B D^-beta + 1 / sum_k C_k h_k^gamma_k (Shukor et al. 2025)."""

    name: ClassVar[str] = "additive_mixture"

    @property
    def parameters(self) -> tuple[str, ...]:
        """E, A, B, alpha, beta, then C and gamma of each category."""
        return (*_BASE, *self._named("C"), *self._named("gamma"))

    @property
    def log_names(self) -> tuple[str, ...]:
        """Chinchilla's, then ln C and ln gamma."""
        return (*_LOG_BASE, *self._named("ln C"), *self._named("ln gamma"))

    @property
    def priors(self) -> Mapping[int, Prior]:
        """A term of some tenths of a nat, exponents about .5 (published fits, widened)."""
        m = len(self.categories)
        terms = {5 + k: Prior(1.0, 2.0) for k in range(m)}
        return dict(super().priors) | terms | {5 + m + k: Prior(math.log(0.5), 0.7) for k in range(m)}

    def form(self, q: Sequence[Jet], z: Covariates) -> Jet:
        """Ln of the sum of four terms."""
        e, a, b, alpha, beta, *rest = q
        return logsumexp(e, a - alpha * z.x, b - beta * z.y, -_log_powers(rest, z.h))

    def guesses(self) -> Sequence[Array]:
        """All categories alike, and each ahead."""
        m = len(self.categories)
        gamma = np.full(m, math.log(0.5))
        return [np.r_[np.full(m, 0.5), gamma], *(np.r_[2.0 * np.eye(m)[k], gamma] for k in range(m))]

    def theta(self, q: Array) -> Array:
        """Natural parameters."""
        with np.errstate(over="ignore"):
            return np.column_stack([self._base.theta(q[:, :5]), np.exp(q[:, 5:])])

    def log_parameters(self, theta: Array) -> Array:
        """Inverse of ``theta``."""
        return np.column_stack([self._base.log_parameters(theta[:, :5]), np.log(theta[:, 5:])])


@dataclass(frozen=True)
class JointMixture(AdditiveMixture):
    """L = E + A (sum_k a_k h_k)^-r N^-alpha + B (sum_k b_k h_k)^-s D^-beta + 1 / sum_k C_k h_k^gamma_k.

    The joint law of Shukor et al. 2025: the mix moves the terms in N and in D as well. ``a`` and ``b`` average 1.
    """

    name: ClassVar[str] = "joint_mixture"

    @property
    def parameters(self) -> tuple[str, ...]:
        """The additive mixture's, then a, b of each category, r and s."""
        return (*super().parameters, *self._named("a"), *self._named("b"), "r", "s")

    @property
    def log_names(self) -> tuple[str, ...]:
        """The additive mixture's, then ln a, ln b up to a constant, r and s."""
        return (*super().log_names, *self._named("ln a"), *self._named("ln b"), "r", "s")

    @property
    def priors(self) -> Mapping[int, Prior]:
        """The additive mixture's; a and b as transfer; r and s of some tenths."""
        m = len(self.categories)
        first = 5 + 2 * m
        return (
            dict(super().priors)
            | {first + k: Prior(0.0, 1.5) for k in range(2 * m)}
            | {first + 2 * m: Prior(0.0, 0.3), first + 2 * m + 1: Prior(0.0, 0.3)}
        )

    def form(self, q: Sequence[Jet], z: Covariates) -> Jet:
        """Ln of the sum of four terms."""
        m = len(self.categories)
        e, a, b, alpha, beta, *rest = q
        of_N, of_D = _log_share(rest[2 * m : 3 * m], z.h), _log_share(rest[3 * m : 4 * m], z.h)
        r, s = rest[4 * m], rest[4 * m + 1]
        u = a - alpha * z.x - r * of_N
        v = b - beta * z.y - s * of_D
        return logsumexp(e, u, v, -_log_powers(rest[: 2 * m], z.h))

    def guesses(self) -> Sequence[Array]:
        """The additive mixture's, with terms that the mix moves a little either way."""
        m = len(self.categories)
        more = [np.r_[np.zeros(2 * m), r, s] for r, s in ((0.1, 0.1), (-0.1, 0.1))]
        return [np.r_[guess, extra] for guess in super().guesses() for extra in more]

    def theta(self, q: Array) -> Array:
        """Natural parameters."""
        m = len(self.categories)
        first = 5 + 2 * m
        shares = [_weights(q[:, first : first + m]), _weights(q[:, first + m : first + 2 * m])]
        return np.column_stack([super().theta(q[:, :first]), *shares, q[:, first + 2 * m :]])

    def log_parameters(self, theta: Array) -> Array:
        """Inverse of ``theta``."""
        m = len(self.categories)
        first = 5 + 2 * m
        logs = [_centred_log(theta[:, first : first + m]), _centred_log(theta[:, first + m : first + 2 * m])]
        return np.column_stack([super().log_parameters(theta[:, :first]), *logs, theta[:, first + 2 * m :]])


@dataclass(frozen=True)
class Separable(MixtureLaw):
    """L = (E + A e^(-alpha x) + B e^(-beta y e^(g x))) exp(sum_k s_k h_k) (m h_own)^-c, of m categories.

    The mix scales the whole loss. x and y are ln N and ln D about the centre of the data, where A and B are the two
    terms in nats per token (the drift g of the data exponent makes that centre part of the law, as in ``Drifting``).
    ``s`` sums to 0; the factor is 1 at equal shares.
    ``own``: the skill's own category, where it has one: more of it helps by a power. Of all forms tried on published
    mixtures it predicted larger runs best (docs/research/results.md). The compute optimum does not depend on the mix under it.
    """

    own: str = ""
    name: ClassVar[str] = "separable"

    @property
    def parameters(self) -> tuple[str, ...]:
        """E, A, B, alpha, beta, g, s of each category, and c where there is an own one."""
        return (*_BASE, "g", *self._named("s"), *(("c",) if self.own else ()))

    @property
    def log_names(self) -> tuple[str, ...]:
        """Logarithms of E, A and B, then the others as they are."""
        return ("ln E", "ln A", "ln B", "alpha", "beta", "g", *self._named("s"), *(("c",) if self.own else ()))

    @property
    def priors(self) -> Mapping[int, Prior]:
        """A drift of a tenth; a category alone moves the loss by a factor of some 2; own exponents of some tenths."""
        m = len(self.categories)
        tilts = {6 + k: Prior(0.0, 1.0) for k in range(m)}
        own = {6 + m: Prior(0.1, 0.3)} if self.own else {}
        return dict(super().priors) | {5: Prior(0.0, 0.1)} | tilts | own

    def for_skill(self, skill: str) -> Self:
        """The law of a skill, whose own category bears its name."""
        return replace(self, own=skill if skill in self.categories else "")

    def form(self, q: Sequence[Jet], z: Covariates) -> Jet:
        """Ln L of N and D, plus what the mix adds to it."""
        e, a, b, alpha, beta, g, *rest = q
        return logsumexp(e, a - alpha * z.x, b - beta * exp(g * z.x) * z.y) + self._of_mix(rest, z.h)

    def _of_mix(self, rest: Sequence[Jet], h: Any) -> Jet:
        m, h = len(self.categories), shares_of(h)
        tilt = dot(rest[:m], h - 1 / m)
        if not self.own:
            return tilt
        own: Jet = tilt - rest[m] * (log_shares(h[..., self.categories.index(self.own)]) + math.log(m))
        return own

    def guesses(self) -> Sequence[Array]:
        """No effect of the mix, and a little of the own category's; no drift."""
        m = len(self.categories)
        return [np.r_[0.0, np.zeros(m), c] for c in (0.0, 0.1)] if self.own else [np.zeros(1 + m)]

    @property
    def pins(self) -> Mapping[str, tuple[int, bool]]:
        """E, alpha, beta or g."""
        return _PINS | {"g": (5, False)}

    def theta(self, q: Array) -> Array:
        """Natural parameters; A and B at the centre, at equal shares."""
        tilt = q[:, 6 : 6 + len(self.categories)]
        with np.errstate(over="ignore"):
            base = np.exp(q[:, :3])
        return np.column_stack([base, q[:, 3:6], tilt - tilt.mean(1, keepdims=True), q[:, 6 + tilt.shape[1] :]])

    def log_parameters(self, theta: Array) -> Array:
        """Inverse of ``theta``."""
        with np.errstate(divide="ignore"):
            return np.column_stack([np.log(theta[:, :3]), theta[:, 3:]])


@dataclass(frozen=True)
class SeparableTransient(Separable):
    """L = (E + A e^(-alpha x) + B e^(-beta y e^(g x))) exp(sum_k s_k h_k) (m h_own)^-c exp(w e^(v x - r e^y)).

    ``Separable`` with early checkpoints above the curve of finished runs, for runs whose checkpoints are fitted too:
    before warm-up and the first decay of the learning rate are over, a loss is higher than its D says.
    """

    name: ClassVar[str] = "separable_transient"

    @property
    def parameters(self) -> tuple[str, ...]:
        """The separable law's, then w, r and v."""
        return (*super().parameters, "w", "r", "v")

    @property
    def log_names(self) -> tuple[str, ...]:
        """The separable law's, then ln w, ln r and v."""
        return (*super().log_names, "ln w", "ln r", "v")

    @property
    def priors(self) -> Mapping[int, Prior]:
        """A transient that is over by a third of the typical run; hardly any dependence on N (assumption)."""
        first = len(super().log_names)
        more = {first: Prior(0.0, 2.0), first + 1: Prior(2.0, 0.7), first + 2: Prior(0.0, 0.3)}
        return dict(super().priors) | more

    def form(self, q: Sequence[Jet], z: Covariates) -> Jet:
        """The separable law's ln L, plus the transient."""
        *rest, log_w, log_r, v = q
        rate = exp(log_r)
        tokens = exp(z.y) if isinstance(z.y, Jet) else np.exp(z.y)
        return super().form(rest, z) + exp(log_w + v * z.x - rate * tokens)

    def guesses(self) -> Sequence[Array]:
        """The separable law's, with a transient and next to none."""
        return [np.r_[guess, w, 2.0, 0.0] for guess in super().guesses() for w in (0.0, -4.0)]

    def theta(self, q: Array) -> Array:
        """Natural parameters."""
        with np.errstate(over="ignore"):
            return np.column_stack([super().theta(q[:, :-3]), np.exp(q[:, -3:-1]), q[:, -1]])

    def log_parameters(self, theta: Array) -> Array:
        """Inverse of ``theta``."""
        with np.errstate(divide="ignore"):
            return np.column_stack([super().log_parameters(theta[:, :-3]), np.log(theta[:, -3:-1]), theta[:, -1]])


def _log_share(logs: Sequence[Jet], h: Any) -> Jet:
    """Ln sum_k t_k h_k, with t = e^logs brought to an average of 1."""
    shares = log_shares(h)
    weighted = [one + shares[..., k] for k, one in enumerate(logs)]
    return logsumexp(*weighted) - logsumexp(*logs) + math.log(len(logs))


def _log_powers(rest: Sequence[Jet], h: Any) -> Jet:
    """Ln sum_k C_k h_k^gamma_k, from ln C of each category and then ln gamma of each."""
    m = len(rest) // 2
    shares = log_shares(h)
    return logsumexp(*(rest[k] + exp(rest[m + k]) * shares[..., k] for k in range(m)))


def _weights(logs: Array) -> Array:
    """Weights that average 1."""
    shifted = np.exp(logs - logs.max(1, keepdims=True))
    return np.asarray(shifted / shifted.mean(1, keepdims=True))


def _centred_log(shares: Array) -> Array:
    logs = np.log(np.maximum(shares, 1e-12))
    return np.asarray(logs - logs.mean(1, keepdims=True))
