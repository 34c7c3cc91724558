"""N* against shares: planted elasticities, equal shares, extrapolations and excluded mixes."""

import math

import numpy as np
import pandas as pd
import pytest
from simulated_studies import Grid, NoiseModel, PlantedLaw, simulate_study

from skillscale.errors import InputError
from skillscale.laws.isoflop.study import fit_study
from skillscale.laws.results import Status, StudyResults
from skillscale.laws.skills.crossover import CrossoverOutcome, crossover_study
from skillscale.laws.skills.regression import MixEffectDraws, MixOptima, fit_line
from skillscale.laws.skills.share_effects import share_study

BUDGETS = (1.2e11, 1.08e12)
ELASTICITY = {"knowledge": 0.30, "code": 0.10}
SHARES = (0.1, 0.2, 0.35, 0.5, 0.65)  # of knowledge; code has half of the rest


def ablation(
    rng: np.random.Generator, *, noise: float = 0.003, shares: tuple[float, ...] = SHARES
) -> pd.DataFrame:  # fmt: skip
    parts = []
    for share in shares:
        h = {"knowledge": share, "code": (1 - share) / 2, "prose": (1 - share) / 2}
        truths = {
            skill: PlantedLaw.at_optimum(
                N=3.6e4 * math.exp(a * math.log(h[skill] / 0.5)), C=BUDGETS[0], L=3, reducible=0.5, alpha=0.4, beta=0.4
            )
            for skill, a in ELASTICITY.items()
        }
        noisy = NoiseModel(run=noise, seed_level=0)
        runs = simulate_study(truths, rng, grid=Grid(budgets=BUDGETS, seeds=1), noise=noisy, mix=f"k{share}")
        parts.append(runs.assign(run_id=runs["run_id"] + f"k{share}", **{f"mix/{name}": x for name, x in h.items()}))
    return pd.concat(parts, ignore_index=True)


def fit(runs: pd.DataFrame) -> StudyResults:
    return fit_study(runs, skills=["knowledge", "code"], aggregates=[], resamples=300, laws={})


@pytest.fixture(scope="module")
def fits() -> StudyResults:
    return fit(ablation(np.random.default_rng(0)))


def test_planted_elasticities_are_found(fits):
    study = share_study(fits, {"knowledge": "knowledge", "code": "code"})
    pooled = {result.skill: result for result in study.effects if math.isnan(result.C)}
    for skill, right in ELASTICITY.items():
        elasticity = pooled[skill].elasticity
        assert elasticity.lo < right < elasticity.hi
        assert elasticity.hi - elasticity.lo < 0.2
        assert not pooled[skill].slope.is_finite
    assert pooled["knowledge"].elasticity.excludes_zero
    assert pooled["knowledge"].p < 0.05
    (difference,) = (result for result in study.differences if math.isnan(result.C))
    assert difference.elasticity.lo < 0.2 < difference.elasticity.hi


def test_a_slope_is_in_parameters_per_unit_share(fits):
    study = share_study(fits, {"knowledge": "knowledge"})
    small, large = (result for result in study.effects if not math.isnan(result.C))
    points = study.points_table().query("C == @small.C")
    assert small.slope.value == pytest.approx(np.polyfit(points["share"], points["N"], 1)[0], rel=0.1)
    # N* triples from budget to budget, and so does its slope
    assert large.slope.value / small.slope.value == pytest.approx(3, rel=0.3)


def test_skills_are_compared_at_equal_share_and_not_beyond_their_mixes(fits):
    study = share_study(fits, {"knowledge": "knowledge", "code": "code"}, at=(0.2, 0.4, 0.6))
    by_share = {result.share: result for result in study.equal_shares if math.isnan(result.C)}
    for share in (0.2, 0.4):
        right = math.exp((ELASTICITY["knowledge"] - ELASTICITY["code"]) * math.log(share / 0.5))
        assert by_share[share].ratio.lo < right < by_share[share].ratio.hi
    assert by_share[0.6].status is Status.BEYOND
    assert not by_share[0.6].ratio.is_finite
    assert "code has mixes of share 0.175 to 0.45" in by_share[0.6].reason


