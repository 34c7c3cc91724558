"""The schedule of a run: the sequences and the learning rate of every step."""

from dataclasses import dataclass
from typing import Protocol

from skillscale.config import TrainConfig
from skillscale.lm.train.cooldown_branches import cooldown_branch
from skillscale.record import ModelSize, OptimizerPlan

CURVE_POINTS = 100


class Schedule(Protocol):
    """The steps of a run. Steps count from 0."""

    @property
    def steps(self) -> int:
        """Number of steps."""

    @property
    def fork(self) -> int:
        """Number of steps in the stable phase; -1 for a run without one."""

    @property
    def rows(self) -> frozenset[int]:
        """Numbers of finished steps at which the loss curve gets a row."""

    def sequences_before(self, step: int) -> int:
        """Return the number of sequences that the earlier steps have seen."""

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""


@dataclass(frozen=True, kw_only=True)
class LinearSchedule:
    """A constant batch, and a rate that rises linearly to its peak and falls linearly to ``final_lr_ratio`` of it.

    A linear decay to near zero beats the cosine at equal tokens (Bergsma et al. 2025, arXiv 2502.15938). A decay over
    the run's own D makes losses at different D comparable (Hoffmann et al. 2022, arXiv 2203.15556).
    """

    plan: OptimizerPlan
    final_lr_ratio: float

    @property
    def steps(self) -> int:
        """Number of steps."""
        return self.plan.steps

    @property
    def fork(self) -> int:
        """There is no stable phase."""
        return -1

    @property
    def rows(self) -> frozenset[int]:
        """Numbers of finished steps at which the loss curve gets a row."""
        return curve_steps(self.plan.steps)

    def sequences_before(self, step: int) -> int:
        """Return the number of sequences that the earlier steps have seen."""
        return step * self.plan.batch_sequences

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        plan = self.plan
        if step < plan.warmup_steps:
            return plan.lr * (step + 1) / (plan.warmup_steps + 1)
        remaining = (plan.steps - step) / (plan.steps - plan.warmup_steps)
        return plan.lr * (self.final_lr_ratio + (1 - self.final_lr_ratio) * remaining)


def curve_steps(steps: int) -> frozenset[int]:
    """Return at most CURVE_POINTS steps, evenly spaced, the last step included."""
    rows = min(CURVE_POINTS, steps)
    return frozenset(round(steps * (row + 1) / rows) for row in range(rows))


def schedule_for(plan: OptimizerPlan, size: ModelSize, config: TrainConfig, *, n_tokens: int) -> Schedule:
    """Return the schedule of a run of ``n_tokens`` tokens.

    Raises:
        InputError: as ``cooldown_branch``.
    """
    if plan.stable_phase:
        return cooldown_branch(n_tokens, size.n_params_nonembed, config, context=size.context)
    return LinearSchedule(plan=plan, final_lr_ratio=config.final_lr_ratio)
