"""Completion in the shell: from entries and their parameters to a script for bash, zsh or fish.

The script holds every word, so that the Tab key starts no Python. What takes neither words nor true or false is
completed as a file.
"""

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from skillscale.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Word:
    """A parameter: ``--name``, what it says, and the values it takes, where they can be listed."""

    name: str
    help: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Command:
    """An entry, with its parameters; settings are offered to one that reads them."""

    name: str
    help: str
    words: tuple[Word, ...]
    reads_settings: bool


def script(shell: str, commands: Sequence[Command], settings: Mapping[str, Sequence[str]]) -> str:
    """The script to source.

    Args:
        shell: bash, zsh or fish.
        commands: what there is to complete.
        settings: keys of each noun, completed as ``--NOUN.key``.

    Raises:
        InputError: another shell.
    """
    if shell not in _SCRIPTS:
        raise InputError(f"completion is for {', '.join(_SCRIPTS)}, but it was asked for {shell!r}")
    keys = [f"--{noun}.{key}" for noun, names in settings.items() for key in names]
    return _SCRIPTS[shell](commands, [f"--{noun}." for noun in settings], keys)


def _bash(commands: Sequence[Command], nouns: Sequence[str], keys: Sequence[str]) -> str:
    lines = [
        "# source <(skillscale completion bash)",
        "_skillscale() {",
        '    local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" words=""',
        "    if ((COMP_CWORD == 1)); then",
        f'        COMPREPLY=($(compgen -W {_quoted(one.name for one in commands)} -- "$cur"))',
        "        return",
        "    fi",
        '    case "${COMP_WORDS[1]} $prev" in',
        *(
            f"        {shlex.quote(f'{entry} --{name}')}) words={_quoted(values)} ;;"
            for entry, name, values in _listed(commands)
        ),
        "    esac",
        "    if [[ $cur != --* && -n $words ]]; then",
        '        COMPREPLY=($(compgen -W "$words" -- "$cur"))',
        f'    elif [[ $cur == --*.* && {_quoted(["", *_readers(commands), ""])} == *" ${{COMP_WORDS[1]}} "* ]]; then',
        f'        COMPREPLY=($(compgen -W {_quoted(keys)} -- "$cur"))',
        "    elif [[ $cur == -* ]]; then",
        '        case "${COMP_WORDS[1]}" in',
        *(
            f"            {one.name}) words={_quoted([*(f'--{word.name}' for word in one.words), '--help'])} ;;"
            for one in commands
        ),
        "        esac",
        '        case "${COMP_WORDS[1]}" in',
        f"            {'|'.join(_readers(commands))}) words+=' '{_quoted(nouns)} ;;",
        "        esac",
        '        COMPREPLY=($(compgen -W "$words" -- "$cur"))',
        "        [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *. ]] && compopt -o nospace",
        "    fi",
        "    return 0",
        "}",
        "complete -o default -F _skillscale skillscale",
        "",
    ]
    return "\n".join(lines)


def _zsh(commands: Sequence[Command], nouns: Sequence[str], keys: Sequence[str]) -> str:
    lines = [
        "#compdef skillscale",
        "# source <(skillscale completion zsh)",
        "_skillscale() {",
        "    local -a told",
        "    if ((CURRENT == 2)); then",
        f"        told=({' '.join(_described(one.name, one.help) for one in commands)})",
        "        _describe entry told",
        "        return",
        "    fi",
        "    if [[ $PREFIX != --* ]]; then",
        '        case "$words[2] $words[CURRENT-1]" in',
        *(
            f"            {shlex.quote(f'{entry} --{name}')}) compadd -- {' '.join(map(shlex.quote, values))} ;;"
            for entry, name, values in _listed(commands)
        ),
        "        esac",
        "        _files",
        "        return",
        "    fi",
        "    case $words[2] in",
        *(
            f"        {one.name}) told=({' '.join(_described(f'--{word.name}', word.help) for word in one.words)}) ;;"
            for one in commands
        ),
        "    esac",
        "    _describe -o parameter told",
        f"    [[ $words[2] != ({'|'.join(_readers(commands))}) ]] && return",
        f"    if [[ $PREFIX == --*.* ]]; then compadd -- {' '.join(keys)}; else compadd -S '' -- {' '.join(nouns)}; fi",
        "}",
        "compdef _skillscale skillscale",
        "",
    ]
    return "\n".join(lines)


def _fish(commands: Sequence[Command], nouns: Sequence[str], keys: Sequence[str]) -> str:
    del nouns
    lines = ["# skillscale completion fish > ~/.config/fish/completions/skillscale.fish"]
    for one in commands:
        lines.append(f"complete -c skillscale -f -n __fish_use_subcommand -a {one.name} -d {_fish_text(one.help)}")
        here = f"-n '__fish_seen_subcommand_from {one.name}'"
        for word in one.words:
            values = f"-x -a {_fish_text(' '.join(word.values))}" if word.values else "-r -F"
            lines.append(f"complete -c skillscale {here} -l {word.name} {values} -d {_fish_text(word.help)}")
    here = f"__fish_seen_subcommand_from {' '.join(_readers(commands))}"
    dotted = 'string match -q -- "--*.*" (commandline -ct)'
    lines.append(f"complete -c skillscale -n '{here}; and {dotted}' -a {_fish_text(' '.join(keys))}")
    return "\n".join([*lines, ""])


def _listed(commands: Sequence[Command]) -> list[tuple[str, str, tuple[str, ...]]]:
    """Entry, parameter and values of each parameter whose values can be listed."""
    return [(one.name, word.name, word.values) for one in commands for word in one.words if word.values]


def _readers(commands: Sequence[Command]) -> list[str]:
    """Entries that read settings."""
    return [one.name for one in commands if one.reads_settings]


def _quoted(words: Iterable[str]) -> str:
    return shlex.quote(" ".join(words))


def _described(name: str, text: str) -> str:
    """A word and its help, as zsh's _describe reads them."""
    return shlex.quote(f"{name}:{text.replace(':', chr(92) + ':')}")


def _fish_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_SCRIPTS: Mapping[str, Callable[[Sequence[Command], Sequence[str], Sequence[str]], str]] = {
    "bash": _bash,
    "zsh": _zsh,
    "fish": _fish,
}
