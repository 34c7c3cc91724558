"""Tables of others become runs: what can be used is used, and what can't is named, counted or refused with its cure."""

import math
import re
import time

import numpy as np
import pandas as pd
import pytest
import yaml

from skillscale.errors import InputError
from skillscale.point import Mix
from skillscale.tables import make_run_table, parse_columns, read_columns, read_table
from skillscale.tables.column_map import KEYS, did_you_mean

SLIMPAJAMA = ("arxiv", "book", "c4", "github", "commoncrawl", "stackexchange", "wikipedia")
PLAIN = {"n_params": "params", "n_tokens": "tokens", "skills": {"code": "loss_code", "prose": "loss_prose"}}
MIXED = {**PLAIN, "mix": {"code": "mix_code", "prose": "mix_prose"}}


def grid(**columns):
    """Nine plain runs, three sizes by three numbers of tokens, as a table; columns may be replaced."""
    sizes, tokens = np.meshgrid([1e8, 3e8, 1e9], [2e9, 6e9, 2e10], indexing="ij")
    table = {"params": sizes.ravel(), "tokens": tokens.ravel()}
    loss = 1.5 + 400 / table["params"] ** 0.34 + 2000 / table["tokens"] ** 0.37
    table |= {"loss_code": loss, "loss_prose": loss + 0.5, "mix_code": 0.3, "mix_prose": 0.7}
    return pd.DataFrame({**table, **columns})


def with_cells(column, cells):
    """The plain runs with some cells of a column replaced, by row from 1."""
    values = grid()[column].astype(object).tolist()
    for row, value in cells.items():
        values[row - 1] = value
    return grid(**{column: values})


def read(table, mapping=PLAIN, **options):
    return make_run_table(table, parse_columns(mapping), **options)


def refused(table, mapping=PLAIN):
    with pytest.raises(InputError) as caught:
        read(table, mapping)
    return str(caught.value)


def left_out(table):
    return [(one.run_id, one.skill, one.reason) for one in table.excluded]


# Files


def test_a_csv_file_and_a_parquet_file_read_alike(tmp_path):
    (tmp_path / "map.yaml").write_text(
        "n_params: params\nn_tokens: tokens\nrun: [params]\ncheckpoints: all\nmix: {code: mix_code, prose: mix_prose}\n"
        "skills: {code: loss_code, prose: {loss: loss_prose}}\nvalidation: {both: {code: 3, prose: 1}}\n"
    )
    grid().to_csv(tmp_path / "runs.csv", index=False)
    grid().to_parquet(tmp_path / "runs.parquet")
    grid().to_csv(tmp_path / "runs.tsv.gz", index=False, sep="\t")
    columns = read_columns(tmp_path / "map.yaml")
    first, *others = [read_table(tmp_path / name, columns) for name in ("runs.csv", "runs.parquet", "runs.tsv.gz")]
    for other in others:
        pd.testing.assert_frame_equal(first.runs, other.runs, check_exact=True)
    assert list(first.runs.columns) == [
        "run_id", "cluster", "C", "N", "D", "mix", "seed", "code", "prose", "both", "mix/code", "mix/prose",
    ]  # fmt: skip
    assert (first.skills, first.categories, first.aggregates) == (("code", "prose"), ("code", "prose"), ("both",))
    row = first.runs.iloc[4]
    assert (row["run_id"], row["cluster"], row["N"], row["D"]) == ("row 5 (300000000)", "300000000", 3e8, 6e9)
    assert row["mix"] == str(Mix({"code": 0.3, "prose": 0.7}))
    assert row["both"] == pytest.approx(0.75 * row["code"] + 0.25 * row["prose"], rel=1e-15)
    assert (math.isnan(row["C"]), row["seed"]) == (True, 0)
    assert (first.excluded, first.notes) == ((), ())


