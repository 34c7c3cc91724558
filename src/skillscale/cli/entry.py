"""What is declared of a command: its parameters, in groups, its function, and examples."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from skillscale import config
from skillscale.cli.output import Output
from skillscale.cli.values import OneOf, flag

OUTPUT = "the output"  # the group that is told last
_FEW = 10  # parameters that are read at a glance, without groups


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter of an entry.

    Args:
        name: as on the command line, in ``MLproject`` and in the arguments that the entry's function gets.
        help: what it says, with its unit.
        default: as text; None where a value must be given.
        read: from text to value; raises ``InputError`` with no name of the parameter in it.
        group: title under which ``--help`` lists it, where an entry has many.
    """

    name: str
    help: str
    default: str | None = ""
    read: Callable[[str], Any] = str
    group: str = ""

    @property
    def is_flag(self) -> bool:
        """Whether ``--name`` alone means true."""
        return self.read is flag

    @property
    def values(self) -> tuple[str, ...]:
        """What it takes, where that can be listed: words, true and false, names of files in conf/."""
        if self.is_flag:
            return ("true", "false")
        return self.read.choices if isinstance(self.read, OneOf) else config.conf_names(self.name)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A command. ``run`` is ``module:function``, imported when the entry runs.

    The function gets ``(arguments, config, output)`` and returns the answer as plain values. ``arguments`` maps each
    declared name to its value, and each override's dotted name to its text. ``names_any_study``: ``--study`` may name a
    study of the registry for which there is no file in conf/ (runs of others, imported). ``examples`` are commands.
    """

    name: str
    help: str
    run: str
    parameters: tuple[Parameter, ...]
    names_any_study: bool = False
    examples: tuple[str, ...] = ()

    @property
    def groups(self) -> Mapping[str, tuple[Parameter, ...]]:
        """Its parameters by the title of their group; all under none where they are few."""
        if len(self.parameters) <= _FEW:
            return {"": self.parameters}
        titles = sorted(dict.fromkeys(one.group for one in self.parameters), key=lambda title: title == OUTPUT)
        return {title: tuple(one for one in self.parameters if one.group == title) for title in titles}

    @property
    def nouns(self) -> tuple[str, ...]:
        """The nouns whose file is chosen by a parameter; none for an entry that reads no settings (``reap``)."""
        names = [parameter.name for parameter in self.parameters]
        return ("data", "skills", "study") if "data" in names else ()

    def function(self) -> Callable[[Mapping[str, Any], config.Config, Output], Mapping[str, Any]]:
        """The function that ``run`` names."""
        module, _, name = self.run.partition(":")
        return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
