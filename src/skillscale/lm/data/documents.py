"""Documents and rows from a hub id, a local folder, a file, or the embedded corpora: one way for all of them."""

import codecs
import re
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from skillscale.config import SourceConfig
from skillscale.errors import InputError

EMBEDDED = "embedded:"
_BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".txt": "txt"}
_UTF8 = (".jsonl", ".json", ".csv", ".txt")
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_CHUNK = 1 << 20
_TXT_DOCUMENT = 16_384  # characters, about: a text file is cut at the first blank line after so many


def read_documents(
    source: SourceConfig,
    *,
    embedded: Path | None = None,
    max_bytes: int | None = None,
    revision: str | None = None,
) -> Iterator[str]:
    """The texts of a source, in its order; rows without text are left out.

    Args:
        embedded: the folder of the embedded corpora, for ``embedded:NAME``.
        max_bytes: stop after so many bytes of UTF-8; the last text is cut.
        revision: the commit to read, for a hub id; none: the newest.

    Raises:
        InputError: the source is missing, empty, unreachable or not UTF-8, or has no such column or no text in it.
    """
    left = max_bytes
    found = False
    for text in _texts(source, embedded, revision):
        found = True
        if left is not None:
            size = len(text.encode())
            if size >= left:
                yield text if size == left else text.encode()[:left].decode(errors="ignore")
                return
            left -= size
        yield text
    if not found:
        raise InputError(f"{source.path} holds no text in column {source.column!r}; name another column or source")


def read_rows(
    path: str, *, config: str = "", split: str = "train", embedded: Path | None = None, revision: str | None = None
) -> Iterator[Mapping[str, Any]]:
    """The rows of a data set, one mapping of columns a row. A file has one split, whatever ``split`` says.

    Raises:
        InputError: the data set is missing, empty, unreachable or not UTF-8.
    """
    found = False
    for batch in _batches(path, config=config, split=split, embedded=embedded, revision=revision):
        columns = list(batch)
        for values in zip(*batch.values(), strict=True):
            found = True
            yield dict(zip(columns, values, strict=True))
    if not found:
        raise InputError(f"{path} holds no rows in split {split!r}; name another split or source")


def find_embedded_file(path: str, split: str, embedded: Path | None) -> Path:
    """The parquet file behind ``embedded:NAME``: a category's split, or an evaluation set.

    Raises:
        InputError: there is no corpus or set of that name.
    """
    name = path.removeprefix(EMBEDDED)
    if embedded is None:
        raise InputError(f"{path} needs the embedded corpora, which are not built; run `skillscale prepare`")
    for file in (embedded / name / f"{split}.parquet", embedded / "sets" / f"{name}.parquet"):
        if file.is_file():
            return file
    names = sorted({file.parent.name for file in embedded.glob(f"*/{split}.parquet")} - {"sets"})
    sets = sorted(file.stem for file in embedded.glob("sets/*.parquet"))
    raise InputError(
        f"{path} (split {split}) is not among the embedded corpora; there are {', '.join(names)} and the sets "
        f"{', '.join(sets)}"
    )


def find_local_files(path: str) -> list[Path]:
    """The files behind a local path, sorted; none for what can only be a hub id.

    Raises:
        InputError: a local path that doesn't exist, an empty folder, or a file of no known kind.
    """
    place = Path(path)
    if place.is_file():
        if place.suffix not in _BUILDERS:
            raise InputError(f"{path} is of no known kind; give {', '.join(_BUILDERS)}, a folder, or a hub id")
        return [place]
    if place.is_dir():
        files = sorted(file for file in place.rglob("*") if file.is_file() and not _hidden(file.relative_to(place)))
        if not any(file.suffix != ".md" for file in files):
            raise InputError(f"folder {path} holds no data files; put {', '.join(_BUILDERS)} files there")
        return files
    if place.suffix in _BUILDERS or not _HUB_ID.fullmatch(path):
        raise InputError(f"data file {path} does not exist (seen from {Path.cwd()}); check the path")
    return []


