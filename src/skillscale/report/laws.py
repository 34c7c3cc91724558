"""Fitted laws as a text table, as frames for CSV and the page, and as plain values for ``--json``."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from skillscale.laws.choice import Outlook
from skillscale.laws.fitted import Fitted
from skillscale.laws.request import Refused
from skillscale.laws.results import Interval
from skillscale.report.numbers import compact, count

Laws = Mapping[str, Fitted | Refused]
NOTES = 8  # doubts shown in the terminal
NO_OPTIMUM = 0.05  # share of draws of several laws without an optimum, beyond which they tell none


def plain_laws(laws: Laws, flops: Sequence[float], averages: Mapping[str, Outlook] | None = None) -> dict[str, Any]:
    """What ``fit --json`` prints under ``skills``: one object a skill; what is not known is null.

    Args:
        laws: by skill.
        flops: computes at which optima are told.
        averages: by skill, the laws that predicted held-out runs about as well, whose optima own the choice of form.
    """
    told = {name: _refused(one) if isinstance(one, Refused) else _fitted(one, flops) for name, one in laws.items()}
    for name, outlook in (averages or {}).items():
        one = laws.get(name)
        if isinstance(one, Fitted):
            told[name]["over_laws"] = _over_laws(outlook, one, flops)
    return told


def _over_laws(outlook: Outlook, one: Fitted, flops: Sequence[float]) -> dict[str, Any]:
    """N* under all laws that did nearly as well, each by its weight: the median of the mixture and its interval."""
    mix = one.points.h.mean(0) if one.points.h is not None else None
    drawn = outlook.log_optimum(list(flops), mix)
    tails = [0.5, (1 - one.level) / 2, (1 + one.level) / 2]
    optima = []
    for at, C in enumerate(flops):
        known = drawn[np.isfinite(drawn[:, at]), at]
        lost = 1 - len(known) / len(drawn)
        N, lo, hi = np.exp(np.quantile(known, tails)).tolist() if lost <= NO_OPTIMUM else (math.nan,) * 3
        reason = f"{lost:.1%} of the draws have no optimum there" if lost > NO_OPTIMUM else ""
        optima.append({"flops": C, "n_params": N, "interval": [lo, hi], "reason": reason})
    weights = {member.setting.law.name: float(w) for member, w in zip(outlook.members, outlook.weights, strict=True)}
    return {"weights": weights, "optima": optima}


def _refused(one: Refused) -> dict[str, Any]:
    return {
        "law": None, "n_runs": one.n_runs, "objective": None, "theta": {}, "intervals": {},
        "starts": {"tried": 0, "agree": 0}, "status": "refused", "reason": one.reason, "warnings": [], "optima": [],
    }  # fmt: skip


def _fitted(one: Fitted, flops: Sequence[float]) -> dict[str, Any]:
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
    }


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
        if isinstance(one, Refused):
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
    """One row a skill and compute: skill, law, C, N, N_lo, N_hi, D, beyond (C over the largest fitted)."""
    rows = []
    for name, one in laws.items():
        if isinstance(one, Refused):
            continue
        largest = float((6 * one.points.N * one.points.D).max())
        for C in flops:
            N = one.optimum(C)
            D = C / (6 * N.value) if math.isfinite(N.value) else math.nan
            rows.append((name, one.law.name, C, N.value, N.lo, N.hi, D, C / largest))
    return pd.DataFrame(rows, columns=["skill", "law", "C", "N", "N_lo", "N_hi", "D", "beyond"])


def errors_frame(laws: Laws) -> pd.DataFrame:
    """One row a loss fitted: skill, N, D, loss, and its error ln L - ln law."""
    parts = [
        pd.DataFrame(
            {"skill": name, "N": one.points.N, "D": one.points.D, "loss": one.points.L, "error": one.fit.residuals}
        )
        for name, one in laws.items()
        if isinstance(one, Fitted)
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["skill", "N", "D", "loss", "error"])


def law_text(laws: Laws, flops: Sequence[float], averages: Mapping[str, Outlook] | None = None) -> str:
    """A table for the terminal: a skill a line with its law, main parameters, exponent and optima; then the doubts.

    Below it the optima over all laws that did nearly as well, where there are ``averages``.
    """
    shown = [C for C in flops if math.isfinite(C)][:3]
    rows = [["skill", "law", "E", "alpha", "beta", "a", *(f"N* at {compact(C)}" for C in shown), "starts", "noise"]]
    notes: list[str] = []
    for name, one in laws.items():
        if isinstance(one, Refused):
            rows.append([name, "refused", *[""] * (len(rows[0]) - 2)])
            notes.append(f"{name}: {one.reason}")
            continue
        theta = one.theta
        cells = [_cell(theta.get(letter)) for letter in ("E", "alpha", "beta")]
        optima = [_size(one.optimum(C)) for C in shown]
        starts = f"{one.fit.starts.agree}/{one.fit.starts.tried}"
        rows.append([name, one.law.name, *cells, _cell(one.exponent), *optima, starts, f"{one.fit.noise:.2%}"])
        notes += [f"{name}: {doubt}" for doubt in ([one.reason] if one.reason else []) + list(one.warnings)]
    lines = _aligned(rows)
    level = next((one.level for one in laws.values() if isinstance(one, Fitted)), math.nan)
    if math.isfinite(level):
        lines.append(f"In brackets: {100 * level:.3g} % intervals. a: exponent of N* ~ C^a.")
    more = (
        [f"{len(notes) - NOTES} more doubts: --json and the page of `report` tell them"] if len(notes) > NOTES else []
    )
    return "\n".join([*lines, *_over_text(laws, shown, averages or {}), *notes[:NOTES], *more])


def _over_text(laws: Laws, flops: Sequence[float], averages: Mapping[str, Outlook]) -> list[str]:
    """Optima whose intervals own the choice of law."""
    rows = [["skill", "laws", *(f"N* at {compact(C)}" for C in flops)]]
    for name, outlook in averages.items():
        one = laws.get(name)
        if isinstance(one, Fitted):
            over = _over_laws(outlook, one, flops)
            weighed = ", ".join(f"{law} {weight:.2f}" for law, weight in over["weights"].items())
            rows.append([name, weighed, *(_size(_as_interval(optimum)) for optimum in over["optima"])])
    return (
        ["Over the laws that predict held-out runs about as well, by weight:", *_aligned(rows)] if len(rows) > 1 else []
    )


def _as_interval(optimum: Mapping[str, Any]) -> Interval:
    lo, hi = optimum["interval"]
    return Interval(value=optimum["n_params"], lo=lo, hi=hi)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table with a rule below its head; columns that are empty throughout are left out."""
    kept = [at for at in range(len(rows[0])) if any(row[at] for row in rows[1:])]
    widths = [max(len(row[at]) for row in rows) for at in kept]
    lines = ["  ".join(row[at].ljust(width) for at, width in zip(kept, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "  ".join("─" * width for width in widths), *lines[1:]]


def _cell(value: Interval | None) -> str:
    if value is None or not np.isfinite(value.value):
        return ""
    return f"{value.value:.3g} [{value.lo:.3g}, {value.hi:.3g}]" if value.known else f"{value.value:.3g}"


def _size(N: Interval) -> str:
    if not np.isfinite(N.value):
        return "none"
    return f"{count(N.value, 2)} [{count(N.lo, 2)}, {count(N.hi, 2)}]" if N.known else count(N.value, 2)
