"""Forged law documents: each is refused in one line that names the place, whatever stands in it."""

import copy
import json
import math

import numpy as np
import pytest
from planted_laws import bound, scattered, truth

from skillscale.errors import InputError
from skillscale.laws.fit.skill_law import fit_skill
from skillscale.laws.io import schema
from skillscale.laws.io.document import law_document, read_document
from skillscale.laws.io.schema import parse


@pytest.fixture(scope="module")
def valid():
    documents = {}
    for name in ("chinchilla", "separable"):
        points = scattered(bound(name), truth(name), n=60, noise=0.005)
        fitted = fit_skill("code", points, law=bound(name), resamples=20)
        documents[name] = json.loads(json.dumps(law_document({"code": fitted})))
    return documents


def put(document, path, value):
    forged = copy.deepcopy(document)
    *outer, last = path
    part = forged
    for key in outer:
        part = part[key]
    part[last] = value
    return forged


FORGED = {
    "skills is a list": (("skills",), [1], "skills"),
    "a skill is none": (("skills", "code"), None, "code"),
    "a skill is a list": (("skills", "code"), [[]], "code"),
    "an aggregate is a number": (("aggregates",), 5, "aggregates"),
    "aggregates hold a list": (("aggregates",), [["a"]], "aggregates"),
    "mixes is a list": (("mixes",), [1], "mixes"),
    "mixes of other skills": (("mixes",), {"prose": "web"}, "mixes"),
    "a mix that the name lacks": (("mixes",), {"code": "web"}, "mixes"),
    "convention is an object": (("convention",), {"a": 1}, "convention"),
    "convention with a line end": (("convention",), 'x"""\nimport os', "control character"),
    "convention with a line separator": (("convention",), "x\u2028import os", "control character"),
    "convention that turns letters": (("convention",), "x\u202etxt", "control character"),
    "convention of 300 letters": (("convention",), "x" * 300, "300 characters"),
    "law is a list": (("skills", "code", "law"), ["chinchilla"], "code.law"),
    "law is unknown": (("skills", "code", "law"), "__class__", "__class__"),
    "theta is a list": (("skills", "code", "theta"), [1, 2], "code.theta"),
    "theta is text": (("skills", "code", "theta", "E"), "1.7", "code.theta.E"),
    "theta is true": (("skills", "code", "theta", "E"), True, "code.theta.E"),
    "theta is huge": (("skills", "code", "theta", "E"), 10**400, "code.theta.E"),
    "theta is negative": (("skills", "code", "theta", "A"), -3.0, "log-parameters"),
    "theta predicts infinity": (("skills", "code", "theta", "A"), 1e308, "predicts"),
    "no draws": (("skills", "code", "draws"), [], "code.draws"),
    "draws are short": (("skills", "code", "draws"), [[1.0, 2.0]], "in each draw"),
    "draws differ in length": (("skills", "code", "draws"), [[1.0] * 5, [1.0] * 4], "in each draw"),
    "draws are one deeper": (("skills", "code", "draws"), [[[1.0] * 5]], "code.draws.0.0"),
    "draws are one less deep": (("skills", "code", "draws"), [1.0] * 5, "code.draws.0"),
    "draws hold none": (("skills", "code", "draws"), [[None] * 5], "code.draws.0.0"),
    "draws are nan": (("skills", "code", "draws"), [[math.nan] * 5], "code.draws.0.0"),
    "draws are huge": (("skills", "code", "draws"), [[1e9] * 5], "code.draws.0.0"),
    "level is 2": (("skills", "code", "level"), 2, "code.level"),
    "level is 0": (("skills", "code", "level"), 0, "code.level"),
    "noise is none": (("skills", "code", "noise"), None, "code.noise"),
    "noise is negative": (("skills", "code", "noise"), -1, "code.noise"),
    "noise is infinite": (("skills", "code", "noise"), math.inf, "code.noise"),
    "status is unheard of": (("skills", "code", "status"), "fine\nimport os", "code.status"),
    "n_runs is a fraction": (("skills", "code", "n_runs"), 2.5, "code.n_runs"),
    "n_runs is huge": (("skills", "code", "n_runs"), 10**400, "code.n_runs"),
    "runs is a number": (("skills", "code", "runs"), 7, "code.runs"),
    "reach has three ends": (("skills", "code", "reach"), [1.0, 2.0, 3.0], "code.reach"),
    "reach is text": (("skills", "code", "reach"), "ab", "code.reach"),
    "reach is zero": (("skills", "code", "reach"), [0, 0], "code.reach"),
    "weight is nan": (("skills", "code", "weight"), math.nan, "code.weight"),
    "weight is 0": (("skills", "code", "weight"), 0.0, "code.weight"),
    "weight is 7": (("skills", "code", "weight"), 7, "code.weight"),
    "x0 is huge": (("skills", "code", "x0"), 1e9, "code.x0"),
    "x0 is text": (("skills", "code", "x0"), "__import__('os')", "code.x0"),
    "sizes is a number": (("skills", "code", "sizes"), 3, "code.sizes"),
    "shares disagree": (("skills", "code", "shares"), [[0.5], [0.5, 0.5]], "shares"),
    "warnings is an object": (("skills", "code", "warnings"), {"a": 1}, "code.warnings"),
    "rivals is a law": (("skills", "code", "rivals"), {"law": "chinchilla"}, "code.rivals"),
    "a rival is none": (("skills", "code", "rivals"), [None], "code.rivals.0"),
    "effects are a list": (("skills", "code", "effects"), [1], "code.effects"),
    "effects disagree": (
        ("skills", "code", "effects"), {"categories": ["a"], "mixes": [[1.0]], "ln L": [0.1, 0.2]}, "effects",
    ),
    "a name that breaks out": (("skills", 'x"""\nimport os'), None, "is None"),
}  # fmt: skip
MIX_FORGED = {
    "categories is text": (("skills", "code", "categories"), "abc", "code.categories"),
    "a category is a number": (("skills", "code", "categories", 0), 5, "code.categories.0"),
    "a category twice": (("skills", "code", "categories"), ["code", "code", "web"], "twice"),
    "no category": (("skills", "code", "categories"), [], "needs a mix"),
    "mix is a list": (("skills", "code", "mix"), [1], "code.mix"),
    "mix of another category": (("skills", "code", "mix"), {"law": 1.0}, "mix"),
    "mix sums to 3": (("skills", "code", "mix"), {"code": 1.0, "prose": 1.0, "web": 1.0}, "mix"),
    "mix is negative": (("skills", "code", "mix"), {"code": -1.0}, "code.mix"),
    "shares of two categories": (("skills", "code", "shares"), [[0.5, 0.5], [0.5, 0.5]], "shares"),
}


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_document_is_refused_with_the_place(valid, case):
    path, value, place = FORGED[case]
    with pytest.raises(InputError, match=r"Fit the runs again|which this version does not have") as caught:
        read_document(put(valid["chinchilla"], path, value), source="law.json")
    assert place in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("case", MIX_FORGED)
