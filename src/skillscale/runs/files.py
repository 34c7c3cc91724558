"""Files of runs as rows of cells: one table, a folder of run histories, or result files of the lm-evaluation-harness.

W&B: the run table that its UI exports, and histories as ``run.history().to_csv`` or a line of JSON a row of
``scan_history`` write them, a file a run. Only the cells that the mapping of columns names are kept.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from skillscale.errors import InputError
from skillscale.formatting import join_first
from skillscale.laws.results import ExcludedRun
from skillscale.runs.column_map import ColumnMap, Join
from skillscale.runs.lm_eval import MODEL, read_results

FILE, STEP, STATE, NAME = "file", "_step", "State", "Name"  # ours; then names of W&B
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_PARQUET = (".parquet", ".pq")
_LINES = (".jsonl", ".ndjson")
_RESULTS = ".json"
_COMPRESSED = (".gz", ".bz2", ".xz", ".zip", ".zst")
_LONGEST = 2**24  # characters of a line of JSON: a row of a history has some hundreds
_STATES = frozenset({"finished", "crashed", "failed", "killed", "running", "pending", "preempting", "preempted"})
_NO_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}  # as W&B writes them in JSON


@dataclass(frozen=True, kw_only=True, eq=False)
class RawTable:
    """Rows of one or several files.

    ``frame``: the cells that are wanted; ``names``: of all columns that there are; ``labels``: unique names of the
    rows, None where they have none; ``run``: the column that tells runs apart where the mapping names none;
    ``excluded``: files or runs that were left out; ``notes``: what is odd.
    """

    frame: pd.DataFrame
    names: tuple[str, ...]
    labels: tuple[str, ...] | None = None
    run: str = ""
    excluded: tuple[ExcludedRun, ...] = ()
    notes: tuple[str, ...] = ()


def read_raw_table(path: Path, columns: ColumnMap) -> RawTable:
    """The rows that a mapping of columns is about, joined with another file, without W&B runs that did not finish.

    Raises:
        InputError: no such file, one that can't be read, or a join that finds nothing.
    """
    wanted = {column for _, column in columns.key_columns()} | {STATE, NAME, FILE, STEP}
    other = _beside(path, columns.join) if columns.join else None
    if columns.join:
        wanted |= set(columns.join.by)
    sheet = _folder(path, wanted, columns, leave=other) if path.is_dir() else _one(path, wanted, columns)
    if columns.join and other:
        sheet = _joined(sheet, columns.join, other, path.name)
    return _finished(sheet, path.name) if STATE not in columns.where else sheet


def files_of(path: Path, columns: ColumnMap) -> list[Path]:
    """The files that are read, in order: what names their content."""
    other = _beside(path, columns.join) if columns.join else None
    own = [one for one, _ in _members(path, leave=other)] if path.is_dir() else [path]
    return [*own, *([other] if other else [])]


def _one(path: Path, wanted: Set[str], columns: ColumnMap) -> RawTable:
    if path.suffix.lower() != _RESULTS:
        sheet = _rows(path, wanted)
        if _is_history(sheet):  # of one run, unless the mapping tells runs apart
            sheet = replace(_with_file(sheet, _plain_name(path.name)), run=FILE)
        return _history(sheet, columns, path.name)
    return _results([(path, path.name)], columns, path.name)


def _results(files: Sequence[tuple[Path, str]], columns: ColumnMap, place: str) -> RawTable:
    """Checkpoints of the harness; those of one model are one run."""
    read = read_results(files, columns, place)
    return RawTable(frame=read.frame, names=tuple(map(str, read.frame.columns)), run=MODEL, excluded=read.excluded,
                 notes=read.notes)  # fmt: skip


def _folder(path: Path, wanted: Set[str], columns: ColumnMap, *, leave: Path | None) -> RawTable:
    """Result files of the harness, or else histories, each of a run of its own."""
    members = _members(path, leave=leave)
    if not members:
        raise InputError(
            f"{path} has no result files (results_*.json) and no histories (.csv, .jsonl, .parquet); give the folder "
            "that has"
        )
    if members[0][0].suffix.lower() == _RESULTS:
        return _results(members, columns, path.name)
    sheets, unusable = [], []
    for file, name in members:
        try:
            sheets.append(_with_file(_rows(file, wanted), _plain_name(name)))
        except InputError as error:
            unusable.append(ExcludedRun(run_id=name, skill="", reason=str(error)))
    if not sheets:
        raise InputError(f"no file of {path} can be read; the first: {unusable[0].reason}")
    names = tuple(dict.fromkeys(name for sheet in sheets for name in sheet.names))
    # Columns without a cell would decide on the type of the whole
    frames = [sheet.frame.dropna(axis=1, how="all") for sheet in sheets]
    kept = dict.fromkeys(str(name) for sheet in sheets for name in sheet.frame.columns)
    frame = pd.concat(frames, ignore_index=True).reindex(columns=list(kept))
    whole = RawTable(frame=frame, names=names, run=FILE, excluded=tuple(unusable))
    return _history(whole, columns, path.name)


def _members(path: Path, *, leave: Path | None) -> list[tuple[Path, str]]:
    """The files of a folder with their names in it: result files before all others."""
    every = [
        (one, one.relative_to(path).as_posix()) for one in sorted(path.rglob("*")) if one.is_file() and one != leave
    ]
    results = [pair for pair in every if pair[0].suffix.lower() == _RESULTS]
    named = [pair for pair in results if pair[0].name.startswith("results")]
    tables = [pair for pair in every if _kind(pair[0]) in (*_SEPARATORS, *_PARQUET, *_LINES)]
    return named or results or tables


def _rows(path: Path, wanted: Set[str] | None) -> RawTable:
    """The rows of one table; all of its columns where none are named.

    Raises:
        InputError: no table, or one that can't be read.
    """
    kind = _kind(path)
    if kind not in (*_SEPARATORS, *_PARQUET, *_LINES):
        raise InputError(
            f"{path} must be a .csv, .tsv, .parquet or .jsonl file, a result file (.json) of the "
            "lm-evaluation-harness, or a folder; give the table as one of these"
        )
    if not path.is_file():
        raise InputError(f"there is no file {path}; give the path of a table, one row a run or checkpoint")
    try:
        if kind in _PARQUET:
            frame = pd.read_parquet(path)
            return RawTable(frame=frame, names=tuple(map(str, frame.columns)))
        if kind in _LINES:
            return _read_lines(path, wanted)
        return _read_csv(path, _SEPARATORS[kind], wanted)
    except InputError:
        raise
    except (OSError, ValueError, UnicodeDecodeError) as error:  # ParserError and EmptyDataError are ValueErrors
        raise InputError(f"{path} can't be read as a table: {' '.join(str(error).split())}") from error


def _read_csv(path: Path, separator: str, wanted: Set[str] | None) -> RawTable:
    names = [str(name) for name in pd.read_csv(path, sep=separator, header=None, nrows=1, dtype=str).iloc[0]]
    kept = [name for name in dict.fromkeys(names) if wanted is None or name in wanted]
    # The default of pandas before 3.1 is off by one in the last digit; later ones refuse to be told
    exact: dict[str, Any] = {} if _version(pd.__version__) >= (3, 1) else {"float_precision": "round_trip"}
    frame: pd.DataFrame = pd.read_csv(path, sep=separator, usecols=kept, low_memory=False, **exact)
    return RawTable(frame=frame, names=tuple(names))


def _read_lines(path: Path, wanted: Set[str] | None) -> RawTable:
    """A JSON object a line; what is nested is named ``config.lr``."""
    names: dict[str, None] = {}
    rows = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(iter(lambda: file.readline(_LONGEST + 1), ""), 1):
            if not line.strip():
                continue
            cells = dict(_cells(_json_line(line, f"line {number} of {path}")))
            names |= dict.fromkeys(cells)
            rows.append({name: cell for name, cell in cells.items() if wanted is None or name in wanted})
    return RawTable(frame=pd.DataFrame(rows), names=tuple(names))


def _json_line(line: str, place: str) -> Mapping[str, Any]:
    if len(line) > _LONGEST:
        raise InputError(f"{place} is longer than {_LONGEST} characters, which no row of a history is; drop it")
    try:
        row = json.loads(line, parse_int=float)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place} is no JSON ({error}); write one object a line, or drop the line") from error
    if not isinstance(row, dict):
        raise InputError(f"{place} holds {line.strip()[:40]!r}, and no object; write one object a line")
    return row


def _cells(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, dict):
            yield from _cells(value, f"{prefix}{name}.")
        elif not isinstance(value, list):  # histograms and the like
            yield f"{prefix}{name}", _NO_NUMBERS.get(value, value) if isinstance(value, str) else value


def _with_file(sheet: RawTable, name: str) -> RawTable:
    if FILE in sheet.names:
        return sheet
    return replace(sheet, frame=sheet.frame.assign(**{FILE: name}), names=(*sheet.names, FILE))


def _history(sheet: RawTable, columns: ColumnMap, place: str) -> RawTable:
    """Without the rows of a history at which nothing was evaluated: training logs far more often.

    Raises:
        InputError: it is what a chart exports, which tells neither N nor D.
    """
    ends = [name for name in sheet.names if name.endswith(("__MIN", "__MAX"))]
    if ends and len(ends) >= len(sheet.names) // 2:
        raise InputError(
            f"{place} is the export of a W&B chart (it has {ends[0]!r}), a curve a column; export the run table, or "
            "the history of each run, as docs/guide/howto/own-runs.md says"
        )
    losses = [one.loss for one in columns.skills.values() if one.loss in sheet.frame.columns]
    if not _is_history(sheet) or not losses:
        return sheet
    told = sheet.frame[losses].notna().any(axis=1).to_numpy()
    if told.all():
        return sheet
    note = f"{(~told).sum()} of {len(told)} rows of the history tell no loss that skills names, and are no checkpoints"
    return replace(sheet, frame=sheet.frame[told].reset_index(drop=True), notes=(*sheet.notes, note))


def _is_history(sheet: RawTable) -> bool:
    """A run table has the last step of each run, but also its state."""
    return STEP in sheet.names and STATE not in sheet.names


def _beside(path: Path, join: Join) -> Path:
    """The joined file: in the folder that is read, or in that of the table."""
    return (path if path.is_dir() else path.parent) / join.file


def _joined(sheet: RawTable, join: Join, other: Path, place: str) -> RawTable:
    """The rows with the columns of the row of the other file that they agree with.

    Raises:
        InputError: a column is not there, the other file has a row twice, or no row agrees.
    """
    more = _rows(other, None)
    for name, names, where in (
        *((name, sheet.names, place) for name in join.by),
        *((name, more.names, other.name) for name in join.by.values()),
    ):
        if name not in names:
            raise InputError(f"join goes by {name!r}, which {where} lacks; it has {join_first(names)}")
    own, theirs = _keys(sheet.frame[list(join.by)]), _keys(more.frame[list(join.by.values())])
    place_of: dict[tuple[str, ...], int] = {}
    for at, key in enumerate(theirs):
        if key in place_of:
            raise InputError(f"{other.name} has {' '.join(key)} twice; give each one row")
        place_of[key] = at
    found = np.array([place_of.get(key, -1) for key in own], dtype=int)
    kept = found >= 0
    if not kept.any():
        raise InputError(
            f"no row of {place} is in {other.name}: by {', '.join(join.by)} the one has {_some_keys(own)}, the other "
            f"{_some_keys(theirs)}"
        )
    lost = dict.fromkeys(key for key, there in zip(own, kept, strict=True) if not there)
    extra = [name for name in more.frame.columns if name not in sheet.frame.columns]
    added = more.frame[extra].iloc[found[kept]].reset_index(drop=True)
    unused = len(theirs) - len(set(found[kept].tolist()))
    return replace(
        _taken(sheet, kept, [(" ".join(key), f"{other.name} has no row of it") for key in lost]),
        frame=pd.concat([sheet.frame[kept].reset_index(drop=True), added], axis=1),
        names=tuple(dict.fromkeys([*sheet.names, *more.names])),
        notes=(
            *sheet.notes,
            *([f"{unused} of {len(theirs)} rows of {other.name} are of no run here"] if unused else []),
        ),
    )


def _finished(sheet: RawTable, place: str) -> RawTable:
    """Without the W&B runs that did not finish, and with the rows of a run table named as the runs are.

    Raises:
        InputError: no run has finished.
    """
    if STATE not in sheet.frame.columns:
        return sheet
    states = sheet.frame[STATE].astype(str).str.lower().to_numpy()
    if not set(states) <= _STATES:
        return sheet
    labels = _labels(sheet)
    kept = states == "finished"
    if not kept.any():
        raise InputError(
            f"no run of {place} is finished (State is {', '.join(sorted(set(states)))}); only finished runs are read, "
            "unless where names the states that count, as in where: {State: [finished, crashed]}"
        )
    runs = sheet.frame[sheet.run].astype(str) if sheet.run else pd.Series(labels)
    left = dict.fromkeys((run, f"it is {state}, not finished") for run, state in zip(runs, states, strict=True)
                         if state != "finished")  # fmt: skip
    taken = _taken(replace(sheet, labels=None if sheet.run else labels), kept, list(left))
    return replace(taken, frame=sheet.frame[kept].reset_index(drop=True))


def _labels(sheet: RawTable) -> tuple[str, ...]:
    """The names that the runs have in W&B, where each row is one; with the row where several have one."""
    if NAME not in sheet.frame.columns:
        return tuple(f"row {at}" for at in range(1, len(sheet.frame) + 1))
    names = sheet.frame[NAME].astype(str)
    twice = names.duplicated(keep=False)
    rows = enumerate(zip(names, twice, strict=True), 1)
    return tuple(f"row {at} {name}" if again else name for at, (name, again) in rows)


def _taken(sheet: RawTable, kept: npt.NDArray[np.bool_], left: Sequence[tuple[str, str]]) -> RawTable:
    """The names of the rows that are kept, and the others as left out."""
    labels = sheet.labels and tuple(label for label, there in zip(sheet.labels, kept, strict=True) if there)
    unusable = tuple(ExcludedRun(run_id=run, skill="", reason=why) for run, why in left)
    return replace(sheet, labels=labels, excluded=sheet.excluded + unusable)


def _keys(frame: pd.DataFrame) -> list[tuple[str, ...]]:
    """Cells as text, whole numbers without a fraction."""
    return [tuple(_plain(cell) for cell in row) for row in frame.itertuples(index=False)]


def _plain(cell: Any) -> str:
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()


def _some_keys(keys: Sequence[tuple[str, ...]]) -> str:
    return join_first([" ".join(key) for key in dict.fromkeys(keys)])


def _plain_name(name: str) -> str:
    """``a/b`` for a/b.csv.gz."""
    path = Path(name)
    while path.suffix.lower() in (*_COMPRESSED, *_SEPARATORS, *_PARQUET, *_LINES):
        path = path.with_suffix("")
    return path.as_posix()


def _kind(path: Path) -> str:
    plain = path.with_suffix("") if path.suffix.lower() in _COMPRESSED else path
    return plain.suffix.lower()


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)
