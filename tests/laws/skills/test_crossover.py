"""Crossings and their intervals, bounded or not, and what validation sets follow."""

import math

import numpy as np
import pandas as pd
import pytest
from simulated_studies import Grid, NoiseModel, PlantedLaw, simulate_study

from skillscale.errors import InputError
from skillscale.laws.isoflop.study import fit_study
from skillscale.laws.results import IsoflopMinimum, Status, StudyResults
from skillscale.laws.skills.crossover import Crossover, CrossoverOutcome, crossover_study, locate_crossover
from skillscale.laws.skills.regression import FittedLine
from skillscale.laws.skills.validation_similarity import NEITHER, UNRESOLVED, similarity_study

BUDGET = 1.6e11
COLUMNS = ["code", "knowledge", "stack", "web", "flat"]


def line(level: float, slope: float, sd: tuple[float, float], seed: int = 0) -> FittedLine:
    """A line about 0 from -1 to 1, with independent normal errors."""
    draws = np.array([level, slope]) + np.array(sd) * np.random.default_rng(seed).normal(size=(10000, 2))
    return FittedLine(centre=0.0, level=level, slope=slope, lo=-1.0, hi=1.0, tau=0.0, p_scatter=1.0, draws=draws)


def located(level: float, slope: float, sd: tuple[float, float]) -> Crossover:
    start = Crossover(
        first="code", second="knowledge", over="code", under="knowledge", C=1.0, status=Status.TOO_FEW_MIXES, reason=""
    )
    return locate_crossover(line(level, slope, sd), start, 0.9)


def fieller(level: float, slope: float, sd: tuple[float, float]) -> tuple[float, float]:
    """Roots of (level + slope x)^2 = z^2 (sd0^2 + sd1^2 x^2)."""
    z = 1.6448536
    roots = np.roots([slope**2 - (z * sd[1]) ** 2, 2 * level * slope, level**2 - (z * sd[0]) ** 2])
    return float(roots.min()), float(roots.max())


def test_the_interval_is_fiellers():
    told = located(0.05, 0.3, (0.02, 0.05))
    assert told.outcome is CrossoverOutcome.FOUND
    lo, hi = fieller(0.05, 0.3, (0.02, 0.05))
    assert math.log(told.ratio.lo) == pytest.approx(lo, abs=0.02)
    assert math.log(told.ratio.hi) == pytest.approx(hi, abs=0.02)
    assert math.log(told.ratio.value) == pytest.approx(-0.05 / 0.3)


def test_a_slope_that_may_be_zero_leaves_the_interval_open():
    told = located(0.01, 0.05, (0.02, 0.05))
    assert told.outcome is CrossoverOutcome.UNRESOLVED
    assert (told.ratio.lo, told.ratio.hi) == (0.0, math.inf)
    assert not told.ratio.is_finite


def test_one_side_alone_may_be_bounded():
    told = located(-0.27, 0.3, (0.02, 0.02))
    assert told.outcome is CrossoverOutcome.UNRESOLVED
    assert 1.0 < told.ratio.lo < told.ratio.value < math.e
    assert told.ratio.hi == math.inf


def test_no_crossing_within_the_ratios_is_told_from_not_resolved():
    told = located(0.5, 0.1, (0.02, 0.02))
    assert told.outcome is CrossoverOutcome.NONE
    assert all(math.isnan(x) for x in (told.ratio.value, told.ratio.lo, told.ratio.hi))
    assert told.ends[0].lo > 0
    assert told.slope.lo > 0


def ratio_study(slope: float, *, noise: float = 0.003, seeds: int = 2, seed: int = 5) -> pd.DataFrame:
    rng, parts = np.random.default_rng(seed), []
    for r in (0.25, 0.6, 1.5, 3.5, 8.0):
        code = 0.8 * r / (1 + r)
        gap = slope * math.log(r / 2)
        plan = {
            "code": (gap / 2, code),
            "knowledge": (-gap / 2, 0.8 - code),
            "stack": (0, code),
            "web": (0, 0.8 - code),
        }
        truths = {
            name: PlantedLaw.at_optimum(
                N=4e4 * math.exp(off), C=BUDGET, L=3 * share**-0.05, reducible=0.5, alpha=0.4, beta=0.4
            )
            for name, (off, share) in (plan | {"flat": (0, 0.5)}).items()
        }
        grid = Grid(budgets=(BUDGET,), seeds=seeds)
        runs = simulate_study(truths, rng, grid=grid, noise=NoiseModel(run=noise, seed_level=0), mix=f"r{r}")
        parts.append(
            runs.assign(
                run_id=runs["run_id"] + f"r{r}", **{"mix/code": code, "mix/knowledge": 0.8 - code, "mix/other": 0.2}
            )
        )
    return pd.concat(parts, ignore_index=True)


def fit(runs: pd.DataFrame) -> StudyResults:
    return fit_study(runs, skills=COLUMNS, aggregates=[], resamples=300, laws={})


@pytest.fixture(scope="module")
def fits() -> StudyResults:
    return fit(ratio_study(0.2))


def test_a_planted_crossing_is_found(fits):
    study = crossover_study(fits, "code", "knowledge", over="code", under="knowledge")
    single, pooled = study.crossovers
    assert single.outcome is pooled.outcome is CrossoverOutcome.FOUND
    assert single.ratio.lo < 2 < single.ratio.hi
    assert single.slope.lo < 0.2 < single.slope.hi
    assert len(study.points_table()) == 5
    assert set(study.crossover_table()["outcome"]) == {"they cross"}
    assert {"ratio_lo", "at_least_hi", "most"} <= set(study.crossover_table())
    assert len(study.line_table(steps=4)) == 2 * 4


