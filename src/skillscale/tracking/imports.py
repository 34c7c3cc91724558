"""Runs that were made elsewhere: written once each into a study of their own, and the runs of any experiment, read.

An imported run is named by its content, so that the same command after a stop, or a day later, adds what is missing and
nothing else. What was read exactly goes along as text: MLflow shows a design point, whose numbers are whole.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from skillscale.point import DesignPoint
from skillscale.record import TAG, Measurement, RunRecord, RunState, as_metrics, as_params, format_budget
from skillscale.tracking.owner import current_owner
from skillscale.tracking.plan_notes import pack, unpack
from skillscale.tracking.sql_reader import Row, RunFilter
from skillscale.tracking.store import RunUpdate, Store, now_ms, run_tags, tag
from skillscale.tracking.study import Study

if TYPE_CHECKING:
    from mlflow.entities import Run

IMPORTED = "imported"
_SOURCE = "source"
_NOTE = "mlflow.note.content"


@dataclass(frozen=True, kw_only=True)
class ImportedRun:
    """A run to write: what MLflow shows of it, and what was read exactly.

    ``budget``: nominal C in FLOP; ``exact``: JSON text, read back as it is; ``content``: names the run by its content.
    """

    name: str
    point: DesignPoint
    budget: float = field(metadata={"unit": "FLOP"})
    skills: Mapping[str, Measurement]
    exact: str
    content: str


@dataclass(frozen=True, kw_only=True)
class ImportSource:
    """Where imported runs come from: a name, the digest of all that was read, and what it holds as JSON text."""

    name: str
    content: str
    described: str


@dataclass(frozen=True, kw_only=True)
class ImportCount:
    """What became of the runs to import."""

    new: int
    there: int


@dataclass(frozen=True, kw_only=True)
class ExternalRun:
    """A run of any experiment.

    ``told`` by ``params.NAME``, ``metrics.NAME`` (the last value), ``tags.NAME``, ``run_id`` and ``run_name``.
    """

    run_id: str
    status: str
    told: Mapping[str, str | float]


class ImportedStudy:
    """The imported runs of a study."""

    def __init__(self, store: Store, study: Study) -> None:
        self.study = study
        self._store = store

    def sources(self) -> list[ImportSource]:
        """Where the runs come from, in the order of their import."""
        tags = self._store.run(self.study.plan_id).data.tags
        found = [json.loads(text) for text in unpack(tags, _SOURCE)]
        return [
            ImportSource(
                name=one["name"],
                content=one["content"],
                described=self._store.read_text(self.study.plan_id, one["described"]),
            )
            for one in found
        ]

    def add_source(self, source: ImportSource) -> None:
        """Keep a source with the plan, once."""
        with self._store.locked():
            tags = self._store.run(self.study.plan_id).data.tags
            found = unpack(tags, _SOURCE)
            if source.content in {json.loads(text)["content"] for text in found}:
                return
            # The text first: a tag whose text is not there yet would make the study unreadable
            name = f"sources/{source.content}.json"
            self._store.write_text(self.study.plan_id, source.described, name)
            text = json.dumps({"name": source.name, "content": source.content, "described": name})
            self._store.write(self.study.plan_id, RunUpdate(tags={f"{TAG}{_SOURCE}.{len(found):04d}": text}))

    def add(self, runs: Sequence[ImportedRun], progress: Callable[[int, int], None]) -> ImportCount:
        """Write the runs that are not there yet, each finished.

        Args:
            runs: with different contents.
            progress: told how many of the new ones are written, and how many there are.

        Raises:
            TrackingError: the store failed, or another process imports into this study.
        """
        with self._store.alone(f"importing into study {self.study.name!r}"):
            begun = {tag(run, "content"): run for run in self._runs()}
            finished = {content for content, run in begun.items() if run.info.status == "FINISHED"}
            new = [run for run in runs if run.content not in finished]
            for at, run in enumerate(new, 1):
                self._write(run, begun.get(run.content))
                progress(at, len(new))
        return ImportCount(new=len(new), there=len(runs) - len(new))

    def exact(self) -> list[tuple[str, str]]:
        """Content and exact text of every imported run, each content once, in order of writing."""
        finished = [run for run in self._runs() if run.info.status == "FINISHED"]
        return list({tag(run, "content"): "".join(unpack(run.data.tags, "exact")) for run in finished}.items())

    def _runs(self) -> "list[Run | Row]":
        return list(self._store.read(self.study.experiment_id, RunFilter(kind="point")))

    def _write(self, run: ImportedRun, begun: "Run | Row | None") -> None:
        """One run, in a new MLflow run or in that of a process that was stopped."""
        record = RunRecord(
            run_id="", study=self.study.name, state=RunState.FINISHED, reason="", point=run.point, skills=run.skills
        )
        run_id = self._create(run) if begun is None else begun.info.run_id
        written = {} if begun is None else begun.data.metrics  # a metric written twice would show as two values
        tags = {} if begun is None else {f"{TAG}state": str(RunState.FINISHED), f"{TAG}reason": ""}
        at = now_ms()
        metrics = tuple((key, value, at, 0) for key, value in as_metrics(record).items() if key not in written)
        self._store.write(run_id, RunUpdate(metrics=metrics, params=as_params(record), tags=tags))
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
            self.study.experiment_id, run.name, run_tags(tags) | pack("exact", run.exact) | {_NOTE: _note(run)}
        )


# A database of MLflow's keeps infinity so
_STORED_INFINITY = (sys.float_info.max, -sys.float_info.max)


def external_run(run: "Run | Row") -> ExternalRun:
    """Params, metrics and tags of a run under one kind of key."""
    told: dict[str, str | float] = {"run_id": run.info.run_id, "run_name": run.info.run_name or ""}
    for kind in ("params", "metrics", "tags"):
        told |= {sys.intern(f"{kind}.{name}"): value for name, value in getattr(run.data, kind).items()}
    for name in [name for name, value in told.items() if value in _STORED_INFINITY]:
        told[name] = math.copysign(math.inf, float(told[name]))
    return ExternalRun(run_id=run.info.run_id, status=run.info.status, told=told)


def _note(run: ImportedRun) -> str:
    point = run.point
    lines = [f"Imported: {run.name}", "", f"N = {point.n_params:.4g} parameters, D = {point.n_tokens:.4g} tokens, "
             f"C = {run.budget:.3g} FLOP, mix {point.mix}, seed {point.seed}"]  # fmt: skip
    return "\n".join(lines)
