"""The entry ``suggest``: the next points and why, for people who train elsewhere; nothing is trained, nothing written.

Points that a study has under way count; of a table those rows that have no loss yet.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from skillscale.cli.output import Output
from skillscale.config import Config
from skillscale.design.propose import propose
from skillscale.formatting import join_first
from skillscale.point import DesignPoint
from skillscale.record import State
from skillscale.runs import ColumnMap, RunTable, read_columns
from skillscale.runs.read import LoadedRuns, print_excluded, read_runs
from skillscale.sampler.study import (
    SAMPLING_PROBLEM,
    StudyContext,
    apply_options,
    build_problem,
    context_from_config,
    context_from_table,
    filter_mix,
    print_recommendation,
    recommendation_as_dict,
    run_history,
    to_points,
)


def suggest(arguments: Mapping[str, Any], config: Config, out: Output) -> dict[str, Any]:
    """Print the next points, what each costs and is expected to bring; train nothing."""
    runs = read_runs(arguments, config)
    print_excluded(runs, out)
    if isinstance(name := arguments["mixes"], str):
        every, runs = len(runs.table.runs), replace(runs, table=filter_mix(runs.table, name))
        if len(runs.table.runs) < every:
            out.progress(f"note: {every - len(runs.table.runs)} runs are on other mixes than {name}: left out")
        arguments = {**arguments, "mixes": None}
    order = build_problem(apply_options(config.sample, arguments), _known(runs, config))
    history = run_history(runs.table, order, _under_way(runs))
    if len(history) < len(runs.table.runs):
        out.progress(
            f"note: {len(runs.table.runs) - len(history)} runs are on other mixes than {order.mixes[0]}: left out"
        )
    if waiting := int(runs.table.runs[list(order.skills)].isna().all(axis=1).sum()):
        out.progress(f"note: {waiting} runs have no loss of {join_first(order.skills)} yet: they count as under way")
    advice = propose(
        history, order.space, order.wish(0.0), count=arguments["count"], seed=config.study.first_seed, forecast=True
    )
    points = to_points(advice.proposals, order, int(runs.table.runs["seed"].max()) + 1)
    print_recommendation(advice, points, order, out)
    told = {"study": runs.name, "runs": len(runs.table.runs), **recommendation_as_dict(advice, points, order)}
    if arguments["file"]:
        columns = read_columns(arguments["columns"]) if arguments["table"] else None
        rows = [_flat(row) if columns is None else _named_as(columns, row, runs.table)
                for row in told["points"]]  # fmt: skip
        _write(Path(arguments["file"]), rows)
        told["file"] = Path(arguments["file"]).absolute()
        fill = "" if columns is None else ": append its rows to the table, and fill in the losses when they are known"
        out.text(f"written to {arguments['file']}{fill}")
    return told


def _known(runs: LoadedRuns, config: Config) -> StudyContext:
    if runs.trained and runs.study is not None:
        return context_from_config(config, runs.study.notes.data_description())
    known = context_from_table(runs.table)
    sampled = runs.study.notes.get_json(SAMPLING_PROBLEM) if runs.study is not None else None
    return known if sampled is None else replace(known, flops_max=sampled["flops"][1])


def _under_way(runs: LoadedRuns) -> Sequence[DesignPoint]:
    return [one.point for one in runs.records if one.state in (State.RUNNING, State.FAILED, State.KILLED)]


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A point as columns: shares as ``mix/CATEGORY``, expected falls as ``fall/TARGET``."""
    return {
        **{name: value for name, value in row.items() if name not in ("mix", "fall")},
        **{f"mix/{name}": share for name, share in row["mix"].items()},
        **{f"fall/{name}": fall for name, fall in row["fall"].items()},
    }


def _named_as(columns: ColumnMap, row: Mapping[str, Any], table: RunTable) -> dict[str, Any]:
    """A point in the columns of a table and in its units, to be appended to it; empty is what nobody knows yet."""
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
    empty = {name: "" for _, name in columns.named() if name not in given and name not in runs}
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
        writer.writerows(rows)
