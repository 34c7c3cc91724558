"""Runs as a file for others, with the column map that reads it back to the last digit."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

from skillscale.errors import InputError
from skillscale.formatting import JsonObject, escape_formula
from skillscale.point import RESERVED_COLUMNS
from skillscale.tables.column_map import parse_columns
from skillscale.tables.copies import near_copies
from skillscale.tables.run_table import RunTable, read_table

FILES = (".csv", ".parquet")
_WHOLE = 2.0**53  # up to here a whole float equals its integer


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that a full disk leaves the old file, or none, rather than half of the new."""
    if path.exists() and not path.is_file():  # a device or a pipe
        path.write_text(text, encoding="utf-8")
        return
    partial = path.with_name(f".partial-{path.name}")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_table(
    table: RunTable, path: Path, mapping: Path, *, sizes: Mapping[str, npt.ArrayLike] | None = None,
    purposes: Sequence[str] = (), extra: Mapping[str, npt.ArrayLike] | None = None,
) -> None:  # fmt: skip
    """Write a CSV or Parquet file and its YAML column map. No file remains if it would not read back equal.

    Args:
        table: table with at least one run.
        path: ``.csv`` or ``.parquet`` file.
        mapping: YAML file of the column map.
        sizes: N of each row by other conventions, by name.
        purposes: purpose of each row that a sampler chose, otherwise empty.
        extra: further columns, which the column map does not name.

    Raises:
        InputError: the file would not read back equal, as when CSV takes a name for a number.
    """
    frame, columns = _file_content(table, sizes or {}, purposes, extra or {})
    partial = path.with_name(f".partial-{path.name}")
    try:
        if path.suffix.lower() == ".csv":
            partial.write_text(csv_text(frame), encoding="utf-8")
        else:
            frame.to_parquet(partial, index=False)
        _check_read_back(table, partial, columns, path.name)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    comments = [
        f"Which column of {path.name} is what. Losses are in nats per token unless a note says otherwise.",
        "flops is 6 params tokens, and is not read.",
        *(f"note: {' '.join(note.split())}" for note in table.notes),
    ]
    mapping.write_text(
        "".join(f"# {line}\n" for line in comments) + yaml.safe_dump(columns, sort_keys=False, allow_unicode=True),
        encoding="utf-8",
    )


def csv_text(frame: pd.DataFrame) -> str:
    """Return a table as CSV without its index, with a quote before texts that a spreadsheet would compute."""
    texts = {
        name: [escape_formula(cell) if isinstance(cell, str) else cell for cell in column]
        for name, column in frame.items()
        if not pd.api.types.is_numeric_dtype(column.dtype)
    }
    return str(frame.assign(**{str(name): cells for name, cells in texts.items()}).to_csv(index=False))


def _file_content(
    table: RunTable, sizes: Mapping[str, npt.ArrayLike], purposes: Sequence[str], more: Mapping[str, npt.ArrayLike]
) -> tuple[pd.DataFrame, JsonObject]:
    """Return the columns of the file, and the column map."""
    runs, names = table.runs, _loss_columns(table)
    by_convention = {table.convention: runs["N"], **sizes}
    n_params = {name: f"params_{name}" if number else "params" for number, name in enumerate(by_convention)}
    sems = [name for name in names if f"sem/{name}" in runs.columns]
    columns: JsonObject = {
        "run": runs["cluster"],
        **{column: _as_integers(by_convention[name]) for name, column in n_params.items()},
        "tokens": _as_integers(runs["D"]),
        "flops": 6 * runs["N"] * runs["D"],
        **({"budget": runs["C"]} if runs["C"].notna().any() else {}),
        **({f"mix_{name}": runs[f"mix/{name}"] for name in table.categories} or {"mix": runs["mix"]}),
        "seed": runs["seed"],
        **({"purpose": list(purposes)} if any(purposes) else {}),
        **{f"loss_{name}": runs[name] for name in names},
        **{f"sem_{name}": _positive_or_nan(runs[f"sem/{name}"]) for name in sems},
        **more,
    }
    frame = pd.DataFrame({name: np.asarray(values) for name, values in columns.items()})
    skills = {name: {"loss": f"loss_{name}", "sem": f"sem_{name}"} if name in sems else f"loss_{name}"
              for name in names}  # fmt: skip
    mapping = {
        "n_params": n_params if len(n_params) > 1 or table.convention else "params",
        "n_tokens": "tokens",
        "budget": "budget" if "budget" in columns else "",
        "run": "run",
        "checkpoints": "all" if runs["cluster"].duplicated().any() else "",
        "near_copies": "keep" if near_copies(runs, names, np.zeros(len(runs), dtype=np.intp)).any() else "",
        "mix": {name: f"mix_{name}" for name in table.categories} or "mix",
        "seed": "seed",
        "purpose": "purpose" if "purpose" in columns else "",
        "skills": skills,
        **_loss_structure(table, names),
    }
    return frame, {key: value for key, value in mapping.items() if value}


