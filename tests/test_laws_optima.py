"""Optima of weighted skills: against plain searches, beside their truth, and with a word where there is none."""

from dataclasses import replace

import numpy as np
import pytest

from skillscale.errors import FitError
from skillscale.laws.bootstrap import Method
from skillscale.laws.catalogue import CHINCHILLA
from skillscale.laws.fitted import fit_skill, fit_together
from skillscale.laws.points import Points
from skillscale.laws.uncertainty import interval

SKILLS = {"code": [1.6, 477.0, 2143.0, 0.347, 0.367], "prose": [1.9, 300.0, 2500.0, 0.32, 0.38]}
LABELS = np.array([f"run{i:02d}" for i in range(28)])


def study(*, shared=0.0, own=0.0, seed=0, skills=SKILLS) -> dict[str, Points]:
    """7 sizes at 4 budgets; errors of a run are common to its skills (``shared``) and a skill's own."""
    rng = np.random.default_rng(seed)
    C = np.repeat([3e10, 1e11, 3e11, 1e12], 7)
    N = 0.1 * np.sqrt(C) * np.tile(np.geomspace(1 / 8, 8, 7), 4)
    D = C / (6 * N)
    common = shared * rng.normal(size=28)
    return {
        name: Points(
            N=N, D=D, L=CHINCHILLA.loss(theta, N, D) * np.exp(common + own * rng.normal(size=28)), clusters=LABELS
        )
        for name, theta in skills.items()
    }


# Draws that belong together


@pytest.mark.parametrize("method", [Method.WILD, Method.RUN, Method.LAPLACE])
def test_skills_of_the_same_runs_move_together(method):
    fitted = fit_together(study(shared=0.004), method=method, resamples=300)
    one, two = (fitted[name].log_optimum([1e12])[1][:, 0] for name in SKILLS)
    assert np.corrcoef(one, two)[0, 1] > 0.9
    apart = fit_skill("prose", study(shared=0.004)["prose"], method=method, resamples=300, seed=5)
    other = apart.log_optimum([1e12])[1][:, 0]
    width = [np.ptp(np.quantile(one - drawn, [0.05, 0.95])) for drawn in (two, other)]
    assert width[0] < 0.5 * width[1]


def test_a_skill_that_lacks_runs_stays_paired_with_the_others():
    data = study(shared=0.004)
    data["prose"] = data["prose"].take(np.arange(28) != 3)
    fitted = fit_together(data, resamples=300)
    one, two = (fitted[name].log_optimum([1e12])[1][:, 0] for name in SKILLS)
    assert np.corrcoef(one, two)[0, 1] > 0.9


@pytest.mark.parametrize("seed", range(3))
def test_draws_do_not_depend_on_the_other_skills_order(seed):
    data = study(shared=0.003, own=0.001, seed=seed)
    there = fit_together(dict(reversed(data.items())), resamples=100)
    for name, one in fit_together(data, resamples=100).items():
        np.testing.assert_array_equal(one.q, there[name].q)


def test_paired_intervals_cover():
    hits = []
    truths = [CHINCHILLA.log_optimum(np.array([theta]), 1e12)[0, 0] for theta in SKILLS.values()]
    for seed in range(30):
        fitted = fit_together(study(shared=0.004, own=0.002, seed=seed), resamples=200)
        (one, drawn), (two, other) = (fitted[name].log_optimum([1e12]) for name in SKILLS)
        found = interval(one[0] - two[0], drawn[:, 0] - other[:, 0], 0.9)
        hits.append(found.lo <= truths[0] - truths[1] <= found.hi)
    assert np.mean(hits) >= 0.8


def test_labels_that_name_other_runs_in_another_skill_are_refused():
    data = study()
    data["prose"] = replace(data["prose"], N=data["prose"].N[::-1], D=data["prose"].D[::-1], L=data["prose"].L[::-1])
    with pytest.raises(FitError, match=r"cluster run00 has N = .* in prose and .* in code"):
        fit_together(data)
