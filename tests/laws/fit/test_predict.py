"""Predicted losses: the interval of the law and the wider one of a new run, and sizes and mixes that are none."""

import math

import numpy as np
import pytest
from planted_laws import CATEGORIES, bound, scattered, truth

from skillscale.errors import InputError
from skillscale.laws.fit.predict import predict
from skillscale.laws.fit.skill_law import fit_skill
from skillscale.laws.uncertainty.bootstrap import new_run_sd

LAW, THETA = bound("chinchilla"), truth("chinchilla")


def test_intervals_are_the_draws_with_and_without_the_noise_of_a_run():
    fitted = fit_skill("code", scattered(LAW, THETA, n=60, noise=0.01), law=LAW)
    N, D = np.array([1e5, 1e7]), np.array([1e7, 1e9])
    predicted = fitted.loss(N, D)
    drawn = fitted.law.log_loss(fitted.q, fitted.law.covariates(N, D))
    np.testing.assert_allclose([predicted.lo, predicted.hi], np.exp(np.quantile(drawn, [0.05, 0.95], axis=0)))
    sd = new_run_sd(fitted.fit, fitted.runs)
    many = np.repeat(drawn, 200, axis=0)
    many = many + sd * np.random.default_rng(0).normal(size=many.shape)
    np.testing.assert_allclose(
        [predicted.new_lo, predicted.new_hi], np.exp(np.quantile(many, [0.05, 0.95], axis=0)), rtol=5e-4
    )


def test_a_new_run_of_a_known_law_has_the_noise_alone():
    q = LAW.log_parameters(THETA[None])
    predicted = predict(LAW, THETA, np.tile(q, (20, 1)), 1e5, 1e7, level=0.9, noise=0.02)
    assert predicted.lo == predicted.hi == pytest.approx(predicted.value)
    assert math.log(predicted.new_hi[0] / predicted.value[0]) == pytest.approx(1.6449 * 0.02, rel=1e-4)
    assert math.log(predicted.value[0] / predicted.new_lo[0]) == pytest.approx(1.6449 * 0.02, rel=1e-4)


def test_intervals_of_new_runs_cover():
    """90 % over 60 studies of 40 runs: Monte Carlo error 2 points over 4 places each, which go together in part."""
    hits = []
    for seed in range(60):
        fitted = fit_skill("code", scattered(LAW, THETA, n=40, noise=0.01, seed=seed), law=LAW, resamples=200)
        new = scattered(LAW, THETA, n=20, noise=0.01, seed=1000 + seed)
        predicted = fitted.loss(new.N, new.D)
        hits.append(np.mean((predicted.new_lo <= new.L) & (predicted.new_hi >= new.L)))
    assert 0.85 < np.mean(hits) < 0.95


def test_draws_without_a_loss_make_it_unknown():
    q = np.tile(LAW.log_parameters(THETA[None]), (100, 1))
    q[0] = np.nan
    assert np.isfinite(predict(LAW, THETA, q, 1e5, 1e7, level=0.9, noise=0.02).new_hi[0])
    q[:2] = np.nan
    predicted = predict(LAW, THETA, q, 1e5, 1e7, level=0.9, noise=0.02)
    assert np.isnan([predicted.lo, predicted.hi, predicted.new_lo, predicted.new_hi]).all()
    assert np.isfinite(predicted.value).all()


@pytest.mark.parametrize(
    ("N", "D", "message"),
    [
        ([1e5, -1.0], 1e7, r"N must be parameters above 0, but row 1 has -1\.0\. Correct or drop it"),
        ([1e5, 1e5], [math.nan, 0.0], r"D must be tokens above 0, but row 0 has nan \(and in 1 more rows\)"),
        (math.inf, 1e7, "N must be parameters above 0, but row 0 has inf"),
    ],
)
def test_invalid_sizes(N, D, message):
    q = LAW.log_parameters(THETA[None])
    with pytest.raises(InputError, match=message):
        predict(LAW, THETA, q, N, D, level=0.9, noise=0.02)


@pytest.mark.parametrize(
    ("h", "message"),
    [
        ([[0.5, 0.3, 0.2], [0.5, 0.5, 0.5]], r"row 1 has code 0.5, prose 0.5, wiki 0.5, which sum to 1.5\. Divide"),
        ([0.7, 0.5, -0.2], "must be at least 0 and sum to 1, but row 0"),
        ([0.7, 0.3, math.nan], "row 0 has code 0.7, prose 0.3, wiki nan"),
        ([0.7, 0.3], r"needs 3 shares, but 2 are given\. Give one each of: code, prose, wiki"),
    ],
)
def test_invalid_mixes(h, message):
    assert CATEGORIES == ("code", "prose", "wiki")
    law = bound("separable")
    theta = truth("separable")
    with pytest.raises(InputError, match=message):
        predict(law, theta, law.log_parameters(theta[None]), [1e5, 1e5], 1e7, h, level=0.9, noise=0.02)
