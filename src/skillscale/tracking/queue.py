"""The door to Optuna's storage: points to train as trials of an Optuna study, which any number of machines share.

A point is a key. It waits as a trial that is WAITING; who turns that RUNNING, which the storage lets only one do, holds
it and writes a heartbeat. The trial ends COMPLETE (trained), PRUNED (failed for good) or FAIL (its holder was stopped
or lost), and then another trial of the key waits. No lock is needed beside the storage, by two rules:

- Trials are numbered in the order in which they were made, and of a key the first that did not FAIL is the one that
  counts. What two machines add at once is trained once, and FAIL is for ever: who was given up finds that out.
- No clocks are compared. A heartbeat is a count, and one that did not change for as long as the patience, by the watch
  of whoever looks on, is that of a lost holder.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock

from skillscale.errors import InputError, LeaseLostError, TrackingError, without_password
from skillscale.point import MAX_PARAMS, MAX_TOKENS
from skillscale.tracking.owner import is_alive

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, TrialState
    from sqlalchemy import Engine

PATIENCE_S = 60.0
MAX_DEATHS = 5
_BEATS = 6  # heartbeats in the patience
_HUNG_S = 3600.0  # without a sign of the work, the heart stops: assumption, longer than any step or evaluation
_FIRST_S = 20.0  # a storage that never answered is not waited for as long as one
_OUTAGE_S = 120.0  # that is started again
_LATE = "its heartbeat was not seen for too long, and the point was given to another"
_LOCKS = "skillscale-locks"
_LOCK_WAIT_S = 120.0
_LOOK_EVERY_S = 0.2
_ONE_BY_ONE = 20  # a trial read by itself takes no longer than so many that are read at once
_FOR_GOOD = ("authentication failed", "does not exist", "no pg_hba.conf entry")
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class QueueItem:
    """A key of the queue as it stands.

    ``status``: WAITING, RUNNING, FINISHED or FAILED. ``attempt``: how often it was taken before, and once more.
    ``deaths``: how many of its holders were lost. ``ended_ms`` and ``claimed_ms``: by the clock of its holder.
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
    """What became of a key before it was in the queue.

    ``status``: FINISHED, FAILED. ``value``: as ``Lease.finish`` has it. ``told``: what else an ``QueueItem`` tells of it.
    """

    status: str
    value: float | None = None
    told: Mapping[str, Any] = field(default_factory=dict)


