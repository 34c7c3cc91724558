"""Compare the speed of the fit with other optimisers and packages, and measure its time and memory by number of runs.

    python benchmarks/law_speed.py            # scipy's optimisers
    python benchmarks/law_speed.py --peers    # also the packages on PyPI, in a separate environment
    python benchmarks/law_speed.py --growth   # time and memory from 240 to 100,000 runs

prints tables and writes them to benchmarks/results/law_speed.csv and law_growth.csv (minutes, most for the others).

Times are CPU seconds of one thread. The contestants take turns in ``ROUNDS`` rounds, so that a busy machine affects all
equally. ``seconds``: median over rounds. ``times``: median of the ratio to skillscale in the same round. Both have the
minimum and the maximum. The runs are the 240 digitised ones of chinchilla_epoch.csv (``SKILLSCALE_TABLES``). The
objective is the sum of Huber(0.001) on ln L. ``gap``: relative distance of the best F from its minimum F*.

- ours: the fit of skillscale, median of ``FITS`` fits per round.
- L-BFGS-B of scipy from the grid of 4500 starts of Hoffmann et al. 2022, on the sum, with default tolerances. Each
  round takes a part of the starts, and times are scaled to all. With tight tolerances, and with finite differences,
  it takes a sample of the starts, scaled in the same way. ``off``: share of starts that end more than 10 % above F*.
- peers: the fit of each package on the same table. ``gap`` is in skillscale's objective, which may differ from theirs.
- resamples, 1000 of them. Ours: iterated to their minimum, by runs with replacement and wild, and by one shared step.
  L-BFGS-B: from the optimum on a sample of resamples, scaled, with ``off`` the share that end more than 1e-6 above
  ours. simple-scaling-laws: its resamples (least squares on L, wild).

Growth: runs scattered over the same sizes and tokens with 1 % Student noise, the fastest of several repeats. ``peak``:
largest memory allocated at once, without the runs.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy reads it

import argparse
import itertools
import json
import math
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.fit import FitResult, fit_law, refit
from skillscale.laws.forms.catalogue import CHINCHILLA
from skillscale.laws.forms.nd import Array
from skillscale.laws.uncertainty.bootstrap import ResamplingMethod, draw_parameters

HERE = Path(__file__).parent
TABLES = Path(os.environ.get("SKILLSCALE_TABLES") or HERE.parents[1] / "shared" / "data")
LEAST = 0.001018274017801  # F*: no start of any method ended below
ROUNDS = 6
FITS = 20
HOFFMANN = (np.arange(0, 30, 5.0), np.arange(0, 30, 5.0), np.arange(-1, 1.5, 0.5), np.arange(0, 2.5, 0.5),
            np.arange(0, 2.5, 0.5))  # fmt: skip  # a = ln A, b = ln B, e = ln E, alpha, beta
SAMPLED_STARTS = 198  # of the grid, where it would take minutes
TIGHT = {"ftol": 1e-15, "gtol": 1e-12, "maxiter": 5000, "maxfun": 50_000}  # needed to reach the minimum
RESAMPLES = 1000
SAMPLED_RESAMPLES = 60
DELTA = 1e-3
SIZES = (240, 1000, 3000, 10_000, 30_000, 100_000)
REPEATS = 5
PACKAGES = {"chinchilla": "chinchilla==0.2.0", "simple-scaling-laws": "simple-scaling-laws==0.2.0", "vpnls": "vpnls"}


def epoch() -> RunData:
    """Read the 240 runs."""
    table = pd.read_csv(TABLES / "chinchilla_epoch.csv")
    table = table[table["in_besiroglu_240"] == 1]
    return RunData(N=table["params"].to_numpy(), D=table["tokens"].to_numpy(), L=table["loss"].to_numpy())


def objective_of(theta: Array, points: RunData) -> float:
    """Return F of natural parameters (E, A, B, alpha, beta)."""
    r = points.log_L - np.log(CHINCHILLA.loss(theta, points.N, points.D))
    size = np.minimum(np.abs(r), DELTA)
    return float((size * (np.abs(r) - size / 2)).sum())


@dataclass(frozen=True)
class Outcome:
    """CPU ``seconds`` of the whole job, the least ``F``, and the share that ended elsewhere (``off``)."""

    seconds: float
    F: float = math.nan
    off: float = math.nan


Contestant = Callable[[int], Outcome]  # of the round


def timed(job: Callable[[], object]) -> float:
    """Return the CPU seconds of a job."""
    begin = time.process_time()
    job()
    return time.process_time() - begin


# A plain version of the optimiser of the published fits


class Plain:
    """Sum of Huber losses of ln L - ln(e^e + e^(a - alpha ln N) + e^(b - beta ln D)) at x = (a, b, e, alpha, beta)."""

    def __init__(self, points: RunData, weights: Array | None = None) -> None:
        self.n, self.d, self.log_L = np.log(points.N), np.log(points.D), points.log_L
        self.weights = np.ones(len(points)) if weights is None else weights

    def value(self, x: Array) -> float:
        """Return F."""
        return self.value_and_gradient(x)[0]

    def value_and_gradient(self, x: Array) -> tuple[float, Array]:
        """Return F and its gradient."""
        a, b, e, alpha, beta = x
        terms = np.vstack([a - alpha * self.n, b - beta * self.d, np.full(len(self.n), e)])
        top = terms.max(0)
        shares = np.exp(terms - top)
        total = shares.sum(0)
        r = self.log_L - top - np.log(total)
        size = np.abs(r)
        F = np.where(size <= DELTA, r**2 / 2, DELTA * (size - DELTA / 2))
        pull = -self.weights * np.clip(r, -DELTA, DELTA) * (shares / total)
        gradient = np.array([*pull.sum(1), -(pull[0] @ self.n), -(pull[1] @ self.d)])
        return float(self.weights @ F), gradient

    def descend(self, begin: Array, *, gradient: bool = True, **options: float) -> float:
        """Return F where scipy's L-BFGS-B stops."""
        F = self.value_and_gradient if gradient else self.value
        return float(minimize(F, begin, jac=gradient, method="L-BFGS-B", options=options).fun)


