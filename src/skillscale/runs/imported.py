"""The table of an imported study, and the table that the runs of another MLflow experiment make."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from skillscale.errors import InputError
from skillscale.laws.results import ExcludedRun
from skillscale.laws.skills.verdicts import SkillColumns
from skillscale.runs import (
    ColumnMap,
    RunTable,
    add_aggregates,
    make_run_table,
    run_columns,
)
from skillscale.tracking import ExternalRun, Study, StudyStore

_WORDS = ("run_id", "cluster", "mix", "seed")  # columns of runs that are no floats
_KINDS = ("params", "metrics", "tags")
_UNKNOWN = frozenset({"", "nan", "none", "null"})


def imported_table(registry: StudyStore, study: Study) -> RunTable | None:
    """The imported runs of a study as the table that they were read from; None if the study was begun by training.

    Where several tables were imported, they follow one another; a category that one of them lacks has no share in it.
    """
    imports = registry.imports(study)
    if imports is None:
        return None
    # A table that was mended or has grown since takes the place of its former self
    sources = list({one.name: json.loads(one.described) for one in imports.sources()}.values())
    exact = dict(imports.exact())
    wanted = dict.fromkeys(content for source in sources for content in source["rows"])
    rows = [json.loads(exact[content]) | {"content": content} for content in wanted if content in exact]
    table = _table_of_rows(rows, sources)
    notes = table.notes
    if len(rows) < len(wanted):
        notes += (f"{len(wanted) - len(rows)} of {len(wanted)} rows are not imported yet; run the import again",)
    if len(exact) > len(rows):
        notes += (f"{len(exact) - len(rows)} imported runs are no longer in their table, and left out",)
    return replace(table, notes=notes)


def table_from_tracking(runs: Sequence[ExternalRun], columns: ColumnMap, *, convention: str, place: str) -> RunTable:
    """The finished runs of an MLflow experiment as a table; the others are named as unusable.

    Args:
        runs: of one experiment.
        columns: which of ``params.NAME``, ``metrics.NAME``, ``tags.NAME``, ``run_id`` and ``run_name`` is what; a bare
            NAME where only one of them has it.
        convention: of N; empty: the first.
        place: where the runs are from, for messages.

    Raises:
        InputError: no run is finished, a name that none or several have, or what makes a table unusable.
    """
    finished = [run for run in runs if run.status == "FINISHED"]
    if not finished:
        statuses = ", ".join(sorted({run.status for run in runs})) or "it has no runs"
        raise InputError(f"no run of {place} is FINISHED ({statuses}); only finished runs are imported")
    known = list(dict.fromkeys(key for run in finished for key in run.fields))
    found = {column: _full_name(column, known, place) for _, column in columns.key_columns()}
    read = {name: [_cell(run.fields.get(full)) for run in finished] for name, full in found.items() if full}
    # The other names are there for the message on one that no run has
    frame = pd.DataFrame({**dict.fromkeys(known), **read}, index=range(len(finished)))
    labels = [run.run_id for run in finished]
    table = make_run_table(frame, columns, convention=convention, labels=labels, place=place)
    others = tuple(
        ExcludedRun(run_id=run.run_id, skill="", reason=f"it is {run.status}, not FINISHED")
        for run in runs
        if run.status != "FINISHED"
    )
    by_id = {run.run_id: run for run in finished}
    full = {name: found[one.loss] for name, one in columns.skills.items()}
    mended = (_with_nan(one, by_id, full) for one in table.excluded)
    return replace(table, excluded=(*others, *mended))


def _with_nan(one: ExcludedRun, runs: Mapping[str, ExternalRun], full: Mapping[str, str]) -> ExcludedRun:
    """A loss that was logged as NaN is not one that nobody logged; a table of numbers has NaN for both."""
    run = runs.get(one.run_id.partition(" ")[0])  # a run of several rows is named after it
    value = run.fields.get(full.get(one.skill, "")) if run and one.skill else None
    is_nan = isinstance(value, float) and math.isnan(value)
    return replace(one, reason="loss is NaN") if is_nan else one


def _table_of_rows(rows: Sequence[Mapping[str, Any]], sources: Sequence[Mapping[str, Any]]) -> RunTable:
    skills, sems, categories = (
        tuple(dict.fromkeys(name for source in sources for name in source[key]))
        for key in ("skills", "sems", "categories")
    )
    weights = {name: weights for source in sources for name, weights in source["weights"].items()}
    rest = [*(f"mix/{name}" for name in categories), *(f"sem/{name}" for name in sems)]
    columns = run_columns(skills, (), rest)
    runs = pd.DataFrame([{name: row.get(name, math.nan) for name in columns} for row in rows], columns=columns)
    numbers = [name for name in columns if name not in _WORDS]
    runs[numbers] = runs[numbers].astype(float)
    runs["seed"] = runs["seed"].astype("int64")
    shares = [f"mix/{name}" for name in categories]
    runs[shares] = runs[shares].fillna(0.0)
    contents = [row["content"] for row in rows]
    runs = _unique(runs, contents)
    sampled = {content for source in sources for content in source.get("sampled", ())}
    return RunTable(
        runs=add_aggregates(runs, weights)[run_columns(skills, tuple(weights), rest)],
        skills=skills,
        categories=categories,
        weights=weights,
        convention=sources[0]["convention"] if sources else "",
        excluded=tuple(
            ExcludedRun(run_id=run, skill=skill, reason=why) for one in sources for run, skill, why in one["unusable"]
        ),
        notes=tuple(note for one in sources for note in one["notes"]),
        # Studies that were imported before there were splits tell of none
        splits=tuple(_split(each) for one in sources[:1] for each in one.get("splits", ())),
        categories_of={skill: name for one in sources for skill, name in one.get("categories_of", {}).items()},
        validation=tuple(dict.fromkeys(name for one in sources for name in one.get("validation", ()))),
        sampled=frozenset(run for run, one in zip(runs["run_id"], contents, strict=True) if one in sampled),
    )


def _split(told: Mapping[str, Any]) -> SkillColumns:
    return SkillColumns(
        skill=told["skill"], hypothesis=told["hypothesis"], held_out=told["held_out"],
        hypothesis_sets=tuple(told["hypothesis_sets"]), held_out_sets=tuple(told["held_out_sets"]),
    )  # fmt: skip


def _full_name(name: str, known: Sequence[str], place: str) -> str:
    """``params.N`` for N where only the params have an N; empty where nothing has."""
    if name in known:
        return name
    found = [f"{kind}.{name}" for kind in _KINDS if f"{kind}.{name}" in known]
    if len(found) > 1:
        raise InputError(f"{name!r} is {' and '.join(found)} in {place}; write which is meant")
    return found[0] if found else ""


def _cell(value: str | float | None) -> str | float | None:
    """MLflow holds every param as text, what is missing as well."""
    if isinstance(value, str):
        return None if value.strip().lower() in _UNKNOWN else value
    return value


def metric_name(name: str) -> str:
    """The nearest name that MLflow takes; the exact one is kept with the run."""
    parts = re.sub(r"[^\w.\- :/]", "_", name).split("/")
    return "/".join(part for part in parts if part.strip(". ")) or "unnamed"


def _unique(runs: pd.DataFrame, contents: Sequence[str]) -> pd.DataFrame:
    """Two tables both have a row 1: the second is named by its content as well."""
    again = runs["run_id"].duplicated().to_numpy()
    if not again.any():
        return runs
    alone = again & (runs["cluster"] == runs["run_id"]).to_numpy()
    named = [f"{run} [{content[:8]}]" for run, content in zip(runs["run_id"], contents, strict=True)]
    runs = runs.assign(run_id=np.where(again, named, runs["run_id"]))
    return runs.assign(cluster=np.where(alone, named, runs["cluster"]))
