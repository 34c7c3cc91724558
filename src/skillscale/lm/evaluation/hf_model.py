"""The only module that imports transformers: build, count, load and probe published checkpoints.

Only classes of transformers are built: code in a checkpoint is never run (no ``trust_remote_code``). Pickles are never
read, and nothing is downloaded.
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
# Share of the largest logit: rounding differences are smaller, the effect of seeing the future is larger
_TOLERANCE = 1e-3
_SHOWN = 3


class CausalLM(torch.nn.Module):
    """ids (batch, time) -> logits (batch, time, vocabulary). Every window begins with the first token.

    Many models attend to that token from every position (Xiao et al. 2023). In a window from the middle of a text it
    replaces the earliest token, which is never a target.
    """

    def __init__(self, model: torch.nn.Module, first: int) -> None:
        super().__init__()
        self.model = model
        self.first = first

    def forward(self, ids: Tensor) -> Tensor:
        """Return the logits of the next token at every position."""
        windows = ids.clone()
        windows[:, 0] = self.first
        logits: Tensor = self.model(input_ids=windows, use_cache=False).logits
        return logits


def read_model_size(folder: CheckpointFolder) -> ModelSize:
    """Return parameters and shape of a checkpoint, from its config alone; a shared tensor counts once.

    ``n_params_embed``: lookup tables (of tokens, and of learned positions) and the output head.

    Raises:
        InputError: transformers is not installed, or has no causal language model of this architecture.
    """
    transformers = _library()
    config = _config(transformers, folder)
    try:
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # a config can make the model's code raise any exception
        raise InputError(
            f"transformers can't build {folder.path} from its config.json: {_first_line(error)}. Check it."
        ) from error
    embedding, shape = model.get_input_embeddings(), config.get_text_config()
    rows = int(embedding.weight.shape[0])
    if folder.tokenizer.vocab_size > rows:
        raise InputError(
            f"the tokenizer of {folder.path} has ids up to {folder.tokenizer.vocab_size - 1}, but the model embeds "
            f"{rows} tokens, so they are not of one checkpoint. Download it again."
        )
    n_params, n_embed = _count(model)
    return ModelSize(
        n_params=n_params, n_params_nonembed=n_params - n_embed, n_params_embed=n_embed,
        depth=_config_number(shape, "num_hidden_layers"), width=_config_number(shape, "hidden_size"),
        n_heads=_config_number(shape, "num_attention_heads"), vocab_size=rows,
        context=_config_number(shape, "max_position_embeddings"),
    )  # fmt: skip


def load_checkpoint(folder: CheckpointFolder, *, dtype: str, device: str) -> CausalLM:
    """Load a checkpoint's weights and probe the model.

    Args:
        folder: checkpoint to load.
        dtype: type of weights and activations, a key of ``DTYPES``.
        device: ``cpu``, ``cuda``, or ``auto``: cuda if there is one.

    Raises:
        InputError: the files are not the weights of this model, or it is not causal.
        DivergedError: its logits are not finite.
        TrainingError: the device has not enough memory.
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
        raise TrainingError(
            f"{folder.name} in {dtype} does not fit into the memory of {device}. Try --dtype bfloat16."
        ) from error
    except Exception as error:  # unreadable weights can make the library raise any exception
        raise InputError(f"{folder.name} can't be read: {_first_line(error)}. Download it again.") from error
    _check_complete(folder, info)
    causal = CausalLM(model, folder.tokenizer.end_of_text)
    _probe(causal, folder, dtype=dtype, device=device)
    return causal


def _library() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise InputError(
            "transformers, which reads checkpoints of Hugging Face, is not installed. Run pip install "
            "-c constraints.txt -e '.[hf]'."
        ) from error
    # This module checks what the library warns of, and reports it once
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def _config(transformers: Any, folder: CheckpointFolder) -> Any:
    """Return the checkpoint's config, if it is one of a causal language model in transformers."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    supported = set(_class_names(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
    architectures = [str(name) for name in folder.config.get("architectures") or ()]
    if architectures and not supported & set(architectures):
        raise InputError(
            f"checkpoint {folder.path} is {' or '.join(architectures)}, which is no causal language model of "
            f"transformers {transformers.__version__}. Give another checkpoint: code in a checkpoint is never run."
        )
    try:
        config = transformers.AutoConfig.from_pretrained(folder.path, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # an invalid config can make the library raise any exception
        raise InputError(f"{folder.path / 'config.json'} is not usable: {_first_line(error)}. Check it.") from error
    if getattr(config, "is_encoder_decoder", False) or config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise InputError(f"checkpoint {folder.path} is of type {config.model_type}, which is no causal language model.")
    return config


def _class_names(mapping: Mapping[str, Any]) -> list[str]:
    """Return the names of classes; a type of model may have several."""
    return [name for names in mapping.values() for name in ((names,) if isinstance(names, str) else names)]


def _count(model: torch.nn.Module) -> tuple[int, int]:
    """Count all parameters, and those of lookup tables and the output head; ``parameters()`` yields a tied one once."""
    tables = [module for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    head = model.get_output_embeddings()  # type: ignore[operator]
    modules = [module for module in (*tables, head) if module is not None]
    embed = {id(parameter): parameter.numel() for module in modules for parameter in module.parameters()}
    return sum(parameter.numel() for parameter in model.parameters()), sum(embed.values())


def _check_complete(folder: CheckpointFolder, info: Mapping[str, Any]) -> None:
    """Refuse weights of another model: missing ones would be random numbers."""
    for key, problem in (("missing_keys", "lacks"), ("mismatched_keys", "has in another shape")):
        names = sorted(str(name) for name in info.get(key) or ())
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            raise InputError(
                f"{folder.name} {problem} the weights {', '.join(names[:_SHOWN])}{more}, so config.json and the "
                "weights are not of one checkpoint. Download it again."
            )


def _probe(model: CausalLM, folder: CheckpointFolder, *, dtype: str, device: str) -> None:
    """Check on two texts with the same first half that the first halves give the same, finite logits.

    Raises:
        InputError: a position depends on later ones, or there are fewer logits than tokens.
        DivergedError: the logits are not finite.
    """
    rows, half = folder.tokenizer.vocab_size, _PROBE // 2
    ids = torch.arange(_PROBE, device=device).repeat(2, 1) % rows
    ids[1, half:] = (ids[1, half:] + rows // 2) % rows
    with torch.no_grad():
        logits = model(ids).double()
    if logits.shape[-1] < rows:
        raise InputError(
            f"{folder.name} has {logits.shape[-1]} logits, but its tokenizer {rows} tokens. Download it again."
        )
    largest = float(logits.abs().max())
    if not math.isfinite(largest):
        raise DivergedError(
            f"the logits of {folder.name} are not finite in {dtype}. Try another --dtype, or other weights."
        )
    if float((logits[0, :half] - logits[1, :half]).abs().max()) > _TOLERANCE * largest:
        raise InputError(f"{folder.name} is not causal: logits depend on later tokens. Give another checkpoint.")


def _config_number(config: Any, name: str) -> int:
    """Return a number of a config; 0 if it has none."""
    value = getattr(config, name, None)
    return int(value) if isinstance(value, int | float) else 0


def _first_line(error: Exception) -> str:
    """Return the first line of an error: later lines of a library's error are advice on its arguments."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
