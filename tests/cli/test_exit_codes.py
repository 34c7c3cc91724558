"""Every entry ends with the codes that are promised, says why in one line, and answers ``--json`` with one object."""

import io
import json

import pytest

from skillscale import cli

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
    assert (cli.main([name, *words, *where, "--json"], answer=answer), answer.getvalue()) == (code, "")
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("skillscale: error: ")
    assert part in lines[-1]
    assert sum(line.startswith("skillscale: error") for line in lines) == 1


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