def _loss_columns(table: RunTable) -> list[str]:
    """Return the columns of losses that any run has, without aggregates, which follow from them."""
    other_columns = (*RESERVED_COLUMNS, *table.aggregates)
    columns = [str(name) for name in table.runs.columns if name not in other_columns]
    losses = [name for name in columns if not name.startswith(("sem/", "mix/"))]
    return [name for name in dict.fromkeys([*table.skills, *losses]) if table.runs[name].notna().any()]


def _loss_structure(table: RunTable, names: Sequence[str]) -> JsonObject:
    """Return the relations between the losses for the column map."""

    def present(*candidates: str) -> list[str]:
        return [name for name in candidates if name in names]

    splits = {
        split.skill: {
            **({"held_out": split.held_out} if split.held_out in names else {}),
            **({"hypothesis_sets": sets} if (sets := present(*split.hypothesis_sets)) else {}),
            **({"held_out_sets": sets} if (sets := present(*split.held_out_sets)) else {}),
        }
        for split in table.splits
        if split.skill in names
    }
    parts = {name for split in table.splits if split.skill in names for name in split.others}
    return {
        "splits": {skill: parts for skill, parts in splits.items() if parts},
        "sets": [name for name in names if name not in table.judged_skills and name not in parts],
        "categories": {skill: name for skill, name in table.categories_of.items() if skill in names},
        "validation": {
            name: dict(weights) for name, weights in table.weights.items() if len(present(*weights)) == len(weights)
        },
    }


def _check_read_back(table: RunTable, path: Path, mapping: Mapping[str, Any], name: str) -> None:
    """Read the new file and compare it."""
    read = read_table(path, parse_columns(mapping), convention=table.convention).runs
    cure = "; write a .parquet file" if path.suffix.lower() == ".csv" else ""
    if len(read) != len(table.runs):
        raise InputError(f"{name} would read back as {len(read)} of {len(table.runs)} runs{cure}")
    for column in (name for name in read.columns if name != "run_id"):
        written = _positive_or_nan(table.runs[column]) if column.startswith("sem/") else table.runs[column]
        same = (read[column].to_numpy() == written.to_numpy()) | (read[column].isna() & written.isna()).to_numpy()
        if not same.all():
            at = int(np.argmin(same))
            raise InputError(
                f"{name} would not read back as it is: {column} of {table.runs['run_id'].iloc[at]} is "
                f"{written.tolist()[at]!r}, and would be {read[column].tolist()[at]!r}{cure}"
            )


def _positive_or_nan(sem: "pd.Series[Any]") -> "pd.Series[Any]":
    """Return standard errors, NaN where they are not positive numbers: these are read as unknown."""
    return sem.where((sem > 0) & np.isfinite(sem))


def _as_integers(values: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return integers if all numbers are whole: 5700 is easier to read than 5700.0."""
    numbers = np.asarray(values, dtype=float)
    return numbers.astype(np.int64) if bool(np.all((numbers == np.floor(numbers)) & (numbers < _WHOLE))) else numbers
