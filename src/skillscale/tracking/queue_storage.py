"""The storage of a queue: its address, and Optuna's storage there, whose every failure is a ``TrackingError``.

By default a queue is a journal file next to the tracking store, for the processes of one machine. A database holds the
queue of several machines. ``optuna`` is imported when a storage is opened, not with this module.
"""

import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock

from skillscale.errors import InputError, TrackingError, show, without_password
from skillscale.point import digest
from skillscale.tracking.address import check_form, read_host
from skillscale.tracking.connection import sqlite_path

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial
    from sqlalchemy import Engine

_OPEN_PATIENCE_S = 20.0  # a storage that never answered gets less time than one
_OUTAGE_S = 120.0  # that is started again
_SINGLE_READS = 20  # reading one trial alone takes no longer than reading this many at once
_PERMANENT = ("authentication failed", "does not exist", "no pg_hba.conf entry")
# The file of a server's queue is named after its address as version 0.2 shows it, so that waiting points are found
_PASSWORD = re.compile(r"(://[^:/@\s]*:)\S+(@)|([?&;]password=)[^&;\s'\"]+", re.IGNORECASE)
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class QueueAddress:
    """Where the points of a tracking store's studies wait.

    ``url``: a database, or the absolute path of a journal file. ``is_given``: the user named it; else it is the default
    file of the tracking store. ``is_portable``: the default file is next to the store, so that both move together.
    """

    url: str
    is_given: bool
    is_portable: bool = False

    @classmethod
    def given(cls, queue: str) -> "QueueAddress | None":
        """Return the address that the user gave, here or by ``SKILLSCALE_QUEUE``; None if there is none.

        Raises:
            InputError: the address can't hold a queue.
        """
        address = queue or os.environ.get("SKILLSCALE_QUEUE", "")
        return cls(url=resolve_queue(address), is_given=True) if address else None

    @classmethod
    def default(cls, tracking: str, cache: Path) -> "QueueAddress":
        """Return the default file of a tracking store.

        ``mlflow.db`` has ``mlflow-queue.journal`` next to it. The file of a server lies in the cache folder, and serves
        one machine.
        """
        if tracking.startswith("sqlite:"):
            path = sqlite_path(tracking)
            return cls(url=str(path.with_name(f"{path.stem}-queue.journal")), is_given=False, is_portable=True)
        path = cache / "queues" / f"{digest(_PASSWORD.sub(_hide_password, tracking))}.journal"
        return cls(url=str(path.absolute()), is_given=False)

    @property
    def exists(self) -> bool:
        """Whether the storage is there, as far as can be known without opening it: a database always is."""
        return "://" in self.url or Path(self.url).exists()

    @property
    def place(self) -> str:
        """The address as it may be shown."""
        return without_password(self.url)


def resolve_queue(url: str) -> str:
    """Return a queue's address in full: of a database, or the absolute path of a journal file.

    Raises:
        InputError: the address can't hold a queue.
    """
    check_form(url, "--queue")
    scheme, colon, rest = url.partition("://")
    if not colon:
        return str(Path(url).expanduser().absolute())
    if scheme == "sqlite" and rest.startswith("/") and rest != "/":
        return f"sqlite:///{Path(rest[1:]).expanduser().absolute().as_posix()}"
    if scheme in ("postgresql", "postgres"):  # by default SQLAlchemy 2.1 takes another driver
        url = f"postgresql+psycopg2://{rest}"
    if url.partition("://")[0].partition("+")[0] in ("postgresql", "mysql"):
        read_host(url)
        return url
    raise InputError(
        f"--queue {without_password(url)!r} can't hold a queue. Give a journal file (queue.journal), "
        "sqlite:///queue.db, or postgresql+psycopg2://USER:PASSWORD@HOST/NAME for several machines"
    )


