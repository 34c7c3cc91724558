"""Choices from pools of real runs (ScaleBench): test R^2 after 1, 5 and 10 % of the cost of all runs of the pool.

    python benchmarks/pools.py run --seeds 8
    python benchmarks/pools.py table

A method sees the losses of the runs that it has chosen from ``train``, and the inputs of ``test`` without their losses.
R^2 = 1 - sum (L - L_hat)^2 / sum (L - mean L)^2 over all test runs and outputs, at least -1, as in ScaleBench. A run
costs 6 N D. In domain_mixture all runs cost the same, so shares are larger there. Analysis ``laws``: the averaged
posterior of this package. ``published``: least squares of the law that comes with the pool, -1 where a group with a
separate fit has no run.

``run`` is resumable: it does not compute rows again that are in benchmarks/results/pools.csv (``--out``). ``--redo``
drops those of the named methods first. Pools are read from SKILLSCALE_TABLES, or ../shared/data beside the checkout.
"""

import argparse
import csv
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from designs.greedy_designs import DesignCriterion
from designs.pool import START, Pool, average_for_pool, choose_from_pool, losses_at
from pool_rivals import LAWS, Task, choose_greedily

from skillscale.design.priors import EPOCHS
from skillscale.design.propose import DesignGoal
from skillscale.design.space import RunHistory
from skillscale.design.targets import Target
from skillscale.laws.forms.nd import Array

