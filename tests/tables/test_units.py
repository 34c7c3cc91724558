"""Units of N, D and FLOP: advice where one unit is plausible, a question where several are, and no silent mixing."""

import re

import numpy as np
import pandas as pd
import pytest

from skillscale.errors import InputError
from skillscale.tables import make_run_table, parse_columns, read_table

MAPPING = {"n_params": "params", "n_tokens": "tokens", "skills": {"all": "loss"}}
FLOPS = {**MAPPING, "flops": "flops"}


def grid(*, params=1.0, tokens=1.0, flops=1.0, **columns):
    """Nine runs whose columns are divided by units."""
    N, D = (part.ravel() for part in np.meshgrid([1e8, 3e8, 1e9], [2e9, 6e9, 2e10], indexing="ij"))
    loss = 1.5 + 400 / N**0.34 + 2000 / D**0.37
    return pd.DataFrame(
        {"params": N / params, "tokens": D / tokens, "flops": 6 * N * D / flops, "loss": loss, **columns}
    )


def read(table, mapping=MAPPING, **more):
    return make_run_table(table, parse_columns({**mapping, **more}))


def refused(table, mapping=MAPPING, **more):
    with pytest.raises(InputError) as caught:
        read(table, mapping, **more)
    return str(caught.value)


def advised(message):
    return re.findall(r"units: \{([^}]*)\}", message)


@pytest.mark.parametrize(("column", "factor"), [("tokens", 1e-6), ("tokens", 1e-9), ("params", 1e-6)])
def test_rows_of_two_units_are_given_no_one_unit(column, factor):
    table = grid()
    table.loc[:5, column] *= factor
    message = refused(table)
    assert "in 6 rows and" in message
    assert "a column has two units" in message
    assert advised(message) == []


def test_rows_of_another_unit_are_noted_where_the_column_map_names_one():
    table = grid(tokens=1e6)
    table.loc[:2, "tokens"] *= 1e5
    table = read(table, units={"n_tokens": 1e6})
    assert any("in 3 rows, far from the other rows: do they have another unit?" in note for note in table.notes)
    assert read(grid(tokens=1e6), units={"n_tokens": 1e6}).notes == ()


@pytest.mark.parametrize("mapping", [MAPPING, FLOPS])
@pytest.mark.parametrize(
    ("units", "advice"),
    [
        ({"tokens": 1e3}, "n_tokens: 1e3"),
        ({"tokens": 1e6}, "n_tokens: 1e6"),
        ({"tokens": 1e9}, "n_tokens: 1e9"),
        ({"tokens": 1e12}, "n_tokens: 1e12"),
        ({"params": 1e6}, "n_params: 1e6"),
        ({"params": 1e6, "tokens": 1e9}, "n_params: 1e6, n_tokens: 1e9"),
        ({"params": 1e9, "tokens": 1e12}, "n_params: 1e9, n_tokens: 1e12"),
    ],
)
def test_the_flops_of_the_table_decide_on_the_unit_whether_they_are_mapped_or_not(mapping, units, advice):
    message = refused(grid(**units), mapping)
    assert advised(message)[0] == advice
    assert len(advised(message)) == (1 if mapping is FLOPS else 2)  # the other says that it is right
    assert "(D/N = 20)" in message
    factors = dict(pair.split(": ") for pair in advice.split(", "))
    assert list(read(grid(**units), mapping, units=factors).runs["D"]) == pytest.approx(list(grid()["tokens"]))


def test_without_flops_all_meanings_are_listed_with_what_each_gives():
    message = refused(grid(tokens=1e9).drop(columns="flops"))
    assert advised(message) == ["n_tokens: 1e9", "n_tokens: 1e12", "n_tokens: X", "n_tokens: 1"]
    assert "billions (D/N = 20), " in message
    assert "trillions (D/N = 20000), " in message
    assert "for steps or sequences of X tokens" in message


def test_steps_are_recognised_by_the_flops():
    message = refused(grid(tokens=524288))
    assert advised(message)[0] == "n_tokens: 524288"
    assert "steps of 524,288 tokens (D/N = 20)" in message


