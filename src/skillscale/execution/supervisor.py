"""Keep a study's workers running: start those that are missing, stop all at the end, train the points of a queue."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from skillscale.execution.status import study_status
from skillscale.execution.status_publisher import StatusPublisher
from skillscale.execution.worker_pool import WorkerPool, stop_workers
from skillscale.formatting import format_duration, plural

if TYPE_CHECKING:
    from skillscale.execution.launchers import WorkerHandle
    from skillscale.tracking import Study

_POLL_S = 0.5
_REPORT_EVERY_S = 30.0


class Supervisor:
    """The workers of one command; a context manager that stops them.

    A worker that exits is replaced as long as points end in between. Workers that die at once are not replaced forever.
    """

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._workers: list[WorkerHandle] = []
        self._ended: int | None = None  # points that had ended at the last start

    def __enter__(self) -> "Supervisor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stop_workers(self._workers)

    def count_running(self) -> int:
        """Return the number of workers that run."""
        self._workers[:] = [worker for worker in self._workers if worker.poll() is None]
        return len(self._workers)

    def replace_missing(self, n_workers: int, *, ended: int, retry_failed: bool) -> int:
        """Start the workers that are missing, if points ended since the last start; return how many run.

        Args:
            n_workers: Workers that should run.
            ended: Points of the study that have ended. It falls where failed points wait once more.
            retry_failed: Whether new workers train the failed points once more.
        """
        if self.count_running() < n_workers and ended != self._ended:
            self._ended = ended
            while len(self._workers) < n_workers:
                self._workers.append(self._pool.start(retry_failed=retry_failed))
        return len(self._workers)


def train_queue(
    study: "Study", pool: WorkerPool, publisher: StatusPublisher, *, retry_failed: bool, progress: Callable[[str], None]
) -> None:
    """Train the points that wait in a study's queue, and wait for those that other processes train.

    The workers that are started first try the failed points once more. Later ones do not, so that each is tried once.
    The function also returns when workers die although points still wait.
    """
    report = _Report(study, progress)
    with Supervisor(pool) as supervisor:
        while True:
            n_running = supervisor.count_running()  # before the look at the queue: what a worker leaves is seen
            counts = study.progress()
            claimable = counts.waiting + counts.killed + (counts.failed if retry_failed else 0)
            if claimable:
                n_running = supervisor.replace_missing(
                    min(pool.options.workers, n_running + claimable), ended=counts.finished + counts.failed,
                    retry_failed=retry_failed,
                )  # fmt: skip
                retry_failed = False
            if not n_running and not counts.running:
                return
            if not n_running:
                report.waiting()
            publisher.refresh()
            report.time_left()
            time.sleep(_POLL_S)


class _Report:
    """Progress messages while a queue is trained."""

    def __init__(self, study: "Study", progress: Callable[[str], None]) -> None:
        self._study = study
        self._progress = progress
        self._reported_s = time.monotonic()
        self._is_waiting = False

    def waiting(self) -> None:
        """Name the processes that train the remaining points, once."""
        holders = self._study.holders()
        if holders and not self._is_waiting:
            self._is_waiting = True
            points, owners = plural(len(holders), "point"), ", ".join(sorted(holders.values()))
            self._progress(f"waiting for {points} that other processes train: {owners}")

    def time_left(self) -> None:
        """Report the expected time to the end, now and then."""
        if time.monotonic() - self._reported_s < _REPORT_EVERY_S:
            return
        self._reported_s = time.monotonic()
        status = study_status(self._study)
        if status.expected_end_s is not None:
            self._progress(f"    about {format_duration(status.expected_end_s - status.now_s)} left")
