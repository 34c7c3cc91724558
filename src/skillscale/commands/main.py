"""``main``: train a study's grid and a few sampled runs, fit every skill, write the page."""

from skillscale.analysis.report import make_report
from skillscale.cli.output import Output
from skillscale.config import Config
from skillscale.config.options import MainOptions, SourceOptions, TrainingOptions, WorkerPoolOptions
from skillscale.execution.grid import grid_points
from skillscale.execution.sampling import sample_after_grid
from skillscale.execution.session import train_all
from skillscale.formatting import JsonObject


def main(options: MainOptions, config: Config, out: Output) -> JsonObject:
    """Train the points of the study, sample some more, fit every skill, write the page, print the table."""
    points = [grid_point.point for grid_point in grid_points(config)]
    training = TrainingOptions(
        study=options.study, queue=options.queue, pool=WorkerPoolOptions(workers=options.workers)
    )
    answer: JsonObject = {"training": train_all(points, training, config, out.progress).as_dict()}
    if config.sample.share_after_grid > 0:
        sampled = sample_after_grid(points, training, config, out.progress)
        out.text(f"{sampled.text}\n" if sampled.text else "")
        answer["sampling"] = sampled.as_dict()
    source = SourceOptions(
        study=options.study.study, data=options.study.data, skills=options.study.skills,
        tracking=options.study.tracking, queue=options.queue.queue,
    )  # fmt: skip
    report = make_report(source, config, page=options.page, progress=out.progress)
    out.text(report.text)
    return {**report.as_dict(), **answer}
