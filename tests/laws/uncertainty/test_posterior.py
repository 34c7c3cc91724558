"""The posterior of few runs: who decides a number, its noise, and the limits where it is exact."""

import numpy as np
import pytest

from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.fit import fit_law
from skillscale.laws.forms.catalogue import CHINCHILLA
from skillscale.laws.uncertainty.posterior import (
    FEW_RUNS,
    has_few_runs,
    measure_information,
    sample_posterior,
    unit_weights,
)

THETA = [1.8, 480.0, 2100.0, 0.35, 0.37]


def runs(n_sizes=3, n_tokens=3, *, noise=0.005, seed=0, **more) -> RunData:
    N, D = (g.ravel() for g in np.meshgrid(np.geomspace(7e7, 2e9, n_sizes), np.geomspace(2e9, 6e10, n_tokens)))
    error = noise * np.random.default_rng(seed).normal(size=len(N))
    return RunData(N=N, D=D, L=CHINCHILLA.loss(THETA, N, D) * np.exp(error), **more)


def slope(points, name):
    """The gradient of one log-parameter."""
    names = points.bind(CHINCHILLA).log_names
    return np.eye(len(names))[names.index(name)]


def test_runs_are_few_by_their_degrees_of_freedom():
    few = runs(3, 4)
    assert len(few) == FEW_RUNS - 1
    assert has_few_runs(few)
    assert not has_few_runs(runs(4, 4))
    checkpoints = runs(4, 4, clusters=np.repeat(np.arange(4), 4))
    assert has_few_runs(checkpoints), "checkpoints of one run are no further runs"


def test_checkpoints_share_the_weight_of_their_run():
    points = runs(2, 4, clusters=np.array([0, 0, 0, 0, 0, 1, 1, 2]))
    weights = unit_weights(points)
    assert weights.sum() == pytest.approx(3)
    assert weights[:5].sum() == pytest.approx(1)


def test_the_draws_have_the_covariance_of_their_parts():
    """Where the runs determine the law, the draws agree with the linear theory."""
    points = runs(4, 3, noise=0.001)
    posterior = sample_posterior(points, points.bind(CHINCHILLA), count=2000)
    information = posterior.information
    expected = np.sqrt(np.diag(information.prior + information.data))
    assert posterior.q.std(0)[3:] == pytest.approx(expected[3:], rel=0.35)


def test_three_runs_leave_the_parameters_to_the_priors():
    points = runs(3, 1)
    posterior = sample_posterior(points, points.bind(CHINCHILLA), count=200)
    assert posterior.information.prior_share(slope(points, "beta")) > 0.95
    assert 0.002 < posterior.noise < 0.03, "the prior of the noise stays"


def test_the_noise_follows_the_residuals_where_there_are_some():
    quiet, loud = (
        sample_posterior(p, p.bind(CHINCHILLA), count=50).noise for p in (runs(noise=0.001), runs(noise=0.03))
    )
    assert quiet < 0.005 < 0.01 < loud


def test_standard_errors_of_the_losses_are_the_least_noise():
    points = runs(noise=0.0005, standard_error=0.02)
    posterior = sample_posterior(points, points.bind(CHINCHILLA), count=50)
    assert posterior.noise >= 0.02


def test_a_fixed_parameter_stays():
    points = runs()
    posterior = sample_posterior(points, points.bind(CHINCHILLA), fixed={"alpha": 0.33}, count=50)
    assert (posterior.q[:, 3] == 0.33).all()
    assert posterior.fit.theta[3] == 0.33
    assert posterior.information.data[3, 3] == 0


def test_draws_stay_within_the_bounds_of_the_law():
    N = np.geomspace(7e7, 2e9, 5)
    points = RunData(N=N, D=20 * N, L=CHINCHILLA.loss(THETA, N, 20 * N))
    q = sample_posterior(points, points.bind(CHINCHILLA), count=500).q
    assert (q[:, 3:] > 0.02).all()


def test_skills_share_the_errors_of_their_runs():
    first, second = runs(4, 3, noise=0.002), runs(4, 3, noise=0.002, seed=1)
    draws = [sample_posterior(p, p.bind(CHINCHILLA), count=1000).q for p in (first, second)]
    losses = [
        CHINCHILLA.bind(p.bind(CHINCHILLA).x0, p.bind(CHINCHILLA).y0).log_loss(q, p.covariates(p.bind(CHINCHILLA)))
        for p, q in zip((first, second), draws, strict=True)
    ]
    assert np.corrcoef(losses[0][:, 5], losses[1][:, 5])[0, 1] > 0.15


def test_shares_of_a_mix_are_no_evidence_on_tokens():
    N = np.repeat([7e7, 4e8, 1.5e9], 4)
    share = np.tile([0.9, 0.6, 0.3, 0.1], 3)
    D = 20 * N * (1 + share)  # tokens follow the mix
    loss = CHINCHILLA.loss(THETA, N, D)
    plain, mixed = (
        RunData(N=N, D=D, L=loss, h=h, categories=("a", "b")) for h in (None, np.column_stack([share, 1 - share]))
    )
    shares = [
        measure_information(fit_law(p, law=CHINCHILLA), p, noise=0.005).prior_share(
            slope(p, "beta") - slope(p, "alpha")
        )
        for p in (plain, mixed)
    ]
    assert shares[0] < 0.6 < 0.8 < shares[1]
