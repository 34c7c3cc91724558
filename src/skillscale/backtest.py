"""The entry that predicts runs that are there already: fit the smaller ones, compare with the larger."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from skillscale.analysis import named_law, objective_of, points_of
from skillscale.config import Config
from skillscale.errors import FitError, InputError
from skillscale.laws.choice import Choice, Forecast, choose, forecast
from skillscale.laws.forms import Law
from skillscale.laws.objective import Objective
from skillscale.laws.points import Points
from skillscale.output import Output
from skillscale.source import read_runs, tell_left_out


def backtest(arguments: Mapping[str, Any], config: Config, out: Output) -> dict[str, Any]:
    """Fit at or below a limit of compute or size, predict above it; the law is chosen without a look above.

    Raises:
        InputError: not one limit, no run on one side of it, or a law that these runs can't have.
    """
    limit = _limit(arguments)
    runs = read_runs(arguments, config)
    tell_left_out(runs.table, out)
    law = named_law(arguments["law"]) if arguments["law"] else None
    groups = runs.groups
    skills: dict[str, Any] = {}
    choices: dict[str, list[dict[str, Any]]] = {}
    for mix, table in groups.items():
        name = f"{mix}/" if mix and len(groups) > 1 else ""
        data = points_of(table)
        found, choice = predict(data, limit, law, objective_of(arguments), level=config.study.level)
        skills |= {f"{name}{skill}": told for skill, told in found.items()}
        choices[mix or "all"] = _trials(choice)
        out.progress(f"{mix or 'all runs'}: {choice.taken.name}")
    told = {"skills": skills, "choice": choices, "mean": _mean(skills), "level": config.study.level}
    out.text(_text(skills, config.study.level))
    return told


def predict(
    data: Mapping[str, Points], limit: tuple[str, float], law: Law | None, objective: Objective | None, *, level: float
) -> tuple[dict[str, dict[str, Any]], Choice]:
    """Each skill's errors above the limit, and the choice that was made below it.

    Raises:
        InputError: no run is above the limit, or none at or below it.
    """
    sides = {name: _sides(points, limit) for name, points in data.items()}
    low, high = ({name: side[at] for name, side in sides.items()} for at in (0, 1))
    choice = choose(low, law, objective)
    found: dict[str, dict[str, Any]] = {}
    for name, points in low.items():
        try:
            told = forecast(name, points, high[name], choice.taken, objective=objective, excess=choice.excess)
        except FitError as error:
            found[name] = _refused(points, high[name], str(error))
            continue
        found[name] = _scored(told, high[name], choice, level)
    return found, choice


def _limit(arguments: Mapping[str, Any]) -> tuple[str, float]:
    given = [(name, arguments[name]) for name in ("max_flops", "max_params") if arguments[name] is not None]
    if len(given) != 1:
        raise InputError("backtest needs one of --max_flops C and --max_params N: it fits up to there, predicts beyond")
    return given[0]


def _sides(points: Points, limit: tuple[str, float]) -> tuple[Points, Points]:
    name, most = limit
    size, what = (points.N, "parameters") if name == "max_params" else (6 * points.N * points.D, "FLOP")
    below = size <= most * (1 + 1e-9)
    if below.all():
        largest = f"the largest has {size.max():.4g}"
        raise InputError(f"no run is above {most:.4g} {what}: {largest}; give a smaller --{name}")
    if not below.any():
        smallest = f"the smallest has {size.min():.4g}"
        raise InputError(f"no run is at or below {most:.4g} {what}: {smallest}; give a larger --{name}")
    return points.take(below), points.take(~below)


def _scored(told: Forecast, new: Points, choice: Choice, level: float) -> dict[str, Any]:
    error = np.abs(np.expm1(told.told - new.log_L))
    return {
        "law": choice.taken.law.name,
        "checkpoints_from": choice.taken.late,
        "n_fitted": len(told.fit.residuals),
        "n_predicted": len(new),
        "n_runs_predicted": new.n_clusters,
        "mean_relative_error": float(error.mean()),
        "coverage": float(told.covers(new.L, level).mean()),
        "half_width": float(np.median(told.half_width(level))),
        "starts": {"tried": told.fit.starts.tried, "agree": told.fit.starts.agree},
        "reason": "",
    }


def _refused(fitted: Points, new: Points, reason: str) -> dict[str, Any]:
    return {
        "law": None, "checkpoints_from": None, "n_fitted": len(fitted), "n_predicted": len(new),
        "n_runs_predicted": new.n_clusters, "mean_relative_error": math.nan, "coverage": math.nan,
        "half_width": math.nan, "starts": {"tried": 0, "agree": 0}, "reason": reason,
    }  # fmt: skip


def _trials(choice: Choice) -> list[dict[str, Any]]:
    return [
        {"candidate": one.candidate.name, "error": one.error, "n_parameters": one.n_parameters, "agree": one.agree,
         "taken": one.candidate == choice.taken}
        for one in choice.trials
    ]  # fmt: skip


def _mean(skills: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    told = [one for one in skills.values() if one["law"]]
    names = ("mean_relative_error", "coverage")
    return {name: float(np.mean([one[name] for one in told])) if told else math.nan for name in names}


def _text(skills: Mapping[str, Mapping[str, Any]], level: float) -> str:
    rows = [["skill", "law", "fitted", "predicted", "error", f"in {100 * level:.3g} % interval", "half width"]]
    for name, one in skills.items():
        numbers = [f"{one[key]:.2%}" if one["law"] else "" for key in ("mean_relative_error", "coverage", "half_width")]
        rows.append([name, one["law"] or "refused", str(one["n_fitted"]), str(one["n_predicted"]), *numbers])
    mean = _mean(skills)
    rows.append(["mean", "", "", "", f"{mean['mean_relative_error']:.2%}", f"{mean['coverage']:.2%}", ""])
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(lines + [f"{name}: {one['reason']}" for name, one in skills.items() if one["reason"]])
