"""Which column of a table is what: read from a small YAML, unknown keys refused with the nearest known one."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skillscale.config import read_yaml
from skillscale.errors import InputError
from skillscale.formatting import did_you_mean, join_first
from skillscale.point import AGGREGATE, check_skill_name

KEYS = (
    "n_params", "n_tokens", "flops", "budget", "run", "mix", "skills", "seed", "where", "validation", "units", "splits",
    "categories", "sets", "perplexity", "purpose", "join",
)  # fmt: skip
REQUIRED = ("n_params", "n_tokens", "skills")
_NUMBERS = ("n_params", "n_tokens", "flops", "budget", "mix")
_SHOWN = 8
_BITS = "bits"  # as a unit: of a loss in bits, which becomes one in nats
_ROUNDING = 2.0**-52  # of each number in a sum of shares or weights


@dataclass(frozen=True, kw_only=True)
class LossColumns:
    """The columns of a skill: its loss (nats per token), and the loss's standard error where there is one."""

    loss: str
    sem: str = ""


@dataclass(frozen=True, kw_only=True)
class Split:
    """A skill's other columns, by their names among the skills.

    ``held_out``: the mean over the split that confirms; ``hypothesis_sets``, ``held_out_sets``: the data sets of both.
    """

    held_out: str
    hypothesis_sets: tuple[str, ...] = ()
    held_out_sets: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(filter(None, (self.held_out, *self.hypothesis_sets, *self.held_out_sets)))


