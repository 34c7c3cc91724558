"""Templates look fields up and evaluate nothing."""

from typing import Any

import pytest

from skillscale.errors import InputError
from skillscale.lm.evaluation.templates import Template

ROW: dict[str, Any] = {
    "question": "Who?",
    "answer": {"value": "Ada", "aliases": ["Ada L.", "A."]},
    "answers": {"text": ["in Paris"], "answer_start": [3]},
    "choices": ["one", "two", "three"],
    "label": 2,
    "possible": '["poet", "writer"]',
    "empty": None,
    "zero": 0,
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("Q: {question}\nA:", "Q: Who?\nA:"),
        ("{answer[value]}", "Ada"),
        ("{answer[aliases][1]}", "A."),
        (" {answers[text][0]}", " in Paris"),
        ("{choices[0]}/{choices[label]}", "one/three"),
        ("{possible[1]}", "writer"),
        ("{{{question}}}", "{Who?}"),
        ("<{empty}>", "<>"),
        ("{zero}", "0"),
        ("no field", "no field"),
        ("", ""),
    ],
)
def test_fields_are_looked_up(template: str, text: str) -> None:
    assert Template(template).fill(ROW) == text


def test_columns_are_known_before_a_row_is_read() -> None:
    assert Template("{b} {a[0]} {b[x]}").columns == ("a", "b")


@pytest.mark.parametrize(
    "template",
    [
        "{question.__class__}",
        "{answer[value].upper}",
        "{0.real}",
        "{question!r}",
        "{question:>10}",
        "{}",
        "{a[b.c]}",
        "{a[]}",
    ],
)
def test_anything_but_a_look_up_is_refused(template: str) -> None:
    with pytest.raises(InputError, match="invalid field in template"):
        Template(template)


def test_single_braces_are_refused() -> None:
    with pytest.raises(InputError, match=r"can't be read.*Write {{ and }} for braces"):
        Template("def f() { return }}")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{answr}", r"unknown column .*'answr'\. Choose from question, answer, answers"),
        ("{answer[vale]}", r"unknown key .*'vale'\. Choose from value, aliases"),
        ("{choices[3]}", "index '3' .* a list of length 3"),
        ("{choices[question]}", "index 'question' .*'Who.'.* a column that contains one"),
        ("{choices[nothing]}", "index 'nothing' .*None"),
        ("{question[0]}", "index '0' for 'Who.', which is no list or mapping"),
        ("{label[0]}", "index '0' for 2"),
    ],
)
def test_what_is_not_there_names_what_is(template: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Template(template).fill(ROW)
