"""Measure the exactness of the fit on the 240 digitised Chinchilla runs: starts, objectives, errors and intervals.

    python benchmarks/law_exactness.py

prints three tables and writes them to benchmarks/results/law_starts.csv, law_objectives.csv and law_errors.csv (a
minute).

- starts: F relative to its published minimum, from the default starts and from each of 100 random starts alone. Random
  starts: ln E normal about 0.5 (sd 0.3), ln of both terms at the centre of the runs normal about -1 (sd 0.7), exponents
  uniform over 0.1 to 0.8.
- objectives: the minimum of each, and that of scipy's simplex search (Nelder and Mead), which uses no derivatives, from
  this minimum and from nearby. ``gap``: relative difference of its F to that of skillscale, negative where it is lower.
- errors: standard errors and 95 % intervals of a pairs bootstrap with 4000 resamples, and those published by Besiroglu
  et al. 2024. With numpy's old generator and their seed, the resamples are the same, so no random difference remains.
  ``others``: mean over 20 other seeds. ``sd``: sd of one seed's result.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy reads it

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.fit import FitResult, fit_law, refit
from skillscale.laws.fit.objective import HUBER, LEAST_ABSOLUTE, LEAST_SQUARES, RAW_LEAST_SQUARES, Objective
from skillscale.laws.forms.catalogue import CHINCHILLA
from skillscale.laws.forms.nd import Array

HERE = Path(__file__).parent
TABLES = Path(os.environ.get("SKILLSCALE_TABLES") or HERE.parents[1] / "shared" / "data")
LEAST = 0.001018274017801
OBJECTIVES = (HUBER, Objective(delta=1e-6), LEAST_ABSOLUTE, LEAST_SQUARES, RAW_LEAST_SQUARES)
RESAMPLES = 4000
PUBLISHED_SEED = 42
OTHER_SEEDS = range(20)
PUBLISHED = {  # standard error, 2.5 and 97.5 %
    "E": (0.0257, 1.769, 1.871),
    "A": (124.5, 286, 744),
    "B": (1293, 1042, 5810),
    "alpha": (0.0154, 0.317, 0.373),
    "beta": (0.0206, 0.331, 0.415),
}


def epoch() -> RunData:
    """Read the 240 runs."""
    table = pd.read_csv(TABLES / "chinchilla_epoch.csv")
    table = table[table["in_besiroglu_240"] == 1]
    return RunData(N=table["params"].to_numpy(), D=table["tokens"].to_numpy(), L=table["loss"].to_numpy())


def random_starts(count: int) -> Array:
    """Draw starting log-parameters, (count, 5)."""
    rng = np.random.default_rng(0)
    E, u, v = rng.normal(0.5, 0.3, count), *rng.normal(-1.0, 0.7, (2, count))
    return np.column_stack([E, u, v, *rng.uniform(0.1, 0.8, (2, count))])


def starts(points: RunData) -> pd.DataFrame:
    """Return the exactness by the starts of the fit."""
    law = points.bind(CHINCHILLA)
    fits = {
        "default": [fit_law(points)],
        "random": [fit_law(points, law=law, starting_points=start[None], starts=1) for start in random_starts(100)],
    }
    return pd.DataFrame([_exactness(name, fits_of) for name, fits_of in fits.items()])


def _exactness(name: str, fits: list[FitResult]) -> dict[str, object]:
    gaps = np.array([fit.F for fit in fits]) / LEAST - 1
    theta = np.array([fit.theta for fit in fits])
    return {
        "starts": name, "fits": len(fits), "tried": fits[0].starts.tried,
        "agree": min(fit.starts.agree for fit in fits),
        "worst_gap": np.abs(gaps).max(), "within_1e-9": int((np.abs(gaps) < 1e-9).sum()),
        "converged": sum(fit.converged for fit in fits),
    } | dict(zip(CHINCHILLA.parameters, np.median(theta, 0), strict=True))  # fmt: skip


def objectives(points: RunData) -> pd.DataFrame:
    """Return the minimum of each objective."""
    rows = []
    for objective in OBJECTIVES:
        fit = fit_law(points, objective=objective)
        columns = fit.parameters | {"F": fit.F, "agree": f"{fit.starts.agree}/{fit.starts.tried}"}
        rows.append({"objective": objective.name} | columns | {"gap": simplex(fit, points) / fit.F - 1})
    return pd.DataFrame(rows)


def simplex(fit: FitResult, points: RunData) -> float:
    """Return the least F of Nelder and Mead's search from the optimum and from nearby, restarted where it stops."""
    problem, values = fit.build_problem(points), []
    for offset in (0.0, 0.02, -0.02):
        q = fit.q + offset
        for _ in range(6):
            q = minimize(
                lambda x: problem.value(x[None])[0], q, method="Nelder-Mead",
                options={"xatol": 1e-13, "fatol": 1e-16, "maxiter": 4000, "maxfev": 8000},
            ).x  # fmt: skip
        values.append(problem.value(q[None])[0])
    return float(min(values))


def published_counts(n: int) -> Array:
    """Return the resamples of the published bootstrap as weights, (4000, n)."""
    rng = np.random.RandomState(PUBLISHED_SEED)  # the generator of the publication; newer ones draw differently
    return np.array([np.bincount(rng.choice(n, n, replace=True), minlength=n) for _ in range(RESAMPLES)], dtype=float)


def other_counts(n: int, seed: int) -> Array:
    """Return the same number of other resamples."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(float)


def bootstrapped(fit: FitResult, points: RunData, counts: Array) -> Array:
    """Return the standard error, 2.5 and 97.5 % quantile of each parameter, (5, 3)."""
    q, converged = refit(fit, points, weights=counts)
    assert converged.all(), f"{(~converged).sum()} resamples did not converge"
    theta = fit.law.theta(q)
    return np.column_stack([theta.std(0), *np.quantile(theta, [0.025, 0.975], axis=0)])


def errors(points: RunData) -> pd.DataFrame:
    """Compare published standard errors and intervals with those of skillscale."""
    fit, n = fit_law(points), len(points)
    same = bootstrapped(fit, points, published_counts(n))
    others = np.array([bootstrapped(fit, points, other_counts(n, seed)) for seed in OTHER_SEEDS])
    rows = []
    for j, name in enumerate(CHINCHILLA.parameters):
        for k, what in enumerate(("standard error", "2.5 %", "97.5 %")):
            published = PUBLISHED[name][k]
            rows.append({
                "parameter": name, "what": what, "published": published, "same_resamples": same[j, k],
                "ratio": same[j, k] / published, "others": others[:, j, k].mean(), "sd": others[:, j, k].std(ddof=1),
                "others_ratio": others[:, j, k].mean() / published,
            })  # fmt: skip
    return pd.DataFrame(rows)


def main() -> None:
    """Measure, print and write the tables."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    points = epoch()
    for name, table in (("starts", starts(points)), ("objectives", objectives(points)), ("errors", errors(points))):
        print(table.to_string(index=False, float_format=lambda value: f"{value:.8g}"), end="\n\n")
        table.to_csv(HERE / "results" / f"law_{name}.csv", index=False, float_format="%.10g")


if __name__ == "__main__":
    main()
