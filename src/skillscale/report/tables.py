"""Tables of a study: the verdict table of the terminal, and the data frames of every figure."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from skillscale.formatting import format_count, format_flops, format_interval, format_log_ratio, format_percent
from skillscale.laws.results import ExcludedRun, IsoflopMinimum, Status, StudyResults
from skillscale.record import Measurement, RunRecord
from skillscale.report.verdict_text import article, pooled_size_gap

MAX_WIDTH = 110
_NAME_WIDTH = 18
_GAP = "  "
_RUN_COLUMNS = ("run_id", "state", "reason", "flops", "n_params", "n_tokens", "mix", "seed")  # of a table without runs


def verdict_table(fits: StudyResults, mix: str) -> str:
    """Return a text table of each skill: N*(C) at the budgets, residual and verdict, with intervals.

    The table is at most ``MAX_WIDTH`` characters wide. It shows as many budgets as fit, the largest always. Reasons why
    a number is missing are notes below it.
    """
    budgets = sorted({minimum.C for minimum in fits.minima if minimum.mix == mix})
    shown: list[float] = []
    for C in _by_interest(budgets):
        if not shown or _table_width(_columns(fits, mix, [*shown, C], [])) <= MAX_WIDTH:
            shown.append(C)
    notes: list[str] = []
    columns = _columns(fits, mix, sorted(shown), notes)
    hidden = len(budgets) - len(shown)
    lines = align_columns(columns)
    lines += _wrap(
        "N*: parameters at the optimum of a budget in FLOP. Residual: ln N* of a skill minus that of "
        f"{article(_first_aggregate(fits))}, in per cent, over all budgets. Brackets: "
        f"{format_percent(fits.level, 3)} intervals."
    )
    if hidden:
        lines += _wrap(f"Budgets not shown here, to save space: {hidden}. The page and the CSV tables have them.")
    for number, note in enumerate(notes, start=1):
        lines += _wrap(f"[{number}] {note}")
    return "\n".join(lines)


def _columns(fits: StudyResults, mix: str, budgets: Sequence[float], notes: list[str]) -> list[list[str]]:
    names = (*fits.skills, *fits.aggregates)
    optima = [
        [f"N* at {format_flops(C)}", *(_optimum_cell(_minimum(fits, mix, name, C), notes) for name in names)]
        for C in budgets
    ]
    return [["skill", *(_cut_name(name) for name in names)], *optima, *_verdict_columns(fits, mix, names, notes)]


def _verdict_columns(fits: StudyResults, mix: str, names: Sequence[str], notes: list[str]) -> list[list[str]]:
    """Return the columns of residuals and verdicts, with a note for each missing one."""
    values, verdicts = ["residual, %"], ["verdict"]
    for name in names:
        gap = pooled_size_gap(fits, mix, name)
        if gap is None:
            values.append("reference" if name == _first_aggregate(fits) else "–")
            verdicts.append("–")
        elif gap.value.is_finite:
            value, lo, hi = (
                format_log_ratio(number).removesuffix(" %") for number in (gap.value.value, gap.value.lo, gap.value.hi)
            )
            values.append(f"{value} [{lo}, {hi}]")
            verdicts.append(gap.describe_verdict(fits.level))
        else:
            values.append("–")
            verdicts.append(f"{gap.verdict} {_note_mark(notes, gap.reason)}")
    return [values, verdicts]


def _optimum_cell(minimum: IsoflopMinimum | None, notes: list[str]) -> str:
    if minimum is None:
        return "–"
    if minimum.status is not Status.OK:
        return f"{minimum.status} {_note_mark(notes, minimum.reason)}"
    size = format_interval(minimum.N.value, minimum.N.lo, minimum.N.hi, lambda N: format_count(N, 2))
    return f"{size} {_note_mark(notes, minimum.reason)}" if minimum.reason else size


def _minimum(fits: StudyResults, mix: str, name: str, C: float) -> IsoflopMinimum | None:
    return next((minimum for minimum in fits.minima if (minimum.mix, minimum.skill, minimum.C) == (mix, name, C)), None)


def _note_mark(notes: list[str], note: str) -> str:
    if note not in notes:
        notes.append(note)
    return f"[{notes.index(note) + 1}]"


def _by_interest(budgets: Sequence[float]) -> list[float]:
    """Order budgets by interest: the largest, the smallest, then the rest from the largest down."""
    return [budgets[-1], budgets[0], *reversed(budgets[1:-1])] if len(budgets) > 1 else list(budgets)


def _first_aggregate(fits: StudyResults) -> str:
    return fits.aggregates[0] if fits.aggregates else ""


def _cut_name(name: str) -> str:
    return name if len(name) <= _NAME_WIDTH else f"{name[: _NAME_WIDTH - 1]}…"


def _table_width(columns: Sequence[Sequence[str]]) -> int:
    return sum(max(map(len, column)) for column in columns) + len(_GAP) * (len(columns) - 1)


def align_columns(columns: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a plain table, from columns that start with their titles."""
    widths = [max(map(len, column)) for column in columns]
    lines = [
        _GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*columns, strict=True)
    ]
    return [lines[0], _GAP.join("─" * width for width in widths), *lines[1:]]


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, MAX_WIDTH, subsequent_indent="    ")


def study_frames(fits: StudyResults, records: Sequence[RunRecord]) -> dict[str, pd.DataFrame]:
    """Return the tables of all figures by the stem of their CSV file."""
    return {
        "runs": runs_frame(records),
        "optima": fits.minima_table(),
        "isoflop_curves": curves_frame(fits),
        "power_laws": fits.power_law_table(),
        "residuals": fits.size_gap_table(),
        "frontier": fits.curve_versus_law_table(),
        "left_out": excluded_frame(fits.excluded),
    }


def excluded_frame(excluded: Sequence[ExcludedRun]) -> pd.DataFrame:
    """Return one row per excluded run, or skill of a run: run_id, skill, reason."""
    rows = [(run.run_id, run.skill, run.reason) for run in excluded]
    return pd.DataFrame(rows, columns=["run_id", "skill", "reason"])


def runs_frame(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per run: design point, state, cost, and losses with standard errors."""
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
    for group, measurements in (("skill", record.skills), ("held_out", record.skills_held_out), ("set", record.sets)):
        row.update(_losses(group, measurements))
    return row


def _losses(group: str, measurements: Mapping[str, Measurement]) -> dict[str, float]:
    return {
        f"{group}_{quantity}/{name}": getattr(measurement, quantity)
        for name, measurement in measurements.items()
        for quantity in ("loss", "sem")
    }


def curves_frame(fits: StudyResults, points: int = 60) -> pd.DataFrame:
    """Return points along the isoFLOP curves: mix, skill, C, status, N, loss."""
    rows = [
        (minimum.mix, minimum.skill, minimum.C, str(minimum.status), N, loss)
        for minimum in fits.minima
        if minimum.curve is not None
        for sizes in [np.geomspace(minimum.curve.N_min, minimum.curve.N_max, points)]
        for N, loss in zip(sizes, minimum.curve.loss(sizes), strict=True)
    ]
    return pd.DataFrame(rows, columns=["mix", "skill", "C", "status", "N", "loss"])


def states_frame(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return the number of runs in each state with their FLOP and tokens."""
    rows = [(str(record.state), record.point.flops, record.point.n_tokens) for record in records]
    table = pd.DataFrame(rows, columns=["state", "flops", "n_tokens"])
    return table.groupby("state", as_index=False).agg(
        runs=("flops", "size"), flops=("flops", "sum"), n_tokens=("n_tokens", "sum")
    )
