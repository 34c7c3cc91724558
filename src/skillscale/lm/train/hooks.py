"""The duties of the training loop apart from the step: each is a hook that runs before or after every step."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from skillscale.errors import DivergedError, SkillscaleError
from skillscale.lm.train.process_group import ProcessGroup
from skillscale.lm.train.snapshots import TrainingSnapshot, TrainingState
from skillscale.lm.train.stable_phase import StablePhaseLease

PROGRESS_EVERY_S = 1.0  # reading a loss makes a GPU wait


class TrainingInterrupted(SkillscaleError):  # noqa: N818  a requested outcome, not an error
    """A stop request ended the training. The checkpoint, if there is one, holds the state."""


class Hook:
    """One duty of the training loop."""

    def before_step(self, state: TrainingState) -> None:
        """Act before a step."""

    def after_step(self, state: TrainingState) -> None:
        """Act after a step."""


@dataclass(frozen=True, kw_only=True)
class DivergenceCheck:
    """The test whether a run diverged. ``lr``: peak learning rate; ``steps``: of the run."""

    max_loss: float
    lr: float
    steps: int

    def check_loss(self, loss: Tensor, step: int) -> float:
        """Return the loss of a step as a number.

        Raises:
            DivergedError: the loss is not finite, or above ``max_loss``.
        """
        value = float(loss)
        if not value <= self.max_loss:
            raise self._error(f"loss {value:.4g} at step {step}")
        return value

    def check_weights(self, model: nn.Module) -> None:
        """Refuse weights that the last update broke: no loss has seen them yet.

        Raises:
            DivergedError: a weight is not finite.
        """
        for name, weight in model.named_parameters():
            if not torch.isfinite(weight).all():
                raise self._error(f"{name} is not finite after step {self.steps}")

    def _error(self, event: str) -> DivergedError:
        return DivergedError(
            f"diverged: {event} of {self.steps} with a peak learning rate of {self.lr:.3g}. Lower train.lr_coefficient."
        )


@dataclass(kw_only=True)
class StablePhaseHandover(Hook):
    """At the fork, leave the stable phase to longer runs. ``save`` writes the state to a path."""

    lease: StablePhaseLease
    fork: int
    save: Callable[[TrainingState, Path], None]

    def before_step(self, state: TrainingState) -> None:
        """Hand over the lease at the fork."""
        if state.step == self.fork:
            self.lease.hand_over(lambda path: self.save(state, path))


@dataclass(kw_only=True)
class StopRequest(Hook):
    """When a stop is requested, save the state and end the training."""

    should_stop: Callable[[], bool]
    save: Callable[[TrainingState], None] | None
    steps: int

    def before_step(self, state: TrainingState) -> None:
        """Raise TrainingInterrupted if a stop is requested."""
        if not self.should_stop():
            return
        if self.save:
            self.save(state)
        raise TrainingInterrupted(f"stopped after {state.step} of {self.steps} steps. Start it again to resume.")


@dataclass(kw_only=True)
class GroupSync(Hook):
    """Let all processes start each step together. ``snapshot`` gathers the state when the leader saves it."""

    group: ProcessGroup
    snapshot: Callable[[TrainingState], TrainingSnapshot]

    def before_step(self, state: TrainingState) -> None:
        """Wait for the leader."""
        self.group.sync(lambda: self.snapshot(state))


@dataclass(kw_only=True)
class LossCurve(Hook):
    """At the steps in ``rows``, add the mean loss since the last row to the curve. ``tokens`` counts them by step."""

    rows: frozenset[int]
    tokens: Callable[[int], int]
    check: DivergenceCheck

    def after_step(self, state: TrainingState) -> None:
        """Add a row if one is due."""
        if state.step not in self.rows:
            return
        self.check.check_loss(state.losses[-1], state.step)
        mean = self.check.check_loss(torch.stack(state.losses).mean(), state.step)
        state.curve.append((self.tokens(state.step), mean))
        state.losses.clear()


@dataclass(kw_only=True)
class ProgressReport(Hook):
    """Check the loss and report it every ``every_s`` seconds."""

    report: Callable[[TrainingState, float], None]
    check: DivergenceCheck
    every_s: float
    reported_at: float = field(default_factory=time.monotonic)

    def after_step(self, state: TrainingState) -> None:
        """Report if it is time."""
        now = time.monotonic()
        if now - self.reported_at > self.every_s and state.last_loss is not None:
            self.report(state, self.check.check_loss(state.last_loss, state.step))
            self.reported_at = now


@dataclass(kw_only=True)
class PeriodicCheckpoint(Hook):
    """Save the state every ``every_s`` seconds, except after the last step."""

    save: Callable[[TrainingState], None]
    every_s: float
    steps: int
    saved_at: float = field(default_factory=time.monotonic)

    def after_step(self, state: TrainingState) -> None:
        """Save if it is time."""
        if time.monotonic() - self.saved_at > self.every_s and state.step < self.steps:
            self.save(state)
            self.saved_at = time.monotonic()
