"""What a run is trained on: its device or devices, Lightning's strategy between them, and compiled models."""

import importlib.util
import os
import shutil
import sys
from typing import Any, cast

import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies.ddp import DDPStrategy
from lightning.fabric.strategies.model_parallel import ModelParallelStrategy
from lightning.fabric.strategies.strategy import Strategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    OptimizerStateType,
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.optim import Optimizer

from skillscale.config import TrainConfig
from skillscale.errors import InputError
from skillscale.lm.model.transformer import Transformer
from skillscale.lm.train.process_group import ALONE, ProcessGroup

State = dict[str, Any]
_GRAPHS = ("reduce-overhead", "max-autotune")
_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def select_device(wanted: str, count: int = 1) -> str:
    """``cpu`` or ``cuda``.

    Raises:
        InputError: ``cuda`` without a CUDA device, or fewer of them than a process must see.
    """
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise InputError(
            "train.device is cuda, but torch sees no CUDA device; use auto or cpu, or a CUDA build of torch"
        )
    if not there or wanted == "cpu":
        return "cpu"
    if torch.cuda.device_count() < count:
        raise InputError(
            f"train.devices is {count}, but this process sees {torch.cuda.device_count()} CUDA devices; lower it, or "
            "let every process see all GPUs of its node (srun --gpus-per-node, not --gpus-per-task)"
        )
    return "cuda"


def fabric_for(config: TrainConfig, team: ProcessGroup = ALONE) -> Fabric:
    """Lightning's door to the devices of a run, opened.

    Raises:
        InputError: a device that is not there.
    """
    device = select_device(config.device, config.devices)
    if team.environment is None:
        return Fabric(accelerator=device, devices=1, precision=config.precision)
    fabric = Fabric(
        accelerator=device,
        devices=config.devices,
        num_nodes=config.nodes,
        strategy=strategy(config),
        precision=config.precision,
        plugins=[team.environment],
    )
    fabric.launch()
    return fabric


def is_sharded(config: TrainConfig) -> bool:
    """Whether each device keeps a part of the weights alone."""
    return config.strategy == "fsdp"


def strategy(config: TrainConfig) -> Strategy:
    """Lightning's way to train one model on several devices; both average gradients over them.

    Weights and gradients travel in float32 in either: the same arithmetic as on one device, whatever the precision.
    """
    if is_sharded(config):
        return ModelParallelStrategy(shard, data_parallel_size=config.n_devices, tensor_parallel_size=1)
    return DDPStrategy(gradient_as_bucket_view=True)


def shard(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """A model whose blocks, and what is around them, are each kept in parts (FSDP, as torch's ``fully_shard``)."""
    assert isinstance(model, Transformer)
    for block in model.blocks:
        fully_shard(block, mesh=mesh["data_parallel"])
    fully_shard(model, mesh=mesh["data_parallel"])
    return model


def has_graphs(config: TrainConfig, device: str) -> bool:
    """Whether the compiled model is replayed as CUDA graphs, whose memory is written anew at each replay."""
    return device == "cuda" and config.compile in _GRAPHS


def compile_model(model: nn.Module, config: TrainConfig, device: str) -> nn.Module:
    """The model as ``train.compile`` wants it; weights and their names stay those of ``model``.

    Raises:
        InputError: a choice that the device has not, or no compiler.
    """
    if config.compile == "off":
        return model
    check_compiler(config.compile, device)
    torch.compiler.reset()  # a worker trains one model after the other, and torch keeps few versions of one function
    return cast(nn.Module, torch.compile(model, **_options(config.compile)))


def check_compiler(mode: str, device: str) -> None:
    """Refuse what can't be compiled here, before any training.

    Raises:
        InputError: saying what is missing.
    """
    if device == "cpu" and mode == "reduce-overhead":
        raise InputError("train.compile reduce-overhead is CUDA graphs, but the device is cpu; take default or off")
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        raise InputError(f"train.compile {mode} needs triton for a GPU: pip install triton, or take off")
    name = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(name) is None:
        raise InputError(
            f"train.compile {mode} needs a C++ compiler, and there is no {name}; install one (Debian: apt-get install "
            "g++), name another in the variable CXX, or take off"
        )


def _options(mode: str) -> dict[str, Any]:
    return {"mode": mode}


def gather_state(model: nn.Module, optimizer: Optimizer) -> tuple[State, State]:
    """Weights and moments put together from all devices, as one device names them; empty on all but the first."""
    weights = get_model_state_dict(model, options=_WHOLE)
    if not optimizer.state:  # before the first step; torch would make one
        return weights, optimizer.state_dict()
    kept = cast(State, get_optimizer_state_dict(model, optimizer, options=_WHOLE))
    if not kept:
        return weights, {}
    names = [name for group in kept["param_groups"] for name in group["params"]]
    index = {name: number for number, name in enumerate(names)}
    groups = [{**group, "params": [index[name] for name in group["params"]]} for group in kept["param_groups"]]
    return weights, {"state": {index[name]: kept["state"][name] for name in names}, "param_groups": groups}


def load_gathered_state(model: nn.Module, optimizer: Optimizer, weights: State, moments: State) -> None:
    """Inverse of ``gather_state``: each device takes its parts."""
    options = StateDictOptions(full_state_dict=True)
    set_model_state_dict(model, weights, options=options)
    if not moments["state"]:
        return
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    names = [name_of[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    groups = [{**group, "params": [names[at] for at in group["params"]]} for group in moments["param_groups"]]
    state = {names[at]: values for at, values in moments["state"].items()}
    kept = cast(OptimizerStateType, {"state": state, "param_groups": groups})
    set_optimizer_state_dict(model, optimizer, kept, options=options)


def gather_model(model: Transformer, device: torch.device, *, is_first: bool) -> Transformer:
    """A sharded model put together on the first device, which measures it; the others keep theirs."""
    weights = cast("dict[str, Tensor]", get_model_state_dict(model, options=_WHOLE))
    if not is_first:
        return model
    whole = Transformer(model.size, seed=0)
    whole.load_state_dict(weights)
    return whole.to(device)
