"""A follower process: it trains each run that the leader announces, until the leader exits."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from skillscale.config import TrainConfig
from skillscale.errors import DivergedError, InputError
from skillscale.lm.data.mixture import MixStream
from skillscale.lm.data.token_arrays import TokenArray, open_tokens
from skillscale.lm.train.devices import select_device
from skillscale.lm.train.loop import train
from skillscale.lm.train.process_group import (
    LEADER_PID,
    ControlMessage,
    LeaderExitedError,
    ProcessGroup,
    detect_launcher,
    form_process_group,
    process_group_for,
)
from skillscale.point import DesignPoint
from skillscale.record import ModelSize, OptimizerPlan

_POLL_S = 1.0


def announce_run(
    group: ProcessGroup, point: DesignPoint, size: ModelSize, optimizer_plan: OptimizerPlan, config: TrainConfig,
    categories: Mapping[str, TokenArray],
) -> None:  # fmt: skip
    """Send the next run to the followers, if there are any."""
    if group.size == 1:
        return
    announcement = {
        "point": point.as_dict(),
        "size": asdict(size),
        "optimizer_plan": asdict(optimizer_plan),
        "train": asdict(config),
        "tokens": {name: str(tokens.folder and tokens.folder.absolute()) for name, tokens in categories.items()},
    }
    group.broadcast(ControlMessage.START_RUN, json.dumps(announcement).encode())


def run_as_follower(config: TrainConfig) -> int | None:
    """Follow the leader if srun or torchrun started this process as a follower. Return None in the leader.

    Raises:
        InputError: a device is missing, or the number of processes is wrong.
    """
    if detect_launcher(config.n_devices) is None:  # the leader starts the followers with its first run
        return None
    group = process_group_for(config, select_device(config.device, config.devices))  # now: followers wait for runs
    return None if group.is_leader else follow_leader(group)


def follow_leader(group: ProcessGroup) -> int:
    """Train every announced run until the leader exits; return the number of runs.

    Raises:
        InputError: the data are not on this machine.
    """
    runs = 0
    while True:
        try:
            message, payload = group.broadcast()
        except RuntimeError:  # the leader ended without a message
            return runs
        if message is ControlMessage.EXIT:
            return runs
        if message is ControlMessage.START_RUN:
            runs += 1
            with suppress(DivergedError, LeaderExitedError):  # the leader reports it
                _train_announced(json.loads(payload), group)


def _train_announced(announcement: Mapping[str, dict[str, object]], group: ProcessGroup) -> None:
    point = DesignPoint.from_dict(announcement["point"])
    size = ModelSize(**announcement["size"])  # type: ignore[arg-type]
    tokens = {name: _open_tokens(Path(str(folder))) for name, folder in announcement["tokens"].items()}
    train(
        point,
        size=size,
        optimizer_plan=OptimizerPlan(**announcement["optimizer_plan"]),  # type: ignore[arg-type]
        stream=MixStream(tokens, mix=point.mix, seed=point.seed, context=size.context),
        config=TrainConfig(**announcement["train"]),  # type: ignore[arg-type]
        group=group,
    )


def _open_tokens(folder: Path) -> TokenArray:
    try:
        return open_tokens(folder)
    except OSError as error:
        raise InputError(
            f"{folder} can't be read on this machine: {error}. Set --cache to a file system that all nodes share."
        ) from error


def _exit_with(leader: int) -> None:
    while os.getppid() == leader:
        time.sleep(_POLL_S)
    os._exit(1)


def main() -> None:
    """Follow the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the leader handles a Ctrl-C at the terminal
    threading.Thread(target=_exit_with, args=(int(os.environ[LEADER_PID]),), daemon=True).start()
    follow_leader(form_process_group(sys.argv[1], int(sys.argv[2]), 1))


if __name__ == "__main__":
    main()
