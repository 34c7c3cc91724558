"""The biographies corpus: made-up people whose attributes are drawn evenly, so that what there is to know is counted.

After Allen-Zhu & Li 2024 (Physics of Language Models 3.3): a person has 47.59 bits. Half of the people are told and
asked about in training, half are only told, and their questions are the evaluation. More bytes mean more mentions, in
other words and another order.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, product
from random import Random

from skillscale.lm.data.corpora.contamination import drop_prompts, prompts_in
from skillscale.lm.data.corpora.facts import ASKED, TOLD, UNSEEN
from skillscale.lm.data.corpora.items import Corpus, Document, Item, seeded
from skillscale.lm.data.corpora.knowledge import QUESTION_SHARE, weights

LABEL = "made: biographies"
STREAM_BYTES = 60_000_000
VALIDATION_BYTES = 200_000
UNSEEN_PEOPLE = 200
SET_ITEMS = {"bios_qa": 2000, "bios_qa_trainhalf": 500, "bios_unseen": 500, "bios_stated": 1000}

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
FIRST_YEAR = 1800
CHOICES = {"birthday": 12 * 28 * 200, "birth_city": 200, "university": 300, "major": 100, "employer": 263, "gender": 2}
PERSON_BITS = math.fsum(math.log2(count) for count in CHOICES.values())
# Few and short words: the fewer tokens a fact takes, the more often a run can meet it
STATEMENTS = {
    "birthday": ("was born on", "has the birthday", "came to life on", "was a baby on", "arrived on"),
    "birth_city": ("was born in", "is from", "comes from", "grew up in", "was a baby in"),
    "university": ("studied at", "went to", "was taught at", "has a degree from", "learned at"),
    "major": ("studied", "learned", "has a degree in", "was taught", "is good at"),
    "employer": ("works for", "is paid by", "has a job at", "was hired by", "serves"),
    "work_city": ("works in", "has a job in", "has a desk in", "is paid in", "goes to work in"),
}
QUESTIONS = {
    "birthday": "When was {n} born?",
    "birth_city": "Where was {n} born?",
    "university": "Where did {n} study?",
    "major": "What did {n} study?",
    "employer": "Who does {n} work for?",
}
# Whoever reads the work city knows the employer nearly: where one comes last, the other must not stand before it
_LAST = ("birthday", "birth_city", "university", "major")
_PRONOUNS = ("He", "She")
# A made-up word is any of some first syllables and any of some second ones: which words there are takes next to nothing
# to store beside the attributes, and a tokenizer cuts between the syllables, as no consonant is in both
_FIRST = tuple(map("".join, product("BDGKPT", "aeiou")))
_SECOND = tuple(map("".join, product("flmnrsvz", "aeiou")))
_WORD_SYLLABLES = {"birth_city": (10, 20), "university": (15, 20), "major": (10, 10), "employer": (12, 22)}
_ANY = tuple(STATEMENTS)
_ASKABLE = tuple(QUESTIONS)


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody made up. ``rank`` 0 is the most mentioned; ``values``: answers by relation, the work city too."""

    name: str
    rank: int
    pronoun: str
    values: Mapping[str, str]
    group: str


def build(
    *,
    people: int,
    popularity: float,
    stream_bytes: int = STREAM_BYTES,
    validation_bytes: int = VALIDATION_BYTES,
) -> Corpus:
    """The biographies of so many people, ``popularity``: exponent of the mentions' fall with rank, 0 for even."""
    everybody = make_people(people)
    told = [one for one in everybody if one.group != UNSEEN]
    train: list[Document] = []
    mentions: Counter[str] = Counter()
    questions = 0
    for person, text, asked in stream(told, seed="train", popularity=popularity, max_bytes=stream_bytes):
        train.append(Document(text, LABEL))
        mentions[person.name] += not asked
        questions += asked
    later = stream(told, seed="validation", popularity=popularity, max_bytes=validation_bytes)
    sets, dropped = _sets(everybody, train, mentions=mentions, popularity=popularity)
    return Corpus(
        train=train,
        # no questions: there are so few that training would lose those that validation has
        validation=[Document(text, LABEL) for _, text, asked in later if not asked],
        sets=sets,
        facts=load(people, train, biographies=mentions.total(), questions=questions, mentioned=len(mentions)),
        dropped=dropped,
    )


