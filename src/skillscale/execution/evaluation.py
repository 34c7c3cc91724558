"""Measure checkpoints that others trained on the skills of a study, as runs of a separate study.

Open families of models become points. N is counted from the checkpoint; the user gives D and the mix.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from skillscale import __version__
from skillscale.config import Config, is_shipped
from skillscale.config.options import EvaluateOptions
from skillscale.errors import DivergedError, InputError, TrainingError
from skillscale.execution.checkpoint_requests import CheckpointRequest, read_requests
from skillscale.execution.status_publisher import StatusPublisher
from skillscale.formatting import JsonObject, format_count, to_plain
from skillscale.point import DesignPoint, digest
from skillscale.record import Checkpoint, DataSet, Measurement, Provenance, RunRecord, RunState
from skillscale.tracking import StudyStore

if TYPE_CHECKING:
    from skillscale.lm.evaluation.checkpoints import EvaluationTexts
    from skillscale.lm.evaluation.skills import EvaluationResult
    from skillscale.tracking import RunWriter, Study

_SHOWN = 5
Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class EvaluatedCheckpoint:
    """The run of a checkpoint.

    Args:
        record: The run.
        place: Place in the call, as in ``[1/9]``.
        note: Time of the measurement, or the reason why there was none.
        is_new: Whether this call measured the checkpoint.
    """

    record: RunRecord
    place: str
    note: str
    is_new: bool = False

    @property
    def name(self) -> str:
        """Name of the checkpoint."""
        return self.record.checkpoint.checkpoint if self.record.checkpoint else self.record.run_id

    def text(self) -> str:
        """Return the run for a person, with the losses of a new one."""
        record = self.record
        reason = f": {record.reason}" if record.reason else ""
        lines = [f"{self.place} {self.name}: {_point_text(record.point)}: {record.state}{reason} ({self.note})"]
        if self.is_new:
            lines += [f"    {skill:<20}{_losses_text(value)}" for skill, value in record.skills.items()]
        return "\n".join(lines)

    def as_dict(self) -> JsonObject:
        """Return the values for ``--json``."""
        record = self.record
        return {
            "checkpoint": self.name, "run_id": record.run_id, "state": record.state, "reason": record.reason,
            "new": self.is_new, "point": record.point.as_dict(), "size": record.size, "skills": record.skills,
            "skills_held_out": record.skills_held_out, "sets": record.sets,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A study that is open for the checkpoints of a call, with the texts and settings of their measurement.

    Args:
        store: The tracking store.
        study: The study.
        texts: Texts of the evaluation sets.
        config: Settings.
        options: Options of the call.
        requests: Checkpoints to measure.
        progress: Receiver of a line for a person.
    """

    store: StudyStore
    study: "Study"
    texts: "EvaluationTexts"
    config: Config
    options: EvaluateOptions
    requests: tuple[CheckpointRequest, ...]
    progress: Progress

    def runs(self) -> Iterator[EvaluatedCheckpoint]:
        """Measure each checkpoint that the study does not hold, and yield its run; keep the UI's description current.

        Raises:
            InputError: The study has a checkpoint under another N, D or mix.
            TrackingError: The store failed; the same command goes on.
            TrainingError: The device or the disk has no room.
        """
        publisher = StatusPublisher(self.study, self.progress)
        try:
            for number, request in enumerate(self.requests, 1):
                yield self._run(request, place=f"[{number}/{len(self.requests)}]")
                publisher.refresh()
        finally:
            publisher.refresh(now=True)

    def _run(self, request: CheckpointRequest, *, place: str) -> EvaluatedCheckpoint:
        """Measure a checkpoint, unless the study holds it; return its run."""
        began_s = time.monotonic()
        fingerprint = request.folder.digest(self.options.cache)
        finished = _finished_run(request, fingerprint, self.study.runs.finished())
        if finished is not None:
            return EvaluatedCheckpoint(record=finished, place=place, note="already there")
        key = request.point.key
        self.study.add_points([request.point])
        writer = self.study.claim(only=key, retry_failed=self.options.retry_failed)
        if writer is None:
            record = next(record for record in reversed(self.study.runs.records()) if record.point.key == key)
            has_failed = record.state is RunState.FAILED
            note = "--retry_failed measures it once more" if has_failed else "another process has it"
            return EvaluatedCheckpoint(record=record, place=place, note=note)
        record = self._record(writer, request, fingerprint)
        seconds = time.monotonic() - began_s
        return EvaluatedCheckpoint(record=record, place=place, note=f"{seconds:.1f} s", is_new=True)

    def _record(self, writer: "RunWriter", request: CheckpointRequest, fingerprint: str) -> RunRecord:
        """Measure a checkpoint and write its run. Unusable weights or numbers make a failed run, with the reason.

        Raises:
            TrainingError: The device has no room. The run is marked as killed, and can be resumed.
        """
        settings, folder = measured_settings(self.options, self.config), request.folder
        with writer:
            writer.begin(
                size=request.size,
                provenance=Provenance(
                    config_hash=digest(settings), data_hash=self.texts.data_hash, code_version=__version__
                ),
                checkpoint=Checkpoint(
                    checkpoint=folder.name, checkpoint_digest=fingerprint, first_token=folder.first_token,
                    dtype=self.options.reading.dtype, revision=folder.revision, training_run=request.training_run,
                ),
                config_yaml=yaml.safe_dump(settings | {"sha256": folder.sha256(self.options.cache)}, sort_keys=False),
                data=[
                    DataSet(name=name, digest=self.texts.data_hash, role="evaluation", source="skills")
                    for name in self.texts.sets
                ],
            )  # fmt: skip
            try:
                result = self._measure(request)
            except (InputError, DivergedError) as error:
                return writer.fail(str(error))
            except TrainingError as error:
                writer.kill(str(error))
                raise
            return writer.finish(skills=result.skills, sets=result.sets, skills_held_out=result.skills_held_out)

    def _measure(self, request: CheckpointRequest) -> "EvaluationResult":
        from skillscale.lm.evaluation.checkpoints import measure
        from skillscale.lm.evaluation.hf_model import load_checkpoint

        reading = self.options.reading
        model = load_checkpoint(request.folder, dtype=reading.dtype, device=reading.device)
        return measure(
            model, request.folder, self.texts, self.config.skills, context=reading.context,
            batch_tokens=reading.batch_tokens,
        )  # fmt: skip


