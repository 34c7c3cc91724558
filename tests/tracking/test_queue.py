"""The queue in Optuna's storage: one holder a key, lost ones replaced, nothing done twice, no clock asked."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from storages import STORAGES, storage_of

from skillscale.errors import InputError, LeaseLostError, TrackingError, without_password
from skillscale.point import MAX_PARAMS, MAX_TOKENS
from skillscale.tracking.queue import MAX_DEATHS, PointQueue, PriorOutcome, _template
from skillscale.tracking.queue_storage import QueueStorage, resolve_queue

QUICK_S = 1.2
JOBS = [(f"key{at}", {"point": {"n": at}}) for at in range(3)]
ELSEWHERE = "another-host:1:0"  # nobody here can know whether it lives


@pytest.fixture(params=STORAGES)
def url(request, tmp_path):
    with storage_of(request.param, tmp_path) as address:
        yield address


@pytest.fixture
def queue(url):
    return queue_at(url, "one", QUICK_S)


def queue_at(url, name, heartbeat_timeout_s=None):
    """A queue as another process sees it, with a storage of its own."""
    return PointQueue(QueueStorage(url), name, heartbeat_timeout_s)


def statuses(queue):
    return [one.status for one in queue.entries()]


def silence(ticket):
    """What SIGKILL does to a holder: no more heartbeats, no last word."""
    ticket.abandon()


def wait_for(condition, seconds=20.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def test_keys_are_kept_once_in_their_order_and_come_back_with_their_values(queue, url):
    assert queue.add(JOBS[:2]) == 2
    assert queue_at(url, "one").add(JOBS) == 1
    assert [(one.key, one.values["point"]["n"]) for one in queue.entries()] == [("key0", 0), ("key1", 1), ("key2", 2)]
    assert queue_at(url, "two").entries() == []
    assert queue_at(url, "one").heartbeat_timeout_s == QUICK_S, "workers need not be told"


def test_one_holder_a_key_until_it_ends(queue, url):
    queue.add(JOBS)
    other = queue_at(url, "one")
    first, second = queue.entries()[:2]
    ticket = queue.take(first, "me")
    assert other.take(first, "you") is None
    with other.take(second, "you") as held:
        held.fail("diverged")
    ticket.set_run("run7")
    assert other.entries()[0].run_id == "run7"
    ticket.finish(2.5)
    assert statuses(other) == ["FINISHED", "FAILED", "WAITING"]
    assert other.entries()[1].reason == "diverged"
    assert queue.take(first, "me") is None


def test_a_released_key_waits_again_and_counts_as_no_death(queue):
    queue.add(JOBS[:1])
    with queue.take(queue.entries()[0], "me"):
        pass
    (entry,) = queue.entries()
    assert (entry.status, entry.attempt, entry.deaths, entry.values) == ("WAITING", 2, 0, JOBS[0][1])


def test_a_silent_holder_is_given_up_after_the_patience_and_finds_that_out(queue, url):
    queue.add(JOBS[:1])
    ticket = queue.take(queue.entries()[0], ELSEWHERE)
    began = time.monotonic()
    silence(ticket)
    onlooker = queue_at(url, "one")
    assert statuses(onlooker) == ["RUNNING"]
    wait_for(lambda: statuses(onlooker) == ["WAITING"])
    assert time.monotonic() - began > 0.8 * QUICK_S
    again = onlooker.take(onlooker.entries()[0], ELSEWHERE)
    (entry,) = queue.entries()
    assert (entry.attempt, entry.deaths) == (2, 1)
    with pytest.raises(LeaseLostError):
        ticket.check()
    with pytest.raises(LeaseLostError):
        ticket.set_run("late")
    ticket.finish()
    assert ticket.is_lost
    assert statuses(queue) == ["RUNNING"], "the late one changes nothing"
    again.finish()
    assert statuses(queue) == ["FINISHED"]


def test_a_beating_holder_is_never_given_up(url):
    queue = queue_at(url, "one", 3.0)
    queue.add(JOBS[:1])
    ticket = queue.take(queue.entries()[0], ELSEWHERE)
    onlooker = queue_at(url, "one")
    until = time.monotonic() + 4.5
    while time.monotonic() < until:
        assert statuses(onlooker) == ["RUNNING"]
        time.sleep(0.1)
    ticket.check()
    ticket.finish()


def test_a_hung_holder_is_given_up_though_its_process_lives(queue, url, monkeypatch):
    monkeypatch.setattr("skillscale.tracking.queue._HUNG_S", 0.3)
    queue.add(JOBS[:1])
    ticket = queue.take(queue.entries()[0], ELSEWHERE)
    ticket.keep_alive()
    wait_for(lambda: statuses(queue) == ["WAITING"])
    wait_for(lambda: ticket.is_lost or not ticket._thread.is_alive() or _refused(ticket))


def _refused(ticket):
    try:
        ticket.check()
    except LeaseLostError:
        return True
    return False


def test_an_owner_that_is_gone_from_this_machine_is_not_waited_for(url):
    from skillscale.tracking import current_owner

    queue = queue_at(url, "one", 600.0)
    queue.add(JOBS[:1])
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    silence(queue.take(queue.entries()[0], current_owner().replace(f":{os.getpid()}:", f":{ended.pid}:")))
    assert statuses(queue) == ["WAITING"]


def test_a_key_whose_holders_die_over_and_over_fails_with_its_reason(queue):
    queue.add(JOBS[:1])
    for _ in range(MAX_DEATHS):
        silence(queue.take(queue.entries()[0], ELSEWHERE))
        wait_for(lambda: statuses(queue) != ["RUNNING"])
    (entry,) = queue.entries()
    assert (entry.status, entry.reason[:22]) == ("FAILED", "its process died 5 tim")
    queue.requeue(entry)
    queue.requeue(entry)  # by another machine at once
    (entry,) = queue.entries()
    assert (entry.status, entry.deaths) == ("WAITING", 0)
    queue.take(entry, "me").finish()
    assert statuses(queue) == ["FINISHED"], "asked for twice, done once"


def test_what_two_machines_add_at_once_is_done_once(queue):
    queue._append(_template({"key": "key0", "point": {"n": 0}}, "WAITING"))
    queue._append(_template({"key": "key0", "point": {"n": 0}}, "WAITING"))
    (entry,) = queue.entries()
    queue.take(entry, "me").finish()
    assert statuses(queue) == ["FINISHED"]


def test_what_ended_before_there_was_a_queue_does_not_wait(queue):
    failed = PriorOutcome(status="FAILED", attributes={"reason": "diverged", "ended_ms": 7})
    queue.add(JOBS, {"key1": PriorOutcome(status="FINISHED", value=2.5), "key2": failed})
    assert queue._trials()[1].value == 2.5
    assert statuses(queue) == ["WAITING", "FINISHED", "FAILED"]
    assert (queue.entries()[2].reason, queue.entries()[2].ended_ms) == ("diverged", 7)


def test_optuna_has_a_points_numbers_and_its_loss_to_plot(queue, url):
    """As its dashboard reads them: a study of the storage, in which every name has one distribution."""
    import optuna

    old = {"point": {"n_params": 5, "n_tokens": 6, "mix": {"code": 1.0}}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("skillscale.tracking.queue._plotted_params", lambda point: ({}, {}))
        queue.add([("before", old), ("moved", old)], {"before": PriorOutcome(status="FINISHED", value=1.5)})
    points = [
        {"n_params": 1, "n_tokens": MAX_TOKENS, "mix": {"code": 1.0}},
        {"n_params": MAX_PARAMS, "n_tokens": 123_456_789, "mix": {"code": 0.25, "prose": 0.75}},
    ]
    queue.add([(f"new{at}", {"point": point}) for at, point in enumerate(points)])
    queue.add([("kept", old)], {"kept": PriorOutcome(status="FINISHED", value=5.5)})
    for entry, loss in zip(queue.entries()[1:4], (2.5, 3.5, 4.5), strict=True):
        queue.take(entry, "me").release("stopped")
        queue.take({one.key: one for one in queue.entries()}[entry.key], "me").finish(loss)
    assert statuses(queue) == ["FINISHED"] * 5
    study = optuna.load_study(study_name="one", storage=QueueStorage(url).optuna)
    done = {one.user_attrs["key"]: one for one in study.get_trials(states=[optuna.trial.TrialState.COMPLETE])}
    assert {key: one.value for key, one in done.items()} == {
        "before": 1.5, "moved": 2.5, "new0": 3.5, "new1": 4.5, "kept": 5.5,
    }  # fmt: skip
    assert done["before"].params == {}
    assert done["moved"].params == done["kept"].params == {"n_params": 5, "n_tokens": 6, "mix/code": 1.0}
    assert done["new0"].params == {"n_params": 1, "n_tokens": MAX_TOKENS, "mix/code": 1.0}
    assert done["new1"].params == {
        "n_params": MAX_PARAMS, "n_tokens": 123_456_789, "mix/code": 0.25, "mix/prose": 0.75,
    }  # fmt: skip
    assert all(one.log for one in (done["new1"].distributions[name] for name in ("n_params", "n_tokens")))
    with queue_at(url, "locks").lock("plan", "me"):
        pass
    assert [(one.params, one.value) for one in queue_at(url, "locks")._trials()] == [({}, 0.0)], (
        "every study can be shown"
    )


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_what_waits_in_a_database_is_read_once_and_seen_as_it_is_by_who_looks_first(kind, tmp_path):
    with storage_of(kind, tmp_path) as url:
        _looked_at_by_two(url)


def _looked_at_by_two(url):
    other, looked = queue_at(url, "one", 60.0), []
    other.add([(f"key{at}", {"point": {"n": at}}) for at in range(50)])
    onlooker = queue_at(url, "one")
    whole = onlooker._storage.optuna.get_all_trials
    onlooker._storage.optuna.get_all_trials = lambda *given, **how: looked.append(1) or whole(*given, **how)

    def alike():
        found = onlooker.entries()
        return found == queue_at(url, "one").entries() == other.entries()

    assert alike()
    entries = other.entries()
    held = other.take(entries[7], "me")
    assert alike()
    held.set_run("run7")
    assert alike()
    assert onlooker.entries()[7].run_id == "run7"
    held.finish(2.5)
    other.take(entries[8], "me").fail("diverged")
    assert alike()
    assert [onlooker.entries()[at].status for at in (6, 7, 8)] == ["WAITING", "FINISHED", "FAILED"]
    assert len(looked) == 1, "what waits is not read again"
    with other.take(entries[9], "me"):
        pass
    assert alike()
    other.requeue(entries[8])
    other.add([("new", {"point": {"n": 50}})])
    assert alike()
    for entry in other.entries()[10:30]:
        other.take(entry, "me").finish(1.0)
    assert alike()


def test_locks_are_held_by_one_and_passed_on(url):
    first, second = queue_at(url, "locks", QUICK_S), queue_at(url, "locks")
    order = []

    def follow():
        with second.lock("plan", ELSEWHERE):
            order.append("second")

    with first.lock("plan", ELSEWHERE):
        assert second.is_locked("plan")
        assert not second.is_locked("other")
        with pytest.raises(TrackingError, match="another process is at plan"), second.lock("plan", "x", wait=False):
            pass
        thread = threading.Thread(target=follow)
        thread.start()
        time.sleep(0.5)
        order.append("first")
    thread.join(20)
    assert order == ["first", "second"]
    assert not first.is_locked("plan")


def test_a_lock_whose_holder_is_gone_is_taken_after_the_patience(url):
    queue = queue_at(url, "locks", QUICK_S)
    holder = queue.lock("plan", ELSEWHERE)
    silence(holder.__enter__())
    with queue_at(url, "locks").lock("plan", ELSEWHERE):
        assert queue.is_locked("plan")


def _claim_all(url, gate, found):
    queue = queue_at(url, "one")
    gate.wait()
    won = []
    for entry in queue.entries():
        ticket = queue.take(entry, ELSEWHERE)
        if ticket is not None:
            won.append(entry.key)
            ticket.finish()
    found.put(won)


@pytest.mark.parametrize("kind", ["journal", "sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_processes_that_claim_at_once_take_every_key_once(kind, tmp_path):
    with storage_of(kind, tmp_path) as url:
        _race(url)


def _race(url):
    queue = queue_at(url, "one", 60.0)
    queue.add([(f"key{at}", {}) for at in range(30)])
    context = multiprocessing.get_context("fork")
    gate, found = context.Barrier(3), context.Queue()
    processes = [context.Process(target=_claim_all, args=(url, gate, found)) for _ in range(3)]
    for each in processes:
        each.start()
    won = [key for _ in processes for key in found.get(timeout=60)]
    for each in processes:
        each.join()
    assert sorted(won) == sorted(f"key{at}" for at in range(30))
    assert set(statuses(queue)) == {"FINISHED"}


@pytest.mark.parametrize(
    ("given", "settled"),
    [
        ("queue.journal", "{here}/queue.journal"),
        ("sqlite:///queue.db", "sqlite:///{here}/queue.db"),
        ("postgresql://u:p@h/n", "postgresql+psycopg2://u:p@h/n"),
        ("mysql+pymysql://u@h/n", "mysql+pymysql://u@h/n"),
    ],
)
def test_addresses_mean_the_same_from_every_folder(given, settled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_queue(given) == settled.format(here=tmp_path)


def test_other_addresses_are_refused_without_their_password():
    with pytest.raises(InputError, match=r"redis://\.\.\.@h.*can't hold a queue") as caught:
        resolve_queue("redis://u:geheim@h")
    assert "geheim" not in str(caught.value)


def test_a_storage_that_does_not_answer_is_named_without_its_password(monkeypatch):
    monkeypatch.setattr("skillscale.tracking.queue_storage._OPEN_PATIENCE_S", 0.1)
    with pytest.raises(TrackingError, match=r"u:\.\.\.@127\.0\.0\.1:9/x does not answer") as caught:
        queue_at("postgresql+psycopg2://u:geheim@127.0.0.1:9/x", "one")
    assert "geheim" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:secret@host/x refused", "postgresql://me:...@host/x refused"),
        ("http://me:s:e@c@host:5000", "http://...@host:5000"),
        ("http://host:5000/a", "http://host:5000/a"),
        ("postgresql://host/x?user=me&password=secret&a=1", "postgresql://host/x?user=me&password=...&a=1"),
        ("sqlite:///a.db", "sqlite:///a.db"),
    ],
)
def test_passwords_are_never_shown(text, shown):
    assert without_password(text) == shown


def test_a_stopped_process_is_given_up_and_goes_on_to_find_its_point_taken(tmp_path):
    url = str(tmp_path / "queue.journal")
    queue = queue_at(url, "one", QUICK_S)
    queue.add(JOBS[:1])
    code = (
        "import sys, time; from skillscale.tracking.queue import PointQueue\n"
        "from skillscale.errors import LeaseLostError\n"
        f"from skillscale.tracking.queue_storage import QueueStorage\n"
        f"queue = PointQueue(QueueStorage({url!r}), 'one')\n"
        f"ticket = queue.take(queue.entries()[0], {ELSEWHERE!r})\n"
        "print('held', flush=True)\n"
        "sys.stdin.readline()\n"
        "try: ticket.check()\n"
        "except LeaseLostError: print('lost', flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True)
    assert process.stdout.readline() == "held\n"
    process.send_signal(signal.SIGSTOP)
    wait_for(lambda: statuses(queue) == ["WAITING"])
    process.send_signal(signal.SIGCONT)
    out, _ = process.communicate("\n", timeout=30)
    assert out == "lost\n"
