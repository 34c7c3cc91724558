"""A known truth: what designs are tried on, and what their estimates are compared with."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from skillscale.design.targets import Quantity, Target
from skillscale.laws.forms.nd import Array

LossTable = Mapping[str, Array]  # by skill, (n,)


class Truth(Protocol):
    """Skills whose losses are known without noise, and runs that measure them with noise.

    Losses are ln L in nats per token. Shares ``h`` are (n, n_categories), or None where the mix plays no part.
    """

    @property
    def skills(self) -> tuple[str, ...]:
        """Names of the skills."""

    @property
    def why_unknown(self) -> str:
        """The reason why no optimum is known, with its cure; empty where they are known."""

    def measure(self, N: Array, D: Array, h: Array | None, rng: np.random.Generator) -> tuple[LossTable, LossTable]:
        """Return measured ln L and standard errors (0 where unknown) of each skill, (n,), of one run each."""

    def log_loss(self, skill: str, N: Array, D: Array, h: Array | None) -> Array:
        """Return ln L without noise, (n,)."""

    def log_optimum(self, skill: str, C: float, h: Array | None = None) -> float:
        """Return ln N* at C for one mix, shares (n_categories,); NaN where it is unknown."""


def true_value(truth: Truth, target: Target) -> float:
    """Return the exact value of a target, NaN where it is unknown."""
    h = np.array(target.h) if target.h else None
    log_N = truth.log_optimum(target.skill, target.C, h)
    if target.quantity is Quantity.DIFFERENCE:
        return log_N - truth.log_optimum(target.other, target.C, h)
    if target.quantity is Quantity.LOSS and np.isfinite(log_N):
        N = np.exp([log_N])
        return float(truth.log_loss(target.skill, N, target.C / (6 * N), None if h is None else h[None])[0])
    return log_N
