"""The knowledge corpus: real facts in varied wording, and World Factbook pages.

Training states the facts of all entities and asks questions about half of them. Questions about the other half are the
evaluation (after Allen-Zhu & Li 2024, Physics of Language Models 3.1). More bytes mean more mentions, in other words
and another order.
"""

import math
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from random import Random

from skillscale.lm.data.archives import Archive, read_member
from skillscale.lm.data.corpora import fact_phrasings, facts
from skillscale.lm.data.corpora.contamination import drop_overlapping, drop_prompts, find_prompts
from skillscale.lm.data.corpora.facts import QUESTIONED, STATED, UNSEEN, CountrySection, Entity
from skillscale.lm.data.corpora.items import (
    Corpus,
    Document,
    Item,
    hash_uniform,
    seeded_rng,
    sort_by_hash,
    take_in_turn,
)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Number of entities of each kind, and bytes of text about facts and from the Factbook."""

    cities: int
    airports: int
    words: int
    stream_bytes: int
    factbook_bytes: int


PRESETS = {
    "tiny": Preset(cities=800, airports=250, words=0, stream_bytes=11_000_000, factbook_bytes=1_000_000),
    "small": Preset(cities=4_000, airports=1_200, words=3_000, stream_bytes=30_000_000, factbook_bytes=10_000_000),
    "medium": Preset(cities=12_000, airports=3_000, words=12_000, stream_bytes=90_000_000, factbook_bytes=10_000_000),
    "full": Preset(cities=32_000, airports=7_700, words=63_000, stream_bytes=250_000_000, factbook_bytes=10_000_000),
}
SOURCES = (facts.CITIES, facts.COUNTRIES, facts.AIRPORTS, facts.ELEMENTS, facts.FACTBOOK)
_ORIGINS = {
    "city": facts.CITIES, "country": facts.COUNTRIES, "airport": facts.AIRPORTS, "element": facts.ELEMENTS,
    "word": facts.WORDS,
}  # fmt: skip
KIND_WEIGHTS = {"city": 5.0, "airport": 1.5, "word": 1.8, "country": 0.6, "element": 0.3}
RANK_OFFSET = 20
RECORD_SHARE = 0.2
QUESTION_SHARE = 0.8
VALIDATION_BYTES = 500_000
SET_ITEMS = {"knowledge_qa": 2000, "knowledge_qa_unseen": 850, "knowledge_qa_trainhalf": 500, "knowledge_text": 200}
ITEM_BYTES = 480
_MIN_TEXT_BYTES = 60


def source_names(preset: str) -> tuple[str, ...]:
    """Return the names of the archives that a preset reads; only presets with words need npm."""
    return (*SOURCES, facts.WORDS) if PRESETS[preset].words else SOURCES


@dataclass(frozen=True, kw_only=True)
class Mention:
    """A text about an entity, and the relations that it states or asks about."""

    text: str
    entity: Entity
    relations: tuple[str, ...]
    asks: bool


def build(archives: Mapping[str, Path], sources: Mapping[str, Archive], *, preset: str, zipf_exponent: float) -> Corpus:
    """Build the corpus of a preset; ``zipf_exponent``: decay of an entity's mentions with its rank."""
    sizes = PRESETS[preset]
    table = facts.read_countries(archives[facts.COUNTRIES])
    places = facts.read_cities(archives[facts.CITIES])
    chemistry = facts.read_elements(archives[facts.ELEMENTS])
    airport_rows = read_member(archives[facts.AIRPORTS], "airportsdata/airports.csv").decode("utf-8")
    nations = facts.make_countries(table, len(table))
    entities = [
        *facts.make_cities(places, table, sizes.cities),
        *facts.make_airports(airport_rows, table, places, sizes.airports),
        *nations,
        *facts.make_elements(chemistry),
        *(facts.make_words(archives[facts.WORDS], sizes.words) if sizes.words else []),
    ]
    unseen = {entity.values["domain"] for entity in nations if entity.group == UNSEEN and "domain" in entity.values}
    sections = list(facts.read_factbook(archives[facts.FACTBOOK], frozenset(unseen)))
    book = sources[facts.FACTBOOK].label
    asides = [Document(text, sources[facts.ELEMENTS].label) for text in facts.describe_elements(chemistry)]
    asides += [Document(text, book) for text in sample_factbook(sections, max_bytes=sizes.factbook_bytes)]
    labels = {kind: sources[name].label for kind, name in _ORIGINS.items() if name in sources}
    corpus = from_entities(
        entities, asides, labels=labels, zipf_exponent=zipf_exponent, stream_bytes=sizes.stream_bytes
    )
    pages = [section.text for section in sections if not section.held_out]
    held_out = [section for section in sections if section.held_out]
    texts, shared = drop_overlapping(make_section_items(held_out), pages)
    return Corpus(
        train=corpus.train,
        validation=corpus.validation,
        sets={**corpus.sets, "knowledge_text": texts[: SET_ITEMS["knowledge_text"]]},
        facts=corpus.facts,
        dropped={**corpus.dropped, "knowledge_text": shared},
    )


