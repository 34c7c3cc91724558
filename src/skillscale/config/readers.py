"""Read the text of an option into a value, or raise an error that says what the text should be."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skillscale import errors
from skillscale.config.safe_yaml import load_yaml
from skillscale.formatting import did_you_mean
from skillscale.point import Mix

_LARGEST = 10**18
_LONGEST_LIST = 10_000  # values between commas


def finite(text: str) -> float:
    """Read a finite number."""
    number = _number(text)
    if not math.isfinite(number):
        raise errors.InputError(f"must hold finite numbers, but one is {errors.show(text)}")
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def flag(text: str) -> bool:
    """Read ``true`` or ``false``."""
    if text not in ("true", "false"):
        raise errors.InputError(f"must be true or false, but it is {errors.show(text)}")
    return text == "true"


def count(text: str) -> int:
    """Read a whole number from 1, as in 200000 or 2e5."""
    return _whole(text, 1)


def count_to(most: int) -> Callable[[str], int]:
    """Return a reader of a whole number from 1 to ``most``: of what takes time or memory for each."""
    return lambda text: _whole(text, 1, most)


def seed(text: str) -> int:
    """Read a whole number from 0."""
    return _whole(text, 0)


def context_length(text: str) -> int:
    """Read a number of tokens from 8."""
    return _whole(text, 8)


def positive(text: str) -> float:
    """Read a finite number above 0."""
    number = _number(text)
    if not (math.isfinite(number) and number > 0):
        raise errors.InputError(f"must be a number above 0, as in 200000 or 2e5, but it is {errors.show(text)}")
    return number


def nonnegative(text: str) -> float:
    """Read a finite number from 0."""
    number = _number(text)
    if not (math.isfinite(number) and number >= 0):
        raise errors.InputError(f"must be a number from 0, as in 0.01, but it is {errors.show(text)}")
    return number


def share(text: str) -> float:
    """Read a share above 0 and up to 1."""
    number = _number(text)
    if not 0 < number <= 1:
        raise errors.InputError(
            f"must be a share above 0 and up to 1, as in 0.4 for 40 %, but it is {errors.show(text)}"
        )
    return number


def list_of(read: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...] | None]:
    """Return a reader of values between commas, with None for the empty text."""

    def read_list(text: str) -> tuple[Any, ...] | None:
        parts = text.split(",") if text.strip() else []
        if len(parts) > _LONGEST_LIST:
            raise errors.InputError(f"must hold at most {_LONGEST_LIST:,} values, but it has {len(parts):,}")
        return tuple(read(part.strip()) for part in parts) or None

    return read_list


def mixes(text: str) -> tuple[Mix, ...] | None:
    """Read mixes between semicolons, as in ``code=0.5,prose=0.5; code=1``; None for the empty text."""
    return tuple(Mix.parse(part) for part in text.split(";") if part.strip()) or None


def key_values(read: Callable[[str], Any]) -> Callable[[str], dict[str, Any]]:
    """Return a reader of values by name, as in ``alpha=0.34,E=1.7``; the empty text has none."""

    def read_pairs(text: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for part in filter(None, (item.strip() for item in text.split(","))):
            name, sign, value = part.partition("=")
            if not sign or not name.strip() or name.strip() in values:
                raise errors.InputError(f"must read NAME=VALUE,... with each name once, but it is {errors.show(text)}")
            values[name.strip()] = read(value.strip())
        return values

    return read_pairs


def bounds(text: str) -> dict[str, tuple[float, float]]:
    """Read ranges of shares between commas, as in ``code=0.1:0.5,prose=0:0.3``; the empty text has none."""
    return key_values(_range)(text)


def _range(text: str) -> tuple[float, float]:
    least, sign, most = text.partition(":")
    low, high = _number(least), _number(most)
    if not sign or not 0 <= low <= high <= 1:
        raise errors.InputError(
            f"must hold ranges of shares from 0 to 1, as in code=0.1:0.5, but one is {errors.show(text)}"
        )
    return low, high


@dataclass(frozen=True)
class OneOf:
    """Reader of one word out of several."""

    choices: tuple[str, ...]

    def __call__(self, text: str) -> str:
        """Return the word.

        Raises:
            InputError: The text is none of the words.
        """
        if text not in self.choices:
            words = ", ".join(self.choices)
            raise errors.InputError(
                f"must be one of {words}, but it is {errors.show(text)}{did_you_mean(text, self.choices)}"
            )
        return text


def one_of(*choices: str) -> OneOf:
    """Return a reader of one word out of ``choices``."""
    return OneOf(choices)


def page_file(text: str) -> str:
    """Read the path of a file in a folder that exists; empty for the default name."""
    path = Path(text)
    if text and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise errors.InputError(f"must name a file in a folder that exists, but it is {errors.show(text)}")
    return text


def figure_file(text: str) -> str:
    """Read the path of an SVG or PNG file in a folder that exists; empty for none."""
    if text and Path(text).suffix.lower() not in (".svg", ".png"):
        raise errors.InputError(f"must end in .svg or .png, but it is {errors.show(text)}")
    return page_file(text)


def launcher_options(text: str) -> dict[str, Any]:
    """Read options of a launcher, as in ``num_gpus=1,address=auto``; numbers become numbers."""
    return {name: scalar(value) for name, value in key_values(str)(text).items()}


def scalar(text: str) -> Any:
    """Read a number, a flag or a text as YAML reads it.

    Raises:
        InputError: The text is a list, a mapping or no YAML.
    """
    try:
        value = load_yaml(text)
    except errors.InputError as error:
        raise errors.InputError(f"{errors.show(text)} is no YAML value ({error}). Quote it.") from error
    if isinstance(value, dict | list):
        raise errors.InputError(f"must be one value, but it is {errors.show(text)}")
    return text if value is None else value


def cache_folder(text: str = "") -> Path:
    """Return the folder of what can be made again; empty: SKILLSCALE_CACHE, or ~/.cache/skillscale."""
    return Path(text or os.environ.get("SKILLSCALE_CACHE") or Path.home() / ".cache" / "skillscale").expanduser()


def _whole(text: str, least: int, most: int = _LARGEST) -> int:
    number = _number(text)
    if not (math.isfinite(number) and number >= least and number == int(number)):
        raise errors.InputError(
            f"must be a whole number from {least}, as in 200000 or 2e5, but it is {errors.show(text)}"
        )
    if number > most:
        raise errors.InputError(f"must be at most {most:,}, but it is {errors.show(text)}")
    return int(number)
