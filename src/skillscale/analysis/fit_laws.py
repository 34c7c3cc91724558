"""The entries that read: fit every skill from the registry's runs or from a table, and write the report."""

import json
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml

from skillscale import __version__
from skillscale.cli.output import Output, to_json
from skillscale.config import Config
from skillscale.errors import FitError, InputError, TrackingError
from skillscale.execution.status import StatusPublisher, store_fit_summary
from skillscale.formatting import did_you_mean
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.fit import fit_law
from skillscale.laws.fit.joint import ParameterSharing
from skillscale.laws.fit.objective import DELTA, Objective
from skillscale.laws.fit.request import FitRequest, UnfittedSkill, fit_all, weight_by_sem
from skillscale.laws.fit.skill_law import FittedLaw, split_by_skill
from skillscale.laws.forms.catalogue import LAWS
from skillscale.laws.forms.nd import Law
from skillscale.laws.io.document import LawMetadata, law_document
from skillscale.laws.isoflop.budgets import budget_of_runs
from skillscale.laws.isoflop.study import fit_study
from skillscale.laws.optimum.weighted_optimum import WeightedOptimum, weighted_optima
from skillscale.laws.results import StudyResults
from skillscale.laws.selection.selected import fit_selected
from skillscale.laws.selection.selection import LawSelection, data_for_setting, ineligible_reason, select_law
from skillscale.laws.skills.skill_study import SkillStudy, skill_study
from skillscale.laws.uncertainty.bootstrap import ResamplingMethod
from skillscale.point import digest
from skillscale.record import DataSet, RunRecord, State
from skillscale.runs import RunTable
from skillscale.runs.published_optima import read_optima
from skillscale.runs.read import LoadedRuns, print_excluded, print_exclusions, read_runs
from skillscale.tracking import AnalysisWriter, StudyStore

if TYPE_CHECKING:
    from skillscale.report.page import DataNotice, ReportContext

Told = tuple[dict[str, FittedLaw | UnfittedSkill], list[str]]  # laws by skill, and what is to be said of them
_LINKED_RUNS = 1000  # that are told of a law fitted to them: a tag takes some milliseconds
BEYOND = (1.0, 10.0, 100.0)  # where optima are told by default, in units of the largest 6 N D fitted


@dataclass(frozen=True, kw_only=True)
class FitResults:
    """What is fitted to some runs: isoFLOP curves where there are any, laws by skill, the computes they are told at.

    ``about``: what the laws have in common.
    """

    fits: StudyResults
    laws: Mapping[str, FittedLaw | UnfittedSkill]
    flops: tuple[float, ...]
    about: LawMetadata

    def as_dict(self) -> dict[str, Any]:
        """The answer of ``fit --json``."""
        from skillscale.report.laws import plain_laws

        return {"skills": plain_laws(self.laws, self.flops), **results_as_dict(self.fits)}


def fit(arguments: Mapping[str, Any], config: Config, out: Output) -> dict[str, Any]:
    """Fit every skill of a study or a table: its law, its compute optima, its isoFLOP curves; record the fit.

    Raises:
        FitError: no skill has a law or an isoFLOP optimum.
    """
    from skillscale.report.laws import law_text
    from skillscale.report.worth import weighted_optima_as_dict, worth_text

    runs = read_runs(arguments, config)
    _check_worth(runs, arguments)
    found = fit_all_laws(runs, arguments, config, out)
    require_a_fit(found)
    worth = _worth(runs, found, arguments)
    told = found.as_dict()
    if worth:
        told["optima"] = weighted_optima_as_dict(worth, runs.convention)
    opened = _fit_run(runs, arguments)
    if opened is not None:
        with opened as run:
            _log_findings(run, found, runs)
            if worth:
                run.file("optima.json", to_json({"optima": told["optima"]}))
            if arguments.get("register"):
                told["registered"] = _register(run, runs, found, arguments["register"])
        _describe("fit", run, found, runs, ["law.json", *["optima.json"] * bool(worth)], out)
    _tell_verdicts(found.fits, _base_mix(found.fits, config), out)
    out.text(law_text(found.laws, found.flops))
    if worth:
        out.text("\n" + worth_text(worth, runs.convention, config.study.level))
    if "registered" in told:
        out.text(f"registered as {told['registered']}")
    return told


