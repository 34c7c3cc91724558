"""The record of a run: every name, type and unit that goes into the tracking store, declared once.

``tracking`` writes a record and reads it back typed. No other room spells an MLflow key of a run.
"""

import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from enum import StrEnum
from typing import Any, TypeVar

from skillscale.formatting import format_count, format_flops, format_percent
from skillscale.point import DesignPoint

_T = TypeVar("_T")
_MAX_TARGETS, _MAX_SKILLS, _MAX_LAWS = 16, 12, 4  # kept in the tag of a proposal's reason
_NAME_LIMIT = 120


class RunState(StrEnum):
    """The state of a run. ``failed``: an error or divergence; ``killed``: stopped from outside."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    KILLED = "killed"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A mean loss over a set of items.

    ``loss``: nats per token, total NLL over total tokens. ``sem``: its standard error over items (ratio estimator).
    ``bpb``: bits per byte. ``bpb_sem``: its standard error. ``count``: items. ``tokens``: target tokens. An imported
    table may give the loss alone: then the other means are NaN, and the counts are 0.
    """

    loss: float = field(metadata={"unit": "nats/token"})
    sem: float = field(default=math.nan, metadata={"unit": "nats/token"})
    bpb: float = field(default=math.nan, metadata={"unit": "bits/byte"})
    bpb_sem: float = field(default=math.nan, metadata={"unit": "bits/byte"})
    count: int = field(default=0, metadata={"unit": "items"})
    tokens: int = field(default=0, metadata={"unit": "tokens"})


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """The size of a model under each convention, and its shape. ``n_params = n_params_embed + n_params_nonembed``."""

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
    """The hyperparameters of a run: peak learning rate, batch in sequences, steps and warm-up steps.

    ``stable_phase``: name of the stable phase that this run shares with runs of other D, and with it their noise. It is
    empty without one. With a stable phase, ``batch_sequences`` is the last batch, and ``decay_steps`` are the steps of
    the cooldown.
    """

    lr: float
    batch_sequences: int
    steps: int
    warmup_steps: int
    decay_steps: int = 0
    stable_phase: str = field(default="", metadata={"key": "trunk"})


@dataclass(frozen=True, kw_only=True)
class RunCost:
    """The compute and time of a run.

    ``flops_exact``: all matrix products of the model's whole training. ``flops_spent``: 6 N times the tokens that this
    run processed itself. These are fewer than D where the run started from a stable phase that another run trained.
    ``matmul_share``: 6 N D per second over the measured peak. Speeds and times are of this run alone.
    """

    flops_exact: float = field(metadata={"unit": "FLOP"})
    tokens_per_s: float = field(metadata={"unit": "tokens/s"})
    matmul_share: float = field(metadata={"unit": "1"})
    train_s: float = field(metadata={"unit": "s"})
    eval_s: float = field(metadata={"unit": "s"})
    flops_spent: float = field(default=math.nan, metadata={"unit": "FLOP, 6 N per token"})


