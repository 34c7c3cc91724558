"""Branches of one trunk: the same bits as runs of their own, whoever trained the trunk; and its file."""

import itertools
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from skillscale.config import load
from skillscale.errors import InputError
from skillscale.lm.model.shape import shape_for
from skillscale.lm.train import cooldown_branches, hyperparameters
from skillscale.lm.train.cooldown_branches import StablePhaseCheckpoint, StablePhaseLease, cooldown_branch
from skillscale.lm.train.loop import TrainingInterrupted, train
from skillscale.point import DesignPoint, Mix

CONFIG = replace(load().train, schedule="trunk", batch_coefficient=1.4)
MODEL = replace(load().model, context=32)
SIZE = shape_for(6e3, vocab_size=300, model=MODEL)
SHORT, MIDDLE, LONG = 1_300, 4_000, 9_000


class Counting:
    """Sequence i counts upward from i in steps of i % 5, and remembers which sequences were asked for."""

    def __init__(self):
        self.asked = 0

    def batch(self, first, count):
        self.asked += count
        index = np.arange(first, first + count)[:, None]
        return (index + np.arange(33) * (index % 5)) % 300


def trained(n_tokens, *, turn=None, seed=0, config=CONFIG, stream=None, **more):
    point = DesignPoint(n_params=SIZE.n_params, n_tokens=n_tokens, mix=Mix({"code": 1.0}), seed=seed)
    plan = cooldown_branches.branch_plan(point, SIZE, config, context=32)
    return train(point, size=SIZE, optimizer_plan=plan, stream=stream or Counting(), config=config, turn=turn, **more)


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def same(one, other):
    return torch.equal(weights(one.model), weights(other.model)) and one.curve == other.curve


def branched(path, n_tokens, *, goes_on=True, **more):
    with StablePhaseLease(StablePhaseCheckpoint(path=path, goes_on=goes_on)) as turn:
        return trained(n_tokens, turn=turn, **more)


def of(n_tokens, config=CONFIG, context=32, n_params_nonembed=5_000):
    return cooldown_branch(n_tokens, n_params_nonembed, config, context=context)


def test_longer_runs_begin_as_shorter_ones_up_to_their_forks():
    runs = [of(n_tokens) for n_tokens in (SHORT, MIDDLE, LONG, 100_000)]
    assert len({int(np.diff(run.firsts)[-1]) for run in runs}) > 2, "the batch must grow for this to tell anything"
    for short, long in itertools.combinations(runs, 2):
        assert short.fork < long.fork
        assert np.array_equal(short.firsts[:-1], long.firsts[: short.steps])
        assert [short.rate(step) for step in range(short.fork + 1)] == [
            long.rate(step) for step in range(short.fork + 1)
        ]


@pytest.mark.parametrize("n_tokens", [256 * 7, 30_000, 1_000_001, 10**9])
def test_d_and_the_share_of_the_decay_are_met_to_a_batch(n_tokens):
    settings = replace(load().train, schedule="trunk")
    run = of(n_tokens, settings, context=256, n_params_nonembed=30_000)
    last = int(np.diff(run.firsts).max()) * 256
    assert abs(int(run.firsts[-1]) * 256 - n_tokens) <= last / 2 + 256
    assert abs(int(run.firsts[run.fork]) - 0.8 * int(run.firsts[-1])) * 256 <= last / 2 + 1


def test_batch_and_rate_are_those_of_the_rule_at_the_tokens_seen():
    settings = replace(load().train, schedule="trunk")
    run = of(3_000_000, settings, context=256, n_params_nonembed=30_000)
    batches = np.diff(run.firsts)
    for step in range(100, run.fork, 37):
        seen = int(run.firsts[step]) * 256
        wanted = (
            cooldown_branches.BATCH_FACTOR * settings.batch_coefficient * seen**settings.batch_tokens_exponent / 256
        )
        assert 2**-0.51 < batches[step] / max(wanted, 1) < 2**0.51
        after = int(run.firsts[step + 1]) * 256
        assert run.rate(step) == cooldown_branches.LR_FACTOR * hyperparameters.learning_rate(30_000, after, settings)
    falling = [run.rate(step) for step in range(run.fork + 1, run.steps)]
    assert all(later < earlier for earlier, later in itertools.pairwise(falling))
    assert falling[-1] < 0.1 * falling[0]