def test_numbers_of_a_csv_file_are_read_to_the_last_digit(tmp_path):
    losses = [0.1 + 0.2, 1 / 3, 2.675, 5.005581996196243, math.pi, 3.3053e-5, 1.1, 8.41, 10 / 3]
    grid(loss_code=losses).to_csv(tmp_path / "runs.csv", index=False)
    assert list(read_table(tmp_path / "runs.csv", parse_columns(PLAIN)).runs["code"]) == losses


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("runs.xlsx", "", "runs.xlsx must be a .csv, .tsv, .parquet or .jsonl file"),
        ("absent.csv", None, "there is no file"),
        ("runs.csv", "", "can't be read as a table: No columns to parse"),
        ("runs.csv", "params,tokens,loss_code,loss_prose\n", "runs.csv has no rows"),
        ("runs.parquet", "params\n1\n", "can't be read as a table"),
        (
            "runs.csv",
            "params,params,tokens,loss_code,loss_prose\n1,2,3,4,5\n",
            "2 columns 'params'. Name each column once",
        ),
        ("runs.csv", 'params,tokens,loss_code,loss_prose\n"1,2\n', "can't be read as a table"),
    ],
)
def test_a_file_that_is_no_table_says_so(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / name, parse_columns(PLAIN))


# The mapping


def test_the_mapping_of_the_guide_can_be_read(root):
    page = (root / "docs" / "guide" / "reference" / "columns.md").read_text()
    (example,) = re.findall(r"```yaml\n(n_params.*?)```", page, re.DOTALL)
    columns = parse_columns(yaml.safe_load(example))
    assert set(yaml.safe_load(example)) == set(KEYS), "the guide tells every key"
    assert columns.size_column("non_embedding") == "params_no_embed"
    assert columns.units == {"n_params": 1e6, "mix": 0.01}


def test_wrong_names_are_told_at_once_with_the_nearest(tmp_path):
    grid().to_csv(tmp_path / "runs.csv", index=False)
    wrong = {**PLAIN, "n_params": "parms", "skills": {"code": "loss_cod", "x": "something_else"}}
    with pytest.raises(InputError) as caught:
        read_table(tmp_path / "runs.csv", parse_columns(wrong))
    assert str(caught.value) == (
        "runs.csv has no column 'parms' for n_params (did you mean params?), 'loss_cod' for skills.code (did you mean "
        "loss_code or loss_prose?), 'something_else' for skills.x. It has params, tokens, loss_code, loss_prose, "
        "mix_code, mix_prose."
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_parms": "params"}, r"unknown keys: 'n_parms' \(did you mean n_params"),
        ({"n_tokens": None}, "must name the columns of n_tokens"),
        ({"n_params": True}, "n_params must name a column, but it is True"),
        (
            {"skills": {"code": {"los": "x"}}},
            r"skill code takes the columns loss and sem, but has 'los' \(did you mean los",
        ),
        ({"skills": {"N": "loss_code"}}, "'N' can't name a skill"),
        ({"skills": {"aggregate": "loss_code"}}, "'aggregate' can't name a skill"),
        ({"validation": {"all": {"cod": 1}}}, r"validation all names no skill: 'cod' \(did you mean code"),
        ({"validation": {"all": {"code": -1}}}, "validation all must have weights from 0"),
        ({"validation": {"code": {"code": 1}}}, "validation 'code' is also the name of a skill"),
        ({"validation": {"all": 3}}, "validation all must weigh skills"),
        ({"units": {"parms": 1e6}}, r"units has 'parms' \(did you mean n_params"),
        ({"units": {"n_params": "M"}}, "units of n_params must be a number, as in 1e6, but it is 'M'"),
        ({"units": {"n_params": 0}}, "the unit of n_params must be a number above 0"),
        ({"where": "final"}, "where must map names to values"),
        ({"where": {"final": {}}}, "where.final must be a value or a list of values"),
        ({"splits": {"code": "prose"}}, "splits.code must name its held-out column"),
        ({"splits": {"code": {"held_out": "pros"}}}, r"splits.code names no skill: 'pros' \(did you mean prose"),
        (
            {"splits": {"code": {"held_out": "prose"}, "prose": {"held_out": "code"}}},
            "has a split, and is also part of another",
        ),
        ({"sets": ["text"]}, "sets names no skill: 'text'"),
        ({"categories": {"text": "code"}}, "categories names no skill: 'text'"),
    ],
)
def test_a_mapping_that_can_not_be_used_says_so(change, message):
    with pytest.raises(InputError, match=message):
        parse_columns({**PLAIN, **change})


