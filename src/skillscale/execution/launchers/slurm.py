"""The door to submitit: workers as SLURM jobs, or with ``cluster=local`` as its jobs of this machine."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from skillscale.errors import InputError
from skillscale.execution.launchers.local import serve

_POLL_S = 0.5


class Slurm:
    """A launcher of SLURM jobs, a worker each.

    Args:
        options: ``cluster`` (slurm, or local to try it out) and parameters of submitit: timeout_min, cpus_per_task,
            mem_gb, gpus_per_node, slurm_partition, slurm_account, slurm_qos, ...
        folder: Folder for scripts and logs, on a file system that the nodes share.

    Raises:
        InputError: submitit is not installed, SLURM is missing, or there is no such parameter.
    """

    def __init__(self, options: Mapping[str, Any], folder: Path) -> None:
        try:
            import submitit
        except ImportError as error:
            raise InputError("--launcher slurm needs submitit: pip install -c constraints.txt -e '.[slurm]'") from error
        given = dict(options)
        cluster = str(given.pop("cluster", "slurm"))
        try:
            self._executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
            # Defaults before the user's values: a job of a day
            self._executor.update_parameters(**{"timeout_min": 24 * 60, "name": "skillscale", **given})
        except (RuntimeError, NameError, ValueError, TypeError, AssertionError) as error:
            reason = f"--launcher slurm refuses {dict(options)}: {error}"
            if isinstance(error, RuntimeError) and "srun" in str(error):  # the options are not to blame
                reason = "no SLURM here (srun is not found). --launcher_options cluster=local tries it without SLURM."
            raise InputError(reason) from error

    def start(self, argv: Sequence[str], environment: Mapping[str, str]) -> "SlurmJob":
        """Submit a job. It inherits the environment of this process, so that no script or file holds the addresses."""
        with _environment(environment):
            return SlurmJob(self._executor.submit(serve, list(argv), {}))


class SlurmJob:
    """A job that was submitted."""

    def __init__(self, job: Any) -> None:
        self._job = job

    def poll(self) -> int | None:
        """Return 0 when the job has ended in any way. Its outcome is a pickle, and the queue says more."""
        return 0 if self._job.done() else None

    def send_signal(self, sig: int, /) -> None:  # noqa: ARG002
        """Cancel the job, whatever the signal: SLURM sends SIGTERM, and after a grace period SIGKILL."""
        self._job.cancel(check=False)

    def kill(self) -> None:
        """Cancel the job."""
        self._job.cancel(check=False)

    def wait(self) -> int:
        """Wait until the job has ended."""
        while (code := self.poll()) is None:
            time.sleep(_POLL_S)
        return code


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
