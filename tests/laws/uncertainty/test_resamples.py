"""Shared resamples and the intervals made of them."""

import numpy as np
import pytest

from skillscale.laws.results import Interval
from skillscale.laws.uncertainty.resamples import Resamples, holm, interval, two_sided_p

GROUPS = np.repeat([1.0, 2.0], 7)


def test_a_line_through_noise_is_covered():
    """Slope of 7 + 7 points with its interval: Student's width, not the normal's."""
    rng = np.random.default_rng(0)
    x = np.tile(np.linspace(-2, 2, 7), 2)
    design = np.column_stack([np.ones(14), x])
    inverse = np.linalg.pinv(design)
    leverage = np.einsum("np,pn->n", design, inverse)
    hits = []
    for _ in range(300):
        y = 0.5 * x + rng.normal(size=14)
        line = inverse @ y
        errors = Resamples.draw(GROUPS, 300, rng).draw_errors(y - design @ line, leverage, np.ones(14, dtype=bool))
        band = interval(line[1], line[1] + errors @ inverse[1], 0.9)
        hits.append(band.lo <= 0.5 <= band.hi)
    assert 0.86 <= np.mean(hits) <= 0.96


def test_skills_share_their_errors():
    rng = np.random.default_rng(0)
    resamples = Resamples.draw(GROUPS, 200, rng)
    residuals, everywhere = rng.normal(size=14), np.ones(14, dtype=bool)
    first = resamples.draw_errors(residuals, np.full(14, 0.2), everywhere)
    two = resamples.draw_errors(2 * residuals, np.full(14, 0.2), everywhere)
    np.testing.assert_allclose(two, 2 * first)


def test_errors_stay_within_their_group():
    residuals = np.where(GROUPS == 1, 1.0, 0.0)
    errors = Resamples.draw(GROUPS, 50, np.random.default_rng(0)).draw_errors(
        residuals, np.zeros(14), np.ones(14, dtype=bool)
    )
    assert np.all(errors[:, GROUPS == 2] == 0)
    assert np.all(errors[:, GROUPS == 1] != 0)


def test_a_missing_skill_takes_its_errors_from_the_runs_that_have_it():
    present = np.ones(14, dtype=bool)
    present[[2, 9]] = False
    errors = Resamples.draw(GROUPS, 100, np.random.default_rng(0)).draw_errors(np.ones(12), np.zeros(12), present)
    assert errors.shape == (100, 12)
    assert np.all(errors != 0)


def test_runs_of_one_trunk_take_their_errors_together_from_one_other_trunk():
    trunks = np.tile(np.arange(7), 2)
    residuals = np.concatenate([np.arange(1.0, 8), 10 * np.arange(1.0, 8)])
    resamples = Resamples.draw(GROUPS, 400, np.random.default_rng(0), clusters=trunks)
    errors = resamples.draw_errors(residuals, np.zeros(14), np.ones(14, dtype=bool))
    np.testing.assert_allclose(errors[:, 7:], 10 * errors[:, :7])
    assert len(np.unique(np.round(errors[:, 0] / errors[:, 1], 9))) > 20, "different trunks draw apart"
    spread = errors[:, 0].std() / np.sqrt(np.mean(residuals[:7] ** 2))
    assert spread == pytest.approx(np.sqrt(7 / 5), rel=0.25), "Student's tails, 7 degrees of freedom"


def test_a_trunk_without_a_run_at_a_budget_leaves_the_others_their_own():
    trunks = np.array([0, 1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6, 7])
    resamples = Resamples.draw(GROUPS, 200, np.random.default_rng(0), clusters=trunks)
    other = resamples.donors != np.arange(14)
    assert np.all(GROUPS[resamples.donors] == GROUPS)
    both = other[:, 1] & other[:, 7]
    assert np.all(trunks[resamples.donors[both, 1]] == trunks[resamples.donors[both, 7]])
    assert other.mean() > 0.6


def test_trunks_of_one_run_each_are_no_trunks():
    first = Resamples.draw(GROUPS, 20, np.random.default_rng(0), clusters=np.arange(14))
    other = Resamples.draw(GROUPS, 20, np.random.default_rng(0))
    assert np.array_equal(first.donors, other.donors)
    assert np.array_equal(first.signs, other.signs)


def test_holm_by_hand():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm(np.array([0.6, 0.5])), [1.0, 1.0])
    assert len(holm(np.array([]))) == 0


def test_p_never_claims_more_than_the_draws_can_tell():
    assert two_sided_p(np.ones(999)) == pytest.approx(2 / 1000)
    assert two_sided_p(np.linspace(-1, 1, 1001)) == 1.0
    assert np.isnan(two_sided_p(np.array([np.nan])))


def test_an_interval_needs_its_draws():
    assert interval(1.0, np.linspace(0, 2, 1001), 0.9) == Interval(
        value=1.0, lo=pytest.approx(0.1), hi=pytest.approx(1.9)
    )
    assert not interval(1.0, np.append(np.ones(50), np.full(50, np.inf)), 0.9).is_finite
    assert not interval(np.nan, np.ones(100), 0.9).is_finite


def test_a_part_of_the_runs_has_the_luck_of_the_whole():
    """Runs of one mix take their errors from the cells that the other mix takes them from, where it has them."""
    whole = Resamples.draw(GROUPS, 300, np.random.default_rng(0))
    everything = whole.select(np.arange(14))
    np.testing.assert_array_equal(everything.donors, whole.donors)
    np.testing.assert_array_equal(everything.signs, whole.signs)
    runs = np.array([12, 0, 1, 2, 4, 5, 6, 7, 8, 9, 10])  # lacks cells 3, 11 and 13, in an order of its own
    part = whole.select(runs)
    assert set(np.unique(part.donors)) == set(range(len(runs)))
    taken = runs[part.donors]
    expected = whole.donors[:, runs]
    there = np.isin(expected, runs)
    np.testing.assert_array_equal(taken[there], expected[there])
    assert np.all(GROUPS[taken] == GROUPS[runs])
    np.testing.assert_array_equal(part.signs, whole.signs[:, runs])
    np.testing.assert_array_equal(part.groups, [1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1])
