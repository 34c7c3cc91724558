"""Fit the laws of every skill to a table of runs: values and notes out, nothing written and nothing printed.

``fit_runs`` is the one way from runs to results: laws by skill, their isoFLOP curves, and the notes that a
person should read. ``fit_laws`` fits one group of runs, for callers that need no curves.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from skillscale.analysis.kept_fits import kept_fit
from skillscale.config import Config, LawConfig, StudyConfig
from skillscale.errors import FitError, InputError
from skillscale.formatting import JsonObject, did_you_mean, format_percent, join_words, to_json
from skillscale.laws.fit.data import RunData, are_confounded
from skillscale.laws.fit.few_runs import WeightedForm, fit_few_runs, forms_for_few_runs, keep_estimate
from skillscale.laws.fit.fit import fit_law
from skillscale.laws.fit.joint import ParameterSharing
from skillscale.laws.fit.objective import DELTA, Objective
from skillscale.laws.fit.request import FitRequest, UnfittedSkill, fit_all, weight_by_sem
from skillscale.laws.fit.skill_law import FittedLaw, split_by_skill
from skillscale.laws.forms.catalogue import LAWS
from skillscale.laws.forms.nd import Law
from skillscale.laws.io.document import LawMetadata, law_document
from skillscale.laws.isoflop.budgets import budget_of_runs
from skillscale.laws.isoflop.study import fit_study, usable_runs
from skillscale.laws.results import ExcludedRun, StudyResults
from skillscale.laws.selection.selected import fit_selected
from skillscale.laws.selection.selection import LawSelection, data_for_setting, ineligible_reason, select_law
from skillscale.laws.skills.doubts import Doubt, doubts_by_skill
from skillscale.laws.skills.skill_study import SkillStudy, skill_study
from skillscale.laws.skills.verdicts import ConfirmedVerdict
from skillscale.laws.uncertainty.bootstrap import ResamplingMethod
from skillscale.laws.uncertainty.posterior import has_few_runs
from skillscale.tables import RunTable
from skillscale.tables.read import LoadedRuns, describe_exclusions

Laws = dict[str, FittedLaw | UnfittedSkill]
FLOPS_FACTORS = (1.0, 10.0, 100.0)  # default budgets of the optima, in units of the largest 6 N D that is fitted


@dataclass(frozen=True, kw_only=True)
class LawsAndNotes:
    """Laws by skill, notes for a person, and the mean relative error on held-out larger runs by skill."""

    laws: Laws
    notes: tuple[str, ...] = ()
    held_out: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FitResults:
    """Everything that is fitted to some runs.

    Args:
        curves: IsoFLOP curves and what follows from them; empty where the runs are no isoFLOP study.
        laws: Law of each skill, or why it has none.
        flops: Budgets C of the optima, FLOP.
        metadata: What the laws have in common.
        notes: Sentences for a person.
        excluded: Runs and losses that the curves could not use, in addition to those of the table.
        parts: Laws of the skills that each aggregate is a mean of, by the name of the aggregate's law.
        source: Options that name the runs to a command.
        held_out: Mean relative error on larger runs that were held out, by law; empty where none was.
        named_budgets: Whether the user named the budgets.
    """

    curves: StudyResults
    laws: Mapping[str, FittedLaw | UnfittedSkill]
    flops: tuple[float, ...]
    metadata: LawMetadata
    notes: tuple[str, ...] = ()
    excluded: tuple[ExcludedRun, ...] = ()
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    source: str = ""
    held_out: Mapping[str, float] = field(default_factory=dict)
    named_budgets: bool = False

    def doubts(self, verdicts: Sequence[ConfirmedVerdict] = ()) -> dict[str, tuple[Doubt, ...]]:
        """Return the doubts of each skill, the gravest first.

        Args:
            verdicts: Verdicts on two splits.
        """
        return doubts_by_skill(
            self.laws, self.flops, curves=self.curves, parts=self.parts, mixes=self.metadata.mixes, verdicts=verdicts
        )

    @property
    def all_notes(self) -> tuple[str, ...]:
        """The notes, and a line for each reason why the curves exclude runs."""
        return (*self.notes, *describe_exclusions(self.excluded))

    @property
    def fitted(self) -> dict[str, FittedLaw]:
        """The skills that have a law."""
        return {name: law for name, law in self.laws.items() if isinstance(law, FittedLaw)}

    def as_dict(self) -> JsonObject:
        """Return the answer of ``fit --json``."""
        from skillscale.report.doubts import doubts_as_dict
        from skillscale.report.laws import laws_as_dict

        doubts = self.doubts()
        skills = {
            name: fields | {"doubts": doubts_as_dict(doubts.get(name, ()), self.source)}
            for name, fields in laws_as_dict(self.laws, self.flops).items()
        }
        return {"skills": skills, **curves_as_dict(self.curves)}

    def law_json(self) -> str:
        """Return the laws as the JSON text that is registered."""
        return to_json(law_document(self.fitted, self.metadata))

    def require_a_fit(self) -> None:
        """Refuse runs that nothing could be fitted to, with each reason once.

        Raises:
            FitError: No skill has a law or an isoFLOP optimum.
        """
        if self.fitted or any(minimum.N.is_finite for minimum in self.curves.minima):
            return
        reasons: dict[str, list[str]] = {}
        for law in self.laws.values():
            if isinstance(law, UnfittedSkill):
                reasons.setdefault(law.reason, []).append(law.skill)
        text = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
        raise FitError(f"no skill can be fitted. {text or 'No run has a loss'}")


def fit_runs(runs: LoadedRuns, laws: LawConfig, study: StudyConfig, flops: Sequence[float] | None = None) -> FitResults:
    """Fit the law of every skill, and isoFLOP curves where the runs are an isoFLOP study.

    Args:
        runs: The runs.
        laws: How to fit.
        study: Level of the intervals, and number of resamples.
        flops: Budgets of the optima, FLOP; None: 1, 10 and 100 times the largest run.
    """
    fitted: Laws = {}
    notes: list[str] = []
    mixes: dict[str, str] = {}
    held_out: dict[str, float] = {}
    for mix, group in zip(runs.groups, _fit_groups(runs, laws, study), strict=True):
        notes += group.notes
        held_out |= {law_name(mix, name, runs): error for name, error in group.held_out.items()}
        fitted |= {law_name(mix, name, runs): law for name, law in group.laws.items()}
        mixes |= {law_name(mix, name, runs): mix for name in group.laws if len(runs.groups) > 1}
    fitted |= {
        name: UnfittedSkill(skill=name, n_runs=0, reason=reason) for name, reason in runs.table.missing_skills.items()
    }
    means = {law_name(mix, name, runs) for mix in runs.groups for name in runs.table.aggregates}
    curves, excluded = _fit_curves(runs, laws, study, fitted)
    return FitResults(
        curves=curves, laws=fitted, flops=tuple(flops) if flops else default_flops(fitted), notes=tuple(notes),
        excluded=excluded, parts=_parts_of_aggregates(runs), source=runs.arguments,
        held_out=held_out, named_budgets=bool(flops),
        metadata=LawMetadata(
            convention=runs.convention, aggregates=tuple(name for name in fitted if name in means), mixes=mixes
        ),
    )  # fmt: skip


def _parts_of_aggregates(runs: LoadedRuns) -> dict[str, tuple[str, ...]]:
    """Return the names of the laws of each aggregate's skills, by the name of the aggregate's law."""
    return {
        law_name(mix, aggregate, runs): tuple(law_name(mix, skill, runs) for skill in skills)
        for mix in runs.groups
        for aggregate, skills in runs.table.parts.items()
    }


def default_flops(laws: Mapping[str, object]) -> tuple[float, ...]:
    """Return 1, 10 and 100 times the compute of the largest run of some laws, FLOP."""
    fitted = [law for law in laws.values() if isinstance(law, FittedLaw)]
    largest = max((float((6 * law.runs.N * law.runs.D).max()) for law in fitted), default=float("nan"))
    return tuple(float(f"{factor * largest:.3g}") for factor in FLOPS_FACTORS)


def _fit_groups(runs: LoadedRuns, laws: LawConfig, study: StudyConfig) -> list[LawsAndNotes]:
    """Fit each group of runs; groups share nothing, so that several are fitted in parallel."""
    jobs = [(table, mix, laws, study) for mix, table in runs.groups.items()]
    processes = min(len(jobs), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
    if processes < 2:
        return [fit_laws(*job) for job in jobs]
    with ProcessPoolExecutor(processes) as pool:
        return list(pool.map(fit_laws, *zip(*jobs, strict=True)))


def fit_laws(table: RunTable, mix: str, laws: LawConfig, study: StudyConfig) -> LawsAndNotes:
    """Fit each skill's law: the one that is named, or the one that held-out runs select, fitted as it was tried.

    The same runs and settings are fitted once (``kept_fit``).

    Args:
        table: The runs of one group.
        mix: Name of the group's mix; empty where all runs are one group.
        laws: How to fit.
        study: Level of the intervals, and number of resamples.
    """
    table = _fitted_columns(table)  # for the fit too, so that it can't depend on what its digest lacks
    inputs = (table, mix, laws, study.level, study.resamples)
    return kept_fit(LawsAndNotes, inputs, lambda: _fit_laws(table, mix, laws, study))


def _fitted_columns(table: RunTable) -> RunTable:
    """Return what laws depend on of a table."""
    return RunTable(
        runs=table.runs,
        skills=table.skills,
        categories=table.categories,
        weights=table.weights,
        splits=table.splits,
        validation=table.validation,
    )


def _fit_laws(table: RunTable, mix: str, laws: LawConfig, study: StudyConfig) -> LawsAndNotes:
    notes: list[str] = []
    data = data_by_skill(table)
    if laws.law:
        request = _request(laws, study, law_by_name(laws.law), table)
        fitted = fit_all(_weighted(data, table, laws, request, notes), request)
        return LawsAndNotes(laws=_with_posteriors(fitted, data, request), notes=tuple(notes))
    reasons = {name: ineligible_reason(points) for name, points in data.items()}
    unfitted = {
        name: UnfittedSkill(skill=name, n_runs=len(data[name]), reason=reason)
        for name, reason in reasons.items()
        if reason
    }
    eligible = {name: points for name, points in data.items() if name not in unfitted}
    if not eligible:
        return LawsAndNotes(laws=dict(unfitted))
    where = f"law{f' of {mix}' if mix else ''}"
    held_out: Mapping[str, float] = {}
    if all(has_few_runs(points) for points in eligible.values()):
        fitted, note = _fit_few(eligible, laws, study, table)
        notes.append(f"{where}: {note}")
    else:
        fitted, note, held_out = _fit_selected(eligible, laws, study, table, notes)
        notes.append(f"{where}: {note}")
    return LawsAndNotes(
        laws={name: unfitted[name] if name in unfitted else fitted[name] for name in data},
        notes=tuple(notes),
        held_out=held_out,
    )


def _fit_selected(
    data: dict[str, RunData], laws: LawConfig, study: StudyConfig, table: RunTable, notes: list[str]
) -> tuple[Laws, str, Mapping[str, float]]:
    """Fit the law that held-out runs select; say which, and its error on these runs by skill."""
    selection = select_law(data, objective=objective_of(laws))
    setting = selection.chosen.setting
    request = _request(laws, study, setting.law, table)
    data = _weighted(data, table, laws, request, notes)
    if request.sharing == ParameterSharing():
        fitted = fit_selected(data, selection, request)
        laws_of_all = _with_posteriors(fitted, data, request)
        return laws_of_all, f"{setting.name}{_selection_reason(selection)}", selection.chosen.errors
    how = "without weak priors, with the parameters fixed, tied or pooled as the settings say"
    fitted = fit_all({name: data_for_setting(points, setting) for name, points in data.items()}, request)
    note = f"{setting.law.name}, {how}; {setting.name}{_selection_reason(selection)}"
    return _with_posteriors(fitted, data, request), note, selection.chosen.errors


def _fit_few(data: dict[str, RunData], laws: LawConfig, study: StudyConfig, table: RunTable) -> tuple[Laws, str]:
    """Fit the posterior of several laws, where no skill has the runs to choose one, and say which."""
    forms = forms_for_few_runs(varied_mix=next(iter(data.values())).h is not None)
    request = _request(laws, study, forms[0].law, table)
    names = join_words([form.law.name for form in forms])
    return dict(fit_few_runs(data, forms, request)), f"{names}, averaged with weak priors, because runs are few"


def _with_posteriors(laws: Laws, data: Mapping[str, RunData], request: FitRequest) -> Laws:
    """Replace laws of few runs by posteriors, under the forms of the skills that have more runs."""
    few = {name: runs for name, runs in data.items() if isinstance(laws[name], FittedLaw) and has_few_runs(runs)}
    if not few or request.fits_jointly:
        return laws
    others = [law for name, law in laws.items() if isinstance(law, FittedLaw) and name not in few]
    if others:
        forms: tuple[WeightedForm, ...] = tuple(
            WeightedForm(law=LAWS[law.law.name], weight=law.weight) for law in (others[0], *others[0].rivals)
        )
    else:
        forms = forms_for_few_runs(varied_mix=request.law.needs_mix, first=request.law.name)
    return laws | {
        name: keep_estimate(posterior, laws[name]) for name, posterior in fit_few_runs(few, forms, request).items()
    }


def confounded_notes(table: RunTable, mix: str = "") -> list[str]:
    """Say where the runs of a table cannot tell N from D, whatever their losses are."""
    N, D = (table.runs[letter].to_numpy(dtype=float) for letter in ("N", "D"))
    if not len(N) or not are_confounded(N, D):
        return []
    return [
        f"note: {f'{mix}: ' if mix else ''}these runs cannot tell N from D, because D follows N in them. N* is not "
        "identified. fit lists runs that would"
    ]


def law_name(mix: str, skill: str, runs: LoadedRuns) -> str:
    """Return the name of a skill's law, with its mix where several mixes have names without shares."""
    return f"{mix}/{skill}" if mix and len(runs.groups) > 1 else skill


