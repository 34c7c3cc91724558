"""What the other processes of a run do: hear which run is next, train along, until the first one has ended."""

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
    STARTER,
    ControlMessage,
    LeaderExitedError,
    ProcessGroup,
    detect_launcher,
    form_process_group,
    process_group_for,
)
from skillscale.point import DesignPoint
from skillscale.record import ModelSize, OptimizerPlan

_LOOK_EVERY_S = 1.0


def announce_run(
    team: ProcessGroup, point: DesignPoint, size: ModelSize, optimizer_plan: OptimizerPlan, config: TrainConfig,
    categories: Mapping[str, TokenArray],
) -> None:  # fmt: skip
    """Tell the others which run is next; nobody is there where this process is alone."""
    if team.size == 1:
        return
    told = {
        "point": point.as_dict(),
        "size": asdict(size),
        "optimizer_plan": asdict(optimizer_plan),
        "train": asdict(config),
        "tokens": {name: str(tokens.folder and tokens.folder.absolute()) for name, tokens in categories.items()},
    }
    team.said(ControlMessage.RUN, json.dumps(told).encode())


def run_as_follower(config: TrainConfig) -> int | None:
    """Follow the first process where srun or torchrun started this one beside it; None: this is the first.

    Raises:
        InputError: a device that is not there, or too many or few processes.
    """
    if detect_launcher(config.n_devices) is None:  # the others are started with the first run
        return None
    team = process_group_for(
        config, select_device(config.device, config.devices)
    )  # at once: they wait, even if no run comes
    return None if team.is_first else follow_leader(team)


def follow_leader(team: ProcessGroup) -> int:
    """Train along until the first one ends; return how many runs that were.

    Raises:
        InputError: data that are not on this machine.
    """
    runs = 0
    while True:
        try:
            word, load = team.said()
        except RuntimeError:  # it ended without a word
            return runs
        if word is ControlMessage.END:
            return runs
        if word is ControlMessage.RUN:
            runs += 1
            with suppress(DivergedError, LeaderExitedError):  # the first one says so
                _train_along(json.loads(load), team)


def _train_along(told: Mapping[str, dict[str, object]], team: ProcessGroup) -> None:
    point, size = DesignPoint.from_dict(told["point"]), ModelSize(**told["size"])  # type: ignore[arg-type]
    stream = MixStream(
        {name: _tokens(Path(str(folder))) for name, folder in told["tokens"].items()},
        mix=point.mix, seed=point.seed, context=size.context,
    )  # fmt: skip
    train(
        point,
        size=size,
        optimizer_plan=OptimizerPlan(**told["optimizer_plan"]),  # type: ignore[arg-type]
        stream=stream,
        config=TrainConfig(**told["train"]),  # type: ignore[arg-type]
        team=team,
    )


def _tokens(folder: Path) -> TokenArray:
    try:
        return open_tokens(folder)
    except OSError as error:
        raise InputError(
            f"{folder} can't be read on this machine ({error}); give a --cache on a file system that all nodes share"
        ) from error


def _end_with(starter: int) -> None:
    while os.getppid() == starter:
        time.sleep(_LOOK_EVERY_S)
    os._exit(1)


def main() -> None:
    """Follow the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C at the terminal is the first one's to answer
    threading.Thread(target=_end_with, args=(int(os.environ[STARTER]),), daemon=True).start()
    follow_leader(form_process_group(sys.argv[1], int(sys.argv[2]), 1))


if __name__ == "__main__":
    main()
