"""Drills: a study of tiny deterministic points, the faults that disturb it, and the state of the study afterwards.

A drill starts workers on a new study and disturbs them. Then workers are started again, as a user would do, until no
point waits. The ``Outcome`` counts the points by their state. Nothing is trained: the trainer is a law with noise by
seed, so that the fitted law must equal that of the undisturbed study to the last digit.
"""

import math
import multiprocessing
import os
import random
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from skillscale.errors import DivergedError, TrackingError
from skillscale.execution import user_trainer, worker
from skillscale.point import DesignPoint, Mix
from skillscale.record import RunRecord, RunState

NAME, TRAINER, SKILLS = "drill", "law.py:train", ("code",)
WORKERS = 3
SHORT_TIMEOUT_S = 15.0  # of heartbeats: a busy machine lets them wait
PREPARED = (
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.tracking",
    "skillscale.tracking",
    "skillscale.execution.user_trainer",
)
# One process that has imported everything and opened nothing: a connection must not go through a fork
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([*PREPARED, "fault_drills"])


def points() -> list[DesignPoint]:
    """Return twelve points over sizes and tokens, enough for a law."""
    mix = Mix({"code": 1.0})
    grid = [(N, D) for N in (10_000, 30_000, 90_000, 270_000) for D in (300_000, 2_000_000, 14_000_000)]
    return [DesignPoint(n_params=N, n_tokens=D, mix=mix, seed=seed) for seed, (N, D) in enumerate(grid)]


def loss_of(n_params: int, n_tokens: int, seed: int) -> float:
    """Return the loss by a Chinchilla law, with noise by seed."""
    truth = 1.7 + 400 * n_params**-0.34 + 410 * n_tokens**-0.28
    return truth * math.exp(0.003 * random.Random(seed).gauss(0, 1))


@dataclass(kw_only=True)
class Trainer:
    """A stand-in for the process of a user's trainer.

    ``pause_s``: time of a run, s. ``nan_at``: seeds whose run diverges. ``stall_at``: seeds where this process stops,
    until another process wakes it up.
    """

    pause_s: float = 0.05
    nan_at: tuple[int, ...] = ()
    stall_at: tuple[int, ...] = ()

    def ask(
        self, n_params: int, n_tokens: int, mix: Mapping[str, float], seed: int, watch: Callable[[], None] = bool
    ) -> dict[str, tuple[float, float]]:
        time.sleep(self.pause_s)
        if seed in self.nan_at:
            raise DivergedError("diverged: loss is nan")
        if seed in self.stall_at:
            os.kill(os.getpid(), signal.SIGSTOP)
        watch()
        return {"code": (loss_of(n_params, n_tokens, seed), 0.003)}


@dataclass(frozen=True, kw_only=True)
class Orders:
    """The ways in which a worker of a drill differs from others.

    ``skew_s``: seconds by which its clock is ahead. ``room``: bytes that it may add to any file; -1: any. ``host``:
    name of the machine in its claims. ``config``: text that it writes with each run as an artifact.
    """

    trainer: Trainer = field(default_factory=Trainer)
    skew_s: float = 0.0
    room: int = -1
    host: str = ""
    config: str = ""
    retry_failed: bool = False


