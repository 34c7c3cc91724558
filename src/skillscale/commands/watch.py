"""``watch``: show the status of a study again and again while workers run, from the store alone."""

import time
from collections.abc import Sequence
from typing import Any

from skillscale.cli.output import Output
from skillscale.config import Config
from skillscale.config.options import WatchOptions
from skillscale.execution.status import study_status
from skillscale.execution.status_text import status_as_dict, status_lines
from skillscale.tracking import StudyStore


def watch(options: WatchOptions, config: Config, out: Output) -> dict[str, Any]:  # noqa: ARG001
    """Show the status of a study until no point remains to be trained; with ``once`` show it and end."""
    study = StudyStore.open(options.tracking, create=False, queue=options.queue).study(options.study)
    n_shown = 0
    while True:
        status = study_status(study)
        n_shown = _show(status_lines(status), n_shown, out)
        if options.once or status.is_over:
            return status_as_dict(status)
        time.sleep(options.interval_s)


def _show(lines: Sequence[str], n_shown: int, out: Output) -> int:
    """Write the lines, at a terminal over the ``n_shown`` lines of before; return their number."""
    if n_shown and out.answer.isatty():
        out.replace_lines(n_shown, "\n".join(lines))
    else:
        out.text("\n".join([*[""] * bool(n_shown), *lines]))
    return len(lines)
