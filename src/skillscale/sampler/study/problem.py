"""The sampling problem of a study: the settings of ``conf/sample.yaml``, completed from the study."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from skillscale.config import SampleConfig
from skillscale.design.propose import START_SHARE, DesignGoal
from skillscale.design.space import DesignSpace
from skillscale.design.targets import Target, default_targets
from skillscale.errors import InputError
from skillscale.formatting import JsonObject, did_you_mean, format_flops, join_first
from skillscale.point import Mix

SAMPLING_PROBLEM = "order"  # the key under which a study keeps its sampling problem
DEFAULT_FLOPS_SHARE = 1e-3  # default cost of the smallest run, in largest runs
DEFAULT_BUDGET = 10.0  # in largest runs
_MIN_START_SIZES = 4  # sizes with a run that is cheap enough for the start: fewer determine no power of N
_MAX_SIZES = 64  # sizes of a ladder that a design considers: steps of about 10 % over three decades
_OLD_NAMES = {"wanted": "target_skills"}  # keys of problems that version 0.1 stored


@dataclass(frozen=True, kw_only=True)
class StudyContext:
    """Facts about a study that complete the settings.

    ``skills``: measured skills. ``mixes``: the targets are for the first; none where the mix plays no part.
    ``flops_max``: largest 6 N D, None where unknown. ``sizes``: of models, ascending; empty where every size exists.
    ``least_tokens``: of a run. ``usual_tokens``: runs with fewer follow no scaling law, so the design skips them as
    long as enough cheap runs remain. ``unique_tokens``: of each category. ``categories``: allowed in a mix, any where
    empty.
    """

    skills: tuple[str, ...]
    mixes: tuple[Mix, ...] = ()
    flops_max: float | None = field(default=None, metadata={"unit": "FLOP"})
    sizes: tuple[int, ...] = ()
    least_tokens: int = 1
    usual_tokens: int = 1
    unique_tokens: Mapping[str, float] = field(default_factory=dict)
    categories: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SamplingProblem:
    """What the sampler may run, what it is to learn, and when it stops.

    ``target_half_width``: half width of the widest interval that is narrow enough, in ln N. ``max_runs``: most sampled
    runs, None without a limit.
    """

    space: DesignSpace
    mixes: tuple[Mix, ...]
    skills: tuple[str, ...]
    targets: tuple[Target, ...]
    budget: float = field(metadata={"unit": "FLOP, overheads included"})
    target_half_width: float
    max_runs: int | None = None
    notes: tuple[str, ...] = ()

    def goal(self, spent: float, n_runs: int = 0) -> DesignGoal:
        """Return the goal of the design after ``n_runs`` sampled runs that cost ``spent`` FLOP."""
        return DesignGoal(
            targets=self.targets, budget=max(self.budget - spent, 0.0), target_half_width=self.target_half_width,
            max_runs=math.inf if self.max_runs is None else max(self.max_runs - n_runs, 0),
        )  # fmt: skip

    def as_dict(self) -> JsonObject:
        """Return space and targets as plain values by name of the setting.

        Budget and precision are not included: they may change from call to call.
        """
        space = self.space
        sizes = [space.sizes[0], space.sizes[-1], len(space.sizes)] if space.sizes else []
        limits = {name: list(getattr(space, name)) for name in ("flops", "n_params", "n_tokens", "ratio")}
        return {
            **limits,
            "sizes": sizes,
            "mixes": [str(mix) for mix in self.mixes],
            "supply": None if space.supply is None else space.supply.tolist(),
            "overhead": space.overhead,
            "replicates": space.replicates,
            "target_skills": list(self.skills),
            "target_flops": sorted({target.C for target in self.targets}),
            "weights": {target.skill: target.weight for target in self.targets if target.weight != 1},
        }


def read_stored_problem(values: Mapping[str, Any]) -> JsonObject:
    """Return the stored values of ``as_dict`` under today's names."""
    return {_OLD_NAMES.get(name, name): value for name, value in values.items()}


