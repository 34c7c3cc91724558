"""Runs read straight from MLflow's tables are those of its search, value by value; what is not known is searched."""

import itertools
import math
import os
import shutil
import sqlite3

import pytest

from skillscale.tracking import StudyStore
from skillscale.tracking import sql_reader as tables_module
from skillscale.tracking.sql_reader import RunFilter, Tables

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
URI = os.environ.get("SKILLSCALE_TEST_DATABASE", "")  # of an empty PostgreSQL database, to try this on one


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Runs of every status, of two kinds and none, in two experiments, with numbers and texts that are odd."""
    from mlflow.entities import Metric, Param, RunTag

    folder = tmp_path_factory.mktemp("tables")
    registry = StudyStore.open(URI or f"sqlite:///{folder}/mlflow.db", cache=folder / "cache")
    store, mlflow = registry._store, registry._store._client
    numbers = itertools.cycle([math.nan, math.inf, -math.inf, 0.1 + 0.2, 5e-324, -0.0, 1e300, 3])
    experiments = [store.create_experiment(name) for name in ("one", "two")]
    for at, (experiment, status, kind) in enumerate(
        itertools.product(experiments, ("RUNNING", "FINISHED", "FAILED", "KILLED"), ("point", "plan", ""))
    ):
        tags = {"skillscale.kind": kind, "note": "ü|\n'\"%"} if kind else {}
        run_id = store.create_run(experiment, f"run {at}", tags)
        metrics = [Metric(f"set_loss/{name}", next(numbers), 7 + at, step) for step in range(3) for name in "abc"]
        mlflow.log_batch(run_id, metrics, [Param("mix", "code=.5"), Param("empty", "")], [RunTag("long", "x" * 4000)])
        if status != "RUNNING":
            mlflow.set_terminated(run_id, status, end_time=1000 + at)
    bare = mlflow.create_run(experiments[0]).info.run_id
    mlflow.delete_run(mlflow.create_run(experiments[0], tags={"skillscale.kind": "point"}).info.run_id)
    return store, experiments, bare


def told(run):
    """All that is read of a run; NaN, which equals nothing, as text."""
    info = {name: getattr(run.info, name) for name in type(run.info)._properties()}
    return info, {key: repr(value) for key, value in run.data.metrics.items()}, run.data.params, run.data.tags


@pytest.mark.parametrize(
    "wanted",
    [
        RunFilter(),
        RunFilter(kind="point"),
        RunFilter(kind="nothing"),
        RunFilter(finished=True),
        RunFilter(kind="point", finished=False),
        RunFilter(kind="point", finished=True, ended_from_ms=1003),
        RunFilter(ended_from_ms=1009),
    ],
)
def test_each_run_is_that_of_the_search_in_every_value(store, wanted, monkeypatch):
    store, experiments, _ = store
    monkeypatch.setattr(tables_module, "_RUNS_PER_PAGE", 4)  # several pages
    for experiment in experiments:
        searched = {run.info.run_id: told(run) for run in store.search([experiment], wanted.filter_string)}
        pages = list(store._tables.pages(experiment, wanted))
        read = [run for page in pages for run in page]
        assert {run.info.run_id: told(run) for run in read} == searched
        assert len(read) == len(searched)
        assert [run.info.start_time for run in read] == sorted(run.info.start_time for run in read)
        assert bool(searched) == (wanted.kind != "nothing"), "nothing was compared"
    if wanted == RunFilter():
        assert len(pages) == 3


def test_tags_alone_can_be_asked_for(store):
    store, experiments, _ = store
    read = list(store.read(experiments[0], RunFilter(kind="point", tags_only=True)))
    assert [run.data.tags for run in read] == [
        run.data.tags for run in store.read(experiments[0], RunFilter(kind="point"))
    ]
    assert len(read) == 4
    assert not any(run.data.metrics or run.data.params for run in read)


def test_deleted_runs_and_runs_without_anything(store):
    store, experiments, bare = store
    read = {run.info.run_id: run for run in store.read(experiments[0])}
    assert len(read) == 13
    assert (read[bare].data.metrics, read[bare].data.params) == ({}, {})


def test_numbers_come_back_as_mlflow_keeps_them(store):
    store, experiments, _ = store
    values = {value for run in store.read(experiments[0]) for value in run.data.metrics.values()}
    assert {0.1 + 0.2, 5e-324, 1.7976931348623157e308, -1.7976931348623157e308} <= values
    assert any(math.isnan(value) for value in values)


def test_the_tables_are_read_where_the_schema_is_known_and_searched_where_not(store, monkeypatch):
    store, experiments, _ = store

    def refused(*asked):
        raise AssertionError("it should not be asked")

    before = [run.info.run_id for run in store.search([experiments[0]])]
    with monkeypatch.context() as known:
        known.setattr(type(store), "search", refused)
        assert sorted(run.info.run_id for run in store.read(experiments[0])) == sorted(before)
    monkeypatch.setattr(tables_module, "SUPPORTED", ("another",))
    monkeypatch.setattr(Tables, "pages", refused)
    assert [run.info.run_id for run in store.read(experiments[0])] == before


def test_the_schema_of_this_mlflow_is_known(store):
    """Fails on a newer MLflow: if the tests above pass with its schema in ``SUPPORTED``, add it there."""
    store, *_ = store
    assert store._tables.is_supported()


@pytest.mark.skipif(bool(URI), reason="PostgreSQL gathers them by itself")
def test_statistics_are_gathered_for_sqlite(store, tmp_path):
    store, *_ = store
    path = tmp_path / "copy.db"
    shutil.copy(store.uri.removeprefix("sqlite:///"), path)
    registry = StudyStore.open(f"sqlite:///{path}", cache=tmp_path)
    registry.gather_statistics()
    with sqlite3.connect(path) as database:
        told = {table for (table,) in database.execute("SELECT tbl FROM sqlite_stat1")}
    assert {"latest_metrics", "params", "tags"} <= told