def test_skills_that_stay_apart_or_together_have_no_crossing_to_tell(fits):
    apart = crossover_study(fit(ratio_study(0.0)), "code", "knowledge", over="code", under="knowledge").crossovers[0]
    assert apart.outcome is CrossoverOutcome.UNRESOLVED
    few = fits.runs[fits.runs["mix"].isin(["r0.25", "r8.0"])]
    told = crossover_study(fit(few), "code", "knowledge", over="code", under="knowledge").crossovers
    assert [one.status for one in told] == [Status.TOO_FEW_MIXES]


def test_validation_sets_are_told_by_what_they_follow(fits):
    study = similarity_study(fits, COLUMNS[2:], first="knowledge", second="code", over="code", under="knowledge")
    told = {one.column: one for one in study.similarities if not math.isnan(one.C)}
    assert (told["stack"].similar_to, told["web"].similar_to) == ("code", "knowledge")
    assert told["web"].chance > 0.99
    assert told["stack"].difference.hi < 0
    assert told["flat"].similar_to == UNRESOLVED
    assert "do not exceed the noise" in told["flat"].reason
    assert len(study.profile_table()) == 5 * 5
    assert len(study.similarity_table()) == 3 * 2
    loss = study.profile_table().query("column == 'stack'").sort_values("ratio")["loss"]
    assert loss.is_monotonic_decreasing


def likeness_of(size: float, kind: str, rng: np.random.Generator) -> str:
    """What a column is told to be like whose noise in 13 mixes at two budgets is 1, the skills' tenth of their scatter.

    ``kind``: it changes as knowledge does, as neither skill does, or in part as each, by ``size``.
    """
    names = [f"m{at:02d}" for at in range(13)]
    skills = np.linalg.qr(np.column_stack([np.ones(13), rng.normal(size=(13, 3))]))[0].T[1:] * math.sqrt(13)
    follows = {"knowledge": skills[0], "neither": skills[2], "both": (skills[0] + skills[1]) / math.sqrt(2)}[kind]
    minima = []
    for C in (1e11, 1e12):
        for name, truth in (("own", size * follows), ("knowledge", 10 * skills[0]), ("code", 10 * skills[1])):
            value = 0.01 * (truth + rng.normal(size=13))
            draws = value + 0.01 * rng.normal(size=(200, 13))
            minima += [
                IsoflopMinimum(
                    mix=mix, skill=name, C=C, status=Status.OK, reason="", n_runs=7, n_sizes=7,
                    loss=math.exp(value[at]), draws=np.column_stack([draws[:, at], draws[:, at]]),
                )
                for at, mix in enumerate(names)
            ]  # fmt: skip
    runs = pd.DataFrame({"mix": names, "mix/code": np.linspace(0.1, 0.9, 13), "mix/knowledge": 0.5})
    fits = StudyResults(
        skills=("own", "knowledge", "code"), aggregates=(), level=0.9, resamples=200, runs=runs, minima=tuple(minima),
        power_laws=(), size_gaps=(), laws=(), curve_versus_law=(), excluded=(),
    )  # fmt: skip
    study = similarity_study(fits, ["own"], first="knowledge", second="code", over="code", under="knowledge")
    return study.similarities[-1].similar_to


@pytest.mark.parametrize(
    ("size", "kind", "right", "least", "wrong"),
    [
        (10, "knowledge", "knowledge", 0.95, 0),
        (1, "knowledge", "knowledge", 0.7, 0),
        (0.4, "knowledge", "knowledge", 0.1, 0.05),
        (4, "neither", NEITHER, 0.9, 0.1),
        (0, "neither", UNRESOLVED, 0.8, 0.2),
        (10, "both", UNRESOLVED, 0.8, 0.2),
    ],
)
def test_noise_makes_no_column_like_neither(size, kind, right, least, wrong):
    """Nor like the wrong skill: what is not resolved for noise is told so, however little is left of a likeness."""
    rng = np.random.default_rng(6)
    told = [likeness_of(size, kind, rng) for _ in range(60)]
    assert np.mean([one == right for one in told]) >= least
    assert np.mean([one not in (right, UNRESOLVED) for one in told]) <= wrong


def test_followers_in_a_noisy_study_are_never_told_to_follow_nothing():
    """The noise of a loss at an optimum is about as large here as what the mix does to it."""
    told = []
    for seed in range(10):
        noisy = fit(ratio_study(0.0, noise=0.03, seeds=1, seed=seed))
        study = similarity_study(noisy, COLUMNS[2:], first="knowledge", second="code", over="code", under="knowledge")
        told += [(one.column, one.similar_to) for one in study.similarities if math.isnan(one.C)]
    assert {like for column, like in told if column == "stack"} <= {"code", UNRESOLVED}
    assert {like for column, like in told if column == "web"} <= {"knowledge", UNRESOLVED}
    assert sum(like in ("code", "knowledge", NEITHER) for column, like in told if column == "flat") <= 2
    assert sum(like in ("code", "knowledge") for column, like in told if column != "flat") >= 2


def test_names_that_are_not_there_are_refused(fits):
    with pytest.raises(InputError, match="prose was not fitted"):
        crossover_study(fits, "code", "prose", over="code", under="knowledge")
    with pytest.raises(InputError, match="no category prose"):
        crossover_study(fits, "code", "knowledge", over="code", under="prose")
    with pytest.raises(InputError, match="prose was not fitted"):
        similarity_study(fits, ["prose"], first="knowledge", second="code", over="code", under="knowledge")
