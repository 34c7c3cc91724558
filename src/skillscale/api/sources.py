"""Runs from a data frame, a file, or a study."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from skillscale.analysis.check import TableCheck, check_runs
from skillscale.api.display import as_preformatted
from skillscale.config import Config, is_shipped, load
from skillscale.config.options import SourceOptions
from skillscale.errors import InputError
from skillscale.tables import parse_columns, read_columns
from skillscale.tables.read import LoadedRuns, read_runs, runs_of_frame


class Runs:
    """Runs to fit. In a notebook they show what they are, and what they can't determine.

    Args:
        loaded: The runs.
        config: Settings.
    """

    def __init__(self, loaded: LoadedRuns, config: Config) -> None:
        self.loaded = loaded
        self.config = config

    @property
    def frame(self) -> pd.DataFrame:
        """One row a run or checkpoint: run_id, cluster, C, N, D, mix, seed, and a loss a skill, nats per token."""
        return self.loaded.table.runs.copy()

    @property
    def skills(self) -> tuple[str, ...]:
        """Names of the skills."""
        return self.loaded.table.judged_skills

    def check(self) -> TableCheck:
        """Say what the runs are, and what they can't determine."""
        return check_runs(self.loaded)

    def __len__(self) -> int:
        return len(self.loaded.table.runs)

    def __repr__(self) -> str:
        return self.check().text()

    def _repr_html_(self) -> str:
        return as_preformatted(repr(self))


def runs(
    source: "pd.DataFrame | str | Path | None" = None, *, columns: "Mapping[str, Any] | str | Path | None" = None,
    study: str = "", tracking: str = "", n_convention: str = "",
) -> Runs:  # fmt: skip
    """Read runs from a data frame, a file or folder, or a study.

    Args:
        source: Data frame, or path of a table; None: the study.
        columns: Column map, or the path of its YAML file; None: by the names of the columns.
        study: Name of a study, in place of a table.
        tracking: MLflow store of the study; empty: MLFLOW_TRACKING_URI, or sqlite in the working folder.
        n_convention: What N counts: a name in ``columns``, or of a study ``total`` or ``nonembed``.

    Raises:
        InputError: Both a source and a study, or neither; or a table that can't be used.
        TrackingError: The store has no such study.

    Examples:
        >>> import pandas as pd
        >>> import skillscale as ss
        >>> sizes, tokens = [1e7, 1e8, 1e9], [1e9, 1e10, 1e11]
        >>> frame = pd.DataFrame([(N, D, 1.8 + 400 / N**0.36 + 900 / D**0.36) for N in sizes for D in tokens])
        >>> len(ss.runs(frame.set_axis(["params", "tokens", "loss"], axis=1)))
        9
    """
    if (source is None) == (not study):
        raise InputError("runs takes either a table or a study, as in runs(frame) or runs(study='main').")
    shipped = not study or is_shipped("study", study)
    config = load(study=study or "main") if shipped else load(overrides={"study.name": study})
    mapping = parse_columns(columns) if isinstance(columns, Mapping) else None
    if isinstance(source, pd.DataFrame):
        mapping = read_columns(columns) if isinstance(columns, str | Path) else mapping
        return Runs(runs_of_frame(source, mapping, convention=n_convention), config)
    if mapping is not None:
        raise InputError("the column map of a file is a YAML file: give its path, or read the table yourself.")
    options = SourceOptions(
        study=study or "main", data="", skills="", tracking=tracking, queue="", table=str(source or ""),
        columns=str(columns or ""), n_convention=n_convention,
    )  # fmt: skip
    return Runs(read_runs(options, config), config)
