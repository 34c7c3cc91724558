"""Designs of experiments on known worlds: error of ln N* at 1e21 FLOP after a budget, design by design.

    python benchmarks/design.py run --seeds 50 --jobs 2                         ours, at three budgets
    python benchmarks/design.py run --designs grid,grid-7x5-8,sobol --budgets .16,.64,2.55,10.2,40.8,163.2
    python benchmarks/design.py table                                           RMSE and coverage
    python benchmarks/design.py ratios --analysis answer                        FLOPs to the same error

Worlds: random ones of each kind, three skills, C of one run from 1e16 to 1e19 (``--mixed``: three categories, at four
mixes). Budgets are in units of the largest run, the overhead of 1 % of it a run included. ``estimate_targets``: the analysis is
alike for all designs; ``vertices`` (of parabolas, wherever they lie), ``quadratic``, ``shared``: isoFLOP curves and a
power law, for grids. ``run`` is resumable: rows in benchmarks/results/design_runs.csv.gz (``--out``) are not computed
again; ``--redo`` drops those of the designs named.

``ratios``: what a rival needs for our RMSE, ln RMSE against ln budget being straight between its budgets, over our
budget; ``>`` where its largest budget does not reach our RMSE, ``<`` where its smallest does better. Kind ``all``: RMSE
as the geometric mean over kinds; ``mean``: geometric mean of the kinds' ratios. Intervals (90 %) are of a bootstrap
over truths, the same ones for both designs. ``best grid``: at each budget the best of the nine, chosen in each resample
(known only afterwards).
"""

import argparse
import csv
import gzip
import math
import os
import time
from collections.abc import Iterator
from multiprocessing import Pool
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd

from skillscale.design.model_averaging import estimate_targets
from skillscale.design.propose import DesignGoal
from skillscale.design.space import DesignSpace, RunHistory
from skillscale.design.targets import Quantity, Target, default_targets
from skillscale.errors import InputError
from skillscale.simulation.baselines import DESIGNS, SHAPES
from skillscale.simulation.greedy_designs import GREEDY
from skillscale.simulation.optuna_baselines import MAKERS
from skillscale.simulation.parabola_analysis import answer_by_parabolas
from skillscale.simulation.random_truths import FLOPS, SKILLS, TruthFamily, random_truth
from skillscale.simulation.replay import ReplaySettings, measure_run, run_design

RESULTS = Path(__file__).parent / "results"
UNIT = FLOPS[1]
TARGET = 1e21
BUDGETS = (0.64, 2.55, 10.2)
MIXED_BUDGETS = (7.65,)
MOST = 60  # runs of ours
CATEGORIES = ("knowledge", "code", "prose")
MIXES = np.array([[1, 1, 1], [3, 1, 1], [1, 3, 1], [1, 1, 3]]) / np.array([[3], [5], [5], [5]])
GRIDS = tuple("grid" if shape == SHAPES[0] else shape.name for shape in SHAPES)
KEYS = ["kind", "seed", "design", "budget", "mixed"]
FIELDS = [*KEYS, "analysis", "skill", "mix", "C", "error", "lo", "hi", "truth", "spent", "runs", "seconds"]
ANALYSES = ("answer", "vertices", "quadratic", "shared")
MADE = {**DESIGNS, **GREEDY, **MAKERS}
RESAMPLES = 2000
WIDE = (0.05, 6000.0)  # D / N of grids, whose ends lie where they lie; other designs keep to the space's own range
Cell = tuple[str, int, str, float, bool]


