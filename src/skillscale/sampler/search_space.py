"""The map from Optuna's parameters to runs: which parameters set N, D and the mix, and what their distributions allow.

A study has two of the quantities n_params, n_tokens, flops and ratio (D / N), each as it is or as its log_ or log10_.
Where the mix is chosen, it also has coordinates mix_0, mix_1, ... from 0 to 1.
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
from skillscale.formatting import format_number
from skillscale.laws.forms.nd import Array
from skillscale.point import Mix, coordinates_from_mix, mix_from_coordinates

_MAX_MIXES = 40  # that a design considers where none are given
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
NAMES = {kind: kind for kind in _KINDS} | {MIX: MIX}  # default names of the parameters


@dataclass(frozen=True, kw_only=True)
class SearchAxis:
    """A parameter that is a quantity or its logarithm."""

    name: str
    quantity: str
    scale: str
    distribution: FloatDistribution | IntDistribution

    def log_of(self, value: float) -> float:
        """Return the natural logarithm of the quantity."""
        return _SCALES[self.scale][0](value)

    @property
    def log_range(self) -> tuple[float, float]:
        """Natural logarithms of the smallest and largest value."""
        return self.log_of(self.distribution.low), self.log_of(self.distribution.high)


@dataclass(frozen=True, kw_only=True)
class SearchSpaceMap:
    """The parameters that set a run: two ``axes``, and the ``coordinates`` of the mix where it is chosen."""

    axes: tuple[SearchAxis, SearchAxis]
    coordinates: tuple[str, ...]
    categories: tuple[str, ...]
    least: Mapping[str, float]
    distributions: Mapping[str, BaseDistribution]

    @classmethod
    def from_distributions(
        cls, given: Mapping[str, BaseDistribution], *, names: Mapping[str, str], categories: tuple[str, ...],
        least: Mapping[str, float],
    ) -> "SearchSpaceMap | None":  # fmt: skip
        """Return the map for a study's parameters; None where they do not set N and D."""
        axes: dict[str, SearchAxis] = {}
        for kind, (scale, quantity) in _KINDS.items():
            distribution = given.get(names[kind])
            if not isinstance(distribution, FloatDistribution | IntDistribution):
                continue
            if scale or distribution.low > 0:
                axis = SearchAxis(name=names[kind], quantity=quantity, scale=scale, distribution=distribution)
                axes.setdefault(quantity, axis)
        if len(axes) < 2:
            return None
        first, second = list(axes.values())[:2]
        mix_names = tuple(f"{names[MIX]}_{at}" for at in range(len(categories) - 1))
        coordinates = mix_names if all(_is_share(given.get(name)) for name in mix_names) else ()
        used = (first.name, second.name, *coordinates)
        return cls(
            axes=(first, second), coordinates=coordinates, categories=categories if coordinates else (), least=least,
            distributions={name: given[name] for name in used},
        )  # fmt: skip

    def space(self, limits: DesignSpace | None) -> DesignSpace:
        """Return what the distributions and further limits allow together.

        Raises:
            InputError: they allow no run.
        """
        given = {axis.quantity: axis.log_range for axis in self.axes}
        corners = [self._place((a, b)) for a in self.axes[0].log_range for b in self.axes[1].log_range]
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
        """Return N, D and shares of a trial; None where it lacks parameters."""
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
        """Return a proposal as numbers within the distributions."""
        place = math.log(proposal.N), math.log(proposal.D)
        values = {axis.name: _SCALES[axis.scale][1](_log(axis.quantity, *place)) for axis in self.axes}
        if self.categories:
            mix = Mix(dict(zip(self.categories, proposal.h, strict=True)))
            at = coordinates_from_mix(mix, self.categories, self.least)
            values |= dict(zip(self.coordinates, at, strict=True))
        return {name: _within(value, self.distributions[name]) for name, value in values.items()}

    def _place(self, values: tuple[float, float]) -> tuple[float, float]:
        """Return ln N and ln D from the logarithms of the two quantities."""
        (a, b, e), (c, d, f) = (_QUANTITIES[axis.quantity] for axis in self.axes)
        x, y = values[0] - e, values[1] - f
        return (x * d - b * y) / (a * d - b * c), (a * y - x * c) / (a * d - b * c)

    def _lattice(self) -> Array:
        """Return mixes to try, (m, n_categories): the even one and steps between the corners, above least shares."""
        n = len(self.categories)
        steps = max((k for k in range(1, 9) if math.comb(n + k - 1, k) <= _MAX_MIXES), default=1)
        counts = [np.bincount(corners, minlength=n) for corners in combinations_with_replacement(range(n), steps)]
        shares = np.vstack([np.full(n, 1 / n), np.array(counts) / steps])
        least = np.array([self.least.get(name, 0.0) for name in self.categories])
        return np.asarray(least + (1 - least.sum()) * np.unique(shares, axis=0))


def _log(quantity: str, log_N: float, log_D: float) -> float:
    by_N, by_D, shift = _QUANTITIES[quantity]
    return by_N * log_N + by_D * log_D + shift


def _common(name: str, bounds: tuple[float, float], limits: tuple[float, float], *, wide: bool) -> tuple[float, float]:
    """Return the overlap of two ranges; ``wide``: the limits are defaults, which yield where there is none."""
    low, high = max(bounds[0], limits[0]), min(bounds[1], limits[1])
    if low <= high:
        return low, high
    if wide:
        return bounds
    raise InputError(
        f"the limits allow no run: the study's parameters have {name} from {format_number(bounds[0])} to "
        f"{format_number(bounds[1])}, and the limits from {format_number(limits[0])} to {format_number(limits[1])}. "
        "Widen one of them"
    )


def _is_share(distribution: BaseDistribution | None) -> bool:
    return isinstance(distribution, FloatDistribution) and 0 <= distribution.low <= distribution.high <= 1


def _within(value: float, distribution: BaseDistribution) -> float | int:
    """Return the nearest value within a distribution, as a plain number."""
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    if step is not None:
        value = low + round((value - low) / step) * step
    value = min(max(value, low), high)
    return round(value) if isinstance(distribution, IntDistribution) else float(value)
