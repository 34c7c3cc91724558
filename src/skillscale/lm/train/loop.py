"""Training of one point on Lightning Fabric: our loop, its device, precision and checkpoint files."""

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from skillscale.config import TrainConfig
from skillscale.errors import DamagedCheckpointError, DivergedError, SkillscaleError, TrainingError
from skillscale.lm.model.transformer import Transformer
from skillscale.lm.train import devices
from skillscale.lm.train.cooldown_branches import StablePhaseLease, cooldown_branch
from skillscale.lm.train.process_group import ALONE, ControlMessage, ProcessGroup
from skillscale.point import DesignPoint, digest
from skillscale.record import ModelSize, OptimizerPlan

CURVE_POINTS = 100
# A batch goes through in parts of this many tokens: on a CPU the activations of 2048 stay in reach of the cache
# (8192 at once took a third longer at 2e4 parameters), on a GPU the logits must fit beside the model
_PART_TOKENS = {"cpu": 2048, "cuda": 32_768}
# How often the loop looks at the loss, which makes a GPU wait, and tells of its progress
_LOOK_EVERY_S = 1.0
_TIMED_S = 0.3
_TIMED_STEPS = 20


class BatchStream(Protocol):
    """Training sequences by index: the same whatever the batch."""

    def batch(self, first: int, count: int) -> npt.NDArray[np.int64]:
        """Sequences ``first`` to ``first + count - 1``: (count, context + 1) token ids."""


class TrainingInterrupted(SkillscaleError):  # noqa: N818  an outcome that was asked for, not an error
    """Training was told to stop; the checkpoint, where one was asked for, holds what was done."""


