"""From options to a plan: the budget in FLOP, the request, and the record of the answer."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from skillscale.analysis.description import PREVIEW, Description, describe_plan, first_metrics
from skillscale.analysis.load_laws import LoadedLaws, check_names
from skillscale.config.options import BudgetOptions, PlanOptions
from skillscale.errors import FitError, InputError
from skillscale.formatting import JsonObject, format_flops, format_number, join_words, to_json
from skillscale.laws.optimum.ensemble import resolve_shares, shared_categories
from skillscale.laws.optimum.identification import joint_identification
from skillscale.laws.optimum.optimum import normalise
from skillscale.laws.optimum.plan import Plan, PlanRequest, plan
from skillscale.laws.skills.doubts import doubts_by_skill
from skillscale.point import Mix
from skillscale.tracking import AnalysisWriter


@dataclass(frozen=True, kw_only=True)
class Budget:
    """C in FLOP, and in words how it came about."""

    flops: float
    text: str


def read_budgets(options: BudgetOptions) -> tuple[Budget, ...]:
    """Return the budgets that are given in FLOP or in GPU-hours.

    Raises:
        InputError: None, both, or GPU-hours without the peak and its utilisation.
    """
    by_gpu = {"gpu_hours": options.gpu_hours, "gpu_flops": options.gpu_flops, "mfu": options.mfu}
    cure = "Give --flops C, or --gpu_hours H with --gpu_flops PEAK (FLOP/s of one GPU) and --mfu SHARE (of that peak)."
    if options.flops and any(by_gpu.values()):
        names = ", ".join(f"--{name}" for name, value in by_gpu.items() if value)
        raise InputError(f"a budget is given twice, by --flops and by {names}. {cure}")
    if options.flops:
        return tuple(Budget(flops=C, text=f"{format_flops(C, 4)} FLOP") for C in options.flops)
    if not any(by_gpu.values()):
        raise InputError(f"plan needs a budget. {cure}")
    if options.gpu_hours is None or options.gpu_flops is None or options.mfu is None:
        lacking = [f"--{name}" for name, value in by_gpu.items() if not value]
        raise InputError(f"a budget in GPU-hours lacks {' and '.join(lacking)}. {cure}")
    rate = options.gpu_flops * options.mfu
    product = f"x 3600 s x {format_flops(options.gpu_flops, 4)} FLOP/s x {format_number(options.mfu)} of the peak"
    return tuple(
        Budget(
            flops=hours * 3600 * rate,
            text=f"{format_number(hours, 4)} GPU-hours {product} = {format_flops(hours * 3600 * rate, 4)} FLOP",
        )
        for hours in options.gpu_hours
    )


def plan_request(options: PlanOptions, loaded: LoadedLaws) -> PlanRequest:
    """Return what the plan is for; all skills weigh the same where no weights are given.

    Raises:
        InputError: Names that the laws lack, weights that are all 0, or a mix that no law takes.
        FitError: A skill with a weight has no law.
    """
    names = list(loaded.laws)
    for option, weights in (("skill_weights", options.skill_weights), ("validation", options.validation)):
        for name, weight in weights.items():
            if weight and name in loaded.unfitted:
                raise FitError(f"--{option} names {name}, which has no law: {loaded.unfitted[name]}")
        fitted = {name: weight for name, weight in weights.items() if name not in loaded.unfitted}
        check_names(option, fitted, names, loaded.name)
        if weights and not any(weights.values()):
            raise InputError(f"--{option} sums to 0. Give at least one skill a weight above 0.")
    categories = shared_categories(loaded.laws)
    check_names("bounds", options.bounds, categories, f"the law of {loaded.name}")
    return PlanRequest(
        weights=options.skill_weights or dict.fromkeys(loaded.skills or names, 1.0), skills=loaded.skills,
        validation=options.validation, h=_shares(options.mix, categories, loaded), bounds=options.bounds,
        sizes=options.n_params or (), tolerance=options.compute_tolerance,
    )  # fmt: skip


def require_identified(loaded: LoadedLaws, budgets: Sequence[Budget], request: PlanRequest) -> None:
    """Refuse budgets at which weak priors decide N* more than the runs do.

    Raises:
        InputError: It names runs that would decide it.
    """
    shares = resolve_shares(loaded.laws, request.h)
    weights = normalise(request.weights, loaded.laws)
    for budget in budgets:
        identification = joint_identification(loaded.laws, weights, budget.flops, None if shares is None else shares[0])
        if identification.prior_decides:
            raise InputError(f"no plan for {budget.text}: {identification.reason}. --force plans all the same.")


def _shares(text: str, categories: Sequence[str], loaded: LoadedLaws) -> Mapping[str, float] | None:
    """Return the shares of the mix that is given; None for the runs' mean, or where a name stands for it."""
    if "=" not in text:
        if text and categories:
            raise InputError(
                f"--mix must hold shares of {', '.join(categories)}, as in a=0.5,b=0.5, but it is {text!r}"
            )
        return None
    shares = Mix.parse(text).shares
    if not categories:
        laws = ", ".join(sorted({law.law.name for law in loaded.laws.values()}))
        raise InputError(
            f"--mix {text} sets a mix, but {laws} does not depend on the mix. Fit runs of several mixes with a law "
            "that does, such as --law separable, or drop --mix."
        )
    return shares


