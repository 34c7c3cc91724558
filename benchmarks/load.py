"""Many runs in one experiment: read, fitted and reported, beside ``mlflow.search_runs``; many writers at once.

    python benchmarks/load.py fill --runs 50000 --tracking sqlite:////tmp/load/runs.db
    python benchmarks/load.py read --runs 50000 --tracking sqlite:////tmp/load/runs.db --rounds 2
    python benchmarks/load.py write --writers 32 --points 256 --tracking sqlite:////tmp/load/writers.db
    python benchmarks/load.py sort --tracking sqlite:////tmp/load/small.db         (of a store filled with --runs 2000)

on an empty store each; on PostgreSQL with ``--tracking postgresql+psycopg2://USER@HOST:PORT/DATABASE``. ``fill`` makes
a study of a user's trainer with 20 metrics, 30 params and the tags of our runs each, its rows inserted in bulk.
``read`` times, each in a process of its own and one after the other in every round:

- ``search``: ``mlflow.search_runs``, a DataFrame of everything;
- ``wide``: the same DataFrame from our reader;
- ``study``: the study's records, checked, as the table that laws are fitted to;
- ``fit`` and ``report``: these commands with ``--law chinchilla``, reading included (in the first round alone).

``write``: processes that claim points, write them as training does and finish them. ``sort``: 20 runs by a metric, as
the UI asks for them, before and after the statistics that we gather. Seconds are without the imports; CPU seconds are
of the process (on PostgreSQL without those of its server); memory is the peak of the resident set. Rows are added to
benchmarks/results/load.csv (``--out``).
"""

import argparse
import csv
import json
import math
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "1")

import numpy as np
import pandas as pd

from skillscale.config import load
from skillscale.point import DesignPoint, Mix
from skillscale.record import (
    Measurement,
    ModelSize,
    OptimizerPlan,
    Provenance,
    RunCost,
    RunRecord,
    RunState,
    as_metrics,
    as_params,
)
from skillscale.tracking import StudyStore

RESULTS = Path(__file__).parent / "results" / "load.csv"
STUDY, TRAINER, SKILLS = "load", "load.py:train", ("code", "prose")
METRICS, PARAMS = 20, 30
SORTED_BY = "skill_loss/code"
COLUMNS = ("store", "what", "runs", "round", "wall_s", "cpu_s", "peak_mb", "told")
MIX = Mix({"code": 0.4, "prose": 0.6})
PROVENANCE = Provenance(config_hash="c0ffee", data_hash="da7a", code_version="1")
RUNS_PER_INSERT = 500


