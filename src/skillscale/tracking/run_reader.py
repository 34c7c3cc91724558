"""The training runs of a study, read back as records; finished runs are read once."""

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skillscale.errors import SkillscaleError, show
from skillscale.formatting import shorten
from skillscale.point import MAX_TOKENS, DesignPoint
from skillscale.record import CURVE, TAG, ProposalReason, RunRecord, RunState, read_record
from skillscale.tracking.metric_files import METRICS_FILE, MetricFiles
from skillscale.tracking.sql_reader import Row, RunFilter
from skillscale.tracking.store import Store, now_ms, tag

if TYPE_CHECKING:
    from mlflow.entities import Run

_CLOCK_SLACK_MS = 30_000  # runs end by the clocks of several machines, and a write may wait for another
_FULL_READ_EVERY_S = 300.0  # a clock may be further behind than that: then all finished runs are read again
_FULL_READ_SHARE = 20  # and never for more than a twentieth of the time
_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError, SkillscaleError)
_POINT_RUNS = f"tags.`{TAG}kind` = 'point'"


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """The state of a run as MLflow has it, with the tags that the queue needs. Times are ms since the epoch."""

    run_id: str
    key: str
    point: DesignPoint
    status: str
    owner: str
    attempt: int
    deaths: int
    end_ms: int
    reason: str = ""
    claimed_ms: int = 0
    why: ProposalReason | None = None


@dataclass(frozen=True, kw_only=True)
class DamagedRun:
    """A run that is no run of the study by its tags, params or metrics, with the reason."""

    run_id: str
    name: str
    reason: str


class RunReader:
    """The training runs of one study. A run that can't be read is excluded, and named in ``damaged``.

    Args:
        store: the tracking store.
        experiment_id: id of the experiment of the runs.
        study: name of the study.
    """

    def __init__(self, store: Store, experiment_id: str, study: str) -> None:
        self._store = store
        self._experiment_id = experiment_id
        self._study = study
        self._records: dict[str, RunRecord] = {}
        self._unfinished: set[str] = set()
        self._newest_end_ms = 0
        self._full_read_at = 0.0
        self._damaged: dict[str, DamagedRun] = {}
        self._names: dict[str, str] = {}
        self._files = MetricFiles(store)

    @property
    def damaged(self) -> tuple[DamagedRun, ...]:
        """Runs that could not be read so far."""
        return tuple(self._damaged.values())

    @property
    def incomplete(self) -> tuple[DamagedRun, ...]:
        """Runs that were read without the metrics of their file, because it could not be read."""
        return tuple(
            DamagedRun(run_id=run_id, name=self._names[run_id], reason=f"its file {METRICS_FILE} can't be read: {why}")
            for run_id, why in self._files.problems.items()
        )

    def records(self) -> list[RunRecord]:
        """Return every training run in order of its beginning, without runs that others put into the experiment."""
        runs = self._readable(self._store.read(self._experiment_id, RunFilter(kind="point")))
        return self._try_records(runs)

    def finished(self) -> list[RunRecord]:
        """Return the finished runs in order of their end, one a point. A run that was read is not read again.

        Reading a run costs milliseconds. A run that another machine's slow clock ended is found when it is no longer
        among the unfinished ones, or by a full read now and then.
        """
        # In this order: a run that ends between the two readings is in both. The other way round it would be in neither
        filter_ = RunFilter(kind="point", finished=False, tags_only=True)
        unfinished = {tag(run, "point_key") for run in self._store.read(self._experiment_id, filter_)}
        began = time.monotonic()
        if began >= self._full_read_at:
            self._read_finished(0)
            wait_s = max(_FULL_READ_EVERY_S, _FULL_READ_SHARE * (time.monotonic() - began))
            self._full_read_at = time.monotonic() + wait_s
        else:
            self._read_finished(max(0, self._newest_end_ms - _CLOCK_SLACK_MS))
            if self._unfinished - unfinished - self._records.keys():
                self._read_finished(0)
        self._unfinished = unfinished
        return list(self._records.values())

    def curve(self, run_id: str) -> list[tuple[int, float]]:
        """Return the loss curve of a run: (tokens, nats per token)."""
        return [(tokens, loss) for tokens, loss, _ in self._store.history(run_id, CURVE)]

    def statuses(self) -> list[RunStatus]:
        """Return the state of every run in order of its beginning."""
        runs = self._store.read(self._experiment_id, RunFilter(kind="point", tags_only=True))
        return [run_status(run) for run in self._readable(runs)]

    def surplus(self) -> tuple[str, ...]:
        """Return the ids of finished runs whose point has an earlier finished run: restored or copied runs."""
        finished = [run for run in self.statuses() if run.status == "FINISHED"]
        first = {run.key: run.run_id for run in reversed(finished)}
        return tuple(run.run_id for run in finished if first[run.key] != run.run_id)

    def of_point(self, key: str) -> "list[Run]":
        """Return the runs of a point in order of their beginning, straight from MLflow."""
        return self._store.search([self._experiment_id], f"{_POINT_RUNS} and tags.`{TAG}point_key` = '{key}'")

    def _readable(self, runs: "Iterable[Run | Row]") -> "Iterator[Run | Row]":
        """Yield the runs whose tags name a point, and keep the others in mind."""
        for run in runs:
            try:
                read_point(run)
            except _UNREADABLE as error:
                text, why = show(shorten(tag(run, "point"), 80)), shorten(str(error), 80)
                self._keep_damaged(run, f"its tag {TAG}point is no point: {text} ({why})")
            else:
                yield run

    def _try_records(self, runs: "Iterable[Run | Row]") -> list[RunRecord]:
        """Return runs as records; keep those in mind that can't be read."""
        records = []
        for run, metrics in self._files.read(runs):
            self._names[run.info.run_id] = _name_of(run)
            try:
                records.append(self._record(run, metrics))
            except _UNREADABLE as error:
                self._keep_damaged(run, f"its params or metrics can't be read: {shorten(str(error), 120)}")
        return records

    def _keep_damaged(self, run: "Run | Row", reason: str) -> None:
        self._damaged[run.info.run_id] = DamagedRun(run_id=run.info.run_id, name=_name_of(run), reason=reason)

    def record(self, run: "Run | Row") -> RunRecord:
        """Return a run as a record."""
        ((_, metrics),) = self._files.read([run])
        self._names[run.info.run_id] = _name_of(run)
        return self._record(run, metrics)

    def _record(self, run: "Run | Row", metrics: Mapping[str, float]) -> RunRecord:
        status = run.info.status
        record = read_record(
            run.data.params,
            metrics,
            run_id=run.info.run_id,
            study=self._study,
            state=RunState.RUNNING if status == "SCHEDULED" else RunState[status],
            reason=tag(run, "reason"),
            point=read_point(run),
            purpose=tag(run, "purpose"),
        )
        _check_record(record, run.data.params)
        return record

    def _read_finished(self, since_ms: int) -> None:
        """Read the runs that finished from a time on; records that are there are not made again."""
        filter_ = RunFilter(kind="point", finished=True, ended_from_ms=since_ms)
        new: dict[str, list[Run | Row]] = {}  # by point, the runs that finished first come first
        for run in self._readable(self._store.read(self._experiment_id, filter_)):
            if tag(run, "point_key") not in self._records:
                new.setdefault(tag(run, "point_key"), []).append(run)
            self._newest_end_ms = max(self._newest_end_ms, min(run.info.end_time or 0, now_ms()))
        keys = {run.info.run_id: key for key, runs in new.items() for run in runs}
        for record in self._try_records(run for runs in new.values() for run in runs):
            self._records.setdefault(keys[record.run_id], record)


