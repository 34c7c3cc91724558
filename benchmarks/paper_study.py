"""Answer the questions of the paper on a study trained with skillscale: its tables, and a comparison of mixture laws.

    python benchmarks/paper_study.py runs --study skills-night [--tracking URI]    the finished runs, as a small table
    python benchmarks/paper_study.py tables --study skills-night                   every table behind the figures
    python benchmarks/paper_study.py laws --study mix-ablation-hour                each mix predicted from the others

``runs`` reads the tracking store and writes benchmarks/results/STUDY/runs.csv. The other commands read this file, so
they need no training. ``tables`` writes the tables of ``skillscale report`` (N* with intervals,
verdicts on two splits, shifts by validation set, and for several mixes slopes, crossovers and similarity), and prints
the main ones as Markdown.

``laws``: laws fitted to all other mixes predict the losses of each mix. In the law ``no transfer``, E + A N^-alpha +
B (h D)^-beta, a skill learns only from the tokens of its category. ``no mix``: the same with all tokens. The other laws
are those of skillscale. Columns: the root mean square error of ln L, in total and without the mean of each mix; and the
paired difference of squared errors to ``effective_data`` over mixes, with its 90 % interval (Student's t). Two laws
differ where this interval excludes 0. ``elasticity``: d ln N* / d ln h of the law for the share of the skill's
category, at the base mix and the smallest budget.
"""

import argparse
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t as student_t

from skillscale import config as configs
from skillscale.config import Config
from skillscale.config.options import SourceOptions
from skillscale.errors import FitError
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.fit import fit_law
from skillscale.laws.fit.joint import fit_skills
from skillscale.laws.fit.skill_law import split_by_skill
from skillscale.laws.forms.catalogue import LAWS
from skillscale.laws.forms.nd import Law
from skillscale.laws.selection.extrapolation import weak_priors
from skillscale.laws.skills.skill_study import MeasuredColumns, skill_study
from skillscale.point import AGGREGATE
from skillscale.report.skill_page import skill_frames
from skillscale.tables.read import read_runs, splits_of, validation_of

RESULTS = Path(__file__).parent / "results"
NO_TRANSFER, NO_MIX = "no transfer", "no mix"
AGAINST = "effective_data"
JOINT = "capacity_competition"
LEVEL = 0.9


def runs(config: Config, tracking: str) -> None:
    """Write the finished runs of the study as a table."""
    table = read_runs(SourceOptions(tracking=tracking), config).grid_runs.table.runs
    kept = table.drop(columns=["cluster"]).sort_values(["C", "mix", "N", "seed"]).reset_index(drop=True)
    kept["run_id"] = [f"run{at:03d}" for at in range(len(kept))]
    place(config).mkdir(parents=True, exist_ok=True)
    kept.to_csv(place(config) / "runs.csv", index=False, float_format="%.8g")
    print(f"{len(kept)} runs, {float((6 * kept['N'] * kept['D']).sum()):.3g} FLOP")


def place(config: Config) -> Path:
    """Return the folder of a study's tables."""
    return RESULTS / config.study.name


def read(config: Config) -> pd.DataFrame:
    """Read the runs that ``runs`` wrote."""
    return pd.read_csv(place(config) / "runs.csv").assign(cluster=lambda frame: frame["run_id"])


def measured(config: Config, table: pd.DataFrame) -> MeasuredColumns:
    """Return the roles of the columns."""
    return MeasuredColumns(
        skills=tuple(skill.name for skill in config.skills.skills), aggregates=(AGGREGATE,), splits=splits_of(config),
        categories={skill.name: skill.category for skill in config.skills.skills if f"mix/{skill.category}" in table},
        validation=validation_of(config),
    )  # fmt: skip


def tables(config: Config) -> None:
    """Write every table, and print the ones quoted in the docs."""
    table = read(config)
    study = skill_study(
        table, measured(config, table), base=str(config.study.mix_values[0]), level=config.study.level,
        resamples=config.study.resamples,
    )  # fmt: skip
    frames = skill_frames(study) | {
        "residuals": study.fits.size_gap_table(),
        "power_laws": study.fits.power_law_table(),
    }
    for name, frame in frames.items():
        frame.to_csv(place(config) / f"{name}.csv", index=False, float_format="%.4g")
    for name in ("splits", "composition_shifts", "share_effects", "equal_shares", "crossover", "likeness"):
        if name in frames and len(frames[name]):
            shown = frames[name].drop(columns=["mix", "mixes"], errors="ignore")
            print(f"\n{name}\n\n{markdown(shown)}")


