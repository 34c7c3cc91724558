"""The units of N, D and FLOP: whether D/N and C / 6 N D can be right, and which units would make them right."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from skillscale.formatting import format_flops, format_number
from skillscale.tables.metric_names import name_parts

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

PLAUSIBLE_RATIO = (0.1, 1e5)  # D/N of most published runs
SMALLEST = {"n_params": 1e3, "n_tokens": 1e4}  # a smaller median is in thousands, millions or more
_PLAUSIBLE = {"n_params": (1e6, 1e13), "n_tokens": (1e7, 1e16)}  # what an advised unit may lead to
_TYPICAL = 20.0  # Hoffmann et al. 2022; only orders the possible units
_POWERS = {1e3: "thousands", 1e6: "millions", 1e9: "billions", 1e12: "trillions"}
_FLOPS_POWERS = tuple(1000.0**power for power in range(9))
_GAP = 30.0  # factor between rows of one unit and of another
_FLOPS_TOLERANCE = 3.0  # factor by which FLOP that are counted otherwise differ from 6 N D
_CONSTANT = 0.02  # largest spread of a ratio that is the number of tokens of a step
_MOST_TOKENS = 1e8  # of a step
_SHOWN = 4
_NAMED_POWERS = {
    "k": 1e3, "thousand": 1e3, "thousands": 1e3, "e3": 1e3, "m": 1e6, "mn": 1e6, "million": 1e6, "millions": 1e6,
    "mio": 1e6, "e6": 1e6, "b": 1e9, "bn": 1e9, "g": 1e9, "billion": 1e9, "billions": 1e9, "e9": 1e9, "t": 1e12,
    "tn": 1e12, "trillion": 1e12, "trillions": 1e12, "e12": 1e12,
}  # fmt: skip
_COUNTED = {
    "step": "steps", "steps": "steps", "iter": "steps", "iters": "steps", "iteration": "steps", "iterations": "steps",
    "updates": "steps", "sequence": "sequences", "sequences": "sequences", "seqs": "sequences", "samples": "sequences",
    "examples": "sequences", "documents": "sequences", "epoch": "epochs", "epochs": "epochs",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SizeColumns:
    """N, D and FLOP of the usable rows, in the units of the column map.

    Args:
        N: parameters.
        D: tokens.
        ratio: C / 6 N D, typical of the rows, NaN where the table has no FLOP.
        spread: relative spread of that ratio over the rows.
        flops_key: key of the FLOP in the column map, empty where it is not in it.
        units: factors of columns in the column map, by key.
        other_unit: rows of the table in which the FLOP show that N or D has another unit.
    """

    N: Floats
    D: Floats
    ratio: float
    spread: float
    flops_key: str
    units: Mapping[str, float]
    other_unit: Mask

    @property
    def medians(self) -> dict[str, float]:
        """Median N and D, by key."""
        return {"n_params": float(np.median(self.N)), "n_tokens": float(np.median(self.D))}

    @property
    def tokens_per_param(self) -> float:
        """Median D/N."""
        return float(np.median(self.D / self.N))


@dataclass(frozen=True, kw_only=True)
class UnitChange:
    """A possible unit of columns: factors on top of the present ones.

    Args:
        factors: factor by key, without those of 1.
        meaning: what the columns are in, such as ``millions``.
        tokens_per_param: median D/N with these factors.
    """

    factors: Mapping[str, float]
    meaning: str
    tokens_per_param: float

    def as_units(self, units: Mapping[str, float]) -> str:
        """Return the line of the column map."""
        shown = [f"{key}: {_plain(units.get(key, 1.0) * factor)}" for key, factor in self.factors.items()]
        return f"units: {{{', '.join(shown)}}}"

    def text(self, units: Mapping[str, float]) -> str:
        """Return the line of the column map with what it means."""
        return f"{self.as_units(units)} for {self.meaning} (D/N = {format_number(self.tokens_per_param, 2)})"


def counted_things(column: str) -> str:
    """Return what a column counts by its name, if these are no tokens: ``steps``, ``sequences`` or ``epochs``."""
    parts = name_parts(column)
    if any(part.startswith("token") or part in ("tok", "toks") for part in parts):
        return ""
    return next((_COUNTED[part] for part in reversed(parts) if part in _COUNTED), "")


def smaller_things(column: str) -> str:
    """Return what a column counts by its name in place of tokens, if these are parts of a text: ``bytes`` and so on."""
    parts = set(name_parts(column))
    return next((word for word in ("bytes", "chars", "characters", "words") if word in parts), "")


def named_power(column: str) -> float:
    """Return the unit that a name ends with, as 1e9 for ``tokens_B``, or 1."""
    parts = name_parts(column)
    return _NAMED_POWERS.get(parts[-1], 1.0) if len(parts) > 1 else 1.0


def implausible_keys(sizes: SizeColumns) -> list[str]:
    """Return the keys whose values can't be counts of parameters or tokens, without those with a unit."""
    medians = sizes.medians
    keys = [key for key, median in medians.items() if median < SMALLEST[key]]
    low, high = PLAUSIBLE_RATIO
    if not keys and sizes.tokens_per_param < low:
        keys = ["n_tokens"]
    if not keys and sizes.tokens_per_param > high:
        keys = ["n_params"]
    return [key for key in keys if key not in sizes.units]


