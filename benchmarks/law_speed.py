"""How fast the fit is beside what others do, and how its time and memory grow with the runs.

    python benchmarks/law_speed.py            # scipy's optimisers
    python benchmarks/law_speed.py --peers    # and the packages on PyPI, in an environment of their own
    python benchmarks/law_speed.py --growth   # time and memory from 240 to 100,000 runs

prints tables and keeps them in benchmarks/results/law_speed.csv and law_growth.csv (minutes, most of them the others').

One thread, CPU seconds. The contestants take turns in ``ROUNDS`` rounds, so that a busy machine hurts all alike:
``seconds`` is the median over rounds and ``times`` that of the ratio to ours of the same round, each with the least and
the largest. The runs are the 240 digitised ones of chinchilla_epoch.csv (``SKILLSCALE_TABLES``), the objective is the
sum of Huber(.001) on ln L, and ``gap`` is how far the best F found lies above its minimum F*.

- ours: the median of ``FITS`` fits a round;
- L-BFGS-B of scipy from the grid of 4500 starts of Hoffmann et al. 2022, on the sum, with default tolerances: each
  round takes a share of the starts, scaled to the whole; with tight tolerances, and by finite differences, from a
  sample of the starts, scaled likewise. ``off``: share of starts that end more than 10 % above F*;
- peers: the package's own fit on the same table; ``gap`` tells where it ends in our objective, which need not be its;
- resamples, 1000 of them: ours followed to their minimum, by runs with replacement and wild; ours by one shared step;
  L-BFGS-B from the optimum on a sample of resamples, scaled, with ``off`` the share that end more than 1e-6 above ours;
  and the resamples of simple-scaling-laws (least squares on L, wild).

Growth: runs scattered over the same sizes and tokens with Student noise of 1 %; the fastest of some repeats; ``peak``
is the most that was allocated at once beyond the runs themselves.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy reads it

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
LEAST = 0.001018274017801  # F*: no start of any method has ended below
ROUNDS = 6
FITS = 20
HOFFMANN = (np.arange(0, 30, 5.0), np.arange(0, 30, 5.0), np.arange(-1, 1.5, 0.5), np.arange(0, 2.5, 0.5),
            np.arange(0, 2.5, 0.5))  # fmt: skip  # a = ln A, b = ln B, e = ln E, alpha, beta
SAMPLED_STARTS = 198  # of the grid, where it would take minutes
TIGHT = {"ftol": 1e-15, "gtol": 1e-12, "maxiter": 5000, "maxfun": 50_000}  # what an optimiser must be told to be right
RESAMPLES = 1000
SAMPLED_RESAMPLES = 60
DELTA = 1e-3
SIZES = (240, 1000, 3000, 10_000, 30_000, 100_000)
REPEATS = 5
PACKAGES = {"chinchilla": "chinchilla==0.2.0", "simple-scaling-laws": "simple-scaling-laws==0.2.0", "vpnls": "vpnls"}


def epoch() -> RunData:
    """The 240 runs."""
    table = pd.read_csv(TABLES / "chinchilla_epoch.csv")
    table = table[table["in_besiroglu_240"] == 1]
    return RunData(N=table["params"].to_numpy(), D=table["tokens"].to_numpy(), L=table["loss"].to_numpy())


def objective_of(theta: Array, points: RunData) -> float:
    """F of natural parameters (E, A, B, alpha, beta)."""
    r = points.log_L - np.log(CHINCHILLA.loss(theta, points.N, points.D))
    size = np.minimum(np.abs(r), DELTA)
    return float((size * (np.abs(r) - size / 2)).sum())


@dataclass(frozen=True)
class Outcome:
    """CPU ``seconds`` of the whole job, the least ``F`` found, and the share that ended elsewhere (``off``)."""

    seconds: float
    F: float = math.nan
    off: float = math.nan


Contestant = Callable[[int], Outcome]  # of the round


def timed(job: Callable[[], object]) -> float:
    """CPU seconds."""
    begin = time.process_time()
    job()
    return time.process_time() - begin


# The optimiser of the published fits, written plainly


class Plain:
    """Sum of Huber losses of ln L - ln(e^e + e^(a - alpha ln N) + e^(b - beta ln D)) at x = (a, b, e, alpha, beta)."""

    def __init__(self, points: RunData, weights: Array | None = None) -> None:
        self.n, self.d, self.log_L = np.log(points.N), np.log(points.D), points.log_L
        self.weights = np.ones(len(points)) if weights is None else weights

    def value(self, x: Array) -> float:
        """F."""
        return self.value_and_gradient(x)[0]

    def value_and_gradient(self, x: Array) -> tuple[float, Array]:
        """F and its gradient."""
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
        """F where scipy's L-BFGS-B stops."""
        F = self.value_and_gradient if gradient else self.value
        return float(minimize(F, begin, jac=gradient, method="L-BFGS-B", options=options).fun)


