"""Ten thousand workers at one study, simulated: how busy they are, and what holds them up; and what a study costs.

    python benchmarks/many_workers.py measure             seconds of a claim and of choosing points, on this machine
    python benchmarks/many_workers.py queue               seconds of a claim from the queue, journal and sqlite
    python benchmarks/many_workers.py simulate            a day of 10 to 10,000 workers with those seconds
    python benchmarks/many_workers.py writes              calls a second to the tracking store and to the queue
    python benchmarks/many_workers.py cost --study skills-paper --gpus 1024      GPU-hours, hours, disk space of a study

``queue`` times, in CPU seconds, what a claim costs the queue: a look at every key and the change of one trial, by a
process that has looked before; and the first look. Keys wait, have ended or are running. Rows go to
benchmarks/results/queue_seconds.csv.

``measure`` times, in CPU seconds, the whole path of a claim (a sqlite store with its default queue) with points under
way and points planned, and the real chooser (``skillscale.design.propose``: three skills, up to 500 runs) asked for
one point or for many at once. ``simulate`` takes both for straight lines in these numbers (assumption).

``simulate`` is a simulation of discrete events. A worker waits for a point to be chosen, waits for its turn to claim it
(one at a time: the queue is under a lock), trains, and asks again. Times of runs are log-uniform over three decades, an
hour in the mean. All workers begin at once, and nothing is known: the worst there is. **Busy**: share of the time of
all workers, over a day, in which they train. Choosers: ``each`` asks for one point for each worker that is free, one
after the other; ``all`` asks once for all that are free by then, as the entry ``sample`` does; ``none``: a grid's
points are there from the start. Rows go to benchmarks/results/many_workers.csv, what was measured to
many_workers_seconds.csv beside it.
"""

import argparse
import csv
import heapq
import math
import os
import random
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "1")

import numpy as np

from skillscale.config import load
from skillscale.execution.grid import grid_points
from skillscale.point import DesignPoint, Mix

RESULTS = Path(__file__).parent / "results" / "many_workers.csv"
SECONDS = RESULTS.with_name("many_workers_seconds.csv")
QUEUE_SECONDS = RESULTS.with_name("queue_seconds.csv")
DAY_S, MEAN_RUN_S, DECADES = 86_400.0, 3_600.0, 3
CREWS = (10, 100, 1_000, 10_000)
BYTES_PER_WEIGHT = 12  # of a checkpoint: a weight and two moments of Adam, four bytes each
# Counted in the store of the study `skills-night`: 19 params, 169 metrics and 170 last values of them, 16 tags, 20 data
# sets; its loss curve. Calls: search, run, beginning, data sets, settings; look, results and status at the end.
ROWS_PER_RUN, CURVE_ROWS, CALLS_PER_RUN = 394, 100, 8
# The point is queued; taken, its owner, heartbeat and time; run; N, D and four shares, reason, time; ended
QUEUE_CALLS_PER_RUN = 15


@dataclass(frozen=True, kw_only=True)
class Line:
    """Seconds that go with two numbers: ``base + first x + second y``."""

    base: float
    first: float
    second: float

    def __call__(self, x: float, y: float) -> float:
        """Seconds."""
        return self.base + self.first * x + self.second * y


# Measuring


def claim_seconds(running: int, planned: int) -> float:
    """CPU seconds of a claim with so many runs under way and points planned."""
    from skillscale.tracking import StudyStore

    mix = Mix({"code": 1.0})
    with tempfile.TemporaryDirectory() as folder:
        study = StudyStore.open(f"sqlite:///{folder}/runs.db", cache=Path(folder)).open_trainer_study(
            "many", trainer="law.py:train", skills=("code",)
        )
        study.add_points([DesignPoint(n_params=10_000, n_tokens=10**6, mix=mix, seed=one) for one in range(planned)])
        queue = study._queue.open()  # noqa: SLF001  # a claim without its run
        for item in queue.entries()[:running]:
            queue.take(item, "elsewhere:1:0").abandon()
        took = []
        for _ in range(5):
            began = time.process_time()
            study.claim("elsewhere:1:0")
            took.append(time.process_time() - began)
    return statistics.median(took)


