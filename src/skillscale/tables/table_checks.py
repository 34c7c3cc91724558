"""Checks of a table whose cells are numbers: units that can't be right, and what is odd among the runs."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from skillscale.errors import InputError
from skillscale.formatting import format_count, format_flops, format_number, plural
from skillscale.tables.column_hints import is_flops_name
from skillscale.tables.flops import check_flops
from skillscale.tables.points import point_codes
from skillscale.tables.rows import Mask, RowLog, SourceRows, read_numbers
from skillscale.tables.units import (
    PLAUSIBLE_RATIO,
    SMALLEST,
    SizeColumns,
    counted_things,
    describe,
    implausible_keys,
    named_power,
    possible_units,
    possible_units_of_two,
    rows_of_another_unit,
    smaller_things,
)

_USUAL_FLOPS_RATIO = 1.05
_POWER_TOLERANCE = math.log10(3)  # of C / 6 N D about a power of 1000, which is then a unit
_FEWEST_PAIRS = 5
_FEWEST_OF_A_UNIT = 0.1  # share of the rows that have a plausible D/N, from which the others have another unit


def check_units(rows: SourceRows, log: RowLog, runs: pd.DataFrame) -> None:
    """Refuse N, D and FLOP in other units, and exclude rows in another unit than the others.

    Raises:
        InputError: with the units that are possible, and D/N that each gives.
    """
    columns = rows.columns
    counted = counted_things(columns.n_tokens)
    if counted and "n_tokens" not in columns.units:
        raise InputError(
            f"n_tokens is column {columns.n_tokens} of {rows.place}, which counts {counted} by its name. Add units: "
            f"{{n_tokens: X}} to the column map, where X is the tokens of one of them, or 1 if it counts tokens."
        )
    smaller = smaller_things(columns.n_tokens)
    if smaller and "n_tokens" not in columns.units:
        log.notes.append(
            f"n_tokens is column {columns.n_tokens}, which counts {smaller} by its name: D and D* are in {smaller}, "
            "and C = 6 N D is wrong. units: {n_tokens: 0.25} would make 4 of them a token"
        )
    sizes = _size_columns(rows, log, runs)
    if sizes.flops_key:
        _check_flops_unit(sizes, log, rows.place)
    _check_plausible(sizes, rows)
    log.notes += [*_unit_notes(sizes), *_named_unit_notes(rows)]
    if {"n_params", "n_tokens"} & set(columns.units):
        log.notes += _other_unit_notes(sizes)
    else:
        _exclude_other_units(log, runs, sizes.other_unit)


def _size_columns(rows: SourceRows, log: RowLog, runs: pd.DataFrame) -> SizeColumns:
    """Return N and D of the usable rows, and their ratio to the FLOP of the table, in the column map or not."""
    columns = rows.columns
    key = "flops" if columns.flops else "budget" if columns.budget else ""
    N, D = (runs[letter].to_numpy() for letter in ("N", "D"))
    sizes = SizeColumns(
        N=N[log.usable], D=D[log.usable], ratio=math.nan, spread=math.inf, flops_key=key, units=columns.units,
        other_unit=np.zeros(len(N), dtype=bool),
    )  # fmt: skip
    column = columns.flops or columns.budget or next((str(name) for name in rows.cells if is_flops_name(str(name))), "")
    if not (column and columns.n_params and columns.n_tokens):
        return sizes
    try:
        flops = read_numbers(rows, log, column, key or "flops")
    except InputError:
        if key:
            raise
        return sizes
    check = check_flops(flops, columns.unit(key or "flops"), 6 * N * D, log.usable, nominal=key == "budget")
    return replace(sizes, ratio=check.ratio, spread=check.spread, other_unit=check.other_unit)


def _check_flops_unit(sizes: SizeColumns, log: RowLog, place: str) -> None:
    """Refuse FLOP that differ from 6 N D by a power of 1000, and note those that differ by less."""
    if not math.isfinite(sizes.ratio):
        return
    power = round(math.log10(sizes.ratio) / 3)
    if power and abs(math.log10(sizes.ratio) - 3 * power) < _POWER_TOLERANCE:
        keys = [[], ["n_tokens"], ["n_params"], ["n_params", "n_tokens"]]
        changes = [change for subset in keys for change in possible_units(sizes, subset, flops=True)]
        fewest = min((len(change.factors) for change in changes), default=0)
        changes = [change for change in changes if len(change.factors) == fewest]
        other = f"or remove {sizes.flops_key} from the column map if that is not the reason"
        cure = f"Add {describe(changes, sizes.units, other)}." if changes else f"Correct the units, {other}."
        raise InputError(
            f"{sizes.flops_key} of {place} is {format_flops(sizes.ratio, 2)} times 6 N D in the median, so a column "
            f"has another unit. {cure}"
        )
    if abs(math.log(sizes.ratio)) > math.log(_USUAL_FLOPS_RATIO):
        log.notes.append(
            f"{sizes.flops_key} is {format_number(sizes.ratio)} times 6 N D in the median, so laws and budgets are "
            "shown in 6 N D; remove it from the column map if it is wrong"
        )


def _check_plausible(sizes: SizeColumns, rows: SourceRows) -> None:
    """Refuse N and D that can't be counts of parameters and tokens."""
    keys = implausible_keys(sizes)
    given = [key for key in ("n_params", "n_tokens") if getattr(rows.columns, key)]
    if not keys:
        return
    if len(given) == 1:
        _refuse_two(sizes, given[0], rows.place)
        return
    _refuse_two_units(sizes, rows.place)
    letters = {"n_params": "N", "n_tokens": "D"}
    small = [key for key in keys if sizes.medians[key] < SMALLEST[key]]
    what = ", and ".join(
        f"median {letters[key]} of {rows.place} is {sizes.medians[key]:.4g}, too small for a model" for key in small
    )
    what = what or f"median D/N of {rows.place} is {format_number(sizes.tokens_per_param, 2)}, which no study has"
    names = {"n_params": rows.columns.size_column() if rows.columns.n_params else "", "n_tokens": rows.columns.n_tokens}
    changes, why = possible_units(sizes, keys), "By its FLOP, add" if math.isfinite(sizes.ratio) else "Add"
    if not changes:
        changes, why = possible_units(replace(sizes, ratio=math.nan), keys), "Add"
    by_name = [change for change in changes if all(change.factors[key] == named_power(names[key]) for key in keys)]
    if by_name:
        changes, why = by_name, f"By the name of {' and '.join(names[key] for key in keys)}, add"
    right = f"or units: {{{', '.join(f'{key}: 1' for key in keys)}}} if it is right"
    if not changes:
        raise InputError(f"{what}. No unit makes it plausible: correct the column map, {right}.")
    is_open = why == "Add" and keys == ["n_tokens"]
    steps = ["units: {n_tokens: X} for steps or sequences of X tokens"] if is_open else []
    raise InputError(f"{what}. {why} {describe(changes, sizes.units, *steps, right)}.")


