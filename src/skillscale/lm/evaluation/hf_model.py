"""The only door to transformers: models that others trained, built by its code alone, counted, read, and tried out.

A checkpoint's own code is never run (no ``trust_remote_code``), pickles are never read, nothing is downloaded.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from skillscale.errors import DivergedError, InputError, TrainingError
from skillscale.lm.evaluation.hf_folder import CheckpointFolder
from skillscale.record import ModelSize

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
_PROBE = 16  # positions
# Of the largest logit: what is computed alike differs by less, what sees the future by more
_SAME = 1e-3
_SHOWN = 3


class CausalLM(torch.nn.Module):
    """ids (batch, time) -> logits (batch, time, vocabulary). Every window begins with the first token.

    Many models hold on to it from everywhere (Xiao et al. 2023): a window from the middle of a text gets it in place of
    the earliest token, which is never a target.
    """

    def __init__(self, model: torch.nn.Module, first: int) -> None:
        super().__init__()
        self.model = model
        self.first = first

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of the next token at every position."""
        windows = ids.clone()
        windows[:, 0] = self.first
        logits: Tensor = self.model(input_ids=windows, use_cache=False).logits
        return logits


def read_model_size(folder: CheckpointFolder) -> ModelSize:
    """Parameters and shape of a checkpoint, from its config alone: each tensor once, however often it is used.

    ``n_params_embed``: lookup tables (of tokens, and of positions where they are learned) and the output head.

    Raises:
        InputError: transformers is not installed, or has no causal language model of this architecture.
    """
    transformers = _library()
    config = _config(transformers, folder)
    try:
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # whatever a config of others makes its model's code raise
        raise InputError(f"transformers can't build {folder.path} from its config.json: {_line(error)}") from error
    embedding, shape = model.get_input_embeddings(), config.get_text_config()
    rows = int(embedding.weight.shape[0])
    if folder.tokenizer.vocab_size > rows:
        raise InputError(
            f"the tokenizer of {folder.path} has ids up to {folder.tokenizer.vocab_size - 1}, but the model embeds "
            f"{rows} tokens; they are not of one checkpoint"
        )
    n_params, n_embed = _count(model)
    return ModelSize(
        n_params=n_params, n_params_nonembed=n_params - n_embed, n_params_embed=n_embed,
        depth=_whole(shape, "num_hidden_layers"), width=_whole(shape, "hidden_size"),
        n_heads=_whole(shape, "num_attention_heads"), vocab_size=rows, context=_whole(shape, "max_position_embeddings"),
    )  # fmt: skip


def load_checkpoint(folder: CheckpointFolder, *, dtype: str, device: str) -> CausalLM:
    """Read a checkpoint's weights.

    Args:
        folder: the checkpoint.
        dtype: a key of ``DTYPES``, which weights and activations have.
        device: ``cpu``, ``cuda``, or ``auto``: cuda if there is one.

    Raises:
        InputError: the files don't hold the weights of this model, or it is no causal model.
        DivergedError: its logits are no numbers.
        TrainingError: the device has no room.
    """
    transformers = _library()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            folder.path, config=_config(transformers, folder), dtype=DTYPES[dtype], use_safetensors=True,
            trust_remote_code=False, local_files_only=True, output_loading_info=True,
        )  # fmt: skip
        model = model.to(device).eval()
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise TrainingError(f"{folder.name} has no room on {device} in {dtype}; try --dtype bfloat16") from error
    except Exception as error:  # whatever weights of others make the library raise
        raise InputError(f"{folder.name} can't be read: {_line(error)}; download it again") from error
    _check_complete(folder, info)
    causal = CausalLM(model, folder.tokenizer.end_of_text)
    _try_out(causal, folder, dtype=dtype, device=device)
    return causal


def _library() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise InputError(
            "checkpoints of Hugging Face are read with transformers, which is not installed: pip install "
            "-c constraints.txt -e '.[hf]'"
        ) from error
    # What it warns of is checked here, and told once
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def _config(transformers: Any, folder: CheckpointFolder) -> Any:
    """The checkpoint's config, of a causal language model that transformers has itself."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    known = set(_names(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
    told = [str(one) for one in folder.config.get("architectures") or ()]
    if told and not known & set(told):
        raise InputError(
            f"checkpoint {folder.path} is {' or '.join(told)}, which is no causal language model of transformers "
            f"{transformers.__version__}; one that brings its own code is not run"
        )
    try:
        config = transformers.AutoConfig.from_pretrained(folder.path, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # a config of others may make the library raise anything
        raise InputError(f"{folder.path / 'config.json'} can't be used: {_line(error)}") from error
    if getattr(config, "is_encoder_decoder", False) or config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise InputError(f"checkpoint {folder.path} is of type {config.model_type}, which is no causal language model")
    return config


def _names(mapping: Mapping[str, Any]) -> list[str]:
    """Names of classes; one type of model may have several."""
    return [one for names in mapping.values() for one in ((names,) if isinstance(names, str) else names)]


def _count(model: torch.nn.Module) -> tuple[int, int]:
    """All parameters, and those of lookup tables and of the output head; ``parameters()`` tells a tied one once."""
    tables = [one for one in model.modules() if isinstance(one, torch.nn.Embedding)]
    head = model.get_output_embeddings()  # type: ignore[operator]
    embed = {id(one): one.numel() for part in (*tables, head) if part is not None for one in part.parameters()}
    return sum(one.numel() for one in model.parameters()), sum(embed.values())


def _check_complete(folder: CheckpointFolder, info: Mapping[str, Any]) -> None:
    """Refuse weights of another model: what is missing would be random numbers."""
    for key, what in (("missing_keys", "lacks"), ("mismatched_keys", "has of another shape")):
        found = sorted(str(one) for one in info.get(key) or ())
        if found:
            more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            raise InputError(
                f"{folder.name} {what} the weights {', '.join(found[:_SHOWN])}{more}; config.json and the weights are "
                "not of one checkpoint: download it again"
            )


def _try_out(model: CausalLM, folder: CheckpointFolder, *, dtype: str, device: str) -> None:
    """Read two texts that differ in their second half alone: the first halves must give the same logits, of numbers.

    Raises:
        InputError: a position sees what comes after it, or the logits are too few.
        DivergedError: they are no numbers.
    """
    rows, half = folder.tokenizer.vocab_size, _PROBE // 2
    ids = torch.arange(_PROBE, device=device).repeat(2, 1) % rows
    ids[1, half:] = (ids[1, half:] + rows // 2) % rows
    with torch.no_grad():
        logits = model(ids).double()
    if logits.shape[-1] < rows:
        raise InputError(f"{folder.name} has {logits.shape[-1]} logits, but its tokenizer {rows} tokens")
    largest = float(logits.abs().max())
    if not math.isfinite(largest):
        raise DivergedError(
            f"the logits of {folder.name} are no numbers in {dtype}; try another --dtype, or other weights"
        )
    if float((logits[0, :half] - logits[1, :half]).abs().max()) > _SAME * largest:
        raise InputError(f"{folder.name} is not causal: its positions see what comes after them")


def _whole(config: Any, name: str) -> int:
    """A number of a config; 0 where it has none."""
    found = getattr(config, name, None)
    return int(found) if isinstance(found, int | float) else 0


def _line(error: Exception) -> str:
    """The first line of an error: what libraries add is advice on their own arguments."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
