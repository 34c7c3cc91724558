"""The door to Ray: workers as tasks of a cluster, each with its CPUs and share of a GPU, retried where Ray does."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from skillscale.errors import InputError
from skillscale.execution.launchers.local import serve

_RESOURCES = {"num_cpus": 1, "num_gpus": 0, "memory": None, "max_retries": 3}


class Ray:
    """Hands workers to a Ray cluster as tasks.

    Args:
        options: ``address`` of the cluster (auto; empty: the one that RAY_ADDRESS names, or a new one of this machine)
            and resources of each worker: num_cpus (1), num_gpus (0; parts of one are shared out), memory (bytes), and
            max_retries (3) after which a task whose node is lost is given up.

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
            raise InputError(f"--launcher ray has no option {', '.join(unknown)}; it has address, {_listed()}")
        if not ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that we start reports to nobody
            try:
                ray.init(address=address, log_to_driver=True, include_dashboard=False if address is None else None)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise InputError(f"there is no Ray cluster at {address}: {error}") from error
        resources = {name: value for name, value in {**_RESOURCES, **given}.items() if value is not None}
        self._task = ray.remote(**resources)(serve)

    def start(self, words: Sequence[str], environment: Mapping[str, str]) -> "RayTask":
        """Hand over one worker. Its environment is an argument: a runtime environment would be shown and logged."""
        return RayTask(self._task.remote(list(words), dict(environment)))


class RayTask:
    """A task that was handed over; it is pending while the cluster has no room, and is moved when a node is lost."""

    def __init__(self, reference: Any) -> None:
        self._reference = reference

    def poll(self) -> int | None:
        """1 when the task has ended in any way but well."""
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
        """Wait until the task has ended."""
        import ray

        try:
            return int(ray.get(self._reference))
        except ray.exceptions.RayError:  # its node is lost for good, or it was cancelled
            return 1


def _listed() -> str:
    return ", ".join(_RESOURCES)
