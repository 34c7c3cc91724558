"""Beliefs, the plan, and the runs proposed: gradients, what runs bring, limits, endings, and planted truths."""

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


def grid_of(world, *, seed=0, sizes=9, noise=True, space=SPACE):
    """An isoFLOP grid of a world, its losses with or without noise."""
    C = np.repeat(np.geomspace(*FLOPS, 5), sizes)
    N = np.sqrt(C / 120) * np.tile(np.geomspace(1 / 8, 8, sizes), 5)
    h = None if space.mixes is None else np.tile(MIXES, (len(N), 1))[: len(N)]
    rng = np.random.default_rng(seed)
    log_L = (world if noise else replace(world, noise=1e-9, bad=0.0)).observe(N, C / (6 * N), h, rng)
    return RunHistory.empty(world.log_loss, 0 if h is None else 3).with_runs(N, C / (6 * N), h, log_L)


def follow(world, budget, *, seed=0, batch=4, runs=60, space=SPACE, mixes=()):
    """Runs as they are proposed, and how it ended."""
    targets = default_targets(SKILLS, largest=FLOPS[1], computes=[TARGET], mixes=mixes)
    history, left = RunHistory.empty(SKILLS, len(space.categories)), budget * FLOPS[1]
    rng = np.random.default_rng(seed)
    while True:
        wish = DesignGoal(targets=targets, left=left, runs=runs - len(history))
        advice = propose(history, space, wish, count=batch, seed=seed)
        if not advice.proposals:
            return history, advice
        N, D = (np.array([getattr(one, name) for one in advice.proposals]) for name in ("N", "D"))
        h = np.array([one.h for one in advice.proposals]) if space.categories else None
        left -= float(space.cost(N, D).sum())
        history = history.with_runs(N, D, h, world.observe(N, D, h, rng))


@pytest.mark.parametrize("space", [SPACE, MIXED], ids=["one mix", "mixes"])
def test_gradients_of_optima_are_their_differences(space):
    mix = MIXES[3] if space.categories else None
    surface = discrepancy_basis(space, TARGET)
    rng = np.random.default_rng(3)
    for law in candidate_laws(space):
        mean, sd = prior_for(law, 1.0)
        q = mean + 0.2 * sd * rng.normal(size=len(mean))
        history = RunHistory.empty(["a"], len(space.categories))
        belief = replace(fit_posterior(law, surface, history, ["a"])["a"], q=q)
        value, gradient = belief.optimum(TARGET, mix)
        for j in range(len(q)):
            step = np.zeros(len(q))
            step[j] = 1e-5
            ends = [law.log_optimum(law.theta((q + sign * step)[None]), [TARGET], mix)[0, 0] for sign in (1, -1)]
            assert gradient[j] == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4, abs=1e-5), law.log_names[j]
        assert math.isfinite(value)


def test_a_discrepancy_moves_the_optimum_as_a_search_finds():
    law, surface = candidate_laws(SPACE)[0], discrepancy_basis(SPACE, TARGET)
    belief = fit_posterior(law, surface, grid_of(random_truth(TruthFamily.ADD, 1)), ["code"])["code"]
    w = 0.002 * np.random.default_rng(0).normal(size=len(belief.w))
    belief = replace(belief, w=w)
    value, gradient = belief.optimum(1e19, None)
    log_N = np.linspace(value - 0.5, value + 0.5, 20001)
    losses = belief.log_loss(np.exp(log_N), 1e19 / 6 / np.exp(log_N), None)
    assert value == pytest.approx(log_N[losses.argmin()], abs=5e-3)
    flat, _ = replace(belief, w=0 * w).optimum(1e19, None)
    assert value - flat == pytest.approx(gradient[len(belief.q) :] @ w, rel=1e-6)


