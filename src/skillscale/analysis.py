"""The entries that read: fit every skill from the registry's runs, and write the report."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from skillscale import __version__
from skillscale.config import Config
from skillscale.errors import FitError
from skillscale.laws.results import StudyFits
from skillscale.laws.study import fit_study
from skillscale.output import Output
from skillscale.record import RunRecord, State
from skillscale.tracking import Registry, Study

if TYPE_CHECKING:
    from skillscale.report.page import Background, Source

AGGREGATE = "aggregate"


def fit(arguments: Mapping[str, Any], config: Config, out: Output) -> dict[str, Any]:
    """Fit every skill's compute optimum from the runs in the registry, and record the fit."""
    study = Registry.open(arguments["tracking"]).study(config.study.name)
    records = study.records()
    fits = fit_records(records, config)
    with study.analysis("fit") as run:
        _log_fit(run, fits, records)
    _tell_verdicts(fits, out)
    return answer(fits)


def report(arguments: Mapping[str, Any], config: Config, out: Output) -> dict[str, Any]:
    """Fit, and write figures, tables and the page."""
    from skillscale.report.page import page

    registry = Registry.open(arguments["tracking"])
    study = registry.study(config.study.name)
    records = study.records()
    fits = fit_records(records, config)
    path = Path(arguments["page"] or f"skillscale-{config.study.name}.html").absolute()
    html = page(config.study.name, records, fits, _background(arguments, config, records, study))
    path.write_text(html, encoding="utf-8")
    with study.analysis("report") as run:
        _log_fit(run, fits, records)
        for name, content in _figures(fits).items():
            run.file(f"figures/{name}", content)
        run.file("page.html", html)
    _tell_verdicts(fits, out)
    out.text(f"\npage:  {path}\nUI:    {registry.ui_command}\n       {study.chart_link}")
    registry.annotate_launcher(study, note=f"Report of study {study.name}", result=answer(fits))
    return {**answer(fits), "page": path, "ui": registry.ui_command}


def fit_records(records: Sequence[RunRecord], config: Config) -> StudyFits:
    """The study's fits from its finished runs.

    Raises:
        FitError: no run is finished.
    """
    runs = frame(records, config)
    if runs.empty:
        raise FitError("no run of the study is finished; train some with `skillscale main` or `skillscale grid`")
    return fit_study(
        runs,
        skills=[skill.name for skill in config.skills.skills],
        aggregates=[AGGREGATE],
        level=config.study.level,
        resamples=config.study.resamples,
    )


def frame(records: Sequence[RunRecord], config: Config) -> pd.DataFrame:
    """One row a finished run: run_id, C, N, D, mix, seed, a loss column a skill, and the aggregate's.

    D is the tokens that were trained on, which whole steps make differ a little from those asked for.
    """
    weights = aggregate_weights(config)
    rows = [
        {
            "run_id": record.run_id,
            "C": nominal_budget(record.point.flops, config.study.budgets),
            "N": float(record.point.n_params),
            "D": float(sum(use.tokens for use in record.uses.values()) or record.point.n_tokens),
            "mix": str(record.point.mix),
            "seed": record.point.seed,
            **{skill.name: _loss(record.skills, skill.name) for skill in config.skills.skills},
            AGGREGATE: math.fsum(weight * _loss(record.sets, name) for name, weight in weights.items()),
        }
        for record in records
        if record.state is State.FINISHED
    ]
    return pd.DataFrame(rows)


def aggregate_weights(config: Config) -> dict[str, float]:
    """Weight of each evaluation set in the aggregate: as configured, or the validation sets by the base mix."""
    given = dict(config.study.aggregate) or {
        f"val/{name}": share for name, share in config.study.mix_values[0].shares.items()
    }
    total = math.fsum(given.values())
    return {name: weight / total for name, weight in given.items()}