class PointQueue:
    """The keys of one study in a storage, shared by machines.

    Args:
        url: of the storage, as ``open_storage`` takes it.
        name: of the Optuna study.
        patience_s: age of a heartbeat at which its holder is given up; None: what the study has. The last one given
            holds for all.

    Raises:
        InputError: not a storage.
        TrackingError: it does not answer.
    """

    def __init__(self, url: str, name: str, patience_s: float | None = None) -> None:
        self._url = url
        self._storage = open_storage(url)
        self._guard = _guard(url)
        self._study_id = self._reach(lambda: _study_id(self._storage, name))
        self._beats: dict[int, tuple[int, float]] = {}
        self._known: dict[int, FrozenTrial] = {}
        self._looked = 0.0
        self.name = name
        self.patience_s = self._agreed_patience(patience_s)

    def entries(self) -> list[QueueItem]:
        """Every key in the order in which they were added. Holders that are lost are given up by looking."""
        by_key: dict[str, list[FrozenTrial]] = {}
        for trial in self._trials():
            if (key := trial.user_attrs.get("key")) is not None:
                by_key.setdefault(key, []).append(trial)
        found = []
        for key, trials in by_key.items():
            counts, earlier = _counting(trials)
            if counts is None:
                self._renew(earlier)
                counts, earlier = _counting([one for one in self._trials() if one.user_attrs.get("key") == key])
            if counts is not None:
                found.append(_entry(key, counts, earlier))
        return found

    def add(
        self, jobs: Sequence[tuple[str, Mapping[str, Any]]], ended: Mapping[str, PriorOutcome] = MappingProxyType({})
    ) -> int:
        """Append keys with their plain values, those there are aside; return how many were appended.

        Args:
            jobs: keys and values.
            ended: by key, of those that are not to wait.
        """
        held = {entry.key for entry in self.entries()}
        added = 0
        for key, values in jobs:
            if key not in held:
                held.add(key)
                added += 1
                one = ended.get(key, PriorOutcome(status="WAITING"))
                self._append({"key": key, **values, **one.told}, one.status, one.value)
        return added

    def take(self, entry: QueueItem, owner: str) -> "Lease | None":
        """Hold a key that waits; None where another was quicker."""
        from optuna.trial import TrialState

        if not self.change(entry.number, TrialState.RUNNING):
            return None
        return Lease(self, entry.number, owner, entry.values.get("point", {}))

    def again(self, entry: QueueItem) -> None:
        """Let a key that failed wait once more."""
        self._append({"key": entry.key, **entry.values, "after": entry.number}, "WAITING")

    @contextmanager
    def alone(self, what: str, owner: str, *, wait: bool = True) -> Iterator["Lease"]:
        """Hold a lock that all machines share, for as long as its holder's heart beats.

        Args:
            what: is locked.
            owner: of the lock.
            wait: for those who have it; else refuse.

        Raises:
            TrackingError: another holds it.
        """
        with Lease(self, self._append({"lock": what}), owner) as ticket:
            until = time.monotonic() + _LOCK_WAIT_S
            while (first := self._first_holder(what, ticket.number)).number != ticket.number:
                if not wait or time.monotonic() > until:
                    ticket.release("not waited for")
                    raise TrackingError(
                        f"another process is at {what} already ({first.user_attrs.get('owner', 'unknown')}); wait "
                        f"until it is done, or, if it is gone, for {self.patience_s:g} s"
                    )
                time.sleep(_LOOK_EVERY_S)
            yield ticket
            ticket.finish(0.0)  # on a database optuna-dashboard opens no study in which nothing complete has a value

    def is_locked(self, what: str) -> bool:
        """Whether somebody holds a lock, whose heart beats as far as can be known."""
        return bool(self._holders(what))

    def change(self, number: int, state: "TrialState", value: float | None = None) -> bool:
        """Change the state of a trial; False where another did.

        A trial that ended stays as it is. On sqlite Optuna's own change lets two processes take one trial: there a lock
        beside the file guards it.
        """
        from optuna.exceptions import UpdateFinishedTrialError

        def change() -> bool:
            with self._guard:
                return self._storage.set_trial_state_values(self._id(number), state, None if value is None else [value])

        try:
            return self._reach(change)
        except UpdateFinishedTrialError:
            return self.state(number) is state

    def state(self, number: int) -> "TrialState":
        """The state of a trial as it is now."""
        return self._reach(lambda: self._storage.get_trial(self._id(number))).state

    def mark(self, number: int, **values: Any) -> None:
        """Write values to a trial that is held.

        Raises:
            LeaseLostError: it is not any more.
        """
        for name, value in values.items():
            self._tell(partial(self._write, number, name, value))

    def plot(self, number: int, point: Mapping[str, Any]) -> None:
        """Give a trial that is held its point's numbers as parameters of Optuna's, which its dashboard plots.

        Not before it ends: every look reads those that wait or run anew.

        Raises:
            LeaseLostError: it is not held any more.
        """
        params, distributions = _plotted(point)
        for name, value in params.items():
            self._tell(partial(self._write_param, number, name, value, distributions[name]))

    def _tell(self, write: Callable[[], None]) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            self._reach(write)
        except UpdateFinishedTrialError as error:
            raise LeaseLostError(_LATE) from error

    def beat(self, number: int, count: int) -> None:
        """Write a heartbeat, once: what fails is tried at the next.

        Raises:
            LeaseLostError: the holder was given up.
            TrackingError: the storage does not answer.
        """
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            self._reach(partial(self._write, number, "beat", count), 0.0)
        except UpdateFinishedTrialError as error:
            raise LeaseLostError("given up") from error

    def _trials(self) -> "list[FrozenTrial]":
        """All trials by number, after those whose holders are lost were given up."""
        from optuna.trial import TrialState

        trials = self._reach(self._read)
        now = time.monotonic()
        if now - self._looked > self.patience_s / 2:
            self._beats.clear()  # unwatched for long, or the storage was away: others could not write either
        self._looked = now
        lost = [one for one in trials if one.state is TrialState.RUNNING and self._is_lost(one, now)]
        for one in lost:
            self.change(one.number, TrialState.FAIL)
        return self._trials() if lost else trials

    def _read(self) -> "list[FrozenTrial]":
        """Trials by number. Of a database those that wait are read once: they stay as they are until they are taken.

        Optuna itself reads all anew that have not ended, which takes seconds for ten thousand.
        """
        from optuna.storages import RDBStorage
        from optuna.trial import TrialState

        database = getattr(self._storage, "_backend", None)  # behind Optuna's cache
        if isinstance(database, RDBStorage) and self._known:
            running = database.get_all_trials(self._study_id, deepcopy=False, states=(TrialState.RUNNING,))
            self._known |= {one.number: one for one in running if one.number in self._known}
            states = _states(database.engine, self._study_id)
            changed = [at for at, one in self._known.items() if one.state.name != states.get(at)]
            if states.keys() == self._known.keys() and len(changed) * _ONE_BY_ONE < len(states):
                self._known |= {at: self._storage.get_trial(self._id(at)) for at in changed}
                return list(self._known.values())
        every = self._storage.get_all_trials(self._study_id, deepcopy=False)
        self._known = {one.number: one for one in every}
        return every

    def _is_lost(self, trial: "FrozenTrial", now: float) -> bool:
        owner, beat = trial.user_attrs.get("owner", ""), trial.user_attrs.get("beat", 0)
        if owner and is_alive(owner) is False:
            return True
        seen = self._beats.get(trial.number)
        if seen is None or seen[0] != beat:
            self._beats[trial.number] = (beat, now)
            return False
        return now - seen[1] > self.patience_s

    def _renew(self, earlier: "list[FrozenTrial]") -> None:
        """Let a key wait again whose holder was stopped or lost; or let it fail when that happens over and over."""
        values = {name: value for name, value in earlier[-1].user_attrs.items() if name not in _OWN}
        deaths = _deaths(earlier)
        if deaths < MAX_DEATHS:
            self._append({**values, "key": earlier[-1].user_attrs["key"]}, "WAITING")
            return
        ended = {"reason": worker_death_reason(deaths), "ended_ms": int(time.time() * 1000)}
        self._append({**values, "key": earlier[-1].user_attrs["key"], **ended}, "FAILED")

    def _append(self, values: Mapping[str, Any], status: str = "RUNNING", value: float | None = None) -> int:
        from optuna.trial import TrialState, create_trial

        params, distributions = _plotted(values.get("point", {}) if status == "FINISHED" else {})
        template = create_trial(
            state=TrialState.WAITING, user_attrs=dict(values), params=params, distributions=distributions
        )
        template.state = TrialState[_STATES[status]]  # create_trial wants a value of what is complete
        template.values = None if value is None else [value]
        trial_id = self._reach(lambda: self._storage.create_new_trial(self._study_id, template))
        return self._reach(lambda: self._storage.get_trial(trial_id)).number

    def _write(self, number: int, name: str, value: Any) -> None:
        self._storage.set_trial_user_attr(self._id(number), name, value)

    def _write_param(self, number: int, name: str, value: float, distribution: "BaseDistribution") -> None:
        stored = distribution.to_internal_repr(value)
        self._storage.set_trial_param(self._id(number), name, stored, distribution)

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)

    def _first_holder(self, what: str, own: int) -> "FrozenTrial":
        holders = self._holders(what)
        if own not in [one.number for one in holders]:
            raise LeaseLostError(f"this process was away too long to hold {what}; try again")
        return holders[0]

    def _holders(self, what: str) -> "list[FrozenTrial]":
        from optuna.trial import TrialState

        running = [one for one in self._trials() if one.state is TrialState.RUNNING]
        return [one for one in running if one.user_attrs.get("lock") == what]

    def _agreed_patience(self, given: float | None) -> float:
        stored = self._reach(lambda: self._storage.get_study_user_attrs(self._study_id)).get("patience_s")
        agreed = float(given or stored or PATIENCE_S)
        if agreed != stored:
            self._reach(lambda: self._storage.set_study_user_attr(self._study_id, "patience_s", agreed))
        return agreed

    def _reach(self, call: Callable[[], _T], patience_s: float = _OUTAGE_S) -> _T:
        return _reach(self._url, call, patience_s)


