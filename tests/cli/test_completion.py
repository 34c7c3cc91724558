"""Completion: what click answers to the Tab key in bash, and that each shell has a script."""

import io
import os
import shutil
import subprocess
import sys

import pytest

from skillscale import cli, config
from skillscale.cli.catalogue import COMMANDS
from skillscale.config.readers import one_of
from skillscale.errors import InputError

SHELLS = ("bash", "zsh", "fish")


def script(shell):
    answer = io.StringIO()
    assert cli.main(["completion", shell], answer=answer) == 0
    return answer.getvalue()


def tab(*words):
    """Return what the shell is offered for the last word."""
    complete = cli.get_completion_class("bash")(cli.group(COMMANDS), {}, "skillscale", "_SKILLSCALE_COMPLETE")
    return [item.value for item in complete.get_completions(list(words[:-1]), words[-1])]


def test_commands_are_offered_first():
    assert set(tab("")) == {*(command.name for command in COMMANDS), "completion"}
    assert tab("su") == ["suggest"]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_each_command_offers_its_options(command):
    nouns = [f"--{noun}." for noun in config.NOUNS] if command.settings else []
    assert tab(command.name, "--") == [*(f"--{parameter.name}" for parameter in command.parameters), *nouns]


def test_values_are_offered_where_they_can_be_listed():
    assert tab("evaluate", "--dtype", "float") == ["float32", "float16", "float64"]
    assert tab("fit", "--json", "") == ["true", "false"]
    assert tab("grid", "--study", "rat") == ["ratio-gpu", "ratio-hour", "ratio-night", "ratio-paper"]
    assert tab("fit", "--table", "") == [], "left to the shell, which offers files"
    assert tab("completion", "") == list(SHELLS)


def test_settings_are_offered_by_their_dotted_names():
    assert tab("train", "--model.d") == ["--model.depth_coefficient", "--model.depth_exponent"]
    assert tab("watch", "--train.") == [], "it reads no settings"
    every = {f"--{noun}.{key}" for noun, keys in config.load().as_dict().items() for key in keys}
    assert {word for noun in config.NOUNS for word in tab("train", f"--{noun}.")} == every


def test_the_installed_program_answers_the_shell():
    """The script asks the program itself, by environment variables of click's protocol."""
    environment = os.environ | {
        "_SKILLSCALE_COMPLETE": "bash_complete", "COMP_WORDS": "skillscale su", "COMP_CWORD": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "skillscale"], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "plain,suggest\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_good_syntax(shell, tmp_path):
    """Where the shell is installed; bash is everywhere that these tests run."""
    assert "_SKILLSCALE_COMPLETE" in script(shell)
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "script").write_text(script(shell))
    subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


def test_another_shell_is_refused():
    with pytest.raises(InputError, match="completion is for bash, zsh, fish"):
        cli._completion_script(["tcsh"], COMMANDS)


def test_one_of_says_what_it_takes():
    assert one_of("a", "b").choices == ("a", "b")
