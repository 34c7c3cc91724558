"""Writers of runs: a training run during its training, and the runs of fits, reports and tuning."""

import json
import logging
import math
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING

from skillscale.errors import LeaseLostError, TrackingError
from skillscale.point import DesignPoint
from skillscale.record import (
    CURVE,
    TAG,
    Checkpoint,
    DataSet,
    DataUse,
    Measurement,
    ModelSize,
    OptimizerPlan,
    ProposalReason,
    Provenance,
    RunCost,
    RunRecord,
    RunState,
    as_params,
    begin_metrics,
    split_metrics,
)
from skillscale.tracking.metric_files import write_result
from skillscale.tracking.pending_results import PendingResult, store_pending
from skillscale.tracking.queue import Lease
from skillscale.tracking.run_reader import read_number
from skillscale.tracking.store import RunUpdate, Store, now_ms, tag
from skillscale.tracking.ui import NOTE, image, link, point_note, run_path

if TYPE_CHECKING:
    from mlflow.entities import Run

_FLUSH_EVERY_S = 10.0
_FLUSH_SHARE = 0.05  # of the time that a run has taken: ten thousand long runs then don't drown the store
_FLUSH_AT = 400
_RETRY_AFTER_S = 60.0
_REASON_LIMIT = 1000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A point that this process alone trains: its run, its number of attempts and deaths, the sampler's reason."""

    run_id: str
    study: str
    point: DesignPoint
    owner: str
    attempt: int = 1
    deaths: int = 0
    why: ProposalReason | None = None