def possible_units(sizes: SizeColumns, keys: Sequence[str], *, flops: bool = False) -> list[UnitChange]:
    """Return the units of columns that make N, D, D/N and the FLOP plausible, the most plausible first.

    Args:
        sizes: columns.
        keys: columns that have another unit.
        flops: whether the FLOP may have another unit too.
    """
    combinations = product(_POWERS, repeat=len(keys))
    changes = [_power_change(sizes, dict(zip(keys, factors, strict=True))) for factors in combinations]
    if flops and sizes.flops_key:
        changes = [_with_flops(sizes, change, factor) for change in changes for factor in _FLOPS_POWERS]
    if math.isfinite(sizes.ratio):
        changes = [change for change in changes if _agrees(sizes, change)]
        changes += _step_change(sizes) if list(keys) == ["n_tokens"] else ()
    good = [change for change in changes if change.factors and _is_plausible(sizes, change)]
    return sorted(good, key=lambda change: (len(change.factors), abs(math.log(change.tokens_per_param / _TYPICAL))))


def possible_units_of_two(sizes: SizeColumns, given: str) -> list[UnitChange]:
    """Return the units of N or D and of the FLOP that make both plausible, where the other follows from the FLOP.

    Args:
        sizes: columns.
        given: key of N or D, whichever the table has.
    """
    sign = 1.0 if given == "n_tokens" else -1.0
    changes = []
    for size, flops in product((1.0, *_POWERS), _FLOPS_POWERS):
        scaled = {given: size, _other(given): flops / size}
        medians = {key: median * scaled[key] for key, median in sizes.medians.items()}
        ratio = sizes.tokens_per_param * (size**2 / flops) ** sign
        factors = {key: factor for key, factor in ((given, size), (sizes.flops_key, flops)) if factor != 1}
        if factors and _all_plausible(medians, ratio):
            words = [_POWERS[size]] if size > 1 else []
            words += [f"{format_flops(flops)} FLOP"] if flops > 1 else []
            changes.append(UnitChange(factors=factors, meaning=" and ".join(words), tokens_per_param=ratio))
    fewest = min((len(change.factors) for change in changes), default=0)
    changes = [change for change in changes if len(change.factors) == fewest]
    return sorted(changes, key=lambda change: abs(math.log(change.tokens_per_param / _TYPICAL)))


def _other(key: str) -> str:
    return "n_params" if key == "n_tokens" else "n_tokens"


