"""A journal file for Optuna's storage, which survives killed writers and a full disk.

It differs from Optuna's backend in three ways. The lock of a killed process is free at once. The unfinished line of a
process that was killed, or found the disk full, is removed by the next writer. Only new trials are forced to the disk:
what a power cut takes of the rest, the tracking store has as well.
"""

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from optuna.storages.journal import JournalFileBackend

from skillscale.errors import TrackingError

_LOCK_PATIENCE_S = 120.0  # a write takes less than a second: after this its process is stopped (assumption)
_LOCK_POLL_S = 0.002


class LockedJournal(JournalFileBackend):
    """A journal file that one process at a time appends to.

    Args:
        path: the file, which is made where there is none.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._file_lock = FileLock(path.with_name(f"{path.name}.flock"), timeout=_LOCK_PATIENCE_S)
        self._batch: list[Mapping[str, Any]] | None = None
        self._batch_thread = 0

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Collect the records that this thread appends, and write all of them at the end."""
        batch: list[Mapping[str, Any]] = []
        self._batch, self._batch_thread = batch, threading.get_ident()
        try:
            yield
        finally:
            self._batch = None
            if batch:
                self.append_logs(batch)

    def append_logs(self, logs: Sequence[Mapping[str, Any]]) -> None:
        """Append records.

        Raises:
            TrackingError: another process holds the file for too long.
            OSError: the disk is full, or the file can't be written.
        """
        if self._batch is not None and threading.get_ident() == self._batch_thread:
            self._batch += logs
            return
        lines = b"".join(json.dumps(record, separators=(",", ":")).encode() + b"\n" for record in logs)
        has_new_trials = any("user_attrs" in record for record in logs)
        try:
            with self._file_lock.acquire(poll_interval=_LOCK_POLL_S):
                _append(self._path, lines, is_durable=has_new_trials)
        except Timeout as error:
            raise TrackingError(
                f"another process has held the lock of {self._path} for {_LOCK_PATIENCE_S:g} s. End it, then try again"
            ) from error


def _append(path: Path, lines: bytes, *, is_durable: bool) -> None:
    """Append whole lines, or nothing; first remove a line that another process did not finish."""
    end = _end_of_lines(path)
    try:
        with path.open("ab", buffering=0) as file:
            if file.tell() != end:
                file.truncate(end)
            while lines:
                lines = lines[file.write(lines) :]
            if is_durable:
                os.fsync(file.fileno())
    except OSError:
        os.truncate(path, end)
        raise


def _end_of_lines(path: Path) -> int:
    """Return the place after the last newline."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        if end == 0:
            return 0
        file.seek(end - 1)
        if file.read(1) == b"\n":
            return end
        file.seek(0)
        return file.read().rfind(b"\n") + 1
