"""Templates over the columns of a data set: ``Question: {question}``, ``{answer[value]}``, ``{choices[answer]}``.

Field names are looked up, never evaluated: no attributes, no calls, no format specs.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from string import Formatter
from typing import Any

from skillscale.errors import InputError

_FIELD = re.compile(r"(\w+)((?:\[\w+\])*)")
_KEY = re.compile(r"\[(\w+)\]")


class Template:
    """A text with fields.

    ``{a}`` is a column, ``{a[key]}`` a key of a mapping, ``{a[0]}`` an item of a list, and ``{a[b]}`` on a list the
    item whose index stands in column ``b``. A column of JSON text is read when indexed.

    Raises:
        InputError: a field that can't be looked up.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._parts = [_parsed(part, text) for part in _split(text)]
        self.columns = tuple(sorted({field[0] for _, field in self._parts if field}))

    def fill(self, row: Mapping[str, Any]) -> str:
        """The text with the row's values.

        Raises:
            InputError: the row has no such column, key or item.
        """
        return "".join(
            literal + (str(_value(field, row, self.text)) if field else "") for literal, field in self._parts
        )


_Part = tuple[str, tuple[str, ...]]


def _split(text: str) -> list[tuple[str, str | None, str | None, str | None]]:
    try:
        return list(Formatter().parse(text))
    except ValueError as error:
        raise InputError(f"template {text!r} can't be read: {error}; write {{{{ and }}}} for braces") from error


def _parsed(part: tuple[str, str | None, str | None, str | None], text: str) -> _Part:
    literal, name, spec, conversion = part
    if name is None:
        return literal, ()
    match = _FIELD.fullmatch(name)
    if match is None or spec or conversion:
        raise InputError(
            f"template {text!r} holds a field that can't be looked up: {name!r}; a field reads {{column}}, "
            "{column[key]} or {column[0]}"
        )
    return literal, (match[1], *_KEY.findall(match[2]))


def _value(field: tuple[str, ...], row: Mapping[str, Any], text: str) -> Any:
    column, *keys = field
    if column not in row:
        raise InputError(f"template {text!r} names no column: {column!r}; there are {', '.join(row)}")
    value = row[column]
    for key in keys:
        value = _item(value, key, row=row, text=text)
    if value is None:
        return ""
    return value


def _item(value: Any, key: str, *, row: Mapping[str, Any], text: str) -> Any:
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        with suppress(json.JSONDecodeError):  # what is no JSON is refused below, with the value
            value = json.loads(value)
    if isinstance(value, Mapping):
        if key not in value:
            raise InputError(f"template {text!r} names no key: {key!r}; there are {', '.join(map(str, value))}")
        return value[key]
    if isinstance(value, list | tuple):
        index = key if key.isdigit() else row.get(key)
        if not str(index).isdigit() or int(str(index)) >= len(value):
            raise InputError(
                f"template {text!r} wants item {key!r} (= {index!r}) of a list of {len(value)}; give a number below "
                f"that, or a column that holds one; columns are {', '.join(row)}"
            )
        return value[int(str(index))]
    raise InputError(f"template {text!r} wants {key!r} of {value!r}, which is no list or mapping; drop [{key}]")
