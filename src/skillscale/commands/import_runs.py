"""The entry ``import``: runs that others made, from a table or from another MLflow experiment, into the registry.

A study of imported runs holds nothing else. What was read exactly (N and D of a table need not be whole) is kept with
each run, and comes back as the table it was read from. A file, or an experiment, has one mapping of columns in a study:
rows are known by their content, and another mapping would bring every row in again.
"""

import json
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from skillscale.cli.output import Output
from skillscale.config import Config, plain
from skillscale.errors import InputError
from skillscale.execution.status import StatusPublisher
from skillscale.formatting import duration
from skillscale.laws.results import ExcludedRun, describe_exclusions
from skillscale.laws.skills.verdicts import SkillColumns
from skillscale.point import DesignPoint, Mix, digest
from skillscale.record import Measurement
from skillscale.runs import (
    ColumnMap,
    RunTable,
    add_aggregates,
    files_of,
    make_run_table,
    read_columns,
    read_table,
    run_columns,
)
from skillscale.tracking import ExternalRun, ImportCount, ImportedRun, ImportSource, Study, StudyStore

_WORDS = ("run_id", "cluster", "mix", "seed")  # columns of runs that are no floats
_TELL_EVERY_S = 10.0
_KINDS = ("params", "metrics", "tags")
_UNKNOWN = frozenset({"", "nan", "none", "null"})
_SHOWN = 10


def run_import(arguments: Mapping[str, Any], config: Config, out: Output) -> dict[str, Any]:  # noqa: ARG001
    """Read the runs of others, and write those that are not there yet into a study of their own.

    Raises:
        InputError: what was given can't be read, or doesn't fit the study.
        TrackingError: a store failed; the same command goes on.
    """
    columns = read_columns(arguments["columns"])
    registry = StudyStore.open(arguments["tracking"])
    table, source, names = _read(arguments, columns, registry)
    imports = registry.open_imports(arguments["study"], metrics=(*table.skills, *table.weights, *table.categories))
    _check_fits(source, imports.sources(), arguments["study"])
    imports.add_source(source)
    added = imports.add(_imported_runs(table), _teller(out))
    StatusPublisher(imports.study, out.progress).refresh(now=True)
    _tell(table, names, added, arguments["study"], out)
    out.text(f"UI: {registry.ui_command}\n    {imports.study.chart_link}")
    return _answer(table, added, arguments["study"], registry)


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
    known = list(dict.fromkeys(key for run in finished for key in run.told))
    found = {column: _full_name(column, known, place) for _, column in columns.named()}
    read = {name: [_cell(run.told.get(full)) for run in finished] for name, full in found.items() if full}
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
    mended = (_with_nan(one, by_id, full) for one in table.unusable)
    return replace(table, unusable=(*others, *mended))


def _with_nan(one: ExcludedRun, runs: Mapping[str, ExternalRun], full: Mapping[str, str]) -> ExcludedRun:
    """A loss that was logged as NaN is not one that nobody logged; a table of numbers has NaN for both."""
    run = runs.get(one.run_id.partition(" ")[0])  # a run of several rows is named after it
    value = run.told.get(full.get(one.skill, "")) if run and one.skill else None
    is_nan = isinstance(value, float) and math.isnan(value)
    return replace(one, reason="loss is NaN") if is_nan else one


def _read(
    arguments: Mapping[str, Any], columns: ColumnMap, registry: StudyStore
) -> tuple[RunTable, ImportSource, dict[str, str]]:
    """The table that the arguments name, where it comes from, and the names of runs by id where they have both."""
    path, uri, experiment = (arguments[name] for name in ("table", "from_tracking", "experiment"))
    if bool(path) == bool(uri):
        raise InputError("import needs either --table FILE, or --from_tracking URI with --experiment NAME")
    if bool(uri) != bool(experiment):
        raise InputError("--from_tracking URI and --experiment NAME go together; give both, or --table FILE")
    if path:
        table = read_table(path, columns, convention=arguments["convention"])
        return table, _source(Path(path).name, _digest_of(files_of(Path(path), columns)), table, columns), {}
    other = StudyStore.open(uri, create=False)
    if (other.uri, experiment) == (registry.uri, arguments["study"]):
        raise InputError(f"experiment {experiment!r} can't be imported into itself; give --study another name")
    runs = other.experiment_runs(experiment)
    name = f"experiment {experiment} of {other.place}"
    table = table_from_tracking(runs, columns, convention=arguments["convention"], place=name)
    source = _source(name, digest([[run.run_id, run.status] for run in runs]), table, columns)
    return table, source, {run.run_id: str(run.told["run_name"]) for run in runs if run.told.get("run_name")}


