"""Guess what the columns of a table are, by their names and values, so that common tables need no column map.

Names are those that W&B, MLflow, the lm-evaluation-harness, Hugging Face and published tables use. A guess is shown to
the user, who can write it to a file and correct it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from skillscale.errors import InputError
from skillscale.formatting import format_flops, join_first
from skillscale.tables.cell_numbers import cell_numbers
from skillscale.tables.column_hints import is_data_name, is_flops_name, is_run_name, is_seed_name
from skillscale.tables.metric_names import MetricKind, metric_kind, name_parts
from skillscale.tables.units import named_power

Floats = npt.NDArray[np.float64]

_PATH = re.compile(r"[/.:|]")
_COUNTING = frozenset(
    {"n", "num", "number", "no", "of", "count", "total", "the", "model", "trainable", "all", "size", "overall"}
)
_POWERS = frozenset({"k", "m", "mn", "b", "bn", "g", "t", "million", "millions", "billion", "billions", "trillion"})
_PARAMS = frozenset({"params", "param", "parameters", "parameter", "nparams", "numparams", "paramcount", "weights"})
_EMBEDDING = frozenset({"embed", "embedding", "embeddings", "emb", "nonembed", "nonembedding", "noembed", "ne"})
_WITHOUT = frozenset({"non", "no", "without", "wo", "excluding", "excl", "minus"})
_TOKENS = frozenset({"tokens", "token", "toks", "tok", "ntokens", "numtokens", "traintokens"})
_OF_A_RUN = frozenset({
    "train", "training", "trained", "seen", "consumed", "processed", "pretraining", "pretrain", "data", "dataset", "so",
    "far", "on", "cumulative", "input", "budget",
})  # fmt: skip
_SHARE = re.compile(
    r"(?:.*[/.])?(mix|mixture|proportion|prop|share|weight|frac|fraction|ratio|p|w|domain)s?[_/.: -]+(.+)",
    re.IGNORECASE,
)
_LOSS_WORDS = frozenset({
    "loss", "losses", "nll", "ce", "xent", "cross", "entropy", "ppl", "perplexity", "bpb", "bits", "per",
    "byte", "word", "none",
})  # fmt: skip
_LOSS_PREFIXES = frozenset({
    "eval", "metrics", "metric", "summary", "val", "valid", "validation", "test", "dev", "final", "avg", "mean", "lm",
    "train", "training", "word",
})  # fmt: skip
_NO_LOSSES = frozenset({
    "aux", "z", "zloss", "router", "balance", "balancing", "grad", "scale", "scaler", "curvature", "min", "max", "best",
    "initial", "init", "spike", "std", "stderr", "sem", "se", "var", "diff", "delta", "weight", "kind", "mask", "type",
    "fn", "function", "ratio", "count", "runtime", "time", "per", "slope", "threshold", "ema", "smooth", "smoothed",
})  # fmt: skip
_ERROR_WORDS = frozenset({"sem", "stderr", "se", "err", "error"})
_HELD_OUT = frozenset({"eval", "val", "valid", "validation", "test", "dev"})
_TRAINING = frozenset({"train", "training"})
_IDENTIFIERS = frozenset({"id", "name", "index", "seed"})
_SUM_TOLERANCE = 0.03
_SHOWN = 4  # columns of one kind
_MOSTLY = 0.9  # share of the rows
_MOST_DATA_SETS = 50
_BETWEEN_WORDS = re.compile(r"[/.:|_ ,()\[\]]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_LETTERS = re.compile(r"[^0-9A-Za-z_-]+")


@dataclass(frozen=True, kw_only=True)
class ColumnGuess:
    """A column map by the names and values of the columns.

    Args:
        raw: The column map as plain values.
        unused: Columns of metrics that are not in the map.
        columns: Names of all columns.
    """

    raw: Mapping[str, Any]
    unused: tuple[str, ...]
    columns: tuple[str, ...]

    @property
    def absent(self) -> tuple[str, ...]:
        """What no column is by its name, of that which every table needs."""
        sizes = [key for key in ("n_params", "n_tokens") if key not in self.raw]
        if len(sizes) == 1 and "flops" in self.raw:
            sizes = []
        return (*sizes, *(() if "skills" in self.raw else ("skills",)))

    def require(self, place: str) -> None:
        """Refuse a guess that lacks what every table needs.

        Args:
            place: Name of the table in the message.

        Raises:
            InputError: N, D or every loss is absent.
        """
        if self.absent:
            words = {"n_params": "N (parameters)", "n_tokens": "D (tokens)", "skills": "a loss"}
            raise InputError(
                f"no column of {place} is {' or '.join(words[key] for key in self.absent)} by its name. Name the "
                f"columns in a file and give it by --columns. The table has {join_first(self.columns, 40)}."
            )

    @property
    def text(self) -> str:
        """One line for a person: what each column is taken for."""
        parts = []
        for key, value in self.raw.items():
            if key == "where":
                parts += [f"rows with {name} {required}" for name, required in value.items()]
            elif isinstance(value, Mapping) and key != "units":
                names = [column["loss"] if isinstance(column, Mapping) else column for column in value.values()]
                parts.append(f"{key} {join_first(names, _SHOWN)}")
            elif key != "units":
                parts.append(f"{key} {value if isinstance(value, str) else join_first(value, _SHOWN)}")
        units = "".join(f"; {key} in {format_flops(unit)}" for key, unit in self.raw.get("units", {}).items())
        return f"columns by their names: {', '.join(parts)}{units}"


def guess_columns(frame: pd.DataFrame) -> ColumnGuess:
    """Guess the column map of a table.

    Args:
        frame: The table, or its first rows.
    """
    table = _Table(frame)
    raw: dict[str, Any] = {}
    sizes = _params(table)
    if sizes:
        raw["n_params"] = sizes if len(sizes) > 1 else next(iter(sizes.values()))
    tokens = table.best(_tokens_rank)
    if tokens:
        raw["n_tokens"] = tokens
    flops = table.best(lambda name: 0 if is_flops_name(name) else _flops_rank(name))
    if flops:
        raw["flops"] = flops
    skills, perplexity, unused = _losses(table)
    if skills:
        raw["skills"] = skills
    if perplexity:
        raw["perplexity"] = perplexity
    shares = _shares(table)
    if shares:
        raw["mix"] = shares
    elif data := _data_sets(table):
        raw["mix"] = data
    if seed := table.best(lambda name: 0 if is_seed_name(name) else None):
        raw["seed"] = seed
    if run := next((name for name in table.names if is_run_name(name)), None):
        raw["run"] = run
    if last := next((name for name in table.names if _is_last_flag(table, name)), None):
        raw["where"] = {last: 1}
    units = {
        key: named_power(column)
        for key, column in (("n_params", next(iter(sizes.values()), "")), ("n_tokens", tokens), ("flops", flops))
        if column and named_power(column) != 1 and table.median(column) < named_power(column)
    }
    if units:
        raw["units"] = units
    return ColumnGuess(raw=raw, unused=tuple(unused), columns=tuple(table.names))


class _Table:
    """A table whose columns are read as numbers once."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame.loc[:, ~frame.columns.duplicated()]
        self.frame.columns = [str(name) for name in self.frame.columns]
        self.names = list(self.frame.columns)
        self._numbers: dict[str, Floats | None] = {}

    def numbers(self, name: str) -> Floats | None:
        """Return the numbers of a column, NaN where a cell is empty; None where most cells are no numbers."""
        if name not in self._numbers:
            self._numbers[name] = self._read(self.frame[name])
        return self._numbers[name]

    @staticmethod
    def _read(column: "pd.Series[Any]") -> Floats | None:
        if column.dtype.kind in "bmM":
            return None
        given = int(column.notna().sum())
        try:
            numbers = cell_numbers(column, suffixes=True).numbers
        except InputError:
            return None
        return numbers if given and np.isfinite(numbers).sum() >= 0.5 * given else None

    def median(self, name: str) -> float:
        """Return the median of a column of numbers."""
        numbers = self.numbers(name)
        return float("nan") if numbers is None else float(np.nanmedian(numbers))

    def are_positive(self, name: str) -> bool:
        """Return whether a column has numbers, most of them above 0."""
        numbers = self.numbers(name)
        return numbers is not None and float(np.mean(numbers[np.isfinite(numbers)] > 0)) > 0.5

    def best(self, rank: Callable[[str], int | None]) -> str:
        """Return the first column of positive numbers among those of the least rank; empty where there is none."""
        ranked = [(at, name) for name in self.names if (at := rank(name)) is not None and self.are_positive(name)]
        return min(ranked, key=lambda pair: pair[0])[1] if ranked else ""


