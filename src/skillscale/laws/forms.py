"""The laws: L as a function of N and D, with first and second derivatives. A new law is one class here.

A law works on *log-parameters* q and centred logarithms x = ln N - x0, y = ln D - y0, where a fit is well conditioned, and
on a stack of K parameter vectors at once: that is how many starts, or a thousand resamples, are fitted together. Shapes:
``q`` (K, p); ``x``, ``y`` (n,); a law's values (K, n), Jacobian (K, n, p), second order (K, p, p).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# Exponents of the seeds, from nearly flat to steeper than any published law of language models (assumption, not tuned).
SEED_EXPONENTS = np.geomspace(0.03, 2.0, 20)
SEED_FLOOR = 1e-3  # a term that the linear step drives negative starts at this share of the loss


@dataclass(frozen=True)
class Law(ABC):
    """A law of the loss. Frozen and without data: one value serves every fit."""

    name: ClassVar[str]
    parameters: ClassVar[tuple[str, ...]]

    @abstractmethod
    def log_loss(self, q: Array, x: Array, y: Array) -> Array:
        """Ln L, (K, n)."""

    @abstractmethod
    def jacobian(self, q: Array, x: Array, y: Array) -> Array:
        """D ln L / d q, (K, n, p)."""

    @abstractmethod
    def second_order(self, q: Array, x: Array, y: Array, v: Array) -> Array:
        """sum_i v_i d2 ln L_i / dq dq', exact; ``v`` (K, n) -> (K, p, p)."""

    @abstractmethod
    def seeds(self, x: Array, y: Array, log_L: Array, weights: Array) -> Array:
        """Starting points (K, p) by variable projection: linear parameters solved on a grid of the others."""

    @abstractmethod
    def theta(self, q: Array, x0: float, y0: float) -> Array:
        """Natural parameters (K, p), in the order of ``parameters``, from log-parameters centred at x0, y0."""

    @abstractmethod
    def log_parameters(self, theta: Array, x0: float, y0: float) -> Array:
        """Inverse of ``theta``."""

    @abstractmethod
    def log_optimum(self, theta: Array, C: npt.ArrayLike) -> Array:
        """Ln N*(C), the N that minimises L under C = 6 N D; (K, n_C); NaN where there is none."""

    @abstractmethod
    def optimum_exponent(self, theta: Array) -> Array:
        """A of N* ~ C^a, (K,)."""

    def loss(self, theta: npt.ArrayLike, N: npt.ArrayLike, D: npt.ArrayLike) -> Array:
        """L in nats per token at N parameters and D tokens; ``theta`` (p,) or (K, p), ``N`` and ``D`` (n,)."""
        stack = np.atleast_2d(np.asarray(theta, dtype=float))
        x, y = (np.log(np.atleast_1d(np.asarray(z, dtype=float))) for z in (N, D))
        value = np.exp(self.log_loss(self.log_parameters(stack, 0.0, 0.0), x, y))
        return np.asarray(value if np.ndim(theta) == 2 else value[0])


