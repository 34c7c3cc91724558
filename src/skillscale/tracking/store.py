"""The door to MLflow: one store, opened once, whose every failure is a ``TrackingError`` with its cure.

``mlflow`` is imported when a store is opened, not with this module: its import takes a second, writes
``~/.config/mlflow/telemetry.json`` and sets environment variables.
"""

import getpass
import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from skillscale.errors import TrackingError, without_password
from skillscale.point import digest
from skillscale.record import TAG, DataSet
from skillscale.tracking.connection import (
    FIRST_PATIENCE,
    check_database,
    file_lock,
    is_current,
    lock_file,
    reaching,
    sqlite_path,
)
from skillscale.tracking.sql_reader import Row, RunFilter, Tables

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

_RUNS_PER_CALL = 10_000  # pages are offsets: a run that leaves the filter between two would hide another
_METRICS_PER_CALL = 800  # MLflow takes 1000 entities a call
_INPUT_TRIES = 5
_ALREADY_THERE = ("UniqueViolation", "UNIQUE constraint", "Duplicate entry")
_TEXTS_PER_CALL = 90  # and 100 params or tags
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunUpdate:
    """What is written to a run in one go: metrics as (key, value, time in ms, step), params, tags."""

    metrics: tuple[tuple[str, float, int, int], ...] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


def now_ms() -> int:
    """Milliseconds since the epoch, as MLflow counts time."""
    return int(time.time() * 1000)


