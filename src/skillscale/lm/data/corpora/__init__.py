"""The embedded corpora: real text made from pinned archives, in a folder of parquet files named by its content.

Or, with the preset ``controlled``, biographies and programs made from nothing, where all there is to know is counted.

The folder reads like a data set of Hugging Face: ``CATEGORY/train.parquet`` and ``validation.parquet`` with the columns
``text`` and ``source``; ``sets/SET.parquet`` with ``prompt``, ``completion`` and what is known of an item;
``manifest.json`` with sources, licences, counts, contamination and the load of facts.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from skillscale.errors import InputError
from skillscale.lm.data.archives import Archive, disk_errors, fetch_all, read_sources
from skillscale.lm.data.corpora import biographies, code, knowledge, programs, prose, reasoning
from skillscale.lm.data.corpora.items import Corpus, Document, Item, announce
from skillscale.point import digest

# Raise it when a builder makes other text from the same archives (tests/lm/data/test_corpora.py notices)
RECIPE = 1
CATEGORIES = ("knowledge", "code", "prose", "reasoning")
SETS = (
    "knowledge_qa", "knowledge_qa_unseen", "knowledge_qa_trainhalf", "knowledge_text", "code_body", "code_heldout",
    "humaneval", "prose_heldout", "reasoning_qa",
)  # fmt: skip
CONTROLLED = "controlled"
CONTROLLED_SETS = ("bios_qa", "bios_qa_trainhalf", "bios_unseen", "bios_stated", "progs_output", "progs_text")
_ROWS_PER_GROUP = 20_000


def build(
    cache: Path, *, preset: str, popularity: float, people: int | None = None, progress: Callable[[str], None]
) -> Path:
    """Folder of the corpora of a preset; made once, then found by its name.

    Args:
        preset: ``tiny``, ``small``, ``medium`` or ``full``; or ``controlled``.
        popularity: exponent a of the facts' mentions, (rank + 20)^-a.
        people: whom the controlled corpora tell of.

    Raises:
        InputError: there is no such preset, or nobody to tell of.
        DataError: an archive can't be had, or the disk is full.
    """
    if preset != CONTROLLED and preset not in knowledge.PRESETS:
        there = ", ".join((*knowledge.PRESETS, CONTROLLED))
        raise InputError(f"data.preset {preset!r} does not exist; there are {there}")
    if preset == CONTROLLED and people is None:
        raise InputError("data.preset controlled tells of made-up people; give data.people, how many there are")
    sources = needed(preset)
    folder = cache.absolute() / "corpora" / name_of(sources, preset=preset, popularity=popularity, people=people)
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not (folder / "manifest.json").is_file():
                _make(folder, sources, preset=preset, popularity=popularity, people=people, progress=progress)
    return folder


def needed(preset: str) -> dict[str, Archive]:
    """The archives that a preset reads, by name."""
    if preset == CONTROLLED:
        return {}
    names = (
        *knowledge.source_names(preset),
        *prose.SOURCES,
        *code.training_packages(preset),
        *code.HELD_OUT,
        code.HUMAN_EVAL,
    )
    pinned = read_sources()
    return {name: pinned[name] for name in names}


def name_of(sources: Mapping[str, Archive], *, preset: str, popularity: float, people: int | None = None) -> str:
    """Name by content: recipe, archives, settings."""
    hashes = {name: source.sha256 for name, source in sources.items()}
    known = {"recipe": RECIPE, "sources": hashes, "preset": preset, "popularity": float(popularity)}
    return digest(known if people is None else known | {"people": people})


def _make(
    folder: Path,
    sources: Mapping[str, Archive],
    *,
    preset: str,
    popularity: float,
    people: int | None,
    progress: Callable[[str], None],
) -> None:
    """Fetch, build one category after the other, and rename into place."""
    started = time.monotonic()
    archives = fetch_all(list(sources.values()), folder.parents[1], progress=progress)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".making-"))
    try:
        manifest: dict[str, object] = {
            "recipe": RECIPE,
            "preset": preset,
            "popularity": popularity,
            "sources": [asdict(source) for source in sources.values()],
            "categories": {},
            "sets": {},
        }
        builders: dict[str, Callable[[], Corpus]] = {
            "knowledge": lambda: knowledge.build(archives, sources, preset=preset, popularity=popularity),
            "code": lambda: code.build(archives, sources, preset=preset),
            "prose": lambda: prose.build(archives, sources, preset=preset),
            "reasoning": lambda: reasoning.build(preset=preset),
        }
        if people is not None:
            builders = {
                "bios": lambda: biographies.build(people=people, popularity=popularity),
                "progs": programs.build,
            }
        for name, made in builders.items():
            corpus = made()
            write(temporary, name, corpus, manifest)
            announce(progress, name, corpus)
        (temporary / "manifest.json").write_text(
            json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8"
        )
        shutil.rmtree(folder, ignore_errors=True)  # a folder without a manifest is of no use to anybody
        temporary.chmod(0o755)  # mkdtemp gives it to its owner alone
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    progress(f"corpora ready in {time.monotonic() - started:.0f} s: {folder}")


def write(folder: Path, name: str, corpus: Corpus, manifest: dict[str, object]) -> None:
    """The files of a category and its sets, and their counts into ``manifest``."""
    (folder / name).mkdir()
    (folder / "sets").mkdir(exist_ok=True)
    counts = {"train": _documents(folder / name / "train.parquet", corpus.train)}
    counts["validation"] = _documents(folder / name / "validation.parquet", corpus.validation)
    manifest["categories"][name] = counts  # type: ignore[index]
    for set_name, items in corpus.sets.items():
        found = _items(folder / "sets" / f"{set_name}.parquet", items)
        manifest["sets"][set_name] = {**found, "contamination": dict(corpus.dropped.get(set_name, {}))}  # type: ignore[index]
    if corpus.facts:
        manifest["facts"] = dict(corpus.facts)


def _documents(path: Path, documents: Sequence[Document]) -> dict[str, int | str]:
    texts, origins = [one.text for one in documents], [one.source for one in documents]
    _parquet(path, {"text": texts, "source": pa.array(origins).dictionary_encode().cast(pa.string())})
    return {"documents": len(texts), **_content(texts)}


def _items(path: Path, items: Sequence[Item]) -> dict[str, int | str]:
    columns: dict[str, list[object]] = {
        "prompt": [one.prompt for one in items],
        "completion": [one.completion for one in items],
    }
    for key in sorted({key for one in items for key in one.meta}):
        columns[key] = [one.meta.get(key) for one in items]
    _parquet(path, columns)
    return {"items": len(items), **_content([one.prompt + "\0" + one.completion for one in items])}


def _content(texts: Sequence[str]) -> dict[str, int | str]:
    """Bytes, and a hash that two machines can compare."""
    encoded = [text.encode() for text in texts]
    return {"bytes": sum(map(len, encoded)), "sha256": sha256(b"\0".join(encoded)).hexdigest()}


def _parquet(path: Path, columns: Mapping[str, object]) -> None:
    pq.write_table(pa.table(dict(columns)), path, compression="zstd", row_group_size=_ROWS_PER_GROUP)
