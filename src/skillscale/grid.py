"""The points of an isoFLOP study: for each budget C, sizes around the expected optimum, D = C / (6 N)."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from skillscale.config import Config, StudyConfig
from skillscale.errors import InputError
from skillscale.lm.shape import shape_for
from skillscale.point import DesignPoint, Mix


@dataclass(frozen=True, kw_only=True)
class GridPoint:
    """A design point with the nominal budget (FLOP) it belongs to."""

    point: DesignPoint
    budget: float


def expected_optimum(budget: float, study: StudyConfig) -> float:
    """N = coefficient C^exponent, the centre of a budget's sizes (``conf/study``: from an earlier study)."""
    return float(study.optimum_coefficient * budget**study.optimum_exponent)


def wanted_sizes(budget: float, study: StudyConfig) -> list[float]:
    """Geometric sizes from optimum / span to optimum x span."""
    centre = expected_optimum(budget, study)
    if study.sizes == 1:
        return [centre]
    return [centre * study.span ** (2 * i / (study.sizes - 1) - 1) for i in range(study.sizes)]


def reachable_sizes(wanted: Iterable[float], reach: Callable[[float], int]) -> list[int]:
    """The distinct sizes that models can have, nearest to those wanted, ascending."""
    return sorted({reach(size) for size in wanted})


def grid_points(
    config: Config, *, sizes: Sequence[int] | None = None, seeds: Sequence[int] | None = None
) -> list[GridPoint]:
    """Every point of the study: one round of seeds after the other, in each the longest first.

    Workers then end together, and a study that is stopped early holds whole curves. Seeds differ from budget to
    budget, so that the noise of one stream of tokens is not taken for agreement between budgets; within a budget all
    sizes and mixes share them, so that a curve's points share their noise.

    Args:
        sizes: N of every budget's points; by default spread around the expected optimum.
        seeds: seeds of every budget; by default ``study.seeds`` new ones a budget.

    Raises:
        InputError: a budget too small to train its largest size on one sequence.
    """
    study = config.study
    counts = study.seeds if len(study.seeds) > 1 else study.seeds * len(study.budgets)
    firsts = [study.first_seed + sum(counts[:at]) for at in range(len(counts))]
    rounds: list[tuple[int, GridPoint]] = []
    for budget, first, n_seeds in zip(study.budgets, firsts, counts, strict=True):
        wanted = sizes or wanted_sizes(budget, study)
        for size in reachable_sizes(wanted, lambda wanted: _total(wanted, config)):
            for at, seed in enumerate(seeds or range(first, first + n_seeds)):
                rounds += [
                    (at, GridPoint(point=_point(config, budget, size, mix, seed), budget=budget))
                    for mix in study.mix_values
                ]
    return [point for _, point in sorted(rounds, key=lambda each: (each[0], -cost(each[1].point)))]


def cost(point: DesignPoint) -> float:
    """Expected time of a point in arbitrary units: small models are bound by overhead a token, not by arithmetic."""
    return point.n_tokens * math.sqrt(point.n_params)


def _total(wanted: float, config: Config) -> int:
    return shape_for(wanted, vocab_size=config.data.vocab_size, model=config.model).n_params


def _point(config: Config, budget: float, size: int, mix: Mix, seed: int) -> DesignPoint:
    n_tokens = round(budget / (6 * size))
    if n_tokens < config.model.context:
        raise InputError(
            f"budget {budget:.3g} FLOP trains {size:,} parameters on only {n_tokens} tokens, less than one sequence of "
            f"{config.model.context}; raise the budget, or lower study.span or study.optimum_coefficient"
        )
    return DesignPoint(n_params=size, n_tokens=n_tokens, mix=mix, seed=seed)
