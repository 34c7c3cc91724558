"""Check the rule for learning rate and batch: a search around it at a few (N, D), and the rule refitted.

At each (N, D) an Optuna study multiplies the rule's learning rate and batch by factors, the rule itself first. The loss
is the study's aggregate. The searches live in a journal file in the cache, so that a search goes on where it stopped
and several processes can share it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import optuna
import pandas as pd
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from skillscale.config import Config, TrainConfig
from skillscale.config.options import QueueOptions, TuneOptions
from skillscale.errors import DivergedError, InputError, TrainingError
from skillscale.execution.grid import grid_points, nearest_size
from skillscale.execution.run_text import format_point
from skillscale.execution.session import open_session, open_store
from skillscale.formatting import JsonObject, format_percent
from skillscale.lm import run
from skillscale.point import DesignPoint, digest
from skillscale.tables.read import aggregate_weights
from skillscale.tables.write import csv_text

if TYPE_CHECKING:
    from skillscale.lm.data.prepare import PreparedData
    from skillscale.tracking import Study

LR_SPAN, BATCH_SPAN = 6.0, 4.0
ACCEPTED_EXCESS = 0.01
_RULE = {"lr_factor": 1.0, "batch_factor": 1.0}
_ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
_Trials = Sequence[optuna.trial.FrozenTrial]


@dataclass(frozen=True, kw_only=True)
class TuningPoint:
    """The outcome of the search at one (N, D).

    Args:
        point: N and D.
        trials: Number of complete trials.
        rule_loss: Loss of the rule, nats.
        best_loss: Least loss of the trials, nats.
        best_lr_factor: Learning rate of the best trial, as a factor on the rule's.
        best_batch_factor: Batch of the best trial, as a factor on the rule's.
    """

    point: DesignPoint
    trials: int
    rule_loss: float
    best_loss: float
    best_lr_factor: float
    best_batch_factor: float

    @property
    def excess(self) -> float:
        """Relative excess loss of the rule over the best trial."""
        return self.rule_loss / self.best_loss - 1

    @property
    def rule_holds(self) -> bool:
        """Whether the excess is within 1 %."""
        return self.excess <= ACCEPTED_EXCESS

    def text(self) -> str:
        """Return the outcome for a person."""
        verdict = "holds" if self.rule_holds else "does not hold"
        return (
            f"{format_point(self.point)}: rule {self.rule_loss:.4f}, best of {self.trials} {self.best_loss:.4f} "
            f"(learning rate x {self.best_lr_factor:.2f}, batch x {self.best_batch_factor:.2f}): the rule is "
            f"{format_percent(self.excess)} above, and {verdict} (within {format_percent(ACCEPTED_EXCESS)})"
        )


@dataclass(frozen=True, kw_only=True)
class TuningResult:
    """The outcome of all searches, and the refitted rule: settings of ``train`` by name."""

    points: tuple[TuningPoint, ...]
    rule: dict[str, float]

    def text(self) -> str:
        """Return the outcome for a person."""
        settings = ", ".join(f"{name}: {value:.4g}" for name, value in self.rule.items())
        return "\n".join([*(point.text() for point in self.points), f"refitted rule (for conf/train.yaml): {settings}"])

    def as_dict(self) -> JsonObject:
        """Return the values for ``--json``."""
        return {
            "corners": [
                {**point.point.as_dict(), "excess": point.excess, "trials": point.trials} for point in self.points
            ],
            "holds": all(point.rule_holds for point in self.points),
            "rule": self.rule,
        }


def tune_rule(options: TuneOptions, config: Config, progress: Callable[[str], None]) -> TuningResult:
    """Search learning rate and batch at a few (N, D), compare the rule with the best trial, and refit the rule."""
    points = tuning_points(options, config)
    store = open_store(options.study, QueueOptions())
    session = open_session(store, config, options.study.cache, points, progress)
    storage = JournalStorage(JournalFileBackend(str(_journal(options.study.cache, config))))
    outcomes, tables = [], []
    with session.study.analysis("tune") as analysis:
        for point in points:
            search = run_search(
                point, config, session.prepared, session.study, storage=storage, trials=options.trials,
                progress=progress,
            )  # fmt: skip
            outcomes.append(tuning_point(point, search))
            tables.append(trials_table(point, search))
            progress(outcomes[-1].text())
        table = pd.concat(tables, ignore_index=True)
        rule = refit(table, config.train)
        analysis.file("trials.csv", csv_text(table))
        analysis.json("rule.json", rule)
        analysis.log(metrics={f"rule_excess/{outcome.point.key}": outcome.excess for outcome in outcomes})
    return TuningResult(points=tuple(outcomes), rule=rule)


def tuning_points(options: TuneOptions, config: Config) -> list[DesignPoint]:
    """Return the given (N, D), or the corners of the grid: its smallest and largest size at its end budgets.

    Raises:
        InputError: Not as many N as D.
    """
    sizes, tokens = options.n_params, options.n_tokens
    if len(sizes or ()) != len(tokens or ()):
        raise InputError(
            f"--n_params has {len(sizes or ())} values, but --n_tokens has {len(tokens or ())}. Give as many of each, "
            "or none."
        )
    if sizes and tokens:
        mix, seed = config.study.mix_values[0], config.study.first_seed
        return [
            DesignPoint(n_params=nearest_size(size, config), n_tokens=n_tokens, mix=mix, seed=seed)
            for size, n_tokens in zip(sizes, tokens, strict=True)
        ]
    grid = grid_points(config, seeds=[config.study.first_seed])
    corners = []
    for budget in (min(config.study.budgets), max(config.study.budgets)):
        points = [grid_point.point for grid_point in grid if grid_point.budget == budget]
        points = sorted(points, key=lambda point: point.n_params)
        corners += [points[0], points[-1]]
    return corners


def tuning_point(point: DesignPoint, search: optuna.Study) -> TuningPoint:
    """Return the outcome of a search, among whose trials is the rule.

    Raises:
        TrainingError: The trial of the rule diverged.
    """
    trials = _complete(search)
    rule = [trial for trial in trials if _is_rule(trial)]
    if not rule:
        raise _rule_diverged(point)
    best = min(trials, key=_loss)
    return TuningPoint(
        point=point,
        trials=len(trials),
        rule_loss=_loss(rule[0]),
        best_loss=_loss(best),
        best_lr_factor=best.params["lr_factor"],
        best_batch_factor=best.params["batch_factor"],
    )


def trials_table(point: DesignPoint, search: optuna.Study) -> pd.DataFrame:
    """Return a row for each complete trial: N (non-embedding, as in the rule), D, lr, batch_tokens, factors, loss."""
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
    """Fit the rule to trials at several (N, D): a parabola of ln loss in ln lr and ln batch around each optimum.

    All (N, D) share one curvature, and each has an optimum. The optima give the coefficients. They also give the
    exponents if there are at least three (N, D) whose logarithms are not in line; else those of ``config`` stay.
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
    """Return (ln lr, ln batch) of the least loss: a separable parabola within the tried range, or the best trial."""
    x, y = np.log(group["lr"].to_numpy()), np.log(group["batch_tokens"].to_numpy())
    loss = np.log(group["loss"].to_numpy())
    best = int(np.argmin(loss))
    near = loss < loss[best] + 0.1
    if near.sum() < 6:
        return float(x[best]), float(y[best])
    terms = np.column_stack([np.ones(near.sum()), x[near], x[near] ** 2, y[near], y[near] ** 2])
    beta = np.linalg.lstsq(terms, loss[near], rcond=None)[0]
    optimum = []
    for at, values in ((1, x), (3, y)):
        curved = beta[at + 1] > 0
        vertex = -beta[at] / (2 * beta[at + 1]) if curved else values[best]
        optimum.append(float(np.clip(vertex, values[near].min(), values[near].max())))
    return optimum[0], optimum[1]


