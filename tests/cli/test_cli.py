"""The frame of the command line, run on a command of its own whose function shows what it was given."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import MISSING, dataclass
from pathlib import Path

import pytest

from skillscale import __version__, cli
from skillscale.cli.catalogue import COMMANDS
from skillscale.cli.command import Command
from skillscale.cli.help import BEGINNINGS
from skillscale.cli.mlproject import mlproject
from skillscale.cli.output import Output
from skillscale.config.options import ShortOption, option
from skillscale.config.readers import count, list_of
from skillscale.errors import InputError, TrackingError
from skillscale.point import Mix


@dataclass(frozen=True, kw_only=True)
class StubOptions:
    study: str = option("study", default="smoke", common=True)
    data: str = option("data")
    n_params: int = option("N, parameters", default=MISSING, read=count, common=True)
    then: str = option("what happens next", common=True)


STUB = Command(
    name="stub", help="show what came", run="test_cli:stub", options=StubOptions,
    short=(ShortOption(name="tie", setting="laws.tie", help="tied parameters", read=list_of(str), common=True),),
)  # fmt: skip


def stub(options, config, out):
    """Show the options; ``then`` is an error to raise."""
    out.progress("half done")
    match options.then:
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
        "n_params": options.n_params,
        "clip_norm": config.train.clip_norm,
        "tie": config.laws.tie,
        "lost": float("nan"),
        "page": Path("page.html"),
    }


def run(*words):
    return cli.main(
        ["stub", "--study", "smoke", *words] if "--study" not in words else ["stub", *words], commands=[STUB]
    )


def command(name):
    return cli.find_command(name, COMMANDS)


def test_text_goes_to_standard_output_and_progress_to_standard_error(capsys):
    assert run("--n_params", "3e4") == 0
    seen = capsys.readouterr()
    assert seen.out == "the table\n"
    assert seen.err == "half done\n"


@pytest.mark.parametrize("words", [["--json"], ["--json", "true"], ["--json=true"]])
def test_json_is_all_there_is_on_standard_output(capsys, words):
    assert run(*words, "--n_params", "3e4", "--train.clip_norm", "0.25") == 0
    assert json.loads(capsys.readouterr().out) == {
        "study": "smoke", "n_params": 30000, "clip_norm": 0.25, "tie": [], "lost": None, "page": "page.html",
    }  # fmt: skip


@pytest.mark.parametrize("words", [["--tie", "alpha,E"], ["--laws.tie", "alpha,E"], ["--laws.tie", "[alpha, E]"]])
def test_a_short_option_is_a_name_for_a_setting(capsys, words):
    assert run("--n_params", "3", "--json", *words) == 0
    assert json.loads(capsys.readouterr().out)["tie"] == ["alpha", "E"]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--n_parms", "3"], ["stub has no option --n_parms", "did you mean n_params?"]),
        (["--n-params", "3"], ["did you mean n_params?"]),
        (
            ["--from_tracking", "http://a"],
            ["--from_tracking: import the experiment first, by skillscale import --from_t"],
        ),
        ([], ["stub needs --n_params", "N, parameters"]),
        (["--n_params"], ["--n_params"]),
        (["--n_params", "3", "--train.clip_norm"], ["--train.clip_norm needs a value"]),
        (["--n_params", "3", "--tie", "E", "--laws.tie", "E"], ["--tie and --laws.tie are one setting"]),
        (["--n_params", "-3"], ["--n_params: must be a whole number from 1", "'-3'"]),
        (["--n_params", "nan"], ["--n_params: must be a whole number from 1", "'nan'"]),
        (["--n_params", "2.5"], ["--n_params: must be a whole number", "'2.5'"]),
        (["--n_params", "3", "--n_params", "4"], ["--n_params is given twice"]),
        (["--n_params", "3", "--json", "yes"], ["--json: must be true or false", "'yes'"]),
        (["train"], ["'train' stands where an option should"]),
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
    assert (json.loads(seen.out)["exit_code"] == 2) if "--json" in words else (seen.out == "")


def test_an_unknown_command_names_the_nearest(capsys):
    assert cli.main(["trian"]) == 2
    assert "unknown command 'trian' (did you mean train?)" in capsys.readouterr().err


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


@pytest.mark.parametrize("each_command", COMMANDS, ids=lambda command: command.name)
def test_help_all_lists_every_option_with_its_default(capsys, each_command):
    assert cli.main([each_command.name, "--help", "all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for parameter in each_command.parameters:
        (line,) = [line for line in lines if line.split()[:1] == [f"--{parameter.name}"]]
        default = f"[{parameter.default_text}]" if parameter.default_text else parameter.help
        assert line.endswith("(required)" if parameter.required else default)


@pytest.mark.parametrize("each_command", COMMANDS, ids=lambda command: command.name)
def test_help_lists_at_most_twelve_options_and_says_how_many_more_there_are(capsys, each_command):
    assert cli.main([each_command.name, "--help"]) == 0
    shown = re.findall(r"^  --(\w+)", capsys.readouterr().out, re.MULTILINE)
    assert shown == [parameter.name for parameter in each_command.parameters if parameter.common]
    assert len(shown) <= 12
    assert cli.main([each_command.name, "--help"]) == 0
    more = re.findall(r"--help all lists (\d+) more", capsys.readouterr().out)
    assert sum(map(int, more)) == len(each_command.parameters) - len(shown)


def test_mlproject_is_what_the_commands_say(root):
    assert (root / "MLproject").read_text() == mlproject(), "run `make mlproject`"
    assert mlproject().count("{default:") + mlproject().count(": string") <= 120


@pytest.mark.parametrize("each_command", COMMANDS, ids=lambda command: command.name)
def test_help_ends_with_examples(capsys, each_command):
    assert cli.main([each_command.name, "--help"]) == 0
    told = capsys.readouterr().out.partition("\nexamples\n")[2].splitlines()
    assert tuple(line.strip() for line in told) == each_command.examples
    assert len(each_command.examples) in (2, 3)


@pytest.mark.parametrize(
    "line", [*(line for each in COMMANDS for line in each.examples), *BEGINNINGS], ids=lambda line: line[11:51]
)
def test_examples_are_commands_that_are_taken(line, monkeypatch, tmp_path):
    """Up to the command's function, which gets the values and the settings."""
    monkeypatch.chdir(tmp_path)
    seen = []
    monkeypatch.setattr(Command, "function", lambda self: lambda *_: seen.append(self.name) or {})
    program, name, *words = shlex.split(line)
    assert (program, cli.main([name, *words]), seen) == ("skillscale", 0, [name])


