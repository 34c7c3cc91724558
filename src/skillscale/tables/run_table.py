"""From a foreign table to runs: what each step excludes is named, and what looks odd is noted."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from skillscale.errors import InputError, show
from skillscale.formatting import did_you_mean, format_number, join_first, plural
from skillscale.laws.results import ExcludedRun
from skillscale.laws.skills.verdicts import SkillColumns
from skillscale.point import MAX_PARAMS, MAX_TOKENS, RESERVED_COLUMNS, Mix
from skillscale.tables.bounded_files import Progress
from skillscale.tables.checkpoints import note_unmapped_runs, select_last
from skillscale.tables.column_hints import is_loss_name
from skillscale.tables.column_map import ColumnMap, is_one
from skillscale.tables.copies import near_copies, note_copies
from skillscale.tables.files import read_raw_table
from skillscale.tables.flops import check_flops
from skillscale.tables.loss_checks import LARGEST_LOSS, check_loss_names, check_loss_values, diverged
from skillscale.tables.loss_units import mixed_tokenizers, mixed_units, tokenizers
from skillscale.tables.metric_names import MetricKind, metric_kind
from skillscale.tables.rows import (
    EVERY_ROW,
    Floats,
    Mask,
    RowLog,
    SourceRows,
    cell_text,
    cell_texts,
    exclude_names,
    read_numbers,
    select_rows,
)
from skillscale.tables.sweeps import best_settings, note_sweeps, setting_codes
from skillscale.tables.table_checks import check_units, note_clusters, note_constant_columns, note_rising_losses

ONE_MIX = "all"  # name of the mix in a table without mixes
_SOURCE = "source row"  # temporary column of the position among the cells
_SUM_TOLERANCE = 1e-3
_SMALLEST_SIZE = 1e-12  # of N and D in any unit
_SHARE_UNITS = (1e-2, 1e-3, 1e-4, 1e-5)


@dataclass(frozen=True, kw_only=True, eq=False)
class RunTable:
    """Runs in the form that the laws need, with the excluded ones and notes.

    Args:
        runs: one row per usable run or checkpoint. Columns: ``run_id`` (unique), ``cluster`` (the run of a checkpoint),
            ``C`` (nominal budget, FLOP, or NaN), ``N``, ``D``, ``mix`` (name, or text of the shares), ``seed``, one
            loss per skill and aggregate (nats per token, or NaN), ``sem/SKILL`` and ``mix/CATEGORY`` where given.
        skills: names of the columns of losses.
        categories: names of the data categories of the mix.
        weights: weights of the skills in each aggregate.
        convention: name of the convention of N.
        excluded: excluded rows and losses with reasons.
        notes: sentences on what is odd.
        splits: columns of the skills with a held-out split.
        categories_of: category of the mix that belongs to each skill.
        validation: columns of validation sets.
        sampled: ids of the runs that a sampler chose. They are at no isoFLOP budget.
        tokenizers: names of the tokenizers, or sizes of the vocabularies, that the table has.
    """

    runs: pd.DataFrame
    skills: tuple[str, ...]
    categories: tuple[str, ...] = ()
    weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    convention: str = ""
    excluded: tuple[ExcludedRun, ...] = ()
    notes: tuple[str, ...] = ()
    splits: tuple[SkillColumns, ...] = ()
    categories_of: Mapping[str, str] = field(default_factory=dict)
    validation: tuple[str, ...] = ()
    sampled: frozenset[str] = frozenset()
    tokenizers: tuple[str, ...] = ()

    @property
    def missing_skills(self) -> dict[str, str]:
        """Skills without a loss in any usable row, with the reason."""
        return {run.skill: run.reason for run in self.excluded if run.run_id == EVERY_ROW}

    @property
    def aggregates(self) -> tuple[str, ...]:
        """Names of the weighted means of skills, which are columns of ``runs``."""
        return tuple(self.weights)

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """Skills with a weight in each aggregate."""
        return {
            aggregate: tuple(skill for skill, weight in weights.items() if weight > 0)
            for aggregate, weights in self.weights.items()
        }

    @property
    def judged_skills(self) -> tuple[str, ...]:
        """Skills that are no split or data set of another skill, and no validation set."""
        parts = {*self.validation, *(name for split in self.splits for name in split.others)}
        return tuple(name for name in self.skills if name not in parts)

    @property
    def skill_categories(self) -> dict[str, str]:
        """Category of each skill: the given one, or the category of the same name."""
        categories = {name: self.categories_of.get(name, name) for name in self.judged_skills}
        return {name: category for name, category in categories.items() if category in self.categories}


def read_table(
    path: Path | str, columns: ColumnMap, *, convention: str = "", progress: Progress | None = None
) -> RunTable:
    """Return the runs of a table, of W&B exports, or of result files of the lm-evaluation-harness.

    Args:
        path: ``.csv``, ``.tsv`` (also compressed, as in ``.csv.gz``), ``.parquet``, ``.jsonl`` or ``.json`` file, or a
            folder of run histories or result files.
        columns: meaning of the columns.
        convention: convention of N, if ``columns`` names several; empty: the first.
        progress: receiver of lines on a large file.

    Raises:
        InputError: a fault that makes the whole table unusable, with the cure.
    """
    path = Path(path)
    raw = read_raw_table(path, columns, progress)
    _check_names(pd.DataFrame(columns=list(raw.names)), columns, path.name)
    if not columns.run and raw.run:
        columns = replace(columns, run=(raw.run,))
    table = make_run_table(raw.frame, columns, convention=convention, labels=raw.labels, place=path.name)
    return replace(table, excluded=raw.excluded + table.excluded, notes=raw.notes + table.notes)


def make_run_table(
    frame: pd.DataFrame,
    columns: ColumnMap,
    *,
    convention: str = "",
    labels: Sequence[str] | None = None,
    place: str = "the table",
) -> RunTable:
    """Return the runs of a data frame.

    Args:
        frame: one row per run or checkpoint.
        columns: meaning of the columns.
        convention: convention of N, if ``columns`` names several; empty: the first.
        labels: unique names of the rows; None: ``row 1`` and so on.
        place: name of the table in messages.

    Raises:
        InputError: a fault that makes the whole table unusable, with the cure.
    """
    size_column = columns.size_column(convention)
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    _check_names(frame, columns, place)
    names = np.array(labels if labels is not None else [f"row {at}" for at in range(1, len(frame) + 1)], dtype=object)
    rows, log = select_rows(frame, columns, names, place)
    runs = _sizes(rows, log, size_column)
    check_units(rows, log, runs)
    runs = runs.assign(**_mixes(rows, log))
    runs["seed"] = _seeds(rows, log)
    losses = _losses(rows, log, 6 * runs["N"].to_numpy() * runs["D"].to_numpy())
    runs = runs.assign(**losses, **_standard_errors(rows, log, losses))
    runs["C"] = _budgets(rows, log, runs)
    runs = _distinct_runs(rows, log, runs, tuple(losses))
    weights = _usable_weights(columns, log, losses)
    of_rows = tokenizers(rows, log.usable)
    log.notes += [*mixed_units(columns, tuple(losses)), *mixed_tokenizers(of_rows, columns, tuple(losses))]
    return RunTable(
        runs=add_aggregates(runs, weights)[run_columns(tuple(losses), tuple(weights), map(str, runs.columns))],
        skills=tuple(losses),
        categories=tuple(columns.mix),
        weights=weights,
        convention=convention or next(iter(columns.n_params), ""),
        excluded=log.excluded(),
        notes=tuple(log.notes),
        splits=splits_of(columns),
        categories_of=columns.categories,
        validation=columns.sets,
        sampled=_sampled(rows) & frozenset(runs["run_id"]),
        tokenizers=of_rows,
    )


def splits_of(columns: ColumnMap) -> tuple[SkillColumns, ...]:
    """Return the columns of the skills with a held-out split."""
    return tuple(
        SkillColumns(
            skill=name, hypothesis=name, held_out=split.held_out, hypothesis_sets=split.hypothesis_sets,
            held_out_sets=split.held_out_sets,
        )
        for name, split in columns.splits.items()
    )  # fmt: skip


def run_columns(skills: Sequence[str], aggregates: Sequence[str], rest: Iterable[str]) -> list[str]:
    """Return the columns of ``RunTable.runs`` in order, with the shares and standard errors among ``rest``."""
    return [*RESERVED_COLUMNS, *skills, *aggregates, *(name for name in rest if name.startswith(("sem/", "mix/")))]


def add_aggregates(runs: pd.DataFrame, weights: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Return the runs with one column per aggregate: the weighted mean of its skills, NaN where one is missing."""
    means = {name: sum(part * runs[skill] for skill, part in parts.items()) for name, parts in weights.items()}
    return runs.assign(**means)


