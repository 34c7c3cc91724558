"""Columns of states, by their values or names, whatever tool wrote them: unfinished runs stay out with their reason."""

import json

import numpy as np
import pandas as pd
import pytest

from skillscale.errors import InputError
from skillscale.tables import make_run_table, parse_columns, read_table

MAP = {"n_params": "params", "n_tokens": "tokens", "skills": {"code": "loss"}}


def grid(**columns):
    sizes, tokens = np.meshgrid([1e8, 3e8, 1e9], [2e9, 6e9, 2e10], indexing="ij")
    frame = pd.DataFrame({"params": sizes.ravel(), "tokens": tokens.ravel()})
    frame["loss"] = 1.5 + 400 / frame["params"] ** 0.34 + 2000 / frame["tokens"] ** 0.37
    return frame.assign(**columns)


def states(finished, *others):
    return [finished] * (9 - len(others)) + list(others)


def in_file(frame, path, mapping):
    """Read the table as CSV, JSON lines, Parquet and a data frame, which must agree."""
    frame.to_csv(path / "runs.csv", index=False)
    frame.to_json(path / "runs.jsonl", orient="records", lines=True)
    frame.to_parquet(path / "runs.parquet")
    columns = parse_columns(mapping)
    tables = [
        read_table(path / "runs.csv", columns),
        read_table(path / "runs.jsonl", columns),
        read_table(path / "runs.parquet", columns),
        make_run_table(frame, columns),
    ]
    assert len({tuple(run.reason for run in table.excluded) for table in tables}) == 1
    assert len({len(table.runs) for table in tables}) == 1
    return tables[0]


@pytest.mark.parametrize(
    ("name", "cells", "reasons"),
    [
        ("status", states("FINISHED", "FAILED", "RUNNING"), ["failed", "running"]),  # MLflow
        ("attributes.status", states("FINISHED", "KILLED", "SCHEDULED"), ["killed", "scheduled"]),
        ("state", states("finished", "crashed", "running"), ["crashed", "running"]),  # W&B's API
        ("State", states("finished", "killed", "preempted"), ["killed", "preempted"]),  # W&B's export
        ("state", states("COMPLETE", "PRUNED", "FAIL", "WAITING"), ["pruned", "fail", "waiting"]),  # Optuna
        ("state", states("TrialState.COMPLETE", "TrialState.PRUNED"), ["trialstate.pruned"]),
        ("State", states("COMPLETED", "TIMEOUT", "NODE_FAIL", "CANCELLED by 1000"),
         ["timeout", "node_fail", "cancelled by 1000"]),  # SLURM
        ("JobState", states("COMPLETED", "OUT_OF_ME+", "OUT_OF_MEMORY"), ["out_of_me+", "out_of_memory"]),
        ("outcome", states("Done", "Out of memory", "Timed out"), ["out of memory", "timed out"]),  # by its values
        ("what happened", states("success", "error"), ["error"]),
        ("run_status", states("completed", ""), ["status"]),
        ("note", states("", "crashed", "OOM"), ["crashed", "oom"]),  # empty where all went well
    ],
)  # fmt: skip
def test_unfinished_runs_stay_out_with_their_state(tmp_path, name, cells, reasons):
    cells = [cell or None for cell in cells]
    table = in_file(grid(**{name: cells}), tmp_path, MAP)
    assert len(table.runs) == 9 - len(reasons)
    expected = [f"it has no {name}" if reason == "status" else f"it is {reason}, not finished" for reason in reasons]
    assert [run.reason for run in table.excluded] == expected


@pytest.mark.parametrize(("yes", "no"), [(True, False), (1, 0), ("yes", "no"), ("True", "False")])
@pytest.mark.parametrize(
    ("name", "is_end"), [("finished", True), ("is_complete", True), ("crashed", False), ("diverged", False)]
)
def test_flags_are_read_by_their_names(tmp_path, name, is_end, yes, no):
    cells = [yes if is_end else no] * 7 + [no if is_end else yes] * 2
    table = in_file(grid(**{name: cells}), tmp_path, MAP)
    assert [run.reason for run in table.excluded] == [f"column {name} says that it did not finish"] * 2


def test_runs_that_were_deleted_in_mlflow_stay_out(tmp_path):
    table = in_file(grid(lifecycle_stage=["active"] * 8 + ["deleted"]), tmp_path, MAP)
    assert [run.reason for run in table.excluded] == ["column lifecycle_stage says that it did not finish"]


