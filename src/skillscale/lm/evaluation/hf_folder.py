"""A checkpoint in a folder of Hugging Face's format, as its small files tell it: what it holds, its name by content.

Nothing of a folder is ever run: weights are safetensors alone, the tokenizer is its ``tokenizer.json``.
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
_DOWNLOADED = ".cache/huggingface/download/config.json.metadata"  # of `hf download --local-dir`; its first line


@dataclass(frozen=True, kw_only=True)
class CheckpointFolder:
    """A checkpoint that can be read. ``config``: what config.json holds; ``revision``: of the hub, empty if not known.

    ``first_token``: what stands before every text; its id is the tokenizer's ``end_of_text``. ``unknown``: id of the
    token for what the tokenizer can't write, if it has one.
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
        """SHA-256 of each file that is read, as the hub tells it; a file is read once, until it changes."""
        files = [self.path / "config.json", self.path / "tokenizer.json", *self.weights]
        return {file.name: _sha256(file, cache) for file in files}

    def digest(self, cache: Path) -> str:
        """Name of the checkpoint by its content."""
        return digest([self.sha256(cache), self.tokenizer.end_of_text], 16)


def open_folder(path: Path, *, name: str = "", first_token: str = "") -> CheckpointFolder:
    """Look at a checkpoint.

    Args:
        path: a local folder with config.json, tokenizer.json and model.safetensors, or its parts and their index.
        name: what it is called; empty: as on the hub, or as the folder.
        first_token: what stands before every text; empty: what the tokenizer or the model begin a text with, or else
            end one with.

    Raises:
        InputError: something is missing, or can't be read without running code.
    """
    if not path.is_dir():
        raise InputError(f"checkpoint {path} is no folder; download one, as in `hf download NAME --local-dir FOLDER`")
    config = _json(path / "config.json")
    if config.get("quantization_config"):
        raise InputError(f"checkpoint {path} is quantized; give the weights that it was made from")
    weights = _weights(path)
    text = _tokenizer_text(path)
    first, number = _first(path, text, config, first_token)
    tokenizer = Tokenizer(text, name=f"tokenizer of {path}", end_of_text=number)
    return CheckpointFolder(
        name=name or _hub_name(path) or path.resolve().name, path=path, config=config, tokenizer=tokenizer,
        first_token=first, unknown=_unknown(text), weights=weights, revision=_revision(path),
    )  # fmt: skip


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"checkpoint {file.parent} has no {file.name}; give the folder that holds it") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{file} can't be read as JSON: {error}; download it again") from error
    if not isinstance(found, dict):
        raise InputError(f"{file} must hold an object, but holds {type(found).__name__}; download it again")
    return found


def _weights(path: Path) -> tuple[Path, ...]:
    """The files of weights, all of them there."""
    if not (path / _INDEX).is_file():
        if not (path / _WEIGHTS).is_file():
            raise InputError(_no_weights(path))
        return (path / _WEIGHTS,)
    names = _json(path / _INDEX).get("weight_map")
    parts = sorted(set(map(str, names.values()))) if isinstance(names, dict) else []
    # A name with a folder in it would read elsewhere
    bad = [name for name in parts if Path(name).name != name or not (path / name).is_file()]
    if bad or not parts:
        raise InputError(f"{path / _INDEX} names {', '.join(bad) or 'no files'}, not there; download the folder again")
    return tuple(path / name for name in parts)


def _no_weights(path: Path) -> str:
    pickles = sorted(file.name for pattern in _PICKLES for file in path.glob(pattern))
    if not pickles:
        return f"checkpoint {path} has no {_WEIGHTS}; give a folder that has it, or all of its parts and {_INDEX}"
    return (
        f"checkpoint {path} has {pickles[0]}, which may run code when it is read, and no {_WEIGHTS}; where you trust "
        'it, write one with `python -c "from transformers import AutoModelForCausalLM as M; '
        f"M.from_pretrained('{path}').save_pretrained('{path}')\"`"
    )


def _tokenizer_text(path: Path) -> str:
    try:
        return (path / "tokenizer.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(
            f'checkpoint {path} has no tokenizer.json; write one by `python -c "from transformers '
            f"import AutoTokenizer as T; T.from_pretrained('{path}').save_pretrained('{path}')\"`"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path / 'tokenizer.json'} can't be read: {error}; download it again") from error


def _first(path: Path, text: str, config: Mapping[str, Any], asked: str) -> tuple[str, int]:
    """The token before every text, and its id.

    Raises:
        InputError: there is none.
    """
    ids = _ids(text)
    if not ids:
        return "", 0  # the tokenizer itself says what is wrong with it
    by_id = {number: token for token, number in ids.items()}
    settings = _json(path / "tokenizer_config.json") if (path / "tokenizer_config.json").is_file() else {}
    # A tokenizer's eos may end a turn of a chat, where bos of the model begins a document: bos of either comes first
    found = [asked] if asked else [_text(settings.get("bos_token")), by_id.get(_id(config.get("bos_token_id")))]
    found += [] if asked else [_text(settings.get("eos_token")), by_id.get(_id(config.get("eos_token_id")))]
    for token in found:
        if token and token in ids:
            return token, ids[token]
    if asked:
        raise InputError(f"the tokenizer of {path} has no token {asked!r}; give one that it has as --first_token")
    raise InputError(
        f"checkpoint {path} doesn't tell what a text begins with (bos_token or eos_token in tokenizer_config.json, or "
        "their ids in config.json); give it as --first_token TOKEN"
    )


def _ids(text: str) -> dict[str, int]:
    """Id of every token of a tokenizer.json; none of one that can't be read."""
    try:
        plain = json.loads(text)
        vocabulary = plain["model"]["vocab"]
        pairs = (
            vocabulary.items() if isinstance(vocabulary, dict) else ((one[0], at) for at, one in enumerate(vocabulary))
        )
        return dict(pairs) | {one["content"]: one["id"] for one in plain.get("added_tokens") or ()}
    except (ValueError, KeyError, TypeError, IndexError):
        return {}


def _unknown(text: str) -> int | None:
    """Id of the token for what can't be written."""
    model = json.loads(text)["model"]
    number = model.get("unk_id")  # of a unigram model
    return number if number is not None else _ids(text).get(model.get("unk_token") or "")


def _text(token: Any) -> str:
    """A token as tokenizer_config.json tells it: its text, or an object that holds it."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")


def _id(number: Any) -> int:
    """An id as config.json tells it: a number or a list of them; -1 where there is none."""
    first = number[0] if isinstance(number, list) and number else number
    return first if isinstance(first, int) else -1


def _hub_name(path: Path) -> str:
    """``OWNER/NAME`` of a folder in the hub's cache, ``models--OWNER--NAME/snapshots/COMMIT``."""
    place = path.absolute()
    is_snapshot = place.parent.name == "snapshots" and place.parents[1].name.startswith("models--")
    return place.parents[1].name.removeprefix("models--").replace("--", "/") if is_snapshot else ""


def _revision(path: Path) -> str:
    """The commit that the hub served, where its cache or its download tool left it."""
    if path.absolute().parent.name == "snapshots":
        return path.absolute().name
    try:
        commit = (path / _DOWNLOADED).read_text(encoding="utf-8").split("\n", 1)[0].strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return commit if _COMMIT.fullmatch(commit) else ""


def _sha256(file: Path, cache: Path) -> str:
    def read() -> str:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    stat = file.stat()
    found = cached_fingerprint(cache, f"sha256 {file.resolve()}", [stat.st_size, stat.st_mtime_ns], read)
    assert found is not None
    return found
