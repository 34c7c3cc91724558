"""The record of a run: every name, type and unit that goes into the registry, declared once.

``tracking`` writes these and reads them back typed; nobody else spells a key of MLflow.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from typing import TypeVar

from skillscale.formatting import format_count
from skillscale.point import DesignPoint

_T = TypeVar("_T")
_FALLS_KEPT, _SKILLS_KEPT, _WEIGHTS_KEPT = 16, 12, 4
_NAME_LIMIT = 120


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
    ``bpb``: bits per byte, and ``bpb_sem`` its own; ``count``: items; ``tokens``: target tokens. What is not known (the
    tables of others tell little more than losses) is NaN, and 0 where it counts.
    """

    loss: float = field(metadata={"unit": "nats/token"})
    sem: float = field(default=math.nan, metadata={"unit": "nats/token"})
    bpb: float = field(default=math.nan, metadata={"unit": "bits/byte"})
    bpb_sem: float = field(default=math.nan, metadata={"unit": "bits/byte"})
    count: int = field(default=0, metadata={"unit": "items"})
    tokens: int = field(default=0, metadata={"unit": "tokens"})


@dataclass(frozen=True, kw_only=True)
class ModelSize:
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
class OptimizerPlan:
    """What the rule derived for a run: peak learning rate, batch in sequences, steps, and warm-up steps.

    ``trunk``: name of the constant phase that runs of several D share, and with it their noise; empty: there is none.
    The batch is then the last, and ``decay_steps`` are those after the trunk.
    """

    lr: float
    batch_sequences: int
    steps: int
    warmup_steps: int
    decay_steps: int = 0
    trunk: str = ""


@dataclass(frozen=True, kw_only=True)
class RunCost:
    """What a run took. ``flops_exact``: matrix products; ``matmul_share``: 6 N D a second over the measured peak.

    ``flops_spent``: 6 N times the tokens that this run itself went through, fewer than D where it went on from the
    state that another left behind. ``flops_exact`` is of the model's whole training; speeds and times are of this run.
    """

    flops_exact: float = field(metadata={"unit": "FLOP"})
    tokens_per_s: float = field(metadata={"unit": "tokens/s"})
    matmul_share: float = field(metadata={"unit": "1"})
    train_s: float = field(metadata={"unit": "s"})
    eval_s: float = field(metadata={"unit": "s"})
    flops_spent: float = field(default=math.nan, metadata={"unit": "FLOP, 6 N per token"})


@dataclass(frozen=True, kw_only=True)
class DataUse:
    """What a run saw of a category: tokens, and epochs of the unique tokens there are."""

    tokens: int
    epochs: float


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a run comes from: its settings and its data by content, and the version of the code."""

    config_hash: str
    data_hash: str
    code_version: str


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model that was trained elsewhere. ``checkpoint_digest``: names its files and how it is read by content.

    ``checkpoint``: its name; ``revision``: the commit it was downloaded at, if known; ``training_run``: checkpoints of
    one training share it; empty: it is the only one. ``first_token`` stands before every text; ``dtype``: of weights.
    """

    checkpoint: str
    checkpoint_digest: str
    first_token: str
    dtype: str
    revision: str = ""
    training_run: str = ""


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set that went into a run. ``role`` is ``training`` or ``evaluation``; ``digest`` names its content."""

    name: str
    digest: str
    role: str
    source: str


@dataclass(frozen=True, kw_only=True)
class ProposalReason:
    """Why the sampler chose a point.

    ``fall``: by which share the interval of each target is expected to narrow through this run, by the target's name;
    ``laws``: weight of each law in what was believed then, by skill.
    """

    purpose: str
    cost: float = field(metadata={"unit": "FLOP, overhead included"})
    fall: Mapping[str, float] = field(default_factory=dict)
    laws: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def gain(self) -> float:
        """Mean expected fall over the targets; 0 where none is told."""
        return math.fsum(self.fall.values()) / len(self.fall) if self.fall else 0.0

    @property
    def sentence(self) -> str:
        """As in ``plan: for 1.3e+12 FLOP, intervals narrow by 12 % in the mean, most that of ln N*(code) at 1e+21``."""
        text = f"{self.purpose}: for {self.cost:.3g} FLOP"
        if self.fall:
            most = max(self.fall, key=lambda name: self.fall[name])
            text += f", intervals narrow by {self.gain:.1%} in the mean, most by {self.fall[most]:.1%}: {most}"
        return text

    def as_text(self) -> str:
        """JSON that one tag of MLflow holds: the largest falls and weights alone where there are many."""
        laws = {skill: _largest(self.laws[skill], _WEIGHTS_KEPT) for skill in list(self.laws)[:_SKILLS_KEPT]}
        plain = {"purpose": self.purpose, "cost": self.cost, "fall": _largest(self.fall, _FALLS_KEPT), "laws": laws}
        return json.dumps(plain, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> "ProposalReason":
        """Inverse of ``as_text``."""
        return cls(**json.loads(text))


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One training run as the registry holds it. A measurement that failed is absent, never a number.

    ``sets`` by evaluation set, with ``val/CATEGORY`` for a category's validation set; ``skills`` by skill (hypothesis
    split), and ``skills_held_out`` likewise; ``uses`` by category. ``exposures``: mean mentions a fact, where facts are
    counted. ``purpose``: what the sampler chose the point for; empty where it did not. ``checkpoint``: the model, where
    it was trained elsewhere.
    """

    run_id: str
    study: str
    state: State
    reason: str
    point: DesignPoint
    size: ModelSize | None = None
    optimisation: OptimizerPlan | None = None
    provenance: Provenance | None = None
    spending: RunCost | None = None
    uses: Mapping[str, DataUse] = field(default_factory=dict)
    exposures: float | None = None
    skills: Mapping[str, Measurement] = field(default_factory=dict)
    skills_held_out: Mapping[str, Measurement] = field(default_factory=dict)
    sets: Mapping[str, Measurement] = field(default_factory=dict)
    purpose: str = ""
    checkpoint: Checkpoint | None = None

    @property
    def mean_loss(self) -> float | None:
        """Mean loss over the skills, nats per token, which Optuna's dashboard shows; None where none is measured."""
        losses = [one.loss for one in self.skills.values()]
        return math.fsum(losses) / len(losses) if losses else None


