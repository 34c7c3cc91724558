"""CPU seconds of a full answer: the selection of a law, its fits, and the 1000 draws of each skill.

    python benchmarks/fit_speed.py FOLDER_OF_THE_TABLES [--rounds 3] [--exact]

prints a table and writes it to benchmarks/results/fit_speed.csv. The tables: 200 finished runs of slimpajama_mix.csv
with seven skills and mixes, C4 runs of openlm_overtrain.csv with eight skills, and chinchilla_epoch.csv. One thread;
the median over rounds, with the least and the most.

``--exact`` also times the fits by exact Newton steps alone, in the same round (minutes). ``times`` is their ratio.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy reads it

import argparse
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from skillscale.laws.fit import fit
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.newton import FitProblem
from skillscale.laws.fit.request import FitRequest
from skillscale.laws.fit.skill_law import split_by_skill
from skillscale.laws.selection.selected import fit_selected
from skillscale.laws.selection.selection import select_law
from skillscale.laws.uncertainty import bootstrap
from skillscale.tables import parse_columns, read_table

RESULTS = Path(__file__).parent / "results" / "fit_speed.csv"
DOMAINS = ("arxiv", "book", "c4", "github", "commoncrawl", "stackexchange", "wikipedia")
RUNS = 200
MOST_SKILLS = 8
STAGES = ("selection", "fits", "draws", "total")


def slimpajama(folder: Path) -> dict[str, RunData]:
    """Return 200 finished runs with their mixes."""
    columns = {
        "n_params": "params", "n_tokens": "tokens", "run": ["params", "mix_id"], "where": {"final": 1},
        "skills": {name: f"loss_{name}" for name in DOMAINS}, "mix": {name: f"mix_{name}" for name in DOMAINS},
    }  # fmt: skip
    table = read_table(folder / "slimpajama_mix.csv", parse_columns(columns))
    runs = table.runs.sample(RUNS, random_state=0)
    return split_by_skill(runs, table.skills, table.categories)


def openlm(folder: Path) -> dict[str, RunData]:
    """Return the runs of one corpus."""
    header = pd.read_csv(folder / "openlm_overtrain.csv", nrows=1)
    skills = {name.removeprefix("loss_"): name for name in header if name.startswith("loss_")}
    columns = {"n_params": "params", "n_tokens": "tokens", "mix": "dataset", "skills": skills}
    table = read_table(folder / "openlm_overtrain.csv", parse_columns(columns))
    corpus = next(runs for name, runs in table.runs.groupby("mix") if "c4" in str(name))
    return split_by_skill(corpus, table.skills[:MOST_SKILLS])


def chinchilla(folder: Path) -> dict[str, RunData]:
    """Return the digitised runs."""
    columns = {"n_params": "params", "n_tokens": "tokens", "skills": {"loss": "loss"}}
    table = read_table(folder / "chinchilla_epoch.csv", parse_columns(columns))
    return split_by_skill(table.runs, table.skills)


TABLES = {"slimpajama": slimpajama, "openlm": openlm, "chinchilla": chinchilla}


def seconds_of(data: Mapping[str, RunData]) -> dict[str, float]:
    """Return the CPU seconds of each stage of a full answer."""
    start = time.process_time()
    selection = select_law(data)
    selected = time.process_time()
    selection.fit_all(data)
    fitted = time.process_time()
    fit_selected(data, selection, FitRequest(law=selection.chosen.setting.law))
    drawn = time.process_time() - fitted - (fitted - selected)  # fit_selected fits once more
    stages = {"selection": selected - start, "fits": fitted - selected, "draws": drawn}
    return stages | {"total": sum(stages.values())}


@contextmanager
def exact_steps() -> Iterator[None]:
    """Leave all steps to the exact second derivatives."""

    def stay(_: FitProblem, Q: np.ndarray, **__: object) -> tuple[np.ndarray, np.ndarray]:
        return Q, np.zeros(len(Q), dtype=bool)

    modules = (fit, bootstrap)
    kept = [module.approach_minima for module in modules]
    try:
        for module in modules:
            module.approach_minima = stay
        yield
    finally:
        for module, function in zip(modules, kept, strict=True):
            module.approach_minima = function


def main() -> None:
    """Time the answers, print the seconds and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--only", choices=tuple(TABLES), help="one table")
    given = parser.parse_args()
    rows = []
    for name in [given.only] if given.only else TABLES:
        data = TABLES[name](given.tables)
        ours, exact = [], []
        for _ in range(given.rounds):
            ours.append(seconds_of(data))
            if given.exact:
                with exact_steps():
                    exact.append(seconds_of(data))
        for stage in STAGES:
            seconds = [measured[stage] for measured in ours]
            ratios = [slow[stage] / fast[stage] for slow, fast in zip(exact, ours, strict=False)]
            rows.append({
                "table": name, "runs": max(map(len, data.values())), "skills": len(data), "stage": stage,
                "seconds": float(np.median(seconds)), "least": min(seconds), "most": max(seconds),
                "times": float(np.median(ratios)) if ratios else np.nan,
            })  # fmt: skip
        print(pd.DataFrame(rows).tail(len(STAGES)).to_string(index=False, float_format="%.2f"), flush=True)
    pd.DataFrame(rows).round(2).to_csv(RESULTS, index=False)


if __name__ == "__main__":
    main()
