"""The benchmark of verdicts plants the differences that it documents."""

import math
import runpy

import numpy as np
import pytest


@pytest.fixture
def bench(root) -> dict:
    return runpy.run_path(str(root / "benchmarks" / "skill_verdicts.py"))


@pytest.mark.parametrize("grid", ["paper", "night", "ablation"])
def test_planted_optima(bench, grid):
    sizes = bench["GRIDS"][grid]()
    for shapes in ("alike", "differ"):
        truths = bench["skills_of"](sizes, {"aggregate": 0.0, "knowledge": 0.115, "code": -0.085}, shapes)
        for C, sizes_at_budget in zip(sizes.budgets, sizes.sizes, strict=True):
            common = sizes.N * (C / sizes.C) ** sizes.a
            assert truths["aggregate"].optimum(C) == pytest.approx(common, rel=1e-4)
            assert math.log(truths["knowledge"].optimum(C) / common) == pytest.approx(0.115, abs=1e-4)
            assert math.log(truths["code"].optimum(C) / common) == pytest.approx(-0.085, abs=1e-4)
            assert min(sizes_at_budget) < 0.6 * common < 1.6 * common < max(sizes_at_budget)


def test_the_papers_grid_is_as_it_is_told(bench):
    sizes = bench["GRIDS"]["paper"]()
    counts = [len(sizes_at_budget) for sizes_at_budget in sizes.sizes]
    assert (len(counts), counts[0], counts[-1]) == (9, 15, 10)
    assert sizes.N * (3e21 / sizes.C) ** sizes.a == pytest.approx(4.9e9)


def test_planted_errors_are_shared_as_told(bench):
    sizes, rng = bench["GRIDS"]["ablation"](), np.random.default_rng(0)
    truths = bench["skills_of"](sizes, {"a": 0.0, "b": 0.0}, "alike")
    noise = bench["StudyNoise"](run=0.01, across=0.5)
    runs = bench["simulate"]({"m": truths, "n": truths}, sizes, 200, noise, rng)
    true = truths["a"].loss(runs["N"], runs["D"])
    error = np.log(runs[["a", "b"]].to_numpy() / true[:, None]).T.reshape(2, 2, 2, -1)  # skill, budget, mix, run
    assert error.std() == pytest.approx(0.01, rel=0.03)
    assert np.corrcoef(error[0, 0, 0], error[1, 0, 0])[0, 1] == pytest.approx(0.5, abs=0.05)
    assert np.corrcoef(error[0, 0, 0], error[0, 0, 1])[0, 1] == pytest.approx(0.5, abs=0.05)
    assert np.corrcoef(error[0, 0, 0], error[1, 0, 1])[0, 1] == pytest.approx(0.25, abs=0.06)
    assert abs(np.corrcoef(error[0, 0, 0], error[0, 1, 0])[0, 1]) < 0.1
