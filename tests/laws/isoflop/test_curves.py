"""isoFLOP minima: exact on exact curves, and refused with a reason where the sizes do not show one."""

import math
import runpy

import numpy as np
import pandas as pd
import pytest
from simulated_studies import Grid, NoiseModel, PlantedLaw, random_planted_law, simulate_study

from skillscale.errors import InputError
from skillscale.laws.isoflop.curves import CURVES, find_minima, fit_isoflops, huber_pseudo_values, minimise_polynomials
from skillscale.laws.results import IsoflopMinimum, Status
from skillscale.laws.uncertainty.resamples import Resamples

BUDGETS = (5e10, 1.6e11, 5e11)


def parabolas(optima, *, curvature=0.08, skew=0.0, sizes=7, noise=0.0, span=8.0, seeds=2):
    """Runs on exact curves: ln L = 1 + curvature / 2 (x - x*)^2 + skew (x - x*)^3."""
    rng = np.random.default_rng(0)
    C, N, L, seed = [], [], [], []
    for budget, optimum in zip(BUDGETS, optima, strict=False):
        for s in range(seeds):
            for x in np.linspace(-math.log(span), math.log(span), sizes):
                away = x - math.log(optimum / 3e4)
                C.append(budget)
                N.append(3e4 * math.exp(x))
                L.append(math.exp(1 + curvature / 2 * away**2 + skew * away**3 + noise * rng.normal()))
                seed.append(s)
    return np.array(C), np.array(N), np.array(L), np.array(seed)


def minima(C, N, L, seeds, *, curve="shared", shared=None) -> list[IsoflopMinimum]:
    fit = fit_isoflops(C, N, L, seeds=seeds, curve=curve, shared=shared)
    resamples = Resamples.draw(C, 300, np.random.default_rng(1))
    errors = resamples.draw_errors(fit.residuals, fit.leverage, fit.used)
    drawn = fit.resample_minima(errors, np.random.default_rng(2).normal(size=(300, 2)))
    return find_minima(fit, drawn, level=0.9, mix="m", skill="s")


@pytest.mark.parametrize(
    ("curve", "skew"),
    [("shared", 0.0), ("shared", 0.005), ("shared", -0.005), ("quadratic", 0.0), ("cubic", 0.0), ("cubic", 0.005)],
)
def test_exact_curves_give_exact_minima(curve, skew):
    optima = (2e4, 3e4, 4.5e4)
    fitted_minima = minima(*parabolas(optima, skew=skew), curve=curve)
    assert [m.status for m in fitted_minima] == [Status.OK] * 3
    for minimum, optimum, budget in zip(fitted_minima, optima, BUDGETS, strict=True):
        assert minimum.N.value == pytest.approx(optimum, rel=1e-6)
        assert minimum.curvature.value == pytest.approx(0.08, rel=1e-6)
        assert minimum.loss == pytest.approx(math.e, rel=1e-9)
        assert minimum.curve.loss(optimum) == pytest.approx(math.e, rel=1e-9)
        assert minimum.N.lo < optimum < minimum.N.hi
        assert minimum.D.value == pytest.approx(budget / 6 / optimum)
        assert minimum.D.lo < minimum.D.value < minimum.D.hi


def test_the_level_of_a_seed_does_not_move_the_minima():
    C, N, L, seeds = parabolas((2e4, 3e4, 4.5e4), noise=0.003)
    shifted = minima(C, N, L * np.where(seeds == 1, 1.02, 1.0), seeds)
    for before, after in zip(minima(C, N, L, seeds), shifted, strict=True):
        assert after.N.value == pytest.approx(before.N.value, rel=1e-9)
        assert after.N.hi == pytest.approx(before.N.hi, rel=1e-9)


def test_the_interval_of_a_parabola_includes_its_bias():
    truth = PlantedLaw.at_optimum(N=4e4, C=1.6e11, L=3.0, reducible=0.5, alpha=0.55, beta=0.3)
    runs = simulate_study({"s": truth}, np.random.default_rng(0), noise=NoiseModel(run=0, seed_level=0))
    columns = [runs[name].to_numpy() for name in ("C", "N", "s", "seed")]
    bare, full = (minima(*columns, shared=shared) for shared in (0, None))
    for rough, fine in zip(bare, full, strict=True):
        right = truth.optimum(fine.C)
        assert abs(math.log(rough.N.value / right)) > 0.05
        assert abs(math.log(fine.N.value / right)) < 0.02
        assert math.log(rough.N.hi / rough.N.lo) > 4 * math.log(fine.N.hi / fine.N.lo)


