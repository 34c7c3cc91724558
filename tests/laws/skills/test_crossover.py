"""Crossovers and their intervals, bounded or not, and the skills that validation sets follow."""

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
    crossover = located(0.05, 0.3, (0.02, 0.05))
    assert crossover.outcome is CrossoverOutcome.FOUND
    lo, hi = fieller(0.05, 0.3, (0.02, 0.05))
    assert math.log(crossover.ratio.lo) == pytest.approx(lo, abs=0.02)
    assert math.log(crossover.ratio.hi) == pytest.approx(hi, abs=0.02)
    assert math.log(crossover.ratio.value) == pytest.approx(-0.05 / 0.3)


def test_a_slope_that_may_be_zero_gives_an_unbounded_interval():
    crossover = located(0.01, 0.05, (0.02, 0.05))
    assert crossover.outcome is CrossoverOutcome.UNRESOLVED
    assert (crossover.ratio.lo, crossover.ratio.hi) == (0.0, math.inf)
    assert not crossover.ratio.is_finite


def test_one_side_may_be_bounded():
    crossover = located(-0.27, 0.3, (0.02, 0.02))
    assert crossover.outcome is CrossoverOutcome.UNRESOLVED
    assert 1.0 < crossover.ratio.lo < crossover.ratio.value < math.e
    assert crossover.ratio.hi == math.inf


def test_no_crossover_within_the_ratios_differs_from_not_resolved():
    crossover = located(0.5, 0.1, (0.02, 0.02))
    assert crossover.outcome is CrossoverOutcome.NONE
    assert all(math.isnan(x) for x in (crossover.ratio.value, crossover.ratio.lo, crossover.ratio.hi))
    assert crossover.ends[0].lo > 0
    assert crossover.slope.lo > 0


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


def test_a_planted_crossover_is_located(fits):
    study = crossover_study(fits, "code", "knowledge", over="code", under="knowledge")
    single, pooled = study.crossovers
    assert single.outcome is pooled.outcome is CrossoverOutcome.FOUND
    assert single.ratio.lo < 2 < single.ratio.hi
    assert single.slope.lo < 0.2 < single.slope.hi
    assert len(study.points_table()) == 5
    assert set(study.crossover_table()["outcome"]) == {"they cross"}
    assert {"ratio_lo", "at_least_hi", "most"} <= set(study.crossover_table())
    assert len(study.line_table(steps=4)) == 2 * 4


def test_too_few_mixes_give_no_crossover(fits):
    apart = crossover_study(fit(ratio_study(0.0)), "code", "knowledge", over="code", under="knowledge").crossovers[0]
    assert apart.outcome is CrossoverOutcome.UNRESOLVED
    few = fits.runs[fits.runs["mix"].isin(["r0.25", "r8.0"])]
    crossovers = crossover_study(fit(few), "code", "knowledge", over="code", under="knowledge").crossovers
    assert [crossover.status for crossover in crossovers] == [Status.TOO_FEW_MIXES]


def test_validation_sets_are_similar_to_the_skill_they_follow(fits):
    study = similarity_study(fits, COLUMNS[2:], first="knowledge", second="code", over="code", under="knowledge")
    by_column = {result.column: result for result in study.similarities if not math.isnan(result.C)}
    assert (by_column["stack"].similar_to, by_column["web"].similar_to) == ("code", "knowledge")
    assert by_column["web"].chance > 0.99
    assert by_column["stack"].difference.hi < 0
    assert by_column["flat"].similar_to == UNRESOLVED
    assert "do not exceed the noise" in by_column["flat"].reason
    assert len(study.profile_table()) == 5 * 5
    assert len(study.similarity_table()) == 3 * 2
    loss = study.profile_table().query("column == 'stack'").sort_values("ratio")["loss"]
    assert loss.is_monotonic_decreasing


def similarity_of(size: float, kind: str, rng: np.random.Generator) -> str:
    """Return the result for a column with noise 1 in 13 mixes at two budgets. The skills' noise is a tenth of theirs.

    ``kind``: the column changes by ``size`` as knowledge does, unlike both skills, or partly as both.
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
def test_noise_does_not_make_a_column_similar_to_neither(size, kind, right, least, wrong):
    """Nor to the wrong skill. A column that noise leaves unresolved is reported as such."""
    rng = np.random.default_rng(6)
    answers = [similarity_of(size, kind, rng) for _ in range(60)]
    assert np.mean([answer == right for answer in answers]) >= least
    assert np.mean([answer not in (right, UNRESOLVED) for answer in answers]) <= wrong


def test_followers_in_a_noisy_study_are_never_similar_to_neither():
    """The noise of a loss at an optimum is about as large as the effect of the mix."""
    answers = []
    for seed in range(10):
        noisy = fit(ratio_study(0.0, noise=0.03, seeds=1, seed=seed))
        study = similarity_study(noisy, COLUMNS[2:], first="knowledge", second="code", over="code", under="knowledge")
        answers += [(result.column, result.similar_to) for result in study.similarities if math.isnan(result.C)]
    assert {like for column, like in answers if column == "stack"} <= {"code", UNRESOLVED}
    assert {like for column, like in answers if column == "web"} <= {"knowledge", UNRESOLVED}
    assert sum(like in ("code", "knowledge", NEITHER) for column, like in answers if column == "flat") <= 2
    assert sum(like in ("code", "knowledge") for column, like in answers if column != "flat") >= 2


def test_unknown_names_are_refused(fits):
    with pytest.raises(InputError, match="prose was not fitted"):
        crossover_study(fits, "code", "prose", over="code", under="knowledge")
    with pytest.raises(InputError, match="no category prose"):
        crossover_study(fits, "code", "knowledge", over="code", under="prose")
    with pytest.raises(InputError, match="prose was not fitted"):
        similarity_study(fits, ["prose"], first="knowledge", second="code", over="code", under="knowledge")
