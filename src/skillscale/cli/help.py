"""The text of ``--help``: first what most people need, everything with ``--help all``."""

from collections.abc import Sequence

from skillscale import config
from skillscale.cli.command import Command
from skillscale.config.options import Option

ALL = "all"
# One way to begin for each of: nothing, a laptop, a table of runs, a cluster
BEGINNINGS = {
    "skillscale demo": "with nothing: real runs that come with the package, in a minute",
    "skillscale main": "on a laptop: a study from data to page, about ten minutes",
    "skillscale fit --table runs.csv --columns map.yaml": "with a table of runs: laws and optima, no training",
    "skillscale grid --study skills-gpu --dry_run": "for a cluster: points and GPU-hours",
}


def overview(commands: Sequence[Command], level: str) -> str:
    """Return where to begin, and a line for each command."""
    shown = [command for command in commands if command.common or level == ALL]
    width = max(len(command.name) for command in shown)
    wide = max(map(len, BEGINNINGS))
    more = "" if level == ALL else "skillscale --help all lists every command.\n"
    return "\n".join(
        [
            "usage: skillscale COMMAND [--NAME VALUE ...] [--NOUN.key VALUE ...]",
            "",
            "begin with",
            *(f"  {command:<{wide}}  {reason}" for command, reason in BEGINNINGS.items()),
            "",
            "commands",
            *(f"  {command.name:<{width}}  {command.help}" for command in shown),
            "",
            f"{more}skillscale COMMAND --help lists the options of a command. skillscale --version prints the version.",
            "skillscale completion bash (or zsh, fish) prints the script that completes commands and options.",
            "",
        ]
    )


def usage(command: Command, level: str) -> str:
    """Return the options of a command, in groups, with defaults and examples."""
    shown = [parameter for parameter in command.parameters if parameter.common or level == ALL]
    width = max(len(parameter.name) for parameter in shown)
    settings = " [--NOUN.key VALUE ...]" if command.settings else ""
    lines = [f"usage: skillscale {command.name} [--NAME VALUE ...]{settings}", "", command.help, ""]
    for title, members in (command.groups if level == ALL else {"": shown}).items():
        lines += [title] if title else []
        lines += [f"  --{member.name:<{width}}  {member.help}{_default(member)}" for member in members]
        lines.append("")
    if level != ALL and len(shown) < len(command.parameters):
        lines += [
            f"skillscale {command.name} --help all lists {len(command.parameters) - len(shown)} more options.",
            "",
        ]
    if command.settings:
        nouns = ", ".join(config.NOUNS)
        lines += [f"Any setting of conf/ can be given as --NOUN.key VALUE. Nouns: {nouns}.", ""]
    if command.examples:
        lines += ["examples", *(f"  {line}" for line in command.examples), ""]
    return "\n".join(lines)


def _default(parameter: Option) -> str:
    if parameter.required:
        return " (required)"
    return f" [{parameter.default_text}]" if parameter.default_text else ""
