"""The runs that a prediction is tested on: those larger than the runs that it is fitted to."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from skillscale.errors import InputError
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.mix_effects import mix_names
from skillscale.laws.forms.nd import Array

Mask = npt.NDArray[np.bool_]

LEVEL_GAP = 0.1  # ln: sizes or budgets this close are one level
DUPLICATE_GAP = (
    0.01  # ln D: two checkpoints of a run this close are one measurement (saved again at the end of training)
)
MANY_LEVELS = 12  # above this number, cutoffs are quantiles of the runs instead of levels
_WIDE = 5 * LEVEL_GAP  # no sizes or budgets of one level differ by more
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
            raise InputError(f"a cutoff must be N or C above 0, but it is {self.letter} = {self.value}. Correct it.")

    def measure(self, runs: RunData) -> Array:
        """Return N or C of the runs, (n,)."""
        return runs.N if self.letter == "N" else 6 * runs.N * runs.D

    def includes(self, runs: RunData) -> Mask:
        """Return the mask of runs at or below the cutoff."""
        return np.asarray(self.measure(runs) <= self.value * (1 + 1e-9))

    def log_distance(self, runs: RunData) -> Array:
        """Return how far beyond the cutoff each run is, in logarithms, (n,); 0 below it."""
        return np.maximum(np.log(self.measure(runs) / self.value), 0.0)


def inner_cutoffs(data: Mapping[str, RunData], letter: str) -> tuple[Cutoff, ...]:
    """Return cutoffs among runs that are to be fitted: the largest level held out, and the two largest.

    Args:
        data: runs of each skill.
        letter: measure of a larger run, N or C.

    Returns:
        Cutoffs that each leave two or more sizes to fit for some skill; none where the runs have too few.
    """
    probe = Cutoff(letter=letter, value=1.0)
    sizes = np.concatenate([probe.measure(runs) for runs in data.values()])
    maxima = level_maxima(sizes)
    if len(maxima) > MANY_LEVELS:
        tops = [float(np.quantile(sizes, share)) for share in _QUANTILES]
    else:
        tops = [float(top) for top in maxima[-2 : -_FOLDS - 2 : -1]]
    cutoffs = [Cutoff(letter=letter, value=top) for top in tops]
    return tuple(cutoff for cutoff in cutoffs if any(has_enough_left(cutoff, runs) for runs in data.values()))


def level_maxima(values: Array) -> Array:
    """Return the largest value of each level, in order.

    Values so dense that they would be one level over a wide range are divided at equal steps.
    """
    ordered = np.unique(values)
    logs = np.log(ordered)
    ends = np.append(np.diff(logs) > LEVEL_GAP, True)
    if ends.sum() == 1 and logs[-1] - logs[0] > _WIDE:
        ends = np.append(np.diff(np.floor((logs - logs[0]) / LEVEL_GAP)) > 0, True)
    return np.asarray(ordered[ends])


def has_enough_left(cutoff: Cutoff, runs: RunData) -> bool:
    """Check whether a cutoff leaves a skill two sizes to fit and something to predict."""
    fitted = cutoff.includes(runs)
    if not _LEAST_ROWS <= fitted.sum() <= len(runs) - 1:
        return False
    return len(level_maxima(runs.N[fitted])) >= 2


def without_early(runs: RunData, share: float) -> RunData:
    """Return the runs without checkpoints below a share of their run's last D."""
    return runs if share <= 0 else runs.take(run_shares(runs) >= share)


def run_shares(runs: RunData) -> Array:
    """Return D of each checkpoint as a share of its run's last, (n,)."""
    codes = np.asarray(runs.clusters)
    last = np.zeros(runs.n_clusters)
    np.maximum.at(last, codes, runs.D)
    return np.asarray(runs.D / last[codes])


def has_checkpoints(runs: RunData, *, least: int = 4) -> bool:
    """Check whether the typical run has at least ``least`` checkpoints, at several D."""
    counts = np.bincount(np.asarray(runs.clusters))
    return bool(np.median(counts) >= least and np.median(run_shares(runs)) < 1 - DUPLICATE_GAP)


def checkpoint_weights(runs: RunData) -> tuple[RunData, int]:
    """Weight checkpoints of one run within 1 % in D as one, and count the checkpoints that this affects."""
    order = np.lexsort((runs.D, np.asarray(runs.clusters)))
    codes, log_D = np.asarray(runs.clusters)[order], np.log(runs.D[order])
    is_first = np.append(True, (np.diff(codes) != 0) | (np.diff(log_D) > DUPLICATE_GAP))
    group = np.empty(len(runs), dtype=np.intp)
    group[order] = np.cumsum(is_first) - 1
    n_equal = np.bincount(group)[group]
    if runs.n_clusters == len(runs) or not (n_equal > 1).any():
        return runs, 0
    return replace(runs, weights=np.asarray(runs.weights) / n_equal), int((n_equal > 1).sum())


def mix_codes(runs: RunData) -> npt.NDArray[np.intp]:
    """Return a code of the mix of each run, by its shares to 0.1 %, (n,)."""
    if runs.h is None:
        return np.zeros(len(runs), dtype=np.intp)
    return np.unique(mix_names(runs.h), return_inverse=True)[1]
