"""A design on trial: asked for runs, told their losses as they end, until its budget is spent."""

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from skillscale.design.space import DesignSpace, RunHistory
from skillscale.errors import InputError
from skillscale.laws.forms.nd import Array
from skillscale.simulation.random_truths import RandomTruth

Runs = tuple[Array, Array, Array | None]  # N, D (n,), shares (n, n_categories) or None
Measure = Callable[[Array, Array, Array | None], tuple[Mapping[str, Array], Mapping[str, Array]]]
NO_RUNS: Runs = (np.zeros(0), np.zeros(0), None)
_SLACK = 1e-9


class Design(Protocol):
    """What chooses runs. It remembers nothing: all it goes by is the history, and what it was made with."""

    def next_runs(self, history: RunHistory, left: float, count: int, rng: np.random.Generator) -> Runs:
        """At most ``count`` runs that together cost at most ``left``, in FLOP with overheads; none to end."""


@dataclass(frozen=True, kw_only=True)
class ReplaySettings:
    """On which terms a design is tried.

    ``batch``: runs asked for at once; ``workers``: runs under way at once, each as long as its FLOPs; ``most``: runs in
    all, no limit by default.
    """

    budget: float = field(metadata={"unit": "FLOP, overheads included"})
    batch: int = 4
    workers: int = 1
    most: int | None = None


def measure_run(world: RandomTruth, rng: np.random.Generator) -> Measure:
    """Runs of a world, without standard errors: nobody knows them."""

    def measure(N: Array, D: Array, h: Array | None) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
        log_L = world.observe(N, D, h, rng)
        return log_L, {name: np.zeros(len(N)) for name in log_L}

    return measure


def run_design(
    measure: Measure,
    design: Design,
    space: DesignSpace,
    start: RunHistory,
    terms: ReplaySettings,
    *,
    rng: np.random.Generator,
) -> RunHistory:
    """All runs that the design makes, ``start`` included.

    A worker that is free takes the next of the runs asked for; where there is none left, the design is asked again,
    with the runs of the other workers under way. So with one worker it sees every loss of a batch before the next.

    Args:
        measure: makes runs: ln L and its standard error by skill.
        design: what is tried.
        space: what may be run, and what runs cost.
        start: runs there are already; they cost nothing.
        terms: the budget and its terms.
        rng: chance of the design.

    Raises:
        InputError: the design asks for a run outside the space.
    """
    known, ended = start, np.ones(len(start), dtype=bool)
    left, clock, begun = terms.budget, 0.0, len(start)
    running: list[tuple[float, int]] = []  # when each ends, and which it is
    while True:
        if begun == len(known):
            room = terms.batch if terms.most is None else min(terms.batch, terms.most - len(known))
            N, D, h = _asked(design, space, _seen(known, ended), left, room, rng) if room > 0 else NO_RUNS
            if len(N):
                left -= float(space.cost(N, D).sum())
                known = known.with_runs(N, D, h, *measure(N, D, h))
                ended = np.append(ended, np.zeros(len(N), dtype=bool))
        got = begun < len(known)
        while begun < len(known) and len(running) < terms.workers:
            heapq.heappush(running, (clock + float(space.cost(known.N[begun], known.D[begun])), begun))
            begun += 1
        if not running:
            return known
        if len(running) == terms.workers or not got:
            clock, at = heapq.heappop(running)
            ended[at] = True


def _asked(
    design: Design, space: DesignSpace, seen: RunHistory, left: float, count: int, rng: np.random.Generator
) -> Runs:
    """What a design asks for, as far as it may be paid for."""
    N, D, h = design.next_runs(seen, left, count, rng)
    outside = ~space.allows(N, D, h)
    if outside.any():
        at = int(np.argmax(outside))
        raise InputError(
            f"{type(design).__name__} asks for N = {N[at]:.4g}, D = {D[at]:.4g}, which lies outside the space; let it "
            "choose among what the space allows"
        )
    paid = np.flatnonzero(np.cumsum(space.cost(N, D)) <= left * (1 + _SLACK))[:count]
    return N[paid], D[paid], None if h is None else h[paid]


def _seen(known: RunHistory, ended: npt.NDArray[np.bool_]) -> RunHistory:
    """The runs as a design may see them: without the losses of those under way."""
    return replace(
        known, log_L={name: np.where(ended, log_L, np.nan) for name, log_L in known.log_L.items()},
        sem={name: np.where(ended, sem, np.nan) for name, sem in known.sem.items()},
    )  # fmt: skip
