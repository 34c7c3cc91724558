"""The entry ``export``: the runs of a study as a table for others to read, or its laws as JSON or Python to paste."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skillscale.analysis.fit_laws import fit_all_laws, law_json, require_a_fit
from skillscale.cli.output import Output, to_json
from skillscale.commands.plan import load_document
from skillscale.config import Config
from skillscale.errors import InputError
from skillscale.laws.io.document import read_document, read_metadata
from skillscale.laws.io.snippet import snippet
from skillscale.record import RunRecord
from skillscale.runs.read import NONEMBED, TOTAL, LoadedRuns, print_excluded, read_runs
from skillscale.runs.write import FILES, write_table

_LAWS = (".json", ".py")


def export(arguments: Mapping[str, Any], config: Config, out: Output) -> dict[str, Any]:
    """Write what the file's ending asks for: runs (.csv, .parquet), or laws (.json, .py).

    Raises:
        InputError: the file is there already, or the runs would not come back from it.
    """
    path = Path(arguments["file"])
    kind = path.suffix.lower()
    if kind not in (*FILES, *_LAWS):
        raise InputError(
            f"--file must end in .csv or .parquet for runs, .json or .py for laws, but it is {arguments['file']!r}"
        )
    if kind in _LAWS:
        return _laws(path, arguments, config, out)
    if arguments["from"]:
        raise InputError("--from names laws; give a --file that ends in .json or .py, or leave --from out")
    return _runs(path, arguments, config, out)


def _runs(path: Path, arguments: Mapping[str, Any], config: Config, out: Output) -> dict[str, Any]:
    mapping = path.with_suffix(".yaml")
    _check_free(arguments, path, mapping)
    runs = read_runs(arguments, config)
    print_excluded(runs, out)
    sizes = _sizes(runs)
    write_table(runs.table, path, mapping, sizes=sizes, purposes=_purposes(runs), more=_bits_per_byte(runs))
    count = len(runs.table.runs)
    out.text(f"{count} runs of {runs.name} in {path}, and which column is what in {mapping}. They fit alike with")
    out.text(f"  skillscale fit --table {path} --columns {mapping}")
    return {
        "file": path.absolute(), "columns": mapping.absolute(), "runs": count, "skills": runs.table.judged,
        "conventions": [runs.table.convention, *sizes],
    }  # fmt: skip


def _laws(path: Path, arguments: Mapping[str, Any], config: Config, out: Output) -> dict[str, Any]:
    _check_free(arguments, path)
    plain, source = _document(arguments, config, out)
    laws = read_document(plain, source=source)
    if not laws:
        raise InputError(f"{source} holds no law; fit the runs again")
    is_python = path.suffix.lower() == ".py"
    text = snippet(laws, read_metadata(plain), source=source) if is_python else to_json(plain)
    path.write_text(text, encoding="utf-8")
    out.text(f"laws of {len(laws)} skills in {path}: {', '.join(laws)}")
    first = next(iter(laws))
    use = f"from {path.stem} import loss; loss({first!r}, N, D)" if is_python else f"skillscale plan --from {path}"
    out.text(f"  {use}")
    return {"file": path.absolute(), "laws": {name: one.law.name for name, one in laws.items()}}


def _document(arguments: Mapping[str, Any], config: Config, out: Output) -> tuple[dict[str, Any], str]:
    """Laws as they are registered, and where they are from: fitted now, unless they were earlier."""
    if arguments["from"]:
        return load_document(arguments["from"], arguments["tracking"])[0], arguments["from"]
    runs = read_runs(arguments, config)
    found = fit_all_laws(runs, arguments, config, out)
    require_a_fit(found)
    return json.loads(law_json(found)), runs.name


def _check_free(arguments: Mapping[str, Any], *paths: Path) -> None:
    there = [str(path) for path in paths if path.exists()]
    if there and not arguments["force"]:
        raise InputError(f"{' and '.join(there)} would be written over; give another --file, or --force true")


def _sizes(runs: LoadedRuns) -> dict[str, list[float]]:
    """N by the other convention, where every run that was trained here tells it."""
    if not runs.trained:
        return {}
    found = _records(runs)
    if runs.table.convention == NONEMBED:
        return {TOTAL: [float(one.point.n_params) for one in found]}
    nonembed = [float(one.size.n_params_nonembed) for one in found if one.size is not None]
    return {NONEMBED: nonembed} if len(nonembed) == len(found) else {}


def _records(runs: LoadedRuns) -> list[RunRecord]:
    """Of the rows of the table, in their order, where all were trained here."""
    records = {one.run_id: one for one in runs.records}
    return [records[run] for run in runs.table.runs["run_id"]]


def _purposes(runs: LoadedRuns) -> list[str]:
    """What the sampler chose each run for; where only that it did is known, that."""
    told = {one.run_id: one.purpose for one in runs.records}
    return [(told.get(run) or "sampled") if run in runs.table.sampled else "" for run in runs.table.runs["run_id"]]


def _bits_per_byte(runs: LoadedRuns) -> dict[str, list[float]]:
    """Bits per byte of each skill, where runs were measured here."""
    if not runs.trained:
        return {}
    found = [one.skills for one in _records(runs)]
    every = {
        f"bpb_{name}": [skills[name].bpb if name in skills else math.nan for skills in found]
        for name in runs.table.skills
    }
    return {name: values for name, values in every.items() if not all(map(math.isnan, values))}
