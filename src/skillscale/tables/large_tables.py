"""The rows that are fitted in place of a table whose fit would take hours."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from skillscale.tables.run_table import RunTable

MAX_ROWS = 10_000
_LEAST_ROWS = 2_500
_LOSSES = 40_000  # of all skills: the time of a fit goes with these
_ROWS_OF_A_RUN = 4  # at least this many of each run, before runs are dropped
_MANY_MIXES = 100  # above this number mixes are no groups
_ROWS_OF_A_MIX = 50

Places = npt.NDArray[np.int64]


def thin_table(table: RunTable) -> RunTable:
    """Return a table whose rows can be fitted in minutes: all of them up to 10,000, else rows spread over C.

    Of each run the last row stays, and rows spread over D. If runs must be dropped, those that stay are spread over
    C = 6 N D within each mix, from the smallest to the largest. The choice does not depend on chance.
    """
    runs = table.runs
    if len(runs) <= MAX_ROWS:
        return table
    most = min(max(_LOSSES // len(table.skills), _LEAST_ROWS), MAX_ROWS)
    ordered = runs.assign(place=np.arange(len(runs)), flops=runs["N"] * runs["D"])
    of_run = max(most // int(runs["cluster"].nunique()), _ROWS_OF_A_RUN)
    kept = ordered[_spread_in_groups(ordered, "cluster", "D", of_run)]
    if len(kept) > most:
        kept = _keep_some_runs(kept, most / len(kept))
    places = np.sort(kept["place"].to_numpy())
    note = (
        f"fits take {len(places):,} of the {len(runs):,} rows, spread over C from the smallest run to the largest: all "
        "rows would take hours"
    )
    return replace(table, runs=runs.iloc[places].reset_index(drop=True), notes=(*table.notes, note))


def _keep_some_runs(rows: pd.DataFrame, share: float) -> pd.DataFrame:
    """Return the rows of a share of the runs, spread over C within each mix."""
    last = rows.sort_values("D", kind="stable").drop_duplicates("cluster", keep="last")
    if last["mix"].nunique() > _MANY_MIXES:
        last = last.assign(mix="")
    sizes = last.groupby("mix", sort=False)["mix"].transform("size")
    quota = np.maximum(np.floor(sizes * share), np.minimum(sizes, _ROWS_OF_A_MIX)).astype(int)
    names = [
        name
        for _, group in last.assign(quota=quota).groupby("mix", sort=False)
        for name in _spread(
            group.sort_values("flops", kind="stable")["cluster"].to_numpy(), int(group["quota"].iloc[0])
        )
    ]
    return rows[rows["cluster"].isin(set(names))]


def _spread(values: npt.NDArray[np.object_], count: int) -> npt.NDArray[np.object_]:
    """Return ``count`` of the values, evenly spread, with both ends."""
    places = np.round(np.linspace(0, len(values) - 1, max(count, 2)))
    return np.asarray(values[np.unique(places.astype(int))])


def _spread_in_groups(rows: pd.DataFrame, group: str, by: str, count: int) -> npt.NDArray[np.bool_]:
    """Return a mask of at most ``count`` rows of each group, evenly spread over a column, with the last."""
    ordered = rows.sort_values([group, by], kind="stable")
    size = ordered.groupby(group, sort=False)[by].transform("size").to_numpy()
    rank = ordered.groupby(group, sort=False).cumcount(ascending=False).to_numpy()  # 0 is the last
    # A row stays where its rank begins one of count parts of the group
    part = rank * count // size
    before = (rank - 1) * count // size
    stays = (rank == 0) | (part != before)
    mask = np.zeros(len(rows), dtype=bool)
    mask[rows.index.get_indexer(ordered.index)] = stays
    return mask