def _name_of(run: "Run | Row") -> str:
    return str(run.info.run_name or run.info.run_id)


def _check_record(record: RunRecord, params: Mapping[str, str]) -> None:
    """Refuse a record whose params contradict its point, or whose size or tokens no run has.

    Raises:
        ValueError: with the reason.
    """
    compared = ("n_tokens",) if record.size else ("n_tokens", "n_params")  # a size holds what was built
    for name in compared:
        number = getattr(record.point, name)
        if params.get(name, str(number)) != str(number):
            raise ValueError(f"param {name} is {show(shorten(params[name], 80))}, but its point says {number}")
    if record.size is not None and record.size.n_params_nonembed <= 0:
        raise ValueError(f"param n_params_nonembed is {record.size.n_params_nonembed}")
    for name, use in record.data_use.items():
        if not 0 <= use.tokens <= MAX_TOKENS:
            raise ValueError(f"metric data_tokens/{name} is {use.tokens:.6g}")


def read_point(run: "Run | Row") -> DesignPoint:
    """Return the point of a run by its tag.

    Raises:
        ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError, InputError: the tag is absent
            or damaged, or the key of the point is that of another.
    """
    point = DesignPoint.from_dict(json.loads(tag(run, "point")))
    if tag(run, "point_key") not in ("", point.key):
        raise ValueError("the tag of its key names another point")
    return point


def read_number(run: "Run | Row", key: str) -> float:
    """Return the number in a tag; 0 where there is none, because tags of the queue decide on no loss."""
    try:
        number = float(tag(run, key) or 0)
    except ValueError:
        return 0.0
    return number if math.isfinite(number) else 0.0


def run_status(run: "Run | Row") -> RunStatus:
    """Return the state of a run."""
    return RunStatus(
        run_id=run.info.run_id,
        key=tag(run, "point_key"),
        point=read_point(run),
        status="RUNNING" if run.info.status == "SCHEDULED" else run.info.status,
        owner=tag(run, "owner"),
        attempt=int(read_number(run, "attempt")) or 1,
        deaths=int(read_number(run, "deaths")),
        end_ms=run.info.end_time or 0,
        reason=tag(run, "reason"),
        claimed_ms=round(1000 * read_number(run, "claimed")) or run.info.start_time or 0,
        why=_proposal_reason(run),
    )


def _proposal_reason(run: "Run | Row") -> ProposalReason | None:
    """Return why the sampler chose the point of a run, as far as its tags say; None if it did not."""
    if not tag(run, "purpose"):
        return None
    try:
        laws = {
            str(skill): {str(law): float(weight) for law, weight in weights.items()}
            for skill, weights in json.loads(tag(run, "law_weights") or "{}").items()
        }
    except _UNREADABLE:
        laws = {}
    return ProposalReason(purpose=tag(run, "purpose"), cost=read_number(run, "cost"), laws=laws)
