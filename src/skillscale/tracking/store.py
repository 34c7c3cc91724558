"""The door to MLflow: one store, opened once. Every failure is a ``TrackingError`` with its cure.

``mlflow`` is imported when a store is opened, not with this module. Its import takes a second, writes
``~/.config/mlflow/telemetry.json`` and sets environment variables.
"""

import getpass
import json
import logging
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

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
from skillscale.tracking.new_store import make_sqlite_store
from skillscale.tracking.sql_reader import Row, RunFilter, Tables

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

_RUNS_PER_CALL = 10_000  # pages are offsets: a run that leaves the filter between two would hide another
_METRICS_PER_CALL = 800  # MLflow takes 1000 entities a call
_INPUT_TRIES = 5
_READERS = 8
_ALREADY_THERE = ("UniqueViolation", "UNIQUE constraint", "Duplicate entry")
_TEXTS_PER_CALL = 90  # and 100 params or tags
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunUpdate:
    """Values to write to a run at once: metrics as (key, value, time in ms, step), params, tags."""

    metrics: tuple[tuple[str, float, int, int], ...] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


def now_ms() -> int:
    """Return the time as MLflow counts it, ms since the epoch."""
    return int(time.time() * 1000)


class Store:
    """One tracking store, used only with explicit ids of runs and experiments."""

    def __init__(self, uri: str, cache: Path, client: "MlflowClient") -> None:
        self.uri = uri
        self.cache = cache
        self._client = client
        self._lock = file_lock(uri, cache)
        self._tables = None if uri.startswith(("http", "databricks")) else Tables(uri)

    @classmethod
    def open(cls, uri: str, cache: Path) -> "Store":
        """Connect, and create the schema of a new store.

        Raises:
            TrackingError: unreachable, not writable, or of another version of MLflow.
        """
        check_database(uri)
        from mlflow.tracking import MlflowClient

        if uri.startswith("sqlite:"):
            with reaching(uri):
                if is_current(uri):
                    return cls(uri, cache, MlflowClient(uri))
                # Two processes that create the schema at once break it for ever
                with lock_file(file_lock(uri, cache)):
                    make_sqlite_store(uri)
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
        """Keep out every other process of this machine that uses the store. Locks may be nested."""
        with lock_file(self._lock):
            yield

    @contextmanager
    def exclusive(self, work: str) -> Iterator[None]:
        """Keep out every other process of this machine that does the same work; refuse at once instead of waiting.

        Raises:
            TrackingError: another process does this work.
        """
        lock = FileLock(self.cache / "locks" / f"{digest([self.uri, work])}.lock", timeout=0)
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout as error:
            raise TrackingError(f"another process is at {work} already. Wait until it is done") from error
        try:
            yield
        finally:
            lock.release()

    def find_experiment(self, name: str) -> tuple[str, dict[str, str]] | None:
        """Return the id and tags of an experiment, or None.

        Raises:
            TrackingError: the experiment was deleted, which MLflow can undo.
        """
        with reaching(self.uri):
            experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            return None
        if experiment.lifecycle_stage != "active":
            raise TrackingError(
                f"experiment {name!r} was deleted. Restore it with `mlflow experiments restore --experiment-id "
                f"{experiment.experiment_id}`, or give the study another name"
            )
        return experiment.experiment_id, dict(experiment.tags)

    def experiments(self, filter_string: str) -> list[tuple[str, str, dict[str, str]]]:
        """Return id, name and tags of the experiments that match."""
        experiments: list[tuple[str, str, dict[str, str]]] = []
        token: str | None = None
        with reaching(self.uri):
            while True:
                page = self._client.search_experiments(filter_string=filter_string, page_token=token)
                experiments += [(item.experiment_id, item.name, dict(item.tags)) for item in page]
                if not (token := page.token):
                    return experiments

    def create_experiment(self, name: str) -> str:
        """Make an experiment and return its id; if another process was quicker, the id of that one.

        The artifacts of a sqlite store are next to its file.
        """
        from mlflow.exceptions import MlflowException

        with reaching(self.uri):
            try:
                return str(self._client.create_experiment(name, artifact_location=self._artifacts(name)))
            except MlflowException:
                experiment = self._client.get_experiment_by_name(name)
                if experiment is None:
                    raise
                return str(experiment.experiment_id)

    def tag_experiment(self, experiment_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of an experiment."""
        with reaching(self.uri):
            for key, value in tags.items():
                self._client.set_experiment_tag(experiment_id, key, value)

    def create_run(self, experiment_id: str, name: str, tags: Mapping[str, str]) -> str:
        """Make a run, which is RUNNING, and return its id."""
        with reaching(self.uri):
            return str(self._client.create_run(experiment_id, run_name=name, tags=dict(tags)).info.run_id)

    def run(self, run_id: str) -> "Run":
        """Return a run in its present state."""
        with reaching(self.uri):
            return self._client.get_run(run_id)

    def find_run(self, run_id: str) -> "Run | None":
        """Return a run, or None if this store has no run of that id."""
        from mlflow.exceptions import MlflowException

        with reaching(self.uri):
            try:
                return self._client.get_run(run_id)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return None
                raise

    def search(self, experiment_ids: list[str], filter_string: str = "") -> "list[Run]":
        """Return all runs that match, oldest first."""
        runs: list[Run] = []
        token: str | None = None
        order = ["attributes.start_time ASC"]
        with reaching(self.uri):
            while True:
                page = self._client.search_runs(
                    experiment_ids, filter_string, max_results=_RUNS_PER_CALL, order_by=order, page_token=token
                )
                runs += page
                if not (token := page.token):
                    return runs

    def read(self, experiment_id: str, run_filter: RunFilter | None = None) -> "Iterator[Run | Row]":
        """Return the runs that pass a filter, oldest first, without the names of their data sets.

        They come from the tables of a database whose schema was tested, page by page; else from MLflow's search.
        """
        run_filter = run_filter or RunFilter()
        with reaching(self.uri):
            tables = self._tables if self._tables is not None and self._tables.is_supported() else None
        if tables is None:
            yield from self.search([experiment_id], run_filter.filter_string)
            return
        pages = tables.pages(experiment_id, run_filter)
        while True:
            with reaching(self.uri):
                page = next(pages, None)
            if page is None:
                return
            yield from page

    def gather_statistics(self) -> None:
        """Gather the statistics that make MLflow's sorting of runs quick on sqlite. No result needs them."""
        if self._tables is None or not self.uri.startswith("sqlite:"):
            return
        try:
            with reaching(self.uri):
                self._tables.analyse()
        except TrackingError as error:
            _log.warning("sorting runs in the MLflow UI may be slow: %s", error)

    def write(self, run_id: str, batch: RunUpdate) -> None:
        """Write an update in as few calls as MLflow's limits allow."""
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(*metric) for metric in batch.metrics]
        params = [Param(*param) for param in batch.params.items()]
        tags = [RunTag(*item) for item in batch.tags.items()]
        with reaching(self.uri):
            while metrics or params or tags:
                self._client.log_batch(
                    run_id, metrics[:_METRICS_PER_CALL], params[:_TEXTS_PER_CALL], tags[:_TEXTS_PER_CALL]
                )
                metrics, params, tags = metrics[_METRICS_PER_CALL:], params[_TEXTS_PER_CALL:], tags[_TEXTS_PER_CALL:]

    def write_inputs(self, run_id: str, data: Iterable[DataSet]) -> None:
        """Name the data sets that went into a run."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        # As MetaDataset(CodeDatasetSource(...)) makes it: MLflow refuses a scheme of source that it lacks
        inputs = [
            DatasetInput(
                Dataset(
                    name=item.name,
                    digest=item.digest[:36],
                    source_type="code",
                    source=json.dumps({"tags": {f"{TAG}source": item.source}}),
                ),
                [InputTag("mlflow.data.context", item.role)],
            )
            for item in data
        ]
        for attempt in range(_INPUT_TRIES):
            try:
                with reaching(self.uri):
                    self._client.log_inputs(run_id, inputs)
            except TrackingError as error:
                # If two runs name a new data set at once, PostgreSQL refuses one; its next try finds the data set
                if attempt + 1 == _INPUT_TRIES or not any(words in str(error) for words in _ALREADY_THERE):
                    raise
                time.sleep(0.1 * (attempt + 1))
            else:
                return

    def set_status(self, run_id: str, status: str) -> None:
        """Set a run RUNNING again, or end it with a final status."""
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
            return self._download(run_id, name)

    def _download(self, run_id: str, name: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            return Path(self._client.download_artifacts(run_id, name, folder)).read_text(encoding="utf-8")

    def read_texts(self, places: Mapping[str, str], name: str) -> dict[str, str | TrackingError]:
        """Read the text file of a name from the artifacts of many finished runs, or why it can't be read.

        A file of a server is kept in the cache: a finished run does not change.

        Args:
            places: addresses of the runs' artifacts, by id of the run.
            name: name of the file.
        """
        if not places:
            return {}
        with reaching(self.uri), ThreadPoolExecutor(_READERS) as pool:
            texts = pool.map(self._read_file_of, places, places.values(), [name] * len(places))
            return dict(zip(places, texts, strict=True))

    def _read_file_of(self, run_id: str, place: str, name: str) -> str | TrackingError:
        copy = self.cache / "artifacts" / digest(self.uri) / run_id / name
        paths = self._local_files(place, name)
        for path in paths or [copy]:
            with suppress(OSError, UnicodeDecodeError):
                return path.read_text(encoding="utf-8")
        if paths:
            return TrackingError(f"{paths[0]} is missing or can't be read. Restore it")
        try:
            text = self._download(run_id, name)
        except Exception as error:  # the clients of artifact stores raise what they like
            return TrackingError(str(error))
        with suppress(OSError):
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(text, encoding="utf-8")
        return text

    def _local_files(self, place: str, name: str) -> list[Path]:
        """Return where a file of artifacts is on this machine: as written, or next to a database that was moved."""
        if not place.startswith(("file:", "/")):
            return []
        folder = Path(url2pathname(urlsplit(place).path)) if place.startswith("file:") else Path(place)
        moved = [sqlite_path(self.uri).parent.joinpath(*folder.parts[-4:])] if self.uri.startswith("sqlite:") else []
        return [path / name for path in (folder, *moved)]

    def history(self, run_id: str, key: str) -> list[tuple[int, float, int]]:
        """Return (step, value, ms since the epoch) of a metric by step; of a step that was written twice, the last."""
        with reaching(self.uri):
            written = self._client.get_metric_history(run_id, key)
        last = {metric.step: metric for metric in sorted(written, key=lambda metric: metric.timestamp)}
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
