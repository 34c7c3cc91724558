"""What ``--help`` prints: where to begin, the entries, and of one its parameters and examples."""

from collections.abc import Sequence

from skillscale import config
from skillscale.cli.entry import Entry, Parameter

# One for each of those who come: with a laptop, with a table, with a cluster
BEGINNINGS = {
    "skillscale main": "a laptop: a study from data to page, some ten minutes",
    "skillscale fit --table runs.csv --columns map.yaml": "a table of runs: laws and optima; docs/guide/howto/own-runs.md",
    "skillscale grid --study skills-gpu --dry_run": "a cluster: points and GPU-hours; then docs/guide/howto/cluster.md",
}


def overview(entries: Sequence[Entry]) -> str:
    """Where to begin, and each entry on a line."""
    width = max(len(entry.name) for entry in entries)
    lines = [f"  {entry.name:<{width}}  {entry.help}" for entry in entries]
    wide = max(map(len, BEGINNINGS))
    return "\n".join(
        [
            "usage: skillscale ENTRY [--NAME VALUE ...] [--NOUN.key VALUE ...]",
            "",
            "begin with",
            *(f"  {command:<{wide}}  {why}" for command, why in BEGINNINGS.items()),
            "",
            "entries",
            *lines,
            "",
            "skillscale ENTRY --help lists the parameters of an entry; skillscale --version tells the version;",
            "skillscale completion bash (or zsh, fish) prints what completes entries and parameters in the shell.",
            "",
        ]
    )


def usage(entry: Entry) -> str:
    """The parameters of an entry, in groups, with their defaults, and its examples."""
    width = max(len(parameter.name) for parameter in entry.parameters)
    settings = " [--NOUN.key VALUE ...]" if entry.nouns else ""
    lines = [f"usage: skillscale {entry.name} [--NAME VALUE ...]{settings}", "", entry.help, ""]
    for title, parameters in entry.groups.items():
        lines += [title] if title else []
        lines += [f"  --{one.name:<{width}}  {one.help}{_default(one)}" for one in parameters]
        lines.append("")
    if entry.nouns:
        nouns = ", ".join(config.NOUNS)
        lines += [f"Any setting of conf/ can be given as --NOUN.key VALUE, with the nouns {nouns}.", ""]
    if entry.examples:
        lines += ["examples", *(f"  {command}" for command in entry.examples), ""]
    return "\n".join(lines)


def _default(parameter: Parameter) -> str:
    if parameter.default is None:
        return " (required)"
    return f" [{parameter.default}]" if parameter.default else ""
