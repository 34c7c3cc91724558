"""A table of more rows than can be fitted: the rows in its place span it, and small tables stay as they are."""

import numpy as np
import pandas as pd
import pytest

from skillscale.laws.selection.holdout import level_maxima
from skillscale.tables import large_tables, make_run_table, parse_columns
from skillscale.tables.large_tables import thin_table
from skillscale.tables.points import _levels


def runs_of(n_runs, n_rows=1, mixes=1):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({
        "run": np.repeat([f"run{at}" for at in range(n_runs)], n_rows),
        "n": np.repeat((10 ** rng.uniform(7, 9, n_runs)).round(), n_rows),
        "d": np.tile(np.linspace(1e9, 1e10, n_rows), n_runs) + np.repeat(np.arange(n_runs), n_rows),
        "mix": np.repeat([f"mix{at % mixes}" for at in range(n_runs)], n_rows),
    })  # fmt: skip
    frame["loss"] = 1.7 + 400 / frame["n"] ** 0.34 + 410 / frame["d"] ** 0.28
    columns = {
        "n_params": "n",
        "n_tokens": "d",
        "run": "run",
        "mix": "mix",
        "skills": {"prose": "loss"},
        "checkpoints": "all",
    }
    return make_run_table(frame, parse_columns(columns))


@pytest.fixture
def most(monkeypatch):
    monkeypatch.setattr(large_tables, "MAX_ROWS", 200)
    return 200


def test_a_table_that_can_be_fitted_stays_as_it_is(most):
    table = runs_of(most)
    assert thin_table(table) is table


@pytest.mark.parametrize(("n_runs", "n_rows", "mixes"), [(3_000, 1, 1), (20, 150, 1), (900, 7, 3), (3_000, 1, 2_900)])
def test_the_rows_that_stay_span_the_table(most, n_runs, n_rows, mixes):
    table = runs_of(n_runs, n_rows, mixes)
    thinned = thin_table(table)
    kept, runs = thinned.runs, table.runs
    assert most / 3 <= len(kept) <= max(1.1 * most, (mixes < 100) * mixes * 50 * 4)
    last = runs.sort_values("D").drop_duplicates("cluster", keep="last")
    assert (
        kept.groupby("cluster")["D"].max() == last.set_index("cluster")["D"].reindex(sorted(set(kept["cluster"])))
    ).all()
    C = last["N"] * last["D"]
    assert {last["cluster"][C.idxmin()], last["cluster"][C.idxmax()]} <= set(kept["cluster"])
    assert kept["run_id"].is_unique
    assert "fits take" in thinned.notes[-1]
    assert f"of the {len(runs):,} rows" in thinned.notes[-1]
    if mixes < 100:
        assert set(kept["mix"]) == set(runs["mix"])


def test_the_choice_is_the_same_each_time(most):
    pd.testing.assert_frame_equal(thin_table(runs_of(3_000)).runs, thin_table(runs_of(3_000)).runs)


def test_sizes_without_gaps_are_several_levels():
    """A thousand sizes over two decades were one level, so that no law was fitted."""
    dense = np.geomspace(1e7, 1e9, 1_000)
    assert 40 < len(level_maxima(dense)) < 50
    assert level_maxima(dense)[-1] == dense[-1]
    grid = np.concatenate([np.array([1e7, 1e8, 1e9]) * step for step in (0.97, 1.0, 1.03)])
    np.testing.assert_allclose(level_maxima(grid), [1.03e7, 1.03e8, 1.03e9])
    assert len(level_maxima(np.geomspace(1e8, 1.4e8, 50))) == 1


def test_levels_are_those_of_one_row_after_the_other():
    def levels(values, groups, tolerance):
        order, codes = np.lexsort((values, groups)), np.empty(len(values), dtype=np.intp)
        code, first, group = -1, 0.0, -1
        for at in order.tolist():
            if groups[at] != group or values[at] - first > tolerance:
                code, first, group = code + 1, values[at], groups[at]
            codes[at] = code
        return codes

    rng = np.random.default_rng(0)
    for size in (0, 1, 2, 60, 300) * 20:
        values, groups = rng.uniform(0, 1, size).round(rng.integers(1, 5)), rng.integers(0, 4, size)
        for tolerance in (0.002, 0.05, 0.3):
            np.testing.assert_array_equal(_levels(values, groups, tolerance), levels(values, groups, tolerance))
