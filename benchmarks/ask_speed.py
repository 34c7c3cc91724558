"""Seconds that ``SkillLawSampler`` takes to choose a run, with three skills and three categories.

    python benchmarks/ask_speed.py                 500 and 5,000 finished trials in memory, five asks of each, one core

Trials are Sobol runs of a truth of ``benchmarks/design.py`` with mixes. The first ask of a process reads all trials.
Later asks read only those that have ended since. Rows go to benchmarks/results/ask_speed.csv.
"""

import argparse
import csv
import math
import os
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from scipy.stats import qmc

from skillscale.point import mix_from_coordinates
from skillscale.sampler import SkillLawSampler
from skillscale.simulation.random_truths import FLOPS, SKILLS, RandomTruth, TruthFamily, random_truth

RESULTS = Path(__file__).parent / "results" / "ask_speed.csv"
CATEGORIES = ("knowledge", "code", "prose")
BOX: dict[str, BaseDistribution] = {
    "log_flops": FloatDistribution(*np.log(FLOPS)),
    "log_ratio": FloatDistribution(math.log(1.0), math.log(500.0)),
    "mix_0": FloatDistribution(0.0, 1.0),
    "mix_1": FloatDistribution(0.0, 1.0),
}


def measure(truth: RandomTruth, values: np.ndarray, rng: np.random.Generator) -> Mapping[str, np.ndarray]:
    """Return ln L of each skill at values of the parameters, (n, 4)."""
    mixes = [mix_from_coordinates(list(coordinates), CATEGORIES) for coordinates in values[:, 2:]]
    h = np.array([[mix.shares.get(name, 0.0) for name in CATEGORIES] for mix in mixes])
    C, ratio = np.exp(values[:, 0]), np.exp(values[:, 1])
    return truth.measure(np.sqrt(C / 6 / ratio), np.sqrt(C / 6 * ratio), h, rng)[0]


def make_study(truth: RandomTruth, n_trials: int, seed: int) -> optuna.Study:
    """Return a study with ``n_trials`` finished trials."""
    low, high = (np.array([getattr(distribution, end) for distribution in BOX.values()]) for end in ("low", "high"))
    unit = qmc.Sobol(len(BOX), rng=np.random.default_rng(seed)).random(2 ** math.ceil(math.log2(n_trials)))[:n_trials]
    values = low + unit * (high - low)
    log_L = measure(truth, values, np.random.default_rng(seed))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = SkillLawSampler(categories=CATEGORIES, search_space=BOX, seed=seed)
    study = optuna.create_study(sampler=sampler)
    study.add_trials([
        optuna.trial.create_trial(
            params=dict(zip(BOX, map(float, values[at]), strict=True)), distributions=BOX, value=1.0,
            user_attrs={f"loss/{skill}": math.exp(float(log_L[skill][at])) for skill in SKILLS},
        )
        for at in range(n_trials)
    ])  # fmt: skip
    return study


def main() -> None:
    """Time the asks, print the seconds and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", default="500,5000", help="numbers of finished trials")
    parser.add_argument("--asks", type=int, default=5, help="asks to time for each")
    args = parser.parse_args()
    rows = []
    for n_trials in map(int, args.trials.split(",")):
        truth, rng = random_truth(TruthFamily.COUPLED_DRIFTING, 0, CATEGORIES), np.random.default_rng(1)
        study, seconds = make_study(truth, n_trials, seed=0), []
        for _ in range(args.asks):
            start = time.perf_counter()
            trial = study.ask(BOX)
            seconds.append(time.perf_counter() - start)
            values = np.array([[trial.params[name] for name in BOX]])
            for skill, log_L in measure(truth, values, rng).items():
                trial.set_user_attr(f"loss/{skill}", math.exp(float(log_L[0])))
            study.tell(trial, 1.0)
        rows.append({"trials": n_trials, "first": f"{seconds[0]:.3f}", "median": f"{statistics.median(seconds):.3f}"})
        print(f"{n_trials} trials: first ask {seconds[0]:.2f} s, median of {args.asks} {rows[-1]['median']} s")
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
