"""A store that skillscale 0.1 wrote: its runs are read as before, and no more points are trained.

``store_0_1.json`` holds what version 0.1 wrote for a study of a user's trainer: nine finished runs, a failed and a
running run, and a point that waits. Its queue is in tags of the plan.
"""

import json
from pathlib import Path

import pytest
from test_tracking import point, registry  # noqa: F401  # fixtures

from skillscale import cli
from skillscale.errors import InputError
from skillscale.record import RunState

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
# As version 0.1 fitted these runs
ALPHA = {"code": 0.3616858122923932, "prose": 0.31039578197472645}


@pytest.fixture
def old(registry):  # noqa: F811
    """A store with the study ``old``."""
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.tracking import MlflowClient

    client = MlflowClient(registry.uri)
    for experiment in json.loads(Path(__file__).with_name("store_0_1.json").read_text(encoding="utf-8")):
        experiment_id = client.create_experiment(experiment["name"], tags=experiment["tags"])
        for at, run in enumerate(experiment["runs"]):
            run_id = client.create_run(experiment_id, start_time=1000 + at, run_name=run["name"]).info.run_id
            client.log_batch(
                run_id,
                metrics=[Metric(name, value, 1000, 0) for name, value in run["metrics"].items()],
                params=[Param(name, text) for name, text in run["params"].items()],
                tags=[RunTag(name, text) for name, text in run["tags"].items()],
            )
            if run["status"] != "RUNNING":
                client.set_terminated(run_id, run["status"], end_time=2000 + at)
    return registry


def test_its_runs_are_read_and_fitted_as_before(old, capsys, tmp_path):
    study = old.study("old")
    states = [record.state for record in study.runs.records()]
    assert states == [RunState.FINISHED] * 9 + [RunState.FAILED, RunState.RUNNING]
    assert len(study.runs.finished()) == 9
    assert (study.planned(), study.is_sampling()) == ([], False)
    source = ["--study", "old", "--tracking", old.uri, "--law", "chinchilla", "--study.resamples", "100", "--json"]
    assert cli.main(["fit", *source, "--flops", "1e13"]) == 0
    skills = json.loads(capsys.readouterr().out)["skills"]
    assert {name: skill["theta"]["alpha"] for name, skill in skills.items()} == pytest.approx(
        ALPHA, rel=0.02
    )  # of nine runs weak priors move it
    assert cli.main(["plan", *source, "--flops", "1e13", "--force"]) == 0
    assert cli.main(["report", *source, "--page", str(tmp_path / "page.html")]) == 0
    assert cli.main(["export", *source, "--file", str(tmp_path / "law.py")]) == 0
    assert not list(tmp_path.glob("*.journal")), "reading makes no queue"


def test_no_more_points_are_trained_in_it(old, tmp_path):
    study = old.study("old")
    for train in (
        study.claim,
        lambda: study.add_points([point()]),
        lambda: old.open_trainer_study("old", trainer="law.py:train", skills=["code", "prose"]),
    ):
        with pytest.raises(InputError, match=r"begun by skillscale 0\.1.*--study\.name NAME"):
            train()
    assert len(study.runs.records()) == 11


def test_its_running_runs_are_closed_by_age(old):
    study = old.study("old")
    assert study.close_stale() == []
    (closed,) = study.close_stale(stale_after_s=1.0)
    assert closed.owner == "old-host:1:0"
