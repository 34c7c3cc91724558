"""Keep fits in the cache folder, so that a second question to the same runs does not fit them again.

A fit is named by a digest of its inputs, of the program and of the numerical packages. A changed program therefore
never reads an old fit. A file that cannot be read is replaced, and a folder that cannot be written costs only time.
"""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import skillscale
from skillscale.config.readers import cache_folder
from skillscale.laws.io.value_file import ValueFileError, digest, from_bytes, to_bytes

T = TypeVar("T")
LIMIT = 10**9  # bytes of all kept fits
_PACKAGES = ("numpy", "scipy", "pandas")
_SOURCES = ("*.py", "laws/**/*.py", "analysis/*.py")


def kept_fit(kind: type[T], inputs: object, make: Callable[[], T]) -> T:
    """Return the fit that was made of the same inputs before, or make it and keep it.

    Args:
        kind: Class of the fit.
        inputs: Everything that the fit depends on.
        make: Function that fits.
    """
    try:
        path = cache_folder() / "fits" / f"{digest([kind.__name__, program_digest(), inputs])}.npz"
    except ValueFileError:  # Inputs that have no digest, such as a law of a notebook
        return make()
    kept = _read(path)
    if isinstance(kept, kind):
        return kept
    made = make()
    with contextlib.suppress(ValueFileError, OSError):
        _write(path, to_bytes(made))
    return made


@cache
def program_digest() -> str:
    """Return a digest of the sources that a fit depends on, and of the numerical packages."""
    root = Path(skillscale.__file__).parent
    total = hashlib.sha256(" ".join(f"{name} {version(name)}" for name in _PACKAGES).encode())
    for path in sorted({path for pattern in _SOURCES for path in root.glob(pattern)}):
        total.update(f"{path.relative_to(root)} {path.stat().st_size}\n".encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def _read(path: Path) -> object:
    try:
        value = from_bytes(path.read_bytes())
        os.utime(path)  # The least recently used go first
    except (OSError, ValueFileError):
        return None
    return value


def _write(path: Path, content: bytes) -> None:
    """Write a file of which other processes see all or nothing, and drop the least recently used ones."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _drop_oldest(path.parent)


def _drop_oldest(folder: Path) -> None:
    states = [(path, path.stat()) for path in folder.iterdir() if path.suffix in (".npz", ".part")]
    total = sum(state.st_size for _, state in states)
    for path, state in sorted(states, key=lambda item: item[1].st_mtime):
        if total <= LIMIT:
            return
        path.unlink(missing_ok=True)
        total -= state.st_size
