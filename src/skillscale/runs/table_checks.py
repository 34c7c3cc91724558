"""Checks of a table whose cells are numbers: units that can't be right, and what is odd among the runs."""

import math
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from skillscale.errors import InputError
from skillscale.formatting import format_count, format_flops, format_number, plural
from skillscale.runs.rows import Floats, RowLog, SourceRows, read_numbers

_SMALLEST_MEDIAN = {"N": 1e3, "D": 1e4}  # a smaller median must be in millions or billions
_TOKENS_PER_PARAM = 20.0  # Hoffmann et al. 2022; only decides which of two columns has the wrong unit
_USUAL_FLOPS_RATIO = 1.05
_FEWEST_PAIRS = 5


def check_units(rows: SourceRows, log: RowLog, runs: pd.DataFrame) -> None:
    """Refuse N and D in millions or billions, and FLOP that differ from 6 N D by a power of 1000.

    Raises:
        InputError: with the ``units`` that would cure it.
    """
    N, D = (runs[letter].to_numpy()[log.usable] for letter in ("N", "D"))
    if rows.columns.flops or rows.columns.budget:
        _check_flops(rows, log, N, D)
    small, units = [], []
    for key, letter, values in (("n_params", "N", N), ("n_tokens", "D", D)):
        median = float(np.median(values))
        if median < _SMALLEST_MEDIAN[letter] and key not in rows.columns.units:
            small.append(f"median {letter} of {rows.place} is {median:.4g}, too small for a model")
            units.append(f"{key}: {'1e6' if letter == 'N' and median >= 20 else '1e9'}")
    if small:
        raise InputError(
            f"{', and '.join(small)}: {'are they' if len(small) > 1 else 'is it'} in millions or billions? Add "
            f"units: {{{', '.join(units)}}} to the column map (1e6 for millions, 1e9 for billions, 1 if it is right)."
        )


def _check_flops(rows: SourceRows, log: RowLog, N: Floats, D: Floats) -> None:
    key = "flops" if rows.columns.flops else "budget"
    flops = read_numbers(rows, log, rows.columns.flops or rows.columns.budget, key)[log.usable]
    given = (flops > 0) & np.isfinite(flops)
    if not given.any():
        return
    ratio = float(np.median((flops / (6 * N * D))[given]))
    steps = round(math.log10(ratio) / 3)
    if steps and abs(math.log10(ratio) - 3 * steps) < math.log10(3):
        cure = _units_from_flops(rows.columns.units, key, steps, float(np.median(N)), float(np.median(D)))
        raise InputError(
            f"{key} of {rows.place} is {format_flops(ratio, 2)} times 6 N D in the median, so a column has another "
            f"unit. Add {cure} to the column map, or remove {key} from it if that is not the reason."
        )
    if abs(math.log(ratio)) > math.log(_USUAL_FLOPS_RATIO):
        log.notes.append(
            f"{key} is {format_number(ratio)} times 6 N D in the median; remove it from the column map if C should be "
            "6 N D"
        )


def _units_from_flops(units: Mapping[str, float], key: str, steps: int, N: float, D: float) -> str:
    """Return the units that make 6 N D agree with FLOP that are 1000^steps times larger."""
    if steps < 0:
        return f"units: {{{key}: {format_flops(units.get(key, 1.0) * 1000.0**-steps, 7)}}}"
    splits = [(at, steps - at) for at in range(steps + 1)]
    odds = [abs(math.log(D * 1000.0**d / (N * 1000.0**n) / _TOKENS_PER_PARAM)) for n, d in splits]
    n, d = splits[int(np.argmin(odds))]
    cures = {"n_params": 1000.0**n, "n_tokens": 1000.0**d}
    shown = [f"{name}: {format_flops(units.get(name, 1.0) * unit, 7)}" for name, unit in cures.items() if unit > 1]
    return f"units: {{{', '.join(shown)}}}"


def note_clusters(runs: pd.DataFrame, key: list[str]) -> Iterator[str]:
    """Yield notes on rows of one run that can't be its checkpoints."""
    repeated = int(runs.duplicated(key).sum())
    if repeated:
        yield (
            f"{plural(repeated, 'row')} with run, N and D of an earlier row, but other losses: taken as replicates "
            "within one run"
        )
    sizes = runs.groupby("cluster")["N"].agg(["min", "max"])
    several = int((sizes["max"] > sizes["min"]).sum())
    if several:
        yield (
            f"{plural(several, 'run')} with rows of several sizes, which checkpoints can't have; add the column of N "
            "to run"
        )


def note_constant_columns(runs: pd.DataFrame) -> Iterator[str]:
    """Yield notes on N and D that never vary."""
    for letter, what in (("N", "size"), ("D", "number of tokens")):
        if runs[letter].min() == runs[letter].max():
            yield (
                f"all rows have one {what}, {letter} = {format_count(runs[letter].iloc[0])}: the effect of {letter} on "
                "the loss is unknown. Add rows"
            )


def note_rising_losses(runs: pd.DataFrame, columns: Mapping[str, str]) -> Iterator[str]:
    """Yield notes on skills whose loss mostly rises with D, as an accuracy would.

    Args:
        runs: usable runs.
        columns: column of the table for each skill.
    """
    for skill, column in columns.items():
        rising, pairs = _rising_pairs(runs, skill)
        if pairs < _FEWEST_PAIRS or rising <= pairs / 2:
            continue
        low, high = runs[skill].min(), runs[skill].max()
        like = f" ({format_number(low)} to {format_number(high)} looks like one)" if high <= 1 else ""
        yield (
            f"losses of {skill} (column {column}) rise with D in {rising} of {pairs} pairs of rows of one size and "
            f"mix: is it an accuracy{like}? A law needs a loss in nats per token"
        )


def _rising_pairs(runs: pd.DataFrame, skill: str) -> tuple[int, int]:
    """Return how many steps from one D to the next, at one N and mix, raise the loss, and the number of steps."""
    rows = runs[["mix", "N", "D", skill]].dropna().groupby(["mix", "N", "D"], sort=True)[skill].mean().reset_index()
    step = ((rows["mix"] == rows["mix"].shift()) & (rows["N"] == rows["N"].shift())).to_numpy()
    return int((rows[skill].diff().to_numpy()[step] > 0).sum()), int(step.sum())
