"""JSON files as rows: one object per line, tables as pandas writes them, and one object per run.

Nested values are named as in ``config.lr``.
"""

import ast
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import pandas as pd

from skillscale.errors import InputError
from skillscale.formatting import format_count
from skillscale.tables.bounded_files import check_shape, open_table
from skillscale.tables.states import is_state_word

_LINES_AT_ONCE = 500_000  # of JSON, before they become a part of the table
_LONGEST = 2**24  # characters of a JSON line; a row of a history has a few hundred
_LARGEST = 2**28  # bytes of a JSON table
_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # escapes of characters in two halves, of which one may be missing
_LONGEST_TEXT = 2**16  # characters of a Python dict in a cell
_DEEPEST = 40  # brackets within brackets in such a text
_NO_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}  # as W&B writes them in JSON
_NAMES = {"nan": math.nan, "inf": math.inf, "NaN": math.nan, "Infinity": math.inf}  # in texts of Python values


def json_lines(path: Path, is_kept: Callable[[str], bool]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the rows of a file with one JSON object per line, with the kept columns, and the names of all.

    Columns of states are kept too.

    Raises:
        InputError: a line is no JSON object.
    """
    names: dict[str, None] = {}
    others: set[str] = set()
    rows, parts, n_rows = [], [], 0
    with open_table(path) as stream, io.TextIOWrapper(stream, encoding="utf-8-sig") as file:
        for number, line in enumerate(iter(lambda: file.readline(_LONGEST + 1), ""), 1):
            if not line.strip():
                continue
            cells = dict(flatten(_json_line(line, f"line {number} of {path}")))
            names |= dict.fromkeys(cells)
            others.update(name for name, cell in cells.items() if not is_kept(name) and not _may_be_state(cell))
            rows.append({name: cell for name, cell in cells.items() if name not in others})
            if len(rows) == _LINES_AT_ONCE:
                n_rows += len(rows)
                parts.append(pd.DataFrame(rows))
                rows = []
                check_shape(n_rows, len(parts[-1].columns), path)
    frame = pd.DataFrame(rows)
    frame = pd.concat([*parts, frame], ignore_index=True) if parts else frame
    return frame.drop(columns=[name for name in frame.columns if name in others]), tuple(names)


def _may_be_state(cell: object) -> bool:
    """Return whether a column of states may have a cell: it holds a word for one, or nothing."""
    return cell is None or cell == "" or is_state_word(cell)


def json_table(
    path: Path, selected: Set[str], is_kept: Callable[[str], bool]
) -> tuple[pd.DataFrame, tuple[str, ...]]:  # fmt: skip
    """Return the rows of a JSON file, with the kept columns, and the names of all columns.

    Args:
        path: file with records, columns, ``columns`` and ``data``, one object of a run, or one object per line.
        selected: names of columns by which records differ from columns.
        is_kept: whether a column is kept.

    Raises:
        InputError: the file is no JSON, or no table.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}. Give the path of a table, one row a run or checkpoint.")
    size = path.stat().st_size
    if size > _LARGEST:
        raise InputError(f"{path} has {format_count(size)} bytes, too many for a JSON table. Write CSV or Parquet.")
    try:
        content = loads(path.read_text(encoding="utf-8-sig"), parse_int=float)
    except (ValueError, RecursionError) as error:
        if "Extra data" in str(error):
            return json_lines(path, is_kept)
        raise InputError(f"{path} is not JSON ({error}). Is it complete?") from error
    records = _records(content, selected)
    if not records:
        raise InputError(
            f"{path} is JSON, but no table. Write records, as in "
            '[{"params": 1e8, "tokens": 2e9, "loss": 3.1}], or one object per line.'
        )
    rows = [dict(flatten(record)) for record in records]
    names = dict.fromkeys(name for row in rows for name in row)
    others = {name for row in rows for name, cell in row.items() if not is_kept(name) and not _may_be_state(cell)}
    frame = pd.DataFrame([{name: cell for name, cell in row.items() if name not in others} for row in rows])
    return frame, tuple(names)