def starts() -> Array:
    """Return the grid of Hoffmann et al., (4500, 5), shuffled so that every part of it is a fair sample."""
    return np.random.default_rng(0).permutation(np.array(list(itertools.product(*HOFFMANN))))


def grid(points: RunData, *, gradient: bool = True, sample: int = 4500, **options: float) -> Contestant:
    """Run L-BFGS-B from the grid, or a sample of it, with a part of the starts per round."""
    plain, all_starts = Plain(points), starts()

    def run(turn: int) -> Outcome:
        sample_starts = all_starts[:sample][turn::ROUNDS]
        values: list[float] = []
        seconds = timed(lambda: values.extend(plain.descend(x, gradient=gradient, **options) for x in sample_starts))
        off = float(np.mean(np.array(values) > 1.1 * LEAST))
        return Outcome(seconds * len(all_starts) / len(sample_starts), min(values), off)

    return run


def ours(points: RunData) -> Contestant:
    """Run the fit of skillscale."""

    def run(turn: int) -> Outcome:
        del turn
        return Outcome(float(np.median([timed(lambda: fit_law(points)) for _ in range(FITS)])), fit_law(points).F)

    return run


# The packages


@contextmanager
def environment() -> Iterator[Path]:
    """Provide a Python environment for the packages while the benchmark runs."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        yield Path(folder) / "bin" / "python"


def install(python: Path, package: str) -> str:
    """Install a package. Return the reason where it fails, else an empty text."""
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    done = subprocess.run([*pip, PACKAGES[package]], check=False, capture_output=True, text=True)
    if done.returncode and package == "simple-scaling-laws":
        # It requires Python 3.12, but works with 3.11
        subprocess.run([*pip, "numpy", "scipy", "polars", "pyyaml"], check=True)
        forced = [*pip, "--no-deps", "--ignore-requires-python", PACKAGES[package]]
        done = subprocess.run(forced, check=False, capture_output=True, text=True)
    return f"{package}: not installed ({done.stderr.strip().splitlines()[-1]})" if done.returncode else ""


def peer(python: Path, driver: str, points: RunData, *extra: str) -> Outcome:
    """Run the fit of a package, and return its time and F."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "runs.csv"
        pd.DataFrame({"N": points.N, "D": points.D, "loss": points.L}).to_csv(table, index=False)
        process = subprocess.run(
            [python, HERE / "peers" / driver, table, *extra], check=True, capture_output=True, text=True
        )
    results = json.loads(process.stdout)
    return Outcome(results["seconds"], objective_of(np.array(results["theta"]), points))


