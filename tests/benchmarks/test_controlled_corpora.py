"""The controlled corpora: facts are counted, each person keeps a group, programs print their stated output."""

import ast
import contextlib
import io
import json
import math
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

from skillscale import config
from skillscale.lm.data.corpora.facts import QUESTIONED, STATED, UNSEEN
from skillscale.lm.data.corpora.items import Corpus, Item, seeded_rng
from skillscale.lm.data.prepare import prepare

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import controlled_corpora
from controlled import biographies as bios
from controlled import programs as progs

PEOPLE = 80


@pytest.fixture(scope="module")
def biographies() -> Corpus:
    return bios.build(people=PEOPLE, zipf_exponent=0.0, stream_bytes=200_000, validation_bytes=5_000)


@pytest.fixture(scope="module")
def programs() -> Corpus:
    return progs.build(stream_bytes=150_000, validation_bytes=5_000)


def by_name(count: int = PEOPLE) -> dict[str, bios.Person]:
    return {person.name: person for person in bios.make_people(count)}


def person_of(item: Item) -> bios.Person:
    (name,) = re.findall(r"\b[BDGKPT]\w+ [BDGKPT]\w+\b", item.prompt.replace("Q: ", "q: "))[:1]
    return by_name()[name]


def test_a_person_has_47_59_bits() -> None:
    bits = 16.0362 + 7.6439 + 8.2288 + 6.6439 + 8.0389 + 1
    assert pytest.approx(bits, abs=1e-3) == bios.PERSON_BITS


def test_the_words_of_a_relation_are_as_many_as_its_bits_say() -> None:
    words = {relation: bios.words_of(relation) for relation in ("birth_city", "university", "major", "employer")}
    for relation, answers in words.items():
        assert len(answers) == len(set(answers)) == bios.CHOICES[relation]
    assert set(bios.employer_cities(words)) == set(words["employer"])
    assert set(bios.employer_cities(words).values()) <= set(words["birth_city"])


def test_attributes_are_drawn_evenly_and_each_by_itself() -> None:
    """Chi squared of each attribute, and of gender against major, within five of its deviations."""
    people = bios.make_people(20_000)
    for relation in ("birth_city", "university", "major", "employer"):
        counts = Counter(person.values[relation] for person in people)
        expected = len(people) / bios.CHOICES[relation]
        chi = sum((counts[word] - expected) ** 2 / expected for word in bios.words_of(relation))
        freedom = bios.CHOICES[relation] - 1
        assert abs(chi - freedom) < 5 * math.sqrt(2 * freedom), relation
    assert len({person.values["birthday"] for person in people}) == pytest.approx(
        67_200 * (1 - math.exp(-len(people) / 67_200)), rel=0.02
    )
    pairs = Counter((person.pronoun, person.values["major"]) for person in people)
    expected = len(people) / 200
    assert abs(sum((n - expected) ** 2 / expected for n in pairs.values()) - 199) < 5 * math.sqrt(2 * 199)


def test_half_are_asked_about_and_more_people_change_nobody() -> None:
    few, many = bios.make_people(50), bios.make_people(500)
    assert [person.values for person in few] == [person.values for person in many[: len(few)]]
    assert Counter(person.group for person in many) == {QUESTIONED: 250, STATED: 250, UNSEEN: bios.UNSEEN_PEOPLE}
    assert len({person.name for person in many}) == len(many)


def test_everybody_told_is_in_training_and_only_half_is_asked_about(biographies: Corpus) -> None:
    text = "".join(document.text for document in biographies.train)
    for person in by_name().values():
        assert bool(re.search(rf"^Q: .*\b{person.name}\b", text, re.MULTILINE)) == (person.group == QUESTIONED)
        assert bool(re.search(rf"^{person.name} ", text, re.MULTILINE)) == (person.group != UNSEEN)


def test_every_biography_tells_every_fact_of_one_person(biographies: Corpus) -> None:
    people = by_name()
    for document in biographies.train:
        if not document.text.startswith("Q: "):
            person = people[" ".join(document.text.split()[:2])]
            assert all(f" {value}." in document.text for value in person.values.values())
            assert document.text.count(f". {person.pronoun} ") == 5


