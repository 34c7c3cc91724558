"""Tables made at random, damaged and mismapped end as runs or in one line, and runs hold only usable numbers."""

import json
import random
import warnings

import numpy as np
import pandas as pd
import pytest

from skillscale.errors import InputError
from skillscale.tables import parse_columns, read_table

CELLS = (
    "", "nan", "inf", "-inf", "1e400", "1.797e308", "-1", "0", "True", "0x1F", "1+2j", "1,234", "1,234,567", "3,5",
    "70M", "1.3B", "x", '"q"', "-", "1e-320", "9223372036854775808", "-9223372036854775808", "1e22", "33.3", "0.5",
    "50%", "2026-01-01", "NaT", "٣", "1_000", " 5 ", "\t", "[1]", "{}",
)  # fmt: skip
UNITS = (1e-3, 1e-6, 1e-9, 1e3, 1e12, -1.0, 0.0, 1 / 524288)
EXTRA = {
    "flops": lambda N, D: 6 * N * D, "ppl": lambda N, D: np.exp(2 + 1e9 / D), "acc": lambda N, D: 0.5 + 0 * N,
    "tokenizer": lambda N, D: ["a"] * len(N), "_step": lambda N, D: range(len(N)), "run": lambda N, D: ["r"] * len(N),
    "State": lambda N, D: ["finished"] * len(N), "tokens_B": lambda N, D: D / 1e9, "step": lambda N, D: range(len(N)),
    "summary": lambda N, D: ["{'a': 1}"] * len(N), "config": lambda N, D: ["{'b': 2}"] * len(N),
}  # fmt: skip


def random_table(rng):
    count = rng.choice([1, 2, 9, 20])
    N = np.array([rng.choice([1e8, 3e8, 1e9]) for _ in range(count)])
    D = np.array([rng.choice([2e9, 6e9, 2e10]) for _ in range(count)])
    columns = {"params": N, "tokens": D, "loss": 1.5 + 400 / N**0.34 + 2000 / D**0.37}
    columns |= {name: EXTRA[name](N, D) for name in rng.sample(list(EXTRA), rng.randint(0, 5))}
    table = {name: [str(cell) for cell in cells] for name, cells in columns.items()}
    for _ in range(rng.choice([0, 1, 2, 5])):
        table[rng.choice(list(table))][rng.randrange(count)] = rng.choice(CELLS)
    if rng.random() < 0.2:
        name, unit = rng.choice(["params", "tokens", "loss"]), rng.choice(UNITS)
        table[name] = [
            repr(float(cell) * unit) if cell[:1].isdigit() and cell[-1:] == "0" else cell for cell in table[name]
        ]
    names = rng.sample(list(table), len(table))
    return {name: table[name] for name in names}


def write(rng, folder, table):
    kind = rng.choice(["csv", "tsv", "json", "jsonl", "parquet"])
    path = folder / f"runs.{kind}"
    frame = pd.DataFrame(table)
    if kind == "parquet":
        frame.to_parquet(path)
    elif kind.startswith("json"):
        text = frame.to_json(orient="records", lines=kind == "jsonl" or rng.random() < 0.3)
        path.write_text(text[: rng.choice([len(text)] * 9 + [20])])
    else:
        text = rng.choice(["", "# c\n", "sep=;\n", "\n"]) + frame.to_csv(index=False, sep=rng.choice(",;\t|"))
        path.write_bytes(text.encode(rng.choice(["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])))
    return path


def random_mapping(rng, table):
    mapping = {"n_params": "params", "n_tokens": "tokens", "skills": {"all": "loss"}}
    mapping |= {
        key: name for key, name in {"flops": "flops", "run": "run"}.items() if name in table and rng.random() < 0.6
    }
    changes = (
        {"skills": {"all": "ppl"}}, {"n_tokens": "step"}, {"n_tokens": "tokens_B"}, {"n_params": ""}, {"n_tokens": ""},
        {"perplexity": ["all"]}, {"units": {rng.choice(["n_params", "n_tokens", "all"]): rng.choice([1, 1e3, 1e9])}},
    )  # fmt: skip
    return mapping | (rng.choice(changes) if rng.random() < 0.3 else {})


@pytest.mark.parametrize("seed", range(4))
def test_a_table_made_at_random_is_read_or_refused_in_one_line(tmp_path, seed):
    rng, n_read = random.Random(seed), 0
    for _ in range(60):
        table = random_table(rng)
        path, mapping = write(rng, tmp_path, table), random_mapping(rng, table)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of numpy: a step that computes with what is no number
            try:
                runs = read_table(path, parse_columns(mapping)).runs
            except InputError:
                continue
        n_read += 1
        assert (runs[["N", "D"]] > 0).all(axis=None)
        assert np.isfinite(runs[["N", "D"]]).all(axis=None)
        for name in {"all", "C"} & set(runs):
            given = runs[name].dropna()
            assert ((given > 0) & (given < 1e300)).all(), f"{name}: {json.dumps(mapping)}"
    assert n_read > 10
