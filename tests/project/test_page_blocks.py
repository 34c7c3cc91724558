"""The code blocks of README and guide run in the order shown, in a fresh folder, and print what the page shows."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def loaded(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


blocks = loaded(ROOT / "docs" / "make" / "blocks.py")
PAGES = {page.relative_to(ROOT).as_posix(): page.read_text() for page in blocks.pages()}


def runs(text, *, slow):
    """Whether a page has a block to run."""
    code = [block for block in blocks.blocks(text) if block.language in ("bash", "python") and not block.reason]
    return any(block.is_slow == slow and not block.title for block in code)


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    with blocks.checkout(tmp_path):
        yield tmp_path


@pytest.mark.parametrize("name", [name for name, text in PAGES.items() if runs(text, slow=False)])
def test_the_blocks_of_a_page_run_and_print_what_it_shows(name, fresh):
    stale = {output.shown.text[:60]: blocks.differences(output) for output in blocks.run(PAGES[name])}
    assert {shown: lines for shown, lines in stale.items() if lines} == {}, f"python docs/make/blocks.py {name}"


@pytest.fixture(scope="module")
def main_study(tmp_path_factory):
    """A folder in which the main job has run, with what it printed."""
    return blocks.main_study(tmp_path_factory.mktemp("main"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, text in PAGES.items() if runs(text, slow=True)])
def test_the_blocks_that_train_run_and_print_what_the_page_shows(name, fresh, main_study):
    outputs = blocks.run(PAGES[name], slow=True, main=main_study)
    stale = {output.shown.text[:60]: blocks.differences(output) for output in outputs}
    assert {shown: lines for shown, lines in stale.items() if lines} == {}


def test_every_block_of_code_has_a_language_that_is_run_or_a_title_or_is_a_mapping_of_the_samples():
    samples = [path.read_text() for folder in ("examples", "tests/samples") for path in (ROOT / folder).glob("*.yaml")]
    other = []
    for name, text in PAGES.items():
        for block in blocks.blocks(text):
            is_picture = not block.language and not re.search(r"^(skillscale|python|mlflow) ", block.text, re.MULTILINE)
            is_mapping = block.language == "yaml" and any(block.text in sample for sample in samples)
            if not (block.language in ("bash", "python", "text") or block.title or is_picture or is_mapping):
                other.append((name, block.text[:40]))
    assert other == [("docs/guide/reference/columns.md", "n_params: {total: params, non_embedding:")], (
        "read by test_run_table"
    )


def test_few_blocks_are_not_run_and_each_says_why():
    reasons = {(name, block.reason) for name, text in PAGES.items() for block in blocks.blocks(text) if block.reason}
    assert len(reasons) <= 20
    assert all(
        reason.split()[0] in ("needs", "installs", "starts", "downloads", "changes", "runs") for _, reason in reasons
    )


def output(shown, printed):
    block = blocks.Block(language="text", title="", text=shown, mark="", start=0)
    return blocks.Output(shown=block, printed=printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("N* 4.9B\n", "N* 4.9B\n"),
        ("N* 4.9B [4.1B, 5.8B]\n", "N* 4.9B [4.1B, 5.9B]\n"),
        ("ready in 4.3 s\n", "ready in 12 s\n"),
        ("[...]\nlast\n", "first\nsecond\nlast\n"),
        ("first\n[...]\n", "first\nsecond\nlast\n"),
        ("a\n[...]\nc\n[...]\ne\n", "a\nb\nc\nd\ne\n"),
    ],
)
def test_an_output_that_is_current_passes(shown, printed):
    assert blocks.differences(output(shown, printed)) == []


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("N* 4.9B\n", "N* 5.9B\n"),
        ("N* 4.9B\n", "N* 4.9M\n"),
        ("worth: code\n", "weights: code\n"),
        ("first\nlast\n", "first\nsecond\nlast\n"),
        ("first\n", "first\nsecond\n"),
        ("second\n", "first\nsecond\n"),
        ("a\nb\n", "b\na\n"),
    ],
)
def test_a_stale_output_is_found(shown, printed):
    assert blocks.differences(output(shown, printed)) != []


def test_a_page_is_run_in_order_and_its_outputs_are_rewritten(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (
        '```csv title="a.csv"\nx\n```\n\n```bash\ncat a.csv; echo two  # a comment\n```\n\n```text\nold\n```\n\n'
        "<!-- not run: needs luck -->\n```bash\nfalse\n```\n\n```text\nkept\n```\n\n"
        "<!-- slow -->\n```bash\nfalse\n```\n\n```python\nx = 3\n```\n```python\nprint(x, 1, 2, sep='\\n')\n```\n"
        "```text\n[...]\n4\n```\n"
    )
    outputs = blocks.run(page)
    assert [output.printed for output in outputs] == ["x\ntwo\n", "3\n1\n2\n"]
    again = blocks.rewritten(page, outputs)
    assert "```text\nx\ntwo\n```" in again
    assert "```text\nkept\n```" in again
    assert again.endswith("```text\n[...]\n2\n```\n")
    assert blocks.rewritten(again, blocks.run(again)) == again


def test_an_output_may_stand_apart_from_its_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = "```bash\necho 1\n```\n```bash\necho 2\n```\n<!-- output of: echo 1 -->\n```text\n1\n```\n"
    assert [blocks.differences(output) for output in blocks.run(page)] == [[]]


def test_a_page_that_needs_the_main_study_gets_its_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main = tmp_path / "main"
    main.mkdir()
    (main / "main.txt").write_text("a table\n")
    (main / "mlflow.db").write_text("")
    page = (
        "<!-- slow -->\n```bash\nskillscale main\n```\n```text\na table\n```\n"
        "<!-- slow, after main -->\n```bash\nls mlflow.db\n```\n```text\nmlflow.db\n```\n"
    )
    assert [blocks.differences(output) for output in blocks.run(page, slow=True, main=main)] == [[], []]
    assert blocks.run(page) == []


def test_a_block_that_fails_says_which(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match="false ended with 1"):
        blocks.run("```bash\nfalse\n```\n")


def test_the_product_part_of_the_docs_is_short():
    words = {
        name: len(text.split()) for name, text in PAGES.items() if "/reference/" not in name
    }  # looked up, not read
    assert 500 <= words.pop("README.md") <= 700
    assert sum(words.values()) <= 15_000


def test_the_architecture_names_files_and_classes_that_there_are():
    page = PAGES["docs/architecture.md"]
    package = ROOT / "src" / "skillscale"
    files = set(re.findall(r"`([\w/]+(?:\.py|/))`", page))
    assert len(files) > 30
    roots = (package, package / "laws", ROOT)
    assert [name for name in files if not any((root / name).exists() for root in roots)] == []
    source = "\n".join(path.read_text() for path in package.rglob("*.py"))
    classes = set(re.findall(r"`([A-Z][a-z]+[A-Z]\w+|Config|Measurement|Optimum|Mix)`", page))
    assert len(classes) >= 10
    assert [name for name in classes if not re.search(rf"^(class {name}\b|{name} = )", source, re.MULTILINE)] == []
