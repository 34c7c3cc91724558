"""Start workers: as processes of this machine, SLURM jobs or Ray tasks; and write the manifest of a Kubernetes Job.

A worker needs two addresses, those of the tracking store and of the queue, and reads the rest there. So any launcher
will do: the queue shares out the points. Addresses may hold passwords, so they go by the environment alone, because
every user of a machine can read command lines.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from skillscale.errors import InputError


class WorkerHandle(Protocol):
    """A worker that was started, with the methods of ``subprocess.Popen``, wherever it runs."""

    def poll(self) -> int | None:
        """Return the exit code; None while the worker waits or runs."""

    def send_signal(self, sig: int, /) -> None:
        """Ask the worker to end, so that it can mark its run."""

    def kill(self) -> None:
        """End the worker."""

    def wait(self) -> int:
        """Return the exit code, when the worker has ended."""


class Launcher(Protocol):
    """A way to start workers."""

    def start(self, argv: Sequence[str], environment: Mapping[str, str]) -> WorkerHandle:
        """Start ``python ARGV`` with these environment variables in addition."""


def launcher(name: str, options: Mapping[str, Any], folder: Path, *, devices: int = 1) -> Launcher:
    """Return a launcher, the same for all calls of a process.

    Args:
        name: local, slurm or ray.
        options: Options of that launcher.
        folder: Folder for the files of the launcher.
        devices: Devices that a worker trains on. Local workers share the GPUs of the machine accordingly.

    Raises:
        InputError: The launcher lacks the option, or its package is not installed.
    """
    return _launcher(name, tuple(sorted(options.items())), folder, devices)


@cache
def _launcher(name: str, options: tuple[tuple[str, Any], ...], folder: Path, devices: int) -> Launcher:
    if name == "slurm":
        from skillscale.execution.launchers.slurm import Slurm

        return Slurm(dict(options), folder / "slurm")
    if name == "ray":
        from skillscale.execution.launchers.ray import Ray

        return Ray(dict(options))
    from skillscale.execution.launchers.local import Local, visible_gpus

    if options:
        raise InputError(f"--launcher local has no options, but --launcher_options gives {', '.join(dict(options))}")
    return Local(visible_gpus(), devices)
