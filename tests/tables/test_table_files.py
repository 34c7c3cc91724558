"""Tables as people export them: dialects of CSV, forms of JSON, W&B's folders and tables, and sparse histories."""

import csv
import json

import numpy as np
import pandas as pd
import pytest

from skillscale.errors import InputError
from skillscale.tables import parse_columns, read_table
from skillscale.tables.json_files import python_dict

MAPPING = {"n_params": "params", "n_tokens": "tokens", "skills": {"all": "loss"}}
N, D = (part.ravel() for part in np.meshgrid([1e8, 3e8, 1e9], [2e9, 6e9, 2e10], indexing="ij"))
LOSS = np.round(1.5 + 400 / N**0.34 + 2000 / D**0.37, 6)
TABLE = pd.DataFrame({"params": N.astype(int), "tokens": D.astype(int), "loss": LOSS})
PLAIN = TABLE.to_csv(index=False)


def read(path, **more):
    return read_table(path, parse_columns({**MAPPING, **more}))


def assert_same(table):
    np.testing.assert_array_equal(table.runs[["N", "D", "all"]], TABLE.to_numpy(dtype=float))
    assert table.excluded == ()


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (PLAIN, "utf-8-sig"),
        (PLAIN, "utf-16"),
        (PLAIN, "utf-16-le"),
        (PLAIN, "utf-16-be"),
        (PLAIN.replace(",", ";"), "utf-8"),
        (PLAIN.replace(",", "\t"), "utf-8"),
        (PLAIN.replace(",", "|"), "utf-8"),
        (PLAIN.replace(",", ";").replace(".", ","), "utf-8"),
        (PLAIN.replace(",", ";").replace(".", ","), "utf-16"),
        (PLAIN.replace(",", " , "), "utf-8"),
        (PLAIN.replace("\n", "\r\n"), "utf-8"),
        ("# exported 2026-11-30\n#\n\n" + PLAIN, "utf-8"),
        ("# " + PLAIN, "utf-8"),
        ("sep=;\n" + PLAIN.replace(",", ";"), "utf-8"),
        (TABLE.to_csv(index=False, quoting=csv.QUOTE_ALL), "utf-8"),
        (TABLE.assign(params=[f"{n:,.0f}" for n in N]).to_csv(index=False), "utf-8"),
        (PLAIN.replace("\n", ",\n").replace("loss,", "loss"), "utf-8"),
        (TABLE.assign(**{"loss; final": 1.0}).to_csv(index=False, sep=","), "utf-8"),
        (PLAIN.replace("params", "größe").replace("größe", "params"), "utf-8"),
        (PLAIN.replace(",", " "), "utf-8"),
        (PLAIN.replace(",", "   "), "utf-8"),
        ("# " + PLAIN.replace(",", " "), "utf-8"),
        ("\ufeff" + PLAIN, "utf-8-sig"),
    ],
)
def test_dialects_of_csv_read_alike(tmp_path, text, encoding):
    (tmp_path / "runs.csv").write_bytes(text.encode(encoding))
    assert_same(read(tmp_path / "runs.csv"))


@pytest.mark.parametrize("extra", range(5))
def test_a_file_may_end_in_any_letter(tmp_path, extra):
    text = TABLE.assign(note="a" * extra + "語").to_csv(index=False).rstrip("\n")
    (tmp_path / "runs.csv").write_text(text, encoding="utf-8")
    assert_same(read(tmp_path / "runs.csv"))


def test_a_separator_in_a_name_is_not_the_separator(tmp_path):
    (tmp_path / "runs.csv").write_text(PLAIN.replace(",", ";").replace("loss", '"loss, final, of all"', 1))
    assert_same(read(tmp_path / "runs.csv", skills={"all": "loss, final, of all"}))


@pytest.mark.parametrize(
    "text",
    [
        TABLE.to_json(orient="records"),
        TABLE.to_json(),
        TABLE.to_json(orient="index"),
        TABLE.to_json(orient="split"),
        TABLE.to_json(orient="table"),
        TABLE.to_json(orient="records", lines=True),
        json.dumps(TABLE.to_dict(orient="list")),
        json.dumps({"runs": TABLE.to_dict(orient="records"), "version": 1}),
        "\ufeff" + TABLE.to_json(orient="records"),
    ],
)
def test_forms_of_json_read_alike(tmp_path, text):
    (tmp_path / "runs.json").write_text(text, encoding="utf-8")
    assert_same(read(tmp_path / "runs.json"))


