"""Checks that the columns of skills hold losses: no perplexities, no scores, by their names and by their values."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from skillscale.errors import InputError
from skillscale.formatting import format_number, join_first, plural
from skillscale.tables.column_map import ColumnMap
from skillscale.tables.metric_names import MetricKind, metric_kind

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

LARGEST_LOSS = 12.6  # nats per token: ln of a vocabulary of 300,000, which a model has before training
_APART = 2.0  # factor above all other losses from which a run diverged
_FEW = 0.1  # share of losses above the largest, up to which the column may hold losses of whole answers
_FEWEST = 5
_RISING = 0.5  # rank correlation with N D: losses have about -1, scores about 1
_EXP_TOLERANCE = 2e-3


def check_loss_names(columns: ColumnMap, place: str) -> Iterator[str]:
    """Refuse columns that hold perplexities or scores by their names, and yield notes on doubtful ones.

    Raises:
        InputError: with the cure.
    """
    wrong = wrong_names(columns)
    for kind, message in ((MetricKind.PERPLEXITY, _perplexity_message), (MetricKind.SCORE, _score_message)):
        refused = [skill for skill, other in wrong if other is kind and not columns.declares_loss(skill)]
        if refused:
            raise InputError(message(columns, refused, place))
    for skill, kind in wrong:
        yield f"{skill} (column {columns.skills[skill].loss}) is a {kind} by its name, and a loss by its unit"
    for skill in columns.perplexity:
        column = columns.skills[skill].loss
        if metric_kind(column) is MetricKind.LOSS:
            yield (
                f"perplexity lists {skill}, but column {column} is a loss by its name. Its logarithm is taken: remove "
                "it from perplexity if it is no exp(loss)"
            )


def wrong_names(columns: ColumnMap) -> list[tuple[str, MetricKind]]:
    """Return the skills whose columns hold perplexities (unless listed as such) or scores by their names."""
    kinds = [(skill, metric_kind(column.loss)) for skill, column in columns.skills.items()]
    perplexities = [skill for skill, kind in kinds if kind is MetricKind.PERPLEXITY and skill in columns.perplexity]
    wrong = (MetricKind.PERPLEXITY, MetricKind.SCORE)
    return [(skill, kind) for skill, kind in kinds if kind in wrong and skill not in perplexities]


def check_loss_values(
    columns: ColumnMap, losses: Mapping[str, Floats], size: Floats, place: str, others: Mapping[str, Floats]
) -> Iterator[str]:  # fmt: skip
    """Refuse columns whose values are no losses, and yield notes on doubtful ones.

    Args:
        columns: column map.
        losses: losses of the usable rows by skill, NaN where they are no positive numbers.
        size: N D of the usable rows.
        place: name of the table in messages.
        others: columns of losses that the column map does not name.

    Raises:
        InputError: with the cure.
    """
    for skill, problem in loss_problems(columns, losses, size, others):
        if not columns.declares_loss(skill):
            raise InputError(f"{problem} ({place}). {_cure(columns, [skill], problem)}")
        yield f"{problem} It is taken as a loss, because units names it"
    for skill in losses:
        if skill not in columns.perplexity:
            yield from _large_loss_notes(skill, losses[skill])


def loss_problems(
    columns: ColumnMap, losses: Mapping[str, Floats], size: Floats, others: Mapping[str, Floats] | None = None
) -> list[tuple[str, str]]:  # fmt: skip
    """Return each skill whose values can't be losses, with the question.

    Args:
        columns: column map.
        losses: losses of the usable rows by skill, NaN where they are no positive numbers.
        size: N D of the usable rows.
        others: columns of losses that the column map does not name.
    """
    problems = [(skill, _value_problem(skill, columns, losses, size, others or {})) for skill in losses]
    return [(skill, problem) for skill, problem in problems if problem and skill not in columns.perplexity]


def doubtful_losses(columns: ColumnMap, runs: pd.DataFrame) -> Iterator[str]:
    """Yield notes on skills of a study that are no losses by their names or values, and are fitted all the same.

    Args:
        columns: names, units and perplexities of the losses.
        runs: runs of the study.
    """
    losses = {name: runs[name].to_numpy(dtype=float) for name in columns.skills if name in runs}
    problems = [
        (skill, f"{skill} (column {columns.skills[skill].loss}) is a {kind} by its name.")
        for skill, kind in wrong_names(columns)
    ]
    for skill, problem in [*problems, *loss_problems(columns, losses, (runs["N"] * runs["D"]).to_numpy(dtype=float))]:
        if not columns.declares_loss(skill):
            yield f"{problem} Its fit is wrong unless it is a loss"


def diverged(values: Floats) -> Mask:
    """Return which losses are above that of any model before training, and far above all others."""
    above = values > LARGEST_LOSS
    if not above.any():
        return above
    rest = values[(values > 0) & (values <= LARGEST_LOSS)]
    most = float(rest.max()) if len(rest) else math.inf
    is_few = above.sum() <= max(_FEW * np.isfinite(values).sum(), 1)
    return np.asarray(above & (values > _APART * most) & is_few)


def _value_problem(
    skill: str, columns: ColumnMap, losses: Mapping[str, Floats], size: Floats, others: Mapping[str, Floats]
) -> str:  # fmt: skip
    """Return why the values of a skill can't be losses, or nothing."""
    column, values = columns.skills[skill].loss, losses[skill]
    given = values[np.isfinite(values)]
    if not len(given):
        return ""
    low, high = format_number(float(given.min())), format_number(float(given.max()))
    place = f"{skill} (column {column}) has values from {low} to {high}"
    rises = _rank_correlation(values, size) >= _RISING
    if rises and given.max() <= 1:
        return f"{place}, which rise with N and D: is it an accuracy?"
    share = float((given > LARGEST_LOSS).mean())
    if share > (0.5 if metric_kind(column) is MetricKind.LOSS else _FEW) and share > 1 / len(given):
        if rises:
            return f"{place}, which rise with N and D: is it an accuracy in per cent?"
        return f"{place}, but a loss is at most {LARGEST_LOSS} nats per token: is it a perplexity?"
    named = {f"{name} (column {columns.skills[name].loss})": values for name, values in losses.items()}
    rest = {name: values for name, values in named.items() if values is not losses[skill]}
    return _exponential_problem(f"{skill} (column {column})", values, {**rest, **others})


