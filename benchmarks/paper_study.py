"""The paper's questions, asked of a study that was trained here: its tables, and laws of the mix against one another.

    python benchmarks/paper_study.py runs --study skills-night [--tracking URI]    the finished runs, as a small table
    python benchmarks/paper_study.py tables --study skills-night                   every table behind the figures
    python benchmarks/paper_study.py laws --study mix-ablation-hour                each mix predicted from the others

``runs`` reads the registry and writes benchmarks/results/STUDY/runs.csv, from which the others read, so that they can
be run again without training anything. ``tables`` writes what ``skillscale report`` draws beside it (N* with intervals,
verdicts on two splits, shifts by validation set; of several mixes slopes, crossings, likeness), and prints the main
ones as Markdown.

``laws``: each mix is left out in turn, and its losses are predicted by laws fitted to all others. ``no transfer``:
E + A N^-alpha + B (h D)^-beta, in which a skill learns from the tokens of its own category alone; ``no mix``: the same
with all tokens; the others are skillscale's. Of each: the error, root mean square of ln L, in total and without what a
mix's runs have in common; and against ``effective_data`` the paired difference of squared errors over mixes with its
90 % interval (Student's t): a law is told from another where that leaves out 0. ``elasticity``: the d ln N* / d ln h
that the law itself implies for the skill's own share, at the base mix and the smallest budget.
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
from skillscale.runs.read import read_runs, splits_of, validation_of

RESULTS = Path(__file__).parent / "results"
NO_TRANSFER, NO_MIX = "no transfer", "no mix"
AGAINST = "effective_data"
JOINT = "capacity_competition"
LEVEL = 0.9


def runs(config: Config, tracking: str) -> None:
    """The study's finished runs as a table."""
    table = read_runs(SourceOptions(tracking=tracking), config).grid_runs.table.runs
    kept = table.drop(columns=["cluster"]).sort_values(["C", "mix", "N", "seed"]).reset_index(drop=True)
    kept["run_id"] = [f"run{at:03d}" for at in range(len(kept))]
    place(config).mkdir(parents=True, exist_ok=True)
    kept.to_csv(place(config) / "runs.csv", index=False, float_format="%.8g")
    print(f"{len(kept)} runs, {float((6 * kept['N'] * kept['D']).sum()):.3g} FLOP")


def place(config: Config) -> Path:
    """The folder of a study's tables."""
    return RESULTS / config.study.name


def read(config: Config) -> pd.DataFrame:
    """The runs that ``runs`` wrote."""
    return pd.read_csv(place(config) / "runs.csv").assign(cluster=lambda frame: frame["run_id"])


def measured(config: Config, table: pd.DataFrame) -> MeasuredColumns:
    """Which column is what."""
    return MeasuredColumns(
        skills=tuple(one.name for one in config.skills.skills), aggregates=(AGGREGATE,), splits=splits_of(config),
        categories={one.name: one.category for one in config.skills.skills if f"mix/{one.category}" in table},
        validation=validation_of(config),
    )  # fmt: skip


