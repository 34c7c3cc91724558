"""A study whose points branch from trunks, from the queue to the table: each trained once, and little of it twice."""

import io
import json

import pytest
import small_study

from skillscale import config
from skillscale.cli import main
from skillscale.execution.grid import grid_points, tokens_to_train
from skillscale.record import RunState
from skillscale.runs import read
from skillscale.tracking import StudyStore

TRUNK = ["--train.schedule", "trunk"]


def told(words):
    answer = io.StringIO()
    assert main([*words, "--json"], answer=answer) == 0
    return json.loads(answer.getvalue())


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """Two budgets at two common sizes; the shortest point first, then the rest by one worker."""
    folder = tmp_path_factory.mktemp("study")
    words = [*small_study.write(folder, sizes=2, budgets=[1e9, 2e9], span=1.5), *TRUNK]
    overrides = {"train.schedule": "trunk", "model.context": "64"}
    names = {noun: str(folder / f"{noun}.yaml") for noun in ("data", "skills", "study")}
    settings = config.load(**names, overrides=overrides)
    points = [each.point for each in grid_points(settings)]
    cache = ["--cache", str(folder / "cache")]
    first = points[0]
    told(["train", *words, *cache, "--n_params", str(first.n_params), "--n_tokens", str(first.n_tokens)])
    study = StudyStore.open(f"sqlite:///{folder / 'runs.db'}", cache=folder / "cache").study("small")
    study.add_points(points)
    ended = told(["worker", *words, *cache])["ended"]
    return folder, words, settings, points, study.runs.records(), ended


def test_every_point_is_trained_once(studied):
    *_, points, records, ended = studied
    assert sorted(one.point.key for one in records) == sorted(point.key for point in points)
    assert {one.state for one in records} == {RunState.FINISHED}
    assert ended == len(points) - 1
    assert len({point.stable_phase for point in points}) < len(points)


def test_what_was_spent_is_told_and_is_what_the_dry_run_expects(studied):
    _, _, settings, points, records, _ = studied
    spent = {one.point.key: one.cost.flops_spent for one in records}
    # the first point was planned alone, so that it left no trunk behind
    first, rest = points[0], [point for point in points if point.stable_phase != points[0].stable_phase]
    for point, own in zip(rest, tokens_to_train(rest, settings.train.decay_share), strict=True):
        assert spent[point.key] == pytest.approx(6 * point.n_params * own, rel=0.05)
    for point in points:
        if point.stable_phase == first.stable_phase:
            assert spent[point.key] == pytest.approx(point.flops, rel=0.05), (
                "a trunk that is not there is trained again"
            )


def test_nothing_of_the_trunks_is_left_on_the_disk(studied):
    folder, *_ = studied
    assert list((folder / "cache" / "trunks").iterdir()) == []
    assert not list((folder / "cache").glob("checkpoints/*"))


def test_fits_take_a_trunk_for_one_cluster(studied):
    _, _, settings, points, records, _ = studied
    runs = read.trained_table(records, settings).runs
    assert runs["cluster"].nunique() == len({point.stable_phase for point in points})
    assert runs.groupby("cluster")["N"].nunique().eq(1).all()


def test_a_branch_has_the_losses_of_the_point_trained_alone(studied, tmp_path):
    folder, _, _, _, records, _ = studied
    branch = next(one for one in records if one.cost.flops_spent < 0.9 * one.point.flops)
    point = branch.point
    words = [*small_study.write(tmp_path, sizes=2, budgets=[1e9, 2e9], span=1.5), *TRUNK]
    words += ["--cache", str(folder / "cache"), "--n_params", str(point.n_params)]
    alone = told(["train", *words, "--n_tokens", str(point.n_tokens)])
    assert alone["trained"]
    assert {name: one["loss"] for name, one in alone["sets"].items()} == {
        name: one.loss for name, one in branch.sets.items()
    }
