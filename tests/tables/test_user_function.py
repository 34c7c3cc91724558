"""A user's function as a source of losses: what it may return, and what is said of what it may not."""

import math
import sys

import pytest

from skillscale.tables.user_function import BadLossesError, check_losses, describe_error, load_function, load_module


def test_losses_come_with_or_without_a_standard_error():
    losses = check_losses({"code": 2, "prose": (3.0, 0.1), "wiki": [1.5, None]})
    assert losses["prose"] == (3.0, 0.1)
    assert (losses["code"][0], losses["wiki"][0]) == (2.0, 1.5)
    assert math.isnan(losses["code"][1])
    assert math.isnan(losses["wiki"][1])


def test_losses_are_in_the_order_of_the_skills():
    assert list(check_losses({"code": 2.0, "prose": 3.0}, ("prose", "code"))) == ["prose", "code"]


@pytest.mark.parametrize(
    ("returned", "skills", "message"),
    [
        (2.0, (), "returned 2.0. Return {skill: loss}"),
        ({}, (), "returned {}. Return {skill: loss}"),
        ({"code": 2.0}, ("code", "prose"), "returned no loss of prose. Return a loss of each of code, prose"),
        ({"code": 2.0, "x": 1.0}, ("code",), "returned a loss of x, which is not among the skills"),
        ({"code": "low"}, (), "returned 'low' for code. Return a loss above 0"),
        ({"code": (1.0, 2.0, 3.0)}, (), "for code. Return a loss above 0"),
        ({"code": True}, (), "returned True for code. Return a loss above 0"),
        ({"code": math.inf}, (), "returned a loss of inf for code"),
        ({"code": (2.0, -0.1)}, (), "returned a sem of -0.1 for code. Return a number from 0"),
    ],
)
def test_values_that_break_the_contract_are_refused(returned, skills, message):
    with pytest.raises(BadLossesError) as refused:
        check_losses(returned, skills)
    assert message in str(refused.value)
    assert describe_error(refused.value) == str(refused.value)


def test_an_error_of_the_function_is_described_with_its_line(tmp_path):
    (tmp_path / "mine.py").write_text("def train():\n    raise OSError('disk')")
    with pytest.raises(OSError, match="disk") as raised:
        load_module(tmp_path / "mine.py").train()
    assert describe_error(raised.value) == "raised OSError: disk (mine.py, line 2)"


def test_a_file_may_import_its_neighbours(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "neighbour_of_mine.py").write_text("value = 7")
    (tmp_path / "mine_too.py").write_text("import neighbour_of_mine\ndef train():\n    return neighbour_of_mine.value")
    assert load_module(tmp_path / "mine_too.py").train() == 7
    assert str(tmp_path.resolve()) not in sys.path
    assert load_function(tmp_path / "mine_too.py", "train")() == 7
    assert str(tmp_path.resolve()) in sys.path
