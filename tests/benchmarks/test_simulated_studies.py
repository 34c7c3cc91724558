"""Simulated studies hold what they claim."""

import math

import numpy as np
import pytest
from simulated_studies import (
    CENTRE_C,
    Grid,
    NoiseDraws,
    NoiseModel,
    PlantedLaw,
    demo_study,
    design_points,
    plant,
    plant_skills,
    random_planted_law,
    simulate_study,
)

from skillscale.laws.forms.catalogue import LAWS


@pytest.mark.parametrize("kind", ["chinchilla", "drifting"])
def test_a_truth_has_its_optimum_where_it_was_put(kind):
    rng = np.random.default_rng(0)
    for _ in range(20):
        truth = random_planted_law(rng, kind=kind)
        assert truth.optimum(1.6e11) == pytest.approx(truth.N0, rel=1e-4)
        assert (truth.k == 1 and truth.g == 0) == (kind == "chinchilla")


def test_loss_at_the_optimum_is_as_asked():
    truth = PlantedLaw.at_optimum(N=4e4, C=1.6e11, L=3.0, reducible=0.4, alpha=0.5, beta=0.3, k=0.7)
    assert float(truth.loss(4e4, 1.6e11 / 6 / 4e4)) == pytest.approx(3.0)
    assert pytest.approx(1.8) == truth.E


def test_the_grid_is_the_studys():
    runs, truths = demo_study(0)
    assert len(runs) == 3 * 7 * 2
    assert list(runs.columns[:6]) == ["run_id", "C", "N", "D", "mix", "seed"]
    assert set(truths) == set(runs.columns[6:])
    np.testing.assert_allclose(6 * runs["N"] * runs["D"], runs["C"])
    assert runs["run_id"].is_unique


def test_noise_is_shared_as_asked():
    truths = {name: PlantedLaw.at_optimum(N=4e4, C=1.6e11, L=3.0, reducible=0.5, alpha=0.4, beta=0.4) for name in "ab"}
    noise = NoiseModel(run=0.01, shared=0.75, seed_level=0.0)
    runs = simulate_study(truths, np.random.default_rng(0), grid=Grid(sizes=100, seeds=10), noise=noise)
    a, b = (np.log(runs[name] / truths[name].loss(runs["N"], runs["D"])) for name in "ab")
    assert a.std() == pytest.approx(0.01, rel=0.05)
    assert np.corrcoef(a, b)[0, 1] == pytest.approx(0.75, abs=0.03)


def test_a_seeds_stream_is_the_same_at_every_size():
    truths = {"a": PlantedLaw.at_optimum(N=4e4, C=1.6e11, L=3.0, reducible=0.5, alpha=0.4, beta=0.4)}
    noise = NoiseModel(run=0.0, seed_level=0.01, seed_tilt=0.002)
    runs = simulate_study(truths, np.random.default_rng(0), noise=noise)
    error = np.log(runs["a"] / truths["a"].loss(runs["N"], runs["D"]))
    x = np.log(runs["N"] / (0.1 * np.sqrt(runs["C"])))
    for _, rows in runs.groupby("seed"):
        line = np.polyfit(x[rows.index], error[rows.index], 1)
        np.testing.assert_allclose(np.polyval(line, x[rows.index]), error[rows.index], atol=1e-6)
        assert abs(line[0]) < 0.01
        assert not math.isclose(line[1], 0.0, abs_tol=1e-6)


@pytest.mark.parametrize("name", [name for name, law in LAWS.items() if not law.joint])
def test_a_planted_study_has_its_laws_losses_and_optimum(name):
    study = plant(LAWS[name], NoiseDraws.EVEN, np.random.default_rng(0))
    theta = study.law.theta(study.q[None])
    error = np.log(study.points.L / study.law.loss(theta[0], study.points.N, study.points.D, study.points.h))
    assert error.std() == pytest.approx(0.005, rel=0.3)
    sizes = np.exp(study.log_optimum + np.array([-0.02, 0.0, 0.02]))
    losses = study.law.loss(theta[0], sizes, study.far / (6 * sizes), study.mix)
    assert losses[1] < min(losses[0], losses[2])
    assert study.far == pytest.approx(10 * (6 * study.points.N * study.points.D).max())


