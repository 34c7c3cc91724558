"""Optima of weighted skills: compared with plain searches and the truth, and refused with a reason."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest
from planted_laws import CATEGORIES, bound, scattered, truth
from scipy.optimize import minimize_scalar

from skillscale.errors import FitError, InputError
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.fit import FitResult
from skillscale.laws.fit.objective import HUBER
from skillscale.laws.fit.skill_law import FittedLaw, fit_skill, fit_together
from skillscale.laws.forms.catalogue import CHINCHILLA, LAWS
from skillscale.laws.forms.nd import Law
from skillscale.laws.optimum.optimum import best_mix, size_gap, validation_effect, weighted_optimum
from skillscale.laws.results import Interval, MultiStart, Status, Verdict
from skillscale.laws.uncertainty.bootstrap import ResamplingMethod
from skillscale.laws.uncertainty.resamples import interval

SKILLS = {"code": [1.6, 477.0, 2143.0, 0.347, 0.367], "prose": [1.9, 300.0, 2500.0, 0.32, 0.38]}
LABELS = np.array([f"run{i:02d}" for i in range(28)])


def study(*, shared=0.0, run_noise=0.0, seed=0, skills=SKILLS) -> dict[str, RunData]:
    """7 sizes at 4 budgets. Errors of a run are common to its skills (``shared``) or of one skill (``run_noise``)."""
    rng = np.random.default_rng(seed)
    C = np.repeat([3e10, 1e11, 3e11, 1e12], 7)
    N = 0.1 * np.sqrt(C) * np.tile(np.geomspace(1 / 8, 8, 7), 4)
    D = C / (6 * N)
    common = shared * rng.normal(size=28)
    return {
        name: RunData(
            N=N, D=D, L=CHINCHILLA.loss(theta, N, D) * np.exp(common + run_noise * rng.normal(size=28)), clusters=LABELS
        )
        for name, theta in skills.items()
    }


def law_with_draws(law: Law, q: np.ndarray, skill: str, *, spread: float = 0.0, draws: int = 20) -> FittedLaw:
    """A skill whose law is given rather than fitted."""
    points, theta = scattered(law, law.theta(q[None])[0], n=30), law.theta(q[None])[0]
    fit = FitResult(
        law=law, theta=theta, q=q, F=0.0, penalty=0.0, phi=1.0, objective=HUBER, residuals=np.zeros(30), converged=True,
        starts=MultiStart(tried=1, agree=1, gap=math.inf), free=tuple(range(len(q))),
        prior=(np.zeros(0), np.zeros((0, 0))),
    )  # fmt: skip
    drawn = q + spread * np.random.default_rng(0).normal(size=(draws, len(q)))
    return FittedLaw(skill=skill, fit=fit, runs=points, q=drawn, level=0.9, status=Status.OK, reason="")


def two_skills(name: str, *, spread: float = 0.0) -> dict[str, FittedLaw]:
    """Code and prose under one kind of law, with parameters that differ."""
    law = bound(name)
    q = law.log_parameters(truth(name)[None])[0]
    other = q if law.joint else q + np.random.default_rng(1).normal(scale=0.15, size=len(q))
    places = {"code": q, "prose": other}
    return {skill: law_with_draws(law.for_skill(skill), at, skill, spread=spread) for skill, at in places.items()}


def weighted_loss(fitted: dict[str, FittedLaw], C: float, weights: dict[str, float], h=None):
    """The weighted loss as a function of ln N, from the formulas of the laws."""

    def loss(ln_N: float) -> float:
        N = math.exp(ln_N)
        return sum(w * fitted[k].law.loss(fitted[k].fit.theta, N, C / 6 / N, h)[0] for k, w in weights.items())

    return loss


MIX = np.array([0.5, 0.3, 0.2])
WEIGHTS = {"code": 0.3, "prose": 0.7}

# Draws that belong together


@pytest.mark.parametrize("method", [ResamplingMethod.WILD, ResamplingMethod.RUN, ResamplingMethod.LAPLACE])
def test_draws_of_skills_on_the_same_runs_are_correlated(method):
    fitted = fit_together(study(shared=0.004), method=method, resamples=300)
    first, second = (fitted[name].log_optimum([1e12])[1][:, 0] for name in SKILLS)
    assert np.corrcoef(first, second)[0, 1] > 0.9
    apart = fit_skill("prose", study(shared=0.004)["prose"], method=method, resamples=300, seed=5)
    other = apart.log_optimum([1e12])[1][:, 0]
    width = [np.ptp(np.quantile(first - drawn, [0.05, 0.95])) for drawn in (second, other)]
    assert width[0] < 0.5 * width[1]


def test_a_skill_with_missing_runs_stays_paired_with_the_others():
    data = study(shared=0.004)
    data["prose"] = data["prose"].take(np.arange(28) != 3)
    fitted = fit_together(data, resamples=300)
    first, second = (fitted[name].log_optimum([1e12])[1][:, 0] for name in SKILLS)
    assert np.corrcoef(first, second)[0, 1] > 0.9


@pytest.mark.parametrize("seed", range(3))
def test_draws_do_not_depend_on_the_other_skills_order(seed):
    data = study(shared=0.003, run_noise=0.001, seed=seed)
    there = fit_together(dict(reversed(data.items())), resamples=100)
    for name, law in fit_together(data, resamples=100).items():
        np.testing.assert_array_equal(law.q, there[name].q)


def test_paired_intervals_cover():
    hits = []
    truths = [CHINCHILLA.log_optimum(np.array([theta]), 1e12)[0, 0] for theta in SKILLS.values()]
    for seed in range(30):
        fitted = fit_together(
            study(shared=0.004, run_noise=0.002, seed=seed), method=ResamplingMethod.LAPLACE, resamples=300
        )
        (first, first_draws), (second, second_draws) = (fitted[name].log_optimum([1e12]) for name in SKILLS)
        gap = interval(first[0] - second[0], first_draws[:, 0] - second_draws[:, 0], 0.9)
        hits.append(gap.lo <= truths[0] - truths[1] <= gap.hi)
    assert np.mean(hits) >= 0.8


def test_labels_of_different_runs_in_two_skills_are_refused():
    data = study()
    data["prose"] = replace(data["prose"], N=data["prose"].N[::-1], D=data["prose"].D[::-1], L=data["prose"].L[::-1])
    with pytest.raises(FitError, match=r"cluster run00 has N = .* in prose and .* in code"):
        fit_together(data)


# The best N


@pytest.mark.parametrize("name", LAWS)
def test_weighted_optimum_is_where_a_plain_search_finds_it(name):
    fitted = two_skills(name, spread=0.01)
    optimum = weighted_optimum(fitted, 3e11, WEIGHTS, MIX)
    loss = weighted_loss(fitted, 3e11, WEIGHTS, MIX)
    grid = np.linspace(5, 20, 300)
    near = grid[int(np.argmin([loss(x) for x in grid]))]
    best = minimize_scalar(loss, bounds=(near - 0.1, near + 0.1), method="bounded", options={"xatol": 1e-10})
    assert math.log(optimum.N.value) == pytest.approx(best.x, abs=3e-5)
    assert optimum.loss.value == pytest.approx(best.fun, rel=1e-12)
    assert optimum.D.value == pytest.approx(3e11 / 6 / optimum.N.value)
    assert optimum.loss.value == pytest.approx(sum(w * optimum.losses[k].value for k, w in WEIGHTS.items()))
    assert optimum.N.lo < optimum.N.value < optimum.N.hi
    assert (optimum.status, len(optimum.draws)) == (Status.OK, 20)
    if LAWS[name].needs_mix:
        assert {k: share.value for k, share in optimum.mix.items()} == dict(zip(CATEGORIES, MIX, strict=True))


@pytest.mark.parametrize("name", LAWS)
def test_weight_on_one_skill_gives_its_own_optimum(name):
    fitted = two_skills(name, spread=0.01)
    optimum = weighted_optimum(fitted, 1e12, {"code": 0.0, "prose": 2.0}, MIX)
    value, drawn = fitted["prose"].log_optimum([1e12], MIX)
    assert math.log(optimum.N.value) == pytest.approx(value[0], abs=1e-8)
    np.testing.assert_allclose(optimum.draws, drawn[:, 0], atol=1e-8)


def test_planted_optima_are_covered():
    truths = {k: np.array(v) for k, v in SKILLS.items()}
    sure = {k: law_with_draws(CHINCHILLA, CHINCHILLA.log_parameters(v[None])[0], k) for k, v in truths.items()}
    planted = weighted_optimum(sure, 3e12, WEIGHTS)
    planted_gap = size_gap(sure, 3e12, "code", WEIGHTS).value.value
    hits = []
    for seed in range(8):
        fitted = fit_together(study(shared=0.003, run_noise=0.002, seed=seed), objective=None, resamples=150)
        optimum, gap = weighted_optimum(fitted, 3e12, WEIGHTS), size_gap(fitted, 3e12, "code", WEIGHTS)
        hits += [optimum.N.lo < planted.N.value < optimum.N.hi, optimum.loss.lo < planted.loss.value < optimum.loss.hi]
        hits += [gap.value.lo < planted_gap < gap.value.hi]
    assert np.mean(hits) >= 0.75


def test_the_size_gap_is_paired_and_has_a_verdict():
    fitted = fit_together(study(shared=0.004), resamples=300)
    gap = size_gap(fitted, 1e12, "code", {"code": 1, "prose": 1})
    assert (gap.verdict, gap.status, gap.aggregate) == (Verdict.CAPACITY, Status.OK, "0.5 code + 0.5 prose")
    code, both = (weighted_optimum(fitted, 1e12, weights).draws for weights in ({"code": 1}, {"code": 1, "prose": 1}))
    unpaired = interval(gap.value.value, code - np.roll(both, 1), 0.9)
    assert gap.value.hi - gap.value.lo < 0.5 * (unpaired.hi - unpaired.lo)
    assert size_gap(fitted, 1e12, "prose", {"code": 1}).verdict is Verdict.DATA
    assert size_gap(fitted, 1e12, "prose", {"prose": 3}).verdict is Verdict.UNRESOLVED


def test_many_draws_are_fast():
    law = CHINCHILLA.bind(*(np.log([4e4, 6e5])))
    q = law.log_parameters(np.array([SKILLS["code"]]))[0]
    fitted = {name: law_with_draws(law, q, name, spread=0.02, draws=1000) for name in "abcd"}
    began = time.process_time()
    for C in (1e11, 1e12, 1e13):
        weighted_optimum(fitted, C, dict.fromkeys("abcd", 1.0))
    assert time.process_time() - began < 1.0, "about .12 s"


def test_N_and_D_far_beyond_the_runs_are_reported_with_how_far():
    fitted = fit_together(study(run_noise=0.001), resamples=100)
    far = weighted_optimum(fitted, 1e18, {"code": 1})
    runs = fitted["code"].runs
    assert f"N* is {far.N.value / runs.N.max():.2g} times the largest N, " in far.reason
    assert f" and D* is {far.D.value / runs.D.max():.2g} times the largest D, " in far.reason
    assert "no run shows that the law holds there" in far.reason
    C = 6 * runs.N.max() * runs.D.max()
    assert "no run shows" not in weighted_optimum(fitted, C, {"code": 1}).reason


def test_extrapolations_are_reported():
    fitted = fit_together(study(run_noise=0.001), resamples=100)
    near, far = weighted_optimum(fitted, 3e11, {"code": 1}), weighted_optimum(fitted, 1e16, {"code": 1})
    assert (near.reason, near.extrapolation) == ("", pytest.approx(0.3))
    assert far.reason.startswith("the budget is 1e+04 times the largest run; N lies outside the sizes fitted")
    doubtful = {"code": replace(fitted["code"], status=Status.NOT_IDENTIFIED, reason="the runs can't tell alpha")}
    assert weighted_optimum(doubtful, 3e11, {"code": 1}).reason == "code: the runs can't tell alpha"


def test_no_interior_minimum():
    q = CHINCHILLA.log_parameters(np.array([[1.8, 477.0, 2143.0, -0.1, 0.367]]))[0]
    fitted = {"code": replace(two_skills("chinchilla")["code"], fit=replace(two_skills("chinchilla")["code"].fit, q=q))}
    optimum = weighted_optimum(fitted, 1e12, {"code": 1})
    assert optimum.status is Status.NO_MINIMUM
    assert optimum.reason.startswith("no interior minimum, the loss falls to the smallest N searched")
    assert not optimum.N.is_finite
    assert size_gap(fitted, 1e12, "code", {"code": 1}).status is Status.NO_MINIMUM
    assert validation_effect(fitted, 1e12, {"code": 1}, {"code": 2}).status is Status.NO_MINIMUM


# A validation set of another composition


def test_validation_set_of_another_composition():
    fitted = fit_together(study(shared=0.002, run_noise=0.001), resamples=200)
    effect = validation_effect(fitted, 1e12, {"prose": 1}, {"code": 1, "prose": 1})
    back = validation_effect(fitted, 1e12, {"code": 1, "prose": 1}, {"prose": 1})
    assert effect.shift.lo > 0 > back.shift.hi
    assert effect.shift.value == pytest.approx(-back.shift.value)
    assert effect.cost.lo > 0
    assert back.cost.lo > 0
    right, wrong = (weighted_optimum(fitted, 1e12, weights) for weights in (effect.target, effect.used))
    assert effect.cost.value == pytest.approx(wrong.losses["prose"].value - right.losses["prose"].value)
    more = weighted_optimum(fitted, 1e12 * (1 + effect.compute.value), effect.used)
    assert more.losses["prose"].value == pytest.approx(right.loss.value, rel=1e-10)
    assert effect.compute.lo > 0


def test_the_same_composition_costs_nothing():
    fitted = fit_together(study(run_noise=0.001), resamples=100)
    effect = validation_effect(fitted, 1e12, {"prose": 1, "code": 3}, {"prose": 2, "code": 6})
    assert effect.shift == Interval(value=0.0, lo=0.0, hi=0.0)
    assert effect.cost.hi == pytest.approx(0, abs=1e-12)
    assert effect.compute.value == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", ["chinchilla", "coupled", "separable"])
def test_no_composition_shifts_N_further_than_two_single_skills(name):
    rng = np.random.default_rng(2)
    law = bound(name)
    q = law.log_parameters(truth(name)[None])[0]
    fitted = {
        k: law_with_draws(law, q + rng.normal(scale=0.1, size=len(q)), k, draws=2) for k in ("code", "prose", "wiki")
    }
    effect = validation_effect(fitted, 1e12, {"code": 1}, {"prose": 1}, MIX)
    sizes = [
        weighted_optimum(fitted, 1e12, dict(zip(fitted, w, strict=True)), MIX).N.value
        for w in (*np.eye(3), *rng.dirichlet([0.4] * 3, 30))
    ]
    assert effect.largest.value == pytest.approx(max(sizes) / min(sizes) - 1)
    assert effect.extremes == tuple(list(fitted)[f(sizes[:3])] for f in (np.argmin, np.argmax))
    assert effect.reason == "N lies outside the sizes fitted" or not effect.reason


# The best mix

MIXTURES = [name for name, law in LAWS.items() if law.needs_mix]
BOUNDS = {"code": (0.05, 0.6), "prose": (0.1, 0.7), "wiki": (0.02, 1.0)}


def least_on_a_grid(fitted, C, weights, bounds, *, step=0.01) -> tuple[float, np.ndarray]:
    """The least weighted loss over a grid of mixes and sizes, and the mix."""
    shares = np.arange(0, 1 + step / 2, step)
    mixes = np.array([(a, b, 1 - a - b) for a in shares for b in shares if a + b < 1 + step / 2])
    low, high = np.array(list(bounds.values())).T
    mixes = mixes[((mixes >= low - 1e-9) & (mixes <= high + 1e-9)).all(1)]
    least = np.full(len(mixes), np.inf)
    for ln_N in np.linspace(8, 16, 161):
        N = np.full(len(mixes), math.exp(ln_N))
        loss = sum(w * fitted[k].law.loss(fitted[k].fit.theta, N, C / 6 / N, mixes) for k, w in weights.items())
        least = np.minimum(least, loss)
    return float(least.min()), mixes[least.argmin()]


@pytest.mark.parametrize("name", MIXTURES)
def test_the_best_mix_is_that_of_a_grid(name):
    fitted = two_skills(name, spread=0.01)
    optimum = best_mix(fitted, 1e12, WEIGHTS, BOUNDS)
    least, mix = least_on_a_grid(fitted, 1e12, WEIGHTS, BOUNDS)
    h = np.array([share.value for share in optimum.mix.values()])
    assert least * (1 - 1e-3) < optimum.loss.value <= least * (1 + 1e-9)
    np.testing.assert_allclose(h, mix, atol=0.03)
    assert optimum.starts.agree == optimum.starts.tried == 4
    again = weighted_optimum(fitted, 1e12, WEIGHTS, h)
    assert again.loss.value == pytest.approx(optimum.loss.value, rel=1e-9)
    assert math.log(again.N.value) == pytest.approx(math.log(optimum.N.value), abs=1e-4)
    assert optimum.N.lo < optimum.N.value < optimum.N.hi


@pytest.mark.parametrize("name", MIXTURES)
def test_every_draw_is_within_bounds_and_active_bounds_are_reported(name):
    optimum = best_mix(two_skills(name, spread=0.05), 1e12, WEIGHTS, {"code": (0.1, 0.3), "prose": (0.2, 0.35)})
    code, prose, wiki = optimum.mix.values()
    assert code.value + prose.value + wiki.value == pytest.approx(1, abs=1e-9)
    for share, (low, high) in zip((code, prose, wiki), ((0.1, 0.3), (0.2, 0.35), (0.35, 0.7)), strict=True):
        assert low - 1e-9 <= share.lo <= share.hi <= high + 1e-9
    if optimum.status is Status.ON_BOUND:
        assert optimum.reason.startswith("the best mix is on a bound: ")
    edges = [min(share.value - low, high - share.value) for share, (low, high) in
             zip((code, prose, wiki), ((0.1, 0.3), (0.2, 0.35), (0.35, 0.7)), strict=True)]  # fmt: skip
    assert (min(edges) < 1e-4) == (optimum.status in (Status.ON_BOUND, Status.NOT_IDENTIFIED))


def test_a_fixed_size_is_kept():
    fitted = two_skills("joint_mixture", spread=0.01)
    optimum = best_mix(fitted, 1e12, WEIGHTS, BOUNDS, N=5e4)
    assert Interval(value=pytest.approx(5e4), lo=pytest.approx(5e4), hi=pytest.approx(5e4)) == optimum.N
    assert optimum.D.value == pytest.approx(1e12 / 6 / 5e4)
    h = [share.value for share in optimum.mix.values()]
    loss = weighted_loss(fitted, 1e12, WEIGHTS, h)(math.log(5e4))
    assert optimum.loss.value == pytest.approx(loss, rel=1e-9)
    assert loss > best_mix(fitted, 1e12, WEIGHTS, BOUNDS).loss.value


def test_fixed_shares_leave_only_N_free():
    fitted = two_skills("effective_data", spread=0.01)
    given = dict(zip(CATEGORIES, ((x, x) for x in MIX), strict=True))
    optimum = best_mix(fitted, 1e12, WEIGHTS, given)
    assert optimum.N.value == pytest.approx(weighted_optimum(fitted, 1e12, WEIGHTS, MIX).N.value, rel=1e-5)
    assert best_mix(fitted, 1e12, WEIGHTS, given, N=4e4).mix["code"].value == pytest.approx(0.5)


def test_planted_mixes_are_covered():
    law, theta = bound("separable"), truth("separable")
    planted = best_mix(
        {"code": law_with_draws(law, law.log_parameters(theta[None])[0], "code")}, 1e12, {"code": 1}, BOUNDS
    )
    hits = []
    for seed in range(6):
        points = scattered(law, theta, noise=0.01, seed=seed)
        optimum = best_mix(fit_together({"code": points}, law=law, resamples=100), 1e12, {"code": 1}, BOUNDS)
        hits += [optimum.mix[k].lo - 1e-6 <= planted.mix[k].value <= optimum.mix[k].hi + 1e-6 for k in CATEGORIES]
        hits += [optimum.N.lo <= planted.N.value <= optimum.N.hi]
    assert np.mean(hits) >= 0.75


def test_a_mix_that_the_runs_do_not_determine_is_refused():
    law = bound("effective_data")
    alike = np.array([1.8, 477.0, 2143.0, 0.347, 0.367, 1.0, 1.0, 1.0])
    q = law.log_parameters(alike[None])[0]
    optimum = best_mix({"code": law_with_draws(law, q, "code", spread=0.1)}, 1e12, {"code": 1})
    assert optimum.status is Status.NOT_IDENTIFIED
    assert "the runs do not determine the best share of code 0 to 1" in optimum.reason


def test_diverged_draws_are_no_optima():
    fitted = two_skills("additive_mixture", spread=0.01)
    for law in fitted.values():
        law.q[3] = 800.0
    optimum = best_mix(fitted, 1e12, WEIGHTS, BOUNDS)
    assert optimum.status is Status.NOT_IDENTIFIED
    assert optimum.reason.startswith("some draws have no best mix")
    assert (optimum.N.is_finite, optimum.mix["code"].is_finite, math.isfinite(optimum.mix["code"].value)) == (
        False,
        False,
        True,
    )
    assert np.isnan(optimum.draws).sum() == 1
    assert not weighted_optimum(fitted, 1e12, WEIGHTS, MIX).N.is_finite


def test_mixes_beyond_the_runs_are_reported():
    fitted = {k: replace(law, runs=replace(law.runs, h=np.tile(MIX, (30, 1)))) for k, law in
              two_skills("additive_mixture").items()}  # fmt: skip
    assert "beyond the mixes of the runs: code" in best_mix(fitted, 1e12, WEIGHTS).reason


# What can't be asked


def test_messages():
    fitted, mixed = two_skills("chinchilla"), two_skills("separable")
    with pytest.raises(InputError, match=r"no skill coed was fitted \(did you mean code\?\)\. There is code, prose"):
        weighted_optimum(fitted, 1e12, {"coed": 1})
    with pytest.raises(InputError, match="the weight of code must not be negative: -1"):
        weighted_optimum(fitted, 1e12, {"code": -1})
    with pytest.raises(InputError, match="the weights of the skills sum to 0"):
        size_gap(fitted, 1e12, "code", {"code": 0})
    with pytest.raises(InputError, match="a budget must be above 0 FLOP: 0"):
        weighted_optimum(fitted, 0, {"code": 1})
    with pytest.raises(InputError, match="no law depends on the mix: chinchilla"):
        best_mix(fitted, 1e12, {"code": 1})
    with pytest.raises(InputError, match=r"shares must not be negative and must sum to 1: .* sums to 1\.2"):
        weighted_optimum(mixed, 1e12, {"code": 1}, [0.5, 0.5, 0.2])
    with pytest.raises(InputError, match=r"no category wikis was fitted \(did you mean wiki\?\)"):
        weighted_optimum(mixed, 1e12, {"code": 1}, {"wikis": 1.0})
    with pytest.raises(InputError, match=r"wrong shape of a mix: \(2,\)\. Give a share of each of code, prose, wiki"):
        weighted_optimum(mixed, 1e12, {"code": 1}, [0.5, 0.5])
    with pytest.raises(InputError, match=r"no mix is within the bounds: the least shares sum to 1\.2"):
        best_mix(mixed, 1e12, {"code": 1}, {"code": (0.6, 1), "prose": (0.6, 1)})
    with pytest.raises(InputError, match=r"no mix is within the bounds: the largest shares sum to 0\.6"):
        best_mix(mixed, 1e12, {"code": 1}, dict.fromkeys(CATEGORIES, (0, 0.2)))
    with pytest.raises(InputError, match=r"bounds of code out of range: 0\.5 and"):
        best_mix(mixed, 1e12, {"code": 1}, {"code": (0.5, 0.2)})
    with pytest.raises(InputError, match="N must be above 0 parameters: -1"):
        best_mix(mixed, 1e12, {"code": 1}, N=-1)
    uneven = {**fitted, "prose": replace(fitted["prose"], q=fitted["prose"].q[:5])}
    with pytest.raises(InputError, match=r"equally many draws at one level: code 20 at level 0\.9, prose 5 .*fit_tog"):
        weighted_optimum(uneven, 1e12, {"code": 1})
