"""A trainer that forks, writes junk, exits or hangs gives its own losses or a failed run, never those of another."""

import time

import pytest

from skillscale.errors import DivergedError
from skillscale.execution import user_trainer
from skillscale.execution.user_trainer import UserTrainer, UserTrainerProcess

HEAD = "import os, signal, sys, threading, time\nfrom multiprocessing import Process\n"
WRITE = "for fd in range(3, 64):\n        try: os.write(fd, {})\n        except OSError: pass\n    "
LOSS = "{'code': 1.0 + n_params / 1000}"
GOOD = {
    "a copy returns too": f"os.fork()\n    return {LOSS}",
    "a copy returns much later": f"time.sleep(0.4 * (os.fork() == 0))\n    return {LOSS}",
    "a copy raises": f"if os.fork() == 0: raise ValueError\n    return {LOSS}",
    "a child keeps the pipe open": f"if os.fork() == 0: time.sleep(60)\n    return {LOSS}",
    "a process of its own": f"child = Process(target=print); child.start(); child.join()\n    return {LOSS}",
    "junk in every pipe": WRITE.format("b'junkjunk'") + f"return {LOSS}",
    "an answer of its own": WRITE.format("b'\\n7 1 [1]\\n'") + f"return {LOSS}",
    "prints": f"print('{{not json'); os.write(1, b'\\xff raw')\n    return {LOSS}",
    "another folder": f"os.chdir('/'); os.environ.clear()\n    return {LOSS}",
}
BAD = {
    "sys.exit": ("sys.exit(0)", "raised SystemExit"),
    "os._exit": ("os._exit(0)", "ended with exit code 0"),
    "KeyboardInterrupt": ("raise KeyboardInterrupt", "raised KeyboardInterrupt"),
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", "ended with exit code -9"),
    "dies while a child keeps the pipe open": ("if os.fork() == 0: time.sleep(60)\n    os._exit(3)", "exit code 3"),
    "hangs": ("time.sleep(60)", "gave no answer within 1 s"),
    "stops itself": ("os.kill(os.getpid(), signal.SIGSTOP)", "gave no answer within 1 s"),
    "endless junk": ("while True:\n        " + WRITE.format("b'junk'").replace("\n", "\n    "), "no answer within 1 s"),
    "part of a message and no more": (WRITE.format("b'junk'") + "time.sleep(60)", "gave no answer within 1 s"),
}  # fmt: skip


def process_of(tmp_path, body, limit_s):
    (tmp_path / "trainer.py").write_text(f"{HEAD}def train(n_params, n_tokens, mix, seed):\n    {body}\n")
    return UserTrainerProcess(UserTrainer.parse(f"{tmp_path / 'trainer.py'}:train"), ["code"], limit_s)


@pytest.mark.parametrize("name", GOOD)
def test_each_point_gets_its_own_losses(name, tmp_path):
    with process_of(tmp_path, GOOD[name], 20.0) as process:
        losses = [process.ask(n_params, 10, {"code": 1.0}, 0)["code"][0] for n_params in (1000, 2000, 3000)]
    assert losses == [2.0, 3.0, 4.0]


def test_losses_of_a_copy_are_dropped_with_a_note(tmp_path, capfd):
    with process_of(tmp_path, GOOD["a copy returns too"], 20.0) as process:
        process.ask(1000, 10, {"code": 1.0}, 0)
        process.ask(2000, 10, {"code": 1.0}, 0)
    assert "a copy of the trainer's process (os.fork) returned losses too: they are dropped" in capfd.readouterr().err


@pytest.mark.parametrize("name", BAD)
def test_a_run_without_an_answer_fails_in_time(name, tmp_path, monkeypatch):
    monkeypatch.setattr(user_trainer, "_GRACE_S", 0.5)
    body, reason = BAD[name]
    with process_of(tmp_path, body, 1.0) as process:
        began = time.monotonic()
        with pytest.raises(DivergedError, match=reason):
            process.ask(1000, 10, {"code": 1.0}, 0)
        assert time.monotonic() - began < 15
