"""The processes that train one run together, one per device, and the control channel between them.

The leader (rank 0) is the worker: it claims points, writes checkpoints, measures and records. The followers only train:
the leader announces each run, and they take their share of every batch. torchrun or srun starts all processes with the
same command. Otherwise the leader starts the followers on its machine.

A message on the channel is a number and some bytes, never a pickled object. A follower that waits for a message waits
in the kernel, as long as the leader lives.
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

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import distributed

from skillscale.config import TrainConfig
from skillscale.errors import InputError, SkillscaleError
from skillscale.lm.train.snapshots import TrainingSnapshot

LEADER_PID = "SKILLSCALE_LEADER_PID"  # environment variable: a follower exits with this process
_CHANNEL_TIMEOUT = timedelta(days=30)  # the leader may measure, and wait for points, for a long time
_CHUNK_BYTES = 1 << 28
_POLL_S = 1.0
_GRACE_S = 30.0


class ControlMessage(IntEnum):
    """A message of the leader."""

    STEP = 0  # take the next step
    SAVE = 1  # help to gather the state
    LEAVE_RUN = 2
    START_RUN = 3  # the run as JSON
    STATE = 4  # resume from this state; empty: start from the first step
    EXIT = 5  # no more runs


class LeaderExitedError(SkillscaleError):
    """The leader left the run of this follower. The leader reports why."""


class ProcessGroup:
    """The processes of a run. ``rank``: of this process, 0 for the leader; ``size``: number of processes."""

    def __init__(self, rank: int = 0, size: int = 1, environment: ClusterEnvironment | None = None) -> None:
        self.rank, self.size, self.environment = rank, size, environment
        self._channel = distributed.new_group(backend="gloo", timeout=_CHANNEL_TIMEOUT) if size > 1 else None
        self.is_broken = False

    @property
    def is_leader(self) -> bool:
        """Whether this process claims, writes and measures."""
        return self.rank == 0

    def broadcast(
        self, message: ControlMessage = ControlMessage.STEP, payload: bytes = b""
    ) -> tuple[ControlMessage, bytes]:
        """Send a message of the leader to all, and return it. The arguments of followers are ignored."""
        if self._channel is None or self.is_broken:
            return message, payload
        head = torch.tensor([message, len(payload)])
        distributed.broadcast(head, 0, group=self._channel)
        message, length = ControlMessage(int(head[0])), int(head[1])
        data = torch.empty(length, dtype=torch.uint8)
        if payload:
            data = torch.frombuffer(bytearray(payload), dtype=torch.uint8)
        for chunk in torch.split(data, _CHUNK_BYTES) if length else ():
            distributed.broadcast(chunk, 0, group=self._channel)
        return message, payload if self.is_leader else data.numpy().tobytes()

    def broadcast_snapshot(self, snapshot: TrainingSnapshot | None) -> TrainingSnapshot | None:
        """Send the leader's state to all, and return it. None: start from the first step.

        Raises:
            LeaderExitedError: the leader leaves this run.
        """
        if self.size == 1:
            return snapshot
        file = io.BytesIO()
        if snapshot is not None and self.is_leader:
            torch.save(snapshot.as_dict(), file)
        message, payload = self.broadcast(ControlMessage.STATE, file.getvalue())
        if self.is_leader:
            return snapshot
        if message is not ControlMessage.STATE:
            raise LeaderExitedError("the leader left this run before its first step. See its message.")
        if not payload:
            return None
        return TrainingSnapshot.from_dict(torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True))

    def sync(self, gather: Callable[[], object]) -> None:
        """Wait until the leader takes the next step; before that, help to gather the state when it saves.

        Raises:
            LeaderExitedError: the leader leaves this run.
        """
        message, _ = self.broadcast(ControlMessage.STEP)
        while message is ControlMessage.SAVE:
            gather()
            message, _ = self.broadcast()
        if message is not ControlMessage.STEP:
            raise LeaderExitedError("the leader left this run. See its message.")

    @contextmanager
    def joint_run(self) -> Iterator[None]:
        """Inform the followers if the leader leaves the run between two steps.

        Any other exception may come within a step, when no follower listens. Then all processes exit.
        """
        try:
            yield
        except SkillscaleError:
            if self.is_leader:
                self.broadcast(ControlMessage.LEAVE_RUN)
            raise
        except BaseException:
            self.is_broken = self.size > 1
            raise

    def share(self, first: int, count: int) -> tuple[int, int]:
        """Return the first sequence and the number of sequences of this process. Shares are in the order of ranks.

        Raises:
            InputError: the batch does not divide evenly.
        """
        check_shares([count], self.size)
        share = count // self.size
        return first + self.rank * share, share


SINGLE_PROCESS = ProcessGroup()


def process_group_for(config: TrainConfig, device: str) -> ProcessGroup:
    """Return the processes that share the runs of this one. The first call connects them.

    Args:
        config: number of devices and nodes.
        device: ``cpu`` or ``cuda``.

    Raises:
        InputError: this process was not started in a way that lets them connect.
    """
    return SINGLE_PROCESS if config.n_devices == 1 else form_process_group(device, config.devices, config.nodes)


def check_shares(batches: Iterable[int], size: int) -> None:
    """Refuse batches that don't divide evenly.

    Raises:
        InputError: the first such batch.
    """
    odd = next((batch for batch in batches if batch % size), None)
    if odd is not None:
        raise InputError(
            f"a batch of {odd} sequences does not divide evenly among {size} devices. Choose a number of devices that "
            "divides it, or a larger train.batch_min."
        )


@lru_cache(maxsize=1)
def form_process_group(device: str, devices: int, nodes: int) -> ProcessGroup:
    """Connect ``devices`` processes per node. Start the followers if no launcher did.

    Raises:
        InputError: as ``process_group_for``.
    """
    size = devices * nodes
    followers: Sequence[subprocess.Popen[bytes]] = []
    environment = detect_launcher(size)
    if environment is None:
        if nodes > 1:
            raise InputError(
                f"train.nodes is {nodes}, but neither srun nor torchrun started this process as one of {size}. Start "
                f"the same command on every node, {devices} processes each (docs/guide/howto/cluster.md)."
            )
        environment, followers = TorchElasticEnvironment(), _start_followers(device, devices)
    Fabric(accelerator=device, devices=devices, num_nodes=nodes, strategy="ddp", plugins=[environment]).launch()
    group = ProcessGroup(environment.global_rank(), size, environment)
    if group.is_leader:
        atexit.register(_dismiss_followers, group, followers)
    return group


def detect_launcher(size: int) -> ClusterEnvironment | None:
    """Return the launcher that started this process as one of the ``size`` of a run, or None.

    Raises:
        InputError: torchrun started another number of processes, or srun does not say how many run on a node.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ or LEADER_PID in os.environ:
        if int(os.environ["WORLD_SIZE"]) != size:
            raise InputError(
                f"torchrun started {os.environ['WORLD_SIZE']} processes, but train.devices x train.nodes is {size}. "
                "Make them equal."
            )
        return TorchElasticEnvironment()
    if size == 1 or os.environ.get("SLURM_NTASKS") != str(size):
        return None  # another number of tasks: each task is an independent worker
    try:
        return SLURMEnvironment(auto_requeue=False)
    except RuntimeError as error:
        raise InputError(f"SLURM's tasks can't share a run: {error}. Correct the options of srun.") from error


