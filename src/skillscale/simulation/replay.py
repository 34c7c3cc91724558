"""The replay of a design on a truth: it proposes runs, sees their losses as they end, and stops with its budget."""

import heapq
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from skillscale.design.space import DesignSpace, RunHistory
from skillscale.errors import InputError
from skillscale.formatting import format_count
from skillscale.laws.forms.nd import Array
from skillscale.simulation.truth import Truth

Runs = tuple[Array, Array, Array | None]  # N, D (n,), shares (n, n_categories) or None
NO_RUNS: Runs = (np.zeros(0), np.zeros(0), None)
_SLACK = 1e-9


class Design(Protocol):
    """A rule that chooses runs. It has no memory: it depends on the history and on what it was made with."""

    def next_runs(self, history: RunHistory, budget: float, count: int, rng: np.random.Generator) -> Runs:
        """Return at most ``count`` runs that together cost at most ``budget``, FLOP with overheads; none to stop."""


@dataclass(frozen=True, kw_only=True)
class ReplaySettings:
    """Conditions of a replay.

    ``batch``: runs proposed at once. ``workers``: runs under way at once, each for a time in proportion to its cost.
    ``max_runs``: most runs in all, by default without a limit.
    """

    budget: float = field(metadata={"unit": "FLOP, overheads included"})
    batch: int = 4
    workers: int = 1
    max_runs: int | None = None


def run_design(
    truth: Truth,
    design: Design,
    space: DesignSpace,
    start: RunHistory,
    settings: ReplaySettings,
    *,
    noise_rng: np.random.Generator,
    design_rng: np.random.Generator,
) -> RunHistory:
    """Return all runs that the design makes, ``start`` included.

    A free worker takes the next proposed run. Without one, the design proposes more, and sees the runs of the other
    workers as under way. So with one worker it sees every loss of a batch before it proposes the next.

    Args:
        truth: losses of the runs.
        design: design to replay.
        space: allowed runs and their cost.
        start: runs made before, at no cost.
        settings: budget, batch and workers.
        noise_rng: random numbers for the noise of the runs.
        design_rng: random numbers for the design.

    Raises:
        InputError: the design proposes a run outside the space.
    """
    made, is_finished = start, np.ones(len(start), dtype=bool)
    budget, clock, n_started = settings.budget, 0.0, len(start)
    running: list[tuple[float, int]] = []  # end and index of each
    while True:
        if n_started == len(made):
            room = settings.batch if settings.max_runs is None else min(settings.batch, settings.max_runs - len(made))
            seen = _as_seen(made, is_finished)
            N, D, h = _affordable_runs(design, space, seen, budget, room, design_rng) if room > 0 else NO_RUNS
            if len(N):
                budget -= float(space.cost(N, D).sum())
                made = made.with_runs(N, D, h, *truth.measure(N, D, h, noise_rng))
                is_finished = np.append(is_finished, np.zeros(len(N), dtype=bool))
        has_waiting = n_started < len(made)
        while n_started < len(made) and len(running) < settings.workers:
            end = clock + float(space.cost(made.N[n_started], made.D[n_started]))
            heapq.heappush(running, (end, n_started))
            n_started += 1
        if not running:
            return made
        if len(running) == settings.workers or not has_waiting:
            clock, at = heapq.heappop(running)
            is_finished[at] = True


def _affordable_runs(
    design: Design, space: DesignSpace, seen: RunHistory, budget: float, count: int, rng: np.random.Generator
) -> Runs:
    """Return what a design proposes, as far as the budget pays for it."""
    N, D, h = design.next_runs(seen, budget, count, rng)
    outside = ~space.allows(N, D, h)
    if outside.any():
        at = int(np.argmax(outside))
        raise InputError(
            f"{type(design).__name__} proposes N = {format_count(N[at])}, D = {format_count(D[at])}, which is outside "
            "the space. Let it choose among the allowed runs"
        )
    paid = np.flatnonzero(np.cumsum(space.cost(N, D)) <= budget * (1 + _SLACK))[:count]
    return N[paid], D[paid], None if h is None else h[paid]


def _as_seen(made: RunHistory, is_finished: npt.NDArray[np.bool_]) -> RunHistory:
    """Return the runs without the losses of those under way."""
    return replace(
        made, log_L={skill: np.where(is_finished, log_L, np.nan) for skill, log_L in made.log_L.items()},
        sem={skill: np.where(is_finished, sem, np.nan) for skill, sem in made.sem.items()},
    )  # fmt: skip
