"""The commands: ``skillscale ENTRY --name value``, the same entries, names and defaults as in ``MLproject``.

Each entry is declared once, in ``entries``. Parameters are checked here, before anything heavy is imported; settings
of ``conf/`` are overridden by their dotted names (``--train.clip_norm 0.5``) and checked by ``config``.
"""

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from types import FrameType
from typing import Any, NoReturn, TextIO

from skillscale import __version__, config, errors
from skillscale.cli import completion
from skillscale.cli.entries import ENTRIES
from skillscale.cli.entry import Entry
from skillscale.cli.output import Output
from skillscale.cli.usage import overview, usage
from skillscale.formatting import did_you_mean

INTERRUPTED, TERMINATED = 130, 143
_CURES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EACCES: "choose a place that you may write",
    errno.EROFS: "choose a place that can be written",
}
# What is asked of the wrong entry, where a name that is near would mislead
_INSTEAD = {
    "from_tracking": ": import the experiment first, by skillscale import --from_tracking URI --experiment NAME"
}


def main(argv: Sequence[str] | None = None, entries: Sequence[Entry] = ENTRIES, answer: TextIO | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after ``skillscale``; None: those of this process.
        entries: the commands there are.
        answer: where the answer goes; None: standard output.

    Returns:
        exit code: 0; 1 for what went wrong on the way; 2 for input that can't be used; 130 or 143 when stopped.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        with _terminable():
            return _dispatch(words, entries, answer or sys.stdout)
    except errors.SkillscaleError as error:
        return _complain(str(error), 2 if isinstance(error, errors.InputError) else 1)
    except OSError as error:
        if error.errno not in _CURES:
            raise
        return _complain(f"{error}; {_CURES[error.errno]}, and run the same command to go on", 1)
    except KeyboardInterrupt as stop:
        sys.stderr.write("skillscale: stopped; run the same command to go on\n")
        return TERMINATED if isinstance(stop, _Terminated) else INTERRUPTED


def console() -> NoReturn:
    """The console script: the answer alone goes to standard output.

    What libraries and worker processes print (MLflow prints links to runs) goes to standard error with the progress.
    """
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding=sys.stdout.encoding)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with answer:
        code = main(sys.argv[1:], ENTRIES, answer)
    sys.exit(code)


def parse(words: Sequence[str], entry: Entry) -> dict[str, Any]:
    """From ``--name value`` to values: declared parameters typed and complete, overrides of settings as text.

    Raises:
        InputError: an unknown, repeated, missing or unreadable parameter.
    """
    given = _pairs(words, entry)
    arguments: dict[str, Any] = {name: text for name, text in given.items() if "." in name}
    for parameter in entry.parameters:
        text = given.get(parameter.name, parameter.default)
        if text is None:
            raise errors.InputError(f"{entry.name} needs --{parameter.name}: {parameter.help}")
        try:
            arguments[parameter.name] = parameter.read(text)
        except errors.InputError as error:
            raise errors.InputError(f"--{parameter.name}: {error}") from error
    return arguments


def _dispatch(words: list[str], entries: Sequence[Entry], answer: TextIO) -> int:
    if not words or words[0] in ("-h", "--help"):
        answer.write(overview(entries))
        return 0 if words else 2
    if words[0] == "--version":
        answer.write(f"skillscale {__version__}\n")
        return 0
    if words[0] == "completion":
        answer.write(_completion(words[1:], entries))
        return 0
    entry = _named(words[0], entries)
    if "-h" in words or "--help" in words:
        answer.write(usage(entry))
        return 0
    _run(entry, parse(words[1:], entry), answer)
    return 0


def _completion(words: list[str], entries: Sequence[Entry]) -> str:
    """The script for one shell, of the entries and of every setting."""
    commands = [
        completion.Command(
            name=entry.name,
            help=entry.help,
            words=tuple(completion.Word(name=one.name, help=one.help, values=one.values) for one in entry.parameters),
            reads_settings=bool(entry.nouns),
        )
        for entry in entries
    ]
    settings = {noun.name: [key.name for key in fields(noun.type)] for noun in fields(config.Config)}  # type: ignore[arg-type]
    return completion.script(" ".join(words), commands, settings)


def _run(entry: Entry, arguments: dict[str, Any], answer: TextIO) -> None:
    overrides = {name: text for name, text in arguments.items() if "." in name}
    files = {noun: arguments[noun] for noun in entry.nouns}
    if entry.names_any_study and not config.is_shipped("study", files["study"]):
        overrides = {"study.name": files.pop("study"), **overrides}
    settings = config.load(**files, overrides=overrides)
    out = Output(as_json=arguments["json"], answer=answer)
    out.result(entry.function()(arguments, settings, out))


def _named(name: str, entries: Sequence[Entry]) -> Entry:
    for entry in entries:
        if entry.name == name:
            return entry
    names = [entry.name for entry in entries]
    raise errors.InputError(f"unknown entry {name!r}{did_you_mean(name, names)}; there are {', '.join(names)}")


def _pairs(words: Sequence[str], entry: Entry) -> dict[str, str]:
    declared = {parameter.name: parameter for parameter in entry.parameters}
    given: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, sign, text = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not name:
            raise errors.InputError(f"{word!r} stands where a parameter should; write --NAME VALUE")
        if name not in declared and not ("." in name and entry.nouns):
            hint = _INSTEAD.get(name) or did_you_mean(name.replace("-", "_"), declared)
            also = ", and settings as --NOUN.key VALUE" if entry.nouns else "; it reads no settings"
            raise errors.InputError(f"{entry.name} has no parameter --{name}{hint}; it has {', '.join(declared)}{also}")
        if name in given:
            raise errors.InputError(f"--{name} is given twice; give it once")
        if not sign:
            text = _value(name, rest, is_flag=name in declared and declared[name].is_flag)
        given[name] = text
    return given


def _value(name: str, rest: list[str], *, is_flag: bool) -> str:
    if rest and not rest[0].startswith("--"):
        return rest.pop(0)
    if is_flag:
        return "true"
    raise errors.InputError(f"--{name} needs a value; write --{name} VALUE")


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f"skillscale: error: {errors.without_password(' '.join(message.split()))}\n")
    return code


class _Terminated(KeyboardInterrupt):
    """SIGTERM, met like Ctrl-C so that runs are marked and the study can go on."""


def _terminate(signum: int, _frame: FrameType | None) -> NoReturn:
    """Raise once: what follows marks the runs, and a second signal must not break into that."""
    for other in (signal.SIGTERM, signal.SIGINT):
        signal.signal(other, signal.SIG_IGN)
    raise _Terminated if signum == signal.SIGTERM else KeyboardInterrupt


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    before = {signum: signal.signal(signum, _terminate) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
