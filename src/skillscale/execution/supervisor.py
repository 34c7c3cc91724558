"""Keep a study's workers running: start those that are missing, stop all at the end, train a queue until it is empty."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from skillscale.execution.status import StatusPublisher, study_status
from skillscale.execution.worker_pool import WorkerPool, stop_workers

if TYPE_CHECKING:
    from skillscale.execution.launchers import WorkerHandle
    from skillscale.tracking import Study

_POLL_S = 0.5
_REPORT_EVERY_S = 30.0


class Supervisor:
    """The workers of one command; a context manager that stops them.

    A worker that died is replaced as long as points end in between: workers that die at once are not started for ever.
    """

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._workers: list[WorkerHandle] = []
        self._ended = -1

    def __enter__(self) -> "Supervisor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stop_workers(self._workers)

    def replace_missing(self, n_workers: int, *, ended: int, retry_failed: bool) -> bool:
        """Start the workers that are missing, if points ended since the last start.

        Args:
            n_workers: Workers that should run.
            ended: Points of the study that have ended.
            retry_failed: Whether new workers train the failed points once more.

        Returns:
            Whether any worker runs.
        """
        self._workers[:] = [worker for worker in self._workers if worker.poll() is None]
        if len(self._workers) < n_workers and ended > self._ended:
            self._ended = ended
            while len(self._workers) < n_workers:
                self._workers.append(self._pool.start(retry_failed=retry_failed))
        return bool(self._workers)


def train_queue(
    study: "Study", pool: WorkerPool, publisher: StatusPublisher, *, retry_failed: bool, progress: Callable[[str], None]
) -> None:
    """Train the points that wait in a study's queue until none is left that this command can train."""
    report = _Report(study, progress)
    with Supervisor(pool) as supervisor:
        while True:
            counts = study.progress()
            unfinished = counts.planned - counts.finished - (0 if retry_failed else counts.failed)
            if not unfinished:
                return
            busy = study.holders()
            n_workers = min(pool.options.workers, unfinished)
            ended = counts.finished + counts.failed
            if not supervisor.replace_missing(n_workers, ended=ended, retry_failed=retry_failed):
                if not busy and not retry_failed:
                    return
                retry_failed = False  # the failed points were tried once more
                report.waiting(busy)
            publisher.refresh()
            report.time_left()
            time.sleep(_POLL_S)


class _Report:
    """What a person is told while a queue is trained."""

    def __init__(self, study: "Study", progress: Callable[[str], None]) -> None:
        self._study = study
        self._progress = progress
        self._reported_s = time.monotonic()
        self._is_waiting = False

    def waiting(self, busy: "dict[str, str]") -> None:
        """Name the processes of this machine that train the remaining points, once."""
        if busy and not self._is_waiting:
            self._is_waiting = True
            owners = ", ".join(sorted(busy.values()))
            self._progress(f"waiting for {len(busy)} points that other processes train: {owners}")

    def time_left(self) -> None:
        """Say how long the study will take, now and then."""
        if time.monotonic() - self._reported_s < _REPORT_EVERY_S:
            return
        self._reported_s = time.monotonic()
        status = study_status(self._study)
        if status.expected_end_s is not None:
            self._progress(f"    about {(status.expected_end_s - status.now_s) / 60:.1f} minutes left")
