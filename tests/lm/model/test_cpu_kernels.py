import pytest
import torch
from torch import nn
from torch.nn import functional

from skillscale.config import load
from skillscale.lm.model import cpu_kernels
from skillscale.lm.model.cpu_kernels import Linear, next_token_loss
from skillscale.lm.model.shape import shape_for
from skillscale.lm.model.transformer import Transformer

needs_onednn = pytest.mark.skipif(not cpu_kernels.HAS_ONEDNN, reason="this build of torch has no oneDNN for x86")


@pytest.fixture
def for_all_shapes(monkeypatch):
    monkeypatch.setattr(cpu_kernels, "_MIN_MULTIPLY_ADDS", 0)
    monkeypatch.setattr(cpu_kernels, "_MIN_LOGITS", 0)
    monkeypatch.setattr(cpu_kernels, "_LOGITS_PER_CHUNK", 5 * 50)


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gradients(function, *inputs):
    """Return the value and gradients of a function, weighted so that no gradient is uniform."""
    inputs = [tensor.clone().requires_grad_() for tensor in inputs]
    value = function(*inputs)
    weighted = (value * numbers(*value.shape, seed=9)).sum()
    return value.detach(), *torch.autograd.grad(weighted, inputs)


@needs_onednn
@pytest.mark.parametrize(("inputs", "outputs"), [(6, 24), (24, 6), (7, 7)])
def test_a_product_and_its_gradients_are_those_of_float64(for_all_shapes, inputs, outputs):
    x, weight = numbers(3, 17, inputs), numbers(outputs, inputs, seed=1)

    def ours(x, weight):
        return torch.func.functional_call(layer, {"weight": weight}, (x,))

    layer = Linear(inputs, outputs)
    exact = gradients(functional.linear, x.double(), weight.double())
    for got, want in zip(gradients(ours, x, weight), exact, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)


@needs_onednn
def test_the_loss_in_parts_and_its_gradients_are_those_of_float64(for_all_shapes):
    hidden, table = numbers(23, 8), 3 * numbers(50, 8, seed=1)
    targets = torch.arange(23) * 7 % 50

    def plain(hidden, table):
        return functional.cross_entropy(hidden @ table.t(), targets)

    exact = gradients(plain, hidden.double(), table.double())
    ours = gradients(lambda hidden, table: next_token_loss(hidden, table, targets), hidden, table)
    for got, want in zip(ours, exact, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-6)


@needs_onednn
def test_a_target_of_no_chance_costs_its_logit_not_infinity(for_all_shapes):
    hidden, table = torch.ones(1, 1), torch.tensor([[500.0], [0.0]])
    assert float(next_token_loss(hidden, table, torch.tensor([1]))) == 500.0
    assert next_token_loss(hidden * torch.nan, table, torch.tensor([1])).isnan()


@needs_onednn
def test_large_products_use_onednn_and_small_ones_do_not(monkeypatch):
    shapes = []
    matmul = cpu_kernels.matmul
    monkeypatch.setattr(cpu_kernels, "matmul", lambda x, weight: shapes.append(tuple(x.shape)) or matmul(x, weight))
    Linear(32, 96)(numbers(2, 256, 32))
    assert shapes == []
    Linear(128, 512)(numbers(2, 256, 128))
    assert shapes == [(2, 256, 128)]
    Linear(128, 512).double()(numbers(2, 256, 128).double())
    with torch.autocast("cpu", torch.bfloat16):
        Linear(128, 512)(numbers(2, 256, 128))
    assert len(shapes) == 1


def test_without_onednn_the_model_learns_by_torch_alone(monkeypatch):
    size = shape_for(2e5, vocab_size=512, model=load().model)
    ids = torch.randint(0, 512, (4, 257), generator=torch.Generator().manual_seed(0))

    def step():
        model = Transformer(size, seed=0)
        loss = model(ids[:, :-1], ids[:, 1:])
        loss.backward()
        return loss.item(), nn.utils.parameters_to_vector(weight.grad for weight in model.parameters())

    fast = step()
    monkeypatch.setattr(cpu_kernels, "HAS_ONEDNN", False)
    plain = step()
    assert fast[0] == pytest.approx(plain[0], rel=1e-6)
    assert float((fast[1] - plain[1]).norm() / plain[1].norm()) < 1e-5
