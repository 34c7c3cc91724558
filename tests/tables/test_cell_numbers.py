"""Cells are read as the numbers that they are, or left out with their text, and never a traceback."""

import math

import numpy as np
import pandas as pd
import pytest

from skillscale.errors import InputError
from skillscale.tables import make_run_table, parse_columns
from skillscale.tables.cell_numbers import cell_numbers

MAPPING = {"n_params": "params", "n_tokens": "tokens", "skills": {"all": "loss"}}


def read(loss, **columns):
    sizes, tokens = np.meshgrid([1e8, 3e8, 1e9], [2e9, 6e9, 2e10], indexing="ij")
    table = pd.DataFrame({"params": sizes.ravel(), "tokens": tokens.ravel(), "loss": loss, **columns})
    return make_run_table(table, parse_columns(MAPPING))


def with_cell(cell):
    return [2.9, 2.8, 2.7, cell, 2.6, 2.5, 2.4, 2.3, 2.2]


@pytest.mark.parametrize(
    "cell",
    [
        True, np.True_, "TRUE", "0x1F", "0b11", 1 + 2j, "1+2j", "3j", "5 %", "~3", ">12", "3.5 ± 0.1", "-", "diverged",
        "OOM", "n/a", "-1.#IND",
    ],
)  # fmt: skip
def test_a_cell_that_is_no_number_costs_that_loss_alone(cell):
    table = read(with_cell(cell))
    (one,) = table.excluded
    assert (one.run_id, one.skill) == ("row 4", "all")
    assert one.reason in (f"loss is {str(cell)!r}, not a number", "no loss")
    assert math.isnan(table.runs["all"][3])
    assert table.runs["all"].notna().sum() == 8


@pytest.mark.parametrize("cell", [10**400, math.inf, -math.inf, "1e400", -1.7976931348623157e308, 0, -3, "-3,0"])
def test_a_number_out_of_range_costs_that_loss_alone(cell):
    (one,) = read(with_cell(cell)).excluded
    assert one.run_id == "row 4"
    assert one.reason.endswith("not a positive number")


def test_a_size_that_is_no_number_costs_its_row():
    table = read(2.5, params=[*range(10**8, 10**8 + 8), "0x1F"])
    assert [(one.run_id, one.skill, one.reason) for one in table.excluded] == [
        ("row 9", "", "params is '0x1F', not a number")
    ]


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (["25,421,258", "400,000", "1,234.5"], [25421258, 400000, 1234.5]),
        (["25.421.258", "1.234,5"], [25421258, 1234.5]),
        (["25 421 258", "25\u00a0421\u202f258", "25'421'258", "25_421_258"], [25421258] * 4),
        (["3,5193625", "3,519", "2"], [3.5193625, 3.519, 2]),
        (["1,5e18", "2E+18"], [1.5e18, 2e18]),
        (["10000000000000000000000", "3"], [1e22, 3]),
        ([" 3.5 ", "+2", ".5"], [3.5, 2, 0.5]),
    ],
)
def test_separators_are_read_by_how_the_column_is_written(cells, numbers):
    assert cell_numbers(pd.Series(cells)).numbers.tolist() == numbers


def test_a_comma_that_may_be_either_is_a_decimal_only_in_a_loss():
    cells = pd.Series(["3,519", "2,100"])
    assert cell_numbers(cells, small=True).numbers.tolist() == [3.519, 2.1]
    with pytest.raises(InputError, match="'3,519' may have a decimal comma or a separator of thousands"):
        cell_numbers(cells)
    with pytest.raises(InputError, match="'3,519' may have"):
        cell_numbers(pd.Series(["3,519", "1,234,567", "2,5"]))
    with pytest.raises(InputError, match="column params of the table: '100,000' may have"):
        read(2.5, params="100,000")


@pytest.mark.parametrize("cells", [["big"], ["9" * 100 + "x"], [pd.Timestamp("2026-01-01")], ["1,2,3"], [[1]]])
def test_other_text_is_left_to_the_caller(cells):
    assert list(cell_numbers(pd.Series(cells, dtype=object)).texts) == [0]
