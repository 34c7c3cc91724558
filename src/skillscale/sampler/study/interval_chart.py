"""Half widths of intervals against FLOP over all calls of ``sample`` on a study: metrics and a figure."""

import math
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from skillscale.design.targets import Quantity, Target, TargetEstimates
from skillscale.formatting import format_flops, plural
from skillscale.sampler.study.describe import half_width_metric, half_width_metrics
from skillscale.sampler.study.problem import SamplingProblem
from skillscale.tracking import AnalysisWriter, Study

if TYPE_CHECKING:
    from skillscale.report.interval_figure import IntervalSeries

_FINISHED = "flops_finished"
_FIGURE, _PREVIEW = "figures/widths.png", "figures/preview.png"
_DRAW_EVERY_S = 60.0


class IntervalLog:
    """A log of a study's intervals as runs come in.

    The latest analysis run holds a figure of all calls. ``KIND``: kind of the analyses that hold the log.
    """

    KIND = "sample"

    def __init__(self, study: Study, problem: SamplingProblem, writer: AnalysisWriter) -> None:
        self._problem = problem
        self._writer = writer
        self._steps = [step for call in study.analysis_metrics(self.KIND) for step in _steps_of(call)]
        self._drawn_s = time.monotonic()
        self._is_drawn = True

    def log(self, estimates: TargetEstimates | None, *, runs: int, finished: float, spent: float) -> None:
        """Log the half widths.

        Args:
            estimates: current estimates; None where the runs are too few.
            runs: number of finished runs.
            finished: 6 N D of the finished runs, FLOP.
            spent: cost of all sampled runs, those under way included, with overheads, FLOP.
        """
        metrics = {"flops_spent": spent, "flops_budget": self._problem.budget, "runs": float(runs), _FINISHED: finished}
        metrics |= {} if estimates is None else half_width_metrics(estimates)
        self._writer.log(metrics=metrics, step=runs)
        self._steps.append(metrics)
        self._is_drawn = False
        if time.monotonic() - self._drawn_s > _DRAW_EVERY_S:
            self.draw()

    def draw(self) -> None:
        """Write the figure, unless it has not changed."""
        lines = self._lines()
        if self._is_drawn or not any(line.flops for line in lines):
            return
        from skillscale.report import style
        from skillscale.report.decision_figure import preview
        from skillscale.report.interval_figure import draw_half_widths

        figure = draw_half_widths(lines, target=self._problem.target_half_width)
        self._writer.file("figures/widths.svg", style.to_svg(figure))
        self._writer.file(_FIGURE, style.to_png(figure))
        self._writer.file(_PREVIEW, preview(figure))
        self._writer.log(note=self._note())
        self._drawn_s, self._is_drawn = time.monotonic(), True

    def _note(self) -> str:
        """Return the description of the call: the widest interval, its cost, and the figure."""
        last = self._steps[-1]
        widest = (
            f"Widest interval: x/÷ {math.exp(last['half_width']):.3g} " if "half_width" in last else "Too few runs "
        )
        runs = f"{plural(round(last['runs']), 'run')} of {format_flops(last[_FINISHED])} FLOP"
        figure = self._writer.image("Half widths against FLOP", _PREVIEW)
        return f"{widest}after {runs}. {self._writer.link('Figure', _FIGURE)}:\n\n{figure}"

    def _lines(self) -> "list[IntervalSeries]":
        return [self._line(target) for target in self._problem.targets]

    def _line(self, target: Target) -> "IntervalSeries":
        from skillscale.report.interval_figure import IntervalSeries

        name = half_width_metric(target)
        values = sorted((step[_FINISHED], step[name]) for step in self._steps if name in step and _FINISHED in step)
        return IntervalSeries(
            name=target.skill,
            C=target.C,
            is_difference=target.quantity is Quantity.DIFFERENCE,
            flops=tuple(flops for flops, _ in values),
            half=tuple(half for _, half in values),
        )


def _steps_of(call: Mapping[str, list[tuple[int, float, int]]]) -> Iterator[dict[str, float]]:
    """Yield the metrics of a call by step."""
    for step in sorted({step for history in call.values() for step, *_ in history}):
        yield {name: value for name, history in call.items() for at, value, _ in history if at == step}
