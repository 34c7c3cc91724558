"""The entry ``plan``: a training run for a budget and what skills are worth, from runs or from laws fitted earlier."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skillscale.analysis.fit_laws import check_names, laws_of
from skillscale.cli.output import Output, to_json
from skillscale.config import Config
from skillscale.errors import FitError, InputError
from skillscale.formatting import did_you_mean, join_words
from skillscale.laws.fit.request import UnfittedSkill
from skillscale.laws.fit.skill_law import FittedLaw
from skillscale.laws.io.document import LawMetadata, read_document, read_metadata
from skillscale.laws.optimum.ensemble import SkillLaw, shared_categories
from skillscale.laws.optimum.plan import Plan, PlanRequest
from skillscale.laws.optimum.plan import plan as plan_for
from skillscale.point import Mix
from skillscale.runs.read import LoadedRuns, print_excluded, read_runs
from skillscale.tracking import AnalysisWriter, StudyStore

_REGISTERED = "models:/"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """C in FLOP, and how it came about in words."""

    flops: float
    told: str


@dataclass(frozen=True, kw_only=True)
class LoadedLaws:
    """The laws that a plan rests on.

    ``name``: of their study, table, file or model; ``refused``: skills without a law, with the reason; ``aggregates``:
    skills that are means of others; ``named``: whether these are the laws of one mix of several that have names alone.
    ``runs`` or ``registry`` where they are from; both None: a file.
    """

    laws: Mapping[str, SkillLaw]
    name: str
    convention: str
    aggregates: tuple[str, ...]
    refused: Mapping[str, str]
    named: bool = False
    runs: LoadedRuns | None = None
    registry: StudyStore | None = None

    @property
    def skills(self) -> tuple[str, ...]:
        """Skills with a law that are no aggregates."""
        return tuple(name for name in self.laws if name not in self.aggregates)

    def opened(self) -> AnalysisWriter | None:
        """The run that a plan is recorded in: the study's, or one beside the registered law's fit; None for files."""
        if self.runs is not None and self.runs.study is not None:
            return self.runs.study.analysis("plan")
        return self.registry.law_run(self.name, "plan") if self.registry is not None else None


def plan(arguments: Mapping[str, Any], config: Config, out: Output) -> dict[str, Any]:
    """Plan one training run a budget; record the plan.

    Raises:
        InputError: not one kind of budget, or skills, mixes or bounds that the laws don't have.
        FitError: a skill that is worth something has no law.
    """
    from skillscale.report import style
    from skillscale.report.plan import PlanContext, plan_as_dict, plan_text, weighted_law_names
    from skillscale.report.plan_figure import draw_plan

    budgets = budgets_from_options(arguments)
    known = _known(arguments, config, out)
    wish = _wish(arguments, known)
    plans = [plan_for(known.laws, budget.flops, wish) for budget in budgets]
    asked = PlanContext(
        budgets=tuple(budget.told for budget in budgets), skills=known.skills, convention=known.convention,
        mix_given=wish.h is not None, level=next(iter(known.laws.values())).level, mixless=_mixless(known),
    )  # fmt: skip
    told: dict[str, Any] = {
        "source": known.name, "convention": known.convention, "level": asked.level,
        "laws": {name: weighted_law_names(one) for name, one in known.laws.items()}, "refused": dict(known.refused),
        "warnings": {name: list(one.warnings) for name, one in known.laws.items()},
        "plans": [plan_as_dict(one, asked, at) for at, one in enumerate(plans)],
    }  # fmt: skip
    text, figure = plan_text(plans, known.laws, asked), draw_plan(plans, known.laws, known.skills)
    files = {"svg": style.to_svg(figure), "png": style.to_png(figure)}
    opened = known.opened()
    if opened is not None:
        with opened as run:
            _log(run, plans, told, text, files)
    if arguments["figure"]:
        path = Path(arguments["figure"])
        path.write_bytes(files[path.suffix.lower().removeprefix(".")])
        told["figure"] = path.absolute()
    out.text(text)
    out.text("".join(f"\nno law of {name}: {reason}" for name, reason in known.refused.items()).rstrip())
    registry, study = (known.runs.registry, known.runs.study) if known.runs is not None else (known.registry, None)
    if registry is not None:
        registry.annotate_mlflow_project_run(
            study, note=f"Plan by the runs of {known.name}", result=json.loads(to_json(told))
        )
    return told


def budgets_from_options(arguments: Mapping[str, Any]) -> tuple[Budget, ...]:
    """The budgets that were given, in FLOP or in GPU-hours.

    Raises:
        InputError: none, both, or GPU-hours without the peak and its share; each with the cure.
    """
    flops, hours = arguments["flops"], arguments["gpu_hours"]
    by_gpu = {name: arguments[name] for name in ("gpu_hours", "gpu_flops", "mfu")}
    cure = "give --flops C, or --gpu_hours H with --gpu_flops PEAK (FLOP/s of one GPU) and --mfu SHARE (of that peak)"
    if flops and any(by_gpu.values()):
        given = ", ".join(f"--{name}" for name, value in by_gpu.items() if value)
        raise InputError(f"a budget is given twice, by --flops and by {given}; {cure}")
    if flops:
        return tuple(Budget(flops=C, told=f"{C:.4g} FLOP") for C in flops)
    if not any(by_gpu.values()):
        raise InputError(f"plan needs a budget: {cure}")
    lacking = [f"--{name}" for name, value in by_gpu.items() if not value]
    if lacking:
        raise InputError(f"a budget in GPU-hours lacks {' and '.join(lacking)}; {cure}")
    rate = arguments["gpu_flops"] * arguments["mfu"]
    words = f"x 3600 s x {arguments['gpu_flops']:.4g} FLOP/s x {arguments['mfu']:.3g} of the peak"
    return tuple(
        Budget(flops=H * 3600 * rate, told=f"{H:.4g} GPU-hours {words} = {H * 3600 * rate:.4g} FLOP") for H in hours
    )


def _known(arguments: Mapping[str, Any], config: Config, out: Output) -> LoadedLaws:
    if not arguments["from"]:
        return _fitted(arguments, config, out)
    usual = {"objective": "huber", "weights": "equal", "resample": "wild"}
    fitting = ("table", "columns", "convention", "law", "pin", "share", "pool", "delta", *usual)
    given = [f"--{name}" for name in fitting if (arguments[name] or None) != usual.get(name)]
    if given:
        raise InputError(f"--from takes laws as they were fitted, so that {given[0]} has no place beside it; leave one")
    address = arguments["from"]
    plain, name, registry = load_document(address, arguments["tracking"])
    return _read(plain, address, arguments["mix"], name, registry)


def load_document(address: str, tracking: str) -> tuple[dict[str, Any], str, StudyStore | None]:
    """The document of laws that were fitted earlier, its name, and the registry that it is from, if it is no file.

    Raises:
        InputError: there is no such file, or it is no JSON.
        TrackingError: the registry has no such model.
    """
    if address.startswith(_REGISTERED):
        registry = StudyStore.open(tracking, create=False)
        name = address.removeprefix(_REGISTERED).partition("@")[0].partition("/")[0]
        return json.loads(registry.law_text(address)), name, registry
    path = Path(address)
    if not path.is_file():
        raise InputError(f"--from {address}: there is no such file; registered laws are named models:/NAME@champion")
    try:
        return json.loads(path.read_text(encoding="utf-8")), path.stem, None
    except ValueError as error:
        raise InputError(f"--from {address} is no JSON ({error}); it takes a law.json as `fit` logs it") from error


def _read(plain: Mapping[str, Any], place: str, mix: str, name: str, registry: StudyStore | None) -> LoadedLaws:
    found, about = read_document(plain, place=place), read_metadata(plain)
    if not found:
        raise InputError(f"{place} holds no law; fit the runs again")
    laws = _of_mix(found, about, mix)
    means = [one.rpartition("/")[2] if about.mixes else one for one in about.aggregates]
    return LoadedLaws(
        laws=laws, name=name, convention=about.convention, aggregates=tuple(means), refused={}, registry=registry,
        named=bool(about.mixes),
    )  # fmt: skip


def _of_mix(laws: Mapping[str, SkillLaw], about: LawMetadata, mix: str) -> dict[str, SkillLaw]:
    """The laws of the named mix that was asked for, by skill; all where there are no named mixes."""
    if not about.mixes:
        return dict(laws)
    asked = _named_mix(mix, sorted(set(about.mixes.values())))
    return {name.removeprefix(f"{asked}/"): one for name, one in laws.items() if about.mixes[name] == asked}


def _named_mix(mix: str, names: Sequence[str]) -> str:
    if mix not in names:
        lacks = f"there is none named {mix!r}{did_you_mean(mix, names)}" if mix else "each has laws of its own"
        raise InputError(
            f"the runs are of {len(names)} named mixes, and {lacks}; give --mix, one of {', '.join(names)}"
        )
    return mix


def _fitted(arguments: Mapping[str, Any], config: Config, out: Output) -> LoadedLaws:
    runs = read_runs(arguments, config)
    groups = runs.groups
    mix = _named_mix(arguments["mix"], list(groups)) if len(groups) > 1 else next(iter(groups))
    names = (*runs.table.judged, *runs.table.aggregates)
    for what in ("worth", "validation"):  # before the fits, which take a while
        check_names(what, arguments[what], names, runs.name)
    check_names("bounds", arguments["bounds"], runs.table.categories, runs.name)
    print_excluded(runs, out)
    found, notes = laws_of(groups[mix], mix, arguments, config)
    for note in notes:
        out.progress(note)
    laws = {name: one for name, one in found.items() if isinstance(one, FittedLaw)}
    refused = {name: one.reason for name, one in found.items() if isinstance(one, UnfittedSkill)} | dict(
        runs.table.lost
    )
    if not laws:
        raise FitError(f"no skill can be fitted. {'; '.join(f'{name}: {reason}' for name, reason in refused.items())}")
    return LoadedLaws(
        laws=laws, name=runs.name, convention=runs.convention, aggregates=tuple(runs.table.aggregates), refused=refused,
        named=len(groups) > 1, runs=runs,
    )  # fmt: skip


def _mixless(known: LoadedLaws) -> str:
    """Why laws that no mix enters tell nothing of others; where their runs are not at hand, only that none does."""
    laws = join_words(sorted({one.law.name for one in known.laws.values() if not one.law.needs_mix}))
    if known.named:
        return "the mixes have names without shares, and each has laws of its own; --mix NAME plans for another"
    if known.runs is None:
        return f"no mix enters {laws}"
    if known.runs.table.runs["mix"].nunique() > 1:
        return f"the runs had several, but none enters {laws}; it does with --law separable"
    return "all runs had one" if known.runs.table.categories else "the runs tell no shares, and at most one name"


def _wish(arguments: Mapping[str, Any], known: LoadedLaws) -> PlanRequest:
    """What the plan is for; every skill is worth the same where nobody said.

    Raises:
        InputError: names that the laws don't have, weights that are all 0, or a mix that the laws know nothing of.
        FitError: a skill that is worth something has no law.
    """
    names = list(known.laws)
    for what in ("worth", "validation"):
        for name, weight in arguments[what].items():
            if weight and name in known.refused:
                raise FitError(f"--{what} names {name}, which has no law: {known.refused[name]}")
        given = {name: weight for name, weight in arguments[what].items() if name not in known.refused}
        check_names(what, given, names, known.name)
        if arguments[what] and not any(arguments[what].values()):
            raise InputError(f"--{what} sums to 0; give at least one skill a weight above 0")
    categories = shared_categories(known.laws)
    check_names("bounds", arguments["bounds"], categories, f"the law of {known.name}")
    shares = _shares(arguments["mix"], categories, known)
    return PlanRequest(
        weights=arguments["worth"] or dict.fromkeys(known.skills or names, 1.0), skills=known.skills,
        validation=arguments["validation"], h=shares, bounds=arguments["bounds"], sizes=arguments["n_params"] or (),
        tolerance=arguments["tolerance"],
    )  # fmt: skip


def _shares(text: str, categories: Sequence[str], known: LoadedLaws) -> Mapping[str, float] | None:
    """The mix that was given by its shares; None for the runs' mean, or where a name stands for it."""
    if "=" not in text:
        if text and categories:
            raise InputError(f"--mix must hold shares of {', '.join(categories)}, as in a=.5,b=.5, but it is {text!r}")
        return None
    shares = Mix.parse(text).shares
    if not categories:
        laws = ", ".join(sorted({one.law.name for one in known.laws.values()}))
        raise InputError(
            f"--mix {text} asks about a mix, of which {laws} knows nothing; fit runs of several mixes with a law that "
            "does, such as --law separable, or leave --mix out"
        )
    return shares


def _log(
    run: AnalysisWriter, plans: Sequence[Plan], told: Mapping[str, Any], text: str, files: Mapping[str, bytes]
) -> None:
    run.file("plan.json", to_json(told))
    run.file("plan.txt", f"{text}\n")
    for kind, content in files.items():
        run.file(f"figures/plan.{kind}", content)
    for at, one in enumerate(plans):
        numbers = {"flops": one.optimum.C, "N_star": one.optimum.N.value, "D_star": one.optimum.D.value}
        numbers |= {"loss": one.loss.value} | {f"loss/{name}": loss.value for name, loss in one.losses.items()}
        run.log(metrics={name: value for name, value in numbers.items() if value == value}, step=at)
