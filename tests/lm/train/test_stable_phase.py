"""The lease of a stable phase. ``test_cooldown_branches`` trains with it."""

import threading

from skillscale.lm.train.snapshots import TrainingSnapshot, TrainingState
from skillscale.lm.train.stable_phase import StablePhaseCheckpoint, StablePhaseLease


def lease(path, *, is_reused=True):
    return StablePhaseLease(StablePhaseCheckpoint(path=path, is_reused=is_reused))


def read(path):
    return TrainingSnapshot(weights={}, moments={}, state=TrainingState(step=int(path.read_text())))


def never():
    return False


def test_one_process_trains_a_stable_phase_and_the_other_waits_for_it(tmp_path):
    path, steps = tmp_path / "one.pt", []
    with lease(path) as first, lease(path) as second:
        assert first.acquire(10, read, never) is None
        waiting = threading.Thread(target=lambda: steps.append(second.acquire(20, read, never).state.step))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        first.hand_over(lambda file: file.write_text("10"))
        waiting.join(5)
        assert steps == [10]
        second.hand_over(lambda file: file.write_text("20"))
    assert path.read_text() == "20"


def test_waiting_ends_with_a_stop_request(tmp_path):
    path = tmp_path / "one.pt"
    with lease(path) as first, lease(path) as second:
        assert first.acquire(10, read, never) is None
        answers = iter([False, False, True])
        assert second.acquire(10, read, lambda: next(answers)) is None


def test_a_stable_phase_that_no_run_reuses_is_not_written(tmp_path):
    with lease(tmp_path / "one.pt", is_reused=False) as last:
        assert last.acquire(10, read, never) is None
        last.hand_over(lambda file: file.write_text("10"))
    assert not (tmp_path / "one.pt").exists()


def test_a_resumed_run_writes_only_if_it_gets_the_lease_back(tmp_path):
    path = tmp_path / "one.pt"
    with lease(path) as resumed, lease(path) as other:
        assert other.acquire(20, read, never) is None
        resumed.reacquire()
        resumed.hand_over(lambda file: file.write_text("10"))
        assert not path.exists()
    with lease(path) as resumed:
        resumed.reacquire()
        resumed.hand_over(lambda file: file.write_text("10"))
    assert path.read_text() == "10"
