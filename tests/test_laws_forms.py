"""Every law: derivatives against finite differences, the optimum against a search, parameters there and back."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from skillscale.laws.forms import LAWS, Law

THETA = {"chinchilla": [[1.8, 477.0, 2143.0, 0.347, 0.367], [1.2, 31.0, 140.0, 0.38, 0.40]]}
EVERY_LAW = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)


@pytest.fixture
def runs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=30), rng.normal(size=30)


def stack(law: Law) -> np.ndarray:
    return law.log_parameters(np.array(THETA[law.name]), math.log(4e4), math.log(6e5))


@EVERY_LAW
def test_jacobian_is_the_slope(law, runs):
    x, y = runs
    q, h = stack(law), 1e-6
    for j in range(q.shape[1]):
        step = np.zeros(q.shape[1])
        step[j] = h
        slope = (law.log_loss(q + step, x, y) - law.log_loss(q - step, x, y)) / (2 * h)
        np.testing.assert_allclose(law.jacobian(q, x, y)[..., j], slope, atol=1e-9)


@EVERY_LAW
def test_second_order_is_the_slope_of_the_jacobian(law, runs):
    x, y = runs
    q, h = stack(law), 1e-6
    v = np.random.default_rng(1).normal(size=(len(q), len(x)))
    H = law.second_order(q, x, y, v)
    for j in range(q.shape[1]):
        step = np.zeros(q.shape[1])
        step[j] = h
        slope = (law.jacobian(q + step, x, y) - law.jacobian(q - step, x, y)) / (2 * h)
        np.testing.assert_allclose(H[:, :, j], np.einsum("kn,knp->kp", v, slope), atol=1e-7)


@EVERY_LAW
def test_optimum_is_where_the_loss_is_least(law):
    for theta in np.array(THETA[law.name]):
        for C in (1e11, 1e19):

            def loss(ln_N, theta=theta, C=C):
                return float(law.loss(theta, math.exp(ln_N), C / 6 / math.exp(ln_N))[0])

            found = minimize_scalar(loss, bounds=(2, 40), method="bounded", options={"xatol": 1e-10}).x
            assert law.log_optimum(theta[None], C)[0, 0] == pytest.approx(found, abs=1e-5)
        far = law.log_optimum(theta[None], [1e15, 1e16])[0]
        assert law.optimum_exponent(theta[None])[0] == pytest.approx((far[1] - far[0]) / math.log(10))


@EVERY_LAW
def test_parameters_there_and_back(law):
    theta = np.array(THETA[law.name])
    np.testing.assert_allclose(law.theta(law.log_parameters(theta, 3.0, 7.0), 3.0, 7.0), theta, rtol=1e-12)


def test_no_optimum_where_an_exponent_is_negative():
    law = LAWS["chinchilla"]
    theta = np.array([[1.8, 477.0, 2143.0, -0.1, 0.367]])
    assert np.isnan(law.log_optimum(theta, 1e12)).all()
    assert np.isnan(law.optimum_exponent(theta)).all()
