"""From the rows of a table to runs, what was left out, and what is odd."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from skillscale.errors import InputError
from skillscale.formatting import did_you_mean, join_first
from skillscale.laws.results import ExcludedRun
from skillscale.laws.skills.verdicts import SkillColumns
from skillscale.point import MAX_PARAMS, MAX_TOKENS, RESERVED_COLUMNS, Mix
from skillscale.runs.column_map import ColumnMap, as_number, is_one
from skillscale.runs.files import read_raw_table

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

EVERY_ROW = "every row"  # in place of a run, where a skill as a whole is left out
ONE_MIX = "all"  # the name of the mix in a table that tells none
_SUM_TOLERANCE = 1e-3
_SHARE_UNITS = (1e-2, 1e-3, 1e-4, 1e-5)
_FEWEST = {"N": 1e3, "D": 1e4}  # a median below can only be in millions or billions
_TOKENS_A_PARAM = 20.0  # Hoffmann et al. 2022; only to say which of two columns has the odd unit
_FLOPS_OFF = 2.5  # an integer of 64 bits that ran over is off by a factor of 3 at least
_FLOPS_USUAL = 1.05
_FEWEST_PAIRS = 5
_LARGE = ("n_params", "n_tokens", "flops", "budget")  # that people write as in 250M
_SUFFIXED = re.compile(r"([0-9]+\.?[0-9]*) ?([KMBT])", re.IGNORECASE)
_EXPONENTS = {"K": 3, "M": 6, "B": 9, "T": 12}


@dataclass(frozen=True, kw_only=True, eq=False)
class RunTable:
    """Runs as the laws want them, with what was left out and what is odd.

    ``runs``: one usable row each. Columns: ``run_id`` (unique), ``cluster`` (rows of one are checkpoints of one run),
    ``C`` (nominal budget in FLOP; NaN where the table tells none), ``N``, ``D``, ``mix`` (name, or text of the shares),
    ``seed``; a loss a skill and aggregate (nats per token, NaN where missing); ``sem/SKILL`` and ``mix/CATEGORY`` where
    given. ``weights``: of the skills in each aggregate; ``convention``: of N. ``splits``: columns of the skills that
    have a held-out split too; ``categories_of``: the mix's category that belongs to a skill; ``validation``: columns of
    validation sets; ``sampled``: ids of the runs that a sampler chose, which stand at no isoFLOP budget.
    """

    runs: pd.DataFrame
    skills: tuple[str, ...]
    categories: tuple[str, ...] = ()
    weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    convention: str = ""
    unusable: tuple[ExcludedRun, ...] = ()
    notes: tuple[str, ...] = ()
    splits: tuple[SkillColumns, ...] = ()
    categories_of: Mapping[str, str] = field(default_factory=dict)
    validation: tuple[str, ...] = ()
    sampled: frozenset[str] = frozenset()

    @property
    def lost(self) -> dict[str, str]:
        """Skills that no usable row has a loss of, and why."""
        return {one.skill: one.reason for one in self.unusable if one.run_id == EVERY_ROW}

    @property
    def aggregates(self) -> tuple[str, ...]:
        """Names of the weighted means of skills, each a column of ``runs``."""
        return tuple(self.weights)

    @property
    def judged(self) -> tuple[str, ...]:
        """The skills but for those that are a split or a data set of another, or a validation set."""
        parts = {*self.validation, *(name for one in self.splits for name in one.others)}
        return tuple(name for name in self.skills if name not in parts)

    @property
    def own_categories(self) -> dict[str, str]:
        """Category of each skill that has one among the mix's: as told, or the one of its name."""
        told = {name: self.categories_of.get(name, name) for name in self.judged}
        return {name: category for name, category in told.items() if category in self.categories}


def read_table(path: Path | str, columns: ColumnMap, *, convention: str = "") -> RunTable:
    """The runs of a table, of W&B exports, or of result files of the lm-evaluation-harness.

    Args:
        path: ``.csv``, ``.tsv`` (``.gz`` and the like behind it are read too), ``.parquet``, ``.jsonl`` or ``.json``,
            or a folder of histories or of result files.
        columns: which column is what.
        convention: of N, where ``columns`` names several; empty: the first.

    Raises:
        InputError: what makes the table as a whole unusable, with the cure.
    """
    path = Path(path)
    sheet = read_raw_table(path, columns)
    _check_names(pd.DataFrame(columns=list(sheet.names)), columns, path.name)
    if not columns.run and sheet.run:
        columns = replace(columns, run=(sheet.run,))
    table = make_run_table(sheet.frame, columns, convention=convention, labels=sheet.labels, place=path.name)
    return replace(table, unusable=sheet.unusable + table.unusable, notes=sheet.notes + table.notes)


