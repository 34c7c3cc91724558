"""Training of one point: start or resume, take every step of the schedule, return the model and its loss curve."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from skillscale.config import TrainConfig
from skillscale.lm.model.transformer import Transformer
from skillscale.lm.train import hooks
from skillscale.lm.train.hooks import DivergenceCheck, Hook, TrainingInterrupted
from skillscale.lm.train.process_group import SINGLE_PROCESS, ControlMessage, ProcessGroup
from skillscale.lm.train.schedule import Schedule, schedule_for
from skillscale.lm.train.snapshots import TrainingState, read_snapshot, write_snapshot
from skillscale.lm.train.stable_phase import StablePhaseLease
from skillscale.lm.train.stepper import TrainStepper
from skillscale.point import DesignPoint, digest
from skillscale.record import ModelSize, OptimizerPlan

__all__ = ["BatchStream", "TrainProgress", "TrainedModel", "TrainingInterrupted", "train"]


class BatchStream(Protocol):
    """Training sequences by index. A sequence does not depend on the batch that it is in."""

    def batch(self, first: int, count: int) -> npt.NDArray[np.int64]:
        """Return the sequences ``first`` to ``first + count - 1``: (count, context + 1) token ids."""


@dataclass(frozen=True, kw_only=True)
class TrainProgress:
    """The progress of a run: steps, tokens seen, loss of the last batch in nats per token, and the curve so far."""

    step: int
    steps: int
    tokens: int
    loss: float
    curve: Sequence[tuple[int, float]] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A trained model. ``curve``: (tokens seen, mean loss since the last row); ``seconds``: of all sessions.

    ``n_inherited``: tokens of ``n_tokens`` in a stable phase that another run trained.
    """

    model: Transformer = field(repr=False)
    curve: tuple[tuple[int, float], ...] = field(repr=False)
    n_tokens: int = field(metadata={"unit": "tokens"})
    seconds: float = field(metadata={"unit": "s"})
    n_inherited: int = field(default=0, metadata={"unit": "tokens"})

    @property
    def tokens_per_s(self) -> float:
        """Mean rate over the tokens that this run processed itself."""
        return (self.n_tokens - self.n_inherited) / self.seconds