def test_several_conventions_of_N():
    mapping = {**PLAIN, "n_params": {"total": "params", "non_embedding": "less"}}
    table = grid(less=grid()["params"] * 0.9)
    assert read(table, mapping).convention == "total"
    assert list(read(table, mapping, convention="non_embedding").runs["N"]) == list(table["less"])
    with pytest.raises(
        InputError, match=r"no convention 'nonembedding' \(did you mean non_embedding\?\)\. It has total"
    ):
        read(table, mapping, convention="nonembedding")
    with pytest.raises(InputError, match="only the one column"):
        read(table, convention="total")


def test_a_list_of_skills_names_its_columns():
    assert read(grid(), {**PLAIN, "skills": ["loss_code", "loss_prose"]}).skills == ("loss_code", "loss_prose")


def test_where_keeps_rows_by_number_or_text():
    table = grid(final=[0, 0, 1] * 3, corpus=["a", "b", "c"] * 3, kept=[True, False, True] * 3)
    final = read(table, {**PLAIN, "where": {"final": 1}})
    assert list(final.runs["run_id"]) == ["row 3", "row 6", "row 9"]
    assert "where keeps 3 of 9 rows" in final.notes
    assert len(read(table, {**PLAIN, "where": {"corpus": ["a", "c"]}}).runs) == 6
    assert len(read(table, {**PLAIN, "where": {"kept": True}}).runs) == 6
    assert len(read(table, {**PLAIN, "where": {"tokens": "6e9"}}).runs) == 3
    assert "at final = 2. That column has 0, 1" in refused(table, {**PLAIN, "where": {"final": 2}})


# Rows and cells that can't be used


@pytest.mark.parametrize(
    ("column", "cell", "reason"),
    [
        ("params", math.nan, "N is missing"),
        ("params", -1e8, "N is -1e+08, not a positive number"),
        ("params", math.inf, "N is inf, too large"),
        ("tokens", 0, "D is 0, not a positive number"),
        ("tokens", math.nan, "D is missing"),
        ("mix_code", math.nan, "the share of code in its mix is missing"),
        ("mix_code", -0.1, "the share of code in its mix is -0.1"),
        ("mix_code", 0.5, "the shares of its mix sum to 1.2, not 1"),
    ],
)
def test_a_row_without_N_D_or_mix_is_named(column, cell, reason):
    table = read(with_cells(column, {4: cell}), MIXED)
    assert left_out(table) == [("row 4", "", reason)]
    assert list(table.runs["run_id"]) == [f"row {at}" for at in (1, 2, 3, 5, 6, 7, 8, 9)]


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (math.nan, "no loss"),
        (math.inf, "loss is inf, not a positive number"),
        (-0.3, "loss is -0.3, not a positive number"),
        (0, "loss is 0, not a positive number"),
    ],
)
def test_a_bad_loss_costs_that_skill_alone(cell, reason):
    table = read(with_cells("loss_code", {2: cell, 7: cell}))
    assert left_out(table) == [("row 2", "code", reason), ("row 7", "code", reason)]
    assert len(table.runs) == 9
    assert list(table.runs["code"].isna()) == [at in (2, 7) for at in range(1, 10)]
    assert table.runs["prose"].notna().all()


def test_a_row_that_is_out_is_named_once():
    table = with_cells("loss_code", {2: math.nan})
    table.loc[1, "params"] = math.nan
    assert left_out(read(table)) == [("row 2", "", "N is missing")]


def test_a_skill_without_any_loss_is_left_out_and_only_all_of_them_are_refused():
    mapping = {**PLAIN, "validation": {"both": {"code": 1, "prose": 1}, "prose only": {"prose": 1}}}
    table = read(grid(loss_code=math.nan), mapping)
    assert (table.skills, table.aggregates) == (("prose",), ("prose only",))
    assert left_out(table) == [("every row", "code", "no usable row has a loss (column loss_code)")]
    assert table.missing_skills == {"code": "no usable row has a loss (column loss_code)"}
    assert "code is excluded: no usable row has a loss (column loss_code)" in table.notes
    assert any(note.startswith("both weights a skill without losses") for note in table.notes)
    message = refused(grid(loss_code=math.nan, loss_prose=-1.0))
    assert "positive number as its loss in any usable row (loss_code, loss_prose: '-1' in row 1)" in message