def require_a_fit(found: FitResults) -> None:
    """Refuse runs that nothing could be fitted to, with each reason once."""
    if any(isinstance(one, FittedLaw) for one in found.laws.values()) or any(
        one.N.is_finite for one in found.fits.minima
    ):
        return
    reasons: dict[str, list[str]] = {}
    for one in found.laws.values():
        if isinstance(one, UnfittedSkill):
            reasons.setdefault(one.reason, []).append(one.skill)
    told = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
    raise FitError(f"no skill can be fitted. {told or 'No run has a loss'}")


def _check_worth(runs: LoadedRuns, arguments: Mapping[str, Any]) -> None:
    """Refuse at once what can't be asked, rather than after everything is fitted."""
    weights, bounds = arguments.get("worth") or {}, arguments.get("bounds") or {}
    skills = (*runs.table.judged, *runs.table.aggregates)
    if bounds and not weights:
        raise InputError("--bounds is of the best mix for --worth SKILL=WEIGHT,...; give that too")
    check_names("worth", weights, skills, runs.name)
    check_names("bounds", bounds, runs.table.categories, runs.name)
    if weights and not any(weights.values()):
        raise InputError("--worth sums to 0; give at least one skill a weight above 0")


def check_names(what: str, given: Mapping[str, Any], known: Sequence[str], place: str) -> None:
    """Refuse an argument that names what is not there.

    Raises:
        InputError: with the nearest name that there is.
    """
    for name in given:
        if name not in known:
            there = ", ".join(known) or "none"
            raise InputError(f"--{what} names {name}, which {place} lacks{did_you_mean(name, known)}; there is {there}")


def _worth(runs: LoadedRuns, found: FitResults, arguments: Mapping[str, Any]) -> dict[str, tuple[WeightedOptimum, ...]]:
    """What is best for skills of the worth that was asked about, by named mix; empty where none was.

    Raises:
        FitError: a skill that is worth something could not be fitted.
    """
    weights = arguments.get("worth")
    if not weights:
        return {}
    optima = {}
    for mix in runs.groups:
        names = [*runs.table.judged, *runs.table.aggregates]
        laws = {name: found.laws[one] for name in names if (one := _named(mix, name, runs)) in found.laws}
        for name in weights:
            if isinstance(refused := laws.get(name), UnfittedSkill):
                raise FitError(f"{name} is worth something, but could not be fitted: {refused.reason}")
        fitted = {name: one for name, one in laws.items() if isinstance(one, FittedLaw)}
        equal = [name for name in runs.table.judged if name in fitted]
        optima[mix if len(runs.groups) > 1 else ""] = weighted_optima(
            fitted, found.flops, weights, equal=equal, bounds=arguments.get("bounds")
        )
    return optima


def _fit_run(runs: LoadedRuns, arguments: Mapping[str, Any]) -> AnalysisWriter | None:
    """The run that a fit is recorded in: the study's, or one of its own where a table's laws are to be registered."""
    if runs.study is not None:
        return runs.study.analysis("fit")
    name = arguments.get("register")
    return StudyStore.open(arguments["tracking"]).law_run(name) if name else None


def law_json(found: FitResults) -> str:
    """The laws that were fitted, as the JSON text that is registered."""
    return to_json(
        law_document({name: one for name, one in found.laws.items() if isinstance(one, FittedLaw)}, found.about)
    )


def _note(runs: LoadedRuns, found: FitResults) -> str:
    laws = sorted({one.law.name for one in found.laws.values() if isinstance(one, FittedLaw)})
    return (
        f"Laws ({', '.join(laws)}) of {len(found.laws)} skills, fitted to {len(runs.table.runs)} rows of {runs.name}. "
        "Columns: n_params, n_tokens; skill and mix/CATEGORY where wanted."
    )


