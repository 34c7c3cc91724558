"""``simulate``: designs tried on known worlds, random ones of a kind or that of a file, and how well each did."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from skillscale.cli.output import Output
from skillscale.config import Config
from skillscale.config.options import SimulateOptions
from skillscale.design.model_averaging import estimate_targets
from skillscale.design.propose import DesignGoal
from skillscale.design.space import DesignSpace, RunHistory
from skillscale.design.targets import Quantity, Target, default_targets
from skillscale.errors import InputError
from skillscale.formatting import did_you_mean
from skillscale.laws.forms.nd import Array
from skillscale.point import Mix
from skillscale.simulation import user_function
from skillscale.simulation.baselines import DESIGNS, Maker
from skillscale.simulation.greedy_designs import GREEDY
from skillscale.simulation.random_truths import TruthFamily
from skillscale.simulation.replay import ReplaySettings, run_design
from skillscale.simulation.scores import Score
from skillscale.simulation.truth import GroundTruth, truth_from_file, truth_of_family

IN_UNITS = 1e6  # a budget below is in units of the largest run
SEARCHES = ("tpe", "gp")
_KEYS = {Quantity.OPTIMUM: "optima", Quantity.DIFFERENCE: "differences", Quantity.LOSS: "losses"}
_WORDS = {Quantity.OPTIMUM: "ln N*", Quantity.DIFFERENCE: "differences", Quantity.LOSS: "ln L"}
_POOLED = ("tries", "bias", "rmse", "coverage", "half_width")


@dataclass(frozen=True, kw_only=True)
class SimulationResult:
    """What several tries of a design gave: a score by target; FLOPs spent, runs and seconds of each try, (n,)."""

    scores: tuple[Score, ...]
    spent: Array
    runs: Array
    seconds: Array

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """What there are scores of."""
        return tuple(dict.fromkeys(score.target.quantity for score in self.scores))

    def pooled(self, quantity: Quantity) -> Score:
        """All targets of a quantity as one."""
        some = [one for one in self.scores if one.target.quantity is quantity]
        error, lo, hi = (np.concatenate([getattr(one, name) for one in some]) for name in ("error", "lo", "hi"))
        return Score(target=some[0].target, error=error, lo=lo, hi=hi)


def simulate(options: SimulateOptions, config: Config, out: Output) -> dict[str, Any]:
    """Try designs on a world, with several seeds, and tell errors, coverage and cost."""
    del config
    makers = _makers(options.design)
    space, mix = _space(options)
    terms = _terms(options, space)
    world = _world(options.truth, space, mix, out)
    first = world(0)
    targets = _targets(first.skills, space, options)
    wish = DesignGoal(
        targets=targets,
        budget=terms.budget,
        target_half_width=options.target_half_width or 0.0,
        max_runs=terms.most or math.inf,
    )
    found = {}
    for name, make in makers.items():
        tries = []
        for seed in range(options.seeds):
            tries.append(_try(world(seed), make, space, wish, terms, seed))
            out.progress(f"{name}, seed {seed}: {tries[-1][1]} runs, {tries[-1][0] / space.flops[1]:.3g} units")
        found[name] = _gathered(tries, _with_losses(targets))
    for name, one in found.items():
        out.text(_table(name, one, space))
    if first.lacking:
        out.text(f"errors are not known: {first.lacking}")
    return {
        "world": options.truth, "skills": list(first.skills), "flops": list(space.flops),
        "budget": terms.budget, "seeds": options.seeds, "batch": terms.batch, "workers": terms.workers,
        "designs": {name: _plain(one) for name, one in found.items()}, "left_out": first.lacking,
    }  # fmt: skip


Try = tuple[float, int, float, list[tuple[float, float, float]], list[float]]


def _try(
    known: GroundTruth, make: Maker, space: DesignSpace, wish: DesignGoal, terms: ReplaySettings, seed: int
) -> Try:
    """FLOPs spent, runs, seconds, what was told of each target, and the truths."""
    begin = time.perf_counter()
    history = run_design(
        known.measure(np.random.default_rng([seed, 1])), make(space, wish, seed), space,
        RunHistory.empty(known.skills, len(space.categories)), terms, rng=np.random.default_rng([seed, 2]),
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    asked = _with_losses(wish.targets)
    told = estimate_targets(history, space, asked)
    return (
        float(space.cost(history.N, history.D).sum()), len(history), seconds,
        [(float(v), float(lo), float(hi)) for v, lo, hi in zip(told.value, told.lo, told.hi, strict=True)],
        [known.truth(target) for target in asked],
    )  # fmt: skip


def _gathered(tries: Sequence[Try], targets: Sequence[Target]) -> SimulationResult:
    spent, runs, seconds, told, truths = zip(*tries, strict=True)
    return SimulationResult(
        scores=tuple(
            Score.of(target, [each[i] for each in told], [each[i] for each in truths])
            for i, target in enumerate(targets)
        ),
        spent=np.array(spent), runs=np.array(runs, dtype=float), seconds=np.array(seconds),
    )  # fmt: skip


def _with_losses(targets: Sequence[Target]) -> tuple[Target, ...]:
    """Besides the optima asked about, the losses there."""
    losses = [replace(one, quantity=Quantity.LOSS, weight=1.0) for one in targets if one.quantity is Quantity.OPTIMUM]
    return (*targets, *losses)


def _makers(names: Sequence[str]) -> dict[str, Maker]:
    """The designs asked for, by name."""
    there: dict[str, Maker] = {**DESIGNS, **GREEDY}
    if set(SEARCHES) & set(names):
        from skillscale.simulation.optuna_baselines import MAKERS

        there |= MAKERS
    for name in names:
        if name not in there:
            known = [*DESIGNS, *GREEDY, *SEARCHES]
            raise InputError(f"there is no design {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}")
    return {name: there[name] for name in names}


def _space(options: SimulateOptions) -> tuple[DesignSpace, Mix | None]:
    """The space, and the mix of every run where there is but one."""
    ratio: Sequence[float] = options.ratio or ()
    if len(ratio) != 2:
        raise InputError(f"--ratio is the least and the largest D / N, as in 1,500, but it has {len(ratio)} numbers")
    share = options.overhead
    flops = (options.flops_min, options.flops_max)
    mixes: Sequence[Mix] = options.mixes or ()
    if len(mixes) < 2:
        return DesignSpace(flops=flops, ratio=(ratio[0], ratio[1]), overhead=share * flops[1]), mixes[
            0
        ] if mixes else None
    categories = tuple(sorted({name for mix in mixes for name in mix.shares}))
    return DesignSpace(
        flops=flops, ratio=(ratio[0], ratio[1]), overhead=share * flops[1], categories=categories,
        mixes=np.array([_shares(mix, categories) for mix in mixes]),
    ), None  # fmt: skip


def _shares(mix: Mix, categories: Sequence[str]) -> tuple[float, ...]:
    return tuple(mix.shares.get(name, 0.0) for name in categories)


def _terms(options: SimulateOptions, space: DesignSpace) -> ReplaySettings:
    budget = options.budget * (space.flops[1] if options.budget < IN_UNITS else 1.0)
    cheapest = float(min(space.cost(*space.lattice())))
    if budget < cheapest:
        raise InputError(
            f"a budget of {budget:.3g} FLOP buys no run: the cheapest takes {cheapest:.3g}, overhead included; raise "
            "--budget, or lower --flops_min or --overhead"
        )
    return ReplaySettings(budget=budget, batch=options.batch, workers=options.workers, most=options.runs)


def _targets(skills: Sequence[str], space: DesignSpace, options: SimulateOptions) -> tuple[Target, ...]:
    asked: Sequence[Mix] = options.target_mixes or ()
    mixes = [_shares(mix, space.categories) for mix in asked]
    for mix in asked:
        unknown = [name for name in mix.shares if name not in space.categories]
        if unknown:
            raise InputError(f"--target_mixes names {', '.join(unknown)}, which no mix of --mixes has")
    if space.mixes is not None and not mixes:
        mixes = [tuple(float(share) for share in mix) for mix in space.mixes]
    return default_targets(skills, largest=space.flops[1], computes=options.target_flops or (), mixes=mixes)


def _world(name: str, space: DesignSpace, mix: Mix | None, out: Output) -> Callable[[int], GroundTruth]:
    """The world of a seed: for a kind another one each time, for a file always the same."""
    if name in list(TruthFamily):
        return lambda seed: truth_of_family(TruthFamily(name), seed, space)
    if not name.endswith(".py"):
        raise InputError(f"there is no world {name!r}; give a Python file (.py), or one of {', '.join(TruthFamily)}")
    one = truth_from_file(user_function.load(Path(name)), space, mix, told=out.progress)
    return lambda _seed: one


def _plain(one: SimulationResult) -> dict[str, Any]:
    """The answer as values."""
    return {
        "flops_spent": float(one.spent.mean()), "runs": float(one.runs.mean()), "seconds": float(one.seconds.mean()),
        **{
            _KEYS[quantity]: [_numbers(score) for score in one.scores if score.target.quantity is quantity]
            for quantity in one.quantities
        },
        "all": {
            _KEYS[quantity]: {key: value for key, value in _numbers(one.pooled(quantity)).items() if key in _POOLED}
            for quantity in one.quantities
        },
    }  # fmt: skip


def _numbers(score: Score) -> dict[str, Any]:
    target = score.target
    (bias, bias_sem), (rmse, rmse_sem), (coverage, coverage_sem) = score.bias, score.rmse, score.coverage
    return {
        "target": target.name, "skill": target.skill, **({"other": target.other} if target.other else {}),
        "flops": target.C, "mix": list(target.h), "tries": score.n, "bias": bias, "bias_sem": bias_sem, "rmse": rmse,
        "rmse_sem": rmse_sem, "coverage": coverage, "coverage_sem": coverage_sem, "half_width": score.half_width,
    }  # fmt: skip


def _table(name: str, one: SimulationResult, space: DesignSpace) -> str:
    """A line a target; pooled ones last."""
    units = one.spent.mean() / space.flops[1]
    head = (
        f"{name}: {one.runs.mean():.3g} runs, {one.spent.mean():.3g} FLOP ({units:.3g} of the largest run), "
        f"{one.seconds.mean():.2g} s"
    )
    rows = [(score.target.name, score) for score in one.scores]
    rows += [(f"all {_WORDS[quantity]}", one.pooled(quantity)) for quantity in one.quantities]
    width = max(len(told) for told, _ in rows)
    lines = [head, f"  {'':<{width}}  tries  bias             RMSE             coverage         half width"]
    for told, score in rows:
        # Errors of pooled targets go together: their own standard errors would be too small
        whole = not told.startswith("all ")
        pairs = [(score.bias, "+.3f"), (score.rmse, ".3f"), (score.coverage, ".2f")]
        shown = "".join(f"{_pair(pair, form, whole=whole):<17}" for pair, form in pairs)
        lines.append(f"  {told:<{width}}  {score.n:>5}  {shown}{score.half_width:.3f}")
    return "\n".join(lines)


def _pair(pair: tuple[float, float], form: str, *, whole: bool) -> str:
    """A value and, where known and wanted, its standard error."""
    if not math.isfinite(pair[0]):
        return "-"
    sem = f" +- {pair[1]:{form.lstrip('+')}}" if whole and math.isfinite(pair[1]) else ""
    return f"{pair[0]:{form}}{sem}"
