"""The reference pages, made from what the program itself says: its entries, the settings' classes and conf/."""

import dataclasses
import inspect
import re
import sys
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from skillscale import cli, config
from skillscale.cli.command import Command

ENVIRONMENT = {
    "MLFLOW_TRACKING_URI": "the MLflow store, where `--tracking` names none",
    "SKILLSCALE_CACHE": "folder of prepared data, where `--cache` names none; without it `~/.cache/skillscale`",
    "SKILLSCALE_CONF": "folder of settings of your own, laid out as `conf/` is: its files come before the shipped ones",
    "SKILLSCALE_SOURCES": "folder with the archives of the embedded corpora, for machines without a network",
    "SKILLSCALE_QUEUE": "the queue that machines share, where `--queue` names none (docs/guide/howto/cluster.md)",
    "HF_TOKEN": "for data of the Hugging Face hub that ask for one",
}
EXIT_CODES = {
    0: "done",
    1: "something went wrong on the way; what was finished is kept, and the same command goes on",
    2: "the input can't be used; nothing was done",
    130: "stopped by Ctrl-C; the same command goes on",
    143: "stopped by SIGTERM, likewise",
}
NOUNS = {
    "study": config.StudyConfig,
    "data": config.DataConfig,
    "skills": config.SkillsConfig,
    "model": config.ModelConfig,
    "train": config.TrainConfig,
    "sample": config.SampleConfig,
    "laws": config.LawConfig,
}


def pages() -> dict[str, str]:
    """Markdown of each reference page, by its place in the site."""
    return {"guide/reference/commands.md": commands(), "guide/reference/settings.md": settings()}


def commands() -> str:
    """Every entry with its parameters, exit codes and environment variables."""
    lines = [
        "# Commands",
        "",
        "`skillscale ENTRY --name value`, `--name=value`, or `--name` alone where the value is true. The entries of",
        "`MLproject` are the same: `mlflow run . -e ENTRY -P name=value`. Any [setting](settings.md) is given as",
        "`--NOUN.key value`. `skillscale ENTRY --help` prints what this page says.",
        "",
        *(f"- [`{entry.name}`](#{entry.name}): {_text(entry.help)}" for entry in cli.COMMANDS),
        "",
    ]
    for entry in cli.COMMANDS:
        lines += [f"## {entry.name}", "", f"{_sentence(entry.help)}", "", *_parameters(entry)]
        lines += [] if entry.settings else ["It reads no settings.", ""]
        lines += ["```bash", *entry.examples, "```", ""]
    lines += [
        "## Exit codes",
        "",
        "| code | |",
        "|---|---|",
        *(f"| {code} | {says} |" for code, says in EXIT_CODES.items()),
    ]
    lines += ["", "## Environment", "", "| variable | |", "|---|---|"]
    lines += [f"| `{name}` | {says} |" for name, says in ENVIRONMENT.items()]
    return "\n".join([*lines, ""])


def settings() -> str:
    """Every key of every noun: its kind, its shipped value, and what the class and the file say of it."""
    lines = [
        "# Settings",
        "",
        "One file a noun in `conf/`; `study`, `data` and `skills` have several, chosen by `--study`, `--data` and",
        "`--skills`. Three ways to change one, from the least to the most:",
        "",
        "1. a key: `--train.clip_norm 0.5`, `--study.budgets '[1e17, 1e18]'` (the value is read as YAML);",
        "2. a file: `--study my-study.yaml`, `--data my-data.yaml`, `--skills my-skills.yaml`;",
        "3. a folder: `SKILLSCALE_CONF=my-conf`, whose files come before the shipped ones of the same name.",
        "",
        "A run records all of its settings as they were resolved. An unknown key is refused.",
        "",
    ]
    for noun, kind in NOUNS.items():
        lines += [f"## {noun}", "", *_of_class(kind, noun, _shipped(noun)), *_files(noun)]
    return "\n".join([*lines, ""])


def told(kind: type) -> dict[str, str]:
    """What a class says of its keys: the section ``Args:`` of its docstring."""
    _, _, section = inspect.cleandoc(kind.__doc__ or "").partition("Args:\n")
    found: dict[str, str] = {}
    for line in textwrap.dedent(section).splitlines():
        name, colon, text = line.partition(": ")
        if colon and not line.startswith(" "):
            found[name] = text
        elif found:
            found[list(found)[-1]] += f" {line.strip()}"
    return {name: text.replace("``", "`").strip() for name, text in found.items()}


def comments(text: str) -> dict[str, str]:
    """What a YAML file says above its own keys; of what it holds within them, nothing."""
    found: dict[str, str] = {}
    above: list[str] = []
    seen = False
    for line in text.splitlines():
        key = re.match(r"(\w+):", line)
        if line.startswith("#"):
            above.append(line.lstrip("# ").rstrip())
        elif key:
            found |= {key[1]: " ".join(above)} if above and seen else {}  # what stands above the first is the file's
            seen = True
        above = above if line.startswith("#") else []
    return found


