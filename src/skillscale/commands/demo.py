"""``demo``: fit real runs that come with the package, and show what there is to see; trains nothing."""

from pathlib import Path

from skillscale.analysis.backtest import Limit, backtest_runs
from skillscale.analysis.demo import copy_table, held_out_text, next_runs_text, skill_optima
from skillscale.analysis.load_laws import laws_of_results
from skillscale.analysis.report import make_report
from skillscale.analysis.suggest import suggest_runs
from skillscale.cli.output import Output
from skillscale.config import Config
from skillscale.config.options import DemoOptions, SourceOptions, build_options
from skillscale.formatting import JsonObject, format_count, format_flops
from skillscale.report.answer import answer_lines
from skillscale.tables.read import read_runs

_MAX_PARAMS = 5e8  # the table's two runs above this, with 1.4B parameters, are held out
_SUGGESTED = 4
_OWN_TABLE = "my.csv"


def demo(options: DemoOptions, config: Config, out: Output) -> JsonObject:
    """Predict the largest runs of a table from the others, plan a larger one, write the page, suggest the next runs.

    Raises:
        InputError: The folder is a file.
    """
    table = copy_table(Path(options.out))
    source = build_options(SourceOptions, {"table": str(table)})
    runs = read_runs(source, config)
    out.text(
        f"{len(runs.table.runs)} real runs of OpenLM on RedPajama, 11M to 1.4B parameters, by Gadre et al. 2024.\n"
        f"Table: {table}. Source and licence: {table.with_suffix('.txt')}."
    )
    out.progress(f"step 1 of 3: fit the runs up to {format_count(_MAX_PARAMS)} parameters, predict the larger ones")
    held_out = backtest_runs(
        runs, Limit(name="max_params", value=_MAX_PARAMS), config.laws, config.study.level, out.progress
    )
    out.text(f"\n1. The runs above {format_count(_MAX_PARAMS)} parameters, predicted from the smaller ones")
    out.text(held_out_text(held_out))

    out.progress("step 2 of 3: fit all runs, write the page")
    page = table.with_suffix(".html")
    report = make_report(source, config, page=str(page), progress=out.progress)
    _, flops, _ = report.results.flops  # 10 times the largest run, with which the panel opens
    best = skill_optima(laws_of_results(runs, report.results, ""), flops)
    out.text("\n2. The plan for a larger budget, from all runs")
    out.text("\n".join([*answer_lines(report.answers[0]), best.text()]))
    out.text(f"The page, with a panel to ask other budgets and weights: {page}")

    out.progress("step 3 of 3: choose the next runs")
    suggestion = suggest_runs(runs, config, count=_SUGGESTED)
    out.text("\n3. The next runs, which would narrow the intervals most per FLOP")
    out.text(next_runs_text(suggestion))
    out.text("\n" + "\n".join(_commands(table, flops)))
    return {
        "table": table.absolute(), "page": report.page, "held_out": held_out.as_dict(),
        "plan": best.as_dict(), "next_runs": suggestion.as_dict()["points"],
    }  # fmt: skip


def _commands(table: Path, flops: float) -> list[str]:
    """Return the commands to try next: with this table, then with a table of the user."""
    return [
        "Ask more of these runs:",
        f"  skillscale plan --table {table} --flops {format_flops(flops)} --skill_weights code=2,news=1",
        f"  skillscale suggest --table {table}",
        "Your own runs, one row a run: N, D, and a loss for each skill:",
        f"  skillscale check --table {_OWN_TABLE}",
        f"  skillscale fit --table {_OWN_TABLE}",
        f"  skillscale backtest --table {_OWN_TABLE} --max_params N",
        f"  skillscale plan --table {_OWN_TABLE} --flops C",
        f"  skillscale report --table {_OWN_TABLE}",
        f"  skillscale suggest --table {_OWN_TABLE}",
    ]
