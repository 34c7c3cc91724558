"""Check the rule for learning rate and batch: a search around it at a few (N, D), and the rule refitted.

At each (N, D) an Optuna study multiplies the rule's learning rate and batch by factors, the rule itself first; the
loss is the study's aggregate. The searches live in a journal file in the cache, so that a search goes on where it
stopped and several processes can share it. This file is the only home of optuna.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pandas as pd
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from skillscale.cli.output import Output
from skillscale.config import Config, TrainConfig
from skillscale.config.options import QueueOptions, TuneOptions
from skillscale.errors import DivergedError, InputError, TrainingError
from skillscale.execution.grid import grid_points, nearest_size
from skillscale.execution.session import open_session, open_store
from skillscale.execution.worker import format_point
from skillscale.lm import run
from skillscale.point import DesignPoint, digest
from skillscale.runs.read import aggregate_weights

if TYPE_CHECKING:
    from skillscale.lm.data.prepare import PreparedData
    from skillscale.tracking import Study

LR_SPAN, BATCH_SPAN = 6.0, 4.0
ACCEPTED_EXCESS = 0.01
_RULE = {"lr_factor": 1.0, "batch_factor": 1.0}
_ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True, kw_only=True)
class TuningPoint:
    """What a search at one (N, D) found. ``excess``: loss of the rule over the best tried, minus one."""

    point: DesignPoint
    trials: int
    rule_loss: float
    best_loss: float
    best_lr_factor: float
    best_batch_factor: float

    @property
    def excess(self) -> float:
        """Relative excess loss of the rule over the best tried."""
        return self.rule_loss / self.best_loss - 1


def tune(options: TuneOptions, config: Config, out: Output) -> dict[str, Any]:
    """Search learning rate and batch at a few (N, D), say how far the rule is from the best, and refit the rule."""
    points = tuning_points(options, config)
    store = open_store(options.study, QueueOptions())
    session = open_session(store, config, options.study.cache, points, out.progress)
    storage = JournalStorage(JournalFileBackend(str(_journal(options.study.cache, config))))
    corners, tables = [], []
    with session.study.analysis("tune") as summary:
        for point in points:
            search = _search(point, config, session.prepared, session.study, storage, options.trials, out)
            corners.append(tuning_point(point, search))
            tables.append(trials_table(point, search))
            out.progress(_told(corners[-1]))
        table = pd.concat(tables, ignore_index=True)
        refitted = refit(table, config.train)
        summary.file("trials.csv", table.to_csv(index=False))
        summary.json("rule.json", refitted)
        summary.log(metrics={f"rule_excess/{one.point.key}": one.excess for one in corners})
    for one in corners:
        out.text(_told(one))
    out.text("refitted rule (for conf/train.yaml): " + ", ".join(f"{k}: {v:.4g}" for k, v in refitted.items()))
    return {
        "corners": [{**one.point.as_dict(), "excess": one.excess, "trials": one.trials} for one in corners],
        "holds": all(one.excess <= ACCEPTED_EXCESS for one in corners),
        "rule": refitted,
    }


def tuning_points(options: TuneOptions, config: Config) -> list[DesignPoint]:
    """The asked (N, D), or the corners of the grid: its smallest and largest size at its end budgets."""
    sizes, tokens = options.n_params, options.n_tokens
    if len(sizes or ()) != len(tokens or ()):
        raise InputError("give --n_params and --n_tokens with as many values each, or neither")
    if sizes and tokens:
        mix, seed = config.study.mix_values[0], config.study.first_seed
        return [
            DesignPoint(n_params=nearest_size(size, config), n_tokens=n, mix=mix, seed=seed)
            for size, n in zip(sizes, tokens, strict=True)
        ]
    grid = grid_points(config, seeds=[config.study.first_seed])
    corners = []
    for budget in (min(config.study.budgets), max(config.study.budgets)):
        points = sorted((each.point for each in grid if each.budget == budget), key=lambda point: point.n_params)
        corners += [points[0], points[-1]]
    return corners


def tuning_point(point: DesignPoint, search: optuna.Study) -> TuningPoint:
    """The outcome of a search; one of its trials is the rule.

    Raises:
        TrainingError: the rule's own trial diverged.
    """
    done = _complete(search)
    rule = [trial for trial in done if _is_rule(trial)]
    if not rule:
        raise _rule_diverged(point)
    best = min(done, key=_loss)
    return TuningPoint(
        point=point,
        trials=len(done),
        rule_loss=_loss(rule[0]),
        best_loss=_loss(best),
        best_lr_factor=best.params["lr_factor"],
        best_batch_factor=best.params["batch_factor"],
    )


def trials_table(point: DesignPoint, search: optuna.Study) -> pd.DataFrame:
    """One row a finished trial: N (non-embedding, as in the rule), D, lr, batch_tokens, factors on the rule, loss."""
    rows = [
        {
            "N": trial.user_attrs["n_params_nonembed"],
            "D": point.n_tokens,
            "lr": trial.user_attrs["lr"],
            "batch_tokens": trial.user_attrs["batch_tokens"],
            **trial.params,
            "loss": trial.value,
        }
        for trial in _complete(search)
    ]
    return pd.DataFrame(rows)


def refit(trials: pd.DataFrame, config: TrainConfig) -> dict[str, float]:
    """Rule parameters from trials at several (N, D): a parabola of ln loss in ln lr and ln batch around each optimum.

    One curvature is shared by all (N, D), each has its own optimum. The optima give the coefficients; the exponents too
    where there are at least three (N, D) whose logarithms are not in line, else those of ``config`` stay.
    """
    groups = [group for _, group in trials.groupby(["N", "D"])]
    optima = np.array([[*np.log(group[["N", "D"]].iloc[0]), *_optimum(group)] for group in groups])
    log_n, log_d, lr, batch = optima.T
    design = np.column_stack([np.ones(len(optima)), log_n, log_d])
    if np.linalg.matrix_rank(design - design.mean(0) * [0, 1, 1], tol=1e-6) == 3:
        fitted = np.linalg.lstsq(design, lr, rcond=None)[0]
    else:
        b, c = config.lr_params_exponent, config.lr_tokens_exponent
        fitted = np.array([np.mean(lr - b * log_n - c * log_d), b, c])
    slope = config.batch_tokens_exponent
    if np.ptp(log_d) > math.log(3):
        slope = float(np.polyfit(log_d, batch, 1)[0])
    return {
        "lr_coefficient": float(np.exp(fitted[0])),
        "lr_params_exponent": float(fitted[1]),
        "lr_tokens_exponent": float(fitted[2]),
        "batch_coefficient": float(np.exp(np.mean(batch - slope * log_d))),
        "batch_tokens_exponent": slope,
    }


def _optimum(group: pd.DataFrame) -> tuple[float, float]:
    """(ln lr, ln batch) of the least loss: a separable parabola within what was tried, or the best trial."""
    x, y = np.log(group["lr"].to_numpy()), np.log(group["batch_tokens"].to_numpy())
    loss = np.log(group["loss"].to_numpy())
    best = int(np.argmin(loss))
    near = loss < loss[best] + 0.1
    if near.sum() < 6:
        return float(x[best]), float(y[best])
    terms = np.column_stack([np.ones(near.sum()), x[near], x[near] ** 2, y[near], y[near] ** 2])
    beta = np.linalg.lstsq(terms, loss[near], rcond=None)[0]
    found = []
    for at, values in ((1, x), (3, y)):
        curved = beta[at + 1] > 0
        vertex = -beta[at] / (2 * beta[at + 1]) if curved else values[best]
        found.append(float(np.clip(vertex, values[near].min(), values[near].max())))
    return found[0], found[1]


def _search(
    point: DesignPoint,
    config: Config,
    prepared: "PreparedData",
    study: "Study",
    storage: JournalStorage,
    trials: int,
    out: Output,
) -> optuna.Study:
    """The search at a point, gone on with until ``trials`` trials have ended, diverged ones counted.

    A trial whose process was killed stays RUNNING in the journal, and counts for nothing: whether its process lives
    is not known here.

    Raises:
        TrainingError: the rule's own trial diverged.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search = optuna.create_study(study_name=point.key, storage=storage, load_if_exists=True)
    while True:
        ended = search.get_trials(states=_ENDED)
        rule = [trial for trial in ended if _is_rule(trial)]
        if any(trial.state is TrialState.PRUNED for trial in rule):
            raise _rule_diverged(point)
        if rule and len(ended) >= trials:
            return search
        if not rule and not any(_is_rule(trial) for trial in search.get_trials(states=(TrialState.WAITING,))):
            search.enqueue_trial(_RULE)
        # A seed of its own for each trial: a search that goes on would else draw again what it drew at its beginning
        seed = point.seed + len(search.trials)
        search.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=6, multivariate=True)
        trial = search.ask()
        lr_factor = trial.suggest_float("lr_factor", 1 / LR_SPAN, LR_SPAN, log=True)
        batch_factor = trial.suggest_float("batch_factor", 1 / BATCH_SPAN, BATCH_SPAN, log=True)
        loss = _try(point, config, prepared, study, trial, (lr_factor, batch_factor))
        out.progress(
            f"{format_point(point)}: learning rate x {lr_factor:.3g}, batch x {batch_factor:.3g}: "
            + (f"loss {loss:.4f}" if loss is not None else "diverged")
        )
        if loss is None:
            search.tell(trial, state=TrialState.PRUNED)
        else:
            search.tell(trial, loss)


