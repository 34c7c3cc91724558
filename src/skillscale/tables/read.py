"""Runs for the commands that analyse them: from a table, an imported study, or a trained study."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from skillscale.config import Config, SkillConfig
from skillscale.config.options import SourceOptions
from skillscale.errors import FitError, InputError
from skillscale.formatting import plural
from skillscale.laws.results import ExcludedRun
from skillscale.laws.results import describe_exclusions as reason_lines
from skillscale.laws.skills.skill_study import MeasuredColumns
from skillscale.laws.skills.verdicts import SkillColumns
from skillscale.point import AGGREGATE, RESERVED_COLUMNS
from skillscale.record import Measurement, RunRecord, RunState
from skillscale.tables import (
    ColumnMap,
    RunTable,
    add_aggregates,
    make_run_table,
    parse_columns,
    read_columns,
    read_table,
    run_columns,
)
from skillscale.tables.bounded_files import Progress
from skillscale.tables.cell_numbers import INFINITE
from skillscale.tables.column_guess import guess_columns
from skillscale.tables.column_map import LossColumns
from skillscale.tables.files import read_sample
from skillscale.tables.imported import imported_table
from skillscale.tables.large_tables import thin_table
from skillscale.tables.loss_checks import diverged, doubtful_losses
from skillscale.tracking import Study, StudyStore

TOTAL, NONEMBED = "total", "nonembed"  # what N counts, for models that skillscale trained
_CONVENTION_WORDS = {TOTAL: "the embedding counted once", NONEMBED: "without the embedding"}
_REASONS_SHOWN = 8
_PER_BYTE_NOTE = "losses are in nats per byte (bits per byte times ln 2), not nats per token: tokenizers differ"
_BUDGET_GAP = 0.1  # ln C, within which runs count as one budget
_ISOFLOP_SIZES = 4
_TINY = 1e-6  # share of the median below which no loss falls
_MISSING = 0.5  # share of runs without a loss, from which the study never measured the skill

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LoadedRuns:
    """Runs to fit and their study. A table that was given directly has no study and no records.

    ``arguments``: options that name these runs to a command.
    """

    table: RunTable
    name: str
    store: StudyStore | None = None
    study: Study | None = None
    records: tuple[RunRecord, ...] = ()
    trained: bool = False
    imported: bool = False
    arguments: str = ""

    @property
    def groups(self) -> dict[str, RunTable]:
        """Runs that share a law: all of them, or those of each named mix, by its name."""
        if self.table.categories:
            return {"": self.table}
        named = self.table.runs.groupby("mix", sort=True)
        return {str(mix): replace(self.table, runs=rows.reset_index(drop=True)) for mix, rows in named}

    @property
    def convention(self) -> str:
        """Words for what N counts, or empty if unknown."""
        return _CONVENTION_WORDS[self.table.convention] if self.trained else self.table.convention

    @property
    def grid_runs(self) -> "LoadedRuns":
        """Runs without those that the sampler chose, which are at no budget and share no seeds.

        Without the embedding in N, D is scaled so that the runs of a budget keep one total 6 N D, which is their cost.
        """
        runs = self.table.runs[~self.table.runs["run_id"].isin(self.table.sampled)].reset_index(drop=True)
        if not self.C_is_6ND:
            totals = {record.run_id: record.point.n_params for record in self.records}
            runs = runs.assign(D=runs["D"] * runs["run_id"].map(totals) / runs["N"])
        return replace(self, table=replace(self.table, runs=runs))

    @property
    def C_is_6ND(self) -> bool:
        """Whether C = 6 N D with this convention of N."""
        return not (self.trained and self.table.convention == NONEMBED)

    @property
    def measured_columns(self) -> MeasuredColumns:
        """The meaning of the columns that have any loss."""
        table = self.table
        return MeasuredColumns(
            skills=tuple(name for name in table.judged_skills if table.runs[name].notna().any()),
            aggregates=tuple(name for name in table.aggregates if table.runs[name].notna().any()),
            splits=table.splits, categories=table.skill_categories, validation=table.validation,
        )  # fmt: skip

    @property
    def has_isoflops(self) -> bool:
        """Whether the runs are an isoFLOP study: most of them are at budgets with 4 sizes, each run once."""
        runs = self.table.runs
        if runs["cluster"].duplicated().any() and runs["C"].isna().all():
            return False
        C = runs["C"].where(runs["C"] > 0, 6 * runs["N"] * runs["D"])
        budget = _budget_numbers(C, runs["C"] > 0)
        sizes = runs.groupby([runs["mix"], budget])["N"].transform("nunique")
        return bool((sizes >= _ISOFLOP_SIZES).mean() >= 0.5)


def _budget_numbers(C: "pd.Series[float]", given: "pd.Series[bool]") -> "pd.Series[int]":
    """Return a number for the budget of each run: ln C in steps, and one for given FLOP that differ by little."""
    budget = C.map(lambda flops: round(math.log(flops) / _BUDGET_GAP))
    log_C = C[given].map(math.log).sort_values()
    chain = log_C.groupby((log_C.diff() > _BUDGET_GAP).cumsum())
    narrow = chain.transform("max") - chain.transform("min") < _BUDGET_GAP
    budget[narrow.index[narrow]] = budget[narrow.index[narrow]].groupby(chain.ngroup()[narrow]).transform("min")
    return budget


def column_map_of(table: str, columns: str) -> tuple[ColumnMap, tuple[str, ...]]:
    """Return the column map of a file, or a guess by the names of the columns, with a note that shows it.

    Args:
        table: path of the table.
        columns: path of the column map; empty: guess.

    Raises:
        InputError: a file can't be read, or no column is N, D or a loss by its name.
    """
    if columns:
        return read_columns(columns), ()
    guess = guess_columns(read_sample(Path(table)))
    guess.require(Path(table).name)
    return parse_columns(guess.raw, place=f"the columns of {Path(table).name}"), (guess.text,)


def runs_of_frame(frame: pd.DataFrame, columns: ColumnMap | None, *, convention: str = "") -> LoadedRuns:
    """Return the runs of a data frame.

    Args:
        frame: one row a run or checkpoint.
        columns: column map; None: by the names of the columns.
        convention: name of what N counts in the column map; empty: the first.

    Raises:
        InputError: a frame that can't be used, or no column is N, D or a loss by its name.
    """
    notes: tuple[str, ...] = ()
    if columns is None:
        guess = guess_columns(frame)
        guess.require("the frame")
        columns, notes = parse_columns(guess.raw), (guess.text,)
    table = make_run_table(frame, columns, convention=convention, place="the frame")
    return LoadedRuns(table=thin_table(replace(table, notes=(*notes, *table.notes))), name="frame")


def read_runs(
    source: SourceOptions, config: Config, progress: Progress | None = None, *, whole: bool = False
) -> LoadedRuns:
    """Return the runs of a table or a study.

    Args:
        source: the table or the study.
        config: settings.
        progress: receiver of lines on a large table.
        whole: whether all rows are needed, rather than as many as can be fitted.

    Raises:
        InputError: a table without a column map, or one that can't be used.
        TrackingError: the store has no such study.
        FitError: no run of the study is finished.
    """
    if source.table:
        columns, notes = column_map_of(source.table, source.columns)
        table = read_table(source.table, columns, convention=source.n_convention, progress=progress)
        table = replace(table, notes=(*notes, *table.notes))
        return LoadedRuns(
            table=table if whole else thin_table(table), name=Path(source.table).stem, arguments=source.arguments
        )
    if source.columns:
        raise InputError("--columns needs --table FILE. Add it.")
    store = StudyStore.open(source.tracking, queue=source.queue)
    study = store.study(config.study.name)
    imported = imported_table(store, study)
    _check_convention(source.n_convention, imported)
    records: tuple[RunRecord, ...] = tuple(study.runs.records())
    surplus: tuple[ExcludedRun, ...] = ()
    if imported is None:
        records, surplus = split_surplus(records)
    trainer_skills, checkpoint_study = store.trainer_skills(study), store.evaluated(study)
    convention = str(source.n_convention or TOTAL)
    if imported is not None:
        table = imported
    elif checkpoint_study is not None:
        table = evaluated_table(records, checkpoint_study, convention)
    else:
        table = (
            trained_table(records, config, convention)
            if trainer_skills is None
            else _trainer_table(records, trainer_skills)
        )
    if imported is None:
        table = replace(table, excluded=table.excluded + surplus + _damaged(study))
    if table.runs.empty:
        raise FitError(
            f"no run of study {study.name} is finished. Train some with `skillscale main` or `skillscale grid`."
        )
    return LoadedRuns(
        table=table if whole else thin_table(table),
        arguments=source.arguments,
        name=study.name,
        store=store,
        study=study,
        records=records,
        trained=trainer_skills is None and imported is None and checkpoint_study is None,
        imported=imported is not None,
    )


def _damaged(study: Study) -> tuple[ExcludedRun, ...]:
    """Return the runs of a study that could not be read, and the losses that a file of theirs had."""
    damaged = (
        ExcludedRun(run_id=run.name, skill="", reason=f"it is damaged: {run.reason}") for run in study.runs.damaged
    )
    incomplete = (
        ExcludedRun(run_id=run.name, skill="further losses", reason=run.reason) for run in study.runs.incomplete
    )
    return (*damaged, *incomplete)


def without_bad_losses(table: RunTable) -> RunTable:
    """Return the table without losses that no model has, in the columns of skills, splits and validation sets.

    Bad are losses that are not positive, infinite, far above or far below all others, and those with a bad standard
    error. A skill that most runs measured is missing where a run lacks it.
    """
    runs, excluded = table.runs.copy(), list(table.excluded)
    if runs.empty:
        return table
    other = {*RESERVED_COLUMNS, *table.aggregates}
    for column in [name for name in map(str, runs) if name not in other and not name.startswith(("sem/", "mix/"))]:
        losses = runs[column].to_numpy(dtype=float)
        errors = runs[f"sem/{column}"].to_numpy(dtype=float) if f"sem/{column}" in runs else np.zeros(len(runs))
        reasons = _loss_problems(losses, errors, is_skill=column in table.skills)
        excluded += [
            ExcludedRun(run_id=str(run), skill=column, reason=reason)
            for run, reason in zip(runs["run_id"], reasons, strict=True) if reason
        ]  # fmt: skip
        runs.loc[[bool(reason) for reason in reasons], [column, *{f"sem/{column}"} & {*runs}]] = math.nan
    return replace(table, runs=add_aggregates(runs, table.weights), excluded=tuple(dict.fromkeys(excluded)))


def _loss_problems(losses: Floats, errors: Floats, *, is_skill: bool) -> list[str]:
    """Return why each loss can't be used, or nothing."""
    given = losses[(losses > 0) & (losses < INFINITE)]
    least = _TINY * float(np.median(given)) if len(given) else 0.0
    bad = (losses <= 0) | (losses >= INFINITE) | (losses < least) | diverged(losses)
    bad_error = (errors < 0) | (errors >= INFINITE)
    is_missing = np.isnan(losses) & is_skill & (np.isnan(losses).mean() < _MISSING)
    return [
        f"loss is {loss:.6g}, which no model has" if is_bad
        else f"standard error of its loss is {error:.6g}" if is_bad_error
        else "its loss is missing, which most other runs have" if is_absent
        else ""
        for loss, error, is_bad, is_bad_error, is_absent in zip(losses, errors, bad, bad_error, is_missing, strict=True)
    ]  # fmt: skip


