"""Half widths of intervals against the FLOPs of the runs they rest on: what sampling bought."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from skillscale.formatting import power
from skillscale.report.style import GREY, INK, SKILL_COLOURS, STYLE, draw_legend, label_axes, make_panels, set_log_axis

_FAR = 3.0  # ratio of the ends of FLOPs, from which their axis is logarithmic


@dataclass(frozen=True, kw_only=True)
class IntervalSeries:
    """Half widths ``half``, in ln N, of one target at compute ``C``, FLOP, by the ``flops`` of the finished runs.

    ``name``: the skill, of a difference the first one.
    """

    name: str
    C: float
    is_difference: bool
    flops: tuple[float, ...]
    half: tuple[float, ...]


def draw_half_widths(lines: Sequence[IntervalSeries], *, level: float = 0.9, wanted: float = 0.0) -> Figure:
    """A panel a target compute: a line a skill, differences in grey; ``wanted``: the half width asked for, dashed."""
    with mpl.rc_context(STYLE):
        known = [one for one in lines if one.flops]
        computes = sorted({one.C for one in known})
        skills = list(dict.fromkeys(one.name for one in known if not one.is_difference))
        colours = {name: SKILL_COLOURS[at % len(SKILL_COLOURS)] for at, name in enumerate(skills)}
        figure, panels = make_panels(len(computes), height=2.6, share_y=True)
        ends = _ends([x for one in known for x in one.flops]), _ends([y for one in known for y in one.half])
        for panel, C in zip(panels, computes, strict=True):
            _panel(panel, [one for one in known if one.C == C], colours, wanted)
            panel.set_title(f"N* at C = {power(C)}")
            _axes(panel, *ends)
        label_axes(panels, "FLOP of finished runs, 6 N D", f"half width of {level:.0%} interval, ln N*")
        draw_legend(figure, _key(colours, has_differences=any(one.is_difference for one in known), wanted=wanted))
        return figure


def _panel(panel: Axes, lines: Sequence[IntervalSeries], colours: dict[str, str], wanted: float) -> None:
    for one in lines:
        if one.is_difference:
            panel.plot(one.flops, one.half, color=GREY, linewidth=0.7, marker=".", markersize=2, gid="difference")
        else:
            panel.plot(one.flops, one.half, color=colours[one.name], linewidth=1.3, marker="o", markersize=3,
                       gid="skill", zorder=3)  # fmt: skip
    if wanted > 0:
        panel.axhline(wanted, color=INK, linewidth=0.8, linestyle=(0, (4, 2)), gid="wanted")
    panel.grid(axis="y")


def _axes(panel: Axes, flops: tuple[float, float], half: tuple[float, float]) -> None:
    if flops[1] > _FAR * flops[0]:
        set_log_axis(panel.xaxis, flops[0] / 1.1, flops[1] * 1.1, power)
    else:
        room = 0.05 * (flops[1] - flops[0]) or 0.1 * flops[1]
        panel.set_xlim(flops[0] - room, flops[1] + room)
        panel.locator_params(axis="x", nbins=4)
        panel.xaxis.set_major_formatter(lambda value, _: power(value))
    set_log_axis(panel.yaxis, half[0] / 1.2, half[1] * 1.2, lambda value: f"{value:g}")


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _key(colours: dict[str, str], *, has_differences: bool, wanted: float) -> list[Line2D]:
    key = [Line2D([], [], color=colour, marker="o", markersize=3, label=name) for name, colour in colours.items()]
    if has_differences:
        key.append(Line2D([], [], color=GREY, linewidth=0.7, label="differences of two"))
    if wanted > 0:
        key.append(Line2D([], [], color=INK, linewidth=0.8, linestyle=(0, (4, 2)), label="asked for"))
    return key