def _fit_curves(
    runs: LoadedRuns, laws: LawConfig, study: StudyConfig, fitted: Mapping[str, FittedLaw | UnfittedSkill]
) -> tuple[StudyResults, tuple[ExcludedRun, ...]]:
    """Fit isoFLOP curves, and return the runs that they exclude; no curves where the runs are no isoFLOP study."""
    table, grid_runs = runs.table, runs.grid_runs
    no_curves = StudyResults(
        skills=table.judged_skills, aggregates=table.aggregates, level=study.level, resamples=study.resamples,
        curve=laws.isoflop_curve, runs=table.runs, minima=(), power_laws=(), size_gaps=(), laws=(), curve_versus_law=(),
        excluded=table.excluded,
    )  # fmt: skip
    if not grid_runs.has_isoflops:
        return no_curves, ()
    grid = grid_runs.table.runs
    usable, missed = usable_runs(grid, [*table.judged_skills, *table.aggregates])
    if usable.empty:  # the laws need no budgets
        return no_curves, tuple(missed)
    laws_of_grid = _laws_by_mix(runs, fitted, grid)
    inputs = (grid, table.judged_skills, table.aggregates, study.level, study.resamples, laws.isoflop_curve)
    curves = kept_fit(
        StudyResults, (*inputs, laws_of_grid),
        lambda: fit_study(
            grid, skills=table.judged_skills, aggregates=table.aggregates, level=study.level,
            resamples=study.resamples, curve=laws.isoflop_curve, laws=laws_of_grid,
        ),
    )  # fmt: skip
    pairs = {(item.run_id, item.skill) for item in table.excluded}
    excluded = tuple(item for item in curves.excluded if (item.run_id, item.skill) not in pairs)
    return replace(curves, excluded=(*table.excluded, *excluded), C_is_6ND=runs.C_is_6ND), excluded


