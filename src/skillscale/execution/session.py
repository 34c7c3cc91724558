"""The entries that train: prepare, train one point, train a grid with several workers, and reap."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillscale.cli.output import Output
from skillscale.config import Config, check_mix, conf_file, is_shipped, overridden
from skillscale.errors import InputError, TrainingError
from skillscale.execution.grid import grid_points, nearest_size
from skillscale.execution.status import StatusPublisher, study_status
from skillscale.execution.worker import WorkerContext, format_point, train_claimed, work
from skillscale.execution.worker_pool import (
    check_launcher,
    is_external_launcher,
    print_worker_command,
    start_worker,
    stop_workers,
    worker_options,
)
from skillscale.point import DesignPoint, Mix
from skillscale.record import State

if TYPE_CHECKING:
    from skillscale.execution.launchers import WorkerHandle
    from skillscale.lm.data.prepare import PreparedData
    from skillscale.tracking import Study, StudyStore

_LOOK_EVERY_S = 0.5
_TELL_EVERY_S = 30.0
_NOT_TRAINED = {
    State.FINISHED: "this point is in the study already: it is not trained again",
    State.FAILED: "this point failed before; --retry_failed trains it once more",
    State.RUNNING: "another process is training this point",
    State.KILLED: "this point was killed, and could not be taken up again",
}


@dataclass(frozen=True, kw_only=True)
class TrainingSession:
    """A study that is open for training: its data prepared, its settings agreed with the registry's."""

    registry: "StudyStore"
    study: "Study"
    prepared: "PreparedData"


def prepare(arguments: Mapping[str, Any], config: Config, out: Output) -> dict[str, Any]:
    """Build or fetch the data, train the tokenizer, write the token arrays."""
    prepared = _prepared(arguments, config, out)
    tokens = {name: category.n_tokens for name, category in prepared.categories.items()}
    items = {name: len(items) for name, items in prepared.sets.items()}
    for name, n_tokens in tokens.items():
        out.text(f"{name:<24}{n_tokens:>12,} tokens")
    for name, n_items in items.items():
        out.text(f"{name:<24}{n_items:>12,} items")
    out.text(f"in {prepared.folder}")
    return {"data_hash": prepared.data_hash, "folder": prepared.folder, "tokens": tokens, "items": items}


def train(arguments: Mapping[str, Any], config: Config, out: Output) -> dict[str, Any]:
    """Train and measure one point, unless the study holds it already."""
    if (along := _along(config)) is not None:
        return along
    point = _asked_point(arguments, config)
    opened = open_study(arguments, config, out, [point])
    opened.study.add_points([point])
    writer = opened.study.claim(only=point.key, retry_failed=arguments["retry_failed"])
    if writer is not None:
        train_claimed(writer, _desk(arguments, config, opened, out), opened.study)
    StatusPublisher(opened.study, out.progress).refresh(now=True)
    record = next(one for one in reversed(opened.study.runs.records()) if one.point.key == point.key)
    if writer is None:
        out.progress(_NOT_TRAINED[record.state])
    out.text(f"{format_point(point)}: {record.state} {record.reason}".rstrip())
    for name, value in record.skills.items():
        out.text(f"  {name:<22}{value.loss:8.4f} ± {value.sem:.4f} nats/token  {value.bpb:7.4f} bits/byte")
    result = {
        "run_id": record.run_id,
        "study": record.study,
        "state": record.state,
        "reason": record.reason,
        "point": record.point.as_dict(),
        "trained": writer is not None,
        "skills": record.skills,
        "sets": record.sets,
    }
    opened.registry.annotate_mlflow_project_run(opened.study, note=f"One point: {format_point(point)}, {record.state}")
    return result


def grid(arguments: Mapping[str, Any], config: Config, out: Output) -> dict[str, Any]:
    """Train the points of the study with several workers; with ``dry_run`` list them and their cost."""
    for mix in arguments["mixes"] or ():
        check_mix(mix, config.data)
    asked = {name: arguments[name] for name in ("budgets", "sizes", "mixes", "seeds")}
    points = [each.point for each in grid_points(config, **asked)]
    if arguments["dry_run"]:
        from skillscale.execution import cost

        accelerator = cost.Accelerator(flops_per_s=arguments["gpu_flops"], utilisation=arguments["mfu"])
        return cost.print_cost(points, config, arguments["workers"], out, accelerator=accelerator)
    return train_all(points, arguments, config, out)


