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
from skillscale.execution.status import StatusPublisher
from skillscale.execution.worker_pool import next_claim, parent_exited
from skillscale.point import DesignPoint, digest
from skillscale.record import DataSet, Provenance, RunRecord, RunState

if TYPE_CHECKING:
    from skillscale.lm.data.prepare import PreparedData
    from skillscale.lm.train.loop import TrainProgress
    from skillscale.lm.train.stable_phase import StablePhaseCheckpoint
    from skillscale.tracking import RunWriter, Study

_REPORT_EVERY_S = 15.0


@dataclass(frozen=True, kw_only=True)
class WorkerContext:
    """What a worker needs to train any point of a study: settings, data, a folder for checkpoints, a place to speak."""

    config: Config
    prepared: "PreparedData"
    cache: Path
    progress: Callable[[str], None]


def work(
    study: "Study", train: Callable[["RunWriter"], RunRecord], progress: Callable[[str], None], *, retry_failed: bool = False,
    sampled_only: bool = False, wait_for_others: bool = False,
) -> int:  # fmt: skip
    """Train claimed points until none is left or the process that started us is gone; return how many were ended.

    While a sampler fills the queue, points may come. With ``wait_for_others`` they may also come back from workers that
    are lost. A worker stays with a trunk, whose state it has at hand.
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
        done = study.progress()
        progress(f"[{done.finished}/{done.planned}] {describe_run(record)} ({time.monotonic() - began_s:.1f} s)")
        publisher.refresh()  # workers of a cluster have nobody else who would
    return ended


def train_claimed(writer: "RunWriter", context: WorkerContext, study: "Study") -> RunRecord:
    """Train, measure and record the point of a claim. A run that diverges is recorded as failed, with its reason.

    Raises:
        Stopped: the process that started us is gone; the run is marked as killed and can be claimed again.
        LeaseLostError: the point was given to another, as our heartbeat was not seen for too long.
        TrainingError: out of disk, or a checkpoint that can't be used; the run is marked in the same way.
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
        trunk = _trunk(writer, context, study) if recipe.optimizer_plan.stable_phase else None
        measure = partial(
            run.train_and_measure, recipe, context.config, context.prepared, checkpoint=checkpoint, stable_phase=trunk,
            on_progress=_progress_reporter(writer, context.progress),
            should_stop=lambda: parent_exited() or not writer.keep_alive(),
        )  # fmt: skip
        try:
            try:
                outcome = measure()
            except DamagedCheckpointError as error:
                aside = checkpoint.replace(checkpoint.with_suffix(".damaged"))
                context.progress(f"{format_point(writer.point)}: trained anew, for {error} (moved to {aside.name})")
                outcome = measure()
        except DivergedError as error:
            checkpoint.unlink(missing_ok=True)
            failed = writer.fail(str(error))
            _forget(trunk, writer, study)
            return failed
        except TrainingError as error:
            writer.kill(str(error))
            raise
        except TrainingInterrupted:
            writer.check_lease()
            writer.kill("stopped: the command that started this worker is gone")
            raise
        _log_curve(writer, outcome.curve)
        record = writer.finish(
            cost=outcome.cost,
            sets=outcome.sets,
            skills=outcome.skills,
            skills_held_out=outcome.skills_held_out,
            data_use=outcome.data_use,
            exposures=outcome.exposures,
        )
        checkpoint.unlink(missing_ok=True)
        _forget(trunk, writer, study)
        return record


def _trunk(writer: "RunWriter", context: WorkerContext, study: "Study") -> "StablePhaseCheckpoint":
    """The file that the runs of a trunk share in this study; longer ones go on from what this one leaves."""
    from skillscale.lm.train.stable_phase import StablePhaseCheckpoint

    point = writer.point
    name = digest([study.name, point.stable_phase, context.config.hash, context.prepared.data_hash])
    longer = any(other.n_tokens > point.n_tokens for other in _waiting(point, study))
    return StablePhaseCheckpoint(path=context.cache / "trunks" / f"{name}.pt", is_reused=longer)


def _waiting(point: DesignPoint, study: "Study") -> list[DesignPoint]:
    """The other points of a point's trunk that are still to be trained, or are being trained."""
    alike = [
        each
        for each in study.planned()
        if each.point.stable_phase == point.stable_phase and each.point.key != point.key
    ]
    return [each.point for each in alike if each.status not in ("FINISHED", "FAILED")]


def _forget(trunk: "StablePhaseCheckpoint | None", writer: "RunWriter", study: "Study") -> None:
    """Delete the state of a trunk that no point waits for any more."""
    if trunk is not None and not _waiting(writer.point, study):
        trunk.delete()


def data_sets(prepared: "PreparedData") -> list[DataSet]:
    """The data that go into every run of a study, for the registry's data set column."""
    names = [(name, "training") for name in prepared.categories]
    names += [(name, "evaluation") for name in (*prepared.sets, *prepared.validation)]
    return [
        DataSet(name=name, digest=prepared.data_hash, role=role, source=str(prepared.folder)) for name, role in names
    ]


def describe_run(record: RunRecord) -> str:
    """One line about a run that ended."""
    losses = ", ".join(f"{name} {value.loss:.3f}" for name, value in record.skills.items())
    outcome = losses if record.state is RunState.FINISHED else f"{record.state}: {record.reason}"
    return f"{format_point(record.point)}: {outcome}"


def format_point(point: DesignPoint) -> str:
    """A point for a person: ``C 1.6e+11, N 3.1e+04, D 8.6e+05, seed 0``."""
    return f"C {point.flops:.2g}, N {point.n_params:.3g}, D {point.n_tokens:.3g}, seed {point.seed}"


def _log_curve(writer: "RunWriter", curve: Sequence[tuple[int, float]]) -> None:
    """Write the rows that are new; the writer knows the last one it was given."""
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
        report(f"    {format_point(writer.point)}: {share:.0%} of the tokens, loss {progress.loss:.3f}")

    return report_progress