def describe(changes: Sequence[UnitChange], units: Mapping[str, float], *more: str) -> str:
    """Return the possible units in words: the line to add, or several with what each means, and more possibilities."""
    if len(changes) == 1:
        ratio = format_number(changes[0].tokens_per_param, 2)
        return ", ".join([f"{changes[0].as_units(units)} to the column map (D/N = {ratio})", *more])
    return ", ".join([*(change.text(units) for change in changes[:_SHOWN]), *more])


def rows_of_another_unit(N: Floats, D: Floats) -> Mask:
    """Return the rows whose D/N is implausible, and far from that of all rows with a plausible one."""
    ratio = np.log(D / N)
    low, high = np.log(PLAUSIBLE_RATIO)
    is_far = np.zeros(len(ratio), dtype=bool)
    body = (ratio >= low) & (ratio <= high)
    if not body.any():
        return is_far
    for sign, edge in ((1.0, ratio[body].min()), (-1.0, -ratio[body].max())):
        side = np.flatnonzero(sign * ratio < edge)
        ordered = side[np.argsort(-sign * ratio[side])]
        steps = -np.diff([edge, *(sign * ratio[ordered])])
        first = int(np.argmax(steps > math.log(_GAP))) if (steps > math.log(_GAP)).any() else len(ordered)
        is_far[ordered[first:]] = True
    return np.asarray(is_far & ~body)


def _power_change(sizes: SizeColumns, factors: Mapping[str, float]) -> UnitChange:
    words = list(dict.fromkeys(_POWERS[factor] for factor in factors.values()))
    ratio = sizes.tokens_per_param * factors.get("n_tokens", 1.0) / factors.get("n_params", 1.0)
    return UnitChange(factors=factors, meaning=" and ".join(words), tokens_per_param=ratio)


def _with_flops(sizes: SizeColumns, change: UnitChange, factor: float) -> UnitChange:
    if factor == 1:
        return change
    meaning = " and ".join(filter(None, (change.meaning, f"{format_flops(factor)} FLOP")))
    return UnitChange(
        factors={**change.factors, sizes.flops_key: factor}, meaning=meaning, tokens_per_param=change.tokens_per_param
    )


def _agrees(sizes: SizeColumns, change: UnitChange) -> bool:
    counted = change.factors.get("n_tokens", 1.0) * change.factors.get("n_params", 1.0)
    ratio = sizes.ratio * change.factors.get(sizes.flops_key, 1.0) / counted
    return abs(math.log(ratio)) < math.log(_FLOPS_TOLERANCE)


def _step_change(sizes: SizeColumns) -> Iterator[UnitChange]:
    """Yield the number of tokens of a step, where C / 6 N D is constant and no power of 1000."""
    power = round(math.log10(sizes.ratio) / 3)
    if sizes.spread > _CONSTANT or not 2 < sizes.ratio < _MOST_TOKENS or abs(sizes.ratio / 1000.0**power - 1) < 0.05:
        return
    tokens = float(round(sizes.ratio))
    yield UnitChange(
        factors={"n_tokens": tokens}, meaning=f"steps of {tokens:,.0f} tokens",
        tokens_per_param=sizes.tokens_per_param * tokens,
    )  # fmt: skip


def _is_plausible(sizes: SizeColumns, change: UnitChange) -> bool:
    medians = {key: median * change.factors.get(key, 1.0) for key, median in sizes.medians.items()}
    return _all_plausible(medians, change.tokens_per_param)


def _all_plausible(medians: Mapping[str, float], ratio: float) -> bool:
    low, high = PLAUSIBLE_RATIO
    inside = all(_PLAUSIBLE[key][0] <= median <= _PLAUSIBLE[key][1] for key, median in medians.items())
    return inside and low <= ratio <= high


def _plain(factor: float) -> str:
    """Return a factor as YAML takes it: 1e9, or 524288 in full."""
    text = format_flops(factor, 7)
    return text if float(text) == factor and factor % 1e3 == 0 else repr(factor).removesuffix(".0").replace("e+", "e")
