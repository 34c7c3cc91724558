"""Which runs were made at one budget, for errors that a budget's runs share."""

import math

import numpy as np
import pandas as pd

from skillscale.errors import InputError

GAP = 0.1  # in ln C: runs further apart are of two budgets (assumption, as for isoFLOP curves)
_WIDE = 0.5  # in ln C: a chain of runs longer than this is no budget
_LEAST = 3
_CURE = "tell each run's under `budget:` in the columns file, or resample by run"


def budget_of_runs(runs: pd.DataFrame) -> dict[str, str]:
    """The budget of each run by the run's label, as text in FLOP.

    Args:
        runs: columns N, D, C (nominal budget in FLOP, or NaN: 6 N D is taken) and ``cluster``, the run's label.

    Raises:
        InputError: budgets can't be told apart, are fewer than 3, or are those of single runs or checkpoints.
    """
    told = runs["C"].where(runs["C"] > 0, 6 * runs["N"] * runs["D"]).astype(float)
    log_C = pd.Series(np.log(told.to_numpy())).sort_values()
    number = (log_C.diff() > GAP).cumsum()
    groups = log_C.groupby(number)
    if float((groups.max() - groups.min()).max()) > _WIDE:
        raise InputError(f"budgets can't be told apart: compute rises without a gap of {GAP:.0%} between runs; {_CURE}")
    if groups.ngroups < _LEAST:
        raise InputError(f"{groups.ngroups} budgets can't be resampled; it takes {_LEAST}: {_CURE}")
    names = groups.transform("mean").map(lambda mean: f"{math.exp(mean):.4g}").sort_index().to_numpy()
    clusters = runs["cluster"].astype(str).to_numpy()
    pairs = pd.DataFrame({"cluster": clusters, "budget": names}).drop_duplicates()
    twice = pairs["cluster"][pairs["cluster"].duplicated()]
    if len(twice):
        raise InputError(
            f"checkpoints of one run lie at several budgets, or branches of one trunk do ({twice.iloc[0]} and "
            f"{twice.nunique() - 1} more), so that no budget has errors of its own; resample by run"
        )
    alone = float((pairs.groupby("budget")["cluster"].transform("nunique") == 1).mean())
    if alone > 0.5:
        raise InputError(f"{alone:.0%} of the runs are alone at their budget; {_CURE}")
    return dict(zip(pairs["cluster"], pairs["budget"], strict=True))
