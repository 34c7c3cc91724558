"""Posteriors, allocation and proposals: gradients, information of runs, limits, stop reasons, and known truths."""

import math
from dataclasses import replace

import numpy as np
import pytest

from skillscale.design.allocation import AllocationProblem, SkillInformation, allocate_runs
from skillscale.design.discrepancy import discrepancy_basis
from skillscale.design.model_averaging import average_laws, estimate_targets
from skillscale.design.posterior import fit_posterior
from skillscale.design.priors import candidate_laws, law_name, prior_for
from skillscale.design.proposal import Purpose, StopReason
from skillscale.design.propose import START, DesignGoal, propose
from skillscale.design.space import DesignSpace, RunHistory
from skillscale.design.targets import Quantity, Target, default_targets
from skillscale.laws.forms.nd import Drifting
from skillscale.simulation.random_truths import FLOPS, SKILLS, TruthFamily, random_truth

TARGET = 1e21
SPACE = DesignSpace(flops=FLOPS)
CATEGORIES = ("facts", "code", "prose")
MIXES = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.4, 0.3, 0.3]])
MIXED = DesignSpace(flops=FLOPS, categories=CATEGORIES, mixes=MIXES)
OPTIMA = tuple(Target(quantity=Quantity.OPTIMUM, skill=skill, C=TARGET) for skill in SKILLS)


def grid_of(truth, *, seed=0, sizes=9, noise=True, space=SPACE):
    """Return an isoFLOP grid of a truth, with or without noise of the losses."""
    C = np.repeat(np.geomspace(*FLOPS, 5), sizes)
    N = np.sqrt(C / 120) * np.tile(np.geomspace(1 / 8, 8, sizes), 5)
    h = None if space.mixes is None else np.tile(MIXES, (len(N), 1))[: len(N)]
    rng = np.random.default_rng(seed)
    losses = (truth if noise else replace(truth, noise=1e-9, bad_share=0.0)).measure(N, C / (6 * N), h, rng)
    return RunHistory.empty(truth.skills, 0 if h is None else 3).with_runs(N, C / (6 * N), h, *losses)


def follow(truth, budget, *, seed=0, batch=4, runs=60, space=SPACE, mixes=()):
    """Make the proposed runs until the design stops; return them and the last recommendation."""
    targets = default_targets(SKILLS, largest=FLOPS[1], computes=[TARGET], mixes=mixes)
    history, remaining = RunHistory.empty(SKILLS, len(space.categories)), budget * FLOPS[1]
    rng = np.random.default_rng(seed)
    while True:
        goal = DesignGoal(targets=targets, budget=remaining, max_runs=runs - len(history))
        advice = propose(history, space, goal, count=batch, seed=seed)
        if not advice.proposals:
            return history, advice
        N, D = (np.array([getattr(proposal, name) for proposal in advice.proposals]) for name in ("N", "D"))
        h = np.array([proposal.h for proposal in advice.proposals]) if space.categories else None
        remaining -= float(space.cost(N, D).sum())
        history = history.with_runs(N, D, h, *truth.measure(N, D, h, rng))


@pytest.mark.parametrize("space", [SPACE, MIXED], ids=["one mix", "mixes"])
def test_gradients_of_optima_are_their_differences(space):
    mix = MIXES[3] if space.categories else None
    discrepancy = discrepancy_basis(space, TARGET)
    rng = np.random.default_rng(3)
    for law in candidate_laws(space):
        mean, sd = prior_for(law, 1.0)
        q = mean + 0.2 * sd * rng.normal(size=len(mean))
        history = RunHistory.empty(["a"], len(space.categories))
        posterior = replace(fit_posterior(law, discrepancy, history, ["a"])["a"], q=q)
        value, gradient = posterior.log_optimum(TARGET, mix)
        for j in range(len(q)):
            step = np.zeros(len(q))
            step[j] = 1e-5
            ends = [law.log_optimum(law.theta((q + sign * step)[None]), [TARGET], mix)[0, 0] for sign in (1, -1)]
            assert gradient[j] == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4, abs=1e-5), law.log_names[j]
        assert math.isfinite(value)


