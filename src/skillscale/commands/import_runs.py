"""``import``: runs by others, from a table or from another MLflow experiment, into a study of their own."""

import time
from collections.abc import Callable

from skillscale.cli.output import Output
from skillscale.config import Config
from skillscale.config.options import ImportOptions
from skillscale.execution.status_publisher import StatusPublisher
from skillscale.formatting import JsonObject, format_duration
from skillscale.tables.importing import import_table
from skillscale.tracking import StudyStore

_REPORT_EVERY_S = 10.0


def import_runs(options: ImportOptions, config: Config, out: Output) -> JsonObject:  # noqa: ARG001
    """Read the runs of others, and write those that the study lacks.

    Raises:
        InputError: The runs cannot be read, or do not fit the study.
        TrackingError: A store failed. The same command goes on.
    """
    store = StudyStore.open(options.tracking)
    imported = import_table(options, store, progress_reporter(out.progress))
    StatusPublisher(imported.study, out.progress).refresh(now=True)
    out.text(imported.text())
    out.text(f"UI: {store.ui_command}\n    {imported.study.chart_link}")
    return {**imported.as_dict(), "ui": store.ui_command}


def progress_reporter(progress: Callable[[str], None]) -> Callable[[int, int], None]:
    """Return a function that says now and then how many runs are written."""
    began_s = reported_s = time.monotonic()

    def report(written: int, planned: int) -> None:
        nonlocal reported_s
        now_s = time.monotonic()
        if now_s - reported_s > _REPORT_EVERY_S:
            rest = format_duration((now_s - began_s) * (planned - written) / written)
            progress(f"{written} of {planned} runs written, about {rest} left")
            reported_s = now_s

    return report
