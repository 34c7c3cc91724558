"""Optima, size gaps and losses as text for the terminal and as plain values for ``--json``."""

import math
from collections.abc import Mapping

from skillscale.formatting import (
    JsonObject,
    format_count,
    format_interval,
    format_log_ratio,
    format_number,
)
from skillscale.laws.optimum.identification import Identification
from skillscale.laws.optimum.optimum import Optimum, ValidationMismatch
from skillscale.laws.results import Interval, SizeGap


def optimum_as_dict(optimum: Optimum) -> JsonObject:
    """Return N and D with the losses there, as plain values."""
    return {
        "flops": optimum.C, "n_params": optimum.N.value, "interval": interval_ends(optimum.N),
        "n_tokens": optimum.D.value, "loss": optimum.loss.value, "loss_interval": interval_ends(optimum.loss),
        "losses": {
            name: {"loss": loss.value, "interval": interval_ends(loss)} for name, loss in optimum.losses.items()
        },
        "status": str(optimum.status), "reason": optimum.reason, **identification_as_dict(optimum.identification),
    }  # fmt: skip


def identification_as_dict(identification: Identification) -> JsonObject:
    """Return whether the runs decide N*, and further runs where they do not."""
    return {
        "identified": not identification.prior_decides, "prior_share": identification.prior_share,
        "further_runs": [{"n_params": run.N, "n_tokens": run.D} for run in identification.further_runs],
    }  # fmt: skip


def best_mix_as_dict(optimum: Optimum) -> JsonObject:
    """Return an optimum with its best mix and how many starts of the search agree."""
    shares = {name: {"share": share.value, "interval": interval_ends(share)} for name, share in optimum.mix.items()}
    starts = None if optimum.starts is None else {"tried": optimum.starts.tried, "agree": optimum.starts.agree}
    return {**optimum_as_dict(optimum), "mix": shares, "starts": starts}


def size_gap_as_dict(gap: SizeGap) -> JsonObject:
    """Return a size gap as plain values. ``value`` is ln N*(skill) - ln N*(weighted)."""
    return {
        "value": gap.value.value, "interval": interval_ends(gap.value), "p": gap.p, "p_holm": gap.p_holm,
        "verdict": str(gap.verdict), "status": str(gap.status), "reason": gap.reason,
    }  # fmt: skip


def mismatch_as_dict(mismatch: ValidationMismatch) -> JsonObject:
    """Return the shift (ln N), its cost (nats per token), and the share of C that makes up for it."""
    intervals = {name: getattr(mismatch, name) for name in ("shift", "cost", "compute", "largest")}
    plain: JsonObject = {
        name: {"value": interval.value, "interval": interval_ends(interval)} for name, interval in intervals.items()
    }
    return {**plain, "extremes": list(mismatch.extremes), "status": str(mismatch.status), "reason": mismatch.reason}


def interval_ends(value: Interval) -> list[float]:
    """Return both ends of an interval."""
    return [value.lo, value.hi]


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
