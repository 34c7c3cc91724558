"""Learning rate, batch and warm-up from (N, D): one rule, so that no size is tuned better than another.

    learning rate  = lr_coefficient N^lr_params_exponent D^lr_tokens_exponent, at most lr_max
    batch (tokens) = batch_coefficient D^batch_tokens_exponent, from batch_min to batch_max

The form is the Step Law (Li et al. 2025, arXiv 2503.04715); as there, N excludes the embedding. The published
coefficients hold from 6e7 parameters: at 1e4 their learning rate is several times too high. docs/research/decisions.md
explains the coefficients in conf/train.yaml.
"""

from skillscale.config import TrainConfig
from skillscale.errors import InputError
from skillscale.point import DesignPoint
from skillscale.record import ModelSize, OptimizerPlan

# Fewer updates than this leave no room for a warm-up and a decay (assumption, not tuned)
MIN_STEPS = 100


def optimizer_plan(point: DesignPoint, size: ModelSize, config: TrainConfig, *, context: int) -> OptimizerPlan:
    """Return the plan of a point. D is rounded to whole batches.

    Raises:
        InputError: D is less than one sequence.
    """
    sequences = whole_sequences(point.n_tokens, context)
    batch = min(batch_sequences(point.n_tokens, config, context=context), max(1, sequences // MIN_STEPS))
    steps = max(1, round(point.n_tokens / (batch * context)))
    return OptimizerPlan(
        lr=learning_rate(size.n_params_nonembed, point.n_tokens, config),
        batch_sequences=batch,
        steps=steps,
        warmup_steps=round(config.warmup_share * steps),
    )


def whole_sequences(n_tokens: int, context: int) -> int:
    """Return the number of whole sequences in D tokens.

    Raises:
        InputError: D is less than one sequence.
    """
    if n_tokens < context:
        raise InputError(
            f"n_tokens is {n_tokens}, less than one sequence of {context} tokens. Train on more tokens or lower "
            "model.context."
        )
    return n_tokens // context


def learning_rate(n_params_nonembed: int, n_tokens: int, config: TrainConfig) -> float:
    """Return the peak learning rate c N^a D^b, at most ``lr_max``."""
    from_n, from_d = n_params_nonembed**config.lr_params_exponent, n_tokens**config.lr_tokens_exponent
    return float(min(config.lr_coefficient * from_n * from_d, config.lr_max))


def batch_sequences(n_tokens: int, config: TrainConfig, *, context: int) -> int:
    """Return the sequences per batch: c D^b tokens from batch_min to batch_max, rounded to whole sequences."""
    batch: float = config.batch_coefficient * n_tokens**config.batch_tokens_exponent
    return max(1, round(min(max(batch, config.batch_min), config.batch_max) / context))
