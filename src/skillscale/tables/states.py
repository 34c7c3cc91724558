"""Columns that say whether a run has finished, from W&B, MLflow, Optuna, SLURM and others.

A column is one by its values, all of them words for states, or by its name. A flag such as ``crashed`` is one by its
name and its values. Words that are not known are asked about, never guessed.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from skillscale.errors import InputError, show
from skillscale.formatting import join_first, plural
from skillscale.tables.column_map import ColumnMap
from skillscale.tables.metric_names import name_parts

Mask = npt.NDArray[np.bool_]
Texts = npt.NDArray[np.object_]

_FINISHED = frozenset({"finished", "complete", "completed", "done", "success", "succeeded", "successful", "ok"})
_UNFINISHED = frozenset({
    "failed", "fail", "failure", "crashed", "crash", "killed", "running", "pending", "queued", "scheduled",
    "waiting", "paused", "preempting", "preempted", "pruned", "timeout", "timed_out", "timedout", "cancelled",
    "canceled", "cancelling", "out_of_memory", "oom", "oom_killed", "oomkilled", "node_fail", "boot_fail", "deadline",
    "suspended", "stopping", "aborted", "error", "errored", "interrupted", "incomplete", "unfinished",
    "diverged", "requeued", "requeue_hold", "resizing", "revoked", "configuring", "completing", "signaling",
    "stage_out", "special_exit",
    "launch_failed", "reconfig_fail", "power_up_node", "expired", "evicted", "terminated", "deleted",
    "initializing", "starting", "submitted", "in_progress", "not_started", "hung", "stuck",
})  # fmt: skip
_VAGUE = frozenset({"run", "started", "created", "active", "lost", "unknown", "stale", "nan", "skipped", "stopped"})
_FAILED = frozenset({
    "failed", "fail", "failure", "crashed", "crash", "killed", "oom", "out_of_memory", "timeout", "timed_out",
    "aborted", "diverged", "error", "cancelled", "canceled", "interrupted", "preempted", "node_fail",
})  # fmt: skip
_NAMES = frozenset({"state", "status"})
_COMMON_PARTS = frozenset({
    "run", "job", "trial", "train", "training", "slurm", "wandb", "mlflow", "optuna", "exit", "final", "attributes",
    "info", "attempt", "task", "experiment", "attr", "attrs", "summary", "config", "tags", "params", "data", "exec",
    "execution",
})  # fmt: skip
_TRUE_FLAGS = frozenset({
    "finished", "completed", "complete", "done", "succeeded", "success", "successful",
})  # fmt: skip
_FALSE_FLAGS = frozenset({
    "crashed", "diverged", "failed", "killed", "pruned", "preempted", "running", "oom", "aborted", "cancelled",
    "canceled", "unfinished", "incomplete", "interrupted", "stopped", "timedout", "exploded",
})  # fmt: skip
_LIFECYCLE = "lifecyclestage"  # in MLflow: active or deleted
_LETTERS = 40
_MOST_WORDS = 50  # a column with more values holds no states, unless its name says so
_MOST_CODES, _LARGEST_CODE = 8, 20  # of states as numbers
_EXIT_NAMES = frozenset({"exitcode", "exitstatus", "returncode", "slurmexitcode", "jobexitcode"})
_YES = frozenset({"true", "1", "yes", "y", "t", "1.0"})
_NO = frozenset({"false", "0", "no", "n", "f", "0.0"})
_PREFIXES = ("trialstate.", "runstatus.", "jobstate.", "state.", "status.")


def is_state_name(name: str) -> bool:
    """Return whether a column holds the states of runs by its name, or a flag such as ``crashed``."""
    return _is_word_name(name) or bool(_flag_kind(name)) or _is_exit_name(name)


def is_state_word(cell: object) -> bool:
    """Return whether a cell is a word for the state of a run."""
    return isinstance(cell, str) and _plain(cell) in _FINISHED | _UNFINISHED | _VAGUE


def state_columns(cells: pd.DataFrame) -> list[str]:
    """Return the columns of words that hold states.

    One state among the cells is enough for a column with such a name. Any other column holds nothing but states, none
    of them vague, and some run that finished. Or its cells are failures or empty.
    """
    columns = []
    for name in map(str, cells.columns):
        if not _may_hold_words(cells[name]):
            continue
        values = cells[name].dropna().unique()
        if len(values) > _MOST_WORDS and not _is_word_name(name):
            continue
        words = {_plain(value) for value in values}
        is_named = bool(words) and bool(set(name_parts(name)) & _NAMES)  # an empty column says nothing
        is_clear = words <= _FINISHED | _UNFINISHED and (bool(words & _FINISHED) or is_named)
        if is_clear or _is_failure_column(cells[name]) or (_is_word_name(name) and any(map(is_state_word, words))):
            columns.append(name)
    return columns


def _is_failure_column(cells: "pd.Series[Any]") -> bool:
    """Return whether the cells are words for failures, or empty for the other runs."""
    words = set(cells.astype(object).where(cells.notna(), "").map(_plain).unique())
    return "" in words and len(words) > 1 and words - {""} <= _FAILED


def unfinished_rows(cells: pd.DataFrame, columns: ColumnMap, place: str) -> tuple[Mask, Texts]:
    """Return which rows are of unfinished runs, and the reason of each row.

    Args:
        cells: cells of the table.
        columns: column map. If ``where`` selects by a column of states, it decides alone.
        place: name of the table in messages.

    Raises:
        InputError: a column of states has words that are not known, or no row has finished.
    """
    bad = np.zeros(len(cells), dtype=bool)
    reasons = np.full(len(cells), "", dtype=object)
    mapped = {column for key, column in columns.key_columns() if key != "where"}
    free = cells[[name for name in cells.columns if str(name) not in mapped]]
    names = state_columns(free)
    if any(name in names or is_state_name(name) for name in columns.where):
        return bad, reasons
    for name in names:
        _check_words(free[name], name, place)
        texts = free[name].astype(object).where(free[name].notna(), "").map(str)
        finished = _FINISHED | ({""} if _is_failure_column(free[name]) and not _is_word_name(name) else set())
        unfinished = ~np.isin(texts.map(_plain).to_numpy().astype(str), list(finished))
        _note(bad, reasons, unfinished, [_reason(name, text) for text in texts[unfinished]])
        _require_finished(bad, name, sorted(set(texts.str.lower())), place)
    for name in map(str, free.columns):
        _refuse_codes(free[name], name, place)
        flags = _exit_codes(free[name]) if _is_exit_name(name) else _flags(free[name], _flag_kind(name))
        if flags is not None:
            _note(bad, reasons, flags, [f"column {name} says that it did not finish"] * int(flags.sum()))
            _require_finished(bad, name, sorted(set(free[name].dropna().map(str))), place)
    return bad, reasons


def _note(bad: Mask, reasons: Texts, unfinished: Mask, texts: Sequence[str]) -> None:
    """Add rows to those of unfinished runs. The first reason of a row stays."""
    new = np.full(len(bad), "", dtype=object)
    new[unfinished] = texts
    first = unfinished & ~bad
    reasons[first] = new[first]
    bad |= unfinished


def _reason(name: str, text: str) -> str:
    return f"it is {' '.join(text.lower().split())[:_LETTERS]}, not finished" if text else f"it has no {name}"


def _require_finished(bad: Mask, name: str, words: Sequence[str], place: str) -> None:
    """Refuse a table without finished runs.

    Raises:
        InputError: names the states.
    """
    if bad.all():
        raise InputError(
            f"no run of {place} is finished ({name} is {', '.join(filter(None, words))}). Only finished runs are read, "
            f"unless where names the states that count, as in where: {{{name}: [finished, crashed]}}."
        )


def _is_word_name(name: str) -> bool:
    parts = set(name_parts(name))
    return bool(parts & _NAMES) and not parts - _NAMES - _COMMON_PARTS


def _flag_kind(name: str) -> str:
    """Return the state that a flag is about, or nothing."""
    parts = [part for part in name_parts(name) if part not in _COMMON_PARTS | {"is", "has", "was", "flag"}]
    word = "".join(parts)
    return word if word in {_LIFECYCLE, *_TRUE_FLAGS, *_FALSE_FLAGS} else ""


def _may_hold_words(cells: "pd.Series[Any]") -> bool:
    return not (pd.api.types.is_numeric_dtype(cells.dtype) or pd.api.types.is_datetime64_any_dtype(cells.dtype))


def _plain(text: object) -> str:
    """Return a state in lower case with underscores, without the prefix of an enumeration or who cancelled."""
    word = str(text).strip().lower()
    for prefix in _PREFIXES:
        word = word.removeprefix(prefix)
    word = re.sub(r"[\s\-]+", "_", re.sub(r"\s+by\s+\S+$", "", word))
    if word.endswith("+"):  # SLURM cuts long words
        stem = word[:-1]
        return next((state for state in sorted(_UNFINISHED | _FINISHED) if state.startswith(stem)), word)
    return word


def _check_words(cells: "pd.Series[Any]", name: str, place: str) -> None:
    """Refuse words that are not known.

    Raises:
        InputError: names them.
    """
    texts = cells.dropna().map(str)
    unknown = texts[~texts.map(is_state_word)]
    if len(unknown):
        words = [show(word) for word in unknown.unique()]
        finished = sorted({str(word) for word in texts.unique() if _plain(word) in _FINISHED})
        raise InputError(
            f"column {name} of {place} has {join_first(words)} in {plural(len(unknown), 'row')}. Is such a run "
            f"finished? Name the states that count, as in where: {{{name}: [{', '.join(finished) or 'finished'}]}}."
        )


def _refuse_codes(cells: "pd.Series[Any]", name: str, place: str) -> None:
    """Refuse states that are numbers, as MLflow's database has them.

    Raises:
        InputError: asks which of them are finished.
    """
    if not _is_word_name(name) or _is_exit_name(name):
        return
    texts = cells.dropna().map(lambda value: str(value).strip().removesuffix(".0"))
    codes = sorted(filter(None, texts.unique()))
    if 2 <= len(codes) <= _MOST_CODES and all(code.isdecimal() and int(code) <= _LARGEST_CODE for code in codes):
        raise InputError(
            f"column {name} of {place} has the states {join_first(codes)}. Which of them is a finished run? Name it, "
            f"as in where: {{{name}: 3}} for MLflow's database."
        )


def _is_exit_name(name: str) -> bool:
    return "".join(name_parts(name)) in _EXIT_NAMES


def _exit_codes(cells: "pd.Series[Any]") -> Mask | None:
    """Return the rows with an exit code other than 0, as in ``1`` or SLURM's ``0:9``, or None without such codes."""
    texts = cells.astype(object).where(cells.notna(), "").map(lambda value: str(value).strip())
    is_code = texts.str.fullmatch(r"-?\d+(\.0|:\d+)?")
    if not is_code.any() or not (is_code | (texts == "")).all():
        return None
    return np.asarray(is_code & ~texts.str.fullmatch(r"0(\.0|:0)?"), dtype=bool)


def _flags(cells: "pd.Series[Any]", kind: str) -> Mask | None:
    """Return the rows that a flag calls unfinished, or None if the column is no flag. A missing flag says nothing."""
    if not kind:
        return None
    texts = cells.astype(object).where(cells.notna(), "").map(lambda value: str(value).strip().lower()).to_numpy()
    if kind == _LIFECYCLE:
        return np.asarray(texts == "deleted") if set(texts) <= {"active", "deleted", ""} else None
    if not set(texts) <= _YES | _NO | {""} or not set(texts) & (_YES | _NO):
        return None
    return np.isin(texts.astype(str), list(_NO if kind in _TRUE_FLAGS else _YES))
