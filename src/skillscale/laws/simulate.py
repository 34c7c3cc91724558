"""Simulated studies: a truth for each skill, a grid of runs, and noise of the kinds that real runs share.

Used by the tests, the benchmarks and the report's demo. The default scale is that of the main study: optima near 6e4
parameters, 2 to 4 nats per token, noise below 1 %.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize_scalar

from skillscale.laws.forms import Array


@dataclass(frozen=True, kw_only=True)
class Truth:
    """L = E + (e^(u/k) + e^(v/k))^k, u = ln A - alpha x, v = ln B - beta e^(g x) y, x = ln N/N0, y = ln D/D0.

    k = 1, g = 0 is Chinchilla; k < 1 couples the two terms, g lets the data exponent drift with N. ``A`` and ``B`` are
    the terms at (N0, D0), in nats per token.
    """

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    N0: float = field(metadata={"unit": "parameters"})
    D0: float = field(metadata={"unit": "tokens"})
    k: float = 1.0
    g: float = 0.0

    @classmethod
    def at_optimum(
        cls,
        *,
        N: float,
        C: float,
        L: float,
        reducible: float,
        alpha: float,
        beta: float,
        k: float = 1.0,
        g: float = 0.0,
    ) -> "Truth":
        """The truth whose optimum at budget C is N, where the loss is L and ``reducible`` the share above E."""
        total = (reducible * L) ** (1 / k)
        A, B = (beta / (alpha + beta) * total) ** k, (alpha / (alpha + beta) * total) ** k
        return cls(E=(1 - reducible) * L, A=A, B=B, alpha=alpha, beta=beta, N0=N, D0=C / (6 * N), k=k, g=g)

    def loss(self, N: npt.ArrayLike, D: npt.ArrayLike) -> Array:
        """L in nats per token."""
        x, y = np.log(np.asarray(N, dtype=float) / self.N0), np.log(np.asarray(D, dtype=float) / self.D0)
        u, v = math.log(self.A) - self.alpha * x, math.log(self.B) - self.beta * np.exp(self.g * x) * y
        return np.asarray(self.E + (np.exp(u / self.k) + np.exp(v / self.k)) ** self.k)

    def optimum(self, C: float) -> float:
        """N*(C), by search within a factor 10^4 of N0."""
        ln_N0 = math.log(self.N0)
        found = minimize_scalar(
            lambda ln_N: float(self.loss(math.exp(ln_N), C / (6 * math.exp(ln_N)))),
            bounds=(ln_N0 - 9.2, ln_N0 + 9.2), method="bounded", options={"xatol": 1e-9},
        )  # fmt: skip
        return math.exp(found.x)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Runs of a study: ``sizes`` over +-``span`` about ``coefficient`` C^``exponent`` at each budget, ``seeds`` of each."""

    budgets: tuple[float, ...] = (5e10, 1.6e11, 5e11)
    sizes: int = 7
    span: float = 8.0
    seeds: int = 2
    coefficient: float = 0.1
    exponent: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Errors of ln L. ``run``: sd of a run, of whose variance ``shared`` is common to all skills; ``seed_level`` and
    ``seed_tilt``: sd of what a seed's token stream adds to all sizes, and per unit of ln N / budget centre, common to all
    skills; ``small``: the run sd grows as (N / centre)^-small.
    """

    run: float = 0.004
    shared: float = 0.5
    seed_level: float = 0.003
    seed_tilt: float = 0.0
    small: float = 0.0


def simulate_study(
    truths: Mapping[str, Truth], rng: np.random.Generator, *, grid: Grid | None = None, noise: Noise | None = None,
    mix: str = "all=1",
) -> pd.DataFrame:  # fmt: skip
    """Runs of a study, one row each: run_id, C, N, D, mix, seed, and a loss column a truth."""
    grid, noise = grid or Grid(), noise or Noise()
    rows, size_step = [], np.linspace(-math.log(grid.span), math.log(grid.span), grid.sizes)
    streams = rng.normal(size=(grid.seeds, 2))
    for C in grid.budgets:
        centre = grid.coefficient * C**grid.exponent
        for seed, (level, tilt) in enumerate(streams):
            for x in size_step:
                N = float(round(centre * math.exp(x)))
                common = noise.seed_level * level + noise.seed_tilt * tilt * x
                sd = noise.run * math.exp(-noise.small * x)
                own = rng.normal(size=len(truths)) * math.sqrt(1 - noise.shared) + rng.normal() * math.sqrt(
                    noise.shared
                )
                D = C / (6 * N)
                losses = {
                    skill: float(truth.loss(N, D)) * math.exp(common + sd * error)
                    for (skill, truth), error in zip(truths.items(), own, strict=True)
                }
                rows.append(
                    {"run_id": f"run-{len(rows):03d}", "C": C, "N": N, "D": D, "mix": mix, "seed": seed} | losses
                )
    return pd.DataFrame(rows)


def random_truth(
    rng: np.random.Generator, *, kind: str = "chinchilla", C: float = 1.6e11, off_centre: float = 1.6
) -> Truth:
    """A truth at the scale of the main study.

    Args:
        rng: the source of chance.
        kind: ``chinchilla`` (k = 1, g = 0) or ``drifting`` (k from .5 to 1, g from -.05 to .05).
        C: the budget at which the optimum is placed.
        off_centre: the optimum lies within this factor of the default grid's centre (about 4e4 at the middle budget).
    """
    drifting = kind == "drifting"
    return Truth.at_optimum(
        N=0.1 * math.sqrt(C) * off_centre ** rng.uniform(-1, 1),
        C=C,
        L=rng.uniform(2, 4),
        reducible=rng.uniform(0.25, 0.65),
        alpha=rng.uniform(0.25, 0.6),
        beta=rng.uniform(0.25, 0.6),
        k=rng.uniform(0.5, 1) if drifting else 1.0,
        g=rng.uniform(-0.05, 0.05) if drifting else 0.0,
    )


def demo_study(seed: int = 0, *, noise: Noise | None = None) -> tuple[pd.DataFrame, dict[str, Truth]]:
    """A study with a capacity-hungry, a data-hungry and an average skill, and its truths; columns end with ``aggregate``."""
    at = {"C": 1.6e11, "reducible": 0.5}
    truths = {
        "knowledge": Truth.at_optimum(N=5.6e4, L=3.6, alpha=0.42, beta=0.36, **at),
        "code": Truth.at_optimum(N=3.0e4, L=2.4, alpha=0.38, beta=0.40, **at),
        "prose": Truth.at_optimum(N=4.1e4, L=3.1, alpha=0.40, beta=0.38, **at),
        "aggregate": Truth.at_optimum(N=4.1e4, L=3.0, alpha=0.40, beta=0.38, **at),
    }
    return simulate_study(truths, np.random.default_rng(seed), noise=noise), truths
