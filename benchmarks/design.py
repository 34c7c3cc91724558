"""Designs of experiments on random truths: error of ln N* at 1e21 FLOP after a budget, by design.

    python benchmarks/design.py run --seeds 50 --jobs 2                    the Bayesian design at three budgets
    python benchmarks/design.py run --designs grid,grid-7x5-8,sobol --budgets .16,.64,2.55,10.2,40.8,163.2
    python benchmarks/design.py table                                      RMSE and coverage
    python benchmarks/design.py ratios --analysis laws                     FLOP to the same error

Truths: random ones of each family, three skills, C of a run from 1e16 to 1e19. With ``--mixed`` there are three
categories and four mixes. Budgets are in units of the largest run; each run has an overhead of 1 % of it. The analysis
``laws`` is ``estimate_targets``, the same for all designs. Grids also have ``vertices`` (of parabolas, wherever they
are), ``quadratic`` and ``shared`` (isoFLOP curves and a power law). ``run`` is resumable: it does not compute rows
again that are in benchmarks/results/design_runs.csv.gz (``--out``). ``--redo`` drops those of the named designs first.

``ratios``: the budget that a rival needs for the RMSE of the subject, over the subject's budget. ln RMSE is linear in
ln budget between the rival's budgets. ``>``: its largest budget does not reach the RMSE. ``<``: its smallest budget
does better. Family ``all``: RMSE as the geometric mean over families. ``mean``: geometric mean of the families' ratios.
Intervals (90 %) come from a bootstrap over truths, the same truths for both designs. ``best grid``: the best of the
nine at each budget, chosen in each resample. It is known only in hindsight.
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
from designs.greedy_designs import GREEDY
from designs.optuna_baselines import OPTUNA_BASELINES
from designs.parabola_analysis import estimate_by_parabolas

from skillscale.design.model_averaging import estimate_targets
from skillscale.design.propose import DesignGoal
from skillscale.design.space import DesignSpace, RunHistory
from skillscale.design.targets import Quantity, Target, default_targets
from skillscale.errors import InputError
from skillscale.simulation.baselines import DESIGNS, SHAPES
from skillscale.simulation.random_truths import FLOPS, SKILLS, TruthFamily, random_truth
from skillscale.simulation.replay import ReplaySettings, run_design
from skillscale.simulation.truth import true_value

RESULTS = Path(__file__).parent / "results"
UNIT = FLOPS[1]
TARGET = 1e21
BUDGETS = (0.64, 2.55, 10.2)
MIXED_BUDGETS = (7.65,)
MAX_RUNS = 60  # of the Bayesian design
CATEGORIES = ("knowledge", "code", "prose")
MIXES = np.array([[1, 1, 1], [3, 1, 1], [1, 3, 1], [1, 1, 3]]) / np.array([[3], [5], [5], [5]])
LAWS = "laws"  # the analysis by averaged posteriors
GRIDS = tuple("grid" if shape == SHAPES[0] else shape.name for shape in SHAPES)
KEYS = ["family", "seed", "design", "budget", "mixed"]
FIELDS = [*KEYS, "analysis", "skill", "mix", "C", "error", "lo", "hi", "truth", "spent", "runs", "seconds"]
ANALYSES = (LAWS, "vertices", "quadratic", "shared")
MAKERS = {**DESIGNS, **GREEDY, **OPTUNA_BASELINES}
RESAMPLES = 2000
WIDE = (0.05, 6000.0)  # D / N for grids, which may end anywhere; other designs keep to the range of the space
Cell = tuple[str, int, str, float, bool]


def compute(cell: Cell) -> list[dict[str, object]]:
    """Return the rows of a design on a truth at a budget: one for each skill, mix and analysis."""
    family, seed, name, budget, mixed = cell
    truth = random_truth(TruthFamily(family), seed, CATEGORIES if mixed else ())
    wide = {"ratio": WIDE} if name in GRIDS else {}
    space = DesignSpace(flops=FLOPS, categories=CATEGORIES if mixed else (), mixes=MIXES if mixed else None, **wide)
    mixes = [tuple(mix) for mix in MIXES] if mixed else [()]
    goal = DesignGoal(
        targets=default_targets(SKILLS, largest=UNIT, computes=(TARGET,), mixes=mixes),
        budget=budget * UNIT,
        max_runs=MAX_RUNS,
    )
    optima = tuple(target for target in goal.targets if target.quantity is Quantity.OPTIMUM)
    begin = time.perf_counter()
    try:
        history = run_design(
            truth, MAKERS[name](space, goal, seed), space, RunHistory.empty(SKILLS, len(CATEGORIES) if mixed else 0),
            ReplaySettings(budget=goal.budget, max_runs=MAX_RUNS if name == "bayes" else None),
            noise_rng=np.random.default_rng([seed, 1]), design_rng=np.random.default_rng([seed, 2]),
        )  # fmt: skip
    except InputError as error:
        print(f"{name} at {budget}: {error}", flush=True)
        return []
    seconds = time.perf_counter() - begin
    exact = [true_value(truth, target) for target in optima]
    spent = float(space.cost(history.N, history.D).sum()) / UNIT
    rows: list[dict[str, object]] = []
    for analysis in ANALYSES if name in GRIDS else (LAWS,):
        if analysis == LAWS:
            estimates = estimate_targets(history, space, optima)
        else:
            estimates = estimate_by_parabolas(history, optima, curve=analysis)
        rows += [
            {
                "family": family, "seed": seed, "design": name, "budget": budget, "mixed": int(mixed),
                "analysis": analysis, "skill": target.skill, "mix": _mix(target),
                "C": f"{target.C:.3g}", "error": f"{value - at:.4f}",
                "lo": f"{lo - at:.4f}", "hi": f"{hi - at:.4f}", "truth": f"{at:.4f}", "spent": f"{spent:.4f}",
                "runs": len(history), "seconds": f"{seconds:.2f}",
            }
            for target, at, value, lo, hi in zip(
                optima, exact, estimates.value, estimates.lo, estimates.hi, strict=True
            )
        ]  # fmt: skip
    return rows


def _mix(target: Target) -> str:
    return "/".join(f"{share:.2f}" for share in target.h)


def run(args: argparse.Namespace, path: Path) -> None:
    """Compute the cells that the file lacks, truth by truth."""
    _fold(path)
    _drop(path, args.redo)
    done = set(_read(path)[KEYS].itertuples(index=False, name=None)) if path.exists() else set()
    cells = [cell for cell in _cells(args) if cell not in done]
    os.nice(10)
    begin = time.perf_counter()
    with _part(path).open("w", newline="") as file, Pool(args.jobs) as pool:
        writer = csv.DictWriter(file, fieldnames=FIELDS)
        writer.writeheader()
        results = map(compute, cells) if args.jobs == 1 else pool.imap_unordered(compute, cells)
        for count, rows in enumerate(results, start=1):
            writer.writerows(rows)
            file.flush()
            if count % 100 == 0:
                print(f"{count} of {len(cells)} in {time.perf_counter() - begin:.0f} s", flush=True)
    _fold(path)
    print(f"{len(cells)} computed, {len(done)} already in the file, {time.perf_counter() - begin:.0f} s")


def _cells(args: argparse.Namespace) -> Iterator[Cell]:
    for seed in range(args.first, args.first + args.seeds):
        for family in args.families:
            for budget in args.budgets:
                for design in args.designs:
                    yield family, seed, design, budget, args.mixed


def _drop(path: Path, designs: list[str]) -> None:
    if designs and path.exists():
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
        rows[~rows["design"].isin(designs)].to_csv(path, index=False)


def _part(path: Path) -> Path:
    """Return the file of a run under way; it is not compressed, so a killed run loses its last row at most."""
    return path.with_name(f"{path.name}.part")


def _fold(path: Path) -> None:
    """Append the rows of a run that ended or was stopped to the others."""
    if not (part := _part(path)).exists():
        return
    lines = part.read_text().splitlines(keepends=True)
    complete = [line for line in lines if line.endswith("\n")][int(path.exists()) :]  # one header is enough
    with gzip.open(path, "at", newline="") as file:
        file.writelines(complete)
    part.unlink()


def _read(path: Path) -> pd.DataFrame:
    rows = pd.read_csv(path, keep_default_na=False, dtype={"mix": str})
    return rows.astype({"mixed": bool, "budget": float, "seed": int})


def selected_rows(args: argparse.Namespace, path: Path) -> pd.DataFrame:
    """Return the rows of the selected families, designs and seeds."""
    rows = _read(path)
    kept = rows["family"].isin(args.families) & (rows["mixed"] == args.mixed)
    rows = rows[kept & rows["seed"].between(args.first, args.first + args.seeds - 1)]
    if not args.alike:
        return rows
    rows = rows[rows["design"].isin(args.alike)]
    runs = rows.groupby(["family", "seed", "budget"])["design"].transform("nunique")
    return rows[runs == len(args.alike)]


def table(rows: pd.DataFrame) -> str:
    """Return RMSE / coverage by design, analysis and budget with a column for each family, and means."""
    rows = rows.assign(square=rows["error"] ** 2, hit=(rows["lo"] <= 0) & (rows["hi"] >= 0))
    families = list(dict.fromkeys(rows["family"]))
    lines = [["budget", "design", "analysis", *families, "geometric mean", "coverage", "truths", "runs", "spent", "s"]]
    for (budget, analysis, design), cell in rows.groupby(["budget", "analysis", "design"]):
        by_family = cell.groupby("family").agg({"square": "mean", "hit": "mean", "seed": "nunique"})
        rmse = np.sqrt(by_family["square"])
        shown = [f"{rmse[name]:.3f} / {by_family['hit'][name]:.2f}" if name in rmse else "" for name in families]
        mean = f"{math.exp(np.log(rmse).mean()):.3f}" if len(rmse) == len(families) else ""
        lines.append(
            [f"{budget:g}", design, analysis, *shown, mean, f"{cell['hit'].mean():.2f}", str(by_family["seed"].min()),
             f"{cell['runs'].mean():.0f}", f"{cell['spent'].mean():.2f}", f"{cell['seconds'].mean():.1f}"]
        )  # fmt: skip
    return _markdown(lines)


def _markdown(lines: list[list[str]]) -> str:
    lines = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def squares(rows: pd.DataFrame, design: str, analysis: str, families: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return budgets (n_budgets,) and mean squared errors (n_families, n_budgets, n_seeds); NaN where not run."""
    of_design = rows[(rows["design"] == design) & (rows["analysis"] == analysis)]
    seeds = sorted(rows["seed"].unique())
    budgets = sorted(of_design["budget"].unique())
    means = of_design.assign(square=of_design["error"] ** 2).groupby(["family", "budget", "seed"])["square"].mean()
    index = pd.MultiIndex.from_product([families, budgets, seeds])
    return np.array(budgets), means.reindex(index).to_numpy().reshape(len(families), len(budgets), len(seeds))


