"""The one figure that a fit shows: its isoFLOP curves, or N* by budget; with a small copy for a description."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from skillscale.laws.fit.skill_law import FittedLaw
from skillscale.laws.results import StudyResults
from skillscale.report import style
from skillscale.report.figures import draw_isoflop_curves
from skillscale.report.law_figures import draw_law_optima
from skillscale.report.laws import Laws
from skillscale.report.page import shown_mixes

_PREVIEW_DPI = 95  # as wide as a description in the MLflow UI


def decision_figure(curves: StudyResults, laws: Laws, flops: Sequence[float], base: str) -> dict[str, Figure]:
    """Return the figure by its name; none where no skill has a law.

    Args:
        curves: isoFLOP curves, maybe none.
        laws: law of each skill.
        flops: budgets of the optima, FLOP.
        base: mix whose curves are drawn, where the study has many.
    """
    if mixes := shown_mixes(curves, base):
        return {"isoflop": draw_isoflop_curves(curves, mixes[0])}
    fitted = {name: law for name, law in laws.items() if isinstance(law, FittedLaw)}
    return {"law-optima": draw_law_optima(fitted, flops)} if fitted else {}


def preview(figure: Figure) -> bytes:
    """Return a figure as a PNG that fits into a description."""
    return style.to_png(figure, _PREVIEW_DPI)
