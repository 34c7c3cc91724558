"""The journal of a queue: killed writers, a full disk, and many points at once."""

import os
import resource
import signal
import subprocess
import sys
import time

import pytest

from skillscale.errors import TrackingError
from skillscale.tracking.queue import PointQueue
from skillscale.tracking.queue_storage import QueueStorage


@pytest.fixture
def path(tmp_path):
    return tmp_path / "queue.journal"


def queue_at(path):
    return PointQueue(QueueStorage(str(path)), "one")


def keys(queue):
    return [item.key for item in queue.entries()]


def test_the_unfinished_line_of_a_killed_writer_is_removed_by_the_next(path):
    queue, other = queue_at(path), queue_at(path)
    queue.add([("first", {})])
    with path.open("ab") as file:
        file.write(b'{"op_code":4,"study_')
    assert keys(other) == keys(queue_at(path)) == ["first"]
    other.add([("second", {})])
    assert keys(queue) == keys(queue_at(path)) == ["first", "second"]
    assert path.read_bytes().endswith(b"\n")


def test_a_full_disk_leaves_whole_lines_and_is_named(path):
    queue = queue_at(path)
    queue.add([("first", {})])
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 60, limits[1]))
    try:
        with pytest.raises(TrackingError, match=r"queue\.journal can't be read or written.*Check the disk"):
            queue.add([(f"key{at}", {"text": "x" * 100}) for at in range(9)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    queue.add([("second", {})])
    assert keys(queue) == keys(queue_at(path)) == ["first", "second"]


def test_the_lock_of_a_killed_process_is_free_at_once(path):
    queue = queue_at(path)
    code = (
        "import sys, time; from pathlib import Path; from skillscale.tracking.queue_journal import LockedJournal\n"
        f"journal = LockedJournal(Path({str(path)!r})); journal._file_lock.acquire()\n"
        "print('held', flush=True); time.sleep(100)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen([sys.executable, "-c", code], stdout=-1, text=True, env=environment) as process:
        assert process.stdout.readline() == "held\n"
        process.kill()
    began = time.monotonic()
    queue.add([("first", {})])
    assert time.monotonic() - began < 5
    assert keys(queue) == ["first"]


def test_many_points_are_one_write(path, monkeypatch):
    queue, syncs = queue_at(path), []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: syncs.append(file) or sync(file))
    assert queue.add([(f"key{at}", {}) for at in range(500)]) == 500
    assert keys(queue_at(path)) == [f"key{at}" for at in range(500)]
    assert len(syncs) == 2, "the first point, and the others"


def test_heartbeats_make_no_journal_longer(path, monkeypatch):
    monkeypatch.setattr("skillscale.tracking.queue.HEARTBEATS_PER_TIMEOUT", 1000)
    queue = queue_at(path)
    queue.add([("first", {})])
    lease = queue.take(queue.entries()[0], "another-host:1:0")
    size = path.stat().st_size
    (trial,) = queue._trials()
    first = queue._storage.read_heartbeat(trial)
    until = time.monotonic() + 20
    while queue._storage.read_heartbeat(trial) == first:
        assert time.monotonic() < until, "no heartbeat"
        time.sleep(0.01)
    assert path.stat().st_size == size
    lease.finish()
    time.sleep(0.2)
    assert list(path.with_name("queue.journal.heartbeats").iterdir()) == [], "a trial that ended leaves none"
