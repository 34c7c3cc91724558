"""`demo`, and the table commands that it names, where nothing but the core is installed."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from skillscale.cli import COMMANDS, main

BUNDLED = Path(main.__code__.co_filename).parents[1] / "tables" / "bundled"
EXTRAS = (
    "torch", "lightning", "datasets", "tokenizers", "transformers", "mlflow", "optuna", "sqlalchemy", "alembic",
    "pyarrow", "ray", "submitit", "kubernetes", "psycopg2",
)  # fmt: skip
CORE_ALONE = f"""
import importlib.abc, io, json, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {EXTRAS}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
from skillscale.cli import COMMANDS, main

answers = []
for words in json.load(sys.stdin):
    answer = io.StringIO()
    code = main([*words, "--json"], COMMANDS, answer)
    answers.append([code, json.loads(answer.getvalue())])
json.dump(answers, sys.stdout)
"""
TABLE = ["--table", "skillscale-demo/openlm.csv"]
QUICK = ["--laws.law", "chinchilla", "--laws.bootstrap", "laplace", "--study.resamples", "100"]
SHORT = {
    "demo": ["demo", *QUICK],
    "check": ["check", *TABLE],
    "fit": ["fit", *TABLE, *QUICK],
    "export": ["export", *TABLE, "--file", "law.json", *QUICK],
    "plan": ["plan", "--from", "law.json", "--flops", "7.96e22"],
}
FULL = {
    "demo": ["demo"],
    "check": ["check", *TABLE],
    "fit": ["fit", *TABLE],
    "plan": ["plan", *TABLE, "--flops", "7.96e22"],
    "backtest": ["backtest", *TABLE, "--max_params", "5e8"],
    "suggest": ["suggest", *TABLE, "--count", "4"],
    "export": ["export", *TABLE, "--file", "runs.csv"],
    "report": ["report", *TABLE, "--page", "page.html"],
}


def run_with_the_core_alone(folder, commands):
    """Answers of some commands, by their name, in one process that cannot import any extra."""
    done = subprocess.run(
        [sys.executable, "-c", CORE_ALONE], input=json.dumps(list(commands.values())), cwd=folder, text=True,
        capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = dict(zip(commands, json.loads(done.stdout), strict=True))
    assert {name: code for name, (code, _) in answers.items() if code} == {}, done.stderr
    return {name: answer for name, (_, answer) in answers.items()}


def assert_one_plan(answers):
    shown, (plan,) = answers["demo"]["plan"], answers["plan"]["plans"]
    assert shown["n_params"] == pytest.approx([plan["n_params"], *plan["interval"]], rel=1e-9)
    losses = {name: loss["loss"] for name, loss in plan["losses"].items()}
    assert {name: ends[0] for name, ends in shown["losses"].items()} == pytest.approx(losses, rel=1e-9)


def test_the_core_alone_shows_the_demo_and_answers_questions_on_its_table(tmp_path):
    answers = run_with_the_core_alone(tmp_path, SHORT)
    assert_one_plan(answers)
    assert answers["check"]["problems"] == []
    page = (tmp_path / "skillscale-demo" / "openlm.html").read_text(encoding="utf-8")
    assert 'id="what-if"' in page
    assert (tmp_path / "skillscale-demo" / "openlm.csv").read_bytes() == (BUNDLED / "openlm.csv").read_bytes()


@pytest.mark.slow
def test_the_demo_shows_what_the_commands_say_with_the_settings_as_they_are(tmp_path):
    answers = run_with_the_core_alone(tmp_path, FULL)
    assert_one_plan(answers)
    assert answers["demo"]["held_out"]["skills"] == answers["backtest"]["skills"]
    assert answers["demo"]["next_runs"] == answers["suggest"]["points"]


def test_the_bundled_table_has_its_source_and_licence_next_to_it():
    text = (BUNDLED / "openlm.txt").read_text(encoding="utf-8")
    for words in (
        "arXiv 2403.08540",
        "github.com/mlfoundations/scaling",
        "MIT License",
        "Permission is hereby granted",
    ):
        assert words in text
    assert (BUNDLED / "openlm.csv").stat().st_size < 40_000


def test_a_file_is_no_folder_for_the_demo(tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    assert main(["demo", "--out", str(tmp_path / "taken")], COMMANDS, io.StringIO()) == 2
    assert "taken is a file. Give a folder." in capsys.readouterr().err
