"""The file of a stable phase, which runs of several D share, and the lease to train it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from skillscale.errors import TrainingError
from skillscale.lm.train.snapshots import TrainingSnapshot

_POLL_S = 0.2


@dataclass(frozen=True, kw_only=True)
class StablePhaseCheckpoint:
    """The checkpoint of a stable phase. ``is_reused``: whether a longer run will start from it."""

    path: Path
    is_reused: bool

    def delete(self) -> None:
        """Delete the file and its lock."""
        for path in (self.path, _lock_path(self.path)):
            path.unlink(missing_ok=True)


class StablePhaseLease:
    """The right to train a stable phase. One process holds it; the others wait, and start from the result."""

    def __init__(self, checkpoint: StablePhaseCheckpoint) -> None:
        self._path = checkpoint.path
        self._lock = FileLock(_lock_path(checkpoint.path))
        self._writes = checkpoint.is_reused

    def __enter__(self) -> "StablePhaseLease":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def acquire(
        self, fork: int, read: Callable[[Path], TrainingSnapshot], should_stop: Callable[[], bool]
    ) -> TrainingSnapshot | None:
        """Return the stable phase up to the fork, or None to train it from its first step.

        Wait while another process trains it. A file that is already past the fork stays as it is. A damaged file is
        deleted. A stop request also returns None.
        """
        seen_at = 0
        while not should_stop():
            holds = self._try_lock()  # before the look at the file, so that no later version of it is missed
            written_at = self._path.stat().st_mtime_ns if self._path.exists() else 0
            if written_at and (holds or written_at != seen_at):
                seen_at = written_at
                snapshot = self._read(read)
                step = 0 if snapshot is None else snapshot.state.step
                if step >= fork:
                    self._lock.release()
                    self._writes = False
                    return snapshot if step == fork else None
                if holds:
                    return snapshot
            elif holds:
                return None
            time.sleep(_POLL_S)
        return None

    def reacquire(self) -> None:
        """Take the lease again for a resumed run. If another process holds it now, this run writes no file."""
        self._writes &= self._try_lock()

    def hand_over(self, save: Callable[[Path], None]) -> None:
        """At the fork: save the state for longer runs, and release the lease."""
        if self._writes:
            save(self._path)
            self._writes = False
        self._lock.release()

    def _try_lock(self) -> bool:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        return True

    def _read(self, read: Callable[[Path], TrainingSnapshot]) -> TrainingSnapshot | None:
        try:
            return read(self._path)
        except TrainingError:  # the file is a cache: a lost stable phase is trained again
            self._path.unlink(missing_ok=True)
            return None


def _lock_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")
