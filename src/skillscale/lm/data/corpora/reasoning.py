"""The reasoning corpus: questions that contain all that their answer follows from, made by rule, with short answers.

Each maker draws one task of a kind at a random difficulty. A third of the training documents show the steps before the
answer; the evaluation asks for the answer without steps. No question of the evaluation occurs in training.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from itertools import pairwise
from math import log
from random import Random
from typing import NamedTuple

from skillscale.lm.data.corpora.contamination import drop_prompts
from skillscale.lm.data.corpora.items import Corpus, Document, Item, seeded_rng

DOCUMENTS = {"tiny": 70_000, "small": 120_000, "medium": 300_000, "full": 600_000}
VALIDATION_DOCUMENTS = 3_000
SET_ITEMS = 1_600
STEPS_SHARE = 0.33
LABEL = "procedural"

NAMES = (
    "Ada", "Ben", "Cora", "Dan", "Eva", "Finn", "Gina", "Hugo", "Ines", "Jack", "Kira", "Leo", "Mia", "Noah", "Olga",
    "Paul", "Rosa", "Sam", "Tess", "Uma", "Vera", "Will", "Yara", "Zoe", "Anna", "Carl", "Lily", "Mark", "Nina", "Omar",
)  # fmt: skip
THINGS = (
    "apples", "books", "coins", "stamps", "marbles", "pencils", "cards", "shells", "eggs", "lemons", "tickets",
    "buttons", "stones", "flowers", "cups", "candles", "plums", "keys", "nails", "bottles",
)  # fmt: skip
GROUPS = (
    "cats", "birds", "poets", "robots", "fish", "singers", "horses", "sailors", "dragons", "doctors", "trees", "foxes",
    "farmers", "whales", "clocks", "pilots", "bakers", "kings", "planets", "engines",
)  # fmt: skip
ADJECTIVES = ("tall", "brave", "quiet", "green", "old", "clever", "cold", "fast", "kind", "round", "shy", "bright")
PLACES = (
    "kitchen",
    "garden",
    "cellar",
    "office",
    "attic",
    "hall",
    "library",
    "garage",
    "school",
    "station",
    "market",
    "park",
)
OBJECTS = ("ball", "key", "lamp", "letter", "hat", "book", "coin", "map", "cup", "ring", "umbrella", "clock")
LETTER_WORDS = (
    "table", "window", "orange", "summer", "bottle", "garden", "planet", "silver", "rabbit", "button", "letter",
    "mirror", "pepper", "castle", "banana", "forest", "ladder", "pencil", "winter", "yellow", "needle", "basket",
    "harbor", "kettle",
)  # fmt: skip
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class Task(NamedTuple):
    """A question, its steps in words (may be empty), and its answer."""

    question: str
    steps: str
    answer: str


Maker = Callable[[Random], Task]


def arithmetic(rng: Random) -> Task:
    """Draw a chain of operations from left to right, with small results."""
    value = rng.randint(2, 30)
    words, steps = [f"Start with {value}"], []
    for _ in range(rng.randint(2, 4)):
        operations = ["add", "subtract"] + (["multiply"] if value <= 20 else []) + (["halve"] if value % 2 == 0 else [])
        operation, number, before = rng.choice(operations), rng.randint(2, 20), value
        if operation == "add":
            value += number
            words.append(f"add {number}")
            steps.append(f"{before} + {number} = {value}")
        elif operation == "subtract":
            number = min(number, max(value - 1, 1))
            value -= number
            words.append(f"subtract {number}")
            steps.append(f"{before} - {number} = {value}")
        elif operation == "multiply":
            number = rng.randint(2, 5)
            value *= number
            words.append(f"multiply by {number}")
            steps.append(f"{before} * {number} = {value}")
        else:
            value //= 2
            words.append("halve it")
            steps.append(f"{before} / 2 = {value}")
    end = rng.choice(("What is the result?", "What do you get?", "Which number is it now?"))
    return Task(f"{', '.join(words)}. {end}", ", ".join(steps), str(value))


def expression(rng: Random) -> Task:
    """Draw an expression with precedence and at most one bracket."""
    a, b, c = rng.randint(2, 19), rng.randint(2, 12), rng.randint(2, 30)
    shape = rng.randrange(4)
    if shape == 0:
        text, steps, value = f"{a} + {b} * {c}", f"{b} * {c} = {b * c}, {a} + {b * c} = {a + b * c}", a + b * c
    elif shape == 1:
        text, steps, value = f"({a} + {b}) * {c}", f"{a} + {b} = {a + b}, {a + b} * {c} = {(a + b) * c}", (a + b) * c
    elif shape == 2:
        text, steps, value = f"{a} * {b} - {c}", f"{a} * {b} = {a * b}, {a * b} - {c} = {a * b - c}", a * b - c
    else:
        a, b = rng.randint(20, 99), rng.randint(10, 99)
        text, steps, value = f"{a} + {b} - {c}", f"{a} + {b} = {a + b}, {a + b} - {c} = {a + b - c}", a + b - c
    ask = rng.choice(("What is {}?", "Compute {}.", "Evaluate {}.", "How much is {}?"))
    return Task(ask.format(text), steps, str(value))


def story(rng: Random) -> Task:
    """Draw a story in which things change hands a few times."""
    who, other = rng.sample(NAMES, 2)
    thing, value = rng.choice(THINGS), rng.randint(3, 40)
    words, steps = [rng.choice((f"{who} has {value} {thing}.", f"There are {value} {thing} in {who}'s bag."))], []
    for _ in range(rng.randint(1, 3)):
        number, before = rng.randint(2, 15), value
        if value > number and rng.random() < 0.5:
            value -= number
            words.append(
                rng.choice(
                    (
                        f"{who} gives {number} to {other}.",
                        f"{who} loses {number} of them.",
                        f"{other} takes {number}.",
                        f"{who} sells {number}.",
                    )
                )
            )
            steps.append(f"{before} - {number} = {value}")
        else:
            value += number
            words.append(
                rng.choice(
                    (
                        f"{who} buys {number} more.",
                        f"{other} gives {who} another {number}.",
                        f"{who} finds {number} more.",
                    )
                )
            )
            steps.append(f"{before} + {number} = {value}")
    end = rng.choice((f"How many {thing} does {who} have now?", f"How many {thing} are left with {who}?"))
    return Task(f"{' '.join(words)} {end}", ", ".join(steps), str(value))


def shopping(rng: Random) -> Task:
    """Draw a purchase with prices, quantities and change."""
    who = rng.choice(NAMES)
    (thing, second), price, number = rng.sample(THINGS, 2), rng.randint(2, 12), rng.randint(2, 9)
    total = price * number
    if rng.random() < 0.5:
        paid = total + rng.randint(1, 30)
        text = rng.choice(
            (
                f"{who} buys {number} {thing} at {price} dollars each and pays with {paid} dollars. "
                f"How much change does {who} get?",
                f"One of the {thing} costs {price} dollars. {who} takes {number} and hands over {paid} dollars. "
                "What is the change?",
            )
        )
        return Task(text, f"{number} * {price} = {total}, {paid} - {total} = {paid - total}", f"{paid - total} dollars")
    cost = rng.randint(2, 30)
    text = rng.choice(
        (
            f"{who} buys {number} {thing} at {price} dollars each and some {second} for {cost} dollars. "
            f"What does {who} pay?",
            f"{number} {thing} at {price} dollars each and {second} for {cost} dollars: how much is that for {who}?",
        )
    )
    return Task(text, f"{number} * {price} = {total}, {total} + {cost} = {total + cost}", f"{total + cost} dollars")


def syllogism(rng: Random) -> Task:
    """Draw a chain of 'all', perhaps broken by a 'no', and whether a statement follows."""
    length = rng.randint(2, 4)
    groups, who, quality = rng.sample(GROUPS, length), rng.choice(NAMES), rng.choice(ADJECTIVES)
    links = [f"All {first} are {second}." for first, second in pairwise(groups)]
    negative = rng.random() < 0.4
    links.append(f"No {groups[-1]} are {quality}." if negative else f"All {groups[-1]} are {quality}.")
    member = rng.randrange(length)
    links.append(f"{who} is one of the {groups[member]}.")
    rng.shuffle(links)
    kind = rng.randrange(3)
    if kind == 0:
        question, answer = f"Is {who} {quality}?", "no" if negative else "yes"
        which = "none" if negative else "all"
        steps = f"{who} is one of the {groups[member]}, so of the {groups[-1]}, and {which} of these are {quality}"
    else:
        target = rng.randrange(length)
        question = rng.choice(
            (
                f"Does it follow that {who} is one of the {groups[target]}?",
                f"Must {who} be one of the {groups[target]}?",
            )
        )
        answer = "yes" if target >= member else "no"
        steps = f"{who} is one of the {', the '.join(groups[member:])}"
    return Task(f"{' '.join(links)} {question}", steps, answer)


def family(rng: Random) -> Task:
    """Draw parents, siblings and marriages, and the relation of two people."""
    a, b, c, d = rng.sample(NAMES, 4)
    tasks = (
        ((f"{a} is the parent of {b}.", f"{b} is the parent of {c}."), f"What is {a} to {c}?", "grandparent"),
        ((f"{a} is the parent of {b}.", f"{b} is the parent of {c}."), f"What is {c} to {a}?", "grandchild"),
        ((f"{a} is the parent of {b}.", f"{a} is the parent of {c}."), f"What is {b} to {c}?", "sibling"),
        ((f"{a} is the parent of {b}.", f"{c} is a sibling of {b}."), f"What is {a} to {c}?", "parent"),
        ((f"{a} is a sibling of {b}.", f"{b} is the parent of {c}."), f"What is {a} to {c}?", "aunt or uncle"),
        ((f"{a} is a sibling of {b}.", f"{b} is the parent of {c}."), f"What is {c} to {a}?", "niece or nephew"),
        (
            (f"{a} is the parent of {b}.", f"{b} is the parent of {c}.", f"{c} is the parent of {d}."),
            f"What is {a} to {d}?",
            "great-grandparent",
        ),
        (
            (f"{a} is the parent of {b}.", f"{c} is a sibling of {a}.", f"{d} is a child of {c}."),
            f"What is {b} to {d}?",
            "cousin",
        ),
        ((f"{a} is married to {b}.", f"{c} is the parent of {b}."), f"What is {c} to {a}?", "parent-in-law"),
    )  # fmt: skip
    facts, question, answer = rng.choice(tasks)
    ordered = list(facts)
    rng.shuffle(ordered)
    friend = rng.choice([name for name in NAMES if name not in (a, b, c, d)])
    ordered.insert(rng.randint(0, len(ordered)), f"{friend} is a friend of {rng.choice((a, b, c))}.")
    return Task(f"{' '.join(ordered)} {question}", "", answer)


def calendar(rng: Random) -> Task:
    """Draw a weekday or a date, some days later or earlier."""
    kind, number = rng.randrange(3), rng.randint(2, 45)
    if kind == 0:
        day, back = rng.randrange(7), rng.random() < 0.3
        after = WEEKDAYS[(day - number if back else day + number) % 7]
        verb, side = ("was", "ago") if back else ("will", "from now")
        text = f"Today is {WEEKDAYS[day]}. What day {verb} it {'' if back else 'be '}{number} days {side}?"
        return Task(text, f"{number} days are {number // 7} weeks and {number % 7} days", after)
    start = date(rng.randint(1990, 2030), 1, 1) + timedelta(days=rng.randrange(365))
    if kind == 1:
        end = start + timedelta(days=number)
        text = rng.choice(
            (
                f"Which date is {number} days after {_format_date(start)}?",
                f"A trip starts on {_format_date(start)} and takes {number} days. On which date does it end?",
            )
        )
        return Task(text, "", _format_date(end))
    end = start + timedelta(days=number)
    return Task(f"How many days are there from {_format_date(start)} to {_format_date(end)}?", "", str(number))


def _format_date(day: date) -> str:
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"


def clock(rng: Random) -> Task:
    """Draw a time of day some minutes later, or the minutes between two times."""
    start, minutes = rng.randrange(6 * 60, 20 * 60, 5), rng.randrange(10, 225, 5)
    end, who = start + minutes, rng.choice(NAMES)
    if rng.random() < 0.5:
        what = rng.choice(("train leaves", "film starts", "lesson starts", "walk starts"))
        text = f"The {what} at {_format_time(start)} and takes {minutes} minutes. When does it end?"
        return Task(text, f"{minutes} minutes are {minutes // 60} hours and {minutes % 60} minutes", _format_time(end))
    text = f"{who} works from {_format_time(start)} to {_format_time(end)}. How many minutes is that?"
    return Task(text, f"{minutes // 60} hours and {minutes % 60} minutes", f"{minutes} minutes")


def _format_time(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def sequence(rng: Random) -> Task:
    """Draw a sequence with a simple law, and its next number."""
    a, b, kind = rng.randint(1, 30), rng.randint(2, 12), rng.randrange(5)
    if kind == 0:
        terms, steps = [a + b * i for i in range(6)], f"each step adds {b}"
    elif kind == 1:
        a += 60
        terms, steps = [a - b * i for i in range(6)], f"each step subtracts {b}"
    elif kind == 2:
        a, b = rng.randint(1, 7), rng.randint(2, 3)
        terms, steps = [a * b**i for i in range(6)], f"each step multiplies by {b}"
    elif kind == 3:
        terms = [a, b]
        while len(terms) < 6:
            terms.append(terms[-1] + terms[-2])
        steps = "each term is the sum of the two before"
    else:
        terms, steps = [a + i * (i + b) for i in range(6)], f"the steps grow by 2, from {b + 1}"
    n = rng.randint(4, 5)
    ask = rng.choice(("What comes next: {}?", "Which number continues {}?", "Next term of {}?"))
    return Task(ask.format(", ".join(map(str, terms[:n]))), steps, str(terms[n]))


def sorting(rng: Random) -> Task:
    """Draw numbers or words to sort, or of which to name the first or last."""
    if rng.random() < 0.5:
        items = [str(number) for number in rng.sample(range(1, 100), rng.randint(3, 6))]
        ordered = sorted(items, key=int)
        first, last = "smallest", "largest"
    else:
        items = rng.sample(LETTER_WORDS, rng.randint(3, 5))
        ordered = sorted(items)
        first, last = "first in the alphabet", "last in the alphabet"
    kind = rng.randrange(4)
    listed = ", ".join(items)
    if kind == 0:
        return Task(f"Sort: {listed}.", "", ", ".join(ordered))
    if kind == 1:
        return Task(f"Sort in falling order: {listed}.", "", ", ".join(reversed(ordered)))
    end, index = (first, 0) if kind == 2 else (last, -1)
    return Task(
        f"Of {listed}, which is {'the ' if 'est' in end else ''}{end}?", f"sorted: {', '.join(ordered)}", ordered[index]
    )


def comparison(rng: Random) -> Task:
    """Draw comparisons in any order, and the tallest or shortest person."""
    adjective, most, least = rng.choice(
        (
            ("taller", "tallest", "shortest"),
            ("older", "oldest", "youngest"),
            ("faster", "fastest", "slowest"),
            ("richer", "richest", "poorest"),
        )
    )
    people = rng.sample(NAMES, rng.randint(3, 5))
    facts = [f"{first} is {adjective} than {second}." for first, second in pairwise(people)]
    rng.shuffle(facts)
    kind, chain = rng.randrange(3), ", ".join(people)
    if kind < 2:
        return Task(
            f"{' '.join(facts)} Who is the {least if kind else most}?",
            f"from the top: {chain}",
            people[-1 if kind else 0],
        )
    first, second = rng.sample(people, 2)
    answer = "yes" if people.index(first) < people.index(second) else "no"
    return Task(f"{' '.join(facts)} Is {first} {adjective} than {second}?", f"from the top: {chain}", answer)


def tracking(rng: Random) -> Task:
    """Draw movements of people, and the position of a thing or a person."""
    people, places, thing = rng.sample(NAMES, rng.randint(2, 3)), rng.sample(PLACES, 4), rng.choice(OBJECTS)
    where = {who: rng.choice(places) for who in people}
    words = [f"{who} is in the {where[who]}." for who in people]
    holder = rng.choice(people)
    words.append(f"{holder} picks up the {thing}.")
    lying = ""
    for _ in range(rng.randint(2, 4)):
        who = rng.choice(people)
        if who == holder and not lying and rng.random() < 0.25:
            lying = where[holder]
            words.append(f"{holder} puts the {thing} down.")
        else:
            where[who] = rng.choice([place for place in places if place != where[who]])
            words.append(rng.choice((f"{who} goes to the {where[who]}.", f"{who} walks to the {where[who]}.")))
    place = lying or where[holder]
    if rng.random() < 0.3:
        who = rng.choice(people)
        return Task(f"{' '.join(words)} Where is {who}?", "", f"in the {where[who]}")
    steps = f"{holder} left it in the {place}" if lying else f"{holder} has it and is in the {place}"
    return Task(f"{' '.join(words)} Where is the {thing}?", steps, f"in the {place}")


def letters(rng: Random) -> Task:
    """Draw a task of spelling: reversal, counts or positions of letters."""
    word, kind = rng.choice(LETTER_WORDS) + rng.choice(("", "s", "y")), rng.randrange(4)
    if kind == 0:
        return Task(f"Write {word} {rng.choice(LETTER_WORDS)} backwards, first word only.", "", word[::-1])
    if kind == 1:
        second = rng.choice(LETTER_WORDS)
        letter, whole = rng.choice(word), f"{word} {second}"
        return Task(
            f"How often is the letter {letter} in '{whole}'?",
            " ".join(whole.replace(" ", "")),
            str(whole.count(letter)),
        )
    if kind == 2:
        shuffled = rng.sample(sorted(set(word)), len(set(word)))
        letter = rng.choice(shuffled)
        place = shuffled.index(letter)
        after = shuffled[(place + 1) % len(shuffled)]
        return Task(f"In the circle {' '.join(shuffled)}, which letter follows {letter}?", "", after)
    place = rng.randint(1, len(word))
    spelled = " ".join(rng.sample(list(word), len(word)))
    return Task(f"Which letter is number {place} in {spelled}?", "", spelled.split()[place - 1])


def logic(rng: Random) -> Task:
    """Draw a small formula, and its truth value."""
    names = rng.sample("pqrst", 3)
    values = [rng.random() < 0.5 for _ in names]
    given = ", ".join(f"{name} is {'true' if value else 'false'}" for name, value in zip(names, values, strict=True))
    text, value = names[0], values[0]
    steps = []
    for name, literal in zip(names[1:], values[1:], strict=True):
        operator, negated = rng.choice(("and", "or", "xor")), rng.random() < 0.4
        operand = literal != negated
        value = {"and": value and operand, "or": value or operand, "xor": value != operand}[operator]
        text = f"({text} {operator} {'not ' if negated else ''}{name})"
        steps.append(f"{text} is {'true' if value else 'false'}")
    return Task(f"If {given}, is {text} true?", ", ".join(steps), "yes" if value else "no")


def remainder(rng: Random) -> Task:
    """Draw a division with a remainder, of numbers or of things."""
    divisor, quotient = rng.randint(2, 12), rng.randint(2, 20)
    rest = rng.randrange(divisor)
    total, thing = divisor * quotient + rest, rng.choice(THINGS)
    if rng.random() < 0.4:
        return Task(
            f"What is the remainder of {total} divided by {divisor}?",
            f"{divisor} * {quotient} = {divisor * quotient}",
            str(rest),
        )
    who = rng.choice(NAMES)
    text = f"{who} packs {total} {thing} into boxes of {divisor}."
    steps = f"{divisor} * {quotient} = {divisor * quotient}, {total} - {divisor * quotient} = {rest}"
    if rng.random() < 0.5:
        return Task(f"{text} How many boxes are full?", steps, str(quotient))
    return Task(f"{text} How many {thing} are left over?", steps, str(rest))


MAKERS: dict[str, Maker] = {
    maker.__name__: maker
    for maker in (
        arithmetic, expression, story, shopping, syllogism, family, calendar, clock, sequence, sorting, comparison,
        tracking, letters, logic, remainder,
    )
}  # fmt: skip


def build(*, preset: str) -> Corpus:
    """Build the corpus of a preset."""
    return from_counts(DOCUMENTS[preset], validation=VALIDATION_DOCUMENTS, items=SET_ITEMS)


def from_counts(documents: int, *, validation: int, items: int) -> Corpus:
    """Build training documents, ``validation`` documents and up to ``items`` evaluation items, all kinds in turn."""
    train: list[Document] = []
    prompts: set[str] = set()
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for kind, task, with_steps in draw_tasks("train", documents):
        train.append(Document(write_document(task, with_steps=with_steps), f"{LABEL} {kind}"))
        prompts.add(write_prompt(task))
        answers[kind][task.answer] += 1
    seeded_rng("reasoning-order").shuffle(train)
    kept, dropped = drop_prompts(list(_items(items, answers)), prompts)
    later = draw_tasks("validation", validation)
    return Corpus(
        train=train,
        validation=[Document(write_document(task, with_steps=steps), f"{LABEL} {kind}") for kind, task, steps in later],
        sets={"reasoning_qa": kept},
        dropped={"reasoning_qa": dropped},
    )


def draw_tasks(seed: str, count: int) -> Iterator[tuple[str, Task, bool]]:
    """Yield kind, task, and whether its document shows the steps."""
    rng = seeded_rng("reasoning", seed)
    kinds = list(MAKERS)
    for index in range(count):
        kind = kinds[index % len(kinds)]
        task = MAKERS[kind](rng)
        yield kind, task, bool(task.steps) and rng.random() < STEPS_SHARE


def write_prompt(task: Task) -> str:
    """Write a question as documents and items have it."""
    return f"Q: {task.question}\nA:"


def write_document(task: Task, *, with_steps: bool) -> str:
    """Write a training text; steps come before ``A:``."""
    if with_steps:
        return f"Q: {task.question}\nSteps: {task.steps}.\nA: {task.answer}\n"
    return f"{write_prompt(task)} {task.answer}\n"


def _items(count: int, answers: dict[str, Counter[str]]) -> Iterator[Item]:
    """Yield items; ``ideal_nll``: nats of a guesser who knows only the frequency of each answer in training."""
    seen: set[str] = set()
    for kind, task, _ in draw_tasks("items", count):
        if write_prompt(task) in seen:
            continue
        seen.add(write_prompt(task))
        counts = answers[kind]
        guess = log((counts.total() + len(counts) + 1) / (counts[task.answer] + 1))
        yield Item(
            prompt=write_prompt(task),
            completion=f" {task.answer}\n",
            meta={"task": kind, "ideal_nll": round(guess, 6)},
        )
