"""The console command, also as ``python -m skillscale COMMAND`` where the scripts folder is not on PATH.

Imports take a quarter of a second. A signal in that time ends the command with its answer, as a later one does.
"""

import json
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

_STOPPED = "stopped; run the same command to go on"


def console() -> NoReturn:
    """Run the console script."""
    before = {signum: signal.signal(signum, _stop) for signum in (signal.SIGINT, signal.SIGTERM)}
    from skillscale import cli

    for signum, handler in before.items():
        signal.signal(signum, handler)
    cli.console()


def _stop(signum: int, _frame: FrameType | None) -> None:
    """End the process with the one JSON object of ``--json``. Nothing was begun that needs an end."""
    code, words = 128 + signum, sys.argv[1:]
    if any(word in ("--json", "--json=true") for word in words):
        os.write(1, f"{json.dumps({'error': _STOPPED, 'exit_code': code})}\n".encode())
    os.write(2, f"skillscale: {_STOPPED}\n".encode())
    os._exit(code)


if __name__ == "__main__":  # a trainer's process imports this file under another name
    console()
