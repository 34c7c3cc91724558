"""The Bayesian design for a pool: a list of possible runs, each once and with its cost.

Posterior and plan are those of ``propose``. Candidates are the runs that are not made yet. Targets may be losses at
runs that can't be made (``Target.N``): the plan then makes the predicted losses precise.
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

START_SHARE = 0.05  # share of the budget for the start
_EDGE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Possible runs, each once: ``N``, ``D``, ``cost`` (n,), shares ``h`` (n, n_categories) or None.

    ``cost`` is in any unit, that of the budget. Where tokens are repeated, ``categories`` is ``(EPOCHS,)`` and ``h``
    is the logarithm of the epochs.

    Raises:
        InputError: there is no run, or a run has no cost.
    """

    N: Array
    D: Array
    cost: Array
    h: Array | None = field(default=None, repr=False)
    categories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.N):
            raise InputError("the pool has no run. Give at least one")
        if not (np.asarray(self.cost) > 0).all():
            raise InputError(f"the lowest cost in the pool is {np.min(self.cost):g}. Give each run a cost above 0")

    def __len__(self) -> int:
        return len(self.N)

    def runs(self, at: npt.ArrayLike) -> RunHistory:
        """Return some of the runs as a history without losses."""
        rows = np.asarray(at)
        return RunHistory(N=self.N[rows], D=self.D[rows], h=None if self.h is None else self.h[rows])

    def space(self, targets: Sequence[Target]) -> DesignSpace:
        """Return the space that the pool and the targets span."""
        C = 6 * self.N * self.D
        N, total = (
            np.array([getattr(target, name) for target in targets if target.N is not None]) for name in ("N", "C")
        )
        ratio = np.append(self.D / self.N, total / (6 * N**2) if len(N) else [])
        return DesignSpace(
            flops=(C.min() * (1 - _EDGE), C.max() * (1 + _EDGE)),
            ratio=(ratio.min() * (1 - _EDGE), ratio.max() * (1 + _EDGE)), categories=self.categories,
            mixes=None if self.h is None else np.unique(self.h, axis=0), overhead=0.0,
        )  # fmt: skip


def losses_at(runs: RunHistory, skills: Sequence[str]) -> tuple[Target, ...]:
    """Return the loss of every skill at every run as targets."""
    return tuple(
        Target(
            quantity=Quantity.LOSS, skill=skill, C=float(6 * runs.N[at] * runs.D[at]), N=float(runs.N[at]),
            h=() if runs.h is None else tuple(map(float, runs.h[at])),
        )
        for skill in skills
        for at in range(len(runs))
    )  # fmt: skip


def average_for_pool(history: RunHistory, pool: Pool, targets: Sequence[Target]) -> dict[str, ModelAverage]:
    """Return the averaged posterior of every skill that the targets name, over the space of pool and targets."""
    space = pool.space(targets)
    discrepancy = discrepancy_basis(space, max(target.C for target in targets))
    return average_over(history, candidate_laws(space), discrepancy, targets)


def choose_from_pool(
    history: RunHistory, pool: Pool, goal: DesignGoal, open_runs: Sequence[int], *, count: int = 1, seed: int = 0
) -> tuple[int, ...]:
    """Return the next runs as indices in the pool; none where the budget pays for no open run.

    Where all targets are losses the plan lowers their mean variance, else their mean ln sd. Planned runs are chosen
    cheapest first.

    Args:
        history: runs that are finished or under way.
        pool: possible runs.
        goal: targets and limits.
        open_runs: indices of the runs that are not made yet.
        count: most runs to return; at least one where the budget pays for it.
        seed: seed of the start.
    """
    cost = np.asarray(pool.cost, dtype=float)
    payable = np.array([at for at in open_runs if cost[at] <= goal.budget * (1 + _EDGE)], dtype=int)
    if not len(payable) or goal.max_runs < 1:
        return ()
    if len(history) < START:
        return _spread(pool, payable, goal.budget, min(count, START - len(history)), seed)
    averages = average_for_pool(history, pool, goal.targets)
    only_losses = all(target.quantity is Quantity.LOSS for target in goal.targets)
    problem = allocation_problem(averages, goal.targets, pool.runs(payable), history, by_mean_variance=only_losses)
    counts = allocate_runs(problem, cost[payable], budget=goal.budget, max_runs=goal.max_runs, max_count=1.0)
    order = np.argsort(cost[payable], kind="stable")
    cumulative = np.cumsum(counts[order])
    turns = np.arange(count) + 0.5
    planned = order[np.searchsorted(cumulative, turns[turns <= cumulative[-1]])]
    chosen: list[int] = []
    budget = goal.budget
    for at in planned if cumulative[-1] >= 0.5 else [np.argmax(counts)]:
        if payable[at] not in chosen and cost[payable[at]] <= budget * (1 + _EDGE):
            chosen.append(int(payable[at]))
            budget -= cost[payable[at]]
    return tuple(chosen)


def _spread(pool: Pool, payable: npt.NDArray[np.intp], budget: float, count: int, seed: int) -> tuple[int, ...]:
    """Return cheap runs far from one another: a random one, then each the farthest from those before."""
    cost = pool.cost[payable]
    cheap = payable[cost <= max(START_SHARE * budget / START, np.sort(cost)[min(count, len(cost)) - 1])]
    places = np.column_stack([np.log(pool.N[cheap]), np.log(pool.D[cheap])])
    if pool.h is not None:
        places = np.hstack([places, pool.h[cheap]])
    places = (places - places.mean(0)) / np.maximum(places.std(0), _EDGE)
    chosen = [int(np.random.default_rng(seed).integers(len(cheap)))]
    while len(chosen) < min(count, len(cheap)):
        distance = ((places[:, None] - places[None, chosen]) ** 2).sum(-1).min(1)
        chosen.append(int(np.argmax(distance)))
    runs = cheap[chosen]
    return tuple(int(at) for at in runs[np.cumsum(pool.cost[runs]) <= budget * (1 + _EDGE)])