def _parameters(entry: Command) -> Iterator[str]:
    for title, parameters in entry.groups.items():
        yield f"| {title or 'parameter'} | default | |"
        yield "|---|---|---|"
        for one in parameters:
            default = "required" if one.required else f"`{one.default_text}`" if one.default_text else ""
            yield f"| `--{one.name}` | {default} | {_text(one.help)} |"
        yield ""


def _shipped(noun: str) -> Path:
    """The file whose values are shown as shipped."""
    return config.conf_file(noun, {"study": "main", "data": "embedded", "skills": "embedded"}.get(noun, ""))


def _of_class(kind: type, place: str, file: Path | None = None) -> Iterator[str]:
    """A table of a class's keys, and of the classes that it holds."""
    said = told(kind)
    above = comments(file.read_text(encoding="utf-8")) if file else {}
    values: Mapping[str, Any] = config.read_yaml(file) if file else {}
    yield inspect.cleandoc(kind.__doc__ or "").splitlines()[0].replace("``", "`")
    yield ""
    yield f"| key | kind | {'shipped' if file else 'by default'} | |"
    yield "|---|---|---|---|"
    inner: list[tuple[str, type]] = []
    for one in dataclasses.fields(kind):
        hint = typing.get_type_hints(kind, include_extras=True)[one.name]
        held = [part for part in _parts(hint) if dataclasses.is_dataclass(part)]
        inner += [(f"{place}.{one.name}", part) for part in held if isinstance(part, type)]
        says = said[one.name]
        if one.name in above and place in ("sample", "laws"):  # whose files are commented key by key
            says += f" {above[one.name]}"
        yield f"| `{one.name}` | {_kind(hint)} | {_value(one, values, held)} | {_text(says)} |"
    yield ""
    for name, part in inner:
        yield f"### {name}"
        yield ""
        yield from _of_class(part, name)


def _value(one: "dataclasses.Field[Any]", values: Mapping[str, Any], held: list[Any]) -> str:
    """The value in the shipped file, or the default of a key that a file may leave out."""
    if held:
        return "below"
    if one.name in values:
        return _plain(values[one.name])
    default = getattr(one.default, "default", one.default)  # pydantic wraps some
    if default is dataclasses.MISSING or "Undefined" in repr(default):
        return "none" if _has_factory(one) else "required"
    return _plain(default)


def _has_factory(one: "dataclasses.Field[Any]") -> bool:
    return one.default_factory is not dataclasses.MISSING or getattr(one.default, "default_factory", None) is not None


def _plain(value: Any) -> str:
    """A value as YAML would have it on one line."""
    if value in ("", None, [], {}, ()):
        return "none"
    if isinstance(value, float) and not 1e-4 <= abs(value) < 1e6:
        return f"`{value:g}`"
    if isinstance(value, list | tuple):
        return "`[" + ", ".join(_plain(each).strip("`") for each in value) + "]`"
    if isinstance(value, Mapping):
        return "`{" + ", ".join(f"{key}: {_plain(each).strip('`')}" for key, each in value.items()) + "}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`".replace("|", "\\|")


def _parts(hint: Any) -> Iterator[Any]:
    yield hint
    for part in typing.get_args(hint):
        yield from _parts(part)


def _kind(hint: Any) -> str:
    """A type in words, with its limits."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        limits = [_limit(each) for told in inside[1:] for each in getattr(told, "metadata", [])]
        return " ".join([_kind(inside[0]), *filter(None, limits)])
    if origin is typing.Literal:
        return " or ".join(f"`{word}`" for word in inside)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind(part) for part in inside)
    if origin is tuple:
        return f"list of {_kind(inside[0])}" if inside[-1] is ... else ", ".join(_kind(part) for part in inside)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"names to {_kind(inside[1])}"
    if dataclasses.is_dataclass(hint):
        return "mappings"
    return {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null"}[hint]


def _limit(told: Any) -> str:
    for name, word in (("ge", "from"), ("gt", "above"), ("le", "to"), ("lt", "below")):
        if hasattr(told, name):
            return f"{word} {getattr(told, name):g}"
    return ""


def _files(noun: str) -> Iterator[str]:
    """The shipped files of a noun, as they are."""
    folder = config.conf_folder()
    for path in [folder / f"{noun}.yaml", *sorted((folder / noun).glob("*.yaml"))]:
        if path.is_file():
            yield f'??? "conf/{path.relative_to(folder).as_posix()}"'
            yield ""
            yield "    ```yaml"
            yield from (f"    {line}".rstrip() for line in path.read_text(encoding="utf-8").splitlines())
            yield "    ```"
            yield ""


def _text(text: str) -> str:
    """Text in a cell of a table."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def _sentence(text: str) -> str:
    return f"{_text(text[0].upper() + text[1:])}."


if __name__ == "__main__":  # python docs/make/reference.py FOLDER
    for name, text in pages().items():
        target = Path(sys.argv[1], name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
