import itertools
import math
from dataclasses import replace

import pytest
import torch

from skillscale.config import load
from skillscale.errors import InputError
from skillscale.lm.model.shape import MIN_DEPTH, shape_for, size_ladder
from skillscale.lm.model.transformer import Transformer

MODEL = load().model


def nearest(n_params, vocab_size=512, model=MODEL):
    return shape_for(n_params, vocab_size=vocab_size, model=model)


@pytest.mark.parametrize("vocab_size", [512, 32_768])
@pytest.mark.parametrize("target", [1e6, 1e8, 1e10])
def test_the_model_has_the_parameters_that_its_size_counts(target, vocab_size):
    size = nearest(target, vocab_size)
    with torch.device("meta"):  # counted, not built
        model = Transformer(size, seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == size.n_params
    assert model.embed.weight.numel() == size.n_params_embed == vocab_size * size.width
    assert size.n_params == size.n_params_embed + size.n_params_nonembed
    assert size.n_params == pytest.approx(target, rel=0.12)


def test_target_sizes_are_met_within_a_tenth():
    targets = [1e4 * 1.01**step for step in range(1390)]  # to 1e10
    off = {n: nearest(n).n_params / n - 1 for n in targets}
    assert max(map(abs, off.values())) < 0.125
    assert sum(abs(ratio) > 0.1 for ratio in off.values()) < 0.05 * len(off)


@pytest.mark.parametrize("centre", [2e4, 4e4, 7e4])
def test_seven_sizes_around_an_optimum_are_distinct_and_evenly_spaced(centre):
    targets = [centre * 8 ** (step / 3 - 1) for step in range(7)]
    sizes = [nearest(n).n_params for n in targets]
    ratios = [after / before for before, after in itertools.pairwise(sizes)]
    assert all(1.5 < ratio < 2.7 for ratio in ratios)


def test_a_size_of_the_ladder_is_its_own_nearest():
    sizes = size_ladder(vocab_size=512, model=MODEL)
    totals = [size.n_params for size in sizes]
    assert totals == sorted(set(totals))
    assert [nearest(total) for total in totals] == sizes
    assert totals[0] < 1.3e4
    assert totals[-1] > 9e9


def test_depth_follows_the_rule_and_never_falls():
    sizes = size_ladder(vocab_size=512, model=MODEL)
    for size in sizes:
        ideal = MODEL.depth_coefficient * size.n_params**MODEL.depth_exponent
        assert size.depth == max(MIN_DEPTH, math.floor(ideal + 0.5))
    assert all(before.depth <= after.depth for before, after in itertools.pairwise(sizes))


def test_heads_are_even_equal_and_widen_with_the_model():
    for size in size_ladder(vocab_size=512, model=MODEL, smallest=1):
        assert size.width % (2 * size.n_heads) == 0
    assert nearest(1e6).width / nearest(1e6).n_heads == pytest.approx(32, rel=0.25)
    assert nearest(3e9).width / nearest(3e9).n_heads == 128


def test_a_fixed_depth_is_an_exponent_of_zero():
    fixed = replace(MODEL, depth_coefficient=4.0, depth_exponent=0.0)
    assert {size.depth for size in size_ladder(vocab_size=512, model=fixed, largest=1e8)} == {4}


@pytest.mark.parametrize("n_params", [100, 1e13, math.inf, math.nan])
def test_a_size_out_of_reach_is_refused_with_the_reach(n_params):
    with pytest.raises(InputError, match=r"n_params is .*models over 512 tokens have 2,452 to"):
        nearest(n_params)
