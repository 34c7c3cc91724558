"""The linear schedule and the rows of the loss curve. ``test_cooldown_branches`` has the other schedule."""

import itertools
from dataclasses import replace

import pytest

from skillscale.config import load
from skillscale.lm.model.shape import shape_for
from skillscale.lm.train.cooldown_branches import CooldownBranch
from skillscale.lm.train.schedule import LinearSchedule, curve_steps, schedule_for
from skillscale.record import OptimizerPlan

PLAN = OptimizerPlan(lr=1.0, batch_sequences=4, steps=110, warmup_steps=10)


@pytest.mark.parametrize("steps", [1, 7, 100, 101, 250, 12_345])
def test_a_curve_has_a_hundred_rows_at_most_and_ends_with_the_run(steps):
    rows = sorted(curve_steps(steps))
    assert len(rows) == min(steps, 100)
    assert rows[-1] == steps
    assert rows[0] >= 1


def test_the_rate_rises_to_its_peak_and_falls_to_the_end_of_the_run():
    schedule = LinearSchedule(plan=PLAN, final_lr_ratio=0.1)
    rates = [schedule.rate(step) for step in range(110)]
    assert max(rates) == rates[10] == 1.0
    assert all(later > earlier for earlier, later in itertools.pairwise(rates[:11]))
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0.1 + 0.9 / 100)


def test_a_linear_schedule_has_equal_batches_and_no_stable_phase():
    schedule = LinearSchedule(plan=PLAN, final_lr_ratio=0.1)
    assert (schedule.steps, schedule.fork) == (110, -1)
    assert [schedule.sequences_before(step) for step in (0, 1, 110)] == [0, 4, 440]


def test_the_plan_decides_the_schedule():
    config = load().train
    size = shape_for(6e3, vocab_size=300, model=replace(load().model, context=32))
    assert isinstance(schedule_for(PLAN, size, config, n_tokens=9_000), LinearSchedule)
    branch = schedule_for(replace(PLAN, stable_phase="a"), size, config, n_tokens=9_000)
    assert isinstance(branch, CooldownBranch)
