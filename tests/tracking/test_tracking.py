"""The record goes into the registry and comes back equal; points are shared out once; nothing killed is lost."""

import dataclasses
import json
import math
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from skillscale.config import Config, load, resolve
from skillscale.errors import InputError, TrackingError
from skillscale.point import DesignPoint, Mix
from skillscale.record import (
    Checkpoint,
    DataSet,
    DataUse,
    Measurement,
    ModelSize,
    OptimizerPlan,
    Provenance,
    RunCost,
    RunRecord,
    RunState,
    as_metrics,
    as_params,
    format_budget,
    read_record,
)
from skillscale.tracking import RunWriter, Study, StudyStore, current_owner
from skillscale.tracking.connection import resolve_uri
from skillscale.tracking.owner import is_alive
from skillscale.tracking.store import RunUpdate

# MLflow 3.17 on SQLAlchemy 2.1
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

SIZE = ModelSize(
    n_params=20_480, n_params_nonembed=12_288, n_params_embed=8_192, depth=1, width=16, n_heads=1, vocab_size=512,
    context=256,
)  # fmt: skip
OPTIMIZER_PLAN = OptimizerPlan(lr=0.0123456789012345678, batch_sequences=4, steps=999, warmup_steps=50)
PROVENANCE = Provenance(config_hash="c0ffee", data_hash="da7a", code_version="0.1.0+abc")
COST = RunCost(
    flops_exact=1.23456789e11, tokens_per_s=54321.5, matmul_share=0.31, train_s=3.2, eval_s=0.4, flops_spent=1e10
)
DATA = (
    DataSet(name="code", digest="0123456789abcdef" * 4, role="training", source="embedded:code"),
    DataSet(name="arithmetic", digest="feed", role="evaluation", source="embedded:arithmetic"),
)


def measured(loss: float) -> Measurement:
    return Measurement(loss=loss, sem=loss / 7, bpb=loss * 1.1, count=321, tokens=4567)


RESULTS = {
    "cost": COST,
    "sets": {"arithmetic": measured(1.7), "mmlu/anatomy": measured(2.0), "val/code": measured(3.1)},
    "skills": {"reasoning": measured(1.7)},
    "skills_held_out": {"reasoning": measured(1.9)},
    "data_use": {"code": DataUse(tokens=123_456, epochs=0.25), "prose": DataUse(tokens=7, epochs=1e-5)},
    "exposures": 3.5,
}


def point(n_params: int = 20_480, seed: int = 0) -> DesignPoint:
    return DesignPoint(n_params=n_params, n_tokens=1_302_083, mix=Mix({"code": 1 / 3, "prose": 2 / 3}), seed=seed)


def begin(writer: RunWriter, **more) -> None:
    writer.begin(
        size=SIZE, optimizer_plan=OPTIMIZER_PLAN, provenance=PROVENANCE, config_yaml="a: 1\n", data=DATA, **more
    )


@pytest.fixture
def registry(empty_store: Path, tmp_path: Path) -> StudyStore:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return StudyStore.open(f"sqlite:///{tmp_path}/mlflow.db", cache=tmp_path / "cache")


@pytest.fixture(scope="session")
def config() -> Config:
    return load(study="smoke")


@pytest.fixture
def study(registry: StudyStore, config: Config) -> Study:
    opened = registry.open_study("one", config)
    opened.add_points([point(seed=seed) for seed in range(2)])
    return opened


def changed(config: Config, noun: str, **values: object) -> Config:
    plain = config.as_dict()
    return resolve({**plain, noun: {**plain[noun], **values}})


def client(registry: StudyStore):
    from mlflow.tracking import MlflowClient

    return MlflowClient(registry.uri)


