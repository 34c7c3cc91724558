"""Warm-up, stable phase, decay (WSD): runs that differ in D alone branch from one stable phase of (N, mix, seed).

The stable phase does not depend on D. After t tokens it has the batch and the learning rate of the rule for D = t
(``hyperparameters``), times the factors below; the batch is a power of two sequences. A run of D leaves it after
1 - ``cooldown_fraction`` of its tokens. Its rate then falls as 1 - sqrt, to ``final_lr_ratio`` of the rate that the
stable phase would have. A run that starts from a stored state ends in the same bits as a run from the first step.

Stable phase and short cooldown: Hu et al. 2024 (arXiv 2404.06395). Cooldown as 1 - sqrt: Hägele et al. 2024
(arXiv 2405.18392). The batch grows with t, because one batch does not fit D that differ by a factor of 30, and small
batches are better early. docs/research/branching.md has the costs.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from skillscale.config import TrainConfig
from skillscale.errors import InputError
from skillscale.lm.train import hyperparameters
from skillscale.point import DesignPoint
from skillscale.record import ModelSize, OptimizerPlan

# Factors on the rule, chosen by hand on a few runs of 3e4 parameters and one seed (docs/research/branching.md)
LR_FACTOR = 0.7
BATCH_FACTOR = 1.5
# Updates of the warm-up. A share of D would depend on D (assumption, not tuned).
WARMUP_STEPS = 20
_ROW_RATIO = 1.1  # ratio of the tokens at neighbouring rows of the curve


@dataclass(frozen=True, kw_only=True)
class CooldownBranch:
    """The schedule of a run that branches from a stable phase.

    ``offsets``: (steps + 1,) number of sequences before each step; the last is the total. ``fork``: number of steps in
    the stable phase.
    """

    offsets: npt.NDArray[np.int64] = field(repr=False)
    fork: int
    n_params_nonembed: int
    context: int
    config: TrainConfig = field(repr=False)

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.offsets) - 1

    @property
    def rows(self) -> frozenset[int]:
        """Numbers of finished steps at which the curve gets a row: spaced evenly in log tokens, the last included."""
        last = int(self.offsets[-1])
        due = [round(_ROW_RATIO**power) for power in range(math.ceil(math.log(last, _ROW_RATIO)))]
        return frozenset(map(int, np.searchsorted(self.offsets[1:], due) + 1)) | {self.steps}

    def sequences_before(self, step: int) -> int:
        """Return the number of sequences that the earlier steps have seen."""
        return int(self.offsets[step])

    def rate(self, step: int) -> float:
        """Return the learning rate of a step.

        One number at a time: numpy's powers of an array may differ in their last bit with its length.
        """
        seen = int(self.offsets[step + 1]) * self.context
        rate = LR_FACTOR * hyperparameters.learning_rate(self.n_params_nonembed, seen, self.config)
        rate *= min(1.0, (step + 1) / (WARMUP_STEPS + 1))
        if step <= self.fork:
            return rate
        first, fork, end = (int(self.offsets[position]) for position in (step, self.fork, -1))
        return rate * (1 - (1 - self.config.final_lr_ratio) * math.sqrt((first - fork) / (end - fork)))


def cooldown_branch(n_tokens: int, n_params_nonembed: int, config: TrainConfig, *, context: int) -> CooldownBranch:
    """Return the schedule of a run of D tokens, rounded to whole batches.

    Raises:
        InputError: D is less than one sequence, or batches don't grow with D.
    """
    sequences = hyperparameters.whole_sequences(n_tokens, context)
    offsets = np.concatenate([[0], np.cumsum(_batches(sequences, config, context))])
    if len(offsets) > 2 and abs(offsets[-2] * context - n_tokens) <= abs(offsets[-1] * context - n_tokens):
        offsets = offsets[:-1]
    fork = int(np.abs(offsets[:-1] - (1 - config.cooldown_fraction) * offsets[-1]).argmin())
    return CooldownBranch(
        offsets=offsets, fork=fork, n_params_nonembed=n_params_nonembed, context=context, config=config
    )


def branch_plan(point: DesignPoint, size: ModelSize, config: TrainConfig, *, context: int) -> OptimizerPlan:
    """Return the plan of a run: its highest rate, which is the rate at the fork, and its last batch.

    Raises:
        InputError: as ``cooldown_branch``.
    """
    branch = cooldown_branch(point.n_tokens, size.n_params_nonembed, config, context=context)
    return OptimizerPlan(
        lr=branch.rate(branch.fork),
        batch_sequences=int(branch.offsets[-1] - branch.offsets[-2]),
        steps=branch.steps,
        warmup_steps=WARMUP_STEPS,
        decay_steps=branch.steps - branch.fork,
        stable_phase=point.stable_phase,
    )


def _batches(sequences: int, config: TrainConfig, context: int) -> npt.NDArray[np.int64]:
    """Return batches in sequences up to a total. The batches of a smaller total are the first ones of a larger."""
    if config.batch_tokens_exponent <= 0:
        raise InputError(
            "train.schedule wsd needs a train.batch_tokens_exponent above 0, so that the batch grows, but it is "
            f"{config.batch_tokens_exponent}. Choose schedule linear or another exponent."
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
    """Return the sequences seen when the rule's batch reaches the geometric mean of the batch and its double."""
    batch = math.sqrt(2) * count * context / (BATCH_FACTOR * config.batch_coefficient)
    tokens: float = batch ** (1 / config.batch_tokens_exponent)
    return math.ceil(tokens / context)
