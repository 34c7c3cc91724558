"""The door to Ray: workers as tasks of a cluster, each with its CPUs and share of a GPU, retried by Ray."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from skillscale.errors import InputError
from skillscale.execution.launchers.local import serve

_RESOURCES = {"num_cpus": 1, "num_gpus": 0, "memory": None, "max_retries": 3}


class Ray:
    """A launcher of tasks of a Ray cluster.

    Args:
        options: ``address`` of the cluster (auto; empty: RAY_ADDRESS, or a new cluster of this machine) and resources
            of each worker: num_cpus (1), num_gpus (0; workers can share a GPU), memory (bytes), and max_retries (3) of
            a task whose node is lost.

    Raises:
        InputError: Ray is not installed, or there is no such option or cluster.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        try:
            import ray
        except ImportError as error:
            raise InputError("--launcher ray needs Ray: pip install -c constraints.txt -e '.[ray]'") from error
        given = dict(options)
        address = given.pop("address", None)
        if unknown := sorted(set(given) - set(_RESOURCES)):
            names = ", ".join(("address", *_RESOURCES))
            raise InputError(f"--launcher ray has no option {', '.join(unknown)}. Its options are {names}.")
        if not ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster of ours sends no reports
            try:
                ray.init(address=address, log_to_driver=True, include_dashboard=False if address is None else None)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise InputError(f"there is no Ray cluster at {address}: {error}") from error
        resources = {name: value for name, value in {**_RESOURCES, **given}.items() if value is not None}
        self._task = ray.remote(**resources)(serve)

    def start(self, argv: Sequence[str], environment: Mapping[str, str]) -> "RayTask":
        """Submit a worker. Its environment is an argument, because Ray shows and logs a runtime environment."""
        return RayTask(self._task.remote(list(argv), dict(environment)))


class RayTask:
    """A task that was submitted. It waits while the cluster has no room, and moves when its node is lost."""

    def __init__(self, reference: Any) -> None:
        self._reference = reference

    def poll(self) -> int | None:
        """Return the exit code, 1 for a task that Ray gave up; None while it waits or runs."""
        import ray

        done, _ = ray.wait([self._reference], timeout=0)
        return self.wait() if done else None

    def send_signal(self, sig: int, /) -> None:  # noqa: ARG002
        """Interrupt the task, whatever the signal."""
        import ray

        ray.cancel(self._reference)

    def kill(self) -> None:
        """End the task's process."""
        import ray

        ray.cancel(self._reference, force=True)

    def wait(self) -> int:
        """Wait until the task has ended; return its exit code."""
        import ray

        try:
            return int(ray.get(self._reference))
        except ray.exceptions.RayError:  # its node is lost for good, or it was cancelled
            return 1