def queue_seconds(file: str, waiting: int, ended: int, running: int) -> dict[str, float]:
    """CPU seconds of the first look at a queue, of a later look, and of taking a key.

    Args:
        file: ``queue.journal`` or ``queue.db``.
        waiting, ended, running: number of keys by state.
    """
    from skillscale.tracking.queue import PointQueue, PriorOutcome
    from skillscale.tracking.queue_storage import QueueStorage

    mix = Mix({"code": 0.5, "prose": 0.5})
    seeds = range(waiting + ended + running)
    points = [DesignPoint(n_params=10_000, n_tokens=10**6, mix=mix, seed=seed) for seed in seeds]
    jobs = [(point.key, {"point": point.as_dict()}) for point in points]
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/{file}" if file.endswith(".db") else f"{folder}/{file}"
        queue = PointQueue(QueueStorage(url), "many", 86_400.0)
        queue.add(jobs, {key: PriorOutcome(status="FINISHED", value=2.5) for key, _ in jobs[:ended]})
        for item in queue.entries()[ended : ended + running]:
            queue.take(item, "elsewhere:1:0").abandon()
        began = time.process_time()
        queue = PointQueue(QueueStorage(url), "many")
        looks, takes = [], []
        for _ in range(4):
            items = queue.entries()
            looked = time.process_time()
            queue.take(next(item for item in items if item.status == "WAITING"), "elsewhere:1:0").abandon()
            looks.append(looked - began)
            began = time.process_time()
            takes.append(began - looked)
    return {"first_s": looks[0], "look_s": statistics.median(looks[1:]), "take_s": statistics.median(takes)}


