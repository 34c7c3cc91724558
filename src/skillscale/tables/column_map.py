"""The column map of a table: which column is what, read from a small YAML file."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skillscale.config import read_yaml
from skillscale.errors import InputError, show
from skillscale.formatting import did_you_mean, join_first
from skillscale.point import AGGREGATE, check_name, check_skill_name

KEYS = (
    "n_params", "n_tokens", "flops", "budget", "run", "mix", "skills", "seed", "where", "validation", "units", "splits",
    "categories", "sets", "perplexity", "purpose", "join", "checkpoints", "best_of", "near_copies",
)  # fmt: skip
_TWO_OF_THREE = "two of n_params, n_tokens and flops (or budget)"  # the third follows from C = 6 N D
_NUMBERS = ("n_params", "n_tokens", "flops", "budget", "mix")
_BITS = "bits"  # unit of a loss in bits, which is converted to nats
_ROUNDING = 2.0**-52  # of each number in a sum of shares or weights


@dataclass(frozen=True, kw_only=True)
class LossColumns:
    """Columns of a skill: its loss (nats per token), and the standard error of the loss or empty."""

    loss: str
    sem: str = ""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Other columns of a skill, by their names among the skills.

    Args:
        held_out: mean over the split that confirms.
        hypothesis_sets: data sets of the hypothesis split.
        held_out_sets: data sets of the held-out split.
    """

    held_out: str
    hypothesis_sets: tuple[str, ...] = ()
    held_out_sets: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all these columns."""
        return tuple(filter(None, (self.held_out, *self.hypothesis_sets, *self.held_out_sets)))


@dataclass(frozen=True, kw_only=True)
class Join:
    """Another file in the same folder, whose columns are added to the matching rows.

    Args:
        file: name of the file.
        by: columns of the table that identify the row, each with the column of the other file that it must equal.
    """

    file: str
    by: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class ColumnMap:
    """The meaning of the columns of a table. An empty name means that the table has no such column.

    Args:
        n_params: columns of N by convention; the first is the default, and a single column has the convention "". Empty
            where N follows from D and C.
        n_tokens: column of D; empty where D follows from N and C.
        skills: columns of the losses, by skill.
        flops: column of C, FLOP.
        budget: column of the nominal budget, FLOP.
        run: columns that name the run; rows that share them are checkpoints of one run.
        mix: columns of shares, by category.
        mix_name: column of names of data sets.
        seed: column of seeds.
        where: values that a row must have, by column.
        validation: weights of skills, by aggregate.
        units: factors of columns, by key or by skill.
        splits: held-out split and data sets of a skill.
        categories: category of the mix that belongs to a skill.
        sets: skills that are validation sets.
        perplexity: skills whose column holds exp(loss).
        purpose: column with text in the rows that a sampler chose, which are at no isoFLOP budget.
        join: another file with more columns.
        checkpoints: rows of a run at several D to use: ``last`` or ``all``; empty: the last, with a note.
        best_of: columns of hyperparameters, of which the best setting counts at each N, D and mix.
        near_copies: ``keep`` uses rows that look like copies of others; empty: each run counts once.

    Raises:
        InputError: names that clash, an aggregate of unknown skills, or a unit of an unknown column.
    """

    n_params: Mapping[str, str]
    n_tokens: str
    skills: Mapping[str, LossColumns]
    flops: str = ""
    budget: str = ""
    run: tuple[str, ...] = ()
    mix: Mapping[str, str] = field(default_factory=dict)
    mix_name: str = ""
    seed: str = ""
    where: Mapping[str, tuple[str | float, ...]] = field(default_factory=dict)
    validation: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    units: Mapping[str, float] = field(default_factory=dict)
    splits: Mapping[str, Split] = field(default_factory=dict)
    categories: Mapping[str, str] = field(default_factory=dict)
    sets: tuple[str, ...] = ()
    perplexity: tuple[str, ...] = ()
    purpose: str = ""
    join: Join | None = None
    checkpoints: str = ""
    best_of: tuple[str, ...] = ()
    near_copies: str = ""

    def __post_init__(self) -> None:
        _check_splits(self)
        for name in (*self.skills, *(aggregate for aggregate in self.validation if aggregate != AGGREGATE)):
            check_skill_name(name)
        for what, names in (
            ("a category", self.mix),
            ("a convention", self.n_params),
            ("an aggregate", self.validation),
        ):
            for name in names:
                check_name(name, what)
        for name, weights in self.validation.items():
            _check_aggregate(name, weights, tuple(self.skills))
        for name, unit in self.units.items():
            if name not in (*_NUMBERS, "skills", *self.skills):
                advice = did_you_mean(name, (*_NUMBERS, *self.skills))
                raise InputError(f"units has {name!r}{advice}. It takes {', '.join(_NUMBERS)}, skills, or one skill.")
            if not (math.isfinite(unit) and unit > 0):
                raise InputError(f"the unit of {name} must be a number above 0, as in 1e6, but it is {unit}")
        for name in self.perplexity:
            if self.unit("skills", name) != 1:
                raise InputError(f"{name} is a perplexity, which has no unit. Remove it from units or from perplexity.")

    def key_columns(self) -> list[tuple[str, str]]:
        """Return each column with the key that names it."""
        pairs = [(f"n_params.{name}".rstrip("."), column) for name, column in self.n_params.items()]
        pairs += [("n_tokens", self.n_tokens), ("flops", self.flops), ("budget", self.budget), ("seed", self.seed)]
        pairs += [("purpose", self.purpose)]
        pairs += [("run", column) for column in self.run]
        pairs += [("mix", self.mix_name), *((f"mix.{name}", column) for name, column in self.mix.items())]
        pairs += [(f"skills.{name}", column.loss) for name, column in self.skills.items()]
        pairs += [(f"skills.{name}.sem", column.sem) for name, column in self.skills.items()]
        pairs += [("where", column) for column in self.where]
        pairs += [("best_of", column) for column in self.best_of]
        return [(key, column) for key, column in pairs if column]

    def size_column(self, convention: str = "") -> str:
        """Return the column of N under a convention, the first if it is empty.

        Raises:
            InputError: there is no such convention.
        """
        if not convention:
            return next(iter(self.n_params.values()), "")
        if convention not in self.n_params:
            there = ", ".join(name for name in self.n_params if name) or "only the one column that n_params names"
            raise InputError(
                f"n_params has no convention {convention!r}{did_you_mean(convention, self.n_params)}. It has {there}."
            )
        return self.n_params[convention]

    def declares_loss(self, skill: str) -> bool:
        """Return whether ``units`` says that the column of a skill holds losses, whatever its name and values."""
        return "skills" in self.units or skill in self.units

    def unit(self, key: str, skill: str = "") -> float:
        """Return the factor of a column."""
        return self.units.get(skill, 1.0) * self.units.get(key, 1.0) if skill else self.units.get(key, 1.0)


def read_columns(path: Path | str) -> ColumnMap:
    """Return the column map of a YAML file.

    Raises:
        InputError: the file is not YAML, has unknown keys, or values that name no column.
    """
    return parse_columns(read_yaml(Path(path)), place=str(path))


def parse_columns(raw: Mapping[str, Any], *, place: str = "the column map") -> ColumnMap:
    """Return the column map of plain values.

    Args:
        raw: values as in ``{"n_params": "params", "n_tokens": "tokens", "skills": {"code": "loss_code"}}``; see
            docs/guide/reference/columns.md.
        place: name of the file in messages.

    Raises:
        InputError: unknown keys, or values that name no column.
    """
    unknown = [f"{show(key)}{did_you_mean(str(key), KEYS)}" for key in raw if key not in KEYS]
    if unknown:
        raise InputError(f"{place} has unknown keys: {', '.join(unknown)}. It takes {', '.join(KEYS)}.")
    _check_required(raw, place)
    mix = raw.get("mix") or {}
    shares = _columns_by_name("mix", mix) if isinstance(mix, Mapping) else {}
    return ColumnMap(
        n_params=_columns_by_name("n_params", raw["n_params"]) if raw.get("n_params") else {},
        n_tokens=_column("n_tokens", raw.get("n_tokens") or ""),
        skills=_skills(raw["skills"]),
        flops=_column("flops", raw.get("flops", "")),
        budget=_column("budget", raw.get("budget", "")),
        run=tuple(_column("run", name) for name in _as_list(raw.get("run"))),
        mix=shares,
        mix_name="" if shares else _column("mix", mix or ""),
        seed=_column("seed", raw.get("seed", "")),
        where={_column("where", key): _values(key, value) for key, value in _mapping("where", raw).items()},
        validation={str(key): _weights(str(key), value) for key, value in _mapping("validation", raw).items()},
        units={str(key): _unit(str(key), value) for key, value in _mapping("units", raw).items()},
        splits={str(key): _split(str(key), value) for key, value in _mapping("splits", raw).items()},
        categories={str(key): _column("categories", value) for key, value in _mapping("categories", raw).items()},
        sets=tuple(_column("sets", name) for name in _as_list(raw.get("sets"))),
        perplexity=tuple(_column("perplexity", name) for name in _as_list(raw.get("perplexity"))),
        purpose=_column("purpose", raw.get("purpose", "")),
        join=_join(raw.get("join")),
        checkpoints=_choice("checkpoints", raw.get("checkpoints"), ("last", "all")),
        near_copies=_choice("near_copies", raw.get("near_copies"), ("keep",)),
        best_of=tuple(_column("best_of", name) for name in _as_list(raw.get("best_of"))),
    )


def _check_required(raw: Mapping[str, Any], place: str) -> None:
    """Refuse a column map without skills, or with fewer than two of N, D and C."""
    sizes = [key for key in ("n_params", "n_tokens") if raw.get(key)]
    absent = [key for key in ("n_params", "n_tokens") if key not in sizes] if not sizes else []
    if len(sizes) == 1 and not (raw.get("flops") or raw.get("budget")):
        absent = ["n_tokens" if sizes == ["n_params"] else "n_params"]
    absent += [key for key in ("skills",) if not raw.get(key)]
    if absent:
        example = {"n_params": "params", "n_tokens": "tokens", "skills": "{code: loss_code}"}[absent[0]]
        raise InputError(
            f"{place} must name the columns of {', '.join(absent)}, as in {absent[0]}: {example}. It needs skills and "
            f"{_TWO_OF_THREE}."
        )


def _check_splits(columns: "ColumnMap") -> None:
    """Refuse a split or set that names no skill, or a skill that has a split."""
    skills = tuple(columns.skills)
    references = [
        (f"splits.{skill}", name) for skill, split in columns.splits.items() for name in (skill, *split.names)
    ]
    references += [(key, name) for key in ("sets", "perplexity") for name in getattr(columns, key)]
    references += [("categories", name) for name in columns.categories]
    for key, name in references:
        if name not in skills:
            raise InputError(
                f"{key} names no skill: {name!r}{did_you_mean(name, skills)}. There are {join_first(skills)}."
            )
    parts = [*columns.sets, *(name for split in columns.splits.values() for name in split.names)]
    for name in columns.splits:
        if name in parts:
            raise InputError(
                f"{name} has a split, and is also part of another split or a validation set. Choose one of these."
            )


def _split(skill: str, value: Any) -> Split:
    keys = ("held_out", "hypothesis_sets", "held_out_sets")
    if not isinstance(value, Mapping) or not value or set(value) - set(keys):
        raise InputError(
            f"splits.{skill} must name its held-out column, as in {{held_out: {skill}_test}}, or its hypothesis_sets "
            f"and held_out_sets, but it is {show(value)}"
        )
    sets = {key: tuple(_column(key, name) for name in _as_list(value.get(key))) for key in keys[1:]}
    return Split(held_out=_column("held_out", value.get("held_out", "")), **sets)


def _check_aggregate(name: str, weights: Mapping[str, float], skills: tuple[str, ...]) -> None:
    if name in skills:
        raise InputError(f"validation {name!r} is also the name of a skill. Choose another name.")
    for skill in weights:
        if skill not in skills:
            raise InputError(
                f"validation {name} names no skill: {skill!r}{did_you_mean(skill, skills)}. There are "
                f"{join_first(skills)}."
            )
    if not weights or min(weights.values()) < 0 or not 0 < math.fsum(weights.values()) < math.inf:
        raise InputError(f"validation {name} must have weights from 0, not all 0, but it is {show(dict(weights))}")


def _weights(name: str, value: Any) -> dict[str, float]:
    """Return weights that sum to 1, so that an aggregate is a mean loss."""
    if not isinstance(value, Mapping) or not value:
        raise InputError(f"validation {name} must weigh skills, as in {{code: 1, prose: 2}}, but it is {show(value)}")
    weights = {str(skill): _number(f"validation {name}", skill, weight) for skill, weight in value.items()}
    total = math.fsum(weights.values())
    if not total > 0 or is_one(total, len(weights)):
        return weights
    return {skill: weight / total for skill, weight in weights.items()}


def is_one(total: float, count: int) -> bool:
    """Return whether a sum of shares is 1 up to rounding. Dividing by it again would change the last digits."""
    return abs(total - 1) <= count * _ROUNDING


def _skills(value: Any) -> dict[str, LossColumns]:
    if isinstance(value, list):
        names = [_column("skills", name) for name in value]
        return {name: LossColumns(loss=name) for name in names}
    if not isinstance(value, Mapping):
        name = _column("skills", value)
        return {name: LossColumns(loss=name)}
    return {str(name): _skill(str(name), columns) for name, columns in value.items()}


def _skill(name: str, value: Any) -> LossColumns:
    if not isinstance(value, Mapping):
        return LossColumns(loss=_column(f"skills.{name}", value))
    unknown = [f"{show(key)}{did_you_mean(str(key), ('loss', 'sem'))}" for key in value if key not in ("loss", "sem")]
    if unknown or "loss" not in value:
        raise InputError(f"skill {name} takes the columns loss and sem, but has {', '.join(unknown) or 'no loss'}")
    return LossColumns(
        loss=_column(f"skills.{name}.loss", value["loss"]), sem=_column(f"skills.{name}.sem", value.get("sem", ""))
    )


def _columns_by_name(key: str, value: Any) -> dict[str, str]:
    if isinstance(value, Mapping):
        return {str(name): _column(f"{key}.{name}", column) for name, column in value.items()}
    if isinstance(value, list):
        return {_column(key, name): _column(key, name) for name in value}
    return {"": _column(key, value)}


def _column(key: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(
            f"{key} must name a column, but it is {show(value)}. Write its name, in quotes if YAML misreads it."
        )
    return str(value)


def _choice(key: str, value: Any, choices: tuple[str, ...]) -> str:
    if value in (None, ""):
        return ""
    if value not in choices:
        raise InputError(f"{key} must be {' or '.join(choices)}, but it is {show(value)}. Correct the column map.")
    return str(value)


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _mapping(key: str, raw: Mapping[str, Any]) -> Mapping[Any, Any]:
    value = raw.get(key) or {}
    if not isinstance(value, Mapping):
        example = {
            "where": "{final: 1}", "units": "{n_params: 1e6}", "validation": "{all: {code: 1, prose: 1}}",
            "splits": "{code: {held_out: code_test}}", "categories": "{code: github}",
        }[key]  # fmt: skip
        raise InputError(f"{key} must map names to values, as in {key}: {example}, but it is {show(value)}")
    return value


def _join(value: Any) -> Join | None:
    if value is None:
        return None
    if not isinstance(value, Mapping) or set(value) != {"file", "by"} or not value["by"]:
        raise InputError(
            "join must name a file in the folder of the table and a column of both, as in join: {file: sizes.csv, by: "
            f"model}}, or {{file: runs.csv, by: {{file: Name}}}} for different names, but it is {show(value)}"
        )
    by = _columns_by_name("join.by", value["by"] if isinstance(value["by"], Mapping | list) else [value["by"]])
    return Join(file=_column("join.file", value["file"]), by=by)


def _unit(key: str, value: Any) -> float:
    """Return the factor of a column. ``bits`` converts a loss to nats."""
    if value == _BITS and key not in _NUMBERS:
        return math.log(2)
    return _number("units", key, value)


def _values(key: Any, value: Any) -> tuple[str | float, ...]:
    values = _as_list(value)
    if not values or any(isinstance(item, dict | list) for item in values):
        raise InputError(f"where.{key} must be a value or a list of values, but it is {show(value)}")
    return tuple(str(item) if isinstance(item, bool) or not isinstance(item, int | float) else item for item in values)


def _number(key: str, name: Any, value: Any) -> float:
    # YAML 1.1 reads 1e6 as text
    number = as_number(value) if isinstance(value, str | float | int) and not isinstance(value, bool) else None
    if number is None:
        raise InputError(f"{key} of {name} must be a number, as in 1e6, but it is {show(value)}")
    return number


def as_number(value: str | float) -> float | None:
    """Return a number or the number in a text, None if it has none."""
    try:
        return float(value)
    except ValueError:
        return None
