"""The processes that train one run together, one a device: who is who, and the line on which the first tells the rest.

The first is the worker: it claims points, writes checkpoints, measures and records. The others train along: they hear
which run is next, take their share of every batch, and know nothing of studies. torchrun or srun started them beside
the first, all with the same command, or the first starts them itself on its own machine.

On the line everything is a word and some bytes, never an object to be unpickled. Who waits there waits in the kernel,
for as long as the first one lives.
"""

import atexit
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from enum import IntEnum
from functools import lru_cache
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import distributed

from skillscale.config import TrainConfig
from skillscale.errors import InputError, SkillscaleError

STARTER = "SKILLSCALE_FIRST"  # the process whose end ends those that it started
_LISTENS = timedelta(days=30)  # the first one may measure, and wait for points, for long
_AT_ONCE = 1 << 28  # bytes on the line
_LOOK_EVERY_S = 1.0
_GRACE_S = 30.0


class ControlMessage(IntEnum):
    """What the first one says."""

    GO = 0  # take the next step
    SAVE = 1  # help to put the state together
    OVER = 2  # leave this run
    RUN = 3  # train along: the run, as JSON
    STATE = 4  # go on from this state; empty: from the beginning
    END = 5  # no run will come


class LeaderExitedError(SkillscaleError):
    """The first process left the run that this one trains along with; it says why."""


class ProcessGroup:
    """The processes of a run. ``rank``: of this one, 0 for the first; ``size``: how many; alone unless told."""

    def __init__(self, rank: int = 0, size: int = 1, environment: ClusterEnvironment | None = None) -> None:
        self.rank, self.size, self.environment = rank, size, environment
        self._line = distributed.new_group(backend="gloo", timeout=_LISTENS) if size > 1 else None
        self.is_lost = False

    @property
    def is_first(self) -> bool:
        """Whether this process claims, writes and measures."""
        return self.rank == 0

    def said(self, word: ControlMessage = ControlMessage.GO, load: bytes = b"") -> tuple[ControlMessage, bytes]:
        """What the first one says; what the others give here counts for nothing."""
        if self._line is None or self.is_lost:
            return word, load
        head = torch.tensor([word, len(load)])
        distributed.broadcast(head, 0, group=self._line)
        word, length = ControlMessage(int(head[0])), int(head[1])
        told = torch.frombuffer(bytearray(load), dtype=torch.uint8) if load else torch.empty(length, dtype=torch.uint8)
        for part in torch.split(told, _AT_ONCE) if length else ():
            distributed.broadcast(part, 0, group=self._line)
        return word, load if self.is_first else told.numpy().tobytes()

    def shared(self, state: dict[str, Any] | None) -> dict[str, Any] | None:
        """The state that the first one goes on from, for all; None: from the beginning."""
        if self.size == 1:
            return state
        file = io.BytesIO()
        if state is not None and self.is_first:
            torch.save(state, file)
        word, load = self.said(ControlMessage.STATE, file.getvalue())
        if self.is_first:
            return state
        if word is not ControlMessage.STATE:
            raise LeaderExitedError("the first process left this run before its first step")
        return torch.load(io.BytesIO(load), map_location="cpu", weights_only=True) if load else None

    def go_on(self, save: Callable[[], object]) -> None:
        """Take the next step when the first one says so; until then help it to put states together.

        Raises:
            LeaderExitedError: it leaves this run.
        """
        word, _ = self.said(ControlMessage.GO)
        while word is ControlMessage.SAVE:
            save()
            word, _ = self.said()
        if word is not ControlMessage.GO:
            raise LeaderExitedError("the first process left this run")

    @contextmanager
    def together(self) -> Iterator[None]:
        """A run that the first one may leave before its end: between two steps it tells the others.

        What is no error of ours may strike within a step, where nobody listens: then all of them end.
        """
        try:
            yield
        except SkillscaleError:
            if self.is_first:
                self.said(ControlMessage.OVER)
            raise
        except BaseException:
            self.is_lost = self.size > 1
            raise

    def share(self, first: int, count: int) -> tuple[int, int]:
        """First sequence and number of this process's share of a batch; shares follow one another by rank.

        Raises:
            InputError: it can't be divided evenly.
        """
        check_shares([count], self.size)
        own = count // self.size
        return first + self.rank * own, own


