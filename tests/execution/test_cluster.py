"""The walk of docs/guide/howto/cluster.md: PostgreSQL, an MLflow server, four workers; some are lost."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray_clusters
import small_study
from storages import PASSWORD, postgresql

from skillscale.errors import TrackingError
from skillscale.record import RunState
from skillscale.tracking import StudyStore

pytestmark = pytest.mark.slow
PATIENCE_S = 45.0  # a machine that is busy lets heartbeats wait
WORKERS = 4


@pytest.fixture(scope="module")
def database():
    with postgresql() as server:
        yield server


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    """With a server on a machine that is busy."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")


@contextmanager
def mlflow_server(backend, folder, *more, **environment):
    """The address of an MLflow server on loopback, artifacts beside it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", backend, "--artifacts-destination", str(folder / "artifacts"), *more]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            words, cwd=folder, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **environment},
        )  # fmt: skip
    try:
        wait_for(lambda: _answers(f"http://127.0.0.1:{port}/health"), process)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(url):
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except OSError:
        return False
    return True


def wait_for(condition, process=None, seconds=900.0):
    until = time.monotonic() + seconds
    while not (outcome := condition()):
        assert time.monotonic() < until, "waited in vain"
        assert process is None or process.poll() is None, "it ended"
        time.sleep(0.5)
    return outcome


class Cluster:
    """Commands that know two addresses, each on a machine of its own as far as they can tell."""

    def __init__(self, folder: Path, tracking: str, queue: str) -> None:
        self.folder, self.tracking, self.queue = folder, tracking, queue
        (folder / "sitecustomize.py").write_text(
            "import os, socket\nname = os.environ['PRETENDED_HOST']\nsocket.gethostname = lambda: name\n"
        )

    def command(self, host, *words):
        path = os.pathsep.join([str(self.folder), os.environ.get("PYTHONPATH", "")])
        variables = {"SKILLSCALE_QUEUE": self.queue, "MLFLOW_TRACKING_URI": self.tracking}
        variables |= {"PRETENDED_HOST": host, "PYTHONPATH": path, "SKILLSCALE_CACHE": str(self.folder / "cache")}
        with (self.folder / f"{host}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "skillscale", *words, "--json"],
                stdout=subprocess.PIPE, stderr=log, env={**os.environ, **variables}, cwd=self.folder,
            )  # fmt: skip

    def answer(self, host, *words):
        process = self.command(host, *words)
        out, _ = process.communicate(timeout=1800)
        assert process.returncode == 0, self.log(host)
        return json.loads(out)

    def log(self, host):
        return (self.folder / f"{host}.log").read_text()

    def study(self):
        return StudyStore.open(self.tracking, cache=self.folder / "looking", queue=self.queue).study("small")

    def holders(self):
        """Host and pid of those who train just now."""
        try:
            owners = self.study().holders().values()
        except TrackingError:
            return []
        return [(owner.split(":")[0], int(owner.split(":")[1])) for owner in owners if owner]


def test_four_workers_finish_every_point_once_though_one_is_killed_and_one_hangs(database, tmp_path):
    folder = tmp_path
    given = small_study.write(folder, sizes=5)
    del given[given.index("--tracking") : given.index("--tracking") + 2]
    with mlflow_server(database.database(), folder) as tracking:
        cluster = Cluster(folder, tracking, database.database())
        result = cluster.answer(
            "driver", "grid", *given, "--launcher", "none", "--heartbeat_timeout_s", str(PATIENCE_S)
        )
        assert result["worker"][:3] == ["worker", "--study", "small"]
        workers = {f"node{at}": cluster.command(f"node{at}", "worker", "--study", "small") for at in range(WORKERS)}
        killed, pid = wait_for(cluster.holders)[0]
        assert workers[killed].pid == pid
        os.kill(pid, signal.SIGKILL)
        hung, pid = wait_for(lambda: [holder for holder in cluster.holders() if holder[0] != killed])[0]
        os.kill(pid, signal.SIGSTOP)
        survivors = [worker for name, worker in workers.items() if name not in (killed, hung)]
        codes = [process.wait(timeout=1800) for process in survivors]
        os.kill(pid, signal.SIGCONT)
        codes.append(workers[hung].wait(timeout=900))
        assert workers[killed].wait() == -signal.SIGKILL
        assert "given to another" in cluster.log(hung)
        for worker in workers.values():
            worker.stdout.close()
        assert codes == [0] * (WORKERS - 1), [cluster.log(name) for name in workers]
        check_done(cluster, points=10)
        again = cluster.answer("driver", "grid", *given, "--workers", "1")
        assert (again["points"], again["finished"]) == (10, 10)
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert [path.name for path in written if PASSWORD.encode() in path.read_bytes()] == []


@ray_clusters.QUIET
def test_ray_finishes_a_study_on_three_nodes_though_one_is_lost(tmp_path):
    given = small_study.write(tmp_path, sizes=5)
    del given[given.index("--tracking") : given.index("--tracking") + 2]
    tracking = f"sqlite:///{tmp_path / 'runs.db'}"
    with ray_clusters.three_nodes() as (ray_cluster, nodes):
        cluster = Cluster(tmp_path, tracking, f"sqlite:///{tmp_path / 'queue.db'}")
        launch = ["--launcher", "ray", "--launcher_options", f"address={ray_cluster.address},num_cpus=1"]
        driver = cluster.command(
            "driver", "grid", *given, *launch, "--workers", "3", "--heartbeat_timeout_s", str(PATIENCE_S)
        )
        wait_for((tmp_path / "queue.db").exists, driver)
        _, pid = wait_for(cluster.holders, driver)[0]
        node = ray_clusters.node_of(nodes, pid)
        os.kill(pid, signal.SIGKILL)
        ray_cluster.remove_node(node, allow_graceful=False)
        out, _ = driver.communicate(timeout=1800)
        assert driver.returncode == 0, cluster.log("driver")
        result = json.loads(out)
        assert (result["points"], result["finished"], result["failed"]) == (10, 10, 0)
        check_done(cluster, points=10)


def check_done(cluster, *, points):
    """Every point is finished once, in one run, and nothing is left running."""
    study = cluster.study()
    progress = study.progress()
    assert (progress.planned, progress.finished) == (points, points)
    records = study.runs.records()
    assert {record.state for record in records} == {RunState.FINISHED}
    assert len({record.point.key for record in records}) == len(records) == points
    for record in records:
        steps = [step for step, _ in study.runs.curve(record.run_id)]
        assert steps == sorted(set(steps))


def test_a_server_with_users_is_reached_by_variables_alone(tmp_path):
    pytest.importorskip("flask_wtf", reason="pip install -c constraints.txt -e '.[server]'")
    shipped = (Path(__file__).parents[2] / "docker" / "mlflow-auth.ini").read_text()
    (tmp_path / "auth.ini").write_text(shipped.replace("/cache/users.db", str(tmp_path / "users.db")))
    given = small_study.write(tmp_path, sizes=2, budgets=[1e9])
    del given[given.index("--tracking") : given.index("--tracking") + 2]
    secrets = {"MLFLOW_AUTH_CONFIG_PATH": str(tmp_path / "auth.ini"), "MLFLOW_FLASK_SERVER_SECRET_KEY": "of the test"}
    secrets |= {"MLFLOW_AUTH_ADMIN_USERNAME": "admin", "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD}
    with mlflow_server(f"sqlite:///{tmp_path / 's.db'}", tmp_path, "--app-name", "basic-auth", **secrets) as tracking:
        cluster = Cluster(tmp_path, tracking, f"sqlite:///{tmp_path / 'queue.db'}")
        refused = cluster.command("stranger", "grid", *given)
        refused.communicate(timeout=900)
        assert refused.returncode == 1
        assert "MLFLOW_TRACKING_USERNAME" in cluster.log("stranger")
        add_user = Path(__file__).parents[2] / "docker" / "add_user.py"
        users = {"MLFLOW_TRACKING_URI": tracking, "WORKER_USERNAME": "skillscale", "WORKER_PASSWORD": f"{PASSWORD}2"}
        users |= {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": PASSWORD}
        for _ in range(2):  # the service starts again with each `up`
            subprocess.run([sys.executable, add_user], env={**os.environ, **users}, check=True)
        with pytest.MonkeyPatch.context() as patch:  # a user who is no admin
            patch.setenv("MLFLOW_TRACKING_USERNAME", "skillscale")
            patch.setenv("MLFLOW_TRACKING_PASSWORD", f"{PASSWORD}2")
            result = cluster.answer("driver", "grid", *given, "--workers", "1")
            assert (result["points"], result["finished"]) == (2, 2)
            check_done(cluster, points=2)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.name for path in written if PASSWORD.encode() in path.read_bytes()] == []
