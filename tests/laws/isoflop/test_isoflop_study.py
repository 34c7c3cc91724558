"""A whole study: planted size gaps are recovered, intervals cover, and bad rows are reported."""

import math
import runpy

import numpy as np
import pandas as pd
import pytest
from simulated_studies import Grid, NoiseModel, PlantedLaw, demo_study, random_planted_law, simulate_study

from skillscale.errors import FitError, InputError
from skillscale.laws.fit.request import FitRequest, UnfittedSkill, fit_all
from skillscale.laws.fit.skill_law import split_by_skill
from skillscale.laws.forms.catalogue import LAWS
from skillscale.laws.isoflop.study import fit_study
from skillscale.laws.results import Interval, Status, StudyResults, Verdict

SKILLS = ["knowledge", "code", "prose"]


def fit(runs: pd.DataFrame, **options) -> StudyResults:
    return fit_study(runs, skills=SKILLS, aggregates=["aggregate"], **({"resamples": 300} | options))


@pytest.fixture(scope="module")
def demo() -> tuple[pd.DataFrame, dict[str, PlantedLaw], StudyResults]:
    runs, truths = demo_study(0)
    return runs, truths, fit(runs)


def pooled(fits: StudyResults) -> dict:
    return {r.skill: r for r in fits.size_gaps if r.pooled}


def test_planted_verdicts_are_found(demo):
    _, truths, fits = demo
    residuals = pooled(fits)
    assert residuals["knowledge"].verdict is Verdict.CAPACITY
    assert residuals["code"].verdict is Verdict.DATA
    assert residuals["prose"].verdict is Verdict.UNRESOLVED
    for skill in SKILLS:
        right = np.mean([math.log(truths[skill].optimum(C) / truths["aggregate"].optimum(C)) for C in Grid().budgets])
        assert residuals[skill].value.lo < right < residuals[skill].value.hi
        assert residuals[skill].p <= residuals[skill].p_holm <= 1
    assert residuals["knowledge"].ratio.value == pytest.approx(math.exp(residuals["knowledge"].value.value))


def test_tables_have_one_row_per_result(demo):
    _, _, fits = demo
    assert len(fits.minima_table()) == 4 * 3
    assert len(fits.power_law_table()) == 4
    assert len(fits.size_gap_table()) == 3 * (3 + 1)
    assert len(fits.law_table()) == 4
    assert len(fits.curve_versus_law_table()) == 4 * 3
    assert set(fits.minima_table()["status"]) == {"ok"}
    table = fits.minima_table()
    assert (table["N_lo"] < table["N"]).all()
    assert (table["N"] < table["N_hi"]).all()
    assert {"E", "E_lo", "alpha_hi", "a_lo"} <= set(fits.law_table())


def test_power_law_passes_through_the_minima(demo):
    _, truths, fits = demo
    for law in fits.power_laws:
        for minimum in (m for m in fits.minima if m.skill == law.skill):
            assert law.N(minimum.C).value == pytest.approx(minimum.N.value, rel=0.05)
        at = law.N(1e11)
        assert at.value == pytest.approx(law.k * 1e11**law.a.value)
        assert at.lo < truths[law.skill].optimum(1e11) < at.hi
        far, near = law.N(1e15), law.N(1.6e11)
        assert math.log(far.hi / far.lo) > 2 * math.log(near.hi / near.lo)


def test_parametric_law_agrees_with_the_parabolas_where_it_is_true(demo):
    _, truths, fits = demo
    for law in fits.laws:
        assert law.status is Status.OK
        assert law.starts.agree == law.starts.tried
        assert law.theta["alpha"].value == pytest.approx(truths[law.skill].alpha, abs=0.03)
    inside = [f.disagreement.lo < 0 < f.disagreement.hi for f in fits.curve_versus_law]
    assert np.mean(inside) > 0.7
    assert (
        [f.disagrees for f in fits.curve_versus_law]
        == [not ok for ok in inside]
        == [*fits.curve_versus_law_table()["disagrees"]]
    )


def test_a_law_of_the_wrong_form_disagrees_with_the_curves():
    truth = PlantedLaw.at_optimum(N=4e4, C=1.6e11, L=3.0, reducible=0.6, alpha=0.3, beta=0.6, k=0.4, g=0.08)
    runs = simulate_study({"skill": truth}, np.random.default_rng(0), noise=NoiseModel(run=0.001, seed_level=0))
    fits = fit_study(runs, skills=["skill"], aggregates=[], resamples=300)
    assert any(f.disagrees for f in fits.curve_versus_law)