def train(
    point: DesignPoint,
    *,
    size: ModelSize,
    optimizer_plan: OptimizerPlan,
    stream: BatchStream,
    config: TrainConfig,
    checkpoint: Path | None = None,
    lease: StablePhaseLease | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
    on_progress: Callable[[TrainProgress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainedModel:
    """Train the model of a point on the first sequences of its stream.

    A resumed run ends in the same weights as an uninterrupted one. So does a run that starts from a stable phase. All
    processes of ``group`` call this. Only its leader has a checkpoint and a lease, reports progress, and returns the
    whole model.

    Args:
        point, size, optimizer_plan, config: the run.
        stream: training sequences.
        checkpoint: file of this run's state. An existing one is resumed.
        lease: lease of the stable phase, if ``optimizer_plan`` has one.
        group: processes that share every batch.
        on_progress: called about once per second, and at the end.
        should_stop: asked before every step.

    Raises:
        InputError: a device is missing or can't run these settings.
        DivergedError: the loss is not finite, or above ``config.max_loss``.
        TrainingError: the checkpoint can't be written or used.
        TrainingInterrupted: ``should_stop`` returned True.
    """
    with group.joint_run():
        schedule = schedule_for(optimizer_plan, size, config, n_tokens=point.n_tokens)
        run = _Run(
            stepper=TrainStepper(size, config, lr=optimizer_plan.lr, seed=point.seed, group=group),
            schedule=schedule,
            context=size.context,
            check=DivergenceCheck(max_loss=config.max_loss, lr=optimizer_plan.lr, steps=schedule.steps),
            checkpoint=checkpoint,
            identity=digest([point.as_dict(), asdict(size), _identity(optimizer_plan), config.arithmetic]),
            lease=lease,
            phase_identity=digest([point.stable_phase, asdict(size), config.arithmetic]),
            on_progress=on_progress,
            should_stop=should_stop,
        )
        return run.train(stream)


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A run: what takes its steps, where its state is kept, and who hears of it."""

    stepper: TrainStepper
    schedule: Schedule
    context: int
    check: DivergenceCheck
    checkpoint: Path | None
    identity: str
    lease: StablePhaseLease | None
    phase_identity: str
    on_progress: Callable[[TrainProgress], None]
    should_stop: Callable[[], bool]

    def train(self, stream: BatchStream) -> TrainedModel:
        """Take all remaining steps."""
        state = self.resume_or_start()
        duties = self.duties()
        while state.step < self.schedule.steps:
            for hook in duties:
                hook.before_step(state)
            first, count = self.share(state.step)
            state.add_step(self.stepper.step(stream.batch(first, count), lr=self.schedule.rate(state.step)))
            for hook in duties:
                hook.after_step(state)
        return self.finish(state)

    def resume_or_start(self) -> TrainingState:
        """Return the state from this run's checkpoint, else from the stable phase, else a new state."""
        device = self.stepper.fabric.device
        resumes = self.checkpoint is not None and self.checkpoint.exists()
        snapshot = None
        if self.checkpoint is not None and resumes:
            snapshot = read_snapshot(self.checkpoint, identity=self.identity, device=device)
        elif self.lease is not None:
            read = partial(read_snapshot, identity=self.phase_identity, device=device)
            snapshot = self.lease.acquire(self.schedule.fork, read, self.should_stop)
        snapshot = self.stepper.group.broadcast_snapshot(snapshot)
        state = self.stepper.restore(snapshot) if snapshot else TrainingState()
        if not resumes:
            return state.as_inherited()
        if self.lease is not None and state.step < self.schedule.fork:
            self.lease.reacquire()
        return state

    def duties(self) -> list[Hook]:
        """Return the duties of this process, in their order."""
        group, steps = self.stepper.group, self.schedule.steps
        save = partial(self.save, path=self.checkpoint, identity=self.identity) if self.checkpoint else None
        duties: list[Hook] = []
        if self.lease is not None:
            fork, save_phase = self.schedule.fork, partial(self.save, identity=self.phase_identity)
            duties.append(hooks.StablePhaseHandover(lease=self.lease, fork=fork, save=save_phase))
        duties.append(hooks.StopRequest(should_stop=self.should_stop, save=save, steps=steps))
        duties.append(hooks.GroupSync(group=group, snapshot=self.stepper.snapshot))
        duties.append(hooks.LossCurve(rows=self.schedule.rows, tokens=self.tokens, check=self.check))
        if group.is_leader:
            every_s = hooks.PROGRESS_EVERY_S
            duties.append(hooks.ProgressReport(report=self.report, check=self.check, every_s=every_s))
        if save:
            every_s = self.stepper.config.checkpoint_every_s
            duties.append(hooks.PeriodicCheckpoint(save=save, every_s=every_s, steps=steps))
        return duties

    def finish(self, state: TrainingState) -> TrainedModel:
        """Check the last update, report the end, and return the model."""
        model = self.stepper.whole_model()
        if self.stepper.group.is_leader:
            self.check.check_weights(model)
        self.report(state, state.curve[-1][1])
        return TrainedModel(
            model=model,
            curve=tuple(state.curve),
            n_tokens=self.tokens(state.step),
            seconds=state.seconds,
            n_inherited=self.tokens(state.inherited_steps),
        )

    def save(self, state: TrainingState, path: Path, *, identity: str) -> None:
        """Write the state to a file; the other processes help to gather it."""
        self.stepper.group.broadcast(ControlMessage.SAVE)
        write_snapshot(path, self.stepper.snapshot(state), identity=identity)

    def report(self, state: TrainingState, loss: float) -> None:
        """Report the progress."""
        self.on_progress(
            TrainProgress(
                step=state.step, steps=self.schedule.steps, tokens=self.tokens(state.step), loss=loss,
                curve=tuple(state.curve),
            )
        )  # fmt: skip

    def share(self, step: int) -> tuple[int, int]:
        """Return the first sequence and the number of sequences that this process takes of a batch."""
        first = self.schedule.sequences_before(step)
        return self.stepper.group.share(first, self.schedule.sequences_before(step + 1) - first)

    def tokens(self, step: int) -> int:
        """Return the tokens seen before a step."""
        return self.schedule.sequences_before(step) * self.context


def _identity(plan: OptimizerPlan) -> dict[str, object]:
    """Return the plan with the keys of version 0.1, so that its checkpoints can be resumed."""
    values = asdict(plan)
    stable_phase, decay_steps = values.pop("stable_phase"), values.pop("decay_steps")
    return {**values, "decay_steps": decay_steps, "trunk": stable_phase} if stable_phase else values
