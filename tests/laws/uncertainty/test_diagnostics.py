"""Diagnostics report what is wrong with a fit, with a cure, and rarely raise a false alarm."""

from dataclasses import replace

import numpy as np
import pytest
from planted_laws import bound, scattered, truth
from simulated_studies import NoiseDraws, design_points, plant

from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.fit import fit_law
from skillscale.laws.fit.objective import LEAST_SQUARES
from skillscale.laws.fit.skill_law import fit_skill
from skillscale.laws.forms.catalogue import CHINCHILLA, LAWS
from skillscale.laws.results import MultiStart
from skillscale.laws.uncertainty.bootstrap import ResamplingMethod, draw_parameters
from skillscale.laws.uncertainty.diagnostics import diagnose_fit, residual_pattern_p

THETA = np.array([1.8, 60.0, 120.0, 0.41, 0.37])


def _texts(*arguments):
    return [diagnosis.text for diagnosis in diagnose_fit(*arguments)]


def study(rows: slice = slice(None), noise: float = 0.005, seed: int = 0) -> RunData:
    points = design_points(np.random.default_rng(0)).take(np.arange(45)[rows])
    error = np.random.default_rng(seed).normal(scale=noise, size=len(points))
    return replace(points, L=CHINCHILLA.loss(THETA, points.N, points.D) * np.exp(error))


def reports(points: RunData, word: str, law=CHINCHILLA) -> bool:
    return any(word in reason for reason in _texts(fit_law(points, law=law, objective=None), points))


@pytest.mark.parametrize("errors", [NoiseDraws.EVEN, NoiseDraws.CLUSTERED])
def test_a_form_that_does_not_hold_is_reported_and_one_that_does_is_not(errors):
    """A Chinchilla fit to coupled terms and a drifting exponent, and to a Chinchilla truth."""
    shares = {}
    for name in ("chinchilla", "drifting"):
        reported = []
        for seed in range(30):
            study = plant(LAWS[name], errors, np.random.default_rng(seed), edge=name == "drifting")
            fit = fit_law(study.points, objective=None, starts=2)
            reported.append(any("Residuals depend on N and D" in reason for reason in _texts(fit, study.points)))
        shares[name] = np.mean(reported)
    assert shares["chinchilla"] <= 0.1
    assert shares["drifting"] >= 0.6


def test_chance_alone_makes_no_pattern():
    """P of two columns of noise is uniform: below .1 in a tenth of the studies."""
    rng = np.random.default_rng(0)
    p = []
    for seed in range(100):
        points = study(seed=seed)
        fit = fit_law(points, objective=LEAST_SQUARES, starts=1)
        p.append(residual_pattern_p(fit, points, rng.normal(size=(45, 2))))
    assert np.mean(np.array(p) < 0.1) == pytest.approx(0.1, abs=0.07)
    assert np.mean(np.array(p) < 0.5) == pytest.approx(0.5, abs=0.15)


def test_a_planted_pattern_is_found():
    points = study()
    column = np.random.default_rng(1).choice([-1.0, 1.0], size=45)
    spoilt = replace(points, L=points.L * np.exp(0.005 * column))
    assert residual_pattern_p(fit_law(spoilt, objective=None), spoilt, column[:, None]) < 1e-3


@pytest.mark.parametrize(("p", "says"), [(5e-4, "is misspecified"), (2e-3, "is perhaps misspecified"), (0.03, "")])
def test_what_one_of_many_tests_may_find_by_chance_is_hedged(monkeypatch, p, says):
    monkeypatch.setattr("skillscale.laws.uncertainty.diagnostics.residual_pattern_p", lambda *_: p)
    points = study()
    reported = " ".join(_texts(fit_law(points, objective=None, starts=1), points))
    assert ("Residuals depend on N and D" in reported, says in reported) == (bool(says), True)


def test_few_runs_are_reported():
    assert reports(study(slice(0, 45, 5)), "Only 9 independent runs")
    assert not reports(study(), "independent runs")


def test_an_outlier_is_reported():
    points = study()
    points.L[7] *= 1.06
    assert reports(points, "1 of 45 runs are more than 5 sd from the law")


def test_a_mix_that_the_law_ignores_is_reported():
    points = scattered(bound("separable"), truth("separable"), noise=0.003)
    assert reports(points, "Residuals depend on the mix")
    assert not reports(points, "Residuals depend on the mix", LAWS["separable"])


def test_noise_that_changes_with_size_is_reported():
    points = design_points(np.random.default_rng(0))
    points = RunData(N=np.tile(points.N, 5), D=np.tile(points.D, 5), L=np.ones(225))
    x = np.log(points.N) - np.log(points.N).mean()
    error = np.random.default_rng(0).normal(size=225) * 0.004 * np.exp(-0.5 * x)
    assert reports(replace(points, L=CHINCHILLA.loss(THETA, points.N, points.D) * np.exp(error)), "The noise changes")


def test_starts_that_disagree_are_reported():
    points = study()
    fit = fit_law(points, objective=None)
    lonely = replace(fit, starts=MultiStart(tried=6, agree=2, gap=3.0))
    assert any("2 of 6 starts" in reason for reason in _texts(lonely, points))
    rival = replace(fit, starts=MultiStart(tried=6, agree=5, gap=1e-4))
    assert any("Another optimum fits as well" in reason for reason in _texts(rival, points))
    assert not any("start" in reason or "optimum" in reason for reason in _texts(fit, points))


def test_failed_and_skewed_draws_are_reported():
    points = study()
    fit = fit_law(points, objective=None)
    q = draw_parameters(fit, points, method=ResamplingMethod.LAPLACE, count=400)
    assert not _texts(fit, points, q)
    lost, lopsided = q.copy(), q.copy()
    lost[:40] = np.nan
    assert any("10 % of the resamples" in reason for reason in _texts(fit, points, lost))
    lopsided[:, 0] -= 10 * np.maximum(fit.q[0] - q[:, 0], 0)
    assert any("draws of ln E are skewed" in reason for reason in _texts(fit, points, lopsided))


def test_a_parameter_that_a_prior_determines_is_reported():
    points = scattered(bound("drifting"), truth("drifting"), n=40, noise=0.08, seed=3)
    reported = fit_skill("a", points, law=LAWS["drifting"], resamples=60)
    assert any("Weak priors" in reason and "ln k" in reason for reason in reported.warnings)


@pytest.mark.parametrize(
    ("name", "method", "nonlinear"),
    [
        ("additive_mixture", ResamplingMethod.LAPLACE, True),
        ("additive_mixture", ResamplingMethod.WILD, False),
        ("chinchilla", ResamplingMethod.LAPLACE, False),
        ("effective_data", ResamplingMethod.LAPLACE, False),
    ],
)
def test_draws_that_move_the_losses_nonlinearly_are_reported(name, method, nonlinear):
    """Poorly determined parameters bend one-step draws. Wild draws are fitted to the losses."""
    study = plant(LAWS[name], NoiseDraws.EVEN, np.random.default_rng(1))
    fit = fit_law(study.points, law=study.law, objective=None, starts=2)
    q = draw_parameters(fit, study.points, method=method, count=200)
    assert any("linear approximation is poor" in reason for reason in _texts(fit, study.points, q)) == nonlinear
