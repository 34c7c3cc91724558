"""The next runs: a start that fills the space, then a plan over the whole remaining budget, made anew at every call."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import qmc

from skillscale.laws.design.advice import Advice, Ending, Proposal, Purpose
from skillscale.laws.design.space import History, Space
from skillscale.laws.design.targets import Target
from skillscale.laws.forms import Array

START = 8  # runs before the first plan
START_SHARE = 0.1  # of the largest run, which a run of the start may cost at most


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What to learn and what it may cost: ``targets``, the FLOPs ``left``, and the half ``width`` that is enough."""

    targets: tuple[Target, ...]
    left: float = field(metadata={"unit": "FLOP, overheads included"})
    width: float = 0.0


def propose(history: History, space: Space, wish: Wish, *, count: int = 1, seed: int = 0) -> Advice:
    """The next ``count`` runs.

    Args:
        history: runs that are finished or under way.
        space: what may be run.
        wish: what to learn, and what it may cost.
        count: how many; runs of one call count as under way for the next ones.
        seed: of the start, and of ties.
    """
    proposals: list[Proposal] = []
    left = wish.left
    for N, D, h in _start(space, seed, len(history), count):
        cost = float(space.cost(N, D))
        if cost > left * (1 + 1e-9):
            break
        left -= cost
        proposals.append(Proposal(N=N, D=D, h=h, cost=cost, purpose=Purpose.START))
    return Advice(proposals=tuple(proposals), ending=None if proposals else Ending.SPENT)


def _start(space: Space, seed: int, first: int, count: int) -> Sequence[tuple[float, float, tuple[float, ...]]]:
    """Runs ``first`` and following of a space-filling start, cheap ones only."""
    cheap = min(space.flops[1], max(space.flops[0], START_SHARE * space.flops[1]))
    N, D = space.lattice(steps=41)
    keep = 6 * N * D <= cheap * (1 + 1e-6)
    if not keep.any():
        keep = 6 * N * D <= 6 * (N * D).min() * (1 + 1e-6)
    N, D = N[keep], D[keep]
    places = np.column_stack([_unit(np.log(N * D)), _unit(np.log(D / N))])
    sobol = _sobol(seed, first, count)
    found = []
    for point in sobol:
        at = int(np.argmin(((places - point[:2]) ** 2).sum(1)))
        h: tuple[float, ...] = ()
        if space.mixes is not None:
            h = tuple(float(share) for share in space.mixes[min(int(point[2] * space.n_mixes), space.n_mixes - 1)])
        found.append((float(N[at]), float(D[at]), h))
    return found


def _sobol(seed: int, first: int, count: int) -> Array:
    sampler = qmc.Sobol(3, rng=np.random.default_rng(seed))
    total = 2 ** math.ceil(math.log2(max(first + count, 2)))
    return np.asarray(sampler.random(total)[first : first + count])


def _unit(x: Array) -> Array:
    """From 0 to 1."""
    return np.asarray((x - x.min()) / max(float(np.ptp(x)), 1e-12))
