"""The biographies corpus: made-up people with uniformly drawn attributes, so that the information in it is counted.

After Allen-Zhu & Li 2024 (Physics of Language Models 3.3): a person has 47.59 bits. Training states the facts of every
person. It also asks questions about every other person; the questions about the rest are the evaluation. More bytes
mean more mentions, in other words and another order.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, product
from random import Random

from skillscale.lm.data.corpora.contamination import drop_prompts, find_prompts
from skillscale.lm.data.corpora.facts import QUESTIONED, STATED, UNSEEN
from skillscale.lm.data.corpora.items import Corpus, Document, Item, seeded_rng
from skillscale.lm.data.corpora.knowledge import QUESTION_SHARE, rank_weights

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
# Few and short words: the fewer tokens a fact takes, the more often a run meets it
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
# The work city nearly determines the employer: if one of them is the last answer, the other must not precede it
_LAST = ("birthday", "birth_city", "university", "major")
_PRONOUNS = ("He", "She")
# A made-up word is any of some first syllables and any of some second syllables. The list of words then takes little
# memory compared with the attributes. A tokenizer cuts between the syllables, because they share no consonant.
_FIRST = tuple(map("".join, product("BDGKPT", "aeiou")))
_SECOND = tuple(map("".join, product("flmnrsvz", "aeiou")))
_WORD_SYLLABLES = {"birth_city": (10, 20), "university": (15, 20), "major": (10, 10), "employer": (12, 22)}
_STATED_RELATIONS = tuple(STATEMENTS)
_QUESTIONED_RELATIONS = tuple(QUESTIONS)


@dataclass(frozen=True, kw_only=True)
class Person:
    """A made-up person. ``rank`` 0 is the most mentioned; ``values``: answers by relation, the work city included."""

    name: str
    rank: int
    pronoun: str
    values: Mapping[str, str]
    group: str


def build(
    *,
    people: int,
    zipf_exponent: float,
    stream_bytes: int = STREAM_BYTES,
    validation_bytes: int = VALIDATION_BYTES,
) -> Corpus:
    """Build the biographies of ``people`` people; ``zipf_exponent``: how fast mentions fall with rank, 0 for equal."""
    everybody = make_people(people)
    described = [person for person in everybody if person.group != UNSEEN]
    train: list[Document] = []
    mentions: Counter[str] = Counter()
    questions = 0
    for person, text, n_questions in stream(
        described, seed="train", zipf_exponent=zipf_exponent, max_bytes=stream_bytes
    ):
        train.append(Document(text, LABEL))
        mentions[person.name] += not n_questions
        questions += n_questions
    later = stream(described, seed="validation", zipf_exponent=zipf_exponent, max_bytes=validation_bytes)
    sets, dropped = _evaluation_sets(everybody, train, mentions=mentions, zipf_exponent=zipf_exponent)
    return Corpus(
        train=train,
        # No questions: there are so few of them that training would lose those that validation has
        validation=[Document(text, LABEL) for _, text, n_questions in later if not n_questions],
        sets=sets,
        facts=count_facts(people, train, biographies=mentions.total(), questions=questions, mentioned=len(mentions)),
        dropped=dropped,
    )


def make_people(count: int) -> list[Person]:
    """Make ``count`` people to train on, every other one questioned, and then ``UNSEEN_PEOPLE`` more.

    A larger ``count`` does not change the first people.
    """
    rng = seeded_rng("bios", "people")
    words = {relation: words_of(relation) for relation in _WORD_SYLLABLES}
    seats = employer_cities(words)
    names: set[str] = set()
    people: list[Person] = []
    while len(people) < count + UNSEEN_PEOPLE:
        name = f"{_word(rng)} {_word(rng)}"
        if name in names:
            continue
        names.add(name)
        group = (QUESTIONED, STATED)[len(people) % 2] if len(people) < count else UNSEEN
        people.append(_person(rng, words, seats, name=name, rank=len(people), group=group))
    return people


def stream(
    people: Sequence[Person], *, seed: str, zipf_exponent: float, max_bytes: int
) -> Iterator[tuple[Person, str, int]]:
    """Yield mentions by weight until ``max_bytes``: person, text, number of questions (0: a biography)."""
    rng = seeded_rng("bios", seed)
    sums = list(accumulate(rank_weights(len(people), zipf_exponent)))
    size = 0
    while size < max_bytes:
        for person in rng.choices(people, cum_weights=sums, k=1000):
            text = biography(person, _shuffled(_STATED_RELATIONS, rng), rng)
            size += len(text)
            yield person, text, 0
            if person.group == QUESTIONED and rng.random() < QUESTION_SHARE:
                relations = _shuffled(_QUESTIONED_RELATIONS, rng)[: 1 + (rng.random() < 0.5)]
                text = "".join(question(person, relation) + answer(person, relation) for relation in relations)
                size += len(text)
                yield person, text, len(relations)
            if size >= max_bytes:
                return


def biography(person: Person, relations: Sequence[str], rng: Random) -> str:
    """Write the relations as sentences in this order: the name first, then a pronoun, which gives the gender."""
    return _sentences(person, relations, rng) + ".\n"


def _sentences(person: Person, relations: Sequence[str], rng: Random) -> str:
    statements = [f"{_choice(STATEMENTS[relation], rng)} {person.values[relation]}" for relation in relations]
    return f"{person.name} " + f". {person.pronoun} ".join(statements)


def question(person: Person, relation: str) -> str:
    """Write a question as documents and items have it."""
    return f"Q: {QUESTIONS[relation].format(n=person.name)}\nA:"


def answer(person: Person, relation: str) -> str:
    """Write the text that follows ``A:``."""
    return f" {person.values[relation]}\n"


def count_facts(
    people: int, train: Sequence[Document], *, biographies: int, questions: int, mentioned: int
) -> dict[str, object]:
    """Count the facts and how often training states them: six facts a person, each once in a biography.

    ``bits`` is exact, because attributes are drawn uniformly and independently. Questions do not count as mentions,
    because half of the people have none. A run that sees T bytes of this corpus has ``mentions_per_byte`` T / ``count``
    mean exposures a fact, which is the number of biographies of a person that it has read.
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