def measure_queue(path: Path) -> None:
    """Time claims from a queue, and write the rows."""
    cells = ((1_000, 0, 0), (10_000, 0, 0), (9_900, 0, 100), (9_000, 0, 1_000), (100, 9_900, 0))
    rows = []
    for file in ("queue.journal", "queue.db"):
        for waiting, ended, running in cells:
            seconds = queue_seconds(file, waiting, ended, running)
            row = {"queue": Path(file).suffix[1:], "waiting": waiting, "ended": ended, "running": running}
            rows.append(row | {name: f"{value:.4f}" for name, value in seconds.items()})
            print(rows[-1], flush=True)
    with path.open("w", newline="") as file_:
        writer = csv.DictWriter(file_, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def choice_seconds(count: int, finished: int) -> float:
    """CPU seconds of choosing so many points when so many runs are known."""
    from skillscale.design.propose import DesignGoal, propose
    from skillscale.design.space import DesignSpace, RunHistory
    from skillscale.design.targets import default_targets
    from skillscale.simulation.random_truths import FLOPS, SKILLS, TruthFamily, random_truth

    space, rng = DesignSpace(flops=FLOPS, replicates=1), np.random.default_rng(0)
    C = np.exp(rng.uniform(*np.log(FLOPS), finished))
    ratio = np.exp(rng.uniform(*np.log(space.ratio), finished))
    N, D = np.sqrt(C / 6 / ratio), np.sqrt(C / 6 * ratio)
    log_L = random_truth(TruthFamily.COUPLED_DRIFTING, 0).measure(N, D, None, rng)[0]
    history = RunHistory(N=N, D=D, log_L=log_L, sem={name: np.zeros(finished) for name in SKILLS})
    targets = default_targets(SKILLS, largest=FLOPS[1], computes=(1e21,), mixes=[()])
    wish = DesignGoal(targets=targets, budget=1e6 * FLOPS[1])
    began = time.process_time()
    advice = propose(history, space, wish, count=count)
    took = time.process_time() - began
    print(f"  asked for {count} points, got {len(advice.proposals)}, {advice.stop_reason}")
    return took


def measure(path: Path) -> None:
    """Time claims and choices, and keep them."""
    rows = []
    for what, seconds, cells in (
        ("claim", claim_seconds, ((0, 50), (0, 2000), (1000, 2000))),
        ("choose", choice_seconds, ((1, 100), (1, 500), (64, 500))),
    ):
        for first, second in cells:
            rows.append({"what": what, "first": first, "second": second, "cpu_s": f"{seconds(first, second):.4f}"})
            print(rows[-1], flush=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def lines(path: Path) -> dict[str, Line]:
    """Claims by runs under way and points planned, choices by points asked for and runs known: a plane each."""
    found = {}
    rows = list(csv.DictReader(path.open()))
    for what in ("claim", "choose"):
        cells = [[float(row[name]) for name in ("first", "second", "cpu_s")] for row in rows if row["what"] == what]
        design = np.array([[1.0, first, second] for first, second, _ in cells])
        solved = np.linalg.solve(design, np.array([seconds for *_, seconds in cells]))
        found[what] = Line(base=float(solved[0]), first=max(float(solved[1]), 0.0), second=max(float(solved[2]), 0.0))
        print(f"{what}: {found[what]}")
    return found


# Simulating


@dataclass(frozen=True, kw_only=True)
class Day:
    """What a day of a crew came to. ``waits``: seconds from being free to training, of a point, at most."""

    workers: int
    chooser: str
    queue: str
    busy: float
    points: int
    wait_median_s: float
    wait_95_s: float
    unknown: float


def day(
    workers: int, chooser: str, choice_s: Callable[[float, float], float], claim_s: Callable[[float, float], float],
    *, queue: str, seed: int = 0,
) -> Day:  # fmt: skip
    """Simulate a day.

    Args:
        workers: that begin at once.
        chooser: ``each``, or ``all`` that are free by then; ``none``: the points are a grid's, there from the start.
        choice_s: seconds to choose points, by their number and the runs known (at most 5,000 are looked at).
        claim_s: seconds to claim a point, by the runs under way and the points planned; one after the other.
        queue: its name.
        seed: of the times of runs.
    """
    chance = random.Random(seed)  # noqa: S311
    mean = (1 - 10**-DECADES) / (DECADES * math.log(10))  # of a log-uniform share of the longest
    longest = MEAN_RUN_S / mean
    events: list[tuple[float, int, str, list[int]]] = []
    wanting: deque[int] = deque(range(workers))
    claiming: deque[int] = deque()
    free_since = [0.0] * workers
    choosing = locked = False
    finished = under_way = planned = number = 0
    busy, waits, unknown = 0.0, [], []
    now = 0.0

    def at(delay: float, what: str, whom: list[int]) -> None:
        nonlocal number
        number += 1
        heapq.heappush(events, (now + delay, number, what, whom))

    while True:
        if chooser == "none":
            claiming.extend(wanting)
            planned += len(wanting)
            wanting.clear()
        elif wanting and not choosing:
            whom = [wanting.popleft() for _ in range(1 if chooser == "each" else len(wanting))]
            choosing = True
            at(choice_s(len(whom), min(finished, 5_000)), "chosen", whom)
        if claiming and not locked:
            locked = True
            at(claim_s(under_way, planned), "claimed", [claiming.popleft()])
        if not events or events[0][0] > DAY_S:
            break
        now, _, what, whom = heapq.heappop(events)
        if what == "chosen":
            choosing = False
            planned += len(whom)
            claiming.extend(whom)
        elif what == "claimed":
            locked = False
            under_way += 1
            waits.append(now - free_since[whom[0]])
            unknown.append(under_way)
            run = longest * 10 ** (-DECADES * chance.random())
            busy += min(run, DAY_S - now)
            at(run, "ended", whom)
        else:
            under_way -= 1
            finished += 1
            free_since[whom[0]] = now
            wanting.extend(whom)
    waits.sort()
    return Day(
        workers=workers, chooser=chooser, queue=queue, busy=busy / (workers * DAY_S), points=len(waits),
        wait_median_s=waits[len(waits) // 2], wait_95_s=waits[int(0.95 * len(waits))], unknown=statistics.mean(unknown),
    )  # fmt: skip


def simulate(path: Path, database_ms: Sequence[float]) -> None:
    """A day of every crew, chooser and queue."""
    measured = lines(SECONDS)
    queues: dict[str, Callable[[float, float], float]] = {"registry": measured["claim"]}
    queues |= {f"{one:g} ms": Line(base=one / 1000, first=0.0, second=0.0) for one in database_ms}
    rows = []
    for queue, claim_s in queues.items():
        for chooser in ("none", "each", "all"):
            for workers in CREWS:
                rows.append(asdict(day(workers, chooser, measured["choose"], claim_s, queue=queue)))
                told = {key: f"{value:.3g}" if isinstance(value, float) else value for key, value in rows[-1].items()}
                print(told, flush=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows({key: f"{v:.4g}" if isinstance(v, float) else v for key, v in row.items()} for row in rows)


# Costing


def curve_calls(run_s: float) -> int:
    """Calls that write the loss curve of a run, as ``RunWriter`` does; what is left goes in with its results."""
    from skillscale.tracking.run_writer import _FLUSH_EVERY_S, _FLUSH_SHARE

    calls, flushed, wait_s = 0, 0.0, _FLUSH_EVERY_S
    for at in (run_s * row / CURVE_ROWS for row in range(1, CURVE_ROWS)):
        if at - flushed > wait_s:
            calls, flushed, wait_s = calls + 1, at, max(_FLUSH_EVERY_S, _FLUSH_SHARE * at)
    return calls


def writes() -> None:
    """Calls and rows a second of crews whose runs take so long in the mean."""
    from skillscale.tracking.queue import HEARTBEAT_TIMEOUT_S, HEARTBEATS_PER_TIMEOUT

    for workers, run_s in ((16, 4.9 * 3600), (1_000, 3600.0), (10_000, 3600.0), (10_000, 60.0)):
        calls, runs = CALLS_PER_RUN + curve_calls(run_s), workers / run_s
        print(
            f"{workers:>6} workers, {run_s:g} s a run: {runs:.3g} runs/s; tracking store: {calls} calls a run, "
            f"{runs * calls:.3g}/s, {runs * (ROWS_PER_RUN + CURVE_ROWS):,.0f} rows/s; queue: "
            f"{runs * QUEUE_CALLS_PER_RUN:.3g}/s and "
            f"{workers * HEARTBEATS_PER_TIMEOUT / HEARTBEAT_TIMEOUT_S:,.0f} heartbeats/s"
        )


def cost(study: str, gpus: int, flops_per_s: float, mfu: float) -> None:
    """What a study costs on a cluster, by how many GPUs a run gets."""
    config = load(study=study, overrides={"model.context": "1024"})
    points, rate = [one.point for one in grid_points(config)], flops_per_s * mfu
    total = sum(point.flops for point in points)
    print(
        f"{study}: {len(points)} runs, {total:.4g} FLOP, {total / rate / 3600:,.0f} GPU-hours at {mfu:g} of "
        f"{flops_per_s:g} FLOP/s; on {gpus} GPUs at least {total / rate / gpus / 3600:.1f} h"
    )
    longest = max(point.flops for point in points)
    for each in (1, 8, 64, 128):
        hours = schedule([(point.flops, each) for point in points], gpus, rate)
        print(f"  {each:>4} GPUs a run: {hours:8.1f} h, of which the longest run {longest / each / rate / 3600:.1f} h")
    largest, tokens = max(point.n_params for point in points), max(point.n_tokens for point in points)
    rows = len(points) * (ROWS_PER_RUN + CURVE_ROWS)
    print(
        f"  largest N {largest:,}, a checkpoint of {largest * BYTES_PER_WEIGHT / 1e9:.0f} GB; tokens {tokens:.3g}, "
        f"{tokens * 2 / 1e12:.2f} TB at two bytes; tracking {rows:,} rows"
    )


def schedule(runs: Sequence[tuple[float, int]], gpus: int, rate: float) -> float:
    """Hours until runs of so many FLOP on so many GPUs each are done: whichever fits begins, the longest first."""
    waiting = sorted(runs, key=lambda run: -run[0] / run[1])
    free, now = gpus, 0.0
    running: list[tuple[float, int]] = []
    while waiting or running:
        for run in [*waiting]:
            if run[1] <= free:
                free -= run[1]
                waiting.remove(run)
                heapq.heappush(running, (now + run[0] / (run[1] * rate), run[1]))
        now, back = heapq.heappop(running)
        free += back
    return now / 3600


def main() -> None:
    """Measure, simulate or cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=("measure", "queue", "simulate", "writes", "cost"))
    parser.add_argument("--study", default="skills-paper")
    parser.add_argument("--gpus", type=int, default=1024)
    parser.add_argument("--gpu_flops", type=float, default=9.89e14)
    parser.add_argument("--mfu", type=float, default=0.4)
    parser.add_argument(
        "--claim_ms", type=float, nargs="*", default=[20.0], help="of other queues, whatever their length"
    )
    args = parser.parse_args()
    if args.do == "measure":
        measure(SECONDS)
    elif args.do == "queue":
        measure_queue(QUEUE_SECONDS)
    elif args.do == "simulate":
        simulate(RESULTS, args.claim_ms)
    elif args.do == "writes":
        writes()
    else:
        cost(args.study, args.gpus, args.gpu_flops, args.mfu)


if __name__ == "__main__":
    main()
