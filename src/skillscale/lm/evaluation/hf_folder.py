"""A checkpoint folder in Hugging Face's format: its small files, checks on them, and its identity by content.

No code of a folder is ever run: weights are safetensors only, the tokenizer is its ``tokenizer.json``.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skillscale.errors import InputError
from skillscale.lm.data.fingerprints import cached_fingerprint
from skillscale.lm.data.tokenizer import Tokenizer
from skillscale.point import digest

_INDEX, _WEIGHTS = "model.safetensors.index.json", "model.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DOWNLOAD_RECORD = ".cache/huggingface/download/config.json.metadata"  # of `hf download --local-dir`: commit first


@dataclass(frozen=True, kw_only=True)
class CheckpointFolder:
    """A checkpoint that can be read. ``config``: content of config.json; ``revision``: hub commit, empty if unknown.

    ``first_token``: the token before every text; its id is the tokenizer's ``end_of_text``. ``unknown``: id of the
    token for text that the tokenizer can't write, if it has one.
    """

    name: str
    path: Path
    config: Mapping[str, Any]
    tokenizer: Tokenizer
    first_token: str
    unknown: int | None
    weights: tuple[Path, ...]
    revision: str

    def sha256(self, cache: Path) -> dict[str, str]:
        """Return the SHA-256 of each file that is read, as the hub lists it; a file is hashed again when it changes."""
        files = [self.path / "config.json", self.path / "tokenizer.json", *self.weights]
        return {file.name: _sha256(file, cache) for file in files}

    def digest(self, cache: Path) -> str:
        """Return the checkpoint's identity by content."""
        return digest([self.sha256(cache), self.tokenizer.end_of_text], 16)


def open_folder(path: Path, *, name: str = "", first_token: str = "") -> CheckpointFolder:
    """Check a checkpoint folder and read its small files.

    Args:
        path: local folder with config.json, tokenizer.json and model.safetensors, or its parts and their index.
        name: name in the study. Empty: the name on the hub, or of the folder.
        first_token: token before every text. Empty: the token that begins a text for the tokenizer or the model, or
            else ends one.

    Raises:
        InputError: a file is missing, or can't be read without running code.
    """
    if not path.is_dir():
        raise InputError(f"checkpoint {path} is no folder. Download one, as in `hf download NAME --local-dir FOLDER`.")
    config = _read_json(path / "config.json")
    if config.get("quantization_config"):
        raise InputError(f"checkpoint {path} is quantized. Give the weights that it was made from.")
    weights = _find_weights(path)
    text = _read_tokenizer(path)
    first, number = _find_first_token(path, text, config, first_token)
    tokenizer = Tokenizer(text, name=f"tokenizer of {path}", end_of_text=number)
    return CheckpointFolder(
        name=name or _hub_name(path) or path.resolve().name, path=path, config=config, tokenizer=tokenizer,
        first_token=first, unknown=_unknown_id(text), weights=weights, revision=_hub_revision(path),
    )  # fmt: skip


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"checkpoint {file.parent} has no {file.name}. Give the folder that has it.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{file} can't be read as JSON: {error}. Download it again.") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} must be a JSON object, but is a {type(content).__name__}. Download it again.")
    return content


def _find_weights(path: Path) -> tuple[Path, ...]:
    """Return the files of weights; every one exists, inside the folder."""
    if not (path / _INDEX).is_file():
        if not (path / _WEIGHTS).is_file():
            raise InputError(_no_weights_message(path))
        return (path / _WEIGHTS,)
    names = _read_json(path / _INDEX).get("weight_map")
    parts = sorted(set(map(str, names.values()))) if isinstance(names, dict) else []
    # A name with a folder in it would be read from outside the checkpoint
    invalid = [name for name in parts if Path(name).name != name or not (path / name).is_file()]
    if invalid or not parts:
        raise InputError(
            f"{path / _INDEX} names {', '.join(invalid) or 'no files'}, not in the folder. Download the folder again."
        )
    return tuple(path / name for name in parts)


