"""Read settings: files of ``conf/`` and of the user's folder, overrides over them, checks of every key and value.

Each noun has one file, and each default one home: that file. A setting is overridden by ``--NOUN.key value`` on the
command line or ``-P NOUN.key=value`` through MLflow. A file of the same name in the folder that ``SKILLSCALE_CONF``
names replaces a whole file.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from skillscale.config.safe_yaml import load_yaml, read_yaml_file
from skillscale.config.schema import (
    NOUNS,
    Config,
    DataConfig,
    LawConfig,
    ModelConfig,
    SampleConfig,
    SkillsConfig,
    StudyConfig,
    TrainConfig,
)
from skillscale.errors import InputError, show
from skillscale.formatting import did_you_mean, to_plain

_T = TypeVar("_T")


def conf_folder() -> Path:
    """Return the shipped ``conf``: next to the source in a checkout, inside the package when installed."""
    package = Path(__file__).parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parents[1] / "conf"


def conf_folders() -> tuple[Path, ...]:
    """Where files of settings are looked for: the user's own folder (``SKILLSCALE_CONF``), then the shipped one.

    Raises:
        InputError: SKILLSCALE_CONF names no folder.
    """
    user_folder = os.environ.get("SKILLSCALE_CONF")
    if not user_folder:
        return (conf_folder(),)
    folder = Path(user_folder).expanduser()
    if not folder.is_dir():
        raise InputError(
            f"SKILLSCALE_CONF must name a folder of settings laid out as conf/ is, but it is {user_folder!r}"
        )
    return folder, conf_folder()


def conf_file(noun: str, name: str) -> Path:
    """Return the YAML file of a noun: a path, or ``NOUN.yaml`` or ``NOUN/NAME.yaml`` in the first folder that has it.

    Raises:
        InputError: there is none.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise InputError(f"{noun} file {name} does not exist. Give a YAML file, or one of {_names_text(noun)}.")
        return path
    for folder in conf_folders():
        path = folder / noun / f"{name}.yaml" if name else folder / f"{noun}.yaml"
        if path.is_file():
            return path
    raise InputError(f"there is no {noun} named {name!r}. Give a YAML file, or one of {_names_text(noun)}.")


def conf_names(noun: str) -> tuple[str, ...]:
    """Names of the files that a noun can be chosen from, as in ``--study NAME``."""
    return tuple(sorted({path.stem for folder in conf_folders() for path in (folder / noun).glob("*.yaml")}))


def is_shipped(noun: str, name: str) -> bool:
    """Whether a name is a YAML file, or that of one in the folders of settings."""
    return name.endswith((".yaml", ".yml")) or name in conf_names(noun)


def _names_text(noun: str) -> str:
    return ", ".join(conf_names(noun)) or f"{noun}.yaml"


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        InputError: unreadable, not UTF-8, not YAML, or no mapping.
    """
    loaded = read_yaml_file(path)
    if not isinstance(loaded, dict):
        raise InputError(f"{path} must hold a mapping of keys to values, but holds {type(loaded).__name__}")
    return loaded


def load(
    *,
    data: str = "",
    skills: str = "",
    study: str = "main",
    overrides: Mapping[str, Any] | None = None,
) -> Config:
    """Read the files, lay the overrides over them, check everything.

    Args:
        data: a shipped name or a path to a YAML file; empty: the study's own.
        skills: likewise.
        study: a shipped name or a path to a YAML file.
        overrides: Values by dotted name, as in ``{"train.lr_coefficient": "0.3"}``; texts are read as YAML.

    Raises:
        InputError: a file, key or value that can't be used, with the cure.
    """
    of_study = read_yaml(conf_file("study", study))
    names = {"study": study} | {
        noun: given or str(of_study.get(noun, "embedded")) for noun, given in (("data", data), ("skills", skills))
    }
    raw = {noun: read_yaml(conf_file(noun, names.get(noun, ""))) for noun in NOUNS}
    for dotted, value in (overrides or {}).items():
        _override(raw, dotted, value)
    return replace(resolve(raw), overrides=_texts(overrides or {}))


def overridden(config: Config, overrides: Mapping[str, Any]) -> Config:
    """Return settings with overrides over them, as ``load`` applies them to the files.

    Raises:
        InputError: a key or value that can't be used.
    """
    raw = config.as_dict()
    for dotted, value in overrides.items():
        _override(raw, dotted, value)
    return replace(resolve(raw), overrides=_texts(overrides))


def _texts(overrides: Mapping[str, Any]) -> dict[str, str]:
    return {name: value if isinstance(value, str) else json.dumps(to_plain(value)) for name, value in overrides.items()}


def resolve(raw: Mapping[str, Any]) -> Config:
    """Return checked values from plain ones; the inverse of ``Config.as_dict``.

    Raises:
        InputError: an unknown key or a bad value.
    """
    unknown = sorted(set(raw) - set(NOUNS))
    if unknown:
        raise InputError(f"unknown settings {', '.join(unknown)}. There are {', '.join(NOUNS)}.")
    return Config(
        data=_check(DataConfig, "data", raw["data"]),
        skills=_check(SkillsConfig, "skills", raw["skills"]),
        model=_check(ModelConfig, "model", raw["model"]),
        train=_check(TrainConfig, "train", raw["train"]),
        study=_check(StudyConfig, "study", raw["study"]),
        sample=_check(SampleConfig, "sample", raw["sample"]),
        laws=_check(LawConfig, "laws", raw["laws"]),
    )


def _override(raw: dict[str, dict[str, Any]], dotted: str, value: Any) -> None:
    noun, dot, key = dotted.partition(".")
    if noun not in raw or not dot:
        raise InputError(
            f"unknown setting {dotted!r}. Settings read NOUN.key, with the nouns "
            f"{', '.join(NOUNS)}{did_you_mean(noun, NOUNS)}."
        )
    target: Any = raw[noun]
    *path, last = key.split(".")
    for part in path:
        target = target.get(part) if isinstance(target, dict) else None
        if not isinstance(target, dict):
            raise InputError(f"unknown setting {dotted!r}: {part!r} holds no keys in {noun}")
    try:
        target[last] = load_yaml(value) if isinstance(value, str) else to_plain(value)
    except InputError as error:
        raise InputError(f"{dotted} cannot be read: {show(value)} is no YAML value ({error}). Quote it.") from error


def _check(kind: type[_T], noun: str, raw: Any) -> _T:
    try:
        return TypeAdapter(kind).validate_python(raw)
    except ValidationError as error:
        names = [key.name for key in fields(kind)]  # type: ignore[arg-type]
        problems = "; ".join(_problem(noun, problem, names) for problem in error.errors()[:5])
        raise InputError(problems) from error


def _problem(noun: str, problem: Any, names: list[str]) -> str:
    place = ".".join([noun, *map(str, problem["loc"])])
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        name = str(problem["loc"][-1])
        choices = f"; {noun} has {', '.join(names)}" if len(problem["loc"]) == 1 else ""
        return f"unknown setting {place}{did_you_mean(name, names)}{choices}"
    if problem["type"] in ("missing", "missing_argument"):
        return f"{place} is missing; give it in the file or as --{place} VALUE"
    if problem["type"] == "literal_error":
        words = [str(word) for word in re.findall(r"'([^']*)'", problem["ctx"]["expected"])]
        near = did_you_mean(str(problem["input"]), words)
        return f"{place} must be one of {', '.join(words)}, but it is {show(problem['input'])}{near}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return message
    return f"{place}: {message[0].lower()}{message[1:]}, but it is {show(problem['input'])}"
