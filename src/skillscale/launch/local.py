"""Workers in processes of this machine."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

PARENT = "SKILLSCALE_PARENT"  # the process whose end ends a worker


class Local:
    """Starts a process, which ends when this one does."""

    def start(self, words: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        """Start ``python WORDS``."""
        variables = {**os.environ, **environment, PARENT: str(os.getpid())}
        variables.pop("MLFLOW_RUN_ID", None)  # that of `mlflow run` is this process's alone
        return subprocess.Popen([sys.executable, *words], stdin=subprocess.DEVNULL, stdout=sys.stderr, env=variables)  # noqa: S603


def serve(words: Sequence[str], environment: Mapping[str, str]) -> int:
    """What a job or task elsewhere does: a worker in a process of its own, which ends with it; its exit code."""
    process = Local().start(words, environment)
    try:
        return process.wait()
    finally:
        process.terminate()
        process.wait()
