"""W&B exports and result files of the lm-evaluation-harness become the runs that were planted in them."""

import importlib.util
import io
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from skillscale.cli import COMMANDS, main
from skillscale.errors import InputError
from skillscale.tables import parse_columns, read_columns, read_table
from skillscale.tracking import StudyStore

# MLflow 3.17 on SQLAlchemy 2.1
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

SAMPLES = Path(__file__).parents[1] / "samples"


def loaded(path):
    spec = importlib.util.spec_from_file_location(f"samples_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make = loaded(SAMPLES / "make.py")

HARNESS = {
    "join": {"file": "checkpoints.csv", "by": ["model", "revision"]}, "n_params": "n_params", "n_tokens": "n_tokens",
    "skills": {"wikitext": "wikitext/bits_per_byte"}, "units": {"wikitext": "bits"},
    "checkpoints": "all",
}  # fmt: skip
WANDB = {"n_params": "model.n_params", "n_tokens": "tokens", "skills": {"prose": "eval/prose/loss"}}
HISTORY = {**WANDB, "join": {"file": "sizes.csv", "by": {"file": "Name"}}, "checkpoints": "all"}


def read(path, mapping, **more):
    return read_table(path, parse_columns({**mapping, **more}))


@pytest.fixture
def results(tmp_path):
    """A copy of the result files that a test may spoil."""
    return Path(shutil.copytree(SAMPLES / "lm_eval", tmp_path / "results"))


@pytest.fixture
def histories(tmp_path):
    return Path(shutil.copytree(SAMPLES / "wandb" / "histories", tmp_path / "histories"))


def left_out(table):
    return {one.run_id: one.reason for one in table.excluded}


def change(path, **parts):
    """Top-level parts of a result file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))


def some_file(results, model="tiny-70m", at=0):
    return sorted((results / f"lab__{model}").iterdir())[at]


def test_the_samples_are_as_they_are_made(tmp_path):
    make.write_harness(tmp_path / "lm_eval")
    make.write_wandb(tmp_path / "wandb")
    files = sorted(one.relative_to(tmp_path) for one in tmp_path.rglob("*") if one.is_file())
    kept = sorted(one.relative_to(SAMPLES) for kind in ("lm_eval", "wandb") for one in (SAMPLES / kind).rglob("*.*"))
    assert files == kept
    assert all((tmp_path / one).read_bytes() == (SAMPLES / one).read_bytes() for one in files)


def test_the_guide_shows_the_mappings_of_the_samples():
    guide = (SAMPLES.parents[1] / "docs" / "guide" / "howto" / "own-runs.md").read_text()
    for name in ("wandb", "histories", "lm_eval", "mlflow"):
        lines = (SAMPLES / f"{name}.yaml").read_text().splitlines()[1:]
        assert "```yaml\n" + "\n".join(lines) + "\n```" in guide, name


@pytest.mark.slow
def test_runs_of_another_mlflow_store_come_in_as_the_guide_shows(tmp_path, monkeypatch):
    from mlflow.tracking import MlflowClient

    guide = (SAMPLES.parents[1] / "docs" / "guide" / "howto" / "own-runs.md").read_text()
    part = guide.partition("## From another MLflow server\n")[2].partition("\n## ")[0]
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.syspath_prepend(str(SAMPLES))
    StudyStore.open("sqlite:///theirs.db")
    shutil.copy("theirs.db", "mlflow.db")  # making the tables takes seconds
    loaded(SAMPLES / "mlflow_runs.py").write("sqlite:///theirs.db")
    shutil.copy(SAMPLES / "mlflow.yaml", tmp_path)
    commands = re.findall(r"^skillscale (.*)$", part, re.MULTILINE)
    for command in commands:
        assert main(command.split()) == 0
    names = {one.name for one in MlflowClient("sqlite:///mlflow.db").search_experiments()}
    assert (len(commands), names) == (2, {"Default", "other", "other-study"})


# The lm-evaluation-harness


def test_results_of_the_harness_are_losses_in_nats_with_N_and_D_from_the_table_beside_them():
    table = read_table(SAMPLES / "lm_eval", read_columns(SAMPLES / "lm_eval.yaml"))
    runs = table.runs
    assert len(runs) == 16
    assert sorted(set(runs["cluster"])) == sorted(f"lab/{model}" for model in make.SIZES)
    assert set(zip(runs["N"], runs["D"], strict=True)) == {
        (n_params, step * make.BATCH) for n_params in make.SIZES.values() for step in make.STEPS
    }
    pairs = list(zip(runs["N"], runs["D"], strict=True))
    bits, nats = ([make.loss(skill, *pair) for pair in pairs] for skill in ("wikitext", "lambada"))
    np.testing.assert_allclose(runs["wikitext"], np.array(bits) * math.log(2), rtol=1e-14)
    np.testing.assert_allclose(runs["lambada"], nats, rtol=1e-14)
    np.testing.assert_allclose(runs["sem/lambada"], 0.03, rtol=1e-14)
    assert table.notes[:2] == (
        "wikitext is wikitext/bits_per_byte: in nats per byte, not nats per token",
        "lambada is ln lambada_openai/perplexity: in nats per target, not per token",
    )


def test_bits_and_bytes_tell_one_loss():
    """The perplexity of a byte is 2^bits: its logarithm is the loss in nats per byte."""
    mapping = {**HARNESS, "skills": {"bits": "wikitext/bits_per_byte", "byte": "wikitext/byte_perplexity"}}
    runs = read(SAMPLES / "lm_eval", mapping, units={"bits": "bits"}, perplexity=["byte"]).runs
    np.testing.assert_allclose(runs["bits"], runs["byte"], rtol=1e-14)


def test_N_may_be_that_which_the_harness_counted():
    table = read(SAMPLES / "lm_eval", HARNESS, n_params="model_num_parameters")
    assert set(table.runs["N"]) == set(make.SIZES.values())


def test_bits_that_stay_bits_are_noted():
    (note,) = [one for one in read(SAMPLES / "lm_eval", HARNESS, units={}).notes if "per byte" in one]
    assert note == (
        "wikitext is wikitext/bits_per_byte: in bits per byte, not nats per token; "
        "units: {wikitext: bits} converts it to "
        "nats per byte"
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"skills": {"w": "wikitext/word_perplexity"}, "units": {}},
            r"w is wikitext/word_perplexity, a perplexity, but a law needs its logarithm. Add perplexity: \[w\]",
        ),
        (
            {"skills": {"l": "lambada_openai/acc"}, "units": {}},
            "higher is better, but a law needs a loss. Name bits",
        ),
        (
            {"skills": {"w": "wikitext/bits_per_bite"}, "units": {}},
            "no column 'wikitext/bits_per_bite' .*did you mean wikitext/bits_per_byte",
        ),
        ({"perplexity": ["wikitext"]}, "wikitext is a perplexity, which has no unit. Remove it from units"),
        ({"perplexity": ["wiki"]}, "perplexity names no skill: 'wiki' .did you mean wikitext"),
        ({"join": {"file": "nowhere.csv", "by": "model"}}, "there is no file .*nowhere.csv"),
        (
            {"join": {"file": "checkpoints.csv", "by": "modle"}},
            "join uses 'modle', which lm_eval lacks. It has file, m",
        ),
        (
            {"join": {"file": "checkpoints.csv", "by": "model"}},
            "checkpoints.csv has lab/tiny-70m twice. Keep one row of each",
        ),
        (
            {"join": {"file": "checkpoints.csv", "by": {"model": "model", "file": "revision"}}},
            "no row of lm_eval has a match in checkpoints.csv: "
            "by model, file the table has lab/tiny-70m lab__tiny-70m/results_",
        ),
        ({"join": "checkpoints.csv"}, "join must name a file in the folder of the table and a column of both"),
        ({"units": {"n_params": "bits"}}, "units of n_params must be a number, as in 1e6, but it is 'bits'"),
    ],
)
def test_what_a_law_can_not_take_is_refused_with_the_cure(more, message):
    with pytest.raises(InputError, match=message):
        read(SAMPLES / "lm_eval", HARNESS, **more)


def test_files_of_one_checkpoint_are_one_row_in_which_the_newest_counts(results):
    first = some_file(results)
    plain = json.loads(first.read_text())
    tasks = {"wikitext": {"bits_per_byte,none": 0.5}, "pile_10k": {"bits_per_byte,none": 0.7}}
    later = plain | {"date": plain["date"] + 1, "results": tasks}
    (first.parent / "results_2024.json").write_text(json.dumps(later))
    mapping = {**HARNESS, "skills": {"w": "wikitext/bits_per_byte", "p": "pile_10k/bits_per_byte",
                                     "l": "lambada_openai/perplexity"}}  # fmt: skip
    table = read(results, mapping, units={"w": "bits"}, perplexity=["l"])
    assert len(table.runs) == 16
    (row,) = table.runs[table.runs["p"].notna()].to_dict("records")
    assert (row["w"], row["p"]) == (pytest.approx(0.5 * math.log(2)), 0.7)
    assert row["l"] == pytest.approx(make.loss("lambada", row["N"], row["D"]))
    assert "wikitext/bits_per_byte occurs more than once for a checkpoint; the newest file counts" in table.notes


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        (1.7e9, 1.8e9),
        ("1700000000", 1.8e9),
        (1.7e12, 1.8e12),
        ("2026-01-01T00:00:00", "2026-05-01T00:00:00"),
        ("2026-05-01T00:00:00+02:00", "2026-04-30T23:00:00Z"),
        ("2026-01-01", "2026-01-01 10:00:00.5"),
        (1.7e9, "2026-05-01T00:00:00.123456"),
    ],
)
@pytest.mark.parametrize("names", [("results_a.json", "results_z.json"), ("results_z.json", "results_a.json")])
def test_the_newest_file_counts_however_its_date_is_written(results, older, newer, names):
    first = some_file(results)
    content = json.loads(first.read_text())
    first.unlink()
    for name, date, value in zip(names, (older, newer), (0.9, 0.5), strict=True):
        tasks = {"wikitext": {"bits_per_byte,none": value}}
        (first.parent / name).write_text(json.dumps(content | {"date": date, "results": tasks}))
    assert 0.5 * math.log(2) == pytest.approx(read(results, HARNESS).runs["wikitext"].min())


def test_the_time_in_a_name_serves_files_without_a_date(results):
    first = some_file(results)
    content = json.loads(first.read_text()) | {"date": None}
    first.unlink()
    for name, value in (("results_2026-05-01T10-00-00.123456.json", 0.5), ("results_2026-01-31T10-00-00.5.json", 0.9)):
        tasks = {"wikitext": {"bits_per_byte,none": value}}
        (first.parent / name).write_text(json.dumps(content | {"results": tasks}))
    assert 0.5 * math.log(2) == pytest.approx(read(results, HARNESS).runs["wikitext"].min())


@pytest.mark.parametrize("dates", [(None, None), (1.7e9, None), (1.7e9, 1.7e9), ("soon", "later")])
def test_files_whose_dates_do_not_decide_are_refused_where_their_values_differ(results, dates):
    first = some_file(results)
    content = json.loads(first.read_text())
    first.unlink()
    for name, date in zip(("results_a.json", "results_b.json"), dates, strict=True):
        (first.parent / name).write_text(json.dumps(content | {"date": date}))
    assert len(read(results, HARNESS).runs) == 16  # equal values
    change(first.parent / "results_b.json", results={"wikitext": {"bits_per_byte,none": 0.5}})
    with pytest.raises(InputError, match=r"results_[ab].json give wikitext/bits_per_byte .* Remove one of the files"):
        read(results, HARNESS)


@pytest.mark.parametrize(
    "more",
    [
        {"config": {"limit": 10}},
        {"config": {"limit": 0.1}},
        {"n-samples": {"wikitext": {"original": 62, "effective": 10}}},
        {"n-samples": {"wikitext": 10}},
    ],
)
def test_a_file_of_some_documents_never_replaces_a_full_one(results, more):
    first = some_file(results)
    content = json.loads(first.read_text())
    config = content["config"] | more.get("config", {})
    full = read(results, HARNESS).runs
    later = (
        content
        | more
        | {"config": config, "date": content["date"] + 9, "results": {"wikitext": {"bits_per_byte,none": 9}}}
    )
    if "n-samples" not in more:
        later.pop("n-samples", None)
    (first.parent / "results_zz.json").write_text(json.dumps(later))
    table = read(results, HARNESS)
    assert sorted(table.runs["wikitext"]) == sorted(full["wikitext"])
    assert any("results_zz.json has only some documents" in note for note in table.notes)


def test_newer_files_tell_how_the_model_was_loaded_as_an_object(results):
    path = some_file(results)
    plain = json.loads(path.read_text())
    config = plain["config"] | {"model_args": {"pretrained": "lab/tiny-70m", "revision": "step8000"}}
    change(path, config=config | {"model_revision": None}, model_name="")
    assert len(read(results, HARNESS).runs) == 16


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"results": {', "it is not JSON (Expecting property name"),
        ("[" * 200_000, "it is not JSON ("),
        (b"\xff\xfe\x00", "it is not JSON ('utf-8' codec"),
        ("[1, 2]", "it has no results by task"),
        ('{"results": {"wikitext": 3}}', "it has no results by task"),
        ('{"results": {"wikitext": {"bits_per_byte,none": ' + "9" * 5000 + "}}}", "it is not JSON ("),
    ],
)
def test_a_broken_file_is_left_out_by_name_and_the_others_count(results, content, reason):
    path = some_file(results)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    table = read(results, HARNESS)
    assert len(table.runs) == 15
    (told,) = [why for name, why in left_out(table).items() if name == f"lab__tiny-70m/{path.name}"]
    assert told.startswith(reason)
    with pytest.raises(InputError, match=r"has results of the lm-evaluation-harness\. The first: it "):
        read(path, {**HARNESS, "join": None})


def test_a_file_too_large_is_not_read(results):
    path = some_file(results)
    with path.open("r+") as file:
        file.truncate(2**26 + 1)
    assert "more than any result file. Are these samples?" in " ".join(left_out(read(results, HARNESS)).values())


def test_metrics_that_may_not_compare_are_noted(results):
    path = some_file(results)
    plain = json.loads(path.read_text())
    change(path, config=plain["config"] | {"limit": 10}, **{"n-shot": {"wikitext": 5}})
    notes = " ".join(read(results, HARNESS).notes)
    assert "wikitext: the number of shots of wikitext differs between files (5, 0). Are they comparable?" in notes
    assert "1 of 16 files were made with --limit, on only some documents: lab__tiny-70m/" in notes


def test_a_checkpoint_that_the_table_lacks_is_named(results):
    lines = (results / "checkpoints.csv").read_text().splitlines()
    (results / "checkpoints.csv").write_text("\n".join([*lines[:3], *lines[4:], "lab/other,main,1e9,1e9"]))
    table = read(results, HARNESS)
    assert left_out(table) == {"lab/tiny-70m step32000": "checkpoints.csv has no row for it"}
    assert "1 of 16 rows of checkpoints.csv match no run" in table.notes


def test_a_metric_that_is_missing_costs_that_skill_of_that_row(results):
    change(some_file(results), results={"wikitext": {"bits_per_byte,none": "N/A"}, "x": {"bits_per_byte,none": None}})
    table = read(results, HARNESS)
    assert list(left_out(table).values()) == ["no loss"]


def call(entry, *words):
    answer = io.StringIO()
    assert main([entry, *words, "--json"], COMMANDS, answer) == 0
    return json.loads(answer.getvalue())


def test_a_folder_is_fitted_to_what_was_planted():
    words = ("--table", str(SAMPLES / "lm_eval"), "--columns", str(SAMPLES / "lm_eval.yaml"))
    skills = call("fit", *words, "--law", "chinchilla", "--study.resamples", "100")["skills"]
    for skill, unit in (("wikitext", math.log(2)), ("lambada", 1.0)):
        E, A, B, alpha, beta = make.LAWS[skill]
        planted = [E * unit, A * unit, B * unit, alpha, beta]
        assert list(skills[skill]["theta"].values()) == pytest.approx(planted, rel=1e-6)


def test_a_folder_is_imported_once_and_what_it_has_grown_by_is_added(results, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(SAMPLES / "lm_eval.yaml", tmp_path)
    for model in ("tiny-1b", "tiny-410m"):
        shutil.rmtree(results / f"lab__{model}")
    later = some_file(results).rename(tmp_path / "later.json")
    store = ("--study", "theirs", "--tracking", "sqlite:///a.db")
    words = (*store, "--table", str(results), "--columns", "lm_eval.yaml")
    assert call("import", *words)["new"] == 7
    later.rename(results / "lab__tiny-70m" / "results_2025.json")
    answer = call("import", *words)
    assert (answer["new"], answer["there"]) == (1, 7)
    call("export", *store, "--file", "runs.csv")
    back = read_table("runs.csv", read_columns("runs.yaml")).runs.drop(columns=["run_id", "mix"])
    first = read_table(results, read_columns("lm_eval.yaml")).runs[back.columns]
    pd.testing.assert_frame_equal(
        *(one.sort_values(["N", "D"], ignore_index=True) for one in (back, first)), check_exact=True
    )
    assert "# note: wikitext is wikitext/bits_per_byte: in nats per byte, not" in Path("runs.yaml").read_text()


# W&B


def test_the_run_table_gives_the_finished_runs_by_their_names():
    table = read_table(SAMPLES / "wandb" / "runs.csv", read_columns(SAMPLES / "wandb.yaml"))
    runs = table.runs
    assert len(runs) == 16
    assert runs["run_id"][0] == "amber-fox-1"
    assert runs["mix"].unique().tolist() == ["c4"]
    for skill in ("code", "prose"):
        expected = [make.loss(skill, *pair) for pair in zip(runs["N"], runs["D"], strict=True)]
        np.testing.assert_allclose(runs[skill], expected, rtol=1e-14)
    assert left_out(table) == {
        "dusty-fox-17": "it is crashed, not finished",
        "calm-oak-18": "it is running, not finished",
    }


def test_where_may_take_runs_that_did_not_finish():
    table = read(SAMPLES / "wandb" / "runs.csv", WANDB, where={"State": ["finished", "crashed"]})
    assert len(table.runs) == 17
    assert left_out(table) == {}


def test_a_perplexity_is_a_loss_by_its_logarithm():
    skills = {"loss": "eval/prose/loss", "ppl": "eval/prose/perplexity"}
    runs = read(SAMPLES / "wandb" / "runs.csv", WANDB, skills=skills, perplexity=["ppl"]).runs
    np.testing.assert_allclose(runs["ppl"], runs["loss"], rtol=1e-14)


def test_no_finished_run_says_which_states_there_are(tmp_path):
    frame = pd.read_csv(SAMPLES / "wandb" / "runs.csv").assign(State="crashed")
    frame.to_csv(tmp_path / "runs.csv", index=False)
    with pytest.raises(InputError, match=r"no run of runs.csv is finished \(State is crashed\).*where: \{State: \["):
        read(tmp_path / "runs.csv", WANDB)


def test_a_state_that_is_not_of_a_run_is_a_column_like_others(tmp_path):
    pd.read_csv(SAMPLES / "wandb" / "runs.csv").assign(State="Ohio").to_csv(tmp_path / "runs.csv", index=False)
    assert len(read(tmp_path / "runs.csv", WANDB).runs) == 17  # the running one repeats another


def test_runs_exported_twice_count_once_and_runs_of_one_name_are_told_apart(tmp_path):
    frame = pd.read_csv(SAMPLES / "wandb" / "runs.csv")
    frame.loc[1, "Name"] = frame.loc[0, "Name"]
    pd.concat([frame, frame[3:4]]).to_csv(tmp_path / "runs.csv", index=False)
    table = read(tmp_path / "runs.csv", WANDB)
    assert len(table.runs) == 16
    assert left_out(table)["row 19 dusty-fox-4"] == "listed twice"
    assert table.runs["run_id"][:2].tolist() == ["row 1 amber-fox-1", "row 2 amber-fox-1"]


def test_histories_give_each_evaluated_step_as_a_checkpoint_of_its_run():
    table = read_table(SAMPLES / "wandb" / "histories", read_columns(SAMPLES / "histories.yaml"))
    runs = table.runs
    assert runs.groupby("cluster").size().to_dict() == dict.fromkeys(
        ("dusty-fox-4", "dusty-oak-8", "dusty-sea-12", "dusty-sky-16"), 4
    )
    expected = [make.loss("code", *pair) for pair in zip(runs["N"], runs["D"], strict=True)]
    np.testing.assert_allclose(runs["code"], expected, rtol=1e-14)
    assert "112 of 128 rows of the history have no loss of a skill, and are no checkpoints" in table.notes


@pytest.mark.parametrize(("folder", "mapping"), [("wandb/histories", HISTORY), ("lm_eval", HARNESS)])
def test_of_each_run_the_last_row_counts_unless_the_map_says_all(folder, mapping):
    table = read(SAMPLES / folder, mapping, checkpoints=None)
    everything = read(SAMPLES / folder, mapping)
    last = everything.runs.groupby("cluster")["D"].max().to_dict()
    assert dict(zip(table.runs["cluster"], table.runs["D"], strict=True)) == last
    (note,) = [note for note in table.notes if "at several D" in note]
    assert f"{len(last)} of 16 rows" in note
    assert "checkpoints: all" in note
    assert [note for note in everything.notes if "at several D" in note] == []


def test_a_history_alone_counts_tokens_by_its_steps():
    mapping = {"n_params": "seed", "n_tokens": "_step", "skills": {"prose": "eval/prose/loss"}}
    path = SAMPLES / "wandb" / "histories" / "dusty-oak-8.jsonl"
    table = read(path, mapping, n_params="_timestamp", units={"n_tokens": make.BATCH})
    assert set(table.runs["cluster"]) == {"dusty-oak-8"}
    assert table.runs["D"].tolist() == [step * make.BATCH for step in make.STEPS]


def test_runs_that_crashed_are_left_out_of_the_histories_once_each(histories):
    sizes = pd.read_csv(histories / "sizes.csv")
    sizes.loc[1, "State"] = "crashed"
    sizes.to_csv(histories / "sizes.csv", index=False)
    table = read(histories, HISTORY)
    assert len(table.runs) == 12
    assert [(one.run_id, one.reason) for one in table.excluded] == [("dusty-oak-8", "it is crashed, not finished")]


def test_a_loss_that_left_the_numbers_is_missing(histories):
    path = histories / "dusty-oak-8.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[3]["eval/prose/loss"] = "NaN"
    rows[7]["eval/prose/loss"] = "Infinity"
    rows[8]["gradients"] = {"_type": "histogram", "bins": [1, 2]}
    rows[15]["tokens"] = 10**400
    path.write_text("\n\n".join(map(json.dumps, rows)))
    table = read(histories, HISTORY)
    assert sorted(left_out(table).values()) == ["D is inf, too large", "loss is inf, not a positive number"]
    assert len(table.runs) == 14


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"_step": 1', "line 33 of .* is not JSON"),
        ("[1, 2]", r"line 33 of .* holds '\[1, 2\]', which is no object. Write one object per line"),
        ("[" * 200_000, "line 33 of .* is not JSON"),
        ('{"_step": "' + "x" * 2**24 + '"}', "line 33 of .* is longer than"),
    ],
)
def test_a_broken_line_is_told_by_its_number(histories, line, reason):
    path = histories / "dusty-oak-8.jsonl"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match=reason):
        read(path, HISTORY)
    table = read(histories, HISTORY)
    assert "dusty-oak-8.jsonl" in left_out(table)
    assert len(table.runs) == 12


def test_the_export_of_a_chart_says_what_to_export(tmp_path):
    columns = ["Step", *(f"calm-sea-1 - eval/prose/loss{end}" for end in ("", "__MIN", "__MAX"))]
    pd.DataFrame([[1, 2, 2, 2]], columns=columns).to_csv(tmp_path / "wandb_export.csv", index=False)
    with pytest.raises(
        InputError, match=r"is the export of a W&B chart .* Export the run table or the history of each"
    ):
        read(tmp_path / "wandb_export.csv", WANDB)


def test_a_folder_without_runs_says_so(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError, match=r"has no result files .* and no histories"):
        read(tmp_path, WANDB)
