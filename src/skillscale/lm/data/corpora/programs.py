"""The programs corpus: random short Python programs that end, each followed by what it prints.

Their grammar is ours and every program is run once when it is made. There are as many as one likes and none needs to
be remembered: the opposite of the biographies.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from skillscale.lm.data.corpora.items import Corpus, Document, Item, seeded

LABEL = "made: programs"
STREAM_BYTES = 40_000_000
VALIDATION_BYTES = 200_000
SET_ITEMS = {"progs_output": 1000, "progs_text": 500}
OUTPUT = "# Output:"
_STATEMENTS = (2, 5)
_LONGEST = 40  # characters of an output; the few programs that print more are left out
_LAST_SHOWN = 0.7  # of the programs print what was bound last, so that most statements matter
_NUMBERS, _LISTS, _TEXTS = ("a", "b", "c"), ("p", "q"), ("s", "t")
_WORDS = ("ab", "cd", "efg", "hi", "jk", "lmn", "op", "qr")
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class _Names:
    """The names that are bound so far, by what they hold, and every binding in turn; a function takes a number."""

    numbers: list[str] = field(default_factory=list)
    lists: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    bindings: list[str] = field(default_factory=list)


def build(*, stream_bytes: int = STREAM_BYTES, validation_bytes: int = VALIDATION_BYTES) -> Corpus:
    """Programs to train on, to validate, and to evaluate: their outputs, and their text."""
    made = list(programs("train", stream_bytes))
    known = {source for source, _ in made}
    answers = Counter(output for _, output in made)
    train = [Document(document(source, output), LABEL) for source, output in made]
    outputs, dropped_outputs = _new("outputs", SET_ITEMS["progs_output"], known)
    texts, dropped_texts = _new("texts", SET_ITEMS["progs_text"], known)
    return Corpus(
        train=train,
        validation=[Document(document(*one), LABEL) for one in programs("validation", validation_bytes)],
        sets={
            "progs_output": [output_item(*one, answers) for one in outputs],
            "progs_text": [Item(prompt="", completion=source) for source, _ in texts],
        },
        dropped={"progs_output": dropped_outputs, "progs_text": dropped_texts},
    )


def programs(seed: str, max_bytes: int) -> Iterator[tuple[str, str]]:
    """Endless programs with their outputs, cut at ``max_bytes`` of documents."""
    rng = seeded("progs", seed)
    size = 0
    while size < max_bytes:
        source = program(rng)
        output = printed(source)
        if len(output) <= _LONGEST:
            size += len(document(source, output))
            yield source, output


def document(source: str, output: str) -> str:
    """A training text: the program, and what it prints."""
    return f"{source}{OUTPUT} {output}\n"


def output_item(source: str, output: str, answers: Mapping[str, int]) -> Item:
    """``ideal_nll``: nats of a guesser who knows how often each output occurs in training, but not the program."""
    total = sum(answers.values())
    guess = math.log((total + len(answers) + 1) / (answers.get(output, 0) + 1))
    return Item(prompt=source + OUTPUT, completion=f" {output}\n", meta={"ideal_nll": round(guess, 6)})


def printed(source: str) -> str:
    """What a program of ``program`` prints; it ends, as it has no loops but over short ranges and lists."""
    said: list[str] = []
    names = {"__builtins__": {"print": lambda value: said.append(str(value)), "range": range, "len": len, "sum": sum}}
    exec(source, names)  # noqa: S102 - made by the grammar below, and by nobody else
    return said[0]


def program(rng: Random) -> str:
    """A program of some statements over few variables, which prints one of them last."""
    names = _Names()
    low, high = _STATEMENTS
    lines = [_number(rng, names)]
    lines += [_pick(rng, _KINDS)(rng, names) for _ in range(low + int((high - low + 1) * rng.random()))]
    shown = names.bindings[-1] if rng.random() < _LAST_SHOWN else _pick(rng, names.bindings)
    return "".join(lines) + f"print({shown})\n"


def _new(seed: str, count: int, known: set[str]) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """So many different programs with outputs that are not among the known, and how many were looked at."""
    taken: dict[str, str] = {}
    checked = 0
    for source, output in programs(seed, STREAM_BYTES):
        if len(taken) == count:
            break
        checked += 1
        if source not in known:
            taken[source] = output
    return list(taken.items()), {"checked": checked, "dropped": checked - len(taken)}


def _number(rng: Random, names: _Names) -> str:
    return f"{_bound(rng, names, names.numbers, _NUMBERS)} = {_digit(rng)}\n"


def _arithmetic(rng: Random, names: _Names) -> str:
    value = _sum(rng, names)
    return f"{_bound(rng, names, names.numbers, _NUMBERS)} = {value}\n"


def _branch(rng: Random, names: _Names) -> str:
    """Both branches bind the same number."""
    test = f"{_pick(rng, names.numbers)} {_pick(rng, ('<', '>', '=='))} {_operand(rng, names)}"
    yes, no = _sum(rng, names), _sum(rng, names)
    name = _bound(rng, names, names.numbers, _NUMBERS)
    return f"if {test}:\n    {name} = {yes}\nelse:\n    {name} = {no}\n"


def _loop(rng: Random, names: _Names) -> str:
    over = _pick(rng, names.lists) if names.lists and rng.random() < 0.5 else f"range({2 + int(4 * rng.random())})"
    name = _pick(rng, names.numbers)
    names.bindings.append(name)
    return f"for i in {over}:\n    {name} = {name} {_pick(rng, '+-')} i\n"


def _list(rng: Random, names: _Names) -> str:
    """A list of two numbers or more, which can be read at 0, 1 and -1."""
    if names.lists and rng.random() < 0.5:
        name = _pick(rng, names.lists)
        names.bindings.append(name)
        return f"{name} = {name} + [{_operand(rng, names)}]\n"
    values = ", ".join(_digit(rng) for _ in range(2 + int(3 * rng.random())))
    return f"{_bound(rng, names, names.lists, _LISTS)} = [{values}]\n"


def _read(rng: Random, names: _Names) -> str:
    """A number read from a list or a text."""
    if not names.lists and not names.texts:
        return _list(rng, names)
    forms = ("{p}[0]", "{p}[1]", "{p}[-1]", "sum({p})", "len({p})")
    value = _pick(rng, forms).format(p=_pick(rng, names.lists)) if names.lists else f"len({_pick(rng, names.texts)})"
    return f"{_bound(rng, names, names.numbers, _NUMBERS)} = {value}\n"


def _call(rng: Random, names: _Names) -> str:
    made = ""
    if not names.functions:
        names.functions.append("f")
        made = f"def f(x):\n    return x * {_digit(rng)} {_pick(rng, '+-')} {_digit(rng)}\n"
    value = f"f({_operand(rng, names)})"
    return f"{made}{_bound(rng, names, names.numbers, _NUMBERS)} = {value}\n"


def _text(rng: Random, names: _Names) -> str:
    if names.texts and rng.random() < 0.5:
        value = _pick(rng, ("{s} + {w}", "{w} + {s}", "{s} * 2", "{s}[1:]", "{s}[0]"))
        value = value.format(s=_pick(rng, names.texts), w=f"'{_pick(rng, _WORDS)}'")
    else:
        value = f"'{_pick(rng, _WORDS)}'"
    return f"{_bound(rng, names, names.texts, _TEXTS)} = {value}\n"


# Arithmetic twice: it is what most programs are made of
_KINDS: tuple[Callable[[Random, _Names], str], ...] = (
    _number, _arithmetic, _arithmetic, _branch, _loop, _list, _read, _call, _text,
)  # fmt: skip


def _sum(rng: Random, names: _Names) -> str:
    """Two operands; a product is kept below ten, so that no value outgrows a short text."""
    left, right = _pick(rng, names.numbers), _operand(rng, names)
    return _pick(rng, ("{l} + {r}", "{l} - {r}", "{l} * {r} % 10")).format(l=left, r=right)


def _operand(rng: Random, names: _Names) -> str:
    return _pick(rng, names.numbers) if rng.random() < 0.5 else _digit(rng)


def _digit(rng: Random) -> str:
    return str(1 + int(9 * rng.random()))


def _bound(rng: Random, names: _Names, bound: list[str], among: Sequence[str]) -> str:
    """A name of those there are, noted as bound."""
    name = _pick(rng, among)
    if name not in bound:
        bound.append(name)
    names.bindings.append(name)
    return name


def _pick(rng: Random, among: Sequence[_T]) -> _T:
    """As ``rng.choice``, in a third of its time."""
    return among[int(len(among) * rng.random())]
