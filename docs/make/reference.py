"""The reference pages, made from the commands, the classes of settings and conf/.

python docs/make/reference.py FOLDER      # writes the pages
"""

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
    "MLFLOW_TRACKING_URI": "MLflow store, if `--tracking` names none",
    "SKILLSCALE_CACHE": "folder of kept fits, and of prepared data if `--cache` names none; default "
    "`~/.cache/skillscale`",
    "SKILLSCALE_CONF": "folder of your settings, laid out like `conf/`; its files replace the shipped ones",
    "SKILLSCALE_SOURCES": "folder with the archives of the embedded corpora, for machines without a network",
    "SKILLSCALE_QUEUE": "queue that machines share, if `--queue` names none ([many machines](../howto/cluster.md))",
    "HF_TOKEN": "token for data sets of the Hugging Face hub that require one",
}
EXIT_CODES = {
    0: "done",
    1: "something failed; finished work is kept, and the same command continues",
    2: "the input can't be used; nothing was done",
    130: "stopped by Ctrl-C; the same command continues",
    143: "stopped by SIGTERM; the same command continues",
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
    """Return the Markdown of each reference page, by its place in the site."""
    return {"guide/reference/commands.md": commands(), "guide/reference/settings.md": settings()}


def commands() -> str:
    """Return the page of the commands, with options, exit codes and environment variables."""
    lines = [
        "# Commands",
        "",
        "`skillscale COMMAND --name value`, `--name=value`, or `--name` alone if the value is true. `MLproject` has",
        "the same entries: `mlflow run . -e COMMAND -P name=value`. Any [setting](settings.md) is `--NOUN.key value`.",
        "`skillscale COMMAND --help` prints the common options, `--help all` every option.",
        "",
        *(f"- [`{command.name}`](#{command.name}): {_text(command.help)}" for command in cli.COMMANDS),
        "",
    ]
    for command in cli.COMMANDS:
        lines += [f"## {command.name}", "", f"{_sentence(command.help)}", "", *_parameters(command)]
        lines += [] if command.settings else ["It reads no settings.", ""]
        lines += ["```bash", *command.examples, "```", ""]
    lines += [
        "## Exit codes",
        "",
        "| code | |",
        "|---|---|",
        *(f"| {code} | {text} |" for code, text in EXIT_CODES.items()),
    ]
    lines += ["", "## Environment", "", "| variable | |", "|---|---|"]
    lines += [f"| `{name}` | {text} |" for name, text in ENVIRONMENT.items()]
    return "\n".join([*lines, ""])


def settings() -> str:
    """Return the page of the settings: kind, shipped value and meaning of every key."""
    lines = [
        "# Settings",
        "",
        "`conf/` has one file per noun. `study`, `data` and `skills` have several files, selected by `--study`,",
        "`--data` and `--skills`. Change a setting in one of three ways:",
        "",
        "1. a key: `--train.clip_norm 0.5`, `--study.budgets '[1e17, 1e18]'` (the value is read as YAML);",
        "2. a file: `--study my-study.yaml`, `--data my-data.yaml`, `--skills my-skills.yaml`;",
        "3. a folder: `SKILLSCALE_CONF=my-conf`, whose files replace the shipped files of the same name.",
        "",
        "A run records its resolved settings. An unknown key is refused.",
        "",
    ]
    for noun, kind in NOUNS.items():
        lines += [f"## {noun}", "", *_of_class(kind, noun, _shipped(noun)), *_files(noun)]
    return "\n".join([*lines, ""])


def key_texts(kind: type) -> dict[str, str]:
    """Return the text of each key from the section ``Args:`` of a class."""
    _, _, section = inspect.cleandoc(kind.__doc__ or "").partition("Args:\n")
    texts: dict[str, str] = {}
    for line in textwrap.dedent(section).splitlines():
        name, colon, text = line.partition(": ")
        if colon and not line.startswith(" "):
            texts[name] = text
        elif texts:
            texts[list(texts)[-1]] += f" {line.strip()}"
    return {name: text.replace("``", "`").strip() for name, text in texts.items()}


def comments(text: str) -> dict[str, str]:
    """Return the comments above the top keys of a YAML file; those above the first key are about the file."""
    texts: dict[str, str] = {}
    above: list[str] = []
    is_first = True
    for line in text.splitlines():
        key = re.match(r"(\w+):", line)
        if line.startswith("#"):
            above.append(line.lstrip("# ").rstrip())
        elif key:
            texts |= {key[1]: " ".join(above)} if above and not is_first else {}
            is_first = False
        above = above if line.startswith("#") else []
    return texts


def _parameters(command: Command) -> Iterator[str]:
    for title, parameters in command.groups.items():
        yield f"| {title or 'parameter'} | default | |"
        yield "|---|---|---|"
        for option in parameters:
            default = "required" if option.required else f"`{option.default_text}`" if option.default_text else ""
            yield f"| `--{option.name}` | {default} | {_text(option.help)} |"
        yield ""


def _shipped(noun: str) -> Path:
    """Return the file whose values are shown as shipped."""
    return config.conf_file(noun, {"study": "main", "data": "embedded", "skills": "embedded"}.get(noun, ""))


def _of_class(kind: type, place: str, file: Path | None = None) -> Iterator[str]:
    """Return a table of a class's keys, and of the classes that it holds."""
    texts = key_texts(kind)
    above = comments(file.read_text(encoding="utf-8")) if file else {}
    values: Mapping[str, Any] = config.read_yaml(file) if file else {}
    yield inspect.cleandoc(kind.__doc__ or "").splitlines()[0].replace("``", "`")
    yield ""
    yield f"| key | kind | {'shipped' if file else 'by default'} | |"
    yield "|---|---|---|---|"
    inner: list[tuple[str, type]] = []
    for field in dataclasses.fields(kind):
        hint = typing.get_type_hints(kind, include_extras=True)[field.name]
        held = [part for part in _parts(hint) if dataclasses.is_dataclass(part)]
        inner += [(f"{place}.{field.name}", part) for part in held if isinstance(part, type)]
        text = texts[field.name]
        if field.name in above and place in ("sample", "laws"):  # whose files are commented key by key
            text += f" {above[field.name]}"
        yield f"| `{field.name}` | {_kind(hint)} | {_value(field, values, held)} | {_text(text)} |"
    yield ""
    for name, part in inner:
        yield f"### {name}"
        yield ""
        yield from _of_class(part, name)


def _value(field: "dataclasses.Field[Any]", values: Mapping[str, Any], held: list[Any]) -> str:
    """Return the value in the shipped file, or the default of a key that a file may leave out."""
    if held:
        return "below"
    if field.name in values:
        return _plain(values[field.name])
    default = getattr(field.default, "default", field.default)  # pydantic wraps some
    if default is dataclasses.MISSING or "Undefined" in repr(default):
        return "none" if _has_factory(field) else "required"
    return _plain(default)


def _has_factory(field: "dataclasses.Field[Any]") -> bool:
    return (
        field.default_factory is not dataclasses.MISSING or getattr(field.default, "default_factory", None) is not None
    )


def _plain(value: Any) -> str:
    """Return a value as YAML would have it on one line."""
    if value in ("", None, [], {}, ()):
        return "none"
    if isinstance(value, float) and not 1e-4 <= abs(value) < 1e6:
        return f"`{value:g}`"
    if isinstance(value, list | tuple):
        return "`[" + ", ".join(_plain(item).strip("`") for item in value) + "]`"
    if isinstance(value, Mapping):
        return "`{" + ", ".join(f"{key}: {_plain(item).strip('`')}" for key, item in value.items()) + "}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`".replace("|", "\\|")


def _parts(hint: Any) -> Iterator[Any]:
    yield hint
    for part in typing.get_args(hint):
        yield from _parts(part)


def _kind(hint: Any) -> str:
    """Return a type in words, with its limits."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        limits = [_limit(bound) for mark in inside[1:] for bound in getattr(mark, "metadata", [])]
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


def _limit(bound: Any) -> str:
    for name, word in (("ge", "from"), ("gt", "above"), ("le", "to"), ("lt", "below")):
        if hasattr(bound, name):
            return f"{word} {getattr(bound, name):g}"
    return ""


def _files(noun: str) -> Iterator[str]:
    """Return the shipped files of a noun, as they are."""
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