def test_a_line_is_weighted_least_squares():
    rng = np.random.default_rng(1)
    x, sd = np.array([-1.0, 0.0, 1.0, 2.0]), np.array([0.01, 0.02, 0.01, 0.04])
    y = np.array([0.0, 0.105, 0.195, 0.31])
    optima = MixOptima(column="s", C=1.0, mixes=tuple("abcd"), value=y, draws=y + sd * rng.normal(size=(20000, 4)))
    line = fit_line(optima, x, MixEffectDraws.draw(tuple("abcd"), 20000, rng))
    slope, level = np.polyfit(x, y, 1, w=1 / sd)
    assert line.tau == 0
    assert line.slope == pytest.approx(slope, rel=0.02)
    assert line.at(0.0) == pytest.approx(level, abs=0.001)
    expected = math.sqrt(np.linalg.inv(np.array([[1, 1, 1, 1], x]) / sd**2 @ np.array([[1, 1, 1, 1], x]).T)[1, 1])
    assert line.draws[:, 1].std() == pytest.approx(expected, rel=0.03)


def test_scatter_beyond_noise_widens_the_line():
    rng = np.random.default_rng(2)
    names = tuple("abcdefgh")
    x = np.linspace(-1, 1, 8)
    y = 0.1 * np.array([1, -1, 1, -1, 1, -1, 1, -1.0])
    optima = MixOptima(column="s", C=1.0, mixes=names, value=y, draws=y + 0.01 * rng.normal(size=(2000, 8)))
    line = fit_line(optima, x, MixEffectDraws.draw(names, 2000, rng))
    assert line.p_scatter < 0.001
    assert line.tau == pytest.approx(0.1 * math.sqrt(8 / 6), rel=0.05)
    assert line.draws[:, 1].std() > 5 * 0.01 / math.sqrt((x**2).sum())


def test_errors_common_to_all_mixes_are_resampled_together():
    """The same errors in every mix, on runs of the same sizes and seed, compared with different errors."""
    rng = np.random.default_rng(3)
    runs = ablation(rng, noise=0.0)
    effect_draws = np.tile(0.002 * rng.normal(size=14), len(SHARES))
    together = []
    for order in (effect_draws, rng.permutation(effect_draws)):
        fits = fit(runs.assign(**{skill: runs[skill] * np.exp(order) for skill in ELASTICITY}))
        draws = MixOptima.of(fits, "knowledge", BUDGETS[0]).draws
        together.append(np.corrcoef(draws.T)[np.triu_indices(len(SHARES), 1)].mean())
    assert together[0] > 0.5 > 0.3 > abs(together[1])


def test_a_mix_with_a_refused_minimum_is_reported_as_excluded(fits):
    runs = ablation(np.random.default_rng(0))
    low = (runs["mix"] == "k0.2") & (runs["N"] > np.sqrt(runs["C"]) * 0.1)
    effects = share_study(fit(runs[~low]), {"knowledge": "knowledge"}).effects
    assert effects[0].mixes == ("k0.1", "k0.35", "k0.5", "k0.65")
    assert "without k0.2 (not bracketed" in effects[0].reason or "without k0.2 (too few" in effects[0].reason


def test_means_over_budgets_list_excluded_mixes():
    runs = ablation(np.random.default_rng(0))
    small, large = runs["C"] == BUDGETS[0], runs["N"] > np.sqrt(runs["C"]) * 0.1
    runs = runs[~(large & ((runs["mix"] == "k0.2") | (small & (runs["mix"] == "k0.65"))))]
    cut = fit(runs)
    expected = "without k0.2 at 2 of 2, k0.65 at 1 of 2"
    *_, pooled = share_study(cut, {"knowledge": "knowledge"}).effects
    assert pooled.status is Status.OK
    assert pooled.reason.startswith("mean over 2 of 2 budgets; ")
    assert pooled.reason.endswith(expected)
    *_, over_all = crossover_study(cut, "code", "knowledge", over="code", under="knowledge").crossovers
    assert over_all.reason == f"mean over 2 of 2 budgets; {expected}"
    *_, none = share_study(fit(runs[runs["mix"].isin(["k0.1", "k0.2", "k0.5"])]), {"code": "code"}).effects
    assert none.reason.endswith("without k0.2 at 2 of 2")