def nominal_budget(flops: float, budgets: Sequence[float]) -> float:
    """The study's budget that a run belongs to (within 5 %, for D is rounded), or NaN: the fit then groups by 6 N D."""
    nearest = min(budgets, key=lambda budget: abs(math.log(flops / budget)))
    return nearest if abs(math.log(flops / nearest)) < 0.05 else math.nan


def answer(fits: StudyFits) -> dict[str, Any]:
    """The fits as plain values, for ``--json``."""
    named = {
        "minima": fits.minima_table(),
        "power_laws": fits.power_law_table(),
        "residuals": fits.residual_table(),
        "laws": fits.law_table(),
        "frontier": fits.frontier_table(),
    }
    return {"level": fits.level, **{name: table.to_dict(orient="records") for name, table in named.items()}}


def _loss(measured: Mapping[str, Any], name: str) -> float:
    return measured[name].loss if name in measured else math.nan


def _tell_verdicts(fits: StudyFits, out: Output) -> None:
    from skillscale.report.tables import verdict_table

    for mix in fits.mixes:
        out.text(verdict_table(fits, mix))


def _figures(fits: StudyFits) -> dict[str, bytes]:
    """Every figure by file name, as SVG for print and PNG for the UI."""
    from skillscale.report import figures

    drawn = {"isoflop": figures.isoflop, "optima": figures.optima, "residuals": figures.residuals}
    files: dict[str, bytes] = {}
    for at, mix in enumerate(fits.mixes):
        for name, draw in drawn.items():
            figure = draw(fits, mix)
            stem = name if at == 0 else f"{name}-{at + 1}"
            files |= {f"{stem}.svg": figures.svg(figure), f"{stem}.png": figures.png(figure)}
    return files


def _background(
    arguments: Mapping[str, Any], config: Config, records: Sequence[RunRecord], study: Study
) -> "Background":
    from skillscale.report.page import Background

    chosen = " ".join(f"--{name} {arguments[name]}" for name in ("study", "data", "skills"))
    overrides = " ".join(f"--{name} {text}" for name, text in arguments.items() if "." in name)
    words = f"{chosen} {overrides}".strip()
    described = json.loads(study.data_description() or "{}")
    return Background(
        made=time.strftime("%Y-%m-%d %H:%M"),
        version=__version__,
        sources=_sources(described.get("notices") or ()),
        exposures={one.run_id: one.exposures for one in records if one.exposures is not None},
        facts=_facts(described.get("facts")),
        commands=(f"skillscale main {words}", f"skillscale report {words}"),
        config=yaml.safe_dump(config.as_dict(), sort_keys=False),
    )


def _sources(notices: Sequence[str]) -> "tuple[Source, ...]":
    """Sources from lines of name, version and licence; only the licence may hold spaces."""
    from skillscale.report.page import Source

    parts = [(*line.split(maxsplit=2), "", "") for line in notices if line.strip()]
    return tuple(Source(name=name, version=version, licence=licence) for name, version, licence, *_ in parts)


def _facts(facts: Mapping[str, Any] | None) -> str:
    """One sentence on the facts of the training text, or nothing where none are counted."""
    from skillscale.report.numbers import count as number

    if not facts:
        return ""
    bits = number(facts["bits"], 3)
    return f"The text of {facts['category']} tells {facts['count']:,} facts, at most {bits} bits in all."


def _log_fit(run: Any, fits: StudyFits, records: Sequence[RunRecord]) -> None:
    from skillscale.report.tables import frames

    for name, table in frames(fits, records).items():
        run.file(f"tables/{name}.csv", table.to_csv(index=False))
    metrics = {f"N_star_exponent/{law.skill}": law.a.value for law in fits.power_laws if law.a.known}
    metrics |= {f"residual/{one.skill}": one.value.value for one in fits.residuals if one.pooled and one.value.known}
    run.log(metrics=metrics, params={"level": str(fits.level), "resamples": str(fits.resamples)})