class Store:
    """One tracking store, reached only through explicit run and experiment ids."""

    def __init__(self, uri: str, cache: Path, client: "MlflowClient") -> None:
        self.uri = uri
        self.cache = cache
        self._client = client
        self._lock = file_lock(uri, cache)
        self._tables = None if uri.startswith(("http", "databricks")) else Tables(uri)

    @classmethod
    def open(cls, uri: str, cache: Path) -> "Store":
        """Connect, and create the schema if the store is new.

        Raises:
            TrackingError: unreachable, not writable, or of another version of MLflow.
        """
        check_database(uri)
        from mlflow.tracking import MlflowClient

        if uri.startswith("sqlite:"):
            with reaching(uri):
                if is_current(uri):
                    return cls(uri, cache, MlflowClient(uri))
                # Two processes that create the schema at once break it for ever.
                with lock_file(file_lock(uri, cache)):
                    return cls(uri, cache, MlflowClient(uri))
        with reaching(uri, FIRST_PATIENCE):
            client = MlflowClient(uri)
            client.search_experiments(max_results=1)
        return cls(uri, cache, client)

    @property
    def place(self) -> str:
        """The tracking URI as it may be shown."""
        return without_password(self.uri)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Shut out every other process of this machine that uses the store; may be nested."""
        with lock_file(self._lock):
            yield

    @contextmanager
    def alone(self, what: str) -> Iterator[None]:
        """Shut out whoever does the same on this machine, at once and for as long as it takes.

        Raises:
            TrackingError: somebody does it already.
        """
        lock = FileLock(self.cache / "locks" / f"{digest([self.uri, what])}.lock", timeout=0)
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout as error:
            raise TrackingError(f"another process is at {what} already; wait until it is done") from error
        try:
            yield
        finally:
            lock.release()

    def find_experiment(self, name: str) -> tuple[str, dict[str, str]] | None:
        """Id and tags of an experiment, or None.

        Raises:
            TrackingError: it was deleted, which MLflow can undo.
        """
        with reaching(self.uri):
            found = self._client.get_experiment_by_name(name)
        if found is None:
            return None
        if found.lifecycle_stage != "active":
            raise TrackingError(
                f"experiment {name!r} was deleted; restore it with `mlflow experiments restore --experiment-id "
                f"{found.experiment_id}`, or give the study another name"
            )
        return found.experiment_id, dict(found.tags)

    def experiments(self, filter_string: str) -> list[tuple[str, str, dict[str, str]]]:
        """Id, name and tags of the experiments that match."""
        found: list[tuple[str, str, dict[str, str]]] = []
        token: str | None = None
        with reaching(self.uri):
            while True:
                page = self._client.search_experiments(filter_string=filter_string, page_token=token)
                found += [(one.experiment_id, one.name, dict(one.tags)) for one in page]
                if not (token := page.token):
                    return found

    def create_experiment(self, name: str) -> str:
        """A new experiment, its artifacts beside a sqlite file; the one there is if another machine was quicker."""
        from mlflow.exceptions import MlflowException

        with reaching(self.uri):
            try:
                return str(self._client.create_experiment(name, artifact_location=self._artifacts(name)))
            except MlflowException:
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
                return str(found.experiment_id)

    def tag_experiment(self, experiment_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of an experiment."""
        with reaching(self.uri):
            for key, value in tags.items():
                self._client.set_experiment_tag(experiment_id, key, value)

    def create_run(self, experiment_id: str, name: str, tags: Mapping[str, str]) -> str:
        """A new run, RUNNING."""
        with reaching(self.uri):
            return str(self._client.create_run(experiment_id, run_name=name, tags=dict(tags)).info.run_id)

    def run(self, run_id: str) -> "Run":
        """A run as it is now."""
        with reaching(self.uri):
            return self._client.get_run(run_id)

    def find_run(self, run_id: str) -> "Run | None":
        """A run, or None if this store has none of that id."""
        from mlflow.exceptions import MlflowException

        with reaching(self.uri):
            try:
                return self._client.get_run(run_id)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return None
                raise

    def search(self, experiment_ids: list[str], filter_string: str = "") -> "list[Run]":
        """All runs that match, oldest first."""
        found: list[Run] = []
        token: str | None = None
        order = ["attributes.start_time ASC"]
        with reaching(self.uri):
            while True:
                page = self._client.search_runs(
                    experiment_ids, filter_string, max_results=_RUNS_PER_CALL, order_by=order, page_token=token
                )
                found += page
                if not (token := page.token):
                    return found

    def read(self, experiment_id: str, wanted: RunFilter | None = None) -> "Iterator[Run | Row]":
        """The runs that are wanted, without the names of their data sets, oldest first.

        Straight from the tables of a database whose schema is known, a page at a time; else by MLflow's search.
        """
        wanted = wanted or RunFilter()
        with reaching(self.uri):
            tables = self._tables if self._tables is not None and self._tables.is_known() else None
        if tables is None:
            yield from self.search([experiment_id], wanted.filter_string)
            return
        pages = tables.pages(experiment_id, wanted)
        while True:
            with reaching(self.uri):
                page = next(pages, None)
            if page is None:
                return
            yield from page

    def gather_statistics(self) -> None:
        """Make MLflow's sorting of runs quick on sqlite, which gathers no statistics by itself; no result needs it."""
        if self._tables is None or not self.uri.startswith("sqlite:"):
            return
        try:
            with reaching(self.uri):
                self._tables.analyse()
        except TrackingError as error:
            _log.warning("sorting runs in the MLflow UI may be slow: %s", error)

    def write(self, run_id: str, batch: RunUpdate) -> None:
        """Write a batch in as few calls as MLflow's limits allow."""
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(*one) for one in batch.metrics]
        params = [Param(*one) for one in batch.params.items()]
        tags = [RunTag(*one) for one in batch.tags.items()]
        with reaching(self.uri):
            while metrics or params or tags:
                self._client.log_batch(
                    run_id, metrics[:_METRICS_PER_CALL], params[:_TEXTS_PER_CALL], tags[:_TEXTS_PER_CALL]
                )
                metrics, params, tags = metrics[_METRICS_PER_CALL:], params[_TEXTS_PER_CALL:], tags[_TEXTS_PER_CALL:]

    def write_inputs(self, run_id: str, data: Iterable[DataSet]) -> None:
        """Name the data sets that went into a run."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        # What MetaDataset(CodeDatasetSource(...)) makes: a made-up scheme of source is refused by MLflow.
        inputs = [
            DatasetInput(
                Dataset(
                    name=one.name,
                    digest=one.digest[:36],
                    source_type="code",
                    source=json.dumps({"tags": {f"{TAG}source": one.source}}),
                ),
                [InputTag("mlflow.data.context", one.role)],
            )
            for one in data
        ]
        for attempt in range(_INPUT_TRIES):
            try:
                with reaching(self.uri):
                    self._client.log_inputs(run_id, inputs)
            except TrackingError as error:
                # Two runs that name a new data set at once: PostgreSQL refuses one, which finds it there the next time
                if attempt + 1 == _INPUT_TRIES or not any(words in str(error) for words in _ALREADY_THERE):
                    raise
                time.sleep(0.1 * (attempt + 1))
            else:
                return

    def set_status(self, run_id: str, status: str) -> None:
        """RUNNING again, or one of the final statuses with the time."""
        with reaching(self.uri):
            if status == "RUNNING":
                self._client.update_run(run_id, status=status)
            else:
                self._client.set_terminated(run_id, status)

    def write_file(self, run_id: str, path: Path, folder: str = "") -> None:
        """Copy a file into the artifacts of a run."""
        with reaching(self.uri):
            self._client.log_artifact(run_id, str(path), folder or None)

    def write_text(self, run_id: str, text: str, name: str) -> None:
        """Write a text file into the artifacts of a run."""
        with reaching(self.uri):
            self._client.log_text(run_id, text, name)

    def read_text(self, run_id: str, name: str) -> str:
        """Read a text file from the artifacts of a run."""
        with reaching(self.uri):
            return Path(self._client.download_artifacts(run_id, name)).read_text(encoding="utf-8")

    def history(self, run_id: str, key: str) -> list[tuple[int, float, int]]:
        """(step, value, ms since the epoch) of a metric, by step; the last written where a step was written twice."""
        with reaching(self.uri):
            written = self._client.get_metric_history(run_id, key)
        last = {one.step: one for one in sorted(written, key=lambda one: one.timestamp)}
        return [(step, last[step].value, last[step].timestamp) for step in sorted(last)]

    def _artifacts(self, name: str) -> str | None:
        if not self.uri.startswith("sqlite:"):
            return None
        return (sqlite_path(self.uri).parent / "mlruns" / name).as_uri()


def run_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags of skillscale under their full names, with the tags that fill the UI's columns."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "unknown"
    full = {f"{TAG}{key}": value for key, value in tags.items()}
    return full | {"mlflow.user": user, "mlflow.source.name": "skillscale", "mlflow.source.type": "LOCAL"}


def tag(run: Any, key: str) -> str:
    """Return a tag of skillscale, or an empty text."""
    return str(run.data.tags.get(f"{TAG}{key}", ""))
