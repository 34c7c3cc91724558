"""Budgets of runs: given or computed from 6 N D, and refused where they cannot be resampled."""

import math

import numpy as np
import pandas as pd
import pytest

from skillscale.errors import InputError
from skillscale.laws.fit.request import FitRequest
from skillscale.laws.forms.catalogue import LAWS
from skillscale.laws.isoflop.budgets import budget_of_runs
from skillscale.laws.uncertainty.bootstrap import ResamplingMethod


def runs(budgets=(1e18, 3e18, 1e19), *, sizes=4, nominal=True) -> pd.DataFrame:
    """Return a table with ``sizes`` sizes at each budget and 6 N D within 1 % of it."""
    C = np.repeat(budgets, sizes)
    N = np.tile(np.geomspace(1e7, 1e8, sizes), len(budgets))
    D = C / (6 * N) * (1 + 0.01 * np.sin(np.arange(len(C))))
    labels = [f"run{i}" for i in range(len(C))]
    return pd.DataFrame({"C": C if nominal else math.nan, "N": N, "D": D, "cluster": labels})


@pytest.mark.parametrize("nominal", [True, False])
def test_nominal_budgets_and_budgets_from_6ND(nominal):
    budgets = budget_of_runs(runs(nominal=nominal).sample(frac=1, random_state=0))
    groups = [{budgets[f"run{4 * budget + size}"] for size in range(4)} for budget in range(3)]
    assert [len(group) for group in groups] == [1, 1, 1]
    assert len(set.union(*groups)) == 3
    assert [float(group.pop()) for group in groups] == pytest.approx([1e18, 3e18, 1e19], rel=0.01)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (runs(np.geomspace(1e18, 1e19, 40)), "budgets overlap: compute rises without a gap of 10 %"),
        (runs((1e18, 1e19)), "too few budgets to resample: 2 of at least 3. Set `budget:` of each run"),
        (runs(np.geomspace(1e18, 1e20, 9), sizes=1), "runs without another run at their budget: 100 %"),
        (
            runs().assign(cluster=["a", *"bcde", *"abcdefg"]),
            "checkpoints of one run, or branches of one trunk, have several budgets: a and",
        ),
    ],
)
def test_tables_without_budgets_are_refused_with_the_cure(frame, message):
    with pytest.raises(InputError, match=message):
        budget_of_runs(frame)


def test_a_request_that_resamples_by_budget_needs_budgets():
    with pytest.raises(InputError, match="needs the budget of every run"):
        FitRequest(law=LAWS["chinchilla"], method=ResamplingMethod.BUDGET)
