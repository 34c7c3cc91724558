"""The training loop: the same bits from the same point, whatever interrupts it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from skillscale.config import load
from skillscale.errors import DamagedCheckpointError, InputError, TrainingError
from skillscale.lm.model.shape import shape_for
from skillscale.lm.model.transformer import Transformer
from skillscale.lm.train import hooks, schedule
from skillscale.lm.train.loop import TrainingInterrupted, train
from skillscale.point import DesignPoint, Mix
from skillscale.record import OptimizerPlan

CONFIG = load().train
MODEL = replace(load().model, context=32)
SIZE = shape_for(6e3, vocab_size=300, model=MODEL)
PLAN = OptimizerPlan(lr=0.01, batch_sequences=4, steps=30, warmup_steps=3)


class Counting:
    """Sequence i counts upward from i in steps of i % 5: learnable, and a function of the index alone."""

    def batch(self, first, count):
        index = np.arange(first, first + count)[:, None]
        return (index + np.arange(33) * (index % 5)) % 300


def point(seed=0):
    return DesignPoint(n_params=SIZE.n_params, n_tokens=30 * 4 * 32, mix=Mix({"code": 1.0}), seed=seed)


def trained(*, seed=0, plan=PLAN, config=CONFIG, **more):
    return train(point(seed), size=SIZE, optimizer_plan=plan, stream=Counting(), config=config, **more)


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def stop_after(steps):
    calls = iter(range(steps))
    return lambda: next(calls, None) is None


def test_golden_steps():
    fixed = replace(CONFIG, weight_decay=0.1, beta1=0.9, beta2=0.95, clip_norm=1.0, final_lr_ratio=0.0)
    plan = OptimizerPlan(lr=0.01, batch_sequences=4, steps=3, warmup_steps=1)
    losses = [loss for _, loss in trained(plan=plan, config=fixed).curve]
    assert losses == pytest.approx([5.64233, 5.43457, 5.55439], abs=1e-4), (
        "Three training steps of a fixed model on fixed tokens gave other losses than before. If you changed model, "
        "initial weights, optimizer, schedule or clipping on purpose, write the new losses here and a note in "
        "CHANGELOG.md, and don't compare new runs with old ones. Otherwise a change altered training by accident. "
        "Another build of torch may change the last digits, not the fourth."
    )


def test_the_same_point_twice_gives_the_same_bits():
    first, again, other = trained(), trained(), trained(seed=1)
    assert first.curve == again.curve
    assert torch.equal(weights(first.model), weights(again.model))
    assert first.curve != other.curve


def test_training_learns_what_the_stream_holds():
    curve = trained(plan=replace(PLAN, steps=200)).curve
    assert curve[0][1] == pytest.approx(math.log(300), abs=0.2)
    assert curve[-1][1] < curve[0][1] - 1.0


def test_the_curve_counts_tokens_up_to_the_last():
    run = trained()
    assert [tokens for tokens, _ in run.curve] == [step * 4 * 32 for step in range(1, 31)]
    assert run.n_tokens == run.curve[-1][0] == 30 * 4 * 32
    assert run.tokens_per_s == run.n_tokens / run.seconds


@pytest.mark.parametrize("done", [1, 13, 29])
def test_a_stopped_run_resumes_to_the_same_bits(tmp_path, monkeypatch, done):
    monkeypatch.setattr(schedule, "CURVE_POINTS", 4)  # stop within a row of the curve as well
    path = tmp_path / "runs" / "one.pt"
    with pytest.raises(TrainingInterrupted, match=f"stopped after {done} of 30 steps"):
        trained(checkpoint=path, should_stop=stop_after(done))
    resumed, whole = trained(checkpoint=path), trained()
    assert resumed.curve == whole.curve
    assert torch.equal(weights(resumed.model), weights(whole.model))


def test_a_run_that_is_killed_goes_on_from_its_last_checkpoint(tmp_path):
    path, often = tmp_path / "one.pt", replace(CONFIG, checkpoint_every_s=1e-9)

    class Dying(Counting):
        def batch(self, first, count):
            if first >= 20 * count:
                raise KeyboardInterrupt
            return super().batch(first, count)

    with pytest.raises(KeyboardInterrupt):
        train(point(), size=SIZE, optimizer_plan=PLAN, stream=Dying(), config=often, checkpoint=path)
    requested = []

    class Watched(Counting):
        def batch(self, first, count):
            requested.append(first // count)
            return super().batch(first, count)

    resumed = train(point(), size=SIZE, optimizer_plan=PLAN, stream=Watched(), config=often, checkpoint=path)
    assert requested == list(range(20, 30))
    assert resumed.curve == trained().curve


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    path = tmp_path / "one.pt"
    with pytest.raises(TrainingInterrupted):
        trained(checkpoint=path, should_stop=stop_after(2))
    with pytest.raises(TrainingError, match=r"one\.pt belongs to a run with other settings.*Delete it"):
        trained(checkpoint=path, plan=replace(PLAN, lr=0.02))


def test_a_damaged_checkpoint_is_refused(tmp_path):
    path = tmp_path / "one.pt"
    path.write_bytes(b"half a check")
    with pytest.raises(DamagedCheckpointError, match=r"one\.pt can't be read.*Delete it"):
        trained(checkpoint=path)


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "one.pt"
    with pytest.raises(TrainingInterrupted):
        trained(checkpoint=path, should_stop=stop_after(2))
    before = path.read_bytes()

    def full(state, file):
        file.write(b"some")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match=r"can't be written: .*No space left.*Free some space"):
        trained(checkpoint=path, config=replace(CONFIG, checkpoint_every_s=1e-9))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_divergence_names_loss_step_and_cure():
    with pytest.raises(TrainingError, match=r"diverged: loss .* at step \d+ of 30 .*Lower train\.lr_coefficient"):
        trained(plan=replace(PLAN, lr=1e4, warmup_steps=0))


def test_a_loss_that_is_no_number_is_divergence(monkeypatch):
    broken = Transformer.forward
    monkeypatch.setattr(Transformer, "forward", lambda self, *ids: broken(self, *ids) * math.nan)
    with pytest.raises(TrainingError, match=r"diverged: loss nan at step 1 of 30"):
        trained()


def test_weights_that_the_last_step_broke_are_divergence(monkeypatch):
    monkeypatch.setattr(schedule.LinearSchedule, "rate", lambda _, step: math.inf if step == 29 else 0.0)
    with pytest.raises(TrainingError, match=r"diverged: .* is not finite after step 30"):
        trained()


def test_progress_is_reported_by_the_clock_and_at_the_end(monkeypatch):
    reports = []
    trained(on_progress=reports.append)
    assert len(reports) < 30
    assert (reports[-1].step, reports[-1].steps, reports[-1].tokens) == (30, 30, 30 * 4 * 32)
    monkeypatch.setattr(hooks, "PROGRESS_EVERY_S", -1.0)
    reports.clear()
    trained(on_progress=reports.append)
    assert [report.step for report in reports[:-1]] == list(range(1, 31))


def test_a_missing_device_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"train\.device is cuda, but torch sees no CUDA device"):
        trained(config=replace(CONFIG, device="cuda"))
