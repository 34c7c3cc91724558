"""The runs of a table, and the runs under way, as the history of a design."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from skillscale.design.space import RunHistory
from skillscale.point import DesignPoint, Mix
from skillscale.sampler.study.problem import SamplingProblem
from skillscale.tables import RunTable

_SHARE_TOLERANCE = 5e-3  # difference of shares: whole batches change a mix a little


def run_history(table: RunTable | None, problem: SamplingProblem, pending: Sequence[DesignPoint] = ()) -> RunHistory:
    """Return the history of finished runs and runs under way.

    Where only one mix is allowed, runs on other mixes do not count.

    Args:
        table: finished runs; None where there are none.
        problem: sampling problem with skills and categories.
        pending: points that are under way or failed. The design avoids both.
    """
    history = RunHistory.empty(problem.skills, len(problem.space.categories))
    if table is not None and not table.runs.empty:
        history = _with_table(history, table, problem)
    if not pending:
        return history
    alike = [point for point in pending if problem.space.categories or _is_mix(point.mix, problem)]
    N, D = (np.array([getattr(point, name) for point in alike], dtype=float) for name in ("n_params", "n_tokens"))
    shares = [[point.mix.shares.get(name, 0.0) for name in problem.space.categories] for point in alike]
    return history.with_runs(N, D, np.array(shares).reshape(len(alike), -1) if problem.space.categories else None)


def _with_table(history: RunHistory, table: RunTable, problem: SamplingProblem) -> RunHistory:
    runs = table.runs[_counted_rows(table, problem)]
    loss = {name: _column(runs, name) for name in problem.skills}
    loss = {name: np.where(values > 0, values, np.nan) for name, values in loss.items()}
    with np.errstate(invalid="ignore"):
        sem = {name: _column(runs, f"sem/{name}") / values for name, values in loss.items()}
    h = None
    if problem.space.categories:
        h = np.column_stack([np.nan_to_num(_column(runs, f"mix/{name}")) for name in problem.space.categories])
    return history.with_runs(
        runs["N"].to_numpy(dtype=float), runs["D"].to_numpy(dtype=float), h,
        {name: np.log(values) for name, values in loss.items()},
        {name: np.nan_to_num(values) for name, values in sem.items()},
    )  # fmt: skip


def _counted_rows(table: RunTable, problem: SamplingProblem) -> npt.NDArray[np.bool_]:
    """Return which runs count: all, or those on the only mix."""
    shares = table.runs[[f"mix/{name}" for name in table.categories]].to_numpy(dtype=float)
    categories = set(problem.space.categories)
    foreign = [at for at, name in enumerate(table.categories) if name not in categories]
    if categories:
        return np.asarray((shares[:, foreign] <= _SHARE_TOLERANCE).all(1))
    if not problem.mixes or not table.categories:
        return np.ones(len(table.runs), dtype=bool)
    only = np.array([problem.mixes[0].shares.get(name, 0.0) for name in table.categories])
    return np.asarray((np.abs(shares - only) <= _SHARE_TOLERANCE).all(1))


def _is_mix(mix: Mix, problem: SamplingProblem) -> bool:
    return not problem.mixes or mix == problem.mixes[0]


def _column(runs: pd.DataFrame, name: str) -> npt.NDArray[np.float64]:
    if name not in runs:
        return np.full(len(runs), np.nan)
    return runs[name].to_numpy(dtype=float)
