"""Plans against brute force: dense grids of N, mixes and weights on the law, and bisection for what a size costs."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from planted_laws import CATEGORIES, CENTRE, bound, scattered, truth

from skillscale.errors import InputError
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.skill_law import FittedLaw, fit_together
from skillscale.laws.forms.catalogue import CHINCHILLA
from skillscale.laws.io.document import law_document, read_document
from skillscale.laws.optimum.optimum import validation_effect, weighted_optimum
from skillscale.laws.optimum.plan import PlanRequest, clip_bounds_to_runs, plan, round_sizes, size_costs

C = 6 * math.exp(sum(CENTRE))
WEIGHTS = {"code": 0.3, "prose": 0.7}
GRID = np.exp(np.linspace(math.log(1e2), math.log(1e8), 60_001))


def fitted(name: str, *, resamples: int = 60, noise: float = 0.003) -> dict[str, FittedLaw]:
    """Code and prose under one kind of law, whose floors and data terms differ."""
    law, theta = bound(name), truth(name)
    other = theta.copy()
    other[:3] *= [1.2, 0.7, 1.2]
    data = {"code": scattered(law, theta, n=60, noise=noise), "prose": scattered(law, other, n=60, noise=noise)}
    return fit_together(data, law=law, resamples=resamples)


@pytest.fixture(scope="module")
def plain() -> dict[str, FittedLaw]:
    return fitted("chinchilla")


@pytest.fixture(scope="module")
def mixed() -> dict[str, FittedLaw]:
    return fitted("effective_data")


@pytest.fixture(scope="module")
def mixed_plan(mixed):
    return plan(mixed, C, plan_request(validation={"code": 1.0}, sizes=(1e5,)))


def loss(laws, N, weights=WEIGHTS, C=C, h=None, row=None):
    """The weighted loss at N along a budget, from the formulas of the laws, for the estimate or a draw."""
    total = np.zeros(np.shape(N))
    for name, weight in weights.items():
        skill_law = laws[name]
        theta = skill_law.fit.theta if row is None else skill_law.law.theta(skill_law.q[row : row + 1])[0]
        total = total + weight * skill_law.law.loss(theta, N, C / 6 / np.asarray(N), h)
    return total


def best_of(laws, **how) -> tuple[float, float]:
    values = loss(laws, GRID, **how)
    return float(GRID[values.argmin()]), float(values.min())


def plan_request(**more) -> PlanRequest:
    return PlanRequest(**{"weights": WEIGHTS, "skills": ("code", "prose")} | more)


def test_verdicts_on_the_skills_of_a_plan_have_holms_p(plain):
    code, prose = plan(plain, C, plan_request()).size_gaps
    least, most = sorted((code.p, prose.p))
    assert sorted((code.p_holm, prose.p_holm)) == pytest.approx(
        sorted((min(1.0, 2 * least), min(1.0, max(2 * least, most))))
    )
    alone, other = plan(plain, C, plan_request(weights={"code": 1.0})).size_gaps
    assert math.isnan(alone.p_holm)
    assert other.p_holm == other.p


def test_the_planned_size_and_losses_are_those_of_a_dense_grid(plain):
    result = plan(plain, C, plan_request())
    N, least = best_of(plain)
    assert result.optimum.N.value == pytest.approx(N, rel=3e-4)
    assert result.loss.value == pytest.approx(least, rel=1e-8)
    for name, interval in result.losses.items():
        assert interval.value == pytest.approx(loss(plain, result.optimum.N.value, {name: 1.0}).item(), rel=1e-12)
        drawn = [loss(plain, result.optimum.N.value, {name: 1.0}, row=k).item() for k in range(60)]
        assert (interval.lo, interval.hi) == pytest.approx(np.quantile(drawn, [0.05, 0.95]), rel=1e-9)
        assert result.skill_optima[name].N.value == pytest.approx(best_of(plain, weights={name: 1.0})[0], rel=3e-4)


def test_the_cost_of_a_size_is_that_of_brute_force(plain):
    optimum = weighted_optimum(plain, C, WEIGHTS)
    (cost,) = [cost for cost in size_costs(plain, C, plan_request(sizes=(1.3e5,)), optimum) if cost.requested]
    more, compute = [], []
    for row in (None, *range(60)):
        least = best_of(plain, row=row)[1]
        more.append(loss(plain, 1.3e5, row=row).item() - least)
        growth = np.exp(np.linspace(0, math.log(3), 40_001))
        reached = loss(plain, np.full(len(growth), 1.3e5), C=C * growth, row=row) <= least
        compute.append(growth[reached.argmax()] - 1)
    assert cost.N == 1.3e5
    assert cost.excess.value == pytest.approx(more[0], rel=1e-5)
    assert (cost.excess.lo, cost.excess.hi) == pytest.approx(np.quantile(more[1:], [0.05, 0.95]), rel=1e-4)
    assert cost.compute.value == pytest.approx(compute[0], abs=1e-4)
    ends = np.quantile(compute[1:], [0.05, 0.95], method="inverted_cdf")
    assert (cost.compute.lo, cost.compute.hi) == pytest.approx(ends, abs=1e-4)
    change = [loss(plain, 1.3e5, row=k).item() - loss(plain, optimum.N.value, row=k).item() for k in range(60)]
    assert (cost.change.lo, cost.change.hi) == pytest.approx(np.quantile(change, [0.05, 0.95]), rel=1e-6)


def test_a_size_that_no_number_of_tokens_makes_up_for_has_infinite_cost(plain):
    (cost,) = [cost for cost in plan(plain, C, plan_request(sizes=(100.0,))).size_costs if cost.N == 100]
    floor = sum(
        w * np.dot(plain[k].fit.theta[:2], [1, 100.0 ** -plain[k].fit.theta[3]]) for k, w in WEIGHTS.items()
    )  # fmt: skip
    assert floor > best_of(plain)[1]
    assert cost.compute.value == cost.compute.hi == math.inf


def test_the_cost_of_the_planned_size_is_that_of_its_uncertainty(plain):
    result = plan(plain, C, plan_request())
    (planned,) = [cost for cost in result.size_costs if math.isclose(cost.N, result.optimum.N.value)]
    assert (planned.excess.value, planned.compute.value) == pytest.approx((0, 0), abs=1e-8)
    assert planned.excess.hi > 0
    assert (planned.change.lo, planned.change.hi) == (0, 0)
    assert [cost.N for cost in result.size_costs] == sorted(cost.N for cost in result.size_costs)


def test_near_optimal_sizes_cost_less_than_the_tolerance(plain):
    sizes = plan(plain, C, plan_request(tolerance=0.02)).near_optimal

    def ends(row):
        inside = GRID[loss(plain, GRID, C=1.02 * C, row=row) <= best_of(plain, row=row)[1]]
        return inside[0], inside[-1]

    assert (sizes.lo, sizes.hi) == pytest.approx(ends(None), rel=5e-4)
    drawn = np.array([ends(row) for row in range(60)])
    within = np.mean((drawn[:, :1] <= GRID) & (drawn[:, 1:] >= GRID), axis=0)
    sure = GRID[within >= 0.95]
    assert len(sure)
    assert (sizes.confident_lo, sizes.confident_hi) == pytest.approx((sure[0], sure[-1]), rel=5e-3)
    planned = weighted_optimum(plain, C, WEIGHTS).N.value
    assert sizes.chance == pytest.approx(np.mean((drawn[:, 0] <= planned) & (planned <= drawn[:, 1])))


def test_the_frontier_of_two_skills_is_that_of_a_grid_of_weights(plain):
    (frontier,) = plan(plain, C, plan_request()).frontiers
    assert (frontier.skill, frontier.rest, frontier.planned, frontier.with_mix) == ("code", {"prose": 1.0}, 0.3, False)
    assert [step.weight for step in frontier.points] == pytest.approx(np.linspace(0, 1, 11))
    planned = weighted_optimum(plain, C, WEIGHTS).N.value
    for step in frontier.points:
        N, _ = best_of(plain, weights={"code": step.weight, "prose": 1 - step.weight})
        assert step.N.value == pytest.approx(N, rel=3e-4)
        for name, point_loss, change in (
            ("code", step.skill_loss, step.skill_change),
            ("prose", step.rest_loss, step.rest_change),
        ):
            assert point_loss == pytest.approx(loss(plain, step.N.value, {name: 1.0}).item(), rel=1e-12)
            drawn = [
                np.log(loss(plain, np.array([step.N.value, planned]), {name: 1.0}, row=k)) @ [1, -1] for k in range(60)
            ]
            assert (change.lo, change.hi) == pytest.approx(np.quantile(drawn, [0.05, 0.95]), abs=1e-12)
    skill_losses = [step.skill_loss for step in frontier.points]
    rest = [step.rest_loss for step in frontier.points]
    assert skill_losses == sorted(skill_losses, reverse=True)
    assert rest == sorted(rest)


def test_three_skills_have_a_frontier_each_with_the_weighted_rest(plain):
    laws = plain | {"wiki": plain["code"]}
    some = plan(laws, C, plan_request(weights=WEIGHTS | {"wiki": 0.5}, skills=("code", "prose", "wiki"))).frontiers
    assert [frontier.skill for frontier in some] == ["code", "prose", "wiki"]
    assert some[0].rest == pytest.approx({"prose": 7 / 12, "wiki": 5 / 12})
    assert plan(plain, C, plan_request(skills=("code",))).frontiers == ()


def test_the_best_mix_is_that_of_a_grid_within_the_mixes_of_the_runs(mixed, mixed_plan):
    result = mixed_plan
    run = np.vstack([skill_law.runs.h for skill_law in mixed.values()])
    code, prose = (shares.ravel() for shares in np.meshgrid(*np.linspace(run.min(0), run.max(0), 101).T[:2]))
    h = np.column_stack([code, prose, 1 - code - prose])
    h = h[(h >= run.min(0)).all(1) & (h <= run.max(0)).all(1)]
    sizes = GRID[10_000:50_000:400]
    least = min(float(loss(mixed, sizes, h=mix).min()) for mix in h)
    assert result.best.loss.value <= least + 1e-9
    assert result.best.loss.value == pytest.approx(least, rel=2e-3)
    mix = np.array([share.value for share in result.best.mix.values()])
    weighted = sum(w * result.best_losses[k].value for k, w in WEIGHTS.items())
    assert weighted == pytest.approx(loss(mixed, result.best.N.value, h=mix).item(), rel=1e-9)
    free = [frontier for frontier in result.frontiers if frontier.with_mix]
    assert [frontier.skill for frontier in free] == ["code"]
    assert all(math.isclose(sum(step.mix.values()), 1) for step in free[0].points)
    fixed = next(frontier for frontier in result.frontiers if not frontier.with_mix)
    assert free[0].points[-1].skill_loss <= fixed.points[-1].skill_loss + 1e-9
    assert free[0].points[0].rest_loss <= fixed.points[0].rest_loss + 1e-9


def test_bounds_are_clipped_to_the_mixes_of_the_runs(mixed):
    run = np.vstack([skill_law.runs.h for skill_law in mixed.values()])
    every = clip_bounds_to_runs(mixed, {"code": (0.2, 0.3), "prose": (0.0, 0.5)})
    assert every["code"] == (0.2, 0.3)
    assert every["prose"] == pytest.approx((run[:, 1].min(), 0.5))
    assert every["wiki"] == pytest.approx((run[:, 2].min(), run[:, 2].max()))
    assert clip_bounds_to_runs(mixed, {"wiki": (0.9999, 1.0)})["wiki"] == (0.9999, 1.0)
    only = dict.fromkeys(CATEGORIES, (0.0, 0.3)) | {"wiki": (1.0, 1.0)}
    assert clip_bounds_to_runs(mixed, only) == only


def test_a_given_mix_is_used(mixed):
    mix = {"code": 0.5, "prose": 0.3, "wiki": 0.2}
    result = plan(mixed, C, plan_request(h=mix, skills=()))
    assert result.optimum.N.value == pytest.approx(best_of(mixed, h=np.array([0.5, 0.3, 0.2]))[0], rel=3e-4)


def test_the_cost_of_a_validation_set_is_that_of_brute_force(plain):
    used = {"code": 1.0}
    cost_of_choice = plan(plain, C, plan_request(validation=used)).validation_cost
    right, wrong = best_of(plain)[0], best_of(plain, weights=used)[0]
    assert cost_of_choice.optimum.N.value == pytest.approx(wrong, rel=3e-4)
    assert cost_of_choice.effect.shift.value == pytest.approx(math.log(wrong / right), abs=4e-4)
    cost = loss(plain, cost_of_choice.optimum.N.value).item() - loss(plain, right).item()
    assert cost_of_choice.effect.cost.value == pytest.approx(cost, rel=1e-3)
    assert cost_of_choice.effect == validation_effect(plain, C, WEIGHTS, used)
    over = [best_of(plain, weights={"code": w, "prose": 1 - w})[0] for w in np.linspace(0, 1, 21)]
    assert cost_of_choice.effect.largest.value == pytest.approx(max(over) / min(over) - 1, rel=2e-3)


def test_with_a_free_mix_a_validation_set_also_chooses_another_mix(mixed, mixed_plan):
    result = mixed_plan
    mix = np.array([share.value for share in result.validation_cost.best.mix.values()])
    had = loss(mixed, result.validation_cost.best.N.value, h=mix).item()
    assert result.validation_cost.best_change.value == pytest.approx(had - result.best.loss.value, abs=1e-9)
    assert result.validation_cost.best_change.value > 0


def test_round_sizes_are_those_within_a_factor_of_four():
    assert round_sizes(2.5e8) == pytest.approx([7e7, 1e8, 1.5e8, 2e8, 3e8, 5e8, 7e8, 1e9])


def test_saved_laws_give_the_same_plan(mixed, mixed_plan):
    saved = read_document(json.loads(json.dumps(law_document(mixed))))
    fresh, again = mixed_plan, plan(saved, C, plan_request(validation={"code": 1.0}, sizes=(1e5,)))
    assert again.optimum.N.value == pytest.approx(fresh.optimum.N.value, rel=1e-9)
    assert again.optimum.N.lo == pytest.approx(fresh.optimum.N.lo, rel=1e-9)
    assert again.best.N.value == pytest.approx(fresh.best.N.value, rel=1e-6)
    assert [cost.excess.value for cost in again.size_costs] == pytest.approx(
        [cost.excess.value for cost in fresh.size_costs], abs=1e-12
    )
    assert again.validation_cost.effect.shift.value == pytest.approx(fresh.validation_cost.effect.shift.value, abs=1e-9)
    assert again.scatter == pytest.approx(fresh.scatter)
    assert again.optimum.reason == fresh.optimum.reason


def with_rivals(weight: float = 0.6) -> dict[str, FittedLaw]:
    """Chinchilla with this weight and the coupled law with the rest, on the same resamples."""
    data = {name: skill_law.runs for name, skill_law in fitted("chinchilla", noise=0.01).items()}
    chosen, other = (fit_together(data, law=bound(name), resamples=100) for name in ("chinchilla", "coupled"))
    few = round((1 - weight) * 100)
    rivals = {name: replace(skill_law, q=skill_law.q[:few], weight=1 - weight) for name, skill_law in other.items()}
    return {
        name: replace(skill_law, weight=weight, setting="a", rivals=(rivals[name],))
        for name, skill_law in chosen.items()
    }


def test_intervals_include_the_choice_of_law_like_those_of_single_skills():
    laws = with_rivals()
    for name, skill_law in laws.items():
        single, weighted_N = skill_law.ensemble_optimum(C), weighted_optimum(laws, C, {name: 1.0}).N
        assert (weighted_N.value, weighted_N.lo, weighted_N.hi) == pytest.approx(
            (single.value, single.lo, single.hi), rel=1e-9
        )
    alone = {name: replace(skill_law, weight=1.0, rivals=()) for name, skill_law in laws.items()}
    weighted, chosen = (weighted_optimum(some, C, WEIGHTS) for some in (laws, alone))
    assert weighted.N.value == chosen.N.value
    np.testing.assert_array_equal(weighted.draws[:60], chosen.draws[:60])
    rival = {name: skill_law.rivals[0] for name, skill_law in laws.items()}
    np.testing.assert_allclose(
        weighted.draws[60:],
        weighted_optimum({name: replace(skill_law, weight=1.0) for name, skill_law in rival.items()}, C, WEIGHTS).draws,
    )
    saved = read_document(json.loads(json.dumps(law_document(laws))))
    again = weighted_optimum(saved, C, WEIGHTS)
    assert (again.N.lo, again.N.hi) == pytest.approx((weighted.N.lo, weighted.N.hi), rel=1e-9)


def test_skills_with_different_numbers_of_rival_draws_are_refused():
    laws = with_rivals()
    other = replace(laws["prose"], rivals=())
    with pytest.raises(InputError, match="Fit them with fit_together"):
        plan(laws | {"prose": other}, C, plan_request())


def planted(seed: int) -> dict[str, RunData]:
    """Five sizes at four budgets. The common part of a run's error is larger than that of single skills."""
    rng = np.random.default_rng(seed)
    budgets = np.repeat([1e17, 1e18, 1e19, 1e20], 6)
    N = np.sqrt(budgets / 120) * np.tile(np.geomspace(1 / 6, 6, 6), 4)
    common = 0.004 * rng.normal(size=24)
    theta = {"code": [0.9, 250.0, 900.0, 0.38, 0.36], "prose": [1.8, 480.0, 2100.0, 0.35, 0.37]}
    return {
        name: RunData(
            N=N, D=budgets / 6 / N, clusters=np.arange(24),
            L=CHINCHILLA.loss(parameters, N, budgets / 6 / N) * np.exp(common + 0.002 * rng.normal(size=24)),
        )
        for name, parameters in theta.items()
    }  # fmt: skip