def build_problem(sample: SampleConfig, context: StudyContext) -> SamplingProblem:
    """Build the sampling problem from settings and study.

    Raises:
        InputError: a skill is not measured, the largest run is unknown, the limits allow no run, a target compute is
            below the smallest run, or the budget is below the cheapest run.
    """
    skills = sample.target_skills or context.skills
    _check_skills((*skills, *sample.weights), context.skills)
    flops_max = sample.flops_max or context.flops_max
    if flops_max is None:
        raise InputError("the largest run is unknown. Give --flops_max FLOP (6 N D)")
    mixes = sample.mix_values or context.mixes
    _check_categories(mixes, context.categories)
    space = _space_of_usual_runs(sample, context, flops_max, mixes)
    targets = default_targets(
        skills, largest=flops_max, computes=sample.target_flops, weights=sample.weights,
        mixes=() if space.mixes is None else (tuple(space.mixes[0]),),
    )  # fmt: skip
    budget = sample.budget or DEFAULT_BUDGET * flops_max
    _check_budget(budget, space)
    return SamplingProblem(
        space=space, mixes=mixes, skills=skills, targets=targets, budget=budget,
        target_half_width=sample.target_half_width, max_runs=sample.runs,
        notes=(*_target_notes(targets, space), *_token_notes(space, sample, context)),
    )  # fmt: skip


def _check_skills(names: Sequence[str], measured: Sequence[str]) -> None:
    for name in names:
        if name not in measured:
            raise InputError(
                f"no run measures the skill {name!r}{did_you_mean(name, measured)}. Choose among {join_first(measured)}"
            )


def _check_categories(mixes: Sequence[Mix], categories: Sequence[str]) -> None:
    for name in {name for mix in mixes for name in mix.shares}:
        if categories and name not in categories:
            raise InputError(
                f"a mix names no category: {name!r}{did_you_mean(name, categories)}. Choose among "
                f"{join_first(categories)}"
            )


def _space_of_usual_runs(
    sample: SampleConfig, context: StudyContext, flops_max: float, mixes: tuple[Mix, ...]
) -> DesignSpace:
    """Return the space without runs of few tokens, unless the settings allow them or too few cheap runs remain."""
    if sample.n_tokens[0] <= 1 and context.usual_tokens > context.least_tokens:
        usual = replace(sample, n_tokens=(float(context.usual_tokens), sample.n_tokens[1]))
        try:
            space = _space(usual, context, flops_max, mixes)
        except InputError:  # raised again below, with the user's limits, if these allow no run either
            pass
        else:
            if _n_start_sizes(space) >= _MIN_START_SIZES:
                return space
    return _space(sample, context, flops_max, mixes)


def _n_start_sizes(space: DesignSpace) -> int:
    """Count the sizes that have a run cheap enough for the start on every mix."""
    N, D = space.lattice(steps=41)
    cheap = START_SHARE * space.flops[1] >= 6 * N * D
    for mix in () if space.mixes is None else space.mixes:
        cheap &= space.allows(N, D, np.tile(mix, (len(N), 1)))
    return len(np.unique(N[cheap]))


def _space(sample: SampleConfig, context: StudyContext, flops_max: float, mixes: tuple[Mix, ...]) -> DesignSpace:
    flops_min = sample.flops_min or DEFAULT_FLOPS_SHARE * flops_max
    if flops_min > flops_max:
        raise InputError(
            f"flops_min is {format_flops(flops_min)}, above flops_max, which is {format_flops(flops_max)}. Lower it"
        )
    categories = tuple(sorted({name for mix in mixes for name in mix.shares})) if len(mixes) > 1 else ()
    supplies = _supplies(sample, context, mixes)
    n_tokens = (max(sample.n_tokens[0], context.least_tokens), sample.n_tokens[1])
    if not categories and mixes:  # the shares of the only mix limit the number of tokens
        most = min((supplies[name] / share for name, share in mixes[0].shares.items()), default=math.inf)
        n_tokens = (n_tokens[0], min(n_tokens[1], most))
    return DesignSpace(
        flops=(flops_min, flops_max),
        n_params=sample.n_params,
        n_tokens=n_tokens,
        ratio=sample.ratio,
        sizes=_sizes(sample, context, (flops_min, flops_max)),
        categories=categories,
        mixes=np.array([[mix.shares.get(name, 0.0) for name in categories] for mix in mixes]) if categories else None,
        supply=np.array([supplies[name] for name in categories]) if categories and sample.max_epochs else None,
        overhead=sample.overhead,
        replicates=sample.replicates,
    )