def compute(cell: Cell) -> list[dict[str, object]]:
    """Rows of one design on one world at one budget: one each skill, mix and analysis."""
    kind, seed, name, budget, mixed = cell
    world = random_truth(TruthFamily(kind), seed, CATEGORIES if mixed else ())
    wide = {"ratio": WIDE} if name in GRIDS else {}
    space = DesignSpace(flops=FLOPS, categories=CATEGORIES if mixed else (), mixes=MIXES if mixed else None, **wide)
    mixes = [tuple(mix) for mix in MIXES] if mixed else [()]
    wish = DesignGoal(
        targets=default_targets(SKILLS, largest=UNIT, computes=(TARGET,), mixes=mixes),
        budget=budget * UNIT,
        max_runs=MOST,
    )
    asked = tuple(target for target in wish.targets if target.quantity is Quantity.OPTIMUM)
    begin = time.perf_counter()
    try:
        history = run_design(
            measure_run(world, np.random.default_rng([seed, 1])), MADE[name](space, wish, seed), space,
            RunHistory.empty(SKILLS, len(CATEGORIES) if mixed else 0),
            ReplaySettings(budget=wish.budget, most=MOST if name == "ours" else None), rng=np.random.default_rng([seed, 2]),
        )  # fmt: skip
    except InputError as error:
        print(f"{name} at {budget}: {error}", flush=True)
        return []
    seconds = time.perf_counter() - begin
    truths = [float(world.log_optimum(t.skill, t.C, np.array(t.h) if t.h else None)[0]) for t in asked]
    spent = float(space.cost(history.N, history.D).sum()) / UNIT
    rows: list[dict[str, object]] = []
    for analysis in ANALYSES if name in GRIDS else ("answer",):
        if analysis == "answer":
            told = estimate_targets(history, space, asked)
        else:
            told = answer_by_parabolas(history, asked, curve=analysis)
        rows += [
            {
                "kind": kind, "seed": seed, "design": name, "budget": budget, "mixed": int(mixed), "analysis": analysis,
                "skill": target.skill, "mix": _mix(target), "C": f"{target.C:.3g}", "error": f"{value - truth:.4f}",
                "lo": f"{lo - truth:.4f}", "hi": f"{hi - truth:.4f}", "truth": f"{truth:.4f}", "spent": f"{spent:.4f}",
                "runs": len(history), "seconds": f"{seconds:.2f}",
            }
            for target, truth, value, lo, hi in zip(asked, truths, told.value, told.lo, told.hi, strict=True)
        ]  # fmt: skip
    return rows


def _mix(target: Target) -> str:
    return "/".join(f"{share:.2f}" for share in target.h)


def run(args: argparse.Namespace, path: Path) -> None:
    """Compute the cells that the file lacks; each world's cells follow on one another."""
    _fold(path)
    _drop(path, args.redo)
    done = set(_read(path)[KEYS].itertuples(index=False, name=None)) if path.exists() else set()
    cells = [cell for cell in _cells(args) if cell not in done]
    os.nice(10)
    begin = time.perf_counter()
    with _part(path).open("w", newline="") as file, Pool(args.jobs) as pool:
        writer = csv.DictWriter(file, fieldnames=FIELDS)
        writer.writeheader()
        each = map(compute, cells) if args.jobs == 1 else pool.imap_unordered(compute, cells)
        for count, rows in enumerate(each, start=1):
            writer.writerows(rows)
            file.flush()
            if count % 100 == 0:
                print(f"{count} of {len(cells)} in {time.perf_counter() - begin:.0f} s", flush=True)
    _fold(path)
    print(f"{len(cells)} computed, {len(done)} were there, {time.perf_counter() - begin:.0f} s")


def _cells(args: argparse.Namespace) -> Iterator[Cell]:
    for seed in range(args.first, args.first + args.seeds):
        for kind in args.kinds:
            for budget in args.budgets:
                for design in args.designs:
                    yield kind, seed, design, budget, args.mixed


def _drop(path: Path, designs: list[str]) -> None:
    if designs and path.exists():
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
        rows[~rows["design"].isin(designs)].to_csv(path, index=False)


def _part(path: Path) -> Path:
    """Rows of a run under way, not compressed: one that is killed loses none but the last."""
    return path.with_name(f"{path.name}.part")


def _fold(path: Path) -> None:
    """Put the rows of a run that ended, or was stopped, among the others."""
    if not (part := _part(path)).exists():
        return
    lines = part.read_text().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")][int(path.exists()) :]  # one header is enough
    with gzip.open(path, "at", newline="") as file:
        file.writelines(whole)
    part.unlink()


def _read(path: Path) -> pd.DataFrame:
    rows = pd.read_csv(path, keep_default_na=False, dtype={"mix": str})
    return rows.astype({"mixed": bool, "budget": float, "seed": int})


