"""``close_stale``: close the runs whose process has ended, so that none stays RUNNING."""

from skillscale.cli.output import Output
from skillscale.config import Config
from skillscale.config.options import CloseStaleOptions
from skillscale.formatting import JsonObject
from skillscale.tracking import StudyStore


def close_stale(options: CloseStaleOptions, config: Config, out: Output) -> JsonObject:  # noqa: ARG001
    """Close the runs whose process has ended."""
    store = StudyStore.open(options.tracking, queue=options.queue)
    names = [options.study] if options.study else store.study_names()
    closed = [
        (name, run) for name in names for run in store.study(name).close_stale(stale_after_s=options.stale_after_s)
    ]
    closed += [] if options.study else store.close_stale_laws()
    for name, run in closed:
        out.text(f"{name}: {run.run_name} closed: {run.reason}")
    out.text(f"{len(closed)} runs closed in {len(names)} studies")
    return {"closed": [{"study": name, "run_id": run.run_id, "reason": run.reason} for name, run in closed]}
