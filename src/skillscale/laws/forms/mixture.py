"""Laws of N, D and the data mix h. Parameters of a category carry its name, as in ``t_code``.

The category weights ``t``, ``a`` and ``b`` matter only relative to one another, so they average 1. Their log-parameters
have a free common constant, which a weak prior fixes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from skillscale.laws.forms.autodiff import Jet, exp, logsumexp
from skillscale.laws.forms.nd import Array, Chinchilla, Covariates, Law, Prior, dot, log_shares, require_shares

_BASE = ("E", "A", "B", "alpha", "beta")
_LOG_BASE = ("ln E", "ln A'", "ln B'", "alpha", "beta")
_FIXABLE = {"E": (0, True), "alpha": (3, False), "beta": (4, False)}
_BEST_SEEDS = 24  # number of Chinchilla seeds combined with each guess of the mix effect


@dataclass(frozen=True)
class MixtureLaw(Law):
    """A law whose first five log-parameters are Chinchilla's, followed by those of the mix."""

    needs_mix: ClassVar[bool] = True

    @property
    def bounds(self) -> Mapping[str, tuple[float, float]]:
        """Bounds of the exponents, as in ``Chinchilla``."""
        return {"alpha": (0.02, 2.0), "beta": (0.02, 2.0)}

    @property
    def priors(self) -> Mapping[int, Prior]:
        """Priors of the exponents: 0.35 ± 0.2. Mix studies often have two sizes, or one token count."""
        return {3: Prior(0.35, 0.2), 4: Prior(0.35, 0.2)}

    def seeds(self, z: Covariates, log_L: Array, weights: Array) -> Array:
        """Return Chinchilla's best seeds combined with each of ``guesses``."""
        base = Chinchilla().seeds(z, log_L, weights)
        F = (weights * np.abs(log_L - Chinchilla().log_loss(base, Covariates(z.x, z.y)))).sum(1)
        best = base[np.argsort(F)[:_BEST_SEEDS]]
        return np.vstack([np.column_stack([best, np.tile(guess, (len(best), 1))]) for guess in self.guesses()])

    def guesses(self) -> Sequence[Array]:
        """Return starting values of the log-parameters that follow Chinchilla's five."""
        raise NotImplementedError

    @property
    def fixable(self) -> Mapping[str, tuple[int, bool]]:
        """E, alpha and beta."""
        return _FIXABLE

    def _per_category(self, letter: str) -> tuple[str, ...]:
        return tuple(f"{letter}_{category}" for category in self.categories)

    @property
    def _base(self) -> Chinchilla:
        return Chinchilla(self.x0, self.y0)


@dataclass(frozen=True)
class EffectiveData(MixtureLaw):
    """L = E + A N^-alpha + B (D sum_k t_k h_k)^-beta, t >= 0 (Chinchilla with effective tokens).

    Source: our form. A token of category k counts t_k for the skill. ``t`` averages 1, so B is the coefficient where
    all categories count the same.
    """

    name: ClassVar[str] = "effective_data"

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of E, A, B, alpha, beta, then t of each category."""
        return (*_BASE, *self._per_category("t"))

    @property
    def log_names(self) -> tuple[str, ...]:
        """Chinchilla's names, then ln t of each category up to a constant."""
        return (*_LOG_BASE, *self._per_category("ln t"))

    @property
    def priors(self) -> Mapping[int, Prior]:
        """Priors as in ``MixtureLaw``; categories count the same within a factor of about 20."""
        return dict(super().priors) | {5 + k: Prior(0.0, 1.5) for k in range(len(self.categories))}

    def form(self, q: Sequence[Jet], z: Covariates) -> Jet:
        """Return ln of the sum, with the effective share as a log-sum-exp."""
        e, a, b, alpha, beta, *tau = q
        return logsumexp(e, a - alpha * z.x, b - beta * (z.y + _log_share(tau, z.h)))

    def guesses(self) -> Sequence[Array]:
        """Return equal weights, and each category far ahead of the others."""
        m = len(self.categories)
        return [np.zeros(m), *(2.0 * np.eye(m)[k] for k in range(m))]

    @property
    def tieable(self) -> Mapping[str, tuple[int, ...]]:
        """The groups of other laws, and ``transfer``: all of t."""
        return {**super().tieable, "transfer": tuple(range(5, 5 + len(self.categories)))}

    def theta(self, q: Array) -> Array:
        """Return natural parameters."""
        return np.column_stack([self._base.theta(q[:, :5]), _mean_one(q[:, 5:])])

    def log_parameters(self, theta: Array) -> Array:
        """Return log-parameters, the inverse of ``theta``; ln t has mean 0."""
        return np.column_stack([self._base.log_parameters(theta[:, :5]), _centred_log(theta[:, 5:])])


