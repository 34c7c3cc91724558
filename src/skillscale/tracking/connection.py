"""How a store is reached: its URI in full, its lock, what is refused before MLflow tries, errors with their cure."""

import logging
import os
import socket
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from skillscale.errors import TrackingError, without_password
from skillscale.formatting import shorten
from skillscale.point import digest

# Standard output belongs to the commands' JSON; MLflow would print a link there whenever a run ends.
_SILENCE = {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
SERVER_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20", **_SILENCE}
FIRST_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "8", **_SILENCE}
_LOCK_PATIENCE_S = 600.0  # whoever asks first gets it: of 32 on a busy machine one may ask in vain for minutes
_DATABASES = ("postgresql", "mysql", "mssql")
_NOISY = ("mlflow.store.db.utils", "alembic.runtime.migration", "mlflow.utils.rest_utils")


def resolve_uri(uri: str = "") -> str:
    """The tracking URI in full, so that it means the same from every folder and process.

    Raises:
        TrackingError: a kind of store that MLflow or the queue can't use.
    """
    given = uri or os.environ.get("MLFLOW_TRACKING_URI", "") or "sqlite:///mlflow.db"
    scheme, colon, rest = given.partition(":")
    if (colon and scheme.partition("+")[0] in _DATABASES) or scheme in ("http", "https", "databricks"):
        return given.rstrip("/")
    if scheme != "sqlite" or not rest.startswith("///") or rest[3:] in ("", ":memory:"):
        raise TrackingError(
            f"tracking URI {given!r} can't hold a study; give sqlite:///FILE.db, http(s)://SERVER or a database "
            "such as postgresql://USER@HOST/NAME (MLflow's folder store is no longer written to; `mlflow "
            "migrate-filestore` makes a sqlite one of it)"
        )
    return f"sqlite:///{Path(rest[3:]).expanduser().absolute().as_posix()}"


def sqlite_path(uri: str) -> Path:
    """The file of a settled sqlite URI."""
    return Path(uri.removeprefix("sqlite:///"))


def file_lock(uri: str, cache: Path) -> FileLock:
    """Beside a sqlite file, so that it is shared by all who share the file; in the cache for servers."""
    if uri.startswith("sqlite:"):
        path = sqlite_path(uri)
        return FileLock(path.with_name(f"{path.name}.lock"))
    return FileLock(cache / "locks" / f"{digest(uri)}.lock")


@contextmanager
def lock_file(lock: FileLock) -> Iterator[None]:
    """Hold a lock, waiting for it within reason."""
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=_LOCK_PATIENCE_S, poll_interval=0.02)
    except Timeout as error:
        raise TrackingError(
            f"another process has held {lock.lock_file} for {_LOCK_PATIENCE_S:g} s; end it, then try again"
        ) from error
    except OSError as error:
        raise TrackingError(
            f"the lock {lock.lock_file} can't be made: {error}; give a folder that you may write to"
        ) from error
    try:
        yield
    finally:
        lock.release()


def check_database(uri: str) -> None:
    """Refuse at once what MLflow would try for minutes: a file that can't be opened, a host that doesn't answer."""
    if uri.startswith("sqlite:"):
        _check_file(sqlite_path(uri))
        return
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https") or parts.hostname is None or parts.port is None:
        return
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=5).close()
    except OSError as error:
        raise _unreachable(uri, str(error)) from error


def _check_file(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrackingError(f"the folder of {path} can't be made: {error}; give --tracking another place") from error
    place = path if path.exists() else path.parent
    if not os.access(place, os.W_OK):
        raise TrackingError(f"{place} can't be written to; give --tracking another place, or change its permissions")
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA schema_version").fetchone()
    except sqlite3.DatabaseError as error:
        raise TrackingError(f"{path} can't be opened as a sqlite database: {error}; give another file") from error


def is_current(uri: str) -> bool:
    """Whether a sqlite store has the schema of this MLflow in full; False for one that is new or older.

    A newer schema is refused here, before MLflow touches it: where a table was renamed, MLflow would create the tables
    of its first version beside it.

    Raises:
        TrackingError: the schema is one that this MLflow doesn't know.
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
        found = database.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if found is None else str(found[0])


def _newer(uri: str, revision: str) -> TrackingError:
    import mlflow

    return TrackingError(
        f"{uri} was written by a newer MLflow than {mlflow.__version__} (schema {revision}); install that version "
        "(pip install --upgrade 'mlflow>=3.17,<4'), or give --tracking another store"
    )


def _unreachable(uri: str, why: str) -> TrackingError:
    return TrackingError(
        f"the tracking store {without_password(uri)} does not answer ({why}); start it, or give another --tracking"
    )


@contextmanager
def reaching(uri: str, patience: Mapping[str, str] = SERVER_PATIENCE) -> Iterator[None]:
    """Lend MLflow our patience and its log our silence; turn what it raises into ``TrackingError``."""
    from mlflow.exceptions import MlflowException

    lent = {key: value for key, value in patience.items() if key not in os.environ}
    levels = {name: logging.getLogger(name).level for name in _NOISY}
    os.environ.update(lent)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    except (MlflowException, OSError) as error:
        raise _explained(uri, error) from error
    except Exception as error:
        # Alembic and SQLAlchemy raise kinds of their own that MLflow lets through.
        if type(error).__module__.partition(".")[0] in ("alembic", "sqlalchemy", "sqlite3"):
            raise _explained(uri, error) from error
        raise
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for key in lent:
            os.environ.pop(key, None)


def _explained(uri: str, error: Exception) -> TrackingError:
    text = without_password(" ".join(str(error).split()))
    low = text.lower()
    place = without_password(uri)
    if "disk is full" in low or "no space left" in low or "disk i/o error" in low or "file too large" in low:
        return TrackingError(
            f"no room to write to {place} ({shorten(text, 200)}); free some disk, then start again: the study goes on"
        )
    if "out-of-date database schema" in low:
        return TrackingError(
            f"{place} has the schema of another MLflow ({shorten(text, 200)}); back it up, then run "
            f"`mlflow db upgrade {place}`"
        )
    if "can't locate revision" in low:
        return _newer(place, text.rpartition(" ")[2].strip("'"))
    if "database is locked" in low:
        return TrackingError(f"{place} is locked by another process; end it or wait, then start again")
    if "not authenticated" in low or "error code 403" in low:
        return TrackingError(
            f"the tracking store {place} lets only its users in ({shorten(text, 200)}); set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to those of one who may write"
        )
    if "api request to" in low or "connection" in low or "max retries" in low or "timed out" in low:
        return _unreachable(uri, shorten(text, 200))
    return TrackingError(f"the tracking store {place} refused: {shorten(text, 200)}")
