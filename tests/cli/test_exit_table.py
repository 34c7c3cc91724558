"""Each cell of the table of exit codes in the guide: the code, and one JSON object."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from skillscale import cli
from skillscale.cli.command import Command
from skillscale.errors import TrainingError
from skillscale.execution import session
from skillscale.record import RunState

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

NAMES = [command.name for command in cli.COMMANDS]
LAW = ("--law", "chinchilla", "--laws.bootstrap", "laplace")
TABLE = ("--table", "runs.csv", "--columns", "map.yaml")
TRAINER = "def good(n_params, n_tokens, mix, seed): return {'code': 2.0 + 60 / n_params**0.3 + 90 / n_tokens**0.3}\n"
TRAINER += "def bad(n_params, n_tokens, mix, seed): raise SystemExit(0)\n"
SAMPLE = ("--target_skills", "code", "--flops_max", "1e15", "--points", "2", "--workers", "1", "--cache", "cache")
SIMULATE = ("--design", "grid", "--seeds", "1", "--budget", "2")
FINISHES = {
    "import": (*TABLE, "--study", "theirs"), "demo": ("--laws.law", *LAW[1:]), "check": TABLE, "fit": (*TABLE, *LAW),
    "plan": (*TABLE, *LAW, "--flops", "1e19"), "suggest": (*TABLE, "--count", "1"),
    "report": (*TABLE, *LAW, "--page", "page.html"), "backtest": (*TABLE, *LAW, "--max_params", "2e7"),
    "export": (*TABLE, *LAW, "--file", "law.json"), "watch": ("--study", "theirs", "--once"), "close_stale": (),
    "simulate": ("--truth", "truth.py", *SIMULATE),
}  # fmt: skip
TRAINS = {"main", "prepare", "grid", "sample", "train", "worker", "tune", "evaluate"}
NEEDS = {"train": ("--n_params", "2e5", "--flops", "1e11"), "worker": ("--study", "smoke")}


def documented(root):
    text = (root / "docs" / "guide" / "reference" / "exit-codes.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", text, flags=re.MULTILINE)
    cells = {name: [cell.strip() for cell in row.split("|")] for name, row in rows}
    return {name: [None if cell == "–" else int(cell) for cell in row] for name, row in cells.items()}


def answer_of(words, code):
    answer = io.StringIO()
    assert cli.main([*words, "--json"], answer=answer) == code, answer.getvalue()
    value = json.loads(answer.getvalue())
    assert answer.getvalue().count("\n") == 1
    if code:
        assert (value["exit_code"], bool(value["error"])) == (code, True)
    else:
        assert "error" not in value
    return value


@pytest.fixture
def place(tmp_path, empty_store, monkeypatch):
    """A folder with a table, a trainer, a truth and a store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    grid = [(N, D) for N in np.geomspace(1e6, 1e8, 5) for D in np.geomspace(1e8, 1e10, 4)]
    rows = [f"{N:.0f},{D:.0f},{1.7 + 400 * N**-0.34 + 410 * D**-0.28:.6f}" for N, D in grid]
    (tmp_path / "runs.csv").write_text("\n".join(["n,d,loss", *rows]) + "\n")
    (tmp_path / "map.yaml").write_text("n_params: n\nn_tokens: d\nskills: {prose: loss}\n")
    (tmp_path / "mine.py").write_text(TRAINER)
    truth = "def losses(N, D, mix, seed): return {'code': 1.7 + 400 * N**-0.34 + 410 * D**-0.28}\n"
    (tmp_path / "truth.py").write_text(truth + "def optimum(skill, flops, mix): return (flops / 120) ** 0.5\n")
    return tmp_path


def test_the_table_has_every_command(root):
    assert sorted(documented(root)) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_success(name, root, place, monkeypatch):
    if name in TRAINS:  # the training itself has tests of its own
        monkeypatch.setattr(Command, "function", lambda self: lambda *_: {"study": "smoke"})
        needs = {"evaluate": ("--study", "new"), "sample": ("--study", "smoke")} | NEEDS
        answer_of((name, *needs.get(name, ())), documented(root)[name][0])
        return
    if name == "watch":
        answer_of(("import", *FINISHES["import"]), 0)
    answer_of((name, *FINISHES[name]), documented(root)[name][0])