def make_people(count: int) -> list[Person]:
    """``count`` people to train on, every other one asked about, and then some unseen; the first do not change."""
    rng = seeded("bios", "people")
    words = {relation: words_of(relation) for relation in _WORD_SYLLABLES}
    seats = works_in(words)
    names: set[str] = set()
    found: list[Person] = []
    while len(found) < count + UNSEEN_PEOPLE:
        name = f"{_word(rng)} {_word(rng)}"
        if name in names:
            continue
        names.add(name)
        group = (ASKED, TOLD)[len(found) % 2] if len(found) < count else UNSEEN
        found.append(_person(rng, words, seats, name=name, rank=len(found), group=group))
    return found


def stream(
    people: Sequence[Person], *, seed: str, popularity: float, max_bytes: int
) -> Iterator[tuple[Person, str, int]]:
    """Endless mentions by weight, cut at ``max_bytes``: person, text, and how many questions it asks (0: it tells)."""
    rng = seeded("bios", seed)
    sums = list(accumulate(weights(len(people), popularity)))
    size = 0
    while size < max_bytes:
        for person in rng.choices(people, cum_weights=sums, k=1000):
            text = biography(person, _shuffled(_ANY, rng), rng)
            size += len(text)
            yield person, text, 0
            if person.group == ASKED and rng.random() < QUESTION_SHARE:
                relations = _shuffled(_ASKABLE, rng)[: 1 + (rng.random() < 0.5)]
                text = "".join(question(person, one) + answer(person, one) for one in relations)
                size += len(text)
                yield person, text, len(relations)
            if size >= max_bytes:
                return


def biography(person: Person, relations: Sequence[str], rng: Random) -> str:
    """The relations as sentences in the order given: the name first, then a pronoun, which tells the gender."""
    return _told(person, relations, rng) + ".\n"


def _told(person: Person, relations: Sequence[str], rng: Random) -> str:
    said = [f"{_any(STATEMENTS[relation], rng)} {person.values[relation]}" for relation in relations]
    return f"{person.name} " + f". {person.pronoun} ".join(said)


def question(person: Person, relation: str) -> str:
    """How a question stands in documents and items."""
    return f"Q: {QUESTIONS[relation].format(n=person.name)}\nA:"


def answer(person: Person, relation: str) -> str:
    """What follows ``A:``."""
    return f" {person.values[relation]}\n"


def load(
    people: int, train: Sequence[Document], *, biographies: int, questions: int, mentioned: int
) -> dict[str, object]:
    """How much there is to know, and how often training says it: six facts a person, each once a biography.

    ``bits`` is exact, as attributes are drawn evenly and each by itself. Questions are not counted as mentions: the
    people who are only told have none. A run that sees T bytes of this corpus has ``mentions_per_byte`` T / ``count``
    mean exposures a fact, which is how many biographies of a person it has read.
    """
    size = sum(len(document.text) for document in train)
    facts = len(CHOICES)
    return {
        "count": facts * people,
        "bits": round(people * PERSON_BITS, 1),
        "entities": {"person": people},
        "mentions": facts * biographies,
        "mentions_in_questions": questions,
        "facts_mentioned": facts * mentioned,
        "train_bytes": size,
        "mentions_per_byte": facts * biographies / size,
        "mean_exposures": biographies / people,
    }