@dataclass(frozen=True, kw_only=True)
class TrainProgress:
    """Where a run is: steps, tokens seen, loss of the last batch in nats per token, and the curve so far."""

    step: int
    steps: int
    tokens: int
    loss: float
    curve: Sequence[tuple[int, float]] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A trained model. ``curve``: (tokens seen, mean loss since the last row); ``seconds``: of all sittings.

    ``n_taken``: tokens of ``n_tokens`` that another run went through, whose state this one took.
    """

    model: Transformer = field(repr=False)
    curve: tuple[tuple[int, float], ...] = field(repr=False)
    n_tokens: int = field(metadata={"unit": "tokens"})
    seconds: float = field(metadata={"unit": "s"})
    n_taken: int = field(default=0, metadata={"unit": "tokens"})

    @property
    def tokens_per_s(self) -> float:
        """Mean rate over what this run went through itself."""
        return (self.n_tokens - self.n_taken) / self.seconds


@dataclass(kw_only=True)
class _Ledger:
    """What a run has done: all of its state but weights and moments. ``losses``: not yet in the curve.

    ``taken``: steps that another run made, whose state this one took.
    """

    step: int = 0
    taken: int = 0
    seconds: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)


def train(
    point: DesignPoint,
    *,
    size: ModelSize,
    optimizer_plan: OptimizerPlan,
    stream: BatchStream,
    config: TrainConfig,
    checkpoint: Path | None = None,
    turn: StablePhaseLease | None = None,
    team: ProcessGroup = ALONE,
    on_progress: Callable[[TrainProgress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainedModel:
    """Train the model of a point on the first sequences of its stream.

    A checkpoint that is there is resumed, and ends in the same weights as a run that was never stopped; so does what
    there is of a trunk, in its ``turn``, where ``optimizer_plan`` says that the run has one. With a ``team`` all of its
    processes call this; checkpoint, turn and what comes after are the first one's, and so is the model that is whole.

    Raises:
        InputError: the device is not there, or can't do what is asked.
        DivergedError: the loss is not finite, or above ``config.diverged_above``.
        TrainingError: the checkpoint can't be written or used.
        Stopped: ``should_stop`` said so.
    """
    with team.together():
        loop = _Loop(size, optimizer_plan, config, seed=point.seed, n_tokens=point.n_tokens, team=team)
        return _trained(
            loop, point, size, stream, checkpoint=checkpoint, turn=turn, on_progress=on_progress,
            should_stop=should_stop,
        )  # fmt: skip


def _trained(
    loop: "_Loop", point: DesignPoint, size: ModelSize, stream: BatchStream, *, checkpoint: Path | None, turn: StablePhaseLease | None,
    on_progress: Callable[[TrainProgress], None], should_stop: Callable[[], bool],
) -> TrainedModel:  # fmt: skip
    optimizer_plan, config, team = loop.optimizer_plan, loop.config, loop.team
    identity = digest([point.as_dict(), asdict(size), _plain(optimizer_plan), config.arithmetic])
    of_trunk = digest([point.stable_phase, asdict(size), config.arithmetic])
    own = checkpoint if checkpoint and checkpoint.exists() else None
    state: dict[str, Any] | None
    if own:
        state = loop.read(own, identity)
    else:
        state = turn.begin(loop.fork, partial(loop.read, identity=of_trunk), should_stop) if turn else None
    state = team.shared(state)
    ledger = loop.resume(state) if state else _Ledger()
    if not own:  # what is there is a trunk's, and was another run's work
        ledger = replace(ledger, taken=ledger.step, seconds=0.0)
    elif turn and ledger.step < loop.fork:
        turn.resume()
    saved_at = looked_at = began = time.monotonic()
    before = ledger.seconds
    points = loop.rows
    while ledger.step < optimizer_plan.steps:
        if turn and ledger.step == loop.fork:
            turn.end(partial(loop.save, ledger=ledger, identity=of_trunk))
        if should_stop():
            ledger.seconds = before + time.monotonic() - began
            if checkpoint:
                loop.save(checkpoint, ledger, identity)
            raise TrainingInterrupted(
                f"stopped after {ledger.step} of {optimizer_plan.steps} steps; start it again to go on"
            )
        team.go_on(partial(loop.state, ledger))
        ledger.losses.append(loop.step(stream.batch(*loop.share(ledger.step)), ledger.step))
        ledger.step += 1
        now = time.monotonic()
        looks = team.is_first and now - looked_at > _LOOK_EVERY_S
        if ledger.step in points or looks:
            loss = loop.checked(ledger.losses[-1], ledger.step)
            if ledger.step in points:
                mean = loop.checked(torch.stack(ledger.losses).mean(), ledger.step)
                ledger.curve.append((loop.tokens(ledger.step), mean))
                ledger.losses.clear()
            if looks:
                looked_at = now
                on_progress(_progress(loop, ledger, loss))
        if checkpoint and now - saved_at > config.checkpoint_every_s and ledger.step < optimizer_plan.steps:
            ledger.seconds = before + now - began
            loop.save(checkpoint, ledger, identity)
            saved_at = time.monotonic()
    model = loop.whole_model()
    loop.check(model)
    on_progress(_progress(loop, ledger, ledger.curve[-1][1]))
    return TrainedModel(
        model=model,
        curve=tuple(ledger.curve),
        n_tokens=loop.tokens(ledger.step),
        seconds=before + time.monotonic() - began,
        n_taken=loop.tokens(ledger.taken),
    )


def _plain(optimizer_plan: OptimizerPlan) -> dict[str, Any]:
    """What names a run's checkpoint, with the keys of version 0.1."""
    values = asdict(optimizer_plan)
    stable_phase, decay_steps = values.pop("stable_phase"), values.pop("decay_steps")
    return {**values, "decay_steps": decay_steps, "trunk": stable_phase} if stable_phase else values


def step_seconds(size: ModelSize, *, batch_sequences: int, config: TrainConfig) -> float:
    """Least seconds of a step of this shape on one device here, on random tokens: other load only adds."""
    optimizer_plan = OptimizerPlan(lr=1e-6, batch_sequences=batch_sequences, steps=_TIMED_STEPS, warmup_steps=0)
    alone = replace(config, devices=1, nodes=1, strategy="auto")
    loop = _Loop(size, optimizer_plan, alone, seed=0)
    ids = np.random.default_rng(0).integers(0, size.vocab_size, (batch_sequences, size.context + 1))
    seconds: list[float] = []
    for step in range(_TIMED_STEPS):
        began = time.perf_counter()
        loop.step(ids, step).item()
        seconds.append(time.perf_counter() - began)
        if step and math.fsum(seconds) > _TIMED_S:
            break
    return min(seconds[1:])


def curve_steps(steps: int) -> frozenset[int]:
    """The steps after which the curve gets a row: about evenly spaced, the last among them."""
    rows = min(CURVE_POINTS, steps)
    return frozenset(round(steps * (row + 1) / rows) for row in range(rows))


