"""Choices from a pool of runs: limits, gains of a plan, targets at given runs, repeated data, a real pool."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from designs.pool import START, Pool, average_for_pool, choose_from_pool, losses_at

from skillscale.design.allocation import AllocationProblem, SkillInformation, allocate_runs
from skillscale.design.discrepancy import discrepancy_basis
from skillscale.design.posterior import fit_posterior
from skillscale.design.priors import EPOCHS, RepeatedTokens, candidate_laws, law_name, prior_for
from skillscale.design.propose import DesignGoal
from skillscale.design.space import RunHistory
from skillscale.design.targets import Quantity, Target, default_targets
from skillscale.errors import InputError
from skillscale.simulation.random_truths import TruthFamily, random_truth

SKILLS = ("code",)
RNG = np.random.default_rng(5)
N, RATIO = np.exp(RNG.uniform(*np.log([1e7, 5e8]), 150)), np.exp(RNG.uniform(*np.log([2, 200]), 150))
POOL = Pool(N=N, D=N * RATIO, cost=6 * N**2 * RATIO)
BEYOND = RunHistory(N=np.array([1e9, 3e9, 3e9]), D=np.array([1e11, 2e10, 3e11]))
TARGETS = losses_at(BEYOND, SKILLS)


def follow(truth, pool, targets, budget, *, seed=0, runs=math.inf):
    """Return the indices of the runs chosen for a budget, and their history."""
    history, made, remaining = RunHistory.empty(SKILLS, 0 if pool.h is None else pool.h.shape[1]), [], budget
    rng = np.random.default_rng(seed)
    while True:
        goal = DesignGoal(targets=targets, budget=remaining, max_runs=runs - len(made))
        more = list(
            choose_from_pool(history, pool, goal, sorted(set(range(len(pool))) - set(made)), count=2 * START, seed=seed)
        )
        if not more:
            return made, history
        remaining -= pool.cost[more].sum()
        some = pool.runs(more)
        history = history.with_runs(some.N, some.D, some.h, *truth.measure(some.N, some.D, some.h, rng))
        made += more


def errors(truth, pool, history):
    """Return the errors of the predicted ln L beyond the pool."""
    averages = average_for_pool(history, pool, TARGETS)
    h = None if pool.h is None else np.zeros((len(BEYOND), 1))
    exact = {skill: truth.log_loss(skill, BEYOND.N, BEYOND.D) for skill in SKILLS}
    return np.array([averages[skill].log_loss(BEYOND.N, BEYOND.D, h) - exact[skill] for skill in SKILLS])


def test_runs_are_chosen_once_and_within_the_budget():
    budget = 0.03 * POOL.cost.sum()
    made, _ = follow(random_truth(TruthFamily.CHINCHILLA, 1), POOL, TARGETS, budget)
    assert len(made) == len(set(made))
    assert 0.9 * budget < POOL.cost[made].sum() <= budget * (1 + 1e-9)


def test_chosen_runs_predict_better_than_random_ones_of_the_same_cost():
    budget, by_design, at_random = 0.03 * POOL.cost.sum(), [], []
    for seed in range(4):
        truth = random_truth(TruthFamily.CHINCHILLA, seed)
        _, history = follow(truth, POOL, TARGETS, budget, seed=seed)
        by_design.append(errors(truth, POOL, history))
        rng, made, remaining = np.random.default_rng(seed), [], budget
        for at in rng.permutation(len(POOL)):
            if POOL.cost[at] <= remaining:
                made.append(int(at))
                remaining -= POOL.cost[at]
        some = POOL.runs(made)
        losses, sem = truth.measure(some.N, some.D, None, rng)
        at_random.append(errors(truth, POOL, RunHistory.empty(SKILLS).with_runs(some.N, some.D, None, losses, sem)))
    assert np.sqrt(np.mean(np.square(by_design))) < 0.8 * np.sqrt(np.mean(np.square(at_random)))


def test_targets_of_a_pool_may_be_optima():
    targets = default_targets(SKILLS, largest=1e19, computes=(1e20,))
    made, history = follow(random_truth(TruthFamily.CHINCHILLA, 2), POOL, targets, 0.02 * POOL.cost.sum())
    assert len(made) > START
    assert set(average_for_pool(history, POOL, targets)) == set(SKILLS)


def test_runs_beyond_the_budget_are_not_chosen():
    goal = DesignGoal(targets=TARGETS, budget=0.5 * POOL.cost.min())
    assert choose_from_pool(RunHistory.empty(SKILLS), POOL, goal, range(len(POOL)), count=4) == ()
    assert choose_from_pool(RunHistory.empty(SKILLS), POOL, replace(goal, budget=math.inf), (), count=4) == ()
    assert (
        choose_from_pool(RunHistory.empty(SKILLS), POOL, replace(goal, budget=1e30, max_runs=0), range(len(POOL))) == ()
    )
    only = int(np.argmin(POOL.cost))
    assert choose_from_pool(RunHistory.empty(SKILLS), POOL, replace(goal, budget=1e30), [only], count=4) == (only,)


def test_a_limit_of_runs_is_kept():
    made, _ = follow(random_truth(TruthFamily.CHINCHILLA, 3), POOL, TARGETS, POOL.cost.sum(), runs=13)
    assert len(made) == 13


def test_pools_that_make_no_sense_are_refused():
    with pytest.raises(InputError, match="no run"):
        Pool(N=np.zeros(0), D=np.zeros(0), cost=np.zeros(0))
    with pytest.raises(InputError, match="above 0"):
        Pool(N=np.ones(2), D=np.ones(2), cost=np.array([1.0, 0.0]))
    with pytest.raises(InputError, match="only a loss has one"):
        Target(quantity=Quantity.OPTIMUM, skill="code", C=1e20, N=1e9)


@pytest.mark.parametrize("by_mean_variance", [False, True])
def test_a_plan_counts_no_candidate_more_often_than_allowed(by_mean_variance):
    rng = np.random.default_rng(0)
    information = SkillInformation(
        M=np.eye(3), b=rng.normal(size=(30, 3)), gradients=rng.normal(size=(2, 3)), current_variances=np.ones(2)
    )
    problem = AllocationProblem(
        information=[information], combine=np.eye(2), weights=np.array([1.0, 2.0]), by_mean_variance=by_mean_variance
    )
    cost = np.exp(rng.normal(size=30))
    free = allocate_runs(problem, cost, budget=8.0, max_runs=math.inf)
    once = allocate_runs(problem, cost, budget=8.0, max_runs=math.inf, max_count=1.0)
    assert free.max() > 1.5
    assert once.max() <= 1 + 1e-9
    assert once @ cost == pytest.approx(8.0)
    even = np.full(30, 8.0 / cost.sum())
    assert problem.objective(free) < problem.objective(once) < problem.objective(even)
    assert allocate_runs(problem, cost, budget=1e3, max_runs=math.inf, max_count=1.0) == pytest.approx(np.ones(30))


def test_a_loss_at_a_run_and_its_gradient_are_those_of_the_posterior():
    target = TARGETS[1]
    _, history = follow(random_truth(TruthFamily.COUPLED_DRIFTING, 1), POOL, TARGETS, 0.02 * POOL.cost.sum())
    average = average_for_pool(history, POOL, TARGETS)[target.skill]
    posterior = average.posteriors[0]
    single = replace(average, posteriors=(posterior,), weights=np.ones(1))
    ((value, gradient),) = single.quantity_by_law(target.query_point)
    assert value == pytest.approx(float(posterior.log_loss(BEYOND.N, BEYOND.D, None)[1]))
    assert gradient @ np.linalg.solve(posterior.precision, gradient) > 0
    assert "of 3e+09 parameters" in target.name


def test_repeated_data_saturates_and_its_derivatives_are_differences():
    law = candidate_laws(replace(POOL, h=RNG.uniform(0, 5, (150, 1)), categories=(EPOCHS,)).space(()))[0]
    assert isinstance(law, RepeatedTokens)
    assert law_name(law) == "chinchilla"
    q = prior_for(law, 1.0)[0][None]
    z = law.covariates(np.full(4, 1e8), np.full(4, 1e10), np.log([[1.0], [4.0], [40.0], [400.0]]))
    log_L = law.log_loss(q, z)[0]
    assert (np.diff(log_L) > 0).all()
    assert log_L[0] == pytest.approx(law.inner.log_loss(q[:, :-3], law.inner.covariates(1e8, 1e10))[0, 0], abs=1e-8)
    for j in range(q.shape[1]):
        step = 1e-6 * np.eye(q.shape[1])[j]
        slope = (law.log_loss(q + step, z) - law.log_loss(q - step, z))[0] / 2e-6
        assert law.jacobian(q, z)[0, :, j] == pytest.approx(slope, abs=1e-6)


def test_the_saturation_of_repeated_data_is_recovered():
    epochs = RNG.uniform(0, 5, (150, 1))
    pool = replace(POOL, h=epochs, categories=(EPOCHS,))
    law = candidate_laws(pool.space(()))[0]
    q = prior_for(law, 1.0)[0]
    q[-3] = math.log(40.0)
    truth = law.log_loss(q[None], law.covariates(pool.N, pool.D, epochs))[0] + 0.003 * RNG.normal(size=150)
    history = RunHistory.empty(["a"], 1).with_runs(pool.N, pool.D, epochs, {"a": truth})
    posterior = fit_posterior(law, discrepancy_basis(pool.space(()), 1e20), history, ["a"])["a"]
    assert posterior.q[-3] == pytest.approx(math.log(40.0), abs=0.3)


def test_a_twentieth_of_the_cost_of_a_real_pool_predicts_its_test_runs(tables):
    path = tables / "scalebench_farseer.csv"
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    rows = pd.read_csv(path)
    train, test = (rows[rows["split"] == split] for split in ("train", "test"))
    N, D = train["params"].to_numpy(), train["tokens"].to_numpy()
    pool, beyond = Pool(N=N, D=D, cost=6 * N * D), RunHistory(N=test["params"].to_numpy(), D=test["tokens"].to_numpy())
    targets, remaining, made = losses_at(beyond, ["loss"]), 0.05 * 6 * (N * D).sum(), []
    history = RunHistory.empty(["loss"])
    log_L = np.log(train["loss"].to_numpy())
    while at := choose_from_pool(
        history, pool, DesignGoal(targets=targets, budget=remaining), sorted(set(range(len(N))) - set(made)), count=16
    ):
        made += at
        remaining -= float(pool.cost[list(at)].sum())
        history = RunHistory(N=N[made], D=D[made], log_L={"loss": log_L[made]}, sem={"loss": np.zeros(len(made))})
    L, predicted = (
        test["loss"].to_numpy(),
        np.exp(average_for_pool(history, pool, targets)["loss"].log_loss(beyond.N, beyond.D, None)),
    )
    assert 1 - ((L - predicted) ** 2).sum() / ((L - L.mean()) ** 2).sum() > 0.8
