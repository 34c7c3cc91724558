"""The points of an isoFLOP study: for each budget C, sizes around the expected optimum, D = C / (6 N).

Where runs branch from trunks (``train.schedule``), budgets share sizes and seeds, so that a trunk serves several D.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from skillscale.config import Config, StudyConfig
from skillscale.errors import InputError
from skillscale.lm.model.shape import shape_for
from skillscale.point import MAX_PARAMS, DesignPoint, Mix, digest
from skillscale.record import format_budget

_SEEDS_APART = 1000


@dataclass(frozen=True, kw_only=True)
class GridPoint:
    """A design point with the nominal budget (FLOP) it belongs to."""

    point: DesignPoint
    budget: float


def expected_optimum(budget: float, study: StudyConfig) -> float:
    """N = coefficient C^exponent, the centre of a budget's sizes (``conf/study``: from an earlier study)."""
    return float(study.optimum_coefficient * budget**study.optimum_exponent)


def budget_sizes(budget: float, study: StudyConfig) -> list[float]:
    """Geometric sizes from optimum / span to optimum x span, of which those within ``n_params`` are kept.

    Raises:
        InputError: there are none.
    """
    centre = expected_optimum(budget, study)
    steps = [2 * i / (study.sizes - 1) - 1 for i in range(study.sizes)] if study.sizes > 1 else [0.0]
    low, high = study.n_params
    kept = [size for size in (centre * study.span**step for step in steps) if low <= size <= high]
    if not kept:
        raise InputError(
            f"study.n_params [{low:g}, {high:g}] leaves no size at budget {budget:.3g} FLOP, where they lie about "
            f"{centre:.3g}; widen it, or change study.optimum_coefficient"
        )
    return kept


def shared_sizes(budget: float, study: StudyConfig) -> list[float]:
    """The sizes of ``budget_sizes``, moved by half a step at most onto a ladder that all budgets have in common.

    Rungs are powers of the step, whatever the budgets, so that a study that grows keeps its sizes.
    """
    if study.sizes == 1 or study.span == 1:
        return budget_sizes(budget, study)
    step = 2 * math.log(study.span) / (study.sizes - 1)
    wanted = budget_sizes(budget, replace(study, n_params=(1, MAX_PARAMS)))
    moved = step * round(math.log(wanted[0]) / step) - math.log(wanted[0])
    centre = replace(study, optimum_coefficient=study.optimum_coefficient * math.exp(moved))
    return budget_sizes(budget, centre)


def reachable_sizes(wanted: Iterable[float], reach: Callable[[float], int]) -> list[int]:
    """The distinct sizes that models can have, nearest to those wanted, ascending."""
    return sorted({reach(size) for size in wanted})


def grid_points(
    config: Config,
    *,
    budgets: Sequence[float] | None = None,
    sizes: Sequence[int] | None = None,
    mixes: Sequence[Mix] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[GridPoint]:
    """Every point of the study: one round of seeds after the other, in each the longest first.

    Workers then end together, and a study that is stopped early holds whole curves. Within a budget all sizes and mixes
    share the seeds, so that a curve's points share their noise.

    Args:
        budgets, sizes, mixes, seeds: in place of the study's; sizes are then those of every budget.

    Raises:
        InputError: a budget too small to train its largest size on one sequence.
    """
    study, branches = config.study, config.train.schedule == "wsd"
    rounds: list[tuple[int, GridPoint]] = []
    for budget in budgets or study.budgets:
        around = shared_sizes(budget, study) if branches else budget_sizes(budget, study)
        for wanted in reachable_sizes(sizes or around, lambda size: nearest_size(size, config)):
            for at, seed in enumerate(seeds or seeds_of(budget, study, shared=branches)):
                points = [_point(config, budget, wanted, mix, seed) for mix in mixes or study.mix_values]
                rounds += [(at, GridPoint(point=point, budget=budget)) for point in points]
    if branches:
        return _by_trunk(rounds)
    return [point for _, point in sorted(rounds, key=lambda each: (each[0], -cost(each[1].point)))]


def _by_trunk(rounds: Sequence[tuple[int, GridPoint]]) -> list[GridPoint]:
    """The shortest point of every trunk of a round, the costliest trunk first; then the next of every trunk, and so on.

    Workers take one trunk each, and stay with it from its shortest point to its longest.
    """
    trunks: dict[str, list[GridPoint]] = {}
    for _, each in sorted(rounds, key=lambda each: each[1].point.n_tokens):
        trunks.setdefault(each.point.stable_phase, []).append(each)
    place = {each.point.key: at for members in trunks.values() for at, each in enumerate(members)}
    longest = {name: cost(members[-1].point) for name, members in trunks.items()}
    ordered = sorted(rounds, key=lambda one: (one[0], place[one[1].point.key], -longest[one[1].point.stable_phase]))
    return [point for _, point in ordered]


def tokens_to_train(points: Sequence[DesignPoint], cooldown_fraction: float) -> list[float]:
    """Tokens that each point takes itself, where points of one trunk go on from one another: its decay and its part.

    The trunk up to where the next shorter point left it is taken over from there.
    """
    reached_by: dict[str, float] = {}
    own: dict[str, float] = {}
    for point in sorted(points, key=lambda point: point.n_tokens):
        own[point.key] = point.n_tokens - reached_by.get(point.stable_phase, 0.0)
        reached_by[point.stable_phase] = (1 - cooldown_fraction) * point.n_tokens
    return [own[point.key] for point in points]


def seeds_of(budget: float, study: StudyConfig, *, shared: bool = False) -> list[int]:
    """The seeds of a budget, which other budgets don't have unless they are shared.

    The noise of one stream of tokens is then not taken for agreement between budgets. They depend on the budget's place
    in the study (on its value, where it has none), so that a study that grows keeps those it had.
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
    """The size that a model can have, nearest to the one asked for."""
    return shape_for(n_params, vocab_size=config.data.vocab_size, model=config.model).n_params


def cost(point: DesignPoint) -> float:
    """Expected time of a point in arbitrary units: small models are bound by overhead a token, not by arithmetic."""
    return point.n_tokens * math.sqrt(point.n_params)


def _point(config: Config, budget: float, size: int, mix: Mix, seed: int) -> DesignPoint:
    n_tokens = round(budget / (6 * size))
    if n_tokens < config.model.context:
        raise InputError(
            f"budget {budget:.3g} FLOP trains {size:,} parameters on only {n_tokens} tokens, less than one sequence of "
            f"{config.model.context}; raise the budget, or lower study.span or study.optimum_coefficient"
        )
    return DesignPoint(n_params=size, n_tokens=n_tokens, mix=mix, seed=seed)
