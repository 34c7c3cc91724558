"""Runs of others go into the registry once each, and come back as the table that they were read from."""

import io
import json
import math
import re
import shutil
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml

from skillscale import cli
from skillscale.cli.output import Output
from skillscale.commands import import_runs as imports
from skillscale.config import load
from skillscale.config.options import SourceOptions
from skillscale.errors import InputError, TrackingError
from skillscale.point import DesignPoint, Mix
from skillscale.record import RunState
from skillscale.tables import parse_columns, read_table
from skillscale.tables.imported import imported_table
from skillscale.tables.read import exclusion_lines, read_runs
from skillscale.tracking import StudyStore
from skillscale.tracking.store import Store

# MLflow 3.17 on SQLAlchemy 2.1
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

SHARES = {
    "n_params": "N",
    "n_tokens": "D",
    "run": "name",
    "mix": {"code": "h_code", "prose": "h_prose"},
    "skills": {"code": {"loss": "L_code", "sem": "sem_code"}, "prose": "L_prose"},
    "validation": {"both": {"code": 3, "prose": 1}},
    "seed": "seed",
}
TRACKED = {
    "n_params": "params.N",
    "n_tokens": "D",
    "skills": {"code": "metrics.loss", "prose": "val/prose"},
    "mix": "corpus",
}