class Lease:
    """A key that this process holds: a thread writes its heartbeats until it is ended. A context manager.

    Left without an end, it is released: the key waits again.
    """

    def __init__(
        self, queue: PointQueue, number: int, owner: str, point: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        self.number = number
        self._point = point
        self.is_lost = False
        self._queue = queue
        self._signed: float | None = None
        self._ended = threading.Event()
        try:
            queue.mark(number, owner=owner, beat=1, claimed_ms=int(time.time() * 1000))
        except LeaseLostError:
            self.is_lost = True
        self._heart = threading.Thread(target=self._beat, daemon=True, name=f"heartbeat of trial {number}")
        self._heart.start()

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if not self._ended.is_set():
            self.release("left without an end")

    def sign(self) -> None:
        """A sign of the work. From the first on, an hour without one counts as hung, and the heart stops."""
        self._signed = time.monotonic()

    def check(self) -> None:
        """Make sure that the key is still held, before what must not be done by two.

        Raises:
            LeaseLostError: another has it.
        """
        from optuna.trial import TrialState

        if not self.is_lost:
            self.is_lost = self._queue.state(self.number) is not TrialState.RUNNING
        if self.is_lost:
            raise LeaseLostError(_LATE)

    def name_run(self, run_id: str) -> None:
        """Tell which run belongs to the key.

        Raises:
            LeaseLostError: another has it.
        """
        self._queue.mark(self.number, run_id=run_id)

    def finish(self, value: float | None = None) -> None:
        """The key is done with; ``value`` is shown by Optuna's dashboard."""
        from optuna.trial import TrialState

        self._end(TrialState.COMPLETE, "", value)

    def fail(self, reason: str) -> None:
        """The key failed for good, unless it is asked for again."""
        from optuna.trial import TrialState

        self._end(TrialState.PRUNED, reason)

    def release(self, reason: str) -> None:
        """The key waits again; this counts as no death."""
        from optuna.trial import TrialState

        self._end(TrialState.FAIL, reason, released=True)

    def abandon(self) -> None:
        """Only stop the heart: whoever waits for it takes over after the patience."""
        self._ended.set()

    def _end(self, state: "TrialState", reason: str, value: float | None = None, **marks: Any) -> None:
        self._ended.set()
        try:
            if state.name == "COMPLETE":
                self._queue.plot(self.number, self._point)
            self._queue.mark(self.number, reason=reason, ended_ms=int(time.time() * 1000), **marks)
            self.is_lost = not self._queue.change(self.number, state, value)
        except LeaseLostError:
            self.is_lost = True

    def _beat(self) -> None:
        count = 1
        while not self._ended.wait(self._queue.patience_s / _BEATS):
            if self._signed is not None and time.monotonic() - self._signed > _HUNG_S:
                continue
            count += 1
            try:
                self._queue.beat(self.number, count)
            except LeaseLostError:
                self.is_lost = self.is_lost or not self._ended.is_set()
                return
            except TrackingError:
                continue  # a storage that is away comes back, or the point is given to another


_OWN = ("key", "owner", "beat", "claimed_ms", "run_id", "reason", "ended_ms", "released", "after")
_STATES = {"WAITING": "WAITING", "RUNNING": "RUNNING", "FINISHED": "COMPLETE", "FAILED": "PRUNED"}
_STATUS = {state: status for status, state in _STATES.items()}


def _counting(trials: "list[FrozenTrial]") -> "tuple[FrozenTrial | None, list[FrozenTrial]]":
    """Of the trials of a key the one that counts, and those that came to nothing before it."""
    asked_again = {one.user_attrs.get("after") for one in trials}
    earlier: list[FrozenTrial] = []
    for one in trials:
        if one.state.name == "FAIL":
            earlier.append(one)
        elif one.state.name == "PRUNED" and one.number in asked_again:
            earlier.clear()
        else:
            return one, earlier
    return None, earlier


def _deaths(earlier: "list[FrozenTrial]") -> int:
    return sum(not one.user_attrs.get("released", False) for one in earlier)


def _entry(key: str, trial: "FrozenTrial", earlier: "list[FrozenTrial]") -> QueueItem:
    attributes = trial.user_attrs
    return QueueItem(
        key=key,
        number=trial.number,
        status=_STATUS[trial.state.name],
        values=MappingProxyType({name: value for name, value in attributes.items() if name not in _OWN}),
        owner=attributes.get("owner", ""),
        run_id=attributes.get("run_id", ""),
        reason=attributes.get("reason", ""),
        attempt=len(earlier) + 1,
        deaths=_deaths(earlier),
        ended_ms=int(attributes.get("ended_ms", 0)),
        claimed_ms=int(attributes.get("claimed_ms", 0)),
    )


def _plotted(point: Mapping[str, Any]) -> "tuple[dict[str, Any], dict[str, BaseDistribution]]":
    """A point's numbers as parameters of Optuna's; nothing here reads them.

    Bounds are those of all points there can be: within a study a name keeps its distribution.
    """
    from optuna.distributions import FloatDistribution, IntDistribution

    shares = {f"mix/{category}": share for category, share in point.get("mix", {}).items()}
    most = {"n_params": MAX_PARAMS, "n_tokens": MAX_TOKENS}
    sizes = {name: point[name] for name in most if name in point}
    distributions: dict[str, BaseDistribution] = {name: IntDistribution(1, most[name], log=True) for name in sizes}
    return {**sizes, **shares}, distributions | {name: FloatDistribution(0.0, 1.0) for name in shares}


def worker_death_reason(times: int) -> str:
    """Why a point failed whose processes keep dying."""
    return f"its process died {times} times (out of memory?); try again with --retry_failed"


def lock_queue(url: str, patience_s: float | None = None) -> PointQueue:
    """The locks that all studies of a storage share, in an Optuna study of their own."""
    return PointQueue(url, _LOCKS, patience_s)


def resolve_storage(url: str) -> str:
    """A storage's address in full: of a database, or the absolute path of a journal file.

    Raises:
        InputError: another kind of address.
    """
    scheme, colon, rest = url.partition("://")
    if not colon:
        return str(Path(url).expanduser().absolute())
    if scheme == "sqlite" and rest.startswith("/") and rest != "/":
        return f"sqlite:///{Path(rest[1:]).expanduser().absolute().as_posix()}"
    if scheme in ("postgresql", "postgres"):  # by default SQLAlchemy 2.1 takes another driver
        return f"postgresql+psycopg2://{rest}"
    if scheme.partition("+")[0] in ("postgresql", "mysql"):
        return url
    raise InputError(
        f"--queue {without_password(url)!r} can't hold a queue; give a journal file (queue.journal), "
        "sqlite:///queue.db, or postgresql+psycopg2://USER:PASSWORD@HOST/NAME for several machines"
    )


def open_storage(url: str) -> "BaseStorage":
    """Optuna's storage at a settled address.

    Raises:
        InputError: its driver is not installed.
        TrackingError: it does not answer.
    """
    import optuna
    from optuna.storages import RDBStorage, get_storage
    from optuna.storages.journal import JournalFileBackend, JournalStorage
    from sqlalchemy.exc import ArgumentError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if "://" not in url or url.startswith("sqlite:"):
        try:
            Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrackingError(f"the folder of {url} can't be made: {error}; give --queue another place") from error
    if "://" not in url:
        return JournalStorage(JournalFileBackend(url))
    engine: dict[str, Any] = {"pool_pre_ping": True}
    if url.startswith("postgresql"):
        engine["connect_args"] = {"connect_timeout": 10}
    try:
        with _guard(url):  # two that create the tables of a file at once break it
            return get_storage(_reach(url, lambda: RDBStorage(url, engine_kwargs=engine), _FIRST_S))
    except ArgumentError as error:
        raise InputError(f"--queue {without_password(url)!r} is no address of a database") from error
    except ImportError as error:
        raise InputError(
            f"the driver of --queue {without_password(url)} is not installed; pip install -c constraints.txt -e "
            "'.[postgresql]'"
        ) from error


def _guard(url: str) -> AbstractContextManager[object]:
    if not url.startswith("sqlite:"):
        return nullcontext()
    path = Path(url.removeprefix("sqlite:///"))
    return FileLock(path.with_name(f"{path.name}.lock"))


def _states(engine: "Engine", study_id: int) -> dict[int, str]:
    """The state of every trial of a database's study, by number."""
    from sqlalchemy import text

    asked = text("SELECT number, state FROM trials WHERE study_id = :study")
    with engine.connect() as connection:
        return {int(number): str(state) for number, state in connection.execute(asked, {"study": study_id})}


def _study_id(storage: "BaseStorage", name: str) -> int:
    from optuna.exceptions import DuplicatedStudyError
    from optuna.study import StudyDirection

    try:
        return storage.create_new_study([StudyDirection.MINIMIZE], name)
    except DuplicatedStudyError:
        return storage.get_study_id_from_name(name)


def _reach(url: str, call: Callable[[], _T], patience_s: float) -> _T:
    """Call again while the storage is away; what it says at last becomes a ``TrackingError`` without its password."""
    until, wait_s = time.monotonic() + patience_s, 0.5
    while True:
        try:
            return call()
        except Exception as error:
            if not _is_outage(error):
                raise
            if time.monotonic() + wait_s > until or any(words in str(error) for words in _FOR_GOOD):
                text = " ".join(str(error.__cause__ or error).split())
                raise TrackingError(
                    f"the storage {without_password(url)} does not answer ({without_password(text)[:300]}); start it, "
                    "or give another --queue"
                ) from None  # its own text may hold the address in full
        time.sleep(wait_s)
        wait_s = min(2 * wait_s, 5.0)


def _is_outage(error: Exception) -> bool:
    """Whether an error passes when the database is there again."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import ArgumentError

    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    if isinstance(cause, ArgumentError):
        return False
    return type(cause).__module__.partition(".")[0] in ("sqlalchemy", "psycopg2", "sqlite3")
