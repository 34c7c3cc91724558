"""Steps that lead many starts near their minima at once."""

import math

import numpy as np

from skillscale.laws.fit.gauss_newton import MAX_STEPS, approach_minima, nearest_start
from skillscale.laws.fit.newton import FitProblem, SkillBlock, minimise
from skillscale.laws.fit.objective import LEAST_SQUARES
from skillscale.laws.forms.nd import Chinchilla, Covariates

NOISE = 0.003
TRUTH = np.array([0.5, 0.2, -0.3, 0.35, 0.3])


def problem(count: int = 40) -> FitProblem:
    """Responses of a law whose runs hardly separate E from the other terms, in ``count`` resamples."""
    x, y = (grid.ravel() for grid in np.meshgrid(np.linspace(-1, 1, 5), np.linspace(-1, 1, 5)))
    law, z = Chinchilla(), Covariates(x, y)
    noise = np.random.default_rng(0).normal(0, NOISE, (count, len(x)))
    block = SkillBlock(
        law=law, z=z, responses=law.log_loss(TRUTH[None], z) + noise, weights=np.ones(len(x)), objective=LEAST_SQUARES,
        T=np.eye(5), offset=np.zeros(5),
    )  # fmt: skip
    return FitProblem(blocks=(block,), mean=TRUTH, precision=np.eye(5) * NOISE**2)


def test_the_minima_are_those_of_exact_newton_steps() -> None:
    squares = problem()
    starts = np.tile(TRUTH, (40, 1))
    exact, F, _ = minimise(squares, starts)
    Q, done = approach_minima(squares, starts, tolerance=1e-12 * NOISE**2)
    assert done.all()
    np.testing.assert_allclose(squares.value(Q), F, rtol=1e-9)
    np.testing.assert_allclose(Q, exact, atol=1e-4)


def test_few_steps_follow_the_curved_valley() -> None:
    squares = problem()
    starts = np.tile(TRUTH + np.array([-1.0, 0.4, 0.4, -0.1, -0.1]), (40, 1))
    _, done = approach_minima(squares, starts, tolerance=1e-7 * NOISE**2, max_steps=10)
    assert done.mean() > 0.9  # none is done after 16 without either measure


def test_a_start_that_needs_too_many_steps_is_named() -> None:
    starts = np.tile(TRUTH + 0.5, (40, 1))
    assert not approach_minima(problem(), starts, tolerance=0.0, max_steps=1)[1].any()
    assert MAX_STEPS > 1


def test_a_start_without_a_finite_value_stays_and_stops() -> None:
    starts = np.tile(TRUTH, (40, 1))
    starts[3, 0] = math.nan
    Q, done = approach_minima(problem(), starts, tolerance=1e-10 * NOISE**2)
    assert not done[3]
    assert np.isnan(Q[3, 0])
    assert done[[0, 1, 2, 4]].all()


def test_each_resample_starts_where_its_objective_is_least() -> None:
    squares = problem(3)
    near, far = np.tile(TRUTH, (3, 1)), np.tile(TRUTH + 1, (3, 1))
    far[1] = math.nan
    mixed = far.copy()
    mixed[2] = TRUTH
    np.testing.assert_array_equal(nearest_start(squares, [far, mixed, near]), near)
