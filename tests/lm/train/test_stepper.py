"""One optimizer step: its micro-batches, its weight decay, its time."""

import copy
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from skillscale.config import load
from skillscale.lm.model.shape import shape_for
from skillscale.lm.model.transformer import Transformer
from skillscale.lm.train import devices, stepper
from skillscale.lm.train.snapshots import TrainingState
from skillscale.lm.train.stepper import TrainStepper, step_seconds, weight_groups

CONFIG = load().train
SIZE = shape_for(6e3, vocab_size=300, model=replace(load().model, context=32))


def batch(step):
    index = np.arange(4 * step, 4 * step + 4)[:, None]
    return (index + np.arange(33) * (index % 5)) % 300


def losses(taker, steps=8):
    return [float(taker.step(batch(step), lr=0.01)) for step in range(steps)]


def test_a_batch_in_micro_batches_takes_the_same_step(monkeypatch):
    whole = losses(TrainStepper(SIZE, CONFIG, lr=0.01, seed=0))
    monkeypatch.setattr(stepper, "_MICRO_BATCH_TOKENS", {"cpu": 3 * 32})  # 3 sequences, then 1
    split = losses(TrainStepper(SIZE, CONFIG, lr=0.01, seed=0))
    assert split == pytest.approx(whole, rel=1e-3)
    assert split[0] == pytest.approx(whole[0], rel=1e-6)


def test_gradients_that_stay_in_place_make_the_same_steps(monkeypatch):
    """CUDA graphs need this, also with several micro-batches."""
    plain = losses(TrainStepper(SIZE, CONFIG, lr=0.01, seed=0))
    monkeypatch.setattr(devices, "has_graphs", lambda config, device: True)
    monkeypatch.setattr(stepper, "_MICRO_BATCH_TOKENS", {"cpu": 2 * 32})
    taker = TrainStepper(SIZE, CONFIG, lr=0.01, seed=0)
    places = [weight.grad.data_ptr() for weight in taker.model.parameters()]
    assert losses(taker) == pytest.approx(plain, rel=1e-4)
    assert [weight.grad.data_ptr() for weight in taker.model.parameters()] == places


def test_a_restored_stepper_takes_the_same_steps_to_the_last_bit():
    first, second = (TrainStepper(SIZE, CONFIG, lr=0.01, seed=seed) for seed in (0, 1))
    losses(first, 3)
    state = TrainingState(step=3, losses=[torch.tensor(1.5)])
    restored = second.restore(copy.deepcopy(first.snapshot(state)))
    assert (restored.step, restored.losses) == (3, state.losses)
    assert losses(second) == losses(first)


def test_matrices_decay_and_norms_and_embedding_do_not():
    model = Transformer(SIZE, seed=0)
    matrices, others = weight_groups(model, 0.1)
    assert (matrices["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(parameter)].split(".")[-2] for parameter in others["params"]} == {
        "embed", "norm", "attention_norm", "mlp_norm",
    }  # fmt: skip
    assert len(matrices["params"]) == 4 * SIZE.depth
    assert len(matrices["params"]) + len(others["params"]) == len(names)


def test_steps_are_timed():
    began = time.perf_counter()
    seconds = step_seconds(SIZE, batch_sequences=2, config=CONFIG)
    assert 0 < seconds < time.perf_counter() - began