def work(uri: str, folder: str, orders: Orders) -> None:
    """Run a worker process: the loop and the writer of skillscale, with the trainer of the drill."""
    log = Path(folder) / "log" / f"{os.getpid()}.txt"
    with log.open("w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        if orders.skew_s:
            true_time = time.time
            time.time = lambda: true_time() + orders.skew_s
        if orders.host:
            socket.gethostname = lambda: orders.host
        if orders.room >= 0:
            size = Path(uri.removeprefix("sqlite:///")).stat().st_size + orders.room
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

        def progress(text: str) -> None:
            output.write(f"{text}\n")
            output.flush()

        study = opened(uri, folder)
        worker.work(study, lambda writer: _train(writer, orders), progress, retry_failed=orders.retry_failed)


def _train(writer: Any, orders: Orders) -> RunRecord:
    if not orders.config:
        return user_trainer.train_claimed(writer, orders.trainer)  # type: ignore[arg-type]
    point = writer.point
    with writer:
        writer.begin(config_yaml=orders.config)
        losses = orders.trainer.ask(point.n_params, point.n_tokens, point.mix.shares, point.seed)
        from skillscale.record import Measurement

        return writer.finish(skills={name: Measurement(loss=loss, sem=sem) for name, (loss, sem) in losses.items()})


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The state of a study after a drill.

    ``lost``: points that are neither finished nor failed with a reason. ``doubled``: points with two finished runs, or
    with a number that was written twice. ``running``: runs that are RUNNING without an owner. ``starts``: workers that
    were started.
    """

    points: int
    finished: int
    failed: int
    lost: int
    doubled: int
    running: int
    same_law: bool
    starts: int
    seconds: float

    @property
    def is_whole(self) -> bool:
        """Whether no point is lost or doubled, no run is RUNNING, and the law is that of the undisturbed study."""
        return not (self.lost or self.doubled or self.running) and self.same_law


class Scene:
    """A study in a store, and the processes at it.

    Args:
        folder: folder for a sqlite store, its artifacts, its queue, and the output of the workers.
        uri: tracking URI of another store.
        chance: random numbers that decide which worker a drill hits, and when.
    """

    def __init__(self, folder: Path, uri: str = "", *, chance: random.Random | None = None) -> None:
        (folder / "log").mkdir(parents=True, exist_ok=True)
        self.folder, self.uri = folder, uri or f"sqlite:///{folder}/runs.db"
        self.chance = chance or random.Random(0)
        self.crew: list[Any] = []
        self.study = opened(self.uri, str(folder))
        self.study.add_points(points())
        self._began = time.monotonic()

    def start(self, count: int = 1, orders: Orders | None = None) -> None:
        """Start workers."""
        for _ in range(count):
            process = PROCESSES.Process(target=work, args=(self.uri, str(self.folder), orders or Orders()))
            process.start()
            self.crew.append(process)

    def kill_one(self) -> None:
        """SIGKILL one of the living workers."""
        if living := [process for process in self.crew if process.is_alive()]:
            process = self.chance.choice(living)
            process.kill()
            process.join()

    def wait(self, seconds: float = 300.0) -> None:
        """Wait until all workers have ended."""
        until = time.monotonic() + seconds
        for process in self.crew:
            process.join(max(0.0, until - time.monotonic()))
            assert not process.is_alive(), f"a worker did not end within {seconds:g} s: {self.logs()}"

    def wait_for(self, condition: Callable[[], bool], seconds: float = 300.0) -> None:
        """Wait until a condition holds."""
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, f"{self.study.progress()} after {seconds:g} s: {self.logs()}"
            time.sleep(0.1)

    def answers(self) -> bool:
        """Return whether the store can be read."""
        try:
            self.study.progress()
        except TrackingError:
            return False
        return True

    def wait_for_points(self, count: int) -> None:
        """Wait until at least this number of points is finished."""
        self.wait_for(lambda: self.study.progress().finished >= count)

    def end(self, orders: Orders | None = None, *, rounds: int = 12) -> None:
        """Start a worker again and again, as long as a point waits."""
        self.wait()
        for _ in range(rounds):
            done = opened(self.uri, str(self.folder)).progress()  # with clocks far apart, a long-lived reader is late
            if done.finished + done.failed == done.planned:
                break
            self.start(1, orders)
            self.wait()

    def logs(self) -> str:
        """Return the end of every worker's output."""
        return "\n".join(f"{path.name}: {path.read_text()[-300:]}" for path in sorted(self.folder.glob("log/*.txt")))

    def outcome(self) -> Outcome:
        """Return the outcome as a new process sees it in the store."""
        study = opened(self.uri, str(self.folder))
        records, store = study.runs.records(), study._store
        finished = Counter(run.point.key for run in records if run.state is RunState.FINISHED)
        failed = {run.point.key for run in records if run.state is RunState.FAILED and run.reason} - finished.keys()
        planned = {point.key for point in study.points()}
        again = [run for run in records if run.state is RunState.FINISHED and _is_written_twice(store, run.run_id)]
        everything = store.search([study.experiment_id, study.study_experiment_id])
        return Outcome(
            points=len(planned), finished=len(finished), failed=len(failed),
            lost=len(planned - finished.keys() - failed),
            doubled=sum(count - 1 for count in finished.values()) + len(again),
            running=sum(run.info.status in ("RUNNING", "SCHEDULED") for run in everything),
            same_law=law_of(records) == undisturbed(), starts=len(self.crew), seconds=time.monotonic() - self._began,
        )  # fmt: skip


def opened(uri: str, folder: str, heartbeat_timeout_s: float | None = None) -> Any:
    """Return the study as every process opens it, with the queue that the folder's file ``queue`` names, if any."""
    from skillscale.tracking import StudyStore

    store = StudyStore.open(
        uri, cache=Path(folder) / "cache", queue=_queue(folder), heartbeat_timeout_s=heartbeat_timeout_s
    )
    return store.open_trainer_study(NAME, trainer=TRAINER, skills=SKILLS)


def _queue(folder: str) -> str:
    file = Path(folder) / "queue"
    return file.read_text() if file.exists() else ""


def _is_written_twice(store: Any, run_id: str) -> bool:
    return any(len(store._client.get_metric_history(run_id, name)) != 1 for name in ("skill_loss/code", "log10_flops"))


def law_of(records: list[RunRecord]) -> tuple[float, ...]:
    """Return the law of the finished runs, whatever the order of their ends."""
    return _fitted({run.point.key: (run.point, run.skills["code"].loss) for run in records if run.skills})


@cache
def undisturbed() -> tuple[float, ...]:
    """Return the law of all points."""
    return _fitted({point.key: (point, loss_of(point.n_params, point.n_tokens, point.seed)) for point in points()})


def _fitted(losses: Mapping[str, tuple[DesignPoint, float]]) -> tuple[float, ...]:
    import numpy as np

    from skillscale.laws.fit.data import RunData
    from skillscale.laws.fit.fit import fit_law

    rows = [(point.n_params, point.n_tokens, loss) for _, (point, loss) in sorted(losses.items())]
    N, D, L = np.array(rows, dtype=float).T
    return tuple(float(value) for value in fit_law(RunData(N=N, D=D, L=L), starts=4).theta)


# Drills. A drill may return before its workers end: the caller waits for them, and looks


def nothing(scene: Scene) -> None:
    """Three workers, undisturbed."""
    scene.start(WORKERS)


def worker_killed(scene: Scene) -> None:
    """SIGKILL of a worker at four random moments; another is started each time."""
    scene.start(WORKERS, Orders(trainer=Trainer(pause_s=0.2)))
    for _ in range(4):
        time.sleep(scene.chance.uniform(0.2, 1.5))
        scene.kill_one()
        scene.start(1, Orders(trainer=Trainer(pause_s=0.2)))


def all_killed(scene: Scene) -> None:
    """SIGKILL of all workers at once, in the middle."""
    scene.start(WORKERS, Orders(trainer=Trainer(pause_s=0.2)))
    scene.wait_for_points(scene.chance.randrange(1, 8))
    for _ in range(WORKERS):
        scene.kill_one()


def worker_stopped(scene: Scene) -> None:
    """A worker hangs (SIGSTOP) in a point while others do the rest, then goes on."""
    scene.start(1, Orders(trainer=Trainer(stall_at=(2,))))
    scene.start(WORKERS - 1)
    scene.wait_for_points(len(points()) - 1)
    os.kill(scene.crew[0].pid, signal.SIGCONT)


def woken_late(scene: Scene) -> None:
    """A worker of another machine hangs in a point, which others take over and finish; then it wakes up."""
    scene.study = opened(scene.uri, str(scene.folder), SHORT_TIMEOUT_S)
    scene.start(1, Orders(trainer=Trainer(stall_at=(0,)), host="elsewhere"))
    scene.wait_for(lambda: _is_stopped(scene.crew[0].pid))
    assert len(scene.study.close_stale()) == 1
    scene.start(WORKERS - 1)
    scene.wait_for_points(len(points()))
    os.kill(scene.crew[0].pid, signal.SIGCONT)


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def machine_lost(scene: Scene) -> None:
    """SIGKILL of a worker of another machine; only its heartbeats show that it is gone."""
    scene.study = opened(scene.uri, str(scene.folder), SHORT_TIMEOUT_S)
    scene.start(1, Orders(trainer=Trainer(stall_at=(1,)), host="elsewhere"))
    scene.wait_for(lambda: _is_stopped(scene.crew[0].pid))
    scene.kill_one()
    scene.start(1)
    scene.wait()
    assert len(scene.study.close_stale()) == 1


def disk_full(scene: Scene) -> None:
    """The database can grow by some kilobytes for the first worker, and then no more."""
    scene.start(1, Orders(room=scene.chance.randrange(0, 120_000)))
    scene.wait()


def clocks_apart(scene: Scene) -> None:
    """Three machines whose clocks are an hour behind, right, and an hour ahead."""
    for skew_s in (3600.0, 0.0, -3600.0):
        scene.start(1, Orders(skew_s=skew_s, trainer=Trainer(pause_s=0.1)))
    scene.wait()


def database_locked(scene: Scene, seconds: float = 5.0) -> None:
    """Another writer holds the whole database for a while."""
    scene.start(WORKERS)
    scene.wait_for_points(1)
    with closing(sqlite3.connect(scene.uri.removeprefix("sqlite:///"), timeout=60)) as database:
        database.execute("BEGIN EXCLUSIVE")
        time.sleep(seconds)
        database.rollback()


def locked_for_long(scene: Scene) -> None:
    """The same for 30 s, which is more than MLflow waits."""
    database_locked(scene, 30.0)


def artifacts_down(scene: Scene, seconds: float = 3.0) -> None:
    """The artifact store takes nothing for a while."""
    place = scene.folder / "mlruns" / NAME
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(exist_ok=True)
    place.write_text("not a folder")
    scene.start(WORKERS, Orders(config="a: 1\n"))
    time.sleep(seconds)
    place.unlink()


def artifacts_down_for_a_minute(scene: Scene) -> None:
    """The same for a minute."""
    artifacts_down(scene, 60.0)


def nan_in_the_middle(scene: Scene) -> None:
    """Two runs diverge; they are reported, and tried once more on request."""
    scene.start(WORKERS, Orders(trainer=Trainer(nan_at=(3, 8))))
    scene.wait()
    reasons = [run.reason for run in scene.study.runs.records() if run.state is RunState.FAILED]
    assert reasons == ["diverged: loss is nan"] * 2, reasons
    scene.start(1, Orders(retry_failed=True))


def slow_machine(scene: Scene) -> None:
    """One of three machines is ten times slower."""
    scene.start(1, Orders(trainer=Trainer(pause_s=1.0)))
    scene.start(WORKERS - 1, Orders(trainer=Trainer(pause_s=0.1)))


def driver_killed(scene: Scene) -> None:
    """SIGKILL of the process that started the workers; they end by themselves, and another driver goes on."""
    for _ in range(2):
        driver = PROCESSES.Process(target=_drive, args=(scene.uri, str(scene.folder)))
        driver.start()
        before = scene.study.progress().finished
        scene.wait_for_points(before + scene.chance.randrange(1, 4))
        driver.kill()
        driver.join()
        scene.wait_for(lambda: not scene.study.holders())


def _drive(uri: str, folder: str) -> None:
    os.environ["SKILLSCALE_PARENT"] = str(os.getpid())  # as a launcher sets it for a worker
    orders = Orders(trainer=Trainer(pause_s=0.2))
    context = multiprocessing.get_context("fork")
    crew = [context.Process(target=work, args=(uri, folder, orders)) for _ in range(WORKERS)]
    for process in crew:
        process.start()
    for process in crew:
        process.join()


def trainer_hangs(scene: Scene) -> None:
    """The function of a user's trainer never returns for one point; the run fails, and is tried again on request."""
    file = scene.folder / "law.py"
    answer = "{'code': (loss_of(n_params, n_tokens, seed), .003)}"
    lines = ["import pathlib, sys, time", f"sys.path.insert(0, {str(Path(__file__).parent)!r})",
             "from fault_drills import loss_of", "MARK = pathlib.Path(__file__).with_name('hung')",
             "def train(n_params, n_tokens, mix, seed):", "    if seed == 5 and not MARK.exists():",
             "        MARK.touch(); time.sleep(1e6)", f"    return {answer}"]  # fmt: skip
    file.write_text("\n".join(lines))
    for retry in (False, True):
        process = PROCESSES.Process(target=_drive_trainer, args=(scene.uri, str(scene.folder), retry))
        process.start()
        scene.crew.append(process)
        scene.wait(600.0)
        reasons = [run.reason for run in scene.study.runs.records() if run.state is RunState.FAILED]
        assert len(reasons) == 1, scene.logs()
        assert "no answer within" in reasons[0], reasons


def _drive_trainer(uri: str, folder: str, retry: bool) -> None:
    from skillscale.config.options import UserTrainerOptions
    from skillscale.tracking import StudyStore

    store = StudyStore.open(uri, cache=Path(folder) / "cache", queue=_queue(folder))
    options = UserTrainerOptions(trainer=f"{folder}/law.py:train", timeout_s=45.0)
    user_trainer.train_with_user_trainer(store, NAME, options, print, retry_failed=retry)


def two_drivers(scene: Scene) -> None:
    """Two commands plan the same study and start workers for it."""
    for _ in range(2):
        assert opened(scene.uri, str(scene.folder)).add_points(points()) == 0
        scene.start(2)


DRILLS: dict[str, Callable[[Scene], None]] = {
    drill.__name__: drill
    for drill in (
        nothing, worker_killed, all_killed, worker_stopped, woken_late, machine_lost, disk_full, clocks_apart,
        database_locked, locked_for_long, artifacts_down, artifacts_down_for_a_minute, nan_in_the_middle, slow_machine,
        two_drivers, driver_killed, trainer_hangs,
    )
}  # fmt: skip


class Service:
    """A process group that serves on a port of this machine: started, killed with SIGKILL, started again."""

    def __init__(self, words: Sequence[str], folder: Path, port: int) -> None:
        self._words, self._folder, self._port = list(words), folder, port
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Service":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start, and wait until it listens."""
        with (self._folder / "service.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._words, cwd=self._folder, stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + 300
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=5).close()
            except OSError:
                assert time.monotonic() < until, (self._folder / "service.log").read_text()[-2000:]
                assert self._process.poll() is None, (self._folder / "service.log").read_text()[-2000:]
                time.sleep(0.3)
            else:
                return

    def kill(self) -> None:
        """SIGKILL to all of it."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def mlflow_server(folder: Path, backend: str, port: int) -> Service:
    """An MLflow server over a database."""
    words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return Service(
        [*words, "--backend-store-uri", backend, "--artifacts-destination", str(folder / "artifacts")], folder, port
    )


def service_killed(scene: Scene, service: Service, *, times: int = 2, down_s: float = 2.0) -> None:
    """SIGKILL of a service that the workers need, while they work; it comes back after a while."""
    for _ in range(times):
        scene.wait_for(scene.answers)  # what listens may still be recovering
        before = scene.study.progress().finished
        scene.start(WORKERS, Orders(trainer=Trainer(pause_s=0.2)))
        scene.wait_for_points(min(before + scene.chance.randrange(1, 4), len(points())))
        service.kill()
        time.sleep(down_s)
        service.start()
        scene.wait()
    scene.wait_for(scene.answers)


def disturbed(name: str, scene: Scene) -> Outcome:
    """A drill, and what is left after everything was ended as a user would."""
    DRILLS[name](scene)
    scene.end()
    return scene.outcome()