def worker(code: str, uri: str, processes: int = 1) -> subprocess.Popen[str]:
    """Processes that run a script with ``study`` at hand; forked after the imports, which take seconds."""
    script = (
        f"import os, sys, time; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_tracking import *\n"
        "import mlflow.tracking, mlflow.store.tracking.sqlalchemy_store\n"
        f"any(os.fork() == 0 for _ in range({processes - 1}))  # a child forks no more\n"
        "study = StudyStore.open(sys.argv[1]).open_study('one', load(study='smoke'))\n" + code
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    words = [sys.executable, "-c", script, uri]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


# The record


def test_a_record_written_reads_back_equal_in_every_field(registry, study):
    origin = Checkpoint(
        checkpoint="model-70m", checkpoint_digest="feed", first_token="<s>", dtype="float32", revision="abc",
        training_run="model",
    )  # fmt: skip
    with study.claim() as writer:
        begin(writer, checkpoint=origin)
        for tokens in (1000, 2000, 3000):
            writer.curve(tokens, 6.0 - tokens / 1000)
        written = writer.finish(**RESULTS)

    (read,) = registry.study("one").runs.records()

    expected = RunRecord(
        run_id=writer.run_id, study="one", state=RunState.FINISHED, reason="", point=point(), size=SIZE,
        optimizer_plan=OPTIMIZER_PLAN, provenance=PROVENANCE, checkpoint=origin, **RESULTS,
    )  # fmt: skip
    for field in dataclasses.fields(RunRecord):
        assert getattr(read, field.name) == getattr(expected, field.name), field.name
        assert getattr(expected, field.name) not in (None, {}), f"{field.name} is empty: its way back is not tested"
    assert read == written
    assert study.runs.curve(read.run_id) == [(1000, 5.0), (2000, 4.0), (3000, 3.0)]


@pytest.mark.parametrize("trunk", ["feed5eed", ""])
def test_a_trunk_is_told_where_there_is_one(trunk):
    optimizer_plan = dataclasses.replace(OPTIMIZER_PLAN, stable_phase=trunk, decay_steps=200 if trunk else 0)
    record = RunRecord(
        run_id="r", study="s", state=RunState.FINISHED, reason="", point=point(), optimizer_plan=optimizer_plan,
        cost=dataclasses.replace(COST, flops_spent=math.nan),
    )  # fmt: skip
    params, metrics = as_params(record), as_metrics(record)
    assert ("trunk" in params, "decay_steps" in params) == (bool(trunk), bool(trunk))
    assert "flops_spent" not in metrics
    read = read_record(params, metrics, run_id="r", study="s", state=RunState.FINISHED, reason="", point=point())
    assert read.optimizer_plan == optimizer_plan
    assert math.isnan(read.cost.flops_spent)


def test_points_of_a_trunk_are_claimed_together(study):
    ours = [point(30_000 + seed, seed=seed) for seed in (1, 2)]
    longer = [dataclasses.replace(one, n_tokens=2 * one.n_tokens) for one in ours]
    study.add_points([*ours, *longer])
    (first,) = [study.claim(only=ours[1].key)]
    with first:
        begin(first)
        first.finish(**RESULTS)
    with study.claim(trunk=ours[1].stable_phase) as second:
        assert second.point == longer[1]
        begin(second)
        second.finish(**RESULTS)
    with study.claim(trunk=ours[1].stable_phase) as other:
        assert other.point.stable_phase != ours[1].stable_phase, "none is left of that one: the next of the queue"


def test_a_run_shows_in_mlflow_what_the_ui_needs(registry, study):
    with study.claim() as writer:
        begin(writer)
        writer.finish(**RESULTS)

    run = client(registry).get_run(writer.run_id)

    assert run.info.status == "FINISHED"
    assert "mlflow.parentRunId" not in run.data.tags
    assert run.data.tags["skillscale.budget"] == "1.6e11"
    assert run.data.tags["skillscale.state"] == "finished"
    assert "| reasoning&emsp; | 1.7000" in run.data.tags["mlflow.note.content"]
    assert run.data.metrics["log10_n_params"] == pytest.approx(math.log10(20_480))
    assert run.data.metrics["log10_flops"] == pytest.approx(math.log10(6 * 20_480 * 1_302_083))
    assert run.data.metrics["mix/code"] == pytest.approx(1 / 3)
    assert run.data.metrics["skill_loss/reasoning"] == 1.7
    assert {one.dataset.name: len(one.dataset.digest) for one in run.inputs.dataset_inputs} == {
        "code": 36,
        "arithmetic": 4,
    }
    assert {one.path for one in client(registry).list_artifacts(writer.run_id)} == {"config.yaml", "metrics.json"}
    assert client(registry).get_experiment(study.experiment_id).tags["mlflow.experimentKind"] == (
        "custom_model_development"
    )
    assert f"#/experiments/{study.experiment_id}/runs?workflowType=machine_learning" in study.chart_link


def test_a_measurement_that_failed_is_absent_and_infinity_is_no_number():
    record = RunRecord(
        run_id="r", study="s", state=RunState.FINISHED, reason="", point=point(),
        sets={"lost": measured(math.nan), "kept": dataclasses.replace(measured(1.0), bpb=math.inf)},
    )  # fmt: skip
    metrics = as_metrics(record)
    read = read_record(
        as_params(record), metrics, run_id="r", study="s", state=RunState.FINISHED, reason="", point=point()
    )
    assert set(read.sets) == {"kept"}
    assert math.isnan(read.sets["kept"].bpb)
    assert read.size is None
    assert read.cost is None
    assert not any(math.isinf(value) for value in metrics.values())


def test_points_of_one_budget_have_one_label():
    labels = {format_budget(6.0 * n * round(1.25e11 / 6 / n)) for n in range(10_001, 400_000, 12_345)}
    assert labels == {"1.25e11"}
    assert format_budget(5e10) == "5e10"


# The queue


def test_six_processes_on_a_missing_store_get_each_of_twenty_points_once(tmp_path):
    code = (
        "study.add_points([point(seed=seed) for seed in range(20)])\n"
        "while (writer := study.claim()) is not None:\n"
        "    with writer:\n"
        "        begin(writer); time.sleep(.05); writer.finish(**RESULTS)\n"
        "    print(f'{os.getpid()} {writer.point.seed}', flush=True)\n"
    )
    uri = f"sqlite:///{tmp_path}/new/mlflow.db"
    with worker(code, uri, processes=6) as workers:
        out, err = workers.communicate(timeout=100)  # ends when the last of them has closed its output

    assert "Traceback" not in err, err
    taken = [int(line.split()[1]) for line in out.splitlines()]
    assert len({line.split()[0] for line in out.splitlines()}) > 1, "one process did it all"
    assert Counter(taken) == Counter(range(20))
    records = StudyStore.open(uri).study("one").runs.records()
    assert Counter(one.point.seed for one in records) == Counter(range(20))
    assert {one.state for one in records} == {RunState.FINISHED}


def test_the_point_of_a_process_killed_with_sigkill_goes_on_in_the_same_run(registry, study):
    code = (
        "writer = study.claim(); begin(writer)\n"
        "writer.curve(1000, 5.); writer.curve(2000, 4.); writer._flush()\n"
        "print(writer.run_id, flush=True); time.sleep(100)\n"
    )
    with worker(code, registry.uri) as process:
        run_id = process.stdout.readline().strip()
        assert run_id, process.stderr.read()
        other = study.claim()
        assert other.point == point(seed=1), "the first point has a living owner"
        other.fail("diverged: loss is nan")
        process.kill()

    (reaped,) = study.close_stale()
    assert (reaped.run_id, study.close_stale()) == (run_id, [])
    assert [one.state for one in study.runs.records()] == [RunState.KILLED, RunState.FAILED]
    with study.claim() as writer:
        assert (writer.run_id, writer.claim.attempt, writer.logged_tokens) == (run_id, 2, 2000)
        begin(writer)
        for tokens, loss in ((1000, 5.0), (2000, 4.0), (3000, 3.0)):
            writer.curve(tokens, loss)
        writer.finish(**RESULTS)
    assert study.claim() is None

    assert study.runs.curve(run_id) == [(1000, 5.0), (2000, 4.0), (3000, 3.0)]
    mlflow = client(registry)
    for name in ("train_loss", "n_params"):
        steps = [one.step for one in mlflow.get_metric_history(run_id, name)]
        assert len(steps) == len(set(steps)), f"{name} was written twice"
    assert len(mlflow.get_run(run_id).inputs.dataset_inputs) == len(DATA)


def test_a_dead_owner_is_seen_without_reaping_and_gives_up_after_five_deaths(registry, config):
    study = registry.open_study("one", config)
    study.add_points([point()])
    ended = subprocess.Popen([sys.executable, "-c", ""])
    gone = current_owner().replace(f":{os.getpid()}:", f":{ended.pid}:")
    ended.wait()
    runs = set()
    for attempt in range(1, 6):
        writer = study.claim(gone)
        assert writer.claim.attempt == attempt
        runs.add(writer.run_id)
    assert study.claim() is None
    (record,) = study.runs.records()
    assert runs == {record.run_id}
    assert record.state is RunState.FAILED
    assert "died 5 times" in record.reason


def test_the_next_analysis_closes_those_of_processes_that_are_gone(registry, study):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    gone = current_owner().replace(f":{os.getpid()}:", f":{ended.pid}:")
    ended.wait()
    left, mine = study.analysis("fit", owner=gone), study.analysis("report")
    laws = registry.open_law_run("theirs")
    registry._store.write(laws.run_id, RunUpdate(tags={"skillscale.owner": gone}))

    def states(*runs):
        return [registry._store.run(run.run_id).info.status for run in runs]

    assert states(left, mine, laws) == ["KILLED", "RUNNING", "RUNNING"]
    assert [name for name, _ in registry.close_stale_laws()] == ["theirs-laws"]
    assert states(left, mine, laws) == ["KILLED", "RUNNING", "KILLED"]
    assert "is gone" in registry._store.run(left.run_id).data.tags["skillscale.reason"]


def test_owners_are_told_apart_by_more_than_their_number():
    host, pid, start = current_owner().rsplit(":", 2)
    assert is_alive(current_owner()) is True
    assert is_alive(f"{host}:{pid}:{start}0") is False, "a recycled pid"
    assert is_alive(f"elsewhere:{pid}:{start}") is None
    assert is_alive("") is None


def test_runs_of_other_machines_are_closed_when_their_heartbeats_stop(registry, config):
    study = StudyStore.open(registry.uri, cache=registry._store.cache, heartbeat_timeout_s=1.5).open_study(
        "one", config
    )
    study.add_points([point()])
    writer = study.claim("elsewhere:1:0")
    assert study.close_stale(stale_after_s=0.001) == [], "it writes heartbeats"
    writer._lease.abandon()
    (closed,) = study.close_stale()
    assert (closed.run_id, closed.owner) == (writer.run_id, "elsewhere:1:0")
    assert [record.state for record in study.runs.records()] == [RunState.KILLED]


def test_analyses_of_other_machines_are_closed_only_by_age(study):
    study.analysis("fit", owner="elsewhere:1:0")
    assert study.close_stale() == []
    assert study.close_stale(stale_after_s=3600) == []
    time.sleep(0.01)
    (closed,) = study.close_stale(stale_after_s=0.001)
    assert "elsewhere:1:0" in closed.reason


def test_leaving_the_block_marks_the_run(study):
    with pytest.raises(KeyboardInterrupt), study.claim():
        raise KeyboardInterrupt
    assert study.runs.records()[0].state is RunState.KILLED
    with pytest.raises(ValueError, match="bad"), study.claim() as writer:
        raise ValueError("bad shape")
    (record,) = study.runs.records()
    assert (record.run_id, record.state, record.reason) == (writer.run_id, RunState.FAILED, "ValueError: bad shape")
    with study.claim() as writer:
        assert writer.point == point(seed=1), "a failed point is not tried again"
    assert study.runs.records()[1].reason == "left without a result"


def test_a_failed_point_is_tried_once_more_when_asked_in_a_run_of_its_own(registry, study):
    first = study.claim(only=point().key)
    first.fail("diverged: loss is nan")
    assert study.claim(only=point().key, retry_failed=True) is None, "it failed since this study was opened"
    time.sleep(0.01)
    again = registry.study("one")
    second = again.claim(only=point().key, retry_failed=True)
    assert second.run_id != first.run_id
    second.fail("diverged: loss is inf")
    assert again.claim(only=point().key, retry_failed=True) is None
    assert [one.reason for one in again.runs.records()] == ["diverged: loss is nan", "diverged: loss is inf"]


def test_the_plan_keeps_its_order_and_takes_each_point_once(study):
    more = [point(seed=seed) for seed in (99, 1, *range(60, 20, -1))]
    assert study.add_points(more) == 41
    assert study.add_points(more) == 0
    assert [one.seed for one in study.points()] == [0, 1, 99, *range(60, 20, -1)]
    assert study.points()[0] == point()
    assert dataclasses.astuple(study.progress()) == (43, 0, 0, 0, 0, 43)


def test_a_resumed_run_refuses_to_mix_settings(study):
    with study.claim() as writer:
        begin(writer)
    other = {"size": SIZE, "optimizer_plan": dataclasses.replace(OPTIMIZER_PLAN, lr=0.5), "provenance": PROVENANCE}
    refusal = pytest.raises(TrackingError, match=r"begun with lr=0\.0123.* go on with 0\.5.*Delete that run")
    with refusal, study.claim() as writer:
        writer.begin(**other, config_yaml="", data=DATA)


# Studies and their settings


def test_a_study_refuses_other_settings_and_names_each(registry, study, config):
    other = changed(config, "train", lr_coefficient=2.0, device="cuda")
    other = changed(other, "data", vocab_size=1024)
    with pytest.raises(InputError) as caught:
        registry.open_study("one", other)
    text = str(caught.value)
    assert f"train.lr_coefficient was {config.train.lr_coefficient}, now 2.0" in text
    assert "data.vocab_size was 512, now 1024" in text
    assert "--study.name" in text
    assert "device" not in text
    mixes = [{"knowledge": 0.25, "code": 0.25, "prose": 0.25, "reasoning": 0.25}]
    with pytest.raises(InputError, match=r"study\.mixes\.0 was 'code=0\.3,.*now 'code=0\.25"):
        registry.open_study("one", changed(config, "study", mixes=mixes))


def test_a_study_may_grow(registry, study, config):
    more = [*config.study.mixes, {"code": 1.0}]
    grown = changed(config, "study", budgets=[1e9, 1e10, 1e11], seeds=[3], mixes=more)
    assert registry.open_study("one", grown).plan_id == study.plan_id
    kept = [one.path for one in client(registry).list_artifacts(study.plan_id)]
    assert len(kept) == 2, "both versions of the settings are kept"


def test_a_study_refuses_other_data(registry, study):
    study.bind_data("first")
    study.bind_data("first")
    with pytest.raises(InputError, match="data_hash was first, now second"):
        registry.study("one").bind_data("second")


def test_names_that_cannot_be_used_are_refused(registry, study, config):
    with pytest.raises(TrackingError, match=r"no study 'two'\. It has one"):
        registry.study("two")
    with pytest.raises(InputError, match="can't be used"):
        registry.open_study("it's", config)
    with pytest.raises(InputError, match="another study name"):
        registry.open_study("one-study", config)
    client(registry).delete_experiment(study.experiment_id)
    with pytest.raises(TrackingError, match="mlflow experiments restore"):
        registry.open_study("one", config)


def test_an_analysis_holds_files_and_numbers_and_is_closed(registry, study):
    with study.analysis("fit") as run:
        run.log(metrics={"exponent/code": 0.5}, tags={"verdict": "not resolved"}, note="# Fit")
        run.file("figures/isoflop.svg", b"<svg/>")
        run.json("tables/fits.json", {"a": 1})
    with pytest.raises(ValueError, match="no minimum"), study.analysis("report") as broken:
        raise ValueError("no minimum")

    mlflow = client(registry)
    stored = mlflow.get_run(run.run_id)
    assert (stored.info.status, mlflow.get_run(broken.run_id).info.status) == ("FINISHED", "FAILED")
    assert stored.info.experiment_id == study.study_experiment_id != study.experiment_id
    assert stored.data.metrics == {"exponent/code": 0.5}
    assert stored.data.tags["skillscale.verdict"] == "not resolved"
    assert Path(mlflow.download_artifacts(run.run_id, "figures/isoflop.svg")).read_bytes() == b"<svg/>"
    assert json.loads(Path(mlflow.download_artifacts(run.run_id, "tables/fits.json")).read_text()) == {"a": 1}
    assert study.runs.records() == []


def test_the_launchers_run_is_told_and_its_params_left_alone(registry, study, monkeypatch):
    mlflow = client(registry)
    launcher = mlflow.create_run(mlflow.create_experiment("launchers")).info.run_id
    mlflow.log_param(launcher, "n_params", "'2e4'")
    assert registry.annotate_mlflow_project_run(study, note="done") is False
    monkeypatch.setenv("MLFLOW_RUN_ID", launcher)
    with study.claim() as writer:
        begin(writer)
        writer.finish(**RESULTS)
    assert registry.annotate_mlflow_project_run(study, note="done", tags={"points": "1"}, result={"points": 1}) is True
    run = mlflow.get_run(launcher)
    assert run.data.params == {"n_params": "'2e4'"}
    assert run.data.metrics == {}
    assert run.data.tags["skillscale.points"] == "1"
    assert study.experiment_id in run.data.tags["mlflow.note.content"]
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    assert registry.annotate_mlflow_project_run(study, note="done") is False, "a launcher of another store"


# Stores that can't be used


def test_a_store_of_another_mlflow_is_refused_and_left_alone(empty_store, tmp_path):
    path = tmp_path / "mlflow.db"
    shutil.copy(empty_store, path)
    columns = "run_uuid, name, source_type, entry_point_name, status, experiment_id, lifecycle_stage"
    with sqlite3.connect(path) as database:  # with a run: an empty store is made anew
        database.execute(f"INSERT INTO runs ({columns}) VALUES ('a', 'a', 'LOCAL', '', 'FINISHED', 0, 'active')")
    database.close()
    for revision, cure in (("ffffffffffff", "newer MLflow.*ffffffffffff.*pip install"), ("181f10493468", "db upgrade")):
        with sqlite3.connect(path) as database:
            database.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        database.close()
        before = path.read_bytes()
        with pytest.raises(TrackingError, match=cure):
            StudyStore.open(f"sqlite:///{path}")
        assert path.read_bytes() == before


def test_a_folder_that_mlflow_cannot_note_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / 'it\'s "here"'
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(TrackingError, match="Rename the folder"):
        StudyStore.open()


def test_a_study_whose_plan_was_edited_is_not_said_to_be_missing(registry, study, tmp_path):
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("UPDATE tags SET value = 'x' WHERE key = 'skillscale.kind' AND value = 'plan'")
    database.close()
    with pytest.raises(TrackingError, match=r"study 'one' has lost its plan.*one-study.*skillscale\.kind = plan"):
        registry.study("one")


def test_a_database_without_its_driver_is_refused_without_its_password(tmp_path):
    with pytest.raises(TrackingError, match=r"needs pyodbc.*pip install pyodbc") as caught:
        StudyStore.open("mssql+pyodbc:///?odbc_connect=DRIVER%3D%7BX%7D%3BPWD%3Dsecret", cache=tmp_path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_addresses_of_postgresql_name_their_driver(scheme):
    assert resolve_uri(f"{scheme}://u:p@h/n") == "postgresql+psycopg2://u:p@h/n"


def test_a_server_that_does_not_answer_is_told_within_seconds(tmp_path):
    for uri in ("http://127.0.0.1:9", "postgresql://u:secret@127.0.0.1:9/runs"):
        began = time.monotonic()
        with pytest.raises(TrackingError, match=r"does not answer.*Start it") as caught:
            StudyStore.open(uri, cache=tmp_path)
        assert time.monotonic() - began < 10
        assert "secret" not in str(caught.value)
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


def test_places_that_hold_no_store_are_refused(tmp_path):
    (tmp_path / "notes.db").write_text("not a database, but long enough to be one " * 50)
    with pytest.raises(TrackingError, match="can't be opened as a sqlite database"):
        StudyStore.open(f"sqlite:///{tmp_path}/notes.db")
    with pytest.raises(TrackingError, match=r"folder of .* can't be made"):
        StudyStore.open(f"sqlite:///{tmp_path}/notes.db/mlflow.db")
    for uri in ("./mlruns", "file:///tmp/mlruns", "sqlite://", "sqlite:///:memory:", "ftp://x"):
        with pytest.raises(TrackingError, match=r"can't hold a study\. Give sqlite"):
            StudyStore.open(uri)


def test_a_uri_means_the_same_from_every_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    assert resolve_uri("sqlite:///a/b.db") == f"sqlite:///{tmp_path}/a/b.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000/")
    assert resolve_uri() == "http://server:5000"
    assert resolve_uri("sqlite:////x.db") == "sqlite:////x.db"


def test_results_outlive_a_full_disk(registry, study, config, tmp_path):
    """The limit on file size stands in for the full disk: the database can't be written, the spool's small file can."""
    writer = study.claim()
    begin(writer)
    many = {f"set{at}": measured(1 + at / 100) for at in range(60)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (tmp_path / "mlflow.db").stat().st_size // 2  # few metrics fit into pages that are there
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        with pytest.raises(TrackingError, match=r"no room.*results are kept in .*\.json"):
            writer.finish(**{**RESULTS, "sets": many})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert study.runs.records()[0].state is RunState.RUNNING

    again = registry.open_study("one", config)

    record = again.runs.records()[0]
    assert (record.run_id, record.state, record.sets) == (writer.run_id, RunState.FINISHED, many)
    assert registry.flush_pending() == []


def test_importing_the_room_loads_no_mlflow():
    code = "import sys, skillscale.tracking; sys.exit('mlflow' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0