@pytest.mark.parametrize("words", [("--nonsense", "1"), ("--tracking", "a", "--tracking", "b"), ("word",)])
@pytest.mark.parametrize("name", NAMES)
def test_bad_input(name, words, root, place):
    answer_of((name, *words), documented(root)[name][1])


FAILED_POINTS = session.TrainedPoints(study="smoke", planned=2, finished=0, failed=2)


def fail_grid(monkeypatch):
    from skillscale.commands import grid

    monkeypatch.setattr(grid, "train_all", lambda *_: FAILED_POINTS)
    return ("grid", "--study", "smoke")


def fail_main(monkeypatch):
    from skillscale.commands import main

    monkeypatch.setattr(main, "train_all", lambda *_: FAILED_POINTS)
    monkeypatch.setattr(main, "sample_after_grid", lambda *_: main_sampled())
    return ("main", "--study", "smoke", "--page", "page.html")


def main_sampled():
    from skillscale.execution.sampling import SampledAfterGrid

    return SampledAfterGrid(ended="no run")


def fail_sample(_):
    return ("sample", "--study", "mine", "--trainer", "mine.py:bad", *SAMPLE)


def fail_worker(_):
    from skillscale.point import DesignPoint, Mix
    from skillscale.tracking import StudyStore

    study = StudyStore.open().open_trainer_study("mine", trainer="mine.py:bad", skills=("code",))
    study.add_points([DesignPoint(n_params=1000, n_tokens=10_000, mix=Mix({"all": 1.0}), seed=0)])
    return ("worker", "--study", "mine", "--trainer", "mine.py:bad")


def fail_simulate(_):
    return ("simulate", "--truth", "exits.py", *SIMULATE)


def fail_tune(monkeypatch):
    from skillscale.commands import tune

    def diverge(*_):
        raise TrainingError("the trial of the rule diverged")

    monkeypatch.setattr(tune, "tune_rule", diverge)
    return ("tune", "--study", "smoke")


def fail_evaluate(monkeypatch):
    from skillscale.commands import evaluate

    run = SimpleNamespace(text=lambda: "failed", as_dict=lambda: {"state": RunState.FAILED})
    evaluation = SimpleNamespace(
        runs=lambda: [run], store=SimpleNamespace(ui_command=""), study=SimpleNamespace(name="new", chart_link="")
    )
    monkeypatch.setattr(evaluate, "open_evaluation", lambda *_: evaluation)
    return ("evaluate", "--study", "new")


def fail_train(monkeypatch):
    from skillscale.commands import train

    def follow(study, point):
        record = SimpleNamespace(
            point=point, state=RunState.FAILED, reason="diverged", skills={}, sets={}, run_id="1", study="smoke"
        )
        study.runs = SimpleNamespace(records=lambda: [record])

    study = SimpleNamespace(add_points=lambda points: follow(study, points[0]), claim=lambda **_: None)
    store = SimpleNamespace(annotate_mlflow_project_run=lambda *_, **__: None)
    monkeypatch.setattr(train, "open_store", lambda *_: store)
    monkeypatch.setattr(train, "open_session", lambda *_: SimpleNamespace(study=study))
    monkeypatch.setattr(train, "StatusPublisher", lambda *_: SimpleNamespace(refresh=lambda **_: None))
    return ("train", "--study", "smoke", *NEEDS["train"])


FAILS = {
    "main": fail_main, "grid": fail_grid, "sample": fail_sample, "worker": fail_worker, "simulate": fail_simulate,
    "tune": fail_tune, "evaluate": fail_evaluate, "train": fail_train,
}  # fmt: skip


def test_every_command_that_makes_runs_has_a_failure(root):
    assert sorted(FAILS) == sorted(name for name, codes in documented(root).items() if codes[2] is not None)


