"""How far a study is, on planted rates; its description is written, and never in the way of a run."""

import io
import math
import shutil
import time
from dataclasses import replace

import pytest

from skillscale.cli.output import Output
from skillscale.config import load
from skillscale.config.options import SourceOptions
from skillscale.errors import TrackingError
from skillscale.execution.status import StudyStatus, study_status
from skillscale.execution.status_publisher import StatusPublisher, optima_rows, publish_status, store_fit_summary
from skillscale.execution.status_text import status_lines, status_markdown, time_text
from skillscale.execution.worker import work
from skillscale.point import DesignPoint, Mix
from skillscale.record import Measurement
from skillscale.tables.read import exclusion_lines, read_runs, split_surplus
from skillscale.tracking import PlannedPoint, StudyStore

# MLflow 3.17 on SQLAlchemy 2.1
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

NOW = 1_000_000.0


@pytest.fixture
def registry(empty_store, tmp_path):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return StudyStore.open(f"sqlite:///{tmp_path}/mlflow.db", cache=tmp_path / "cache")


@pytest.fixture
def study(registry):
    opened = registry.open_trainer_study("one", trainer="train.py:train", skills=["code", "prose"])
    opened.add_points([point(seed=seed) for seed in range(4)])
    return opened


def point(n_params=10_000, n_tokens=1_000_000, seed=0):
    return DesignPoint(n_params=n_params, n_tokens=n_tokens, mix=Mix({"code": 0.5, "prose": 0.5}), seed=seed)


def planned(status="", *, began=0.0, took=0.0, owner="", run_id="", **of):
    """A point that began so many seconds before now, and took so many."""
    claimed_ms = round(1000 * (NOW - began)) if status else 0
    return PlannedPoint(
        point=point(**of), status=status, reason="", end_ms=claimed_ms + round(1000 * took) if took else 0, why=None,
        run_id=run_id, owner=owner, claimed_ms=claimed_ms,
    )  # fmt: skip


def standing(*points, alive=("me",), **values):
    return StudyStatus(
        study="one", now_s=NOW, began_s=NOW - 100, points=points, alive=frozenset(alive), **values
    )  # fmt: skip


def train(writer):
    """A run that ends at once."""
    with writer:
        writer.begin()
        return writer.finish(skills={name: Measurement(loss=2.5, sem=0.1) for name in ("code", "prose")})


def client(registry):
    from mlflow.tracking import MlflowClient

    return MlflowClient(registry.uri)


def test_the_end_is_told_by_the_rates_of_the_runs_that_ended():
    ended = [planned("FINISHED", began=40, took=10) for _ in range(4)]
    at_work = [planned("RUNNING", began=5, owner="me") for _ in range(2)]
    waiting = [planned() for _ in range(4)]
    # Two workers: what runs takes 5 s more, then 4 points of 10 s between them
    assert standing(*ended, *at_work, *waiting).expected_end_s == pytest.approx(NOW + 5 + 20)


def test_a_larger_run_takes_longer_and_is_waited_for_alone():
    ended = planned("FINISHED", began=40, took=10)
    small, large = planned("RUNNING", began=9, owner="me"), planned("RUNNING", began=9, owner="me", n_tokens=10**7)
    assert standing(ended, small, large).expected_end_s == pytest.approx(NOW + 100 - 9)


