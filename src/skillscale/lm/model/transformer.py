"""The transformer: decoder-only, pre-norm, rotary positions, no biases, head tied to the embedding.

Letters in shapes: B sequences, T positions, d width, H heads, K width of a head, V tokens of the vocabulary.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from skillscale.lm.model.cpu_kernels import Linear, next_token_loss
from skillscale.record import ModelSize

_ROPE_BASE = 10_000.0
# Standard deviation of the embeddings in the residual stream, and of the initial logits. At the usual 0.02 the random
# initial outputs of the blocks are larger than the tokens, and short runs end 0.3 to 0.6 nats higher
# (docs/research/decisions.md).
_INITIAL_STD = 0.5


class Transformer(nn.Module):
    """A decoder that maps token ids to next-token logits, with the parameters that ``size`` counts.

    Embeddings enter the residual stream times sqrt(d) (Vaswani et al. 2017, section 3.4). So one table of standard
    deviation 1/2 d^-1/2 gives the stream and the initial logits a standard deviation of 1/2. The initial loss is
    ln V + 1/8.

    Args:
        size: shape of the model.
        seed: seed of the initial weights, the same on every device.
        checkpointed: whether training keeps only the inputs of each block and recomputes it in the backward pass.
    """

    def __init__(self, size: ModelSize, *, seed: int, checkpointed: bool = False) -> None:
        super().__init__()
        self.size = size
        self.embed = nn.Embedding(size.vocab_size, size.width)
        self.blocks = nn.ModuleList(
            Block(size.width, size.n_heads, checkpointed=checkpointed) for _ in range(size.depth)
        )
        self.norm = nn.LayerNorm(size.width, bias=False)
        self.cos: Tensor
        self.sin: Tensor
        for name, table in zip(("cos", "sin"), rotary_angles(size.context, size.width // size.n_heads), strict=True):
            self.register_buffer(name, table, persistent=False)
        built = sum(parameter.numel() for parameter in self.parameters())
        assert built == size.n_params, f"built {built} parameters, but the shape counts {size.n_params}"
        if not self.embed.weight.is_meta:
            self._init(torch.Generator().manual_seed(seed))

    def _init(self, generator: torch.Generator) -> None:
        nn.init.normal_(self.embed.weight, std=_INITIAL_STD / math.sqrt(self.size.width), generator=generator)
        for block in self.blocks:
            assert isinstance(block, Block)
            block.init(self.size.depth, generator)

    def forward(self, ids_BxT: Tensor, targets_BxT: Tensor | None = None) -> Tensor:
        """Return logits (B, T, V) of the next tokens, or their mean loss in nats. T is at most the context."""
        length = ids_BxT.shape[1]
        x_BxTxd = self.embed(ids_BxT) * math.sqrt(self.size.width)
        for block in self.blocks:
            x_BxTxd = block(x_BxTxd, self.cos[:length], self.sin[:length])
        hidden_BxTxd = self.norm(x_BxTxd)
        if targets_BxT is None:
            return functional.linear(hidden_BxTxd, self.embed.weight)
        return next_token_loss(hidden_BxTxd.flatten(0, 1), self.embed.weight, targets_BxT.flatten())


class Block(nn.Module):
    """Attention and a GELU layer of four times the width, each after a norm and added to the residual stream."""

    def __init__(self, width: int, n_heads: int, *, checkpointed: bool = False) -> None:
        super().__init__()
        self.n_heads, self.checkpointed = n_heads, checkpointed
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.query_key_value = Linear(width, 3 * width)
        self.attention_out = Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width, bias=False)
        self.mlp_in = Linear(width, 4 * width)
        self.mlp_out = Linear(4 * width, width)

    def init(self, depth: int, generator: torch.Generator) -> None:
        """Draw weights that keep the variance, and smaller ones for the 2 L outputs to the residual stream (GPT-2)."""
        outputs = (self.attention_out, self.mlp_out)
        for layer in (self.query_key_value, self.mlp_in, *outputs):
            std = layer.in_features**-0.5 / (math.sqrt(2 * depth) if layer in outputs else 1.0)
            nn.init.normal_(layer.weight, std=std, generator=generator)

    def forward(self, x_BxTxd: Tensor, cos_TxK: Tensor, sin_TxK: Tensor) -> Tensor:
        """Return the residual stream after this block."""
        if self.checkpointed and torch.is_grad_enabled():
            recomputed: Tensor = checkpoint(
                self._forward, x_BxTxd, cos_TxK, sin_TxK, use_reentrant=False, preserve_rng_state=False
            )
            return recomputed
        return self._forward(x_BxTxd, cos_TxK, sin_TxK)

    def _forward(self, x_BxTxd: Tensor, cos_TxK: Tensor, sin_TxK: Tensor) -> Tensor:
        x_BxTxd = x_BxTxd + self._attend(self.attention_norm(x_BxTxd), cos_TxK, sin_TxK)
        hidden = functional.gelu(self.mlp_in(self.mlp_norm(x_BxTxd)))
        out_BxTxd: Tensor = x_BxTxd + self.mlp_out(hidden)
        return out_BxTxd

    def _attend(self, x_BxTxd: Tensor, cos_TxK: Tensor, sin_TxK: Tensor) -> Tensor:
        batch, length, width = x_BxTxd.shape
        heads = self.query_key_value(x_BxTxd).view(batch, length, 3, self.n_heads, width // self.n_heads)
        q_BxHxTxK, k_BxHxTxK, v_BxHxTxK = heads.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(
            rotate(q_BxHxTxK, cos_TxK, sin_TxK), rotate(k_BxHxTxK, cos_TxK, sin_TxK), v_BxHxTxK, is_causal=True
        )
        out_BxTxd: Tensor = self.attention_out(mixed.transpose(1, 2).reshape(batch, length, width))
        return out_BxTxd


def rotary_angles(context: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Return cosines and signed sines (T, K) of rotary positions (Su et al. 2021, arXiv 2104.09864), halves paired."""
    rates = _ROPE_BASE ** -(torch.arange(0, head_dim, 2) / head_dim)
    angles = torch.outer(torch.arange(context, dtype=torch.float32), rates)
    return torch.cat((angles.cos(), angles.cos()), -1), torch.cat((-angles.sin(), angles.sin()), -1)


def rotate(x_BxHxTxK: Tensor, cos_TxK: Tensor, sin_TxK: Tensor) -> Tensor:
    """Rotate each pair (i, i + K/2) by the angle of its position."""
    return x_BxHxTxK * cos_TxK + x_BxHxTxK.roll(x_BxHxTxK.shape[-1] // 2, -1) * sin_TxK
