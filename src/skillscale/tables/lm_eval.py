"""Result files of the lm-evaluation-harness as rows: one checkpoint per row, with all metrics of all tasks.

A file has ``results`` by task, as in ``"wikitext": {"bits_per_byte,none": 0.9, "bits_per_byte_stderr,none": "N/A"}``,
and the arguments of the model in ``config``. It has no training tokens, and parameters only of Hugging Face models.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from skillscale.errors import InputError
from skillscale.formatting import format_count, join_first
from skillscale.laws.results import ExcludedRun
from skillscale.tables.column_map import ColumnMap
from skillscale.tables.json_files import loads
from skillscale.tables.metric_names import MetricKind, metric_kind

MODEL = "model"
_LARGEST = 2**26  # bytes; result files have a few thousand, and samples are in other files
_FEW = 0.5  # of the documents of another file of one checkpoint
_MILLISECONDS = 1e11  # seconds beyond the year 5000
_TIME = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[T _](\d{2}[-_:]\d{2}[-_:]\d{2}))?(\.\d{1,6})?\d*(Z|[-+]\d{2}:\d{2})?", re.ASCII
)
_UNFILTERED = ",none"
_BITS = ("bits_per_byte",)
_PERPLEXITIES = {"perplexity": "target", "word_perplexity": "word", "byte_perplexity": "byte"}  # "ppl" before 0.4
_MADE_WITH = {"versions": "version", "n-shot": "number of shots", "n-samples": "number of documents"}


@dataclass(frozen=True, kw_only=True)
class LmEvalResults:
    """Rows of checkpoints: ``file``, ``model``, ``revision``, ``model_num_parameters``, ``TASK/METRIC[,FILTER]``."""

    frame: pd.DataFrame
    excluded: tuple[ExcludedRun, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _ResultFile:
    """The content of a result file. ``made_with``: settings that must agree for metrics to compare, by task.

    ``date``: seconds, NaN where unknown. ``documents``: numbers that were used and that there are, by task; 0: unknown.
    """

    name: str
    model: str
    revision: str
    n_params: float
    date: float
    limit: Any
    metrics: Mapping[str, float]
    rising: frozenset[str]
    made_with: Mapping[str, Mapping[str, str]]
    documents: Mapping[str, tuple[float, float]]

    def is_limited(self, task: str) -> bool:
        """Return whether a task was evaluated on only some of its documents."""
        if task in self.documents:
            used, there = self.documents[task]
            if there > 0:
                return used < there
        return bool(self.limit)


def read_results(files: Sequence[tuple[Path, str]], columns: ColumnMap, place: str) -> LmEvalResults:
    """Return the checkpoints of result files. Several files of one checkpoint give one row; the newest counts.

    Args:
        files: paths and their names in messages.
        columns: column map; each skill is one metric.
        place: name of the folder in messages.

    Raises:
        InputError: no file has results, or a skill is a perplexity or a score where a loss should be.
    """
    read, excluded = [], []
    for path, name in files:
        try:
            read.append(_read_file(path, name))
        except InputError as error:
            excluded.append(ExcludedRun(run_id=name, skill="", reason=str(error)))
    if not read:
        raise InputError(
            f"no file of {place} has results of the lm-evaluation-harness. The first: {excluded[0].reason}"
        )
    read.sort(key=lambda result: (not math.isnan(result.date), result.date, result.name))
    notes = [*_unit_notes(columns, read), *_difference_notes(columns, read)]
    checkpoints: dict[tuple[str, str], list[_ResultFile]] = {}
    for result in read:
        checkpoints.setdefault((result.model, result.revision), []).append(result)
    losses = frozenset(column.loss for column in columns.skills.values())
    rows = [_merge(results, losses) for results in checkpoints.values()]
    several = [results for results in checkpoints.values() if len(results) > 1]
    if repeated := [name for name in losses if any(len(_holders(results, name)) > 1 for results in several)]:
        notes.append(f"{join_first(sorted(repeated))} occurs more than once for a checkpoint; the newest file counts")
    if short := sorted({old.name for results in several for name in losses for old in _shorter(results, name)}):
        notes.append(f"{join_first(short)} has only some documents, and does not replace a file of all documents")
    return LmEvalResults(frame=pd.DataFrame(rows), excluded=tuple(excluded), notes=tuple(notes))


def _merge(results: Sequence[_ResultFile], losses: frozenset[str]) -> dict[str, Any]:
    """Return the row of a checkpoint: each metric from the newest file that has it, of all documents if there is one.

    Raises:
        InputError: files with other values of a loss have no date, or one date.
    """
    newest = results[-1]
    row: dict[str, Any] = {
        "file": newest.name, MODEL: newest.model, "revision": newest.revision,
        "model_num_parameters": newest.n_params,
    }  # fmt: skip
    for metric in dict.fromkeys(name for result in results for name in result.metrics):
        holders = _holders(results, metric)
        short = _shorter(results, metric)
        full = [result for result in holders if result not in short]
        chosen = full[-1]
        rivals = [other for other in full if not _same(other.metrics[metric], chosen.metrics[metric])]
        undecided = [other for other in rivals if not other.date < chosen.date]
        if metric in losses and undecided:
            raise InputError(
                f"{undecided[0].name} and {chosen.name} give {metric} of {chosen.model} {chosen.revision}".rstrip()
                + " as "
                f"{undecided[0].metrics[metric]:.6g} and {chosen.metrics[metric]:.6g}, and their dates do not say "
                "which is newer. Remove one of the files."
            )
        row[metric] = chosen.metrics[metric]
    return row


def _same(value: float, other: float) -> bool:
    return math.isclose(value, other, rel_tol=1e-9) or (math.isnan(value) and math.isnan(other))


def _holders(results: Sequence[_ResultFile], metric: str) -> list[_ResultFile]:
    """Return the files that have a metric, without those that have no number for it if others have one."""
    holders = [result for result in results if metric in result.metrics]
    numbers = [result for result in holders if not math.isnan(result.metrics[metric])]
    return numbers or holders


def _shorter(results: Sequence[_ResultFile], metric: str) -> list[_ResultFile]:
    """Return the files whose metric is over far fewer documents than in another file of the checkpoint."""
    task = metric.rpartition("/")[0]
    holders = _holders(results, metric)
    limited = [result for result in holders if result.is_limited(task)]
    full = [result for result in holders if result not in limited] or holders
    most = max(result.documents.get(task, (0.0, 0.0))[0] for result in full)
    few = [result for result in full if task in result.documents and result.documents[task][0] < _FEW * most]
    return [result for result in holders if result in few or (result in limited and len(limited) < len(holders))]


def has_results(path: Path) -> bool:
    """Return whether a file has results by task. A file that can't be read counts where its name begins with it."""
    try:
        return isinstance(_read_json(path).get("results"), dict)
    except InputError:
        return path.name.startswith("results")


