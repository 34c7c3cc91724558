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
    group = pd.factorize(pd.MultiIndex.from_arrays([mix, size]))[0]
    return _levels(np.log(runs["D"].to_numpy(dtype=float)), group, same_tokens)


def _levels(values: Floats, groups: npt.NDArray[np.integer], tolerance: float) -> Codes:
    """Return a code of each value's level within its group. A level spans at most the tolerance."""
    order = np.lexsort((values, groups))
    codes = np.empty(len(values), dtype=np.intp)
    code, first, group = -1, 0.0, -1
    for at in order.tolist():
        if groups[at] != group or values[at] - first > tolerance:
            code, first, group = code + 1, values[at], groups[at]
        codes[at] = code
    return codes
