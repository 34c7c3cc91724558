"""``watch`` tells a study as its registry has it, while workers run and when they are done."""

import json
import math

import pytest
from test_status import client, point, registry, study, train  # noqa: F401

from skillscale import cli
from skillscale.commands import watch
from skillscale.config import load
from skillscale.record import Measurement
from skillscale.tracking import StudyStore

# MLflow 3.17 on SQLAlchemy 2.1
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture
def words(study, registry):  # noqa: F811
    """One point done, one failed, one under way by this process, one waiting."""
    train(study.claim())
    study.claim().fail("it diverged")
    busy = study.claim()
    busy.begin()
    for tokens in (100_000, 250_000):
        busy.curve(tokens, 3.0)
    busy._flush()
    return ["watch", "--study", "one", "--tracking", registry.uri], busy


def test_a_look_tells_points_flop_and_workers(words, capsys):
    argv, busy = words
    assert cli.main([*argv, "--once"]) == 0
    seen = capsys.readouterr().out
    assert "points     1 of 4 done, 1 running, 1 failed, 1 waiting" in seen
    assert "FLOP       6e10 of 2.4e11 spent (25%)" in seen
    assert "C 6e10, N 10k, D 1M, seed 2" in seen
    assert "25 % of its tokens" in seen
    assert "failed     1 x it diverged" in seen
    busy.kill("stopped")
    assert cli.main([*argv, "--once"]) == 0
    result = "no worker is running. Start one with `skillscale worker --study one --trainer train.py:train`"
    assert result in capsys.readouterr().out


def test_who_would_go_on_is_told_by_how_the_runs_are_made(registry, capsys):  # noqa: F811
    measured = registry.open_evaluated("family", {"context": 64}, metrics=["code"])
    trained = registry.open_study("my own", load(study="smoke"))
    for opened in (measured, trained):
        opened.add_points([point()])
    assert cli.main(["watch", "--tracking", registry.uri, "--study", "family", "--once"]) == 0
    assert "Go on with the same `skillscale evaluate --study family`" in capsys.readouterr().out
    assert cli.main(["watch", "--tracking", registry.uri, "--study", "my own", "--once"]) == 0
    assert "Start one with `skillscale worker --study 'my own'`" in capsys.readouterr().out


def test_json_is_one_object(words, capsys):
    argv, busy = words
    assert cli.main([*argv, "--once", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["points"] == {"planned": 4, "finished": 1, "running": 1, "failed": 1, "waiting": 1}
    assert (result["is_over"], result["ended_s"]) == (False, None)
    assert result["began_s"] < result["at_s"] <= result["expected_end_s"]
    (worker,) = result["workers"]
    assert (worker["run_id"], worker["share"]) == (busy.run_id, 0.25)
    assert result["failures"] == [{"reason": "it diverged", "count": 1}]


def test_it_goes_on_until_nothing_is_left(words, study, capsys, monkeypatch):  # noqa: F811
    argv, busy = words
    looks = []

    def meanwhile(seconds):
        looks.append(seconds)
        if len(looks) == 1:
            busy.finish(skills={})
        else:
            train(study.claim())

    monkeypatch.setattr(watch.time, "sleep", meanwhile)
    assert cli.main([*argv, "--interval_s", "0.25", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert looks == [0.25, 0.25]
    assert (result["is_over"], result["points"]["finished"], result["points"]["failed"]) == (True, 3, 1)
    assert result["ended_s"] <= result["at_s"]


def test_what_is_not_there_is_told_and_made_by_nobody(words, tmp_path, capsys):
    argv, _ = words
    assert cli.main([*argv[:2], "two", *argv[3:], "--once"]) == 1
    assert "no study 'two'. It has one" in capsys.readouterr().err
    assert cli.main(["watch", "--tracking", f"sqlite:///{tmp_path}/nothing.db", "--once"]) == 1
    assert "there is no tracking store" in capsys.readouterr().err
    assert not (tmp_path / "nothing.db").exists()


@pytest.fixture
def shared(registry, tmp_path):  # noqa: F811
    """The words for a study with a queue that machines share, of which most runs of a law are done."""
    queue = str(tmp_path / "queue.journal")
    opened = StudyStore.open(registry.uri, cache=tmp_path / "cache", queue=queue)
    study = opened.open_trainer_study("many", trainer="train.py:train", skills=["code"])  # noqa: F811
    study.add_points([point(round(10**a), round(10**b)) for a in (4, 4.5, 5, 5.5) for b in (5.5, 6, 6.5, 7)])
    for _ in range(15):
        with study.claim() as writer:
            N, D = writer.point.n_params, writer.point.n_tokens
            loss = (1.7 + 400 * N**-0.34 + 410 * D**-0.28) * math.exp(0.01 * math.sin(N + D))
            writer.begin()
            writer.finish(skills={"code": Measurement(loss=loss, sem=0.01)})
    return study, ["--study", "many", "--tracking", registry.uri], queue


def test_a_study_with_a_shared_queue_is_watched_and_fitted(shared, registry, capsys, monkeypatch):  # noqa: F811
    study, words, queue = shared  # noqa: F811
    monkeypatch.delenv("SKILLSCALE_QUEUE", raising=False)
    assert cli.main(["watch", *words, "--once"]) == 2
    assert "Set SKILLSCALE_QUEUE to it, or give it with --queue" in capsys.readouterr().err
    assert cli.main(["watch", *words, "--once", "--queue", queue]) == 0
    assert "points     15 of 16 done, 1 waiting" in capsys.readouterr().out
    assert cli.main(["fit", *words, "--law", "chinchilla", "--study.resamples", "100", "--queue", queue]) == 0
    assert "not current" not in capsys.readouterr().err
    note = client(registry).get_experiment(study.experiment_id).tags["mlflow.note.content"]
    assert "15 of 16 points done, 1 waiting" in note
    assert "[Last fit]" in note


def _queue(options):
    return options.source.queue if hasattr(options, "source") else options.queue.queue


@pytest.mark.parametrize("entry", ["main", "train", "report"])
def test_commands_that_write_a_study_take_its_queue(entry):
    (command,) = [command for command in cli.COMMANDS if command.name == entry]
    given = ["--queue", "queue.journal", *["--n_params", "9"] * (entry == "train")]
    assert _queue(cli.parse(given, command).options) == "queue.journal"
