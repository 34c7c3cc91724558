"""Compute the answer of a fit: the optimum that ``plan`` gives for the same runs, its tests and the next runs."""

from collections.abc import Mapping
from dataclasses import replace

from skillscale.analysis.fit_laws import FLOPS_FACTORS, FitResults, default_flops
from skillscale.analysis.load_laws import laws_of_results
from skillscale.analysis.suggest import suggest_runs
from skillscale.config import Config
from skillscale.errors import SkillscaleError
from skillscale.laws.optimum.answer import Answer
from skillscale.laws.optimum.identification import FurtherRun
from skillscale.laws.optimum.optimum import shared_level
from skillscale.laws.optimum.plan import PlanRequest, planned_optimum
from skillscale.laws.skills.doubts import Doubt
from skillscale.tables.read import LoadedRuns

NEXT_RUNS = 3
_DEFAULT = FLOPS_FACTORS.index(10.0)


def answers_by_mix(results: FitResults, runs: LoadedRuns) -> dict[str, Answer]:
    """Return the answer at the budget that the user named, or at 10 times the largest run, by the name of the mix.

    The name is empty where all runs share their laws. Laws that were not fitted together have no answer.
    """
    named = sorted(set(results.metadata.mixes.values()), key=list(runs.groups).index)
    doubts = results.doubts()
    answers = (_answer(results, runs, mix, doubts) for mix in named or [""])
    return {answer.mix: answer for answer in answers if answer is not None}


def _answer(
    results: FitResults, runs: LoadedRuns, mix: str, doubts: Mapping[str, tuple[Doubt, ...]]
) -> Answer | None:  # fmt: skip
    """Return the answer for the laws of one mix; None where they have none."""
    try:
        loaded = laws_of_results(runs, results, mix)
        C = results.flops[0] if results.named_budgets else default_flops(loaded.laws)[_DEFAULT]
        request = PlanRequest(
            weights=dict.fromkeys(loaded.skills or loaded.laws, 1.0), skills=loaded.skills, validation={}
        )
        optimum, _, losses = planned_optimum(loaded.laws, C, request)
    except SkillscaleError:  # no law, or laws that were not fitted together
        return None
    prefix = f"{mix}/" if mix else ""
    return Answer(
        mix=mix, optimum=optimum, losses={name: losses[name] for name, weight in optimum.weights.items() if weight},
        level=shared_level(loaded.laws), named_budget=results.named_budgets, source=results.source,
        held_out={
            name: results.held_out[prefix + name] for name in loaded.skills if prefix + name in results.held_out
        },
        doubts={name: len(doubts[prefix + name]) for name in loaded.skills if doubts.get(prefix + name)},
    )  # fmt: skip


def with_next_runs(answer: Answer, runs: LoadedRuns, config: Config) -> Answer:
    """Add the next runs that ``suggest`` gives; the answer stays as it is where it gives none."""
    try:
        suggestion = suggest_runs(runs, config, count=NEXT_RUNS, mix=answer.mix)
    except SkillscaleError:  # the answer then names the command, which says why
        return answer
    points = tuple(FurtherRun(N=point.n_params, D=point.n_tokens) for point in suggestion.points)
    return replace(answer, next_runs=points)
