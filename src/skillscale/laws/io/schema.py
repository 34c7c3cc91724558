"""The schema of a law document: what may stand in a law.json that somebody else wrote, with limits.

``parse`` reads the text, ``check_document`` the plain values. Both refuse with one line that names the place.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from skillscale.errors import InputError, name_fault, show
from skillscale.laws.results import Status

MAX_BYTES = 200 * 2**20  # a skill takes about 50 kB, and 10 bytes more for each run
_DEPTH = 12  # of lists and objects within one another; a document has 7
_DIGITS = 300  # of an integer: no float holds more

_Name = Annotated[str, Field(max_length=1_000)]
_Text = Annotated[str, Field(max_length=10_000)]
_Log = Annotated[float, Field(ge=-1e4, le=1e4)]
_Row = Annotated[list[float], Field(min_length=1, max_length=10_000)]
_Positive = Annotated[float, Field(gt=0, le=1e60)]
_Share = Annotated[float, Field(ge=0, le=1 + 1e-6)]
_Shares = Annotated[list[_Share], Field(min_length=1, max_length=1_000)]
_LEAST_WEIGHT = 1e-3  # of all laws of a skill together, which is 1 but for rounding
_Categories = Annotated[list[_Name], Field(max_length=1_000)]


class _Part(BaseModel):
    """Base of all parts: no conversion of types, finite numbers alone; keys of later versions are passed over."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="ignore", frozen=True)


class EffectsPart(_Part):
    """Offsets of ln L by mix."""

    categories: _Categories
    mixes: Annotated[list[_Row], Field(max_length=100_000)]
    offsets: Annotated[list[_Log], Field(alias="ln L")]


class InformationPart(_Part):
    """Covariance of the log-parameters, from the priors and from the errors of the runs."""

    prior: Annotated[list[_Row], Field(min_length=1, max_length=10_000)]
    data: Annotated[list[_Row], Field(min_length=1, max_length=10_000)]
    confounded: bool = False


class LawPart(_Part):
    """One law. ``skill_category`` and others as in ``SavedLaw``."""

    law: _Name
    x0: Annotated[float, Field(ge=-100, le=100)]
    y0: Annotated[float, Field(ge=-100, le=100)]
    categories: _Categories
    skill_category: Annotated[_Name, Field(alias="own")]
    theta: dict[_Name, float]
    draws: Annotated[list[Annotated[list[_Log], Field(max_length=10_000)]], Field(min_length=1, max_length=100_000)]
    level: Annotated[float, Field(gt=0, lt=1)]
    noise: Annotated[float, Field(ge=0, le=100)]
    status: Annotated[Status, Field(strict=False)]
    reason: _Text
    objective: _Text
    n_runs: Annotated[int, Field(ge=0, le=10**12)]
    runs: list[_Name]
    digest: _Name
    reach: Annotated[list[_Positive], Field(min_length=2, max_length=2)]
    mix: dict[_Name, _Share]
    weight: _Share = 1.0
    sizes: Annotated[list[_Positive | None], Field(min_length=2, max_length=2)] | None = None
    tokens: Annotated[list[_Positive | None], Field(min_length=2, max_length=2)] | None = None
    shares: Annotated[list[Annotated[list[_Share], Field(min_length=1)]], Field(min_length=2, max_length=2)] | None = (
        None
    )
    effects: EffectsPart | None = None
    information: InformationPart | None = None


class SkillPart(LawPart):
    """The law of a skill, with the laws that predict about equally well."""

    setting: _Text = ""
    rivals: Annotated[list[LawPart], Field(max_length=100)] | None = None
    warnings: Annotated[list[_Text], Field(max_length=1_000)] | None = None


class DocumentPart(_Part):
    """A whole document."""

    convention: _Name = ""
    aggregates: Annotated[list[_Name], Field(max_length=10_000)] | None = None
    mixes: dict[_Name, _Name] | None = None
    skills: Annotated[dict[_Name, SkillPart], Field(max_length=10_000)]


