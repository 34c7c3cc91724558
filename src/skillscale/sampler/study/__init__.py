"""The link between a study and the design of experiments.

In order: ``build_problem`` makes a ``SamplingProblem`` from the settings and the ``StudyContext``. ``run_history``
returns the runs of the study. ``skillscale.design`` recommends runs. ``to_points`` makes design points of them, and
``recommendation_text`` explains them.
"""

from skillscale.sampler.study.context import context_from_config, context_from_table, filter_mix
from skillscale.sampler.study.describe import (
    half_width_metrics,
    point_rows,
    recommendation_as_dict,
    recommendation_text,
    stop_text,
    to_points,
    to_reason,
)
from skillscale.sampler.study.history import run_history
from skillscale.sampler.study.interval_change import IntervalReduction, WidthChange
from skillscale.sampler.study.interval_chart import IntervalLog
from skillscale.sampler.study.problem import (
    SAMPLING_PROBLEM,
    SamplingProblem,
    StudyContext,
    build_problem,
    read_stored_problem,
)

__all__ = [
    "SAMPLING_PROBLEM",
    "IntervalLog",
    "IntervalReduction",
    "SamplingProblem",
    "StudyContext",
    "WidthChange",
    "build_problem",
    "context_from_config",
    "context_from_table",
    "filter_mix",
    "half_width_metrics",
    "point_rows",
    "read_stored_problem",
    "recommendation_as_dict",
    "recommendation_text",
    "run_history",
    "stop_text",
    "to_points",
    "to_reason",
]  # fmt: skip
