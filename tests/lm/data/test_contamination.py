"""Shared 13-grams are found where planted, and only there."""

import pytest

from skillscale.lm.data.corpora.contamination import drop_overlapping, ngram_overlap
from skillscale.lm.data.corpora.items import Item

SENTENCE = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


def test_shared_grams_find_thirteen_words_in_a_row_and_no_fewer() -> None:
    words = SENTENCE.split()
    texts = [" ".join(words[:13]), " ".join(words[:12]), " ".join(words[::-1]), f"{SENTENCE} and more"]
    shares = ngram_overlap(texts, ["before. " + " ".join(words[:13]).upper() + ", after it came something else"])
    assert shares[0] == 1.0
    assert shares[1] == 0.0  # too short to tell
    assert shares[2] == 0.0
    assert shares[3] == pytest.approx(1 / 4)


def test_items_that_share_much_are_dropped_and_counted() -> None:
    fresh = " ".join(f"w{place}" for place in range(40))
    items = [Item(prompt="", completion=text) for text in (SENTENCE, fresh, f"{fresh} {SENTENCE}")]
    kept, counts = drop_overlapping(items, [SENTENCE])
    assert [item.completion for item in kept] == [fresh, f"{fresh} {SENTENCE}"]
    assert counts == {"checked": 3, "any": 2, "dropped": 1}
    assert drop_overlapping([], [SENTENCE]) == ([], {"checked": 0, "any": 0, "dropped": 0})
