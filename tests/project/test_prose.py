"""README, docs, help, messages, docstrings and comments keep the rules of prose; the checker finds what breaks them."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# (path, words a sentence begins with): why it may be longer than 25 words
LONG_SENTENCES: dict[tuple[str, str], str] = {}


def loaded(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


prose = loaded(ROOT / "docs" / "make" / "prose.py")


@pytest.fixture(scope="module")
def project_faults():
    return prose.faults(prose.everything())


def is_excused(fault):
    return any(fault.path == path and fault.quote.startswith(words) for path, words in LONG_SENTENCES)


def test_the_prose_keeps_the_rules(project_faults):
    assert [str(fault) for fault in project_faults if not is_excused(fault)] == []


def test_excuses_are_few_and_used(project_faults):
    assert len(LONG_SENTENCES) <= 10
    used = {
        (path, words) for path, words in LONG_SENTENCES for fault in project_faults if fault.quote.startswith(words)
    }
    assert used == set(LONG_SENTENCES)


def rules(text, kind="docs"):
    passage = prose.Passage(path="page.md", line=1, kind=kind, text=text)
    return [fault.rule for fault in prose.faults([passage])]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("It tells the loss.", "tell"),
        ("Skills are told apart.", "tell"),
        ("Intervals that own the noise.", "own as a verb"),
        ("The runs lie far off the law.", "lie off"),
        ("Rows are refused by name.", "by name"),
        ("A file beside it.", "beside"),
        ("The pod is made anew.", "anew"),
        ("After so many runs.", "so many"),
        ("Rows that are left out.", "leave out"),
        ("Leave the third one out.", "leave out"),
        ("By the worth of skills.", "worth"),
        ("It prints what is known.", "what is known"),
        ("The noise is .3 nats.", "a leading zero"),
        ("From -.5 to 1.", "a leading zero"),
        ("It takes 1e+22 FLOP.", "no plus in an exponent"),
        ("An error of 0.31% here.", "a space before %"),
        ("word " * 26 + "end.", "27 words in a sentence"),
        ("One; two; three.", "semicolons"),
    ],
)
def test_the_checker_finds_each_fault(text, rule):
    assert rules(text) == [rule]


@pytest.mark.parametrize(
    "text",
    [
        "Skills differ in their own way, and it is worth adding seeds.",
        "A loss of 0.31 % at 1e22 FLOP, file.7z, version 3.11, see Eq. (3.5).",
        "Short: " + "word " * 20 + "end. " + "word " * 20 + "end.",
    ],
)
def test_the_checker_lets_plain_prose_pass(text):
    assert rules(text) == []


def test_messages_have_no_semicolon_and_research_may_be_long():
    assert rules("One thing; another.", "message") == ["semicolons"]
    assert rules("word " * 40, "research") == []
    assert rules("It tells .5.", "research") == ["tell", "a leading zero"]


def test_a_docstring_may_say_what_a_mapping_is_keyed_by():
    assert rules("Return the shares by name.", "docstring") == []


def test_markdown_is_read_without_code_and_by_cells(tmp_path, monkeypatch):
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "# Title\n\nText with `told` and [a link](told.md)\nthat goes on.\n\n"
        "```text\ntold .5\n```\n\n| a cell | .5 |\n- item\n"
    )
    read = [(passage.line, passage.text) for passage in prose.markdown(page, "docs")]
    assert read == [
        (1, "Title"),
        (3, "Text with X and a link\nthat goes on."),
        (10, "a cell"),
        (10, ".5"),
        (11, "item"),
    ]


def test_python_is_read_with_its_messages_help_docstrings_and_comments(tmp_path, monkeypatch):
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    page = tmp_path / "code.py"
    page.write_text(
        '"""Module, ``told``."""\n'
        "# a comment\n# of two lines\n"
        "def f(x, out):\n"
        '    """Return x."""\n'
        '    out.progress(f"at {x:.0%} " + "of it")\n'
        '    key = "short"\n'
        '    note = "a text of four words"\n'
        '    Option(help="the size")\n'
        '    option("a://file beside it")\n'
        '    raise ValueError(f"x is {x}" if key else note)\n'
    )
    read = sorted((passage.kind, passage.text) for passage in prose.source(page))
    assert read == [
        ("comment", "a comment of two lines"),
        ("docstring", "Module, X."),
        ("docstring", "Return x."),
        ("help", "a://file beside it"),
        ("help", "the size"),
        ("message", "at 1% of it"),
        ("message", "x is 1"),
        ("string", "a text of four words"),
    ]


def test_the_checker_imports_nothing_heavy():
    words = [sys.executable, "-c", "import sys; sys.path.insert(0, 'docs/make'); import prose; print(*sys.modules)"]
    loaded_modules = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "torch", "mlflow", "skillscale"} & set(loaded_modules)
