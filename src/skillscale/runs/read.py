"""Where the runs of a reading command come from: a table, an imported study, or a study that was trained here."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from skillscale.config import Config, SkillConfig
from skillscale.config.options import SourceOptions
from skillscale.errors import FitError, InputError
from skillscale.formatting import plural
from skillscale.laws.results import ExcludedRun
from skillscale.laws.results import describe_exclusions as reasons_of
from skillscale.laws.skills.skill_study import MeasuredColumns
from skillscale.laws.skills.verdicts import SkillColumns
from skillscale.point import AGGREGATE
from skillscale.record import Measurement, RunRecord, RunState
from skillscale.runs import RunTable, add_aggregates, read_columns, read_table, run_columns
from skillscale.runs.imported import imported_table
from skillscale.tracking import Study, StudyStore

TOTAL, NONEMBED = "total", "nonembed"  # what N counts of a model that was trained here
_IN_WORDS = {TOTAL: "the embedding counted once", NONEMBED: "without the embedding"}
_SHOWN = 8
_PER_BYTE = "losses are in nats per byte (bits per byte times ln 2), not nats per token: tokenizers differ"
_BUDGET_GAP = 0.1  # in ln C, within which runs are taken for one budget's
_ISOFLOP_SIZES = 4


@dataclass(frozen=True, kw_only=True)
class LoadedRuns:
    """Runs to fit, and the study they are of; a table that was given directly has no study and no records."""

    table: RunTable
    name: str
    store: StudyStore | None = None
    study: Study | None = None
    records: tuple[RunRecord, ...] = ()
    trained: bool = False
    imported: bool = False

    @property
    def groups(self) -> dict[str, RunTable]:
        """The runs that one law is fitted to: all of them, or those of each named mix, by its name."""
        if self.table.categories:
            return {"": self.table}
        named = self.table.runs.groupby("mix", sort=True)
        return {str(mix): replace(self.table, runs=rows.reset_index(drop=True)) for mix, rows in named}

    @property
    def convention(self) -> str:
        """What N counts, in words; empty where nobody said."""
        return _IN_WORDS[self.table.convention] if self.trained else self.table.convention

    @property
    def of_grid(self) -> "LoadedRuns":
        """Without those that the sampler chose: at a budget's edge they have no neighbours, and seeds of their own.

        Where N is without the embedding, the runs of a budget stay those of one total 6 N D, which alone is what they
        cost: D is scaled to tell it.
        """
        runs = self.table.runs[~self.table.runs["run_id"].isin(self.table.sampled)].reset_index(drop=True)
        if not self.whole:
            totals = {one.run_id: one.point.n_params for one in self.records}
            runs = runs.assign(D=runs["D"] * runs["run_id"].map(totals) / runs["N"])
        return replace(self, table=replace(self.table, runs=runs))

    @property
    def whole(self) -> bool:
        """Whether C = 6 N D with N as it is counted."""
        return not (self.trained and self.table.convention == NONEMBED)

    @property
    def measured(self) -> MeasuredColumns:
        """Which columns are what, of those that any run has measured."""
        table = self.table
        return MeasuredColumns(
            skills=tuple(name for name in table.judged_skills if table.runs[name].notna().any()),
            aggregates=tuple(name for name in table.aggregates if table.runs[name].notna().any()),
            splits=table.splits, categories=table.skill_categories, validation=table.validation,
        )  # fmt: skip

    @property
    def has_isoflops(self) -> bool:
        """Whether the runs are an isoFLOP study: most of them are at budgets that hold 4 sizes, each run once."""
        runs = self.table.runs
        if runs["cluster"].duplicated().any() and runs["C"].isna().all():
            return False
        C = runs["C"].where(runs["C"] > 0, 6 * runs["N"] * runs["D"])
        budget = C.map(lambda flops: round(math.log(flops) / _BUDGET_GAP))
        sizes = runs.groupby([runs["mix"], budget])["N"].transform("nunique")
        return bool((sizes >= _ISOFLOP_SIZES).mean() >= 0.5)


def read_runs(source: SourceOptions, config: Config) -> LoadedRuns:
    """The runs that ``--table`` or ``--study`` name.

    Raises:
        InputError: a table without its columns, or one that can't be used.
        TrackingError: the registry has no such study.
        FitError: no run of the study is finished.
    """
    if source.table:
        if not source.columns:
            raise InputError(f"--table {source.table} needs --columns FILE, which tells what its columns are")
        columns = read_columns(source.columns)
        table = read_table(source.table, columns, convention=source.n_convention)
        return LoadedRuns(table=table, name=Path(source.table).stem)
    if source.columns:
        raise InputError("--columns tells what the columns of a table are; give --table FILE too")
    store = StudyStore.open(source.tracking, queue=source.queue)
    study = store.study(config.study.name)
    imported = imported_table(store, study)
    _check_convention(source.n_convention, imported)
    records = tuple(study.runs.records())
    driven, evaluated = store.trainer_skills(study), store.evaluated(study)
    convention = str(source.n_convention or TOTAL)
    if imported is not None:
        table = imported
    elif evaluated is not None:
        table = evaluated_table(records, evaluated, convention)
    else:
        table = trained_table(records, config, convention) if driven is None else table_of_records(records, driven)
    if table.runs.empty:
        raise FitError(
            f"no run of study {study.name} is finished; train some with `skillscale main` or `skillscale grid`"
        )
    return LoadedRuns(
        table=table,
        name=study.name,
        store=store,
        study=study,
        records=records,
        trained=driven is None and imported is None and evaluated is None,
        imported=imported is not None,
    )


def _check_convention(wanted: str, imported: RunTable | None) -> None:
    """Refuse to count N of imported runs in another way than they were imported by."""
    if imported is not None and wanted and wanted != imported.convention:
        raise InputError(
            f"the study was imported with N by the convention {imported.convention or 'of its one column'!r}, and has "
            f"no other; import the runs into another study with --n_convention {wanted}"
        )


def trained_table(records: Sequence[RunRecord], config: Config, convention: str = TOTAL) -> RunTable:
    """The finished runs of a study that was trained here.

    D is the tokens that were trained on, which whole steps make differ a little from those asked for. The aggregate is
    the weighted mean of evaluation sets that ``study.aggregate`` names.

    Raises:
        InputError: a convention that there is not.
    """
    _check_counted(convention)
    skills = tuple(skill.name for skill in config.skills.skills)
    table = replace(
        table_of_records(records, skills, budgets=config.study.budgets), weights={AGGREGATE: _aggregate_columns(config)}
    )
    if table.runs.empty:
        return table
    finished = {record.run_id: record for record in records if record.state is RunState.FINISHED}
    details = _details(config)
    losses = {
        column: [_detail(finished[run], kind, name) for run in table.runs["run_id"]]
        for column, (kind, name) in details.items()
    }
    if convention == NONEMBED:
        losses["N"] = [_nonembed(finished[run]) for run in table.runs["run_id"]]
    runs = add_aggregates(table.runs.assign(**losses), table.weights)
    ordered = [*run_columns(skills, table.aggregates, runs.columns), *details]
    return replace(
        table, runs=runs[ordered], convention=convention, splits=splits_of(config.skills.skills),
        validation=validation_of(config),
        categories_of={skill.name: skill.category for skill in config.skills.skills if skill.category},
    )  # fmt: skip


def evaluated_table(records: Sequence[RunRecord], measured: Mapping[str, Any], convention: str = TOTAL) -> RunTable:
    """The finished runs of a study of checkpoints that were trained elsewhere, with losses in nats per byte.

    Tokens of several tokenizers are no common unit, bytes of the text are. Where no run was trained on several
    categories, their names are names of data sets.

    Args:
        records: the runs.
        measured: what ``open_evaluated`` was told; its ``skills`` are those of the configuration.
        convention: of N.

    Raises:
        InputError: a convention that there is not.
    """
    _check_counted(convention)
    known = tuple(SkillConfig(**one) for one in measured["skills"])
    skills, splits = tuple(one.name for one in known), splits_of(known)
    told = [_per_byte(record) for record in records]
    table = table_of_records(told, skills)
    if table.runs.empty:
        return table
    ours = [record for record in told if record.state is RunState.FINISHED]
    details = _split_details(splits)
    columns: dict[str, list[Any]] = {
        column: [_detail(one, kind, name) for one in ours] for column, (kind, name) in details.items()
    }
    columns["cluster"] = [(one.checkpoint.training_run if one.checkpoint else "") or one.run_id for one in ours]
    if convention == NONEMBED:
        columns["N"] = [_nonembed(one) for one in ours]
    categories = table.categories
    if all(len(one.point.mix.shares) == 1 for one in ours):
        columns["mix"], categories = [next(iter(one.point.mix.shares)) for one in ours], ()
    runs = table.runs.assign(**columns)
    kept = [name for name in run_columns(skills, (), runs.columns) if categories or not name.startswith("mix/")]
    return replace(
        table, runs=runs[[*kept, *details]], categories=categories, convention=convention, splits=splits,
        categories_of={one.name: one.category for one in known if one.category}, notes=(_PER_BYTE,),
    )  # fmt: skip


def _per_byte(record: RunRecord) -> RunRecord:
    """A record with losses in nats per byte in place of nats per token."""

    def converted(measured: Mapping[str, Measurement]) -> dict[str, Measurement]:
        nats = math.log(2)
        return {name: replace(one, loss=one.bpb * nats, sem=one.bpb_sem * nats) for name, one in measured.items()}

    return replace(
        record, skills=converted(record.skills), skills_held_out=converted(record.skills_held_out),
        sets=converted(record.sets),
    )  # fmt: skip


def _check_counted(convention: str) -> None:
    if convention not in _IN_WORDS:
        raise InputError(
            f"--n_convention of a study that was trained or measured here is {' or '.join(_IN_WORDS)}, not {convention!r}"
        )


def _nonembed(record: RunRecord) -> float:
    """Parameters without the embedding.

    Raises:
        InputError: an old record has no sizes.
    """
    if record.size is None:
        raise InputError(
            f"run {record.run_id} has no record of its size without the embedding; take --n_convention total"
        )
    return float(record.size.n_params_nonembed)


def splits_of(skills: Sequence[SkillConfig]) -> tuple[SkillColumns, ...]:
    """The columns of each skill; a split of one set is that set."""

    def several(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"set/{name}" for name in names) if len(names) > 1 else ()

    return tuple(
        SkillColumns(
            skill=one.name, hypothesis=one.name, held_out=f"{one.name} held-out" if one.held_out else "",
            hypothesis_sets=several(one.hypothesis), held_out_sets=several(one.held_out),
        )
        for one in skills
    )  # fmt: skip


def validation_of(config: Config) -> tuple[str, ...]:
    """The columns of the categories' validation sets."""
    return tuple(f"val/{name}" for name in config.data.category_names)


