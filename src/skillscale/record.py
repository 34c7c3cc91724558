"""The record of a run: every name, type and unit that goes into the registry, declared once.

``tracking`` writes these and reads them back typed; nobody else spells a key of MLflow.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from skillscale.point import DesignPoint


class State(StrEnum):
    """What became of a run. ``failed`` is our fault or the numbers' (diverged); ``killed`` was stopped from outside."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    KILLED = "killed"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A mean loss over a set of items.

    ``loss``: nats per token, total NLL over total tokens; ``sem``: its standard error over items (ratio estimator);
    ``bpb``: bits per byte; ``count``: items; ``tokens``: target tokens.
    """

    loss: float = field(metadata={"unit": "nats/token"})
    sem: float = field(metadata={"unit": "nats/token"})
    bpb: float = field(metadata={"unit": "bits/byte"})
    count: int = field(metadata={"unit": "items"})
    tokens: int = field(metadata={"unit": "tokens"})


@dataclass(frozen=True, kw_only=True)
class Size:
    """A model's size under each convention, and its shape. ``n_params = n_params_embed + n_params_nonembed``."""

    n_params: int
    n_params_nonembed: int
    n_params_embed: int
    depth: int
    width: int
    n_heads: int
    vocab_size: int
    context: int


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """What the rule derived for a run: peak learning rate, batch in sequences, steps, and warm-up steps."""

    lr: float
    batch_sequences: int
    steps: int
    warmup_steps: int


@dataclass(frozen=True, kw_only=True)
class Spending:
    """What a run took.

    ``flops_exact`` counts matrix products; ``matmul_share`` is 6 N D FLOP/s over the measured peak.
    """

    flops_exact: float = field(metadata={"unit": "FLOP"})
    tokens_per_s: float = field(metadata={"unit": "tokens/s"})
    matmul_share: float = field(metadata={"unit": "1"})
    train_s: float = field(metadata={"unit": "s"})
    eval_s: float = field(metadata={"unit": "s"})


@dataclass(frozen=True, kw_only=True)
class CategoryUse:
    """What a run saw of a category: tokens, and epochs of the unique tokens there are."""

    tokens: int
    epochs: float


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One training run as the registry holds it. A measurement that failed is absent, never a number.

    ``sets`` by evaluation set, with ``val/CATEGORY`` for a category's validation set; ``skills`` by skill (hypothesis
    split), and ``skills_held_out`` likewise. ``exposures``: mean mentions a fact, where facts are counted.
    """

    run_id: str
    study: str
    state: State
    reason: str
    point: DesignPoint
    size: Size | None = None
    spending: Spending | None = None
    skills: Mapping[str, Measurement] = field(default_factory=dict)
    skills_held_out: Mapping[str, Measurement] = field(default_factory=dict)
    sets: Mapping[str, Measurement] = field(default_factory=dict)


# Keys in MLflow. Params are text; each of METRIC_NUMBERS is a metric as well, with its log10, for the charts.
PARAM_KEYS = (
    "n_params", "n_params_nonembed", "n_params_embed", "n_tokens", "flops", "mix", "seed",
    "depth", "width", "n_heads", "vocab_size", "context",
    "lr", "batch_sequences", "steps", "warmup_steps", "config_hash", "data_hash", "code_version",
)  # fmt: skip
METRIC_NUMBERS = ("n_params", "n_params_nonembed", "n_params_embed", "n_tokens", "flops", "flops_exact")
TAG = "skillscale."
TAG_KEYS = ("study", "state", "reason", "budget", "point_key", "point", "owner", "kind")


def measurement_metrics(group: str, name: str, value: Measurement) -> dict[str, float]:
    """MLflow metrics of one measurement: ``skill_loss/code``, ``skill_sem/code`` and so on.

    Args:
        group: ``skill``, ``skill_held_out``, ``set``; a validation set is ``set`` with the name ``val/CATEGORY``, which
            becomes ``val_loss/CATEGORY``.
    """
    prefix, last = ("val", name.removeprefix("val/")) if name.startswith("val/") else (group, name)
    numbers = {"loss": value.loss, "sem": value.sem, "bpb": value.bpb, "count": value.count, "tokens": value.tokens}
    return {f"{prefix}_{quantity}/{last}": float(number) for quantity, number in numbers.items()}


def pooled(parts: list[Measurement]) -> Measurement:
    """Unweighted mean over sets with disjoint items: a skill from its data sets.

    Raises:
        ValueError: no parts.
    """
    if not parts:
        raise ValueError("a mean over no sets has no value; measure at least one set")
    k = len(parts)
    return Measurement(
        loss=math.fsum(part.loss for part in parts) / k,
        sem=math.sqrt(math.fsum(part.sem**2 for part in parts)) / k,
        bpb=math.fsum(part.bpb for part in parts) / k,
        count=sum(part.count for part in parts),
        tokens=sum(part.tokens for part in parts),
    )
