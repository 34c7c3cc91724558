"""How exact the fit is on the 240 digitised Chinchilla runs: starts, objectives, standard errors and intervals.

    python benchmarks/law_exactness.py

prints three tables and keeps them in benchmarks/results/law_starts.csv, law_objectives.csv and law_errors.csv (a
minute).

- starts: F relative to its published minimum from the default starts, and from each of 100 random ones alone: ln E
  normal about .5 (sd .3), ln of both terms at the centre of the runs about -1 (.7), exponents even over .1 to .8;
- objectives: what each reaches, and where scipy's simplex search (Nelder and Mead), which knows no derivatives, ends
  that starts there and a little aside: ``gap`` is how far its F lies above ours (below, where negative);
- errors: standard errors and 95 % intervals of the pairs bootstrap of 4000 resamples beside those that Besiroglu et
  al. 2024 published. With numpy's old generator and their seed the resamples are theirs, so nothing is left to chance;
  ``others`` is the mean over 20 other seeds and ``sd`` what chance does to one seed's result.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy reads it

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
    """The 240 runs."""
    table = pd.read_csv(TABLES / "chinchilla_epoch.csv")
    table = table[table["in_besiroglu_240"] == 1]
    return RunData(N=table["params"].to_numpy(), D=table["tokens"].to_numpy(), L=table["loss"].to_numpy())


def random_starts(count: int) -> Array:
    """Log-parameters, (count, 5)."""
    rng = np.random.default_rng(0)
    E, u, v = rng.normal(0.5, 0.3, count), *rng.normal(-1.0, 0.7, (2, count))
    return np.column_stack([E, u, v, *rng.uniform(0.1, 0.8, (2, count))])


def starts(points: RunData) -> pd.DataFrame:
    """Exactness by where the fit starts."""
    law = points.bind(CHINCHILLA)
    fits = {
        "default": [fit_law(points)],
        "random": [fit_law(points, law=law, starting_points=one[None], starts=1) for one in random_starts(100)],
    }
    return pd.DataFrame([_exactness(name, found) for name, found in fits.items()])


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
    """What each objective reaches."""
    rows = []
    for objective in OBJECTIVES:
        fit = fit_law(points, objective=objective)
        found = fit.parameters | {"F": fit.F, "agree": f"{fit.starts.agree}/{fit.starts.tried}"}
        rows.append({"objective": objective.name} | found | {"gap": simplex(fit, points) / fit.F - 1})
    return pd.DataFrame(rows)


def simplex(fit: FitResult, points: RunData) -> float:
    """The least F that Nelder and Mead's search finds from the optimum and from near it, begun anew where it stops."""
    problem, found = fit.build_problem(points), []
    for aside in (0.0, 0.02, -0.02):
        q = fit.q + aside
        for _ in range(6):
            q = minimize(
                lambda x: problem.value(x[None])[0], q, method="Nelder-Mead",
                options={"xatol": 1e-13, "fatol": 1e-16, "maxiter": 4000, "maxfev": 8000},
            ).x  # fmt: skip
        found.append(problem.value(q[None])[0])
    return float(min(found))


def published_counts(n: int) -> Array:
    """The resamples of the published bootstrap as weights, (4000, n)."""
    rng = np.random.RandomState(PUBLISHED_SEED)  # theirs: newer generators draw others
    return np.array([np.bincount(rng.choice(n, n, replace=True), minlength=n) for _ in range(RESAMPLES)], dtype=float)


def other_counts(n: int, seed: int) -> Array:
    """As many other resamples."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(float)


def bootstrapped(fit: FitResult, points: RunData, counts: Array) -> Array:
    """Standard error, 2.5 and 97.5 % of each parameter, (5, 3)."""
    q, converged = refit(fit, points, weights=counts)
    assert converged.all(), f"{(~converged).sum()} resamples did not converge"
    theta = fit.law.theta(q)
    return np.column_stack([theta.std(0), *np.quantile(theta, [0.025, 0.975], axis=0)])


def errors(points: RunData) -> pd.DataFrame:
    """Published standard errors and intervals beside ours."""
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
    """Measure and keep."""
    points = epoch()
    for name, table in (("starts", starts(points)), ("objectives", objectives(points)), ("errors", errors(points))):
        print(table.to_string(index=False, float_format=lambda value: f"{value:.8g}"), end="\n\n")
        table.to_csv(HERE / "results" / f"law_{name}.csv", index=False, float_format="%.10g")


if __name__ == "__main__":
    main()
