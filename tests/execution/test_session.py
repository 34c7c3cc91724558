"""The whole path on a tiny study: trained once, killed and resumed, fitted, reported.

A process of skillscale takes ten seconds to import torch and MLflow. So processes are started where they are killed, or
where several train at once. Other commands run in the process of the tests.
"""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small_study

from skillscale import cli
from skillscale.errors import TrackingError
from skillscale.execution.worker_pool import WorkerPool
from skillscale.record import RunState


def command(words):
    return subprocess.Popen(
        [sys.executable, "-m", "skillscale", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def answer(words, capsys, code=0):
    output = io.StringIO()
    capsys.readouterr()
    ended = cli.main([*words, "--json"], answer=output)
    err = capsys.readouterr().err
    assert ended == code, err
    return json.loads(output.getvalue()), err


class Ended:
    """The handle of a worker that has ended."""

    def poll(self):
        return 0


@pytest.fixture
def workers_here(monkeypatch):
    """Workers run in this process until no point is left, by the command line that a process would get."""

    def start(pool, *, retry_failed):
        argv = pool.argv(retry_failed=retry_failed, wait_for_others=False)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", pool.tracking)
        monkeypatch.setenv("SKILLSCALE_QUEUE", pool.queue)
        cli.main(argv, answer=io.StringIO())
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
        monkeypatch.delenv("SKILLSCALE_QUEUE")
        return Ended()

    monkeypatch.setattr(WorkerPool, "start", start)


def registry(folder: Path):
    from skillscale.tracking import StudyStore

    return StudyStore.open(f"sqlite:///{folder / 'runs.db'}", cache=folder / "cache")


def finished(folder: Path):
    return [record for record in registry(folder).study("small").runs.records() if record.state is RunState.FINISHED]


def wait_for(condition, seconds=300.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(1.0)  # each look takes from the time of the workers


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """A study that was killed with SIGKILL in the middle, twice in two ways, and then run to its end."""
    folder = tmp_path_factory.mktemp("study")
    words = ["main", *small_study.write(folder), "--cache", str(folder / "cache")]
    words += ["--page", str(folder / "page.html")]
    first = command(words)
    wait_for(lambda: (folder / "runs.db").exists() and _count(folder) >= 2)
    os.killpg(first.pid, signal.SIGKILL)  # the command and its workers at once
    first.communicate()
    before = {record.run_id for record in finished(folder)}
    second = command(words)
    wait_for(lambda: _count(folder) > len(before))
    second.kill()  # the command alone: its workers must notice
    second.communicate()
    third = command([*words, "--json"])
    out, log = third.communicate(timeout=600)
    assert third.returncode == 0, log
    return folder, words, before, json.loads(out), log


def _count(folder):
    try:
        return len(finished(folder))
    except TrackingError:  # the first process is still making the store
        return 0


def test_a_study_killed_twice_ends_with_every_point_trained_exactly_once(studied):
    folder, _, before, result, _ = studied
    records = registry(folder).study("small").runs.records()
    keys = [record.point.key for record in records if record.state is RunState.FINISHED]
    assert result["training"]["points"] == 8
    assert len(keys) == len(set(keys)) == 9  # and a sampled one
    assert before <= {record.run_id for record in records}
    assert not [record for record in records if record.state is not RunState.FINISHED]


def test_the_same_command_again_trains_nothing(studied, capsys):
    folder, words, _, _, _ = studied
    ids = {record.run_id for record in finished(folder)}
    result, log = answer(words, capsys)
    assert (result["training"]["finished"], result["sampling"]["runs"]) == (9, 1)
    assert {record.run_id for record in finished(folder)} == ids
    assert "9 of 9 points are trained" in log


def test_main_answers_with_every_skill_and_writes_the_page(studied):
    folder, _, _, result, _ = studied
    assert {row["skill"] for row in result["minima"]} == {"reversing", "aggregate"}
    html = (folder / "page.html").read_text()
    assert "reversing" in html
    described = json.loads(registry(folder).study("small").notes.data_description())
    assert set(described["categories"]) == {"prose", "code"}
    assert len(html) > 10_000


def test_main_ends_with_sampled_runs_and_tells_what_they_changed(studied):
    folder, _, _, result, _ = studied
    (sampled,) = [record for record in finished(folder) if record.purpose]
    sampling = result["sampling"]
    assert (sampling["runs"], sampling["flops"]) == (1, sampled.point.flops)
    assert sampling["flops_before"] == pytest.approx(2e10, rel=0.01)
    assert sampled.point.flops <= 2e9
    for change in (sampling["widest"], sampling["mean"]):
        assert change["fall"] == pytest.approx(1 - change["after"] / change["before"])
        assert change["fall_per_flop"] == pytest.approx(change["fall"] / sampling["flops"])
    drawn = {path.name for path in folder.glob("mlruns/small-study/*/artifacts/figures/widths.*")}
    assert drawn == {"widths.png", "widths.svg"}


def test_sampled_runs_count_for_laws_and_not_for_isoflop_curves(studied):
    folder, _, _, result, _ = studied
    assert {row["C"] for row in result["minima"]} == {1e9, 4e9}
    assert max(row["n_runs"] for row in result["minima"]) == 4
    assert {skill["n_runs"] for skill in result["skills"].values()} == {9}
    assert "1 chosen by the sampler" in (folder / "page.html").read_text()


def test_a_record_tells_what_was_seen_and_spent(studied):
    folder, *_ = studied
    for record in finished(folder):
        assert record.size.n_params == record.size.n_params_embed + record.size.n_params_nonembed
        assert sum(use.tokens for use in record.data_use.values()) == pytest.approx(record.point.n_tokens, rel=0.05)
        assert record.cost.flops_exact > 0
        assert 0 < record.cost.matmul_share < 1
        assert record.skills["reversing"].count == 17
        assert set(record.sets) == {"reversal", "val/prose", "val/code"}


def test_a_point_trained_again_elsewhere_gives_the_same_losses(studied, tmp_path, capsys):
    folder, *_ = studied
    record = min(finished(folder), key=lambda record: record.point.flops)
    words = small_study.write(tmp_path)
    words += ["--cache", str(folder / "cache"), "--n_params", str(record.point.n_params)]
    words += ["--n_tokens", str(record.point.n_tokens), "--seed", str(record.point.seed)]
    again, _ = answer(["train", *words], capsys)
    assert again["trained"]
    for name, value in record.sets.items():
        assert again["sets"][name]["loss"] == value.loss


def test_a_study_with_another_mix_under_the_same_name_is_refused_before_training(studied, capsys):
    folder, words, *_ = studied
    ids = {record.run_id for record in registry(folder).study("small").runs.records()}
    assert cli.main([*words, "--study.mixes", "[{prose: 0.9, code: 0.1}]"]) == 2
    err = capsys.readouterr().err
    assert "study.mixes" in err
    assert "--study.name" in err
    assert {record.run_id for record in registry(folder).study("small").runs.records()} == ids


def test_a_diverged_point_is_recorded_as_failed_with_its_reason(tmp_path, capsys):
    words = small_study.write(tmp_path)
    words += ["--cache", str(tmp_path / "cache"), "--n_params", "9000", "--n_tokens", "60000"]
    result, _ = answer(["train", *words, "--train.max_loss", "0.5"], capsys, code=1)
    assert result["state"] == "failed"
    assert "diverged" in result["reason"]
    assert result["skills"] == {}
    assert registry(tmp_path).study("small").notes.described_ms() > 0, "the UI tells of it"


def test_ctrl_c_marks_the_run_and_the_study_goes_on(tmp_path):
    words = small_study.write(tmp_path)
    words += ["--cache", str(tmp_path / "cache"), "--n_params", "9000", "--n_tokens", "60000000"]
    process = command(["train", *words])
    wait_for(lambda: (tmp_path / "runs.db").exists() and _count_begun(tmp_path))
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=180)
    assert process.returncode == 130
    assert "go on" in err
    (record,) = registry(tmp_path).study("small").runs.records()
    assert record.state is RunState.KILLED


def _count_begun(folder):
    """Return the number of runs that a worker has begun, beyond the claim."""
    try:
        records = registry(folder).study("small").runs.records()
    except TrackingError:  # as above
        return 0
    return sum(record.optimizer_plan is not None for record in records)


def test_a_grid_over_other_mixes_adds_them_to_the_study(studied, workers_here, capsys):
    folder, words, *_ = studied
    before = len(finished(folder))
    result, _ = answer(
        ["grid", *words[1:-2], "--mixes", "prose=.8,code=.2", "--budgets", "1e9", "--sizes", "9000"], capsys
    )
    assert result["finished"] == before + 1
    added = finished(folder)[-1]
    assert dict(added.point.mix.shares) == {"prose": 0.8, "code": 0.2}


def test_sampling_begins_with_the_grid_and_trains_nothing_twice(studied, capfd):
    folder, words, *_ = studied
    before = {record.run_id for record in finished(folder)}
    given = ["sample", *words[1:-2], "--points", "2", "--flops_max", "2e9", "--workers", "1"]
    result, log = answer(given, capfd)
    assert f"{len(before)} runs to begin with" in log
    added = [record for record in finished(folder) if record.run_id not in before]
    assert (result["chosen"], result["finished"], len(added)) == (3, 3, 2)  # one of them by the main job
    assert {record.point.seed for record in added}.isdisjoint(
        record.point.seed for record in finished(folder) if record not in added
    )
    assert all(record.point.flops <= 2e9 * 1.01 and "reversing" in record.skills for record in added)
    suggested, _ = answer(["suggest", *words[1:-4], "--flops_max", "2e9"], capfd)
    assert all(point["n_params"] in _ladder() for point in suggested["points"])


def _ladder():
    from skillscale.config import load
    from skillscale.lm.model.shape import buildable_sizes

    return buildable_sizes(260, load().model)


def test_failed_points_are_trained_again_only_when_asked(tmp_path, workers_here, capsys):
    words = ["grid", *small_study.write(tmp_path), "--cache", str(tmp_path / "cache"), "--budgets", "1e9"]
    words += ["--sizes", "9000", "--train.max_loss", "0.5"]
    first, _ = answer(words, capsys, code=1)
    assert (first["failed"], first["finished"]) == (1, 0)
    answer(words, capsys, code=1)
    assert len(registry(tmp_path).study("small").runs.records()) == 1
    answer([*words, "--retry_failed"], capsys, code=1)
    assert len(registry(tmp_path).study("small").runs.records()) == 2


def test_ctrl_c_on_a_grid_marks_the_runs_of_its_workers(tmp_path):
    words = ["grid", *small_study.write(tmp_path), "--cache", str(tmp_path / "cache"), "--budgets", "4e12"]
    process = command([*words, "--sizes", "9000,12000"])
    # A run that was only claimed would stay RUNNING, for the next call to resume
    wait_for(lambda: (tmp_path / "runs.db").exists() and _count_begun(tmp_path) == 2)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=180)
    assert process.returncode == 130, err
    states = {record.state for record in registry(tmp_path).study("small").runs.records()}
    assert states == {RunState.KILLED}