def test_losses_that_are_no_positive_numbers_are_counted_and_the_first_is_told():
    table = read(grid(loss_code=-3.1))
    count = len(grid())
    why = f"loss is -3.1, not a positive number in row 1, and none of {count} is"
    assert table.missing_skills == {"code": f"no usable row has a loss (column loss_code): {why}"}


def test_units_that_are_both_off_are_told_at_once():
    message = refused(grid(params=[0.1, 0.3, 1.0] * 3, tokens=[2.0, 6.0, 20.0] * 3))
    assert "median N of the table is 0.3, too small for a model, and median D of the table is 6, too small" in message
    assert "Add units: {n_params: 1e9, n_tokens: 1e9}" in message


def test_no_usable_row_says_why():
    assert "no row of the table has both N and D. The first: row 1: N is missing" in refused(grid(params=math.nan))
    assert "no row of the table has a usable mix" in refused(grid(mix_code=math.nan), MIXED)


def test_text_in_a_column_of_numbers_names_the_row():
    message = refused(with_cells("params", {3: "70 million", 5: "big"}))
    assert "row 3 (and 1 row more) of the table has '70 million' in column params" in message
    assert "name another column" in message


def test_large_numbers_may_be_written_with_a_letter_where_no_unit_is_beside():
    cells = {1: "99900K", 3: "70M", 5: "1.3B", 7: "7b", 9: "1.T"}
    found = read(with_cells("params", cells))
    assert list(found.runs["N"])[::2] == [99_900_000, 70_000_000, 1_300_000_000, 7_000_000_000, 1_000_000_000_000]
    assert [note for note in found.notes if "K, M, B or T" in note] == [
        "column params has numbers with K, M, B or T: they are read as 1e3, 1e6, 1e9 and 1e12"
    ]
    twice = refused(with_cells("params", {3: "70M"}), {**PLAIN, "units": {"n_params": 1e6}})
    assert "has '70M' in column params" in twice
    assert "has '2.5K' in column loss_code" in refused(with_cells("loss_code", {2: "2.5K"}))


@pytest.mark.parametrize(
    ("name", "known", "guess"),
    [
        ("params.n_params", ("params.data", "params.lr", "metrics.loss"), ""),
        ("params.n_parms", ("params.data", "params.n_params"), " (did you mean params.n_params?)"),
        ("params.n_params", ("params.lr", "tags.n_params"), " (did you mean tags.n_params?)"),
        ("params.M", ("params.N", "metrics.loss"), " (did you mean params.N?)"),
        ("n", ("N", "D"), " (did you mean N?)"),
    ],
)
def test_a_guess_is_made_where_more_than_the_kind_is_alike(name, known, guess):
    assert did_you_mean(name, known) == guess


def test_a_row_listed_twice_counts_once():
    table = pd.concat([grid(), grid().iloc[[0, 4]]], ignore_index=True)
    found = read(table, {**MIXED, "run": "params", "checkpoints": "all"})
    assert left_out(found) == [
        ("row 10 (100000000)", "", "listed twice"),
        ("row 11 (300000000)", "", "listed twice"),
    ]
    assert len(found.runs) == 9
    assert found.notes == ()
    assert len(read(table).runs) == 9


def test_one_run_with_two_losses_at_one_D_is_noted_as_replicates():
    again = grid().iloc[[4]].assign(loss_code=3.0)
    table = pd.concat([grid(), again], ignore_index=True)
    assert read(table).notes == ()  # without runs these are two runs
    found = read(table, {**PLAIN, "run": "params", "checkpoints": "all"})
    assert (len(found.runs), found.excluded) == (10, ())
    assert found.notes == (
        "1 row with run, N and D of an earlier row, but other losses: taken as replicates within one run",
    )