def test_the_shift_of_the_optimum_by_a_discrepancy_is_that_of_a_search():
    law, discrepancy = candidate_laws(SPACE)[0], discrepancy_basis(SPACE, TARGET)
    posterior = fit_posterior(law, discrepancy, grid_of(random_truth(TruthFamily.CHINCHILLA, 1)), ["code"])["code"]
    w = 0.002 * np.random.default_rng(0).normal(size=len(posterior.w))
    posterior = replace(posterior, w=w)
    value, gradient = posterior.log_optimum(1e19, None)
    log_N = np.linspace(value - 0.5, value + 0.5, 20001)
    losses = posterior.log_loss(np.exp(log_N), 1e19 / 6 / np.exp(log_N), None)
    assert value == pytest.approx(log_N[losses.argmin()], abs=5e-3)
    flat, _ = replace(posterior, w=0 * w).log_optimum(1e19, None)
    assert value - flat == pytest.approx(gradient[len(posterior.q) :] @ w, rel=1e-6)


@pytest.mark.parametrize("kind", [TruthFamily.CHINCHILLA, TruthFamily.COUPLED_DRIFTING])
def test_optima_of_noiseless_grids_are_recovered(kind):
    truth = random_truth(kind, 2)
    estimates = estimate_targets(grid_of(truth, noise=False), SPACE, OPTIMA)
    expected = [truth.log_optimum(skill, TARGET) for skill in SKILLS]
    assert np.abs(estimates.value - expected).max() < 0.06
    assert np.all((estimates.lo < expected) & (np.array(expected) < estimates.hi))


def test_the_law_behind_the_runs_carries_the_most_weight():
    skill = "code"
    for kind, names in (
        (TruthFamily.CHINCHILLA, {"chinchilla", "coupled"}),
        (TruthFamily.COUPLED_DRIFTING, {"coupled", "drifting"}),
    ):
        weights = average_laws(grid_of(random_truth(kind, 1)), SPACE, OPTIMA)[skill].law_weights
        assert sum(weights.get(name, 0.0) for name in names) > 0.5
        assert sum(weights.values()) == pytest.approx(1)


def test_drift_is_the_same_about_any_centre():
    free = next(law for law in candidate_laws(SPACE) if law.name == "drifting")
    bound = Drifting(free.x0, free.y0)
    q = np.array([[0.3, -0.9, -1.1, 0.34, 0.31, math.log(0.7), -0.03]])
    N, D = np.geomspace(1e7, 1e9, 9), np.geomspace(1e10, 1e9, 9)
    there = bound.log_loss(q, bound.covariates(N, D, None))
    assert free.log_loss(np.append(q, [[0.0]], axis=1), free.covariates(N, D, None)) == pytest.approx(there, rel=1e-12)
    moved = type(free)(free.x0, free.y0 + 2)  # the same drift about a centre lower by 2
    shifted = np.append(q, [[-2.0]], axis=1)
    shifted[0, 2] -= 2 * q[0, 4]
    assert moved.log_loss(shifted, moved.covariates(N, D, None)) == pytest.approx(there, rel=1e-9)


def test_the_posterior_has_the_noise_sd_and_counts_each_run_once():
    noises, counts = [], []
    for seed in range(6):
        truth = random_truth(TruthFamily.CHINCHILLA, seed)
        for skill in SKILLS:
            posterior = fit_posterior(
                candidate_laws(SPACE)[0], discrepancy_basis(SPACE, TARGET), grid_of(truth, seed=seed), [skill]
            )[skill]
            noises.append(posterior.noise)
            sd = np.append(prior_for(posterior.law, 1.0)[1], posterior.discrepancy.sd(posterior.scale))
            runs = grid_of(truth, seed=seed)
            rows = posterior.jacobian(runs.N, runs.D, None)
            counts.append(
                np.trace(posterior.precision - np.diag(sd**-2)) / (np.trace(rows.T @ rows) / posterior.noise**2)
            )
    assert np.mean(noises) == pytest.approx(truth.noise, rel=0.15)
    assert np.mean(counts) == pytest.approx(1, abs=0.15)


def test_no_law_is_certain_after_few_runs():
    weights = [
        average.weights.max()
        for average in average_laws(grid_of(random_truth(TruthFamily.CHINCHILLA, 2)), SPACE, OPTIMA).values()
    ]
    assert max(weights) < 0.9


