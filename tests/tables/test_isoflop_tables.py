"""Tables whose FLOP are not 6 N D give laws and isoFLOP curves."""

import json

import numpy as np
import pandas as pd
import pytest

from skillscale.cli import COMMANDS, main
from skillscale.tables import make_run_table, parse_columns
from skillscale.tables.read import LoadedRuns

MAPPING = {"n_params": "params", "n_tokens": "tokens", "flops": "flops", "skills": {"all": "loss"}}

FIT = "fit --table runs.csv --columns map.yaml --law chinchilla --laws.bootstrap laplace --json"


def isoflop_table(*, count=6.0, jitter=0.0):
    """Four budgets with seven sizes each, FLOP counted as ``count`` N D."""
    C = np.repeat([1e18, 3e18, 1e19, 3e19], 7)
    N = np.concatenate(
        [np.geomspace(0.3, 3.5, 7) * 0.09 * (budget / 6) ** 0.5 * 3 for budget in (1e18, 3e18, 1e19, 3e19)]
    )
    D = C / (6 * N) * (1 + jitter * np.sin(np.arange(len(C))))
    loss = 1.8 + 480 / N**0.35 + 2000 / D**0.37
    return pd.DataFrame({"params": N, "tokens": D, "flops": count * N * D, "loss": loss})


@pytest.mark.parametrize("count", [2.0, 6.0, 8.0])
@pytest.mark.parametrize("jitter", [0.0, 0.004])
def test_isoflop_budgets_are_recognised_by_the_flops_of_the_table(count, jitter):
    table = make_run_table(isoflop_table(count=count, jitter=jitter), parse_columns(MAPPING))
    assert LoadedRuns(table=table, name="x").has_isoflops


def test_a_fit_keeps_rows_whose_flops_are_2ND_and_shows_budgets_in_6ND(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "map.yaml").write_text(json.dumps(MAPPING))
    answers = []
    for count in (6.0, 2.0):
        isoflop_table(count=count).to_csv("runs.csv", index=False)
        words = [
            "fit",
            "--table",
            "runs.csv",
            "--columns",
            "map.yaml",
            "--law",
            "chinchilla",
            "--laws.bootstrap",
            "laplace",
            "--json",
        ]
        assert main(words, COMMANDS) == 0
        answers.append(json.loads(capsys.readouterr().out))
    first, second = ([(row["C"], row["N"]) for row in answer["minima"]] for answer in answers)
    np.testing.assert_allclose(first, second, rtol=1e-6)
    assert answers[0]["skills"]["all"]["theta"] == answers[1]["skills"]["all"]["theta"]


def test_a_fit_without_any_usable_budget_still_has_its_law(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "map.yaml").write_text(json.dumps({**MAPPING, "budget": "budget"} | {"flops": ""}))
    table = isoflop_table()
    table["budget"] = np.where(np.arange(28) % 2, 1e18, 1e22)
    table.to_csv("runs.csv", index=False)
    words = [
        "fit",
        "--table",
        "runs.csv",
        "--columns",
        "map.yaml",
        "--law",
        "chinchilla",
        "--laws.bootstrap",
        "laplace",
        "--json",
    ]
    assert main(words, COMMANDS) == 0
    assert json.loads(capsys.readouterr().out)["skills"]["all"]["theta"]
