"""Losses per token and per byte, and losses of several tokenizers, are not mixed without a word."""

import json

import numpy as np
import pandas as pd
import pytest

from skillscale.errors import InputError
from skillscale.tables import make_run_table, parse_columns
from skillscale.tables.imported import _level_notes, _table_of_rows
from skillscale.tables.importing import check_fits, import_source
from skillscale.tables.loss_units import loss_unit

MAPPING = {"n_params": "params", "n_tokens": "tokens", "skills": {"all": "loss"}}
N, D = (part.ravel() for part in np.meshgrid([1e8, 3e8, 1e9], [2e9, 6e9, 2e10], indexing="ij"))
LOSS = 1.5 + 400 / N**0.34 + 2000 / D**0.37


def grid(**columns):
    return pd.DataFrame({"params": N, "tokens": D, "loss": LOSS, **columns})


def read(table, **more):
    return make_run_table(table, parse_columns({**MAPPING, **more}))


@pytest.mark.parametrize(
    ("column", "unit"),
    [
        ("bpb_arc", "bits per byte"),
        ("wikitext/bits_per_byte", "bits per byte"),
        ("byte_perplexity", "nats per byte"),
        ("nll_per_char", "nats per character"),
        ("word_perplexity", "nats per word"),
        ("loss", ""),
        ("loss_keyword", ""),
        ("bytes", ""),
    ],
)
def test_the_unit_of_a_loss_by_its_name(column, unit):
    assert loss_unit(parse_columns({**MAPPING, "skills": {"all": column}}), "all") == unit
    if unit.startswith("bits"):
        in_nats = parse_columns({**MAPPING, "skills": {"all": column}, "units": {"all": "bits"}})
        assert loss_unit(in_nats, "all") == unit.replace("bits", "nats")


def test_skills_of_several_units_are_noted():
    table = grid(bpb_code=LOSS / 4)
    (note,) = read(table, skills={"all": "loss", "code": "bpb_code"}).notes
    assert "(nats per token: all; bits per byte: code)" in note
    assert read(table, skills={"code": "bpb_code"}).notes == ()


@pytest.mark.parametrize("name", ["tokenizer", "config.tokenizer_name", "vocab_size", "model/vocab"])
def test_rows_of_several_tokenizers_are_noted(name):
    values = [50257, 32000, 32000] * 3 if "vocab" in name else ["gpt2", "llama", "llama"] * 3
    (note,) = [note for note in read(grid(**{name: values})).notes if "tokenizers" in note]
    assert note.startswith(f"rows have 2 tokenizers ({name} {values[0]}, {name} {values[1]})")
    per_byte = grid(**{name: values, "bpb": LOSS / 4})
    assert read(per_byte, skills={"all": "bpb"}).notes == ()
    assert read(grid(**{name: values}), where={name: values[1]}).notes[1:] == read(grid(**{name: values[1]})).notes


def imported(name, table, **more):
    columns = parse_columns({**MAPPING, **more})
    return import_source(name, "", make_run_table(table, columns), columns)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({}, {"skills": {"all": "bpb"}}, "all in no unit by its name, and now in bits per byte"),
        (
            {"skills": {"all": "bpb"}},
            {"skills": {"all": "bpb"}, "units": {"all": "bits"}},
            "all in bits per byte, and now in nats per byte",
        ),
    ],
)
def test_a_study_takes_one_unit_of_a_skill(first, second, message):
    table = grid(bpb=LOSS / 4)
    with pytest.raises(InputError, match=message):
        check_fits(imported("b.csv", table, **second), [imported("a.csv", table, **first)], "theirs")


def test_a_study_takes_one_tokenizer():
    sources = [imported(f"{name}.csv", grid(tokenizer=name, bpb=LOSS / 4)) for name in ("gpt2", "llama")]
    with pytest.raises(InputError, match="has tokenizer gpt2, and the new runs have tokenizer llama"):
        check_fits(sources[1], sources[:1], "theirs")
    check_fits(sources[0], sources[:1], "theirs")
    per_byte = [imported(f"{name}.csv", grid(tokenizer=name, bpb=LOSS / 4), skills={"all": "bpb"}) for name in "ab"]
    check_fits(per_byte[1], per_byte[:1], "theirs")


@pytest.mark.parametrize(("factor", "count"), [(1.0, 0), (1.1, 0), (1.4427, 1), (0.25, 1)])
def test_imports_whose_losses_differ_as_units_do_are_noted(factor, count):
    sources = [imported(f"{at}.csv", grid(loss=LOSS * scale)) for at, scale in enumerate((1.0, factor * 1.0001))]
    described = [json.loads(source.described) for source in sources]
    tables = [read(grid(loss=LOSS * scale)) for scale in (1.0, factor * 1.0001)]
    contents = [content for source in described for content in source["rows"]]
    rows = [row for table in tables for row in table.runs.to_dict(orient="records")]
    table = _table_of_rows([row | {"content": content} for row, content in zip(rows, contents, strict=True)], described)
    assert len(list(_level_notes(table, contents, described))) == count