def _read_file(path: Path, name: str) -> _ResultFile:
    content = _read_json(path)
    results = content.get("results")
    if not isinstance(results, dict) or not any(isinstance(tasks, dict) for tasks in results.values()):
        raise InputError("it has no results by task. Give results_*.json as lm_eval --output_path writes them.")
    config = _as_mapping(content.get("config"))
    arguments = _model_arguments(config.get("model_args"))
    return _ResultFile(
        name=name,
        model=str(content.get("model_name") or arguments.get("peft") or arguments.get("pretrained")
                  or Path(name).parent.name or Path(name).stem),
        revision=str(arguments.get("revision") or config.get("model_revision") or ""),
        n_params=_as_number(config.get("model_num_parameters")),
        date=_date(content.get("date"), name),
        limit=config.get("limit"),
        metrics=dict(_named_metrics(results)),
        rising=frozenset(_rising_metrics(content.get("higher_is_better"))),
        made_with={key: {str(task): json.dumps(value, sort_keys=True)
                         for task, value in _as_mapping(content.get(key)).items()}
                   for key in _MADE_WITH},
        documents={str(task): _documents(value) for task, value in _as_mapping(content.get("n-samples")).items()},
    )  # fmt: skip


def _date(given: Any, name: str) -> float:
    """Return the date of a file in seconds: a number, an ISO text, or the time in its name. NaN if there is none."""
    seconds = _as_number(given)
    if not math.isnan(seconds):
        return seconds / 1000 if seconds > _MILLISECONDS else seconds
    times = (_seconds(text) for text in (str(given or ""), Path(name).name))
    return next((time for time in times if not math.isnan(time)), math.nan)


def _seconds(text: str) -> float:
    """Return the first time in a text, in UTC unless it says otherwise, or NaN."""
    match = _TIME.search(text)
    if not match:
        return math.nan
    day, hours, fraction, zone = match.groups()
    clock = re.sub("[-_]", ":", hours or "00:00:00")
    try:
        return datetime.fromisoformat(f"{day}T{clock}{fraction or ''}{zone or '+00:00'}").timestamp()
    except ValueError:
        return math.nan


