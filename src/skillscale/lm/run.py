"""One point in, one outcome out: derive, train, measure."""

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from skillscale.config import Config
from skillscale.lm.data.mixture import MixStream
from skillscale.lm.data.prepare import PreparedData
from skillscale.lm.evaluation import skills
from skillscale.lm.model import flops
from skillscale.lm.model.shape import shape_for
from skillscale.lm.train import cooldown_branches as trunks
from skillscale.lm.train import follower, hyperparameters
from skillscale.lm.train.devices import select_device
from skillscale.lm.train.loop import TrainedModel, TrainProgress, train
from skillscale.lm.train.process_group import check_shares, process_group_for
from skillscale.point import DesignPoint
from skillscale.record import DataUse, Measurement, ModelSize, OptimizerPlan, RunCost


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a finished run has to tell. ``curve``: (tokens seen, mean training loss since the last row)."""

    cost: RunCost
    data_use: Mapping[str, DataUse]
    exposures: float | None
    sets: Mapping[str, Measurement]
    skills: Mapping[str, Measurement]
    skills_held_out: Mapping[str, Measurement]
    curve: tuple[tuple[int, float], ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """What the rules derive for a point before anything is trained."""

    point: DesignPoint
    size: ModelSize
    optimizer_plan: OptimizerPlan


def training_recipe(point: DesignPoint, config: Config, prepared: PreparedData) -> TrainingRecipe:
    """Shape, learning rate, batch and warm-up of a point.

    Raises:
        InputError: no model has that size, D is less than one sequence, or devices can't share its batches.
    """
    size = shape_for(point.n_params, vocab_size=prepared.tokenizer.vocab_size, model=config.model)
    plan = trunks.branch_plan if config.train.schedule == "trunk" else hyperparameters.optimizer_plan
    optimizer_plan = plan(point, size, config.train, context=config.model.context)
    if config.train.n_devices > 1:
        check_shares(_batches(point, size, optimizer_plan, config), config.train.n_devices)
    return TrainingRecipe(point=point, size=size, optimizer_plan=optimizer_plan)


def _batches(point: DesignPoint, size: ModelSize, optimizer_plan: OptimizerPlan, config: Config) -> list[int]:
    """Sequences of the batches that a run has."""
    if not optimizer_plan.stable_phase:
        return [optimizer_plan.batch_sequences]
    whole = trunks.cooldown_branch(point.n_tokens, size.n_params_nonembed, config.train, context=config.model.context)
    return [int(batch) for batch in np.unique(np.diff(whole.firsts))]


def train_and_measure(
    recipe: TrainingRecipe,
    config: Config,
    prepared: PreparedData,
    *,
    checkpoint: Path | None = None,
    trunk: trunks.StablePhaseCheckpoint | None = None,
    on_progress: Callable[[TrainProgress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> RunResult:
    """Train the model of a recipe and measure every evaluation set.

    On several devices this is the first process of a team, which starts the others or was started beside them.

    Args:
        recipe, config, prepared: what to train, and on what.
        checkpoint: file of this run's own state.
        trunk: file of the state that runs of other D share with this one, where the recipe has a trunk.
        on_progress: is told how far it is.
        should_stop: is asked whether to stop.

    Raises:
        DivergedError: the run diverged.
        TrainingError: the checkpoint can't be written or used.
        Stopped: ``should_stop`` said so; the checkpoint holds what was done.
    """
    point, size, optimizer_plan = recipe.point, recipe.size, recipe.optimizer_plan
    stream = MixStream(prepared.categories, mix=point.mix, seed=point.seed, context=config.model.context)
    team = process_group_for(config.train, select_device(config.train.device, config.train.devices))
    follower.announce_run(team, point, size, optimizer_plan, config.train, prepared.categories)
    with trunks.StablePhaseLease(trunk) if trunk is not None and optimizer_plan.stable_phase else nullcontext() as turn:
        trained = train(
            point,
            size=size,
            optimizer_plan=optimizer_plan,
            stream=stream,
            config=config.train,
            checkpoint=checkpoint,
            turn=turn,
            team=team,
            on_progress=on_progress,
            should_stop=should_stop,
        )
    began = time.perf_counter()
    device = next(trained.model.parameters()).device
    measured = skills.evaluate_skills(
        trained.model, prepared, config.skills, context=config.model.context, device=device
    )
    eval_s = time.perf_counter() - began
    peak = team.size * flops.matmul_peak(device.type, config.train.precision)
    data_use = stream.usage(trained.n_tokens // config.model.context)
    return RunResult(
        cost=_spending(size, trained, eval_s=eval_s, peak=peak),
        data_use=data_use,
        exposures=_exposures(prepared, data_use),
        sets=measured.sets,
        skills=measured.skills,
        skills_held_out=measured.skills_held_out,
        curve=trained.curve,
    )


def _exposures(prepared: PreparedData, data_use: Mapping[str, DataUse]) -> float | None:
    """Mean mentions a fact that the run saw, where facts are counted."""
    facts = prepared.facts
    return facts.exposures(data_use[facts.category].tokens) if facts and facts.category in data_use else None


def _spending(size: ModelSize, trained: TrainedModel, *, eval_s: float, peak: float) -> RunCost:
    return RunCost(
        flops_exact=float(flops.flops_per_token(size) * trained.n_tokens),
        tokens_per_s=trained.tokens_per_s,
        matmul_share=6 * size.n_params * trained.tokens_per_s / peak,
        train_s=trained.seconds,
        eval_s=eval_s,
        flops_spent=6.0 * size.n_params * (trained.n_tokens - trained.n_taken),
    )