def worker(arguments: Mapping[str, Any], config: Config, out: Output) -> dict[str, Any]:
    """Train the points that wait in the study's queue until there are none, and no sampler adds more."""
    asked = {name: arguments[name] for name in ("retry_failed", "sampled", "stay")}
    if arguments["trainer"]:
        from skillscale.execution.user_trainer import train_with_user_trainer

        ended = train_with_user_trainer(arguments, config.study.name, out)
        return {"study": config.study.name, "ended": ended}
    registry = _registry(arguments)
    if registry.queue:
        kept = registry.kept_config(config.study.name)
        config = overridden(kept, {name: text for name, text in arguments.items() if "." in name})
    else:
        require_known_study(arguments)
    if (along := _along(config)) is not None:
        return along
    opened = open_study(arguments, config, out, [], keep=not registry.queue)
    desk = _desk(arguments, config, opened, out)
    ended = work(opened.study, lambda writer: train_claimed(writer, desk, opened.study), out, **asked)
    return {"study": opened.study.name, "ended": ended}


def reap(arguments: Mapping[str, Any], config: Config | None, out: Output) -> dict[str, Any]:  # noqa: ARG001
    """Close the runs whose process is gone, so that none stays RUNNING for ever."""
    registry = _registry(arguments)
    names = [arguments["study"]] if arguments["study"] else registry.study_names()
    patience = arguments["others_after_s"]
    reaped = [(name, one) for name in names for one in registry.study(name).close_stale(stale_after_s=patience)]
    for name, one in reaped:
        out.text(f"{name}: {one.run_name} closed: {one.reason}")
    out.text(f"{len(reaped)} runs closed in {len(names)} studies")
    return {"reaped": [{"study": name, "run_id": one.run_id, "reason": one.reason} for name, one in reaped]}


def train_all(
    points: Sequence[DesignPoint], arguments: Mapping[str, Any], config: Config, out: Output
) -> dict[str, Any]:
    """Train points with several workers, those that the study has aside, and say how many are done.

    Raises:
        TrainingError: some are not, because workers stopped.
    """
    arguments = worker_options(arguments, config)
    check_launcher(arguments)
    opened = open_study(arguments, config, out, points)
    opened.study.add_points(points)
    found = opened.study.progress()
    out.progress(
        f"study {opened.study.name} in {opened.registry.place}: {found.finished} of {found.planned} points are trained"
    )
    if is_external_launcher(arguments):
        told = print_worker_command(arguments, out)
        return {"study": opened.study.name, "points": found.planned, "finished": found.finished, **told}
    began = time.monotonic()
    describer = StatusPublisher(opened.study, out.progress)
    describer.refresh(now=True)
    try:
        if found.finished < found.planned:
            _run_workers(opened.study, arguments, out, describer)
    finally:
        describer.refresh(now=True)
    opened.study.close_lost()
    done = opened.study.progress()
    if done.failed:
        out.progress(f"{done.failed} points failed; their runs in the registry say why (--retry_failed tries again)")
    if done.finished + done.failed < done.planned:
        raise TrainingError(_unfinished(opened.study))
    opened.registry.gather_statistics()
    opened.registry.annotate_mlflow_project_run(
        opened.study, note=f"{done.finished} of {done.planned} points are trained"
    )
    return {
        "study": opened.study.name,
        "tracking": opened.registry.place,
        "points": done.planned,
        "finished": done.finished,
        "failed": done.failed,
        "seconds": time.monotonic() - began,
    }


def _run_workers(study: "Study", arguments: Mapping[str, Any], out: Output, describer: StatusPublisher) -> None:
    """Start the workers and wait for them; those that die are replaced as long as points are finished between."""
    retry, left_before = bool(arguments["retry_failed"]), None
    while (left := _left(study, retry_failed=retry)) and left != left_before:
        left_before = left
        workers = [
            start_worker(arguments, _registry(arguments).uri, retry_failed=retry)
            for _ in range(min(arguments["workers"], left))
        ]
        try:
            _watch(workers, study, out, describer)
        finally:
            stop_workers(workers)
        _await_others(study, out)
        retry = False


