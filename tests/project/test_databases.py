"""The databases of docker/compose.yaml on a real server: two users, neither a superuser, each with one database."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from storages import PASSWORD, postgresql

ROOT = Path(__file__).parents[2]
PASSWORDS = {"QUEUE_PASSWORD": "of-the-queue", "MLFLOW_DB_PASSWORD": "it's of mlflow"}


@pytest.mark.slow
def test_each_user_has_its_database_alone():
    psql = shutil.which("psql") or pytest.skip("psql is not installed: apt-get install postgresql-client")
    with postgresql() as server:

        def ask(user, database, *words):
            passwords = {"skillscale": PASSWORD, "queue": "of-the-queue", "mlflow": "it's of mlflow"}
            place = ["-h", "127.0.0.1", "-p", str(server.port), "-U", user, "-d", database]
            return subprocess.run(
                [psql, "-X", "-v", "ON_ERROR_STOP=1", "-At", *place, *words], capture_output=True, text=True,
                env={**os.environ, **PASSWORDS, "PGPASSWORD": passwords[user]},
            )  # fmt: skip

        made = ask("skillscale", "postgres", "-f", str(ROOT / "docker" / "databases.sql"))
        assert made.returncode == 0, made.stderr
        for user, other in (("queue", "mlflow"), ("mlflow", "queue")):
            work = "CREATE TABLE t (x int); INSERT INTO t VALUES (7); SELECT x FROM t; DROP TABLE t"
            assert "7" in ask(user, user, "-c", work).stdout
            rights = "SELECT rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = current_user"
            assert ask(user, user, "-c", rights).stdout.strip() == "f|f|f"
            for database in (other, "postgres"):
                assert "permission denied for database" in ask(user, database, "-c", "SELECT 1").stderr
            assert ask(user, user, "-c", "COPY (SELECT 1) TO PROGRAM 'true'").returncode != 0
