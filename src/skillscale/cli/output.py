"""Where a command speaks: progress to standard error, its one answer to standard output."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

from skillscale.errors import without_password
from skillscale.formatting import to_json


@dataclass(frozen=True, kw_only=True)
class Output:
    """The two streams of a command, without the passwords of addresses.

    With ``as_json``, standard output gets one JSON object and nothing else.
    """

    as_json: bool = False
    words: tuple[str, ...] = ()
    answer: TextIO = field(default_factory=lambda: sys.stdout)
    log: TextIO = field(default_factory=lambda: sys.stderr)

    def progress(self, text: str) -> None:
        """Write a line on the progress of the work."""
        self.log.write(f"{without_password(text)}\n")
        self.log.flush()

    def text(self, text: str) -> None:
        """Write a part of the answer for a person. With ``--json``, ``result`` writes it instead."""
        if not self.as_json:
            self.answer.write(f"{without_password(text)}\n")
            self.answer.flush()

    def result(self, value: Mapping[str, Any]) -> None:
        """Write the answer as JSON, with ``--json`` only."""
        if self.as_json:
            self.answer.write(to_json(value) + "\n")
            self.answer.flush()
