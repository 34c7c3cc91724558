"""The texts of a category: which train, which are held out, and samples of bounded size."""

import heapq
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from skillscale.config import CategoryConfig
from skillscale.errors import InputError
from skillscale.lm.data.documents import read_documents
from skillscale.lm.data.fingerprints import Origin

MIN_ITEMS = 2  # a standard error over items needs two
_EXCERPTS = 16  # minimum number of documents that share the validation bytes, if the source has that many
# Validation texts are sampled from this many times their bytes, so that a long stream is not read to its end twice
_SCANNED = 4


@dataclass(frozen=True, kw_only=True)
class CategoryTexts:
    """A category whose sources exist; ``origins``: their fingerprints, in the order of the sources."""

    config: CategoryConfig
    origins: tuple[Origin, ...]
    validation_origin: Origin | None
    embedded: Path | None

    @property
    def _limits(self) -> list[int | None]:
        """Bytes to read of each source: ``max_bytes`` divided by weight."""
        if self.config.max_bytes is None:
            return [None] * len(self.config.sources)
        total = sum(source.weight for source in self.config.sources)
        return [max(1, int(self.config.max_bytes * source.weight / total)) for source in self.config.sources]

    def _texts(self) -> Iterator[str]:
        for source, origin, limit in zip(self.config.sources, self.origins, self._limits, strict=True):
            yield from read_documents(source, embedded=self.embedded, max_bytes=limit, revision=origin.revision)

    def validation(self) -> "HeldOutTexts":
        """Return excerpts of ``validation``, or of the documents that the share holds out, up to ``validation_bytes``.

        Raises:
            InputError: there are fewer than two excerpts.
        """
        hashes: set[int] = set()
        n_bytes = self.config.validation_bytes
        candidates = _excerpts(self._validation_texts(), max(1, n_bytes // _EXCERPTS), hashes)
        excerpts = sample(truncate(candidates, _SCANNED * n_bytes), n_bytes)
        if len(excerpts) < MIN_ITEMS:
            place = f"`validation` ({self.config.validation.path})" if self.config.validation else "validation_share"
            raise InputError(
                f"category {self.config.name}: {place} gives {len(excerpts)} documents to validate on, but a standard "
                f"error needs {MIN_ITEMS}. Raise validation_share or validation_bytes, or give another `validation`."
            )
        return HeldOutTexts(excerpts=tuple(excerpts), hashes=frozenset(hashes))

    def training(self, held_out: Collection[int] = ()) -> Iterator[str]:
        """Yield the texts to train on: outside the validation share, and with a hash that is not in ``held_out``.

        Raises:
            InputError: there is none.
        """
        share = 0.0 if self.config.validation else self.config.validation_share
        is_empty = True
        for text in self._texts():
            if not in_split(text, share) and text_hash(text) not in held_out:
                is_empty = False
                yield text
        if is_empty:
            raise InputError(
                f"category {self.config.name} has no document to train on, because all are validation documents. Lower "
                "validation_share, or give another `validation`."
            )

    def _validation_texts(self) -> Iterator[str]:
        if self.config.validation is None:
            return (text for text in self._texts() if in_split(text, self.config.validation_share))
        revision = self.validation_origin.revision if self.validation_origin else None
        return read_documents(self.config.validation, embedded=self.embedded, revision=revision)


@dataclass(frozen=True, kw_only=True)
class HeldOutTexts:
    """Texts kept from training: excerpts to measure, and the hashes of their whole documents."""

    excerpts: tuple[str, ...]
    hashes: frozenset[int]


def text_hash(text: str) -> int:
    """Return a 64-bit hash of a text, the same on every machine."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def in_split(text: str, share: float) -> bool:
    """Return whether a text is in the given share of all texts, by its hash: copies are in the same split."""
    return text_hash(text) < share * 2.0**64


def sample(texts: Iterable[str], n_bytes: int) -> list[str]:
    """Sample up to ``n_bytes`` of whole texts uniformly, in memory of that size; the last text is cut to fit.

    The sample has the texts of smallest hash, whatever the order of the texts.
    """
    kept: list[tuple[int, str, int]] = []  # a heap, largest hash first
    total = 0
    for text in texts:
        key = -text_hash(text)
        if total >= n_bytes and key <= kept[0][0]:
            continue
        size = len(text.encode())
        heapq.heappush(kept, (key, text, size))
        total += size
        while total - kept[0][2] >= n_bytes:
            total -= heapq.heappop(kept)[2]
    sampled = [text for _, text, _ in sorted(kept, reverse=True)]
    if total > n_bytes:
        sampled[-1:] = _shorten(sampled[-1], total - n_bytes)
    return sampled


def truncate(texts: Iterable[str], n_bytes: int) -> Iterator[str]:
    """Yield texts until they reach ``n_bytes``."""
    for text in texts:
        yield text
        n_bytes -= len(text.encode())
        if n_bytes <= 0:
            return


def _excerpts(texts: Iterable[str], longest: int, hashes: set[int]) -> Iterator[str]:
    """Yield at most ``longest`` characters of each text from a position given by its hash; add it to ``hashes``."""
    for text in texts:
        key = text_hash(text)
        hashes.add(key)
        start = key % (len(text) - longest + 1) if len(text) > longest else 0
        yield text[start : start + longest]


def _shorten(text: str, by: int) -> list[str]:
    raw = text.encode()
    short = raw[: len(raw) - by].decode(errors="ignore")
    return [short] if short else []
