import dataclasses
import itertools
import math

import pytest

from skillscale import config
from skillscale.errors import InputError
from skillscale.execution.grid import budget_sizes, cost, expected_optimum, grid_points, shared_sizes, tokens_to_train
from skillscale.point import DesignPoint, Mix


@pytest.fixture(scope="module")
def main_config():
    return config.load()


def test_every_budget_is_spent_at_the_sizes_reached(main_config):
    for point in grid_points(main_config):
        assert point.point.flops == pytest.approx(point.budget, rel=0.01)


def test_the_default_grid_brackets_the_expected_optimum_with_six_sizes_over_a_factor_of_eight_each_side(main_config):
    points = grid_points(main_config)
    study = main_config.study
    assert len(study.budgets) >= 3
    assert max(study.budgets) / min(study.budgets) >= 8
    for budget in study.budgets:
        sizes = sorted({point.point.n_params for point in points if point.budget == budget})
        centre = expected_optimum(budget, study)
        assert len(sizes) >= 6
        assert sizes[0] < centre / 6
        assert sizes[-1] > centre * 6


def test_wanted_sizes_are_geometric_around_the_optimum(main_config):
    sizes = budget_sizes(1e11, main_config.study)
    steps = {round(math.log(b / a), 9) for a, b in itertools.pairwise(sizes)}
    assert len(steps) == 1
    assert math.sqrt(sizes[0] * sizes[-1]) == pytest.approx(expected_optimum(1e11, main_config.study))


def test_seeds_differ_between_budgets_and_are_shared_within_one(main_config):
    by_budget = {}
    for point in grid_points(main_config):
        by_budget.setdefault(point.budget, {}).setdefault(point.point.n_params, set()).add(point.point.seed)
    seeds = [frozenset.union(*map(frozenset, sizes.values())) for sizes in by_budget.values()]
    assert all(
        set(group) == set(next(iter(sizes.values()))) for sizes in by_budget.values() for group in sizes.values()
    )
    assert len(frozenset.union(*seeds)) == sum(map(len, seeds))


def test_the_longest_points_of_a_round_come_first(main_config):
    points = [point.point for point in grid_points(main_config)]
    first_round = main_config.study.sizes * len(main_config.study.budgets)
    costs = [cost(point) for point in points[:first_round]]
    assert costs == sorted(costs, reverse=True)


def test_a_budget_below_one_sequence_is_refused_with_the_cure(main_config):
    small = config.load(
        overrides={"study.budgets": "[1.0e+9]", "study.seeds": "[1]", "study.optimum_coefficient": "30"}
    )
    with pytest.raises(InputError, match="Raise the budget"):
        grid_points(small)


def test_a_study_that_grows_keeps_the_seeds_it_had(main_config):
    more = config.load(overrides={"study.seeds": "[4]"})
    before = {point.point.key for point in grid_points(main_config)}
    assert before <= {point.point.key for point in grid_points(more)}
    largest = max(main_config.study.budgets)
    alone = {point.point.key for point in grid_points(main_config, budgets=[largest])}
    assert alone == {point.point.key for point in grid_points(main_config) if point.budget == largest}


@pytest.fixture(scope="module")
def branches():
    return config.load(study="skills-hour", overrides={"train.schedule": "wsd"})


def test_budgets_of_branches_share_sizes_and_seeds(branches):
    points = grid_points(branches)
    trunks = {point.point.stable_phase for point in points}
    assert len(trunks) < len(points) / 2
    per_budget = {budget: {e.point.n_params for e in points if e.budget == budget} for budget in branches.study.budgets}
    for below, above in itertools.pairwise(per_budget.values()):
        assert len(below) == len(above) == branches.study.sizes
        assert len(below & above) >= branches.study.sizes - 1
    assert {point.point.seed for point in points} == {0, 1, 2}


def test_sizes_on_the_ladder_lie_within_half_a_step_of_those_wanted(branches):
    study = branches.study
    step = study.span ** (2 / (study.sizes - 1))
    for budget in (*study.budgets, 3.3e11, 7.7e12):
        moved = [
            math.log(on / by, step)
            for on, by in zip(shared_sizes(budget, study), budget_sizes(budget, study), strict=True)
        ]
        assert max(map(abs, moved)) <= 0.5 + 1e-9
        assert all(round(math.log(size, step), 6).is_integer() for size in shared_sizes(budget, study))


def test_branches_of_a_study_that_grows_keep_their_points(branches):
    grown = dataclasses.replace(branches.study, budgets=(*branches.study.budgets, 3.24e12), seeds=(3, 3, 2, 2, 1))
    before = {point.point.key for point in grid_points(branches)}
    assert before <= {point.point.key for point in grid_points(dataclasses.replace(branches, study=grown))}


def test_trunks_begin_with_their_shortest_points_the_costliest_trunk_first(branches):
    points = [point.point for point in grid_points(branches)]
    for seed in (0, 1, 2):
        trained = [point for point in points if point.seed == seed]
        firsts = list({point.stable_phase: point for point in reversed(trained)}.values())
        for trunk in {point.stable_phase for point in trained}:
            lengths = [point.n_tokens for point in trained if point.stable_phase == trunk]
            assert lengths == sorted(lengths)
        assert set(trained[: len(firsts)]) == set(firsts), "no worker waits for another while there are trunks"
    longest = {point.stable_phase: cost(point) for point in points}
    order = [longest[point.stable_phase] for point in points[:8]]
    assert order == sorted(order, reverse=True)


def test_tokens_of_branches_by_hand():
    points = [
        DesignPoint(n_params=9, n_tokens=d, mix=Mix({"code": 1}), seed=s) for d, s in ((1000, 0), (100, 0), (50, 1))
    ]
    assert tokens_to_train(points, 0.2) == [1000 - 80, 100, 50]


def test_sizes_outside_those_of_the_study_are_left_out(main_config):
    study = dataclasses.replace(main_config.study, n_params=(2e4, 1e5))
    whole = budget_sizes(1e11, main_config.study)
    assert budget_sizes(1e11, study) == [size for size in whole if 2e4 <= size <= 1e5]
    assert 0 < len(budget_sizes(1e11, study)) < len(whole)
    with pytest.raises(InputError, match=r"study\.n_params \[1, 2\] leaves no size at budget 1e11"):
        budget_sizes(1e11, dataclasses.replace(study, n_params=(1, 2)))
