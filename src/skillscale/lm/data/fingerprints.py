"""Fingerprints of a source's content, so that a cache recognises it without reading it again."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from skillscale.lm.data import documents
from skillscale.point import digest


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A source's content: its fingerprint, which does not depend on the path, and the commit of hub data."""

    fingerprint: str
    revision: str | None = None


def find_origin(path: str, split: str, *, embedded: Path | None, cache: Path) -> Origin:
    """Find a source and fingerprint it: files by their bytes, hub data by the commit that this cache saw first.

    Raises:
        InputError: the source is missing, empty, unreachable or not UTF-8.
    """
    if path.startswith(documents.EMBEDDED):
        file = documents.find_embedded_file(path, split, embedded)
        folder = file.parent.parent
        return Origin(fingerprint=f"{folder.name}/{file.relative_to(folder)}")
    files = documents.find_local_files(path)
    if not files:
        revision = cached_fingerprint(cache, path, [], lambda: documents.fetch_hub_revision(path))
        return Origin(fingerprint=f"{path}@{revision}", revision=revision)
    root = Path(path) if Path(path).is_dir() else Path(path).parent
    return Origin(fingerprint=digest([[str(file.relative_to(root)), _file_hash(file, cache)] for file in files], 16))


def _file_hash(file: Path, cache: Path) -> str | None:
    stat = file.stat()
    state = [stat.st_size, stat.st_mtime_ns]
    return cached_fingerprint(cache, str(file.resolve()), state, lambda: documents.hash_file(file))


def cached_fingerprint(cache: Path, name: str, state: list[int], compute: Callable[[], str | None]) -> str | None:
    """Return ``compute()``, called once for a name in a state; a result of None is not cached."""
    file = cache / "origins" / f"{digest(name, 16)}.json"
    if file.is_file():
        entry = json.loads(file.read_text(encoding="utf-8"))
        if entry["state"] == state:
            return str(entry["found"])
    fingerprint = compute()
    if fingerprint is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps({"name": name, "state": state, "found": fingerprint}), encoding="utf-8")
        partial.replace(file)
    return fingerprint
