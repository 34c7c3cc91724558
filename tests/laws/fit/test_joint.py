"""Several skills fitted together: tied is one value, fixed is a given value, pooled scatters about a mean."""

import numpy as np
import pytest
from planted_laws import CATEGORIES, CENTRE, bound, scattered, truth
from simulated_studies import NoiseDraws, plant_skills

from skillscale.errors import FitError, InputError
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.fit import fit_law
from skillscale.laws.fit.joint import ParameterSharing, fit_skills
from skillscale.laws.fit.newton import minimise
from skillscale.laws.forms.catalogue import LAWS
from skillscale.laws.uncertainty.bootstrap import ResamplingMethod, resampling_labels
from skillscale.laws.uncertainty.joint_bootstrap import joint_bootstrap
from skillscale.laws.uncertainty.resamples import interval

LAW = LAWS["chinchilla"]
SKILLS = {"code": (1.2, 0.40), "prose": (1.9, 0.34), "wiki": (1.5, 0.31)}


def data(noise=0.0, n=60) -> dict[str, RunData]:
    """Three skills with one alpha and beta, and E and beta of their own."""
    return {
        name: scattered(LAW, np.array([E, 477.0, 2143.0, 0.347, beta]), n=n, noise=noise, seed=seed)
        for seed, (name, (E, beta)) in enumerate(SKILLS.items())
    }


def test_skills_that_share_nothing_are_fitted_as_if_alone():
    runs = data(noise=0.01)
    together = fit_skills(runs, law=LAW)
    for name, points in runs.items():
        assert together.fits[name].parameters == pytest.approx(fit_law(points, law=LAW).parameters, rel=1e-4)


def test_a_shared_exponent_is_one_value_and_comes_back():
    joint_fit = fit_skills(data(), law=LAW, sharing=ParameterSharing(tied=("alpha",)))
    assert len({fit.parameters["alpha"] for fit in joint_fit.fits.values()}) == 1
    for name, fit in joint_fit.fits.items():
        assert fit.parameters["alpha"] == pytest.approx(0.347, rel=1e-6)
        assert fit.parameters["beta"] == pytest.approx(SKILLS[name][1], rel=1e-6)
    assert joint_fit.starts.agree == joint_fit.starts.tried


def test_sharing_an_exponent_tells_it_better():
    """Over many noisy studies the shared alpha scatters less than a skill's own."""
    separate, shared = [], []
    for seed in range(12):
        runs = {
            name: scattered(LAW, np.array([E, 477.0, 2143.0, 0.347, beta]), n=30, noise=0.01, seed=100 * seed + at)
            for at, (name, (E, beta)) in enumerate(SKILLS.items())
        }
        separate.append(fit_law(runs["code"], law=LAW, objective=None).parameters["alpha"])
        shared.append(
            fit_skills(runs, law=LAW, objective=None, sharing=ParameterSharing(tied=("alpha",))).fits["code"].theta[3]
        )
    assert np.std(shared) < 0.8 * np.std(separate)


def test_a_pinned_parameter_is_what_was_given():
    joint_fit = fit_skills(data(), law=LAW, sharing=ParameterSharing(fixed={"E": 1.5}, tied=("beta",)))
    assert [fit.parameters["E"] for fit in joint_fit.fits.values()] == pytest.approx([1.5] * 3, rel=1e-12)
    alone = fit_law(data()["wiki"], law=LAW, fixed={"E": 1.5})
    assert alone.parameters["E"] == pytest.approx(1.5, rel=1e-12)
    assert alone.parameters["alpha"] == pytest.approx(0.347, rel=1e-6)


def test_pooling_lies_between_own_values_and_one_shared():
    runs = data(noise=0.02)

    def scatter(sharing):
        return np.ptp([fit.parameters["beta"] for fit in fit_skills(runs, law=LAW, sharing=sharing).fits.values()])

    separate, tight = scatter(ParameterSharing()), scatter(ParameterSharing(pooled={"beta": 1e-3}))
    middle = scatter(ParameterSharing(pooled={"beta": 0.03}))
    assert tight < 0.2 * middle
    assert middle < separate
    assert scatter(ParameterSharing(pooled={"beta": 100.0})) == pytest.approx(separate, rel=1e-2)