def chosen(args: argparse.Namespace, path: Path) -> pd.DataFrame:
    """Rows of the kinds, designs and seeds asked for."""
    rows = _read(path)
    kept = rows["kind"].isin(args.kinds) & (rows["mixed"] == args.mixed)
    rows = rows[kept & rows["seed"].between(args.first, args.first + args.seeds - 1)]
    if not args.alike:
        return rows
    rows = rows[rows["design"].isin(args.alike)]
    runs = rows.groupby(["kind", "seed", "budget"])["design"].transform("nunique")
    return rows[runs == len(args.alike)]


def table(rows: pd.DataFrame) -> str:
    """RMSE / coverage by design, analysis and budget, a column a kind; geometric mean of the RMSE; truths and runs."""
    rows = rows.assign(square=rows["error"] ** 2, hit=(rows["lo"] <= 0) & (rows["hi"] >= 0))
    kinds = list(dict.fromkeys(rows["kind"]))
    lines = [["budget", "design", "analysis", *kinds, "geometric mean", "coverage", "truths", "runs", "spent", "s"]]
    for (budget, analysis, design), cell in rows.groupby(["budget", "analysis", "design"]):
        by_kind = cell.groupby("kind").agg({"square": "mean", "hit": "mean", "seed": "nunique"})
        rmse = np.sqrt(by_kind["square"])
        shown = [f"{rmse[k]:.3f} / {by_kind['hit'][k]:.2f}" if k in rmse else "" for k in kinds]
        mean = f"{math.exp(np.log(rmse).mean()):.3f}" if len(rmse) == len(kinds) else ""
        lines.append(
            [f"{budget:g}", design, analysis, *shown, mean, f"{cell['hit'].mean():.2f}", str(by_kind["seed"].min()),
             f"{cell['runs'].mean():.0f}", f"{cell['spent'].mean():.2f}", f"{cell['seconds'].mean():.1f}"]
        )  # fmt: skip
    return _markdown(lines)


def _markdown(lines: list[list[str]]) -> str:
    lines = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def squares(rows: pd.DataFrame, design: str, analysis: str, kinds: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Budgets (n_budgets,) and mean squared errors (n_kinds, n_budgets, n_seeds) of a design; NaN where not run."""
    mine = rows[(rows["design"] == design) & (rows["analysis"] == analysis)]
    seeds = sorted(rows["seed"].unique())
    budgets = sorted(mine["budget"].unique())
    means = mine.assign(square=mine["error"] ** 2).groupby(["kind", "budget", "seed"])["square"].mean()
    index = pd.MultiIndex.from_product([kinds, budgets, seeds])
    return np.array(budgets), means.reindex(index).to_numpy().reshape(len(kinds), len(budgets), len(seeds))


def resampled(square: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Ln RMSE (K, n_kinds, n_budgets) under weights of truths (K, n_kinds, n_seeds); first row: as they are."""
    there = np.isfinite(square)
    total = np.einsum("ksw,rkw->rks", np.where(there, square, 0.0), weights)
    count = np.einsum("ksw,rkw->rks", there.astype(float), weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(0.5 * np.log(total / count))


def needed(budgets: np.ndarray, log_rmse: np.ndarray, aim: np.ndarray) -> np.ndarray:
    """Ln of the budget at which ln RMSE (K, n_budgets), made to fall, first comes down to ``aim`` (K,), or +-inf."""
    x = np.log(budgets)
    found = np.empty(len(aim))
    for k, (curve, y) in enumerate(zip(np.minimum.accumulate(log_rmse, axis=1), aim, strict=True)):
        if y > curve[0] or y < curve[-1]:
            found[k] = -math.inf if y > curve[0] else math.inf
            continue
        at = int(np.argmax(curve <= y))
        if at == 0:
            found[k] = x[0]
            continue
        share = (curve[at - 1] - y) / max(curve[at - 1] - curve[at], 1e-12)
        found[k] = x[at - 1] + share * (x[at] - x[at - 1])
    return found


def ratios(rows: pd.DataFrame, *, subject: str, analyses: list[str]) -> str:
    """FLOPs that each rival needs for the subject's error, over the subject's, with intervals over truths."""
    kinds = list(dict.fromkeys(rows["kind"]))
    n_seeds = rows["seed"].nunique()
    draws = np.random.default_rng(0).multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), (RESAMPLES, len(kinds)))
    weights = np.concatenate([np.ones((1, len(kinds), n_seeds)), draws.astype(float)])
    budgets, square = squares(rows, subject, "answer", kinds)
    own = resampled(square, weights)
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for analysis in analyses:
        for design in dict.fromkeys(rows[rows["analysis"] == analysis]["design"]):
            if design != subject:
                at, square = squares(rows, design, analysis, kinds)
                curves[f"{design}, {analysis}"] = at, resampled(square, weights)
        grids = [curves[f"{name}, {analysis}"] for name in GRIDS if f"{name}, {analysis}" in curves]
        if len(grids) > 1:
            shared = sorted(set[float].intersection(*(set(at) for at, _ in grids)))
            best = _best([curve[..., np.isin(at, shared)] for at, curve in grids])
            curves[f"best grid, {analysis}"] = np.array(shared), best
    lines = [["budget", "rival", *kinds, "mean", "all"]]
    for b, budget in enumerate(budgets):
        for name, (at, curve) in curves.items():
            by_kind = [needed(at, curve[:, k], own[:, k, b]) - math.log(budget) for k in range(len(kinds))]
            clipped = np.mean(np.clip(by_kind, *np.log(at[[0, -1]] / budget)), axis=0)
            overall = needed(at, curve.mean(1), own[:, :, b].mean(1)) - math.log(budget)
            ends = at[[0, -1]] / budget
            lines.append([f"{budget:g}", name, *(_ratio(one, ends) for one in [*by_kind, clipped, overall])])
    return _markdown(lines)


