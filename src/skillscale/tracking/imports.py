"""Imported runs: runs of others, written once each into a separate study; and the runs of any experiment, read.

The content of an imported run is its name, so that the same command adds the missing runs alone, after a stop or a day
later. The exact numbers are written as text as well: MLflow shows a design point, whose numbers are whole.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from skillscale.point import DesignPoint
from skillscale.record import TAG, Measurement, RunRecord, RunState, as_params, format_budget, split_metrics
from skillscale.tracking.metric_files import write_result
from skillscale.tracking.owner import current_owner
from skillscale.tracking.plan_notes import pack, unpack
from skillscale.tracking.sql_reader import Row, RunFilter
from skillscale.tracking.store import RunUpdate, Store, now_ms, run_tags, tag
from skillscale.tracking.study import Study
from skillscale.tracking.ui import NOTE, point_note

if TYPE_CHECKING:
    from mlflow.entities import Run

IMPORTED = "imported"
_SOURCE = "source"


@dataclass(frozen=True, kw_only=True)
class ImportedRun:
    """A run to write: the values that MLflow shows, and the exact ones.

    ``budget``: nominal C in FLOP. ``exact``: JSON text, read back unchanged. ``content``: digest of the content.
    """

    name: str
    point: DesignPoint
    budget: float = field(metadata={"unit": "FLOP"})
    skills: Mapping[str, Measurement]
    exact: str
    content: str


@dataclass(frozen=True, kw_only=True)
class ImportSource:
    """A source of imported runs: its name, the digest of its content, and its description as JSON text."""

    name: str
    content: str
    described: str


@dataclass(frozen=True, kw_only=True)
class ImportCount:
    """Numbers of runs to import: new ones, and those that were there."""

    new: int
    there: int


@dataclass(frozen=True, kw_only=True)
class ExternalRun:
    """A run of any experiment.

    ``fields``: by ``params.NAME``, ``metrics.NAME`` (the last value), ``tags.NAME``, ``run_id`` and ``run_name``.
    """

    run_id: str
    status: str
    fields: Mapping[str, str | float]


class ImportedStudy:
    """The imported runs of a study."""

    def __init__(self, store: Store, study: Study) -> None:
        self.study = study
        self._store = store

    def sources(self) -> list[ImportSource]:
        """Return the sources of the runs, in the order of their import."""
        tags = self._store.run(self.study.plan_id).data.tags
        sources = [json.loads(text) for text in unpack(tags, _SOURCE)]
        return [
            ImportSource(
                name=source["name"],
                content=source["content"],
                described=self._store.read_text(self.study.plan_id, source["described"]),
            )
            for source in sources
        ]

    def add_source(self, source: ImportSource) -> None:
        """Write a source to the plan, once."""
        with self._store.locked():
            tags = self._store.run(self.study.plan_id).data.tags
            texts = unpack(tags, _SOURCE)
            if source.content in {json.loads(text)["content"] for text in texts}:
                return
            # The text first: a tag whose text is not there yet would make the study unreadable
            name = f"sources/{source.content}.json"
            self._store.write_text(self.study.plan_id, source.described, name)
            text = json.dumps({"name": source.name, "content": source.content, "described": name})
            self._store.write(self.study.plan_id, RunUpdate(tags={f"{TAG}{_SOURCE}.{len(texts):04d}": text}))

    def add(self, runs: Sequence[ImportedRun], progress: Callable[[int, int], None]) -> ImportCount:
        """Write the runs that the study does not have, as finished.

        Args:
            runs: runs with different contents.
            progress: receiver of the number of new runs that are written, and of all new runs.

        Raises:
            TrackingError: the store failed, or another process is importing into this study.
        """
        with self._store.exclusive(f"importing into study {self.study.name!r}"):
            present = {tag(run, "content"): run for run in self._runs()}
            finished = {content for content, run in present.items() if run.info.status == "FINISHED"}
            new = [run for run in runs if run.content not in finished]
            for at, run in enumerate(new, 1):
                self._write(run, present.get(run.content))
                progress(at, len(new))
        return ImportCount(new=len(new), there=len(runs) - len(new))

    def exact(self) -> list[tuple[str, str]]:
        """Return content and exact text of every imported run in order of writing, each content once."""
        finished = [run for run in self._runs() if run.info.status == "FINISHED"]
        return list({tag(run, "content"): "".join(unpack(run.data.tags, "exact")) for run in finished}.items())

    def _runs(self) -> "list[Run | Row]":
        return list(self._store.read(self.study.experiment_id, RunFilter(kind="point")))

    def _write(self, run: ImportedRun, unfinished: "Run | Row | None") -> None:
        """Write a run, in a new MLflow run or in that of a process that was stopped."""
        record = RunRecord(
            run_id="", study=self.study.name, state=RunState.FINISHED, reason="", point=run.point, skills=run.skills
        )
        run_id = self._create(run) if unfinished is None else unfinished.info.run_id
        written = (
            {} if unfinished is None else unfinished.data.metrics
        )  # a metric written twice would show as two values
        tags = {} if unfinished is None else {f"{TAG}state": str(RunState.FINISHED), f"{TAG}reason": ""}
        at = now_ms()
        shown, more = split_metrics(record, written)
        metrics = tuple((key, value, at, 0) for key, value in shown.items())
        write_result(self._store, run_id, RunUpdate(metrics=metrics, params=as_params(record), tags=tags), more)
        self._store.set_status(run_id, "FINISHED")

    def _create(self, run: ImportedRun) -> str:
        tags = {
            "study": self.study.name,
            "kind": "point",
            "state": str(RunState.FINISHED),
            "budget": format_budget(run.budget),
            "point_key": run.point.key,
            "point": json.dumps(run.point.as_dict()),
            "owner": current_owner(),
            "claimed": f"{time.time():.3f}",
            "content": run.content,
        }
        return self._store.create_run(
            self.study.experiment_id, run.name, run_tags(tags) | pack("exact", run.exact) | {NOTE: _note(run)}
        )


# MLflow's databases store infinity so
_STORED_INFINITY = (sys.float_info.max, -sys.float_info.max)


def external_run(run: "Run | Row", metrics: Mapping[str, float]) -> ExternalRun:
    """Return params, all metrics and tags of a run under one kind of key."""
    values: dict[str, str | float] = {"run_id": run.info.run_id, "run_name": run.info.run_name or ""}
    for kind, items in (("params", run.data.params), ("metrics", metrics), ("tags", run.data.tags)):
        values |= {sys.intern(f"{kind}.{name}"): value for name, value in items.items()}
    for name in [name for name, value in values.items() if value in _STORED_INFINITY]:
        values[name] = math.copysign(math.inf, float(values[name]))
    return ExternalRun(run_id=run.info.run_id, status=run.info.status, fields=values)


def _note(run: ImportedRun) -> str:
    return point_note(run.point, run.skills, state=f"imported, {run.name}", flops=run.budget)
