"""The table of an imported study, and the table of the runs of another MLflow experiment."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from skillscale.errors import InputError, show
from skillscale.laws.results import ExcludedRun
from skillscale.laws.skills.verdicts import SkillColumns
from skillscale.tables import (
    ColumnMap,
    LossColumns,
    RunTable,
    add_aggregates,
    make_run_table,
    run_columns,
)
from skillscale.tables.cell_numbers import INFINITE, cell_numbers
from skillscale.tables.column_hints import is_hint
from skillscale.tables.loss_checks import doubtful_losses
from skillscale.tables.loss_units import level_notes
from skillscale.tracking import ExternalRun, Study, StudyStore

STATUS = "status"  # of a run in MLflow, as a column
_NUMBERS = frozenset({"n_params", "n_tokens", "flops", "budget", "seed", "skills"})  # keys of a column map
_TEXT_COLUMNS = ("run_id", "cluster", "mix", "seed")  # columns of runs that are no floats
_KEY_KINDS = ("params", "metrics", "tags")
_MISSING_TEXTS = frozenset({"", "nan", "none", "null"})


def imported_table(store: StudyStore, study: Study) -> RunTable | None:
    """Return the imported runs of a study as a table, or None if the study has trained runs.

    Several imported tables are concatenated. A category that one of them lacks has a share of 0 there.
    """
    imports = store.imports(study)
    if imports is None:
        return None
    # A corrected or longer table replaces its earlier version
    sources = list({source.name: json.loads(source.described) for source in imports.sources()}.values())
    exact = dict(imports.exact())
    contents = dict.fromkeys(content for source in sources for content in source["rows"])
    rows = [json.loads(exact[content]) | {"content": content} for content in contents if content in exact]
    table = _table_of_rows(rows, sources)
    notes = (*table.notes, *_level_notes(table, [row["content"] for row in rows], sources))
    if len(rows) < len(contents):
        notes += (f"{len(contents) - len(rows)} of {len(contents)} rows are not imported yet; run the import again",)
    if len(exact) > len(rows):
        notes += (f"{len(exact) - len(rows)} imported runs are no longer in their table, and are excluded",)
    return replace(table, notes=notes)


def _level_notes(table: RunTable, contents: Sequence[str], sources: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield notes on tables whose losses differ from those of the first one as units do."""
    is_of = [np.isin(contents, source["rows"]) for source in sources]
    for mask in is_of[1:]:
        yield from level_notes(table.runs[mask & ~is_of[0]], table.runs[is_of[0]], table.skills)


def table_from_tracking(runs: Sequence[ExternalRun], columns: ColumnMap, *, convention: str, place: str) -> RunTable:
    """Return the finished runs of an MLflow experiment as a table. The others are excluded.

    Args:
        runs: runs of one experiment.
        columns: column map with the names ``params.NAME``, ``metrics.NAME``, ``tags.NAME``, ``run_id`` and
            ``run_name``. A bare NAME is enough if it is unique.
        convention: convention of N; empty: the first.
        place: name of the experiment in messages.

    Raises:
        InputError: no run is finished, a name that none or several have, or what makes a table unusable.
    """
    by_status = STATUS in columns.where
    finished = [run for run in runs if by_status or run.status == "FINISHED"]
    if not finished:
        statuses = ", ".join(sorted({run.status for run in runs})) or "it has no runs"
        raise InputError(
            f"no run of {place} is FINISHED ({statuses}). Only finished runs are imported, unless where names the "
            "states that count, as in where: {status: [FINISHED, RUNNING]}."
        )
    keys = [*dict.fromkeys(key for run in finished for key in run.fields), STATUS]
    full_names = {column: _find_key(column, keys, place) for _, column in columns.key_columns()}
    full_names |= {key: key for key in keys if is_hint(key.partition(".")[2])}
    cells = {name: [_cell_value(_field(run, key)) for run in finished] for name, key in full_names.items() if key}
    damaged = _damaged_runs(finished, cells, columns)
    finished = [run for run in finished if run.run_id not in damaged]
    cells = {name: [_cell_value(_field(run, key)) for run in finished] for name, key in full_names.items() if key}
    # The other names are for the message on a missing one
    frame = pd.DataFrame({**dict.fromkeys(keys), **cells}, index=range(len(finished)))
    labels = [run.run_id for run in finished]
    table = make_run_table(frame, columns, convention=convention, labels=labels, place=place)
    others = tuple(
        ExcludedRun(run_id=run.run_id, skill="", reason=f"it is {run.status}, not FINISHED")
        for run in runs
        if run.status != "FINISHED" and not by_status
    )
    by_id = {run.run_id: run for run in finished}
    loss_names = {name: full_names[column.loss] for name, column in columns.skills.items()}
    excluded = (_name_nan_losses(run, by_id, loss_names) for run in table.excluded)
    texts = (ExcludedRun(run_id=run_id, skill="", reason=reason) for run_id, reason in damaged.items())
    return replace(table, excluded=(*others, *texts, *excluded))


