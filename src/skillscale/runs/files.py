"""Files of runs as rows of cells: a table, a folder of run histories, or result files of the lm-evaluation-harness.

From W&B: the run table that its UI exports, and histories with one file per run, as ``run.history().to_csv`` writes
them or as JSON lines of ``scan_history``. Only the columns of the column map are kept.
"""

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from skillscale.errors import InputError, show
from skillscale.formatting import join_first, unescape_formula
from skillscale.laws.results import ExcludedRun
from skillscale.runs.bounded_files import Progress, check_shape, open_table, read_csv_table, read_parquet_table
from skillscale.runs.column_hints import is_hint
from skillscale.runs.column_map import ColumnMap, Join
from skillscale.runs.lm_eval import MODEL, read_results

FILE, STEP, STATE, NAME = "file", "_step", "State", "Name"  # ours; then names of W&B
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_PARQUET = (".parquet", ".pq")
_LINES = (".jsonl", ".ndjson")
_RESULTS = ".json"
_COMPRESSED = (".gz", ".bz2", ".xz", ".zip", ".zst")
_LINES_AT_ONCE = 500_000  # of JSON, before they become a part of the table
_LONGEST = 2**24  # characters of a JSON line; a row of a history has a few hundred
_STATES = frozenset({"finished", "crashed", "failed", "killed", "running", "pending", "preempting", "preempted"})
_NO_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}  # as W&B writes them in JSON


@dataclass(frozen=True, kw_only=True, eq=False)
class RawTable:
    """Rows of one or several files.

    Args:
        frame: cells of the columns in the column map.
        names: names of all columns of the files.
        labels: unique names of the rows, or None.
        run: column that names the run if the column map has none.
        excluded: excluded files or runs with reasons.
        notes: sentences on what is odd.
    """

    frame: pd.DataFrame
    names: tuple[str, ...]
    labels: tuple[str, ...] | None = None
    run: str = ""
    excluded: tuple[ExcludedRun, ...] = ()
    notes: tuple[str, ...] = ()


def read_raw_table(path: Path, columns: ColumnMap, progress: Progress | None = None) -> RawTable:
    """Return the rows with the columns of a column map, joined with another file, without unfinished W&B runs.

    Raises:
        InputError: there is no such file, it can't be read, or the join matches no row.
    """
    names = {column for _, column in columns.key_columns()} | {STATE, NAME, FILE, STEP}
    joined = _joined_path(path, columns.join) if columns.join else None
    if columns.join:
        names |= set(columns.join.by)
    table = (
        _read_folder(path, names, columns, skip=joined) if path.is_dir() else _read_file(path, names, columns, progress)
    )
    if columns.join and joined:
        table = _join_rows(table, columns.join, joined, path.name)
    return _select_finished(table, path.name) if STATE not in columns.where else table


def files_of(path: Path, columns: ColumnMap) -> list[Path]:
    """Return the files that are read, in order."""
    joined = _joined_path(path, columns.join) if columns.join else None
    paths = [file for file, _ in _folder_files(path, skip=joined)] if path.is_dir() else [path]
    return [*paths, *([joined] if joined else [])]


def _read_file(path: Path, names: Set[str], columns: ColumnMap, progress: Progress | None) -> RawTable:
    if path.suffix.lower() != _RESULTS:
        table = _read_rows(path, names, progress)
        if _is_history(table):  # of one run, unless the column map names runs
            table = replace(_add_file_column(table, _name_without_suffix(path.name)), run=FILE)
        return _select_checkpoints(table, columns, path.name)
    return _read_results([(path, path.name)], columns, path.name)


def _read_results(files: Sequence[tuple[Path, str]], columns: ColumnMap, place: str) -> RawTable:
    """Return checkpoints of the harness. Those of one model are one run."""
    results = read_results(files, columns, place)
    return RawTable(frame=results.frame, names=tuple(map(str, results.frame.columns)), run=MODEL,
                    excluded=results.excluded, notes=results.notes)  # fmt: skip


