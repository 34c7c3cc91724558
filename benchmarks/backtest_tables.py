"""Predict held-out larger runs of published tables by each law and by the selected law: error and coverage.

    python benchmarks/backtest_tables.py FOLDER_OF_THE_TABLES [--joint]

Each law has the setting with the least error on inner hold-outs. ``chosen`` marks the law selected by the fitted runs
alone. ``average`` is the average over laws, weighted by their inner errors. ``--joint`` adds the joint mixture law on
last checkpoints (minutes). Writes benchmarks/results/backtest_slimpajama.csv and backtest_openlm.csv.
"""

import argparse
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from skillscale.errors import FitError
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.skill_law import split_by_skill
from skillscale.laws.selection.backtest import PredictionScore, predictions
from skillscale.laws.selection.holdout import DUPLICATE_GAP, run_shares
from skillscale.laws.selection.selection import CandidateLaw, LawSelection, select_law
from skillscale.tables import parse_columns, read_table

RESULTS = Path(__file__).parent / "results"
DOMAINS = ("arxiv", "book", "c4", "github", "commoncrawl", "stackexchange", "wikipedia")
FITTED_N = 6.8e8
TARGETS = {"1.2B": 1.235e9, "937M": 9.37e8}
LEVEL = 0.9


def main() -> None:
    """Write both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", type=Path)
    parser.add_argument("--joint", action="store_true")
    given = parser.parse_args()
    slimpajama(given.tables, joint=given.joint).to_csv(RESULTS / "backtest_slimpajama.csv", index=False)
    openlm(given.tables).to_csv(RESULTS / "backtest_openlm.csv", index=False)


def slimpajama(folder: Path, *, joint: bool) -> pd.DataFrame:
    """Fit N <= 680M, and predict 937M and 1.2B."""
    skills = {name: f"loss_{name}" for name in (*DOMAINS, "openhermes")}
    columns = {
        "n_params": "params", "n_tokens": "tokens", "run": ["params", "mix_id"], "skills": skills,
        "checkpoints": "all", "mix": {name: f"mix_{name}" for name in DOMAINS},
    }  # fmt: skip
    rows = []
    for kind, where in (("all", {}), ("last", {"where": {"final": 1}})):
        table = read_table(folder / "slimpajama_mix.csv", parse_columns(columns | where))
        data = split_by_skill(table.runs, table.skills, table.categories)
        low = {name: points.take(points.N <= FITTED_N) for name, points in data.items()}
        targets = {
            name: {skill: points.take(np.abs(points.N / size - 1) < 0.1) for skill, points in data.items()}
            for name, size in TARGETS.items()
        }
        rows += [{"checkpoints": kind, **row} for row in scored(low, targets, joint=joint and kind == "last")]
    return pd.DataFrame(rows)


def openlm(folder: Path) -> pd.DataFrame:
    """Fit all sizes of each corpus except the largest, and predict that."""
    header = pd.read_csv(folder / "openlm_overtrain.csv", nrows=1)
    skills = {name.removeprefix("loss_"): name for name in header if name.startswith("loss_")}
    columns = {"n_params": "params", "n_tokens": "tokens", "mix": "dataset", "skills": skills}
    table = read_table(folder / "openlm_overtrain.csv", parse_columns(columns))
    rows = []
    for corpus, runs in table.runs.groupby("mix"):
        data = split_by_skill(runs, table.skills)
        largest = max(float(points.N.max()) for points in data.values())
        low = {name: points.take(largest > points.N) for name, points in data.items()}
        high = {name: points.take(largest == points.N) for name, points in data.items()}
        rows += [{"corpus": corpus, **row} for row in scored(low, {f"{largest / 1e9:.1f}B": high}, joint=False)]
    return pd.DataFrame(rows)


def scored(
    low: Mapping[str, RunData], targets: Mapping[str, Mapping[str, RunData]], *, joint: bool
) -> list[dict[str, object]]:
    """Return the scores of every law's best setting and of the average, for every target and skill."""
    begin = time.perf_counter()
    choice = select_law(low)
    seconds = time.perf_counter() - begin
    print(f"{choice.chosen.setting.name}: {choice.chosen.error:.2%} held out, {seconds:.0f} s", flush=True)
    rows = []
    average = choice.fit_all(low)
    for target, high in targets.items():
        for skill, points in high.items():
            rows_of_skill = predictions(average[skill], points, LEVEL)
            candidate = choice.chosen
            labels = {"law": "chosen", "setting": candidate.setting.name, "chosen": False}
            rows.append(row_of(labels, candidate, target, skill, rows_of_skill, points))
            labels = {"law": "average", "setting": "", "chosen": False}
            rows.append(row_of(labels, candidate, target, skill, of_average(rows_of_skill), points))
    candidates = best_by_law(choice)
    if joint:
        candidates |= best_by_law(select_law(low, laws=("joint_mixture",)))
    for law, candidate in candidates.items():
        print(f"  {candidate.setting.name}", flush=True)
        try:
            refitted = replace(choice, chosen=candidate, candidates=(candidate,)).fit_all(low)
        except FitError as error:
            print(f"  {law}: {error}")
            continue
        labels = {"law": law, "setting": candidate.setting.name, "chosen": candidate is choice.chosen}
        for target, high in targets.items():
            for skill, points in high.items():
                rows.append(
                    row_of(labels, candidate, target, skill, predictions(refitted[skill], points, LEVEL), points)
                )
    return rows


def best_by_law(choice: LawSelection) -> dict[str, CandidateLaw]:
    """Return each law's candidate with the least inner error. The selected candidate represents its law."""
    best = {choice.chosen.setting.law.name: choice.chosen}
    for candidate in choice.candidates:
        if math.isfinite(candidate.error):
            best.setdefault(candidate.setting.law.name, candidate)
    return best


def of_average(table: pd.DataFrame) -> pd.DataFrame:
    """Replace the predictions of the single law by those of the average."""
    columns = {"average": "predicted", "average_lo": "lo", "average_hi": "hi"}
    return table.drop(columns=list(columns.values())).rename(columns=columns)


def row_of(
    labels: Mapping[str, object], candidate: CandidateLaw, target: str, skill: str, table: pd.DataFrame, points: RunData
) -> dict[str, object]:
    """Return one row of the table."""
    all_rows, last = (
        PredictionScore.from_table(table),
        PredictionScore.from_table(table[run_shares(points) > 1 - DUPLICATE_GAP / 2]),
    )
    return {
        "target": target, **labels, "skill": skill, "inner_error": round(candidate.error, 5), "n": all_rows.n,
        "error": round(all_rows.mean_relative_error, 5), "coverage": round(all_rows.coverage, 4),
        "half_width": round(all_rows.half_width, 5), "last_n": last.n,
        "last_error": round(last.mean_relative_error, 5), "last_coverage": round(last.coverage, 4),
    }  # fmt: skip


if __name__ == "__main__":
    main()
