"""The page of a study: one self-contained HTML file, made for reading on a screen and for printing on A4."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources

import jinja2
import pandas as pd

from skillscale.formatting import MISSING, format_count, format_duration, plural, power
from skillscale.laws.fit.skill_law import FittedLaw
from skillscale.laws.results import StudyResults, Verdict, group_by_reason
from skillscale.record import RunRecord, RunState
from skillscale.report import figures, law_figures, style, tables, verdict_text
from skillscale.report import laws as tables_of_laws
from skillscale.report.laws import Laws
from skillscale.report.sections import Figure, Section, make_figure, make_table

_MIXES = 3  # most mixes that have figures each
_GREEK = {"alpha": "α", "beta": "β"}
_CAPACITY = (
    "A model stores about 2 bits a parameter of facts seen about 1,000 times, about 1 bit of facts seen about 100 "
    "times, and less below (Allen-Zhu and Li, 2024). Where mentions are few, knowledge is limited by exposure and not "
    "by capacity, and reads as data-hungry."
)


@dataclass(frozen=True, kw_only=True)
class DataNotice:
    """Where data came from, and on what terms."""

    name: str
    version: str = ""
    licence: str = ""
    notice: str = ""


@dataclass(frozen=True, kw_only=True)
class ReportContext:
    """What the page tells beside the fits; each part is left out of the page where it is empty.

    ``counted``: what N counts, in words; ``elsewhere``: whether others trained the runs, so that nobody knows more of
    how parameters and tokens were counted; ``exposures``: mean mentions a fact by run id; ``facts``: one sentence on
    the facts and their bits; ``commands``: the command lines that make the study again; ``config``: the resolved
    settings as YAML text.
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
    study: str, records: Sequence[RunRecord], fits: StudyResults, background: ReportContext | None = None, *,
    laws: Laws | None = None, flops: Sequence[float] = (), drawn: Mapping[str, bytes] | None = None,
    differences: Sequence[Figure] = (), base: str = "",
) -> str:  # fmt: skip
    """The study as one HTML text with no script and nothing fetched from outside.

    Args:
        study: its name, the heading of the page.
        records: all its runs, whatever became of them.
        fits: what was fitted to the finished ones.
        background: dates, sources, commands, settings.
        laws: each skill's law of N, D and the mix.
        flops: computes at which their optima are told.
        drawn: the laws' figures as SVG, where they were drawn already.
        differences: figures of how skills differ.
        base: the mix that has figures of its own where there are too many for all to have them.
    """
    about = background or ReportContext()
    mixes = shown_mixes(fits, base)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["firm"] = _firm
    template = environment.from_string(
        resources.files("skillscale.report").joinpath("page.html").read_text(encoding="utf-8")
    )
    return template.render(
        title=study,
        lede=_lede(fits, mixes, laws or {}) + (f" N counts: {about.counted}." if about.counted and mixes else ""),
        headline=_headline(records, about) if records else _headline_of_table(fits),
        verdicts=[row for mix in mixes for row in _verdicts(fits, mix, named=len(mixes) > 1)],
        how_to_read=verdict_text.explain_method(fits) if mixes else "",
        to_run=verdict_text.missing_runs(fits) if mixes else (),
        figures=[
            *(one for number, mix in enumerate(mixes) for one in _figures(fits, mix, number, named=len(mixes) > 1)),
            *differences,
            *_law_figures(laws or {}, flops, drawn),
        ],
        parts=[part for part in (_laws(laws or {}, flops, fits), *_parts(records, fits, about)) if part is not None],
        footer=_footer(about),
    )


def shown_mixes(fits: StudyResults, base: str) -> tuple[str, ...]:
    """The mixes that have tables and figures each: all where they are few, else the base mix alone."""
    return fits.mixes if len(fits.mixes) <= _MIXES or base not in fits.mixes else (base,)


def _firm(text: str) -> str:
    """No line break between a number and its per cent sign."""
    return text.replace(" %", "\u00a0%")


def _footer(about: ReportContext) -> str:
    return f"Made by {f'skillscale {about.version}'.strip()}{f' on {about.made}' if about.made else ''}."


