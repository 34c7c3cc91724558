"""One design point in, one run result out: derive the recipe, train, measure."""

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
from skillscale.lm.train import cooldown_branches, follower, hyperparameters
from skillscale.lm.train.devices import select_device
from skillscale.lm.train.loop import TrainedModel, TrainProgress, train
from skillscale.lm.train.process_group import check_shares, process_group_for
from skillscale.lm.train.stable_phase import StablePhaseCheckpoint, StablePhaseLease
from skillscale.point import DesignPoint
from skillscale.record import DataUse, Measurement, ModelSize, OptimizerPlan, RunCost


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """The result of a finished run. ``curve``: (tokens seen, mean training loss since the last row)."""

    cost: RunCost
    data_use: Mapping[str, DataUse]
    exposures: float | None
    sets: Mapping[str, Measurement]
    skills: Mapping[str, Measurement]
    skills_held_out: Mapping[str, Measurement]
    curve: tuple[tuple[int, float], ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """The shape and hyperparameters of a point."""

    point: DesignPoint
    size: ModelSize
    optimizer_plan: OptimizerPlan


def training_recipe(point: DesignPoint, config: Config, prepared: PreparedData) -> TrainingRecipe:
    """Derive the shape, learning rate, batch and warm-up of a point.

    Raises:
        InputError: no model has that size, D is less than one sequence, or devices can't share its batches.
    """
    size = shape_for(point.n_params, vocab_size=prepared.tokenizer.vocab_size, model=config.model)
    is_wsd = config.train.schedule == "wsd"
    derive = cooldown_branches.branch_plan if is_wsd else hyperparameters.optimizer_plan
    plan = derive(point, size, config.train, context=config.model.context)
    if config.train.n_devices > 1:
        check_shares(_batch_sizes(point, size, plan, config), config.train.n_devices)
    return TrainingRecipe(point=point, size=size, optimizer_plan=plan)


def _batch_sizes(point: DesignPoint, size: ModelSize, plan: OptimizerPlan, config: Config) -> list[int]:
    """Return the different batch sizes of a run, in sequences."""
    if not plan.stable_phase:
        return [plan.batch_sequences]
    branch = cooldown_branches.cooldown_branch(
        point.n_tokens, size.n_params_nonembed, config.train, context=config.model.context
    )
    return [int(batch) for batch in np.unique(np.diff(branch.offsets))]


def train_and_measure(
    recipe: TrainingRecipe,
    config: Config,
    prepared: PreparedData,
    *,
    checkpoint: Path | None = None,
    stable_phase: StablePhaseCheckpoint | None = None,
    on_progress: Callable[[TrainProgress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> RunResult:
    """Train the model of a recipe and measure every evaluation set.

    On several devices this process is the leader of a process group.

    Args:
        recipe: shape and hyperparameters.
        config: resolved settings.
        prepared: tokenized data.
        checkpoint: file of this run's state.
        stable_phase: file of the stable phase, if the recipe has one.
        on_progress: called about once per second.
        should_stop: asked before every step.

    Raises:
        DivergedError: the run diverged.
        TrainingError: the checkpoint can't be written or used.
        TrainingInterrupted: ``should_stop`` returned True. The checkpoint holds the state.
    """
    point, size, plan = recipe.point, recipe.size, recipe.optimizer_plan
    stream = MixStream(prepared.categories, mix=point.mix, seed=point.seed, context=config.model.context)
    group = process_group_for(config.train, select_device(config.train.device, config.train.devices))
    follower.announce_run(group, point, size, plan, config.train, prepared.categories)

    with StablePhaseLease(stable_phase) if stable_phase and plan.stable_phase else nullcontext() as lease:
        trained = train(
            point,
            size=size,
            optimizer_plan=plan,
            stream=stream,
            config=config.train,
            checkpoint=checkpoint,
            lease=lease,
            group=group,
            on_progress=on_progress,
            should_stop=should_stop,
        )
    began = time.perf_counter()
    device = next(trained.model.parameters()).device
    measured = skills.evaluate_skills(
        trained.model, prepared, config.skills, context=config.model.context, device=device
    )
    eval_s = time.perf_counter() - began
    peak = group.size * flops.matmul_peak(device.type, config.train.precision)
    data_use = stream.usage(trained.n_tokens // config.model.context)
    return RunResult(
        cost=_cost(size, trained, eval_s=eval_s, peak=peak),
        data_use=data_use,
        exposures=_exposures(prepared, data_use),
        sets=measured.sets,
        skills=measured.skills,
        skills_held_out=measured.skills_held_out,
        curve=trained.curve,
    )


def _exposures(prepared: PreparedData, data_use: Mapping[str, DataUse]) -> float | None:
    """Return the mean mentions of a fact that the run saw, where facts are counted."""
    facts = prepared.facts
    return facts.exposures(data_use[facts.category].tokens) if facts and facts.category in data_use else None


def _cost(size: ModelSize, trained: TrainedModel, *, eval_s: float, peak: float) -> RunCost:
    return RunCost(
        flops_exact=float(flops.flops_per_token(size) * trained.n_tokens),
        tokens_per_s=trained.tokens_per_s,
        matmul_share=6 * size.n_params * trained.tokens_per_s / peak,
        train_s=trained.seconds,
        eval_s=eval_s,
        flops_spent=6.0 * size.n_params * (trained.n_tokens - trained.n_inherited),
    )
