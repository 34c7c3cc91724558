"""Fitted laws as a text table, as data frames for CSV and the page, and as plain values for ``--json``."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from skillscale.formatting import JsonObject, format_count, format_flops, format_interval, format_number, format_percent
from skillscale.laws.fit.request import UnfittedSkill
from skillscale.laws.fit.skill_law import FittedLaw
from skillscale.laws.optimum.identification import Identification, identify, optimum_reason
from skillscale.laws.results import Interval
from skillscale.report.optimum_text import identification_as_dict
from skillscale.report.tables import align_columns

Laws = Mapping[str, FittedLaw | UnfittedSkill]


def laws_as_dict(laws: Laws, flops: Sequence[float]) -> JsonObject:
    """Return what ``fit --json`` prints under ``skills``: one object per skill. Unknown numbers are null.

    Args:
        laws: laws by skill.
        flops: compute of the optima, FLOP.
    """
    return {
        name: _unfitted_as_dict(fitted) if isinstance(fitted, UnfittedSkill) else _fit_as_dict(fitted, flops)
        for name, fitted in laws.items()
    }


def law_weights(fitted: FittedLaw) -> dict[str, float]:
    """Return the weight of the law and of its rivals by name."""
    return {candidate.law.name: candidate.weight for candidate in (fitted, *fitted.rivals)}


def _optima_over_laws(fitted: FittedLaw, flops: Sequence[float]) -> JsonObject:
    """Return the median and interval of N* over all laws that predicted about as well, by their weights."""
    drawn = fitted.ensemble_log_optima(list(flops))
    tails = [0.5, (1 - fitted.level) / 2, (1 + fitted.level) / 2]
    optima = []
    for at, C in enumerate(flops):
        finite = drawn[np.isfinite(drawn[:, at]), at]
        enough = bool(len(finite)) and len(finite) >= 0.99 * len(drawn)
        N, lo, hi = np.exp(np.quantile(finite, tails)).tolist() if enough else (math.nan,) * 3
        reason = "" if enough else missing_interval_reason(fitted, C)
        optima.append({"flops": C, "n_params": N, "interval": [lo, hi], "reason": reason})
    return {"weights": law_weights(fitted), "optima": optima}


def missing_interval_reason(fitted: FittedLaw, C: float) -> str:
    """Return why N* has no interval over laws, or nothing if it has one."""
    share = float((~np.isfinite(fitted.ensemble_log_optima([C]))).mean())
    if share <= 0.01:
        return ""
    return (
        f"{format_percent(share)} of the draws (more than 1 %) have no optimum at {format_flops(C)} FLOP; add larger "
        "runs"
    )


def _unfitted_as_dict(skill: UnfittedSkill) -> JsonObject:
    return {
        "law": None, "n_runs": skill.n_runs, "objective": None, "theta": {}, "intervals": {},
        "starts": {"tried": 0, "agree": 0}, "status": "refused", "reason": skill.reason, "warnings": [], "optima": [],
    }  # fmt: skip


def _fit_as_dict(fitted: FittedLaw, flops: Sequence[float]) -> JsonObject:
    theta, lost = fitted.theta, fitted.unidentified
    return {
        "law": fitted.law.name,
        "n_runs": fitted.n_runs,
        "n_clusters": fitted.runs.n_clusters,
        "objective": fitted.fit.objective.name,
        "F": fitted.fit.F,
        "theta": {name: math.nan if name in lost else value for name, value in fitted.fit.parameters.items()},
        "intervals": {name: [value.lo, value.hi] for name, value in theta.items()},
        "unidentified": {name: item.reason for name, item in lost.items()},
        "exponent": {"a": fitted.exponent.value, "interval": [fitted.exponent.lo, fitted.exponent.hi]},
        "noise": fitted.residual_noise,
        "starts": {
            "tried": fitted.fit.starts.tried,
            "agree": fitted.fit.starts.agree,
            "gap": fitted.fit.starts.gap if math.isfinite(fitted.fit.starts.gap) else None,
        },
        "status": str(fitted.status),
        "reason": fitted.reason,
        "warnings": list(fitted.warnings),
        "optima": [_optimum_as_dict(fitted, C) for C in flops],
    } | _choice_as_dict(fitted, flops)


def _choice_as_dict(fitted: FittedLaw, flops: Sequence[float]) -> JsonObject:
    """Return the fields of a law that was selected on held-out runs."""
    if not fitted.setting:
        return {}
    choice: JsonObject = {"setting": fitted.setting, "believed": list(fitted.prior_dominated)}
    return choice | ({"over_laws": _optima_over_laws(fitted, flops)} if fitted.rivals else {})


def _optimum_as_dict(fitted: FittedLaw, C: float) -> JsonObject:
    N = fitted.ensemble_optimum(C) if fitted.has_few_runs else fitted.optimum(C)
    identification = identify(fitted, C)
    return {
        "flops": C,
        "n_params": N.value,
        "n_tokens": C / (6 * N.value) if N.value and math.isfinite(N.value) else math.nan,
        "interval": [N.lo, N.hi],
        "reason": optimum_reason(fitted, C, identification),
        **identification_as_dict(identification),
    }


def law_frame(laws: Laws) -> pd.DataFrame:
    """Return one row per skill.

    Columns: skill law, each parameter with _lo and _hi, a, F, objective, starts, agree, gap, noise, n_runs, status,
    reason.
    """
    rows = []
    for name, fitted in laws.items():
        if isinstance(fitted, UnfittedSkill):
            rows.append({"skill": name, "n_runs": fitted.n_runs, "status": "refused", "reason": fitted.reason})
            continue
        row: dict[str, object] = {"skill": name, "law": fitted.law.name}
        for parameter, value in (fitted.theta | {"a": fitted.exponent}).items():
            row |= {parameter: value.value, f"{parameter}_lo": value.lo, f"{parameter}_hi": value.hi}
        starts = fitted.fit.starts
        row |= {
            "F": fitted.fit.F,
            "objective": fitted.fit.objective.name,
            "starts": starts.tried,
            "agree": starts.agree,
        }
        row |= {"gap": starts.gap, "noise": fitted.residual_noise, "n_runs": fitted.n_runs}
        rows.append(row | {"status": str(fitted.status), "reason": fitted.reason})
    return pd.DataFrame(rows)


def optima_frame(laws: Laws, flops: Sequence[float]) -> pd.DataFrame:
    """Return one row per skill and compute: skill, law, C, N, N_lo, N_hi, D, beyond, over, decided_by.

    ``beyond`` is C over the compute of the largest run. ``over`` names the laws of the interval where it averages
    several.
    """
    rows = []
    for name, fitted in laws.items():
        if isinstance(fitted, UnfittedSkill):
            continue
        largest = float((6 * fitted.runs.N * fitted.runs.D).max())
        for C in flops:
            N = fitted.ensemble_optimum(C)
            D = C / (6 * N.value) if math.isfinite(N.value) else math.nan
            by = "weak priors" if identify(fitted, C).prior_decides else "runs"
            rows.append((name, fitted.law.name, C, N.value, N.lo, N.hi, D, C / largest, _weights_text(fitted), by))
    return pd.DataFrame(rows, columns=["skill", "law", "C", "N", "N_lo", "N_hi", "D", "beyond", "over", "decided_by"])


def errors_frame(laws: Laws) -> pd.DataFrame:
    """Return one row per fitted loss: skill, N, D, loss, and its error ln L - ln law."""
    parts = [
        pd.DataFrame(
            {
                "skill": name,
                "N": fitted.runs.N,
                "D": fitted.runs.D,
                "loss": fitted.runs.L,
                "error": fitted.fit.residuals,
            }
        )
        for name, fitted in laws.items()
        if isinstance(fitted, FittedLaw)
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["skill", "N", "D", "loss", "error"])


def law_text(laws: Laws, flops: Sequence[float]) -> str:
    """Return a text table of the laws, one skill per line, with optima, and why a skill has none."""
    shown = [C for C in flops if math.isfinite(C)][:3]
    rows = [
        ["skill", "law", "E", "alpha", "beta", "a", *(f"N* at {format_flops(C)}" for C in shown), "starts", "noise"]
    ]
    refusals: list[str] = []
    for name, fitted in laws.items():
        if isinstance(fitted, UnfittedSkill):
            rows.append([name, "refused", *[""] * (len(rows[0]) - 2)])
            refusals.append(f"{name}: {fitted.reason}")
            continue
        theta = fitted.theta
        cells = [interval_cell(theta.get(letter)) for letter in ("E", "alpha", "beta")]
        identified = [identify(fitted, C) for C in shown]
        optima = [_size_cell(fitted.ensemble_optimum(C), item) for C, item in zip(shown, identified, strict=True)]
        starts = f"{fitted.fit.starts.agree}/{fitted.fit.starts.tried}"
        noise = format_percent(fitted.residual_noise)
        rows.append([name, fitted.law.name, *cells, interval_cell(fitted.exponent), *optima, starts, noise])
    lines = align_columns([column for column in zip(*rows, strict=True) if any(column[1:])])
    level = next((fitted.level for fitted in laws.values() if isinstance(fitted, FittedLaw)), math.nan)
    if math.isfinite(level):
        lines.append(f"Brackets: {format_percent(level, 3)} intervals. a: exponent of N* ~ C^a.")
    lines += _over_laws_notes(laws, shown)
    return "\n".join([*lines, *refusals])


def _weights_text(fitted: FittedLaw) -> str:
    """Return the law and its rivals with their weights, or nothing if it has no rivals."""
    return ", ".join(f"{name} {weight:.2f}" for name, weight in law_weights(fitted).items()) if fitted.rivals else ""


def _over_laws_notes(laws: Laws, flops: Sequence[float]) -> list[str]:
    """Return footnotes: the laws that each interval of N* averages, and why one has no interval."""
    by_weights: dict[str, list[str]] = {}
    lost = []
    for name, fitted in laws.items():
        if isinstance(fitted, UnfittedSkill) or not fitted.rivals:
            continue
        by_weights.setdefault(_weights_text(fitted), []).append(name)
        reason = next((why for why in (missing_interval_reason(fitted, C) for C in flops) if why), "")
        lost += [f"{name}: N* has no interval over laws: {reason}"] if reason else []
    lines = [f"N* of {', '.join(names)}: intervals over {weights}." for weights, names in by_weights.items()]
    return lines + lost


def interval_cell(value: Interval | None) -> str:
    """Write a parameter with its interval; of one that is not identified its bounds alone."""
    if value is None:
        return ""
    if np.isfinite(value.value):
        return format_interval(value.value, value.lo, value.hi)
    if value.lo == 0 and np.isfinite(value.hi):
        return f"below {format_number(value.hi)}"
    return f"{format_number(value.lo)} to {format_number(value.hi)}" if np.isfinite(value.hi) else ""


def _size_cell(N: Interval, identification: Identification) -> str:
    if not np.isfinite(N.value):
        return "none"
    mark = " (prior)" if identification.prior_decides else ""
    return format_interval(N.value, N.lo, N.hi, lambda size: format_count(size, 2)) + mark
