"""``check``: what the columns of a table are, and what its runs can and can't determine; fits no law."""

from pathlib import Path

import yaml

from skillscale.analysis.check import check_runs
from skillscale.cli.output import Output
from skillscale.config import Config
from skillscale.config.options import CheckOptions
from skillscale.errors import InputError
from skillscale.formatting import JsonObject
from skillscale.tables.column_guess import guess_columns
from skillscale.tables.files import read_sample
from skillscale.tables.read import read_runs


def check(options: CheckOptions, config: Config, out: Output) -> JsonObject:
    """Describe the runs; write the column map that the names of the columns suggest, where a file is given.

    Raises:
        InputError: A column map is to be written for a study, or for a table that has one.
    """
    answer: JsonObject = {}
    if options.file:
        if not options.source.table or options.source.columns:
            raise InputError("--file writes the column map of a table without one. Give --table, and no --columns.")
        guess = guess_columns(read_sample(Path(options.source.table)))
        Path(options.file).write_text(yaml.safe_dump(dict(guess.raw), sort_keys=False), encoding="utf-8")
        answer["file"] = Path(options.file).absolute()
        out.text(f"columns written to {options.file}. Correct what is wrong, and give it by --columns.")
    checked = check_runs(read_runs(options.source, config, out.progress, whole=True))
    out.text(checked.text())
    return answer | checked.as_dict()
