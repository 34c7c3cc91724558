"""A study in the tracking store: its plan, the queue of its points, its runs, and what claims a point."""

import json
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skillscale.errors import LeaseLostError, TrackingError
from skillscale.point import DesignPoint
from skillscale.record import TAG, ProposalReason, RunState, format_budget, format_run_name
from skillscale.tracking.owner import current_owner, is_alive
from skillscale.tracking.plan_notes import PlanNotes
from skillscale.tracking.queue import MAX_DEATHS, Lease, QueueItem, Queues
from skillscale.tracking.run_reader import RunReader, RunStatus, read_number, run_status
from skillscale.tracking.run_writer import AnalysisWriter, Claim, RunWriter
from skillscale.tracking.store import RunUpdate, Store, run_tags, tag
from skillscale.tracking.study_queue import PlannedPoint, StudyQueue, planned_point, select
from skillscale.tracking.ui import NOTE, analyses_view, link, runs_path, runs_view

if TYPE_CHECKING:
    from mlflow.entities import Run

_RUNNING = "attributes.status = 'RUNNING'"


@dataclass(frozen=True, kw_only=True)
class StudyProgress:
    """Numbers of points by state. ``killed`` points were begun and wait again; ``waiting`` ones were not begun."""

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


class Study:
    """One study: the experiment NAME holds its training runs, NAME-study its plan and analyses.

    Args:
        store: the tracking store.
        name: name of the study.
        experiment_id: id of the experiment of its training runs.
        study_experiment_id: id of the experiment of its plan and analyses.
        plan_id: id of the plan's run.
        queues: where the points of the study wait.

    Attributes:
        notes: the study's settings and the values that commands keep with it.
        runs: the study's training runs, to be read.
    """

    def __init__(
        self, store: Store, *, name: str, experiment_id: str, study_experiment_id: str, plan_id: str, queues: Queues,
    ) -> None:  # fmt: skip
        self.name = name
        self.experiment_id = experiment_id
        self.study_experiment_id = study_experiment_id
        self.plan_id = plan_id
        self.notes = PlanNotes(store, plan_id)
        self.runs = RunReader(store, experiment_id, name)
        self._store = store
        self._queues = queues
        self._queue = StudyQueue(name, queues=queues, notes=self.notes, runs=self.runs)
        self._opened_ms = int(time.time() * 1000)
        self._given_up: set[int] = set()  # numbers of the points whose runs were closed

    @property
    def chart_link(self) -> str:
        """The page of the UI that compares the runs; a bare experiment link opens a page for language-model apps."""
        base = self._store.uri if self._store.uri.startswith("http") else "http://127.0.0.1:5000"
        return f"{base}/{runs_path(self.experiment_id)}"

    @property
    def link(self) -> str:
        """Markdown links to the table of the runs, their charts, and the study's analyses."""
        return " · ".join((
            link("runs", runs_path(self.experiment_id, charts=False)), link("charts", runs_path(self.experiment_id)),
            link("fits and plans", runs_path(self.study_experiment_id, charts=False)),
        ))  # fmt: skip

    @property
    def runs_path(self) -> str:
        """The path in the UI to the table of the runs."""
        return runs_path(self.experiment_id, charts=False)

    def describe(self, note: str, *, skills: Sequence[str], mixes: Sequence[str] = (), per_byte: bool = False) -> None:
        """Show markdown on the plan and both experiments, and set the columns and charts with which the UI opens them.

        Args:
            note: the markdown.
            skills: skills with columns and charts, in this order.
            mixes: categories whose shares vary; columns.
            per_byte: show losses in bits per byte, because tokenizers differ; else in nats per token.
        """
        view = runs_view(skills, mixes, per_byte=per_byte)
        self._store.tag_experiment(self.experiment_id, {NOTE: note, **view})
        self._store.tag_experiment(self.study_experiment_id, {NOTE: note, **analyses_view(skills)})
        self.notes.set_description(note)

    def points(self) -> tuple[DesignPoint, ...]:
        """Return the points of the study, in the order in which they were added.

        Raises:
            TrackingError: the queue can't be read.
        """
        return tuple(planned.point for planned in self.planned())

    def planned(self) -> list[PlannedPoint]:
        """Return the points with their states, in the order in which they were added."""
        return self._queue.planned()

    def add_points(self, points: Iterable[DesignPoint], why: Mapping[str, ProposalReason] | None = None) -> int:
        """Append the points that the study does not hold; return their number.

        Args:
            points: points to train.
            why: the sampler's reasons, by the key of a point.

        Raises:
            InputError: the study is of version 0.1, or its queue can't be reached from here.
        """
        return self._queue.add(points, why)

    def progress(self) -> StudyProgress:
        """Return how many points are in each state."""
        items = self._queue.items()
        statuses = [item.status for item in items]
        killed = sum(item.status == "WAITING" and item.attempt > 1 for item in items)
        return StudyProgress(
            planned=len(items),
            finished=statuses.count("FINISHED"),
            running=statuses.count("RUNNING"),
            failed=statuses.count("FAILED"),
            killed=killed,
            waiting=statuses.count("WAITING") - killed,
        )

    def holders(self) -> dict[str, str]:
        """Return the owners of running points by run id. They are alive, as far as can be known."""
        running = [item for item in self._queue.items() if item.status == "RUNNING"]
        return {item.run_id or item.key: item.owner for item in running}

    def is_under_way(self, *, sampled_only: bool = False) -> bool:
        """Return whether points wait or are held: of those that are held, some may be lost and wait again."""
        items = select(self._queue.items(), sampled_only=sampled_only)
        return any(item.status in ("WAITING", "RUNNING") for item in items)

    @contextmanager
    def sampling_lock(self) -> Iterator[None]:
        """Let this process alone choose points; workers wait for more of them meanwhile.

        Raises:
            TrackingError: another process is choosing points.
        """
        with self._queues.lock(self._sampling, wait=False):
            yield

    def is_sampling(self) -> bool:
        """Return whether a process is choosing points, and is alive as far as can be known."""
        return self._queues.is_locked(self._sampling)

    @property
    def _sampling(self) -> str:
        return f"choosing the points of study {self.name!r}"

    def bind_data(self, data_hash: str, description: str = "") -> None:
        """Bind the study to its prepared data at first, and refuse other data later.

        Args:
            data_hash: name of the data by their content.
            description: JSON text about the data, which is written once.

        Raises:
            InputError: the study was begun on other data or another tokenizer.
        """
        with self._queues.lock(f"study {self.name!r}"):
            self.notes.bind_data(self.name, data_hash, description)

    def claim(
        self, owner: str = "", *, retry_failed: bool = False, only: str = "", sampled_only: bool = False,
        trunk: str = "",
    ) -> RunWriter | None:  # fmt: skip
        """Take the next point that waits; return its run, or None if no point waits.

        A point whose run was killed, or whose owner is gone, goes on in the same MLflow run.

        Args:
            owner: owner of the run; empty: this process.
            retry_failed: train the points again that failed before this study was opened, in new runs.
            only: key of the one point to take.
            sampled_only: take only points that the sampler chose.
            trunk: name of the stable phase whose points come first.
        """
        owner = owner or current_owner()
        queue = self._queue.open()
        if retry_failed:
            self._queue.requeue_failed(self._opened_ms, only=only, sampled_only=sampled_only)
        self._close_given_up()
        for item in self._queue.waiting(only=only, sampled_only=sampled_only, trunk=trunk):
            lease = queue.take(item, owner)
            if lease is not None and (writer := self._open_run(item, lease, owner)) is not None:
                return writer
        return None

    def _close_given_up(self) -> None:
        """Close the runs of points that failed because their workers keep dying."""
        items = self._queue.items()
        given_up = {item.number for item in items if item.status == "FAILED" and item.deaths >= MAX_DEATHS}
        if given_up - self._given_up:
            self.close_lost()
            self._given_up = given_up

    def _open_run(self, item: QueueItem, lease: Lease, owner: str) -> RunWriter | None:
        """Return the run of a point that is held, new or resumed; None if the point turns out to be finished."""
        try:
            runs = self.runs.of_point(item.key)
            # Its last holder died after it finished the run, and before it ended the lease
            if finished := [run for run in runs if run.info.status == "FINISHED"]:
                lease.finish(self.runs.record(finished[0]).mean_loss)
                return None
            unfinished = [run_status(run) for run in runs if run.info.status != "FAILED"]
            planned = planned_point(item)
            if unfinished:
                writer = self._resume_run(planned, unfinished[-1], item, lease, owner)
            else:
                writer = self._create_run(planned, lease, owner)
        except BaseException:
            lease.release("its run could not be begun")
            raise
        try:
            lease.set_run(writer.run_id)
        except LeaseLostError as error:
            if not unfinished:
                self._close(writer.run_id, RunState.KILLED, str(error), 0)
            return None
        return writer

    def _create_run(self, planned: PlannedPoint, lease: Lease, owner: str) -> RunWriter:
        point, why = planned.point, planned.why
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
            **_reason_tags(why),
        }
        name = format_run_name(point, with_mix=self._queue.has_mixes())
        run_id = self._store.create_run(self.experiment_id, name, run_tags(tags))
        return RunWriter(self._store, Claim(run_id=run_id, study=self.name, point=point, owner=owner, why=why), lease)

    def _resume_run(
        self, planned: PlannedPoint, run: RunStatus, item: QueueItem, lease: Lease, owner: str
    ) -> RunWriter:
        attempt = max(run.attempt, item.attempt - 1) + 1  # some attempts of the queue came to no run
        tags = {"owner": owner, "attempt": str(attempt), "deaths": str(item.deaths), "reason": ""}
        tags |= {"state": str(RunState.RUNNING), "claimed": f"{time.time():.3f}"}
        self._store.write(run.run_id, RunUpdate(tags={f"{TAG}{key}": value for key, value in tags.items()}))
        self._store.set_status(run.run_id, "RUNNING")
        claim = Claim(
            run_id=run.run_id, study=self.name, point=planned.point, owner=owner, attempt=attempt,
            deaths=item.deaths, why=planned.why,
        )  # fmt: skip
        return RunWriter(self._store, claim, lease)

    def close_stale(self, *, stale_after_s: float | None = None) -> list[ClosedRun]:
        """Close the runs whose owner is gone, after a wait for the heartbeats of owners on other machines.

        Args:
            stale_after_s: age at which a run of another machine counts as lost that no queue has: an analysis, or a run
                of version 0.1, s; None: such runs stay open, because nobody here can know whether their owner is alive.
        """
        self._await_heartbeats()
        closed = self.close_lost()
        experiments = [self.experiment_id, self.study_experiment_id]
        queued = {item.key for item in self._queue.items()}
        for run in self._store.search(experiments, _RUNNING):
            owner, is_queued = tag(run, "owner"), tag(run, "point_key") in queued
            reason = "" if is_queued or not owner else _stale_reason(run, owner, stale_after_s)
            if reason:
                closed.append(self._close_lost_run(run, RunState.KILLED, reason, int(read_number(run, "deaths")) + 1))
        return closed

    def close_lost(self) -> list[ClosedRun]:
        """Close the runs of points that nobody holds: as failed if the point failed, else as killed."""
        runs = self._store.search([self.experiment_id], f"tags.`{TAG}kind` = 'point' and {_RUNNING}")
        items = {item.key: item for item in self._queue.items()} if runs else {}
        closed = []
        for run in runs:
            item = items.get(tag(run, "point_key"))
            if item is None or (item.status == "RUNNING" and item.run_id in ("", run.info.run_id)):
                continue
            if self._store.run(run.info.run_id).info.status != "RUNNING":  # it ended during the look at the queue
                continue
            has_failed = item.status == "FAILED"
            reason = item.reason if has_failed else f"owner {tag(run, 'owner')} is gone"
            state = RunState.FAILED if has_failed else RunState.KILLED
            closed.append(self._close_lost_run(run, state, reason, item.deaths))
        return closed

    def _await_heartbeats(self) -> None:
        """Look at the queue for as long as the heartbeat timeout, if some holders are on other machines."""
        if not any(_is_elsewhere(item) for item in self._queue.items()):
            return
        timeout_s = self._queue.open().heartbeat_timeout_s
        until = time.monotonic() + 1.1 * timeout_s
        while time.monotonic() < until and any(_is_elsewhere(item) for item in self._queue.items()):
            time.sleep(min(1.0, timeout_s / 10))

    def _close_lost_run(self, run: "Run", state: RunState, reason: str, deaths: int) -> ClosedRun:
        self._close(run.info.run_id, state, reason, deaths)
        return ClosedRun(
            run_id=run.info.run_id, run_name=run.info.run_name, owner=tag(run, "owner"), reason=reason
        )  # fmt: skip

    def _close(self, run_id: str, state: RunState, reason: str, deaths: int) -> None:
        tags = {f"{TAG}state": str(state), f"{TAG}reason": reason, f"{TAG}deaths": str(deaths)}
        self._store.write(run_id, RunUpdate(tags=tags))
        self._store.set_status(run_id, state.name)

    def analysis(self, kind: str, *, name: str = "", owner: str = "") -> AnalysisWriter:
        """Open a run for a fit, a report or a tuning; close those that a process which was killed left open."""
        self.close_lost()
        close_dead_analyses(self._store, self.study_experiment_id)
        tags = {"study": self.name, "kind": kind, "state": str(RunState.RUNNING), "owner": owner or current_owner()}
        tags["claimed"] = f"{time.time():.3f}"
        run_id = self._store.create_run(self.study_experiment_id, name or kind, run_tags(tags))
        return AnalysisWriter(self._store, run_id, self.study_experiment_id)

    def analysis_metrics(self, kind: str, names: Collection[str] = ()) -> list[dict[str, list[tuple[int, float, int]]]]:
        """Return what the runs of a kind of analysis logged, the oldest first: (step, value, ms) by metric.

        Args:
            kind: kind of analysis.
            names: metrics to read; empty: all.
        """
        runs = self._store.search([self.study_experiment_id], f"tags.`{TAG}kind` = '{kind}'")
        return [
            {
                metric: self._store.history(run.info.run_id, metric)
                for metric in run.data.metrics
                if not names or metric in names
            }
            for run in runs
        ]