def _refuse_two_units(sizes: SizeColumns, place: str) -> None:
    """Refuse rows of two units, for which no one unit is right."""
    far = rows_of_another_unit(sizes.N, sizes.D)
    if not _FEWEST_OF_A_UNIT <= 1 - far.mean() < 1:
        return
    ratios = sizes.D / sizes.N
    (low, high), (other_low, other_high) = (
        [format_number(float(edge), 2) for edge in (ratios[part].min(), ratios[part].max())] for part in (~far, far)
    )
    raise InputError(
        f"D/N of {place} is {other_low} to {other_high} in {plural(int(far.sum()), 'row')} and {low} to {high} in the "
        "others: a column has two units. Write N and D in one unit, or select rows by where."
    )


def _refuse_two(sizes: SizeColumns, given: str, place: str) -> None:
    """Refuse units of N or D and FLOP, from which the other can't follow."""
    if {given, sizes.flops_key} & set(sizes.units):
        return  # the note on D/N says it
    changes = possible_units_of_two(sizes, given)
    right = f"or units: {{{sizes.flops_key}: 1}} if they are right"
    cure = (
        f"Add {describe(changes, sizes.units, right)}."
        if changes
        else f"Correct {given} and {sizes.flops_key}, {right}."
    )
    N, D, ratio = (format_number(value, 2) for value in (*sizes.medians.values(), sizes.tokens_per_param))
    raise InputError(
        f"by C = 6 N D, {given} and {sizes.flops_key} of {place} have a median N of {N}, D of {D} and D/N of {ratio}. "
        f"No study has these. {cure}"
    )