def _try(
    point: DesignPoint,
    config: Config,
    prepared: "PreparedData",
    study: "Study",
    trial: optuna.Trial,
    factors: tuple[float, float],
) -> float | None:
    """Loss under the aggregate with the rule's values times factors; None where the training diverged."""
    rule = config.train
    changed = replace(
        rule,
        lr_coefficient=rule.lr_coefficient * factors[0],
        batch_coefficient=rule.batch_coefficient * factors[1],
        batch_min=max(1, round(rule.batch_min * min(1.0, factors[1]))),
    )
    tried = replace(config, train=changed)
    recipe = run.training_recipe(point, tried, prepared)
    batch_tokens = recipe.optimizer_plan.batch_sequences * config.model.context
    trial.set_user_attr("n_params_nonembed", recipe.size.n_params_nonembed)
    trial.set_user_attr("lr", recipe.optimizer_plan.lr)
    trial.set_user_attr("batch_tokens", batch_tokens)
    with study.analysis("trial", name=f"tune {format_point(point)}") as record:
        record.log(params={"n_params": str(point.n_params), "n_tokens": str(point.n_tokens)})
        record.log(metrics={"lr": recipe.optimizer_plan.lr, "batch_tokens": batch_tokens})
        try:
            outcome = run.train_and_measure(recipe, tried, prepared)
        except DivergedError as error:
            record.log(tags={"reason": str(error)})
            return None
        weights = aggregate_weights(config)
        loss = math.fsum(weight * outcome.sets[name].loss for name, weight in weights.items())
        record.log(metrics={"loss": loss, **{f"skill_loss/{k}": v.loss for k, v in outcome.skills.items()}})
    return loss