def starts() -> Array:
    """The grid of Hoffmann et al., (4500, 5), shuffled so that any part of it is a fair sample."""
    return np.random.default_rng(0).permutation(np.array(list(itertools.product(*HOFFMANN))))


def grid(points: RunData, *, gradient: bool = True, sample: int = 4500, **options: float) -> Contestant:
    """L-BFGS-B from the grid, or a sample of it: a share of the starts each round."""
    plain, all_starts = Plain(points), starts()

    def run(turn: int) -> Outcome:
        some = all_starts[:sample][turn::ROUNDS]
        found: list[float] = []
        seconds = timed(lambda: found.extend(plain.descend(x, gradient=gradient, **options) for x in some))
        off = float(np.mean(np.array(found) > 1.1 * LEAST))
        return Outcome(seconds * len(all_starts) / len(some), min(found), off)

    return run


def ours(points: RunData) -> Contestant:
    """Our fit."""

    def run(turn: int) -> Outcome:
        del turn
        return Outcome(float(np.median([timed(lambda: fit_law(points)) for _ in range(FITS)])), fit_law(points).F)

    return run


# The packages


@contextmanager
def environment() -> Iterator[Path]:
    """A Python with the packages and nothing of ours, as long as the benchmark runs."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        yield Path(folder) / "bin" / "python"


def install(python: Path, package: str) -> str:
    """Install a package; why it can't be, or an empty text."""
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    done = subprocess.run([*pip, PACKAGES[package]], check=False, capture_output=True, text=True)
    if done.returncode and package == "simple-scaling-laws":
        # It asks for Python 3.12, and runs on 3.11
        subprocess.run([*pip, "numpy", "scipy", "polars", "pyyaml"], check=True)
        forced = [*pip, "--no-deps", "--ignore-requires-python", PACKAGES[package]]
        done = subprocess.run(forced, check=False, capture_output=True, text=True)
    return f"{package}: not installed ({done.stderr.strip().splitlines()[-1]})" if done.returncode else ""


