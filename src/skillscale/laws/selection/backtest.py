"""Backtest a law: fit it to the smaller runs, predict the larger ones, and score the predictions.

In: fitted runs and larger runs of each skill. Out: the selected law, and a ``Backtest`` with scores per skill.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from skillscale.errors import FitError
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.objective import Objective
from skillscale.laws.forms.nd import Array
from skillscale.laws.selection.holdout import DUPLICATE_GAP, run_shares
from skillscale.laws.selection.selection import LawSelection, PredictiveEnsemble, ineligible_reason, select_law


@dataclass(frozen=True, kw_only=True)
class PredictionScore:
    """Score of predictions: rows, mean |predicted / measured - 1|, and the share of rows within their interval."""

    n: int = 0
    mean_relative_error: float = field(default=math.nan, metadata={"unit": "1"})
    coverage: float = field(default=math.nan, metadata={"unit": "1"})
    half_width: float = field(default=math.nan, metadata={"unit": "ln L, median half width of the intervals"})

    @classmethod
    def from_table(cls, predictions: pd.DataFrame) -> "PredictionScore":
        """Score a table with columns loss, predicted, lo and hi."""
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
    """The larger runs of one skill, predicted from the smaller ones.

    ``score``: of all larger rows. ``last``: of the last checkpoint of each run. ``average``: of the average over laws.
    ``unseen``: of runs without a fitted checkpoint. Under a compute cutoff most larger rows may be later checkpoints of
    fitted runs, ``n_of_fitted_runs`` in number, which are predicted from earlier ones. ``n_fitted``: losses that the
    fit used. ``n_early``: early checkpoints that it excluded. ``near_duplicates``: checkpoints that weighed as one with
    another. ``predictions``: a row each, with columns run N D loss predicted lo hi average average_lo average_hi.
    Scores are NaN, with a ``reason``, where the runs can't determine the law.
    """

    skill: str
    law: str
    setting: str
    n_fitted: int
    n_predicted: int
    score: PredictionScore = field(default_factory=PredictionScore)
    last: PredictionScore = field(default_factory=PredictionScore)
    average: PredictionScore = field(default_factory=PredictionScore)
    unseen: PredictionScore = field(default_factory=PredictionScore)
    n_of_fitted_runs: int = 0
    n_early: int = 0
    near_duplicates: int = 0
    predictions: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False, compare=False)
    reason: str = ""


def backtest(
    fitted: Mapping[str, RunData], larger: Mapping[str, RunData], *, letter: str, laws: Sequence[str] = (),
    objective: Objective | None = None, level: float = 0.9,
) -> tuple[LawSelection, dict[str, Backtest]]:  # fmt: skip
    """Select a law from the fitted runs alone, and predict the larger ones.

    Args:
        fitted: runs of each skill to fit.
        larger: runs of each skill to predict; their losses are used for the scores only.
        letter: measure of a larger run: N or C.
        laws: names of the only laws to try; empty: any.
        objective: objective of the fits; None: Huber with delta twice the noise.
        level: two-sided level of the intervals.

    Raises:
        FitError: the runs of no skill can determine a law.
    """
    reasons = {name: ineligible_reason(runs, letter) for name, runs in fitted.items()}
    fittable = {name: runs for name, runs in fitted.items() if not reasons[name]}
    if not fittable:
        name, reason = next(iter(reasons.items()))
        raise FitError(f"{name}: {reason}")
    selection = select_law(fittable, letter=letter, laws=laws, objective=objective)
    ensembles = selection.fit_all(fittable)
    return selection, {
        name: _backtest_skill(name, ensembles[name], fitted[name], larger[name], level)
        if name in fittable
        else _failed_backtest(name, fitted[name], larger[name], reasons[name])
        for name in fitted
    }


def _failed_backtest(name: str, fitted: RunData, larger: RunData, reason: str) -> Backtest:
    return Backtest(skill=name, law="", setting="", n_fitted=len(fitted), n_predicted=len(larger), reason=reason)


def _backtest_skill(
    name: str, ensemble: PredictiveEnsemble, fitted: RunData, larger: RunData, level: float
) -> Backtest:
    table = predictions(ensemble, larger, level)
    extrapolation = ensemble.chosen
    is_last = run_shares(larger) > 1 - DUPLICATE_GAP / 2
    seen = np.isin(table["run"], np.asarray(fitted.labels).astype(str))
    return Backtest(
        skill=name, law=extrapolation.setting.law.name, setting=extrapolation.setting.name,
        n_fitted=len(extrapolation.runs), n_predicted=len(larger), score=PredictionScore.from_table(table),
        last=PredictionScore.from_table(table[is_last]), average=PredictionScore.from_table(_average_columns(table)),
        unseen=PredictionScore.from_table(table[~seen]), n_of_fitted_runs=int(seen.sum()),
        n_early=len(fitted) - len(extrapolation.runs), near_duplicates=extrapolation.near_duplicates, predictions=table,
    )  # fmt: skip


def predictions(ensemble: PredictiveEnsemble, runs: RunData, level: float) -> pd.DataFrame:
    """Tabulate predicted and measured losses, in nats per token."""
    columns: dict[str, Array] = {"N": runs.N, "D": runs.D, "loss": runs.L}
    columns["predicted"] = np.exp(ensemble.chosen.log_loss(runs))
    columns["lo"], columns["hi"] = (np.exp(end) for end in ensemble.interval(runs, level))
    columns["average"] = np.exp(ensemble.mean_log_loss(runs))
    columns["average_lo"], columns["average_hi"] = (np.exp(end) for end in ensemble.mean_interval(runs, level))
    return pd.DataFrame({"run": np.asarray(runs.labels).astype(str), **columns})


def _average_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Return the average's predictions under the column names of the single law's."""
    return pd.DataFrame(
        {
            "loss": table["loss"], "predicted": table["average"], "lo": table["average_lo"],
            "hi": table["average_hi"],
        }
    )  # fmt: skip
