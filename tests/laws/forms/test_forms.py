"""Every law: derivatives against finite differences, the optimum against a search, parameters there and back."""

import math

import numpy as np
import pytest
from planted_laws import CATEGORIES, THETA, bound, scattered, truth
from scipy.optimize import minimize_scalar

from skillscale.errors import InputError
from skillscale.laws.forms.catalogue import LAWS
from skillscale.laws.forms.nd import Covariates

EVERY_LAW = pytest.mark.parametrize("name", LAWS)
MIX = np.array([0.5, 0.3, 0.2])


def stack(name: str) -> np.ndarray:
    """Two parameter vectors in the neighbourhood of the truth."""
    q = bound(name).log_parameters(truth(name)[None])
    return np.vstack([q, q + np.random.default_rng(3).normal(scale=0.05, size=q.shape)])


def covariates(name: str, n: int = 30) -> Covariates:
    points = scattered(bound(name), truth(name), n=n)
    return points.covariates(bound(name))


def test_every_law_has_a_truth_to_be_tested_on():
    assert set(THETA) == set(LAWS)


@EVERY_LAW
def test_jacobian_is_the_slope(name):
    law, z, q, h = bound(name), covariates(name), stack(name), 1e-6
    jac = law.jacobian(q, z)
    for j in range(q.shape[1]):
        step = np.zeros(q.shape[1])
        step[j] = h
        slope = (law.log_loss(q + step, z) - law.log_loss(q - step, z)) / (2 * h)
        np.testing.assert_allclose(jac[..., j], slope, atol=3e-9, err_msg=law.log_names[j])


@EVERY_LAW
def test_weighted_hessian_is_the_slope_of_the_jacobian(name):
    law, z, q, h = bound(name), covariates(name), stack(name), 1e-6
    v = np.random.default_rng(1).normal(size=(len(q), len(z)))
    H = law.weighted_hessian(q, z, v)
    for j in range(q.shape[1]):
        step = np.zeros(q.shape[1])
        step[j] = h
        slope = (law.jacobian(q + step, z) - law.jacobian(q - step, z)) / (2 * h)
        np.testing.assert_allclose(H[:, :, j], np.einsum("kn,knp->kp", v, slope), atol=3e-7, err_msg=law.log_names[j])


@EVERY_LAW
def test_optimum_is_where_the_loss_is_least(name):
    law, theta = bound(name), truth(name)
    for C in (3e10, 1e12):

        def loss(ln_N, C=C):
            return float(law.loss(theta, math.exp(ln_N), C / 6 / math.exp(ln_N), MIX)[0])

        grid = np.linspace(5, 24, 600)
        near = grid[int(np.argmin([loss(x) for x in grid]))]
        best = minimize_scalar(loss, bounds=(near - 0.1, near + 0.1), method="bounded", options={"xatol": 1e-10}).x
        assert law.log_optimum(theta[None], C, MIX)[0, 0] == pytest.approx(best, abs=2e-5)
    near = law.log_optimum(theta[None], [1e11, 1.01e11], MIX)[0]
    slope = (near[1] - near[0]) / math.log(1.01)
    assert law.optimum_exponent(theta[None], 1e11 * math.sqrt(1.01), MIX)[0] == pytest.approx(slope, rel=1e-3)


@EVERY_LAW
def test_parameters_there_and_back(name):
    law, q = bound(name), stack(name)
    theta = law.theta(q)
    assert theta.shape == (2, len(law.parameters))
    assert q.shape == (2, len(law.log_names))
    np.testing.assert_allclose(theta[0], truth(name), rtol=1e-9)
    np.testing.assert_allclose(law.theta(law.log_parameters(theta)), theta, rtol=1e-9)
    z = covariates(name)
    np.testing.assert_allclose(law.log_loss(law.log_parameters(theta), z), law.log_loss(q, z), atol=1e-11)


@EVERY_LAW
def test_the_centre_of_the_data_is_no_part_of_what_a_law_predicts(name):
    """Save where the docstring says so: a drift of the data exponent, and a transient."""
    if name in ("drifting", "separable", "separable_transient"):
        pytest.skip("the centre is part of this law")
    here, theta = bound(name), truth(name)
    there = LAWS[name].bind(3.0, 9.0, CATEGORIES).for_skill("code")
    np.testing.assert_allclose(here.loss(theta, 1e5, 1e6, MIX), there.loss(theta, 1e5, 1e6, MIX), rtol=1e-9)