def _last_part(name: str) -> str:
    return [part for part in _PATH.split(name) if part][-1] if _PATH.split(name)[-1] else name


def _params(table: _Table) -> dict[str, str]:
    """Return the columns of N by convention: all parameters first, and those without embedding if both exist."""
    total = table.best(_params_rank)
    without = table.best(_without_embedding_rank)
    if total and without:
        return {"total": total, "nonembed": without}
    return {"": total or without} if total or without else {}


def _params_rank(name: str) -> int | None:
    parts = name_parts(_last_part(name))
    rest = set(parts) - _COUNTING - _POWERS
    if not rest and "size" in parts and "model" in parts:
        return 3
    if parts in (["n"], ["size"], ["modelsize"]):
        return 4
    if not rest & _PARAMS or rest - _PARAMS:
        return 5 if rest & _PARAMS and rest - _PARAMS == {"active"} else None
    return 0 if "total" in parts or parts in (["n", "params"], ["params"], ["parameters"]) else 1


def _without_embedding_rank(name: str) -> int | None:
    parts = set(name_parts(_last_part(name)))
    rest = parts - _COUNTING - _POWERS - _EMBEDDING - _WITHOUT - _PARAMS
    excluded = bool(parts & {"nonembed", "nonembedding", "noembed", "ne"}) or bool(
        parts & _EMBEDDING and parts & _WITHOUT
    )
    return 0 if excluded and parts & _PARAMS and not rest else None