def test_transfer_can_be_shared_where_categories_are_weighed():
    law = bound("effective_data")
    runs = {name: scattered(law, truth("effective_data"), n=80, seed=at) for at, name in enumerate(("code", "prose"))}
    joint_fit = fit_skills(runs, law=LAWS["effective_data"], sharing=ParameterSharing(tied=("transfer",)))
    t = [[fit.parameters[f"t_{category}"] for category in CATEGORIES] for fit in joint_fit.fits.values()]
    np.testing.assert_allclose(t, [[1.6, 0.4, 1.0]] * 2, rtol=1e-5)


def test_capacity_competition_comes_back_from_the_losses_of_all_categories():
    theta = truth("capacity_competition")
    law = LAWS["capacity_competition"]
    runs = {name: scattered(law.bind(*CENTRE, CATEGORIES).for_skill(name), theta, n=60, seed=3) for name in CATEGORIES}
    joint_fit = fit_skills(runs, law=law)
    for fit in joint_fit.fits.values():
        np.testing.assert_allclose(fit.theta, theta, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("errors", [NoiseDraws.EVEN, NoiseDraws.CLUSTERED])
def test_intervals_of_laws_of_all_skills_cover(errors):
    """Of every exponent and of ln L at 10 times the compute, in 25 studies: 90 % but for 5 points by chance."""
    hits = []
    for seed in range(25):
        study = plant_skills(LAWS["capacity_competition"], errors, np.random.default_rng(seed))
        data = {name: simulated.points for name, simulated in study.items()}
        joint = fit_skills(data, law=LAWS["capacity_competition"], objective=None)
        for name, q in joint_bootstrap(
            joint, data, labels=lambda points: resampling_labels(points, ResamplingMethod.WILD), count=200, seed=seed
        ).q.items():
            simulated = study[name]
            N = np.exp(simulated.log_optimum)
            place = simulated.law.covariates([N], [simulated.far / (6 * N)], simulated.mix)
            at, of_draws, aim = (
                np.column_stack([x[:, [6, 7, 8, 12, 13, 14]], simulated.law.log_loss(x, place)])
                for x in (joint.fits[name].q[None], q, simulated.q[None])
            )
            bands = [interval(at[0, j], of_draws[:, j], 0.9) for j in range(7)]
            hits += [band.lo <= value <= band.hi for band, value in zip(bands, aim[0], strict=True)]
    assert 0.83 < np.mean(hits) < 0.96


def test_no_step_lowers_the_joint_objective():
    joint_fit = fit_skills(data(noise=0.01), law=LAW, sharing=ParameterSharing(tied=("alpha",), pooled={"E": 0.2}))
    again, F, _ = minimise(joint_fit.problem, joint_fit.Q[None] + 1e-3)
    assert F[0] == pytest.approx(joint_fit.F, rel=1e-9)
    np.testing.assert_allclose(again[0], joint_fit.Q, atol=1e-5)


@pytest.mark.parametrize(
    ("sharing", "message"),
    [
        ({"tied": ("E",), "fixed": {"E": 1.0}}, "E can be fixed, tied or pooled, but not several"),
        ({"pooled": {"E": 0.0}}, "the sd of pooled E must be above 0"),
    ],
)
def test_contradictions_are_refused(sharing, message):
    with pytest.raises(InputError, match=message):
        ParameterSharing(**sharing)


def test_a_name_that_the_law_does_not_have_is_refused():
    with pytest.raises(
        InputError,
        match=r"gamma of chinchilla can't be tied or pooled over skills\. Choose one of: E, alpha, beta, exponents",
    ):
        fit_skills(data(), law=LAW, sharing=ParameterSharing(tied=("gamma",)))


def test_no_skill_at_all():
    with pytest.raises(FitError, match="no skill to fit"):
        fit_skills({}, law=LAW)
