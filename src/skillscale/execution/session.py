"""Open a study for training: agree on its settings, prepare its data; then train its points with several workers."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from skillscale.config import Config, conf_file, is_shipped
from skillscale.config.options import QueueOptions, StudyOptions, TrainingOptions, UserTrainerOptions
from skillscale.errors import TrainingError
from skillscale.execution.status_publisher import StatusPublisher
from skillscale.execution.supervisor import train_queue
from skillscale.execution.worker import WorkerContext
from skillscale.execution.worker_pool import ExternalCommand, WorkerPool, check_launcher
from skillscale.formatting import JsonObject, plural
from skillscale.point import DesignPoint
from skillscale.tracking import StudyStore

if TYPE_CHECKING:
    from skillscale.lm.data.prepare import PreparedData
    from skillscale.tracking import Study

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class TrainingSession:
    """A study that is open for training.

    Args:
        store: The tracking store.
        study: The study, whose settings agree with ``config``.
        prepared: Its prepared data.
        config: Its settings.
        cache: Folder for prepared data and checkpoints.
    """

    store: StudyStore
    study: "Study"
    prepared: "PreparedData"
    config: Config
    cache: Path

    def worker_context(self, progress: Progress) -> WorkerContext:
        """Return the context of a worker in this process."""
        return WorkerContext(config=self.config, prepared=self.prepared, cache=self.cache, progress=progress)


@dataclass(frozen=True, kw_only=True)
class TrainedPoints:
    """The points of a study after a call.

    Args:
        study: Name of the study.
        tracking: Place of the store; empty for an external launcher.
        planned, finished, failed: Numbers of points.
        seconds: Time of the training, s; None for an external launcher.
        external: Command that starts the workers elsewhere, for an external launcher.
    """

    study: str
    tracking: str = ""
    planned: int
    finished: int
    failed: int = 0
    seconds: float | None = None
    external: ExternalCommand | None = None

    def as_dict(self) -> JsonObject:
        """Return the values for ``--json``."""
        if self.external is not None:
            return {"study": self.study, "points": self.planned, "finished": self.finished, **self.external.as_dict()}
        return {
            "study": self.study, "tracking": self.tracking, "points": self.planned, "finished": self.finished,
            "failed": self.failed, "seconds": self.seconds,
        }  # fmt: skip


def open_store(study: StudyOptions, queue: QueueOptions) -> StudyStore:
    """Open the tracking store of a study, with its queue."""
    return StudyStore.open(
        study.tracking, cache=study.cache, queue=queue.queue, heartbeat_timeout_s=queue.heartbeat_timeout_s
    )


def open_session(
    store: StudyStore, config: Config, cache: Path, points: Sequence[DesignPoint], progress: Progress,
    *, keep: bool = True,
) -> TrainingSession:  # fmt: skip
    """Check the settings against the store, prepare the data, and warn of repeated tokens, before any training.

    Args:
        store: The tracking store.
        config: The settings of the study.
        cache: Folder for prepared data.
        points: Points to be trained, whose repetition of tokens is checked.
        progress: Receiver of a line for a person.
        keep: Keep the settings for later workers. A worker's own settings are not kept.
    """
    from skillscale.lm.data.prepare import prepare

    if config.study.name in store.study_names():  # refuse other settings before the long work
        store.open_study(config.study.name, config, keep=keep)
    prepared = prepare(config, cache, progress=progress)
    study = store.open_study(config.study.name, config, keep=keep)
    study.bind_data(prepared.data_hash, (prepared.folder / "data.json").read_text(encoding="utf-8"))
    for warning in sorted({text for point in points for text in prepared.check(point)}):
        progress(f"warning: {warning}")
    return TrainingSession(store=store, study=study, prepared=prepared, config=config, cache=cache)


def worker_pool(
    options: TrainingOptions, config: Config, store: StudyStore, *, user_trainer: UserTrainerOptions | None = None,
    sampled_only: bool = False,
) -> WorkerPool:  # fmt: skip
    """Return the pool of workers that options ask for, for the study of ``config``."""
    return WorkerPool(
        study=config.study.name, tracking=store.uri, queue=store.queue, cache=options.study.cache,
        options=options.pool, user_trainer=user_trainer or UserTrainerOptions(), devices=config.train.devices,
        sampled_only=sampled_only,
    )  # fmt: skip


def check_pool(options: TrainingOptions, config: Config) -> None:
    """Refuse a launcher that could start no worker, before files or stores are made."""
    queue = options.queue.queue or os.environ.get("SKILLSCALE_QUEUE", "")
    check_launcher(options.pool, queue, options.study.cache, config.train.devices)


def train_all(
    points: Sequence[DesignPoint], options: TrainingOptions, config: Config, progress: Progress
) -> TrainedPoints:
    """Train points, and those that already wait in the study, with several workers.

    Raises:
        TrainingError: Workers stopped before all points were trained.
    """
    check_pool(options, config)
    session = open_session(open_store(options.study, options.queue), config, options.study.cache, points, progress)
    study = session.study
    study.add_points(points)
    counts = study.progress()
    progress(f"study {study.name} in {session.store.place}: {counts.finished} of {counts.planned} points are trained")
    pool = worker_pool(options, config, session.store)
    if pool.is_external:
        command = pool.external_command()
        progress(command.text)
        return TrainedPoints(study=study.name, planned=counts.planned, finished=counts.finished, external=command)
    began_s = time.monotonic()
    publisher = StatusPublisher(study, progress)
    publisher.refresh(now=True)
    try:
        train_queue(study, pool, publisher, retry_failed=options.queue.retry_failed, progress=progress)
    finally:
        publisher.refresh(now=True)
    study.close_lost()
    done = study.progress()
    if done.failed:
        progress(
            f"{plural(done.failed, 'point')} failed. Their runs in the store hold the reasons. --retry_failed trains "
            "them once more."
        )
    if done.finished + done.failed < done.planned:
        raise TrainingError(_unfinished_text(study))
    session.store.gather_statistics()
    session.store.annotate_mlflow_project_run(study, note=f"{done.finished} of {done.planned} points are trained")
    return TrainedPoints(
        study=study.name, tracking=session.store.place, planned=done.planned, finished=done.finished,
        failed=done.failed, seconds=time.monotonic() - began_s,
    )  # fmt: skip


def _unfinished_text(study: "Study") -> str:
    counts = study.progress()
    count = f"{counts.planned - counts.finished - counts.failed} of {counts.planned} points are not trained"
    return f"{count}. Their workers stopped, for the reasons above. Run the same command to go on."


def require_known_study(name: str) -> None:
    """Refuse the name of a study that conf/ does not have, because a typing error must not begin a study.

    Raises:
        InputError: Naming the studies of conf/.
    """
    if not is_shipped("study", name):
        conf_file("study", name)


def follower_runs(config: Config) -> int | None:
    """Take part in the runs of the first process, where srun or torchrun started several.

    Returns:
        Number of runs that this process took part in; None in the first process.
    """
    if config.train.n_devices == 1:
        return None
    from skillscale.lm.train import follower

    return follower.run_as_follower(config.train)
