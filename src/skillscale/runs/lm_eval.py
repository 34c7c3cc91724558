"""Result files of the lm-evaluation-harness as rows: a checkpoint each, with every metric of every task.

A file tells ``results`` by task, as in ``"wikitext": {"bits_per_byte,none": .9, "bits_per_byte_stderr,none": "N/A"}``,
and in ``config`` how the model was loaded. Tokens it doesn't know, and parameters of Hugging Face models alone.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from skillscale.errors import InputError
from skillscale.formatting import join_first
from skillscale.laws.results import ExcludedRun
from skillscale.runs.column_map import ColumnMap

MODEL = "model"
_LARGEST = 2**26  # bytes: result files have some thousands, as samples are in files of their own
_UNFILTERED = ",none"
_BITS = ("bits_per_byte",)
_PERPLEXITIES = {"perplexity": "target", "word_perplexity": "word", "byte_perplexity": "byte"}
_MADE_WITH = {"versions": "version", "n-shot": "number of shots", "n-samples": "number of documents"}


@dataclass(frozen=True, kw_only=True)
class LmEvalResults:
    """A row a checkpoint: ``file``, ``model``, ``revision``, ``model_num_parameters`` and ``TASK/METRIC[,FILTER]``."""

    frame: pd.DataFrame
    excluded: tuple[ExcludedRun, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _File:
    """What one file tells. ``made_with``: by task, what must be alike for its metrics to compare."""

    name: str
    model: str
    revision: str
    n_params: float
    date: float
    limit: Any
    metrics: Mapping[str, float]
    rising: frozenset[str]
    made_with: Mapping[str, Mapping[str, str]]


def read_results(files: Sequence[tuple[Path, str]], columns: ColumnMap, place: str) -> LmEvalResults:
    """The checkpoints of result files; several files of one checkpoint are one row, in which the newest counts.

    Args:
        files: with their names, as they are told.
        columns: of which each skill is one metric.
        place: where the files are from, for messages.

    Raises:
        InputError: no file has results, or a skill is a perplexity or a score where a loss should be.
    """
    read, unusable = [], []
    for path, name in files:
        try:
            read.append(_read(path, name))
        except InputError as error:
            unusable.append(ExcludedRun(run_id=name, skill="", reason=str(error)))
    if not read:
        raise InputError(
            f"no file of {place} has results of the lm-evaluation-harness; the first: {unusable[0].reason}"
        )
    read.sort(key=lambda one: (one.date, one.name))
    notes = [*_units(columns, read), *_differences(columns, read)]
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    again: dict[str, int] = {}
    for one in read:
        row = rows.setdefault((one.model, one.revision), {})
        for metric in one.metrics.keys() & row.keys():
            again[metric] = again.get(metric, 0) + 1
        own = {"file": one.name, MODEL: one.model, "revision": one.revision, "model_num_parameters": one.n_params}
        row.update({**own, **one.metrics})
    if told := [column.loss for column in columns.skills.values() if column.loss in again]:
        notes.append(f"{join_first(told)} came more than once for a checkpoint; the newest file counts")
    return LmEvalResults(frame=pd.DataFrame(list(rows.values())), excluded=tuple(unusable), notes=tuple(notes))


def _read(path: Path, name: str) -> _File:
    plain = _json(path)
    results = plain.get("results")
    if not isinstance(results, dict) or not any(isinstance(one, dict) for one in results.values()):
        raise InputError("it has no results by task; give results_*.json as lm_eval --output_path writes them")
    config = _mapping(plain.get("config"))
    loaded = _arguments(config.get("model_args"))
    return _File(
        name=name,
        model=str(plain.get("model_name") or loaded.get("peft") or loaded.get("pretrained") or Path(name).parent.name
                  or Path(name).stem),
        revision=str(loaded.get("revision") or config.get("model_revision") or ""),
        n_params=_number(config.get("model_num_parameters")),
        date=_number(plain.get("date"), 0.0),
        limit=config.get("limit"),
        metrics=dict(_metrics(results)),
        rising=frozenset(_rising(plain.get("higher_is_better"))),
        made_with={key: {str(task): json.dumps(told, sort_keys=True) for task, told in _mapping(plain.get(key)).items()}
                   for key in _MADE_WITH},
    )  # fmt: skip


def _json(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise InputError(f"there is no file {path}; give a result file, or a folder of them")
    size = path.stat().st_size
    if size > _LARGEST:
        raise InputError(f"it has {size:.3g} bytes, more than any result file; are these samples?")
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"it is no JSON ({error}); is it complete?") from error
    if not isinstance(plain, dict):
        raise InputError("it has no results by task; give results_*.json as lm_eval --output_path writes them")
    return plain


def _metrics(results: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """``wikitext/bits_per_byte`` for "bits_per_byte,none"; another filter stays in the name."""
    for task, told in results.items():
        for name, value in _mapping(told).items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                yield f"{task}/{name.removesuffix(_UNFILTERED)}", _number(value)
            elif value == "N/A":
                yield f"{task}/{name.removesuffix(_UNFILTERED)}", math.nan


def _rising(told: Any) -> Iterator[str]:
    """Metrics that are better when they are higher: no losses."""
    for task, metrics in _mapping(told).items():
        yield from (f"{task}/{name}" for name, is_higher in _mapping(metrics).items() if is_higher is True)


def _units(columns: ColumnMap, read: Sequence[_File]) -> Iterator[str]:
    """What each skill's loss is a loss of.

    Raises:
        InputError: a perplexity that is not told to be one, or a score.
    """
    rising = frozenset().union(*(one.rising for one in read))
    for skill, column in columns.skills.items():
        plain = column.loss.partition(",")[0]
        metric = plain.rpartition("/")[2]
        if plain in rising:
            raise InputError(
                f"{skill} is {column.loss}, which is better when it is higher; a law takes a loss: name "
                f"{' or '.join((*_BITS, *_PERPLEXITIES))} of a task, or another metric that falls"
            )
        if metric in _PERPLEXITIES and skill not in columns.perplexity:
            raise InputError(
                f"{skill} is {column.loss}, a perplexity, of which a law takes the logarithm; add "
                f"perplexity: [{', '.join([*columns.perplexity, skill])}] to the mapping of columns"
            )
        if metric in _PERPLEXITIES:
            yield f"{skill} is ln {column.loss}: in nats per {_PERPLEXITIES[metric]}, not per token"
        elif metric in _BITS:
            unit = columns.unit("skills", skill)
            nats = math.isclose(unit, math.log(2))
            cure = "" if nats else f"; units: {{{skill}: bits}} makes it nats per byte"
            yield f"{skill} is {column.loss}: in {'nats' if nats else 'bits'} per byte, not nats per token{cure}"


def _differences(columns: ColumnMap, read: Sequence[_File]) -> Iterator[str]:
    """Why the metrics of a task may not compare between checkpoints."""
    for skill, column in columns.skills.items():
        task = column.loss.rpartition("/")[0]
        for key, words in _MADE_WITH.items():
            values = dict.fromkeys(one.made_with[key][task] for one in read if task in one.made_with[key])
            if len(values) > 1:
                yield f"{skill}: the {words} of {task} differs between files ({join_first(list(values))}): do they compare?"
    if limited := [one.name for one in read if one.limit]:
        yield f"{len(limited)} of {len(read)} files were made with --limit, on some documents alone: {join_first(limited)}"


def _arguments(told: Any) -> Mapping[str, Any]:
    """``pretrained=a/b,revision=main`` by name; newer versions write an object."""
    if isinstance(told, dict):
        return told
    pairs = (part.partition("=") for part in str(told or "").split(","))
    return {name.strip(): value.strip() for name, sign, value in pairs if sign}


def _mapping(told: Any) -> Mapping[str, Any]:
    return told if isinstance(told, dict) else {}


def _number(told: Any, otherwise: float = math.nan) -> float:
    try:
        return float(told)
    except (TypeError, ValueError, OverflowError):
        return otherwise