def _read_folder(path: Path, names_kept: Set[str], columns: ColumnMap, *, skip: Path | None) -> RawTable:
    """Return result files of the harness, or histories with one run each."""
    members = _folder_files(path, skip=skip)
    if not members:
        raise InputError(
            f"{path} has no result files (results_*.json) and no histories (.csv, .jsonl, .parquet). Give a folder "
            "with such files."
        )
    if members[0][0].suffix.lower() == _RESULTS:
        return _read_results(members, columns, path.name)
    tables, excluded = [], []
    for file, name in members:
        try:
            tables.append(_add_file_column(_read_rows(file, names_kept), _name_without_suffix(name)))
        except InputError as error:
            excluded.append(ExcludedRun(run_id=name, skill="", reason=str(error)))
    if not tables:
        raise InputError(f"no file of {path} can be read. The first: {excluded[0].reason}")
    names = tuple(dict.fromkeys(name for table in tables for name in table.names))
    # Columns without a cell would decide on the type of the whole
    frames = [table.frame.dropna(axis=1, how="all") for table in tables]
    kept = dict.fromkeys(str(name) for table in tables for name in table.frame.columns)
    frame = pd.concat(frames, ignore_index=True).reindex(columns=list(kept))
    whole = RawTable(frame=frame, names=names, run=FILE, excluded=tuple(excluded))
    return _select_checkpoints(whole, columns, path.name)


def _folder_files(path: Path, *, skip: Path | None) -> list[tuple[Path, str]]:
    """Return the files of a folder with their relative names: result files if there are any, otherwise tables."""
    files = [
        (file, file.relative_to(path).as_posix()) for file in sorted(path.rglob("*")) if file.is_file() and file != skip
    ]
    results = [pair for pair in files if pair[0].suffix.lower() == _RESULTS]
    result_files = [pair for pair in results if pair[0].name.startswith("results")]
    tables = [pair for pair in files if _file_kind(pair[0]) in (*_SEPARATORS, *_PARQUET, *_LINES)]
    return result_files or results or tables


def _read_rows(path: Path, names: Set[str] | None, progress: Progress | None = None) -> RawTable:
    """Return the rows of a table with the named columns, or all.

    Raises:
        InputError: the file is no table or can't be read.
    """
    kind = _file_kind(path)
    if kind not in (*_SEPARATORS, *_PARQUET, *_LINES):
        raise InputError(
            f"{path} must be a .csv, .tsv, .parquet or .jsonl file, a result file (.json) of the "
            "lm-evaluation-harness, or a folder. Give the table as one of these."
        )
    if not path.is_file():
        raise InputError(f"there is no file {path}. Give the path of a table, one row a run or checkpoint.")
    try:
        if kind in _PARQUET:
            frame, all_names = read_parquet_table(path, lambda name: names is None or name in names or is_hint(name))
            return RawTable(frame=frame, names=all_names)
        if kind in _LINES:
            return _read_lines(path, names)
        return _read_csv(path, _SEPARATORS[kind], names, progress)
    except InputError:
        raise
    except (OSError, ValueError, UnicodeDecodeError) as error:  # ParserError and EmptyDataError are ValueErrors
        raise InputError(f"{path} can't be read as a table: {show(error)}") from error


def _read_csv(path: Path, separator: str, selected: Set[str] | None, progress: Progress | None) -> RawTable:
    with open_table(path) as file:
        names = [str(name) for name in pd.read_csv(file, sep=separator, header=None, nrows=1, dtype=str).iloc[0]]
    kept = [name for name in dict.fromkeys(names) if selected is None or name in selected or is_hint(name)]
    # Before pandas 3.1 the default is off by one in the last digit; later versions refuse this option
    exact: dict[str, Any] = {} if _version(pd.__version__) >= (3, 1) else {"float_precision": "round_trip"}
    frame = read_csv_table(path, kept, progress, sep=separator, **exact)
    return RawTable(frame=_without_escapes(frame), names=tuple(names))


