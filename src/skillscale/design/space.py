"""What may be run, and what has been: the two values that every design works on.

A run is (N, D, mix); its cost is 6 N D and an overhead. Designs see the losses of each skill and their standard errors,
and which runs are still under way.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from skillscale.errors import InputError
from skillscale.laws.forms.nd import Array

OVERHEAD = 0.01  # of the largest run, that each run costs beside its FLOPs: it keeps plans from thousands of tiny runs
_STEPS = 9  # of ln N and ln D on a side of the lattice
_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class DesignSpace:
    """What may be run.

    ``flops``: least and largest 6 N D of one run; ``n_params``, ``n_tokens``, ``ratio`` (D / N): least and largest, by
    default what recipes are tuned for (docs/research/sampling.md: beyond it runs mislead more than they tell);
    ``sizes``: the only N there are, where models come in a ladder; ``mixes``: shares that may be trained on, (m,
    n_categories), of ``categories``; ``supply``: most tokens of each category that one run may see (its unique tokens
    times the epochs allowed), (n_categories,); ``overhead``: FLOPs that a run costs beside its own; ``replicates``:
    how often one point may be run, each time with another seed.

    Raises:
        InputError: a range is empty, or the limits together leave nothing to run.
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
                raise InputError(f"{name} must run from a positive number to one no smaller, but it is {low} to {high}")
        if self.overhead is None:
            object.__setattr__(self, "overhead", OVERHEAD * self.flops[1])
        if self.categories and (self.mixes is None or np.shape(self.mixes)[1:] != (len(self.categories),)):
            raise InputError(f"mixes must have a share of each of {', '.join(self.categories)}")
        if not len(self.lattice()[0]):
            raise InputError(
                f"nothing may be run: no (N, D) has 6 N D from {self.flops[0]:.3g} to {self.flops[1]:.3g}, D/N from "
                f"{self.ratio[0]:g} to {self.ratio[1]:g}, N from {self.n_params[0]:.3g} to {self.n_params[1]:.3g} and "
                f"D from {self.n_tokens[0]:.3g} to {self.n_tokens[1]:.3g}; widen the narrowest of these"
            )

    @property
    def n_mixes(self) -> int:
        """How many mixes may be trained on; 1 where the mix plays no part."""
        return 1 if self.mixes is None else len(self.mixes)

    def cost(self, N: npt.ArrayLike, D: npt.ArrayLike) -> Array:
        """FLOPs of runs, overhead included, (n,)."""
        assert self.overhead is not None
        return np.asarray(6 * np.asarray(N, dtype=float) * np.asarray(D, dtype=float) + self.overhead)

    def allows(self, N: npt.ArrayLike, D: npt.ArrayLike, h: Array | None = None) -> npt.NDArray[np.bool_]:
        """Which runs lie within the limits, but for ``sizes`` and ``mixes``, (n,)."""
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
        """N and D of an even lattice in ln C and ln D/N within the limits; ``shift``: by parts of a step."""
        log_C = _even(self.flops, shift[0], steps)
        if self.sizes:
            N, C = (grid.ravel() for grid in np.meshgrid(self.sizes, np.exp(log_C)))
            D = C / (6 * N)
        else:
            low, high = self.ratios()
            C, ratio = (np.exp(grid).ravel() for grid in np.meshgrid(log_C, _even((low, high), shift[1], steps)))
            N, D = np.sqrt(C / (6 * ratio)), np.sqrt(C * ratio / 6)
        fits = self.allows(N, D)
        return N[fits], D[fits]

    def ratios(self) -> tuple[float, float]:
        """D / N that the other limits leave."""
        low = max(self.ratio[0], self.n_tokens[0] / self.n_params[1], self.flops[0] / 6 / self.n_params[1] ** 2)
        high = min(self.ratio[1], self.n_tokens[1] / self.n_params[0], self.flops[1] / 6 / self.n_params[0] ** 2)
        return low, max(low, high)


def _even(ends: tuple[float, float], shift: float, steps: int) -> Array:
    """Even steps in the logarithm from end to end; shifted ones lie within."""
    low, high = math.log(ends[0]), math.log(ends[1])
    at = np.linspace(low, high, steps)
    width = (high - low) / (steps - 1)
    return np.clip(at + shift * width, low, high)


@dataclass(frozen=True, kw_only=True)
class RunHistory:
    """Runs that are finished or under way: ``N``, ``D`` (n,), shares ``h`` (n, n_categories) or None.

    ``log_L`` and ``sem``: of each skill, (n,); NaN where a run has not measured it, or is not finished. ``sem`` is that
    of ln L, 0 where nobody knows.
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
        """No run yet."""
        none = np.zeros(0)
        h = np.zeros((0, n_categories)) if n_categories else None
        return cls(N=none, D=none, h=h, log_L=dict.fromkeys(skills, none), sem=dict.fromkeys(skills, none))

    @property
    def skills(self) -> tuple[str, ...]:
        """Names of the skills."""
        return tuple(self.log_L)

    def having(self, skill: str) -> npt.NDArray[np.bool_]:
        """Runs that have measured a skill, (n,)."""
        return np.asarray(np.isfinite(self.log_L[skill]))

    def with_runs(
        self, N: Array, D: Array, h: Array | None, log_L: Mapping[str, Array] | None = None,
        sem: Mapping[str, Array] | None = None,
    ) -> "RunHistory":  # fmt: skip
        """With more runs; without losses they are under way."""
        unknown = np.full(len(N), np.nan)
        return replace(
            self, N=np.append(self.N, N), D=np.append(self.D, D),
            h=None if self.h is None or h is None else np.vstack([self.h, h]),
            log_L={name: np.append(old, (log_L or {}).get(name, unknown)) for name, old in self.log_L.items()},
            sem={name: np.append(old, (sem or {}).get(name, 0 * unknown)) for name, old in self.sem.items()},
        )  # fmt: skip