def hash_file(file: Path) -> str:
    """Hash of a file's bytes, which are checked on the way.

    Raises:
        InputError: the file is empty, or a text file that isn't UTF-8.
    """
    if file.stat().st_size == 0:
        raise InputError(f"data file {file} is empty; fill it, or drop it from the source")
    content = blake2b(digest_size=16)
    decoder = codecs.getincrementaldecoder("utf-8")() if file.suffix in _UTF8 else None
    read = 0
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            content.update(chunk)
            if decoder:
                _decode(decoder, chunk, file=file, read=read, final=len(chunk) < _CHUNK)
            read += len(chunk)
    return content.hexdigest()


def fetch_hub_revision(path: str) -> str | None:
    """The commit a hub id stands for now; none when the hub is switched off and only local copies can serve.

    Raises:
        InputError: no such data set, no access, or the hub can't be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        return HfApi().dataset_info(path, timeout=20).sha
    except OfflineModeIsEnabled:
        return None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _decode(decoder: codecs.IncrementalDecoder, chunk: bytes, *, file: Path, read: int, final: bool) -> None:
    held = len(decoder.getstate()[0])  # bytes of a character that the chunk border divides
    try:
        decoder.decode(chunk, final)
    except UnicodeDecodeError as error:
        raise InputError(
            f"data file {file} is not UTF-8: byte {read - held + error.start} is 0x{error.object[error.start]:02x}; "
            f"convert it, for instance with `iconv -f latin1 -t utf-8`"
        ) from error


def _texts(source: SourceConfig, embedded: Path | None, revision: str | None) -> Iterator[str]:
    checked = False
    for batch in _batches(
        source.path,
        config=source.config,
        split=source.split,
        embedded=embedded,
        revision=revision,
        column=source.column,
        streaming=source.streaming,
    ):
        if source.column not in batch:
            raise InputError(
                f"{source.path} has no column {source.column!r}; there are {', '.join(batch)}; set its `column`"
            )
        for text in batch[source.column]:
            if text is not None and not checked:
                checked = True
                if not isinstance(text, str):
                    raise InputError(f"column {source.column!r} of {source.path} holds {text!r:.60}, which is no text")
            if text:
                yield text


def _batches(
    path: str,
    *,
    config: str,
    split: str,
    embedded: Path | None,
    revision: str | None = None,
    column: str = "",
    streaming: bool = True,
) -> Iterator[Mapping[str, list[Any]]]:
    if path.startswith(EMBEDDED):
        path = str(find_embedded_file(path, split, embedded))
    files = find_local_files(path)
    for file in files:
        hash_file(file)
    if files and all(file.suffix == ".txt" for file in files):
        for file in files:
            yield from ({"text": [text]} for text in _txt_documents(file))
        return

    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    place = {"path": path, "name": config or None, "split": split, "revision": revision}
    if Path(path).is_file():
        place = {"path": _BUILDERS[Path(path).suffix], "data_files": path, "split": "train"}
    try:
        rows = load_dataset(**place, streaming=streaming)
        if column and column in (rows.column_names or ()):
            rows = rows.select_columns([column])
        yield from rows.iter(batch_size=256)
    except (OSError, ValueError, DatasetsError) as error:
        raise _unreadable(path, error) from error


def _txt_documents(file: Path) -> Iterator[str]:
    """Texts of about ``_TXT_DOCUMENT`` characters, cut after blank lines; joined they are the file."""
    held: list[str] = []
    size = 0
    with file.open(encoding="utf-8", newline="") as stream:
        for line in stream:
            held.append(line)
            size += len(line)
            if size >= _TXT_DOCUMENT and not line.strip():
                yield "".join(held)
                held, size = [], 0
    if held:
        yield "".join(held)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _unreadable(path: str, error: Exception) -> InputError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if Path(path).exists():
        return InputError(f"{path} can't be read: {reason}; check the file, the config and the split")
    return InputError(
        f"hub data set {path} can't be read: {reason}; check the id, its config and split, the network and, where the "
        "data set is gated, HF_TOKEN; or give a local folder"
    )
