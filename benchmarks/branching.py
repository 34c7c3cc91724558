"""Runs that branch from a trunk beside runs of their own: their losses, their noise, and what a grid of them costs.

    python benchmarks/branching.py run [--cache FOLDER] [--seeds 3] [--sizes 3e4,1e4] [--tokens 5e4,1.5e5,4.5e5]
    python benchmarks/branching.py table
    python benchmarks/branching.py saving
    python benchmarks/branching.py coverage [--studies 200]

``run`` trains each (N, D, seed) in three ways: ``linear`` (today's schedule, the rule at the run's own D), ``branch``
(from the shortest D to the longest, each from the state that the one before left) and ``alone`` (the schedule of a
branch, from its first step). The loss is that of the categories' validation sets, weighed by the mix. ``table`` prints
whether branches are the runs alone to the bit, how they compare with linear runs, and how their noise hangs together.
``saving`` counts the FLOPs of the shipped grids. ``coverage`` simulates fits whose errors trunks share. All rows are
kept in benchmarks/results; a row that is there is not made again.
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
    """Add a row to a table, packed where its name ends in ``gz``."""
    is_new = not path.exists()
    with gzip.open(path, "at", newline="") if path.suffix == ".gz" else path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def cells(args: argparse.Namespace) -> Iterator[tuple[int, float, str, float]]:
    """Seed, N, way and D, in the order in which they are trained."""
    for n_tokens, n_params, seed in itertools.product(sorted(args.tokens), args.sizes, range(args.seeds)):
        for way in ("branch", "linear", "alone"):
            yield seed, n_params, way, n_tokens


def run(args: argparse.Namespace) -> None:
    """Train what the table lacks."""
    from skillscale.lm.data.mixture import MixStream
    from skillscale.lm.data.prepare import prepare
    from skillscale.lm.evaluation import skills
    from skillscale.lm.model.shape import shape_for
    from skillscale.lm.train import cooldown_branches, hyperparameters
    from skillscale.lm.train.loop import train
    from skillscale.point import DesignPoint

    config = load()
    prepared = prepare(config, args.cache, progress=print)
    mix, context = config.study.mix_values[0], config.model.context
    done = set() if not RUNS.exists() else set(pd.read_csv(RUNS)[["seed", "N", "way", "D"]].itertuples(index=False))
    for seed, wanted, way, n_tokens in cells(args):
        size = shape_for(wanted, vocab_size=prepared.tokenizer.vocab_size, model=config.model)
        if (seed, size.n_params, way, int(n_tokens)) in done:
            continue
        settings = replace(config.train, schedule="linear" if way == "linear" else "wsd")
        point = DesignPoint(n_params=size.n_params, n_tokens=int(n_tokens), mix=mix, seed=seed)
        plan = (hyperparameters if way == "linear" else cooldown_branches).derive(
            point, size, settings, context=context
        )
        file = cooldown_branches.StablePhaseCheckpoint(
            path=args.cache / "branching" / f"{point.stable_phase}.pt", goes_on=n_tokens < max(args.tokens)
        )
        began = time.process_time()
        with cooldown_branches.StablePhaseLease(file) as turn:
            trained = train(
                point, size=size, optimizer_plan=plan, config=settings, turn=turn if way == "branch" else None,
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
            "trained": trained.n_tokens, "taken": trained.n_taken, "steps": plan.steps,
            "weights": hashlib.blake2b(weights, digest_size=8).hexdigest(), "cpu_s": round(seconds, 2),
        }  # fmt: skip
        append(RUNS, row)
        print(row, flush=True)


def told(values: np.ndarray) -> str:
    """Mean in percent with Student's interval."""
    half = float(student.ppf((1 + LEVEL) / 2, len(values) - 1)) * values.std(ddof=1) / math.sqrt(len(values))
    return f"{values.mean():+.2%} [{values.mean() - half:+.2%}, {values.mean() + half:+.2%}]"


