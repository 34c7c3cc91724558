"""Published compute optima, to compare with those of a study."""

from pathlib import Path

import numpy as np
import pandas as pd

from skillscale.config import conf_folder
from skillscale.errors import InputError

_NUMBERS = ("C", "N", "N_lo", "N_hi")


def read_optima(name: str) -> pd.DataFrame:
    """Return the optima of a CSV file, or of a shipped file of conf/optima by its name.

    Returns:
        One row per optimum: skill, C (FLOP), N (parameters), N_lo and N_hi (NaN where unknown).

    Raises:
        InputError: there is no such file, it lacks a column, or a number is not positive.
    """
    path = Path(name) if name.endswith(".csv") else conf_folder() / "optima" / f"{name}.csv"
    if not path.is_file():
        shipped = ", ".join(sorted(file.stem for file in (conf_folder() / "optima").glob("*.csv")))
        raise InputError(f"there are no published optima {name!r}. Give a CSV file, or one of {shipped}.")
    try:
        frame = pd.read_csv(path, comment="#")
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read as CSV: {error}") from error
    missing = [column for column in ("skill", "C", "N") if column not in frame]
    if missing:
        raise InputError(f"{path} lacks the columns {', '.join(missing)}. It has {', '.join(map(str, frame.columns))}.")
    frame = frame.reindex(columns=["skill", *_NUMBERS])
    for column in _NUMBERS:
        is_given = frame[column].notna()
        numbers = pd.to_numeric(frame[column], errors="coerce")
        needed = is_given | (not column.startswith("N_"))
        bad = needed & ~(np.isfinite(numbers) & (numbers > 0))
        if bad.any():
            raise InputError(f"{path}: {column} must be a positive number, but one is {frame.loc[bad, column].iloc[0]}")
        frame[column] = numbers
    is_repeated = frame.duplicated(["skill", "C"])
    if is_repeated.any():
        raise InputError(
            f"{path} has {frame.loc[is_repeated, 'skill'].iloc[0]} twice at one C. Give one optimum per budget"
        )
    outside = (frame["N_lo"] > frame["N"]) | (frame["N_hi"] < frame["N"])
    if outside.any():
        raise InputError(f"{path}: N must be between N_lo and N_hi, but one is {frame.loc[outside, 'N'].iloc[0]:g}")
    return frame.assign(skill=frame["skill"].astype(str))
