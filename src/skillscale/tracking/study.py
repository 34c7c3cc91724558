"""A study in the registry: its plan, the queue of its points, and its runs read back."""

import getpass
import json
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from skillscale.errors import InputError, LeaseLostError, TrackingError
from skillscale.point import DesignPoint
from skillscale.record import (
    CURVE,
    TAG,
    ProposalReason,
    RunRecord,
    RunState,
    format_budget,
    format_run_name,
    read_record,
)
from skillscale.tracking.owner import current_owner, is_alive
from skillscale.tracking.queue import (
    MAX_DEATHS,
    Lease,
    PointQueue,
    PriorOutcome,
    QueueItem,
    lock_queue,
    worker_death_reason,
)
from skillscale.tracking.run_writer import AnalysisWriter, Claim, RunWriter
from skillscale.tracking.sql_reader import Row, RunFilter
from skillscale.tracking.store import RunUpdate, Store, now_ms, tag
from skillscale.tracking.ui import NOTE, analyses_view, link, runs_path, runs_view

if TYPE_CHECKING:
    from mlflow.entities import Run

CHUNK = 4000  # MLflow takes tags of 5000 characters on old servers, 8000 on new ones
_POINTS_PER_TAG = 25
_DATA_FILE = "data.json"
_CLOCK_SLACK_MS = 30_000  # runs end by the clocks of several machines, and a write may wait for another
_ALL_AGAIN_S = 300.0  # a clock may be further behind than that: then all finished runs are read again
_ALL_AGAIN_TIMES = 20  # and never for more than a twentieth of the time
_WHY = f"{TAG}why."  # and the key of a point
_SAMPLER = f"{TAG}sampler"
_QUEUE = f"{TAG}queue"
_DESCRIBED = f"{TAG}described"  # when the study was last described, in ms
_POINT_RUNS = f"tags.`{TAG}kind` = 'point'"


@dataclass(frozen=True, kw_only=True)
class StudyProgress:
    """Points of the plan by what became of them; ``waiting`` were not begun. Killed ones are claimed again."""

    planned: int
    finished: int
    running: int
    failed: int
    killed: int
    waiting: int