def log_rmse(square: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return ln RMSE (K, n_families, n_budgets) under weights of truths (K, n_families, n_seeds)."""
    is_run = np.isfinite(square)
    total = np.einsum("ksw,rkw->rks", np.where(is_run, square, 0.0), weights)
    count = np.einsum("ksw,rkw->rks", is_run.astype(float), weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(0.5 * np.log(total / count))


def log_budget_needed(budgets: np.ndarray, log_errors: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """Return ln of the budget at which ln RMSE (K, n_budgets), made monotone, reaches ``goals`` (K,), or +-inf."""
    x = np.log(budgets)
    needed = np.empty(len(goals))
    for k, (curve, y) in enumerate(zip(np.minimum.accumulate(log_errors, axis=1), goals, strict=True)):
        if y > curve[0] or y < curve[-1]:
            needed[k] = -math.inf if y > curve[0] else math.inf
            continue
        at = int(np.argmax(curve <= y))
        if at == 0:
            needed[k] = x[0]
            continue
        share = (curve[at - 1] - y) / max(curve[at - 1] - curve[at], 1e-12)
        needed[k] = x[at - 1] + share * (x[at] - x[at - 1])
    return needed


def ratios(rows: pd.DataFrame, *, subject: str, analyses: list[str]) -> str:
    """Return the FLOP that each rival needs for the subject's error, over the subject's, with intervals."""
    families = list(dict.fromkeys(rows["family"]))
    n_seeds = rows["seed"].nunique()
    draws = np.random.default_rng(0).multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), (RESAMPLES, len(families)))
    weights = np.concatenate([np.ones((1, len(families), n_seeds)), draws.astype(float)])  # first row: as they are
    budgets, square = squares(rows, subject, LAWS, families)
    of_subject = log_rmse(square, weights)
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for analysis in analyses:
        for design in dict.fromkeys(rows[rows["analysis"] == analysis]["design"]):
            if design != subject:
                at, square = squares(rows, design, analysis, families)
                curves[f"{design}, {analysis}"] = at, log_rmse(square, weights)
        grids = [curves[f"{name}, {analysis}"] for name in GRIDS if f"{name}, {analysis}" in curves]
        if len(grids) > 1:
            shared = sorted(set[float].intersection(*(set(at) for at, _ in grids)))
            best = _best([curve[..., np.isin(at, shared)] for at, curve in grids])
            curves[f"best grid, {analysis}"] = np.array(shared), best
    lines = [["budget", "rival", *families, "mean", "all"]]
    for b, budget in enumerate(budgets):
        for name, (at, curve) in curves.items():
            by_family = [
                log_budget_needed(at, curve[:, k], of_subject[:, k, b]) - math.log(budget) for k in range(len(families))
            ]
            clipped = np.mean(np.clip(by_family, *np.log(at[[0, -1]] / budget)), axis=0)
            overall = log_budget_needed(at, curve.mean(1), of_subject[:, :, b].mean(1)) - math.log(budget)
            ends = at[[0, -1]] / budget
            cells = [_ratio(log_ratio, ends) for log_ratio in [*by_family, clipped, overall]]
            lines.append([f"{budget:g}", name, *cells])
    return _markdown(lines)


def _best(curves: list[np.ndarray]) -> np.ndarray:
    """Return the lowest of several curves (K, n_families, n_budgets), chosen by the mean over families."""
    stack = np.array(curves)
    at = stack.mean(2).argmin(0)
    return np.asarray(np.take_along_axis(stack, at[None, :, None, :], 0)[0])


def _ratio(log_ratio: np.ndarray, ends: np.ndarray) -> str:
    """Return estimate and interval, bounded by the rival's budgets."""

    def text(x: float) -> str:
        if math.isnan(x):
            return "-"
        return f">{ends[1]:.3g}" if x == math.inf else f"<{ends[0]:.2g}" if x == -math.inf else f"{math.exp(x):.2g}"

    draws = np.sort(log_ratio[1:])
    lo, hi = draws[int(0.05 * len(draws))], draws[int(0.95 * len(draws))]
    return f"{text(float(log_ratio[0]))} ({text(float(lo))} to {text(float(hi))})"


def main() -> None:
    """Compute rows or print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table", "ratios"))
    parser.add_argument("--families", default=",".join(TruthFamily), help="families of truths")
    parser.add_argument("--first", type=int, default=0, help="first truth")
    parser.add_argument("--seeds", type=int, default=50, help="truths of each family")
    parser.add_argument("--designs", default="bayes", help="designs to run; grids: all nine")
    parser.add_argument("--budgets", default="", help="budgets in units of the largest run")
    parser.add_argument("--mixed", action="store_true", help="truths with three categories")
    parser.add_argument("--alike", default="", help="designs; keep only truths that all of them have, at each budget")
    parser.add_argument("--redo", default="", help="designs to run again")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "design_runs.csv.gz")
    parser.add_argument("--subject", default="bayes", help="design that the ratios compare with")
    parser.add_argument("--analysis", default="laws,vertices,quadratic", help="analyses of the rivals in the ratios")
    args = parser.parse_args()
    for name in ("families", "designs", "redo", "analysis", "alike"):
        setattr(args, name, [word for word in getattr(args, name).split(",") if word])
    args.designs = [design for name in args.designs for design in (GRIDS if name == "grids" else (name,))]
    default = MIXED_BUDGETS if args.mixed else BUDGETS
    args.budgets = [float(word) for word in args.budgets.split(",") if word] or list(default)
    if args.what == "run":
        run(args, args.out)
    elif args.what == "table":
        print(table(selected_rows(args, args.out)))
    else:
        print(ratios(selected_rows(args, args.out), subject=args.subject, analyses=args.analysis))


if __name__ == "__main__":
    main()