@dataclass(frozen=True, kw_only=True)
class DataUse:
    """The data of one category that a run saw: tokens, and epochs over the unique tokens."""

    tokens: int
    epochs: float


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The origin of a run: digests of its settings and its data, and the version of the code."""

    config_hash: str
    data_hash: str
    code_version: str


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model that was trained elsewhere.

    ``checkpoint``: its name. ``checkpoint_digest``: digest of its files and of how they are read. ``revision``: the
    commit of the download, where there is one. ``training_run``: name that all checkpoints of one training share; empty
    for a single checkpoint. ``first_token``: token before every text. ``dtype``: type of the weights.
    """

    checkpoint: str
    checkpoint_digest: str
    first_token: str
    dtype: str
    revision: str = ""
    training_run: str = ""


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set of a run. ``role`` is ``training`` or ``evaluation``; ``digest`` names the content."""

    name: str
    digest: str
    role: str
    source: str


@dataclass(frozen=True, kw_only=True)
class ProposalReason:
    """The reason why the sampler chose a point.

    ``narrowing``: share by which this run is expected to narrow the interval of each target, by target name. ``laws``:
    posterior weight of each law at that time, by skill.
    """

    purpose: str
    cost: float = field(metadata={"unit": "FLOP, overhead included"})
    narrowing: Mapping[str, float] = field(default_factory=dict)
    laws: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def mean_narrowing(self) -> float:
        """Mean expected narrowing over the targets; 0 without targets."""
        return math.fsum(self.narrowing.values()) / len(self.narrowing) if self.narrowing else 0.0

    @property
    def sentence(self) -> str:
        """As in ``plan: 1.3e12 FLOP, narrows intervals by 3.1 % on average, most by 12 % (ln N*(code) at 1e21)``."""
        text = f"{self.purpose}: {format_flops(self.cost)} FLOP"
        if self.narrowing:
            target, largest = max(self.narrowing.items(), key=lambda item: item[1])
            text += f", narrows intervals by {format_percent(self.mean_narrowing)} on average"
            # Names of targets are stored with the sign that Python writes
            text += f", most by {format_percent(largest)} ({target.replace('e+', 'e')})"
        return text

    def as_text(self) -> str:
        """Return JSON that fits into one MLflow tag: of many targets, skills or laws only the largest numbers."""
        laws = {skill: _largest(self.laws[skill], _MAX_LAWS) for skill in list(self.laws)[:_MAX_SKILLS]}
        values = {"purpose": self.purpose, "cost": self.cost, "fall": _largest(self.narrowing, _MAX_TARGETS)}
        return json.dumps(values | {"laws": laws}, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> "ProposalReason":
        """Invert ``as_text``."""
        values = json.loads(text)
        return cls(narrowing=values.pop("fall"), **values)


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One training run in the tracking store. A measurement that failed is absent, never a number.

    ``skills``: losses on the hypothesis split, by skill. ``skills_held_out``: losses on the held-out split. ``sets``:
    losses by evaluation set; ``val/CATEGORY`` is the validation set of a category. ``data_use``: by category.
    ``exposures``: mean mentions of a fact, where facts are counted. ``purpose``: purpose of the sampler; empty for a
    point that it did not choose. ``checkpoint``: the model, if it was trained elsewhere.
    """

    run_id: str
    study: str
    state: RunState
    reason: str
    point: DesignPoint
    size: ModelSize | None = None
    optimizer_plan: OptimizerPlan | None = None
    provenance: Provenance | None = None
    cost: RunCost | None = None
    data_use: Mapping[str, DataUse] = field(default_factory=dict)
    exposures: float | None = None
    skills: Mapping[str, Measurement] = field(default_factory=dict)
    skills_held_out: Mapping[str, Measurement] = field(default_factory=dict)
    sets: Mapping[str, Measurement] = field(default_factory=dict)
    purpose: str = ""
    checkpoint: Checkpoint | None = None

    @property
    def mean_loss(self) -> float | None:
        """Mean loss over the skills in nats per token, for Optuna's dashboard; None without a measured skill."""
        losses = [measurement.loss for measurement in self.skills.values()]
        return math.fsum(losses) / len(losses) if losses else None


# Keys in MLflow. Params are text. Each of METRIC_NUMBERS is also a metric, with its log10, for the charts.
PARAM_KEYS = (
    "n_params", "n_params_nonembed", "n_params_embed", "n_tokens", "flops", "mix", "seed",
    "depth", "width", "n_heads", "vocab_size", "context",
    "lr", "batch_sequences", "steps", "warmup_steps", "decay_steps", "trunk",
    "config_hash", "data_hash", "code_version",
    "checkpoint", "checkpoint_digest", "revision", "training_run", "first_token", "dtype",
)  # fmt: skip
METRIC_NUMBERS = ("n_params", "n_params_nonembed", "n_params_embed", "n_tokens", "flops", "flops_exact")
CURVE = "train_loss"  # its step is the number of tokens
MAX_METRICS = 35  # of a run in MLflow, the curve included: a person reads no more. A file has the others
_CHARTED = ("n_params", "n_tokens", "flops", "log10_n_params", "log10_n_tokens", "log10_flops")
# What MLflow keeps first, by the part of the key before the slash. Losses and standard errors decide the fit
_METRIC_ORDER = (
    "n_params", "n_tokens", "flops", "skill_loss", "skill_sem", "log10_n_params", "log10_n_tokens", "log10_flops",
    "val_loss", "val_sem", "mix", "train_s", "eval_s", "tokens_per_s", "matmul_share", "flops_exact", "flops_spent",
    "skill_held_out_loss", "skill_held_out_sem", "skill_bpb", "skill_bpb_sem", "exposures", "n_params_nonembed",
)  # fmt: skip
# Losses of checkpoints are fitted per byte, because their tokenizers differ
_PER_BYTE = {
    "skill_bpb": "skill_loss",
    "skill_bpb_sem": "skill_sem",
    "skill_loss": "skill_bpb",
    "skill_sem": "skill_bpb_sem",
}
TAG = "skillscale."
_GROUPS = ("skill", "skill_held_out", "set", "val")
_QUANTITIES = tuple(quantity.name for quantity in fields(Measurement))
_COUNTS = ("count", "tokens")


