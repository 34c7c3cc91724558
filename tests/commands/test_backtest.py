"""`backtest` by the command line: its contract, groups, what it refuses, and published runs."""

import io
import json

import numpy as np
import pandas as pd
import pytest
import yaml

from skillscale.cli import COMMANDS, main
from skillscale.formatting import format_percent
from skillscale.laws.forms.catalogue import CHINCHILLA

THETA = {"code": [0.9, 250.0, 900.0, 0.38, 0.36], "prose": [1.8, 480.0, 2100.0, 0.35, 0.37]}
COLUMNS = {"n_params": "params", "n_tokens": "tokens", "skills": {name: f"loss_{name}" for name in THETA}}
DOMAINS = ("arxiv", "book", "c4", "github", "commoncrawl", "stackexchange", "wikipedia")


def runs(seed=0, noise=0.004) -> pd.DataFrame:
    """Five sizes on five numbers of tokens."""
    N, D = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(5e8, 5e10, 5)))
    rng = np.random.default_rng(seed)
    losses = {
        f"loss_{name}": CHINCHILLA.loss(theta, N, D) * np.exp(noise * rng.normal(size=len(N)))
        for name, theta in THETA.items()
    }
    return pd.DataFrame({"params": N, "tokens": D, **losses})


@pytest.fixture
def backtest(tmp_path, capsys):
    """Call ``backtest`` on a frame; returns the exit code, the answer of ``--json``, and what was told beside it."""

    def call(frame, *words, columns=COLUMNS, as_json=True):
        frame.to_csv(tmp_path / "t.csv", index=False)
        (tmp_path / "map.yaml").write_text(yaml.safe_dump(dict(columns)))
        answer = io.StringIO()
        table = ["--table", str(tmp_path / "t.csv"), "--columns", str(tmp_path / "map.yaml")]
        code = main(["backtest", *table, *words, *(["--json"] if as_json else [])], COMMANDS, answer)
        told = answer.getvalue()
        return code, json.loads(told or "{}") if as_json else told, capsys.readouterr().err

    return call


def test_the_contract(backtest):
    code, answer, _ = backtest(runs(), "--max_params", "4e8", "--law", "chinchilla")
    assert code == 0
    assert list(answer["skills"]) == ["code", "prose"]
    for one in answer["skills"].values():
        assert {"law", "n_fitted", "n_predicted", "mean_relative_error", "coverage"} <= set(one)
        assert (one["law"], one["n_fitted"], one["n_predicted"]) == ("chinchilla", 20, 5)
        assert 0 < one["mean_relative_error"] < 0.02
        assert 0 <= one["coverage"] <= 1
    errors = [one["mean_relative_error"] for one in answer["skills"].values()]
    assert answer["mean"]["mean_relative_error"] == pytest.approx(np.mean(errors))
    assert [one["chosen"] for one in answer["choice"]["all"]].count(True) == 1


def test_a_limit_of_compute_splits_by_the_flops_of_the_table(backtest):
    frame = runs()
    frame["flops"] = 7 * frame["params"] * frame["tokens"]
    limit = float(frame["flops"].quantile(0.6))
    _, answer, _ = backtest(
        frame, "--max_flops", str(limit), "--law", "chinchilla", columns=COLUMNS | {"flops": "flops"}
    )
    one = answer["skills"]["code"]
    assert one["n_fitted"] == (frame["flops"] <= limit).sum()
    assert one["n_fitted"] + one["n_predicted"] == 25


def test_later_checkpoints_of_fitted_runs_are_counted_and_new_runs_scored_apart(backtest):
    frame = runs()
    frame["run"] = frame["params"]  # five runs of five checkpoints: the smallest two lie below the limit as a whole
    limit = 6 * 1.01 * float(frame["params"].unique()[1]) * float(frame["tokens"].max())
    words = ("--max_flops", str(limit), "--law", "chinchilla")
    _, answer, told = backtest(frame, *words, columns=COLUMNS | {"run": "run", "checkpoints": "all"})
    one = answer["skills"]["code"]
    below = 6 * frame["params"] * frame["tokens"] <= limit
    later = (~below & frame["run"].isin(frame.loc[below, "run"])).sum()
    assert later > 0
    assert (one["n_of_fitted_runs"], one["unseen"]["n_predicted"]) == (later, one["n_predicted"] - later)
    assert f"note: {format_percent(later / one['n_predicted'])} of the predicted losses are later checkpoints" in told
    _, alone, told = backtest(frame, *words)
    assert (alone["skills"]["code"]["n_of_fitted_runs"], "later checkpoints" in told) == (0, False)


def test_without_noise_the_larger_runs_are_met(backtest):
    _, answer, _ = backtest(runs(noise=0.0), "--max_params", "4e8", "--law", "chinchilla")
    assert answer["skills"]["prose"]["mean_relative_error"] < 1e-4


