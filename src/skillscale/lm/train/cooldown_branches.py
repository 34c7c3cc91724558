"""Branches of a trunk: one constant phase of (N, mix, seed) that runs of several D decay from.

A trunk knows no D. After t tokens it has the batch and the learning rate that the rule gives a run of D = t (``rule``),
times the factors below, the batch as a power of two sequences. A run of D leaves it after 1 - ``decay_share`` of its
tokens, and its rate falls from there to ``decay_to`` of what the trunk's would be, as 1 - sqrt; so a run that goes on
from the state that another left behind ends in the same bits as one that was trained from its first step.

A plateau and a short decay instead of a decay from the start: Hu et al. 2024 (arXiv 2404.06395); as 1 - sqrt: Hägele et
al. 2024 (arXiv 2405.18392). A batch that grows with t: no one batch fits D that lie 30 times apart, and small ones win
early. docs/guide/howto/branching.md has what it costs.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from skillscale.config import TrainConfig
from skillscale.errors import InputError, TrainingError
from skillscale.lm.train import hyperparameters
from skillscale.point import DesignPoint
from skillscale.record import ModelSize, OptimizerPlan

State: TypeAlias = dict[str, Any]
# Of what the rule gives; chosen by hand on a few runs of 3e4 parameters and one seed (docs/guide/howto/branching.md)
LR_FACTOR = 0.7
BATCH_FACTOR = 1.5
# Updates over which the rate rises; a share of D would know D (assumption, not tuned)
WARMUP_STEPS = 20
_ROW_RATIO = 1.1  # of the tokens at neighbouring rows of the curve
_LOOK_EVERY_S = 0.2


@dataclass(frozen=True, kw_only=True)
class CooldownBranch:
    """The steps of a run on a trunk.

    ``firsts``: (steps + 1,) sequences seen before each step, the last before one that is not taken; ``fork``: steps on
    the trunk, before the decay.
    """

    firsts: npt.NDArray[np.int64] = field(repr=False)
    fork: int
    n_params_nonembed: int
    context: int
    config: TrainConfig = field(repr=False)

    @property
    def steps(self) -> int:
        """Updates in all."""
        return len(self.firsts) - 1

    @property
    def rows(self) -> frozenset[int]:
        """The steps after which the curve gets a row: as many for each factor in tokens, the last step among them."""
        last = int(self.firsts[-1])
        wanted = [round(_ROW_RATIO**power) for power in range(math.ceil(math.log(last, _ROW_RATIO)))]
        return frozenset(map(int, np.searchsorted(self.firsts[1:], wanted) + 1)) | {self.steps}

    def rate(self, step: int) -> float:
        """Learning rate of a step, from 0.

        One number at a time: numpy's powers of an array may differ in their last bit with its length.
        """
        seen = int(self.firsts[step + 1]) * self.context
        rate = LR_FACTOR * hyperparameters.learning_rate(self.n_params_nonembed, seen, self.config)
        rate *= min(1.0, (step + 1) / (WARMUP_STEPS + 1))
        if step <= self.fork:
            return rate
        first, fork, end = (int(self.firsts[at]) for at in (step, self.fork, -1))
        return rate * (1 - (1 - self.config.decay_to) * math.sqrt((first - fork) / (end - fork)))


def cooldown_branch(n_tokens: int, n_params_nonembed: int, config: TrainConfig, *, context: int) -> CooldownBranch:
    """The run of D tokens, to the nearest whole batch, on the trunk of a size.

    Raises:
        InputError: D is less than one sequence, or batches don't grow with D.
    """
    firsts = np.concatenate(
        [[0], np.cumsum(_batches(hyperparameters.whole_sequences(n_tokens, context), config, context))]
    )
    if len(firsts) > 2 and abs(firsts[-2] * context - n_tokens) <= abs(firsts[-1] * context - n_tokens):
        firsts = firsts[:-1]
    fork = int(np.abs(firsts[:-1] - (1 - config.decay_share) * firsts[-1]).argmin())
    return CooldownBranch(firsts=firsts, fork=fork, n_params_nonembed=n_params_nonembed, context=context, config=config)


def branch_plan(point: DesignPoint, size: ModelSize, config: TrainConfig, *, context: int) -> OptimizerPlan:
    """The optimisation of a branch: its rate at the fork, which is the highest, and its last batch.

    Raises:
        InputError: as ``cooldown_branch``.
    """
    own = cooldown_branch(point.n_tokens, size.n_params_nonembed, config, context=context)
    return OptimizerPlan(
        lr=own.rate(own.fork),
        batch_sequences=int(own.firsts[-1] - own.firsts[-2]),
        steps=own.steps,
        warmup_steps=WARMUP_STEPS,
        decay_steps=own.steps - own.fork,
        stable_phase=point.stable_phase,
    )


def _batches(sequences: int, config: TrainConfig, context: int) -> npt.NDArray[np.int64]:
    """Batches, in sequences, until as many sequences are seen; those of a smaller number begin those of a larger."""
    if config.batch_tokens_exponent <= 0:
        raise InputError(
            "train.schedule trunk lets the batch grow by train.batch_tokens_exponent, which must be above 0, but it is "
            f"{config.batch_tokens_exponent}; take schedule linear, or another exponent"
        )
    count, most = (_power_of_two(bound / context) for bound in (config.batch_min, config.batch_max))
    seen, parts = 0, []
    while seen < sequences:
        until = sequences if count >= most else min(_doubles_at(count, config, context), sequences)
        steps = max(0, math.ceil((until - seen) / count))
        parts.append(np.full(steps, count, dtype=np.int64))
        seen, count = seen + steps * count, 2 * count
    return np.concatenate(parts)


def _power_of_two(number: float) -> int:
    return int(2 ** max(0, round(math.log2(number))))


def _doubles_at(count: int, config: TrainConfig, context: int) -> int:
    """Sequences seen when twice the batch is as near, by its logarithm, to what the rule asks for."""
    wanted = math.sqrt(2) * count * context / (BATCH_FACTOR * config.batch_coefficient)
    tokens: float = wanted ** (1 / config.batch_tokens_exponent)
    return math.ceil(tokens / context)


@dataclass(frozen=True, kw_only=True)
class StablePhaseCheckpoint:
    """Where a trunk's state is kept for the branches to come. ``goes_on``: whether a longer branch will want it."""

    path: Path
    goes_on: bool

    def forget(self) -> None:
        """Delete the state: nothing needs it any more."""
        for path in (self.path, _lock_of(self.path)):
            path.unlink(missing_ok=True)


