"""Figure of interval half widths against the FLOP of the finished runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from skillscale.formatting import format_number, format_percent, power
from skillscale.report.style import GREY, INK, SKILL_COLOURS, STYLE, draw_legend, label_axes, make_panels, set_log_axis

_FAR = 3.0  # ratio of largest to smallest FLOP above which their axis is logarithmic


@dataclass(frozen=True, kw_only=True)
class IntervalSeries:
    """Half widths ``half``, ln N, of one target at compute ``C``, FLOP, by ``flops`` of the finished runs.

    ``name`` is the skill, or the first skill of a difference.
    """

    name: str
    C: float
    is_difference: bool
    flops: tuple[float, ...]
    half: tuple[float, ...]


def draw_half_widths(lines: Sequence[IntervalSeries], *, level: float = 0.9, target: float = 0.0) -> Figure:
    """Draw one panel per compute and one line per skill, differences in grey and the ``target`` half width dashed."""
    with mpl.rc_context(STYLE):
        with_runs = [line for line in lines if line.flops]
        computes = sorted({line.C for line in with_runs})
        skills = list(dict.fromkeys(line.name for line in with_runs if not line.is_difference))
        colours = {name: SKILL_COLOURS[at % len(SKILL_COLOURS)] for at, name in enumerate(skills)}
        figure, panels = make_panels(len(computes), height=2.6, share_y=True)
        ends = _ends([x for line in with_runs for x in line.flops]), _ends([y for line in with_runs for y in line.half])
        for panel, C in zip(panels, computes, strict=True):
            _draw_panel(panel, [line for line in with_runs if line.C == C], colours, target)
            panel.set_title(f"N* at C = {power(C)}")
            _set_axes(panel, *ends)
        label_axes(panels, "FLOP of finished runs, 6 N D", f"half width of {format_percent(level)} interval, ln N*")
        draw_legend(
            figure, _legend(colours, has_differences=any(line.is_difference for line in with_runs), target=target)
        )
        return figure


def _draw_panel(panel: Axes, lines: Sequence[IntervalSeries], colours: dict[str, str], target: float) -> None:
    for line in lines:
        if line.is_difference:
            panel.plot(line.flops, line.half, color=GREY, linewidth=0.7, marker=".", markersize=2, gid="difference")
        else:
            panel.plot(line.flops, line.half, color=colours[line.name], linewidth=1.3, marker="o", markersize=3,
                       gid="skill", zorder=3)  # fmt: skip
    if target > 0:
        panel.axhline(target, color=INK, linewidth=0.8, linestyle=(0, (4, 2)), gid="target")
    panel.grid(axis="y")


def _set_axes(panel: Axes, flops: tuple[float, float], half: tuple[float, float]) -> None:
    if flops[1] > _FAR * flops[0]:
        set_log_axis(panel.xaxis, flops[0] / 1.1, flops[1] * 1.1, power)
    else:
        room = 0.05 * (flops[1] - flops[0]) or 0.1 * flops[1]
        panel.set_xlim(flops[0] - room, flops[1] + room)
        panel.locator_params(axis="x", nbins=4)
        panel.xaxis.set_major_formatter(lambda value, _: power(value))
    set_log_axis(panel.yaxis, half[0] / 1.2, half[1] * 1.2, format_number)


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _legend(colours: dict[str, str], *, has_differences: bool, target: float) -> list[Line2D]:
    key = [Line2D([], [], color=colour, marker="o", markersize=3, label=name) for name, colour in colours.items()]
    if has_differences:
        key.append(Line2D([], [], color=GREY, linewidth=0.7, label="difference of two skills"))
    if target > 0:
        key.append(Line2D([], [], color=INK, linewidth=0.8, linestyle=(0, (4, 2)), label="target"))
    return key