def package_chinchilla(python: Path, points: RunData) -> Contestant:
    """Run the package chinchilla, only in the first and the last round, because it takes a minute."""

    def run(turn: int) -> Outcome:
        late = turn in (0, ROUNDS - 1)
        return peer(python, "chinchilla_package.py", points) if late else Outcome(math.nan)

    return run


def package_simple(python: Path, points: RunData) -> Contestant:
    """Run the package simple-scaling-laws."""

    def run(turn: int) -> Outcome:
        del turn
        return peer(python, "simple_scaling_laws_package.py", points, "1")

    return run


def package_simple_resamples(python: Path, points: RunData) -> Contestant:
    """Time its resamples: a fit with 1001 less one with 1."""

    def run(turn: int) -> Outcome:
        del turn
        both = [peer(python, "simple_scaling_laws_package.py", points, str(count)) for count in (RESAMPLES + 1, 1)]
        return Outcome(both[0].seconds - both[1].seconds)

    return run


# Resamples


def our_resamples(points: RunData, method: ResamplingMethod, *, one_step: bool) -> Contestant:
    """Time the resamples of skillscale."""
    fit = fit_law(points)

    def run(turn: int) -> Outcome:
        return Outcome(
            timed(lambda: draw_parameters(fit, points, method=method, count=RESAMPLES, seed=turn, one_step=one_step))
        )

    return run


def their_resamples(points: RunData, **options: float) -> Contestant:
    """Run L-BFGS-B from the optimum on a sample of resamples."""
    fit = fit_law(points)
    E, A, B, alpha, beta = fit.theta
    begin = np.array([math.log(A), math.log(B), math.log(E), alpha, beta])

    def run(turn: int) -> Outcome:
        n = len(points)
        counts = np.random.default_rng(turn).multinomial(n, np.full(n, 1 / n), size=SAMPLED_RESAMPLES).astype(float)
        plain = [Plain(points, row) for row in counts]
        values: list[float] = []
        seconds = timed(lambda: values.extend(objective.descend(begin, **options) for objective in plain))
        least = fit.build_problem(points, weights=counts).value(refit(fit, points, weights=counts)[0])
        off = float(np.mean(np.array(values) > least * (1 + 1e-6)))
        return Outcome(seconds * RESAMPLES / SAMPLED_RESAMPLES, off=off)

    return run


# Tables


def compete(part: str, contestants: dict[str, Contestant]) -> pd.DataFrame:
    """Run all rounds of all contestants, and return a row for each. The first is skillscale."""
    outcomes: dict[str, list[Outcome]] = {name: [] for name in contestants}
    for turn in range(ROUNDS):
        for name, run in contestants.items():
            outcomes[name].append(run(turn))
            print(f"round {turn + 1} of {ROUNDS}: {name} {outcomes[name][-1].seconds:.4g} s", file=sys.stderr)
    base = np.array([outcome.seconds for outcome in next(iter(outcomes.values()))])
    return pd.DataFrame([row(part, name, results, base) for name, results in outcomes.items()])


def row(part: str, name: str, outcomes: list[Outcome], base: Array) -> dict[str, object]:
    """Return one contestant's row. ``base``: seconds of skillscale by round."""
    seconds = np.array([outcome.seconds for outcome in outcomes])
    times = seconds / base
    F, off = (np.array([getattr(outcome, field) for outcome in outcomes]) for field in ("F", "off"))
    return {
        "part": part, "contestant": name,
        "seconds": np.nanmedian(seconds), "seconds_lo": np.nanmin(seconds), "seconds_hi": np.nanmax(seconds),
        "times": np.nanmedian(times), "times_lo": np.nanmin(times), "times_hi": np.nanmax(times),
        "gap": np.nan if np.isnan(F).all() else np.nanmin(F) / LEAST - 1,
        "off": np.nan if np.isnan(off).all() else np.nanmean(off),
    }  # fmt: skip