def make_run_table(
    frame: pd.DataFrame,
    columns: ColumnMap,
    *,
    convention: str = "",
    labels: Sequence[str] | None = None,
    place: str = "the table",
) -> RunTable:
    """The runs of a table that was read already.

    Args:
        frame: one row a run or checkpoint.
        columns: which column is what.
        convention: of N, where ``columns`` names several; empty: the first.
        labels: unique names of the rows; None: ``row 1`` and so on.
        place: where the table comes from, for messages.

    Raises:
        InputError: what makes the table as a whole unusable, with the cure.
    """
    size = columns.size_column(convention)
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    _check_names(frame, columns, place)
    names = np.array(labels if labels is not None else [f"row {at}" for at in range(1, len(frame) + 1)], dtype=object)
    reading = _Reading(frame, columns, names, place)
    runs = reading.sizes(size)
    reading.check_units(runs)
    reading.mixes(runs)
    runs["seed"] = reading.seeds()
    skills = reading.losses(runs)
    runs["C"] = reading.budgets(runs)
    finished = reading.finished(runs, skills)
    return RunTable(
        runs=finished,
        skills=skills,
        categories=tuple(columns.mix),
        weights=_usable_weights(columns, skills),
        convention=convention or next(iter(columns.n_params)),
        unusable=reading.unusable(),
        notes=tuple(reading.notes),
        splits=splits_of(columns),
        categories_of=columns.categories,
        validation=columns.sets,
        sampled=reading.sampled() & frozenset(finished["run_id"]),
    )


def splits_of(columns: ColumnMap) -> tuple[SkillColumns, ...]:
    """The splits of the skills that have a held-out one."""
    return tuple(
        SkillColumns(
            skill=name, hypothesis=name, held_out=one.held_out, hypothesis_sets=one.hypothesis_sets,
            held_out_sets=one.held_out_sets,
        )
        for name, one in columns.splits.items()
    )  # fmt: skip


def run_columns(skills: Sequence[str], aggregates: Sequence[str], rest: Iterable[str]) -> list[str]:
    """The columns of ``RunTable.runs`` in order; of the rest, shares and standard errors are taken."""
    return [*RESERVED_COLUMNS, *skills, *aggregates, *(name for name in rest if name.startswith(("sem/", "mix/")))]


