"""``export``: the runs of a study as a table for others to read, or its laws as JSON or as Python."""

from pathlib import Path

from skillscale.analysis.export import export_laws, export_runs, fit_document, read_law_document
from skillscale.cli.output import Output
from skillscale.config import Config
from skillscale.config.options import ExportOptions
from skillscale.errors import InputError
from skillscale.formatting import JsonObject
from skillscale.tables.read import exclusion_lines, read_runs
from skillscale.tables.write import FILES

_LAWS = (".json", ".py")


def export(options: ExportOptions, config: Config, out: Output) -> JsonObject:
    """Write what the file's ending asks for: runs (.csv, .parquet), or laws (.json, .py).

    Raises:
        InputError: The file exists already, or the runs would not come back from it.
    """
    path = Path(options.file)
    kind = path.suffix.lower()
    if kind not in (*FILES, *_LAWS):
        raise InputError(
            f"--file must end in .csv or .parquet for runs, .json or .py for laws, but it is {options.file!r}"
        )
    if kind in _LAWS:
        return _export_laws(path, options, config, out)
    if options.from_:
        raise InputError("--from names laws. Give a --file that ends in .json or .py, or drop --from.")
    return _export_runs(path, options, config, out)


def _export_runs(path: Path, options: ExportOptions, config: Config, out: Output) -> JsonObject:
    mapping = path.with_suffix(".yaml")
    _refuse_overwrite(options, path, mapping)
    runs = read_runs(options.source, config, out.progress, whole=True)
    for line in exclusion_lines(runs):
        out.progress(line)
    answer = export_runs(runs, path)
    out.text(f"{answer['runs']} runs of {runs.name} are in {path}. {mapping} says which column is what. Fit them with")
    out.text(f"  skillscale fit --table {path} --columns {mapping}")
    return answer


def _export_laws(path: Path, options: ExportOptions, config: Config, out: Output) -> JsonObject:
    _refuse_overwrite(options, path)
    if options.from_:
        document = read_law_document(options.from_, options.source.tracking)
    else:
        document = fit_document(
            read_runs(options.source, config, out.progress), config.laws, config.study, out.progress
        )
    laws = export_laws(document, path, out.progress)
    out.text(f"laws of {len(laws)} skills are in {path}: {', '.join(laws)}")
    is_python, first = path.suffix.lower() == ".py", next(iter(laws))
    use = f"from {path.stem} import loss; loss({first!r}, N, D)" if is_python else f"skillscale plan --from {path}"
    out.text(f"  {use}")
    return {"file": path.absolute(), "laws": laws}


def _refuse_overwrite(options: ExportOptions, *paths: Path) -> None:
    existing = [str(path) for path in paths if path.exists()]
    if existing and not options.force:
        raise InputError(f"{' and '.join(existing)} would be overwritten. Give another --file, or --force true.")