def _tokens_rank(name: str) -> int | None:
    parts = name_parts(_last_part(name))
    if parts == ["d"]:
        return 4
    rest = set(parts) - _COUNTING - _POWERS - _TOKENS
    if not set(parts) & _TOKENS or rest - _OF_A_RUN:
        return None
    return 0 if not rest else 1 if rest & {"seen", "consumed", "processed", "trained"} else 2


def _flops_rank(name: str) -> int | None:
    parts = set(name_parts(_last_part(name)))
    if name in ("C", "compute"):
        return 2
    flops = parts & {"flops", "flop"}
    return 1 if flops and not parts - flops - _COUNTING - _POWERS - _OF_A_RUN - {"compute", "e18", "e21"} else None


def _losses(table: _Table) -> tuple[dict[str, Any], list[str], list[str]]:
    """Return the columns of the losses by skill, the skills that are perplexities, and the other metrics."""
    metrics = [name for name in table.names if _is_metric(table, name)]
    losses = [name for name in metrics if metric_kind(name) is MetricKind.LOSS]
    bits = [name for name in losses if _in_bits(name)]
    chosen = [name for name in losses if name not in bits] or bits
    held_out = [name for name in chosen if not set(name_parts(name)) & _TRAINING]
    chosen = held_out or chosen
    if any(set(name_parts(name)) & _HELD_OUT and _short_name(name) == "loss" for name in chosen):
        chosen = [name for name in chosen if name != "loss"]  # Hugging Face: that of the training steps
    perplexities = [name for name in metrics if metric_kind(name) is MetricKind.PERPLEXITY]
    perplexities = [name for name in perplexities if not set(name_parts(name)) & _TRAINING] or perplexities
    names = skill_names(chosen or perplexities)
    errors = {_skill_words(name, _ERROR_WORDS): name for name in table.names if _is_error(table, name)}
    skills: dict[str, Any] = {}
    for column, skill in zip(chosen or perplexities, names, strict=True):
        sem = errors.get(_skill_words(column, frozenset()))
        skills[skill] = {"loss": column, "sem": sem} if sem else column
    others = [name for name in table.names if metric_kind(name) is not MetricKind.UNKNOWN]
    unused = [name for name in others if name not in (*chosen, *([] if chosen else perplexities), *errors.values())]
    return skills, [] if chosen else names, unused


