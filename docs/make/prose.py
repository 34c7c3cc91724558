"""Check the prose of the project: README, docs, help, messages, docstrings and comments.

    python docs/make/prose.py [PATH ...]     # prints what breaks a rule, as PATH:LINE: RULE: QUOTE

The rules are those of CONTRIBUTING.md: no word of the ban list, numbers in one format, and short sentences in docs and
messages. Only the standard library is needed: sources are parsed, not imported.
"""

import ast
import io
import json
import re
import sys
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
MOST_WORDS = 25

BANNED = {
    "tell": r"\b(tell|tells|told|telling)\b(?! N from D)",
    "own as a verb": (
        r"\b(owns|owned|owning)\b|"
        r"\b(to|they|we|you|that|which|who|must|can|may|will|intervals|laws|optima) own\b"
    ),
    "lie off": r"\b(lie|lies|lay|lying) (\w+ )?off\b",
    "by name": r"\bby name\b",
    "beside": r"\bbesides?\b",
    "anew": r"\banew\b",
    "so many": r"\bso many\b",
    "leave out": r"\b(leave|leaves|left|leaving) (\w+ ){0,3}out\b",
    "worth": r"\bworth\b(?! (\w+ing|it)\b)",
    "what is known": r"\bwhat (is|was|are) known\b",
}
NUMBERS = {
    "a leading zero": r"(?<![\w.)\]}/%:$'\"~…-])[-−+±]?\.\d(?!\w*[a-z]{2})",
    "no plus in an exponent": r"\d[eE]\+\d",
    "a space before %": r"\d%(?![\w(])",
}
_RULES = {rule: re.compile(pattern, re.IGNORECASE) for rule, pattern in (BANNED | NUMBERS).items()}

# Calls whose text a person reads
_SPEAKERS = {"progress", "text", "warn", "warning"}


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A piece of prose and where it stands.

    Args:
        path: the file, relative to the repository.
        line: its first line.
        kind: docs, research, message, help, string, docstring or comment.
        text: the prose, without code.
    """

    path: str
    line: int
    kind: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A broken rule.

    Args:
        path: the file, relative to the repository.
        line: the first line of the passage.
        rule: the rule that is broken.
        quote: the words around it.
    """

    path: str
    line: int
    rule: str
    quote: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.quote}"


def faults(passages: Sequence[Passage]) -> list[Fault]:
    """Return every broken rule of some passages."""
    return [fault for passage in passages for fault in _faults_of(passage)]


def _faults_of(passage: Passage) -> Iterator[Fault]:
    for rule, pattern in _RULES.items():
        if rule == "by name" and passage.kind in ("docstring", "comment"):  # there it says what a mapping is keyed by
            continue
        for match in pattern.finditer(passage.text):
            lower = max(match.start() - 30, 0)
            quote = " ".join(passage.text[lower : match.end() + 30].split())
            yield Fault(path=passage.path, line=passage.line, rule=rule, quote=quote)
    if passage.kind in ("docs", "message", "help"):
        for sentence in sentences(passage.text):
            words = count_words(sentence)
            if words > MOST_WORDS:
                rule = f"{words} words in a sentence"
                yield Fault(path=passage.path, line=passage.line, rule=rule, quote=sentence[:90])
            if sentence.count(";") > {"docs": 1, "message": 0}.get(passage.kind, 3):
                yield Fault(path=passage.path, line=passage.line, rule="semicolons", quote=sentence[:90])


def sentences(text: str) -> list[str]:
    """Split prose at full stops, question marks, exclamation marks and colons."""
    plain = re.sub(r"\b(et al|e\.g|i\.e|vs|eq|cf|Sec|Fig)\.", r"\1", " ".join(text.split()))
    return [part for part in re.split(r"(?<=[.!?:])[)\"”']?\s+|\n", plain) if part]


def count_words(sentence: str) -> int:
    """Count the tokens that hold a letter or a digit."""
    return sum(any(sign.isalnum() for sign in word) for word in sentence.split())


def markdown(path: Path, kind: str) -> list[Passage]:
    """Return the prose of a Markdown file: paragraphs, list items, headings and table cells, without code."""
    name = path.relative_to(ROOT).as_posix()
    return [
        Passage(path=name, line=line, kind=kind, text=_without_code(text))
        for line, text in _blocks(path.read_text(encoding="utf-8"))
    ]


def _blocks(text: str) -> Iterator[tuple[int, str]]:
    """Return the blocks of a Markdown text with their first lines; fenced code is skipped."""
    block: list[str] = []
    start, fence = 1, ""
    for number, line in enumerate([*text.splitlines(), ""], 1):
        stripped = line.strip()
        marker = re.match(r"(```+|~~~+)", stripped)
        if fence or marker:
            if block:
                yield start, "\n".join(block)
                block = []
            fence = "" if fence and stripped == fence else fence or (marker[1] if marker else "")
            continue
        begins = re.match(r"([-*+]|\d+\.|#+|\||>|===|\?\?\?|!!!)\s?", stripped)
        if (not stripped or begins) and block:
            yield start, "\n".join(block)
            block = []
        if stripped.startswith("|"):
            yield from ((number, cell.strip()) for cell in re.split(r"(?<!\\)\|", stripped) if cell.strip(" -:"))
        elif stripped:
            start = start if block else number
            block.append(re.sub(r"^([-*+]|\d+\.|#+|>)\s+", "", stripped))


def _without_code(text: str) -> str:
    """Markdown without code, addresses and HTML."""
    text = re.sub(r"(`+)(?:.|\n)+?\1", "X", text)
    text = re.sub(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"<[^>]+>|https?://\S+", "X", text)
    return re.sub(r"\*\*|\\(?=\W)", "", text)


