"""Near-copies of rows: one run that stands in a table several times, with losses that differ by rounding or jitter.

Seeds differ by 0.05 % and more. Losses of one point that agree to 0.01 % are copies. They are not if the other
losses of the points are so close that some agree by chance, or if losses are rounded that far.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from skillscale.formatting import plural
from skillscale.tables.points import Codes, Floats, Mask, pair_codes, point_codes

_SAME, _EQUAL = 1e-4, 1e-6  # ln L of copies, and of a single pair
_SAME_POINT = 1e-5  # ln N and ln D of copies
_ROUNDED = 2e-5  # relative step of rounding from which equal losses say nothing
_MANY_SKILLS = 3  # skills that agree at once are no chance
_TIMES_CHANCE = 4.0


def near_copies(runs: pd.DataFrame, skills: Sequence[str], settings: Codes) -> Mask:
    """Return which rows are near-copies of an earlier row: same N, D, mix and settings, and nearly the same losses.

    Args:
        runs: usable runs. Rows of one named run are never copies of each other.
        skills: columns of the losses.
        settings: code of the hyperparameters of each row.
    """
    logs = np.log(runs[list(skills)].to_numpy(dtype=float))
    informative = [at for at in range(logs.shape[1]) if not _is_rounded(np.exp(logs[:, at]))]
    if len(runs) < 2 or (not informative and len(skills) < _MANY_SKILLS):
        return np.zeros(len(runs), dtype=bool)
    groups = pair_codes(point_codes(runs, same_size=_SAME_POINT, same_tokens=_SAME_POINT), settings)
    order, apart = _neighbours(groups, logs)
    if not len(order):
        return np.zeros(len(runs), dtype=bool)
    named = runs["cluster"].to_numpy()
    common = np.isfinite(apart).any(axis=1)
    distance = np.where(common, np.where(np.isfinite(apart), apart, 0.0).max(axis=1), np.inf)
    near = (distance < _SAME) & (named[order[:, 0]] != named[order[:, 1]])
    is_chance_low = len(informative or skills) >= _MANY_SKILLS
    if not _is_beyond_chance(near, apart, distance, fewest=0 if is_chance_low else 1):
        return np.zeros(len(runs), dtype=bool)
    return _later_of_chains(len(runs), order[near])


def note_copies(copies: Mask) -> list[str]:
    """Return a note on near-copies that were dropped."""
    if not copies.any():
        return []
    return [
        f"{plural(int(copies.sum()), 'row')} of {len(copies):,} are near-copies of others, with one N, D and mix and "
        "losses within 0.01 %: each run is used once. near_copies: keep in the column map uses all"
    ]


def _is_rounded(losses: Floats) -> bool:
    """Return whether losses are rounded so far that equal ones are no evidence of copies."""
    values = losses[np.isfinite(losses)]
    if not len(values):
        return True
    step = next(
        (10.0**-digits for digits in range(9) if np.allclose(values, np.round(values, digits), rtol=1e-12)), 0.0
    )
    return bool(step / np.median(values) > _ROUNDED)


def _neighbours(groups: Codes, logs: Floats) -> tuple[Codes, Floats]:
    """Return pairs of rows that are next to each other in their group, (n, 2), and how far apart ln L is, (n, skills).

    It is NaN for a skill that one of them lacks.
    """
    most = int(np.isfinite(logs).sum(axis=0).argmax())
    lowest = np.where(np.isfinite(logs), logs, np.inf).min(axis=1)
    first = np.where(np.isfinite(logs[:, most]), logs[:, most], lowest)
    usable = np.flatnonzero(np.isfinite(first))
    ordered = usable[np.lexsort((first[usable], groups[usable]))]
    pairs = np.column_stack([ordered[:-1], ordered[1:]])
    pairs = pairs[groups[pairs[:, 0]] == groups[pairs[:, 1]]]
    return pairs, np.abs(logs[pairs[:, 0]] - logs[pairs[:, 1]])


def _is_beyond_chance(near: Mask, apart: Floats, distance: Floats, *, fewest: int) -> bool:
    """Return whether more pairs are near than the distances of the others let expect."""
    n_near = int(near.sum())
    far = np.isfinite(distance) & (distance >= _SAME)
    if not n_near or not far.any():
        return n_near > 1 or bool((distance[near] < _EQUAL).any())
    measured = apart[far][:, np.isfinite(apart[far]).any(axis=0)]
    chance = np.minimum(1.0, math.log(2) * _SAME / np.maximum(np.nanmedian(measured, axis=0), 1e-300)).prod()
    return bool(n_near > _TIMES_CHANCE * float(chance) * (n_near + far.sum()) + fewest)


def _later_of_chains(n: int, pairs: Codes) -> Mask:
    """Return all but the first row of each chain of near rows. A pair begins where the one before it ends or later."""
    chain = np.arange(n)
    for first, second in pairs.tolist():
        chain[second] = chain[first]
    return np.asarray(pd.Series(chain).groupby(chain).cumcount() > 0) & np.isin(np.arange(n), pairs)