def fit_skill_study(runs: LoadedRuns, results: FitResults, config: Config) -> SkillStudy | None:
    """Fit how skills differ; None where the runs are no isoFLOP study."""
    grid_runs = runs.grid_runs
    if not grid_runs.has_isoflops or not results.curves.mixes:
        return None
    grid, measured = grid_runs.table.runs, grid_runs.measured_columns
    base, laws = base_mix(results.curves, config.study), _laws_by_mix(runs, results.laws, grid)
    level, resamples, curve = config.study.level, config.study.resamples, config.laws.isoflop_curve
    return kept_fit(
        SkillStudy, (grid, measured, base, level, resamples, curve, laws),
        lambda: skill_study(grid, measured, base=base, level=level, resamples=resamples, curve=curve, laws=laws),
    )  # fmt: skip


def base_mix(curves: StudyResults, study: StudyConfig) -> str:
    """Return the study's own first mix, or the one with the most runs."""
    first = str(study.mix_values[0])
    if first in curves.mixes or not curves.mixes:
        return first
    return str(curves.runs["mix"].astype(str).mode().iloc[0])


def _laws_by_mix(
    runs: LoadedRuns, laws: Mapping[str, FittedLaw | UnfittedSkill], grid: pd.DataFrame
) -> dict[tuple[str, str], FittedLaw | UnfittedSkill]:
    """Return each skill's law at each mix; none where the budgets are not the laws' own C = 6 N D."""
    if not runs.C_is_6ND or not len(grid):
        return {}
    mixes = {str(mix): "" if runs.table.categories else str(mix) for mix in grid["mix"]}
    names = {
        (mix, skill): law_name(group, skill, runs) for mix, group in mixes.items() for skill in _measured(runs.table)
    }
    return {key: laws[name] for key, name in names.items() if name in laws}


