"""Crossings and their intervals, bounded or not, and what validation sets follow."""

import math

import numpy as np
import pandas as pd
import pytest

from skillscale.errors import InputError
from skillscale.laws.crossing import Crossing, Crossover, crossing, crossover_study
from skillscale.laws.likeness import NEITHER, UNRESOLVED, likeness_study
from skillscale.laws.lines import Line
from skillscale.laws.results import Status, StudyFits
from skillscale.laws.simulate import Grid, Noise, Truth, simulate_study
from skillscale.laws.study import fit_study

BUDGET = 1.6e11
COLUMNS = ["code", "knowledge", "stack", "web", "flat"]


def line(level: float, slope: float, sd: tuple[float, float], seed: int = 0) -> Line:
    """A line about 0 from -1 to 1, with independent normal errors."""
    draws = np.array([level, slope]) + np.array(sd) * np.random.default_rng(seed).normal(size=(10000, 2))
    return Line(centre=0.0, level=level, slope=slope, lo=-1.0, hi=1.0, tau=0.0, p_scatter=1.0, draws=draws)


def found(level: float, slope: float, sd: tuple[float, float]) -> Crossover:
    names = {"first": "code", "second": "knowledge", "over": "code", "under": "knowledge", "C": 1.0, "reason": ""}
    return crossing(line(level, slope, sd), names, 0.9)


def fieller(level: float, slope: float, sd: tuple[float, float]) -> tuple[float, float]:
    """Roots of (level + slope x)^2 = z^2 (sd0^2 + sd1^2 x^2)."""
    z = 1.6448536
    roots = np.roots([slope**2 - (z * sd[1]) ** 2, 2 * level * slope, level**2 - (z * sd[0]) ** 2])
    return float(roots.min()), float(roots.max())


def test_the_interval_is_fiellers():
    told = found(0.05, 0.3, (0.02, 0.05))
    assert told.outcome is Crossing.FOUND
    lo, hi = fieller(0.05, 0.3, (0.02, 0.05))
    assert math.log(told.ratio.lo) == pytest.approx(lo, abs=0.02)
    assert math.log(told.ratio.hi) == pytest.approx(hi, abs=0.02)
    assert math.log(told.ratio.value) == pytest.approx(-0.05 / 0.3)


def test_a_slope_that_may_be_zero_leaves_the_interval_open():
    told = found(0.01, 0.05, (0.02, 0.05))
    assert told.outcome is Crossing.UNRESOLVED
    assert (told.ratio.lo, told.ratio.hi) == (0.0, math.inf)
    assert not told.ratio.known


def test_one_side_alone_may_be_bounded():
    told = found(-0.27, 0.3, (0.02, 0.02))
    assert told.outcome is Crossing.UNRESOLVED
    assert 1.0 < told.ratio.lo < told.ratio.value < math.e
    assert told.ratio.hi == math.inf


def test_no_crossing_within_the_ratios_is_told_from_not_resolved():
    told = found(0.5, 0.1, (0.02, 0.02))
    assert told.outcome is Crossing.NONE
    assert all(math.isnan(x) for x in (told.ratio.value, told.ratio.lo, told.ratio.hi))
    assert told.ends[0].lo > 0
    assert told.slope.lo > 0


def ratio_study(slope: float, *, noise: float = 0.003, seeds: int = 2) -> pd.DataFrame:
    rng, parts = np.random.default_rng(5), []
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
            name: Truth.at_optimum(
                N=4e4 * math.exp(off), C=BUDGET, L=3 * share**-0.05, reducible=0.5, alpha=0.4, beta=0.4
            )
            for name, (off, share) in (plan | {"flat": (0, 0.5)}).items()
        }
        grid = Grid(budgets=(BUDGET,), seeds=seeds)
        runs = simulate_study(truths, rng, grid=grid, noise=Noise(run=noise, seed_level=0), mix=f"r{r}")
        parts.append(
            runs.assign(
                run_id=runs["run_id"] + f"r{r}", **{"mix/code": code, "mix/knowledge": 0.8 - code, "mix/other": 0.2}
            )
        )
    return pd.concat(parts, ignore_index=True)


def fit(runs: pd.DataFrame) -> StudyFits:
    return fit_study(runs, skills=COLUMNS, aggregates=[], resamples=300, laws={})


@pytest.fixture(scope="module")
def fits() -> StudyFits:
    return fit(ratio_study(0.2))


def test_a_planted_crossing_is_found(fits):
    study = crossover_study(fits, "code", "knowledge", over="code", under="knowledge")
    single, pooled = study.crossovers
    assert single.outcome is pooled.outcome is Crossing.FOUND
    assert single.ratio.lo < 2 < single.ratio.hi
    assert single.slope.lo < 0.2 < single.slope.hi
    assert len(study.points_table()) == 5
    assert set(study.crossover_table()["outcome"]) == {"they cross"}
    assert {"ratio_lo", "at_least_hi", "most"} <= set(study.crossover_table())
    assert len(study.line_table(steps=4)) == 2 * 4


def test_skills_that_stay_apart_or_together_have_no_crossing_to_tell(fits):
    apart = crossover_study(fit(ratio_study(0.0)), "code", "knowledge", over="code", under="knowledge").crossovers[0]
    assert apart.outcome is Crossing.UNRESOLVED
    few = fits.runs[fits.runs["mix"].isin(["r0.25", "r8.0"])]
    told = crossover_study(fit(few), "code", "knowledge", over="code", under="knowledge").crossovers
    assert [one.status for one in told] == [Status.TOO_FEW_MIXES]


def test_validation_sets_are_told_by_what_they_follow(fits):
    study = likeness_study(fits, COLUMNS[2:], first="knowledge", second="code", over="code", under="knowledge")
    told = {one.column: one for one in study.likenesses if not math.isnan(one.C)}
    assert (told["stack"].like, told["web"].like) == ("code", "knowledge")
    assert told["web"].chance > 0.99
    assert told["stack"].difference.hi < 0
    assert told["flat"].like in (NEITHER, UNRESOLVED)
    assert len(study.profile_table()) == 5 * 5
    assert len(study.likeness_table()) == 3 * 2
    loss = study.profile_table().query("column == 'stack'").sort_values("ratio")["loss"]
    assert loss.is_monotonic_decreasing


def test_noise_resolves_nothing():
    noisy = fit(ratio_study(0.0, noise=0.05, seeds=1))
    study = likeness_study(noisy, ["flat"], first="knowledge", second="code", over="code", under="knowledge")
    assert study.likenesses[-1].like not in ("knowledge", "code")


def test_names_that_are_not_there_are_refused(fits):
    with pytest.raises(InputError, match="prose was not fitted"):
        crossover_study(fits, "code", "prose", over="code", under="knowledge")
    with pytest.raises(InputError, match="no category prose"):
        crossover_study(fits, "code", "knowledge", over="code", under="prose")
    with pytest.raises(InputError, match="prose was not fitted"):
        likeness_study(fits, ["prose"], first="knowledge", second="code", over="code", under="knowledge")
