"""Runs that branch from a shared stable phase, against separate runs: losses, noise, and the cost of a grid.

    python benchmarks/branching.py run [--cache FOLDER] [--seeds 3] [--sizes 3e4,1e4] [--tokens 5e4,1.5e5,4.5e5]
    python benchmarks/branching.py table
    python benchmarks/branching.py saving
    python benchmarks/branching.py coverage [--studies 200]

``run`` trains each (N, D, seed) in three ways. ``linear``: the linear schedule, with the rule at the run's D.
``branch``: from the shortest D to the longest, each from the stable phase that the last one left. ``alone``: the
schedule of a branch, from its first step. The loss is the mean over the categories' validation sets, weighted by the
mix. ``table`` prints whether branches equal the runs alone to the bit, how they compare with linear runs, and how their
noise correlates. ``saving`` counts the FLOP of the shipped grids. ``coverage`` simulates fits with errors that a stable
phase shares. All rows are written to benchmarks/results. A row that is there is not made again.
"""

import argparse
import csv
import gzip
import hashlib
import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t as student
from simulated_studies import random_planted_law

from skillscale.config import conf_folder, load
from skillscale.execution.grid import expected_optimum, grid_points, tokens_to_train
from skillscale.laws.isoflop.study import fit_study
from skillscale.laws.results import Interval, Status

RESULTS = Path(__file__).parent / "results"
RUNS, COVERAGE = RESULTS / "branching.csv", RESULTS / "branching_coverage.csv.gz"
LEVEL = 0.9
SD = 0.004  # of ln L of a simulated run, as in isoflop_coverage.py
FAR = 1.08e13  # FLOP: ten times the largest budget
DENSER_SEEDS = [3, 3, 3, 3, 2, 2, 2]
DENSEST = [4e10 * 3 ** (i / 4) for i in range(13)]
DENSER = [4e10 * 3 ** (i / 2) for i in range(7)]  # of skills-hour, with a budget between any two


def append(path: Path, row: dict[str, object]) -> None:
    """Add a row to a table, compressed if its name ends in ``gz``."""
    is_new = not path.exists()
    with gzip.open(path, "at", newline="") if path.suffix == ".gz" else path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def cells(args: argparse.Namespace) -> Iterator[tuple[int, float, str, float]]:
    """Yield seed, N, way and D in the order of training."""
    for n_tokens, n_params, seed in itertools.product(sorted(args.tokens), args.sizes, range(args.seeds)):
        for way in ("branch", "linear", "alone"):
            yield seed, n_params, way, n_tokens


def run(args: argparse.Namespace) -> None:
    """Train the missing rows."""
    from skillscale.lm.data.mixture import MixStream
    from skillscale.lm.data.prepare import prepare
    from skillscale.lm.evaluation import skills
    from skillscale.lm.model.shape import shape_for
    from skillscale.lm.train import cooldown_branches, hyperparameters
    from skillscale.lm.train.loop import train
    from skillscale.lm.train.stable_phase import StablePhaseCheckpoint, StablePhaseLease
    from skillscale.point import DesignPoint

    config = load()
    prepared = prepare(config, args.cache, progress=print)
    mix, context = config.study.mix_values[0], config.model.context
    done = set() if not RUNS.exists() else set(pd.read_csv(RUNS)[["seed", "N", "way", "D"]].itertuples(index=False))
    for seed, n_params, way, n_tokens in cells(args):
        size = shape_for(n_params, vocab_size=prepared.tokenizer.vocab_size, model=config.model)
        if (seed, size.n_params, way, int(n_tokens)) in done:
            continue
        settings = replace(config.train, schedule="linear" if way == "linear" else "wsd")
        point = DesignPoint(n_params=size.n_params, n_tokens=int(n_tokens), mix=mix, seed=seed)
        derive = hyperparameters.optimizer_plan if way == "linear" else cooldown_branches.branch_plan
        plan = derive(point, size, settings, context=context)
        file = StablePhaseCheckpoint(
            path=args.cache / "branching" / f"{point.stable_phase}.pt", is_reused=n_tokens < max(args.tokens)
        )
        began = time.process_time()
        with StablePhaseLease(file) as lease:
            trained = train(
                point, size=size, optimizer_plan=plan, config=settings, lease=lease if way == "branch" else None,
                stream=MixStream(prepared.categories, mix=mix, seed=seed, context=context),
            )  # fmt: skip
        seconds = time.process_time() - began
        losses = {
            name: skills.evaluate_set(trained.model, items, context=context).loss
            for name, items in prepared.validation.items()
        }
        weights = b"".join(weight.detach().numpy().tobytes() for weight in trained.model.parameters())
        row: dict[str, object] = {
            "seed": seed, "N": size.n_params, "way": way, "D": int(n_tokens),
            "loss": sum(share * losses[name] for name, share in mix.shares.items()),
            "trained": trained.n_tokens, "taken": trained.n_inherited, "steps": plan.steps,
            "weights": hashlib.blake2b(weights, digest_size=8).hexdigest(), "cpu_s": round(seconds, 2),
        }  # fmt: skip
        append(RUNS, row)
        print(row, flush=True)


