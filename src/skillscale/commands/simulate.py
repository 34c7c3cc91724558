"""``simulate``: try designs on a known truth, and print errors, coverage and cost of their estimates."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from skillscale.cli.output import Output
from skillscale.config import Config
from skillscale.config.options import SimulateOptions
from skillscale.design.propose import DesignGoal
from skillscale.design.space import DesignSpace
from skillscale.design.targets import Target, default_targets
from skillscale.errors import InputError
from skillscale.formatting import JsonObject, did_you_mean, format_flops
from skillscale.point import Mix
from skillscale.simulation.baselines import DESIGNS, Maker
from skillscale.simulation.random_truths import TruthFamily, random_truth
from skillscale.simulation.replay import ReplaySettings
from skillscale.simulation.trials import SimulationResult, Trial, result_as_dict, result_text, simulate_design
from skillscale.simulation.truth import Truth
from skillscale.simulation.truth_file import truth_from_file

IN_UNITS = 1e6  # a smaller budget is in units of the largest run


def simulate(options: SimulateOptions, config: Config, out: Output) -> JsonObject:
    """Try designs on a truth with several seeds; print errors, coverage and cost."""
    del config
    makers = _makers(options.design)
    space, mix = _space(options)
    settings = _settings(options, space)
    truth_for = _truths(options.truth, space, mix, out)
    truth = truth_for(0)
    goal = DesignGoal(
        targets=_targets(truth.skills, space, options), budget=settings.budget,
        target_half_width=options.target_half_width or 0.0, max_runs=settings.max_runs or math.inf,
    )  # fmt: skip
    results: dict[str, SimulationResult] = {}
    for name, make in makers.items():

        def report(seed: int, trial: Trial, name: str = name) -> None:
            out.progress(f"{name}, seed {seed}: {trial.n_runs} runs, {trial.spent / space.flops[1]:.3g} units")

        results[name] = simulate_design(truth_for, make, space, goal, settings, n_seeds=options.seeds, progress=report)
    for name, result in results.items():
        out.text(result_text(name, result, space))
    if truth.why_unknown:
        out.text(f"errors are unknown: {truth.why_unknown}")
    return {
        "world": options.truth, "skills": list(truth.skills), "flops": list(space.flops),
        "budget": settings.budget, "seeds": options.seeds, "batch": settings.batch, "workers": settings.workers,
        "designs": {name: result_as_dict(result) for name, result in results.items()}, "left_out": truth.why_unknown,
    }  # fmt: skip


def _makers(names: Sequence[str]) -> dict[str, Maker]:
    """Return the makers of the named designs."""
    for name in names:
        if name not in DESIGNS:
            raise InputError(
                f"there is no design {name!r}{did_you_mean(name, DESIGNS)}. Choose among {', '.join(DESIGNS)}, or see "
                "benchmarks/design.py for others"
            )
    return {name: DESIGNS[name] for name in names}


def _space(options: SimulateOptions) -> tuple[DesignSpace, Mix | None]:
    """Return the space, and the mix of every run where there is only one."""
    ratio: Sequence[float] = options.ratio or ()
    if len(ratio) != 2:
        raise InputError(f"--ratio has {len(ratio)} numbers. Give the smallest and the largest D / N, as in 1,500")
    flops = (options.flops_min, options.flops_max)
    overhead = options.overhead * flops[1]
    mixes: Sequence[Mix] = options.mixes or ()
    if len(mixes) < 2:
        space = DesignSpace(flops=flops, ratio=(ratio[0], ratio[1]), overhead=overhead)
        return space, mixes[0] if mixes else None
    categories = tuple(sorted({name for mix in mixes for name in mix.shares}))
    return DesignSpace(
        flops=flops, ratio=(ratio[0], ratio[1]), overhead=overhead, categories=categories,
        mixes=np.array([_shares(mix, categories) for mix in mixes]),
    ), None  # fmt: skip


def _shares(mix: Mix, categories: Sequence[str]) -> tuple[float, ...]:
    return tuple(mix.shares.get(name, 0.0) for name in categories)


def _settings(options: SimulateOptions, space: DesignSpace) -> ReplaySettings:
    budget = options.budget * (space.flops[1] if options.budget < IN_UNITS else 1.0)
    cheapest = float(min(space.cost(*space.lattice())))
    if budget < cheapest:
        raise InputError(
            f"a budget of {format_flops(budget)} FLOP buys no run: the cheapest costs {format_flops(cheapest)} FLOP, "
            "overhead included. Raise --budget, or lower --flops_min or --overhead"
        )
    return ReplaySettings(budget=budget, batch=options.batch, workers=options.workers, max_runs=options.runs)


def _targets(skills: Sequence[str], space: DesignSpace, options: SimulateOptions) -> tuple[Target, ...]:
    target_mixes: Sequence[Mix] = options.target_mixes or ()
    mixes = [_shares(mix, space.categories) for mix in target_mixes]
    for mix in target_mixes:
        unknown = [name for name in mix.shares if name not in space.categories]
        if unknown:
            raise InputError(f"--target_mixes names {', '.join(unknown)}, which no mix of --mixes has")
    if space.mixes is not None and not mixes:
        mixes = [tuple(float(share) for share in mix) for mix in space.mixes]
    return default_targets(skills, largest=space.flops[1], computes=options.target_flops or (), mixes=mixes)


def _truths(name: str, space: DesignSpace, mix: Mix | None, out: Output) -> Callable[[int], Truth]:
    """Return the truth of a seed: a new one of a family, and always the same of a file."""
    if name in list(TruthFamily):
        return lambda seed: random_truth(TruthFamily(name), seed, space.categories)
    if not name.endswith(".py"):
        raise InputError(
            f"there is no truth {name!r}{did_you_mean(name, TruthFamily)}. Give a Python file (.py) or one of "
            f"{', '.join(TruthFamily)}"
        )
    truth = truth_from_file(Path(name), space, mix, progress=out.progress)
    return lambda _seed: truth