class QueueStorage:
    """Optuna's storage at an address: opened once, called with patience, its trials read incrementally.

    Raises:
        InputError: the address or its driver can't be used.
        TrackingError: the storage does not answer.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._guard = _sqlite_guard(url)
        self.optuna = _open_storage(url, self._guard)
        self._trials: dict[int, dict[int, FrozenTrial]] = {}
        self._heartbeats = None if "://" in url else Path(f"{url}.heartbeats")

    def reach(self, call: Callable[[], _T], patience_s: float = _OUTAGE_S) -> _T:
        """Return what a call returns, which is repeated while the storage is away.

        Raises:
            TrackingError: the storage is away for longer.
        """
        return _reach(self.url, call, patience_s)

    def study_id(self, name: str) -> int:
        """Return the id of an Optuna study, which is made where there is none."""
        return self.reach(lambda: self.find_study(name) if self.has_study(name) else self._create_study(name))

    def has_study(self, name: str) -> bool:
        """Return whether there is an Optuna study of this name."""
        return any(study.study_name == name for study in self.reach(self.optuna.get_all_studies))

    def find_study(self, name: str) -> int:
        """Return the id of an Optuna study that is there."""
        return self.optuna.get_study_id_from_name(name)

    def _create_study(self, name: str) -> int:
        from optuna.exceptions import DuplicatedStudyError
        from optuna.study import StudyDirection

        try:
            return self.optuna.create_new_study([StudyDirection.MINIMIZE], name)
        except DuplicatedStudyError:  # another process was quicker
            return self.find_study(name)

    def add_trials(self, study_id: int, templates: "Sequence[FrozenTrial]") -> int:
        """Append trials, in a journal with one write; return the id of the last."""
        first, rest = templates[:1], templates[1:]
        batch = getattr(getattr(self.optuna, "_backend", None), "batch", nullcontext) if rest else nullcontext
        trial_id = -1
        for group, context in ((first, nullcontext()), (rest, batch())):
            with context:
                for template in group:
                    trial_id = self.reach(partial(self.optuna.create_new_trial, study_id, template))
        return trial_id

    def trials(self, study_id: int) -> "list[FrozenTrial]":
        """Return the trials of an Optuna study by number.

        Of a database those that wait are read once: they stay as they are until they are taken. Optuna itself reads
        all unfinished trials again, which takes seconds for ten thousand.
        """
        return self.reach(partial(self._read_trials, study_id))

    def _read_trials(self, study_id: int) -> "list[FrozenTrial]":
        from optuna.storages import RDBStorage
        from optuna.trial import TrialState

        database = getattr(self.optuna, "_backend", None)  # behind Optuna's cache
        if not isinstance(database, RDBStorage):
            return self.optuna.get_all_trials(study_id, deepcopy=False)
        if trials := self._trials.get(study_id):
            running = database.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
            trials |= {trial.number: trial for trial in running if trial.number in trials}
            states = _trial_states(database.engine, study_id)
            changed = [number for number, trial in trials.items() if trial.state.name != states.get(number)]
            if states.keys() == trials.keys() and len(changed) * _SINGLE_READS < len(states):
                trials |= {number: self.optuna.get_trial(trials[number]._trial_id) for number in changed}  # noqa: SLF001
                return list(trials.values())
        everything = self.optuna.get_all_trials(study_id, deepcopy=False)
        self._trials[study_id] = {trial.number: trial for trial in everything}
        return everything

    def set_state(self, trial_id: int, state: Any, value: float | None = None) -> bool:
        """Change the state of a trial; return False where another process took it.

        On sqlite Optuna's change lets two processes take one trial, so a lock next to the file guards it.
        """
        with self._guard:
            is_changed = self.optuna.set_trial_state_values(trial_id, state, None if value is None else [value])
        if self._heartbeats is not None and state.is_finished():
            self._heartbeat_file(trial_id).unlink(missing_ok=True)
        return is_changed

    def write_heartbeat(self, trial_id: int, count: int) -> None:
        """Write a heartbeat of a trial: next to a journal, which every process reads in full, as a file of its own.

        Raises:
            UpdateFinishedTrialError: Optuna's, where the trial has ended.
        """
        from optuna.exceptions import UpdateFinishedTrialError

        if self._heartbeats is None:
            self.optuna.set_trial_user_attr(trial_id, "beat", count)
            return
        if self.optuna.get_trial(trial_id).state.is_finished():
            raise UpdateFinishedTrialError("the lease is lost")
        path = self._heartbeat_file(trial_id)
        path.parent.mkdir(exist_ok=True)
        path.write_text(str(count))

    def read_heartbeat(self, trial: "FrozenTrial") -> str:
        """Return the last heartbeat of a trial."""
        if self._heartbeats is None:
            return str(trial.user_attrs.get("beat", 0))
        try:
            return self._heartbeat_file(trial._trial_id).read_text()  # noqa: SLF001
        except OSError:
            return ""

    def _heartbeat_file(self, trial_id: int) -> Path:
        assert self._heartbeats is not None
        return self._heartbeats / str(trial_id)


def _open_storage(url: str, guard: AbstractContextManager[object]) -> "BaseStorage":
    import optuna
    from optuna.storages import RDBStorage, get_storage
    from optuna.storages.journal import JournalStorage
    from sqlalchemy.exc import ArgumentError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if "://" not in url or url.startswith("sqlite:"):
        try:
            Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrackingError(f"the folder of {url} can't be made: {error}. Give --queue another place") from error
    if "://" not in url:
        from skillscale.tracking.queue_journal import LockedJournal

        return _reach(url, lambda: JournalStorage(LockedJournal(Path(url))), _OPEN_PATIENCE_S)
    engine: dict[str, Any] = {"pool_pre_ping": True}
    if url.startswith("postgresql"):
        engine["connect_args"] = {"connect_timeout": 10}
    try:
        with guard:  # two that create the tables of a file at once break it
            return get_storage(_reach(url, lambda: RDBStorage(url, engine_kwargs=engine), _OPEN_PATIENCE_S))
    except ArgumentError as error:
        raise InputError(f"--queue {without_password(url)!r} is no address of a database. Correct it") from error
    except ImportError as error:
        raise InputError(
            f"the driver of --queue {without_password(url)} is not installed. Run: pip install -c constraints.txt -e "
            "'.[postgresql]'"
        ) from error


def _hide_password(match: "re.Match[str]") -> str:
    return f"{match[1] or match[3]}...{match[2] or ''}"


def _sqlite_guard(url: str) -> AbstractContextManager[object]:
    if not url.startswith("sqlite:"):
        return nullcontext()
    path = Path(url.removeprefix("sqlite:///"))
    return FileLock(path.with_name(f"{path.name}.lock"))


def _trial_states(engine: "Engine", study_id: int) -> dict[int, str]:
    """Return the state of every trial of a database's study, by number."""
    from sqlalchemy import text

    query = text("SELECT number, state FROM trials WHERE study_id = :study")
    with engine.connect() as connection:
        return {int(number): str(state) for number, state in connection.execute(query, {"study": study_id})}


def _reach(url: str, call: Callable[[], _T], patience_s: float) -> _T:
    """Repeat a call while the storage is away; the last error becomes a ``TrackingError`` without the password."""
    until, wait_s = time.monotonic() + patience_s, 0.5
    while True:
        try:
            return call()
        except OSError as error:
            raise TrackingError(
                f"the queue {without_password(url)} can't be read or written: {show(error)}. Check the disk and the "
                "permissions, then run the same command again"
            ) from error
        except Exception as error:
            if not _is_outage(error):
                raise
            if time.monotonic() + wait_s > until or any(words in str(error) for words in _PERMANENT):
                text = without_password(" ".join(str(error.__cause__ or error).split()))
                raise TrackingError(
                    f"the queue {without_password(url)} does not answer ({text[:300]}). Start it, "
                    "or give another --queue"
                ) from None  # its text may hold the address in full
        time.sleep(wait_s)
        wait_s = min(2 * wait_s, 5.0)


def _is_outage(error: Exception) -> bool:
    """Return whether an error passes when the database is there again."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import ArgumentError

    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    if isinstance(cause, ArgumentError):
        return False
    return type(cause).__module__.partition(".")[0] in ("sqlalchemy", "psycopg2", "sqlite3")
