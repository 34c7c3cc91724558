"""The entry ``evaluate``: checkpoints that others trained, measured on the skills, as runs of a study of their own.

Open families of models become points: N is counted from the checkpoint, D and the mix are told by whoever knows them.
"""

import csv
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from skillscale import __version__
from skillscale.cli.output import Output
from skillscale.config import Config, is_shipped
from skillscale.config.options import EvaluateOptions
from skillscale.errors import DivergedError, InputError, TrainingError
from skillscale.execution.status import StatusPublisher
from skillscale.formatting import to_plain
from skillscale.point import DesignPoint, Mix, digest
from skillscale.record import Checkpoint, DataSet, Measurement, ModelSize, Provenance, RunRecord, RunState

if TYPE_CHECKING:
    from skillscale.lm.evaluation.checkpoints import EvaluationTexts
    from skillscale.lm.evaluation.hf_folder import CheckpointFolder
    from skillscale.lm.evaluation.skills import EvaluationResult
    from skillscale.tracking import RunWriter, Study

_COLUMNS = ("checkpoint", "n_tokens", "mix", "seed", "training_run")
_ONE_MIX = "all"  # the name of the data where nobody told it
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class CheckpointRequest:
    """A checkpoint to measure, and what its files don't tell: how it was trained."""

    folder: "CheckpointFolder"
    size: ModelSize
    point: DesignPoint
    training_run: str


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """What every checkpoint of a call is measured with."""

    study: "Study"
    texts: "EvaluationTexts"
    config: Config
    options: EvaluateOptions
    out: Output

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the losses beside the checkpoint."""
        return measured_settings(self.options, self.config)


def evaluate(options: EvaluateOptions, config: Config, out: Output) -> dict[str, Any]:
    """Measure the checkpoints that the study doesn't hold yet.

    Raises:
        InputError: a checkpoint that can't be measured, or that the study has under another N, D or mix.
        TrackingError: the store failed; the same command goes on.
        TrainingError: the device or the disk has no room.
    """
    from skillscale.lm.evaluation.checkpoints import read_texts
    from skillscale.tracking import StudyStore

    if is_shipped("study", options.study):
        raise InputError(f"{options.study} is a study that is trained here; give --study another name")
    asked = _asked(options)
    _check_context(asked, options.reading.context)
    registry = StudyStore.open(options.tracking, cache=options.cache)
    study = registry.open_evaluated(
        config.study.name, measured_settings(options, config), metrics=_metric_names(asked, config)
    )
    texts = read_texts(config, options.cache, progress=out.progress)
    study.bind_data(texts.data_hash)
    bench = _Bench(study=study, texts=texts, config=config, options=options, out=out)
    told = _settle_all(asked, bench)
    out.text(f"UI: {registry.ui_command}\n    {study.chart_link}")
    return {"study": study.name, "runs": told, "ui": registry.ui_command}


def measured_settings(options: EvaluateOptions, config: Config) -> dict[str, Any]:
    """All that must be the same for every checkpoint of a study."""
    chosen = {"context": options.reading.context, "dtype": options.reading.dtype}
    described: dict[str, Any] = to_plain(config.skills)
    return {"sets": config.measured_dict["skills"]["sets"], "skills": described["skills"], **chosen}


def _asked(options: EvaluateOptions) -> list[CheckpointRequest]:
    """Every checkpoint that is named, looked at: what is wrong with any comes up before the first is measured."""
    if bool(options.table) == bool(options.checkpoint):
        raise InputError("evaluate needs either --checkpoint FOLDER with --n_tokens D, or --table CSV of many")
    rows = _table_rows(options) if options.table else [_row_of(options)]
    found, wrong = [], []
    for row in rows:
        try:
            found.append(_look(row, options.reading.first_token))
        except InputError as error:
            wrong.append(str(error))
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise InputError("; ".join(wrong[:_SHOWN]) + more)
    names: dict[str, str] = {}
    for one in found:
        if one.point.key in names:
            raise InputError(
                f"{names[one.point.key]} and {one.folder.name} have one N, D, mix and seed; give another seed to "
                "another training, and name what is the same once"
            )
        names[one.point.key] = one.folder.name
    return found


def _row_of(options: EvaluateOptions) -> dict[str, str]:
    if options.n_tokens is None:
        raise InputError("--checkpoint needs --n_tokens D: a folder doesn't tell how many tokens it was trained on")
    row = {name: str(getattr(options, name)) for name in _COLUMNS}
    return row | {"name": "" if Path(row["checkpoint"]).is_absolute() else row["checkpoint"]}


def _table_rows(options: EvaluateOptions) -> list[dict[str, str]]:
    """The rows of a table, whose folders are beside it.

    Raises:
        InputError: it can't be read, or has other columns.
    """
    path = Path(options.table)
    given = [f"--{name}" for name in ("n_tokens", "mix", "training_run") if getattr(options, name)]
    if given:
        raise InputError(f"{', '.join(given)} goes with --checkpoint; of a --table it is a column")
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            rows, names = list(reader), list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} can't be read as CSV: {error}") from error
    unknown = [str(name) for name in names if name not in _COLUMNS]
    absent = [name for name in _COLUMNS[:2] if name not in names]
    if unknown or absent or not rows:
        what = f"has the columns {', '.join(names)}" if unknown or absent else "has no rows"
        raise InputError(f"{path} {what}; it takes {', '.join(_COLUMNS)}, of which the first two are needed")
    told = [{name: (row.get(name) or "").strip() for name in _COLUMNS} for row in rows]
    return [row | {"name": row["checkpoint"], "checkpoint": str(path.parent / row["checkpoint"])} for row in told]


def _look(row: Mapping[str, str], first_token: str) -> CheckpointRequest:
    from skillscale.lm.evaluation.hf_folder import open_folder
    from skillscale.lm.evaluation.hf_model import read_model_size

    place = Path(row["checkpoint"]).expanduser()
    n_tokens, seed = _number(row["n_tokens"], "n_tokens", place), _number(row["seed"] or "0", "seed", place)
    mix = _mix(row["mix"], place)
    # A folder of the hub's cache is known by its name there
    is_snapshot = place.absolute().parent.name == "snapshots"
    folder = open_folder(place, name="" if is_snapshot or place == Path() else row["name"], first_token=first_token)
    size = read_model_size(folder)
    point = DesignPoint(n_params=size.n_params, n_tokens=n_tokens, mix=mix, seed=seed)
    return CheckpointRequest(folder=folder, size=size, point=point, training_run=row["training_run"])


def _number(text: str, name: str, place: Path) -> int:
    """A whole number; ``3e11`` is one."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0 and number == int(number)):
        raise InputError(f"{name} of {place} must be a whole number, as in 3e11, but it is {text!r}")
    return int(number)