def _lede(fits: StudyResults, mixes: Sequence[str], laws: Laws) -> str:
    budgets = sorted({one.C for one in fits.minima})
    if not budgets and any(isinstance(one, FittedLaw) for one in laws.values()):
        return (
            f"The loss of {_skills_of(laws, fits)} as a law of parameters and tokens. The runs are no isoFLOP "
            "study: no budget holds 4 sizes, so that optima are told by the laws alone."
        )
    if not budgets:
        return "No run of this study can be fitted yet. Finish some runs, and make the page again."
    span = f"{power(budgets[0])} to {power(budgets[-1])} FLOP" if len(budgets) > 1 else f"{power(budgets[0])} FLOP"
    data = f"the mix {mixes[0]}" if len(mixes) == 1 else plural(len(mixes), "mix")
    return (
        f"The compute-optimal model size of {plural(len(fits.skills), 'skill')} against the aggregate's, at "
        f"{plural(len(budgets), 'budget')} ({span}), on {data}."
    )


def _skills_of(laws: Laws, fits: StudyResults) -> str:
    """``2 skills``; ``2 skills on 3 mixes`` where mixes have names alone, and each has laws of its own."""
    names = (*fits.skills, *fits.aggregates)
    mix_of = {f"{mix}/{name}": mix for mix in fits.runs["mix"].astype(str).unique() for name in names}
    mixes = {mix_of[name] for name in laws if name in mix_of}
    skills = {name.removeprefix(f"{mix_of[name]}/") if name in mix_of else name for name in laws}
    return plural(len(skills), "skill") + (f" on {plural(len(mixes), 'mix')}" if mixes else "")


def _headline(records: Sequence[RunRecord], about: ReportContext) -> list[dict[str, str]]:
    done = [one for one in records if one.state is RunState.FINISHED]
    lost = len(records) - len(done)
    exact = [one.cost.flops_exact for one in done if one.cost is not None]
    seconds = math.fsum(one.cost.train_s + one.cost.eval_s for one in done if one.cost is not None)
    sampled = sum(1 for one in done if one.purpose)
    counted, repeated = (about.counted, "") if about.elsewhere else ("embedding counted once", "repetitions counted")
    notes = [f"{sampled} chosen by the sampler"] * bool(sampled) + [f"{lost} not finished"] * bool(lost)
    items = [
        ("Finished runs", str(len(done)), ", ".join(notes)),
        (
            "Compute, 6 N D",
            f"{power(math.fsum(one.point.flops for one in done))} FLOP",
            f"{power(math.fsum(exact))} counted exactly" if exact and len(exact) == len(done) else "",
        ),
        ("Training tokens", format_count(math.fsum(one.point.n_tokens for one in done)), repeated),
        ("Sizes", _span([one.point.n_params for one in done]), f"parameters{f', {counted}' if counted else ''}"),
        ("Time in runs", format_duration(seconds) if seconds else "", "training and evaluation, summed over workers"),
        (
            "Run",
            about.first_run or about.last_run,
            f"to {about.last_run}" if about.first_run and about.last_run else "",
        ),
    ]
    return [{"label": label, "value": value, "note": note} for label, value, note in items if value]


def _headline_of_table(fits: StudyResults) -> list[dict[str, str]]:
    runs = fits.runs
    if runs.empty or "cluster" not in runs:
        return []
    C = 6 * runs["N"] * runs["D"]
    several = f"{len(runs)} losses a skill" if runs["cluster"].duplicated().any() else ""
    items = [
        ("Runs", str(runs["cluster"].nunique()), several),
        ("Compute, 6 N D", f"{power(float(C.min()))} to {power(float(C.max()))} FLOP", "of a run"),
        ("Sizes", _span(runs["N"].tolist()), "parameters"),
        ("Training tokens", _span(runs["D"].tolist()), "of a run"),
    ]
    return [{"label": label, "value": value, "note": note} for label, value, note in items]


def _span(values: Sequence[float]) -> str:
    return f"{format_count(min(values), 2)} to {format_count(max(values), 2)}" if values else ""


def _verdicts(fits: StudyResults, mix: str, *, named: bool) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for skill in fits.skills:
        one = verdict_text.pooled_size_gap(fits, mix, skill)
        rows.append(
            {
                "skill": f"{skill} ({mix})" if named else skill,
                "verdict": one.describe_verdict(fits.level) if one else str(Verdict.UNRESOLVED),
                "shown": one is not None and one.describe_verdict(fits.level) in (Verdict.CAPACITY, Verdict.DATA),
                "sentence": verdict_text.explain_verdict(fits, one) if one else f"No residual of {skill} was fitted.",
            }
        )
    return rows


