import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from skillscale import config
from skillscale.tune import refit

TRUE = {"a": -0.25, "b": 0.15, "c": 0.02, "batch": 3.0, "slope": 0.4}


def trials(points, noise=0.0):
    """Losses with a planted optimum: ln loss = 0.05 (ln lr / best)^2 + 0.03 (ln batch / best)^2 + noise."""
    rng = np.random.default_rng(3)
    rows = []
    for N, D in points:
        lr = TRUE["c"] * N ** TRUE["a"] * D ** TRUE["b"]
        batch = TRUE["batch"] * D ** TRUE["slope"]
        for u, v in rng.uniform(-1, 1, (14, 2)):
            loss = 4 * math.exp(0.05 * u**2 + 0.03 * v**2 + noise * rng.standard_normal())
            rows.append({"N": N, "D": D, "lr": lr * math.exp(u), "batch_tokens": batch * math.exp(v), "loss": loss})
    return pd.DataFrame(rows)


def test_a_planted_rule_is_recovered_from_four_corners():
    found = refit(trials([(2e3, 3e6), (1e5, 6e4), (6e3, 3e7), (4e5, 4e5)]), config.load().train)
    assert found["lr_params_exponent"] == pytest.approx(TRUE["a"], abs=1e-6)
    assert found["lr_tokens_exponent"] == pytest.approx(TRUE["b"], abs=1e-6)
    assert found["lr_coefficient"] == pytest.approx(TRUE["c"], rel=1e-4)
    assert found["batch_tokens_exponent"] == pytest.approx(TRUE["slope"], abs=1e-6)
    assert found["batch_coefficient"] == pytest.approx(TRUE["batch"], rel=1e-4)


def test_two_corners_keep_the_exponents_and_refit_the_coefficient():
    rule = replace(config.load().train, lr_params_exponent=TRUE["a"], lr_tokens_exponent=TRUE["b"])
    found = refit(trials([(2e3, 3e6), (1e5, 6e4)]), rule)
    assert (found["lr_params_exponent"], found["lr_tokens_exponent"]) == (TRUE["a"], TRUE["b"])
    assert found["lr_coefficient"] == pytest.approx(TRUE["c"], rel=1e-4)


def test_noise_of_a_per_cent_moves_the_rule_by_less_than_the_width_of_its_basin():
    found = refit(trials([(2e3, 3e6), (1e5, 6e4), (6e3, 3e7), (4e5, 4e5)], noise=0.003), config.load().train)
    at = 2e4 ** found["lr_params_exponent"] * 1e6 ** found["lr_tokens_exponent"] * found["lr_coefficient"]
    assert math.log(at / (TRUE["c"] * 2e4 ** TRUE["a"] * 1e6 ** TRUE["b"])) == pytest.approx(0, abs=0.3)
