"""Write values of the package to bytes, and read them back without running code from them.

In: frozen dataclasses of any depth, enums, arrays, tables and plain values. Out: one .npz, with the arrays and a JSON
text of everything else. Arrays are read without pickle, and a class must be a dataclass or an enum of this package.
"""

import dataclasses
import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping
from enum import Enum
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

_MODULE = re.compile(r"skillscale\.(laws(\.\w+)+|analysis\.fit_laws)")  # classes that a file may name
_TEXT = "text"
_TAG = "!"


class ValueFileError(ValueError):
    """A value cannot be written, or bytes are no value."""


class _Encoder:
    """Encode values as JSON, and collect their arrays. An object that is met again is written once."""

    def __init__(self) -> None:
        self.arrays: list[npt.NDArray[Any]] = []
        self._seen: dict[int, int] = {}
        self._kept: list[object] = []  # An id is only unique while its object lives

    def encode(self, value: Any) -> Any:
        if value is None or isinstance(value, bool) or type(value) in (int, float, str):
            return value
        if isinstance(value, np.ndarray) and value.dtype.kind != "O":
            return {_TAG: "array", "at": self._place(value)}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._once(value, self._fields)
        if isinstance(value, Enum):
            return {_TAG: "enum", "class": _name_of(type(value)), "value": value.value}
        if isinstance(value, np.generic):
            return {_TAG: "scalar", "at": self._place(np.asarray(value))}
        if isinstance(value, Mapping):
            return {_TAG: "dict", "items": [[self.encode(key), self.encode(item)] for key, item in value.items()]}
        if isinstance(value, pd.DataFrame):
            return self._once(value, self._frame)
        return self._sequence(value)

    def _sequence(self, value: Any) -> Any:
        if type(value) is list:
            return [self.encode(item) for item in value]
        if type(value) is tuple:
            return {_TAG: "tuple", "items": [self.encode(item) for item in value]}
        if type(value) is frozenset:
            return {_TAG: "frozenset", "items": [self.encode(item) for item in sorted(value)]}
        if isinstance(value, np.ndarray) and value.ndim == 1:
            return {_TAG: "objects", "items": [self.encode(item) for item in value]}
        raise ValueFileError(f"a value of {type(value).__name__} cannot be written")

    def _fields(self, value: Any) -> Any:
        fields = {field.name: self.encode(getattr(value, field.name)) for field in _written_fields(type(value))}
        return {_TAG: "value", "class": _name_of(type(value)), "fields": fields}

    def _frame(self, frame: pd.DataFrame) -> Any:
        columns = [
            [self.encode(name), str(column.dtype), self.encode(column.to_numpy())] for name, column in frame.items()
        ]
        return {_TAG: "table", "columns": columns, "index": self.encode(frame.index.to_numpy())}

    def _once(self, value: Any, encode: Callable[[Any], Any]) -> Any:
        if id(value) in self._seen:
            return {_TAG: "again", "at": self._seen[id(value)]}
        encoded = encode(value)
        self._kept.append(value)
        self._seen[id(value)] = len(self._seen)  # After its parts, which is the order of reading
        return encoded

    def _place(self, array: npt.NDArray[Any]) -> int:
        if array.dtype.kind not in "biufUSMm":
            raise ValueFileError(f"an array of {array.dtype} cannot be written")
        self.arrays.append(array)
        return len(self.arrays) - 1


class _Decoder:
    """Decode what ``_Encoder`` made."""

    def __init__(self, arrays: list[npt.NDArray[Any]]) -> None:
        self._arrays = arrays
        self._seen: list[Any] = []

    def decode(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        return getattr(self, f"_{_KINDS[value[_TAG]]}")(value)

    def _again(self, value: Any) -> Any:
        return self._seen[value["at"]]

    def _array(self, value: Any) -> Any:
        return self._arrays[value["at"]]

    def _scalar(self, value: Any) -> Any:
        return self._arrays[value["at"]][()]

    def _enum(self, value: Any) -> Any:
        return _class_of(value["class"], lambda kind: issubclass(kind, Enum))(value["value"])

    def _dict(self, value: Any) -> Any:
        return {self.decode(key): self.decode(item) for key, item in value["items"]}

    def _tuple(self, value: Any) -> Any:
        return tuple(self.decode(item) for item in value["items"])

    def _frozenset(self, value: Any) -> Any:
        return frozenset(self._tuple(value))

    def _objects(self, value: Any) -> Any:
        items = [self.decode(item) for item in value["items"]]
        array = np.empty(len(items), dtype=object)
        array[:] = items
        return array

    def _fields(self, value: Any) -> Any:
        kind = _class_of(value["class"], dataclasses.is_dataclass)
        made = kind(**{name: self.decode(item) for name, item in value["fields"].items()})
        self._seen.append(made)
        return made

    def _table(self, value: Any) -> Any:
        named = [(self.decode(name), dtype, self.decode(cells)) for name, dtype, cells in value["columns"]]
        index = pd.Index(self.decode(value["index"]))
        columns = [pd.Series(cells, index=index, dtype=dtype) for _, dtype, cells in named]
        frame = pd.DataFrame(dict(enumerate(columns)), index=index)
        frame.columns = pd.Index([name for name, _, _ in named])
        self._seen.append(frame)
        return frame


_KINDS = {
    "again": "again", "array": "array", "scalar": "scalar", "enum": "enum", "dict": "dict", "tuple": "tuple",
    "frozenset": "frozenset", "objects": "objects", "value": "fields", "table": "table",
}  # fmt: skip


def _written_fields(kind: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(kind) if field.init]


def _name_of(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _class_of(name: str, allowed: Callable[[Any], bool]) -> Any:
    module, _, attribute = name.partition(":")
    if not _MODULE.fullmatch(module):
        raise ValueFileError(f"{name} is no class of a law")
    kind = getattr(import_module(module), attribute)
    if not (isinstance(kind, type) and kind.__module__ == module and allowed(kind)):
        raise ValueFileError(f"{name} is no class of a law")
    return kind


def _encoded(value: Any) -> tuple[str, list[npt.NDArray[Any]]]:
    encoder = _Encoder()
    return json.dumps(encoder.encode(value)), encoder.arrays


def to_bytes(value: Any) -> bytes:
    """Return a value as bytes.

    Raises:
        ValueFileError: A part of it is of a kind that cannot be written.
    """
    text, arrays = _encoded(value)
    file = io.BytesIO()
    named: dict[str, Any] = {f"a{at}": array for at, array in enumerate(arrays)}
    named[_TEXT] = np.frombuffer(text.encode(), dtype=np.uint8)
    np.savez(file, **named)
    return file.getvalue()


def from_bytes(content: bytes) -> Any:
    """Return the value that ``to_bytes`` wrote.

    Raises:
        ValueFileError: The bytes are damaged, or name a class that is none of a law.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = [file[f"a{at}"] for at in range(len(file.files) - 1)]
            text = file[_TEXT].tobytes()
        return _Decoder(arrays).decode(json.loads(text))
    except Exception as error:  # A damaged file fails in as many ways as it can be damaged
        raise ValueFileError(f"the bytes hold no value: {error}") from error


def digest(value: Any) -> str:
    """Return the SHA-256 of a value, equal for equal values.

    Raises:
        ValueFileError: A part of it is of a kind that cannot be written.
    """
    text, arrays = _encoded(value)
    total = hashlib.sha256(text.encode())
    for array in arrays:
        total.update(f"{array.dtype.str}{array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()
