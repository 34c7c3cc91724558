"""One worker against several on one Optuna study: doubled points, and the information gained for the same FLOP.

    python benchmarks/sampler_workers.py                                        sqlite and journal, 1 and 4 workers
    python benchmarks/sampler_workers.py --storages postgresql+psycopg2://USER@HOST/DB    on PostgreSQL

Workers are processes that share only the storage. A run sleeps in proportion to its FLOP, so expensive runs are under
way while other workers ask. Truths, space and targets are those of ``benchmarks/design.py``, the budget is 2.55 of the
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
SLEEP_S = 4.0  # time of the largest run
NAME = "workers"


def open_storage(place: str) -> BaseStorage:
    """Open the storage of a URL or a journal file."""
    if place.endswith(".journal"):
        return JournalStorage(JournalFileBackend(place))
    return RDBStorage(place, engine_kwargs={"connect_args": {"timeout": 60}} if place.startswith("sqlite") else None)


def work(place: str, family: str, seed: int) -> None:
    """Run trials until the sampler has spent the budget."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    truth = random_truth(TruthFamily(family), seed)

    def objective(trial: optuna.Trial) -> float:
        C, ratio = (math.exp(trial.suggest_float(name, box.low, box.high)) for name, box in BOX.items())
        if is_beyond(trial):
            raise optuna.TrialPruned
        N, D = math.sqrt(C / 6 / ratio), math.sqrt(C / 6 * ratio)
        time.sleep(SLEEP_S * C / FLOPS[1])
        rng = np.random.default_rng([seed, int(1e6 * math.log(N)), int(1e6 * math.log(D))])
        log_losses, _ = truth.measure(np.array([N]), np.array([D]), None, rng)
        for skill, log_L in log_losses.items():
            trial.set_user_attr(f"loss/{skill}", math.exp(float(log_L[0])))
        return 0.0

    sampler = SkillLawSampler(skills=SKILLS, space=SPACE, targets=TARGETS, budget=BUDGET, search_space=BOX, seed=seed)
    study = optuna.load_study(study_name=NAME, storage=open_storage(place), sampler=sampler)
    study.optimize(objective, n_trials=1000, callbacks=[stop_when_done])


def run_study(place: str, family: str, seed: int, workers: int) -> dict[str, object]:
    """Run a study with several workers; return its row."""
    optuna.create_study(study_name=NAME, storage=open_storage(place), load_if_exists=False)
    start = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(place, family, seed)) for _ in range(workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    seconds = time.perf_counter() - start
    trials = optuna.load_study(study_name=NAME, storage=open_storage(place)).get_trials(deepcopy=False)
    done = [trial for trial in trials if trial.state is TrialState.COMPLETE]  # by number: the start comes first
    points = [tuple(round(trial.params[name], 6) for name in BOX) for trial in done]
    spent = sum(float(SPACE.cost(1.0, math.exp(trial.params["log_flops"]) / 6)) for trial in done)
    return {
        "workers": workers, "runs": len(done), "failed": sum(trial.state is TrialState.FAIL for trial in trials),
        "left_running": sum(trial.state is TrialState.RUNNING for trial in trials),
        "doubled": len(points) - len(set(points)), "spent": f"{spent / FLOPS[1]:.3f}",
        "gain": f"{_mean_log_sd(done[:START]) - _mean_log_sd(done):.4f}", "seconds": f"{seconds:.1f}",
        "died": sum(process.exitcode != 0 for process in processes),
    }  # fmt: skip


def _mean_log_sd(done: list[FrozenTrial]) -> float:
    """Return the mean ln sd of the targets after the runs."""
    C, ratio = (np.exp([trial.params[name] for trial in done]) for name in BOX)
    log_L = {skill: np.log([trial.user_attrs[f"loss/{skill}"] for trial in done]) for skill in SKILLS}
    sem = {skill: np.zeros(len(done)) for skill in SKILLS}
    history = RunHistory(N=np.sqrt(C / 6 / ratio), D=np.sqrt(C / 6 * ratio), log_L=log_L, sem=sem)
    return float(np.log(estimate_targets(history, SPACE, TARGETS).sd).mean())


def main() -> None:
    """Run the studies that the file lacks, and print the table of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storages", default="sqlite,journal", help="sqlite, journal, or URLs")
    parser.add_argument("--workers", default="1,4", help="numbers of workers")
    parser.add_argument("--families", default="chinchilla,coupled_drifting,mistuned", help="families of truths")
    parser.add_argument("--seeds", type=int, default=2, help="truths of each family")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    rows = list(csv.DictReader(args.out.open())) if args.out.exists() else []
    for storage in args.storages.split(","):
        for family in args.families.split(","):
            for seed in range(args.seeds):
                for workers in map(int, args.workers.split(",")):
                    cell = {"storage": storage.partition(":")[0].partition("+")[0], "family": family, "seed": str(seed)}
                    if any(cell.items() <= row.items() and int(row["workers"]) == workers for row in rows):
                        continue
                    with tempfile.TemporaryDirectory() as folder:
                        row = {**cell, **run_study(_place(storage, folder), family, seed, workers)}
                    rows.append({name: str(value) for name, value in row.items()})
                    print(row, flush=True)
                    with args.out.open("w", newline="") as file:
                        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
                        writer.writeheader()
                        writer.writerows(rows)
    print(table(rows))


def _place(storage: str, folder: str) -> str:
    names = {"sqlite": f"sqlite:///{folder}/study.db", "journal": f"{folder}/study.journal"}
    if storage in names:
        return names[storage]
    if NAME in optuna.get_all_study_names(storage):
        optuna.delete_study(study_name=NAME, storage=storage)
    return storage


def table(rows: list[dict[str, str]]) -> str:
    """Return a line for each storage and number of workers; gains are relative to one worker on the same truth."""
    single = {(row["storage"], row["family"], row["seed"]): float(row["gain"]) for row in rows if row["workers"] == "1"}
    heads = ("storage", "workers", "studies", "runs", "doubled", "failed or left running", "relative gain", "s a study")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for storage, workers in dict.fromkeys((row["storage"], row["workers"]) for row in rows):
        studies = [row for row in rows if (row["storage"], row["workers"]) == (storage, workers)]
        keys = [(storage, row["family"], row["seed"]) for row in studies]
        ratio = [float(row["gain"]) / single[key] for row, key in zip(studies, keys, strict=True) if key in single]
        total = {name: sum(int(row[name]) for row in studies) for name in ("runs", "doubled", "failed", "left_running")}
        seconds = statistics.median(float(row["seconds"]) for row in studies)
        gain = f"{statistics.median(ratio):.2f} ({min(ratio):.2f} to {max(ratio):.2f})" if ratio else ""
        lost = total["failed"] + total["left_running"]
        lines.append(
            f"| {storage} | {workers} | {len(studies)} | {total['runs']} | {total['doubled']} | {lost} | {gain} | "
            f"{seconds:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
