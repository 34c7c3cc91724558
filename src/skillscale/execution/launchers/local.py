"""Workers as processes of this machine."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import count

PARENT = "SKILLSCALE_PARENT"  # process id of the parent; a worker ends when its parent does


class Local:
    """A launcher of processes, which end when this process does.

    Args:
        gpus: GPUs as CUDA_VISIBLE_DEVICES names them. Workers take them in turn; after the last follows the first.
            Empty: every worker sees the GPUs that this process sees, as within a job.
        devices: GPUs for each worker.
    """

    def __init__(self, gpus: Sequence[str] = (), devices: int = 1) -> None:
        self._gpus, self._devices, self._number = tuple(gpus), devices, count()

    def start(self, argv: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        """Start ``python ARGV``."""
        variables = {**os.environ, **environment, PARENT: str(os.getpid())}
        variables.pop("MLFLOW_RUN_ID", None)  # the run of `mlflow run` is this process's alone
        if self._gpus:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(self._gpus_of(next(self._number)))
        return subprocess.Popen([sys.executable, *argv], stdin=subprocess.DEVNULL, stdout=sys.stderr, env=variables)  # noqa: S603

    def _gpus_of(self, worker: int) -> list[str]:
        places = range(worker * self._devices, (worker + 1) * self._devices)
        return list(dict.fromkeys(self._gpus[place % len(self._gpus)] for place in places))


def visible_gpus() -> list[str]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES allows where it is set, else all GPUs of this machine."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return [gpu.strip() for gpu in allowed.split(",") if gpu.strip()]
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    query = [command, "--query-gpu=uuid", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.split() if done.returncode == 0 else []


def serve(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a worker in a process of a job or task, which ends with it; return the exit code."""
    process = Local().start(argv, environment)
    try:
        return process.wait()
    finally:
        process.terminate()
        process.wait()