def _sets(
    people: Sequence[Person], train: Sequence[Document], *, mentions: Mapping[str, int], popularity: float
) -> tuple[dict[str, list[Item]], dict[str, dict[str, int]]]:
    """The evaluation sets, and how many items were dropped from each."""
    asked = prompts_in(document.text for document in train)
    sets, dropped = {}, {}
    wanted: tuple[tuple[str, str, Callable[[Person], Iterator[Item]]], ...] = (
        ("bios_qa", TOLD, lambda one: _questions(one, mentions)),
        ("bios_qa_trainhalf", ASKED, lambda one: _questions(one, mentions)),
        ("bios_unseen", UNSEEN, lambda one: _questions(one, mentions)),
        ("bios_stated", TOLD, lambda one: _statements(one, mentions)),
    )
    for name, group, made in wanted:
        items = [item for person in _drawn(people, group, popularity) for item in made(person)]
        counts = {"checked": len(items), "dropped": 0}
        if group != ASKED:
            items, counts = drop_prompts(items, asked)
        if group != UNSEEN:
            stated = [item for item in items if item.meta["exposures"]]
            counts["never_stated"], items = len(items) - len(stated), stated
        items = items[: SET_ITEMS[name]]
        seeded("bios-order", name).shuffle(items)
        sets[name], dropped[name] = items, counts
    return sets, dropped


def _drawn(people: Sequence[Person], group: str, popularity: float) -> list[Person]:
    """A group's people, drawn by the weight of their mentions (Efraimidis & Spirakis 2006)."""
    rng = seeded("bios-draw", group)
    keyed = [
        (-math.log(1.0 - rng.random()) / weight, person.rank, person)
        for person, weight in zip(people, weights(len(people), popularity), strict=True)
        if person.group == group
    ]
    return [person for _, _, person in sorted(keyed, key=lambda each: each[:2])]


def _questions(person: Person, mentions: Mapping[str, int]) -> Iterator[Item]:
    for relation in QUESTIONS:
        yield _item(person, relation, question(person, relation), answer(person, relation), mentions)


def _statements(person: Person, mentions: Mapping[str, int]) -> Iterator[Item]:
    """Biographies whose last answer is measured: what is stored, whether or not it can be asked for."""
    rng = seeded("bios-stated", person.name)
    for relation in _LAST:
        before = [one for one in _shuffled(_ANY, rng) if one != relation]
        text = _told(person, [*before, relation], rng)
        value = person.values[relation]
        yield _item(person, relation, text.removesuffix(f" {value}"), f" {value}.\n", mentions)


def _item(person: Person, relation: str, prompt: str, completion: str, mentions: Mapping[str, int]) -> Item:
    """``ideal_nll``: nats a guesser pays who knows which answers there are, but not the person."""
    return Item(
        prompt=prompt,
        completion=completion,
        meta={
            "relation": relation,
            "rank": person.rank,
            "exposures": mentions.get(person.name, 0),
            "ideal_nll": round(math.log(CHOICES[relation]), 6),
        },
    )


def words_of(relation: str) -> list[str]:
    """The answers there are, for a relation whose answers are words."""
    first, second = _WORD_SYLLABLES[relation]
    return ["".join(pair) for pair in product(_FIRST[:first], _SECOND[:second])][: CHOICES[relation]]


def works_in(words: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The city of each employer; those of one first syllable share it, so that there is little to store."""
    rng = seeded("bios", "seats")
    seats = {first: rng.choice(words["birth_city"]) for first in _FIRST}
    return {employer: seats[employer[:2]] for employer in words["employer"]}


def _person(
    rng: Random, words: Mapping[str, Sequence[str]], seats: Mapping[str, str], *, name: str, rank: int, group: str
) -> Person:
    values = {
        "birthday": f"{rng.randint(1, 28)} {rng.choice(MONTHS)} {FIRST_YEAR + rng.randrange(200)}",
        **{relation: rng.choice(among) for relation, among in words.items()},
    }
    values["work_city"] = seats[values["employer"]]
    return Person(name=name, rank=rank, pronoun=rng.choice(_PRONOUNS), values=values, group=group)


def _word(rng: Random) -> str:
    return rng.choice(_FIRST) + rng.choice(_SECOND)


def _any(among: Sequence[str], rng: Random) -> str:
    """As ``rng.choice``, in a third of its time."""
    return among[int(len(among) * rng.random())]


def _shuffled(names: Sequence[str], rng: Random) -> list[str]:
    """In random order; a sort by random keys is faster than ``rng.shuffle``."""
    return sorted(names, key=lambda _: rng.random())
