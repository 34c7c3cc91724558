import math

import pytest
import torch
from torch.nn import functional

from skillscale.config import load
from skillscale.lm.model.shape import shape_for
from skillscale.lm.model.transformer import Transformer, rotary_angles, rotate

MODEL = load().model


def built(n_params=3e4, seed=0):
    return Transformer(shape_for(n_params, vocab_size=512, model=MODEL), seed=seed)


def some_ids(rows=2, length=64):
    return torch.randint(0, 512, (rows, length), generator=torch.Generator().manual_seed(0))


def test_later_tokens_leave_earlier_logits():
    model, ids = built(), some_ids()
    changed = ids.clone()
    changed[:, 40:] = (changed[:, 40:] + 1) % 512
    with torch.no_grad():
        before, after = model(ids), model(changed)
    torch.testing.assert_close(before[:, :40], after[:, :40])
    assert (before[:, 40:] - after[:, 40:]).abs().amin(dim=(0, 2)).max() > 0


def test_earlier_tokens_reach_later_logits_in_their_order():
    model = built()
    ids = some_ids(rows=1)
    swapped = ids.clone()
    swapped[0, [3, 9]] = ids[0, [9, 3]]
    with torch.no_grad():
        assert not torch.allclose(model(ids)[0, -1], model(swapped)[0, -1], atol=1e-5)


@pytest.mark.parametrize("n_params", [6e3, 1e5, 3e6])
def test_training_begins_at_the_loss_of_a_uniform_guess(n_params):
    ids = some_ids(rows=4, length=128)
    with torch.no_grad():
        loss = functional.cross_entropy(built(n_params)(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    assert float(loss) == pytest.approx(math.log(512) + 1 / 8, abs=0.2)


def test_gradients_reach_every_weight():
    model = built(1e5)
    model(some_ids()).logsumexp(-1).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_the_seed_decides_the_weights():
    first, again, other = (built(seed=seed).embed.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_stream_keeps_its_scale_through_depth():
    """With residual branches scaled by depth, a deep model's stream doesn't outgrow a shallow one's."""
    scales = []
    for n_params in (5e4, 3e6):
        model = built(n_params)
        streams = []
        model.norm.register_forward_pre_hook(lambda _, inputs, seen=streams: seen.append(inputs[0]))
        with torch.no_grad():
            model(some_ids())
        scales.append(float(streams[0].std()))
    assert scales[1] == pytest.approx(scales[0], rel=0.5)


def test_rotary_products_depend_on_distance_alone():
    cos, sin = rotary_angles(32, 8)
    query, key = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    queries, keys = (rotate(vector.expand(1, 1, 32, 8), cos, sin)[0, 0] for vector in (query, key))
    torch.testing.assert_close(queries[5] @ keys[2], queries[30] @ keys[27])
    torch.testing.assert_close(queries[0], query)