def _source(name: str, read: str, table: RunTable, columns: ColumnMap) -> ImportSource:
    """A source with all that is needed to read its runs back as the table they were."""
    contents = _contents(table)
    described = {
        "name": name,
        "digest": read,
        "columns": plain(columns),
        "convention": table.convention,
        "skills": table.skills,
        "sems": [name for name in table.skills if f"sem/{name}" in table.runs],
        "categories": table.categories,
        "weights": plain(table.weights),
        "splits": plain(table.splits),
        "categories_of": plain(table.categories_of),
        "validation": table.validation,
        "rows": contents,
        "sampled": [one for one, run in zip(contents, table.runs["run_id"], strict=True) if run in table.sampled],
        "unusable": [[one.run_id, one.skill, one.reason] for one in table.unusable],
        "notes": table.notes,
    }
    return ImportSource(name=name, content=digest(described), described=json.dumps(described))


def _check_fits(source: ImportSource, there: Sequence[ImportSource], study: str) -> None:
    """Refuse what would not compare with the runs that the study has.

    Raises:
        InputError: naming what differs.
    """
    new = json.loads(source.described)
    for other in map(json.loads, (one.described for one in there)):
        cure = "import into another study"
        # A key that came later is as if it were empty
        differing = [key for key, value in new["columns"].items() if (other["columns"].get(key) or value) != value]
        differing += [key for key, value in new["columns"].items() if value and not other["columns"].get(key)]
        if other["name"] == new["name"] and differing:
            raise InputError(
                f"{new['name']} was imported into study {study!r} with another mapping of columns (see "
                f"{', '.join(differing)}), and would come in twice; {cure}, or put the mapping back"
            )
        if other["convention"] != new["convention"]:
            raise InputError(
                f"study {study!r} counts N by the convention {other['convention']!r}, and the new runs by "
                f"{new['convention']!r}; give --convention, or {cure}"
            )
        if bool(other["categories"]) != bool(new["categories"]):
            kinds = ("names of mixes", "shares of categories")
            raise InputError(
                f"study {study!r} has {kinds[bool(other['categories'])]}, and the new runs have "
                f"{kinds[bool(new['categories'])]}; {cure}"
            )
        for name in set(other["weights"]) & set(new["weights"]):
            if not _alike(other["weights"][name], new["weights"][name]):
                raise InputError(
                    f"validation {name} of study {study!r} weighs {other['weights'][name]}, and now "
                    f"{new['weights'][name]}; give the new one another name, or {cure}"
                )


def _alike(weights: Mapping[str, float], others: Mapping[str, float]) -> bool:
    """Whether weights are the same but for rounding."""
    same = weights.keys() == others.keys()
    return same and all(math.isclose(weight, others[name], rel_tol=1e-12) for name, weight in weights.items())


def _imported_runs(table: RunTable) -> list[ImportedRun]:
    """Every row as a run to write."""
    numbers = _numbers(table)
    records = table.runs[[*_WORDS, *numbers]].to_dict(orient="records")
    pairs = zip(records, _contents(table), strict=True)
    return [_imported_run(row, content, numbers, table) for row, content in pairs]


