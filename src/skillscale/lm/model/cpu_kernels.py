"""The products of the model where torch's own choice is slow on a CPU: linear layers, and the head with its loss.

Torch multiplies float32 matrices with MKL, which runs AVX2 code on AVX-512 processors of other makers than its own;
oneDNN, which comes with torch as well, asks the processor itself: 184 against 87 GFLOP/s on a square product
(docs/research/speed.md). And the head costs least where logits are used while they are in the cache. What is too small to gain,
other devices and precisions, and `torch.compile` take torch's own. The choice depends on shapes alone, never on a
clock: the same run gives the same bits.
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
# Multiply-adds of a product, and logits of a loss, below which the calls around them cost more than is gained
# (measured at 3e4 and 2e5 parameters with 2 and 8 sequences, docs/research/lab-book.md)
_WORTH_PRODUCT = 1 << 23
_WORTH_LOGITS = 1 << 19
# Logits are made, used and forgotten for this many at a time: 1 MiB, about what a core's second cache holds
_LOGITS_AT_ONCE = 1 << 18


class Linear(nn.Linear):
    """A linear layer without bias, by the faster library."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """X W^T over the last dimension of x."""
        if not (_is_plain_cpu(x) and x.numel() * len(self.weight) >= _WORTH_PRODUCT):
            return functional.linear(x, self.weight)
        product: Tensor = _Product.apply(x, self.weight)  # type: ignore[no-untyped-call]
        return product


def next_token_loss(hidden_Mxd: Tensor, table_Vxd: Tensor, targets_M: Tensor) -> Tensor:
    """Mean cross-entropy, in nats, of the logits hidden table^T."""
    if not (_is_plain_cpu(hidden_Mxd) and len(hidden_Mxd) * len(table_Vxd) >= _WORTH_LOGITS):
        return functional.cross_entropy(functional.linear(hidden_Mxd, table_Vxd), targets_M)
    loss: Tensor = _HeadLoss.apply(hidden_Mxd, table_Vxd, targets_M)  # type: ignore[no-untyped-call]
    return loss


def _is_plain_cpu(x: Tensor) -> bool:
    """Whether our ways are made for this: float32 on a CPU, run as it stands."""
    return (
        HAS_ONEDNN
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def matmul(x: Tensor, weight: Tensor) -> Tensor:
    """X W^T by oneDNN; the operator is the one that compiled models call."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, None, "none", [], "")  # noqa: SLF001  no public name
    return product


def _summed(grad_MxO: Tensor, x_MxI: Tensor) -> Tensor:
    """grad^T x, (O, I): the narrower of the two is the one that has to be transposed in memory."""
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
        return matmul(grad, weight.t()), _summed(grad.flatten(0, -2), x.flatten(0, -2))


class _HeadLoss(torch.autograd.Function):
    """Gradients are made beside the loss, while the logits are there; the way back only scales them."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, table: Tensor, targets: Tensor) -> Tensor:
        rows = max(1, _LOGITS_AT_ONCE // len(table))
        to_hidden, to_table = torch.empty_like(hidden), torch.zeros_like(table)
        losses = []
        for first in range(0, len(hidden), rows):
            part, target = hidden[first : first + rows], targets[first : first + rows, None]
            logits = matmul(part, table)
            shares = logits.softmax(1)
            # ln sum exp from the largest logit and its share, without a second exponential of all
            losses.append((logits.amax(1) - shares.amax(1).log() - logits.gather(1, target)[:, 0]).sum())
            shares.scatter_add_(1, target, shares.new_full((len(part), 1), -1.0))
            to_hidden[first : first + rows] = matmul(shares, table.t())
            to_table += _summed(shares, part)
        ctx.save_for_backward(to_hidden, to_table)
        return torch.stack(losses).sum() / len(hidden)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        to_hidden, to_table = ctx.saved_tensors
        scale = grad / len(to_hidden)
        return to_hidden * scale, to_table * scale, None
