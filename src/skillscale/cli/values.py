"""Readers of parameters: from the text on the command line to a value, or an error that tells what it should be."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skillscale import errors
from skillscale.config import readers
from skillscale.formatting import did_you_mean
from skillscale.point import Mix


def finite(text: str) -> float:
    """A finite number."""
    number = _number(text)
    if not math.isfinite(number):
        raise errors.InputError(f"must hold finite numbers, but one is {text!r}")
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def flag(text: str) -> bool:
    """``true`` or ``false``."""
    if text not in ("true", "false"):
        raise errors.InputError(f"must be true or false, but it is {text!r}")
    return text == "true"


def count(text: str) -> int:
    """A whole number from 1; ``2e5`` is one."""
    return _whole(text, 1)


def seed(text: str) -> int:
    """A whole number from 0."""
    return _whole(text, 0)


def window(text: str) -> int:
    """A whole number from 8."""
    return _whole(text, 8)


def positive(text: str) -> float:
    """A finite number above 0."""
    number = _number(text)
    if not (math.isfinite(number) and number > 0):
        raise errors.InputError(f"must be a number above 0, as in 200000 or 2e5, but it is {text!r}")
    return number


def amount(text: str) -> float:
    """A finite number from 0."""
    number = _number(text)
    if not (math.isfinite(number) and number >= 0):
        raise errors.InputError(f"must be a number from 0, as in 0.01, but it is {text!r}")
    return number


def share(text: str) -> float:
    """A share above 0 and up to 1."""
    number = _number(text)
    if not 0 < number <= 1:
        raise errors.InputError(f"must be a share above 0 and up to 1, as in 0.4 for 40 %, but it is {text!r}")
    return number


def optional(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Read as ``read``, with None for the empty text."""
    return lambda text: read(text) if text else None


def several(read: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...] | None]:
    """Read values between commas, with None for the empty text."""
    return lambda text: tuple(read(part.strip()) for part in text.split(",")) if text.strip() else None


def mixes(text: str) -> tuple[Mix, ...] | None:
    """Mixes between semicolons, as in ``code=.5,prose=.5; code=1``, with None for the empty text."""
    return tuple(Mix.parse(part) for part in text.split(";") if part.strip()) or None


def mixes_or_name(text: str) -> tuple[Mix, ...] | str | None:
    """Mixes as ``mixes`` reads them; without any share the name of one, as a table of runs may have it."""
    return text.strip() if text.strip() and "=" not in text else mixes(text)


def named(read: Callable[[str], Any]) -> Callable[[str], dict[str, Any]]:
    """Read ``alpha=.34,E=1.7`` as values by name; the empty text has none."""

    def read_pairs(text: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for part in filter(None, (one.strip() for one in text.split(","))):
            name, sign, value = part.partition("=")
            if not sign or not name.strip() or name.strip() in found:
                raise errors.InputError(f"must read NAME=VALUE,... with each name once, but it is {text!r}")
            found[name.strip()] = read(value.strip())
        return found

    return read_pairs


def bounds(text: str) -> dict[str, tuple[float, float]]:
    """Ranges of shares between commas, as in ``code=.1:.5,prose=0:.3``; the empty text has none."""
    return named(_range)(text)


def _range(text: str) -> tuple[float, float]:
    least, sign, most = text.partition(":")
    low, high = _number(least), _number(most)
    if not sign or not 0 <= low <= high <= 1:
        raise errors.InputError(f"must hold ranges of shares from 0 to 1, as in code=.1:.5, but one is {text!r}")
    return low, high


@dataclass(frozen=True)
class OneOf:
    """Reads one of some words."""

    choices: tuple[str, ...]

    def __call__(self, text: str) -> str:
        """The word.

        Raises:
            InputError: it is none of them.
        """
        if text not in self.choices:
            words = ", ".join(self.choices)
            raise errors.InputError(f"must be one of {words}, but it is {text!r}{did_you_mean(text, self.choices)}")
        return text


def one_of(*choices: str) -> OneOf:
    """One of some words."""
    return OneOf(choices)


def page_file(text: str) -> str:
    """A file in a folder that is there; empty for the default name."""
    path = Path(text)
    if text and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise errors.InputError(f"must name a file in a folder that exists, but it is {text!r}")
    return text


def figure_file(text: str) -> str:
    """An SVG or PNG file in a folder that is there; empty for none."""
    if text and Path(text).suffix.lower() not in (".svg", ".png"):
        raise errors.InputError(f"must end in .svg or .png, but it is {text!r}")
    return page_file(text)


def launch_options(text: str) -> dict[str, Any]:
    """Options of a launcher between commas, as in ``num_gpus=1,address=auto``; numbers are read as such."""
    return {name: readers.scalar(value) for name, value in named(str)(text).items()}


def cache_folder(text: str) -> Path:
    """The folder of what can be made again; empty is SKILLSCALE_CACHE, or .cache/skillscale in the home."""
    return Path(text or os.environ.get("SKILLSCALE_CACHE") or Path.home() / ".cache" / "skillscale").expanduser()


def _whole(text: str, least: int) -> int:
    number = _number(text)
    if not (math.isfinite(number) and number >= least and number == int(number)):
        raise errors.InputError(f"must be a whole number from {least}, as in 200000 or 2e5, but it is {text!r}")
    return int(number)