def format_mean(values: np.ndarray) -> str:
    """Format the mean in per cent with Student's interval."""
    half = float(student.ppf((1 + LEVEL) / 2, len(values) - 1)) * values.std(ddof=1) / math.sqrt(len(values))
    return f"{values.mean():+.2%} [{values.mean() - half:+.2%}, {values.mean() + half:+.2%}]"


def table(_: argparse.Namespace) -> None:
    """Print the comparison."""
    runs = pd.read_csv(RUNS)
    wide = runs.set_index(["N", "D", "seed", "way"])[["loss", "weights"]].unstack("way")  # noqa: PD010
    both = wide.dropna(subset=[("weights", "alone"), ("weights", "branch")])
    same = (both["weights"]["alone"] == both["weights"]["branch"]).to_numpy()
    print(f"branches with the exact weights of the run alone: {same.sum()} of {len(same)}")
    losses = np.log(wide["loss"].astype(float).dropna(subset=["linear", "branch"]))
    excess = losses["branch"] - losses["linear"]
    rows = []
    for (n_params, n_tokens), excesses in excess.groupby(level=["N", "D"]):
        seeds = losses.loc[(n_params, n_tokens)]
        mean = format_mean(excesses.to_numpy()) if len(excesses) > 1 else f"{excesses.iloc[0]:+.2%}"
        rows.append(
            {
                "N": n_params, "D": n_tokens, "seeds": len(excesses), "linear": f"{np.exp(seeds['linear']).mean():.4f}",
                "branch": f"{np.exp(seeds['branch']).mean():.4f}",
                "branch / linear - 1": mean,
                "sd linear": f"{seeds['linear'].std():.2%}", "sd branch": f"{seeds['branch'].std():.2%}",
            }
        )  # fmt: skip
    print(pd.DataFrame(rows).to_string(index=False))
    by_seed = excess.groupby(level="seed").mean().to_numpy()
    if len(by_seed) > 1:
        print(f"all: {format_mean(by_seed)}, seeds as clusters")
    for way in ("linear", "branch"):
        sd, shared = noise(losses[way])
        print(f"{way}: sd of a run {sd:.2%}, correlation between the D of a seed {shared:.2f}")
    spent = runs.assign(flops=6 * runs["N"] * (runs["trained"] - runs["taken"]))
    of_branches = spent[spent["way"] == "branch"]["flops"].sum()
    print(f"FLOP of branches over those of the same runs alone: "
          f"{of_branches / (6 * runs['N'] * runs['trained'])[runs['way'] == 'branch'].sum():.1%}")  # fmt: skip