def open_evaluation(options: EvaluateOptions, config: Config, progress: Progress) -> Evaluation:
    """Look at every checkpoint of a call, and open its study.

    Raises:
        InputError: A checkpoint cannot be measured, or the study has other settings.
    """
    from skillscale.lm.evaluation.checkpoints import read_texts

    if is_shipped("study", options.study):
        raise InputError(f"{options.study} is a study that is trained here. Give --study another name.")
    requests = read_requests(options)
    _check_context(requests, options.reading.context)
    store = StudyStore.open(options.tracking, cache=options.cache)
    study = store.open_evaluated(
        config.study.name, measured_settings(options, config), metrics=_metric_names(requests, config)
    )
    texts = read_texts(config, options.cache, progress=progress)
    study.bind_data(texts.data_hash)
    return Evaluation(
        store=store, study=study, texts=texts, config=config, options=options, requests=tuple(requests),
        progress=progress,
    )  # fmt: skip


def measured_settings(options: EvaluateOptions, config: Config) -> JsonObject:
    """Return all that must be the same for every checkpoint of a study."""
    reading = {"context": options.reading.context, "dtype": options.reading.dtype}
    skills: JsonObject = to_plain(config.skills)
    return {"sets": config.measured_dict["skills"]["sets"], "skills": skills["skills"], **reading}


def _check_context(requests: Sequence[CheckpointRequest], context: int) -> None:
    """Refuse models that read fewer tokens than the other models of the study will read."""
    short = [request for request in requests if 0 < request.size.context < context]
    if short:
        least = min(request.size.context for request in short)
        raise InputError(
            f"{', '.join(request.folder.name for request in short[:_SHOWN])} read at most {least} tokens, but "
            f"--context is {context}. Losses compare at one context alone: give --context {least} and another --study."
        )


def _metric_names(requests: Sequence[CheckpointRequest], config: Config) -> list[str]:
    names = [item_set.name for item_set in config.skills.sets] + [skill.name for skill in config.skills.skills]
    return names + sorted({name for request in requests for name in request.point.mix.shares})


def _finished_run(request: CheckpointRequest, fingerprint: str, records: Sequence[RunRecord]) -> RunRecord | None:
    """Return the finished run of this checkpoint, if there is one.

    Raises:
        InputError: The study has the checkpoint as another point, or another checkpoint as this point.
    """
    for record in records:
        is_same = record.checkpoint is not None and record.checkpoint.checkpoint_digest == fingerprint
        if is_same and record.point.key == request.point.key:
            return record
        if is_same or record.point.key == request.point.key:
            other = record.checkpoint.checkpoint if record.checkpoint else record.run_id
            points = f"with {_point_text(record.point)}, now {_point_text(request.point)}"
            difference = points if is_same else f"as {other}, with other files"
            raise InputError(
                f"{request.folder.name} is in study {record.study!r} {difference}. Delete run {record.run_id} in the "
                "MLflow UI if it is wrong, or give another --seed to another training, or another --study."
            )
    return None


def _losses_text(value: Measurement) -> str:
    return f"{value.bpb:8.4f} ± {value.bpb_sem:.4f} bits/byte  {value.loss:8.4f} ± {value.sem:.4f} nats/token"


def _point_text(point: DesignPoint) -> str:
    size, tokens = format_count(point.n_params, 4), format_count(point.n_tokens, 4)
    return f"N {size}, D {tokens}, mix {point.mix}, seed {point.seed}"
