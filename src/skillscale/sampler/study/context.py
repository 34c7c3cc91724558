"""What studies tell by themselves: one that is trained here, and one that is a table."""

import json
from dataclasses import replace

import numpy as np

from skillscale.config import Config
from skillscale.errors import InputError
from skillscale.formatting import did_you_mean, join_first
from skillscale.lm.model.shape import buildable_sizes
from skillscale.point import Mix
from skillscale.runs import RunTable
from skillscale.sampler.study.problem import StudyContext

_UPDATES = (
    200  # with the smallest batch: runs of fewer lie off the laws by several per cent (docs/research/sampling.md)
)
_MOST_MIXES = 32  # of a table, the most frequent ones, that a design looks at


def context_from_config(config: Config, described: str = "") -> StudyContext:
    """Of a study that is trained here: its ladder of sizes, its base mix and others, its largest budget.

    Args:
        config: its settings.
        described: what its data are, as JSON text; empty where nobody knows yet.
    """
    categories = json.loads(described or "{}").get("categories", {})
    return StudyContext(
        skills=tuple(skill.name for skill in config.skills.skills),
        mixes=config.study.mix_values,
        flops_max=max(config.study.budgets),
        sizes=tuple(buildable_sizes(config.data.vocab_size, config.model)),
        least_tokens=config.model.context,
        usual_tokens=_UPDATES * max(config.train.batch_min, config.model.context),
        unique={name: float(one["tokens"]) for name, one in categories.items()},
        categories=config.data.category_names,
    )


def context_from_table(table: RunTable) -> StudyContext:
    """Of runs by others: their mixes, the most frequent first, and the largest 6 N D.

    Raises:
        InputError: the table names several mixes, and tells no shares.
    """
    runs = table.runs
    names = sorted(set(runs["mix"]))
    if not table.categories and len(names) > 1:
        raise InputError(
            f"the runs are of {len(names)} mixes that are named without their shares ({join_first(names)}), and each "
            "needs a design of its own; give --mix NAME, one of them"
        )
    measured = tuple(name for name in table.judged_skills if runs[name].notna().any())
    if not measured:
        raise InputError("no run of the table has measured any skill; give one with losses")
    largest = float((6 * runs["N"] * runs["D"]).max())
    return StudyContext(skills=measured, mixes=_mixes(table), flops_max=largest, categories=table.categories)


def filter_mix(table: RunTable, name: str) -> RunTable:
    """The runs of one mix that is named without its shares.

    Raises:
        InputError: the table tells shares, or has no mix of that name.
    """
    if table.categories:
        raise InputError(
            f"--mix names one of several mixes without shares, but this table has shares of "
            f"{join_first(table.categories)}. Give --mixes with shares, as in a=0.5,b=0.5; a=1, in place of {name!r}."
        )
    names = sorted(set(table.runs["mix"]))
    if name not in names:
        raise InputError(f"no run is on a mix named {name!r}{did_you_mean(name, names)}; there are {join_first(names)}")
    return replace(table, runs=table.runs[table.runs["mix"] == name].reset_index(drop=True))


def _mixes(table: RunTable) -> tuple[Mix, ...]:
    if not table.categories:
        return ()
    shares = table.runs[[f"mix/{name}" for name in table.categories]].to_numpy(dtype=float)
    found, counts = np.unique(np.round(shares, 4), axis=0, return_counts=True)
    frequent = found[np.argsort(-counts, kind="stable")][:_MOST_MIXES]
    plain = [dict(zip(table.categories, (row / row.sum()).tolist(), strict=True)) for row in frequent]
    return tuple(Mix(one) for one in plain)
