"""One worker against several on one Optuna study: doubled points, and how much less is known for the same FLOPs.

    python benchmarks/sampler_workers.py                                        sqlite and journal, 1 and 4 workers
    python benchmarks/sampler_workers.py --storages postgresql+psycopg2://USER@HOST/DB    on PostgreSQL, say

Workers are processes that share nothing but the storage; a run sleeps in proportion to its FLOPs, so that dear ones are
under way while others ask. World, space and targets are those of ``benchmarks/design.py``, the budget is 2.55 of the
largest run, and no point may be run twice. **Gain**: fall of the mean ln sd of the targets from the eight runs of the
start, which are the same for all, to all runs that the budget buys. Rows go to benchmarks/results/sampler_workers.csv
(``--out``).
"""

import argparse
import csv
import math
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from skillscale.design.model_averaging import estimate_targets
from skillscale.design.propose import START
from skillscale.design.space import DesignSpace, RunHistory
from skillscale.design.targets import default_targets
from skillscale.sampler import SkillLawSampler, is_beyond, stop_when_done
from skillscale.simulation.random_truths import FLOPS, SKILLS, TruthFamily, random_truth

RESULTS = Path(__file__).parent / "results" / "sampler_workers.csv"
BUDGET = 2.55 * FLOPS[1]
SPACE = DesignSpace(flops=FLOPS, replicates=1)
BOX = {"log_flops": FloatDistribution(*np.log(FLOPS)), "log_ratio": FloatDistribution(*np.log(SPACE.ratio))}
TARGETS = default_targets(SKILLS, largest=FLOPS[1], computes=(1e21,), mixes=[()])
SLEEP_S = 4.0  # of the largest run
NAME = "workers"


def storage_of(place: str) -> BaseStorage:
    """Of a URL, or of a journal file."""
    if place.endswith(".journal"):
        return JournalStorage(JournalFileBackend(place))
    return RDBStorage(place, engine_kwargs={"connect_args": {"timeout": 60}} if place.startswith("sqlite") else None)


