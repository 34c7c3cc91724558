import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from skillscale.config import load
from skillscale.lm.model import cpu_kernels, flops
from skillscale.lm.model.shape import shape_for
from skillscale.lm.model.transformer import Transformer


@pytest.mark.parametrize("n_params", [6e3, 5e4, 1e6])
def test_the_count_is_that_of_the_products_that_torch_runs(n_params, monkeypatch):
    monkeypatch.setattr(cpu_kernels, "HAS_ONEDNN", False)  # the counter doesn't know its products either
    size = shape_for(n_params, vocab_size=512, model=load().model)
    model = Transformer(size, seed=0)
    # The plain kernel multiplies all T keys, as the count says; the counter doesn't know the fused one on a CPU
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, size.context, dtype=torch.long)).sum().backward()
    assert flops.flops_per_token(size) * 2 * size.context == counter.get_total_flops()


def test_attention_is_what_six_n_leaves_out():
    size = shape_for(1e7, vocab_size=512, model=load().model)
    attention = 12 * size.depth * size.context * size.width
    norms = 6 * (2 * size.depth + 1) * size.width  # parameters that multiply no matrix
    assert flops.flops_per_token(size) == 6 * size.n_params + attention - norms


def test_the_peak_is_a_rate_that_a_machine_can_have():
    peak = flops.matmul_peak()
    assert 1e8 < peak < 1e16
    assert flops.matmul_peak() == peak
