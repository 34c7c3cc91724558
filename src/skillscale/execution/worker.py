"""A worker: claim a point, train and measure it, record it, until the queue is empty."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from skillscale import __version__
from skillscale.config import Config
from skillscale.errors import DamagedCheckpointError, DivergedError, LeaseLostError, TrainingError
from skillscale.execution.run_text import describe_run, format_point
from skillscale.execution.status_publisher import StatusPublisher
from skillscale.execution.worker_pool import next_claim, parent_exited
from skillscale.point import DesignPoint, digest
from skillscale.record import DataSet, Provenance, RunRecord

if TYPE_CHECKING:
    from skillscale.lm.data.prepare import PreparedData
    from skillscale.lm.run import RunResult
    from skillscale.lm.train.loop import TrainProgress
    from skillscale.lm.train.stable_phase import StablePhaseCheckpoint
    from skillscale.tracking import RunWriter, Study

_REPORT_EVERY_S = 15.0


@dataclass(frozen=True, kw_only=True)
class WorkerContext:
    """All that a worker needs to train any point of a study.

    Args:
        config: Settings of the study.
        prepared: Its prepared data.
        cache: Folder for checkpoints.
        progress: Receiver of a line for a person.
    """

    config: Config
    prepared: "PreparedData"
    cache: Path
    progress: Callable[[str], None]


def work(
    study: "Study", train: Callable[["RunWriter"], RunRecord], progress: Callable[[str], None],
    *, retry_failed: bool = False, sampled_only: bool = False, wait_for_others: bool = False,
) -> int:  # fmt: skip
    """Train claimed points until none is left, or until the process that started this one ends; return their number.

    A worker stays with a trunk, because it has the state of its stable phase at hand.

    Args:
        study: The study.
        train: Function that makes the run of a claim.
        progress: Receiver of a line for a person.
        retry_failed: Train the failed points once more.
        sampled_only: Take only points that the sampler chose.
        wait_for_others: Wait while other workers train, to take over the points that they lose.
    """
    ended, trunk = 0, ""
    publisher = StatusPublisher(study, progress)
    which = {"retry_failed": retry_failed, "sampled_only": sampled_only, "wait_for_others": wait_for_others}
    while (writer := next_claim(study, trunk=trunk, **which)) is not None:
        began_s = time.monotonic()
        progress(f"takes {format_point(writer.point)}")
        try:
            record = train(writer)
        except LeaseLostError as error:
            progress(f"{format_point(writer.point)}: {error}")
            continue
        trunk = record.optimizer_plan.stable_phase if record.optimizer_plan else ""
        ended += 1
        counts = study.progress()
        progress(f"[{counts.finished}/{counts.planned}] {describe_run(record)} ({time.monotonic() - began_s:.1f} s)")
        publisher.refresh()  # on a cluster no other process would
    return ended


def train_claimed(writer: "RunWriter", context: WorkerContext, study: "Study") -> RunRecord:
    """Train, measure and record the point of a claim. A run that diverges is recorded as failed, with its reason.

    Raises:
        TrainingInterrupted: The process that started this one has ended. The run is marked as killed, and can be
            claimed again.
        LeaseLostError: The point was given to another worker, because heartbeats of this one came too late.
        TrainingError: The disk is full, or a checkpoint cannot be used. The run is marked as killed.
    """
    from skillscale.lm import run
    from skillscale.lm.train.loop import TrainingInterrupted

    with writer:
        recipe = run.training_recipe(writer.point, context.config, context.prepared)
        writer.begin(
            size=recipe.size,
            optimizer_plan=recipe.optimizer_plan,
            provenance=Provenance(
                config_hash=context.config.hash, data_hash=context.prepared.data_hash, code_version=__version__
            ),
            config_yaml=yaml.safe_dump(context.config.as_dict(), sort_keys=False),
            data=data_sets(context.prepared),
        )
        checkpoint = context.cache / "checkpoints" / f"{writer.run_id}.pt"
        trunk = _trunk_checkpoint(writer, context, study) if recipe.optimizer_plan.stable_phase else None
        measure = partial(
            run.train_and_measure, recipe, context.config, context.prepared, checkpoint=checkpoint, stable_phase=trunk,
            on_progress=_progress_reporter(writer, context.progress),
            should_stop=lambda: parent_exited() or not writer.keep_alive(),
        )  # fmt: skip
        try:
            result = _with_sound_checkpoint(measure, checkpoint, writer.point, context.progress)
        except DivergedError as error:
            checkpoint.unlink(missing_ok=True)
            failed = writer.fail(str(error))
            _delete_unused(trunk, writer, study)
            return failed
        except TrainingError as error:
            writer.kill(str(error))
            raise
        except TrainingInterrupted:
            writer.check_lease()
            writer.kill("stopped: the command that started this worker has ended")
            raise
        _log_curve(writer, result.curve)
        record = writer.finish(
            cost=result.cost,
            sets=result.sets,
            skills=result.skills,
            skills_held_out=result.skills_held_out,
            data_use=result.data_use,
            exposures=result.exposures,
        )
        checkpoint.unlink(missing_ok=True)
        _delete_unused(trunk, writer, study)
        return record


def _with_sound_checkpoint(
    measure: Callable[[], "RunResult"], checkpoint: Path, point: DesignPoint, progress: Callable[[str], None]
) -> "RunResult":
    """Train and measure; move a checkpoint that cannot be read out of the way, and start again without it."""
    try:
        return measure()
    except DamagedCheckpointError as error:
        moved = checkpoint.replace(checkpoint.with_suffix(".damaged"))
        progress(f"{format_point(point)}: {error}. It was moved to {moved.name}, and training starts again")
        return measure()


def _trunk_checkpoint(writer: "RunWriter", context: WorkerContext, study: "Study") -> "StablePhaseCheckpoint":
    """Return the checkpoint that the runs of a trunk share in this study; longer runs go on from it."""
    from skillscale.lm.train.stable_phase import StablePhaseCheckpoint

    point = writer.point
    name = digest([study.name, point.stable_phase, context.config.hash, context.prepared.data_hash])
    is_reused = any(other.n_tokens > point.n_tokens for other in _others_of_trunk(point, study))
    return StablePhaseCheckpoint(path=context.cache / "trunks" / f"{name}.pt", is_reused=is_reused)


def _others_of_trunk(point: DesignPoint, study: "Study") -> list[DesignPoint]:
    """Return the other points of a point's trunk that wait or run."""
    return [
        planned.point
        for planned in study.planned()
        if planned.point.stable_phase == point.stable_phase
        and planned.point.key != point.key
        and planned.status not in ("FINISHED", "FAILED")
    ]