def test_each_named_mix_is_fitted_by_itself(backtest):
    frame = pd.concat([runs(seed).assign(corpus=name) for seed, name in enumerate(("pile", "c4"))])
    frame.loc[frame["corpus"] == "c4", list(frame.filter(like="loss_"))] *= 1.3
    columns = COLUMNS | {"mix": "corpus"}
    _, answer, _ = backtest(frame, "--max_params", "4e8", "--law", "chinchilla", columns=columns)
    assert set(answer["skills"]) == {"c4/code", "c4/prose", "pile/code", "pile/prose"}
    assert max(one["mean_relative_error"] for one in answer["skills"].values()) < 0.02
    assert set(answer["choice"]) == {"c4", "pile"}


def test_text_tells_each_skill_and_what_was_tried(backtest):
    code, told, _ = backtest(runs(), "--max_params", "4e8", as_json=False)
    assert code == 0
    assert "in 90 % interval" in told
    assert "tried on the larger of the fitted runs" in told
    assert "chosen" in told


def test_a_skill_that_cant_be_fitted_costs_no_other(backtest):
    frame = runs()
    frame.loc[frame["params"].between(2e7, 4e8), "loss_code"] = np.nan
    code, answer, _ = backtest(frame, "--max_params", "4e8", "--law", "chinchilla")
    assert code == 0
    assert answer["skills"]["prose"]["coverage"] is not None
    assert answer["skills"]["code"]["law"] is None
    assert "only one size" in answer["skills"]["code"]["reason"]


def test_a_study_in_the_registry_is_predicted_as_its_table_is(backtest, tmp_path):
    words = ("--max_params", "4e8", "--law", "chinchilla")
    _, direct, _ = backtest(runs(), *words)
    store = ("--study", "theirs", "--tracking", f"sqlite:///{tmp_path}/m.db")
    table = ("--table", str(tmp_path / "t.csv"), "--columns", str(tmp_path / "map.yaml"))
    assert main(["import", *table, *store, "--json"], COMMANDS, io.StringIO()) == 0
    answer = io.StringIO()
    assert main(["backtest", *store, *words, "--json"], COMMANDS, answer) == 0
    read = json.loads(answer.getvalue())
    for name, one in direct["skills"].items():
        assert read["skills"][name]["mean_relative_error"] == pytest.approx(one["mean_relative_error"])
        assert read["skills"][name]["n_predicted"] == one["n_predicted"]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ((), 2, "needs one of --max_flops C and --max_params N"),
        (("--max_flops", "1e19", "--max_params", "1e8"), 2, "needs one of"),
        (("--max_params", "2e9"), 2, "no run has more than 2B parameters, the largest 1B"),
        (("--max_params", "1e6"), 2, "no run has 1M parameters or less, the smallest 10M"),
        (("--max_params", "1e8", "--law", "chinchila"), 2, "did you mean chinchilla?"),
        (("--max_params", "1e8", "--law", "separable"), 2, "the law separable needs a mix, but the runs have none"),
        (("--max_params", "2e7"), 1, "only one size"),
        (("--max_params", "-3"), 2, "must be a number above 0"),
    ],
)
def test_what_cant_be_asked_is_refused_with_the_cure(backtest, words, status, message):
    code, _, told = backtest(runs(), *words)
    assert (code, message in told) == (status, True), told


def published(folder, tables, **more):
    """The columns of the published mixtures, in a file."""
    skills = {name: f"loss_{name}" for name in (*DOMAINS, "openhermes")}
    columns = {
        "n_params": "params",
        "n_tokens": "tokens",
        "run": ["params", "mix_id"],
        "skills": skills,
        "checkpoints": "all",
    }
    columns["mix"] = {name: f"mix_{name}" for name in DOMAINS}
    (folder / "map.yaml").write_text(yaml.safe_dump(columns | more))
    return ["--table", str(tables / "slimpajama_mix.csv"), "--columns", str(folder / "map.yaml")]


@pytest.mark.slow
@pytest.mark.parametrize("last_only", [True, False])
def test_published_mixtures_are_predicted_at_twice_the_size(tables, tmp_path, last_only):
    words = published(tmp_path, tables, **({"where": {"final": 1}} if last_only else {}))
    answer = io.StringIO()
    assert main(["backtest", *words, "--max_params", "6.8e8", "--json"], COMMANDS, answer) == 0
    told = json.loads(answer.getvalue())
    assert len(told["skills"]) == 8
    assert told["mean"]["mean_relative_error"] < 0.013
    assert told["mean"]["coverage"] >= 0.8


@pytest.mark.slow
def test_published_corpora_are_predicted_at_their_largest_size(tables, tmp_path):
    header = pd.read_csv(tables / "openlm_overtrain.csv", nrows=1)
    skills = {name.removeprefix("loss_"): name for name in header if name.startswith("loss_")}
    columns = {"n_params": "params", "n_tokens": "tokens", "mix": "dataset", "skills": skills}
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(columns))
    words = ["--table", str(tables / "openlm_overtrain.csv"), "--columns", str(tmp_path / "map.yaml")]
    answer = io.StringIO()
    assert main(["backtest", *words, "--max_params", "5e8", "--json"], COMMANDS, answer) == 0
    told = json.loads(answer.getvalue())
    assert len(told["skills"]) == 24
    assert told["mean"]["mean_relative_error"] < 0.025
    assert told["mean"]["coverage"] >= 0.8
