"""The context of a study: of a study that is trained here, or of a table of runs."""

import json
from dataclasses import replace

import numpy as np

from skillscale.config import Config
from skillscale.errors import InputError
from skillscale.formatting import did_you_mean, join_first
from skillscale.lm.model.shape import buildable_sizes
from skillscale.point import Mix
from skillscale.sampler.study.problem import StudyContext
from skillscale.tables import RunTable

_USUAL_UPDATES = (
    200  # with the smallest batch; runs with fewer are off the laws by several % (docs/research/sampling.md)
)
_MAX_MIXES = 32  # most frequent mixes of a table that a design considers


def context_from_config(config: Config, data_description: str = "") -> StudyContext:
    """Return the context of a study that is trained here: its ladder of sizes, its mixes and its largest budget.

    Args:
        config: settings of the study.
        data_description: JSON text about the prepared data, empty before preparation.
    """
    categories = json.loads(data_description or "{}").get("categories", {})
    return StudyContext(
        skills=tuple(skill.name for skill in config.skills.skills),
        mixes=config.study.mix_values,
        flops_max=max(config.study.budgets),
        sizes=tuple(buildable_sizes(config.data.vocab_size, config.model)),
        least_tokens=config.model.context,
        usual_tokens=_USUAL_UPDATES * max(config.train.batch_min, config.model.context),
        unique_tokens={name: float(category["tokens"]) for name, category in categories.items()},
        categories=config.data.category_names,
    )


def context_from_table(table: RunTable) -> StudyContext:
    """Return the context of runs by others: their mixes, the most frequent first, and the largest 6 N D.

    Raises:
        InputError: the table names several mixes without their shares, or no run has a loss.
    """
    runs = table.runs
    names = sorted(set(runs["mix"]))
    if not table.categories and len(names) > 1:
        raise InputError(
            f"the runs have {len(names)} mixes without shares ({join_first(names)}), and each mix needs a separate "
            "design. Choose one with --mix NAME"
        )
    measured = tuple(name for name in table.judged_skills if runs[name].notna().any())
    if not measured:
        raise InputError("no run of the table has a loss of a skill. Add runs with losses")
    largest = float((6 * runs["N"] * runs["D"]).max())
    return StudyContext(skills=measured, mixes=_mixes(table), flops_max=largest, categories=table.categories)


def filter_mix(table: RunTable, name: str) -> RunTable:
    """Return the runs of a mix that has a name and no shares.

    Raises:
        InputError: the table has shares, or no mix of that name.
    """
    if table.categories:
        raise InputError(
            f"--mix names one of several mixes without shares, but this table has shares of "
            f"{join_first(table.categories)}. Give --mixes with shares, as in a=0.5,b=0.5, in place of {name!r}."
        )
    names = sorted(set(table.runs["mix"]))
    if name not in names:
        raise InputError(f"no run has the mix {name!r}{did_you_mean(name, names)}. Choose among {join_first(names)}")
    return replace(table, runs=table.runs[table.runs["mix"] == name].reset_index(drop=True))


def _mixes(table: RunTable) -> tuple[Mix, ...]:
    if not table.categories:
        return ()
    shares = table.runs[[f"mix/{name}" for name in table.categories]].to_numpy(dtype=float)
    mixes, counts = np.unique(np.round(shares, 4), axis=0, return_counts=True)
    frequent = mixes[np.argsort(-counts, kind="stable")][:_MAX_MIXES]
    return tuple(Mix(dict(zip(table.categories, (row / row.sum()).tolist(), strict=True))) for row in frequent)
