"""Verdicts decided on one split and confirmed on another; Holm's family; how many runs a claim takes."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from simulated_studies import Grid, NoiseModel, PlantedLaw, simulate_study

from skillscale.errors import InputError
from skillscale.laws.isoflop.study import fit_study
from skillscale.laws.results import StudyResults, Verdict
from skillscale.laws.skills.verdicts import (
    Confirmation,
    SkillColumns,
    confirmed_verdict_table,
    confirmed_verdicts,
    replicates,
    required_runs,
    required_runs_table,
)
from skillscale.laws.uncertainty.resamples import holm

GAPS = {
    "hungry": 0.3, "hungry_out": 0.3, "turned": 0.3, "turned_out": -0.3, "alone": -0.3, "alone_out": 0.0, "none": 0.0,
    "none_out": 0.3, "aggregate": 0.0,
}  # fmt: skip
SPLITS = [
    SkillColumns(skill=name, hypothesis=name, held_out=out, hypothesis_sets=(name,), held_out_sets=(out,))
    for name, out in ((name, f"{name}_out") for name in ("hungry", "turned", "alone", "none"))
]


def runs_of(gaps: dict[str, float], *, seed: int = 0, seeds: int = 2, noise: float = 0.003) -> pd.DataFrame:
    truths = {
        name: PlantedLaw.at_optimum(N=4e4 * math.exp(gap), C=1.6e11, L=3, reducible=0.5, alpha=0.4, beta=0.4)
        for name, gap in gaps.items()
    }
    return simulate_study(
        truths, np.random.default_rng(seed), grid=Grid(seeds=seeds), noise=NoiseModel(run=noise, seed_level=0)
    )


@pytest.fixture(scope="module")
def fits() -> StudyResults:
    names = [name for name in GAPS if name != "aggregate"]
    return fit_study(runs_of(GAPS), skills=names, aggregates=["aggregate"], resamples=400, laws={})


def test_verdicts_are_confirmed_contradicted_or_not(fits):
    told = {one.skill: one for one in confirmed_verdicts(fits, SPLITS)}
    assert {name: one.confirmation for name, one in told.items()} == {
        "hungry": Confirmation.CONFIRMED, "turned": Confirmation.CONTRADICTED, "alone": Confirmation.NOT_CONFIRMED,
        "none": Confirmation.NOTHING,
    }  # fmt: skip
    assert (told["hungry"].verdict, told["alone"].verdict) == (Verdict.CAPACITY, Verdict.DATA)
    assert told["none"].verdict is Verdict.UNRESOLVED
    assert math.isnan(told["none"].held_out.p_holm)  # what was not asked is in no family


def test_holms_families_are_skills_and_data_sets(fits):
    told = confirmed_verdicts(fits, SPLITS)
    np.testing.assert_allclose(
        [one.hypothesis.p_holm for one in told], holm(np.array([one.hypothesis.p for one in told]))
    )
    sets = [one.held_out_sets[0] for one in told]
    np.testing.assert_allclose([one.p_holm for one in sets], holm(np.array([one.p for one in sets])))
    table = confirmed_verdict_table(told)
    assert len(table) == 4 * 4
    assert table.groupby(["split", "level"]).size().tolist() == [4, 4, 4, 4]


def test_an_interval_that_excludes_zero_is_no_verdict_where_holm_denies_it(fits):
    """p = .06 of one in four: its own interval at 90 % excludes zero, the family's does not."""
    weak = [replace(r, p=0.06) if r.pooled and r.skill in ("hungry", "turned", "alone") else r for r in fits.size_gaps]
    told = confirmed_verdicts(replace(fits, size_gaps=tuple(weak)), SPLITS)
    assert {one.verdict for one in told} == {Verdict.UNRESOLVED}
    assert told[0].hypothesis.value.excludes_zero


def test_columns_and_aggregates_that_are_not_there_are_refused(fits):
    with pytest.raises(InputError, match="maths has no size gap"):
        confirmed_verdicts(fits, [SkillColumns(skill="maths", hypothesis="maths", held_out="none")])
    with pytest.raises(InputError, match="unknown aggregate: other"):
        confirmed_verdicts(fits, SPLITS, aggregate="other")
    with pytest.raises(InputError, match="no mix other"):
        confirmed_verdicts(fits, SPLITS, mix="other")


def test_replicates_by_hand():
    assert replicates(0.05, 0.1, 0.0) == pytest.approx(4)
    assert replicates(0.05, 0.1, 0.03) == pytest.approx(0.01 / 0.0016)
    assert replicates(0.2, 0.1, 0.0) == 1.0
    assert math.isinf(replicates(0.03, 0.1, 0.03))


def test_more_seeds_resolve_what_was_told_to_take_them():
    """The half width that was promised for f times the seeds is what f times the seeds give."""
    gaps = {"skill": 0.06, "aggregate": 0.0}
    told, few, many = [], [], []
    for seed in range(12):
        one, four = (
            fit_study(
                runs_of(gaps, seed=seed, seeds=seeds, noise=0.01), skills=["skill"], aggregates=["aggregate"],
                resamples=200, laws={},
            )
            for seeds in (2, 8)
        )  # fmt: skip
        few.append(required_runs(one)[0].noise)
        many.append(required_runs(four)[0].noise)
        told.append(required_runs(one, delta=0.05)[0])
    assert np.median(few) / np.median(many) == pytest.approx(2, rel=0.25)
    assert all(each.form == pytest.approx(math.hypot(0.008, 0.008), rel=1e-3) for each in told)
    first = told[0]
    assert first.to_delta == pytest.approx(max(1.0, first.noise**2 / ((0.05 / 1.6449) ** 2 - first.form**2)), rel=1e-3)
    assert first.to_resolve_surely >= first.to_resolve >= 1
    assert "to_resolve_surely" in required_runs_table(told)


def test_an_effect_below_the_forms_error_takes_no_number_of_runs(fits):
    (one,) = (one for one in required_runs(fits) if one.skill == "none")
    assert abs(one.value.value) < 1.645 * one.form
    assert math.isinf(one.to_resolve)
    with pytest.raises(InputError, match="delta must be a positive"):
        required_runs(fits, delta=0)
