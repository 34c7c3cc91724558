"""Every run of fit, report and plan says its answer, its numbers and its figure; so does the run of `mlflow run`."""

import json
import re
import shutil
from pathlib import Path

import pytest
import small_study
from test_damaged_runs import LAW, answer_of, damaged, whole  # noqa: F401  # fixtures

from skillscale import cli
from skillscale.tracking import StudyStore

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

COMMANDS = {
    "fit": ("fit", *LAW, "--flops", "1e13,1e15"),
    "report": ("report", *LAW, "--flops", "1e13,1e15", "--page", "page.html"),
    "plan": ("plan", *LAW, "--flops", "1e13,1e15", "--force"),
}


def client(folder):
    from mlflow.tracking import MlflowClient

    return MlflowClient(f"sqlite:///{folder}/mlflow.db")


@pytest.mark.parametrize("kind", COMMANDS)
def test_an_analysis_is_described_and_so_is_the_run_that_launched_it(kind, whole, tmp_path, monkeypatch, capsys):  # noqa: F811
    damaged(whole, lambda database, run: None, tmp_path, monkeypatch)
    mlflow = client(tmp_path)
    launcher = mlflow.create_run(mlflow.create_experiment("launchers")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", launcher)
    code, text = answer_of((*COMMANDS[kind], "--json"), tmp_path, capsys)
    assert code == 0, text
    study = StudyStore.open(f"sqlite:///{tmp_path}/mlflow.db").study("smoke")
    run = mlflow.search_runs([study.study_experiment_id], f"tags.`skillscale.kind` = '{kind}'")[0]
    outer = mlflow.get_run(launcher)
    note, numbers = run.data.tags["mlflow.note.content"], outer.data.metrics
    answer = re.match(r"For 1e13 FLOP, train \S+ parameters on \S+ tokens \(D/N \S+\)[:.]", note)
    assert answer, note
    assert len(run.data.metrics) <= 35
    assert {"N_star", "D_star", "loss/code", "loss/prose"} < run.data.metrics.keys()
    assert 6 * numbers["N_star"] * numbers["D_star"] == pytest.approx(1e13)
    assert outer.data.tags["mlflow.note.content"].startswith(note[: answer.end()])
    (picture,) = re.findall(rf"!\[[^]]*\]\(get-artifact\?path=(.*)&run_uuid={run.info.run_id}\)", note)
    assert Path(mlflow.download_artifacts(run.info.run_id, picture)).read_bytes()[1:4] == b"PNG"
    for name in re.findall(rf"/runs/{run.info.run_id}/artifacts/(.*?)\?", note):
        assert mlflow.download_artifacts(run.info.run_id, name)
    if kind == "plan":
        planned = json.loads(text[: text.rindex("}") + 1])["plans"][0]
        assert numbers["N_star"] == planned["n_params"]
    else:
        shown = mlflow.get_experiment(study.experiment_id).tags["mlflow.note.content"]
        assert shown.startswith(note[: note.index(")")])


@pytest.mark.parametrize(
    "words", [("suggest", "--count", "1", "--flops_max", "1e15"), ("backtest", "--max_flops", "1e13", *LAW)]
)
def test_a_command_that_records_nothing_describes_the_run_that_launched_it(words, whole, tmp_path, monkeypatch, capsys):  # noqa: F811
    damaged(whole, lambda database, run: None, tmp_path, monkeypatch)
    mlflow = client(tmp_path)
    launcher = mlflow.create_run(mlflow.create_experiment("launchers")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", launcher)
    code, text = answer_of(words, tmp_path, capsys)
    assert code == 0, text
    _, note, rest = mlflow.get_run(launcher).data.tags["mlflow.note.content"].split("```")
    assert note.strip() in text
    assert "Runs of study smoke" in rest


def test_fit_and_plan_say_the_same_size(whole, tmp_path, monkeypatch, capsys):  # noqa: F811
    damaged(whole, lambda database, run: None, tmp_path, monkeypatch)
    for kind in ("fit", "plan"):
        assert answer_of(COMMANDS[kind], tmp_path, capsys)[0] == 0
    study = StudyStore.open(f"sqlite:///{tmp_path}/mlflow.db").study("smoke")
    sizes = {}
    for kind in ("fit", "plan"):
        query = f"tags.`skillscale.kind` = '{kind}' and metrics.N_star > 0"
        (run,) = client(tmp_path).search_runs([study.study_experiment_id], query)
        (first, *_) = client(tmp_path).get_metric_history(run.info.run_id, "N_star")
        sizes[kind] = first.value
    assert sizes["fit"] == sizes["plan"]


def test_the_run_that_launched_a_training_has_the_numbers_of_its_point(tmp_path, monkeypatch, empty_store):
    words = small_study.write(tmp_path)
    shutil.copy(empty_store, tmp_path / "runs.db")
    from mlflow.tracking import MlflowClient

    mlflow = MlflowClient(f"sqlite:///{tmp_path}/runs.db")
    launcher = mlflow.create_run(mlflow.create_experiment("launchers")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", launcher)
    point = ["--n_params", "3000", "--n_tokens", "20000", "--cache", str(tmp_path / "cache")]
    assert cli.main(["train", *words, *point]) == 0
    outer = mlflow.get_run(launcher)
    (run,) = mlflow.search_runs([mlflow.get_experiment_by_name("small").experiment_id])
    metrics = {name: value for name, value in run.data.metrics.items() if name != "train_loss"}
    assert {"n_params", "n_tokens", "skill_loss/reversing"} < metrics.keys()
    assert outer.data.metrics == metrics
    assert "| reversing" in outer.data.tags["mlflow.note.content"]
