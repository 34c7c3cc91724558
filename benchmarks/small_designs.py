"""Measure whether intervals of N* hold the truth where runs are few, and how often N* is refused.

    python benchmarks/small_designs.py measure [--intervals 200] [--only n=3]     resumable
    python benchmarks/small_designs.py page                                       tables for docs/research/coverage.md

A study has 3 to 12 runs. Designs: ``spread`` (D / N from 5 to 100), ``ratio`` (D = 20 N, to within 2 %), ``near``
(D = 20 N, to within 20 %), ``budgets`` (two budgets). Truths alternate: chinchilla with E from 5 to 75 % of the loss,
a coupled and drifting law, and one that no form can follow, whose exponent of D falls as D grows. With mixes, a share
scales the tokens, and the third truth has an effect on the level too. Each interval is for the largest budget run, or
for ten times that. Rows are kept in benchmarks/results/small_designs.csv.
"""

import argparse
import csv
import math
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from zlib import crc32

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from skillscale.analysis.fit_laws import fit_laws
from skillscale.config import Config, load
from skillscale.laws.fit.skill_law import FittedLaw
from skillscale.laws.optimum.identification import identify, prior_reduction
from skillscale.tables import RunTable

RESULTS = Path(__file__).parent / "results" / "small_designs.csv"
RUNS = (3, 4, 5, 6, 8, 10, 12)
DESIGNS = ("spread", "ratio", "near", "budgets")
TRUTHS = ("chinchilla", "coupled and drifting", "not offered")
BEYOND = (1, 10)
Cell = dict[str, str]
Loss = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def draw_truth(kind: str, rng: np.random.Generator, *, mixes: bool) -> Loss:
    """Return the loss of a random truth as a function of N, D and the share of the first category."""
    level, reducible = rng.uniform(2, 4), rng.uniform(0.25, 0.95)
    alpha, beta, part = rng.uniform(0.2, 0.6), rng.uniform(0.2, 0.6), rng.uniform(0.35, 0.65)
    A, B = part * reducible * level, (1 - part) * reducible * level
    k, g = (rng.uniform(0.5, 1), rng.uniform(-0.05, 0.05)) if kind == "coupled and drifting" else (1.0, 0.0)
    bend = rng.uniform(0.01, 0.03) if kind == "not offered" else 0.0
    worth = rng.uniform(-0.7, 0.7) if mixes else 0.0
    effect = rng.uniform(-0.1, 0.1) if mixes and kind == "not offered" else 0.0

    def loss(N: np.ndarray, D: np.ndarray, share: np.ndarray) -> np.ndarray:
        x, y = np.log(N / 3e8), np.log(D / 6e9 * (1 + worth * (share - 0.5)))
        u = math.log(A) - alpha * x
        v = math.log(B) - beta * np.exp(g * x) * y + bend * np.clip(y, -8, 8) ** 2 / 2
        total = (np.exp(u / k) + np.exp(v / k)) ** k
        return np.asarray((level * (1 - reducible) + total) * np.exp(effect * (share - 0.5)))

    return loss


