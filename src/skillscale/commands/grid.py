"""``grid``: train the points of a study, or print what they would cost."""

from skillscale.cli.output import Output
from skillscale.config import Config, check_mix
from skillscale.config.options import GridOptions
from skillscale.execution.grid import grid_points
from skillscale.execution.session import train_all
from skillscale.formatting import JsonObject, plural


def grid(options: GridOptions, config: Config, out: Output) -> JsonObject:
    """Train the points of the study with several workers; with ``dry_run`` list them and their cost."""
    for mix in options.mixes or ():
        check_mix(mix, config.data)
    grid = grid_points(config, budgets=options.budgets, sizes=options.sizes, mixes=options.mixes, seeds=options.seeds)
    points = [grid_point.point for grid_point in grid]
    if not options.dry_run:
        trained = train_all(points, options.training, config, out.progress)
        if trained.failed and not trained.finished:
            out.fail(f"{plural(trained.failed, 'point')} failed, and none was finished. Their runs hold the reasons.")
        return trained.as_dict()
    from skillscale.execution.cost import Accelerator, grid_cost

    out.progress("timing some training steps on this machine")
    accelerator = Accelerator(flops_per_s=options.gpu_flops, utilisation=options.mfu)
    cost = grid_cost(points, config, options.training.pool.workers, accelerator)
    out.text(cost.text())
    return cost.as_dict()
