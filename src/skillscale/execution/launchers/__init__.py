"""Starting workers: in processes of this machine, as SLURM jobs, as Ray tasks; and the manifest of a Kubernetes Job.

A worker needs two addresses, of the registry and of the storage, and finds the rest there; so whatever starts processes
will do, and who starts them says nothing about points: those are shared out by the storage. Addresses may hold
passwords and go by the environment alone: a command line is for all to read.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from skillscale.errors import InputError


class WorkerHandle(Protocol):
    """A worker that was started: what ``subprocess.Popen`` has, wherever it runs."""

    def poll(self) -> int | None:
        """Its exit code; None while it waits or runs."""

    def send_signal(self, sig: int, /) -> None:
        """Ask it to end, so that it can mark its run."""

    def kill(self) -> None:
        """End it."""

    def wait(self) -> int:
        """Its exit code, when it has ended."""


class Launcher(Protocol):
    """What starts workers."""

    def start(self, words: Sequence[str], environment: Mapping[str, str]) -> WorkerHandle:
        """Start one: ``python WORDS`` with these variables over those it would have."""


def launcher(name: str, options: Mapping[str, Any], folder: Path, *, devices: int = 1) -> Launcher:
    """What starts workers, one for all calls of a process.

    Args:
        name: local, slurm or ray.
        options: of that launcher.
        folder: for what it must write.
        devices: that a worker trains on; local ones share out the GPUs of the machine by it.

    Raises:
        InputError: an option that it has not, or a package of its own that is not installed.
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
