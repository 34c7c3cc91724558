"""The page of a study: one self-contained HTML file for the screen and for printing on A4."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import jinja2
import pandas as pd

from skillscale.formatting import MISSING, format_count, format_duration, format_interval, format_percent, plural, power
from skillscale.laws.fit.skill_law import FittedLaw
from skillscale.laws.optimum.answer import Answer
from skillscale.laws.results import StudyResults, Verdict, group_by_reason
from skillscale.laws.skills.doubts import Doubt
from skillscale.record import RunRecord, RunState
from skillscale.report import figures, law_figures, style, tables, verdict_text
from skillscale.report import laws as tables_of_laws
from skillscale.report.answer import answer_line, held_out_line, next_line, reach_line, sizes_line
from skillscale.report.doubts import doubt_lines
from skillscale.report.laws import Laws, interval_cell
from skillscale.report.optimum_text import loss_text
from skillscale.report.panel import Panel
from skillscale.report.sections import Figure, Section, make_figure, make_table

_MAX_MIXES = 3  # with more mixes, only the base mix has figures
_GREEK = {"alpha": "α", "beta": "β"}
_CAPACITY = (
    "A model stores about 2 bits per parameter of facts seen about 1,000 times, about 1 bit of facts seen about 100 "
    "times, and less of rarer facts (Allen-Zhu and Li, 2024). If facts are rare, exposure limits knowledge instead of "
    "capacity, and knowledge looks data-hungry."
)


@dataclass(frozen=True, kw_only=True)
class DataNotice:
    """Origin and licence of a data source."""

    name: str
    version: str = ""
    licence: str = ""
    notice: str = ""


@dataclass(frozen=True, kw_only=True)
class ReportContext:
    """Facts about a study for its page, in addition to the fits. The page skips those that are empty.

    Args:
        made: date of the page.
        first_run: start of the first run.
        last_run: end of the last run.
        version: version of skillscale.
        counted: words for what N counts.
        elsewhere: whether the runs were imported, so that other conventions of counting are unknown.
        sources: data sources.
        exposures: mean mentions per fact, by run id.
        facts: one sentence on the facts and their bits.
        commands: command lines that reproduce the study.
        config: resolved settings as YAML.
    """

    made: str = field(default="", metadata={"unit": "date as text"})
    first_run: str = field(default="", metadata={"unit": "date as text"})
    last_run: str = field(default="", metadata={"unit": "date as text"})
    version: str = ""
    counted: str = ""
    elsewhere: bool = False
    sources: tuple[DataNotice, ...] = ()
    exposures: Mapping[str, float] = field(default_factory=dict)
    facts: str = ""
    commands: tuple[str, ...] = ()
    config: str = ""


def render_page(
    study: str, records: Sequence[RunRecord], fits: StudyResults, context: ReportContext | None = None, *,
    laws: Laws | None = None, flops: Sequence[float] = (), drawn: Mapping[str, bytes] | None = None,
    doubts: Mapping[str, Sequence[Doubt]] | None = None, source: str = "", differences: Sequence[Figure] = (),
    base: str = "", panel: Panel | None = None, answers: Sequence[Answer] = (),
) -> str:  # fmt: skip
    """Return the page of a study as HTML, without external files. Only the panel has a script.

    Args:
        study: name of the study, the heading of the page.
        records: all runs in any state.
        fits: results of the finished runs.
        context: dates, sources, commands and settings.
        laws: laws of N, D and the mix, by skill.
        flops: compute of the optima by law, FLOP.
        drawn: figures of the laws as SVG, if already drawn.
        doubts: doubts about each law, the gravest first.
        source: options that name the runs to a command.
        differences: figures of how skills differ.
        base: mix with figures where there are too many mixes to draw all.
        panel: what-if panel.
        answers: answers, by mix where several have laws of their own.
    """
    context = context or ReportContext()
    mixes = shown_mixes(fits, base)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, loader=jinja2.PackageLoader("skillscale.report", "")
    )
    environment.filters["firm"] = _keep_percent_together
    return environment.get_template("page.html").render(
        title=study,
        panel=panel,
        answers=[_page_answer(answer) for answer in answers],
        lede=_summary(fits, mixes, laws or {})
        + (f" N counts: {context.counted}." if context.counted and mixes else ""),
        headline=_headline(records, context) if records else _table_headline(fits),
        verdicts=[row for mix in mixes for row in _verdict_rows(fits, mix, show_mix=len(mixes) > 1)],
        how_to_read=verdict_text.explain_method(fits) if mixes else "",
        to_run=verdict_text.missing_runs(fits) if mixes else (),
        figures=[
            *(
                figure
                for number, mix in enumerate(mixes)
                for figure in _study_figures(fits, mix, number, show_mix=len(mixes) > 1)
            ),
            *differences,
            *_law_figures(laws or {}, flops, drawn),
        ],
        parts=[
            part
            for part in (
                _laws_section(laws or {}, flops, fits, doubts or {}, source),
                *_sections(records, fits, context),
            )
            if part is not None
        ],
        footer=_footer(context),
    )


def _page_answer(answer: Answer) -> dict[str, object]:
    """Return an answer in the parts that the template places."""
    losses = [(name, loss_text(loss)) for name, loss in answer.losses.items()]
    return {
        "headline": answer_line(answer.optimum, answer.mix, answer.refusal), "refused": bool(answer.refusal),
        "notes": [sizes_line(answer)] * (not answer.refusal) + [reach_line(answer), held_out_line(answer)],
        "next": next_line(answer), "losses": [] if answer.refusal else losses, "level": format_percent(answer.level, 3),
    }  # fmt: skip


def shown_mixes(fits: StudyResults, base: str) -> tuple[str, ...]:
    """Return the mixes that have tables and figures: all if they are few, otherwise the base mix."""
    return fits.mixes if len(fits.mixes) <= _MAX_MIXES or base not in fits.mixes else (base,)


def _keep_percent_together(text: str) -> str:
    """Return a text without line breaks between numbers and per cent signs."""
    return text.replace(" %", "\u00a0%")


def _footer(context: ReportContext) -> str:
    return f"Made by {f'skillscale {context.version}'.strip()}{f' on {context.made}' if context.made else ''}."


def _summary(fits: StudyResults, mixes: Sequence[str], laws: Laws) -> str:
    budgets = sorted({item.C for item in fits.minima})
    if not budgets and any(isinstance(item, FittedLaw) for item in laws.values()):
        return (
            f"The loss of {_count_skills(laws, fits)} as a law of parameters and tokens. These runs are not an isoFLOP "
            "study: no budget has 4 sizes. All optima come from the laws."
        )
    if not budgets:
        return "No run of this study can be fitted yet. Finish some runs and make the page again."
    span = f"{power(budgets[0])} to {power(budgets[-1])} FLOP" if len(budgets) > 1 else f"{power(budgets[0])} FLOP"
    data = f"the mix {mixes[0]}" if len(mixes) == 1 else plural(len(mixes), "mix")
    return (
        f"The compute-optimal model size of {plural(len(fits.skills), 'skill')} against the aggregate's, at "
        f"{plural(len(budgets), 'budget')} ({span}), on {data}."
    )


def _count_skills(laws: Laws, fits: StudyResults) -> str:
    """Return ``2 skills``, or ``2 skills on 3 mixes`` if each named mix has separate laws."""
    names = (*fits.skills, *fits.aggregates)
    mix_of = {f"{mix}/{name}": mix for mix in fits.runs["mix"].astype(str).unique() for name in names}
    mixes = {mix_of[name] for name in laws if name in mix_of}
    skills = {name.removeprefix(f"{mix_of[name]}/") if name in mix_of else name for name in laws}
    return plural(len(skills), "skill") + (f" on {plural(len(mixes), 'mix')}" if mixes else "")


def _headline(records: Sequence[RunRecord], context: ReportContext) -> list[dict[str, str]]:
    finished = [record for record in records if record.state is RunState.FINISHED]
    n_unfinished = len(records) - len(finished)
    exact = [record.cost.flops_exact for record in finished if record.cost is not None]
    seconds = math.fsum(record.cost.train_s + record.cost.eval_s for record in finished if record.cost is not None)
    sampled = sum(1 for record in finished if record.purpose)
    convention, repeated = (
        (context.counted, "") if context.elsewhere else ("embedding counted once", "repetitions counted")
    )
    notes = [f"{sampled} chosen by the sampler"] * bool(sampled) + [f"{n_unfinished} not finished"] * bool(n_unfinished)
    items = [
        ("Finished runs", str(len(finished)), ", ".join(notes)),
        (
            "Compute, 6 N D",
            f"{power(math.fsum(record.point.flops for record in finished))} FLOP",
            f"{power(math.fsum(exact))} counted exactly" if exact and len(exact) == len(finished) else "",
        ),
        ("Training tokens", format_count(math.fsum(record.point.n_tokens for record in finished)), repeated),
        (
            "Sizes",
            _span([record.point.n_params for record in finished]),
            f"parameters{f', {convention}' if convention else ''}",
        ),
        ("Time in runs", format_duration(seconds) if seconds else "", "training and evaluation, summed over workers"),
        (
            "Run",
            context.first_run or context.last_run,
            f"to {context.last_run}" if context.first_run and context.last_run else "",
        ),
    ]
    return [{"label": label, "value": value, "note": note} for label, value, note in items if value]


def _table_headline(fits: StudyResults) -> list[dict[str, str]]:
    runs = fits.runs
    if runs.empty or "cluster" not in runs:
        return []
    C = 6 * runs["N"] * runs["D"]
    several = f"{len(runs)} losses per skill" if runs["cluster"].duplicated().any() else ""
    items = [
        ("Runs", str(runs["cluster"].nunique()), several),
        ("Compute, 6 N D", f"{power(float(C.min()))} to {power(float(C.max()))} FLOP", "per run"),
        ("Sizes", _span(runs["N"].tolist()), "parameters"),
        ("Training tokens", _span(runs["D"].tolist()), "per run"),
    ]
    return [{"label": label, "value": value, "note": note} for label, value, note in items]


def _span(values: Sequence[float]) -> str:
    return f"{format_count(min(values), 2)} to {format_count(max(values), 2)}" if values else ""


def _verdict_rows(fits: StudyResults, mix: str, *, show_mix: bool) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for skill in fits.skills:
        gap = verdict_text.pooled_size_gap(fits, mix, skill)
        rows.append(
            {
                "skill": f"{skill} ({mix})" if show_mix else skill,
                "verdict": gap.describe_verdict(fits.level) if gap else str(Verdict.UNRESOLVED),
                "shown": gap is not None and gap.describe_verdict(fits.level) in (Verdict.CAPACITY, Verdict.DATA),
                "sentence": verdict_text.explain_verdict(fits, gap) if gap else f"{skill} has no residual.",
            }
        )
    return rows


def _study_figures(fits: StudyResults, mix: str, number: int, *, show_mix: bool) -> list[Figure]:
    suffix = f" (mix {mix})" if show_mix else ""
    level = format_percent(fits.level, 3)
    minima = _rows_of_mix(fits.minima_table(), mix)
    return [
        make_figure(
            f"isoflop-{number}", f"IsoFLOP curves{suffix}", style.to_svg(figures.draw_isoflop_curves(fits, mix)),
            f"Each point is a run. Each curve is {_curve_kind(fits)} in log N, fitted to the runs of one budget. "
            f"Diamonds are the optima N*, black bars their {level} intervals. A dashed curve has no optimum; the table "
            f"gives the reason.",
            (make_table("Optima", minima),),
        ),
        make_figure(
            f"optima-{number}", f"Optimal size against compute{suffix}", style.to_svg(figures.draw_optima(fits, mix)),
            f"N*(C) of each skill with {level} intervals, and a power law with its band. Grey: the aggregate. Dashed: "
            f"the optimum by the law of the skill, which covers all budgets. Where curve and law differ, at least one "
            f"form is wrong. Points are shifted a little along C so that they do not overlap.",
            (
                make_table("Power laws N* = k C^a", _rows_of_mix(fits.power_law_table(), mix)),
                make_table("N* by isoFLOP curve and by law", _rows_of_mix(fits.curve_versus_law_table(), mix)),
            ),
        ),
        make_figure(
            f"residuals-{number}", f"Residuals{suffix}", style.to_svg(figures.draw_size_gaps(fits, mix)),
            f"Residual: ln N* of a skill minus that of the aggregate, as a difference in parameters. Dots: single "
            f"budgets. Diamonds: all budgets. Bars: {level} intervals. An interval that crosses the vertical line "
            f"shows no difference.",
            (make_table("Residuals, ln N*(skill) − ln N*(aggregate)", _rows_of_mix(fits.size_gap_table(), mix)),),
        ),
    ]  # fmt: skip


def _curve_kind(fits: StudyResults) -> str:
    degree = max(
        (len(minimum.curve.coefficients) - 1 for minimum in fits.minima if minimum.curve is not None), default=2
    )
    return "a parabola" if degree == 2 else f"a polynomial of degree {degree}"


def _rows_of_mix(table: pd.DataFrame, mix: str) -> pd.DataFrame:
    """Return the rows of a mix without uninformative columns: one aggregate, one law, no reasons."""
    of_mix = table[table["mix"] == mix].drop(columns="mix")
    constant = [
        name
        for name in ("aggregate", "law")
        if name in of_mix and of_mix[name].dtype != float and len(set(of_mix[name])) == 1
    ]
    empty = [name for name in ("reason",) if name in of_mix and not any(of_mix[name])]
    return of_mix.drop(columns=[*constant, *empty])


def _law_figures(laws: Laws, flops: Sequence[float], images: Mapping[str, bytes] | None) -> list[Figure]:
    texts = {
        "law-optima": (
            "Optimal size by the law",
            "N*(C) by the law of each skill with its interval, dashed beyond the largest run (dotted line). The "
            "interval includes the noise of the runs. Only held-out larger runs can test the form of the law there.",
            (make_table("N* by law", tables_of_laws.optima_frame(laws, flops)),),
        ),
        "law-errors": (
            "Errors of the laws",
            "Each point is the measured loss relative to the law. A trend along C or with colour (model size) means "
            "that the form of the law is wrong.",
            (),
        ),
    }
    if images is None:
        images = {name: style.to_svg(figure) for name, figure in law_figures.draw_law_figures(laws, flops).items()}
    return [make_figure(name, texts[name][0], image, *texts[name][1:]) for name, image in images.items()]


def _laws_section(
    laws: Laws, flops: Sequence[float], fits: StudyResults, doubts: Mapping[str, Sequence[Doubt]], source: str
) -> Section | None:
    """Return the section of the laws: forms, parameters with intervals, doubts, and agreement with the curves."""
    comparison = tuple(text for text in (verdict_text.compare_curve_and_law(fits),) if text)
    if not laws and not comparison:
        return None
    forms = {law.law.name: type(law.law).__doc__ or "" for law in laws.values() if isinstance(law, FittedLaw)}
    formulas = tuple(f"{name}: {' '.join(text.split(chr(10) * 2)[0].split())}" for name, text in forms.items())
    refusals = [f"{name}: {law.reason}" for name, law in laws.items() if not isinstance(law, FittedLaw)]
    tables_shown = (
        make_table("Laws", _parameter_frame(laws, doubts), folded=False),
        make_table("N* by law", tables_of_laws.optima_frame(laws, flops)),
    )
    return Section(
        name="laws", title="Law of each skill", paragraphs=(*formulas, *comparison),
        bullets=(*refusals, *doubt_lines(doubts, source)), tables=tables_shown if laws else (),
    )  # fmt: skip


def _parameter_frame(laws: Laws, doubts: Mapping[str, Sequence[Doubt]]) -> pd.DataFrame:
    rows = []
    for name, law in laws.items():
        if not isinstance(law, FittedLaw):
            rows.append({"skill": name, "status": "refused"})
            continue
        row = {"skill": name}
        row |= {_GREEK.get(letter, letter): interval_cell(x) for letter, x in law.theta.items()}
        row |= {"N* exponent": interval_cell(law.exponent), "noise": format_percent(law.residual_noise)}
        doubtful = f", {plural(len(doubts[name]), 'doubt')}" if doubts.get(name) else ""
        status = f"{law.status}{doubtful}"
        rows.append(row | {"agree": f"{law.fit.starts.agree}/{law.fit.starts.tried}", "status": status})
    return pd.DataFrame(rows).fillna(MISSING)


def _sections(records: Sequence[RunRecord], fits: StudyResults, context: ReportContext) -> list[Section | None]:
    return [
        _runs_section(records, fits),
        _exposure_section(records, context),
        _source_section(context),
        _settings_section(context),
        _command_section(context),
    ]


def _interval_text(value: float, lo: float, hi: float) -> str:
    return format_interval(value, lo, hi)


def _runs_section(records: Sequence[RunRecord], fits: StudyResults) -> Section | None:
    """Return the section on the states of the runs and the excluded ones."""
    if not records and not fits.excluded:
        return None
    reasons = Counter(
        (str(record.state), record.reason or "no reason recorded")
        for record in records
        if record.state is not RunState.FINISHED
    )
    bullets = [f"{number} {state}: {reason}" for (state, reason), number in reasons.items()]
    unfinished = {record.run_id for record in records if record.state is not RunState.FINISHED}
    excluded = [record for record in fits.excluded if record.run_id not in unfinished]
    bullets += [
        f"{len(runs)} excluded{f' from {skill}' if skill else ''}: {reason}"
        for (skill, reason), runs in group_by_reason(excluded).items()
    ]
    shown = [
        make_table("By state", tables.states_frame(records), folded=False),
        make_table(f"All {plural(len(records), 'run')}", _run_list(records)),
    ]
    excluded_tables = [make_table("Excluded", tables.excluded_frame(excluded))] if excluded else []
    return Section(
        name="runs", title="Runs", bullets=tuple(bullets), tables=(*(shown if records else ()), *excluded_tables),
    )  # fmt: skip


def _run_list(records: Sequence[RunRecord]) -> pd.DataFrame:
    table = tables.runs_frame(records)
    losses = {name: name.removeprefix("skill_loss/") for name in table.columns if name.startswith("skill_loss/")}
    kept = ["run_id", "state", "flops", "n_params", "n_tokens", "seed", "train_s", *losses]
    present = table[[name for name in kept if name in table.columns]]
    filled = present.dropna(axis="columns", how="all") if records else present
    return filled.rename(columns=losses).assign(run_id=filled["run_id"].str[:8])


def _exposure_section(records: Sequence[RunRecord], context: ReportContext) -> Section | None:
    if not context.exposures:
        return None
    rows = [
        (record.point.n_params, record.point.flops, context.exposures[record.run_id])
        for record in records
        if record.run_id in context.exposures
    ]
    table = pd.DataFrame(rows, columns=["n_params", "flops", "mentions per fact"])
    table["flops"] = table["flops"].map(lambda flops: float(f"{flops:.1e}"))
    table = table.groupby(["flops", "n_params"], as_index=False).mean().sort_values(["flops", "n_params"])
    few, many = table["mentions per fact"].min(), table["mentions per fact"].max()
    seen = f"A run saw each fact {format_count(few, 2)} to {format_count(many, 2)} times on average."
    return Section(
        name="exposures",
        title="How often a fact was seen",
        paragraphs=(
            f"{context.facts} {seen}".strip(),
            _CAPACITY,
        ),
        tables=(make_table("Mean mentions by budget and size", table),),
    )


def _source_section(context: ReportContext) -> Section | None:
    if not context.sources:
        return None
    table = pd.DataFrame([(source.name, source.version, source.licence, source.notice) for source in context.sources])
    table.columns = pd.Index(["source", "version", "licence", "notice"])
    return Section(
        name="sources", title="Data sources and licences", tables=(make_table("Sources", table, folded=False),)
    )


def _settings_section(context: ReportContext) -> Section | None:
    if not context.config:
        return None
    return Section(
        name="settings", title="Settings", code=context.config, code_title="The resolved settings of this study"
    )


def _command_section(context: ReportContext) -> Section | None:
    if not context.commands:
        return None
    return Section(name="again", title="How to reproduce this study", code="\n".join(context.commands))
