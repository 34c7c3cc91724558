"""The choice of law by held-out larger runs, on planted ones: family, mix effects, intervals, what is dropped."""

import json
from dataclasses import replace

import numpy as np
import pytest
from planted_laws import CATEGORIES

from skillscale.errors import FitError
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.request import FitRequest
from skillscale.laws.fit.skill_law import FittedLaw
from skillscale.laws.forms.catalogue import CHINCHILLA, LAWS
from skillscale.laws.io.document import law_document, read_document
from skillscale.laws.selection.backtest import backtest
from skillscale.laws.selection.extrapolation import PredictionSetting, extrapolate, mix_effects
from skillscale.laws.selection.holdout import (
    Cutoff,
    checkpoint_weights,
    has_checkpoints,
    inner_cutoffs,
    mix_codes,
    run_shares,
)
from skillscale.laws.selection.selected import fit_selected
from skillscale.laws.selection.selection import candidate_settings, ineligible_reason, select_law
from skillscale.report.laws import law_text, laws_as_dict, optima_frame

SIZES = np.geomspace(1e8, 1.6e9, 5)
THETAS = {"code": [0.9, 250.0, 900.0, 0.38, 0.36], "prose": [1.8, 480.0, 2100.0, 0.35, 0.37]}


def of_N_and_D(seed=0, noise=0.003, sizes=SIZES) -> dict[str, RunData]:
    """Five sizes, each on six numbers of tokens per parameter."""
    N = np.repeat(sizes, 6)
    D = N * np.tile(np.geomspace(5, 160, 6), len(sizes))
    rng = np.random.default_rng(seed)
    return {
        name: RunData(N=N, D=D, L=CHINCHILLA.loss(theta, N, D) * np.exp(noise * rng.normal(size=len(N))))
        for name, theta in THETAS.items()
    }


def of_mixes(seed=0, n_mixes=24, effect=0.0, noise=0.002, checkpoints=6, transient=False) -> dict[str, RunData]:
    """Every mix at four sizes, with checkpoints; a mix adds the same to ln L at each."""
    rng = np.random.default_rng(seed)
    h = rng.dirichlet(np.ones(3) * 2, n_mixes)
    sizes = SIZES[:4]
    run = np.arange(n_mixes * len(sizes))
    N, mix = np.repeat(sizes, n_mixes), np.tile(np.arange(n_mixes), len(sizes))
    shares = np.linspace(0.1, 1.0, checkpoints) if checkpoints > 1 else np.ones(1)
    D = np.outer(40 * N**0.7 * 1e8**0.3, shares)
    rows = np.repeat(run, checkpoints)
    law = LAWS["separable_transient" if transient else "separable"].bind(np.log(3e8), np.log(8e9), CATEGORIES)
    theta = [1.6, 0.5, 0.6, 0.4, 0.37, 0.0, 0.3, -0.2, -0.1, 0.1, *([1.0, 8.0, 0.1] if transient else [])]
    law = law.for_skill("code")
    L = law.loss(np.array(theta), N[rows], D.ravel(), h[mix[rows]])
    offsets = effect * rng.normal(size=n_mixes)
    L = L * np.exp(offsets[mix[rows]] + noise * rng.normal(size=len(run))[rows] + 1e-4 * rng.normal(size=len(rows)))
    return {"code": RunData(N=N[rows], D=D.ravel(), L=L, h=h[mix[rows]], categories=CATEGORIES, clusters=rows)}


def halves(data, max_N):
    low = {name: Cutoff(letter="N", value=max_N).includes(points) for name, points in data.items()}
    return [{name: data[name].take(low[name] == below) for name in data} for below in (True, False)]


def test_without_a_mix_the_plain_laws_compete_and_the_planted_one_predicts_to_the_noise():
    low, high = halves(of_N_and_D(), 9e8)
    choice, results = backtest(low, high, letter="N")
    assert choice.chosen.setting.law.name == "chinchilla"
    assert {candidate.setting.law.name for candidate in choice.candidates} == {"chinchilla", "coupled", "drifting"}
    assert max(item.score.mean_relative_error for item in results.values()) < 0.01
    assert list(choice.table()["chosen"]).count(True) == 1


def test_with_a_varying_mix_a_law_of_the_mix_is_chosen():
    low, high = halves(of_mixes(checkpoints=1), 5e8)
    choice, results = backtest(low, high, letter="N")
    assert choice.chosen.setting.law.name == "separable"
    assert results["code"].score.mean_relative_error < 0.006


def test_early_checkpoints_off_the_curve_call_for_a_law_that_knows_them():
    low, high = halves(of_mixes(n_mixes=16, transient=True), 5e8)
    choice, results = backtest(low, high, letter="N", laws=("separable", "separable_transient"))
    assert choice.chosen.setting.law.name == "separable_transient"
    assert results["code"].last.n == 16
    assert results["code"].n_predicted == 16 * 6


