"""Worker processes: started, stopped, and how one of them waits for its next point."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skillscale.tracking import RunWriter, Study

_PARENT = "SKILLSCALE_PARENT"
_GRACE_S = 30.0
_WITH_US_S = 5.0  # a Ctrl-C at the terminal reaches the workers too: they are marking their runs
_FIRST_WAIT_S, _LONGEST_WAIT_S, _LONGER_BY = 0.1, 2.0, 1.5


def start_worker(
    arguments: Mapping[str, Any], tracking: str, *, retry_failed: bool, sampled: bool = False
) -> subprocess.Popen[bytes]:
    """Start a process that trains the points of the study's queue.

    Args:
        arguments: of the command that starts it, whose settings and overrides go along.
        tracking: URI of the registry.
        retry_failed: train the points that failed once more.
        sampled: train only points that the sampler chose.
    """
    words = [sys.executable, "-m", "skillscale", "worker", "--tracking", tracking]
    words += [word for name in ("study", "data", "skills") for word in (f"--{name}", str(arguments[name]))]
    words += ["--cache", str(arguments["cache"].absolute())]
    words += ["--retry_failed", str(retry_failed).lower(), "--sampled", str(sampled).lower()]
    if arguments.get("trainer"):
        words += ["--trainer", arguments["trainer"], "--timeout_s", str(arguments["timeout_s"] or "")]
    overrides = {name: text for name, text in arguments.items() if "." in name}
    words += [word for name, text in overrides.items() for word in (f"--{name}", text)]
    environment = {**os.environ, _PARENT: str(os.getpid())}
    environment.pop("MLFLOW_RUN_ID", None)
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=sys.stderr, env=environment)  # noqa: S603


def stop(workers: Sequence[subprocess.Popen[bytes]]) -> None:
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


def next_claim(study: "Study", *, retry_failed: bool, sampled: bool, stay: bool = False) -> "RunWriter | None":
    """The next point to train; None when there is none and none will come, or our starter is gone.

    Waits, ever longer, while a sampler fills the queue; with ``stay`` also while others train, who may be lost.
    """
    wait_s = _FIRST_WAIT_S
    while not orphaned():
        filling = study.is_sampled()  # before the claim: what is added between the two is claimed
        writer = study.claim(retry_failed=retry_failed, sampled=sampled)
        if writer is not None or not (filling or (stay and study.is_under_way(sampled=sampled))):
            return writer
        time.sleep(wait_s)
        wait_s = min(wait_s * _LONGER_BY, _LONGEST_WAIT_S)
    return None


def orphaned() -> bool:
    """Whether the process that started this one, and told us so, has ended."""
    parent = os.environ.get(_PARENT, "")
    return parent.isdigit() and os.getppid() != int(parent)


def _wait(workers: Sequence[subprocess.Popen[bytes]], seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and any(each.poll() is None for each in workers):
        time.sleep(0.05)