def test_a_law_of_several_mixes_is_compared_with_the_curves_of_each():
    """One law over all mixes: each mix has the optima of its own shares, and the law its intervals from all runs."""
    budgets = np.repeat([1e18, 1e19, 1e20], 8)
    N = np.sqrt(budgets / 120) * np.tile(np.geomspace(1 / 8, 8, 8), 3)
    law, rng, parts = LAWS["separable"].bind(18.0, 22.0, ("a", "b")), np.random.default_rng(0), []
    theta = law.theta(np.array([[0.5, -0.5, -0.5, 0.35, 0.36, 0.0, 0.15, -0.1]]))[0]
    for mix, share in {"even": 0.5, "lean": 0.2, "rich": 0.8}.items():
        h = np.array([share, 1 - share])
        loss = law.loss(theta, N, budgets / 6 / N, h) * np.exp(0.002 * rng.normal(size=24))
        runs = {"N": N, "D": budgets / 6 / N, "C": budgets, "mix": mix, "seed": 0, "skill": loss}
        parts.append(pd.DataFrame(runs | {"mix/a": share, "mix/b": 1 - share}))
    runs = pd.concat(parts, ignore_index=True)
    runs["run_id"] = [f"run{at}" for at in runs.index]
    shared_law = fit_all(split_by_skill(runs, ["skill"], ["a", "b"]), FitRequest(law=LAWS["separable"], resamples=200))[
        "skill"
    ]
    laws = {(mix, "skill"): shared_law for mix in ("even", "lean", "rich")}
    fits = fit_study(runs, skills=["skill"], aggregates=[], resamples=200, laws=laws)
    assert [(fit.mix, fit.n_runs) for fit in fits.laws] == [("even", 72), ("lean", 72), ("rich", 72)]
    assert all(fit.theta == shared_law.theta for fit in fits.laws)
    for pair in fits.curve_versus_law:
        share = {"even": 0.5, "lean": 0.2, "rich": 0.8}[pair.mix]
        assert pair.law.value == pytest.approx(shared_law.optimum(pair.C, [share, 1 - share]).value)
        assert pair.disagreement.hi - pair.disagreement.lo < 1.5


def test_given_laws_are_used_and_a_skill_without_a_law_is_reported(demo):
    runs, _, _ = demo
    fits = fit(runs, laws={("all=1", name): UnfittedSkill(skill=name, n_runs=42, reason="too odd") for name in SKILLS})
    assert [result.reason for result in fits.laws] == ["too odd"] * 3 + ["aggregate has no law here: fit it too"]
    assert all(not result.law.is_finite and result.parabola.is_finite for result in fits.curve_versus_law)


@pytest.mark.parametrize("curve", ["quadratic", "cubic"])
def test_another_curve_changes_the_minima_but_not_the_law(demo, curve):
    runs, _, fits = demo
    plain = fit(runs, curve=curve)
    assert (fits.curve, plain.curve) == ("shared", curve)
    assert plain.law_table().equals(fits.law_table())
    for plain_minimum, minimum in zip(plain.minima, fits.minima, strict=True):
        assert plain_minimum.N.value != minimum.N.value
        assert math.log(plain_minimum.N.value / minimum.N.value) == pytest.approx(0, abs=0.25)
    with pytest.raises(InputError, match="unknown isoFLOP curve: 'spline'"):
        fit(runs, curve="spline")


def test_the_same_seed_gives_the_same_intervals(demo):
    runs, _, fits = demo
    pd.testing.assert_frame_equal(fits.size_gap_table(), fit(runs).size_gap_table())
    other = fit(runs, seed=1).size_gap_table()
    assert not other["residual_lo"].equals(fits.size_gap_table()["residual_lo"])


def test_a_shared_error_narrows_the_size_gap_not_the_optimum():
    """Errors common to all skills cancel in the size gap, and pairing must show it."""
    widths = {}
    for shared in (0.0, 0.98):
        runs, _ = demo_study(3, noise=NoiseModel(run=0.006, shared=shared))
        fits = fit(runs)
        widths[shared] = pooled(fits)["prose"].value.hi - pooled(fits)["prose"].value.lo
    assert widths[0.98] < 0.6 * widths[0.0]


def test_bad_rows_are_excluded_with_reasons_and_nothing_else_is():
    runs, _ = demo_study(0)
    runs.loc[0, "code"] = np.nan
    runs.loc[1, "prose"] = -1.0
    runs.loc[2, "N"] = 0.0
    runs.loc[3, "D"] *= 2
    runs = pd.concat([runs, runs.iloc[[10]]])
    fits = fit(runs)
    named = {(u.run_id, u.skill): u.reason for u in fits.excluded}
    assert named == {
        ("run-000", "code"): "no loss",
        ("run-001", "prose"): "loss is -1.0, not a positive number",
        ("run-002", ""): "N is 0.0, not a positive number",
        ("run-003", ""): "6 N D is 2 times its budget, so it fits no isoFLOP curve",
        ("run-010", ""): "listed twice",
    }
    first = {m.skill: m.n_runs for m in fits.minima if m.C == 5e10}
    assert first == {"knowledge": 12, "code": 11, "prose": 11, "aggregate": 12}
    assert all(m.status is Status.OK for m in fits.minima)


