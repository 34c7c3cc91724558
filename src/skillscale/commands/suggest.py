"""``suggest``: the next runs and the reason for each, for people who train elsewhere."""

from pathlib import Path

from skillscale.analysis.suggest import suggest_runs
from skillscale.cli.output import Output
from skillscale.config import Config
from skillscale.config.options import SuggestOptions
from skillscale.execution.status_text import preformatted
from skillscale.formatting import JsonObject
from skillscale.tables.read import column_map_of, exclusion_lines, read_runs


def suggest(options: SuggestOptions, config: Config, out: Output) -> JsonObject:
    """Print the next runs, the cost of each and what it is expected to bring; train nothing."""
    runs = read_runs(options.source, config, out.progress)
    for line in exclusion_lines(runs):
        out.progress(line)
    suggestion = suggest_runs(runs, config, count=options.count, mix=options.mix)
    for note in suggestion.notes:
        out.progress(note)
    out.text(suggestion.text())
    if runs.store is not None:
        runs.store.annotate_mlflow_project_run(runs.study, note=preformatted(suggestion.text()))
    answer = suggestion.as_dict()
    if options.file:
        path = Path(options.file)
        columns = column_map_of(options.source.table, options.source.columns)[0] if options.source.table else None
        suggestion.write(path, columns)
        answer["file"] = path.absolute()
        append = "" if columns is None else ". Append its rows to the table, and fill in the losses of runs that end"
        out.text(f"written to {options.file}{append}")
    return answer