def from_entities(
    entities: Sequence[Entity],
    asides: Sequence[Document],
    *,
    labels: Mapping[str, str],
    zipf_exponent: float,
    stream_bytes: int,
    validation_bytes: int = VALIDATION_BYTES,
) -> Corpus:
    """Build stream, counts and question sets of entities; ``asides``: other texts, shuffled into the stream."""
    described = [entity for entity in entities if entity.group != UNSEEN]
    exposures: Counter[tuple[str, str, str]] = Counter()
    questioned: Counter[tuple[str, str, str]] = Counter()
    train = list(asides)
    for mention in stream_mentions(described, seed="train", zipf_exponent=zipf_exponent, max_bytes=stream_bytes):
        train.append(Document(mention.text, labels[mention.entity.kind]))
        counter = questioned if mention.asks else exposures
        counter.update((mention.entity.kind, mention.entity.name, relation) for relation in mention.relations)
    seeded_rng("knowledge-order").shuffle(train)
    later = stream_mentions(described, seed="validation", zipf_exponent=zipf_exponent, max_bytes=validation_bytes)
    questions = find_prompts(document.text for document in train)
    sets, dropped = {}, {}
    for name, group in (
        ("knowledge_qa", STATED),
        ("knowledge_qa_unseen", UNSEEN),
        ("knowledge_qa_trainhalf", QUESTIONED),
    ):
        items = make_question_items(entities, group=group, zipf_exponent=zipf_exponent, exposures=exposures)
        counts = {"checked": len(items), "dropped": 0}
        if group != QUESTIONED:
            items, counts = drop_prompts(items, questions)
        if group != UNSEEN:
            stated = [item for item in items if item.meta["exposures"]]
            counts["never_stated"], items = len(items) - len(stated), stated
        sets[name], dropped[name] = items[: SET_ITEMS[name]], counts
    return Corpus(
        train=train,
        validation=[Document(mention.text, labels[mention.entity.kind]) for mention in later],
        sets=sets,
        facts=count_facts(described, train, exposures=exposures, questioned=questioned),
        dropped=dropped,
    )


def rank_weights(count: int, zipf_exponent: float) -> list[float]:
    """Return the weight of each rank: (rank + 20)^-zipf_exponent; 0 gives uniform weights."""
    return [round((rank + RANK_OFFSET) ** -zipf_exponent, 15) for rank in range(count)]


def stream_mentions(
    entities: Sequence[Entity], *, seed: str, zipf_exponent: float, max_bytes: int
) -> Iterator[Mention]:
    """Yield mentions of entities, drawn by the weights of kind and rank, until ``max_bytes``."""
    rng = seeded_rng("knowledge", seed)
    kinds: dict[str, list[Entity]] = defaultdict(list)
    for entity in entities:
        kinds[entity.kind].append(entity)
    names = sorted(kinds)
    kind_sums = list(accumulate(KIND_WEIGHTS[name] for name in names))
    rank_sums = {name: list(accumulate(rank_weights(len(kinds[name]), zipf_exponent))) for name in names}
    size = 0
    while size < max_bytes:
        name = names[bisect(kind_sums, rng.random() * kind_sums[-1])]
        sums = rank_sums[name]
        entity = kinds[name][min(bisect(sums, rng.random() * sums[-1]), len(sums) - 1)]
        mentions = [_statement_mention(entity, rng)]
        if entity.group == QUESTIONED and rng.random() < QUESTION_SHARE:
            mentions.append(_question_mention(entity, rng))
        for mention in mentions:
            size += len(mention.text.encode())
            yield mention


def _statement_mention(entity: Entity, rng: Random) -> Mention:
    relations = list(entity.values)
    rng.shuffle(relations)
    kept = relations[: rng.randint(min(2, len(relations)), len(relations))]
    as_record = rng.random() < RECORD_SHARE
    text = fact_phrasings.write_record(entity, kept) if as_record else fact_phrasings.write_profile(entity, kept, rng)
    return Mention(text=text, entity=entity, relations=tuple(kept), asks=False)


def _question_mention(entity: Entity, rng: Random) -> Mention:
    kept = rng.sample(list(entity.values), min(rng.randint(1, 2), len(entity.values)))
    text = "".join(
        fact_phrasings.write_question(entity, relation, rng) + fact_phrasings.write_answer(entity, relation)
        for relation in kept
    )
    return Mention(text=text, entity=entity, relations=tuple(kept), asks=True)


