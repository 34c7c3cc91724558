"""Prepare: the hub's schemas through local folders, the cache, its locks and its failures."""

import json
import subprocess
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from skillscale import config as configs
from skillscale.config import Config
from skillscale.errors import InputError, TrainingError
from skillscale.lm.data import prepare as preparing
from skillscale.lm.data import token_arrays as token_files
from skillscale.lm.data.prepare import PreparedData, prepare
from skillscale.lm.data.splits import in_split, sample
from skillscale.lm.evaluation.skills import evaluate_skills
from skillscale.point import DesignPoint, Mix

WORDS = ("river", "stone", "harbour", "train", "winter", "signal", "garden", "copper", "letter", "music", "window")


def texts(n: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, 40)) + f" number {i} of {seed}.\n" for i in range(n)]


def raw_config(folder: Path) -> dict[str, Any]:
    """Two categories and a set in plain files."""
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"text": texts(120), "source": "made"}).to_parquet(folder / "prose.parquet")
    (folder / "code.jsonl").write_text("".join(json.dumps({"content": text}) + "\n" for text in texts(80, 1)), "utf-8")
    (folder / "qa.csv").write_text("prompt,completion\n" + "".join(f"Q {i}:, A {i}\n" for i in range(20)) + "Q,\n")
    raw = {
        noun: configs.read_yaml(configs.conf_file(noun, "main" if noun == "study" else "embedded"))
        for noun in ("data", "skills", "study")
    }
    raw |= {noun: configs.read_yaml(configs.conf_file(noun, "")) for noun in configs.NOUNS if noun not in raw}
    raw["data"] = {
        "name": "made",
        "vocab_size": 300,
        "tokenizer_bytes": 20_000,
        "categories": [
            {"name": "prose", "sources": [{"path": str(folder / "prose.parquet")}], "validation_share": 0.1},
            {
                "name": "code",
                "sources": [{"path": str(folder / "code.jsonl"), "column": "content"}],
                "validation_share": 0.1,
            },
        ],
    }
    raw["skills"] = {
        "name": "made",
        "sets": [{"name": "qa", "path": str(folder / "qa.csv")}],
        "skills": [{"name": "qa", "hypothesis": ["qa"]}],
    }
    raw["study"]["mixes"] = [{"prose": 0.5, "code": 0.5}]
    return raw


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path, PreparedData]:
    root = tmp_path_factory.mktemp("made")
    config = configs.resolve(raw_config(root / "files"))
    return config, root / "cache", prepare(config, root / "cache", progress=lambda _: None)


def decoded(prepared: PreparedData, name: str) -> list[str]:
    return prepared.tokenizer.decode(prepared.categories[name].array.tolist()).split("<|endoftext|>")[:-1]


def held_out(prepared: PreparedData, name: str) -> list[str]:
    items = prepared.validation[name]
    return [
        prepared.tokenizer.decode(items.ids[a + 1 : b].tolist())
        for a, b in zip(items.offsets[:-1], items.offsets[1:], strict=True)
    ]


def test_training_and_validation_share_out_every_document(made: tuple[Config, Path, PreparedData]) -> None:
    prepared = made[2]
    for name, expected in (("prose", texts(120)), ("code", texts(80, 1))):
        train, held = decoded(prepared, name), held_out(prepared, name)
        assert train == [text for text in expected if not in_split(text, 0.1)]
        assert sorted(held) == sorted(text for text in expected if in_split(text, 0.1))
        assert 2 <= len(held) <= 25
        assert prepared.categories[name].n_documents == len(train)
        assert prepared.categories[name].n_bytes == sum(len(text.encode()) for text in train)
        assert prepared.categories[name].array.dtype == np.uint16


def test_items_hold_end_of_text_prompt_and_completion(made: tuple[Config, Path, PreparedData]) -> None:
    prepared = made[2]
    items = prepared.sets["qa"]
    assert len(items) == 20  # the row without a completion is skipped
    row, n_prompt = items.ids[items.offsets[3] : items.offsets[4]].tolist(), int(items.prompt_lengths[3])
    assert row[0] == prepared.tokenizer.end_of_text
    assert prepared.tokenizer.decode(row[1:n_prompt]) == "Q 3:"
    assert prepared.tokenizer.decode(row[n_prompt:]) == " A 3"
    assert items.completion_bytes[3] == 4
    assert (prepared.validation["prose"].prompt_lengths == 1).all()


