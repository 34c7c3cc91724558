"""Tables of a study: the one a terminal shows, and the frames behind every figure."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from skillscale.formatting import format_count, format_flops, format_log_ratio
from skillscale.laws.results import ExcludedRun, IsoflopMinimum, Status, StudyResults
from skillscale.record import Measurement, RunRecord
from skillscale.report.verdict_text import article, pooled_size_gap

MAX_WIDTH = 110
_NAME_WIDTH = 18
_GAP = "  "
_RUN_COLUMNS = ("run_id", "state", "reason", "flops", "n_params", "n_tokens", "mix", "seed")  # of a table without runs


def verdict_table(fits: StudyResults, mix: str) -> str:
    """Skill, N*(C) with interval at as many budgets as fit, residual with interval, verdict; what is refused as notes.

    Plain text, at most ``MAX_WIDTH`` characters wide. The largest budget is always there; the rest is in the frames.
    """
    budgets = sorted({one.C for one in fits.minima if one.mix == mix})
    shown: list[float] = []
    for C in _shown_first(budgets):
        if not shown or _table_width(_columns(fits, mix, [*shown, C], [])) <= MAX_WIDTH:
            shown.append(C)
    notes: list[str] = []
    columns = _columns(fits, mix, sorted(shown), notes)
    hidden = len(budgets) - len(shown)
    lines = align_columns(columns)
    lines += _wrapped(
        f"N*: parameters at the optimum of a budget in FLOP. Residual: N* against that of {article(_reference(fits))}, "
        f"over budgets. In brackets: {100 * fits.level:.3g} % intervals."
    )
    if hidden:
        lines += _wrapped(f"Budgets not shown here, for want of room: {hidden}. The page and the CSV tables have them.")
    for number, note in enumerate(notes, start=1):
        lines += _wrapped(f"[{number}] {note}")
    return "\n".join(lines)


def _columns(fits: StudyResults, mix: str, budgets: Sequence[float], notes: list[str]) -> list[list[str]]:
    names = (*fits.skills, *fits.aggregates)
    optima = [
        [f"N* at {format_flops(C)}", *(_optimum(_minimum(fits, mix, name, C), notes) for name in names)]
        for C in budgets
    ]
    return [["skill", *(_shortened(name) for name in names)], *optima, *_verdict_columns(fits, mix, names, notes)]


def _verdict_columns(fits: StudyResults, mix: str, names: Sequence[str], notes: list[str]) -> list[list[str]]:
    """Residual and verdict; a refusal's reason becomes a note."""
    values, verdicts = ["residual, %"], ["verdict"]
    for name in names:
        one = pooled_size_gap(fits, mix, name)
        if one is None:
            values.append("reference" if name == _reference(fits) else "–")
            verdicts.append("–")
        elif one.value.is_finite:
            value, lo, hi = (
                format_log_ratio(number).removesuffix(" %") for number in (one.value.value, one.value.lo, one.value.hi)
            )
            values.append(f"{value} [{lo}, {hi}]")
            verdicts.append(one.describe_verdict(fits.level))
        else:
            values.append("–")
            verdicts.append(f"{one.verdict} {_mark(notes, one.reason)}")
    return [values, verdicts]


def _optimum(minimum: IsoflopMinimum | None, notes: list[str]) -> str:
    if minimum is None:
        return "–"
    if minimum.status is not Status.OK:
        return f"{minimum.status} {_mark(notes, minimum.reason)}"
    value, lo, hi = (format_count(number, 2) for number in (minimum.N.value, minimum.N.lo, minimum.N.hi))
    return f"{value} [{lo}, {hi}]"


def _minimum(fits: StudyResults, mix: str, name: str, C: float) -> IsoflopMinimum | None:
    return next((one for one in fits.minima if (one.mix, one.skill, one.C) == (mix, name, C)), None)


def _mark(notes: list[str], note: str) -> str:
    if note not in notes:
        notes.append(note)
    return f"[{notes.index(note) + 1}]"


