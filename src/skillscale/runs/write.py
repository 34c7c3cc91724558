"""Runs as a file that others can read, and the mapping of its columns with which it is read back to the last digit."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

from skillscale.errors import InputError
from skillscale.point import RESERVED_COLUMNS
from skillscale.runs.column_map import parse_columns
from skillscale.runs.run_table import RunTable, read_table

FILES = (".csv", ".parquet")
_WHOLE = 2.0**53  # up to here every whole float is an integer that reads back equal


def write_table(
    table: RunTable, path: Path, mapping: Path, *, sizes: Mapping[str, npt.ArrayLike] | None = None,
    purposes: Sequence[str] = (), more: Mapping[str, npt.ArrayLike] | None = None,
) -> None:  # fmt: skip
    """Write a CSV or Parquet file and the YAML mapping of its columns; nothing is left where it would not come back.

    Args:
        table: with a run at least.
        path: ``.csv`` or ``.parquet``.
        mapping: of its columns.
        sizes: N by other conventions, by their names, a number a row.
        purposes: what a sampler chose each row for; empty where it did not.
        more: columns that are told beside those of the mapping.

    Raises:
        InputError: what is read back is not what was written, as where CSV would take a name for a number.
    """
    frame, plain = _laid_out(table, sizes or {}, purposes, more or {})
    partial = path.with_name(f".partial-{path.name}")
    try:
        if path.suffix.lower() == ".csv":
            frame.to_csv(partial, index=False)
        else:
            frame.to_parquet(partial, index=False)
        _check(table, partial, plain, path.name)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    head = [
        f"Which column of {path.name} is what. Losses are in nats per token where no note says otherwise;",
        "flops is 6 params tokens, and not read.",
        *(f"note: {' '.join(note.split())}" for note in table.notes),
    ]
    mapping.write_text(
        "".join(f"# {line}\n" for line in head) + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True),
        encoding="utf-8",
    )


def _laid_out(
    table: RunTable, sizes: Mapping[str, npt.ArrayLike], purposes: Sequence[str], more: Mapping[str, npt.ArrayLike]
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The columns of the file, and the mapping of those that are read."""
    runs, names = table.runs, _losses(table)
    by_convention = {table.convention: runs["N"], **sizes}
    n_params = {name: f"params_{name}" if at else "params" for at, name in enumerate(by_convention)}
    sems = [name for name in names if f"sem/{name}" in runs.columns]
    columns: dict[str, Any] = {
        "run": runs["cluster"],
        **{column: _whole(by_convention[name]) for name, column in n_params.items()},
        "tokens": _whole(runs["D"]),
        "flops": 6 * runs["N"] * runs["D"],
        **({"budget": runs["C"]} if runs["C"].notna().any() else {}),
        **({f"mix_{name}": runs[f"mix/{name}"] for name in table.categories} or {"mix": runs["mix"]}),
        "seed": runs["seed"],
        **({"purpose": list(purposes)} if any(purposes) else {}),
        **{f"loss_{name}": runs[name] for name in names},
        **{f"sem_{name}": _known(runs[f"sem/{name}"]) for name in sems},
        **more,
    }
    frame = pd.DataFrame({name: np.asarray(values) for name, values in columns.items()})
    skills = {name: {"loss": f"loss_{name}", "sem": f"sem_{name}"} if name in sems else f"loss_{name}"
              for name in names}  # fmt: skip
    plain = {
        "n_params": n_params if len(n_params) > 1 or table.convention else "params",
        "n_tokens": "tokens",
        "budget": "budget" if "budget" in columns else "",
        "run": "run",
        "mix": {name: f"mix_{name}" for name in table.categories} or "mix",
        "seed": "seed",
        "purpose": "purpose" if "purpose" in columns else "",
        "skills": skills,
        **_structure(table, names),
    }
    return frame, {key: value for key, value in plain.items() if value}


def _losses(table: RunTable) -> list[str]:
    """The columns of losses but for the aggregates, which follow from them; without those that no run has."""
    own = (*RESERVED_COLUMNS, *table.aggregates)
    every = [str(name) for name in table.runs.columns if name not in own]
    losses = [name for name in every if not name.startswith(("sem/", "mix/"))]
    return [name for name in dict.fromkeys([*table.skills, *losses]) if table.runs[name].notna().any()]


def _structure(table: RunTable, names: Sequence[str]) -> dict[str, Any]:
    """What the losses have to do with one another, as the mapping tells it."""

    def there(*some: str) -> list[str]:
        return [name for name in some if name in names]

    splits = {
        one.skill: {
            **({"held_out": one.held_out} if one.held_out in names else {}),
            **({"hypothesis_sets": sets} if (sets := there(*one.hypothesis_sets)) else {}),
            **({"held_out_sets": sets} if (sets := there(*one.held_out_sets)) else {}),
        }
        for one in table.splits
        if one.skill in names
    }
    parts = {name for one in table.splits if one.skill in names for name in one.others}
    return {
        "splits": {skill: told for skill, told in splits.items() if told},
        "sets": [name for name in names if name not in table.judged_skills and name not in parts],
        "categories": {skill: name for skill, name in table.categories_of.items() if skill in names},
        "validation": {
            name: dict(weights) for name, weights in table.weights.items() if len(there(*weights)) == len(weights)
        },
    }


def _check(table: RunTable, path: Path, plain: Mapping[str, Any], name: str) -> None:
    """Read the file that was just written, and compare."""
    back = read_table(path, parse_columns(plain), convention=table.convention).runs
    cure = "; write a .parquet file" if path.suffix.lower() == ".csv" else ""
    if len(back) != len(table.runs):
        raise InputError(f"{name} would read back as {len(back)} of {len(table.runs)} runs{cure}")
    for column in (one for one in back.columns if one != "run_id"):
        was = _known(table.runs[column]) if column.startswith("sem/") else table.runs[column]
        same = (back[column].to_numpy() == was.to_numpy()) | (back[column].isna() & was.isna()).to_numpy()
        if not same.all():
            at = int(np.argmin(same))
            raise InputError(
                f"{name} would not read back as it is: {column} of {table.runs['run_id'].iloc[at]} is "
                f"{was.tolist()[at]!r}, and would be {back[column].tolist()[at]!r}{cure}"
            )


def _known(sem: "pd.Series[Any]") -> "pd.Series[Any]":
    """Standard errors that are positive numbers: the others are read as unknown."""
    return sem.where((sem > 0) & np.isfinite(sem))


def _whole(values: npt.ArrayLike) -> npt.NDArray[Any]:
    """As integers where all are: 5700 is easier to read than 5700.0."""
    numbers = np.asarray(values, dtype=float)
    return numbers.astype(np.int64) if bool(np.all((numbers == np.floor(numbers)) & (numbers < _WHOLE))) else numbers
