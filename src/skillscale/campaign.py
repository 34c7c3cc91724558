"""The entries that train: prepare, train one point, train a grid with several workers, reap, and the main job."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillscale import estimate
from skillscale.config import Config, check_mix, resolve
from skillscale.errors import InputError, TrainingError
from skillscale.grid import cost, grid_points
from skillscale.lm.shape import shape_for
from skillscale.output import Output
from skillscale.point import DesignPoint, Mix
from skillscale.worker import PARENT, Desk, named, train_claimed, work

if TYPE_CHECKING:
    from skillscale.lm.prepare import Prepared
    from skillscale.tracking import Registry, Study

_LOOK_EVERY_S = 0.5
_TELL_EVERY_S = 30.0
_GRACE_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A study that is open for training: its data prepared, its settings agreed with the registry's."""

    registry: "Registry"
    study: "Study"
    prepared: "Prepared"


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
    point = _asked_point(arguments, config)
    opened = open_study(arguments, config, out, [point])
    opened.study.add_points([point])
    writer = opened.study.claim(only=point.key)
    if writer is None:
        out.progress(f"{named(point)} is in study {opened.study.name} already: it is not trained again")
    else:
        train_claimed(writer, _desk(arguments, config, opened, out))
    record = next(one for one in reversed(opened.study.records()) if one.point.key == point.key)
    out.text(f"{named(point)}: {record.state} {record.reason}".rstrip())
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
    opened.registry.annotate_launcher(opened.study, note=f"One point: {named(point)}, {record.state}")
    return result


def grid(arguments: Mapping[str, Any], config: Config, out: Output) -> dict[str, Any]:
    """Train the points of the study with several workers; with ``dry_run`` list them and their cost."""
    config = _asked_grid(arguments, config)
    points = [each.point for each in grid_points(config, sizes=arguments["sizes"], seeds=arguments["seeds"])]
    if arguments["dry_run"]:
        return estimate.dry_run(points, config, arguments["workers"], out)
    return _train_all(points, arguments, config, out)


def worker(arguments: Mapping[str, Any], config: Config, out: Output) -> dict[str, Any]:
    """Train the points that wait in the study's queue until there are none."""
    opened = open_study(arguments, config, out, [])
    ended = work(opened.study, _desk(arguments, config, opened, out), retry_failed=arguments["retry_failed"])
    return {"study": opened.study.name, "ended": ended}


def main(arguments: Mapping[str, Any], config: Config, out: Output) -> dict[str, Any]:
    """Train the study's points, fit every skill, write the page, print the table."""
    from skillscale import analysis

    trained = _train_all([each.point for each in grid_points(config)], arguments, config, out)
    return {**analysis.report(arguments, config, out), "training": trained}


def reap(arguments: Mapping[str, Any], config: Config | None, out: Output) -> dict[str, Any]:  # noqa: ARG001
    """Close the runs whose process is gone, so that none stays RUNNING for ever."""
    registry = _registry(arguments)
    names = [arguments["study"]] if arguments["study"] else registry.study_names()
    reaped = [(name, one) for name in names for one in registry.study(name).reap()]
    for name, one in reaped:
        out.text(f"{name}: {one.run_name} closed: {one.reason}")
    out.text(f"{len(reaped)} runs closed in {len(names)} studies")
    return {"reaped": [{"study": name, "run_id": one.run_id, "reason": one.reason} for name, one in reaped]}


def _train_all(
    points: Sequence[DesignPoint], arguments: Mapping[str, Any], config: Config, out: Output
) -> dict[str, Any]:
    opened = open_study(arguments, config, out, points)
    opened.study.add_points(points)
    found = opened.study.progress()
    out.progress(
        f"study {opened.study.name} in {opened.registry.uri}: {found.finished} of {found.planned} points are trained"
    )
    began = time.monotonic()
    if found.finished < found.planned:
        _run_workers(opened.study, arguments, out)
    done = opened.study.progress()
    if done.failed:
        out.progress(f"{done.failed} points failed; their runs in the registry say why (--retry_failed tries again)")
    if done.finished + done.failed < done.planned:
        raise TrainingError(
            f"{done.planned - done.finished - done.failed} of {done.planned} points are not trained: their workers "
            "stopped (the lines above say why); run the same command to go on"
        )
    opened.registry.annotate_launcher(opened.study, note=f"{done.finished} of {done.planned} points are trained")
    return {
        "study": opened.study.name,
        "tracking": opened.registry.uri,
        "points": done.planned,
        "finished": done.finished,
        "failed": done.failed,
        "seconds": time.monotonic() - began,
    }