def parse(text: str | bytes, source: str) -> Any:
    """Return the plain values of a document's JSON text.

    Raises:
        InputError: it is too large, nested too deeply or no JSON, or has a key twice or numbers that are not finite.
    """
    if len(text) > MAX_BYTES:
        raise InputError(
            f"{source} is larger than the {MAX_BYTES // 2**20} MB of a law.json. Fit fewer skills at once."
        )
    try:
        values = json.loads(text, object_pairs_hook=_unique, parse_int=_integer, parse_constant=_refuse_constant)
        _check_depth(values)
    except RecursionError as error:
        raise InputError(f"{source} is nested too deeply for a law.json. Fit the runs again.") from error
    except ValueError as error:
        raise InputError(f"{source} is no JSON ({show(error)}). It takes a law.json as `fit` writes it.") from error
    return values


def check_document(document: object, source: str, schema: int) -> DocumentPart:
    """Return the parts of a document of this schema, each with its type and within its limits.

    Raises:
        InputError: another schema, or a part that is missing or wrong.
    """
    if not isinstance(document, Mapping):
        raise InputError(f"{source} is no law.json: it holds {show(document)}, not an object. Fit the runs again.")
    if type(document.get("schema")) is not int or document["schema"] != schema:
        version = document.get("schema")
        newer = isinstance(version, int) and version > schema
        cure = "Update skillscale" if newer else "Fit the runs again with `skillscale fit` and register the result"
        raise InputError(
            f"{source} holds laws of schema {show(version)}, but this version reads schema {schema}. {cure}."
        )
    try:
        part = DocumentPart.model_validate({"skills": {}} | dict(document))
    except (ValidationError, RecursionError) as error:
        raise damaged(source, *_problem(error)) from error
    for what, name in _names(part):
        if fault := name_fault(name):
            raise damaged(source, what, fault)
    for skill, law in part.skills.items():
        if not law.weight + sum(rival.weight for rival in law.rivals or ()) >= _LEAST_WEIGHT:
            raise damaged(source, f"{show_part(skill)}.weight", "is 0, and so are those of its rivals")
    return part


def damaged(source: str, place: str, problem: str) -> InputError:
    """Return the error on a part of a document."""
    return InputError(f"{source} is damaged: {place} {problem}. Fit the runs again.")


def _problem(error: ValidationError | RecursionError) -> tuple[str, str]:
    if isinstance(error, RecursionError):
        return "it", "is nested too deeply"
    first = error.errors(include_url=False)[0]
    place = first["loc"][1:] if len(first["loc"]) > 1 and first["loc"][0] == "skills" else first["loc"]
    *path, last = ("it", *place)
    if first["type"] == "missing":
        return ".".join(map(show_part, path[1:])) or "it", f"lacks {show(last)}"
    if first["type"] in ("model_type", "dict_type"):
        message = "It should be an object"
    else:
        message = str(first["msg"]).replace("Input", "It")
    return ".".join(map(show_part, [*path[1:], last])), f"is {show(first['input'])}. {message}"


def show_part(part: object) -> str:
    """Return a part of a place in a document as it may be shown."""
    return show(part).strip("'\"")


def _names(part: DocumentPart) -> Sequence[tuple[str, str]]:
    """Return every name of a document with its place."""
    names = [("the convention", part.convention)]
    names += [("the name of an aggregate", name) for name in part.aggregates or ()]
    names += [("a name among mixes", name) for pair in (part.mixes or {}).items() for name in pair]
    for skill, law in part.skills.items():
        names.append(("the name of a skill", skill))
        for entry in (law, *(law.rivals or ())):
            texts = (*entry.categories, entry.skill_category, *entry.mix)
            names += [(f"a name in {show_part(skill)}", name) for name in texts]
    return names


def _check_depth(values: object) -> None:
    """Raise ``RecursionError`` for lists and objects within one another beyond all that a document has."""
    inner: list[Any] = [values] if isinstance(values, dict | list) else []
    for _ in range(_DEPTH):
        inner = [part for outer in inner for part in (outer.values() if isinstance(outer, dict) else outer)
                 if isinstance(part, dict | list)]  # fmt: skip
        if not inner:
            return
    raise RecursionError


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {show(twice)} is there twice")
    return values


def _integer(text: str) -> int | float:
    return int(text) if len(text) <= _DIGITS else math.inf


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")