def test_a_run_of_several_sizes_is_noted_and_rows_without_a_run_stand_alone():
    assert "3 runs with rows of several sizes" in read(grid(), {**PLAIN, "run": "tokens"}).notes[0]
    table = read(with_cells("mix_code", {2: math.nan}), {**PLAIN, "run": ["params", "mix_code"], "checkpoints": "all"})
    assert "1 row without a run; each counts as a separate run" in table.notes
    assert table.runs["cluster"][1] == "row 2"


# Mixes


def test_shares_that_are_rounded_are_divided_by_their_sum():
    third = {"code": "mix_code", "prose": "mix_prose", "web": "mix_web"}
    table = read(grid(mix_code=0.33, mix_prose=0.33, mix_web=0.33), {**PLAIN, "mix": third})
    assert "the mix of 9 rows sums to 0.99 to 0.99, probably by rounding; it is divided by its sum" in table.notes
    assert table.runs[["mix/code", "mix/prose", "mix/web"]].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-15)
    assert table.runs["mix"][0] == str(Mix({"code": 1 / 3, "prose": 1 / 3, "web": 1 / 3}))


def test_shares_in_percent_and_shares_of_only_some_categories_are_refused():
    message = refused(grid(mix_code=30.0, mix_prose=70.0), MIXED)
    assert "sum to 100, so they are in per cent; add units: {mix: 0.01}" in message
    cured = read(grid(mix_code=30.0, mix_prose=70.0), {**MIXED, "units": {"mix": 0.01}})
    assert cured.runs["mix"][0] == read(grid(), MIXED).runs["mix"][0]
    assert "sum to 0.3 to 0.3, and none to 1, over code; name every" in refused(
        grid(), {**PLAIN, "mix": {"code": "mix_code"}}
    )


def test_a_mix_may_be_the_name_of_a_data_set():
    table = read(grid(corpus=["a", "b", None] * 3), {**PLAIN, "mix": "corpus"})
    assert list(table.runs["mix"]) == ["a", "b"] * 3
    assert table.categories == ()
    assert left_out(table) == [(f"row {at}", "", "its mix has no name") for at in (3, 6, 9)]


# Units and FLOP


@pytest.mark.parametrize(
    ("columns", "flops", "message"),
    [
        ({"params": 1e-6}, None, "median N of the table is 300, too small for a model.*units: .n_params: 1e6."),
        ({"params": 1e-9}, None, "median N of the table is 0.3, too small for a model.*units: .n_params: 1e9."),
        ({"tokens": 1e-9}, None, "median D of the table is 6, too small for a model.*units: .n_tokens: 1e9."),
        ({"params": 1e-6}, 1, "1.3e6 times 6 N D.*Add units: .n_params: 1e6. to"),
        ({"tokens": 1e-9}, 1, "1.3e9 times 6 N D.*Add units: .n_tokens: 1e9. to"),
        ({"params": 1e-6, "tokens": 1e-9}, 1, "1.3e15 times 6 N D.*Add units: .n_params: 1e6, n_tokens: 1e9. to"),
        ({}, 1e-18, "1.3e-18 times 6 N D.*Add units: .flops: 1e18. to"),
        ({"params": 1e9}, None, "median N .column params of the table. is 3e17, larger than any model"),
    ],
)
def test_units_that_are_mixed_up_are_noticed(columns, flops, message):
    table = grid()
    counted = 6 * table["params"] * table["tokens"]
    for name, factor in columns.items():
        table[name] *= factor
    mapping = PLAIN
    if flops is not None:
        table["flops"], mapping = counted * flops * 1.3, {**PLAIN, "flops": "flops"}
    assert re.search(message, refused(table, mapping))


def test_a_column_in_millions_is_read_once_its_unit_is_told():
    table = grid(params=grid()["params"] / 1e6)
    found = read(table, {**PLAIN, "units": {"n_params": "1e6", "skills": 2, "code": 0.5}})
    assert list(found.runs["N"]) == pytest.approx(list(grid()["params"]), rel=1e-15)
    assert list(found.runs["code"]) == list(grid()["loss_code"])
    assert list(found.runs["prose"]) == list(2 * grid()["loss_prose"])
    assert list(read(table, {**PLAIN, "units": {"n_params": 1}}).runs["N"]) == list(table["params"])


