"""Columns that a column map does not name, but whose names say what they hold: FLOP, tokenizers, runs, settings."""

from skillscale.tables.metric_names import MetricKind, metric_kind, name_parts
from skillscale.tables.states import is_state_name

_FLOPS = frozenset({"flops", "flop", "totalflops", "trainflops", "trainingflops", "computeflops", "flopstotal"})
_TOKENIZERS = frozenset({"tokenizer", "tokenizers", "tokeniser", "vocab", "vocabsize", "vocabulary"})
_RUNS = frozenset({"run", "runid", "runname", "trainingrun", "trainrun", "wandbrun", "wandbrunid", "mlflowrunid"})
_PERHAPS_RUNS = frozenset({
    "job", "jobid", "jobname", "slurmjobid", "exp", "expid", "expname", "experiment", "experimentid", "experimentname",
    "trial", "trialid", "trialname", "trialnumber", "uuid", "runuuid", "wandbid", "id", "name", "displayname", "model",
    "modelid", "modelname", "config", "configname",
})  # fmt: skip
_MAIN_LOSSES = frozenset(
    {"loss", "nll", "eval", "val", "valid", "validation", "test", "dev", "metrics", "summary", "final", "lm", "ce"}
)
_SEEDS = frozenset({"seed", "seeds", "randomseed", "rng", "replicate", "replica", "repeat", "dataseed", "initseed"})
_DATA = frozenset({"data", "dataset", "datasets", "corpus", "recipe", "mix", "mixture", "datamix", "mixid", "trainset"})
_SETTINGS = frozenset({
    "lr", "lrs", "eta", "batch", "batchsize", "bs", "gbs", "wd", "warmup", "beta1", "beta2", "eps", "epsilon",
    "dropout", "optimizer", "optimiser", "schedule", "scheduler", "momentum", "clip", "hparams",
    "hyperparameters", "cooldown",
})  # fmt: skip
_SETTING_PAIRS = (
    {"learning", "rate"}, {"batch", "size"}, {"batch", "tokens"}, {"weight", "decay"}, {"warmup", "steps"},
    {"init", "std"}, {"grad", "clip"}, {"adam", "beta"}, {"lr", "decay"},
)  # fmt: skip


def is_hint(name: str) -> bool:
    """Return whether a column is read although the column map does not name it, to check the others by it."""
    return (
        is_flops_name(name)
        or is_tokenizer_name(name)
        or is_run_name(name)
        or may_name_runs(name)
        or is_step_name(name)
        or is_loss_name(name)
        or is_setting_name(name)
        or is_seed_name(name)
        or is_data_name(name)
        or is_state_name(name)
    )


def is_loss_name(name: str) -> bool:
    """Return whether a column holds the main loss of a run by its name, as ``eval/loss``."""
    parts = name_parts(name)
    return bool(set(parts) & {"loss", "nll"}) and not set(parts) - _MAIN_LOSSES


def is_step_name(name: str) -> bool:
    """Return whether a column counts the updates of a training, which calls of one update share."""
    return "".join(name_parts(name.rpartition("/")[2])) in ("globalstep", "step", "trainstep", "iteration")


def is_data_name(name: str) -> bool:
    """Return whether a column names the training data by its name."""
    return "".join(name_parts(name.rpartition("/")[2].rpartition(".")[2])) in _DATA


def is_seed_name(name: str) -> bool:
    """Return whether a column holds seeds by its name."""
    return "".join(name_parts(name.rpartition("/")[2].rpartition(".")[2])) in _SEEDS


def is_setting_name(name: str) -> bool:
    """Return whether a column holds a hyperparameter by its name, as ``optim/lr`` or ``peak_learning_rate``."""
    if metric_kind(name) is not MetricKind.UNKNOWN:
        return False
    parts = name_parts(name)
    return bool(set(parts) & _SETTINGS) or any(pair <= set(parts) for pair in _SETTING_PAIRS)


def is_run_name(name: str) -> bool:
    """Return whether a column names the run of a row."""
    return "".join(name_parts(name)) in _RUNS


def may_name_runs(name: str) -> bool:
    """Return whether a column names runs, or models of one size each, by its name."""
    return "".join(name_parts(name.rpartition("/")[2].rpartition(".")[2])) in _PERHAPS_RUNS


def is_flops_name(name: str) -> bool:
    """Return whether a column holds the FLOP of a run by its name."""
    return "".join(name_parts(name.rpartition("/")[2].rpartition(".")[2])) in _FLOPS


def is_tokenizer_name(name: str) -> bool:
    """Return whether a column names the tokenizer of a run, or the size of its vocabulary."""
    parts = name_parts(name.rpartition("/")[2].rpartition(".")[2])
    return bool(set(parts) & _TOKENIZERS) and not set(parts) - _TOKENIZERS - {"name", "size", "n", "model", "config"}
