"""Predict the larger runs of a table from the smaller ones, and compare."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from skillscale.analysis.fit_laws import law_by_name, law_name, objective_of, varied_categories
from skillscale.config import LawConfig
from skillscale.errors import FitError, InputError
from skillscale.formatting import format_count, format_flops, format_percent
from skillscale.laws.fit.objective import Objective
from skillscale.laws.fit.skill_law import split_by_skill
from skillscale.laws.selection.backtest import Backtest, Score
from skillscale.laws.selection.backtest import backtest as on_trial
from skillscale.laws.selection.selection import LawSelection
from skillscale.runs import RunTable
from skillscale.runs.read import LoadedRuns

_TOLERANCE = 1e-9
_EXPLAINED = 8  # candidates in the text


@dataclass(frozen=True, kw_only=True)
class Limit:
    """Up to where runs are fitted: ``name`` is that of the parameter."""

    name: str
    value: float

    @property
    def letter(self) -> str:
        """C or N."""
        return "C" if self.name == "max_flops" else "N"

    @property
    def unit(self) -> str:
        """Unit of the limit."""
        return "FLOP" if self.name == "max_flops" else "parameters"

    def text(self, value: float) -> str:
        """Write a size in the unit of the limit."""
        return f"{format_flops(value) if self.letter == 'C' else format_count(value)} {self.unit}"

    def parts(self, table: RunTable) -> tuple[RunTable, RunTable]:
        """The runs at or below the limit, and those above.

        Raises:
            InputError: either side is empty.
        """
        runs = table.runs
        compute = runs["C"].where(runs["C"] > 0, 6 * runs["N"] * runs["D"])
        size = (compute if self.letter == "C" else runs["N"]).to_numpy(dtype=float)
        below = size <= self.value * (1 + _TOLERANCE)
        if below.all():
            raise InputError(
                f"no run has more than {self.text(self.value)}, the largest {self.text(size.max())}, so that there is "
                f"nothing to predict; give a smaller --{self.name}"
            )
        if not below.any():
            raise InputError(
                f"no run has {self.text(self.value)} or less, the smallest {self.text(size.min())}, so that there is "
                f"nothing to fit; give a larger --{self.name}"
            )
        return (
            replace(table, runs=runs[below].reset_index(drop=True)),
            replace(table, runs=runs[~below].reset_index(drop=True)),
        )


@dataclass(frozen=True, kw_only=True)
class BacktestResults:
    """How well held-out larger runs were predicted.

    Args:
        skills: Errors and coverage of each skill.
        choices: Candidate laws of each group of runs, best first.
        refused: Reason of each group that could not be predicted.
        level: Level of the intervals.
    """

    skills: Mapping[str, Mapping[str, Any]]
    choices: Mapping[str, list[dict[str, Any]]]
    refused: Mapping[str, str]
    level: float

    def as_dict(self) -> dict[str, Any]:
        """Return the values for ``--json``."""
        return {
            "skills": dict(self.skills), "mean": _mean(self.skills), "choice": dict(self.choices), "level": self.level,
            "refused": dict(self.refused),
        }  # fmt: skip

    def text(self) -> str:
        """Return the tables for a person."""
        lines = [_text(self.skills, self.level), _choice_text(self.choices)]
        return "\n".join([*lines, *([f"not predicted: {_listed(self.refused)}"] if self.refused else [])])

    def note(self) -> str:
        """Return a warning where predicted rows belong to runs that were fitted; else nothing."""
        return _seen_note(self.skills)


def backtest_runs(
    runs: LoadedRuns, limit: Limit, laws: LawConfig, level: float, progress: Callable[[str], None]
) -> BacktestResults:
    """Fit at or below a limit, predict above it; the law is selected without the runs above.

    Args:
        runs: The runs.
        limit: Largest compute or size that is fitted.
        laws: How to fit.
        level: Level of the intervals.
        progress: Receiver of a line for a person.

    Raises:
        InputError: No run on one side of the limit, or a law that these runs cannot have.
        FitError: No group of runs can be fitted.
    """
    names = (law_by_name(laws.law).name,) if laws.law else ()
    limit.parts(runs.table)
    groups = runs.groups
    skills: dict[str, dict[str, Any]] = {}
    choices: dict[str, list[dict[str, Any]]] = {}
    refused: dict[str, str] = {}
    for mix, table in groups.items():
        try:
            selection, backtests = _of_group(table, limit, names, objective_of(laws), level)
        except (FitError, InputError) as error:
            if len(groups) == 1:
                raise
            refused[mix] = str(error)
            continue
        skills |= {law_name(mix, name, runs): _plain(result) for name, result in backtests.items()}
        choices[mix or "all"] = _candidates(selection)
        progress(f"{mix or 'all runs'}: {selection.chosen.setting.name}")
    if not skills:
        raise FitError("no mix has runs to fit and larger ones to predict; " + _listed(refused))
    return BacktestResults(skills=skills, choices=choices, refused=refused, level=level)


def _of_group(
    table: RunTable, limit: Limit, laws: tuple[str, ...], objective: Objective | None, level: float
) -> tuple[LawSelection, dict[str, Backtest]]:
    """One law for the runs of a group; skills without losses on both sides of the limit are left out."""
    below, above = limit.parts(table)
    names = [
        name
        for name in (*table.judged_skills, *table.aggregates)
        if below.runs[name].notna().any() and above.runs[name].notna().any()
    ]
    if not names:
        raise FitError("no skill has losses on both sides of the limit; move the limit")
    categories = varied_categories(below)
    fitted, larger = (split_by_skill(part.runs, names, categories) for part in (below, above))
    return on_trial(fitted, larger, letter=limit.letter, laws=laws, objective=objective, level=level)


def _plain(one: Backtest) -> dict[str, Any]:
    return {
        "law": one.law or None,
        "setting": one.setting,
        "n_fitted": one.n_fitted,
        "n_predicted": one.n_predicted,
        "mean_relative_error": one.score.mean_relative_error,
        "coverage": one.score.coverage,
        "half_width": one.score.half_width,
        "last": _plain_score(one.last),
        "average": _plain_score(one.average),
        "unseen": _plain_score(one.unseen),
        "n_of_fitted_runs": one.n_of_fitted_runs,
        "left_out": one.n_early,
        "near_duplicates": one.near_duplicates,
        "reason": one.reason,
    }


def _plain_score(score: Score) -> dict[str, Any]:
    return {"n_predicted": score.n, "mean_relative_error": score.mean_relative_error, "coverage": score.coverage}


def _candidates(choice: LawSelection) -> list[dict[str, Any]]:
    """The candidates that were compared, best first; what could not be tried has an error of null."""
    return [{str(key): value for key, value in row.items()} for row in choice.table().to_dict(orient="records")]


def _mean(skills: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    told = [one for one in skills.values() if not one["reason"]]
    names = ("mean_relative_error", "coverage")
    return {name: float(np.mean([one[name] for one in told])) if told else math.nan for name in names}


def _text(skills: Mapping[str, Mapping[str, Any]], level: float) -> str:
    rows = [["skill", "law", "fitted", "predicted", "error", f"in {format_percent(level, 3)} interval", "half width"]]
    for name, one in skills.items():
        numbers = [format_percent(one[key]) for key in ("mean_relative_error", "coverage", "half_width")]
        rows.append([name, one["law"] or "refused", str(one["n_fitted"]), str(one["n_predicted"]), *numbers])
    mean = _mean(skills)
    rows.append(["mean", "", "", "", format_percent(mean["mean_relative_error"]), format_percent(mean["coverage"]), ""])
    return "\n".join([_table(rows), *(f"{name}: {one['reason']}" for name, one in skills.items() if one["reason"])])


def _seen_note(skills: Mapping[str, Mapping[str, Any]]) -> str:
    """That rows which were predicted are of runs which were fitted, and how the others did; empty where none are."""
    told = [one for one in skills.values() if not one["reason"]]
    rows = sum(one["n_predicted"] for one in told)
    seen = sum(one["n_of_fitted_runs"] for one in told)
    if not seen:
        return ""
    share = (
        f"{format_percent(seen / rows)} of the losses predicted are later checkpoints of runs whose earlier ones were "
        "fitted"
    )
    errors = [one["unseen"]["mean_relative_error"] for one in told if one["unseen"]["n_predicted"]]
    if not errors:
        return f"{share}: no run that is new was predicted; hold out sizes with --max_params to try that"
    return f"{share}; of the other runs alone the mean relative error is {format_percent(float(np.mean(errors)))}"


def _choice_text(choices: Mapping[str, list[dict[str, Any]]]) -> str:
    """The candidates by their errors on the largest of the fitted runs."""
    parts = []
    for mix, found in choices.items():
        rows = [["tried on the larger of the fitted runs", "error", "parameters", "weight", ""]]
        for one in found[:_EXPLAINED]:
            told = [format_percent(one["error"]), str(one["n_parameters"] or "–"), f"{one['weight']:.2f}"]
            rows.append([one["setting"], *told, "chosen" if one["chosen"] else one["reason"]])
        title = f"\n{mix}\n" if len(choices) > 1 else "\n"
        parts.append(title + _table(rows))
    return "\n".join(parts)


def _table(rows: list[list[str]]) -> str:
    from skillscale.report.tables import align_columns

    return "\n".join(align_columns(list(zip(*rows, strict=True))))


def _listed(refused: Mapping[str, str]) -> str:
    return "; ".join(f"{mix}: {reason}" for mix, reason in refused.items())
