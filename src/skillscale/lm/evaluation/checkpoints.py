"""The evaluation sets as texts, and models that bring tokenizers of their own measured on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from skillscale.config import Config, SkillsConfig
from skillscale.errors import DivergedError, InputError
from skillscale.lm.data.cache import Progress, explain_full_disk
from skillscale.lm.data.documents import read_rows
from skillscale.lm.data.fingerprints import find_origin
from skillscale.lm.data.prepare import embedded_corpora
from skillscale.lm.evaluation.hf_folder import CheckpointFolder
from skillscale.lm.evaluation.hf_model import CausalLM
from skillscale.lm.evaluation.items import ItemSet, fill_templates, tokenize_items
from skillscale.lm.evaluation.skills import EvaluationResult, aggregate_skills, evaluate_set
from skillscale.point import digest
from skillscale.record import Measurement

_LOGITS = 2**27  # in one call of a model: half a gigabyte of float32


@dataclass(frozen=True, kw_only=True)
class EvaluationTexts:
    """(prompt, completion) of every item by evaluation set; ``data_hash`` names all of them by content."""

    sets: Mapping[str, Sequence[tuple[str, str]]]
    data_hash: str


def read_texts(config: Config, cache: Path, *, progress: Progress) -> EvaluationTexts:
    """Read the evaluation sets of the skills; embedded corpora are made where they are needed.

    Raises:
        InputError: a source, column or template that can't be used.
        TrainingError: the disk is full.
    """
    with explain_full_disk(cache):
        paths = [one.path for one in config.skills.sets]
        embedded = embedded_corpora(paths, config.data, cache, progress=progress)
        found: dict[str, list[tuple[str, str]]] = {}
        for one in config.skills.sets:
            known = find_origin(one.path, one.split, embedded=embedded, cache=cache)
            rows = read_rows(one.path, config=one.config, split=one.split, embedded=embedded, revision=known.revision)
            found[one.name], dropped = fill_templates(rows, one)
            left_out = f"; {dropped} rows without a completion left out" if dropped else ""
            progress(f"{one.name}: {len(found[one.name])} items{left_out}")
    return EvaluationTexts(sets=found, data_hash=digest(found))


def measure(
    model: CausalLM,
    folder: CheckpointFolder,
    texts: EvaluationTexts,
    skills: SkillsConfig,
    *,
    context: int,
    batch_tokens: int | None = None,
) -> EvaluationResult:
    """Measure a checkpoint on every set.

    Args:
        model: the checkpoint, loaded.
        folder: where it is from.
        texts: what it is measured on.
        skills: made of the sets.
        context: the most tokens it reads at once.
        batch_tokens: padded positions in one call of the model, about; None: as many as make 2^27 logits.

    Raises:
        InputError: the tokenizer can't write the texts.
        DivergedError: a loss is no number.
    """
    size = batch_tokens or max(1, _LOGITS // folder.tokenizer.vocab_size)
    device = next(model.parameters()).device
    return aggregate_skills(
        {
            name: _loss(model, _items(name, pairs, folder), context=context, device=device, batch_tokens=size)
            for name, pairs in texts.sets.items()
        },
        skills,
    )


def _loss(model: CausalLM, items: ItemSet, *, context: int, device: torch.device, batch_tokens: int) -> Measurement:
    try:
        return evaluate_set(model, items, context=context, device=device, batch_tokens=batch_tokens)
    except DivergedError as error:
        # Nothing was trained here whose learning rate could be lowered
        raise DivergedError(f"the loss on {items.name} is no number; try another --dtype, or other weights") from error


def _items(name: str, pairs: Sequence[tuple[str, str]], folder: CheckpointFolder) -> ItemSet:
    """Items as the checkpoint's tokenizer writes them.

    Raises:
        InputError: a completion becomes no token, or unknown ones: its bytes would count, and cost nothing.
    """
    items = tokenize_items(name, pairs, folder.tokenizer)
    n_unknown = 0 if folder.unknown is None else int((_targets(items) == folder.unknown).sum())
    if n_unknown or items.completion_tokens.min() < 1:
        what = f"{n_unknown} of its target tokens are unknown ones" if n_unknown else "of a completion nothing is left"
        raise InputError(
            f"the tokenizer of {folder.name} can't write set {name}: {what}; leave out the set or the model"
        )
    return items


def _targets(items: ItemSet) -> npt.NDArray[np.int64]:
    """Ids of all target tokens."""
    lengths = np.diff(items.offsets)
    place = np.arange(len(items.ids)) - np.repeat(items.offsets[:-1], lengths)
    return items.ids[place >= np.repeat(items.prompt_lengths, lengths)].astype(np.int64)