def _without_escapes(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the cells without the quote that ``export`` puts before texts which spreadsheets would compute."""
    for at, (_, column) in enumerate(frame.items()):
        if pd.api.types.is_numeric_dtype(column.dtype):
            continue
        texts = [cell for cell in column.dropna().unique() if isinstance(cell, str) and cell.startswith("'")]
        if texts:
            frame.isetitem(at, column.replace({text: unescape_formula(text) for text in texts}))
    return frame


def _read_lines(path: Path, selected: Set[str] | None) -> RawTable:
    """Return the rows of a file with one JSON object per line. Nested values are named as in ``config.lr``."""
    names: dict[str, None] = {}
    rows, parts, n_rows = [], [], 0
    with open_table(path) as stream, io.TextIOWrapper(stream, encoding="utf-8") as file:
        for number, line in enumerate(iter(lambda: file.readline(_LONGEST + 1), ""), 1):
            if not line.strip():
                continue
            cells = dict(_flatten(_json_line(line, f"line {number} of {path}")))
            names |= dict.fromkeys(cells)
            rows.append({name: cell for name, cell in cells.items() if selected is None or name in selected})
            if len(rows) == _LINES_AT_ONCE:
                n_rows += len(rows)
                parts.append(pd.DataFrame(rows))
                rows = []
                check_shape(n_rows, len(parts[-1].columns), path)
    frame = pd.DataFrame(rows)
    return RawTable(frame=pd.concat([*parts, frame], ignore_index=True) if parts else frame, names=tuple(names))


def _json_line(line: str, place: str) -> Mapping[str, Any]:
    if len(line) > _LONGEST:
        raise InputError(f"{place} is longer than {_LONGEST} characters, too long for a row of a history. Delete it.")
    try:
        row = json.loads(line, parse_int=float)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place} is not JSON ({error}). Write one object per line, or delete the line.") from error
    if not isinstance(row, dict):
        raise InputError(f"{place} holds {line.strip()[:40]!r}, which is no object. Write one object per line.")
    return row


def _flatten(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        elif not isinstance(value, list):  # histograms and the like
            yield f"{prefix}{name}", _NO_NUMBERS.get(value, value) if isinstance(value, str) else value


def _add_file_column(table: RawTable, name: str) -> RawTable:
    if FILE in table.names:
        return table
    return replace(table, frame=table.frame.assign(**{FILE: name}), names=(*table.names, FILE))


def _select_checkpoints(table: RawTable, columns: ColumnMap, place: str) -> RawTable:
    """Return the table without the rows of a history that have no loss: training logs far more often.

    Raises:
        InputError: it is the export of a chart, which has neither N nor D.
    """
    ends = [name for name in table.names if name.endswith(("__MIN", "__MAX"))]
    if ends and len(ends) >= len(table.names) // 2:
        raise InputError(
            f"{place} is the export of a W&B chart (it has {ends[0]!r}), with one curve per column. Export the run "
            "table or the history of each run (docs/guide/howto/own-runs.md)."
        )
    losses = [column.loss for column in columns.skills.values() if column.loss in table.frame.columns]
    if not _is_history(table) or not losses:
        return table
    has_loss = table.frame[losses].notna().any(axis=1).to_numpy()
    if has_loss.all():
        return table
    note = f"{(~has_loss).sum()} of {len(has_loss)} rows of the history have no loss of a skill, and are no checkpoints"
    return replace(table, frame=table.frame[has_loss].reset_index(drop=True), notes=(*table.notes, note))


def _is_history(table: RawTable) -> bool:
    """Return whether the table is a history. A run table also has the last step of each run, but with its state."""
    return STEP in table.names and STATE not in table.names


def _joined_path(path: Path, join: Join) -> Path:
    """Return the path of the joined file, in the folder that is read or the folder of the table."""
    return (path if path.is_dir() else path.parent) / join.file


def _join_rows(table: RawTable, join: Join, joined: Path, place: str) -> RawTable:
    """Return the rows with the columns of the matching row of the other file.

    Raises:
        InputError: a column is missing, the other file has a row twice, or no row matches.
    """
    more = _read_rows(joined, None)
    for name, names, where in (
        *((name, table.names, place) for name in join.by),
        *((name, more.names, joined.name) for name in join.by.values()),
    ):
        if name not in names:
            raise InputError(f"join uses {name!r}, which {where} lacks. It has {join_first(names)}.")
    keys, other_keys = _row_keys(table.frame[list(join.by)]), _row_keys(more.frame[list(join.by.values())])
    place_of: dict[tuple[str, ...], int] = {}
    for at, key in enumerate(other_keys):
        if key in place_of:
            raise InputError(f"{joined.name} has {' '.join(key)} twice. Keep one row of each.")
        place_of[key] = at
    places = np.array([place_of.get(key, -1) for key in keys], dtype=int)
    has_match = places >= 0
    if not has_match.any():
        raise InputError(
            f"no row of {place} has a match in {joined.name}: by {', '.join(join.by)} the table has "
            f"{_list_keys(keys)}, the other file {_list_keys(other_keys)}"
        )
    lost = dict.fromkeys(key for key, has_place in zip(keys, has_match, strict=True) if not has_place)
    extra = [name for name in more.frame.columns if name not in table.frame.columns]
    added = more.frame[extra].iloc[places[has_match]].reset_index(drop=True)
    unused = len(other_keys) - len(set(places[has_match].tolist()))
    return replace(
        _keep_rows(table, has_match, [(" ".join(key), f"{joined.name} has no row for it") for key in lost]),
        frame=pd.concat([table.frame[has_match].reset_index(drop=True), added], axis=1),
        names=tuple(dict.fromkeys([*table.names, *more.names])),
        notes=(
            *table.notes,
            *([f"{unused} of {len(other_keys)} rows of {joined.name} match no run"] if unused else []),
        ),
    )


def _select_finished(table: RawTable, place: str) -> RawTable:
    """Return the table without unfinished W&B runs, with rows of a run table named after the runs.

    Raises:
        InputError: no run has finished.
    """
    if STATE not in table.frame.columns:
        return table
    states = table.frame[STATE].astype(str).str.lower().to_numpy()
    if not set(states) <= _STATES:
        return table
    labels = _run_labels(table)
    kept = states == "finished"
    if not kept.any():
        raise InputError(
            f"no run of {place} is finished (State is {', '.join(sorted(set(states)))}). Only finished runs are read, "
            "unless where names the states that count, as in where: {State: [finished, crashed]}."
        )
    runs = table.frame[table.run].astype(str) if table.run else pd.Series(labels)
    unfinished = dict.fromkeys((run, f"it is {state}, not finished") for run, state in zip(runs, states, strict=True)
                         if state != "finished")  # fmt: skip
    taken = _keep_rows(replace(table, labels=None if table.run else labels), kept, list(unfinished))
    return replace(taken, frame=table.frame[kept].reset_index(drop=True))


def _run_labels(table: RawTable) -> tuple[str, ...]:
    """Return the names of the runs in W&B, one per row, with the row number where several share a name."""
    if NAME not in table.frame.columns:
        return tuple(f"row {at}" for at in range(1, len(table.frame) + 1))
    names = table.frame[NAME].astype(str)
    twice = names.duplicated(keep=False)
    rows = enumerate(zip(names, twice, strict=True), 1)
    return tuple(f"row {at} {name}" if again else name for at, (name, again) in rows)


def _keep_rows(table: RawTable, kept: npt.NDArray[np.bool_], excluded_rows: Sequence[tuple[str, str]]) -> RawTable:
    """Return the table with the labels of the kept rows, and the others as excluded."""
    labels = table.labels and tuple(label for label, keep in zip(table.labels, kept, strict=True) if keep)
    excluded = tuple(ExcludedRun(run_id=run, skill="", reason=why) for run, why in excluded_rows)
    return replace(table, labels=labels, excluded=table.excluded + excluded)


def _row_keys(frame: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return the cells of each row as text."""
    return [tuple(_cell_text(cell) for cell in row) for row in frame.itertuples(index=False)]


def _cell_text(cell: Any) -> str:
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()


def _list_keys(keys: Sequence[tuple[str, ...]]) -> str:
    return join_first([" ".join(key) for key in dict.fromkeys(keys)])


def _name_without_suffix(name: str) -> str:
    """Return a name without suffixes, as ``a/b`` for a/b.csv.gz."""
    path = Path(name)
    while path.suffix.lower() in (*_COMPRESSED, *_SEPARATORS, *_PARQUET, *_LINES):
        path = path.with_suffix("")
    return path.as_posix()


def _file_kind(path: Path) -> str:
    plain = path.with_suffix("") if path.suffix.lower() in _COMPRESSED else path
    return plain.suffix.lower()


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)