@dataclass(frozen=True, kw_only=True)
class ClosedRun:
    """A run that was closed because its owner is gone."""

    run_id: str
    run_name: str
    owner: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What the queue knows of a run."""

    run_id: str
    status: str
    owner: str
    attempt: int
    deaths: int
    end_ms: int
    reason: str = ""
    claimed_ms: int = 0


@dataclass(frozen=True, kw_only=True)
class PlannedPoint:
    """A point of the plan and what became of it: ``status`` as MLflow has it, empty where it was not begun.

    ``run_id``, ``owner`` and ``claimed_ms`` are of the run that counts, and of its last attempt.
    """

    point: DesignPoint
    status: str
    reason: str
    end_ms: int
    why: ProposalReason | None
    run_id: str = ""
    owner: str = ""
    claimed_ms: int = 0


class Study:
    """One study: the experiment NAME holds its training runs, NAME-study its plan and analyses.

    Its points are shared out by the plan, under a lock of this machine; or, with a ``storage``, by a queue there, which
    any number of machines share.
    """

    def __init__(
        self, store: Store, *, name: str, experiment_id: str, study_experiment_id: str, plan_id: str,
        storage: str = "", patience_s: float | None = None,
    ) -> None:  # fmt: skip
        self._storage, self._patience_s = storage, patience_s
        self.name = name
        self.experiment_id = experiment_id
        self.study_experiment_id = study_experiment_id
        self.plan_id = plan_id
        self._store = store
        self._opened_ms = now_ms()
        self._finished: dict[str, _Seen] = {}
        self._records: dict[str, RunRecord] = {}
        self._finished_until_ms = 0
        self._all_again_at = 0.0
        self._runs: dict[str, _Seen] = {}
        self._has_mixes = False
        self._found: PointQueue | None = None
        self._is_alone = False

    @property
    def chart_link(self) -> str:
        """Where the UI compares the runs; a bare experiment link opens a page for language-model apps."""
        base = self._store.uri if self._store.uri.startswith("http") else "http://127.0.0.1:5000"
        return f"{base}/{runs_path(self.experiment_id)}"

    @property
    def _queue(self) -> PointQueue | None:
        """The queue in the storage; None where the plan is the queue, as it is until somebody changes it there."""
        return self._find_queue(move=False)

    def _find_queue(self, *, move: bool) -> PointQueue | None:
        """The queue, where points are added or claimed: with ``move`` the plan goes into the storage that was given."""
        if self._found is not None or self._is_alone:
            return self._found
        tags = self._store.run(self.plan_id).data.tags
        if not self._storage:
            if tags.get(_QUEUE):
                raise InputError(
                    f"the queue of study {self.name!r} is in a storage that machines share; set SKILLSCALE_QUEUE to "
                    "its address, or give that with --queue where an entry has it"
                )
            self._is_alone = True
        elif tags.get(_QUEUE) or move:
            queue = PointQueue(self._storage, f"{self.name} {self.plan_id[:8]}", self._patience_s)
            if not tags.get(_QUEUE):
                self._share(queue, tags)
            self._found = queue
        return self._found

    def _share(self, queue: PointQueue, tags: Mapping[str, str]) -> None:
        """Move the plan's points into the queue, with what became of them."""
        whys, runs = _whys(tags), self._look()
        losses = {key: one.mean_loss for key, one in self._records.items()}
        ended = {
            key: PriorOutcome(status=run.status, value=losses.get(key), told=_told_of(run))
            for key, run in runs.items()
            if run.status in ("FINISHED", "FAILED")
        }
        queue.add([(point.key, _job(point, whys.get(point.key))) for point in _points(tags)], ended)
        self._store.write(self.plan_id, RunUpdate(tags={_QUEUE: "storage"}))

    @property
    def link(self) -> str:
        """Markdown links to the table of the runs, their charts, and the study's analyses."""
        return " · ".join((
            link("runs", runs_path(self.experiment_id, charts=False)), link("charts", runs_path(self.experiment_id)),
            link("plan, fits and reports", runs_path(self.study_experiment_id, charts=False)),
        ))  # fmt: skip

    def settings(self) -> dict[str, Any]:
        """What all its runs share, as flat keys."""
        settings: dict[str, Any] = json.loads("".join(unpack(self._store.run(self.plan_id).data.tags, "settings")))
        return settings

    def began_ms(self) -> int:
        """When the study was begun."""
        return int(self._store.run(self.plan_id).info.start_time)

    def described_ms(self) -> int:
        """When the study was last described; 0 for never."""
        return int(self._store.run(self.plan_id).data.tags.get(_DESCRIBED, 0))

    def describe(self, note: str, *, skills: Sequence[str], mixes: Sequence[str] = (), per_byte: bool = False) -> None:
        """Show markdown on the study's run and both experiments, and settle how the UI opens their runs.

        Args:
            note: what is told.
            skills: columns and charts, in this order.
            mixes: categories whose shares vary; columns.
            per_byte: show losses in bits per byte, because tokenizers differ; else in nats per token.
        """
        view = runs_view(skills, mixes, per_byte=per_byte)
        self._store.tag_experiment(self.experiment_id, {NOTE: note, **view})
        self._store.tag_experiment(self.study_experiment_id, {NOTE: note, **analyses_view(skills)})
        self._store.write(self.plan_id, RunUpdate(tags={NOTE: note, _DESCRIBED: str(now_ms())}))

    def points(self) -> tuple[DesignPoint, ...]:
        """The points of the plan, in its order.

        Raises:
            TrackingError: the plan can't be read.
        """
        if self._queue is not None:
            return tuple(_planned_entry(one).point for one in self._queue.entries())
        return _points(self._store.run(self.plan_id).data.tags)

    def planned(self) -> list[PlannedPoint]:
        """The points of the plan with what became of them, in its order; ``why`` is told of those that were sampled."""
        if self._queue is not None:
            return [_planned_entry(one) for one in self._queue.entries()]
        tags = self._store.run(self.plan_id).data.tags
        runs, whys = self._look(), _whys(tags)
        return [_planned(point, runs.get(point.key), whys.get(point.key)) for point in _points(tags)]

    def add_points(self, points: Iterable[DesignPoint], why: Mapping[str, ProposalReason] | None = None) -> int:
        """Append the points that the plan does not hold yet; return how many those were.

        Args:
            points: to train.
            why: the sampler chose them, by their keys.
        """
        if (queue := self._find_queue(move=True)) is not None:
            return queue.add([(point.key, _job(point, (why or {}).get(point.key))) for point in points])
        with self._store.locked():
            tags = self._store.run(self.plan_id).data.tags
            chunks = unpack(tags, "points")
            held = {DesignPoint.from_dict(plain).key for chunk in chunks for plain in json.loads(chunk)}
            new: dict[str, DesignPoint] = {}
            for point in points:
                if point.key not in held:
                    new.setdefault(point.key, point)
            plain = [point.as_dict() for point in new.values()]
            parts = [plain[at : at + _POINTS_PER_TAG] for at in range(0, len(plain), _POINTS_PER_TAG)]
            texts = {part_key("points", len(chunks) + at): json.dumps(part) for at, part in enumerate(parts)}
            reasons = {f"{_WHY}{key}": one.as_text() for key, one in (why or {}).items() if key in new}
            self._store.write(self.plan_id, RunUpdate(tags={**reasons, **texts}))
        return len(new)

    def get_json(self, what: str) -> Any:
        """What ``put_json`` kept with the plan; None if nothing."""
        text = "".join(unpack(self._store.run(self.plan_id).data.tags, what))
        return json.loads(text) if text else None

    def put_json(self, what: str, value: object) -> None:
        """Keep plain values with the plan, in place of those that were kept under this name."""
        old = [key for key in self._store.run(self.plan_id).data.tags if key.startswith(f"{TAG}{what}.")]
        self._store.write(self.plan_id, RunUpdate(tags=dict.fromkeys(old, "") | pack(what, json.dumps(value))))

    @contextmanager
    def sampling_lock(self) -> Iterator[None]:
        """While points are added to the queue by this process alone; workers wait for more of them meanwhile.

        Raises:
            TrackingError: another process does it already: of this machine, or with a storage of any.
        """
        if self._find_queue(move=True) is not None:
            with self._locks.alone(self._choosing, current_owner(), wait=False):
                yield
            return
        with self._store.alone(self._choosing):
            self._store.write(self.plan_id, RunUpdate(tags={_SAMPLER: current_owner()}))
            try:
                yield
            finally:
                self._store.write(self.plan_id, RunUpdate(tags={_SAMPLER: ""}))

    def is_sampling(self) -> bool:
        """Whether a process, living as far as can be known, is adding points to the queue."""
        if self._queue is not None:
            return self._locks.is_locked(self._choosing)
        owner = self._store.run(self.plan_id).data.tags.get(_SAMPLER, "")
        return bool(owner) and is_alive(owner) is not False

    @property
    def _choosing(self) -> str:
        return f"choosing the points of study {self.name!r}"

    @cached_property
    def _locks(self) -> PointQueue:
        return lock_queue(self._storage, self._patience_s)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Shut out whoever changes the plan: of all machines that share the storage, or of this one."""
        if not self._storage:
            with self._store.locked():
                yield
            return
        with self._locks.alone(f"study {self.name!r}", current_owner()):
            yield

    def bind_data(self, data_hash: str, described: str = "") -> None:
        """Bind the study to its prepared data at first, and refuse other data later.

        Args:
            data_hash: names the content of the data.
            described: what the data are, as JSON text; kept with the plan, once.

        Raises:
            InputError: the study was begun on other data or another tokenizer.
        """
        with self._alone():
            plan = self._store.run(self.plan_id)
            stored = tag(plan, "data_hash")
            if not stored:
                self._store.write(self.plan_id, RunUpdate(tags={f"{TAG}data_hash": data_hash}))
            elif stored != data_hash:
                raise InputError(
                    f"study {self.name!r} was begun on other data or another tokenizer: data_hash was {stored}, now "
                    f"{data_hash}; put back the data files, or give another study name with --study.name NAME"
                )
            if described and not tag(plan, "data_described"):
                self._store.write_text(self.plan_id, described, _DATA_FILE)
                self._store.write(self.plan_id, RunUpdate(tags={f"{TAG}data_described": _DATA_FILE}))

    def data_description(self) -> str:
        """What the data are, as ``bind_data`` was told; an empty text if it was not."""
        name = tag(self._store.run(self.plan_id), "data_described")
        return self._store.read_text(self.plan_id, name) if name else ""

    def claim(
        self,
        owner: str = "",
        *,
        retry_failed: bool = False,
        only: str = "",
        sampled_only: bool = False,
        trunk: str = "",
    ) -> RunWriter | None:
        """Take the next point that is not finished and that no living process holds, or None.

        A point whose run was killed, or whose owner is gone, goes on in the same MLflow run. A point that failed
        before this study was opened is tried in a new run with ``retry_failed``. ``only``: the key of the one point
        that is wanted. ``sampled_only``: take only points that the sampler chose. ``trunk``: take points of this name first.
        """
        owner = owner or current_owner()
        if (queue := self._find_queue(move=True)) is not None:
            return self._claim_shared(
                queue, owner, retry_failed=retry_failed, only=only, sampled_only=sampled_only, trunk=trunk
            )
        if not self._finished_until_ms:
            self._look()  # the long reading of a first look, outside the lock
        with self._store.locked():
            planned = self.planned()
            self._has_mixes = len({each.point.mix for each in planned}) > 1
            for each in sorted(planned, key=lambda one: bool(trunk) and one.point.stable_phase != trunk):
                point = each.point
                if (only and point.key != only) or (sampled_only and each.why is None):
                    continue
                run = self._runs.get(point.key) or self._missed(point.key)
                if run is None or (run.status == "FAILED" and retry_failed and run.end_ms < self._opened_ms):
                    return self._create(each, owner)
                lost = run.status == "KILLED" or (run.status == "RUNNING" and is_alive(run.owner) is False)
                if lost and (writer := self._resume(each, run, owner)) is not None:
                    return writer
        return None

    def _claim_shared(
        self, queue: PointQueue, owner: str, *, retry_failed: bool, only: str, sampled_only: bool, trunk: str
    ) -> RunWriter | None:
        """Take the next point that waits in the storage's queue."""
        everything = queue.entries()
        self._has_mixes = len({_planned_entry(one).point.mix for one in everything}) > 1
        entries = _wanted(everything, only=only, sampled_only=sampled_only)
        if failed := [one for one in entries if retry_failed and _failed_before(one, self._opened_ms)]:
            for entry in failed:
                queue.again(entry)
            entries = _wanted(queue.entries(), only=only, sampled_only=sampled_only)
        for entry in sorted(entries, key=lambda one: bool(trunk) and _planned_entry(one).point.stable_phase != trunk):
            ticket = queue.take(entry, owner) if entry.status == "WAITING" else None
            if ticket is not None and (writer := self._hold(entry, ticket, owner)) is not None:
                return writer
        return None

    def _hold(self, entry: QueueItem, ticket: Lease, owner: str) -> RunWriter | None:
        """The run of a point that is held: a new one, or the one begun. None where it turns out to be finished."""
        try:
            runs = self._store.search([self.experiment_id], f"{_POINT_RUNS} and tags.`{TAG}point_key` = '{entry.key}'")
            if done := [run for run in runs if run.info.status == "FINISHED"]:  # its holder died between run and queue
                ticket.finish(self._read(done[0]).mean_loss)
                return None
            begun = [_seen(run) for run in runs if run.info.status != "FAILED"]
            planned = _planned_entry(entry)
            if begun:
                attempt = max(begun[-1].attempt, entry.attempt - 1)  # of the queue some came to no run
                last = replace(begun[-1], status="KILLED", attempt=attempt, deaths=entry.deaths)
                writer = self._resume(planned, last, owner, ticket)
            else:
                writer = self._create(planned, owner, ticket)
        except BaseException:
            ticket.release("its run could not be begun")
            raise
        assert writer is not None, "the queue counts deaths"
        try:
            ticket.name_run(writer.run_id)
        except LeaseLostError as error:
            if not begun:
                self._close(writer.run_id, RunState.KILLED, str(error), 0)
            return None
        return writer

    def is_under_way(self, *, sampled_only: bool = False) -> bool:
        """Whether points of the storage's queue wait or are held, so that more may be left by those who are lost."""
        entries = [] if self._queue is None else _wanted(self._queue.entries(), sampled_only=sampled_only)
        return any(one.status in ("WAITING", "RUNNING") for one in entries)

    def progress(self) -> StudyProgress:
        """How far the plan is."""
        found = [each.status for each in self.planned()]
        return StudyProgress(
            planned=len(found),
            finished=found.count("FINISHED"),
            running=found.count("RUNNING"),
            failed=found.count("FAILED"),
            killed=found.count("KILLED"),
            waiting=found.count(""),
        )

    def owners(self, *, alive: bool | None) -> dict[str, str]:
        """Owners of running points by run id: those that live (True), are gone (False), or can't be known (None).

        With a storage those that run live: their hearts beat, or they are given up.
        """
        if self._queue is not None:
            held = [one for one in self._queue.entries() if one.status == "RUNNING"] if alive else []
            return {one.run_id or one.key: one.owner for one in held}
        running = self._store.search([self.experiment_id], f"{_POINT_RUNS} and attributes.status = 'RUNNING'")
        return {run.info.run_id: tag(run, "owner") for run in running if is_alive(tag(run, "owner")) is alive}

    def close_stale(self, *, stale_after_s: float | None = None) -> list[ClosedRun]:
        """Close the runs whose owner is gone as killed, and say which.

        Args:
            stale_after_s: also close runs of other machines that were claimed longer ago; without it they are left
                alone, because nobody here can know whether they live. With a storage their hearts tell.
        """
        reaped = [] if self._queue is None else self._reap_shared(self._queue)
        with self._store.locked():
            running = "attributes.status = 'RUNNING'"
            experiments = [self.study_experiment_id] if self._queue else [self.experiment_id, self.study_experiment_id]
            for run in self._store.search(experiments, running):
                owner = tag(run, "owner")
                alive = is_alive(owner) if owner else True
                claimed = float(tag(run, "claimed") or run.info.start_time / 1000)
                old = alive is None and stale_after_s is not None and time.time() - claimed > stale_after_s
                if alive is not False and not old:
                    continue
                reason = f"owner {owner} is gone" if alive is False else f"owner {owner} is not heard of"
                deaths = int(tag(run, "deaths") or 0) + 1
                self._close(run.info.run_id, RunState.KILLED, reason, deaths)
                reaped.append(ClosedRun(run_id=run.info.run_id, run_name=run.info.run_name, owner=owner, reason=reason))
        return reaped

    def _reap_shared(self, queue: PointQueue) -> list[ClosedRun]:
        """Watch the hearts of those that run for as long as the patience, then close what is left."""
        until = time.monotonic() + queue.patience_s * 1.1
        while time.monotonic() < until and any(_is_elsewhere(one) for one in queue.entries()):
            time.sleep(min(1.0, queue.patience_s / 10))
        return self.close_lost()

    def close_lost(self) -> list[ClosedRun]:
        """Close the runs of a storage's queue that nobody holds: they are killed, or failed as their point is."""
        if self._queue is None:
            return []
        runs = self._store.search([self.experiment_id], f"{_POINT_RUNS} and attributes.status = 'RUNNING'")
        entries = {one.key: one for one in self._queue.entries()} if runs else {}
        reaped = []
        for run in runs:
            entry = entries.get(tag(run, "point_key"))
            if entry is None or (entry.status == "RUNNING" and entry.run_id in ("", run.info.run_id)):
                continue
            if self._store.run(run.info.run_id).info.status != "RUNNING":  # it ended while we looked
                continue
            owner = tag(run, "owner")
            reason = entry.reason if entry.status == "FAILED" else f"owner {owner} is gone"
            self._close(
                run.info.run_id, RunState.FAILED if entry.status == "FAILED" else RunState.KILLED, reason, entry.deaths
            )
            reaped.append(ClosedRun(run_id=run.info.run_id, run_name=run.info.run_name, owner=owner, reason=reason))
        return reaped

    def records(self) -> list[RunRecord]:
        """Every training run of the study, in order of their beginning; runs that are not ours are left out."""
        return [self._read(run) for run in self._store.read(self.experiment_id, RunFilter(kind="point"))]

    def finished(self) -> list[RunRecord]:
        """The finished training runs, in order of their end; those that were read before are not read again."""
        self._look()
        return list(self._records.values())

    def curve(self, run_id: str) -> list[tuple[int, float]]:
        """Loss curve of a run: (tokens, nats per token)."""
        return [(tokens, loss) for tokens, loss, _ in self._store.history(run_id, CURVE)]

    def analysis(self, kind: str, *, name: str = "", owner: str = "") -> AnalysisWriter:
        """Open a run for a fit, a report or a tuning."""
        tags = {"study": self.name, "kind": kind, "state": str(RunState.RUNNING), "owner": owner or current_owner()}
        tags["claimed"] = f"{time.time():.3f}"
        run_id = self._store.create_run(self.study_experiment_id, name or kind, run_tags(tags))
        return AnalysisWriter(self._store, run_id, self.study_experiment_id)

    def analysis_metrics(self, kind: str, names: Collection[str] = ()) -> list[dict[str, list[tuple[int, float, int]]]]:
        """What the runs of a kind of analysis logged, the oldest first: (step, value, ms since the epoch) by metric.

        Args:
            kind: of analysis.
            names: metrics to read; empty: all.
        """
        runs = self._store.search([self.study_experiment_id], f"tags.`{TAG}kind` = '{kind}'")
        return [
            {one: self._store.history(run.info.run_id, one) for one in run.data.metrics if not names or one in names}
            for run in runs
        ]

    def _create(self, planned: PlannedPoint, owner: str, ticket: Lease | None = None) -> RunWriter:
        point, why = planned.point, planned.why
        name = format_run_name(point, with_mix=self._has_mixes)
        tags = {
            "study": self.name,
            "kind": "point",
            "state": str(RunState.RUNNING),
            "budget": format_budget(point.flops),
            "point_key": point.key,
            "point": json.dumps(point.as_dict()),
            "owner": owner,
            "attempt": "1",
            "deaths": "0",
            "claimed": f"{time.time():.3f}",
            **_told(why),
        }
        run_id = self._store.create_run(self.experiment_id, name, run_tags(tags))
        return RunWriter(self._store, Claim(run_id=run_id, study=self.name, point=point, owner=owner, why=why), ticket)

    def _resume(self, planned: PlannedPoint, run: _Seen, owner: str, ticket: Lease | None = None) -> RunWriter | None:
        """Take over a run; or give it up as failed when its processes keep dying."""
        deaths = run.deaths + (run.status == "RUNNING")
        if deaths >= MAX_DEATHS:
            self._close(run.run_id, RunState.FAILED, worker_death_reason(deaths), deaths)
            return None
        tags = {"owner": owner, "attempt": str(run.attempt + 1), "deaths": str(deaths), "reason": ""}
        tags |= {"state": str(RunState.RUNNING), "claimed": f"{time.time():.3f}"}
        self._store.write(run.run_id, RunUpdate(tags={f"{TAG}{key}": value for key, value in tags.items()}))
        self._store.set_status(run.run_id, "RUNNING")
        claim = Claim(
            run_id=run.run_id, study=self.name, point=planned.point, owner=owner, attempt=run.attempt + 1,
            deaths=deaths, why=planned.why,
        )  # fmt: skip
        return RunWriter(self._store, claim, ticket)

    def _close(self, run_id: str, state: RunState, reason: str, deaths: int) -> None:
        tags = {f"{TAG}state": str(state), f"{TAG}reason": reason, f"{TAG}deaths": str(deaths)}
        self._store.write(run_id, RunUpdate(tags=tags))
        self._store.set_status(run_id, state.name)

    def _look(self) -> dict[str, _Seen]:
        """The run that counts for each point begun: a finished one, else the latest.

        Finished runs stay so, and reading a run costs milliseconds: only those that finished since are read again.
        """
        # In this order: a run that ends between the two readings is then in both, the other way round in neither.
        unfinished = self._store.read(self.experiment_id, RunFilter(kind="point", finished=False, tags_only=True))
        begun = {tag(run, "point_key"): _seen(run) for run in unfinished}
        began = time.monotonic()
        if began >= self._all_again_at:
            self._add_finished(0)
            self._all_again_at = time.monotonic() + max(_ALL_AGAIN_S, _ALL_AGAIN_TIMES * (time.monotonic() - began))
        else:
            self._add_finished(max(0, self._finished_until_ms - _CLOCK_SLACK_MS))
            if self._runs.keys() - begun.keys() - self._finished.keys():
                self._add_finished(0)  # it ended by a clock that is behind
        self._runs = begun | self._finished
        return self._runs

    def _add_finished(self, since_ms: int) -> None:
        """Read the runs that finished from a time on; the records of those that are known are not made again."""
        for run in self._store.read(self.experiment_id, RunFilter(kind="point", finished=True, ended_from_ms=since_ms)):
            key = tag(run, "point_key")
            if key not in self._finished:
                self._records[key] = self._read(run)
            self._finished[key] = _seen(run)
            self._finished_until_ms = max(self._finished_until_ms, run.info.end_time)

    def _missed(self, key: str) -> _Seen | None:
        """The run of a point that was begun and ended, by a clock that is behind, since the last look."""
        runs = self._store.search([self.experiment_id], f"{_POINT_RUNS} and tags.`{TAG}point_key` = '{key}'")
        if runs:
            self._all_again_at = 0.0
        return _seen(next((run for run in runs if run.info.status == "FINISHED"), runs[-1])) if runs else None

    def _read(self, run: "Run | Row") -> RunRecord:
        status = run.info.status
        return read_record(
            run.data.params,
            run.data.metrics,
            run_id=run.info.run_id,
            study=self.name,
            state=RunState.RUNNING if status == "SCHEDULED" else RunState[status],
            reason=tag(run, "reason"),
            point=DesignPoint.from_dict(json.loads(tag(run, "point"))),
            purpose=tag(run, "purpose"),
        )