def points_of(n_runs: int) -> list[DesignPoint]:
    """Runs over 40 sizes and 20 ratios of tokens to parameters, as many seeds of each as are needed."""
    sizes, ratios = np.geomspace(1e6, 1e10, 40).round().astype(int), np.geomspace(2, 2000, 20)
    cells = [(int(N), int(N * ratio)) for N in sizes for ratio in ratios]
    return [
        DesignPoint(n_params=cells[at % 800][0], n_tokens=cells[at % 800][1], mix=MIX, seed=at // 800)
        for at in range(n_runs)
    ]


def measured(point: DesignPoint, rng: np.random.Generator) -> dict[str, Measurement]:
    """Losses by two Chinchilla laws, with .3 % of noise."""
    N, D = point.n_params, point.n_tokens
    truth = {"code": 1.2 + 300 * N**-0.33 + 500 * D**-0.29, "prose": 1.8 + 480 * N**-0.35 + 2100 * D**-0.37}
    return {
        name: Measurement(loss=loss * math.exp(0.003 * rng.normal()), sem=0.003 * loss) for name, loss in truth.items()
    }


def parts_of(point: DesignPoint) -> dict[str, object]:
    """What is recorded of a run beside its losses."""
    N = point.n_params
    return {
        "size": ModelSize(n_params=N, n_params_nonembed=N // 2, n_params_embed=N - N // 2, depth=4, width=64, n_heads=4,
                     vocab_size=512, context=1024),
        "optimizer_plan": OptimizerPlan(lr=1e-3, batch_sequences=64, steps=1000, warmup_steps=50),
        "provenance": PROVENANCE,
    }  # fmt: skip


def fill(tracking: str, n_runs: int) -> None:
    """A study with so many finished runs, inserted in bulk."""
    import sqlalchemy
    from mlflow.store.tracking.dbmodels import models

    registry = StudyStore.open(tracking, cache=_cache())
    study = registry.open_trainer_study(STUDY, trainer=TRAINER, skills=SKILLS)
    rng, at = np.random.default_rng(0), int(time.time() * 1000)
    cost = RunCost(flops_exact=1.0, tokens_per_s=1e4, matmul_share=0.4, train_s=10.0, eval_s=1.0)
    engine = sqlalchemy.create_engine(tracking)
    points = points_of(n_runs)
    for first in range(0, n_runs, RUNS_PER_INSERT):
        rows: dict[str, list[dict[str, object]]] = {
            name: [] for name in ("runs", "params", "latest", "metrics", "tags")
        }
        for number, point in enumerate(points[first : first + RUNS_PER_INSERT], first):
            record = RunRecord(run_id=f"{number:032x}", study=STUDY, state=RunState.FINISHED, reason="", point=point,
                               cost=cost, skills=measured(point, rng), **parts_of(point))  # fmt: skip
            _rows_of(record, study.experiment_id, at + number, rows)
        tables = (models.SqlRun, models.SqlParam, models.SqlLatestMetric, models.SqlMetric, models.SqlTag)
        with engine.begin() as connection:
            for table, each in zip(tables, rows.values(), strict=True):
                connection.execute(sqlalchemy.insert(table.__table__), each)
    print(f"{n_runs} runs in {tracking}")


def _rows_of(record: RunRecord, experiment_id: str, at: int, rows: dict[str, list[dict[str, object]]]) -> None:
    """The rows of a run in MLflow's tables, brought to so many metrics and params."""
    run, point = {"run_uuid": record.run_id}, record.point
    params = as_params(record)
    params |= {f"other_{n}": f"value {n}" for n in range(PARAMS - len(params))}
    metrics = as_metrics(record)
    metrics |= {f"other_{n}": float(n) for n in range(METRICS - len(metrics))}
    metrics = dict(list(metrics.items())[-METRICS:])  # the losses come last
    tags = {"study": STUDY, "kind": "point", "state": "finished", "point_key": point.key, "attempt": "1", "deaths": "0",
            "point": json.dumps(point.as_dict()), "owner": "elsewhere:1:0", "claimed": f"{at / 1000:.3f}"}  # fmt: skip
    named = {f"skillscale.{key}": value for key, value in tags.items()} | {"mlflow.user": "load"}
    row = {"name": f"run {at}", "status": "FINISHED", "lifecycle_stage": "active", "start_time": at, "end_time": at,
           "experiment_id": int(experiment_id), "user_id": "load", "artifact_uri": "none", "source_type": "LOCAL",
           "source_name": "", "entry_point_name": "", "source_version": ""}  # fmt: skip
    rows["runs"].append(run | row)
    rows["params"] += [{**run, "key": key, "value": value} for key, value in params.items()]
    numbers = [
        {**run, "key": key, "value": value, "timestamp": at, "step": 0, "is_nan": False}
        for key, value in metrics.items()
    ]
    rows["latest"] += numbers
    rows["metrics"] += numbers
    rows["tags"] += [{**run, "key": key, "value": value} for key, value in named.items()]


def search(tracking: str) -> str:
    """MLflow's own way to a DataFrame."""
    import mlflow

    mlflow.set_tracking_uri(tracking)
    frame = mlflow.search_runs(experiment_names=[STUDY], max_results=1_000_000)
    return f"{len(frame)} x {_count(frame, 'metrics.')} x {_count(frame, 'params.')}"


def wide(tracking: str) -> str:
    """The same from our reader."""
    frame = pd.DataFrame([run.fields for run in StudyStore.open(tracking, cache=_cache()).experiment_runs(STUDY)])
    return f"{len(frame)} x {_count(frame, 'metrics.')} x {_count(frame, 'params.')}"


def study(tracking: str) -> str:
    """The study's table."""
    from skillscale.tables.read import table_of_records

    records = StudyStore.open(tracking, cache=_cache()).study(STUDY).runs.records()
    table = table_of_records(records, SKILLS)
    return f"{len(table.runs)} rows, loss {table.runs['code'].mean():.6f}"


def fit(tracking: str) -> str:
    """The command ``fit``."""
    return _command(tracking, ["fit"])


def report(tracking: str) -> str:
    """The command ``report``."""
    with tempfile.TemporaryDirectory() as folder:
        return _command(tracking, ["report", "--page", f"{folder}/page.html"])


def _command(tracking: str, words: list[str]) -> str:
    from skillscale import cli

    with tempfile.TemporaryFile("w+") as told:
        out, sys.stdout = sys.stdout, told
        try:
            code = cli.main([*words, "--study.name", STUDY, "--tracking", tracking, "--law", "chinchilla", "--json"])
        finally:
            sys.stdout = out
        told.seek(0)
        skills = json.loads(told.read())["skills"]
    return f"exit {code}, " + ", ".join(f"{name} alpha {one['theta']['alpha']:.4f}" for name, one in skills.items())


def _count(frame: pd.DataFrame, prefix: str) -> int:
    return sum(name.startswith(prefix) for name in frame.columns)


READINGS = {one.__name__: one for one in (search, wide, study, fit, report)}


def one_reading(tracking: str, what: str) -> None:
    """A reading in this process; what it took as JSON."""
    import mlflow.store.tracking.sqlalchemy_store
    import mlflow.tracking  # noqa: F401  # seconds that no way of reading is to blame for

    import skillscale.analysis  # noqa: F401

    began, cpu = time.perf_counter(), _cpu_s()
    told = READINGS[what](tracking)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    row = {"wall_s": time.perf_counter() - began, "cpu_s": _cpu_s() - cpu, "peak_mb": peak, "told": told}
    print(json.dumps(row))


def _cpu_s() -> float:
    """CPU seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


def read(tracking: str, n_runs: int, rounds: int, readings: Sequence[str]) -> list[dict[str, object]]:
    """Every reading in turn, in each round."""
    rows: list[dict[str, object]] = []
    for number in range(rounds):
        for what in readings:
            if number and what in ("fit", "report"):
                continue
            words = [sys.executable, "-W", "ignore", __file__, "one", "--what", what, "--tracking", tracking]
            done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
            row = {"what": what, "runs": n_runs, "round": number, **json.loads(done.stdout.splitlines()[-1])}
            print(row, flush=True)
            rows.append(row)
    return rows


def write(tracking: str, writers: int, n_points: int) -> list[dict[str, object]]:
    """So many processes at once on one study."""
    registry = StudyStore.open(tracking, cache=_cache())
    config = load(study="smoke")
    study = registry.open_study(STUDY, config)
    study.add_points(points_of(n_points))
    # Forks of a process that has imported everything and opened nothing: a connection must not go through a fork
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlflow.store.tracking.sqlalchemy_store", "skillscale.tracking", "pandas"])
    errors: multiprocessing.Queue[str] = context.Queue()
    began = time.perf_counter()
    crew = [context.Process(target=_write_points, args=(tracking, errors)) for _ in range(writers)]
    for one in crew:
        one.start()
    for one in crew:
        one.join()
    wall = time.perf_counter() - began
    told = [errors.get() for _ in range(writers)]
    records = registry.study(STUDY).runs.records()
    states, seeds = Counter(one.state for one in records), Counter(one.point.key for one in records)
    failed = [text for text in told if text]
    print(*failed, sep="\n")
    summary = (
        f"{writers} writers, {states[RunState.FINISHED]} of {n_points} finished, {len(records) - len(seeds)} doubled, "
        f"{len(failed)} errors, {sum(one.exitcode != 0 for one in crew)} died"
    )
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    row = {"what": "write", "runs": n_points, "round": 0, "wall_s": wall, "cpu_s": used.ru_utime + used.ru_stime,
           "peak_mb": used.ru_maxrss / 1024, "told": summary}  # fmt: skip
    print(row)
    return [row]


def _write_points(tracking: str, errors: "multiprocessing.Queue[str]") -> None:
    error = ""
    try:
        study = StudyStore.open(tracking, cache=_cache()).study(STUDY)
        rng = np.random.default_rng(os.getpid())
        while (writer := study.claim()) is not None:
            with writer:
                writer.begin(**parts_of(writer.point), config_yaml="a: 1\n")  # type: ignore[arg-type]
                for step in range(1, 21):
                    writer.curve(1000 * step, 5.0 - step / 10)
                writer.finish(skills=measured(writer.point, rng))
    except Exception as caught:  # every kind is what is counted here
        error = f"{type(caught).__name__}: {caught}"
    errors.put(error)


def sort(tracking: str) -> list[dict[str, object]]:
    """What the UI asks for, before and after statistics are gathered."""
    from mlflow.tracking import MlflowClient

    registry = StudyStore.open(tracking, cache=_cache())
    client, experiment = MlflowClient(tracking), registry.study(STUDY).experiment_id
    rows: list[dict[str, object]] = []
    for what in ("sort as filled", "sort with statistics"):
        began, cpu = time.perf_counter(), time.process_time()
        client.search_runs([experiment], order_by=[f"metrics.`{SORTED_BY}` ASC"], max_results=20)
        took = {"wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}
        rows.append(
            {
                "what": what,
                "runs": len(registry.study(STUDY).runs.records()),
                "round": 0,
                **took,
                "peak_mb": 0,
                "told": "",
            }
        )
        print(rows[-1])
        registry.gather_statistics()
    return rows


def _cache() -> Path:
    return Path(tempfile.gettempdir()) / "skillscale-load"


def _keep(path: Path, tracking: str, rows: list[dict[str, object]]) -> None:
    """Add rows to the results; a reading of the same store and size replaces the older one."""
    named = [{"store": tracking.partition(":")[0].partition("+")[0], **row} for row in rows]
    for row in named:
        row |= {name: f"{row[name]:.1f}" for name in ("wall_s", "cpu_s", "peak_mb")}
    old = list(csv.DictReader(path.open())) if path.exists() else []
    new = {(row["store"], row["what"], str(row["runs"])) for row in named}
    kept = [row for row in old if (row["store"], row["what"], row["runs"]) not in new]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=COLUMNS)
        writer.writeheader()
        writer.writerows([*kept, *named])


def main() -> None:
    """Fill, read, write or sort."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=("fill", "read", "write", "sort", "one"))
    parser.add_argument("--tracking", required=True)
    parser.add_argument("--runs", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--readings", default=",".join(READINGS))
    parser.add_argument("--writers", type=int, default=32)
    parser.add_argument("--points", type=int, default=256)
    parser.add_argument("--what", default="")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.do == "fill":
        fill(args.tracking, args.runs)
    elif args.do == "one":
        one_reading(args.tracking, args.what)
    elif args.do == "read":
        _keep(args.out, args.tracking, read(args.tracking, args.runs, args.rounds, args.readings.split(",")))
    elif args.do == "write":
        _keep(args.out, args.tracking, write(args.tracking, args.writers, args.points))
    else:
        _keep(args.out, args.tracking, sort(args.tracking))


if __name__ == "__main__":
    main()
