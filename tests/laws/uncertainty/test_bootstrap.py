"""Draws of a fit: what is resampled with what, how wide, and whether the intervals cover."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from planted_laws import bound, scattered, truth
from scipy.stats import kurtosis
from simulated_studies import NoiseDraws, plant

from skillscale.errors import FitError
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.fit import fit_law
from skillscale.laws.fit.objective import HUBER, LEAST_SQUARES, mean_curvature
from skillscale.laws.forms.catalogue import CHINCHILLA, LAWS
from skillscale.laws.uncertainty.bootstrap import (
    ParameterCovariance,
    ResamplingMethod,
    draw_parameters,
    new_run_sd,
    sandwich,
)
from skillscale.laws.uncertainty.resamples import interval

THETA = np.array([1.8, 60.0, 120.0, 0.41, 0.37])


def design(checkpoints: int = 1) -> RunData:
    """5 budgets of 9 sizes over +-8x, each run ``checkpoints`` times, with the law's losses."""
    C = np.repeat(np.geomspace(2e10, 2e12, 5), 9)
    N = np.repeat(0.1 * np.sqrt(C) * np.tile(np.geomspace(1 / 8, 8, 9), 5), checkpoints)
    D = np.outer(C, np.linspace(1, 0.4, checkpoints)).ravel() / (6 * N)
    runs = np.repeat(np.arange(45), checkpoints)
    return RunData(N=N, D=D, L=CHINCHILLA.loss(THETA, N, D), clusters=runs)


def noisy(points: RunData, error: np.ndarray) -> RunData:
    return replace(points, L=points.L * np.exp(error), labels=None)


def spread(q: np.ndarray) -> np.ndarray:
    return np.diff(np.nanquantile(q, [0.16, 0.84], axis=0), axis=0)[0] / 2


@pytest.fixture(scope="module")
def study() -> RunData:
    return noisy(design(), np.random.default_rng(0).normal(scale=0.005, size=45))


@pytest.fixture(scope="module")
def epoch(request) -> RunData:
    table = pd.read_csv(request.getfixturevalue("tables") / "chinchilla_epoch.csv")
    table = table[table["in_besiroglu_240"] == 1]
    return RunData(N=table["params"].to_numpy(), D=table["tokens"].to_numpy(), L=table["loss"].to_numpy())


