"""Measure false verdicts on skills, and the power to detect planted differences, on simulated studies.

    python benchmarks/skill_verdicts.py level        equal skills: false verdicts, and composition shifts
    python benchmarks/skill_verdicts.py power        +0.115 and -0.085 in ln N*, on the paper's grid and on ours
    python benchmarks/skill_verdicts.py ablation     coverage of slopes, elasticities and the ratio at equal share
    python benchmarks/skill_verdicts.py ratio        coverage of the crossover, and similarity of validation sets
    python benchmarks/skill_verdicts.py page         the tables in Markdown

Results are in benchmarks/results/skill_verdicts.csv. A cell with at least as many studies is not computed again.
"""

import argparse
import csv
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from simulated_studies import PlantedLaw

from skillscale.laws.isoflop.study import fit_study
from skillscale.laws.results import Interval, Status, StudyResults, Verdict
from skillscale.laws.skills.crossover import CrossoverOutcome, crossover_study
from skillscale.laws.skills.share_effects import share_study
from skillscale.laws.skills.validation_shift import composition_shifts
from skillscale.laws.skills.validation_similarity import similarity_study
from skillscale.laws.skills.verdicts import Confirmation, SkillColumns, confirmed_verdicts

RESULTS = Path(__file__).parent / "results" / "skill_verdicts.csv"
LEVEL, RESAMPLES = 0.9, 200
PLANTED = {"knowledge": 0.115, "code": -0.085}
BASE = {"knowledge": 0.5844, "code": 0.1992, "other": 0.2164}
FACTORS = {"knowledge": (0.2, 1, 2, 3, 4), "code": (0.5, 2, 3, 4, 18), "other": (2, 3, 4)}
ELASTICITY = {"knowledge": 0.137, "code": 0.055}
AT_HALF = 1.13  # N*(knowledge) / N*(code) where both have half of the mix
CROSSING = 2.1
STRENGTH, WEAK = 0.04, 0.04 / 12  # exponents of a validation set's loss in its category's share
UNLIKE = 0.01 * np.array([-1, 0, 1, 1, 0, -1])  # in ln L, at six ratios
Row = dict[str, object]
Hits = dict[str, list[float]]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Budgets in FLOP, their sizes, and N*(C) = ``N`` (C / ``C``)^``a`` of a skill without a planted difference."""

    budgets: tuple[float, ...]
    sizes: tuple[tuple[float, ...], ...]
    N: float
    C: float
    a: float

    @classmethod
    def paper(cls) -> "Sizes":
        """Make the paper's grid: nine budgets, with the 15 to 10 of 20 sizes from 4e7 to 8e9 within 8x of N*."""
        budgets = (6e18, 1e19, 3e19, 6e19, 1e20, 3e20, 6e20, 1e21, 3e21)
        a = math.log(4.9e9 / 2.87e8) / math.log(500)
        all_sizes = np.geomspace(4e7, 8e9, 20)
        sizes = [all_sizes[np.abs(np.log(all_sizes / (2.87e8 * (C / 6e18) ** a))) <= math.log(8)] for C in budgets]
        return cls(budgets=budgets, sizes=tuple(tuple(row) for row in sizes), N=2.87e8, C=6e18, a=a)

    @classmethod
    def ours(cls, budgets: int, *, first: float = 4e10, step: float = 3.0, off: float = 1.3) -> "Sizes":
        """Make a grid of seven sizes over +-8x. The optimum assumed by the grid is ``off`` times the truth."""
        budgets_FLOP = tuple(first * step**k for k in range(budgets))
        N, a = 0.95 * first**0.42, 0.42
        sizes = tuple(tuple(off * N * (C / first) ** a * np.geomspace(1 / 8, 8, 7)) for C in budgets_FLOP)
        return cls(budgets=budgets_FLOP, sizes=sizes, N=N, C=first, a=a)

    def truth(self, gap: float, *, L: float, reducible: float, total: float, k: float = 1.0) -> PlantedLaw:
        """Make a skill whose ln N* is ``gap`` larger at every budget. ``total``: alpha + beta."""
        middle = math.sqrt(self.budgets[0] * self.budgets[-1])
        N = self.N * (middle / self.C) ** self.a * math.exp(gap)
        alpha, beta = (1 - self.a) * total, self.a * total
        return PlantedLaw.at_optimum(N=N, C=middle, L=L, reducible=reducible, alpha=alpha, beta=beta, k=k)


