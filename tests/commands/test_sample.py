"""Sampling with a trainer of the user's, which is pure Python here: nothing is prepared, nothing trained."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from skillscale import cli
from skillscale.cli.output import Output
from skillscale.config import load
from skillscale.design.targets import TargetEstimates, default_targets
from skillscale.errors import DivergedError, InputError
from skillscale.execution import user_trainer
from skillscale.execution.worker_pool import WorkerPool
from skillscale.record import ProposalReason, RunState
from skillscale.sampler.study import IntervalLog, IntervalReduction, StudyContext, build_problem, context_from_config
from skillscale.tracking import StudyStore

GOOD = """
    import math
    def train(n_params, n_tokens, mix, seed):
        loss = 1.7 + 400 * n_params**-0.34 + 410 * n_tokens**-0.28
        return {"code": (loss, 0.01), "prose": loss + 0.1 * math.log(n_params)}
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to work in, where processes die a little quicker than usual."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(folder, body=GOOD, *more, entry="sample", name="mine", store=None):
    (folder / "mine.py").write_text(textwrap.dedent(body))
    given = [entry, "--study", name, "--tracking", f"sqlite:///{(store or folder) / 'runs.db'}"]
    if entry == "sample":
        given += [
            "--trainer",
            f"{folder / 'mine.py'}:train",
            "--target_skills",
            "code,prose",
            "--cache",
            str(folder / "cache"),
        ]
    return [*given, "--flops_max", "1e18", *more]


def answer(given, capsys):
    code = cli.main([*given, "--json"])
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if captured.out else None, captured.err


def study(folder, name="mine"):
    return StudyStore.open(f"sqlite:///{folder / 'runs.db'}", cache=folder / "cache").study(name)


class InThread:
    """A worker in a thread of this process, which takes none of the seconds that a process needs to start."""

    def __init__(self, pool, *, retry_failed):
        store = StudyStore.open(pool.tracking, cache=pool.cache, queue=pool.queue)
        which = {"retry_failed": retry_failed, "sampled_only": pool.sampled_only}
        self._thread = threading.Thread(target=self._work, args=(store, pool, which), daemon=True)
        self._thread.start()

    def _work(self, store, pool, which):
        try:
            user_trainer.train_with_user_trainer(store, pool.study, pool.user_trainer, Output().progress, **which)
        except InputError as error:
            sys.stderr.write(f"{error}\n")

    def poll(self):
        return None if self._thread.is_alive() else 0


@pytest.fixture(autouse=True, scope="module")
def _threads():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WorkerPool, "start", lambda pool, *, retry_failed: InThread(pool, retry_failed=retry_failed))
        yield


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """A study of six runs by two workers, in two calls; what the second one said, and its log."""
    folder = tmp_path_factory.mktemp("sampled")
    for points in ("4", "2"):
        output, log = io.StringIO(), io.StringIO()
        with contextlib.redirect_stderr(log):
            assert cli.main(words(folder, GOOD, "--points", points, "--json"), answer=output) == 0, log.getvalue()
    return folder, json.loads(output.getvalue()), log.getvalue()


def test_a_second_call_goes_on_and_no_run_is_made_twice(sampled):
    folder, result, log = sampled
    records = study(folder).runs.records()
    assert (result["chosen"], result["finished"], result["failed"]) == (6, 6, 0)
    assert "4 runs to begin with" in log
    assert len({record.point.key for record in records}) == len(records) == 6
    assert {record.state for record in records} == {RunState.FINISHED}


def test_points_are_chosen_and_trained_through_a_queue_file(tmp_path, capsys):
    given = words(
        tmp_path, GOOD, "--points", "3", "--queue", str(tmp_path / "queue.journal"), "--heartbeat_timeout_s", "30"
    )
    code, result, log = answer(given, capsys)
    assert (code, result["chosen"], result["finished"]) == (0, 3, 3), log
    records = study(tmp_path).runs.records()
    assert {record.state for record in records} == {RunState.FINISHED}
    assert all(record.purpose for record in records)
    code, _, log = answer(words(tmp_path, GOOD, "--points", "1"), capsys)
    assert (code, "SKILLSCALE_QUEUE" in log) == (2, True), "its queue is elsewhere"


