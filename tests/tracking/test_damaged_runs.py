"""A run with damaged tags, params or losses costs that run alone, by name; every command goes on."""

import io
import json
import math
import shutil
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from test_tracking import COST, begin

from skillscale.cli import COMMANDS, main
from skillscale.config import load
from skillscale.point import DesignPoint
from skillscale.record import Measurement
from skillscale.tracking import StudyStore

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

SIZES, TOKENS = np.geomspace(1e4, 1e6, 4).astype(int), np.geomspace(1e6, 1e8, 4).astype(int)
SKILLS = ("knowledge", "code", "reasoning", "prose")
LAW = ("--law", "chinchilla", "--laws.bootstrap", "laplace")
COMMANDS_OF_A_STUDY = {
    "fit": ("fit", *LAW),
    "plan": ("plan", *LAW, "--flops", "1e15", "--force"),
    "report": ("report", *LAW, "--page", "page.html"),
    "suggest": ("suggest", "--count", "1", "--flops_max", "1e15"),
    "export": ("export", "--file", "runs.csv"),
    "watch": ("watch", "--once"),
    "close_stale": ("close_stale",),
}
POINT = {"n_params": 10_000, "n_tokens": 1_000_000, "mix": {"code": 1.0}, "seed": 0}


@pytest.fixture(scope="module")
def whole(empty_store, tmp_path_factory):
    """A study with sixteen finished runs; its store, and the id and name of one run."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copy(empty_store, folder / "mlflow.db")
    study = StudyStore.open(f"sqlite:///{folder}/mlflow.db").open_study("smoke", load(study="smoke"))
    mix = load(study="smoke").study.mix_values[0]
    points = [DesignPoint(n_params=int(N), n_tokens=int(D), mix=mix, seed=0) for N in SIZES for D in TOKENS]
    study.add_points(points)
    for _ in points:
        with study.claim() as writer:
            begin(writer)
            N, D = writer.point.n_params, writer.point.n_tokens
            losses = {
                name: Measurement(loss=1.5 + k / 10 + 60 / N**0.4 + 200 / D**0.4, sem=0.01)
                for k, name in enumerate(SKILLS)
            }
            sets = {f"val/{name}": losses["code"] for name in mix.shares}
            writer.finish(cost=COST, skills=losses, sets=sets, data_use={}, skills_held_out={}, exposures=1.0)
    run = study.runs.records()[5].run_id
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        (name,) = database.execute("SELECT name FROM runs WHERE run_uuid = ?", (run,)).fetchone()
    return folder, run, name


def set_tag(key, value):
    return lambda database, run: database.execute(
        "UPDATE tags SET value = ? WHERE run_uuid = ? AND key = ?", (value, run, f"skillscale.{key}")
    )


def set_loss(value):
    def change(database, run):
        for table in ("metrics", "latest_metrics"):
            database.execute(
                f"UPDATE {table} SET value = ? WHERE run_uuid = ? AND key = 'skill_loss/code'", (value, run)
            )

    return change


def set_metric(key, value):
    def change(database, run):
        database.execute("DELETE FROM latest_metrics WHERE run_uuid = ? AND key = ?", (run, key))
        columns = "(key, value, timestamp, step, is_nan, run_uuid)"
        database.execute(
            f"INSERT INTO latest_metrics {columns} VALUES (?, ?, 1, 0, ?, ?)",
            (key, 0.0 if value != value else value, value != value, run),
        )

    return change


def set_tokens(value):
    def change(database, run):
        for key, number in (("data_tokens/code", value), ("data_epochs/code", 1.0)):
            set_metric(key, number)(database, run)

    return change


def no_metrics(database, run):
    database.execute("DELETE FROM latest_metrics WHERE run_uuid = ?", (run,))


def no_status(database, run):
    database.execute("UPDATE runs SET status = NULL WHERE run_uuid = ?", (run,))


def set_param(key, value):
    return lambda database, run: database.execute(
        "UPDATE params SET value = ? WHERE run_uuid = ? AND key = ?", (value, run, key)
    )


def set_point(**values):
    return set_tag("point", json.dumps(POINT | values))


DAMAGES = {
    "broken JSON": set_tag("point", "{broken"),
    "no point": set_tag("point", ""),
    "a list": set_tag("point", "[1]"),
    "null": set_tag("point", "null"),
    "deep JSON": set_tag("point", "[" * 3000 + "]" * 3000),
    "N of -1": set_point(n_params=-1),
    "N of text": set_point(n_params="abc"),
    "N infinite": set_tag("point", '{"n_params": 1e999, "n_tokens": 5, "mix": {"code": 1}, "seed": 0}'),
    "seed infinite": set_tag("point", '{"n_params": 9999, "n_tokens": 5, "mix": {"code": 1}, "seed": Infinity}'),
    "shares in a list": set_point(mix=["code"]),
    "shares null": set_point(mix=None),
    "share of text": set_point(mix={"code": "x"}),
    "share below 0": set_point(mix={"code": -1, "prose": 2}),
    "loss of -1": set_loss(-1.0),
    "loss of 0": set_loss(0.0),
    "loss of 500": set_loss(500.0),
    "loss infinite, as databases write it": set_loss(1.7976931348623157e308),
    "loss of 1e-300": set_loss(1e-300),
    "loss is NaN": set_metric("skill_loss/code", math.nan),
    "no losses": no_metrics,
    "standard error of -1": set_metric("skill_sem/code", -1.0),
    "standard error infinite": set_metric("skill_sem/code", 1.7976931348623157e308),
    "tokens below 0": set_tokens(-5.0),
    "tokens infinite": set_tokens(1.7976931348623157e308),
    "N of another run": set_point(n_params=20_000),
    "param D of another run": set_param("n_tokens", "77"),
    "param N of text": set_param("n_params_nonembed", "abc"),
    "no status": no_status,
    "param N of -1": set_param("n_params_nonembed", "-1"),
}
HARMLESS = {
    "end far ahead": lambda database, run: database.execute(
        "UPDATE runs SET end_time = 9000000000000000000 WHERE run_uuid = ?", (run,)
    ),
    "no start and no user": lambda database, run: database.execute(
        "UPDATE runs SET start_time = NULL, user_id = NULL WHERE run_uuid = ?", (run,)
    ),
    "attempt of text": set_tag("attempt", "two"),
    "claimed of text": set_tag("claimed", "yesterday"),
    "no end": lambda database, run: database.execute("UPDATE runs SET end_time = NULL WHERE run_uuid = ?", (run,)),
}


def damaged(whole, damage, tmp_path, monkeypatch):
    folder, run, name = whole
    shutil.copy(folder / "mlflow.db", tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        damage(database, run)
        database.commit()
    return run, name


def answer_of(words, tmp_path, capsys):
    answer = io.StringIO()
    code = main(
        [words[0], "--study", "smoke", "--tracking", f"sqlite:///{tmp_path}/mlflow.db", *words[1:]], COMMANDS, answer
    )
    return code, answer.getvalue() + capsys.readouterr().err


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_costs_that_run_alone_by_name(damage, whole, tmp_path, monkeypatch, capsys):
    run, name = damaged(whole, DAMAGES[damage], tmp_path, monkeypatch)
    code, text = answer_of((*COMMANDS_OF_A_STUDY["fit"], "--json"), tmp_path, capsys)
    assert code == 0, text
    assert run in text or name in text
    assert '"n_runs": 15' in text


@pytest.mark.parametrize("command", COMMANDS_OF_A_STUDY)
@pytest.mark.parametrize("damage", ["broken JSON", "loss infinite, as databases write it"])
def test_every_command_goes_on(command, damage, whole, tmp_path, monkeypatch, capsys):
    run, name = damaged(whole, DAMAGES[damage], tmp_path, monkeypatch)
    code, text = answer_of(COMMANDS_OF_A_STUDY[command], tmp_path, capsys)
    assert code == 0, text
    if command != "close_stale" and not (command == "watch" and "loss" in damage):
        assert run in text or name in text


@pytest.mark.parametrize("damage", HARMLESS)
def test_what_decides_on_no_loss_costs_nothing(damage, whole, tmp_path, monkeypatch, capsys):
    damaged(whole, HARMLESS[damage], tmp_path, monkeypatch)
    code, text = answer_of((*COMMANDS_OF_A_STUDY["fit"], "--json"), tmp_path, capsys)
    assert (code, '"n_runs": 16' in text) == (0, True)


@pytest.mark.parametrize(
    "content", [None, "", "{broken", "[1]", "null", '{"set_loss/x": "abc"}', "[" * 3000 + "]" * 3000]
)
def test_a_damaged_file_of_metrics_costs_its_losses_alone_by_name(content, whole, tmp_path, monkeypatch, capsys):
    folder, run, name = whole
    (file,) = folder.glob(f"mlruns/smoke/{run}/artifacts/metrics.json")

    def move(database, run):
        copy = shutil.copytree(file.parent, tmp_path / "artifacts")
        (copy / "metrics.json").unlink()
        if content is not None:
            (copy / "metrics.json").write_text(content)
        database.execute("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", (copy.as_uri(), run))

    damaged(whole, lambda database, run: None, tmp_path, monkeypatch)
    code, sound = answer_of((*COMMANDS_OF_A_STUDY["fit"], "--json"), tmp_path, capsys)
    damaged(whole, move, tmp_path, monkeypatch)
    again, text = answer_of((*COMMANDS_OF_A_STUDY["fit"], "--json"), tmp_path, capsys)
    assert (code, again) == (0, 0), text
    assert name in text
    assert "metrics.json" in text
    assert name not in sound
    skills, sound_skills = (json.loads(lines[: lines.rindex("}") + 1])["skills"] for lines in (text, sound))
    assert skills == sound_skills, "no loss of a skill is in the file"


@pytest.mark.parametrize("settings", ["{bad", "5", "[]", "null", ""])
def test_a_damaged_plan_is_named_with_its_cure(settings, whole, tmp_path, monkeypatch, capsys):
    def damage(database, run):
        database.execute("UPDATE tags SET value = ? WHERE key LIKE 'skillscale.settings.%'", (settings,))

    damaged(whole, damage, tmp_path, monkeypatch)
    code, text = answer_of(COMMANDS_OF_A_STUDY["watch"], tmp_path, capsys)
    assert code == 1
    assert "the tags skillscale.settings.* of the plan of this study" in text
    assert "Restore them" in text