def test_a_batch_that_does_not_grow_is_refused():
    with pytest.raises(InputError, match=r"batch_tokens_exponent, which must be above 0, but it is -0\.1"):
        of(SHORT, replace(CONFIG, batch_tokens_exponent=-0.1))


def test_a_branch_is_bit_for_bit_the_run_that_was_trained_alone(tmp_path):
    path = tmp_path / "trunks" / "one.pt"
    for n_tokens in (SHORT, MIDDLE, LONG):
        stream = Counting()
        one, alone = branched(path, n_tokens, goes_on=n_tokens < LONG, stream=stream), trained(n_tokens)
        assert same(one, alone)
        assert (alone.n_taken, one.n_tokens) == (0, alone.n_tokens)
        assert stream.asked * 32 == one.n_tokens - one.n_taken, "what is counted as spent is what was trained on"
        assert (one.n_taken > 0) == (n_tokens > SHORT)


def test_a_trunk_that_is_lost_or_damaged_is_trained_again_and_counted(tmp_path):
    path = tmp_path / "one.pt"
    branched(path, SHORT)
    path.unlink()
    again = branched(path, MIDDLE)
    assert again.n_taken == 0
    path.write_bytes(b"half a check")
    last = branched(path, LONG)
    assert last.n_taken == 0
    assert same(last, trained(LONG))


def test_a_shorter_run_after_a_longer_one_leaves_the_trunk_alone(tmp_path):
    path = tmp_path / "one.pt"
    branched(path, MIDDLE)
    before = path.read_bytes()
    late = branched(path, SHORT)
    assert same(late, trained(SHORT))
    assert late.n_taken == 0
    assert path.read_bytes() == before


def test_the_state_of_another_trunk_is_not_taken(tmp_path):
    path = tmp_path / "one.pt"
    branched(path, SHORT, seed=1)
    assert same(branched(path, MIDDLE), trained(MIDDLE))


@pytest.mark.parametrize("from_fork", [-3, 3])
def test_a_branch_that_is_stopped_goes_on_where_it_was(tmp_path, from_fork):
    path, own = tmp_path / "one.pt", tmp_path / "own.pt"
    taken = branched(path, SHORT)
    assert taken.n_taken == 0
    left = iter(range(of(MIDDLE).fork + from_fork - of(SHORT).fork))
    with pytest.raises(TrainingInterrupted):
        branched(path, MIDDLE, checkpoint=own, should_stop=lambda: next(left, None) is None)
    resumed = branched(path, MIDDLE, checkpoint=own)
    assert same(resumed, trained(MIDDLE))
    assert resumed.n_taken > 0
    assert branched(path, LONG).n_taken > resumed.n_taken, "the trunk was left at the second fork all the same"


def test_one_process_trains_a_trunk_and_the_other_waits_for_it(tmp_path):
    path = tmp_path / "one.pt"
    first, second = (
        StablePhaseLease(StablePhaseCheckpoint(path=path, goes_on=True)),
        StablePhaseLease(StablePhaseCheckpoint(path=path, goes_on=True)),
    )
    found = []

    def read(there):
        return {"ledger": {"step": int(there.read_text())}}

    with first, second:
        assert first.begin(10, read, lambda: False) is None
        waiting = threading.Thread(target=lambda: found.append(second.begin(20, read, lambda: False)))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        first.end(lambda where: where.write_text("10"))
        waiting.join(5)
        assert found == [{"ledger": {"step": 10}}]
        second.end(lambda where: where.write_text("20"))
    assert path.read_text() == "20"


def test_waiting_ends_when_told_to_stop(tmp_path):
    path = tmp_path / "one.pt"
    with (
        StablePhaseLease(StablePhaseCheckpoint(path=path, goes_on=True)) as first,
        StablePhaseLease(StablePhaseCheckpoint(path=path, goes_on=True)) as second,
    ):
        assert first.begin(10, lambda _: {}, lambda: False) is None
        asked = iter([False, False, True])
        assert second.begin(10, lambda _: {}, lambda: next(asked)) is None


def test_what_is_forgotten_is_gone(tmp_path):
    one = StablePhaseCheckpoint(path=tmp_path / "one.pt", goes_on=True)
    branched(one.path, SHORT)
    assert one.path.exists()
    one.forget()
    assert list(tmp_path.iterdir()) == []