def add_aggregates(runs: pd.DataFrame, weights: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Runs with a column an aggregate: the weighted mean of its skills, NaN where one is missing."""
    means = {name: sum(part * runs[skill] for skill, part in parts.items()) for name, parts in weights.items()}
    return runs.assign(**means)


class _Reading:
    """A table on its way to runs: the rows that ``where`` keeps, which are good, what was left out, what is odd.

    Arrays here have one entry a kept row; ``good`` marks those that are still usable.
    """

    def __init__(self, frame: pd.DataFrame, columns: ColumnMap, labels: npt.NDArray[np.object_], place: str) -> None:
        self.columns = columns
        self.place = place
        self.notes: list[str] = []
        self._left_out: list[tuple[int, ExcludedRun]] = []
        kept = self._where(frame)
        self.rows = frame[kept]
        self._labels = labels[kept]
        self.good = np.ones(len(self.rows), dtype=bool)
        self.cluster = self._clusters()
        pairs = zip(self._labels, self.cluster, strict=True)
        self.run_id = [str(label) if label == cluster else f"{label} ({cluster})" for label, cluster in pairs]

    def sizes(self, column: str) -> pd.DataFrame:
        """N and D of every row; those that are no positive numbers are left out.

        Raises:
            InputError: no row has both, or they are larger than any.
        """
        runs = pd.DataFrame({"run_id": self.run_id, "cluster": self.cluster})
        tokens = self.columns.n_tokens
        for letter, key, name, most in (("N", "n_params", column, MAX_PARAMS), ("D", "n_tokens", tokens, MAX_TOKENS)):
            values = self._numbers(name, key)
            runs[letter] = values
            usual = float(np.median(values[values > 0])) if (values > 0).any() else 0.0
            if usual > most:
                raise InputError(
                    f"{letter} (column {name} of {self.place}) is {usual:.3g} in the median, more than any model has "
                    f"had; mend its unit in the mapping of columns, as in units: {{{key}: 1}}"
                )
            why = np.array([_no_number(letter, value) for value in values[~(values > 0)]], dtype=object)
            self._refuse(~(values > 0), why)
            self._refuse(values > most, [f"{letter} is {value:.3g}, too large" for value in values[values > most]])
        self._need_rows("both N and D")
        return runs

    def check_units(self, runs: pd.DataFrame) -> None:
        """Refuse N and D in millions or billions, and FLOP that differ from 6 N D by a power of 1000.

        Raises:
            InputError: with the ``units`` that would cure it.
        """
        N, D = (runs[letter].to_numpy()[self.good] for letter in ("N", "D"))
        if self.columns.flops or self.columns.budget:
            self._check_flops(N, D)
        found, units = [], []
        for key, letter, values in (("n_params", "N", N), ("n_tokens", "D", D)):
            median = float(np.median(values))
            if median < _FEWEST[letter] and key not in self.columns.units:
                found.append(f"{letter} of {self.place} is {median:.4g} in the median, which no model is")
                units.append(f"{key}: {'1e6' if letter == 'N' and median >= 20 else '1e9'}")
        if found:
            raise InputError(
                f"{', and '.join(found)}: {'are they' if len(found) > 1 else 'is it'} in millions or billions? Add "
                f"units: {{{', '.join(units)}}} to the mapping of columns (1e6 for millions, 1e9 for billions, 1 if it "
                "is right)"
            )

    def mixes(self, runs: pd.DataFrame) -> None:
        """Add ``mix``, and the shares by category where the table has them.

        Raises:
            InputError: no row has a mix.
        """
        if self.columns.mix:
            self._shares(runs)
        elif self.columns.mix_name:
            names = self.rows[self.columns.mix_name]
            absent = names.isna().to_numpy()
            self._refuse(absent, ["no mix is named"] * int(absent.sum()))
            runs["mix"] = _texts(names)
        else:
            runs["mix"] = ONE_MIX
        self._need_rows("a mix that can be used")

    def seeds(self) -> npt.NDArray[np.int64]:
        """The seed of every row, 0 where the table tells none.

        Raises:
            InputError: a seed that none can be.
        """
        if not self.columns.seed:
            return np.zeros(len(self.rows), dtype=np.int64)
        values = self._numbers(self.columns.seed, "seed")
        absent = np.isnan(values)
        filled = np.where(absent, 0.0, values)
        if absent.any():
            self.notes.append(f"{_rows(absent.sum())} tell no seed; 0 is taken")
        bad = np.flatnonzero(~((filled >= 0) & (filled < 2**31) & (filled == np.floor(filled))))
        if len(bad):
            raise InputError(
                f"{self.run_id[bad[0]]} of {self.place} has seed {values[bad[0]]:g} in column {self.columns.seed}, not "
                "a whole number from 0 to 2^31 - 1; leave seed out of the mapping if the column is something else"
            )
        return filled.astype(np.int64)

    def losses(self, runs: pd.DataFrame) -> tuple[str, ...]:
        """Add each skill's loss and sem; return the skills that have any loss.

        Raises:
            InputError: none has.
        """
        kept = []
        for name, column in self.columns.skills.items():
            values = self._loss(name)
            bad = ~((values > 0) & np.isfinite(values))
            if bad[self.good].all():
                self._lose(name, column.loss, values)
                continue
            self._refuse(bad, [_no_loss(value) for value in values[bad]], skill=name)
            runs[name] = np.where(bad, np.nan, values)
            kept.append(name)
        if not kept:
            raise InputError(
                f"no skill of {self.place} has a positive number as its loss in any usable row "
                f"({join_first([one.loss for one in self.columns.skills.values()])}); name columns of losses under skills"
            )
        for name in kept:
            self._sem(runs, name)
        return tuple(kept)

    def _loss(self, name: str) -> Floats:
        """A skill's losses: its column, or the logarithm of its column where that holds perplexities."""
        values = self._numbers(self.columns.skills[name].loss, "skills", name)
        if name not in self.columns.perplexity:
            return values
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.log(values))

    def sampled(self) -> frozenset[str]:
        """Ids of the rows that tell what a sampler chose them for."""
        if not self.columns.purpose:
            return frozenset()
        given = self.rows[self.columns.purpose]
        told = given.notna().to_numpy() & (given.astype(str).str.strip() != "").to_numpy()
        return frozenset(np.array(self.run_id, dtype=object)[told])

    def _lose(self, name: str, column: str, values: Floats) -> None:
        """Leave out a skill that no usable row has a loss of: said once, not row by row."""
        first = int(np.flatnonzero(self.good)[0])
        told = np.flatnonzero(self.good & ~np.isnan(values))
        why = (
            f": {_no_loss(values[told[0]])} in {self.run_id[told[0]]}, and none of {len(told)} is" if len(told) else ""
        )
        reason = f"no usable row has a loss (column {column}){why}"
        self.notes.append(f"{name} is left out: {reason}")
        self._left_out.append((first, ExcludedRun(run_id=EVERY_ROW, skill=name, reason=reason)))

    def budgets(self, runs: pd.DataFrame) -> Floats:
        """C of every row: the nominal budget, or else the FLOP that the table tells, or NaN."""
        if not (self.columns.budget or self.columns.flops):
            return np.full(len(runs), np.nan)
        key = "budget" if self.columns.budget else "flops"
        values = self._numbers(self.columns.budget or self.columns.flops, key)
        bad = ~((values > 0) & np.isfinite(values))
        counted = 6 * runs["N"].to_numpy() * runs["D"].to_numpy()
        if key == "flops":
            with np.errstate(invalid="ignore", divide="ignore"):
                ratio = values / counted
                usual = np.median(ratio[self.good & ~bad]) if (self.good & ~bad).any() else 1.0
                bad |= ~(np.abs(np.log(ratio / usual)) < math.log(_FLOPS_OFF))
        if bad[self.good].any():
            far = ", or far from 6 N D (did an integer run over?)" if key == "flops" else ""
            count = _rows(bad[self.good].sum())
            self.notes.append(f"{key} is no positive number{far} in {count}; 6 N D is taken there")
        return np.where(bad, counted if key == "flops" else np.nan, values)

    def finished(self, runs: pd.DataFrame, skills: tuple[str, ...]) -> pd.DataFrame:
        """The usable rows in the order of the columns, each once, with the aggregates."""
        same = [*(["cluster"] if self.columns.run else []), "N", "D", "mix", "seed"]
        runs = runs[self.good]
        twice = runs.duplicated([*same, *skills]).to_numpy()
        for at in runs.index[twice]:
            self._left_out.append((int(at), ExcludedRun(run_id=self.run_id[at], skill="", reason="listed twice")))
        runs = runs[~twice].reset_index(drop=True)
        self._note_clusters(runs, same)
        self._note_spread(runs)
        self._note_rising(runs, skills)
        weights = _usable_weights(self.columns, skills)
        self.notes += [
            f"{name} weighs a skill without losses; it is left out"
            for name in self.columns.validation
            if name not in weights
        ]
        return add_aggregates(runs, weights)[run_columns(skills, tuple(weights), map(str, runs.columns))]

    def unusable(self) -> tuple[ExcludedRun, ...]:
        """What was left out, in the order of the table; a cell of a row that is out anyway is not named."""
        whole = {at for at, one in self._left_out if not one.skill}
        ordered = sorted(self._left_out, key=lambda pair: pair[0])
        return tuple(one for at, one in ordered if not one.skill or at not in whole)

    def _where(self, frame: pd.DataFrame) -> Mask:
        if frame.empty:
            raise InputError(f"{self.place} has no rows; give a table with one row a run or checkpoint")
        kept = np.ones(len(frame), dtype=bool)
        for column, values in self.columns.where.items():
            kept &= _matches(frame[column], values)
            if not kept.any():
                raise InputError(
                    f"where leaves no row of {self.place} at {column} = {' or '.join(map(str, values))}; that column "
                    f"has {join_first([_plain_text(value) for value in frame[column].dropna().unique()])}"
                )
        if not kept.all():
            self.notes.append(f"where keeps {kept.sum()} of {_rows(len(frame))}")
        return kept

    def _clusters(self) -> npt.NDArray[np.object_]:
        """The run of each row: its label where the table tells none."""
        cluster = self._labels.astype(object)
        if not self.columns.run:
            return cluster
        told = ~self.rows[list(self.columns.run)].isna().any(axis=1).to_numpy()
        parts = [_texts(self.rows[column])[told] for column in self.columns.run]
        cluster[told] = ["/".join(one) for one in zip(*parts, strict=True)]
        if not told.all():
            self.notes.append(f"{_rows((~told).sum())} name no run; each is taken as a run of its own")
        return cluster

    def _numbers(self, column: str, key: str, skill: str = "") -> Floats:
        """A column as numbers in our unit; what is missing is NaN.

        Sizes, tokens and FLOP may be written as in 250M, where the mapping gives them no unit beside.

        Raises:
            InputError: a cell holds text.
        """
        given = self.rows[column]
        values = pd.to_numeric(given, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
        if not pd.api.types.is_numeric_dtype(given.dtype):
            if key in _LARGE and key not in self.columns.units:
                values = self._suffixed(given, values, column)
            text = np.flatnonzero(np.isnan(values) & given.notna().to_numpy())
            if len(text):
                more = f" (and {_rows(len(text) - 1)} more)" if len(text) > 1 else ""
                raise InputError(
                    f"{self.run_id[text[0]]}{more} of {self.place} has {given.iloc[text[0]]!r} in column {column}, "
                    "where a number should be; write 70e6 for 70M, and leave the cell empty where nothing is known; "
                    "where cells can't be edited, name another column"
                )
        return np.asarray(values * self.columns.unit(key, skill), dtype=float)

    def _suffixed(self, given: "pd.Series[Any]", values: Floats, column: str) -> Floats:
        """The values with those of cells such as ``1.3B``; noted once."""
        texts = np.flatnonzero(np.isnan(values) & given.notna().to_numpy())
        found = {int(at): match for at in texts if (match := _SUFFIXED.fullmatch(str(given.iloc[at]).strip()))}
        values = values.copy()
        for at, match in found.items():
            values[at] = float(f"{match[1]}e{_EXPONENTS[match[2].upper()]}")
        note = f"column {column} has numbers with K, M, B or T: they are read as 1e3, 1e6, 1e9 and 1e12"
        if found and note not in self.notes:
            self.notes.append(note)
        return values

    def _refuse(self, bad: Mask, reasons: Sequence[str] | npt.NDArray[np.object_], *, skill: str = "") -> None:
        """Leave out the rows that are bad, or one skill of them; the reasons are those of the bad rows in turn."""
        for at, reason in zip(np.flatnonzero(bad), reasons, strict=True):
            if self.good[at]:
                self._left_out.append((int(at), ExcludedRun(run_id=self.run_id[at], skill=skill, reason=reason)))
        if not skill:
            self.good &= ~bad

    def _need_rows(self, what: str) -> None:
        if not self.good.any():
            first = self._left_out[0][1]
            raise InputError(
                f"no row of {self.place} has {what}; the first: {first.run_id}: {first.reason}. Mend the table, or the "
                "mapping of its columns"
            )

    def _check_flops(self, N: Floats, D: Floats) -> None:
        key = "flops" if self.columns.flops else "budget"
        flops = self._numbers(self.columns.flops or self.columns.budget, key)[self.good]
        told = (flops > 0) & np.isfinite(flops)
        if not told.any():
            return
        ratio = float(np.median((flops / (6 * N * D))[told]))
        steps = round(math.log10(ratio) / 3)
        if steps and abs(math.log10(ratio) - 3 * steps) < math.log10(3):
            cure = self._units_by_flops(key, steps, float(np.median(N)), float(np.median(D)))
            raise InputError(
                f"{key} of {self.place} is {_power(ratio, 1)} times 6 N D in the median, so a column is in other "
                f"units; add {cure} to the mapping of columns, or leave {key} out of it if that is not it"
            )
        if abs(math.log(ratio)) > math.log(_FLOPS_USUAL):
            self.notes.append(
                f"{key} is {ratio:.3g} times 6 N D in the median; leave it out of the mapping where C should be 6 N D"
            )

    def _units_by_flops(self, key: str, steps: int, N: float, D: float) -> str:
        """The units that would make 6 N D agree with FLOP that are 1000^steps times as many."""
        given = self.columns.units
        if steps < 0:
            return f"units: {{{key}: {_power(given.get(key, 1.0) * 1000.0**-steps)}}}"
        splits = [(at, steps - at) for at in range(steps + 1)]
        odds = [abs(math.log(D * 1000.0**d / (N * 1000.0**n) / _TOKENS_A_PARAM)) for n, d in splits]
        n, d = splits[int(np.argmin(odds))]
        cures = {"n_params": 1000.0**n, "n_tokens": 1000.0**d}
        shown = [f"{name}: {_power(given.get(name, 1.0) * unit)}" for name, unit in cures.items() if unit > 1]
        return f"units: {{{', '.join(shown)}}}"

    def _shares(self, runs: pd.DataFrame) -> None:
        """Shares of every row, divided by their sum where rounding has moved that from 1."""
        categories = list(self.columns.mix)
        shares = np.column_stack([self._numbers(column, "mix") for column in self.columns.mix.values()])
        bad = ~(np.isfinite(shares) & (shares >= 0))
        wrong = np.asarray(bad.any(axis=1))
        self._refuse(wrong, [_bad_share(categories, row) for row in shares[wrong]])
        self._need_rows("a mix that can be used")
        totals = shares.sum(axis=1)
        off = ~(np.abs(totals - 1) <= _tolerance(shares[self.good]))
        if off[self.good].all():
            raise InputError(self._no_mix(totals[self.good], categories))
        self._refuse(off, [f"the shares of its mix sum to {total:.6g}, not 1" for total in totals[off]])
        moved = totals[self.good & (np.abs(totals - 1) > 1e-6)]
        if len(moved):
            self.notes.append(
                f"the mix of {_rows(len(moved))} sums to {moved.min():.6g} to {moved.max():.6g}, as rounding would "
                "have it; it is divided by its sum"
            )
        # Rows that are out get any mix that can be written; shares that were divided before stay as they are
        divided = np.array([1.0 if not good or is_one(one, len(categories)) else one
                            for good, one in zip(self.good, totals, strict=True)])  # fmt: skip
        shares = np.where(self.good[:, None], shares / divided[:, None], 1 / len(categories))
        table = pd.DataFrame(shares, columns=[f"mix/{name}" for name in categories])
        group = table.groupby(list(table.columns), sort=False).ngroup().to_numpy()
        firsts = np.unique(group, return_index=True)[1]
        texts = [str(Mix(dict(zip(categories, shares[at], strict=True)))) for at in firsts]
        runs["mix"] = np.array(texts, dtype=object)[group]
        runs[table.columns] = table

    def _no_mix(self, totals: Floats, categories: list[str]) -> str:
        median = float(np.median(totals))
        if abs(median - 100) < 5:
            return (
                f"the mixes of {self.place} sum to {median:.6g}, so they are percents; add units: {{mix: 0.01}} to the "
                "mapping of columns"
            )
        return (
            f"the mixes of {self.place} sum to {totals.min():.4g} to {totals.max():.4g}, and none to 1, over "
            f"{', '.join(categories)}; name every category of the training data under mix, and none twice"
        )

    def _sem(self, runs: pd.DataFrame, name: str) -> None:
        column = self.columns.skills[name].sem
        if not column:
            return
        values = self._numbers(column, "skills", name)
        if name in self.columns.perplexity:
            with np.errstate(divide="ignore", invalid="ignore"):
                values = values / self._numbers(self.columns.skills[name].loss, "skills", name)
        bad = ~((values > 0) & np.isfinite(values))
        wrong = int((bad & ~np.isnan(values) & self.good).sum())
        if wrong:
            self.notes.append(f"sem of {name} is no positive number in {_rows(wrong)}; it is taken as unknown there")
        runs[f"sem/{name}"] = np.where(bad, np.nan, values)

    def _note_clusters(self, runs: pd.DataFrame, same: list[str]) -> None:
        """What can't be about the rows of one run."""
        if not self.columns.run:
            return
        repeated = int(runs.duplicated(same).sum())
        if repeated:
            self.notes.append(
                f"{_rows(repeated)} share run, N and D with an earlier one, but not the losses; they are taken as "
                "replicates within one run"
            )
        sizes = runs.groupby("cluster")["N"].agg(["min", "max"])
        several = int((sizes["max"] > sizes["min"]).sum())
        if several:
            self.notes.append(
                f"{several} runs hold rows of several sizes, which checkpoints of one run can't; add the column of N "
                "to run"
            )

    def _note_spread(self, runs: pd.DataFrame) -> None:
        for letter, what in (("N", "size"), ("D", "number of tokens")):
            if runs[letter].min() == runs[letter].max():
                self.notes.append(
                    f"every row has one {what}, {letter} = {runs[letter].iloc[0]:.4g}; how the loss depends on "
                    f"{letter} can't be told: add rows"
                )

    def _note_rising(self, runs: pd.DataFrame, skills: Iterable[str]) -> None:
        for name in skills:
            rising, pairs = _rising_pairs(runs, name)
            if pairs < _FEWEST_PAIRS or rising <= pairs / 2:
                continue
            low, high = runs[name].min(), runs[name].max()
            like = f" ({low:.3g} to {high:.3g} looks like one)" if high <= 1 else ""
            self.notes.append(
                f"losses of {name} (column {self.columns.skills[name].loss}) rise with D in {rising} of {pairs} pairs "
                f"of rows of one size and mix: is it an accuracy{like}? A law takes a loss in nats per token"
            )


def _check_names(frame: pd.DataFrame, columns: ColumnMap, place: str) -> None:
    there = list(frame.columns)
    absent = [(key, column) for key, column in columns.named() if column not in there]
    if absent:
        named = ", ".join(f"{column!r} for {key}{did_you_mean(column, there)}" for key, column in absent)
        shown = ", ".join(there[:40]) + (f" and {len(there) - 40} more" if len(there) > 40 else "")
        raise InputError(f"{place} has no column {named}; it has {shown}")
    for name in {column for _, column in columns.named()}:
        if there.count(name) > 1:
            raise InputError(f"{place} has {there.count(name)} columns {name!r}; name each once")


def _matches(given: "pd.Series[Any]", values: tuple[str | float, ...]) -> Mask:
    """Rows whose cell is one of the values: as numbers where the column holds numbers, else as text."""
    numbers = [number for number in map(as_number, values) if number is not None]
    if pd.api.types.is_numeric_dtype(given.dtype) and not pd.api.types.is_bool_dtype(given.dtype):
        return np.isin(given.to_numpy(dtype=float, na_value=np.nan), numbers)
    return np.isin(_texts(given).astype(str), [_plain_text(value) for value in values])


def _texts(given: "pd.Series[Any]") -> npt.NDArray[np.object_]:
    """Cells as text, whole numbers without a fraction, so that 7 and 7.0 name one run."""
    codes, values = pd.factorize(given, use_na_sentinel=False)
    return np.array([_plain_text(value) for value in values], dtype=object)[codes]


def _plain_text(value: Any) -> str:
    number = float(value) if isinstance(value, float | np.floating) else math.nan
    if number.is_integer() and abs(number) < 2**63:
        return str(int(number))
    return str(value).strip()


def _tolerance(shares: Floats) -> float:
    """How far a sum of shares may be from 1: half a unit of their last decimal, for each of them."""
    for unit in _SHARE_UNITS:
        scaled = shares / unit
        if np.all(np.abs(scaled - np.round(scaled)) < 1e-6):
            return max(_SUM_TOLERANCE, 0.5 * unit * int(shares.shape[1]))
    return _SUM_TOLERANCE


def _rising_pairs(runs: pd.DataFrame, name: str) -> tuple[int, int]:
    """How many steps from one D to the next, at one N and mix, raise the loss; and how many steps there are."""
    rows = runs[["mix", "N", "D", name]].dropna().groupby(["mix", "N", "D"], sort=True)[name].mean().reset_index()
    step = ((rows["mix"] == rows["mix"].shift()) & (rows["N"] == rows["N"].shift())).to_numpy()
    return int((rows[name].diff().to_numpy()[step] > 0).sum()), int(step.sum())


def _usable_weights(columns: ColumnMap, skills: Sequence[str]) -> dict[str, Mapping[str, float]]:
    """The aggregates whose every skill has losses."""
    return {name: weights for name, weights in columns.validation.items() if set(weights) <= set(skills)}


def _no_number(letter: str, value: float) -> str:
    return f"{letter} is missing" if math.isnan(value) else f"{letter} is {value:g}, not a positive number"


def _no_loss(value: float) -> str:
    return "no loss" if math.isnan(value) else f"loss is {value:g}, not a positive number"


def _bad_share(categories: list[str], shares: Floats) -> str:
    at = int(np.flatnonzero(~(np.isfinite(shares) & (shares >= 0)))[0])
    return f"the share of {categories[at]} in its mix is {'missing' if math.isnan(shares[at]) else shares[at]}"


def _rows(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"


def _power(value: float, digits: int = 6) -> str:
    """``1e6`` rather than 1e+06."""
    mantissa, _, exponent = f"{value:.{digits}e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"
