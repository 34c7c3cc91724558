"""Each duty of the training loop, alone. ``test_loop`` has them together."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from skillscale.errors import DivergedError
from skillscale.lm.train.hooks import (
    DivergenceCheck,
    GroupSync,
    LossCurve,
    PeriodicCheckpoint,
    ProgressReport,
    StablePhaseHandover,
    StopRequest,
    TrainingInterrupted,
)
from skillscale.lm.train.snapshots import TrainingState

CHECK = DivergenceCheck(max_loss=20.0, lr=0.01, steps=9)


def state_after(*losses):
    state = TrainingState()
    for loss in losses:
        state.add_step(torch.tensor(loss))
    return state


def test_the_stable_phase_is_handed_over_at_the_fork(tmp_path):
    saved = []
    lease = SimpleNamespace(hand_over=lambda save: save(tmp_path))
    hook = StablePhaseHandover(lease=lease, fork=2, save=lambda state, path: saved.append((state.step, path)))
    for step in range(4):
        hook.before_step(TrainingState(step=step))
    assert saved == [(2, tmp_path)]


def test_a_stop_request_saves_and_interrupts():
    saved, state = [], TrainingState(step=3)
    StopRequest(should_stop=lambda: False, save=saved.append, steps=9).before_step(state)
    assert saved == []
    with pytest.raises(TrainingInterrupted, match="stopped after 3 of 9 steps"):
        StopRequest(should_stop=lambda: True, save=saved.append, steps=9).before_step(state)
    assert saved == [state]
    with pytest.raises(TrainingInterrupted):
        StopRequest(should_stop=lambda: True, save=None, steps=9).before_step(state)


def test_the_group_gathers_the_state_of_this_step():
    gathered = []
    group = SimpleNamespace(sync=lambda gather: gather())
    GroupSync(group=group, snapshot=gathered.append).before_step(state := TrainingState(step=4))
    assert gathered == [state]


def test_a_row_of_the_curve_is_the_mean_since_the_last_row():
    hook = LossCurve(rows=frozenset({2, 3}), tokens=lambda step: 100 * step, check=CHECK)
    state = TrainingState()
    for loss in (1.0, 3.0, 5.0, 7.0):
        state.add_step(torch.tensor(loss))
        hook.after_step(state)
    assert state.curve == [(200, 2.0), (300, 5.0)]
    assert state.losses == [torch.tensor(7.0)]


@pytest.mark.parametrize("losses", [(1.0, math.nan), (math.inf, 1.0), (1.0, 20.5)])
def test_a_curve_refuses_a_loss_that_diverged(losses):
    hook = LossCurve(rows=frozenset({2}), tokens=lambda step: step, check=CHECK)
    with pytest.raises(DivergedError, match=r"diverged: loss .* at step 2 of 9 with a peak learning rate of 0\.01"):
        hook.after_step(state_after(*losses))


def test_progress_is_reported_when_it_is_time():
    reports, state = [], state_after(1.0, 2.5)
    ProgressReport(report=lambda *args: reports.append(args), check=CHECK, every_s=1e9).after_step(state)
    assert reports == []
    ProgressReport(report=lambda *args: reports.append(args), check=CHECK, every_s=-1.0).after_step(state)
    assert reports == [(state, 2.5)]
    with pytest.raises(DivergedError):
        ProgressReport(report=print, check=CHECK, every_s=-1.0).after_step(state_after(math.nan))


def test_checkpoints_are_written_when_it_is_time_but_not_after_the_last_step():
    saved = []
    PeriodicCheckpoint(save=saved.append, every_s=1e9, steps=9).after_step(TrainingState(step=3))
    often = PeriodicCheckpoint(save=saved.append, every_s=-1.0, steps=9)
    for step in (7, 8, 9):
        often.after_step(TrainingState(step=step))
    assert [state.step for state in saved] == [7, 8]


def test_weights_that_are_not_finite_are_divergence():
    model = nn.Linear(2, 2)
    CHECK.check_weights(model)
    with torch.no_grad():
        model.bias[1] = math.inf
    with pytest.raises(DivergedError, match="diverged: bias is not finite after step 9 of 9"):
        CHECK.check_weights(model)
