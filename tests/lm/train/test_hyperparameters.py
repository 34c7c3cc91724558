from dataclasses import replace

import pytest

from skillscale.config import load
from skillscale.errors import InputError
from skillscale.lm.model.shape import shape_for
from skillscale.lm.train import hyperparameters
from skillscale.point import DesignPoint, Mix

CONFIG = load()


def derive(n_params, n_tokens, config=CONFIG.train):
    size = shape_for(n_params, vocab_size=512, model=CONFIG.model)
    point = DesignPoint(n_params=size.n_params, n_tokens=n_tokens, mix=Mix({"code": 1.0}))
    return hyperparameters.optimizer_plan(point, size, config, context=256)


def test_the_step_law_as_published():
    law = replace(
        CONFIG.train,
        lr_coefficient=1.79, lr_params_exponent=-0.713, lr_tokens_exponent=0.307, lr_max=1.0,
        batch_coefficient=0.58, batch_tokens_exponent=0.571,
    )  # fmt: skip
    # Li et al. 2025, equation 1, worked by hand for 1e9 parameters and 1e11 tokens
    assert hyperparameters.learning_rate(10**9, 10**11, law) == pytest.approx(1.633e-3, rel=1e-3)
    assert hyperparameters.batch_sequences(10**11, law, context=256) * 256 == pytest.approx(1.1076e6, rel=1e-3)


def test_batch_stays_within_its_bounds():
    narrow = replace(CONFIG.train, batch_min=1024, batch_max=2048)
    assert hyperparameters.batch_sequences(10**3, narrow, context=256) == 4
    assert hyperparameters.batch_sequences(10**12, narrow, context=256) == 8


@pytest.mark.parametrize("n_tokens", [256, 30_000, 1_000_001, 10**9])
def test_whole_batches_come_near_to_d(n_tokens):
    derived = derive(1e5, n_tokens)
    trained = derived.steps * derived.batch_sequences * 256
    assert abs(trained - n_tokens) <= derived.batch_sequences * 256 / 2
    assert 0 <= derived.warmup_steps < derived.steps


def test_short_runs_take_smaller_batches_rather_than_fewer_steps():
    derived = derive(1e5, 40_000)
    assert derived.batch_sequences == 1
    assert derived.steps >= hyperparameters.MIN_STEPS


def test_the_rate_stays_below_its_cap():
    assert derive(5e3, 10**9, replace(CONFIG.train, lr_max=0.01)).lr == 0.01


def test_less_than_a_sequence_is_refused():
    with pytest.raises(InputError, match=r"n_tokens is 255, less than one sequence of 256 tokens"):
        derive(1e5, 255)
