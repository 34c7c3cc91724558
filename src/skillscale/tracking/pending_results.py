"""Results that the store would not take, kept in files until it does."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from skillscale.errors import TrackingError
from skillscale.point import digest
from skillscale.tracking.owner import is_alive
from skillscale.tracking.store import RunUpdate, Store, tag

if TYPE_CHECKING:
    from mlflow.entities import Run


@dataclass(frozen=True, kw_only=True)
class PendingResult:
    """The last words of a run: its status and all that was still to be written."""

    run_id: str
    attempt: int
    status: str
    batch: RunUpdate


def store_pending(store: Store, ending: PendingResult) -> Path:
    """Write an ending to the spool of this store.

    Raises:
        TrackingError: that fails too.
    """
    path = _folder(store) / f"{ending.run_id}.json"
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(asdict(ending)), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise TrackingError(
            f"the results of run {ending.run_id} could be written neither to {store.place} nor to {path}: {error}; "
            "free some disk, then start again: the point is trained anew from its last checkpoint"
        ) from error
    return path


def pending_results(store: Store) -> bool:
    """Whether anything is kept for this store."""
    return any(_folder(store).glob("*.json"))


def flush_pending(store: Store) -> list[str]:
    """Write every kept ending of this store; return the runs that were closed.

    An ending is dropped if its run is gone, is finished, or is being trained again.
    """
    done = []
    for path in sorted(_folder(store).glob("*.json")):
        ending = _read(path)
        run = store.find_run(ending.run_id)
        if run is not None and run.info.lifecycle_stage == "active" and _is_open(run, ending):
            store.write(ending.run_id, ending.batch)
            store.set_status(ending.run_id, ending.status)
            done.append(ending.run_id)
        path.unlink(missing_ok=True)
    return done


def _is_open(run: "Run", ending: PendingResult) -> bool:
    status = run.info.status
    taken_again = tag(run, "attempt") != str(ending.attempt) and is_alive(tag(run, "owner")) is not False
    return status != "FINISHED" and not (status == "RUNNING" and taken_again)


def _read(path: Path) -> PendingResult:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        batch = plain["batch"]
        metrics = tuple((str(key), float(value), int(at), int(step)) for key, value, at, step in batch["metrics"])
        kept = RunUpdate(metrics=metrics, params=batch["params"], tags=batch["tags"])
        return PendingResult(run_id=plain["run_id"], attempt=int(plain["attempt"]), status=plain["status"], batch=kept)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrackingError(
            f"{path} holds no results that can be read ({error}); move it away, then start again"
        ) from error


def _folder(store: Store) -> Path:
    return store.cache / "spool" / digest(store.uri)
