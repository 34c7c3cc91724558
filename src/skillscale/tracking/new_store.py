"""Make a new sqlite store so that a stop at any moment leaves either no store or a whole one.

MLflow makes its tables in some 50 steps, which are no transaction. A process that is stopped between two of them leaves
a file that MLflow can neither use nor complete. So the tables are made in another file, which is then renamed. The
caller holds the lock of the store.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

from skillscale.errors import TrackingError
from skillscale.tracking.connection import is_current, sqlite_path

_SUFFIX = ".new"
_COMPANIONS = ("-journal", "-wal", "-shm")  # files of sqlite next to a database that was not closed
_MADE_BY_MLFLOW = {"experiments": "Default", "workspaces": "default"}  # the one row of a new table


def make_sqlite_store(uri: str) -> None:
    """Make the tables of a store that has none, or whose making was stopped. Stores with any row stay as they are.

    Args:
        uri: full sqlite URI.

    Raises:
        TrackingError: the folder has both kinds of quotes in its name, which MLflow's first row can't hold.
    """
    path = sqlite_path(uri)
    new = path.with_name(f"{path.name}{_SUFFIX}")
    _remove(new)  # of a process that was stopped
    if is_current(uri) or not is_without_rows(path):
        return
    if "'" in str(Path.cwd()) and '"' in str(Path.cwd()):
        raise TrackingError(
            f"MLflow can't make a store in {Path.cwd()}, which has ' and \" in its name. Rename the folder"
        )
    _make_tables(new)
    new.replace(path)
    for suffix in _COMPANIONS:  # of the half-made store, whose pages they would restore
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def is_without_rows(path: Path) -> bool:
    """Return whether a file is no store yet: absent, empty, or with no rows but those that MLflow makes at first."""
    if not path.exists():
        return True
    with closing(sqlite3.connect(path)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            if table == "alembic_version" or table.startswith("sqlite_"):
                continue
            quoted = '"' + table.replace('"', '""') + '"'
            rows = database.execute(f"SELECT * FROM {quoted} LIMIT 2").fetchall()  # noqa: S608
            if len(rows) > 1 or (rows and _MADE_BY_MLFLOW.get(table, table) not in rows[0]):
                return False
    return True


def _make_tables(path: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(f"sqlite:///{path.as_posix()}", "mlruns")  # type: ignore[no-untyped-call]
    store.engine.dispose()


def _remove(path: Path) -> None:
    for file in (path, *(Path(f"{path}{suffix}") for suffix in _COMPANIONS)):
        file.unlink(missing_ok=True)
