"""What a source's content is named by, so that a cache knows it again without reading it."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from skillscale.lm.data import documents
from skillscale.point import digest


@dataclass(frozen=True, kw_only=True)
class Origin:
    """``fingerprint``: of the content, wherever it lies; ``revision``: the commit, for hub data."""

    fingerprint: str
    revision: str | None = None


def find_origin(path: str, split: str, *, embedded: Path | None, cache: Path) -> Origin:
    """Find a source and name its content: files by their bytes, hub data by the commit that this cache saw first.

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
    return Origin(fingerprint=digest([[str(file.relative_to(root)), _content(file, cache)] for file in files], 16))


def _content(file: Path, cache: Path) -> str | None:
    stat = file.stat()
    state = [stat.st_size, stat.st_mtime_ns]
    return cached_fingerprint(cache, str(file.resolve()), state, lambda: documents.hash_file(file))


def cached_fingerprint(cache: Path, name: str, state: list[int], find: Callable[[], str | None]) -> str | None:
    """``find()``, asked once for a name in a state; an answer of none is not kept."""
    place = cache / "origins" / f"{digest(name, 16)}.json"
    if place.is_file():
        known = json.loads(place.read_text(encoding="utf-8"))
        if known["state"] == state:
            return str(known["found"])
    found = find()
    if found is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps({"name": name, "state": state, "found": found}), encoding="utf-8")
        partial.replace(place)
    return found
