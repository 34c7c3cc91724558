"""Fitted laws written and read back: the same predictions to the last digit, and other schemas refused."""

import json

import numpy as np
import pytest
from planted_laws import bound, scattered, truth

from skillscale.errors import InputError
from skillscale.laws.document import DRAWS, document, read_document
from skillscale.laws.fitted import fit_skill

MIX = np.array([0.5, 0.3, 0.2])


def fitted(name="separable"):
    points = scattered(bound(name), truth(name), n=60, noise=0.005)
    return fit_skill("code", points, law=bound(name), resamples=400)


@pytest.mark.parametrize("name", ["chinchilla", "separable", "farseer"])
def test_a_document_predicts_as_the_fit_does(name):
    one = fitted(name)
    saved = read_document(json.loads(json.dumps(document({"code": one}))))["code"]
    N, D = np.array([1e5, 4e5]), np.array([1e6, 3e7])
    value, lo, hi = saved.loss(N, D, MIX)
    np.testing.assert_array_equal(value, one.law.loss(one.fit.theta, N, D, MIX))
    assert (lo < value).all()
    assert (value < hi).all()
    assert saved.q.shape == (DRAWS, len(one.fit.q))
    there, here = saved.optimum(1e11, MIX), one.optimum(1e11, MIX)
    assert there.value == pytest.approx(here.value, rel=1e-12, nan_ok=True)
    assert there.lo == pytest.approx(here.lo, rel=0.1, nan_ok=True)


def test_at_no_mix_the_runs_mean_mix_is_meant():
    one = fitted()
    saved = read_document(document({"code": one}))["code"]
    np.testing.assert_allclose(saved.loss(1e5, 1e6)[0], one.law.loss(one.fit.theta, 1e5, 1e6, one.mean_mix))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 0}, "laws of schema 0, but this version reads schema 1; fit the runs again"),
        ({"schema": 9}, r"schema 9.*update skillscale"),
        ({"schema": None}, "schema None"),
    ],
)
def test_another_schema_is_refused_with_the_cure(change, message):
    with pytest.raises(InputError, match=message):
        read_document(document({"code": fitted()}) | change, place="models:/law/1")


def test_a_law_that_is_not_known_here_is_named():
    plain = document({"code": fitted()})
    plain["skills"]["code"]["law"] = "kaplan"
    with pytest.raises(InputError, match=r"the law 'kaplan' for code.*it has chinchilla"):
        read_document(plain)


def test_a_damaged_document_says_what_is_missing():
    plain = document({"code": fitted()})
    del plain["skills"]["code"]["theta"]["alpha"]
    with pytest.raises(InputError, match="damaged: code lacks or garbles 'alpha'"):
        read_document(plain)