def test_bad_flops_cost_only_their_cell():
    counted = (6 * grid()["params"] * grid()["tokens"]).to_numpy()
    flops = counted * 1.2
    flops[[1, 3, 5]] = [-5e18, math.nan, counted[5] / 4]
    table = read(grid(flops=flops), {**PLAIN, "flops": "flops"})
    expected = counted * 1.2
    expected[[1, 3, 5]] = counted[[1, 3, 5]]
    assert list(table.runs["C"]) == list(expected)
    assert table.excluded == ()
    assert any("an integer overflow?) in 3 rows: 6 N D is used there" in note for note in table.notes)
    assert any(note.startswith("flops is 1.2 times 6 N D in the median") for note in table.notes)


def test_the_budget_that_a_table_names_comes_before_its_flops():
    counted = 6 * grid()["params"] * grid()["tokens"]
    budget = [1e18, math.nan, *[3e18] * 7]
    table = read(grid(flops=counted, budget=budget), {**PLAIN, "flops": "flops", "budget": "budget"})
    assert list(table.runs["C"])[2:] == budget[2:]
    assert math.isnan(table.runs["C"][1])
    assert "budget is not a positive number in 1 row: 6 N D is used there" in table.notes


# What is odd


def test_losses_that_rise_with_D_are_noted():
    rising = read(grid(loss_code=grid()["tokens"] ** 0.1))
    assert [note for note in rising.notes if "code" in note] == [
        "losses of code (column loss_code) rise with D in 6 of 6 pairs of rows of one size and mix: is it an accuracy? "
        "A law needs a loss in nats per token"
    ]
    accuracy = read(grid(loss_code=0.2 + grid()["tokens"] / 1e11), {**PLAIN, "units": {"code": 1}})
    assert any("is it an accuracy (0.22 to 0.4 looks like one)?" in note for note in accuracy.notes)


def test_one_size_and_one_number_of_tokens_are_noted():
    assert "all rows have one size, N = 100M" in read(grid(params=1e8)).notes[0]
    assert any("all rows have one number of tokens, D = 2B" in note for note in read(grid(tokens=2e9)).notes)


def test_seeds_and_standard_errors():
    mapping = {**PLAIN, "seed": "seed", "skills": {"code": {"loss": "loss_code", "sem": "sem_code"}}}
    table = read(grid(seed=[1, 2, math.nan] * 3, sem_code=[0.1, -1.0, math.nan] * 3), mapping)
    assert list(table.runs["seed"]) == [1, 2, 0] * 3
    assert list(table.runs["sem/code"])[::3] == [0.1] * 3
    assert int(table.runs["sem/code"].isna().sum()) == 6
    assert table.excluded == ()
    assert "3 rows without a seed: it is taken as 0" in table.notes
    assert "sem of code is not a positive number in 3 rows: it is taken as unknown there" in table.notes
    assert "row 2 of the table has seed 1.5 in column seed" in refused(
        grid(seed=[1, 1.5, 2] * 3, sem_code=1.0), mapping
    )


def test_tokens_that_overflowed_as_integers_are_refused():
    tokens = grid()["tokens"].astype("int64").astype("int32")  # 2e9, 6e9 and 2e10, modulo 2^32
    message = refused(grid(tokens=tokens))
    assert "D (column tokens of the table) is negative in 3 rows" in message
    assert "64-bit" in message


@pytest.mark.parametrize("cell", ["5.62 ± 0.01", "41.2%", -5.6])
def test_losses_that_are_no_numbers_are_shown(cell):
    message = refused(grid(loss_code=[cell] * 9), {**PLAIN, "skills": {"code": "loss_code"}})
    assert f"(loss_code: {cell!r} in row 1). Name columns" in message.replace("'-5.6'", "-5.6")


def test_losses_that_are_all_empty_are_no_skill():
    assert "(loss_code: all cells are empty)" in refused(
        grid(loss_code=[None] * 9), {**PLAIN, "skills": {"code": "loss_code"}}
    )


@pytest.mark.parametrize("name", ["", " ", "code ", "\u00a0code"])
def test_a_skill_has_a_name_without_blanks_around_it(name):
    with pytest.raises(InputError, match="empty or with blanks around it"):
        parse_columns({**PLAIN, "skills": {name: "loss_code"}})


