import math

import pytest

from skillscale import formatting


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (34_600, "34.6k"),
        (2.87e8, "287M"),
        (999_999, "1M"),
        (0, "0"),
        (12, "12"),
        (0.5, "0.5"),
        (math.nan, "–"),
        (None, "–"),
    ],
)
def test_count(value, text):
    assert formatting.count(value) == text


def test_power_and_compact_agree():
    assert formatting.power(1.6e11) == "1.6×10¹¹"
    assert formatting.power(1e-3) == "10⁻³"
    assert formatting.compact(1.6e11) == "1.6e11"
    assert formatting.compact(5e10) == "5e10"


@pytest.mark.parametrize(
    ("log_ratio", "text"), [(0.115, "+12 %"), (-0.085, "−8.1 %"), (0.0, "0 %"), (-4e-4, "−0.04 %"), (3.0, "×20")]
)
def test_percent_of_a_difference_of_logarithms(log_ratio, text):
    assert formatting.percent(log_ratio) == text


def test_durations_and_lists():
    assert formatting.duration(754) == "12 min 34 s"
    assert formatting.duration(7300) == "2 h 1 min"
    assert formatting.join(["a", "b", "c"]) == "a, b and c"
    assert formatting.plural(1, "run") == "1 run"