def _no_weights_message(path: Path) -> str:
    pickles = sorted(file.name for pattern in _PICKLES for file in path.glob(pattern))
    if not pickles:
        return f"checkpoint {path} has no {_WEIGHTS}. Give a folder that has it, or all of its parts and {_INDEX}."
    return (
        f"checkpoint {path} has no {_WEIGHTS}, but {pickles[0]}, which may run code when it is read. If you trust it, "
        'write a safetensors file with `python -c "from transformers import AutoModelForCausalLM as M; '
        f"M.from_pretrained('{path}').save_pretrained('{path}')\"`."
    )


def _read_tokenizer(path: Path) -> str:
    try:
        return (path / "tokenizer.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(
            f'checkpoint {path} has no tokenizer.json. Write one with `python -c "from transformers '
            f"import AutoTokenizer as T; T.from_pretrained('{path}').save_pretrained('{path}')\"`."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path / 'tokenizer.json'} can't be read: {error}. Download it again.") from error


def _find_first_token(path: Path, text: str, config: Mapping[str, Any], requested: str) -> tuple[str, int]:
    """Return the token before every text, and its id.

    Raises:
        InputError: there is none.
    """
    ids = _token_ids(text)
    if not ids:
        return "", 0  # the tokenizer's error says what is wrong with it
    by_id = {number: token for token, number in ids.items()}
    settings = _read_json(path / "tokenizer_config.json") if (path / "tokenizer_config.json").is_file() else {}
    # eos of a tokenizer may end a turn of a chat, where bos of the model begins a document: bos of either comes first
    candidates = [requested] if requested else [
        _token_text(settings.get("bos_token")), by_id.get(_token_id(config.get("bos_token_id"))),
        _token_text(settings.get("eos_token")), by_id.get(_token_id(config.get("eos_token_id"))),
    ]  # fmt: skip
    for token in candidates:
        if token and token in ids:
            return token, ids[token]
    if requested:
        raise InputError(f"the tokenizer of {path} has no token {requested!r}. Give another --first_token.")
    raise InputError(
        f"checkpoint {path} has no token that begins a text (bos_token or eos_token in tokenizer_config.json, or their "
        "ids in config.json). Give --first_token TOKEN."
    )


def _token_ids(text: str) -> dict[str, int]:
    """Return the id of every token of a tokenizer.json; empty if it can't be read."""
    try:
        content = json.loads(text)
        vocabulary = content["model"]["vocab"]
        pairs = (
            vocabulary.items()
            if isinstance(vocabulary, dict)
            else ((entry[0], number) for number, entry in enumerate(vocabulary))
        )
        return dict(pairs) | {token["content"]: token["id"] for token in content.get("added_tokens") or ()}
    except (ValueError, KeyError, TypeError, IndexError):
        return {}


def _unknown_id(text: str) -> int | None:
    """Return the id of the token for text that the tokenizer can't write."""
    model = json.loads(text)["model"]
    number = model.get("unk_id")  # of a unigram model
    return number if number is not None else _token_ids(text).get(model.get("unk_token") or "")


def _token_text(token: Any) -> str:
    """Return a token of tokenizer_config.json, which is a text or an object that contains it."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")


def _token_id(number: Any) -> int:
    """Return an id of config.json, which is a number or a list of them; -1 if there is none."""
    first = number[0] if isinstance(number, list) and number else number
    return first if isinstance(first, int) else -1


def _hub_name(path: Path) -> str:
    """Return ``OWNER/NAME`` of a folder in the hub's cache, ``models--OWNER--NAME/snapshots/COMMIT``."""
    folder = path.absolute()
    is_snapshot = folder.parent.name == "snapshots" and folder.parents[1].name.startswith("models--")
    return folder.parents[1].name.removeprefix("models--").replace("--", "/") if is_snapshot else ""


def _hub_revision(path: Path) -> str:
    """Return the hub commit that its cache or its download tool recorded; empty if unknown."""
    if path.absolute().parent.name == "snapshots":
        return path.absolute().name
    try:
        commit = (path / _DOWNLOAD_RECORD).read_text(encoding="utf-8").split("\n", 1)[0].strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return commit if _COMMIT.fullmatch(commit) else ""


def _sha256(file: Path, cache: Path) -> str:
    def read() -> str:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    stat = file.stat()
    content = cached_fingerprint(cache, f"sha256 {file.resolve()}", [stat.st_size, stat.st_mtime_ns], read)
    assert content is not None
    return content
