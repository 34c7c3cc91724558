"""Measure the coverage of the laws' 90 % intervals, by law and noise, on simulated studies with random truths.

    python benchmarks/law_coverage.py coverage --studies 500 --laws chinchilla,coupled --noise even,clustered
    python benchmarks/law_coverage.py warnings --studies 100 --laws drifting --fitted chinchilla
    python benchmarks/law_coverage.py page    the tables of docs/research/coverage.md

``coverage``: of alpha and beta, the exponent a of N*(C) at the centre, ln N* at 10 times the largest budget, ln L at
that optimum, and ln L of a new run there. ``pulls``: variance of (estimate - truth) / half width x 1.645. ``unknown``:
number of studies without an interval (more than 1 % of the draws have no optimum). A law of all skills at once is
fitted to three skills: ``alpha`` and ``beta`` are then b and a of the skill's category, the other columns are means
over the three, and ``unknown`` counts skills. ``warnings``: share of the studies with a warning, in total and by kind,
for a true law (``--laws``) and a fitted law (``--fitted``). Tables are written to benchmarks/results/. Existing rows
are not computed again.
"""

import argparse
import csv
import math
from collections.abc import Callable, Iterable
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import pandas as pd
from simulated_studies import NAMES, NoiseDraws, SimulatedSkill, plant, plant_skills

from skillscale.errors import FitError
from skillscale.laws.fit.fit import FitResult, fit_law
from skillscale.laws.fit.joint import fit_skills
from skillscale.laws.fit.objective import HUBER, Objective
from skillscale.laws.forms.catalogue import LAWS
from skillscale.laws.forms.nd import Law
from skillscale.laws.uncertainty.bootstrap import ResamplingMethod, draw_parameters, new_run_sd, resampling_labels
from skillscale.laws.uncertainty.diagnostics import diagnose_fit
from skillscale.laws.uncertainty.joint_bootstrap import joint_bootstrap
from skillscale.laws.uncertainty.resamples import interval

RESULTS = Path(__file__).parent / "results"
RESAMPLES = 300
LEVEL = 0.9
STARTS = 3
OBJECTIVES = {"efficient": None, "huber .001": HUBER}
QUANTITIES = ("alpha", "beta", "a", "ln N*", "ln L", "new run")
WORDS = {  # text that identifies each warning
    "form": "depend on N and D",
    "trend": "noise changes",
    "mix": "depend on the mix",
    "outliers": "sd from the law",
    "prior": "Weak priors",
    "starts": "starts reached",
    "rival": "fits as well",
    "lopsided": "are skewed",
}
CATEGORY_EXPONENTS = {"alpha": "b", "beta": "a"}  # names of the exponents of one category
Row = dict[str, object]
Hits = dict[str, tuple[float, float]]


def keep(table: str, cells: Iterable[Row], compute: Callable[[Row], list[Row]]) -> None:
    """Compute and append the missing cells of a table, and print the table."""
    path = RESULTS / f"law_{table}.csv"
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


def study_of(cell: Row, seed: int) -> dict[str, SimulatedSkill]:
    """Simulate a study of a cell, by skill. It is the same for every method and objective."""
    law, noise = LAWS[str(cell["law"])], NoiseDraws(str(cell["noise"]))
    rng = np.random.default_rng([seed, list(LAWS).index(law.name), list(NoiseDraws).index(noise)])
    if law.joint:
        return plant_skills(law, noise, rng)
    return {NAMES[0]: plant(law, noise, rng, edge=cell["truths"] == "edge")}


def quantities(study: SimulatedSkill, q: np.ndarray) -> dict[str, np.ndarray]:
    """Return the quantities whose coverage is measured, (K,) each, from log-parameters (K, p)."""
    law = study.law
    theta = law.theta(q)
    N = math.exp(study.log_optimum)
    place = law.covariates([N], [study.far / (6 * N)], study.mix)
    values = {name: theta[:, law.parameters.index(parameter)] for name, parameter in exponents(law).items()}
    log_L = law.log_loss(q, place)[:, 0]
    return values | {
        "a": law.optimum_exponent(theta, None, study.mix),
        "ln N*": law.log_optimum(theta, [study.far], study.mix)[:, 0],
        "ln L": log_L,
        "new run": log_L,
    }