def _left(study: "Study", *, retry_failed: bool) -> int:
    done = study.progress()
    return done.planned - done.finished - (0 if retry_failed else done.failed)


def _await_others(study: "Study", out: Output) -> None:
    """Wait for points that other living processes of this machine train."""
    told = False
    while busy := study.holders():
        if not told:
            out.progress(
                f"waiting for {len(busy)} points that other processes train: {', '.join(sorted(busy.values()))}"
            )
            told = True
        time.sleep(_LOOK_EVERY_S)


def _unfinished(study: "Study") -> str:
    done = study.progress()
    count = f"{done.planned - done.finished - done.failed} of {done.planned} points are not trained"
    return f"{count}: their workers stopped (the lines above say why); run the same command to go on"


def _watch(workers: "Sequence[WorkerHandle]", study: "Study", out: Output, describer: StatusPublisher) -> None:
    told = time.monotonic()
    while any(each.poll() is None for each in workers):
        time.sleep(_LOOK_EVERY_S)
        describer.refresh()
        if time.monotonic() - told > _TELL_EVERY_S:
            told = time.monotonic()
            standing = study_status(study)
            if standing.expected_end_s is not None:
                out.progress(f"    about {(standing.expected_end_s - standing.now_s) / 60:.1f} minutes left")


def require_known_study(arguments: Mapping[str, Any]) -> None:
    """Refuse the name of a study that conf/ does not have: what trains here begins no study by a slip of the pen.

    Raises:
        InputError: naming those there are.
    """
    if not is_shipped("study", arguments["study"]):
        conf_file("study", arguments["study"])


def open_study(
    arguments: Mapping[str, Any], config: Config, out: Output, points: Sequence[DesignPoint], *, keep: bool = True
) -> TrainingSession:
    """Connect, agree on the settings, prepare the data, warn of repetition: all before any training.

    ``keep``: the settings for workers to come, which a worker's own are not.
    """
    registry = _registry(arguments)
    if config.study.name in registry.study_names():  # refuse other settings before the long work
        registry.open_study(config.study.name, config, keep=keep)
    prepared = _prepared(arguments, config, out)
    study = registry.open_study(config.study.name, config, keep=keep)
    study.bind_data(prepared.data_hash, (prepared.folder / "data.json").read_text(encoding="utf-8"))
    for warning in sorted({text for point in points for text in prepared.check(point)}):
        out.progress(f"warning: {warning}")
    return TrainingSession(registry=registry, study=study, prepared=prepared)


def _along(config: Config) -> dict[str, Any] | None:
    """What a process does that srun or torchrun started as another than the first: train along. None in the first."""
    if config.train.n_devices == 1:
        return None
    from skillscale.lm.train import follower

    runs = follower.run_as_follower(config.train)
    return None if runs is None else {"study": config.study.name, "along": runs}


def _registry(arguments: Mapping[str, Any]) -> "StudyStore":
    from skillscale.tracking import StudyStore

    return StudyStore.open(
        arguments["tracking"], cache=arguments.get("cache"), queue=arguments.get("storage", ""),
        heartbeat_timeout_s=arguments.get("patience_s"),
    )  # fmt: skip


def _prepared(arguments: Mapping[str, Any], config: Config, out: Output) -> "PreparedData":
    from skillscale.lm.data.prepare import prepare as prepare_data

    return prepare_data(config, arguments["cache"], progress=out.progress)


def _desk(arguments: Mapping[str, Any], config: Config, opened: TrainingSession, out: Output) -> WorkerContext:
    return WorkerContext(config=config, prepared=opened.prepared, cache=Path(arguments["cache"]), out=out)


def _asked_point(arguments: Mapping[str, Any], config: Config) -> DesignPoint:
    mix: Mix = arguments["mix"] or config.study.mix_values[0]
    check_mix(mix, config.data)
    n_tokens, flops = arguments["n_tokens"], arguments["flops"]
    if (n_tokens is None) == (flops is None):
        raise InputError("a point needs --n_tokens or --flops, one of them")
    n_params = nearest_size(arguments["n_params"], config)
    return DesignPoint(
        n_params=n_params, n_tokens=n_tokens or round(flops / (6 * n_params)), mix=mix, seed=arguments["seed"]
    )
