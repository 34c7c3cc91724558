"""YAML of others: bombs, depth and odd tags end in one short line."""

import time

import pytest

from skillscale.config import read_yaml
from skillscale.config.safe_yaml import load_yaml
from skillscale.errors import InputError
from skillscale.tables import read_columns

ALIASES = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    + [f"a{at}: &a{at} [{', '.join([f'*a{at - 1}'] * 10)}]" for at in range(1, 9)]
)
MERGES = "\n".join(
    ["a0: &a0 {x: 1}"] + [f"a{at}: &a{at} {{<<: [{', '.join([f'*a{at - 1}'] * 9)}]}}" for at in range(1, 9)]
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (ALIASES, "more than 100,000 values"),
        (MERGES, "more than 100,000 values"),
        ("a: &a [*a]", "more than 100,000 values"),
        ("a: &a {b: *a}", "more than 100,000 values"),
        ("[" * 100_000, "50 deep"),
        ("{" * 10_000, "50 deep"),
        ("- " * 10_000, "50 deep"),
        ("\n".join(" " * at + f"a{at}:" for at in range(1_000)), "50 deep"),
        ("x: " + "9" * 5_000, "a whole number has 5,000 digits"),
        ("x: 0x" + "f" * 5_000, "a whole number has 5,002 digits"),
        ("x: " + "1:" * 3_000 + "1", "a whole number has 6,001 digits"),
        ("x: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("x: !!int ''", "index"),
        ("x: !!bool zz", "zz"),
        ("x: !!timestamp z", "NoneType"),
        ("x: 2023-99-99", "month"),
        ("? {a: b}\n: c", "unhashable key in line 1"),
        ("a: b: c", "line 1"),
        ("\x00", "special characters"),
        ("x: \x1b[31m", "special characters"),
        ("---\na\n---\nb", "another document"),
    ],
)
def test_a_bad_text_is_refused_in_one_short_line(text, problem):
    start = time.perf_counter()
    with pytest.raises(InputError, match=problem) as caught:
        load_yaml(text)
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)
    assert time.perf_counter() - start < 5


def test_aliases_that_stay_small_are_followed():
    assert load_yaml("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}") == {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}}


def test_a_file_beyond_the_limit_is_refused(tmp_path):
    (tmp_path / "big.yaml").write_text("x: " + "a" * (11 * 2**20))
    with pytest.raises(InputError, match=r"big\.yaml can't be read as YAML: it is larger than 10 MB"):
        read_yaml(tmp_path / "big.yaml")


def test_a_column_map_that_grows_is_refused(tmp_path):
    (tmp_path / "map.yaml").write_text(f"{ALIASES}\nn_params: n\nn_tokens: *a8\nskills: {{prose: loss}}\n")
    with pytest.raises(InputError, match=r"map\.yaml can't be read as YAML: it has more than 100,000 values"):
        read_columns(tmp_path / "map.yaml")


def test_a_value_in_a_message_is_short(tmp_path):
    (tmp_path / "map.yaml").write_text("n_params: n\nn_tokens: [" + "x, " * 20_000 + "]\nskills: {prose: loss}\n")
    with pytest.raises(InputError) as caught:
        read_columns(tmp_path / "map.yaml")
    assert len(str(caught.value)) < 400