def run_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags of ours under their full names, with those that fill the UI's columns."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "unknown"
    ours = {f"{TAG}{key}": value for key, value in tags.items()}
    return ours | {"mlflow.user": user, "mlflow.source.name": "skillscale", "mlflow.source.type": "LOCAL"}


def part_key(what: str, at: int) -> str:
    """Tag of one part of a text that is too long for one tag."""
    return f"{TAG}{what}.{at:04d}"


def pack(what: str, text: str) -> dict[str, str]:
    """A long text as tags."""
    return {part_key(what, at): text[first : first + CHUNK] for at, first in enumerate(range(0, len(text), CHUNK))}


def unpack(tags: Mapping[str, str], what: str) -> list[str]:
    """The parts of what was written under ``part_key``, in order."""
    return [tags[key] for key in sorted(key for key in tags if key.startswith(f"{TAG}{what}."))]


def _seen(run: "Run | Row") -> _Seen:
    return _Seen(
        run_id=run.info.run_id,
        status="RUNNING" if run.info.status == "SCHEDULED" else run.info.status,
        owner=tag(run, "owner"),
        attempt=int(tag(run, "attempt") or 1),
        deaths=int(tag(run, "deaths") or 0),
        end_ms=run.info.end_time or 0,
        reason=tag(run, "reason"),
        claimed_ms=round(1000 * float(tag(run, "claimed") or 0)) or run.info.start_time or 0,
    )