GRIDS: dict[str, Callable[[], Sizes]] = {
    "paper": Sizes.paper, "night": lambda: Sizes.ours(6), "ablation": lambda: Sizes.ours(2, first=1.2e11, step=9.0)
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class StudyNoise:
    """The sizes of the errors of ln L.

    ``run``: sd of a run. All skills share half of its variance. ``across``: share of its variance common to all mixes
    at one size and seed, half of it common to all skills. ``level``, ``tilt``: sd of a seed's effect on all its runs at
    a budget, and per unit of ln(N / middle).
    """

    run: float
    across: float = 0.0
    level: float = 0.0
    tilt: float = 0.0


def simulate(
    truths: Mapping[str, Mapping[str, PlantedLaw]], sizes: Sizes, seeds: int, noise: StudyNoise,
    rng: np.random.Generator, shares: Mapping[str, Mapping[str, float]] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Simulate a study from truths by mix and skill. Sizes and mixes share the seeds of a budget."""
    frames = []
    for place, (C, sizes_at_budget) in enumerate(zip(sizes.budgets, sizes.sizes, strict=True)):
        N, seed = np.tile(np.round(sizes_at_budget), seeds), np.repeat(np.arange(seeds), len(sizes_at_budget))
        x = np.log(N / math.sqrt(sizes_at_budget[0] * sizes_at_budget[-1]))
        level, tilt = rng.normal(size=(2, seeds)) * [[noise.level], [noise.tilt]]
        common = level[seed] + tilt[seed] * x
        names = list(next(iter(truths.values())))
        common_error = halves(rng, len(N), len(names))
        for mix, skill_truths in truths.items():
            error = math.sqrt(noise.across) * common_error + math.sqrt(1 - noise.across) * halves(
                rng, len(N), len(names)
            )
            ids = [f"{mix}-{place}-{i}" for i in range(len(N))]
            frame: dict[str, object] = {"run_id": ids, "C": C, "N": N, "D": C / (6 * N), "mix": mix}
            frame |= {"seed": 1000 * place + seed}
            for name, e in zip(names, error, strict=True):
                frame[name] = skill_truths[name].loss(N, C / (6 * N)) * np.exp(common + noise.run * e)
            frame |= {f"mix/{category}": share for category, share in (shares or {}).get(mix, {}).items()}
            frames.append(pd.DataFrame(frame))
    return pd.concat(frames, ignore_index=True)


def halves(rng: np.random.Generator, n: int, skills: int) -> np.ndarray:
    """Draw standard normals (skills, n) with correlation 0.5 within a run."""
    return (rng.normal(size=(skills, n)) + rng.normal(size=n)) / math.sqrt(2)


def fit(runs: pd.DataFrame, skills: list[str], aggregates: list[str], seed: int) -> StudyResults:
    """Fit the curves only. Laws are not tested here."""
    return fit_study(runs, skills=skills, aggregates=aggregates, level=LEVEL, resamples=RESAMPLES, laws={}, seed=seed)


def skills_of(sizes: Sizes, gaps: Mapping[str, float], shapes: str) -> dict[str, PlantedLaw]:
    """Make truths with given gaps. ``alike``: one curvature. ``differ``: other losses, exponents and partly forms."""
    truths = {}
    for i, (name, gap) in enumerate(gaps.items()):
        if shapes == "alike":
            truths[name] = sizes.truth(gap, L=3.0, reducible=0.5, total=0.75)
        else:
            losses = {"L": 2.0 + 0.5 * (i % 4), "reducible": (0.5, 0.35, 0.6, 0.45)[i % 4]}
            truths[name] = sizes.truth(
                gap, **losses, total=(0.75, 0.9, 0.65, 0.8)[i % 4], k=(1.0, 0.8, 0.7, 0.9)[i % 4]
            )
    return truths


def level(cell: Row, study: int) -> Hits:
    """Test three skills and their held-out splits, all equal to the aggregate."""
    sizes = GRIDS[str(cell["grid"])]()
    names = ["s1", "s2", "s3", "t1", "t2", "t3"]
    truths = skills_of(sizes, dict.fromkeys([*names, "aggregate"], 0.0), str(cell["shapes"]))
    rng = np.random.default_rng([1, study])
    noise = StudyNoise(run=number(cell, "noise"), level=number(cell, "seed level"), tilt=number(cell, "seed tilt"))
    fits = fit(simulate({"m": truths}, sizes, int(number(cell, "seeds")), noise, rng), names, ["aggregate"], study)
    pooled = [result for result in fits.size_gaps if result.pooled]
    single = [result for result in fits.size_gaps if not result.pooled and result.status is Status.OK]
    verdicts = confirmed_verdicts(
        fits, [SkillColumns(skill=s, hypothesis=s, held_out=s.replace("s", "t")) for s in names[:3]]
    )
    hits: Hits = {
        "false verdict": [float(result.verdict is not Verdict.UNRESOLVED) for result in pooled],
        "p below .05": [float(result.p < 0.05) for result in pooled],
        "any of 6, Holm": [float(min(result.p_holm for result in pooled) < 1 - LEVEL)],
        "false and confirmed": [float(result.confirmation is Confirmation.CONFIRMED) for result in verdicts],
        "false at one budget": [float(result.value.excludes_zero) for result in single],
        "minima kept": [float(result.status is Status.OK) for result in fits.minima],
    }
    for result in composition_shifts(fits, names):
        if result.status is Status.OK:
            add(hits, "shift held", float(result.largest.lo <= 0))
            add(hits, "shift, plug-in", result.largest.value)
            add(hits, "shift, bias told", result.bias)
    return hits


def power(cell: Row, study: int) -> Hits:
    """Test knowledge and code with planted differences, and a skill without one."""
    sizes = GRIDS[str(cell["grid"])]()
    gaps = PLANTED | {"neither": 0.0}
    truths = skills_of(sizes, {"aggregate": 0.0} | gaps, str(cell["shapes"]))
    rng = np.random.default_rng([2, study])
    runs = simulate({"m": truths}, sizes, int(number(cell, "seeds")), StudyNoise(run=number(cell, "noise")), rng)
    fits = fit(runs, list(gaps), ["aggregate"], study)
    hits: Hits = {"minima kept": [float(result.status is Status.OK) for result in fits.minima]}
    for result in (result for result in fits.size_gaps if result.pooled):
        expected = {1: Verdict.CAPACITY, -1: Verdict.DATA, 0: Verdict.UNRESOLVED}[int(np.sign(gaps[result.skill]))]
        hits[f"found, {result.skill}"] = [float(result.verdict is expected)]
        add(hits, "wrong sign" if gaps[result.skill] else "false verdict", float(wrong(result.verdict, expected)))
        add(hits, "residual covered", covers(result.value, gaps[result.skill]))
        add(hits, "half width", (result.value.hi - result.value.lo) / 2)
    for result in (result for result in fits.minima if result.status is Status.OK):
        add(hits, "half width, one ln N*", math.log(result.N.hi / result.N.lo) / 2)
    for result in composition_shifts(fits, list(gaps)):
        if result.status is Status.OK:
            present = [gaps[name] for name in result.columns]
            add(hits, "shift covered", covers(result.largest, math.expm1(max(present) - min(present))))
    return hits


def ablation(cell: Row, study: int) -> Hits:
    """Test 13 mixes, with N* of both skills a power of their share. ``wander``: sd of a mix's effect on ln N*."""
    sizes = GRIDS["ablation"]()
    rng = np.random.default_rng([3, study])
    shares = {f"{name} x {k:g}": share(name, k) for name, ks in FACTORS.items() for k in ks}
    truths = {
        mix: {
            skill: sizes.truth(
                by_share(skill, h) + number(cell, "wander") * float(rng.normal()), L=3 * h[skill] ** -0.04,
                reducible=0.5, total=(0.75, 0.85)[i],
            )
            for i, skill in enumerate(PLANTED)
        }
        for mix, h in shares.items()
    }  # fmt: skip
    noise = StudyNoise(
        run=number(cell, "noise"), across=number(cell, "across"), level=0.003, tilt=number(cell, "seed tilt")
    )
    runs = simulate(truths, sizes, int(number(cell, "seeds")), noise, rng, shares)
    fits = fit(runs, list(PLANTED), [], study)
    results = share_study(fits, {skill: skill for skill in PLANTED}, seed=study)
    hits: Hits = {"minima kept": [float(result.status is Status.OK) for result in fits.minima]}
    for result in results.effects:
        kind = "pooled" if math.isnan(result.C) else "budget"
        add(hits, f"elasticity, {kind}", covers(result.elasticity, ELASTICITY[result.skill]))
        add(hits, f"half width, {kind}", (result.elasticity.hi - result.elasticity.lo) / 2)
        if kind == "budget" and result.status is Status.OK:
            add(
                hits,
                "slope",
                covers(result.slope, true_slope(result.skill, result.C, sizes, [shares[m] for m in result.mixes])),
            )
            add(hits, "scatter p below .1", float(result.p_scatter < 0.1))
    for result in results.differences:
        kind = "pooled" if math.isnan(result.C) else "budget"
        gap = ELASTICITY["knowledge"] - ELASTICITY["code"]
        add(hits, f"elasticities' difference, {kind}", covers(result.elasticity, gap))
    for result in results.equal_shares:
        kind = "pooled" if math.isnan(result.C) else "budget"
        true_ratio = math.exp(at_share("knowledge", result.share) - at_share("code", result.share))
        if result.status is Status.OK:
            add(hits, f"ratio at equal share, {kind}", covers(result.ratio, true_ratio))
    return hits


def share(name: str, k: float) -> dict[str, float]:
    """Multiply one category of the base mix and renormalise."""
    raw = BASE | {name: BASE[name] * k}
    return {category: weight / sum(raw.values()) for category, weight in raw.items()}


def at_share(skill: str, x: float) -> float:
    """Return the planted ln N* of a skill, less that of the aggregate, at a share of its category."""
    return (math.log(AT_HALF) if skill == "knowledge" else 0.0) + ELASTICITY[skill] * math.log(x / 0.5)


def by_share(skill: str, h: Mapping[str, float]) -> float:
    """Return the same at a mix."""
    return at_share(skill, h[skill])


def true_slope(skill: str, C: float, sizes: Sizes, mixes: list[Mapping[str, float]]) -> float:
    """Return the slope of the line through the true N* of the mixes, with equal weights."""
    x = np.array([h[skill] for h in mixes])
    N = np.array([sizes.N * (C / sizes.C) ** sizes.a * math.exp(by_share(skill, h)) for h in mixes])
    return float(np.polyfit(x, N, 1)[0])


def ratio(cell: Row, study: int) -> Hits:
    """Test six ratios of code to knowledge, 0.25 to 8. The gap of ln N* grows by ``slope`` per unit of ln ratio.

    Two validation sets follow a skill at full strength, one at a twelfth of that. One is the same in all mixes. One
    changes with the mix unlike both skills, with its maximum at the middle ratios.
    """
    sizes = GRIDS["ablation"]()
    rng = np.random.default_rng([4, study])
    slope, at = number(cell, "slope"), number(cell, "crossing")
    truths, shares = {}, {}
    for place, r in enumerate(np.geomspace(0.25, 8, 6)):
        code = 0.8 * r / (1 + r)
        h = {"code": code, "knowledge": 0.8 - code, "other": 0.2}
        gap, mix = slope * math.log(r / at), f"ratio {r:.3g}"
        shares[mix] = h
        kinds = {"code": (gap / 2, "code"), "knowledge": (-gap / 2, "knowledge"), "like code": (0.1, "code"),
                 "like knowledge": (0.1, "knowledge"), "weakly like code": (0.1, "code"), "flat": (0.1, ""),
                 "unlike": (0.1, "")}  # fmt: skip
        losses = {name: 3 * (h[follows] ** -STRENGTH if follows else 1.05) for name, (_, follows) in kinds.items()}
        losses["weakly like code"] = 3.15 * (h["code"] / 0.4) ** -WEAK
        losses["unlike"] *= math.exp(UNLIKE[place])
        truths[mix] = {
            name: sizes.truth(gap_of_skill, L=losses[name], reducible=0.5, total=0.75)
            for name, (gap_of_skill, _) in kinds.items()
        }
    noise = StudyNoise(run=number(cell, "noise"), across=0.3, level=0.003)
    runs = simulate(truths, sizes, int(number(cell, "seeds")), noise, rng, shares)
    fits = fit(runs, list(next(iter(truths.values()))), [], study)
    hits: Hits = {}
    for result in crossover_study(fits, "code", "knowledge", over="code", under="knowledge", seed=study).crossovers:
        kind = "pooled" if math.isnan(result.C) else "budget"
        if result.status is Status.OK:
            held = result.ratio.lo <= at <= result.ratio.hi or (math.isinf(result.ratio.hi) and at > 8)
            add(hits, f"crossing, {kind}", float(held) if 0.25 <= at <= 8 else math.nan)
            for outcome in CrossoverOutcome:
                add(hits, f"{outcome}, {kind}", float(result.outcome is outcome))
            add(hits, f"slope, {kind}", covers(result.slope, slope))
    columns = ["like code", "like knowledge", "weakly like code", "flat", "unlike"]
    for result in similarity_study(
        fits, columns, first="knowledge", second="code", over="code", under="knowledge"
    ).similarities:
        if math.isnan(result.C):
            for answer in ("code", "knowledge", "neither", "not resolved"):
                add(hits, f"{result.column} told {answer}", float(result.similar_to == answer))
    return hits


def covers(interval: Interval, truth: float) -> float:
    """Return 1 if the interval contains the truth, else 0, or NaN without an interval."""
    return float(interval.lo <= truth <= interval.hi) if interval.is_finite else math.nan


def wrong(verdict: Verdict, expected: Verdict) -> bool:
    """Return whether there is a verdict, and it is wrong."""
    return verdict is not Verdict.UNRESOLVED and verdict is not expected


def add(hits: Hits, name: str, value: float) -> None:
    """Add a value of a quantity."""
    hits.setdefault(name, []).append(value)


def number(cell: Row, name: str) -> float:
    """Return a number of a cell."""
    return float(str(cell[name]))


PARTS: dict[str, Callable[[Row, int], Hits]] = {"level": level, "power": power, "ablation": ablation, "ratio": ratio}


def cells_of(part: str) -> list[Row]:
    """Return the cells of a part of the benchmark, without their number of studies."""
    if part == "level":
        plain = {"grid": "night", "seeds": 3, "noise": 0.003, "seed level": 0.0, "seed tilt": 0.0, "shapes": "alike"}
        return [
            plain | change
            for change in (
                {}, {"seed level": 0.003, "seed tilt": 0.001}, {"shapes": "differ"},
                {"seed level": 0.003, "seed tilt": 0.001, "shapes": "differ"}, {"noise": 0.001, "shapes": "differ"},
                {"noise": 0.01}, {"grid": "paper", "seeds": 1},
            )
        ]  # fmt: skip
    if part == "power":
        return [
            {"grid": grid, "seeds": seeds, "noise": noise, "shapes": "differ"}
            for grid, seeds, noises in (
                ("paper", 1, (0.001, 0.003, 0.01, 0.03)), ("paper", 3, (0.003, 0.01, 0.03)),
                ("night", 3, (0.001, 0.003, 0.01, 0.03)),
            )
            for noise in noises
        ]  # fmt: skip
    if part == "ablation":
        plain = {"seeds": 1, "noise": 0.003, "across": 0.0, "seed tilt": 0.0, "wander": 0.0}
        changes: tuple[Row, ...] = (
            {},
            {"across": 0.5, "seed tilt": 0.001},
            {"wander": 0.05},
            {"seeds": 2, "across": 0.5},
        )
        return [plain | change for change in changes]
    plain = {"seeds": 1, "noise": 0.003, "slope": 0.1, "crossing": CROSSING}
    return [plain | change for change in ({}, {"slope": 0.03}, {"crossing": 30.0})]


def keep(part: str, cells: Iterable[Row], studies: int) -> None:
    """Compute and append the missing cells."""
    RESULTS.parent.mkdir(exist_ok=True)
    done = pd.read_csv(RESULTS, dtype=str).to_dict("records") if RESULTS.exists() else []
    for cell in cells:
        name = "; ".join(f"{key} {value}" for key, value in cell.items())
        if any((row["part"], row["cell"]) == (part, name) and int(row["studies"]) >= studies for row in done):
            continue
        by_study = [PARTS[part](cell, study) for study in range(studies)]
        rows = summary(by_study)
        with RESULTS.open("a", newline="") as file:
            writer = csv.DictWriter(
                file, fieldnames=["part", "cell", "studies", "quantity", "value", "error", "unknown"]
            )
            if file.tell() == 0:
                writer.writeheader()
            writer.writerows({"part": part, "cell": name, "studies": studies} | row for row in rows)
        print(part, name, flush=True)
        print(pd.DataFrame(rows).to_string(index=False), flush=True)


def summary(by_study: list[Hits]) -> list[Row]:
    """Return the mean of each quantity, with its Monte Carlo error over studies."""
    rows: list[Row] = []
    for name in dict.fromkeys(name for hits in by_study for name in hits):
        values = [np.array(hits[name], dtype=float) for hits in by_study if name in hits]
        finite = [hits[~np.isnan(hits)] for hits in values]
        means = np.array([hits.mean() for hits in finite if len(hits)])
        n_lost = sum(len(hits) for hits in values) - sum(len(hits) for hits in finite)
        all_values = np.concatenate(finite)
        cells = {"value": "", "error": ""}
        if len(all_values):
            error = means.std(ddof=1) / math.sqrt(len(means)) if len(means) > 1 else math.nan
            cells = {"value": f"{all_values.mean():.4f}", "error": f"{error:.4f}"}
        rows.append({"quantity": name} | cells | {"unknown": n_lost})
    return rows


def page(part: str) -> str:
    """Format a part's cells as a Markdown table: per cent with error, or the plain number where it is no share."""
    rows = pd.read_csv(RESULTS)
    rows = rows[rows["part"] == part]
    rows = rows[rows["studies"] == rows.groupby("cell")["studies"].transform("max")]
    order = ["; ".join(f"{key} {value}" for key, value in cell.items()) for cell in cells_of(part)]
    cells = {cell: rows_of_cell.set_index("quantity") for cell, rows_of_cell in rows.groupby("cell")}
    labelled = [(chr(ord("A") + index), cell) for index, cell in enumerate(cell for cell in order if cell in cells)]
    planted = [f"- {letter}: {cell} ({cells[cell]['studies'].iloc[0]} studies)" for letter, cell in labelled]
    lines = [["", *(letter for letter, _ in labelled)], ["---"] * (1 + len(labelled))]
    names = dict.fromkeys(rows["quantity"])
    lines += [[name, *(shown(cells[cell], name) for _, cell in labelled)] for name in names]
    return "\n".join([*planted, "", *(f"| {' | '.join(line)} |" for line in lines)])


def shown(cell: pd.DataFrame, name: str) -> str:
    """Format a cell of the table."""
    if name not in cell.index or math.isnan(cell.loc[name, "value"]):
        return ""
    value, error = float(cell.loc[name, "value"]), float(cell.loc[name, "error"])
    if "half width" in name or name.startswith("shift, "):
        return f"{value:.3f}"
    return f"{100 * value:.1f} ({100 * error:.1f})"


def main() -> None:
    """Compute a part or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=(*PARTS, "page"))
    parser.add_argument("--studies", type=int, default=400)
    args = parser.parse_args()
    if args.part == "page":
        print("\n\n".join(f"### {part}\n\n{page(part)}" for part in PARTS if part in set(pd.read_csv(RESULTS)["part"])))
        return
    keep(args.part, cells_of(args.part), args.studies)


if __name__ == "__main__":
    main()