def noise(losses: pd.Series) -> tuple[float, float]:
    """Return the sd of ln L between seeds, and the mean correlation between the D of one (N, seed)."""
    wide = losses.unstack("D").dropna()  # noqa: PD010
    deviations = wide - wide.groupby(level="N").transform("mean")
    seeds = wide.groupby(level="N").size()
    freedom = float((seeds - 1).sum())
    if freedom < 1:
        return math.nan, math.nan
    covariance = deviations.to_numpy().T @ deviations.to_numpy() / freedom
    off = ~np.eye(len(covariance), dtype=bool)
    variance = float(np.diag(covariance).mean())
    return math.sqrt(variance), float(covariance[off].mean()) / variance


def saving(_: argparse.Namespace) -> None:
    """Print the FLOP of the shipped grids with shared stable phases, and of denser ones."""
    names = sorted(path.stem for path in (conf_folder() / "study").glob("*.yaml"))
    rows = [{"study": name} | count_runs(name) for name in names]
    rows.append({"study": "skills-hour, 7 budgets"} | count_runs("skills-hour", DENSER, DENSER_SEEDS))
    rows.append({"study": "skills-hour, 13 budgets"} | count_runs("skills-hour", DENSEST, [2] * 13))
    print(pd.DataFrame(rows).to_string(index=False))


def count_runs(name: str, budgets: list[float] | None = None, seeds: list[int] | None = None) -> dict[str, object]:
    """Count the runs and FLOP of a grid without and with shared stable phases."""
    more = {} if budgets is None else {"study.budgets": str(budgets), "study.seeds": str(seeds)}
    large = {"model.context": "1024"} if name.endswith(("paper", "gpu")) or name == "large" else {}
    before = [planned.point for planned in grid_points(load(study=name, overrides=large))]
    config = load(study=name, overrides={"train.schedule": "wsd", **large, **more})
    grid = grid_points(config)
    after = [planned.point for planned in grid]
    alone = sum(point.flops for point in after)
    tokens_each = tokens_to_train(after, config.train.cooldown_fraction)
    spent = sum(6 * point.n_params * tokens for point, tokens in zip(after, tokens_each, strict=True))
    off = max(
        abs(math.log(expected_optimum(budget, config.study)) - middle_of(grid, budget))
        for budget in {planned.budget for planned in grid}
    )
    return {
        "runs now": len(before), "FLOP now": f"{sum(point.flops for point in before):.3g}", "runs": len(after),
        "stable phases": len({point.stable_phase for point in after}), "alone": f"{alone:.3g}", "spent": f"{spent:.3g}",
        "spent / alone": f"{spent / alone:.1%}", "off centre": f"{math.exp(off):.2f}x",
    }  # fmt: skip


def middle_of(grid: list, budget: float) -> float:
    """Return the middle of a budget's sizes, in ln N."""
    sizes = [math.log(planned.point.n_params) for planned in grid if planned.budget == budget]
    return (min(sizes) + max(sizes)) / 2


def coverage(args: argparse.Namespace) -> None:
    """Simulate studies of three grids, and count how often 90 % intervals contain the truth."""
    seen: set[tuple[object, ...]] = set()
    if COVERAGE.exists():
        seen = set(pd.read_csv(COVERAGE)[["grid", "shared", "study"]].itertuples(index=False))
    frames = {name: simulated_grid(name) for name in ("separate", "branched", "denser")}
    for study in range(args.studies):
        for name, frame in frames.items():
            for shared in (0.0,) if name == "separate" else (0.5, 0.9):
                if (name, shared, study) not in seen:
                    for row in score_study(frame, shared, study):
                        append(COVERAGE, {"grid": name, "shared": shared, "study": study} | row)
    rows = pd.read_csv(COVERAGE)
    by = ["grid", "shared", "resampled by", "of"]
    summary = rows.groupby(by, sort=False)[["covered", "half", "square"]].mean()
    summary["rmse"] = np.sqrt(summary.pop("square"))
    print(summary.assign(intervals=rows.groupby(by, sort=False)["covered"].count()).round(3).to_string())


