"""Record what was fitted: one MLflow run of the study, its files, its metrics, the registered model."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from skillscale.analysis.description import PREVIEW, Description, describe_fit, first_metrics
from skillscale.analysis.fit_laws import FitResults, base_mix
from skillscale.config import StudyConfig
from skillscale.errors import TrackingError
from skillscale.execution.status_publisher import StatusPublisher, store_fit_summary
from skillscale.formatting import format_flops
from skillscale.laws.optimum.answer import Answer
from skillscale.point import digest
from skillscale.record import DataSet, RunRecord, RunState
from skillscale.tables.read import LoadedRuns
from skillscale.tables.write import csv_text
from skillscale.tracking import AnalysisWriter, StudyStore

_LINKED_RUNS = 1000  # runs that link to the law fitted to them: a tag takes some milliseconds


def open_record(runs: LoadedRuns, register: str, tracking: str) -> AnalysisWriter | None:
    """Open the run that a fit is recorded in.

    Args:
        runs: The runs that were fitted.
        register: Name in the model registry; empty: none.
        tracking: MLflow store for laws of a table.

    Returns:
        A run of the study, or one of its own where a table's laws are registered; None where nothing is recorded.
    """
    if runs.study is not None:
        return runs.study.analysis("fit")
    return StudyStore.open(tracking).open_law_run(register) if register else None


def log_results(
    run: AnalysisWriter, results: FitResults, runs: LoadedRuns, study: StudyConfig, answers: Mapping[str, Answer]
) -> Description:  # fmt: skip
    """Write tables, laws, metrics, a figure and the description of a fit to its run; return the description."""
    from skillscale.report.laws import errors_frame, law_frame, optima_frame
    from skillscale.report.tables import study_frames

    curves, optima = results.curves, optima_frame(results.laws, results.flops)
    tables = {"laws": law_frame(results.laws), "law_optima": optima, "law_errors": errors_frame(results.laws)}
    for name, table in (study_frames(curves, runs.records) | tables).items():
        run.file(f"tables/{name}.csv", csv_text(table))
    run.file("law.json", results.law_json())
    figure = log_figure(run, results, base_mix(curves, study))
    described = describe_fit(run, answers, runs, optima, figure)
    widths = _half_widths(optima, runs.records)
    exponents = {f"N_star_exponent/{law.skill}": law.a.value for law in curves.power_laws if law.a.is_finite}
    exponents |= {
        f"residual/{gap.skill}": gap.value.value for gap in curves.size_gaps if gap.pooled and gap.value.is_finite
    }
    exponents |= {
        f"law_exponent/{name}": law.exponent.value for name, law in results.fitted.items() if law.exponent.is_finite
    }
    # The tables hold the numbers for which there is no room
    shown = first_metrics({name: math.nan for name in widths if "/" not in name}, described.metrics, exponents, widths)
    params = {"level": str(curves.level), "resamples": str(curves.resamples)}
    run.log(metrics={name: value for name, value in shown.items() if name not in widths}, params=params)
    run.log(metrics={name: value for name, value in widths.items() if name in shown}, step=len(runs.table.runs))
    run.log(
        note=described.note,
        tags={"budget": format_flops(next((answer.optimum.C for answer in answers.values()), results.flops[0]))},
    )
    if runs.study is not None:
        ids = sorted(record.run_id for record in runs.records if record.state is RunState.FINISHED)
        source = f"experiment {runs.study.experiment_id}"
        run.used([DataSet(name=f"runs of {runs.name}", digest=digest(ids), role="fitting", source=source)])
    return described


def log_figure(run: AnalysisWriter, results: FitResults, base: str) -> str:
    """Write the figure that decides, under its name and for the description; return its artifact, empty without a law.

    It is drawn once, because that takes as long as many a fit. A report replaces the first with a larger one.
    """
    from skillscale.report.decision_figure import decision_figure, preview

    for name, figure in decision_figure(results.curves, results.laws, results.flops, base).items():
        drawn = preview(figure)
        run.file(f"figures/{name}.png", drawn)
        run.file(PREVIEW, drawn)
        return f"figures/{name}.png"
    return ""


def register_laws(run: AnalysisWriter, results: FitResults, runs: LoadedRuns, name: str) -> str:
    """Register the laws, bound to the runs that they were fitted to; return their address."""
    laws = ", ".join(sorted({law.law.name for law in results.fitted.values()}))
    note = (
        f"Laws ({laws}) of {len(results.laws)} skills, fitted to {len(runs.table.runs)} rows of {runs.name}. "
        "Columns: n_params, n_tokens; optionally skill and mix/CATEGORY."
    )
    tags, ids = {"runs_of": runs.name, "runs": str(len(runs.table.runs))}, []
    if runs.study is not None:
        ids = [record.run_id for record in runs.records if record.state is RunState.FINISHED]
        note += f"\n\nStudy {runs.study.name}: {runs.study.link}"
        tags |= {"study": runs.study.name, "runs_digest": digest(sorted(ids))}
    return run.register(name, results.law_json(), note=note, tags=tags, runs=ids[:_LINKED_RUNS])


def publish_results(
    kind: str, run: AnalysisWriter, results: FitResults, runs: LoadedRuns, *, described: Description,
    files: Sequence[str], progress: Callable[[str], None],
) -> None:  # fmt: skip
    """Bring the study's description in the MLflow UI up to date; a failure of this costs nothing.

    Args:
        kind: fit or report.
        run: The run of the fit.
        results: What was fitted.
        runs: The runs that were fitted.
        described: Its description.
        files: Files of the run that the description links to.
        progress: Receiver of a line for a person.
    """
    from skillscale.report.laws import optima_frame

    if runs.study is None:
        return
    try:
        store_fit_summary(
            runs.study, kind, run_id=run.run_id, files=files, runs=len(runs.table.runs), level=results.curves.level,
            optima=optima_frame(results.laws, results.flops).to_dict(orient="records"), answer=described.answer,
            losses=described.losses, preview=described.preview,
        )  # fmt: skip
    except TrackingError as error:
        progress(f"note: {error}")
    StatusPublisher(runs.study, progress).refresh(now=True)


def _half_widths(optima: pd.DataFrame, records: Sequence[RunRecord]) -> dict[str, float]:
    """Return half widths of ln N* by skill and C, as ``sample`` logs them, with the compute that they took."""
    half = np.log(optima["N_hi"] / optima["N_lo"]) / 2
    named = {
        f"half_width/{skill} {C:.3g}".replace("+", ""): float(width)
        for skill, C, width in zip(optima["skill"], optima["C"], half, strict=True)
        if np.isfinite(width)
    }
    flops = [record.point.flops for record in records if record.state is RunState.FINISHED]
    widest = {"half_width": max(named.values())} if named else {}
    return {"runs": float(len(flops)), "flops_finished": sum(flops), **widest, **named}
