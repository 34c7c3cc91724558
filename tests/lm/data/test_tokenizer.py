"""The tokenizer: lossless, digits apart, end-of-text = 0, the same twice."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer as Model
from tokenizers import models, normalizers, pre_tokenizers

from skillscale.errors import InputError
from skillscale.lm.data.tokenizer import END_OF_TEXT, Tokenizer, load, train

WORDS = ("the value", "of an item", "is counted", "return", "definition", "knowledge", "prose", "reasoning", "scale")
CORPUS = [
    " ".join(WORDS[i % 7 : i % 7 + i % 9])
    + f"\nThe value of item {i} is {i * 37 % 1001}; def f_{i}(x): return x + {i}\n"
    for i in range(400)
]
TRICKY = ["", " ", "a\n\n  b\t", "2026 and 3.14", "é 漢字 😀", END_OF_TEXT, "ende<|endoftext|>text", "\r\n \x00"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train(CORPUS, 320)


@pytest.mark.parametrize("text", TRICKY)
def test_decoding_gives_the_text_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.end_of_text not in tokenizer.encode(text)


def test_vocabulary_and_end_of_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size == 320
    assert tokenizer.end_of_text == 0


def test_every_digit_is_one_token(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("1234567890")
    assert [tokenizer.decode([number]) for number in ids] == list("1234567890")


def test_words_of_the_corpus_are_merged(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("The value of item")) <= 6


def test_a_batch_encodes_like_its_texts(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode_batch([*TRICKY, *CORPUS]) == [tokenizer.encode(text) for text in [*TRICKY, *CORPUS]]


def test_training_twice_gives_one_hash_and_other_text_another(tokenizer: Tokenizer) -> None:
    assert train(CORPUS, 320).hash == tokenizer.hash
    assert train(CORPUS[:100], 320).hash != tokenizer.hash
    assert train(CORPUS, 321).hash != tokenizer.hash


def test_a_saved_tokenizer_is_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(tokenizer.text, encoding="utf-8")
    again = load(tmp_path / "tokenizer.json")
    assert again.hash == tokenizer.hash
    assert again.encode(CORPUS[7]) == tokenizer.encode(CORPUS[7])


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        ("The value", " of item"),
        ("item 1", "2"),
        ("é", "漢"),
        ("", "The"),
        ("def f(x):\n", "    return x"),
        ("The val", "ue of"),
    ],
)
def test_a_pair_is_divided_where_the_completion_begins(tokenizer: Tokenizer, prompt: str, completion: str) -> None:
    ids, n_prompt = tokenizer.encode_pair(prompt, completion)
    assert ids == tokenizer.encode(prompt + completion)
    before, after = tokenizer.decode(ids[:n_prompt]), tokenizer.decode(ids[n_prompt:])
    assert prompt.startswith(before)  # a token across the border counts as completion
    assert after.endswith(completion)
    assert len(after) - len(completion) < 6


def test_too_little_text_for_the_vocabulary_says_how_much_it_gives() -> None:
    with pytest.raises(InputError, match=r"vocabulary of 2\d\d, but data.vocab_size is 5000\. Lower it to 2\d\d"):
        train(["few words"], 5000)


def test_bad_tokenizer_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json can't be read"):
        load(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(InputError, match=r"bad\.json is no tokenizer\.json"):
        load(tmp_path / "bad.json")
    Model(models.BPE()).save(str(tmp_path / "endless.json"))
    with pytest.raises(InputError, match=r"endless\.json has no end-of-text token\. Add one of <\|endoftext\|>"):
        load(tmp_path / "endless.json")


def test_a_foreign_tokenizer_keeps_its_end_of_text(tmp_path: Path) -> None:
    model = Model(models.WordLevel({"hello": 0, "world": 1, "</s>": 2, "<unk>": 5}, unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    model.normalizer = normalizers.Lowercase()
    model.enable_truncation(1)
    model.save(str(tmp_path / "foreign.json"))
    foreign = load(tmp_path / "foreign.json")
    assert (foreign.end_of_text, foreign.vocab_size) == (2, 6)
    assert foreign.encode_pair("Hello", " World world") == ([0, 1, 1], 1)