@pytest.mark.parametrize("name", ["suggest", "fit", "plan", "backtest", "report", "import", "export"])
def test_help_names_every_kind_of_table_that_is_read(name):
    (table,) = [parameter.help for parameter in command(name).parameters if parameter.name == "table"]
    assert [kind for kind in ("CSV", "Parquet", "JSON lines", "W&B", "lm-eval", "folder") if kind not in table] == []


def test_overview_lists_the_common_commands_and_help_all_every_one(capsys):
    assert cli.main(["--help"]) == 0
    begin, _, rest = capsys.readouterr().out.partition("\ncommands\n")
    assert re.findall(r"^  (skillscale .*?)  +\S", begin, re.MULTILINE) == list(BEGINNINGS)
    names = [line.split()[0] for line in rest.splitlines() if line.startswith("  ")]
    assert names == [each.name for each in COMMANDS if each.common]
    assert len(names) <= 10
    assert cli.main(["--help", "all"]) == 0
    rest = capsys.readouterr().out.partition("\ncommands\n")[2]
    names = [line.split()[0] for line in rest.splitlines() if line.startswith("  ")]
    assert names == [each.name for each in COMMANDS]
    assert cli.main([]) == 2


def test_values_are_typed_and_empty_ones_have_their_default(tmp_path, monkeypatch):
    monkeypatch.setenv("SKILLSCALE_CACHE", str(tmp_path))
    words = ["--budgets", "1e12, 8e12", "--mixes", "code=.5,prose=.5; code=1", "--seeds", "0,3", "--dry_run"]
    options = cli.parse([*words, "--workers", ""], command("grid")).options
    assert options.budgets == (1e12, 8e12)
    assert options.mixes == (Mix({"code": 0.5, "prose": 0.5}), Mix({"code": 1}))
    assert options.seeds == (0, 3)
    assert (options.sizes, options.training.pool.workers, options.dry_run) == (None, 2, True)
    assert (options.training.study.cache, options.training.study.tracking) == (tmp_path, "")
    assert options.training.queue.retry_failed is False


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
        cli.parse(["--n_params", "1000", *words], command("train"))


WITHOUT_SETTINGS = ["import", "watch", "simulate", "close_stale"]


def test_commands_without_a_study_read_no_settings():
    assert [each.name for each in COMMANDS if not each.settings] == WITHOUT_SETTINGS


@pytest.mark.parametrize("each_command", COMMANDS, ids=lambda command: command.name)
def test_settings_are_offered_and_taken_where_they_are_read(capsys, each_command):
    assert cli.main([each_command.name, "--help"]) == 0
    assert ("--NOUN.key" in capsys.readouterr().out) == (each_command.name not in WITHOUT_SETTINGS)
    words = [f"--{parameter.name}=1" for parameter in each_command.parameters if parameter.required]
    if each_command.name in WITHOUT_SETTINGS:
        with pytest.raises(InputError, match=r"has no option --train\.clip_norm.* It reads no settings"):
            cli.parse([*words, "--train.clip_norm", "1"], each_command)
    else:
        assert cli.parse([*words, "--train.clip_norm", "1"], each_command).overrides["train.clip_norm"] == "1"


def test_an_answer_that_json_cannot_hold_is_refused():
    with pytest.raises(TypeError, match="set"):
        Output(as_json=True).result({"a": {1}})


def test_the_command_keeps_what_others_print_out_of_its_answer(root):
    code = "import test_cli; from skillscale import cli; cli.COMMANDS = [test_cli.STUB]; cli.console()"
    done = subprocess.run(
        [sys.executable, "-c", code, "stub", "--study", "smoke", "--n_params", "3", "--then", "noise", "--json"],
        env={"PYTHONPATH": f"{root / 'src'}:{root / 'tests' / 'cli'}"}, capture_output=True, text=True, check=True,
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
