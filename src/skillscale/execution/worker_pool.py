"""Worker processes of a study: how one is started, what its command line is, and how all of them are stopped."""

import os
import shlex
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from skillscale.config.options import UserTrainerOptions, WorkerPoolOptions
from skillscale.errors import InputError
from skillscale.execution.launchers import Launcher, WorkerHandle, launcher
from skillscale.execution.launchers.kubernetes import check_job_options, job_manifest
from skillscale.execution.launchers.local import PARENT

if TYPE_CHECKING:
    from skillscale.tracking import RunWriter, Study

_GRACE_S = 30.0
_SIGNALLED_S = 5.0  # Ctrl-C at the terminal reaches the workers too; they mark their runs meanwhile
_DEFAULTS = {("--retry_failed", "false"), ("--sampled_only", "false"), ("--wait_for_others", "true")}
_FIRST_WAIT_S, _LONGEST_WAIT_S, _WAIT_FACTOR = 0.1, 2.0, 1.5
_EXTERNAL = ("none", "kubernetes")


@dataclass(frozen=True, kw_only=True)
class WorkerPool:
    """The workers of a study and their launcher. The store holds the study's settings.

    Args:
        study: Name of the study.
        tracking: URI of the tracking store.
        queue: Address of the queue of points.
        cache: Folder for prepared data and checkpoints.
        options: Number of workers, and who starts them.
        user_trainer: The user's trainer, where there is one.
        devices: Devices that one worker trains on.
        sampled_only: Whether workers take only points that the sampler chose.
    """

    study: str
    tracking: str
    queue: str
    cache: Path
    options: WorkerPoolOptions
    user_trainer: UserTrainerOptions = field(default_factory=UserTrainerOptions)
    devices: int = 1
    sampled_only: bool = False

    @property
    def is_external(self) -> bool:
        """Whether other people or programs start the workers."""
        return self.options.launcher in _EXTERNAL

    def start(self, *, retry_failed: bool) -> WorkerHandle:
        """Start a worker.

        Args:
            retry_failed: Train the failed points once more.
        """
        argv = self.argv(retry_failed=retry_failed, wait_for_others=False)
        environment = {"MLFLOW_TRACKING_URI": self.tracking, "SKILLSCALE_QUEUE": self.queue}
        return _launcher(self.options, self.cache, self.devices).start(["-m", "skillscale", *argv], environment)

    def argv(self, *, retry_failed: bool, wait_for_others: bool, local: bool = True) -> list[str]:
        """Return the command line of a worker; addresses, which may hold passwords, go by the environment.

        Args:
            retry_failed: Train the failed points once more.
            wait_for_others: Wait while other workers train.
            local: Whether the worker runs on this machine, so that its folders hold.
        """
        pairs = {"study": self.study} | ({"cache": str(self.cache.absolute())} if local else {})
        flags = {"retry_failed": retry_failed, "sampled_only": self.sampled_only, "wait_for_others": wait_for_others}
        pairs |= {name: str(value).lower() for name, value in flags.items()}
        if self.user_trainer.trainer:
            pairs |= {"trainer": self.user_trainer.trainer}
            pairs |= {"timeout_s": str(self.user_trainer.timeout_s)} if self.user_trainer.timeout_s else {}
        return ["worker", *(word for name, text in pairs.items() for word in (f"--{name}", text))]

    def external_command(self) -> "ExternalCommand":
        """Return the command that starts a worker elsewhere; write the manifest of a Kubernetes Job."""
        argv = self.argv(retry_failed=False, wait_for_others=True, local=False)
        if self.options.launcher == "none":
            words = shlex.join(_without_defaults(argv))
            text = (
                f"Start workers on any machine, with SKILLSCALE_QUEUE and MLFLOW_TRACKING_URI set: skillscale {words}"
            )
            return ExternalCommand(argv=tuple(argv), text=text)
        path = Path(self.options.job_file or f"{self.study}-job.yaml")
        manifest = job_manifest(self.study, argv, self.options.workers, dict(self.options.launcher_options))
        path.write_text(yaml.safe_dump(manifest, sort_keys=False), encoding="utf-8")
        text = (
            f"{path} is written. Apply it with kubectl apply -f {path}. Its secret must hold SKILLSCALE_QUEUE and "
            "MLFLOW_TRACKING_URI."
        )
        return ExternalCommand(argv=tuple(argv), text=text, manifest=str(path))


