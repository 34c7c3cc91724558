"""``sample``: choose the runs that narrow the intervals most per FLOP, train them, fit again."""

from skillscale.cli.output import Output
from skillscale.config import Config
from skillscale.config.options import SampleOptions
from skillscale.execution.sampling import sample_study
from skillscale.formatting import JsonObject


def sample(options: SampleOptions, config: Config, out: Output) -> JsonObject:
    """Choose points, train them, fit again, until the intervals are narrow enough or the budget is spent."""
    sampled = sample_study(options, config, out.progress)
    out.text(sampled.text())
    return sampled.as_dict()