class RunWriter:
    """The run of a claimed point. As a context manager it leaves no run RUNNING behind.

    In order: ``begin`` before training, ``curve`` during it, and one of ``finish``, ``fail`` and ``kill``. An exception
    from outside (Ctrl-C, ``SystemExit``, the disk, memory, the store) kills the run; another exception fails it. The
    exception goes on. A killed run can be claimed again.

    ``lease``: the hold on the point. A writer that has lost it writes nothing more.
    """

    def __init__(self, store: Store, claim: Claim, lease: Lease) -> None:
        self.claim = claim
        self._lease = lease
        self._store = store
        self._record = RunRecord(
            run_id=claim.run_id, study=claim.study, state=RunState.RUNNING, reason="", point=claim.point,
            purpose="" if claim.why is None else claim.why.purpose,
        )  # fmt: skip
        self._curve: list[tuple[str, float, int, int]] = []
        self._began = self._flushed = time.monotonic()
        self._wait_s = _FLUSH_EVERY_S
        self._ended = False
        self._params: dict[str, str] = {}
        self._metrics: set[str] = set()
        self._has_inputs = False
        self._config_yaml = ""
        self.logged_tokens = 0
        if claim.attempt > 1:
            self._read_back()

    @property
    def run_id(self) -> str:
        """Id of the MLflow run."""
        return self.claim.run_id

    @property
    def point(self) -> DesignPoint:
        """The point to train."""
        return self.claim.point

    def __enter__(self) -> "RunWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._leave(error)
        finally:
            self._lease.abandon()

    def _leave(self, error: BaseException | None) -> None:
        if self._ended or isinstance(error, LeaseLostError):
            return
        if error is None:
            self.kill("left without a result")
            return
        try:
            reason = f"{type(error).__name__}: {error}".removesuffix(": ")
            outside = not isinstance(error, Exception) or isinstance(error, (TrackingError, OSError, MemoryError))
            self.kill(reason) if outside else self.fail(reason)
        except TrackingError as second:
            error.add_note(f"and the run could not be marked: {second}")

    def begin(
        self,
        *,
        size: ModelSize | None = None,
        optimizer_plan: OptimizerPlan | None = None,
        provenance: Provenance | None = None,
        checkpoint: Checkpoint | None = None,
        config_yaml: str = "",
        data: Iterable[DataSet] = (),
    ) -> None:
        """Write the record before training: params, sizes as metrics, settings, data sets.

        The run of a user's trainer has only its point. The run of a ``checkpoint`` that was trained elsewhere takes its
        name.

        Raises:
            TrackingError: the store failed, or a resumed run was begun with other values.
        """
        self._record = replace(
            self._record, size=size, optimizer_plan=optimizer_plan, provenance=provenance, checkpoint=checkpoint
        )
        params = as_params(self._record)
        for key, stored in self._params.items():
            if key in params and params[key] != stored and key != "code_version":
                raise TrackingError(
                    f"run {self.run_id} of point {self.point.key} was begun with {key}={stored}, and would go on with "
                    f"{params[key]}. Delete that run in the MLflow UI, or give the study another name"
                )
        tags = {NOTE: self._note()}
        if checkpoint is not None:
            tags["mlflow.runName"] = checkpoint.checkpoint
        version = params.get("code_version", "")
        if version and self._params.get("code_version", version) != version:
            tags[f"{TAG}code_version_{self.claim.attempt}"] = version
        new = {key: value for key, value in params.items() if key not in self._params}
        self._store.write(
            self.run_id, RunUpdate(metrics=self._new_entries(begin_metrics(self._record)), params=new, tags=tags)
        )
        if config_yaml and not self._has_inputs:
            self._store.write_inputs(self.run_id, data)
            self._config_yaml = config_yaml
            self._write_config()

    def keep_alive(self) -> bool:
        """Record a sign of progress; return False if another process got the point, so that this one has to stop."""
        self._lease.keep_alive()
        return not self._lease.is_lost

    def check_lease(self) -> None:
        """Make sure that this process holds the point, as far as it has noticed.

        Raises:
            LeaseLostError: another process got the point and its run.
        """
        if self._lease.is_lost:
            self._lease.check()

    def curve(self, tokens: int, loss: float) -> None:
        """Add to the loss curve, which is written now and then. A resumed run skips what it repeats."""
        if tokens <= self.logged_tokens or not math.isfinite(loss):
            return
        self.logged_tokens = tokens
        self._curve.append((CURVE, float(loss), now_ms(), tokens))
        if len(self._curve) >= _FLUSH_AT or time.monotonic() - self._flushed > self._wait_s:
            self._flush()

    def finish(
        self,
        *,
        skills: Mapping[str, Measurement],
        cost: RunCost | None = None,
        sets: Mapping[str, Measurement] = MappingProxyType({}),
        skills_held_out: Mapping[str, Measurement] = MappingProxyType({}),
        data_use: Mapping[str, DataUse] = MappingProxyType({}),
        exposures: float | None = None,
    ) -> RunRecord:
        """Write the results and close the run as finished.

        Raises:
            TrackingError: the store failed. A file keeps the results until a study is next opened.
        """
        self._record = replace(
            self._record,
            cost=cost,
            sets=dict(sets),
            skills=dict(skills),
            skills_held_out=dict(skills_held_out),
            data_use=dict(data_use),
            exposures=exposures,
        )
        return self._end(RunState.FINISHED, "")

    def fail(self, reason: str) -> RunRecord:
        """Close the run as failed: it diverged, or raised an error. It is tried again only on request."""
        return self._end(RunState.FAILED, reason)

    def kill(self, reason: str) -> RunRecord:
        """Close the run as killed: it was stopped from outside, and can be claimed again."""
        return self._end(RunState.KILLED, reason)

    def _end(self, state: RunState, reason: str) -> RunRecord:
        self._record = replace(self._record, state=state, reason=reason[:_REASON_LIMIT])
        tags = {f"{TAG}state": str(state), f"{TAG}reason": self._record.reason, NOTE: self._note()}
        shown, more = split_metrics(self._record, self._metrics)
        batch = RunUpdate(metrics=(*self._curve, *self._new_entries(shown)), tags=tags)
        self._ended = True
        self._lease.check()
        pending = PendingResult(
            run_id=self.run_id, attempt=self.claim.attempt, status=state.name, batch=batch, more=more
        )
        try:
            self._check_attempt(self._store.run(self.run_id))
            write_result(self._store, self.run_id, batch, more)
            self._store.set_status(self.run_id, state.name)
        except LeaseLostError:
            raise
        except TrackingError as error:
            path = store_pending(self._store, pending)
            raise TrackingError(
                f"{error}. The run's results are kept in {path}. Start the study again to write them"
            ) from error
        self._hand_back(state)
        self._write_config()
        return self._record

    def _hand_back(self, state: RunState) -> None:
        """End the lease, after the run: if this process dies in between, the run shows the outcome of the point."""
        if state is RunState.FINISHED:
            self._lease.finish(self._record.mean_loss)
        elif state is RunState.FAILED:
            self._lease.fail(self._record.reason)
        else:
            self._lease.release(self._record.reason)

    def _check_attempt(self, run: "Run") -> None:
        """Refuse to write if another process resumed the run, as can happen while this one hangs.

        Raises:
            LeaseLostError: the run is at another attempt, or finished.
        """
        attempt = int(read_number(run, "attempt")) or 1
        if attempt != self.claim.attempt or run.info.status == "FINISHED":
            raise LeaseLostError(
                f"run {self.run_id} of point {self.point.key} was taken over by {tag(run, 'owner')} (attempt "
                f"{attempt}, and this is {self.claim.attempt}). The results of this process are not written"
            )

    def _write_config(self) -> None:
        """Write the settings into the run's artifacts; if that fails, again at the end. The plan has them as well."""
        if not self._config_yaml:
            return
        try:
            self._store.write_text(self.run_id, self._config_yaml, "config.yaml")
        except TrackingError as error:
            _log.warning("the settings of run %s can't be written for now: %s", self.run_id, error)
        else:
            self._config_yaml = ""

    def _flush(self) -> None:
        if self._lease.is_lost:
            return
        try:
            self._store.write(self.run_id, RunUpdate(metrics=tuple(self._curve)))
        except TrackingError as error:
            _log.warning("the loss curve waits in memory: %s", error)
            self._wait_s = _RETRY_AFTER_S
        else:
            self._curve.clear()
            self._wait_s = max(_FLUSH_EVERY_S, _FLUSH_SHARE * (time.monotonic() - self._began))
        self._flushed = time.monotonic()

    def _new_entries(self, metrics: Mapping[str, float]) -> tuple[tuple[str, float, int, int], ...]:
        """Return metrics that are not written yet. A metric that is written twice shows two values."""
        new = {key: value for key, value in metrics.items() if key not in self._metrics}
        self._metrics |= set(new)
        at = now_ms()
        return tuple((key, value, at, 0) for key, value in new.items())

    def _read_back(self) -> None:
        run = self._store.run(self.run_id)
        self._params = dict(run.data.params)
        self._metrics = set(run.data.metrics) - {CURVE}
        self._has_inputs = run.inputs is not None and bool(run.inputs.dataset_inputs)
        written = self._store.history(self.run_id, CURVE) if CURVE in run.data.metrics else []
        self.logged_tokens = max((step for step, *_ in written), default=0)

    def _note(self) -> str:
        state = f"{self._record.state}{f': {self._record.reason}' if self._record.reason else ''}"
        why = f"Chosen by the sampler, {self.claim.why.sentence}" if self.claim.why is not None else ""
        return point_note(self.point, self._record.skills, state=state, more=why)


