"""A real study on the embedded corpora: an isoFLOP grid against sampled runs, from one start and for the same FLOPs.

    python benchmarks/real_sampling.py run FOLDER                          trains; goes on where it was stopped
    python benchmarks/real_sampling.py table FOLDER --reference mlflow.db  intervals, and distance to a larger study

For each seed: the same eight runs to begin with, then once the usual grid (7 sizes at 3 budgets, one seed each), and
once `skillscale sample` with the FLOPs of that grid and no more runs, overheads included. Registries are kept in
FOLDER, one a study. `table` judges both by the same analysis: the belief averaged over laws (`laws.design`), about ln
N* of every skill and their differences at 10 and 100 times the largest run. The reference is the same belief from the
runs of a finished main study, whose largest run is ten times as large; `pooled`: from those and from all runs of these
studies. Rows go to benchmarks/results/real_sampling.csv (``--out``).
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import yaml

from skillscale.config import Config, load
from skillscale.design.model_averaging import estimate_targets
from skillscale.design.propose import START
from skillscale.design.space import RunHistory
from skillscale.design.targets import Quantity, TargetEstimates
from skillscale.record import RunRecord, RunState
from skillscale.runs.read import trained_table
from skillscale.sampler.study import SamplingProblem, StudyContext, build_problem, context_from_config, run_history
from skillscale.tracking import StudyStore

RESULTS = Path(__file__).parent / "results"
BUDGETS = (8e9, 2.4e10, 7.2e10)  # a tenth of those of the main study
SIZES = 7
ARMS = ("grid", "sample")
OVERHEAD = 0.01  # of the largest run, which both arms pay for each run


def settings(seed: int) -> dict[str, object]:
    """The study of a seed: the main study's mix, sizes and aggregate at smaller budgets."""
    main = load().as_dict()["study"]
    return {
        **main, "name": f"real-{seed}", "budgets": list(BUDGETS), "sizes": SIZES, "seeds": [1],
        "first_seed": 10_000 * (seed + 1),
    }  # fmt: skip


def cost(n_runs: int, flops: float) -> float:
    """FLOP of some runs, overheads included."""
    return flops + n_runs * OVERHEAD * BUDGETS[-1]


def run(folder: Path, seeds: range, workers: int) -> None:
    """Train whatever is missing, one study after the other."""
    for seed in seeds:
        start = folder / f"start-{seed}"
        start.mkdir(parents=True, exist_ok=True)
        file = folder / f"real-{seed}.yaml"
        file.write_text(yaml.safe_dump(settings(seed)))
        _skillscale(start, file, workers, "sample", "--sample.runs", str(START))
        begun = cost(START, sum(one.point.flops for one in finished(start, seed)))
        for arm in ARMS:
            place = folder / f"{arm}-{seed}"
            if not place.exists():
                copied = folder / f"{arm}-{seed}.part"
                copied.mkdir(exist_ok=True)
                shutil.copy(start / "mlflow.db", copied)
                copied.rename(place)
            grid = cost(len(BUDGETS) * SIZES, SIZES * sum(BUDGETS))
            more = ["--sample.runs", str(START + len(BUDGETS) * SIZES), "--budget", f"{begun + grid:.6g}"]
            _skillscale(place, file, workers, arm, *(more if arm == "sample" else ()))


def _skillscale(place: Path, study: Path, workers: int, *words: str) -> None:
    given = ["--study", str(study.absolute()), "--tracking", f"sqlite:///{place.absolute() / 'mlflow.db'}"]
    command = [sys.executable, "-m", "skillscale", words[0], *given, "--workers", str(workers), *words[1:]]
    subprocess.run(command, check=True)


def finished(place: Path, seed: int) -> list[RunRecord]:
    """Finished runs of a study."""
    study = StudyStore.open(f"sqlite:///{place.absolute() / 'mlflow.db'}").study(f"real-{seed}")
    return [one for one in study.runs.records() if one.state is RunState.FINISHED]


