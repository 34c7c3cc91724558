"""Between a study and the design of experiments: what may be run and is asked, the runs there are, the advice in words.

In order: ``build_problem`` makes an ``SamplingProblem`` of the settings and of what is ``StudyContext`` of a study; ``run_history`` its runs;
``laws.design`` advises; ``to_points`` makes design points of the advice, and ``recommendation_text`` says it.
"""

from skillscale.sampler.study.context import context_from_config, context_from_table, filter_mix
from skillscale.sampler.study.describe import (
    point_rows,
    recommendation_as_dict,
    recommendation_text,
    stop_text,
    to_points,
    to_reason,
    widths,
)
from skillscale.sampler.study.history import run_history
from skillscale.sampler.study.interval_change import IntervalReduction, WidthChange
from skillscale.sampler.study.interval_chart import IntervalLog
from skillscale.sampler.study.problem import (
    SAMPLING_PROBLEM,
    SamplingProblem,
    StudyContext,
    build_problem,
)

__all__ = [
    "SAMPLING_PROBLEM",
    "IntervalLog",
    "IntervalReduction",
    "SamplingProblem",
    "StudyContext",
    "WidthChange",
    "apply_options",
    "build_problem",
    "context_from_config",
    "context_from_table",
    "filter_mix",
    "point_rows",
    "recommendation_as_dict",
    "recommendation_text",
    "run_history",
    "stop_text",
    "to_points",
    "to_reason",
    "widths",
]  # fmt: skip
