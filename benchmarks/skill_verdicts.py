"""Are verdicts on skills false no more often than they may be, and how often are planted ones found?

    python benchmarks/skill_verdicts.py level        skills that don't differ: false verdicts, and shifts of composition
    python benchmarks/skill_verdicts.py power        +.115 and -.085 in ln N* planted, on the paper's grid and on ours
    python benchmarks/skill_verdicts.py ablation     coverage of slopes, elasticities and the ratio at equal share
    python benchmarks/skill_verdicts.py ratio        coverage of the crossing, and the telling of validation sets
    python benchmarks/skill_verdicts.py page         the tables in Markdown

Kept in benchmarks/results/skill_verdicts.csv. Resumable: a cell that is there with as many studies is not computed
again.
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
AT_HALF = 1.13  # N*(knowledge) / N*(code) where each has half of the mix
CROSSING = 2.1
STRENGTH, WEAK = 0.04, 0.04 / 12  # powers of its category's share that a validation set's loss goes with
UNLIKE = 0.01 * np.array([-1, 0, 1, 1, 0, -1])  # in ln L, at six ratios
Row = dict[str, object]
Hits = dict[str, list[float]]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Budgets in FLOP, the sizes of each, and N*(C) = ``N`` (C / ``C``)^``a`` of a skill with nothing planted."""

    budgets: tuple[float, ...]
    sizes: tuple[tuple[float, ...], ...]
    N: float
    C: float
    a: float

    @classmethod
    def paper(cls) -> "Sizes":
        """Nine budgets; 20 sizes from 4e7 to 8e9, of which each takes those within 8x of its optimum: 15 to 10."""
        budgets = (6e18, 1e19, 3e19, 6e19, 1e20, 3e20, 6e20, 1e21, 3e21)
        a = math.log(4.9e9 / 2.87e8) / math.log(500)
        every = np.geomspace(4e7, 8e9, 20)
        near = [every[np.abs(np.log(every / (2.87e8 * (C / 6e18) ** a))) <= math.log(8)] for C in budgets]
        return cls(budgets=budgets, sizes=tuple(tuple(one) for one in near), N=2.87e8, C=6e18, a=a)

    @classmethod
    def ours(cls, budgets: int, *, first: float = 4e10, step: float = 3.0, off: float = 1.3) -> "Sizes":
        """Seven sizes over +-8x; what the grid takes for the optimum is ``off`` times the truth."""
        each = tuple(first * step**k for k in range(budgets))
        N, a = 0.95 * first**0.42, 0.42
        sizes = tuple(tuple(off * N * (C / first) ** a * np.geomspace(1 / 8, 8, 7)) for C in each)
        return cls(budgets=each, sizes=sizes, N=N, C=first, a=a)

    def truth(self, gap: float, *, L: float, reducible: float, total: float, k: float = 1.0) -> PlantedLaw:
        """A skill whose ln N* is ``gap`` more at every budget; ``total``: alpha + beta."""
        middle = math.sqrt(self.budgets[0] * self.budgets[-1])
        N = self.N * (middle / self.C) ** self.a * math.exp(gap)
        alpha, beta = (1 - self.a) * total, self.a * total
        return PlantedLaw.at_optimum(N=N, C=middle, L=L, reducible=reducible, alpha=alpha, beta=beta, k=k)


