"""``sample``: choose the runs that narrow the intervals most per FLOP, train them, fit again."""

from skillscale.cli.output import Output
from skillscale.config import Config
from skillscale.config.options import SampleOptions
from skillscale.execution.sampling import sample_study
from skillscale.formatting import JsonObject, plural


def sample(options: SampleOptions, config: Config, out: Output) -> JsonObject:
    """Choose points, train them, fit again, until the intervals are narrow enough or the budget is spent."""
    sampled = sample_study(options, config, out.progress)
    out.text(sampled.text())
    if sampled.failed:
        out.fail(f"{plural(sampled.failed, 'point')} failed, and none was finished. Their runs hold the reasons.")
    return sampled.as_dict()