def _trainer_table(records: Sequence[RunRecord], skills: Sequence[str]) -> RunTable:
    """Return the finished runs of the user's own trainer, with notes on what it measures and is no loss."""
    table = table_of_records(records, skills)
    if table.runs.empty:
        return table
    columns = ColumnMap(n_params={}, n_tokens="", skills={name: LossColumns(loss=name) for name in skills})
    return replace(table, notes=(*table.notes, *doubtful_losses(columns, table.runs)))


def split_surplus(records: Sequence[RunRecord]) -> tuple[tuple[RunRecord, ...], tuple[ExcludedRun, ...]]:
    """Return the records with one finished run a point, and the others, which were restored or copied in MLflow.

    Args:
        records: runs of a study in order of their beginning.
    """
    kept: dict[tuple[str, str], RunRecord] = {}
    surplus: list[str] = []
    for record in records:
        key = (record.point.key, record.checkpoint.checkpoint_digest if record.checkpoint else "")
        if record.state is RunState.FINISHED and kept.setdefault(key, record) is not record:
            surplus.append(record.run_id)
    reason = "its point has another finished run, which is used. Was it restored or copied? Delete one of them"
    excluded = tuple(ExcludedRun(run_id=run_id, skill="", reason=reason) for run_id in surplus)
    return tuple(record for record in records if record.run_id not in surplus), excluded