@pytest.mark.parametrize("name", [*sorted(FAILS.keys() - {"sample"}), pytest.param("sample", marks=pytest.mark.slow)])
def test_every_run_failed(name, root, place, monkeypatch):
    (place / "exits.py").write_text("def losses(N, D, mix, seed): raise SystemExit(0)\n")
    answer_of(FAILS[name](monkeypatch), documented(root)[name][2])


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", NAMES)
def test_stopped(name, signum, root, monkeypatch):
    """The signal reaches this process while the command runs."""
    needs = dict.fromkeys(NAMES, ()) | FINISHES | NEEDS | {"sample": ("--study", "smoke")}
    needs |= {"evaluate": ("--study", "new"), "import": ("--study", "new", "--columns", "map.yaml")}
    monkeypatch.setattr(Command, "function", lambda self: lambda *_: os.kill(os.getpid(), signum))
    answer_of((name, *needs[name]), documented(root)[name][3 if signum == signal.SIGINT else 4])


def test_a_stop_after_the_answer_gives_no_second_object():
    answer = io.StringIO()

    class Stops(io.StringIO):
        def flush(self):
            answer.write(self.getvalue())
            os.kill(os.getpid(), signal.SIGTERM)

    command = replace(cli.COMMANDS[0], run="builtins:dict")
    stream = Stops()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Command, "function", lambda self: lambda *_: {"done": True})
        assert cli.main([command.name, "--json"], [command], stream) == 143
    assert stream.getvalue().count("\n") == 1
    assert json.loads(stream.getvalue()) == {"done": True}


ENDS = {
    "os._exit": "os._exit(0)", "sys.exit": "raise SystemExit(0)", "GeneratorExit": "raise GeneratorExit",
    "a copy that ends": "os.fork() or os._exit(0); raise ValueError", "KeyboardInterrupt": "raise KeyboardInterrupt",
    "killed group": "os.killpg(0, signal.SIGTERM); time.sleep(9)",
    "at import": "pass\nos._exit(0)",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDS)
def test_a_truth_that_ends_the_process_is_one_object_and_no_success(end, tmp_path):
    (tmp_path / "w.py").write_text(f"import os, signal, time\ndef losses(N, D, mix, seed): {ENDS[end]}\n")
    words = [sys.executable, "-m", "skillscale", "simulate", "--truth", "w.py", *SIMULATE, "--json"]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=100, start_new_session=True)
    assert ended.returncode in (1, 2, 130, 143), ended.stderr
    assert json.loads(ended.stdout)["exit_code"] == ended.returncode


@pytest.mark.slow
def test_a_truth_that_copies_the_process_gives_one_answer(tmp_path):
    body = "os.fork(); return {'code': 1.7 + 400 * N**-0.34 + 410 * D**-0.28}"
    optimum = "def optimum(skill, flops, mix): return (flops / 120) ** 0.5\n"
    (tmp_path / "w.py").write_text(f"import os\ndef losses(N, D, mix, seed): {body}\n{optimum}")
    words = [sys.executable, "-m", "skillscale", "simulate", "--truth", "w.py", *SIMULATE, "--json"]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["seeds"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_process_writes_one_object(signum, code, tmp_path):
    (tmp_path / "w.py").write_text("import time\ndef losses(N, D, mix, seed):\n    open('on', 'w'); time.sleep(60)\n")
    words = [sys.executable, "-m", "skillscale", "simulate", "--truth", "w.py", *SIMULATE, "--json"]
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not (tmp_path / "on").exists() and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(signum)
    answer, _ = process.communicate(timeout=60)
    assert (process.returncode, json.loads(answer)["exit_code"]) == (code, code)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("words", [["fit", "--json"], ["fit"]])
def test_a_signal_while_the_command_is_imported_gives_its_answer(signum, code, words):
    program = (
        "import os, sys, time\n"
        "class Finder:\n"
        "    def find_spec(name, path, target=None):\n"
        f"        if name == 'skillscale.cli': os.kill(os.getpid(), {int(signum)}); time.sleep(9)\n"
        "sys.meta_path.insert(0, Finder)\n"
        "from skillscale.__main__ import console\n"
        "console()\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert ended.returncode == code
    assert ended.stderr == "skillscale: stopped; run the same command to go on\n"
    expected = {"error": "stopped; run the same command to go on", "exit_code": code}
    assert (json.loads(ended.stdout) if "--json" in words else ended.stdout) == (expected if "--json" in words else "")


def test_the_console_script_is_the_module(root):
    scripts = tomllib.loads((root / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"skillscale": "skillscale.__main__:console"}
