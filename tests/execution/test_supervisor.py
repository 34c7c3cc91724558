"""A queue is trained to its end: failed points once more, dead workers replaced, points of other processes awaited."""

from types import SimpleNamespace

import pytest

from skillscale.config.options import WorkerPoolOptions
from skillscale.execution import supervisor
from skillscale.execution.supervisor import train_queue
from skillscale.tracking import StudyProgress


class Queue:
    """A study's queue in memory. Points wait, run, and end as their plan says; a step is a look of the supervisor.

    Args:
        waiting, failed, elsewhere: Numbers of points that wait, failed before, and run in another process.
        plan: Outcome of each claim, in order: ``finish``, ``fail`` or ``die`` (the worker); then all finish.
    """

    def __init__(self, waiting=0, *, failed=0, elsewhere=0, plan=(), other_dies_at=None, other_ends_at=None):
        self.waiting, self.failed, self.elsewhere = waiting, failed, elsewhere
        self.finished = self.killed = self.steps = 0
        self.plan = list(plan)
        self.workers, self.starts = [], []
        self.other_dies_at, self.other_ends_at = other_dies_at, other_ends_at
        self.to_retry = 0

    def progress(self):
        running = self.elsewhere + sum(worker.has_point for worker in self.workers)
        planned = self.waiting + self.killed + running + self.finished + self.failed
        return StudyProgress(
            planned=planned, finished=self.finished, running=running, failed=self.failed, killed=self.killed,
            waiting=self.waiting,
        )  # fmt: skip

    def holders(self):
        return {f"run{number}": f"host:{number}" for number in range(self.elsewhere)}

    def claim(self, worker):
        if worker.retry_failed and self.to_retry:
            self.to_retry, self.failed, self.waiting = 0, self.failed - self.to_retry, self.waiting + self.to_retry
        for name in ("killed", "waiting"):
            if getattr(self, name):
                setattr(self, name, getattr(self, name) - 1)
                return True
        return False

    def step(self, _seconds=0):
        self.steps += 1
        assert self.steps < 200, "the supervisor does not end"
        if self.steps == self.other_ends_at:
            self.finished, self.elsewhere = self.finished + self.elsewhere, 0
        if self.steps == self.other_dies_at:
            self.killed, self.elsewhere = self.killed + self.elsewhere, 0
        for worker in self.workers:
            worker.step()


class Worker:
    """A worker that claims at one step and ends the point at the next."""

    def __init__(self, queue, *, retry_failed):
        self.queue, self.retry_failed, self.has_point, self.is_over = queue, retry_failed, False, False

    def poll(self):
        return 0 if self.is_over else None

    def send_signal(self, _signal):
        raise AssertionError("a worker was stopped that should have exited by itself")

    def step(self):
        if self.is_over:
            return
        if not self.has_point:
            self.has_point = self.queue.claim(self)
            self.is_over = not self.has_point
            return
        outcome = self.queue.plan.pop(0) if self.queue.plan else "finish"
        self.has_point = False
        if outcome == "die":
            self.queue.killed, self.is_over = self.queue.killed + 1, True
        else:
            name = {"finish": "finished", "fail": "failed"}[outcome]
            setattr(self.queue, name, getattr(self.queue, name) + 1)


@pytest.fixture
def run(monkeypatch):
    """Train a queue with some workers; return the progress messages."""

    def run_queue(queue, workers=2, *, retry_failed=False):
        def start(*, retry_failed):
            worker = Worker(queue, retry_failed=retry_failed)
            queue.workers.append(worker)
            queue.starts.append(retry_failed)
            return worker

        queue.to_retry = queue.failed
        monkeypatch.setattr(supervisor.time, "sleep", queue.step)
        pool = SimpleNamespace(options=WorkerPoolOptions(workers=workers), start=start)
        messages = []
        publisher = SimpleNamespace(refresh=lambda: None)
        train_queue(queue, pool, publisher, retry_failed=retry_failed, progress=messages.append)
        return messages

    return run_queue


def test_all_points_are_trained_by_no_more_workers_than_asked(run):
    queue = Queue(5)
    run(queue)
    assert (queue.finished, len(queue.starts)) == (5, 2)
    few = Queue(1)
    run(few, workers=4)
    assert (few.finished, len(few.starts)) == (1, 1)


def test_nothing_is_started_where_nothing_waits(run):
    queue = Queue(failed=2)
    run(queue)
    assert (queue.starts, queue.steps) == ([], 0)


def test_failed_points_are_tried_once_more_and_no_more(run):
    queue = Queue(failed=3, plan=["fail", "finish", "fail"])
    run(queue, retry_failed=True)
    assert (queue.finished, queue.failed) == (1, 2)
    assert queue.starts == [True, True]


def test_a_worker_that_dies_is_replaced_without_another_try_of_failed_points(run):
    queue = Queue(4, failed=1, plan=["finish", "die", "fail"])
    run(queue, retry_failed=True)
    assert queue.starts == [True, True, False]
    assert (queue.finished, queue.failed) == (4, 1)


def test_workers_that_die_at_once_are_not_replaced_for_ever(run):
    queue = Queue(3, plan=["die"] * 99)
    run(queue)
    assert (queue.finished, len(queue.starts)) == (0, 2)
    assert queue.waiting + queue.killed == 3, "train_all raises then"


def test_workers_are_replaced_as_long_as_points_end_in_between(run):
    queue = Queue(6, plan=["finish", "die"] * 5)
    run(queue, workers=1)
    assert (queue.finished, len(queue.starts)) == (6, 6)


def test_points_of_other_processes_are_awaited(run):
    queue = Queue(2, elsewhere=2, other_ends_at=20)
    messages = run(queue)
    assert (queue.finished, len(queue.starts)) == (4, 2)
    assert messages == ["waiting for 2 points that other processes train: host:0, host:1"]


def test_points_that_other_processes_lose_are_trained(run):
    queue = Queue(1, elsewhere=2, other_dies_at=20)
    run(queue)
    assert queue.finished == 3
    alone = Queue(elsewhere=1, other_dies_at=5)
    run(alone)
    assert (alone.finished, alone.starts) == (1, [False])
