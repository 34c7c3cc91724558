"""The devices of a run, Lightning's strategy between them, and compiled models."""

import importlib.util
import os
import shutil
import sys
from typing import cast

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
from skillscale.lm.train.process_group import SINGLE_PROCESS, ProcessGroup
from skillscale.lm.train.snapshots import StateDict

_CUDA_GRAPHS = ("reduce-overhead", "max-autotune")
_GATHERED = StateDictOptions(full_state_dict=True, cpu_offload=True)


def select_device(requested: str, count: int = 1) -> str:
    """Return ``cpu`` or ``cuda``.

    Args:
        requested: ``auto``, ``cpu`` or ``cuda``.
        count: number of CUDA devices that this process must see.

    Raises:
        InputError: there is no CUDA device, or there are fewer than ``count``.
    """
    available = torch.cuda.is_available()
    if requested == "cuda" and not available:
        raise InputError(
            "train.device is cuda, but torch sees no CUDA device. Use auto or cpu, or a CUDA build of torch."
        )
    if not available or requested == "cpu":
        return "cpu"
    if torch.cuda.device_count() < count:
        raise InputError(
            f"train.devices is {count}, but this process sees {torch.cuda.device_count()} CUDA devices. Lower it, or "
            "let every process see all GPUs of its node (srun --gpus-per-node, not --gpus-per-task)."
        )
    return "cuda"


def fabric_for(config: TrainConfig, group: ProcessGroup = SINGLE_PROCESS) -> Fabric:
    """Return Lightning's Fabric for the devices of a run, launched.

    Raises:
        InputError: as ``select_device``.
    """
    device = select_device(config.device, config.devices)
    if group.environment is None:
        return Fabric(accelerator=device, devices=1, precision=config.precision)
    fabric = Fabric(
        accelerator=device,
        devices=config.devices,
        num_nodes=config.nodes,
        strategy=fabric_strategy(config),
        precision=config.precision,
        plugins=[group.environment],
    )
    fabric.launch()
    return fabric


def is_sharded(config: TrainConfig) -> bool:
    """Return whether each device keeps only a part of the weights."""
    return config.strategy == "fsdp"


def fabric_strategy(config: TrainConfig) -> Strategy:
    """Return Lightning's strategy for one model on several devices: DDP or FSDP. Both average the gradients.

    Both exchange weights and gradients in float32 at every precision, so the arithmetic is that of one device.
    """
    if is_sharded(config):
        return ModelParallelStrategy(shard_model, data_parallel_size=config.n_devices, tensor_parallel_size=1)
    return DDPStrategy(gradient_as_bucket_view=True)


def shard_model(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Shard each block, and the rest of the model, over the devices (FSDP2, torch's ``fully_shard``)."""
    assert isinstance(model, Transformer)
    for block in model.blocks:
        fully_shard(block, mesh=mesh["data_parallel"])
    fully_shard(model, mesh=mesh["data_parallel"])
    return model


def has_graphs(config: TrainConfig, device: str) -> bool:
    """Return whether the compiled model runs as CUDA graphs, which overwrite their memory at each replay."""
    return device == "cuda" and config.compile in _CUDA_GRAPHS


def compile_model(model: nn.Module, config: TrainConfig, device: str) -> nn.Module:
    """Compile the model as ``train.compile`` says. Weights and their names stay those of ``model``.

    Raises:
        InputError: the device can't run this mode, or a compiler is missing.
    """
    if config.compile == "off":
        return model
    check_compiler(config.compile, device)
    torch.compiler.reset()  # a worker trains many models, and torch keeps few versions of a function
    return cast(nn.Module, torch.compile(model, **_compile_options(config.compile)))


def check_compiler(mode: str, device: str) -> None:
    """Refuse a mode that can't be compiled here, before any training.

    Raises:
        InputError: the device can't run this mode, or a compiler is missing.
    """
    if device == "cpu" and mode == "reduce-overhead":
        raise InputError(
            "train.compile reduce-overhead uses CUDA graphs, but the device is cpu. Choose default or off."
        )
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        raise InputError(f"train.compile {mode} needs triton for a GPU. Run pip install triton, or choose off.")
    name = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(name) is None:
        raise InputError(
            f"train.compile {mode} needs a C++ compiler, and there is no {name}. Install one (Debian: apt-get install "
            "g++), name another in the variable CXX, or choose off."
        )


def _compile_options(mode: str) -> StateDict:
    return {"mode": mode}


def gather_state(model: nn.Module, optimizer: Optimizer) -> tuple[StateDict, StateDict]:
    """Gather weights and moments from all devices, with the names of one device. Followers get empty dicts."""
    weights = get_model_state_dict(model, options=_GATHERED)
    if not optimizer.state:  # before the first step; torch would create a state
        return weights, optimizer.state_dict()
    gathered = cast(StateDict, get_optimizer_state_dict(model, optimizer, options=_GATHERED))
    if not gathered:
        return weights, {}
    names = [name for group in gathered["param_groups"] for name in group["params"]]
    index = {name: number for number, name in enumerate(names)}
    groups = [{**group, "params": [index[name] for name in group["params"]]} for group in gathered["param_groups"]]
    return weights, {"state": {index[name]: gathered["state"][name] for name in names}, "param_groups": groups}


def load_gathered_state(model: nn.Module, optimizer: Optimizer, weights: StateDict, moments: StateDict) -> None:
    """Invert ``gather_state``: each device loads its parts."""
    options = StateDictOptions(full_state_dict=True)
    set_model_state_dict(model, weights, options=options)
    if not moments["state"]:
        return
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    names = [name_of[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    groups = [{**group, "params": [names[number] for number in group["params"]]} for group in moments["param_groups"]]
    state = {names[number]: values for number, values in moments["state"].items()}
    named = cast(OptimizerStateType, {"state": state, "param_groups": groups})
    set_optimizer_state_dict(model, optimizer, named, options=options)


def gather_model(model: Transformer, device: torch.device, *, is_leader: bool) -> Transformer:
    """Return a sharded model gathered on the leader's device, which measures it. Followers keep their parts."""
    weights = cast("dict[str, Tensor]", get_model_state_dict(model, options=_GATHERED))
    if not is_leader:
        return model
    whole = Transformer(model.size, seed=0)
    whole.load_state_dict(weights)
    return whole.to(device)
