"""Rows of one run at several D: which of them are finished runs, and which stand before the end of a decay.

A learning rate that decays lowers the loss at the end of a run by 1 to 5 %. Earlier checkpoints lie above the law of
finished runs, and losses alone do not show whether a rate was constant. So the last row of each run counts by default.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from skillscale.formatting import join_first, plural
from skillscale.tables.column_hints import is_run_name, may_name_runs
from skillscale.tables.column_map import ColumnMap
from skillscale.tables.points import Codes, Floats
from skillscale.tables.rows import Labels

ALL, LAST = "all", "last"  # values of the key ``checkpoints``
_SAME_TOKENS = 0.01  # ln D: rows of a run this close are one checkpoint, saved again at the end
_FEWEST_TOKENS = 3  # distinct D that a law in N and D needs
_FEWEST_RUNS = 2
_FEWEST_EVEN, _EVEN, _SAME_STEP = 4, 0.75, 0.02  # distinct D, share of equal steps between them, and their tolerance
_MANY = 0.5  # share of the runs that must have several rows before an unmapped column counts as names of runs


def note_unmapped_runs(runs: pd.DataFrame, cells: pd.DataFrame, columns: ColumnMap) -> list[str]:
    """Return a note on rows at several D that look like checkpoints, where the column map names no run.

    An unmapped column names their runs: each value has one N and one mix, and D differs between its rows. If it may
    also name models, several values have one N and mix, or D is evenly spaced. Without such a column, D is evenly
    spaced at most N. ``checkpoints: all`` silences the note.

    Args:
        runs: usable rows.
        cells: their cells.
        columns: column map.
    """
    if columns.run or columns.checkpoints == ALL or not columns.n_tokens:
        return []
    mapped = {column for _, column in columns.key_columns()}
    free = [str(name) for name in cells.columns if name not in mapped]
    sizes = np.asarray(runs.groupby(["N", "mix"], sort=False).ngroup(), dtype=np.intp)
    for name in [*filter(is_run_name, free), *filter(may_name_runs, free)]:
        if _is_history(runs, cells[name]) and (is_run_name(name) or _are_runs(runs, cells[name].to_numpy(), sizes)):
            return [
                f"column {name} names runs with rows at several D, which count as independent runs. Add run: {name} to "
                f"the column map, or checkpoints: {ALL} if they are"
            ]
    if _are_even(runs, sizes):
        keys = join_first([columns.size_column(), *columns.mix.values(), *filter(None, [columns.mix_name])], 20)
        return [
            "rows of one N have evenly spaced D, as checkpoints of a run have, and count as independent runs. Add run: "
            f"[{keys}] to the column map, or checkpoints: {ALL} if they are"
        ]
    return []


def _is_history(runs: pd.DataFrame, names: "pd.Series[Any]") -> bool:
    """Return whether each name has one N and one mix, and most names several D."""
    if names.isna().any():
        return False
    groups = runs.groupby(names.to_numpy(), sort=False)
    if groups[["N", "mix"]].nunique().gt(1).to_numpy().any():
        return False
    several = groups["D"].nunique().gt(1).to_numpy()
    return bool(several.sum() >= _FEWEST_RUNS and several.mean() >= _MANY)


def _are_runs(runs: pd.DataFrame, names: Labels, sizes: Codes) -> bool:
    """Return whether names stand for runs, rather than for models of one size each."""
    return len(pd.unique(names)) > len(pd.unique(sizes)) or _are_even(runs, names)


def _are_even(runs: pd.DataFrame, groups: Labels | Codes) -> bool:
    """Return whether D is evenly spaced in most groups with several D, as checkpoints are and designs are not."""
    several = runs["D"].groupby(groups).transform("nunique").gt(1).to_numpy()
    even = [
        _is_even(np.unique(D.to_numpy(dtype=float))) for _, D in runs["D"][several].groupby(groups[several], sort=False)
    ]
    return len(even) >= _FEWEST_RUNS and float(np.mean(even)) >= _MANY


def _is_even(tokens: Floats) -> bool:
    """Return whether most steps between several D are equal."""
    steps = np.diff(tokens)
    near = np.abs(steps / np.median(steps) - 1) < _SAME_STEP
    return len(tokens) >= _FEWEST_EVEN and float(near.mean()) >= _EVEN


def select_last(runs: pd.DataFrame, skills: tuple[str, ...], columns: ColumnMap) -> tuple[pd.DataFrame, list[str]]:
    """Return the runs with the last row of each run alone, and a note if others were there.

    A skill counts where it was measured within 1 % of the last D. Rows at that D are kept as replicates.

    Args:
        runs: usable rows.
        skills: columns of the losses.
        columns: column map; its key ``checkpoints`` decides.
    """
    if not columns.run:
        return runs, []
    groups = runs.groupby(["cluster", "N", "mix", "seed"], sort=False)["D"]
    is_last = np.log(groups.transform("max").to_numpy() / runs["D"].to_numpy()) < _SAME_TOKENS
    several = runs.loc[~is_last, "cluster"].nunique()
    if not several or columns.checkpoints == ALL:
        return runs, []
    kept = _latest_losses(runs[is_last], skills)
    notes = [] if columns.checkpoints == LAST else [_note(runs, kept, several)]
    return kept.reset_index(drop=True), notes


def _latest_losses(runs: pd.DataFrame, skills: tuple[str, ...]) -> pd.DataFrame:
    """Return the rows with the latest loss of each skill: a run's last D may come without some skills."""
    group = runs.groupby(["cluster", "N", "mix", "seed"], sort=False).ngroup()
    latest: Mapping[str, pd.Series[bool]] = {
        skill: runs["D"].eq(runs["D"].where(runs[skill].notna()).groupby(group).transform("max")) for skill in skills
    }
    runs = runs.assign(**{skill: runs[skill].where(is_latest) for skill, is_latest in latest.items()})
    has_loss = runs[list(skills)].notna().any(axis=1)
    is_end = runs["D"].eq(runs["D"].groupby(group).transform("max"))
    return runs[has_loss | (is_end & ~has_loss.groupby(group).transform("any"))]


def _note(runs: pd.DataFrame, kept: pd.DataFrame, several: int) -> str:
    note = (
        f"{plural(several, 'run')} of {runs['cluster'].nunique():,} have rows at several D: the last row of each is "
        f"used, {len(kept):,} of {plural(len(runs), 'row')}. Before the end of a learning-rate decay a loss is too "
        f"high. If the rate was constant, or a decay ends at each row, add checkpoints: {ALL} to the column map; "
        f"checkpoints: {LAST} confirms the choice"
    )
    n_tokens = len(np.unique(np.round(np.log(kept["D"].to_numpy(dtype=float)), 2)))
    if n_tokens >= _FEWEST_TOKENS:
        return note
    return f"{note}. The last rows have {n_tokens} distinct D, and a law needs {_FEWEST_TOKENS}"