def make_question_items(
    entities: Sequence[Entity], *, group: str, zipf_exponent: float, exposures: Mapping[tuple[str, str, str], int]
) -> list[Item]:
    """Make one question for each fact of a group, sampled without replacement by the weight of its mentions.

    ``ideal_nll``: nats that a guesser pays who knows the answers of the relation and their frequencies, but not the
    entity; ``exposures``: statements of the fact in the training text.
    """
    masses = answer_weights(entities, zipf_exponent)
    drawn: list[tuple[float, Item]] = []
    for entity in entities:
        if entity.group != group:
            continue
        for relation, value in entity.values.items():
            key = (entity.kind, entity.name, relation)
            weight = KIND_WEIGHTS[entity.kind] * (entity.rank + RANK_OFFSET) ** -zipf_exponent
            total, weight_of = masses[entity.kind, relation]
            item = Item(
                prompt=fact_phrasings.write_question(entity, relation, seeded_rng("ask", *key)),
                completion=fact_phrasings.write_answer(entity, relation),
                meta={
                    "kind": entity.kind,
                    "relation": relation,
                    "rank": entity.rank,
                    "exposures": exposures.get(key, 0),
                    "ideal_nll": round(math.log(total / weight_of[value]), 6),
                },
            )
            # Efraimidis & Spirakis 2006: the items of largest u^(1/w) are a weighted sample without replacement
            drawn.append((-math.log(1.0 - hash_uniform("draw", *key)) / weight, item))
    drawn.sort(key=lambda pair: pair[0])
    taken = [item for _, item in drawn[: max(SET_ITEMS.values())]]
    seeded_rng("question-order", group).shuffle(taken)
    return taken


def answer_weights(
    entities: Sequence[Entity], zipf_exponent: float
) -> dict[tuple[str, str], tuple[float, Mapping[str, float]]]:
    """Return for each relation the total weight, and the weight of each answer."""
    masses: dict[tuple[str, str], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for entity in entities:
        for relation, value in entity.values.items():
            masses[entity.kind, relation][value] += (entity.rank + RANK_OFFSET) ** -zipf_exponent
    return {key: (math.fsum(answers.values()), answers) for key, answers in masses.items()}


def count_facts(
    entities: Sequence[Entity],
    train: Sequence[Document],
    *,
    exposures: Mapping[tuple[str, str, str], int],
    questioned: Mapping[tuple[str, str, str], int],
) -> dict[str, object]:
    """Count the facts, and how often training mentions them.

    ``bits``: sum of the marginal entropies of the answers, an upper bound of the information in the facts. A run that
    sees T bytes of this corpus has ``mentions_per_byte`` T / ``count`` mean exposures a fact.
    """
    size = sum(len(document.text.encode()) for document in train)
    mentions = sum(exposures.values()) + sum(questioned.values())
    count = sum(len(entity.values) for entity in entities)
    by_kind = Counter(entity.kind for entity in entities)
    return {
        "count": count,
        "bits": round(count_entropy_bits(entities), 1),
        "entities": dict(sorted(by_kind.items())),
        "mentions": mentions,
        "mentions_in_questions": sum(questioned.values()),
        "facts_mentioned": len(set(exposures) | set(questioned)),
        "train_bytes": size,
        "mentions_per_byte": mentions / size,
        "mean_exposures": mentions / count,
    }


def count_entropy_bits(entities: Sequence[Entity]) -> float:
    """Sum n H over relations, with H the entropy of the answers over the n entities, in bits."""
    answers: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for entity in entities:
        for relation, value in entity.values.items():
            answers[entity.kind, relation][value] += 1
    return math.fsum(n * math.log2(counts.total() / n) for counts in answers.values() for n in counts.values())


def sample_factbook(sections: Sequence[CountrySection], *, max_bytes: int) -> list[str]:
    """Return sections of countries that are not held out, in a scrambled order, up to ``max_bytes``."""
    texts = {section.heading: section.text for section in sections if not section.held_out}
    taken: list[str] = []
    size = 0
    for heading in sort_by_hash(list(texts), "factbook"):
        length = len(texts[heading].encode())
        if size + length <= max_bytes:
            taken.append(texts[heading])
            size += length
    return taken


def make_section_items(sections: Sequence[CountrySection]) -> list[Item]:
    """Make items with heading and title of a Factbook line as prompt and the line as completion."""
    items: dict[str, Item] = {}
    groups: dict[str, list[str]] = defaultdict(list)
    for section in sections:
        for name, value in section.lines:
            item = Item(
                prompt=f"{section.heading}\n{name}:", completion=f" {value}\n", meta={"country": section.country}
            )
            if item.n_bytes <= ITEM_BYTES and len(item.completion.encode()) >= _MIN_TEXT_BYTES:
                items[item.text] = item
                groups[section.country].append(item.text)
    return [items[text] for _, text in take_in_turn(groups, 2 * SET_ITEMS["knowledge_text"], "factbook")]
