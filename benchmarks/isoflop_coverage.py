"""Measure the error of N* by the isoFLOP analysis and the coverage of its 90 % intervals, on simulated studies.

    python benchmarks/isoflop_coverage.py shapes     error of N* by shape of the curve
    python benchmarks/isoflop_coverage.py form       error of each shape without noise (FORM in laws/isoflop/curves.py)
    python benchmarks/isoflop_coverage.py coverage   coverage of the intervals of fit_study
    python benchmarks/isoflop_coverage.py ends       error of N* where the smallest and largest sizes are trained badly
    python benchmarks/isoflop_coverage.py outliers   error and coverage by method, with and without bad runs (+5 % loss)

The grid is that of the main study. Each table is printed and written to benchmarks/results/. Existing rows are not
computed again.
"""

import argparse
import csv
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from simulated_studies import Grid, NoiseModel, PlantedLaw, random_planted_law, simulate_study

from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.fit import fit_law
from skillscale.laws.fit.objective import Objective
from skillscale.laws.isoflop.curves import CURVES, fit_isoflops
from skillscale.laws.isoflop.study import fit_study
from skillscale.laws.results import Interval, Status
from skillscale.laws.uncertainty.resamples import Resamples

RESULTS = Path(__file__).parent / "results"
SHAPES = {  # method and shared powers
    "quadratic": ("quadratic", None),
    "shared skew": ("shared", 1),
    "shared skew and tail": ("shared", 2),
    "cubic": ("cubic", None),
}
Row = dict[str, object]


def keep(table: str, cells: Iterable[Row], compute: Callable[[Row], list[Row]]) -> None:
    """Compute and append the missing cells of a table, and print the table."""
    path = RESULTS / f"isoflop_{table}.csv"
    path.parent.mkdir(exist_ok=True)
    done = pd.read_csv(path, dtype=str).to_dict("records") if path.exists() else []
    for cell in cells:
        if any(all(row.get(key) == str(value) for key, value in cell.items()) for row in done):
            continue
        rows = [cell | row for row in compute(cell)]
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            if file.tell() == 0:
                writer.writeheader()
            writer.writerows(rows)
    print(pd.read_csv(path).to_string(index=False))


def polynomial_minimum(x: np.ndarray, y: np.ndarray, degree: int, weights: np.ndarray | None = None) -> float:
    """Return the minimum of a least-squares polynomial within the sizes."""
    c = np.polynomial.polynomial.polyfit(x, y, degree, w=weights)
    grid = np.linspace(x.min(), x.max(), 1001)
    return float(grid[np.polynomial.polynomial.polyval(grid, c).argmin()])


