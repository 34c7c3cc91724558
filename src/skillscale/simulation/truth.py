"""Worlds whose truth is known: random ones, and those of a file, whose optima it tells or a search finds.

A search looks at losses averaged over many seeds, first over a wide range of sizes and then near the least. Where the
seed makes no difference it goes on until the optimum is exact; else it ends with a polynomial of ln L in ln N, and
groups of seeds tell the error that is left.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from skillscale.design.space import DesignSpace
from skillscale.design.targets import Quantity, Target
from skillscale.laws.forms.nd import Array
from skillscale.point import Mix
from skillscale.simulation.random_truths import SKILLS, TruthFamily, random_truth
from skillscale.simulation.replay import Measure, measure_run
from skillscale.simulation.user_function import GroundTruthFile

SEEDS = 64  # averaged over, those of the reference alone: runs of designs have seeds below FIRST_SEED
FIRST_SEED = 10**9
_FEW = 8  # for the wide search
_GROUPS = 4
_SIZES = 49
_REACH, _NEAR = math.log(300), math.log(4)
_DEGREE = 4
_RATIO = 20.0
_ROUNDS = 6


@dataclass(frozen=True, kw_only=True)
class GroundTruth:
    """A world whose truth is known.

    ``measure``: what makes its runs, by chance; ``log_optimum``: ln N* by (skill, C, shares); ``log_loss``: ln L
    without noise by (skill, N, D, shares); ``lacking``: why truths are not known, where they aren't.
    """

    skills: tuple[str, ...]
    measure: Callable[[np.random.Generator], Measure] = field(repr=False)
    log_optimum: Callable[[str, float, Array | None], float] = field(repr=False)
    log_loss: Callable[[str, float, float, Array | None], float] = field(repr=False)
    lacking: str = ""

    def truth(self, target: Target) -> float:
        """What a target would be, told exactly; NaN where it is not known."""
        h = np.array(target.h) if target.h else None
        log_N = self.log_optimum(target.skill, target.C, h)
        if target.quantity is Quantity.DIFFERENCE:
            return log_N - self.log_optimum(target.other, target.C, h)
        if target.quantity is Quantity.LOSS and np.isfinite(log_N):
            N = float(np.exp(log_N))
            return self.log_loss(target.skill, N, target.C / (6 * N), h)
        return log_N


def truth_of_family(kind: TruthFamily, seed: int, space: DesignSpace) -> GroundTruth:
    """A random world of a kind, with the categories of the space."""
    world = random_truth(kind, seed, space.categories)

    def log_loss(skill: str, N: float, D: float, h: Array | None) -> float:
        return float(world.log_loss[skill](np.array([N]), np.array([D]), None if h is None else h[None])[0])

    return GroundTruth(
        skills=SKILLS, measure=lambda rng: measure_run(world, rng), log_loss=log_loss,
        log_optimum=lambda skill, C, h: float(world.log_optimum(skill, C, h)[0]),
    )  # fmt: skip


def truth_from_file(
    file: GroundTruthFile, space: DesignSpace, mix: Mix | None, *, told: Callable[[str], None]
) -> GroundTruth:
    """The world of a file.

    Args:
        file: its functions.
        space: what may be run, and the categories of the mixes.
        mix: of every run, where the space has no mixes.
        told: is told what the reference is.

    Raises:
        InputError: ``losses`` raises, or tells no losses.
    """
    N, D = (float(z[0]) for z in space.lattice())
    shares = _Shares(space.categories, {} if mix is None else dict(mix.shares))
    first = shares.mix(None if space.mixes is None else space.mixes[0])
    again = [file.losses(N, D, first, seed) for seed in (0, 0, 1)]
    world = _FileWorld(
        file=file.of_skills(tuple(again[0])), shares=shares, seeds=1 if again[0] == again[2] else SEEDS, told=told
    )
    lacking = ""
    if file.place is None and again[0] != again[1]:
        lacking = (
            f"{file.path} has no `optimum`, and none can be searched for: losses tells another loss for the same "
            "arguments; draw its noise from the seed it is given, or define optimum(skill, flops, mix)"
        )
    return GroundTruth(
        skills=tuple(again[0]), measure=world.measure, log_loss=world.log_loss, lacking=lacking,
        log_optimum=_unknown if lacking else world.log_optimum,
    )  # fmt: skip


def _unknown(_skill: str, _C: float, _h: Array | None) -> float:
    return math.nan


@dataclass(frozen=True)
class _Shares:
    """From shares (n_categories,) to what a file is given."""

    categories: tuple[str, ...]
    constant: Mapping[str, float]

    def mix(self, h: Array | None) -> Mapping[str, float]:
        if h is None:
            return self.constant
        return {name: float(share) for name, share in zip(self.categories, h, strict=True)}


@dataclass(frozen=True, kw_only=True)
class _FileWorld:
    """Runs and references of a file; references are kept, because they take many runs."""

    file: GroundTruthFile
    shares: _Shares
    seeds: int
    told: Callable[[str], None]
    kept: dict[tuple[object, ...], float] = field(default_factory=dict)

    def measure(self, rng: np.random.Generator) -> Measure:
        def runs(N: Array, D: Array, h: Array | None) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
            rows = [
                self.file.losses(
                    N[i], D[i], self.shares.mix(None if h is None else h[i]), int(rng.integers(FIRST_SEED))
                )
                for i in range(len(N))
            ]
            pairs = {name: np.array([row[name] for row in rows]) for name in self.file.skills}
            return (
                {name: np.log(pair[:, 0]) for name, pair in pairs.items()},
                {name: pair[:, 1] / pair[:, 0] for name, pair in pairs.items()},
            )

        return runs

    def log_loss(self, skill: str, N: float, D: float, h: Array | None) -> float:
        key = ("loss", skill, N, D, _tuple(h))
        if key not in self.kept:
            at = self.file.skills.index(skill)
            self.kept[key] = float(self._losses(np.array([N]), 6 * N * D, h, self.seeds)[:, 0, at].mean())
        return self.kept[key]

    def log_optimum(self, skill: str, C: float, h: Array | None) -> float:
        key = ("optimum", skill, C, _tuple(h))
        if key not in self.kept:
            if self.file.place is not None:
                self.kept[key] = math.log(self.file.optimum(skill, C, self.shares.mix(h)))
            else:
                found = self._searched(C, h)
                self.kept.update({("optimum", name, C, _tuple(h)): value for name, (value, _) in found.items()})
                on = "" if h is None else f" on {_tuple(h)}"
                shown = ", ".join(f"{name} {math.exp(x):.4g} (+-{sem:.1%})" for name, (x, sem) in found.items())
                self.told(f"optima searched for at {C:.3g} FLOP{on}: {shown}")
        return self.kept[key]

    def _losses(self, N: Array, C: float, h: Array | None, seeds: int) -> Array:
        """Ln L, (n_seeds, n_sizes, n_skills)."""
        mix = self.shares.mix(h)
        told = [[self.file.losses(n, C / (6 * n), mix, FIRST_SEED + seed) for n in N] for seed in range(seeds)]
        return np.log([[[row[name][0] for name in self.file.skills] for row in rows] for rows in told])

    def _searched(self, C: float, h: Array | None) -> dict[str, tuple[float, float]]:
        """Ln N* and its standard error by skill; NaN where the loss has no minimum among the sizes looked at."""
        x = 0.5 * math.log(C / 6 / _RATIO) + np.linspace(-_REACH, _REACH, _SIZES)
        wide = self._losses(np.exp(x), C, h, min(self.seeds, _FEW)).mean(0)
        places = wide.argmin(0)
        inside = (places > 0) & (places < _SIZES - 1)
        if self.seeds == 1:
            near = [self._exact(C, h, i, float(x[place])) for i, place in enumerate(places)]
            found = [(value, 0.0) for value in near]
        else:
            fine = np.linspace(x[places].min() - _NEAR, x[places].max() + _NEAR, _SIZES)
            log_L = self._losses(np.exp(fine), C, h, self.seeds)
            found = [_lowest(fine, log_L[:, :, i], float(x[place])) for i, place in enumerate(places)]
        return {
            name: one if kept else (math.nan, math.nan)
            for name, one, kept in zip(self.file.skills, found, inside, strict=True)
        }

    def _exact(self, C: float, h: Array | None, skill: int, middle: float) -> float:
        reach = 2 * _REACH / (_SIZES - 1)
        for _ in range(_ROUNDS):
            x = np.linspace(middle - reach, middle + reach, 11)
            middle = float(x[self._losses(np.exp(x), C, h, 1)[0, :, skill].argmin()])
            reach /= 5
        return middle


def _lowest(x: Array, log_L: Array, middle: float) -> tuple[float, float]:
    """Place of the least of a polynomial near ``middle``, of all seeds, and its error by groups of them."""
    near = np.abs(x - middle) <= _NEAR
    dense = np.linspace(-_NEAR, _NEAR, 2001)

    def least(values: Array) -> float:
        return middle + float(dense[np.polyval(np.polyfit(x[near] - middle, values, _DEGREE), dense).argmin()])

    groups = [least(log_L[group::_GROUPS, near].mean(0)) for group in range(_GROUPS)]
    return least(log_L[:, near].mean(0)), float(np.std(groups, ddof=1)) / math.sqrt(_GROUPS)


def _tuple(h: Array | None) -> tuple[float, ...]:
    return () if h is None else tuple(float(share) for share in h)