def test_losses_and_their_errors_are_those_that_the_trainer_returned(sampled):
    for record in study(sampled[0]).runs.records():
        loss = 1.7 + 400 * record.point.n_params**-0.34 + 410 * record.point.n_tokens**-0.28
        assert record.skills["code"].loss == pytest.approx(loss)
        assert record.skills["code"].sem == 0.01
        assert record.skills["prose"].sem != record.skills["prose"].sem  # nobody told it


def test_runs_say_why_they_were_chosen(sampled):
    folder, *_ = sampled
    import mlflow

    runs = mlflow.MlflowClient(f"sqlite:///{folder / 'runs.db'}").search_runs([study(folder).experiment_id])
    for run in runs:
        assert run.data.tags["skillscale.why"].startswith(run.data.tags["skillscale.purpose"])
        assert float(run.data.tags["skillscale.cost"]) > run.data.metrics["flops"]
        assert "Chosen by the sampler" in run.data.tags["mlflow.note.content"]


def test_runs_of_a_trainer_can_be_fitted_and_suggested_for(sampled, capsys):
    folder, *_ = sampled
    given = words(folder, GOOD, "--count", "3", entry="suggest")
    del given[given.index("--flops_max") : given.index("--flops_max") + 2]  # as it was sampled
    code, result, _ = answer(given, capsys)
    assert (code, len(result["points"]), result["runs"], result["budget"]) == (0, 3, 6, 1e19)
    assert len(study(folder).runs.records()) == 6


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--flops_max", "1e19"], "flops was"),
        (["--target_flops", "1e20"], "target_flops was"),
        (["--mixes", "a=.5,b=.5; a=1"], "mixes was"),
    ],
)
def test_another_space_or_target_is_refused_with_the_cure(sampled, capsys, more, says):
    folder, *_ = sampled
    given = words(folder)
    if more[0] in given:
        at = given.index(more[0])
        del given[at : at + 2]
    code, _, log = answer([*given, *more], capsys)
    assert (code, says in log, "--allow_new_goal" in log) == (2, True, True)


def test_another_trainer_or_other_skills_are_refused(sampled, capsys):
    folder, *_ = sampled
    (folder / "other.py").write_text("def train(n, d, mix, seed): return {}")
    given = words(folder)
    given[given.index("--trainer") + 1] = f"{folder / 'other.py'}:train"
    assert answer(given, capsys)[0] == 2
    given = words(folder)
    given[given.index("--target_skills") + 1] = "code"
    code, _, log = answer(given, capsys)
    assert (code, "--study.name" in log) == (2, True)


def test_a_budget_that_is_spent_ends_it_with_the_reason(sampled, capsys):
    folder, *_ = sampled
    code, result, _ = answer([*words(folder), "--budget", "1.2e16"], capsys)
    assert (code, result["ending"], result["finished"]) == (0, "spent", 6)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("def train(n, d, mix, seed):\n    raise RuntimeError('no GPU')", "RuntimeError: no GPU (mine.py, line 2)"),
        ("def train(n, d, mix, seed):\n    return {'code': float('nan'), 'prose': 2.0}", "a loss of nan for code"),
        ("def train(n, d, mix, seed):\n    return {'code': 2.0}", "no loss of prose"),
        (
            "def train(n, d, mix, seed):\n    return {'code': 2., 'prose': 2., 'x': 1.}",
            "a loss of x, which is not among the skills",
        ),
    ],
    ids=["raises", "nan", "missing", "another"],
)
def test_a_trainer_that_fails_fails_its_run_and_the_next_one_is_asked(tmp_path, body, reason):
    (tmp_path / "mine.py").write_text(body)
    trainer = user_trainer.UserTrainer.parse(f"{tmp_path / 'mine.py'}:train")
    with user_trainer.UserTrainerProcess(trainer, ("code", "prose")) as process:
        for seed in (0, 1):
            with pytest.raises(DivergedError) as failed:
                process.ask(1000, 2000, {"all": 1.0}, seed)
            assert reason in str(failed.value)


