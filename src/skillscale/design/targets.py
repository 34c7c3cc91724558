"""What a design is to make certain: optima of skills and their differences, at computes and mixes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from skillscale.errors import InputError
from skillscale.laws.forms.nd import Array

BEYOND = (10.0, 100.0)  # computes asked about by default, in units of the largest run allowed


class Quantity(StrEnum):
    """What of a skill is asked.

    ``optimum``: ln N* at C; ``difference``: ln N* of one skill less that of another; ``loss``: ln L at the optimum, or
    at N parameters.
    """

    OPTIMUM = "optimum"
    DIFFERENCE = "difference"
    LOSS = "loss"


class QueryPoint(NamedTuple):
    """Where one skill is asked for a quantity: compute, shares, and N where it isn't the optimum's."""

    quantity: Quantity
    C: float
    h: tuple[float, ...] = ()
    N: float | None = None


@dataclass(frozen=True, kw_only=True)
class Target:
    """One number to learn: of ``skill`` (for a difference, less ``other``) at compute ``C`` and shares ``h``.

    ``N``: parameters at which a loss is asked, those of the optimum by default.

    Raises:
        InputError: the compute is not positive, a difference has no second skill, or N is told where it is asked.
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
            raise InputError(f"the compute of a target must be positive, but it is {self.C}")
        if (self.quantity is Quantity.DIFFERENCE) != bool(self.other):
            raise InputError("a difference, and nothing else, names a second skill; give `other`")
        if self.N is not None and not (self.quantity is Quantity.LOSS and self.N > 0):
            raise InputError(f"N = {self.N} is for losses alone, and positive; leave it out, or ask for the loss there")
        if not self.weight > 0:
            raise InputError(f"the weight of a target must be positive, but it is {self.weight}; leave it out instead")

    @property
    def place(self) -> QueryPoint:
        """Where its skills are asked: a difference asks two for their optima."""
        asked = Quantity.LOSS if self.quantity is Quantity.LOSS else Quantity.OPTIMUM
        return QueryPoint(asked, self.C, self.h, self.N)

    @property
    def name(self) -> str:
        """As in ``ln N*(code) at 1e+21``."""
        what = {
            Quantity.OPTIMUM: f"ln N*({self.skill})",
            Quantity.DIFFERENCE: f"ln N*({self.skill}) - ln N*({self.other})",
            Quantity.LOSS: f"ln L({self.skill})",
        }[self.quantity]
        mix = " on " + "/".join(f"{share:.3g}" for share in self.h) if self.h else ""
        where = "" if self.N is None else f" of {self.N:.3g} parameters"
        return f"{what} at {self.C:.3g}{where}{mix}"


def default_targets(
    skills: Sequence[str], *, largest: float, computes: Sequence[float] = (), mixes: Sequence[Sequence[float]] = (),
    weights: Mapping[str, float] | None = None,
) -> tuple[Target, ...]:  # fmt: skip
    """Ln N* of every skill and every difference of two.

    Args:
        skills: their names.
        largest: 6 N D of the largest run allowed.
        computes: where; by default 10 and 100 times ``largest``.
        mixes: on which shares; by default where the mix plays no part.
        weights: of skills, 1 by default.

    Raises:
        InputError: there is no skill.
    """
    if not skills:
        raise InputError("there is no skill to learn about; measure at least one")
    told = weights or {}
    targets: list[Target] = []
    for C in computes or tuple(factor * largest for factor in BEYOND):
        for h in mixes or ((),):
            mix = tuple(float(share) for share in h)
            for at, skill in enumerate(skills):
                weight = told.get(skill, 1.0)
                targets.append(Target(quantity=Quantity.OPTIMUM, skill=skill, C=float(C), h=mix, weight=weight))
                targets += [
                    Target(quantity=Quantity.DIFFERENCE, skill=skill, other=other, C=float(C), h=mix, weight=weight)
                    for other in skills[at + 1 :]
                ]
    return tuple(targets)


@dataclass(frozen=True, kw_only=True)
class TargetEstimates:
    """What is known of the targets: ``value`` and interval ``lo`` to ``hi`` at ``level``, each (n_targets,).

    NaN where the runs don't tell; ``sd``: of the belief, for what the next runs would add.
    """

    targets: tuple[Target, ...]
    value: Array
    lo: Array
    hi: Array
    sd: Array
    level: float = 0.9

    @property
    def widest(self) -> float:
        """Half the width of the widest interval, infinite where one is not known."""
        half = (self.hi - self.lo) / 2
        return float(np.where(np.isfinite(half), half, math.inf).max(initial=0.0))
