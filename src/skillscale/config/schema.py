"""The schema of the settings in ``conf/``: frozen values with a check of every field.

Each noun (data, skills, model, train, study, sample, laws) is a class, and the defaults are in its file of ``conf/``.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field

from skillscale.config.readers import finite, key_values
from skillscale.errors import InputError
from skillscale.formatting import did_you_mean, to_plain
from skillscale.point import Mix, check_name, check_skill_name, digest

NOUNS = ("data", "skills", "model", "train", "study", "sample", "laws")
# Settings of training that say where and how fast, and move no more than the last digits of a loss
_WHERE_AND_HOW = (
    "device", "threads", "checkpoint_every_s", "devices", "nodes", "strategy", "compile", "checkpoint_activations",
)  # fmt: skip
_STORED_NAMES = {"final_lr_ratio": "decay_to", "cooldown_fraction": "decay_share", "max_loss": "diverged_above"}
_STRICT_KEYS = ConfigDict(extra="forbid")
_T = TypeVar("_T")


def _whole(value: object) -> object:
    """Return the number in a text such as 1e7, which YAML 1.1 reads as text."""
    if isinstance(value, str) and "e" in value.lower():
        with contextlib.suppress(ValueError):
            return float(value)
    return value


def _off(value: object) -> object:
    """Return ``off``, which YAML 1.1 reads as false."""
    return "off" if value is False else value


Count = Annotated[int, Field(ge=1), BeforeValidator(_whole)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """A source of documents.

    Args:
        path: ``embedded:NAME`` (built from packages), a folder or file of parquet, jsonl or csv, or a hub id.
        config: Configuration of a hub data set, as in ``sample-10BT``; empty: its default.
        split: Split of a hub data set or of an embedded corpus. A file has one split.
        column: Column that holds the text.
        streaming: Whether to read a hub data set as a stream, without a copy on disk.
        weight: Weight of this source in its category, where ``max_bytes`` limits the bytes.
    """

    __pydantic_config__ = _STRICT_KEYS

    path: str
    config: str = ""
    split: str = "train"
    column: str = "text"
    streaming: bool = True
    weight: Positive = 1.0


@dataclass(frozen=True, kw_only=True)
class CategoryConfig:
    """One category of training data.

    Args:
        name: Name of the category in the mixes of a study.
        sources: Sources of its documents, read one after the other.
        max_bytes: Maximum UTF-8 bytes to read, divided among the sources by weight. Empty: no limit.
        validation: Source of the validation set; empty: a part of the sources.
        validation_share: Share of the documents that is held out for validation, where it has no source.
        validation_bytes: Maximum bytes of the validation set.
    """

    __pydantic_config__ = _STRICT_KEYS

    name: str
    sources: Annotated[tuple[SourceConfig, ...], Field(min_length=1)]
    max_bytes: Count | None = None
    validation: SourceConfig | None = None
    validation_share: Share = 0.01
    validation_bytes: Count = 100_000

    def __post_init__(self) -> None:
        check_name(self.name, "a category")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The training data.

    Args:
        name: Name of the data, equal to its file's.
        categories: Categories that a mix consists of.
        tokenizer: A tokenizer.json file; empty: train one on the categories.
        vocab_size: Vocabulary of the trained tokenizer, tokens.
        tokenizer_bytes: Text that the tokenizer is trained on, bytes.
        preset: Size of the embedded corpora. It has no effect on other data.
        zipf_exponent: Decay of an entity's mentions with its rank; 0: equal mentions.
    """

    __pydantic_config__ = _STRICT_KEYS

    name: str
    categories: Annotated[tuple[CategoryConfig, ...], Field(min_length=1)]
    tokenizer: str = ""
    vocab_size: Annotated[int, Field(ge=257, le=1_000_000)] = 512
    tokenizer_bytes: Count = 8_000_000
    preset: Literal["tiny", "small", "medium", "full"] = "tiny"
    zipf_exponent: Annotated[float, Field(ge=0, le=3)] = 0.75

    def __post_init__(self) -> None:
        _refuse_repeats("category", [category.name for category in self.categories])

    @property
    def category_names(self) -> tuple[str, ...]:
        """Names of the categories, in the order of the file."""
        return tuple(category.name for category in self.categories)