def test_what_a_mix_adds_is_told_from_smaller_runs_and_lowers_the_error():
    low, high = halves(of_mixes(effect=0.02, checkpoints=1), 5e8)
    _, results = backtest(low, high, letter="N", laws=("separable",))
    plain = extrapolate(low, PredictionSetting(law=LAWS["separable"]), Cutoff(letter="N", value=5e8))["code"]
    error = np.abs(np.expm1(plain.log_loss(high["code"]) - high["code"].log_L)).mean()
    assert "mix effects" in results["code"].setting
    assert results["code"].score.mean_relative_error < 0.5 * error


def test_effects_are_shrunk_towards_none_where_they_do_not_recur():
    points = of_mixes(checkpoints=1)["code"]
    rng = np.random.default_rng(3)
    codes = mix_codes(points)
    planted = 0.02 * rng.normal(size=codes.max() + 1)
    results = mix_effects(points, planted[codes] + 0.002 * rng.normal(size=len(points)))
    np.testing.assert_allclose(results, planted - planted.mean(), atol=0.004)
    chance = mix_effects(points, 0.02 * rng.normal(size=len(points)))
    assert not len(chance) or np.abs(chance).max() < 0.02


@pytest.mark.parametrize("kind", ["plain", "mixes"])
def test_intervals_of_new_runs_cover_planted_larger_ones(kind):
    within, n = 0.0, 0
    for seed in range(6):
        data = of_N_and_D(seed) if kind == "plain" else of_mixes(seed, effect=0.005, checkpoints=1)
        low, high = halves(data, 9e8 if kind == "plain" else 5e8)
        _, results = backtest(low, high, letter="N", laws=("chinchilla",) if kind == "plain" else ("separable",))
        within += sum(item.score.coverage * item.n_predicted for item in results.values())
        n += sum(item.n_predicted for item in results.values())
    assert 0.85 < within / n < 0.99


def test_the_average_has_intervals_and_optima_of_its_own():
    low, high = halves(of_N_and_D(), 9e8)
    outlook = select_law(low).fit_all(low)["code"]
    assert len(outlook.members) > 1
    assert outlook.weights.sum() == pytest.approx(1)
    lo, hi = outlook.mean_interval(high["code"], 0.9)
    assert np.all((lo < outlook.mean_log_loss(high["code"])) & (outlook.mean_log_loss(high["code"]) < hi))
    truth = CHINCHILLA.log_optimum(np.array([THETAS["code"]]), 1e22)[0, 0]
    selected = fit_selected(low, select_law(low), FitRequest(law=CHINCHILLA, resamples=400))["code"]
    lo, hi = np.nanquantile(selected.ensemble_log_optima([1e22])[:, 0], [0.05, 0.95])
    assert lo < truth < hi


def test_the_larger_runs_are_never_looked_at():
    data = of_N_and_D()
    low, high = halves(data, 9e8)
    spoilt = {
        name: RunData(N=points.N, D=points.D, L=points.L * 3, clusters=points.labels) for name, points in high.items()
    }
    first, second = (backtest(low, other, letter="N", laws=("chinchilla",))[1]["code"] for other in (high, spoilt))
    assert first.setting == second.setting
    np.testing.assert_array_equal(first.predictions["predicted"], second.predictions["predicted"])
    np.testing.assert_array_equal(first.predictions["lo"], second.predictions["lo"])


def test_hold_outs_keep_two_sizes_to_fit():
    sizes = [limit.value for limit in inner_cutoffs(of_N_and_D(), "N")]
    assert sizes == pytest.approx([SIZES[3], SIZES[2]])
    assert inner_cutoffs(of_N_and_D(sizes=SIZES[:2]), "N") == ()
    assert len(inner_cutoffs(of_N_and_D(), "C")) == 2


def test_two_sizes_are_compared_by_compute():
    choice = select_law(of_N_and_D(sizes=SIZES[:2]), laws=("chinchilla",))
    assert [limit.letter for limit in choice.cutoffs] == ["C", "C"]
    assert choice.chosen.errors


def test_two_sizes_at_one_D_leave_nothing_to_choose_by_and_say_so():
    points = of_N_and_D()["code"]
    few = {"code": points.take(np.isin(points.N, SIZES[:2]) & (np.arange(len(points)) % 6 == 0))}
    few = {"code": RunData(N=np.repeat(few["code"].N, 3), D=np.full(6, 2e9), L=np.repeat(few["code"].L, 3))}
    choice = select_law(few)
    assert choice.chosen.setting.law.name == "chinchilla"
    assert "too few sizes" in choice.chosen.reason
    assert choice.fit_all(few)["code"].chosen.discrepancy_rate > 0


def test_one_size_says_what_to_add():
    low, high = halves(of_N_and_D(sizes=SIZES[:2]), 1.5e8)
    with pytest.raises(FitError, match=r"only one size, N = 1e\+08.*Add sizes"):
        backtest(low, high, letter="N")