def test_missing_budgets_are_computed():
    runs, _ = demo_study(0)
    fits, again = fit(runs), fit(runs.assign(C=np.nan))
    assert [m.C for m in again.minima] == pytest.approx([m.C for m in fits.minima], rel=1e-3)
    assert [m.N.value for m in again.minima] == pytest.approx([m.N.value for m in fits.minima], rel=1e-3)


def test_a_computed_budget_is_the_same_in_all_mixes():
    """Rounded token counts differ from mix to mix, and so would budgets found mix by mix."""
    runs, _ = demo_study(0)
    rng = np.random.default_rng(1)
    mixes = [
        runs.assign(mix=mix, run_id=runs["run_id"] + mix, D=runs["D"] * (1 + 0.002 * rng.normal(size=len(runs))))
        for mix in "abc"
    ]
    fits = fit(pd.concat(mixes).assign(C=np.nan), resamples=100, laws={})
    budgets = {(m.mix, m.C) for m in fits.minima}
    assert sorted({C for _, C in budgets}) == pytest.approx(Grid().budgets, rel=2e-3)
    assert len({C for _, C in budgets}) == 3
    assert len(budgets) == 3 * 3


def test_a_run_with_a_whole_number_of_batches_is_corrected_to_its_budget():
    runs, truths = demo_study(0, noise=NoiseModel(run=0, seed_level=0))
    off = runs.copy()
    off["D"] *= np.exp(np.random.default_rng(0).uniform(-0.05, 0.05, len(off)))
    for name, truth in truths.items():
        off[name] = truth.loss(off["N"], off["D"])
    exact, moved = fit(runs), fit(off)
    for before, after in zip(exact.minima, moved.minima, strict=True):
        assert after.N.value == pytest.approx(before.N.value, rel=1e-3)


def test_one_budget_gives_minima_and_the_rest_says_what_it_needs():
    runs, _ = demo_study(0)
    fits = fit(runs[runs["C"] == 1.6e11])
    assert all(m.status is Status.OK for m in fits.minima)
    assert all(p.status is Status.TOO_FEW_BUDGETS and not p.N(1e12).is_finite for p in fits.power_laws)
    assert all(law.status is Status.NOT_IDENTIFIED and "second budget" in law.reason for law in fits.laws)
    assert pooled(fits)["knowledge"].verdict is Verdict.CAPACITY


def test_a_refused_minimum_has_no_size_gap():
    runs, _ = demo_study(0)
    low = (runs["C"] == 5e10) & (runs["N"] > 2e4)
    fits = fit(runs.assign(code=runs["code"].where(~low)))
    refused = next(r for r in fits.size_gaps if r.skill == "code" and r.C == 5e10)
    assert refused.status is not Status.OK
    assert refused.reason.startswith("code: ")
    assert refused.verdict is Verdict.UNRESOLVED
    assert pooled(fits)["code"].n_budgets == 2
    assert pooled(fits)["knowledge"].n_budgets == 3


def test_mixes_are_fitted_separately():
    runs, _ = demo_study(0)
    both = pd.concat([runs, runs.assign(mix="other", run_id=runs["run_id"] + "b")])
    fits = fit(both)
    assert {m.mix for m in fits.minima} == {"all=1", "other"}
    first, second = (fits.minima_table().query("mix == @mix")["N"].to_numpy() for mix in ("all=1", "other"))
    np.testing.assert_allclose(first, second)


def test_mixes_share_resampled_errors_where_they_share_sizes_and_seeds():
    """The same runs in two mixes have correlated draws. With other seeds they do not."""
    runs, _ = demo_study(0)
    together = []
    for seed in (runs["seed"], runs["seed"] + 100):
        both = pd.concat([runs, runs.assign(mix="other", run_id=runs["run_id"] + "b", seed=seed)])
        draws = {m.mix: m.draws[:, 0] for m in fit(both).minima if m.skill == "code" and m.C == 1.6e11}
        together.append(np.corrcoef(draws["all=1"], draws["other"])[0, 1])
    assert together[0] > 0.8 > 0.3 > abs(together[1])


