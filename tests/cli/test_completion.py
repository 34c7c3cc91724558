"""Completion: what bash itself answers to the Tab key, and that every shell's script has every word."""

import io
import re
import shutil
import subprocess

import pytest
from skillscale.cli.values import one_of

from skillscale import cli, config
from skillscale.errors import InputError

SHELLS = ("bash", "zsh", "fish")


def script(shell):
    answer = io.StringIO()
    assert cli.main(["completion", shell], answer=answer) == 0
    return answer.getvalue()


@pytest.fixture(scope="module")
def bash(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "skillscale.bash"
    path.write_text(script("bash"))
    return path


def tab(bash, *words):
    """What bash offers for the last word."""
    line = " ".join(f"'{word}'" for word in ("skillscale", *words))
    code = (
        f"set -u; source {bash}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; compopt() {{ :; }}; _skillscale; "
        'printf "%s\\n" "${COMPREPLY[@]:-}"'
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_entries_are_offered_first(bash):
    assert tab(bash, "") == [entry.name for entry in cli.ENTRIES]
    assert tab(bash, "su") == ["suggest"]


@pytest.mark.parametrize("entry", cli.ENTRIES, ids=lambda entry: entry.name)
def test_each_entry_offers_its_own_parameters(bash, entry):
    offered = tab(bash, entry.name, "--")
    nouns = [f"--{noun}." for noun in config.NOUNS] if entry.nouns else []
    assert offered == [*(f"--{one.name}" for one in entry.parameters), "--help", *nouns]


def test_values_are_offered_where_they_can_be_listed(bash):
    assert tab(bash, "fit", "--objective", "least_s") == ["least_squares", "least_squares_raw"]
    assert tab(bash, "fit", "--json", "") == ["true", "false"]
    assert tab(bash, "grid", "--study", "rat") == ["ratio-gpu", "ratio-hour", "ratio-night", "ratio-paper"]
    assert tab(bash, "fit", "--table", "") == [], "left to the shell, which offers files"


def test_settings_are_offered_by_their_dotted_names(bash):
    assert tab(bash, "train", "--model.d") == ["--model.depth_coefficient", "--model.depth_exponent"]
    assert tab(bash, "watch", "--train.") == [], "it reads no settings"
    every = {f"--{noun}.{key}" for noun, keys in config.load().as_dict().items() for key in keys}
    assert set(tab(bash, "train", "--train.")) == {one for one in every if one.startswith("--train.")}
    assert all(one in script(shell) for one in every for shell in SHELLS)


@pytest.mark.parametrize("shell", SHELLS)
def test_every_script_has_every_entry_and_parameter(shell):
    text = script(shell)
    for entry in cli.ENTRIES:
        if shell == "fish":
            here = f"-n '__fish_seen_subcommand_from {entry.name}' -l "
            offered = [line.partition(here)[2].split()[0] for line in text.splitlines() if here in line]
        else:
            (line,) = [one for one in text.splitlines() if one.strip().startswith(f"{entry.name})")]
            offered = re.findall(r"(?<=[ '(])--(\w+)(?=[ ':])", line)
        assert [one for one in offered if one != "help"] == [one.name for one in entry.parameters]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_good_syntax(shell, tmp_path):
    """Where the shell is installed; bash is everywhere that these tests run."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "script").write_text(script(shell))
    done = subprocess.run([shell, "-n", tmp_path / "script"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", [[], ["tcsh"], ["bash", "zsh"]])
def test_another_shell_is_refused_with_those_there_are(words, capsys):
    assert cli.main(["completion", *words]) == 2
    assert "bash, zsh, fish" in capsys.readouterr().err


def test_help_and_completion_take_no_more_than_half_a_second_of_work():
    """Of a processor's time: the clock on the wall is that of a machine that may be busy."""
    import resource
    import sys

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for words in (["--help"], ["fit", "--help"], ["completion", "bash"]):
        subprocess.run([sys.executable, "-m", "skillscale", *words], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 3 < 0.5


def test_one_of_some_words_refuses_others():
    with pytest.raises(InputError, match=r"must be one of a, b, but it is 'c'"):
        one_of("a", "b")("c")