def test_sets_ask_about_their_group_and_answer_rightly(biographies: Corpus) -> None:
    groups = {"bios_qa": STATED, "bios_qa_trainhalf": QUESTIONED, "bios_unseen": UNSEEN, "bios_stated": STATED}
    statements = Counter(
        " ".join(document.text.split()[:2]) for document in biographies.train if document.text[:2] != "Q:"
    )
    for name, group in groups.items():
        items = biographies.sets[name]
        assert len(items) > 100
        for item in items:
            person = person_of(item)
            assert person.group == group
            assert item.completion.strip().rstrip(".") == person.values[str(item.meta["relation"])]
            assert item.meta["exposures"] == statements[person.name]
            assert item.meta["ideal_nll"] == pytest.approx(math.log(bios.CHOICES[str(item.meta["relation"])]), abs=1e-6)


def test_no_question_of_the_evaluation_is_asked_in_training(biographies: Corpus) -> None:
    text = "".join(document.text for document in biographies.train)
    for name in ("bios_qa", "bios_unseen"):
        assert not any(item.prompt.removesuffix("\nA:") in text for item in biographies.sets[name])
    assert any(item.prompt in text for item in biographies.sets["bios_qa_trainhalf"])


def test_a_statement_to_complete_is_the_end_of_a_biography(biographies: Corpus) -> None:
    phrases = {verb for verbs in bios.STATEMENTS.values() for verb in verbs}
    for item in biographies.sets["bios_stated"]:
        last = item.text.removesuffix(item.completion).rpartition(". ")[2].partition(" ")[2]
        assert last in phrases
        assert last in bios.STATEMENTS[str(item.meta["relation"])]
        assert item.text.count(".") == 6


def test_training_loses_nothing_to_validation(biographies: Corpus) -> None:
    """What is in both is taken out of training, and exposures would no longer be counted truly."""
    trained = {document.text for document in biographies.train}
    assert len(biographies.validation) > 20
    assert not trained & {document.text for document in biographies.validation}


def test_the_load_counts_bits_and_mentions(biographies: Corpus) -> None:
    facts = biographies.facts
    statements = [document.text for document in biographies.train if not document.text.startswith("Q: ")]
    size = sum(len(document.text.encode()) for document in biographies.train)
    assert facts["count"] == 6 * PEOPLE
    assert facts["bits"] == pytest.approx(PEOPLE * 47.5912, rel=1e-4)
    assert facts["mean_exposures"] == pytest.approx(len(statements) / PEOPLE)
    exposures = facts["mentions_per_byte"] * size / facts["count"]  # type: ignore[operator]
    assert exposures == pytest.approx(len(statements) / PEOPLE)
    n_questions = sum(document.text.count("Q: ") for document in biographies.train)
    assert facts["mentions_in_questions"] == n_questions


def test_mentions_are_even_or_fall_with_rank() -> None:
    people = bios.make_people(100)[:100]
    for zipf_exponent in (0.0, 1.0):
        mentions = Counter(
            person.rank
            for person, _, n_questions in bios.stream(
                people, seed="t", zipf_exponent=zipf_exponent, max_bytes=2_000_000
            )
            if not n_questions
        )
        weights = [(rank + 20) ** -zipf_exponent for rank in range(100)]
        share = sum(mentions[rank] for rank in range(20)) / mentions.total()
        expected = sum(weights[:20]) / sum(weights)
        assert share == pytest.approx(expected, abs=4 * math.sqrt(expected / mentions.total()))


def test_programs_print_what_they_say(programs: Corpus) -> None:
    kinds: Counter[str] = Counter()
    for document in programs.train:
        source, _, output = document.text.rpartition("# Output: ")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(source, {})
        assert printed.getvalue() == output
        kinds.update(type(node).__name__ for node in ast.walk(ast.parse(source)))
    assert {"If", "For", "FunctionDef", "Call", "List", "Subscript", "BinOp", "Compare"} <= set(kinds)
    assert len({document.text for document in programs.train}) > 0.99 * len(programs.train)


