"""``report``: fit every skill, and write figures, tables and the page."""

from skillscale.analysis.report import make_report
from skillscale.cli.output import Output
from skillscale.config import Config
from skillscale.config.options import ReportOptions
from skillscale.formatting import JsonObject


def report(options: ReportOptions, config: Config, out: Output) -> JsonObject:
    """Fit, and write figures, tables and the page."""
    report = make_report(
        options.source, config, flops=options.flops, page=options.page, compare_with=options.compare_with,
        progress=out.progress,
    )  # fmt: skip
    out.text(report.text)
    return report.as_dict()
