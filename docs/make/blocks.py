"""Run the code blocks of a page in the order shown, and compare or rewrite its blocks of output.

    python docs/make/blocks.py [--slow] [PAGE ...]     # runs the pages and rewrites the outputs that changed

A page is run in a fresh folder that holds a copy of what a checkout has. What a block is, its fence says:

- ``bash``: commands, line by line. ``skillscale`` and ``python`` run in this process.
- ``python``: code, in one namespace a page. With a title it is a file instead, as every other block with a title is.
- ``text``: the output of the block above. A line ``[...]`` stands for any lines.

A comment above a fence changes that: ``<!-- slow -->`` for blocks that train, ``<!-- slow, after main -->`` for those
that need the main study, ``<!-- not run: REASON -->`` for those that need what a test lacks. An output apart from
its command has ``<!-- output of: COMMAND -->`` above it. Other fences are pictures.
"""

import contextlib
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/guide", "docs/architecture.md", "docs/index.md")
CHECKOUT = (
    "conf",
    "docker",
    "examples",
    "tests/samples",
    "MLproject",
    "python_env.yaml",
    "constraints.txt",
    "src",
    "benchmarks/controlled",
)
_FENCE = re.compile(r"^```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- (.*?) -->\n\Z")
_LOG = re.compile(r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d INFO .*\n", re.MULTILINE)  # of MLflow, on its tables
_SET_UP = 'python3.11 -m venv .venv && .venv/bin/pip install -c constraints.txt -e ".[train]" && .venv/bin/'


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of a page.

    Args:
        language: the word after the fence.
        title: the file that the block is, or nothing.
        text: what it holds.
        mark: the comment above it.
        start: place of the text in the page.
    """

    language: str
    title: str
    text: str
    mark: str
    start: int

    @property
    def reason(self) -> str:
        """Why the block is not run; empty where it is."""
        return self.mark.partition("not run: ")[2]

    @property
    def is_slow(self) -> bool:
        """Whether the block trains."""
        return self.mark.startswith("slow")

    @property
    def needs_main(self) -> bool:
        """Whether the block needs the main study."""
        return self.mark == "slow, after main"


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a block printed, and the block of text that shows it.

    Args:
        shown: the block on the page.
        printed: what the commands printed now.
    """

    shown: Block
    printed: str


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page."""
    fences = []
    for match in _FENCE.finditer(page):
        mark = _MARK.search(page[: match.start()])
        parts = {"language": match[1], "title": match[2] or "", "text": match[3], "start": match.start(3)}
        fences.append(Block(**parts, mark=mark[1] if mark else ""))
    return fences


def pages() -> list[Path]:
    """Return the pages whose blocks are run."""
    places = [ROOT / name for name in PAGES]
    return [page for place in places for page in (sorted(place.rglob("*.md")) if place.is_dir() else [place])]


@contextlib.contextmanager
def checkout(folder: Path) -> Iterator[Path]:
    """Copy what a checkout has, and make the copy the working folder."""
    folder.mkdir(exist_ok=True)
    for name in CHECKOUT:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, folder / name)
    with contextlib.chdir(folder):
        yield folder


def run(page: str, *, slow: bool = False, main: Path | None = None) -> list[Output]:
    """Run the blocks of a page in the working folder.

    Args:
        page: text of the page.
        slow: whether to run the blocks that train.
        main: folder in which ``skillscale main`` has run, with what it printed in ``main.txt``.

    Returns:
        The outputs of the blocks that were run and are shown.

    Raises:
        RuntimeError: a block failed.
    """
    space: dict[str, Any] = {"__name__": "page"}
    outputs: list[Output] = []
    done: dict[str, str] = {}
    last: str | None = None
    for block in blocks(page):
        if block.title:
            Path(block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "text":
            command = block.mark.partition("output of: ")[2]
            printed = next((text for code, text in done.items() if command in code), None) if command else last
            outputs += [] if printed is None else [Output(shown=block, printed=printed)]
            last = None
        elif block.language in ("bash", "python"):
            runs = not block.reason and (slow or not block.is_slow) and (main or not block.needs_main)
            if block.needs_main and runs and main:
                shutil.copytree(main, ".", dirs_exist_ok=True)
            last = _run(block, space, main) if runs else _skip(block)
            done |= {} if last is None else {block.text: last}
    return outputs


def main_study(folder: Path) -> Path:
    """Run the main job in a copy of the checkout; return a folder with its store and what it printed, in main.txt.

    Args:
        folder: an empty folder.
    """
    kept = folder / "kept"
    kept.mkdir()
    with checkout(folder / "checkout") as place:
        (printed,) = run("```bash\nskillscale main\n```\n\n```text\n```\n", slow=True)
        (kept / "main.txt").write_text(printed.printed, encoding="utf-8")
        for path in [*place.glob("mlflow*"), *place.glob("mlartifacts"), *place.glob("mlruns")]:
            path.rename(kept / path.name)
    return kept


def _skip(block: Block) -> None:
    """Change the folder as a block that is not run would have."""
    for folder in re.findall(r"^cd (\S+)$", block.text, re.MULTILINE):
        os.chdir(folder)


def _run(block: Block, space: dict[str, Any], main: Path | None) -> str:
    """Return what a block prints, with standard error. A file takes it, as workers are processes that print too."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as printed:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            if block.language == "python":
                exec(compile(block.text, "page", "exec"), space)
            else:
                for line in block.text.replace("\\\n", " ").splitlines():
                    _command(line.removeprefix(_SET_UP), printed, main)
        return _LOG.sub("", _read(printed))


def _read(printed: TextIO) -> str:
    printed.flush()
    printed.seek(0)
    return printed.read()


def _command(line: str, printed: TextIO, main: Path | None) -> None:
    """Run a line of a shell, in this process where it can be."""
    words = shlex.split(line, comments=True)
    if not words or words[0] == ".":  # to activate an environment
        return
    if words[0] == "cd":
        os.chdir(words[1])
    elif words == ["skillscale", "main"] and main is not None:
        printed.write((main / "main.txt").read_text(encoding="utf-8"))
    elif words[0] == "skillscale":
        from skillscale import cli

        code = cli.main(words[1:])
        if code:
            raise RuntimeError(f"{line} ended with {code}: {_read(printed)[-2000:]}")
    elif words[0] == "python" and words[1].endswith(".py"):
        before, sys.argv = (sys.argv, [*sys.path]), words[1:]
        sys.path.insert(0, str(Path(words[1]).resolve().parent))
        try:
            runpy.run_path(words[1], run_name="__main__")
        finally:
            sys.argv, sys.path[:] = before
    else:
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(["/bin/bash", "-c", line], check=False, capture_output=True, text=True, env=environment)
        printed.write(done.stdout)
        if done.returncode:
            raise RuntimeError(f"{line} ended with {done.returncode}: {done.stderr[-2000:]}")


def differences(output: Output) -> list[str]:
    """Return what differs: lines that the page shows and the commands did not print, and the reverse."""
    lines = [_normal(line) for line in output.printed.strip("\n").splitlines()]
    at, lost, is_free = 0, [], False
    for line in output.shown.text.strip("\n").splitlines():
        if line.strip() == "[...]":
            is_free = True
            continue
        places = range(at, len(lines) if is_free else min(at + 1, len(lines)))
        place = next((place for place in places if _same(lines[place], _normal(line))), None)
        if place is None:
            lost.append(f"not printed: {line}")
        else:
            at, is_free = place + 1, False
    return lost + [f"not shown: {line}" for line in lines[at:] if not is_free and not lost]


def _normal(line: str) -> str:
    """Return a line without what differs from run to run: ids, durations, trailing space."""
    line = re.sub(r"\b[0-9a-f]{32}\b", "ID", line)
    return re.sub(r"\b\d+(\.\d+)? (ms|s|min|h)\b", "TIME", line).rstrip()


def _same(printed: str, shown: str) -> bool:
    """Whether two lines have the same words, and numbers within 2 %: last digits are another processor's business."""
    ours, theirs = printed.split(), shown.split()
    return len(ours) == len(theirs) and all(map(_same_word, ours, theirs))


def _same_word(printed: str, shown: str) -> bool:
    number = r"\d+(?:\.\d+)?(?:e[-+]?\d+)?"
    if printed == shown:
        return True
    if re.sub(number, "#", printed) != re.sub(number, "#", shown) and set(printed + shown) != {"─"}:
        return False
    pairs = zip(re.findall(number, printed), re.findall(number, shown), strict=True)
    return all(abs(float(a) - float(b)) <= 0.02 * max(abs(float(a)), abs(float(b))) + _unit(b) for a, b in pairs)


def _unit(number: str) -> float:
    """One in the last digit of a number that is shown."""
    mantissa, _, exponent = number.partition("e")
    return float(10 ** (int(exponent or 0) - len(mantissa.partition(".")[2])))


def rewritten(page: str, outputs: Sequence[Output]) -> str:
    """Return a page with the outputs as they are now; ``[...]`` keeps its place by the lines around it."""
    for output in sorted(outputs, key=lambda output: -output.shown.start):
        if differences(output):
            start = output.shown.start
            page = page[:start] + _elided(output) + page[start + len(output.shown.text) :]
    return page


def _elided(output: Output) -> str:
    """Return the printed lines, cut as the page cuts them: head and tail by length, parts between by their words."""
    lines = [line.rstrip() for line in output.printed.strip("\n").splitlines()]
    head, *parts = [part.strip("\n").splitlines() for part in re.split(r"(?m)^\[\.\.\.\]$", output.shown.text)]
    if not parts:
        return "\n".join(lines) + "\n"
    tail = parts.pop()
    at, kept = len(head), [lines[: len(head)]]
    for part in parts:
        place = next((place for place in range(at, len(lines)) if _begins_alike(lines[place], part[0])), None)
        kept.append(part if place is None else lines[place : place + len(part)])  # what is lost stays, and stays stale
        at = at if place is None else place + len(part)
    kept.append(lines[max(at, len(lines) - len(tail)) :] if tail else [])
    return "\n[...]\n".join("\n".join(part) for part in kept).strip("\n") + "\n"


def _begins_alike(printed: str, shown: str) -> bool:
    return printed.split()[:2] == shown.split()[:2]


def rewrite(path: Path, *, slow: bool = False, main: Path | None = None) -> int:
    """Run a page in a fresh folder and write its outputs; return how many changed."""
    page = path.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder, checkout(Path(folder)):
        outputs = run(page, slow=slow, main=main)
    changed = [output for output in outputs if differences(output)]
    path.write_text(rewritten(page, changed), encoding="utf-8")
    return len(changed)


if __name__ == "__main__":
    is_slow = "--slow" in sys.argv
    chosen = [Path(name).resolve() for name in sys.argv[1:] if name != "--slow"] or pages()
    with tempfile.TemporaryDirectory() as place:
        study = main_study(Path(place)) if is_slow else None
        for path in chosen:
            count = rewrite(path, slow=is_slow, main=study)
            sys.stdout.write(f"{path.relative_to(ROOT)}: {count} outputs changed\n")