def test_bad_runs_get_low_weight():
    truth = random_truth(TruthFamily.CHINCHILLA, 4)
    history = grid_of(truth)
    spoilt = {skill: values + 0.05 * (np.arange(len(history)) % 20 == 7) for skill, values in history.log_L.items()}
    posterior = average_laws(replace(history, log_L=spoilt), SPACE, OPTIMA)["code"].posteriors[0]
    bad = np.arange(len(history)) % 20 == 7
    assert posterior.run_weights[bad].max() < 0.3 < 0.6 < np.median(posterior.run_weights[~bad])


def test_a_run_that_is_bad_in_all_skills_shows_in_all_together():
    alone, together, others = [], [], []
    for seed in range(4):
        history = grid_of(random_truth(TruthFamily.CHINCHILLA, seed), seed=seed, sizes=4)
        bad = np.arange(len(history)) == len(history) - 1  # where its leverage is largest
        history = replace(history, log_L={skill: values + 0.02 * bad for skill, values in history.log_L.items()})
        for_all = fit_posterior(candidate_laws(SPACE)[0], discrepancy_basis(SPACE, TARGET), history, SKILLS)
        for skill in SKILLS:
            by_itself = fit_posterior(candidate_laws(SPACE)[0], discrepancy_basis(SPACE, TARGET), history, [skill])[
                skill
            ]
            alone.append(by_itself.run_weights[bad][0])
            together.append(for_all[skill].run_weights[bad][0])
            others.append(for_all[skill].run_weights[~bad].mean())
    assert max(together) < 0.05 < max(alone)
    assert min(others) > 0.7


def test_squared_sensitivities_give_the_effect_of_another_run():
    rng = np.random.default_rng(1)
    root = rng.normal(size=(5, 5))
    information = SkillInformation(
        M=root @ root.T + np.eye(5),
        b=rng.normal(size=(7, 5)),
        gradients=rng.normal(size=(2, 5)),
        current_variances=np.ones(2),
    )
    before, pull = information.variances_after(np.zeros(7))
    for at in range(7):
        b = information.b[at]
        after = np.diag(information.gradients @ np.linalg.inv(information.M + np.outer(b, b)) @ information.gradients.T)
        by_sensitivity = before - pull[at] / (1 + b @ np.linalg.solve(information.M, b))
        assert after == pytest.approx(by_sensitivity)


def test_the_allocation_is_better_than_even_counts():
    rng = np.random.default_rng(2)
    information = SkillInformation(
        M=np.eye(4), b=rng.normal(size=(30, 4)), gradients=rng.normal(size=(3, 4)), current_variances=np.ones(3)
    )
    problem = AllocationProblem(information=[information], combine=np.eye(3), weights=np.ones(3))
    cost = rng.uniform(1, 5, size=30)
    counts = allocate_runs(problem, cost, budget=60.0, max_runs=1e9)
    assert counts @ cost == pytest.approx(60.0)
    assert problem.objective(counts) < problem.objective(60.0 / (30 * cost)) - 0.05
    best = min(problem.objective(np.eye(30)[at] * 60.0 / cost[at]) for at in range(30))
    assert problem.objective(counts) < best
    few = allocate_runs(problem, cost, budget=60.0, max_runs=8.0)
    assert few.sum() <= 8.0 * (1 + 1e-9)
    assert few @ cost <= 60.0 * (1 + 1e-9)


def test_planned_runs_halve_the_error_of_the_start():
    truth = random_truth(TruthFamily.CHINCHILLA, 5)
    history, advice = follow(truth, 2.0, runs=40, batch=8)
    assert len(history) <= 40
    assert advice.stop_reason is StopReason.SPENT
    expected = np.array([truth.log_optimum(skill, TARGET) for skill in SKILLS])
    first = RunHistory(
        N=history.N[:START], D=history.D[:START], log_L={skill: log_L[:START] for skill, log_L in history.log_L.items()}
    )
    start, end = estimate_targets(first, SPACE, OPTIMA), estimate_targets(history, SPACE, OPTIMA)
    assert end.widest_half_width < 0.5 * start.widest_half_width
    assert np.abs(end.value - expected).max() < 0.35
    assert np.all(SPACE.allows(history.N, history.D))
    assert SPACE.cost(history.N, history.D).sum() <= 2.0 * FLOPS[1] * (1 + 1e-9)


def test_the_same_history_and_seed_give_the_same_runs():
    history = grid_of(random_truth(TruthFamily.CHINCHILLA, 1), sizes=5)
    goal = DesignGoal(targets=OPTIMA, budget=1e19)
    first, second = (propose(history, SPACE, goal, count=3, seed=4) for _ in range(2))
    assert [(run.N, run.D) for run in first.proposals] == [(run.N, run.D) for run in second.proposals]
    assert propose(history, SPACE, goal, count=3, seed=5).proposals != first.proposals