def _sizes(sample: SampleConfig, context: StudyContext, flops: tuple[float, float]) -> tuple[float, ...]:
    """Return the sizes of the ladder within the limits, thinned evenly in ln N where they are many."""
    low = max(sample.n_params[0], math.sqrt(flops[0] / (6 * sample.ratio[1])))
    high = min(sample.n_params[1], math.sqrt(flops[1] / (6 * sample.ratio[0])))
    if sample.sizes and context.sizes:
        ladder = sorted({_nearest(context.sizes, n) for n in sample.sizes})
    else:
        ladder = sorted(sample.sizes or context.sizes)
    inside = [size for size in ladder if low * 0.999 <= size <= high * 1.001]
    if ladder and not inside:
        raise InputError(
            f"the limits allow no run: the sizes have {ladder[0]:,} to {ladder[-1]:,} parameters, but n_params, ratio "
            f"and flops allow {low:,.0f} to {high:,.0f}. Widen these limits"
        )
    if len(inside) <= _MAX_SIZES:
        return tuple(float(size) for size in inside)
    even = np.geomspace(inside[0], inside[-1], _MAX_SIZES)
    return tuple(float(size) for size in sorted({_nearest(inside, float(n)) for n in even}))


def _nearest(sizes: Sequence[int], n_params: float) -> int:
    return min(sizes, key=lambda size: abs(math.log(size / n_params)))


def _supplies(sample: SampleConfig, context: StudyContext, mixes: Sequence[Mix]) -> dict[str, float]:
    """Return the most tokens of each category that one run may see."""
    names = sorted({name for mix in mixes for name in mix.shares})
    if sample.max_epochs is None:
        return dict.fromkeys(names, math.inf)
    limits = sample.max_epochs if isinstance(sample.max_epochs, Mapping) else dict.fromkeys(names, sample.max_epochs)
    if not context.unique_tokens:
        raise InputError(
            "sample.max_epochs can't be applied: the tokens of each category are unknown, because these data were not "
            "prepared here. Limit sample.n_tokens instead"
        )
    for name in limits:
        if name not in names or name not in context.unique_tokens:
            raise InputError(
                f"sample.max_epochs names no category of the mixes: {name!r}{did_you_mean(name, names)}. Choose among "
                f"{join_first(names)}"
            )
    return {name: limits[name] * context.unique_tokens[name] if name in limits else math.inf for name in names}


def _check_budget(budget: float, space: DesignSpace) -> None:
    cheapest = float(space.cost(*space.lattice()).min())
    if budget < cheapest * (1 - 1e-9):
        raise InputError(
            f"the budget of {format_flops(budget)} FLOP is below the cheapest run, {format_flops(cheapest)} FLOP with "
            "its overhead. Raise --budget, or lower sample.flops_min or sample.overhead"
        )


def _token_notes(space: DesignSpace, sample: SampleConfig, context: StudyContext) -> tuple[str, ...]:
    least = space.n_tokens[0]
    if least <= max(sample.n_tokens[0], context.least_tokens):
        return ()
    return (
        f"Runs with fewer than {least:,.0f} tokens are skipped: they have too few updates to follow a scaling law. "
        "Override with --sample.n_tokens '[MIN, MAX]'.",
    )


def _target_notes(targets: Sequence[Target], space: DesignSpace) -> tuple[str, ...]:
    """Return notes on targets within the range of the runs.

    Raises:
        InputError: a target compute is below the smallest run.
    """
    notes = []
    for C in sorted({target.C for target in targets}):
        if space.flops[0] > C:
            raise InputError(
                f"the target compute {format_flops(C)} FLOP is below the smallest run, {format_flops(space.flops[0])} "
                "FLOP. Raise it with --target_flops, or lower sample.flops_min"
            )
        if space.flops[1] > C:
            notes.append(
                f"The target compute {format_flops(C)} FLOP is below the largest run, {format_flops(space.flops[1])} "
                "FLOP. Runs can measure the optimum there directly."
            )
    return tuple(notes)
