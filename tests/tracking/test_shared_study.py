"""A study whose points a storage shares out: one run a point, taken over where its holder is lost, nothing twice."""

import json
import os
import time

import pytest
from storages import PASSWORD
from test_tracking import DATA, OPTIMIZER_PLAN, PROVENANCE, RESULTS, SIZE, point

from skillscale.config import load
from skillscale.errors import InputError, LeaseLostError, TrackingError
from skillscale.record import ProposalReason, RunState
from skillscale.tracking import StudyStore, current_owner
from skillscale.tracking.queue_storage import QueueAddress

QUICK_S = 1.5
ELSEWHERE = "another-host:1:0"


@pytest.fixture(scope="module")
def config():
    return load(study="smoke")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store with its schema: to make one takes seconds."""
    folder = tmp_path_factory.mktemp("made")
    StudyStore.open(f"sqlite:///{folder / 'runs.db'}", cache=folder / "cache")
    return (folder / "runs.db").read_bytes()


@pytest.fixture
def opened(tmp_path, config, made):
    (tmp_path / "runs.db").write_bytes(made)

    def open_registry(storage="queue.journal"):
        uri = f"sqlite:///{tmp_path / 'runs.db'}"
        given = str(tmp_path / storage) if storage else ""
        return StudyStore.open(
            uri, cache=tmp_path / "cache", queue=given, heartbeat_timeout_s=QUICK_S if storage else None
        )

    return open_registry


def begin(writer):
    writer.begin(size=SIZE, optimizer_plan=OPTIMIZER_PLAN, provenance=PROVENANCE, config_yaml="a: 1\n", data=DATA)


def wait_for(condition, seconds=20.0):
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.1)
    return found


def test_points_go_out_once_and_records_come_back_as_without_a_storage(opened, config):
    study = opened().open_study("one", config)
    why = ProposalReason(purpose="plan", cost=1e12, narrowing={"ln N*(code)": 0.1}, laws={"code": {"chinchilla": 1.0}})
    assert study.add_points([point(seed=seed) for seed in range(2)], {point(seed=1).key: why}) == 2
    other = opened().study("one")
    assert [one.why for one in other.planned()] == [None, why]
    assert other.is_under_way(sampled_only=True)
    assert other.points() == (point(seed=0), point(seed=1))
    with study.claim() as writer, other.claim() as second:
        assert {writer.point.seed, second.point.seed} == {0, 1}
        assert study.claim() is None
        assert study.progress().running == 2
        held = other.planned()[writer.point.seed]
        assert (held.run_id, held.owner) == (writer.run_id, current_owner())
        begin(writer)
        writer.curve(1000, 3.0)
        written = writer.finish(**RESULTS)
        second.fail("diverged")
    progress = other.progress()
    assert (progress.finished, progress.failed, progress.waiting) == (1, 1, 0)
    assert study.runs.finished() == [written]
    assert study.claim() is None
    assert [one.reason for one in other.planned()] == ["", "diverged"]


def test_a_lost_point_goes_on_in_the_same_run_and_its_late_holder_writes_nothing(opened, config):
    study, other = (opened().open_study("one", config) for _ in range(2))
    study.add_points([point()])
    lost = study.claim(ELSEWHERE)
    begin(lost)
    lost._lease.abandon()
    assert other.claim() is None
    again = wait_for(other.claim)
    assert (again.run_id, again.claim.attempt, again.claim.deaths) == (lost.run_id, 2, 1)
    with pytest.raises(LeaseLostError, match="given to another"), lost:
        lost.finish(**RESULTS)
    assert [one.state for one in other.runs.records()] == [RunState.RUNNING]
    with again:
        begin(again)
        again.finish(**RESULTS)
    (record,) = study.runs.records()
    assert (record.run_id, record.state) == (lost.run_id, RunState.FINISHED)
    assert study.progress().finished == 1


def test_a_run_that_was_finished_by_one_who_died_before_saying_so_is_not_trained_again(opened, config):
    study, other = (opened().open_study("one", config) for _ in range(2))
    study.add_points([point()])
    writer = study.claim(ELSEWHERE)
    begin(writer)
    writer._hand_back = lambda state: None
    with writer:
        writer.finish(**RESULTS)
    wait_for(lambda: other.claim() is None and other.progress().finished == 1)
    assert len(study.runs.records()) == 1


def test_a_stopped_point_waits_again_at_once(opened, config):
    study = opened().open_study("one", config)
    study.add_points([point()])
    with pytest.raises(KeyboardInterrupt), study.claim() as writer:
        raise KeyboardInterrupt
    assert study.progress().killed == 1
    assert study.is_under_way()
    assert study.claim().run_id == writer.run_id


def test_failed_points_are_tried_again_in_another_run_when_asked(opened, config):
    study = opened().open_study("one", config)
    study.add_points([point()])
    with study.claim() as writer:
        writer.fail("diverged")
    assert study.claim(retry_failed=True) is None, "it failed after this study was opened"
    time.sleep(0.01)
    later = opened().open_study("one", config)
    assert later.claim() is None
    again = later.claim(retry_failed=True)
    assert again.run_id != writer.run_id
    with again:
        again.finish(**RESULTS)
    assert (study.progress().finished, study.progress().failed) == (1, 0)


def test_runs_that_nobody_holds_are_closed_and_go_on_later(opened, config):
    study = opened().open_study("one", config)
    study.add_points([point()])
    writer = study.claim(ELSEWHERE)
    assert study.close_lost() == [], "it may live"
    writer._lease.abandon()
    (reaped,) = opened().study("one").close_stale()
    assert (reaped.run_id, reaped.owner) == (writer.run_id, ELSEWHERE)
    assert [one.state for one in study.runs.records()] == [RunState.KILLED]
    assert study.claim().run_id == writer.run_id


def test_a_queue_moves_to_the_address_that_is_given_with_every_outcome_and_stays_there(opened, config):
    alone = opened("").open_study("one", config)
    alone.add_points([point(seed=seed) for seed in range(3)])
    with alone.claim() as writer:
        writer.finish(**RESULTS)
    with alone.claim() as writer:
        writer.fail("diverged")
    before = alone.planned()
    for shared in (opened().study("one"), opened().study("one")):
        progress = shared.progress()
        assert (progress.planned, progress.finished, progress.failed, progress.waiting) == (3, 1, 1, 1)
        assert opened("").study("one").planned() == before, "a look moves nothing"
    assert shared.add_points([]) == 0
    assert shared.planned() == before, "reasons, times and runs included"
    losses = [measured.loss for measured in RESULTS["skills"].values()]
    trials = shared._queue.open()._trials()
    assert [trial.value for trial in trials] == [pytest.approx(sum(losses) / len(losses)), None, None]
    assert {planned.reason for planned in before} == {"", "diverged"}
    progress = shared.progress()
    assert (progress.planned, progress.finished, progress.failed, progress.waiting) == (3, 1, 1, 1)
    with pytest.raises(InputError, match="SKILLSCALE_QUEUE"):
        opened("").study("one").claim()
    assert len(opened("").study("one").runs.finished()) == 1, "reading runs needs no queue"


def test_a_queue_does_not_move_while_its_points_are_held(opened, config):
    alone = opened("").open_study("one", config)
    alone.add_points([point()])
    writer = alone.claim()
    with pytest.raises(InputError, match=f"being trained by {current_owner()}"):
        opened().study("one").claim()
    writer.kill("stopped")
    assert opened().study("one").claim().run_id == writer.run_id


def test_a_lost_default_queue_is_filled_again_from_the_runs(opened, config, tmp_path):
    study = opened("").open_study("one", config)
    why = ProposalReason(purpose="plan", cost=1e12, narrowing={"ln N*(code)": 0.1}, laws={"code": {"chinchilla": 1.0}})
    study.add_points([point(seed=seed) for seed in range(4)], {point(seed=2).key: why})
    with study.claim() as writer:
        writer.finish(**RESULTS)
    with study.claim() as writer:
        writer.fail("diverged")
    with pytest.raises(KeyboardInterrupt), study.claim() as killed:
        raise KeyboardInterrupt
    (tmp_path / "runs-queue.journal").unlink()
    again = opened("").open_study("one", config)
    assert again.planned() == [], "a look makes no queue"
    assert again.add_points([point(seed=seed) for seed in range(4)]) == 1, "the point that no run was begun for"
    assert [planned.status for planned in again.planned()] == ["FINISHED", "FAILED", "", ""]
    assert [planned.why and planned.why.purpose for planned in again.planned()] == [None, None, "plan", None]
    writer = again.claim()
    assert (writer.run_id, writer.claim.attempt) == (killed.run_id, 2)


def test_a_default_queue_of_another_machine_is_not_begun_twice(opened, config, tmp_path, monkeypatch):
    caches = [QueueAddress.default("http://server:5000", tmp_path / name) for name in ("one", "two")]
    monkeypatch.setattr(QueueAddress, "default", lambda tracking, cache: caches[0])
    study = opened("").open_study("one", config)
    study.add_points([point()])
    monkeypatch.setattr(QueueAddress, "default", lambda tracking, cache: caches[1])
    elsewhere = opened("").study("one")
    for use in (elsewhere.planned, elsewhere.claim, lambda: elsewhere.add_points([point(seed=1)])):
        with pytest.raises(InputError, match=r"another machine.*--queue"):
            use()


def test_a_finished_point_whose_run_was_deleted_waits_again(opened, config):
    study = opened().open_study("one", config)
    study.add_points([point()])
    with study.claim() as writer:
        begin(writer)
        writer.finish(**RESULTS)
    study.add_points([point()])
    assert study.claim() is None
    study._store._client.delete_run(writer.run_id)
    later = opened().open_study("one", config)
    later.add_points([])
    assert later.claim().run_id != writer.run_id


def test_a_worker_finds_the_settings_in_the_registry(opened, config):
    opened().open_study("one", config)
    registry = opened()
    assert registry.stored_config("one") == config
    registry.open_study("one", load(study="smoke", overrides={"train.threads": "3"}), keep=False)
    assert registry.stored_config("one") == config
    with pytest.raises(TrackingError, match="no study 'two'"):
        registry.stored_config("two")


def test_points_are_chosen_by_one_at_a_time(opened, config):
    study, other = (opened().open_study("one", config) for _ in range(2))
    with study.sampling_lock():
        assert other.is_sampling()
        with pytest.raises(TrackingError, match="another process is at choosing"), other.sampling_lock():
            pass
    assert not other.is_sampling()


def test_no_lock_of_this_machine_is_held_while_points_are_shared_out(opened, config, monkeypatch):
    study = opened().open_study("one", config)

    def refuse(*_):
        raise AssertionError("a lock of one machine")

    monkeypatch.setattr("skillscale.tracking.store.lock_file", refuse)
    opened().open_study("one", config)
    study.bind_data("abc")
    study.add_points([point()])
    with study.claim() as writer:
        begin(writer)
        writer.finish(**RESULTS)
    with pytest.raises(InputError, match="other data"):
        study.bind_data("def")


@pytest.fixture
def secretive(tmp_path, monkeypatch):
    """A storage whose address holds a password: one file, reached by an alias of its address."""
    monkeypatch.setattr("skillscale.tracking.queue_storage._open_storage", _on_a_file(tmp_path))
    return f"postgresql+psycopg2://me:{PASSWORD}@host/x"


def _on_a_file(folder):
    from skillscale.tracking import queue_storage

    open_file = queue_storage._open_storage
    return lambda url, guard: open_file(str(folder / "queue.journal"), guard)


def test_passwords_are_in_no_record_and_no_message(tmp_path, config, secretive, made, monkeypatch, capfd):
    (tmp_path / "runs.db").write_bytes(made)
    monkeypatch.setenv("SKILLSCALE_QUEUE", secretive)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    registry = StudyStore.open(f"sqlite:///{tmp_path / 'runs.db'}", cache=tmp_path / "cache")
    study = registry.open_study("one", config)
    study.add_points([point()])
    with study.claim() as writer:
        begin(writer)
        writer.finish(**RESULTS)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert (tmp_path / "queue.journal") in written
    assert [path for path in written if PASSWORD.encode() in path.read_bytes()] == []
    captured = capfd.readouterr()
    assert PASSWORD not in captured.out + captured.err
    assert os.environ["SKILLSCALE_QUEUE"] == secretive


def test_what_the_commands_say_has_no_password():
    import io

    from skillscale.cli.output import Output

    said = io.StringIO()
    out = Output(as_json=True, answer=said, log=said)
    out.progress(f"study one in http://me:{PASSWORD}@host:5000")
    out.result({"tracking": f"http://me:{PASSWORD}@host:5000", "list": [f"a://b:{PASSWORD}@c"]})
    assert PASSWORD not in said.getvalue()
    assert json.loads(said.getvalue().splitlines()[1])["tracking"] == "http://...@host:5000"
