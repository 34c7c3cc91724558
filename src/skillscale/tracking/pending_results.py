"""Results that the store did not take, in files until it takes them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from skillscale.errors import TrackingError
from skillscale.point import digest
from skillscale.tracking.metric_files import write_result
from skillscale.tracking.owner import is_alive
from skillscale.tracking.store import RunUpdate, Store, tag

if TYPE_CHECKING:
    from mlflow.entities import Run


@dataclass(frozen=True, kw_only=True)
class PendingResult:
    """The end of a run: its status and all that was still to be written. ``more``: metrics for its file."""

    run_id: str
    attempt: int
    status: str
    batch: RunUpdate
    more: Mapping[str, float] = field(default_factory=dict)


def store_pending(store: Store, result: PendingResult) -> Path:
    """Write a pending result to a file, and return its path.

    Raises:
        TrackingError: the file can't be written either.
    """
    path = _folder(store) / f"{result.run_id}.json"
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(asdict(result)), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise TrackingError(
            f"the results of run {result.run_id} could be written neither to {store.place} nor to {path}: {error}. "
            "Free some disk, then start again: the point goes on from its last checkpoint."
        ) from error
    return path


def has_pending(store: Store) -> bool:
    """Return whether there are pending results for this store."""
    return any(_folder(store).glob("*.json"))


def flush_pending(store: Store) -> list[str]:
    """Write every pending result to this store; return the ids of the runs that were closed.

    A pending result is dropped if its run is gone, is finished, or is being trained again.
    """
    closed = []
    for path in sorted(_folder(store).glob("*.json")):
        result = _read(path)
        run = store.find_run(result.run_id)
        if run is not None and run.info.lifecycle_stage == "active" and _is_open(run, result):
            write_result(store, result.run_id, result.batch, result.more)
            store.set_status(result.run_id, result.status)
            closed.append(result.run_id)
        path.unlink(missing_ok=True)
    return closed


def _is_open(run: "Run", result: PendingResult) -> bool:
    status = run.info.status
    is_taken_again = tag(run, "attempt") != str(result.attempt) and is_alive(tag(run, "owner")) is not False
    return status != "FINISHED" and not (status == "RUNNING" and is_taken_again)


def _read(path: Path) -> PendingResult:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        batch = plain["batch"]
        metrics = tuple((str(key), float(value), int(at), int(step)) for key, value, at, step in batch["metrics"])
        update = RunUpdate(metrics=metrics, params=batch["params"], tags=batch["tags"])
        more = {str(key): float(value) for key, value in plain.get("more", {}).items()}
        return PendingResult(
            run_id=plain["run_id"], attempt=int(plain["attempt"]), status=plain["status"], batch=update, more=more
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrackingError(
            f"{path} holds no results that can be read ({error}). Move it away, then start again"
        ) from error


def _folder(store: Store) -> Path:
    return store.cache / "spool" / digest(store.uri)
