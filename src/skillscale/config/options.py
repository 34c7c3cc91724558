"""What each command is given: frozen values, one field an option of the command line.

A field declares its option once: name, type, default, help, reader and group. ``skillscale.cli`` reads these values
from the command line, and the rooms take them as arguments. Groups that several commands share are classes of their
own. A ``ShortOption`` is a short name for a setting of ``conf/``, and so no field.
"""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, cast, get_type_hints

from skillscale.config import readers
from skillscale.point import Mix

Positives = tuple[float, ...] | None
Counts = tuple[int, ...] | None
Mixes = tuple[Mix, ...] | None
_KEY = "option"
_MAY_BE_SECRET = frozenset("@?")  # in an address with a user, or with parameters
_TABLE = "CSV, Parquet, JSON lines, W&B export or lm-eval results, or a folder of them"
# Help that several commands share
_DATA = "training data: a name in conf/data, or a YAML file [the study's]"
_SKILLS = "skills to measure: a name in conf/skills, or a YAML file [the study's]"
_TRACKING = "MLflow store; empty: MLFLOW_TRACKING_URI, or sqlite in the working folder"
_CACHE = "folder for prepared data; empty: SKILLSCALE_CACHE, or ~/.cache/skillscale"
_QUEUE = "queue of the study, where machines share one; empty: SKILLSCALE_QUEUE"
_WORKERS = "processes that share the points, one thread each"
_OPTIMA = "C of the optima, FLOP; empty: 1, 10 and 100 times the largest run"
_LAWS_FROM = "laws fitted earlier: models:/NAME@champion, or a law.json; empty: fit the runs"
_PAGE = "HTML file to write; empty: skillscale-STUDY.html"
_STUDY_FILE = "name in conf/study, or a YAML file"


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option as the command line shows it.

    Args:
        name: Name on the command line, in ``MLproject`` and of the field.
        help: Noun phrase with its unit.
        read: Reader of the text; it raises ``InputError`` without the option's name.
        default: Value without the option; ``MISSING`` where the option is required.
        common: Whether ``--help`` shows the option without ``--help all``.
        group: Title under which the help lists the option.
    """

    name: str
    help: str
    read: Callable[[str], Any] = str
    default: Any = ""
    common: bool = False
    group: str = ""

    @property
    def required(self) -> bool:
        """Whether a command needs the option."""
        return self.default is MISSING

    @property
    def is_flag(self) -> bool:
        """Whether ``--name`` alone means true."""
        return self.read is readers.flag

    @property
    def default_text(self) -> str:
        """The default as a person would type it; empty where there is none or it is derived."""
        if self.default in (None, "", MISSING) or isinstance(self.default, Path | Mapping):
            return ""
        if isinstance(self.default, bool):
            return str(self.default).lower()
        if isinstance(self.default, tuple):
            return ",".join(f"{item:g}" if isinstance(item, float) else str(item) for item in self.default)
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)


@dataclass(frozen=True, kw_only=True)
class ShortOption(Option):
    """A short name for a setting of ``conf/``.

    Args:
        setting: Dotted name of the setting, as in ``laws.law``.
    """

    setting: str


def option(
    text: str, *, default: Any = "", read: Callable[[str], Any] = str, common: bool = False, factory: Any = None
) -> Any:
    """Declare an option as a field of a dataclass.

    Args:
        text: Help of the option.
        default: Value without the option; ``MISSING`` for an option that is required.
        read: Reader of the text.
        common: Whether the first level of the help shows it.
        factory: Function that makes the default, in place of ``default``.
    """
    metadata = {_KEY: (text, read, common)}
    if factory is not None:
        return field(default_factory=factory, metadata=metadata)
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


def options_of(kind: type) -> list[Option]:
    """Return the options of a dataclass and of the groups in it, in the order of their fields."""
    hints = get_type_hints(kind)
    options: list[Option] = []
    for item in fields(kind):
        if is_dataclass(hints[item.name]):
            options += options_of(cast(type, hints[item.name]))
        else:
            options.append(_option(item, getattr(kind, "GROUP", "")))
    return options


def _option(item: "Field[Any]", group: str) -> Option:
    text, read, common = item.metadata[_KEY]
    default = item.default_factory() if item.default_factory is not MISSING else item.default
    return Option(name=item.name.rstrip("_"), help=text, read=read, default=default, common=common, group=group)


def build_options(kind: type, values: Mapping[str, Any]) -> Any:
    """Return the dataclass ``kind`` with its groups, filled from ``values`` by option name.

    Options without a value keep their default.
    """
    hints = get_type_hints(kind)
    given: dict[str, Any] = {}
    for item in fields(kind):
        name = item.name.rstrip("_")
        if is_dataclass(hints[item.name]):
            given[item.name] = build_options(cast(type, hints[item.name]), values)
        elif name in values:
            given[item.name] = values[name]
    return kind(**given)


# Groups that several commands share


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """The study, and where it is kept."""

    GROUP = "the study, and where it is kept"

    study: str = option(_STUDY_FILE, default="main", common=True)
    data: str = option(_DATA)
    skills: str = option(_SKILLS)
    tracking: str = option(_TRACKING)
    cache: Path = option(
        _CACHE, read=readers.cache_folder,
        factory=readers.cache_folder,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class QueueOptions:
    """The queue of points, and what becomes of those that failed."""

    GROUP = "the queue of points"

    queue: str = option(
        "queue that machines share: a journal file, sqlite:///FILE or postgresql+psycopg2://...; "
        "empty: SKILLSCALE_QUEUE, or a journal file next to the store",
    )
    heartbeat_timeout_s: float | None = option(
        "age at which a heartbeat counts as lost, s [60]", default=None, read=readers.positive
    )
    retry_failed: bool = option("train the failed points once more", default=False, read=readers.flag)


@dataclass(frozen=True, kw_only=True)
class WorkerPoolOptions:
    """How many workers there are, and who starts them."""

    GROUP = "workers and machines"

    workers: int = option(_WORKERS, default=2, read=readers.count_to(10_000), common=True)
    launcher: str = option(
        "who starts the workers: local, slurm or ray; none: you; kubernetes: writes a Job for you to apply",
        default="local", read=readers.one_of("local", "none", "slurm", "ray", "kubernetes"), common=True,
    )  # fmt: skip
    launcher_options: Mapping[str, Any] = option(
        "options of the launcher, as in slurm_partition=gpu,gpus_per_node=1",
        read=readers.launcher_options,
        factory=dict,
    )
    job_file: str = option("YAML file for the Job of kubernetes; empty: STUDY-job.yaml", read=readers.page_file)


@dataclass(frozen=True, kw_only=True)
class UserTrainerOptions:
    """A trainer of the user's in place of ours."""

    GROUP = "a trainer of yours"

    trainer: str = option("FILE.py:function(n_params, n_tokens, mix, seed) that trains; empty: skillscale trains")
    timeout_s: float | None = option(
        "longest time of one call of the trainer, s; empty: no limit", default=None, read=readers.positive
    )


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """All that a command which trains points is given."""

    study: StudyOptions
    queue: QueueOptions
    pool: WorkerPoolOptions


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Where runs to analyse come from: a study, or a table in its place."""

    GROUP = "where the runs are from"

    study: str = option("name of a study", default="main", common=True)
    data: str = option(_DATA)
    skills: str = option(_SKILLS)
    tracking: str = option(_TRACKING)
    queue: str = option(_QUEUE)
    table: str = option(f"runs in place of a study: {_TABLE}", common=True)
    columns: str = option("YAML file that says which column is what; empty: by their names", common=True)
    n_convention: str = option(
        "what N counts: of a table, a name in its columns file [the first]; of a study, total or nonembed"
    )

    @property
    def arguments(self) -> str:
        """The options that name these runs to another command. An address that may hold a secret is excluded."""
        names = ("table", "columns") if self.table else ("study", "data", "skills", "tracking")
        given = [(name, getattr(self, name)) for name in (*names, "n_convention")]
        return " ".join(
            f"--{name} {shlex.quote(value)}" for name, value in given if value and not set(value) & _MAY_BE_SECRET
        )


# Commands


@dataclass(frozen=True, kw_only=True)
class MainOptions:
    """Options of ``main``."""

    GROUP = "the output"

    study: StudyOptions
    queue: QueueOptions
    workers: int = option(_WORKERS, default=2, read=readers.count_to(10_000), common=True)
    page: str = option(_PAGE, read=readers.page_file, common=True)


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Options of ``demo``."""

    out: str = option("folder to write the table and the page to", default="skillscale-demo", common=True)


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """Options of ``prepare``."""

    study: str = option(_STUDY_FILE, default="main", common=True)
    data: str = option(_DATA, common=True)
    skills: str = option(_SKILLS, common=True)
    cache: Path = option(
        _CACHE, read=readers.cache_folder,
        factory=readers.cache_folder, common=True,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of ``train``."""

    GROUP = "the point"

    n_params: int = option(
        "N, parameters, the embedding counted once", default=MISSING, read=readers.count, common=True
    )
    n_tokens: int | None = option("D, training tokens; or give flops", default=None, read=readers.count, common=True)
    flops: float | None = option("C = 6 N D, FLOP; or give n_tokens", default=None, read=readers.positive, common=True)
    mix: Mix | None = option(
        "shares, as in code=0.5,prose=0.5; empty: the study's first mix", default=None, read=Mix.parse, common=True
    )
    seed: int = option("seed of the weights and of the token stream", default=0, read=readers.seed, common=True)
    study: StudyOptions
    queue: QueueOptions


@dataclass(frozen=True, kw_only=True)
class GridOptions:
    """Options of ``grid``."""

    GROUP = "which points, and their cost"

    dry_run: bool = option(
        "print points, FLOP and expected time; train nothing", default=False, read=readers.flag, common=True
    )
    budgets: Positives = option(
        "C of each budget, FLOP; empty: the study's", default=None, read=readers.list_of(readers.positive)
    )
    sizes: Counts = option(
        "N of each size; empty: spread around the optimum", default=None, read=readers.list_of(readers.count)
    )
    mixes: Mixes = option("mixes between semicolons; empty: the study's", default=None, read=readers.mixes)
    seeds: Counts = option("seeds of each point; empty: the study's", default=None, read=readers.list_of(readers.seed))
    # H100 SXM, bf16 without sparsity: 989.4 TFLOP/s by its data sheet; large models reach about 0.4 of it
    gpu_flops: float = option("peak of a GPU for the dry run, FLOP/s", default=9.89e14, read=readers.positive)
    mfu: float = option("model FLOPs utilisation for the dry run, 0 to 1", default=0.4, read=readers.share)
    training: TrainingOptions


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """Options of ``worker``."""

    GROUP = "which points"

    sampled_only: bool = option("train only points that the sampler chose", default=False, read=readers.flag)
    wait_for_others: bool = option(
        "wait while other workers train, to take over what they lose", default=True, read=readers.flag
    )
    study: StudyOptions
    queue: QueueOptions
    user_trainer: UserTrainerOptions


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """Options of ``sample``."""

    GROUP = "which runs may be made"

    points: int | None = option(
        "most runs of this call; empty: as the budget allows",
        default=None,
        read=readers.count_to(1_000_000),
        common=True,
    )
    allow_new_goal: bool = option(
        "go on with another space or other targets than before", default=False, read=readers.flag
    )
    training: TrainingOptions
    user_trainer: UserTrainerOptions


@dataclass(frozen=True, kw_only=True)
class SuggestOptions:
    """Options of ``suggest``."""

    GROUP = "what to suggest"

    source: SourceOptions
    count: int = option("number of points", default=4, read=readers.count_to(1_000), common=True)
    mix: str = option("name of the mix whose runs count, where mixes have names without shares")
    file: str = option("CSV file to write the points to; empty: none", read=readers.page_file, common=True)


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """Options of ``tune``."""

    GROUP = "the search"

    n_params: Counts = option(
        "N of each size; empty: both ends of the grid", default=None, read=readers.list_of(readers.count), common=True
    )
    n_tokens: Counts = option(
        "D of each size; empty: as the grid has it", default=None, read=readers.list_of(readers.count), common=True
    )
    trials: int = option("trainings at each size", default=12, read=readers.count_to(10_000), common=True)
    study: StudyOptions


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """Options of ``fit``."""

    GROUP = "the output"

    source: SourceOptions
    flops: Positives = option(
        _OPTIMA,
        default=None,
        read=readers.list_of(readers.positive),
        common=True,
    )
    register: str = option("name under which the model registry keeps the laws; empty: none", common=True)


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Options of ``check``."""

    GROUP = "what to write"

    source: SourceOptions
    file: str = option("YAML file for the columns by their names; empty: none", read=readers.page_file, common=True)


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Options of ``report``."""

    GROUP = "the output"

    source: SourceOptions
    flops: Positives = option(
        _OPTIMA,
        default=None,
        read=readers.list_of(readers.positive),
        common=True,
    )
    page: str = option(_PAGE, read=readers.page_file, common=True)
    compare_with: str = option(
        "published optima to draw too: a name in conf/optima, or a CSV file", default="roberts2025"
    )


@dataclass(frozen=True, kw_only=True)
class BudgetOptions:
    """The budget of a plan, in FLOP or in GPU-hours."""

    GROUP = "the budget"

    flops: Positives = option(
        "C = 6 N D, FLOP; several between commas", default=None, read=readers.list_of(readers.positive), common=True
    )
    gpu_hours: Positives = option(
        "or GPU-hours, with gpu_flops and mfu", default=None, read=readers.list_of(readers.positive), common=True
    )
    gpu_flops: float | None = option(
        "peak of one GPU in the training precision, FLOP/s", default=None, read=readers.positive
    )
    mfu: float | None = option("model FLOPs utilisation, 0 to 1", default=None, read=readers.share)


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Options of ``plan``."""

    GROUP = "the goal"

    source: SourceOptions
    from_: str = option(_LAWS_FROM, common=True)
    budget: BudgetOptions
    skill_weights: Mapping[str, float] = option(
        "weights of skills, as in code=1,prose=2; empty: all equal",
        read=readers.key_values(readers.nonnegative),
        factory=dict,
        common=True,
    )
    validation: Mapping[str, float] = option(
        "weights of a validation set, to price a choice by it, as in prose=1 or aggregate=1",
        read=readers.key_values(readers.nonnegative), factory=dict,
    )  # fmt: skip
    mix: str = option("mix to train on: shares as in code=0.5,prose=0.5, or a name; empty: the runs' mean", common=True)
    bounds: Mapping[str, tuple[float, float]] = option(
        "bounds of shares in the best mix, as in code=0.1:0.5", read=readers.bounds, factory=dict, common=True
    )
    n_params: Positives = option("further sizes N to price", default=None, read=readers.list_of(readers.positive))
    compute_tolerance: float = option("share of C that counts as a small loss", default=0.01, read=readers.share)
    force: bool = option("print a plan that weak priors decide, not the runs", default=False, read=readers.flag)
    figure: str = option("SVG or PNG file of the figure; empty: none", read=readers.figure_file, common=True)


@dataclass(frozen=True, kw_only=True)
class BacktestOptions:
    """Options of ``backtest``."""

    GROUP = "the hold-out"

    source: SourceOptions
    max_flops: float | None = option(
        "C of the largest run that is fitted, FLOP", default=None, read=readers.positive, common=True
    )
    max_params: float | None = option(
        "or N of the largest run that is fitted", default=None, read=readers.positive, common=True
    )


@dataclass(frozen=True, kw_only=True)
class SimulateOptions:
    """Options of ``simulate``."""

    GROUP = "the truth, the designs and the runs"

    truth: str = option(
        "Python file with losses(n_params, n_tokens, mix, seed), or a family: chinchilla, farseer, ...",
        default=MISSING,
        common=True,
    )
    design: tuple[str, ...] = option(
        "designs between commas: bayes, grid, sobol, random, ... (others: benchmarks/design.py)",
        default=("bayes",),
        read=readers.list_of(str),
        common=True,
    )
    budget: float = option(
        "FLOP in all, overheads included; below 1e6: in units of the largest run",
        default=2.55,
        read=readers.positive,
        common=True,
    )
    seeds: int = option(
        "repetitions; of a family, each with another random truth",
        default=10,
        read=readers.count_to(100_000),
        common=True,
    )
    batch: int = option("runs proposed at once", default=4, read=readers.count_to(1_000))
    workers: int = option("runs under way at once", default=1, read=readers.count_to(10_000))
    runs: int | None = option("most runs in all; empty: no limit", default=None, read=readers.count_to(100_000))
    flops_min: float = option("C of the smallest run allowed, FLOP", default=1e16, read=readers.positive)
    flops_max: float = option("C of the largest run allowed, FLOP", default=1e19, read=readers.positive, common=True)
    ratio: tuple[float, ...] = option(
        "least and largest D / N of a run", default=(1.0, 500.0), read=readers.list_of(readers.positive)
    )
    overhead: float = option(
        "cost of starting a run, in units of the largest run", default=0.01, read=readers.nonnegative
    )
    target_flops: Positives = option(
        "C of the targets, FLOP; empty: 10 and 100 times flops_max",
        default=None,
        read=readers.list_of(readers.positive),
    )
    mixes: Mixes = option("mixes that may be trained on; one: that of every run", default=None, read=readers.mixes)
    target_mixes: Mixes = option("mixes of the targets; empty: all of mixes", default=None, read=readers.mixes)
    target_half_width: float | None = option(
        "half width of ln N* at which a design stops; empty: none", default=None, read=readers.positive
    )


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Options of ``import``."""

    study: str = option("name of the study to import into", default=MISSING, common=True)
    columns: str = option("YAML file that says which column is what", default=MISSING, common=True)
    table: str = option(f"runs by others: {_TABLE}", common=True)
    from_tracking: str = option("MLflow store to read in place of a table; may be the same store", common=True)
    experiment: str = option("experiment of that store, whose finished runs are read", common=True)
    n_convention: str = option("what N counts: a name in the columns file [the first]", common=True)
    tracking: str = option(_TRACKING, common=True)


@dataclass(frozen=True, kw_only=True)
class CheckpointOptions:
    """How checkpoints are read."""

    GROUP = "how they are read"

    context: int = option("tokens read at once at most, for all of a study", default=1024, read=readers.context_length)
    dtype: str = option(
        "type of the weights, for all of a study", default="float32",
        read=readers.one_of("float32", "bfloat16", "float16", "float64"),
    )  # fmt: skip
    device: str = option("auto: cuda if there is one", default="auto", read=readers.one_of("auto", "cpu", "cuda"))
    batch_tokens: int | None = option(
        "tokens in a batch; empty: as 2^27 logits allow", default=None, read=readers.count
    )
    first_token: str = option("token in front of every text; empty: the folder's bos, or else its eos")


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Options of ``evaluate``."""

    GROUP = "the checkpoints"

    study: str = option("name of the study that holds the checkpoints, and nothing else", default=MISSING, common=True)
    checkpoint: str = option("folder with config.json, model.safetensors and tokenizer.json", common=True)
    n_tokens: float | None = option(
        "D of its training, tokens, repetitions counted", default=None, read=readers.positive, common=True
    )
    mix: str = option("mix of its training: a name, or shares as in code=0.5,prose=0.5", common=True)
    table: str = option("or a CSV of many: checkpoint (a folder), n_tokens [, mix, seed, training_run]", common=True)
    seed: int = option("seed of its training; distinguishes runs of equal N, D and mix", default=0, read=readers.seed)
    training_run: str = option("name that the checkpoints of one training share; empty: its only one")
    retry_failed: bool = option("measure the failed checkpoints once more", default=False, read=readers.flag)
    data: str = option("data whose validation texts count: a name in conf/data, or a YAML file")
    skills: str = option("skills to measure: a name in conf/skills, or a YAML file")
    tracking: str = option(_TRACKING, common=True)
    cache: Path = option(
        _CACHE, read=readers.cache_folder,
        factory=readers.cache_folder,
    )  # fmt: skip
    reading: CheckpointOptions


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of ``export``."""

    GROUP = "the output"

    source: SourceOptions
    from_: str = option(_LAWS_FROM, common=True)
    file: str = option(
        "runs.csv or runs.parquet for runs; law.json or law.py for laws",
        default=MISSING,
        read=readers.page_file,
        common=True,
    )
    force: bool = option("overwrite files that exist", default=False, read=readers.flag, common=True)


@dataclass(frozen=True, kw_only=True)
class WatchOptions:
    """Options of ``watch``."""

    study: str = option("name of a study in the store", default="main", common=True)
    tracking: str = option(_TRACKING, common=True)
    interval_s: float = option("time between two looks, s", default=5.0, read=readers.positive)
    once: bool = option("look once, rather than until the study is done", default=False, read=readers.flag, common=True)
    queue: str = option(_QUEUE)


@dataclass(frozen=True, kw_only=True)
class CloseStaleOptions:
    """Options of ``close_stale``."""

    study: str = option("name of a study in the store; empty: every study", common=True)
    stale_after_s: float | None = option(
        "also close runs of other machines that were claimed longer ago, s; empty: keep them open",
        default=None, read=readers.positive, common=True,
    )  # fmt: skip
    tracking: str = option(_TRACKING, common=True)
    queue: str = option(_QUEUE)
