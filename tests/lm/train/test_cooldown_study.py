"""A study whose points share stable phases, from the queue to the table: each point is trained once."""

import io
import json

import pytest
import small_study

from skillscale import config
from skillscale.cli import main
from skillscale.execution.grid import grid_points, tokens_to_train
from skillscale.record import RunState
from skillscale.tables import read
from skillscale.tracking import StudyStore

WSD = ["--train.schedule", "wsd"]


def run_command(words):
    answer = io.StringIO()
    assert main([*words, "--json"], answer=answer) == 0
    return json.loads(answer.getvalue())


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """Two budgets at two common sizes; the shortest point first, then the rest by one worker."""
    folder = tmp_path_factory.mktemp("study")
    words = [*small_study.write(folder, sizes=2, budgets=[1e9, 2e9], span=1.5), *WSD]
    overrides = {"train.schedule": "wsd", "model.context": "64"}
    names = {noun: str(folder / f"{noun}.yaml") for noun in ("data", "skills", "study")}
    settings = config.load(**names, overrides=overrides)
    points = [planned.point for planned in grid_points(settings)]
    cache = ["--cache", str(folder / "cache")]
    first = points[0]
    run_command(["train", *words, *cache, "--n_params", str(first.n_params), "--n_tokens", str(first.n_tokens)])
    study = StudyStore.open(f"sqlite:///{folder / 'runs.db'}", cache=folder / "cache").study("small")
    study.add_points(points)
    ended = run_command(["worker", *words, *cache])["ended"]
    return folder, words, settings, points, study.runs.records(), ended


def test_every_point_is_trained_once(studied):
    *_, points, records, ended = studied
    assert sorted(record.point.key for record in records) == sorted(point.key for point in points)
    assert {record.state for record in records} == {RunState.FINISHED}
    assert ended == len(points) - 1
    assert len({point.stable_phase for point in points}) < len(points)


def test_the_compute_spent_is_recorded_and_is_what_the_dry_run_expects(studied):
    _, _, settings, points, records, _ = studied
    spent = {record.point.key: record.cost.flops_spent for record in records}
    # the first point was planned alone, so it left no stable phase
    first, rest = points[0], [point for point in points if point.stable_phase != points[0].stable_phase]
    for point, tokens in zip(rest, tokens_to_train(rest, settings.train.cooldown_fraction), strict=True):
        assert spent[point.key] == pytest.approx(6 * point.n_params * tokens, rel=0.05)
    for point in points:
        if point.stable_phase == first.stable_phase:
            assert spent[point.key] == pytest.approx(point.flops, rel=0.05), "a missing stable phase is trained again"


def test_no_stable_phase_stays_on_the_disk(studied):
    folder, *_ = studied
    assert list((folder / "cache" / "trunks").iterdir()) == []
    assert not list((folder / "cache").glob("checkpoints/*"))


def test_fits_take_a_stable_phase_as_one_cluster(studied):
    _, _, settings, points, records, _ = studied
    runs = read.trained_table(records, settings).runs
    assert runs["cluster"].nunique() == len({point.stable_phase for point in points})
    assert runs.groupby("cluster")["N"].nunique().eq(1).all()


def test_a_branch_has_the_losses_of_the_point_trained_alone(studied, tmp_path):
    folder, _, _, _, records, _ = studied
    branch = next(record for record in records if record.cost.flops_spent < 0.9 * record.point.flops)
    point = branch.point
    words = [*small_study.write(tmp_path, sizes=2, budgets=[1e9, 2e9], span=1.5), *WSD]
    words += ["--cache", str(folder / "cache"), "--n_params", str(point.n_params)]
    alone = run_command(["train", *words, "--n_tokens", str(point.n_tokens)])
    assert alone["trained"]
    assert {name: measured["loss"] for name, measured in alone["sets"].items()} == {
        name: measured.loss for name, measured in branch.sets.items()
    }