@pytest.mark.parametrize("method", ResamplingMethod)
def test_draws_are_decided_by_the_seed(study, method):
    fit = fit_law(study)
    budgets = np.repeat(np.arange(5), 9)
    first, again, other = (
        draw_parameters(fit, study, method=method, count=20, seed=s, budgets=budgets) for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-4


@pytest.mark.parametrize("method", [ResamplingMethod.WILD, ResamplingMethod.RUN])
def test_checkpoints_of_a_run_go_together(method):
    """An error that a run's checkpoints share is no five independent ones."""
    points = design(checkpoints=5)
    error = np.repeat(np.random.default_rng(1).normal(scale=0.005, size=45), 5)
    together = noisy(points, error)
    apart = replace(together, clusters=np.arange(len(error)), labels=None)
    wide, narrow = (
        spread(draw_parameters(fit_law(runs, objective=None), runs, method=method, count=300))
        for runs in (together, apart)
    )
    assert np.all(wide[3:] > 1.4 * narrow[3:])


def test_laplace_is_close_to_wild_where_runs_tell_the_law(study):
    fit = fit_law(study, objective=LEAST_SQUARES)
    wild, laplace = (
        spread(draw_parameters(fit, study, method=m, count=2000))
        for m in (ResamplingMethod.WILD, ResamplingMethod.LAPLACE)
    )
    np.testing.assert_allclose(wild[1:], laplace[1:], rtol=0.12)


def test_one_step_is_close_to_the_whole_way(study):
    fit = fit_law(study, objective=None)
    for method, least in ((ResamplingMethod.WILD, 0.95), (ResamplingMethod.RUN, 0.85)):
        whole, step = (draw_parameters(fit, study, method=method, count=200, one_step=first) for first in (False, True))
        assert np.corrcoef(whole[:, 3], step[:, 3])[0, 1] > least


def test_errors_are_the_size_that_independent_studies_show():
    """Sd over studies of each parameter against the draws of one, which is larger for the few runs that decide it."""
    rng = np.random.default_rng(2)
    runs = [noisy(design(), rng.normal(scale=0.005, size=45)) for _ in range(120)]
    fits = [fit_law(first, objective=LEAST_SQUARES, starts=1) for first in runs]
    drawn = np.mean(
        [spread(draw_parameters(fit, first, count=150)) for fit, first in zip(fits[:25], runs, strict=False)], axis=0
    )
    ratio = drawn / np.std([fit.q for fit in fits], axis=0)
    assert np.all((ratio > 0.9) & (ratio < 1.4))


def test_resampling_budgets_needs_three():
    points = design().take(np.arange(18))
    with pytest.raises(FitError, match="2 clusters can't be resampled by budget, which needs 3"):
        draw_parameters(fit_law(points), points, method=ResamplingMethod.BUDGET, budgets=np.repeat([0, 1], 9))


def test_one_run_a_cluster_inflates_as_the_textbook_does(study):
    """(1 - leverage)^-1/2 and ^-1, from the hat matrix."""
    fit = fit_law(study, objective=LEAST_SQUARES)
    jac = fit.law.jacobian(fit.q[None], study.covariates(fit.law))[0]
    hat = jac @ np.linalg.pinv(jac)
    whole = ParameterCovariance.from_jacobian(jac, np.zeros((5, 5)), np.arange(45))
    np.testing.assert_allclose(whole.inflate(fit.residuals, 1.0), fit.residuals / (1 - np.diag(hat)), rtol=1e-6)
    assert whole.degrees_of_freedom() == pytest.approx(40)


def test_clusters_inflate_by_blocks():
    """(I - H_gg)^-1/2 of each run's checkpoints, from the hat matrix."""
    points = design(checkpoints=3)
    rng = np.random.default_rng(0)
    errors, jac = rng.normal(size=135), rng.normal(size=(135, 5))
    hat = jac @ np.linalg.pinv(jac)
    codes = np.asarray(points.clusters)
    inflated = ParameterCovariance.from_jacobian(jac, np.zeros((5, 5)), codes).inflate(errors, 0.5)
    for run in (0, 17, 44):
        rows = np.flatnonzero(codes == run)
        values, vectors = np.linalg.eigh(np.eye(3) - hat[np.ix_(rows, rows)])
        np.testing.assert_allclose(inflated[rows], vectors @ (vectors.T @ errors[rows] / np.sqrt(values)), rtol=1e-6)


def test_what_only_a_prior_tells_is_as_wide_as_the_prior():
    """Runs at the coupling's centre alone say nothing of the drift g; its draws must not look known."""
    law, theta = bound("drifting"), truth("drifting")
    points = scattered(law, theta, n=40, noise=0.05, seed=3)
    fit = fit_law(points, law=points.bind(law))
    prior_sd = fit.law.priors[6].sd
    for method in (ResamplingMethod.WILD, ResamplingMethod.LAPLACE, ResamplingMethod.RUN):
        q = draw_parameters(fit, points, method=method, count=80)
        assert 0.5 * prior_sd < spread(q)[6] < 1.6 * prior_sd, method


def test_a_robust_fit_does_not_take_runs_it_passes_through_for_runs_without_noise():
    rng = np.random.default_rng(0)
    values = []
    for _ in range(30):
        points = noisy(design(), rng.normal(scale=0.005, size=45))
        fit = fit_law(points, starts=2)
        values.append(mean_curvature(HUBER, fit.residuals, 5).mean())
    assert np.mean(values) == pytest.approx(math.erf(0.001 / 0.005 / math.sqrt(2)), rel=0.15)
    naive = HUBER.curvature(fit.residuals).mean()
    assert naive > 1.2 * np.mean(values)


def test_the_noise_of_a_new_run_is_found_beside_outliers():
    rng = np.random.default_rng(0)
    error = rng.normal(scale=0.004, size=(40, 45)) + 0.05 * (rng.random((40, 45)) < 0.02)
    sds = []
    for first in error:
        points = noisy(design(), first)
        sds.append(new_run_sd(fit_law(points, objective=None, starts=2), points))
    assert np.mean(sds) == pytest.approx(0.004, rel=0.06)


def test_the_noise_of_a_new_run_has_its_clusters_part():
    rng = np.random.default_rng(0)
    error = np.repeat(rng.normal(scale=0.004, size=45), 5) + rng.normal(scale=0.0015, size=225)
    points = noisy(design(checkpoints=5), error)
    assert new_run_sd(fit_law(points, objective=None), points) == pytest.approx(math.hypot(0.004, 0.0015), rel=0.15)


def test_pulls_of_parts_that_share_clusters_add_up(study):
    fit = fit_law(study, objective=LEAST_SQUARES)
    problem = fit.build_problem(study)
    codes = np.asarray(study.clusters)
    first = sandwich(problem, fit.q, codes)
    twice = sandwich(replace(problem, blocks=problem.blocks * 2), fit.q, np.concatenate([codes, codes]))
    np.testing.assert_allclose(twice.H, 2 * first.H)
    # The same errors twice tell no more than once
    np.testing.assert_allclose(np.diag(twice.covariance), np.diag(first.covariance), rtol=0.1)
    assert twice.degrees_of_freedom == pytest.approx(first.degrees_of_freedom, abs=3)


@pytest.mark.slow
def test_pairs_bootstrap_gives_the_published_errors(epoch):
    """Besiroglu et al. 2024: to 2 %, and twice the Monte Carlo error of their 4000 resamples (of B: 4.5 %)."""
    fit = fit_law(epoch)
    theta = fit.law.theta(draw_parameters(fit, epoch, method=ResamplingMethod.RUN, count=8000, seed=1, one_step=False))
    published = {"E": 0.0257, "A": 124.5, "B": 1293.0, "alpha": 0.0154, "beta": 0.0206}
    for column, (name, error) in zip(theta.T, published.items(), strict=True):
        by_chance = math.sqrt((kurtosis(column, fisher=False) - 1) / (4 * 4000))
        assert column.std() == pytest.approx(error, rel=0.02 + 2 * by_chance), name
    ends = {"E": (1.769, 1.871), "A": (286, 744), "B": (1042, 5810), "alpha": (0.317, 0.373), "beta": (0.331, 0.415)}
    for column, (name, bounds) in zip(theta.T, ends.items(), strict=True):
        values = np.quantile(column, [0.025, 0.975])
        np.testing.assert_allclose(values, bounds, rtol=0.07 if name == "B" else 0.03, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("errors", NoiseDraws)
def test_intervals_cover(errors):
    """90 % intervals of alpha and ln N* at 10 times the compute, over 200 studies: Monte Carlo error 2 points."""
    hits = []
    for seed in range(200):
        study = plant(LAWS["chinchilla"], errors, np.random.default_rng(seed))
        fit = fit_law(study.points, law=study.law, objective=None, starts=2)
        theta = fit.law.theta(draw_parameters(fit, study.points, count=200, seed=seed))
        far = fit.law.log_optimum(np.vstack([fit.theta, theta]), [study.far])[:, 0]
        bands = [interval(far[0], far[1:], 0.9), interval(fit.theta[3], theta[:, 3], 0.9)]
        aims = [study.log_optimum, study.q[3]]
        hits.append([band.lo <= aim <= band.hi for band, aim in zip(bands, aims, strict=True)])
    assert np.all(np.abs(np.mean(hits, axis=0) - 0.9) < 0.04 + 2 * 0.021)
