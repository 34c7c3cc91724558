"""The same registry behind an MLflow server: written, read back, and kept when the server goes away."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_tracking import DATA, OPTIMIZER_PLAN, PROVENANCE, RESULTS, SIZE, point

from skillscale.config import load
from skillscale.errors import TrackingError
from skillscale.record import RunState
from skillscale.tracking import RunWriter, StudyStore

pytestmark = pytest.mark.slow
Start = Callable[[], subprocess.Popen[bytes]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Start]]:
    """The address of a server, and what starts it; each server is ended by the test or after it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        words += ["--backend-store-uri", "sqlite:///s.db", "--artifacts-destination", "art"]
        with (tmp_path / "server.log").open("ab") as log:
            started.append(subprocess.Popen(words, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True))
        for _ in range(120):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            except OSError:
                time.sleep(0.5)
            else:
                return started[-1]
        pytest.fail((tmp_path / "server.log").read_text())

    yield f"http://127.0.0.1:{port}", start
    for each in started:
        stop(each)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and the workers it started."""
    if process.poll() is None:
        os.killpg(process.pid, 9)
    process.wait()


def begin(writer: RunWriter) -> None:
    writer.begin(size=SIZE, optimizer_plan=OPTIMIZER_PLAN, provenance=PROVENANCE, config_yaml="a: 1\n", data=DATA)


def test_a_server_keeps_the_same_record_and_its_loss_loses_none(server, tmp_path, capfd):
    uri, start = server
    process = start()
    registry = StudyStore.open(uri, cache=tmp_path / "cache")
    config = load(study="smoke")
    study = registry.open_study("one", config)
    study.add_points([point(seed=seed) for seed in range(2)])
    with study.claim() as writer:
        begin(writer)
        writer.curve(1000, 3.0)
        written = writer.finish(**RESULTS)
    assert study.runs.records() == [written]
    assert study.runs.curve(written.run_id) == [(1000, 3.0)]
    with study.analysis("fit") as run:
        run.file("figures/a.svg", b"<svg/>")
    assert study.chart_link.startswith(f"{uri}/#/experiments/{study.experiment_id}/runs?")

    writer = study.claim()
    begin(writer)
    stop(process)
    with pytest.raises(TrackingError, match=r"does not answer.*results are kept in"):
        writer.finish(**RESULTS)
    start()

    again = registry.open_study("one", config)
    assert [one.state for one in again.runs.records()] == [RunState.FINISHED, RunState.FINISHED]
    assert again.runs.records()[1].sets == RESULTS["sets"]
    assert again.claim() is None
    assert capfd.readouterr().out == ""