def _named_unit_notes(rows: SourceRows) -> Iterator[str]:
    """Yield notes on units of the column map that the names of the columns contradict."""
    columns = rows.columns
    for key, column in (("n_params", columns.size_column()), ("n_tokens", columns.n_tokens)):
        power, unit = named_power(column), columns.unit(key)
        if power > 1 and unit not in (1.0, power):
            in_name = format_flops(power)
            yield f"the unit of {key} is {format_flops(unit)}, but column {column} has {in_name} in its name"


def _unit_notes(sizes: SizeColumns) -> Iterator[str]:
    """Yield notes on sizes that their units make implausible, and on FLOP of the table that disagree with them."""
    low, high = PLAUSIBLE_RATIO
    if not low <= sizes.tokens_per_param <= high:
        yield (
            f"D/N is {format_number(sizes.tokens_per_param, 2)} in the median, which no study has: check units of the "
            "column map"
        )
    if sizes.flops_key or not math.isfinite(sizes.ratio):
        return
    power = round(math.log10(sizes.ratio) / 3)
    if power > 0 and abs(math.log10(sizes.ratio) - 3 * power) < _POWER_TOLERANCE:
        yield (
            f"the FLOP of the table are {format_flops(sizes.ratio, 2)} times 6 N D in the median, so N, D or they may "
            "have another unit"
        )


def _other_unit_notes(sizes: SizeColumns) -> Iterator[str]:
    """Yield a note on rows of another unit, where the column map names the unit."""
    far = rows_of_another_unit(sizes.N, sizes.D)
    if far.any():
        low, high = (format_number(float(edge), 2) for edge in np.quantile((sizes.D / sizes.N)[far], [0, 1]))
        yield (
            f"D/N is {low} to {high} in {plural(int(far.sum()), 'row')}, far from the other rows: do they have another "
            "unit? Correct them, or exclude them by where"
        )


def _exclude_other_units(log: RowLog, runs: pd.DataFrame, by_flops: Mask) -> None:
    """Exclude rows whose N or D has another unit than in the other rows, by D/N or by the FLOP."""
    N, D = runs["N"].to_numpy(), runs["D"].to_numpy()
    far = np.zeros(len(runs), dtype=bool)
    far[log.usable] = rows_of_another_unit(N[log.usable], D[log.usable])
    by_flops &= log.usable & ~far
    log.exclude_rows(far, [f"D/N is {ratio:.2g}, far from the other rows: another unit?" for ratio in D[far] / N[far]])
    reason = "6 N D is far below its FLOP, unlike in the other rows: another unit?"
    log.exclude_rows(by_flops, [reason] * int(by_flops.sum()))


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
    rows = runs[["mix", "N", "D", skill]].dropna()
    rows = rows.assign(mix=pd.factorize(rows["mix"], sort=True)[0])  # numbers, which are grouped faster
    rows = rows.assign(D=rows["D"].groupby(point_codes(rows)).transform("min"))
    rows = rows.groupby(["mix", "N", "D"], sort=True)[skill].mean().reset_index()
    step = ((rows["mix"] == rows["mix"].shift()) & (rows["N"] == rows["N"].shift())).to_numpy()
    return int((rows[skill].diff().to_numpy()[step] > 0).sum()), int(step.sum())
