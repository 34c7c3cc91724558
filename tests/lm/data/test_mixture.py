"""The stream: a pure function of (seed, index), exact in its shares, fair to every block."""

import time

import numpy as np
import pytest
from scipy import stats

from skillscale.errors import InputError
from skillscale.lm.data.mixture import MixStream, permutation
from skillscale.lm.data.token_arrays import TokenArray
from skillscale.point import Mix

CONTEXT = 8


def category(first: int, n_tokens: int) -> TokenArray:
    array = (first + np.arange(n_tokens)).astype(np.uint32)
    return TokenArray(array=array, n_documents=1, n_bytes=n_tokens)


CATEGORIES = {
    "knowledge": category(0, 8 * 50 + 1),
    "code": category(10_000, 8 * 30 + 5),
    "prose": category(20_000, 8 * 7 + 1),
}
MIX = Mix({"knowledge": 0.5, "code": 0.3, "prose": 0.2})


def stream(mix: Mix = MIX, seed: int = 0) -> MixStream:
    return MixStream(CATEGORIES, mix, seed=seed, context=CONTEXT)


def owners(batch: np.ndarray) -> np.ndarray:
    return batch[:, 0] // 10_000


def test_batches_are_blocks_of_one_category() -> None:
    batch = stream().batch(0, 300)
    assert batch.shape == (300, CONTEXT + 1)
    assert batch.dtype == np.int64
    assert (np.diff(batch, axis=1) == 1).all()
    assert (batch[:, 0] % 10_000 % CONTEXT == 0).all()


@pytest.mark.parametrize("sizes", [(1,) * 40, (7, 33), (40,), (3, 5, 32)])
def test_the_stream_is_one_whatever_the_batches(sizes: tuple[int, ...]) -> None:
    firsts = np.cumsum([0, *sizes[:-1]])
    parts = [stream().batch(int(first), size) for first, size in zip(firsts, sizes, strict=True)]
    assert np.array_equal(np.concatenate(parts), stream().batch(0, 40))


def test_any_index_can_be_read_first_and_across_plans() -> None:
    first, second = stream(), stream()
    late = first.batch(40_000, 64)
    assert np.array_equal(second.batch(0, 50_000)[40_000:40_064], late)
    assert np.array_equal(first.batch((1 << 14) - 5, 10), second.batch((1 << 14) - 5, 10))


def test_every_epoch_visits_each_block_once_in_a_new_order() -> None:
    rows = stream().batch(0, 1000)
    for number, (_, n_blocks) in enumerate([("knowledge", 50), ("code", 30), ("prose", 7)]):
        starts = rows[owners(rows) == number, 0] % 10_000 // CONTEXT
        epochs = [starts[i : i + n_blocks] for i in range(0, len(starts) - n_blocks + 1, n_blocks)]
        assert len(epochs) >= 9
        assert all(sorted(epoch) == list(range(n_blocks)) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) > len(epochs) // 2


def test_usage_counts_what_the_batches_hold() -> None:
    for count in (0, 1, 333, (1 << 14) + 77):
        rows = stream().batch(0, count)
        used = stream().usage(count)
        for number, (name, n_blocks) in enumerate([("knowledge", 50), ("code", 30), ("prose", 7)]):
            sequences = int((owners(rows) == number).sum())
            assert used[name].tokens == sequences * CONTEXT
            assert used[name].epochs == pytest.approx(sequences / n_blocks)


def test_shares_are_exact_in_expectation_over_seeds() -> None:
    """The first sequence alone, over seeds, is a draw from the mix: z-tests with three categories."""
    n = 1500
    first = np.concatenate([owners(stream(seed=seed).batch(0, 1)) for seed in range(300)])
    at_999 = np.array([stream(seed=seed)._categories(0, 1000)[999] for seed in range(n)])
    for number, share in enumerate((0.5, 0.3, 0.2)):
        for drawn in (first, at_999):
            hits = int((drawn == number).sum())
            assert stats.binomtest(hits, len(drawn), share).pvalue > 1e-3


@pytest.mark.parametrize("n", [10, 100, 1000, 10_000])
def test_realised_shares_are_far_closer_than_independent_draws(n: int) -> None:
    worst = 0.0
    for seed in range(20):
        used = stream(seed=seed).usage(n)
        for name, share in MIX.shares.items():
            worst = max(worst, abs(used[name].tokens / CONTEXT - share * n))
    assert worst < 2 + np.log(n)  # sequences; independent draws would give about 3 sqrt(n / 4)


def test_seeds_differ_in_order_and_categories() -> None:
    first, second = stream(seed=0).batch(0, 200), stream(seed=1).batch(0, 200)
    assert (first[:, 0] == second[:, 0]).mean() < 0.2
    assert (owners(first) == owners(second)).mean() < 0.9


def test_close_mixes_share_nearly_everything() -> None:
    near = Mix({"knowledge": 0.51, "code": 0.29, "prose": 0.2})
    first, second = stream().batch(0, 2000), stream(near).batch(0, 2000)
    assert 0.005 < (owners(first) != owners(second)).mean() < 0.015
    order = [rows[owners(rows) == 1, 0] for rows in (first, second)]
    shared = min(map(len, order))
    assert np.array_equal(order[0][:shared], order[1][:shared])


def test_a_category_of_no_share_is_never_read() -> None:
    only = stream(Mix({"code": 1.0}))
    assert set(owners(only.batch(0, 100))) == {1}
    assert set(only.usage(100)) == {"code"}


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 65, 1000, 4097])
def test_permutations_are_permutations(size: int) -> None:
    for key in (0, 1, 2**64 - 1):
        permuted = permutation(np.arange(size), size, np.full(size, key, dtype=np.uint64))
        assert sorted(permuted) == list(range(size))


def test_permutations_look_random() -> None:
    """Position and image are uncorrelated, and the image of 0 is uniform over keys."""
    size = 4000
    permuted = permutation(np.arange(size), size, np.full(size, 12345, dtype=np.uint64))
    assert abs(np.corrcoef(np.arange(size), permuted)[0, 1]) < 4 / np.sqrt(size)
    keys = np.random.default_rng(0).integers(0, 2**63, 20_000).astype(np.uint64)
    images = permutation(np.zeros(20_000, dtype=np.int64), 10, keys)
    assert stats.chisquare(np.bincount(images, minlength=10)).pvalue > 1e-3


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match=r"unknown category in the mix: 'poetry'\. Choose from knowledge, code, prose"):
        stream(Mix({"poetry": 1.0}))
    with pytest.raises(InputError, match="category prose has 57 tokens, but one sequence needs 101"):
        MixStream(CATEGORIES, MIX, seed=0, context=100)


def test_a_batch_costs_well_below_a_millisecond() -> None:
    array = np.zeros(2_000_000, dtype=np.uint16)
    large = {name: TokenArray(array=array, n_documents=1, n_bytes=1) for name in CATEGORIES}
    first = MixStream(large, MIX, seed=0, context=256)
    first.batch(0, 8)
    times = []
    for step in range(200):
        start = time.perf_counter()
        first.batch(8 * step, 8)
        times.append(time.perf_counter() - start)
    assert np.median(times) < 5e-4
