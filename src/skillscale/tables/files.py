"""Files of runs as rows of cells: a table, a folder of run histories, or result files of the lm-evaluation-harness.

From W&B: the run table that its UI exports, the table of configs and summaries that its API gives, a summary per run,
and histories with one file per run, as ``run.history().to_csv`` writes them or as JSON lines of ``scan_history``. Only
the columns of the column map are kept.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from skillscale.config import read_yaml
from skillscale.errors import InputError, show
from skillscale.formatting import join_first, unescape_formula
from skillscale.laws.results import ExcludedRun
from skillscale.tables.bounded_files import Progress, read_parquet_table
from skillscale.tables.column_hints import is_hint, is_run_name
from skillscale.tables.column_map import ColumnMap, Join
from skillscale.tables.csv_files import csv_dialect, read_csv
from skillscale.tables.histories import fill_sizes
from skillscale.tables.json_files import flatten, json_lines, json_table, python_dict
from skillscale.tables.lm_eval import MODEL, has_results, read_results
from skillscale.tables.states import is_state_name, state_columns, unfinished_rows

FILE, STEP, STATE, NAME = "file", "_step", "State", "Name"  # ours; then names of W&B
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_PARQUET = (".parquet", ".pq")
_LINES = (".jsonl", ".ndjson")
_RESULTS = ".json"
_COMPRESSED = (".gz", ".bz2", ".xz", ".zip", ".zst")
_SUMMARY = "wandb-summary.json"  # of one run, in a folder of its name
_DICTS = ("summary", "config")  # columns of Python dicts in the table that W&B's API gives, next to ``name``
_SAMPLE = 1000  # rows of a table that decide which columns hold states
_SAMPLED_FILES = 50  # histories whose columns are guessed
_PEEKED = 5  # JSON files that show whether a folder holds result files


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
    return _select_finished(table, columns, path.name)


def read_sample(path: Path) -> pd.DataFrame:
    """Return the first rows of a table with all columns, or of the histories of a folder, to guess the columns by.

    Raises:
        InputError: there is no such file, it can't be read, or it holds result files of the harness.
    """
    cure = "Result files have no parameters or tokens. Name these in a file, and give it by --columns."
    if not path.is_dir():
        if path.suffix.lower() == _RESULTS and path.is_file() and has_results(path):
            raise InputError(f"{path.name}: {cure}")
        frame = _read_rows(path, None, n_rows=_SAMPLE * 10).frame
        return frame.drop(columns=[name for name in map(str, frame.columns) if _is_second_name(name, frame)])
    members = _folder_files(path, skip=None)[:_SAMPLED_FILES]
    if any(file.suffix.lower() == _RESULTS and has_results(file) for file, _ in members[:_PEEKED]):
        raise InputError(f"{path.name}: {cure}")
    frames = []
    for file, _ in members:
        with contextlib.suppress(InputError):  # read again, and named, with the column map
            frames.append(_with_config(_read_rows(file, None), file).frame)
    counts = Counter(str(name) for frame in frames for name in frame.columns)
    common = [name for name, count in counts.items() if count > len(frames) / 2]
    return pd.concat(frames, ignore_index=True)[common] if frames else pd.DataFrame()


def _is_second_name(name: str, frame: pd.DataFrame) -> bool:
    kind, _, short = name.partition(".")
    return kind in _DICTS and short in frame


def files_of(path: Path, columns: ColumnMap) -> list[Path]:
    """Return the files that are read, in order."""
    joined = _joined_path(path, columns.join) if columns.join else None
    paths = [file for file, _ in _folder_files(path, skip=joined)] if path.is_dir() else [path]
    return [*paths, *([joined] if joined else [])]


def _read_file(path: Path, names: Set[str], columns: ColumnMap, progress: Progress | None) -> RawTable:
    if path.suffix.lower() == _RESULTS and (not path.is_file() or has_results(path)):
        return _read_results([(path, path.name)], columns, path.name)
    table = _read_rows(path, names, progress)
    if _is_history(table):  # of one run, unless the column map or a column names runs
        run = next((name for name in table.names if is_run_name(name) or name == NAME), FILE)
        table = replace(_add_file_column(table, _name_without_suffix(path.name)), run=run)
    return _select_checkpoints(table, columns, path.name)


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
    if members[0][0].suffix.lower() == _RESULTS and any(has_results(file) for file, _ in members[:_PEEKED]):
        return _read_results(members, columns, path.name)
    tables, excluded = [], []
    for file, name in members:
        try:
            tables.append(_add_file_column(_with_config(_read_rows(file, names_kept), file), _run_name(name)))
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
    """Return the files of a folder with their relative names.

    Result files of the harness come first, then a summary per run, then tables, then other JSON files.
    """
    files = [
        (file, file.relative_to(path).as_posix()) for file in sorted(path.rglob("*")) if file.is_file() and file != skip
    ]
    jsons = [pair for pair in files if pair[0].suffix.lower() == _RESULTS]
    result_files = [pair for pair in jsons if pair[0].name.startswith("results")]
    if result_files or any(has_results(file) for file, _ in jsons[:_PEEKED]):
        return result_files or jsons
    summaries = [pair for pair in jsons if pair[0].name == _SUMMARY]
    return summaries or [pair for pair in files if _file_kind(pair[0]) in (*_SEPARATORS, *_PARQUET, *_LINES)] or jsons


def _with_config(table: RawTable, path: Path) -> RawTable:
    """Return the summary of a run with the settings in the ``config.yaml`` that W&B writes next to it."""
    config = path.with_name("config.yaml")
    if path.name != _SUMMARY or not config.is_file():
        return table
    settings = {
        str(name): setting["value"] if isinstance(setting, dict) and "value" in setting else setting
        for name, setting in read_yaml(config).items()
    }
    new = {name: value for name, value in flatten(settings) if name not in table.names}
    return replace(table, frame=table.frame.assign(**new), names=(*table.names, *new))


def _run_name(name: str) -> str:
    """Return the name of the run of a file: the folder of a W&B summary, otherwise the file without suffixes."""
    path = Path(name)
    if path.name != _SUMMARY:
        return _name_without_suffix(name)
    folder = path.parent.parent if path.parent.name == "files" else path.parent
    return folder.as_posix() if folder.name else path.stem


def _read_rows(
    path: Path, names: Set[str] | None, progress: Progress | None = None, *, n_rows: int | None = None
) -> RawTable:
    """Return the rows of a table with the named columns, or all; of a CSV file the first, where ``n_rows`` is given.

    Raises:
        InputError: the file is no table or can't be read.
    """
    kind = _file_kind(path)
    if kind not in (*_SEPARATORS, *_PARQUET, *_LINES, _RESULTS):
        raise InputError(
            f"{path} must be a .csv, .tsv, .parquet or .jsonl file, a JSON table or result file (.json), or a folder. "
            "Give the table as one of these."
        )
    if not path.is_file():
        raise InputError(f"there is no file {path}. Give the path of a table, one row a run or checkpoint.")

    def is_kept(name: str) -> bool:
        return names is None or name in names or is_hint(name)

    try:
        if kind in _PARQUET:
            frame, all_names = read_parquet_table(path, lambda name: is_kept(name) or name in (*_DICTS, "name"))
            return _expand_dicts(RawTable(frame=frame, names=all_names), is_kept)
        if kind in _LINES:
            frame, all_names = json_lines(path, is_kept)
            return RawTable(frame=frame, names=all_names)
        if kind == _RESULTS:
            frame, all_names = json_table(path, names or frozenset(), is_kept)
            return RawTable(frame=frame, names=all_names)
        dialect = csv_dialect(path, _SEPARATORS[kind], names or frozenset())
        has_dicts = set(_DICTS) <= set(dialect.names)
        kept = [name for name in dialect.names if is_kept(name) or (has_dicts and name in (*_DICTS, "name"))]
        others = [name for name in dict.fromkeys(dialect.names) if name not in kept]
        kept += state_columns(read_csv(path, dialect, others, n_rows=_SAMPLE)) if others else []
        frame = _without_escapes(read_csv(path, dialect, kept, progress, n_rows=n_rows))
        return _expand_dicts(RawTable(frame=frame, names=dialect.names), is_kept)
    except InputError:
        raise
    except (OSError, ValueError, UnicodeDecodeError) as error:  # ParserError and EmptyDataError are ValueErrors
        raise InputError(f"{path} can't be read as a table: {show(error)}") from error


def _without_escapes(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the cells without the quote that ``export`` puts before texts which spreadsheets would compute."""
    for at, (_, column) in enumerate(frame.items()):
        if pd.api.types.is_numeric_dtype(column.dtype):
            continue
        values = np.asarray(column.dropna().unique(), dtype=object)  # those of Arrow are slow one by one
        texts = [cell for cell in values if isinstance(cell, str) and cell.startswith("'")]
        if texts:
            frame.isetitem(at, column.replace({text: unescape_formula(text) for text in texts}).array)
    return frame