@pytest.mark.parametrize("codes", [[0] * 7 + [1, 137], ["0:0"] * 7 + ["1:0", "0:9"]])
@pytest.mark.parametrize("name", ["ExitCode", "exit_status"])
def test_exit_codes_other_than_0_are_no_finished_runs(tmp_path, name, codes):
    table = in_file(grid(**{name: codes}), tmp_path, MAP)
    assert [run.reason for run in table.excluded] == [f"column {name} says that it did not finish"] * 2


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("state", ["CA", "NY", "TX"] * 3),
        ("phase", ["stable", "done", "cooldown"] * 3),
        ("tokenizer_source", ["unknown"] * 9),
        ("pool", ["active"] * 9),
        ("notes", ["failed once, restarted", "", "ok"] * 3),
        ("finished", ["2026-01-01"] * 9),
        ("error", [0.1] * 9),
        ("status", [200.0] * 9),
        ("completed_steps", [1, 0, 1] * 3),
        ("exit_code", ["left", "right", ""] * 3),
        ("mix", ["done", "running", "done"] * 3),
        ("method", ["pruned", "", ""] * 3),
        ("status", [0.5, 0.7, 1.0] * 3),
        ("d_state", [16, 64, 8] * 3),
        ("state", [16, 16, 16] * 3),
    ],
)
def test_other_columns_are_no_states(tmp_path, name, cells):
    mapping = MAP | ({"mix": "mix"} if name == "mix" else {})
    assert in_file(grid(**{name: cells}), tmp_path, mapping).excluded == ()


def test_an_unknown_word_is_asked_about():
    with pytest.raises(InputError) as caught:
        make_run_table(grid(status=states("finished", "exploded", "exploded")), parse_columns(MAP))
    assert str(caught.value) == (
        "column status of the table has 'exploded' in 2 rows. Is such a run finished? Name the states that count, as "
        "in where: {status: [finished]}."
    )


@pytest.mark.parametrize("cells", [[3] * 7 + [4, 1], ["3"] * 7 + ["4", None]])
def test_states_as_numbers_are_asked_about(tmp_path, cells):
    frame = grid(**{"info.status": cells})
    with pytest.raises(InputError, match=r"info\.status.*has the states.*3.*Which of them.*where: {info\.status: 3}"):
        make_run_table(frame.iloc[:8], parse_columns(MAP))
    assert len(in_file(frame, tmp_path, {**MAP, "where": {"info.status": 3}}).runs) == 7


def test_the_states_of_another_tool_are_asked_about():
    with pytest.raises(InputError, match=r"no run of the table is finished.*where: {ray_status:"):
        make_run_table(grid(ray_status=states("TERMINATED", "ERROR")), parse_columns(MAP))


def test_where_says_which_states_count_in_any_case(tmp_path):
    frame = grid(status=states("FINISHED", "RUNNING", "exploded"))
    table = in_file(frame, tmp_path, {**MAP, "where": {"status": ["finished", "Running"]}})
    assert (len(table.runs), table.excluded, table.notes) == (8, (), ("where keeps 8 of 9 rows",))


@pytest.mark.parametrize(("name", "cell"), [("status", "RUNNING"), ("finished", False)])
def test_a_table_without_finished_runs_says_how_to_take_them(name, cell):
    with pytest.raises(InputError, match=f"no run of the table is finished.*where: {{{name}: "):
        make_run_table(grid(**{name: [cell] * 9}), parse_columns(MAP))


def test_a_run_table_of_the_api_with_its_last_steps_is_no_history(tmp_path):
    frame = grid(state=states("finished", "failed"), _step=range(9))
    frame.to_csv(tmp_path / "runs.csv", index=False)
    table = read_table(tmp_path / "runs.csv", parse_columns(MAP))
    assert (len(table.runs), table.runs["cluster"].nunique()) == (8, 8)


def test_nested_states_of_json_lines_are_seen(tmp_path):
    rows = grid(state=states("finished", "crashed")).to_dict("records")
    lines = (
        json.dumps({"summary": {"loss": row.pop("loss")}, "run": {"outcome": row.pop("state")}, **row}) for row in rows
    )
    (tmp_path / "runs.jsonl").write_text("\n".join(lines))
    table = read_table(tmp_path / "runs.jsonl", parse_columns({**MAP, "skills": {"code": "summary.loss"}}))
    assert (len(table.runs), [run.reason for run in table.excluded]) == (8, ["it is crashed, not finished"])