def _figures(fits: StudyResults, mix: str, number: int, *, named: bool) -> list[Figure]:
    of = f" (mix {mix})" if named else ""
    level = f"{100 * fits.level:.3g} %"
    minima = _only(fits.minima_table(), mix)
    return [
        make_figure(
            f"isoflop-{number}", f"IsoFLOP curves{of}", style.to_svg(figures.draw_isoflop_curves(fits, mix)),
            f"Each point is a run of the grid, each curve {_curve_kind(fits)} in log N, fitted to one budget's. "
            f"Diamonds are the compute optima N*, black bars their {level} intervals. A dashed curve has no optimum "
            f"that could be claimed; the table says why.",
            (make_table("Optima", minima),),
        ),
        make_figure(
            f"optima-{number}", f"Optimal size against compute{of}", style.to_svg(figures.draw_optima(fits, mix)),
            f"N*(C) of each skill with {level} intervals, and the power law through them with its band; the aggregate "
            f"in grey. Dashed: the optimum by the skill's law, which is one for all budgets. Where "
            f"the two part, at least one form does not hold here. Points are shifted a little along C to stay apart.",
            (
                make_table("Power laws N* = k C^a", _only(fits.power_law_table(), mix)),
                make_table("N* by isoFLOP curve and by law", _only(fits.curve_versus_law_table(), mix)),
            ),
        ),
        make_figure(
            f"residuals-{number}", f"Residuals{of}", style.to_svg(figures.draw_size_gaps(fits, mix)),
            f"How many more parameters the skill's optimum has than the aggregate's: at each budget (dots) and pooled "
            f"over budgets (diamonds), with {level} intervals. An interval that crosses the vertical line shows no "
            f"difference.",
            (make_table("Residuals, ln N*(skill) − ln N*(aggregate)", _only(fits.size_gap_table(), mix)),),
        ),
    ]  # fmt: skip


def _curve_kind(fits: StudyResults) -> str:
    degree = max((len(one.curve.coefficients) - 1 for one in fits.minima if one.curve is not None), default=2)
    return "a parabola" if degree == 2 else f"a polynomial of degree {degree}"


def _only(table: pd.DataFrame, mix: str) -> pd.DataFrame:
    """The rows of a mix, without columns that say nothing: one aggregate, one law, no refusals."""
    mine = table[table["mix"] == mix].drop(columns="mix")
    same = [
        name
        for name in ("aggregate", "law")
        if name in mine and mine[name].dtype != float and len(set(mine[name])) == 1
    ]
    silent = [name for name in ("reason",) if name in mine and not any(mine[name])]
    return mine.drop(columns=[*same, *silent])


def _law_figures(laws: Laws, flops: Sequence[float], given: Mapping[str, bytes] | None) -> list[Figure]:
    told = {
        "law-optima": (
            "Optimal size by the law",
            "N*(C) of each skill's law with its interval; dashed beyond the largest run (dotted line). The interval "
            "owns the runs' noise; whether the form holds so far out is another question, for held-out larger runs.",
            (make_table("N* by law", tables_of_laws.optima_frame(laws, flops)),),
        ),
        "law-errors": (
            "How far the runs lie from the law",
            "Each point is a loss over what the law tells for it. A trend along C or with the colour is a form that "
            "does not hold.",
            (),
        ),
    }
    if given is None:
        given = {name: style.to_svg(figure) for name, figure in law_figures.draw_law_figures(laws, flops).items()}
    return [make_figure(name, told[name][0], image, *told[name][1:]) for name, image in given.items()]


def _laws(laws: Laws, flops: Sequence[float], fits: StudyResults) -> Section | None:
    """Each skill's law: its form in words, its parameters with intervals, what the runs can't tell, and the curves."""
    beside = tuple(text for text in (verdict_text.compare_curve_and_law(fits),) if text)
    if not laws and not beside:
        return None
    forms = {one.law.name: type(one.law).__doc__ or "" for one in laws.values() if isinstance(one, FittedLaw)}
    formulas = tuple(f"{name}: {' '.join(text.split(chr(10) * 2)[0].split())}" for name, text in forms.items())
    doubts = tuple(
        f"{name}: {doubt}"
        for name, one in laws.items()
        for doubt in (one.reason, *(one.warnings if isinstance(one, FittedLaw) else ()))
        if doubt
    )
    shown = (
        make_table("Laws", _fitted_frame(laws), folded=False),
        make_table("N* by law", tables_of_laws.optima_frame(laws, flops)),
    )
    return Section(
        name="laws", title="Law of each skill", paragraphs=(*formulas, *beside), bullets=doubts,
        tables=shown if laws else (),
    )  # fmt: skip


