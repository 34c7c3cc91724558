"""Optuna's parameters as runs: which of them tell N, D and the mix, and what their distributions allow.

A study has two of the quantities n_params, n_tokens, flops and ratio (D / N), each as it is or as log_ or log10_ of it,
and, where the mix is chosen, coordinates mix_0, mix_1, ... from 0 to 1.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from skillscale.design.proposal import Proposal
from skillscale.design.space import DesignSpace
from skillscale.errors import InputError
from skillscale.laws.forms.nd import Array
from skillscale.point import Mix, coordinates_from_mix, mix_from_coordinates

_MOST_MIXES = 40  # that a design looks at where none are given
# Logarithm of each quantity: a ln N + b ln D + c
_QUANTITIES = {
    "n_params": (1.0, 0.0, 0.0),
    "n_tokens": (0.0, 1.0, 0.0),
    "flops": (1.0, 1.0, math.log(6)),
    "ratio": (-1.0, 1.0, 0.0),
}
_SCALES: Mapping[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "": (math.log, math.exp),
    "log_": (float, float),
    "log10_": (lambda x: x * math.log(10), lambda x: x / math.log(10)),
}
_KINDS = {f"{scale}{name}": (scale, name) for scale in _SCALES for name in _QUANTITIES}
MIX = "mix"
NAMES = {kind: kind for kind in _KINDS} | {MIX: MIX}  # of the parameters, where nobody says others


@dataclass(frozen=True, kw_only=True)
class SearchAxis:
    """A parameter that is one of the quantities, or a logarithm of it."""

    name: str
    quantity: str
    scale: str
    distribution: FloatDistribution | IntDistribution

    def log_of(self, value: float) -> float:
        """Natural logarithm of the quantity."""
        return _SCALES[self.scale][0](value)

    @property
    def ends(self) -> tuple[float, float]:
        """Natural logarithms of the least and the largest value."""
        return self.log_of(self.distribution.low), self.log_of(self.distribution.high)


@dataclass(frozen=True, kw_only=True)
class SearchSpaceMap:
    """The parameters that tell a run: two ``axes``, and names of the mix's ``coordinates`` where it is chosen."""

    axes: tuple[SearchAxis, SearchAxis]
    coordinates: tuple[str, ...]
    categories: tuple[str, ...]
    least: Mapping[str, float]
    distributions: Mapping[str, BaseDistribution]

    @classmethod
    def found(
        cls, given: Mapping[str, BaseDistribution], *, names: Mapping[str, str], categories: tuple[str, ...],
        least: Mapping[str, float],
    ) -> "SearchSpaceMap | None":  # fmt: skip
        """Those among a study's parameters; None where they don't tell N and D."""
        axes: dict[str, SearchAxis] = {}
        for kind, (scale, quantity) in _KINDS.items():
            one = given.get(names[kind])
            if isinstance(one, FloatDistribution | IntDistribution) and (scale or one.low > 0):
                axes.setdefault(
                    quantity, SearchAxis(name=names[kind], quantity=quantity, scale=scale, distribution=one)
                )
        if len(axes) < 2:
            return None
        first, second = list(axes.values())[:2]
        wanted = tuple(f"{names[MIX]}_{at}" for at in range(len(categories) - 1))
        coordinates = wanted if all(_is_share(given.get(name)) for name in wanted) else ()
        used = (first.name, second.name, *coordinates)
        return cls(
            axes=(first, second), coordinates=coordinates, categories=categories if coordinates else (), least=least,
            distributions={name: given[name] for name in used},
        )  # fmt: skip

    def space(self, limits: DesignSpace | None) -> DesignSpace:
        """What both the distributions and further limits allow.

        Raises:
            InputError: nothing.
        """
        given = {axis.quantity: axis.ends for axis in self.axes}
        corners = [self._place((a, b)) for a in self.axes[0].ends for b in self.axes[1].ends]
        reach = {name: [_log(name, *corner) for corner in corners] for name in _QUANTITIES}
        ends = {name: given.get(name, (min(reach[name]), max(reach[name]))) for name in _QUANTITIES}
        bounds = {name: (math.exp(low), math.exp(high)) for name, (low, high) in ends.items()}
        wide, limits = limits is None, limits or DesignSpace(flops=bounds["flops"])
        both = {name: _common(name, bounds[name], getattr(limits, name), wide=wide) for name in _QUANTITIES}
        mixes = None
        if self.categories:
            mixes = limits.mixes if limits.mixes is not None else self._lattice()
        low, high = both["n_params"]
        return replace(
            limits, flops=both["flops"], n_params=both["n_params"], n_tokens=both["n_tokens"], ratio=both["ratio"],
            sizes=(low,) if math.isclose(low, high) else limits.sizes,
            categories=self.categories, mixes=mixes, supply=limits.supply if self.categories else None,
        )  # fmt: skip

    def run_of(self, params: Mapping[str, Any]) -> tuple[float, float, tuple[float, ...]] | None:
        """N, D and shares of a trial; None where it does not tell them (yet)."""
        if any(name not in params for name in self.distributions):
            return None
        first, second = (axis.log_of(params[axis.name]) for axis in self.axes)
        log_N, log_D = self._place((first, second))
        h: tuple[float, ...] = ()
        if self.categories:
            mix = mix_from_coordinates([params[name] for name in self.coordinates], self.categories, self.least)
            h = tuple(mix.shares.get(name, 0.0) for name in self.categories)
        return math.exp(log_N), math.exp(log_D), h

    def params_of(self, proposal: Proposal) -> dict[str, float | int]:
        """A proposal as plain numbers that the distributions hold."""
        place = math.log(proposal.N), math.log(proposal.D)
        wanted = {axis.name: _SCALES[axis.scale][1](_log(axis.quantity, *place)) for axis in self.axes}
        if self.categories:
            mix = Mix(dict(zip(self.categories, proposal.h, strict=True)))
            at = coordinates_from_mix(mix, self.categories, self.least)
            wanted |= dict(zip(self.coordinates, at, strict=True))
        return {name: _within(value, self.distributions[name]) for name, value in wanted.items()}

    def _place(self, values: tuple[float, float]) -> tuple[float, float]:
        """Ln N and ln D from the logarithms of the two quantities."""
        (a, b, e), (c, d, f) = (_QUANTITIES[axis.quantity] for axis in self.axes)
        x, y = values[0] - e, values[1] - f
        return (x * d - b * y) / (a * d - b * c), (a * y - x * c) / (a * d - b * c)

    def _lattice(self) -> Array:
        """Mixes to try, (m, n_categories): the even one, then steps between the corners, least shares kept."""
        n = len(self.categories)
        steps = max((k for k in range(1, 9) if math.comb(n + k - 1, k) <= _MOST_MIXES), default=1)
        counts = [np.bincount(one, minlength=n) for one in combinations_with_replacement(range(n), steps)]
        shares = np.vstack([np.full(n, 1 / n), np.array(counts) / steps])
        least = np.array([self.least.get(name, 0.0) for name in self.categories])
        return np.asarray(least + (1 - least.sum()) * np.unique(shares, axis=0))


def _log(quantity: str, log_N: float, log_D: float) -> float:
    by_N, by_D, shift = _QUANTITIES[quantity]
    return by_N * log_N + by_D * log_D + shift


def _common(name: str, bounds: tuple[float, float], limits: tuple[float, float], *, wide: bool) -> tuple[float, float]:
    """Where two ranges overlap; if ``wide``, limits that nobody gave yield where they don't."""
    low, high = max(bounds[0], limits[0]), min(bounds[1], limits[1])
    if low <= high:
        return low, high
    if wide:
        return bounds
    raise InputError(
        f"the limits allow no run: the study's parameters have {name} from {bounds[0]:.3g} to {bounds[1]:.3g}, and the "
        f"limits {limits[0]:.3g} to {limits[1]:.3g}; widen one of them"
    )


def _is_share(one: BaseDistribution | None) -> bool:
    return isinstance(one, FloatDistribution) and 0 <= one.low <= one.high <= 1


def _within(value: float, distribution: BaseDistribution) -> float | int:
    """The nearest value that a distribution holds, as a plain number."""
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    if step is not None:
        value = low + round((value - low) / step) * step
    value = min(max(value, low), high)
    return round(value) if isinstance(distribution, IntDistribution) else float(value)
