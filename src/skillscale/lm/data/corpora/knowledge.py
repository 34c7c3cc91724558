"""The knowledge corpus: real facts in ever new words, and World Factbook pages.

Half of the entities are told and asked about in training, half are only told: their questions are the evaluation
(after Allen-Zhu & Li 2024, Physics of Language Models 3.1). More bytes mean more mentions in other words and another
order, never the same text again.
"""

import math
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from random import Random

from skillscale.lm.data.archives import Archive, archive_member
from skillscale.lm.data.corpora import fact_phrasings, facts
from skillscale.lm.data.corpora.contamination import drop_prompts, drop_shared, prompts_in
from skillscale.lm.data.corpora.facts import QUESTIONED, STATED, UNSEEN, Entity, Section
from skillscale.lm.data.corpora.items import Corpus, Document, Item, by_hash, seeded, share, spread


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How many entities of each kind, and how many bytes of text: of facts, and of the Factbook."""

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
    """Names of the archives a preset reads; only those with words need npm."""
    return (*SOURCES, facts.WORDS) if PRESETS[preset].words else SOURCES


@dataclass(frozen=True, kw_only=True)
class Mention:
    """A text about an entity, and the relations whose answers it gives."""

    text: str
    entity: Entity
    relations: tuple[str, ...]
    asks: bool


def build(archives: Mapping[str, Path], sources: Mapping[str, Archive], *, preset: str, zipf_exponent: float) -> Corpus:
    """The corpus of a preset; ``zipf_exponent``: exponent of the mentions' fall with rank."""
    sizes = PRESETS[preset]
    table = facts.read_countries(archives[facts.COUNTRIES])
    places = facts.read_cities(archives[facts.CITIES])
    chemistry = facts.read_elements(archives[facts.ELEMENTS])
    airport_rows = archive_member(archives[facts.AIRPORTS], "airportsdata/airports.csv").decode("utf-8")
    nations = facts.countries(table, len(table))
    entities = [
        *facts.cities(places, table, sizes.cities),
        *facts.airports(airport_rows, table, places, sizes.airports),
        *nations,
        *facts.elements(chemistry),
        *(facts.words(archives[facts.WORDS], sizes.words) if sizes.words else []),
    ]
    unseen = {entity.values["domain"] for entity in nations if entity.group == UNSEEN and "domain" in entity.values}
    sections = list(facts.factbook(archives[facts.FACTBOOK], frozenset(unseen)))
    book = sources[facts.FACTBOOK].label
    asides = [Document(text, sources[facts.ELEMENTS].label) for text in facts.element_notes(chemistry)]
    asides += [Document(text, book) for text in factbook_texts(sections, max_bytes=sizes.factbook_bytes)]
    labels = {kind: sources[name].label for kind, name in _ORIGINS.items() if name in sources}
    corpus = from_entities(
        entities, asides, labels=labels, zipf_exponent=zipf_exponent, stream_bytes=sizes.stream_bytes
    )
    pages = [one.text for one in sections if not one.held_out]
    texts, shared = drop_shared(section_items([one for one in sections if one.held_out]), pages)
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
    """Stream, counts and question sets of some entities; ``asides`` are strewn among the stream."""
    told = [entity for entity in entities if entity.group != UNSEEN]
    exposures: Counter[tuple[str, str, str]] = Counter()
    asked: Counter[tuple[str, str, str]] = Counter()
    train = list(asides)
    for mention in stream(told, seed="train", zipf_exponent=zipf_exponent, max_bytes=stream_bytes):
        train.append(Document(mention.text, labels[mention.entity.kind]))
        counter = asked if mention.asks else exposures
        counter.update((mention.entity.kind, mention.entity.name, relation) for relation in mention.relations)
    seeded("knowledge-order").shuffle(train)
    later = stream(told, seed="validation", zipf_exponent=zipf_exponent, max_bytes=validation_bytes)
    questions = prompts_in(document.text for document in train)
    sets, dropped = {}, {}
    for name, group in (
        ("knowledge_qa", STATED),
        ("knowledge_qa_unseen", UNSEEN),
        ("knowledge_qa_trainhalf", QUESTIONED),
    ):
        items = question_items(entities, group=group, zipf_exponent=zipf_exponent, exposures=exposures)
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
        facts=load(told, train, exposures=exposures, asked=asked),
        dropped=dropped,
    )


def rank_weights(count: int, zipf_exponent: float) -> list[float]:
    """Weight of each rank: (rank + 20)^-zipf_exponent; 0 is uniform."""
    return [round((rank + RANK_OFFSET) ** -zipf_exponent, 15) for rank in range(count)]


def stream(entities: Sequence[Entity], *, seed: str, zipf_exponent: float, max_bytes: int) -> Iterator[Mention]:
    """Endless mentions of entities, kinds and ranks by weight, cut at ``max_bytes``."""
    rng = seeded("knowledge", seed)
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
        mentions = [_told(entity, rng)]
        if entity.group == QUESTIONED and rng.random() < QUESTION_SHARE:
            mentions.append(_asked(entity, rng))
        for mention in mentions:
            size += len(mention.text.encode())
            yield mention