def test_proposals_hold_their_narrowing_and_cost():
    history = grid_of(random_truth(TruthFamily.CHINCHILLA, 1), sizes=5)
    advice = propose(history, SPACE, DesignGoal(targets=OPTIMA, budget=2e19), count=2, forecast=True)
    for proposal in advice.proposals:
        assert proposal.purpose is Purpose.PLAN
        assert set(proposal.narrowing) == {target.name for target in OPTIMA}
        assert all(0 <= share < 1 for share in proposal.narrowing.values())
        assert max(proposal.narrowing.values()) > 0
        assert proposal.cost == pytest.approx(float(SPACE.cost(proposal.N, proposal.D)))
    assert advice.estimates is not None
    assert advice.expected_half_width is not None
    assert advice.flops_to_halve is not None
    assert advice.expected_half_width < advice.estimates.widest_half_width
    assert advice.flops_to_halve > 1e18
    assert all(sum(weights.values()) == pytest.approx(1) for weights in advice.law_weights.values())


def test_the_plan_counts_runs_under_way():
    history = grid_of(random_truth(TruthFamily.CHINCHILLA, 1), sizes=5)
    goal = DesignGoal(targets=OPTIMA, budget=2e19)
    before = propose(history, SPACE, goal, seed=1)
    dear = np.array([1e9]), np.array([1e19 / 6e9])
    waiting = history.with_runs(np.repeat(dear[0], 4), np.repeat(dear[1], 4), None)
    after = propose(waiting, SPACE, goal, seed=1)
    assert after.estimates is not None
    assert before.estimates is not None
    assert after.estimates.widest_half_width == pytest.approx(before.estimates.widest_half_width, rel=1e-9)
    assert after.expected_half_width is not None
    assert before.expected_half_width is not None
    assert after.expected_half_width < before.expected_half_width


@pytest.mark.parametrize("replicates", [1, 2])
@pytest.mark.parametrize(
    "limits",
    [{"ratio": (19.0, 20.0)}, {"flops": (1e17, 1e17), "sizes": (1e7, 2e7, 5e7, 1e8)}, {"sizes": (5e7, 1e8)}],
    ids=["narrow", "one isoFLOP", "two sizes"],
)
def test_no_point_has_more_runs_than_replicates(replicates, limits):
    space = replace(SPACE, replicates=replicates, **limits)
    history, _ = follow(random_truth(TruthFamily.CHINCHILLA, 1), 6.0, space=space, runs=40, batch=8)
    places = np.log([history.N, history.D])
    alike = (np.abs(places[:, :, None] - places[:, None]) < 0.01).all(0)
    assert alike.sum(0).max() <= replicates


def test_an_exhausted_space_is_a_stop_reason():
    four = replace(SPACE, flops=(1e17, 1e17), sizes=(1e7, 2e7, 5e7, 1e8), replicates=2)
    history, advice = follow(random_truth(TruthFamily.CHINCHILLA, 1), 6.0, space=four, runs=40, batch=8)
    assert (len(history), advice.stop_reason) == (8, StopReason.EXHAUSTED)


def test_the_start_is_not_proposed_again_where_whole_batches_made_the_tokens_differ():
    whole = propose(
        RunHistory.empty(SKILLS), SPACE, DesignGoal(targets=OPTIMA, budget=2e19), count=START, seed=1
    ).proposals
    history = RunHistory.empty(SKILLS)
    for expected in whole:
        (proposal,) = propose(history, SPACE, DesignGoal(targets=OPTIMA, budget=2e19), seed=1).proposals
        assert (proposal.N, proposal.D) == (expected.N, expected.D)
        losses = {skill: np.array([1.0]) for skill in SKILLS}
        history = history.with_runs(np.array([proposal.N]), np.array([1.001 * proposal.D]), None, losses)


