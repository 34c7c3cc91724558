"""The frame of the command line, run on an entry of its own whose function shows what it was given."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from skillscale.cli.entry import Entry, Parameter
from skillscale.cli.usage import BEGINNINGS
from skillscale.cli.values import count, flag

from skillscale import __version__, cli
from skillscale.cli.output import Output
from skillscale.errors import InputError, TrackingError
from skillscale.point import Mix

STUB = Entry(
    name="stub",
    help="show what came",
    run="test_cli:stub",
    parameters=(
        Parameter(name="study", default="smoke", help="study"),
        Parameter(name="data", default="embedded", help="data"),
        Parameter(name="skills", default="embedded", help="skills"),
        Parameter(name="n_params", default=None, read=count, help="N, parameters"),
        Parameter(name="then", help="what happens next"),
        Parameter(name="json", default="false", read=flag, help="print JSON"),
    ),
)


def stub(arguments, config, out):
    """Entry's function; ``then`` is an error to raise."""
    out.progress("half done")
    match arguments["then"]:
        case "tracking":
            raise TrackingError("store of a newer MLflow\nrun mlflow db upgrade")
        case "ctrl-c":
            raise KeyboardInterrupt
        case "sigterm":
            os.kill(os.getpid(), signal.SIGTERM)
        case "disk":
            raise OSError(28, "No space left on device")
        case "noise":
            print("a library prints a link")
            os.system("echo a worker prints one")
        case "bug":
            raise ZeroDivisionError
    out.text("the table")
    return {
        "study": config.study.name,
        "n_params": arguments["n_params"],
        "clip_norm": config.train.clip_norm,
        "lost": float("nan"),
        "page": Path("page.html"),
    }


def run(*words):
    return cli.main(["stub", *words], entries=[STUB])


def entry(name):
    return next(one for one in cli.ENTRIES if one.name == name)


def test_text_goes_to_standard_output_and_progress_to_standard_error(capsys):
    assert run("--n_params", "3e4") == 0
    seen = capsys.readouterr()
    assert seen.out == "the table\n"
    assert seen.err == "half done\n"


@pytest.mark.parametrize("words", [["--json"], ["--json", "true"], ["--json=true"]])
def test_json_is_all_there_is_on_standard_output(capsys, words):
    assert run(*words, "--n_params", "3e4", "--train.clip_norm", "0.25") == 0
    assert json.loads(capsys.readouterr().out) == {
        "study": "smoke", "n_params": 30000, "clip_norm": 0.25, "lost": None, "page": "page.html",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--n_parms", "3"], ["stub has no parameter --n_parms", "did you mean n_params?"]),
        (["--n-params", "3"], ["did you mean n_params?"]),
        (
            ["--from_tracking", "http://a"],
            ["--from_tracking: import the experiment first, by skillscale import --from_t"],
        ),
        ([], ["stub needs --n_params", "N, parameters"]),
        (["--n_params"], ["--n_params needs a value"]),
        (["--n_params", "--json"], ["--n_params needs a value"]),
        (["--n_params", "-3"], ["--n_params: must be a whole number from 1", "'-3'"]),
        (["--n_params", "nan"], ["--n_params: must be a whole number from 1", "'nan'"]),
        (["--n_params", "2.5"], ["--n_params: must be a whole number", "'2.5'"]),
        (["--n_params", "3", "--n_params", "4"], ["--n_params is given twice"]),
        (["--n_params", "3", "--json", "yes"], ["--json: must be true or false", "'yes'"]),
        (["train"], ["'train' stands where a parameter should"]),
        (["--n_params", "3", "--train.clip", "1"], ["unknown setting train.clip", "did you mean clip_norm?"]),
        (["--n_params", "3", "--trian.clip_norm", "1"], ["unknown setting 'trian.clip_norm'", "did you mean train?"]),
        (["--n_params", "3", "--train.clip_norm", "-1"], ["train.clip_norm", "greater than 0", "-1"]),
        (["--n_params", "3", "--study", "mian"], ["no study named 'mian'", "main", "smoke"]),
    ],
)
def test_bad_input_is_one_line_that_names_value_and_cure_before_anything_runs(capsys, words, parts):
    assert run(*words) == 2
    seen = capsys.readouterr()
    assert seen.err.startswith("skillscale: error: ")
    assert seen.err.count("\n") == 1
    assert [part for part in parts if part not in seen.err] == []
    assert seen.out == ""


