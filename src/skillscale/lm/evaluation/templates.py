"""Templates over the columns of a data set: ``Question: {question}``, ``{answer[value]}``, ``{choices[answer]}``.

Fields are looked up, never evaluated: no attributes, no calls, no format specs.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from string import Formatter
from typing import Any

from skillscale.errors import InputError
from skillscale.lm.data.documents import Row

_FIELD = re.compile(r"(\w+)((?:\[\w+\])*)")
_KEY = re.compile(r"\[(\w+)\]")


class Template:
    """A text with fields.

    ``{a}`` is a column, ``{a[key]}`` a key of a mapping, and ``{a[0]}`` an item of a list. ``{a[b]}`` on a list is the
    item whose index is in column ``b``. A column of JSON text is parsed when it is indexed.

    Raises:
        InputError: a field is invalid.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._parts = [_parse_field(part, text) for part in _split(text)]
        self.columns = tuple(sorted({field[0] for _, field in self._parts if field}))

    def fill(self, row: Row) -> str:
        """Return the text with the row's values.

        Raises:
            InputError: the row has no such column, key or item.
        """
        return "".join(
            literal + (str(_look_up(field, row, self.text)) if field else "") for literal, field in self._parts
        )


_Part = tuple[str, tuple[str, ...]]


def _split(text: str) -> list[tuple[str, str | None, str | None, str | None]]:
    try:
        return list(Formatter().parse(text))
    except ValueError as error:
        raise InputError(f"template {text!r} can't be read: {error}. Write {{{{ and }}}} for braces.") from error


def _parse_field(part: tuple[str, str | None, str | None, str | None], text: str) -> _Part:
    literal, name, spec, conversion = part
    if name is None:
        return literal, ()
    match = _FIELD.fullmatch(name)
    if match is None or spec or conversion:
        raise InputError(
            f"invalid field in template {text!r}: {name!r}. Write a field as {{column}}, {{column[key]}} or "
            "{column[0]}."
        )
    return literal, (match[1], *_KEY.findall(match[2]))


def _look_up(field: tuple[str, ...], row: Row, text: str) -> Any:
    column, *keys = field
    if column not in row:
        raise InputError(f"unknown column in template {text!r}: {column!r}. Choose from {', '.join(row)}.")
    value = row[column]
    for key in keys:
        value = _index(value, key, row=row, text=text)
    if value is None:
        return ""
    return value


def _index(value: Any, key: str, *, row: Row, text: str) -> Any:
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        with suppress(json.JSONDecodeError):  # text that is no JSON is refused below, with the value
            value = json.loads(value)
    if isinstance(value, Mapping):
        if key not in value:
            raise InputError(f"unknown key in template {text!r}: {key!r}. Choose from {', '.join(map(str, value))}.")
        return value[key]
    if isinstance(value, list | tuple):
        index = key if key.isdigit() else row.get(key)
        if not str(index).isdigit() or int(str(index)) >= len(value):
            raise InputError(
                f"template {text!r} has index {key!r} (= {index!r}) for a list of length {len(value)}. Give a smaller "
                f"number, or a column that contains one (columns: {', '.join(row)})."
            )
        return value[int(str(index))]
    raise InputError(f"template {text!r} has index {key!r} for {value!r}, which is no list or mapping. Remove [{key}].")
