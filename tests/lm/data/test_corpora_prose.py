"""Speeches are split by file."""

from skillscale.lm.data.corpora import prose
from skillscale.lm.data.corpora.items import clean, join_chunks, take_in_turn


def speeches() -> dict[str, str]:
    return {
        f"speech{n}": clean(
            " ".join(f"In year {n}, word{n}x{place} and word{n}y{place} met here." for place in range(60))
        )
        for n in range(40)
    }


def test_prose_is_split_by_file() -> None:
    files = speeches()
    corpus = prose.split_by_file(files, label="test")
    train, validation = ({document.text for document in part} for part in (corpus.train, corpus.validation))
    held_out = {str(item.meta["file"]) for item in corpus.sets["prose_heldout"]}
    assert (len(train), len(validation), len(held_out)) == (40 - 16 - 8, 8, 16)
    assert not train & validation
    assert not {files[name] for name in held_out} & (train | validation)
    for item in corpus.sets["prose_heldout"]:
        assert item.completion.strip() in files[str(item.meta["file"])]
        assert 300 <= len(item.completion) <= 451


def test_a_speech_given_twice_is_not_measured() -> None:
    files = speeches()
    held = str(prose.split_by_file(files, label="test").sets["prose_heldout"][0].meta["file"])
    trained = next(
        name
        for name, text in files.items()
        if text in {document.text for document in prose.split_by_file(files, label="").train}
    )
    corpus = prose.split_by_file({**files, trained: files[held]}, label="test")
    assert held not in {item.meta["file"] for item in corpus.sets["prose_heldout"]}
    assert corpus.dropped["prose_heldout"]["dropped"] > 0


def test_pieces_lose_nothing() -> None:
    text = "A first. A second; a third?\n\nA new paragraph: it ends\n"
    assert "".join(prose.split_sentences(text)) == text
    assert list(join_chunks(["aaaa", "bbbb", "c" * 20, "dddd", "e"], low=5, high=9)) == ["aaaabbbb", "dddde"]
    assert [group for group, _ in take_in_turn({"a": ["1", "2", "3"], "b": ["4"]}, 3, "s")].count("b") == 1
