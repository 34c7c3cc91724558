"""Evaluate checkpoints that have other tokenizers: the evaluation sets as texts, and losses on them."""

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

_LOGITS = 2**27  # maximum in one call of a model: half a gigabyte of float32


@dataclass(frozen=True, kw_only=True)
class EvaluationTexts:
    """(prompt, completion) of every item by evaluation set; ``data_hash``: a hash of all texts."""

    sets: Mapping[str, Sequence[tuple[str, str]]]
    data_hash: str


def read_texts(config: Config, cache: Path, *, progress: Progress) -> EvaluationTexts:
    """Read the evaluation sets of the skills; embedded corpora are built if needed.

    Raises:
        InputError: a source, column or template is not usable.
        TrainingError: the disk is full.
    """
    with explain_full_disk(cache):
        paths = [settings.path for settings in config.skills.sets]
        embedded = embedded_corpora(paths, config.data, cache, progress=progress)
        sets: dict[str, list[tuple[str, str]]] = {}
        for settings in config.skills.sets:
            origin = find_origin(settings.path, settings.split, embedded=embedded, cache=cache)
            rows = read_rows(
                settings.path,
                config=settings.config,
                split=settings.split,
                embedded=embedded,
                revision=origin.revision,
            )
            sets[settings.name], dropped = fill_templates(rows, settings)
            skipped = f" ({dropped} rows without a completion skipped)" if dropped else ""
            progress(f"{settings.name}: {len(sets[settings.name])} items{skipped}")
    return EvaluationTexts(sets=sets, data_hash=digest(sets))


def measure(
    model: CausalLM,
    folder: CheckpointFolder,
    texts: EvaluationTexts,
    skills: SkillsConfig,
    *,
    context: int,
    batch_tokens: int | None = None,
) -> EvaluationResult:
    """Evaluate a checkpoint on every set.

    Args:
        model: loaded checkpoint.
        folder: folder of the checkpoint.
        texts: items of every set.
        skills: skills and their sets.
        context: maximum positions that the model reads at once, tokens.
        batch_tokens: padded positions in one call of the model, about. None: as many as give 2^27 logits.

    Raises:
        InputError: the tokenizer can't write the texts.
        DivergedError: a loss is not finite.
    """
    size = batch_tokens or max(1, _LOGITS // folder.tokenizer.vocab_size)
    device = next(model.parameters()).device
    return aggregate_skills(
        {
            name: _evaluate(model, _tokenize(name, pairs, folder), context=context, device=device, batch_tokens=size)
            for name, pairs in texts.sets.items()
        },
        skills,
    )


def _evaluate(model: CausalLM, items: ItemSet, *, context: int, device: torch.device, batch_tokens: int) -> Measurement:
    try:
        return evaluate_set(model, items, context=context, device=device, batch_tokens=batch_tokens)
    except DivergedError as error:
        # The first error's cure, a lower learning rate, does not apply to a finished checkpoint
        raise DivergedError(
            f"the loss on {items.name} is not finite. Try another --dtype, or other weights."
        ) from error


def _tokenize(name: str, pairs: Sequence[tuple[str, str]], folder: CheckpointFolder) -> ItemSet:
    """Write items with the checkpoint's tokenizer.

    Raises:
        InputError: a completion has no tokens or unknown ones: its bytes would count without a loss.
    """
    items = tokenize_items(name, pairs, folder.tokenizer)
    n_unknown = 0 if folder.unknown is None else int((_target_ids(items) == folder.unknown).sum())
    if n_unknown or items.completion_tokens.min() < 1:
        reason = f"{n_unknown} of its target tokens are unknown" if n_unknown else "a completion has no tokens"
        raise InputError(
            f"the tokenizer of {folder.name} can't write set {name}: {reason}. Remove the set or the checkpoint."
        )
    return items


def _target_ids(items: ItemSet) -> npt.NDArray[np.int64]:
    """Return the ids of all target tokens."""
    lengths = np.diff(items.offsets)
    position = np.arange(len(items.ids)) - np.repeat(items.offsets[:-1], lengths)
    return items.ids[position >= np.repeat(items.prompt_lengths, lengths)].astype(np.int64)