@pytest.mark.parametrize(("curve", "degree"), [("quadratic", 2), ("cubic", 3)])
def test_a_separate_curve_is_the_least_squares_polynomial_of_its_budget(curve, degree):
    C, N, L, _ = parabolas((2e4, 3e4, 4.5e4), skew=0.004, noise=0.002)
    fit = fit_isoflops(C, N, L, curve=curve, huber=math.inf)
    bent = fit_isoflops(C, N, np.where(BUDGETS[0] == C, L**2, L), curve=curve, huber=math.inf)
    for b, budget in enumerate(BUDGETS):
        mine = budget == C
        x = np.log(N[mine]) - fit.centres[b]
        expected = np.polynomial.polynomial.polyfit(x, np.log(L[mine]), degree)
        assert fit.curve(b).coefficients == pytest.approx(tuple(expected), rel=1e-9)
    assert bent.minima()[0][1:] == pytest.approx(fit.minima()[0][1:], rel=1e-12)


@pytest.mark.parametrize("curve", CURVES)
def test_an_outlier_does_not_bend_a_curve(curve):
    C, N, L, _ = parabolas((2e4, 3e4, 4.5e4), noise=0.003)
    bad = np.where(np.arange(len(L)) == 16, 1.05 * L, L)
    moved = {}
    for huber in (2.0, math.inf):
        clean, spoilt = (fit_isoflops(C, N, loss, curve=curve, huber=huber).minima()[0] for loss in (L, bad))
        moved[huber] = np.abs(spoilt - clean).max()
    assert moved[2.0] < 0.5 * moved[math.inf]
    assert moved[2.0] < 0.06


def test_pseudo_values_have_the_huber_fit_as_least_squares_fit():
    """Psi of the residuals is orthogonal to the design, and values within delta change only by a common factor."""
    rng = np.random.default_rng(0)
    x = np.linspace(-1, 1, 60)
    design = np.column_stack([np.ones(60), x, x**2])
    log_L = design @ [1, 0.1, 0.5] + 0.01 * rng.standard_t(2, size=60)
    inverse = np.linalg.pinv(design)
    drawn = huber_pseudo_values(log_L, np.ones(60), design, inverse, huber=2.0)
    fitted = design @ (inverse @ drawn)
    residuals = log_L - fitted
    delta = 2 * 1.4826 * np.median(np.abs(residuals)) * math.sqrt(60 / 57)
    psi = np.clip(residuals, -delta, delta)
    assert design.T @ psi == pytest.approx(np.zeros(3), abs=1e-10)
    share = (np.abs(residuals) <= delta).mean()
    assert 0.5 < share < 1
    assert drawn - fitted == pytest.approx(psi / share * (1 + 3 / 60 * (1 - share) / share), rel=1e-8)
    assert (huber_pseudo_values(log_L, np.ones(60), design, inverse, huber=math.inf) == log_L).all()


def test_runs_of_a_noisy_budget_are_no_outliers():
    rng = np.random.default_rng(0)
    C = np.repeat([1.0, 2.0], 40)
    design = np.column_stack([C == 1, C == 2]).astype(float)
    log_L = rng.normal(size=80) * np.where(C == 2, 0.1, 0.005)
    drawn = huber_pseudo_values(log_L, C, design, np.linalg.pinv(design), huber=2.0)
    assert drawn[C == 2].std() == pytest.approx(log_L[C == 2].std(), rel=0.15)


def test_every_budget_moves_the_shared_skew():
    C, N, L, _ = parabolas((2e4, 3e4, 4.5e4), skew=0.004, noise=0.002)
    fit, bent = (fit_isoflops(C, N, loss) for loss in (L, np.where(BUDGETS[0] == C, L**2, L)))
    assert len(fit.curve(1).coefficients) == 5
    assert np.abs(bent.minima()[0][1:] - fit.minima()[0][1:]).min() > 1e-4


