"""The door to submitit: workers as SLURM jobs, or with ``cluster=local`` as its jobs of this machine."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from skillscale.errors import InputError
from skillscale.execution.launchers.local import serve

_LOOK_EVERY_S = 0.5


class Slurm:
    """Submits jobs, each a worker.

    Args:
        options: ``cluster`` (slurm, or local to try it out) and parameters of submitit: timeout_min, cpus_per_task,
            mem_gb, gpus_per_node, slurm_partition, slurm_account, slurm_qos, ...
        folder: on a file system that the nodes share, for scripts and logs.

    Raises:
        InputError: submitit is not installed, there is no SLURM, or it knows no such parameter.
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
            # Named before those of the user: a job of hours, of one task
            self._executor.update_parameters(**{"timeout_min": 24 * 60, "name": "skillscale", **given})
        except (RuntimeError, NameError, ValueError, TypeError, AssertionError) as error:
            why = f"--launcher slurm refuses {dict(options)}: {error}"
            if isinstance(error, RuntimeError) and "srun" in str(error):  # the options are not to blame
                why = "no SLURM here (srun is not found); --launcher_options cluster=local tries it without"
            raise InputError(why) from error

    def start(self, words: Sequence[str], environment: Mapping[str, str]) -> "SlurmJob":
        """Submit a job. SLURM gives it the environment of this process, and no script or file names the addresses."""
        with _lent(environment):
            return SlurmJob(self._executor.submit(serve, list(words), {}))


class SlurmJob:
    """A job that was submitted."""

    def __init__(self, job: Any) -> None:
        self._job = job

    def poll(self) -> int | None:
        """0 when the job has ended, well or not: what it says of itself is a pickle, and the queue says more."""
        return 0 if self._job.done() else None

    def send_signal(self, sig: int, /) -> None:  # noqa: ARG002
        """Cancel the job, whatever the signal: it gets SIGTERM, and after a grace SIGKILL."""
        self._job.cancel(check=False)

    def kill(self) -> None:
        """Cancel the job."""
        self._job.cancel(check=False)

    def wait(self) -> int:
        """Wait until the job has ended."""
        while (code := self.poll()) is None:
            time.sleep(_LOOK_EVERY_S)
        return code


@contextmanager
def _lent(environment: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