def table(_: argparse.Namespace) -> None:
    """Print the comparison."""
    runs = pd.read_csv(RUNS)
    wide = runs.set_index(["N", "D", "seed", "way"])[["loss", "weights"]].unstack("way")  # noqa: PD010
    both = wide.dropna(subset=[("weights", "alone"), ("weights", "branch")])
    same = (both["weights"]["alone"] == both["weights"]["branch"]).to_numpy()
    print(f"branches with the very weights of the run alone: {same.sum()} of {len(same)}")
    losses = np.log(wide["loss"].astype(float).dropna(subset=["linear", "branch"]))
    excess = losses["branch"] - losses["linear"]
    rows = []
    for (n_params, n_tokens), own in excess.groupby(level=["N", "D"]):
        seeds = losses.loc[(n_params, n_tokens)]
        rows.append(
            {
                "N": n_params, "D": n_tokens, "seeds": len(own), "linear": f"{np.exp(seeds['linear']).mean():.4f}",
                "branch": f"{np.exp(seeds['branch']).mean():.4f}",
                "branch / linear - 1": told(own.to_numpy()) if len(own) > 1 else f"{own.iloc[0]:+.2%}",
                "sd linear": f"{seeds['linear'].std():.2%}", "sd branch": f"{seeds['branch'].std():.2%}",
            }
        )  # fmt: skip
    print(pd.DataFrame(rows).to_string(index=False))
    by_seed = excess.groupby(level="seed").mean().to_numpy()
    if len(by_seed) > 1:
        print(f"all: {told(by_seed)}, seeds as clusters")
    for way in ("linear", "branch"):
        sd, shared = noise(losses[way])
        print(f"{way}: sd of a run {sd:.2%}, correlation between the D of a seed {shared:.2f}")
    spent = runs.assign(own=6 * runs["N"] * (runs["trained"] - runs["taken"]))
    of_branches = spent[spent["way"] == "branch"]["own"].sum()
    print(f"FLOP of branches over those of the same runs alone: "
          f"{of_branches / (6 * runs['N'] * runs['trained'])[runs['way'] == 'branch'].sum():.1%}")  # fmt: skip


def noise(losses: pd.Series) -> tuple[float, float]:
    """Sd of ln L between seeds, and the mean correlation between the D of one (N, seed), over all (N, D)."""
    wide = losses.unstack("D").dropna()  # noqa: PD010
    left = wide - wide.groupby(level="N").transform("mean")
    seeds = wide.groupby(level="N").size()
    freedom = float((seeds - 1).sum())
    if freedom < 1:
        return math.nan, math.nan
    covariance = left.to_numpy().T @ left.to_numpy() / freedom
    off = ~np.eye(len(covariance), dtype=bool)
    variance = float(np.diag(covariance).mean())
    return math.sqrt(variance), float(covariance[off].mean()) / variance


def saving(_: argparse.Namespace) -> None:
    """FLOPs of the shipped grids with trunks, and of denser ones."""
    names = sorted(path.stem for path in (conf_folder() / "study").glob("*.yaml"))
    rows = [{"study": name} | counted(name) for name in names]
    rows.append({"study": "skills-hour, 7 budgets"} | counted("skills-hour", DENSER, DENSER_SEEDS))
    rows.append({"study": "skills-hour, 13 budgets"} | counted("skills-hour", DENSEST, [2] * 13))
    print(pd.DataFrame(rows).to_string(index=False))


def counted(name: str, budgets: list[float] | None = None, seeds: list[int] | None = None) -> dict[str, object]:
    """Runs and FLOPs of a grid as it is, and from trunks."""
    more = {} if budgets is None else {"study.budgets": str(budgets), "study.seeds": str(seeds)}
    large = {"model.context": "1024"} if name.endswith(("paper", "gpu")) or name == "large" else {}
    before = [each.point for each in grid_points(load(study=name, overrides=large))]
    config = load(study=name, overrides={"train.schedule": "wsd", **large, **more})
    grid = grid_points(config)
    after = [each.point for each in grid]
    alone = sum(point.flops for point in after)
    own = tokens_to_train(after, config.train.cooldown_fraction)
    spent = sum(6 * point.n_params * tokens for point, tokens in zip(after, own, strict=True))
    off = max(
        abs(math.log(expected_optimum(budget, config.study)) - middle_of(grid, budget))
        for budget in {each.budget for each in grid}
    )
    return {
        "runs now": len(before), "FLOP now": f"{sum(point.flops for point in before):.3g}", "runs": len(after),
        "trunks": len({point.stable_phase for point in after}), "alone": f"{alone:.3g}", "spent": f"{spent:.3g}",
        "spent / alone": f"{spent / alone:.1%}", "off centre": f"{math.exp(off):.2f}x",
    }  # fmt: skip


def middle_of(grid: list, budget: float) -> float:
    """Middle of a budget's sizes, ln N."""
    sizes = [math.log(each.point.n_params) for each in grid if each.budget == budget]
    return (min(sizes) + max(sizes)) / 2