def learning_rate_at(step: int, optimizer_plan: OptimizerPlan, *, decay_to: float) -> float:
    """Rate of a step, from 0: linear up to the peak, then linear down to ``decay_to`` of it after the last step.

    A linear decay to near zero beats the cosine at equal tokens (Bergsma et al. 2025, arXiv 2502.15938), and a decay
    over the run's own D is what makes losses at different D comparable (Hoffmann et al. 2022, arXiv 2203.15556).
    """
    if step < optimizer_plan.warmup_steps:
        return optimizer_plan.lr * (step + 1) / (optimizer_plan.warmup_steps + 1)
    left = (optimizer_plan.steps - step) / (optimizer_plan.steps - optimizer_plan.warmup_steps)
    return optimizer_plan.lr * (decay_to + (1 - decay_to) * left)


class _Loop:
    """A model, its optimiser, and the devices and precision that Fabric gives them."""

    def __init__(
        self,
        size: ModelSize,
        optimizer_plan: OptimizerPlan,
        config: TrainConfig,
        *,
        seed: int,
        n_tokens: int = 0,
        team: ProcessGroup = ALONE,
    ) -> None:
        self.optimizer_plan, self.config, self.context, self.team = optimizer_plan, config, size.context, team
        self.branch = None
        if optimizer_plan.stable_phase:
            self.branch = cooldown_branch(n_tokens, size.n_params_nonembed, config, context=size.context)
        self.fabric = devices.fabric_for(config, team)
        device = self.fabric.device.type
        torch.set_num_threads(config.threads)
        self.model = Transformer(size, seed=seed, checkpointed=config.checkpoint_activations)
        self.wrapped = self.fabric.setup_module(devices.compile_model(self.model, config, device))
        self.adamw = torch.optim.AdamW(
            weight_groups(self.model, config.weight_decay),
            lr=optimizer_plan.lr,
            betas=(config.beta1, config.beta2),
            fused=True,
        )
        self.optimizer: Any = self.fabric.setup_optimizers(self.adamw)
        self.part = max(1, _PART_TOKENS[device] // size.context)
        self.keeps_gradients = devices.has_graphs(config, device)
        if self.keeps_gradients:  # else the first ones lie in memory that the next replay writes anew
            for weight in self.model.parameters():
                weight.grad = torch.zeros_like(weight)

    @property
    def fork(self) -> int:
        """Steps on the trunk; -1 where there is none."""
        return self.branch.fork if self.branch else -1

    @property
    def rows(self) -> frozenset[int]:
        """The steps after which the curve gets a row."""
        return self.branch.rows if self.branch else curve_steps(self.optimizer_plan.steps)

    def first(self, step: int) -> int:
        """Sequences seen before a step, from 0."""
        return int(self.branch.firsts[step]) if self.branch else step * self.optimizer_plan.batch_sequences

    def share(self, step: int) -> tuple[int, int]:
        """First sequence and number of this process's share of a batch."""
        first = self.first(step)
        return self.team.share(first, self.first(step + 1) - first)

    def rate(self, step: int) -> float:
        """Learning rate of a step, from 0."""
        if self.branch:
            return self.branch.rate(step)
        return learning_rate_at(step, self.optimizer_plan, decay_to=self.config.decay_to)

    def tokens(self, step: int) -> int:
        """Tokens seen after a step."""
        return self.first(step) * self.context

    def step(self, ids: npt.NDArray[np.int64], step: int) -> Tensor:
        """One update on this process's sequences (B, T + 1); the loss of all before it, left on the device."""
        rate = self.rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        parts = torch.split(torch.from_numpy(ids), self.part)
        losses = [
            self._part(part, len(part) / len(ids), is_last=number == len(parts))
            for number, part in enumerate(parts, start=1)
        ]
        self.fabric.clip_gradients(
            self.wrapped, self.optimizer, max_norm=self.config.clip_norm, error_if_nonfinite=False
        )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=not self.keeps_gradients)
        loss = torch.stack(losses).sum()
        return loss if self.team.size == 1 else self._mean(loss)

    def _mean(self, loss: Tensor) -> Tensor:
        """Over processes; their shares are of one size."""
        return cast(Tensor, self.fabric.all_reduce(loss, reduce_op="mean"))

    def _part(self, ids: Tensor, share: float, *, is_last: bool) -> Tensor:
        ids = self.fabric.to_device(ids)
        # Whole models add up the gradients of parts before they exchange them; sharded ones have no room for that
        waits = self.team.size > 1 and not is_last and not devices.is_sharded(self.config)
        with self.fabric.no_backward_sync(self.wrapped) if waits else nullcontext():
            loss: Tensor = self.wrapped(ids[:, :-1], ids[:, 1:]) * share
            self.fabric.backward(loss)
        return loss.detach()

    def checked(self, loss: Tensor, step: int) -> float:
        """A loss as a number.

        Raises:
            DivergedError: it is not finite, or above ``diverged_above``.
        """
        value = float(loss)
        if not value <= self.config.diverged_above:
            raise self._diverged(f"loss {value:.4g} at step {step}")
        return value

    def whole_model(self) -> Transformer:
        """The model as the first process measures it."""
        if not devices.is_sharded(self.config):
            return self.model
        return devices.gather_model(self.model, self.fabric.device, is_first=self.team.is_first)

    def check(self, model: nn.Module) -> None:
        """Refuse weights that the last update broke: no loss has seen them yet.

        Raises:
            DivergedError: a weight is not finite.
        """
        for name, weight in model.named_parameters() if self.team.is_first else ():
            if not torch.isfinite(weight).all():
                raise self._diverged(f"{name} is not finite after step {self.optimizer_plan.steps}")

    def _diverged(self, what: str) -> DivergedError:
        return DivergedError(
            f"diverged: {what} of {self.optimizer_plan.steps} with a peak learning rate of "
            f"{self.optimizer_plan.lr:.3g}; "
            "lower train.lr_coefficient"
        )

    def save(self, path: Path, ledger: _Ledger, identity: str) -> None:
        """Write a checkpoint beside the old one, then put it in its place.

        Raises:
            TrainingError: it can't be written.
        """
        self.team.said(ControlMessage.SAVE)
        state = {"identity": identity, **self.state(ledger)}
        partial = path.with_name(f"{path.name}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except (OSError, RuntimeError) as error:  # torch turns a full disk into a RuntimeError
            partial.unlink(missing_ok=True)
            raise TrainingError(
                f"checkpoint {path} can't be written: {error}; free some space or choose another cache folder"
            ) from error

    def state(self, ledger: _Ledger) -> dict[str, Any]:
        """What a checkpoint holds, of whatever devices; with a sharded model all processes help."""
        if devices.is_sharded(self.config):
            weights, moments = devices.gather_state(self.model, self.adamw)
        else:
            weights, moments = self.model.state_dict(), self.adamw.state_dict()
        done = {**asdict(ledger), "losses": [float(loss) for loss in ledger.losses]}
        return {"model": weights, "optimizer": moments, "ledger": done}

    def read(self, path: Path, identity: str) -> dict[str, Any]:
        """The state of a checkpoint.

        Raises:
            TrainingError: it can't be read, or is of another run.
        """
        try:
            state: dict[str, Any] = torch.load(path, map_location=self.fabric.device, weights_only=True)
        except Exception as error:  # the unpickler raises what it likes on a damaged file
            raise DamagedCheckpointError(
                f"checkpoint {path} can't be read: {error}; delete it to train anew"
            ) from error
        if state.get("identity") != identity:
            raise TrainingError(
                f"checkpoint {path} is of a run with other settings than this one; delete it to train anew"
            )
        return state

    def resume(self, state: Mapping[str, Any]) -> _Ledger:
        """Take weights and moments from a checkpoint, and return what the run had done."""
        if devices.is_sharded(self.config):
            devices.load_gathered_state(self.model, self.adamw, state["model"], state["optimizer"])
        else:
            self.model.load_state_dict(state["model"])
            self.adamw.load_state_dict(state["optimizer"])
        done = state["ledger"]
        losses = [torch.tensor(loss, device=self.fabric.device) for loss in done["losses"]]
        curve = [(tokens, loss) for tokens, loss in done["curve"]]
        return _Ledger(
            step=done["step"], taken=done.get("taken", 0), seconds=done["seconds"], curve=curve, losses=losses
        )


def weight_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; norms and the embedding, which few tokens of a batch touch, do not."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    decayed = [p for p in model.parameters() if p.ndim > 1 and id(p) not in embeddings]
    rest = [p for p in model.parameters() if p.ndim == 1 or id(p) in embeddings]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def _progress(loop: _Loop, ledger: _Ledger, loss: float) -> TrainProgress:
    steps, tokens = loop.optimizer_plan.steps, loop.tokens(ledger.step)
    return TrainProgress(step=ledger.step, steps=steps, tokens=tokens, loss=loss, curve=tuple(ledger.curve))