def _check_names(frame: pd.DataFrame, columns: ColumnMap, place: str) -> None:
    names = list(frame.columns)
    absent = [(key, column) for key, column in columns.key_columns() if column not in names]
    if absent:
        proposed = [name for name in names if metric_kind(name) not in (MetricKind.PERPLEXITY, MetricKind.SCORE)]
        listed = ", ".join(f"{column!r} for {key}{did_you_mean(column, proposed)}" for key, column in absent)
        raise InputError(f"{place} has no column {listed}. It has {join_first(names, 40)}.")
    for name in {column for _, column in columns.key_columns()}:
        if names.count(name) > 1:
            raise InputError(f"{place} has {names.count(name)} columns {name!r}. Name each column once.")


def _sizes(rows: SourceRows, log: RowLog, size_column: str) -> pd.DataFrame:
    """Return the run, N and D of every row. Rows without positive numbers are excluded.

    Raises:
        InputError: no row has both, or they are larger than those of any model.
    """
    runs = pd.DataFrame({"run_id": rows.run_id, "cluster": rows.cluster})
    sources = {"N": ("n_params", size_column), "D": ("n_tokens", rows.columns.n_tokens)}
    for letter, (key, column) in sources.items():
        runs[letter] = read_numbers(rows, log, column, key) if column else math.nan
    for letter, (key, column) in sources.items():
        source = (key, column) if column else _third_size(rows, log, runs, letter)
        _exclude_sizes(rows, log, runs, letter, source)
    log.require_usable("both N and D")
    runs.loc[~log.usable, ["N", "D"]] = math.nan  # so that no later step computes with them
    return runs


