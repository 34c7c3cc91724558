"""A real study on the embedded corpora: an isoFLOP grid against sampled runs, from one start and for the same FLOP.

    python benchmarks/real_sampling.py run FOLDER                          trains; continues where it was stopped
    python benchmarks/real_sampling.py table FOLDER --reference mlflow.db  intervals, and distance to a larger study

Each seed has the same eight runs to begin with. One arm adds the usual grid (7 sizes at 3 budgets, one seed each). The
other adds `skillscale sample` with the FLOP of that grid and at most as many runs, overheads included. FOLDER holds one
tracking store a study. `table` compares both by the same analysis: the averaged posterior (`skillscale.design`) of ln
N* of every skill and their differences, at 10 and 100 times the largest run. The reference is the same analysis of a
finished main study, whose largest run is ten times as large. ``pooled`` adds all runs of these studies to it. Rows go
to benchmarks/results/real_sampling.csv (``--out``).
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
from skillscale.sampler.study import SamplingProblem, StudyContext, build_problem, context_from_config, run_history
from skillscale.tables.read import trained_table
from skillscale.tracking import StudyStore

RESULTS = Path(__file__).parent / "results"
BUDGETS = (8e9, 2.4e10, 7.2e10)  # a tenth of those of the main study
SIZES = 7
ARMS = ("grid", "sample")
OVERHEAD = 0.01  # of a run in both arms, in largest runs


def settings(seed: int) -> dict[str, object]:
    """Return the study of a seed: the main study's mix, sizes and aggregate at smaller budgets."""
    main = load().as_dict()["study"]
    return {
        **main, "name": f"real-{seed}", "budgets": list(BUDGETS), "sizes": SIZES, "seeds": [1],
        "first_seed": 10_000 * (seed + 1),
    }  # fmt: skip


def cost(n_runs: int, flops: float) -> float:
    """Return the FLOP of runs, overheads included."""
    return flops + n_runs * OVERHEAD * BUDGETS[-1]


def run(folder: Path, seeds: range, workers: int) -> None:
    """Train the missing runs, one study after the other."""
    for seed in seeds:
        start = folder / f"start-{seed}"
        start.mkdir(parents=True, exist_ok=True)
        file = folder / f"real-{seed}.yaml"
        file.write_text(yaml.safe_dump(settings(seed)))
        _skillscale(start, file, workers, "sample", "--sample.runs", str(START))
        spent = cost(START, sum(record.point.flops for record in finished(start, seed)))
        for arm in ARMS:
            arm_folder = folder / f"{arm}-{seed}"
            if not arm_folder.exists():
                copied = folder / f"{arm}-{seed}.part"
                copied.mkdir(exist_ok=True)
                shutil.copy(start / "mlflow.db", copied)
                copied.rename(arm_folder)
            grid = cost(len(BUDGETS) * SIZES, SIZES * sum(BUDGETS))
            more = ["--sample.runs", str(START + len(BUDGETS) * SIZES), "--budget", f"{spent + grid:.6g}"]
            _skillscale(arm_folder, file, workers, arm, *(more if arm == "sample" else ()))


def _skillscale(folder: Path, study: Path, workers: int, *words: str) -> None:
    options = ["--study", str(study.absolute()), "--tracking", f"sqlite:///{folder.absolute() / 'mlflow.db'}"]
    command = [sys.executable, "-m", "skillscale", words[0], *options, "--workers", str(workers), *words[1:]]
    subprocess.run(command, check=True)


def finished(folder: Path, seed: int) -> list[RunRecord]:
    """Return the finished runs of a study."""
    study = StudyStore.open(f"sqlite:///{folder.absolute() / 'mlflow.db'}").study(f"real-{seed}")
    return [record for record in study.runs.records() if record.state is RunState.FINISHED]