def format_budget(flops: float) -> str:
    """Format FLOP as ``1.6e11``: one text for all points of a budget, whose 6 N D differ by the rounding of D."""
    mantissa, exponent = f"{flops:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def format_run_name(point: DesignPoint, *, with_mix: bool = False) -> str:
    """Format ``N 31.3k D 1.28M seed 1``; with the mix also its percentages, ``code 30 prose 70``."""
    name = f"N {format_count(point.n_params)} D {format_count(point.n_tokens)} seed {point.seed}"
    if not with_mix:
        return name
    shares = " ".join(f"{category} {format_count(100 * share)}" for category, share in point.mix.shares.items())
    return f"{name} {shares}"[:_NAME_LIMIT]


def as_params(record: RunRecord) -> dict[str, str]:
    """Return the MLflow params of a run. Absent parts have none, and floats read back equal."""
    point = record.point
    values: dict[str, object] = {"n_tokens": point.n_tokens, "flops": point.flops, "mix": point.mix, "seed": point.seed}
    values["n_params"] = point.n_params
    for part in (record.size, record.optimizer_plan, record.provenance, record.checkpoint):
        if part is not None:
            values |= {
                _key(item): value for item in fields(part) if (value := getattr(part, item.name)) != item.default
            }
    return {key: str(values[key]) for key in PARAM_KEYS if values.get(key, "") != ""}


def as_metrics(record: RunRecord) -> dict[str, float]:
    """Return the MLflow metrics of a run. Absent parts and measurements without a finite loss have none.

    Infinity becomes NaN, because MLflow would store the largest float in its place.
    """
    numbers = _sizes_and_costs(record)
    metrics = numbers | {f"log10_{key}": math.log10(numbers[key]) for key in METRIC_NUMBERS if numbers.get(key, 0) > 0}
    metrics |= {f"mix/{category}": share for category, share in record.point.mix.shares.items()}
    for category, use in record.data_use.items():
        metrics |= {f"data_tokens/{category}": use.tokens, f"data_epochs/{category}": use.epochs}
    if record.exposures is not None:
        metrics["exposures"] = record.exposures
    for group, measurements in _measurement_groups(record):
        for name, measurement in measurements.items():
            if math.isfinite(measurement.loss):
                metrics |= measurement_as_metrics(group, name, measurement)
    return {key: math.nan if math.isinf(value) else float(value) for key, value in metrics.items()}


def begin_metrics(record: RunRecord) -> dict[str, float]:
    """Return the metrics that a run has before its training: its sizes for the charts."""
    return {key: value for key, value in as_metrics(record).items() if key in _CHARTED}


def split_metrics(record: RunRecord, written: Collection[str] = ()) -> tuple[dict[str, float], dict[str, float]]:
    """Split the metrics of a run into those for MLflow, at most ``MAX_METRICS`` with the curve, and the others.

    Args:
        record: run with its results.
        written: keys that MLflow has; they stay there and are in neither part.
    """
    metrics = {key: value for key, value in as_metrics(record).items() if key not in written}
    order = [_PER_BYTE.get(name, name) if record.checkpoint else name for name in _METRIC_ORDER]
    ranks = {name: rank for rank, name in enumerate(order)}
    ranked = sorted(metrics, key=lambda key: (ranks.get(key.partition("/")[0], len(ranks)), key))
    room = max(0, MAX_METRICS - len({*written, CURVE}))
    return {key: metrics[key] for key in ranked[:room]}, {key: metrics[key] for key in ranked[room:]}


def _sizes_and_costs(record: RunRecord) -> dict[str, float]:
    """Return the charted sizes and all costs of a run; ``flops_spent`` only where it is counted."""
    numbers: dict[str, float] = {"n_params": record.point.n_params}
    numbers |= {"n_tokens": record.point.n_tokens, "flops": record.point.flops}
    for part in (record.size, record.cost):
        if part is not None:
            numbers |= {item.name: getattr(part, item.name) for item in fields(part)}
    if math.isnan(numbers.get("flops_spent", 0)):
        del numbers["flops_spent"]
    charted = {*METRIC_NUMBERS, *(item.name for item in fields(RunCost))}
    return {key: value for key, value in numbers.items() if key in charted}