@dataclass(frozen=True)
class AdditiveMixture(MixtureLaw):
    """L = E + A N^-alpha + B D^-beta + 1 / sum_k C_k h_k^gamma_k (additive law of Shukor et al. 2025)."""

    name: ClassVar[str] = "additive_mixture"

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of E, A, B, alpha, beta, then C and gamma of each category."""
        return (*_BASE, *self._per_category("C"), *self._per_category("gamma"))

    @property
    def log_names(self) -> tuple[str, ...]:
        """Chinchilla's names, then ln C and ln gamma of each category."""
        return (*_LOG_BASE, *self._per_category("ln C"), *self._per_category("ln gamma"))

    @property
    def priors(self) -> Mapping[int, Prior]:
        """Priors: a mix term of some tenths of a nat, gamma about 0.5 (published fits, widened)."""
        m = len(self.categories)
        terms = {5 + k: Prior(1.0, 2.0) for k in range(m)}
        return dict(super().priors) | terms | {5 + m + k: Prior(math.log(0.5), 0.7) for k in range(m)}

    def form(self, q: Sequence[Jet], z: Covariates) -> Jet:
        """Return ln of the sum of four terms."""
        e, a, b, alpha, beta, *rest = q
        return logsumexp(e, a - alpha * z.x, b - beta * z.y, -_log_power_sum(rest, z.h))

    def guesses(self) -> Sequence[Array]:
        """Return equal C for all categories, and each category ahead of the others."""
        m = len(self.categories)
        gamma = np.full(m, math.log(0.5))
        return [np.r_[np.full(m, 0.5), gamma], *(np.r_[2.0 * np.eye(m)[k], gamma] for k in range(m))]

    def theta(self, q: Array) -> Array:
        """Return natural parameters."""
        with np.errstate(over="ignore"):
            return np.column_stack([self._base.theta(q[:, :5]), np.exp(q[:, 5:])])

    def log_parameters(self, theta: Array) -> Array:
        """Return log-parameters, the inverse of ``theta``."""
        return np.column_stack([self._base.log_parameters(theta[:, :5]), np.log(theta[:, 5:])])


@dataclass(frozen=True)
class JointMixture(AdditiveMixture):
    """L = E + A (sum_k a_k h_k)^-r N^-alpha + B (sum_k b_k h_k)^-s D^-beta + 1 / sum_k C_k h_k^gamma_k.

    The joint law of Shukor et al. 2025: the mix also scales the terms in N and D. ``a`` and ``b`` average 1.
    """

    name: ClassVar[str] = "joint_mixture"

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the additive mixture's parameters, then a and b of each category, r and s."""
        return (*super().parameters, *self._per_category("a"), *self._per_category("b"), "r", "s")

    @property
    def log_names(self) -> tuple[str, ...]:
        """The additive mixture's names, then ln a and ln b up to a constant, r and s."""
        return (*super().log_names, *self._per_category("ln a"), *self._per_category("ln b"), "r", "s")

    @property
    def priors(self) -> Mapping[int, Prior]:
        """Priors of the additive mixture; a and b as t in ``EffectiveData``; r and s of some tenths."""
        m = len(self.categories)
        first = 5 + 2 * m
        return (
            dict(super().priors)
            | {first + k: Prior(0.0, 1.5) for k in range(2 * m)}
            | {first + 2 * m: Prior(0.0, 0.3), first + 2 * m + 1: Prior(0.0, 0.3)}
        )

    def form(self, q: Sequence[Jet], z: Covariates) -> Jet:
        """Return ln of the sum of four terms."""
        m = len(self.categories)
        e, a, b, alpha, beta, *rest = q
        log_weight_N, log_weight_D = _log_share(rest[2 * m : 3 * m], z.h), _log_share(rest[3 * m : 4 * m], z.h)
        r, s = rest[4 * m], rest[4 * m + 1]
        u = a - alpha * z.x - r * log_weight_N
        v = b - beta * z.y - s * log_weight_D
        return logsumexp(e, u, v, -_log_power_sum(rest[: 2 * m], z.h))

    def guesses(self) -> Sequence[Array]:
        """Return the additive mixture's guesses with small positive and negative r."""
        m = len(self.categories)
        more = [np.r_[np.zeros(2 * m), r, s] for r, s in ((0.1, 0.1), (-0.1, 0.1))]
        return [np.r_[guess, extra] for guess in super().guesses() for extra in more]

    def theta(self, q: Array) -> Array:
        """Return natural parameters."""
        m = len(self.categories)
        first = 5 + 2 * m
        shares = [_mean_one(q[:, first : first + m]), _mean_one(q[:, first + m : first + 2 * m])]
        return np.column_stack([super().theta(q[:, :first]), *shares, q[:, first + 2 * m :]])

    def log_parameters(self, theta: Array) -> Array:
        """Return log-parameters, the inverse of ``theta``."""
        m = len(self.categories)
        first = 5 + 2 * m
        logs = [_centred_log(theta[:, first : first + m]), _centred_log(theta[:, first + m : first + 2 * m])]
        return np.column_stack([super().log_parameters(theta[:, :first]), *logs, theta[:, first + 2 * m :]])