def test_runs_under_way_tell_the_rate_by_their_share():
    busy = planned("RUNNING", began=20, owner="me", run_id="a")
    waiting = planned()
    quarter = {"a": busy.point.n_tokens // 4}
    assert standing(busy, waiting, tokens=quarter).expected_end_s == pytest.approx(NOW + 60 + 80)


def test_runs_that_have_hardly_begun_tell_no_end_until_one_has_ended():
    # A third of the time went into loading: by its share the run would take 1000 s
    busy = planned("RUNNING", began=20, owner="me", run_id="a")
    hardly = {"a": busy.point.n_tokens // 50}
    first = standing(busy, planned(), tokens=hardly)
    assert first.expected_end_s is None
    assert time_text(first).endswith("; no estimate of the end yet")
    ended = planned("FINISHED", began=100, took=980)
    assert standing(ended, busy, tokens=hardly).expected_end_s == pytest.approx(NOW + 0.98 * 1000 / 1.02)


def test_a_sampler_has_the_rest_of_its_budget_before_it():
    ended = planned("FINISHED", began=40, took=10)
    busy = planned("RUNNING", began=10, owner="me")
    status = standing(ended, busy, is_sampled=True, flops_left=3 * ended.point.flops)
    assert status.expected_end_s == pytest.approx(NOW + 30)


def test_no_end_is_told_where_nothing_tells_it():
    ended, busy = planned("FINISHED", began=40, took=10), planned("RUNNING", began=5, owner="me")
    assert standing(busy, planned()).expected_end_s is None, "no rate"
    assert standing(ended, planned()).expected_end_s is None, "nobody at work"
    gone = standing(ended, replace(busy, owner="gone"), planned())
    assert gone.expected_end_s is None
    assert (gone.counts["running"], gone.counts["waiting"]) == (0, 2), "the point of a dead worker waits"
    with_one = standing(ended, replace(busy, owner="gone"), replace(busy, owner="me"))
    assert with_one.expected_end_s == pytest.approx(NOW + 5 + 10), "the worker left has both"


def test_a_study_is_over_when_nothing_is_left_and_nobody_adds():
    ended, failed = planned("FINISHED", began=40, took=10), planned("FAILED", began=20, took=1)
    assert standing(ended, failed).is_over
    assert not standing(ended, planned()).is_over
    assert not standing(ended, is_sampled=True).is_over
    assert not standing(ended, planned("RUNNING", owner="me")).is_over


def test_a_worker_tells_what_it_takes_before_it_trains_it(study):
    log = io.StringIO()

    def trained(writer):
        assert log.getvalue().splitlines()[-1] == f"takes C 6e10, N 10k, D 1M, seed {writer.point.seed}"
        return train(writer)

    assert work(study, trained, Output(answer=io.StringIO(), log=log).progress) == 4


def test_when_the_last_run_ended_is_told_where_it_is_known(study):
    failed = planned("FAILED", began=20, took=1)
    assert standing(planned("FINISHED", began=40, took=10), failed, planned("FINISHED")).ended_s == NOW - 19
    imported = standing()
    assert (imported.is_over, imported.ended_s) == (True, None)
    assert "ended" not in time_text(imported)
    times = status_markdown(imported, study, {}).splitlines()[2]
    assert times.startswith("Began ")
    assert "ended" not in times


def test_the_description_tells_the_state_with_links_and_optima(registry, study):
    work_two(study)
    frame = [
        {"skill": "code", "C": 8e10, "N": 34_600.0, "N_lo": 30_000.0, "N_hi": 40_000.0},
        {"skill": "code", "C": 8e11, "N": math.nan, "N_lo": math.nan, "N_hi": math.nan},
    ]
    store_fit_summary(
        study, "report", run_id="abc", files=["page.html", "figures/isoflop.png"], optima=frame, runs=2, level=0.9
    )
    publish_status(study)
    note = client(registry).get_experiment(study.experiment_id).tags["mlflow.note.content"]
    assert "Study one: 2 of 4 points done, 2 waiting; no worker is running" in note
    assert "1.2e11 of 2.4e11 FLOP" in note
    assert f"(#/experiments/{study.study_experiment_id}/runs/abc/artifacts/figures/isoflop.png?" in note
    table = [
        [cell.replace("&emsp;", "").strip() for cell in line.split("|")[1:-1]]
        for line in note.splitlines()
        if line.startswith("|")
    ]
    assert table == [["skill", "N* at 8e10", "N* at 8e11"], ["---"] * 3, ["code", "35k [30k, 40k]", "–"]]
    assert "90 % intervals" in note
    assert client(registry).get_run(study.plan_id).data.tags["mlflow.note.content"] == note
    study_tags = client(registry).get_experiment(study.study_experiment_id).tags
    assert study_tags["mlflow.note.content"] == note
    assert "mlflow.sharedViewState.skillscale" in study_tags


def test_the_description_begins_with_the_answer_of_the_newest_fit(registry, study):
    for at, (kind, C) in enumerate([("report", "1e12"), ("fit", "2e12")]):
        store_fit_summary(
            study, kind, run_id=f"run{at}", files=["figures/law-optima.png", "figures/isoflop.png"], optima=[], runs=2,
            level=0.9, answer=f"For {C} FLOP, train 2k parameters on 3k tokens", losses="code 3.21, prose 4.00",
            preview="figures/preview.png",
        )  # fmt: skip
        time.sleep(0.002)
    publish_status(study)
    note = client(registry).get_experiment(study.experiment_id).tags["mlflow.note.content"]
    first, rest = note.split("\n", 1)
    assert first.startswith("For 2e12 FLOP, train 2k parameters on 3k tokens: [code 3.21, prose 4.00](#/experiments/")
    assert "[isoFLOP curves](#/experiments/" in first
    assert "/runs/run1/artifacts/figures/isoflop.png?" in first
    assert "[runs](#/experiments/" in first
    assert "Study one: 0 of 4 points done" in rest
    assert "(get-artifact?path=figures/preview.png&run_uuid=run1)" in rest


def work_two(study):
    for _ in range(2):
        train(study.claim())


def test_a_description_fits_into_a_tag_whatever_it_tells(study):
    reasons = tuple(replace(planned("FAILED", began=1, took=1), reason=f"{at}" * 900) for at in range(9))
    summaries = {"fit": {"run_id": "a", "at_s": 0.0, "files": ["f" * 90] * 99, "runs": 9, "level": 0.9, "optima": []}}
    assert len(status_markdown(standing(*reasons), study, summaries)) <= 4600


def test_optima_are_a_row_a_skill():
    rows = optima_rows(
        [{"skill": name, "C": C, "N": 1e6, "N_lo": 9e5, "N_hi": 2e6} for name in "ab" for C in (1e9, 1e10)]
    )
    assert [row["skill"] for row in rows] == ["a", "b"]
    assert rows[0]["at"] == {"1e9": "1M [900k, 2M]", "1e10": "1M [900k, 2M]"}


def test_what_sampling_found_is_read_back_in_order(study):
    for half in (0.9, 0.5):
        with study.analysis("sample") as run:
            run.log(metrics={"half_width": half, "flops_finished": 1e12 / half}, step=round(10 / half))
    widths = study_status(study).widths
    assert [(width.runs, width.half_width) for width in widths] == [(11, 0.9), (20, 0.5)]
    assert widths[0].factor == f"{math.exp(0.9):.3g}"


def test_the_width_that_is_told_is_that_of_the_most_runs_and_of_those_the_latest(study):
    def logged(kind, runs, half):
        with study.analysis(kind) as run:
            run.log(metrics={"half_width": half}, step=runs)
        time.sleep(0.002)

    def shown_width():
        return status_markdown(study_status(study), study, {}).partition("Widest interval of N*: ")[2].partition(".")[0]

    logged("report", 11, math.log(8))
    logged("sample", 20, math.log(4))
    logged("fit", 15, math.log(6))
    assert shown_width() == "x/÷ 4 after 20 runs (sample)"
    logged("report", 20, math.log(2))
    logged("fit", 20, math.log(3))
    assert shown_width() == "x/÷ 3 after 20 runs (fit)"
    assert [(width.source, width.runs) for width in study_status(study).widths] == [
        ("fit", 11), ("sample", 20), ("fit", 15), ("fit", 20),
    ]  # fmt: skip


def test_a_description_that_cannot_be_written_stops_no_run(study, monkeypatch):
    calls, messages = [], []

    def refuse(*_, **__):
        calls.append(1)
        raise TrackingError("the store is full")

    monkeypatch.setattr(study, "describe", refuse)
    monkeypatch.setattr("skillscale.execution.status_publisher._EVERY_S", 0.0)
    assert work(study, train, messages.append) == 4
    assert study.progress().finished == 4
    assert len(calls) == 1, "it is left alone for a while then"
    assert sum("the store is full" in text for text in messages) == 1


def test_a_description_is_written_now_and_then_by_whoever_is_first(study, monkeypatch):
    first, second = StatusPublisher(study, print), StatusPublisher(study, print)
    assert not first.refresh(), "half a minute is not over"
    monkeypatch.setattr(first, "_next_s", 0.0)
    monkeypatch.setattr(second, "_next_s", 0.0)
    assert first.refresh()
    assert not second.refresh(), "another process has just written it"
    assert second.refresh(now=True)


@pytest.mark.parametrize("how", ["copied", "restored"])
def test_a_run_that_was_copied_or_restored_is_named_and_used_once(registry, study, how):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(registry.uri)
    for _ in range(4):
        train(study.claim())
    first = study.runs.records()[0]
    if how == "copied":
        run = client.get_run(first.run_id)
        copy = client.create_run(run.info.experiment_id, tags=run.data.tags).info.run_id
        for key, value in run.data.params.items():
            client.log_param(copy, key, value)
        for key, value in run.data.metrics.items():
            client.log_metric(copy, key, value)
        client.set_terminated(copy)
    else:
        client.delete_run(first.run_id)
        study.add_points([first.point])
        train(study.claim())
        client.restore_run(first.run_id)
    again = registry.study("one")
    records, surplus = split_surplus(again.runs.records())
    assert sorted(record.point.seed for record in records) == [0, 1, 2, 3]
    (extra,) = surplus
    assert extra.run_id != first.run_id
    assert extra.reason.startswith("its point has another finished run, which is used")
    runs = read_runs(SourceOptions(tracking=registry.uri), load(overrides={"study.name": "one"}))
    assert (len(runs.table.runs), len(runs.records), runs.table.excluded) == (4, 4, surplus)
    assert "restored or copied" in " ".join(exclusion_lines(runs))
    status = study_status(again)
    assert (status.counts["finished"], status.surplus) == (4, (extra.run_id,))
    assert f"surplus    1 run of a point that has another: {extra.run_id}. Delete them" in status_lines(status)


def test_a_study_without_copies_has_no_surplus(study):
    train(study.claim())
    status = study_status(study)
    assert (status.surplus, [line for line in status_lines(status) if "surplus" in line]) == ((), [])