def _check_convention(convention: str, imported: RunTable | None) -> None:
    """Refuse a convention of N that differs from that of the import."""
    if imported is not None and convention and convention != imported.convention:
        raise InputError(
            f"the study was imported with N by the convention {imported.convention or 'of its one column'!r}, not "
            f"{convention!r}. Import the runs into another study with --n_convention {convention}."
        )


def trained_table(records: Sequence[RunRecord], config: Config, convention: str = TOTAL) -> RunTable:
    """Return the finished runs of a trained study.

    D counts the tokens of whole training steps, so it differs a little from the requested number. The aggregate is the
    weighted mean of the evaluation sets in ``study.aggregate``.

    Raises:
        InputError: there is no such convention.
    """
    _check_own_convention(convention)
    skills = tuple(skill.name for skill in config.skills.skills)
    records, unsized = _split_unsized(records, convention)
    table = replace(
        table_of_records(records, skills, budgets=config.study.budgets), weights={AGGREGATE: _aggregate_columns(config)}
    )
    if table.runs.empty:
        return table
    finished = {record.run_id: record for record in records if record.state is RunState.FINISHED}
    details = _column_sources(config)
    losses = {
        column: [_read_source(finished[run], kind, name) for run in table.runs["run_id"]]
        for column, (kind, name) in details.items()
    }
    if convention == NONEMBED:
        losses["N"] = [_nonembed_params(finished[run]) for run in table.runs["run_id"]]
    runs = add_aggregates(table.runs.assign(**losses), table.weights)
    ordered = [*run_columns(skills, table.aggregates, runs.columns), *details]
    table = without_bad_losses(replace(table, runs=runs[ordered], excluded=table.excluded + unsized))
    return replace(
        table, convention=convention, splits=splits_of(config.skills.skills),
        validation=validation_of(config),
        categories_of={skill.name: skill.category for skill in config.skills.skills if skill.category},
    )  # fmt: skip