def _points(tags: Mapping[str, str]) -> tuple[DesignPoint, ...]:
    return tuple(DesignPoint.from_dict(plain) for chunk in unpack(tags, "points") for plain in json.loads(chunk))


def _whys(tags: Mapping[str, str]) -> dict[str, ProposalReason]:
    """Why points were sampled, by their keys."""
    return {
        key.removeprefix(_WHY): ProposalReason.from_text(text) for key, text in tags.items() if key.startswith(_WHY)
    }


def _planned(point: DesignPoint, run: _Seen | None, why: ProposalReason | None) -> PlannedPoint:
    if run is None:
        return PlannedPoint(point=point, status="", reason="", end_ms=0, why=why)
    return PlannedPoint(
        point=point, status=run.status, reason=run.reason, end_ms=run.end_ms, why=why, run_id=run.run_id,
        owner=run.owner, claimed_ms=run.claimed_ms,
    )  # fmt: skip


def _job(point: DesignPoint, why: ProposalReason | None) -> dict[str, Any]:
    """A point as plain values of a queue."""
    return {"point": point.as_dict(), **({} if why is None else {"why": why.as_text()})}


def _told_of(run: _Seen) -> dict[str, Any]:
    """What an entry of a queue tells of a run that ended."""
    return {
        "owner": run.owner, "run_id": run.run_id, "reason": run.reason, "claimed_ms": run.claimed_ms,
        "ended_ms": run.end_ms,
    }  # fmt: skip