def test_a_cubic_needs_one_more_size():
    runs = parabolas((2e4, 3e4, 4.5e4), sizes=4)
    assert fit_isoflops(*runs[:3], curve="cubic") is None
    assert fit_isoflops(*runs[:3], curve="quadratic") is not None


def test_an_unknown_curve_is_refused_with_the_list_of_curves():
    with pytest.raises(InputError, match=r"'quartic'\. Use one of shared, quadratic, cubic"):
        fit_isoflops(*parabolas((2e4,))[:3], curve="quartic")


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize(
    ("runs", "status", "words"),
    [
        (parabolas((2e6, 2e6, 2e6)), Status.NOT_BRACKETED, "still falls at the largest size"),
        (parabolas((500, 500, 500)), Status.NOT_BRACKETED, "still falls at the smallest size"),
        (parabolas((2e4, 3e4, 4e4), curvature=-0.08), Status.CONCAVE, "no minimum"),
        (parabolas((3e4, 3e4, 3e4), curvature=1e-5, noise=0.01), Status.TOO_FLAT, "neither end"),
        (parabolas((2.38e5, 2.38e5, 2.38e5), noise=0.005), Status.NOT_BRACKETED, "the largest size"),
    ],
)
def test_refusals(curve, runs, status, words):
    fitted_minima = minima(*runs, curve=curve)
    assert status in {m.status for m in fitted_minima}
    for minimum in fitted_minima:
        assert minimum.status is not Status.OK
        assert minimum.reason
        assert not minimum.N.is_finite
        assert math.isnan(minimum.loss)
        assert minimum.curve is not None
    assert any(words in m.reason for m in fitted_minima)


@pytest.mark.parametrize("curve", CURVES)
def test_a_curve_through_noise_rarely_has_a_minimum(curve):
    rng, taken = np.random.default_rng(0), []
    C, N, _, seeds = parabolas((3e4, 3e4, 3e4))
    for _ in range(60):
        taken += [
            m.status is Status.OK for m in minima(C, N, np.exp(1 + 0.01 * rng.normal(size=len(C))), seeds, curve=curve)
        ]
    assert np.mean(taken) < 0.08


def test_three_sizes_make_no_curve():
    C, N, L, seeds = parabolas((2e4,), sizes=3)
    assert fit_isoflops(C, N, L, seeds=seeds) is None


def test_a_budget_of_three_sizes_is_reported_as_excluded():
    C, N, L, seeds = parabolas((2e4, 3e4, 4.5e4))
    keep = ~((BUDGETS[0] == C) & (1.01 * np.unique(N)[2] < N))
    fitted_minima = minima(C[keep], N[keep], L[keep], seeds[keep])
    assert [m.status for m in fitted_minima] == [Status.TOO_FEW, Status.OK, Status.OK]
    assert (fitted_minima[0].n_sizes, fitted_minima[0].n_runs) == (3, 6)
    assert fitted_minima[1].N.value == pytest.approx(3e4, rel=1e-6)


def test_minima_of_polynomials_agree_with_a_fine_search():
    rng = np.random.default_rng(0)
    c = np.concatenate(
        [rng.normal(size=(200, 1, 2)), 1 + rng.random((200, 1, 1)), 0.2 * rng.normal(size=(200, 1, 2))], 2
    )
    x, curvature = minimise_polynomials(c, np.array([2.0]))
    grid = np.linspace(-2, 2, 40001)
    for k in range(200):
        values = np.polynomial.polynomial.polyval(grid, c[k, 0])
        if math.isinf(x[k, 0]):
            continue
        assert np.polynomial.polynomial.polyval(x[k, 0], c[k, 0]) <= values[np.abs(grid - x[k, 0]) < 0.2].min() + 1e-12
        assert curvature[k, 0] > 0
    assert np.isfinite(x).mean() > 0.9