def read_record(
    params: Mapping[str, str], metrics: Mapping[str, float], *, run_id: str, study: str, state: RunState, reason: str,
    point: DesignPoint, purpose: str = "",
) -> RunRecord:  # fmt: skip
    """Invert ``as_params`` and ``as_metrics``. A part that lacks a field is absent."""
    measurements = read_measurements(metrics)
    return RunRecord(
        run_id=run_id,
        study=study,
        state=state,
        reason=reason,
        point=point,
        size=_read_part(ModelSize, params),
        optimizer_plan=_read_part(OptimizerPlan, params),
        provenance=_read_part(Provenance, params),
        cost=_read_part(RunCost, metrics),
        data_use={
            name: DataUse(tokens=int(tokens), epochs=metrics[f"data_epochs/{name}"])
            for name, tokens in _with_prefix("data_tokens", metrics).items()
            if f"data_epochs/{name}" in metrics
        },
        exposures=metrics.get("exposures"),
        skills=measurements["skill"],
        skills_held_out=measurements["skill_held_out"],
        sets=measurements["set"] | {f"val/{name}": value for name, value in measurements["val"].items()},
        purpose=purpose,
        checkpoint=_read_part(Checkpoint, params),
    )


def measurement_as_metrics(group: str, name: str, measurement: Measurement) -> dict[str, float]:
    """Return the MLflow metrics of one measurement: ``skill_loss/code``, ``skill_sem/code`` and so on.

    NaN and counts of 0 are absent, except the loss.

    Args:
        group: ``skill``, ``skill_held_out`` or ``set``.
        name: skill or evaluation set. A validation set is ``val/CATEGORY`` and becomes ``val_loss/CATEGORY``.
        measurement: the values.
    """
    prefix, last = ("val", name.removeprefix("val/")) if name.startswith("val/") else (group, name)
    numbers = {quantity: float(getattr(measurement, quantity)) for quantity in _QUANTITIES}
    absent = {key for key, number in numbers.items() if math.isnan(number) or (key in _COUNTS and not number)}
    return {f"{prefix}_{key}/{last}": number for key, number in numbers.items() if key == "loss" or key not in absent}


def read_measurements(metrics: Mapping[str, float]) -> dict[str, dict[str, Measurement]]:
    """Read the measurements by group (``skill``, ``skill_held_out``, ``set``, ``val``) and name."""
    by_prefix: dict[str, dict[str, float]] = {}
    for key, value in metrics.items():
        prefix, _, name = key.partition("/")
        by_prefix.setdefault(prefix, {})[name] = value
    return {group: _read_group(group, by_prefix) for group in _GROUPS}


def _read_group(group: str, by_prefix: Mapping[str, Mapping[str, float]]) -> dict[str, Measurement]:
    columns = {quantity: by_prefix.get(f"{group}_{quantity}", {}) for quantity in _QUANTITIES}
    measurements = {
        name: _read_part(Measurement, {key: column[name] for key, column in columns.items() if name in column})
        for name in columns["loss"]
    }
    return {name: measurement for name, measurement in measurements.items() if measurement is not None}


def average_measurements(measurements: list[Measurement]) -> Measurement:
    """Return the unweighted mean over sets with disjoint items: a skill from its evaluation sets.

    Raises:
        ValueError: the list is empty.
    """
    if not measurements:
        raise ValueError("a mean over no sets has no value. Measure at least one set.")
    k = len(measurements)
    return Measurement(
        loss=math.fsum(measurement.loss for measurement in measurements) / k,
        sem=math.sqrt(math.fsum(measurement.sem**2 for measurement in measurements)) / k,
        bpb=math.fsum(measurement.bpb for measurement in measurements) / k,
        bpb_sem=math.sqrt(math.fsum(measurement.bpb_sem**2 for measurement in measurements)) / k,
        count=sum(measurement.count for measurement in measurements),
        tokens=sum(measurement.tokens for measurement in measurements),
    )


def _measurement_groups(record: RunRecord) -> Iterable[tuple[str, Mapping[str, Measurement]]]:
    return (("skill", record.skills), ("skill_held_out", record.skills_held_out), ("set", record.sets))


def _with_prefix(prefix: str, metrics: Mapping[str, float]) -> dict[str, float]:
    return {key.removeprefix(f"{prefix}/"): value for key, value in metrics.items() if key.startswith(f"{prefix}/")}


def _largest(numbers: Mapping[str, float], count: int) -> dict[str, float]:
    """Return the ``count`` largest numbers, to four digits."""
    names = sorted(numbers, key=lambda name: -numbers[name])[:count]
    return {name: float(f"{numbers[name]:.4g}") for name in names}


def _key(item: "Field[Any]") -> str:
    """Return the MLflow key of a field: its name, or the name under which version 0.1 stored it."""
    return str(item.metadata.get("key", item.name))


def _read_part(kind: type[_T], values: Mapping[str, object]) -> _T | None:
    """Build a dataclass from values by MLflow key; None if a field without a default has no value."""
    items = fields(kind)  # type: ignore[arg-type]
    if any(_key(item) not in values and item.default is MISSING for item in items):
        return None
    return kind(**{item.name: item.type(values[_key(item)]) for item in items if _key(item) in values})  # type: ignore[operator]
