"""Suggest the next runs of a study or a table, and write them as rows that can be appended to it."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from skillscale.analysis.fit_laws import confounded_notes
from skillscale.config import Config
from skillscale.design.proposal import Recommendation
from skillscale.design.propose import propose
from skillscale.formatting import JsonObject, escape_formula, join_first
from skillscale.point import DesignPoint
from skillscale.record import RunState
from skillscale.sampler.study import (
    SAMPLING_PROBLEM,
    SamplingProblem,
    StudyContext,
    build_problem,
    context_from_config,
    context_from_table,
    filter_mix,
    recommendation_as_dict,
    recommendation_text,
    run_history,
    to_points,
)
from skillscale.tables import ColumnMap, RunTable
from skillscale.tables.read import LoadedRuns


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """The next runs, the reason for each, and notes on the runs that count.

    Args:
        runs: The runs that the suggestion rests on.
        problem: What may be run, and what is to be learned.
        recommendation: The runs to make, and what is expected of them.
        points: The runs as design points.
        notes: Sentences for a person.
    """

    runs: LoadedRuns
    problem: SamplingProblem
    recommendation: Recommendation
    points: Sequence[DesignPoint]
    notes: tuple[str, ...]

    def text(self) -> str:
        """Return the suggestion for a person."""
        return recommendation_text(self.recommendation, self.points, self.problem)

    def as_dict(self) -> JsonObject:
        """Return the values for ``--json``."""
        values = recommendation_as_dict(self.recommendation, self.points, self.problem)
        return {"study": self.runs.name, "runs": len(self.runs.table.runs), "notes": list(self.notes), **values}

    def write(self, path: Path, columns: ColumnMap | None) -> None:
        """Write a CSV file with one row a run.

        Args:
            path: The file.
            columns: Columns of the table that the rows can be appended to; None: columns of their own.
        """
        rows = [
            _flat(row) if columns is None else _named_as(columns, row, self.runs.table)
            for row in self.as_dict()["points"]
        ]
        _write(path, rows)


def suggest_runs(runs: LoadedRuns, config: Config, *, count: int, mix: str = "") -> Suggestion:
    """Suggest the next runs; nothing is trained.

    Points that a study has under way count. Rows of a table without a loss count as under way.

    Args:
        runs: The runs that exist.
        config: Settings: ``sample`` says what may be run and what is to be learned.
        count: Number of runs.
        mix: Name of the mix whose runs count, where mixes have names without shares; empty: all runs.
    """
    notes = []
    if mix:
        every, runs = len(runs.table.runs), replace(runs, table=filter_mix(runs.table, mix))
        if len(runs.table.runs) < every:
            notes.append(f"note: {every - len(runs.table.runs)} runs are on other mixes than {mix} and do not count")
    problem = build_problem(config.sample, _context(runs, config))
    history = run_history(runs.table, problem, _under_way(runs))
    if len(history) < len(runs.table.runs):
        others = len(runs.table.runs) - len(history)
        notes.append(f"note: {others} runs are on other mixes than {problem.mixes[0]} and do not count")
    if waiting := int(runs.table.runs[list(problem.skills)].isna().all(axis=1).sum()):
        notes.append(f"note: {waiting} runs have no loss of {join_first(problem.skills)} yet: they count as under way")
    recommendation = propose(
        history, problem.space, problem.goal(0.0), count=count, seed=config.study.first_seed, forecast=True
    )
    notes += confounded_notes(runs.table)
    points = to_points(recommendation.proposals, problem, int(runs.table.runs["seed"].max()) + 1)
    return Suggestion(runs=runs, problem=problem, recommendation=recommendation, points=points, notes=tuple(notes))


def _context(runs: LoadedRuns, config: Config) -> StudyContext:
    if runs.trained and runs.study is not None:
        return context_from_config(config, runs.study.notes.data_description())
    context = context_from_table(runs.table)
    sampled = runs.study.notes.get_json(SAMPLING_PROBLEM) if runs.study is not None else None
    return context if sampled is None else replace(context, flops_max=sampled["flops"][1])


def _under_way(runs: LoadedRuns) -> Sequence[DesignPoint]:
    return [
        record.point for record in runs.records if record.state in (RunState.RUNNING, RunState.FAILED, RunState.KILLED)
    ]


def _flat(row: Mapping[str, Any]) -> JsonObject:
    """Return a point as columns: shares as ``mix/CATEGORY``, expected narrowing as ``fall/TARGET``."""
    return {
        **{name: value for name, value in row.items() if name not in ("mix", "fall")},
        **{f"mix/{name}": share for name, share in row["mix"].items()},
        **{f"fall/{name}": fall for name, fall in row["fall"].items()},
    }


def _named_as(columns: ColumnMap, row: Mapping[str, Any], table: RunTable) -> JsonObject:
    """Return a point in the columns and units of a table, to be appended to it; unknown cells are empty."""
    given = {
        columns.size_column(table.convention): _in_units(row["n_params"], columns.unit("n_params")),
        columns.n_tokens: _in_units(row["n_tokens"], columns.unit("n_tokens")),
        columns.seed or "seed": row["seed"],
        columns.purpose or "purpose": row["purpose"],
        columns.flops or "flops": _in_units(row["flops"], columns.unit("flops")),
        **{name: _in_units(row["mix"].get(key, 0.0), columns.unit("mix")) for key, name in columns.mix.items()},
        **({columns.mix_name: table.runs["mix"].iloc[0]} if columns.mix_name else {}),
        **{name: values[0] for name, values in columns.where.items()},
    }
    runs = {name: f"next-{row['seed']}" for name in columns.run if name not in given}
    empty = {name: "" for _, name in columns.key_columns() if name not in given and name not in runs}
    expected = {f"fall/{name}": fall for name, fall in row["fall"].items()}
    return {**given, **runs, **empty, "cost": row["cost"], "gain": row["gain"], **expected}


def _in_units(value: float, unit: float) -> float:
    """As the table's column has it; whole numbers stay whole where there is no unit."""
    return value if unit == 1 else value / unit


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One row a point."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval=0)
        writer.writeheader()
        writer.writerows(
            {name: escape_formula(cell) if isinstance(cell, str) else cell for name, cell in row.items()}
            for row in rows
        )
