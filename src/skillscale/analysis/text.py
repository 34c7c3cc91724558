"""What commands print of fitted isoFLOP curves."""

from skillscale.laws.results import StudyResults


def verdict_lines(curves: StudyResults, base: str) -> list[str]:
    """Return the table of verdicts of each mix; of many mixes, of the base mix alone; nothing without curves."""
    from skillscale.report.page import shown_mixes
    from skillscale.report.tables import verdict_table

    shown = shown_mixes(curves, base)
    lines = [verdict_table(curves, mix) for mix in shown]
    if len(curves.mixes) > len(shown):
        lines.append(f"Shown: {base}, one of {len(curves.mixes)} mixes. The tables of `report` have them all.")
    return lines
