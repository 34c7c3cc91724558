"""``evaluate``: measure checkpoints that others trained, as runs of a separate study."""

from typing import Any

from skillscale.cli.output import Output
from skillscale.config import Config
from skillscale.config.options import EvaluateOptions
from skillscale.execution.evaluation import open_evaluation
from skillscale.formatting import plural
from skillscale.record import RunState


def evaluate(options: EvaluateOptions, config: Config, out: Output) -> dict[str, Any]:
    """Measure the checkpoints that the study does not hold."""
    evaluation = open_evaluation(options, config, out.progress)
    runs = []
    for run in evaluation.runs():
        out.text(run.text())
        runs.append(run.as_dict())
    if runs and all(run["state"] is not RunState.FINISHED for run in runs):
        out.fail(f"{plural(len(runs), 'checkpoint')} could not be measured. Their runs hold the reasons.")
    store, study = evaluation.store, evaluation.study
    out.text(f"UI: {store.ui_command}\n    {study.chart_link}")
    return {"study": study.name, "runs": runs, "ui": store.ui_command}