def test_the_design_stops_for_a_reason():
    history = grid_of(random_truth(TruthFamily.CHINCHILLA, 1))
    assert (
        propose(history, SPACE, DesignGoal(targets=OPTIMA, budget=1e19, target_half_width=2.0)).stop_reason
        is StopReason.PRECISE
    )
    assert propose(history, SPACE, DesignGoal(targets=OPTIMA, budget=1e15)).stop_reason is StopReason.SPENT
    assert propose(history, SPACE, DesignGoal(targets=OPTIMA, budget=1e19, max_runs=0)).stop_reason is StopReason.SPENT
    many = grid_of(random_truth(TruthFamily.CHINCHILLA, 1), sizes=99)
    assert propose(many, SPACE, DesignGoal(targets=OPTIMA, budget=1.2e17)).stop_reason is StopReason.WORTHLESS
    assert (
        propose(RunHistory.empty(SKILLS), SPACE, DesignGoal(targets=OPTIMA, budget=1e10)).stop_reason
        is StopReason.SPENT
    )


def test_mixes_are_planned_and_their_optima_recovered():
    truth = random_truth(TruthFamily.CHINCHILLA, 1, CATEGORIES)
    history, _ = follow(truth, 3.0, space=MIXED, mixes=[tuple(MIXES[0]), tuple(MIXES[1])], runs=32, batch=8)
    assert history.h is not None
    assert {tuple(h) for h in history.h} <= {tuple(h) for h in MIXES}
    targets = tuple(replace(target, h=tuple(MIXES[at])) for target in OPTIMA for at in (0, 1))
    estimates = estimate_targets(history, MIXED, targets)
    expected = [truth.log_optimum(target.skill, target.C, np.array(target.h)) for target in targets]
    assert np.abs(estimates.value - expected).max() < 0.4


def test_supply_of_a_category_limits_its_runs():
    short = replace(MIXED, supply=np.array([1e9, 1e12, 1e12]))
    history = grid_of(random_truth(TruthFamily.CHINCHILLA, 1, CATEGORIES), space=MIXED)
    targets = tuple(replace(target, h=tuple(MIXES[0])) for target in OPTIMA)
    empty = RunHistory.empty(SKILLS, 3)
    for runs in (history, empty):
        proposals = propose(runs, short, DesignGoal(targets=targets, budget=5e19), count=12).proposals
        assert proposals
        assert all(run.D * run.h[0] <= 1e9 * (1 + 1e-6) for run in proposals)


def test_a_ladder_of_sizes_is_kept_to():
    ladder = replace(SPACE, sizes=(1e7, 3e7, 1e8, 3e8))
    history = grid_of(random_truth(TruthFamily.CHINCHILLA, 1), sizes=5)
    proposals = propose(history, ladder, DesignGoal(targets=OPTIMA, budget=3e19), count=6).proposals
    assert {run.N for run in proposals if run.purpose is Purpose.PLAN} <= set(ladder.sizes)


def test_a_skill_without_data_and_one_size_alone_leave_intervals_wide():
    history = grid_of(random_truth(TruthFamily.CHINCHILLA, 1), sizes=5)
    silent = replace(history, log_L=dict(history.log_L) | {"code": np.full(len(history), np.nan)})
    estimates = estimate_targets(silent, SPACE, OPTIMA)
    half = dict(zip(SKILLS, (estimates.hi - estimates.lo) / 2, strict=True))
    assert half["code"] > 3 * half["prose"]
    single = replace(history, N=np.full(len(history), 1e8))
    assert estimate_targets(single, SPACE, OPTIMA).widest_half_width > 1.0


def test_runs_that_no_law_fits_give_a_warning():
    truth = random_truth(TruthFamily.CHINCHILLA, 1)
    history = grid_of(truth, sizes=15)
    bent = 0.04 * np.sin(0.9 * np.log(history.N))
    advice = propose(
        replace(history, log_L={skill: log_L + bent for skill, log_L in history.log_L.items()}), SPACE,
        DesignGoal(targets=OPTIMA, budget=1e19),
    )  # fmt: skip
    misfit = "none of the sampler's 4 laws (chinchilla, coupled, drifting, farseer) fits"
    assert any(misfit in warning or "get low weight" in warning for warning in advice.warnings)
    assert not any(
        misfit in warning for warning in propose(history, SPACE, DesignGoal(targets=OPTIMA, budget=1e19)).warnings
    )


def test_candidate_laws_have_names():
    assert [law_name(law) for law in candidate_laws(SPACE)] == ["chinchilla", "coupled", "drifting", "farseer"]
    assert [law_name(law) for law in candidate_laws(MIXED)] == ["chinchilla", "coupled", "drifting", "farseer"]
