"""`check` by the command line: facts and problems of a table, without a fit, and the column map it writes."""

import io
import json

import numpy as np
import pandas as pd
import pytest
import yaml

from skillscale.cli import COMMANDS, main


def runs(D=(5e8, 5e9, 5e10)):
    N, D = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e9, 5), D))
    return pd.DataFrame({"params": N, "tokens": D, "loss": 1.8 + 400 * N**-0.36 + 900 * D**-0.36})


@pytest.fixture
def check(tmp_path):
    def run(frame, *words):
        frame.to_csv(tmp_path / "t.csv", index=False)
        answer = io.StringIO()
        code = main(["check", "--table", str(tmp_path / "t.csv"), *words], COMMANDS, answer)
        return code, answer.getvalue()

    return run


def test_a_sound_table_has_facts_and_no_problem(check):
    code, text = check(runs())
    assert code == 0
    assert "N        5 sizes, 10M to 1B" in text
    assert "D        500M to 50B, 3 a size" in text
    assert text.endswith("No problem found.\n")


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        (runs().assign(tokens=lambda frame: 20 * frame["params"]), "D follows N up to a factor of 1,"),
        (runs(D=[5e9]), "only 1 distinct D: a law needs 3 or more"),
        (runs().query("params < 2e7"), "only 1 size: a law needs 3 or more"),
        (runs().head(7), "only 7 runs: 12 or more determine the noise"),
        (runs().assign(loss=lambda frame: frame["loss"].to_numpy()[::-1]), "the loss rises with D"),
    ],
)
def test_what_runs_cannot_determine_is_a_problem(check, frame, problem):
    code, text = check(frame)
    assert (code, f"problem: {problem}" in text or f": {problem}" in text) == (0, True), text


def test_mixes_share_the_line_of_a_problem(check):
    frame = pd.concat([runs().assign(dataset=name).head(6) for name in ("c4", "web")])
    assert "problem: c4, web: only 6 runs" in check(frame)[1]


def test_the_column_map_is_written_and_reads_back(check, tmp_path):
    path = tmp_path / "columns.yaml"
    code, text = check(runs(), "--file", str(path))
    assert (code, "columns written to" in text) == (0, True)
    assert yaml.safe_load(path.read_text()) == {"n_params": "params", "n_tokens": "tokens", "skills": {"loss": "loss"}}
    code, text = check(runs(), "--columns", str(path), "--json")
    assert code == 0
    assert json.loads(text)["problems"] == []
    assert check(runs(), "--columns", str(path), "--file", str(path))[0] == 2
