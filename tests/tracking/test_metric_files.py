"""A run shows at most 35 metrics in MLflow; a file has the others, and every reader gets all of them."""

import dataclasses
import shutil

import pytest
from test_tracking import RESULTS, begin, client, config, measured, point, registry, study  # noqa: F401  # fixtures

from skillscale.record import MAX_METRICS, Checkpoint, RunRecord, RunState, as_metrics, split_metrics
from skillscale.tracking import StudyStore
from skillscale.tracking.store import RunUpdate

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


def finish(study, **results):  # noqa: F811
    with study.claim() as writer:
        begin(writer)
        writer.curve(1000, 5.0)
        return writer.finish(**{**RESULTS, **results})


def finished(store, name="one"):
    return [record for record in store.study(name).runs.records() if record.state is RunState.FINISHED]


@pytest.mark.parametrize("n_skills", [2, 12, 60])
def test_mlflow_has_at_most_35_metrics_losses_first_and_the_record_all(n_skills, registry, study):  # noqa: F811
    skills = {f"skill {at}": measured(2 + at / 100) for at in range(n_skills)}
    written = finish(study, skills=skills)
    shown = client(registry).get_run(written.run_id).data.metrics
    assert len(shown) == MAX_METRICS == 35
    losses = [f"skill_loss/{name}" for name in skills]
    assert {"n_params", "n_tokens", "train_loss"} < set(shown)
    assert len([key for key in shown if key in losses]) == min(n_skills, 35 - 7), "and six sizes for the charts"
    assert finished(registry) == [written]
    assert finished(StudyStore.open(registry.uri)) == [written]
    assert list(study.runs.finished()) == [written]
    (run,) = [run for run in registry.experiment_runs("one") if run.run_id == written.run_id]
    metrics = {key.removeprefix("metrics."): value for key, value in run.fields.items() if key.startswith("metrics.")}
    assert metrics == {**as_metrics(written), "train_loss": 5.0}


def test_a_run_that_has_all_metrics_in_mlflow_is_read_the_same(registry, study):  # noqa: F811
    with study.claim() as writer:
        begin(writer)
        record = dataclasses.replace(writer._record, state=RunState.FINISHED, **RESULTS)
        metrics = tuple((key, value, 1, 0) for key, value in as_metrics(record).items() if key not in writer._metrics)
        assert len(metrics) > 35
        study._store.write(writer.run_id, RunUpdate(metrics=metrics))
        study._store.set_status(writer.run_id, "FINISHED")
        writer._ended = True
    assert finished(registry) == [record]


def test_the_file_is_found_next_to_a_store_that_was_moved(registry, study, tmp_path):  # noqa: F811
    written = finish(study)
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.move(tmp_path / "mlruns", moved / "mlruns")
    shutil.copy(tmp_path / "mlflow.db", moved / "mlflow.db")
    assert finished(StudyStore.open(f"sqlite:///{moved}/mlflow.db")) == [written]
    (lost,) = finished(registry)  # at the old place the losses that MLflow shows are still there
    assert {name: (one.loss, one.sem) for name, one in lost.skills.items()} == {
        name: (one.loss, one.sem) for name, one in written.skills.items()
    }


def test_where_no_file_can_be_written_mlflow_gets_all_metrics(registry, study, tmp_path):  # noqa: F811
    with study.claim() as writer:
        begin(writer)
        folder = tmp_path / "mlruns" / "one" / writer.run_id / "artifacts"
        (folder / "metrics.json").mkdir(parents=True)  # no file can have this name now
        written = writer.finish(**RESULTS)
    assert finished(registry) == [written]
    assert len(client(registry).get_run(written.run_id).data.metrics) > 35


def test_results_that_wait_for_the_store_keep_the_metrics_of_the_file(registry, study, monkeypatch):  # noqa: F811
    from skillscale.errors import TrackingError
    from skillscale.tracking.store import Store

    def refuse(*_):
        raise TrackingError("away")

    with study.claim() as writer:
        begin(writer)
        monkeypatch.setattr(Store, "write", refuse)
        with pytest.raises(TrackingError, match="results are kept"):
            writer.finish(**RESULTS)
    monkeypatch.undo()
    assert registry.flush_pending() == [writer.run_id]
    (record,) = finished(registry)
    assert (record.sets, record.skills_held_out) == (RESULTS["sets"], RESULTS["skills_held_out"])
    assert len(client(registry).get_run(writer.run_id).data.metrics) <= 35


def test_an_imported_run_of_many_skills_has_the_others_in_a_file(registry, tmp_path):  # noqa: F811
    from skillscale import cli

    skills = [f"s{at}" for at in range(40)]
    rows = [[n, 20 * n * k, *(3 + at / 50 + 1e3 / n for at in range(40))] for n in (10**6, 10**7) for k in (1, 2)]
    lines = [",".join(map(str, row)) for row in [["n_params", "n_tokens", *skills], *rows]]
    (tmp_path / "runs.csv").write_text("\n".join(lines))
    (tmp_path / "columns.yaml").write_text(
        f"n_params: n_params\nn_tokens: n_tokens\nskills: {{{', '.join(f'{name}: {name}' for name in skills)}}}\n"
    )
    words = ["--columns", str(tmp_path / "columns.yaml"), "--table", str(tmp_path / "runs.csv")]
    assert cli.main(["import", "--study", "wide", "--tracking", registry.uri, *words]) == 0
    runs = client(registry).search_runs([registry.study("wide").experiment_id])
    assert {len(run.data.metrics) for run in runs} == {34}
    fields = registry.experiment_runs("wide")[0].fields
    assert {f"metrics.skill_loss/{name}" for name in skills} < fields.keys()


def test_losses_per_byte_come_first_for_checkpoints():
    record = RunRecord(
        run_id="r", study="s", state=RunState.FINISHED, reason="", point=point(),
        skills={f"s{at}": measured(2.0) for at in range(14)},
        checkpoint=Checkpoint(checkpoint="c", checkpoint_digest="d", first_token="", dtype="float32"),
    )  # fmt: skip
    shown, more = split_metrics(record)
    sizes = ["n_params", "n_tokens", "flops"]
    assert [key.partition("/")[0] for key in shown] == [
        *sizes, *["skill_bpb"] * 14, *(f"log10_{name}" for name in sizes), *["mix"] * 2, *["skill_loss"] * 12,
    ]  # fmt: skip
    assert shown | more == as_metrics(record)
