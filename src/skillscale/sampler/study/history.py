"""The runs of a table, and those that are under way, as a design sees them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from skillscale.design.space import RunHistory
from skillscale.point import DesignPoint, Mix
from skillscale.runs import RunTable
from skillscale.sampler.study.problem import SamplingProblem

_SHARE_TOLERANCE = 5e-3  # of a share: whole batches make what was trained on differ a little from what was asked for


def run_history(table: RunTable | None, order: SamplingProblem, pending: Sequence[DesignPoint] = ()) -> RunHistory:
    """What is known and what is under way.

    Where one mix alone may be trained on, runs on others tell nothing, and are left out.

    Args:
        table: finished runs; None where there are none.
        order: whose skills and categories count.
        pending: points that are under way, or that failed: the design looks elsewhere in both cases.
    """
    history = RunHistory.empty(order.skills, len(order.space.categories))
    if table is not None and not table.runs.empty:
        history = _with_table(history, table, order)
    if not pending:
        return history
    alike = [point for point in pending if order.space.categories or _is_mix(point.mix, order)]
    N, D = (np.array([getattr(point, name) for point in alike], dtype=float) for name in ("n_params", "n_tokens"))
    shares = [[point.mix.shares.get(name, 0.0) for name in order.space.categories] for point in alike]
    return history.with_runs(N, D, np.array(shares).reshape(len(alike), -1) if order.space.categories else None)


def _with_table(history: RunHistory, table: RunTable, order: SamplingProblem) -> RunHistory:
    runs = table.runs[_counted(table, order)]
    loss = {name: _column(runs, name) for name in order.skills}
    loss = {name: np.where(values > 0, values, np.nan) for name, values in loss.items()}
    with np.errstate(invalid="ignore"):
        sem = {name: _column(runs, f"sem/{name}") / values for name, values in loss.items()}
    h = None
    if order.space.categories:
        h = np.column_stack([np.nan_to_num(_column(runs, f"mix/{name}")) for name in order.space.categories])
    return history.with_runs(
        runs["N"].to_numpy(dtype=float), runs["D"].to_numpy(dtype=float), h,
        {name: np.log(values) for name, values in loss.items()},
        {name: np.nan_to_num(values) for name, values in sem.items()},
    )  # fmt: skip


def _counted(table: RunTable, order: SamplingProblem) -> npt.NDArray[np.bool_]:
    """Which runs tell something: all of them, or those on the one mix that is asked about."""
    shares = table.runs[[f"mix/{name}" for name in table.categories]].to_numpy(dtype=float)
    known = set(order.space.categories)
    foreign = [at for at, name in enumerate(table.categories) if name not in known]
    if known:
        return np.asarray((shares[:, foreign] <= _SHARE_TOLERANCE).all(1))
    if not order.mixes or not table.categories:
        return np.ones(len(table.runs), dtype=bool)
    asked = np.array([order.mixes[0].shares.get(name, 0.0) for name in table.categories])
    return np.asarray((np.abs(shares - asked) <= _SHARE_TOLERANCE).all(1))


def _is_mix(mix: Mix, order: SamplingProblem) -> bool:
    return not order.mixes or mix == order.mixes[0]


def _column(runs: pd.DataFrame, name: str) -> npt.NDArray[np.float64]:
    if name not in runs:
        return np.full(len(runs), np.nan)
    return runs[name].to_numpy(dtype=float)