@dataclass(frozen=True, kw_only=True)
class EvalSetConfig:
    r"""A set of items to measure: a prompt, and the completion whose NLL counts.

    Args:
        name: Name of the set.
        path: ``embedded:NAME``, a folder or file of parquet, jsonl or csv, or a hub id.
        config: Configuration of a hub data set; empty: its default.
        split: Split of a hub data set.
        prompt: Template over the columns, as in ``Question: {question}\nAnswer:``; empty: the whole text counts.
        completion: Template over the columns, for the text that is measured.
        max_items: Number of first items that are measured; empty: all.
        where: Values by column whose rows count, as in ``{subject: [anatomy]}``; empty: all rows.
    """

    __pydantic_config__ = _STRICT_KEYS

    name: str
    path: str
    config: str = ""
    split: str = "test"
    prompt: str = "{prompt}"
    completion: str = "{completion}"
    max_items: Count | None = None
    where: Mapping[str, tuple[str | int | float, ...]] = Field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.name, "an evaluation set")


@dataclass(frozen=True, kw_only=True)
class SkillConfig:
    """A skill: the mean over its sets of the NLL of the right answer.

    Args:
        name: Name of the skill.
        hypothesis: Evaluation sets that decide a verdict.
        held_out: Other evaluation sets, which confirm a verdict; empty: none.
        category: Category of the training data that the skill depends on; empty: none.
    """

    __pydantic_config__ = _STRICT_KEYS

    name: str
    hypothesis: Annotated[tuple[str, ...], Field(min_length=1)]
    held_out: tuple[str, ...] = ()
    category: str = ""

    def __post_init__(self) -> None:
        check_skill_name(self.name)


