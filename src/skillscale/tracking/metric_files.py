"""Metrics of a run beyond those that MLflow shows: one JSON file among the artifacts of the run."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from skillscale.errors import SkillscaleError, TrackingError
from skillscale.formatting import shorten
from skillscale.record import TAG
from skillscale.tracking.sql_reader import Row
from skillscale.tracking.store import RunUpdate, Store, now_ms, tag

if TYPE_CHECKING:
    from mlflow.entities import Run

METRICS_FILE = "metrics.json"
_TAG = "metrics_file"
_UNREADABLE = (OSError, ValueError, TypeError, AttributeError, RecursionError, SkillscaleError)


def write_result(store: Store, run_id: str, batch: RunUpdate, more: Mapping[str, float]) -> None:
    """Write an update of a run, and further metrics into its file.

    Where the artifacts can't be written, MLflow gets the further metrics as well: no result may be lost.

    Raises:
        TrackingError: the store failed.
    """
    if not more:
        store.write(run_id, batch)
        return
    store.write(run_id, replace(batch, tags={**batch.tags, f"{TAG}{_TAG}": METRICS_FILE}))
    try:
        store.write_text(run_id, json.dumps(more, indent=1), METRICS_FILE)
    except TrackingError:
        at = now_ms()
        metrics = tuple((key, value, at, 0) for key, value in more.items())
        store.write(run_id, RunUpdate(metrics=metrics, tags={f"{TAG}{_TAG}": ""}))


class MetricFiles:
    """A reader of all metrics of runs. A file that can't be read costs its metrics alone.

    Args:
        store: the tracking store.

    Attributes:
        problems: why a file could not be read, by the id of its run.
    """

    def __init__(self, store: Store) -> None:
        self.problems: dict[str, str] = {}
        self._store = store

    def read(self, runs: "Iterable[Run | Row]") -> "list[tuple[Run | Row, dict[str, float]]]":
        """Return runs with all their metrics. A metric that MLflow has counts before that of the file."""
        runs = list(runs)
        filed = [run for run in runs if tag(run, _TAG) and run.info.status == "FINISHED"]
        texts = self._store.read_texts({run.info.run_id: run.info.artifact_uri or "" for run in filed}, METRICS_FILE)
        return [(run, self._metrics(run, texts)) for run in runs]

    def _metrics(self, run: "Run | Row", texts: Mapping[str, str | TrackingError]) -> dict[str, float]:
        metrics: dict[str, float] = run.data.metrics
        text = texts.get(run.info.run_id)
        if text is None:
            return metrics
        self.problems.pop(run.info.run_id, None)
        try:
            if isinstance(text, TrackingError):
                raise text
            filed = {str(key): float(value) for key, value in json.loads(text).items()}
        except _UNREADABLE as error:
            self.problems[run.info.run_id] = shorten(str(error), 120)
            return metrics
        return filed | metrics
