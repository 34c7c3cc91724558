"""Doubts about laws as lines for a person, with the command that removes each, and as values for ``--json``."""

import re
from collections.abc import Mapping, Sequence

from skillscale.formatting import JsonObject, plural
from skillscale.laws.skills.doubts import MAX_DOUBTS, Doubt

MAX_LINES = 8  # doubts in the terminal
_P_VALUE = re.compile(r" \(p = [^)]*\)")  # differs between skills that have the same doubt


def doubt_lines(doubts: Mapping[str, Sequence[Doubt]], source: str, *, limit: int | None = None) -> list[str]:
    """Return one line a doubt, at most three a skill; skills that share a doubt share its line.

    Args:
        doubts: doubts by skill, the gravest first.
        source: options that name the runs to a command; empty where they are unknown, so that no command is given.
        limit: most lines; the rest are counted in a line of their own. None: all.
    """
    names_by_doubt: dict[tuple[str, str], list[str]] = {}
    for skill, items in doubts.items():
        for doubt in items[:MAX_DOUBTS]:
            names_by_doubt.setdefault((_P_VALUE.sub("", doubt.text), doubt.command), []).append(skill)
    lines = [
        f"{', '.join(names)}: {text}{f' Run: skillscale {command} {source}' if source else ''}"
        for (text, command), names in names_by_doubt.items()
    ]
    shown = lines[:limit]
    hidden = len(lines) - len(shown) + sum(max(0, len(items) - MAX_DOUBTS) for items in doubts.values())
    return [*shown, f"{plural(hidden, 'more doubt')}: see --json"] if hidden else shown


def doubts_as_dict(doubts: Sequence[Doubt], source: str) -> list[JsonObject]:
    """Return the doubts of a skill as plain values."""
    return [
        {"text": doubt.text, "command": f"skillscale {doubt.command} {source}" if source else None} for doubt in doubts
    ]
