"""Documents: every kind of source gives the same texts; what can't be read is named, with the cure."""

import json
from pathlib import Path

import huggingface_hub.constants
import pandas as pd
import pytest

from skillscale.config import SourceConfig
from skillscale.errors import InputError
from skillscale.lm.data.documents import fetch_hub_revision, find_local_files, hash_file, read_documents, read_rows

TEXTS = ["first text, é and 漢字", "second\n\ntext", "third"]


def write(folder: Path, kind: str) -> Path:
    file = folder / f"docs.{kind}"
    frame = pd.DataFrame({"text": TEXTS, "url": ["a", "b", "c"]})
    if kind == "parquet":
        frame.to_parquet(file)
    elif kind == "csv":
        frame.to_csv(file, index=False)
    else:
        file.write_text("".join(json.dumps({"text": t, "url": "x"}, ensure_ascii=False) + "\n" for t in TEXTS), "utf-8")
    return file


def hub_folder(folder: Path) -> Path:
    (folder / "data").mkdir(parents=True)
    for split, texts in {"train": TEXTS, "validation": TEXTS[:1]}.items():
        pd.DataFrame({"content": texts}).to_parquet(folder / "data" / f"{split}.parquet")
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n"
        "  - split: train\n    path: data/train.parquet\n"
        "  - split: validation\n    path: data/validation.parquet\n---\n"
    )
    return folder


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
def test_a_file_gives_its_texts(tmp_path: Path, kind: str) -> None:
    assert list(read_documents(SourceConfig(path=str(write(tmp_path, kind))))) == TEXTS


@pytest.mark.parametrize("streaming", [True, False])
def test_a_folder_reads_like_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streaming: bool) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")
    folder = str(hub_folder(tmp_path / "hub"))
    source = SourceConfig(path=folder, config="main", column="content", streaming=streaming)
    assert list(read_documents(source)) == TEXTS
    held = SourceConfig(path=folder, config="main", split="validation", column="content", streaming=streaming)
    assert list(read_documents(held)) == TEXTS[:1]


def test_text_files_are_cut_at_blank_lines_and_lose_nothing(tmp_path: Path) -> None:
    paragraph = "Many words in a line of text.\n" * 200 + "\n"
    file = tmp_path / "book.txt"
    file.write_text(paragraph * 10, encoding="utf-8")
    read = list(read_documents(SourceConfig(path=str(file))))
    assert len(read) > 2
    assert "".join(read) == paragraph * 10
    assert all(text.endswith("\n\n") for text in read)


@pytest.mark.parametrize("limit", [1, 10, 24, 25, 26, 30, 1000])
def test_max_bytes_cuts_to_the_byte_or_the_character_before(tmp_path: Path, limit: int) -> None:
    read = list(read_documents(SourceConfig(path=str(write(tmp_path, "parquet"))), max_bytes=limit))
    joined, whole = "".join(read), "".join(TEXTS)
    assert whole.startswith(joined)
    assert min(limit, len(whole.encode())) - 3 < len(joined.encode()) <= limit


@pytest.mark.parametrize("place", [0, 7, (1 << 20) - 1, 1 << 20, (1 << 20) + 5])
def test_a_byte_that_is_not_utf8_is_named_by_its_position(tmp_path: Path, place: int) -> None:
    file = tmp_path / "latin.txt"
    content = bytearray(b"a" * (place + 10))
    content[place] = 0xE9  # é in Latin-1
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"latin\.txt is not UTF-8: byte {place} is 0xe9. Convert it.*iconv"):
        list(read_documents(SourceConfig(path=str(file))))


def test_characters_across_the_chunk_border_are_utf8(tmp_path: Path) -> None:
    file = tmp_path / "fine.txt"
    file.write_bytes(b"a" * ((1 << 20) - 1) + "漢é".encode())
    assert len(hash_file(file)) == 32


def test_a_file_cut_within_a_character_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "cut.jsonl"
    file.write_bytes(b'{"text": "caf\xc3')
    with pytest.raises(InputError, match="not UTF-8: byte 13 is 0xc3"):
        hash_file(file)