def _exclude_sizes(rows: SourceRows, log: RowLog, runs: pd.DataFrame, letter: str, source: tuple[str, str]) -> None:
    """Exclude the rows whose N or D is no positive number, or too large.

    Raises:
        InputError: most of them are too large.
    """
    key, column = source
    most = MAX_PARAMS if letter == "N" else MAX_TOKENS
    values = runs[letter].to_numpy()
    _refuse_overflow(values[log.usable], column, letter, rows)
    bad = ~(values > _SMALLEST_SIZE)
    log.exclude_rows(bad, log.reasons(bad, values, column, partial(_size_reason, letter)))
    large = values > most
    if large.sum() > (values > 0).sum() / 2:
        if key not in ("n_params", "n_tokens") and key not in rows.columns.units:
            return  # the question on the unit of the FLOP says more
        median = format_number(float(np.median(values[values > 0])))
        raise InputError(
            f"median {letter} (column {column} of {rows.place}) is {median}, larger than any model has had. Correct "
            f"its unit in the column map, as in units: {{{key}: 1}}."
        )
    log.exclude_rows(large, [f"{letter} is {value:.3g}, too large" for value in values[large]])


def _refuse_overflow(values: Floats, column: str, letter: str, rows: SourceRows) -> None:
    """Refuse sizes that overflowed as 32-bit integers: some are negative, and the others wrong without a sign of it.

    Raises:
        InputError: with the cure.
    """
    cells = values[np.isfinite(values)]
    limit = 2.0**31
    is_wrapped = (cells < -limit / 2**11) & (cells >= -limit) & (cells == np.floor(cells))
    if column and is_wrapped.sum() > 1 and (cells < limit).all():
        raise InputError(
            f"{letter} (column {column} of {rows.place}) is negative in {plural(int(is_wrapped.sum()), 'row')}, as "
            "32-bit integers are that overflowed: then other rows are wrong too. Write the column as 64-bit integers."
        )


def _third_size(rows: SourceRows, log: RowLog, runs: pd.DataFrame, letter: str) -> tuple[str, str]:
    """Compute N or D from the other and C = 6 N D, and return the key and column of C."""
    key = "flops" if rows.columns.flops else "budget"
    column = rows.columns.flops or rows.columns.budget
    other = "D" if letter == "N" else "N"
    C = read_numbers(rows, log, column, key)
    with np.errstate(invalid="ignore", divide="ignore"):
        runs[letter] = np.where(C > 0, C / (6 * runs[other].to_numpy()), C)
    log.notes.append(f"{letter} is {key} / 6 {other}: the column map names no column of {letter}")
    if (C < 0).any():
        log.notes.append(
            f"{key} is negative in {plural(int((C < 0).sum()), 'row')}, as integers are that overflowed: then other "
            f"rows are wrong too. Write {column} as floats, or name the column of {letter}"
        )
    return key, column


