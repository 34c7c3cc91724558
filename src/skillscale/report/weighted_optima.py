"""What is best for skills of a given worth, as text for the terminal and as plain values for ``--json``."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from skillscale.formatting import MISSING, format_count, format_flops, format_log_ratio
from skillscale.laws.optimum.optimum import Optimum, OptimumSummary, ValidationMismatch
from skillscale.laws.results import Interval, SizeGap
from skillscale.report.tables import align_columns


def weighted_optima_as_dict(found: Mapping[str, Sequence[OptimumSummary]], convention: str) -> list[dict[str, Any]]:
    """What ``fit --worth --json`` prints under ``optima``: one object a compute (and named mix); null is unknown.

    Args:
        found: by the name of the mix whose runs were fitted, empty where all were at once.
        convention: of N.
    """
    return [
        {"runs_of": mix, "convention": convention, **_plain(one)} for mix, several in found.items() for one in several
    ]


def _plain(one: OptimumSummary) -> dict[str, Any]:
    optimum = one.optimum
    return {
        **optimum_as_dict(optimum),
        "worth": dict(optimum.weights),
        "mix": {name: share.value for name, share in optimum.mix.items()},
        "residuals": {each.skill: size_gap_as_dict(each) for each in one.size_gaps},
        "equal_weights": None if one.equal is None else mismatch_as_dict(one.equal),
        "best_mix": None if one.best is None else best_mix_as_dict(one.best),
    }


def optimum_as_dict(one: Optimum) -> dict[str, Any]:
    """N and D with the losses there, as plain values."""
    return {
        "flops": one.C, "n_params": one.N.value, "interval": interval_ends(one.N), "n_tokens": one.D.value,
        "loss": one.loss.value, "loss_interval": interval_ends(one.loss),
        "losses": {name: {"loss": loss.value, "interval": interval_ends(loss)} for name, loss in one.losses.items()},
        "status": str(one.status), "reason": one.reason,
    }  # fmt: skip


def best_mix_as_dict(one: Optimum) -> dict[str, Any]:
    """The same with the best mix and its search."""
    shares = {name: {"share": share.value, "interval": interval_ends(share)} for name, share in one.mix.items()}
    starts = None if one.starts is None else {"tried": one.starts.tried, "agree": one.starts.agree}
    return {**optimum_as_dict(one), "mix": shares, "starts": starts}


def size_gap_as_dict(one: SizeGap) -> dict[str, Any]:
    """``value``: ln N*(skill) - ln N* of the worth."""
    return {
        "value": one.value.value, "interval": interval_ends(one.value), "p": one.p, "p_holm": one.p_holm,
        "verdict": str(one.verdict), "status": str(one.status), "reason": one.reason,
    }  # fmt: skip


def mismatch_as_dict(one: ValidationMismatch) -> dict[str, Any]:
    """``shift``: in ln N; ``cost``: nats per token; ``compute``: share of C that makes up for it."""
    told = {name: getattr(one, name) for name in ("shift", "cost", "compute", "largest")}
    plain: dict[str, Any] = {
        name: {"value": each.value, "interval": interval_ends(each)} for name, each in told.items()
    }
    return {**plain, "extremes": list(one.extremes), "status": str(one.status), "reason": one.reason}


def interval_ends(value: Interval) -> list[float]:
    """Both ends of an interval."""
    return [value.lo, value.hi]


def weighted_optima_text(found: Mapping[str, Sequence[OptimumSummary]], convention: str, level: float) -> str:
    """Tables for the terminal: the optimum of each compute, each skill's residual, the best mix; then what is odd."""
    blocks = ["\n".join(_block(mix, several, convention)) for mix, several in found.items() if several]
    return "\n\n".join([*blocks, f"In brackets: {100 * level:.3g} % intervals."])


def _block(mix: str, several: Sequence[OptimumSummary], convention: str) -> list[str]:
    weights = " + ".join(f"{weight:.3g} {name}" for name, weight in several[0].optimum.weights.items() if weight)
    counted = f" N: {convention}." if convention else ""
    lines = [
        f"worth: {weights}{f' on {mix}' if mix else ''}.{counted} By equal weights: N if all skills weighed alike."
    ]
    lines += _table(
        ["C", *(format_flops(one.optimum.C) for one in several)],
        ["N*", *(size_text(one.optimum.N) for one in several)],
        ["D*", *(size_text(one.optimum.D) for one in several)],
        ["loss", *(loss_text(one.optimum.loss) for one in several)],
        ["N by equal weights", *(ratio_text(one.equal.shift) if one.equal else "" for one in several)],
        ["cost, % of C", *(_cost(one.equal.compute) if one.equal else "" for one in several)],
    )
    names = [one.skill for one in several[0].size_gaps]
    residuals = [
        [f"residual at {format_flops(one.optimum.C)}", *(ratio_text(each.value) for each in one.size_gaps)]
        for one in several
    ]
    lines += ["", *_table(["skill", *names], *residuals)]
    best = [(one.optimum.C, one.best) for one in several if one.best is not None]
    if best:
        names = ["best mix", *best[0][1].mix, "N*", "loss"]
        told = [
            [
                f"at {format_flops(C)}",
                *(share_text(share) for share in each.mix.values()),
                size_text(each.N),
                loss_text(each.loss),
            ]
            for C, each in best
        ]
        lines += ["", *_table(names, *told)]
    return lines + [f"at {C}: {reason}" for C, reason in dict.fromkeys(_notes(several)) if reason]


def _notes(several: Sequence[OptimumSummary]) -> list[tuple[str, str]]:
    """What is to be known at each compute: of the optima, and why a residual is not told."""
    notes = []
    for one in several:
        C = format_flops(one.optimum.C)
        notes += [(C, each.reason) for each in (one.optimum, one.best) if each]
        notes += [(C, f"residual of {each.skill}: {each.reason}") for each in one.size_gaps if not each.value.is_finite]
    return notes


def _table(*columns: list[str]) -> list[str]:
    return align_columns([column for column in columns if any(column[1:])])


def size_text(value: Interval) -> str:
    """``250k [180k, 340k]``."""
    if not math.isfinite(value.value):
        return "none"
    return (
        f"{format_count(value.value, 2)} [{format_count(value.lo, 2)}, {format_count(value.hi, 2)}]"
        if value.is_finite
        else format_count(value.value, 2)
    )


def loss_text(value: Interval) -> str:
    """``2.406 [2.314, 2.49]``."""
    if math.isnan(value.value):
        return MISSING
    return f"{value.value:.4g} [{value.lo:.4g}, {value.hi:.4g}]" if value.is_finite else f"{value.value:.4g}"


def share_text(value: Interval) -> str:
    """``0.32 [0.25, 0.41]``."""
    return f"{value.value:.2f} [{value.lo:.2f}, {value.hi:.2f}]" if value.is_finite else f"{value.value:.2f}"


def ratio_text(value: Interval) -> str:
    """A difference of logarithms, signed, in per cent."""
    told, lo, hi = (format_log_ratio(number) for number in (value.value, value.lo, value.hi))
    return f"{told} [{lo}, {hi}]".replace(" %", "") + " %" if value.is_finite else told


def _cost(value: Interval) -> str:
    return f"{100 * value.value:.2g} [{100 * value.lo:.2g}, {100 * value.hi:.2g}]" if value.is_finite else "–"
