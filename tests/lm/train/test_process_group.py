"""One run on several devices: the same updates as on one device, also when it is stopped or fails."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import small_study
import team_runs
import torch

from skillscale.config import load, resolve
from skillscale.errors import InputError
from skillscale.lm import run
from skillscale.lm.train import devices, process_group
from skillscale.lm.train.process_group import SINGLE_PROCESS, check_shares, detect_launcher, process_group_for
from skillscale.lm.train.snapshots import TrainingSnapshot, TrainingState
from skillscale.point import DesignPoint, Mix

SUPPORT = Path(__file__).parents[2] / "support"
TWO = {"devices": 2, "device": "cpu"}
SLURM = {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "4"}
PARTS = 192  # sequences a batch: more than one part on each of two devices, the last one smaller


def config(**changed):
    return replace(load().train, **changed)


def started(folder, runs, **options):
    words = [sys.executable, str(SUPPORT / "team_runs.py"), str(folder), json.dumps(runs)]
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def results(folder, runs):
    process = started(folder, runs)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def alone(folder, **options):
    return team_runs.run(folder, **options)


def assert_same(run, other):
    assert run["losses"] == pytest.approx(other["losses"], rel=2e-5)
    assert torch.tensor(run["weights"]) == pytest.approx(torch.tensor(other["weights"]), abs=2e-4)
    assert run["n_tokens"] == other["n_tokens"]


@pytest.fixture(scope="module")
def ddp(tmp_path_factory):
    """Several runs of two processes, one after the other. The folder has a checkpoint of one process."""
    folder = tmp_path_factory.mktemp("ddp")
    assert "stopped after 5" in alone(folder, stop_after=5, checkpoint="by-one.pt")["error"]
    runs = {
        "whole": {},
        "taken over": {"progress": "fail"},
        "diverged": {"train": {"max_loss": 5.0}},
        "in parts": {"batch": PARTS, "train": {"checkpoint_activations": True}},
        "stopped": {"stop_after": 5, "checkpoint": "by-two.pt"},
        "gone on": {"checkpoint": "by-one.pt"},
    }
    pairs = [{**options, "train": {**TWO, **options.get("train", {})}} for options in runs.values()]
    return folder, dict(zip(runs, results(folder, pairs), strict=True))


def test_two_devices_take_the_steps_of_one(ddp):
    folder, by_two = ddp
    assert_same(by_two["whole"], alone(folder))


def test_gradients_are_added_up_over_parts_before_they_are_exchanged(ddp):
    folder, by_two = ddp
    assert_same(by_two["in parts"], alone(folder, batch=PARTS))


def test_a_run_that_the_first_one_leaves_is_left_by_all(ddp):
    _, by_two = ddp
    assert by_two["taken over"]["error"] == "LeaseLostError: another has it"
    assert by_two["diverged"]["error"].startswith("DivergedError: diverged: loss 5.8")
    assert "losses" in by_two["in parts"], "the next one was trained"


def test_a_checkpoint_of_two_devices_goes_on_on_one_and_the_other_way(ddp):
    folder, by_two = ddp
    whole = alone(folder)
    assert by_two["stopped"]["error"].startswith("TrainingInterrupted: stopped after 5 of 12 steps")
    assert_same(alone(folder, checkpoint="by-two.pt"), whole)
    assert_same(by_two["gone on"], whole)


@pytest.mark.slow
def test_a_model_in_parts_takes_the_steps_of_one_device(tmp_path):
    fsdp = {"train": {**TWO, "strategy": "fsdp"}}
    assert "stopped after 5" in alone(tmp_path, stop_after=5, checkpoint="by-one.pt")["error"]
    runs = results(
        tmp_path,
        [
            fsdp,
            {**fsdp, "batch": PARTS},
            {**fsdp, "stop_after": 5, "checkpoint": "by-two.pt"},
            {**fsdp, "checkpoint": "by-one.pt"},
            {**fsdp, "checkpoint": "by-two-again.pt", "stop_after": 0},
            {**fsdp, "checkpoint": "by-two-again.pt", "stop_after": 5},
            {**fsdp, "checkpoint": "by-two-again.pt"},
        ],
    )
    whole = alone(tmp_path)
    assert_same(runs[0], whole)
    assert_same(runs[1], alone(tmp_path, batch=PARTS))
    assert_same(alone(tmp_path, checkpoint="by-two.pt"), whole)
    assert_same(runs[3], whole)
    assert_same(runs[6], whole)


@pytest.mark.slow
def test_two_devices_with_compiled_models_take_the_steps_of_one(tmp_path):
    (run,) = results(tmp_path, [{"batch": 256, "train": {**TWO, "compile": "default"}}])  # two parts of one shape
    assert_same(run, alone(tmp_path, batch=256))


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["kill", "die"])
def test_none_is_left_when_one_is_lost(tmp_path, lost):
    process = started(tmp_path, [{"train": TWO, "progress": lost}])
    out, err = process.communicate(timeout=120)
    assert process.returncode != 0
    if lost == "kill":
        assert "ended with code -9" in err or "onnection" in err
    until = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in out.split()):
        assert time.monotonic() < until, "the other process lives on"
        time.sleep(0.2)


def skillscale(words, **environment):
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )


@pytest.mark.slow
@pytest.mark.parametrize("starter", ["srun", "torchrun"])
def test_processes_that_others_start_train_one_point_together(tmp_path, starter):
    words = [*small_study.write(tmp_path), "--n_params", "1e4", "--n_tokens", "51200", "--train.batch_min", "512"]
    entry = ["-m", "skillscale", "train", *words, "--json", "true", "--cache", str(tmp_path / "cache")]
    entry += ["--train.device", "cpu"]
    two = [*entry, "--train.devices", "2"]
    if starter == "torchrun":
        # The leader prints the result. A follower prints the number of runs that it trained.
        commands = [skillscale([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *two])]
    else:
        tasks = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NODEID": "0", "SLURM_JOB_ID": "777"}
        commands = [skillscale([sys.executable, *two], **tasks, SLURM_PROCID=rank, SLURM_LOCALID=rank) for rank in "01"]
    outputs = [command.communicate(timeout=240) for command in commands]
    assert [command.returncode for command in commands] == [0] * len(commands), outputs
    lines = [json.loads(line) for out, _ in outputs for line in out.splitlines() if line.startswith("{")]
    by_two = next(line for line in lines if "skills" in line)
    assert next(line for line in lines if "along" in line)["along"] == 1
    at = entry.index("--tracking") + 1
    again = skillscale([sys.executable, *entry[:at], f"sqlite:///{tmp_path / 'alone.db'}", *entry[at + 1 :]])
    out, err = again.communicate(timeout=240)
    assert again.returncode == 0, err
    by_one = next(json.loads(line) for line in out.splitlines() if line.startswith("{"))
    assert by_two["skills"]["reversing"]["loss"] == pytest.approx(by_one["skills"]["reversing"]["loss"], rel=1e-4)


def test_a_batch_that_does_not_divide_is_refused_before_training(monkeypatch):
    check_shares([4, 8], 4)
    with pytest.raises(InputError, match=r"a batch of 6 sequences does not divide evenly among 4 devices"):
        check_shares([4, 6], 4)
    settings = resolve({**load().as_dict(), "train": {**load().as_dict()["train"], "devices": 4, "schedule": "wsd"}})
    point = DesignPoint(n_params=30_000, n_tokens=10**6, mix=Mix({"code": 1.0}))

    class Prepared:
        class tokenizer:  # noqa: N801
            vocab_size = 512

    with pytest.raises(InputError, match="a batch of 1 sequences does not divide evenly among 4 devices"):
        run.training_recipe(point, settings, Prepared)


@pytest.fixture
def nobody_started_us(monkeypatch):
    for name in (*SLURM, *TORCHRUN, "SKILLSCALE_LEADER_PID"):
        monkeypatch.delenv(name, raising=False)


def test_who_started_this_process_decides_whether_it_is_one_of_many(nobody_started_us, monkeypatch):
    assert detect_launcher(4) is None
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    assert detect_launcher(4).global_rank() == 3
    assert detect_launcher(8) is None, "another number of tasks: independent workers"
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert detect_launcher(4).global_rank() == 1, "torchrun may run inside a job"
    with pytest.raises(InputError, match=r"torchrun started 4 processes, but .* is 2. Make them equal"):
        detect_launcher(2)


def test_slurm_must_say_how_many_tasks_a_node_has(nobody_started_us, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    with pytest.raises(InputError, match=r"SLURM's tasks can't share a run: .*--ntasks-per-node"):
        detect_launcher(4)


def test_several_nodes_must_be_started_by_somebody(nobody_started_us):
    process_group.form_process_group.cache_clear()
    with pytest.raises(InputError, match=r"train\.nodes is 2, but neither srun nor torchrun .* one of 4"):
        process_group_for(config(devices=2, nodes=2), "cpu")


def test_a_single_process_takes_whole_batches_and_its_state():
    assert process_group_for(config(), "cpu") is SINGLE_PROCESS
    assert SINGLE_PROCESS.share(8, 3) == (8, 3)
    snapshot = TrainingSnapshot(weights={}, moments={}, state=TrainingState())
    assert SINGLE_PROCESS.broadcast_snapshot(snapshot) is snapshot
    assert SINGLE_PROCESS.broadcast_snapshot(None) is None


def test_more_devices_than_there_are_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.select_device("auto", 2) == "cuda"
    assert devices.select_device("cpu", 4) == "cpu"
    with pytest.raises(InputError, match=r"train\.devices is 4, but this process sees 2 CUDA devices"):
        devices.select_device("auto", 4)


def test_settings_that_say_where_and_how_do_not_name_a_run():
    plain = config()
    for changed in (
        {"devices": 4, "nodes": 2, "strategy": "fsdp"},
        {"compile": "reduce-overhead", "checkpoint_activations": True},
    ):
        assert replace(plain, **changed).arithmetic == plain.arithmetic


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"strategy": "ddp"}, r"train\.strategy ddp is for several devices"),
        ({"devices": 2, "compile": "reduce-overhead"}, "records graphs of one device, but .* is 2"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changed, message):
    with pytest.raises(InputError, match=message):
        config(**changed)
