"""The points of an isoFLOP study: for each budget C, sizes around the expected optimum, D = C / (6 N).

Where runs branch from trunks (``train.schedule``), budgets share sizes and seeds, so that a trunk serves several D.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from skillscale.config import Config, StudyConfig
from skillscale.errors import InputError
from skillscale.formatting import format_count, format_flops
from skillscale.lm.model.shape import shape_for
from skillscale.point import MAX_PARAMS, DesignPoint, Mix, digest
from skillscale.record import format_budget

_SEEDS_APART = 1000
_MOST_POINTS = 100_000  # a queue takes no more in reasonable time


@dataclass(frozen=True, kw_only=True)
class GridPoint:
    """A design point with the nominal budget (FLOP) it belongs to."""

    point: DesignPoint
    budget: float


def expected_optimum(budget: float, study: StudyConfig) -> float:
    """Return N = coefficient C^exponent, the centre of a budget's sizes (``conf/study``: from an earlier study)."""
    return float(study.optimum_coefficient * budget**study.optimum_exponent)


def budget_sizes(budget: float, study: StudyConfig) -> list[float]:
    """Return geometric sizes from optimum / span to optimum x span, without those outside ``n_params``.

    Raises:
        InputError: No size is inside.
    """
    centre = expected_optimum(budget, study)
    steps = [2 * i / (study.sizes - 1) - 1 for i in range(study.sizes)] if study.sizes > 1 else [0.0]
    low, high = study.n_params
    kept = [size for size in (centre * study.span**step for step in steps) if low <= size <= high]
    if not kept:
        raise InputError(
            f"study.n_params [{low:g}, {high:g}] leaves no size at budget {format_flops(budget)} FLOP, where sizes are "
            f"about {format_count(centre)}. Widen it, or change study.optimum_coefficient."
        )
    return kept


def shared_sizes(budget: float, study: StudyConfig) -> list[float]:
    """Return the sizes of ``budget_sizes``, moved by at most half a step onto a ladder that all budgets share.

    Its rungs are powers of the step, whatever the budgets, so that a study that grows keeps its sizes.
    """
    if study.sizes == 1 or study.span == 1:
        return budget_sizes(budget, study)
    step = 2 * math.log(study.span) / (study.sizes - 1)
    sizes = budget_sizes(budget, replace(study, n_params=(1, MAX_PARAMS)))
    moved = step * round(math.log(sizes[0]) / step) - math.log(sizes[0])
    centre = replace(study, optimum_coefficient=study.optimum_coefficient * math.exp(moved))
    return budget_sizes(budget, centre)


def reachable_sizes(sizes: Iterable[float], nearest: Callable[[float], int]) -> list[int]:
    """Return the distinct sizes that models can have, nearest to ``sizes``, ascending."""
    return sorted({nearest(size) for size in sizes})