def _register(run: AnalysisWriter, runs: LoadedRuns, found: FitResults, name: str) -> str:
    """Register the laws, bound to the runs behind them; returns their address."""
    note, tags, ids = _note(runs, found), {"runs_of": runs.name, "runs": str(len(runs.table.runs))}, []
    if runs.study is not None:
        ids = [one.run_id for one in runs.records if one.state is State.FINISHED]
        note += f"\n\nStudy {runs.study.name}: {runs.study.link}"
        tags |= {"study": runs.study.name, "runs_digest": digest(sorted(ids))}
    return run.register(name, law_json(found), note=note, tags=tags, runs=ids[:_LINKED_RUNS])


def _describe(
    kind: str, run: AnalysisWriter, found: FitResults, runs: LoadedRuns, files: Sequence[str], out: Output
) -> None:
    """Bring the study's description in the UI up to date; that it can't be costs nothing."""
    from skillscale.report.laws import optima_frame

    if runs.study is None:
        return
    try:
        store_fit_summary(
            runs.study, kind, run_id=run.run_id, files=files, runs=len(runs.table.runs), level=found.fits.level,
            optima=optima_frame(found.laws, found.flops).to_dict(orient="records"),
        )  # fmt: skip
    except TrackingError as error:
        out.progress(f"note: {error}")
    StatusPublisher(runs.study, out.progress).refresh(now=True)


def report(arguments: Mapping[str, Any], config: Config, out: Output) -> dict[str, Any]:
    """Fit, and write figures, tables and the page."""
    from skillscale.report import style
    from skillscale.report.law_figures import of_laws
    from skillscale.report.page import page
    from skillscale.report.skill_page import skill_figures_of, skill_frames

    runs = read_runs(arguments, config)
    found = fit_all_laws(runs, arguments, config, out)
    path = Path(arguments["page"] or f"skillscale-{runs.name}.html").absolute()
    about = _background(arguments, config, runs)
    figures = of_laws(found.laws, found.flops)
    drawn = {name: style.svg(figure) for name, figure in figures.items()}
    study = _skill_study(runs, config, found, arguments)
    html = page(
        runs.name, runs.records, found.fits, about, laws=found.laws, flops=found.flops, drawn=drawn,
        base=study.base if study else "",
        differences=skill_figures_of(study, runs.table.own_categories, fits=found.fits, beside=_beside(arguments)),
    )  # fmt: skip
    path.write_text(html, encoding="utf-8")
    told: dict[str, Any] = {**found.as_dict(), "page": path}
    if runs.study is not None:
        with runs.study.analysis("report") as run:
            _log_findings(run, found, runs)
            files = {f"{name}.svg": content for name, content in drawn.items()}
            files |= {f"{name}.png": style.png(figure) for name, figure in figures.items()}
            files = _isoflop_figures(found.fits, _base_mix(found.fits, config)) | files
            for name, content in files.items():
                run.file(f"figures/{name}", content)
            for name, frame in skill_frames(study).items():
                run.file(f"tables/{name}.csv", frame.to_csv(index=False))
            run.file("page.html", html)
        shown = [f"figures/{name}" for name in files if name.endswith(".png")]
        _describe("report", run, found, runs, ["page.html", "law.json", *shown], out)
    _tell_verdicts(found.fits, _base_mix(found.fits, config), out)
    out.text(f"\npage:  {path}")
    if runs.registry is not None and runs.study is not None:
        told["ui"] = runs.registry.ui_command
        out.text(f"UI:    {runs.registry.ui_command}\n       {runs.study.chart_link}")
        runs.registry.annotate_mlflow_project_run(
            runs.study, note=f"Report of study {runs.study.name}", result=found.as_dict()
        )
    return told


def _beside(arguments: Mapping[str, Any]) -> tuple[str, pd.DataFrame] | None:
    """Published optima to draw beside the study's; none where an empty name is given."""
    name = str(arguments.get("beside") or "")
    return (Path(name).stem, read_optima(name)) if name else None


def _skill_study(
    runs: LoadedRuns, config: Config, found: FitResults, arguments: Mapping[str, Any]
) -> SkillStudy | None:
    """How skills differ; None where the runs are no isoFLOP study."""
    of_grid = runs.of_grid
    if not of_grid.has_isoflops or not found.fits.mixes:
        return None
    grid = of_grid.table.runs
    return skill_study(
        grid, of_grid.measured, base=_base_mix(found.fits, config), level=config.study.level,
        resamples=config.study.resamples, curve=arguments.get("curve") or "shared",
        laws=_laws_by_mix(runs, found.laws, grid),
    )  # fmt: skip


