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
_EXCERPTS = 16  # at least so many documents share the validation bytes, where there are so many
_SCANNED = 4  # validation texts are drawn from so many times their bytes: a long stream isn't read twice to its end


@dataclass(frozen=True, kw_only=True)
class CategoryTexts:
    """A category whose sources were found: ``origins`` in their order."""

    config: CategoryConfig
    origins: tuple[Origin, ...]
    validation_origin: Origin | None
    embedded: Path | None

    @property
    def _limits(self) -> list[int | None]:
        """Bytes to read of each source: ``max_bytes`` by weight."""
        if self.config.max_bytes is None:
            return [None] * len(self.config.sources)
        total = sum(source.weight for source in self.config.sources)
        return [max(1, int(self.config.max_bytes * source.weight / total)) for source in self.config.sources]

    def _all(self) -> Iterator[str]:
        for source, known, limit in zip(self.config.sources, self.origins, self._limits, strict=True):
            yield from read_documents(source, embedded=self.embedded, max_bytes=limit, revision=known.revision)

    def validation(self) -> "HeldOutTexts":
        """Excerpts of ``validation``, or of the documents that the share cuts off: ``validation_bytes`` at most.

        Raises:
            InputError: there are fewer than two.
        """
        hashes: set[int] = set()
        n_bytes = self.config.validation_bytes
        offered = _excerpts(self._validation_texts(), max(1, n_bytes // _EXCERPTS), hashes)
        excerpts = sample(truncate(offered, _SCANNED * n_bytes), n_bytes)
        if len(excerpts) < MIN_ITEMS:
            place = f"`validation` ({self.config.validation.path})" if self.config.validation else "validation_share"
            raise InputError(
                f"category {self.config.name}: {place} leaves {len(excerpts)} documents to validate on, but a standard "
                f"error needs {MIN_ITEMS}; raise validation_share or validation_bytes, or give another `validation`"
            )
        return HeldOutTexts(excerpts=tuple(excerpts), hashes=frozenset(hashes))

    def training(self, held: Collection[int] = ()) -> Iterator[str]:
        """The texts to train on: none that the share cuts off, and none whose hash is in ``held``.

        Raises:
            InputError: nothing is left.
        """
        share = 0.0 if self.config.validation else self.config.validation_share
        left = 0
        for text in self._all():
            if not in_split(text, share) and text_hash(text) not in held:
                left += 1
                yield text
        if not left:
            raise InputError(
                f"category {self.config.name} has no document left to train on: all are validation documents; lower "
                "validation_share, or give another `validation`"
            )

    def _validation_texts(self) -> Iterator[str]:
        if self.config.validation is None:
            return (text for text in self._all() if in_split(text, self.config.validation_share))
        revision = self.validation_origin.revision if self.validation_origin else None
        return read_documents(self.config.validation, embedded=self.embedded, revision=revision)


@dataclass(frozen=True, kw_only=True)
class HeldOutTexts:
    """What is kept from training: excerpts to measure, and the hashes of the whole documents they are from."""

    excerpts: tuple[str, ...]
    hashes: frozenset[int]


def text_hash(text: str) -> int:
    """64 bits that stand for a text, the same on every machine."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def in_split(text: str, share: float) -> bool:
    """Whether a text belongs to the given share of all texts, by its hash: copies go together."""
    return text_hash(text) < share * 2.0**64


def sample(texts: Iterable[str], n_bytes: int) -> list[str]:
    """Up to ``n_bytes`` of whole texts drawn evenly from all, in memory of that size; the last one is cut to fit.

    The texts of smallest hash: the same whatever their order.
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
    found = [text for _, text, _ in sorted(kept, reverse=True)]
    if total > n_bytes:
        found[-1:] = _shortened(found[-1], total - n_bytes)
    return found


def truncate(texts: Iterable[str], n_bytes: int) -> Iterator[str]:
    """Texts until ``n_bytes`` have passed."""
    for text in texts:
        yield text
        n_bytes -= len(text.encode())
        if n_bytes <= 0:
            return


def _excerpts(texts: Iterable[str], longest: int, hashes: set[int]) -> Iterator[str]:
    """At most ``longest`` characters of each text, from a place drawn by its hash; the whole text's hash is noted."""
    for text in texts:
        key = text_hash(text)
        hashes.add(key)
        start = key % (len(text) - longest + 1) if len(text) > longest else 0
        yield text[start : start + longest]


def _shortened(text: str, by: int) -> list[str]:
    raw = text.encode()
    short = raw[: len(raw) - by].decode(errors="ignore")
    return [short] if short else []