def exponents(law: Law) -> dict[str, str]:
    """Return the law's parameter names of the exponents of N and D of its skill."""
    category = getattr(law, "skill_category", "")
    of_category = {name: f"{letter}_{category}" for name, letter in CATEGORY_EXPONENTS.items()}
    names = [(name, parameter) for name in CATEGORY_EXPONENTS for parameter in (name, of_category[name])]
    return {name: parameter for name, parameter in names if parameter in law.parameters}


def hits(study: SimulatedSkill, fit: FitResult, q: np.ndarray, rng: np.random.Generator) -> Hits:
    """Return whether each interval covers, and its pull. NaN where there is no interval."""
    error = {"new run": (study.new_error, new_run_sd(fit, study.points) * rng.normal(size=len(q)))}
    results = {}
    for name, (truth, value, *drawn) in quantities(study, np.vstack([study.q, fit.q, q])).items():
        of_truth, of_draws = error.get(name, (0.0, 0.0))
        estimate, true_value = interval(float(value), np.array(drawn) + of_draws, LEVEL), float(truth) + of_truth
        half = (estimate.hi - estimate.lo) / 2
        results[name] = (
            float(estimate.lo <= true_value <= estimate.hi) if estimate.is_finite else math.nan,
            (estimate.value - true_value) / half * 1.645,
        )
    return results


def coverage(cell: Row, jobs: int = 1) -> list[Row]:
    """Return a row per method and quantity."""
    pairs_of: dict[tuple[str, str], list[tuple[float, float]]] = {}
    failed = 0
    with Pool(jobs) as pool:
        for study_results in pool.imap(partial(study_or_nothing, cell), range(int(str(cell["studies"])))):
            failed += not study_results
            for method, name, hit in study_results:
                pairs_of.setdefault((method, name), []).append(hit)
    skills = len(NAMES) if LAWS[str(cell["law"])].joint else 1
    return [
        _row(method, name, np.array(pairs), skills=skills, failed=failed) for (method, name), pairs in pairs_of.items()
    ]


def study_or_nothing(cell: Row, seed: int) -> list[tuple[str, str, tuple[float, float]]]:
    """Return ``study_hits``, or an empty list where the law cannot be fitted."""
    try:
        return study_hits(study_of(cell, seed), OBJECTIVES[str(cell["objective"])], seed)
    except FitError:
        return []


def study_hits(
    study: dict[str, SimulatedSkill], objective: Objective | None, seed: int
) -> list[tuple[str, str, tuple[float, float]]]:
    """Return method, quantity, and whether the interval covers with its pull, for every skill."""
    results = []
    for method, draws_by_skill in draw_by_method(study, objective, seed):
        for skill, (fit, q) in draws_by_skill.items():
            rng = np.random.default_rng(seed)
            results += [(str(method), name, hit) for name, hit in hits(study[skill], fit, q, rng).items()]
    return results


def draw_by_method(
    study: dict[str, SimulatedSkill], objective: Objective | None, seed: int
) -> list[tuple[ResamplingMethod, dict[str, tuple[FitResult, np.ndarray]]]]:
    """Return each skill's fit and draws by method, as a user gets them."""
    methods = (ResamplingMethod.WILD, ResamplingMethod.LAPLACE)
    data = {skill: draws.points for skill, draws in study.items()}
    (skill, first), *_ = study.items()
    if first.law.joint:
        joint = fit_skills(data, law=first.law, objective=objective)
        options = {"labels": partial(resampling_labels, method=ResamplingMethod.RUN), "count": RESAMPLES, "seed": seed}
        drawn = [joint_bootstrap(joint, data, method=method, **options).q for method in methods]
        return [
            (method, {name: (joint.fits[name], q) for name, q in draws.items()})
            for method, draws in zip(methods, drawn, strict=True)
        ]
    fit = fit_law(first.points, law=first.law, objective=objective, starts=STARTS)
    return [
        (method, {skill: (fit, draw_parameters(fit, first.points, method=method, count=RESAMPLES, seed=seed))})
        for method in methods
    ]


