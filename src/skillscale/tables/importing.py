"""Write runs by others into a separate study, each row once.

What was read exactly (N and D of a table need not be whole) is kept with each run. It comes back as the table that it
was read from. Rows are recognised by their content, so a file or an experiment has one mapping of columns in a study:
another mapping would import every row again.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from skillscale.config.options import ImportOptions
from skillscale.errors import InputError
from skillscale.formatting import JsonObject, join_first, to_plain
from skillscale.laws.results import describe_exclusions
from skillscale.point import DesignPoint, Mix, digest
from skillscale.record import Measurement
from skillscale.tables import ColumnMap, RunTable, files_of, read_columns, read_table, run_columns
from skillscale.tables.imported import imported_table, metric_name, table_from_tracking
from skillscale.tables.loss_units import level_notes, loss_unit, unit_differs
from skillscale.tracking import ImportCount, ImportedRun, ImportedStudy, ImportSource, Study, StudyStore

_TEXT_COLUMNS = ("run_id", "cluster", "mix", "seed")  # columns of runs that are no floats
_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class ForeignTable:
    """A table of runs by others, its source, and the names of runs by id where they have both."""

    table: RunTable
    source: ImportSource
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What an import did.

    Args:
        study: The study.
        foreign: The table that was read.
        count: Numbers of runs that are new, and that the study had.
    """

    study: Study
    foreign: ForeignTable
    count: ImportCount

    def text(self) -> str:
        """Return the outcome for a person."""
        table, name = self.foreign.table, self.study.name
        lines = [f"{self.count.new} new, {self.count.there} already there: study {name}, {len(table.skills)} skills"]
        lines += [f"note: {note}" for note in table.notes]
        rows = sum(not item.skill for item in table.excluded)
        if table.excluded:
            lines.append(f"excluded: {rows} whole rows, {len(table.excluded) - rows} losses (--json names each)")
        lines += [f"  {line}" for line in describe_exclusions(table.excluded, _SHOWN, self.foreign.names)]
        return "\n".join(lines)

    def as_dict(self) -> JsonObject:
        """Return the values for ``--json``."""
        table = self.foreign.table
        return {
            "study": self.study.name, "new": self.count.new, "there": self.count.there, "skills": table.skills,
            "categories": table.categories, "aggregates": table.aggregates,
            "unusable": [
                {"run": item.run_id, "skill": item.skill, "reason": item.reason} for item in table.excluded
            ],
            "notes": table.notes,
        }  # fmt: skip


def import_table(options: ImportOptions, store: StudyStore, on_progress: Callable[[int, int], None]) -> Imported:
    """Read the runs of others, and write those that the study lacks.

    Args:
        options: The table or the experiment, its columns, and the study.
        store: The tracking store.
        on_progress: Receiver of the numbers of runs that are written and planned.

    Raises:
        InputError: The runs cannot be read, or do not fit the study.
        TrackingError: A store failed. The same command goes on.
    """
    foreign = _read(options, read_columns(options.columns), store)
    table = foreign.table
    imports = store.open_imports(options.study, metrics=(*table.skills, *table.weights, *table.categories))
    check_fits(foreign.source, imports.sources(), options.study)
    notes = _level_notes(foreign, store, imports)
    table = replace(table, notes=(*table.notes, *notes))
    foreign = replace(foreign, table=table)
    imports.add_source(foreign.source)
    count = imports.add(imported_runs(table), on_progress)
    return Imported(study=imports.study, foreign=foreign, count=count)


def _level_notes(foreign: ForeignTable, store: StudyStore, imports: ImportedStudy) -> tuple[str, ...]:
    """Return notes on losses that differ from those of the other tables of the study as another unit does."""
    if all(source.name == foreign.source.name for source in imports.sources()):
        return ()
    there = imported_table(store, imports.study)
    return () if there is None else tuple(level_notes(foreign.table.runs, there.runs, foreign.table.skills))


def _read(options: ImportOptions, columns: ColumnMap, store: StudyStore) -> ForeignTable:
    path, uri, experiment = options.table, options.from_tracking, options.experiment
    if bool(path) == bool(uri):
        raise InputError("import needs either --table FILE, or --from_tracking URI with --experiment NAME")
    if bool(uri) != bool(experiment):
        raise InputError("--from_tracking URI and --experiment NAME go together. Give both, or --table FILE.")
    if path:
        table = read_table(path, columns, convention=options.n_convention)
        content = digest_of_files(files_of(Path(path), columns))
        return ForeignTable(table=table, source=import_source(Path(path).name, content, table, columns))
    other = StudyStore.open(uri, create=False)
    if (other.uri, experiment) == (store.uri, options.study):
        raise InputError(f"experiment {experiment!r} cannot be imported into itself. Give --study another name.")
    runs = other.experiment_runs(experiment)
    name = f"experiment {experiment} of {other.place}"
    table = table_from_tracking(runs, columns, convention=options.n_convention, place=name)
    source = import_source(name, digest([[run.run_id, run.status] for run in runs]), table, columns)
    names = {run.run_id: str(run.fields["run_name"]) for run in runs if run.fields.get("run_name")}
    return ForeignTable(table=table, source=source, names=names)


