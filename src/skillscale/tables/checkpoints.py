"""Rows of one run at several D: which of them are finished runs, and which stand before the end of a decay.

A learning rate that decays lowers the loss at the end of a run by 1 to 5 %. Earlier checkpoints lie above the law of
finished runs, and losses alone do not show whether a rate was constant. So the last row of each run counts by default.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from skillscale.formatting import plural
from skillscale.tables.column_hints import is_run_name
from skillscale.tables.column_map import ColumnMap

ALL, LAST = "all", "last"  # values of the key ``checkpoints``
_SAME_TOKENS = 0.01  # ln D: rows of a run this close are one checkpoint, saved again at the end
_FEWEST_TOKENS = 3  # distinct D that a law in N and D needs
_FEWEST_RUNS = 2
_MANY = 0.5  # share of the runs that must have several rows before an unmapped column counts as names of runs


def note_unmapped_runs(cells: pd.DataFrame, columns: ColumnMap) -> list[str]:
    """Return a note on an unmapped column that names runs with rows at several D.

    Each of its values has one N and one mix, and D differs between its rows. ``checkpoints: all`` silences the note.
    """
    if columns.run or columns.checkpoints == ALL or not columns.n_tokens:
        return []
    fixed = [*list(columns.n_params.values())[:1], *columns.mix.values(), *filter(None, [columns.mix_name])]
    mapped = {column for _, column in columns.key_columns()}
    names = [name for name in cells.columns if name not in mapped and is_run_name(str(name))]
    runs = [str(name) for name in names if _is_history(cells, str(name), fixed, columns.n_tokens)]
    return [
        f"column {name} names runs with rows at several D, which count as independent runs. Add run: {name} to the "
        f"column map, or checkpoints: {ALL} if they are"
        for name in runs[:1]
    ]


def _is_history(cells: pd.DataFrame, name: str, fixed: list[str], tokens: str) -> bool:
    if cells[name].isna().any():
        return False
    groups = cells.groupby(name, sort=False)
    if fixed and groups[fixed].nunique().gt(1).to_numpy().any():
        return False
    several = groups[tokens].nunique().gt(1).to_numpy()
    return bool(several.sum() >= _FEWEST_RUNS and several.mean() >= _MANY)


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