def test_a_trainer_that_hangs_or_dies_is_ended_and_started_anew(tmp_path):
    body = """
        import os, subprocess, time
        def train(n, d, mix, seed):
            if seed == 0:
                subprocess.Popen(["sleep", "60"])  # holds on to what it inherits
                time.sleep(60)
            if seed == 1:
                os._exit(7)
            return {"code": (2.0, 0.1)}
    """
    (tmp_path / "mine.py").write_text(textwrap.dedent(body))
    trainer = user_trainer.UserTrainer.parse(f"{tmp_path / 'mine.py'}:train")
    began = time.monotonic()
    with user_trainer.UserTrainerProcess(trainer, ("code",), timeout_s=1.0) as process:
        with pytest.raises(DivergedError, match="no answer within 1 s"):
            process.ask(1000, 2000, {"all": 1.0}, 0)
        process._timeout_s = 20.0
        with pytest.raises(DivergedError, match="exit code 7"):
            process.ask(1000, 2000, {"all": 1.0}, 1)
        assert process.ask(1000, 2000, {"all": 1.0}, 2) == {"code": (2.0, 0.1)}
    assert time.monotonic() - began < 30


def test_the_limit_of_one_run_is_none_of_loading_the_trainer(tmp_path):
    (tmp_path / "mine.py").write_text("import time\ntime.sleep(1)\ndef train(n, d, mix, seed): time.sleep(60)")
    trainer = user_trainer.UserTrainer.parse(f"{tmp_path / 'mine.py'}:train")
    late = pytest.raises(DivergedError, match=r"no answer within 0\.5 s")
    with user_trainer.UserTrainerProcess(trainer, ("code",), timeout_s=0.5) as process, late:
        process.ask(1000, 2000, {"all": 1.0}, 0)


def test_a_trainer_that_fails_now_and_then_loses_those_runs_alone(sampled, place, capsys):
    body = GOOD.replace("loss = 1.7", "assert seed != 1, 'out of memory'\n        loss = 1.7")
    given = [*words(place, body, name="patchy", store=sampled[0]), "--points", "4", "--workers", "1"]
    code, result, log = answer([*given, "--mixes", "code=.5,prose=.5; code=.2,prose=.8"], capsys)
    assert (code, result["chosen"], result["finished"], result["failed"]) == (0, 4, 3, 1)
    (failed,) = [record for record in study(sampled[0], "patchy").runs.records() if record.state is RunState.FAILED]
    assert (failed.point.seed, "AssertionError: out of memory" in failed.reason) == (1, True)
    chosen = [line for line in log.splitlines() if line.startswith("chosen")]
    assert all(", on code=0." in line for line in chosen), chosen


def test_after_five_failures_in_a_row_it_stops_with_a_summary(sampled, place, capsys):
    body = "def train(n, d, mix, seed):\n    raise OSError('disk')"
    code, _, log = answer(words(place, body, name="failing", store=sampled[0]), capsys)
    assert code == 1
    assert "the last 5 runs all failed" in log
    assert "OSError: disk" in log.splitlines()[-1]
    records = study(sampled[0], "failing").runs.records()
    assert {record.state for record in records} == {RunState.FAILED}
    assert all("OSError: disk" in record.reason for record in records)
    assert len(records) >= 5


