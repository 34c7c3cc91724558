"""The queue of a study: its points as trials of an Optuna study, which any number of processes and machines share.

A key names a point. It waits as a trial that is WAITING. Whoever turns the trial RUNNING, which the storage lets only
one process do, holds the key under a lease and writes heartbeats. The trial ends COMPLETE (trained), PRUNED (failed for
good) or FAIL (its holder was stopped or lost), and after FAIL another trial of the key waits. Two rules make locks
unnecessary:

- Trials are numbered in the order of their making. Of a key's trials the first that did not FAIL counts. If two
  machines
  add the same key, it is trained once. FAIL is final, so a holder that lost its lease notices.
- No clocks are compared. A heartbeat is a count. If it stays the same for the heartbeat timeout, by the clock of the
  process that looks, its holder is lost. A holder whose process on this machine is gone is lost at once.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from skillscale.errors import LeaseLostError, TrackingError
from skillscale.point import MAX_PARAMS, MAX_TOKENS
from skillscale.tracking.owner import current_owner, is_alive
from skillscale.tracking.queue_storage import QueueAddress, QueueStorage

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, TrialState

HEARTBEAT_TIMEOUT_S = 60.0
HEARTBEATS_PER_TIMEOUT = 6
MAX_DEATHS = 5
_HUNG_S = 3600.0  # without a sign of progress the heartbeats stop: assumption, longer than any step or evaluation
_LEASE_LOST = "its heartbeat was not seen for too long, and the point was given to another process"
_LOCKS = "skillscale-locks"
_LOCK_PATIENCE_S = 600.0  # of 32 processes on a busy machine the last waits for minutes
_LOCK_POLL_S = 0.1
_TIMEOUT_KEY = "patience_s"  # of a study's attributes; as version 0.1 wrote it


@dataclass(frozen=True, kw_only=True)
class QueueItem:
    """The state of a key in the queue.

    ``status``: WAITING, RUNNING, FINISHED or FAILED. ``attempt``: number of times that it was taken before, plus one.
    ``deaths``: number of its holders that were lost. ``ended_ms`` and ``claimed_ms``: times by the clock of its holder.
    """

    key: str
    number: int
    status: str
    values: Mapping[str, Any]
    owner: str = ""
    run_id: str = ""
    reason: str = ""
    attempt: int = 1
    deaths: int = 0
    ended_ms: int = 0
    claimed_ms: int = 0


@dataclass(frozen=True, kw_only=True)
class PriorOutcome:
    """The outcome of a key before it was in this queue.

    ``status``: FINISHED or FAILED. ``value``: the loss that ``Lease.finish`` takes. ``attributes``: other fields of its
    ``QueueItem``.
    """

    status: str
    value: float | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


class PointQueue:
    """The keys of one study in a storage.

    Args:
        storage: Optuna's storage.
        name: name of the Optuna study.
        heartbeat_timeout_s: age of a heartbeat at which its holder is lost, s; None: the value that the study has. The
            last value given holds for all processes.

    Raises:
        TrackingError: the storage does not answer.
    """

    def __init__(self, storage: QueueStorage, name: str, heartbeat_timeout_s: float | None = None) -> None:
        self.name = name
        self._storage = storage
        self._study_id = storage.study_id(name)
        self._heartbeats: dict[int, tuple[str, float]] = {}
        self._items: dict[str, tuple[list[FrozenTrial], QueueItem]] = {}
        self._looked_at = 0.0
        self.heartbeat_timeout_s = self._agree_on_timeout(heartbeat_timeout_s)

    def entries(self) -> list[QueueItem]:
        """Return every key in the order in which they were added. This also gives up holders that are lost."""
        by_key: dict[str, list[FrozenTrial]] = {}
        for trial in self._trials():
            if (key := trial.user_attrs.get("key")) is not None:
                by_key.setdefault(key, []).append(trial)
        items = (self._item(key, trials) for key, trials in by_key.items())
        return [item for item in items if item is not None]

    def _item(self, key: str, trials: "list[FrozenTrial]") -> QueueItem | None:
        """Return the state of a key, from memory where its trials are those of the last look."""
        if (remembered := self._items.get(key)) is not None and remembered[0] == trials:
            return remembered[1]
        current, earlier = _current_trial(trials)
        if current is None:
            self._renew(earlier)
            trials = [trial for trial in self._trials() if trial.user_attrs.get("key") == key]
            current, earlier = _current_trial(trials)
        if current is None:
            return None
        item = _queue_item(key, current, earlier)
        self._items[key] = trials, item
        return item

    def add(
        self,
        jobs: Sequence[tuple[str, Mapping[str, Any]]],
        outcomes: Mapping[str, PriorOutcome] = MappingProxyType({}),
    ) -> int:
        """Append the keys that the queue does not hold; return their number.

        Args:
            jobs: keys and their plain values.
            outcomes: outcomes of the keys that do not wait, by key.
        """
        present = {item.key for item in self.entries()}
        new = {key: values for key, values in jobs if key not in present}
        waiting = PriorOutcome(status="WAITING")
        templates = []
        for key, values in new.items():
            outcome = outcomes.get(key, waiting)
            templates.append(_template({"key": key, **values, **outcome.attributes}, outcome.status, outcome.value))
        self._storage.add_trials(self._study_id, templates)
        return len(new)

    def take(self, item: QueueItem, owner: str) -> "Lease | None":
        """Hold a key that waits; return None where another process was quicker."""
        from optuna.trial import TrialState

        if not self.change_state(item.number, TrialState.RUNNING):
            return None
        return Lease(self, item.number, owner, item.values.get("point", {}))

    def requeue(self, item: QueueItem) -> None:
        """Let a key wait once more that failed, or whose finished run was deleted."""
        self._append(_template({"key": item.key, **item.values, "after": item.number}, "WAITING"))

    @contextmanager
    def lock(self, what: str, owner: str, *, wait: bool = True) -> Iterator["Lease"]:
        """Hold a lock that all machines share, as long as its holder writes heartbeats.

        Args:
            what: name of the work that is locked.
            owner: owner of the lock.
            wait: wait for other holders; else refuse.

        Raises:
            TrackingError: another process holds it.
        """
        with Lease(self, self._append(_template({"lock": what}, "RUNNING")), owner) as lease:
            until = time.monotonic() + _LOCK_PATIENCE_S
            while (first := self._first_holder(what, lease.number)).number != lease.number:
                if not wait or time.monotonic() > until:
                    lease.release("not waited for")
                    raise TrackingError(
                        f"another process is at {what} already ({first.user_attrs.get('owner', 'unknown')}). Wait "
                        f"until it is done, or, if it is gone, for {self.heartbeat_timeout_s:g} s"
                    )
                time.sleep(_LOCK_POLL_S)
            yield lease
            lease.finish(0.0)  # optuna-dashboard opens no study of a database in which no complete trial has a value

    def is_locked(self, what: str) -> bool:
        """Return whether a process holds a lock and is alive, as far as can be known."""
        return bool(self._lock_holders(what))

    def change_state(self, number: int, state: "TrialState", value: float | None = None) -> bool:
        """Change the state of a trial; return False where another process did. A trial that ended stays as it is."""
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            return self._storage.reach(lambda: self._storage.set_state(self._trial_id(number), state, value))
        except UpdateFinishedTrialError:
            return self.state(number) is state

    def state(self, number: int) -> "TrialState":
        """Return the present state of a trial."""
        return self._storage.reach(lambda: self._storage.optuna.get_trial(self._trial_id(number))).state

    def set_attributes(self, number: int, **values: Any) -> None:
        """Write attributes of a trial that is held.

        Raises:
            LeaseLostError: another process holds its key.
        """
        for name, value in values.items():
            self._write(partial(self._set_attribute, number, name, value))

    def set_params(self, number: int, point: Mapping[str, Any]) -> None:
        """Give a held trial its point's numbers as parameters of Optuna's, which optuna-dashboard plots.

        This happens at the end of a trial: every look reads the waiting and running ones of a database in full.

        Raises:
            LeaseLostError: another process holds its key.
        """
        params, distributions = _plotted_params(point)
        for name, value in params.items():
            self._write(partial(self._set_param, number, name, value, distributions[name]))

    def write_heartbeat(self, number: int, count: int) -> None:
        """Write a heartbeat once. The next heartbeat makes up for a failure.

        Raises:
            LeaseLostError: the holder was given up.
            TrackingError: the storage does not answer.
        """
        self._write(lambda: self._storage.write_heartbeat(self._trial_id(number), count), patience_s=0.0)

    def _write(self, write: Callable[[], None], **patience: float) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            self._storage.reach(write, **patience)
        except UpdateFinishedTrialError as error:
            raise LeaseLostError(_LEASE_LOST) from error

    def _trials(self) -> "list[FrozenTrial]":
        """Return all trials by number, after those of lost holders were given up."""
        from optuna.trial import TrialState

        trials = self._storage.trials(self._study_id)
        now = time.monotonic()
        if now - self._looked_at > self.heartbeat_timeout_s / 2:
            self._heartbeats.clear()  # nobody looked for long, or the storage was away for all
        self._looked_at = now
        running = [trial for trial in trials if trial.state is TrialState.RUNNING]
        lost = [trial for trial in running if self._is_lost(trial, now)]
        for trial in lost:
            self.change_state(trial.number, TrialState.FAIL)
        return self._trials() if lost else trials

    def _is_lost(self, trial: "FrozenTrial", now: float) -> bool:
        owner, heartbeat = trial.user_attrs.get("owner", ""), self._storage.read_heartbeat(trial)
        if owner and is_alive(owner) is False:
            return True
        last = self._heartbeats.get(trial.number)
        if last is None or last[0] != heartbeat:
            self._heartbeats[trial.number] = heartbeat, now
            return False
        return now - last[1] > self.heartbeat_timeout_s

    def _renew(self, earlier: "list[FrozenTrial]") -> None:
        """Let a key wait again whose holder was stopped or lost, or let it fail if that happened too often."""
        attributes = earlier[-1].user_attrs
        values = {"key": attributes["key"], **_job_values(attributes)}
        deaths = _count_deaths(earlier)
        if deaths < MAX_DEATHS:
            self._append(_template(values, "WAITING"))
            return
        outcome = {"reason": worker_death_reason(deaths), "ended_ms": int(time.time() * 1000)}
        self._append(_template(values | outcome, "FAILED"))

    def _append(self, template: "FrozenTrial") -> int:
        trial_id = self._storage.add_trials(self._study_id, [template])
        return self._storage.reach(lambda: self._storage.optuna.get_trial(trial_id)).number

    def _set_attribute(self, number: int, name: str, value: Any) -> None:
        self._storage.optuna.set_trial_user_attr(self._trial_id(number), name, value)

    def _set_param(self, number: int, name: str, value: float, distribution: "BaseDistribution") -> None:
        stored = distribution.to_internal_repr(value)
        self._storage.optuna.set_trial_param(self._trial_id(number), name, stored, distribution)

    def _trial_id(self, number: int) -> int:
        return self._storage.optuna.get_trial_id_from_study_id_trial_number(self._study_id, number)

    def _first_holder(self, what: str, number: int) -> "FrozenTrial":
        holders = self._lock_holders(what)
        if number not in [trial.number for trial in holders]:
            raise LeaseLostError(f"this process was away too long to hold {what}. Run the command again")
        return holders[0]

    def _lock_holders(self, what: str) -> "list[FrozenTrial]":
        from optuna.trial import TrialState

        running = [trial for trial in self._trials() if trial.state is TrialState.RUNNING]
        return [trial for trial in running if trial.user_attrs.get("lock") == what]

    def _agree_on_timeout(self, given: float | None) -> float:
        optuna = self._storage.optuna
        stored = self._storage.reach(lambda: optuna.get_study_user_attrs(self._study_id)).get(_TIMEOUT_KEY)
        agreed = float(given or stored or HEARTBEAT_TIMEOUT_S)
        if agreed != stored and (given or stored):
            self._storage.reach(lambda: optuna.set_study_user_attr(self._study_id, _TIMEOUT_KEY, agreed))
        return agreed


class Lease:
    """A key that this process holds: a thread writes its heartbeats until it ends. A context manager.

    Without an end it is released: the key waits again.
    """

    def __init__(
        self, queue: PointQueue, number: int, owner: str, point: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        self.number = number
        self.is_lost = False
        self._queue = queue
        self._point = point
        self._last_sign: float | None = None
        self._ended = threading.Event()
        try:
            queue.set_attributes(number, owner=owner, claimed_ms=int(time.time() * 1000))
        except LeaseLostError:
            self.is_lost = True
        self._thread = threading.Thread(target=self._write_heartbeats, daemon=True, name=f"heartbeat of trial {number}")
        self._thread.start()

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if not self._ended.is_set():
            self.release("left without an end")

    def keep_alive(self) -> None:
        """Record a sign of progress. After the first, an hour without one counts as hung: the heartbeats stop."""
        self._last_sign = time.monotonic()

    def check(self) -> None:
        """Make sure that the key is still held, before work that two processes must not do.

        Raises:
            LeaseLostError: another process holds it.
        """
        from optuna.trial import TrialState

        if not self.is_lost:
            self.is_lost = self._queue.state(self.number) is not TrialState.RUNNING
        if self.is_lost:
            raise LeaseLostError(_LEASE_LOST)

    def set_run(self, run_id: str) -> None:
        """Write which run belongs to the key.

        Raises:
            LeaseLostError: another process holds it.
        """
        self._queue.set_attributes(self.number, run_id=run_id)

    def finish(self, value: float | None = None) -> None:
        """End the key as finished; optuna-dashboard shows ``value``."""
        from optuna.trial import TrialState

        self._end(TrialState.COMPLETE, "", value)

    def fail(self, reason: str) -> None:
        """End the key as failed: it waits again only on request."""
        from optuna.trial import TrialState

        self._end(TrialState.PRUNED, reason)

    def release(self, reason: str) -> None:
        """Let the key wait again. This counts as no death."""
        from optuna.trial import TrialState

        self._end(TrialState.FAIL, reason, released=True)

    def abandon(self) -> None:
        """Stop the heartbeats alone: another process takes the key after the timeout."""
        self._ended.set()

    def _end(self, state: "TrialState", reason: str, value: float | None = None, **attributes: Any) -> None:
        self._ended.set()
        try:
            if state.name == "COMPLETE":
                self._queue.set_params(self.number, self._point)
            self._queue.set_attributes(self.number, reason=reason, ended_ms=int(time.time() * 1000), **attributes)
            self.is_lost = not self._queue.change_state(self.number, state, value)
        except LeaseLostError:
            self.is_lost = True

    def _write_heartbeats(self) -> None:
        count = 0
        while not self._ended.wait(self._queue.heartbeat_timeout_s / HEARTBEATS_PER_TIMEOUT):
            if self._last_sign is not None and time.monotonic() - self._last_sign > _HUNG_S:
                continue
            count += 1
            try:
                self._queue.write_heartbeat(self.number, count)
            except LeaseLostError:
                self.is_lost = self.is_lost or not self._ended.is_set()
                return
            except TrackingError:
                continue  # a storage that is away comes back, or another process gets the point


class Queues:
    """The queues and locks of a tracking store: in its default file, or at an address that the user gave.

    Args:
        default: the default file of the store.
        given: the address that the user gave; None: the default file is used.
        heartbeat_timeout_s: age of a heartbeat at which its holder is lost, s; None: the value that a study has.
    """

    def __init__(
        self, default: QueueAddress, given: QueueAddress | None = None, heartbeat_timeout_s: float | None = None
    ) -> None:
        self.address = given or default
        self._heartbeat_timeout_s = heartbeat_timeout_s
        self.default = self if given is None else Queues(default, None, heartbeat_timeout_s)

    def open(self, name: str) -> PointQueue:
        """Return the queue of this name, which is made where there is none."""
        return PointQueue(self._storage, name, self._heartbeat_timeout_s)

    def has(self, name: str) -> bool:
        """Return whether there is a queue of this name. This makes no file."""
        return self.address.exists and self._storage.has_study(name)

    @contextmanager
    def lock(self, what: str, *, wait: bool = True) -> Iterator[None]:
        """Keep every other process out that shares the queues and locks the same.

        Args:
            what: name of the work that is locked.
            wait: wait for other holders; else refuse.

        Raises:
            TrackingError: another process holds the lock.
        """
        with self._locks.lock(what, current_owner(), wait=wait):
            yield

    def is_locked(self, what: str) -> bool:
        """Return whether a living process holds a lock, as far as can be known. This makes no file."""
        return self.address.exists and self._locks.is_locked(what)

    @cached_property
    def _storage(self) -> QueueStorage:
        return QueueStorage(self.address.url)

    @cached_property
    def _locks(self) -> PointQueue:
        return self.open(_LOCKS)


# Attributes of a trial that are no values of its key; "beat" is the heartbeat in a database
_TRIAL_ATTRIBUTES = ("key", "owner", "beat", "claimed_ms", "run_id", "reason", "ended_ms", "released", "after")
_STATES = {"WAITING": "WAITING", "RUNNING": "RUNNING", "FINISHED": "COMPLETE", "FAILED": "PRUNED"}
_STATUS = {state: status for status, state in _STATES.items()}


def _job_values(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if name not in _TRIAL_ATTRIBUTES}


def _template(attributes: Mapping[str, Any], status: str, value: float | None = None) -> "FrozenTrial":
    from optuna.trial import TrialState, create_trial

    params, distributions = _plotted_params(attributes.get("point", {}) if status == "FINISHED" else {})
    template = create_trial(
        state=TrialState.WAITING, user_attrs=dict(attributes), params=params, distributions=distributions
    )
    template.state = TrialState[_STATES[status]]  # create_trial refuses a complete trial without a value
    template.values = None if value is None else [value]
    return template


def _current_trial(trials: "list[FrozenTrial]") -> "tuple[FrozenTrial | None, list[FrozenTrial]]":
    """Return the trial of a key that counts, and the trials before it that came to nothing."""
    requeued = {trial.user_attrs.get("after") for trial in trials}
    earlier: list[FrozenTrial] = []
    for trial in trials:
        if trial.state.name == "FAIL":
            earlier.append(trial)
        elif trial.state.is_finished() and trial.number in requeued:
            earlier.clear()
        else:
            return trial, earlier
    return None, earlier


def _count_deaths(earlier: "list[FrozenTrial]") -> int:
    return sum(not trial.user_attrs.get("released", False) for trial in earlier)


def _queue_item(key: str, trial: "FrozenTrial", earlier: "list[FrozenTrial]") -> QueueItem:
    attributes = trial.user_attrs
    return QueueItem(
        key=key,
        number=trial.number,
        status=_STATUS[trial.state.name],
        values=MappingProxyType(_job_values(attributes)),
        owner=attributes.get("owner", ""),
        run_id=attributes.get("run_id", ""),
        reason=attributes.get("reason", ""),
        attempt=len(earlier) + 1,
        deaths=_count_deaths(earlier),
        ended_ms=int(attributes.get("ended_ms", 0)),
        claimed_ms=int(attributes.get("claimed_ms", 0)),
    )


def _plotted_params(point: Mapping[str, Any]) -> "tuple[dict[str, Any], dict[str, BaseDistribution]]":
    """Return a point's numbers as parameters of Optuna's; nothing here reads them.

    The bounds hold for all points that are possible: within a study a name must keep its distribution.
    """
    from optuna.distributions import FloatDistribution, IntDistribution

    shares = {f"mix/{category}": share for category, share in point.get("mix", {}).items()}
    largest = {"n_params": MAX_PARAMS, "n_tokens": MAX_TOKENS}
    sizes = {name: point[name] for name in largest if name in point}
    distributions: dict[str, BaseDistribution] = {name: IntDistribution(1, largest[name], log=True) for name in sizes}
    return {**sizes, **shares}, distributions | {name: FloatDistribution(0.0, 1.0) for name in shares}


def worker_death_reason(deaths: int) -> str:
    """Return why a point failed whose workers keep dying."""
    return f"its process died {deaths} times (out of memory?); try again with --retry_failed"