def peer(python: Path, driver: str, points: RunData, *extra: str) -> Outcome:
    """What a package's own fit takes and where it ends."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "runs.csv"
        pd.DataFrame({"N": points.N, "D": points.D, "loss": points.L}).to_csv(table, index=False)
        told = subprocess.run(
            [python, HERE / "peers" / driver, table, *extra], check=True, capture_output=True, text=True
        )
    found = json.loads(told.stdout)
    return Outcome(found["seconds"], objective_of(np.array(found["theta"]), points))


def package_chinchilla(python: Path, points: RunData) -> Contestant:
    """The package chinchilla, in the first and the last round alone: it takes a minute."""

    def run(turn: int) -> Outcome:
        late = turn in (0, ROUNDS - 1)
        return peer(python, "chinchilla_package.py", points) if late else Outcome(math.nan)

    return run


def package_simple(python: Path, points: RunData) -> Contestant:
    """The package simple-scaling-laws."""

    def run(turn: int) -> Outcome:
        del turn
        return peer(python, "simple_scaling_laws_package.py", points, "1")

    return run


def package_simple_resamples(python: Path, points: RunData) -> Contestant:
    """Its resamples: a fit with 1001 less one with 1."""

    def run(turn: int) -> Outcome:
        del turn
        both = [peer(python, "simple_scaling_laws_package.py", points, str(count)) for count in (RESAMPLES + 1, 1)]
        return Outcome(both[0].seconds - both[1].seconds)

    return run


# Resamples


def our_resamples(points: RunData, method: ResamplingMethod, *, one_step: bool) -> Contestant:
    """Ours."""
    fit = fit_law(points)

    def run(turn: int) -> Outcome:
        return Outcome(
            timed(lambda: draw_parameters(fit, points, method=method, count=RESAMPLES, seed=turn, one_step=one_step))
        )

    return run


def their_resamples(points: RunData, **options: float) -> Contestant:
    """L-BFGS-B from the optimum on each of a sample of resamples."""
    fit = fit_law(points)
    E, A, B, alpha, beta = fit.theta
    begin = np.array([math.log(A), math.log(B), math.log(E), alpha, beta])

    def run(turn: int) -> Outcome:
        n = len(points)
        counts = np.random.default_rng(turn).multinomial(n, np.full(n, 1 / n), size=SAMPLED_RESAMPLES).astype(float)
        plain = [Plain(points, row) for row in counts]
        found: list[float] = []
        seconds = timed(lambda: found.extend(one.descend(begin, **options) for one in plain))
        least = fit.build_problem(points, weights=counts).value(refit(fit, points, weights=counts)[0])
        off = float(np.mean(np.array(found) > least * (1 + 1e-6)))
        return Outcome(seconds * RESAMPLES / SAMPLED_RESAMPLES, off=off)

    return run


# Tables


def compete(part: str, contestants: dict[str, Contestant]) -> pd.DataFrame:
    """Rounds of all contestants, one row each; the first is ours."""
    outcomes: dict[str, list[Outcome]] = {name: [] for name in contestants}
    for turn in range(ROUNDS):
        for name, run in contestants.items():
            outcomes[name].append(run(turn))
            print(f"round {turn + 1} of {ROUNDS}: {name} {outcomes[name][-1].seconds:.4g} s", file=sys.stderr)
    base = np.array([one.seconds for one in next(iter(outcomes.values()))])
    return pd.DataFrame([row(part, name, found, base) for name, found in outcomes.items()])


def row(part: str, name: str, found: list[Outcome], base: Array) -> dict[str, object]:
    """One contestant's row; ``base``: our seconds by round."""
    seconds = np.array([one.seconds for one in found])
    times = seconds / base
    F, off = (np.array([getattr(one, what) for one in found]) for what in ("F", "off"))
    return {
        "part": part, "contestant": name,
        "seconds": np.nanmedian(seconds), "seconds_lo": np.nanmin(seconds), "seconds_hi": np.nanmax(seconds),
        "times": np.nanmedian(times), "times_lo": np.nanmin(times), "times_hi": np.nanmax(times),
        "gap": np.nan if np.isnan(F).all() else np.nanmin(F) / LEAST - 1,
        "off": np.nan if np.isnan(off).all() else np.nanmean(off),
    }  # fmt: skip


def speed(*, peers: bool) -> pd.DataFrame:
    """All contestants."""
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
    """As many runs over the sizes and tokens of the 240."""
    rng = np.random.default_rng(1)
    N, D = (np.exp(rng.uniform(math.log(lo), math.log(hi), n)) for lo, hi in ((5.7e7, 1.6e10), (8e8, 3e11)))
    theta = np.array([1.8172, 477.8, 2143.4, 0.3473, 0.3672])
    return RunData(N=N, D=D, L=CHINCHILLA.loss(theta, N, D) * np.exp(0.01 * rng.standard_t(3, n)))


def peak(job: Callable[[], object]) -> float:
    """The most MB that a job holds at once."""
    tracemalloc.start()
    job()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most / 1e6


def resampling(
    fit: FitResult, points: RunData, method: ResamplingMethod, count: int, *, one_step: bool
) -> Callable[[], Array]:
    """A job."""
    return lambda: draw_parameters(fit, points, method=method, count=count, one_step=one_step)


def growth() -> pd.DataFrame:
    """Time and memory by the number of runs: a fit, 100 resamples to their minimum (both ways), 1000 by one step."""
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
        found: dict[str, float] = {"n": n, "agree": fit.starts.agree / fit.starts.tried}
        for name, job in jobs.items():
            repeats = REPEATS if name == "fit" else 2
            found[f"{name}_s"] = min(timed(job) for _ in range(repeats))
            found[f"{name}_us_per_run"] = found[f"{name}_s"] / n * 1e6
            found[f"{name}_peak_mb"] = peak(job)
        found["runs_mb"] = 5 * n * 8 / 1e6  # N, D, L, weights and clusters
        rows.append(found)
        print(f"{n} runs: {found}", file=sys.stderr)
    return pd.DataFrame(rows)


def main() -> None:
    """Measure and keep."""
    what, file = (growth(), "law_growth.csv") if "--growth" in sys.argv else (
        speed(peers="--peers" in sys.argv), "law_speed.csv",
    )  # fmt: skip
    print(what.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    what.to_csv(HERE / "results" / file, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