def _documents(value: Any) -> tuple[float, float]:
    if isinstance(value, dict):
        return _as_number(value.get("effective"), 0.0), _as_number(value.get("original"), 0.0)
    return _as_number(value, 0.0), 0.0


def _read_json(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise InputError(f"there is no file {path}. Give a result file, or a folder of them.")
    size = path.stat().st_size
    if size > _LARGEST:
        raise InputError(f"it has {format_count(size)} bytes, more than any result file. Are these samples?")
    try:
        content = loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"it is not JSON ({error}). Is it complete?") from error
    if not isinstance(content, dict):
        raise InputError("it has no results by task. Give results_*.json as lm_eval --output_path writes them.")
    return content


def _named_metrics(results: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield each metric, as ``wikitext/bits_per_byte`` for "bits_per_byte,none". Other filters stay in the name."""
    for task, values in results.items():
        for name, value in _as_mapping(values).items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                yield f"{task}/{name.removesuffix(_UNFILTERED)}", _as_number(value)
            elif value == "N/A":
                yield f"{task}/{name.removesuffix(_UNFILTERED)}", math.nan


def _rising_metrics(tasks: Any) -> Iterator[str]:
    """Yield the metrics where higher is better: they are not losses."""
    for task, metrics in _as_mapping(tasks).items():
        yield from (f"{task}/{name}" for name, is_higher in _as_mapping(metrics).items() if is_higher is True)


def _unit_notes(columns: ColumnMap, results: Sequence[_ResultFile]) -> Iterator[str]:
    """Yield a note on the unit of the loss of each skill.

    Raises:
        InputError: a perplexity that is not marked as one, or a score.
    """
    rising = frozenset().union(*(result.rising for result in results))
    for skill, column in columns.skills.items():
        plain = column.loss.partition(",")[0]
        metric = plain.rpartition("/")[2]
        kind = metric_kind(plain)
        if plain in rising or (kind is MetricKind.SCORE and not columns.declares_loss(skill)):
            raise InputError(
                f"{skill} is {column.loss}, where higher is better, but a law needs a loss. Name "
                f"{' or '.join((*_BITS, *_PERPLEXITIES))} of a task, or another metric where lower is better."
            )
        if kind is MetricKind.PERPLEXITY and skill not in columns.perplexity and not columns.declares_loss(skill):
            raise InputError(
                f"{skill} is {column.loss}, a perplexity, but a law needs its logarithm. Add "
                f"perplexity: [{', '.join([*columns.perplexity, skill])}] to the column map."
            )
        if kind is MetricKind.PERPLEXITY and skill in columns.perplexity:
            yield f"{skill} is ln {column.loss}: in nats per {_PERPLEXITIES.get(metric, 'target')}, not per token"
        elif metric in _BITS:
            unit = columns.unit("skills", skill)
            nats = math.isclose(unit, math.log(2))
            cure = "" if nats else f"; units: {{{skill}: bits}} converts it to nats per byte"
            yield f"{skill} is {column.loss}: in {'nats' if nats else 'bits'} per byte, not nats per token{cure}"


def _difference_notes(columns: ColumnMap, results: Sequence[_ResultFile]) -> Iterator[str]:
    """Yield notes on why the metrics of a task may not be comparable between checkpoints."""
    for skill, column in columns.skills.items():
        task = column.loss.rpartition("/")[0]
        for key, words in _MADE_WITH.items():
            values = dict.fromkeys(result.made_with[key][task] for result in results if task in result.made_with[key])
            if len(values) > 1:
                different = join_first(list(values))
                yield f"{skill}: the {words} of {task} differs between files ({different}). Are they comparable?"
    if limited := [result.name for result in results if result.limit]:
        count = f"{len(limited)} of {len(results)} files"
        yield f"{count} were made with --limit, on only some documents: {join_first(limited)}"


def _model_arguments(given: Any) -> Mapping[str, Any]:
    """Return the arguments of the model, from ``pretrained=a/b,revision=main`` or an object."""
    if isinstance(given, dict):
        return given
    pairs = (part.partition("=") for part in str(given or "").split(","))
    return {name.strip(): value.strip() for name, sign, value in pairs if sign}


def _as_mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _as_number(value: Any, default: float = math.nan) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return default
