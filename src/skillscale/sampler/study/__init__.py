"""Between a study and the design of experiments: what may be run and is asked, the runs there are, the advice in words.

In order: ``settled`` makes an ``Order`` of the settings and of what is ``Known`` of a study; ``history_of`` its runs;
``laws.design`` advises; ``points_of`` makes design points of the advice, and ``tell`` says it.
"""

from skillscale.sampler.study.context import known_of_config, known_of_table, of_named_mix
from skillscale.sampler.study.describe import ending_text, plain_advice, point_rows, points_of, reason_of, tell, widths
from skillscale.sampler.study.history import history_of
from skillscale.sampler.study.interval_change import Change, Narrowing
from skillscale.sampler.study.interval_chart import WidthChart
from skillscale.sampler.study.problem import ORDER, Known, Order, settled, with_arguments

__all__ = [
    "ORDER", "Change", "Known", "Narrowing", "Order", "WidthChart", "ending_text", "history_of", "known_of_config",
    "known_of_table", "of_named_mix", "plain_advice", "point_rows", "points_of", "reason_of", "settled", "tell",
    "widths", "with_arguments",
]  # fmt: skip