class AnalysisWriter:
    """A run of a fit, a report or a tuning, in the study's second experiment. A context manager like ``RunWriter``."""

    def __init__(self, store: Store, run_id: str, experiment_id: str) -> None:
        self.run_id = run_id
        self.experiment_id = experiment_id
        self._store = store

    def __enter__(self) -> "AnalysisWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        state, reason = RunState.FINISHED, ""
        if error is not None:
            state = RunState.FAILED if isinstance(error, Exception) else RunState.KILLED
            reason = f"{type(error).__name__}: {error}"[:_REASON_LIMIT]
        try:
            self._store.write(self.run_id, RunUpdate(tags={f"{TAG}state": str(state), f"{TAG}reason": reason}))
            self._store.set_status(self.run_id, state.name)
        except TrackingError as second:
            if error is None:
                raise
            error.add_note(f"and the run could not be marked: {second}")

    def log(
        self,
        *,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        note: str = "",
        step: int = 0,
    ) -> None:
        """Write numbers (of a ``step``), params, tags (as ``skillscale.*``) and the markdown that the UI shows."""
        at = now_ms()
        full_tags = {f"{TAG}{key}": value for key, value in (tags or {}).items()}
        if note:
            full_tags[NOTE] = note
        points = tuple((key, float(value), at, step) for key, value in (metrics or {}).items())
        self._store.write(self.run_id, RunUpdate(metrics=points, params=dict(params or {}), tags=full_tags))

    def link(self, text: str, name: str) -> str:
        """Return a link in markdown to a file of this run."""
        return link(text, run_path(self.experiment_id, self.run_id, name))

    def image(self, text: str, name: str) -> str:
        """Return a picture in markdown from a file of this run."""
        return image(text, self.run_id, name)

    def file(self, name: str, content: str | bytes) -> None:
        """Write a figure, table or page; ``name`` may hold folders, as in ``figures/isoflop.svg``."""
        if isinstance(content, str):
            self._store.write_text(self.run_id, content, name)
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            path.write_bytes(content)
            parent = Path(name).parent.as_posix()
            self._store.write_file(self.run_id, path, "" if parent == "." else parent)

    def register(
        self, name: str, document: str, *, note: str, tags: Mapping[str, str] | None = None, runs: Iterable[str] = ()
    ) -> str:
        """Register fitted laws as a new version of a model; return ``models:/NAME/VERSION``.

        Args:
            name: name of the model.
            document: the laws as JSON text.
            note: markdown for the UI, which a link to this run follows.
            tags: tags of the version (as ``skillscale.*``).
            runs: ids of the fitted runs, which get the address as a tag.

        Raises:
            TrackingError: the store failed, or takes no models.
        """
        from skillscale.tracking.model_registry import register_law

        note += f"\n\nMade by {link('this run', run_path(self.experiment_id, self.run_id))}."
        full_tags = {f"{TAG}{key}": value for key, value in (tags or {}).items()}
        address = register_law(self._store, self.run_id, name, document, note=note, tags=full_tags)
        for run_id in (self.run_id, *runs):
            self._store.write(run_id, RunUpdate(tags={f"{TAG}law": address}))
        return address

    def used(self, data: Iterable[DataSet]) -> None:
        """Name the data of the analysis."""
        self._store.write_inputs(self.run_id, data)

    def json(self, name: str, value: object) -> None:
        """Write plain values as a JSON file."""
        self.file(name, json.dumps(value, indent=2))
