"""Write the report of some runs: fit them, write figures, tables and the page, record all of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from skillscale.analysis.answer import answers_by_mix, with_next_runs
from skillscale.analysis.background import report_context
from skillscale.analysis.fit_laws import FitResults, base_mix, fit_runs, fit_skill_study
from skillscale.analysis.record import log_results, publish_results
from skillscale.analysis.text import verdict_lines
from skillscale.config import Config
from skillscale.config.options import SourceOptions
from skillscale.formatting import JsonObject
from skillscale.laws.optimum.answer import Answer
from skillscale.laws.results import StudyResults
from skillscale.laws.skills.skill_study import SkillStudy
from skillscale.report import figures as isoflop_figures
from skillscale.report import style
from skillscale.report.answer import answer_as_dict, answer_lines
from skillscale.report.law_figures import draw_law_figures
from skillscale.report.page import render_page, shown_mixes
from skillscale.report.panel import group_laws, make_panel
from skillscale.report.skill_page import make_skill_figures, skill_frames
from skillscale.tables.published_optima import read_optima
from skillscale.tables.read import LoadedRuns, exclusion_lines, read_runs
from skillscale.tables.write import csv_text, write_whole


@dataclass(frozen=True, kw_only=True)
class Report:
    """A report that was written: what was fitted, the answers, the page, and where the MLflow UI shows it."""

    results: FitResults
    page: Path
    text: str
    ui: str = ""
    answers: tuple[Answer, ...] = ()

    def as_dict(self) -> JsonObject:
        """Return the answer of ``report --json``."""
        answers = [answer_as_dict(answer) for answer in self.answers]
        return {"answers": answers, **self.results.as_dict(), "page": self.page} | ({"ui": self.ui} if self.ui else {})


def make_report(
    source: SourceOptions, config: Config, *, flops: Sequence[float] | None = None, page: str = "",
    compare_with: str = "roberts2025", progress: Callable[[str], None],
) -> Report:  # fmt: skip
    """Fit the runs of a study or a table, write their page, and record both in the study.

    Args:
        source: Where the runs come from.
        config: Settings.
        flops: Budgets of the optima, FLOP; None: the default ones.
        page: HTML file; empty: ``skillscale-STUDY.html``.
        compare_with: Published optima to draw too; empty: none.
        progress: Receiver of a line for a person.
    """
    runs = read_runs(source, config, progress)
    for line in exclusion_lines(runs):
        progress(line)
    results = fit_runs(runs, config.laws, config.study, flops)
    for note in results.all_notes:
        progress(note)
    path = Path(page or f"skillscale-{runs.name}.html").absolute()
    skill_study = fit_skill_study(runs, results, config)
    law_figures = draw_law_figures(results.laws, results.flops)
    drawn = {name: style.to_svg(figure) for name, figure in law_figures.items()}
    best = answers_by_mix(results, runs)
    if first := next(iter(best.values()), None):
        best[first.mix] = with_next_runs(first, runs, config)
    answers = tuple(best.values())
    html = _page(runs, source, config, results, skill_study, compare_with, drawn, answers)
    write_whole(path, html)
    base = base_mix(results.curves, config.study)
    lines = [line for answer in answers for line in ("", *answer_lines(answer))]
    text = "\n".join([*verdict_lines(results.curves, base), *lines, f"\npage:  {path}"])
    if runs.store is None or runs.study is None:
        return Report(results=results, page=path, text=text, answers=answers)
    with runs.study.analysis("report") as run:
        described = log_results(run, results, runs, config.study, best)
        figures = _isoflop_figures(results.curves, base)
        figures |= {f"{name}.svg": content for name, content in drawn.items()}
        figures |= {f"{name}.png": style.to_png(figure) for name, figure in law_figures.items()}
        for name, content in figures.items():
            run.file(f"figures/{name}", content)
        for name, frame in skill_frames(skill_study).items():
            run.file(f"tables/{name}.csv", csv_text(frame))
        run.file("page.html", html)
        run.log(note=f"{described.note}\n\n{run.link('The page', 'page.html')}")
    images = [f"figures/{name}" for name in figures if name.endswith(".png")]
    publish_results(
        "report", run, results, runs, described=described, files=["page.html", "law.json", *images], progress=progress
    )
    runs.store.annotate_mlflow_project_run(
        runs.study, note=described.note, metrics=described.metrics, result=results.as_dict()
    )
    text += f"\nUI:    {runs.store.ui_command}\n       {runs.study.chart_link}"
    return Report(results=results, page=path, text=text, ui=runs.store.ui_command, answers=answers)


def _page(
    runs: LoadedRuns, source: SourceOptions, config: Config, results: FitResults, skill_study: SkillStudy | None,
    compare_with: str, law_figures: Mapping[str, bytes], answers: Sequence[Answer],
) -> str:  # fmt: skip
    """Return the page as HTML, with the figures of the laws as SVG."""
    return render_page(
        runs.name, runs.records, results.curves, report_context(source, config, runs), laws=results.laws,
        flops=results.flops, drawn=law_figures, answers=answers, source=results.source,
        doubts=results.doubts(skill_study.verdicts if skill_study else ()),
        base=skill_study.base if skill_study else "",
        panel=make_panel(
            group_laws(
                results.laws, results.metadata.mixes, runs.table.judged_skills,
                {answer.mix: answer.optimum.C for answer in answers},
            ),
            convention=runs.convention,
        ),
        differences=make_skill_figures(
            skill_study, runs.table.skill_categories, fits=results.curves, published=_published(compare_with)
        ),
    )  # fmt: skip


def _published(name: str) -> tuple[str, pd.DataFrame] | None:
    """Return published optima to draw with the study's; None where the name is empty."""
    return (Path(name).stem, read_optima(name)) if name else None


def _isoflop_figures(curves: StudyResults, base: str) -> dict[str, bytes]:
    """Return the figures of isoFLOP curves by file name, as SVG for print and PNG for the UI."""
    drawings = {
        "isoflop": isoflop_figures.draw_isoflop_curves,
        "optima": isoflop_figures.draw_optima,
        "residuals": isoflop_figures.draw_size_gaps,
    }
    files: dict[str, bytes] = {}
    for at, mix in enumerate(shown_mixes(curves, base)):
        for name, draw in drawings.items():
            figure = draw(curves, mix)
            stem = name if at == 0 else f"{name}-{at + 1}"
            files |= {f"{stem}.svg": style.to_svg(figure), f"{stem}.png": style.to_png(figure)}
    return files
