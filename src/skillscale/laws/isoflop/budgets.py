"""Assign runs to compute budgets, for errors that the runs of a budget share.

A table of runs goes in. The budget of each run comes out, as text in FLOP.
"""

import math

import numpy as np
import pandas as pd

from skillscale.errors import InputError

GAP = 0.1  # in ln C: runs further apart belong to two budgets (assumption, as for isoFLOP curves)
_MAX_WIDTH = 0.5  # in ln C: a chain of runs longer than this is no budget
_MIN_BUDGETS = 3
_CURE = "Set `budget:` of each run in the columns file, or resample by run."


def budget_of_runs(runs: pd.DataFrame) -> dict[str, str]:
    """Return the budget of each run by the run's label, as text in FLOP.

    Args:
        runs: table with columns N, D, C (nominal budget in FLOP, or NaN: 6 N D is used) and ``cluster``, the run's
            label.

    Raises:
        InputError: budgets overlap, are fewer than 3, or consist of single runs or checkpoints.
    """
    C = runs["C"].where(runs["C"] > 0, 6 * runs["N"] * runs["D"]).astype(float)
    log_C = pd.Series(np.log(C.to_numpy())).sort_values()
    number = (log_C.diff() > GAP).cumsum()
    groups = log_C.groupby(number)
    if float((groups.max() - groups.min()).max()) > _MAX_WIDTH:
        raise InputError(f"budgets overlap: compute rises without a gap of {100 * GAP:.0f} % between runs. {_CURE}")
    if groups.ngroups < _MIN_BUDGETS:
        raise InputError(f"too few budgets to resample: {groups.ngroups} of at least {_MIN_BUDGETS}. {_CURE}")
    names = groups.transform("mean").map(lambda mean: f"{math.exp(mean):.4g}").sort_index().to_numpy()
    clusters = runs["cluster"].astype(str).to_numpy()
    pairs = pd.DataFrame({"cluster": clusters, "budget": names}).drop_duplicates()
    repeated = pairs["cluster"][pairs["cluster"].duplicated()]
    if len(repeated):
        raise InputError(
            f"checkpoints of one run, or branches of one trunk, have several budgets: {repeated.iloc[0]} and "
            f"{repeated.nunique() - 1} more. Budgets then have no separate errors, so resample by run."
        )
    single = float((pairs.groupby("budget")["cluster"].transform("nunique") == 1).mean())
    if single > 0.5:
        raise InputError(f"runs without another run at their budget: {100 * single:.0f} %. {_CURE}")
    return dict(zip(pairs["cluster"], pairs["budget"], strict=True))
