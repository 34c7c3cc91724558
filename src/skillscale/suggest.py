"""The entry ``suggest``: the next points and why, for people who train elsewhere; nothing is trained, nothing written.

Points that a study has under way count; those of a table that are not in it yet can't be known.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from skillscale.config import Config
from skillscale.laws.design.propose import propose
from skillscale.output import Output
from skillscale.point import DesignPoint
from skillscale.record import State
from skillscale.sampling import (
    ORDER,
    Known,
    history_of,
    known_of_config,
    known_of_table,
    plain_advice,
    points_of,
    settled,
    tell,
    with_arguments,
)
from skillscale.source import Runs, read_runs, tell_left_out


def suggest(arguments: Mapping[str, Any], config: Config, out: Output) -> dict[str, Any]:
    """Print the next points, what each costs and is expected to bring; train nothing."""
    runs = read_runs(arguments, config)
    tell_left_out(runs.table, out)
    order = settled(with_arguments(config.sample, arguments), _known(runs, config))
    history = history_of(runs.table, order, _under_way(runs))
    if len(history) < len(runs.table.runs):
        out.progress(
            f"note: {len(runs.table.runs) - len(history)} runs are on other mixes than {order.mixes[0]}: left out"
        )
    advice = propose(
        history, order.space, order.wish(0.0), count=arguments["count"], seed=config.study.first_seed, forecast=True
    )
    points = points_of(advice.proposals, order, int(runs.table.runs["seed"].max()) + 1)
    tell(advice, points, order, out)
    told = {"study": runs.name, "runs": len(runs.table.runs), **plain_advice(advice, points, order)}
    if arguments["file"]:
        _write(Path(arguments["file"]), told["points"])
        told["file"] = Path(arguments["file"]).absolute()
        out.text(f"written to {arguments['file']}")
    return told


def _known(runs: Runs, config: Config) -> Known:
    if runs.trained and runs.study is not None:
        return known_of_config(config, runs.study.data_description())
    known = known_of_table(runs.table)
    sampled = runs.study.remembered(ORDER) if runs.study is not None else None
    return known if sampled is None else replace(known, flops_max=sampled["flops"][1])


def _under_way(runs: Runs) -> Sequence[DesignPoint]:
    return [one.point for one in runs.records if one.state in (State.RUNNING, State.FAILED, State.KILLED)]


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One row a point; shares as ``mix/CATEGORY``, expected falls as ``fall/TARGET``."""
    flat = [
        {
            **{name: value for name, value in row.items() if name not in ("mix", "fall")},
            **{f"mix/{name}": share for name, share in row["mix"].items()},
            **{f"fall/{name}": fall for name, fall in row["fall"].items()},
        }
        for row in rows
    ]
    names = list(dict.fromkeys(name for row in flat for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval=0)
        writer.writeheader()
        writer.writerows(flat)