@pytest.mark.slow
def test_killing_the_command_loses_no_run_and_the_next_call_goes_on(place):
    body = GOOD.replace("import math", "import math, time").replace("loss = 1.7", "time.sleep(0.5); loss = 1.7")
    given = [sys.executable, "-m", "skillscale", *words(place, body, "--points", "40")]
    first = subprocess.Popen(given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    until = time.monotonic() + 60
    while not (place / "runs.db").exists() or len(_finished(place)) < 2:
        assert time.monotonic() < until
        time.sleep(0.3)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    before = {record.run_id for record in _finished(place)}
    given[given.index("--points") + 1] = "2"
    subprocess.run(given, check=True, capture_output=True, timeout=120)
    records = study(place).runs.records()
    assert before < {record.run_id for record in records}
    assert {record.state for record in records} == {RunState.FINISHED}
    assert len({record.point.key for record in records}) == len(records)


def _finished(folder):
    try:
        return study(folder).runs.finished()
    except Exception:  # the first process is still making the store
        return []


@pytest.mark.parametrize(
    ("trainer", "says"),
    [("mine.py", "FILE.py:function"), ("none.py:train", "no file"), ("mine.py:tra-in", "FILE.py:function")],
)
def test_a_trainer_that_is_none_is_refused(place, trainer, says):
    (place / "mine.py").write_text("x = 1")
    with pytest.raises(InputError, match=says):
        user_trainer.UserTrainer.parse(trainer)


def test_a_trainer_that_cannot_be_loaded_ends_the_command(sampled, place, capfd):
    code = cli.main(words(place, "import nothing_of_that_name", name="unloaded", store=sampled[0]))
    log = capfd.readouterr().err
    assert (code, "No module named 'nothing_of_that_name'" in log, "all workers stopped" in log) == (1, True, True)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--budget", "1e13"], "below the cheapest run"),
        (["--target_flops", "1e12"], "below the smallest run"),
        (["--sample.ratio", "[1, 2]", "--sample.n_params", "[1, 10]"], "the limits allow no run"),
        (["--sample.weights", "{cod: 2}"], "did you mean code?"),
        (["--sample.max_epochs", "4"], "Limit sample.n_tokens"),
        (["--sample.epoch", "4"], "did you mean max_epochs?"),
        (["--sample.flops_min", "1e19"], "above flops_max"),
        (["--mixes", "web"], "--mixes: mix item 'web' is not CATEGORY=SHARE"),
    ],
    ids=lambda item: item[0] if isinstance(item, list) else "",
)
def test_what_can_not_be_sampled_is_refused_before_anything_is_written(place, capsys, more, says):
    code, _, log = answer(words(place, GOOD, *more), capsys)
    assert (code, says in log, (place / "runs.db").exists()) == (2, True, False), log


def test_a_trainer_without_skills_is_told_to_name_them(place, capsys):
    given = words(place)
    del given[given.index("--target_skills") : given.index("--target_skills") + 2]
    code, _, log = answer(given, capsys)
    assert (code, "--target_skills" in log) == (2, True)


def test_a_study_of_conf_is_not_begun_by_a_slip_of_the_pen(place, capsys):
    code, _, log = answer(["sample", "--study", "mian"], capsys)
    assert (code, "there is no study named 'mian'" in log) == (2, True)


def test_why_is_read_back_as_written():
    why = ProposalReason(
        purpose="plan", cost=1e15, narrowing={"ln N*(code) at 1e+21": 0.125}, laws={"code": {"chinchilla": 0.75}}
    )
    assert ProposalReason.from_text(why.as_text()) == why
    assert why.sentence == ("plan: 1e15 FLOP, narrows intervals by 12 % on average, most by 12 % (ln N*(code) at 1e21)")


def test_sampling_with_a_trainer_imports_no_torch(place):
    rooms = "skillscale.commands.sample, skillscale.commands.suggest, skillscale.execution.session"
    code = f"import sys, {rooms}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


TARGETS = default_targets(["code", "prose"], largest=1e18)


def estimates(*half):
    """An answer whose intervals have these half widths, in turn."""
    width = np.resize(np.array(half), len(TARGETS))
    zero = np.zeros(len(TARGETS))
    return TargetEstimates(targets=TARGETS, value=zero, lo=-width, hi=width, sd=width)


