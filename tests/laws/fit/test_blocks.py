"""Work in blocks: results stay what they were, memory stays flat, and large tables give the same law."""

import tracemalloc

import numpy as np
import pytest
from planted_laws import bound, scattered, truth

from skillscale.laws.fit import fit, newton
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.fit import fit_law
from skillscale.laws.fit.objective import LEAST_ABSOLUTE, RAW_LEAST_SQUARES, Objective
from skillscale.laws.uncertainty import bootstrap
from skillscale.laws.uncertainty.bootstrap import ResamplingMethod, draw_parameters


@pytest.mark.parametrize("name", ["chinchilla", "drifting", "additive_mixture"])
@pytest.mark.parametrize("objective", [Objective(), RAW_LEAST_SQUARES])
@pytest.mark.parametrize("size", [1, 37, 200])  # a run at a time, runs cut, problems cut
def test_blocks_of_runs_and_problems_add_up(name, objective, size, monkeypatch):
    law, theta = bound(name), truth(name)
    points = scattered(law, theta, n=90, noise=0.01)
    result = fit_law(points, law=law, objective=objective, starts=1)
    rng = np.random.default_rng(0)
    K = 7
    problem = result.build_problem(points, weights=rng.poisson(1.0, (K, len(points))).astype(float))
    Q = result.q[list(result.free)] + 0.02 * rng.normal(size=(K, result.n_free))
    whole = problem.value(Q), *problem.derivatives(Q)
    monkeypatch.setattr(newton, "CHUNK", size)
    for cut, expected in zip((problem.value(Q), *problem.derivatives(Q)), whole, strict=True):
        np.testing.assert_allclose(cut, expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("method", [ResamplingMethod.RUN, ResamplingMethod.WILD])
def test_draws_in_blocks_are_set_by_their_seed_and_spread_alike(method, monkeypatch):
    law, theta = bound("chinchilla"), truth("chinchilla")
    points = scattered(law, theta, noise=0.01)
    result = fit_law(points, law=law)
    whole = draw_parameters(result, points, method=method, count=400)
    monkeypatch.setattr(bootstrap, "AT_ONCE", 30 * len(points))
    q = draw_parameters(result, points, method=method, count=400)
    assert q.shape == (400, 5)
    assert len(np.unique(q[:, 3])) == 400  # no block repeats another
    np.testing.assert_array_equal(q, draw_parameters(result, points, method=method, count=400))
    np.testing.assert_allclose(q.std(0), whole.std(0), rtol=0.25)


@pytest.mark.parametrize("one_step", [False, True])
@pytest.mark.parametrize("method", list(ResamplingMethod))
def test_memory_of_draws_does_not_grow_with_their_number(method, one_step, monkeypatch):
    law, theta = bound("chinchilla"), truth("chinchilla")
    points = scattered(law, theta, n=1000, noise=0.01)
    result = fit_law(points, law=law, starts=1)
    monkeypatch.setattr(bootstrap, "AT_ONCE", 20 * len(points))

    def peak(count):
        tracemalloc.start()
        draw_parameters(result, points, method=method, count=count, one_step=one_step, budgets=np.arange(1000))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    few = peak(20)
    assert peak(100) < few + 0.1 * 100 * 1000 * 8  # of one array of resamples times runs


def grid(*, copies: int) -> tuple[RunData, np.ndarray]:
    """Runs in the order of loops over N and D, again and again: every k-th sees few of the sizes."""
    theta = truth("chinchilla")
    N, D = (z.ravel() for z in np.meshgrid(np.geomspace(5e3, 5e5, 8), np.geomspace(6e4, 6e6, 8)))
    N, D = np.tile(N, copies), np.tile(D, copies)
    error = 0.01 * np.random.default_rng(0).normal(size=len(N))
    return RunData(N=N, D=D, L=bound("chinchilla").loss(theta, N, D) * np.exp(error)), theta


def test_seeds_of_a_large_table_are_found_on_some_of_its_runs(monkeypatch):
    points, theta = grid(copies=16)
    whole = fit_law(points)
    monkeypatch.setattr(fit, "RANKED", 64)  # every 16th run would leave one N in eight
    few = fit_law(points)
    assert pytest.approx(whole.F, rel=1e-12) == few.F
    assert few.starts.agree == few.starts.tried
    np.testing.assert_allclose(few.theta[3:], theta[3:], rtol=0.1)


def test_a_kinked_objective_is_cut_too(monkeypatch):
    points, _ = grid(copies=4)
    whole = fit_law(points, objective=LEAST_ABSOLUTE)
    monkeypatch.setattr(newton, "CHUNK", 100)
    assert pytest.approx(whole.F, rel=1e-7) == fit_law(points, objective=LEAST_ABSOLUTE).F
