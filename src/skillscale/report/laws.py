"""Fitted laws as a text table, as frames for CSV and the page, and as plain values for ``--json``."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from skillscale.formatting import format_count, format_flops
from skillscale.laws.fit.request import UnfittedSkill
from skillscale.laws.fit.skill_law import FittedLaw
from skillscale.laws.results import Interval

Laws = Mapping[str, FittedLaw | UnfittedSkill]
MAX_NOTES = 8  # doubts shown in the terminal


def laws_as_dict(laws: Laws, flops: Sequence[float]) -> dict[str, Any]:
    """What ``fit --json`` prints under ``skills``: one object a skill; what is not known is null.

    Args:
        laws: by skill.
        flops: computes at which optima are told.
    """
    return {
        name: _refused(one) if isinstance(one, UnfittedSkill) else _fitted(one, flops) for name, one in laws.items()
    }


def law_weights(one: FittedLaw) -> dict[str, float]:
    """The law and its rivals by name, with their weights."""
    return {each.law.name: each.weight for each in (one, *one.rivals)}


def _over_laws(one: FittedLaw, flops: Sequence[float]) -> dict[str, Any]:
    """N* under all laws that did nearly as well, each by its weight: the median of the mixture and its interval."""
    drawn = one.optima_over_laws(list(flops))
    tails = [0.5, (1 - one.level) / 2, (1 + one.level) / 2]
    optima = []
    for at, C in enumerate(flops):
        known = drawn[np.isfinite(drawn[:, at]), at]
        enough = bool(len(known)) and len(known) >= 0.99 * len(drawn)
        N, lo, hi = np.exp(np.quantile(known, tails)).tolist() if enough else (math.nan,) * 3
        reason = "" if enough else missing_interval_reason(one, C)
        optima.append({"flops": C, "n_params": N, "interval": [lo, hi], "reason": reason})
    return {"weights": law_weights(one), "optima": optima}


def missing_interval_reason(one: FittedLaw, C: float) -> str:
    """Why N* has no interval over laws; empty where it has one."""
    share = float((~np.isfinite(one.optima_over_laws([C]))).mean())
    if share <= 0.01:
        return ""
    return (
        f"{share:.1%} of the draws have no optimum at {format_flops(C)} FLOP, above 1 %: the runs don't tell there where N "
        "stops to pay"
    )


def _refused(one: UnfittedSkill) -> dict[str, Any]:
    return {
        "law": None, "n_runs": one.n_runs, "objective": None, "theta": {}, "intervals": {},
        "starts": {"tried": 0, "agree": 0}, "status": "refused", "reason": one.reason, "warnings": [], "optima": [],
    }  # fmt: skip


def _fitted(one: FittedLaw, flops: Sequence[float]) -> dict[str, Any]:
    theta = one.theta
    return {
        "law": one.law.name,
        "n_runs": one.n_runs,
        "n_clusters": one.points.n_clusters,
        "objective": one.fit.objective.name,
        "F": one.fit.F,
        "theta": one.fit.parameters,
        "intervals": {name: [value.lo, value.hi] for name, value in theta.items()},
        "exponent": {"a": one.exponent.value, "interval": [one.exponent.lo, one.exponent.hi]},
        "noise": one.fit.noise,
        "starts": {
            "tried": one.fit.starts.tried,
            "agree": one.fit.starts.agree,
            "gap": one.fit.starts.gap if math.isfinite(one.fit.starts.gap) else None,
        },
        "status": str(one.status),
        "reason": one.reason,
        "warnings": list(one.warnings),
        "optima": [_optimum(C, one.optimum(C)) for C in flops],
    } | _of_choice(one, flops)


def _of_choice(one: FittedLaw, flops: Sequence[float]) -> dict[str, Any]:
    """What only a law has that was chosen by held-out runs."""
    if not one.setting:
        return {}
    told: dict[str, Any] = {"setting": one.setting, "believed": list(one.believed)}
    return told | ({"over_laws": _over_laws(one, flops)} if one.rivals else {})


def _optimum(C: float, N: Interval) -> dict[str, Any]:
    return {
        "flops": C,
        "n_params": N.value,
        "n_tokens": C / (6 * N.value) if N.value and math.isfinite(N.value) else math.nan,
        "interval": [N.lo, N.hi],
    }


def law_frame(laws: Laws) -> pd.DataFrame:
    """One row a skill: law, each parameter with _lo and _hi, a, F, objective, starts, noise, n_runs, status, reason."""
    rows = []
    for name, one in laws.items():
        if isinstance(one, UnfittedSkill):
            rows.append({"skill": name, "n_runs": one.n_runs, "status": "refused", "reason": one.reason})
            continue
        row: dict[str, object] = {"skill": name, "law": one.law.name}
        for parameter, value in (one.theta | {"a": one.exponent}).items():
            row |= {parameter: value.value, f"{parameter}_lo": value.lo, f"{parameter}_hi": value.hi}
        starts = one.fit.starts
        row |= {"F": one.fit.F, "objective": one.fit.objective.name, "starts": starts.tried, "agree": starts.agree}
        row |= {"gap": starts.gap, "noise": one.fit.noise, "n_runs": one.n_runs}
        rows.append(row | {"status": str(one.status), "reason": one.reason})
    return pd.DataFrame(rows)


def optima_frame(laws: Laws, flops: Sequence[float]) -> pd.DataFrame:
    """One row a skill and compute: skill, law, C, N, N_lo, N_hi, D, beyond (C over the largest fitted), over.

    ``over``: the laws that the interval is of, where rivals of the chosen one widen it.
    """
    rows = []
    for name, one in laws.items():
        if isinstance(one, UnfittedSkill):
            continue
        largest = float((6 * one.points.N * one.points.D).max())
        for C in flops:
            N = one.told_optimum(C)
            D = C / (6 * N.value) if math.isfinite(N.value) else math.nan
            rows.append((name, one.law.name, C, N.value, N.lo, N.hi, D, C / largest, _weights_told(one)))
    return pd.DataFrame(rows, columns=["skill", "law", "C", "N", "N_lo", "N_hi", "D", "beyond", "over"])


def errors_frame(laws: Laws) -> pd.DataFrame:
    """One row a loss fitted: skill, N, D, loss, and its error ln L - ln law."""
    parts = [
        pd.DataFrame(
            {"skill": name, "N": one.points.N, "D": one.points.D, "loss": one.points.L, "error": one.fit.residuals}
        )
        for name, one in laws.items()
        if isinstance(one, FittedLaw)
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["skill", "N", "D", "loss", "error"])


def law_text(laws: Laws, flops: Sequence[float]) -> str:
    """A table for the terminal: a skill a line with its law, main parameters, exponent and optima; then the doubts."""
    shown = [C for C in flops if math.isfinite(C)][:3]
    rows = [
        ["skill", "law", "E", "alpha", "beta", "a", *(f"N* at {format_flops(C)}" for C in shown), "starts", "noise"]
    ]
    notes: list[str] = []
    for name, one in laws.items():
        if isinstance(one, UnfittedSkill):
            rows.append([name, "refused", *[""] * (len(rows[0]) - 2)])
            notes.append(f"{name}: {one.reason}")
            continue
        theta = one.theta
        cells = [_cell(theta.get(letter)) for letter in ("E", "alpha", "beta")]
        optima = [_size(one.told_optimum(C)) for C in shown]
        starts = f"{one.fit.starts.agree}/{one.fit.starts.tried}"
        rows.append([name, one.law.name, *cells, _cell(one.exponent), *optima, starts, f"{one.fit.noise:.2%}"])
        notes += [f"{name}: {doubt}" for doubt in ([one.reason] if one.reason else []) + list(one.warnings)]
    kept = [at for at in range(len(rows[0])) if any(row[at] for row in rows[1:])]
    widths = [max(len(row[at]) for row in rows) for at in kept]
    lines = ["  ".join(row[at].ljust(width) for at, width in zip(kept, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("─" * width for width in widths))
    level = next((one.level for one in laws.values() if isinstance(one, FittedLaw)), math.nan)
    if math.isfinite(level):
        lines.append(f"In brackets: {100 * level:.3g} % intervals. a: exponent of N* ~ C^a.")
    lines += _over_laws_told(laws, shown)
    more = (
        [f"{len(notes) - MAX_NOTES} more doubts: --json and the page of `report` tell them"]
        if len(notes) > MAX_NOTES
        else []
    )
    return "\n".join([*lines, *notes[:MAX_NOTES], *more])


def _weights_told(one: FittedLaw) -> str:
    """The chosen law and its rivals with their weights; empty where there are none."""
    return ", ".join(f"{name} {weight:.2f}" for name, weight in law_weights(one).items()) if one.rivals else ""


def _over_laws_told(laws: Laws, flops: Sequence[float]) -> list[str]:
    """Footnotes: the laws that intervals of N* are over, with the skills they hold for, and why one has none."""
    by_weights: dict[str, list[str]] = {}
    lost = []
    for name, one in laws.items():
        if isinstance(one, UnfittedSkill) or not one.rivals:
            continue
        by_weights.setdefault(_weights_told(one), []).append(name)
        reason = next((why for why in (missing_interval_reason(one, C) for C in flops) if why), "")
        lost += [f"{name}: N* has no interval over laws; {reason}"] if reason else []
    told = [f"N* of {', '.join(names)}: intervals over {weights}." for weights, names in by_weights.items()]
    return told + lost


def _cell(value: Interval | None) -> str:
    if value is None or not np.isfinite(value.value):
        return ""
    return f"{value.value:.3g} [{value.lo:.3g}, {value.hi:.3g}]" if value.is_finite else f"{value.value:.3g}"


def _size(N: Interval) -> str:
    if not np.isfinite(N.value):
        return "none"
    return (
        f"{format_count(N.value, 2)} [{format_count(N.lo, 2)}, {format_count(N.hi, 2)}]"
        if N.is_finite
        else format_count(N.value, 2)
    )