def _told(entity: Entity, rng: Random) -> Mention:
    relations = list(entity.values)
    rng.shuffle(relations)
    kept = relations[: rng.randint(min(2, len(relations)), len(relations))]
    as_record = rng.random() < RECORD_SHARE
    text = fact_phrasings.record(entity, kept) if as_record else fact_phrasings.profile(entity, kept, rng)
    return Mention(text=text, entity=entity, relations=tuple(kept), asks=False)


def _asked(entity: Entity, rng: Random) -> Mention:
    kept = rng.sample(list(entity.values), min(rng.randint(1, 2), len(entity.values)))
    text = "".join(
        fact_phrasings.question(entity, relation, rng) + fact_phrasings.answer(entity, relation) for relation in kept
    )
    return Mention(text=text, entity=entity, relations=tuple(kept), asks=True)


def question_items(
    entities: Sequence[Entity], *, group: str, zipf_exponent: float, exposures: Mapping[tuple[str, str, str], int]
) -> list[Item]:
    """One question a fact of a group, in random order, drawn without replacement by the weight of its mentions.

    ``ideal_nll``: nats a guesser pays who knows the answers of the relation and how often each is mentioned, but not
    the entity; ``exposures``: statements of the fact in the training text.
    """
    mass = answer_masses(entities, zipf_exponent)
    drawn: list[tuple[float, Item]] = []
    for entity in entities:
        if entity.group != group:
            continue
        for relation, value in entity.values.items():
            key = (entity.kind, entity.name, relation)
            weight = KIND_WEIGHTS[entity.kind] * (entity.rank + RANK_OFFSET) ** -zipf_exponent
            total, of_value = mass[entity.kind, relation]
            item = Item(
                prompt=fact_phrasings.question(entity, relation, seeded("ask", *key)),
                completion=fact_phrasings.answer(entity, relation),
                meta={
                    "kind": entity.kind,
                    "relation": relation,
                    "rank": entity.rank,
                    "exposures": exposures.get(key, 0),
                    "ideal_nll": round(math.log(total / of_value[value]), 6),
                },
            )
            # Efraimidis & Spirakis 2006: the largest u^(1/w) are a weighted sample without replacement
            drawn.append((-math.log(1.0 - share("draw", *key)) / weight, item))
    drawn.sort(key=lambda pair: pair[0])
    most = max(SET_ITEMS.values())
    taken = [item for _, item in drawn[:most]]
    seeded("question-order", group).shuffle(taken)
    return taken


def answer_masses(
    entities: Sequence[Entity], zipf_exponent: float
) -> dict[tuple[str, str], tuple[float, Mapping[str, float]]]:
    """Per relation: total weight, and the weight of each answer."""
    masses: dict[tuple[str, str], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for entity in entities:
        for relation, value in entity.values.items():
            masses[entity.kind, relation][value] += (entity.rank + RANK_OFFSET) ** -zipf_exponent
    return {key: (math.fsum(answers.values()), answers) for key, answers in masses.items()}


def load(
    entities: Sequence[Entity],
    train: Sequence[Document],
    *,
    exposures: Mapping[tuple[str, str, str], int],
    asked: Mapping[tuple[str, str, str], int],
) -> dict[str, object]:
    """How much there is to know, and how often training says it.

    ``bits``: sum of the marginal entropies of the answers, an upper bound of the load. A run that sees T bytes of this
    corpus has ``mentions_per_byte`` T / ``count`` mean exposures a fact.
    """
    size = sum(len(document.text.encode()) for document in train)
    mentions = sum(exposures.values()) + sum(asked.values())
    count = sum(len(entity.values) for entity in entities)
    by_kind = Counter(entity.kind for entity in entities)
    return {
        "count": count,
        "bits": round(entropy_bits(entities), 1),
        "entities": dict(sorted(by_kind.items())),
        "mentions": mentions,
        "mentions_in_questions": sum(asked.values()),
        "facts_mentioned": len(set(exposures) | set(asked)),
        "train_bytes": size,
        "mentions_per_byte": mentions / size,
        "mean_exposures": mentions / count,
    }


def entropy_bits(entities: Sequence[Entity]) -> float:
    """Sum over relations of n H, with H the entropy of the answers over the n entities, in bits."""
    answers: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for entity in entities:
        for relation, value in entity.values.items():
            answers[entity.kind, relation][value] += 1
    return math.fsum(n * math.log2(counts.total() / n) for counts in answers.values() for n in counts.values())


def factbook_texts(sections: Sequence[Section], *, max_bytes: int) -> list[str]:
    """Sections of countries that are not held out, in a scrambled order, up to a size."""
    texts = {section.heading: section.text for section in sections if not section.held_out}
    taken: list[str] = []
    size = 0
    for heading in by_hash(list(texts), "factbook"):
        length = len(texts[heading].encode())
        if size + length <= max_bytes:
            taken.append(texts[heading])
            size += length
    return taken


def section_items(sections: Sequence[Section]) -> list[Item]:
    """Heading and title of a Factbook line -> the line, for held-out countries."""
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
    return [items[text] for _, text in spread(groups, 2 * SET_ITEMS["knowledge_text"], "factbook")]