def _damaged_runs(
    runs: Sequence[ExternalRun], cells: Mapping[str, Sequence[Any]], columns: ColumnMap
) -> dict[str, str]:  # fmt: skip
    """Return the reasons by id of the runs with a text where most others have a number, as after an edit."""
    reasons: dict[str, str] = {}
    for key, column in columns.key_columns():
        if column not in cells or (key.partition(".")[0] not in _NUMBERS and not key.startswith("mix.")):
            continue
        try:
            texts = cell_numbers(pd.Series(cells[column], dtype=object), suffixes=True).texts
        except InputError:  # commas that may be decimals: refused with the cure by the table
            continue
        if len(texts) < len(runs) / 2:
            reasons |= {runs[at].run_id: f"{column} is {show(text)}, not a number" for at, text in texts.items()}
    return reasons


def _field(run: ExternalRun, key: str) -> str | float | None:
    return run.status if key == STATUS else run.fields.get(key)


def _name_nan_losses(run: ExcludedRun, runs: Mapping[str, ExternalRun], full: Mapping[str, str]) -> ExcludedRun:
    """Return an excluded loss with its reason: logged as NaN, or not logged. A table of numbers has NaN for both."""
    external = runs.get(run.run_id.partition(" ")[0])  # a run of several rows is named after it
    value = external.fields.get(full.get(run.skill, "")) if external and run.skill else None
    is_nan = isinstance(value, float) and math.isnan(value)
    return replace(run, reason="loss is NaN") if is_nan else run


def _table_of_rows(rows: Sequence[Mapping[str, Any]], sources: Sequence[Mapping[str, Any]]) -> RunTable:
    skills, sems, categories = (
        tuple(dict.fromkeys(name for source in sources for name in source[key]))
        for key in ("skills", "sems", "categories")
    )
    weights = {name: weights for source in sources for name, weights in source["weights"].items()}
    columns_after = [*(f"mix/{name}" for name in categories), *(f"sem/{name}" for name in sems)]
    columns = run_columns(skills, (), columns_after)
    runs = pd.DataFrame([{name: row.get(name, math.nan) for name in columns} for row in rows], columns=columns)
    numbers = [name for name in columns if name not in _TEXT_COLUMNS]
    runs[numbers] = runs[numbers].astype(float)
    runs["seed"] = runs["seed"].astype("int64")
    shares = [f"mix/{name}" for name in categories]
    runs[shares] = runs[shares].fillna(0.0)
    runs, infinite = _without_stored_infinity(runs, (*skills, *(f"sem/{name}" for name in sems)))
    contents = [row["content"] for row in rows]
    runs = _with_unique_ids(runs, contents)
    sampled = {content for source in sources for content in source.get("sampled", ())}
    return RunTable(
        runs=add_aggregates(runs, weights)[run_columns(skills, tuple(weights), columns_after)],
        skills=skills,
        categories=categories,
        weights=weights,
        convention=sources[0]["convention"] if sources else "",
        excluded=tuple(
            ExcludedRun(run_id=run, skill=skill, reason=why)
            for source in sources
            for run, skill, why in source["unusable"]
        )
        + infinite,
        notes=(*(note for source in sources for note in source["notes"]), *_loss_notes(sources, runs)),
        # Old imports have no splits
        splits=tuple(_skill_columns(split) for source in sources[:1] for split in source.get("splits", ())),
        categories_of={skill: name for source in sources for skill, name in source.get("categories_of", {}).items()},
        validation=tuple(dict.fromkeys(name for source in sources for name in source.get("validation", ()))),
        sampled=frozenset(run for run, content in zip(runs["run_id"], contents, strict=True) if content in sampled),
    )