def _is_rule(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether a trial, begun or waiting, is that of the rule itself."""
    params = trial.params or trial.system_attrs.get("fixed_params", {})
    return bool(params == _RULE)


def _rule_diverged(point: DesignPoint) -> TrainingError:
    return TrainingError(f"the rule's own training diverged at {format_point(point)}; lower train.lr_coefficient")


def _loss(trial: optuna.trial.FrozenTrial) -> float:
    assert trial.value is not None  # a complete trial has one
    return trial.value


def _complete(search: optuna.Study) -> Sequence[optuna.trial.FrozenTrial]:
    return search.get_trials(states=(TrialState.COMPLETE,))


def _journal(cache: Path, config: Config) -> Path:
    folder = cache / "tune"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{digest([config.hash, dict(aggregate_weights(config))])}.journal"


def _told(one: TuningPoint) -> str:
    verdict = "holds" if one.excess <= ACCEPTED_EXCESS else "does not hold"
    return (
        f"{format_point(one.point)}: rule {one.rule_loss:.4f}, best of {one.trials} {one.best_loss:.4f} "
        f"(learning rate x {one.best_lr_factor:.2f}, batch x {one.best_batch_factor:.2f}): the rule is "
        f"{one.excess:.2%} above, and {verdict} (within {ACCEPTED_EXCESS:.0%})"
    )
