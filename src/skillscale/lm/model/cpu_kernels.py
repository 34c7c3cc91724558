"""Faster CPU kernels where torch's choice is slow: linear layers, and the head with its loss.

Torch multiplies float32 matrices with MKL, which runs AVX2 code on AVX-512 processors of other makers than Intel.
oneDNN, which torch also ships, detects the processor: 184 against 87 GFLOP/s on a square product
(docs/research/speed.md). The head is fastest when its logits are used while they are in the cache. Small shapes, other
devices, other precisions and `torch.compile` use torch's kernels. The choice depends on shapes alone, never on a clock,
so the same run gives the same bits.
"""

import platform
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

HAS_ONEDNN = (
    platform.machine() in ("x86_64", "AMD64")
    and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)
# Below these sizes the extra calls cost more than the kernels save (measured at 3e4 and 2e5 parameters with 2 and 8
# sequences, docs/research/lab-book.md)
_MIN_MULTIPLY_ADDS = 1 << 23
_MIN_LOGITS = 1 << 19
# Logits per chunk: 1 MiB, about the size of a core's second-level cache
_LOGITS_PER_CHUNK = 1 << 18


class Linear(nn.Linear):
    """A linear layer without bias, computed by the faster library."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return X W^T over the last dimension of x."""
        if not (_is_plain_cpu(x) and x.numel() * len(self.weight) >= _MIN_MULTIPLY_ADDS):
            return functional.linear(x, self.weight)
        product: Tensor = _Product.apply(x, self.weight)  # type: ignore[no-untyped-call]
        return product


def next_token_loss(hidden_Mxd: Tensor, table_Vxd: Tensor, targets_M: Tensor) -> Tensor:
    """Return the mean cross-entropy, in nats, of the logits hidden table^T."""
    if not (_is_plain_cpu(hidden_Mxd) and len(hidden_Mxd) * len(table_Vxd) >= _MIN_LOGITS):
        return functional.cross_entropy(functional.linear(hidden_Mxd, table_Vxd), targets_M)
    loss: Tensor = _HeadLoss.apply(hidden_Mxd, table_Vxd, targets_M)  # type: ignore[no-untyped-call]
    return loss


def _is_plain_cpu(x: Tensor) -> bool:
    """Return whether these kernels apply: float32 on a CPU, without autocast or a compiler."""
    return (
        HAS_ONEDNN
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def matmul(x: Tensor, weight: Tensor) -> Tensor:
    """Return X W^T by oneDNN, with the operator that compiled models call."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, None, "none", [], "")  # noqa: SLF001  no public name
    return product


def _weight_gradient(grad_MxO: Tensor, x_MxI: Tensor) -> Tensor:
    """Return grad^T x, (O, I). The narrower matrix is the one to transpose in memory."""
    if x_MxI.shape[1] <= grad_MxO.shape[1]:
        return matmul(x_MxI.t(), grad_MxO.t()).t()
    return matmul(grad_MxO.t(), x_MxI.t())


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return matmul(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return matmul(grad, weight.t()), _weight_gradient(grad.flatten(0, -2), x.flatten(0, -2))


class _HeadLoss(torch.autograd.Function):
    """The loss of the head. The forward pass also computes the gradients, so that the logits need not be kept."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, table: Tensor, targets: Tensor) -> Tensor:
        rows = max(1, _LOGITS_PER_CHUNK // len(table))
        to_hidden, to_table = torch.empty_like(hidden), torch.zeros_like(table)
        losses = []
        for first in range(0, len(hidden), rows):
            chunk, target = hidden[first : first + rows], targets[first : first + rows, None]
            logits = matmul(chunk, table)
            shares = logits.softmax(1)
            # ln sum exp from the largest logit and its share, without a second exponential of all logits
            losses.append((logits.amax(1) - shares.amax(1).log() - logits.gather(1, target)[:, 0]).sum())
            shares.scatter_add_(1, target, shares.new_full((len(chunk), 1), -1.0))
            to_hidden[first : first + rows] = matmul(shares, table.t())
            to_table += _weight_gradient(shares, chunk)
        ctx.save_for_backward(to_hidden, to_table)
        return torch.stack(losses).sum() / len(hidden)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        to_hidden, to_table = ctx.saved_tensors
        scale = grad / len(to_hidden)
        return to_hidden * scale, to_table * scale, None
