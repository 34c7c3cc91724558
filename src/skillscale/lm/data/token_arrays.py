"""Token arrays on disk: a category's training tokens in one row, with end-of-text after each document."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from skillscale.formatting import format_count
from skillscale.lm.data.cache import Progress
from skillscale.lm.data.tokenizer import Tokenizer

Ids = npt.NDArray[np.unsignedinteger]
_BATCH = 1 << 20  # characters encoded at once: memory is about fifty times as much
_REPORT = 8 << 20  # bytes between two lines of progress


@dataclass(frozen=True, kw_only=True)
class TokenArray:
    """A category's training tokens, memory-mapped: (n_tokens,). ``n_bytes``: UTF-8 bytes of the text."""

    array: Ids
    n_documents: int
    n_bytes: int
    folder: Path | None = None

    @property
    def n_tokens(self) -> int:
        """Number of tokens, end-of-text included."""
        return len(self.array)


@dataclass(frozen=True, kw_only=True)
class _Header:
    dtype: str
    n_tokens: int
    n_documents: int
    n_bytes: int


def token_dtype(vocab_size: int) -> str:
    """Return the smallest type that holds every id."""
    return "uint16" if vocab_size <= 2**16 else "uint32"


def write_tokens(texts: Iterable[str], tokenizer: Tokenizer, folder: Path, *, label: str, progress: Progress) -> None:
    """Encode texts in batches into ``folder``.

    Plain writes: a full disk would kill a process that writes to a memory map.
    """
    dtype = token_dtype(tokenizer.vocab_size)
    n_tokens = n_documents = n_bytes = reported = 0
    with (folder / "tokens.bin").open("wb") as file:
        for batch in _batches(texts):
            row: list[int] = []
            pieces = tokenizer.encode_batch([piece for piece, _ in batch])
            for (piece, ends), ids in zip(batch, pieces, strict=True):
                row.extend(ids)
                n_bytes += len(piece.encode())
                if ends:
                    row.append(tokenizer.end_of_text)
                    n_documents += 1
            file.write(np.array(row, dtype=dtype).tobytes())
            n_tokens += len(row)
            if n_bytes - reported >= _REPORT:
                reported = n_bytes
                progress(f"{label}: {n_bytes / 1e6:.0f} MB, {format_count(n_tokens)} tokens")
    header = _Header(dtype=dtype, n_tokens=n_tokens, n_documents=n_documents, n_bytes=n_bytes)
    (folder / "tokens.json").write_text(json.dumps(asdict(header)), encoding="utf-8")
    progress(f"{label}: {n_documents} documents, {n_bytes / 1e6:.1f} MB, {format_count(n_tokens)} tokens")


def open_tokens(folder: Path) -> TokenArray:
    """Open the tokens that ``write_tokens`` wrote to a folder, memory-mapped."""
    header = _Header(**json.loads((folder / "tokens.json").read_text(encoding="utf-8")))
    array = np.memmap(folder / "tokens.bin", dtype=header.dtype, mode="r", shape=(header.n_tokens,))
    # A plain view of the map: indexing a np.memmap costs several times as much
    return TokenArray(array=np.asarray(array), n_documents=header.n_documents, n_bytes=header.n_bytes, folder=folder)


def _batches(texts: Iterable[str]) -> Iterator[list[tuple[str, bool]]]:
    """Yield lists of (piece, whether it ends its document), of about ``_BATCH`` characters."""
    batch: list[tuple[str, bool]] = []
    size = 0
    for text in texts:
        pieces = list(_pieces(text))
        for number, piece in enumerate(pieces, start=1):
            batch.append((piece, number == len(pieces)))
            size += len(piece)
            if size >= _BATCH:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _pieces(text: str) -> Iterator[str]:
    """Yield a text in pieces of at most ``_BATCH`` characters, cut after a line where possible."""
    start = 0
    while len(text) - start > _BATCH:
        cut = text.rfind("\n", start, start + _BATCH) + 1 or start + _BATCH
        yield text[start:cut]
        start = cut
    yield text[start:]