def markdown(frame: pd.DataFrame) -> str:
    """Format a table for the docs."""
    cells = [[f"{x:.3g}" if isinstance(x, float) else str(x) for x in row] for row in frame.itertuples(index=False)]
    lines = [list(map(str, frame.columns)), ["---"] * len(frame.columns), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def laws(config: Config) -> None:
    """Predict each mix from the others, by every law."""
    table = read(config)
    columns = measured(config, table)
    categories = tuple(name.removeprefix("mix/") for name in table.columns if name.startswith("mix/"))
    data = split_by_skill(table, columns.skills, categories)
    names = table["mix"].to_numpy()
    rows = []
    for law in (NO_MIX, NO_TRANSFER, "effective_data", "separable", "additive_mixture", "joint_mixture", JOINT):
        errors = {skill: np.full(len(points), math.nan) for skill, points in data.items()}
        for mix in np.unique(names):
            held_out = names == mix
            for skill, log_L in predict(law, data, ~held_out, held_out, columns.categories).items():
                errors[skill][held_out] = data[skill].log_L[held_out] - log_L
        for skill, skill_errors in errors.items():
            implied = elasticity(law, data, skill, columns.categories, config)
            rows.append({"law": law, "skill": skill, **score(skill_errors, names), "elasticity": implied})
        print(pd.DataFrame(rows[-len(data) :]).drop(columns="by mix").to_string(index=False))
    frame = pd.DataFrame(rows)
    frame = frame.assign(**against(frame)).drop(columns="by mix")
    frame.to_csv(place(config) / "laws.csv", index=False, float_format="%.4g")
    print(markdown(frame))


def predict(
    law: str, data: Mapping[str, RunData], fitted: np.ndarray, out: np.ndarray, categories: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """Return ln L of the held-out runs, by skill. Skills whose law cannot be fitted are missing."""
    if law == JOINT:
        try:
            fits = fit_skills(
                {name: points.take(fitted) for name, points in data.items()}, law=LAWS[JOINT], objective=None
            ).fits
        except FitError:
            return {}
        return {name: log_losses(fit.law, fit.q, data[name].take(out)) for name, fit in fits.items()}
    predictions = {}
    for skill, points in data.items():
        fitted_points, held_out_points = (
            tokens_of(law, points.take(rows), categories[skill]) for rows in (fitted, out)
        )
        bound = fitted_points.bind(form(law)).for_skill(skill)
        try:
            fit = fit_law(fitted_points, law=bound, objective=None, priors=weak_priors(bound, fitted_points))
        except FitError as error:
            print(f"{law}, {skill}: {error}")
            continue
        predictions[skill] = log_losses(bound, fit.q, held_out_points)
    return predictions


def log_losses(law: Law, q: np.ndarray, points: RunData) -> np.ndarray:
    """Return ln L of runs."""
    return law.log_loss(q[None], points.covariates(law))[0]


def form(law: str) -> Law:
    """Return the law of N, D and perhaps the mix."""
    return LAWS["chinchilla" if law in (NO_TRANSFER, NO_MIX) else law]


def tokens_of(law: str, points: RunData, category: str) -> RunData:
    """Return the runs with the tokens that the law counts."""
    if law != NO_TRANSFER:
        return points
    return replace(points, D=points.D * points.h[:, points.categories.index(category)])


def score(errors: np.ndarray, mixes: np.ndarray) -> dict[str, object]:
    """Return the root mean square error in total and without each mix's mean, and the mean square by mix."""
    by_mix = pd.Series(errors**2).groupby(mixes).mean()
    within = errors - pd.Series(errors).groupby(mixes).transform("mean").to_numpy()
    return {
        "error": math.sqrt(float(by_mix.mean())), "within a mix": float(np.sqrt(np.mean(within**2))), "by mix": by_mix
    }  # fmt: skip


def against(frame: pd.DataFrame) -> dict[str, list[float]]:
    """Return the mean square error less that of ``AGAINST``, over mixes, with its interval, in units of 1e-4."""
    columns: dict[str, list[float]] = {"more": [], "more_lo": [], "more_hi": []}
    base = frame[frame["law"] == AGAINST].set_index("skill")["by mix"]
    for _, row in frame.iterrows():
        gap = 1e4 * (row["by mix"] - base[row["skill"]])
        half = float(student_t.ppf((1 + LEVEL) / 2, len(gap) - 1)) * float(gap.std(ddof=1)) / math.sqrt(len(gap))
        for name, value in zip(
            columns, (float(gap.mean()), float(gap.mean()) - half, float(gap.mean()) + half), strict=True
        ):
            columns[name].append(value)
    return columns


def elasticity(
    law: str, data: Mapping[str, RunData], skill: str, categories: Mapping[str, str], config: Config
) -> float:
    """Return d ln N* / d ln share of the skill's category by the law of all runs. Other shares keep their ratios."""
    if law == NO_MIX:
        return 0.0
    points = data[skill]
    index = points.categories.index(categories[skill])
    base = np.array([config.study.mix_values[0].shares.get(name, 0.0) for name in points.categories])
    C = min(config.study.budgets)
    everything = np.ones(len(points), dtype=bool)
    if law == JOINT:
        fit = fit_skills(data, law=LAWS[JOINT], objective=None).fits[skill]
        bound, q = fit.law, fit.q
    else:
        counted_points = tokens_of(law, points.take(everything), categories[skill])
        bound = counted_points.bind(form(law)).for_skill(skill)
        q = fit_law(counted_points, law=bound, objective=None, priors=weak_priors(bound, counted_points)).q
    ends = []
    for step in (-0.05, 0.05):
        share = base[index] * math.exp(step)
        h = base * (1 - share) / (1 - base[index])
        h[index] = share
        theta = bound.theta(q[None])
        counted = C * share if law == NO_TRANSFER else C
        ends.append(float(bound.log_optimum(theta, [counted], h if bound.needs_mix else None)[0, 0]))
    return (ends[1] - ends[0]) / 0.1


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("runs", "tables", "laws"))
    parser.add_argument("--study", default="skills-night")
    parser.add_argument("--tracking", default="")
    args = parser.parse_args()
    config = configs.load(study=args.study)
    if args.what == "runs":
        runs(config, args.tracking)
    else:
        {"tables": tables, "laws": laws}[args.what](config)


if __name__ == "__main__":
    main()
