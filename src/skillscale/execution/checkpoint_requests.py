"""The checkpoints that a call of ``evaluate`` names: folders, and how their models were trained."""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from skillscale.config.options import EvaluateOptions
from skillscale.errors import InputError
from skillscale.point import DesignPoint, Mix
from skillscale.record import ModelSize

if TYPE_CHECKING:
    from skillscale.lm.evaluation.hf_folder import CheckpointFolder

_COLUMNS = ("checkpoint", "n_tokens", "mix", "seed", "training_run")
_UNNAMED_MIX = "all"  # name of the data where the user gives none
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class CheckpointRequest:
    """A checkpoint to measure.

    Args:
        folder: Its files.
        size: Size of the model, counted from its files.
        point: N, D, mix and seed of its training.
        training_run: Name that the checkpoints of one training share.
    """

    folder: "CheckpointFolder"
    size: ModelSize
    point: DesignPoint
    training_run: str


@dataclass(frozen=True, kw_only=True)
class _Row:
    """The texts that describe a checkpoint; ``name`` is the folder as the user wrote it."""

    name: str
    checkpoint: str
    n_tokens: str
    mix: str = ""
    seed: str = ""
    training_run: str = ""


def read_requests(options: EvaluateOptions) -> list[CheckpointRequest]:
    """Look at every checkpoint that the options name, so that all faults come up before the first is measured.

    Raises:
        InputError: Naming the faults of up to five checkpoints.
    """
    if bool(options.table) == bool(options.checkpoint):
        raise InputError("evaluate needs either --checkpoint FOLDER with --n_tokens D, or --table CSV of many")
    requests, faults = [], []
    for row in _table_rows(options) if options.table else [_row_of_options(options)]:
        try:
            requests.append(_request(row, options.reading.first_token))
        except InputError as error:
            faults.append(str(error))
    if faults:
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        listed = "; ".join(faults[:_SHOWN])
        raise InputError(f"{listed}{more}")
    _refuse_equal_points(requests)
    return requests


def _refuse_equal_points(requests: Iterable[CheckpointRequest]) -> None:
    names: dict[str, str] = {}
    for request in requests:
        key, name = request.point.key, request.folder.name
        if key in names:
            raise InputError(
                f"{names[key]} and {name} have one N, D, mix and seed. Give another seed to another training, and name "
                "the same checkpoint once."
            )
        names[key] = name


def _row_of_options(options: EvaluateOptions) -> _Row:
    if options.n_tokens is None:
        raise InputError("--checkpoint needs --n_tokens D: a folder does not record the tokens of its training")
    return _Row(
        name="" if Path(options.checkpoint).is_absolute() else options.checkpoint, checkpoint=options.checkpoint,
        n_tokens=str(options.n_tokens), mix=options.mix, seed=str(options.seed), training_run=options.training_run,
    )  # fmt: skip


def _table_rows(options: EvaluateOptions) -> list[_Row]:
    """Read the rows of a table. Its folders are relative to it.

    Raises:
        InputError: The table cannot be read, or has other columns.
    """
    path = Path(options.table)
    given = [f"--{name}" for name in ("n_tokens", "mix", "training_run") if getattr(options, name)]
    if given:
        raise InputError(f"{', '.join(given)} goes with --checkpoint. In a --table it is a column.")
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            rows, names = list(reader), list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} can't be read as CSV: {error}") from error
    _check_columns(path, names, has_rows=bool(rows))
    texts = [{name: (row.get(name) or "").strip() for name in _COLUMNS} for row in rows]
    return [
        _Row(**text | {"name": text["checkpoint"], "checkpoint": str(path.parent / text["checkpoint"])})
        for text in texts
    ]


def _check_columns(path: Path, names: Sequence[str], *, has_rows: bool) -> None:
    unknown = [str(name) for name in names if name not in _COLUMNS]
    missing = [name for name in _COLUMNS[:2] if name not in names]
    if unknown or missing or not has_rows:
        fault = f"has the columns {', '.join(names)}" if unknown or missing else "has no rows"
        raise InputError(f"{path} {fault}. It takes {', '.join(_COLUMNS)}. The first two are required.")


def _request(row: _Row, first_token: str) -> CheckpointRequest:
    from skillscale.lm.evaluation.hf_folder import open_folder
    from skillscale.lm.evaluation.hf_model import read_model_size

    path = Path(row.checkpoint).expanduser()
    n_tokens, seed = _whole_number(row.n_tokens, "n_tokens", path), _whole_number(row.seed or "0", "seed", path)
    mix = _mix(row.mix, path)
    # A folder of the hub's cache gets its name there
    is_snapshot = path.absolute().parent.name == "snapshots"
    folder = open_folder(path, name="" if is_snapshot or path == Path() else row.name, first_token=first_token)
    size = read_model_size(folder)
    point = DesignPoint(n_params=size.n_params, n_tokens=n_tokens, mix=mix, seed=seed)
    return CheckpointRequest(folder=folder, size=size, point=point, training_run=row.training_run)


def _whole_number(text: str, name: str, path: Path) -> int:
    """Read a whole number, as in ``3e11``."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0 and number == int(number)):
        raise InputError(f"{name} of {path} must be a whole number, as in 3e11, but it is {text!r}")
    return int(number)


def _mix(text: str, path: Path) -> Mix:
    """Read shares of categories, or the name of the data alone."""
    try:
        return Mix.parse(text) if "=" in text else Mix({text.strip() or _UNNAMED_MIX: 1.0})
    except InputError as error:
        raise InputError(f"mix of {path}: {error}") from error