@pytest.mark.parametrize("kind", [TruthFamily.ADD, TruthFamily.REAL])
def test_optima_of_noiseless_grids_are_found(kind):
    world = random_truth(kind, 2)
    found = estimate_targets(grid_of(world, noise=False), SPACE, OPTIMA)
    truth = [float(world.log_optimum(skill, TARGET)[0]) for skill in SKILLS]
    assert np.abs(found.value - truth).max() < 0.06
    assert np.all((found.lo < truth) & (np.array(truth) < found.hi))


def test_the_law_behind_the_runs_carries_the_most_weight():
    skill = "code"
    for kind, names in ((TruthFamily.ADD, {"chinchilla", "coupled"}), (TruthFamily.REAL, {"coupled", "drifting"})):
        weights = average_laws(grid_of(random_truth(kind, 1)), SPACE, OPTIMA)[skill].by_name
        assert sum(weights.get(name, 0.0) for name in names) > 0.5
        assert sum(weights.values()) == pytest.approx(1)


def test_drift_is_told_alike_about_any_centre():
    free = next(law for law in candidate_laws(SPACE) if law.name == "drifting")
    bound = Drifting(free.x0, free.y0)
    q = np.array([[0.3, -0.9, -1.1, 0.34, 0.31, math.log(0.7), -0.03]])
    N, D = np.geomspace(1e7, 1e9, 9), np.geomspace(1e10, 1e9, 9)
    there = bound.log_loss(q, bound.covariates(N, D, None))
    assert free.log_loss(np.append(q, [[0.0]], axis=1), free.covariates(N, D, None)) == pytest.approx(there, rel=1e-12)
    moved = type(free)(free.x0, free.y0 + 2)  # the same drift, told about a centre two further down
    told = np.append(q, [[-2.0]], axis=1)
    told[0, 2] -= 2 * q[0, 4]
    assert moved.log_loss(told, moved.covariates(N, D, None)) == pytest.approx(there, rel=1e-9)


def test_the_noise_of_runs_is_told_as_their_sd_and_their_number_as_it_is():
    found, told = [], []
    for seed in range(6):
        world = random_truth(TruthFamily.ADD, seed)
        for skill in SKILLS:
            belief = fit_posterior(
                candidate_laws(SPACE)[0], discrepancy_basis(SPACE, TARGET), grid_of(world, seed=seed), [skill]
            )[skill]
            found.append(belief.noise)
            sd = np.append(prior_for(belief.law, 1.0)[1], belief.surface.sd(belief.scale))
            runs = grid_of(world, seed=seed)
            rows = belief.rows(runs.N, runs.D, None)
            told.append(np.trace(belief.precision - np.diag(sd**-2)) / (np.trace(rows.T @ rows) / belief.noise**2))
    assert np.mean(found) == pytest.approx(world.noise, rel=0.15)
    assert np.mean(told) == pytest.approx(1, abs=0.15)


def test_no_law_is_certain_after_few_runs():
    weights = [
        one.weights.max() for one in average_laws(grid_of(random_truth(TruthFamily.ADD, 2)), SPACE, OPTIMA).values()
    ]
    assert max(weights) < 0.9


def test_bad_runs_count_for_less():
    world = random_truth(TruthFamily.ADD, 4)
    history = grid_of(world)
    spoilt = {skill: values + 0.05 * (np.arange(len(history)) % 20 == 7) for skill, values in history.log_L.items()}
    belief = average_laws(replace(history, log_L=spoilt), SPACE, OPTIMA)["code"].beliefs[0]
    bad = np.arange(len(history)) % 20 == 7
    assert belief.trust[bad].max() < 0.3 < 0.6 < np.median(belief.trust[~bad])


