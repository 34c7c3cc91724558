"""What the sampler is asked: the settings of ``conf/sample.yaml``, filled in with what is known of the study."""

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
from skillscale.formatting import did_you_mean, join_first
from skillscale.point import Mix

SAMPLING_PROBLEM = "order"  # the name under which a study remembers what it was sampled for
LEAST_SHARE = 1e-3  # of the largest run, that the least one costs by default
BUDGET_RUNS = 10.0  # of the largest, that the budget is by default
_SIZES_TO_BEGIN = 4  # that have a run cheap enough to begin with: fewer tell nothing of a power of N
_MOST_SIZES = 64  # of a ladder that a design looks at: steps of some 10 % over three decades


@dataclass(frozen=True, kw_only=True)
class StudyContext:
    """What a study tells by itself.

    ``skills``: measured; ``mixes``: the first is asked about, none where the mix plays no part; ``flops_max``: largest
    6 N D, None where nothing tells; ``sizes``: of models, ascending, none where every size can be had;
    ``least_tokens``: of a run; ``usual_tokens``: fewer than these fall off every law, so that none is chosen with fewer
    as long as there is room to begin; ``unique``: tokens of each category that differ; ``categories``: that a mix may
    have, any where none are named.
    """

    skills: tuple[str, ...]
    mixes: tuple[Mix, ...] = ()
    flops_max: float | None = field(default=None, metadata={"unit": "FLOP"})
    sizes: tuple[int, ...] = ()
    least_tokens: int = 1
    usual_tokens: int = 1
    unique: Mapping[str, float] = field(default_factory=dict)
    categories: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SamplingProblem:
    """What may be run, what is to be learned from it, and when that is enough: ``runs``, at most."""

    space: DesignSpace
    mixes: tuple[Mix, ...]
    skills: tuple[str, ...]
    targets: tuple[Target, ...]
    budget: float = field(metadata={"unit": "FLOP, overheads included"})
    width: float
    runs: int | None = None
    notes: tuple[str, ...] = ()

    def wish(self, spent: float, made: int = 0) -> DesignGoal:
        """What to learn with what ``made`` runs, which cost ``spent`` FLOP, have left of the budget."""
        runs = math.inf if self.runs is None else max(self.runs - made, 0)
        return DesignGoal(
            targets=self.targets, budget=max(self.budget - spent, 0.0), target_half_width=self.width, max_runs=runs
        )

    def as_dict(self) -> dict[str, Any]:
        """Space and targets as plain values by the names of the settings; when it is enough may change as one goes."""
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
            "wanted": list(self.skills),
            "target_flops": sorted({target.C for target in self.targets}),
            "weights": {target.skill: target.weight for target in self.targets if target.weight != 1},
        }


def build_problem(sample: SampleConfig, known: StudyContext) -> SamplingProblem:
    """The order that settings and study make.

    Raises:
        InputError: a skill that is not measured, no largest run, nothing that may be run, a target compute below the
            runs, or a budget below the cheapest of them.
    """
    skills = sample.target_skills or known.skills
    for name in (*skills, *sample.weights):
        if name not in known.skills:
            raise InputError(
                f"no run measures skill {name!r}{did_you_mean(name, known.skills)}; there are "
                f"{join_first(known.skills)}"
            )
    flops_max = sample.flops_max or known.flops_max
    if flops_max is None:
        raise InputError("nothing tells how large a run may be; give --flops_max FLOP (6 N D)")
    mixes = sample.mix_values or known.mixes
    for name in {name for mix in mixes for name in mix.shares}:
        if known.categories and name not in known.categories:
            there = join_first(known.categories)
            raise InputError(
                f"mix names no category: {name!r}{did_you_mean(name, known.categories)}; there are {there}"
            )
    space = _usual_space(sample, known, flops_max, mixes)
    targets = default_targets(
        skills, largest=flops_max, computes=sample.target_flops, weights=sample.weights,
        mixes=() if space.mixes is None else (tuple(space.mixes[0]),),
    )  # fmt: skip
    budget = sample.budget or BUDGET_RUNS * flops_max
    _check_budget(budget, space)
    return SamplingProblem(
        space=space, mixes=mixes, skills=skills, targets=targets, budget=budget, width=sample.target_half_width, runs=sample.runs,
        notes=(*_check_targets(targets, space), *_told_of_tokens(space, sample, known)),
    )  # fmt: skip


def _usual_space(sample: SampleConfig, known: StudyContext, flops_max: float, mixes: tuple[Mix, ...]) -> DesignSpace:
    """What may be run; without runs of fewer tokens than are usual, unless asked for or no room is left to begin."""
    if sample.n_tokens[0] <= 1 and known.usual_tokens > known.least_tokens:
        usual = replace(sample, n_tokens=(float(known.usual_tokens), sample.n_tokens[1]))
        try:
            space = _space(usual, known, flops_max, mixes)
        except InputError:  # said of what was asked for below, where it holds
            pass
        else:
            if _begins_with(space) >= _SIZES_TO_BEGIN:
                return space
    return _space(sample, known, flops_max, mixes)


def _begins_with(space: DesignSpace) -> int:
    """How many sizes have a run on every mix that is cheap enough to begin with."""
    N, D = space.lattice(steps=41)
    cheap = START_SHARE * space.flops[1] >= 6 * N * D
    for mix in () if space.mixes is None else space.mixes:
        cheap &= space.allows(N, D, np.tile(mix, (len(N), 1)))
    return len(np.unique(N[cheap]))