def _without_stored_infinity(
    runs: pd.DataFrame, names: Sequence[str]
) -> tuple[pd.DataFrame, tuple[ExcludedRun, ...]]:  # fmt: skip
    """Return the runs with NaN for losses that an export wrote as the largest float, and these losses."""
    runs, excluded = runs.copy(), []
    for name in names:
        infinite = runs[name].abs() >= INFINITE
        if not name.startswith("sem/"):
            excluded += [
                ExcludedRun(run_id=run, skill=name, reason="loss is inf, not a positive number")
                for run in runs["run_id"][infinite]
            ]
        runs.loc[infinite, name] = math.nan
    return runs, tuple(excluded)


def _loss_notes(sources: Sequence[Mapping[str, Any]], runs: pd.DataFrame) -> Iterator[str]:
    """Yield notes on skills that an earlier version imported, although they are no losses."""
    for source in sources:
        for note in doubtful_losses(_loss_columns(source["columns"]), runs):
            yield f"{note}. Import the table again into another study"


def _loss_columns(described: Mapping[str, Any]) -> ColumnMap:
    """Return what a stored column map says about losses."""
    skills = {name: LossColumns(loss=str(column["loss"])) for name, column in described["skills"].items()}
    units = {name: float(unit) for name, unit in described.get("units", {}).items()}
    perplexity = tuple(described.get("perplexity", ()))
    return ColumnMap(n_params={}, n_tokens="", skills=skills, units=units, perplexity=perplexity)


def _skill_columns(fields: Mapping[str, Any]) -> SkillColumns:
    return SkillColumns(
        skill=fields["skill"], hypothesis=fields["hypothesis"], held_out=fields["held_out"],
        hypothesis_sets=tuple(fields["hypothesis_sets"]), held_out_sets=tuple(fields["held_out_sets"]),
    )  # fmt: skip


def _find_key(name: str, keys: Sequence[str], place: str) -> str:
    """Return the full key, as ``params.N`` for N, or nothing if no run has it."""
    if name in keys:
        return name
    candidates = [f"{kind}.{name}" for kind in _KEY_KINDS if f"{kind}.{name}" in keys]
    if len(candidates) > 1:
        raise InputError(f"{name!r} is {' and '.join(candidates)} in {place}. Write the full name of one.")
    return candidates[0] if candidates else ""


def _cell_value(value: str | float | None) -> str | float | None:
    """Return a cell, None if its text means missing: MLflow stores params as text."""
    if isinstance(value, str):
        return None if value.strip().lower() in _MISSING_TEXTS else value
    return value


def metric_name(name: str) -> str:
    """Return the nearest name that MLflow accepts. The exact name is stored with the run."""
    parts = re.sub(r"[^\w.\- :/]", "_", name).split("/")
    return "/".join(part for part in parts if part.strip(". ")) or "unnamed"


def _with_unique_ids(runs: pd.DataFrame, contents: Sequence[str]) -> pd.DataFrame:
    """Return runs with unique ids: where two tables both have a row 1, the content is added to the second id."""
    is_repeated = runs["run_id"].duplicated().to_numpy()
    if not is_repeated.any():
        return runs
    is_own_cluster = is_repeated & (runs["cluster"] == runs["run_id"]).to_numpy()
    unique_names = [f"{run} [{content[:8]}]" for run, content in zip(runs["run_id"], contents, strict=True)]
    runs = runs.assign(run_id=np.where(is_repeated, unique_names, runs["run_id"]))
    return runs.assign(cluster=np.where(is_own_cluster, unique_names, runs["cluster"]))