@dataclass(frozen=True)
class Chinchilla(Law):
    """L = E + A N^-alpha + B D^-beta (Hoffmann et al. 2022, approach 3); q = (ln E, ln A', ln B', alpha, beta).

    A' = A exp(-alpha x0) and B' = B exp(-beta y0) are the two terms at the centre of the data. Ln L is a log-sum-exp of
    linear functions of q, so with p the terms' shares of L the derivatives are p and diag(p) - p p' times constants.
    """

    name: ClassVar[str] = "chinchilla"
    parameters: ClassVar[tuple[str, ...]] = ("E", "A", "B", "alpha", "beta")

    def log_loss(self, q: Array, x: Array, y: Array) -> Array:
        e, u, v = self._terms(q, x, y)
        top = np.maximum(np.maximum(u, v), e)
        return np.asarray(top + np.log(np.exp(e - top) + np.exp(u - top) + np.exp(v - top)))

    def jacobian(self, q: Array, x: Array, y: Array) -> Array:
        p_E, p_A, p_B = self._shares(q, x, y)
        return np.stack([p_E, p_A, p_B, -x * p_A, -y * p_B], axis=-1)

    def second_order(self, q: Array, x: Array, y: Array, v: Array) -> Array:
        p_E, p_A, p_B = self._shares(q, x, y)
        jac = np.stack([p_E, p_A, p_B, -x * p_A, -y * p_B], axis=-1)
        H = -np.swapaxes(jac, 1, 2) @ (v[..., None] * jac)
        H[:, 0, 0] += (v * p_E).sum(1)
        for term, exponent, share, z in ((1, 3, p_A, x), (2, 4, p_B, y)):
            weighted = v * share
            H[:, term, term] += weighted.sum(1)
            H[:, term, exponent] -= weighted @ z
            H[:, exponent, term] -= weighted @ z
            H[:, exponent, exponent] += weighted @ z**2
        return H

    def seeds(self, x: Array, y: Array, log_L: Array, weights: Array) -> Array:
        """For each (alpha, beta) the terms solve a weighted linear least squares of relative errors."""
        alpha, beta = (grid.ravel() for grid in np.meshgrid(SEED_EXPONENTS, SEED_EXPONENTS, indexing="ij"))
        bases = np.stack([np.ones((len(alpha), len(x))), np.exp(-np.outer(alpha, x)), np.exp(-np.outer(beta, y))], 2)
        relative = bases * np.exp(-log_L)[:, None]
        gram = np.swapaxes(relative, 1, 2) @ (weights[:, None] * relative)
        right = np.swapaxes(relative, 1, 2) @ weights
        ridge = 1e-10 * np.trace(gram, axis1=1, axis2=2)[:, None, None] * np.eye(3)
        terms = np.linalg.solve(gram + ridge, right[..., None])[..., 0]
        floor = SEED_FLOOR * np.exp(log_L.min())
        return np.column_stack([np.log(np.maximum(terms, floor)), alpha, beta])

    def theta(self, q: Array, x0: float, y0: float) -> Array:
        alpha, beta = q[:, 3], q[:, 4]
        # An exponent that runs away in one resample overflows A or B to inf, which is the honest value.
        with np.errstate(over="ignore"):
            E, A, B = np.exp(q[:, 0]), np.exp(q[:, 1] + alpha * x0), np.exp(q[:, 2] + beta * y0)
        return np.column_stack([E, A, B, alpha, beta])

    def log_parameters(self, theta: Array, x0: float, y0: float) -> Array:
        with np.errstate(divide="ignore"):  # E = 0 is a law too
            E, A, B = np.log(theta[:, :3]).T
        alpha, beta = theta[:, 3], theta[:, 4]
        return np.column_stack([E, A - alpha * x0, B - beta * y0, alpha, beta])

    def log_optimum(self, theta: Array, C: npt.ArrayLike) -> Array:
        """N* = G (C/6)^(beta/(alpha+beta)), G = (alpha A / (beta B))^(1/(alpha+beta)) (Hoffmann et al. 2022, eq. 4)."""
        _, A, B, alpha, beta = (column[:, None] for column in np.atleast_2d(theta).T)
        usable = (alpha > 0) & (beta > 0) & (A > 0) & (B > 0) & np.isfinite(A) & np.isfinite(B)
        with np.errstate(all="ignore"):  # the unusable rows are NaN below
            log_G = (np.log(alpha) + np.log(A) - np.log(beta) - np.log(B)) / (alpha + beta)
            log_N = log_G + beta / (alpha + beta) * np.log(np.atleast_1d(np.asarray(C, dtype=float)) / 6)
        return np.where(usable, log_N, np.nan)

    def optimum_exponent(self, theta: Array) -> Array:
        alpha, beta = np.atleast_2d(theta)[:, 3:].T
        total = alpha + beta
        return np.where((alpha > 0) & (beta > 0), beta / np.where(total == 0, 1.0, total), np.nan)

    @staticmethod
    def _terms(q: Array, x: Array, y: Array) -> tuple[Array, Array, Array]:
        return q[:, :1], q[:, 1:2] - q[:, 3:4] * x, q[:, 2:3] - q[:, 4:5] * y

    def _shares(self, q: Array, x: Array, y: Array) -> tuple[Array, Array, Array]:
        log_L = self.log_loss(q, x, y)
        e, u, v = self._terms(q, x, y)
        return np.exp(e - log_L), np.exp(u - log_L), np.exp(v - log_L)


CHINCHILLA = Chinchilla()
LAWS: dict[str, Law] = {CHINCHILLA.name: CHINCHILLA}