def evaluated_table(records: Sequence[RunRecord], description: Mapping[str, Any], convention: str = TOTAL) -> RunTable:
    """Return the finished runs of a study of checkpoints trained elsewhere, with losses in nats per byte.

    Tokens of different tokenizers are no common unit, but bytes are. If every run was trained on a single category,
    the categories become names of mixes.

    Args:
        records: runs of the study.
        description: description from ``open_evaluated``, with the ``skills`` of the configuration.
        convention: convention of N.

    Raises:
        InputError: there is no such convention.
    """
    _check_own_convention(convention)
    skill_configs = tuple(SkillConfig(**fields) for fields in description["skills"])
    skills, splits = tuple(skill.name for skill in skill_configs), splits_of(skill_configs)
    converted = [_in_nats_per_byte(record) for record in records]
    table = table_of_records(converted, skills)
    if table.runs.empty:
        return table
    finished = [record for record in converted if record.state is RunState.FINISHED]
    details = _split_sources(splits)
    columns: dict[str, list[Any]] = {
        column: [_read_source(record, kind, name) for record in finished] for column, (kind, name) in details.items()
    }
    columns["cluster"] = [
        (record.checkpoint.training_run if record.checkpoint else "") or record.run_id for record in finished
    ]
    if convention == NONEMBED:
        columns["N"] = [_nonembed_params(record) for record in finished]
    categories = table.categories
    if all(len(record.point.mix.shares) == 1 for record in finished):
        columns["mix"], categories = [next(iter(record.point.mix.shares)) for record in finished], ()
    runs = table.runs.assign(**columns)
    kept = [name for name in run_columns(skills, (), runs.columns) if categories or not name.startswith("mix/")]
    table = without_bad_losses(replace(table, runs=runs[[*kept, *details]]))
    return replace(
        table, categories=categories, convention=convention, splits=splits,
        categories_of={skill.name: skill.category for skill in skill_configs if skill.category},
        notes=(_PER_BYTE_NOTE, *_several_checkpoints(runs)),
    )  # fmt: skip