@pytest.fixture
def uri(empty_store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKILLSCALE_CACHE", str(tmp_path / "cache"))
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def registry(uri):
    return StudyStore.open(uri)


def digitised(rows=5):
    """Runs as they are read off a figure: no number is whole."""
    at = np.arange(rows)
    table = {
        "name": [f"run {i // 2}" for i in at],
        "N": 1e8 / 3 * 1.7 ** (at // 2),
        "D": 1e9 / 7 * 2.1**at,
        "seed": at % 2,
    }
    table |= {"h_code": [1 / 3] * rows, "h_prose": [2 / 3] * rows}
    table |= {"L_code": 3 - at / 7, "L_prose": 4 - at / 9, "sem_code": np.where(at % 2, math.nan, 0.1 / 3)}
    return pd.DataFrame(table)


def do_import(mapping=SHARES, *, name="runs.csv", frame=None, **arguments):
    """Run the entry on a table, or on an experiment; its answer."""
    if frame is not None:
        frame.to_csv(name, index=False)
    Path("map.yaml").write_text(yaml.safe_dump(mapping, sort_keys=False))
    given = {
        "study": "theirs",
        "columns": "map.yaml",
        "table": "" if "from_tracking" in arguments else name,
    } | arguments
    command = cli.find_command("import", cli.COMMANDS)
    words = [word for key, value in given.items() for word in (f"--{key}", value) if value]
    out = Output(as_json=True, answer=io.StringIO(), log=io.StringIO())
    return command.function()(cli.parse(words, command).options, load(), out)


def assert_same(table, other):
    pd.testing.assert_frame_equal(table.runs, other.runs, check_exact=True)
    for name in (
        "skills",
        "categories",
        "weights",
        "convention",
        "excluded",
        "notes",
        "splits",
        "categories_of",
        "judged_skills",
    ):
        assert getattr(table, name) == getattr(other, name), name


# There and back


def test_a_table_comes_back_equal_to_the_last_digit(registry):
    frame = digitised()
    frame.loc[1, "L_prose"] = math.nan
    frame.loc[2, "N"] = math.nan
    answer = do_import(frame=frame)
    table = imported_table(registry, registry.study("theirs"))
    assert_same(table, read_table("runs.csv", parse_columns(SHARES)))
    assert (answer["new"], answer["there"], answer["aggregates"]) == (4, 0, ("both",))
    assert answer["unusable"] == [
        {"run": "row 2 (run 0)", "skill": "prose", "reason": "no loss"},
        {"run": "row 3 (run 1)", "skill": "", "reason": "N is missing"},
    ]
    assert list(table.runs["N"]) == [frame["N"][at] for at in (0, 1, 3, 4)]


def test_splits_and_sets_come_back_and_are_not_judged(registry):
    mapping = {
        **SHARES, "skills": {"code": "L_code", "test": "L_code", "a": "L_code", "prose": "L_prose", "web": "L_prose"},
        "splits": {"code": {"held_out": "test", "hypothesis_sets": ["a"]}}, "sets": ["web"],
        "categories": {"code": "prose"},
    }  # fmt: skip
    do_import(mapping, frame=digitised())
    table = imported_table(registry, registry.study("theirs"))
    assert_same(table, read_table("runs.csv", parse_columns(mapping)))
    assert table.judged_skills == ("code", "prose")
    assert table.validation == ("web",)
    assert table.skill_categories == {"code": "prose", "prose": "prose"}
    with pytest.raises(InputError, match=r"another mapping of columns .see splits"):
        do_import({**mapping, "splits": None}, frame=digitised())


def test_an_imported_study_counts_n_as_it_was_imported(uri, registry):
    do_import(frame=digitised())
    settings = load(overrides={"study.name": "theirs"})
    assert read_runs(SourceOptions(tracking=uri), settings).convention == ""
    with pytest.raises(InputError, match="Import the runs into another study with --n_convention nonembed"):
        read_runs(SourceOptions(tracking=uri, n_convention="nonembed"), settings)


def test_records_and_the_columns_of_the_ui_show_the_runs(registry):
    do_import(frame=digitised())
    records = registry.study("theirs").runs.records()
    assert {record.state for record in records} == {RunState.FINISHED}
    first = records[0]
    mix = Mix({"code": 1 / 3, "prose": 2 / 3})
    assert first.point == DesignPoint(n_params=33_333_333, n_tokens=142_857_143, mix=mix, seed=0)
    assert (first.skills["code"].loss, first.skills["code"].sem) == (3.0, 0.1 / 3)
    assert math.isnan(records[1].skills["code"].sem)
    (experiment,) = [run for run in registry.experiment_runs("theirs") if run.run_id == first.run_id]
    told = experiment.fields
    assert (told["params.n_params"], told["params.seed"], told["params.mix"]) == ("33333333", "0", str(mix))
    assert told["metrics.skill_loss/code"] == 3.0
    assert told["metrics.log10_n_params"] == pytest.approx(math.log10(1e8 / 3), rel=1e-6)
    assert told["run_name"] == "row 1 (run 0)"
    assert "metrics.skill_sem/prose" not in told
    assert "metrics.skill_bpb/code" not in told


def test_importing_twice_adds_nothing(registry, capsys):
    do_import(frame=digitised())
    again = do_import()
    assert (again["new"], again["there"]) == (0, 5)
    assert cli.main(["import", "--table", "runs.csv", "--columns", "map.yaml", "--study", "theirs"]) == 0
    assert capsys.readouterr().out.startswith("0 new, 5 already there: study theirs, 2 skills\n")
    assert len(registry.study("theirs").runs.records()) == 5
    assert len(registry.imports(registry.study("theirs")).sources()) == 1


def test_a_table_that_grows_adds_its_new_rows_wherever_they_stand(registry):
    do_import(frame=digitised(3))
    grown = digitised(5).iloc[[4, 0, 1, 2, 3]]
    answer = do_import(frame=grown)
    assert (answer["new"], answer["there"]) == (2, 3)
    table = imported_table(registry, registry.study("theirs"))
    assert list(table.runs["N"]) == list(grown["N"])
    assert table.runs["run_id"].is_unique
    assert table.notes == ()


def test_a_row_that_was_mended_takes_the_place_of_the_old_one(registry):
    do_import(frame=digitised())
    frame = digitised()
    frame.loc[2, "L_code"] = 9.0
    assert do_import(frame=frame)["new"] == 1
    table = imported_table(registry, registry.study("theirs"))
    assert list(table.runs["code"]) == list(frame["L_code"])
    assert table.notes == ("1 imported runs are no longer in their table, and are excluded",)


def test_tables_with_other_skills_and_categories_share_a_study(registry):
    plain = {**SHARES, "run": None}
    do_import(plain, frame=digitised(3))
    more = digitised(3).assign(N=lambda table: 2 * table["N"], h_web=1 / 3, h_prose=1 / 3, L_web=2.5)
    mapping = {**plain, "mix": {**SHARES["mix"], "web": "h_web"}, "skills": {"code": "L_code", "web": "L_web"}}
    do_import({**mapping, "validation": None}, name="more.csv", frame=more)
    table = imported_table(registry, registry.study("theirs"))
    assert (table.skills, table.categories) == (("code", "prose", "web"), ("code", "prose", "web"))
    assert list(table.runs["mix/web"]) == pytest.approx([0, 0, 0, 1 / 3, 1 / 3, 1 / 3])
    assert list(table.runs["web"].isna()) == [True] * 3 + [False] * 3
    assert list(table.runs["both"].isna()) == [False] * 3 + [True] * 3
    assert table.runs["run_id"].is_unique
    assert table.runs["cluster"].is_unique


def test_names_of_mixes_that_mlflow_would_not_take_are_kept_exactly(registry):
    mapping = {"n_params": "N", "n_tokens": "D", "mix": "corpus", "skills": {"code": "L_code"}}
    corpora = ["The Pile (v1), d=2", "c4", "a/b", "../x", "?"]
    do_import(mapping, frame=digitised().assign(corpus=corpora))
    assert list(imported_table(registry, registry.study("theirs")).runs["mix"]) == corpora
    points = [record.point for record in registry.study("theirs").runs.records()]
    assert [list(point.mix.shares) for point in points] == [["The Pile _v1__ d_2"], ["c4"], ["a/b"], ["x"], ["_"]]


# Stops


def test_the_same_command_goes_on_after_a_stop(registry, monkeypatch):
    digitised().to_csv("runs.csv", index=False)
    whole, ended = Store.set_status, []

    def stopped(store, run_id, status):
        ended.append(status)
        if len(ended) == 4:  # the plan, two rows, and the third is written but for its end
            raise KeyboardInterrupt
        whole(store, run_id, status)

    monkeypatch.setattr(Store, "set_status", stopped)
    with pytest.raises(KeyboardInterrupt):
        do_import()
    monkeypatch.setattr(Store, "set_status", whole)
    study = registry.study("theirs")
    assert [record.state for record in study.runs.records()] == [RunState.FINISHED, RunState.FINISHED, RunState.RUNNING]
    assert "3 of 5 rows are not imported yet; run the import again" in imported_table(registry, study).notes
    answer = do_import()
    assert (answer["new"], answer["there"]) == (3, 2)
    assert [record.state for record in study.runs.records()] == [RunState.FINISHED] * 5
    assert_same(imported_table(registry, study), read_table("runs.csv", parse_columns(SHARES)))
    run_id = study.runs.records()[2].run_id
    with sqlite3.connect("mlflow.db") as database:
        written = database.execute("SELECT count(*) FROM metrics WHERE run_uuid = ? AND key = 'n_params'", [run_id])
        assert written.fetchone() == (1,), "a run that goes on writes its metrics in place"


def test_two_imports_into_one_study_do_not_mix(registry):
    do_import(frame=digitised())
    imports = registry.imports(registry.study("theirs"))
    with (
        imports._store.exclusive("importing into study 'theirs'"),
        pytest.raises(TrackingError, match="another process is at importing into study 'theirs' already"),
    ):
        do_import()


# What does not fit


def test_a_study_of_training_and_one_of_imports_are_kept_apart(registry):
    config = load(study="smoke")
    study = registry.open_study("ours", config)
    assert imported_table(registry, study) is None
    with pytest.raises(InputError, match=r"study 'ours' was begun by training.*Import into another study"):
        do_import(frame=digitised(), study="ours")
    do_import()
    with pytest.raises(InputError, match="study 'theirs' holds imported runs, and training can't add to them"):
        registry.open_study("theirs", config)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "runs.csv",
            {"skills": {"code": "L_code"}, "validation": None},
            "another mapping of columns .see skills, valid",
        ),
        ("more.csv", {"n_params": {"all": "N"}}, "counts N by the convention '', and the new runs by 'all'"),
        ("more.csv", {"mix": "name"}, "has shares of categories, and the new runs have names of mixes"),
        ("more.csv", {"validation": {"both": {"code": 1}}}, "validation both of study 'theirs' weighs"),
        ("more.csv", {"skills": {"co?de": "L_code"}, "validation": None}, "'co.de' can't name a metric of MLflow"),
    ],
)
def test_what_does_not_compare_is_refused(registry, name, change, message):
    do_import(frame=digitised())
    with pytest.raises(InputError, match=message):
        do_import({**SHARES, **change}, name=name, frame=digitised())
    assert len(registry.study("theirs").runs.records()) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"table": ""}, "either --table FILE, or --from_tracking URI"),
        ({"table": "runs.csv", "from_tracking": "sqlite:///x.db", "experiment": "x"}, "either --table FILE, or"),
        ({"from_tracking": "sqlite:///x.db"}, "--from_tracking URI and --experiment NAME go together"),
        ({"table": "runs.csv", "experiment": "x"}, "--from_tracking URI and --experiment NAME go together"),
        ({"study": "a/b"}, "study name 'a/b' can't be used"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(uri, arguments, message):
    with pytest.raises(InputError, match=message):
        do_import(frame=digitised(), **arguments)


def test_a_message_of_the_table_is_one_line_and_exit_code_2(uri, capsys):
    digitised().to_csv("runs.csv", index=False)
    Path("map.yaml").write_text(yaml.safe_dump({**SHARES, "n_params": "n"}))
    assert cli.main(["import", "--table", "runs.csv", "--columns", "map.yaml", "--study", "x"]) == 2
    assert "runs.csv has no column 'n' for n_params (did you mean N?)" in capsys.readouterr().err


# From another experiment


def experiment(uri, name="theirs", statuses=("FINISHED",) * 4):
    """Runs as somebody else's script logs them."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment_id = client.create_experiment(name)
    for at, status in enumerate(statuses):
        run_id = client.create_run(experiment_id, tags={"corpus": "c4"}).info.run_id
        client.log_param(run_id, "N", 10_000_000 * 2**at)
        client.log_param(run_id, "D", 1e9 * 3**at)
        client.log_metric(run_id, "loss", 9.0, step=0)
        client.log_metric(run_id, "loss", 3.0 - at / 7, step=1)
        client.log_metric(run_id, "N", 1)
        if at != 1:
            client.log_metric(run_id, "val/prose", 4.0 - at / 7)
        client.set_terminated(run_id, status)
    return client


def test_runs_that_stay_running_come_in_where_the_map_says_so(uri, registry):
    experiment(uri, statuses=("FINISHED", "RUNNING", "FAILED", "RUNNING"))
    given = {"from_tracking": uri, "experiment": "theirs", "study": "here"}
    answer = do_import({**TRACKED, "where": {"status": ["finished", "RUNNING"]}}, **given)
    assert answer["new"] == 3
    assert "where keeps 3 of 4 rows" in answer["notes"]
    assert list(imported_table(registry, registry.study("here")).runs["N"]) == [1e7, 2e7, 8e7]


def test_without_a_finished_run_the_setting_is_named(uri):
    experiment(uri, statuses=("RUNNING", "RUNNING"))
    with pytest.raises(InputError, match=r"is FINISHED \(RUNNING\).*where: {status: \[FINISHED, RUNNING\]}"):
        do_import(TRACKED, from_tracking=uri, experiment="theirs", study="here")


def test_the_finished_runs_of_any_experiment_can_be_imported(uri, registry):
    experiment(uri, statuses=("FINISHED", "FINISHED", "FAILED", "FINISHED", "KILLED"))
    given = {"from_tracking": uri, "experiment": "theirs", "study": "here"}
    answer = do_import(TRACKED, **given)
    assert (answer["new"], answer["there"], answer["skills"]) == (3, 0, ("code", "prose"))
    reasons = [(one["skill"], one["reason"]) for one in answer["unusable"]]
    assert reasons == [
        ("", "it is FAILED, not FINISHED"),
        ("", "it is KILLED, not FINISHED"),
        ("prose", "no loss"),
    ]
    table = imported_table(registry, registry.study("here"))
    assert list(table.runs["N"]) == [1e7, 2e7, 8e7]
    assert list(table.runs["D"]) == [1e9, 3e9, 2.7e10]
    assert list(table.runs["code"]) == [3.0, 3.0 - 1 / 7, 3.0 - 3 / 7]
    assert list(table.runs["mix"]) == ["c4"] * 3
    assert set(table.runs["run_id"]) <= {run.run_id for run in registry.experiment_runs("theirs")}
    again = do_import(TRACKED, **given)
    assert (again["new"], again["there"]) == (0, 3)


def test_a_loss_that_is_nan_or_infinite_is_told_from_one_never_logged(uri, registry):
    client = experiment(uri, statuses=("FINISHED",) * 6)
    for run, value in zip(registry.experiment_runs("theirs"), (math.nan, None, math.inf), strict=False):
        if value is not None:
            client.log_metric(run.run_id, "val/prose", value, step=2)
    answer = do_import(TRACKED, from_tracking=uri, experiment="theirs", study="here")
    reasons = ["loss is NaN", "no loss", "loss is inf, not a positive number"]
    assert [one["reason"] for one in answer["unusable"]] == reasons
    assert [one.reason for one in imported_table(registry, registry.study("here")).excluded] == reasons


def test_what_is_left_out_is_told_by_reason_with_names_and_later_in_a_line(uri, registry):
    client = experiment(uri, statuses=("FINISHED",) * 4 + ("FAILED",) * 12)
    for at, run in enumerate(run for run in registry.experiment_runs("theirs") if run.status == "FAILED"):
        client.update_run(run.run_id, name=f"fox-{at}")
    Path("map.yaml").write_text(yaml.safe_dump(TRACKED))
    told = io.StringIO()
    words = ["--from_tracking", uri, "--experiment", "theirs", "--study", "here", "--columns", "map.yaml"]
    command = cli.find_command("import", cli.COMMANDS)
    command.function()(cli.parse(words, command).options, load(), Output(answer=told))
    assert "excluded: 12 whole rows, 1 losses" in told.getvalue()
    assert "  12 (fox-0, fox-1, fox-2 and 9 more): it is FAILED, not FINISHED\n" in told.getvalue()
    assert re.search(r"\n  1 \([a-z]+-[a-z]+-\d+\): prose: no loss\n", told.getvalue()), "the name that MLflow gives"
    runs = read_runs(SourceOptions(tracking=uri), load(overrides={"study.name": "here"}))
    assert exclusion_lines(runs) == ["excluded by the import: 12 runs, 1 losses"]


def test_an_import_tells_seldom_how_far_it_is_and_how_long_the_rest_will_take(monkeypatch):
    now = iter([0.0, 4.0, 12.0, 13.0, 30.0])
    monkeypatch.setattr(imports, "time", SimpleNamespace(monotonic=lambda: next(now)))
    log = io.StringIO()
    tell = imports.progress_reporter(Output(log=log).progress)
    for done in (20, 60, 65, 150):
        tell(done, 1000)
    assert log.getvalue().splitlines() == [
        "60 of 1000 runs written, about 3 min 8 s left",
        "150 of 1000 runs written, about 2 min 50 s left",
    ]


def test_the_runs_of_another_store_can_be_imported(uri, registry, empty_store, tmp_path):
    shutil.copy(empty_store, tmp_path / "other.db")
    other = f"sqlite:///{tmp_path}/other.db"
    experiment(other)
    assert do_import(TRACKED, from_tracking=other, experiment="theirs", study="theirs")["new"] == 4
    assert len(registry.study("theirs").runs.records()) == 4


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (
            {"n_params": "N"},
            {},
            "'N' is params.N and metrics.N in experiment theirs of sqlite:.*. Write the full name of one",
        ),
        ({"n_params": "params.M"}, {}, r"no column 'params.M' for n_params \(did you mean params.N"),
        ({}, {"experiment": "their"}, r"has no experiment 'their' \(did you mean theirs\?\)\. It has Default, theirs"),
        ({}, {"experiment": "Default"}, "no run of experiment Default of .* is FINISHED .it has no runs"),
        ({}, {"study": "theirs"}, "experiment 'theirs' cannot be imported into itself"),
    ],
)
def test_an_experiment_that_can_not_be_read_says_so(uri, change, arguments, message):
    experiment(uri)
    given = {"from_tracking": uri, "experiment": "theirs", "study": "here"} | arguments
    with pytest.raises(InputError, match=message):
        do_import({**TRACKED, **change}, **given)


def test_a_store_that_is_not_there_is_not_made(uri, tmp_path):
    with pytest.raises(TrackingError, match=r"there is no tracking store .*typo.db"):
        do_import(TRACKED, from_tracking="sqlite:///typo.db", experiment="theirs")
    assert not (tmp_path / "typo.db").exists()


# Real tables


def test_openlm_overtrain_there_and_back(registry, tables):
    mapping = {
        "n_params": {"total": "params", "non_embedding": "params_no_embed"},
        "n_tokens": "tokens",
        "flops": "flops",
        "run": "run",
        "mix": "dataset",
        "skills": {"c4": "loss_c4_val", "code": "loss_paloma_code100"},
        "where": {"dataset": "rpj"},  # writing a run takes tens of milliseconds
    }
    path = tables / "openlm_overtrain.csv"
    answer = do_import(mapping, name=str(path))
    assert (answer["new"], answer["unusable"]) == (34, [])
    table = imported_table(registry, registry.study("theirs"))
    assert_same(table, read_table(path, parse_columns(mapping)))
    assert json.loads(registry.imports(registry.study("theirs")).sources()[0].described)["name"] == path.name


@pytest.mark.slow
def test_slimpajama_there_and_back(registry, tables):
    categories = ("arxiv", "book", "c4", "github", "commoncrawl", "stackexchange", "wikipedia")
    mapping = {
        "n_params": "params",
        "n_tokens": "tokens",
        "flops": "flops",
        "run": ["params", "mix_id"],
        "checkpoints": "all",
        "mix": {name: f"mix_{name}" for name in categories},
        "skills": {name: f"loss_{name}" for name in (*categories, "openhermes")},
    }
    path = tables / "slimpajama_mix.csv"
    assert do_import(mapping, name=str(path))["new"] == 2408
    assert do_import(mapping, name=str(path))["there"] == 2408
    assert_same(imported_table(registry, registry.study("theirs")), read_table(path, parse_columns(mapping)))