def coverage(args: argparse.Namespace) -> None:
    """Simulate studies of three grids, and count how often 90 % intervals hold the truth."""
    seen: set[tuple[object, ...]] = set()
    if COVERAGE.exists():
        seen = set(pd.read_csv(COVERAGE)[["grid", "shared", "study"]].itertuples(index=False))
    frames = {name: simulated_grid(name) for name in ("separate", "branched", "denser")}
    for study in range(args.studies):
        for name, frame in frames.items():
            for shared in (0.0,) if name == "separate" else (0.5, 0.9):
                if (name, shared, study) not in seen:
                    for row in scored(frame, shared, study):
                        append(COVERAGE, {"grid": name, "shared": shared, "study": study} | row)
    rows = pd.read_csv(COVERAGE)
    by = ["grid", "shared", "resampled by", "of"]
    summary = rows.groupby(by, sort=False)[["covered", "half", "square"]].mean()
    summary["rmse"] = np.sqrt(summary.pop("square"))
    print(summary.assign(known=rows.groupby(by, sort=False)["covered"].count()).round(3).to_string())


def simulated_grid(name: str) -> pd.DataFrame:
    """Runs of skills-hour without losses: each by itself, from trunks, and from trunks at 7 budgets."""
    overrides = {} if name == "separate" else {"train.schedule": "wsd"}
    if name == "denser":
        overrides |= {"study.budgets": str(DENSER), "study.seeds": str(DENSER_SEEDS)}
    points = grid_points(load(study="skills-hour", overrides=overrides))
    rows = [
        {"run_id": f"{at:03d}", "cluster": one.point.stable_phase, "C": one.budget, "N": one.point.n_params,
         "D": one.point.n_tokens, "mix": "all=1", "seed": one.point.seed}
        for at, one in enumerate(points)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def scored(frame: pd.DataFrame, shared: float, study: int) -> list[dict[str, object]]:
    """One study's intervals, by the runs as they are resampled: each by itself, or by trunk.

    Runs have an sd of .4 % in the loss, of whose variance ``shared`` is the trunk's.
    """
    rng = np.random.default_rng([study, 7])
    truth = random_planted_law(rng)
    codes = np.unique(frame["cluster"], return_inverse=True)[1]
    of_trunk = rng.normal(size=codes.max() + 1)[codes]
    error = math.sqrt(shared) * of_trunk + math.sqrt(1 - shared) * rng.normal(size=len(frame))
    runs = frame.assign(skill=truth.loss(frame["N"], frame["D"]) * np.exp(SD * error))
    budgets = np.unique(frame["C"])
    optima = {C: math.log(truth.optimum(C)) for C in (*budgets, FAR)}
    log_C = np.log(budgets) - np.log(budgets).mean()
    slope = float(np.array([optima[C] for C in budgets]) @ log_C / (log_C @ log_C))
    rows: list[dict[str, object]] = []
    for way in ("run",) if not shared else ("run", "trunk"):
        table = runs if way == "trunk" else runs.drop(columns="cluster")
        fits = fit_study(table, skills=["skill"], aggregates=[], resamples=400, seed=1)
        power = fits.power_laws[0]
        rows += [tested(way, "a", power.a, slope), tested(way, "N* far", log_of(power.N(FAR)), optima[FAR])]
        rows += [tested(way, "N*", log_of(one.N), optima[one.C]) for one in fits.minima if one.status is Status.OK]
        rows += [tested(way, "law's N*", log_of(one.law), optima[one.C]) for one in fits.curve_versus_law]
    return rows


def log_of(interval: Interval) -> Interval:
    """Of ln N."""
    return interval.map(math.log) if interval.is_finite else interval


def tested(way: str, what: str, interval: Interval, truth: float) -> dict[str, object]:
    """A row of the table; empty where there is no interval."""
    row: dict[str, object] = {"resampled by": way, "of": what, "covered": "", "half": "", "square": ""}
    if interval.is_finite:
        row["covered"] = int(interval.lo <= truth <= interval.hi)
        row |= {"half": round((interval.hi - interval.lo) / 2, 5), "square": round((interval.value - truth) ** 2, 7)}
    return row


def main() -> None:
    """Do one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("run", "table", "saving", "coverage"))
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "skillscale")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--studies", type=int, default=200)
    for name, default in (("sizes", "3e4,1e4"), ("tokens", "5e4,1.5e5,4.5e5")):
        parser.add_argument(f"--{name}", type=lambda text: [float(one) for one in text.split(",")], default=default)
    args = parser.parse_args()
    {"run": run, "table": table, "saving": saving, "coverage": coverage}[args.part](args)


if __name__ == "__main__":
    main()
