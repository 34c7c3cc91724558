"""Choosing out of a list of runs: what may be made is given, each run once, and each at a price of its own.

The belief and the plan are those of ``propose``; candidates are the runs still open. Targets may be losses at runs that
can't be made (``Target.N``): the plan then makes the predicted losses certain.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from skillscale.design.allocation import allocate_runs
from skillscale.design.discrepancy import discrepancy_basis
from skillscale.design.model_averaging import ModelAverage, average_over
from skillscale.design.priors import candidate_laws
from skillscale.design.propose import START, DesignGoal, allocation_problem
from skillscale.design.space import DesignSpace, RunHistory
from skillscale.design.targets import Quantity, Target
from skillscale.errors import InputError
from skillscale.laws.forms.nd import Array

START_SHARE = 0.05  # of what there is to spend, that the start may cost
_EDGE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Runs that may be made, each once: ``N``, ``D``, ``cost`` (n,), shares ``h`` (n, n_categories) or None.

    ``cost`` is in any unit, that of the budget. Where tokens are repeated, ``categories`` is ``(EPOCHS,)`` and ``h``
    has the logarithm of the epochs.

    Raises:
        InputError: there is no run, or one has no cost.
    """

    N: Array
    D: Array
    cost: Array
    h: Array | None = field(default=None, repr=False)
    categories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.N):
            raise InputError("the pool has no run to choose; give at least one")
        if not (np.asarray(self.cost) > 0).all():
            raise InputError(f"every run of a pool needs a cost above 0, but one has {np.min(self.cost):g}")

    def __len__(self) -> int:
        return len(self.N)

    def runs(self, at: npt.ArrayLike) -> RunHistory:
        """Some of its runs, as under way."""
        rows = np.asarray(at)
        return RunHistory(N=self.N[rows], D=self.D[rows], h=None if self.h is None else self.h[rows])

    def space(self, targets: Sequence[Target]) -> DesignSpace:
        """What the pool and the targets span, over which laws are believed."""
        C = 6 * self.N * self.D
        N, total = (np.array([getattr(one, name) for one in targets if one.N is not None]) for name in ("N", "C"))
        ratio = np.append(self.D / self.N, total / (6 * N**2) if len(N) else [])
        return DesignSpace(
            flops=(C.min() * (1 - _EDGE), C.max() * (1 + _EDGE)),
            ratio=(ratio.min() * (1 - _EDGE), ratio.max() * (1 + _EDGE)), categories=self.categories,
            mixes=None if self.h is None else np.unique(self.h, axis=0), overhead=0.0,
        )  # fmt: skip


def losses_at(runs: RunHistory, skills: Sequence[str]) -> tuple[Target, ...]:
    """The loss of every skill at every run, as targets."""
    return tuple(
        Target(
            quantity=Quantity.LOSS, skill=skill, C=float(6 * runs.N[at] * runs.D[at]), N=float(runs.N[at]),
            h=() if runs.h is None else tuple(float(one) for one in runs.h[at]),
        )
        for skill in skills
        for at in range(len(runs))
    )  # fmt: skip


def believed(history: RunHistory, pool: Pool, targets: Sequence[Target]) -> dict[str, ModelAverage]:
    """What runs tell of every skill that the targets name, over what the pool and the targets span."""
    space = pool.space(targets)
    surface = discrepancy_basis(space, max(target.C for target in targets))
    return average_over(history, candidate_laws(space), surface, targets)


def choose(
    history: RunHistory, pool: Pool, wish: DesignGoal, open_runs: Sequence[int], *, count: int = 1, seed: int = 0
) -> tuple[int, ...]:
    """The next runs to make, as places in the pool; none where none that is open can be paid for.

    Where all targets are losses the plan lowers their mean variance, else their mean ln sd. Planned runs are taken the
    cheapest first.

    Args:
        history: runs that are finished or under way.
        pool: what could be made.
        wish: what to learn, and what it may cost.
        open_runs: places in the pool of the runs that are not made yet.
        count: how many at most; at least one where one can be paid for.
        seed: of the start.
    """
    cost = np.asarray(pool.cost, dtype=float)
    payable = np.array([at for at in open_runs if cost[at] <= wish.budget * (1 + _EDGE)], dtype=int)
    if not len(payable) or wish.max_runs < 1:
        return ()
    if len(history) < START:
        return _spread(pool, payable, wish.budget, min(count, START - len(history)), seed)
    known = believed(history, pool, wish.targets)
    losses = all(target.quantity is Quantity.LOSS for target in wish.targets)
    problem = allocation_problem(known, wish.targets, pool.runs(payable), history, by_mean_variance=losses)
    counts = allocate_runs(problem, cost[payable], budget=wish.budget, max_runs=wish.max_runs, max_count=1.0)
    order = np.argsort(cost[payable], kind="stable")
    along = np.cumsum(counts[order])
    turns = np.arange(count) + 0.5
    chosen: list[int] = []
    left = wish.budget
    for at in order[np.searchsorted(along, turns[turns <= along[-1]])] if along[-1] >= 0.5 else [np.argmax(counts)]:
        if payable[at] not in chosen and cost[payable[at]] <= left * (1 + _EDGE):
            chosen.append(int(payable[at]))
            left -= cost[payable[at]]
    return tuple(chosen)


def _spread(pool: Pool, payable: npt.NDArray[np.intp], left: float, count: int, seed: int) -> tuple[int, ...]:
    """Cheap runs far from one another: each the farthest from those before, from one at random on."""
    cost = pool.cost[payable]
    cheap = payable[cost <= max(START_SHARE * left / START, np.sort(cost)[min(count, len(cost)) - 1])]
    places = np.column_stack([np.log(pool.N[cheap]), np.log(pool.D[cheap])])
    if pool.h is not None:
        places = np.hstack([places, pool.h[cheap]])
    places = (places - places.mean(0)) / np.maximum(places.std(0), _EDGE)
    chosen = [int(np.random.default_rng(seed).integers(len(cheap)))]
    while len(chosen) < min(count, len(cheap)):
        apart = ((places[:, None] - places[None, chosen]) ** 2).sum(-1).min(1)
        chosen.append(int(np.argmax(apart)))
    paid = cheap[chosen]
    return tuple(int(at) for at in paid[np.cumsum(pool.cost[paid]) <= left * (1 + _EDGE)])
