"""Which runs a prediction is tried on: those larger than the ones it is fitted to."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from skillscale.errors import InputError
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.mix_effects import mix_names
from skillscale.laws.forms.nd import Array

Mask = npt.NDArray[np.bool_]

ALIKE = 0.1  # ln: sizes or budgets this near are one level
NEAR = 0.01  # ln D: two checkpoints of one run this near are one measurement (saved once more when training ended)
MANY_LEVELS = 12  # above which levels are cut at quantiles of the runs, not between the largest and the next
_QUANTILES = (0.7, 0.5)
_FOLDS = 2
_LEAST_ROWS = 3


@dataclass(frozen=True, kw_only=True)
class Cutoff:
    """The largest size (``letter`` N, parameters) or compute (C = 6 N D, FLOP) that is fitted.

    Raises:
        InputError: another letter, or a value that is not above 0.
    """

    letter: str
    value: float

    def __post_init__(self) -> None:
        if self.letter not in ("N", "C") or not self.value > 0:
            raise InputError(f"a limit is of N or C and above 0, but it is {self.letter} = {self.value}")

    def sizes(self, points: RunData) -> Array:
        """What is limited, (n,)."""
        return points.N if self.letter == "N" else 6 * points.N * points.D

    def fits(self, points: RunData) -> Mask:
        """Runs at or below the limit."""
        return np.asarray(self.sizes(points) <= self.value * (1 + 1e-9))

    def reach(self, points: RunData) -> Array:
        """How far beyond the limit each run lies, in logarithms, (n,); 0 below it."""
        return np.maximum(np.log(self.sizes(points) / self.value), 0.0)


def inner_cutoffs(data: Mapping[str, RunData], letter: str) -> tuple[Cutoff, ...]:
    """Limits within runs that are to be fitted: the largest level held out, and the two largest.

    Args:
        data: each skill's runs.
        letter: what tells a larger run, N or C.

    Returns:
        limits, each with two sizes or more to fit for some skill; none where the runs have too few.
    """
    probe = Cutoff(letter=letter, value=1.0)
    sizes = np.concatenate([probe.sizes(points) for points in data.values()])
    found = cutoffs(sizes)
    if len(found) > MANY_LEVELS:
        tops = [float(np.quantile(sizes, share)) for share in _QUANTILES]
    else:
        tops = [float(top) for top in found[-2 : -_FOLDS - 2 : -1]]
    limits = [Cutoff(letter=letter, value=top) for top in tops]
    return tuple(limit for limit in limits if any(has_enough_left(limit, points) for points in data.values()))


def cutoffs(values: Array) -> Array:
    """The largest value of each level, in order."""
    ordered = np.unique(values)
    ends = np.append(np.diff(np.log(ordered)) > ALIKE, True)
    return np.asarray(ordered[ends])


def has_enough_left(limit: Cutoff, points: RunData) -> bool:
    """Whether a limit leaves a skill two sizes to fit, and something to predict."""
    fitted = limit.fits(points)
    if not _LEAST_ROWS <= fitted.sum() <= len(points) - 1:
        return False
    return len(cutoffs(points.N[fitted])) >= 2


def without_early(points: RunData, share: float) -> RunData:
    """The runs without checkpoints below a share of their run's last D."""
    return points if share <= 0 else points.take(run_shares(points) >= share)


def run_shares(points: RunData) -> Array:
    """D of each checkpoint as a share of its run's last, (n,)."""
    codes = np.asarray(points.clusters)
    last = np.zeros(points.n_clusters)
    np.maximum.at(last, codes, points.D)
    return np.asarray(points.D / last[codes])


def has_checkpoints(points: RunData, *, least: int = 4) -> bool:
    """Whether the typical run has several checkpoints, at several D."""
    counts = np.bincount(np.asarray(points.clusters))
    return bool(np.median(counts) >= least and np.median(run_shares(points)) < 1 - NEAR)


def checkpoint_weights(points: RunData) -> tuple[RunData, int]:
    """Checkpoints of one run within 1 % in D weigh as one together; and how many weigh less so."""
    order = np.lexsort((points.D, np.asarray(points.clusters)))
    codes, log_D = np.asarray(points.clusters)[order], np.log(points.D[order])
    begins = np.append(True, (np.diff(codes) != 0) | (np.diff(log_D) > NEAR))
    group = np.empty(len(points), dtype=np.intp)
    group[order] = np.cumsum(begins) - 1
    alike = np.bincount(group)[group]
    if points.n_clusters == len(points) or not (alike > 1).any():
        return points, 0
    return replace(points, weights=np.asarray(points.weights) / alike), int((alike > 1).sum())


def mix_codes(points: RunData) -> npt.NDArray[np.intp]:
    """Which mix each run has, by its shares to .1 %, (n,)."""
    if points.h is None:
        return np.zeros(len(points), dtype=np.intp)
    return np.unique(mix_names(points.h), return_inverse=True)[1]
