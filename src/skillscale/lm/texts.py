"""The texts of a category: which train, which are held out, and samples of bounded size."""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from skillscale.config import CategoryConfig
from skillscale.errors import InputError
from skillscale.lm.documents import read_documents
from skillscale.lm.origins import Origin


@dataclass(frozen=True, kw_only=True)
class Category:
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

    def validation(self) -> list[str]:
        """The validation texts, at most ``validation_bytes``: a sample of ``validation`` or of what the share cuts.

        Raises:
            InputError: there are none.
        """
        if self.config.validation:
            revision = self.validation_origin.revision if self.validation_origin else None
            texts = read_documents(self.config.validation, embedded=self.embedded, revision=revision)
        else:
            texts = (text for text in self._all() if in_share(text, self.config.validation_share))
        found = sample(texts, self.config.validation_bytes)
        if not found:
            raise InputError(
                f"category {self.config.name}: a validation_share of {self.config.validation_share} leaves no document "
                "to validate on; raise it, or give `validation`"
            )
        return found

    def training(self, validation: Iterable[str]) -> Iterator[str]:
        """The texts to train on: none that is held out, and no copy of a validation text.

        Raises:
            InputError: nothing is left.
        """
        held = {text_hash(text) for text in validation}
        share = 0.0 if self.config.validation else self.config.validation_share
        left = 0
        for text in self._all():
            if text_hash(text) not in held and not in_share(text, share):
                left += 1
                yield text
        if not left:
            raise InputError(
                f"category {self.config.name} has no document left to train on: all are validation documents; lower "
                "validation_share, or give another `validation`"
            )


def text_hash(text: str) -> int:
    """64 bits that stand for a text, the same on every machine."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def in_share(text: str, share: float) -> bool:
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


def clipped(texts: Iterable[str], n_bytes: int) -> Iterator[str]:
    """Texts until ``n_bytes`` have passed."""
    for text in texts:
        yield text
        n_bytes -= len(text.encode())
        if n_bytes <= 0:
            return


def _shortened(text: str, by: int) -> list[str]:
    raw = text.encode()
    short = raw[: len(raw) - by].decode(errors="ignore")
    return [short] if short else []