@pytest.mark.parametrize("name", ["step", "_step", "global_step", "train/iterations", "n_sequences", "epochs"])
def test_a_column_of_steps_by_its_name_needs_their_tokens(name):
    table = grid(**{name: grid()["tokens"]})
    assert "by its name. Add units: {n_tokens: X}" in refused(table, n_tokens=name)
    assert len(read(table, n_tokens=name, units={"n_tokens": 1}).runs) == 9


@pytest.mark.parametrize("name", ["train_bytes", "n_chars", "words"])
def test_a_column_of_parts_of_text_is_noted(name):
    table = grid(**{name: grid()["tokens"]}).drop(columns="flops")
    (note,) = read(table, n_tokens=name).notes
    assert f"n_tokens is column {name}, which counts" in note
    assert read(table, n_tokens=name, units={"n_tokens": 1}).notes == ()


def test_the_name_of_a_column_tells_its_unit():
    table = grid(tokens=1e9).rename(columns={"tokens": "tokens_B"}).drop(columns="flops")
    assert "By the name of tokens_B, add units: {n_tokens: 1e9}" in refused(table, n_tokens="tokens_B")
    plain = grid().rename(columns={"tokens": "tokens_B", "params": "params_M"})
    assert read(plain, n_tokens="tokens_B", n_params="params_M").notes == ()


def test_a_unit_that_the_name_of_its_column_contradicts_is_noted():
    table = grid(tokens=1e9).rename(columns={"tokens": "tokens_B"}).drop(columns="flops")
    assert read(table, n_tokens="tokens_B", units={"n_tokens": 1e9}).notes == ()
    (note,) = read(table, n_tokens="tokens_B", units={"n_tokens": 1e12}).notes
    assert note == "the unit of n_tokens is 1e12, but column tokens_B has 1e9 in its name"


def test_two_wrong_units_never_confirm_each_other():
    """FLOP in units of 1e21 next to tokens in billions: neither is right alone."""
    message = refused(grid(tokens=1e9, flops=1e21), FLOPS)
    assert advised(message)[0] == "n_tokens: 1e9, flops: 1e21"


def test_a_wrong_unit_of_the_column_map_is_noted_or_refused_by_the_flops():
    table = grid(tokens=1e6)
    assert "1e-3 times 6 N D" in refused(table, FLOPS, units={"n_tokens": 1e9})
    notes = read(table, units={"n_tokens": 1}).notes
    assert any("D/N is 2.0e-5 in the median" in note or "D/N is 2e-5 in the median" in note for note in notes)
    assert any("the FLOP of the table are 1e6 times 6 N D" in note for note in notes)


@pytest.mark.parametrize("factor", [1e3, 1e6, 1e9])
def test_rows_of_another_unit_are_left_out(factor):
    table = grid().drop(columns="flops")
    table.loc[[1, 6], "tokens"] /= factor
    read_again = read(table)
    assert [one.run_id for one in read_again.excluded] == ["row 2", "row 7"]
    assert all("far from the other rows: another unit?" in one.reason for one in read_again.excluded)
    with_flops = grid()
    with_flops.loc[[1, 6], "tokens"] /= factor
    assert [one.run_id for one in read(with_flops, FLOPS).excluded] == ["row 2", "row 7"]


def test_early_checkpoints_are_no_other_unit():
    D = np.geomspace(2e6, 2e11, 18)
    table = pd.DataFrame({"params": 1e9, "tokens": D, "loss": 1.5 + 2000 / D**0.37})
    found = read(table)
    assert (len(found.runs), found.excluded) == (18, ())


def test_published_tables_have_plausible_units(tables):
    for path in sorted(tables.glob("*.csv")):
        names = pd.read_csv(path, nrows=0).columns
        loss = next((name for name in names if name.startswith("loss") and name != "loss_kind"), "")
        if loss and {"params", "tokens"} <= set(names):
            table = read_table(path, parse_columns({**MAPPING, "skills": {"all": loss}}))
            assert not any("unit" in text for text in [*table.notes, *(one.reason for one in table.excluded)]), path