def _space(sample: SampleConfig, known: StudyContext, flops_max: float, mixes: tuple[Mix, ...]) -> DesignSpace:
    flops_min = sample.flops_min or LEAST_SHARE * flops_max
    if flops_min > flops_max:
        raise InputError(f"flops_min is {flops_min:.3g}, above flops_max, which is {flops_max:.3g}; give less")
    categories = tuple(sorted({name for mix in mixes for name in mix.shares})) if len(mixes) > 1 else ()
    supplies = _supplies(sample, known, mixes)
    n_tokens = (max(sample.n_tokens[0], known.least_tokens), sample.n_tokens[1])
    if not categories and mixes:  # the one mix says how many tokens in all that is
        most = min((supplies[name] / share for name, share in mixes[0].shares.items()), default=math.inf)
        n_tokens = (n_tokens[0], min(n_tokens[1], most))
    return DesignSpace(
        flops=(flops_min, flops_max),
        n_params=sample.n_params,
        n_tokens=n_tokens,
        ratio=sample.ratio,
        sizes=_sizes(sample, known, (flops_min, flops_max)),
        categories=categories,
        mixes=np.array([[mix.shares.get(name, 0.0) for name in categories] for mix in mixes]) if categories else None,
        supply=np.array([supplies[name] for name in categories]) if categories and sample.max_epochs else None,
        overhead=sample.overhead,
        replicates=sample.replicates,
    )


def _sizes(sample: SampleConfig, known: StudyContext, flops: tuple[float, float]) -> tuple[float, ...]:
    """Sizes of the ladder that some run within the limits has, thinned evenly in ln N where there are many."""
    low = max(sample.n_params[0], math.sqrt(flops[0] / (6 * sample.ratio[1])))
    high = min(sample.n_params[1], math.sqrt(flops[1] / (6 * sample.ratio[0])))
    if sample.sizes and known.sizes:
        ladder = sorted({min(known.sizes, key=lambda size: abs(math.log(size / n))) for n in sample.sizes})
    else:
        ladder = sorted(sample.sizes or known.sizes)
    inside = [size for size in ladder if low * 0.999 <= size <= high * 1.001]
    if ladder and not inside:
        raise InputError(
            f"the limits allow no run: none of the sizes, which go from {ladder[0]:,} to {ladder[-1]:,} parameters, lies "
            f"between {low:,.0f} and {high:,.0f}, as n_params, ratio and flops want; widen those"
        )
    if len(inside) <= _MOST_SIZES:
        return tuple(float(size) for size in inside)
    wanted = np.geomspace(inside[0], inside[-1], _MOST_SIZES)
    return tuple(float(size) for size in sorted({min(inside, key=lambda one: abs(math.log(one / n))) for n in wanted}))


def _supplies(sample: SampleConfig, known: StudyContext, mixes: Sequence[Mix]) -> dict[str, float]:
    """Most tokens of each category that one run may see."""
    names = sorted({name for mix in mixes for name in mix.shares})
    if sample.max_epochs is None:
        return dict.fromkeys(names, math.inf)
    limits = sample.max_epochs if isinstance(sample.max_epochs, Mapping) else dict.fromkeys(names, sample.max_epochs)
    if not known.unique:
        raise InputError(
            "sample.max_epochs can't be kept: nobody knows how many tokens each category has, as these data were not "
            "prepared here; limit sample.n_tokens instead"
        )
    for name in limits:
        if name not in names or name not in known.unique:
            raise InputError(
                f"sample.max_epochs names no category of the mixes: {name!r}; there are {join_first(names)}"
            )
    return {name: limits[name] * known.unique[name] if name in limits else math.inf for name in names}


def _check_budget(budget: float, space: DesignSpace) -> None:
    cheapest = float(space.cost(*space.lattice()).min())
    if budget < cheapest * (1 - 1e-9):
        raise InputError(
            f"the budget of {budget:.3g} FLOP is below the cheapest run, {cheapest:.3g} FLOP with its overhead; raise "
            "--budget, or lower --flops_min or sample.overhead"
        )


def _told_of_tokens(space: DesignSpace, sample: SampleConfig, known: StudyContext) -> tuple[str, ...]:
    least = space.n_tokens[0]
    if least <= max(sample.n_tokens[0], known.least_tokens):
        return ()
    return (
        f"runs of fewer than {least:,.0f} tokens are not chosen: they are a few updates, and lie off every law; "
        '--sample.n_tokens "[LEAST, MOST]" says otherwise',
    )


def _check_targets(targets: Sequence[Target], space: DesignSpace) -> tuple[str, ...]:
    notes = []
    for C in sorted({target.C for target in targets}):
        if space.flops[0] > C:
            raise InputError(
                f"the target compute {C:.3g} FLOP is below the least run, {space.flops[0]:.3g} FLOP; ask for a larger "
                "one with --target_flops, or lower --flops_min"
            )
        if space.flops[1] > C:
            notes.append(
                f"the target compute {C:.3g} FLOP is below the largest run, {space.flops[1]:.3g} FLOP: what is best "
                "there can be measured outright"
            )
    return tuple(notes)
