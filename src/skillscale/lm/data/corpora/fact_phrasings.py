"""Wordings of facts: several statements and questions for each relation, so that a fact recurs in other words.

``{s}`` begins a sentence and is the name or a pronoun, ``{n}`` is always the name, and ``{v}`` is the exact answer.
"""

from collections.abc import Sequence
from random import Random

from skillscale.lm.data.corpora.facts import Entity

PRONOUNS = {
    "city": ("It", "The city", "This city"),
    "airport": ("It", "The airport", "This airport"),
    "country": ("It", "The country", "This country"),
    "element": ("It", "The element", "This element"),
    "word": ("It", "The word", "This word"),
}
STATEMENTS: dict[tuple[str, str], tuple[str, ...]] = {
    ("city", "country"): (
        "{n} is a city in {v}.",
        "{s} lies in {v}.",
        "{s} is located in {v}.",
        "{s} belongs to {v}.",
        "Among the cities of {v} is {n}.",
        "The country of {n} is {v}.",
    ),
    ("city", "region"): (
        "{s} is part of the region {v}.",
        "{s} is in {v}.",
        "{s} is found in the region called {v}.",
        "The region around {n} is {v}.",
        "One of the cities of {v} is {n}.",
    ),
    ("city", "population"): (
        "{s} has about {v} people.",
        "{s} has a population of {v}.",
        "{s} is home to about {v} people.",
        "About {v} people live in {n}.",
        "The population of {n} is about {v}.",
    ),
    ("city", "latitude"): (
        "{s} lies at a latitude of {v}.",
        "{s} has the latitude {v}.",
        "The latitude of {n} is {v}.",
        "On the map, {n} is at {v}.",
    ),
    ("city", "longitude"): (
        "{s} lies at a longitude of {v}.",
        "{s} has the longitude {v}.",
        "The longitude of {n} is {v}.",
        "On the map, {n} is at {v}.",
    ),
    ("city", "larger_city"): (
        "{s} has {v} as its nearest much larger city.",
        "{s} is closest, among cities twice its size, to {v}.",
        "The nearest city twice the size of {n} is {v}.",
        "From {n}, the nearest much larger city is {v}.",
    ),
    ("airport", "iata"): (
        "{s} has the IATA code {v}.",
        "{s} is known to travellers as {v}.",
        "The IATA code of {n} is {v}.",
        "On luggage tags, {n} is {v}.",
    ),
    ("airport", "icao"): (
        "{s} has the ICAO code {v}.",
        "{s} is known to pilots as {v}.",
        "The ICAO code of {n} is {v}.",
        "Flight plans write {v} for {n}.",
    ),
    ("airport", "city"): (
        "{s} serves {v}.",
        "{n} is the airport of {v}.",
        "Travellers to {v} can land at {n}.",
        "The city served by {n} is {v}.",
    ),
    ("airport", "country"): (
        "{s} is in {v}.",
        "{s} is located in {v}.",
        "The country of {n} is {v}.",
        "One of the airports of {v} is {n}.",
    ),
    ("airport", "elevation"): (
        "{s} is {v} above the sea.",
        "{s} lies at an elevation of {v}.",
        "The elevation of {n} is {v}.",
        "The runways of {n} are {v} above sea level.",
    ),
    ("country", "capital"): (
        "{s} has {v} as its capital.",
        "{s} is governed from {v}.",
        "The capital of {n} is {v}.",
        "{v} is the capital of {n}.",
    ),
    ("country", "continent"): (
        "{s} is in {v}.",
        "{s} belongs to the continent of {v}.",
        "The continent of {n} is {v}.",
        "On the map of {v} one finds {n}.",
    ),
    ("country", "currency"): (
        "{s} pays with the {v}.",
        "{s} uses the {v} as its money.",
        "The currency of {n} is the {v}.",
        "Prices in {n} are in the {v}.",
    ),
    ("country", "currency_code"): (
        "{s} has the currency code {v}.",
        "{s} has money that banks write as {v}.",
        "The currency code of {n} is {v}.",
    ),
    ("country", "population"): (
        "{s} has about {v} people.",
        "{s} has a population of {v}.",
        "About {v} people live in {n}.",
        "The population of {n} is about {v}.",
    ),
    ("country", "area"): (
        "{s} covers {v}.",
        "{s} has an area of {v}.",
        "The area of {n} is {v}.",
        "In all, {n} measures {v}.",
    ),
    ("country", "code"): (
        "{s} has the country code {v}.",
        "{s} is abbreviated {v}.",
        "The three-letter code of {n} is {v}.",
        "Lists of countries write {v} for {n}.",
    ),
    ("country", "domain"): (
        "{s} has the internet domain {v}.",
        "{s} has websites that end in {v}.",
        "The internet domain of {n} is {v}.",
    ),
    ("country", "calling_code"): (
        "{s} has the calling code {v}.",
        "{s} is reached by telephone with {v}.",
        "The calling code of {n} is {v}.",
        "To phone {n}, one dials {v}.",
    ),
    ("country", "neighbours"): (
        "{s} borders on {v}.",
        "{s} shares its land borders with {v}.",
        "The neighbours of {n} are {v}.",
        "Around {n} lie {v}.",
    ),
    ("element", "symbol"): (
        "{s} has the symbol {v}.",
        "{s} is written {v}.",
        "The symbol of {n} is {v}.",
        "In formulas, {v} stands for {n}.",
    ),
    ("element", "number"): (
        "{s} has the atomic number {v}.",
        "{s} is element {v}.",
        "The atomic number of {n} is {v}.",
        "The number of protons in {n} is {v}.",
    ),
    ("element", "weight"): (
        "{s} has an atomic weight of {v}.",
        "{s} weighs {v} atomic mass units.",
        "The atomic weight of {n} is {v}.",
    ),
    ("element", "group"): ("{s} is in group {v}.", "{s} belongs to group {v}.", "The group of {n} is {v}."),
    ("element", "period"): ("{s} is in period {v}.", "{s} stands in period {v}.", "The period of {n} is {v}."),
    ("element", "block"): ("{s} is in block {v}.", "{s} belongs to the block {v}.", "The block of {n} is {v}."),
    ("element", "series"): (
        "{s} is classed as {v}.",
        "{s} belongs to the series called {v}.",
        "The kind of element that {n} is: {v}.",
    ),
    ("element", "density"): (
        "{s} has a density of {v} grams per cubic centimetre.",
        "The density of {n} is {v} grams per cubic centimetre.",
        "A cubic centimetre of {n} weighs {v} grams.",
    ),
    ("element", "electronegativity"): (
        "{s} has an electronegativity of {v}.",
        "The electronegativity of {n} is {v}.",
        "On Pauling's scale, {n} has {v}.",
    ),
    ("element", "year"): (
        "{s} was discovered in {v}.",
        "{s} has been known since {v}.",
        "The year of discovery of {n} is {v}.",
        "In {v}, {n} was discovered.",
    ),
    ("word", "hypernym"): (
        "{s} means a kind of {v}.",
        "{s} names a sort of {v}.",
        "The broader word for {n} is {v}.",
        "More generally, {n} is a kind of {v}.",
    ),
    ("word", "gloss"): (
        "{s} means: {v}.",
        "{s} is defined as: {v}.",
        "The definition of {n} is: {v}.",
        "In a dictionary, {n} is: {v}.",
    ),
}
QUESTIONS: dict[tuple[str, str], tuple[str, ...]] = {
    ("city", "country"): ("In which country is the city of {n}?", "What country does the city {n} belong to?"),
    ("city", "region"): ("In which region is the city of {n}?", "What region does the city {n} belong to?"),
    ("city", "population"): ("How many people live in the city of {n}?", "What is the population of the city {n}?"),
    ("city", "latitude"): ("At what latitude is the city of {n}?", "What is the latitude of the city {n}?"),
    ("city", "longitude"): ("At what longitude is the city of {n}?", "What is the longitude of the city {n}?"),
    ("city", "larger_city"): (
        "Which is the nearest city twice the size of {n}?",
        "What is the nearest much larger city to {n}?",
    ),
    ("airport", "iata"): ("What is the IATA code of {n}?", "Which IATA code does {n} have?"),
    ("airport", "icao"): ("What is the ICAO code of {n}?", "Which ICAO code does {n} have?"),
    ("airport", "city"): ("Which city does {n} serve?", "What city is served by {n}?"),
    ("airport", "country"): ("In which country is {n}?", "What country is {n} in?"),
    ("airport", "elevation"): ("What is the elevation of {n}?", "How high above the sea is {n}?"),
    ("country", "capital"): ("What is the capital of {n}?", "Which city is the capital of {n}?"),
    ("country", "continent"): ("On which continent is {n}?", "What continent does {n} belong to?"),
    ("country", "currency"): ("What is the currency of {n}?", "Which currency does {n} use?"),
    ("country", "currency_code"): ("What is the currency code of {n}?", "How do banks write the currency of {n}?"),
    ("country", "population"): ("How many people live in {n}?", "What is the population of {n}?"),
    ("country", "area"): ("What is the area of {n}?", "How large is {n}?"),
    ("country", "code"): ("What is the three-letter code of {n}?", "Which country code does {n} have?"),
    ("country", "domain"): ("What is the internet domain of {n}?", "How do the websites of {n} end?"),
    ("country", "calling_code"): ("What is the calling code of {n}?", "Which calling code does {n} have?"),
    ("country", "neighbours"): ("Which are the neighbours of {n}?", "On what does {n} border?"),
    ("element", "symbol"): ("What is the symbol of {n}?", "How is the element {n} written?"),
    ("element", "number"): ("What is the atomic number of {n}?", "How many protons does {n} have?"),
    ("element", "weight"): ("What is the atomic weight of {n}?", "How heavy is an atom of {n}?"),
    ("element", "group"): ("In which group is {n}?", "What is the group of {n}?"),
    ("element", "period"): ("In which period is {n}?", "What is the period of {n}?"),
    ("element", "block"): ("In which block is {n}?", "What is the block of {n}?"),
    ("element", "series"): ("What kind of element is {n}?", "What is the element {n} classed as?"),
    ("element", "density"): ("What is the density of {n} in grams per cubic centimetre?",),
    ("element", "electronegativity"): ("What is the electronegativity of {n}?",),
    ("element", "year"): ("When was {n} discovered?", "In which year was {n} discovered?"),
    ("word", "hypernym"): ("What kind of thing does {n} mean?", "What is the broader word for {n}?"),
    ("word", "gloss"): ("What does {n} mean?", "What is the definition of {n}?"),
}
_NAME_REPEATS = 0.3


