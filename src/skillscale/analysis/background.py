"""What the page says around the results: when and how it was made, from which data and settings."""

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from skillscale import __version__
from skillscale.config import Config
from skillscale.config.options import SourceOptions
from skillscale.formatting import format_count
from skillscale.tables.read import LoadedRuns

if TYPE_CHECKING:
    from skillscale.report.page import DataNotice, ReportContext


def report_context(source: SourceOptions, config: Config, runs: LoadedRuns) -> "ReportContext":
    """Return the context of a page: dates, data, commands that make it again, settings."""
    from skillscale.report.page import ReportContext

    description = json.loads((runs.study.notes.data_description() if runs.study and runs.trained else "") or "{}")
    return ReportContext(
        made=time.strftime("%Y-%m-%d %H:%M"),
        version=__version__,
        counted=runs.convention,
        elsewhere=not runs.trained,
        sources=_notices(description.get("notices") or ()),
        exposures={record.run_id: record.exposures for record in runs.records if record.exposures is not None},
        facts=_facts_sentence(description.get("facts")),
        commands=_commands(source, config, runs),
        config=yaml.safe_dump(config.as_dict(), sort_keys=False) if runs.trained else "",
    )


def _commands(source: SourceOptions, config: Config, runs: LoadedRuns) -> tuple[str, ...]:
    """Return the commands that make the page again."""
    table, study = ("table", "columns", "n_convention"), ("study", "data", "skills", "n_convention")
    pairs = {name: getattr(source, name) for name in (table if runs.study is None else study)}
    pairs |= {name: text for name, text in config.overrides.items() if name != "study.name"}
    words = " ".join(f"--{name} {shlex.quote(text)}" for name, text in pairs.items() if text)
    return tuple(f"skillscale {command} {words}" for command in (("main", "report") if runs.trained else ("report",)))


def _notices(lines: Sequence[str]) -> "tuple[DataNotice, ...]":
    """Return notices from lines of name, version and licence; only the licence may hold spaces."""
    from skillscale.report.page import DataNotice

    parts = [(*line.split(maxsplit=2), "", "") for line in lines if line.strip()]
    return tuple(DataNotice(name=name, version=version, licence=licence) for name, version, licence, *_ in parts)


def _facts_sentence(facts: Mapping[str, Any] | None) -> str:
    """Return one sentence on the facts of the training text; nothing where none are counted."""
    if not facts:
        return ""
    bits = format_count(facts["bits"], 3)
    return f"The text of {facts['category']} has {facts['count']:,} facts, at most {bits} bits in all."