@pytest.mark.slow
def test_intervals_of_a_planted_study_cover_its_optimum_and_a_size_cost():
    weights, at, size = {"code": 0.5, "prose": 0.5}, 1e21, 5e9
    theta = {"code": [0.9, 250.0, 900.0, 0.38, 0.36], "prose": [1.8, 480.0, 2100.0, 0.35, 0.37]}
    N = np.exp(np.linspace(math.log(1e8), math.log(1e11), 20_001))

    def true(sizes):
        return sum(w * CHINCHILLA.loss(theta[k], sizes, at / 6 / sizes) for k, w in weights.items())

    values = true(N)
    hits = []
    for seed in range(40):
        laws = fit_together(planted(seed), resamples=200)
        result = plan(laws, at, PlanRequest(weights=weights, skills=(), sizes=(size,)))
        (price,) = [cost for cost in result.size_costs if cost.requested]
        more = true(np.array([size]))[0] - values.min()
        best = N[values.argmin()]
        hits.append([result.optimum.N.lo <= best <= result.optimum.N.hi, price.excess.lo <= more <= price.excess.hi])
    assert (np.mean(hits, axis=0) >= 0.78).all()


def test_invalid_plans_are_refused(plain):
    with pytest.raises(InputError, match="no skill cod was fitted"):
        plan(plain, C, plan_request(weights={"cod": 1.0}))
    with pytest.raises(InputError, match="tolerance must be between 0 and 1"):
        plan_request(tolerance=1.0)
    with pytest.raises(InputError, match="must be above 0 FLOP"):
        plan(plain, -1.0, plan_request())
