"""The optimizer step: a model, AdamW, and the devices and precision that Fabric gives them."""

import math
import time
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from skillscale.config import TrainConfig
from skillscale.lm.model.transformer import Transformer
from skillscale.lm.train import devices
from skillscale.lm.train.process_group import SINGLE_PROCESS, ProcessGroup
from skillscale.lm.train.snapshots import TrainingSnapshot, TrainingState
from skillscale.record import ModelSize

# Tokens per micro-batch. On a CPU the activations of 2048 tokens fit the cache: 8192 took a third longer at 2e4
# parameters. On a GPU the logits must fit next to the model.
_MICRO_BATCH_TOKENS = {"cpu": 2048, "cuda": 32_768}
_TIMED_S = 0.3
_TIMED_STEPS = 20


class TrainStepper:
    """A model and its optimizer, which take one step on each batch."""

    def __init__(
        self, size: ModelSize, config: TrainConfig, *, lr: float, seed: int, group: ProcessGroup = SINGLE_PROCESS
    ) -> None:
        self.config, self.group = config, group
        self.fabric = devices.fabric_for(config, group)
        device = self.fabric.device.type
        torch.set_num_threads(config.threads)
        self.model = Transformer(size, seed=seed, checkpointed=config.checkpoint_activations)
        self._wrapped = self.fabric.setup_module(devices.compile_model(self.model, config, device))
        self._adamw = torch.optim.AdamW(
            weight_groups(self.model, config.weight_decay), lr=lr, betas=(config.beta1, config.beta2), fused=True
        )
        self._optimizer: Any = self.fabric.setup_optimizers(self._adamw)
        self._micro_batch = max(1, _MICRO_BATCH_TOKENS[device] // size.context)
        self._keeps_gradients = devices.has_graphs(config, device)
        if self._keeps_gradients:  # the first gradients would lie in memory that the next replay overwrites
            for weight in self.model.parameters():
                weight.grad = torch.zeros_like(weight)

    def step(self, ids: npt.NDArray[np.int64], *, lr: float) -> Tensor:
        """Update the weights; return the loss before the update over all processes, on the device.

        Args:
            ids: (B, T + 1) token ids of this process.
            lr: learning rate.
        """
        for parameters in self._optimizer.param_groups:
            parameters["lr"] = lr
        micro_batches = torch.split(torch.from_numpy(ids), self._micro_batch)
        losses = [
            self._backward(micro_batch, len(micro_batch) / len(ids), is_last=number == len(micro_batches))
            for number, micro_batch in enumerate(micro_batches, start=1)
        ]
        self.fabric.clip_gradients(
            self._wrapped, self._optimizer, max_norm=self.config.clip_norm, error_if_nonfinite=False
        )
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=not self._keeps_gradients)
        loss = torch.stack(losses).sum()
        return loss if self.group.size == 1 else self._mean_over_processes(loss)

    def _mean_over_processes(self, loss: Tensor) -> Tensor:
        """Return the mean: all processes have equal shares of a batch."""
        return cast(Tensor, self.fabric.all_reduce(loss, reduce_op="mean"))

    def _backward(self, ids: Tensor, share: float, *, is_last: bool) -> Tensor:
        """Add the gradients of a micro-batch, and return its share of the loss."""
        ids = self.fabric.to_device(ids)
        # Whole models sum the gradients of micro-batches before they exchange them. Sharded ones have no room for that.
        waits = self.group.size > 1 and not is_last and not devices.is_sharded(self.config)
        with self.fabric.no_backward_sync(self._wrapped) if waits else nullcontext():
            loss: Tensor = self._wrapped(ids[:, :-1], ids[:, 1:]) * share
            self.fabric.backward(loss)
        return loss.detach()

    def snapshot(self, state: TrainingState) -> TrainingSnapshot:
        """Return weights, moments and progress. With a sharded model all processes must call this."""
        if devices.is_sharded(self.config):
            weights, moments = devices.gather_state(self.model, self._adamw)
        else:
            weights, moments = self.model.state_dict(), self._adamw.state_dict()
        return TrainingSnapshot(weights=weights, moments=moments, state=state)

    def restore(self, snapshot: TrainingSnapshot) -> TrainingState:
        """Load weights and moments, and return the progress with its losses on this device."""
        if devices.is_sharded(self.config):
            devices.load_gathered_state(self.model, self._adamw, snapshot.weights, snapshot.moments)
        else:
            self.model.load_state_dict(snapshot.weights)
            self._adamw.load_state_dict(snapshot.moments)
        losses = [loss.to(self.fabric.device) for loss in snapshot.state.losses]
        return replace(snapshot.state, losses=losses, started_at=time.monotonic())

    def whole_model(self) -> Transformer:
        """Return the model that the leader measures: a sharded one is gathered there."""
        if not devices.is_sharded(self.config):
            return self.model
        return devices.gather_model(self.model, self.fabric.device, is_leader=self.group.is_leader)


def weight_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return AdamW's groups: matrices decay. Norms and the embedding don't: a batch touches few tokens of it."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    matrices = [p for p in model.parameters() if p.ndim > 1 and id(p) not in embeddings]
    others = [p for p in model.parameters() if p.ndim == 1 or id(p) in embeddings]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def step_seconds(size: ModelSize, *, batch_sequences: int, config: TrainConfig) -> float:
    """Return the shortest measured time of a step on one device, in seconds, on random tokens.

    The shortest, because other load on the machine can only add time.
    """
    stepper = TrainStepper(size, replace(config, devices=1, nodes=1, strategy="auto"), lr=1e-6, seed=0)
    ids = np.random.default_rng(0).integers(0, size.vocab_size, (batch_sequences, size.context + 1))
    seconds: list[float] = []
    for step in range(_TIMED_STEPS):
        began = time.perf_counter()
        stepper.step(ids, lr=1e-6).item()
        seconds.append(time.perf_counter() - began)
        if step and math.fsum(seconds) > _TIMED_S:
            break
    return min(seconds[1:])