@dataclass(frozen=True, kw_only=True)
class SkillsConfig:
    """The skills that every run is measured on, and their evaluation sets.

    Args:
        name: Name of this choice of skills, equal to its file's.
        sets: Evaluation sets that are measured. A set without a skill gets no verdict.
        skills: Skills, each the mean of some sets.
    """

    __pydantic_config__ = _STRICT_KEYS

    name: str
    sets: Annotated[tuple[EvalSetConfig, ...], Field(min_length=1)]
    skills: Annotated[tuple[SkillConfig, ...], Field(min_length=1)]

    def __post_init__(self) -> None:
        names = [item_set.name for item_set in self.sets]
        _refuse_repeats("evaluation set", names)
        _refuse_repeats("skill", [skill.name for skill in self.skills])
        for skill in self.skills:
            for name in (*skill.hypothesis, *skill.held_out):
                if name not in names:
                    raise InputError(
                        f"skill {skill.name} names no evaluation set: {name!r}. There are {', '.join(names)}."
                    )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of a model, apart from its size N.

    Args:
        context: Tokens of a sequence, in training and in evaluation.
        head_dim: Width of an attention head; larger models have wider heads.
        depth_coefficient: c of the depth, max(2, c N^e) layers.
        depth_exponent: e of the depth.
    """

    __pydantic_config__ = _STRICT_KEYS

    context: Annotated[int, Field(ge=8, le=1_000_000)]
    head_dim: Annotated[int, Field(ge=2, le=512)]
    depth_coefficient: Positive
    depth_exponent: Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The optimizer, and the rule for learning rate and batch (``lm/train/hyperparameters.py`` explains it).

    Args:
        lr_coefficient: c of the peak learning rate c N^a D^b; N excludes the embedding.
        lr_params_exponent: a of the learning rate.
        lr_tokens_exponent: b of the learning rate.
        lr_max: upper limit of the learning rate.
        batch_coefficient: c of the batch, c D^b tokens.
        batch_tokens_exponent: b of the batch.
        batch_min: smallest batch, tokens.
        batch_max: largest batch, tokens.
        warmup_share: share of the steps in which the learning rate rises from 0.
        final_lr_ratio: learning rate after the last step, as a share of the peak.
        weight_decay: AdamW weight decay.
        beta1: AdamW beta 1.
        beta2: AdamW beta 2.
        clip_norm: largest norm of the gradients; longer ones are scaled down to it.
        max_loss: loss, nats per token, above which a run counts as diverged.
        threads: CPU threads per process. Another number changes the order of floating-point sums, and thus the last
            digits.
        precision: precision of the arithmetic.
        device: device to train on; auto takes a GPU if there is one.
        checkpoint_every_s: seconds between checkpoints, from which a stopped run resumes.
        schedule: linear decays the rate over the whole of each run; wsd (warm-up, stable phase, decay) lets runs
            that differ in D alone share their tokens up to the cooldown (docs/guide/howto/branching.md).
        cooldown_fraction: share of a run's tokens in its cooldown, for wsd.
        devices: devices per node that share each batch; all devices together must divide it.
        nodes: machines that share a run; srun or torchrun starts them.
        strategy: ddp keeps the whole model on each device; fsdp keeps a part of it; auto is ddp.
        compile: mode of torch.compile; reduce-overhead uses CUDA graphs.
        checkpoint_activations: whether to keep only the inputs of each block and recompute the rest in the backward
            pass.
    """

    __pydantic_config__ = _STRICT_KEYS

    lr_coefficient: Positive
    lr_params_exponent: float
    lr_tokens_exponent: float
    lr_max: Positive
    batch_coefficient: Positive
    batch_tokens_exponent: float
    batch_min: Count
    batch_max: Count
    warmup_share: Share
    final_lr_ratio: Share
    weight_decay: Annotated[float, Field(ge=0)]
    beta1: Share
    beta2: Share
    clip_norm: Positive
    max_loss: Positive
    threads: Annotated[Count, Field(le=10_000)]
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    checkpoint_every_s: Positive = 60.0
    schedule: Literal["linear", "wsd"] = "linear"
    cooldown_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    devices: Count = 1
    nodes: Count = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    compile: Annotated[Literal["off", "default", "reduce-overhead", "max-autotune"], BeforeValidator(_off)] = "off"
    checkpoint_activations: bool = False

    def __post_init__(self) -> None:
        if self.n_devices == 1 and self.strategy != "auto":
            raise InputError(
                f"train.strategy {self.strategy} is for several devices, but train.devices and train.nodes are 1. Set "
                "more devices, or set the strategy to auto."
            )
        if self.n_devices > 1 and self.compile not in ("off", "default"):
            raise InputError(
                f"train.compile {self.compile} records graphs of one device, but train.devices x train.nodes is "
                f"{self.n_devices}. Choose default or off."
            )

    @property
    def n_devices(self) -> int:
        """Number of devices of a run, on all nodes."""
        return self.devices * self.nodes

    @property
    def arithmetic(self) -> dict[str, Any]:
        """The settings that the losses of a run depend on, with the names of version 0.1.

        They go into hashes and stored studies, so that runs of version 0.1 and later can be compared.
        """
        values = {key: value for key, value in asdict(self).items() if key not in _WHERE_AND_HOW}
        stored = {_STORED_NAMES.get(key, key): value for key, value in values.items()}
        if self.schedule == "linear":  # version 0.1 began without a schedule
            del stored["schedule"], stored["decay_share"]
        else:
            stored["schedule"] = "trunk"
        return stored


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """The points of a study, and the statistics of its analysis.

    Args:
        name: Name of the study, and of its experiments in MLflow.
        data: Name in conf/data, where the command names no other.
        skills: Name in conf/skills, where the command names no other.
        mixes: Shares of the categories; the first mix is the base.
        mix_multipliers: Factors by category. Each multiplies the category's weight in the base mix and adds one mix
            (Roberts et al. 2025).
        budgets: Budgets of the isoFLOP grid, FLOP (6 N D).
        sizes: Number of models at each budget.
        span: Range of the sizes, from the expected optimum / span to the optimum x span.
        n_params: Smallest and largest size of the grid.
        optimum_coefficient: c of the expected optimum c C^e.
        optimum_exponent: e of the expected optimum.
        seeds: Replicates at each budget: one number for all, or one for each budget.
        first_seed: Seed of the first replicate.
        aggregate: Weights of evaluation sets in the reference (``val/CATEGORY``: a category's validation set). Empty:
            the validation sets, weighted by the mix.
        resamples: Number of resamples for the intervals.
        level: Level of the intervals, 0 to 1.
    """

    __pydantic_config__ = _STRICT_KEYS

    name: str
    data: str = "embedded"
    skills: str = "embedded"
    mixes: Annotated[tuple[Mapping[str, float], ...], Field(min_length=1)]
    mix_multipliers: Mapping[str, tuple[Positive, ...]] = Field(default_factory=dict)
    budgets: Annotated[tuple[Positive, ...], Field(min_length=1)]
    sizes: Annotated[int, Field(ge=1, le=100)]
    span: Annotated[float, Field(ge=1)]
    n_params: tuple[Positive, Positive] = (1, 1e13)
    optimum_coefficient: Positive
    optimum_exponent: Annotated[float, Field(gt=0, lt=1)]
    seeds: Annotated[tuple[Annotated[Count, Field(le=100_000)], ...], Field(min_length=1)]
    first_seed: Annotated[int, Field(ge=0)] = 0
    aggregate: Mapping[str, float] = Field(default_factory=dict)
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 1000
    level: Annotated[float, Field(gt=0, lt=1)] = 0.9

    def __post_init__(self) -> None:
        if len(self.seeds) not in (1, len(self.budgets)):
            raise InputError(
                f"study.seeds must give one number, or one a budget, but has {len(self.seeds)} for "
                f"{len(self.budgets)} budgets"
            )

    @property
    def mix_values(self) -> tuple[Mix, ...]:
        """The mixes, with those of ``mix_multipliers``, each once; checked."""
        base = Mix(self.mixes[0])
        named = [Mix(shares) for shares in self.mixes]
        made = [base.multiply(name, factor) for name, factors in self.mix_multipliers.items() for factor in factors]
        return tuple(dict.fromkeys([*named, *made]))


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """The runs that the sampler may make, its targets, and when it stops. The study fills in empty values.

    Args:
        flops_min: Smallest 6 N D of one run, FLOP; null: a thousandth of flops_max.
        flops_max: Largest 6 N D of one run, FLOP; null: the largest budget of the study, or run of the table.
        n_params: Smallest and largest N.
        n_tokens: Smallest and largest D, tokens.
        ratio: Smallest and largest D / N.
        sizes: The sizes N that exist; empty: any, or the ladder of our models.
        mixes: Mixes that may be trained on; targets are on the first.
        max_epochs: Epochs of a category's tokens that a run may take.
        replicates: Maximum runs of one point, each with another seed.
        overhead: Cost of starting a run, FLOP.
        budget: Compute of all sampled runs, FLOP.
        runs: Maximum number of sampled runs.
        share_after_grid: Share of the grid's FLOPs and runs that ``main`` adds as sampled runs.
        target_skills: Skills to learn about.
        weights: Weights of skills, 1 by default.
        target_flops: Budgets C of the optima to learn, FLOP.
        target_half_width: Half width of the widest interval, in ln N, at which sampling stops.
    """

    __pydantic_config__ = _STRICT_KEYS

    flops_min: Positive | None
    flops_max: Positive | None
    n_params: tuple[Positive, Positive]
    n_tokens: tuple[Positive, Positive]
    ratio: tuple[Positive, Positive]
    sizes: tuple[Count, ...]
    mixes: tuple[Mapping[str, float], ...]
    max_epochs: Positive | Mapping[str, Positive] | None
    replicates: Annotated[Count, Field(le=10_000)]
    overhead: Annotated[float, Field(ge=0)] | None
    budget: Positive | None
    runs: Count | None
    share_after_grid: Annotated[float, Field(ge=0)]
    target_skills: tuple[str, ...]
    weights: Mapping[str, Positive]
    target_flops: tuple[Positive, ...]
    target_half_width: Annotated[float, Field(ge=0)]

    def __post_init__(self) -> None:
        _refuse_repeats("skill", list(self.target_skills))
        for name in ("n_params", "n_tokens", "ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise InputError(f"sample.{name} must run from the least to the largest, but it is [{low:g}, {high:g}]")

    @property
    def mix_values(self) -> tuple[Mix, ...]:
        """The mixes, checked."""
        return tuple(Mix(shares) for shares in self.mixes)


def _names(value: object) -> object:
    """Return the names in ``a,b`` or in a YAML list."""
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


def _numbers_by_name(value: object) -> object:
    """Return the numbers in ``a=1,b=2`` or in a YAML mapping."""
    return key_values(finite)(value) if isinstance(value, str) else value


@dataclass(frozen=True, kw_only=True)
class LawConfig:
    """How laws are fitted.

    Args:
        law: Name of the law; empty: the one that best predicts larger runs that are held out.
        objective: Loss function of the residuals of ln L; with ``_raw``: of L.
        huber_delta: Residual at which Huber's loss turns linear, in ln L; null: twice the noise of the runs.
        weights: Weight runs equally, or by 1 / sem^2.
        fix: Parameters with given values, as in ``alpha=0.34``.
        tie: Parameters that all skills share, as in ``exponents,E``.
        partial_pool: Parameters that lean together, with the standard deviation between skills: ``alpha=0.05``.
        bootstrap: What is resampled for intervals: signs of residuals (wild), runs, budgets; laplace: none, quick.
        isoflop_curve: Polynomial of each isoFLOP curve: ``shared`` shape across budgets, or independent ones.
    """

    __pydantic_config__ = _STRICT_KEYS

    law: str
    objective: Literal[
        "huber", "least_squares", "least_absolute", "huber_raw", "least_squares_raw", "least_absolute_raw"
    ]
    huber_delta: Positive | None
    weights: Literal["equal", "sem"]
    fix: Annotated[Mapping[str, float], BeforeValidator(_numbers_by_name)]
    tie: Annotated[tuple[str, ...], BeforeValidator(_names)]
    partial_pool: Annotated[Mapping[str, Positive], BeforeValidator(_numbers_by_name)]
    bootstrap: Literal["wild", "run", "budget", "laplace"]
    isoflop_curve: Literal["shared", "quadratic", "cubic"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of a command, resolved.

    ``overrides`` has the settings that were given on the command line, as texts by their dotted names.
    """

    data: DataConfig
    skills: SkillsConfig
    model: ModelConfig
    train: TrainConfig
    study: StudyConfig
    sample: SampleConfig
    laws: LawConfig
    overrides: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for mix in self.study.mix_values:
            check_mix(mix, self.data)
        weights = self.study.aggregate.values()
        if weights and (min(weights) < 0 or sum(weights) <= 0):
            raise InputError(
                f"study.aggregate must have weights from 0, not all 0, but it is {dict(self.study.aggregate)}. Make "
                "it empty to weight the validation sets by the mix."
            )
        sets = {item_set.name for item_set in self.skills.sets} | {f"val/{name}" for name in self.data.category_names}
        for name in self.study.aggregate:
            if name not in sets:
                raise InputError(
                    f"study.aggregate names no evaluation set: {name!r}. There are {', '.join(sorted(sets))}."
                )

    def as_dict(self) -> dict[str, Any]:
        """Return the resolved settings as plain values for YAML or JSON."""
        return {noun: to_plain(getattr(self, noun)) for noun in NOUNS}

    @property
    def measured_dict(self) -> dict[str, Any]:
        """The settings that decide what a run measures: two runs of one study must agree on all of them."""
        whole = self.as_dict()
        whole["train"] = to_plain(self.train.arithmetic)
        del whole["study"], whole["sample"], whole["laws"]
        # The name of version 0.1, as hashes and stored studies have it
        whole["data"]["popularity"] = whole["data"].pop("zipf_exponent")
        whole["skills"]["sets"] = [kept_settings(item_set) for item_set in whole["skills"]["sets"]]
        return whole

    @property
    def hash(self) -> str:
        """Name of ``measured_dict`` by content."""
        return digest(self.measured_dict)


def check_mix(mix: Mix, data: DataConfig) -> None:
    """Refuse a mix that names a category the data don't have.

    Raises:
        InputError: naming the category and those there are.
    """
    for name in mix.shares:
        if name not in data.category_names:
            near = did_you_mean(name, data.category_names)
            raise InputError(
                f"mix names no category: {name!r}{near}. {data.name} has {', '.join(data.category_names)}."
            )


def kept_settings(evaluation_set: Mapping[str, Any]) -> dict[str, Any]:
    """Return a set's settings without an empty ``where``, so that older measurements keep their hash."""
    return {key: value for key, value in evaluation_set.items() if key != "where" or value}


def _refuse_repeats(what: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{what} {name!r} is named twice. Name each once.")
