"""Columns by their names and values: exports of common tools, published tables, and names that must not be taken."""

import io

import numpy as np
import pandas as pd
import pytest

from skillscale.errors import InputError
from skillscale.tables.column_guess import guess_columns, skill_names

N, D, L = [1e7, 1e8, 1e9], [2e8, 2e9, 2e10], [4.1, 3.4, 2.9]


def table(**columns):
    return pd.DataFrame(columns)


def named(names, **more):
    """A table with N, D and losses under the names given, in this order."""
    return pd.DataFrame(dict(zip(names, (N, D, L), strict=True)) | more)


EXPORTS = {
    "W&B, run table": (
        named(["n_params", "train/tokens", "eval/loss"], Name=["a", "b", "c"], State=["finished"] * 3, Runtime=[9] * 3),
        {"n_params": "n_params", "n_tokens": "train/tokens", "skills": {"loss": "eval/loss"}},
    ),
    "W&B, losses a data set": (
        named(["model.total_params", "tokens_seen", "val/code/loss"], **{"val/prose/loss": L, "train/loss": L}),
        {
            "n_params": "model.total_params", "n_tokens": "tokens_seen",
            "skills": {"code": "val/code/loss", "prose": "val/prose/loss"},
        },
    ),
    "MLflow, search_runs": (
        named(
            ["params.n_params", "metrics.train_tokens", "metrics.val_loss"], run_id=["a", "b", "c"],
            status=["FINISHED"] * 3, **{"params.seed": ["0", "1", "2"], "tags.mlflow.runName": ["x", "y", "z"]},
        ),
        {
            "n_params": "params.n_params", "n_tokens": "metrics.train_tokens", "skills": {"loss": "metrics.val_loss"},
            "seed": "params.seed", "run": "run_id",
        },
    ),
    "lm-eval as a table": (
        named(["model_num_parameters", "training_tokens", "wikitext/word_perplexity"], lambada_acc=[0.2, 0.3, 0.4]),
        {
            "n_params": "model_num_parameters", "n_tokens": "training_tokens",
            "skills": {"wikitext": "wikitext/word_perplexity"}, "perplexity": ["wikitext"],
        },
    ),
    "lm-eval, bits per byte": (
        named(["num_params", "tokens", "pile_arxiv/bits_per_byte,none"], **{"pile_github/bits_per_byte,none": L}),
        {
            "n_params": "num_params", "n_tokens": "tokens",
            "skills": {
                "pile_arxiv": "pile_arxiv/bits_per_byte,none", "pile_github": "pile_github/bits_per_byte,none"
            },
        },
    ),
    "Hugging Face trainer": (
        named(["num_parameters", "num_input_tokens_seen", "eval_loss"], loss=L, learning_rate=[1e-3] * 3),
        {"n_params": "num_parameters", "n_tokens": "num_input_tokens_seen", "skills": {"loss": "eval_loss"}},
    ),
    "units in the names": (
        table(**{"Params (M)": [10, 100, 1000], "Tokens (B)": [0.2, 2, 20], "Val Loss": L}),
        {
            "n_params": "Params (M)", "n_tokens": "Tokens (B)", "skills": {"loss": "Val Loss"},
            "units": {"n_params": 1e6, "n_tokens": 1e9},
        },
    ),
    "letters": (named(["N", "D", "L_loss"]), {"n_params": "N", "n_tokens": "D", "skills": {"L": "L_loss"}}),
    "two conventions": (
        named(["non_embedding_params", "tokens", "loss"], params=[2e7, 2e8, 2e9]),
        {
            "n_params": {"total": "params", "nonembed": "non_embedding_params"}, "n_tokens": "tokens",
            "skills": {"loss": "loss"},
        },
    ),
    "N and C": (
        table(parameters=N, total_flops=[1e16, 1e18, 1e20], loss=L),
        {"n_params": "parameters", "flops": "total_flops", "skills": {"loss": "loss"}},
    ),
    "shares": (
        named(["params", "tokens", "code_loss"], mix_code=[0.1, 0.5, 0.9], mix_web=[0.9, 0.5, 0.1], mix_id=[1, 2, 3]),
        {
            "n_params": "params", "n_tokens": "tokens", "skills": {"code": "code_loss"},
            "mix": {"code": "mix_code", "web": "mix_web"},
        },
    ),
    "names of data sets": (
        named(["params", "tokens", "loss"], dataset=["c4", "c4", "web"]),
        {"n_params": "params", "n_tokens": "tokens", "skills": {"loss": "loss"}, "mix": "dataset"},
    ),
    "standard errors": (
        named(["params", "tokens", "loss_code"], sem_code=[0.01, 0.01, 0.01]),
        {"n_params": "params", "n_tokens": "tokens", "skills": {"code": {"loss": "loss_code", "sem": "sem_code"}}},
    ),
    "last checkpoints are marked": (
        named(["params", "tokens", "loss"], final=[0, 1, 1]),
        {"n_params": "params", "n_tokens": "tokens", "skills": {"loss": "loss"}, "where": {"final": 1}},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("frame", "columns"), EXPORTS.values(), ids=EXPORTS)
def test_columns_of_exports(frame, columns):
    guess = guess_columns(frame)
    assert dict(guess.raw) == columns
    assert guess.absent == ()


@pytest.mark.parametrize(
    "name",
    [
        "batch_tokens", "tokens_per_second", "tokens_per_param", "unique_tokens", "vocab_tokens", "max_tokens",
        "param_norm",
        "chinchilla_multiplier", "loss_scale", "aux_loss", "z_loss", "loss_mask", "min_loss", "loss_std", "grad_norm",
        "flops_per_token", "mfu", "learning_rate", "throughput/tokens_per_sec", "eval/runtime", "acc_hellaswag",
    ],
)  # fmt: skip
def test_columns_that_are_something_else(name):
    """Alone, each would make N, D, C or a loss that the table lacks."""
    assert dict(guess_columns(pd.DataFrame({name: [3.0, 4.0, 5.0]})).raw) == {}


def test_what_a_table_lacks_is_said():
    with pytest.raises(InputError, match=r"no column of t\.csv is D \(tokens\) by its name"):
        guess_columns(table(params=N, loss=L)).require("t.csv")
    with pytest.raises(InputError, match=r"is N .parameters. or D .tokens. or a loss by its name"):
        guess_columns(table(Name=["a"], x=[1.0])).require("t.csv")


def test_names_of_skills():
    assert skill_names(["loss_paloma_c4_en", "eval/PubMed/loss", "val_loss", "Pile-CC loss"]) == [
        "paloma_c4_en", "PubMed", "loss", "Pile-CC",
    ]  # fmt: skip
    assert skill_names(["eval/loss", "val/loss"]) == ["eval_loss", "val_loss"]


def test_the_guess_is_one_line_for_a_person():
    assert guess_columns(EXPORTS["shares"][0]).text == (
        "columns by their names: n_params params, n_tokens tokens, skills code_loss, mix mix_code, mix_web"
    )
    assert guess_columns(EXPORTS["units in the names"][0]).text.endswith("Val Loss; n_params in 1e6; n_tokens in 1e9")


def test_empty_and_odd_tables_have_no_columns():
    for frame in (pd.DataFrame(), pd.DataFrame({"params": [np.nan]}), pd.read_csv(io.StringIO("params,params\n1,2\n"))):
        guess_columns(frame)
    assert guess_columns(pd.DataFrame({"params": ["large", "small"]})).absent == ("n_params", "n_tokens", "skills")


PUBLISHED = {
    "chinchilla_epoch": ({"loss"}, None),
    "gemstones_trunks": ({"loss"}, None),
    "marin_isoflop": ({"paloma_macro"}, "dataset"),
    "scalebench_farseer": ({"loss"}, None),
    "regmix_pile": (13, 17),
    "mixinglaws_5mix": (22, 5),
    "slimpajama_mix": (8, 7),
    "openlm_overtrain": (7, "dataset"),
    "olmo_ladder": (11, None),
    "gemstones": (11, None),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_columns_of_published_tables(tables, name):
    raw = guess_columns(pd.read_csv(tables / f"{name}.csv")).raw
    skills, mix = PUBLISHED[name]
    sizes = raw["n_params"]
    assert (sizes["total"] if isinstance(sizes, dict) else sizes, raw["n_tokens"]) == ("params", "tokens")
    assert (set(raw["skills"]) if isinstance(skills, set) else len(raw["skills"])) == skills
    assert (len(raw["mix"]) if isinstance(mix, int) else raw.get("mix")) == mix
    assert "perplexity" not in raw