def simulated_grid(name: str) -> pd.DataFrame:
    """List the runs of skills-hour without losses: separate, or with shared stable phases at 4 or 7 budgets."""
    overrides = {} if name == "separate" else {"train.schedule": "wsd"}
    if name == "denser":
        overrides |= {"study.budgets": str(DENSER), "study.seeds": str(DENSER_SEEDS)}
    points = grid_points(load(study="skills-hour", overrides=overrides))
    rows = [
        {"run_id": f"{number:03d}", "cluster": planned.point.stable_phase, "C": planned.budget,
         "N": planned.point.n_params, "D": planned.point.n_tokens, "mix": "all=1", "seed": planned.point.seed}
        for number, planned in enumerate(points)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def score_study(frame: pd.DataFrame, shared: float, study: int) -> list[dict[str, object]]:
    """Score the intervals of one study, by what is resampled: runs, or stable phases.

    Runs have an sd of 0.4 % in the loss. A share ``shared`` of its variance belongs to the stable phase.
    """
    rng = np.random.default_rng([study, 7])
    truth = random_planted_law(rng)
    codes = np.unique(frame["cluster"], return_inverse=True)[1]
    of_phase = rng.normal(size=codes.max() + 1)[codes]
    error = math.sqrt(shared) * of_phase + math.sqrt(1 - shared) * rng.normal(size=len(frame))
    runs = frame.assign(skill=truth.loss(frame["N"], frame["D"]) * np.exp(SD * error))
    budgets = np.unique(frame["C"])
    optima = {C: math.log(truth.optimum(C)) for C in (*budgets, FAR)}
    log_C = np.log(budgets) - np.log(budgets).mean()
    slope = float(np.array([optima[C] for C in budgets]) @ log_C / (log_C @ log_C))
    rows: list[dict[str, object]] = []
    for way in ("run",) if not shared else ("run", "trunk"):  # "trunk": as the stored rows name a stable phase
        table = runs if way == "trunk" else runs.drop(columns="cluster")
        fits = fit_study(table, skills=["skill"], aggregates=[], resamples=400, seed=1)
        power = fits.power_laws[0]
        rows += [
            score_interval(way, "a", power.a, slope),
            score_interval(way, "N* far", log_interval(power.N(FAR)), optima[FAR]),
        ]
        rows += [
            score_interval(way, "N*", log_interval(minimum.N), optima[minimum.C])
            for minimum in fits.minima
            if minimum.status is Status.OK
        ]
        rows += [
            score_interval(way, "law's N*", log_interval(pair.law), optima[pair.C]) for pair in fits.curve_versus_law
        ]
    return rows


def log_interval(interval: Interval) -> Interval:
    """Return the interval of ln N."""
    return interval.map(math.log) if interval.is_finite else interval


def score_interval(way: str, quantity: str, interval: Interval, truth: float) -> dict[str, object]:
    """Return a row of the table; empty without an interval."""
    row: dict[str, object] = {"resampled by": way, "of": quantity, "covered": "", "half": "", "square": ""}
    if interval.is_finite:
        row["covered"] = int(interval.lo <= truth <= interval.hi)
        row |= {"half": round((interval.hi - interval.lo) / 2, 5), "square": round((interval.value - truth) ** 2, 7)}
    return row


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("run", "table", "saving", "coverage"))
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "skillscale")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--studies", type=int, default=200)
    for name, default in (("sizes", "3e4,1e4"), ("tokens", "5e4,1.5e5,4.5e5")):
        parser.add_argument(f"--{name}", type=lambda text: [float(item) for item in text.split(",")], default=default)
    args = parser.parse_args()
    {"run": run, "table": table, "saving": saving, "coverage": coverage}[args.part](args)


if __name__ == "__main__":
    main()
