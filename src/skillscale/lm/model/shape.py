"""From the one dial N to depth and width.

A model of width d and depth L over V tokens has, with its embedding tied to the head, no biases and rotary positions,

    N = V d + L (12 d^2 + 2 d) + d

parameters. Depth follows N by one rule, L = max(2, round(coefficient N^exponent)); width is then the one that comes
nearest to N. Both rise by small steps, so that sizes form a ladder whose rungs lie a few per cent to a sixth apart.
"""

import bisect
import math
from functools import lru_cache
from itertools import count

from skillscale.config import ModelConfig
from skillscale.errors import InputError
from skillscale.record import ModelSize

# One layer can't form induction heads (Olsson et al. 2022, arXiv 2209.11895): a ladder that begins with one-layer
# models has a kink in its losses where the second layer comes in.
MIN_DEPTH = 2
MIN_WIDTH = 4
MAX_WIDTH = 32_768
LARGEST = 1e12
# Heads are about head_dim wide; where there would be this many of them they are twice, then four times as wide, as 32
# at 1e6 parameters grows into the 128 that is customary at 1e9.
_TOO_MANY_HEADS = 32
_WIDEST_HEADS = 4
_NARROW, _WIDE = 0.75, 1.5
# Heads widen in steps of a sixteenth, and by two at least, as rotary positions turn pairs
_STEPS_IN_HEAD = 16


def shape_for(n_params: float, *, vocab_size: int, model: ModelConfig) -> ModelSize:
    """The model whose total size is nearest, in log N, to the one asked for.

    Raises:
        InputError: no model is that small or that large.
    """
    sizes = buildable_sizes(vocab_size, model)
    if not (math.isfinite(n_params) and sizes[0] / 2 <= n_params <= sizes[-1]):
        raise InputError(
            f"n_params is {n_params:.4g}, but models over {vocab_size} tokens have {sizes[0]:,} to {sizes[-1]:,} "
            "parameters; choose a size between, or a smaller vocabulary for a smaller model"
        )
    above = min(bisect.bisect_left(sizes, n_params), len(sizes) - 1)
    nearest = min(sizes[max(above - 1, 0) : above + 1], key=lambda size: abs(math.log(size / n_params)))
    depth, width = _shapes(vocab_size, model)[nearest]
    return model_size(depth, width, vocab_size=vocab_size, model=model)


def size_ladder(
    *, vocab_size: int, model: ModelConfig, smallest: float = 1e4, largest: float = 1e10
) -> list[ModelSize]:
    """Every size from ``smallest`` to ``largest``, ascending."""
    inside = [n for n in buildable_sizes(vocab_size, model) if smallest <= n <= largest]
    return [shape_for(n, vocab_size=vocab_size, model=model) for n in inside]


def model_size(depth: int, width: int, *, vocab_size: int, model: ModelConfig) -> ModelSize:
    """The sizes of a shape, under each convention."""
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
    """Every total size that can be built, ascending."""
    return list(_shapes(vocab_size, model))


def _total(depth: int, width: int, vocab_size: int) -> int:
    return vocab_size * width + depth * (12 * width**2 + 2 * width) + width


@lru_cache(maxsize=16)
def _shapes(vocab_size: int, model: ModelConfig) -> dict[int, tuple[int, int]]:
    """(depth, width) by total size, ascending: a depth holds from the N where the rule rounds to it to the next."""
    shapes: dict[int, tuple[int, int]] = {}
    widths = _widths(model.head_dim)
    begins = 0.0
    for depth in count(MIN_DEPTH):
        totals = [_total(depth, width, vocab_size) for width in widths]
        ends = min(_depth_begins(depth + 1, model), LARGEST)
        reached = range(bisect.bisect_left(totals, begins), bisect.bisect_left(totals, ends))
        shapes.update({totals[at]: (depth, widths[at]) for at in reached})
        if ends == LARGEST:
            return shapes
        begins = ends
    raise AssertionError("a depth follows every depth")


def _depth_begins(depth: int, model: ModelConfig) -> float:
    """The N from which coefficient N^exponent rounds to ``depth`` or more; infinite for a depth that never comes."""
    if model.depth_exponent == 0:
        return 0.0 if model.depth_coefficient >= depth - 0.5 else math.inf
    return float(((depth - 0.5) / model.depth_coefficient) ** (1 / model.depth_exponent))


def _widths(head_dim: int) -> list[int]:
    """4, 6, 8, ..., 46, 48, 52, 56, ...: even while there is one head, then those that heads divide evenly."""
    return [width for width in range(MIN_WIDTH, MAX_WIDTH + 1, 2) if _n_heads(width, head_dim)]


def _n_heads(width: int, head_dim: int) -> int:
    """Heads of equal width, near to ``head_dim`` or its multiple for large models; 0 where none divide the width."""
    aim = head_dim * min(_WIDEST_HEADS, 1 << math.floor(math.log2(max(1.0, 2 * width / (_TOO_MANY_HEADS * head_dim)))))
    step = max(2, aim // _STEPS_IN_HEAD)
    heads = [h for h in {max(1, width // aim), math.ceil(width / aim)} if width % (step * h) == 0]
    near = [h for h in heads if (h == 1 and width < aim) or _NARROW <= width / h / aim <= _WIDE]
    return min(near, key=lambda h: abs(width / aim - h), default=0)
