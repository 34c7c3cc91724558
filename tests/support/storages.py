"""Storages for a queue: a journal, sqlite, and PostgreSQL where it is installed."""

import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PASSWORD = "geheim-of-the-test"  # tests search for it in all that is written
STORAGES = ["journal", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("sqlite", "postgresql"))]


@contextmanager
def storage_of(kind: str, folder: Path) -> Iterator[str]:
    """Give the address of an empty storage."""
    if kind == "postgresql":
        with postgresql() as server:
            yield server.database()
    else:
        yield {"journal": str(folder / "queue.journal"), "sqlite": f"sqlite:///{folder / 'queue.db'}"}[kind]


class Server:
    """A PostgreSQL server of this test, on loopback."""

    def __init__(self, programs: Path, folder: Path, port: int) -> None:
        self.programs, self.folder, self.port = programs, folder, port

    def database(self) -> str:
        """Return the address of a new database."""
        name = f"d{uuid.uuid4().hex}"
        words = [self.programs / "createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "skillscale", name]
        subprocess.run(words, check=True, env={**os.environ, "PGPASSWORD": PASSWORD})
        return f"postgresql+psycopg2://skillscale:{PASSWORD}@127.0.0.1:{self.port}/{name}"

    def control(self, *words: str) -> None:
        """Start or stop the server."""
        done = _as_postgres([str(self.programs / "pg_ctl"), "-D", str(self.folder / "data"), "-w", *words])
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        """Start the server on its folder."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder}"
        self.control("-o", options, "-l", str(self.folder / "log"), "start")


@contextmanager
def postgresql() -> Iterator[Server]:
    """Give a server that runs as a user who is not root; skip the test where none is installed."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    on_path = shutil.which("initdb")
    if not installed and not on_path:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    pytest.importorskip("psycopg2", reason="pip install -c constraints.txt -e '.[postgresql]'")
    with tempfile.TemporaryDirectory(prefix="skillscale-pg-") as place, socket.create_server(("127.0.0.1", 0)) as free:
        folder, port = Path(place), free.getsockname()[1]
        secret = folder / "password"
        secret.write_text(PASSWORD)
        if os.geteuid() == 0:
            for path in (folder, secret):
                shutil.chown(path, "postgres")
        server = Server(installed[-1] if installed else Path(str(on_path)).parent, folder, port)
        made = _as_postgres(
            [str(server.programs / "initdb"), "-D", str(folder / "data"), "-U", "skillscale", "-A", "scram-sha-256",
             "-E", "UTF8", "--no-sync", f"--pwfile={secret}"]
        )  # fmt: skip
        assert made.returncode == 0, made.stdout + made.stderr
        free.close()
        server.start()
        try:
            yield server
        finally:
            server.control("-m", "immediate", "stop")


def _as_postgres(words: list[str]) -> "subprocess.CompletedProcess[str]":
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    # Not by pipes: the server would keep them open
    with tempfile.TemporaryFile("w+") as log:
        done = subprocess.run([*user, *words], cwd="/tmp", stdout=log, stderr=log)
        log.seek(0)
        return subprocess.CompletedProcess(words, done.returncode, log.read(), "")
