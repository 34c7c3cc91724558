"""Where a command speaks: progress to standard error, its one answer to standard output."""

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePath
from typing import Any, TextIO

from skillscale.config import plain
from skillscale.errors import without_password


@dataclass(frozen=True, kw_only=True)
class Output:
    """The two streams of a command, without the passwords of addresses.

    With ``as_json``, standard output gets one JSON object and nothing else.
    """

    as_json: bool = False
    answer: TextIO = field(default_factory=lambda: sys.stdout)
    log: TextIO = field(default_factory=lambda: sys.stderr)

    def progress(self, text: str) -> None:
        """Tell how far the work is."""
        self.log.write(f"{without_password(text)}\n")
        self.log.flush()

    def text(self, text: str) -> None:
        """Part of the answer for a person; not written with ``--json``, where ``result`` says the same."""
        if not self.as_json:
            self.answer.write(f"{without_password(text)}\n")
            self.answer.flush()

    def result(self, value: Mapping[str, Any]) -> None:
        """The answer as values; written with ``--json`` only."""
        if self.as_json:
            self.answer.write(to_json(value) + "\n")
            self.answer.flush()


def to_json(value: Mapping[str, Any]) -> str:
    """One JSON object. JSON has no NaN or infinity: a number that is not finite becomes null.

    Raises:
        TypeError: a value has no place in JSON.
    """
    return json.dumps(_jsonable(plain(value)), allow_nan=False)


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return _jsonable(value.tolist())
    if isinstance(value, str):
        return without_password(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