def _imported_run(row: Mapping[Any, Any], content: str, numbers: Sequence[str], table: RunTable) -> ImportedRun:
    shares = {name: row[f"mix/{name}"] for name in table.categories} or {_metric_name(row["mix"]): 1.0}
    point = DesignPoint(
        n_params=max(1, round(row["N"])), n_tokens=max(1, round(row["D"])), mix=Mix(shares), seed=int(row["seed"])
    )
    skills = {
        name: Measurement(loss=row[name], sem=row.get(f"sem/{name}", math.nan))
        for name in table.skills
        if not math.isnan(row[name])
    }
    exact = {name: row[name] for name in _WORDS} | {name: row[name] for name in numbers if not math.isnan(row[name])}
    return ImportedRun(
        name=row["run_id"],
        point=point,
        budget=row["C"] if row["C"] > 0 else 6 * row["N"] * row["D"],
        skills=skills,
        exact=json.dumps(exact),
        content=content,
    )


def _numbers(table: RunTable) -> list[str]:
    """The columns of numbers that were read; an aggregate follows from them."""
    columns = run_columns(table.skills, (), map(str, table.runs.columns))
    return [name for name in columns if name not in _WORDS]


def _contents(table: RunTable) -> list[str]:
    """Each row's name by content: all its numbers and its run, but not its place in the table."""
    runs = table.runs
    numbers = _numbers(table)
    cluster = np.where(runs["cluster"] == runs["run_id"], "", runs["cluster"])
    rows = zip(cluster, runs["mix"], runs["seed"].tolist(), runs[numbers].to_numpy(dtype=float).tolist(), strict=True)
    return [
        digest([run, mix, seed, {name: x for name, x in zip(numbers, row, strict=True) if not math.isnan(x)}], 12)
        for run, mix, seed, row in rows
    ]


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
        unusable=tuple(
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


def _unique(runs: pd.DataFrame, contents: Sequence[str]) -> pd.DataFrame:
    """Two tables both have a row 1: the second is named by its content as well."""
    again = runs["run_id"].duplicated().to_numpy()
    if not again.any():
        return runs
    alone = again & (runs["cluster"] == runs["run_id"]).to_numpy()
    named = [f"{run} [{content[:8]}]" for run, content in zip(runs["run_id"], contents, strict=True)]
    runs = runs.assign(run_id=np.where(again, named, runs["run_id"]))
    return runs.assign(cluster=np.where(alone, named, runs["cluster"]))


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


def _metric_name(name: str) -> str:
    """The nearest name that MLflow takes; the exact one is kept with the run."""
    parts = re.sub(r"[^\w.\- :/]", "_", name).split("/")
    return "/".join(part for part in parts if part.strip(". ")) or "unnamed"


def _digest_of(files: Sequence[Path]) -> str:
    each = [blake2b(path.read_bytes(), digest_size=12).hexdigest() for path in files]
    return each[0] if len(each) == 1 else digest(each, 12)


def _teller(out: Output) -> Callable[[int, int], None]:
    """Tells now and then how far the writing is."""
    began = told = time.monotonic()

    def tell(done: int, planned: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told > _TELL_EVERY_S:
            rest = duration((now - began) * (planned - done) / done)
            out.progress(f"{done} of {planned} runs written, about {rest} left")
            told = now

    return tell


def _tell(table: RunTable, names: Mapping[str, str], added: ImportCount, study: str, out: Output) -> None:
    out.text(f"{added.new} new, {added.there} already there: study {study}, {len(table.skills)} skills")
    for note in table.notes:
        out.text(f"note: {note}")
    rows = sum(not one.skill for one in table.unusable)
    if table.unusable:
        out.text(f"left out: {rows} whole rows, {len(table.unusable) - rows} losses (--json names each)")
    for line in describe_exclusions(table.unusable, _SHOWN, names):
        out.text(f"  {line}")


def _answer(table: RunTable, added: ImportCount, study: str, registry: StudyStore) -> dict[str, Any]:
    return {
        "study": study,
        "new": added.new,
        "there": added.there,
        "skills": table.skills,
        "categories": table.categories,
        "aggregates": table.aggregates,
        "unusable": [{"run": one.run_id, "skill": one.skill, "reason": one.reason} for one in table.unusable],
        "notes": table.notes,
        "ui": registry.ui_command,
    }