def _details(config: Config) -> dict[str, tuple[str, str]]:
    """What each column beside the skills is: a mean over a held-out split, or an evaluation set, by its name."""
    sets = [*validation_of(config), *_aggregate_columns(config)]
    return _split_details(splits_of(config.skills.skills)) | {name: ("set", name.removeprefix("set/")) for name in sets}


def _split_details(splits: Sequence[SkillColumns]) -> dict[str, tuple[str, str]]:
    held_out = {one.held_out: ("held_out", one.skill) for one in splits if one.held_out}
    sets = [column for one in splits for column in (*one.hypothesis_sets, *one.held_out_sets)]
    return held_out | {column: ("set", column.removeprefix("set/")) for column in sets}


def _aggregate_columns(config: Config) -> dict[str, float]:
    """Weight of each column in the aggregate."""
    weights = aggregate_weights(config)
    return {name if name.startswith("val/") else f"set/{name}": weight for name, weight in weights.items()}


def _detail(record: RunRecord, kind: str, name: str) -> float:
    return _loss(record.skills_held_out if kind == "held_out" else record.sets, name)


def table_of_records(records: Sequence[RunRecord], skills: Sequence[str], *, budgets: Sequence[float] = ()) -> RunTable:
    """The finished ones of some runs.

    Args:
        records: the runs.
        skills: their columns; a loss that a run has not measured is NaN.
        budgets: nominal ones, FLOP.
    """
    finished = [record for record in records if record.state is RunState.FINISHED]
    categories = sorted({name for record in finished for name in record.point.mix.shares})
    rows = [_row(record, skills, categories, budgets) for record in finished]
    unusable = tuple(
        ExcludedRun(run_id=record.run_id, skill="", reason=f"it is {record.state}{_because(record.reason)}")
        for record in records
        if record.state is not RunState.FINISHED
    )
    return RunTable(
        runs=pd.DataFrame(rows), skills=tuple(skills), categories=tuple(categories),
        excluded=unusable, sampled=frozenset(record.run_id for record in finished if record.purpose),
    )  # fmt: skip


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
    """Weight of each evaluation set in the aggregate: as configured, or the validation sets by the base mix."""
    given = dict(config.study.aggregate) or {
        f"val/{name}": share for name, share in config.study.mix_values[0].shares.items()
    }
    total = math.fsum(given.values())
    return {name: weight / total for name, weight in given.items()}


def nominal_budget(flops: float, budgets: Sequence[float]) -> float:
    """The study's budget that a run belongs to (within 5 %, for D is rounded), or NaN: the fit then groups by 6 N D."""
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


def describe_exclusions(unusable: Sequence[ExcludedRun]) -> list[str]:
    """Return how many rows and losses are excluded and why, with the names of the first."""
    return [f"excluded: {line}" for line in reasons_of(unusable, _SHOWN)]


def _loss(measured: Mapping[str, Any], name: str) -> float:
    return measured[name].loss if name in measured else math.nan


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""
