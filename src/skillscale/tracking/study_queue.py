"""The points of a study and the state of each, in the queue that the study's plan names."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from skillscale.errors import InputError
from skillscale.point import DesignPoint, Mix
from skillscale.record import ProposalReason
from skillscale.tracking.plan_notes import PlanNotes
from skillscale.tracking.queue import PointQueue, PriorOutcome, QueueItem, Queues
from skillscale.tracking.queue_storage import QueueAddress
from skillscale.tracking.run_reader import RunReader, RunStatus

# Where the queue of a study is, as its plan says
_DEFAULT_FILE = "file"
_GIVEN_ADDRESS = "storage"


@dataclass(frozen=True, kw_only=True)
class PlannedPoint:
    """A point of a study and its state: ``status`` as MLflow has it, empty if the point waits for its first worker.

    ``run_id``, ``owner`` and ``claimed_ms`` belong to its present run and the last attempt. ``why``: the sampler's
    reason; None if the sampler did not choose the point. Times are ms since the epoch.
    """

    point: DesignPoint
    status: str
    reason: str
    end_ms: int
    why: ProposalReason | None
    run_id: str = ""
    owner: str = ""
    claimed_ms: int = 0


class StudyQueue:
    """The queue of one study, opened when it is needed.

    Args:
        study: name of the study.
        queues: where the queue is by now.
        notes: the study's plan, which names the place of the queue.
        runs: the study's runs, from which a lost queue is filled again.
    """

    def __init__(self, study: str, *, queues: Queues, notes: PlanNotes, runs: RunReader) -> None:
        self._study = study
        self._name = f"{study} {notes.plan_id[:8]}"
        self._queues = queues
        self._notes = notes
        self._runs = runs
        self._queue: PointQueue | None = None
        self._unmoved: PointQueue | None = None  # in the default file, while an address is given
        self._planned: dict[str, tuple[QueueItem, PlannedPoint]] = {}
        self._trunks: dict[str, str] = {}
        self._last_items: list[QueueItem] = []

    def planned(self) -> list[PlannedPoint]:
        """Return the points with their states, in the order in which they were added."""
        return [self._planned_point(item) for item in self.items()]

    def items(self) -> list[QueueItem]:
        """Return the state of every point; nothing if the study has no queue."""
        queue = self._find()
        self._last_items = [] if queue is None else queue.entries()
        return self._last_items

    def add(self, points: Iterable[DesignPoint], why: Mapping[str, ProposalReason] | None = None) -> int:
        """Append the points that the queue does not hold; return their number.

        A finished point whose run was deleted in MLflow waits again.
        """
        queue, reasons = self.open(), why or {}
        self._requeue_deleted(queue)
        return queue.add([(point.key, _job(point, reasons.get(point.key))) for point in points])

    def waiting(self, *, only: str = "", sampled_only: bool = False, trunk: str = "") -> list[QueueItem]:
        """Return the points that wait, in the order in which to take them.

        Args:
            only: key of the one point to take.
            sampled_only: take only points that the sampler chose.
            trunk: name of the stable phase whose points come first.
        """
        items = select(self.items(), only=only, sampled_only=sampled_only)
        waiting = [item for item in items if item.status == "WAITING"]
        return sorted(waiting, key=lambda item: self._trunk(item) != trunk) if trunk else waiting

    def requeue_failed(self, before_ms: int, *, only: str = "", sampled_only: bool = False) -> None:
        """Let the points wait again that failed before a time, ms since the epoch."""
        for item in select(self.items(), only=only, sampled_only=sampled_only):
            if item.status == "FAILED" and item.ended_ms < before_ms:
                self.open().requeue(item)

    def has_mixes(self) -> bool:
        """Return whether the points have several mixes, as of the last look at the queue."""
        shares = [item.values["point"]["mix"] for item in self._last_items]
        different = [mix for mix in shares if mix != shares[0]]  # ten thousand are compared within milliseconds
        return any(Mix(mix) != Mix(shares[0]) for mix in different)

    def _find(self) -> PointQueue | None:
        """Return the queue for reading; None if there is none. This makes and moves nothing.

        Raises:
            InputError: the queue is at an address that was not given.
        """
        if self._queue is None and self._unmoved is None and (place := self._notes.queue_place()):
            self._check_address(place)
            queues = self._queues.default if place == _DEFAULT_FILE else self._queues
            if not queues.has(self._name):
                self._check_file(queues.address)
                return None
            queue = queues.open(self._name)
            if queues is self._queues:
                self._queue = queue
            else:
                self._unmoved = queue
        return self._queue or self._unmoved

    def open(self) -> PointQueue:
        """Return the queue for changes: made, moved to the address that was given, or filled again from the runs.

        Raises:
            InputError: the study is of version 0.1, or its queue can't be reached from here.
        """
        if self._queue is None:
            place = self._notes.queue_place()
            if not place:
                self._notes.check_trainable(self._study)
            self._check_address(place)
            self._queue = self._open(place)
        return self._queue

    def _open(self, place: str) -> PointQueue:
        address = self._queues.address
        if place == _DEFAULT_FILE and address.is_given:
            return self._move()
        is_lost = not self._queues.has(self._name)
        if place == _DEFAULT_FILE and is_lost:
            self._check_file(address)
        queue = self._queues.open(self._name)
        if is_lost:
            self._fill(queue)
        if not place:
            self._notes.set_queue_place(_GIVEN_ADDRESS if address.is_given else _DEFAULT_FILE)
        return queue

    def _check_address(self, place: str) -> None:
        if place == _GIVEN_ADDRESS and not self._queues.address.is_given:
            raise InputError(
                f"the queue of study {self._study!r} is at an address that machines share. Set SKILLSCALE_QUEUE to "
                "it, or give it with --queue"
            )

    def _check_file(self, address: QueueAddress) -> None:
        """Refuse to go on without a default file that is on another machine."""
        if not address.is_given and not address.is_portable:
            raise InputError(
                f"the queue of study {self._study!r} is a file of another machine or cache folder: there is no "
                f"{address.url}. Go on there, or give all machines one address with --queue"
            )

    def _fill(self, queue: PointQueue) -> None:
        """Put the points of all runs into a new queue, with their outcomes."""
        latest: dict[str, RunStatus] = {}
        for run in self._runs.statuses():
            if run.key not in latest or latest[run.key].status != "FINISHED":
                latest[run.key] = run
        if not latest:
            return
        losses = {record.point.key: record.mean_loss for record in self._runs.finished()}
        outcomes = {
            key: PriorOutcome(status=run.status, value=losses.get(key), attributes=_outcome_attributes(run))
            for key, run in latest.items()
            if run.status in ("FINISHED", "FAILED")
        }
        queue.add([(key, _job(run.point, run.why)) for key, run in latest.items()], outcomes)

    def _move(self) -> PointQueue:
        """Move the points from the default file to the address that was given.

        Raises:
            InputError: a worker holds a point of the default file.
        """
        queue = self._queues.open(self._name)
        default = self._queues.default
        items = default.open(self._name).entries() if default.has(self._name) else []
        if holders := sorted({item.owner for item in items if item.status == "RUNNING"}):
            raise InputError(
                f"points of study {self._study!r} are being trained by {', '.join(holders)}, and its queue can't move "
                "to --queue. Wait until they end, or stop them"
            )
        losses = {record.point.key: record.mean_loss for record in self._runs.finished()} if items else {}
        outcomes = {
            item.key: PriorOutcome(
                status=item.status, value=losses.get(item.key), attributes=_outcome_attributes(item)
            )
            for item in items
            if item.status in ("FINISHED", "FAILED")
        }  # fmt: skip
        queue.add([(item.key, item.values) for item in items], outcomes)
        self._fill(queue)
        self._notes.set_queue_place(_GIVEN_ADDRESS)
        return queue

    def _requeue_deleted(self, queue: PointQueue) -> None:
        finished = [item for item in queue.entries() if item.status == "FINISHED"]
        if not finished:
            return
        present = {record.point.key for record in self._runs.finished()}
        for item in finished:
            if item.key not in present and not any(
                run.info.status == "FINISHED" for run in self._runs.of_point(item.key)
            ):
                queue.requeue(item)

    def _planned_point(self, item: QueueItem) -> PlannedPoint:
        before = self._planned.get(item.key)
        if before is not None and before[0] is item:
            return before[1]
        planned = planned_point(item, None if before is None else before[1].point)
        self._planned[item.key] = item, planned
        return planned

    def _trunk(self, item: QueueItem) -> str:
        if item.key not in self._trunks:
            self._trunks[item.key] = self._planned_point(item).point.stable_phase
        return self._trunks[item.key]


def planned_point(item: QueueItem, point: DesignPoint | None = None) -> PlannedPoint:
    """Return an item of a queue as a point with its state; ``point``: the item's point, if it was read before."""
    status = item.status
    if status == "WAITING":
        status = "" if item.attempt == 1 else "KILLED"
    why = item.values.get("why")
    return PlannedPoint(
        point=point or DesignPoint.from_dict(item.values["point"]), status=status, reason=item.reason,
        end_ms=item.ended_ms, run_id=item.run_id, owner=item.owner, claimed_ms=item.claimed_ms,
        why=None if why is None else ProposalReason.from_text(why),
    )  # fmt: skip


def select(items: Iterable[QueueItem], *, only: str = "", sampled_only: bool = False) -> list[QueueItem]:
    """Return the items of one key, or those that the sampler chose; by default all."""
    return [item for item in items if only in ("", item.key) and not (sampled_only and "why" not in item.values)]


def _job(point: DesignPoint, why: ProposalReason | None) -> dict[str, Any]:
    """Return a point as plain values of a queue."""
    return {"point": point.as_dict(), **({} if why is None else {"why": why.as_text()})}


def _outcome_attributes(source: RunStatus | QueueItem) -> dict[str, Any]:
    ended_ms = source.end_ms if isinstance(source, RunStatus) else source.ended_ms
    return {
        "owner": source.owner, "run_id": source.run_id, "reason": source.reason, "claimed_ms": source.claimed_ms,
        "ended_ms": ended_ms,
    }  # fmt: skip