def planted_errors(study):
    """Of ln L about the truth, (n,)."""
    return np.log(study.points.L) - study.law.log_loss(study.q[None], study.points.covariates(study.law))[0]


@pytest.mark.parametrize("errors", NoiseDraws)
def test_a_study_of_a_joint_law_has_its_losses_and_optimum_in_every_skill(errors):
    studies = plant_skills(LAWS["capacity_competition"], errors, np.random.default_rng(0))
    assert list(studies) == ["code", "prose", "wiki"]
    for skill, study in studies.items():
        assert study.law.skill_category == skill
        np.testing.assert_array_equal(study.q, studies["code"].q)
        np.testing.assert_array_equal(study.points.labels, studies["code"].points.labels)
        assert len(study.points) == (180 if errors is NoiseDraws.CLUSTERED else 90)
        assert np.median(np.abs(planted_errors(study))) == pytest.approx(0.674 * 0.005, rel=0.45)
        sizes = np.exp(study.log_optimum + np.array([-0.02, 0.0, 0.02]))
        theta = study.law.theta(study.q[None])[0]
        losses = study.law.loss(theta, sizes, study.far / (6 * sizes), study.mix)
        assert losses[1] < min(losses[0], losses[2])


def test_half_of_a_runs_error_is_shared_by_its_skills():
    rng = np.random.default_rng(0)
    design = design_points(rng, mixed=True, checkpoints=3)
    for errors in (NoiseDraws.EVEN, NoiseDraws.CLUSTERED):
        drawn = np.array([errors.draw_skills(design, rng, np.zeros(180), skills=3)[:, ::3] for _ in range(40)])
        of_skills = np.corrcoef(drawn.swapaxes(0, 1).reshape(3, -1))
        np.testing.assert_allclose(of_skills[np.triu_indices(3, 1)], 0.5, atol=0.06)


def test_an_outlier_is_one_in_every_skill():
    drawn = NoiseDraws.OUTLIERS.draw_skills(
        design_points(np.random.default_rng(0)), np.random.default_rng(1), np.zeros(45), skills=3
    )
    high = drawn > 0.03
    assert high.any()
    np.testing.assert_array_equal(high[0], high[1])


def test_planted_errors_are_of_their_kind():
    rng = np.random.default_rng(0)
    plain, several = design_points(rng), design_points(rng, checkpoints=5)
    assert (len(plain), plain.n_clusters, len(several), several.n_clusters) == (45, 45, 150, 30)
    assert (6 * plain.N * plain.D).max() == pytest.approx(16 * CENTRE_C)
    x = np.log(plain.N / 4e4)
    uneven = np.array([NoiseDraws.UNEVEN.draw(plain, rng, x) for _ in range(400)]).std(0)
    assert uneven[x.argmin()] / uneven[x.argmax()] == pytest.approx(3, rel=0.2)
    outliers = np.array([NoiseDraws.OUTLIERS.draw(plain, rng, x) for _ in range(400)])
    assert (outliers > 0.03).mean() == pytest.approx(0.02, abs=0.004)
    shared = np.array([NoiseDraws.CLUSTERED.draw(several, rng, np.zeros(150)) for _ in range(400)])
    assert np.corrcoef(shared[:, 0], shared[:, 1])[0, 1] == pytest.approx(0.016 / (0.016 + 0.00225), abs=0.06)


def test_a_truth_at_the_edge_lies_two_sd_from_the_priors_mean():
    study = plant(LAWS["drifting"], NoiseDraws.EVEN, np.random.default_rng(0), edge=True)
    for place, prior in study.law.priors.items():
        assert abs(study.q[place] - prior.mean) == pytest.approx(2 * prior.sd)
