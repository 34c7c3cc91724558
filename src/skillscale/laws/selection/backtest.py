"""A law on trial: fitted to the smaller runs, it predicts the larger ones, and is told how far off it was."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from skillscale.errors import FitError
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.objective import Objective
from skillscale.laws.forms.nd import Array
from skillscale.laws.selection.holdout import NEAR, run_shares
from skillscale.laws.selection.selection import LawSelection, PredictiveEnsemble, Tell, ineligible_reason, select_law


@dataclass(frozen=True, kw_only=True)
class Score:
    """How predictions did: rows, mean |predicted / measured - 1|, and the share of rows within their interval."""

    n: int = 0
    mean_relative_error: float = field(default=math.nan, metadata={"unit": "1"})
    coverage: float = field(default=math.nan, metadata={"unit": "1"})
    half_width: float = field(default=math.nan, metadata={"unit": "ln L, median half width of the intervals"})

    @classmethod
    def of(cls, predictions: pd.DataFrame) -> "Score":
        """Of a table with columns loss, predicted, lo, hi."""
        if predictions.empty:
            return cls()
        error = (predictions["predicted"] / predictions["loss"] - 1).abs()
        within = (predictions["loss"] >= predictions["lo"]) & (predictions["loss"] <= predictions["hi"])
        width = float(np.median(np.log(predictions["hi"] / predictions["lo"]))) / 2
        return cls(
            n=len(predictions), mean_relative_error=float(error.mean()), coverage=float(within.mean()),
            half_width=width,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Backtest:
    """One skill's larger runs, predicted from the smaller ones.

    ``score``: of all larger rows; ``last``: of the last checkpoint of each run alone; ``average``: of the average over
    laws; ``unseen``: of runs no checkpoint of which was fitted (under a limit of compute most larger rows may be later
    checkpoints of the fitted runs, ``n_of_fitted_runs`` in number, and are then told by their own earlier ones).
    ``n_fitted``: losses that the fit used; ``left_out``: early checkpoints that it did not; ``near_duplicates``:
    checkpoints that weighed as one with another. ``predictions``: a row each, with columns run N D loss predicted lo
    hi average average_lo average_hi; NaN scores and a ``reason`` where the runs can't carry the law.
    """

    skill: str
    law: str
    setting: str
    n_fitted: int
    n_predicted: int
    score: Score = field(default_factory=Score)
    last: Score = field(default_factory=Score)
    average: Score = field(default_factory=Score)
    unseen: Score = field(default_factory=Score)
    n_of_fitted_runs: int = 0
    left_out: int = 0
    near_duplicates: int = 0
    predictions: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False, compare=False)
    reason: str = ""


def backtest(
    fitted: Mapping[str, RunData], larger: Mapping[str, RunData], *, letter: str, laws: Sequence[str] = (),
    objective: Objective | None = None, level: float = 0.9, tell: Tell | None = None,
) -> tuple[LawSelection, dict[str, Backtest]]:  # fmt: skip
    """Choose a law by the fitted runs alone, and predict the larger ones.

    Args:
        fitted: each skill's runs to fit.
        larger: each skill's runs to predict; their losses are looked at only to say how far off the predictions were.
        letter: what tells a larger run: N or C.
        laws: names of the only laws to try; empty: the choice is free.
        objective: of the fits; None: Huber with delta twice the noise.
        level: of the intervals, two-sided.
        tell: is told of each fit.

    Raises:
        FitError: the runs of no skill can carry a law.
    """
    reasons = {name: ineligible_reason(points, letter) for name, points in fitted.items()}
    able = {name: points for name, points in fitted.items() if not reasons[name]}
    if not able:
        name, reason = next(iter(reasons.items()))
        raise FitError(f"{name}: {reason}")
    choice = select_law(able, letter=letter, laws=laws, objective=objective, tell=tell)
    outlooks = choice.fitted(able, tell=tell)
    return choice, {
        name: _of_skill(name, outlooks[name], fitted[name], larger[name], level)
        if name in able
        else _refused(name, fitted[name], larger[name], reasons[name])
        for name in fitted
    }


def _refused(name: str, fitted: RunData, larger: RunData, reason: str) -> Backtest:
    return Backtest(skill=name, law="", setting="", n_fitted=len(fitted), n_predicted=len(larger), reason=reason)


def _of_skill(name: str, outlook: PredictiveEnsemble, fitted: RunData, larger: RunData, level: float) -> Backtest:
    table = predictions(outlook, larger, level)
    one = outlook.chosen
    seen = np.isin(table["run"], np.asarray(fitted.labels).astype(str))
    return Backtest(
        skill=name, law=one.setting.law.name, setting=one.setting.name, n_fitted=len(one.points),
        n_predicted=len(larger), score=Score.of(table), last=Score.of(table[run_shares(larger) > 1 - NEAR / 2]),
        average=Score.of(_renamed(table)), unseen=Score.of(table[~seen]), n_of_fitted_runs=int(seen.sum()),
        left_out=len(fitted) - len(one.points),
        near_duplicates=one.near_duplicates, predictions=table,
    )  # fmt: skip


def predictions(outlook: PredictiveEnsemble, where: RunData, level: float) -> pd.DataFrame:
    """Predicted losses beside the measured ones, in nats per token."""
    columns: dict[str, Array] = {"N": where.N, "D": where.D, "loss": where.L}
    columns["predicted"] = np.exp(outlook.chosen.log_loss(where))
    columns["lo"], columns["hi"] = (np.exp(end) for end in outlook.interval(where, level))
    columns["average"] = np.exp(outlook.mean_log_loss(where))
    columns["average_lo"], columns["average_hi"] = (np.exp(end) for end in outlook.mean_interval(where, level))
    return pd.DataFrame({"run": np.asarray(where.labels).astype(str), **columns})


def _renamed(table: pd.DataFrame) -> pd.DataFrame:
    """The average's predictions under the names of the single law's."""
    return pd.DataFrame(
        {
            "loss": table["loss"], "predicted": table["average"], "lo": table["average_lo"],
            "hi": table["average_hi"],
        }
    )  # fmt: skip
