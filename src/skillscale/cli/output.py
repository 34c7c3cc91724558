"""Where a command speaks: progress to standard error, its one answer to standard output."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

from skillscale.errors import safe_text, without_password
from skillscale.formatting import to_json


class SafeStream:
    """A text stream that hides secrets: for what libraries, warnings and tracebacks write.

    Args:
        stream: Stream to write to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text without secrets."""
        self._stream.write(without_password(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@dataclass(frozen=True, kw_only=True)
class Output:
    """The two streams of a command, without secrets and hidden characters.

    With ``as_json``, standard output gets one JSON object and nothing else.
    """

    as_json: bool = False
    words: tuple[str, ...] = ()
    answer: TextIO = field(default_factory=lambda: sys.stdout)
    log: TextIO = field(default_factory=lambda: sys.stderr)
    failures: list[str] = field(default_factory=list)

    def fail(self, reason: str) -> None:
        """Let the command end with exit code 1, although it has an answer: none of its runs was finished.

        Args:
            reason: What went wrong, for ``error`` in the answer.
        """
        self.failures.append(reason)

    def progress(self, text: str) -> None:
        """Write a line on the progress of the work."""
        self.log.write(f"{safe_text(text)}\n")
        self.log.flush()

    def text(self, text: str) -> None:
        """Write a part of the answer for a person. With ``--json``, ``result`` writes it instead."""
        if not self.as_json:
            self.answer.write(f"{safe_text(text)}\n")
            self.answer.flush()

    def replace_lines(self, count: int, text: str) -> None:
        """Write a part of the answer over the last lines of a terminal."""
        self.answer.write(f"\x1b[{count}F\x1b[J")
        self.text(text)

    def result(self, value: Mapping[str, Any]) -> None:
        """Write the answer as JSON, with ``--json`` only."""
        if self.as_json:
            self.answer.write(to_json(value) + "\n")
            self.answer.flush()
