"""Read documents and rows from a hub id, a local folder, a file or the embedded corpora, all by one code path."""

import codecs
import re
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeAlias

from skillscale.config import SourceConfig
from skillscale.errors import InputError

Row: TypeAlias = Mapping[str, Any]
EMBEDDED = "embedded:"
_BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".txt": "txt"}
_UTF8 = (".jsonl", ".json", ".csv", ".txt")
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_CHUNK = 1 << 20
_TXT_DOCUMENT = 16_384  # characters, about: a text file is cut at the next blank line


def read_documents(
    source: SourceConfig,
    *,
    embedded: Path | None = None,
    max_bytes: int | None = None,
    revision: str | None = None,
) -> Iterator[str]:
    """Yield the texts of a source in its order; rows without text are skipped.

    Args:
        source: where the texts come from.
        embedded: folder of the embedded corpora, for ``embedded:NAME``.
        max_bytes: maximum bytes of UTF-8; the last text is cut. None: no limit.
        revision: commit to read, for a hub id. None: the newest.

    Raises:
        InputError: the source is missing, empty, unreachable or not UTF-8, or the column is missing or has no text.
    """
    remaining = max_bytes
    is_empty = True
    for text in _texts(source, embedded, revision):
        is_empty = False
        if remaining is not None:
            size = len(text.encode())
            if size >= remaining:
                yield text if size == remaining else text.encode()[:remaining].decode(errors="ignore")
                return
            remaining -= size
        yield text
    if is_empty:
        raise InputError(f"{source.path} has no text in column {source.column!r}. Name another column or source.")


def read_rows(
    path: str, *, config: str = "", split: str = "train", embedded: Path | None = None, revision: str | None = None
) -> Iterator[Row]:
    """Yield the rows of a data set as mappings of columns. A file has one split, and ``split`` is ignored.

    Raises:
        InputError: the data set is missing, empty, unreachable or not UTF-8.
    """
    is_empty = True
    for batch in _batches(path, config=config, split=split, embedded=embedded, revision=revision):
        columns = list(batch)
        for values in zip(*batch.values(), strict=True):
            is_empty = False
            yield dict(zip(columns, values, strict=True))
    if is_empty:
        raise InputError(f"{path} has no rows in split {split!r}. Name another split or source.")


def find_embedded_file(path: str, split: str, embedded: Path | None) -> Path:
    """Return the parquet file of ``embedded:NAME``: a category's split, or an evaluation set.

    Raises:
        InputError: there is no corpus or set of that name.
    """
    name = path.removeprefix(EMBEDDED)
    if embedded is None:
        raise InputError(f"{path} needs the embedded corpora, which are not built. Run `skillscale prepare`.")
    for file in (embedded / name / f"{split}.parquet", embedded / "sets" / f"{name}.parquet"):
        if file.is_file():
            return file
    names = sorted({file.parent.name for file in embedded.glob(f"*/{split}.parquet")} - {"sets"})
    sets = sorted(file.stem for file in embedded.glob("sets/*.parquet"))
    raise InputError(
        f"{path} (split {split}) is not among the embedded corpora. Choose {', '.join(names)}, or a set of "
        f"{', '.join(sets)}."
    )


def find_local_files(path: str) -> list[Path]:
    """Return the files of a local path, sorted; an empty list for a hub id.

    Raises:
        InputError: a local path that does not exist, an empty folder, or a file of unknown kind.
    """
    location = Path(path)
    if location.is_file():
        if location.suffix not in _BUILDERS:
            raise InputError(f"{path} is of unknown kind. Give {', '.join(_BUILDERS)}, a folder, or a hub id.")
        return [location]
    if location.is_dir():
        files = sorted(
            file for file in location.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(location))
        )
        if not any(file.suffix != ".md" for file in files):
            raise InputError(f"folder {path} has no data files. Put {', '.join(_BUILDERS)} files there.")
        return files
    if location.suffix in _BUILDERS or not _HUB_ID.fullmatch(path):
        raise InputError(f"data file {path} does not exist (seen from {Path.cwd()}). Check the path.")
    return []


def hash_file(file: Path) -> str:
    """Return a hash of a file's bytes, and check that they are UTF-8 where it is a text file.

    Raises:
        InputError: the file is empty, or a text file that is not UTF-8.
    """
    if file.stat().st_size == 0:
        raise InputError(f"data file {file} is empty. Fill it, or remove it from the source.")
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
    """Return the newest commit of a hub id; None in offline mode, where only local copies can be read.

    Raises:
        InputError: the data set does not exist or is not accessible, or the hub is unreachable.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        return HfApi().dataset_info(path, timeout=20).sha
    except OfflineModeIsEnabled:
        return None
    except (OSError, ValueError) as error:
        raise _read_error(path, error) from error


def _decode(decoder: codecs.IncrementalDecoder, chunk: bytes, *, file: Path, read: int, final: bool) -> None:
    pending = len(decoder.getstate()[0])  # bytes of a character that the chunk border divides
    try:
        decoder.decode(chunk, final)
    except UnicodeDecodeError as error:
        raise InputError(
            f"data file {file} is not UTF-8: byte {read - pending + error.start} is 0x{error.object[error.start]:02x}. "
            "Convert it, for instance with `iconv -f latin1 -t utf-8`."
        ) from error


def _texts(source: SourceConfig, embedded: Path | None, revision: str | None) -> Iterator[str]:
    is_checked = False
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
                f"{source.path} has no column {source.column!r}. Set its `column` to one of {', '.join(batch)}."
            )
        for text in batch[source.column]:
            if text is not None and not is_checked:
                is_checked = True
                if not isinstance(text, str):
                    raise InputError(
                        f"column {source.column!r} of {source.path} has {text!r:.60}, which is no text. Name another "
                        "column."
                    )
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

    location = {"path": path, "name": config or None, "split": split, "revision": revision}
    if Path(path).is_file():
        location = {"path": _BUILDERS[Path(path).suffix], "data_files": path, "split": "train"}
    try:
        rows = load_dataset(**location, streaming=streaming)
        if column and column in (rows.column_names or ()):
            rows = rows.select_columns([column])
        yield from rows.iter(batch_size=256)
    except (OSError, ValueError, DatasetsError) as error:
        raise _read_error(path, error) from error


def _txt_documents(file: Path) -> Iterator[str]:
    """Yield texts of about ``_TXT_DOCUMENT`` characters, cut after blank lines; joined they give the file."""
    lines: list[str] = []
    size = 0
    with file.open(encoding="utf-8", newline="") as stream:
        for line in stream:
            lines.append(line)
            size += len(line)
            if size >= _TXT_DOCUMENT and not line.strip():
                yield "".join(lines)
                lines, size = [], 0
    if lines:
        yield "".join(lines)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _read_error(path: str, error: Exception) -> InputError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if Path(path).exists():
        return InputError(f"{path} can't be read: {reason}. Check the file, the config and the split.")
    return InputError(
        f"hub data set {path} can't be read: {reason}. Check the id, its config and split, the network and, for a "
        "gated data set, HF_TOKEN. Or give a local folder."
    )