def tables(config: Config) -> None:
    """Write every table, and print the ones that are quoted."""
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
    """A table for the docs."""
    cells = [[f"{x:.3g}" if isinstance(x, float) else str(x) for x in row] for row in frame.itertuples(index=False)]
    lines = [list(map(str, frame.columns)), ["---"] * len(frame.columns), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def laws(config: Config) -> None:
    """Predict each mix from the others, by every law."""
    table = read(config)
    known = measured(config, table)
    categories = tuple(name.removeprefix("mix/") for name in table.columns if name.startswith("mix/"))
    data = split_by_skill(table, known.skills, categories)
    names = table["mix"].to_numpy()
    rows = []
    for law in (NO_MIX, NO_TRANSFER, "effective_data", "separable", "additive_mixture", "joint_mixture", JOINT):
        errors = {skill: np.full(len(points), math.nan) for skill, points in data.items()}
        for mix in np.unique(names):
            out = names == mix
            for skill, told in predicted(law, data, ~out, out, known.categories).items():
                errors[skill][out] = data[skill].log_L[out] - told
        for skill, found in errors.items():
            own = elasticity(law, data, skill, known.categories, config)
            rows.append({"law": law, "skill": skill, **score(found, names), "elasticity": own})
        print(pd.DataFrame(rows[-len(data) :]).drop(columns="by mix").to_string(index=False))
    frame = pd.DataFrame(rows)
    frame = frame.assign(**against(frame)).drop(columns="by mix")
    frame.to_csv(place(config) / "laws.csv", index=False, float_format="%.4g")
    print(markdown(frame))


def predicted(
    law: str, data: Mapping[str, RunData], fitted: np.ndarray, out: np.ndarray, own: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """Ln L of the runs left out, by skill; NaN where a law can't be fitted."""
    if law == JOINT:
        try:
            fits = fit_skills(
                {name: one.take(fitted) for name, one in data.items()}, law=LAWS[JOINT], objective=None
            ).fits
        except FitError:
            return {}
        return {name: told_by(fit.law, fit.q, data[name].take(out)) for name, fit in fits.items()}
    found = {}
    for skill, points in data.items():
        seen, held = (tokens_of(law, points.take(rows), own[skill]) for rows in (fitted, out))
        bound = seen.bind(form(law)).for_skill(skill)
        try:
            fit = fit_law(seen, law=bound, objective=None, priors=weak_priors(bound, seen))
        except FitError as error:
            print(f"{law}, {skill}: {error}")
            continue
        found[skill] = told_by(bound, fit.q, held)
    return found


def told_by(law: Law, q: np.ndarray, points: RunData) -> np.ndarray:
    """Ln L of some runs."""
    return law.log_loss(q[None], points.covariates(law))[0]


def form(law: str) -> Law:
    """The law of N, D and perhaps the mix."""
    return LAWS["chinchilla" if law in (NO_TRANSFER, NO_MIX) else law]


def tokens_of(law: str, points: RunData, category: str) -> RunData:
    """The runs with the tokens that the law counts."""
    if law != NO_TRANSFER:
        return points
    return replace(points, D=points.D * points.h[:, points.categories.index(category)])


def score(errors: np.ndarray, mixes: np.ndarray) -> dict[str, object]:
    """Root mean square in total, and of what is left beside each mix's mean; mean square by mix."""
    by_mix = pd.Series(errors**2).groupby(mixes).mean()
    within = errors - pd.Series(errors).groupby(mixes).transform("mean").to_numpy()
    return {
        "error": math.sqrt(float(by_mix.mean())), "within a mix": float(np.sqrt(np.mean(within**2))), "by mix": by_mix
    }  # fmt: skip


def against(frame: pd.DataFrame) -> dict[str, list[float]]:
    """Mean square error less that of ``AGAINST``, over mixes, with its interval, in units of 1e-4."""
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


def elasticity(law: str, data: Mapping[str, RunData], skill: str, own: Mapping[str, str], config: Config) -> float:
    """D ln N* / d ln share of the skill's own category, the others divided as before, by the law of all runs."""
    if law == NO_MIX:
        return 0.0
    points = data[skill]
    at = points.categories.index(own[skill])
    base = np.array([config.study.mix_values[0].shares.get(name, 0.0) for name in points.categories])
    C = min(config.study.budgets)
    everything = np.ones(len(points), dtype=bool)
    if law == JOINT:
        fit = fit_skills(data, law=LAWS[JOINT], objective=None).fits[skill]
        bound, q = fit.law, fit.q
    else:
        seen = tokens_of(law, points.take(everything), own[skill])
        bound = seen.bind(form(law)).for_skill(skill)
        q = fit_law(seen, law=bound, objective=None, priors=weak_priors(bound, seen)).q
    ends = []
    for step in (-0.05, 0.05):
        share = base[at] * math.exp(step)
        h = base * (1 - share) / (1 - base[at])
        h[at] = share
        theta = bound.theta(q[None])
        counted = C * share if law == NO_TRANSFER else C
        ends.append(float(bound.log_optimum(theta, [counted], h if bound.needs_mix else None)[0, 0]))
    return (ends[1] - ends[0]) / 0.1


def main() -> None:
    """Do what was asked."""
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