def _several_checkpoints(runs: pd.DataFrame) -> list[str]:
    """Return a note on training runs with checkpoints at several D."""
    several = int(runs.groupby("cluster")["D"].nunique().gt(1).sum())
    note = (
        f"{plural(several, 'training run')} with checkpoints at several D: before the end of a learning-rate decay a "
        "loss is too high. Evaluate the last checkpoints alone in a study, unless the rate was constant"
    )
    return [note] * bool(several)


def _in_nats_per_byte(record: RunRecord) -> RunRecord:
    """Return a record with losses in nats per byte instead of nats per token."""

    def convert(measurements: Mapping[str, Measurement]) -> dict[str, Measurement]:
        nats = math.log(2)
        return {
            name: replace(measurement, loss=measurement.bpb * nats, sem=measurement.bpb_sem * nats)
            for name, measurement in measurements.items()
        }

    return replace(
        record, skills=convert(record.skills), skills_held_out=convert(record.skills_held_out),
        sets=convert(record.sets),
    )  # fmt: skip


def _check_own_convention(convention: str) -> None:
    if convention not in _CONVENTION_WORDS:
        raise InputError(
            f"--n_convention of a trained or evaluated study is {' or '.join(_CONVENTION_WORDS)}, not {convention!r}"
        )


def _split_unsized(
    records: Sequence[RunRecord], convention: str
) -> tuple[Sequence[RunRecord], tuple[ExcludedRun, ...]]:  # fmt: skip
    """Return the records without the few that lack the size that the convention needs, and those as excluded."""
    unsized = [record for record in records if record.state is RunState.FINISHED and record.size is None]
    n_finished = sum(record.state is RunState.FINISHED for record in records)
    if convention != NONEMBED or len(unsized) == n_finished:
        return records, ()
    reason = "it has no record of its size without the embedding"
    excluded = tuple(ExcludedRun(run_id=record.run_id, skill="", reason=reason) for record in unsized)
    return [record for record in records if record not in unsized], excluded


def _nonembed_params(record: RunRecord) -> float:
    """Return the parameters without the embedding.

    Raises:
        InputError: an old record has no sizes.
    """
    if record.size is None:
        raise InputError(
            f"run {record.run_id} has no record of its size without the embedding. Use --n_convention total."
        )
    return float(record.size.n_params_nonembed)


def splits_of(skills: Sequence[SkillConfig]) -> tuple[SkillColumns, ...]:
    """Return the columns of each skill. A split of one set has no set columns."""

    def set_columns(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"set/{name}" for name in names) if len(names) > 1 else ()

    return tuple(
        SkillColumns(
            skill=skill.name, hypothesis=skill.name, held_out=f"{skill.name} held-out" if skill.held_out else "",
            hypothesis_sets=set_columns(skill.hypothesis), held_out_sets=set_columns(skill.held_out),
        )
        for skill in skills
    )  # fmt: skip


def validation_of(config: Config) -> tuple[str, ...]:
    """Return the columns of the validation sets of the categories."""
    return tuple(f"val/{name}" for name in config.data.category_names)


def _column_sources(config: Config) -> dict[str, tuple[str, str]]:
    """Return the source of each further column: the mean of a held-out split, or an evaluation set."""
    sets = [*validation_of(config), *_aggregate_columns(config)]
    return _split_sources(splits_of(config.skills.skills)) | {name: ("set", name.removeprefix("set/")) for name in sets}


def _split_sources(splits: Sequence[SkillColumns]) -> dict[str, tuple[str, str]]:
    held_out = {split.held_out: ("held_out", split.skill) for split in splits if split.held_out}
    sets = [column for split in splits for column in (*split.hypothesis_sets, *split.held_out_sets)]
    return held_out | {column: ("set", column.removeprefix("set/")) for column in sets}