def data_by_skill(table: RunTable) -> dict[str, RunData]:
    """Return the runs of each skill and aggregate."""
    return split_by_skill(table.runs, _measured(table), varied_categories(table))


def _measured(table: RunTable) -> list[str]:
    """Return the skills and aggregates that some run has a loss for."""
    return [name for name in (*table.judged_skills, *table.aggregates) if table.runs[name].notna().any()]


def varied_categories(table: RunTable) -> tuple[str, ...]:
    """Return the categories of the mix; none where all runs have one mix, because no law can learn from its shares."""
    shares = table.runs[[f"mix/{name}" for name in table.categories]].to_numpy(dtype=float)
    varied = len(shares) > 0 and shares.shape[1] > 1 and bool(np.ptp(shares, axis=0).max() > 1e-6)
    return table.categories if varied else ()


def _selection_reason(selection: LawSelection) -> str:
    """Return in words how the law was selected."""
    if not selection.cutoffs:
        return f", for {selection.chosen.reason} to choose by"
    law, error = selection.chosen.setting.law, format_percent(selection.chosen.error)
    if (better := selection.better) is not None:
        error, least = (format_percent(candidate.error, 3) for candidate in (selection.chosen, better))
        fewer = f"{selection.chosen.n_parameters} parameters instead of {better.n_parameters}"
        return (
            f", by its error on held-out larger runs: {error}. {better.setting.name} has "
            f"{least}, better by less than a standard error. So the law with {fewer} is taken"
        )
    others = [rival for rival in selection.candidates if rival.setting.law != law and rival.errors]
    rival = f"; {others[0].setting.name} {format_percent(others[0].error)}" if others else ""
    return f", by its error on held-out larger runs: {error}{rival}"