def minima_by_shape(runs: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return ln N* at each budget by shape."""
    N, D, L, C = (runs[column].to_numpy() for column in ("N", "D", "skill", "C"))
    law = fit_law(RunData(N=N, D=D, L=L), objective=Objective(delta=0.01))
    minima_of_shape: dict[str, list[float]] = {}
    for budget in np.unique(C):
        mine = budget == C
        x, y = np.log(N[mine]), np.log(L[mine])
        centre = x.mean()
        bare = polynomial_minimum(x - centre, y, 2)
        near = np.exp(-0.25 * (x - centre - bare) ** 2)
        grid = np.linspace(x.min(), x.max(), 1001)
        correction = np.polynomial.polynomial.polyfit(x - centre, law.residuals[mine], 2)
        guide = np.log(law.law.loss(law.theta, np.exp(grid), budget / 6 / np.exp(grid)))
        guided = guide + np.polynomial.polynomial.polyval(grid - centre, correction)
        for name, value in {
            "parabola": bare,
            "parabola on raw L": polynomial_minimum(x - centre, L[mine], 2),
            "local parabola (sd 1)": polynomial_minimum(x - centre, y, 2, near),
            "cubic per budget": polynomial_minimum(x - centre, y, 3),
            "parabola around the law": float(grid[guided.argmin()]) - centre,
        }.items():
            minima_of_shape.setdefault(name, []).append(value + centre)
    values = {name: np.array(minima) for name, minima in minima_of_shape.items()}
    for shared, name in ((1, "parabola, shared skew"), (2, "parabola, shared skew and tail")):
        fit = fit_isoflops(C, N, L, seeds=runs["seed"].to_numpy(), shared=shared)
        assert fit is not None
        values[name] = fit.minima()[0]
    values["law alone"] = law.law.log_optimum(law.theta[None], np.unique(C))[0]
    return values


def shapes(cell: Row) -> list[Row]:
    """Return the bias and root mean square error of ln N* by shape."""
    rng = np.random.default_rng(11)
    errors: dict[str, list[np.ndarray]] = {}
    for _ in range(int(str(cell["studies"]))):
        truth = random_planted_law(rng, kind=str(cell["truth"]))
        runs = simulate_study({"skill": truth}, rng, noise=NoiseModel(run=float(str(cell["noise"]))))
        true_log_N = np.log([truth.optimum(C) for C in np.unique(runs["C"])])
        for name, value in minima_by_shape(runs).items():
            errors.setdefault(name, []).append(np.clip(value - true_log_N, -2, 2))
    return [
        {"shape": name, "bias": f"{np.mean(e):+.4f}", "rmse": f"{np.sqrt(np.mean(np.square(e))):.4f}"}
        for name, e in errors.items()
    ]


def form(cell: Row) -> list[Row]:
    """Return the error of ln N* without noise: rms over truths of its level (mean over budgets) and trend per ln C."""
    rng = np.random.default_rng(3)
    grid = Grid(seeds=1, span=float(str(cell["span"])))
    log_C = np.log(grid.budgets) - np.log(grid.budgets).mean()
    errors: dict[str, list[np.ndarray]] = {name: [] for name in SHAPES}
    for _ in range(int(str(cell["studies"]))):
        truth = random_planted_law(rng, kind=str(cell["truth"]))
        runs = simulate_study({"skill": truth}, rng, grid=grid, noise=NoiseModel(run=0, seed_level=0))
        right = np.log([truth.optimum(C) for C in grid.budgets])
        for name, values_of_shape in errors.items():
            curve, shared = SHAPES[name]
            columns = (runs[letter].to_numpy() for letter in ("C", "N", "skill"))
            fit = fit_isoflops(*columns, curve=curve, shared=shared)
            assert fit is not None
            values_of_shape.append(fit.minima()[0] - right)
    rows: list[Row] = []
    for name, values_of_shape in errors.items():
        e = np.array(values_of_shape)
        level, trend = e.mean(1), e @ log_C / (log_C @ log_C)
        rows.append(
            {
                "curve": name,
                "level": f"{np.sqrt((level**2).mean()):.4f}",
                "trend": f"{np.sqrt((trend**2).mean()):.4f}",
            }
        )
    return rows


def outliers(cell: Row) -> list[Row]:
    """Return the error of ln N* with bad runs of +5 % loss, by least squares (ls) and Huber, and Huber's coverage."""
    rng = np.random.default_rng(7)
    curve, seeds = str(cell["curve"]), int(str(cell["seeds"]))
    values: dict[str, list[float]] = {"ls": [], "error": [], "N*": [], "half width": [], "a": [], "N*(10x)": []}
    for _ in range(int(str(cell["studies"]))):
        truth = random_planted_law(rng)
        runs = simulate_study({"skill": truth}, rng, grid=Grid(seeds=seeds), noise=NoiseModel(run=0.005))
        runs.loc[rng.random(len(runs)) < float(str(cell["bad"])), "skill"] *= 1.05
        plain = fit_isoflops(*(runs[name].to_numpy() for name in ("C", "N", "skill")), seeds=runs["seed"].to_numpy(),
                             curve=curve, huber=math.inf)  # fmt: skip
        assert plain is not None
        true_log_N = {C: math.log(truth.optimum(C)) for C in plain.budgets}
        values["ls"] += list(np.clip(plain.minima()[0] - np.array(list(true_log_N.values())), -1, 1))
        fits = fit_study(runs, skills=["skill"], aggregates=[], resamples=400, seed=1, curve=curve)
        law = fits.power_laws[0]
        log_C = np.log(plain.budgets) - np.log(plain.budgets).mean()
        values["a"].append(covers(law.a, float(np.array(list(true_log_N.values())) @ log_C / (log_C @ log_C))))
        values["N*(10x)"].append(covers(law.N(10 * plain.budgets[-1]), truth.optimum(10 * plain.budgets[-1])))
        for m in (m for m in fits.minima if m.status is Status.OK):
            values["error"].append(math.log(m.N.value) - true_log_N[m.C])
            values["N*"].append(covers(m.N, math.exp(true_log_N[m.C])))
            values["half width"].append(math.log(m.N.hi / m.N.lo) / 2)
    return [
        {"rmse ls": f"{np.sqrt(np.mean(np.square(values['ls']))):.4f}", "bias": f"{np.mean(values['error']):+.4f}"}
        | {"rmse": f"{np.sqrt(np.mean(np.square(values['error']))):.4f}"}
        | {name: f"{np.nanmean(values[name]):.3f}" for name in ("N*", "half width", "a", "N*(10x)")}
    ]


def spoil_ends(runs: pd.DataFrame, kind: str, rng: np.random.Generator) -> pd.DataFrame:
    """Raise the losses at the smallest and largest sizes of each budget: all by 3 %, one end, or by chance."""
    log_N = np.log(runs["N"])
    by_budget = log_N.groupby(runs["C"])
    smallest, largest = log_N < by_budget.transform("min") + 0.01, log_N > by_budget.transform("max") - 0.01
    excess = {
        "sound": 0.0 * log_N, "both": 0.03 * (smallest | largest), "largest": 0.04 * largest,
        "by chance": (smallest | largest) * rng.exponential(0.03, len(runs)),
    }[kind]  # fmt: skip
    return runs.assign(skill=runs["skill"] * (1 + excess))


def ends(cell: Row) -> list[Row]:
    """Return the error of ln N* by curve, the coverage of its 90 % intervals, and how often the ends are left out."""
    rng = np.random.default_rng(13)
    grid = Grid(sizes=int(str(cell["sizes"])), span=float(str(cell["span"])), seeds=1)
    methods: dict[str, tuple[str, int | None]] = {
        "parabola": ("quadratic", None), "skew and tail": ("shared", 2), "default": ("shared", None)
    }  # fmt: skip
    errors: dict[str, list[float]] = {name: [] for name in methods}
    held: dict[str, list[float]] = {name: [] for name in methods}
    left_out = []
    for number in range(int(str(cell["studies"]))):
        truth = random_planted_law(rng, kind=("chinchilla", "drifting")[number % 2])
        noise = NoiseModel(run=float(str(cell["noise"])), seed_level=0.0)
        runs = spoil_ends(simulate_study({"skill": truth}, rng, grid=grid, noise=noise), str(cell["ends"]), rng)
        C, N, L = (runs[column].to_numpy() for column in ("C", "N", "skill"))
        right = np.log([truth.optimum(budget) for budget in np.unique(C)])
        resamples = Resamples.draw(C, 200, np.random.default_rng(number))
        form = np.random.default_rng(number).standard_normal((200, 2))
        for name, (curve, shared) in methods.items():
            fit = fit_isoflops(C, N, L, curve=curve, shared=shared)
            assert fit is not None
            drawn = fit.resample_minima(resamples.draw_errors(fit.residuals, fit.leverage, fit.used), form).optima
            errors[name] += list(np.clip(fit.minima()[0] - right, -2, 2))
            low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
            held[name] += list((low <= right) & (right <= high))
            if name == "default":
                left_out.append(fit.without_ends)
    return [
        {"curve": name, "rmse": f"{np.sqrt(np.mean(np.square(errors[name]))):.3f}"}
        | {"held": f"{np.mean(held[name]):.2f}"}
        | {"ends left out": f"{np.mean(left_out):.2f}" if name == "default" else ""}
        for name in methods
    ]  # fmt: skip


def covers(interval: Interval, truth: float) -> float:
    """Return 1 if the interval contains the truth, else 0, or NaN without an interval."""
    return float(interval.lo <= truth <= interval.hi) if interval.is_finite else math.nan


def coverage(cell: Row) -> list[Row]:
    """Return the share of 90 % intervals that contain the truth, and the share of accepted minima."""
    rng = np.random.default_rng(5)
    numbers = {key: float(str(cell[key])) for key in ("noise", "tilt", "small", "missing")}
    values_of_quantity: dict[str, list[float]] = {}
    for _ in range(int(str(cell["studies"]))):
        truths = {name: random_planted_law(rng, kind=str(cell["truth"])) for name in ("skill", "aggregate")}
        noise = NoiseModel(run=numbers["noise"], seed_tilt=numbers["tilt"], small=numbers["small"])
        runs = simulate_study(truths, rng, grid=Grid(seeds=int(str(cell["seeds"]))), noise=noise)
        runs.loc[rng.random(len(runs)) < numbers["missing"], "skill"] = np.nan
        for name, value in _score(runs, truths).items():
            values_of_quantity.setdefault(name, []).extend(value)
    return [{name: f"{np.nanmean(values):.3f}" if values else "" for name, values in values_of_quantity.items()}]


def _score(runs: pd.DataFrame, truths: dict[str, PlantedLaw]) -> dict[str, list[float]]:
    fits = fit_study(runs, skills=["skill"], aggregates=["aggregate"], resamples=400, seed=1)
    budgets = sorted(runs["C"].unique())
    right = {name: np.log([truth.optimum(C) for C in budgets]) for name, truth in truths.items()}
    at = {name: dict(zip(budgets, values, strict=True)) for name, values in right.items()}
    minima = [m for m in fits.minima if m.skill == "skill"]
    standing = [m for m in minima if m.status is Status.OK]
    log_C = np.log(budgets) - np.log(budgets).mean()
    a = float(right["skill"] @ log_C / (log_C @ log_C))
    gap = {C: at["skill"][C] - at["aggregate"][C] for C in budgets}
    single = [r for r in fits.size_gaps if not r.pooled and r.status is Status.OK]
    pooled = next(r for r in fits.size_gaps if r.pooled)
    law = next(p for p in fits.power_laws if p.skill == "skill")
    far = 10 * budgets[-1]
    return {
        "ok": [float(m.status is Status.OK) for m in minima],
        "N*": [covers(m.N, math.exp(at["skill"][m.C])) for m in standing],
        "half width": [math.log(m.N.hi / m.N.lo) / 2 for m in standing],
        "error": [abs(math.log(m.N.value) - at["skill"][m.C]) for m in standing],
        "residual": [covers(r.value, gap[r.C]) for r in single],
        "pooled": [covers(pooled.value, float(np.mean(list(gap.values()))))],
        "a": [covers(law.a, a)],
        "N*(10x)": [covers(law.N(far), truths["skill"].optimum(far))],
        "law N*": [covers(f.law, math.exp(at["skill"][f.C])) for f in fits.curve_versus_law if f.skill == "skill"],
        "law alpha": [
            covers(f.theta["alpha"], truths["skill"].alpha)
            for f in fits.laws
            if f.skill == "skill" and truths["skill"].k == 1
        ],
        "law ok": [float(f.status is Status.OK) for f in fits.laws if f.skill == "skill"],
    }


def _coverage_cells(studies: int) -> list[Row]:
    plain: Row = {"tilt": 0.0, "small": 0.0, "missing": 0.0, "studies": studies}
    cells = [
        {"truth": truth, "noise": noise, "seeds": seeds} | plain
        for truth in ("chinchilla", "drifting")
        for noise in (0.003, 0.01)
        for seeds in (1, 2)
    ]
    middle = {"truth": "chinchilla", "noise": 0.005, "seeds": 2} | plain
    return cells + [
        middle | change
        for change in ({"noise": 0.03}, {"tilt": 0.001}, {"tilt": 0.003}, {"small": 0.3}, {"missing": 0.1})
    ]


def main() -> None:
    """Compute and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("shapes", "form", "coverage", "ends", "outliers"))
    parser.add_argument("--studies", type=int, default=200)
    args = parser.parse_args()
    truths = ("chinchilla", "drifting")
    if args.table == "coverage":
        keep("coverage", _coverage_cells(args.studies), coverage)
    elif args.table == "ends":
        cells = [
            {"ends": kind, "sizes": sizes, "span": span, "noise": noise, "studies": args.studies}
            for kind in ("sound", "by chance", "both", "largest")
            for sizes, span in ((7, 8.0), (9, 4.0), (6, 4.0), (11, 8.0))
            for noise in (0.002, 0.006)
        ]
        keep("ends", cells, ends)
    elif args.table == "outliers":
        cells = [
            {"curve": curve, "bad": bad, "seeds": seeds, "studies": args.studies}
            for curve in CURVES
            for seeds in (1, 2)
            for bad in (0.0, 0.02)
        ]
        keep("outliers", cells, outliers)
    elif args.table == "shapes":
        cells = [{"truth": t, "noise": n, "studies": args.studies} for n in (0.0, 0.003, 0.01) for t in truths]
        keep("shapes", cells, shapes)
    else:
        keep("form", [{"truth": t, "span": s, "studies": args.studies} for s in (8.0, 4.0) for t in truths], form)


if __name__ == "__main__":
    main()