def no_mix_reason(loaded: LoadedLaws) -> str:
    """Return why laws that do not depend on the mix say nothing about other mixes."""
    laws = join_words(sorted({law.law.name for law in loaded.laws.values() if not law.law.needs_mix}))
    if loaded.mix:
        return "the mixes have names without shares, and each has laws of its own; --mix NAME plans for another"
    if loaded.runs is None:
        return f"no mix enters {laws}"
    if loaded.runs.table.runs["mix"].nunique() > 1:
        return f"the runs had several, but none enters {laws}; it does with --law separable"
    return "all runs had one" if loaded.runs.table.categories else "the runs have no shares, and at most one name"


@dataclass(frozen=True, kw_only=True)
class MadePlans:
    """Plans of one request, one for each budget.

    Args:
        plans: The plans.
        answer: What ``plan --json`` prints.
        text: What ``plan`` prints.
        figures: The figure by kind: ``svg`` and ``png``.
        preview: A small PNG of it.
    """

    plans: tuple[Plan, ...]
    answer: JsonObject
    text: str
    figures: Mapping[str, bytes]
    preview: bytes


def make_plans(options: PlanOptions, loaded: LoadedLaws) -> MadePlans:
    """Plan one training run for each budget.

    Raises:
        InputError: Not one kind of budget, skills, mixes or bounds that the laws lack, or priors decide N*.
        FitError: A skill with a weight has no law.
    """
    from skillscale.report import style
    from skillscale.report.decision_figure import preview
    from skillscale.report.doubts import doubts_as_dict
    from skillscale.report.plan import PlanContext, plan_as_dict, plan_text, weighted_law_names
    from skillscale.report.plan_figure import draw_plan

    budgets = read_budgets(options.budget)
    request = plan_request(options, loaded)
    if not options.force:
        require_identified(loaded, budgets, request)
    plans = tuple(plan(loaded.laws, budget.flops, request) for budget in budgets)
    doubts = doubts_by_skill(
        loaded.laws, [budget.flops for budget in budgets], parts=loaded.parts,
        mixes=dict.fromkeys(loaded.laws, loaded.mix),
    )  # fmt: skip
    context = PlanContext(
        budgets=tuple(budget.text for budget in budgets), skills=loaded.skills, convention=loaded.convention,
        mix_given=request.h is not None, level=next(iter(loaded.laws.values())).level, mixless=no_mix_reason(loaded),
        source=loaded.arguments, doubts=doubts,
    )  # fmt: skip
    answer: JsonObject = {
        "source": loaded.name, "convention": loaded.convention, "level": context.level,
        "laws": {name: weighted_law_names(law) for name, law in loaded.laws.items()}, "refused": dict(loaded.unfitted),
        "doubts": {name: doubts_as_dict(items, loaded.arguments) for name, items in doubts.items()},
        "plans": [plan_as_dict(planned, context, at) for at, planned in enumerate(plans)],
    }  # fmt: skip
    figure = draw_plan(plans, loaded.laws, loaded.skills)
    return MadePlans(
        plans=plans, answer=answer, text=plan_text(plans, loaded.laws, context),
        figures={"svg": style.to_svg(figure), "png": style.to_png(figure)},
        preview=preview(figure),
    )  # fmt: skip


def log_plan(run: AnalysisWriter, made: MadePlans) -> Description:
    """Write plans to their run: JSON and text, the figure by kind, metrics, description; return the description."""
    run.file("plan.json", to_json(made.answer))
    run.file("plan.txt", f"{made.text}\n")
    for kind, content in made.figures.items():
        run.file(f"figures/plan.{kind}", content)
    run.file(PREVIEW, made.preview)
    described = describe_plan(run, [planned.optimum for planned in made.plans], made.answer["level"])
    budgets = join_words([format_flops(planned.optimum.C) for planned in made.plans])
    run.log(note=described.note, tags={"budget": budgets})
    for step, planned in enumerate(made.plans):
        numbers = {"flops": planned.optimum.C, "N_star": planned.optimum.N.value, "D_star": planned.optimum.D.value}
        numbers |= {"loss": planned.loss.value} | {f"loss/{name}": loss.value for name, loss in planned.losses.items()}
        run.log(metrics=first_metrics({k: value for k, value in numbers.items() if math.isfinite(value)}), step=step)
    return described
