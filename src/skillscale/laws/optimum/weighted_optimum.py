"""Everything that what skills are worth decides at some computes: N and D, the best mix, each skill's own wish."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from skillscale.errors import InputError
from skillscale.laws.optimum.ensemble import SkillLaw
from skillscale.laws.optimum.optimum import (
    Optimum,
    ValidationMismatch,
    best_mix,
    size_gap,
    validation_effect,
    weighted_optimum,
)
from skillscale.laws.results import SizeGap


@dataclass(frozen=True, kw_only=True)
class WeightedOptimum:
    """What is best at one compute for skills of a given worth.

    ``optimum``: at the runs' mean mix; ``size_gaps``: of each skill's N* against it; ``equal``: what choosing N by
    equal weights of all skills does instead, None where there is one skill; ``best``: the mix, N and D that are best at
    once, None where no law knows of a mix.
    """

    optimum: Optimum
    size_gaps: tuple[SizeGap, ...]
    equal: ValidationMismatch | None
    best: Optimum | None


def weighted_optima(
    fitted: Mapping[str, SkillLaw], flops: Sequence[float], weights: Mapping[str, float], *, equal: Sequence[str],
    bounds: Mapping[str, tuple[float, float]] | None = None,
) -> tuple[WeightedOptimum, ...]:  # fmt: skip
    """What is best for skills of a given worth, at each compute.

    Args:
        fitted: the skills, fitted together.
        flops: computes, FLOP.
        weights: what each skill is worth, not negative; their sum is divided out.
        equal: the skills of a validation set that weighs all alike.
        bounds: least and most share of a category of the mix; 0 and 1 where it is not named.

    Raises:
        InputError: as ``weighted_optimum`` and ``best_mix``; or bounds for laws that know of no mix.
        FitError: the loss is finite nowhere.
    """
    mixed = any(fitted[name].law.needs_mix for name, weight in weights.items() if weight and name in fitted)
    if bounds and not mixed:
        names = ", ".join(sorted({one.law.name for one in fitted.values()}))
        raise InputError(f"bounds on the mix need a law that knows of it, such as separable, but it is {names}")
    return tuple(
        WeightedOptimum(
            optimum=weighted_optimum(fitted, C, weights),
            size_gaps=tuple(size_gap(fitted, C, name, weights) for name in fitted),
            equal=validation_effect(fitted, C, weights, dict.fromkeys(equal, 1.0)) if len(equal) > 1 else None,
            best=best_mix(fitted, C, weights, bounds) if mixed else None,
        )
        for C in flops
    )