def test_sources_that_hold_nothing_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(InputError, match=r"empty\.jsonl is empty. Fill it"):
        list(read_documents(SourceConfig(path=str(tmp_path / "empty.jsonl"))))
    (tmp_path / "blank.jsonl").write_text('{"text": ""}\n{"text": null}\n')
    with pytest.raises(InputError, match="has no text in column 'text'"):
        list(read_documents(SourceConfig(path=str(tmp_path / "blank.jsonl"))))
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="has no data files"):
        list(read_documents(SourceConfig(path=str(tmp_path / "folder"))))


@pytest.mark.parametrize("path", ["no/such/folder/x.parquet", "here.jsonl", "./nowhere", "a/b/c"])
def test_a_missing_file_is_not_taken_for_a_hub_id(path: str) -> None:
    with pytest.raises(InputError, match=r"does not exist.*Check the path"):
        find_local_files(path)


def test_an_unknown_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(InputError, match=r"of unknown kind. Give \.parquet, \.jsonl"):
        find_local_files(str(tmp_path / "a.docx"))


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
def test_a_missing_column_names_those_there_are(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InputError, match=r"no column 'content'\. Set its `column` to one of text, url"):
        list(read_documents(SourceConfig(path=str(write(tmp_path, kind)), column="content")))


def test_a_column_of_numbers_is_refused(tmp_path: Path) -> None:
    pd.DataFrame({"text": [1, 2]}).to_parquet(tmp_path / "n.parquet")
    with pytest.raises(InputError, match="has 1, which is no text"):
        list(read_documents(SourceConfig(path=str(tmp_path / "n.parquet"))))


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"split": "test"}, "train, *'?validation"), ({"config": "other"}, r"Available: \['main'\]")],
)
def test_a_wrong_split_or_config_names_those_there_are(tmp_path: Path, setting: dict[str, str], message: str) -> None:
    source = SourceConfig(path=str(hub_folder(tmp_path / "hub")), column="content", **setting)
    with pytest.raises(InputError, match=message.replace("train, *'?", "train', '")):
        list(read_documents(source))


@pytest.mark.parametrize(
    ("kind", "content"), [("jsonl", b'{"text": "a"}\n{"text":\n'), ("parquet", b"PAR1 and no more")]
)
def test_a_broken_file_is_named(tmp_path: Path, kind: str, content: bytes) -> None:
    file = tmp_path / f"broken.{kind}"
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"broken\.{kind} can't be read: .*Check the file"):
        list(read_documents(SourceConfig(path=str(file))))


def test_a_hub_out_of_reach_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "is_offline_mode", lambda: True)
    assert fetch_hub_revision("nobody/nothing") is None
    with pytest.raises(
        InputError, match=r"hub data set nobody/nothing can't be read: .*network.*Or give a local folder"
    ):
        list(read_documents(SourceConfig(path="nobody/nothing")))


def test_a_hub_that_refuses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("name or service not known\nmore")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", refuse)
    with pytest.raises(InputError, match=r"nobody/nothing can't be read: name or service not known\. Check the id"):
        fetch_hub_revision("nobody/nothing")


def test_embedded_names_lead_to_files_and_wrong_ones_are_named(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "sets").mkdir()
    pd.DataFrame({"text": ["train"], "source": ["s"]}).to_parquet(tmp_path / "code" / "train.parquet")
    pd.DataFrame({"text": ["held"], "source": ["s"]}).to_parquet(tmp_path / "code" / "validation.parquet")
    pd.DataFrame({"prompt": ["p"], "completion": ["c"]}).to_parquet(tmp_path / "sets" / "code_body.parquet")
    held = SourceConfig(path="embedded:code", split="validation")
    assert list(read_documents(SourceConfig(path="embedded:code"), embedded=tmp_path)) == ["train"]
    assert list(read_documents(held, embedded=tmp_path)) == ["held"]
    rows = list(read_rows("embedded:code_body", split="test", embedded=tmp_path))
    assert rows == [{"prompt": "p", "completion": "c"}]
    with pytest.raises(InputError, match=r"embedded:cod .* Choose code, or a set of code_body"):
        list(read_documents(SourceConfig(path="embedded:cod"), embedded=tmp_path))
    with pytest.raises(InputError, match="not built"):
        list(read_documents(SourceConfig(path="embedded:code")))