def _mix(text: str, place: Path) -> Mix:
    """Shares of categories, or the name of the data alone."""
    try:
        return Mix.parse(text) if "=" in text else Mix({text.strip() or _ONE_MIX: 1.0})
    except InputError as error:
        raise InputError(f"mix of {place}: {error}") from error


def _check_context(asked: Sequence[CheckpointRequest], context: int) -> None:
    """Refuse models that can't read as much as the others of the study will have read."""
    short = [one for one in asked if 0 < one.size.context < context]
    if short:
        least = min(one.size.context for one in short)
        raise InputError(
            f"{', '.join(one.folder.name for one in short[:_SHOWN])} read at most {least} tokens, but --context is "
            f"{context}, and losses compare at one context alone; give --context {least}, in a study of its own"
        )


def _metric_names(asked: Sequence[CheckpointRequest], config: Config) -> list[str]:
    names = [one.name for one in config.skills.sets] + [one.name for one in config.skills.skills]
    return names + sorted({name for one in asked for name in one.point.mix.shares})


def _settle_all(asked: Sequence[CheckpointRequest], bench: _Bench) -> list[dict[str, Any]]:
    """Every checkpoint in turn, while the study's description in the UI is kept current."""
    describer, told = StatusPublisher(bench.study, bench.out.progress), []
    try:
        for at, one in enumerate(asked, 1):
            told.append(_settle(one, bench, place=f"[{at}/{len(asked)}]"))
            describer.refresh()
    finally:
        describer.refresh(now=True)
    return told


