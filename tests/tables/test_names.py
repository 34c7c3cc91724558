"""Names of others: formulas go out with a quote and come back without, hidden characters cost the row."""

import io

import numpy as np
import pandas as pd
import pytest
import yaml

from skillscale.cli import COMMANDS, main
from skillscale.errors import InputError
from skillscale.formatting import escape_formula, unescape_formula
from skillscale.tables import make_run_table, parse_columns, read_table
from skillscale.tables.write import csv_text, write_table

FORMULAS = ("=cmd|' /C calc'!A0", "+1+2", "-3", "@SUM(A1)", "'=x", "''-x", "=", "-", "+5", "-1e5")
PLAIN = ("code", "'quoted'", "'", "a=b", "5", "x-y", "", "'a", "é", "<script>")
HIDDEN = ("a\nb", "a\x1b[31mb", "\u202eabc", "a\u2028b", "a\x00b", "a\x7fb", "\u2066a")


def frame(names, column="mix"):
    n = np.geomspace(1e7, 1e9, len(names)).round()
    table = pd.DataFrame({"n": n, "d": n * 20, "loss": 1.7 + 400 / n**0.34})
    table[column] = names
    return table


def columns(**more):
    return parse_columns({"n_params": "n", "n_tokens": "d", "skills": {"prose": "loss"}, **more})


@pytest.mark.parametrize("text", [*FORMULAS, *PLAIN, "\tx", "\rx", "'\tx"])
def test_an_escape_can_be_undone(text):
    escaped = escape_formula(text)
    assert unescape_formula(escaped) == text
    assert not escaped.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert (escaped == text) == (text in PLAIN)


@pytest.mark.parametrize("column", ["mix", "run"])
def test_an_export_has_no_formula_and_reads_back_equal(tmp_path, column):
    names = [name for name in (*FORMULAS, *PLAIN) if name]
    table = make_run_table(frame(names, column), columns(**{column: column}))
    write_table(table, tmp_path / "out.csv", tmp_path / "out.yaml")
    written = pd.read_csv(tmp_path / "out.csv", dtype=str, keep_default_na=False)
    texts = written[column].tolist()
    assert not [text for text in texts if text.startswith(("=", "+", "-", "@"))]
    assert all(
        pd.to_numeric(written[name], errors="coerce").notna().all() for name in ("params", "tokens", "loss_prose")
    )
    read = read_table(tmp_path / "out.csv", parse_columns(yaml.safe_load((tmp_path / "out.yaml").read_text())))
    kept = "mix" if column == "mix" else "cluster"
    assert read.runs[kept].tolist() == table.runs[kept].tolist() == names
    np.testing.assert_array_equal(read.runs[["N", "D", "prose"]], table.runs[["N", "D", "prose"]])


def test_numbers_below_zero_stay_numbers():
    assert csv_text(pd.DataFrame({"x": [-1.5, 2.0], "skill": ["-a", "b"]})) == "x,skill\n-1.5,'-a\n2.0,b\n"


def test_a_table_of_mixes_that_are_formulas_is_exported(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    frame(["=cmd|' /C calc'!A0", "<script>alert(2)</script>"] * 12).to_csv("runs.csv", index=False)
    (tmp_path / "map.yaml").write_text("{n_params: n, n_tokens: d, mix: mix, skills: {prose: loss}}")
    words = ["export", "--table", "runs.csv", "--columns", "map.yaml", "--file", "out.csv"]
    assert main(words, COMMANDS, io.StringIO()) == 0, capsys.readouterr().err
    assert ",=" not in (tmp_path / "out.csv").read_text()
    assert "'=cmd|' /C calc'!A0" in (tmp_path / "out.csv").read_text()


@pytest.mark.parametrize("name", [*HIDDEN, "x" * 251])
@pytest.mark.parametrize("column", ["mix", "run"])
def test_a_row_whose_name_cannot_be_shown_is_excluded(name, column):
    table = make_run_table(frame(["good", name, "fine"], column), columns(**{column: column}))
    assert len(table.runs) == 2
    (row,) = table.excluded
    assert row.reason.startswith(f"the name of its {column} is ")
    assert name not in row.reason
    assert len(row.reason) < 300


def test_a_table_of_such_names_alone_is_refused():
    with pytest.raises(InputError, match="no row of the table has a usable name"):
        make_run_table(frame(HIDDEN), columns(mix="mix"))


@pytest.mark.parametrize("name", [*HIDDEN, "x" * 251])
@pytest.mark.parametrize(
    "mapping",
    [
        lambda name: {"skills": {name: "loss"}}, lambda name: {"skills": [name]},
        lambda name: {"mix": {name: "mix"}}, lambda name: {"n_params": {name: "n"}},
        lambda name: {"validation": {name: {"prose": 1}}},
    ],
)  # fmt: skip
def test_a_column_map_with_such_a_name_is_refused(name, mapping):
    with pytest.raises(InputError, match=r"the name of an? \w+ is .*Choose another name") as caught:
        columns(**mapping(name))
    assert name not in str(caught.value)


def test_settings_with_such_a_name_are_refused(capsys):
    assert main(["grid", "--dry_run", "--study.mixes", '[{"a\\nb": 1.0}]']) == 2
    assert "control character" in capsys.readouterr().err


def test_half_a_character_in_json_is_shown_as_a_question_mark(tmp_path):
    (tmp_path / "runs.json").write_text(
        '[{"n": 1e8, "d": 2e9, "loss": 3.1, "mix": "a\\ud800", "x\\udfff": 1, "ok": "\\ud83d\\ude00"}]'
    )
    assert read_table(tmp_path / "runs.json", columns(mix="mix")).runs["mix"].tolist() == ["a?"]


def test_a_history_without_sizes_in_its_rows_of_losses_is_read(tmp_path):
    (tmp_path / "h.csv").write_text("_step,n,d,loss\n1,,,3.1\n2,,,3.0\n")
    with pytest.raises(InputError, match="N is missing"):
        read_table(tmp_path / "h.csv", columns())