def _request(laws: LawConfig, study: StudyConfig, law: Law, table: RunTable) -> FitRequest:
    """Return how to fit a law, from the settings."""
    method = ResamplingMethod(laws.bootstrap)
    return FitRequest(
        law=law,
        objective=objective_of(laws),
        sharing=ParameterSharing(fixed=dict(laws.fix), tied=laws.tie, pooled=dict(laws.partial_pool)),
        method=method,
        resamples=study.resamples,
        level=study.level,
        budgets=budget_of_runs(table.runs) if method is ResamplingMethod.BUDGET else None,
    )


def law_by_name(name: str) -> Law:
    """Return the law of a name.

    Raises:
        InputError: There is none; the message names the nearest.
    """
    if name not in LAWS:
        raise InputError(f"there is no law {name!r}{did_you_mean(name, LAWS)}. There are {', '.join(LAWS)}.")
    return LAWS[name]


def objective_of(laws: LawConfig) -> Objective | None:
    """Return the objective; None is Huber's loss whose delta follows the noise of the runs."""
    kind, delta = laws.objective, laws.huber_delta
    if kind == "huber" and delta is None:
        return None
    return Objective(kind=kind.removesuffix("_raw"), delta=delta or DELTA, on="raw" if kind.endswith("_raw") else "log")


def _weighted(
    data: dict[str, RunData], table: RunTable, laws: LawConfig, request: FitRequest, notes: list[str]
) -> dict[str, RunData]:
    """Return the runs, weighted by the standard error of their loss where the settings ask for that.

    Raises:
        InputError: No skill has standard errors.
    """
    if laws.weights != "sem":
        return data
    columns = {
        name: f"sem/{name}" for name in data if table.runs.get(f"sem/{name}", pd.Series(dtype=float)).gt(0).any()
    }
    if not columns:
        raise InputError(
            "--laws.weights sem needs standard errors, and no run has any. Name their columns as `sem:` next to each "
            "skill's `loss:` in the columns file, or use equal weights."
        )
    if lacking := [name for name in data if name not in columns]:
        notes.append(f"note: {', '.join(lacking)} has no standard errors: its runs get equal weights")
    weighted = dict(data)
    for name, column in columns.items():
        points = data[name]
        measured = table.runs[name].notna().to_numpy()
        noise = fit_law(points, law=points.bind(request.law).for_skill(name), starts=2).noise
        weighted[name] = weight_by_sem(points, table.runs.loc[measured, column].to_numpy(dtype=float), noise)
    return weighted


def curves_as_dict(curves: StudyResults) -> JsonObject:
    """Return isoFLOP curves and what follows from them as plain values, for ``--json``."""
    tables = {
        "minima": curves.minima_table(),
        "power_laws": curves.power_law_table(),
        "residuals": curves.size_gap_table(),
        "laws": curves.law_table(),
        "frontier": curves.curve_versus_law_table(),
    }
    excluded = [{"run": item.run_id, "skill": item.skill, "reason": item.reason} for item in curves.excluded]
    rows = {name: table.to_dict(orient="records") for name, table in tables.items()}
    return {"level": curves.level, **rows, "unusable": excluded}