def test_skipped_rows_are_reported(tmp_path: Path) -> None:
    messages: list[str] = []
    prepare(configs.resolve(raw_config(tmp_path)), tmp_path / "cache", progress=messages.append)
    assert any(line.startswith("qa: 20 items") and "1 rows without a completion skipped" in line for line in messages)
    assert any(line.startswith("prose: ") and "documents" in line for line in messages)


def test_measure_gives_sets_skills_and_validation(made: tuple[Config, Path, PreparedData]) -> None:
    import torch

    config, _, prepared = made
    result = evaluate_skills(lambda ids: torch.zeros(*ids.shape, 300), prepared, config.skills, context=64)
    assert set(result.sets) == {"val/prose", "val/code", "qa"}
    assert result.skills["qa"] == result.sets["qa"]
    assert result.skills_held_out == {}
    assert all(measured.loss == pytest.approx(np.log(300), rel=1e-6) for measured in result.sets.values())


def test_the_second_call_reads_nothing_and_imports_no_datasets(made: tuple[Config, Path, PreparedData]) -> None:
    config, cache, prepared = made
    code = (
        "import json, sys, time; from pathlib import Path\n"
        "from skillscale.config import resolve; from skillscale.lm.data.prepare import prepare\n"
        "config = resolve(json.loads(sys.argv[1])); start = time.perf_counter()\n"
        "prepared = prepare(config, Path(sys.argv[2]), progress=lambda text: sys.exit(f'made again: {text}'))\n"
        "heavy = [name for name in ('datasets', 'pandas', 'pyarrow', 'torch') if name in sys.modules]\n"
        "print(json.dumps([prepared.data_hash, time.perf_counter() - start, heavy]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, json.dumps(config.as_dict()), str(cache)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    data_hash, seconds, heavy = json.loads(ran.stdout)
    assert data_hash == prepared.data_hash
    assert seconds < 0.5
    assert heavy == []


def test_workers_at_once_make_it_once(tmp_path: Path) -> None:
    config = configs.resolve(raw_config(tmp_path / "files"))
    code = (
        "import json, sys; from pathlib import Path\n"
        "from skillscale.config import resolve; from skillscale.lm.data.prepare import prepare\n"
        "config, cache = resolve(json.loads(sys.argv[1])), Path(sys.argv[2])\n"
        "messages = []; prepared = prepare(config, cache, progress=messages.append)\n"
        "print(json.dumps([prepared.data_hash, [line for line in messages if not line.startswith('waiting')]]))"
    )
    command = [sys.executable, "-c", code, json.dumps(config.as_dict()), str(tmp_path / "cache")]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    (first_hash, first_messages), (second_hash, second_messages) = (
        json.loads(worker.communicate(timeout=60)[0]) for worker in workers
    )
    assert first_hash == second_hash
    together = [line for line in first_messages + second_messages if " tokens" in line and "target" not in line]
    assert len(together) == 2  # one line a category, from whichever worker made it
    assert not list((tmp_path / "cache").rglob("*.partial"))


def test_the_same_content_elsewhere_has_the_same_hash_and_new_content_another(
    made: tuple[Config, Path, PreparedData], tmp_path: Path
) -> None:
    raw = raw_config(tmp_path / "moved")
    moved = prepare(configs.resolve(raw), tmp_path / "cache", progress=lambda _: None)
    assert moved.data_hash == made[2].data_hash
    with (tmp_path / "moved" / "code.jsonl").open("a") as file:
        file.write(json.dumps({"content": "one text more"}) + "\n")
    changed = prepare(configs.resolve(raw), tmp_path / "cache", progress=lambda _: None)
    assert changed.data_hash != moved.data_hash


def test_a_new_template_rebuilds_only_its_set(made: tuple[Config, Path, PreparedData], tmp_path: Path) -> None:
    config, cache, prepared = made
    raw = config.as_dict()
    raw["skills"]["sets"][0]["prompt"] = "Please: {prompt}"
    messages: list[str] = []
    other = prepare(configs.resolve(raw), cache, progress=messages.append)
    assert other.data_hash != prepared.data_hash
    assert len(messages) == 1
    assert messages[0].startswith("qa:")


def test_items_are_sampled_alike_every_time(made: tuple[Config, Path, PreparedData]) -> None:
    config, cache, prepared = made
    raw = config.as_dict()
    raw["skills"]["sets"][0]["max_items"] = 7
    few = prepare(configs.resolve(raw), cache, progress=lambda _: None).sets["qa"]
    assert len(few) == 7
    whole = prepared.sets["qa"]
    answers = [prepared.tokenizer.decode(part.tolist()) for part in np.split(whole.ids, whole.offsets[1:-1])]
    drawn = [prepared.tokenizer.decode(part.tolist()) for part in np.split(few.ids, few.offsets[1:-1])]
    assert [answer for answer in answers if answer in drawn] == drawn
    assert drawn != answers[:7]


def test_repetition_is_reported_with_its_epochs(made: tuple[Config, Path, PreparedData]) -> None:
    prepared = made[2]
    there = prepared.categories["code"].n_tokens
    mix = Mix({"code": 0.5, "prose": 0.5})
    assert prepared.check(DesignPoint(n_params=1000, n_tokens=there, mix=mix)) == []
    warnings = prepared.check(DesignPoint(n_params=1000, n_tokens=6 * there, mix=mix))
    assert len(warnings) == 2
    assert "code has" in warnings[0]
    assert "3.0 epochs" in warnings[0]


def test_a_named_validation_set_is_never_trained_on(tmp_path: Path) -> None:
    raw = raw_config(tmp_path)
    pd.DataFrame({"text": [*texts(3), "another\n"]}).to_parquet(tmp_path / "held.parquet")
    raw["data"]["categories"][0]["validation"] = {"path": str(tmp_path / "held.parquet")}
    prepared = prepare(configs.resolve(raw), tmp_path / "cache", progress=lambda _: None)
    assert sorted(held_out(prepared, "prose")) == sorted([*texts(3), "another\n"])
    assert decoded(prepared, "prose") == texts(120)[3:]


def test_long_validation_documents_give_excerpts_and_none_of_them_is_trained_on(tmp_path: Path) -> None:
    raw = raw_config(tmp_path)
    long = ["\n".join(texts(60, seed)) for seed in range(30)]
    pd.DataFrame({"text": [*texts(90, 77), *long]}).to_parquet(tmp_path / "prose.parquet")
    pd.DataFrame({"text": long}).to_parquet(tmp_path / "held.parquet")
    raw["data"]["categories"][0] |= {"validation": {"path": str(tmp_path / "held.parquet")}, "validation_bytes": 8000}
    prepared = prepare(configs.resolve(raw), tmp_path / "cache", progress=lambda _: None)
    held = held_out(prepared, "prose")
    assert len(held) == 16
    assert sum(map(len, held)) == 8000
    assert all(sum(excerpt in document for document in long) == 1 for excerpt in held)
    assert sum(excerpt == document[:500] for excerpt in held for document in long) < 2  # not only beginnings
    assert decoded(prepared, "prose") == texts(90, 77)


def test_one_validation_document_is_too_few(tmp_path: Path) -> None:
    raw = raw_config(tmp_path)
    pd.DataFrame({"text": ["alone\n"]}).to_parquet(tmp_path / "held.parquet")
    raw["data"]["categories"][0]["validation"] = {"path": str(tmp_path / "held.parquet")}
    with pytest.raises(InputError, match=r"gives 1 documents to validate on, but a standard error needs 2"):
        prepare(configs.resolve(raw), tmp_path / "cache", progress=lambda _: None)


def test_sources_are_cut_by_weight(tmp_path: Path) -> None:
    raw = raw_config(tmp_path)
    sources = [
        {"path": str(tmp_path / "prose.parquet"), "weight": 3},
        {"path": str(tmp_path / "code.jsonl"), "column": "content"},
    ]
    raw["data"]["categories"][0] |= {"sources": sources, "max_bytes": 16_000, "validation_share": 0.02}
    text = "".join(decoded(prepare(configs.resolve(raw), tmp_path / "c", progress=lambda _: None), "prose"))
    assert 0.65 < sum(" of 0." in line for line in text.splitlines()) / len(text.splitlines()) < 0.85
    assert 14_000 < len(text.encode()) <= 16_000


@pytest.mark.parametrize("share", [0.0, 1e-9, 1.0])
def test_a_share_that_leaves_nothing_is_named(tmp_path: Path, share: float) -> None:
    raw = raw_config(tmp_path)
    raw["data"]["categories"][0]["validation_share"] = share
    with pytest.raises(InputError, match=r"category prose.*(validation_share|no document to train)"):
        prepare(configs.resolve(raw), tmp_path / "cache", progress=lambda _: None)


def test_weights_without_a_limit_are_refused(tmp_path: Path) -> None:
    raw = raw_config(tmp_path)
    source = raw["data"]["categories"][0]["sources"][0]
    raw["data"]["categories"][0]["sources"] = [source, source | {"weight": 2.0}]
    with pytest.raises(InputError, match=r"prose has weights of sources.*Give max_bytes"):
        prepare(configs.resolve(raw), tmp_path / "cache", progress=lambda _: None)


def test_a_wrong_template_names_the_columns_and_leaves_no_items(tmp_path: Path) -> None:
    raw = raw_config(tmp_path)
    raw["skills"]["sets"][0]["completion"] = "{answer}"
    with pytest.raises(
        InputError, match=r"unknown column in template '{answer}': 'answer'\. Choose from prompt, completion"
    ):
        prepare(configs.resolve(raw), tmp_path / "cache", progress=lambda _: None)
    assert [path.suffix for path in (tmp_path / "cache" / "items").iterdir()] in ([], [".lock"])


def test_a_missing_source_is_reported_before_any_work(tmp_path: Path) -> None:
    raw = raw_config(tmp_path)
    raw["skills"]["sets"][0]["path"] = str(tmp_path / "gone.csv")
    messages: list[str] = []
    with pytest.raises(InputError, match=r"gone\.csv does not exist"):
        prepare(configs.resolve(raw), tmp_path / "cache", progress=messages.append)
    assert messages == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_named_and_leaves_nothing_half_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullPath(type(tmp_path)):  # type: ignore[misc]
        def open(self, *args: Any, **kwargs: Any) -> Any:
            return Path("/dev/full").open("wb") if self.name == "tokens.bin" else super().open(*args, **kwargs)

    written = token_files.write_tokens
    monkeypatch.setattr(preparing, "write_tokens", lambda t, tok, folder, **kw: written(t, tok, FullPath(folder), **kw))
    config = configs.resolve(raw_config(tmp_path / "files"))
    with pytest.raises(TrainingError, match=r"no room to write in .*cache: No space left on device. Free some space"):
        prepare(config, tmp_path / "cache", progress=lambda _: None)
    assert [path.suffix for path in (tmp_path / "cache" / "tokens").iterdir()] in ([], [".lock"])
    monkeypatch.undo()
    assert prepare(config, tmp_path / "cache", progress=lambda _: None).categories["code"].n_tokens > 100


def test_what_a_killed_worker_left_is_rebuilt(tmp_path: Path) -> None:
    config = configs.resolve(raw_config(tmp_path / "files"))
    before = prepare(config, tmp_path / "cache", progress=lambda _: None)
    (whole,) = (
        path for path in (tmp_path / "cache" / "tokens").iterdir() if path.name.startswith("code") and path.is_dir()
    )
    broken = whole.with_name(f"{whole.name}.partial")
    whole.rename(broken)
    (broken / "tokens.bin").write_bytes(b"half")
    after = prepare(config, tmp_path / "cache", progress=lambda _: None)
    assert not broken.exists()
    assert after.categories["code"].n_tokens == before.categories["code"].n_tokens


def test_the_description_holds_counts_and_hashes(made: tuple[Config, Path, PreparedData]) -> None:
    prepared = made[2]
    described = json.loads((prepared.folder / "data.json").read_text())
    assert described["data_hash"] == prepared.data_hash
    assert described["categories"]["code"]["tokens"] == prepared.categories["code"].n_tokens
    assert described["sets"]["qa"]["items"] == 20
    assert (prepared.folder / "tokenizer.json").read_text() == prepared.tokenizer.text


def test_embedded_corpora_bring_notices_and_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "built"
    (folder / "knowledge").mkdir(parents=True)
    pd.DataFrame({"text": texts(100), "source": "s"}).to_parquet(folder / "knowledge" / "train.parquet")
    pd.DataFrame({"text": texts(9, 5), "source": "s"}).to_parquet(folder / "knowledge" / "validation.parquet")
    manifest = {
        "recipe": 1,
        "sources": [{"name": "cities", "version": "1.0", "licence": "CC-BY 4.0", "sha256": "0"}],
        "facts": {"count": 50, "bits": 400.0, "mentions_per_byte": 0.25},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    corpora = types.ModuleType("skillscale.lm.data.corpora")
    corpora.build = lambda cache, *, preset, zipf_exponent, progress: folder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "skillscale.lm.data.corpora", corpora)
    raw = raw_config(tmp_path / "files")
    raw["data"]["categories"] = [
        {
            "name": "knowledge",
            "sources": [{"path": "embedded:knowledge"}],
            "validation": {"path": "embedded:knowledge", "split": "validation"},
        }
    ]
    raw["study"]["mixes"] = [{"knowledge": 1}]
    prepared = prepare(configs.resolve(raw), tmp_path / "cache", progress=lambda _: None)
    assert prepared.notices == ("cities 1.0 CC-BY 4.0",)
    assert prepared.facts is not None
    knowledge = prepared.categories["knowledge"]
    assert prepared.facts.exposures(knowledge.n_tokens) == pytest.approx(knowledge.n_bytes / 4 / 50)
    assert prepared.facts.exposures(0) == 0
    for category in raw["data"]["categories"]:
        category["sources"] = [{"path": str(folder / "knowledge" / "train.parquet")}]
        category["validation"] = {"path": str(folder / "knowledge" / "validation.parquet")}
    assert prepare(configs.resolve(raw), tmp_path / "cache", progress=lambda _: None).facts == prepared.facts
    (folder / "manifest.json").write_text("of another program")
    elsewhere = prepare(configs.resolve(raw), tmp_path / "cache", progress=lambda _: None)
    assert (elsewhere.facts, elsewhere.notices) == (None, ())


# --- the large configuration, on folders of the hub's schemas ---

QUESTIONS = ["who wrote it", "where is it", "what is it"]
SCHEMAS: Mapping[str, Mapping[str, list[Any]]] = {
    "trivia_qa": {
        "question": QUESTIONS,
        "answer": [{"value": f"v{i}", "aliases": [f"v{i}", "w"], "normalized_value": "v"} for i in range(3)],
    },
    "mmlu": {"question": QUESTIONS, "choices": [["aa", "bb", "cc", "dd"]] * 3, "answer": [0, 3, 1]},
    "squad": {
        "context": ["c"] * 3,
        "question": QUESTIONS,
        "answers": [{"text": [f"t{i}", "u"], "answer_start": [1, 2]} for i in range(3)],
    },
    "nq_open": {"question": QUESTIONS, "answer": [[f"n{i}", "m"] for i in range(3)]},
    "popqa": {"question": QUESTIONS, "possible_answers": [json.dumps([f"p{i}", "q"]) for i in range(3)]},
    "mbpp": {"task_id": [1, 2, 3], "text": QUESTIONS, "code": [f"def f{i}():\r\n    return {i}" for i in range(3)]},
    "humaneval": {
        "prompt": [f"def g{i}():\n" for i in range(3)],
        "canonical_solution": [f"    return {i}\n" for i in range(3)],
    },
    "gsm8k": {"question": QUESTIONS, "answer": [f"so 1+{i}\n#### {1 + i}" for i in range(3)]},
}  # fmt: skip
ANSWERS = {
    "trivia_qa": [" v0", " v1", " v2"],
    "mmlu": [" aa", " dd", " bb"],
    "squad": [" t0", " t1", " t2"],
    "nq_open": [" n0", " n1", " n2"],
    "popqa": [" p0", " p1", " p2"],
    "mbpp": [f"def f{i}():\r\n    return {i}" for i in range(3)],
    "humaneval": [f"    return {i}\n" for i in range(3)],
    "gsm8k": [f" so 1+{i}\n#### {1 + i}" for i in range(3)],
}


def hub_folder(folder: Path, config: str, splits: Mapping[str, Mapping[str, list[Any]]]) -> str:
    """A folder that loads as a hub id does: parquet files, and a README that names configs and splits."""
    folder.mkdir(parents=True)
    lines = ["---", "configs:", f"- config_name: {config or 'default'}", "  data_files:"]
    for split, columns in splits.items():
        pd.DataFrame(columns).to_parquet(folder / f"{split}.parquet")
        lines += [f"  - split: {split}", f"    path: {split}.parquet"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
    return str(folder)


def localised(raw: dict[str, Any], folder: Path) -> Iterator[dict[str, Any]]:
    """Put a folder of the same schema in place of every hub id of the large configuration."""
    for number, category in enumerate(raw["data"]["categories"]):
        for place, source in enumerate(category["sources"]):
            column = source.get("column", "text")
            splits = {"train": {column: texts(200, 10 * number + place), "id": list(range(200))}}
            splits |= {"validation": {column: texts(10, 99), "id": list(range(10))}}
            source["path"] = hub_folder(folder / f"{category['name']}{place}", source.get("config", ""), splits)
        if category.get("validation"):
            category["validation"]["path"] = category["sources"][0]["path"]
        else:
            category["validation_share"] = 0.05
    for settings in raw["skills"]["sets"]:
        settings["path"] = hub_folder(
            folder / settings["name"], settings.get("config", ""), {settings["split"]: SCHEMAS[settings["name"]]}
        )
    raw["data"] |= {"vocab_size": 300, "tokenizer_bytes": 30_000}
    yield raw


def test_the_large_configuration_reads_the_hubs_schemas(tmp_path: Path) -> None:
    raw = configs.load(data="large", skills="large", study="large").as_dict()
    (raw,) = localised(raw, tmp_path / "hub")
    prepared = prepare(configs.resolve(raw), tmp_path / "cache", progress=lambda _: None)
    assert {name: tokens.n_documents > 150 for name, tokens in prepared.categories.items()} == {
        "knowledge": True, "code": True, "web": True,
    }  # fmt: skip
    for name, expected in ANSWERS.items():
        items = prepared.sets[name]
        starts = items.offsets[:-1] + items.prompt_lengths
        written = [
            prepared.tokenizer.decode(items.ids[a:b].tolist()) for a, b in zip(starts, items.offsets[1:], strict=True)
        ]
        assert [text[-len(answer) :] for text, answer in zip(written, expected, strict=True)] == expected
        assert items.completion_bytes.tolist() == [len(answer.encode()) for answer in expected]


def test_samples_are_even_bounded_and_blind_to_order() -> None:
    many = texts(500)
    sampled = sample(iter(many), 20_000)
    assert sum(len(text.encode()) for text in sampled) == 20_000
    places = [many.index(text) for text in sampled[:-1]]
    assert 150 < np.mean(places) < 350
    assert sample(reversed(many), 20_000) == sampled
    assert sorted(sample(many, 10**9)) == sorted(many)
    assert sample([], 10) == []


def test_a_tokenizer_file_of_another_size_is_refused_with_the_cure(tmp_path: Path) -> None:
    first = prepare(configs.resolve(raw_config(tmp_path / "data")), tmp_path / "cache", progress=print)
    raw = raw_config(tmp_path / "data")
    raw["data"] |= {"tokenizer": str(first.folder / "tokenizer.json"), "vocab_size": 512}
    with pytest.raises(InputError, match=r"--data\.vocab_size 300"):
        prepare(configs.resolve(raw), tmp_path / "cache", progress=print)


def test_a_category_that_fills_no_sequence_is_refused_before_training(tmp_path: Path) -> None:
    raw = raw_config(tmp_path / "data")
    raw["model"]["context"] = 900_000
    prepared = prepare(configs.resolve(raw), tmp_path / "cache", progress=print)
    point = DesignPoint(n_params=10_000, n_tokens=2_000_000, mix=Mix({"prose": 0.5, "code": 0.5}))
    with pytest.raises(InputError, match=r"lower model\.context"):
        prepared.check(point)


def test_only_rows_with_the_values_of_where_count(made: tuple[Config, Path, PreparedData]) -> None:
    config, cache, prepared = made
    raw = config.as_dict()
    raw["skills"]["sets"][0] |= {"where": {"completion": [f" A {i}" for i in range(7)]}}
    selected = configs.resolve(raw)
    assert len(prepare(selected, cache, progress=lambda _: None).sets["qa"]) == 7 < len(prepared.sets["qa"])
    assert selected.hash != config.hash
    refused = {
        "answer": r"qa: unknown column 'answer' in where\. Choose from prompt, completion",
        "prompt": "Check the values of where",
    }
    for column, message in refused.items():
        raw["skills"]["sets"][0]["where"] = {column: ["none like it"]}
        with pytest.raises(InputError, match=message):
            prepare(configs.resolve(raw), cache, progress=lambda _: None)
