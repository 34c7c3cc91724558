"""The design space and the history of runs: the two values that every design works on.

A run is (N, D, mix). Its cost is 6 N D plus an overhead. Designs see the losses of each skill with their standard
errors, and the runs that are under way.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from skillscale.errors import InputError
from skillscale.formatting import format_count, format_flops, format_number
from skillscale.laws.forms.nd import Array

OVERHEAD = 0.01  # default overhead of a run, in largest runs; it prevents plans of thousands of tiny runs
_STEPS = 9  # points of the lattice on a side
_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class DesignSpace:
    """The allowed runs.

    ``flops``: smallest and largest 6 N D of a run. ``n_params``, ``n_tokens``, ``ratio`` (D / N): smallest and largest,
    by default those for which recipes are tuned (runs outside mislead more than they inform:
    docs/research/sampling.md). ``sizes``: the only N, where models come in a ladder. ``categories``: of the mixes.
    ``mixes``: shares to train on, (m, n_categories). ``supply``: most tokens of each category that a run may see (its
    unique tokens times the allowed epochs), (n_categories,). ``overhead``: cost of a run in addition to 6 N D.
    ``replicates``: most runs of a point, each with another seed.

    Raises:
        InputError: a range is empty, the mixes do not fit the categories, or the limits allow no run.
    """

    flops: tuple[float, float] = field(metadata={"unit": "FLOP"})
    n_params: tuple[float, float] = (1.0, math.inf)
    n_tokens: tuple[float, float] = (1.0, math.inf)
    ratio: tuple[float, float] = (1.0, 500.0)
    sizes: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()
    mixes: Array | None = field(default=None, repr=False)
    supply: Array | None = None
    overhead: float | None = field(default=None, metadata={"unit": "FLOP"})
    replicates: int = 3

    def __post_init__(self) -> None:
        for name in ("flops", "n_params", "n_tokens", "ratio"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise InputError(
                    f"the range of {name} is {low} to {high}. Give a positive minimum and a maximum that is no smaller"
                )
        if self.overhead is None:
            object.__setattr__(self, "overhead", OVERHEAD * self.flops[1])
        if self.categories and (self.mixes is None or np.shape(self.mixes)[1:] != (len(self.categories),)):
            raise InputError(
                f"the mixes do not fit the categories. Give shares of {', '.join(self.categories)} for each"
            )
        if not len(self.lattice()[0]):
            raise InputError(
                f"the limits allow no run: no (N, D) has 6 N D from {format_flops(self.flops[0])} to "
                f"{format_flops(self.flops[1])}, D/N from {format_number(self.ratio[0])} to "
                f"{format_number(self.ratio[1])}, N from {_format_range(self.n_params)} and D from "
                f"{_format_range(self.n_tokens)}. Widen the narrowest of these limits"
            )

    @property
    def n_mixes(self) -> int:
        """Number of mixes, 1 where the mix plays no part."""
        return 1 if self.mixes is None else len(self.mixes)

    def cost(self, N: npt.ArrayLike, D: npt.ArrayLike) -> Array:
        """Return the cost of runs in FLOP, overhead included, (n,)."""
        assert self.overhead is not None
        return np.asarray(6 * np.asarray(N, dtype=float) * np.asarray(D, dtype=float) + self.overhead)

    def allows(self, N: npt.ArrayLike, D: npt.ArrayLike, h: Array | None = None) -> npt.NDArray[np.bool_]:
        """Return which runs are within the limits, (n,); ``sizes`` and ``mixes`` are not checked."""
        N, D = np.asarray(N, dtype=float), np.asarray(D, dtype=float)
        fits = np.ones(np.broadcast_shapes(N.shape, D.shape), dtype=bool)
        for value, (low, high) in (
            (6 * N * D, self.flops),
            (N, self.n_params),
            (D, self.n_tokens),
            (D / N, self.ratio),
        ):
            fits &= (value >= low * (1 - _TOLERANCE)) & (value <= high * (1 + _TOLERANCE))
        if self.supply is not None and h is not None:
            fits &= (D[:, None] * h <= self.supply * (1 + _TOLERANCE)).all(1)
        return fits

    def lattice(self, shift: Sequence[float] = (0.0, 0.0), steps: int = _STEPS) -> tuple[Array, Array]:
        """Return N and D of an even lattice in ln C and ln D/N within the limits.

        ``shift``: in ln C and ln D/N, as fractions of a step.
        """
        log_C = _even(self.flops, shift[0], steps)
        if self.sizes:
            N, C = (grid.ravel() for grid in np.meshgrid(self.sizes, np.exp(log_C)))
            D = C / (6 * N)
        else:
            low, high = self.ratio_range()
            C, ratio = (np.exp(grid).ravel() for grid in np.meshgrid(log_C, _even((low, high), shift[1], steps)))
            N, D = np.sqrt(C / (6 * ratio)), np.sqrt(C * ratio / 6)
        fits = self.allows(N, D)
        return N[fits], D[fits]

    def ratio_range(self) -> tuple[float, float]:
        """Return the smallest and largest D / N within all limits."""
        low = max(self.ratio[0], self.n_tokens[0] / self.n_params[1], self.flops[0] / 6 / self.n_params[1] ** 2)
        high = min(self.ratio[1], self.n_tokens[1] / self.n_params[0], self.flops[1] / 6 / self.n_params[0] ** 2)
        return low, max(low, high)


def _format_range(ends: tuple[float, float]) -> str:
    return f"{format_count(ends[0])} to {format_count(ends[1]) if math.isfinite(ends[1]) else 'any number'}"


def _even(ends: tuple[float, float], shift: float, steps: int) -> Array:
    """Return even steps in the logarithm from end to end, shifted and clipped to the ends."""
    low, high = math.log(ends[0]), math.log(ends[1])
    points = np.linspace(low, high, steps)
    width = (high - low) / (steps - 1)
    return np.clip(points + shift * width, low, high)


@dataclass(frozen=True, kw_only=True)
class RunHistory:
    """Runs that are finished or under way: ``N``, ``D`` (n,), shares ``h`` (n, n_categories) or None.

    ``log_L``: ln L of each skill, (n,), NaN where a run is unfinished or has not measured the skill. ``sem``: standard
    errors of ln L, (n,), 0 where unknown.
    """

    N: Array
    D: Array
    h: Array | None = None
    log_L: Mapping[str, Array] = field(default_factory=dict)  # noqa: N815 - the field's letter
    sem: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.N)

    @classmethod
    def empty(cls, skills: Sequence[str], n_categories: int = 0) -> Self:
        """Return a history without runs."""
        none = np.zeros(0)
        h = np.zeros((0, n_categories)) if n_categories else None
        return cls(N=none, D=none, h=h, log_L=dict.fromkeys(skills, none), sem=dict.fromkeys(skills, none))

    @property
    def skills(self) -> tuple[str, ...]:
        """Names of the skills."""
        return tuple(self.log_L)

    def measured(self, skill: str) -> npt.NDArray[np.bool_]:
        """Return which runs have measured a skill, (n,)."""
        return np.asarray(np.isfinite(self.log_L[skill]))

    def with_runs(
        self, N: Array, D: Array, h: Array | None, log_L: Mapping[str, Array] | None = None,
        sem: Mapping[str, Array] | None = None,
    ) -> "RunHistory":  # fmt: skip
        """Return the history with more runs; runs without losses are under way."""
        unknown = np.full(len(N), np.nan)
        return replace(
            self, N=np.append(self.N, N), D=np.append(self.D, D),
            h=None if self.h is None or h is None else np.vstack([self.h, h]),
            log_L={name: np.append(old, (log_L or {}).get(name, unknown)) for name, old in self.log_L.items()},
            sem={name: np.append(old, (sem or {}).get(name, 0 * unknown)) for name, old in self.sem.items()},
        )  # fmt: skip