@pytest.mark.parametrize(("name", "formula"), [
    ("chinchilla", lambda N, D, h: 1.8 + 477 * N**-0.347 + 2143 * D**-0.367),
    ("coupled", lambda N, D, h: 1.8 + ((477 * N**-0.347) ** 1.25 + (2143 * D**-0.367) ** 1.25) ** 0.8),
    ("farseer", lambda N, D, h: math.exp(2.5 * N**-0.05 - 1)
     + math.exp(13 * N**-0.1 - 1.5) * D ** -math.exp(-2 * N**-0.12 - 1)),
    ("effective_data", lambda N, D, h: 1.8 + 477 * N**-0.347 + 2143 * (D * (1.6 * h[0] + 0.4 * h[1] + h[2])) ** -0.367),
    ("additive_mixture", lambda N, D, h: 1.8 + 477 * N**-0.347 + 2143 * D**-0.367
     + 1 / (3 * h[0]**0.5 + h[1]**0.8 + 2 * h[2]**0.4)),
    ("joint_mixture", lambda N, D, h: 1.8 + 477 * (1.5 * h[0] + 0.5 * h[1] + h[2]) ** -0.3 * N**-0.347
     + 2143 * (0.6 * h[0] + 1.4 * h[1] + h[2]) ** -0.2 * D**-0.367 + 1 / (3 * h[0]**0.5 + h[1]**0.8 + 2 * h[2]**0.4)),
    ("separable", lambda N, D, h: (1.8 + 0.5 * (N / 4e4) ** -0.4 + 0.6 * (D / 6e5) ** (-0.37 * (N / 4e4) ** 0.02))
     * math.exp(0.3 * h[0] - 0.2 * h[1] - 0.1 * h[2]) * (3 * h[0]) ** -0.1),
])  # fmt: skip
def test_a_law_is_its_published_formula(name, formula):
    for N, D, h in ((1e4, 1e7, MIX), (3e5, 2e5, np.array([0.1, 0.1, 0.8]))):
        assert bound(name).loss(truth(name), N, D, h)[0] == pytest.approx(formula(N, D, h), rel=1e-9)


def test_capacity_competition_splits_the_model_where_no_exchange_of_parameters_helps():
    law, theta, N = bound("capacity_competition"), truth("capacity_competition"), 5e4
    E, c, b, A, a = theta.reshape(5, 3)

    def weighted(first, second):
        x = np.array([first, second, N - first - second])
        return float((MIX * c * x**-b).sum()) if (x > 0).all() else math.inf

    best = min((weighted(f, s), f, s) for f in np.linspace(500, 45000, 300) for s in np.linspace(500, 45000, 300))
    expected = E[0] + c[0] * best[1] ** -b[0] + A[0] * (1e6 * MIX[0]) ** -a[0]
    assert law.loss(theta, N, 1e6, MIX)[0] == pytest.approx(expected, rel=1e-4)


def test_no_optimum_where_an_exponent_is_negative():
    law = LAWS["chinchilla"]
    theta = np.array([[1.8, 477.0, 2143.0, -0.1, 0.367]])
    assert np.isnan(law.log_optimum(theta, 1e12)).all()
    assert np.isnan(law.optimum_exponent(theta)).all()


def test_a_law_that_needs_a_mix_says_so():
    with pytest.raises(InputError, match="effective_data needs a mix, but the runs have none"):
        LAWS["effective_data"].bind(1.0, 2.0)
    with pytest.raises(InputError, match="Give the shares of code, prose, wiki"):
        bound("separable").loss(truth("separable"), 1e4, 1e6)


def test_a_skill_that_is_no_category_is_refused_where_categories_are_the_skills():
    with pytest.raises(InputError, match="poetry is none of code, prose, wiki"):
        LAWS["capacity_competition"].bind(1.0, 2.0, CATEGORIES).for_skill("poetry")


def test_what_cant_be_fixed_says_what_can():
    with pytest.raises(InputError, match=r"A of chinchilla can't be fixed\. Fix one of: E, alpha, beta"):
        LAWS["chinchilla"].fix("A", 3.0)
    with pytest.raises(InputError, match="E of chinchilla must be above 0"):
        LAWS["chinchilla"].fix("E", -3.0)