def _aggregate_columns(config: Config) -> dict[str, float]:
    """Return the weight of each column in the aggregate."""
    weights = aggregate_weights(config)
    return {name if name.startswith("val/") else f"set/{name}": weight for name, weight in weights.items()}


def _read_source(record: RunRecord, kind: str, name: str) -> float:
    return _loss(record.skills_held_out if kind == "held_out" else record.sets, name)


def table_of_records(records: Sequence[RunRecord], skills: Sequence[str], *, budgets: Sequence[float] = ()) -> RunTable:
    """Return the table of the finished runs.

    Args:
        records: runs in any state.
        skills: names of the skills; a missing loss is NaN.
        budgets: nominal budgets, FLOP.
    """
    finished = [record for record in records if record.state is RunState.FINISHED]
    categories = sorted({name for record in finished for name in record.point.mix.shares})
    rows = [_row(record, skills, categories, budgets) for record in finished]
    excluded = tuple(
        ExcludedRun(run_id=record.run_id, skill="", reason=f"it is {record.state}{_with_reason(record.reason)}")
        for record in records
        if record.state is not RunState.FINISHED
    )
    table = RunTable(
        runs=pd.DataFrame(rows), skills=tuple(skills), categories=tuple(categories),
        excluded=excluded, sampled=frozenset(record.run_id for record in finished if record.purpose),
    )  # fmt: skip
    return without_bad_losses(table)


def _row(
    record: RunRecord, skills: Sequence[str], categories: Sequence[str], budgets: Sequence[float]
) -> dict[str, object]:
    losses: dict[str, object] = {name: _loss(record.skills, name) for name in skills}
    sems = {f"sem/{name}": record.skills[name].sem if name in record.skills else math.nan for name in skills}
    return {
        "run_id": record.run_id,
        "cluster": (record.optimizer_plan and record.optimizer_plan.stable_phase) or record.run_id,
        "C": nominal_budget(record.point.flops, budgets),
        "N": float(record.point.n_params),
        "D": float(sum(use.tokens for use in record.data_use.values()) or record.point.n_tokens),
        "mix": str(record.point.mix),
        "seed": record.point.seed,
        **losses,
        **sems,
        **{f"mix/{name}": record.point.mix.shares.get(name, 0.0) for name in categories},
    }


def aggregate_weights(config: Config) -> dict[str, float]:
    """Return the weight of each evaluation set in the aggregate: as configured, or by the base mix."""
    weights = dict(config.study.aggregate) or {
        f"val/{name}": share for name, share in config.study.mix_values[0].shares.items()
    }
    total = math.fsum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def nominal_budget(flops: float, budgets: Sequence[float]) -> float:
    """Return the budget of the study within 5 % of a run (D is rounded), or NaN: the fit then groups by 6 N D."""
    nearest = min(budgets, key=lambda budget: abs(math.log(flops / budget)), default=math.nan)
    return nearest if nearest > 0 and abs(math.log(flops / nearest)) < 0.05 else math.nan


def exclusion_lines(runs: LoadedRuns) -> list[str]:
    """Return what was excluded from the runs and why, and the notes of their table, for a person."""
    table = runs.table
    lines = [f"note: {note}" for note in table.notes]
    if not (runs.imported and table.excluded):
        return lines + describe_exclusions(table.excluded)
    rows = sum(not item.skill for item in table.excluded)
    return [*lines, f"excluded by the import: {plural(rows, 'run')}, {len(table.excluded) - rows} losses"]


def describe_exclusions(excluded: Sequence[ExcludedRun]) -> list[str]:
    """Return how many rows and losses are excluded and why, with the names of the first."""
    return [f"excluded: {line}" for line in reason_lines(excluded, _REASONS_SHOWN)]


def _loss(measurements: Mapping[str, Any], name: str) -> float:
    return measurements[name].loss if name in measurements else math.nan


def _with_reason(reason: str) -> str:
    return f": {reason}" if reason else ""
