"""Evaluation of skills: the NLL of completions given their prompts, with its standard error over items."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from skillscale.config import SkillsConfig
from skillscale.errors import DivergedError
from skillscale.lm.data.prepare import PreparedData
from skillscale.lm.evaluation.items import ItemSet, Windows, cut_windows
from skillscale.record import Measurement, average_measurements

Model = Callable[[Tensor], Tensor]
Floats = npt.NDArray[np.float64]
BATCH_TOKENS = 8_192  # larger batches are slower on a CPU, because of cache misses


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """Losses of every set (``val/CATEGORY`` for validation sets) and of the skills on both splits."""

    sets: Mapping[str, Measurement]
    skills: Mapping[str, Measurement]
    skills_held_out: Mapping[str, Measurement] = field(default_factory=dict)


def evaluate_skills(
    model: Model,
    prepared: PreparedData,
    skills: SkillsConfig,
    *,
    context: int,
    device: str | torch.device | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> EvaluationResult:
    """Evaluate every set once; a skill is the unweighted mean over its sets.

    Raises:
        DivergedError: a loss is not finite.
    """
    item_sets = {f"val/{name}": items for name, items in prepared.validation.items()} | dict(prepared.sets)
    sets = {
        name: evaluate_set(model, items, context=context, device=device, batch_tokens=batch_tokens)
        for name, items in item_sets.items()
    }
    return aggregate_skills(sets, skills)


def aggregate_skills(sets: Mapping[str, Measurement], skills: SkillsConfig) -> EvaluationResult:
    """Average each skill over its sets."""
    return EvaluationResult(
        sets=sets,
        skills={skill.name: average_measurements([sets[name] for name in skill.hypothesis]) for skill in skills.skills},
        skills_held_out={
            skill.name: average_measurements([sets[name] for name in skill.held_out])
            for skill in skills.skills
            if skill.held_out
        },
    )


def evaluate_set(
    model: Model,
    items: ItemSet,
    *,
    context: int,
    device: str | torch.device | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> Measurement:
    """Evaluate loss = total NLL / total target tokens of the items' completions, in nats per token.

    Args:
        model: causal model, ids (batch, time) -> logits (batch, time, vocabulary).
        items: items of the set.
        context: maximum positions that the model reads, tokens; ``cut_windows`` cuts longer items.
        device: device of the model. None: that of its parameters.
        batch_tokens: padded positions in one call of the model, about.

    Raises:
        DivergedError: the loss is not finite.
    """
    windows = cut_windows(items, context)
    device = _device_of(model) if device is None else torch.device(device)
    nll = np.zeros(len(items))
    parts = [
        (windows.items[rows], _nll(model, items, windows, rows=rows, device=device))
        for rows in _batches(windows, batch_tokens)
    ]
    for indices, values in parts:  # after the loop, because reading a value from a GPU waits for its queue
        np.add.at(nll, indices, values.cpu().numpy())
    return summarise(nll, items)


def summarise(nll: Floats, items: ItemSet) -> Measurement:
    """Estimate the ratio R = sum y / sum x over items, with NLL y (nats) and target tokens x, and again with bytes x.

    The variance is n / (n - 1) sum (y - R x)^2 / (sum x)^2, by the delta method (Cochran 1977, eq. 6.13).

    Raises:
        DivergedError: the NLL is not finite.
    """
    total, tokens = float(nll.sum()), items.completion_tokens
    if not math.isfinite(total):
        raise DivergedError(f"diverged: the loss on {items.name} is {total}. Lower train.lr_coefficient.")
    loss, sem = _ratio_and_sem(nll, tokens)
    nats_per_byte, byte_sem = _ratio_and_sem(nll, items.completion_bytes)
    return Measurement(
        loss=loss,
        sem=sem,
        bpb=nats_per_byte / math.log(2),
        bpb_sem=byte_sem / math.log(2),
        count=len(items),
        tokens=int(tokens.sum()),
    )


def _ratio_and_sem(nll: Floats, weights: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return total NLL over total weight, and its standard error over items."""
    n, total = len(nll), int(weights.sum())
    ratio = float(nll.sum()) / total
    spread = float(((nll - ratio * weights) ** 2).sum())
    return ratio, math.sqrt(n / (n - 1) * spread) / total if n > 1 else math.inf


def _device_of(model: Model) -> torch.device:
    parameters = model.parameters() if isinstance(model, torch.nn.Module) else iter(())
    return next((parameter.device for parameter in parameters), torch.device("cpu"))


def _batches(windows: Windows, batch_tokens: int) -> Iterator[npt.NDArray[np.intp]]:
    """Yield windows by length, longest first: padding is short, and a lack of memory shows in the first batch."""
    lengths = windows.ends - windows.starts
    order = np.argsort(-lengths, kind="stable")
    first = 0
    while first < len(order):
        count = max(1, batch_tokens // int(lengths[order[first]]))
        yield order[first : first + count]
        first += count


def _nll(model: Model, items: ItemSet, windows: Windows, *, rows: npt.NDArray[np.intp], device: torch.device) -> Tensor:
    """Return the total NLL of each window's targets, in nats: float64, (windows,)."""
    starts, targets, ends = (array[rows, None] for array in (windows.starts, windows.targets, windows.ends))
    position = starts + np.arange(int((ends - starts).max()))
    # Padding repeats the window's last token: earlier positions of a causal model don't see it, and it is no target
    ids = torch.from_numpy(items.ids[np.minimum(position, ends - 1)].astype(np.int64)).to(device)
    is_target = torch.from_numpy((position >= targets) & (position < ends))[:, 1:].to(device)
    with torch.no_grad():
        logits = model(ids[:, :-1])[is_target]
        losses = functional.cross_entropy(logits.float(), ids[:, 1:][is_target], reduction="none")
    window = is_target.nonzero()[:, 0]
    return torch.zeros(len(rows), dtype=torch.float64, device=device).index_add_(0, window, losses.double())