def _mixes(rows: SourceRows, log: RowLog) -> dict[str, npt.NDArray[np.object_] | Floats | str]:
    """Return the column ``mix``, and the shares by category where the table has them.

    Raises:
        InputError: no row has a mix.
    """
    if rows.columns.mix:
        return _shares(rows, log)
    if not rows.columns.mix_name:
        return {"mix": ONE_MIX}
    names = rows.cells[rows.columns.mix_name]
    absent = names.isna().to_numpy()
    log.exclude_rows(absent, ["its mix has no name"] * int(absent.sum()))
    log.require_usable("a usable mix")
    texts = cell_texts(names)
    exclude_names(log, np.where(absent, "", texts), "the name of its mix")
    return {"mix": texts}


def _shares(rows: SourceRows, log: RowLog) -> dict[str, npt.NDArray[np.object_] | Floats | str]:
    """Return the mix of every row. Shares are divided by their sum where rounding moved it from 1."""
    categories = list(rows.columns.mix)
    shares = np.column_stack([read_numbers(rows, log, column, "mix") for column in rows.columns.mix.values()])
    bad = np.asarray((~(np.isfinite(shares) & (shares >= 0))).any(axis=1))
    log.exclude_rows(bad, [_share_reason(categories, row) for row in shares[bad]])
    log.require_usable("a usable mix")
    totals = shares.sum(axis=1)
    off = ~(np.abs(totals - 1) <= _sum_tolerance(shares[log.usable]))
    if off[log.usable].all():
        raise InputError(_no_mix_message(totals[log.usable], categories, rows.place))
    log.exclude_rows(off, [f"the shares of its mix sum to {total:.6g}, not 1" for total in totals[off]])
    moved = totals[log.usable & (np.abs(totals - 1) > 1e-6)]
    if len(moved):
        log.notes.append(
            f"the mix of {plural(len(moved), 'row')} sums to {moved.min():.6g} to {moved.max():.6g}, probably by "
            "rounding; it is divided by its sum"
        )
    return _mix_columns(categories, shares, totals, log.usable)


def _mix_columns(
    categories: list[str], shares: Floats, totals: Floats, usable: Mask
) -> dict[str, npt.NDArray[np.object_] | Floats | str]:
    # Excluded rows get any valid mix. Sums that are 1 up to rounding are not divided again, to keep all digits
    divisors = np.array([1.0 if not good or is_one(total, len(categories)) else total
                         for good, total in zip(usable, totals, strict=True)])  # fmt: skip
    shares = np.where(usable[:, None], shares / divisors[:, None], 1 / len(categories))
    table = pd.DataFrame(shares, columns=[f"mix/{name}" for name in categories])
    group = table.groupby(list(table.columns), sort=False).ngroup().to_numpy()
    firsts = np.unique(group, return_index=True)[1]
    texts = [str(Mix(dict(zip(categories, shares[at], strict=True)))) for at in firsts]
    return {"mix": np.array(texts, dtype=object)[group], **{name: table[name].to_numpy() for name in table.columns}}


def _sum_tolerance(shares: Floats) -> float:
    """Return how far a sum of shares may be from 1: half a unit of the last decimal of each share."""
    for unit in _SHARE_UNITS:
        scaled = shares / unit
        if np.all(np.abs(scaled - np.round(scaled)) < 1e-6):
            return max(_SUM_TOLERANCE, 0.5 * unit * int(shares.shape[1]))
    return _SUM_TOLERANCE


def _no_mix_message(totals: Floats, categories: list[str], place: str) -> str:
    median = float(np.median(totals))
    if abs(median - 100) < 5:
        return (
            f"the mixes of {place} sum to {median:.6g}, so they are in per cent; add units: {{mix: 0.01}} to the "
            "column map"
        )
    return (
        f"the mixes of {place} sum to {totals.min():.4g} to {totals.max():.4g}, and none to 1, over "
        f"{', '.join(categories)}; name every category of the training data under mix once"
    )


def _seeds(rows: SourceRows, log: RowLog) -> npt.NDArray[np.int64]:
    """Return the seed of every row, 0 where the table has none.

    Raises:
        InputError: a value that is not a seed.
    """
    if not rows.columns.seed:
        return np.zeros(len(rows), dtype=np.int64)
    values = read_numbers(rows, log, rows.columns.seed, "seed")
    absent = np.isnan(values)
    filled = np.where(absent, 0.0, values)
    if absent.any():
        log.notes.append(f"{plural(absent.sum(), 'row')} without a seed: it is taken as 0")
    bad = np.flatnonzero(~((filled >= 0) & (filled < 2**31) & (filled == np.floor(filled))))
    if len(bad):
        raise InputError(
            f"{rows.run_id[bad[0]]} of {rows.place} has seed {values[bad[0]]:g} in column {rows.columns.seed}, not a "
            "whole number from 0 to 2^31 - 1. Remove seed from the column map if the column is something else."
        )
    return filled.astype(np.int64)


