"""Folders that are named by their content and made once, even if several workers need them at the same time."""

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from skillscale.errors import TrainingError

Progress = Callable[[str], None]
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def make_once(folder: Path, make: Callable[[Path], None], *, progress: Progress) -> Path:
    """Make ``folder`` with ``make(partial)`` unless it exists; other workers wait, and a failure leaves no folder."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(f"{folder.name}.lock"), progress):
        if not folder.is_dir():
            _make(folder, make)
    return folder


@contextmanager
def explain_full_disk(cache: Path) -> Iterator[None]:
    """Turn the error of a full disk into a message with its cure.

    Raises:
        TrainingError: the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise TrainingError(
            f"no room to write in {cache}: {error.strerror}. Free some space or choose another cache folder."
        ) from error


def _make(folder: Path, make: Callable[[Path], None]) -> None:
    partial = folder.with_name(f"{folder.name}.partial")
    if partial.exists():  # of a worker that was killed: this process holds the lock, so no other writes there
        shutil.rmtree(partial)
    partial.mkdir()
    try:
        make(partial)
        partial.replace(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0.05)
    except Timeout:
        progress(f"waiting for another worker, which is making {path.stem}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
