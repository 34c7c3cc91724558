"""Resamples of joint fits: paired over skills, each a full fit, and one step only where the result says so."""

from dataclasses import replace

import numpy as np
import pytest
from planted_laws import scattered

from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.fit import fit_law, refit
from skillscale.laws.fit.joint import ParameterSharing, fit_skills
from skillscale.laws.fit.request import FitRequest, fit_all
from skillscale.laws.forms.catalogue import LAWS
from skillscale.laws.uncertainty import joint_bootstrap as module
from skillscale.laws.uncertainty.bootstrap import ResamplingMethod, resampling_labels
from skillscale.laws.uncertainty.joint_bootstrap import joint_bootstrap

LAW = LAWS["chinchilla"]
FLOORS = {"code": 1.2, "prose": 1.9}
SHARED = ParameterSharing(tied=("alpha",))


def data(noise=0.01, n=40) -> dict[str, RunData]:
    """Two skills with one alpha, each of runs of its own."""
    return {name: planted(name, E, seed, noise=noise, n=n) for seed, (name, E) in enumerate(FLOORS.items())}


def planted(name, E, seed, *, noise=0.01, n=40) -> RunData:
    points = scattered(LAW, np.array([E, 477.0, 2143.0, 0.347, 0.367]), n=n, noise=noise, seed=seed)
    labels = np.array([f"{name}{at:03d}" for at in range(n)])
    return replace(points, clusters=labels, labels=labels)


def drawn(runs, method=ResamplingMethod.WILD, *, count=100, sharing=SHARED, one_step=None):
    joint = fit_skills(runs, law=LAW, objective=None, sharing=sharing)
    labels = {"labels": lambda points: resampling_labels(points, method)}
    return joint, joint_bootstrap(joint, runs, method=method, count=count, seed=0, one_step=one_step, **labels)


@pytest.mark.parametrize("method", [ResamplingMethod.WILD, ResamplingMethod.RUN, ResamplingMethod.LAPLACE])
def test_what_is_shared_is_one_value_in_every_draw(method):
    _, draws = drawn(data(), method)
    np.testing.assert_allclose(draws.q["code"][:, 3], draws.q["prose"][:, 3])
    assert draws.q["code"].shape == (100, 5)
    assert not draws.one_step


def test_each_recount_of_the_runs_is_fitted_to_its_minimum():
    """Without a common parameter a draw equals the skill's separate resample with the same counts."""
    runs = data()
    joint, draws = drawn(runs, ResamplingMethod.RUN, count=20, sharing=ParameterSharing(pooled={"alpha": 1e4}))
    labels = np.concatenate([resampling_labels(skill_runs, ResamplingMethod.RUN) for skill_runs in runs.values()])
    resamples = module.ClusterResamples.draw(labels, ResamplingMethod.RUN, count=20, seed=0)
    points = runs["code"]
    fit = fit_law(points, law=joint.fits["code"].law, objective=joint.fits["code"].objective)
    alone, _ = refit(fit, points, weights=resamples.for_clusters(np.asarray(points.labels).astype(str)))
    np.testing.assert_allclose(draws.q["code"], alone, rtol=1e-3, atol=1e-3)


def test_the_whole_way_goes_where_one_step_points_as_noise_vanishes():
    for noise, close in ((1e-5, True), (0.03, False)):
        _, step = drawn(data(noise), one_step=True)
        _, whole = drawn(data(noise))
        spread = step.q["code"].std(0)
        off = np.abs(step.q["code"] - whole.q["code"]).max(0) / spread
        assert (off.max() < 0.02) == close


def test_one_step_is_reported(monkeypatch):
    request = FitRequest(law=LAW, sharing=SHARED, resamples=100)
    assert not any("one step" in warning for warning in fit_all(data(), request)["code"].warnings)
    monkeypatch.setattr(module, "MAX_EXACT_WORK", 1000)
    for fitted in fit_all(data(), request).values():
        assert fitted.one_step
        assert any("one step of the joint curvature" in warning for warning in fitted.warnings)


@pytest.mark.slow
def test_intervals_of_a_shared_exponent_cover():
    """90 %, over 200 studies: Monte Carlo error 2 points."""
    hits = []
    for seed in range(200):
        runs = {name: planted(name, E, 2 * seed + at) for at, (name, E) in enumerate(FLOORS.items())}
        draws = fit_all(runs, FitRequest(law=LAW, sharing=SHARED, resamples=200, seed=seed))
        band, optimum = draws["code"].theta["alpha"], draws["code"].optimum(1e13)
        aim = np.exp(LAW.log_optimum(np.array([[1.2, 477.0, 2143.0, 0.347, 0.367]]), [1e13]))[0, 0]
        hits.append([band.lo <= 0.347 <= band.hi, optimum.lo <= aim <= optimum.hi])
    assert np.all(np.abs(np.mean(hits, axis=0) - 0.9) < 0.08), np.mean(hits, axis=0)