def test_a_run_that_is_off_in_all_skills_is_known_by_them_together():
    alone, together, others = [], [], []
    for seed in range(4):
        history = grid_of(random_truth(TruthFamily.ADD, seed), seed=seed, sizes=4)
        bad = np.arange(len(history)) == len(history) - 1  # where the laws lean on it most
        history = replace(history, log_L={skill: values + 0.02 * bad for skill, values in history.log_L.items()})
        for_all = fit_posterior(candidate_laws(SPACE)[0], discrepancy_basis(SPACE, TARGET), history, SKILLS)
        for skill in SKILLS:
            one = fit_posterior(candidate_laws(SPACE)[0], discrepancy_basis(SPACE, TARGET), history, [skill])[skill]
            alone.append(one.trust[bad][0])
            together.append(for_all[skill].trust[bad][0])
            others.append(for_all[skill].trust[~bad].mean())
    assert max(together) < 0.05 < max(alone)
    assert min(others) > 0.7


def test_pulls_are_what_one_more_run_brings():
    rng = np.random.default_rng(1)
    root = rng.normal(size=(5, 5))
    question = SkillInformation(
        M=root @ root.T + np.eye(5), b=rng.normal(size=(7, 5)), gradients=rng.normal(size=(2, 5)), now=np.ones(2)
    )
    before, pull = question.after(np.zeros(7))
    for at in range(7):
        b = question.b[at]
        after = np.diag(question.gradients @ np.linalg.inv(question.M + np.outer(b, b)) @ question.gradients.T)
        told = before - pull[at] / (1 + b @ np.linalg.solve(question.M, b))
        assert after == pytest.approx(told)


def test_the_plan_spends_what_is_left_better_than_even_counts():
    rng = np.random.default_rng(2)
    question = SkillInformation(
        M=np.eye(4), b=rng.normal(size=(30, 4)), gradients=rng.normal(size=(3, 4)), now=np.ones(3)
    )
    problem = AllocationProblem(questions=[question], combine=np.eye(3), weights=np.ones(3))
    cost = rng.uniform(1, 5, size=30)
    counts = allocate_runs(problem, cost, left=60.0, runs=1e9)
    assert counts @ cost == pytest.approx(60.0)
    assert problem.value(counts) < problem.value(60.0 / (30 * cost)) - 0.05
    best = min(problem.value(np.eye(30)[at] * 60.0 / cost[at]) for at in range(30))
    assert problem.value(counts) < best
    few = allocate_runs(problem, cost, left=60.0, runs=8.0)
    assert few.sum() <= 8.0 * (1 + 1e-9)
    assert few @ cost <= 60.0 * (1 + 1e-9)


def test_runs_that_are_planned_halve_the_error_of_the_start():
    world = random_truth(TruthFamily.ADD, 5)
    history, advice = follow(world, 2.0, runs=40, batch=8)
    assert len(history) <= 40
    assert advice.ending is StopReason.SPENT
    truth = np.array([float(world.log_optimum(skill, TARGET)[0]) for skill in SKILLS])
    first = RunHistory(
        N=history.N[:START], D=history.D[:START], log_L={name: one[:START] for name, one in history.log_L.items()}
    )
    start, end = estimate_targets(first, SPACE, OPTIMA), estimate_targets(history, SPACE, OPTIMA)
    assert end.widest < 0.5 * start.widest
    assert np.abs(end.value - truth).max() < 0.35
    assert np.all(SPACE.allows(history.N, history.D))
    assert SPACE.cost(history.N, history.D).sum() <= 2.0 * FLOPS[1] * (1 + 1e-9)


def test_the_same_history_and_seed_give_the_same_runs():
    history = grid_of(random_truth(TruthFamily.ADD, 1), sizes=5)
    wish = DesignGoal(targets=OPTIMA, left=1e19)
    one, other = (propose(history, SPACE, wish, count=3, seed=4) for _ in range(2))
    assert [(each.N, each.D) for each in one.proposals] == [(each.N, each.D) for each in other.proposals]
    assert propose(history, SPACE, wish, count=3, seed=5).proposals != one.proposals