@dataclass(frozen=True, kw_only=True)
class Join:
    """Another file beside the table, whose columns are added to the rows that agree with one of its own.

    ``by``: columns of the table by which to find the row, each with the column of the other file that it must equal.
    """

    file: str
    by: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class ColumnMap:
    """Which column of a table is what. Empty: the table has none.

    ``n_params`` by convention of N, the first by default (one column alone has the convention ""); ``mix`` by category,
    or ``mix_name``: a column of names of data sets; ``run``: rows that share these are checkpoints of one run;
    ``where``: the values that a row must have; ``validation``: weights of skills, by aggregate; ``units``: what a
    column is multiplied by, by key or by skill; ``splits``: by skill, which others are its held-out split and its data
    sets, and ``sets``: those that are validation sets, so that neither are judged as skills; ``categories``: the mix's
    category that belongs to a skill; ``perplexity``: skills whose column holds exp(loss); ``purpose``: a column with
    text in the rows that a sampler chose, which stand at no isoFLOP budget; ``join``: another file with more columns.

    Raises:
        InputError: names that clash, an aggregate of skills that are not there, a unit of nothing.
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

    def __post_init__(self) -> None:
        _check_splits(self)
        for name in (*self.skills, *(one for one in self.validation if one != AGGREGATE)):
            check_skill_name(name)
        for name, weights in self.validation.items():
            _check_aggregate(name, weights, tuple(self.skills))
        for name, unit in self.units.items():
            if name not in (*_NUMBERS, "skills", *self.skills):
                advice = did_you_mean(name, (*_NUMBERS, *self.skills))
                raise InputError(f"units has {name!r}{advice}; it takes {', '.join(_NUMBERS)}, skills, or one skill")
            if not (math.isfinite(unit) and unit > 0):
                raise InputError(f"the unit of {name} must be a number above 0, as in 1e6, but it is {unit}")
        for name in self.perplexity:
            if self.unit("skills", name) != 1:
                raise InputError(f"{name} is a perplexity, which has no unit; leave it out of units, or of perplexity")

    def key_columns(self) -> list[tuple[str, str]]:
        """Every column with the key that names it."""
        pairs = [(f"n_params.{name}".rstrip("."), column) for name, column in self.n_params.items()]
        pairs += [("n_tokens", self.n_tokens), ("flops", self.flops), ("budget", self.budget), ("seed", self.seed)]
        pairs += [("purpose", self.purpose)]
        pairs += [("run", column) for column in self.run]
        pairs += [("mix", self.mix_name), *((f"mix.{name}", column) for name, column in self.mix.items())]
        pairs += [(f"skills.{name}", column.loss) for name, column in self.skills.items()]
        pairs += [(f"skills.{name}.sem", column.sem) for name, column in self.skills.items()]
        pairs += [("where", column) for column in self.where]
        return [(key, column) for key, column in pairs if column]

    def size_column(self, convention: str = "") -> str:
        """The column of N under a convention; empty: the first.

        Raises:
            InputError: there is no such convention.
        """
        if not convention:
            return next(iter(self.n_params.values()))
        if convention not in self.n_params:
            there = ", ".join(name for name in self.n_params if name) or "only the one column that n_params names"
            raise InputError(
                f"n_params has no convention {convention!r}{did_you_mean(convention, self.n_params)}; it has {there}"
            )
        return self.n_params[convention]

    def unit(self, key: str, skill: str = "") -> float:
        """What a column is multiplied by."""
        return self.units.get(skill, 1.0) * self.units.get(key, 1.0) if skill else self.units.get(key, 1.0)


def read_columns(path: Path | str) -> ColumnMap:
    """The mapping of a table's columns, from a YAML file.

    Raises:
        InputError: no YAML, unknown keys, or values that name no column.
    """
    return parse_columns(read_yaml(Path(path)), place=str(path))


def parse_columns(raw: Mapping[str, Any], *, place: str = "the mapping of columns") -> ColumnMap:
    """The mapping of a table's columns, from plain values as a YAML file holds them.

    Args:
        raw: ``{"n_params": "params", "n_tokens": "tokens", "skills": {"code": "loss_code"}, ...}``; see docs/guide/howto/own-runs.md.
        place: where the values come from, for messages.

    Raises:
        InputError: unknown keys, or values that name no column.
    """
    unknown = [f"{key!r}{did_you_mean(str(key), KEYS)}" for key in raw if key not in KEYS]
    if unknown:
        raise InputError(f"{place} has unknown keys: {', '.join(unknown)}; it takes {', '.join(KEYS)}")
    absent = [key for key in REQUIRED if not raw.get(key)]
    if absent:
        raise InputError(f"{place} must name the columns of {', '.join(absent)}, as in n_params: params")
    mix = raw.get("mix") or {}
    shares = _columns_by_name("mix", mix) if isinstance(mix, Mapping) else {}
    return ColumnMap(
        n_params=_columns_by_name("n_params", raw["n_params"]),
        n_tokens=_column("n_tokens", raw["n_tokens"]),
        skills=_skills(raw["skills"]),
        flops=_column("flops", raw.get("flops", "")),
        budget=_column("budget", raw.get("budget", "")),
        run=tuple(_column("run", one) for one in _listed(raw.get("run"))),
        mix=shares,
        mix_name="" if shares else _column("mix", mix or ""),
        seed=_column("seed", raw.get("seed", "")),
        where={_column("where", key): _values(key, value) for key, value in _mapping("where", raw).items()},
        validation={str(key): _weights(str(key), value) for key, value in _mapping("validation", raw).items()},
        units={str(key): _unit(str(key), value) for key, value in _mapping("units", raw).items()},
        splits={str(key): _split(str(key), value) for key, value in _mapping("splits", raw).items()},
        categories={str(key): _column("categories", value) for key, value in _mapping("categories", raw).items()},
        sets=tuple(_column("sets", one) for one in _listed(raw.get("sets"))),
        perplexity=tuple(_column("perplexity", one) for one in _listed(raw.get("perplexity"))),
        purpose=_column("purpose", raw.get("purpose", "")),
        join=_join(raw.get("join")),
    )


def _check_splits(columns: "ColumnMap") -> None:
    """Refuse a split or a set that names no skill, or names one to be judged."""
    known = tuple(columns.skills)
    named = [(f"splits.{skill}", name) for skill, one in columns.splits.items() for name in (skill, *one.names)]
    named += [(key, name) for key in ("sets", "perplexity") for name in getattr(columns, key)]
    named += [("categories", name) for name in columns.categories]
    for key, name in named:
        if name not in known:
            raise InputError(
                f"{key} names no skill: {name!r}{did_you_mean(name, known)}; there are {join_first(known)}"
            )
    parts = [*columns.sets, *(name for one in columns.splits.values() for name in one.names)]
    for name in columns.splits:
        if name in parts:
            raise InputError(
                f"{name} has a split of its own, and is part of another or a validation set; it is one or the other"
            )


def _split(skill: str, value: Any) -> Split:
    keys = ("held_out", "hypothesis_sets", "held_out_sets")
    if not isinstance(value, Mapping) or not value or set(value) - set(keys):
        raise InputError(
            f"splits.{skill} must name its held-out column, as in {{held_out: {skill}_test}}, or its hypothesis_sets "
            f"and held_out_sets, but it is {value!r}"
        )
    sets = {key: tuple(_column(key, one) for one in _listed(value.get(key))) for key in keys[1:]}
    return Split(held_out=_column("held_out", value.get("held_out", "")), **sets)


def _check_aggregate(name: str, weights: Mapping[str, float], skills: tuple[str, ...]) -> None:
    if name in skills:
        raise InputError(f"validation {name!r} is the name of a skill as well; give it another")
    for skill in weights:
        if skill not in skills:
            raise InputError(
                f"validation {name} names no skill: {skill!r}{did_you_mean(skill, skills)}; there are {join_first(skills)}"
            )
    if not weights or min(weights.values()) < 0 or not 0 < math.fsum(weights.values()) < math.inf:
        raise InputError(f"validation {name} must have weights from 0, not all 0, but it is {dict(weights)}")


def _weights(name: str, value: Any) -> dict[str, float]:
    """Weights that sum to 1, so that an aggregate is a loss as well."""
    if not isinstance(value, Mapping) or not value:
        raise InputError(f"validation {name} must weigh skills, as in {{code: 1, prose: 2}}, but it is {value!r}")
    weights = {str(skill): _number(f"validation {name}", skill, weight) for skill, weight in value.items()}
    total = math.fsum(weights.values())
    if not total > 0 or is_one(total, len(weights)):
        return weights
    return {skill: weight / total for skill, weight in weights.items()}


def is_one(total: float, count: int) -> bool:
    """Whether a sum of shares misses 1 by rounding alone: to divide by it again would change their last digits."""
    return abs(total - 1) <= count * _ROUNDING


def _skills(value: Any) -> dict[str, LossColumns]:
    if isinstance(value, list):
        names = [_column("skills", one) for one in value]
        return {name: LossColumns(loss=name) for name in names}
    if not isinstance(value, Mapping):
        name = _column("skills", value)
        return {name: LossColumns(loss=name)}
    return {str(name): _skill(str(name), one) for name, one in value.items()}


def _skill(name: str, value: Any) -> LossColumns:
    if not isinstance(value, Mapping):
        return LossColumns(loss=_column(f"skills.{name}", value))
    unknown = [f"{key!r}{did_you_mean(str(key), ('loss', 'sem'))}" for key in value if key not in ("loss", "sem")]
    if unknown or "loss" not in value:
        raise InputError(f"skill {name} takes the columns loss and sem, but has {', '.join(unknown) or 'no loss'}")
    return LossColumns(
        loss=_column(f"skills.{name}.loss", value["loss"]), sem=_column(f"skills.{name}.sem", value.get("sem", ""))
    )


def _columns_by_name(key: str, value: Any) -> dict[str, str]:
    if isinstance(value, Mapping):
        return {str(name): _column(f"{key}.{name}", column) for name, column in value.items()}
    if isinstance(value, list):
        return {_column(key, one): _column(key, one) for one in value}
    return {"": _column(key, value)}


def _column(key: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(
            f"{key} must name a column, but it is {value!r}; write its name, in quotes if YAML misreads it"
        )
    return str(value)


def _listed(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _mapping(key: str, raw: Mapping[str, Any]) -> Mapping[Any, Any]:
    value = raw.get(key) or {}
    if not isinstance(value, Mapping):
        example = {
            "where": "{final: 1}", "units": "{n_params: 1e6}", "validation": "{all: {code: 1, prose: 1}}",
            "splits": "{code: {held_out: code_test}}", "categories": "{code: github}",
        }[key]  # fmt: skip
        raise InputError(f"{key} must map names to values, as in {key}: {example}, but it is {value!r}")
    return value


def _join(value: Any) -> Join | None:
    if value is None:
        return None
    if not isinstance(value, Mapping) or set(value) != {"file", "by"} or not value["by"]:
        raise InputError(
            "join must name a file beside the table and the column that both have, as in join: {file: sizes.csv, by: "
            f"model}}, or {{file: runs.csv, by: {{file: Name}}}} where they are named differently, but it is {value!r}"
        )
    by = _columns_by_name("join.by", value["by"] if isinstance(value["by"], Mapping | list) else [value["by"]])
    return Join(file=_column("join.file", value["file"]), by=by)


def _unit(key: str, value: Any) -> float:
    """What a column is multiplied by; ``bits`` makes nats of a loss."""
    if value == _BITS and key not in _NUMBERS:
        return math.log(2)
    return _number("units", key, value)


def _values(key: Any, value: Any) -> tuple[str | float, ...]:
    values = _listed(value)
    if not values or any(isinstance(one, dict | list) for one in values):
        raise InputError(f"where.{key} must be a value or a list of values, but it is {value!r}")
    return tuple(str(one) if isinstance(one, bool) or not isinstance(one, int | float) else one for one in values)


def _number(key: str, name: Any, value: Any) -> float:
    # YAML 1.1 reads 1e6 as text
    number = as_number(value) if isinstance(value, str | float | int) and not isinstance(value, bool) else None
    if number is None:
        raise InputError(f"{key} of {name} must be a number, as in 1e6, but it is {value!r}")
    return number


def as_number(value: str | float) -> float | None:
    """A number from a number or its text; None where it is none."""
    try:
        return float(value)
    except ValueError:
        return None