ALONE = ProcessGroup()


def process_group_for(config: TrainConfig, device: str) -> ProcessGroup:
    """The processes that share the runs of this one, brought together once; ``device``: cpu or cuda.

    Raises:
        InputError: they can't be brought together from how this process was started.
    """
    return ALONE if config.n_devices == 1 else form_process_group(device, config.devices, config.nodes)


def check_shares(batches: Iterable[int], size: int) -> None:
    """Refuse batches that can't be divided evenly.

    Raises:
        InputError: with the first of them.
    """
    odd = next((batch for batch in batches if batch % size), None)
    if odd is not None:
        raise InputError(
            f"a batch of {odd} sequences can't be shared out to {size} devices evenly; take a number of devices that "
            "divides it, or a larger train.batch_min"
        )


@lru_cache(maxsize=1)
def form_process_group(device: str, devices: int, nodes: int) -> ProcessGroup:
    """The team of so many devices a node; those that nobody started are started here.

    Raises:
        InputError: as ``process_group_for``.
    """
    size, started = devices * nodes, []
    environment = detect_launcher(size)
    if environment is None:
        if nodes > 1:
            raise InputError(
                f"train.nodes is {nodes}, but neither srun nor torchrun started this process as one of {size}: start "
                f"the same command on every node, {devices} processes each (docs/guide/howto/cluster.md)"
            )
        environment, started = TorchElasticEnvironment(), _start(device, devices)
    Fabric(accelerator=device, devices=devices, num_nodes=nodes, strategy="ddp", plugins=[environment]).launch()
    team = ProcessGroup(environment.global_rank(), size, environment)
    if team.is_first:
        atexit.register(_dismiss, team, started)
    return team


def detect_launcher(size: int) -> ClusterEnvironment | None:
    """Who started this process as one of those that a run needs; None: nobody.

    Raises:
        InputError: torchrun did, but another number of them; or srun, without saying how many on a node.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ or STARTER in os.environ:
        if int(os.environ["WORLD_SIZE"]) != size:
            raise InputError(
                f"torchrun started {os.environ['WORLD_SIZE']} processes, but train.devices x train.nodes is {size}; "
                "make them equal"
            )
        return TorchElasticEnvironment()
    if size == 1 or os.environ.get("SLURM_NTASKS") != str(size):
        return None  # tasks of a job that are not as many are workers that know nothing of one another
    try:
        return SLURMEnvironment(auto_requeue=False)
    except RuntimeError as error:
        raise InputError(f"SLURM's tasks can't share a run: {error}") from error


def _start(device: str, size: int) -> "list[subprocess.Popen[bytes]]":
    """Start the others on this machine; they and we find one another as under torchrun."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size), "GROUP_RANK": "0"}
    os.environ.update(own, RANK="0", LOCAL_RANK="0")
    started = [
        subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "skillscale.lm.train.follower", device, str(size)],
            stdin=subprocess.DEVNULL, stdout=sys.stderr,
            env={**os.environ, STARTER: str(os.getpid()), "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(1, size)
    ]  # fmt: skip
    threading.Thread(target=_watch, args=(started,), daemon=True).start()
    return started


def _watch(started: "Sequence[subprocess.Popen[bytes]]") -> None:
    """End this process when one of the others is lost: what waits for a GPU that is gone waits long."""
    while not any(each.poll() for each in started):
        if all(each.poll() == 0 for each in started):
            return
        time.sleep(_LOOK_EVERY_S)
    lost = next(each for each in started if each.poll())
    sys.stderr.write(f"process {lost.pid}, which trained along, ended with code {lost.poll()}: this one ends too\n")
    time.sleep(_GRACE_S)  # most often the wait ends with an error that says more
    os._exit(1)


def _dismiss(team: ProcessGroup, started: "Sequence[subprocess.Popen[bytes]]") -> None:
    """At the end of the first one: let the others go, or end them where they would not hear."""
    if not any(each.poll() for each in started):
        with suppress(RuntimeError):
            team.said(ControlMessage.END)
    for each in started:
        try:
            each.wait(0 if team.is_lost else _GRACE_S)
        except subprocess.TimeoutExpired:
            each.send_signal(signal.SIGKILL)
            each.wait()
