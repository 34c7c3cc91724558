"""Verdicts decided on one split and confirmed on another, Holm's p, and the runs that a claim needs."""

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
    by_skill = {verdict.skill: verdict for verdict in confirmed_verdicts(fits, SPLITS)}
    assert {name: verdict.confirmation for name, verdict in by_skill.items()} == {
        "hungry": Confirmation.CONFIRMED, "turned": Confirmation.CONTRADICTED, "alone": Confirmation.NOT_CONFIRMED,
        "none": Confirmation.NOTHING,
    }  # fmt: skip
    assert (by_skill["hungry"].verdict, by_skill["alone"].verdict) == (Verdict.CAPACITY, Verdict.DATA)
    assert by_skill["none"].verdict is Verdict.UNRESOLVED
    assert math.isnan(by_skill["none"].held_out.p_holm)  # what was not asked is in no family


def test_holms_families_are_skills_and_data_sets(fits):
    verdicts = confirmed_verdicts(fits, SPLITS)
    np.testing.assert_allclose(
        [result.hypothesis.p_holm for result in verdicts], holm(np.array([result.hypothesis.p for result in verdicts]))
    )
    sets = [result.held_out_sets[0] for result in verdicts]
    np.testing.assert_allclose([result.p_holm for result in sets], holm(np.array([result.p for result in sets])))
    table = confirmed_verdict_table(verdicts)
    assert len(table) == 4 * 4
    assert table.groupby(["split", "level"]).size().tolist() == [4, 4, 4, 4]


def test_an_interval_without_zero_is_no_verdict_if_holms_p_is_large(fits):
    """p = 0.06 for one of four: the single interval at 90 % excludes zero, but Holm's p is too large."""
    weak = [replace(r, p=0.06) if r.pooled and r.skill in ("hungry", "turned", "alone") else r for r in fits.size_gaps]
    verdicts = confirmed_verdicts(replace(fits, size_gaps=tuple(weak)), SPLITS)
    assert {result.verdict for result in verdicts} == {Verdict.UNRESOLVED}
    assert verdicts[0].hypothesis.value.excludes_zero


def test_unknown_columns_and_aggregates_are_refused(fits):
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


def test_the_predicted_number_of_seeds_resolves_the_gap():
    """The half width predicted for f times the seeds is the one that f times the seeds give."""
    gaps = {"skill": 0.06, "aggregate": 0.0}
    required, few, many = [], [], []
    for seed in range(12):
        single, four = (
            fit_study(
                runs_of(gaps, seed=seed, seeds=seeds, noise=0.01), skills=["skill"], aggregates=["aggregate"],
                resamples=200, laws={},
            )
            for seeds in (2, 8)
        )  # fmt: skip
        few.append(required_runs(single)[0].noise)
        many.append(required_runs(four)[0].noise)
        required.append(required_runs(single, delta=0.05)[0])
    assert np.median(few) / np.median(many) == pytest.approx(2, rel=0.25)
    assert all(needs.form == pytest.approx(math.hypot(0.008, 0.008), rel=1e-3) for needs in required)
    first = required[0]
    assert first.to_delta == pytest.approx(max(1.0, first.noise**2 / ((0.05 / 1.6449) ** 2 - first.form**2)), rel=1e-3)
    assert first.to_resolve_surely >= first.to_resolve >= 1
    assert "to_resolve_surely" in required_runs_table(required)


def test_an_effect_below_the_error_of_the_form_needs_infinite_runs(fits):
    (needs,) = (needs for needs in required_runs(fits) if needs.skill == "none")
    assert abs(needs.value.value) < 1.645 * needs.form
    assert math.isinf(needs.to_resolve)
    with pytest.raises(InputError, match="delta must be a positive"):
        required_runs(fits, delta=0)