def _expand_dicts(table: RawTable, is_kept: Callable[[str], bool]) -> RawTable:
    """Return a table of W&B's API with a column for each value of its configs and summaries, and the names of runs.

    A name that both have is that of the summary; ``config.NAME`` and ``summary.NAME`` always work.
    """
    if not set(_DICTS) <= set(table.frame.columns):
        return table
    cells = [[_dict_cell(cell) for cell in table.frame[name]] for name in _DICTS]
    if any(cell is None for column in cells for cell in column):
        return table
    rows = []
    for summary, config in zip(*cells, strict=True):
        values = {"summary": dict(flatten(summary or {})), "config": dict(flatten(config or {}))}
        full = {f"{kind}.{name}": cell for kind, named in values.items() for name, cell in named.items()}
        rows.append(full | values["config"] | values["summary"])
    new = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in table.names]
    more = pd.DataFrame(
        [{name: row.get(name) for name in new if is_kept(name)} for row in rows], index=table.frame.index
    )
    frame = pd.concat([table.frame, more], axis=1)
    if NAME not in table.names and "name" in frame:
        frame, new = frame.assign(**{NAME: frame["name"]}), [NAME, *new]
    labels = _run_labels(replace(table, frame=frame))
    return replace(table, frame=frame, names=(*table.names, *new), labels=labels)


