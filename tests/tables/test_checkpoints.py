"""Rows of one run at several D: the last of each counts, because a decay comes after the others."""

import math

import numpy as np
import pandas as pd
import pytest

from skillscale.errors import InputError
from skillscale.tables import make_run_table, parse_columns, read_table
from skillscale.tables.read import _several_checkpoints

MAP = {"n_params": "N", "n_tokens": "D", "skills": ["loss", "other"]}
TRUTH = (1.8, 480.0, 2100.0, 0.35, 0.37)


def ladder(**columns):
    """Five sizes by three durations, each run with five rows, all but the last 6 % above the law."""
    E, A, B, alpha, beta = TRUTH
    rows = []
    for N in np.geomspace(2e7, 2e9, 5):
        for ratio in (10, 31, 97):
            for share in (0.2, 0.4, 0.6, 0.8, 1.0):
                D = share * ratio * N
                loss = (E + A * N**-alpha + B * D**-beta) * (1.06 if share < 1 else 1)
                rows.append({"run": f"{N:.0f}-{ratio}", "N": N, "D": D, "loss": loss, "other": loss + 0.1})
    return pd.DataFrame(rows).assign(**columns)


def read(frame, **more):
    return make_run_table(frame, parse_columns({**MAP, **more}))


def on_law(runs):
    E, A, B, alpha, beta = TRUTH
    return np.abs(runs["loss"] / (E + A * runs["N"] ** -alpha + B * runs["D"] ** -beta) - 1) < 1e-9


@pytest.mark.parametrize("key", ["run", "name", "run_id"])
def test_the_last_row_of_each_run_counts_and_the_others_are_counted(key):
    frame = ladder().sample(frac=1, random_state=0).rename(columns={"run": key})
    table = read(frame, run=key)
    assert (len(table.runs), on_law(table.runs).all()) == (15, True)
    assert "15 runs of 15 have rows at several D: the last row of each is used, 15 of 75 rows" in table.notes[0]
    assert (len(read(frame, run=key, checkpoints="all").runs), read(frame, run=key, checkpoints="all").notes) == (
        75,
        (),
    )
    assert (len(read(frame, run=key, checkpoints="last").runs), read(frame, run=key, checkpoints="last").notes) == (
        15,
        (),
    )


@pytest.mark.parametrize("key", ["run", "Run", "run_id", "run name", "wandb_run_id"])
def test_a_column_that_names_runs_is_noted_where_the_map_lacks_it(key):
    frame = ladder().rename(columns={"run": key})
    table = read(frame)
    assert len(table.runs) == 75
    (note,) = table.notes
    assert f"column {key} names runs with rows at several D" in note
    assert f"Add run: {key} to the column map" in note
    assert read(frame, checkpoints="all").notes == ()


@pytest.mark.parametrize("key", ["job_id", "experiment", "config/exp_name", "trial", "uuid", "model", "Name"])
def test_other_names_of_runs_are_noted_where_several_share_a_size(tmp_path, key):
    ladder().rename(columns={"run": key}).to_csv(tmp_path / "runs.csv", index=False)
    (note,) = read_table(tmp_path / "runs.csv", parse_columns(MAP)).notes
    assert f"Add run: {key} to the column map" in note


def history(shares):
    """One run a size, with rows at shares of its end."""
    frame = ladder()
    frame = frame[frame["run"].str.endswith("-10")].groupby("N").tail(1)
    rows = [frame.assign(D=frame["D"] * share, loss=frame["loss"] / share**0.05) for share in shares]
    return pd.concat(rows).rename(columns={"run": "model"})


def test_evenly_spaced_tokens_of_each_size_are_noted():
    even = history(np.linspace(0.125, 1, 8))
    (note,) = read(even).notes
    assert "Add run: model to the column map" in note
    (note,) = read(even.drop(columns="model")).notes
    assert "evenly spaced D" in note
    assert "Add run: [N] to the column map" in note
    assert read(even, run=["N"]).runs["D"].tolist() == read(even, run="model").runs["D"].tolist()
    assert read(even, checkpoints="all").notes == ()


def test_models_of_one_size_on_several_budgets_of_tokens_are_no_histories():
    assert read(history(np.geomspace(0.02, 1, 6))).notes == ()
    assert read(history([0.1, 0.2, 0.5, 1.0])).notes == ()


@pytest.mark.parametrize(
    "columns",
    [
        {"run": range(75)},  # a run a row
        {"run": ["sweep"] * 75},  # one name for all
        {"run": np.arange(75) % 15},  # several sizes a name
        {"run": [math.nan, *["a", "b"] * 37]},
    ],
)
def test_a_column_that_names_no_histories_stays_out(columns):
    table = read(ladder(**columns))
    assert (len(table.runs), table.notes) == (75, ())


@pytest.mark.parametrize("key", ["run_id", "Name"])
def test_a_history_of_several_runs_has_the_last_row_of_each(tmp_path, key):
    ladder(_step=list(range(5)) * 15).rename(columns={"run": key}).to_csv(tmp_path / "history.csv", index=False)
    table = read_table(tmp_path / "history.csv", parse_columns(MAP))
    assert (len(table.runs), on_law(table.runs).all()) == (15, True)


def test_finished_runs_of_a_grid_raise_no_note():
    frame = ladder().iloc[4::5]
    assert read(frame, run="run").notes == read(frame.drop(columns="run")).notes == ()
    assert len(read(frame, run="run").runs) == 15


def test_a_row_saved_again_and_a_skill_measured_a_step_earlier():
    frame = ladder().iloc[4::5]
    earlier = frame.assign(D=0.995 * frame["D"])
    late = frame.assign(other=math.nan)
    early = ladder(other=math.nan).iloc[3::5]
    table = read(pd.concat([early, earlier, late], ignore_index=True), run="run")
    losses = table.runs.groupby("cluster")[["loss", "other"]].count()
    assert (losses == 1).to_numpy().all()
    assert table.runs["other"].dropna().tolist() == earlier["other"].tolist()
    late_only = read(pd.concat([ladder().iloc[3::5], late], ignore_index=True), run="run")
    assert (len(late_only.runs), int(late_only.runs["other"].notna().sum())) == (15, 0)


def test_seeds_in_one_run_each_have_a_last_row():
    frame = pd.concat([ladder(seed=0), ladder(seed=1)])
    assert len(read(frame, run="run", seed="seed").runs) == 30


def test_last_rows_at_one_D_say_what_to_do():
    frame = ladder()
    frame = frame[frame["run"].str.endswith("-31")].assign(D=lambda rows: np.tile([1e9, 2e9, 4e9, 8e9, 1.6e10], 5))
    (note, *_) = read(frame, run="run").notes
    assert "The last rows have 1 distinct D, and a law needs 3" in note
    assert "add checkpoints: all" in note


def test_the_key_takes_two_values():
    with pytest.raises(InputError, match="checkpoints must be last or all, but it is 'some'"):
        read(ladder(), checkpoints="some")


def test_evaluated_checkpoints_at_several_D_are_noted():
    frame = ladder().rename(columns={"run": "cluster"})
    (note,) = _several_checkpoints(frame)
    assert note.startswith("15 training runs with checkpoints at several D")
    assert _several_checkpoints(frame.iloc[4::5]) == []