def import_source(name: str, read: str, table: RunTable, columns: ColumnMap) -> ImportSource:
    """Return a source with all that is needed to read its runs back as the table they were."""
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
        "units": {name: loss_unit(columns, name) for name in table.skills if name in columns.skills},
        "tokenizers": table.tokenizers,
        "rows": contents,
        "sampled": [
            content for content, run in zip(contents, table.runs["run_id"], strict=True) if run in table.sampled
        ],
        "unusable": [[run.run_id, run.skill, run.reason] for run in table.excluded],
        "notes": table.notes,
    }
    return ImportSource(name=name, content=digest(described), described=json.dumps(described))


def check_fits(source: ImportSource, existing: Sequence[ImportSource], study: str) -> None:
    """Refuse runs that are not comparable with those of the study.

    Raises:
        InputError: Naming what differs.
    """
    new = json.loads(source.described)
    for other in map(json.loads, (source.described for source in existing)):
        cure = "import into another study"
        # A key that a later version added counts as empty
        differing = [key for key, value in new["columns"].items() if (other["columns"].get(key) or value) != value]
        differing += [key for key, value in new["columns"].items() if value and not other["columns"].get(key)]
        if other["name"] == new["name"] and differing:
            raise InputError(
                f"{new['name']} was imported into study {study!r} with another mapping of columns (see "
                f"{', '.join(differing)}), and would be imported twice. {cure.capitalize()}, or restore the mapping."
            )
        if other["convention"] != new["convention"]:
            raise InputError(
                f"study {study!r} counts N by the convention {other['convention']!r}, and the new runs by "
                f"{new['convention']!r}. Give --n_convention, or {cure}."
            )
        if bool(other["categories"]) != bool(new["categories"]):
            kinds = ("names of mixes", "shares of categories")
            raise InputError(
                f"study {study!r} has {kinds[bool(other['categories'])]}, and the new runs have "
                f"{kinds[bool(new['categories'])]}. {cure.capitalize()}."
            )
        if differing_unit := unit_differs(new["units"], other.get("units", {})):
            raise InputError(f"study {study!r} has {differing_unit}. Name the skills apart, or {cure}.")
        tokenizers = [set(source.get("tokenizers", ())) for source in (other, new)]
        is_apart = all(tokenizers) and not tokenizers[0] & tokenizers[1]
        if is_apart and any(not unit for unit in new["units"].values()):
            raise InputError(
                f"study {study!r} has {join_first(sorted(tokenizers[0]))}, and the new runs have "
                f"{join_first(sorted(tokenizers[1]))}: losses per token of several tokenizers do not compare. "
                f"{cure.capitalize()}, or import losses per byte."
            )
        for name in set(other["weights"]) & set(new["weights"]):
            if not _alike(other["weights"][name], new["weights"][name]):
                raise InputError(
                    f"validation {name} of study {study!r} weighs {other['weights'][name]}, and now "
                    f"{new['weights'][name]}. Give the new one another name, or {cure}."
                )


def _alike(weights: Mapping[str, float], others: Mapping[str, float]) -> bool:
    """Return whether weights are equal up to rounding."""
    same = weights.keys() == others.keys()
    return same and all(math.isclose(weight, others[name], rel_tol=1e-12) for name, weight in weights.items())


def imported_runs(table: RunTable) -> list[ImportedRun]:
    """Return every row as a run to write."""
    numbers = _numbers(table)
    records = table.runs[[*_TEXT_COLUMNS, *numbers]].to_dict(orient="records")
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
    exact = {name: row[name] for name in _TEXT_COLUMNS} | {
        name: row[name] for name in numbers if not math.isnan(row[name])
    }
    return ImportedRun(
        name=row["run_id"],
        point=point,
        budget=row["C"] if row["C"] > 0 else 6 * row["N"] * row["D"],
        skills=skills,
        exact=json.dumps(exact),
        content=content,
    )


def _numbers(table: RunTable) -> list[str]:
    """Return the columns of numbers that were read; aggregates are computed from them."""
    columns = run_columns(table.skills, (), map(str, table.runs.columns))
    return [name for name in columns if name not in _TEXT_COLUMNS]


def _contents(table: RunTable) -> list[str]:
    """Return a digest of each row's content: its numbers and its run, but not its place in the table."""
    runs = table.runs
    numbers = _numbers(table)
    cluster = np.where(runs["cluster"] == runs["run_id"], "", runs["cluster"])
    rows = zip(cluster, runs["mix"], runs["seed"].tolist(), runs[numbers].to_numpy(dtype=float).tolist(), strict=True)
    return [
        digest([run, mix, seed, {name: x for name, x in zip(numbers, row, strict=True) if not math.isnan(x)}], 12)
        for run, mix, seed, row in rows
    ]


def digest_of_files(files: Sequence[Path]) -> str:
    """Return the digest of the content of files."""
    digests = [blake2b(path.read_bytes(), digest_size=12).hexdigest() for path in files]
    return digests[0] if len(digests) == 1 else digest(digests, 12)