def _dict_cell(cell: Any) -> dict[str, Any] | None:
    if isinstance(cell, dict):
        return cell
    return python_dict(cell) if isinstance(cell, str) else {} if pd.isna(cell) else None


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
    if losses and (table.run or columns.run):
        table = _fill_sizes(table, columns, losses, place)
    if not _is_history(table) or not losses:
        return table
    has_loss = table.frame[losses].notna().any(axis=1).to_numpy()
    if has_loss.all():
        return table
    note = f"{(~has_loss).sum()} of {len(has_loss)} rows of the history have no loss of a skill, and are no checkpoints"
    return replace(table, frame=table.frame[has_loss].reset_index(drop=True), notes=(*table.notes, note))


def _fill_sizes(table: RawTable, columns: ColumnMap, losses: Sequence[str], place: str) -> RawTable:
    """Return a history with the sizes that another call logged in the same run.

    Raises:
        InputError: they may belong to the row before or after.
    """
    sizes = [*columns.n_params.values(), columns.n_tokens, columns.flops, columns.budget]
    there = [name for name in dict.fromkeys(sizes) if name in table.frame.columns]
    runs = [name for name in columns.run or (table.run,) if name in table.frame.columns]
    filled = fill_sizes(table.frame, there, losses, runs)
    if filled.ambiguous:
        raise InputError(
            f"{filled.ambiguous} and the losses of {place} are on different rows of a run, which begins with a loss "
            f"and ends without one. Log both in one call, or write {filled.ambiguous} into the rows of the losses."
        )
    if not filled.note:
        return table
    return replace(table, frame=filled.frame.reset_index(drop=True), notes=(*table.notes, filled.note))


def _is_history(table: RawTable) -> bool:
    """Return whether the table is a history. A run table also has the last step of each run, but with its state."""
    return STEP in table.names and not any(map(is_state_name, table.names)) and table.labels is None


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


def _select_finished(table: RawTable, columns: ColumnMap, place: str) -> RawTable:
    """Return the table without unfinished runs, with rows of a run table of W&B named after the runs.

    Raises:
        InputError: no run has finished, or a state is not known.
    """
    bad, reasons = unfinished_rows(table.frame, columns, place)
    is_wandb = STATE in table.frame.columns and STATE not in columns.where and STATE in state_columns(table.frame)
    if not bad.any() and not is_wandb:
        return table
    labels = table.labels or _run_labels(table)
    runs = table.frame[table.run].astype(str) if table.run else pd.Series(labels)
    unfinished = dict.fromkeys((run, why) for run, why, is_bad in zip(runs, reasons, bad, strict=True) if is_bad)
    taken = _keep_rows(replace(table, labels=None if table.run else labels), ~bad, list(unfinished))
    return replace(taken, frame=table.frame[~bad].reset_index(drop=True))


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
    while path.suffix.lower() in (*_COMPRESSED, *_SEPARATORS, *_PARQUET, *_LINES, _RESULTS):
        path = path.with_suffix("")
    return path.as_posix()


def _file_kind(path: Path) -> str:
    plain = path.with_suffix("") if path.suffix.lower() in _COMPRESSED else path
    return plain.suffix.lower()