def write_profile(entity: Entity, relations: Sequence[str], rng: Random) -> str:
    """Write the relations as sentences in this order: the name first, then the name or a pronoun."""
    sentences = []
    for index, relation in enumerate(relations):
        template = rng.choice(STATEMENTS[entity.kind, relation])
        use_pronoun = index > 0 and rng.random() >= _NAME_REPEATS
        subject = rng.choice(PRONOUNS[entity.kind]) if use_pronoun else capitalise(entity.name)
        sentences.append(capitalise(template.format(s=subject, n=entity.name, v=entity.values[relation])))
    return " ".join(sentences) + "\n"


def write_record(entity: Entity, relations: Sequence[str]) -> str:
    """Write the relations as a line of a table."""
    cells = [f"{relation.replace('_', ' ')}: {entity.values[relation]}" for relation in relations]
    return " | ".join([f"{entity.kind}: {entity.name}", *cells]) + "\n"


def write_question(entity: Entity, relation: str, rng: Random) -> str:
    """Write a question in one of its wordings; an item's prompt and a training document share the format."""
    return f"Q: {rng.choice(QUESTIONS[entity.kind, relation]).format(n=entity.name)}\nA:"


def write_answer(entity: Entity, relation: str) -> str:
    """Write the text that follows ``A:``."""
    return f" {entity.values[relation]}\n"


def capitalise(text: str) -> str:
    """Write the first letter of a text in upper case."""
    return text[:1].upper() + text[1:]