# Keys in MLflow. Params are text; each of METRIC_NUMBERS is a metric as well, with its log10, for the charts.
PARAM_KEYS = (
    "n_params", "n_params_nonembed", "n_params_embed", "n_tokens", "flops", "mix", "seed",
    "depth", "width", "n_heads", "vocab_size", "context",
    "lr", "batch_sequences", "steps", "warmup_steps", "decay_steps", "trunk",
    "config_hash", "data_hash", "code_version",
    "checkpoint", "checkpoint_digest", "revision", "training_run", "first_token", "dtype",
)  # fmt: skip
METRIC_NUMBERS = ("n_params", "n_params_nonembed", "n_params_embed", "n_tokens", "flops", "flops_exact")
CURVE = "train_loss"  # its step is the number of tokens
TAG = "skillscale."
_GROUPS = ("skill", "skill_held_out", "set", "val")
_QUANTITIES = tuple(one.name for one in fields(Measurement))
_COUNTS = ("count", "tokens")


def budget_label(flops: float) -> str:
    """``1.6e11``: one text for all points of a budget, whose 6 N D differ by the rounding of D."""
    mantissa, exponent = f"{flops:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def run_name(point: DesignPoint, *, tells_mix: bool = False) -> str:
    """As in ``N 31.3k D 1.28M seed 1``; in a study of several mixes with percentages, ``code 30 prose 70``."""
    name = f"N {format_count(point.n_params)} D {format_count(point.n_tokens)} seed {point.seed}"
    if not tells_mix:
        return name
    shares = " ".join(f"{category} {format_count(100 * share)}" for category, share in point.mix.shares.items())
    return f"{name} {shares}"[:_NAME_LIMIT]


def params_of(record: RunRecord) -> dict[str, str]:
    """MLflow params of what is known of a run; floats are written so that they read back equal."""
    point = record.point
    known: dict[str, object] = {"n_tokens": point.n_tokens, "flops": point.flops, "mix": point.mix, "seed": point.seed}
    known["n_params"] = point.n_params
    for part in (record.size, record.optimisation, record.provenance, record.checkpoint):
        if part is not None:
            known |= {one.name: value for one in fields(part) if (value := getattr(part, one.name)) != one.default}
    return {key: str(known[key]) for key in PARAM_KEYS if known.get(key, "") != ""}


def metrics_of(record: RunRecord) -> dict[str, float]:
    """MLflow metrics of what is known of a run; a measurement without a finite loss is absent.

    Infinity becomes NaN, because MLflow would store the largest float in its place.
    """
    numbers: dict[str, float] = {"n_params": record.point.n_params}
    numbers |= {"n_tokens": record.point.n_tokens, "flops": record.point.flops}
    for part in (record.size, record.spending):
        if part is not None:
            numbers |= {one.name: getattr(part, one.name) for one in fields(part)}
    if math.isnan(numbers.get("flops_spent", 0)):
        del numbers["flops_spent"]  # not told
    logs = {f"log10_{key}": math.log10(numbers[key]) for key in METRIC_NUMBERS if numbers.get(key, 0) > 0}
    charted = {*METRIC_NUMBERS, *(one.name for one in fields(RunCost))}
    metrics = {key: value for key, value in numbers.items() if key in charted} | logs
    metrics |= {f"mix/{category}": share for category, share in record.point.mix.shares.items()}
    for category, use in record.uses.items():
        metrics |= {f"data_tokens/{category}": use.tokens, f"data_epochs/{category}": use.epochs}
    if record.exposures is not None:
        metrics["exposures"] = record.exposures
    for group, measured in _measured(record):
        for name, value in measured.items():
            if math.isfinite(value.loss):
                metrics |= measurement_metrics(group, name, value)
    return {key: math.nan if math.isinf(value) else float(value) for key, value in metrics.items()}