def _settle(one: CheckpointRequest, bench: _Bench, *, place: str) -> dict[str, Any]:
    """Measure a checkpoint unless the study has it; tell what came of it."""
    began = time.monotonic()
    name = one.folder.digest(bench.options.cache)
    there = _known(one, name, bench.study.runs.finished())
    if there is not None:
        return _tell(there, bench.out, place=place, note="already there")
    bench.study.add_points([one.point])
    writer = bench.study.claim(only=one.point.key, retry_failed=bench.options.retry_failed)
    if writer is None:
        record = next(each for each in reversed(bench.study.runs.records()) if each.point.key == one.point.key)
        note = "--retry_failed measures it once more" if record.state is RunState.FAILED else "another process has it"
        return _tell(record, bench.out, place=place, note=note)
    record = _record(writer, one, name, bench)
    return _tell(record, bench.out, place=place, note=f"{time.monotonic() - began:.1f} s", new=True)


def _known(one: CheckpointRequest, name: str, records: Sequence[RunRecord]) -> RunRecord | None:
    """The finished run of this checkpoint, if there is one.

    Raises:
        InputError: the study has the checkpoint as another point, or another checkpoint as this point.
    """
    for record in records:
        same = record.checkpoint is not None and record.checkpoint.checkpoint_digest == name
        if same and record.point.key == one.point.key:
            return record
        if same or record.point.key == one.point.key:
            other = record.checkpoint.checkpoint if record.checkpoint else record.run_id
            how = f"with {_told(record.point)}, now {_told(one.point)}" if same else f"as {other}, with other files"
            raise InputError(
                f"{one.folder.name} is in study {record.study!r} {how}; delete run {record.run_id} in the MLflow UI "
                "if it is wrong, or give another --seed to another training, or another --study"
            )
    return None


def _record(writer: "RunWriter", one: CheckpointRequest, name: str, bench: _Bench) -> RunRecord:
    """Measure and write a checkpoint. What its weights or numbers don't allow makes a failed run, with the reason.

    Raises:
        TrainingError: the device has no room; the run is marked as killed, and can be taken up again.
    """
    settings, cache = bench.settings, bench.options.cache
    with writer:
        writer.begin(
            size=one.size,
            provenance=Provenance(
                config_hash=digest(settings), data_hash=bench.texts.data_hash, code_version=__version__
            ),
            checkpoint=Checkpoint(
                checkpoint=one.folder.name, checkpoint_digest=name, first_token=one.folder.first_token,
                dtype=bench.options.reading.dtype, revision=one.folder.revision, training_run=one.training_run,
            ),
            config_yaml=yaml.safe_dump(settings | {"sha256": one.folder.sha256(cache)}, sort_keys=False),
            data=[
                DataSet(name=each, digest=bench.texts.data_hash, role="evaluation", source="skills")
                for each in bench.texts.sets
            ],
        )  # fmt: skip
        try:
            measured = _measured(one, bench)
        except (InputError, DivergedError) as error:
            return writer.fail(str(error))
        except TrainingError as error:
            writer.kill(str(error))
            raise
        return writer.finish(skills=measured.skills, sets=measured.sets, skills_held_out=measured.skills_held_out)


def _measured(one: CheckpointRequest, bench: _Bench) -> "EvaluationResult":
    from skillscale.lm.evaluation.checkpoints import measure
    from skillscale.lm.evaluation.hf_model import load_checkpoint

    options = bench.options
    model = load_checkpoint(one.folder, dtype=options.reading.dtype, device=options.reading.device)
    return measure(
        model, one.folder, bench.texts, bench.config.skills, context=options.reading.context,
        batch_tokens=options.reading.batch_tokens,
    )  # fmt: skip


def _tell(record: RunRecord, out: Output, *, place: str, note: str, new: bool = False) -> dict[str, Any]:
    name = record.checkpoint.checkpoint if record.checkpoint else record.run_id
    reason = f": {record.reason}" if record.reason else ""
    out.text(f"{place} {name}: {_told(record.point)}: {record.state}{reason} ({note})")
    if new:
        for skill, value in record.skills.items():
            out.text(f"    {skill:<20}{_bits(value)} bits/byte  {value.loss:8.4f} ± {value.sem:.4f} nats/token")
    return {
        "checkpoint": name, "run_id": record.run_id, "state": record.state, "reason": record.reason, "new": new,
        "point": record.point.as_dict(), "size": record.size, "skills": record.skills,
        "skills_held_out": record.skills_held_out, "sets": record.sets,
    }  # fmt: skip


def _bits(value: Measurement) -> str:
    return f"{value.bpb:8.4f} ± {value.bpb_sem:.4f}"


def _told(point: DesignPoint) -> str:
    return f"N {point.n_params:.4g}, D {point.n_tokens:.4g}, mix {point.mix}, seed {point.seed}"
