"""Train with a function of the user: run it in a separate process, and check its losses.

Each worker starts the process once and sends it one point after the other, so that data stay loaded.
The function can raise, hang, crash or leak: its run fails with the reason, and the worker goes on.
"""

import json
import math
import multiprocessing
import os
import secrets
import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from skillscale.config.options import UserTrainerOptions
from skillscale.errors import DivergedError, InputError, LeaseLostError, TrainingError
from skillscale.execution.worker import work
from skillscale.execution.worker_pool import parent_exited
from skillscale.record import Measurement, RunRecord
from skillscale.tables.user_function import BadLossesError, check_losses, describe_error, load_function

if TYPE_CHECKING:
    from skillscale.tracking import RunWriter, StudyStore

_POLL_S = 0.5
_READ_BYTES = 65_536
_LONGEST_LINE = 1_000_000  # bytes; an answer has some hundred
_GRACE_S = 5.0
_WATCH_S = 2.0
_LOADING_S = 600.0  # least limit of the start: libraries that a trainer imports are slow to load
_READY, _REFUSED, _LOSSES, _FAILED = "ready", "refused", "losses", "failed"


@dataclass(frozen=True, kw_only=True)
class UserTrainer:
    """A function ``(n_params, n_tokens, mix, seed) -> {skill: loss or (loss, sem)}`` in a file."""

    path: Path
    function: str

    @classmethod
    def parse(cls, text: str) -> "UserTrainer":
        """Read ``FILE.py:function``.

        Raises:
            InputError: The text is of another form, or there is no such file.
        """
        file, _, function = text.rpartition(":")
        if not file.endswith(".py") or not function.isidentifier():
            raise InputError(f"--trainer must read FILE.py:function, but it is {text!r}")
        if not Path(file).is_file():
            raise InputError(f"--trainer: there is no file {file}. Give the file that holds {function}.")
        return cls(path=Path(file).absolute(), function=function)

    @property
    def name(self) -> str:
        """``FILE.py:function`` without the folder, as studies keep it."""
        return f"{self.path.name}:{self.function}"

    def __str__(self) -> str:
        return f"{self.path}:{self.function}"


def train_with_user_trainer(
    store: "StudyStore", name: str, options: UserTrainerOptions, progress: Callable[[str], None], **which: bool
) -> int:
    """Make the runs that wait in a study's queue with the user's trainer; return how many ended.

    Args:
        store: The tracking store.
        name: Name of the study.
        options: The trainer, and its time limit.
        progress: Receiver of a line for a person.
        which: Which points, as ``work`` takes them.

    Raises:
        InputError: The study is not this trainer's, or the trainer cannot be loaded.
        TrackingError: There is no such study.
    """
    trainer = UserTrainer.parse(options.trainer)
    skills = store.trainer_skills(store.study(name)) or ()
    study = store.open_trainer_study(name, trainer=trainer.name, skills=skills)
    with UserTrainerProcess(trainer, skills, options.timeout_s) as process:
        return work(study, lambda writer: train_claimed(writer, process), progress, **which)


def train_claimed(writer: "RunWriter", process: "UserTrainerProcess") -> RunRecord:
    """Make the run of a claim.

    Raises:
        TrainingError: The command that started this worker has ended. The run is marked as killed.
    """
    point = writer.point
    with writer:
        writer.begin()
        try:
            losses = process.ask(
                point.n_params, point.n_tokens, dict(point.mix.shares), point.seed, watch=writer.check_lease
            )
        except DivergedError as error:
            return writer.fail(str(error))
        except TrainingError as error:
            writer.kill(str(error))
            raise
        return writer.finish(skills={name: Measurement(loss=loss, sem=sem) for name, (loss, sem) in losses.items()})


