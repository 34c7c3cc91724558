"""The largest shift over compositions of a validation set: bounds that cover, with and without a difference."""

import math

import numpy as np
import pytest
from simulated_studies import demo_study

from skillscale.errors import InputError
from skillscale.laws.isoflop.study import fit_study
from skillscale.laws.results import Status
from skillscale.laws.skills.validation_shift import composition_shifts, composition_table, range_bounds

SKILLS = ["knowledge", "code", "prose"]


def coverage(truth: np.ndarray, sd: np.ndarray, shared: float, *, studies: int = 400) -> tuple[float, float, float]:
    """Share of intervals that contain the range, share with a lower bound that is too high, and mean plug-in range."""
    rng = np.random.default_rng(0)
    held, above, plug_in = [], [], []
    right = np.ptp(truth)
    for _ in range(studies):
        value = truth + sd * rng.normal(size=len(truth)) + shared * rng.normal()
        draws = value + sd * rng.normal(size=(300, len(truth))) + shared * rng.normal(size=(300, 1))
        lo, hi = range_bounds(value, draws, 0.9)
        held.append(lo <= right <= hi)
        above.append(lo > right)
        plug_in.append(np.ptp(value))
    return float(np.mean(held)), float(np.mean(above)), float(np.mean(plug_in))


@pytest.mark.parametrize("truth", [np.zeros(6), np.array([0, 0, 0, 0, 0, 0.3]), np.linspace(0, 0.1, 6)])
def test_bounds_cover_the_range(truth):
    """Of 400 studies a 90 % interval that covered 86 % would be off by 2.7 standard errors."""
    held, above, plug_in = coverage(truth, np.array([0.02, 0.02, 0.02, 0.05, 0.05, 0.05]), 0.1)
    assert held >= 0.86
    assert above <= 0.08
    assert plug_in > np.ptp(truth)


def test_without_a_difference_the_interval_starts_at_zero():
    rng = np.random.default_rng(1)
    lows = []
    for _ in range(200):
        value = 0.05 * rng.normal(size=8)
        lows.append(range_bounds(value, value + 0.05 * rng.normal(size=(300, 8)), 0.9)[0])
    assert np.mean(np.array(lows) == 0) >= 0.9


def test_a_clear_difference_has_a_bound_near_it():
    rng = np.random.default_rng(2)
    value = np.array([0.0, 0.5])
    lo, hi = range_bounds(value, value + 0.02 * rng.normal(size=(20000, 2)), 0.9)
    half = 1.6449 * 0.02 * math.sqrt(2)
    # the lower bound is of two one-sided ones at once: the quantile of |error| at .95
    assert lo == pytest.approx(0.5 - 1.9600 * 0.02 * math.sqrt(2), abs=0.001)
    assert hi == pytest.approx(0.5 + half, abs=0.001)


def test_a_study_has_the_shift_and_its_columns():
    runs, truths = demo_study(0)
    fits = fit_study(runs, skills=SKILLS, aggregates=["aggregate"], resamples=300, laws={})
    shifts = composition_shifts(fits, SKILLS)
    assert [result.C for result in shifts] == [5e10, 1.6e11, 5e11]
    for result in shifts:
        right = math.expm1(np.ptp([math.log(truths[name].optimum(result.C)) for name in SKILLS]))
        assert result.largest.lo < right < result.largest.hi
        assert result.largest.lo > 0
        assert result.bias > 0
        assert result.extremes == ("code", "knowledge")
    assert {"shift_lo", "bias", "smallest"} <= set(composition_table(shifts))


def test_a_refused_column_is_reported_as_excluded():
    runs, _ = demo_study(0)
    low = (runs["C"] == 5e10) & (runs["N"] > 2e4)
    fits = fit_study(
        runs.assign(code=runs["code"].where(~low)), skills=SKILLS, aggregates=["aggregate"], resamples=300, laws={}
    )
    first, *rest = composition_shifts(fits, SKILLS)
    assert first.columns == ("knowledge", "prose")
    assert first.reason.startswith("without code (")
    assert all(len(result.columns) == 3 for result in rest)
    (alone, *_) = composition_shifts(fits, ["code", "prose"])
    assert alone.status is Status.TOO_FEW
    assert not alone.largest.is_finite


def test_invalid_requests_are_refused():
    runs, _ = demo_study(0)
    fits = fit_study(runs, skills=SKILLS, aggregates=[], resamples=100, laws={})
    with pytest.raises(InputError, match="too few columns for a composition: code"):
        composition_shifts(fits, ["code"])
    with pytest.raises(InputError, match="maths was not fitted"):
        composition_shifts(fits, ["code", "maths"])