def _losses(rows: SourceRows, log: RowLog, counted: Floats) -> dict[str, Floats]:
    """Return the losses of each skill that has any, NaN where missing. ``counted``: 6 N D.

    Raises:
        InputError: no skill has a loss, or one has perplexities or scores.
    """
    log.notes += check_loss_names(rows.columns, rows.place)
    losses = {}
    for skill, column in rows.columns.skills.items():
        values = _read_losses(rows, log, skill)
        is_diverged = np.zeros(len(values), dtype=bool) if skill in rows.columns.perplexity else diverged(values)
        bad = ~((values > 0) & np.isfinite(values)) | is_diverged
        if bad[log.usable].all():
            log.exclude_skill(skill, _no_loss_at_all(rows, log, column.loss, values))
            continue
        log.exclude_losses(bad, log.reasons(bad, values, column.loss, _loss_reason), skill=skill)
        losses[skill] = np.where(bad, np.nan, values)
    if not losses:
        named = join_first([column.loss for column in rows.columns.skills.values()])
        raise InputError(
            f"no skill of {rows.place} has a positive number as its loss in any usable row ({named}"
            f"{_first_cell(rows, log)}). Name columns of losses under skills."
        )
    usable = {skill: values[log.usable] for skill, values in losses.items()}
    log.notes += check_loss_values(
        rows.columns, usable, counted[log.usable], rows.place, _unmapped_losses(rows, log.usable)
    )
    return losses


def _unmapped_losses(rows: SourceRows, usable: Mask) -> dict[str, Floats]:
    """Return the columns that are losses by their names, and that the column map does not name."""
    mapped = {column for _, column in rows.columns.key_columns()}
    names = [str(name) for name in rows.cells if is_loss_name(str(name)) and name not in mapped]
    columns = {name: pd.to_numeric(rows.cells[name], errors="coerce") for name in names}
    return {
        f"column {name}": values.to_numpy(dtype=float, na_value=math.nan)[usable] for name, values in columns.items()
    }


def _read_losses(rows: SourceRows, log: RowLog, skill: str) -> Floats:
    """Return the column of a skill, or its logarithm if it holds perplexities."""
    values = read_numbers(rows, log, rows.columns.skills[skill].loss, "skills", skill)
    if skill not in rows.columns.perplexity:
        return values
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log(values))


def _first_cell(rows: SourceRows, log: RowLog) -> str:
    """Return the first loss that is no positive number in a usable row, with its row; nothing if all are empty."""
    for column in dict.fromkeys(column.loss for column in rows.columns.skills.values()):
        given = np.flatnonzero(log.usable & rows.cells[column].notna().to_numpy())
        if len(given):
            return f": {show(cell_text(rows.cells[column].iloc[given[0]]))} in {rows.run_id[given[0]]}"
    return ": all cells are empty"


def _no_loss_at_all(rows: SourceRows, log: RowLog, column: str, values: Floats) -> str:
    given = np.flatnonzero(log.usable & ~np.isnan(values))
    reason = f"no usable row has a loss (column {column})"
    if not len(given):
        return reason
    return f"{reason}: {_loss_reason(values[given[0]])} in {rows.run_id[given[0]]}, and none of {len(given)} is"


def _standard_errors(rows: SourceRows, log: RowLog, losses: Iterable[str]) -> dict[str, Floats]:
    """Return the standard errors of each skill that has a column of them, NaN where unknown."""
    errors = {}
    for skill in losses:
        column = rows.columns.skills[skill].sem
        if not column:
            continue
        values = read_numbers(rows, log, column, "skills", skill)
        if skill in rows.columns.perplexity:
            with np.errstate(divide="ignore", invalid="ignore"):
                values = values / read_numbers(rows, log, rows.columns.skills[skill].loss, "skills", skill)
        bad = ~((values > 0) & np.isfinite(values))
        wrong = int((bad & ~np.isnan(values) & log.usable).sum())
        if wrong:
            log.notes.append(
                f"sem of {skill} is not a positive number in {plural(wrong, 'row')}: it is taken as unknown there"
            )
        errors[f"sem/{skill}"] = np.where(bad, np.nan, values)
    return errors


