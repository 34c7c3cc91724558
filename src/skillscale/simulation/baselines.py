"""Designs to compare with: isoFLOP grids, points spread at random or evenly, and ours as one of them.

Most are plans: all their runs are chosen beforehand from the space and the budget, whatever the losses say.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from scipy.stats import qmc

from skillscale.design.propose import DesignGoal, propose
from skillscale.design.space import DesignSpace, RunHistory
from skillscale.design.targets import Target
from skillscale.errors import InputError
from skillscale.laws.forms.nd import Array
from skillscale.simulation.replay import Design, Runs

CENTRE = 20.0  # D / N at the middle of a grid, where one would guess the optimum
REACH = 100.0  # largest over smallest budget of a grid
LEAST_RUNS = 12  # that points spread over the space are to be: a small budget lowers the largest run
_SPREAD = 4096  # points spread at most
_HALVINGS = 50


@dataclass(frozen=True, kw_only=True)
class FixedDesign:
    """Runs in a fixed order, whatever they tell: ``N``, ``D`` (n,), shares ``h`` (n, n_categories) or None.

    ``first``: runs that were there before the plan's.
    """

    N: Array = field(repr=False)
    D: Array = field(repr=False)
    h: Array | None = field(default=None, repr=False)
    first: int = 0

    def next_runs(self, history: RunHistory, left: float, count: int, rng: np.random.Generator) -> Runs:
        """The runs of the plan that follow on those made."""
        del left, rng
        some = slice(len(history) - self.first, len(history) - self.first + count)
        return self.N[some], self.D[some], None if self.h is None else self.h[some]


@dataclass(frozen=True, kw_only=True)
class BayesianDesign:
    """Runs that ``propose`` chooses."""

    space: DesignSpace = field(repr=False)
    targets: tuple[Target, ...] = field(repr=False)
    width: float = 0.0
    seed: int = 0
    most: float = math.inf

    def next_runs(self, history: RunHistory, left: float, count: int, rng: np.random.Generator) -> Runs:
        """What is proposed; none where it ends."""
        del rng
        wish = DesignGoal(
            targets=self.targets, budget=left, target_half_width=self.width, max_runs=self.most - len(history)
        )
        found = propose(history, self.space, wish, count=count, seed=self.seed).proposals
        N, D = np.array([one.N for one in found]), np.array([one.D for one in found])
        return (
            N,
            D,
            None
            if self.space.mixes is None
            else np.array([one.h for one in found]).reshape(len(found), len(self.space.categories)),
        )


@dataclass(frozen=True, kw_only=True)
class IsoflopGridShape:
    """An isoFLOP grid: at each of ``budgets``, even in ln C, ``sizes`` even in ln N from 1/span to span of the middle.

    The largest budget is ``reach`` times the smallest.
    """

    sizes: int = 7
    budgets: int = 5
    span: float = 4.0
    reach: float = REACH

    @property
    def name(self) -> str:
        """As in ``grid-7x5-4``: sizes, budgets, span."""
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
    """A grid that spends a budget, cheapest runs first; each mix gets the same, but for runs past its supply.

    The largest of its budgets follows from what may be spent, up to the largest run of the space. A budget beyond that
    is spent on copies (other seeds), what is left on a grid of smaller runs. Where not even the smallest runs of the
    space make a grid, it has fewer rungs.

    Args:
        space: what may be run.
        budget: FLOP, overheads included.
        shape: of the grid.

    Raises:
        InputError: the budget buys not even the sizes at the least FLOPs.
    """
    each = budget / space.n_mixes
    whole = _rungs(space, shape, space.flops[1], shape.budgets)
    price = float(space.cost(*whole).sum())
    copies = int(each / price * (1 + 1e-9))
    rest = _grid_for(space, shape, each - copies * price, fewest=shape.budgets if copies else 1)
    if rest is None and not copies:
        raise InputError(
            f"{budget:.3g} FLOP buy no grid of {shape.sizes} sizes over {space.n_mixes} mixes, which takes "
            f"{space.n_mixes * float(space.cost(*_rungs(space, shape, space.flops[0], 1)).sum()):.3g}; raise the budget"
        )
    parts = [whole] * copies + ([] if rest is None else [rest])
    N, D = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    h = None if space.mixes is None else np.repeat(space.mixes, len(N), axis=0)
    N, D = np.tile(N, space.n_mixes), np.tile(D, space.n_mixes)
    order = np.argsort(N * D, kind="stable")
    order = order[space.allows(N, D, h)[order]]
    return FixedDesign(N=N[order], D=D[order], h=None if h is None else h[order])


def _grid_for(space: DesignSpace, shape: IsoflopGridShape, budget: float, *, fewest: int) -> tuple[Array, Array] | None:
    """The grid with the largest runs that a budget buys, with as many rungs as it buys."""
    for budgets in range(shape.budgets, fewest - 1, -1):
        made = partial(_rungs, space, shape, budgets=budgets)
        if space.cost(*made(space.flops[0])).sum() > budget:
            continue
        low, high = (math.log(C) for C in space.flops)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if space.cost(*made(math.exp(middle))).sum() <= budget else (low, middle)
        return made(math.exp(low))
    return None


def _rungs(space: DesignSpace, shape: IsoflopGridShape, top: float, budgets: int) -> tuple[Array, Array]:
    """N and D of a grid whose largest budget is ``top``."""
    lowest = max(space.flops[0], top / shape.reach)
    ladder = np.geomspace(lowest, top, budgets) if budgets > 1 else np.array([top])
    N = [_sizes(space, shape, float(C)) for C in ladder]
    return np.concatenate(N), np.concatenate([C / (6 * sizes) for C, sizes in zip(ladder, N, strict=True)])


def _sizes(space: DesignSpace, shape: IsoflopGridShape, C: float) -> Array:
    """Sizes at a budget, within the limits; the nearest of the ladder where models come in one."""
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
    """Least and largest N at a budget, by each limit of the space."""
    yield space.n_params
    yield C / 6 / space.n_tokens[1], C / 6 / space.n_tokens[0]
    yield math.sqrt(C / 6 / space.ratio[1]), math.sqrt(C / 6 / space.ratio[0])


def sobol(space: DesignSpace, budget: float, seed: int = 0) -> FixedDesign:
    """Points of a scrambled Sobol sequence in ln C, ln D/N and the mixes, as long as the budget lasts."""
    return spread(space, budget, seed, top=largest(space, budget))


def spread(space: DesignSpace, budget: float, seed: int, *, top: float) -> FixedDesign:
    """Sobol points whose runs take at most ``top`` FLOP, as long as the budget lasts."""
    unit = qmc.Sobol(3, rng=np.random.default_rng(seed)).random(_SPREAD)
    return _spread(space, budget, np.asarray(unit), top)


def uniform(space: DesignSpace, budget: float, seed: int = 0) -> FixedDesign:
    """Points at random in ln C, ln D/N and the mixes, as long as the budget lasts."""
    return _spread(space, budget, np.random.default_rng(seed).random((_SPREAD, 3)), largest(space, budget))


def latin(space: DesignSpace, budget: float, seed: int = 0) -> FixedDesign:
    """A Latin hypercube in ln C, ln D/N and the mixes, of as many points as the budget is expected to buy."""
    rng = np.random.default_rng(seed)
    top = largest(space, budget)
    count = max(2, round(budget / _mean_cost(space, top)))
    cubes = [qmc.LatinHypercube(3, rng=rng).random(count) for _ in range(max(2, min(20, _SPREAD // count)))]
    return _spread(space, budget, np.vstack(cubes), top)


def largest(space: DesignSpace, budget: float) -> float:
    """FLOPs of the largest run with which runs even in ln C are ``LEAST_RUNS``, or that of the space."""
    low, high = (math.log(C) for C in space.flops)
    if budget >= LEAST_RUNS * _mean_cost(space, space.flops[1]):
        return space.flops[1]
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        enough = budget >= LEAST_RUNS * _mean_cost(space, math.exp(middle))
        low, high = (middle, high) if enough else (low, middle)
    return math.exp(low)


def _mean_cost(space: DesignSpace, top: float) -> float:
    """Mean cost of runs even in ln C up to ``top``."""
    span = math.log(top / space.flops[0])
    assert space.overhead is not None
    return space.overhead + (top if span < 1e-9 else (top - space.flops[0]) / span)


def _spread(space: DesignSpace, budget: float, unit: Array, top: float) -> FixedDesign:
    """Points of the unit cube (n, 3) as runs, as many as the budget pays for; one that it doesn't pay for is passed."""
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
    fits, cost, left, taken = space.allows(N, D, h), space.cost(N, D), budget, []
    for at in np.flatnonzero(fits):
        if cost[at] <= left:
            left -= cost[at]
            taken.append(at)
    return FixedDesign(N=N[taken], D=D[taken], h=None if h is None else h[taken])


def _between(ends: tuple[float, float], unit: Array) -> Array:
    return np.asarray(np.exp(math.log(ends[0]) + unit * math.log(ends[1] / ends[0])))


def bayesian_design(space: DesignSpace, wish: DesignGoal, seed: int = 0) -> BayesianDesign:
    """Runs that ``propose`` chooses."""
    return BayesianDesign(
        space=space, targets=wish.targets, width=wish.target_half_width, seed=seed, most=wish.max_runs
    )


def _grid(shape: IsoflopGridShape) -> "Maker":
    return lambda space, wish, _seed: isoflop_grid(space, wish.budget, shape)


def _planned(make: Callable[[DesignSpace, float, int], FixedDesign]) -> "Maker":
    return lambda space, wish, seed: make(space, wish.budget, seed)


Maker = Callable[[DesignSpace, DesignGoal, int], Design]
DESIGNS: Mapping[str, Maker] = {
    "ours": bayesian_design,
    "grid": _grid(USUAL),
    **{shape.name: _grid(shape) for shape in SHAPES[1:]},
    "random": _planned(uniform),
    "latin": _planned(latin),
    "sobol": _planned(sobol),
}
