"""Export runs as a table that fits alike when it is read back, or laws as JSON or Python."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from skillscale.analysis.fit_laws import fit_runs
from skillscale.analysis.load_laws import load_document
from skillscale.config import LawConfig, StudyConfig
from skillscale.errors import InputError
from skillscale.formatting import JsonObject, to_json
from skillscale.laws.io.document import read_document, read_metadata
from skillscale.laws.io.snippet import snippet
from skillscale.laws.optimum.identification import identify
from skillscale.record import RunRecord
from skillscale.tables.read import NONEMBED, TOTAL, LoadedRuns, exclusion_lines
from skillscale.tables.write import write_table, write_whole


@dataclass(frozen=True, kw_only=True)
class LawDocument:
    """Laws as the JSON that is registered, and where they come from."""

    document: JsonObject
    source: str


def export_runs(runs: LoadedRuns, path: Path) -> JsonObject:
    """Write runs to a table, and next to it the YAML that says which column is what.

    Args:
        runs: The runs.
        path: CSV or Parquet file.

    Returns:
        Files, number of runs, skills and conventions of N.
    """
    mapping = path.with_suffix(".yaml")
    sizes = _sizes(runs)
    write_table(runs.table, path, mapping, sizes=sizes, purposes=_purposes(runs), extra=_bits_per_byte(runs))
    return {
        "file": path.absolute(), "columns": mapping.absolute(), "runs": len(runs.table.runs),
        "skills": runs.table.judged_skills, "conventions": [runs.table.convention, *sizes],
    }  # fmt: skip


def fit_document(runs: LoadedRuns, laws: LawConfig, study: StudyConfig, progress: Callable[[str], None]) -> LawDocument:
    """Fit the laws of some runs, as the JSON that would be registered."""
    for line in exclusion_lines(runs):
        progress(line)
    results = fit_runs(runs, laws, study)
    for note in results.all_notes:
        progress(note)
    results.require_a_fit()
    return LawDocument(document=json.loads(results.law_json()), source=runs.name)


def read_law_document(address: str, tracking: str) -> LawDocument:
    """Read laws that were fitted earlier: ``models:/NAME@champion``, or a law.json."""
    return LawDocument(document=load_document(address, tracking)[0], source=address)


def export_laws(laws: LawDocument, path: Path, progress: Callable[[str], None]) -> dict[str, str]:
    """Write laws to a JSON file, or to a Python file that needs numpy alone. Laws that priors decide are noted.

    Returns:
        Name of each skill's law.

    Raises:
        InputError: The document holds no law.
    """
    fitted = read_document(laws.document, source=laws.source)
    if not fitted:
        raise InputError(f"{laws.source} holds no law. Fit the runs again.")
    metadata = read_metadata(laws.document)
    is_python = path.suffix.lower() == ".py"
    text = snippet(fitted, metadata, source=laws.source) if is_python else to_json(laws.document)
    write_whole(path, text)
    for name, law in fitted.items():
        if reason := identify(law, law.reach[1]).reason:
            progress(f"note: {name}: {reason}")
    return {name: law.law.name for name, law in fitted.items()}


def _sizes(runs: LoadedRuns) -> dict[str, list[float]]:
    """N by the other convention, where every run was trained here and records it."""
    if not runs.trained:
        return {}
    records = _records(runs)
    if runs.table.convention == NONEMBED:
        return {TOTAL: [float(record.point.n_params) for record in records]}
    nonembed = [float(record.size.n_params_nonembed) for record in records if record.size is not None]
    return {NONEMBED: nonembed} if len(nonembed) == len(records) else {}


def _records(runs: LoadedRuns) -> list[RunRecord]:
    """Of the rows of the table, in their order, where all were trained here."""
    records = {record.run_id: record for record in runs.records}
    return [records[run] for run in runs.table.runs["run_id"]]


def _purposes(runs: LoadedRuns) -> list[str]:
    """Return the purpose of each sampled run; ``sampled`` where the store has none."""
    purposes = {record.run_id: record.purpose for record in runs.records}
    return [(purposes.get(run) or "sampled") if run in runs.table.sampled else "" for run in runs.table.runs["run_id"]]


def _bits_per_byte(runs: LoadedRuns) -> dict[str, list[float]]:
    """Bits per byte of each skill, where runs were measured here."""
    if not runs.trained:
        return {}
    measured = [record.skills for record in _records(runs)]
    every = {
        f"bpb_{name}": [skills[name].bpb if name in skills else math.nan for skills in measured]
        for name in runs.table.skills
    }
    return {name: values for name, values in every.items() if not all(map(math.isnan, values))}
