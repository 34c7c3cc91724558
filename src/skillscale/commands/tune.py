"""``tune``: check the rule for learning rate and batch by a search at a few (N, D), and refit it."""

from typing import Any

from skillscale.cli.output import Output
from skillscale.config import Config
from skillscale.config.options import TuneOptions
from skillscale.execution.tuning import tune_rule


def tune(options: TuneOptions, config: Config, out: Output) -> dict[str, Any]:
    """Search learning rate and batch at a few (N, D), compare the rule with the best trial, and refit the rule."""
    result = tune_rule(options, config, out.progress)
    out.text(result.text())
    return result.as_dict()