def test_shared_skew_beats_the_parabola_on_random_truths():
    rng = np.random.default_rng(4)
    errors = {0: [], 1: [], 2: []}
    for _ in range(40):
        truth = random_planted_law(rng, kind="drifting")
        runs = simulate_study({"s": truth}, rng, grid=Grid(), noise=NoiseModel(run=0.003))
        right = np.log([truth.optimum(C) for C in BUDGETS])
        for shared, errors_of_shape in errors.items():
            fit = fit_isoflops(*(runs[n].to_numpy() for n in ("C", "N", "s")), seeds=runs["seed"], shared=shared)
            errors_of_shape.append(fit.minima()[0] - right)
    rmse = {shared: float(np.sqrt(np.mean(np.square(errors_of_shape)))) for shared, errors_of_shape in errors.items()}
    assert rmse[2] < rmse[1] < 0.5 * rmse[0]
    assert rmse[2] < 0.03


PUBLISHED = {  # (alpha, beta, drift): error of D* at 1e24 FLOP in %, by the span of the grid
    (0.34, 0.28, 1): {2: -0.33, 4: -1.30, 8: -2.90, 16: -5.10},
    (0.465, 0.155, 1): {2: -1.67, 4: -6.50, 8: -13.91, 16: -23.12},
    (0.34, 0.28, 3): {2: 11.61},
    (0.465, 0.155, 3): {2: 34.57},
}


def test_the_published_bias_of_approach_2_is_reproduced_to_a_hundredth(root):
    table = runpy.run_path(str(root / "benchmarks" / "approach2_bias.py"))["table"]()
    kept = pd.read_csv(root / "benchmarks" / "results" / "approach2_bias.csv")
    assert table["error_percent"].to_numpy() == pytest.approx(kept["error_percent"].to_numpy(), abs=0.005)
    cells = {tuple(key): rows.set_index("method") for key, rows in table.groupby(["alpha", "beta", "drift", "span"])}
    for setting, errors in PUBLISHED.items():
        for span, error in errors.items():
            assert cells[*setting, span].loc["quadratic on L", "error_percent"] == pytest.approx(error, abs=0.0051)
    for (*_, drift, span), rows in cells.items():
        assert abs(rows.loc["law", "error_percent"]) < 0.005
        assert set(rows.loc[list(CURVES), "bracketed"]) == {3 if (drift, span) == (3, 2) else 5}
        if drift == 1:
            assert abs(rows.loc["cubic", "error_percent"]) < 0.05 * abs(rows.loc["quadratic", "error_percent"])


GRID = Grid(sizes=9, seeds=1, span=4)


def planted(noise, *, seed, ends=0.0):
    """A study with one seed; ``ends``: excess loss of the largest size of every budget."""
    rng = np.random.default_rng(seed)
    truth = random_planted_law(rng)
    runs = simulate_study({"skill": truth}, rng, grid=GRID, noise=NoiseModel(run=noise, seed_level=0))
    largest = runs["N"] == runs.groupby("C")["N"].transform("max")
    runs["skill"] *= 1 + ends * largest
    return [runs[column].to_numpy() for column in ("C", "N", "skill")], np.log([truth.optimum(C) for C in GRID.budgets])


def root_mean_square(columns_and_truths, **settings):
    errors = [fit_isoflops(*columns, **settings).minima()[0] - right for columns, right in columns_and_truths]
    return float(np.sqrt(np.mean(np.square(np.clip(errors, -2, 2)))))


def test_sizes_that_are_trained_badly_at_the_end_are_left_out():
    studies = [planted(0.002, seed=seed, ends=0.04) for seed in range(12)]
    parabola = root_mean_square(studies, curve="quadratic")
    assert root_mean_square(studies) < 0.7 * parabola < root_mean_square(studies, shared=2)
    columns, _ = studies[0]
    fit = fit_isoflops(*columns)
    assert fit.without_ends
    assert fit.used.sum() == len(fit.used) - 2 * len(GRID.budgets)
    noted = minima(*columns, None)
    assert any(minimum.status is Status.OK for minimum in noted)
    assert all("smallest and largest sizes" in minimum.reason for minimum in noted if minimum.status is Status.OK)


def test_ends_of_sound_budgets_stay():
    fits = [fit_isoflops(*planted(0.002, seed=seed)[0]) for seed in range(20)]
    assert sum(fit.without_ends for fit in fits) <= 1


def test_noisy_budgets_get_fewer_shared_powers():
    studies = [planted(0.01, seed=seed) for seed in range(20)]
    assert np.mean([fit_isoflops(*columns).shared for columns, _ in studies]) < 1
    assert root_mean_square(studies) < root_mean_square(studies, shared=2)