# Real tables


def test_openlm_overtrain_with_overflown_flops(tables, tmp_path):
    """FLOP beyond 64 bits come out negative, or far too small."""
    frame = pd.read_csv(tables / "openlm_overtrain.csv")
    large = frame["flops"] > 1e20
    frame.loc[large, "flops"] = np.where(np.arange(large.sum()) % 2, -1.0, 1e-3) * frame.loc[large, "flops"]
    frame.to_csv(tmp_path / "openlm_overtrain.csv", index=False)
    mapping = {
        "n_params": {"total": "params", "non_embedding": "params_no_embed"}, "n_tokens": "tokens", "flops": "flops",
        "run": "run", "mix": "dataset", "skills": {"c4": "loss_c4_val", "hellaswag": "acc_hellaswag"},
        "units": {"hellaswag": 1},
    }  # fmt: skip
    table = read_table(tmp_path / "openlm_overtrain.csv", parse_columns(mapping))
    runs = table.runs
    assert (len(runs), sorted(set(runs["mix"])), table.excluded) == (101, ["c4_original", "rpj", "rw_original"], ())
    assert np.abs(np.log(runs["C"] / (6 * runs["N"] * runs["D"]))).max() < 1e-6
    assert [note.partition(" (")[0] for note in table.notes] == [
        "hellaswag",
        "hellaswag",
        "flops is not a positive number or is far from 6 N D",
        "losses of hellaswag",
    ]
    smaller = read_table(tmp_path / "openlm_overtrain.csv", parse_columns(mapping), convention="non_embedding")
    assert (smaller.runs["N"] < runs["N"]).all()


def slimpajama_columns(**more):
    mapping = {
        "n_params": "params",
        "n_tokens": "tokens",
        "flops": "flops",
        "run": ["params", "mix_id"],
        "checkpoints": "all",
        "mix": {name: f"mix_{name}" for name in SLIMPAJAMA},
        "skills": {name: f"loss_{name}" for name in (*SLIMPAJAMA, "openhermes")},
    }
    return parse_columns({**mapping, **more})


def test_slimpajama_with_its_16_empty_cells(tables):
    table = read_table(tables / "slimpajama_mix.csv", slimpajama_columns())
    assert (len(table.runs), len(table.excluded), table.notes) == (2408, 16, ())
    assert (table.runs["mix"].nunique(), table.runs["cluster"].nunique()) == (60, 220)  # two of the 61 are one mix
    assert table.runs["run_id"].is_unique
    assert {one.reason for one in table.excluded} == {"no loss"}
    assert all(one.skill for one in table.excluded)
    assert len(read_table(tables / "slimpajama_mix.csv", slimpajama_columns(where={"final": 1})).runs) == 220


def test_regmix_keeps_its_rounded_mixes(tables):
    header = pd.read_csv(tables / "regmix_pile.csv", nrows=0).columns
    shares = {name.removeprefix("mix_"): name for name in header if name.startswith("mix_")}
    mapping = {"n_params": "params", "n_tokens": "tokens", "mix": shares, "skills": ["loss_github"]}
    table = read_table(tables / "regmix_pile.csv", parse_columns(mapping))
    assert (len(table.runs), table.excluded) == (1088, ())


def test_a_large_table_reads_fast(tmp_path):
    rng = np.random.default_rng(1)
    n = 20_000
    shares = np.round(rng.dirichlet([1, 1, 1], 500), 4)[rng.integers(500, size=n)]
    table = pd.DataFrame({"params": rng.uniform(1e7, 1e9, n), "tokens": rng.uniform(1e9, 1e11, n)})
    table[["a", "b", "c"]] = shares
    table[["loss_code", "loss_prose"]] = rng.uniform(2, 4, (n, 2))
    table.to_csv(tmp_path / "runs.csv", index=False)
    columns = parse_columns({**PLAIN, "mix": {name: name for name in "abc"}, "run": "params"})
    began = time.process_time()
    read_table(tmp_path / "runs.csv", columns)
    assert time.process_time() - began < 2.0, "about .2 s where no row is looked at by itself"
