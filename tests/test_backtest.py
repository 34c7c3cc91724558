"""`backtest` as scripts call it: its contract, what it refuses, and what it makes of published runs."""

import io
import json

import numpy as np
import pandas as pd
import pytest
import yaml

from skillscale.cli import ENTRIES, main
from skillscale.laws.catalogue import CHINCHILLA

THETA = {"code": [0.9, 250.0, 900.0, 0.38, 0.36], "prose": [1.8, 480.0, 2100.0, 0.35, 0.37]}


def runs() -> pd.DataFrame:
    N, D = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(5e8, 5e10, 5)))
    rng = np.random.default_rng(0)
    losses = {
        f"loss_{name}": CHINCHILLA.loss(theta, N, D) * np.exp(0.003 * rng.normal(size=len(N)))
        for name, theta in THETA.items()
    }
    return pd.DataFrame({"params": N, "tokens": D, **losses})


@pytest.fixture
def backtest(tmp_path, capsys):
    def call(*words):
        runs().to_csv(tmp_path / "t.csv", index=False)
        skills = {name: f"loss_{name}" for name in THETA}
        (tmp_path / "map.yaml").write_text(
            yaml.safe_dump({"n_params": "params", "n_tokens": "tokens", "skills": skills})
        )
        answer = io.StringIO()
        table = ["--table", str(tmp_path / "t.csv"), "--columns", str(tmp_path / "map.yaml")]
        code = main(["backtest", *table, *words], ENTRIES, answer)
        return code, answer.getvalue(), capsys.readouterr().err

    return call


@pytest.mark.parametrize("limit", [("--max_params", "5e8"), ("--max_flops", "6e19")])
def test_the_contract(backtest, limit):
    code, answer, _ = backtest(*limit, "--json")
    assert code == 0
    told = json.loads(answer)
    assert list(told["skills"]) == ["code", "prose"]
    for one in told["skills"].values():
        assert {"law", "n_fitted", "n_predicted", "mean_relative_error", "coverage"} <= set(one)
        assert one["law"] == "chinchilla"
        assert one["n_fitted"] + one["n_predicted"] == 30
        assert one["mean_relative_error"] < 0.01
        assert one["coverage"] > 0.5
    assert [trial["taken"] for trial in told["choice"]["all"]].count(True) == 1


def test_people_get_a_table(backtest):
    _, answer, _ = backtest("--max_params", "5e8", "--law", "coupled")
    lines = answer.splitlines()
    assert lines[0].split()[:4] == ["skill", "law", "fitted", "predicted"]
    assert [line.split()[0] for line in lines[2:]] == ["code", "prose", "mean"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "needs one of --max_flops C and --max_params N"),
        (("--max_flops", "1e20", "--max_params", "1e8"), "needs one of --max_flops C and --max_params N"),
        (
            ("--max_params", "1e10"),
            "no run is above 1e+10 parameters: the largest has 1e+09; give a smaller",
        ),
        (("--max_flops", "1e10"), "no run is at or below 1e+10 FLOP"),
        (("--max_params", "5e8", "--law", "separable"), "needs a mix, but the runs tell none"),
        (("--max_params", "5e8", "--law", "drift"), "no law 'drift'"),
    ],
)
def test_what_cant_be_asked_is_refused_with_the_cure(backtest, words, message):
    code, _, told = backtest(*words)
    assert code == 2
    assert message in told


def test_too_few_runs_below_the_limit_are_a_reason_not_a_number(backtest):
    code, answer, _ = backtest("--max_params", "2e7", "--json")
    one = json.loads(answer)["skills"]["code"]
    assert (code, one["law"], one["mean_relative_error"]) == (0, None, None)
    assert "distinct N" in one["reason"] or "can't carry" in one["reason"]


@pytest.mark.slow
def test_published_mixtures_are_predicted_to_one_per_cent(tables, tmp_path):
    head = pd.read_csv(tables / "slimpajama_mix.csv", nrows=1)
    columns = {
        "n_params": "params", "n_tokens": "tokens", "run": ["params", "mix_id"], "where": {"final": 1},
        "mix": {name[4:]: name for name in head if name.startswith("mix_") and name != "mix_id"},
        "skills": {name[5:]: name for name in head if name.startswith("loss_")},
    }  # fmt: skip
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(columns))
    answer = io.StringIO()
    words = ["--table", str(tables / "slimpajama_mix.csv"), "--columns", str(tmp_path / "map.yaml"), "--json"]
    assert main(["backtest", *words, "--max_params", "6.8e8"], ENTRIES, answer) == 0
    mean = json.loads(answer.getvalue())["mean"]
    assert mean["mean_relative_error"] < 0.013
    assert mean["coverage"] > 0.8
