import math

import pytest

from skillscale import formatting


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (34_600, "34.6k"), (2.87e8, "287M"), (4.9e9, "4.9B"), (999_999, "1M"), (0, "0"), (12, "12"), (0.5, "0.5"),
        (math.nan, "–"), (None, "–"),
    ],
)  # fmt: skip
def test_counts(value, text):
    assert formatting.format_count(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e22, "1e22"), (3.2e21, "3.2e21"), (1.234e9, "1.23e9"), (9.999e20, "1e21"), (0, "0"), (math.inf, "–")],
)
def test_flops_have_no_plus_in_the_exponent(value, text):
    assert formatting.format_flops(value) == text


def test_powers_of_ten_for_figures():
    assert formatting.power(1.6e11) == "1.6×10¹¹"
    assert formatting.power(1e-3) == "10⁻³"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.43, "0.43"), (0.1234, "0.123"), (2.0, "2"), (1234, "1230"), (999.9, "1000"), (1.2e7, "1.2e7"),
        (2e-5, "2e-5"), (-0.5, "-0.5"), (0, "0"), (None, "–"),
    ],
)  # fmt: skip
def test_numbers_have_significant_digits_and_a_leading_zero(value, text):
    assert formatting.format_number(value) == text


def test_signed_numbers():
    assert formatting.format_number(0.5, signed=True) == "+0.5"
    assert formatting.format_number(-0.5, signed=True) == "-0.5"
    assert formatting.format_number(0, signed=True) == "0"


@pytest.mark.parametrize(
    ("share", "text"), [(0.0043, "0.43 %"), (0.95, "95 %"), (0.0, "0 %"), (1.0, "100 %"), (math.nan, "–")]
)
def test_percentages_have_a_space(share, text):
    assert formatting.format_percent(share) == text


@pytest.mark.parametrize(
    ("log_ratio", "text"), [(0.115, "+12 %"), (-0.085, "−8.1 %"), (0.0, "0 %"), (-4e-4, "−0.04 %"), (3.0, "×20")]
)
def test_percentages_of_log_ratios(log_ratio, text):
    assert formatting.format_log_ratio(log_ratio) == text


def test_intervals():
    assert formatting.format_interval(4.9e9, 4.1e9, 5.8e9, formatting.format_count) == "4.9B [4.1B, 5.8B]"
    assert formatting.format_interval(0.5, math.nan, 1.0) == "0.5"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (12, "12 s"), (754, "12 min 34 s"), (7300, "2 h 1 min"), (30 * 3600, "30 h 0 min"), (9 * 86400, "9 days"),
        (1e9, "31.7 years"), (None, "–"),
    ],
)  # fmt: skip
def test_durations(seconds, text):
    assert formatting.format_duration(seconds) == text


def test_lists_of_words():
    assert formatting.join_words(["a", "b", "c"]) == "a, b and c"
    assert formatting.join_words([]) == "none"
    assert formatting.join_first(["a", "b", "c"], most=2) == "a, b and 1 more"
    assert formatting.plural(1, "run") == "1 run"
    assert formatting.plural(1200, "mix") == "1,200 mixes"


def test_long_texts_are_cut():
    assert formatting.shorten("abcdef", 6) == "abcdef"
    assert formatting.shorten("abcdefg", 6) == "abc..."


@pytest.mark.parametrize(
    ("name", "names", "text"),
    [
        ("prosee", ["prose", "code"], " (did you mean prose?)"),
        ("params.n_parms", ["params.lr", "params.n_params"], " (did you mean params.n_params?)"),
        ("LOSS", ["loss", "code"], " (did you mean loss?)"),
        ("zebra", ["prose", "code"], ""),
    ],
)
def test_nearest_names(name, names, text):
    assert formatting.did_you_mean(name, names) == text