def _row(method: str, name: str, pairs: np.ndarray, *, skills: int, failed: int) -> Row:
    """Summarise hits and pulls (n, 2) in the order of studies. The Monte Carlo error counts a study's skills once."""
    finite = pairs[~np.isnan(pairs[:, 0])] if not np.isnan(pairs[:, 0]).all() else np.full((1, 2), math.nan)
    share, pull, pulls = (float(x) for x in (finite[:, 0].mean(), finite[:, 1].mean(), finite[:, 1].var()))
    by_study = pairs[:, 0].reshape(-1, skills)
    has_value = ~np.isnan(by_study).all(1)
    means = np.nanmean(by_study[has_value], axis=1) if has_value.any() else np.full(1, math.nan)
    return {
        "method": method, "quantity": name, "coverage": f"{share:.3f}",
        "error": f"{float(means.std()) / math.sqrt(len(means)):.3f}", "pull mean": f"{pull:.2f}",
        "pulls": f"{pulls:.2f}", "unknown": int(np.isnan(pairs[:, 0]).sum()), "failed": failed,
    }  # fmt: skip


def warnings(cell: Row) -> list[Row]:
    """Return one row with the shares of the studies that warn."""
    studies = int(str(cell["studies"]))
    texts = []
    for seed in range(studies):
        study = study_of(cell, seed)[NAMES[0]]
        law = study.points.bind(LAWS[str(cell["fitted"])]).for_skill(NAMES[0])
        fit = fit_law(study.points, law=law, objective=None, starts=STARTS)
        q = draw_parameters(fit, study.points, method=ResamplingMethod.WILD, count=RESAMPLES, seed=seed)
        texts.append(" ".join(diagnosis.text for diagnosis in diagnose_fit(fit, study.points, q)))
    shares = {name: np.mean([word in text for text in texts]) for name, word in WORDS.items()}
    return [
        {name: f"{share:.2f}" for name, share in ({"any": np.mean([bool(text) for text in texts])} | shares).items()}
    ]


def page(method: str) -> str:
    """Format the coverage of a method as a Markdown table, with a row per law and noise."""
    rows = pd.read_csv(RESULTS / "law_coverage.csv")
    rows = rows[rows["method"] == method]
    # Of each cell, the rows with the largest number of studies
    keys = ["law", "noise", "truths", "objective"]
    rows = rows[rows["studies"] == rows.groupby(keys)["studies"].transform("max")]
    lines = []
    for (law, noise, truths, objective), cell in rows.groupby(keys, sort=False):
        by_name = cell.set_index("quantity")
        shown = [_cell(by_name.loc[name]) if name in by_name.index else "" for name in QUANTITIES]
        lines.append([law, noise, truths, objective, str(cell["studies"].iloc[0]), *shown])
    head = ["law", "noise", "truths", "objective", "studies", *QUANTITIES]
    table = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in table)


def _cell(row: pd.Series) -> str:
    """Format coverage in per cent and the variance of the pulls. Coverage beyond 86 to 94 by its error is bold."""
    share, error = 100 * float(row["coverage"]), 100 * float(row["error"])
    text = f"{share:.0f}" if 86 - error <= share <= 94 + error else f"**{share:.0f}**"
    unknown = f", {row['unknown']} unknown" if int(row["unknown"]) else ""
    return f"{text} ({float(row['pulls']):.2f}{unknown})"


def main() -> None:
    """Compute and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("coverage", "warnings", "page"))
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument("--laws", default=",".join(name for name, law in LAWS.items() if not law.joint))
    parser.add_argument("--noise", default=",".join(NoiseDraws))
    parser.add_argument("--truths", choices=("prior", "edge"), default="prior")
    parser.add_argument("--fitted", help="law to fit for `warnings` (default: the true law)")
    parser.add_argument("--jobs", type=int, default=1, help="processes for `coverage` (default: 1)")
    parser.add_argument("--objective", choices=tuple(OBJECTIVES), default="efficient")
    args = parser.parse_args()
    if args.table == "page":
        print("\n\n".join(f"### {method}\n\n{page(method)}" for method in ("wild", "laplace")))
        return
    same = {"truths": args.truths, "objective": args.objective, "studies": args.studies}
    cells = [{"law": law, "noise": noise} | same for law in args.laws.split(",") for noise in args.noise.split(",")]
    if args.table == "coverage":
        keep("coverage", cells, partial(coverage, jobs=args.jobs))
    else:
        keep("warnings", [cell | {"fitted": args.fitted or cell["law"]} for cell in cells], warnings)


if __name__ == "__main__":
    main()
