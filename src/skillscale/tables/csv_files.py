"""CSV files as people export them: their encoding, separator, comment lines and blanks around names."""

import codecs
import csv
import io
import string
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from skillscale.errors import InputError
from skillscale.tables.bounded_files import Progress, open_table, read_csv_table

_HEAD = 2**22  # bytes that are read to learn the dialect; a header of 100,000 columns has a million
_SEPARATORS = (",", ";", "\t", "|")
_MARKS = {b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32", b"\xef\xbb\xbf": "utf-8-sig",
          b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}  # fmt: skip
_WHITESPACE = r"\s+"  # where no other separator is: numpy's savetxt writes one blank, people align columns with many
_COMMENT = "#"
_BLANKS = f"{string.whitespace}\u00a0\ufeff"  # around names, with the marks of encodings in files that were joined


@dataclass(frozen=True, kw_only=True)
class CsvDialect:
    """How a file is written.

    Args:
        encoding: text encoding.
        separator: character between cells.
        names: names of the columns, without blanks around them.
        skip: lines before the first row.
    """

    encoding: str
    separator: str
    names: tuple[str, ...]
    skip: int


def csv_dialect(path: Path, separator: str, selected: Set[str]) -> CsvDialect:
    """Return how a file is written.

    Args:
        path: file, also compressed.
        separator: separator by its suffix, which counts unless another one finds more of the columns.
        selected: names of columns that the file should have; may be empty.

    Raises:
        InputError: the file has no text in a known encoding, or no header.
    """
    with open_table(path) as file:
        head = file.read(_HEAD)
    encoding = _encoding(head)
    try:
        # Incrementally: the head may end within a character
        text = codecs.getincrementaldecoder(encoding)(errors="strict" if len(head) < _HEAD else "ignore").decode(head)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} can't be read as a table: {error}. Save it as UTF-8.") from error
    lines = text.splitlines()
    at, forced = _header_line(lines, separator, selected)
    if at is None:
        raise InputError(f"{path} can't be read as a table: No columns to parse from file. Give its header.")
    line = lines[at].lstrip(_COMMENT) if lines[at].startswith(_COMMENT) else lines[at]
    separator = _separator(line, forced or separator, selected)
    names = tuple(name.strip(_BLANKS) for name in _split(line, separator))
    return CsvDialect(encoding=encoding, separator=separator, names=names, skip=at + 1)


def read_csv(
    path: Path, dialect: CsvDialect, kept: Sequence[str], progress: Progress | None = None, *, n_rows: int | None = None
) -> pd.DataFrame:
    """Return the named columns of a file, the first of each name, of all rows or of the first.

    Raises:
        InputError: it can't be decompressed, or a limit is reached.
        ValueError: it can't be parsed.
    """
    places = sorted({dialect.names.index(name) for name in kept})
    names = [dialect.names[at] for at in places]
    if not names:
        return pd.DataFrame()
    # Before pandas 3.1 the default is off by one in the last digit; later versions refuse this option
    exact: dict[str, Any] = {} if _version(pd.__version__) >= (3, 1) else {"float_precision": "round_trip"}
    try:
        return read_csv_table(
            path, names, progress, n_rows=n_rows, sep=dialect.separator, encoding=dialect.encoding,
            skiprows=dialect.skip, header=None, names=names,
            usecols=places, skipinitialspace=True, **exact,
        )  # fmt: skip
    except pd.errors.EmptyDataError:
        return pd.DataFrame(columns=names)
    except IndexError as error:  # of pandas, where all rows have fewer cells than the header
        raise ValueError("its rows have fewer cells than its header") from error


def _encoding(head: bytes) -> str:
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding
    sample = head[:4096]
    if sample.count(b"\x00") > len(sample) // 4:  # no mark, but every second byte of Latin text is zero
        return "utf-16-le" if sample[1:2] == b"\x00" else "utf-16-be"
    return "utf-8"


def _header_line(lines: Sequence[str], separator: str, selected: Set[str]) -> tuple[int | None, str]:
    """Return the line of the header, and the separator that a line ``sep=;`` before it names.

    A commented line is the header where numbers follow it, as numpy writes them.
    """
    commented, forced = None, ""
    for at, line in enumerate(lines):
        if not line.strip():
            continue
        if line.lower().startswith("sep=") and len(line.strip()) == 5:
            forced = line.strip()[-1]
        elif line.startswith(_COMMENT):
            names = {name.strip() for name in _split(line.lstrip(_COMMENT), _separator(line, separator, selected))}
            commented = at if selected & names else commented
        elif commented is not None and _is_number(_split(line, _separator(line, separator, set()))[0]):
            return commented, forced
        else:
            return at, forced
    return commented, forced


def _separator(line: str, separator: str, selected: Set[str]) -> str:
    """Return the separator that finds the most selected columns, then the most columns; the usual one among equals.

    Blanks separate where nothing else does.
    """
    candidates = [separator, *(other for other in _SEPARATORS if other != separator)]

    def count_names(candidate: str) -> tuple[int, int]:
        names = [name.strip() for name in _split(line, candidate)]
        return len(selected & set(names)), len(names)

    best = max(candidates, key=count_names)  # the first among equals
    if count_names(best)[1] == 1 and len(line.lstrip(_COMMENT).split()) > 1:
        return _WHITESPACE
    return separator if count_names(separator)[0] == count_names(best)[0] and count_names(separator)[1] > 1 else best


def _split(line: str, separator: str) -> list[str]:
    if separator == _WHITESPACE:
        return line.split()
    try:
        return next(csv.reader(io.StringIO(line), delimiter=separator, skipinitialspace=True), [""])
    except csv.Error:  # a field longer than the module takes: it is not the separator
        return [line]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)