def _best(curves: list[np.ndarray]) -> np.ndarray:
    """Of several designs (each (K, n_kinds, n_budgets)) the best in the mean over kinds, by resample and budget."""
    stack = np.array(curves)
    at = stack.mean(2).argmin(0)
    return np.asarray(np.take_along_axis(stack, at[None, :, None, :], 0)[0])


def _ratio(log_ratio: np.ndarray, ends: np.ndarray) -> str:
    """Estimate and interval; bounded by the rival's budgets."""

    def told(x: float) -> str:
        if math.isnan(x):
            return "-"
        return f">{ends[1]:.3g}" if x == math.inf else f"<{ends[0]:.2g}" if x == -math.inf else f"{math.exp(x):.2g}"

    draws = np.sort(log_ratio[1:])
    lo, hi = draws[int(0.05 * len(draws))], draws[int(0.95 * len(draws))]
    return f"{told(float(log_ratio[0]))} ({told(float(lo))} to {told(float(hi))})"


def main() -> None:
    """Compute or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table", "ratios"))
    parser.add_argument("--kinds", default=",".join(TruthFamily))
    parser.add_argument("--first", type=int, default=0, help="first truth")
    parser.add_argument("--seeds", type=int, default=50, help="truths of each kind")
    parser.add_argument("--designs", default="ours")
    parser.add_argument("--budgets", default="")
    parser.add_argument("--mixed", action="store_true")
    parser.add_argument("--alike", default="", help="designs: of the truths, at each budget, that all of them have")
    parser.add_argument("--redo", default="", help="designs whose rows are dropped first")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "design_runs.csv.gz")
    parser.add_argument("--subject", default="ours", help="of the ratios")
    parser.add_argument("--analysis", default="answer,vertices,quadratic", help="of the rivals in the ratios")
    args = parser.parse_args()
    for name in ("kinds", "designs", "redo", "analysis", "alike"):
        setattr(args, name, [word for word in getattr(args, name).split(",") if word])
    args.designs = [one for name in args.designs for one in (GRIDS if name == "grids" else (name,))]
    default = MIXED_BUDGETS if args.mixed else BUDGETS
    args.budgets = [float(word) for word in args.budgets.split(",") if word] or list(default)
    if args.what == "run":
        run(args, args.out)
    elif args.what == "table":
        print(table(chosen(args, args.out)))
    else:
        print(ratios(chosen(args, args.out), subject=args.subject, analyses=args.analysis))


if __name__ == "__main__":
    main()
