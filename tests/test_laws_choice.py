"""The choice of law by held-out larger runs, and forecasts whose intervals hold as many new runs as they say."""

import numpy as np
import pytest
from planted_laws import CATEGORIES, CENTRE, bound, truth

from skillscale.laws.catalogue import LAWS
from skillscale.laws.choice import (
    LATE,
    Candidate,
    candidates,
    choose,
    fitted_points,
    forecast,
    inner_splits,
    late_enough,
    mix_labels,
    reach,
)
from skillscale.laws.forms import Law
from skillscale.laws.points import Points

SIZES = np.exp(CENTRE[0]) * np.array([1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4])
MIXES = np.random.default_rng(7).dirichlet(np.full(3, 2.0), 12) * 0.94 + 0.02


def grid(law: Law, theta, *, sizes=SIZES, noise=0.003, offset=0.0, seed=0) -> Points:
    """Each size on six numbers of tokens; with a mixture law each of them with two mixes of twelve."""
    rng = np.random.default_rng(seed)
    D = np.exp(CENTRE[1]) * np.geomspace(1 / 8, 8, 6)
    rows = [(N, tokens, mix) for N in sizes for at, tokens in enumerate(D) for mix in (2 * at, 2 * at + 1)]
    N, tokens, mix = (np.array(column) for column in zip(*rows, strict=True))
    h = MIXES[mix]
    own = offset * np.random.default_rng(3).normal(size=len(MIXES))
    L = law.loss(theta, N, tokens, h) * np.exp(own[mix] + noise * rng.normal(size=len(N)))
    return Points(N=N, D=tokens, L=L, h=h if law.needs_mix else None, categories=CATEGORIES if law.needs_mix else ())


def without_mix(points: Points) -> Points:
    return Points(N=points.N, D=points.D, L=points.L)


def test_the_larger_sizes_are_held_out_and_never_fitted():
    points = grid(bound("chinchilla"), truth("chinchilla"))
    (first_low, first_high), (low, high) = inner_splits(points)
    assert points.N[first_low].max() < points.N[first_high].min() == points.N.max()
    assert points.N[low].max() < points.N[high].min() == np.unique(points.N)[-2]
    assert not (low & (points.N.max() == points.N)).any()


def test_where_sizes_are_many_compute_divides():
    rng = np.random.default_rng(0)
    N, D = np.exp(rng.uniform(10, 16, (2, 100)))
    [(low, high)] = inner_splits(Points(N=N, D=D, L=np.ones(100)))
    assert (N * D)[low].max() < (N * D)[high].min()
    assert high.sum() == 20


def test_the_family_that_made_the_runs_is_taken():
    strongly = np.array([1.8, 0.5, 0.6, 0.4, 0.37, 0.45, 0.1])
    drifting = without_mix(grid(bound("drifting"), strongly))
    assert choose({"code": drifting}).taken.law.name == "drifting"
    plain = without_mix(grid(bound("chinchilla"), truth("chinchilla")))
    assert choose({"code": plain}).taken.law.name == "chinchilla"


def test_a_mix_that_matters_is_seen_to():
    points = grid(bound("separable"), truth("separable"))
    choice = choose({"code": points})
    assert choice.taken.law.name == "separable"
    names = [trial.candidate.law.name for trial in choice.trials]
    assert choice.trials[names.index("chinchilla")].error > 3 * choice.trials[names.index("separable")].error


def test_without_larger_runs_to_hold_out_the_simplest_law_is_taken():
    points = without_mix(grid(bound("chinchilla"), truth("chinchilla"), sizes=SIZES[:2]))
    choice = choose({"code": points})
    assert (choice.taken.law.name, choice.trials, choice.excess) == ("chinchilla", (), 0.0)


def test_a_law_that_is_named_is_taken_whatever_its_error():
    points = without_mix(grid(bound("drifting"), np.array([1.8, 0.5, 0.6, 0.4, 0.37, 0.45, 0.1])))
    choice = choose({"code": points}, LAWS["chinchilla"])
    assert choice.taken.law.name == "chinchilla"
    assert choice.excess > 0


def test_forecasts_of_larger_runs_cover():
    law, theta = bound("chinchilla"), truth("chinchilla")
    hits = []
    for seed in range(25):
        points = without_mix(grid(law, theta, seed=seed))
        low, high = points.take(SIZES[-1] > points.N), points.take(SIZES[-1] == points.N)
        hits.append(forecast("code", low, high, Candidate(law=LAWS["chinchilla"])).covers(high.L, 0.9).mean())
    assert 0.86 < np.mean(hits) < 0.99


def test_the_offset_of_a_mix_that_was_run_before_moves_its_forecast():
    law, theta = bound("separable"), truth("separable")
    points = grid(law, theta, noise=0.001, offset=0.02)
    low, high = points.take(SIZES[-1] > points.N), points.take(SIZES[-1] == points.N)
    told = forecast("code", low, high, Candidate(law=LAWS["separable"]))
    plain = told.fit.law.log_loss(told.fit.q[None], high.covariates(told.fit.law))[0]
    assert np.abs(told.told - high.log_L).mean() < 0.4 * np.abs(plain - high.log_L).mean()
    assert told.covers(high.L, 0.9).mean() > 0.8


def test_checkpoints_before_their_share_and_copies_of_the_last_are_left_out():
    D = np.array([1.0, 4.0, 5.0, 10.0, 9.99, 2.0, 4.0])
    L = np.array([5.0, 4.0, 3.9, 3.0, 3.0, 6.0, 5.0])
    points = Points(N=np.full(7, 1e6), D=D * 1e9, L=L, clusters=np.array(list("aaaaabb")))
    assert late_enough(points, 0.0).tolist() == [True, True, True, True, False, True, True]
    assert late_enough(points, LATE).tolist() == [False, False, True, True, False, True, True]
    assert len(fitted_points(points, Candidate(law=LAWS["chinchilla"], late=LATE))) == 4
    assert {one.late for one in candidates({"code": points})} == {0.0, LATE}


def test_reach_is_how_far_beyond_the_runs():
    points = without_mix(grid(bound("chinchilla"), truth("chinchilla")))
    N, D = points.N.max(), points.D.max()
    new = Points(N=np.array([N * np.e, N, N / 2]), D=np.array([D * np.e, D / np.e, D]), L=np.ones(3))
    assert reach(points, new).clip(min=0) == pytest.approx([2.0, 0.0, 0.0])


def test_mixes_are_known_by_their_shares():
    points = grid(bound("separable"), truth("separable"))
    assert len(set(mix_labels(points))) == len(MIXES)
