"""The connection to a tracking store: its full URI, its lock, early checks, and errors with their cure."""

import logging
import os
import socket
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from skillscale.errors import TrackingError, without_password
from skillscale.formatting import shorten
from skillscale.point import digest
from skillscale.tracking.address import SERVERS, check_form, read_host

# Standard output is for the commands' JSON; MLflow would print a link there whenever a run ends.
_SILENCE = {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
SERVER_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20", **_SILENCE}
FIRST_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "8", **_SILENCE}
_LOCK_PATIENCE_S = 600.0  # of 32 processes on a busy machine the last waits for minutes
_DATABASES = ("postgresql", "mysql", "mssql")
_NOISY = ("mlflow.store.db.utils", "alembic.runtime.migration", "mlflow.utils.rest_utils")


def resolve_uri(uri: str = "") -> str:
    """Return the full tracking URI, which means the same in every folder and process.

    Raises:
        TrackingError: MLflow or skillscale can't use this kind of store.
    """
    check_form(uri, "--tracking")
    given = uri or os.environ.get("MLFLOW_TRACKING_URI", "") or "sqlite:///mlflow.db"
    scheme, colon, rest = given.partition(":")
    if scheme in ("postgresql", "postgres"):  # by default SQLAlchemy 2.1 takes another driver
        return f"postgresql+psycopg2:{rest}".rstrip("/")
    if (colon and scheme.partition("+")[0] in _DATABASES) or scheme in SERVERS:
        return given.rstrip("/")
    if scheme != "sqlite" or not rest.startswith("///") or rest[3:] in ("", ":memory:"):
        raise TrackingError(
            f"tracking URI {without_password(given)!r} can't hold a study. Give sqlite:///FILE.db, http(s)://SERVER or "
            "a database such as postgresql://USER@HOST/NAME (MLflow's folder store is no longer written to. `mlflow "
            "migrate-filestore` makes a sqlite one of it)"
        )
    return f"sqlite:///{Path(rest[3:]).expanduser().absolute().as_posix()}"


def sqlite_path(uri: str) -> Path:
    """Return the file of a full sqlite URI."""
    return Path(uri.removeprefix("sqlite:///"))


def file_lock(uri: str, cache: Path) -> FileLock:
    """Return the lock of a store: next to a sqlite file, where all processes find it; of a server, in the cache."""
    if uri.startswith("sqlite:"):
        path = sqlite_path(uri)
        return FileLock(path.with_name(f"{path.name}.lock"))
    return FileLock(cache / "locks" / f"{digest(uri)}.lock")


@contextmanager
def lock_file(lock: FileLock) -> Iterator[None]:
    """Hold a lock, after a wait of at most ten minutes."""
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=_LOCK_PATIENCE_S, poll_interval=0.02)
    except Timeout as error:
        raise TrackingError(
            f"another process has held {lock.lock_file} for {_LOCK_PATIENCE_S:g} s. End it, then try again"
        ) from error
    except OSError as error:
        raise TrackingError(
            f"the lock {lock.lock_file} can't be made: {error}. Give a folder that you may write to"
        ) from error
    try:
        yield
    finally:
        lock.release()


def check_database(uri: str) -> None:
    """Refuse at once what MLflow would try for minutes: a file that can't be opened, a host that does not answer."""
    if uri.startswith("sqlite:"):
        _check_file(sqlite_path(uri))
        return
    host = read_host(uri)
    if uri.partition(":")[0] in SERVERS or host is None or host.port is None:
        return
    try:
        socket.create_connection((host.name, host.port), timeout=5).close()
    except OSError as error:
        raise _unreachable(uri, str(error)) from error