def speed(*, peers: bool) -> pd.DataFrame:
    """Run all contestants."""
    points = epoch()
    fits = {
        "ours": ours(points),
        "L-BFGS-B grid": grid(points),
        "L-BFGS-B grid, tight": grid(points, sample=SAMPLED_STARTS, **TIGHT),
        "L-BFGS-B grid, differences": grid(points, sample=SAMPLED_STARTS, gradient=False),
    }
    resamples = {
        "ours, runs": our_resamples(points, ResamplingMethod.RUN, one_step=False),
        "ours, wild": our_resamples(points, ResamplingMethod.WILD, one_step=False),
        "ours, runs, one step": our_resamples(points, ResamplingMethod.RUN, one_step=True),
        "L-BFGS-B from the optimum": their_resamples(points),
        "L-BFGS-B from the optimum, tight": their_resamples(points, **TIGHT),
    }
    if not peers:
        return pd.concat([compete("fit", fits), compete("1000 resamples", resamples)])
    with environment() as python:
        missing = {name: install(python, name) for name in PACKAGES}
        print(*filter(None, missing.values()), sep="\n", file=sys.stderr)
        if not missing["chinchilla"]:
            fits["chinchilla 0.2.0"] = package_chinchilla(python, points)
        if not missing["simple-scaling-laws"]:
            fits["simple-scaling-laws 0.2.0"] = package_simple(python, points)
            resamples["simple-scaling-laws 0.2.0"] = package_simple_resamples(python, points)
        return pd.concat([compete("fit", fits), compete("1000 resamples", resamples)])


def simulated(n: int) -> RunData:
    """Simulate n runs over the sizes and tokens of the 240."""
    rng = np.random.default_rng(1)
    N, D = (np.exp(rng.uniform(math.log(lo), math.log(hi), n)) for lo, hi in ((5.7e7, 1.6e10), (8e8, 3e11)))
    theta = np.array([1.8172, 477.8, 2143.4, 0.3473, 0.3672])
    return RunData(N=N, D=D, L=CHINCHILLA.loss(theta, N, D) * np.exp(0.01 * rng.standard_t(3, n)))


def peak(job: Callable[[], object]) -> float:
    """Return the peak memory of a job, MB."""
    tracemalloc.start()
    job()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most / 1e6


def resampling(
    fit: FitResult, points: RunData, method: ResamplingMethod, count: int, *, one_step: bool
) -> Callable[[], Array]:
    """Return a resampling job."""
    return lambda: draw_parameters(fit, points, method=method, count=count, one_step=one_step)


def growth() -> pd.DataFrame:
    """Measure time and memory by number of runs: a fit, 100 iterated resamples of both kinds, 1000 of one step."""
    rows = []
    for n in SIZES:
        points = simulated(n)
        fit = fit_law(points)
        jobs = {
            "fit": lambda points=points: fit_law(points),
            "runs": resampling(fit, points, ResamplingMethod.RUN, 100, one_step=False),
            "wild": resampling(fit, points, ResamplingMethod.WILD, 100, one_step=False),
            "steps": resampling(fit, points, ResamplingMethod.RUN, 1000, one_step=True),
        }
        results: dict[str, float] = {"n": n, "agree": fit.starts.agree / fit.starts.tried}
        for name, job in jobs.items():
            repeats = REPEATS if name == "fit" else 2
            results[f"{name}_s"] = min(timed(job) for _ in range(repeats))
            results[f"{name}_us_per_run"] = results[f"{name}_s"] / n * 1e6
            results[f"{name}_peak_mb"] = peak(job)
        results["runs_mb"] = 5 * n * 8 / 1e6  # N, D, L, weights and clusters
        rows.append(results)
        print(f"{n} runs: {results}", file=sys.stderr)
    return pd.DataFrame(rows)


def main() -> None:
    """Measure, print and write one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", action="store_true", help="also measure the packages on PyPI")
    parser.add_argument("--growth", action="store_true", help="measure time and memory by the number of runs")
    args = parser.parse_args()
    frame, file = (growth(), "law_growth.csv") if args.growth else (speed(peers=args.peers), "law_speed.csv")
    print(frame.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    frame.to_csv(HERE / "results" / file, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
