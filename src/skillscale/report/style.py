"""Shared parts of all figures: size and style, panels, axes and legends, and image files.

Sizes are for a page 7.2 inches wide (A4 within its margins). Colours of skills are those of Okabe and Ito, which
readers with any common kind of colour vision can distinguish. Figures are drawn without pyplot and its global state.
"""

import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, LogLocator, NullFormatter

WIDTH = 7.2
INK, SOFT, GREY, FAINT = "#1b1f24", "#57606a", "#8c959f", "#d8dee4"
SKILL_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#6B4C9A", "#8C510A")
_TICK_DIGITS = ((0.8, (1, 1.5, 2, 3, 4, 5, 7)), (1.9, (1, 2, 5)), (3.2, (1, 3)), (math.inf, (1,)))
_MANY_DECADES = 3.2  # above this, minor ticks are decades only: nine per decade are slow to draw and hard to read
_SPARE = "spare cell"
STYLE: Any = {  # Any: matplotlib types these keys as literals
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    "axes.titlesize": 9.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "text.parse_math": False,  # a dollar in a skill's name is a dollar
    "svg.fonttype": "path",  # text as outlines: the page looks the same whatever fonts the reader has
    "svg.hashsalt": "skillscale",
}


def to_svg(figure: Figure) -> bytes:
    """Return the figure as SVG: the same bytes for the same values."""
    with mpl.rc_context(STYLE):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        figure.set_layout_engine("none")  # the layout is final, and takes seconds for many panels
        return buffer.getvalue()


def to_png(figure: Figure, dots_per_inch: int = 200) -> bytes:
    """Return the figure as PNG."""
    with mpl.rc_context(STYLE):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dots_per_inch)
        figure.set_layout_engine("none")
        return buffer.getvalue()


def make_panels(number: int, *, height: float, share_y: bool) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels in two columns; a spare cell stays empty."""
    columns = 1 if number == 1 else 2
    rows = math.ceil(number / columns)
    figure = Figure(figsize=(WIDTH, height * rows + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=share_y)
    panels = list(grid.flat)
    for spare in panels[number:]:
        spare.set_axis_off()
        spare.set_label(_SPARE)
    for panel in panels[max(0, number - columns) : number]:
        panel.tick_params(labelbottom=True)
    return figure, panels[:number]


def label_axes(panels: Sequence[Axes], x: str, y: str) -> None:
    """Label the axes of the outer panels."""
    columns = 1 if len(panels) == 1 else 2
    for panel in panels[-columns:]:
        panel.set_xlabel(x)
    for panel in panels[::columns]:
        panel.set_ylabel(y)


def draw_legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    """Draw the legend in the spare cell of the grid, or below."""
    spare = next((axes for axes in figure.axes if axes.get_label() == _SPARE), None)
    if spare is not None:
        spare.legend(handles=handles, loc="center left", bbox_to_anchor=(0.02, 0.5), labelspacing=0.9)
    else:
        figure.legend(handles=handles, loc="outside lower center", ncols=3 if len(handles) > 4 else len(handles))


def set_log_axis(axis: Axis, lo: float, hi: float, words: Callable[[float], str], at: Sequence[float] = ()) -> None:
    """Make an axis logarithmic from ``lo`` to ``hi`` with few round labels; ticks ``at`` these values if they fit."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log", f"{axis.axis_name}lim": (lo, hi)})  # type: ignore[attr-defined]
    decades = math.log10(hi / lo)
    gaps = np.diff(np.log10(sorted(at)))
    if not len(at) or (len(gaps) and gaps.min() < 0.18 * decades):
        digits = next(digits for reach, digits in _TICK_DIGITS if decades < reach)
        powers = range(math.floor(math.log10(lo)), math.ceil(math.log10(hi)) + 1)
        at = [digit * 10.0**exponent for exponent in powers for digit in digits]
    shown = [value for value in sorted(at) if lo <= value <= hi]
    axis.set_major_locator(FixedLocator(shown))
    axis.set_major_formatter(FixedFormatter([words(value) for value in shown]))
    axis.set_minor_locator(LogLocator(subs=tuple(range(1, 10)) if decades < _MANY_DECADES else (1,)))
    axis.set_minor_formatter(NullFormatter())