def test_programs_of_the_sets_are_new(programs: Corpus) -> None:
    trained = {document.text.rpartition("# Output:")[0] for document in programs.train}
    outputs, texts = programs.sets["progs_output"], programs.sets["progs_text"]
    assert (len(outputs), len(texts)) == (1000, 500)
    assert not {item.prompt.removesuffix("# Output:") for item in outputs} & trained
    assert not {item.completion for item in texts} & trained
    for item in outputs[:50]:
        assert item.completion == f" {progs.run_program(item.prompt)}\n"
    # by counting outputs alone, a guesser pays the entropy of the outputs, about
    counts = Counter(document.text.rpartition("# Output:")[2] for document in programs.train)
    entropy = -sum(n / counts.total() * math.log(n / counts.total()) for n in counts.values())
    paid = sum(float(item.meta["ideal_nll"]) for item in outputs) / len(outputs)
    assert paid == pytest.approx(entropy, rel=0.15)


def test_a_program_can_do_nothing_but_print() -> None:
    with pytest.raises(ImportError):
        progs.run_program("import os\nprint(1)\n")
    with pytest.raises(NameError):
        progs.run_program("open('x')\nprint(1)\n")


def test_programs_end_at_every_seed() -> None:
    rng = seeded_rng("many")
    assert all(progs.run_program(progs.program(rng)) for _ in range(3_000))


@pytest.fixture
def small_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Corpora of 60 kB in place of 100 MB."""
    for module in (bios, progs):
        monkeypatch.setitem(module.build.__kwdefaults__, "stream_bytes", 30_000)


@pytest.mark.usefixtures("small_streams")
def test_the_folder_has_both_corpora_and_no_sources(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    for people in (20, 40):  # the second call replaces the folder of the first
        controlled_corpora.main(["--people", str(people), "--folder", str(folder)])
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["facts"]["bits"] == pytest.approx(people * bios.PERSON_BITS, abs=0.06)
    assert (set(manifest["categories"]), manifest["sources"]) == ({"bios", "progs"}, [])
    assert set(manifest["sets"]) == set(controlled_corpora.SETS)


@pytest.mark.parametrize("words", [["--people", "9"], ["--people", "100001"], ["--zipf_exponent", "3.1"]])
def test_options_out_of_range_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        controlled_corpora.main(words)
    assert "is out of range. Give " in capsys.readouterr().err


# The text that studies before 0.2 were trained on; the sums are the manifest's "sha256" of the full corpora
RECIPE_1 = {
    "bios": "14d4696dff26ed50905d7001641d551e4baac75b898e8b28c65356b649fa39b4",
    "progs": "554c15cf7e80ffb08c0d208ebb5a21bab229537d1c5e7ce8b3bee78f20d41b98",
}


@pytest.mark.slow
def test_the_text_is_that_of_recipe_1(tmp_path: Path) -> None:
    controlled_corpora.main(["--folder", str(tmp_path / "made")])
    categories = json.loads((tmp_path / "made" / "manifest.json").read_text())["categories"]
    assert {name: counts["train"]["sha256"] for name, counts in categories.items()} == RECIPE_1


@pytest.mark.usefixtures("small_streams")
def test_the_study_reads_the_folder_and_counts_its_facts(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)  # the study names its data and skills from there
    study = config.load(
        study="benchmarks/controlled/study.yaml",
        overrides={"data.vocab_size": "300", "data.tokenizer_bytes": "20000"},
    )
    monkeypatch.chdir(tmp_path)
    controlled_corpora.main(["--people", "40"])
    prepared = prepare(study, tmp_path / "cache", progress=lambda _: None)
    assert set(prepared.categories) == {"knowledge", "code"}
    assert set(prepared.sets) == set(controlled_corpora.SETS)
    assert prepared.facts is not None
    assert prepared.facts.count == 6 * 40
    manifest = json.loads(Path("build/controlled/manifest.json").read_text())
    exposures = prepared.facts.exposures(prepared.categories["knowledge"].n_tokens)
    assert exposures == pytest.approx(manifest["facts"]["mean_exposures"], rel=0.02)
