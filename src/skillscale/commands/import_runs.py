"""The entry ``import``: runs that others made, from a table or from another MLflow experiment, into the registry.

A study of imported runs holds nothing else. What was read exactly (N and D of a table need not be whole) is kept with
each run, and comes back as the table it was read from. A file, or an experiment, has one mapping of columns in a study:
rows are known by their content, and another mapping would bring every row in again.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from skillscale.cli.output import Output
from skillscale.config import Config
from skillscale.config.options import ImportOptions
from skillscale.errors import InputError
from skillscale.execution.status import StatusPublisher
from skillscale.formatting import format_duration, to_plain
from skillscale.laws.results import describe_exclusions
from skillscale.point import DesignPoint, Mix, digest
from skillscale.record import Measurement
from skillscale.runs import (
    ColumnMap,
    RunTable,
    files_of,
    read_columns,
    read_table,
    run_columns,
)
from skillscale.runs.imported import metric_name, table_from_tracking
from skillscale.tracking import ImportCount, ImportedRun, ImportSource, StudyStore

_WORDS = ("run_id", "cluster", "mix", "seed")  # columns of runs that are no floats
_TELL_EVERY_S = 10.0
_SHOWN = 10


def import_runs(options: ImportOptions, config: Config, out: Output) -> dict[str, Any]:  # noqa: ARG001
    """Read the runs of others, and write those that are not there yet into a study of their own.

    Raises:
        InputError: what was given can't be read, or doesn't fit the study.
        TrackingError: a store failed; the same command goes on.
    """
    columns = read_columns(options.columns)
    registry = StudyStore.open(options.tracking)
    table, source, names = _read(options, columns, registry)
    imports = registry.open_imports(options.study, metrics=(*table.skills, *table.weights, *table.categories))
    _check_fits(source, imports.sources(), options.study)
    imports.add_source(source)
    added = imports.add(_imported_runs(table), _teller(out))
    StatusPublisher(imports.study, out.progress).refresh(now=True)
    _tell(table, names, added, options.study, out)
    out.text(f"UI: {registry.ui_command}\n    {imports.study.chart_link}")
    return _answer(table, added, options.study, registry)


def _read(
    options: ImportOptions, columns: ColumnMap, registry: StudyStore
) -> tuple[RunTable, ImportSource, dict[str, str]]:
    """The table that the arguments name, where it comes from, and the names of runs by id where they have both."""
    path, uri, experiment = (options.table, options.from_tracking, options.experiment)
    if bool(path) == bool(uri):
        raise InputError("import needs either --table FILE, or --from_tracking URI with --experiment NAME")
    if bool(uri) != bool(experiment):
        raise InputError("--from_tracking URI and --experiment NAME go together; give both, or --table FILE")
    if path:
        table = read_table(path, columns, convention=options.n_convention)
        return table, _source(Path(path).name, _digest_of(files_of(Path(path), columns)), table, columns), {}
    other = StudyStore.open(uri, create=False)
    if (other.uri, experiment) == (registry.uri, options.study):
        raise InputError(f"experiment {experiment!r} can't be imported into itself; give --study another name")
    runs = other.experiment_runs(experiment)
    name = f"experiment {experiment} of {other.place}"
    table = table_from_tracking(runs, columns, convention=options.n_convention, place=name)
    source = _source(name, digest([[run.run_id, run.status] for run in runs]), table, columns)
    return table, source, {run.run_id: str(run.fields["run_name"]) for run in runs if run.fields.get("run_name")}


def _source(name: str, read: str, table: RunTable, columns: ColumnMap) -> ImportSource:
    """A source with all that is needed to read its runs back as the table they were."""
    contents = _contents(table)
    described = {
        "name": name,
        "digest": read,
        "columns": to_plain(columns),
        "convention": table.convention,
        "skills": table.skills,
        "sems": [name for name in table.skills if f"sem/{name}" in table.runs],
        "categories": table.categories,
        "weights": to_plain(table.weights),
        "splits": to_plain(table.splits),
        "categories_of": to_plain(table.categories_of),
        "validation": table.validation,
        "rows": contents,
        "sampled": [one for one, run in zip(contents, table.runs["run_id"], strict=True) if run in table.sampled],
        "unusable": [[one.run_id, one.skill, one.reason] for one in table.excluded],
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
                f"{new['convention']!r}; give --n_convention, or {cure}"
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
    shares = {name: row[f"mix/{name}"] for name in table.categories} or {metric_name(row["mix"]): 1.0}
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
            rest = format_duration((now - began) * (planned - done) / done)
            out.progress(f"{done} of {planned} runs written, about {rest} left")
            told = now

    return tell


def _tell(table: RunTable, names: Mapping[str, str], added: ImportCount, study: str, out: Output) -> None:
    out.text(f"{added.new} new, {added.there} already there: study {study}, {len(table.skills)} skills")
    for note in table.notes:
        out.text(f"note: {note}")
    rows = sum(not one.skill for one in table.excluded)
    if table.excluded:
        out.text(f"left out: {rows} whole rows, {len(table.excluded) - rows} losses (--json names each)")
    for line in describe_exclusions(table.excluded, _SHOWN, names):
        out.text(f"  {line}")


def _answer(table: RunTable, added: ImportCount, study: str, registry: StudyStore) -> dict[str, Any]:
    return {
        "study": study,
        "new": added.new,
        "there": added.there,
        "skills": table.skills,
        "categories": table.categories,
        "aggregates": table.aggregates,
        "unusable": [{"run": one.run_id, "skill": one.skill, "reason": one.reason} for one in table.excluded],
        "notes": table.notes,
        "ui": registry.ui_command,
    }
