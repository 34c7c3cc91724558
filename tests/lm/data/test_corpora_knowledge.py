"""Facts: each entity keeps its group, and mentions are counted correctly."""

import math
import re
from collections import Counter

import pytest

from skillscale.lm.data.corpora import fact_phrasings, facts, knowledge
from skillscale.lm.data.corpora.contamination import find_prompts
from skillscale.lm.data.corpora.facts import QUESTIONED, STATED, UNSEEN, Entity
from skillscale.lm.data.corpora.items import Corpus, Document

LABELS = {"city": "test", "element": "test"}


def entities(count: int = 60) -> list[Entity]:
    """Cities whose population is unlike any other, and whose country is one of four."""
    return [
        Entity(
            kind="city",
            name=f"Town{place}",
            rank=place,
            values={
                "country": f"Land{place % 4}",
                "population": f"{1000 + place}",
                "latitude": f"{place} degrees north",
            },
        )
        for place in range(count)
    ]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return knowledge.from_entities(
        entities(),
        [Document("An aside.\n", "test")],
        labels=LABELS,
        zipf_exponent=0.75,
        stream_bytes=150_000,
        validation_bytes=5_000,
    )


def test_groups_all_occur() -> None:
    assert {entity.group for entity in entities()} == {QUESTIONED, STATED, UNSEEN}


def test_told_entities_are_stated_but_never_asked_about(corpus: Corpus) -> None:
    text = "".join(document.text for document in corpus.train)
    for entity in entities():
        questions = re.findall(rf"^Q: .*\b{entity.name}\b.*$", text, re.MULTILINE)
        stated = re.findall(rf"^(?!Q:).*\b{entity.name}\b.*$", text, re.MULTILINE)
        assert bool(questions) == (entity.group == QUESTIONED), entity
        assert bool(stated) == (entity.group != UNSEEN), entity


def test_questions_of_each_set_are_about_its_group_and_rightly_answered(corpus: Corpus) -> None:
    by_name = {entity.name: entity for entity in entities()}
    groups = {"knowledge_qa": STATED, "knowledge_qa_unseen": UNSEEN, "knowledge_qa_trainhalf": QUESTIONED}
    for name, group in groups.items():
        assert corpus.sets[name]
        for item in corpus.sets[name]:
            entity = by_name[re.findall(r"Town\d+", item.prompt)[0]]
            assert entity.group == group
            assert item.completion == f" {entity.values[str(item.meta['relation'])]}\n"
            assert item.prompt.startswith("Q: ")
            assert item.prompt.endswith("?\nA:")
    prompts = find_prompts(document.text for document in corpus.train)
    assert not prompts & {item.prompt for item in corpus.sets["knowledge_qa"]}
    assert prompts & {item.prompt for item in corpus.sets["knowledge_qa_trainhalf"]}


def test_exposures_count_the_statements_of_a_fact(corpus: Corpus) -> None:
    statements = [document.text for document in corpus.train if not document.text.startswith("Q:")]
    by_name = {entity.name: entity for entity in entities()}
    checked = 0
    for item in corpus.sets["knowledge_qa"]:
        if item.meta["relation"] == "population":
            value = by_name[re.findall(r"Town\d+", item.prompt)[0]].values["population"]
            assert item.meta["exposures"] == sum(bool(re.search(rf"\b{value}\b", text)) for text in statements) > 0
            checked += 1
    assert checked > 10


def test_load_of_facts(corpus: Corpus) -> None:
    seen = [entity for entity in entities() if entity.group != UNSEEN]
    load = corpus.facts
    assert load["count"] == 3 * len(seen)
    size = sum(len(document.text.encode()) for document in corpus.train)
    assert load["train_bytes"] == size
    assert load["mentions_per_byte"] * size == pytest.approx(load["mentions"])  # type: ignore[operator]
    # two relations with an answer of its own for each of n entities: n log2 n bits each; the third is one of four
    countries = Counter(entity.values["country"] for entity in seen)
    planted = 2 * len(seen) * math.log2(len(seen)) + sum(n * math.log2(len(seen) / n) for n in countries.values())
    assert load["bits"] == pytest.approx(planted, abs=0.06)


