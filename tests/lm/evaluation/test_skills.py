"""Measurements against one item at a time, against a uniform model, and against simulation."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from skillscale.errors import TrainingError
from skillscale.lm.evaluation.items import ItemSet, cut_windows
from skillscale.lm.evaluation.skills import evaluate_set, summarise

VOCAB = 11


def item_set(lengths: list[tuple[int, int]], seed: int = 0) -> ItemSet:
    """Items of (prompt tokens, completion tokens) with random ids."""
    rng = np.random.default_rng(seed)
    totals = [prompt + completion for prompt, completion in lengths]
    return ItemSet(
        name="made",
        ids=rng.integers(0, VOCAB, sum(totals)).astype(np.uint16),
        offsets=np.concatenate([[0], np.cumsum(totals)]).astype(np.int64),
        prompt_lengths=np.array([prompt for prompt, _ in lengths], dtype=np.int64),
        completion_bytes=np.array([3 * completion for _, completion in lengths], dtype=np.int64),
    )


class Bigramish(torch.nn.Module):
    """A causal model that reads every earlier token: a running sum of embeddings."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(VOCAB, 6)
        self.head = torch.nn.Linear(6, VOCAB)
        self.calls = 0
        self.longest = 0

    def forward(self, ids: Tensor) -> Tensor:
        self.calls += 1
        self.longest = max(self.longest, ids.shape[1])
        return self.head(torch.cumsum(self.embedding(ids), dim=1))


def random_lengths(n: int, seed: int = 1) -> list[tuple[int, int]]:
    rng = np.random.default_rng(seed)
    return [(int(p), int(c)) for p, c in zip(rng.integers(1, 20, n), rng.integers(1, 15, n), strict=True)]


def one_by_one(model: torch.nn.Module, items: ItemSet, context: int) -> list[float]:
    """NLL of each item that fits: the whole item in one call, no padding, no batch."""
    losses = []
    for i in range(len(items)):
        ids = items.ids[items.offsets[i] : items.offsets[i + 1]].astype(np.int64)
        n_targets = int(items.completion_tokens[i])
        kept = torch.from_numpy(ids[-(context + 1) :])
        logs = torch.log_softmax(model(kept[None, :-1])[0], dim=-1)
        losses.append(-sum(float(logs[t - 1, kept[t]].detach()) for t in range(len(kept) - n_targets, len(kept))))
    return losses


@pytest.mark.parametrize("batch_tokens", [1, 50, 10_000])
@pytest.mark.parametrize("context", [16, 64])
def test_batches_measure_what_single_items_do(batch_tokens: int, context: int) -> None:
    model, items = Bigramish(), item_set(random_lengths(40))
    nll = np.array(one_by_one(model, items, context))
    measured = evaluate_set(model, items, context=context, batch_tokens=batch_tokens)
    tokens = items.completion_tokens
    assert measured.loss == pytest.approx(nll.sum() / tokens.sum(), rel=1e-6)
    assert measured.bpb == pytest.approx(nll.sum() / math.log(2) / (3 * tokens.sum()), rel=1e-6)
    assert (measured.count, measured.tokens) == (40, tokens.sum())
    assert measured.sem == pytest.approx(summarise(nll, items).sem, rel=1e-5)
    assert model.longest <= context


@pytest.mark.parametrize("context", [4, 7, 64])
def test_a_uniform_model_loses_log_vocabulary_exactly(context: int) -> None:
    items = item_set(random_lengths(30))
    measured = evaluate_set(lambda ids: torch.zeros(*ids.shape, VOCAB), items, context=context)
    assert measured.loss == pytest.approx(math.log(VOCAB), rel=1e-6)
    assert measured.sem == pytest.approx(0, abs=1e-6)
    assert measured.bpb == pytest.approx(math.log2(VOCAB) / 3, rel=1e-6)
    assert measured.tokens == items.completion_tokens.sum()


@pytest.mark.parametrize("context", [1, 3, 5, 8, 40])
def test_windows_cover_every_target_once_with_as_much_before_it_as_fits(context: int) -> None:
    items = item_set([(1, 1), (1, 30), (9, 4), (4, 9), (20, 5), (2, 6), (3, 16)])
    windows = cut_windows(items, context)
    covered = [t for a, b in zip(windows.targets, windows.ends, strict=True) for t in range(a, b)]
    expected = [
        t for i in range(len(items)) for t in range(items.offsets[i] + items.prompt_lengths[i], items.offsets[i + 1])
    ]
    assert covered == expected
    lengths = windows.ends - windows.starts
    assert (lengths <= context + 1).all()
    assert (windows.starts < windows.targets).all()
    begin = items.offsets[:-1][windows.items]
    assert ((windows.starts == begin) | (lengths == context + 1)).all()
    fits = (np.diff(items.offsets) <= context + 1)[windows.items]
    assert (windows.starts[fits] == begin[fits]).all()
    single = np.bincount(windows.items) == 1
    assert (single == (items.completion_tokens <= context)).all()


def test_the_standard_error_is_the_spread_over_samples_of_items() -> None:
    """Items of different lengths and difficulties: 2000 sets of 60 items from one population."""
    rng = np.random.default_rng(3)
    losses, sems = [], []
    for _ in range(2000):
        lengths = rng.integers(1, 12, 60)
        nll = lengths * (2 + 0.1 * lengths) + rng.normal(0, 1, 60) * lengths  # length and loss go together
        measured = summarise(nll, item_set([(1, int(n)) for n in lengths]))
        losses.append(measured.loss)
        sems.append(measured.sem)
    assert np.sqrt(np.mean(np.square(sems))) == pytest.approx(np.std(losses), rel=0.06)


def test_gradients_are_off_and_padding_is_short() -> None:
    items = item_set([(1, n) for n in range(1, 33)])
    seen: list[int] = []

    def model(ids: Tensor) -> Tensor:
        seen.append(ids.numel())
        assert not torch.is_grad_enabled()
        return torch.zeros(*ids.shape, VOCAB)

    evaluate_set(model, items, context=64, batch_tokens=64)
    assert sum(seen) < 1.5 * sum(range(1, 33))


def test_losses_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(TrainingError, match="diverged: the loss on made is nan"):
        evaluate_set(lambda ids: torch.full((*ids.shape, VOCAB), math.nan), item_set([(1, 2), (1, 2)]), context=8)