def _exponential_problem(name: str, values: Floats, others: Mapping[str, Floats]) -> str:
    """Return that the values of a skill are exp of those of another column, or nothing."""
    for other, losses in others.items():
        both = np.isfinite(values) & np.isfinite(losses) & (losses < LARGEST_LOSS)
        if both.sum() >= _FEWEST and np.allclose(values[both], np.exp(losses[both]), rtol=_EXP_TOLERANCE, atol=0):
            return f"{name} is exp of {other}: is it a perplexity?"
    return ""


def _large_loss_notes(skill: str, values: Floats) -> Iterator[str]:
    large = values[np.isfinite(values) & (values > LARGEST_LOSS) & ~diverged(values)]
    if len(large):
        yield (
            f"{skill} has {plural(len(large), 'value')} above {LARGEST_LOSS}, more than a mean over tokens in "
            "nats can be: is it a sum over tokens, or a perplexity?"
        )


def _rank_correlation(values: Floats, size: Floats) -> float:
    """Return Spearman's rank correlation of a loss and N D, 0 where they are few or constant."""
    given = np.isfinite(values)
    if given.sum() < _FEWEST or np.ptp(values[given]) == 0 or np.ptp(size[given]) == 0:
        return 0.0
    ranks = pd.DataFrame({"loss": values[given], "size": size[given]}).rank()
    return float(np.corrcoef(ranks["loss"], ranks["size"])[0, 1])


def _cure(columns: ColumnMap, skills: Sequence[str], problem: str) -> str:
    units = f"units: {{{', '.join(f'{skill}: 1' for skill in skills)}}}"
    if "perplexity" not in problem:
        return f"Name a column of losses, or add {units} to the column map if this is one."
    listed = ", ".join([*columns.perplexity, *skills])
    return f"Add perplexity: [{listed}] to the column map for its logarithm, or {units} if it is a loss."


def _perplexity_message(columns: ColumnMap, skills: Sequence[str], place: str) -> str:
    named = join_first([f"{skill} (column {columns.skills[skill].loss} of {place})" for skill in skills])
    what = "is a perplexity by its name" if len(skills) == 1 else "are perplexities by their names"
    return f"{named} {what}, but a law needs a loss. {_cure(columns, skills, 'perplexity')}"


def _score_message(columns: ColumnMap, skills: Sequence[str], place: str) -> str:
    named = join_first([f"{skill} (column {columns.skills[skill].loss} of {place})" for skill in skills])
    what = "is a score by its name" if len(skills) == 1 else "are scores by their names"
    return f"{named} {what}, where higher is better, but a law needs a loss. {_cure(columns, skills, '')}"
