"""Rows of a foreign table while they become runs: the selected cells, and the log of what was excluded or is odd.

``select_rows`` makes both. ``SourceRows`` never changes. The steps of ``skillscale.tables.run_table`` write the log.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from skillscale.errors import InputError, name_fault, show
from skillscale.formatting import join_first, plural
from skillscale.laws.results import ExcludedRun
from skillscale.tables.cell_numbers import cell_numbers
from skillscale.tables.column_map import ColumnMap, as_number
from skillscale.tables.states import is_state_name, unfinished_rows

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.object_]

EVERY_ROW = "every row"  # in place of a run id, where a skill is excluded from all runs
_SUFFIXED_KEYS = ("n_params", "n_tokens", "flops", "budget")  # people write these as in 250M


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceRows:
    """The rows of a table that ``where`` selects. Arrays have one entry per row.

    Args:
        cells: cells of the rows, by the column names of the table.
        columns: meaning of the columns.
        place: name of the table in messages.
        run_id: unique name of each row.
        cluster: name of the run of each row; checkpoints of one run share it.
    """

    cells: pd.DataFrame
    columns: ColumnMap
    place: str
    run_id: Sequence[str]
    cluster: Labels

    def __len__(self) -> int:
        return len(self.cells)


@dataclass(kw_only=True, eq=False)
class RowLog:
    """What the steps of parsing exclude and note. The only mutable value of the parser.

    Args:
        run_id: unique name of each row.
        place: name of the table in messages.
        usable: rows that no step has excluded so far, (n_rows,).
        notes: sentences on what is odd in the table.
        no_numbers: texts of cells that are no numbers by their form, by column and row.
    """

    run_id: Sequence[str]
    place: str
    usable: Mask
    notes: list[str] = field(default_factory=list)
    no_numbers: dict[str, Mapping[int, str]] = field(default_factory=dict)
    _excluded: list[tuple[int, ExcludedRun]] = field(default_factory=list)

    def exclude_rows(self, bad: Mask, reasons: Sequence[str] | Labels) -> None:
        """Exclude the bad rows. The reasons are those of the bad rows in order."""
        self.exclude_losses(bad, reasons, skill="")
        self.usable &= ~bad

    def exclude_losses(self, bad: Mask, reasons: Sequence[str] | Labels, *, skill: str) -> None:
        """Exclude a skill from the bad rows. The reasons are those of the bad rows in order."""
        for at, reason in zip(np.flatnonzero(bad).tolist(), reasons, strict=True):
            if self.usable[at]:
                self._add(at, self.run_id[at], skill, reason)

    def exclude_repeats(self, rows: Sequence[int], reason: str = "listed twice") -> None:
        """Exclude rows that repeat an earlier one."""
        for at in rows:
            self._add(at, self.run_id[at], "", reason)

    def reasons(self, bad: Mask, values: Floats, column: str, describe: Callable[[float], str]) -> list[str]:
        """Return why the bad cells of a column are excluded: the text of a cell, or what ``describe`` says."""
        texts = self.no_numbers.get(column, {})
        return [
            f"{column} is {show(texts[at])}, not a number" if at in texts else describe(values[at])
            for at in np.flatnonzero(bad).tolist()
        ]

    def exclude_skill(self, skill: str, reason: str) -> None:
        """Exclude a skill from all rows, with one reason."""
        self.notes.append(f"{skill} is excluded: {reason}")
        self._add(int(np.flatnonzero(self.usable)[0]), EVERY_ROW, skill, reason)

    def require_usable(self, what: str) -> None:
        """Refuse the table if no row is usable any more.

        Raises:
            InputError: no row has what is named.
        """
        if not self.usable.any():
            first = self._excluded[0][1]
            raise InputError(
                f"no row of {self.place} has {what}. The first: {first.run_id}: {first.reason}. Correct the table or "
                "its column map."
            )

    def excluded(self) -> tuple[ExcludedRun, ...]:
        """Return the excluded rows and losses in the order of the table, without losses of excluded rows."""
        rows = {at for at, run in self._excluded if not run.skill}
        ordered = sorted(self._excluded, key=lambda entry: entry[0])
        return tuple(run for at, run in ordered if not run.skill or at not in rows)

    def _add(self, at: int, run_id: str, skill: str, reason: str) -> None:
        self._excluded.append((at, ExcludedRun(run_id=run_id, skill=skill, reason=reason)))


def select_rows(frame: pd.DataFrame, columns: ColumnMap, labels: Labels, place: str) -> tuple[SourceRows, RowLog]:
    """Return the rows that ``where`` selects, named by run, and their log.

    Raises:
        InputError: the table has no rows, or ``where`` selects none.
    """
    selected = _where(frame, columns, place)
    cells, names = frame[selected], labels[selected]
    unfinished, reasons = unfinished_rows(cells, columns, place)
    has_run, cluster = _clusters(cells, columns, names)
    run_id = [str(label) if label == run else f"{label} ({run})" for label, run in zip(names, cluster, strict=True)]
    log = RowLog(run_id=run_id, place=place, usable=np.ones(len(cells), dtype=bool))
    log.exclude_rows(unfinished, reasons[unfinished])
    if not selected.all():
        log.notes.append(f"where keeps {selected.sum()} of {plural(len(frame), 'row')}")
    if not has_run.all():
        log.notes.append(f"{plural((~has_run).sum(), 'row')} without a run; each counts as a separate run")
    parts = [cluster] if len(columns.run) == 1 else [cell_texts(cells[column]) for column in columns.run]
    for part in parts:
        exclude_names(log, np.where(has_run, part, ""), "the name of its run")
    return SourceRows(cells=cells, columns=columns, place=place, run_id=run_id, cluster=cluster), log


def exclude_names(log: RowLog, names: Labels, what: str) -> None:
    """Exclude the rows whose name is too long or has hidden characters."""
    codes, values = pd.factorize(names)
    faults = np.array([name_fault(str(value)) for value in values], dtype=object)
    reasons = faults[codes]
    bad = np.array(reasons != "", dtype=bool)
    if bad.any():
        log.exclude_rows(bad, [f"{what} {reason}" for reason in reasons[bad]])
        log.require_usable("a usable name")


def _where(frame: pd.DataFrame, columns: ColumnMap, place: str) -> Mask:
    if frame.empty:
        raise InputError(f"{place} has no rows. Give a table with one row per run or checkpoint.")
    selected = np.ones(len(frame), dtype=bool)
    for column, values in columns.where.items():
        selected &= _matches(frame[column], values, any_case=is_state_name(column))
        if not selected.any():
            raise InputError(
                f"where selects no row of {place} at {column} = {' or '.join(map(str, values))}. That column has "
                f"{join_first([cell_text(value) for value in frame[column].dropna().unique()])}."
            )
    return selected


def _clusters(cells: pd.DataFrame, columns: ColumnMap, labels: Labels) -> tuple[Mask, Labels]:
    """Return which rows name their run, and the run of each row: its label where it names none."""
    cluster = labels.astype(object)
    if not columns.run:
        return np.ones(len(cells), dtype=bool), cluster
    has_run = ~cells[list(columns.run)].isna().any(axis=1).to_numpy()
    parts = [cell_texts(cells[column])[has_run] for column in columns.run]
    cluster[has_run] = ["/".join(names) for names in zip(*parts, strict=True)]
    return has_run, cluster


def read_numbers(rows: SourceRows, log: RowLog, column: str, key: str, skill: str = "") -> Floats:
    """Return a column as numbers in the unit of this package, NaN where missing.

    Sizes, tokens and FLOP may be written as in 250M if the column map has no unit for them.

    Raises:
        InputError: a cell holds text.
    """
    given = rows.cells[column]
    suffixes = key in _SUFFIXED_KEYS and key not in rows.columns.units
    is_loss = key == "skills" and skill not in rows.columns.perplexity
    try:
        read = cell_numbers(given, suffixes=suffixes, small=is_loss or key == "mix")
    except InputError as error:
        raise InputError(f"column {column} of {rows.place}: {error}. If you can't edit cells, name another.") from error
    if read.texts:
        at, text = next(iter(read.texts.items()))
        more = f" (and {plural(len(read.texts) - 1, 'row')} more)" if len(read.texts) > 1 else ""
        raise InputError(
            f"{rows.run_id[at]}{more} of {rows.place} has {show(text)} in column {column}, where a number should "
            "be. Write 70e6 for 70M, and leave unknown cells empty. If you can't edit cells, name another column."
        )
    note = f"column {column} has numbers with K, M, B or T: they are read as 1e3, 1e6, 1e9 and 1e12"
    if read.with_suffix and note not in log.notes:
        log.notes.append(note)
    log.no_numbers[column] = read.no_numbers
    return np.asarray(read.numbers * rows.columns.unit(key, skill), dtype=float)


def _matches(given: "pd.Series[Any]", values: tuple[str | float, ...], *, any_case: bool) -> Mask:
    """Return the rows whose cell is one of the values: as numbers in a column of numbers, otherwise as text."""
    numbers = [number for number in map(as_number, values) if number is not None]
    if pd.api.types.is_numeric_dtype(given.dtype) and not pd.api.types.is_bool_dtype(given.dtype):
        return np.isin(given.to_numpy(dtype=float, na_value=np.nan), numbers)
    texts, selected = cell_texts(given).astype(str), [cell_text(value) for value in values]
    if any_case:
        texts, selected = np.char.lower(texts), [text.lower() for text in selected]
    return np.isin(texts, selected)


def cell_texts(given: "pd.Series[Any]") -> Labels:
    """Return cells as text, whole numbers without a fraction, so that 7 and 7.0 name one run."""
    codes, values = pd.factorize(given, use_na_sentinel=False)
    # As objects: values of Arrow are slow one by one
    return np.array([cell_text(value) for value in np.asarray(values, dtype=object)], dtype=object)[codes]


def cell_text(value: Any) -> str:
    """Return a cell as text, a whole number without a fraction."""
    if isinstance(value, str):
        return value.strip()
    number = float(value) if isinstance(value, float | np.floating) else math.nan
    if number.is_integer() and abs(number) < 2**63:
        return str(int(number))
    return str(value).strip()
