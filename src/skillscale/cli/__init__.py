"""The command line: ``skillscale COMMAND --name value``, with settings of ``conf/`` as ``--NOUN.key value``.

``catalogue`` lists the commands. Click parses their options and completes them in the shell. A command is imported
when it runs, so that the help is quick.
"""

import contextlib
import errno
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import fields
from types import FrameType
from typing import Any, NoReturn, TextIO, cast

import click
from click.shell_completion import CompletionItem, get_completion_class

from skillscale import __version__, config, errors
from skillscale.cli.catalogue import COMMANDS
from skillscale.cli.command import Command, Invocation, invocation, split_settings, unknown_option
from skillscale.cli.help import ALL, overview, usage
from skillscale.cli.output import Output, SafeStream
from skillscale.config.options import Option
from skillscale.config.readers import OneOf
from skillscale.formatting import did_you_mean

INTERRUPTED, TERMINATED = 130, 143
_LONGEST_MESSAGE = 4_000  # letters
SHELLS = ("bash", "zsh", "fish")
_EXTRAS = {
    "torch": "train", "lightning": "train", "datasets": "train", "tokenizers": "train", "mlflow": "mlflow",
    "sqlalchemy": "mlflow", "alembic": "mlflow", "optuna": "mlflow", "pyarrow": "parquet",
}  # fmt: skip
_CURES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EACCES: "choose a place that you may write",
    errno.EROFS: "choose a place that can be written",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def main(
    argv: Sequence[str] | None = None, commands: Sequence[Command] = COMMANDS, answer: TextIO | None = None
) -> int:
    """Run one command.

    Args:
        argv: Words after ``skillscale``; None: those of this process.
        commands: Commands to choose from.
        answer: Stream of the answer; None: standard output.

    Returns:
        Exit code: 0; 1 for what went wrong on the way; 2 for input that cannot be used; 130 or 143 when stopped.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    out = Output(as_json=_is_json(words), answer=answer or sys.stdout, words=tuple(words))
    try:
        with _terminable():
            return _dispatch(words, commands, out)
    except errors.SkillscaleError as error:
        return _complain(str(error), 2 if isinstance(error, errors.InputError) else 1, out)
    except BrokenPipeError:
        _drop(out.answer)
        return _complain("nobody reads the answer, so it is not complete", 1)
    except OSError as error:
        if error.errno == errno.ENOENT and not error.filename:
            return _complain("the working folder is gone. Change to another folder.", 2, out)
        cure = _CURES.get(error.errno or 0, "")
        return _complain(f"{error}{f'; {cure}, and run the same command to go on' if cure else ''}", 1, out)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        return _complain(f"this needs {error.name}. Run: pip install 'skillscale[{extra}]'", 2, out)
    except KeyboardInterrupt as stop:
        sys.stderr.write("skillscale: stopped; run the same command to go on\n")
        code = TERMINATED if isinstance(stop, _Terminated) else INTERRUPTED
        return _answer_error("stopped; run the same command to go on", code, out)
    except SystemExit as stop:
        return _complain(f"code of yours, or of a library, ended the command by sys.exit({stop.code!r})", 1, out)
    except Exception as error:
        if not out.as_json:
            raise
        traceback.print_exc()
        return _answer_error(f"{type(error).__name__}: {error}", 1, out)


def _is_json(words: Sequence[str]) -> bool:
    """Return whether the words ask for JSON, also where they can't be parsed."""
    for at, word in enumerate(words):
        if word == "--json":
            value = (words[at + 1 : at + 2] or ["--"])[0]
            return value == "true" or value.startswith("--")
        if word.startswith("--json="):
            return word == "--json=true"
    return False


def _answer_error(message: str, code: int, out: Output | None) -> int:
    """Write the error as the one JSON object of ``--json``, and return the exit code."""
    if out is not None and out.as_json:
        with contextlib.suppress(OSError, ValueError):
            out.result({"error": message, "exit_code": code})
    return code


def _drop(stream: TextIO) -> None:
    """Let a closed pipe swallow what is left, so that Python does not complain at the end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def console() -> NoReturn:
    """Run the console script; the answer alone goes to standard output.

    What libraries and worker processes print (MLflow prints links to runs) goes to standard error with the progress.
    """
    if "_SKILLSCALE_COMPLETE" in os.environ:
        group(COMMANDS)(prog_name="skillscale")
    _open_closed_streams()
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding=sys.stdout.encoding)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    sys.stdout, sys.stderr = cast(TextIO, SafeStream(sys.stdout)), cast(TextIO, SafeStream(sys.stderr))
    code = main(sys.argv[1:], COMMANDS, answer)
    try:
        answer.close()
    except OSError as error:  # a full disk, or a reader that went away
        _drop(answer)
        code = code or _complain(f"the answer is not complete: {error}", 1)
    sys.exit(code)


def _open_closed_streams() -> None:
    """Replace standard streams that the caller closed, so that no file of ours gets their numbers."""
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))


def parse(words: Sequence[str], command: Command) -> Invocation:
    """Read the words after a command's name into option values and settings.

    Raises:
        InputError: An unknown, repeated, missing or unreadable option.
    """
    _refuse_repeats(words)
    parser = ClickCommand(command)
    try:
        context = parser.make_context(command.name, list(words))
    except click.NoSuchOption as error:
        raise unknown_option(command, error.option_name.removeprefix("--")) from error
    except click.UsageError as error:
        raise errors.InputError(f"{error.format_message()} See skillscale {command.name} --help.") from error
    texts = {name: text for name, text in context.params.items() if text is not None}
    return invocation(command, texts | split_settings(command, context.args))


def group(commands: Sequence[Command]) -> click.Group:
    """Return the commands as a group of click's, which completes them in the shell."""
    completion = click.Command("completion", params=[click.Argument(["shell"], type=click.Choice(SHELLS))])
    return click.Group("skillscale", commands=[*map(ClickCommand, commands), completion])