def grid_points(
    config: Config,
    *,
    budgets: Sequence[float] | None = None,
    sizes: Sequence[int] | None = None,
    mixes: Sequence[Mix] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[GridPoint]:
    """Return every point of the study: one round of seeds after the other, in each round the longest point first.

    Workers then end together, and a study that is stopped early holds whole curves. Within a budget all sizes and mixes
    share the seeds, so that a curve's points share their noise.

    Args:
        config: Settings of the study.
        budgets: Budgets in place of the study's, FLOP.
        sizes: Sizes of every budget, in place of the study's.
        mixes: Mixes in place of the study's.
        seeds: Seeds in place of the study's.

    Raises:
        InputError: A budget is too small to train its largest size on one sequence, or there are too many points.
    """
    study, branches = config.study, config.train.schedule == "wsd"
    n_seeds, n_mixes = len(seeds) if seeds else max(study.seeds), len(mixes or study.mix_values)
    most = len(budgets or study.budgets) * (len(sizes) if sizes else study.sizes) * n_mixes * n_seeds
    if most > _MOST_POINTS:
        raise InputError(
            f"the grid has up to {most:,} points, more than {_MOST_POINTS:,}. Give fewer budgets, sizes, mixes or "
            "seeds."
        )
    rounds: list[tuple[int, GridPoint]] = []
    for budget in budgets or study.budgets:
        around = shared_sizes(budget, study) if branches else budget_sizes(budget, study)
        for size in reachable_sizes(sizes or around, lambda size: nearest_size(size, config)):
            for number, seed in enumerate(seeds or seeds_of(budget, study, shared=branches)):
                points = [_point(config, budget, size, mix, seed) for mix in mixes or study.mix_values]
                rounds += [(number, GridPoint(point=point, budget=budget)) for point in points]
    if branches:
        return _by_trunk(rounds)
    return [point for _, point in sorted(rounds, key=lambda item: (item[0], -cost(item[1].point)))]


def _by_trunk(rounds: Sequence[tuple[int, GridPoint]]) -> list[GridPoint]:
    """Order points: the shortest of every trunk of a round, the costliest trunk first; then the next of every trunk.

    A worker takes a trunk, and stays with it from its shortest point to its longest.
    """
    trunks: dict[str, list[GridPoint]] = {}
    for _, grid_point in sorted(rounds, key=lambda item: item[1].point.n_tokens):
        trunks.setdefault(grid_point.point.stable_phase, []).append(grid_point)
    place = {grid_point.point.key: at for members in trunks.values() for at, grid_point in enumerate(members)}
    longest = {name: cost(members[-1].point) for name, members in trunks.items()}

    def order(item: tuple[int, GridPoint]) -> tuple[int, int, float]:
        number, point = item[0], item[1].point
        return number, place[point.key], -longest[point.stable_phase]

    return [grid_point for _, grid_point in sorted(rounds, key=order)]


def tokens_to_train(points: Sequence[DesignPoint], cooldown_fraction: float) -> list[float]:
    """Return the tokens that each point trains itself: its cooldown, and its part of the trunk that it shares.

    The next shorter point of the trunk leaves a checkpoint, from which a point goes on.
    """
    reached_by: dict[str, float] = {}
    tokens: dict[str, float] = {}
    for point in sorted(points, key=lambda point: point.n_tokens):
        tokens[point.key] = point.n_tokens - reached_by.get(point.stable_phase, 0.0)
        reached_by[point.stable_phase] = (1 - cooldown_fraction) * point.n_tokens
    return [tokens[point.key] for point in points]


def seeds_of(budget: float, study: StudyConfig, *, shared: bool = False) -> list[int]:
    """Return the seeds of a budget. Budgets share no seeds, unless ``shared``.

    Otherwise the noise of one stream of tokens would look like agreement between budgets. Seeds depend on the budget's
    place in the study (on its value for another budget), so that a study that grows keeps its seeds.
    """
    if budget in study.budgets:
        place = study.budgets.index(budget)
        n_seeds = study.seeds[place] if len(study.seeds) > 1 else study.seeds[0]
    else:
        place = len(study.budgets) + int(digest(format_budget(budget), size=2), 16)
        n_seeds = study.seeds[0]
    first = study.first_seed + (0 if shared else _SEEDS_APART * place)
    return list(range(first, first + n_seeds))


def nearest_size(n_params: float, config: Config) -> int:
    """Return the nearest size that a model can have."""
    return shape_for(n_params, vocab_size=config.data.vocab_size, model=config.model).n_params


def cost(point: DesignPoint) -> float:
    """Return the expected time of a point in arbitrary units.

    The root, because the overhead per token, not arithmetic, limits small models.
    """
    return point.n_tokens * math.sqrt(point.n_params)


def _point(config: Config, budget: float, size: int, mix: Mix, seed: int) -> DesignPoint:
    n_tokens = round(budget / (6 * size))
    if n_tokens < config.model.context:
        raise InputError(
            f"budget {format_flops(budget)} FLOP trains {size:,} parameters on only {n_tokens} tokens, less than one "
            f"sequence of {config.model.context}. Raise the budget, or lower study.span or study.optimum_coefficient."
        )
    return DesignPoint(n_params=size, n_tokens=n_tokens, mix=mix, seed=seed)