def table(folder: Path, reference: Path, seeds: range, out: Path | None, *, least_tokens: int = 0) -> None:
    """Write a row for each study and target; print means over seeds. Runs below ``least_tokens`` are ignored."""
    config = load(study=str(folder / f"real-{seeds[0]}.yaml"))
    problem, computes = _sampling_problem(config, ())
    main = StudyStore.open(f"sqlite:///{reference.absolute()}").study("main").runs.records()
    main = [record for record in main if record.state is RunState.FINISHED]
    studies = {
        (seed, arm): finished(folder / f"{arm}-{seed}", seed)
        for seed in seeds for arm in ARMS if (folder / f"{arm}-{seed}").exists()
    }  # fmt: skip
    _check_alike([main, *studies.values()])
    pooled = {record.run_id: record for records in (main, *studies.values()) for record in records}
    larger, _ = _sampling_problem(load(), computes)
    references = {
        "reference": _estimates(main, larger, load()), "pooled": _estimates([*pooled.values()], larger, load())
    }  # fmt: skip
    rows = []
    for (seed, arm), records in studies.items():
        counted = [record for record in records if record.point.n_tokens >= least_tokens]
        estimates = _estimates(counted, problem, config)
        for at, target in enumerate(problem.targets):
            row = {
                "seed": seed, "arm": arm, "runs": len(records),
                "flops": f"{sum(record.point.flops for record in records):.4g}", "quantity": str(target.quantity),
                "skill": target.skill, "other": target.other, "C": f"{target.C:.3g}", **_numbers("", estimates, at),
            }  # fmt: skip
            for name, reference_estimates in references.items():
                row |= _numbers(f"{name}_", reference_estimates, at)
            rows.append(row)
    frame = pd.DataFrame(rows)
    if out:
        frame.to_csv(out, index=False)
    print(summary(frame.astype({"C": float})))


def _sampling_problem(config: Config, computes: tuple[float, ...]) -> tuple[SamplingProblem, tuple[float, ...]]:
    """Return the sampling problem of a study, and the computes of its targets."""
    context: StudyContext = context_from_config(config)
    sample = load(overrides={"sample.target_flops": str(list(computes))}).sample
    problem = build_problem(sample, context)
    return problem, tuple(sorted({target.C for target in problem.targets}))


def _estimates(records: list[RunRecord], problem: SamplingProblem, config: Config) -> TargetEstimates:
    history: RunHistory = run_history(trained_table(records, config), problem)
    return estimate_targets(history, problem.space, problem.targets)


def _numbers(prefix: str, estimates: TargetEstimates, at: int) -> dict[str, str]:
    return {f"{prefix}{name}": f"{getattr(estimates, name)[at]:.4f}" for name in ("value", "lo", "hi")}


def _check_alike(studies: list[list[RunRecord]]) -> None:
    """Refuse runs on other data or with other settings, whose losses are not comparable."""
    provenances = [record.provenance for records in studies for record in records if record.provenance]
    hashes = {(provenance.data_hash, provenance.config_hash) for provenance in provenances}
    if len(hashes) > 1:
        raise SystemExit(f"the studies differ in data or settings: {sorted(hashes)}. Compare studies that share both")


def summary(frame: pd.DataFrame) -> str:
    """Return half widths, distance to the references and overlap by compute, quantity and arm."""
    frame = frame.astype({name: float for name in frame if name.split("_")[-1] in ("value", "lo", "hi")})
    frame["half"] = (frame["hi"] - frame["lo"]) / 2
    lines = [
        "| C | quantity | arm | half width, by seed | mean | widest | RMS distance to reference | "
        "RMS distance to pooled | overlap with reference |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (C, quantity, arm), cell in frame.groupby(["C", "quantity", "arm"]):
        by_seed = ", ".join(f"{half:.2f}" for half in cell.groupby("seed")["half"].mean())
        distance = {
            name: np.sqrt(((cell["value"] - cell[f"{name}_value"]) ** 2).mean()) for name in ("reference", "pooled")
        }
        overlap = ((cell["lo"] <= cell["reference_hi"]) & (cell["hi"] >= cell["reference_lo"])).mean()
        title = "ln N*" if quantity == str(Quantity.OPTIMUM) else "differences"
        lines.append(
            f"| {C:.3g} | {title} | {arm} | {by_seed} | {cell['half'].mean():.3f} | {cell['half'].max():.2f} | "
            f"{distance['reference']:.3f} | {distance['pooled']:.3f} | {overlap:.0%} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Train the studies or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("folder", type=Path, help="folder for the tracking stores of the studies")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--workers", type=int, default=2, help="workers a study")
    parser.add_argument(
        "--reference", type=Path, default=Path("mlflow.db"), help="tracking store of a finished main study"
    )
    parser.add_argument("--least_tokens", type=int, default=0, help="least tokens of a run that counts; writes no file")
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
