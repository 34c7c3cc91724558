"""Compiled models and checkpointed activations change the time and the memory of a run, not its losses."""

from dataclasses import replace

import pytest
import torch

from skillscale.config import load, resolve
from skillscale.errors import InputError
from skillscale.lm.model import cpu_kernels
from skillscale.lm.model.shape import shape_for
from skillscale.lm.model.transformer import Transformer
from skillscale.lm.train import devices
from skillscale.lm.train.loop import train
from skillscale.point import DesignPoint, Mix
from skillscale.record import OptimizerPlan

CONFIG = load().train
MODEL = replace(load().model, context=32)
SIZE = shape_for(6e3, vocab_size=300, model=MODEL)
PLAN = OptimizerPlan(lr=0.01, batch_sequences=4, steps=8, warmup_steps=2)
COMPILED = replace(CONFIG, compile="default")


class Counting:
    """Sequences that count upward: learnable."""

    def batch(self, first, count):
        index = torch.arange(first, first + count)[:, None]
        return ((index + torch.arange(33) * (index % 5)) % 300).numpy()


def trained(config=CONFIG, **more):
    point = DesignPoint(n_params=SIZE.n_params, n_tokens=8 * 4 * 32, mix=Mix({"code": 1.0}))
    return train(point, size=SIZE, optimizer_plan=PLAN, stream=Counting(), config=config, **more)


def losses(run):
    return [loss for _, loss in run.curve]


@pytest.fixture
def without_kernels(monkeypatch):
    """Trace and differentiate the model, but don't build kernels, which takes seconds."""
    monkeypatch.setattr(devices, "_compile_options", lambda mode: {"backend": "aot_eager"})
    yield
    torch.compiler.reset()


def test_a_compiled_model_learns_the_same(without_kernels):
    assert losses(trained(COMPILED)) == pytest.approx(losses(trained()), rel=2e-5)


def test_a_checkpoint_knows_nothing_of_compilation(without_kernels, tmp_path):
    path, calls = tmp_path / "run.pt", iter(range(4))
    with pytest.raises(Exception, match="stopped after 4 of 8"):
        trained(COMPILED, checkpoint=path, should_stop=lambda: next(calls, None) is None)
    weights = torch.load(path, weights_only=True)["model"]
    assert list(weights) == [name for name, _ in Transformer(SIZE, seed=0).named_parameters()]
    assert losses(trained(checkpoint=path)) == pytest.approx(losses(trained()), rel=2e-5)


def test_a_compiled_model_is_measured_as_it_stands(without_kernels):
    model = trained(COMPILED).model
    assert type(model) is Transformer
    assert model(torch.zeros(1, 7, dtype=torch.long)).shape == (1, 7, 300)


@pytest.mark.skipif(not cpu_kernels.HAS_ONEDNN, reason="this build of torch has no oneDNN for x86")
def test_a_compiled_model_uses_torchs_kernels(without_kernels, monkeypatch):
    calls = []
    times = cpu_kernels.matmul
    monkeypatch.setattr(cpu_kernels, "_MIN_MULTIPLY_ADDS", 0)
    monkeypatch.setattr(cpu_kernels, "matmul", lambda x, weight: calls.append(1) or times(x, weight))
    trained(COMPILED)
    assert calls == []
    trained()
    assert calls


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")  # torch warns of torch
def test_kernels_give_the_losses_of_the_model_as_it_stands():
    assert losses(trained(COMPILED)) == pytest.approx(losses(trained()), rel=2e-5)
    again = replace(COMPILED, checkpoint_activations=True)
    assert losses(trained(again)) == pytest.approx(losses(trained()), rel=2e-5)
    torch.compiler.reset()


def test_what_can_not_be_compiled_is_refused_before_training(monkeypatch):
    with pytest.raises(
        InputError, match=r"reduce-overhead uses CUDA graphs, but the device is cpu\. Choose default or off"
    ):
        trained(replace(CONFIG, compile="reduce-overhead", device="cpu"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match=r"needs a C\+\+ compiler, and there is no no-such-compiler. Install one"):
        trained(COMPILED)
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="default needs triton for a GPU"):
        devices.check_compiler("default", "cuda")


def test_graphs_are_those_of_a_gpu():
    graphs = replace(CONFIG, compile="reduce-overhead")
    assert devices.has_graphs(graphs, "cuda")
    assert not devices.has_graphs(graphs, "cpu")
    assert not devices.has_graphs(COMPILED, "cuda")


@pytest.mark.parametrize(("text", "value"), [("off", "off"), ("false", "off"), ("default", "default")])
def test_off_is_off_though_yaml_reads_it_as_false(text, value):
    settings = load(overrides={"train.compile": text})
    assert settings.train.compile == value
    assert resolve(settings.as_dict()).train == settings.train


def gradients(model, ids):
    """Return the gradients of the loss, and the bytes that the forward pass keeps for the backward pass."""
    storages = {}

    def keep(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(ids[:, :-1], ids[:, 1:])
    for weight in model.parameters():
        storages.pop(weight.untyped_storage().data_ptr(), None)
    loss.backward()
    return [weight.grad for weight in model.parameters()], sum(storages.values())


@pytest.mark.parametrize("n_params", [5e4, 1e6])  # by torch's products, and by ours
def test_checkpointed_activations_give_the_same_bits_in_less_memory(n_params):
    size = shape_for(n_params, vocab_size=512, model=load().model)
    ids = torch.randint(0, 512, (4, 257), generator=torch.Generator().manual_seed(0))
    plain, less = Transformer(size, seed=0), Transformer(size, seed=0, checkpointed=True)
    (expected, much), (recomputed, little) = gradients(plain, ids), gradients(less, ids)
    assert all(map(torch.equal, recomputed, expected))
    entering = size.depth * ids.shape[0] * 256 * size.width * 4
    assert entering <= little < 0.5 * much


def test_a_checkpointed_run_ends_in_the_same_bits():
    assert trained(replace(CONFIG, checkpoint_activations=True)).curve == trained().curve