def work(place: str, kind: str, seed: int) -> None:
    """Run trials until the sampler says that the budget is spent."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    world = random_truth(TruthFamily(kind), seed)

    def objective(trial: optuna.Trial) -> float:
        C, ratio = (math.exp(trial.suggest_float(name, one.low, one.high)) for name, one in BOX.items())
        if is_beyond(trial):
            raise optuna.TrialPruned
        N, D = math.sqrt(C / 6 / ratio), math.sqrt(C / 6 * ratio)
        time.sleep(SLEEP_S * C / FLOPS[1])
        chance = np.random.default_rng([seed, int(1e6 * math.log(N)), int(1e6 * math.log(D))])
        for skill, log_L in world.observe(np.array([N]), np.array([D]), None, chance).items():
            trial.set_user_attr(f"loss/{skill}", math.exp(float(log_L[0])))
        return 0.0

    sampler = SkillLawSampler(skills=SKILLS, space=SPACE, targets=TARGETS, budget=BUDGET, search_space=BOX, seed=seed)
    study = optuna.load_study(study_name=NAME, storage=storage_of(place), sampler=sampler)
    study.optimize(objective, n_trials=1000, callbacks=[stop_when_done])


def study_of(place: str, kind: str, seed: int, workers: int) -> dict[str, object]:
    """Make a study with so many workers; what came of it."""
    optuna.create_study(study_name=NAME, storage=storage_of(place), load_if_exists=False)
    begin = time.perf_counter()
    crew = [multiprocessing.get_context("spawn").Process(target=work, args=(place, kind, seed)) for _ in range(workers)]
    for one in crew:
        one.start()
    for one in crew:
        one.join()
    seconds = time.perf_counter() - begin
    trials = optuna.load_study(study_name=NAME, storage=storage_of(place)).get_trials(deepcopy=False)
    done = [one for one in trials if one.state is TrialState.COMPLETE]  # by number: the start comes first
    points = [tuple(round(one.params[name], 6) for name in BOX) for one in done]
    spent = sum(float(SPACE.cost(1.0, math.exp(one.params["log_flops"]) / 6)) for one in done)
    return {
        "workers": workers, "runs": len(done), "failed": sum(one.state is TrialState.FAIL for one in trials),
        "left_running": sum(one.state is TrialState.RUNNING for one in trials),
        "doubled": len(points) - len(set(points)), "spent": f"{spent / FLOPS[1]:.3f}",
        "gain": f"{_sd(done[:START]) - _sd(done):.4f}", "seconds": f"{seconds:.1f}",
        "died": sum(one.exitcode != 0 for one in crew),
    }  # fmt: skip


def _sd(done: list[FrozenTrial]) -> float:
    """Mean ln sd of the targets by the runs."""
    C, ratio = (np.exp([one.params[name] for one in done]) for name in BOX)
    log_L = {skill: np.log([one.user_attrs[f"loss/{skill}"] for one in done]) for skill in SKILLS}
    sem = {skill: np.zeros(len(done)) for skill in SKILLS}
    history = RunHistory(N=np.sqrt(C / 6 / ratio), D=np.sqrt(C / 6 * ratio), log_L=log_L, sem=sem)
    return float(np.log(estimate_targets(history, SPACE, TARGETS).sd).mean())


def main() -> None:
    """Make the studies that the file lacks, and print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storages", default="sqlite,journal", help="sqlite, journal, or URLs")
    parser.add_argument("--workers", default="1,4")
    parser.add_argument("--kinds", default="add,real,hp")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    rows = list(csv.DictReader(args.out.open())) if args.out.exists() else []
    for storage in args.storages.split(","):
        for kind in args.kinds.split(","):
            for seed in range(args.seeds):
                for workers in map(int, args.workers.split(",")):
                    where = {"storage": storage.partition(":")[0].partition("+")[0], "kind": kind, "seed": str(seed)}
                    if any(where.items() <= row.items() and int(row["workers"]) == workers for row in rows):
                        continue
                    with tempfile.TemporaryDirectory() as folder:
                        row = {**where, **study_of(_place(storage, folder), kind, seed, workers)}
                    rows.append({name: str(value) for name, value in row.items()})
                    print(row, flush=True)
                    with args.out.open("w", newline="") as file:
                        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
                        writer.writeheader()
                        writer.writerows(rows)
    print(told(rows))


def _place(storage: str, folder: str) -> str:
    names = {"sqlite": f"sqlite:///{folder}/study.db", "journal": f"{folder}/study.journal"}
    if storage in names:
        return names[storage]
    if NAME in optuna.get_all_study_names(storage):
        optuna.delete_study(study_name=NAME, storage=storage)
    return storage


def told(rows: list[dict[str, str]]) -> str:
    """A line each storage and number of workers; the gain beside that of one worker in the same world."""
    alone = {(one["storage"], one["kind"], one["seed"]): float(one["gain"]) for one in rows if one["workers"] == "1"}
    heads = [
        "storage",
        "workers",
        "studies",
        "runs",
        "doubled",
        "failed or left running",
        "gain over one's",
        "s a study",
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for storage, workers in dict.fromkeys((one["storage"], one["workers"]) for one in rows):
        mine = [one for one in rows if (one["storage"], one["workers"]) == (storage, workers)]
        ratio = [
            float(one["gain"]) / alone[storage, one["kind"], one["seed"]] for one in mine
            if (storage, one["kind"], one["seed"]) in alone
        ]  # fmt: skip
        total = {name: sum(int(one[name]) for one in mine) for name in ("runs", "doubled", "failed", "left_running")}
        seconds = statistics.median(float(one["seconds"]) for one in mine)
        gain = f"{statistics.median(ratio):.2f} ({min(ratio):.2f} to {max(ratio):.2f})" if ratio else ""
        lost = total["failed"] + total["left_running"]
        lines.append(
            f"| {storage} | {workers} | {len(mine)} | {total['runs']} | {total['doubled']} | {lost} | {gain} | "
            f"{seconds:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
