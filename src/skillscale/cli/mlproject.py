"""Write ``MLproject`` from the list of commands: ``python -m skillscale.cli.mlproject > MLproject``.

An entry declares the options that ``--help`` shows first. MLflow appends every other ``-P NAME=VALUE`` to the command,
so that all options and settings can be given.
"""

import sys

from skillscale.cli.catalogue import COMMANDS
from skillscale.cli.command import Command

_HEAD = """\
# The commands of `skillscale` as entry points. Written by `make mlproject`; edit src/skillscale/cli/catalogue.py.
# An empty default is derived. Other options, and settings of conf/ as NOUN.key, need no declaration: -P NAME=VALUE.
# PYTHONPATH: MLflow names its environments by their requirements alone. Two checkouts share one, which would
# otherwise run the source of whichever made it.
name: skillscale

python_env: python_env.yaml

entry_points:
"""
_WIDTH = 118


def mlproject() -> str:
    """Return the text of ``MLproject``."""
    return _HEAD + "".join(_entry(command) for command in COMMANDS if command.project)


def _entry(command: Command) -> str:
    parameters = [parameter for parameter in command.parameters if parameter.common]
    lines = [f"  {command.name}:", "    parameters:"]
    for parameter in parameters:
        kind = "string" if parameter.required else f'{{default: "{parameter.default_text}"}}'
        lines.append(f"      {parameter.name}: {kind}")
    words = [f"--{parameter.name} {{{parameter.name}}}" for parameter in parameters]
    return (
        "\n".join([*lines, "    command: >-", *_wrapped(f"PYTHONPATH=$PWD/src skillscale {command.name}", words)])
        + "\n"
    )


def _wrapped(first: str, words: list[str]) -> list[str]:
    lines = [f"      {first}"]
    for word in words:
        if len(lines[-1]) + 1 + len(word) > _WIDTH:
            lines.append(f"      {word}")
        else:
            lines[-1] += f" {word}"
    return lines


if __name__ == "__main__":
    sys.stdout.write(mlproject())