def _is_metric(table: _Table, name: str) -> bool:
    parts = set(name_parts(name))
    return (
        not parts & (_NO_LOSSES - {"per"}) and not ("per" in parts and not _in_bits(name)) and table.are_positive(name)
    )


def _is_error(table: _Table, name: str) -> bool:
    return bool(set(name_parts(name)) & {"sem", "stderr", "se"}) and table.numbers(name) is not None


def _in_bits(name: str) -> bool:
    parts = set(name_parts(name))
    return bool(parts & {"bpb", "bpc"}) or "bits" in parts


def _skill_words(name: str, more: frozenset[str]) -> str:
    """Return the words of a column that name its skill, to match a loss with its standard error."""
    return " ".join(part for part in name_parts(name) if part not in _LOSS_WORDS | more)


def skill_names(columns: Sequence[str]) -> list[str]:
    """Return a short name for each column of losses; the whole name where short ones would be equal."""
    short = [_short_name(column) for column in columns]
    return [
        name if short.count(name) == 1 else _plain_name(column) for name, column in zip(short, columns, strict=True)
    ]


def _short_name(column: str) -> str:
    words = [word for word in _BETWEEN_WORDS.split(column) if word]
    if len(words) == 1:
        words = [word for word in _CAMEL.split(column) if word]
    kept = [word for word in words if word.lower() not in _LOSS_WORDS]
    while kept and kept[0].lower() in _LOSS_PREFIXES:
        kept = kept[1:]
    return _plain_name("_".join(kept))


def _plain_name(text: str) -> str:
    return _LETTERS.sub("_", text).strip("_-") or "loss"


def _shares(table: _Table) -> dict[str, str]:
    """Return the columns of shares by category: several with one first word, whose values sum to 1."""
    groups: dict[str, dict[str, str]] = {}
    values: dict[str, Floats] = {}
    for name in table.names:
        match, numbers = _SHARE.fullmatch(name), table.numbers(name)
        if match is None or numbers is None or match[2].lower() in _IDENTIFIERS:
            continue
        if bool((numbers[np.isfinite(numbers)] >= 0).all()):
            groups.setdefault(match[1].lower(), {})[_plain_name(match[2])] = name
            values[name] = numbers
    for shares in groups.values():
        if len(shares) < 2:
            continue
        total = np.nansum([values[name] for name in shares.values()], axis=0)
        whole = np.isclose(total, 1, atol=_SUM_TOLERANCE) | np.isclose(total, 100, atol=100 * _SUM_TOLERANCE)
        if whole.mean() > _MOSTLY:
            return shares
    return {}


def _is_last_flag(table: _Table, name: str) -> bool:
    """Return whether a column marks the last checkpoint of each run by its name and values."""
    if "".join(name_parts(_last_part(name))) not in ("final", "isfinal", "last", "islast", "finalcheckpoint"):
        return False
    return set(table.frame[name].dropna().unique()) == {0, 1}


def _data_sets(table: _Table) -> str:
    """Return the column that names the data set of a run, where it has several and few values."""
    for name in table.names:
        values = table.frame[name].dropna()
        if is_data_name(name) and table.numbers(name) is None and 2 <= values.nunique() <= _MOST_DATA_SETS:
            return name
    return ""