def source(path: Path) -> list[Passage]:
    """Return the prose of a Python file: docstrings, comments, messages, help and other texts of four words or more."""
    text = path.read_text(encoding="utf-8")
    name = path.relative_to(ROOT).as_posix()
    tree = ast.parse(text)
    docstrings = {id(node.body[0].value): node for node in ast.walk(tree) if _has_docstring(node)}
    passages = []
    spoken = _spoken(tree)
    for node, line in _texts(tree, docstrings):
        kind = "docstring" if id(node) in docstrings else spoken.get(id(node), "string")
        words = _words_of(node)
        if kind in ("docstring", "message"):
            words = re.sub(r"``.*?``|`[^`]*`|>>>.*", "X", words, flags=re.DOTALL)
        if kind != "string" or (count_words(words) >= 4 and " " in words.strip() and "://" not in words):
            passages.append(Passage(path=name, line=line, kind=kind, text=words))
    return passages + _comments(text, name)


def _has_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None


def _spoken(tree: ast.AST) -> dict[int, str]:
    """Return the texts that are part of an error, of a call that prints, or of a help, by the id of their node."""
    kinds: dict[int, str] = {}
    for node in ast.walk(tree):
        inside: list[ast.AST] = []
        kind = "message"
        if isinstance(node, ast.Raise) and node.exc is not None:
            inside = [node.exc]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _SPEAKERS:
            inside = [*node.args]
        elif isinstance(node, ast.keyword) and node.arg == "help":
            inside, kind = [node.value], "help"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "option":
            inside, kind = [*node.args], "help"  # as skillscale.config.options declares one
        for part in inside:
            kinds |= {id(text): kind for text in ast.walk(part)}
    return kinds


def _texts(tree: ast.AST, docstrings: dict[int, ast.AST]) -> Iterator[tuple[ast.expr, int]]:
    """Return the longest texts: strings, f-strings and their sums."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.expr) and (id(node) in docstrings or _is_text(node)):
            yield node, node.lineno
            waiting += [part.value for part in ast.walk(node) if isinstance(part, ast.FormattedValue)]
        else:
            waiting += ast.iter_child_nodes(node)


def _is_text(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _is_text(node.left) and _is_text(node.right)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _words_of(node: ast.AST) -> str:
    """Return a text with X in place of values, and 1% for values that Python writes as per cent without a space."""
    if isinstance(node, ast.BinOp):
        return _words_of(node.left) + _words_of(node.right)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_words_of, node.values))
    if isinstance(node, ast.FormattedValue):
        spec = _words_of(node.format_spec) if node.format_spec else ""
        return "1%" if spec.endswith("%") else "1"
    return str(node.value) if isinstance(node, ast.Constant) else ""


def _comments(text: str, name: str) -> list[Passage]:
    """Whole comments: neighbouring lines are one passage."""
    passages: list[Passage] = []
    last = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            words = re.sub(r"`[^`]*`", "X", token.string.lstrip("# "))
            line = token.start[0]
            if passages and line == last + 1:
                words = f"{passages.pop().text} {words}"
            passages.append(Passage(path=name, line=line, kind="comment", text=words))
            last = line
    return passages


def notebook(path: Path) -> list[Passage]:
    """Return the prose of a notebook: its Markdown cells, by their number."""
    name = path.relative_to(ROOT).as_posix()
    cells = enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"], 1)
    texts = ((number, "".join(cell["source"])) for number, cell in cells if cell["cell_type"] == "markdown")
    return [
        Passage(path=name, line=number, kind="docs", text=_without_code(text))
        for number, cell in texts
        for _, text in _blocks(cell)
    ]


def settings(path: Path) -> list[Passage]:
    """Return the comments of a YAML or TOML file."""
    name = path.relative_to(ROOT).as_posix()
    lines = path.read_text(encoding="utf-8").splitlines()
    matches = ((number, re.search(r"(?:^|\s)#\s?(.*)", line)) for number, line in enumerate(lines, 1))
    return [
        Passage(path=name, line=number, kind="comment", text=_without_code(match[1]))
        for number, match in matches
        if match
    ]


def everything() -> list[Passage]:
    """Return the prose of the whole project."""
    docs = ROOT / "docs"
    passages = [
        passage for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md") for passage in markdown(ROOT / name, "docs")
    ]
    passages += markdown(ROOT / "CHANGELOG.md", "research") + notebook(ROOT / "examples" / "story.ipynb")
    passages += [passage for path in sorted((ROOT / "hub").rglob("*.md")) for passage in markdown(path, "research")]
    for path in sorted(docs.rglob("*.md")):
        passages += markdown(path, kind_of_page(path.relative_to(docs).as_posix()))
    for path in sorted((ROOT / "src").rglob("*.py")):
        passages += source(path)
    for path in sorted((ROOT / "conf").rglob("*.yaml")):
        passages += settings(path)
    return passages


def kind_of_page(name: str) -> str:
    """Return docs for the product part and research for the rest; sentences of the latter may be long."""
    return "docs" if name.startswith("guide/") or name in ("index.md", "architecture.md") else "research"


if __name__ == "__main__":
    paths = tuple(sys.argv[1:])
    chosen = [fault for fault in faults(everything()) if not paths or fault.path.startswith(paths)]
    sys.stdout.writelines(f"{fault}\n" for fault in chosen)
    sys.stdout.write(f"{len(chosen)} faults\n")
    sys.exit(bool(chosen))