def _check_file(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrackingError(f"the folder of {path} can't be made: {error}. Give --tracking another place") from error
    place = path if path.exists() else path.parent
    if not os.access(place, os.W_OK):
        raise TrackingError(f"{place} can't be written to. Give --tracking another place, or change its permissions")
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA schema_version").fetchone()
    except sqlite3.DatabaseError as error:
        raise TrackingError(f"{path} can't be opened as a sqlite database: {error}. Give another file") from error


def is_current(uri: str) -> bool:
    """Return whether a sqlite store has the full schema of this MLflow; False for one that is new or older.

    A newer schema is refused here, before MLflow touches it. If a table was renamed, MLflow would create the tables of
    its first version as well.

    Raises:
        TrackingError: this MLflow does not have the schema.
    """
    import mlflow
    from alembic.script import ScriptDirectory

    revision = _revision(sqlite_path(uri))
    if revision is None:
        return False
    scripts = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    if revision not in {script.revision for script in scripts.walk_revisions()}:
        raise _newer(uri, revision)
    return revision == scripts.get_current_head()


def _revision(path: Path) -> str | None:
    if not path.exists():
        return None
    with closing(sqlite3.connect(path)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "alembic_version" not in tables:
            return None
        row = database.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


def _newer(uri: str, revision: str) -> TrackingError:
    import mlflow

    return TrackingError(
        f"{without_password(uri)} was written by a newer MLflow than {mlflow.__version__} (schema {revision}). Install "
        "that version (pip install --upgrade 'mlflow>=3.17,<4'), or give --tracking another store"
    )


def _unreachable(uri: str, why: str) -> TrackingError:
    return TrackingError(
        f"the tracking store {without_password(uri)} does not answer ({why}). Start it, or give another --tracking"
    )


@contextmanager
def reaching(uri: str, patience: Mapping[str, str] = SERVER_PATIENCE) -> Iterator[None]:
    """Set MLflow's time limits and silence its log; turn its exceptions into ``TrackingError``."""
    from mlflow.exceptions import MlflowException

    changed = {key: value for key, value in patience.items() if key not in os.environ}
    levels = {name: logging.getLogger(name).level for name in _NOISY}
    os.environ.update(changed)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    except (MlflowException, OSError) as error:
        raise _tracking_error(uri, error) from error
    except ModuleNotFoundError as error:
        if uri.partition(":")[0].partition("+")[0] not in _DATABASES:
            raise
        raise _no_driver(uri, error) from error
    except Exception as error:
        # MLflow lets exceptions of Alembic and SQLAlchemy through, and raises plain ones where a row lacks a value
        if type(error).__module__.partition(".")[0] in ("alembic", "sqlalchemy", "sqlite3") or type(error) is Exception:
            raise _tracking_error(uri, error) from error
        raise
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for key in changed:
            os.environ.pop(key, None)


def _no_driver(uri: str, error: ModuleNotFoundError) -> TrackingError:
    package = (error.name or "").partition(".")[0]
    named = "'skillscale[postgresql]'" if package == "psycopg2" else package
    return TrackingError(
        f"the tracking store {without_password(uri)} needs {package}, which is not installed. Run: pip install {named}"
    )


def open_by(path: Path) -> list[str]:
    """Return the other processes that have a file open, as ``python (pid 12)``, as far as /proc says it."""
    processes = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            files = {str(entry.readlink()) for entry in (folder / "fd").iterdir()}
            if str(path) in files and folder.name != str(os.getpid()):
                processes.append(f"{(folder / 'comm').read_text().strip()} (pid {folder.name})")
    return sorted(processes)


def _tracking_error(uri: str, error: Exception) -> TrackingError:
    text = without_password(" ".join(str(error).split()))
    low = text.lower()
    place = without_password(uri)
    if "disk is full" in low or "no space left" in low or "disk i/o error" in low or "file too large" in low:
        return TrackingError(
            f"no room to write to {place} ({shorten(text, 200)}). Free some disk, then start again: the study goes on"
        )
    if "out-of-date database schema" in low:
        return TrackingError(
            f"{place} has the schema of another MLflow ({shorten(text, 200)}). Back it up, then run "
            f"`mlflow db upgrade {place}`"
        )
    if "can't locate revision" in low:
        return _newer(place, text.rpartition(" ")[2].strip("'"))
    if "database is locked" in low:
        holders = open_by(sqlite_path(uri)) if uri.startswith("sqlite:") else []
        named = f" ({', '.join(holders)} has it open)" if holders else ""
        return TrackingError(f"{place} is locked by another process{named}. End it or wait, then start again")
    if "not authenticated" in low or "error code 403" in low:
        return TrackingError(
            f"the tracking store {place} lets only its users in ({shorten(text, 200)}). Set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to those of a user who may write"
        )
    if "api request to" in low or "connection" in low or "max retries" in low or "timed out" in low:
        return _unreachable(uri, shorten(text, 200))
    return TrackingError(f"the tracking store {place} refused: {shorten(text, 200)}")
