"""Half widths of intervals against FLOPs, over every call of ``sample`` on a study: logged, and drawn now and then."""

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from skillscale.design.targets import Quantity, Target, TargetEstimates
from skillscale.sampler.study.describe import width_name, widths
from skillscale.sampler.study.problem import SamplingProblem
from skillscale.tracking import AnalysisWriter, Study

if TYPE_CHECKING:
    from skillscale.report.interval_figure import IntervalSeries

_FINISHED = "flops_finished"
_DRAW_EVERY_S = 60.0


class IntervalLog:
    """What is logged of a study's intervals as runs come in, and its figure: one of all calls, on the latest run.

    ``KIND``: of the analyses that hold it.
    """

    KIND = "sample"

    def __init__(self, study: Study, order: SamplingProblem, summary: AnalysisWriter) -> None:
        self._order = order
        self._summary = summary
        self._steps = [step for call in study.analysis_metrics(self.KIND) for step in _steps_of(call)]
        self._drawn_s = time.monotonic()
        self._is_drawn = True

    def log(self, answer: TargetEstimates | None, *, runs: int, finished: float, spent: float) -> None:
        """Log what is known.

        Args:
            answer: on the targets; None where the runs are too few.
            runs: that are finished.
            finished: 6 N D of those, FLOP.
            spent: on all sampled runs, those under way included, with overheads, FLOP.
        """
        known = {} if answer is None else widths(answer)
        metrics = {"flops_spent": spent, "flops_budget": self._order.budget, "runs": float(runs), _FINISHED: finished}
        metrics |= known
        self._summary.log(metrics=metrics, step=runs)
        self._steps.append(metrics)
        self._is_drawn = False
        if time.monotonic() - self._drawn_s > _DRAW_EVERY_S:
            self.draw()

    def draw(self) -> None:
        """Write the figure, unless it is as it was."""
        lines = self._lines()
        if self._is_drawn or not any(line.flops for line in lines):
            return
        from skillscale.report import style
        from skillscale.report.interval_figure import draw_half_widths

        figure = draw_half_widths(lines, target=self._order.width)
        self._summary.file("figures/widths.svg", style.to_svg(figure))
        self._summary.file("figures/widths.png", style.to_png(figure))
        self._drawn_s, self._is_drawn = time.monotonic(), True

    def _lines(self) -> "list[IntervalSeries]":
        return [self._line(target) for target in self._order.targets]

    def _line(self, target: Target) -> "IntervalSeries":
        from skillscale.report.interval_figure import IntervalSeries

        name = width_name(target)
        known = sorted((step[_FINISHED], step[name]) for step in self._steps if name in step and _FINISHED in step)
        return IntervalSeries(
            name=target.skill,
            C=target.C,
            is_difference=target.quantity is Quantity.DIFFERENCE,
            flops=tuple(flops for flops, _ in known),
            half=tuple(half for _, half in known),
        )


def _steps_of(call: Mapping[str, list[tuple[int, float, int]]]) -> Iterator[dict[str, float]]:
    """The metrics of a call, one mapping a step."""
    for step in sorted({step for history in call.values() for step, *_ in history}):
        yield {name: value for name, history in call.items() for at, value, _ in history if at == step}