def loads(text: str, parse_int: Callable[[str], Any] = int) -> Any:
    """Return the value of a JSON text, with a question mark in place of half a character, which no file can hold.

    Raises:
        ValueError: it is no JSON.
        RecursionError: it is nested too deeply.
    """
    value = json.loads(text, parse_int=parse_int)
    if not _HALF.search(text):
        return value
    return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"), parse_int=parse_int)


def flatten(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of an object with nested names, without lists such as histograms."""
    for name, value in row.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        elif not isinstance(value, list):
            yield f"{prefix}{name}", _NO_NUMBERS.get(value, value) if isinstance(value, str) else value


def python_dict(text: str) -> dict[str, Any] | None:
    """Return the dict that a text holds as JSON or Python values, or None. No code of the text runs.

    ``np.float64(3.5)`` is 3.5. Texts that are long or deeply nested are refused.
    """
    depth, deepest = 0, 0
    for letter in text[: _LONGEST_TEXT + 1]:
        depth += (letter in "([{") - (letter in ")]}")
        deepest = max(deepest, depth)
    if len(text) > _LONGEST_TEXT or deepest > _DEEPEST or any(sign * _DEEPEST in text for sign in "-+~"):
        return None
    try:
        value = loads(text)
    except ValueError:
        try:
            value = _literal(ast.parse(text.strip(), mode="eval").body)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
    return {str(name): cell for name, cell in value.items()} if isinstance(value, dict) else None


def _literal(node: ast.expr) -> Any:
    """Return the value of a literal. A call such as ``np.float64(3.5)`` is its argument, and other nodes are None."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {str(_literal(key)): _literal(value) for key, value in pairs if key is not None}
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return [_literal(item) for item in node.elts]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _literal(node.operand)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return (-value if isinstance(node.op, ast.USub) else value) if is_number else None
    if isinstance(node, ast.Name):
        return _NAMES.get(node.id)
    if isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords:
        value = _literal(node.args[0])
        return value if isinstance(value, bool | int | float | str) else None
    return None


def _json_line(line: str, place: str) -> Mapping[str, Any]:
    if len(line) > _LONGEST:
        raise InputError(f"{place} is longer than {_LONGEST} characters, too long for a row of a history. Delete it.")
    try:
        row = loads(line, parse_int=float)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place} is not JSON ({error}). Write one object per line, or delete the line.") from error
    if not isinstance(row, dict):
        raise InputError(f"{place} holds {line.strip()[:40]!r}, which is no object. Write one object per line.")
    return row


def _records(content: Any, selected: Set[str]) -> list[dict[str, Any]]:
    """Return the rows of a JSON value, none where it is no table."""
    if isinstance(content, list):
        return content if content and all(isinstance(row, dict) for row in content) else []
    if not isinstance(content, dict) or not content:
        return []
    names, data = content.get("columns"), content.get("data")
    if isinstance(names, list) and isinstance(data, list):  # "split" of pandas
        rows = [row for row in data if isinstance(row, list) and len(row) == len(names)]
        return [dict(zip(map(str, names), row, strict=True)) for row in rows] if len(rows) == len(data) else []
    tables = [value for value in content.values() if _is_records(value)]
    if len(tables) == 1:  # "table" of pandas, or {"runs": [...]}
        return list(tables[0])
    values = list(content.values())
    if all(isinstance(value, list) for value in values) and len({len(value) for value in values}) == 1:
        return [dict(zip(content, row, strict=True)) for row in zip(*values, strict=True)]
    if all(isinstance(value, dict) for value in values):
        return _nested_records(content, selected)
    return [content]


def _nested_records(content: Mapping[str, Mapping[str, Any]], selected: Set[str]) -> list[dict[str, Any]]:
    """Return the rows of columns by row number, of rows by name, or of one nested object."""
    if selected & set(content):
        numbers = dict.fromkeys(number for column in content.values() for number in column)
        return [{name: column.get(number) for name, column in content.items()} for number in numbers]
    inner = [set(dict(flatten(row))) for row in content.values()]
    if selected and all(selected & names for names in inner):
        return [dict(row) for row in content.values()]
    return [dict(content)]


def _is_records(value: Any) -> bool:
    return isinstance(value, Sequence) and bool(value) and all(isinstance(row, dict) for row in value)
