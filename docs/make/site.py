"""Hooks of the site: pages made while it is built, and files of the repository that pages link to."""

import importlib.util
import json
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
_OUTSIDE = re.compile(r"\]\(((?:\.\./)+[^)#\s]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference, and every file outside docs/ that a page links to."""
    story = json.loads((ROOT / "examples" / "story.ipynb").read_text(encoding="utf-8"))
    for place, text in {
        **_neighbour("reference").pages(),
        "guide/story.md": _neighbour("notebook").page(story),
    }.items():
        files.append(File.generated(config, place, content=text))
    for page in files.documentation_pages():
        if page.generated_by is None:
            for target in _outside(page.content_string, page.src_uri):
                _add(files, config, target)
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Point links that leave docs/ at the copies in the site."""

    def inside(match: re.Match[str]) -> str:
        target = _target(match[1], page.file.src_uri)
        if target is None:
            return match[0]
        depth = "../" * page.file.src_uri.count("/")
        return f"]({depth}{_place(target)}{match[2] or ''})"

    return _OUTSIDE.sub(inside, markdown)


def _outside(markdown: str, page: str) -> set[Path]:
    targets = (_target(match[1], page) for match in _OUTSIDE.finditer(markdown))
    return {target for target in targets if target is not None}


def _target(link: str, page: str) -> Path | None:
    """Return the file of the repository that a link of a page leads to; None where it stays in docs/."""
    target = Path(os.path.normpath(ROOT / "docs" / Path(page).parent / link))
    if target.is_relative_to(ROOT / "docs"):
        return None
    if not target.exists():
        raise PluginError(f"docs/{page} links to {link}, which is not in the repository")
    return target


def _place(target: Path) -> str:
    """Where in the site a file of the repository stands; a folder is a page that lists it, Markdown a plain file."""
    name = target.relative_to(ROOT).as_posix()
    if target.is_dir():
        return f"files/{name}/index.md"
    return f"files/{name}.txt" if target.suffix == ".md" else f"files/{name}"


def _add(files: Files, config: MkDocsConfig, target: Path) -> None:
    place = _place(target)
    if files.get_file_from_path(place) is not None:
        return
    if target.is_dir():
        inside = sorted(path for path in target.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        for path in inside:
            _add(files, config, path)
        here = Path(place).parent
        names = [Path(_place(path)).relative_to(here).as_posix() for path in inside]
        text = "\n".join([f"# {target.relative_to(ROOT).as_posix()}", "", *(f"- [{name}]({name})" for name in names)])
        files.append(File.generated(config, place, content=text))
    else:
        files.append(File.generated(config, place, abs_src_path=str(target)))


def _neighbour(name: str) -> Any:
    """Return a module of this folder: hooks are loaded by path and cannot import their neighbours."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
