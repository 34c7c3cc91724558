"""``backtest``: fit the smaller runs, predict the larger ones, report error and coverage."""

from skillscale.analysis.backtest import Limit, backtest_runs
from skillscale.cli.output import Output
from skillscale.config import Config
from skillscale.config.options import BacktestOptions
from skillscale.errors import InputError
from skillscale.execution.status_text import preformatted
from skillscale.formatting import JsonObject
from skillscale.tables.read import exclusion_lines, read_runs


def backtest(options: BacktestOptions, config: Config, out: Output) -> JsonObject:
    """Fit at or below a limit of compute or size, predict above it.

    Raises:
        InputError: Not one limit, no run on one side of it, or a law that these runs cannot have.
        FitError: No group of runs can be fitted.
    """
    limit = _limit(options)
    runs = read_runs(options.source, config, out.progress)
    for line in exclusion_lines(runs):
        out.progress(line)
    results = backtest_runs(runs, limit, config.laws, config.study.level, out.progress)
    out.text(results.text())
    if runs.store is not None:
        runs.store.annotate_mlflow_project_run(runs.study, note=preformatted(results.text()))
    if note := results.note():
        out.progress(f"note: {note}")
    return results.as_dict()


def _limit(options: BacktestOptions) -> Limit:
    limits = {"max_flops": options.max_flops, "max_params": options.max_params}
    given = {name: value for name, value in limits.items() if value is not None}
    if len(given) != 1:
        raise InputError("backtest needs one of --max_flops C and --max_params N: it fits up to there, predicts beyond")
    ((name, value),) = given.items()
    return Limit(name=name, value=value)
