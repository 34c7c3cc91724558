"""Cells of a table as numbers: as pandas reads them, with separators of thousands, decimal commas, or K, M, B and T.

A cell that is no number by its form (True, 0x1F, 1+2j, 5 %) is excluded with its text. Free text is a fault.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from skillscale.errors import InputError

Floats = npt.NDArray[np.float64]

INFINITE = 1e300  # MLflow's databases and their exports store infinity as 1.7976931348623157e308
_LONGEST = 64  # characters of a number
_SPACES = " \u00a0\u2009\u202f'\u2019"  # among digits: no-break and thin spaces, and the apostrophe
_SUFFIXED = re.compile(r"([0-9]+\.?[0-9]*) ?([KMBT])", re.IGNORECASE)
_EXPONENTS = {"K": 3, "M": 6, "B": 9, "T": 12}
_NO_NUMBER = re.compile(
    r"true|false|yes|no|0[xob][0-9a-f]+|[+-]?[0-9.e+-]+j|\(?[0-9.+e-]+[+-][0-9.e+-]*j\)?|"  # booleans, hex, complex
    r"[<>~≈=]+ ?[0-9.e+-]+|[0-9.e+-]+ ?%|[0-9.]+ ?(±|\+-|\+/-) ?[0-9.]+|"  # bounds, per cent, with an error
    r"[-–—?.*]+|n\.?/?a\.?|tbd|oom|diverged|failed|crashed|error|missing|unknown|[+-]?1\.#(ind|inf|qnan)",
    re.IGNORECASE,
)
_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]*)?")
_DOTS = re.compile(r"[+-]?[0-9]{1,3}(\.[0-9]{3})+,[0-9]*|[+-]?[0-9]{1,3}(\.[0-9]{3}){2,}")
_DECIMAL = re.compile(r"[+-]?[0-9]*,[0-9]+(e[+-]?[0-9]+)?", re.IGNORECASE)
_EITHER = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")


@dataclass(frozen=True, kw_only=True)
class CellNumbers:
    """The numbers of a column.

    Args:
        numbers: numbers, NaN where a cell has none.
        no_numbers: texts of the cells that are no numbers by their form, by row.
        texts: other texts, by row.
        with_suffix: whether a cell was written with K, M, B or T.
    """

    numbers: Floats
    no_numbers: Mapping[int, str]
    texts: Mapping[int, str]
    with_suffix: bool = False


def cell_numbers(given: "pd.Series[Any]", *, suffixes: bool = False, small: bool = False) -> CellNumbers:
    """Return the cells of a column as numbers.

    Args:
        given: column.
        suffixes: whether cells may be written as in 250M.
        small: whether numbers of thousands make no sense, so that 3,519 is 3.519.

    Raises:
        InputError: commas that may be decimals or separators of thousands.
    """
    if pd.api.types.is_numeric_dtype(given.dtype) and given.dtype.kind not in "bc":
        values = pd.to_numeric(given, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
        return CellNumbers(numbers=_with_infinity(values), no_numbers={}, texts={})
    cells = given.astype(object)
    odd = {at: cell for at, cell in enumerate(cells) if _is_odd(cell)}
    plain = cells.mask(np.isin(np.arange(len(cells)), list(odd))) if odd else cells
    values = np.array(pd.to_numeric(plain, errors="coerce").to_numpy(dtype=float, na_value=np.nan))
    values[list(odd)] = [_odd_number(cell) for cell in odd.values()]
    no_numbers = {at: str(cell) for at, cell in odd.items() if math.isnan(values[at])}
    texts = {
        int(at): str(plain.iloc[at]).strip()
        for at in np.flatnonzero(np.isnan(values) & plain.notna().to_numpy())
        if at not in odd
    }
    texts = {at: text for at, text in texts.items() if text}
    read_comma = _comma_reader(list(texts.values()), small=small)
    with_suffix = False
    for at, text in list(texts.items()):
        number = _parse(text, read_comma)
        if math.isnan(number) and suffixes and (match := _SUFFIXED.fullmatch(text)):
            number, with_suffix = float(f"{match[1]}e{_EXPONENTS[match[2].upper()]}"), True
        if not math.isnan(number):
            values[at] = number
            del texts[at]
        elif _NO_NUMBER.fullmatch(text[:_LONGEST]):
            no_numbers[at] = texts.pop(at)
    return CellNumbers(numbers=_with_infinity(values), no_numbers=no_numbers, texts=texts, with_suffix=with_suffix)


def _with_infinity(values: Floats) -> Floats:
    return np.where(np.abs(values) >= INFINITE, np.copysign(np.inf, values), values)


def _is_odd(cell: Any) -> bool:
    """Return whether pandas would read a cell as another number, or not at all."""
    if isinstance(cell, int) and not isinstance(cell, bool):
        return abs(cell) > INFINITE
    return isinstance(cell, bool | np.bool_ | complex | np.complexfloating)


def _odd_number(cell: Any) -> float:
    if isinstance(cell, bool | np.bool_):
        return math.nan
    if isinstance(cell, int):
        return math.inf if cell > 0 else -math.inf
    return float(cell.real) if cell.imag == 0 else math.nan


def _parse(text: str, read_comma: Callable[[str], str]) -> float:
    """Return the number in a text that pandas does not read, NaN if there is none."""
    if len(text) > _LONGEST:
        return math.nan
    joined = text
    for space in _SPACES:
        joined = re.sub(rf"(?<=[0-9]){space}(?=[0-9]{{3}}(?![0-9]))", "", joined)
    try:
        return float(read_comma(joined)) if re.fullmatch(r"[0-9.,e+_-]+", joined, re.IGNORECASE) else math.nan
    except ValueError:
        return math.nan


def _comma_reader(texts: list[str], *, small: bool) -> Callable[[str], str]:
    """Return what makes a number with commas one that Python reads, by how the whole column is written.

    Raises:
        InputError: commas that may be decimals or separators of thousands.
    """
    with_comma = [text for text in texts if "," in text or text.count(".") > 1]
    sure = [text for text in with_comma if not _EITHER.fullmatch(text)]
    thousands = any(_THOUSANDS.fullmatch(text) for text in sure)
    decimals = any(_DOTS.fullmatch(text) or _DECIMAL.fullmatch(text) for text in sure if not _THOUSANDS.fullmatch(text))
    either = next((text for text in with_comma if _EITHER.fullmatch(text)), "")
    if (thousands and decimals) or (either and not (thousands or decimals or small)):
        text = either or next(text for text in with_comma if _DECIMAL.fullmatch(text) or _DOTS.fullmatch(text))
        raise InputError(f"{text!r} may have a decimal comma or a separator of thousands. Write numbers without commas")
    if thousands:
        return lambda text: text.replace(",", "")
    return lambda text: text.replace(".", "").replace(",", ".") if "," in text or text.count(".") > 1 else text
