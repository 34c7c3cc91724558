"""Predict the larger runs of a table from the smaller ones, and compare."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from skillscale.analysis.fit_laws import confounded_notes, law_by_name, law_name, objective_of, varied_categories
from skillscale.config import LawConfig
from skillscale.errors import FitError, InputError
from skillscale.formatting import JsonObject, format_count, format_flops, format_percent, plural
from skillscale.laws.fit.objective import Objective
from skillscale.laws.fit.skill_law import split_by_skill
from skillscale.laws.selection.backtest import Backtest, PredictionScore
from skillscale.laws.selection.backtest import backtest as backtest_laws
from skillscale.laws.selection.selection import LawSelection
from skillscale.laws.uncertainty.posterior import FEW_RUNS
from skillscale.tables import RunTable
from skillscale.tables.read import LoadedRuns

_TOLERANCE = 1e-9
_BUDGET_GAP = 0.1  # ln C, up to which FLOP of a table are taken as the C of a law
_SHOWN_CANDIDATES = 8  # candidates in the text


@dataclass(frozen=True, kw_only=True)
class Limit:
    """The largest compute or size that is fitted; ``name`` is the option."""

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
        """Return the runs at or below the limit, and those above.

        Raises:
            InputError: Either side is empty.
        """
        runs = table.runs
        counted = 6 * runs["N"] * runs["D"]
        # FLOP of a table that are counted otherwise are no C of a law
        compute = runs["C"].where(np.abs(np.log(runs["C"].where(runs["C"] > 0) / counted)) < _BUDGET_GAP, counted)
        size = (compute if self.letter == "C" else runs["N"]).to_numpy(dtype=float)
        below = size <= self.value * (1 + _TOLERANCE)
        if below.all():
            raise InputError(
                f"no run has more than {self.text(self.value)}, the largest {self.text(size.max())}, so there is "
                f"nothing to predict. Give a smaller --{self.name}"
            )
        if not below.any():
            raise InputError(
                f"no run has {self.text(self.value)} or less, the smallest {self.text(size.min())}, so there is "
                f"nothing to fit. Give a larger --{self.name}"
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
        predictions: Predicted rows of each skill, with columns run N D loss predicted lo hi.
        notes: What the fitted runs leave to priors.
    """

    skills: Mapping[str, Mapping[str, Any]]
    choices: Mapping[str, list[JsonObject]]
    refused: Mapping[str, str]
    level: float
    predictions: Mapping[str, pd.DataFrame] = field(default_factory=dict, repr=False, compare=False)
    notes: tuple[str, ...] = ()

    def as_dict(self) -> JsonObject:
        """Return the values for ``--json``."""
        return {
            "skills": dict(self.skills), "mean": _mean(self.skills), "choice": dict(self.choices), "level": self.level,
            "refused": dict(self.refused), "notes": list(self.notes),
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
    skills: dict[str, JsonObject] = {}
    choices: dict[str, list[JsonObject]] = {}
    refused: dict[str, str] = {}
    predictions: dict[str, pd.DataFrame] = {}
    notes: list[str] = []
    for mix, table in groups.items():
        try:
            selection, backtests = _of_group(table, limit, names, objective_of(laws), level)
        except (FitError, InputError) as error:
            if len(groups) == 1:
                raise
            refused[mix] = str(error)
            continue
        skills |= {law_name(mix, name, runs): _backtest_as_dict(result) for name, result in backtests.items()}
        predictions |= {
            law_name(mix, name, runs): result.predictions for name, result in backtests.items() if not result.reason
        }
        choices[mix or "all"] = _candidates(selection)
        progress(f"{mix or 'all runs'}: {selection.chosen.setting.name}")
        notes += [*confounded_notes(limit.parts(table)[0], mix), *_few_runs_notes(backtests, mix)]
    if not skills:
        raise FitError("no mix has runs to fit and larger ones to predict: " + _listed(refused))
    for note in notes:
        progress(note)
    return BacktestResults(
        skills=skills, choices=choices, refused=refused, level=level, predictions=predictions, notes=tuple(notes)
    )


def _few_runs_notes(backtests: Mapping[str, Backtest], mix: str) -> list[str]:
    fewest = min((result.n_fitted for result in backtests.values()), default=FEW_RUNS)
    if fewest >= FEW_RUNS:
        return []
    return [
        f"note: {f'{mix}: ' if mix else ''}only {plural(fewest, 'run')} below the limit, so weak priors decide much of "
        "the predictions"
    ]


def _of_group(
    table: RunTable, limit: Limit, laws: tuple[str, ...], objective: Objective | None, level: float
) -> tuple[LawSelection, dict[str, Backtest]]:
    """Backtest one law on a group of runs; skills need losses on both sides of the limit."""
    below, above = limit.parts(table)
    names = [
        name
        for name in (*table.judged_skills, *table.aggregates)
        if below.runs[name].notna().any() and above.runs[name].notna().any()
    ]
    if not names:
        raise FitError("no skill has losses on both sides of the limit. Move the limit.")
    categories = varied_categories(below)
    fitted, larger = (split_by_skill(part.runs, names, categories) for part in (below, above))
    return backtest_laws(fitted, larger, letter=limit.letter, laws=laws, objective=objective, level=level)


def _backtest_as_dict(result: Backtest) -> JsonObject:
    return {
        "law": result.law or None,
        "setting": result.setting,
        "n_fitted": result.n_fitted,
        "n_predicted": result.n_predicted,
        "mean_relative_error": result.score.mean_relative_error,
        "coverage": result.score.coverage,
        "half_width": result.score.half_width,
        "last": _score_as_dict(result.last),
        "average": _score_as_dict(result.average),
        "unseen": _score_as_dict(result.unseen),
        "n_of_fitted_runs": result.n_of_fitted_runs,
        "left_out": result.n_early,
        "near_duplicates": result.near_duplicates,
        "reason": result.reason,
    }


def _score_as_dict(score: PredictionScore) -> JsonObject:
    return {"n_predicted": score.n, "mean_relative_error": score.mean_relative_error, "coverage": score.coverage}


def _candidates(selection: LawSelection) -> list[JsonObject]:
    """Return the candidates that were compared, best first; the error of a law that was not tried is null."""
    return [{str(key): value for key, value in row.items()} for row in selection.table().to_dict(orient="records")]


def _predicted(skills: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the skills that were predicted."""
    return [skill for skill in skills.values() if not skill["reason"]]


def _mean(skills: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    predicted = _predicted(skills)
    names = ("mean_relative_error", "coverage")
    return {name: float(np.mean([skill[name] for skill in predicted])) if predicted else math.nan for name in names}


def _text(skills: Mapping[str, Mapping[str, Any]], level: float) -> str:
    rows = [["skill", "law", "fitted", "predicted", "error", f"in {format_percent(level, 3)} interval", "half width"]]
    for name, skill in skills.items():
        numbers = [format_percent(skill[key]) for key in ("mean_relative_error", "coverage", "half_width")]
        rows.append([name, skill["law"] or "refused", str(skill["n_fitted"]), str(skill["n_predicted"]), *numbers])
    mean = _mean(skills)
    rows.append(["mean", "", "", "", format_percent(mean["mean_relative_error"]), format_percent(mean["coverage"]), ""])
    reasons = [f"{name}: {skill['reason']}" for name, skill in skills.items() if skill["reason"]]
    return "\n".join([_table(rows), *reasons])


def _seen_note(skills: Mapping[str, Mapping[str, Any]]) -> str:
    """Return how many predicted rows belong to runs that were fitted, and the error of the others; else nothing."""
    predicted = _predicted(skills)
    rows = sum(skill["n_predicted"] for skill in predicted)
    seen = sum(skill["n_of_fitted_runs"] for skill in predicted)
    if not seen:
        return ""
    share = f"{format_percent(seen / rows)} of the predicted losses are later checkpoints of runs that were fitted"
    errors = [skill["unseen"]["mean_relative_error"] for skill in predicted if skill["unseen"]["n_predicted"]]
    if not errors:
        return f"{share}. No new run was predicted. Hold out sizes with --max_params to try that."
    return f"{share}. The mean relative error of the other runs is {format_percent(float(np.mean(errors)))}."


def _choice_text(choices: Mapping[str, list[JsonObject]]) -> str:
    """Return the candidates with their errors on the largest of the fitted runs."""
    parts = []
    for mix, candidates in choices.items():
        rows = [["tried on the larger of the fitted runs", "error", "parameters", "weight", ""]]
        for at, candidate in enumerate(candidates[:_SHOWN_CANDIDATES]):
            cells = [str(candidate["n_parameters"] or "–"), f"{candidate['weight']:.2f}"]
            chosen = "chosen: fewest parameters within a standard error of the best" if at else "chosen"
            reason = chosen if candidate["chosen"] else candidate["reason"]
            rows.append([candidate["setting"], format_percent(candidate["error"]), *cells, reason])
        title = f"\n{mix}\n" if len(choices) > 1 else "\n"
        parts.append(title + _table(rows))
    return "\n".join(parts)


def _table(rows: list[list[str]]) -> str:
    from skillscale.report.tables import align_columns

    return "\n".join(align_columns(list(zip(*rows, strict=True))))


def _listed(refused: Mapping[str, str]) -> str:
    return "; ".join(f"{mix}: {reason}" for mix, reason in refused.items())
