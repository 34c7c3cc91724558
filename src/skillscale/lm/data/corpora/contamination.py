"""Overlap of evaluation texts with training: the share of a text's 13-grams of words that occur in training.

After Brown et al. 2020 (appendix C), who search for 13-grams. Words are runs of letters or digits. Every other sign
except white space counts as a word, so that code is compared as code.
"""

import re
from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from skillscale.lm.data.corpora.items import Item

WORDS = 13
MAX_SHARE = 0.2
_WORD = re.compile(r"\w+|[^\w\s]")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class _Numbers(dict[str, int]):
    """A 64-bit number for each word, computed when the word first occurs."""

    def __missing__(self, word: str) -> int:
        number = int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "big")
        self[word] = number
        return number


def _gram_hashes(text: str, numbers: _Numbers, n: int) -> NDArray[np.uint64]:
    """Return one hash per n-gram of words: (words - n + 1,), empty for shorter texts."""
    words = np.array([numbers[word] for word in _WORD.findall(text.lower())], dtype=np.uint64)
    if len(words) < n:
        return np.empty(0, dtype=np.uint64)
    hashes = np.zeros(len(words) - n + 1, dtype=np.uint64)
    for position in range(n):  # uint64 wraps: a polynomial modulo 2^64
        hashes = hashes * _MULTIPLIER + words[position : len(words) - n + 1 + position]
    return hashes


def ngram_overlap(texts: Sequence[str], training: Iterable[str], *, n: int = WORDS) -> NDArray[np.float64]:
    """Return the share of each text's distinct n-grams that occur in training: (len(texts),), 0 for short texts."""
    numbers = _Numbers()
    grams = [np.unique(_gram_hashes(text, numbers, n)) for text in texts]
    targets = np.unique(np.concatenate(grams)) if grams else np.empty(0, dtype=np.uint64)
    seen = np.zeros(len(targets), dtype=bool)
    for document in training:
        hashes = _gram_hashes(document, numbers, n)
        if len(hashes) and len(targets):
            indices = np.minimum(np.searchsorted(targets, hashes), len(targets) - 1)
            seen[indices[targets[indices] == hashes]] = True
    return np.array([float(seen[np.searchsorted(targets, hashes)].mean()) if len(hashes) else 0.0 for hashes in grams])


def drop_overlapping(
    items: Sequence[Item], training: Iterable[str], *, max_share: float = MAX_SHARE
) -> tuple[list[Item], dict[str, int]]:
    """Drop items that share more than ``max_share`` of their n-grams with training.

    Returns:
        The items kept; ``{"checked", "any", "dropped"}``: items checked, with any shared n-gram, dropped.
    """
    shares = ngram_overlap([item.text for item in items], training)
    kept = [item for item, share in zip(items, shares, strict=True) if share <= max_share]
    return kept, {"checked": len(items), "any": int((shares > 0).sum()), "dropped": len(items) - len(kept)}


def drop_prompts(items: Sequence[Item], prompts: set[str]) -> tuple[list[Item], dict[str, int]]:
    """Drop items whose prompt is among the prompts of training; return the items kept, and the counts."""
    kept = [item for item in items if item.prompt not in prompts]
    return kept, {"checked": len(items), "dropped": len(items) - len(kept)}


def find_prompts(texts: Iterable[str]) -> set[str]:
    """Return every question of the texts, with the ``A:`` after it, as an item's prompt has it."""
    return {match + "\nA:" for text in texts for match in _QUESTION.findall(text)}


_QUESTION = re.compile(r"^Q: .*$", re.MULTILINE)
