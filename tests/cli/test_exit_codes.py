"""Every entry ends with the codes that are promised, says why in one line, and answers ``--json`` with one object."""

import io
import json

import pytest

from skillscale import cli
from skillscale.cli.command import Command

# MLflow 3.17 on SQLAlchemy 2.1
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

REFUSED = {
    "main": (2, ["--study", "nowhere"], "nowhere"),
    "prepare": (2, ["--study", "nowhere"], "nowhere"),
    "train": (2, ["--n_params", "1e4"], "--n_tokens or --flops"),
    "grid": (2, ["--budgets", "-1"], "--budgets"),
    "worker": (2, ["--study", "nowhere"], "nowhere"),
    "sample": (2, ["--study", "nowhere"], "nowhere"),
    "suggest": (1, ["--study", "nowhere"], "no study 'nowhere'"),
    "tune": (2, ["--trials", "0"], "--trials"),
    "demo": (2, ["--out", __file__], "test_exit_codes.py"),
    "check": (1, ["--study", "nowhere"], "no study 'nowhere'"),
    "fit": (1, ["--study", "nowhere"], "no study 'nowhere'"),
    "plan": (1, ["--study", "nowhere", "--flops", "1e12"], "no study 'nowhere'"),
    "backtest": (1, ["--study", "nowhere", "--max_params", "1e9"], "no study 'nowhere'"),
    "simulate": (2, ["--truth", "nowhere"], "nowhere"),
    "report": (1, ["--study", "nowhere"], "no study 'nowhere'"),
    "import": (2, ["--study", "new", "--columns", "nowhere.yaml"], "nowhere.yaml"),
    "evaluate": (2, ["--study", "new", "--checkpoint", "nowhere", "--n_tokens", "1e9", "--mix", "code=1"], "nowhere"),
    "export": (1, ["--study", "nowhere", "--file", "runs.csv"], "no study 'nowhere'"),
    "watch": (1, ["--study", "nowhere", "--once"], "no study 'nowhere'"),
    "close_stale": (1, ["--study", "nowhere"], "no study 'nowhere'"),
}
ANSWERS = (
    ["import", "--columns", "map.yaml", "--table", "runs.csv"],
    ["watch", "--once"],
    ["close_stale"],
    ["fit", "--law", "chinchilla", "--laws.bootstrap", "laplace"],
    ["export", "--file", "again.csv"],
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A registry that holds no study."""
    from skillscale.tracking import StudyStore

    return StudyStore.open(f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db").uri


def test_the_table_holds_every_entry():
    assert sorted(REFUSED) == sorted(entry.name for entry in cli.COMMANDS)


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_done_is_a_code_and_a_line(name, store, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, words, part = REFUSED[name]
    declared = {parameter.name for entry in cli.COMMANDS if entry.name == name for parameter in entry.parameters}
    where = ["--tracking", store] if "tracking" in declared else []
    answer = io.StringIO()
    assert cli.main([name, *words, *where, "--json"], answer=answer) == code
    told = json.loads(answer.getvalue())
    assert (told["exit_code"], part in told["error"]) == (code, True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("skillscale: error: ")
    assert part in lines[-1]
    assert sum(line.startswith("skillscale: error") for line in lines) == 1


@pytest.mark.parametrize(
    ("raised", "code", "error"),
    [
        (KeyboardInterrupt, 130, "stopped"), (SystemExit(0), 1, "sys.exit(0)"),
        (ValueError("odd"), 1, "ValueError: odd"), (FileNotFoundError(2, "No such file"), 2, "working folder is gone"),
        (ModuleNotFoundError("no torch", name="torch.nn"), 2, "pip install 'skillscale[train]'"),
        (OSError(28, "No space left"), 1, "free some space"), (PermissionError(1, "no"), 1, "no"),
    ],
)  # fmt: skip
def test_whatever_ends_a_command_is_one_object_with_a_code(raised, code, error, monkeypatch):
    def function(*_):
        raise raised

    monkeypatch.setattr(Command, "function", lambda self: function)
    answer = io.StringIO()
    assert cli.main(["fit", "--json"], answer=answer) == code
    told = json.loads(answer.getvalue())
    assert (told["exit_code"], error in told["error"]) == (code, True)
    assert answer.getvalue().count("\n") == 1


@pytest.mark.parametrize("words", [["fitt", "--json"], ["fit", "--jsn", "--json"], ["fit", "--json", "--flops", "x"]])
def test_words_that_are_no_command_are_one_object_too(words):
    answer = io.StringIO()
    assert cli.main(words, answer=answer) == 2
    assert json.loads(answer.getvalue())["exit_code"] == 2


def test_a_command_whose_runs_all_failed_ends_with_code_1(monkeypatch, capsys):
    def function(options, config, out):
        out.fail("3 points failed")
        return {"failed": 3}

    monkeypatch.setattr(Command, "function", lambda self: function)
    answer = io.StringIO()
    assert cli.main(["grid", "--json"], answer=answer) == 1
    assert json.loads(answer.getvalue()) == {"failed": 3, "error": "3 points failed", "exit_code": 1}
    assert cli.main(["grid"], answer=answer) == 1
    assert capsys.readouterr().err.endswith("skillscale: error: 3 points failed\n")


def test_an_answer_in_json_is_one_object(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKILLSCALE_CACHE", str(tmp_path / "cache"))
    grid = [(N, D) for N in (1e6, 4e6, 1.6e7) for D in (1e8, 4e8, 2e9)]
    rows = [f"{N:.0f},{D:.0f},{1.7 + 400 * N**-0.34 + 410 * D**-0.28:.6f}" for N, D in grid]
    (tmp_path / "runs.csv").write_text("\n".join(["n,d,loss", *rows]) + "\n")
    (tmp_path / "map.yaml").write_text("n_params: n\nn_tokens: d\nskills: {prose: loss}\n")
    for words in ANSWERS:
        answer = io.StringIO()
        where = ["--study", "theirs", "--tracking", f"sqlite:///{tmp_path}/mlflow.db"]
        assert cli.main([*words, *where, "--json"], answer=answer) == 0, words
        assert isinstance(json.loads(answer.getvalue()), dict), words
        assert answer.getvalue().count("\n") == 1, words
