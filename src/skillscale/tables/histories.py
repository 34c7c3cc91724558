"""Histories whose tokens and losses are on different rows of a run, because two calls logged them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from skillscale.tables.column_hints import is_step_name

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class FilledHistory:
    """A history with the sizes of rows that lacked them.

    Args:
        frame: rows.
        note: what was filled, or empty.
        ambiguous: column whose values may belong to the row before or after, or empty.
    """

    frame: pd.DataFrame
    note: str = ""
    ambiguous: str = ""


def fill_sizes(frame: pd.DataFrame, sizes: Sequence[str], losses: Sequence[str], runs: Sequence[str]) -> FilledHistory:
    """Return the history with the tokens (and other sizes) of each row with a loss, from the rows of the same run.

    A value counts for later rows up to the next one, as a count of tokens does. A row of the same step comes first.
    Nothing is filled where a run begins with a loss and ends with tokens: they may have been logged in that order.

    Args:
        frame: rows in the order of the files.
        sizes: columns of N, D and FLOP.
        losses: columns of losses.
        runs: columns that name the run; none: all rows are one run.
    """
    has_loss = frame[list(losses)].notna().any(axis=1).to_numpy()
    lacking = [name for name in sizes if (frame[name].isna().to_numpy() & has_loss).any() and frame[name].notna().any()]
    lacking = [name for name in lacking if not (frame[name].notna().to_numpy() & has_loss).any()]
    if not lacking:
        return FilledHistory(frame=frame)
    group = frame.groupby(list(runs), sort=False, dropna=False).ngroup() if runs else pd.Series(0, index=frame.index)
    filled = frame.copy()
    for name in lacking:
        values = _of_same_step(frame, name, has_loss, group)
        if values is None:
            if _is_ambiguous(frame[name].notna().to_numpy(), has_loss, group):
                return FilledHistory(frame=frame, ambiguous=name)
            values = frame[name].groupby(group).ffill()
        filled[name] = values.where(has_loss, frame[name])
    count = int((filled.loc[has_loss, lacking].notna().all(axis=1)).sum())
    filled = _merged(filled, lacking, losses, group, has_loss)
    note = f"{count} rows with a loss take {', '.join(lacking)} from the row before them in the same run"
    return FilledHistory(frame=filled, note=note)


def _of_same_step(frame: pd.DataFrame, name: str, has_loss: Mask, group: "pd.Series[int]") -> "pd.Series[float] | None":
    """Return the values that were logged at the same step as each loss, None where no column of steps joins them."""
    for step in [str(column) for column in frame.columns if is_step_name(str(column))]:
        values = frame[name].groupby([group, frame[step]]).transform("first")
        if values[has_loss].notna().all():
            return values
    return None


def _is_ambiguous(has_size: Mask, has_loss: Mask, group: "pd.Series[int]") -> bool:
    """Return whether a run begins with a loss and ends with a size: these may be pairs of the other order."""
    kinds = pd.Series(has_loss, index=group.index)[has_size | has_loss].groupby(group)
    return bool((kinds.first() & ~kinds.last()).any())


def _merged(
    frame: pd.DataFrame, sizes: Sequence[str], losses: Sequence[str], group: "pd.Series[int]", has_loss: Mask
) -> pd.DataFrame:
    """Return the rows with the losses of one run and size in one row, where each row has other losses."""
    rows = frame[has_loss]
    keys = [group[has_loss], *(rows[name] for name in sizes)]
    if not rows[list(sizes)].notna().all(axis=1).any():
        return frame
    if rows[list(losses)].notna().groupby(keys).sum().gt(1).to_numpy().any():
        return frame
    first = rows.groupby(keys, sort=False)[list(losses)].transform("first")
    is_first = ~pd.concat(keys, axis=1).duplicated().to_numpy() | rows[list(sizes)].isna().any(axis=1).to_numpy()
    merged = rows.assign(**{name: first[name].fillna(rows[name]) for name in losses})[is_first]
    return pd.concat([frame[~has_loss], merged]).sort_index()
