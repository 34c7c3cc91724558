"""How the report writes numbers: sizes, FLOP, ratios and intervals, always in the same way."""

import difflib
import math
from collections.abc import Iterable

from skillscale.point import short

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MISSING = "–"


def count(value: float | None, digits: int = 3) -> str:
    """``34_600`` as ``34.6k``, ``2.87e8`` as ``287M``; a missing value as a dash."""
    return MISSING if value is None or not math.isfinite(value) else short(value, digits)


def power(value: float | None, digits: int = 2) -> str:
    """``1.6e11`` as ``1.6×10¹¹``, for the page and the figures."""
    if value is None or not math.isfinite(value):
        return MISSING
    mantissa, exponent = f"{value:.{max(digits - 1, 0)}e}".split("e")
    head = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    raised = f"10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
    return raised if head == "1" else f"{head}×{raised}"


def compact(value: float | None) -> str:
    """``1.6e11`` as ``1.6e11``, for terminals."""
    if value is None or not math.isfinite(value):
        return MISSING
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def percent(log_ratio: float | None, digits: int = 2) -> str:
    """A difference of logarithms as a signed percentage: ``.115`` as ``+12 %``."""
    if log_ratio is None or not math.isfinite(log_ratio):
        return MISSING
    if log_ratio > math.log(10):
        return f"×{count(math.exp(log_ratio), digits)}"
    value = 100 * math.expm1(log_ratio)
    if value == 0:
        return "0 %"
    decimals = 0 if abs(value) >= 9.95 else 1 if abs(value) >= 0.095 else 2
    return f"{value:+.{decimals}f} %".replace("-", "−")


def duration(seconds: float | None) -> str:
    """``754`` as ``12 min 34 s``."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def join(names: list[str]) -> str:
    """``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"


def plural(number: int, noun: str) -> str:
    """``1 run``, ``2 runs``, ``2 mixes``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}{'es' if noun.endswith('x') else 's'}"


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return ``(did you mean NAME?)`` with the nearest of ``names``, or nothing."""
    match = difflib.get_close_matches(name.replace("-", "_"), list(names), n=1)
    return f" (did you mean {match[0]}?)" if match else ""
