"""The site builds without a warning, its links lead somewhere, and the reference says what the program says."""

import dataclasses
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml

from skillscale import cli, config

ROOT = Path(__file__).parents[2]


def loaded(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = loaded(ROOT / "docs" / "make" / "reference.py")


class Page(HTMLParser):
    """Links and anchors of a built page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        self.links += [values[name] for name in ("href", "src") if values.get(name)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as ``mkdocs build`` does, which is strict, unless a warning is ignored."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def test_every_link_within_the_site_leads_somewhere(site):
    pages = {name: Page(path.read_text()) for name, path in site.items() if name.endswith(".html")}
    lost = []
    for name, page in pages.items():
        for link in page.links:
            if re.match(r"(https?|data|mailto|javascript):", link) or name == "404.html":
                continue
            path, _, anchor = link.partition("#")
            target = os.path.normpath(Path(name).parent / path) if path else name
            if target not in site or (anchor and target in pages and anchor not in pages[target].anchors):
                lost.append((name, link))
    assert len(pages) > 20
    assert lost == []


def test_nothing_is_fetched_from_elsewhere_when_a_page_is_read(site):
    loads = re.compile(
        r"<(?:script|img|iframe)[^>]*src=\"(https?:[^\"]*)|<link[^>]*rel=\"(?:stylesheet|preconnect)\"[^>]*https?:"
    )
    assert [name for name, path in site.items() if name.endswith(".html") and loads.search(path.read_text())] == []


def test_the_reference_has_every_entry_and_every_parameter_with_its_help(site):
    text = reference.commands()
    for entry in cli.COMMANDS:
        assert f"## {entry.name}\n" in text
        part = text.split(f"## {entry.name}\n")[1].split("\n## ")[0]
        assert all(f"| `--{option.name}` |" in part for option in entry.parameters)
        assert "\n".join(["```bash", *entry.examples, "```"]) in part
        assert all(f"| {title or 'parameter'} | default | |" in part for title in entry.groups)
        assert ("It reads no settings." in part) == (not entry.settings)
    assert "worker" in site["guide/reference/commands.html"].read_text()


def classes(kind):
    """A settings' class and those that it holds."""
    yield kind
    for field in dataclasses.fields(kind):
        for part in re.findall(r"\w+Config", str(field.type)):
            yield from classes(getattr(config, part))


@pytest.mark.parametrize("kind", dict.fromkeys(part for noun in reference.NOUNS.values() for part in classes(noun)))
def test_every_setting_is_explained_where_it_is_declared(kind):
    texts = reference.key_texts(kind)
    assert set(texts) == {field.name for field in dataclasses.fields(kind)}
    assert all(text.endswith(".") and len(text) > 5 for text in texts.values())


@pytest.mark.parametrize("noun", config.NOUNS)
def test_the_reference_has_every_key_of_the_shipped_settings_and_their_comments(noun):
    part = reference.settings().split(f"\n## {noun}\n")[1].split("\n## ")[0]
    for path in [*config.conf_folder().glob(f"{noun}.yaml"), *(config.conf_folder() / noun).glob("*.yaml")]:
        assert all(f"| `{key}` |" in part for key in yaml.safe_load(path.read_text()))
        assert all(line.strip() in part for line in path.read_text().splitlines())


def test_comments_are_those_above_a_key_but_not_the_files_own():
    assert reference.comments("# the file\na: 1\n# of b,\n# both lines\nb: 2\nc: 3\n") == {"b": "of b, both lines"}


def test_kinds_are_shown_in_words_with_their_limits():
    text = reference.settings()
    assert "| `span` | number from 1 |" in text
    assert "| `device` | `auto` or `cpu` or `cuda` |" in text
    assert "| `seeds` | list of whole number from 1 to 100000 |" in text


def test_every_environment_variable_that_is_read_is_listed():
    names = re.compile(r"environ(?:\.get\(|\[)\"(SKILLSCALE_\w+)\"")
    read = {name for path in (ROOT / "src").rglob("*.py") for name in names.findall(path.read_text())}
    assert "SKILLSCALE_CONF" in read
    assert read <= set(reference.ENVIRONMENT)


def test_the_own_law_of_the_guide_finds_what_was_planted(capsys):
    page = (ROOT / "docs" / "guide" / "howto" / "own-law.md").read_text()
    code, printed = re.findall(r"```(?:python|text)\n(.*?)```", page, re.DOTALL)[:2]
    space = {"__name__": "own_law"}
    exec(compile(code, "own-law.md", "exec"), space)  # as a reader would paste it
    assert capsys.readouterr().out == printed
    assert space["fit"].parameters == pytest.approx(
        {"A": 8.8e13 ** (0.076 / 0.095), "B": 5.4e13, "alpha": 0.076, "beta": 0.095}, rel=1e-4
    )
    law = space["fit"].law
    theta = np.atleast_2d(space["fit"].theta)
    assert law.theta(law.log_parameters(theta)) == pytest.approx(theta)


def test_the_guides_name_parameters_that_there_are():
    options = {entry.name: {option.name for option in entry.parameters} for entry in cli.COMMANDS}
    wrong = []
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for line in re.findall(r"^skillscale (\w+)(.*)$", path.read_text(), re.MULTILINE):
            entry, words = line
            given = re.findall(r"--(\w+)(?![\w.])", words.partition("#")[0])
            wrong += [(path.name, entry, name) for name in given if entry not in options or name not in options[entry]]
    assert wrong == []


def test_the_planted_table_is_what_its_script_makes():
    planted = loaded(ROOT / "examples" / "planted.py")
    assert planted.table().to_csv(index=False) == (ROOT / "examples" / "planted.csv").read_text()
    assert (ROOT / "examples" / "planted.yaml").read_text() == planted.COLUMNS


def test_the_docstring_section_is_read_with_its_continuations():
    @dataclasses.dataclass
    class Two:
        """First.

        Args:
            a: one,
                and more.
            b: ``two``.
        """

        a: int
        b: int

    assert inspect.cleandoc(Two.__doc__).startswith("First.")
    assert reference.key_texts(Two) == {"a": "one, and more.", "b": "`two`."}