def run_search(
    point: DesignPoint, config: Config, prepared: "PreparedData", study: "Study",
    *, storage: optuna.storages.BaseStorage, trials: int, progress: Callable[[str], None],
) -> optuna.Study:  # fmt: skip
    """Go on with the search at a point until ``trials`` trials have ended, diverged ones counted.

    A trial whose process was killed stays RUNNING in the journal and does not count, because its process may live.

    Raises:
        TrainingError: The trial of the rule diverged.
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
        # Another seed for each trial: a search that goes on would otherwise repeat the draws of its beginning
        seed = point.seed + len(search.trials)
        search.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=6, multivariate=True)
        trial = search.ask()
        lr_factor = trial.suggest_float("lr_factor", 1 / LR_SPAN, LR_SPAN, log=True)
        batch_factor = trial.suggest_float("batch_factor", 1 / BATCH_SPAN, BATCH_SPAN, log=True)
        loss = _train_trial(point, config, prepared, study, trial, (lr_factor, batch_factor))
        progress(
            f"{format_point(point)}: learning rate x {lr_factor:.3g}, batch x {batch_factor:.3g}: "
            + (f"loss {loss:.4f}" if loss is not None else "diverged")
        )
        if loss is None:
            search.tell(trial, state=TrialState.PRUNED)
        else:
            search.tell(trial, loss)


def _train_trial(
    point: DesignPoint, config: Config, prepared: "PreparedData", study: "Study", trial: optuna.Trial,
    factors: tuple[float, float],
) -> float | None:  # fmt: skip
    """Train with the rule's values times ``factors``; return the aggregate loss, None where the training diverged."""
    rule = config.train
    changed = replace(
        rule,
        lr_coefficient=rule.lr_coefficient * factors[0],
        batch_coefficient=rule.batch_coefficient * factors[1],
        batch_min=max(1, round(rule.batch_min * min(1.0, factors[1]))),
    )
    settings = replace(config, train=changed)
    recipe = run.training_recipe(point, settings, prepared)
    batch_tokens = recipe.optimizer_plan.batch_sequences * config.model.context
    trial.set_user_attr("n_params_nonembed", recipe.size.n_params_nonembed)
    trial.set_user_attr("lr", recipe.optimizer_plan.lr)
    trial.set_user_attr("batch_tokens", batch_tokens)
    with study.analysis("trial", name=f"tune {format_point(point)}") as record:
        record.log(params={"n_params": str(point.n_params), "n_tokens": str(point.n_tokens)})
        record.log(metrics={"lr": recipe.optimizer_plan.lr, "batch_tokens": batch_tokens})
        try:
            result = run.train_and_measure(recipe, settings, prepared)
        except DivergedError as error:
            record.log(tags={"reason": str(error)})
            return None
        weights = aggregate_weights(config)
        loss = math.fsum(weight * result.sets[name].loss for name, weight in weights.items())
        skill_losses = {f"skill_loss/{skill}": value.loss for skill, value in result.skills.items()}
        record.log(metrics={"loss": loss, **skill_losses})
    return loss


def _is_rule(trial: optuna.trial.FrozenTrial) -> bool:
    """Return whether a trial, running or waiting, is that of the rule itself."""
    params = trial.params or trial.system_attrs.get("fixed_params", {})
    return bool(params == _RULE)


def _rule_diverged(point: DesignPoint) -> TrainingError:
    return TrainingError(f"the training of the rule diverged at {format_point(point)}. Lower train.lr_coefficient.")


def _loss(trial: optuna.trial.FrozenTrial) -> float:
    assert trial.value is not None  # a complete trial has one
    return trial.value


def _complete(search: optuna.Study) -> _Trials:
    return search.get_trials(states=(TrialState.COMPLETE,))


def _journal(cache: Path, config: Config) -> Path:
    folder = cache / "tune"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{digest([config.hash, dict(aggregate_weights(config))])}.journal"
