"""Perplexities, scores and numbers that are no losses are refused with the cure or left out, from every source."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from skillscale.errors import InputError
from skillscale.point import DesignPoint, Mix
from skillscale.record import Measurement, RunRecord, RunState
from skillscale.tables import make_run_table, parse_columns, read_table
from skillscale.tables.imported import _table_of_rows
from skillscale.tables.importing import import_source
from skillscale.tables.metric_names import metric_kind
from skillscale.tables.read import _trainer_table

MAPPING = {"n_params": "params", "n_tokens": "tokens", "skills": {"all": "metric"}}


def grid(**columns):
    sizes, tokens = np.meshgrid([1e8, 3e8, 1e9], [2e9, 6e9, 2e10], indexing="ij")
    table = {"params": sizes.ravel(), "tokens": tokens.ravel()}
    table["metric"] = 1.5 + 400 / table["params"] ** 0.34 + 2000 / table["tokens"] ** 0.37
    return pd.DataFrame({**table, **columns})


LOSS = grid()["metric"].to_numpy()


def read(table, **more):
    return make_run_table(table, parse_columns({**MAPPING, **more}))


def refused(table, **more):
    with pytest.raises(InputError) as caught:
        read(table, **more)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (
            "perplexity",
            "ppl PPL eval/ppl lambada_openai/ppl word_perplexity byte_perplexity,none valPPL val-ppl ppl_mmlu "
            "exp(loss) wikitext2ppl perplexity/c4 c4_ppl_v2 Validation_Perplexity metrics.eval.ppl",
        ),
        ("score", "acc acc_norm,none hellaswag/acc acc/arc exact_match f1 mc1 Accuracy pass@1 gsm8k_em rougeL evalAcc"),
        ("loss", "loss eval/loss val_loss log_ppl logppl bpb_arc nll_per_char cross_entropy loss_acc em/loss"),
        ("unknown", "code prose recall metric mmlu accumulated validation x"),
    ],
)  # fmt: skip
def test_what_a_metric_is_by_its_name(kind, names):
    assert {name: metric_kind(name).value for name in names.split(" ")} == dict.fromkeys(names.split(" "), kind)


@pytest.mark.parametrize("name", ["eval/ppl", "PPL", "val_perplexity"])
def test_a_perplexity_by_its_name_is_refused_with_its_cure(name):
    table = grid().rename(columns={"metric": name}).assign(**{name: np.exp(LOSS)})
    message = refused(table, skills={"all": name})
    assert f"all (column {name} of the table) is a perplexity by its name" in message
    assert "Add perplexity: [all] to the column map" in message
    np.testing.assert_allclose(read(table, skills={"all": name}, perplexity=["all"]).runs["all"], LOSS)
    declared = read(table.assign(**{name: LOSS}), skills={"all": name}, units={"all": 1})
    assert declared.notes == (f"all (column {name}) is a perplexity by its name, and a loss by its unit",)


def test_a_score_by_its_name_is_refused():
    table = grid().rename(columns={"metric": "acc_norm"})
    assert "is a score by its name, where higher is better" in refused(table, skills={"all": "acc_norm"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            np.exp(LOSS + 1),
            r"values from 23.5 to 53.8, .* a perplexity\? .the table.\. Add perplexity: \[all\]",
        ),
        (0.2 + 0.02 * np.log(grid()["tokens"] / 1e9), "which rise with N and D: is it an accuracy"),
        (30 + 5 * np.log(grid()["tokens"] / 1e9), "which rise with N and D: is it an accuracy in per cent"),
    ],
)
def test_values_that_are_no_losses_are_refused_whatever_their_name(values, message):
    with pytest.raises(InputError, match=message):
        read(grid(metric=values))
    assert any(
        "taken as a loss, because units names it" in one for one in read(grid(metric=values), units={"all": 1}).notes
    )


def test_a_column_that_is_exp_of_another_is_a_perplexity():
    message = refused(grid(metric=LOSS - 0.8, other=np.exp(LOSS - 0.8)), skills={"all": "metric", "more": "other"})
    assert "more (column other) is exp of all (column metric): is it a perplexity?" in message


def test_a_column_that_is_exp_of_a_loss_that_no_skill_names_is_a_perplexity():
    message = refused(grid(metric=np.exp(LOSS - 0.8), **{"eval/loss": LOSS - 0.8}))
    assert "all (column metric) is exp of column eval/loss: is it a perplexity?" in message


def test_a_trainer_that_measures_perplexities_is_noted():
    def record(at, loss):
        n_params, n_tokens = (int(grid()[column][at]) for column in ("params", "tokens"))
        point = DesignPoint(n_params=n_params, n_tokens=n_tokens, mix=Mix({"a": 1.0}), seed=0)
        skills = {"prose": Measurement(loss=loss, sem=math.nan)}
        return RunRecord(run_id=str(at), study="s", state=RunState.FINISHED, reason="", point=point, skills=skills)

    records = [record(at, loss) for at, loss in enumerate(np.exp(LOSS + 1))]
    assert any("is it a perplexity? Its fit is wrong" in note for note in _trainer_table(records, ["prose"]).notes)
    records = [record(at, loss) for at, loss in enumerate(LOSS)]
    assert _trainer_table(records, ["prose"]).notes == ()
    assert any("ppl) is a perplexity by its name" in note for note in _trainer_table(records, ["ppl"]).notes)


def test_a_perplexity_that_is_a_loss_by_its_name_is_noted():
    notes = read(grid(val_loss=LOSS), skills={"all": "val_loss"}, perplexity=["all"]).notes
    assert any("is a loss by its name. Its logarithm is taken" in note for note in notes)


def test_a_run_that_diverged_is_left_out_and_sums_over_tokens_are_noted():
    apart = LOSS.copy()
    apart[4] = 40.0
    (one,) = read(grid(metric=apart)).excluded
    assert (one.run_id, one.reason) == ("row 5", "loss is 40, far above that of any model and of the other rows")
    sums = read(grid(loss=LOSS * 10 / LOSS.min()), skills={"all": "loss"})
    assert (sums.excluded, len(sums.notes)) == ((), 1)
    assert "all has 3 values above 12.6, more than a mean over tokens in nats can be" in sums.notes[0]


@pytest.mark.parametrize("text", ["1.7976931348623157e308", "1.797e+308", "inf", "Infinity", "1e400", "1e300"])
def test_infinity_is_left_out_in_any_spelling(tmp_path, text):
    lines = grid().to_csv(index=False).splitlines()
    lines[3] = ",".join([*lines[3].split(",")[:2], text])
    (tmp_path / "runs.csv").write_text("\n".join(lines))
    (one,) = read_table(tmp_path / "runs.csv", parse_columns(MAPPING)).excluded
    assert (one.run_id, one.reason) == ("row 3", "loss is inf, not a positive number")


def test_no_perplexity_is_proposed_for_a_name():
    message = refused(grid(perplexity=1.0, acc=1.0), skills={"all": "perplexit", "more": "accu"})
    assert "did you mean" not in message


def test_old_result_files_of_the_harness_name_perplexities_ppl(tmp_path):
    for size in (70, 160):
        content = {
            "results": {"lambada_openai": {"ppl": 20.0, "acc": 0.4}},
            "config": {"model_args": f"pretrained=m{size}"},
        }
        (tmp_path / f"results_{size}.json").write_text(json.dumps(content))
    mapping = {**MAPPING, "n_params": "model_num_parameters", "n_tokens": "model_num_parameters"}
    for metric, words in (("ppl", "a perplexity, but a law needs its logarithm"), ("acc", "higher is better")):
        with pytest.raises(InputError, match=words):
            read_table(tmp_path, parse_columns({**mapping, "skills": {"all": f"lambada_openai/{metric}"}}))


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("eval/ppl", LOSS, "all (column eval/ppl) is a perplexity by its name. Its fit is wrong unless"),
        ("metric", np.exp(LOSS), "is it a perplexity? Its fit is wrong unless"),
    ],
)
def test_a_study_of_an_earlier_version_reads_on_with_its_doubts(column, values, words):
    """It may hold infinity as the largest float, and perplexities."""
    table = read(grid(sem=0.1), skills={"all": {"loss": "metric", "sem": "sem"}})
    source = json.loads(import_source("runs.csv", "", table, parse_columns(MAPPING)).described)
    source["columns"]["skills"]["all"]["loss"] = column
    rows = table.runs.assign(all=values).to_dict(orient="records")
    rows[0] |= {"all": 1.7976931348623157e308, "sem/all": 1.7976931348623157e308}
    again = _table_of_rows([row | {"content": str(at)} for at, row in enumerate(rows)], [source])
    assert math.isnan(again.runs["all"][0])
    assert math.isnan(again.runs["sem/all"][0])
    assert again.excluded[-1].reason == "loss is inf, not a positive number"
    assert any(words in note for note in again.notes)
