"""The state of a run between two steps, and the checkpoint files that hold it."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from skillscale.errors import DamagedCheckpointError, TrainingError

StateDict: TypeAlias = dict[str, Any]
_PROGRESS = "ledger"  # key in the files, as version 0.1 wrote it


@dataclass(kw_only=True)
class TrainingState:
    """The progress of a run: everything that it must keep except weights and moments.

    ``inherited_steps``: steps of a stable phase that another run trained. ``earlier_s``: seconds of earlier sessions.
    ``curve``: (tokens, mean loss) rows. ``losses``: losses of the steps since the last row, on the device.
    ``last_loss``: the loss of the last step.
    """

    step: int = 0
    inherited_steps: int = 0
    earlier_s: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    last_loss: Tensor | None = None
    started_at: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Training time of all sessions."""
        return self.earlier_s + time.monotonic() - self.started_at

    def add_step(self, loss: Tensor) -> None:
        """Count one finished step."""
        self.last_loss = loss
        self.losses.append(loss)
        self.step += 1

    def as_inherited(self) -> "TrainingState":
        """Return the state of a run that starts from the stable phase of another run."""
        return replace(self, inherited_steps=self.step, earlier_s=0.0)


@dataclass(frozen=True, kw_only=True)
class TrainingSnapshot:
    """The whole state of a run: weights, optimizer moments and progress. It does not depend on the devices."""

    weights: StateDict = field(repr=False)
    moments: StateDict = field(repr=False)
    state: TrainingState

    def as_dict(self) -> StateDict:
        """Return plain values and tensors, which ``from_dict`` reads."""
        state = self.state
        progress = {
            "step": state.step,
            "taken": state.inherited_steps,
            "seconds": state.seconds,
            "curve": state.curve,
            "losses": [float(loss) for loss in state.losses],
        }
        return {"model": self.weights, "optimizer": self.moments, _PROGRESS: progress}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainingSnapshot":
        """Invert ``as_dict``. The losses are on the CPU."""
        progress = values[_PROGRESS]
        state = TrainingState(
            step=progress["step"],
            inherited_steps=progress.get("taken", 0),
            earlier_s=progress["seconds"],
            curve=[(tokens, loss) for tokens, loss in progress["curve"]],
            losses=[torch.tensor(loss) for loss in progress["losses"]],
        )
        return cls(weights=values["model"], moments=values["optimizer"], state=state)


def write_snapshot(path: Path, snapshot: TrainingSnapshot, *, identity: str) -> None:
    """Write a checkpoint next to the old one, then replace the old one.

    Raises:
        TrainingError: the file can't be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            torch.save({"identity": identity, **snapshot.as_dict()}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # torch turns a full disk into a RuntimeError
        partial.unlink(missing_ok=True)
        raise TrainingError(
            f"checkpoint {path} can't be written: {error}. Free some space or choose another cache folder."
        ) from error


def read_snapshot(path: Path, *, identity: str, device: torch.device) -> TrainingSnapshot:
    """Read a checkpoint.

    Raises:
        DamagedCheckpointError: the file can't be read.
        TrainingError: the file belongs to another run.
    """
    try:
        values = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # the unpickler raises many kinds of error on a damaged file
        raise DamagedCheckpointError(
            f"checkpoint {path} can't be read: {error}. Delete it to train from the first step."
        ) from error
    if values.get("identity") != identity:
        raise TrainingError(
            f"checkpoint {path} belongs to a run with other settings. Delete it to train from the first step."
        )
    return TrainingSnapshot.from_dict(values)