def test_intervals_that_got_narrower_are_told_per_flop():
    reduction = IntervalReduction(
        before=estimates(0.6, 0.4), after=estimates(0.3, 0.2), n_runs=6, flops=2e12, flops_before=6e12
    )
    plain = reduction.as_dict()
    assert (plain["widest"]["fall"], plain["mean"]["fall_per_flop"]) == (pytest.approx(0.5), pytest.approx(2.5e-13))
    assert plain["expected_fall"] == pytest.approx(1 - 0.75**0.5)
    assert "x/÷ 1.82 before, x/÷ 1.35 now: 50 % narrower, 25 % per 1e12 FLOP" in reduction.lines()[0]


def test_intervals_that_got_wider_are_told_as_such():
    reduction = IntervalReduction(before=estimates(0.4), after=estimates(0.5), n_runs=1, flops=1e12, flops_before=6e12)
    assert reduction.as_dict()["mean"]["fall"] == pytest.approx(-0.25)
    assert all("25 % wider, 25 % per 1e12 FLOP" in line for line in reduction.lines()[:2])


def test_to_know_nothing_a_little_better_is_no_gain():
    reduction = IntervalReduction(
        before=estimates(800.0), after=estimates(3.0), n_runs=1, flops=1e12, flops_before=6e12
    )
    assert reduction.as_dict()["widest"]["fall"] == 0


class Written:
    """In place of a study that was sampled once before, and of the run that holds the analysis."""

    def __init__(self, before):
        self.before, self.files, self.note = before, {}, ""

    def analysis_metrics(self, kind):
        return self.before if kind == "sample" else []

    def log(self, note="", **_):
        self.note = note or self.note

    def link(self, text, name):
        return f"[{text}]({name})"

    def image(self, text, name):
        return f"![{text}]({name})"

    def file(self, name, content):
        self.files[name] = content


@pytest.mark.parametrize(
    ("given", "least"),
    [
        ({"sample.flops_max": "7.2e10"}, 51_200),
        ({"sample.flops_max": "7.2e10", "sample.n_tokens": "[5000, 1e16]"}, 5000),
        ({"sample.flops_max": "3e10"}, 51_200),
        ({"sample.flops_max": "1e10"}, 256),
        ({"sample.flops_max": "7.2e10", "sample.sizes": "[100000]"}, 256),
    ],
    ids=["usual", "asked for", "just enough room", "no room", "one size"],
)
def test_runs_of_a_few_updates_are_left_out_as_long_as_there_is_room_to_begin(given, least):
    config = load(overrides=given)
    order = build_problem(config.sample, context_from_config(config))
    assert order.space.n_tokens[0] == least
    assert any("tokens are skipped" in note for note in order.notes) == (least > 5000)


def test_the_figure_holds_the_widths_of_every_call():
    order = build_problem(load().sample, StudyContext(skills=("code", "prose"), flops_max=1e18))
    earlier = {
        "flops_finished": [(8, 1e18, 1), (9, 2e18, 2)], "half_width/code 1e19": [(8, 0.9, 1), (9, 0.8, 2)],
        "half_width": [],
    }  # fmt: skip
    written = Written([earlier, {"flops_finished": [(9, 2e18, 3)]}])
    chart = IntervalLog(written, order, written)
    chart.draw()
    assert written.files == {}, "nothing new is known"
    chart.log(estimates(0.5), runs=10, finished=3e18, spent=3.1e18)
    chart.draw()
    assert set(written.files) == {"figures/widths.svg", "figures/widths.png", "figures/preview.png"}
    assert re.match(r"Widest interval: x/÷ \S+ after 10 runs of 3e18 FLOP\. \[Figure]", written.note)
    assert "![Half widths against FLOP](figures/preview.png)" in written.note
    (line,) = [
        series for series in chart._lines() if (series.name, series.C, series.is_difference) == ("code", 1e19, False)
    ]
    assert (line.flops, line.half) == ((1e18, 2e18, 3e18), (0.9, 0.8, 0.5))
    assert len([series for series in chart._lines() if series.flops]) == len(order.targets) == 6


def test_most_runs_are_those_of_all_calls(sampled, capsys):
    folder, *_ = sampled
    code, result, _ = answer([*words(folder), "--sample.runs", "6"], capsys)
    assert (code, result["ending"], result["finished"]) == (0, "spent", 6)
