"""The parts of a corpus: documents to train on, items to evaluate, and seeded choices among them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random
from typing import NamedTuple

Scalar = str | int | float


class Document(NamedTuple):
    """A training text, which ends in a newline, and the label of its source."""

    text: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Item:
    """An evaluation item: the NLL of ``completion`` given ``prompt`` is measured.

    A completion ends in a newline. After a prompt it begins with a space or a newline, so that a byte-level tokenizer
    cuts at the boundary. Without a prompt it begins at the start of a line or sentence.
    """

    prompt: str
    completion: str
    meta: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Prompt and completion."""
        return self.prompt + self.completion

    @property
    def n_bytes(self) -> int:
        """Length of ``text`` in UTF-8."""
        return len(self.text.encode())


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A category's training and validation texts, its evaluation sets, and the counts for the manifest."""

    train: list[Document]
    validation: list[Document]
    sets: Mapping[str, list[Item]]
    facts: Mapping[str, object] = field(default_factory=dict)
    dropped: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def seeded_rng(*parts: Scalar) -> Random:
    """Return a random generator for one purpose, the same on every machine."""
    return Random(_hash64(parts))  # noqa: S311 - draws data, no secrets


def hash_uniform(*parts: Scalar) -> float:
    """Return a number in [0, 1) that depends on the parts only, so that a split by it is stable."""
    return _hash64(parts) / 2**64


def _hash64(parts: tuple[Scalar, ...]) -> int:
    key = "\x1f".join(map(str, parts))
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big")


def sort_by_hash(names: list[str], salt: str) -> list[str]:
    """Return the names in a scrambled order; the order of two names does not depend on the other names."""
    return sorted(names, key=lambda name: (hash_uniform(salt, name), name))


def clean(text: str) -> str:
    """Normalise to Unix line ends, no trailing blanks and one newline at the end."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").expandtabs(4).split("\n")
    return "\n".join(line.rstrip() for line in lines).strip("\n") + "\n"


def join_chunks(pieces: list[str], *, low: int, high: int) -> Iterator[str]:
    """Yield consecutive pieces joined into chunks of ``low`` to ``high`` bytes; longer pieces are skipped."""
    taken: list[str] = []
    size = 0
    for piece in pieces:
        length = len(piece.encode())
        if size + length > high:
            if size >= low:
                yield "".join(taken)
            taken, size = [], 0
        if length <= high:
            taken.append(piece)
            size += length
    if size >= low:
        yield "".join(taken)


def take_in_turn(groups: Mapping[str, list[str]], count: int, salt: str) -> list[tuple[str, str]]:
    """Return up to ``count`` (group, text) pairs from all groups in turn, so that a long file does not fill a set."""
    queues = {name: sort_by_hash(list(dict.fromkeys(texts)), salt) for name, texts in groups.items()}
    order = sort_by_hash(list(queues), salt)
    longest = max(map(len, queues.values()), default=0)
    turns = ((name, queues[name][turn]) for turn in range(longest) for name in order if turn < len(queues[name]))
    return [pair for pair, _ in zip(turns, range(count), strict=False)]


def announce(progress: Callable[[str], None], category: str, corpus: Corpus) -> None:
    """Report a corpus in one line."""
    size = sum(len(document.text) for document in corpus.train)
    sets = ", ".join(f"{name} {len(items)}" for name, items in corpus.sets.items())
    progress(f"{category}: {size / 1e6:.1f} M characters in {len(corpus.train)} documents; {sets}")
