"""The targets of a design: compute optima of skills, their differences, and losses, at given compute and mix."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from skillscale.errors import InputError
from skillscale.laws.forms.nd import Array

BEYOND = (10.0, 100.0)  # default computes of the targets, in units of the largest allowed run


class Quantity(StrEnum):
    """The quantity of a target.

    ``optimum``: ln N* at C. ``difference``: ln N* of one skill minus that of another. ``loss``: ln L at the optimum, or
    at N parameters.
    """

    OPTIMUM = "optimum"
    DIFFERENCE = "difference"
    LOSS = "loss"


class QueryPoint(NamedTuple):
    """A quantity of one skill at a compute, with shares ``h``, and with N where it isn't the optimum's."""

    quantity: Quantity
    C: float
    h: tuple[float, ...] = ()
    N: float | None = None


@dataclass(frozen=True, kw_only=True)
class Target:
    """A number to learn about ``skill`` (for a difference, minus ``other``) at compute ``C`` and shares ``h``.

    ``weight``: in the design's objective. ``N``: parameters at which a loss is predicted, by default the optimum's.

    Raises:
        InputError: the compute or weight is not positive, a difference has no second skill, or a target other than a
            loss has N.
    """

    quantity: Quantity
    skill: str
    C: float = field(metadata={"unit": "FLOP"})
    h: tuple[float, ...] = ()
    other: str = ""
    weight: float = 1.0
    N: float | None = field(default=None, metadata={"unit": "parameters"})

    def __post_init__(self) -> None:
        if not (math.isfinite(self.C) and self.C > 0):
            raise InputError(f"the compute of a target must be positive, but it is {self.C}. Give FLOP above 0")
        if (self.quantity is Quantity.DIFFERENCE) != bool(self.other):
            raise InputError("only a difference has a second skill, and it needs one. Give `other` for a difference")
        if self.N is not None and not (self.quantity is Quantity.LOSS and self.N > 0):
            raise InputError(
                f"N = {self.N} of a target must be positive, and only a loss has one. Omit N, or make the target a loss"
            )
        if not self.weight > 0:
            raise InputError(f"the weight of a target must be positive, but it is {self.weight}. Omit the target for 0")

    @property
    def query_point(self) -> QueryPoint:
        """The quantity to evaluate for its skills: for a difference, the optimum of both."""
        quantity = Quantity.LOSS if self.quantity is Quantity.LOSS else Quantity.OPTIMUM
        return QueryPoint(quantity, self.C, self.h, self.N)

    @property
    def name(self) -> str:
        """A name as in ``ln N*(code) at 1e+21``."""
        quantity = {
            Quantity.OPTIMUM: f"ln N*({self.skill})",
            Quantity.DIFFERENCE: f"ln N*({self.skill}) - ln N*({self.other})",
            Quantity.LOSS: f"ln L({self.skill})",
        }[self.quantity]
        mix = " on " + "/".join(f"{share:.3g}" for share in self.h) if self.h else ""
        size = "" if self.N is None else f" of {self.N:.3g} parameters"
        return f"{quantity} at {self.C:.3g}{size}{mix}"


def default_targets(
    skills: Sequence[str], *, largest: float, computes: Sequence[float] = (), mixes: Sequence[Sequence[float]] = (),
    weights: Mapping[str, float] | None = None,
) -> tuple[Target, ...]:  # fmt: skip
    """Return ln N* of every skill and every difference of two skills as targets.

    Args:
        skills: names of the skills.
        largest: 6 N D of the largest allowed run, FLOP.
        computes: computes of the targets, FLOP. By default 10 and 100 times ``largest``.
        mixes: shares of the targets. Empty where the mix plays no part.
        weights: weights of skills, 1 by default.

    Raises:
        InputError: there is no skill.
    """
    if not skills:
        raise InputError("the design has no skill to learn about. Measure at least one skill")
    skill_weights = weights or {}
    targets: list[Target] = []
    for C in computes or tuple(factor * largest for factor in BEYOND):
        for h in mixes or ((),):
            mix = tuple(float(share) for share in h)
            for at, skill in enumerate(skills):
                weight = skill_weights.get(skill, 1.0)
                targets.append(Target(quantity=Quantity.OPTIMUM, skill=skill, C=float(C), h=mix, weight=weight))
                targets += [
                    Target(quantity=Quantity.DIFFERENCE, skill=skill, other=other, C=float(C), h=mix, weight=weight)
                    for other in skills[at + 1 :]
                ]
    return tuple(targets)


@dataclass(frozen=True, kw_only=True)
class TargetEstimates:
    """Estimates of the targets: ``value`` and interval ``lo`` to ``hi`` at ``level``, (n_targets,) each.

    NaN where the runs are uninformative. ``sd``: posterior sd, (n_targets,).
    """

    targets: tuple[Target, ...]
    value: Array
    lo: Array
    hi: Array
    sd: Array
    level: float = 0.9

    @property
    def half_widths(self) -> Array:
        """Half the width of each interval, (n_targets,)."""
        return np.asarray((self.hi - self.lo) / 2)

    @property
    def widest_half_width(self) -> float:
        """Half the width of the widest interval, infinite where an interval is NaN."""
        half = self.half_widths
        return float(np.where(np.isfinite(half), half, math.inf).max(initial=0.0))
