"""Capacity competition: one law for all categories, which compete for the parameters of the model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from skillscale.errors import InputError
from skillscale.laws.forms.autodiff import Jet, as_jet, exp, logsumexp
from skillscale.laws.forms.nd import Array, Covariates, Law, Prior, log_shares

_NEWTON = 60  # most Newton steps for the split of N, whose equation is convex


@dataclass(frozen=True)
class CapacityCompetition(Law):
    """L_i = E_i + c_i x_i(h)^-b_i + A_i (D h_i)^-a_i, where categories compete for N (Dai & Zheng 2026).

    The split x(h) of N minimises sum_i h_i c_i x_i^-b_i. Every skill is a category, and all skills share c and b, so
    the law is fitted to all skills at once. ``skill_category``: the category whose loss this law returns.
    """

    skill_category: str = ""
    name: ClassVar[str] = "capacity_competition"
    needs_mix: ClassVar[bool] = True
    joint: ClassVar[bool] = True

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of E, c, b, A and a of each category."""
        return tuple(f"{letter}_{category}" for letter in "EcbAa" for category in self.categories)

    @property
    def log_names(self) -> tuple[str, ...]:
        """Names of ln E, ln c', ln b, ln A' and ln a of each category.

        c' and A' are the terms at the centre of the data, at equal shares.
        """
        return tuple(
            f"{letter}_{category}"
            for letter in ("ln E", "ln c'", "ln b", "ln A'", "ln a")
            for category in self.categories
        )

    def for_skill(self, skill: str) -> Self:
        """Return the law of one skill's loss.

        Raises:
            InputError: the skill is not a category.
        """
        if skill not in self.categories:
            raise InputError(
                f"{self.name} predicts the loss of mix categories, but {skill} is none of "
                f"{', '.join(self.categories)}. Drop the skill or choose another law."
            )
        return replace(self, skill_category=skill)

    def form(self, q: Sequence[Jet], z: Covariates) -> Jet:
        """Return ln L of ``skill_category``."""
        m = len(self.categories)
        i = self.categories.index(self.skill_category)
        e, c, log_b, A, log_a = (q[k * m : (k + 1) * m] for k in range(5))
        b = [exp(log_exponent) for log_exponent in log_b]
        log_h = log_shares(z.h)
        log_capacity = self._split_capacity(c, b, log_b, log_h, z.x)[i]
        data = z.y + log_h[..., i] + math.log(m)
        return logsumexp(e[i], c[i] - b[i] * (log_capacity + math.log(m)), A[i] - exp(log_a[i]) * data)

    def _split_capacity(
        self, c: Sequence[Jet], b: Sequence[Jet], log_b: Sequence[Jet], log_h: Any, x: "Array | Jet"
    ) -> list[Jet]:
        """Return ln of each category's part of N: h_i c_i b_i x_i^-(b_i + 1) is equal for all, and the parts sum to N.

        Newton steps find the multiplier. Where derivatives are needed, two more steps on jets give exact second
        derivatives.
        """
        slope = [exp(-_log1p_exp(log_exponent)) for log_exponent in log_b]
        level = [log_h[..., i] + c[i] + log_b[i] - b[i] * math.log(len(b)) for i in range(len(b))]
        target = as_jet(x)
        mu = Jet(_multiplier([rate.value for rate in slope], [top.value for top in level], target.value))
        for _ in range(2 if any(jet.jac is not None for jet in (*slope, *level, target)) else 0):
            mu = mu + _split_step(slope, level, target, mu)
        return [rate * (top - mu) for rate, top in zip(slope, level, strict=True)]

    def seeds(self, z: Covariates, log_L: Array, weights: Array) -> Array:
        """Return starts where every category has the same power laws in its share."""
        del z, weights
        m = len(self.categories)
        level = float(np.median(log_L))
        return np.array(
            [
                np.repeat(
                    [level + math.log(0.6), level + math.log(0.2), math.log(b), level + math.log(0.2), math.log(a)], m
                )
                for b in (0.2, 0.4, 0.7)
                for a in (0.2, 0.4, 0.7)
            ]
        )

    @property
    def priors(self) -> Mapping[int, Prior]:
        """Priors of the exponents b and a: 0.35 within a factor of 2 (assumption)."""
        m = len(self.categories)
        return {k * m + i: Prior(math.log(0.35), 0.7) for k in (2, 4) for i in range(m)}

    def theta(self, q: Array) -> Array:
        """Return the natural parameters: c for x in parameters, A for tokens of the category."""
        m = len(self.categories)
        e, c, log_b, A, log_a = (q[:, k * m : (k + 1) * m] for k in range(5))
        b, a = np.exp(log_b), np.exp(log_a)
        with np.errstate(over="ignore"):
            c_raw = np.exp(c + b * (self.x0 - math.log(m)))
            A_raw = np.exp(A + a * (self.y0 - math.log(m)))
            return np.column_stack([np.exp(e), c_raw, b, A_raw, a])

    def log_parameters(self, theta: Array) -> Array:
        """Return log-parameters, the inverse of ``theta``."""
        m = len(self.categories)
        E, c, b, A, a = (theta[:, k * m : (k + 1) * m] for k in range(5))
        with np.errstate(divide="ignore"):
            centred_c = np.log(c) - b * (self.x0 - math.log(m))
            centred_A = np.log(A) - a * (self.y0 - math.log(m))
            return np.column_stack([np.log(E), centred_c, np.log(b), centred_A, np.log(a)])


def _multiplier(slope: Sequence[Array], level: Sequence[Array], target: Array) -> Array:
    """Return the mu that solves ln sum_i exp(slope_i (level_i - mu)) = target.

    The first guess gives all parameters to the largest part and is too low. Newton steps climb from there on a convex
    curve.
    """
    rates, tops = np.stack(np.broadcast_arrays(*slope)), np.stack(np.broadcast_arrays(*level))
    mu = (tops - target / rates).max(0)
    for _ in range(_NEWTON):
        parts = rates * (tops - mu)
        peak = parts.max(0)
        shares = np.exp(parts - peak)
        total = shares.sum(0)
        step = (peak + np.log(total) - target) * total / (shares * rates).sum(0)
        mu = mu + step
        if np.abs(step).max() < 1e-13:
            break
    return np.asarray(mu)


def _split_step(slope: Sequence[Jet], level: Sequence[Jet], target: Jet, mu: Jet) -> Jet:
    """Return one Newton step of mu towards sum_i x_i(mu) = N, with ln x_i = slope_i (level_i - mu)."""
    parts = [rate * (top - mu) for rate, top in zip(slope, level, strict=True)]
    total = logsumexp(*parts)
    fall = parts[0] - total
    pull = exp(fall) * slope[0]
    for part, rate in zip(parts[1:], slope[1:], strict=True):
        pull = pull + exp(part - total) * rate
    return (total - target) / pull


def _log1p_exp(a: Jet) -> Jet:
    return logsumexp(0.0, a)
