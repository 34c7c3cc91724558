"""Evaluation items on disk: token ids of prompt and completion, and windows of a model's context."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt

from skillscale.config import EvalSetConfig
from skillscale.errors import InputError
from skillscale.formatting import to_plain
from skillscale.lm.data.cache import Progress
from skillscale.lm.data.documents import Row
from skillscale.lm.data.splits import MIN_ITEMS
from skillscale.lm.data.token_arrays import Ids, token_dtype
from skillscale.lm.data.tokenizer import Tokenizer
from skillscale.lm.evaluation.templates import Template

Ints = npt.NDArray[np.int64]
_ARRAYS = ("ids", "offsets", "prompt_lengths", "completion_bytes")


@dataclass(frozen=True, kw_only=True)
class ItemSet:
    """Items to evaluate: end-of-text, prompt and completion of each; the tokens of completions are the targets.

    ``ids``: all items in one row. Item i is ``ids[offsets[i]:offsets[i + 1]]``; its first ``prompt_lengths[i]`` tokens
    (at least 1) are end-of-text and prompt. ``completion_bytes[i]``: UTF-8 bytes of its completion.
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
        """Target tokens of each item: (items,)."""
        return np.diff(self.offsets) - self.prompt_lengths


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Items cut to a context: window j is ``ids[starts[j]:ends[j]]``, and its targets begin at ``targets[j]``.

    A window has at most context + 1 tokens. ``items[j]``: the index of its item.
    """

    starts: Ints
    targets: Ints
    ends: Ints
    items: Ints

    def __len__(self) -> int:
        return len(self.starts)


def cut_windows(items: ItemSet, context: int) -> Windows:
    """Cut items into windows that together contain every target token once.

    An item that fits is one window. A longer item loses the beginning of its prompt. A completion longer than the
    context becomes several windows with equal numbers of targets, each with as much preceding text as fits.
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


def make_items_from_rows(rows: Iterable[Row], settings: EvalSetConfig, tokenizer: Tokenizer) -> tuple[ItemSet, int]:
    """Make items from an evaluation set's rows; return also how many rows with an empty completion were skipped.

    Raises:
        InputError: a template or ``where`` does not fit the columns, or there are too few items.
    """
    pairs, dropped = fill_templates(rows, settings)
    return tokenize_items(settings.name, pairs, tokenizer), dropped


def fill_templates(rows: Iterable[Row], settings: EvalSetConfig) -> tuple[list[tuple[str, str]], int]:
    """Return (prompt, completion) of an evaluation set's rows, and how many rows with an empty completion were skipped.

    From more than ``max_items`` rows a sample is taken by a hash of the row number, the same on every machine.

    Raises:
        InputError: a template or ``where`` does not fit the columns, or there are too few items.
    """
    prompt, completion = Template(settings.prompt), Template(settings.completion)
    texts = [(prompt.fill(row), completion.fill(row)) for row in rows if _is_selected(row, settings)]
    kept = [pair for pair in texts if pair[1]]
    if len(kept) < MIN_ITEMS:
        raise InputError(
            f"evaluation set {settings.name} ({settings.path}) has {len(kept)} items with a completion among "
            f"{len(texts)} rows, but a standard error needs {MIN_ITEMS}. Check {_selection(settings)}."
        )
    return _sample(kept, settings.max_items), len(texts) - len(kept)


def _selection(settings: EvalSetConfig) -> str:
    where = f"the values of where {to_plain(settings.where)} and " if settings.where else ""
    return f"{where}the template {settings.completion!r}"


def _is_selected(row: Row, settings: EvalSetConfig) -> bool:
    """Return whether a row has one of the values of ``where`` in every column that it names."""
    for column in settings.where:
        if column not in row:
            raise InputError(
                f"evaluation set {settings.name}: unknown column {column!r} in where. Choose from {', '.join(row)}."
            )
    return all(str(row[column]) in map(str, values) for column, values in settings.where.items())


def make_items_from_documents(name: str, texts: Sequence[str], tokenizer: Tokenizer) -> ItemSet:
    """Make items from whole documents, with end-of-text as the only token before each."""
    return tokenize_items(name, [("", text) for text in texts], tokenizer)


def tokenize_items(name: str, pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer) -> ItemSet:
    """Make items from (prompt, completion) texts, each pair tokenised as one text."""
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
    """Write the arrays to a folder."""
    folder.mkdir(exist_ok=True)
    for array in _ARRAYS:
        np.save(folder / f"{array}.npy", getattr(items, array))


def open_items(name: str, folder: Path) -> ItemSet:
    """Open the items that ``save_items`` wrote; token ids are memory-mapped."""
    loaded = {array: np.load(folder / f"{array}.npy", mmap_mode="r" if array == "ids" else None) for array in _ARRAYS}
    return ItemSet(name=name, **loaded)


def report_items(items: ItemSet, dropped: int, progress: Progress) -> None:
    """Report the size of a set, and how many rows were skipped."""
    skipped = f" ({dropped} rows without a completion skipped)" if dropped else ""
    progress(f"{items.name}: {len(items)} items, {int(items.completion_tokens.sum())} target tokens{skipped}")


def _sample(pairs: list[tuple[str, str]], max_items: int | None) -> list[tuple[str, str]]:
    if max_items is None or len(pairs) <= max_items:
        return pairs
    order = sorted(range(len(pairs)), key=lambda number: blake2b(str(number).encode(), digest_size=8).digest())
    return [pairs[number] for number in sorted(order[:max_items])]
