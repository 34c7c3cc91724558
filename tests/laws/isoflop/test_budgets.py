"""Budgets of runs: given or computed from 6 N D, and refused where they cannot be resampled."""

import math

import numpy as np
import pandas as pd
import pytest

from skillscale.errors import InputError
from skillscale.laws.fit.request import FitRequest
from skillscale.laws.forms.catalogue import LAWS
from skillscale.laws.isoflop.budgets import budget_of_runs
from skillscale.laws.isoflop.study import usable_runs
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


def usable(frame: pd.DataFrame, **columns: object) -> tuple[pd.DataFrame, list[str]]:
    """Return the runs that isoFLOP curves use, and the ids of those that miss their budget."""
    whole = frame.assign(run_id=frame["cluster"], mix="all", seed=0, loss=3.0, **columns)
    kept, excluded = usable_runs(whole, ["loss"])
    return kept, [run.run_id for run in excluded]


def test_flops_that_are_counted_otherwise_are_budgets_shown_in_6ND():
    plain = runs().assign(D=lambda frame: frame["C"] / (6 * frame["N"]))
    kept, missed = usable(plain, C=plain["C"] / 3)  # 2 N D
    assert missed == []
    assert sorted(set(kept["C"])) == pytest.approx([1e18, 3e18, 1e19])
    attention = 2.5 * (plain["N"] / 1e7) ** -0.15
    kept, missed = usable(plain, D=plain["D"] / attention)
    assert missed == []
    assert kept.groupby("C")["N"].nunique().to_list() == [4, 4, 4]


def test_a_budget_of_few_sizes_is_counted_as_the_others_are():
    plain = runs().assign(D=lambda frame: frame["C"] / (6 * frame["N"]))
    attention = 2.5 * (plain["N"] / 1e7) ** -0.15
    few = plain.assign(D=plain["D"] / attention).drop(index=[9])
    kept, missed = usable(few)
    assert missed == []
    assert len(kept) == 11


def test_a_run_that_stopped_early_misses_its_budget_however_flops_are_counted():
    plain = runs().assign(D=lambda frame: frame["C"] / (6 * frame["N"]))
    plain.loc[6, "D"] *= 0.4
    assert usable(plain)[1] == ["run6"]
    kept, missed = usable(plain, C=plain["C"] / 3)
    assert missed == ["run6"]
    assert sorted(set(kept["C"])) == pytest.approx([1e18, 3e18, 1e19])


def test_flops_of_each_run_that_differ_by_little_are_one_budget():
    own = runs()
    kept, missed = usable(own, C=6 * own["N"] * own["D"])
    assert missed == []
    assert sorted(set(kept["C"])) == pytest.approx([1e18, 3e18, 1e19], rel=0.01)
    nominal, _ = usable(own)
    assert sorted(set(nominal["C"])) == [1e18, 3e18, 1e19]