def test_a_minimum_has_the_draws_behind_its_interval(demo):
    _, _, fits = demo
    for minimum in fits.minima:
        lo, hi = np.exp(np.quantile(minimum.draws[:, 0], [0.05, 0.95]))
        assert (lo, hi) == pytest.approx((minimum.N.lo, minimum.N.hi))
        assert math.exp(np.median(minimum.draws[:, 1])) == pytest.approx(minimum.loss, rel=0.01)


def test_invalid_requests_are_refused():
    runs, _ = demo_study(0)
    with pytest.raises(InputError, match="missing columns in the table of runs: reasoning"):
        fit_study(runs, skills=["reasoning"], aggregates=["aggregate"])
    with pytest.raises(InputError, match="List each once"):
        fit_study(runs, skills=["code"], aggregates=["code"])
    with pytest.raises(InputError, match="level must be between 0 and 1"):
        fit(runs, level=90)
    with pytest.raises(InputError, match="resamples must be 100"):
        fit(runs, resamples=10)
    with pytest.raises(FitError, match="none of the 42 runs is usable"):
        fit(runs.assign(N=np.nan))


def test_a_skill_without_losses_does_not_affect_the_others():
    runs, _ = demo_study(0)
    fits = fit(runs.assign(code=np.nan))
    assert pooled(fits)["code"].verdict is Verdict.UNRESOLVED
    assert not pooled(fits)["code"].value.is_finite
    assert pooled(fits)["knowledge"].verdict is Verdict.CAPACITY


def covers(interval: Interval, right: float) -> bool:
    return interval.lo <= right <= interval.hi


def coverage(studies: int, *, seeds: int, noise: float, resamples: int) -> dict[str, float]:
    """Shares of 90 % intervals on N*, size gap, pooled size gap and exponent that contain the truth."""
    rng = np.random.default_rng(20)
    hits: dict[str, list[bool]] = {"N": [], "residual": [], "pooled": [], "a": []}
    for _ in range(studies):
        truths = {"skill": random_planted_law(rng), "aggregate": random_planted_law(rng)}
        runs = simulate_study(truths, rng, grid=Grid(seeds=seeds), noise=NoiseModel(run=noise))
        fits = fit_study(runs, skills=["skill"], aggregates=["aggregate"], resamples=resamples)
        budgets = np.array(Grid().budgets)
        skill_optima, aggregate_optima = (
            np.log([truths[name].optimum(C) for C in budgets]) for name in ("skill", "aggregate")
        )
        gap = dict(zip(budgets, skill_optima - aggregate_optima, strict=True))
        hits["N"] += [covers(m.N, truths[m.skill].optimum(m.C)) for m in fits.minima if m.status is Status.OK]
        for residual in fits.size_gaps:
            right = (
                float(np.mean(skill_optima - aggregate_optima)) if residual.pooled else gap.get(residual.C, math.nan)
            )
            hits["pooled" if residual.pooled else "residual"].append(covers(residual.value, right))
        log_C = np.log(budgets) - np.log(budgets).mean()
        hits["a"].append(covers(fits.power_laws[0].a, float(skill_optima @ log_C / (log_C @ log_C))))
    return {name: float(np.mean(values)) for name, values in hits.items()}


def test_intervals_cover_on_a_few_studies():
    """40 studies: a nominal 90 % that covered less than 75 % would be off by 3 standard errors."""
    assert min(coverage(40, seeds=2, noise=0.005, resamples=150).values()) > 0.78


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 2])
def test_intervals_cover(seeds):
    """300 studies. The upper bound is loose, because the allowed error of the form is for worse truths."""
    for name, share in coverage(300, seeds=seeds, noise=0.005, resamples=400).items():
        assert 0.86 <= share <= 0.98, name


@pytest.mark.parametrize("curve", ["shared", "quadratic", "cubic"])
def test_published_sweeps_give_about_their_published_exponents(root, tables, curve):
    """Porian et al. 2024: 0.88 in the setting of Kaplan et al. (less where small budgets are refused), 0.5 tuned."""
    ours = runpy.run_path(str(root / "benchmarks" / "published_isoflops.py"))
    runs = ours["near"](ours["porian"](tables))
    published = {"porian rw base long kaplan kaplan train": 0.84, "porian rw tuned short const standard val": 0.5}
    chosen = runs[runs["mix"].isin(published)]
    fits = fit_study(chosen, skills=["loss"], aggregates=[], curve=curve, resamples=200)
    assert not fits.excluded
    assert len(fits.runs) == len(chosen)
    for law in fits.power_laws:
        assert law.a.value == pytest.approx(published[law.mix], abs=0.06)
        assert law.a.lo < law.a.value < law.a.hi < law.a.lo + 0.15
    refused = [m for m in fits.minima if m.status is not Status.OK]
    assert all(m.reason for m in refused)
