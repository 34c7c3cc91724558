"""The one way that messages, tables, figures and pages write numbers and lists of names.

A missing value, None or not finite, is a dash.
"""

import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from enum import Enum
from pathlib import PurePath
from typing import Any, TypeGuard

from skillscale.errors import without_password

JsonObject = dict[str, Any]  # plain values by name, as an answer of ``--json`` has them

MISSING = "–"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SUFFIXES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_NAMES_SHOWN = 8
_INFINITE = 1e300  # databases store infinity as 1.797e308
_LETTERS_SHOWN = 120
_FORMULA = re.compile(r"'*[=+\-@\t\r]")  # the start of a cell that a spreadsheet computes


def format_count(value: float | None, digits: int = 3) -> str:
    """Write parameters, tokens or another count: ``34_600`` as ``34.6k``, ``4.9e9`` as ``4.9B``."""
    if not _is_given(value):
        return MISSING
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits}g}")
    unit, suffix = next((step for step in _SUFFIXES if abs(rounded) >= step[0]), (1.0, ""))
    return _fixed(rounded / unit, digits) + suffix


def format_flops(value: float | None, digits: int = 3) -> str:
    """Write FLOP: ``1e22``, ``3.2e21``; never ``1e+22``."""
    if not _is_given(value):
        return MISSING
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{_without_zeros(mantissa)}e{int(exponent)}"


def power(value: float | None, digits: int = 2) -> str:
    """Write a power of ten for pages and figures: ``1.6e11`` as ``1.6×10¹¹``."""
    if not _is_given(value):
        return MISSING
    mantissa, exponent = f"{value:.{max(digits - 1, 0)}e}".split("e")
    head = _without_zeros(mantissa)
    raised = f"10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
    return raised if head == "1" else f"{head}×{raised}"


def format_number(value: float | None, digits: int = 3, *, signed: bool = False) -> str:
    """Write a number with significant digits: ``0.123``, ``1230``; ``1.2e7`` and ``1.2e-7`` where it would be long."""
    if not _is_given(value):
        return MISSING
    sign = "+" if signed and value > 0 else ""
    if value != 0 and not 1e-4 <= abs(float(f"{value:.{digits}g}")) < 1e6:
        return sign + format_flops(value, digits)
    return sign + _fixed(float(f"{value:.{digits}g}"), digits)


def format_percent(share: float | None, digits: int = 2, *, signed: bool = False) -> str:
    """Write a share or a relative error: ``0.0043`` as ``0.43 %``."""
    return f"{format_number(100 * share, digits, signed=signed)} %" if _is_given(share) else MISSING


def format_log_ratio(log_ratio: float | None, digits: int = 2) -> str:
    """Write a difference of logarithms as a signed percentage: ``0.115`` as ``+12 %``; large ones as ``×20``."""
    if not _is_given(log_ratio):
        return MISSING
    if log_ratio > math.log(10):
        return f"×{format_count(math.exp(log_ratio), digits)}"
    percent = 100 * math.expm1(log_ratio)
    if percent == 0:
        return "0 %"
    decimals = 0 if abs(percent) >= 9.95 else 1 if abs(percent) >= 0.095 else 2
    return f"{percent:+.{decimals}f} %".replace("-", "−")


def format_interval(value: float, lo: float, hi: float, write: Callable[[float], str] = format_number) -> str:
    """Write a value and its interval: ``4.9B [4.1B, 5.8B]``; the value alone where an end is not known."""
    return f"{write(value)} [{write(lo)}, {write(hi)}]" if _is_given(lo) and _is_given(hi) else write(value)


def format_duration(seconds: float | None) -> str:
    """Write a time: ``754`` as ``12 min 34 s``; from four days on ``5 days``, from two years on ``3.1 years``."""
    if not _is_given(seconds):
        return MISSING
    whole = round(seconds)
    days, hours, minutes = whole / 86400, whole // 3600, whole % 3600 // 60
    if days >= 730:
        return f"{days / 365.25:,.1f} years"
    if days >= 4:
        return f"{days:.0f} days"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def plural(number: int, noun: str) -> str:
    """Write a number of things: ``1 run``, ``2 runs``, ``2 mixes``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}{'es' if noun.endswith('x') else 's'}"


def join_words(words: Sequence[str]) -> str:
    """Write a list in a sentence: ``a, b and c``; ``none`` where it is empty."""
    if not words:
        return "none"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def join_first(names: Sequence[str], most: int = _NAMES_SHOWN) -> str:
    """Write the first of many names: ``a, b and 7 more``."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def shorten(text: str, most: int = _LETTERS_SHOWN) -> str:
    """Return a text cut to a number of letters, with dots at the end if some are missing."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def escape_formula(text: str) -> str:
    """Return the cell of a CSV file for a text: with a quote before one that a spreadsheet would compute."""
    return f"'{text}" if _FORMULA.match(text) else text


def unescape_formula(text: str) -> str:
    """Return the text of a cell, the inverse of ``escape_formula``."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return `` (did you mean X?)`` with the nearest names, or nothing where none is near.

    A start that names share up to a dot, as in ``params.lr``, does not make them alike.
    """
    near = nearest_names(name, names)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def nearest_names(name: str, names: Iterable[str], most: int = 2) -> list[str]:
    """Return the names that a misspelt one may stand for, the nearest first."""
    candidates, rest = list(names), name.replace("-", "_").rpartition(".")[2]
    rest = rest if len(rest) > 2 else name  # what follows a dot is no help when it has a letter or two
    start = name[: len(name) - len(rest)]
    by_rest = {candidate.removeprefix(start): candidate for candidate in candidates}
    near = [by_rest[match] for match in difflib.get_close_matches(rest, by_rest, n=most)]
    near = near or [candidate for candidate in candidates if candidate and candidate.lower() == name.lower()]
    return near or [candidate for candidate in candidates if len(rest) > 2 and rest.lower() in candidate.lower()][:most]


def _is_given(value: float | None) -> TypeGuard[float]:
    return value is not None and abs(value) < _INFINITE


def _fixed(rounded: float, digits: int) -> str:
    """Write a number, already rounded, with its significant digits and without an exponent."""
    if rounded == 0:
        return "0"
    return _without_zeros(f"{rounded:.{max(0, digits - 1 - math.floor(math.log10(abs(rounded))))}f}")


def _without_zeros(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def to_plain(value: Any) -> Any:
    """Return dataclasses, tuples and mappings as dicts and lists."""
    if hasattr(value, "__dataclass_fields__"):
        return {item.name: to_plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    return value


def to_json(value: Mapping[str, Any]) -> str:
    """Return one JSON object. JSON has no NaN or infinity, so a number that is not finite becomes null.

    Raises:
        TypeError: A value has no place in JSON.
    """
    return json.dumps(_jsonable(to_plain(value)), allow_nan=False)


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
