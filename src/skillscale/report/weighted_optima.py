"""Optima for weighted skills, as text for the terminal and as plain values for ``--json``."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from skillscale.formatting import (
    MISSING,
    format_count,
    format_flops,
    format_interval,
    format_log_ratio,
    format_number,
    format_percent,
)
from skillscale.laws.optimum.optimum import Optimum, OptimumSummary, ValidationMismatch
from skillscale.laws.results import Interval, SizeGap
from skillscale.report.tables import align_columns


def weighted_optima_as_dict(optima: Mapping[str, Sequence[OptimumSummary]], convention: str) -> list[dict[str, Any]]:
    """Return what ``fit --json`` prints under ``optima``: one object per compute and named mix. Unknown is null.

    Args:
        found: by the name of the mix whose runs were fitted, empty where all were at once.
        convention: words for what N counts.
    """
    return [
        {"runs_of": mix, "convention": convention, **_weighted_optimum_as_dict(optimum)}
        for mix, of_mix in optima.items()
        for optimum in of_mix
    ]


def _weighted_optimum_as_dict(weighted: OptimumSummary) -> dict[str, Any]:
    optimum = weighted.optimum
    return {
        **optimum_as_dict(optimum),
        "worth": dict(optimum.weights),
        "mix": {name: share.value for name, share in optimum.mix.items()},
        "residuals": {gap.skill: size_gap_as_dict(gap) for gap in weighted.size_gaps},
        "equal_weights": None if weighted.equal is None else mismatch_as_dict(weighted.equal),
        "best_mix": None if weighted.best is None else best_mix_as_dict(weighted.best),
    }


def optimum_as_dict(optimum: Optimum) -> dict[str, Any]:
    """Return N and D with the losses there, as plain values."""
    return {
        "flops": optimum.C, "n_params": optimum.N.value, "interval": interval_ends(optimum.N),
        "n_tokens": optimum.D.value, "loss": optimum.loss.value, "loss_interval": interval_ends(optimum.loss),
        "losses": {
            name: {"loss": loss.value, "interval": interval_ends(loss)} for name, loss in optimum.losses.items()
        },
        "status": str(optimum.status), "reason": optimum.reason,
    }  # fmt: skip


def best_mix_as_dict(optimum: Optimum) -> dict[str, Any]:
    """Return an optimum with its best mix and how many starts of the search agree."""
    shares = {name: {"share": share.value, "interval": interval_ends(share)} for name, share in optimum.mix.items()}
    starts = None if optimum.starts is None else {"tried": optimum.starts.tried, "agree": optimum.starts.agree}
    return {**optimum_as_dict(optimum), "mix": shares, "starts": starts}


def size_gap_as_dict(gap: SizeGap) -> dict[str, Any]:
    """Return a size gap as plain values. ``value`` is ln N*(skill) - ln N*(weighted)."""
    return {
        "value": gap.value.value, "interval": interval_ends(gap.value), "p": gap.p, "p_holm": gap.p_holm,
        "verdict": str(gap.verdict), "status": str(gap.status), "reason": gap.reason,
    }  # fmt: skip


def mismatch_as_dict(mismatch: ValidationMismatch) -> dict[str, Any]:
    """Return the shift (ln N), its cost (nats per token), and the share of C that makes up for it."""
    intervals = {name: getattr(mismatch, name) for name in ("shift", "cost", "compute", "largest")}
    plain: dict[str, Any] = {
        name: {"value": interval.value, "interval": interval_ends(interval)} for name, interval in intervals.items()
    }
    return {**plain, "extremes": list(mismatch.extremes), "status": str(mismatch.status), "reason": mismatch.reason}


def interval_ends(value: Interval) -> list[float]:
    """Return both ends of an interval."""
    return [value.lo, value.hi]


def weighted_optima_text(optima: Mapping[str, Sequence[OptimumSummary]], convention: str, level: float) -> str:
    """Return tables for the terminal: optima, residuals and best mix at each compute, then notes."""
    blocks = ["\n".join(_block(mix, of_mix, convention)) for mix, of_mix in optima.items() if of_mix]
    return "\n\n".join([*blocks, f"Brackets: {format_percent(level, 3)} intervals."])


def _block(mix: str, optima: Sequence[OptimumSummary], convention: str) -> list[str]:
    counted = f" N: {convention}." if convention else ""
    weights = f"weights: {weights_text(optima[0].optimum.weights)}{f' on {mix}' if mix else ''}."
    lines = [f"{weights}{counted} Equal weights: N* if all skills had the same weight."]
    lines += _table(
        ["C", *(format_flops(weighted.optimum.C) for weighted in optima)],
        ["N*", *(size_text(weighted.optimum.N) for weighted in optima)],
        ["D*", *(size_text(weighted.optimum.D) for weighted in optima)],
        ["loss", *(loss_text(weighted.optimum.loss) for weighted in optima)],
        ["N with equal weights", *(ratio_text(weighted.equal.shift) if weighted.equal else "" for weighted in optima)],
        ["cost, % of C", *(_cost_text(weighted.equal.compute) if weighted.equal else "" for weighted in optima)],
    )
    names = [gap.skill for gap in optima[0].size_gaps]
    residuals = [
        [f"residual at {format_flops(weighted.optimum.C)}", *(ratio_text(gap.value) for gap in weighted.size_gaps)]
        for weighted in optima
    ]
    lines += ["", *_table(["skill", *names], *residuals)]
    best = [(weighted.optimum.C, weighted.best) for weighted in optima if weighted.best is not None]
    if best:
        titles = ["best mix", *best[0][1].mix, "N*", "loss"]
        lines += ["", *_table(titles, *(_best_mix_column(C, optimum) for C, optimum in best))]
    return lines + [f"at {C}: {reason}" for C, reason in dict.fromkeys(_notes(optima)) if reason]


def _best_mix_column(C: float, optimum: Optimum) -> list[str]:
    shares = (share_text(share) for share in optimum.mix.values())
    return [f"at {format_flops(C)}", *shares, size_text(optimum.N), loss_text(optimum.loss)]


def _notes(optima: Sequence[OptimumSummary]) -> list[tuple[str, str]]:
    """Return the notes on optima, and the reasons for missing residuals, with their compute."""
    notes = []
    for weighted in optima:
        C = format_flops(weighted.optimum.C)
        notes += [(C, optimum.reason) for optimum in (weighted.optimum, weighted.best) if optimum]
        missing = [gap for gap in weighted.size_gaps if not gap.value.is_finite]
        notes += [(C, f"residual of {gap.skill}: {gap.reason}") for gap in missing]
    return notes


def _table(*columns: list[str]) -> list[str]:
    return align_columns([column for column in columns if any(column[1:])])


def weights_text(weights: Mapping[str, float]) -> str:
    """Return the weights that are not 0, as in ``0.5 code + 0.5 prose``."""
    return " + ".join(f"{format_number(weight)} {name}" for name, weight in weights.items() if weight)


def size_text(value: Interval) -> str:
    """Return a size with its interval, as in ``250k [180k, 340k]``."""
    if not math.isfinite(value.value):
        return "none"
    return format_interval(value.value, value.lo, value.hi, lambda size: format_count(size, 2))


def loss_text(value: Interval) -> str:
    """Return a loss with its interval, as in ``2.406 [2.314, 2.49]``."""
    return format_interval(value.value, value.lo, value.hi, lambda loss: format_number(loss, 4))


def share_text(value: Interval) -> str:
    """Return a share with its interval, as in ``0.32 [0.25, 0.41]``."""
    return format_interval(value.value, value.lo, value.hi, lambda share: f"{share:.2f}")


def ratio_text(value: Interval) -> str:
    """Return a difference of logarithms with its interval, as signed percentages."""
    middle, lo, hi = (format_log_ratio(number) for number in (value.value, value.lo, value.hi))
    return f"{middle} [{lo}, {hi}]".replace(" %", "") + " %" if value.is_finite else middle


def _cost_text(value: Interval) -> str:
    if not value.is_finite:
        return MISSING
    return format_interval(value.value, value.lo, value.hi, lambda share: format_number(100 * share, 2))
