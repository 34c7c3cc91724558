"""A law on trial: fitted to the smaller runs, it predicts the larger ones, and is told how far off it was."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from skillscale.laws.choice import Blend, Choice, Tell, choose
from skillscale.laws.forms import Array
from skillscale.laws.holdout import NEAR, run_shares
from skillscale.laws.points import Points


@dataclass(frozen=True, kw_only=True)
class Score:
    """How predictions did: rows, mean |predicted / measured - 1|, and the share of rows within their interval."""

    n: int
    mean_relative_error: float = field(metadata={"unit": "1"})
    coverage: float = field(metadata={"unit": "1"})

    @classmethod
    def of(cls, predictions: pd.DataFrame) -> "Score":
        """Of a table with columns loss, predicted, lo, hi."""
        if predictions.empty:
            return cls(n=0, mean_relative_error=math.nan, coverage=math.nan)
        error = (predictions["predicted"] / predictions["loss"] - 1).abs()
        within = (predictions["loss"] >= predictions["lo"]) & (predictions["loss"] <= predictions["hi"])
        return cls(n=len(predictions), mean_relative_error=float(error.mean()), coverage=float(within.mean()))


@dataclass(frozen=True, kw_only=True)
class Backtest:
    """One skill's larger runs, predicted from the smaller ones.

    ``score``: of all larger rows; ``last``: of the last checkpoint of each run alone; ``average``: of the average over
    laws. ``n_fitted``: losses that the fit used; ``left_out``: early checkpoints that it did not; ``near_duplicates``:
    checkpoints that weighed as one with another. ``predictions``: a row each, with columns run N D loss predicted lo
    hi average average_lo average_hi; NaN scores and a ``reason`` where the runs can't carry the law.
    """

    skill: str
    law: str
    setting: str
    n_fitted: int
    n_predicted: int
    score: Score
    last: Score
    average: Score
    left_out: int = 0
    near_duplicates: int = 0
    predictions: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False, compare=False)
    reason: str = ""


def backtest(
    fitted: Mapping[str, Points], larger: Mapping[str, Points], *, letter: str, laws: Sequence[str] = (),
    level: float = 0.9, tell: Tell | None = None,
) -> tuple[Choice, dict[str, Backtest]]:  # fmt: skip
    """Choose a law by the fitted runs alone, and predict the larger ones.

    Args:
        fitted: each skill's runs to fit.
        larger: each skill's runs to predict; their losses are looked at only to say how far off the predictions were.
        letter: what tells a larger run: N or C.
        laws: names of the only laws to try; empty: the choice is free.
        level: of the intervals, two-sided.
        tell: is told of each fit.

    Raises:
        FitError: the runs can't carry any law.
    """
    choice = choose(fitted, letter=letter, laws=laws, tell=tell)
    blends = choice.fitted(fitted, tell=tell)
    return choice, {
        name: _of_skill(name, blends[name], fitted[name], larger[name], level) for name in fitted if name in larger
    }


def _of_skill(name: str, blend: Blend, fitted: Points, larger: Points, level: float) -> Backtest:
    table = predictions(blend, larger, level)
    one = blend.chosen
    return Backtest(
        skill=name, law=one.setting.law.name, setting=one.setting.name, n_fitted=len(one.points),
        n_predicted=len(larger), score=Score.of(table), last=Score.of(table[run_shares(larger) > 1 - NEAR / 2]),
        average=Score.of(_renamed(table)), left_out=len(fitted) - len(one.points),
        near_duplicates=one.near_duplicates, predictions=table,
    )  # fmt: skip


def predictions(blend: Blend, where: Points, level: float) -> pd.DataFrame:
    """Predicted losses beside the measured ones, in nats per token."""
    columns: dict[str, Array] = {"N": where.N, "D": where.D, "loss": where.L}
    columns["predicted"] = np.exp(blend.chosen.log_loss(where))
    columns["lo"], columns["hi"] = (np.exp(end) for end in blend.interval(where, level))
    columns["average"] = np.exp(blend.mean_log_loss(where))
    columns["average_lo"], columns["average_hi"] = (np.exp(end) for end in blend.mean_interval(where, level))
    return pd.DataFrame({"run": np.asarray(where.labels).astype(str), **columns})


def _renamed(table: pd.DataFrame) -> pd.DataFrame:
    """The average's predictions under the names of the single law's."""
    return pd.DataFrame(
        {
            "loss": table["loss"], "predicted": table["average"], "lo": table["average_lo"],
            "hi": table["average_hi"],
        }
    )  # fmt: skip
