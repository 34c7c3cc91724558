"""The programs corpus: random short Python programs that end, each followed by its output.

A small grammar makes the programs, and each is run once when it is made. Their number is unlimited and none needs to be
memorised: the opposite of the biographies.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from skillscale.lm.data.corpora.items import Corpus, Document, Item, seeded_rng

LABEL = "made: programs"
STREAM_BYTES = 40_000_000
VALIDATION_BYTES = 200_000
SET_ITEMS = {"progs_output": 1000, "progs_text": 500}
OUTPUT = "# Output:"
_STATEMENTS = (2, 5)
_MAX_OUTPUT = 40  # characters; the few programs that print more are skipped
_LAST_SHOWN = 0.7  # share of programs that print the variable bound last, so that most statements matter
_NUMBERS, _LISTS, _TEXTS = ("a", "b", "c"), ("p", "q"), ("s", "t")
_WORDS = ("ab", "cd", "efg", "hi", "jk", "lmn", "op", "qr")
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class _Names:
    """The names bound so far by type, and every binding in order; a function takes a number."""

    numbers: list[str] = field(default_factory=list)
    lists: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    bindings: list[str] = field(default_factory=list)


def build(*, stream_bytes: int = STREAM_BYTES, validation_bytes: int = VALIDATION_BYTES) -> Corpus:
    """Build programs for training, for validation and for evaluation (of their outputs, and of their text)."""
    training = list(programs("train", stream_bytes))
    sources = {source for source, _ in training}
    answers = Counter(output for _, output in training)
    train = [Document(document(source, output), LABEL) for source, output in training]
    outputs, dropped_outputs = _new_programs("outputs", SET_ITEMS["progs_output"], sources)
    texts, dropped_texts = _new_programs("texts", SET_ITEMS["progs_text"], sources)
    return Corpus(
        train=train,
        validation=[
            Document(document(source, output), LABEL) for source, output in programs("validation", validation_bytes)
        ],
        sets={
            "progs_output": [output_item(source, output, answers) for source, output in outputs],
            "progs_text": [Item(prompt="", completion=source) for source, _ in texts],
        },
        dropped={"progs_output": dropped_outputs, "progs_text": dropped_texts},
    )


def programs(seed: str, max_bytes: int) -> Iterator[tuple[str, str]]:
    """Yield programs with their outputs until their documents reach ``max_bytes``."""
    rng = seeded_rng("progs", seed)
    size = 0
    while size < max_bytes:
        source = program(rng)
        output = run_program(source)
        if len(output) <= _MAX_OUTPUT:
            size += len(document(source, output))
            yield source, output


def document(source: str, output: str) -> str:
    """Write a training text: the program and its output."""
    return f"{source}{OUTPUT} {output}\n"


def output_item(source: str, output: str, answers: Mapping[str, int]) -> Item:
    """Make an item; ``ideal_nll``: nats of a guesser who knows only how often training has each output."""
    total = sum(answers.values())
    guess = math.log((total + len(answers) + 1) / (answers.get(output, 0) + 1))
    return Item(prompt=source + OUTPUT, completion=f" {output}\n", meta={"ideal_nll": round(guess, 6)})


def run_program(source: str) -> str:
    """Return the output of a program of ``program``; it ends, because its loops are over short ranges and lists."""
    lines: list[str] = []
    names = {"__builtins__": {"print": lambda value: lines.append(str(value)), "range": range, "len": len, "sum": sum}}
    exec(source, names)  # noqa: S102 - the grammar below makes every program
    return lines[0]


def program(rng: Random) -> str:
    """Make a program of some statements over few variables, which prints one of them at the end."""
    names = _Names()
    low, high = _STATEMENTS
    lines = [_number(rng, names)]
    lines += [_pick(rng, _KINDS)(rng, names) for _ in range(low + int((high - low + 1) * rng.random()))]
    shown = names.bindings[-1] if rng.random() < _LAST_SHOWN else _pick(rng, names.bindings)
    return "".join(lines) + f"print({shown})\n"


def _new_programs(seed: str, count: int, excluded: set[str]) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """Return ``count`` distinct programs outside ``excluded`` with their outputs, and how many were checked."""
    taken: dict[str, str] = {}
    checked = 0
    for source, output in programs(seed, STREAM_BYTES):
        if len(taken) == count:
            break
        checked += 1
        if source not in excluded:
            taken[source] = output
    return list(taken.items()), {"checked": checked, "dropped": checked - len(taken)}


def _number(rng: Random, names: _Names) -> str:
    return f"{_bind(rng, names, names.numbers, _NUMBERS)} = {_digit(rng)}\n"


def _arithmetic(rng: Random, names: _Names) -> str:
    value = _sum(rng, names)
    return f"{_bind(rng, names, names.numbers, _NUMBERS)} = {value}\n"


def _branch(rng: Random, names: _Names) -> str:
    """Bind the same number in both branches."""
    test = f"{_pick(rng, names.numbers)} {_pick(rng, ('<', '>', '=='))} {_operand(rng, names)}"
    positive, negative = _sum(rng, names), _sum(rng, names)
    name = _bind(rng, names, names.numbers, _NUMBERS)
    return f"if {test}:\n    {name} = {positive}\nelse:\n    {name} = {negative}\n"


def _loop(rng: Random, names: _Names) -> str:
    iterable = _pick(rng, names.lists) if names.lists and rng.random() < 0.5 else f"range({2 + int(4 * rng.random())})"
    name = _pick(rng, names.numbers)
    names.bindings.append(name)
    return f"for i in {iterable}:\n    {name} = {name} {_pick(rng, '+-')} i\n"


def _list(rng: Random, names: _Names) -> str:
    """Bind a list of two numbers or more, so that the indices 0, 1 and -1 exist."""
    if names.lists and rng.random() < 0.5:
        name = _pick(rng, names.lists)
        names.bindings.append(name)
        return f"{name} = {name} + [{_operand(rng, names)}]\n"
    values = ", ".join(_digit(rng) for _ in range(2 + int(3 * rng.random())))
    return f"{_bind(rng, names, names.lists, _LISTS)} = [{values}]\n"


def _read(rng: Random, names: _Names) -> str:
    """Bind a number that is read from a list or a text."""
    if not names.lists and not names.texts:
        return _list(rng, names)
    forms = ("{p}[0]", "{p}[1]", "{p}[-1]", "sum({p})", "len({p})")
    value = _pick(rng, forms).format(p=_pick(rng, names.lists)) if names.lists else f"len({_pick(rng, names.texts)})"
    return f"{_bind(rng, names, names.numbers, _NUMBERS)} = {value}\n"


def _call(rng: Random, names: _Names) -> str:
    definition = ""
    if not names.functions:
        names.functions.append("f")
        definition = f"def f(x):\n    return x * {_digit(rng)} {_pick(rng, '+-')} {_digit(rng)}\n"
    value = f"f({_operand(rng, names)})"
    return f"{definition}{_bind(rng, names, names.numbers, _NUMBERS)} = {value}\n"


def _text(rng: Random, names: _Names) -> str:
    if names.texts and rng.random() < 0.5:
        value = _pick(rng, ("{s} + {w}", "{w} + {s}", "{s} * 2", "{s}[1:]", "{s}[0]"))
        value = value.format(s=_pick(rng, names.texts), w=f"'{_pick(rng, _WORDS)}'")
    else:
        value = f"'{_pick(rng, _WORDS)}'"
    return f"{_bind(rng, names, names.texts, _TEXTS)} = {value}\n"


# Arithmetic twice: most statements are to be arithmetic
_KINDS: tuple[Callable[[Random, _Names], str], ...] = (
    _number, _arithmetic, _arithmetic, _branch, _loop, _list, _read, _call, _text,
)  # fmt: skip


def _sum(rng: Random, names: _Names) -> str:
    """Combine two operands; a product is taken modulo 10, so that every value stays short."""
    first, second = _pick(rng, names.numbers), _operand(rng, names)
    return _pick(rng, ("{l} + {r}", "{l} - {r}", "{l} * {r} % 10")).format(l=first, r=second)


def _operand(rng: Random, names: _Names) -> str:
    return _pick(rng, names.numbers) if rng.random() < 0.5 else _digit(rng)


def _digit(rng: Random) -> str:
    return str(1 + int(9 * rng.random()))


def _bind(rng: Random, names: _Names, bound: list[str], options: Sequence[str]) -> str:
    """Choose a name, record it as bound and return it."""
    name = _pick(rng, options)
    if name not in bound:
        bound.append(name)
    names.bindings.append(name)
    return name


def _pick(rng: Random, options: Sequence[_T]) -> _T:
    """Choose uniformly: takes a third of the time of ``rng.choice``."""
    return options[int(len(options) * rng.random())]