def _fitted_frame(laws: Laws) -> pd.DataFrame:
    rows = []
    for name, one in laws.items():
        if not isinstance(one, FittedLaw):
            rows.append({"skill": name, "status": "refused"})
            continue
        row = {"skill": name}
        row |= {_GREEK.get(letter, letter): _with_interval(x.value, x.lo, x.hi) for letter, x in one.theta.items()}
        a = one.exponent
        row |= {"N* exponent": _with_interval(a.value, a.lo, a.hi), "noise": f"{one.fit.noise:.2%}"}
        rows.append(row | {"agree": f"{one.fit.starts.agree}/{one.fit.starts.tried}", "status": str(one.status)})
    return pd.DataFrame(rows).fillna(MISSING)


def _parts(records: Sequence[RunRecord], fits: StudyResults, about: ReportContext) -> list[Section | None]:
    return [
        _runs(records, fits),
        _exposures(records, about),
        _sources(about),
        _settings(about),
        _again(about),
    ]


def _with_interval(value: float, lo: float, hi: float) -> str:
    if not math.isfinite(value):
        return MISSING
    return f"{value:.3g} [{lo:.3g}, {hi:.3g}]" if math.isfinite(lo) and math.isfinite(hi) else f"{value:.3g}"


def _runs(records: Sequence[RunRecord], fits: StudyResults) -> Section | None:
    """What became of the runs, and all that was left out."""
    if not records and not fits.excluded:
        return None
    reasons = Counter(
        (str(one.state), one.reason or "no reason recorded") for one in records if one.state is not RunState.FINISHED
    )
    bullets = [f"{number} {state}: {reason}" for (state, reason), number in reasons.items()]
    unfinished = {one.run_id for one in records if one.state is not RunState.FINISHED}
    left_out = [one for one in fits.excluded if one.run_id not in unfinished]
    bullets += [
        f"{len(ones)} left out{f' of {skill}' if skill else ''}: {reason}"
        for (skill, reason), ones in group_by_reason(left_out).items()
    ]
    shown = [
        make_table("By state", tables.states_frame(records), folded=False),
        make_table(f"All {plural(len(records), 'run')}", _run_list(records)),
    ]
    named = [make_table("Left out", tables.excluded_frame(left_out))] if left_out else []
    return Section(
        name="runs", title="Runs", bullets=tuple(bullets), tables=(*(shown if records else ()), *named),
    )  # fmt: skip


def _run_list(records: Sequence[RunRecord]) -> pd.DataFrame:
    table = tables.runs_frame(records)
    losses = {name: name.removeprefix("skill_loss/") for name in table.columns if name.startswith("skill_loss/")}
    kept = ["run_id", "state", "flops", "n_params", "n_tokens", "seed", "train_s", *losses]
    present = table[[name for name in kept if name in table.columns]]
    filled = present.dropna(axis="columns", how="all") if records else present
    return filled.rename(columns=losses).assign(run_id=filled["run_id"].str[:8])


def _exposures(records: Sequence[RunRecord], about: ReportContext) -> Section | None:
    if not about.exposures:
        return None
    rows = [
        (one.point.n_params, one.point.flops, about.exposures[one.run_id])
        for one in records
        if one.run_id in about.exposures
    ]
    table = pd.DataFrame(rows, columns=["n_params", "flops", "mentions a fact"])
    table["flops"] = table["flops"].map(lambda flops: float(f"{flops:.1e}"))
    table = table.groupby(["flops", "n_params"], as_index=False).mean().sort_values(["flops", "n_params"])
    few, many = table["mentions a fact"].min(), table["mentions a fact"].max()
    return Section(
        name="exposures",
        title="How often a fact was seen",
        paragraphs=(
            f"{about.facts} A run saw each fact {format_count(few, 2)} to {format_count(many, 2)} times in the mean.".strip(),
            _CAPACITY,
        ),
        tables=(make_table("Mean mentions by budget and size", table),),
    )


def _sources(about: ReportContext) -> Section | None:
    if not about.sources:
        return None
    table = pd.DataFrame([(one.name, one.version, one.licence, one.notice) for one in about.sources])
    table.columns = pd.Index(["source", "version", "licence", "notice"])
    return Section(
        name="sources", title="Data sources and licences", tables=(make_table("Sources", table, folded=False),)
    )


def _settings(about: ReportContext) -> Section | None:
    if not about.config:
        return None
    return Section(
        name="settings", title="Settings", code=about.config, code_title="The resolved settings of this study"
    )


def _again(about: ReportContext) -> Section | None:
    if not about.commands:
        return None
    return Section(name="again", title="To make this again", code="\n".join(about.commands))