def _base_mix(fits: StudyResults, config: Config) -> str:
    """The study's own first mix, or the one with the most runs."""
    wanted = str(config.study.mix_values[0])
    if wanted in fits.mixes or not fits.mixes:
        return wanted
    return str(fits.runs["mix"].astype(str).mode().iloc[0])


def fit_all_laws(runs: LoadedRuns, arguments: Mapping[str, Any], config: Config, out: Output) -> FitResults:
    """Fit everything there is to fit."""
    print_excluded(runs, out)
    laws: dict[str, FittedLaw | UnfittedSkill] = {}
    mixes: dict[str, str] = {}
    for mix, (found, notes) in zip(runs.groups, _laws_by_group(runs, arguments, config), strict=True):
        for note in notes:
            out.progress(note)
        laws |= {_named(mix, name, runs): one for name, one in found.items()}
        mixes |= {_named(mix, name, runs): mix for name in found if len(runs.groups) > 1}
    laws |= {name: UnfittedSkill(skill=name, n_runs=0, reason=why) for name, why in runs.table.lost.items()}
    given = arguments.get("flops")
    fitted = [one for one in laws.values() if isinstance(one, FittedLaw)]
    largest = max((float((6 * one.points.N * one.points.D).max()) for one in fitted), default=float("nan"))
    flops = tuple(given) if given else tuple(float(f"{factor * largest:.3g}") for factor in BEYOND)
    means = {_named(mix, name, runs) for mix in runs.groups for name in runs.table.aggregates}
    return FitResults(
        fits=_study_fits(runs, config, laws, out, arguments.get("curve") or "shared"), laws=laws, flops=flops,
        about=LawMetadata(
            convention=runs.convention, aggregates=tuple(name for name in laws if name in means), mixes=mixes
        ),
    )  # fmt: skip