class ClickCommand(click.Command):
    """A command as click parses and completes it: each option a text, and settings among the words that remain."""

    def __init__(self, command: Command) -> None:
        super().__init__(
            command.name, help=command.help, short_help=command.help, add_help_option=False,
            params=[_click_option(parameter) for parameter in command.parameters],
            context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        )  # fmt: skip
        self._command = command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete options, and settings once a dot is typed."""
        if not self._command.settings or not incomplete.startswith("--"):
            return super().shell_complete(ctx, incomplete)
        keys = [f"--{noun.name}.{key.name}" for noun in fields(config.Config) if noun.name in config.NOUNS
                for key in fields(noun.type)]  # type: ignore[arg-type]  # fmt: skip
        offered = keys if "." in incomplete else [f"--{noun}." for noun in config.NOUNS]
        settings = [CompletionItem(word) for word in offered if word.startswith(incomplete)]
        return super().shell_complete(ctx, incomplete) + settings


def _click_option(parameter: Option) -> click.Option:
    flag: dict[str, Any] = {"is_flag": False, "flag_value": "true"} if parameter.is_flag else {}
    return click.Option(
        [f"--{parameter.name}", parameter.name], type=str, default=None, help=parameter.help,
        shell_complete=lambda _ctx, _param, text: [word for word in values_of(parameter) if word.startswith(text)],
        **flag,
    )  # fmt: skip


def values_of(parameter: Option) -> tuple[str, ...]:
    """Return the values of an option where they can be listed: words, true and false, names of files in conf/."""
    if parameter.is_flag:
        return ("true", "false")
    return parameter.read.choices if isinstance(parameter.read, OneOf) else config.conf_names(parameter.name)


def _dispatch(words: list[str], commands: Sequence[Command], out: Output) -> int:
    answer = out.answer
    if not words or words[0] in ("-h", "--help"):
        answer.write(overview(commands, ALL if words[1:2] == [ALL] else ""))
        return 0 if words else 2
    if words[0] == "--version":
        answer.write(f"skillscale {__version__}\n")
        return 0
    if words[0] == "completion":
        answer.write(_completion_script(words[1:], commands))
        return 0
    command = find_command(words[0], commands)
    for word in ("-h", "--help"):
        if word in words:
            answer.write(usage(command, ALL if words[words.index(word) + 1 :][:1] == [ALL] else ""))
            return 0
    called = parse(words[1:], command)
    settings = called.settings(command)
    result = command.function()(called.options, settings, out)
    if not out.failures:
        out.result(result)
        return 0
    out.result({**result, "error": out.failures[0], "exit_code": 1})
    return _complain(out.failures[0], 1)


def find_command(name: str, commands: Sequence[Command]) -> Command:
    """Return the command of a name.

    Raises:
        InputError: There is none; the message names the nearest.
    """
    for command in commands:
        if command.name == name:
            return command
    names = [command.name for command in commands]
    raise errors.InputError(f"unknown command {name!r}{did_you_mean(name, names)}. There are {', '.join(names)}.")


def _completion_script(words: Sequence[str], commands: Sequence[Command]) -> str:
    if len(words) != 1 or words[0] not in SHELLS:
        raise errors.InputError(f"completion is for {', '.join(SHELLS)}, but it got {' '.join(words)!r}")
    kind = get_completion_class(words[0])
    assert kind is not None  # click has these three
    return kind(group(commands), {}, "skillscale", "_SKILLSCALE_COMPLETE").source() + "\n"


def _refuse_repeats(words: Sequence[str]) -> None:
    names = [word.removeprefix("--").partition("=")[0] for word in words if word.startswith("--")]
    for name in names:
        if names.count(name) > 1:
            raise errors.InputError(f"--{name} is given twice. Give it once.")


def _complain(message: str, code: int, out: Output | None = None) -> int:
    text = errors.safe_text(" ".join(message.split()))
    if len(text) > _LONGEST_MESSAGE:
        text = f"{text[: _LONGEST_MESSAGE - 500]} ... {text[-400:]}"
    sys.stderr.write(f"skillscale: error: {text}\n")
    return _answer_error(text, code, out)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, handled like Ctrl-C, so that runs are marked and the study can go on."""


def _terminate(signum: int, _frame: FrameType | None) -> NoReturn:
    """Raise once. The handlers above mark the runs, and a second signal must not interrupt them."""
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