@dataclass(frozen=True, kw_only=True)
class ExternalCommand:
    """The command that starts the workers elsewhere: a command line, and the manifest of a Job where one is written."""

    argv: tuple[str, ...]
    text: str
    manifest: str = ""

    def as_dict(self) -> dict[str, object]:
        """Return the values for ``--json``."""
        return {"worker": list(self.argv)} | ({"manifest": self.manifest} if self.manifest else {})


def check_launcher(options: WorkerPoolOptions, queue: str, cache: Path, devices: int = 1) -> None:
    """Refuse a launcher that could start no worker, before files or stores are made.

    Args:
        options: The launcher and its options.
        queue: Address of the queue that was given; empty: the default queue of this machine.
        cache: Folder for what a launcher writes.
        devices: Devices that one worker trains on.

    Raises:
        InputError: The launcher is not installed, lacks an option, or lacks a queue that machines share.
    """
    if options.launcher != "local" and not queue:
        raise InputError(
            f"--launcher {options.launcher} needs --queue (or SKILLSCALE_QUEUE), where its workers share the points. "
            "Give postgresql+psycopg2://USER:PASSWORD@HOST/NAME, or a file for workers of one machine."
        )
    if options.launcher == "kubernetes":
        check_job_options(dict(options.launcher_options))
    elif options.launcher != "none":
        _launcher(options, cache, devices)


def _launcher(options: WorkerPoolOptions, cache: Path, devices: int) -> Launcher:
    return launcher(options.launcher, options.launcher_options, cache.absolute(), devices=devices)


def _without_defaults(argv: Sequence[str]) -> list[str]:
    """Return a worker's arguments without those that equal their default, to be typed."""
    pairs = zip(argv[1::2], argv[2::2], strict=True)
    return [argv[0], *(word for pair in pairs if pair not in _DEFAULTS for word in pair)]


def stop_workers(workers: Sequence[WorkerHandle]) -> None:
    """End workers that still run, and give them time to mark their runs."""
    _wait(workers, _SIGNALLED_S)
    for worker in workers:
        if worker.poll() is None:
            worker.send_signal(signal.SIGTERM)
    _wait(workers, _GRACE_S)
    for worker in workers:
        if worker.poll() is None:
            worker.kill()
            worker.wait()


def next_claim(
    study: "Study", *, retry_failed: bool, sampled_only: bool, trunk: str = "", wait_for_others: bool = False
) -> "RunWriter | None":
    """Claim the next point to train; wait, ever longer, while a sampler fills the queue.

    Args:
        study: The study.
        retry_failed: Train the failed points once more.
        sampled_only: Take only points that the sampler chose.
        trunk: Trunk whose points come first.
        wait_for_others: Also wait while other workers train, because they may be lost.

    Returns:
        None when no point is left and none will come, or when the process that started this one has ended.
    """
    wait_s = _FIRST_WAIT_S
    while not parent_exited():
        filling = study.is_sampling()  # before the claim: a point that is added between the two is claimed
        writer = study.claim(retry_failed=retry_failed, sampled_only=sampled_only, trunk=trunk)
        if writer is not None or not (filling or (wait_for_others and study.is_under_way(sampled_only=sampled_only))):
            return writer
        time.sleep(wait_s)
        wait_s = min(wait_s * _WAIT_FACTOR, _LONGEST_WAIT_S)
    return None


def parent_exited() -> bool:
    """Return whether the launcher of this worker has ended; False for a worker that a person started."""
    parent = os.environ.get(PARENT, "")
    return parent.isdigit() and os.getppid() != int(parent)


def _wait(workers: Sequence[WorkerHandle], seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and any(worker.poll() is None for worker in workers):
        time.sleep(0.05)