def test_two_skills_are_averaged_over_the_same_budgets(fits):
    """N* triples from budget to budget: over other budgets than code's knowledge's would be 1.7 times too large."""
    runs = ablation(np.random.default_rng(0))
    lost = (runs["C"] == BUDGETS[0]) & (runs["N"] > np.sqrt(runs["C"]) * 0.1)
    cut = fit(runs.assign(knowledge=runs["knowledge"].where(~lost)))
    study = share_study(cut, {"knowledge": "knowledge", "code": "code"}, at=(0.2, 0.4))
    for share in (0.2, 0.4):
        small, large, pooled = (result for result in study.equal_shares if result.share == share)
        right = math.exp((ELASTICITY["knowledge"] - ELASTICITY["code"]) * math.log(share / 0.5))
        assert small.status is Status.TOO_FEW_MIXES
        assert "knowledge: no line" in small.reason
        assert pooled.ratio.lo < right < pooled.ratio.hi
        assert pooled.ratio == large.ratio
        assert (pooled.status, pooled.reason) == (Status.OK, "mean over 1 of 2 budgets")
    _, large, pooled = study.differences
    assert (pooled.elasticity, pooled.reason) == (large.elasticity, "mean over 1 of 2 budgets")
    means = {result.skill: result.reason for result in study.effects if math.isnan(result.C)}
    assert means["knowledge"].startswith("mean over 1 of 2 budgets")
    assert means["code"].startswith("mean over 2 of 2 budgets")


def test_budgets_without_common_shares_have_no_mean():
    runs = ablation(np.random.default_rng(0), shares=(0.1, 0.15, 0.2, 0.5, 0.6, 0.7))
    low = runs["mix/knowledge"] < 0.3
    cut = fit(runs[low == (runs["C"] == BUDGETS[0])])
    study = share_study(cut, {"knowledge": "knowledge", "code": "code"}, at=(0.3,))
    for result in (*study.effects, *study.differences):
        assert result.status is (Status.BEYOND if math.isnan(result.C) else Status.OK)
        assert result.elasticity.is_finite is not math.isnan(result.C)
    for result in (study.effects[-1], study.differences[-1], study.equal_shares[-1]):
        assert result.status is Status.BEYOND
        assert "no common range" in result.reason
    assert not study.equal_shares[-1].ratio.is_finite
    *single, over_all = crossover_study(cut, "code", "knowledge", over="code", under="knowledge").crossovers
    assert {result.status for result in single} == {Status.OK}
    assert over_all.status is Status.BEYOND
    assert over_all.outcome is CrossoverOutcome.UNRESOLVED
    assert "no common range" in over_all.reason
    assert not over_all.ratio.is_finite


def test_elasticities_of_several_skills_are_corrected_for_their_number(fits):
    study = share_study(fits, {"knowledge": "knowledge", "code": "code"})
    pooled = {result.skill: result for result in study.effects if math.isnan(result.C)}
    first, second = sorted(pooled.values(), key=lambda result: result.p)
    assert first.p_holm == pytest.approx(2 * first.p)
    assert second.p_holm == pytest.approx(max(2 * first.p, second.p))
    assert all(math.isnan(result.p_holm) for result in study.effects if not math.isnan(result.C))
    (alone,) = (result for result in share_study(fits, {"code": "code"}).effects if math.isnan(result.C))
    assert alone.p_holm == alone.p
    assert study.effect_table()["p_holm"].notna().sum() == 2


def test_two_mixes_make_no_line(fits):
    runs = ablation(np.random.default_rng(0))
    study = share_study(fit(runs[runs["mix"].isin(["k0.1", "k0.5"])]), {"knowledge": "knowledge", "code": "code"})
    assert {result.status for result in study.effects} == {Status.TOO_FEW_MIXES}
    assert {result.status for result in study.equal_shares} == {Status.TOO_FEW_MIXES}
    assert "2 distinct shares of knowledge" in study.effects[0].reason


def test_tables_have_what_the_page_needs(fits):
    study = share_study(fits, {"knowledge": "knowledge", "code": "code"})
    assert len(study.effect_table()) == 2 * 3
    assert len(study.equal_share_table()) == 3 * 3
    assert len(study.difference_table()) == 3
    assert len(study.points_table()) == 2 * 2 * len(SHARES)
    lines = study.line_table(steps=5)
    assert len(lines) == 2 * 2 * 5
    assert (lines["N_lo"] < lines["N"]).all()


def test_unknown_names_are_refused(fits):
    with pytest.raises(InputError, match="prose was not fitted"):
        share_study(fits, {"prose": "prose"})
    with pytest.raises(InputError, match="no category maths"):
        share_study(fits, {"code": "maths"})
    with pytest.raises(InputError, match="no category for the pair column knowledge"):
        share_study(fits, {"code": "code"}, pairs=[("code", "knowledge")])
