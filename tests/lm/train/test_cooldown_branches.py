"""Runs that branch from one stable phase: the same bits as runs alone, whoever trained the stable phase."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from skillscale.config import load
from skillscale.errors import InputError
from skillscale.lm.model.shape import shape_for
from skillscale.lm.train import cooldown_branches, hyperparameters
from skillscale.lm.train.cooldown_branches import cooldown_branch
from skillscale.lm.train.loop import TrainingInterrupted, train
from skillscale.lm.train.stable_phase import StablePhaseCheckpoint, StablePhaseLease
from skillscale.point import DesignPoint, Mix

CONFIG = replace(load().train, schedule="wsd", batch_coefficient=1.4)
MODEL = replace(load().model, context=32)
SIZE = shape_for(6e3, vocab_size=300, model=MODEL)
SHORT, MIDDLE, LONG = 1_300, 4_000, 9_000


class Counting:
    """Sequence i counts upward from i in steps of i % 5, and counts the sequences it returned."""

    def __init__(self):
        self.returned = 0

    def batch(self, first, count):
        self.returned += count
        index = np.arange(first, first + count)[:, None]
        return (index + np.arange(33) * (index % 5)) % 300


def trained(n_tokens, *, lease=None, seed=0, config=CONFIG, stream=None, **more):
    point = DesignPoint(n_params=SIZE.n_params, n_tokens=n_tokens, mix=Mix({"code": 1.0}), seed=seed)
    plan = cooldown_branches.branch_plan(point, SIZE, config, context=32)
    return train(point, size=SIZE, optimizer_plan=plan, stream=stream or Counting(), config=config, lease=lease, **more)


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def same(run, other):
    return torch.equal(weights(run.model), weights(other.model)) and run.curve == other.curve


def branched(path, n_tokens, *, is_reused=True, **more):
    with StablePhaseLease(StablePhaseCheckpoint(path=path, is_reused=is_reused)) as lease:
        return trained(n_tokens, lease=lease, **more)


def of(n_tokens, config=CONFIG, context=32, n_params_nonembed=5_000):
    return cooldown_branch(n_tokens, n_params_nonembed, config, context=context)


def test_longer_runs_begin_as_shorter_ones_up_to_their_forks():
    runs = [of(n_tokens) for n_tokens in (SHORT, MIDDLE, LONG, 100_000)]
    assert len({int(np.diff(run.offsets)[-1]) for run in runs}) > 2, "the batch must grow, or this proves nothing"
    for short, long in itertools.combinations(runs, 2):
        assert short.fork < long.fork
        assert np.array_equal(short.offsets[:-1], long.offsets[: short.steps])
        assert [short.rate(step) for step in range(short.fork + 1)] == [
            long.rate(step) for step in range(short.fork + 1)
        ]


@pytest.mark.parametrize("n_tokens", [256 * 7, 30_000, 1_000_001, 10**9])
def test_d_and_the_share_of_the_decay_are_met_to_a_batch(n_tokens):
    settings = replace(load().train, schedule="wsd")
    run = of(n_tokens, settings, context=256, n_params_nonembed=30_000)
    last = int(np.diff(run.offsets).max()) * 256
    assert abs(int(run.offsets[-1]) * 256 - n_tokens) <= last / 2 + 256
    assert abs(int(run.offsets[run.fork]) - 0.8 * int(run.offsets[-1])) * 256 <= last / 2 + 1


def test_batch_and_rate_are_those_of_the_rule_at_the_tokens_seen():
    settings = replace(load().train, schedule="wsd")
    run = of(3_000_000, settings, context=256, n_params_nonembed=30_000)
    batches = np.diff(run.offsets)
    for step in range(100, run.fork, 37):
        seen = int(run.offsets[step]) * 256
        target = (
            cooldown_branches.BATCH_FACTOR * settings.batch_coefficient * seen**settings.batch_tokens_exponent / 256
        )
        assert 2**-0.51 < batches[step] / max(target, 1) < 2**0.51
        after = int(run.offsets[step + 1]) * 256
        assert run.rate(step) == cooldown_branches.LR_FACTOR * hyperparameters.learning_rate(30_000, after, settings)
    falling = [run.rate(step) for step in range(run.fork + 1, run.steps)]
    assert all(later < earlier for earlier, later in itertools.pairwise(falling))
    assert falling[-1] < 0.1 * falling[0]


def test_a_batch_that_does_not_grow_is_refused():
    with pytest.raises(InputError, match=r"batch_tokens_exponent above 0.*it is -0\.1"):
        of(SHORT, replace(CONFIG, batch_tokens_exponent=-0.1))


def test_a_branch_is_bit_for_bit_the_run_that_was_trained_alone(tmp_path):
    path = tmp_path / "phases" / "one.pt"
    for n_tokens in (SHORT, MIDDLE, LONG):
        stream = Counting()
        branch, alone = branched(path, n_tokens, is_reused=n_tokens < LONG, stream=stream), trained(n_tokens)
        assert same(branch, alone)
        assert (alone.n_inherited, branch.n_tokens) == (0, alone.n_tokens)
        assert stream.returned * 32 == branch.n_tokens - branch.n_inherited, (
            "the tokens counted as spent are the tokens trained on"
        )
        assert (branch.n_inherited > 0) == (n_tokens > SHORT)


def test_a_lost_or_damaged_stable_phase_is_trained_again_and_counted(tmp_path):
    path = tmp_path / "one.pt"
    branched(path, SHORT)
    path.unlink()
    again = branched(path, MIDDLE)
    assert again.n_inherited == 0
    path.write_bytes(b"half a check")
    last = branched(path, LONG)
    assert last.n_inherited == 0
    assert same(last, trained(LONG))


def test_a_shorter_run_after_a_longer_one_keeps_the_stable_phase(tmp_path):
    path = tmp_path / "one.pt"
    branched(path, MIDDLE)
    before = path.read_bytes()
    late = branched(path, SHORT)
    assert same(late, trained(SHORT))
    assert late.n_inherited == 0
    assert path.read_bytes() == before


def test_another_stable_phase_is_not_used(tmp_path):
    path = tmp_path / "one.pt"
    branched(path, SHORT, seed=1)
    assert same(branched(path, MIDDLE), trained(MIDDLE))


@pytest.mark.parametrize("from_fork", [-3, 3])
def test_a_stopped_branch_resumes(tmp_path, from_fork):
    path, checkpoint = tmp_path / "one.pt", tmp_path / "own.pt"
    first = branched(path, SHORT)
    assert first.n_inherited == 0
    calls = iter(range(of(MIDDLE).fork + from_fork - of(SHORT).fork))
    with pytest.raises(TrainingInterrupted):
        branched(path, MIDDLE, checkpoint=checkpoint, should_stop=lambda: next(calls, None) is None)
    resumed = branched(path, MIDDLE, checkpoint=checkpoint)
    assert same(resumed, trained(MIDDLE))
    assert resumed.n_inherited > 0
    assert branched(path, LONG).n_inherited > resumed.n_inherited, "the resumed run left the stable phase at its fork"


def test_a_deleted_stable_phase_leaves_no_file(tmp_path):
    file = StablePhaseCheckpoint(path=tmp_path / "one.pt", is_reused=True)
    branched(file.path, SHORT)
    assert file.path.exists()
    file.delete()
    assert list(tmp_path.iterdir()) == []