def test_a_forged_mix_is_refused_with_the_place(valid, case):
    path, value, place = MIX_FORGED[case]
    with pytest.raises(InputError, match=place):
        read_document(put(valid["separable"], path, value), source="law.json")


@pytest.mark.parametrize("document", [None, 5, "law", [1, 2], [], True])
def test_what_is_no_object_is_no_document(document):
    with pytest.raises(InputError, match=r"is no law\.json: it holds"):
        read_document(document, source="it")


@pytest.mark.parametrize("version", [True, 2.0, "2", [2], {}, 10**400])
def test_a_schema_is_a_whole_number(valid, version):
    with pytest.raises(InputError, match="holds laws of schema"):
        read_document(valid["chinchilla"] | {"schema": version})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("[" * 100 + "]" * 100, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"skills": {}, "skills": {}}', "'skills' is there twice"),
        ('{"schema": NaN}', "NaN is no number"),
        ('{"schema": -Infinity}', "-Infinity is no number"),
        ("{", "no JSON"),
        ("", "no JSON"),
        (b"\xff\xfe{}x", "no JSON"),
        ("\x00" * 50, "no JSON"),
    ],
)
def test_a_text_that_is_no_json_is_refused(text, problem):
    with pytest.raises(InputError, match=problem):
        parse(text, "it")


def test_a_number_of_thousands_of_digits_is_none(valid):
    text = json.dumps(valid["chinchilla"]).replace('"n_runs": 60', '"n_runs": ' + "9" * 10_000)
    with pytest.raises(InputError, match=r"code\.n_runs"):
        read_document(parse(text, "it"))


def test_a_text_beyond_the_limit_is_refused_before_it_is_read(monkeypatch):
    monkeypatch.setattr(schema, "MAX_BYTES", 2**20)
    with pytest.raises(InputError, match="larger than the 1 MB"):
        parse(" " * (2**20 + 1), "it")


def test_keys_of_later_versions_are_passed_over(valid):
    later = put(put(valid["separable"], ("skills", "code", "later"), [1]), ("later",), {"a": None})
    law, same = (read_document(document)["code"] for document in (later, valid["separable"]))
    np.testing.assert_array_equal(law.loss(1e7, 1e9).value, same.loss(1e7, 1e9).value)
