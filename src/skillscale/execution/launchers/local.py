"""Workers in processes of this machine."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import count

PARENT = "SKILLSCALE_PARENT"  # the process whose end ends a worker


class Local:
    """Starts processes, which end when this one does.

    Args:
        gpus: as CUDA_VISIBLE_DEVICES names them: worker i gets number i, and after the last the first again; empty:
            every worker sees what this process sees, as within a job, whose GPUs are its own.
        devices: that each worker gets.
    """

    def __init__(self, gpus: Sequence[str] = (), devices: int = 1) -> None:
        self._gpus, self._devices, self._number = tuple(gpus), devices, count()

    def start(self, words: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        """Start ``python WORDS``."""
        variables = {**os.environ, **environment, PARENT: str(os.getpid())}
        variables.pop("MLFLOW_RUN_ID", None)  # that of `mlflow run` is this process's alone
        if self._gpus:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(self._of(next(self._number)))
        return subprocess.Popen([sys.executable, *words], stdin=subprocess.DEVNULL, stdout=sys.stderr, env=variables)  # noqa: S603

    def _of(self, worker: int) -> list[str]:
        own = range(worker * self._devices, (worker + 1) * self._devices)
        return list(dict.fromkeys(self._gpus[at % len(self._gpus)] for at in own))


def visible_gpus() -> list[str]:
    """The GPUs of this machine: those that CUDA_VISIBLE_DEVICES leaves us where it is set, else all there are."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [one.strip() for one in given.split(",") if one.strip()]
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    asked = [command, "--query-gpu=uuid", "--format=csv,noheader"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.split() if done.returncode == 0 else []


def serve(words: Sequence[str], environment: Mapping[str, str]) -> int:
    """What a job or task elsewhere does: a worker in a process of its own, which ends with it; its exit code."""
    process = Local().start(words, environment)
    try:
        return process.wait()
    finally:
        process.terminate()
        process.wait()