GRIDS: dict[str, Callable[[], Sizes]] = {
    "paper": Sizes.paper, "night": lambda: Sizes.ours(6), "ablation": lambda: Sizes.ours(2, first=1.2e11, step=9.0)
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Luck:
    """Errors of ln L.

    ``run``: sd of a run, half of whose variance is alike in all skills; ``across``: the share of its variance that is
    alike in all mixes at one size and seed, half of it in all skills; ``level``, ``tilt``: sd of what a seed at a
    budget adds to all its runs, and to them per unit of ln(N / middle).
    """

    run: float
    across: float = 0.0
    level: float = 0.0
    tilt: float = 0.0


def simulate(
    truths: Mapping[str, Mapping[str, PlantedLaw]], sizes: Sizes, seeds: int, effect_draws: Luck, rng: np.random.Generator,
    shares: Mapping[str, Mapping[str, float]] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Runs of a study whose sizes and mixes share the seeds of a budget; the truths by mix and skill."""
    frames = []
    for place, (C, each) in enumerate(zip(sizes.budgets, sizes.sizes, strict=True)):
        N, seed = np.tile(np.round(each), seeds), np.repeat(np.arange(seeds), len(each))
        x = np.log(N / math.sqrt(each[0] * each[-1]))
        level, tilt = rng.normal(size=(2, seeds)) * [[effect_draws.level], [effect_draws.tilt]]
        common = level[seed] + tilt[seed] * x
        names = list(next(iter(truths.values())))
        alike = halves(rng, len(N), len(names))
        for mix, own in truths.items():
            error = math.sqrt(effect_draws.across) * alike + math.sqrt(1 - effect_draws.across) * halves(
                rng, len(N), len(names)
            )
            ids = [f"{mix}-{place}-{i}" for i in range(len(N))]
            frame: dict[str, object] = {"run_id": ids, "C": C, "N": N, "D": C / (6 * N), "mix": mix}
            frame |= {"seed": 1000 * place + seed}
            for name, e in zip(names, error, strict=True):
                frame[name] = own[name].loss(N, C / (6 * N)) * np.exp(common + effect_draws.run * e)
            frame |= {f"mix/{category}": share for category, share in (shares or {}).get(mix, {}).items()}
            frames.append(pd.DataFrame(frame))
    return pd.concat(frames, ignore_index=True)


def halves(rng: np.random.Generator, n: int, skills: int) -> np.ndarray:
    """Standard normals (skills, n), those of one run correlated by .5."""
    return (rng.normal(size=(skills, n)) + rng.normal(size=n)) / math.sqrt(2)


def fit(runs: pd.DataFrame, skills: list[str], aggregates: list[str], seed: int) -> StudyResults:
    """The curves alone: laws are no part of what is tested here."""
    return fit_study(runs, skills=skills, aggregates=aggregates, level=LEVEL, resamples=RESAMPLES, laws={}, seed=seed)


def skills_of(sizes: Sizes, gaps: Mapping[str, float], shapes: str) -> dict[str, PlantedLaw]:
    """Truths of given gaps; ``alike``: one curvature, ``differ``: other losses, exponents and, in part, other forms."""
    found = {}
    for i, (name, gap) in enumerate(gaps.items()):
        if shapes == "alike":
            found[name] = sizes.truth(gap, L=3.0, reducible=0.5, total=0.75)
        else:
            at = {"L": 2.0 + 0.5 * (i % 4), "reducible": (0.5, 0.35, 0.6, 0.45)[i % 4]}
            found[name] = sizes.truth(gap, **at, total=(0.75, 0.9, 0.65, 0.8)[i % 4], k=(1.0, 0.8, 0.7, 0.9)[i % 4])
    return found


def level(cell: Row, study: int) -> Hits:
    """Three skills and their held-out splits, none of which differs from the aggregate."""
    sizes = GRIDS[str(cell["grid"])]()
    names = ["s1", "s2", "s3", "t1", "t2", "t3"]
    truths = skills_of(sizes, dict.fromkeys([*names, "aggregate"], 0.0), str(cell["shapes"]))
    rng = np.random.default_rng([1, study])
    effect_draws = Luck(run=number(cell, "noise"), level=number(cell, "seed level"), tilt=number(cell, "seed tilt"))
    fits = fit(
        simulate({"m": truths}, sizes, int(number(cell, "seeds")), effect_draws, rng), names, ["aggregate"], study
    )
    pooled = [one for one in fits.size_gaps if one.pooled]
    single = [one for one in fits.size_gaps if not one.pooled and one.status is Status.OK]
    told = confirmed_verdicts(
        fits, [SkillColumns(skill=s, hypothesis=s, held_out=s.replace("s", "t")) for s in names[:3]]
    )
    found: Hits = {
        "false verdict": [float(one.verdict is not Verdict.UNRESOLVED) for one in pooled],
        "p below .05": [float(one.p < 0.05) for one in pooled],
        "any of 6, Holm": [float(min(one.p_holm for one in pooled) < 1 - LEVEL)],
        "false and confirmed": [float(one.confirmation is Confirmation.CONFIRMED) for one in told],
        "false at one budget": [float(one.value.excludes_zero) for one in single],
        "minima kept": [float(one.status is Status.OK) for one in fits.minima],
    }
    for one in composition_shifts(fits, names):
        if one.status is Status.OK:
            note(found, "shift held", float(one.largest.lo <= 0))
            note(found, "shift, plug-in", one.largest.value)
            note(found, "shift, bias told", one.bias)
    return found


def power(cell: Row, study: int) -> Hits:
    """Knowledge and code as planted, and a skill that does not differ."""
    sizes = GRIDS[str(cell["grid"])]()
    gaps = PLANTED | {"neither": 0.0}
    truths = skills_of(sizes, {"aggregate": 0.0} | gaps, str(cell["shapes"]))
    rng = np.random.default_rng([2, study])
    runs = simulate({"m": truths}, sizes, int(number(cell, "seeds")), Luck(run=number(cell, "noise")), rng)
    fits = fit(runs, list(gaps), ["aggregate"], study)
    found: Hits = {"minima kept": [float(one.status is Status.OK) for one in fits.minima]}
    for one in (one for one in fits.size_gaps if one.pooled):
        right = {1: Verdict.CAPACITY, -1: Verdict.DATA, 0: Verdict.UNRESOLVED}[int(np.sign(gaps[one.skill]))]
        found[f"found, {one.skill}"] = [float(one.verdict is right)]
        note(found, "wrong sign" if gaps[one.skill] else "false verdict", float(wrong(one.verdict, right)))
        note(found, "residual covered", covers(one.value, gaps[one.skill]))
        note(found, "half width", (one.value.hi - one.value.lo) / 2)
    for one in (one for one in fits.minima if one.status is Status.OK):
        note(found, "half width, one ln N*", math.log(one.N.hi / one.N.lo) / 2)
    for one in composition_shifts(fits, list(gaps)):
        if one.status is Status.OK:
            there = [gaps[name] for name in one.columns]
            note(found, "shift covered", covers(one.largest, math.expm1(max(there) - min(there))))
    return found


def ablation(cell: Row, study: int) -> Hits:
    """13 mixes, N* of both skills as powers of their shares; ``wander``: sd of ln N* that a mix adds to the power."""
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
    effect_draws = Luck(
        run=number(cell, "noise"), across=number(cell, "across"), level=0.003, tilt=number(cell, "seed tilt")
    )
    runs = simulate(truths, sizes, int(number(cell, "seeds")), effect_draws, rng, shares)
    fits = fit(runs, list(PLANTED), [], study)
    told = share_study(fits, {skill: skill for skill in PLANTED}, seed=study)
    found: Hits = {"minima kept": [float(one.status is Status.OK) for one in fits.minima]}
    for one in told.effects:
        kind = "pooled" if math.isnan(one.C) else "budget"
        note(found, f"elasticity, {kind}", covers(one.elasticity, ELASTICITY[one.skill]))
        note(found, f"half width, {kind}", (one.elasticity.hi - one.elasticity.lo) / 2)
        if kind == "budget" and one.status is Status.OK:
            note(found, "slope", covers(one.slope, true_slope(one.skill, one.C, sizes, [shares[m] for m in one.mixes])))
            note(found, "scatter p below .1", float(one.p_scatter < 0.1))
    for one in told.differences:
        kind = "pooled" if math.isnan(one.C) else "budget"
        gap = ELASTICITY["knowledge"] - ELASTICITY["code"]
        note(found, f"elasticities' difference, {kind}", covers(one.elasticity, gap))
    for one in told.equal_shares:
        kind = "pooled" if math.isnan(one.C) else "budget"
        right = math.exp(at_share("knowledge", one.share) - at_share("code", one.share))
        if one.status is Status.OK:
            note(found, f"ratio at equal share, {kind}", covers(one.ratio, right))
    return found


def share(name: str, k: float) -> dict[str, float]:
    """The base mix with one category multiplied, renormalised."""
    raw = BASE | {name: BASE[name] * k}
    return {category: weight / sum(raw.values()) for category, weight in raw.items()}


def at_share(skill: str, x: float) -> float:
    """Planted ln N* of a skill over that of the aggregate, at a share of its own category."""
    return (math.log(AT_HALF) if skill == "knowledge" else 0.0) + ELASTICITY[skill] * math.log(x / 0.5)


def by_share(skill: str, h: Mapping[str, float]) -> float:
    """Of a mix."""
    return at_share(skill, h[skill])


def true_slope(skill: str, C: float, sizes: Sizes, mixes: list[Mapping[str, float]]) -> float:
    """Slope of the straight line through the true N* of the mixes, all weighed alike."""
    x = np.array([h[skill] for h in mixes])
    N = np.array([sizes.N * (C / sizes.C) ** sizes.a * math.exp(by_share(skill, h)) for h in mixes])
    return float(np.polyfit(x, N, 1)[0])


def ratio(cell: Row, study: int) -> Hits:
    """Six ratios of code to knowledge, .25 to 8; ln N* of the two go apart by ``slope`` a unit of ln ratio.

    Of the validation sets two follow a skill as strongly as it changes itself, one by a twelfth of that, one is the
    same in all mixes, and one changes with the mix as neither does, highest in the middle of the ratios.
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
        losses = {name: 3 * (h[own] ** -STRENGTH if own else 1.05) for name, (_, own) in kinds.items()}
        losses["weakly like code"] = 3.15 * (h["code"] / 0.4) ** -WEAK
        losses["unlike"] *= math.exp(UNLIKE[place])
        truths[mix] = {
            name: sizes.truth(off, L=losses[name], reducible=0.5, total=0.75) for name, (off, _) in kinds.items()
        }
    effect_draws = Luck(run=number(cell, "noise"), across=0.3, level=0.003)
    runs = simulate(truths, sizes, int(number(cell, "seeds")), effect_draws, rng, shares)
    fits = fit(runs, list(next(iter(truths.values()))), [], study)
    found: Hits = {}
    for one in crossover_study(fits, "code", "knowledge", over="code", under="knowledge", seed=study).crossovers:
        kind = "pooled" if math.isnan(one.C) else "budget"
        if one.status is Status.OK:
            held = one.ratio.lo <= at <= one.ratio.hi or (math.isinf(one.ratio.hi) and at > 8)
            note(found, f"crossing, {kind}", float(held) if 0.25 <= at <= 8 else math.nan)
            for outcome in CrossoverOutcome:
                note(found, f"{outcome}, {kind}", float(one.outcome is outcome))
            note(found, f"slope, {kind}", covers(one.slope, slope))
    columns = ["like code", "like knowledge", "weakly like code", "flat", "unlike"]
    for one in similarity_study(
        fits, columns, first="knowledge", second="code", over="code", under="knowledge"
    ).similarities:
        if math.isnan(one.C):
            for answer in ("code", "knowledge", "neither", "not resolved"):
                note(found, f"{one.column} told {answer}", float(one.similar_to == answer))
    return found


def covers(found: Interval, right: float) -> float:
    """1 or 0; NaN where there is no interval."""
    return float(found.lo <= right <= found.hi) if found.is_finite else math.nan


def wrong(verdict: Verdict, right: Verdict) -> bool:
    """A verdict that is there and is not the right one."""
    return verdict is not Verdict.UNRESOLVED and verdict is not right


def note(found: Hits, name: str, value: float) -> None:
    """One more value of a quantity."""
    found.setdefault(name, []).append(value)


def number(cell: Row, name: str) -> float:
    """A number of a cell."""
    return float(str(cell[name]))


PARTS: dict[str, Callable[[Row, int], Hits]] = {"level": level, "power": power, "ablation": ablation, "ratio": ratio}


def cells_of(part: str) -> list[Row]:
    """The cells of a part of the benchmark, without their number of studies."""
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
    """Compute the cells that the table lacks, and append them."""
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
    """Mean of each quantity, with the Monte Carlo error of studies, whose own values go together."""
    rows: list[Row] = []
    for name in dict.fromkeys(name for one in by_study for name in one):
        values = [np.array(one[name], dtype=float) for one in by_study if name in one]
        known = [one[~np.isnan(one)] for one in values]
        means = np.array([one.mean() for one in known if len(one)])
        lost = sum(len(one) for one in values) - sum(len(one) for one in known)
        whole = np.concatenate(known)
        told = {"value": "", "error": ""}
        if len(whole):
            error = means.std(ddof=1) / math.sqrt(len(means)) if len(means) > 1 else math.nan
            told = {"value": f"{whole.mean():.4f}", "error": f"{error:.4f}"}
        rows.append({"quantity": name} | told | {"unknown": lost})
    return rows


def page(part: str) -> str:
    """A part's cells as a table in Markdown: per cent with its error, or the number itself where it is no share."""
    rows = pd.read_csv(RESULTS)
    rows = rows[rows["part"] == part]
    rows = rows[rows["studies"] == rows.groupby("cell")["studies"].transform("max")]
    order = ["; ".join(f"{key} {value}" for key, value in cell.items()) for cell in cells_of(part)]
    cells = {cell: own.set_index("quantity") for cell, own in rows.groupby("cell")}
    there = [(chr(ord("A") + at), cell) for at, cell in enumerate(cell for cell in order if cell in cells)]
    planted = [f"- {letter}: {cell} ({cells[cell]['studies'].iloc[0]} studies)" for letter, cell in there]
    lines = [["", *(letter for letter, _ in there)], ["---"] * (1 + len(there))]
    names = dict.fromkeys(rows["quantity"])
    lines += [[name, *(shown(cells[cell], name) for _, cell in there)] for name in names]
    return "\n".join([*planted, "", *(f"| {' | '.join(line)} |" for line in lines)])


def shown(told: pd.DataFrame, name: str) -> str:
    """A cell of the table."""
    if name not in told.index or math.isnan(told.loc[name, "value"]):
        return ""
    value, error = float(told.loc[name, "value"]), float(told.loc[name, "error"])
    if "half width" in name or name.startswith("shift, "):
        return f"{value:.3f}"
    return f"{100 * value:.1f} ({100 * error:.1f})"


def main() -> None:
    """Compute a part, or print the tables."""
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
