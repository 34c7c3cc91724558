"""Depth and width of a model from N alone.

A model of width d and depth L over V tokens has, with its embedding tied to the head, no biases and rotary positions,

    N = V d + L (12 d^2 + 2 d) + d

parameters. Depth follows one rule, L = max(2, round(coefficient N^exponent)). The width is then the one whose size is
nearest to N. Both grow in small steps, so sizes form a ladder with ratios from a few per cent to a sixth.
"""

import bisect
import math
from functools import lru_cache
from itertools import count

from skillscale.config import ModelConfig
from skillscale.errors import InputError
from skillscale.record import ModelSize

# One layer can't form induction heads (Olsson et al. 2022, arXiv 2209.11895): with one-layer models the losses of the
# ladder would have a kink at the second layer.
MIN_DEPTH = 2
MIN_WIDTH = 4
MAX_WIDTH = 32_768
MAX_SIZE = 1e12
# Heads are about head_dim wide. From this many heads on they are twice, then four times as wide: 32 at 1e6 parameters
# grows into the usual 128 at 1e9.
_MAX_HEADS = 32
_MAX_HEAD_FACTOR = 4
_NARROWEST, _WIDEST = 0.75, 1.5  # of a head, as ratios to its target width
# Head widths grow in steps of a sixteenth, and of two at least, because rotary positions rotate pairs
_STEPS_PER_HEAD = 16


def shape_for(n_params: float, *, vocab_size: int, model: ModelConfig) -> ModelSize:
    """Return the buildable model whose total size is nearest to ``n_params`` in log N.

    Raises:
        InputError: no model is that small or that large.
    """
    sizes = buildable_sizes(vocab_size, model)
    if not (math.isfinite(n_params) and sizes[0] / 2 <= n_params <= sizes[-1]):
        raise InputError(
            f"n_params is {n_params:.4g}, but models over {vocab_size} tokens have {sizes[0]:,} to {sizes[-1]:,} "
            "parameters. Choose a size in this range, or a smaller vocabulary for a smaller model."
        )
    above = min(bisect.bisect_left(sizes, n_params), len(sizes) - 1)
    nearest = min(sizes[max(above - 1, 0) : above + 1], key=lambda size: abs(math.log(size / n_params)))
    depth, width = _shapes(vocab_size, model)[nearest]
    return model_size(depth, width, vocab_size=vocab_size, model=model)


def size_ladder(
    *, vocab_size: int, model: ModelConfig, smallest: float = 1e4, largest: float = 1e10
) -> list[ModelSize]:
    """Return every size from ``smallest`` to ``largest`` parameters, ascending."""
    totals = [n for n in buildable_sizes(vocab_size, model) if smallest <= n <= largest]
    return [shape_for(n, vocab_size=vocab_size, model=model) for n in totals]


def model_size(depth: int, width: int, *, vocab_size: int, model: ModelConfig) -> ModelSize:
    """Return the size of a shape under each convention."""
    embed, total = vocab_size * width, _total(depth, width, vocab_size)
    return ModelSize(
        n_params=total,
        n_params_nonembed=total - embed,
        n_params_embed=embed,
        depth=depth,
        width=width,
        n_heads=_n_heads(width, model.head_dim),
        vocab_size=vocab_size,
        context=model.context,
    )


def buildable_sizes(vocab_size: int, model: ModelConfig) -> list[int]:
    """Return every total size that can be built, in parameters, ascending."""
    return list(_shapes(vocab_size, model))


def _total(depth: int, width: int, vocab_size: int) -> int:
    return vocab_size * width + depth * (12 * width**2 + 2 * width) + width


@lru_cache(maxsize=16)
def _shapes(vocab_size: int, model: ModelConfig) -> dict[int, tuple[int, int]]:
    """Return (depth, width) by total size, ascending. A depth begins at the N where the rule rounds to it."""
    shapes: dict[int, tuple[int, int]] = {}
    widths = _widths(model.head_dim)
    start = 0.0
    for depth in count(MIN_DEPTH):
        totals = [_total(depth, width, vocab_size) for width in widths]
        end = min(_depth_start(depth + 1, model), MAX_SIZE)
        inside = range(bisect.bisect_left(totals, start), bisect.bisect_left(totals, end))
        shapes.update({totals[index]: (depth, widths[index]) for index in inside})
        if end == MAX_SIZE:
            return shapes
        start = end
    raise AssertionError("there is always a next depth")


def _depth_start(depth: int, model: ModelConfig) -> float:
    """Return the N from which coefficient N^exponent rounds to ``depth`` or more; infinite if it never does."""
    if model.depth_exponent == 0:
        return 0.0 if model.depth_coefficient >= depth - 0.5 else math.inf
    return float(((depth - 0.5) / model.depth_coefficient) ** (1 / model.depth_exponent))


def _widths(head_dim: int) -> list[int]:
    """Return 4, 6, 8, ..., 46, 48, 52, 56, ...: even widths for one head, then those that heads divide evenly."""
    return [width for width in range(MIN_WIDTH, MAX_WIDTH + 1, 2) if _n_heads(width, head_dim)]


def _n_heads(width: int, head_dim: int) -> int:
    """Return the number of heads, each about ``head_dim`` or its multiple wide; 0 if none divides the width."""
    doublings = math.floor(math.log2(max(1.0, 2 * width / (_MAX_HEADS * head_dim))))
    target = head_dim * min(_MAX_HEAD_FACTOR, 1 << doublings)
    step = max(2, target // _STEPS_PER_HEAD)
    heads = [h for h in {max(1, width // target), math.ceil(width / target)} if width % (step * h) == 0]
    near = [h for h in heads if (h == 1 and width < target) or _NARROWEST <= width / h / target <= _WIDEST]
    return min(near, key=lambda h: abs(width / target - h), default=0)
