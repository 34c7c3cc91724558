"""The main job: a study's grid, a few sampled runs after it, every skill's fit, the page."""

from collections.abc import Mapping
from typing import Any

from skillscale.analysis import fit_laws
from skillscale.cli.output import Output
from skillscale.commands.sample import sample_after
from skillscale.config import Config
from skillscale.execution import session
from skillscale.execution.grid import grid_points


def main(arguments: Mapping[str, Any], config: Config, out: Output) -> dict[str, Any]:
    """Train the study's points, sample some more, fit every skill, write the page, print the table."""
    points = [each.point for each in grid_points(config)]
    told: dict[str, Any] = {"training": session.train_all(points, arguments, config, out)}
    if config.sample.after_grid > 0:
        told["sampling"] = sample_after(points, arguments, config, out)
        out.text("")
    return {**fit_laws.report(arguments, config, out), **told}
