"""The state of a run and its checkpoint files."""

import time

import pytest
import torch

from skillscale.errors import TrainingError
from skillscale.lm.train.snapshots import TrainingSnapshot, TrainingState, read_snapshot, write_snapshot

CPU = torch.device("cpu")


def snapshot():
    state = TrainingState(step=3, inherited_steps=1, earlier_s=5.0, curve=[(64, 4.5)], losses=[torch.tensor(0.1)])
    return TrainingSnapshot(weights={"a": torch.ones(2)}, moments={"state": {}, "param_groups": []}, state=state)


def test_a_snapshot_that_is_written_reads_back_equal(tmp_path):
    path, written = tmp_path / "runs" / "one.pt", snapshot()
    write_snapshot(path, written, identity="a")
    read = read_snapshot(path, identity="a", device=CPU)
    assert torch.equal(read.weights["a"], written.weights["a"])
    assert read.moments == written.moments
    assert (read.state.step, read.state.inherited_steps, read.state.curve) == (3, 1, [(64, 4.5)])
    assert read.state.losses == written.state.losses
    assert 5.0 <= read.state.earlier_s < 6.0


def test_the_file_has_the_keys_of_version_0_1(tmp_path):
    write_snapshot(tmp_path / "one.pt", snapshot(), identity="a")
    values = torch.load(tmp_path / "one.pt", weights_only=True)
    assert list(values) == ["identity", "model", "optimizer", "ledger"]
    assert list(values["ledger"]) == ["step", "taken", "seconds", "curve", "losses"]


def test_a_file_of_another_run_is_refused(tmp_path):
    write_snapshot(tmp_path / "one.pt", snapshot(), identity="a")
    with pytest.raises(TrainingError, match="belongs to a run with other settings"):
        read_snapshot(tmp_path / "one.pt", identity="b", device=CPU)


def test_inherited_steps_took_no_time_of_this_run():
    state = TrainingState(step=7, earlier_s=100.0).as_inherited()
    assert (state.step, state.inherited_steps) == (7, 7)
    time.sleep(0.01)
    assert 0.01 <= state.seconds < 50.0
