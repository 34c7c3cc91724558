"""Designs to compare: the Bayesian design, isoFLOP grids, and points that are random or evenly spread.

All but the Bayesian design are fixed: they choose all runs beforehand from the space and the budget. More rivals, and
the scripts that compare them, are in ``benchmarks/``.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from scipy.stats import qmc

from skillscale.design.propose import DesignGoal, propose
from skillscale.design.space import DesignSpace, RunHistory
from skillscale.errors import InputError
from skillscale.formatting import format_flops
from skillscale.laws.forms.nd import Array
from skillscale.simulation.replay import Design, Runs

CENTRE = 20.0  # D / N at the middle of a grid: the usual guess of the optimum
BUDGET_RATIO = 100.0  # largest over smallest budget of a grid
LEAST_RUNS = 12  # least number of spread points; a small budget lowers the largest run to reach it
_MOST_POINTS = 4096  # spread points at most
_HALVINGS = 50


@dataclass(frozen=True, kw_only=True)
class FixedDesign:
    """Runs in a fixed order, whatever their losses: ``N``, ``D`` (n,), shares ``h`` (n, n_categories) or None.

    ``n_before``: number of runs in the history that are not of this design.
    """

    N: Array = field(repr=False)
    D: Array = field(repr=False)
    h: Array | None = field(default=None, repr=False)
    n_before: int = 0

    def next_runs(self, history: RunHistory, budget: float, count: int, rng: np.random.Generator) -> Runs:
        """Return the runs that follow on those made."""
        del budget, rng
        first = len(history) - self.n_before
        rows = slice(first, first + count)
        return self.N[rows], self.D[rows], None if self.h is None else self.h[rows]


@dataclass(frozen=True, kw_only=True)
class BayesianDesign:
    """Runs that ``propose`` chooses."""

    space: DesignSpace = field(repr=False)
    goal: DesignGoal = field(repr=False)
    seed: int = 0

    def next_runs(self, history: RunHistory, budget: float, count: int, rng: np.random.Generator) -> Runs:
        """Return the proposed runs; none where the design stops."""
        del rng
        goal = replace(self.goal, budget=budget, max_runs=self.goal.max_runs - len(history))
        proposals = propose(history, self.space, goal, count=count, seed=self.seed).proposals
        N, D = np.array([run.N for run in proposals]), np.array([run.D for run in proposals])
        if self.space.mixes is None:
            return N, D, None
        return N, D, np.array([run.h for run in proposals]).reshape(len(proposals), len(self.space.categories))


@dataclass(frozen=True, kw_only=True)
class IsoflopGridShape:
    """Shape of an isoFLOP grid.

    ``budgets``: number of budgets, even in ln C. ``sizes``: number at each budget, even in ln N from 1/``span`` to
    ``span`` times the middle. ``budget_ratio``: largest over smallest budget.
    """

    sizes: int = 7
    budgets: int = 5
    span: float = 4.0
    budget_ratio: float = BUDGET_RATIO

    @property
    def name(self) -> str:
        """Name of the design, as in ``grid-7x5-4``: sizes, budgets, span."""
        return f"grid-{self.sizes}x{self.budgets}-{self.span:g}"


USUAL = IsoflopGridShape()
SHAPES = (
    USUAL,
    *(IsoflopGridShape(span=span) for span in (2.0, 8.0, 16.0)),
    IsoflopGridShape(sizes=11, budgets=3, span=8.0),
    IsoflopGridShape(sizes=5, span=8.0),
    IsoflopGridShape(budgets=3, span=8.0),
    IsoflopGridShape(sizes=9, budgets=3, span=16.0),
    IsoflopGridShape(sizes=5, budgets=9),
)


def isoflop_grid(space: DesignSpace, budget: float, shape: IsoflopGridShape = USUAL) -> FixedDesign:
    """Return a grid that spends a budget, cheapest runs first; each mix gets the same runs within its supply.

    The largest of its isoFLOP budgets follows from the budget, up to the largest run of the space. A larger budget buys
    copies with other seeds, and the remainder a grid of smaller runs. Where not even the smallest runs make a grid, it
    has fewer isoFLOP budgets.

    Args:
        space: allowed runs.
        budget: FLOP, overheads included.
        shape: shape of the grid.

    Raises:
        InputError: the budget does not buy the sizes at the smallest compute.
    """
    per_mix = budget / space.n_mixes
    whole = _rungs(space, shape, space.flops[1], shape.budgets)
    price = float(space.cost(*whole).sum())
    copies = int(per_mix / price * (1 + 1e-9))
    rest = _grid_for(space, shape, per_mix - copies * price, fewest=shape.budgets if copies else 1)
    if rest is None and not copies:
        least = space.n_mixes * float(space.cost(*_rungs(space, shape, space.flops[0], 1)).sum())
        raise InputError(
            f"the budget buys no grid of {shape.sizes} sizes over {space.n_mixes} mixes: {format_flops(budget)} of at "
            f"least {format_flops(least)} FLOP. Raise the budget"
        )
    parts = [whole] * copies + ([] if rest is None else [rest])
    N, D = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    h = None if space.mixes is None else np.repeat(space.mixes, len(N), axis=0)
    N, D = np.tile(N, space.n_mixes), np.tile(D, space.n_mixes)
    order = np.argsort(N * D, kind="stable")
    order = order[space.allows(N, D, h)[order]]
    return FixedDesign(N=N[order], D=D[order], h=None if h is None else h[order])


def _grid_for(space: DesignSpace, shape: IsoflopGridShape, budget: float, *, fewest: int) -> tuple[Array, Array] | None:
    """Return the grid with the most isoFLOP budgets, and then the largest runs, that a budget buys."""
    for budgets in range(shape.budgets, fewest - 1, -1):
        grid = partial(_rungs, space, shape, budgets=budgets)
        if space.cost(*grid(space.flops[0])).sum() > budget:
            continue
        low, high = (math.log(C) for C in space.flops)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if space.cost(*grid(math.exp(middle))).sum() <= budget else (low, middle)
        return grid(math.exp(low))
    return None


def _rungs(space: DesignSpace, shape: IsoflopGridShape, top: float, budgets: int) -> tuple[Array, Array]:
    """Return N and D of a grid whose largest isoFLOP budget is ``top``."""
    lowest = max(space.flops[0], top / shape.budget_ratio)
    ladder = np.geomspace(lowest, top, budgets) if budgets > 1 else np.array([top])
    N = [_sizes(space, shape, float(C)) for C in ladder]
    return np.concatenate(N), np.concatenate([C / (6 * sizes) for C, sizes in zip(ladder, N, strict=True)])


def _sizes(space: DesignSpace, shape: IsoflopGridShape, C: float) -> Array:
    """Return the sizes at a budget, within the limits; the nearest of the ladder where models come in one."""
    least, most = zip(*_limits(space, C), strict=True)
    low, high = max(least), min(most)
    middle = math.sqrt(C / 6 / CENTRE)
    ends = [min(max(N, low), high) for N in (middle / shape.span, middle * shape.span)]
    N: Array = np.geomspace(ends[0], ends[1], shape.sizes)
    if space.sizes:
        ladder = np.array(space.sizes)
        ladder = ladder[space.allows(ladder, C / (6 * ladder))]
        if len(ladder):
            N = np.unique(ladder[np.abs(np.log(N[:, None] / ladder)).argmin(1)])
    return N


def _limits(space: DesignSpace, C: float) -> Iterable[tuple[float, float]]:
    """Yield the smallest and largest N at a budget, by each limit of the space."""
    yield space.n_params
    yield C / 6 / space.n_tokens[1], C / 6 / space.n_tokens[0]
    yield math.sqrt(C / 6 / space.ratio[1]), math.sqrt(C / 6 / space.ratio[0])


def sobol(space: DesignSpace, budget: float, seed: int = 0) -> FixedDesign:
    """Return points of a scrambled Sobol sequence in ln C, ln D/N and the mixes, as many as the budget buys."""
    return spread(space, budget, seed, top=largest(space, budget))


def spread(space: DesignSpace, budget: float, seed: int, *, top: float) -> FixedDesign:
    """Return Sobol points whose runs take at most ``top`` FLOP, as many as the budget buys."""
    unit = qmc.Sobol(3, rng=np.random.default_rng(seed)).random(_MOST_POINTS)
    return _spread(space, budget, np.asarray(unit), top)


def uniform(space: DesignSpace, budget: float, seed: int = 0) -> FixedDesign:
    """Return random points in ln C, ln D/N and the mixes, as many as the budget buys."""
    return _spread(space, budget, np.random.default_rng(seed).random((_MOST_POINTS, 3)), largest(space, budget))


def latin(space: DesignSpace, budget: float, seed: int = 0) -> FixedDesign:
    """Return a Latin hypercube in ln C, ln D/N and the mixes, with as many points as the budget should buy."""
    rng = np.random.default_rng(seed)
    top = largest(space, budget)
    count = max(2, round(budget / _mean_cost(space, top)))
    cubes = [qmc.LatinHypercube(3, rng=rng).random(count) for _ in range(max(2, min(20, _MOST_POINTS // count)))]
    return _spread(space, budget, np.vstack(cubes), top)


def largest(space: DesignSpace, budget: float) -> float:
    """Return the FLOP of the largest run: that of the space, or less so that the budget buys ``LEAST_RUNS`` runs."""
    low, high = (math.log(C) for C in space.flops)
    if budget >= LEAST_RUNS * _mean_cost(space, space.flops[1]):
        return space.flops[1]
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        enough = budget >= LEAST_RUNS * _mean_cost(space, math.exp(middle))
        low, high = (middle, high) if enough else (low, middle)
    return math.exp(low)


def _mean_cost(space: DesignSpace, top: float) -> float:
    """Return the mean cost of runs even in ln C up to ``top``."""
    span = math.log(top / space.flops[0])
    assert space.overhead is not None
    return space.overhead + (top if span < 1e-9 else (top - space.flops[0]) / span)


def _spread(space: DesignSpace, budget: float, unit: Array, top: float) -> FixedDesign:
    """Return points of the unit cube (n, 3) as runs, without those for which the budget does not pay any more."""
    C = _between((space.flops[0], top), unit[:, 0])
    if space.sizes:
        sizes = np.array(space.sizes)
        N = sizes[np.minimum((unit[:, 1] * len(sizes)).astype(int), len(sizes) - 1)]
    else:
        N = np.sqrt(C / (6 * _between(space.ratio, unit[:, 1])))
    D = C / (6 * N)
    h = (
        None
        if space.mixes is None
        else space.mixes[np.minimum((unit[:, 2] * space.n_mixes).astype(int), space.n_mixes - 1)]
    )
    fits, cost, remaining, rows = space.allows(N, D, h), space.cost(N, D), budget, []
    for at in np.flatnonzero(fits):
        if cost[at] <= remaining:
            remaining -= cost[at]
            rows.append(at)
    return FixedDesign(N=N[rows], D=D[rows], h=None if h is None else h[rows])


def _between(ends: tuple[float, float], unit: Array) -> Array:
    return np.asarray(np.exp(math.log(ends[0]) + unit * math.log(ends[1] / ends[0])))


Maker = Callable[[DesignSpace, DesignGoal, int], Design]  # space, goal and seed


def bayesian_design(space: DesignSpace, goal: DesignGoal, seed: int = 0) -> BayesianDesign:
    """Return the design that ``propose`` makes."""
    return BayesianDesign(space=space, goal=goal, seed=seed)


def _grid(shape: IsoflopGridShape) -> Maker:
    return lambda space, goal, _seed: isoflop_grid(space, goal.budget, shape)


def _fixed(make: Callable[[DesignSpace, float, int], FixedDesign]) -> Maker:
    return lambda space, goal, seed: make(space, goal.budget, seed)


DESIGNS: Mapping[str, Maker] = {
    "bayes": bayesian_design,
    "grid": _grid(USUAL),
    **{shape.name: _grid(shape) for shape in SHAPES[1:]},
    "random": _fixed(uniform),
    "latin": _fixed(latin),
    "sobol": _fixed(sobol),
}
