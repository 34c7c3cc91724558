"""A new sqlite store whose making is stopped anywhere is whole for the next command; rows are never lost."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest

from skillscale.errors import TrackingError
from skillscale.tracking import StudyStore, connection


@pytest.fixture
def store(empty_store, tmp_path):
    """A copy of a store without a study, to be damaged."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return tmp_path / "mlflow.db"


def run_sql(path, *statements):
    with closing(sqlite3.connect(path)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def tables(path):
    with closing(sqlite3.connect(path)) as database:
        return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


HALVES = {
    "empty file": lambda path: path.write_bytes(b""),
    "tables without a version": lambda path: run_sql(path, "DROP TABLE alembic_version"),
    "version without a row": lambda path: run_sql(path, "DELETE FROM alembic_version"),
    "between two migrations": lambda path: run_sql(path, "UPDATE alembic_version SET version_num = '181f10493468'"),
    "one table alone": lambda path: (path.unlink(), run_sql(path, "CREATE TABLE experiments (name TEXT)")),
    "a half-made file beside": lambda path: (path.unlink(), path.with_name("mlflow.db.new").write_bytes(b"SQLite")),
    "without the default experiment": lambda path: run_sql(
        path, "DELETE FROM experiments", "UPDATE alembic_version SET version_num = '181f10493468'"
    ),
}


@pytest.mark.parametrize("half", HALVES)
def test_a_half_made_store_is_made_whole(half, store, empty_store):
    HALVES[half](store)
    opened = StudyStore.open(f"sqlite:///{store}")
    assert opened.study_names() == []
    assert tables(store) == tables(empty_store)
    assert [path.name for path in store.parent.glob("mlflow.db.new*")] == []


def test_an_older_store_with_runs_is_not_touched(store):
    columns = "run_uuid, name, source_type, entry_point_name, status, experiment_id, lifecycle_stage"
    run_sql(
        store, "UPDATE alembic_version SET version_num = '181f10493468'",
        f"INSERT INTO runs ({columns}) VALUES ('a', 'a', 'LOCAL', '', 'FINISHED', 0, 'active')",
    )  # fmt: skip
    before = store.read_bytes()
    with pytest.raises(TrackingError, match="mlflow db upgrade"):
        StudyStore.open(f"sqlite:///{store}").study_names()
    assert store.read_bytes() == before


def test_a_table_of_somebody_else_is_not_touched(store):
    run_sql(store, "DROP TABLE alembic_version", "CREATE TABLE mine (x)", "INSERT INTO mine VALUES (1)")
    with pytest.raises(TrackingError):
        StudyStore.open(f"sqlite:///{store}").study_names()
    with closing(sqlite3.connect(store)) as database:
        assert database.execute("SELECT x FROM mine").fetchall() == [(1,)]


def test_a_locked_store_names_who_has_it_open(store):
    code = "import sqlite3, sys; a = sqlite3.connect(sys.argv[1]); a.execute('SELECT 1'); print(1, flush=True); input()"
    words = [sys.executable, "-c", code, store]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as holder:
        holder.stdout.readline()
        named = pytest.raises(TrackingError, match=rf"locked by another process .*pid {holder.pid}. has it open")
        with named, connection.reaching(f"sqlite:///{store}"):
            raise sqlite3.OperationalError("database is locked")
        holder.kill()


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_first_command_that_is_stopped_leaves_a_store_to_use(sent, tmp_path):
    code = f"from skillscale.tracking import StudyStore; StudyStore.open('sqlite:///{tmp_path}/mlflow.db')"
    moments = random.Random(sent)
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(1.0, 6.0))
        os.kill(process.pid, sent)
        process.wait()
        assert StudyStore.open(f"sqlite:///{tmp_path}/mlflow.db").study_names() == []
        for path in tmp_path.glob("mlflow.db*"):
            path.unlink()


@pytest.mark.slow
def test_eight_workers_that_start_at_once_share_a_new_store(tmp_path):
    code = (
        f"from skillscale.tracking import StudyStore; StudyStore.open('sqlite:///{tmp_path}/mlflow.db').study_names()"
    )
    workers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(8)]
    assert [worker.wait() for worker in workers] == [0] * 8