def draw_design(kind: str, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return N and D of the runs."""
    N = 5e7 * 60 ** ((np.arange(n) + rng.uniform(0.2, 0.8, n)) / n)
    if kind == "budgets":
        C = np.where(np.arange(n) % 2 == 0, 1e19, 8e19)
        N = np.sqrt(C / 120) * np.exp(np.linspace(-1.2, 1.2, n))
        return N, C / (6 * N)
    if kind == "spread":
        return N, N * np.exp(rng.uniform(math.log(5), math.log(100), n))
    off = {"ratio": 0.02, "near": 0.2}[kind]
    return N, 20 * N * np.exp(rng.uniform(-off, off, n))


def true_log_optimum(loss: Loss, C: float, share: float) -> float:
    """Return ln N*(C); NaN where it is at an end of a range of a factor of 1e8."""
    centre = math.log(math.sqrt(C / 120))
    found = minimize_scalar(
        lambda x: float(loss(np.exp(x), C / (6 * np.exp(x)), np.asarray(share))), bounds=(centre - 9, centre + 9),
        method="bounded", options={"xatol": 1e-8},
    )  # fmt: skip
    return float(found.x) if abs(found.x - centre) < 8.9 else math.nan


def simulate(cell: Cell, index: int) -> tuple[RunTable, dict[str, Loss]]:
    """Return the runs of a study, and the truth of each skill."""
    rng = np.random.default_rng([crc32(repr(sorted(cell.items())).encode()), index])
    n, mixes, skills = int(cell["n"]), cell["mixes"] == "yes", [f"skill{at}" for at in range(int(cell["skills"]))]
    kind = TRUTHS[index % len(TRUTHS)]
    truths = {name: draw_truth(kind, rng, mixes=mixes) for name in skills}
    N, D = draw_design(cell["design"], n, rng)
    share = rng.uniform(0.1, 0.9, n) if mixes else np.full(n, 0.5)
    noise = rng.choice([0.002, 0.005, 0.01])
    common = rng.standard_normal(n)
    frame = pd.DataFrame({"run_id": [f"r{at}" for at in range(n)], "cluster": [f"r{at}" for at in range(n)]})
    frame = frame.assign(C=math.nan, N=N, D=D, mix="all", seed=0, **{"mix/a": share, "mix/b": 1 - share})
    for name, truth in truths.items():
        error = math.sqrt(0.5) * (common + rng.standard_normal(n))
        frame[name] = truth(N, D, share) * np.exp(noise * error)
    return RunTable(runs=frame, skills=tuple(skills), categories=("a", "b") if mixes else ()), truths


def measure(cell: Cell, index: int, config: Config) -> list[dict[str, object]]:
    """Fit a study; return a row for each skill and budget."""
    table, truths = simulate(cell, index)
    warnings.simplefilter("ignore")
    laws = fit_laws(table, "", config.laws, config.study).laws
    share = float(table.runs["mix/a"].mean())
    largest = float((6 * table.runs["N"] * table.runs["D"]).max())
    rows: list[dict[str, object]] = []
    for (name, loss), beyond in product(truths.items(), BEYOND):
        truth, law = true_log_optimum(loss, beyond * largest, share), laws[name]
        if not math.isfinite(truth):
            continue
        low = high = share_of_prior = reduction = math.nan
        refused = True
        if isinstance(law, FittedLaw):
            N = law.ensemble_optimum(beyond * largest)
            decided = identify(law, beyond * largest)
            low, high, share_of_prior = math.log(N.lo), math.log(N.hi), decided.prior_share
            reduction = prior_reduction(law, beyond * largest)
            refused = decided.prior_decides or not math.isfinite(low)
        rows.append(
            cell | {"study": index, "truth": TRUTHS[index % len(TRUTHS)], "skill": name, "beyond": beyond}
            | {"refused": int(refused), "prior_share": round(share_of_prior, 2), "reduction": round(reduction, 2)}
            | {"low": round(low - truth, 3), "high": round(high - truth, 3)}
        )  # fmt: skip
    return rows


def _measure(job: tuple[Cell, int]) -> list[dict[str, object]]:
    os.environ["OMP_NUM_THREADS"] = "1"
    return measure(*job, load(overrides={"study.resamples": "200"}))


def jobs(intervals: int, only: str) -> Iterator[tuple[Cell, int]]:
    """Yield the studies that are not in the table yet, cells by turns."""
    done = set()
    if RESULTS.exists() and RESULTS.stat().st_size:
        table = pd.read_csv(RESULTS, dtype=str)
        done = set(table[["n", "design", "skills", "mixes", "study"]].itertuples(index=False, name=None))
    cells = [
        {"n": str(n), "design": design, "skills": str(skills), "mixes": mixes}
        for n, design, skills, mixes in product(RUNS, DESIGNS, (1, 3), ("no", "yes"))
    ]
    counts = [math.ceil(intervals / len(BEYOND) / int(cell["skills"])) for cell in cells]
    for index in range(max(counts)):
        for cell, count in zip(cells, counts, strict=True):
            wanted = not only or cell[only.partition("=")[0]] == only.partition("=")[2]
            if index < count and wanted and (*cell.values(), str(index)) not in done:
                yield cell, index


def run(intervals: int, only: str, workers: int) -> None:
    """Measure what is missing and append it."""
    RESULTS.parent.mkdir(exist_ok=True)
    with ProcessPoolExecutor(workers) as pool, RESULTS.open("a", newline="") as file:
        writer = None
        for rows in pool.map(_measure, jobs(intervals, only), chunksize=4):
            for row in rows:
                if writer is None:
                    writer = csv.DictWriter(file, fieldnames=list(row))
                    if file.tell() == 0:
                        writer.writeheader()
                writer.writerow(row)
            file.flush()


def summarise(table: pd.DataFrame) -> str:
    """Return coverage of the intervals that are not refused, their number, and the share of refusals."""
    refused = table["refused"] == 1
    kept = table[~refused]
    if kept.empty:
        return f"refused ({len(table)})"
    held = ((kept["low"] <= 0) & (kept["high"] >= 0)).mean()
    return f"{100 * held:.0f} % of {len(kept)}; {100 * refused.mean():.0f} % refused"


def markdown(table: pd.DataFrame, rows: str, columns: str) -> str:
    """Return a Markdown table with one cell for each value of two keys."""
    names = list(dict.fromkeys(table[columns]))
    lines = [[rows, *map(str, names)], ["---"] * (len(names) + 1)]
    for row in sorted(dict.fromkeys(table[rows])):
        cells = [table[(table[rows] == row) & (table[columns] == name)] for name in names]
        lines.append([str(row), *(summarise(cell) if len(cell) else "" for cell in cells)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page() -> None:
    """Print the tables of docs/research/coverage.md."""
    table = pd.read_csv(RESULTS)
    table["study"] = table["skills"].astype(str) + " skills, mixes: " + table["mixes"]
    for rows, columns in (("n", "design"), ("truth", "design"), ("study", "design"), ("beyond", "design")):
        print(markdown(table, rows, columns), end="\n\n")
    decided = table[(table["refused"] == 1) & table["low"].notna()]
    held = ((decided["low"] <= 0) & (decided["high"] >= 0)).mean()
    print(f"intervals that are refused: {100 * held:.0f} % of {len(decided)} hold N*")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["measure", "page"])
    parser.add_argument("--intervals", type=int, default=200, help="of each cell")
    parser.add_argument("--only", default="", help="NAME=VALUE of a cell")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.what == "page":
        page()
    else:
        run(arguments.intervals, arguments.only, arguments.workers)