@dataclass(frozen=True)
class Separable(MixtureLaw):
    """L = (E + A e^(-alpha x) + B e^(-beta y e^(g x))) exp(sum_k s_k h_k) (m h_own)^-c, of m categories.

    Source: our form. The mix scales the whole loss. x and y are ln N and ln D about the centre of the data, where A and
    B are the two terms in nats per token. The drift g of the data exponent makes that centre part of the law, as in
    ``Drifting``. ``s`` sums to 0, and the factor is 1 at equal shares.

    ``skill_category``: the category with the skill's name, if there is one. More of it lowers the loss by a power law
    (h_own and c in the formula). Of all forms tried on published mixtures this one predicted larger runs best
    (docs/research/results.md). Its compute optimum does not depend on the mix.
    """

    skill_category: str = ""
    name: ClassVar[str] = "separable"

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of E, A, B, alpha, beta, g, s of each category, and c if there is a skill category."""
        return (*_BASE, "g", *self._per_category("s"), *(("c",) if self.skill_category else ()))

    @property
    def log_names(self) -> tuple[str, ...]:
        """Names of the log-parameters: logarithms of E, A and B, the others as they are."""
        names = ("ln E", "ln A", "ln B", "alpha", "beta", "g", *self._per_category("s"))
        return (*names, "c") if self.skill_category else names

    @property
    def priors(self) -> Mapping[int, Prior]:
        """Priors: g of a tenth, one category alone changes the loss by a factor of about 2, c of some tenths."""
        m = len(self.categories)
        tilts = {6 + k: Prior(0.0, 1.0) for k in range(m)}
        exponent = {6 + m: Prior(0.1, 0.3)} if self.skill_category else {}
        return dict(super().priors) | {5: Prior(0.0, 0.1)} | tilts | exponent

    def for_skill(self, skill: str) -> Self:
        """Return the law of one skill, whose ``skill_category`` is the category of the same name."""
        return replace(self, skill_category=skill if skill in self.categories else "")

    def form(self, q: Sequence[Jet], z: Covariates) -> Jet:
        """Return ln L of N and D plus the effect of the mix."""
        e, a, b, alpha, beta, g, *rest = q
        return logsumexp(e, a - alpha * z.x, b - beta * exp(g * z.x) * z.y) + self._mix_effect(rest, z.h)

    def _mix_effect(self, rest: Sequence[Jet], h: Any) -> Jet:
        m, h = len(self.categories), require_shares(h)
        tilt = dot(rest[:m], h - 1 / m)
        if not self.skill_category:
            return tilt
        effect: Jet = tilt - rest[m] * (log_shares(h[..., self.categories.index(self.skill_category)]) + math.log(m))
        return effect

    def guesses(self) -> Sequence[Array]:
        """Return no drift and no effect of the mix, and a small c where there is a skill category."""
        m = len(self.categories)
        return [np.r_[0.0, np.zeros(m), c] for c in (0.0, 0.1)] if self.skill_category else [np.zeros(1 + m)]

    @property
    def fixable(self) -> Mapping[str, tuple[int, bool]]:
        """E, alpha, beta and g."""
        return _FIXABLE | {"g": (5, False)}

    def theta(self, q: Array) -> Array:
        """Return natural parameters; A and B at the centre, at equal shares."""
        tilt = q[:, 6 : 6 + len(self.categories)]
        with np.errstate(over="ignore"):
            base = np.exp(q[:, :3])
        return np.column_stack([base, q[:, 3:6], tilt - tilt.mean(1, keepdims=True), q[:, 6 + tilt.shape[1] :]])

    def log_parameters(self, theta: Array) -> Array:
        """Return log-parameters, the inverse of ``theta``."""
        with np.errstate(divide="ignore"):
            return np.column_stack([np.log(theta[:, :3]), theta[:, 3:]])


@dataclass(frozen=True)
class SeparableTransient(Separable):
    """L = (E + A e^(-alpha x) + B e^(-beta y e^(g x))) exp(sum_k s_k h_k) (m h_own)^-c exp(w e^(v x - r e^y)).

    Source: our form. ``Separable`` for fits that include checkpoints. Before the end of warm-up and the first
    learning-rate decay, a loss lies above the curve of finished runs. The last factor describes that excess.
    """

    name: ClassVar[str] = "separable_transient"

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the separable law's parameters, then w, r and v."""
        return (*super().parameters, "w", "r", "v")

    @property
    def log_names(self) -> tuple[str, ...]:
        """The separable law's names, then ln w, ln r and v."""
        return (*super().log_names, "ln w", "ln r", "v")

    @property
    def priors(self) -> Mapping[int, Prior]:
        """Priors: a transient that ends by a third of the typical run, and hardly depends on N (assumption)."""
        first = len(super().log_names)
        more = {first: Prior(0.0, 2.0), first + 1: Prior(2.0, 0.7), first + 2: Prior(0.0, 0.3)}
        return dict(super().priors) | more

    def form(self, q: Sequence[Jet], z: Covariates) -> Jet:
        """Return the separable law's ln L plus the transient."""
        *rest, log_w, log_r, v = q
        rate = exp(log_r)
        tokens = exp(z.y) if isinstance(z.y, Jet) else np.exp(z.y)
        return super().form(rest, z) + exp(log_w + v * z.x - rate * tokens)

    def guesses(self) -> Sequence[Array]:
        """Return the separable law's guesses with a transient and with almost none."""
        return [np.r_[guess, w, 2.0, 0.0] for guess in super().guesses() for w in (0.0, -4.0)]

    def theta(self, q: Array) -> Array:
        """Return natural parameters."""
        with np.errstate(over="ignore"):
            return np.column_stack([super().theta(q[:, :-3]), np.exp(q[:, -3:-1]), q[:, -1]])

    def log_parameters(self, theta: Array) -> Array:
        """Return log-parameters, the inverse of ``theta``."""
        with np.errstate(divide="ignore"):
            return np.column_stack([super().log_parameters(theta[:, :-3]), np.log(theta[:, -3:-1]), theta[:, -1]])


def _log_share(logs: Sequence[Jet], h: Any) -> Jet:
    """Return ln sum_k t_k h_k, where t = e^logs is scaled to average 1."""
    shares = log_shares(h)
    weighted = [log_weight + shares[..., k] for k, log_weight in enumerate(logs)]
    return logsumexp(*weighted) - logsumexp(*logs) + math.log(len(logs))


def _log_power_sum(rest: Sequence[Jet], h: Any) -> Jet:
    """Return ln sum_k C_k h_k^gamma_k, given ln C of each category, then ln gamma of each."""
    m = len(rest) // 2
    shares = log_shares(h)
    return logsumexp(*(rest[k] + exp(rest[m + k]) * shares[..., k] for k in range(m)))


def _mean_one(logs: Array) -> Array:
    """Return weights that average 1."""
    shifted = np.exp(logs - logs.max(1, keepdims=True))
    return np.asarray(shifted / shifted.mean(1, keepdims=True))


def _centred_log(shares: Array) -> Array:
    logs = np.log(np.maximum(shares, 1e-12))
    return np.asarray(logs - logs.mean(1, keepdims=True))
