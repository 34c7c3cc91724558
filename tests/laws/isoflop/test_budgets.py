"""Budgets of runs: told, or found from 6 N D, and refused where they can't be resampled."""

import math

import numpy as np
import pandas as pd
import pytest

from skillscale.errors import InputError
from skillscale.laws.fit.request import FitRequest
from skillscale.laws.forms.catalogue import LAWS
from skillscale.laws.isoflop.budgets import budget_of_runs
from skillscale.laws.uncertainty.bootstrap import ResamplingMethod


def runs(budgets=(1e18, 3e18, 1e19), *, sizes=4, told=True) -> pd.DataFrame:
    """So many sizes at each budget, 6 N D within 1 % of it."""
    C = np.repeat(budgets, sizes)
    N = np.tile(np.geomspace(1e7, 1e8, sizes), len(budgets))
    D = C / (6 * N) * (1 + 0.01 * np.sin(np.arange(len(C))))
    labels = [f"run{i}" for i in range(len(C))]
    return pd.DataFrame({"C": C if told else math.nan, "N": N, "D": D, "cluster": labels})


@pytest.mark.parametrize("told", [True, False])
def test_budgets_are_told_or_found(told):
    found = budget_of_runs(runs(told=told).sample(frac=1, random_state=0))
    groups = [{found[f"run{4 * budget + size}"] for size in range(4)} for budget in range(3)]
    assert [len(group) for group in groups] == [1, 1, 1]
    assert len(set.union(*groups)) == 3
    assert [float(group.pop()) for group in groups] == pytest.approx([1e18, 3e18, 1e19], rel=0.01)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (runs(np.geomspace(1e18, 1e19, 40)), "can't be told apart: compute rises without a gap of 10%"),
        (runs((1e18, 1e19)), "2 budgets can't be resampled; it takes 3: tell each run's under `budget:`"),
        (runs(np.geomspace(1e18, 1e20, 9), sizes=1), "100% of the runs are alone at their budget"),
        (runs().assign(cluster=["a", *"bcde", *"abcdefg"]), "checkpoints of one run lie at several budgets"),
    ],
)
def test_what_cant_be_resampled_by_budget_is_refused_with_the_cure(frame, message):
    with pytest.raises(InputError, match=message):
        budget_of_runs(frame)


def test_a_request_by_budget_needs_them():
    with pytest.raises(InputError, match="needs the budget of every run"):
        FitRequest(law=LAWS["chinchilla"], method=ResamplingMethod.BUDGET)