def table(folder: Path, reference: Path, seeds: range, out: Path | None, *, least_tokens: int = 0) -> None:
    """Write a row a study and target; print means over seeds. Of each study, runs of so many tokens at least."""
    config = load(study=str(folder / f"real-{seeds[0]}.yaml"))
    order, computes = _order(config, ())
    main = StudyStore.open(f"sqlite:///{reference.absolute()}").study("main").runs.records()
    main = [one for one in main if one.state is RunState.FINISHED]
    studies = {
        (seed, arm): finished(folder / f"{arm}-{seed}", seed)
        for seed in seeds for arm in ARMS if (folder / f"{arm}-{seed}").exists()
    }  # fmt: skip
    _check_alike([main, *studies.values()])
    every = {one.run_id: one for records in (main, *studies.values()) for one in records}
    larger, _ = _order(load(), computes)
    truths = {"reference": _told(main, larger, load()), "pooled": _told([*every.values()], larger, load())}
    rows = []
    for (seed, arm), records in studies.items():
        told = _told([one for one in records if one.point.n_tokens >= least_tokens], order, config)
        for at, target in enumerate(order.targets):
            row = {
                "seed": seed, "arm": arm, "runs": len(records),
                "flops": f"{sum(one.point.flops for one in records):.4g}", "quantity": str(target.quantity),
                "skill": target.skill, "other": target.other, "C": f"{target.C:.3g}", **_numbers("", told, at),
            }  # fmt: skip
            for name, truth in truths.items():
                row |= _numbers(f"{name}_", truth, at)
            rows.append(row)
    frame = pd.DataFrame(rows)
    if out:
        frame.to_csv(out, index=False)
    print(summary(frame.astype({"C": float})))


def _order(config: Config, computes: tuple[float, ...]) -> tuple[SamplingProblem, tuple[float, ...]]:
    """What is asked of a study, and the computes at which it is."""
    known: StudyContext = context_from_config(config)
    sample = load(overrides={"sample.target_flops": str(list(computes))}).sample
    order = build_problem(sample, known)
    return order, tuple(sorted({target.C for target in order.targets}))


def _told(records: list[RunRecord], order: SamplingProblem, config: Config) -> TargetEstimates:
    history: RunHistory = run_history(trained_table(records, config), order)
    return estimate_targets(history, order.space, order.targets)


def _numbers(prefix: str, told: TargetEstimates, at: int) -> dict[str, str]:
    return {f"{prefix}{name}": f"{getattr(told, name)[at]:.4f}" for name in ("value", "lo", "hi")}


def _check_alike(studies: list[list[RunRecord]]) -> None:
    """Refuse runs on other data or with other settings: their losses don't compare."""
    known = [one.provenance for runs in studies for one in runs if one.provenance]
    made = {(one.data_hash, one.config_hash) for one in known}
    if len(made) > 1:
        raise SystemExit(f"these studies were not trained on the same data with the same settings: {sorted(made)}")


def summary(frame: pd.DataFrame) -> str:
    """A line each compute, kind of target and arm: half widths, distance to the references, overlap of intervals."""
    frame = frame.astype({name: float for name in frame if name.split("_")[-1] in ("value", "lo", "hi")})
    frame["half"] = (frame["hi"] - frame["lo"]) / 2
    lines = [
        "| C | what | arm | half width, by seed | mean | widest | off the reference, RMS | off the pooled, RMS | "
        "overlaps the reference |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (C, quantity, arm), cell in frame.groupby(["C", "quantity", "arm"]):
        by_seed = ", ".join(f"{half:.2f}" for half in cell.groupby("seed")["half"].mean())
        off = {name: np.sqrt(((cell["value"] - cell[f"{name}_value"]) ** 2).mean()) for name in ("reference", "pooled")}
        met = ((cell["lo"] <= cell["reference_hi"]) & (cell["hi"] >= cell["reference_lo"])).mean()
        what = "ln N*" if quantity == str(Quantity.OPTIMUM) else "differences"
        lines.append(
            f"| {C:.3g} | {what} | {arm} | {by_seed} | {cell['half'].mean():.3f} | {cell['half'].max():.2f} | "
            f"{off['reference']:.3f} | {off['pooled']:.3f} | {met:.0%} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Train or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("folder", type=Path, help="registries of the studies")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--reference", type=Path, default=Path("mlflow.db"), help="registry of a finished main study")
    parser.add_argument("--least_tokens", type=int, default=0, help="of a study's runs that are judged; writes nothing")
    parser.add_argument("--out", type=Path, default=RESULTS / "real_sampling.csv")
    args = parser.parse_args()
    seeds = range(args.first, args.first + args.seeds)
    if args.what == "run":
        run(args.folder, seeds, args.workers)
    else:
        out = None if args.least_tokens else args.out
        table(args.folder, args.reference, seeds, out, least_tokens=args.least_tokens)


if __name__ == "__main__":
    main()
