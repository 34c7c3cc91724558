"""Tables of others, read with limits: on what a file holds once it is decompressed, on its lines, rows and columns.

Only the named columns are kept. A large file is read in parts, so that memory goes with what is kept.
"""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import pandas as pd

from skillscale.errors import InputError
from skillscale.formatting import plural
from skillscale.tables.states import state_columns

Progress = Callable[[str], None]

MAX_BYTES = 8 * 2**30  # of a table, decompressed
MAX_ROWS = 20_000_000
MAX_CELLS = 400_000_000  # that are kept
LONGEST_LINE = 2**24  # bytes: a row of 100,000 columns has a few million
_MAX_RATIO = 300.0  # bytes that one compressed byte stands for; a table of numbers reaches some 20
_FREE_BYTES = 64 * 2**20  # below this size a file is read at once, and its ratio does not matter
_SAMPLE = 1000  # rows of a table that decide which columns hold states
_PART_BYTES = 64 * 2**20
_PROGRESS_SHARE = 0.25
_FAILURES = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError, NotImplementedError)


class BoundedStream(io.RawIOBase):
    """The bytes of a table, decompressed, up to the limits.

    Args:
        stream: Stream of the decompressed bytes.
        place: Name of the file in messages.
        n_compressed: Size of the compressed file; 0: it is not compressed.
        report: Receiver of the number of bytes that are read so far.

    Raises:
        InputError: while it is read: a limit is reached.
    """

    def __init__(
        self, stream: IO[bytes], place: str, n_compressed: int = 0, report: Callable[[int], None] | None = None
    ) -> None:
        super().__init__()
        self._stream = stream
        self._place = place
        self._n_compressed = n_compressed
        self._report = report
        self._n_read = 0
        self._line = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes into a buffer, and check the limits."""
        data = self._stream.read(min(len(buffer), LONGEST_LINE))
        buffer[: len(data)] = data
        self._n_read += len(data)
        end = max(data.rfind(b"\n"), data.rfind(b"\r"))
        self._line = len(data) - end if end >= 0 else self._line + len(data)
        if self._line > LONGEST_LINE:
            raise InputError(
                f"{self._place} has a line of more than {LONGEST_LINE // 2**20} MB, too long for a row. Is it a table?"
            )
        is_bomb = self._n_compressed and self._n_read > max(_FREE_BYTES, _MAX_RATIO * self._n_compressed)
        if self._n_read > MAX_BYTES or is_bomb:
            raise InputError(
                f"{self._place} holds more than {self._n_read / 2**20:,.0f} MB once it is decompressed, too much for a "
                "table of runs. Check where it is from."
            )
        if self._report is not None:
            self._report(self._n_read)
        return len(data)


@contextmanager
def open_table(path: Path, report: Callable[[int], None] | None = None) -> Iterator[IO[bytes]]:
    """Open a table as decompressed bytes, with limits.

    Raises:
        InputError: it can't be decompressed, or a limit is reached while it is read.
    """
    suffix = path.suffix.lower()
    try:
        with path.open("rb") as file:
            if suffix == ".zip":
                stream, n_compressed = _zip_member(file, path)
            else:
                stream, n_compressed = _decompressed(file, suffix), _size(path) if suffix in _OPENERS else 0
            with io.BufferedReader(BoundedStream(stream, str(path), n_compressed, report), 2**20) as bounded:
                yield bounded
    except _FAILURES as error:
        raise InputError(f"{path} can't be decompressed: {error}. Is it complete?") from error


def _open_zstd(file: IO[bytes]) -> IO[bytes]:
    from pyarrow import CompressedInputStream, PythonFile

    stream: IO[bytes] = CompressedInputStream(PythonFile(file, mode="r"), "zstd")
    return stream


_OPENERS: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": lambda file: gzip.GzipFile(fileobj=file), ".bz2": bz2.BZ2File, ".xz": lzma.LZMAFile, ".zst": _open_zstd,
}  # fmt: skip


def _decompressed(file: IO[bytes], suffix: str) -> IO[bytes]:
    stream: IO[bytes] = _OPENERS[suffix](file) if suffix in _OPENERS else file
    return stream


def _zip_member(file: IO[bytes], path: Path) -> tuple[IO[bytes], int]:
    archive = zipfile.ZipFile(file)
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) != 1:
        raise InputError(f"{path} holds {plural(len(members), 'file')}. Give an archive of one table.")
    return archive.open(members[0]), max(members[0].compress_size, 1)


def _size(path: Path) -> int:
    return max(path.stat().st_size, 1)


def read_csv_table(
    path: Path, columns: Sequence[str], progress: Progress | None = None, *, n_rows: int | None = None, **options: Any
) -> pd.DataFrame:
    """Return the rows of a CSV file with the named columns.

    Args:
        path: file, which may be compressed.
        columns: names of the columns to keep.
        progress: receiver of lines on a file that takes a while.
        n_rows: number of rows to read; None: all.
        options: options of ``pandas.read_csv``, such as ``sep``.

    Raises:
        InputError: it can't be decompressed, or a limit is reached.
        ValueError: it is no CSV.
    """
    if n_rows is not None:
        with open_table(path) as file:
            return cast("pd.DataFrame", pd.read_csv(file, nrows=n_rows, **options))
    n_bytes, row_bytes = _measure(path)
    options = {"usecols": list(columns), "low_memory": False, **options}
    with open_table(path, _reporter(path, n_bytes, progress)) as file:
        if n_bytes <= _FREE_BYTES:
            frame: pd.DataFrame = pd.read_csv(file, **options)
            return frame
        n_rows = max(int(_PART_BYTES / row_bytes), 1)
        return _join_parts(pd.read_csv(file, chunksize=n_rows, **options), path)


def _measure(path: Path) -> tuple[int, float]:
    """Return the size of a table in bytes, decompressed, as far as it is below a limit, and the bytes of a row."""
    if path.suffix.lower() not in (*_OPENERS, ".zip"):
        with path.open("rb") as plain:
            start = plain.read(2**20)
        return _size(path), len(start) / max(start.count(b"\n"), 1)
    n_bytes, start = 0, b""
    with open_table(path) as file:
        while n_bytes <= _FREE_BYTES and (data := file.read(2**20)):
            start = start or data
            n_bytes += len(data)
    return n_bytes, len(start) / max(start.count(b"\n"), 1)


def _join_parts(parts: Iterable[pd.DataFrame], path: Path) -> pd.DataFrame:
    frames: list[pd.DataFrame] = []
    n_rows = 0
    for part in parts:
        frames.append(part)
        n_rows += len(part)
        check_shape(n_rows, part.shape[1], path)
    return pd.concat(frames, ignore_index=True)


def check_shape(n_rows: int, n_columns: int, path: Path) -> None:
    """Refuse a table that is too large.

    Raises:
        InputError: it has too many rows, or too many cells in the named columns.
    """
    if n_rows > MAX_ROWS or n_rows * n_columns > MAX_CELLS:
        raise InputError(
            f"{path} has more than {min(n_rows, MAX_ROWS):,} rows of {plural(n_columns, 'column')}, too much for a "
            "table of runs. Give fewer rows or columns."
        )


def read_parquet_table(path: Path, is_kept: Callable[[str], bool]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the rows of a Parquet file with the columns that are kept, and the names of all its columns.

    Raises:
        InputError: what its metadata promise is too large, or it is no Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as source, pq.ParquetFile(source) as file:
            names = tuple(map(str, file.schema_arrow.names))
            kept = [name for name in names if is_kept(name)]
            kept += _columns_of_states(file, [name for name in names if name not in kept])
            check_shape(file.metadata.num_rows, len(kept), path)
            _check_column_chunks(file.metadata, kept, path)
            return file.read(columns=kept).to_pandas(ignore_metadata=True), names
    except (pa.ArrowException, OSError, MemoryError, OverflowError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise InputError(f"{path} can't be read as a table: {' '.join(str(error).split())}") from error


def _columns_of_states(file: Any, names: Sequence[str]) -> list[str]:
    """Return the columns of text whose first cells are all words for states."""
    texts = [field.name for field in file.schema_arrow if "string" in str(field.type) and field.name in names]
    groups = [file.metadata.row_group(at) for at in range(file.metadata.num_row_groups)]
    if sum(group.total_byte_size for group in groups[:1]) > _FREE_BYTES:
        return []  # reading a part of a column may need all its bytes
    part = next(file.iter_batches(batch_size=_SAMPLE, columns=texts), None) if texts else None
    return [] if part is None else state_columns(part.to_pandas())


def _check_column_chunks(metadata: Any, kept: Sequence[str], path: Path) -> None:
    """Refuse columns whose values, decompressed, are too many: a few bytes may stand for billions of them."""
    n_bytes = n_values = 0
    wanted_names = set(kept)
    for at in range(metadata.num_row_groups):
        group = metadata.row_group(at)
        for number in range(group.num_columns):
            chunk = group.column(number)
            if chunk.path_in_schema.partition(".")[0] in wanted_names:
                n_bytes += chunk.total_uncompressed_size
                n_values += chunk.num_values
    if n_bytes > MAX_BYTES or n_values > MAX_CELLS:
        raise InputError(
            f"{path} holds {n_values:,} values and {n_bytes / 2**20:,.0f} MB in the named columns, too much for a "
            "table of runs. Check where it is from."
        )


def _reporter(path: Path, n_bytes: int, progress: Progress | None) -> Callable[[int], None] | None:
    """Return what says how much of a large file is read, at each quarter."""
    if progress is None or n_bytes < _FREE_BYTES // 2:
        return None
    shown = 0.0
    progress(f"reading {path.name}, {n_bytes / 2**20:,.0f} MB")

    def report(n_read: int) -> None:
        nonlocal shown
        if n_read / n_bytes >= shown + _PROGRESS_SHARE and n_read <= n_bytes:
            shown += _PROGRESS_SHARE
            progress(f"{100 * shown:.0f} % of {path.name} is read")

    return report