@pytest.mark.parametrize(("text", "message"), [("[1, 2]", "is JSON, but no table"), ('{"a": ', "is not JSON")])
def test_json_that_is_no_table_says_so(tmp_path, text, message):
    (tmp_path / "runs.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read(tmp_path / "runs.json")


@pytest.mark.parametrize("with_config", [False, True])
def test_a_folder_with_a_wandb_summary_per_run(tmp_path, with_config):
    for at, row in enumerate(TABLE.to_dict(orient="records")):
        folder = tmp_path / f"run-{at}" / "files"
        folder.mkdir(parents=True)
        size = {"n_params": row.pop("params")}
        summary = {**row, "_step": 9, **({} if with_config else {"model": size})}
        (folder / "wandb-summary.json").write_text(json.dumps(summary))
        (folder / "wandb-metadata.json").write_text('{"os": "Linux"}')
        if with_config:
            (folder / "config.yaml").write_text(
                json.dumps({"wandb_version": 1, "model": {"desc": None, "value": size}})
            )
    table = read(tmp_path, n_params="model.n_params")
    assert_same(table)
    assert table.runs["cluster"].tolist() == [f"run-{at}" for at in range(9)]


def project_table(**more):
    """The table that the script of W&B's guide makes from its API."""
    rows = TABLE.to_dict(orient="records")
    return pd.DataFrame(
        {
            "summary": [
                f"{{'eval/loss': np.float64({row['loss']}), 'tokens': {row['tokens']}, '_step': 9, 'x': nan, **{{}}}}"
                for row in rows
            ],
            "config": [str({"model": {"n_params": row["params"]}, "tags": ["a"], "_step": "no"}) for row in rows],
            "name": [f"r{at}" for at in range(len(rows))],
            **more,
        }
    )


def test_the_table_of_the_wandb_api(tmp_path):
    project_table().to_csv(tmp_path / "project.csv")
    for prefix in ("", "summary."):
        mapping = {"n_params": "config.model.n_params" if prefix else "model.n_params", "n_tokens": f"{prefix}tokens"}
        table = read(tmp_path / "project.csv", **mapping, skills={"all": f"{prefix}eval/loss"})
        assert_same(table)
        assert table.runs["run_id"].tolist() == [f"r{at}" for at in range(9)]


def test_no_code_in_a_dict_runs(tmp_path):
    marker = tmp_path / "ran"
    texts = [
        f"{{'a': __import__('pathlib').Path('{marker}').touch()}}",
        "{'a': (lambda: 1)()}",
        "{'a': [x for x in (1,)]}",
        "{'a': 9**9**9}",
    ]
    assert [python_dict(text) for text in texts] == [{"a": None}] * 4
    assert not marker.exists()
    assert python_dict("{'a': np.float64(1.5), 'b': -2, 'c': {'d': True}}") == {"a": 1.5, "b": -2, "c": {"d": True}}
    for text in (
        "{'a': " + "[" * 100 + "]" * 100 + "}",
        "{'a': " + "-" * 9999 + "1}",
        "{" + "'a': 1," * 99999 + "}",
        "{",
        "3",
    ):
        assert python_dict(text) is None


# Histories with tokens and losses on different rows


def history(pattern, *, tokens="tokens", **more):
    """Rows of a run: T logs tokens, L a loss, M another loss; the i-th T has i times 1e9 tokens."""
    rows, count = [], 0
    for step, kind in enumerate(pattern):
        count += kind == "T"
        row = {"_step": step, **{name: values[step] for name, values in more.items()}}
        row |= {"T": {tokens: count * 1e9}, "L": {"loss": 4 - count / 10}, "M": {"other": 5 - count / 10}}[kind]
        rows.append(row)
    return rows


def write_histories(folder, histories):
    folder.mkdir()
    for name, rows in histories.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    sizes = pd.DataFrame({"file": list(histories), "params": [1e8 * (at + 1) for at in range(len(histories))]})
    sizes.to_csv(folder / "sizes.csv", index=False)
    return folder


SPARSE = {"join": {"file": "sizes.csv", "by": "file"}, "checkpoints": "all"}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("TLTLTL", [1e9, 2e9, 3e9]),
        ("TTTLTTTL", [3e9, 6e9]),
        ("TLTLT", [1e9, 2e9]),
        ("LTLTL", [1e9, 2e9]),  # the first loss is from before the training
        ("TLMTLM", [1e9, 2e9]),
    ],
)
def test_tokens_of_another_call_are_those_of_the_row_before(tmp_path, pattern, expected):
    folder = write_histories(tmp_path / "h", {"a": history(pattern), "b": history(pattern)})
    table = read(folder, **SPARSE, skills={"all": "loss", **({"more": "other"} if "M" in pattern else {})})
    assert table.runs.groupby("cluster")["D"].apply(list).to_dict() == {"a": expected, "b": expected}
    assert any("take tokens from the row before them in the same run" in note for note in table.notes)
    assert table.runs[list(table.skills)].notna().all(axis=None)
    assert table.runs["all"].tolist() == pytest.approx((4 - table.runs["D"] / 1e10).tolist())


def test_tokens_of_the_same_step_come_first(tmp_path):
    steps = {"trainer/global_step": [10, 10, 20, 20]}
    folder = write_histories(tmp_path / "h", {"a": history("LTLT", **steps), "b": history("LTLT", **steps)})
    table = read(folder, **SPARSE)
    assert table.runs["D"].tolist() == [1e9, 2e9] * 2


def test_tokens_that_may_belong_to_either_neighbour_are_refused_with_the_cure(tmp_path):
    folder = write_histories(tmp_path / "h", {"a": history("LTLT"), "b": history("TLTL")})
    with pytest.raises(InputError, match=r"tokens and the losses of h are on different rows .* Log both in one call"):
        read(folder, **SPARSE)


def test_a_table_with_tokens_next_to_losses_is_filled_nowhere(tmp_path):
    rows = history("TLTL")
    rows[1]["tokens"] = 1.5e9
    folder = write_histories(tmp_path / "h", {"a": rows, "b": history("T")})
    (one,) = [one for one in read(folder, **SPARSE).excluded if "D is missing" in one.reason]
    assert one.run_id.endswith("(a)")
