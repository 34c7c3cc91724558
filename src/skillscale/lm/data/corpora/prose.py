"""The prose corpus: messages of US presidents, 1790 to today, in the public domain."""

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

from skillscale.lm.data.archives import Archive, read_members
from skillscale.lm.data.corpora.contamination import drop_overlapping
from skillscale.lm.data.corpora.items import (
    Corpus,
    Document,
    Item,
    clean,
    join_chunks,
    seeded_rng,
    sort_by_hash,
    take_in_turn,
)

SPEECHES = "sotu"
SOURCES = (SPEECHES,)
HELD_OUT_FILES = 16
VALIDATION_FILES = 8
MAX_BYTES = {"tiny": 8_000_000}
CHUNK_BYTES = (300, 450)
SET_ITEMS = 400
_SENTENCE = re.compile(r"(?<=[.!?;:])\s+|\n+")


def build(archives: Mapping[str, Path], sources: Mapping[str, Archive], *, preset: str) -> Corpus:
    """Build whole speeches to train on; other files are for validation and for a held-out set."""
    return split_by_file(
        dict(read_speeches(archives[SPEECHES])), label=sources[SPEECHES].label, max_bytes=MAX_BYTES.get(preset)
    )


def read_speeches(archive: Path) -> Iterator[tuple[str, str]]:
    """Yield name and text of each speech."""
    for path, content in read_members(archive, lambda path: "/speeches/" in path and path.endswith(".txt")):
        yield Path(path).stem, clean(content.decode("utf-8"))


def split_by_file(files: Mapping[str, str], *, label: str, max_bytes: int | None = None) -> Corpus:
    """Split by file; ``max_bytes``: about the maximum size of the training text."""
    order = sort_by_hash(list(files), "prose-files")
    held_out, validation = order[:HELD_OUT_FILES], order[HELD_OUT_FILES : HELD_OUT_FILES + VALIDATION_FILES]
    train: list[Document] = []
    size = 0
    for name in order[HELD_OUT_FILES + VALIDATION_FILES :]:
        if max_bytes is None or size < max_bytes:
            train.append(Document(files[name], label))
            size += len(files[name].encode())
    seeded_rng("prose-order").shuffle(train)
    items, dropped = drop_overlapping(
        make_chunk_items({name: files[name] for name in held_out}), [document.text for document in train]
    )
    return Corpus(
        train=train,
        validation=[Document(files[name], label) for name in validation],
        sets={"prose_heldout": items[:SET_ITEMS]},
        dropped={"prose_heldout": dropped},
    )


def make_chunk_items(files: Mapping[str, str]) -> list[Item]:
    """Make items from chunks of whole sentences of held-out files, without a prompt."""
    low, high = CHUNK_BYTES
    groups = {
        name: [chunk.strip() + "\n" for chunk in join_chunks(split_sentences(text), low=low, high=high)]
        for name, text in files.items()
    }
    return [
        Item(prompt="", completion=text, meta={"file": name})
        for name, text in take_in_turn(groups, 2 * SET_ITEMS, "prose")
    ]


def split_sentences(text: str) -> list[str]:
    """Cut a text after each sentence and paragraph; joined again, the pieces give the text."""
    cuts = [0, *(match.end() for match in _SENTENCE.finditer(text)), len(text)]
    return [text[start:end] for start, end in pairwise(cuts) if end > start]