def test_proposals_say_what_they_bring_and_cost():
    history = grid_of(random_truth(TruthFamily.ADD, 1), sizes=5)
    advice = propose(history, SPACE, DesignGoal(targets=OPTIMA, left=2e19), count=2, forecast=True)
    for one in advice.proposals:
        assert one.purpose is Purpose.PLAN
        assert set(one.fall) == {target.name for target in OPTIMA}
        assert all(0 <= share < 1 for share in one.fall.values())
        assert max(one.fall.values()) > 0
        assert one.cost == pytest.approx(float(SPACE.cost(one.N, one.D)))
    assert advice.answer is not None
    assert advice.expected is not None
    assert advice.to_halve is not None
    assert advice.expected < advice.answer.widest
    assert advice.to_halve > 1e18
    assert all(sum(weights.values()) == pytest.approx(1) for weights in advice.laws.values())


def test_runs_under_way_are_not_asked_for_again():
    history = grid_of(random_truth(TruthFamily.ADD, 1), sizes=5)
    wish = DesignGoal(targets=OPTIMA, left=2e19)
    before = propose(history, SPACE, wish, seed=1)
    dear = np.array([1e9]), np.array([1e19 / 6e9])
    waiting = history.with_runs(np.repeat(dear[0], 4), np.repeat(dear[1], 4), None)
    after = propose(waiting, SPACE, wish, seed=1)
    assert after.answer is not None
    assert before.answer is not None
    assert after.answer.widest == pytest.approx(before.answer.widest, rel=1e-9)
    assert after.expected is not None
    assert before.expected is not None
    assert after.expected < before.expected


@pytest.mark.parametrize("replicates", [1, 2])
@pytest.mark.parametrize(
    "limits",
    [{"ratio": (19.0, 20.0)}, {"flops": (1e17, 1e17), "sizes": (1e7, 2e7, 5e7, 1e8)}, {"sizes": (5e7, 1e8)}],
    ids=["narrow", "one isoFLOP", "two sizes"],
)
def test_no_point_is_run_more_often_than_it_may_be(replicates, limits):
    space = replace(SPACE, replicates=replicates, **limits)
    history, _ = follow(random_truth(TruthFamily.ADD, 1), 6.0, space=space, runs=40, batch=8)
    places = np.log([history.N, history.D])
    alike = (np.abs(places[:, :, None] - places[:, None]) < 0.01).all(0)
    assert alike.sum(0).max() <= replicates


def test_an_exhausted_space_is_told():
    four = replace(SPACE, flops=(1e17, 1e17), sizes=(1e7, 2e7, 5e7, 1e8), replicates=2)
    history, advice = follow(random_truth(TruthFamily.ADD, 1), 6.0, space=four, runs=40, batch=8)
    assert (len(history), advice.ending) == (8, StopReason.EXHAUSTED)


def test_the_start_is_not_proposed_again_where_whole_batches_made_the_tokens_differ():
    whole = propose(
        RunHistory.empty(SKILLS), SPACE, DesignGoal(targets=OPTIMA, left=2e19), count=START, seed=1
    ).proposals
    history = RunHistory.empty(SKILLS)
    for asked in whole:
        (one,) = propose(history, SPACE, DesignGoal(targets=OPTIMA, left=2e19), seed=1).proposals
        assert (one.N, one.D) == (asked.N, asked.D)
        losses = {skill: np.array([1.0]) for skill in SKILLS}
        history = history.with_runs(np.array([one.N]), np.array([1.001 * one.D]), None, losses)


def test_it_ends_for_a_reason():
    history = grid_of(random_truth(TruthFamily.ADD, 1))
    assert propose(history, SPACE, DesignGoal(targets=OPTIMA, left=1e19, width=2.0)).ending is StopReason.PRECISE
    assert propose(history, SPACE, DesignGoal(targets=OPTIMA, left=1e15)).ending is StopReason.SPENT
    assert propose(history, SPACE, DesignGoal(targets=OPTIMA, left=1e19, runs=0)).ending is StopReason.SPENT
    many = grid_of(random_truth(TruthFamily.ADD, 1), sizes=99)
    assert propose(many, SPACE, DesignGoal(targets=OPTIMA, left=1.2e17)).ending is StopReason.WORTHLESS
    assert propose(RunHistory.empty(SKILLS), SPACE, DesignGoal(targets=OPTIMA, left=1e10)).ending is StopReason.SPENT


