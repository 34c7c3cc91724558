"""Doubts about laws as lines for a person, with the command that removes each, and as values for ``--json``."""

import re
from collections.abc import Mapping, Sequence

from skillscale.formatting import JsonObject, plural
from skillscale.laws.skills.doubts import MAX_DOUBTS, Doubt

MAX_LINES = 8  # doubts in the terminal
_DETAIL = re.compile(r" \((p =|bias) [^)]*\)")  # differs between skills that have the same doubt


def doubt_lines(doubts: Mapping[str, Sequence[Doubt]], source: str, *, limit: int | None = None) -> list[str]:
    """Return one line a doubt, at most three a skill; skills that share a doubt share its line.

    Args:
        doubts: doubts by skill, the gravest first.
        source: options that name the runs to a command; empty where they are unknown, so that no command is given.
        limit: most lines; the rest are counted in a line of their own. None: all.
    """
    skills_by_text: dict[str, dict[str, str]] = {}
    for skill, items in doubts.items():
        for doubt in items[:MAX_DOUBTS]:
            skills_by_text.setdefault(_DETAIL.sub("", doubt.text), {}).setdefault(skill, doubt.command)
    lines = []
    for text, commands in skills_by_text.items():
        command = f" Run: skillscale {next(iter(commands.values()))} {source}" if source else ""
        lines.append(f"{', '.join(commands)}: {text}{command}")
    shown = lines[:limit]
    hidden = len(lines) - len(shown) + sum(max(0, len(items) - MAX_DOUBTS) for items in doubts.values())
    return [*shown, f"{plural(hidden, 'more doubt')}: see --json"] if hidden else shown


def doubts_as_dict(doubts: Sequence[Doubt], source: str) -> list[JsonObject]:
    """Return the doubts of a skill as plain values."""
    return [
        {"text": doubt.text, "command": f"skillscale {doubt.command} {source}" if source else None} for doubt in doubts
    ]