ROOT = Path(__file__).parent
SHARES = {
    "farseer": (0.01, 0.05, 0.1), "data_constrained": (0.01, 0.05, 0.1),
    "domain_mixture": (0.05, 0.1, 0.2, 0.35, 0.5),
}  # fmt: skip
METHODS = ("bayes", "random", *(criterion.value for criterion in DesignCriterion))
DOMAINS = 5
TOKENS = 1e10  # of each run of domain_mixture: unknown, but equal for all
BATCH, GROWTH = 6, 0.2  # runs that the Bayesian design chooses at once: a number, or a share of those made
KEYS = ["pool", "share", "method", "seed"]
FIELDS = [*KEYS, "analysis", "r2", "spent", "runs", "seconds"]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A pool with its losses, the test runs, and a task for each group with a separate fit.

    ``groups``: rows of the pool and of the test for each task.
    """

    pool: Pool
    train: RunHistory = field(repr=False)
    test: RunHistory = field(repr=False)
    tasks: tuple[tuple[Task, ...], ...] = field(repr=False)
    groups: tuple[tuple[Array, Array], ...] = field(repr=False)

    @property
    def targets(self) -> tuple[Target, ...]:
        """Losses of the test runs."""
        return losses_at(self.test, self.test.skills)

    def r2(self, log_L: dict[str, Array]) -> float:
        """Return R^2 of predicted ln L, by output."""
        L = np.exp(np.concatenate([self.test.log_L[skill] for skill in self.test.skills]))
        predicted = np.exp(np.concatenate([log_L[skill] for skill in self.test.skills]))
        return max(-1.0, 1 - float(((L - predicted) ** 2).sum() / ((L - L.mean()) ** 2).sum()))


def load(name: str) -> Bench:
    """Load a pool."""
    folder = Path(os.environ.get("SKILLSCALE_TABLES") or ROOT.parents[1] / "shared" / "data")
    path = folder / f"scalebench_{name}.csv"
    if not path.is_file():
        raise SystemExit(f"there is no {path}. Set SKILLSCALE_TABLES to the folder of the published tables")
    rows = pd.read_csv(path)
    train, test = (rows[rows["split"] == split].reset_index(drop=True) for split in ("train", "test"))
    if name == "domain_mixture":
        return _mixtures(train, test)
    columns = ["params", "tokens"] if name == "farseer" else ["unique_tokens", "params", "tokens"]
    cost = 6 * train["params"].to_numpy(float) * train["tokens"].to_numpy(float)
    runs = [_single_output(rows, epochs=name == "data_constrained") for rows in (train, test)]
    task = Task(
        law=LAWS[name], X=train[columns].to_numpy(float), L=train["loss"].to_numpy(),
        places=test[columns].to_numpy(float), cost=cost,
    )  # fmt: skip
    pool = Pool(N=runs[0].N, D=runs[0].D, cost=cost, h=runs[0].h, categories=() if runs[0].h is None else (EPOCHS,))
    groups = ((np.arange(len(train)), np.arange(len(test))),)
    return Bench(pool=pool, train=runs[0], test=runs[1], tasks=((task,),), groups=groups)


def _single_output(rows: pd.DataFrame, *, epochs: bool) -> RunHistory:
    N, D = rows["params"].to_numpy(float), rows["tokens"].to_numpy(float)
    h = np.log(np.maximum(D / rows["unique_tokens"].to_numpy(float), 1.0))[:, None] if epochs else None
    return _history(N, D, h, {"loss": rows["loss"].to_numpy()})


def _history(N: Array, D: Array, h: Array | None, L: dict[str, Array]) -> RunHistory:
    log_L = {name: np.log(losses) for name, losses in L.items()}
    return RunHistory(N=N, D=D, h=h, log_L=log_L, sem={name: np.zeros(len(N)) for name in L})


def _mixtures(train: pd.DataFrame, test: pd.DataFrame) -> Bench:
    """Return the pool of five domains at four sizes; the published law has a fit for each domain and size."""
    shares = [f"proportion_domain_{at}" for at in range(1, DOMAINS + 1)]
    losses = [f"loss_domain_{at}" for at in range(1, DOMAINS + 1)]

    def history(rows: pd.DataFrame) -> RunHistory:
        N = rows["group"].str[:-1].to_numpy(float) * 1e6
        return _history(
            N, np.full(len(N), TOKENS), rows[shares].to_numpy(), {name: rows[name].to_numpy() for name in losses}
        )

    tasks, groups = [], []
    for size in sorted(set(train["group"])):
        here, there = (np.flatnonzero(rows["group"] == size) for rows in (train, test))
        tasks.append(tuple(
            Task(
                law=LAWS["domain_mixture"], X=train[[share]].to_numpy()[here], L=train[loss].to_numpy()[here],
                places=test[[share]].to_numpy()[there], cost=np.ones(len(here)),
            )
            for share, loss in zip(shares, losses, strict=True)
        ))  # fmt: skip
        groups.append((here, there))
    runs = history(train)
    pool = Pool(N=runs.N, D=runs.D, cost=np.ones(len(train)), h=runs.h, categories=tuple(shares))
    return Bench(pool=pool, train=runs, test=history(test), tasks=tuple(tasks), groups=tuple(groups))


def subset(runs: RunHistory, at: list[int]) -> RunHistory:
    """Return some of the runs with their losses."""
    rows = np.array(at, dtype=int)
    return RunHistory(
        N=runs.N[rows], D=runs.D[rows], h=None if runs.h is None else runs.h[rows],
        log_L={name: log_L[rows] for name, log_L in runs.log_L.items()},
        sem={name: sem[rows] for name, sem in runs.sem.items()},
    )  # fmt: skip


def choose_runs(bench: Bench, method: str, share: float, seed: int) -> list[int]:
    """Return the runs that a method chooses for its share of the cost."""
    if method == "bayes":
        return _choose_by_bayes(bench, share, seed)
    rng, chosen = np.random.default_rng([seed, 1]), []
    for tasks, (here, _) in zip(bench.tasks, bench.groups, strict=True):
        cost = bench.pool.cost[here]
        budget = share * float(cost.sum())
        if method == "random":
            picked = _affordable(rng.permutation(len(here)), cost, budget)
        else:
            picked = choose_greedily(tasks, DesignCriterion(method), budget, rng)
        chosen += [int(here[at]) for at in picked]
    return chosen


def _affordable(order: Array, cost: Array, budget: float) -> list[int]:
    """Return runs in an order, without those for which the remaining budget does not pay."""
    picked = []
    for at in order:
        if cost[at] <= budget * (1 + 1e-9):
            picked.append(int(at))
            budget -= float(cost[at])
    return picked


def _choose_by_bayes(bench: Bench, share: float, seed: int) -> list[int]:
    made: list[int] = []
    budget = share * float(bench.pool.cost.sum())
    while True:
        open_runs = sorted(set(range(len(bench.pool))) - set(made))
        count = max(BATCH, int(GROWTH * len(made))) if made else START
        goal = DesignGoal(targets=bench.targets, budget=budget)
        more = choose_from_pool(subset(bench.train, made), bench.pool, goal, open_runs, count=count, seed=seed)
        if not more:
            return made
        made += more
        budget -= float(bench.pool.cost[list(more)].sum())


def r2_by_laws(bench: Bench, made: list[int]) -> float:
    """Return R^2 of the averaged posterior."""
    averages = average_for_pool(subset(bench.train, made), bench.pool, bench.targets)
    test = bench.test
    return bench.r2({skill: average.log_loss(test.N, test.D, test.h) for skill, average in averages.items()})


def r2_by_published_law(bench: Bench, made: list[int], seed: int) -> float:
    """Return R^2 of the law that comes with the pool, -1 where a group has no run."""
    skills = bench.test.skills
    log_L = {skill: np.full(len(bench.test), np.nan) for skill in skills}
    rng = np.random.default_rng([seed, 2])
    for tasks, (here, there) in zip(bench.tasks, bench.groups, strict=True):
        picked = np.flatnonzero(np.isin(here, made))
        if not len(picked):
            return -1.0
        for skill, task in zip(skills, tasks, strict=True):
            with np.errstate(invalid="ignore", divide="ignore"):
                log_L[skill][there] = np.log(task.predicted(picked, rng))
    r2 = bench.r2(log_L)
    return r2 if np.isfinite(r2) else -1.0


def run(args: argparse.Namespace) -> None:
    """Compute the rows that the file lacks, seed by seed."""
    if args.redo and args.out.exists():
        rows = pd.read_csv(args.out, dtype=str)
        rows[~rows["method"].isin(args.redo)].to_csv(args.out, index=False)
    done = set(pd.read_csv(args.out)[KEYS].itertuples(index=False, name=None)) if args.out.exists() else set()
    benches = {name: load(name) for name in args.pools}
    os.nice(5)
    with args.out.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=FIELDS)
        if file.tell() == 0:
            writer.writeheader()
        for cell in _cells(args):
            if cell in done:
                continue
            name, share, method, seed = cell
            bench, start = benches[name], time.perf_counter()
            made = choose_runs(bench, method, share, seed)
            seconds = time.perf_counter() - start
            spent = float(bench.pool.cost[made].sum() / bench.pool.cost.sum())
            by_analysis = {"laws": r2_by_laws(bench, made), "published": r2_by_published_law(bench, made, seed)}
            for analysis, r2 in by_analysis.items():
                row = (*cell, analysis, f"{r2:.4f}", f"{spent:.5f}", len(made), f"{seconds:.1f}")
                writer.writerow(dict(zip(FIELDS, row, strict=True)))
            file.flush()


def _cells(args: argparse.Namespace) -> Iterator[tuple[str, float, str, int]]:
    for seed in range(args.first, args.first + args.seeds):
        for name in args.pools:
            for share in SHARES[name]:
                for method in args.methods:
                    yield name, share, method, seed


def table(rows: pd.DataFrame) -> str:
    """Return median R^2 and its quartiles over seeds, with a column for each method."""
    methods = [method for method in METHODS if method in set(rows["method"])]
    lines = [["pool", "share of the cost", "analysis", *methods, "seeds", "runs of bayes"]]
    for (name, share, analysis), cell in rows.groupby(["pool", "share", "analysis"], sort=False):
        by_method = cell.groupby("method")
        cells = {}
        for method in methods:
            low, middle, high = (
                by_method["r2"].quantile([0.25, 0.5, 0.75])[method] if method in by_method.groups else [np.nan] * 3
            )
            cells[method] = "" if np.isnan(middle) else f"{middle:.3f} ({low:.3f} to {high:.3f})"
        runs = f"{cell[cell['method'] == 'bayes']['runs'].mean():.0f}"
        lines.append([name, f"{share:.0%}", analysis, *cells.values(), str(by_method["seed"].nunique().min()), runs])
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Compute rows or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--pools", default=",".join(SHARES), help="pools to choose from")
    parser.add_argument("--methods", default=",".join(METHODS), help="methods to run")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--seeds", type=int, default=8, help="number of seeds")
    parser.add_argument("--redo", default="", help="methods to run again")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "pools.csv")
    args = parser.parse_args()
    for name in ("pools", "methods", "redo"):
        setattr(args, name, [word for word in getattr(args, name).split(",") if word])
    if args.what == "run":
        run(args)
    else:
        print(table(pd.read_csv(args.out)))


if __name__ == "__main__":
    main()