class StablePhaseLease:
    """One process at a time moves a trunk forward; the others wait for it, and take what it leaves."""

    def __init__(self, trunk: StablePhaseCheckpoint) -> None:
        self.stable_phase = trunk
        self._lock = FileLock(_lock_of(trunk.path))
        self._leaves = trunk.goes_on

    def __enter__(self) -> "StablePhaseLease":
        self.stable_phase.path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def begin(self, fork: int, read: Callable[[Path], State], should_stop: Callable[[], bool]) -> State | None:
        """The state of the trunk up to the fork; None: train it from its first step.

        What is further along already is left alone; what can't be read is deleted. None when told to stop, too.
        """
        looked_at = 0
        while not should_stop():
            alone = self._alone()  # before looking: what another process leaves after the look is not missed
            there = self.stable_phase.path.stat().st_mtime_ns if self.stable_phase.path.exists() else 0
            if there and (alone or there != looked_at):
                looked_at = there
                state = self._read(read)
                step = 0 if state is None else state["ledger"]["step"]
                if step >= fork:
                    self._lock.release()
                    self._leaves = False
                    return state if step == fork else None
                if alone:
                    return state
            elif alone:
                return None
            time.sleep(_LOOK_EVERY_S)
        return None

    def resume(self) -> None:
        """Go on with a run that had begun, alone where nobody else has taken its place meanwhile."""
        self._leaves &= self._alone()

    def end(self, save: Callable[[Path], None]) -> None:
        """At the fork: leave the state to the branches to come, and let others pass."""
        if self._leaves:
            save(self.stable_phase.path)
            self._leaves = False
        self._lock.release()

    def _alone(self) -> bool:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        return True

    def _read(self, read: Callable[[Path], State]) -> State | None:
        try:
            return read(self.stable_phase.path)
        except TrainingError:  # a cache: what is lost is trained again
            self.stable_phase.path.unlink(missing_ok=True)
            return None


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")
