"""Evaluation items on disk: token ids of prompt and completion, and how they are cut to a model's context."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from skillscale.config import EvalSetConfig
from skillscale.errors import InputError
from skillscale.formatting import to_plain
from skillscale.lm.data.cache import Progress
from skillscale.lm.data.splits import MIN_ITEMS
from skillscale.lm.data.token_arrays import Ids, token_dtype
from skillscale.lm.data.tokenizer import Tokenizer
from skillscale.lm.evaluation.templates import Template

Ints = npt.NDArray[np.int64]
_ARRAYS = ("ids", "offsets", "prompt_lengths", "completion_bytes")


@dataclass(frozen=True, kw_only=True)
class ItemSet:
    """Items to measure, each end-of-text, prompt and completion; the completion's tokens count.

    ``ids``: all items in one row; item i is ``ids[offsets[i]:offsets[i + 1]]``, its first ``prompt_lengths[i]`` tokens
    are end-of-text and prompt (at least 1); ``completion_bytes[i]``: UTF-8 bytes of its completion.
    """

    name: str
    ids: Ids
    offsets: Ints
    prompt_lengths: Ints
    completion_bytes: Ints

    def __len__(self) -> int:
        return len(self.prompt_lengths)

    @property
    def completion_tokens(self) -> Ints:
        """Target tokens of each item."""
        return np.diff(self.offsets) - self.prompt_lengths


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Items cut to a context: window j reads ``ids[starts[j]:ends[j]]``, its targets begin at ``targets[j]``.

    A window is at most context + 1 tokens. ``items[j]``: the item it comes from.
    """

    starts: Ints
    targets: Ints
    ends: Ints
    items: Ints

    def __len__(self) -> int:
        return len(self.starts)


def cut_windows(items: ItemSet, context: int) -> Windows:
    """Windows in which every target token stands exactly once.

    An item that fits is one window; of a longer one the prompt loses its beginning; a completion longer than the
    context becomes several windows with equal numbers of targets, each with as much text before them as fits.
    """
    n_targets = items.completion_tokens
    pieces = -(-n_targets // context)
    item = np.repeat(np.arange(len(items)), pieces)
    piece = np.arange(len(item)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    first = items.offsets[:-1][item] + items.prompt_lengths[item]
    targets = first + piece * n_targets[item] // pieces[item]
    ends = first + (piece + 1) * n_targets[item] // pieces[item]
    starts = np.maximum(items.offsets[:-1][item], ends - context - 1)
    return Windows(starts=starts, targets=targets, ends=ends, items=item)


def make_items_from_rows(
    rows: Iterable[Mapping[str, Any]], one: EvalSetConfig, tokenizer: Tokenizer
) -> tuple[ItemSet, int]:
    """The items of an evaluation set's rows, and how many rows were left out for an empty completion.

    Raises:
        InputError: a template or ``where`` that doesn't suit the columns, or too few items.
    """
    pairs, dropped = fill_templates(rows, one)
    return tokenize_items(one.name, pairs, tokenizer), dropped


def fill_templates(rows: Iterable[Mapping[str, Any]], one: EvalSetConfig) -> tuple[list[tuple[str, str]], int]:
    """Prompts and completions of an evaluation set's rows, and how many rows were left out for an empty completion.

    Of more rows than ``max_items`` a sample is drawn by a hash of their number, the same on every machine.

    Raises:
        InputError: a template or ``where`` that doesn't suit the columns, or too few items.
    """
    prompt, completion = Template(one.prompt), Template(one.completion)
    texts = [(prompt.fill(row), completion.fill(row)) for row in rows if _counts(row, one)]
    kept = [pair for pair in texts if pair[1]]
    if len(kept) < MIN_ITEMS:
        raise InputError(
            f"evaluation set {one.name} ({one.path}) has {len(kept)} items with a completion among {len(texts)} rows, "
            f"but a standard error needs {MIN_ITEMS}; check {_what_chose(one)}"
        )
    return _sampled(kept, one.max_items), len(texts) - len(kept)


def _what_chose(one: EvalSetConfig) -> str:
    where = f"the values of where {to_plain(one.where)} and " if one.where else ""
    return f"{where}the template {one.completion!r}"


def _counts(row: Mapping[str, Any], one: EvalSetConfig) -> bool:
    """Whether a row has one of the values that the set asks for, in every column it names."""
    for column in one.where:
        if column not in row:
            raise InputError(
                f"evaluation set {one.name}: where names no column: {column!r}; there are {', '.join(row)}"
            )
    return all(str(row[column]) in map(str, values) for column, values in one.where.items())


def make_items_from_documents(name: str, texts: Sequence[str], tokenizer: Tokenizer) -> ItemSet:
    """Whole documents as items: nothing but end-of-text before them."""
    return tokenize_items(name, [("", text) for text in texts], tokenizer)


def tokenize_items(name: str, pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer) -> ItemSet:
    """Items of (prompt, completion) texts, tokenised as one text each."""
    rows, prompts = [], []
    for prompt, completion in pairs:
        ids, n_prompt = tokenizer.encode_pair(prompt, completion)
        rows.append([tokenizer.end_of_text, *ids])
        prompts.append(n_prompt + 1)
    return ItemSet(
        name=name,
        ids=np.array([number for row in rows for number in row], dtype=token_dtype(tokenizer.vocab_size)),
        offsets=np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64),
        prompt_lengths=np.array(prompts, dtype=np.int64),
        completion_bytes=np.array([len(completion.encode()) for _, completion in pairs], dtype=np.int64),
    )


def save_items(items: ItemSet, folder: Path) -> None:
    """Write the arrays into a folder."""
    folder.mkdir(exist_ok=True)
    for array in _ARRAYS:
        np.save(folder / f"{array}.npy", getattr(items, array))


def open_items(name: str, folder: Path) -> ItemSet:
    """The items that ``save_items`` left; token ids memory-mapped."""
    loaded = {array: np.load(folder / f"{array}.npy", mmap_mode="r" if array == "ids" else None) for array in _ARRAYS}
    return ItemSet(name=name, **loaded)


def report_items(items: ItemSet, dropped: int, progress: Progress) -> None:
    """Say what a set holds, and what was left out."""
    left_out = f"; {dropped} rows without a completion left out" if dropped else ""
    progress(f"{items.name}: {len(items)} items, {int(items.completion_tokens.sum())} target tokens{left_out}")


def _sampled(pairs: list[tuple[str, str]], max_items: int | None) -> list[tuple[str, str]]:
    if max_items is None or len(pairs) <= max_items:
        return pairs
    drawn = sorted(range(len(pairs)), key=lambda number: blake2b(str(number).encode(), digest_size=8).digest())
    return [pairs[number] for number in sorted(drawn[:max_items])]