def test_near_duplicates_of_a_checkpoint_weigh_as_one():
    points = RunData(
        N=np.full(4, 1e8), D=np.array([1e9, 2e9, 2.002e9, 3e9]), L=np.full(4, 3.0), clusters=np.array([0, 0, 0, 1])
    )
    results, count = checkpoint_weights(points)
    assert count == 2
    assert list(results.weights) == [1, 0.5, 0.5, 1]
    assert checkpoint_weights(points.take(np.array([0, 1, 3])))[1] == 0


def test_checkpoints_are_told_by_their_share_of_the_run():
    points = of_mixes()["code"]
    assert has_checkpoints(points)
    assert sorted(set(np.round(run_shares(points), 3))) == pytest.approx([0.1, 0.28, 0.46, 0.64, 0.82, 1.0])
    settings = candidate_settings({"code": points})
    assert {item.min_run_share for item in settings if item.law.name == "separable"} == {0.0, 0.3, 0.55}
    assert {item.min_run_share for item in settings if item.law.name in ("separable_transient", "chinchilla")} == {0.0}
    assert not any(item.min_run_share for item in candidate_settings(of_N_and_D()))


def test_tables_give_the_interval_over_laws_and_why_there_is_none():
    low = of_N_and_D()
    choice = select_law(low)
    assert len(choice.rivals) > 1
    selected = fit_selected(low, choice, FitRequest(law=choice.chosen.setting.law, resamples=100))["code"]
    assert isinstance(selected, FittedLaw)
    text = law_text({"code": selected}, [1e22])
    assert f"N* of code: intervals over chinchilla {selected.weight:.2f}, " in text
    assert "no interval over laws" not in text
    row = optima_frame({"code": selected}, [1e22]).iloc[0]
    assert (row["N_lo"], row["N_hi"]) == (selected.ensemble_optimum(1e22).lo, selected.ensemble_optimum(1e22).hi)
    assert "chinchilla" in row["over"]
    lost = replace(selected, q=np.where(np.arange(100)[:, None] < 5, np.nan, selected.q))
    assert "code: N* has no interval over laws: " in law_text({"code": lost}, [1e22])
    assert (
        "have no optimum at 1e22 FLOP"
        in laws_as_dict({"code": lost}, [1e22])["code"]["over_laws"]["optima"][0]["reason"]
    )


def test_what_the_chosen_law_tells_is_what_the_choice_predicts():
    data = of_mixes(effect=0.02, checkpoints=1)
    low, high = halves(data, 5e8)
    choice = select_law(low)
    assert choice.chosen.setting.effects
    selected = fit_selected(low, choice, FitRequest(law=choice.chosen.setting.law, resamples=100))["code"]
    assert isinstance(selected, FittedLaw)
    outlook = choice.fit_all(low)["code"]
    np.testing.assert_array_equal(selected.fit.theta, outlook.chosen.fit.theta)
    assert selected.setting == outlook.chosen.setting.name
    assert selected.weight + sum(item.weight for item in selected.rivals) == pytest.approx(1)
    where = high["code"]
    saved = read_document(json.loads(json.dumps(law_document({"code": selected}))))["code"]
    predicted = np.exp(outlook.chosen.log_loss(where))
    for item in (selected, saved):
        np.testing.assert_allclose(item.loss(where.N, where.D, where.h).value, predicted, rtol=1e-12)
    assert saved.loss(1e9, 2e10).value == pytest.approx(selected.loss(1e9, 2e10).value)
    C = 6 * float((where.N * where.D).max())
    assert saved.optimum(C).value == pytest.approx(selected.ensemble_optimum(C).value)


def test_exponents_of_the_told_laws_lean_together():
    data = of_N_and_D(noise=0.01)
    choice = select_law(data, laws=("chinchilla",))
    gaps = {}
    for pooled in (False, True):
        setting = replace(choice.chosen.setting, pooled=pooled)
        item = replace(choice, chosen=replace(choice.chosen, setting=setting))
        results = fit_selected(data, item, FitRequest(law=setting.law, resamples=50))
        alpha = [selected.fit.parameters["alpha"] for selected in results.values() if isinstance(selected, FittedLaw)]
        gaps[pooled] = abs(alpha[0] - alpha[1])
        assert all(("exponents pooled" in selected.setting) == pooled for selected in results.values())
    assert gaps[True] < gaps[False]


def test_a_skill_whose_loss_rises_with_D_has_no_part_in_the_choice():
    data = of_N_and_D()
    wrong = replace(data["code"], L=2.0 - 0.3 * data["code"].L / data["code"].L.max())
    assert "rises with D" in ineligible_reason(wrong)
    assert not ineligible_reason(data["prose"])
    assert not ineligible_reason(of_mixes(transient=True)["code"])
