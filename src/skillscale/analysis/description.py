"""What the MLflow UI says of a fit, a report or a plan: the answer, its numbers and figure, metrics to compare."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from skillscale.execution.status_publisher import optima_rows
from skillscale.execution.status_text import clip_markdown, markdown_table
from skillscale.formatting import format_percent, plural
from skillscale.laws.optimum.answer import Answer
from skillscale.laws.optimum.optimum import Optimum
from skillscale.laws.results import Interval
from skillscale.record import MAX_METRICS
from skillscale.report.answer import answer_line, answer_lines, interval_line, losses_line
from skillscale.tables.read import LoadedRuns
from skillscale.tracking import AnalysisWriter

PREVIEW = "figures/preview.png"
_ROWS = 12
_MIXES = 4


@dataclass(frozen=True, kw_only=True)
class Description:
    """What the MLflow UI shows of an analysis.

    ``answer``: its first line. ``losses``: expected losses of the skills there. ``note``: all of it as markdown.
    ``metrics``: numbers to compare with other analyses, the most important first. ``figure``: artifact with the figure.
    """

    answer: str = ""
    losses: str = ""
    note: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    figure: str = ""

    @property
    def preview(self) -> str:
        """The artifact with a small copy of the figure; empty without a figure."""
        return PREVIEW if self.figure else ""


def describe_fit(
    run: AnalysisWriter, answers: Mapping[str, Answer], runs: LoadedRuns, optima: pd.DataFrame, figure: str
) -> Description:  # fmt: skip
    """Return the description of a fit or a report.

    Args:
        run: the run of the analysis.
        answers: answers by the name of the mix.
        runs: the runs that were fitted.
        optima: the table of ``law_optima.csv``.
        figure: artifact with its figure; empty: none.
    """
    fitted = f"Fitted to {plural(len(runs.table.runs), 'run')} of {runs.name}"
    lines = ["  \n".join(answer_lines(answer)) for answer in list(answers.values())[:_MIXES]]
    lines += ["", f"{fitted}. {run.link('Laws', 'law.json')}, {run.link('optima', 'tables/law_optima.csv')}.", ""]
    lines += optima_table(optima_rows(optima.to_dict(orient="records")))
    lines += ["", f"{run.link('Figure', figure)}:", "", run.image("Figure of the fit", PREVIEW)] if figure else []
    first = next(iter(answers.values()), None)
    if first is None:
        return Description(note=clip_markdown("\n".join(lines)), figure=figure)
    return Description(
        answer=answer_line(first.optimum, first.mix, first.refusal), losses=losses_line(first.losses),
        note=clip_markdown("\n".join(lines)),
        metrics=_metrics_of(first.optimum, first.losses) if len(answers) == 1 else {}, figure=figure,
    )  # fmt: skip


def describe_plan(run: AnalysisWriter, optima: Sequence[Optimum], level: float) -> Description:
    """Return the description of plans, one for each budget.

    Args:
        run: the run of the analysis.
        optima: the planned optima.
        level: level of the intervals.
    """
    lines = [
        f"{answer_line(optimum)}: {losses_line(optimum.losses)}. {interval_line(optimum, format_percent(level))}."
        for optimum in optima
    ]
    lines = [line for answer in lines for line in (answer, "")]
    lines += [f"{run.link('All numbers', 'plan.json')}, {run.link('as text', 'plan.txt')}.", ""]
    lines += [run.image("Figure of the plan", PREVIEW)]
    return Description(
        answer=answer_line(optima[0]), losses=losses_line(optima[0].losses), note=clip_markdown("\n".join(lines)),
        metrics=_metrics_of(optima[0], optima[0].losses),
    )  # fmt: skip


def first_metrics(*groups: Mapping[str, float], room: int = MAX_METRICS) -> dict[str, float]:
    """Return as many metrics as MLflow shows of a run, in the order of the groups."""
    metrics = {name: value for group in groups for name, value in group.items()}
    return dict(list(metrics.items())[:room])


def optima_table(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the compute optima as a table in markdown, a row for each skill."""
    if not rows:
        return []
    shown = [(str(row["skill"]), dict(row["at"])) for row in rows[:_ROWS]]  # type: ignore[call-overload]
    columns = ["skill", *(f"N* at {flops}" for flops in shown[0][1])]
    return markdown_table(columns, [[skill, *at.values()] for skill, at in shown])


def _metrics_of(optimum: Optimum, losses: Mapping[str, Interval]) -> dict[str, float]:
    """Return N*, D* and the losses of an optimum, as far as they are finite."""
    numbers = {"flops": optimum.C, "N_star": optimum.N.value, "D_star": optimum.D.value, "loss": optimum.loss.value}
    numbers |= {f"loss/{name}": loss.value for name, loss in losses.items()}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}