def _planned_entry(entry: QueueItem) -> PlannedPoint:
    status = {"WAITING": "" if entry.attempt == 1 else "KILLED"}.get(entry.status, entry.status)
    why = entry.values.get("why")
    return PlannedPoint(
        point=DesignPoint.from_dict(entry.values["point"]), status=status, reason=entry.reason, end_ms=entry.ended_ms,
        run_id=entry.run_id, owner=entry.owner, claimed_ms=entry.claimed_ms,
        why=None if why is None else ProposalReason.from_text(why),
    )  # fmt: skip


def _wanted(entries: Iterable[QueueItem], *, only: str = "", sampled_only: bool = False) -> list[QueueItem]:
    """Of a queue's entries those of a key, or those that the sampler chose."""
    return [one for one in entries if only in ("", one.key) and not (sampled_only and "why" not in one.values)]


def _failed_before(entry: QueueItem, at_ms: int) -> bool:
    return entry.status == "FAILED" and entry.ended_ms < at_ms


def _is_elsewhere(entry: QueueItem) -> bool:
    """Whether nothing but its heartbeat tells of a holder."""
    return entry.status == "RUNNING" and is_alive(entry.owner) is None


def _told(why: ProposalReason | None) -> dict[str, str]:
    """Tags of a run that the sampler chose."""
    if why is None:
        return {}
    tags = {"why": why.sentence, "purpose": why.purpose, "cost": f"{why.cost:.6g}", "gain": f"{why.mean_narrowing:.4g}"}
    return tags | {"law_weights": json.dumps(json.loads(why.as_text())["laws"])}


def find_plan(store: Store, experiment_id: str) -> "Run | None":
    """The plan of a study: the oldest, should two machines have begun it at once."""
    plans = store.search([experiment_id], f"tags.`{TAG}kind` = 'plan'")
    return plans[0] if plans else None


def missing(name: str, there: list[str]) -> TrackingError:
    """The error for a study that the store does not hold."""
    known = f"it has {', '.join(sorted(there))}" if there else "it has none yet; `skillscale main` makes one"
    return TrackingError(f"the tracking store has no study {name!r}; {known}")
