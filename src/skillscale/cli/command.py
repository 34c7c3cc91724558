"""A command as it is declared, and how the words of a command line become its option values."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from skillscale import config
from skillscale.cli.output import Output
from skillscale.config.options import Option, ShortOption, build_options, options_of
from skillscale.config.readers import flag
from skillscale.errors import InputError
from skillscale.formatting import did_you_mean

Run = Callable[[Any, config.Config, Output], Mapping[str, Any]]
JSON = Option(name="json", help="print one JSON object instead of text", read=flag, default=False, common=True)


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command of ``skillscale``.

    Args:
        name: Word on the command line, and file in ``skillscale.commands``.
        help: One line of help.
        options: Dataclass of its options, which its function takes.
        run: ``module:function``, imported when the command runs.
        short: Short names for settings of conf/.
        settings: Whether the command reads settings, so that ``--NOUN.key`` may be given.
        any_study: Whether ``--study`` may name a study without a file in conf/.
        common: Whether ``skillscale --help`` lists it without ``--help all``.
        project: Whether ``MLproject`` has an entry for it.
        examples: Command lines.
    """

    name: str
    help: str
    options: type
    run: str
    short: tuple[ShortOption, ...] = ()
    settings: bool = True
    any_study: bool = False
    common: bool = False
    project: bool = True
    examples: tuple[str, ...] = ()

    @cached_property
    def parameters(self) -> tuple[Option, ...]:
        """All options, ``--json`` last."""
        return (*options_of(self.options), *self.short, JSON)

    @property
    def groups(self) -> Mapping[str, tuple[Option, ...]]:
        """All options by the title of their group, those without a title last."""
        titles = sorted(dict.fromkeys(parameter.group for parameter in self.parameters), key=lambda title: not title)
        return {
            title: tuple(parameter for parameter in self.parameters if parameter.group == title) for title in titles
        }

    def function(self) -> Run:
        """Return the function that ``run`` names."""
        module, _, name = self.run.partition(":")
        return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """The values of one command line.

    Args:
        options: Value of the command's options dataclass.
        overrides: Settings by their dotted name: texts, or values of short options.
        study, data, skills: Files that the settings are read from.
        as_json: Whether the answer is JSON.
    """

    options: Any
    overrides: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    as_json: bool = False

    def settings(self, command: Command) -> config.Config:
        """Read the settings of the command.

        Raises:
            InputError: A file, key or value that cannot be used.
        """
        files, overrides = dict(self.files), dict(self.overrides)
        if command.any_study and not config.is_shipped("study", files["study"]):
            overrides = {"study.name": files.pop("study"), **overrides}
        return config.load(**files, overrides=overrides)


def invocation(command: Command, texts: Mapping[str, str]) -> Invocation:
    """Read the texts of options and settings into values.

    Args:
        command: The command they are for.
        texts: Text by the name of an option, or by the dotted name of a setting. An empty text means the default.

    Raises:
        InputError: An option is missing, or its text cannot be read.
    """
    values: dict[str, Any] = {}
    overrides: dict[str, Any] = {}
    for parameter in command.parameters:
        text = texts.get(parameter.name, "")
        if not text:
            if parameter.required:
                raise InputError(f"{command.name} needs --{parameter.name}: {parameter.help}")
            continue
        value = _read(parameter, text)
        if isinstance(parameter, ShortOption):
            if parameter.setting in texts:
                raise InputError(f"--{parameter.name} and --{parameter.setting} are one setting. Give one of them.")
            overrides[parameter.setting] = value
        else:
            values[parameter.name] = value
    overrides |= {name: text for name, text in texts.items() if "." in name}
    files = {name: texts.get(name, "") for name in ("study", "data", "skills")} if command.settings else {}
    if files and not files["study"]:
        files["study"] = "main"
    return Invocation(
        options=build_options(command.options, values), overrides=overrides, files=files,
        as_json=values.get("json", False),
    )  # fmt: skip


def _read(parameter: Option, text: str) -> Any:
    try:
        return parameter.read(text)
    except InputError as error:
        raise InputError(f"--{parameter.name}: {error}") from error


def unknown_option(command: Command, name: str) -> InputError:
    """Return the error for an option that a command does not have."""
    names = [parameter.name for parameter in command.parameters]
    hint = _INSTEAD.get(name) or did_you_mean(name, names)
    also = " It also takes settings as --NOUN.key VALUE." if command.settings else " It reads no settings."
    return InputError(f"{command.name} has no option --{name}{hint}. See skillscale {command.name} --help all.{also}")


# Where a near name would mislead
_INSTEAD = {
    "from_tracking": ": import the experiment first, by skillscale import --from_tracking URI --experiment NAME"
}


def split_settings(command: Command, words: Sequence[str]) -> dict[str, str]:
    """Read ``--NOUN.key VALUE`` pairs out of the words that are no options of a command.

    Raises:
        InputError: A word that is no setting, or a setting without a value or given twice.
    """
    texts: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, sign, text = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not name:
            raise InputError(f"{word!r} stands where an option should. Write --NAME VALUE.")
        if "." not in name or not command.settings:
            raise unknown_option(command, name)
        if name in texts:
            raise InputError(f"--{name} is given twice. Give it once.")
        if not sign:
            if not rest or rest[0].startswith("--"):
                raise InputError(f"--{name} needs a value. Write --{name} VALUE.")
            text = rest.pop(0)
        texts[name] = text
    return texts