def test_unknown_entry_names_the_nearest(capsys):
    assert cli.main(["trian"]) == 2
    assert "unknown entry 'trian' (did you mean train?)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("then", "code", "part"),
    [
        ("tracking", 1, "skillscale: error: store of a newer MLflow run mlflow db upgrade\n"),
        ("disk", 1, "free some space"),
        ("ctrl-c", 130, "skillscale: stopped; run the same command to go on\n"),
        ("sigterm", 143, "skillscale: stopped; run the same command to go on\n"),
    ],
)
def test_what_goes_wrong_on_the_way_is_one_line_and_an_exit_code(capsys, then, code, part):
    before = signal.getsignal(signal.SIGTERM)
    assert run("--n_params", "3", "--then", then) == code
    seen = capsys.readouterr()
    assert seen.err.removeprefix("half done\n").count("\n") == 1
    assert part in seen.err
    assert seen.out == ""
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run("--n_params", "3", "--then", "bug")


@pytest.mark.parametrize("one", cli.ENTRIES, ids=lambda one: one.name)
def test_help_lists_parameters_with_their_defaults(capsys, one):
    assert cli.main([one.name, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for parameter in one.parameters:
        (line,) = [line for line in lines if line.split()[:1] == [f"--{parameter.name}"]]
        endings = {None: "(required)", "": parameter.help}
        assert line.endswith(endings.get(parameter.default, f"[{parameter.default}]"))


@pytest.mark.parametrize("one", cli.ENTRIES, ids=lambda one: one.name)
def test_help_groups_parameters_where_they_are_many_and_the_output_is_last(capsys, one):
    assert [each for group in one.groups.values() for each in group if each not in one.parameters] == []
    assert sum(map(len, one.groups.values())) == len(one.parameters)
    assert list(one.groups)[-1] in ("", "the output")
    if len(one.parameters) > 10:
        assert all(one.groups), "give the new parameter a group"
    assert cli.main([one.name, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for title, parameters in one.groups.items():
        after = lines[lines.index(title) + 1 :] if title else lines[4:]
        assert [line.split()[0] for line in after[: len(parameters)]] == [f"--{each.name}" for each in parameters]


@pytest.mark.parametrize("one", cli.ENTRIES, ids=lambda one: one.name)
def test_help_ends_with_examples(capsys, one):
    assert cli.main([one.name, "--help"]) == 0
    told = capsys.readouterr().out.partition("\nexamples\n")[2].splitlines()
    assert tuple(line.strip() for line in told) == one.examples
    assert len(one.examples) in (2, 3)


@pytest.mark.parametrize(
    "command", [*(one for each in cli.ENTRIES for one in each.examples), *BEGINNINGS], ids=lambda one: one[11:51]
)
def test_examples_are_commands_that_are_taken(command, monkeypatch, tmp_path):
    """Up to the entry's function, which gets the values and the settings."""
    monkeypatch.chdir(tmp_path)
    seen = []
    monkeypatch.setattr(Entry, "function", lambda self: lambda *_: seen.append(self.name) or {})
    program, name, *words = shlex.split(command)
    assert (program, cli.main([name, *words]), seen) == ("skillscale", 0, [name])


@pytest.mark.parametrize("name", ["suggest", "fit", "plan", "backtest", "report", "import", "export"])
def test_help_names_every_kind_of_table_that_is_read(name):
    (table,) = [one.help for one in entry(name).parameters if one.name == "table"]
    assert [kind for kind in ("CSV", "Parquet", "JSON lines", "W&B", "lm-eval", "folder") if kind not in table] == []


def test_overview_lists_entries(capsys):
    assert cli.main(["--help"]) == 0
    begin, _, rest = capsys.readouterr().out.partition("\nentries\n")
    assert re.findall(r"^  (skillscale .*?)  +\S", begin, re.MULTILINE) == list(BEGINNINGS)
    assert [line.split()[0] for line in rest.splitlines() if line.startswith("  ")] == [
        "main",
        "prepare",
        "train",
        "grid",
        "worker",
        "sample",
        "suggest",
        "tune",
        "fit",
        "plan",
        "backtest",
        "simulate",
        "report",
        "import",
        "evaluate",
        "export",
        "watch",
        "reap",
    ]
    assert cli.main([]) == 2


def test_values_are_typed_and_empty_ones_derived(tmp_path, monkeypatch):
    monkeypatch.setenv("SKILLSCALE_CACHE", str(tmp_path))
    got = cli.parse(
        ["--budgets", "1e12, 8e12", "--mixes", "code=.5,prose=.5; code=1", "--seeds", "0,3", "--dry_run"], entry("grid")
    )
    assert got["budgets"] == (1e12, 8e12)
    assert got["mixes"] == (Mix({"code": 0.5, "prose": 0.5}), Mix({"code": 1}))
    assert got["seeds"] == (0, 3)
    assert (got["sizes"], got["workers"], got["dry_run"], got["retry_failed"]) == (None, 2, True, False)
    assert (got["cache"], got["tracking"]) == (tmp_path, "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mix", "code=.7,prose=.7"], "--mix: mix must sum to 1"),
        (["--mix", "code"], "--mix: mix item 'code' is not CATEGORY=SHARE"),
        (["--seed", "-1"], "--seed: must be a whole number from 0"),
        (["--flops", "inf"], "--flops: must be a number above 0"),
        (["--n_tokens", "zero"], "--n_tokens: must be a whole number from 1"),
    ],
)
def test_values_that_make_no_point_are_refused(words, message):
    with pytest.raises(InputError, match=message):
        cli.parse(["--n_params", "1000", *words], entry("train"))


WITHOUT_SETTINGS = ["simulate", "import", "watch", "reap"]


def test_entries_without_a_study_read_no_settings():
    assert [one.name for one in cli.ENTRIES if not one.nouns] == WITHOUT_SETTINGS


@pytest.mark.parametrize("one", cli.ENTRIES, ids=lambda one: one.name)
def test_settings_are_offered_and_taken_where_they_are_read(capsys, one):
    assert cli.main([one.name, "--help"]) == 0
    assert ("--NOUN.key" in capsys.readouterr().out) == (one.name not in WITHOUT_SETTINGS)
    words = [f"--{parameter.name}=1" for parameter in one.parameters if parameter.default is None]
    if one.name in WITHOUT_SETTINGS:
        with pytest.raises(InputError, match=r"has no parameter --train\.clip_norm; it has .*; it reads no settings"):
            cli.parse([*words, "--train.clip_norm", "1"], one)
    else:
        assert cli.parse([*words, "--train.clip_norm", "1"], one)["train.clip_norm"] == "1"


def test_an_answer_that_json_cannot_hold_is_refused():
    with pytest.raises(TypeError, match="set"):
        Output(as_json=True).result({"a": {1}})


def test_the_command_keeps_what_others_print_out_of_its_answer(root):
    code = "import test_cli; from skillscale import cli; cli.ENTRIES = [test_cli.STUB]; cli.console()"
    done = subprocess.run(
        [sys.executable, "-c", code, "stub", "--n_params", "3", "--then", "noise", "--json"],
        env={"PYTHONPATH": f"{root / 'src'}:{root / 'tests'}"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["n_params"] == 3
    assert sorted(done.stderr.splitlines()) == ["a library prints a link", "a worker prints one", "half done"]


def test_version_as_a_command(root):
    done = subprocess.run(
        [sys.executable, "-m", "skillscale", "--version"],
        env={"PYTHONPATH": str(root / "src")}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == f"skillscale {__version__}\n"


def test_a_page_in_no_folder_is_refused_before_anything_runs(capsys):
    assert cli.main(["main", "--page", "nowhere/page.html"]) == 2
    assert "--page" in capsys.readouterr().err
