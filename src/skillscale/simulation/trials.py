"""Trials of designs on truths: replay a design, estimate the targets from its runs, and score the estimates."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from skillscale.design.model_averaging import estimate_targets
from skillscale.design.propose import DesignGoal
from skillscale.design.space import DesignSpace, RunHistory
from skillscale.design.targets import Quantity, Target
from skillscale.formatting import JsonObject, format_flops
from skillscale.laws.forms.nd import Array
from skillscale.simulation.baselines import Maker
from skillscale.simulation.replay import ReplaySettings, run_design
from skillscale.simulation.scores import TargetScore
from skillscale.simulation.truth import Truth, true_value

_KEYS = {Quantity.OPTIMUM: "optima", Quantity.DIFFERENCE: "differences", Quantity.LOSS: "losses"}
_WORDS = {Quantity.OPTIMUM: "ln N*", Quantity.DIFFERENCE: "differences", Quantity.LOSS: "ln L"}
_POOLED = ("tries", "bias", "rmse", "coverage", "half_width")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One replay: cost in FLOP, runs and seconds; (value, lo, hi) and truth of each target."""

    spent: float = field(metadata={"unit": "FLOP, overheads included"})
    n_runs: int
    seconds: float
    estimates: tuple[tuple[float, float, float], ...]
    truths: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class SimulationResult:
    """Trials of one design: a score by target; FLOP, runs and seconds of each trial, (n,)."""

    scores: tuple[TargetScore, ...]
    spent: Array
    runs: Array
    seconds: Array

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """Quantities that have scores."""
        return tuple(dict.fromkeys(score.target.quantity for score in self.scores))

    def pooled(self, quantity: Quantity) -> TargetScore:
        """Return all targets of a quantity as one score."""
        scores = [score for score in self.scores if score.target.quantity is quantity]
        error, lo, hi = (np.concatenate([getattr(score, name) for score in scores]) for name in ("error", "lo", "hi"))
        return TargetScore(target=scores[0].target, error=error, lo=lo, hi=hi)


def simulate_design(
    truth_for: Callable[[int], Truth],
    make: Maker,
    space: DesignSpace,
    goal: DesignGoal,
    settings: ReplaySettings,
    *,
    n_seeds: int,
    progress: Callable[[int, Trial], None],
) -> SimulationResult:
    """Try a design on the truth of each seed.

    Losses at the optima are scored in addition to the targets of the goal.

    Args:
        truth_for: truth of a seed.
        make: maker of the design.
        space: allowed runs.
        goal: targets, and limits of the design.
        settings: conditions of the replays.
        n_seeds: number of trials.
        progress: receiver of the seed and the trial after each.
    """
    targets = _with_losses(goal.targets)
    trials = []
    for seed in range(n_seeds):
        trials.append(_try_design(truth_for(seed), make, space, goal, settings, targets, seed))
        progress(seed, trials[-1])
    return SimulationResult(
        scores=tuple(
            TargetScore.of(target, [trial.estimates[i] for trial in trials], [trial.truths[i] for trial in trials])
            for i, target in enumerate(targets)
        ),
        spent=np.array([trial.spent for trial in trials]),
        runs=np.array([float(trial.n_runs) for trial in trials]),
        seconds=np.array([trial.seconds for trial in trials]),
    )


def _try_design(
    truth: Truth, make: Maker, space: DesignSpace, goal: DesignGoal, settings: ReplaySettings,
    targets: tuple[Target, ...], seed: int,
) -> Trial:  # fmt: skip
    start = time.perf_counter()
    history = run_design(
        truth, make(space, goal, seed), space, RunHistory.empty(truth.skills, len(space.categories)), settings,
        noise_rng=np.random.default_rng([seed, 1]), design_rng=np.random.default_rng([seed, 2]),
    )  # fmt: skip
    seconds = time.perf_counter() - start
    estimates = estimate_targets(history, space, targets)
    columns = (estimates.value.tolist(), estimates.lo.tolist(), estimates.hi.tolist())
    return Trial(
        spent=float(space.cost(history.N, history.D).sum()), n_runs=len(history), seconds=seconds,
        estimates=tuple(zip(*columns, strict=True)), truths=tuple(true_value(truth, target) for target in targets),
    )  # fmt: skip


def _with_losses(targets: Sequence[Target]) -> tuple[Target, ...]:
    """Return the targets, and the losses at those that are optima."""
    optima = [target for target in targets if target.quantity is Quantity.OPTIMUM]
    return (*targets, *(replace(target, quantity=Quantity.LOSS, weight=1.0) for target in optima))


def result_as_dict(result: SimulationResult) -> JsonObject:
    """Return scores, FLOPs, runs and seconds of a design, for ``--json``."""
    scores = {
        _KEYS[quantity]: [_score_as_dict(score) for score in result.scores if score.target.quantity is quantity]
        for quantity in result.quantities
    }
    pooled = {_KEYS[quantity]: _score_as_dict(result.pooled(quantity)) for quantity in result.quantities}
    return {
        "flops_spent": float(result.spent.mean()), "runs": float(result.runs.mean()),
        "seconds": float(result.seconds.mean()), **scores,
        "all": {key: {name: score[name] for name in score if name in _POOLED} for key, score in pooled.items()},
    }  # fmt: skip


def _score_as_dict(score: TargetScore) -> JsonObject:
    target = score.target
    (bias, bias_sem), (rmse, rmse_sem), (coverage, coverage_sem) = score.bias, score.rmse, score.coverage
    return {
        "target": target.name, "skill": target.skill, **({"other": target.other} if target.other else {}),
        "flops": target.C, "mix": list(target.h), "tries": score.n, "bias": bias, "bias_sem": bias_sem, "rmse": rmse,
        "rmse_sem": rmse_sem, "coverage": coverage, "coverage_sem": coverage_sem, "half_width": score.half_width,
    }  # fmt: skip


def result_text(name: str, result: SimulationResult, space: DesignSpace) -> str:
    """Return a table with a line for each target, and pooled lines last."""
    units = result.spent.mean() / space.flops[1]
    head = (
        f"{name}: {result.runs.mean():.3g} runs, {format_flops(result.spent.mean())} FLOP ({units:.3g} of the largest "
        f"run), {result.seconds.mean():.2g} s"
    )
    rows = [(score.target.name, score, False) for score in result.scores]
    rows += [(f"all {_WORDS[quantity]}", result.pooled(quantity), True) for quantity in result.quantities]
    width = max(len(title) for title, *_ in rows)
    lines = [head, f"  {'':<{width}}  tries  bias             RMSE             coverage         half width"]
    for title, score, is_pooled in rows:
        # Errors of pooled targets are correlated: their standard errors would be too small
        pairs = [(score.bias, "+.3f"), (score.rmse, ".3f"), (score.coverage, ".2f")]
        cells = "".join(f"{_cell(pair, form, with_sem=not is_pooled):<17}" for pair, form in pairs)
        lines.append(f"  {title:<{width}}  {score.n:>5}  {cells}{score.half_width:.3f}")
    return "\n".join(lines)


def _cell(pair: tuple[float, float], form: str, *, with_sem: bool) -> str:
    """Return a value, with its standard error where there is one."""
    if not math.isfinite(pair[0]):
        return "-"
    sem = f" +- {pair[1]:{form.lstrip('+')}}" if with_sem and math.isfinite(pair[1]) else ""
    return f"{pair[0]:{form}}{sem}"
