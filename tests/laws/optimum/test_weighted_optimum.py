"""What skills are worth: the optimum of their sum, residuals against it, equal weights, and the best mix."""

import math

import numpy as np
import pytest
from planted_laws import bound, scattered, truth

from skillscale.errors import InputError
from skillscale.laws.fit.skill_law import fit_together
from skillscale.laws.optimum.optimum import best_mix, size_gap, summarise_optima, validation_effect, weighted_optimum
from skillscale.report.weighted_optima import weighted_optima_as_dict, weighted_optima_text

WEIGHTS = {"code": 1.0, "prose": 2.0}


def fitted(name):
    law, theta = bound(name), truth(name)
    other = theta.copy()
    other[1] *= 1.3
    data = {"code": scattered(law, theta, n=40, noise=0.003), "prose": scattered(law, other, n=40, noise=0.003)}
    return fit_together(data, law=law, resamples=100)


@pytest.mark.parametrize("name", ["chinchilla", "effective_data"])
def test_it_is_what_the_optima_are_one_by_one(name):
    laws = fitted(name)
    one, far = summarise_optima(laws, [1e11, 1e12], WEIGHTS, equal=list(laws))
    assert (one.optimum.C, far.optimum.C) == (1e11, 1e12)
    assert one.optimum == weighted_optimum(laws, 1e11, WEIGHTS)
    assert one.size_gaps[0] == size_gap(laws, 1e11, "code", WEIGHTS)
    assert one.equal == validation_effect(laws, 1e11, WEIGHTS, {"code": 1, "prose": 1})
    assert (one.best is None) == (name == "chinchilla")
    if one.best is not None:
        assert one.best == best_mix(laws, 1e11, WEIGHTS)


def test_a_mix_within_bounds_is_told():
    found = summarise_optima(fitted("effective_data"), [1e12], WEIGHTS, equal=["code"], bounds={"code": (0.1, 0.2)})
    (plain,) = weighted_optima_as_dict({"": found}, "total")
    share = plain["best_mix"]["mix"]["code"]["share"]
    assert 0.1 - 1e-9 <= share <= 0.2 + 1e-9
    assert sum(plain["mix"].values()) == pytest.approx(1)
    assert plain["equal_weights"] is None
    assert plain["best_mix"]["loss"] <= plain["loss"] + 1e-9 or plain["mix"]["code"] > 0.2
    assert "best mix " in weighted_optima_text({"": found}, "total", 0.9)


def test_bounds_need_a_law_of_the_mix():
    with pytest.raises(InputError, match="need a law that depends on it: chinchilla"):
        summarise_optima(fitted("chinchilla"), [1e12], WEIGHTS, equal=[], bounds={"code": (0.1, 0.2)})


def test_text_and_values_say_the_same():
    laws = fitted("chinchilla")
    found = summarise_optima(laws, [1e11], WEIGHTS, equal=list(laws))
    (plain,) = weighted_optima_as_dict({"": found}, "total")
    assert plain["worth"] == pytest.approx({"code": 1 / 3, "prose": 2 / 3})
    assert plain["convention"] == "total"
    assert 6 * plain["n_params"] * plain["n_tokens"] == pytest.approx(1e11)
    assert plain["interval"][0] < plain["n_params"] < plain["interval"][1]
    assert plain["loss"] == pytest.approx(np.dot([1 / 3, 2 / 3], [one["loss"] for one in plain["losses"].values()]))
    text = weighted_optima_text({"": found}, "total", 0.9)
    assert text.startswith("weights: 0.333 code + 0.667 prose. N: total. Equal weights")
    shift = math.expm1(plain["residuals"]["code"]["value"])
    row = next(line for line in text.splitlines() if line.startswith("code "))
    assert f"{100 * shift:+.0f}".replace("-", "\u2212")[:2] in row
    assert "residual at 1e11" in text
    assert "90 % intervals" in text
