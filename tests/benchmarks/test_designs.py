"""Rival designs and analyses of the benchmarks: limits, gains, and recovery of known optima."""

import warnings

import numpy as np
import pytest
from designs.greedy_designs import GREEDY, DesignCriterion
from designs.optuna_baselines import OPTUNA_BASELINES
from designs.parabola_analysis import estimate_by_parabolas

from skillscale.design.propose import DesignGoal
from skillscale.design.space import DesignSpace, RunHistory
from skillscale.design.targets import default_targets
from skillscale.simulation.baselines import DESIGNS, isoflop_grid
from skillscale.simulation.random_truths import FLOPS, SKILLS, TruthFamily, random_truth
from skillscale.simulation.replay import ReplaySettings, run_design
from skillscale.simulation.truth import true_value

UNIT = FLOPS[1]
SPACE = DesignSpace(flops=FLOPS)
MIXED = DesignSpace(flops=FLOPS, categories=("a", "b"), mixes=np.array([[0.5, 0.5], [0.8, 0.2]]))


def goal_of(budget, space=SPACE):
    mixes = () if space.mixes is None else [tuple(mix) for mix in space.mixes]
    return DesignGoal(
        targets=default_targets(SKILLS, largest=UNIT, computes=[1e21], mixes=mixes), budget=budget * UNIT, max_runs=24
    )


def replay(make, budget, space=SPACE, *, family=TruthFamily.CHINCHILLA, **settings):
    return run_design(
        random_truth(family, 3, space.categories), make(space, goal_of(budget, space), 0), space,
        RunHistory.empty(SKILLS, len(space.categories)), ReplaySettings(budget=budget * UNIT, **settings),
        noise_rng=np.random.default_rng(1), design_rng=np.random.default_rng(2),
    )  # fmt: skip


def test_parabolas_recover_the_optimum_of_a_noiseless_grid():
    truth = random_truth(TruthFamily.CHINCHILLA, 5)
    grid = isoflop_grid(SPACE, 10.2 * UNIT)
    bare = {skill: truth.log_loss(skill, grid.N, grid.D) for skill in SKILLS}
    history = RunHistory.empty(SKILLS).with_runs(grid.N, grid.D, None, bare, {name: 0 * x for name, x in bare.items()})
    targets = default_targets(SKILLS, largest=UNIT, computes=[1e21])
    estimates = estimate_by_parabolas(history, targets)
    for target, value, lo, hi in zip(targets, estimates.value, estimates.lo, estimates.hi, strict=True):
        assert abs(value - true_value(truth, target)) < 0.25
        assert lo <= value <= hi


@pytest.mark.parametrize("name", GREEDY)
@pytest.mark.parametrize("space", [SPACE, MIXED], ids=["plain", "mixed"])
def test_greedy_designs_choose_within_budget_and_space(name, space):
    history = replay(GREEDY[name], 1.0, space, family=TruthFamily.COUPLED_DRIFTING, max_runs=16)
    assert 12 <= len(history) <= 16
    assert space.allows(history.N, history.D).all()
    assert space.cost(history.N, history.D).sum() <= UNIT


def test_the_gain_of_a_v_optimal_run_is_its_fall_of_prediction_variance():
    sobol = replay(DESIGNS["sobol"], 2.55)
    design = GREEDY["v-optimal"](SPACE, goal_of(1.0), 0)
    model = design._model(sobol, "code")
    here, there = SPACE.lattice(steps=5), SPACE.lattice()
    view = model.covariance_at((*here, None), (*there, None))
    at = 7

    def mean_variance(history):
        r = model.law.jacobian(model.Q, model.law.covariates(*there))[0][:, model.free]
        g = model.law.jacobian(model.Q, model.law.covariates(history.N, history.D))[0][:, model.free]
        before = model.law.jacobian(model.Q, model.law.covariates(sobol.N, sobol.D))[0][:, model.free]
        prior = np.linalg.inv(model.covariance[0]) - before.T @ before / model.noise**2
        return np.einsum("mp,pq,mq->m", r, np.linalg.inv(prior + g.T @ g / model.noise**2), r).mean()

    more = sobol.with_runs(here[0][at : at + 1], here[1][at : at + 1], None)
    assert view.gain(DesignCriterion.V_OPTIMAL)[at] == pytest.approx(
        mean_variance(sobol) - mean_variance(more), rel=1e-6
    )
    assert view.after(at).gain(DesignCriterion.V_OPTIMAL)[at] < view.gain(DesignCriterion.V_OPTIMAL)[at]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tpe", "gp"])
def test_optuna_baselines_spend_their_budget(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # GPSampler is experimental
        history = replay(OPTUNA_BASELINES[name], 1.3)
    assert 1.2e19 < SPACE.cost(history.N, history.D).sum() <= 1.3e19 * (1 + 1e-9)