def _evaluation_sets(
    people: Sequence[Person], train: Sequence[Document], *, mentions: Mapping[str, int], zipf_exponent: float
) -> tuple[dict[str, list[Item]], dict[str, dict[str, int]]]:
    """Return the evaluation sets, and how many items were dropped from each."""
    in_training = find_prompts(document.text for document in train)
    sets, dropped = {}, {}
    makers: tuple[tuple[str, str, Callable[[Person, Mapping[str, int]], Iterator[Item]]], ...] = (
        ("bios_qa", STATED, _question_items),
        ("bios_qa_trainhalf", QUESTIONED, _question_items),
        ("bios_unseen", UNSEEN, _question_items),
        ("bios_stated", STATED, _statement_items),
    )
    for name, group, items_of in makers:
        items = [item for person in _sampled(people, group, zipf_exponent) for item in items_of(person, mentions)]
        counts = {"checked": len(items), "dropped": 0}
        if group != QUESTIONED:
            items, counts = drop_prompts(items, in_training)
        if group != UNSEEN:
            stated = [item for item in items if item.meta["exposures"]]
            counts["never_stated"], items = len(items) - len(stated), stated
        items = items[: SET_ITEMS[name]]
        seeded_rng("bios-order", name).shuffle(items)
        sets[name], dropped[name] = items, counts
    return sets, dropped


def _sampled(people: Sequence[Person], group: str, zipf_exponent: float) -> list[Person]:
    """Return a group's people in an order drawn by the weight of their mentions (Efraimidis & Spirakis 2006)."""
    rng = seeded_rng("bios-draw", group)
    keyed = [
        (-math.log(1.0 - rng.random()) / weight, person.rank, person)
        for person, weight in zip(people, rank_weights(len(people), zipf_exponent), strict=True)
        if person.group == group
    ]
    return [person for _, _, person in sorted(keyed, key=lambda entry: entry[:2])]


def _question_items(person: Person, mentions: Mapping[str, int]) -> Iterator[Item]:
    for relation in QUESTIONS:
        yield _item(person, relation, question(person, relation), answer(person, relation), mentions)


def _statement_items(person: Person, mentions: Mapping[str, int]) -> Iterator[Item]:
    """Yield biographies whose last answer is measured: what is stored, whether or not a question retrieves it."""
    rng = seeded_rng("bios-stated", person.name)
    for relation in _LAST:
        before = [name for name in _shuffled(_STATED_RELATIONS, rng) if name != relation]
        text = _sentences(person, [*before, relation], rng)
        value = person.values[relation]
        yield _item(person, relation, text.removesuffix(f" {value}"), f" {value}.\n", mentions)


def _item(person: Person, relation: str, prompt: str, completion: str, mentions: Mapping[str, int]) -> Item:
    """Make an item; ``ideal_nll``: nats that a guesser pays who knows the possible answers, but not the person."""
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
    """Return the possible answers of a relation whose answers are words."""
    first, second = _WORD_SYLLABLES[relation]
    return ["".join(pair) for pair in product(_FIRST[:first], _SECOND[:second])][: CHOICES[relation]]


def employer_cities(words: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the city of each employer: one city for each first syllable, so that it takes little to store."""
    rng = seeded_rng("bios", "seats")
    seats = {first: rng.choice(words["birth_city"]) for first in _FIRST}
    return {employer: seats[employer[:2]] for employer in words["employer"]}


def _person(
    rng: Random, words: Mapping[str, Sequence[str]], seats: Mapping[str, str], *, name: str, rank: int, group: str
) -> Person:
    values = {
        "birthday": f"{rng.randint(1, 28)} {rng.choice(MONTHS)} {FIRST_YEAR + rng.randrange(200)}",
        **{relation: rng.choice(answers) for relation, answers in words.items()},
    }
    values["work_city"] = seats[values["employer"]]
    return Person(name=name, rank=rank, pronoun=rng.choice(_PRONOUNS), values=values, group=group)


def _word(rng: Random) -> str:
    return rng.choice(_FIRST) + rng.choice(_SECOND)


def _choice(options: Sequence[str], rng: Random) -> str:
    """Choose uniformly: takes a third of the time of ``rng.choice``."""
    return options[int(len(options) * rng.random())]


def _shuffled(names: Sequence[str], rng: Random) -> list[str]:
    """Return the names in random order; a sort by random keys is faster than ``rng.shuffle``."""
    return sorted(names, key=lambda _: rng.random())