def test_mixes_are_planned_and_their_optima_found():
    world = random_truth(TruthFamily.ADD, 1, CATEGORIES)
    history, _ = follow(world, 3.0, space=MIXED, mixes=[tuple(MIXES[0]), tuple(MIXES[1])], runs=32, batch=8)
    assert history.h is not None
    assert {tuple(h) for h in history.h} <= {tuple(h) for h in MIXES}
    targets = tuple(replace(one, h=tuple(MIXES[at])) for one in OPTIMA for at in (0, 1))
    found = estimate_targets(history, MIXED, targets)
    truth = [float(world.log_optimum(one.skill, one.C, np.array(one.h))[0]) for one in targets]
    assert np.abs(found.value - truth).max() < 0.4


def test_supply_of_a_category_limits_its_runs():
    short = replace(MIXED, supply=np.array([1e9, 1e12, 1e12]))
    history = grid_of(random_truth(TruthFamily.ADD, 1, CATEGORIES), space=MIXED)
    targets = tuple(replace(one, h=tuple(MIXES[0])) for one in OPTIMA)
    empty = RunHistory.empty(SKILLS, 3)
    for runs in (history, empty):
        proposals = propose(runs, short, DesignGoal(targets=targets, left=5e19), count=12).proposals
        assert proposals
        assert all(one.D * one.h[0] <= 1e9 * (1 + 1e-6) for one in proposals)


def test_a_ladder_of_sizes_is_kept_to():
    ladder = replace(SPACE, sizes=(1e7, 3e7, 1e8, 3e8))
    history = grid_of(random_truth(TruthFamily.ADD, 1), sizes=5)
    proposals = propose(history, ladder, DesignGoal(targets=OPTIMA, left=3e19), count=6).proposals
    assert {one.N for one in proposals if one.purpose is Purpose.PLAN} <= set(ladder.sizes)


def test_a_skill_without_data_and_one_size_alone_leave_intervals_wide():
    history = grid_of(random_truth(TruthFamily.ADD, 1), sizes=5)
    silent = replace(history, log_L=dict(history.log_L) | {"code": np.full(len(history), np.nan)})
    found = estimate_targets(silent, SPACE, OPTIMA)
    half = dict(zip(SKILLS, (found.hi - found.lo) / 2, strict=True))
    assert half["code"] > 3 * half["prose"]
    single = replace(history, N=np.full(len(history), 1e8))
    assert estimate_targets(single, SPACE, OPTIMA).widest > 1.0


def test_runs_off_every_law_are_told():
    world = random_truth(TruthFamily.ADD, 1)
    history = grid_of(world, sizes=15)
    bent = 0.04 * np.sin(0.9 * np.log(history.N))
    advice = propose(
        replace(history, log_L={name: one + bent for name, one in history.log_L.items()}), SPACE,
        DesignGoal(targets=OPTIMA, left=1e19),
    )  # fmt: skip
    named = "off the sampler's 4 laws (chinchilla, coupled, drifting, farseer), by about"
    assert any(named in one or "count for less" in one for one in advice.warnings)
    assert not any(named in one for one in propose(history, SPACE, DesignGoal(targets=OPTIMA, left=1e19)).warnings)


def test_laws_offered_are_known_by_name():
    assert [law_name(law) for law in candidate_laws(SPACE)] == ["chinchilla", "coupled", "drifting", "farseer"]
    assert [law_name(law) for law in candidate_laws(MIXED)] == ["chinchilla", "coupled", "drifting", "farseer"]
