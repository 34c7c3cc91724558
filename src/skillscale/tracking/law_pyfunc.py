"""A registered law as MLflow loads it: ``mlflow.pyfunc.load_model("models:/NAME/1").predict(frame)``.

MLflow runs this file alone ("models from code"), with a copy of this package. Loading the law needs numpy, scipy and
pandas, and no installation of skillscale. A frame has the columns ``n_params`` and ``n_tokens``, may have
``skill`` (all skills without it) and a column ``mix/CATEGORY`` a category (the mean mix of the runs without them).
``lo`` and ``hi`` are the interval of the law, the mean of many runs; ``new_lo`` and ``new_hi`` that of one more run.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from skillscale.errors import InputError
from skillscale.laws.io.document import SavedLaw, read_document

COLUMNS = ("n_params", "n_tokens")


class LawModel(PythonModel):
    """Losses and their intervals from N, D and the mix."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the laws; refuse a document of another schema."""
        path = Path(context.artifacts["law"])
        self.laws = read_document(json.loads(path.read_text(encoding="utf-8")), source="this registered model")

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return one row for each row and skill: skill, n_params, n_tokens; loss, lo, hi, new_lo, new_hi in nats."""
        del context, params
        missing = [name for name in COLUMNS if name not in model_input.columns]
        if missing:
            raise InputError(f"the frame lacks {', '.join(missing)}. It has {', '.join(map(str, model_input.columns))}")
        skills = model_input["skill"] if "skill" in model_input.columns else None
        unknown = sorted(set(skills) - set(self.laws)) if skills is not None else []
        if unknown:
            raise InputError(f"there is no law of {', '.join(unknown)}. There are {', '.join(self.laws)}")
        parts = [
            _predict(law, model_input if skills is None else model_input[skills == name])
            for name, law in self.laws.items()
            if skills is None or (skills == name).any()
        ]
        return pd.concat(parts).sort_index(kind="stable").reset_index(drop=True)


def _predict(law: SavedLaw, rows: pd.DataFrame) -> pd.DataFrame:
    shares = [f"mix/{name}" for name in law.categories]
    lacking = [name for name in shares if name not in rows.columns]
    if lacking and len(lacking) < len(shares):
        raise InputError(f"give a share of every category or of none, but {', '.join(lacking)} is missing")
    h = None if lacking or not shares else rows[shares].to_numpy(dtype=float)
    N, D = (rows[name].to_numpy(dtype=float) for name in COLUMNS)
    loss = law.loss(N, D, h)
    ends = {"lo": loss.lo, "hi": loss.hi, "new_lo": loss.new_lo, "new_hi": loss.new_hi}
    columns: dict[str, Any] = {"skill": law.skill, "n_params": N, "n_tokens": D, "loss": loss.value, **ends}
    return pd.DataFrame(columns, index=rows.index)


set_model(LawModel())