def _delete_unused(trunk: "StablePhaseCheckpoint | None", writer: "RunWriter", study: "Study") -> None:
    """Delete the checkpoint of a trunk when no point waits for it."""
    if trunk is not None and not _others_of_trunk(writer.point, study):
        trunk.delete()


def data_sets(prepared: "PreparedData") -> list[DataSet]:
    """Return the data of every run of a study, as the MLflow UI lists them."""
    roles = [(name, "training") for name in prepared.categories]
    roles += [(name, "evaluation") for name in (*prepared.sets, *prepared.validation)]
    return [
        DataSet(name=name, digest=prepared.data_hash, role=role, source=str(prepared.folder)) for name, role in roles
    ]


def _log_curve(writer: "RunWriter", curve: Sequence[tuple[int, float]]) -> None:
    """Log the loss curve; the writer skips the rows that it has."""
    for tokens, loss in curve:
        writer.curve(tokens, loss)


def _progress_reporter(writer: "RunWriter", report: Callable[[str], None]) -> "Callable[[TrainProgress], None]":
    reported_s = time.monotonic()

    def report_progress(progress: "TrainProgress") -> None:
        nonlocal reported_s
        _log_curve(writer, progress.curve)
        if time.monotonic() - reported_s < _REPORT_EVERY_S:
            return
        reported_s = time.monotonic()
        share = progress.tokens / writer.point.n_tokens
        report(f"    {format_point(writer.point)}: {100 * share:.0f} % of the tokens, loss {progress.loss:.3f}")

    return report_progress