def _laws_by_group(runs: LoadedRuns, arguments: Mapping[str, Any], config: Config) -> list[Told]:
    """The laws of each group of runs, which have nothing in common: side by side where there are several."""
    asked = [(table, mix, arguments, config) for mix, table in runs.groups.items()]
    processes = min(len(asked), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
    if processes < 2:
        return [laws_of(*each) for each in asked]
    with ProcessPoolExecutor(processes) as pool:
        return list(pool.map(laws_of, *zip(*asked, strict=True)))


def laws_of(table: RunTable, mix: str, arguments: Mapping[str, Any], config: Config) -> Told:
    """Each skill's law: the one that was named, or the one that held-out runs choose, fitted as it was tried."""
    notes: list[str] = []
    data = data_by_skill(table)
    if arguments.get("law"):
        request = _request(arguments, config, law_by_name(arguments["law"]), table)
        return fit_all(_as_measured(data, table, arguments, request, notes), request), notes
    reasons = {name: ineligible_reason(points) for name, points in data.items()}
    refused = {
        name: UnfittedSkill(skill=name, n_runs=len(data[name]), reason=reason)
        for name, reason in reasons.items()
        if reason
    }
    able = {name: points for name, points in data.items() if name not in refused}
    if not able:
        return dict(refused), notes
    choice = select_law(able, objective=objective_from_options(arguments))
    chosen = choice.chosen.setting
    request = _request(arguments, config, chosen.law, table)
    able = _as_measured(able, table, arguments, request, notes)
    if request.sharing == ParameterSharing():
        notes.append(f"law{f' of {mix}' if mix else ''}: {chosen.name}{_because(choice)}")
        found = fit_selected(able, choice, request)
    else:
        asked = "without weak beliefs, and with what was asked to be pinned, shared or pooled"
        notes.append(f"law{f' of {mix}' if mix else ''}: {chosen.law.name}, {asked}; {chosen.name}{_because(choice)}")
        found = fit_all({name: data_for_setting(points, chosen) for name, points in able.items()}, request)
    return {name: refused[name] if name in refused else found[name] for name in data}, notes


def _as_measured(
    data: dict[str, RunData], table: RunTable, arguments: Mapping[str, Any], request: FitRequest, notes: list[str]
) -> dict[str, RunData]:
    """The runs, weighed by their standard errors where that is asked for."""
    return _weighed(data, table, request, notes) if arguments.get("weights") == "sem" else data


def _named(mix: str, name: str, runs: LoadedRuns) -> str:
    """A skill's name, with that of its mix where there are several named ones."""
    return f"{mix}/{name}" if mix and len(runs.groups) > 1 else name


def _study_fits(
    runs: LoadedRuns, config: Config, laws: Mapping[str, FittedLaw | UnfittedSkill], out: Output, curve: str
) -> StudyResults:
    """IsoFLOP curves beside the laws, and what follows from them; no curves where the runs are no isoFLOP study."""
    table, settings, of_grid = runs.table, config.study, runs.of_grid
    grid = of_grid.table.runs
    if not of_grid.has_isoflops:
        return StudyResults(
            skills=table.judged, aggregates=table.aggregates, level=settings.level, resamples=settings.resamples,
            curve=curve, runs=table.runs, minima=(), power_laws=(), size_gaps=(), laws=(), curve_versus_law=(),
            excluded=table.unusable,
        )  # fmt: skip
    fits = fit_study(
        grid, skills=table.judged, aggregates=table.aggregates, level=settings.level,
        resamples=settings.resamples, curve=curve,
        laws=_laws_by_mix(runs, laws, grid),
    )  # fmt: skip
    known = {(one.run_id, one.skill) for one in table.unusable}
    more = [one for one in fits.excluded if (one.run_id, one.skill) not in known]
    print_exclusions(more, out)
    return replace(fits, excluded=(*table.unusable, *more), C_is_6ND=runs.whole)


def _laws_by_mix(
    runs: LoadedRuns, laws: Mapping[str, FittedLaw | UnfittedSkill], grid: pd.DataFrame
) -> dict[tuple[str, str], FittedLaw | UnfittedSkill]:
    """Each skill's law at each mix; none where the budgets are not the laws' own C = 6 N D."""
    if not runs.whole or not len(grid):
        return {}
    mixes = {str(mix): "" if runs.table.categories else str(mix) for mix in grid["mix"]}
    named = {(mix, name): _named(group, name, runs) for mix, group in mixes.items() for name in _measured(runs.table)}
    return {key: laws[name] for key, name in named.items() if name in laws}


def data_by_skill(table: RunTable) -> dict[str, RunData]:
    """Each skill's and aggregate's runs."""
    return split_by_skill(table.runs, _measured(table), varied_categories(table))


def _measured(table: RunTable) -> list[str]:
    """Skills and aggregates that some run has a loss for."""
    return [name for name in (*table.judged, *table.aggregates) if table.runs[name].notna().any()]


def varied_categories(table: RunTable) -> tuple[str, ...]:
    """The categories of the mix; none where all runs have one mix, for its shares tell nothing then."""
    shares = table.runs[[f"mix/{name}" for name in table.categories]].to_numpy(dtype=float)
    varied = len(shares) > 0 and shares.shape[1] > 1 and bool(np.ptp(shares, axis=0).max() > 1e-6)
    return table.categories if varied else ()


def _because(choice: LawSelection) -> str:
    """How the law was chosen, in words."""
    if not choice.limits:
        return f", for {choice.chosen.reason} to choose by"
    others = [one for one in choice.candidates if one.setting.law != choice.chosen.setting.law and one.errors]
    beside = f"; {others[0].setting.name} {others[0].error:.2%}" if others else ""
    return f", by its error on held-out larger runs: {choice.chosen.error:.2%}{beside}"


def _request(arguments: Mapping[str, Any], config: Config, law: Law, table: RunTable) -> FitRequest:
    """How to fit, from the arguments."""
    method = ResamplingMethod(arguments.get("resample") or "wild")
    return FitRequest(
        law=law,
        objective=objective_from_options(arguments),
        sharing=ParameterSharing(
            pinned=dict(arguments.get("pin") or {}), shared=tuple(arguments.get("share") or ()),
            pooled=dict(arguments.get("pool") or {}),
        ),
        method=method,
        resamples=config.study.resamples,
        level=config.study.level,
        budgets=budget_of_runs(table.runs) if method is ResamplingMethod.BUDGET else None,
    )  # fmt: skip


def law_by_name(name: str) -> Law:
    """The law of a name.

    Raises:
        InputError: there is none; the nearest is offered.
    """
    if name not in LAWS:
        raise InputError(f"there is no law {name!r}{did_you_mean(name, LAWS)}; there are {', '.join(LAWS)}")
    return LAWS[name]


def objective_from_options(arguments: Mapping[str, Any]) -> Objective | None:
    """As asked for; Huber without a delta is the efficient one, whose delta follows the noise."""
    kind, delta = arguments.get("objective") or "huber", arguments.get("delta")
    if kind == "huber" and delta is None:
        return None
    return Objective(kind=kind.removesuffix("_raw"), delta=delta or DELTA, on="raw" if kind.endswith("_raw") else "log")


def _weighed(data: Mapping[str, RunData], table: RunTable, request: FitRequest, notes: list[str]) -> dict[str, RunData]:
    """Runs that weigh by the standard error of their measurement, where it is known.

    Raises:
        InputError: it is known of no skill.
    """
    known = {name: f"sem/{name}" for name in data if table.runs.get(f"sem/{name}", pd.Series(dtype=float)).gt(0).any()}
    if not known:
        raise InputError(
            "--weights sem needs standard errors, and no run has any; name their columns as `sem:` beside each skill's "
            "`loss:` in the columns file, or leave --weights out"
        )
    if lacking := [name for name in data if name not in known]:
        notes.append(f"note: no standard errors are known of {', '.join(lacking)}: its runs weigh alike")
    weighed = dict(data)
    for name, column in known.items():
        points = data[name]
        there = table.runs[name].notna().to_numpy()
        noise = fit_law(points, law=points.bind(request.law).for_skill(name), starts=2).noise
        weighed[name] = weight_by_sem(points, table.runs.loc[there, column].to_numpy(dtype=float), noise)
    return weighed


def results_as_dict(fits: StudyResults) -> dict[str, Any]:
    """The fits as plain values, for ``--json``."""
    named = {
        "minima": fits.minima_table(),
        "power_laws": fits.power_law_table(),
        "residuals": fits.size_gap_table(),
        "laws": fits.law_table(),
        "frontier": fits.curve_versus_law_table(),
    }
    left_out = [{"run": one.run_id, "skill": one.skill, "reason": one.reason} for one in fits.excluded]
    tables = {name: table.to_dict(orient="records") for name, table in named.items()}
    return {"level": fits.level, **tables, "unusable": left_out}


def _tell_verdicts(fits: StudyResults, base: str, out: Output) -> None:
    from skillscale.report.page import shown_mixes
    from skillscale.report.tables import verdict_table

    shown = shown_mixes(fits, base)
    for mix in shown:
        out.text(verdict_table(fits, mix))
    if len(fits.mixes) > len(shown):
        out.text(f"of {len(fits.mixes)} mixes, {base} alone is told here; the tables of `report` have them all")


def _isoflop_figures(fits: StudyResults, base: str) -> dict[str, bytes]:
    """The figures of isoFLOP curves by file name, as SVG for print and PNG for the UI."""
    from skillscale.report import figures, style
    from skillscale.report.page import shown_mixes

    drawn = {"isoflop": figures.isoflop, "optima": figures.optima, "residuals": figures.residuals}
    files: dict[str, bytes] = {}
    for at, mix in enumerate(shown_mixes(fits, base)):
        for name, draw in drawn.items():
            figure = draw(fits, mix)
            stem = name if at == 0 else f"{name}-{at + 1}"
            files |= {f"{stem}.svg": style.svg(figure), f"{stem}.png": style.png(figure)}
    return files


def _background(arguments: Mapping[str, Any], config: Config, runs: LoadedRuns) -> "ReportContext":
    from skillscale.report.page import ReportContext

    given = ("table", "columns", "convention") if runs.study is None else ("study", "data", "skills", "convention")
    chosen = " ".join(f"--{name} {shlex.quote(str(arguments[name]))}" for name in given if arguments.get(name))
    overrides = " ".join(f"--{name} {shlex.quote(text)}" for name, text in arguments.items() if "." in name)
    words = f"{chosen} {overrides}".strip()
    described = json.loads((runs.study.notes.data_description() if runs.study and runs.trained else "") or "{}")
    again = [f"skillscale {entry} {words}" for entry in (("main", "report") if runs.trained else ("report",))]
    return ReportContext(
        made=time.strftime("%Y-%m-%d %H:%M"),
        version=__version__,
        counted=runs.convention,
        elsewhere=not runs.trained,
        sources=_sources(described.get("notices") or ()),
        exposures={one.run_id: one.exposures for one in runs.records if one.exposures is not None},
        facts=_facts(described.get("facts")),
        commands=tuple(again),
        config=yaml.safe_dump(config.as_dict(), sort_keys=False) if runs.trained else "",
    )


def _sources(notices: Sequence[str]) -> "tuple[DataNotice, ...]":
    """Sources from lines of name, version and licence; only the licence may hold spaces."""
    from skillscale.report.page import DataNotice

    parts = [(*line.split(maxsplit=2), "", "") for line in notices if line.strip()]
    return tuple(DataNotice(name=name, version=version, licence=licence) for name, version, licence, *_ in parts)


def _facts(facts: Mapping[str, Any] | None) -> str:
    """One sentence on the facts of the training text, or nothing where none are counted."""
    from skillscale.formatting import format_count as number

    if not facts:
        return ""
    bits = number(facts["bits"], 3)
    return f"The text of {facts['category']} tells {facts['count']:,} facts, at most {bits} bits in all."


def _log_findings(run: AnalysisWriter, found: FitResults, runs: LoadedRuns) -> None:
    from skillscale.report.laws import errors_frame, law_frame, optima_frame
    from skillscale.report.tables import frames

    fits, optima = found.fits, optima_frame(found.laws, found.flops)
    tables = {"laws": law_frame(found.laws), "law_optima": optima}
    for name, table in (frames(fits, runs.records) | tables | {"law_errors": errors_frame(found.laws)}).items():
        run.file(f"tables/{name}.csv", table.to_csv(index=False))
    fitted = {name: one for name, one in found.laws.items() if isinstance(one, FittedLaw)}
    run.file("law.json", law_json(found))
    metrics = {f"N_star_exponent/{law.skill}": law.a.value for law in fits.power_laws if law.a.is_finite}
    metrics |= {
        f"residual/{one.skill}": one.value.value for one in fits.size_gaps if one.pooled and one.value.is_finite
    }
    metrics |= {f"law_exponent/{name}": one.exponent.value for name, one in fitted.items() if one.exponent.is_finite}
    run.log(metrics=metrics, params={"level": str(fits.level), "resamples": str(fits.resamples)})
    run.log(metrics=_half_widths(optima, runs.records), step=len(runs.table.runs))
    if runs.study is not None:
        ids = sorted(one.run_id for one in runs.records if one.state is State.FINISHED)
        source = f"experiment {runs.study.experiment_id}"
        run.used([DataSet(name=f"runs of {runs.name}", digest=digest(ids), role="fitting", source=source)])


def _half_widths(optima: pd.DataFrame, records: Sequence[RunRecord]) -> dict[str, float]:
    """Half widths of ln N* by skill and C, as those that ``sample`` logs, with what they cost."""
    half = np.log(optima["N_hi"] / optima["N_lo"]) / 2
    named = {
        f"half_width/{skill} {C:.3g}".replace("+", ""): float(each)
        for skill, C, each in zip(optima["skill"], optima["C"], half, strict=True)
        if np.isfinite(each)
    }
    done = [one.point.flops for one in records if one.state is State.FINISHED]
    widest = {"half_width": max(named.values())} if named else {}
    return {"runs": float(len(done)), "flops_finished": sum(done), **widest, **named}
