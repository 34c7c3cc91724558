"""The Python interface: from a data frame to a plan in five lines, with the numbers of the command line."""

import doctest
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import skillscale.api.skill_laws
import skillscale.api.sources
from skillscale.api.skill_laws import fit
from skillscale.api.sources import runs
from skillscale.cli import COMMANDS, main
from skillscale.errors import InputError
from skillscale.formatting import to_json

EXAMPLES = Path(__file__).parents[2] / "examples"
SETTINGS = {"laws.bootstrap": "laplace", "study.resamples": 200}


@pytest.fixture(scope="module")
def planted():
    return pd.read_csv(EXAMPLES / "planted.csv")


@pytest.fixture(scope="module")
def laws(planted):
    return fit(runs(planted), law="separable", settings=SETTINGS)


@pytest.fixture(scope="module")
def command():
    """Answers of the command line for the same table."""

    def run(name, *words):
        answer = io.StringIO()
        table = ["--table", str(EXAMPLES / "planted.csv")]
        options = [word for key, value in SETTINGS.items() for word in (f"--{key}", str(value))]
        law = [] if name == "suggest" else ["--law", "separable"]
        assert main([name, *table, *law, *options, *words, "--json"], COMMANDS, answer) == 0
        return json.loads(answer.getvalue())

    return run


def test_optima_are_those_of_fit(laws, command):
    skills = command("fit", "--flops", "1e21,1e22")["skills"]
    table = laws.optimum([1e21, 1e22]).set_index(["skill", "C"])
    for name, fields in skills.items():
        for optimum in fields["optima"]:
            row = table.loc[name, optimum["flops"]]
            given = [optimum["n_params"], *optimum["interval"]]
            assert row[["N", "N_low", "N_high"]].tolist() == pytest.approx(given, rel=1e-9)
            assert row["D"] == pytest.approx(optimum["flops"] / 6 / row["N"], rel=1e-9)


def test_a_plan_is_that_of_plan(laws, command):
    given = command("plan", "--flops", "1e22", "--skill_weights", "code=2,prose=1", "--n_params", "3e9")
    plan = laws.plan(1e22, weights={"code": 2, "prose": 1}, n_params=[3e9])
    plans = json.loads(to_json(plan.as_dict()))["plans"]
    assert [one | {"not_told": []} for one in plans] == [one | {"not_told": []} for one in given["plans"]]
    row = plan.frame.iloc[0]
    assert [row["N"], row["N_low"], row["N_high"]] == [given["plans"][0]["n_params"], *given["plans"][0]["interval"]]
    assert row["loss_code"] == given["plans"][0]["losses"]["code"]["loss"]
    assert repr(plan).startswith("plan for 1e22 FLOP")
    html = plan._repr_html_()
    assert "<svg" in html
    assert "plan for 1e22 FLOP" in html


def test_mixes_are_shares(laws):
    even = laws.optimum(1e21, mix={"code": 0.2, "knowledge": 0.4, "prose": 0.4})
    assert (even["loss"] != laws.optimum(1e21)["loss"]).all()
    plan = laws.plan(1e21, mix={"code": 0.2, "knowledge": 0.4, "prose": 0.4})
    assert "mix: code 0.2, knowledge 0.4, prose 0.4\n" in repr(plan)
    with pytest.raises(InputError, match="--mix must hold shares"):
        laws.plan(1e21, mix="balanced")


def test_predictions_hold_the_runs(planted, laws):
    points = planted.rename(columns=lambda name: name.replace("mix_", "mix/"))
    predicted = laws.predict(points)
    assert len(predicted) == 3 * len(planted)
    measured = np.concatenate([planted[f"loss_{name}"] for name in laws.skills])
    inside = (predicted["run_low"] <= measured) & (measured <= predicted["run_high"])
    assert 0.8 < inside.mean() < 1.0
    assert (predicted["run_low"] < predicted["loss_low"]).all()
    with pytest.raises(InputError, match=r"points need a column D .or n_tokens or tokens"):
        laws.predict(pd.DataFrame({"N": [1e9]}))


def test_suggestions_are_those_of_suggest(laws, command):
    suggestion = laws.suggest(2, flops_max=1e21, budget=5e21)
    given = command("suggest", "--count", "2", "--flops_max", "1e21", "--budget", "5e21")
    assert json.loads(to_json(suggestion.as_dict()))["points"] == given["points"]


def test_runs_show_what_they_are(planted):
    shown = runs(planted)
    assert "mixes    4, shares of code, knowledge, prose" in repr(shown)
    assert shown._repr_html_().startswith("<pre")
    assert (len(shown), shown.skills) == (60, ("code", "knowledge", "prose"))
    assert shown.frame.loc[0, "N"] == planted.loc[0, "params"]


def test_columns_are_named_or_guessed(planted):
    columns = {"n_params": "params", "n_tokens": "tokens", "skills": {"maths": "loss_code"}}
    assert runs(planted, columns=columns).skills == ("maths",)
    assert runs(planted, columns=EXAMPLES / "planted.yaml").skills == ("code", "knowledge", "prose")
    assert len(runs(EXAMPLES / "planted.csv")) == 60
    with pytest.raises(InputError, match="either a table or a study"):
        runs()
    with pytest.raises(InputError, match="either a table or a study"):
        runs(planted, study="main")
    with pytest.raises(InputError, match="no column of the frame is D"):
        runs(planted.drop(columns="tokens").drop(columns="flops"))


def test_laws_show_their_table_and_are_written(laws, tmp_path):
    assert repr(laws).startswith("skill ")
    assert "code" in laws._repr_html_()
    laws.save(tmp_path / "law.json")
    assert set(json.loads((tmp_path / "law.json").read_text())["skills"]) == {"code", "knowledge", "prose"}
    assert laws.plot().axes


@pytest.mark.parametrize("module", [skillscale.api.sources, skillscale.api.skill_laws], ids=lambda each: each.__name__)
def test_examples_of_docstrings_run(module, monkeypatch):
    monkeypatch.chdir(EXAMPLES.parent)
    result = doctest.testmod(module)
    assert (result.failed, result.attempted > 0) == (0, True)


def test_the_package_is_imported_at_once():
    """Nothing heavy is imported before the first question."""
    code = (
        "import sys, skillscale; sys.exit(any(name in sys.modules for name in ('numpy', 'pandas', 'scipy', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