class UserTrainerProcess:
    """The process of a trainer; a context manager. After a hang or a crash the next point gets a new process.

    Args:
        trainer: The function.
        skills: Skills whose losses it must return.
        timeout_s: Longest time of one run, s; None: no limit.
    """

    def __init__(self, trainer: UserTrainer, skills: Sequence[str], timeout_s: float | None = None) -> None:
        self._trainer = trainer
        self._skills = tuple(skills)
        self._timeout_s = timeout_s
        self._process: Any = None
        self._connection: Connection | None = None
        self._lines: _AnswerLines | None = None
        self._number = 0

    def __enter__(self) -> "UserTrainerProcess":
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def ask(
        self, n_params: int, n_tokens: int, mix: Mapping[str, float], seed: int,
        *, watch: Callable[[], None] = lambda: None,
    ) -> dict[str, tuple[float, float]]:  # fmt: skip
        """Return loss and sem of each skill; the sem is NaN where the trainer returns none.

        Args:
            n_params, n_tokens, mix, seed: The point.
            watch: Function that is called now and then. Its error ends the run.

        Raises:
            DivergedError: The trainer failed, as the message says.
            TrainingError: The command that started this worker has ended.
        """
        if self._connection is None:
            self._start()
        assert self._connection is not None
        self._number += 1
        question = json.dumps([self._number, n_params, n_tokens, dict(mix), seed])
        try:
            _write(self._connection, f"{question}\n")
        except OSError:  # the process ended since its last answer
            self._end()
            self._start()
            _write(self._connection, f"{question}\n")
        kind, answer = self._receive(self._timeout_s, watch)
        if kind == _FAILED:
            raise DivergedError(answer)
        return {name: (loss, sem) for name, (loss, sem) in answer.items()}

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, remote = context.Pipe()
        self._lines, self._number = _AnswerLines(secrets.token_hex(16)), 0
        args = (remote, self._lines.token, str(self._trainer.path), self._trainer.function, self._skills)
        # Not a daemon: daemons may not start processes, as data loaders do
        self._process = context.Process(target=_serve, args=args, daemon=False)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until the process has a group
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        remote.close()
        kind, answer = self._receive(None if self._timeout_s is None else max(self._timeout_s, _LOADING_S))
        if kind != _READY:
            self._end()
            raise InputError(f"the trainer {self._trainer} can't be loaded: {answer}")

    def _receive(self, limit_s: float | None, watch: Callable[[], None] = lambda: None) -> tuple[str, Any]:
        """Return the answer to the last question; a failure where none comes in time, or the process dies.

        Answers to earlier questions, as of a copy of the process, and whatever else is written are dropped.
        """
        assert self._connection is not None
        assert self._lines is not None
        until = time.monotonic() + (math.inf if limit_s is None else limit_s)
        while True:
            ended = not self._process.is_alive()  # before the last look: a child of it may keep the pipe open
            if self._connection.poll(0 if ended else min(_POLL_S, max(until - time.monotonic(), 0.0))):
                try:
                    data = os.read(self._connection.fileno(), _READ_BYTES)
                except OSError:
                    data = b""
                answer = self._lines.add(data, self._number)
                if answer is not None:
                    return answer
                if data and time.monotonic() < until:
                    continue
                ended = ended or not data
            if ended:
                _await_end(self._process, _GRACE_S)
                code = self._process.exitcode
                self._end()
                return _FAILED, f"the process of the trainer ended with exit code {code} (out of memory?)"
            if parent_exited():
                self._end()
                raise TrainingError("stopped: the command that started this worker has ended")
            try:
                watch()
            except LeaseLostError:
                self._end()
                raise
            if time.monotonic() >= until:
                self._end()
                return _FAILED, f"the trainer gave no answer within {limit_s:g} s, and was stopped (--timeout_s)"

    def _end(self) -> None:
        """End the process and its children."""
        if self._connection is not None:
            self._connection.close()  # an idle process reads the end of file
            self._connection = None
        process, self._process = self._process, None
        if process is None:
            return
        _await_end(process, 0.2)
        for signum in (signal.SIGTERM, signal.SIGKILL):
            if process.is_alive():
                _signal_group(process.pid, signum)
                _await_end(process, _GRACE_S)
        process.close()


def _await_end(process: Any, limit_s: float) -> None:
    """Wait for the end of a process. ``join`` would wait for ever once the process wrote into its own sentinel."""
    until = time.monotonic() + limit_s
    while process.is_alive() and time.monotonic() < until:
        time.sleep(0.01)


def _signal_group(pid: int, signum: signal.Signals) -> None:
    try:
        os.killpg(pid, signum)
    except (ProcessLookupError, PermissionError):
        os.kill(pid, signum)  # it has no group yet


class _AnswerLines:
    """The answers among the bytes that a trainer's process writes: lines that begin with a token and a number.

    Args:
        token: Word that no other writer knows.
    """

    def __init__(self, token: str) -> None:
        self.token = token
        self._buffer = b""

    def add(self, data: bytes, number: int) -> tuple[str, Any] | None:
        """Add bytes, and return the answer to a question where it is complete."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        self._buffer = self._buffer[-_LONGEST_LINE:]
        start = f"{self.token} {number} ".encode()
        for line in lines:
            if line.startswith(start):
                kind, answer = json.loads(line[len(start) :])
                return kind, answer
        return None


def _write(connection: Connection, text: str) -> None:
    data = text.encode()
    while data:
        data = data[os.write(connection.fileno(), data) :]


def _serve(connection: Connection, token: str, path: str, function: str, skills: Sequence[str]) -> None:
    """Load the function in a trainer's process, and answer points until the worker is gone.

    A copy of this process that the function makes (``os.fork``) answers nothing.
    """
    process = os.getpid()

    def answer(number: int, kind: str, value: object) -> None:
        if os.getpid() != process:
            os.write(2, b"note: a copy of the trainer's process (os.fork) returned losses too: they are dropped\n")
            os._exit(0)
        # The first line break ends what somebody else wrote
        _write(connection, f"\n{token} {number} {json.dumps([kind, value])}\n")

    os.setsid()  # its children end with it, and the worker handles Ctrl-C
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # drops a pending signal
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_exit_with, args=(os.getppid(),), daemon=True).start()
    try:
        train = load_function(Path(path), function)
    except (Exception, SystemExit) as error:
        answer(0, _REFUSED, _reason(error))
        return
    answer(0, _READY, None)
    with os.fdopen(os.dup(connection.fileno()), encoding="utf-8") as questions:
        for line in questions:
            number, n_params, n_tokens, mix, seed = json.loads(line)
            try:
                answer(number, _LOSSES, check_losses(train(n_params, n_tokens, mix, seed), skills))
            except BaseException as error:
                if not isinstance(error, BadLossesError):
                    traceback.print_exc()
                answer(number, _FAILED, _reason(error))


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, InputError) else f"the trainer {describe_error(error)}"


def _exit_with(parent: int) -> None:
    """End this process when the worker ends, even if it was killed."""
    while os.getppid() == parent:
        time.sleep(_WATCH_S)
    os.killpg(os.getpgrp(), signal.SIGKILL)