def _shown_first(budgets: Sequence[float]) -> list[float]:
    """The ends tell most: largest, smallest, then inwards from the largest."""
    return [budgets[-1], budgets[0], *reversed(budgets[1:-1])] if len(budgets) > 1 else list(budgets)


def _reference(fits: StudyResults) -> str:
    return fits.aggregates[0] if fits.aggregates else ""


def _shortened(name: str) -> str:
    return name if len(name) <= _NAME_WIDTH else f"{name[: _NAME_WIDTH - 1]}…"


def _table_width(columns: Sequence[Sequence[str]]) -> int:
    return sum(max(map(len, column)) for column in columns) + len(_GAP) * (len(columns) - 1)


def align_columns(columns: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a plain table whose columns start with their titles, a rule below the titles."""
    widths = [max(map(len, column)) for column in columns]
    lines = [
        _GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*columns, strict=True)
    ]
    return [lines[0], _GAP.join("─" * width for width in widths), *lines[1:]]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, MAX_WIDTH, subsequent_indent="    ")


def study_frames(fits: StudyResults, records: Sequence[RunRecord]) -> dict[str, pd.DataFrame]:
    """Every table behind the figures, by file stem: write each as CSV."""
    return {
        "runs": runs_frame(records),
        "optima": fits.minima_table(),
        "isoflop_curves": curves_frame(fits),
        "power_laws": fits.power_law_table(),
        "residuals": fits.size_gap_table(),
        "frontier": fits.curve_versus_law_table(),
        "left_out": excluded_frame(fits.excluded),
    }


def excluded_frame(unusable: Sequence[ExcludedRun]) -> pd.DataFrame:
    """One row a run, or a skill of a run, that was left out: run_id, skill, reason."""
    rows = [(one.run_id, one.skill, one.reason) for one in unusable]
    return pd.DataFrame(rows, columns=["run_id", "skill", "reason"])


def runs_frame(records: Sequence[RunRecord]) -> pd.DataFrame:
    """One row a run: what it was, what became of it, what it took, its losses with standard errors."""
    return pd.DataFrame([_run_row(record) for record in records], columns=None if records else _RUN_COLUMNS)


def _run_row(record: RunRecord) -> dict[str, object]:
    point, size, cost = record.point, record.size, record.cost
    row: dict[str, object] = {
        "run_id": record.run_id,
        "state": str(record.state),
        "reason": record.reason,
        "flops": point.flops,
        "n_params": point.n_params,
        "n_params_nonembed": size.n_params_nonembed if size else None,
        "n_tokens": point.n_tokens,
        "mix": str(point.mix),
        "seed": point.seed,
        "flops_exact": cost.flops_exact if cost else None,
        "tokens_per_s": cost.tokens_per_s if cost else None,
        "train_s": cost.train_s if cost else None,
    }
    for group, measured in (("skill", record.skills), ("held_out", record.skills_held_out), ("set", record.sets)):
        row.update(_losses(group, measured))
    return row


def _losses(group: str, measured: Mapping[str, Measurement]) -> dict[str, float]:
    return {
        f"{group}_{quantity}/{name}": getattr(one, quantity)
        for name, one in measured.items()
        for quantity in ("loss", "sem")
    }


def curves_frame(fits: StudyResults, points: int = 60) -> pd.DataFrame:
    """The isoFLOP curves as drawn: mix, skill, C, status, N, loss."""
    rows = [
        (one.mix, one.skill, one.C, str(one.status), N, loss)
        for one in fits.minima
        if one.curve is not None
        for sizes in [np.geomspace(one.curve.N_min, one.curve.N_max, points)]
        for N, loss in zip(sizes, one.curve.loss(sizes), strict=True)
    ]
    return pd.DataFrame(rows, columns=["mix", "skill", "C", "status", "N", "loss"])


def states_frame(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Runs by state, with FLOP and tokens."""
    rows = [(str(one.state), one.point.flops, one.point.n_tokens) for one in records]
    table = pd.DataFrame(rows, columns=["state", "flops", "n_tokens"])
    return table.groupby("state", as_index=False).agg(
        runs=("flops", "size"), flops=("flops", "sum"), n_tokens=("n_tokens", "sum")
    )