def _run_workers(study: "Study", arguments: Mapping[str, Any], out: Output) -> None:
    """Start the workers and wait for them; those that die are replaced as long as points are finished between."""
    finished = -1
    while (done := study.progress()).finished > finished and done.finished + done.failed < done.planned:
        finished = done.finished
        n_workers = min(arguments["workers"], done.planned - done.finished - done.failed)
        workers = [_start_worker(arguments) for _ in range(n_workers)]
        try:
            _watch(workers, study, out)
        finally:
            _stop(workers)


def _start_worker(arguments: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "skillscale", "worker", "--tracking", _registry(arguments).uri]
    words += [word for name in ("study", "data", "skills") for word in (f"--{name}", str(arguments[name]))]
    words += ["--cache", str(arguments["cache"].absolute())]
    words += ["--retry_failed", str(arguments.get("retry_failed", False)).lower()]
    overrides = {name: text for name, text in arguments.items() if "." in name}
    words += [word for name, text in overrides.items() for word in (f"--{name}", text)]
    environment = {**os.environ, PARENT: str(os.getpid())}
    environment.setdefault("OMP_NUM_THREADS", str(estimate.threads_of(arguments["workers"])))
    environment.pop("MLFLOW_RUN_ID", None)
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=sys.stderr, env=environment)  # noqa: S603


def _watch(workers: Sequence[subprocess.Popen[bytes]], study: "Study", out: Output) -> None:
    began, told = time.monotonic(), time.monotonic()
    at_start = _cost_left(study)
    while any(each.poll() is None for each in workers):
        time.sleep(_LOOK_EVERY_S)
        if time.monotonic() - told > _TELL_EVERY_S:
            told = time.monotonic()
            left = _cost_left(study)
            if 0 < left < at_start:
                minutes = (told - began) * left / (at_start - left) / 60
                out.progress(f"    about {minutes:.1f} minutes left")


def _cost_left(study: "Study") -> float:
    """Cost of the points that are not finished, in units that go with time on a small model."""
    trained = {one.point.key for one in study.records() if one.spending is not None}
    return sum(cost(point) for point in study.points() if point.key not in trained)


def _stop(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    """End workers that still run, and give them time to mark their runs."""
    for each in workers:
        if each.poll() is None:
            each.send_signal(signal.SIGTERM)
    until = time.monotonic() + _GRACE_S
    for each in workers:
        try:
            each.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            each.kill()
            each.wait()


def open_study(arguments: Mapping[str, Any], config: Config, out: Output, points: Sequence[DesignPoint]) -> Opened:
    """Connect, agree on the settings, prepare the data, warn of repetition: all before any training."""
    registry = _registry(arguments)
    study = registry.open_study(config.study.name, config)
    prepared = _prepared(arguments, config, out)
    study.settle_data(prepared.data_hash)
    for warning in sorted({text for point in points for text in prepared.check(point)}):
        out.progress(f"warning: {warning}")
    return Opened(registry=registry, study=study, prepared=prepared)


def _registry(arguments: Mapping[str, Any]) -> "Registry":
    from skillscale.tracking import Registry

    return Registry.open(arguments["tracking"], cache=arguments.get("cache"))


def _prepared(arguments: Mapping[str, Any], config: Config, out: Output) -> "Prepared":
    from skillscale.lm.prepare import prepare as prepare_data

    return prepare_data(config, arguments["cache"], progress=out.progress)


def _desk(arguments: Mapping[str, Any], config: Config, opened: Opened, out: Output) -> Desk:
    return Desk(config=config, prepared=opened.prepared, cache=Path(arguments["cache"]), out=out)


def _asked_point(arguments: Mapping[str, Any], config: Config) -> DesignPoint:
    mix: Mix = arguments["mix"] or config.study.mix_values[0]
    check_mix(mix, config.data)
    n_tokens, flops = arguments["n_tokens"], arguments["flops"]
    if (n_tokens is None) == (flops is None):
        raise InputError("a point needs --n_tokens or --flops, one of them")
    n_params = reached(arguments["n_params"], config)
    return DesignPoint(
        n_params=n_params, n_tokens=n_tokens or round(flops / (6 * n_params)), mix=mix, seed=arguments["seed"]
    )


def reached(n_params: float, config: Config) -> int:
    """The size that a model can have, nearest to the one asked for."""
    return shape_for(n_params, vocab_size=config.data.vocab_size, model=config.model).n_params


def _asked_grid(arguments: Mapping[str, Any], config: Config) -> Config:
    """The study with the budgets and mixes that were asked for on the command line."""
    study: dict[str, Any] = {}
    if arguments["budgets"]:
        study["budgets"] = list(arguments["budgets"])
        study["seeds"] = [config.study.seeds[0]]
    if arguments["mixes"]:
        study["mixes"] = [dict(mix.shares) for mix in arguments["mixes"]]
    if not study:
        return config
    plain = config.as_dict()
    return resolve({**plain, "study": {**plain["study"], **study}})
