"""Worker processes: started, stopped, and how one of them waits for its next point."""

import os
import shlex
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from skillscale.cli.output import Output
from skillscale.errors import InputError
from skillscale.execution.launchers import Launcher, WorkerHandle, launcher
from skillscale.execution.launchers.kubernetes import check_job_options, job_manifest
from skillscale.execution.launchers.local import PARENT
from skillscale.tracking.queue_storage import resolve_queue

if TYPE_CHECKING:
    from skillscale.config import Config
    from skillscale.tracking import RunWriter, Study

_GRACE_S = 30.0
_WITH_US_S = 5.0  # a Ctrl-C at the terminal reaches the workers too: they are marking their runs
_DEFAULTS = {("--retry_failed", "false"), ("--sampled", "false"), ("--stay", "true"), ("--timeout_s", "")}
_FIRST_WAIT_S, _LONGEST_WAIT_S, _LONGER_BY = 0.1, 2.0, 1.5


def start_worker(
    arguments: Mapping[str, Any], tracking: str, *, retry_failed: bool, sampled: bool = False
) -> WorkerHandle:
    """Start a process that trains the points of the study's queue, by the launcher that was asked for.

    Args:
        arguments: of the command that starts it, as ``worker_options`` has them; settings and overrides go along.
        tracking: URI of the registry.
        retry_failed: train the points that failed once more.
        sampled: train only points that the sampler chose.
    """
    words = worker_argv(arguments, retry_failed=retry_failed, sampled=sampled, stay=False)
    environment = {"MLFLOW_TRACKING_URI": tracking}
    if storage := storage_address(arguments):
        environment["SKILLSCALE_QUEUE"] = storage
    return _launcher(arguments).start(["-m", "skillscale", *words], environment)


def worker_options(arguments: Mapping[str, Any], config: "Config") -> dict[str, Any]:
    """The arguments of a command with what its workers need besides: the study's name and ``devices`` of each."""
    return {**arguments, "study_name": config.study.name, "devices": config.train.devices}


def check_launcher(arguments: Mapping[str, Any]) -> None:
    """Refuse a launcher that could start no worker, before anything is made; ``arguments`` as for ``start_worker``.

    Raises:
        InputError: it is not here, or lacks an option or a storage.
    """
    if not is_external_launcher(arguments):
        _launcher(arguments)
    elif arguments["launcher"] == "kubernetes":
        check_job_options(arguments["launch"] or {})


def _launcher(arguments: Mapping[str, Any]) -> Launcher:
    name, options = arguments.get("launcher", "local"), arguments.get("launch") or {}
    return launcher(name, options, arguments["cache"].absolute(), devices=arguments.get("devices", 1))


def worker_argv(
    arguments: Mapping[str, Any], *, retry_failed: bool, sampled: bool, stay: bool, elsewhere: bool = False
) -> list[str]:
    """The entry ``worker`` and its parameters; addresses, which may hold passwords, go by the environment.

    Args:
        arguments: of the command that starts it.
        retry_failed, sampled, stay: as the entry has them.
        elsewhere: leave out folders of this machine.
    """
    words = ["worker"]
    if storage_address(arguments):  # the registry has its settings
        words += ["--study", arguments["study_name"]]
    else:
        words += [word for name in ("study", "data", "skills") for word in (f"--{name}", str(arguments[name]))]
    words += [] if elsewhere else ["--cache", str(arguments["cache"].absolute())]
    words += ["--retry_failed", str(retry_failed).lower(), "--sampled", str(sampled).lower()]
    words += ["--stay", str(stay).lower()]
    if arguments.get("trainer"):
        words += ["--trainer", arguments["trainer"], "--timeout_s", str(arguments["timeout_s"] or "")]
    if not storage_address(arguments):
        overrides = {name: text for name, text in arguments.items() if "." in name}
        words += [word for name, text in overrides.items() for word in (f"--{name}", text)]
    return words


def storage_address(arguments: Mapping[str, Any]) -> str:
    """The address of the storage that machines share; empty where there is none."""
    given = arguments.get("storage") or os.environ.get("SKILLSCALE_QUEUE", "")
    return resolve_queue(given) if given else ""


def is_external_launcher(arguments: Mapping[str, Any]) -> bool:
    """Whether workers are started by somebody else.

    Raises:
        InputError: a launcher for other machines, and no storage for them to share.
    """
    name = arguments.get("launcher", "local")
    if name != "local" and not storage_address(arguments):
        raise InputError(
            f"--launcher {name} needs --storage (or SKILLSCALE_QUEUE), where its workers share the points: "
            "postgresql+psycopg2://USER:PASSWORD@HOST/NAME, or a file for those of one machine"
        )
    return name in ("none", "kubernetes")


def print_worker_command(arguments: Mapping[str, Any], out: Output, *, sampled: bool = False) -> dict[str, Any]:
    """Say how to start the workers that somebody else starts; write the manifest of a Kubernetes Job."""
    words = worker_argv(arguments, retry_failed=False, sampled=sampled, stay=True, elsewhere=True)
    if arguments["launcher"] == "none":
        told = shlex.join(_but_defaults(words))
        out.progress(f"with SKILLSCALE_QUEUE and MLFLOW_TRACKING_URI, on any machine: skillscale {told}")
        return {"worker": words}
    manifest = job_manifest(arguments["study_name"], words, arguments["workers"], arguments["launch"] or {})
    path = Path(arguments["file"] or f"{arguments['study_name']}-job.yaml")
    path.write_text(yaml.safe_dump(manifest, sort_keys=False), encoding="utf-8")
    out.progress(f"{path} is written: kubectl apply -f {path} (its secret holds SKILLSCALE_QUEUE, MLFLOW_TRACKING_URI)")
    return {"worker": words, "manifest": str(path)}


def _but_defaults(words: Sequence[str]) -> list[str]:
    """A worker's words without the parameters that say what they are anyway, to be typed."""
    pairs = zip(words[1::2], words[2::2], strict=True)
    return [words[0], *(word for pair in pairs if pair not in _DEFAULTS for word in pair)]


def stop_workers(workers: Sequence[WorkerHandle]) -> None:
    """End workers that still run, and give them time to mark their runs."""
    _wait(workers, _WITH_US_S)
    for each in workers:
        if each.poll() is None:
            each.send_signal(signal.SIGTERM)
    _wait(workers, _GRACE_S)
    for each in workers:
        if each.poll() is None:
            each.kill()
            each.wait()


def next_claim(
    study: "Study", *, retry_failed: bool, sampled: bool, trunk: str = "", stay: bool = False
) -> "RunWriter | None":
    """The next point to train, of ``trunk`` first; None when there is none and none will come, or our starter is gone.

    Waits, ever longer, while a sampler fills the queue; with ``stay`` also while others train, who may be lost.
    """
    wait_s = _FIRST_WAIT_S
    while not parent_exited():
        filling = study.is_sampling()  # before the claim: what is added between the two is claimed
        writer = study.claim(retry_failed=retry_failed, sampled_only=sampled, trunk=trunk)
        if writer is not None or not (filling or (stay and study.is_under_way(sampled_only=sampled))):
            return writer
        time.sleep(wait_s)
        wait_s = min(wait_s * _LONGER_BY, _LONGEST_WAIT_S)
    return None


def parent_exited() -> bool:
    """Whether the process that started this one, and told us so, has ended."""
    parent = os.environ.get(PARENT, "")
    return parent.isdigit() and os.getppid() != int(parent)


def _wait(workers: Sequence[WorkerHandle], seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and any(each.poll() is None for each in workers):
        time.sleep(0.05)
