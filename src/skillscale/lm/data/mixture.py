"""The stream of training sequences: a pure function of (seed, index), independent of batch, model size and run length.

Sequence i takes its category by u_i = frac(u_0(seed) + i phi) through the mix's cumulative shares, with the golden
ratio phi in 64-bit integers (a Weyl sequence). u_0 is uniform over seeds, so shares are exact in expectation. The u_i
are evenly spread, so the shares of n sequences differ from the mix by about log(n) / n, not by n^-1/2. Mixes share the
u_i and the order of each category's blocks: two close mixes differ in few sequences.
"""

from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from skillscale.errors import InputError
from skillscale.formatting import did_you_mean
from skillscale.lm.data.token_arrays import TokenArray
from skillscale.point import Mix
from skillscale.record import DataUse

Ints = npt.NDArray[np.int64]
Bits: TypeAlias = npt.NDArray[np.uint64]
_PHI = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd
_PLAN = 1 << 14  # sequences in a plan
_ROUNDS = 8  # four leave a bias of a few percent in permutations of ten


class MixStream:
    """Blocks of ``context + 1`` tokens, with categories in the mix's shares; each epoch visits every block once.

    Args:
        categories: token arrays, in the order of the cumulative shares.
        mix: shares of the categories.
        seed: seed of the run.
        context: targets of a sequence, tokens.

    Raises:
        InputError: a category of the mix does not exist, or is too small for one block.
    """

    def __init__(self, categories: Mapping[str, TokenArray], mix: Mix, *, seed: int, context: int) -> None:
        for name in mix.shares:
            if name not in categories:
                raise InputError(
                    f"unknown category in the mix: {name!r}{did_you_mean(name, categories)}. Choose from "
                    f"{', '.join(categories)}."
                )
        self.names = tuple(name for name in categories if name in mix.shares)
        self.context = context
        self._arrays = [categories[name].array for name in self.names]
        self._n_blocks = np.array([count_blocks(categories[name], context, name=name) for name in self.names])
        self._edges = np.cumsum([mix.shares[name] for name in self.names])[:-1]
        self._start = _hash64(f"{seed}/mix")
        self._keys = np.array([_hash64(f"{seed}/blocks/{name}") for name in self.names], dtype=np.uint64)
        self._span = np.arange(context + 1)
        self._ranks = [np.zeros(len(self.names), dtype=np.int64)]  # sequences of each category before each plan
        self._plan = lru_cache(maxsize=2)(self._make_plan)

    def batch(self, first: int, count: int) -> Ints:
        """Return sequences ``first`` to ``first + count - 1`` of the stream: int64, (count, context + 1)."""
        out = np.empty((count, self.context + 1), dtype=np.int64)
        done = 0
        while done < count:
            number, inside = divmod(first + done, _PLAN)
            categories, starts = self._plan(number)
            part = slice(inside, min(inside + count - done, _PLAN))
            size = part.stop - part.start
            self._gather(categories[part], starts[part], out[done : done + size])
            done += size
        return out

    def usage(self, count: int) -> Mapping[str, DataUse]:
        """Return the tokens and epochs of each category in the first ``count`` sequences."""
        number, inside = divmod(count, _PLAN)
        ranks = self._ranks_before(number) + self._counts(number, inside)
        return {
            name: DataUse(tokens=int(rank) * self.context, epochs=float(rank / blocks))
            for name, rank, blocks in zip(self.names, ranks, self._n_blocks, strict=True)
        }

    def _gather(self, categories: Ints, starts: Ints, out: Ints) -> None:
        for category, array in enumerate(self._arrays):
            rows = np.flatnonzero(categories == category)
            if len(rows):
                out[rows] = array[starts[rows, None] + self._span]

    def _categories(self, number: int, count: int = _PLAN) -> Ints:
        index = np.arange(number * _PLAN, number * _PLAN + count, dtype=np.uint64)
        u = ((np.uint64(self._start) + index * np.uint64(_PHI)) >> np.uint64(11)) * 2.0**-53
        return np.searchsorted(self._edges, u, side="right")

    def _counts(self, number: int, count: int = _PLAN) -> Ints:
        return np.bincount(self._categories(number, count), minlength=len(self.names))

    def _ranks_before(self, number: int) -> Ints:
        while len(self._ranks) <= number:
            self._ranks.append(self._ranks[-1] + self._counts(len(self._ranks) - 1))
        return self._ranks[number]

    def _make_plan(self, number: int) -> tuple[Ints, Ints]:
        categories = self._categories(number)
        starts = np.empty(_PLAN, dtype=np.int64)
        for category, before in enumerate(self._ranks_before(number)):
            rows = np.flatnonzero(categories == category)
            blocks = int(self._n_blocks[category])
            epoch, position = np.divmod(before + np.arange(len(rows)), blocks)
            keys = _splitmix(self._keys[category] + epoch.astype(np.uint64) * np.uint64(_PHI))
            starts[rows] = permutation(position, blocks, keys) * self.context
        return categories, starts


def count_blocks(tokens: TokenArray, context: int, *, name: str) -> int:
    """Count the blocks of ``context`` targets in a token array; neighbouring blocks share one token.

    Raises:
        InputError: there is none.
    """
    blocks = (tokens.n_tokens - 1) // context
    if blocks < 1:
        raise InputError(
            f"category {name} has {tokens.n_tokens} tokens, but one sequence needs {context + 1}. "
            "Give more text or lower model.context."
        )
    return blocks


def permutation(position: Ints, size: int, keys: Bits) -> Ints:
    """Apply a keyed permutation of 0 .. size - 1 to positions; it needs no table, so any size is possible.

    A Feistel network on the next even power of two, walked until it falls below ``size``
    (Black & Rogaway 2002, https://doi.org/10.1007/3-540-45760-7_9).

    Args:
        position: positions in the order before the permutation, (n,).
        size: number of positions that the permutation has.
        keys: key of each position, (n,); positions with equal keys get the same permutation.
    """
    half = max(1, -(-(size - 1).bit_length() // 2))
    permuted = _feistel(position.astype(np.uint64), half, keys)
    while len(outside := np.flatnonzero(permuted >= size)):
        permuted[outside] = _feistel(permuted[outside], half, keys[outside])
    return permuted.astype(np.int64)


def _feistel(value: Bits, half: int, keys: Bits) -> Bits:
    shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
    high, low = value >> shift, value & mask
    for turn in range(1, _ROUNDS + 1):
        key = keys + np.uint64(turn * _PHI % 2**64)
        high, low = low, high ^ (_splitmix(low ^ key) & mask)
    return (high << shift) | low


def _splitmix(bits: Bits) -> Bits:
    """Apply the finaliser of splitmix64 (Steele et al. 2014): every bit depends on every bit."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _hash64(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
