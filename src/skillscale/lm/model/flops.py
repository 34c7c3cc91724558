"""FLOP of a training token, counted from the matrix products, and the peak rate of this machine."""

import time
from functools import lru_cache

import torch

from skillscale.record import ModelSize

_PEAK_SIDE = 1024
_PEAK_TRIALS = 8


def flops_per_token(size: ModelSize) -> int:
    """Return the FLOP of forward and backward pass per token: 6 (12 L d^2 + V d) + 12 L T d.

    A multiply-add counts two FLOP, and the backward pass twice the forward pass. Attention counts over all T keys
    (PaLM, arXiv 2204.02311, appendix B), though a causal kernel may skip later keys. The tied table counts once, as the
    head: an embedding lookup multiplies nothing. Norms and activations are not counted.
    """
    blocks = 12 * size.depth * size.width**2
    head = size.vocab_size * size.width
    attention = 2 * size.depth * size.context * size.width
    return 6 * (blocks + head + attention)


@lru_cache(maxsize=8)
def matmul_peak(device: str = "cpu", precision: str = "32-true") -> float:
    """Return the best measured FLOP/s of a square product with the threads of this process. Measured once."""
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    side = _PEAK_SIDE if device == "cpu" else 8 * _PEAK_SIDE
    first, second = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / min(_product_seconds(first, second) for _ in range(_PEAK_TRIALS))


def _product_seconds(first: torch.Tensor, second: torch.Tensor) -> float:
    began = time.perf_counter()
    product = first @ second
    if product.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began