# FLOP


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("scale", [1, 30])
def test_integers_that_wrapped_around_are_found_row_by_row(bits, scale):
    """At 30 times the size every row is beyond the integers, so that the median is garbage itself."""
    table = grid()
    table[["params", "tokens"]] *= scale
    counted = [6 * int(N) * int(D) for N, D in zip(table["params"], table["tokens"], strict=True)]
    half = 2 ** (bits - 1)
    table["flops"] = [float((C + half) % (2 * half) - half) for C in counted]
    found = read(table, FLOPS)
    np.testing.assert_allclose(found.runs["C"], [float(C) for C in counted], rtol=1e-6)
    wrapped = sum(half <= C for C in counted)
    (note,) = [note for note in found.notes if "overflowed" in note]
    assert f"flops overflowed a {bits}-bit integer in " in note
    assert int(re.search(r"in (\d+) of 9 rows", note)[1]) >= wrapped


def test_a_study_of_one_budget_that_wrapped_around_is_found_although_its_rows_agree():
    table = grid(flops=1.0)
    table["tokens"] = np.round(1e20 / 6 / table["params"])
    table["flops"] = float(10**20 - 5 * 2**64)
    assert list(read(table, FLOPS).runs["C"]) == pytest.approx([1e20] * 9)


def test_flops_near_the_largest_integer_that_did_not_wrap_around_stay():
    table = grid(flops=grid()["params"] ** 0.05 * 0.4)
    table = table[table["flops"] < 9.2e18]
    assert list(read(table, FLOPS).runs["C"]) == list(table["flops"])


# Two of N, D and C


@pytest.mark.parametrize("absent", ["n_params", "n_tokens"])
def test_two_of_N_D_and_C_are_enough(absent):
    mapping = {key: column for key, column in FLOPS.items() if key != absent}
    found = make_run_table(grid(), parse_columns(mapping))
    np.testing.assert_allclose(found.runs[["N", "D"]], grid()[["params", "tokens"]], rtol=1e-12)
    letter, other = ("N", "D") if absent == "n_params" else ("D", "N")
    assert found.notes == (f"{letter} is flops / 6 {other}: the column map names no column of {letter}",)
    budget = {**mapping, "budget": "flops"}
    del budget["flops"]
    assert len(make_run_table(grid(), parse_columns(budget)).runs) == 9


@pytest.mark.parametrize(
    ("absent", "units", "advice"),
    [
        ("n_tokens", {"flops": 1e18}, "flops: 1e18"),
        ("n_params", {"flops": 1e18}, "flops: 1e18"),
        ("n_tokens", {"params": 1e6}, "n_params: 1e6"),
        ("n_params", {"tokens": 1e9}, "n_tokens: 1e9"),
    ],
)
def test_units_of_two_columns_are_advised_by_what_makes_the_third_plausible(absent, units, advice):
    mapping = {key: column for key, column in FLOPS.items() if key != absent}
    with pytest.raises(InputError) as caught:
        make_run_table(grid(**units), parse_columns(mapping))
    assert advice in advised(str(caught.value))


def test_flops_that_overflowed_leave_no_third_size():
    table = grid()
    table.loc[3, "flops"] = -5e18
    mapping = {key: column for key, column in FLOPS.items() if key != "n_tokens"}
    found = make_run_table(table, parse_columns(mapping))
    assert [one.run_id for one in found.excluded] == ["row 4"]
    assert any("flops is negative in 1 row, as integers are that overflowed" in note for note in found.notes)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"n_params": "params", "skills": "loss"}, "name the columns of n_tokens, as in n_tokens: tokens. It needs"),
        ({"n_tokens": "tokens", "skills": "loss"}, "name the columns of n_params, as in n_params: params"),
        ({"flops": "flops", "skills": "loss"}, "name the columns of n_params, n_tokens, as in"),
        ({"n_tokens": "tokens", "flops": "flops"}, "name the columns of skills, as in skills: "),
    ],
)
def test_a_mapping_needs_two_of_three(mapping, message):
    with pytest.raises(InputError, match=re.escape(message)):
        parse_columns(mapping)