def read_record(
    params: Mapping[str, str], metrics: Mapping[str, float], *, run_id: str, study: str, state: State, reason: str,
    point: DesignPoint, purpose: str = "",
) -> RunRecord:  # fmt: skip
    """Inverse of ``params_of`` and ``metrics_of``; a part of which anything is missing is absent."""
    measured = measurements_of(metrics)
    return RunRecord(
        run_id=run_id,
        study=study,
        state=state,
        reason=reason,
        point=point,
        size=_part(ModelSize, params),
        optimisation=_part(OptimizerPlan, params),
        provenance=_part(Provenance, params),
        spending=_part(RunCost, metrics),
        uses={
            name: DataUse(tokens=int(tokens), epochs=metrics[f"data_epochs/{name}"])
            for name, tokens in _under("data_tokens", metrics).items()
            if f"data_epochs/{name}" in metrics
        },
        exposures=metrics.get("exposures"),
        skills=measured["skill"],
        skills_held_out=measured["skill_held_out"],
        sets=measured["set"] | {f"val/{name}": value for name, value in measured["val"].items()},
        purpose=purpose,
        checkpoint=_part(Checkpoint, params),
    )


def measurement_metrics(group: str, name: str, value: Measurement) -> dict[str, float]:
    """MLflow metrics of what is known of one measurement: ``skill_loss/code``, ``skill_sem/code`` and so on.

    Args:
        group: ``skill``, ``skill_held_out``, ``set``; a validation set is ``set`` with the name ``val/CATEGORY``, which
            becomes ``val_loss/CATEGORY``.
    """
    prefix, last = ("val", name.removeprefix("val/")) if name.startswith("val/") else (group, name)
    numbers = {quantity: float(getattr(value, quantity)) for quantity in _QUANTITIES}
    unknown = {one for one, number in numbers.items() if math.isnan(number) or (one in _COUNTS and not number)}
    return {f"{prefix}_{one}/{last}": number for one, number in numbers.items() if one == "loss" or one not in unknown}


def measurements_of(metrics: Mapping[str, float]) -> dict[str, dict[str, Measurement]]:
    """Measurements by group (``skill``, ``skill_held_out``, ``set``, ``val``) and name."""
    found: dict[str, dict[str, Measurement]] = {}
    named: dict[str, dict[str, float]] = {}
    for key, value in metrics.items():
        prefix, _, name = key.partition("/")
        named.setdefault(prefix, {})[name] = value
    for group in _GROUPS:
        parts = {quantity: named.get(f"{group}_{quantity}", {}) for quantity in _QUANTITIES}
        read = {
            name: _part(Measurement, {one: part[name] for one, part in parts.items() if name in part})
            for name in parts["loss"]
        }
        found[group] = {name: value for name, value in read.items() if value is not None}
    return found


def _measured(record: RunRecord) -> tuple[tuple[str, Mapping[str, Measurement]], ...]:
    return (("skill", record.skills), ("skill_held_out", record.skills_held_out), ("set", record.sets))


def _under(prefix: str, metrics: Mapping[str, float]) -> dict[str, float]:
    return {key.removeprefix(f"{prefix}/"): value for key, value in metrics.items() if key.startswith(f"{prefix}/")}


def _largest(numbers: Mapping[str, float], count: int) -> dict[str, float]:
    """The largest numbers by name, to four digits."""
    kept = sorted(numbers, key=lambda name: -numbers[name])[:count]
    return {name: float(f"{numbers[name]:.4g}") for name in kept}


def _part(kind: type[_T], plain: Mapping[str, object]) -> _T | None:
    """A dataclass of numbers and texts from plain values by field name; absent if a field without a default is."""
    every = fields(kind)  # type: ignore[arg-type]
    if any(one.name not in plain and one.default is MISSING for one in every):
        return None
    return kind(**{one.name: one.type(plain[one.name]) for one in every if one.name in plain})  # type: ignore[operator]


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
        bpb_sem=math.sqrt(math.fsum(part.bpb_sem**2 for part in parts)) / k,
        count=sum(part.count for part in parts),
        tokens=sum(part.tokens for part in parts),
    )
