"""A dry run: what it counts, and that it stays small for studies that this machine can't train."""

import io
import json
import re

import pytest

from skillscale import config
from skillscale.cli import main
from skillscale.execution import cost
from skillscale.execution.grid import grid_points

CONTROLLED = "benchmarks/controlled/study.yaml"
ACCELERATOR = cost.Accelerator(flops_per_s=1e15, utilisation=0.5)


def test_hours_elsewhere_are_work_over_the_rate_that_is_stated():
    settings = config.load(study="skills-paper")
    points = [point.point for point in grid_points(settings)]
    training = sum(6 * point.n_params * point.n_tokens for point in points)
    hours = ACCELERATOR.hours(points, settings)
    assert hours == pytest.approx(training / 5e14 / 3600, rel=0.01)
    assert hours > training / 5e14 / 3600, "evaluation counts too"


@pytest.fixture
def timed(monkeypatch):
    """The shapes and batches that a dry run times, each taken to last a second."""
    seen = []

    def step_seconds(size, *, batch_sequences, config):
        seen.append(6 * size.n_params * batch_sequences * size.context)
        return 1.0

    monkeypatch.setattr(cost, "step_seconds", step_seconds)
    return seen


@pytest.mark.parametrize("study", ["skills-paper", "mix-ablation-paper", "ratio-gpu", "skills-night", CONTROLLED])
def test_no_step_is_timed_that_takes_long(study, timed, root, monkeypatch):
    monkeypatch.chdir(root)
    answer = io.StringIO()
    assert main(["grid", "--study", study, "--dry_run", "--model.context", "1024", "--mfu", "0.5"], answer=answer) == 0
    assert timed
    assert max(timed) < 2e11, "one sequence of the largest size that is timed, or 1e11 FLOP"
    points = grid_points(config.load(study=study, overrides={"model.context": "1024"}))
    text = answer.getvalue()
    assert f"{len(points)} runs, " in text
    assert "GPU-hours at 0.5 of 9.89e14 FLOP/s" in text
    listed = [
        line.split() for line in text.splitlines() if re.match(r" +[0-9.e+]+ +[0-9,]+ +\d+ +\d+ +[0-9,]+ +", line)
    ]
    runs = [int(words[6]) for words in listed if len(words) == 8]
    assert sum(runs) == len(points)


def test_trunks_and_what_they_save_are_told(timed):
    answer, apart = io.StringIO(), io.StringIO()
    words = ["grid", "--study", "skills-hour", "--dry_run", "--train.schedule", "wsd"]
    assert main(words, answer=answer) == 0
    assert "25 trunks serve the 70 runs for 1.82e13 FLOP, 78 % of the cost of separate runs" in answer.getvalue()
    assert main([*words[:4], "--json"], answer=apart) == 0
    result = json.loads(apart.getvalue())
    assert result["flops_spent"] == result["flops"]


def test_what_this_machine_would_never_end_is_told_in_the_time_of_an_accelerator(monkeypatch):
    # 1e9 FLOP/s here, 4e14 there: what takes years here takes some of its hours
    monkeypatch.setattr(
        cost,
        "step_seconds",
        lambda size, *, batch_sequences, config: 6 * size.n_params * batch_sequences * size.context / 1e9,
    )
    far, near = io.StringIO(), io.StringIO()
    gpu = ["--gpu_flops", "1e15", "--mfu", "0.4"]
    assert main(["grid", "--study", "skills-gpu", "--dry_run", *gpu], answer=far) == 0
    points = [point.point for point in grid_points(config.load(study="skills-gpu"))]
    first = next(line.split() for line in far.getvalue().splitlines()[1:])
    assert far.getvalue().splitlines()[0].endswith("GPU-hours a run")
    assert float(first[-1]) == pytest.approx(points[0].flops / 4e14 / 3600, rel=0.2), "evaluation beside training"
    (years,) = re.findall(r"\non this machine it would take (\S+) years with 2 workers\n", far.getvalue())
    work = sum(point.flops for point in points)
    assert float(years.replace(",", "")) == pytest.approx(work / 1e9 / 2 / 3600 / 24 / 365, rel=0.2)
    assert not re.search(" min ", far.getvalue())
    assert main(["grid", "--study", "smoke", "--dry_run", *gpu], answer=near) == 0
    assert near.getvalue().splitlines()[0].endswith("s a run here")
    assert re.search(r"(\d+ h \d+ min|\d+ min \d+ s) with 2 workers on this machine", near.getvalue())


def test_the_answer_has_every_point_and_both_times(timed):
    answer = io.StringIO()
    assert main(["grid", "--study", "ratio-hour", "--dry_run", "--json"], answer=answer) == 0
    result = json.loads(answer.getvalue())
    points = grid_points(config.load(study="ratio-hour"))
    assert len(result["points"]) == len(points) == 168
    assert result["hours"] == pytest.approx(sum(point["seconds"] for point in result["points"]) / 2 / 3600)
    assert result["flops"] == pytest.approx(sum(point.point.flops for point in points))
    assert result["gpu_hours"] > result["flops"] / (0.4 * 9.89e14) / 3600
