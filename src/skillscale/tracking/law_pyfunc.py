"""A registered law as MLflow loads it: ``mlflow.pyfunc.load_model("models:/NAME/1").predict(frame)``.

MLflow runs this file alone ("models from code"), with a copy of this package. Loading the law needs numpy, scipy,
pandas and pydantic, and no installation of skillscale. A frame has the columns ``n_params`` and ``n_tokens``, may have
``skill`` (all skills without it) and a column ``mix/CATEGORY`` a category (the mean mix of the runs without them).
``lo`` and ``hi`` are the interval of the law, the mean of many runs; ``new_lo`` and ``new_hi`` that of one more run.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from skillscale.errors import InputError, show
from skillscale.formatting import join_first
from skillscale.laws.io.document import SavedLaw, read_document
from skillscale.laws.io.schema import parse

COLUMNS = ("n_params", "n_tokens")


class LawModel(PythonModel):
    """Losses and their intervals from N, D and the mix."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the laws; refuse a document of another schema."""
        path, source = Path(context.artifacts["law"]), "this registered model"
        self.laws = read_document(parse(path.read_bytes(), source), source=source)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return one row for each row and skill: skill, n_params, n_tokens; loss, lo, hi, new_lo, new_hi in nats."""
        del context, params
        _check_frame(model_input)
        skills = model_input["skill"].astype(object) if "skill" in model_input.columns else None
        unknown = [] if skills is None else [name for name in skills.unique() if name not in self.laws]
        if unknown:
            raise InputError(
                f"there is no law of {join_first(list(map(show, unknown)))}. There are {', '.join(self.laws)}"
            )
        parts = [
            _predict(law, model_input if skills is None else model_input[skills == name])
            for name, law in self.laws.items()
            if skills is None or (skills == name).any()
        ]
        return pd.concat(parts).sort_index(kind="stable").reset_index(drop=True)


def _check_frame(frame: object) -> None:
    """Refuse what is no frame of numbers with N and D.

    Raises:
        InputError: no frame, no rows, a column that is missing or there twice.
    """
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"give a data frame with {' and '.join(COLUMNS)}, not {type(frame).__name__}")
    names = list(map(str, frame.columns))
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise InputError(f"the frame lacks {', '.join(missing)}. It has {show(', '.join(names))}")
    twice = [name for name in names if names.count(name) > 1]
    if twice or frame.empty:
        problem = f"has the column {show(twice[0])} twice" if twice else "has no rows"
        raise InputError(f"the frame {problem}. Give each column once, and a row for each prediction")


def _numbers(rows: pd.DataFrame, names: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return columns as numbers, (n, n_columns)."""
    try:
        return rows[list(names)].to_numpy(dtype=float)
    except (TypeError, ValueError) as error:
        raise InputError(f"{' and '.join(names)} must be columns of numbers: {show(error)}") from error


def _predict(law: SavedLaw, rows: pd.DataFrame) -> pd.DataFrame:
    shares = [f"mix/{name}" for name in law.categories]
    lacking = [name for name in shares if name not in rows.columns]
    if lacking and len(lacking) < len(shares):
        raise InputError(f"give a share of every category or of none, but {', '.join(lacking)} is missing")
    h = None if lacking or not shares else _numbers(rows, shares)
    N, D = _numbers(rows, COLUMNS).T
    loss = law.loss(N, D, h)
    ends = {"lo": loss.lo, "hi": loss.hi, "new_lo": loss.new_lo, "new_hi": loss.new_hi}
    columns: dict[str, Any] = {"skill": law.skill, "n_params": N, "n_tokens": D, "loss": loss.value, **ends}
    return pd.DataFrame(columns, index=rows.index)


set_model(LawModel())