def _start_followers(device: str, size: int) -> "list[subprocess.Popen[bytes]]":
    """Start the followers on this machine. They connect as under torchrun."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size), "GROUP_RANK": "0"}
    os.environ.update(address, RANK="0", LOCAL_RANK="0")
    followers = [
        subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "skillscale.lm.train.follower", device, str(size)],
            stdin=subprocess.DEVNULL, stdout=sys.stderr,
            env={**os.environ, LEADER_PID: str(os.getpid()), "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(1, size)
    ]  # fmt: skip
    threading.Thread(target=_exit_when_lost, args=(followers,), daemon=True).start()
    return followers


def _exit_when_lost(followers: "Sequence[subprocess.Popen[bytes]]") -> None:
    """Exit this process when a follower is lost: a step that waits for its GPU waits long."""
    while not any(follower.poll() for follower in followers):
        if all(follower.poll() == 0 for follower in followers):
            return
        time.sleep(_POLL_S)
    lost = next(follower for follower in followers if follower.poll())
    sys.stderr.write(f"follower process {lost.pid} ended with code {lost.poll()}. This process ends too.\n")
    time.sleep(_GRACE_S)  # most often the step ends with an error that says more
    os._exit(1)


def _dismiss_followers(group: ProcessGroup, followers: "Sequence[subprocess.Popen[bytes]]") -> None:
    """At the end of the leader: let the followers exit, and kill those that don't."""
    if not any(follower.poll() for follower in followers):
        with suppress(RuntimeError):
            group.broadcast(ControlMessage.EXIT)
    for follower in followers:
        try:
            follower.wait(0 if group.is_broken else _GRACE_S)
        except subprocess.TimeoutExpired:
            follower.send_signal(signal.SIGKILL)
            follower.wait()