def test_ideal_guesser_pays_the_entropy_of_a_uniform_relation() -> None:
    items = knowledge.make_question_items(entities(64), group=STATED, zipf_exponent=0.0, exposures={})
    paid = {item.meta["relation"]: item.meta["ideal_nll"] for item in items}
    assert paid["population"] == pytest.approx(math.log(64), abs=1e-5)
    assert paid["country"] == pytest.approx(math.log(4), abs=1e-5)


@pytest.mark.parametrize("zipf_exponent", [0.0, 0.75, 1.5])
def test_mentions_fall_with_rank_as_the_exponent_says(zipf_exponent: float) -> None:
    some = entities(200)
    mentions = Counter(
        mention.entity.rank
        for mention in knowledge.stream_mentions(some, seed="t", zipf_exponent=zipf_exponent, max_bytes=1_500_000)
        if not mention.asks
    )
    weights = knowledge.rank_weights(200, zipf_exponent)
    share = sum(mentions[rank] for rank in range(40)) / mentions.total()
    expected = sum(weights[:40]) / sum(weights)
    assert share == pytest.approx(expected, abs=4 * math.sqrt(expected / mentions.total()))


def test_every_relation_can_be_said_and_asked() -> None:
    assert set(fact_phrasings.STATEMENTS) == set(fact_phrasings.QUESTIONS)
    for templates in fact_phrasings.STATEMENTS.values():
        for template in templates:
            assert "{v}" in template
            assert ("{s}" in template) != ("{n}" in template), template
    assert all("{n}" in template for templates in fact_phrasings.QUESTIONS.values() for template in templates)


@pytest.mark.parametrize(
    ("number", "text"),
    [(24_874_500, "25 million"), (1_249_000, "1.2 million"), (9_960_000, "10 million"), (456_789, "460,000"),
     (999_999, "1 million"), (1_400_000_000, "1,400 million"), (47, "47"), (0.4, "0"), (0, "0")],
)  # fmt: skip
def test_rounding_keeps_two_digits(number: float, text: str) -> None:
    assert facts.format_rounded(number) == text


def test_degrees_and_lists_read_well() -> None:
    assert facts.format_degrees(-33.9, "north", "south") == "34 degrees south"
    assert facts.format_degrees(0.7, "north", "south") == "1 degree north"
    assert facts.format_degrees(-0.2, "north", "south") == "0 degrees"
    assert facts.join_names(["Spain", "Austria", "Italy"]) == "Austria, Italy and Spain"
    assert facts.join_names(["Spain"]) == "Spain"
    assert [facts.add_article(name) for name in ("Netherlands", "Cook Islands", "Peru")] == [
        "the Netherlands", "the Cook Islands", "Peru",
    ]  # fmt: skip


def test_nearest_larger_city() -> None:
    def place(city: str, population: int, latitude: float, longitude: float) -> dict[str, object]:
        return {"city": city, "population": population, "latitude": latitude, "longitude": longitude}

    rows = [place("big", 900, 0, 0), place("near", 500, 0, 178), place("half", 450, 1, 1), place("small", 100, 0, -179)]
    assert facts.find_larger_cities(rows, rows) == [None, None, "big", "near"]  # across the date line


def test_factbook_pages_of_held_out_countries_are_only_measured() -> None:
    def section(country: str, *, held_out: bool) -> facts.CountrySection:
        line = f"{country} has a long coast, two high mountains, and a river that runs to the sea"
        return facts.CountrySection(
            country=country, title="Geography", lines=(("Terrain", line), ("Area", "9")), held_out=held_out
        )

    sections = [section("Here", held_out=False), section("There", held_out=True)]
    assert knowledge.sample_factbook(sections, max_bytes=1000) == [sections[0].text]
    assert knowledge.sample_factbook(sections, max_bytes=20) == []
    (item,) = knowledge.make_section_items([section for section in sections if section.held_out])
    assert item.prompt == "There: Geography\nTerrain:"
    assert item.text in sections[1].text
