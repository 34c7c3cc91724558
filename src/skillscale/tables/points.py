"""Points of a table: rows with one mix, one N and nearly one D."""

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

_SAME_SIZE, _SAME_TOKENS = 0.002, 0.01  # ln N and ln D of one point: whole batches make D differ a little


def point_codes(runs: pd.DataFrame, *, same_size: float = _SAME_SIZE, same_tokens: float = _SAME_TOKENS) -> Codes:
    """Return a code of the point (N, D, mix) of each row, with ln N and ln D equal up to a tolerance."""
    mix = pd.factorize(runs["mix"])[0]
    size = _levels(np.log(runs["N"].to_numpy(dtype=float)), np.zeros(len(runs), dtype=np.intp), same_size)
    return _levels(np.log(runs["D"].to_numpy(dtype=float)), pair_codes(mix, size), same_tokens)


def pair_codes(codes: npt.NDArray[np.integer], others: npt.NDArray[np.integer]) -> Codes:
    """Return a code of each pair of codes from 0, in the order of their first rows."""
    pairs = np.asarray(codes, dtype=np.int64) * (int(others.max(initial=0)) + 1) + others
    return np.asarray(pd.factorize(pairs)[0], dtype=np.intp)


def _levels(values: Floats, groups: npt.NDArray[np.integer], tolerance: float) -> Codes:
    """Return a code of each value's level within its group. A level spans at most the tolerance."""
    order = np.lexsort((values, groups))
    ordered = values[order]
    is_first = np.append(True, (np.diff(groups[order]) != 0) | (np.diff(ordered) > tolerance))[: len(ordered)]
    starts = np.flatnonzero(is_first)
    ends = np.append(starts[1:], len(ordered))
    for start, end in zip(starts.tolist(), ends[: len(starts)].tolist(), strict=True):
        if end - start > 1 and ordered[end - 1] - ordered[start] > tolerance:
            is_first[_level_starts(ordered[start:end], tolerance) + start] = True
    codes = np.empty(len(values), dtype=np.intp)
    codes[order] = np.cumsum(is_first) - 1
    return codes


def _level_starts(ordered: Floats, tolerance: float) -> Codes:
    """Return the places at which levels of ascending values begin, after the first."""
    starts: list[int] = []
    first = 0
    while True:
        # Not beyond the next level, whatever the sum is rounded to
        near = ordered[first] + tolerance * (1 - 1e-6) - 1e-12
        after = max(int(np.searchsorted(ordered, near)), first + 1)
        while after < len(ordered) and not ordered[after] - ordered[first] > tolerance:
            after += 1
        if after >= len(ordered):
            return np.array(starts, dtype=np.intp)
        starts.append(after)
        first = after