def close_dead_analyses(store: Store, experiment_id: str) -> list[ClosedRun]:
    """Mark the analyses of an experiment as killed whose process on this machine is gone; return them."""
    closed = []
    for run in store.search([experiment_id], _RUNNING):
        owner = tag(run, "owner")
        if owner and is_alive(owner) is False:
            reason = f"owner {owner} is gone"
            store.write(run.info.run_id, RunUpdate(tags={f"{TAG}state": str(RunState.KILLED), f"{TAG}reason": reason}))
            store.set_status(run.info.run_id, RunState.KILLED.name)
            closed.append(
                ClosedRun(run_id=run.info.run_id, run_name=run.info.run_name, owner=owner, reason=reason)
            )  # fmt: skip
    return closed


def _stale_reason(run: "Run", owner: str, stale_after_s: float | None) -> str:
    """Return why a run that no queue has is closed; empty if it may be alive."""
    alive = is_alive(owner)
    if alive is False:
        return f"owner {owner} is gone"
    claimed_s = read_number(run, "claimed") or (run.info.start_time or 0) / 1000
    is_old = stale_after_s is not None and time.time() - claimed_s > stale_after_s
    return f"owner {owner} is not heard of" if alive is None and is_old else ""


def _is_elsewhere(item: QueueItem) -> bool:
    """Return whether the heartbeat alone shows that a holder is alive."""
    return item.status == "RUNNING" and is_alive(item.owner) is None


def _reason_tags(why: ProposalReason | None) -> dict[str, str]:
    """Return the tags of a run that the sampler chose."""
    if why is None:
        return {}
    tags = {"why": why.sentence, "purpose": why.purpose, "cost": f"{why.cost:.6g}", "gain": f"{why.mean_narrowing:.4g}"}
    return tags | {"law_weights": json.dumps(json.loads(why.as_text())["laws"])}


def missing_study_error(name: str, present: Sequence[str]) -> TrackingError:
    """Return the error for a study that the store does not hold, or holds without its plan."""
    if name in present:
        return TrackingError(
            f"study {name!r} has lost its plan: no run of experiment {name}-study has the tag {TAG}kind = plan. Was it "
            "edited or deleted? Restore it in MLflow"
        )
    names = f"It has {', '.join(sorted(present))}" if present else "It has none: `skillscale main` makes one"
    return TrackingError(f"the tracking store has no study {name!r}. {names}")