def _budgets(rows: SourceRows, log: RowLog, runs: pd.DataFrame) -> Floats:
    """Return C of every row: the nominal budget, or the FLOP of the table, or NaN."""
    columns = rows.columns
    if not (columns.budget or columns.flops):
        return np.full(len(runs), np.nan)
    key = "budget" if columns.budget else "flops"
    values = read_numbers(rows, log, columns.budget or columns.flops, key)
    counted = 6 * runs["N"].to_numpy() * runs["D"].to_numpy()
    check = check_flops(values, columns.unit(key), counted, log.usable, nominal=key == "budget")
    bad = ~((values > 0) & np.isfinite(values)) & ~check.overflown
    bad |= check.far & ~check.overflown & (key == "flops")
    if bad[log.usable].any():
        far = " or is far from 6 N D (an integer overflow?)" if key == "flops" else ""
        count = plural(bad[log.usable].sum(), "row")
        log.notes.append(f"{key} is not a positive number{far} in {count}: 6 N D is used there")
    if check.overflown.any():
        log.notes.append(
            f"{key} overflowed a {check.integers} integer in {check.overflown.sum()} of {plural(len(values), 'row')}: "
            "6 N D is used there"
        )
    return np.where(bad | check.overflown, counted if key == "flops" else np.nan, values)


def _distinct_runs(rows: SourceRows, log: RowLog, runs: pd.DataFrame, skills: tuple[str, ...]) -> pd.DataFrame:
    """Return the usable rows without repeats, and note what is odd among them."""
    key = [*(["cluster"] if rows.columns.run else []), "N", "D", "mix", "seed"]
    runs = runs.assign(**{_SOURCE: np.arange(len(runs))})[log.usable]
    repeated = runs.duplicated([*key, *skills]).to_numpy()
    log.exclude_repeats(runs.index[repeated].tolist())
    runs = runs[~repeated]
    settings = setting_codes(rows.cells.iloc[runs[_SOURCE]], rows.columns)
    copies = near_copies(runs, skills, settings) & (not rows.columns.near_copies)
    log.exclude_repeats(runs.index[copies].tolist(), "near-copy of an earlier row")
    log.notes += note_copies(copies)
    runs = runs[~copies].reset_index(drop=True)
    if rows.columns.run:
        log.notes += note_clusters(runs, key)
    runs, notes = select_last(runs, skills, rows.columns)
    log.notes += notes
    cells = rows.cells.iloc[runs.pop(_SOURCE)]
    log.notes += note_unmapped_runs(runs, cells, rows.columns)
    log.notes += note_sweeps(runs, cells, rows.columns, skills)
    runs, notes = best_settings(runs, cells, rows.columns, skills)
    log.notes += notes
    log.notes += note_constant_columns(runs)
    log.notes += note_rising_losses(runs, {skill: rows.columns.skills[skill].loss for skill in skills})
    return runs


def _usable_weights(columns: ColumnMap, log: RowLog, losses: Iterable[str]) -> dict[str, Mapping[str, float]]:
    """Return the weights of the aggregates whose skills all have losses."""
    skills = set(losses)
    weights = {name: parts for name, parts in columns.validation.items() if set(parts) <= skills}
    log.notes += [
        f"{name} weights a skill without losses, and is excluded" for name in columns.validation if name not in weights
    ]
    return weights


def _sampled(rows: SourceRows) -> frozenset[str]:
    """Return the ids of the rows with a purpose, which a sampler chose."""
    if not rows.columns.purpose:
        return frozenset()
    given = rows.cells[rows.columns.purpose]
    has_purpose = given.notna().to_numpy() & (given.astype(str).str.strip() != "").to_numpy()
    return frozenset(np.array(rows.run_id, dtype=object)[has_purpose])


def _size_reason(letter: str, value: float) -> str:
    return f"{letter} is missing" if math.isnan(value) else f"{letter} is {value:g}, not a positive number"


def _loss_reason(value: float) -> str:
    if LARGEST_LOSS < value < math.inf:
        return f"loss is {value:g}, far above that of any model and of the other rows"
    return "no loss" if math.isnan(value) else f"loss is {value:g}, not a positive number"


def _share_reason(categories: list[str], shares: Floats) -> str:
    at = int(np.flatnonzero(~(np.isfinite(shares) & (shares >= 0)))[0])
    return f"the share of {categories[at]} in its mix is {'missing' if math.isnan(shares[at]) else shares[at]}"
