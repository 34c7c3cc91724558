"""The whole build: what is written, once or not at all, and the same bytes everywhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from test_corpora_code import SOURCE
from test_corpora_knowledge import LABELS, entities
from test_corpora_prose import speeches

from skillscale.errors import InputError
from skillscale.lm.data import corpora
from skillscale.lm.data.corpora import code, knowledge, prose, reasoning
from skillscale.lm.data.corpora.items import Corpus, Document
from skillscale.point import digest


def test_items_begin_and_end_where_tokens_do() -> None:
    parts = list(tiny_corpora().values())
    for item in [item for part in parts for items in part.sets.values() for item in items]:
        assert item.completion.endswith("\n")
        assert item.completion[0] in " \n" if item.prompt else not item.completion[0].isspace()
        assert item.prompt == item.prompt.rstrip()
    assert all(document.text.endswith("\n") for part in parts for document in part.train)


def tiny_corpora() -> dict[str, Corpus]:
    return {
        "knowledge": knowledge.from_entities(
            entities(), [], labels=LABELS, zipf_exponent=0.75, stream_bytes=20_000, validation_bytes=2_000
        ),
        "code": Corpus(
            train=[Document(SOURCE, "t")],
            validation=[Document(SOURCE, "t")],
            sets={"code_body": code.make_body_items({"a/b.py": SOURCE})},
        ),
        "prose": prose.split_by_file(speeches(), label="t"),
        "reasoning": reasoning.from_counts(200, validation=20, items=60),
    }


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Corpus]:
    """``build`` with small corpora and no archives."""
    made = tiny_corpora()
    monkeypatch.setattr(corpora, "fetch_all", lambda *_, **__: {})
    for name, room in (("knowledge", knowledge), ("code", code), ("prose", prose), ("reasoning", reasoning)):
        monkeypatch.setattr(room, "build", lambda *_, name=name, **__: made[name])
    return made


def test_build_writes_the_folder_once(stubbed: dict[str, Corpus], tmp_path: Path) -> None:
    messages: list[str] = []
    folder = corpora.build(tmp_path, preset="tiny", zipf_exponent=0.75, progress=messages.append)
    for name, made in stubbed.items():
        table = pq.read_table(folder / name / "train.parquet").to_pylist()
        assert [(row["text"], row["source"]) for row in table] == [tuple(document) for document in made.train]
        assert pq.read_table(folder / name / "validation.parquet").num_rows == len(made.validation)
        for set_name, items in made.sets.items():
            rows = pq.read_table(folder / "sets" / f"{set_name}.parquet").to_pylist()
            assert [(row["prompt"], row["completion"]) for row in rows] == [
                (item.prompt, item.completion) for item in items
            ]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["facts"]["count"] == stubbed["knowledge"].facts["count"]
    assert manifest["sets"]["reasoning_qa"]["contamination"] == stubbed["reasoning"].dropped["reasoning_qa"]
    assert {source["name"] for source in manifest["sources"]} == set(corpora.required_archives("tiny"))
    n_messages = len(messages)
    assert corpora.build(tmp_path, preset="tiny", zipf_exponent=0.75, progress=messages.append) == folder
    assert len(messages) == n_messages, "a second call builds nothing"
    assert corpora.build(tmp_path, preset="tiny", zipf_exponent=0.5, progress=messages.append) != folder


def test_a_build_that_fails_leaves_nothing(
    stubbed: dict[str, Corpus], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stubbed

    def broken(**_: object) -> Corpus:
        raise RuntimeError("planted")

    monkeypatch.setattr(reasoning, "build", broken)
    with pytest.raises(RuntimeError, match="planted"):
        corpora.build(tmp_path, preset="tiny", zipf_exponent=0.75, progress=lambda _: None)
    assert [path.suffix for path in (tmp_path / "corpora").iterdir()] == [".lock"]


def test_an_unknown_preset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'huge' does not exist. Choose tiny, small, medium, full\."):
        corpora.build(tmp_path, preset="huge", zipf_exponent=0.75, progress=lambda _: None)


PRINT_DIGESTS = """
from test_corpora import fingerprint
print(fingerprint())
"""


def fingerprint() -> str:
    """A name for everything the builders make of small inputs."""
    return digest(
        [
            [
                [
                    corpus.train,
                    corpus.validation,
                    {name: [[item.text, dict(item.meta)] for item in items] for name, items in corpus.sets.items()},
                ]
            ]
            for corpus in tiny_corpora().values()
        ]
    )


RECIPE_1 = "9187c1e3623d8649"


def test_the_recipe_has_a_number() -> None:
    assert corpora.RECIPE == 1
    assert fingerprint() == RECIPE_1, (
        "the builders make other text than recipe 1 did: raise skillscale.lm.data.corpora.RECIPE, so that caches and "
        "data hashes change with it, and write the new fingerprint here"
    )


def test_bytes_do_not_depend_on_the_hash_seed(root: Path) -> None:
    folders = os.pathsep.join([str(root / "src"), str(Path(__file__).parent)])
    env = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": folders}
    done = subprocess.run([sys.executable, "-c", PRINT_DIGESTS], env=env, cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == fingerprint(), done.stderr


@pytest.mark.slow
def test_the_default_is_the_same_everywhere(tmp_path: Path) -> None:
    folder = corpora.build(tmp_path, preset="tiny", zipf_exponent=0.75, progress=lambda _: None)
    manifest = json.loads((folder / "manifest.json").read_text())
    megabytes = {name: counts["train"]["bytes"] / 1e6 for name, counts in manifest["categories"].items()}
    assert 10 < megabytes["knowledge"] < 13
    assert 12 < megabytes["code"] < 16
    assert 6 < megabytes["prose"] < 9
    assert 6 < megabytes["reasoning"] < 9
    assert set(manifest["sets"]) == set(corpora.SETS)
    for name, counts in manifest["sets"].items():
        assert counts["items"] >= 150, name
        rows = pq.read_table(folder / "sets" / f"{name}.parquet").to_pylist()
        largest = max(len((row["prompt"] + row["completion"]).encode()) for row in rows)
        assert largest <= 480 or name == "humaneval", name
    hashes = {name: counts["train"]["sha256"][:12] for name, counts in manifest["categories"].items()}
    assert hashes == TINY_HASHES


TINY_HASHES = {
    "knowledge": "f7284e3fd532",
    "code": "1591a4106775",
    "prose": "d232e66259b6",
    "reasoning": "fb5d4a2d83e7",
}
